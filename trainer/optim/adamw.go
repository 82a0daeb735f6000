// Package optim is the optimizer and the learning-rate schedules.
package optim

import (
	"context"
	"fmt"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// AdamW is AdamW with decoupled weight decay and fp32 master weights, over the elements of a model that this rank owns:
// with ZeRO a shard of each unit. Norm weights are not decayed.
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
	ClipNorm                       float64 // largest norm of the whole gradient; 0: not clipped

	Units []Moments // of the units of the parameters

	params *llama.Params
	stats  tensor.Buffer // F64 [5]: loss sum, squared gradient norm, stop, clipping factor, applied
}

// Moments is the optimizer's state of the elements of a unit that this rank owns, acc each. Master is the weights
// themselves when they are of that dtype.
type Moments struct{ Master, M, V tensor.Buffer }

// New asks for the memory of an optimizer. The caller sets the exported numbers.
func New(a *tensor.Arena, p *llama.Params) *AdamW {
	o := &AdamW{params: p, stats: a.Alloc("workspace", "step statistics", tensor.F64, 5)}
	for i, u := range p.Units {
		n, acc := u.Weights.Len(), u.Weights.DType().Accum()
		alloc := func(name string) tensor.Buffer {
			return a.Alloc("optimizer", fmt.Sprintf("unit %d/%s", i, name), acc, n)
		}
		m := Moments{Master: u.Weights}
		if u.Weights.DType() != acc {
			m.Master = alloc("master weights")
		}
		m.M, m.V = alloc("first moment"), alloc("second moment")
		o.Units = append(o.Units, m)
	}
	return o
}

// Initialize gives the master weights their initial values, in blocks of some MiB; the moments are zero.
func (o *AdamW) Initialize(ctx context.Context, d tensor.Device, q tensor.Queue, seed uint64) error {
	const most = 4 << 20 // elements of a block
	var host []float32
	for i, u := range o.params.Units {
		for lo := u.Own.Lo; lo < u.Own.Hi; lo += most {
			n := min(most, u.Own.Hi-lo)
			if cap(host) < n {
				host = make([]float32, n)
			}
			block := host[:n]
			clear(block) // between parameters there may be gaps
			o.params.Initialize(block, lo, seed)
			first := lo - u.Own.Lo
			d.Upload(q, o.Units[i].Master.Slice(first, first+n), tensor.HostBytes(tensor.HostBuffer(block)))
			if err := q.Sync(ctx); err != nil { // the block is used again
				return err
			}
		}
	}
	return nil
}

// Derive rounds the master weights to the weights that the passes read, of what this rank owns.
func (o *AdamW) Derive(d tensor.Device, q tensor.Queue) {
	for i, u := range o.params.Units {
		if master := o.Units[i].Master; master != u.Weights {
			d.Cast(q, u.Weights, master)
		}
	}
}

// Begin clears the gradients and the loss for a new step.
func (o *AdamW) Begin(d tensor.Device, q tensor.Queue) {
	if all := o.params.Grads; all.Len() > 0 {
		d.Fill(q, all, 0)
	} else {
		for _, u := range o.params.Units {
			d.Fill(q, u.Grads, 0)
		}
	}
	d.Fill(q, o.stats, 0)
}

// LossSum is where the micro-batches add their losses, F64 [1].
func (o *AdamW) LossSum() tensor.Buffer { return o.stats.Slice(0, 1) }

// Counted is the gradient of what this rank owns, acc, without copies of what another rank counts.
func (o *AdamW) Counted() (grads []tensor.Buffer) {
	for i, u := range o.params.Units {
		from := u.Own.Lo
		add := func(to int) {
			if from < to {
				grads = append(grads, u.Grads.Slice(from-u.Own.Lo, to-u.Own.Lo))
			}
		}
		for _, q := range o.params.List {
			if first, end := q.Within(u.Own); q.Unit == i && q.Copy && first < end {
				add(q.Index(first))
				from = q.Index(first) + end - first
			}
		}
		add(u.Own.Hi)
	}
	return grads
}

// Measure adds the squared norm of the gradient to the vote.
func (o *AdamW) Measure(d tensor.Device, q tensor.Queue) {
	for _, g := range o.Counted() {
		d.SumSquares(q, o.stats.Slice(1, 2), g)
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
		u, own := o.params.Units[p.Unit], o.Units[p.Unit]
		first, end := p.Within(u.Own)
		if first == end {
			continue
		}
		s.WeightDecay = o.WeightDecay
		if p.Norm {
			s.WeightDecay = 0
		}
		part := func(b tensor.Buffer) tensor.Buffer { return p.Part(b, u.Own.Lo, first, end) }
		d.AdamW(q, part(u.Weights), part(own.Master), part(own.M), part(own.V), part(u.Grads), gate, s)
	}
}

// Stats is the device memory of a step's result, F64 [5]: the vote, the clipping factor, and 1 if the step was applied.
func (o *AdamW) Stats() tensor.Buffer { return o.stats }
