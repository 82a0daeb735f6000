package run

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// agent is a node's part of a run: it holds the output directory's lock, decides the generation and the checkpoint to
// start from, and runs the worker.
type agent struct {
	job    *config.Job
	o      Options
	lock   *storage.FileLock
	root   string // of the checkpoints
	commit checkpoint.Committer
}

func newAgent(job *config.Job, o Options) (*agent, error) {
	out := job.Job.Output
	if err := storage.MkdirAll(storage.OS, out); err != nil {
		return nil, fmt.Errorf("job.output: %w", err)
	}
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if errors.Is(err, storage.ErrLocked) {
		return nil, fmt.Errorf("another run writes to %s: %w; stop it, or choose another job.output", out, err)
	}
	if err != nil {
		return nil, fmt.Errorf("job.output: %w", err)
	}
	root := filepath.Join(out, checkpoint.Folder)
	return &agent{job, o, lock, root, checkpoint.FileCommitter{FS: o.FS, Root: root}}, nil
}

func (a *agent) close() { _ = a.lock.Unlock() }

// run is the life of one generation.
func (a *agent) run(ctx context.Context) (err error) {
	generation, err := checkpoint.NextGeneration(a.o.FS, a.root)
	if err != nil {
		return err
	}
	tok, err := openTokenizer(a.job)
	if err != nil {
		return err
	}
	w := &worker{job: a.job, generation: generation}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.openData(tok.Digest()); err != nil {
		return err
	}
	if err := w.openModel(); err != nil {
		return err
	}
	w.saver = &saver{
		fs: a.o.FS, root: a.root, commit: a.commit, keep: a.job.Checkpoint.Keep,
		base: a.baseState(generation, tok.Digest(), w.stream.Digest().String()),
	}
	if err := a.restore(ctx, w); err != nil {
		return err
	}
	if w.step >= a.job.Train.Steps {
		a.event("%s is complete: %d of %d steps are done", a.job.Job.Name, w.step, a.job.Train.Steps)
		return nil
	}
	if w.ledger, err = a.openLedger(w); err != nil {
		return err
	}
	if err := w.openTelemetry(ctx, a.o); err != nil {
		return err
	}
	w.saver.event = w.telemetry.Event
	return w.train(ctx, a.o.Stop)
}

// event logs a line before telemetry has begun.
func (a *agent) event(format string, args ...any) { fmt.Fprintf(a.o.Out, format+"\n", args...) }

