package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// head resolves what a new process would resume from, and says if that is not whole.
func head(fsys storage.FS, root string) (*Checkpoint, error) {
	ref, err := FileCommitter{fsys, root}.Latest(ctx)
	if err != nil {
		return nil, err
	}
	c, rejected, err := Resolve(ctx, fsys, root, ref, sameTensors)
	if err == nil && rejected != nil {
		err = fmt.Errorf("rejected %v", rejected)
	}
	return c, err
}

// After a power cut at any moment of save, commit and prune, in every order in which unsynced operations may have
// reached the disk, the old or the new checkpoint is whole; the new one, once Commit has returned. What the cut left
// behind does not stop the next save, in which the power may fail again.
func TestCrashes(t *testing.T) {
	t.Run("one writer", func(t *testing.T) { testCrashes(t, Save, 1) })
	t.Run("interleaved writers", func(t *testing.T) { testCrashes(t, saveInterleaved, 4) }) // there are more images
}

type saving func(context.Context, storage.FS, string, State, []Tensor) (Ref, error)

// testCrashes goes on from every fourth image, and cuts the power again in every 60th; sparse times fewer.
func testCrashes(t *testing.T, saveLast saving, sparse int) {
	const root = "run/checkpoints"
	m := storagetest.NewMem()
	a := save(t, m, root, 10, Ref{})
	b := save(t, m, root, 20, a)
	start := m.Mark()
	c, err := saveLast(ctx, m, root, sampleState(30, b), sampleTensors(30))
	if err == nil {
		err = FileCommitter{m, root}.Commit(ctx, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	committed := m.Mark()
	if removed, err := prune(m, root, c, 2); err != nil || !reflect.DeepEqual(removed, []string{a.Name}) {
		t.Fatalf("pruned %v, %v", removed, err)
	}
	images, twice, resolved := 0, 0, map[string]int{}
	for img := range m.Crashes(start) {
		images++
		got, err := head(img.FS, root)
		if err != nil {
			t.Fatalf("%s: %v", img.How, err)
		}
		resolved[got.Ref().Name]++
		if name := got.Ref().Name; name != c.Name && (name != b.Name || img.Ops >= committed) {
			t.Fatalf("%s: resolved to %s", img.How, name)
		}
		list, err := List(ctx, img.FS, root, got.Ref())
		for _, e := range list {
			if err != nil || e.Status == Damaged {
				t.Fatalf("%s: %+v, %v; want it whole or plainly unfinished", img.How, e, err)
			}
		}
		if images%(4*sparse) != 0 {
			continue
		}
		from := img.FS.Mark()
		next := afterwards(t, img, root, got)
		if images%(60*sparse) != 0 {
			continue
		}
		for again := range img.FS.Crashes(from) {
			twice++
			c, err := head(again.FS, root)
			if err != nil || c.Ref().Name != next.Name && c.Ref().Name != got.Ref().Name {
				t.Fatalf("%s; then %s: %v, %v", img.How, again.How, c, err)
			}
		}
	}
	t.Logf("%d images: %v; %d of a second cut", images, resolved, twice)
	if images < 200 || twice < 200 || resolved[b.Name] == 0 || resolved[c.Name] == 0 {
		t.Errorf("%d images: %v", images, resolved)
	}
}

// afterwards goes on from what a crash left.
func afterwards(t *testing.T, img storagetest.Image, root string, from *Checkpoint) Ref {
	t.Helper()
	st := sampleState(40, from.Ref())
	var err error
	if st.Generation, err = NextGeneration(img.FS, root); err != nil {
		t.Fatalf("%s: %v", img.How, err)
	}
	ref, err := Save(ctx, img.FS, root, st, sampleTensors(40))
	if err == nil {
		err = FileCommitter{img.FS, root}.Commit(ctx, ref)
	}
	if err == nil {
		_, err = prune(img.FS, root, ref, 1)
	}
	if err != nil {
		t.Fatalf("%s: %v", img.How, err)
	}
	list, err := List(ctx, img.FS, root, ref)
	if err != nil || len(list) != 2 || list[0].Name != from.Ref().Name || list[1].Name != ref.Name {
		t.Fatalf("%s: afterwards %v, %v; want two checkpoints", img.How, list, err)
	}
	return ref
}

// The very first save: nothing or all of it.
func TestFirstCrashes(t *testing.T) {
	m := storagetest.NewMem()
	save(t, m, "run/checkpoints", 10, Ref{})
	committed := m.Mark()
	none := 0
	for img := range m.Crashes(0) {
		_, err := head(img.FS, "run/checkpoints")
		if errors.Is(err, ErrNone) && img.Ops < committed {
			none++
		} else if err != nil {
			t.Fatalf("%s: %v", img.How, err)
		}
	}
	if none == 0 {
		t.Error("no image was without a checkpoint")
	}
}

// Whatever operation fails, alone or with all that follow, the error says why and the old checkpoint is still there.
func TestFailures(t *testing.T) {
	t.Run("one writer", func(t *testing.T) { testFailures(t, Save) })
	t.Run("interleaved writers", func(t *testing.T) { testFailures(t, saveInterleaved) })
}

func testFailures(t *testing.T, saveLast saving) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for _, forever := range []bool{false, true} {
			for at := int64(1); ; at++ {
				m := storagetest.NewMem()
				a := save(t, m, "r", 10, Ref{})
				b := save(t, m, "r", 20, a)
				failing := &storagetest.Failing{FS: m, At: at, Err: cause, Forever: forever}
				err := saveCommitPrune(failing, b, saveLast)
				if failing.Calls() < at {
					if err != nil {
						t.Errorf("without a failure: %v", err)
					}
					if at < 40 {
						t.Errorf("only %d operations were counted", at)
					}
					break
				}
				where := fmt.Sprintf("operation %d fails with %v, forever: %v", at, cause, forever)
				if err != nil && !errors.Is(err, cause) {
					t.Errorf("%s: got %v", where, err)
				}
				got, err2 := head(m, "r")
				if err2 != nil {
					t.Fatalf("%s: %v", where, err2)
				}
				if s := got.State().Step; s != 20 && s != 30 || err == nil && s != 30 {
					t.Errorf("%s: resolved to step %d after %v", where, s, err)
				}
				if _, err := Open(ctx, m, filepath.Join("r", b.Name)); err != nil {
					t.Errorf("%s: the old checkpoint: %v", where, err)
				}
			}
		}
	}
}

