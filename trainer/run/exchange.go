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
	for _, work := range w.exchanged {
		errs = append(errs, work.Wait(ctx))
	}
	return errors.Join(append(errs, w.q.Sync(ctx))...)
}

// reduceGradients adds up the gradients of all data ranks: with ZeRO of each rank's shard there, else of all on all.
func (w *worker) reduceGradients() {
	grads, own := w.stage.Params.Grads, w.opt.Grads()
	if w.kv != nil && w.kv.Size() > 1 {
		for _, g := range w.stage.Params.KVGrads() {
			w.exchange(w.kv, collective.AllReduce(g, g, collective.Sum))
		}
	}
	switch {
	case w.trees != nil:
		w.trees.reduce(w)
	case w.data.Size() == 1:
	case w.layout.Zero == 0:
		w.exchange(w.data, collective.AllReduce(grads, grads, collective.Sum))
	default:
		w.exchange(w.data, collective.ReduceScatter(own, grads, collective.Sum))
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
	if w.layout.Shard > 1 {
		all := w.stage.Params.Weights
		w.exchange(w.data, collective.AllGather(all, all.Slice(w.opt.Lo, w.opt.Hi)))
	}
}
