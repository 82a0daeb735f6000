// Package optim is the optimizer and the learning-rate schedules.
package optim

import (
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// AdamW is AdamW with decoupled weight decay and fp32 master weights. Norm weights are not decayed.
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
	ClipNorm                       float64 // largest norm of the whole gradient; 0: not clipped

	// Flat arrays like the model's, acc [Params.Len]. Master is the weights themselves when they are of that dtype.
	Master, M, V tensor.Buffer

	params *llama.Params
	stats  tensor.Buffer // F64 [4]: loss sum, squared gradient norm, clipping factor, applied
}

// New asks for the optimizer's memory. The caller sets the exported numbers.
func New(a *tensor.Arena, p *llama.Params) *AdamW {
	acc := p.Weights.DType().Accum()
	o := &AdamW{params: p, Master: p.Weights}
	if p.Weights.DType() != acc {
		o.Master = a.Alloc("optimizer", "master weights", acc, p.Len)
	}
	o.M = a.Alloc("optimizer", "first moment", acc, p.Len)
	o.V = a.Alloc("optimizer", "second moment", acc, p.Len)
	o.stats = a.Alloc("workspace", "step statistics", tensor.F64, 4)
	return o
}

// Begin clears the gradients and the loss for a new step.
func (o *AdamW) Begin(d tensor.Device, q tensor.Queue) {
	d.Fill(q, o.params.Grads, 0)
	d.Fill(q, o.stats, 0)
}

// LossSum is where the micro-batches add their losses, F64 [1].
func (o *AdamW) LossSum() tensor.Buffer { return o.stats.Slice(0, 1) }

// Step votes on the step and applies the gradients if loss and gradient are finite; no host sync is needed in between.
// number is 1 for the first step of the run; a skipped step counts.
func (o *AdamW) Step(d tensor.Device, q tensor.Queue, lr float64, number int64) {
	sq, gate := o.stats.Slice(1, 2), o.stats.Slice(2, 4)
	d.SumSquares(q, sq, o.params.Grads)
	d.Gate(q, gate, o.LossSum(), sq, o.ClipNorm)
	s := tensor.AdamWStep{LR: lr, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, Step: number}
	for _, p := range o.params.List {
		s.WeightDecay = o.WeightDecay
		if p.Norm {
			s.WeightDecay = 0
		}
		d.AdamW(q, p.Of(o.params.Weights), p.Of(o.Master), p.Of(o.M), p.Of(o.V), p.Of(o.params.Grads), gate, s)
	}
}

// Stats is the device memory of a step's result, F64 [4]: the sum of the losses, the squared norm of the gradient
// before clipping, the clipping factor, and 1 if the step was applied.
func (o *AdamW) Stats() tensor.Buffer { return o.stats }
