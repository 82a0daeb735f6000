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
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// work is the life of one rank. If it fails, or ctx ends, the others do not wait for it.
func (r *rank) work(ctx context.Context, job *config.Job, generation int64, o Options) error {
	defer context.AfterFunc(ctx, func() { r.abort(context.Cause(ctx)) })()
	w := &worker{rank: r, job: job, generation: generation, o: o, exchanged: map[collective.Group]collective.Work{}}
	err := w.run(ctx)
	if e := new(exitError); err != nil && !errors.As(err, &e) { // else all end after the same step
		r.abort(err)
	}
	return err
}

// run brings the worker up, restores the state that it begins with, and trains.
func (w *worker) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	tok, err := openTokenizer(w.job)
	if err != nil {
		return err
	}
	if err := w.openData(tok.Digest()); err != nil {
		return err
	}
	if err := w.openModel(); err != nil {
		return err
	}
	if err := w.split(ctx); err != nil {
		return err
	}
	root := filepath.Join(w.job.Job.Output, checkpoint.Folder)
	w.saver = &saver{
		rank: w.rank, fs: w.o.FS, root: root, commit: checkpoint.FileCommitter{FS: w.o.FS, Root: root},
		pruner: checkpoint.Pruner{FS: w.o.FS, Root: root, Keep: Keep(w.job)}, base: w.baseState(tok.Digest(), w.stream.Digest().String()),
	}
	if w.leads() {
		if w.saver.mirror, err = openMirror(w.job, w.o.FS); err != nil {
			return err
		}
	}
	if err := w.restore(ctx); err != nil {
		return err
	}
	if w.step >= w.job.Train.Steps {
		if w.leads() {
			w.event("%s is complete: %d of %d steps are done", w.job.Job.Name, w.step, w.job.Train.Steps)
		}
		return nil
	}
	if w.leads() {
		if w.ledger, err = w.openLedger(); err != nil {
			return err
		}
	}
	if err := w.openTelemetry(ctx); err != nil {
		return err
	}
	w.saver.event = w.telemetry.Event
	if w.saver.mirror != nil {
		w.saver.mirror.event = w.telemetry.Event
	}
	return w.train(ctx)
}

// event logs a line before telemetry has begun.
func (w *worker) event(format string, args ...any) { fmt.Fprintf(w.o.Out, format+"\n", args...) }

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
func (w *worker) baseState(tokenizer, data string) checkpoint.State {
	return checkpoint.State{
		Generation: w.generation, Incarnation: incarnation(),
		JobName: w.job.Job.Name, JobDigest: identity(w.job), Config: string(w.job.YAML()),
		TokenizerDigest: tokenizer, DatasetDigest: data, Seed: w.job.Job.Seed, RNGPolicy: rngPolicy,
		DTypePolicy: "weights are the fp32 masters; compute in " + w.job.Train.Precision,
		Layout:      layoutOf(w.layout), CodeVersion: w.o.Version,
	}
}

// rngPolicy is how random numbers derive from the seed.
const rngPolicy = "philox4x32-10 by seed, name and global index"

// layoutOf is what a checkpoint says of a layout.
func layoutOf(l parallel.Layout) checkpoint.Layout {
	return checkpoint.Layout{
		Data: l.Mesh[parallel.DP], Tensor: l.Mesh[parallel.TP], Pipeline: l.Mesh[parallel.PP], Context: l.Mesh[parallel.CP],
		Zero: l.Zero,
	}
}

// Keep says which checkpoints of a job stay.
func Keep(job *config.Job) checkpoint.Keep {
	c := job.Checkpoint
	return checkpoint.Keep{Last: c.Keep, Every: c.KeepEvery, Best: c.KeepBest}
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
func (w *worker) openLedger() (*Ledger, error) {
	l, err := OpenLedger(filepath.Join(w.job.Job.Output, LedgerName))
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
