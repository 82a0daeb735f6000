// Package optim is the optimizer and the learning-rate schedules.
package optim

import (
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// AdamW is AdamW with decoupled weight decay and fp32 master weights, over the elements [Lo, Hi) of a model's flat
// arrays: with ZeRO each rank has a shard of them. Norm weights are not decayed.
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
	ClipNorm                       float64 // largest norm of the whole gradient; 0: not clipped

	Lo, Hi int
	// Master, M and V are acc [Hi−Lo]. Master is the weights themselves when they are of that dtype.
	Master, M, V tensor.Buffer

	params  *llama.Params
	counted [][2]int      // elements of the shard whose gradients count: copies on other ranks do not
	stats   tensor.Buffer // F64 [5]: loss sum, squared gradient norm, stop, clipping factor, applied
}

// New asks for the memory of an optimizer of elements [lo, hi). The caller sets the exported numbers.
func New(a *tensor.Arena, p *llama.Params, lo, hi int) *AdamW {
	acc := p.Weights.DType().Accum()
	o := &AdamW{params: p, Lo: lo, Hi: hi, counted: counted(p, lo, hi)}
	if p.Weights.DType() == acc {
		o.Master = p.Weights.Slice(lo, hi)
	} else {
		o.Master = a.Alloc("optimizer", "master weights", acc, hi-lo)
	}
	o.M = a.Alloc("optimizer", "first moment", acc, hi-lo)
	o.V = a.Alloc("optimizer", "second moment", acc, hi-lo)
	o.stats = a.Alloc("workspace", "step statistics", tensor.F64, 5)
	return o
}

// counted is the ranges of elements [lo, hi) without copies, neighbours joined.
func counted(p *llama.Params, lo, hi int) (ranges [][2]int) {
	from := lo
	for _, q := range p.List {
		if first, end := q.Within(lo, hi); q.Copy && first < end {
			at := q.Index(first)
			ranges = append(ranges, [2]int{from, at})
			from = at + end - first
		}
	}
	return append(ranges, [2]int{from, hi})
}

// Begin clears the gradients and the loss for a new step.
func (o *AdamW) Begin(d tensor.Device, q tensor.Queue) {
	d.Fill(q, o.params.Grads, 0)
	d.Fill(q, o.stats, 0)
}

// LossSum is where the micro-batches add their losses, F64 [1].
func (o *AdamW) LossSum() tensor.Buffer { return o.stats.Slice(0, 1) }

// Grads is the gradient of the elements that o updates.
func (o *AdamW) Grads() tensor.Buffer { return o.params.Grads.Slice(o.Lo, o.Hi) }

// Measure adds the squared norm of Grads to the vote, without copies of what another rank counts.
func (o *AdamW) Measure(d tensor.Device, q tensor.Queue) {
	for _, r := range o.counted {
		d.SumSquares(q, o.stats.Slice(1, 2), o.params.Grads.Slice(r[0], r[1]))
	}
}

// Vote is F64 [3], the sums over all ranks that decide about a step: the loss, the squared norm of the gradient before
// clipping, and how many ranks are asked to stop.
func (o *AdamW) Vote() tensor.Buffer { return o.stats.Slice(0, 3) }

// Step applies the gradients if the vote's loss and gradient are finite; no host sync is needed in between. number is 1
// for the first step of the run; a skipped step counts.
func (o *AdamW) Step(d tensor.Device, q tensor.Queue, lr float64, number int64) {
	gate := o.stats.Slice(3, 5)
	d.Gate(q, gate, o.LossSum(), o.stats.Slice(1, 2), o.ClipNorm)
	s := tensor.AdamWStep{LR: lr, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, Step: number}
	for _, p := range o.params.List {
		first, end := p.Within(o.Lo, o.Hi)
		if first == end {
			continue
		}
		s.WeightDecay = o.WeightDecay
		if p.Norm {
			s.WeightDecay = 0
		}
		own := func(b tensor.Buffer) tensor.Buffer { return p.Part(b, o.Lo, first, end) }
		whole := func(b tensor.Buffer) tensor.Buffer { return p.Part(b, 0, first, end) }
		d.AdamW(q, whole(o.params.Weights), own(o.Master), own(o.M), own(o.V), whole(o.params.Grads), gate, s)
	}
}

// Stats is the device memory of a step's result, F64 [5]: the vote, the clipping factor, and 1 if the step was applied.
func (o *AdamW) Stats() tensor.Buffer { return o.stats }
