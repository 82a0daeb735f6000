package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/herdtrain/herd/storage"
)

// Limits of safetensors files, in bytes: those of the reference reader, and of the index of a sharded set.
const (
	maxSafeHeader = 100_000_000
	maxSafeIndex  = 64 << 20
)

// SafeTensor describes a tensor of a safetensors file.
type SafeTensor struct {
	Name  string
	DType string // F32, BF16, F16; tensors of other types can be listed but not read
	Shape []int64
	File  string // path

	begin, bytes int64 // in the file
}

// SafeTensors is a set of safetensors files, opened for reading. Its methods, but for Close, may be called from any
// goroutine.
type SafeTensors struct {
	fs     storage.FS
	files  map[string]storage.Reader
	list   []SafeTensor // in the order of names
	byName map[string]int
}

// OpenSafeTensors reads the headers of a folder's tensors: of STEM.safetensors, or of the files that
// STEM.safetensors.index.json names. A header is checked before it is believed: sizes, types, and that the tensors fill
// the file, each byte once. Errors: ErrNotFound, ErrCorrupt.
func OpenSafeTensors(fsys storage.FS, dir, stem string) (*SafeTensors, error) {
	s := &SafeTensors{fs: fsys, files: map[string]storage.Reader{}, byName: map[string]int{}}
	if err := s.open(dir, stem); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the files.
func (s *SafeTensors) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (s *SafeTensors) open(dir, stem string) error {
	single := filepath.Join(dir, stem+".safetensors")
	index := single + ".index.json"
	switch _, err := s.fs.Stat(index); {
	case err == nil:
		if err := s.readIndex(dir, index); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if _, err := s.fs.Stat(single); errors.Is(err, fs.ErrNotExist) {
			return missingSafeTensors(s.fs, dir, single)
		}
		if err := s.readFile(single); err != nil {
			return err
		}
	}
	slices.SortFunc(s.list, func(a, b SafeTensor) int { return cmp.Compare(a.Name, b.Name) })
	for i, t := range s.list {
		s.byName[t.Name] = i
	}
	return nil
}

// missingSafeTensors says what a folder holds instead.
func missingSafeTensors(fsys storage.FS, dir, single string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s %w", single, ErrNotFound)
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".bin", ".pt", ".pth":
			return fmt.Errorf("%s is a pickle, which may run any code and is never opened: load it in Python with transformers "+
				"and write it again with save_pretrained(DIR), or its tensors with safetensors.torch.save_file; %s %w",
				filepath.Join(dir, e.Name()), single, ErrNotFound)
		}
	}
	return fmt.Errorf("%s %w, nor its .index.json", single, ErrNotFound)
}

