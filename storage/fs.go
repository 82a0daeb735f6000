// Package storage is the ground floor of everything that must survive a crash: the small file system interface that
// checkpoints are written through, durable atomic files, and the lock of a run. storage/storagetest breaks disks on
// purpose.
package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is what a checkpoint needs of a file system. Names are paths as package os takes them. Errors satisfy errors.Is
// for fs.ErrNotExist and fs.ErrExist as those of package os do, and wrap the errno. Methods may be called from any
// goroutine.
type FS interface {
	// Create makes a new, empty file. It fails with fs.ErrExist if the name is taken: nothing is ever overwritten.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (Reader, error)
	// Rename gives the file another name in the same folder, atomically replacing a file of that name.
	Rename(from, to string) error
	// Remove deletes a file or an empty folder.
	Remove(name string) error
	// Mkdir makes a folder. It fails with fs.ErrExist if the name is taken.
	Mkdir(name string) error
	// ReadDir lists a folder in the order of names.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat describes a file or folder.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names of a folder durable: files created, renamed and removed in it.
	SyncDir(name string) error
}

// File is a file being written. After an error of WriteAt, Sync or Close its content is unknown, whatever a later call
// says (a kernel reports a failed write-back once): remove it and write a new one.
type File interface {
	io.WriterAt
	// Sync makes the content durable. The name is durable after FS.SyncDir of its folder.
	Sync() error
	Close() error
}

// Reader is a file being read; its size is that of the moment when it was opened.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// OS is the file system of the machine.
var OS FS = osFS{}

type osFS struct{}

type osReader struct {
	*os.File
	size int64
}

func (r osReader) Size() int64 { return r.size }

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

// osFile has the kernel begin to write back what lies behind while more is written: it would leave gigabytes to Sync,
// and the disk idle until then.
type osFile struct {
	*os.File
	begun int64 // the bytes before are being written back
	end   int64 // of what was written in sequence
}

// writeBack is how many bytes are handed to the disk at a time.
const writeBack = 8 << 20

func (f *osFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	if off == f.end {
		f.end += int64(n)
	}
	if f.end-f.begun >= writeBack {
		// Only a hint: an error of the disk comes back from Sync.
		_ = unix.SyncFileRange(int(f.Fd()), f.begun, f.end-f.begun, unix.SYNC_FILE_RANGE_WRITE)
		f.begun = f.end
	}
	return n, err
}

func (osFS) Open(name string) (Reader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osReader{f, info.Size()}, nil
}

func (osFS) Rename(from, to string) error               { return os.Rename(from, to) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) Mkdir(name string) error                    { return os.Mkdir(name, 0o755) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Stat(name string) (fs.FileInfo, error)      { return os.Stat(name) }

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// MkdirAll makes dir and the folders above it that are missing, each durably. It is no error if dir is there already.
func MkdirAll(fsys FS, dir string) error {
	info, err := fsys.Stat(dir)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("is there and is not a folder")}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsys.SyncDir(parent)
}

// ReadFile reads a whole file of at most limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it has %d bytes, want at most %d", f.Size(), limit)}
	}
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}
