package checkpoint

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

// chain saves n checkpoints, each the parent of the next, and returns their refs, oldest first.
func chain(t *testing.T, m *storagetest.Mem, n int) (refs []Ref) {
	t.Helper()
	parent := Ref{}
	for i := range n {
		parent = save(t, m, "r", int64(10*(i+1)), parent)
		refs = append(refs, parent)
	}
	return refs
}

// spoil changes a byte in the middle of a file of a checkpoint.
func spoil(t *testing.T, m *storagetest.Mem, ref Ref, file string) {
	t.Helper()
	path := filepath.Join("r", ref.Name, file)
	b := readFile(t, m, path)
	b[len(b)/2]++
	replaceFile(t, m, path, b)
}

func rejectedNames(list []Rejection) (names []string) {
	for _, r := range list {
		names = append(names, r.Name)
	}
	return names
}

// With the newest manifests damaged, or gone, the lineage is followed past them.
func TestResolveFollowsLineage(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 12)
	if n := len(refs[11].Ancestors); n != maxAncestors {
		t.Errorf("%d ancestors", n)
	}
	var want []string
	for _, i := range []int{11, 10, 9, 8, 7} {
		want = append(want, refs[i].Name)
		if i == 9 {
			if _, err := remove(m, filepath.Join("r", refs[i].Name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		spoil(t, m, refs[i], "manifest")
	}
	want = append(want, refs[6].Name, refs[5].Name)
	spoil(t, m, refs[6], "data-00000.index") // its manifest still names the parent
	spoil(t, m, refs[5], "data-00000.bin")
	// A checkpoint outside of the lineage is not taken, however high its step.
	if _, err := Save(ctx, m, "r", sampleState(500, refs[0]), sampleTensors(500)); err != nil {
		t.Fatal(err)
	}
	c, rejected, err := Resolve(ctx, m, "r", refs[11], nil)
	if err != nil || c.Ref().Name != refs[4].Name {
		t.Fatalf("resolved to %v, %v", c, err)
	}
	if got := rejectedNames(rejected); !slices.Equal(got, want) {
		t.Errorf("rejected %v, want %v", got, want)
	}
	if !errors.Is(rejected[2].Err, ErrNotFound) {
		t.Errorf("the missing one was rejected for %v", rejected[2].Err)
	}

	for _, r := range refs[:5] {
		spoil(t, m, r, "data-00000.bin")
	}
	_, rejected, err = Resolve(ctx, m, "r", refs[11], nil)
	if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNone) || len(rejected) != 12 {
		t.Errorf("with none left: %v, %d rejected", err, len(rejected))
	}
	for _, r := range refs {
		if err != nil && !strings.Contains(err.Error(), r.Name) {
			t.Errorf("the error does not name %s", r.Name)
		}
	}
}

func TestResolveStops(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 2)
	other := errors.New("a model of another shape")
	c, rejected, err := Resolve(ctx, m, "r", refs[1], func(*Checkpoint) error { return other })
	if c != nil || rejected != nil || !errors.Is(err, other) {
		t.Errorf("load failed otherwise: %v, %v, %v", c, rejected, err)
	}
	replaceFile(t, m, filepath.Join("r", refs[1].Name, "manifest"), rawRecords("herdmani", 2, 0, nil))
	c, rejected, err = Resolve(ctx, m, "r", refs[1], nil)
	if c != nil || rejected != nil || !errors.Is(err, ErrVersion) {
		t.Errorf("a later version: %v, %v, %v", c, rejected, err)
	}
}

func TestResolveNone(t *testing.T) {
	if c, _, err := Resolve(ctx, storagetest.NewMem(), "r", Ref{}, nil); c != nil || !errors.Is(err, ErrNone) {
		t.Errorf("%v, %v", c, err)
	}
}

// A whole checkpoint of the right name that is not the committed one is refused, in the head and behind it.
func TestResolveChecksDigests(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 3)
	wrong := refs[2]
	wrong.Manifest[0]++
	c, rejected, err := Resolve(ctx, m, "r", wrong, nil)
	if err != nil || c.Ref().Name != refs[1].Name || len(rejected) != 1 {
		t.Errorf("head: %v, %v, %v", c, rejected, err)
	}

	other := storagetest.NewMem() // the same step of another run
	st := sampleState(20, refs[0])
	st.Seed = 7
	if _, err := Save(ctx, other, "r", st, sampleTensors(20)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("r", refs[1].Name, "manifest")
	replaceFile(t, m, path, readFile(t, other, path))
	spoil(t, m, refs[2], "data-00000.bin")
	c, rejected, err = Resolve(ctx, m, "r", refs[2], nil)
	if err != nil || c.Ref().Name != refs[0].Name || len(rejected) != 2 {
		t.Errorf("parent: %v, %v, %v", c, rejected, err)
	}
}

func TestList(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 3)
	spoil(t, m, refs[0], "manifest")
	if _, err := Save(ctx, m, "r", sampleState(40, refs[2]), nil); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"r/step-00000050.gen-3.a-1", "r/notes"} {
		if err := m.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	list, err := List(ctx, m, "r", refs[2])
	if err != nil || len(list) != 5 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, want := range []Status{Damaged, Committed, Committed, Sealed, Unfinished} {
		e := list[i]
		bad := want == Damaged || want == Unfinished
		if e.Status != want || e.Step != int64(10*(i+1)) || e.Generation != 3 || e.Attempt != 1 ||
			e.Latest != (i == 2) || (e.Err != nil) != bad || e.Created.IsZero() != bad || (e.Bytes == 0) != bad {
			t.Errorf("entry %d is %+v, want it %s", i, e, want)
		}
	}
	if list[3].Parent != refs[2].Name {
		t.Errorf("parent %q", list[3].Parent)
	}
	wrong := refs[2]
	wrong.Manifest[0]++
	if list, err := List(ctx, m, "r", wrong); err != nil || list[2].Status != Damaged {
		t.Errorf("a head of another digest: %+v, %v", list[2], err)
	}
	if list, err := List(ctx, m, "nothing", Ref{}); err != nil || list != nil {
		t.Errorf("no folder: %v, %v", list, err)
	}
}

func TestLocate(t *testing.T) {
	m := storagetest.NewMem()
	for _, dir := range []string{"run", "run/checkpoints", "other", "other/step-00000050.gen-3.a-1", "empty"} {
		if err := m.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	ref := save(t, m, "run/checkpoints", 10, Ref{})
	dir := "run/checkpoints/" + ref.Name
	for path, want := range map[string][2]string{
		"run":                           {"run/checkpoints", ""},
		"run/":                          {"run/checkpoints", ""},
		"run/checkpoints":               {"run/checkpoints", ""},
		dir:                             {"run/checkpoints", dir},
		"other":                         {"other", ""},
		"other/step-00000050.gen-3.a-1": {"other", "other/step-00000050.gen-3.a-1"},
	} {
		root, dir, err := Locate(m, path)
		if got := [2]string{root, dir}; err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"empty", "nothing", dir + "/manifest"} {
		if _, _, err := Locate(m, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
