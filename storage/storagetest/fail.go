package storagetest

import (
	"io/fs"
	"sync/atomic"

	"github.com/herdtrain/herd/storage"
)

// Failing is a file system whose operation number At (the first is 1) fails with Err, as does every later one if
// Forever. A write that fails has written its first half. Every call counts, reads included, except Close of a Reader.
type Failing struct {
	FS      storage.FS
	At      int64
	Err     error
	Forever bool

	calls atomic.Int64
}

// Calls is the number of operations so far.
func (f *Failing) Calls() int64 { return f.calls.Load() }

func (f *Failing) fail(verb, name string) error {
	if n := f.calls.Add(1); n == f.At || f.Forever && n > f.At && f.At > 0 {
		return &fs.PathError{Op: verb, Path: name, Err: f.Err}
	}
	return nil
}

// Create implements storage.FS.
func (f *Failing) Create(name string) (storage.File, error) {
	if err := f.fail("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return &failingFile{file, f, name}, nil
}

// Open implements storage.FS.
func (f *Failing) Open(name string) (storage.Reader, error) {
	if err := f.fail("open", name); err != nil {
		return nil, err
	}
	r, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return &failingReader{r, f, name}, nil
}

// Rename implements storage.FS.
func (f *Failing) Rename(from, to string) error {
	if err := f.fail("rename", from); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// Remove implements storage.FS.
func (f *Failing) Remove(name string) error {
	if err := f.fail("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// Mkdir implements storage.FS.
func (f *Failing) Mkdir(name string) error {
	if err := f.fail("mkdir", name); err != nil {
		return err
	}
	return f.FS.Mkdir(name)
}

// ReadDir implements storage.FS.
func (f *Failing) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.fail("readdir", name); err != nil {
		return nil, err
	}
	return f.FS.ReadDir(name)
}

// Stat implements storage.FS.
func (f *Failing) Stat(name string) (fs.FileInfo, error) {
	if err := f.fail("stat", name); err != nil {
		return nil, err
	}
	return f.FS.Stat(name)
}

// SyncDir implements storage.FS.
func (f *Failing) SyncDir(name string) error {
	if err := f.fail("sync", name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

type failingFile struct {
	storage.File
	f    *Failing
	name string
}

func (w *failingFile) WriteAt(b []byte, off int64) (int, error) {
	if err := w.f.fail("write", w.name); err != nil {
		n, _ := w.File.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	return w.File.WriteAt(b, off)
}

func (w *failingFile) Sync() error {
	if err := w.f.fail("sync", w.name); err != nil {
		return err
	}
	return w.File.Sync()
}

func (w *failingFile) Close() error {
	if err := w.f.fail("close", w.name); err != nil {
		w.File.Close()
		return err
	}
	return w.File.Close()
}

type failingReader struct {
	storage.Reader
	f    *Failing
	name string
}

func (r *failingReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.f.fail("read", r.name); err != nil {
		return 0, err
	}
	return r.Reader.ReadAt(b, off)
}
