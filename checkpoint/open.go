package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/herdtrain/herd/storage"
)

// Checkpoint is a sealed checkpoint whose manifest and indexes have been checked. Its methods may be called from any
// goroutine.
type Checkpoint struct {
	fs      storage.FS
	dir     string
	digest  Digest // of the manifest file
	state   State
	writers []Files
	tensors []Info // in the order of writers and their data files, by the first slice
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
	c, err := openFiles(ctx, fsys, dir, m)
	if err != nil {
		return nil, err
	}
	c.digest = digest
	if int64(len(c.tensors)) != m.tensors {
		return nil, damaged(path, "it counts %d tensors, the indexes hold %d", m.tensors, len(c.tensors))
	}
	return c, nil
}

// openFiles checks the files that a manifest promises, and that the slices in them make up whole tensors.
func openFiles(ctx context.Context, fsys storage.FS, dir string, m manifest) (*Checkpoint, error) {
	c := &Checkpoint{fs: fsys, dir: dir, state: m.state, writers: m.writers, byName: map[string]int{}}
	for w := range c.writers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.openWriter(w); err != nil {
			return nil, err
		}
	}
	for i := range c.tensors {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.checkCover(&c.tensors[i]); err != nil {
			return nil, err
		}
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

// openWriter checks the files of one writer and adds its slices.
func (c *Checkpoint) openWriter(writer int) error {
	want := c.writers[writer]
	dataPath := c.dataPath(writer)
	data, err := c.open(dataPath)
	if err != nil {
		return err
	}
	defer data.Close()
	if data.Size() != want.DataSize {
		return damaged(dataPath, "it has %d bytes, the manifest says %d", data.Size(), want.DataSize)
	}
	path := filepath.Join(c.dir, fmt.Sprintf(indexName, writer))
	index, err := c.open(path)
	if err != nil {
		return err
	}
	defer index.Close()
	if index.Size() != want.IndexSize {
		return damaged(path, "it has %d bytes, the manifest says %d", index.Size(), want.IndexSize)
	}
	digest, err := readIndex(index, path, want.DataSize, func(t Info) error {
		t.Slices[0].Writer = writer
		i, known := c.byName[t.Name]
		if !known {
			c.byName[t.Name] = len(c.tensors)
			c.tensors = append(c.tensors, t)
			return nil
		}
		first := &c.tensors[i]
		if t.DType != first.DType || !slices.Equal(t.Shape, first.Shape) {
			return damaged(path, "tensor %q: slice %v is of %v of shape %v, slice %v of writer %d of %v of shape %v", t.Name,
				t.Slices[0].Box, t.DType, t.Shape, first.Slices[0].Box, first.Slices[0].Writer, first.DType, first.Shape)
		}
		first.Slices = append(first.Slices, t.Slices...)
		return nil
	})
	if err != nil {
		return err
	}
	if digest != want.Index {
		return damaged(path, "its digest is %v, the manifest says %v", digest, want.Index)
	}
	return nil
}

func (c *Checkpoint) dataPath(writer int) string {
	return filepath.Join(c.dir, fmt.Sprintf(dataName, writer))
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

// Tensors describes what is stored, in the order of files. The caller must not change it.
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
		n += w.DataSize + w.IndexSize
	}
	return n
}
