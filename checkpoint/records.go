package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
)

// A record file is the form of manifests and indexes:
//
//	magic [8] | version u32 | records u32 | length u64 | records: (size u32, bytes)… | crc32c u32 of all before
//
// All numbers are little-endian. Every version begins with magic and version and ends with the crc, so that a file of
// a later version can be told from a damaged one.
const (
	headerSize  = 24
	trailerSize = 4
)

// Limits on what is read, in bytes.
const (
	maxManifest       = 16 << 20
	maxManifestRecord = 16 << 10
	maxConfig         = 256 << 10
	maxIndex          = 64 << 20
	maxSlice          = 256 << 10 // the crcs of 60 GiB
	maxWriter         = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordForm is a kind of record file.
type recordForm struct {
	magic     string
	version   uint32 // that is written; older ones are read
	maxFile   int64
	maxRecord func(i int) int // bytes of record i
}

var (
	indexForm    = recordForm{"herdindx", 2, maxIndex, func(int) int { return maxSlice }}
	manifestForm = recordForm{"herdmani", 1, maxManifest, func(i int) int {
		switch i {
		case 0:
			return maxManifestRecord
		case 1:
			return maxConfig
		}
		return maxWriter
	}}
)

// encodeRecords makes a whole record file. It refuses what readRecords would.
func encodeRecords(form recordForm, records [][]byte) ([]byte, error) {
	b := make([]byte, headerSize)
	for i, r := range records {
		if limit := form.maxRecord(i); len(r) > limit {
			return nil, fmt.Errorf("record %d has %d bytes, want at most %d", i, len(r), limit)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r)))
		b = append(b, r...)
	}
	if size := int64(len(b) + trailerSize); size > form.maxFile {
		return nil, fmt.Errorf("%d records make %d bytes, want at most %d", len(records), size, form.maxFile)
	}
	copy(b, form.magic)
	binary.LittleEndian.PutUint32(b[8:], form.version)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(records)))
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)-headerSize))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// readRecords checks a record file as a whole and then gives each record to `each`, which must not keep it. Its memory
// does not depend on what the file says beyond the limit of one record. It returns the digest of the file.
func readRecords(r storage.Reader, path string, form recordForm, each func(i int, rec []byte) error) (Digest, error) {
	size := r.Size()
	if size < headerSize+trailerSize || size > form.maxFile {
		return Digest{}, damaged(path, "it has %d bytes, want %d to %d", size, headerSize+trailerSize, form.maxFile)
	}
	digest, sum, err := digestFile(r, path)
	if err != nil {
		return Digest{}, err
	}
	var header [headerSize]byte
	var trailer [trailerSize]byte
	if err := readFull(r, path, header[:], 0); err != nil {
		return Digest{}, err
	}
	if err := readFull(r, path, trailer[:], size-trailerSize); err != nil {
		return Digest{}, err
	}
	v, count := binary.LittleEndian.Uint32(header[8:]), binary.LittleEndian.Uint32(header[12:])
	length, want := binary.LittleEndian.Uint64(header[16:]), binary.LittleEndian.Uint32(trailer[:])
	switch {
	case string(header[:8]) != form.magic:
		return Digest{}, damaged(path, "it begins with %q, want %q", header[:8], form.magic)
	case sum != want:
		return Digest{}, damaged(path, "its crc32c is %08x, but it says %08x", sum, want)
	case v > form.version:
		return Digest{}, fmt.Errorf("%s has version %d, this build knows %d: %w", path, v, form.version, ErrVersion)
	case v == 0:
		return Digest{}, damaged(path, "version %d", v)
	case length != uint64(size)-headerSize-trailerSize:
		return Digest{}, damaged(path, "its header says %d bytes of records, its size says %d", length,
			size-headerSize-trailerSize)
	}
	return digest, splitRecords(io.NewSectionReader(r, headerSize, int64(length)), path, form, int(count), each)
}

func splitRecords(r *io.SectionReader, path string, form recordForm, count int, each func(int, []byte) error) error {
	in := bufio.NewReaderSize(r, int(min(64<<10, r.Size())))
	left := r.Size()
	var buf []byte
	for i := range count {
		var prefix [4]byte
		if left < int64(len(prefix)) {
			return damaged(path, "it ends after %d of %d records", i, count)
		}
		if _, err := io.ReadFull(in, prefix[:]); err != nil {
			return &DamageError{File: path, Reason: "it cannot be read", Err: err}
		}
		left -= int64(len(prefix))
		n := int64(binary.LittleEndian.Uint32(prefix[:]))
		if limit := int64(form.maxRecord(i)); n > limit || n > left {
			return damaged(path, "record %d has %d bytes, want at most %d", i, n, min(limit, left))
		}
		if int64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return &DamageError{File: path, Reason: "it cannot be read", Err: err}
		}
		left -= n
		if err := each(i, buf[:n]); err != nil {
			return err
		}
	}
	if left != 0 {
		return damaged(path, "%d bytes follow the last of %d records", left, count)
	}
	return nil
}

// digestFile is the digest of a whole record file and the crc32c of all of it but the trailer.
func digestFile(r storage.Reader, path string) (d Digest, sum uint32, err error) {
	h := blake3.New()
	buf := make([]byte, min(64<<10, r.Size()))
	for pos, end := int64(0), r.Size(); pos < end; {
		b := buf[:min(int64(len(buf)), end-pos)]
		if err := readFull(r, path, b, pos); err != nil {
			return d, 0, err
		}
		h.Write(b)
		summed := min(int64(len(b)), max(0, end-trailerSize-pos))
		sum = crc32.Update(sum, castagnoli, b[:summed])
		pos += int64(len(b))
	}
	h.Sum(d[:0])
	return d, sum, nil
}

// readFull reads len(b) bytes at off; any failure is damage to the file.
func readFull(r io.ReaderAt, path string, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return damaged(path, "it ends at byte %d, within a read of %d", off+int64(n), len(b))
	default:
		return &DamageError{File: path, Reason: fmt.Sprintf("%d bytes at %d cannot be read", len(b), off), Err: err}
	}
}
