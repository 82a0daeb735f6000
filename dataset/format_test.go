package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

const goldenDir = "testdata/v1"

// prepareGolden is how testdata/v1 was made.
func prepareGolden(t testing.TB, out string) *Manifest {
	t.Helper()
	made, err := Prepare(context.Background(), PrepareOptions{
		Inputs: []string{"testdata/text"}, Output: out, TokenizerKind: KindByte, SequenceLength: 8, ShardWindows: 12,
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.Train
}

// A dataset of version 1 must stay readable, and the same input must give the same bytes.
func TestGoldenV1(t *testing.T) {
	if *storagetest.Rewrite {
		prepareGolden(t, goldenDir)
	}
	m, err := ReadManifest(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	const digest = "blake3:292aa066e0da90b075c044c9f269b3364cdd3c24f3027a25f109087b19401f6c"
	if got := m.Digest().String(); got != digest {
		t.Errorf("digest %s, want %s", got, digest)
	}
	if _, err := Verify(context.Background(), goldenDir, nil); err != nil {
		t.Error(err)
	}
	var docs [][]int32
	tok := byteTokenizer{}
	for _, name := range []string{"fox.txt", "hello.go", "latin1.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata/text", name))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, append(tok.Encode([]int32{tok.BOS()}, text), tok.EOS()))
	}
	rows := plainRows(docs, 8, true)
	o := Options{Sources: []Source{{goldenDir, 1}}, Length: 8, GlobalBatch: 1, Order: Sequential, DocumentMask: true}
	s := openTest(t, o)
	for i, want := range rows {
		if got := rowOf(whole(t, s, 1, int64(i)), 0); !reflect.DeepEqual(got, want) {
			t.Errorf("window %d:\n got %v\nwant %v", i, got, want)
		}
	}
	again := t.TempDir()
	if got := prepareGolden(t, again); got.Digest() != m.Digest() {
		t.Errorf("preparing the same text again gives digest %v", got.Digest())
	}
	if len(m.Shards) < 2 {
		t.Errorf("%d shards, the golden dataset should have more", len(m.Shards))
	}
}

// flipped calls f for data with each single bit flipped in turn, or with one bit of each byte if data is long.
func flipped(data []byte, f func(what string, damaged []byte)) {
	for i := range data {
		for bit := range 8 {
			if len(data) > 4096 && bit != i%8 {
				continue
			}
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			f(fmt.Sprintf("byte %d bit %d", i, bit), damaged)
		}
	}
}

func TestDamagedIndexIsRefused(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(goldenDir, indexName(0)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseIndex(data); err != nil {
		t.Fatal(err)
	}
	flipped(data, func(what string, damaged []byte) {
		if _, err := parseIndex(damaged); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", what, err)
		}
	})
	for n := range data {
		if _, err := parseIndex(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: error %v", n, err)
		}
	}
}

func TestDamagedManifestIsRefused(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(goldenDir, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	flipped(data, func(what string, damaged []byte) {
		if _, err := parseManifest(damaged); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", what, err)
		}
	})
	for n := range data {
		if _, err := parseManifest(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: error %v", n, err)
		}
	}
}

// sealManifest puts the right checksum behind an altered manifest.
func sealManifest(data []byte) []byte {
	body := data[:max(0, len(data)-checksumLineLen)]
	return append(bytes.Clone(body), checksumLine(body)...)
}

// sealIndex puts the right checksum behind an altered index.
func sealIndex(data []byte) []byte {
	body := data[:max(0, len(data)-len(Digest{}))]
	d := digestOf(body)
	return append(bytes.Clone(body), d[:]...)
}

func TestManifestErrors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(goldenDir, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		old, new string
		is       error
		want     string
	}{
		{`"version": 1`, `"version": 2`, ErrVersion, "version 2, this build reads version 1"},
		{`"format": "herd-dataset"`, `"format": "zip"`, ErrCorrupt, `format "zip"`},
		{`"windows": 18`, `"windows": 19`, ErrCorrupt, "windows 19, its shards have 18"},
		{`"sequence_length": 8`, `"sequence_length": 0`, ErrCorrupt, "sequence_length 0"},
		{`"vocab": 258`, `"vocab": 200`, ErrCorrupt, "below 200"},
		{`"documents": 3`, `"documents": 0`, ErrCorrupt, "documents 0"},
		{`"documents": 3`, `"extra": 3`, ErrCorrupt, "unknown field"},
		{`"documents": 3`, `"documents": "3"`, ErrCorrupt, "documents"},
	} {
		altered := strings.Replace(string(data), c.old, c.new, 1)
		if altered == string(data) {
			t.Fatalf("the golden manifest has no %s", c.old)
		}
		_, err := parseManifest(sealManifest([]byte(altered)))
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.new, err, c.want)
		}
	}
}

