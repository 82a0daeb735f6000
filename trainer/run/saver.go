package run

import (
	"context"
	"fmt"
	"time"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/optim"
)

// Names of the optimizer's state in a checkpoint: these prefixes before the parameter's name. The weights, under the
// parameter's own name, are the fp32 master weights.
const (
	firstMoment  = "adamw/m/"
	secondMoment = "adamw/v/"
)

// saver writes checkpoints in the background: begin copies the state at a step boundary into host memory, a goroutine
// seals, commits and prunes. There is one save at a time; begin waits for the one before.
type saver struct {
	fs     storage.FS
	root   string
	commit checkpoint.Committer
	keep   int
	base   checkpoint.State // what is the same in every checkpoint of this process
	event  func(format string, args ...any)

	host    []checkpoint.Tensor // the snapshot, made by the first begin
	pending chan saved          // nil: no save is in flight
	parent  checkpoint.Ref      // the last committed
	stall   time.Duration       // how long training stood still since takeStall
}

// saved is the outcome of a save.
type saved struct {
	ref      checkpoint.Ref
	step     int64
	bytes    int64
	duration time.Duration
	err      error
	pruning  error
}

// begin snapshots the worker's state after w.step steps and starts to write it. A failure of the save before is
// reported and forgotten: it must not stop training.
func (s *saver) begin(ctx context.Context, w *worker) {
	begin := time.Now()
	defer func() { s.stall += time.Since(begin) }()
	if err := s.wait(); err != nil {
		s.event("%v; training goes on", err)
	}
	// The ledger must not be behind a checkpoint that seals.
	if err := w.ledger.Sync(); err != nil {
		s.event("save after step %d failed: %v; training goes on", w.step, err)
		return
	}
	s.snapshot(w)
	if err := w.q.Sync(ctx); err != nil {
		s.event("save after step %d failed: %v; training goes on", w.step, err)
		return
	}
	st := s.base
	st.Step, st.Parent, st.Tokens = w.step, s.parent, w.tokens
	st.Samples = w.step * int64(w.job.Train.GlobalBatch)
	st.OptimizerStep = w.applied
	s.pending = make(chan saved, 1)
	go func() { s.pending <- s.write(ctx, st) }()
}

func (s *saver) write(ctx context.Context, st checkpoint.State) (out saved) {
	begin := time.Now()
	out.step = st.Step
	for _, t := range s.host {
		out.bytes += int64(len(t.Data))
	}
	if out.ref, out.err = checkpoint.Save(ctx, s.fs, s.root, st, s.host); out.err == nil {
		out.err = s.commit.Commit(ctx, out.ref)
	}
	out.duration = time.Since(begin)
	if out.err == nil {
		_, out.pruning = checkpoint.Prune(ctx, s.fs, s.root, out.ref, s.keep)
	}
	return out
}

// poll reports a save that has ended meanwhile.
func (s *saver) poll() {
	select {
	case out := <-s.pending: // never ready when nil
		if err := s.settle(out); err != nil {
			s.event("%v; training goes on", err)
		}
	default:
	}
}

// wait waits for the save in flight, if there is one, and returns its failure.
func (s *saver) wait() error {
	if s.pending == nil {
		return nil
	}
	return s.settle(<-s.pending)
}

func (s *saver) settle(out saved) error {
	s.pending = nil
	if out.err != nil {
		return fmt.Errorf("save after step %d failed: %w", out.step, out.err)
	}
	s.parent = out.ref
	s.event("checkpoint of step %d is durable: %s (%.1f MB in %.2f s)", out.step, out.ref.Name, float64(out.bytes)/1e6,
		out.duration.Seconds())
	if out.pruning != nil {
		s.event("old checkpoints could not be removed: %v; training goes on", out.pruning)
	}
	return nil
}

// takeStall is how long saves held up training since the last call.
func (s *saver) takeStall() time.Duration {
	d := s.stall
	s.stall = 0
	return d
}

// snapshot copies master weights and moments into host memory.
func (s *saver) snapshot(w *worker) {
	parts := state(w.stage.Params, w.opt)
	if s.host == nil {
		for _, p := range parts {
			s.host = append(s.host, checkpoint.Tensor{
				Name: p.name, DType: p.buf.DType(), Shape: p.param.Shape, Data: make([]byte, p.buf.Bytes()),
			})
		}
	}
	for i, p := range parts {
		w.dev.Download(w.q, s.host[i].Data, p.buf)
	}
}

// stored is a tensor of the training state under its name in a checkpoint.
type stored struct {
	name  string
	param llama.Param
	buf   tensor.Buffer
}

// state is everything that a checkpoint holds of a model in training.
func state(p *llama.Params, o *optim.AdamW) (list []stored) {
	for _, q := range p.List {
		list = append(list, stored{q.Name, q, q.Of(o.Master)},
			stored{firstMoment + q.Name, q, q.Of(o.M)}, stored{secondMoment + q.Name, q, q.Of(o.V)})
	}
	return list
}
