package storage_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

func read(t *testing.T, fsys storage.FS, name string) string {
	t.Helper()
	r, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil && len(b) > 0 {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latest")
	if err := os.WriteFile(path+".tmp", []byte("left by a crash, and longer than what follows"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "", "three"} {
		if err := storage.WriteFile(path, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, storage.OS, path); got != s {
			t.Errorf("read %q, want %q", got, s)
		}
	}
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}

// After a power cut at any moment the file is the old one or the new one, and the new one once WriteFile returned.
func TestWriteFileCrashes(t *testing.T) {
	m := storagetest.NewMem()
	for _, s := range []string{"old", "new"} {
		if err := storage.WriteFileFS(m, "latest", []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	done := m.Mark()
	if err := m.Mkdir("x"); err != nil { // a moment after
		t.Fatal(err)
	}
	start := done / 2
	seen := map[string]int{}
	for img := range m.Crashes(start) {
		got := read(t, img.FS, "latest")
		seen[got]++
		if got != "new" && (got != "old" || img.Ops >= done) {
			t.Errorf("%s: the file is %q", img.How, got)
		}
	}
	if seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("the images do not show both states: %v", seen)
	}
}

// The harness must be able to see the bug that it is there for.
func TestCrashesShowMissingSync(t *testing.T) {
	m := storagetest.NewMem()
	if err := storage.WriteFileFS(m, "latest", []byte("old")); err != nil {
		t.Fatal(err)
	}
	start := m.Mark()
	f, err := m.Create("latest.tmp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), m.Rename("latest.tmp", "latest"), m.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for img := range m.Crashes(start) {
		seen[read(t, img.FS, "latest")] = true
	}
	for _, want := range []string{"old", "new", "", "n", "\x00\x00\x00"} {
		if !seen[want] {
			t.Errorf("no image holds %q; seen %v", want, seen)
		}
	}
}

func TestWriteFileFailures(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for at := int64(1); ; at++ {
			m := storagetest.NewMem()
			if err := storage.WriteFileFS(m, "latest", []byte("old")); err != nil {
				t.Fatal(err)
			}
			failing := &storagetest.Failing{FS: m, At: at, Err: cause}
			err := storage.WriteFileFS(failing, "latest", []byte("new"))
			if failing.Calls() < at {
				if err != nil {
					t.Errorf("without a failure: %v", err)
				}
				if at < 7 {
					t.Errorf("only %d operations were counted", at-1)
				}
				break
			}
			if !errors.Is(err, cause) {
				t.Errorf("operation %d fails with %v: got %v", at, cause, err)
			}
			if got := read(t, m, "latest"); got != "old" && got != "new" {
				t.Errorf("operation %d fails with %v: the file is %q", at, cause, got)
			}
		}
	}
}

func TestMkdirAll(t *testing.T) {
	m := storagetest.NewMem()
	if err := storage.MkdirAll(m, "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := storage.MkdirAll(m, "a/b/c"); err != nil {
		t.Errorf("again: %v", err)
	}
	for img := range m.Crashes(m.Mark()) {
		if _, err := img.FS.Stat("a/b/c"); err != nil {
			t.Errorf("%s: %v", img.How, err)
		}
	}
	if err := storage.WriteFileFS(m, "a/file", nil); err != nil {
		t.Fatal(err)
	}
	if err := storage.MkdirAll(m, "a/file/d"); err == nil {
		t.Error("a folder was made below a file")
	}
	dir := filepath.Join(t.TempDir(), "x", "y")
	if err := storage.MkdirAll(storage.OS, dir); err != nil {
		t.Fatal(err)
	}
	if err := storage.MkdirAll(storage.OS, filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
}
