package checkpoint

import (
	"fmt"
	"io/fs"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	checkpointv1 "github.com/herdtrain/herd/proto/checkpoint/v1"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
)

// Limits on a tensor.
const (
	maxName   = 512 // bytes
	maxRank   = 8
	alignment = 4096    // of a slice's first byte in its data file
	chunkSize = 1 << 20 // bytes of a slice that have a crc of their own
)

var unmarshal = proto.UnmarshalOptions{DiscardUnknown: true}

// checkName accepts slash-separated paths that stay below where they are put, printable, and of bounded length.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("tensor name %.40q… has %d bytes, want at most %d", name, len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("tensor name %q holds a character that does not print", name)
	case name == "." || !fs.ValidPath(name):
		return fmt.Errorf("tensor name %q is no path of elements separated by '/'", name)
	}
	return nil
}

// byteSize is the bytes of a tensor: the product of its extents, each at least 1, times the size of an element.
func byteSize(dt tensor.DType, shape []int64) (int64, error) {
	if len(shape) > maxRank {
		return 0, fmt.Errorf("the shape has %d dimensions, want at most %d", len(shape), maxRank)
	}
	n := int64(dt.Size())
	for _, d := range shape {
		if d < 1 {
			return 0, fmt.Errorf("shape %v: every extent must be at least 1", shape)
		}
		if n > math.MaxInt64/d {
			return 0, fmt.Errorf("shape %v: the product overflows", shape)
		}
		n *= d
	}
	return n, nil
}

func align(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

// record is the slice's record in an index, as one of a tensor.
func (s Slice) record(name string, dt tensor.DType, shape []int64) ([]byte, error) {
	return proto.Marshal(&checkpointv1.Slice{
		Name: name, Dtype: dt.String(), GlobalShape: shape, Offset: s.Box.Offset, Extent: s.Box.Extent,
		Begin: s.Begin, Length: s.Bytes, ChunkCrc32C: s.CRC32C,
	})
}

// readIndex reads the index at path, of a data file with dataSize bytes, and gives to add each slice as a tensor that
// has just this one.
func readIndex(r storage.Reader, path string, dataSize int64, add func(Info) error) (Digest, error) {
	end := int64(0) // of the bytes of the slice before
	return readRecords(r, path, indexForm, func(i int, rec []byte) error {
		var s checkpointv1.Slice
		if err := unmarshal.Unmarshal(rec, &s); err != nil {
			return &DamageError{File: path, Reason: fmt.Sprintf("record %d", i), Err: err}
		}
		info, err := infoOf(&s)
		if err != nil {
			return damaged(path, "record %d: %v", i, err)
		}
		if s.Begin < end || s.Begin%alignment != 0 || s.Begin > dataSize || s.Length > dataSize-s.Begin {
			return damaged(path, "tensor %q: its %d bytes at %d are not a multiple of %d, not after those before "+
				"(end at %d) or not within the data file's %d", s.Name, s.Length, s.Begin, alignment, end, dataSize)
		}
		end = s.Begin + s.Length
		return add(info)
	})
}

// infoOf checks a slice record by itself.
func infoOf(s *checkpointv1.Slice) (Info, error) {
	if err := checkName(s.Name); err != nil {
		return Info{}, err
	}
	dt, ok := tensor.ParseDType(s.Dtype)
	if !ok {
		return Info{}, fmt.Errorf("tensor %q: unknown dtype %q", s.Name, s.Dtype)
	}
	n, err := byteSize(dt, s.GlobalShape)
	if err != nil {
		return Info{}, fmt.Errorf("tensor %q: %w", s.Name, err)
	}
	box := Box{s.Offset, s.Extent}
	if err := box.check(s.GlobalShape); err != nil {
		return Info{}, fmt.Errorf("tensor %q: %w", s.Name, err)
	}
	if want := int64(dt.Size()) * box.Elements(); s.Length != want {
		return Info{}, fmt.Errorf("tensor %q: %d bytes, want %d for box %v of %v", s.Name, s.Length, want, box, dt)
	}
	slice := Slice{Box: box, Begin: s.Begin, Bytes: s.Length, Chunk: chunkSize, CRC32C: s.ChunkCrc32C}
	if len(slice.CRC32C) == 0 { // version 1
		slice.Chunk, slice.CRC32C = slice.Bytes, []uint32{s.Crc32C}
	}
	if want := (s.Length + slice.Chunk - 1) / slice.Chunk; int64(len(slice.CRC32C)) != want {
		return Info{}, fmt.Errorf("tensor %q: %d crc32c of chunks, want %d for %d bytes", s.Name, len(slice.CRC32C), want,
			s.Length)
	}
	return Info{Name: s.Name, DType: dt, Shape: s.GlobalShape, Bytes: n, Slices: []Slice{slice}}, nil
}
