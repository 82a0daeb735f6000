package checkpoint

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// prune is Prune of a new Pruner.
func prune(fsys storage.FS, root string, head Ref, keep int) ([]string, error) {
	return (&Pruner{FS: fsys, Root: root, Keep: Keep{Last: keep}}).Prune(ctx, head)
}

func left(t *testing.T, m *storagetest.Mem) (steps []int64) {
	t.Helper()
	ids, err := directories(m, "r")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ids {
		steps = append(steps, i.step)
	}
	return steps
}

func TestPruneKeeps(t *testing.T) {
	for keep, want := range map[int][]int64{
		-1: {50, 60}, 1: {50, 60}, 2: {50, 60}, 3: {40, 50, 60}, 6: {10, 20, 30, 40, 50, 60}, 99: {10, 20, 30, 40, 50, 60},
	} {
		m := storagetest.NewMem()
		refs := chain(t, m, 6)
		removed, err := prune(m, "r", refs[5], keep)
		if err != nil || len(removed) != 6-len(want) {
			t.Errorf("keep %d: removed %v, %v", keep, removed, err)
		}
		if got := left(t, m); !slices.Equal(got, want) {
			t.Errorf("keep %d: left %v, want %v", keep, got, want)
		}
		if removed, err := prune(m, "r", refs[5], keep); err != nil || removed != nil {
			t.Errorf("keep %d, again: removed %v, %v", keep, removed, err)
		}
	}
}

// Damaged checkpoints do not count, and the last two good ones stay.
func TestPruneCountsGoodOnes(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 6)
	spoil(t, m, refs[4], "data-00000.bin")
	spoil(t, m, refs[3], "manifest")
	if _, err := prune(m, "r", refs[5], 2); err != nil {
		t.Fatal(err)
	}
	if got, want := left(t, m), []int64{30, 40, 50, 60}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}

	m = storagetest.NewMem()
	refs = chain(t, m, 4)
	for _, r := range refs[:3] {
		spoil(t, m, r, "data-00000.bin")
	}
	if removed, err := prune(m, "r", refs[3], 2); err != nil || removed != nil {
		t.Errorf("with one good one: removed %v, %v", removed, err)
	}
}

func TestPruneLitter(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 2)
	add := func(step, generation int64, change func(*State)) Ref {
		st := sampleState(step, refs[1])
		st.Generation = generation
		change(&st)
		ref, err := Save(ctx, m, "r", st, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	same := func(*State) {}
	uncommitted := add(21, 3, same)
	rolledBack := add(900, 3, same)
	foreign := add(22, 3, func(s *State) { s.JobDigest = "another" })
	damaged := add(23, 3, same)
	spoil(t, m, damaged, "manifest")
	head := add(30, 4, same)
	newer := add(31, 4, same)
	if err := (FileCommitter{m, "r"}).Commit(ctx, head); err != nil {
		t.Fatal(err)
	}
	old, young, notes := "step-00000024.gen-3.a-1", "step-00000032.gen-4.a-1", "step-00000025.gen-3.a-1"
	for _, dir := range []string{old, young, notes, "backup"} {
		if err := m.Mkdir(filepath.Join("r", dir)); err != nil {
			t.Fatal(err)
		}
	}
	replaceFile(t, m, filepath.Join("r", old, "data-00000.bin"), []byte("half a tens"))
	replaceFile(t, m, filepath.Join("r", notes, "README"), []byte("a person's"))

	// Not before the lineage has as many as are to be kept.
	if removed, err := prune(m, "r", head, 4); err != nil || !slices.Equal(removed, []string{old}) {
		t.Fatalf("removed %v, %v", removed, err)
	}
	if _, err := prune(m, "r", head, 3); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		refs[0].Name: true, refs[1].Name: true, head.Name: true,
		uncommitted.Name: false, rolledBack.Name: false, old: false,
		foreign.Name: true, damaged.Name: true, newer.Name: true, young: true, "backup": true, notes + "/README": true,
	} {
		if _, err := m.Stat(filepath.Join("r", name)); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", name, err == nil, want)
		}
	}
}

func TestPruneNeedsItsHead(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 4)
	spoil(t, m, refs[3], "manifest")
	if removed, err := prune(m, "r", refs[3], 2); !errors.Is(err, ErrCorrupt) || removed != nil {
		t.Errorf("a damaged head: removed %v, %v", removed, err)
	}
	if removed, err := prune(m, "r", Ref{Name: "step-00000099.gen-3.a-1"}, 2); !errors.Is(err, ErrNotFound) ||
		removed != nil {
		t.Errorf("a missing head: removed %v, %v", removed, err)
	}
	if removed, err := prune(m, "r", Ref{}, 2); !errors.Is(err, ErrNone) || removed != nil {
		t.Errorf("no head: removed %v, %v", removed, err)
	}
}

// Every n-th and the best stay, each step's last save only, also where the lineage does not reach.
func TestPruneKeepsSome(t *testing.T) {
	m := storagetest.NewMem()
	var head Ref
	var refs []Ref
	for i, s := range []struct {
		step, generation int64
		loss             float64
	}{
		{10, 1, 5}, {20, 1, 4}, {30, 1, 3}, {40, 1, 1}, {50, 1, 2}, // then back to 30
		{40, 2, 2.5}, {50, 2, 0}, {60, 2, 2.4}, {70, 2, 2.6}, {80, 2, 2.7}, {90, 2, 0},
	} {
		if i == 5 {
			head = refs[2]
		}
		st := sampleState(s.step, head)
		st.Generation, st.ValidationLoss = s.generation, s.loss
		ref, err := Save(ctx, m, "r", st, sampleTensors(s.step))
		if err != nil {
			t.Fatal(err)
		}
		refs, head = append(refs, ref), ref
	}
	if err := (FileCommitter{m, "r"}).Commit(ctx, head); err != nil {
		t.Fatal(err)
	}
	p := Pruner{FS: m, Root: "r", Keep: Keep{Last: 2, Every: 20, Best: 2}}
	stale, err := p.Stale(ctx, head)
	if err != nil || len(left(t, m)) != len(refs) {
		t.Fatalf("stale %v, %v; left %v", stale, err, left(t, m))
	}
	removed, err := p.Prune(ctx, head)
	if err != nil || !slices.Equal(removed, stale) {
		t.Fatalf("removed %v, want %v; %v", removed, stale, err)
	}
	if got, want := left(t, m), []int64{20, 40, 60, 80, 90}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if _, err := Open(ctx, m, filepath.Join("r", refs[5].Name)); err != nil {
		t.Errorf("of step 40 the save that was rolled back stayed: %v", err)
	}
}

// What was verified once is not read again.
func TestPruneReadsOnce(t *testing.T) {
	m := storagetest.NewMem()
	refs := chain(t, m, 5)
	counted := &counting{FS: m}
	p := Pruner{FS: counted, Root: "r", Keep: Keep{Last: 4}}
	var read []int64
	for range 2 {
		before := counted.bytes
		if _, err := p.Stale(ctx, refs[4]); err != nil {
			t.Fatal(err)
		}
		read = append(read, counted.bytes-before)
	}
	c, err := Open(ctx, m, filepath.Join("r", refs[4].Name))
	if err != nil {
		t.Fatal(err)
	}
	if data := c.writers[0].DataSize; read[0]-read[1] != 2*data {
		t.Errorf("%d bytes were read, then %d; want %d fewer", read[0], read[1], 2*data)
	}
}
