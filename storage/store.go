package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"path/filepath"
	"strings"
)

// ErrPrecondition: an object is there already, or is not the version that was to be replaced.
var ErrPrecondition = errors.New("precondition failed")

// Object describes what a Store holds under a name.
type Object struct {
	Name    string
	Size    int64  // bytes
	Version string // of the content, to be compared only
}

// PutOptions are conditions of a Put, which fails with ErrPrecondition if they do not hold.
type PutOptions struct {
	IfAbsent bool   // nothing has the name
	IfMatch  string // what has the name is of this version
}

// Store keeps objects under slash-separated names. What is not there is fs.ErrNotExist. Methods may be called from any
// goroutine.
type Store interface {
	// Put stores size bytes of r. It is atomic: after nil the object is durable and complete, before nothing of it is seen.
	Put(ctx context.Context, name string, r io.Reader, size int64, o PutOptions) error
	// Get reads n bytes from off on, or with n < 0 all that follow.
	Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	// Stat describes an object.
	Stat(ctx context.Context, name string) (Object, error)
	// List describes the objects whose names begin with prefix, in the order of names. An error ends it.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object; it is no error if it is not there.
	Delete(ctx context.Context, name string) error
}

// ReadObject reads a whole object of at most limit bytes.
func ReadObject(ctx context.Context, s Store, name string, limit int64) ([]byte, error) {
	info, err := s.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	if info.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", name, info.Size, limit)
	}
	r, err := s.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, info.Size)
	_, err = io.ReadFull(r, b)
	return b, err
}

// Folder is a Store of files below a folder. One process at a time may write to it.
type Folder struct {
	FS   FS
	Root string
}

func (f Folder) path(name string) string { return filepath.Join(f.Root, filepath.FromSlash(name)) }

// putSize is how many bytes are copied at a time.
const putSize = 1 << 20

// Put implements Store.
func (f Folder) Put(ctx context.Context, name string, r io.Reader, size int64, o PutOptions) error {
	if o.IfAbsent || o.IfMatch != "" {
		now, err := f.Stat(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if o.IfAbsent == (err == nil) || now.Version != o.IfMatch && o.IfMatch != "" {
			return fmt.Errorf("put %s: %w", f.path(name), ErrPrecondition)
		}
	}
	to := f.path(name)
	if err := MkdirAll(f.FS, filepath.Dir(to)); err != nil {
		return err
	}
	tmp := to + ".tmp"
	if err := f.FS.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := f.FS.Create(tmp)
	if err != nil {
		return err
	}
	err = fill(ctx, file, r, size)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.FS.Rename(tmp, to)
	}
	if err != nil {
		return errors.Join(err, f.FS.Remove(tmp))
	}
	return f.FS.SyncDir(filepath.Dir(to))
}

// fill copies just size bytes.
func fill(ctx context.Context, f File, r io.Reader, size int64) error {
	buf := make([]byte, min(putSize, size))
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), size-at)]
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return nil
}

// Get implements Store.
func (f Folder) Get(_ context.Context, name string, off, n int64) (io.ReadCloser, error) {
	file, err := f.FS.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	if n < 0 {
		n = max(0, file.Size()-off)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, off, n), file}, nil
}

// Stat implements Store.
func (f Folder) Stat(_ context.Context, name string) (Object, error) {
	info, err := f.FS.Stat(f.path(name))
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "stat", Path: f.path(name), Err: fs.ErrNotExist}
	}
	if err != nil {
		return Object{}, err
	}
	return Object{name, info.Size(), fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())}, nil
}

// List implements Store.
func (f Folder) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) { f.list(ctx, ".", prefix, yield) }
}

func (f Folder) list(ctx context.Context, dir, prefix string, yield func(Object, error) bool) bool {
	entries, err := f.FS.ReadDir(f.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(Object{}, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			if (strings.HasPrefix(name+"/", prefix) || strings.HasPrefix(prefix, name+"/")) && !f.list(ctx, name, prefix, yield) {
				return false
			}
		case strings.HasPrefix(name, prefix):
			if o, err := f.Stat(ctx, name); !errors.Is(err, fs.ErrNotExist) && (!yield(o, err) || err != nil) {
				return false
			}
		}
	}
	return true
}

// Delete implements Store. The folder that the object was in goes with its last one.
func (f Folder) Delete(_ context.Context, name string) error {
	if err := f.FS.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(f.path(name))
	if entries, err := f.FS.ReadDir(dir); err == nil && len(entries) == 0 && dir != filepath.Clean(f.Root) {
		if err := f.FS.Remove(dir); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	if err := f.FS.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
