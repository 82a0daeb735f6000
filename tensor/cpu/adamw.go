package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// AdamW is Loshchilov & Hutter 2019, in the order of operations of PyTorch. Coefficients are computed in float64.
func (d *Device) AdamW(q tensor.Queue, p, master, m, v, g, gate tensor.Buffer, s tensor.AdamWStep) {
	dt, n := master.DType(), master.Len()
	check("AdamW(p, master, m, v, g, gate)", p.Len() == n && like(p.DType(), 0, 0) && p.DType().Accum() == dt &&
		holds(m, dt, n) && holds(v, dt, n) && holds(g, dt, n) && holds(gate, tensor.F64, 2) && s.Step > 0,
		vector(p), vector(master), vector(m), vector(v), vector(g), vector(gate))
	split(q, n, d.elementGrain(), func(i0, i1 int) {
		gates := tensor.Host[float64](gate)
		if gates[1] == 0 {
			return
		}
		p, master, m, v, g := p.Slice(i0, i1), master.Slice(i0, i1), m.Slice(i0, i1), v.Slice(i0, i1), g.Slice(i0, i1)
		switch {
		case dt == tensor.F64:
			adamW(p, master, m, v, g, newAdamWNumbers[float64](gates[0], s))
		case d.c == nil:
			adamW(p, master, m, v, g, newAdamWNumbers[float32](gates[0], s))
		default:
			d.c.adamW(p, master, m, v, g, newAdamWNumbers[float32](gates[0], s))
		}
	})
}

// adamWNumbers are the coefficients of a step, with the corrections for bias.
type adamWNumbers[A float] struct{ clip, keep, beta2, rest1, rest2, rate, root2, eps A }

func newAdamWNumbers[A float](clip float64, s tensor.AdamWStep) adamWNumbers[A] {
	correction1, correction2 := 1-math.Pow(s.Beta1, float64(s.Step)), 1-math.Pow(s.Beta2, float64(s.Step))
	return adamWNumbers[A]{
		clip: A(clip), keep: A(1 - s.LR*s.WeightDecay),
		beta2: A(s.Beta2), rest1: A(1 - s.Beta1), rest2: A(1 - s.Beta2),
		rate: A(s.LR / correction1), root2: A(math.Sqrt(correction2)), eps: A(s.Eps),
	}
}

func adamW[A float](p, master, m, v, g tensor.Buffer, n adamWNumbers[A]) {
	ws, grads := tensor.Host[A](master), tensor.Host[A](g)
	ms, vs := tensor.Host[A](m)[:len(ws)], tensor.Host[A](v)[:len(ws)]
	for i, grad := range grads[:len(ws)] {
		grad *= n.clip
		mean := ms[i] + n.rest1*(grad-ms[i])
		square := n.beta2*vs[i] + n.rest2*grad*grad
		ms[i], vs[i] = mean, square
		ws[i] = ws[i]*n.keep - n.rate*(mean/(A(math.Sqrt(float64(square)))/n.root2+n.eps))
	}
	if p.DType() == tensor.BF16 {
		rowsOf[A](vector(p)).store(0, ws)
	} else {
		copy(tensor.Host[A](p), ws)
	}
}
