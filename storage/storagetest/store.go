package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage"
)

// TestStore is what every Store, empty at first, must do.
func TestStore(t *testing.T, s storage.Store) {
	ctx := t.Context()
	put := func(name string, b []byte, o storage.PutOptions) error {
		return s.Put(ctx, name, bytes.NewReader(b), int64(len(b)), o)
	}
	get := func(name string, off, n int64) ([]byte, error) {
		r, err := s.Get(ctx, name, off, n)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	names := func(prefix string) (list []string) {
		for o, err := range s.List(ctx, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, o.Name)
		}
		return list
	}
	large := make([]byte, 40<<20+123) // several parts
	_, _ = rand.NewChaCha8([32]byte{}).Read(large)
	for name, b := range map[string][]byte{"a/small": []byte("hello"), "a/b/large": large, "a/empty": {}, "z": []byte("z")} {
		if err := put(name, b, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := get(name, 0, -1); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if o, err := s.Stat(ctx, name); err != nil || o.Size != int64(len(b)) || o.Name != name || o.Version == "" {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	for _, r := range [][2]int64{{0, 1}, {1 << 20, 17}, {int64(len(large)) - 5, 5}, {7, 0}, {40 << 20, -1}} {
		want := large[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		if got, err := get("a/b/large", r[0], r[1]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("bytes %v: %d of them, %v", r, len(got), err)
		}
	}
	if got := names("a/"); !slices.Equal(got, []string{"a/b/large", "a/empty", "a/small"}) {
		t.Errorf("a/ has %v", got)
	}
	if got := names("a/s"); !slices.Equal(got, []string{"a/small"}) {
		t.Errorf("a/s has %v", got)
	}
	if got := names("q"); len(got) > 0 {
		t.Errorf("q has %v", got)
	}

	if err := put("z", []byte("y"), storage.PutOptions{IfAbsent: true}); !errors.Is(err, storage.ErrPrecondition) {
		t.Errorf("put what is there, if absent: %v", err)
	}
	if err := put("new", []byte("n"), storage.PutOptions{IfAbsent: true}); err != nil {
		t.Errorf("put what is not there, if absent: %v", err)
	}
	old, err := s.Stat(ctx, "z")
	if err != nil {
		t.Fatal(err)
	}
	if err := put("z", []byte("second"), storage.PutOptions{IfMatch: old.Version}); err != nil {
		t.Errorf("put over the version that is there: %v", err)
	}
	if err := put("z", []byte("third"), storage.PutOptions{IfMatch: old.Version}); !errors.Is(err, storage.ErrPrecondition) {
		t.Errorf("put over a version that is gone: %v", err)
	}
	if got, err := get("z", 0, -1); err != nil || string(got) != "second" {
		t.Errorf("z is %q, %v", got, err)
	}

	// What ends early, or is cancelled, leaves what was there.
	if err := s.Put(ctx, "z", strings.NewReader("short"), 100, storage.PutOptions{}); err == nil {
		t.Error("a short object was put")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Put(ended, "z", bytes.NewReader(large), int64(len(large)), storage.PutOptions{}); err == nil {
		t.Error("a cancelled put succeeded")
	}
	if err := s.Put(ctx, "z", failing{}, 20<<20, storage.PutOptions{}); !errors.Is(err, errRead) {
		t.Errorf("a reader that fails: %v", err)
	}
	if got, err := get("z", 0, -1); err != nil || string(got) != "second" {
		t.Errorf("z is %q, %v", got, err)
	}

	for range 2 { // the second time it is not there
		if err := s.Delete(ctx, "z"); err != nil {
			t.Error(err)
		}
	}
	for what, err := range map[string]error{
		"stat": func() error { _, err := s.Stat(ctx, "z"); return err }(),
		"get":  func() error { _, err := get("z", 0, -1); return err }(),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s what was deleted: %v", what, err)
		}
	}
	for _, name := range names("") {
		if err := s.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if left := names(""); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

var errRead = fmt.Errorf("a test: it cannot be read")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errRead }
