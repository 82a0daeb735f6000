package run

import (
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

// TestKeep wants of a run the checkpoints that its job asks for, all of them of the lineage of the last.
func TestKeep(t *testing.T) {
	out := t.TempDir()
	job := testJob(t, out, "checkpoint.every=2", "checkpoint.keep=2", "checkpoint.keep_every=8", "checkpoint.keep_best=1",
		"data.validation.every=2", "optimizer.lr=3", "schedule.warmup_steps=20") // rises, so the loss goes up at last
	if err := Run(t.Context(), job, Options{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(out, checkpoint.Folder)
	head := openHead(t, root).Ref()
	list, err := checkpoint.List(t.Context(), storage.OS, root, head)
	if err != nil {
		t.Fatal(err)
	}
	var steps []int64
	best := list[0]
	for _, e := range list {
		steps = append(steps, e.Step)
		if e.Status != checkpoint.Committed || e.ValidationLoss == 0 {
			t.Errorf("%+v, want it committed and validated", e)
		}
		if e.ValidationLoss < best.ValidationLoss {
			best = e
		}
	}
	want := []int64{best.Step, 8, 16, 18, 20}
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(steps, want) || best.Step%8 == 0 || best.Step >= 18 {
		t.Errorf("steps %v stayed, want %v, the best one between", steps, want)
	}
}
