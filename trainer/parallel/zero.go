package parallel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Zero is llama.Shards over Groups: it adds up gradients beside the backward pass, and with ZeRO 3 brings weights beside
// the passes. The caller sets the Groups, which nobody else uses, before the first step.
type Zero struct {
	// Shards are the ranks of one copy of the state, in Gathers again; Replicas those with the same shard of other copies.
	Shards, Gathers, Replicas collective.Group
	KV                        collective.Group // tensor ranks with the same KV heads; nil without tensor parallelism
	Norms                     collective.Group // tensor ranks that each have the norms' gradient of some tokens; nil: none
	Tied                      collective.Group // first and last stage of a pipeline, if they hold one embedding; else nil
	TiedUnit                  int              // of that embedding here

	stage   int
	params  *llama.Params
	dev     tensor.Device
	compute tensor.Queue
	reduce  tensor.Queue
	gather  tensor.Queue

	weights []heldWeights
	grads   []heldGrads
	works   map[collective.Group]collective.Work
}

// heldWeights is memory for the weights of a unit, x.
type heldWeights struct {
	unit  int // −1: none
	all   tensor.Buffer
	ready tensor.Event
	used  int // the later, the more recently
}

// heldGrads is memory for the gradient of a unit, acc, and the sum of its shard.
type heldGrads struct {
	unit     int // −1: none
	all, sum tensor.Buffer
	free     tensor.Event // when it may be used again
}

// NewZero asks for the memory of what the Sharding of p does not keep. dev is nil while a is only a plan.
func NewZero(a *tensor.Arena, dev tensor.Device, p *llama.Params, s llama.Sharding, tied bool) *Zero {
	z := &Zero{stage: s.Stage, params: p, dev: dev, TiedUnit: -1,
		works: map[collective.Group]collective.Work{}}
	if dev != nil {
		z.compute, z.reduce, z.gather = dev.Queue(tensor.Compute), dev.Queue(tensor.Reduce), dev.Queue(tensor.Gather)
	}
	longest := 0
	for _, u := range p.Units {
		longest = max(longest, u.Len())
	}
	x := p.Units[0].Weights.DType()
	if s.Stage >= 3 {
		for i := range 2 {
			all := a.Alloc("communication", fmt.Sprintf("weights of a unit %d", i), x, longest)
			z.weights = append(z.weights, heldWeights{unit: -1, all: all})
		}
	}
	if s.Stage >= 2 {
		n := 2
		if tied { // the embedding's gradient is open throughout the backward pass
			n = 3
		}
		for i := range n {
			alloc := func(name string, n int) tensor.Buffer {
				return a.Alloc("communication", fmt.Sprintf("%s of a unit %d", name, i), x.Accum(), n)
			}
			h := heldGrads{unit: -1, all: alloc("gradients", longest), sum: alloc("sum of gradients", longest/max(s.Ranks, 1))}
			z.grads = append(z.grads, h)
		}
	}
	return z
}

// Weights implements llama.Shards.
func (z *Zero) Weights(unit int) tensor.Buffer {
	h := z.hold(unit)
	z.compute.Wait(h.ready)
	return h.all.Slice(0, z.params.Units[unit].Len())
}

// Fetch implements llama.Shards.
func (z *Zero) Fetch(unit int) { z.hold(unit) }

// hold finds the weights of a unit, or begins to gather them in the place of those not used for longest.
func (z *Zero) hold(unit int) *heldWeights {
	oldest, latest := &z.weights[0], 0
	var found *heldWeights
	for i := range z.weights {
		h := &z.weights[i]
		if h.unit == unit {
			found = h
		}
		if h.used < oldest.used {
			oldest = h
		}
		latest = max(latest, h.used)
	}
	if found == nil {
		found = oldest
		found.unit = unit
		u := z.params.Units[unit]
		z.gather.Wait(z.compute.Record()) // it may still read what was there
		z.start(z.Gathers, z.gather, collective.AllGather(found.all.Slice(0, u.Len()), u.Weights))
		found.ready = z.gather.Record()
	}
	found.used = latest + 1
	return found
}

// Grads implements llama.Shards.
func (z *Zero) Grads(unit int) tensor.Buffer {
	h := z.open(unit)
	return h.all.Slice(0, z.params.Units[unit].Len())
}

