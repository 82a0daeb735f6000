package run

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// agent is a node's part of a run: it holds the output directory's lock, decides the generation and the checkpoint to
// start from, and runs the workers.
type agent struct {
	job    *config.Job
	layout parallel.Layout
	o      Options
	lock   *storage.FileLock
	root   string // of the checkpoints
	commit checkpoint.Committer
}

func newAgent(job *config.Job, layout parallel.Layout, o Options) (*agent, error) {
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
	return &agent{job, layout, o, lock, root, checkpoint.FileCommitter{FS: o.FS, Root: root}}, nil
}

func (a *agent) close() { _ = a.lock.Unlock() }

// run is the life of one generation: each rank is a goroutine.
func (a *agent) run(ctx context.Context) error {
	generation, err := checkpoint.NextGeneration(a.o.FS, a.root)
	if err != nil {
		return err
	}
	for _, warning := range a.layout.Warnings {
		a.event("warning: %s", warning)
	}
	a.o.peak = cpu.PeakFLOPS("", runtime.GOMAXPROCS(0), peakTime) // before any rank computes
	ranks := localRanks(a.layout)
	errs := make([]error, len(ranks))
	var all sync.WaitGroup
	for i, r := range ranks {
		all.Go(func() {
			defer context.AfterFunc(ctx, func() { r.abort(context.Cause(ctx)) })()
			errs[i] = a.work(ctx, generation, r)
			if e := new(exitError); errs[i] != nil && !errors.As(errs[i], &e) { // the others do not end by themselves
				r.abort(errs[i])
			}
		})
	}
	all.Wait()
	for _, r := range ranks {
		errs = append(errs, r.close())
	}
	return first(errs)
}

// peakTime is how long the machine's peak is measured, for MFU.
const peakTime = 20 * time.Millisecond

// first is the error of the lowest rank that did not fail because another one did, else the first.
func first(errs []error) error {
	var any error
	for rank, err := range errs {
		e := new(collective.Error)
		switch {
		case err == nil:
		case !errors.As(err, &e) && rank > 0:
			return fmt.Errorf("rank %d: %w", rank, err)
		case !errors.As(err, &e):
			return err
		case any == nil:
			any = err
		}
	}
	return any
}

// work is the life of one rank.
func (a *agent) work(ctx context.Context, generation int64, r *rank) (err error) {
	tok, err := openTokenizer(a.job)
	if err != nil {
		return err
	}
	w := &worker{rank: r, job: a.job, generation: generation, exchanged: map[collective.Group]collective.Work{}}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.openData(tok.Digest()); err != nil {
		return err
	}
	if err := w.openModel(); err != nil {
		return err
	}
	if err := w.split(ctx); err != nil {
		return err
	}
	w.saver = &saver{
		rank: r, fs: a.o.FS, root: a.root, commit: a.commit, keep: a.job.Checkpoint.Keep,
		base: a.baseState(generation, tok.Digest(), w.stream.Digest().String()),
	}
	if err := a.restore(ctx, w); err != nil {
		return err
	}
	if w.step >= a.job.Train.Steps {
		if r.leads() {
			a.event("%s is complete: %d of %d steps are done", a.job.Job.Name, w.step, a.job.Train.Steps)
		}
		return nil
	}
	if r.leads() {
		if w.ledger, err = a.openLedger(w); err != nil {
			return err
		}
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
		Layout: checkpoint.Layout{
			Data: a.layout.Mesh[parallel.DP], Tensor: a.layout.Mesh[parallel.TP], Pipeline: a.layout.Mesh[parallel.PP],
			Context: a.layout.Mesh[parallel.CP], Zero: a.layout.Zero,
		},
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
