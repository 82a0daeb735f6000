package checkpoint

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

func readFile(t testing.TB, fsys storage.FS, path string) []byte {
	t.Helper()
	r, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, r.Size())
	if err := readFull(r, path, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func replaceFile(t testing.TB, fsys storage.FS, path string, data []byte) {
	t.Helper()
	if err := storage.WriteFileFS(fsys, path, data); err != nil {
		t.Fatal(err)
	}
}

// Damage anywhere in the newest checkpoint is seen, named, and answered by its parent.
func TestDamage(t *testing.T) {
	m := storagetest.NewMem()
	first := save(t, m, "r", 10, Ref{})
	head := save(t, m, "r", 20, first)
	dir := filepath.Join("r", head.Name)
	c, err := Open(ctx, m, dir)
	if err != nil {
		t.Fatal(err)
	}
	infos := c.Tensors()

	refused := func(what, path string, pos int) {
		t.Helper()
		got, rejected, err := Resolve(ctx, m, "r", head, nil)
		if err != nil || got.Ref().Name != first.Name || len(rejected) != 1 || rejected[0].Name != head.Name {
			t.Fatalf("%s: resolved to %v, %v, %v", what, got, rejected, err)
		}
		var d *DamageError
		if !errors.As(rejected[0].Err, &d) || !errors.Is(rejected[0].Err, ErrCorrupt) || d.File != path {
			t.Fatalf("%s: rejected for %v", what, rejected[0].Err)
		}
		if filepath.Base(path) != "data-00000.bin" || pos < 0 {
			return
		}
		for _, i := range infos {
			begin := i.Slices[0].Begin
			inside := begin <= int64(pos) && int64(pos) < begin+i.Bytes
			if (d.Tensor == i.Name) != inside {
				t.Fatalf("%s: byte %d is reported as of tensor %q", what, pos, d.Tensor)
			}
		}
	}
	for _, name := range []string{"manifest", "data-00000.index", "data-00000.bin"} {
		path := filepath.Join(dir, name)
		good := readFile(t, m, path)
		step := 1
		if len(good) > 4096 {
			step = 29
		}
		for pos := 0; pos < len(good); pos += step {
			bad := append([]byte(nil), good...)
			bad[pos] ^= 1 << (pos % 8)
			replaceFile(t, m, path, bad)
			refused(fmt.Sprintf("%s with byte %d changed", name, pos), path, pos)
		}
		for size := 0; size < len(good); size += step {
			replaceFile(t, m, path, good[:size])
			refused(fmt.Sprintf("%s cut to %d bytes", name, size), path, -1)
		}
		replaceFile(t, m, path, append(append([]byte(nil), good...), 0))
		refused(name+" with a byte more", path, -1)
		replaceFile(t, m, path, readFile(t, m, filepath.Join("r", first.Name, name)))
		wrong := path
		refused(name+" of another checkpoint", wrong, -1)
		if name != "manifest" {
			if err := m.Remove(path); err != nil {
				t.Fatal(err)
			}
			refused(name+" missing", path, -1)
		}
		replaceFile(t, m, path, good)
	}
	got, rejected, err := Resolve(ctx, m, "r", head, nil)
	if err != nil || got.Ref().Name != head.Name || rejected != nil {
		t.Errorf("undamaged: %v, %v, %v", got, rejected, err)
	}
}

func TestLatestDamage(t *testing.T) {
	m := storagetest.NewMem()
	committer := FileCommitter{m, "r"}
	first := save(t, m, "r", 10, Ref{})
	head := save(t, m, "r", 20, first)
	good := readFile(t, m, "r/latest")
	try := func(what string, text []byte) {
		t.Helper()
		replaceFile(t, m, "r/latest", text)
		_, err := committer.Latest(ctx)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "r/latest") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		try(fmt.Sprintf("byte %d changed", i), bad)
		try(fmt.Sprintf("cut to %d bytes", i), good[:i])
	}
	try("too long", make([]byte, maxLatest+1))
	try("a line twice", []byte(sign("herd-latest 1\nname "+head.Name+"\nname "+head.Name+"\n")))
	try("a strange line", []byte(sign("herd-latest 1\nname "+head.Name+"\nfoo bar\n")))
	try("another title", []byte(sign("herd-oldest 1\n")))

	replaceFile(t, m, "r/latest", []byte(sign("herd-latest 2\nanything\n")))
	if _, err := committer.Latest(ctx); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a later version: %v", err)
	}
	if err := committer.Commit(ctx, head); !errors.Is(err, ErrVersion) {
		t.Errorf("commit over a later version: %v", err)
	}
	if err := m.Remove("r/latest"); err != nil {
		t.Fatal(err)
	}
	_, err := committer.Latest(ctx)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), first.Name) {
		t.Errorf("lost, while a checkpoint names a parent: %v", err)
	}
	if err := committer.Commit(ctx, head); err != nil {
		t.Errorf("commit over a lost one: %v", err)
	}
}

func TestNoneCommitted(t *testing.T) {
	m := storagetest.NewMem()
	committer := FileCommitter{m, "r"}
	if _, err := committer.Latest(ctx); !errors.Is(err, ErrNone) || errors.Is(err, ErrCorrupt) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := Save(ctx, m, "r", sampleState(1, Ref{}), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := committer.Latest(ctx); !errors.Is(err, ErrNone) {
		t.Errorf("a first save that was not committed: %v", err)
	}
}

func TestCommitRefuses(t *testing.T) {
	m := storagetest.NewMem()
	committer := FileCommitter{m, "r"}
	old := save(t, m, "r", 10, Ref{})
	head := save(t, m, "r", 20, old)
	if err := committer.Commit(ctx, old); !errors.Is(err, ErrFenced) {
		t.Errorf("an older save: %v", err)
	}
	if err := committer.Commit(ctx, head); err != nil {
		t.Errorf("the same again: %v", err)
	}
	st := sampleState(5, old)
	st.Generation++
	later, err := Save(ctx, m, "r", st, sampleTensors(5))
	if err != nil {
		t.Fatal(err)
	}
	wrong := later
	wrong.Manifest[0]++
	if err := committer.Commit(ctx, wrong); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a wrong digest: %v", err)
	}
	missing := later
	missing.Name = "step-00000099.gen-9.a-1"
	if err := committer.Commit(ctx, missing); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing one: %v", err)
	}
	if err := committer.Commit(ctx, Ref{}); err == nil {
		t.Error("nothing was committed")
	}
	if err := committer.Commit(ctx, later); err != nil {
		t.Errorf("an earlier step of a later generation: %v", err)
	}
}