// open finds the memory of a unit's gradient, or clears some for it.
func (z *Zero) open(unit int) *heldGrads {
	for i := range z.grads {
		if z.grads[i].unit == unit {
			return &z.grads[i]
		}
	}
	for i := range z.grads {
		if z.grads[i].unit < 0 {
			oldest := z.grads[i] // among the free ones
			z.grads = append(slices.Delete(z.grads, i, i+1), oldest)
			h := &z.grads[len(z.grads)-1]
			if h.free != nil {
				z.compute.Wait(h.free)
			}
			h.unit = unit
			z.dev.Fill(z.compute, h.all.Slice(0, z.params.Units[unit].Len()), 0)
			return h
		}
	}
	panic(fmt.Sprintf("parallel: the gradients of %d units are open, and unit %d begins", len(z.grads), unit))
}

// Reduce implements llama.Shards.
func (z *Zero) Reduce(unit int) {
	u := z.params.Units[unit]
	z.reduce.Wait(z.compute.Record())
	if z.stage < 2 {
		all := z.params.Grads.Slice(u.Lo, u.Hi)
		z.sumTensor(unit, all)
		if z.Shards.Size() > 1 {
			z.start(z.Shards, z.reduce, collective.ReduceScatter(u.Grads, all, collective.Sum))
		}
		z.sumReplicas(u)
		return
	}
	h := z.open(unit)
	all, sum := h.all.Slice(0, u.Len()), h.sum.Slice(0, u.Grads.Len())
	z.sumTensor(unit, all)
	z.start(z.Shards, z.reduce, collective.ReduceScatter(sum, all, collective.Sum))
	z.dev.Add(z.reduce, u.Grads, u.Grads, sum)
	h.unit, h.free = -1, z.reduce.Record()
}

// sumTensor adds up the gradients of a unit that several tensor ranks have: of KV heads, and of norms.
func (z *Zero) sumTensor(unit int, all tensor.Buffer) {
	first := z.params.Units[unit].Lo
	if lo, hi := z.params.KV(unit); z.KV != nil && z.KV.Size() > 1 && lo < hi {
		kv := all.Slice(lo-first, hi-first)
		z.start(z.KV, z.reduce, collective.AllReduce(kv, kv, collective.Sum))
	}
	if z.Norms == nil {
		return
	}
	var ops []collective.Op
	for _, n := range z.params.Norms(unit) {
		norm := all.Slice(n.Lo-first, n.Hi-first)
		ops = append(ops, collective.AllReduce(norm, norm, collective.Sum))
	}
	if len(ops) > 0 {
		z.start(z.Norms, z.reduce, ops...)
	}
}

// sumReplicas adds up the gradients of a shard of a unit that several ranks hold.
func (z *Zero) sumReplicas(u llama.Unit) {
	if z.Replicas.Size() > 1 {
		z.start(z.Replicas, z.reduce, collective.AllReduce(u.Grads, u.Grads, collective.Sum))
	}
}

// Finish makes the compute queue wait for all sums.
func (z *Zero) Finish() {
	if z.stage >= 2 {
		for _, u := range z.params.Units {
			z.sumReplicas(u)
		}
	}
	z.SumTied(z.reduce)
	z.compute.Wait(z.reduce.Record())
}

// SumTied adds up the gradients of the two tied embeddings of a pipeline, after what is on q, which waits for it.
func (z *Zero) SumTied(q tensor.Queue) {
	if z.Tied != nil {
		g := z.params.Units[z.TiedUnit].Grads
		z.start(z.Tied, q, collective.AllReduce(g, g, collective.Sum))
	}
}

// Update says that this rank's weights have changed. It brings those of other ranks, unless they are brought when needed.
func (z *Zero) Update() {
	for i := range z.weights {
		z.weights[i].unit = -1
	}
	if z.stage == 3 || z.Gathers.Size() == 1 {
		return
	}
	var ops []collective.Op
	for _, u := range z.params.Units {
		ops = append(ops, collective.AllGather(z.params.Weights.Slice(u.Lo, u.Hi), u.Weights))
	}
	z.start(z.Gathers, z.compute, ops...)
}

// start begins ops after what is on q, and makes q wait for them.
func (z *Zero) start(g collective.Group, q tensor.Queue, ops ...collective.Op) {
	work := g.Start(q, ops...)
	q.Wait(work.Event())
	z.works[g] = work
}

// Wait waits until all that was begun has ended, and says whether it failed.
func (z *Zero) Wait(ctx context.Context) error {
	var errs []error
	for _, work := range z.works {
		errs = append(errs, work.Wait(ctx))
	}
	return errors.Join(errs...)
}
