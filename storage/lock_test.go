package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	stale := []byte("process 999999999 on a machine that lost power, and a long line\n")
	if err := os.WriteFile(path, stale, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := storage.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = storage.Lock(path)
	if !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("a second lock: %v", err)
	}
	host, _ := os.Hostname()
	for _, want := range []string{path, fmt.Sprintf("process %d on %s since 20", os.Getpid(), host)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = storage.Lock(path)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestLockErrors(t *testing.T) {
	if _, err := storage.Lock(filepath.Join(t.TempDir(), "missing", "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}
