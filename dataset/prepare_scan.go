package dataset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// document is one text of the input.
type document struct {
	input      int    // the number of the input that it was found in
	name       string // slash-separated path below that input, a file's base name, or "-"
	path       string // empty for standard input
	size       int64
	data       []byte // of standard input; nil otherwise
	validation bool   // set apart
}

// stdinName is the input that stands for standard input.
const stdinName = "-"

// headSize is how much of a file is read to tell text from binary and to assign it to a split.
const headSize = 64 << 10

// skipped counts files of a directory that are no documents.
type skipped struct{ empty, binary, unreadable int }

func (s skipped) String() string {
	return fmt.Sprintf("%d empty, %d binary, %d unreadable", s.empty, s.binary, s.unreadable)
}

// scanner finds the documents of a prepare.
type scanner struct {
	o       *PrepareOptions
	found   []document
	seen    map[string]bool // absolute paths found, and those never to be taken: our own output
	skipped skipped
}

// scan lists the documents that o asks for, in the order in which they are written: input by input, names sorted.
func scan(ctx context.Context, o *PrepareOptions) ([]document, skipped, error) {
	s := &scanner{o: o, seen: map[string]bool{}}
	for _, own := range []string{o.Output, o.ValidationOutput, o.TokenizerPath} {
		if own != "" {
			s.isNew(own)
		}
	}
	for i, input := range o.Inputs {
		if err := s.addInput(ctx, i, input); err != nil {
			return nil, s.skipped, err
		}
	}
	docs, err := s.choose(ctx)
	if err != nil {
		return nil, s.skipped, err
	}
	if len(docs) == 0 {
		return nil, s.skipped, s.nothing()
	}
	slices.SortFunc(docs, func(a, b document) int {
		return cmp.Or(cmp.Compare(a.input, b.input), cmp.Compare(a.name, b.name))
	})
	return docs, s.skipped, checkSplits(docs, o.Validation)
}

func (s *scanner) nothing() error {
	smallest := int64(math.MaxInt64)
	for _, d := range s.found {
		smallest = min(smallest, d.size)
	}
	if len(s.found) > 0 && smallest > s.o.MaxBytes && s.o.MaxBytes > 0 {
		return fmt.Errorf("no document fits max-bytes %d, the smallest has %d bytes", s.o.MaxBytes, smallest)
	}
	msg := fmt.Sprintf("no document in %s (skipped: %v)", strings.Join(s.o.Inputs, ", "), s.skipped)
	if len(s.o.Include) > 0 {
		msg += "; only names that match " + strings.Join(s.o.Include, " or ") + " were looked at"
	}
	return errors.New(msg)
}

// isNew remembers a path and tells whether it was not known.
func (s *scanner) isNew(path string) bool {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	known := s.seen[path]
	s.seen[path] = true
	return !known
}

func (s *scanner) addInput(ctx context.Context, i int, input string) error {
	if input == stdinName {
		return s.addStdin(i)
	}
	root, err := filepath.EvalSymlinks(input)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	st, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	switch {
	case st.IsDir():
		return s.walk(ctx, i, root)
	case !st.Mode().IsRegular():
		return fmt.Errorf("input %s: not a file or directory", input)
	case st.Size() == 0:
		return fmt.Errorf("input %s: the file is empty", input)
	}
	head, err := readHead(root)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if why := binaryReason(head); why != "" {
		return fmt.Errorf("input %s: not text: %s", input, why)
	}
	if s.isNew(root) {
		s.found = append(s.found, document{input: i, name: filepath.Base(root), path: root, size: st.Size()})
	}
	return nil
}