// readIndex reads the files that an index names; each tensor must be in the file that it says.
func (s *SafeTensors) readIndex(dir, path string) error {
	text, err := storage.ReadFile(s.fs, path, maxSafeIndex)
	if err != nil {
		return &DamageError{File: path, Reason: "it cannot be read", Err: err}
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return &DamageError{File: path, Reason: "it is not an index of safetensors files", Err: err}
	}
	if len(index.WeightMap) == 0 {
		return damaged(path, "its weight_map names no tensor")
	}
	files := map[string]bool{}
	for name, file := range index.WeightMap {
		if file != filepath.Base(file) || !strings.HasSuffix(file, ".safetensors") {
			return damaged(path, "tensor %.80q is in %.80q, want a .safetensors file of the same folder", name, file)
		}
		files[file] = true
	}
	for file := range files {
		if err := s.readFile(filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	if len(s.list) != len(index.WeightMap) {
		return damaged(path, "it names %d tensors, the files hold %d", len(index.WeightMap), len(s.list))
	}
	for _, t := range s.list {
		if file := index.WeightMap[t.Name]; file != filepath.Base(t.File) {
			return damaged(path, "tensor %q is in %s, it says %q", t.Name, t.File, file)
		}
	}
	return nil
}

// readFile adds the tensors of one file.
func (s *SafeTensors) readFile(path string) error {
	f, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %w", path, ErrNotFound)
	}
	if err != nil {
		return err
	}
	s.files[path] = f
	if f.Size() < 8 {
		return damaged(path, "it has %d bytes, want at least 8", f.Size())
	}
	var prefix [8]byte
	if err := readFull(f, path, prefix[:], 0); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxSafeHeader || int64(n) > f.Size()-8 {
		return damaged(path, "its header has %d bytes, want at most %d, and the file has %d", n, maxSafeHeader, f.Size())
	}
	header := make([]byte, n)
	if err := readFull(f, path, header, 8); err != nil {
		return err
	}
	list, err := parseSafeHeader(header, f.Size()-8-int64(n))
	if err != nil {
		return &DamageError{File: path, Reason: "its header", Err: err}
	}
	for _, t := range list {
		t.File = path
		t.begin += 8 + int64(n)
		s.list = append(s.list, t)
	}
	return nil
}

var safeSizes = map[string]int64{
	"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
	"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}

// parseSafeHeader checks a header, of a file with size bytes of data, and gives its tensors in the order of their bytes.
func parseSafeHeader(header []byte, size int64) ([]SafeTensor, error) {
	d := json.NewDecoder(bytes.NewReader(header))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("it begins with %.20q, want a JSON object", header)
	}
	var list []SafeTensor
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if seen[name] {
			return nil, fmt.Errorf("tensor %.80q is there twice", name)
		}
		seen[name] = true
		if name == "__metadata__" {
			var about map[string]string
			if err := d.Decode(&about); err != nil {
				return nil, fmt.Errorf("__metadata__: %w", err)
			}
			continue
		}
		var v struct {
			DType   string  `json:"dtype"`
			Shape   []int64 `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if len(v.Offsets) != 2 {
			return nil, fmt.Errorf("tensor %q: data_offsets %v, want begin and end", name, v.Offsets)
		}
		t := SafeTensor{Name: name, DType: v.DType, Shape: v.Shape, begin: v.Offsets[0], bytes: v.Offsets[1] - v.Offsets[0]}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		list = append(list, t)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if rest := bytes.TrimSpace(header[d.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%.20q follows its object", rest)
	}
	slices.SortFunc(list, func(a, b SafeTensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.bytes, b.bytes))
	})
	at := int64(0)
	for _, t := range list {
		if t.begin != at {
			return nil, fmt.Errorf("tensor %q begins at byte %d of the data, the one before ends at %d", t.Name, t.begin, at)
		}
		at += t.bytes
	}
	if at != size {
		return nil, fmt.Errorf("the tensors have %d bytes, the file has %d for them", at, size)
	}
	return list, nil
}

// check says what is wrong with the type, the shape, or the bytes for them.
func (t SafeTensor) check() error {
	n, ok := safeSizes[t.DType]
	if !ok {
		return fmt.Errorf("unknown dtype %.20q", t.DType)
	}
	if len(t.Shape) > maxRank {
		return fmt.Errorf("the shape has %d dimensions, want at most %d", len(t.Shape), maxRank)
	}
	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > 1<<62/d {
			return fmt.Errorf("shape %v: negative, or the product overflows", t.Shape)
		}
		n *= d
	}
	if t.begin < 0 || t.bytes != n {
		return fmt.Errorf("%d bytes from %d on, want %d for %s of shape %v", t.bytes, t.begin, n, t.DType, t.Shape)
	}
	return nil
}

// Tensors describes all tensors, in the order of names. The caller must not change it.
func (s *SafeTensors) Tensors() []SafeTensor { return s.list }

// Info describes one tensor.
func (s *SafeTensors) Info(name string) (SafeTensor, bool) {
	i, ok := s.byName[name]
	if !ok {
		return SafeTensor{}, false
	}
	return s.list[i], true
}

// ReadF32 fills dst with elements of a tensor from number first on, in row-major order, as fp32, little-endian: as many
// as dst has room for. Errors: ErrNotFound, ErrCorrupt, and of a tensor of another type than F32, BF16 or F16.
func (s *SafeTensors) ReadF32(ctx context.Context, name string, first int64, dst []byte) error {
	t, ok := s.Info(name)
	if !ok {
		return fmt.Errorf("tensor %q %w", name, ErrNotFound)
	}
	size, n := safeSizes[t.DType], int64(len(dst)/4)
	if len(dst)%4 != 0 || first < 0 || first+n > t.bytes/size {
		return fmt.Errorf("tensor %q: elements %d to %d of shape %v", name, first, first+n, t.Shape)
	}
	widen, ok := widenings[t.DType]
	if !ok {
		return fmt.Errorf("tensor %q of %s is of type %s, want F32, BF16 or F16", name, t.File, t.DType)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	raw := dst[int64(len(dst))-n*size:] // widening goes from the front and never overtakes what is read
	if err := readFull(s.files[t.File], t.File, raw, t.begin+first*size); err != nil {
		return err
	}
	widen(dst, raw)
	return nil
}

// ReadIDs reads a whole tensor of type I32 or I64 whose elements are int32. The caller has bounded its shape.
func (s *SafeTensors) ReadIDs(ctx context.Context, name string) ([]int32, error) {
	t, ok := s.Info(name)
	if !ok || t.DType != "I32" && t.DType != "I64" {
		return nil, fmt.Errorf("tensor %q of type %s, want one of I32 or I64", name, t.DType)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw := make([]byte, t.bytes)
	if err := readFull(s.files[t.File], t.File, raw, t.begin); err != nil {
		return nil, err
	}
	var list []int32
	for size := safeSizes[t.DType]; len(raw) > 0; raw = raw[size:] {
		id := int64(int32(binary.LittleEndian.Uint32(raw)))
		if size == 8 {
			id = int64(binary.LittleEndian.Uint64(raw))
		}
		if id != int64(int32(id)) {
			return nil, fmt.Errorf("tensor %q holds %d, want numbers of 32 bits", name, id)
		}
		list = append(list, int32(id))
	}
	return list, nil
}
