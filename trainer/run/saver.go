package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/optim"
	"github.com/herdtrain/herd/trainer/parallel"
)

// Names of the optimizer's state in a checkpoint: these prefixes before the parameter's name. The weights, under the
// parameter's own name, are the fp32 master weights.
const (
	firstMoment  = "adamw/m/"
	secondMoment = "adamw/v/"
)

// saver writes checkpoints in the background: begin copies this rank's part of the state at a step boundary into host
// memory, a goroutine writes it; the leader's seals, commits and prunes. There is one save at a time; begin waits for the
// one before. All ranks begin their saves after the same steps.
type saver struct {
	*rank
	fs     storage.FS
	root   string
	commit checkpoint.Committer
	pruner checkpoint.Pruner
	mirror *mirror          // the leader's; nil: none
	base   checkpoint.State // what is the same in every checkpoint of this process
	event  func(format string, args ...any)

	host    []checkpoint.Tensor // the snapshot, cut into boxes by the first begin
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
	pruned   []string
	pruning  error
}

// begin snapshots the worker's state after w.step steps and starts to write it. A failure of the save before is
// reported and forgotten: it must not stop training.
func (s *saver) begin(ctx context.Context, w *worker) {
	begin := time.Now()
	defer func() { s.stall += time.Since(begin) }()
	if err := s.wait(ctx); err != nil {
		s.event("%v; training goes on", err)
	}
	var failure error // the others begin all the same, and must learn of it
	if s.leads() {
		failure = w.ledger.Sync() // it must not be behind a checkpoint that seals
	}
	s.snapshot(w)
	failure = errors.Join(failure, w.q.Sync(ctx))
	st := s.base
	st.Step, st.Parent, st.Tokens = w.step, s.parent, w.tokens
	st.Samples = w.step * int64(w.job.Train.GlobalBatch)
	st.OptimizerStep = w.applied
	if w.validated.step == w.step {
		st.ValidationLoss = w.validated.loss
	}
	s.pending = make(chan saved, 1)
	go func() { s.pending <- s.write(ctx, st, failure) }()
}

// write is a save whose snapshot may have failed.
func (s *saver) write(ctx context.Context, st checkpoint.State, failure error) (out saved) {
	begin := time.Now()
	out.step = st.Step
	dir, reports, err := s.writeAll(ctx, st, failure)
	if out.err = err; err != nil || !s.leads() {
		return out
	}
	var files []checkpoint.Files
	for _, r := range reports {
		out.bytes += r.Bytes
		files = append(files, r.Files...)
	}
	if out.ref, out.err = checkpoint.Seal(ctx, s.fs, dir, st, files); out.err != nil {
		checkpoint.Abandon(s.fs, dir)
		return out
	}
	out.err = s.commit.Commit(ctx, out.ref)
	out.duration = time.Since(begin)
	if out.err == nil {
		out.pruned, out.pruning = s.pruner.Prune(ctx, out.ref)
	}
	return out
}

// written is what a rank reports of its part of a save.
type written struct {
	Files []checkpoint.Files // one if it wrote
	Bytes int64
	Err   string
}

// writeAll has every rank write its part into a directory of the leader, which is gone if one of them failed.
func (s *saver) writeAll(ctx context.Context, st checkpoint.State, failure error) (dir string, reports []written,
	err error) {
	var at struct{ Dir, Err string }
	if s.leads() {
		if at.Dir, err = checkpoint.Create(s.fs, s.root, st); err != nil {
			at.Err = err.Error()
		}
	}
	if err = errors.Join(err, tell(ctx, s.saves, &at)); err == nil && at.Err != "" {
		err = errors.New(at.Err)
	}
	if err != nil {
		return "", nil, err
	}
	var mine written
	if writer, ok := writer(s.layout, s.number); ok && failure == nil {
		var files checkpoint.Files
		files, failure = checkpoint.Write(ctx, s.fs, at.Dir, writer, s.host)
		mine.Files = append(mine.Files, files)
		for _, t := range s.host {
			mine.Bytes += int64(len(t.Data))
		}
	}
	if failure != nil {
		mine.Err = fmt.Sprintf("rank %d: %v", s.number, failure)
	}
	reports, err = gatherJSON(ctx, s.saves, mine)
	for _, r := range reports {
		if r.Err != "" && failure == nil {
			failure = errors.New(r.Err)
		}
	}
	if err = errors.Join(failure, err); err != nil && s.leads() {
		checkpoint.Abandon(s.fs, at.Dir)
	}
	return at.Dir, reports, err
}

