package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/tensor"
)

const bucketURL = "s3://" + storagetest.Bucket + "/runs/fish"

// TestCheckpointCopyS3 copies a run to a bucket and back, where it goes on; what was damaged on the server is found.
func TestCheckpointCopyS3(t *testing.T) {
	g := storagetest.StartGateway(t)
	out := trainedRun(t, "train.steps=30", "checkpoint.every=10")
	text, _ := runCheckpoint(t, 0, "copy", out, bucketURL)
	wantAll(t, text, "step-00000030.gen-1.a-1 is in "+bucketURL)
	text, _ = runCheckpoint(t, 0, "copy", "--all", out, bucketURL, "--json")
	var refs []checkpoint.Ref
	if err := json.Unmarshal([]byte(text), &refs); err != nil || len(refs) != 3 || refs[0].Name != "step-00000010.gen-1.a-1" {
		t.Errorf("%v: %s", err, text)
	}
	back := filepath.Join(t.TempDir(), "back")
	runCheckpoint(t, 0, "copy", bucketURL, back) // the older ones did not move latest
	text, _ = runCheckpoint(t, 0, "diff", out, back)
	wantAll(t, text, "tensors are equal, bit for bit")
	one := filepath.Join(t.TempDir(), "one")
	runCheckpoint(t, 0, "copy", bucketURL+"/step-00000020.gen-1.a-1", one)
	text, _ = runCheckpoint(t, 0, "ls", one)
	wantAll(t, text, "step-00000020.gen-1.a-1", "committed, latest")
	_, errs := runCheckpoint(t, 2, "copy", "--all", bucketURL+"/step-00000020.gen-1.a-1", one)
	wantAll(t, errs, "is one checkpoint")
	_, errs = runCheckpoint(t, 1, "copy", bucketURL+"/nothing", one)
	wantAll(t, errs, "no committed checkpoint")

	flip(t, filepath.Join(g.Dir, storagetest.Bucket, "runs/fish/step-00000010.gen-1.a-1/data-00000.bin"), 100)
	_, errs = runCheckpoint(t, 1, "copy", bucketURL+"/step-00000010.gen-1.a-1", filepath.Join(t.TempDir(), "x"))
	wantAll(t, errs, "step-00000010.gen-1.a-1/data-00000.bin is damaged", "its digest is")
}

// TestCheckpointCopyKilled kills copies of 256 MiB to a bucket in the middle, and the server: what is left there is no
// checkpoint, and the same command completes it.
func TestCheckpointCopyKilled(t *testing.T) {
	g := storagetest.StartGateway(t)
	out := t.TempDir()
	root := filepath.Join(out, checkpoint.Folder)
	ref, err := checkpoint.Save(t.Context(), storage.OS, root, checkpoint.State{Step: 1, Generation: 1}, []checkpoint.Tensor{
		{Name: "w", DType: tensor.F32, Shape: []int64{64 << 20}, Data: make([]byte, 256<<20)},
	})
	if err == nil {
		err = checkpoint.FileCommitter{FS: storage.OS, Root: root}.Commit(t.Context(), ref)
	}
	if err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(g.Dir, storagetest.Bucket, "runs/fish")
	start := func() (*exec.Cmd, *bytes.Buffer) { // until other bytes than before are on the server
		before := bytesIn(g.Dir)
		cmd, errs := command(t, "checkpoint", "copy", out, bucketURL)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for n := before; n == before || n == 0; n = bytesIn(g.Dir) {
			runtime.Gosched()
		}
		return cmd, errs
	}
	cmd, _ := start()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the copy was not killed in the middle")
	}
	if _, err := os.Stat(filepath.Join(object, "latest")); err == nil {
		t.Fatal("latest names what was not copied")
	}
	cmd, errs := start()
	g.Kill()
	if err := cmd.Wait(); err == nil || !strings.Contains(errs.String(), bucketURL) {
		t.Fatalf("the server was killed: %v, %s", err, errs)
	}
	g.Start(t)
	runCheckpoint(t, 0, "copy", out, bucketURL)
	back := filepath.Join(t.TempDir(), "back")
	runCheckpoint(t, 0, "copy", bucketURL, back)
	text, _ := runCheckpoint(t, 0, "verify", back)
	wantAll(t, text, "undamaged")
}

// bytesIn is how many bytes of objects, finished or not, a server's folder holds.
func bytesIn(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
