package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
)

// checkpointRun makes a run's output directory with two committed checkpoints and returns it and theirs.
func checkpointRun(t *testing.T) (output string, dirs []string) {
	t.Helper()
	ctx := context.Background()
	output = t.TempDir()
	root := filepath.Join(output, checkpoint.Folder)
	var parent checkpoint.Ref
	for _, step := range []int64{10, 20} {
		st := checkpoint.State{Step: step, Generation: 1, Parent: parent, JobName: "tiny", Config: "version: 1\n"}
		tensors := []checkpoint.Tensor{
			{Name: "model.norm.weight", DType: tensor.F32, Shape: []int64{2, 3}, Data: make([]byte, 24)},
			{Name: "adamw/m/model.norm.weight", DType: tensor.BF16, Shape: []int64{6}, Data: make([]byte, 12)},
		}
		ref, err := checkpoint.Save(ctx, storage.OS, root, st, tensors)
		if err != nil {
			t.Fatal(err)
		}
		if err := (checkpoint.FileCommitter{FS: storage.OS, Root: root}).Commit(ctx, ref); err != nil {
			t.Fatal(err)
		}
		parent = ref
		dirs = append(dirs, filepath.Join(root, ref.Name))
	}
	return output, dirs
}

// runCheckpoint runs 'trainer checkpoint args…' and checks its exit code.
func runCheckpoint(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := execute(append([]string{"checkpoint"}, args...), &out, &errs); got != code {
		t.Errorf("checkpoint %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, errs.String())
	}
	return out.String(), errs.String()
}

func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in\n%s", p, text)
		}
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at]++
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckpointLs(t *testing.T) {
	output, dirs := checkpointRun(t)
	out, _ := runCheckpoint(t, 0, "ls", output)
	wantAll(t, out, "STEP", "committed, latest", filepath.Base(dirs[0]), filepath.Base(dirs[1]))
	out, _ = runCheckpoint(t, 0, "ls", dirs[0])
	if strings.Contains(out, "latest") || strings.Count(out, "\n") != 2 {
		t.Errorf("one checkpoint is listed as\n%s", out)
	}
	t.Chdir(dirs[1])
	out, _ = runCheckpoint(t, 0, "ls", ".")
	wantAll(t, out, filepath.Base(dirs[1]))
	out, _ = runCheckpoint(t, 0, "ls", "--json", "../..")
	var rows []struct {
		Step   int64
		Status string
		Latest bool
		Parent string
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v in\n%s", err, out)
	}
	if r := rows[1]; r.Step != 20 || r.Status != "committed" || !r.Latest || r.Parent != filepath.Base(dirs[0]) {
		t.Errorf("row %+v", r)
	}

	flip(t, filepath.Join(dirs[0], "manifest"), 30)
	out, _ = runCheckpoint(t, 0, "ls", output)
	wantAll(t, out, "damaged", "manifest is damaged: its crc32c")
	flip(t, filepath.Join(output, checkpoint.Folder, "latest"), 3)
	out, errs := runCheckpoint(t, 1, "ls", output)
	wantAll(t, out, "sealed")
	wantAll(t, errs, "latest is damaged")
	_, errs = runCheckpoint(t, 1, "ls", t.TempDir())
	wantAll(t, errs, "name a run's output directory")
	runCheckpoint(t, 2, "ls")
	runCheckpoint(t, 2, "ls", "--frobnicate", output)
}

func TestCheckpointInspect(t *testing.T) {
	output, dirs := checkpointRun(t)
	out, _ := runCheckpoint(t, 0, "inspect", output)
	wantAll(t, out, "step            20", "tiny", "model.norm.weight", "bf16", "[2 3]", "in 2 tensors")
	out, _ = runCheckpoint(t, 0, "inspect", "--json", dirs[0])
	var d struct {
		Step    int64
		Config  string
		Tensors []struct{ Name, DType string }
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if d.Step != 10 || d.Config != "version: 1\n" || len(d.Tensors) != 2 || d.Tensors[0].DType != "f32" {
		t.Errorf("%+v", d)
	}
	if out, _ := runCheckpoint(t, 0, "inspect", "--config", output); out != "version: 1\n" {
		t.Errorf("config %q", out)
	}
	runCheckpoint(t, 2, "inspect", "--config", "--json", output)

	slices := filepath.Join("..", "checkpoint", "testdata", "v1-slices", "step-00000020.gen-3.a-1")
	out, _ = runCheckpoint(t, 0, "inspect", slices)
	wantAll(t, out, "SLICES", "[4 5]     80     6", "[1]       4      1")
	out, _ = runCheckpoint(t, 0, "inspect", "--json", slices)
	wantAll(t, out, `"slices": 6`, `"slices": 1`)
	out, _ = runCheckpoint(t, 0, "verify", slices)
	wantAll(t, out, "is undamaged")
	_, errs := runCheckpoint(t, 1, "inspect", filepath.Join(output, "nothing"))
	wantAll(t, errs, "not found")
}

func TestCheckpointVerify(t *testing.T) {
	output, dirs := checkpointRun(t)
	out, _ := runCheckpoint(t, 0, "verify", output)
	wantAll(t, out, dirs[0]+" is undamaged", dirs[1]+" is undamaged")

	flip(t, filepath.Join(dirs[1], "data-00000.bin"), 4096)
	out, errs := runCheckpoint(t, 1, "verify", output)
	wantAll(t, out, dirs[0]+" is undamaged")
	wantAll(t, errs, filepath.Join(dirs[1], "data-00000.bin"), `tensor "adamw/m/model.norm.weight" (bytes 4096 to 4107)`)
	out, _ = runCheckpoint(t, 1, "verify", "--json", dirs[1])
	var list []struct {
		OK      bool
		Problem string
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].OK || list[0].Problem == "" {
		t.Errorf("%v: %+v", err, list)
	}
	_, errs = runCheckpoint(t, 1, "verify", t.TempDir())
	wantAll(t, errs, "not found")
}
