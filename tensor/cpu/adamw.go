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
	split(q, n, elementsPerPiece, func(i0, i1 int) {
		cut := func(b tensor.Buffer) tensor.Buffer { return b.Slice(i0, i1) }
		if dt == tensor.F64 {
			adamW[float64](cut(p), cut(master), cut(m), cut(v), cut(g), gate, s)
		} else {
			adamW[float32](cut(p), cut(master), cut(m), cut(v), cut(g), gate, s)
		}
	})
}

func adamW[A float](p, master, m, v, g, gate tensor.Buffer, s tensor.AdamWStep) {
	gates := tensor.Host[float64](gate)
	if gates[1] == 0 {
		return
	}
	correction1, correction2 := 1-math.Pow(s.Beta1, float64(s.Step)), 1-math.Pow(s.Beta2, float64(s.Step))
	clip, keep := A(gates[0]), A(1-s.LR*s.WeightDecay)
	beta2, rest1, rest2 := A(s.Beta2), A(1-s.Beta1), A(1-s.Beta2)
	rate, root2, eps := A(s.LR/correction1), A(math.Sqrt(correction2)), A(s.Eps)

	ws, grads := tensor.Host[A](master), tensor.Host[A](g)
	ms, vs := tensor.Host[A](m)[:len(ws)], tensor.Host[A](v)[:len(ws)]
	for i, grad := range grads[:len(ws)] {
		grad *= clip
		mean := ms[i] + rest1*(grad-ms[i])
		square := beta2*vs[i] + rest2*grad*grad
		ms[i], vs[i] = mean, square
		ws[i] = ws[i]*keep - rate*(mean/(A(math.Sqrt(float64(square)))/root2+eps))
	}
	if p.DType() == tensor.BF16 {
		rowsOf[A](vector(p)).store(0, ws)
	} else {
		copy(tensor.Host[A](p), ws)
	}
}
