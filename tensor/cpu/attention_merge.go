package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// MergeAttention weights o and part by their shares of the softmax's denominator: with m the larger of both lse, exp(lse −
// m) over the sum of both. Where there is no key in either, o is 0 and lse −∞.
func (d *Device) MergeAttention(q tensor.Queue, o tensor.Mat, lse tensor.Buffer, part tensor.Mat, partLSE tensor.Buffer) {
	acc := o.DType()
	heads := 1
	if o.Rows > 0 {
		heads = lse.Len() / o.Rows
	}
	check("MergeAttention(o, part, lse, partLSE)", acc.Accum() == acc && like(acc, o.Rows, o.Cols, o, part) &&
		holds(lse, acc, heads*o.Rows) && holds(partLSE, acc, lse.Len()) && heads > 0 && o.Cols%heads == 0,
		o, part, vector(lse), vector(partLSE))
	split(q, o.Rows, max(1, d.elementGrain()/max(1, o.Cols)), func(i0, i1 int) {
		if acc == tensor.F64 {
			mergeAttention[float64](o, lse, part, partLSE, heads, i0, i1)
		} else {
			mergeAttention[float32](o, lse, part, partLSE, heads, i0, i1)
		}
	})
}

// mergeAttention does so for rows [i0, i1).
func mergeAttention[A float](o tensor.Mat, lse tensor.Buffer, part tensor.Mat, partLSE tensor.Buffer, heads, i0, i1 int) {
	to, from, a, b := rowsOf[A](o), rowsOf[A](part), tensor.Host[A](lse), tensor.Host[A](partLSE)
	n, dim := o.Rows, o.Cols/heads
	for i := i0; i < i1; i++ {
		x, y := to.read(i, nil), from.read(i, nil)
		for h := range heads {
			at := h*n + i
			la, lb := float64(a[at]), float64(b[at])
			if math.IsInf(lb, -1) {
				continue
			}
			top := max(la, lb)
			wa, wb := math.Exp(la-top), math.Exp(lb-top)
			sum := wa + wb
			a[at] = A(top + math.Log(sum))
			fa, fb := A(wa/sum), A(wb/sum)
			for j := h * dim; j < (h+1)*dim; j++ {
				x[j] = fa*x[j] + fb*y[j]
			}
		}
	}
}
