package run

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// gated is a file system that holds the first data file back, and the log of a run that opens the gate at a line.
type gated struct {
	storage.FS
	open chan struct{}
	at   string

	once sync.Once
	log  bytes.Buffer
	then string // the log when the gate opened
}

func (g *gated) Create(name string) (storage.File, error) {
	if filepath.Ext(name) == ".bin" {
		<-g.open
	}
	return g.FS.Create(name)
}

func (g *gated) Write(b []byte) (int, error) {
	n, err := g.log.Write(b)
	if bytes.Contains(b, []byte(g.at)) {
		g.once.Do(func() { g.then = g.log.String(); close(g.open) })
	}
	return n, err
}

// TestSlowSaveHoldsItsStep wants of a save that writes only when training is four steps further the state of its own step,
// the name of that step, and a word of it being durable only then. Others have saved tensors that training had changed
// (pytorch #144657, torchtitan #930), layers of different steps (Lightning #20953), under the name of a later step
// (Megatron-Bridge #3267), and said "saved" before (Megatron #1763).
func TestSlowSaveHoldsItsStep(t *testing.T) {
	sets := []string{"checkpoint.every=5", "checkpoint.keep=9"}
	quick, slow := t.TempDir(), t.TempDir()
	if err := Run(t.Context(), testJob(t, quick, sets...), Options{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	g := &gated{FS: storage.OS, open: make(chan struct{}), at: "step 9/20"}
	if err := Run(t.Context(), testJob(t, slow, sets...), Options{Out: g, FS: g}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(g.then, "durable") || !strings.Contains(g.log.String(), "checkpoint of step 5 is durable") {
		t.Errorf("the log at step 9:\n%s\nand at the end:\n%s", g.then, g.log.String())
	}
	const name = "step-00000005.gen-1.a-1"
	var saved []*checkpoint.Checkpoint
	for _, out := range []string{quick, slow} {
		c, err := checkpoint.Open(t.Context(), storage.OS, filepath.Join(out, checkpoint.Folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := c.State(); st.Step != 5 || st.Samples != 40 || st.OptimizerStep != 5 {
			t.Errorf("%+v", st)
		}
		saved = append(saved, c)
	}
	if d, err := checkpoint.Compare(t.Context(), saved[0], saved[1], nil); err != nil || len(d) > 0 {
		t.Errorf("the slow save differs: %+v, %v", d, err)
	}
}

// TestWriterFails fails a call of the file system of two ranks: neither waits for the other for ever, a save that one could
// not write is none of the run's, earlier ones stay, and the next ones are whole. Others have marked such a save as good
// and hung (OLMo-core #831), sealed 123 of 128 files (Megatron #1154), and forgotten earlier saves (orbax 0.12.10, #605).
func TestWriterFails(t *testing.T) {
	sets := []string{"parallel.zero=1", "checkpoint.every=4", "checkpoint.keep=9"}
	want := runOn(t, 2, t.TempDir(), sets...)
	for at := int64(20); at < 100; at += 9 {
		out := t.TempDir()
		fs := &storagetest.Failing{FS: storage.OS, At: at, Err: syscall.EIO}
		s := stopAt("never")
		if err := Run(t.Context(), testJob(t, out, sets...), Options{Out: s, FS: fs, Ranks: 2}); err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("call %d: %v", at, err)
			}
			if err := Run(t.Context(), testJob(t, out, sets...), Options{Out: s, Ranks: 2}); err != nil {
				t.Fatalf("call %d, again: %v", at, err)
			}
		}
		readOutcome(t, out).equal(t, want)
		root := filepath.Join(out, checkpoint.Folder)
		list, err := checkpoint.List(t.Context(), storage.OS, root, openHead(t, root).Ref())
		for _, e := range list {
			if err != nil || e.Status == checkpoint.Damaged {
				t.Errorf("call %d: %+v, %v", at, e, err)
			}
		}
		if good := strings.Count(s.log.String(), "is durable"); good < 4 {
			t.Errorf("call %d: %d saves succeeded\n%s", at, good, s.log.String())
		}
	}
}

// TestCopiedRun goes on from a copy of an output directory, whose checkpoints stay: others took copies for unfinished
// saves and deleted them (orbax #394).
func TestCopiedRun(t *testing.T) {
	sets := []string{"checkpoint.every=4", "checkpoint.keep=2"}
	first, moved := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	s := stopAt("step 11/20")
	if err := Run(t.Context(), testJob(t, first, sets...), Options{Out: s, Stop: s.stop}); exitCodeOf(err) != exitStopped {
		t.Fatal(err)
	}
	if err := os.CopyFS(moved, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	s = stopAt("never")
	if err := Run(t.Context(), testJob(t, moved, sets...), Options{Out: s}); err != nil ||
		!strings.Contains(s.log.String(), "continuing after step 12 from "+moved) {
		t.Fatalf("%v\n%s", err, s.log.String())
	}
	readOutcome(t, moved).equal(t, reference(t))
	if c := openHead(t, filepath.Join(first, checkpoint.Folder)); c.State().Step != 12 {
		t.Errorf("the original is at step %d", c.State().Step)
	}
}