func (s *scanner) addStdin(i int) error {
	limit := int64(math.MaxInt64 - 1)
	if s.o.MaxBytes > 0 {
		limit = s.o.MaxBytes
	}
	data, err := io.ReadAll(io.LimitReader(s.o.Stdin, limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("standard input: %w", err)
	case len(data) == 0:
		return errors.New("standard input is empty")
	case int64(len(data)) > limit:
		return fmt.Errorf("standard input is longer than max-bytes %d", limit)
	}
	if why := binaryReason(data[:min(headSize, len(data))]); why != "" {
		return fmt.Errorf("standard input: not text: %s", why)
	}
	s.found = append(s.found, document{input: i, name: stdinName, size: int64(len(data)), data: data})
	return nil
}

// walk adds the regular files below root whose names match Include. Names that begin with a dot, symbolic links and our
// own output are passed over.
func (s *scanner) walk(ctx context.Context, input int, root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if path == root {
				return fmt.Errorf("input: %w", err)
			}
			s.skipped.unreadable++
			return nil
		}
		if path != root && (strings.HasPrefix(e.Name(), ".") || !s.isNew(path)) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); !s.included(name) {
			return nil
		}
		st, err := e.Info()
		switch {
		case err != nil:
			s.skipped.unreadable++
		case st.Size() == 0:
			s.skipped.empty++
		default:
			s.found = append(s.found, document{input: input, name: name, path: path, size: st.Size()})
		}
		return nil
	})
}

// included tells whether a name matches a pattern of Include: the whole name if the pattern has a slash, its last
// element otherwise.
func (s *scanner) included(name string) bool {
	for _, glob := range s.o.Include {
		part := name
		if !strings.Contains(glob, "/") {
			part = path.Base(name)
		}
		if ok, err := path.Match(glob, part); ok && err == nil {
			return true
		}
	}
	return len(s.o.Include) == 0
}

// choose takes the text files among those found, within MaxBytes: in an order given by a hash of their names, passing
// over a file that no longer fits.
func (s *scanner) choose(ctx context.Context) ([]document, error) {
	order := make([]int, len(s.found))
	rank := make([]Digest, len(s.found))
	for i, d := range s.found {
		order[i], rank[i] = i, digestOf([]byte("herd prepare order\n"+d.name))
	}
	budget := int64(math.MaxInt64)
	if s.o.MaxBytes > 0 {
		budget = s.o.MaxBytes
		slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(rank[a][:], rank[b][:]) })
	}
	var docs []document
	for _, i := range order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := s.found[i]
		if d.size > budget {
			continue
		}
		head, err := d.head()
		if err != nil {
			s.skipped.unreadable++
			continue
		}
		if binaryReason(head) != "" {
			s.skipped.binary++
			continue
		}
		d.validation = fraction(head, d.size) < s.o.Validation
		docs = append(docs, d)
		budget -= d.size
	}
	return docs, nil
}

func (d *document) head() ([]byte, error) {
	if d.data != nil {
		return d.data[:min(headSize, len(d.data))], nil
	}
	return readHead(d.path)
}

// text is the document's bytes.
func (d *document) text() ([]byte, error) {
	if d.data != nil {
		return d.data, nil
	}
	return os.ReadFile(d.path)
}

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, headSize))
}

// fraction is a hash of a document's head and size as a number in [0, 1): equal documents get the same one, so that
// copies of a text never lie on both sides of a split.
func fraction(head []byte, size int64) float64 {
	d := digestOf(append(binary.LittleEndian.AppendUint64([]byte("herd prepare split\n"), uint64(size)), head...))
	return float64(binary.LittleEndian.Uint64(d[:])>>11) * 0x1p-53
}

// checkSplits reports a split that has no document.
func checkSplits(docs []document, validation float64) error {
	apart := 0
	for _, d := range docs {
		if d.validation {
			apart++
		}
	}
	switch {
	case validation == 0:
		return nil
	case apart == 0:
		return fmt.Errorf("none of the %d documents falls into the validation split of %v: raise it or give more "+
			"documents", len(docs), validation)
	case apart == len(docs):
		return fmt.Errorf("all %d documents fall into the validation split of %v: lower it or give more documents",
			len(docs), validation)
	}
	return nil
}

// binaryReason says why data, the head of a file, is no text; "" if it is. Text has no NUL byte, and at most 30 % of its
// bytes are invalid UTF-8 or control characters.
func binaryReason(data []byte) string {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return fmt.Sprintf("a NUL byte at offset %d", i)
	}
	odd := 0
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' && !strings.ContainsRune("\t\n\v\f\r\b\x1b", r) || r == 0x7f {
			odd++
		}
		i += n
	}
	if odd*10 > len(data)*3 {
		return fmt.Sprintf("%d of its first %d bytes are invalid UTF-8 or control characters", odd, len(data))
	}
	return ""
}
