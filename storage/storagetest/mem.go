// Package storagetest holds file systems that break on purpose: Mem, which keeps a log of every operation and from it
// makes each state that a power cut may leave behind, and Failing, which fails the operation of one's choice; and golden
// files for the tests of any package.
package storagetest

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/herdtrain/herd/storage"
)

// Mem is a storage.FS in memory. Its root "." is there from the start; names are relative. The zero Mem is not usable.
type Mem struct {
	mu    sync.Mutex
	nodes []*node // by number; 0 is the root
	log   []op
}

// node is a file or folder; names live in its parent's entries.
type node struct {
	dir     bool
	entries map[string]int // name → node, of a folder
	data    []byte         // of a file
}

// NewMem is an empty file system.
func NewMem() *Mem {
	return &Mem{nodes: []*node{{dir: true, entries: map[string]int{}}}}
}

func (m *Mem) find(name string) (int, bool) {
	name = filepath.Clean(name)
	if name == "." || name == "/" {
		return 0, true
	}
	parent, ok := m.find(filepath.Dir(name))
	if !ok {
		return 0, false
	}
	n, ok := m.nodes[parent].entries[filepath.Base(name)]
	return n, ok
}

// place finds the folder of name and what is there already.
func (m *Mem) place(verb, name string) (dir int, base string, err error) {
	name = filepath.Clean(name)
	dir, ok := m.find(filepath.Dir(name))
	if !ok || !m.nodes[dir].dir {
		return 0, "", pathError(verb, name, fs.ErrNotExist)
	}
	return dir, filepath.Base(name), nil
}

func pathError(verb, name string, err error) error {
	return &fs.PathError{Op: verb, Path: name, Err: err}
}

// do applies an operation and writes it down.
func (m *Mem) do(o op) {
	m.apply(o)
	m.log = append(m.log, o)
}

func (m *Mem) add(verb, name string, isDir bool) (int, error) {
	dir, base, err := m.place(verb, name)
	if err != nil {
		return 0, err
	}
	if _, taken := m.nodes[dir].entries[base]; taken {
		return 0, pathError(verb, name, fs.ErrExist)
	}
	id := len(m.nodes)
	m.do(op{kind: opLink, node: dir, name: base, target: id, targetDir: isDir})
	return id, nil
}

// Create implements storage.FS.
func (m *Mem) Create(name string) (storage.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.add("open", name, false)
	if err != nil {
		return nil, err
	}
	return &memFile{m, id}, nil
}

// Mkdir implements storage.FS.
func (m *Mem) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.add("mkdir", name, true)
	return err
}

// Open implements storage.FS.
func (m *Mem) Open(name string) (storage.Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.find(name)
	if !ok {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	if m.nodes[id].dir {
		return nil, pathError("open", name, errors.New("not a regular file"))
	}
	return &memReader{m, id, int64(len(m.nodes[id].data))}, nil
}

// Rename implements storage.FS, within one folder.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.find(from)
	if !ok {
		return pathError("rename", from, fs.ErrNotExist)
	}
	dir, base, err := m.place("rename", to)
	if err != nil {
		return err
	}
	if old, ok := m.find(filepath.Dir(filepath.Clean(from))); !ok || old != dir || m.nodes[id].dir {
		return pathError("rename", to, errors.New("not a file of the same folder"))
	}
	m.do(op{kind: opRename, node: dir, from: filepath.Base(from), name: base, target: id})
	return nil
}

// Remove implements storage.FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.place("remove", name)
	if err != nil {
		return err
	}
	id, ok := m.nodes[dir].entries[base]
	if !ok {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if len(m.nodes[id].entries) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	m.do(op{kind: opUnlink, node: dir, name: base})
	return nil
}

// SyncDir implements storage.FS.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.find(name)
	if !ok {
		return pathError("sync", name, fs.ErrNotExist)
	}
	m.do(op{kind: opSync, node: id})
	return nil
}

// ReadDir implements storage.FS.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.find(name)
	if !ok || !m.nodes[id].dir {
		return nil, pathError("readdir", name, fs.ErrNotExist)
	}
	var list []fs.DirEntry
	for base, n := range m.nodes[id].entries {
		list = append(list, fs.FileInfoToDirEntry(m.info(base, n)))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, nil
}

// Stat implements storage.FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.find(name)
	if !ok {
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return m.info(filepath.Base(name), id), nil
}

func (m *Mem) info(base string, id int) memInfo {
	return memInfo{base, int64(len(m.nodes[id].data)), m.nodes[id].dir}
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

type memFile struct {
	m  *Mem
	id int
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.do(op{kind: opWrite, node: f.id, off: off, data: append([]byte(nil), b...)})
	return len(b), nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.do(op{kind: opSync, node: f.id})
	return nil
}

func (f *memFile) Close() error { return nil }

type memReader struct {
	m    *Mem
	id   int
	size int64
}

func (r *memReader) ReadAt(b []byte, off int64) (int, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	data := r.m.nodes[r.id].data
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(b, data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *memReader) Size() int64  { return r.size }
func (r *memReader) Close() error { return nil }
