package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// memReader is a storage.Reader of bytes.
type memReader struct{ *bytes.Reader }

func (memReader) Close() error { return nil }

// mend makes the crc and the lengths of a record file true, so that the fuzzer gets past them.
func mend(b []byte) []byte {
	if len(b) < headerSize+trailerSize {
		return b
	}
	b = bytes.Clone(b)
	body := b[:len(b)-trailerSize]
	binary.LittleEndian.PutUint64(b[16:], uint64(len(body)-headerSize))
	binary.LittleEndian.PutUint32(b[len(body):], crc32.Checksum(body, castagnoli))
	return b
}

// seeds adds the files of that name of the golden checkpoints.
func seeds(f *testing.F, name string) {
	files, err := filepath.Glob(filepath.Join("testdata", "v*", "step-*", name))
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden file %s: %v", name, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// typed fails unless err is one that a damaged file may cause.
func typed(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
		t.Errorf("untyped error: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	seeds(f, "data-00000.index")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, mend(b)} {
			const dataSize = 1 << 30
			end := int64(0)
			_, err := readIndex(memReader{bytes.NewReader(b)}, "index", dataSize, func(i Info) error {
				n, err := byteSize(i.DType, i.Shape)
				s := i.Slices[0]
				if err != nil || n != i.Bytes || s.Begin < end || s.Begin+s.Bytes > dataSize || checkName(i.Name) != nil ||
					s.Box.check(i.Shape) != nil || s.Bytes != s.Box.Elements()*int64(i.DType.Size()) {
					t.Errorf("accepted %+v", i)
				}
				end = s.Begin + s.Bytes
				return nil
			})
			typed(t, err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	seeds(f, "manifest")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, mend(b)} {
			m, digest, err := readManifest(memReader{bytes.NewReader(b)}, "manifest")
			typed(t, err)
			if err != nil {
				continue
			}
			again, err := encodeManifest(m)
			if err != nil {
				t.Fatalf("accepted %+v: %v", m, err)
			}
			m2, _, err := readManifest(memReader{bytes.NewReader(again)}, "manifest")
			if err != nil || len(m2.writers) != len(m.writers) || m2.state.id() != m.state.id() || digest == (Digest{}) {
				t.Errorf("%+v was read back as %+v, %v", m, m2, err)
			}
		}
	})
}

func FuzzLatest(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "v1", "latest"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		body, _, _ := bytes.Cut(b, []byte("\n"+latestCRC))
		for _, b := range [][]byte{b, []byte(sign(string(body) + "\n"))} {
			r, err := DecodeRef(b)
			if err != nil {
				continue
			}
			if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%q was read as %+v, which is written %q, %v", b, r, again, err)
			}
		}
	})
}
