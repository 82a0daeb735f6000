package checkpoint

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// copyTo copies a checkpoint into a folder and commits it there.
func copyTo(to storage.FS, from *storagetest.Mem, name string) error {
	dst := storage.Folder{FS: to, Root: "copy/checkpoints"}
	ref, err := Copy(ctx, dst, storage.Folder{FS: from, Root: "r"}, name, nil)
	if err == nil {
		err = StoreCommitter{dst}.Commit(ctx, ref)
	}
	return err
}

// After a power cut at any moment of a copy the target resolves to what it held before or to the copy, whole; and the
// copy is completed by another one.
func TestCopyCrashes(t *testing.T) {
	from := storagetest.NewMem()
	a := save(t, from, "r", 10, Ref{})
	shards := deal(sampleTensors(20), 2)
	b, err := saveShards(from, "r", sampleState(20, a), shards)
	if err != nil {
		t.Fatal(err)
	}
	m := storagetest.NewMem()
	if err := copyTo(m, from, a.Name); err != nil {
		t.Fatal(err)
	}
	start := m.Mark()
	if err := copyTo(m, from, b.Name); err != nil {
		t.Fatal(err)
	}
	images, found := 0, map[string]int{}
	for img := range m.Crashes(start) {
		images++
		c, err := head(img.FS, "copy/checkpoints")
		if err != nil {
			t.Fatalf("%s: %v", img.How, err)
		}
		found[c.Ref().Name]++
		list, err := List(ctx, img.FS, "copy/checkpoints", c.Ref())
		for _, e := range list {
			if err != nil || e.Status == Damaged {
				t.Fatalf("%s: %+v, %v", img.How, e, err)
			}
		}
		if images%5 > 0 {
			continue
		}
		if err := copyTo(img.FS, from, b.Name); err != nil {
			t.Fatalf("%s, again: %v", img.How, err)
		}
		if c, err := head(img.FS, "copy/checkpoints"); err != nil || c.Ref().Name != b.Name {
			t.Fatalf("%s, again: %v", img.How, err)
		}
	}
	t.Logf("%d images: %v", images, found)
	if images < 100 || found[a.Name] == 0 || found[b.Name] == 0 {
		t.Errorf("%d images: %v", images, found)
	}
}

// Whatever call of either side fails, the target holds what it held, or the copy.
func TestCopyFailures(t *testing.T) {
	from := storagetest.NewMem()
	a := save(t, from, "r", 10, Ref{})
	b := save(t, from, "r", 20, a)
	for _, forever := range []bool{false, true} {
		for at := int64(1); ; at++ {
			m := storagetest.NewMem()
			if err := copyTo(m, from, a.Name); err != nil {
				t.Fatal(err)
			}
			failing := &storagetest.Failing{FS: m, At: at, Err: syscall.ENOSPC, Forever: forever}
			err := copyTo(failing, from, b.Name)
			if failing.Calls() < at {
				break
			}
			c, err2 := head(m, "copy/checkpoints")
			if err2 != nil || err == nil && c.State().Step != 20 || err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("call %d, forever %v: %v; resolved %v, %v", at, forever, err, c, err2)
			}
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	from := storagetest.NewMem()
	refs := chain(t, from, 3)
	names, err := Names(ctx, storage.Folder{FS: from, Root: "r"})
	if err != nil || !slices.Equal(names, []string{refs[0].Name, refs[1].Name, refs[2].Name}) {
		t.Errorf("names %v, %v", names, err)
	}
	to := storagetest.NewMem()
	if err := copyTo(to, from, refs[2].Name); err != nil {
		t.Fatal(err)
	}
	if err := copyTo(to, from, refs[2].Name); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := copyTo(to, from, refs[0].Name); !errors.Is(err, ErrFenced) {
		t.Errorf("latest would go back: %v", err)
	}
	if c, err := head(to, "copy/checkpoints"); err != nil || c.Ref().Name != refs[2].Name {
		t.Errorf("latest: %v", err)
	}
	if err := copyTo(to, from, "step-00000099.gen-3.a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	other := storagetest.NewMem()
	st := sampleState(30, Ref{})
	st.CodeVersion = "another"
	if _, err := Save(ctx, other, "r", st, sampleTensors(30)); err != nil {
		t.Fatal(err)
	}
	if err := copyTo(to, other, refs[2].Name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("another of the same name: %v", err)
	}
	for _, file := range []string{"data-00000.bin", "data-00000.index", "manifest"} {
		from := storagetest.NewMem()
		refs := chain(t, from, 2)
		spoil(t, from, refs[1], file)
		clean := storagetest.NewMem()
		if err := copyTo(clean, from, refs[1].Name); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("a damaged %s: %v", file, err)
		}
		if _, err := Open(ctx, clean, filepath.Join("copy/checkpoints", refs[1].Name)); !errors.Is(err, ErrNotFound) {
			t.Errorf("a damaged %s was copied: %v", file, err)
		}
	}
}
