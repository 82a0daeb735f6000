package cpu

import "github.com/herdtrain/herd/tensor"

// Add adds element by element.
func (d *Device) Add(q tensor.Queue, dst, a, b tensor.Buffer) {
	dt, n := dst.DType(), dst.Len()
	check("Add(dst, a, b)", dt == dt.Accum() && holds(a, dt, n) && holds(b, dt, n), vector(dst), vector(a), vector(b))
	split(q, n, d.elementGrain(), func(i0, i1 int) {
		dst, a, b := dst.Slice(i0, i1), a.Slice(i0, i1), b.Slice(i0, i1)
		switch {
		case dt == tensor.F64:
			addElements[float64](dst, a, b)
		case d.c == nil:
			addElements[float32](dst, a, b)
		default:
			d.c.add(dst, a, b)
		}
	})
}

func addElements[A float](dst, a, b tensor.Buffer) {
	out, y := tensor.Host[A](dst), tensor.Host[A](b)
	for i, x := range tensor.Host[A](a) {
		out[i] = x + y[i]
	}
}
