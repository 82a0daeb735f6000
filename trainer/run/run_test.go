package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/trainer/config"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == rankCommand {
		os.Exit(rankMain(os.Args[2]))
	}
	if os.Getenv(childJob) != "" {
		os.Exit(childMain())
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of the processes of ranks
	goleak.VerifyTestMain(m)
}

// testData is a dataset of byte tokens, made once for all tests.
var testData = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "herd-run")
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&text, "func f%d(x int) int { return x*%d + %d }\n", i, i%7, i%13)
	}
	in := filepath.Join(dir, "input.txt")
	if err := os.WriteFile(in, []byte(text.String()), 0o644); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "data")
	_, err = dataset.Prepare(context.Background(), dataset.PrepareOptions{
		Inputs: []string{in}, Output: out, TokenizerKind: dataset.KindByte, SequenceLength: 32,
	})
	return out, err
})

// testJob is the text of a small job of 20 steps that saves at the 10th, with sets laid over it.
func testJob(t *testing.T, out string, sets ...string) *config.Job {
	t.Helper()
	data, err := testData()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
version: 1
job: {name: test, output: %s, seed: 7}
model: {dim: 32, layers: 2, heads: 4, kv_heads: 2, ffn: 64, vocab: 258, max_length: 64, rope_theta: 10000, norm_eps: 1e-5}
tokenizer: {kind: byte}
data:
  sequence_length: 32
  train: [{path: %s, weight: 1}]
  validation: {path: %s, every: 8, sequences: 4}
  document_mask: true
train: {steps: 20, global_batch: 8, micro_batch: 4, precision: bf16}
optimizer: {lr: 3e-3}
schedule: {warmup_steps: 3}
checkpoint: {every: 10, keep: 3}
telemetry: {tensorboard: true, jsonl: true}
`, out, data, data)
	job, err := config.Parse("test.yaml", []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// outcome is all that two runs of the same job must have in common.
type outcome struct {
	tensors map[string][]byte // of the last checkpoint
	lineage []Record          // without generations
}

func readOutcome(t *testing.T, out string) outcome {
	t.Helper()
	ctx := t.Context()
	root := filepath.Join(out, checkpoint.Folder)
	head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, rejected, err := checkpoint.Resolve(ctx, storage.OS, root, head, nil)
	if err != nil || len(rejected) > 0 {
		t.Fatalf("resolve: %v, passed over %v", err, rejected)
	}
	o := outcome{tensors: map[string][]byte{}}
	for _, info := range c.Tensors() {
		b := make([]byte, info.Bytes)
		if err := c.Read(ctx, info.Name, b); err != nil {
			t.Fatal(err)
		}
		o.tensors[info.Name] = b
	}
	if o.lineage, err = Lineage(filepath.Join(out, LedgerName)); err != nil {
		t.Fatal(err)
	}
	for i := range o.lineage {
		o.lineage[i].Generation = 0
	}
	return o
}

// equal compares bit for bit.
func (o outcome) equal(t *testing.T, want outcome) {
	t.Helper()
	if len(o.tensors) != len(want.tensors) {
		t.Errorf("%d tensors, want %d", len(o.tensors), len(want.tensors))
	}
	for name, b := range want.tensors {
		if !bytes.Equal(o.tensors[name], b) {
			t.Errorf("%s differs", name)
		}
	}
	if !slices.Equal(o.lineage, want.lineage) {
		t.Errorf("the ledger says\n%v\nwant\n%v", o.lineage, want.lineage)
	}
}

// reference is an undisturbed run of the job of 20 steps.
func reference(t *testing.T) outcome {
	t.Helper()
	out := t.TempDir()
	if err := Run(t.Context(), testJob(t, out), Options{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	o := readOutcome(t, out)
	if len(o.lineage) != 20 {
		t.Fatalf("%d records in the ledger, want 20", len(o.lineage))
	}
	for i, r := range o.lineage {
		if r.Step != int64(i) || r.First != int64(8*i) || r.Count != 8 || !r.Applied || !(r.Loss > 0) {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
	if first, last := o.lineage[0].Loss, o.lineage[19].Loss; last > 0.9*first {
		t.Errorf("the loss went from %v to %v", first, last)
	}
	return o
}

// stopper is an output that asks the run to stop when a line contains text. It stops after the step that comes next.
type stopper struct {
	text string
	stop chan struct{}
	once sync.Once
	log  bytes.Buffer
}

func stopAt(text string) *stopper { return &stopper{text: text, stop: make(chan struct{})} }

func (s *stopper) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(s.text)) {
		s.once.Do(func() { close(s.stop) })
	}
	return s.log.Write(b)
}

func exitCodeOf(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

func TestStopAndContinue(t *testing.T) {
	want := reference(t)
	out := t.TempDir()
	for _, step := range []string{"step 3/20", "step 5/20", "step 12/20"} {
		s := stopAt(step)
		err := Run(t.Context(), testJob(t, out), Options{Out: s, Stop: s.stop})
		if exitCodeOf(err) != exitStopped {
			t.Fatalf("stopped at %s: %v, want exit code %d\n%s", step, err, exitStopped, s.log.String())
		}
	}
	s := stopAt("never")
	if err := Run(t.Context(), testJob(t, out), Options{Out: s}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.log.String(), "continuing after step 13") {
		t.Errorf("the log does not say where it went on:\n%s", s.log.String())
	}
	readOutcome(t, out).equal(t, want)

	s = stopAt("never")
	if err := Run(t.Context(), testJob(t, out), Options{Out: s}); err != nil || !strings.Contains(s.log.String(), "is complete") {
		t.Errorf("a complete job, run again: %v\n%s", err, s.log.String())
	}
}

func TestDamagedCheckpointFallsBack(t *testing.T) {
	want := reference(t)
	out := t.TempDir()
	s := stopAt("step 13/20")
	if err := Run(t.Context(), testJob(t, out), Options{Out: s, Stop: s.stop}); exitCodeOf(err) != exitStopped {
		t.Fatal(err)
	}
	data := filepath.Join(out, checkpoint.Folder, "step-00000014.gen-1.a-1", "data-00000.bin")
	b, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	b[1] ^= 1 // of the first tensor
	if err := os.WriteFile(data, b, 0o644); err != nil {
		t.Fatal(err)
	}
	s = stopAt("never")
	if err := Run(t.Context(), testJob(t, out), Options{Out: s}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"passed over", data, "continuing after step 10"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log.String())
		}
	}
	readOutcome(t, out).equal(t, want)
}

func TestResume(t *testing.T) {
	out := t.TempDir()
	s := stopAt("step 2/20")
	if err := Run(t.Context(), testJob(t, out), Options{Out: s, Stop: s.stop}); exitCodeOf(err) != exitStopped {
		t.Fatal(err)
	}
	point := filepath.Join(out, checkpoint.Folder, "step-00000003.gen-1.a-1")

	for name, c := range map[string]struct {
		sets   []string
		resume string
		want   string
	}{
		"fresh into a used directory": {nil, "none", "holds a run already"},
		"no such checkpoint":          {nil, filepath.Join(out, "nothing"), "not found"},
		"another model":               {[]string{"model.ffn=96"}, "auto", "model.ffn: may not change"},
		"another seed":                {[]string{"job.seed=8"}, "auto", "job.seed: may not change"},
		"another batch":               {[]string{"train.global_batch=4"}, "auto", "train.global_batch: may not change"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), testJob(t, out, c.sets...), Options{Out: io.Discard, Resume: c.resume})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}

	t.Run("changed and elsewhere", func(t *testing.T) {
		other := t.TempDir()
		s := stopAt("never")
		job := testJob(t, other, "optimizer.lr=1e-3", "train.steps=6")
		if err := Run(t.Context(), job, Options{Out: s, Resume: point}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"optimizer.lr: 0.003 → 0.001", "continuing after step 3", "step 6/6"} {
			if !strings.Contains(s.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, s.log.String())
			}
		}
	})
}

func TestLockedOutput(t *testing.T) {
	out := t.TempDir()
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	err = Run(t.Context(), testJob(t, out), Options{Out: io.Discard})
	if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("error %v, want one that names the holder", err)
	}
}

// TestFullDisk fails calls of the file system one at a time. A save that fails is reported and training goes on; only
// the last one decides about the run, and then the same command mends it.
func TestFullDisk(t *testing.T) {
	want := reference(t)
	stride, wentOn := int64(7), false
	if testing.Short() {
		stride = 41
	}
	for n, reached := int64(1), true; reached; n += stride {
		out := t.TempDir()
		fs := &storagetest.Failing{FS: storage.OS, At: n, Err: syscall.ENOSPC}
		s := stopAt("never")
		err := Run(t.Context(), testJob(t, out), Options{Out: s, FS: fs})
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("call %d failed: %v\n%s", n, err, s.log.String())
		}
		wentOn = wentOn || err == nil && strings.Contains(s.log.String(), "no space left on device; training goes on")
		if err != nil {
			if err := Run(t.Context(), testJob(t, out), Options{Out: s}); err != nil {
				t.Fatalf("call %d failed; again: %v\n%s", n, err, s.log.String())
			}
		}
		readOutcome(t, out).equal(t, want)
		reached = fs.Calls() >= n
	}
	if !wentOn {
		t.Error("no failed save was reported")
	}
}

func TestNotFinite(t *testing.T) {
	out := t.TempDir()
	s := stopAt("never")
	// Weights of 1e30 and no clipping: the second step's loss is not finite.
	job := testJob(t, out, "optimizer.lr=1e30", "optimizer.clip_norm=0", "schedule.warmup_steps=0", "data.validation.every=100")
	err := Run(t.Context(), job, Options{Out: s})
	if exitCodeOf(err) != exitHopeless || !strings.Contains(err.Error(), "3 steps in a row") {
		t.Fatalf("error %v, want exit code %d\n%s", err, exitHopeless, s.log.String())
	}
	line, err := Lineage(filepath.Join(out, LedgerName))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(line); n < 4 || !line[0].Applied || line[n-3].Applied || line[n-2].Applied || line[n-1].Applied {
		t.Errorf("the ledger says %+v", line)
	}
	if !strings.Contains(s.log.String(), "samples 8 to 15 were consumed") {
		t.Errorf("the log does not name the samples:\n%s", s.log.String())
	}
}

func TestReadOnlyOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), testJob(t, filepath.Join(file, "out")), Options{Out: io.Discard})
	if !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), "job.output") {
		t.Errorf("error %v, want one about job.output", err)
	}
}
