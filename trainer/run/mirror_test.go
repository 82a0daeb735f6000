package run

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// TestMirror wants the checkpoints of a run in its mirror, and a run whose output directory is lost to go on from there,
// in a later generation, to the end of an undisturbed run.
func TestMirror(t *testing.T) {
	t.Run("directory", func(t *testing.T) { testMirror(t, t.TempDir()) })
	t.Run("S3", func(t *testing.T) {
		storagetest.StartGateway(t)
		testMirror(t, "s3://"+storagetest.Bucket+"/mirror")
	})
}

func testMirror(t *testing.T, at string) {
	sets := mirrorSets(at)
	out := filepath.Join(t.TempDir(), "out")
	s := stopAt("step 11/20")
	if err := Run(t.Context(), testJob(t, out, sets...), Options{Out: s, Stop: s.stop}); exitCodeOf(err) != exitStopped {
		t.Fatal(err)
	}
	if !strings.Contains(s.log.String(), "step-00000012.gen-1.a-1 is in "+at) {
		t.Errorf("the log does not say what was copied:\n%s", s.log.String())
	}
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	for want, sets := range map[string][]string{
		"model.ffn: may not change": {"model.ffn=96"},
		"job.name: may not change":  {"job.name=another"},
	} {
		err := Run(t.Context(), testJob(t, out, slices.Concat(mirrorSets(at), sets)...), Options{Out: io.Discard})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "checkpoint.mirror") {
			t.Errorf("the mirror of another job: %v, want %q", err, want)
		}
		if left, err := filepath.Glob(filepath.Join(out, checkpoint.Folder, "*")); err != nil || len(left) > 0 {
			t.Errorf("the mirror of another job left %v, %v", left, err)
		}
	}
	s = stopAt("never")
	if err := Run(t.Context(), testJob(t, out, sets...), Options{Out: s}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"copying step-00000012.gen-1.a-1 from " + at, "continuing after step 12", "step-00000020.gen-2.a-1 is in "} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log.String())
		}
	}
	want := reference(t)
	got := readOutcome(t, out)
	got.lineage = slices.Concat(want.lineage[:12], got.lineage) // that of the first twelve steps was lost
	got.equal(t, want)

	to, err := checkpoint.OpenStore(at)
	if err != nil {
		t.Fatal(err)
	}
	there, err := checkpoint.Names(t.Context(), to)
	here, err2 := checkpoint.Names(t.Context(), storage.Folder{FS: storage.OS, Root: filepath.Join(out, checkpoint.Folder)})
	if err != nil || err2 != nil || !slices.Contains(there, "step-00000020.gen-2.a-1") || len(there) > len(here) {
		t.Errorf("the mirror has %v, %v; the run %v, %v", there, err, here, err2)
	}
}

func mirrorSets(at string) []string {
	return []string{"checkpoint.every=4", "checkpoint.keep=2", "checkpoint.mirror=" + at}
}

// TestMirrorFails wants a run whose mirror fails to say so and to go on, and to copy the next checkpoint.
func TestMirrorFails(t *testing.T) {
	at := filepath.Join(t.TempDir(), "mirror")
	if err := os.WriteFile(at, nil, 0o644); err != nil { // a file where a directory should be
		t.Fatal(err)
	}
	s := stopAt("never")
	if err := Run(t.Context(), testJob(t, t.TempDir(), mirrorSets(at)...), Options{Out: s}); err != nil {
		if !strings.Contains(err.Error(), "checkpoint.mirror") {
			t.Fatalf("%v\n%s", err, s.log.String())
		}
	} else if !strings.Contains(s.log.String(), "could not be copied to "+at) {
		t.Errorf("the log does not say what failed:\n%s", s.log.String())
	}
}