func saveCommitPrune(fsys storage.FS, parent Ref, saveLast saving) error {
	ref, err := saveLast(ctx, fsys, "r", sampleState(30, parent), sampleTensors(30))
	if err != nil {
		return err
	}
	if err := (FileCommitter{fsys, "r"}).Commit(ctx, ref); err != nil {
		return err
	}
	_, err = prune(fsys, "r", ref, 2)
	return err
}

// A save that fails once leaves nothing behind.
func TestFailedSaveCleansUp(t *testing.T) {
	t.Run("one writer", func(t *testing.T) { testFailedSaveCleansUp(t, Save) })
	t.Run("interleaved writers", func(t *testing.T) { testFailedSaveCleansUp(t, saveInterleaved) })
}

func testFailedSaveCleansUp(t *testing.T, saveLast saving) {
	for at := int64(1); ; at++ {
		m := storagetest.NewMem()
		a := save(t, m, "r", 10, Ref{})
		failing := &storagetest.Failing{FS: m, At: at, Err: syscall.ENOSPC}
		_, err := saveLast(ctx, failing, "r", sampleState(20, a), sampleTensors(20))
		if failing.Calls() < at {
			break
		}
		list, listErr := List(ctx, m, "r", a)
		if err == nil || listErr != nil || len(list) != 1 {
			t.Errorf("operation %d fails: %v; left %v, %v", at, err, list, listErr)
		}
	}
}

// A disk that cannot be read gives an error or the parent, never something else.
func TestUnreadable(t *testing.T) {
	m := storagetest.NewMem()
	a := save(t, m, "r", 10, Ref{})
	save(t, m, "r", 20, a)
	for at := int64(1); ; at++ {
		failing := &storagetest.Failing{FS: m, At: at, Err: syscall.EIO}
		ref, err := FileCommitter{failing, "r"}.Latest(ctx)
		var c *Checkpoint
		var rejected []Rejection
		if err == nil {
			c, rejected, err = Resolve(ctx, failing, "r", ref, sameTensors)
		}
		if failing.Calls() < at {
			break
		}
		switch {
		case err != nil:
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("operation %d fails: %v", at, err)
			}
		case c.State().Step == 10:
			if len(rejected) != 1 || !errors.Is(rejected[0].Err, syscall.EIO) {
				t.Errorf("operation %d fails: rejected %v", at, rejected)
			}
		}
	}
}
