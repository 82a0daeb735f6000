package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

// trainedRun trains the job of fishJob, with settings, and returns its output directory.
func trainedRun(t *testing.T, sets ...string) (out string) {
	t.Helper()
	job, _, out := fishJob(t)
	args := []string{"run", "--config", job}
	for _, s := range sets {
		args = append(args, "--set", s)
	}
	trainer(t, 0, args...)
	return out
}

func TestCheckpointDiffReshardPrune(t *testing.T) {
	out := trainedRun(t, "train.steps=50", "checkpoint.every=10", "checkpoint.keep=9")
	root := filepath.Join(out, checkpoint.Folder)
	step := func(n string) string { return filepath.Join(root, "step-000000"+n+".gen-1.a-1") }

	// Two steps differ, in every tensor; a checkpoint does not differ from itself cut for other ranks.
	text, errs := runCheckpoint(t, 1, "diff", step("40"), out)
	wantAll(t, text, "A  "+step("40"), "B  "+step("50"), "model.embed_tokens.weight", "‖A−B‖/‖A‖", " 0 are equal")
	wantAll(t, errs, "the checkpoints differ")
	cut := filepath.Join(t.TempDir(), "cut")
	text, _ = runCheckpoint(t, 0, "reshard", out, cut, "--ranks", "4", "--set", "parallel.tensor=2")
	wantAll(t, text, filepath.Join(cut, checkpoint.Folder, "step-00000050.gen-1.a-1"), "for 4 ranks (data 2, tensor 2")
	text, _ = runCheckpoint(t, 0, "diff", out, cut)
	wantAll(t, text, "job file: parallel.tensor: 1 → 2", "tensors are equal, bit for bit")
	var d differences
	text, _ = runCheckpoint(t, 1, "diff", "--json", step("10"), step("20"))
	if err := json.Unmarshal([]byte(text), &d); err != nil || len(d.Tensors) == 0 || d.Tensors[0].Differ == 0 || d.Equal != 0 {
		t.Errorf("%v: %+v", err, d)
	}
	text, _ = runCheckpoint(t, 0, "verify", cut)
	wantAll(t, text, "undamaged")
	_, errs = runCheckpoint(t, 1, "reshard", out, cut)
	wantAll(t, errs, "holds a run already", "choose another")
	_, errs = runCheckpoint(t, 2, "reshard", out, filepath.Join(t.TempDir(), "x"), "--ranks", "3", "--set", "parallel.tensor=2")
	wantAll(t, errs, "3 ranks")

	// The flags override the job file's keep of 9.
	text, _ = runCheckpoint(t, 0, "prune", out)
	wantAll(t, text, "nothing to remove")
	text, _ = runCheckpoint(t, 0, "prune", out, "--keep", "2", "--keep-every", "20", "--dry-run")
	if want := "would remove " + filepath.Base(step("10")) + "\nwould remove " + filepath.Base(step("30")) + "\n"; text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	text, _ = runCheckpoint(t, 0, "prune", out, "--keep", "2", "--keep-every", "20", "--json")
	var names []string
	if err := json.Unmarshal([]byte(text), &names); err != nil || len(names) != 2 {
		t.Errorf("removed %q, %v", text, err)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 4 { // 20, 40, 50 and latest
		t.Errorf("left %v, %v", left, err)
	}
	_, errs = runCheckpoint(t, 2, "prune", step("50"))
	wantAll(t, errs, "is a checkpoint")
	_, errs = runCheckpoint(t, 2, "prune", out, "--keep", "-1")
	wantAll(t, errs, "want at least 0")
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	_, errs = runCheckpoint(t, 1, "prune", out)
	wantAll(t, errs, "locked by process", "a run prunes its own")
}
