package dataset

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow/array"
	"golang.org/x/sys/unix"
)

// shard reads one shard of a dataset. The files are opened when they are first needed: the index is read and checked as
// a whole, the Arrow file is mapped, and each record batch is checked against its CRC once, before its first use. The
// machine must be little-endian, as the tokens are.
type shard struct {
	dir      string
	number   int
	manifest *Manifest
	vocab    uint32 // ids below it are valid

	mu     sync.Mutex // of opening
	opened atomic.Pointer[openShard]
}

type openShard struct {
	index   *shardIndex
	file    *os.File // kept to see whether it was cut
	mapping []byte   // of the file
	batches []batch
}

// batch is a record batch in the mapping.
type batch struct {
	tokens  *array.Uint32
	checked atomic.Bool
}

// open opens the shard's files unless they are open.
func (s *shard) open() (*openShard, error) {
	if o := s.opened.Load(); o != nil {
		return o, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.opened.Load(); o != nil {
		return o, nil
	}
	index, err := s.readIndex()
	if err != nil {
		return nil, inFile(s.indexPath(), err)
	}
	file, mapping, err := mapFile(s.arrowPath(), index.arrowSize)
	if err != nil {
		return nil, inFile(s.arrowPath(), err)
	}
	o := newOpenShard(index, file, mapping)
	s.opened.Store(o)
	return o, nil
}

func newOpenShard(index *shardIndex, file *os.File, mapping []byte) *openShard {
	o := &openShard{index: index, file: file, mapping: mapping, batches: make([]batch, len(index.batches))}
	for i, b := range index.batches {
		o.batches[i].tokens = uint32Array(mapping[b.offset : b.offset+int64(b.size)])
	}
	return o
}

func (s *shard) arrowPath() string { return filepath.Join(s.dir, arrowName(s.number)) }
func (s *shard) indexPath() string { return filepath.Join(s.dir, indexName(s.number)) }

// inFile names the file in an error, unless it is one of package os, which does so itself.
func inFile(path string, err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// readIndex reads the index and checks it against the manifest. Its errors, and those of mapFile, are for inFile.
func (s *shard) readIndex() (*shardIndex, error) {
	info := s.manifest.Shards[s.number]
	data, err := readLimited(s.indexPath(), info.IndexBytes)
	if err != nil {
		return nil, err
	}
	if digestOf(data) != info.IndexBlake3 {
		return nil, fmt.Errorf("%w: not the index that the manifest names: %d bytes, want %d, or another BLAKE3",
			ErrCorrupt, len(data), info.IndexBytes)
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	length, tokens := s.manifest.SequenceLength, s.manifest.shardTokens(s.number)
	if x.length != length || int64(x.windows) != info.Windows || int64(x.tokens) != tokens || x.arrowSize != info.Bytes {
		return nil, fmt.Errorf("%w: %d windows of length %d, %d tokens, an Arrow file of %d bytes; the manifest says %d, %d, "+
			"%d and %d", ErrCorrupt, x.windows, x.length, x.tokens, x.arrowSize, info.Windows, length, tokens, info.Bytes)
	}
	return x, nil
}

// checkSizes reports files that are missing or of another size than the manifest says.
func (s *shard) checkSizes() error {
	info := s.manifest.Shards[s.number]
	for _, f := range []struct {
		path string
		want int64
	}{{s.arrowPath(), info.Bytes}, {s.indexPath(), info.IndexBytes}} {
		st, err := os.Stat(f.path)
		if err != nil {
			return fmt.Errorf("dataset: %w", err)
		}
		if st.Size() != f.want {
			return fmt.Errorf("%s: %w: %d bytes, the manifest says %d", f.path, ErrCorrupt, st.Size(), f.want)
		}
	}
	return nil
}

// window calls use with the L+1 tokens of window w, which lie in the mapping: use may read them, and only until it
// returns. A token outside the vocabulary that use reports is named in the error.
func (s *shard) window(w int, use func(x *shardIndex, tokens []uint32) (badToken int)) error {
	o, err := s.open()
	if err != nil {
		return err
	}
	b := w / o.index.perBatch
	row := o.index.length + 1
	at := w % o.index.perBatch * row
	bad := -1
	err = guard(o.mapping, func() error {
		if err := o.check(b); err != nil {
			return err
		}
		tokens := o.batches[b].tokens.Uint32Values()[at : at+row]
		if bad = use(o.index, tokens); bad >= 0 {
			return fmt.Errorf("%w: token %d at position %d, the vocabulary ends at %d", ErrCorrupt, tokens[bad], at+bad,
				s.vocab)
		}
		return o.checkSize()
	})
	if err != nil {
		return fmt.Errorf("%s: batch %d: %w", s.arrowPath(), b, err)
	}
	return nil
}

// check compares batch b with its CRC, once.
func (o *openShard) check(b int) error {
	if o.batches[b].checked.Load() {
		return nil
	}
	c := o.index.batches[b]
	if crc := crc32.Checksum(o.mapping[c.offset:c.offset+int64(c.size)], castagnoli); crc != c.crc {
		return fmt.Errorf("%w: its CRC-32C is %08x, the index says %08x", ErrCorrupt, crc, c.crc)
	}
	o.batches[b].checked.Store(true)
	return nil
}

// guard runs f, which reads a mapping. Memory that cannot be read, because the file was cut or its disk failed, makes it
// return ErrCorrupt instead of crashing the process.
func guard(mapping []byte, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(interface {
				error
				Addr() uintptr
			})
			if !ok || fault.Addr()-uintptr(unsafe.Pointer(&mapping[0])) >= uintptr(len(mapping)) {
				panic(r)
			}
			err = fmt.Errorf("%w: the mapped file can no longer be read (cut, or its disk failed): %w", ErrCorrupt, fault)
		}
	}()
	return f()
}

// checkSize reports a file that has been cut since it was mapped: what is left of its last page reads as zeros.
func (o *openShard) checkSize() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(o.file.Fd()), &st); err != nil {
		return err
	}
	if st.Size < o.index.arrowSize {
		return fmt.Errorf("%w: the mapped file was cut to %d of its %d bytes", ErrCorrupt, st.Size, o.index.arrowSize)
	}
	return nil
}

// close unmaps the file. Nothing may read the shard any more.
func (s *shard) close() error {
	o := s.opened.Swap(nil)
	if o == nil {
		return nil
	}
	return errors.Join(unix.Munmap(o.mapping), o.file.Close())
}

// mapFile maps a file of a known size read-only. The caller unmaps and closes it.
func mapFile(path string, size int64) (*os.File, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	data, err := mapOpen(f, size)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, data, nil
}

func mapOpen(f *os.File, size int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != size {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrCorrupt, st.Size(), size)
	}
	return unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
}