func TestIndexErrors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(goldenDir, indexName(0)))
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		alter func(b []byte)
		is    error
		want  string
	}{
		{"version", func(b []byte) { le.PutUint32(b[8:], 9) }, ErrVersion, "version 9"},
		{"length", func(b []byte) { le.PutUint32(b[12:], 0) }, ErrCorrupt, "sequence length 0"},
		{"windows", func(b []byte) { le.PutUint32(b[16:], 1<<31) }, ErrCorrupt, "windows"},
		{"per batch", func(b []byte) { le.PutUint32(b[20:], 0) }, ErrCorrupt, "0 windows a batch"},
		{"batches", func(b []byte) { le.PutUint32(b[24:], 1<<31) }, ErrCorrupt, "an index of 2147483648 batches"},
		{"starts", func(b []byte) { le.PutUint32(b[28:], 1<<31) }, ErrCorrupt, "2147483648 documents"},
		{"tokens", func(b []byte) { le.PutUint64(b[32:], 1<<63) }, ErrCorrupt, "tokens"},
		{"size", func(b []byte) { le.PutUint64(b[40:], 8) }, ErrCorrupt, "within the 8 bytes"},
		{"offset", func(b []byte) { le.PutUint64(b[48:], 1<<63) }, ErrCorrupt, "batch 0 at offset"},
		{"batch size", func(b []byte) { le.PutUint32(b[56:], 4) }, ErrCorrupt, "batch 0 has 4 bytes"},
		{"start", func(b []byte) { le.PutUint32(b[64:], 1<<30) }, ErrCorrupt, "document 0 starts"},
	} {
		b := bytes.Clone(data)
		c.alter(b)
		_, err := parseIndex(sealIndex(b))
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// tryAll reads every window of a dataset. Whatever is wrong with it, the result is an error or the right tokens.
func tryAll(dir string, rows []plainRow) error {
	s, err := Open(Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 1, Order: Sequential, DocumentMask: true})
	if err != nil {
		return err
	}
	defer s.Close()
	var b Tokens
	for i, want := range rows {
		if err := s.Batch(context.Background(), int64(i), Part{0, 1}, &b); err != nil {
			return err
		}
		if !reflect.DeepEqual(rowOf(&b, 0), want) {
			return fmt.Errorf("window %d: %w: %v, want %v", i, errWrongTokens, rowOf(&b, 0), want)
		}
	}
	return nil
}

var errWrongTokens = errors.New("wrong tokens without an error")

// One bit of each byte of the files of a dataset flipped (of the manifest, which has a test of its own, of some bytes):
// Verify must name the file, reading must never give other tokens.
func TestEveryDamageIsFound(t *testing.T) {
	docs := makeDocs(3, 5)
	dir := makeDataset(t, layout{8, 20, 5}, docs)
	rows := plainRows(docs, 8, true)
	for name, every := range map[string]int{arrowName(0): 1, indexName(0): 1, manifestName: 17} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		if testing.Short() {
			every *= 20
		}
		for i := 0; i < len(data); i += every {
			if _, err := f.WriteAt([]byte{data[i] ^ 1<<(i%8)}, int64(i)); err != nil {
				t.Fatal(err)
			}
			report, err := Verify(context.Background(), dir, nil)
			if !errors.Is(err, ErrCorrupt) || len(report.Faults) == 0 || report.Faults[0].File != name {
				t.Errorf("%s byte %d: Verify says %v", name, i, err)
			}
			if err := tryAll(dir, rows); errors.Is(err, errWrongTokens) || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s byte %d: %v", name, i, err)
			}
			if _, err := f.WriteAt(data[i:i+1], int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tryAll(dir, rows); err != nil {
		t.Error(err)
	}
}

// A file that is cut while it is mapped is an error, whether the cut is at a page or inside one.
func TestCutWhileMapped(t *testing.T) {
	docs := makeDocs(3, 400)
	for _, size := range []int64{0, 100, 4096, -4} {
		dir := makeDataset(t, layout{8, 1000, 50}, docs)
		s := openTest(t, Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 400, Order: Sequential})
		b := whole(t, s, 400, 0) // every batch is checked now
		path := filepath.Join(dir, arrowName(0))
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if size < 0 {
			size += st.Size()
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		err = s.Batch(context.Background(), 0, Part{390, 1}, b)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), arrowName(0)+": batch 7") {
			t.Errorf("cut to %d of %d bytes: error %v", size, st.Size(), err)
		}
	}
}

func TestTokenOutsideVocabulary(t *testing.T) {
	docs := makeDocs(3, 6)
	docs[2][1] = 300
	dir := makeDataset(t, layout{8, 100, 2}, docs)
	position := len(docs[0]) + len(docs[1]) + 1
	want := fmt.Sprintf("%s: batch %d: corrupt data: token 300 at position %d, the vocabulary ends at 258",
		arrowName(0), position/18, position%18)
	if err := tryAll(dir, plainRows(docs, 8, true)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	report, err := Verify(context.Background(), dir, nil)
	want = fmt.Sprintf("batch %d, position %d", position/18, position%18)
	if err == nil || len(report.Faults) != 1 || report.Faults[0].Part != want {
		t.Errorf("Verify says %v, want %q", err, want)
	}
}

// A panic that is no fault of the mapping is not hidden.
func TestGuardPassesPanicsOn(t *testing.T) {
	for _, f := range []func() error{
		func() error { panic("other") },
		func() error { var p *int; *p = 1; return nil },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is gone")
				}
			}()
			t.Error(guard(make([]byte, 8), f))
		}()
	}
}
