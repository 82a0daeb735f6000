package run

import (
	"context"
	"errors"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// exchange starts ops after what is on the queue, and makes the queue wait for them.
func (w *worker) exchange(g collective.Group, ops ...collective.Op) {
	work := g.Start(w.q, ops...)
	w.q.Wait(work.Event())
	w.exchanged[g] = work
}

// sync waits for the queue, and says whether it or an exchange failed.
func (w *worker) sync(ctx context.Context) error {
	errs := []error{w.pipeline.Work().Wait(ctx)}
	if w.tensor != nil {
		errs = append(errs, w.tensor.Work().Wait(ctx))
	}
	if w.hidden != nil {
		errs = append(errs, w.hidden.Work().Wait(ctx), w.spread.Work().Wait(ctx))
	}
	if w.context != nil {
		errs = append(errs, w.context.Work().Wait(ctx))
	}
	if w.zero != nil {
		errs = append(errs, w.zero.Wait(ctx))
	}
	for _, work := range w.exchanged {
		errs = append(errs, work.Wait(ctx))
	}
	return errors.Join(append(errs, w.q.Sync(ctx))...)
}

// reduceGradients adds up the gradients of all data ranks, of what each owns there. Most of it went on beside the
// backward pass.
func (w *worker) reduceGradients() {
	switch {
	case w.trees != nil:
		w.trees.reduce(w)
		if w.zero != nil {
			w.zero.SumTied(w.q)
		}
	case w.zero != nil:
		w.zero.Finish()
	}
}

// vote adds up what decides about the step: losses, the squared norm of the gradient, the wish to stop; and the digests
// of the batch.
func (w *worker) vote(digest []int32, stop bool) {
	vote, sum := w.opt.Vote(), tensor.HostBuffer(digest)
	ops := []collective.Op{collective.AllReduce(vote, vote, collective.Sum), collective.AllReduce(sum, sum, collective.Sum)}
	counts := w.layout.ReplicaGroup(w.number)[0] == w.number // of each copy of the gradient, one
	switch {
	case w.trees != nil:
		w.trees.measure(w, counts)
		ops = append(ops, collective.AllReduce(w.trees.limbs, w.trees.limbs, collective.Sum))
	case counts:
		w.opt.Measure(w.dev, w.q)
	}
	if stop {
		w.dev.Fill(w.q, w.opt.Vote().Slice(2, 3), 1)
	}
	if w.world.Size() > 1 {
		w.exchange(w.world, ops...)
	}
	if w.trees != nil {
		w.dev.Fill(w.q, vote.Slice(1, 2), w.trees.norm())
	}
}

// gatherWeights gives every rank the weights that others updated.
func (w *worker) gatherWeights() {
	if w.zero != nil {
		w.zero.Update()
	}
}
