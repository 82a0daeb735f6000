package storagetest_test

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// Every file system behaves like that of the machine.
func TestFS(t *testing.T) {
	for name, c := range map[string]struct {
		fs   storage.FS
		root string
	}{
		"os":      {storage.OS, t.TempDir()},
		"mem":     {storagetest.NewMem(), "."},
		"failing": {&storagetest.Failing{FS: storagetest.NewMem()}, "."},
	} {
		t.Run(name, func(t *testing.T) { conform(t, c.fs, c.root) })
	}
}

func conform(t *testing.T, fsys storage.FS, root string) {
	at := func(name string) string { return filepath.Join(root, name) }
	must := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	_, err := fsys.Create(at("d/a"))
	must("create in no folder", err, fs.ErrNotExist)
	must("mkdir", fsys.Mkdir(at("d")), nil)
	must("mkdir again", fsys.Mkdir(at("d")), fs.ErrExist)
	must("sync no folder", fsys.SyncDir(at("e")), fs.ErrNotExist)

	f, err := fsys.Create(at("d/a"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("world"), 6)
	must("write", err, nil)
	_, err = f.WriteAt([]byte("hello"), 0)
	must("write", err, nil)
	must("sync", f.Sync(), nil)
	must("close", f.Close(), nil)
	must("sync folder", fsys.SyncDir(at("d")), nil)
	_, err = fsys.Create(at("d/a"))
	must("create again", err, fs.ErrExist)
	must("remove a folder in use", errorOnly(fsys.Remove(at("d"))), errAny)

	must("rename", fsys.Rename(at("d/a"), at("d/b")), nil)
	must("rename nothing", fsys.Rename(at("d/a"), at("d/c")), fs.ErrNotExist)
	_, err = fsys.Open(at("d/a"))
	must("open the old name", err, fs.ErrNotExist)
	_, err = fsys.Open(at("d"))
	must("open a folder", errorOnly(err), errAny)
	r, err := fsys.Open(at("d/b"))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil || string(b) != "hello\x00world" {
		t.Errorf("read %q, %v", b, err)
	}
	n, err := r.ReadAt(b, 6)
	if n != 5 || err != io.EOF {
		t.Errorf("a read across the end: %d, %v", n, err)
	}
	must("close", r.Close(), nil)

	info, err := fsys.Stat(at("d/b"))
	if err != nil || info.Size() != 11 || info.IsDir() || info.Name() != "b" {
		t.Errorf("stat: %v, %v", info, err)
	}
	_, err = fsys.Stat(at("d/zzz"))
	must("stat nothing", err, fs.ErrNotExist)
	must("mkdir", fsys.Mkdir(at("d/a")), nil)
	list, err := fsys.ReadDir(at("d"))
	if err != nil || len(list) != 2 || list[0].Name() != "a" || !list[0].IsDir() || list[1].IsDir() {
		t.Errorf("readdir: %v, %v", list, err)
	}
	_, err = fsys.ReadDir(at("zzz"))
	must("list nothing", err, fs.ErrNotExist)
	must("remove a file", fsys.Remove(at("d/b")), nil)
	must("remove it again", fsys.Remove(at("d/b")), fs.ErrNotExist)
	must("remove a folder", fsys.Remove(at("d/a")), nil)
	must("remove a folder", fsys.Remove(at("d")), nil)
}

var errAny = errors.New("some error")

func errorOnly(err error) error {
	if err != nil {
		return errAny
	}
	return nil
}
