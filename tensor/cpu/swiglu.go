package cpu

import "github.com/herdtrain/herd/tensor"

// SwiGLU is Shazeer 2020.
func (d *Device) SwiGLU(q tensor.Queue, h, gu tensor.Mat) {
	check("SwiGLU(h, gu)", like(h.DType(), h.Rows, 2*h.Cols, gu), h, gu)
	split(q, h.Rows, d.rowGrain(h.Cols), func(i0, i1 int) {
		switch {
		case h.DType() == tensor.F64:
			swiGLU[float64](d, h, gu, i0, i1)
		case d.c == nil:
			swiGLU[float32](d, h, gu, i0, i1)
		default:
			d.c.swiGLU(h.RowRange(i0, i1), gu.RowRange(i0, i1))
		}
	})
}

func swiGLU[A float](d *Device, h, gu tensor.Mat, i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	n := h.Cols
	hbuf, gubuf, e := floats[A](s, n), floats[A](s, 2*n), floats[A](s, n)
	hs, gus := rowsOf[A](h), rowsOf[A](gu)
	for i := i0; i < i1; i++ {
		row := gus.read(i, gubuf)
		g, u := row[:n], row[n:][:n]
		expScaled(e, g, -1, 0)
		out := hs.dest(i, hbuf)[:n]
		for j, v := range e[:n] {
			out[j] = g[j] / (1 + v) * u[j]
		}
		hs.store(i, out)
	}
}

// SwiGLUBackward: with σ the logistic function of g, dg = dh·u·σ·(1 + g·(1 − σ)) and du = dh·g·σ.
func (d *Device) SwiGLUBackward(q tensor.Queue, dgu, dh, gu tensor.Mat) {
	check("SwiGLUBackward(dgu, dh, gu)", like(dh.DType(), dh.Rows, 2*dh.Cols, dgu, gu), dgu, dh, gu)
	split(q, dh.Rows, d.rowGrain(dh.Cols), func(i0, i1 int) {
		switch {
		case dh.DType() == tensor.F64:
			swiGLUBackward[float64](d, dgu, dh, gu, i0, i1)
		case d.c == nil:
			swiGLUBackward[float32](d, dgu, dh, gu, i0, i1)
		default:
			d.c.swiGLUBackward(dgu.RowRange(i0, i1), dh.RowRange(i0, i1), gu.RowRange(i0, i1))
		}
	})
}

func swiGLUBackward[A float](d *Device, dgu, dh, gu tensor.Mat, i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	n := dh.Cols
	dgubuf, dhbuf, gubuf, e := floats[A](s, 2*n), floats[A](s, n), floats[A](s, 2*n), floats[A](s, n)
	dgus, dhs, gus := rowsOf[A](dgu), rowsOf[A](dh), rowsOf[A](gu)
	for i := i0; i < i1; i++ {
		row, grad := gus.read(i, gubuf), dhs.read(i, dhbuf)[:n]
		g, u := row[:n], row[n:][:n]
		expScaled(e, g, -1, 0)
		out := dgus.dest(i, dgubuf)
		dg, du := out[:n], out[n:][:n]
		for j, v := range e[:n] {
			sigma, x, dy, up := 1/(1+v), g[j], grad[j], u[j]
			dg[j] = dy * up * sigma * (1 + x*(1-sigma))
			du[j] = dy * x * sigma
		}
		dgus.store(i, out)
	}
}