func openTokenizer(job *config.Job) (dataset.Tokenizer, error) {
	tok, err := dataset.OpenTokenizer(job.Tokenizer.Kind, job.Tokenizer.Path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if tok.Vocab() > job.Model.Vocab {
		return nil, fmt.Errorf("tokenizer: it has %d tokens, model.vocab is %d", tok.Vocab(), job.Model.Vocab)
	}
	return tok, nil
}

// baseState is what every checkpoint of this process has in common.
func (a *agent) baseState(generation int64, tokenizer, data string) checkpoint.State {
	return checkpoint.State{
		Generation: generation, Incarnation: incarnation(),
		JobName: a.job.Job.Name, JobDigest: identity(a.job), Config: string(a.job.YAML()),
		TokenizerDigest: tokenizer, DatasetDigest: data, Seed: a.job.Job.Seed, RNGPolicy: "philox4x32-10 by seed, name and global index",
		DTypePolicy: "weights are the fp32 masters; compute in " + a.job.Train.Precision,
		Layout:      checkpoint.Layout{Data: 1, Tensor: 1, Pipeline: 1, Context: 1},
		CodeVersion: a.o.Version,
	}
}

// identity is the digest of what makes a job the same job, beside its name: output, model, tokenizer, data, seed.
func identity(job *config.Job) string {
	b, err := json.Marshal([]any{job.Job.Output, job.Model, job.Tokenizer, job.Data, job.Job.Seed})
	if err != nil {
		panic(err) // plain values
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
}

// incarnation is a random UUID, version 4.
func incarnation() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// restore gives the worker its weights: of the checkpoint that Options.Resume asks for, or fresh ones.
func (a *agent) restore(ctx context.Context, w *worker) error {
	head, err := a.head(ctx)
	if errors.Is(err, checkpoint.ErrNone) {
		w.initialize()
		a.event("starting fresh: %d parameters from seed %d", a.job.Model.Config().Parameters(), a.job.Job.Seed)
		return nil
	}
	if err != nil {
		return err
	}
	root := filepath.Dir(head.dir)
	var changes []config.Change
	c, rejected, err := checkpoint.Resolve(ctx, a.o.FS, root, head.ref, func(c *checkpoint.Checkpoint) (err error) {
		if changes, err = a.compare(c, w); err != nil {
			return err
		}
		return w.load(ctx, c)
	})
	for _, r := range rejected {
		a.event("checkpoint %s was passed over: %v", r.Name, r.Err)
	}
	if err != nil {
		return err
	}
	for _, ch := range changes {
		a.event("changed since the checkpoint: %v", ch)
	}
	st := c.State()
	w.step, w.tokens, w.applied = st.Step, st.Tokens, st.OptimizerStep
	if root == a.root {
		w.saver.parent = c.Ref()
	}
	if st.Step < a.job.Train.Steps {
		a.event("continuing after step %d from %s (generation %d)", st.Step, c.Dir(), w.generation)
	}
	return nil
}

// start is a checkpoint to begin from.
type start struct {
	ref checkpoint.Ref
	dir string
}

// head is the checkpoint that Options.Resume asks for; ErrNone: begin fresh.
func (a *agent) head(ctx context.Context) (start, error) {
	ref, err := a.commit.Latest(ctx)
	switch a.o.Resume {
	case "", "auto":
		return start{ref, filepath.Join(a.root, ref.Name)}, err
	case "none":
		if err == nil {
			err = fmt.Errorf("--resume none: %s holds a run already (%s); choose another job.output", a.job.Job.Output, ref.Name)
		}
		return start{}, err
	}
	root, dir, err := checkpoint.Locate(a.o.FS, filepath.Clean(a.o.Resume))
	if err != nil {
		return start{}, fmt.Errorf("--resume: %w", err)
	}
	if dir == "" { // a whole run: its newest
		if ref, err = (checkpoint.FileCommitter{FS: a.o.FS, Root: root}).Latest(ctx); err != nil {
			return start{}, fmt.Errorf("--resume %s: %w", a.o.Resume, err)
		}
		return start{ref, filepath.Join(root, ref.Name)}, nil
	}
	c, err := checkpoint.Open(ctx, a.o.FS, dir)
	if err != nil {
		return start{}, fmt.Errorf("--resume: %w", err)
	}
	return start{c.Ref(), dir}, nil
}

// compare refuses a checkpoint of another job, and lists what changed that may.
func (a *agent) compare(c *checkpoint.Checkpoint, w *worker) ([]config.Change, error) {
	st := c.State()
	saved, err := config.Parse(c.Dir()+" (its job file)", []byte(st.Config), nil)
	if err != nil {
		return nil, err
	}
	changes, err := config.CompareForResume(saved, a.job)
	if err != nil {
		return nil, fmt.Errorf("the job is not the one that saved it:\n%w", err)
	}
	if base := w.saver.base; st.TokenizerDigest != base.TokenizerDigest {
		return nil, fmt.Errorf("it was trained with tokenizer %s, %s is %s", st.TokenizerDigest, a.job.Tokenizer.Path,
			base.TokenizerDigest)
	} else if st.DatasetDigest != base.DatasetDigest {
		return nil, fmt.Errorf("it was trained on other data: the digest of data.train was %s, now it is %s",
			st.DatasetDigest, base.DatasetDigest)
	}
	return changes, nil
}

// openLedger opens the run's ledger and voids what it holds of the steps that are to be run again.
func (a *agent) openLedger(w *worker) (*Ledger, error) {
	l, err := OpenLedger(filepath.Join(a.job.Job.Output, LedgerName))
	if err != nil {
		return nil, err
	}
	r := Record{Generation: w.generation, Step: w.step, Rollback: true}
	if err := errors.Join(l.Append(r), l.Sync()); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// LedgerName is the ledger's file in a run's output directory.
const LedgerName = "ledger.jsonl"
