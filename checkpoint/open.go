package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/herdtrain/herd/storage"
)

// Checkpoint is a sealed checkpoint whose manifest and indexes have been checked. Its methods may be called from any
// goroutine.
type Checkpoint struct {
	fs      storage.FS
	dir     string
	digest  Digest // of the manifest file
	state   State
	writers []writerFiles
	tensors []Info // in the order of writers and their data files
	byName  map[string]int
}

// Open reads the manifest and indexes of the checkpoint in dir and checks them, and the sizes of the data files. It
// reads no tensor. Errors: ErrNotFound (no such directory, or it has no manifest), ErrCorrupt, ErrVersion.
func Open(ctx context.Context, fsys storage.FS, dir string) (*Checkpoint, error) {
	m, digest, err := openManifest(fsys, dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, manifestName)
	base := filepath.Base(dir)
	if _, ok := parseID(base); ok && base != m.state.id().String() {
		return nil, damaged(path, "it is the manifest of %v", m.state.id())
	}
	c := &Checkpoint{fs: fsys, dir: dir, digest: digest, state: m.state, writers: m.writers, byName: map[string]int{}}
	for w := range c.writers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.openWriter(w); err != nil {
			return nil, err
		}
	}
	if int64(len(c.tensors)) != m.tensors {
		return nil, damaged(path, "it counts %d tensors, the indexes hold %d", m.tensors, len(c.tensors))
	}
	return c, nil
}

func openManifest(fsys storage.FS, dir string) (manifest, Digest, error) {
	path := filepath.Join(dir, manifestName)
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := fsys.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return manifest{}, Digest{}, fmt.Errorf("checkpoint %s %w", dir, ErrNotFound)
		}
		return manifest{}, Digest{}, fmt.Errorf("checkpoint %s is unfinished: its manifest was %w", dir, ErrNotFound)
	}
	if err != nil {
		return manifest{}, Digest{}, err
	}
	defer f.Close()
	return readManifest(f, path)
}

// openWriter checks the files of one writer and adds its tensors.
func (c *Checkpoint) openWriter(writer int) error {
	want := c.writers[writer]
	dataFile := fmt.Sprintf(dataName, writer)
	dataPath := filepath.Join(c.dir, dataFile)
	data, err := c.open(dataPath)
	if err != nil {
		return err
	}
	defer data.Close()
	if data.Size() != want.dataSize {
		return damaged(dataPath, "it has %d bytes, the manifest says %d", data.Size(), want.dataSize)
	}
	path := filepath.Join(c.dir, fmt.Sprintf(indexName, writer))
	index, err := c.open(path)
	if err != nil {
		return err
	}
	defer index.Close()
	if index.Size() != want.indexSize {
		return damaged(path, "it has %d bytes, the manifest says %d", index.Size(), want.indexSize)
	}
	digest, err := readIndex(index, path, dataFile, want.dataSize, func(t Info) error {
		if _, twice := c.byName[t.Name]; twice {
			return damaged(path, "a second tensor is named %q", t.Name)
		}
		c.byName[t.Name] = len(c.tensors)
		c.tensors = append(c.tensors, t)
		return nil
	})
	if err != nil {
		return err
	}
	if digest != want.indexDigest {
		return damaged(path, "its digest is %v, the manifest says %v", digest, want.indexDigest)
	}
	return nil
}

// open opens a file that the manifest promises.
func (c *Checkpoint) open(path string) (storage.Reader, error) {
	f, err := c.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamageError{File: path, Reason: "it is missing", Err: err}
	}
	return f, err
}

// State is what the manifest says.
func (c *Checkpoint) State() State { return c.state }

// Dir is the checkpoint's directory.
func (c *Checkpoint) Dir() string { return c.dir }

// Ref names the checkpoint, by the name that it was saved under.
func (c *Checkpoint) Ref() Ref {
	return Ref{Name: c.state.id().String(), Manifest: c.digest, Ancestors: c.state.Parent.lineage()}
}

// Tensors describes what is stored, in file order. The caller must not change it.
func (c *Checkpoint) Tensors() []Info { return c.tensors }

// Info describes one tensor.
func (c *Checkpoint) Info(name string) (Info, bool) {
	i, ok := c.byName[name]
	if !ok {
		return Info{}, false
	}
	return c.tensors[i], true
}

// Bytes is the size of all files but the manifest.
func (c *Checkpoint) Bytes() int64 {
	n := int64(0)
	for _, w := range c.writers {
		n += w.dataSize + w.indexSize
	}
	return n
}

// Read fills dst, which must have exactly Info's Bytes, with the tensor's data and checks its crc. After an error dst
// holds rubbish. Errors: ErrNotFound, ErrCorrupt.
func (c *Checkpoint) Read(ctx context.Context, name string, dst []byte) error {
	t, ok := c.Info(name)
	if !ok {
		return fmt.Errorf("tensor %q in %s %w", name, c.dir, ErrNotFound)
	}
	if int64(len(dst)) != t.Bytes {
		return fmt.Errorf("tensor %q has %d bytes, not %d", name, t.Bytes, len(dst))
	}
	path := filepath.Join(c.dir, t.File)
	f, err := c.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := uint32(0)
	for pos := int64(0); pos < t.Bytes; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := dst[pos:min(pos+ioSize, t.Bytes)]
		if err := readFull(f, path, b, t.Begin+pos); err != nil {
			return t.damaged(path, err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		pos += int64(len(b))
	}
	return t.checkCRC(path, sum)
}

func (t Info) checkCRC(path string, sum uint32) error {
	if sum == t.CRC32C {
		return nil
	}
	return t.damaged(path, &DamageError{Reason: fmt.Sprintf("its crc32c is %08x, want %08x", sum, t.CRC32C)})
}

// damaged names the tensor in an error of readFull.
func (t Info) damaged(path string, err error) error {
	var d *DamageError
	if !errors.As(err, &d) {
		return err
	}
	return &DamageError{File: path, Tensor: t.Name, Begin: t.Begin, Length: t.Bytes, Reason: d.Reason, Err: d.Err}
}