// writer numbers the ranks that write: of those that hold the same part of the state, the first.
func writer(l parallel.Layout, rank int) (number int, ok bool) {
	writes := func(r int) bool { return l.ReplicaGroup(r)[0] == r }
	for r := range rank {
		if writes(r) {
			number++
		}
	}
	return number, writes(rank)
}

// poll reports a save that has ended meanwhile.
func (s *saver) poll(ctx context.Context) {
	s.mirror.poll(ctx)
	select {
	case out := <-s.pending: // never ready when nil
		if err := s.settle(ctx, out); err != nil {
			s.event("%v; training goes on", err)
		}
	default:
	}
}

// wait waits for the save in flight, if there is one, and returns its failure.
func (s *saver) wait(ctx context.Context) error {
	if s.pending == nil {
		return nil
	}
	return s.settle(ctx, <-s.pending)
}

func (s *saver) settle(ctx context.Context, out saved) error {
	s.pending = nil
	if out.err != nil {
		return fmt.Errorf("save after step %d failed: %w", out.step, out.err)
	}
	s.parent = out.ref
	s.parent.Ancestors = slices.DeleteFunc(slices.Clone(out.ref.Ancestors), func(name string) bool {
		return slices.Contains(out.pruned, name)
	})
	s.mirror.start(ctx, out.ref)
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

// snapshot copies this rank's master weights and moments, if it is to write them.
func (s *saver) snapshot(w *worker) {
	if len(w.copies) == 0 {
		return
	}
	parts := ownState(w.stage.Params, w.opt)
	if s.host == nil {
		for i, p := range parts {
			for _, box := range p.parts(tensor.HostBytes(w.copies[i])) {
				s.host = append(s.host, checkpoint.Tensor{
					Name: p.name, DType: p.buf.DType(), Shape: p.param.Shape, Box: box.Box, Data: box.Data,
				})
			}
		}
	}
	for i, p := range parts {
		w.dev.Download(w.q, tensor.HostBytes(w.copies[i]), p.buf)
	}
}

// stored is elements [first, end) of a tensor of the training state, under its name in a checkpoint.
type stored struct {
	name       string
	param      llama.Param // that it is of, or belongs to
	first, end int
	buf        tensor.Buffer
}

// parts are the boxes of the tensor that make up p, with their elements in data.
func (p stored) parts(data []byte) []checkpoint.Part {
	box := checkpoint.Box{Offset: p.param.Offset, Extent: p.param.Extent}
	return box.Parts(int64(p.first), int64(p.end), data)
}

// ownState is state without what another rank saves.
func ownState(p *llama.Params, o *optim.AdamW) []stored {
	return slices.DeleteFunc(state(p, o), func(q stored) bool { return q.param.Copy })
}

// state is everything that a checkpoint holds of this rank's part of a model in training.
func state(p *llama.Params, o *optim.AdamW) (list []stored) {
	for _, q := range p.List {
		u, own := p.Units[q.Unit], o.Units[q.Unit]
		first, end := q.Within(u.Own)
		if first == end {
			continue
		}
		part := func(name string, b tensor.Buffer) stored {
			return stored{name + q.Name, q, first, end, q.Part(b, u.Own.Lo, first, end)}
		}
		list = append(list, part("", own.Master), part(firstMoment, own.M), part(secondMoment, own.V))
	}
	return list
}
