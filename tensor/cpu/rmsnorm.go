package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// RMSNorm is Zhang & Sennrich 2019, with the roundings of Llama.
func (d *Device) RMSNorm(q tensor.Queue, y tensor.Mat, rstd tensor.Buffer, x tensor.Mat, w tensor.Buffer, eps float64) {
	dt := x.DType()
	check("RMSNorm(y, x, w, rstd)", like(dt, x.Rows, x.Cols, y) && holds(w, dt, x.Cols) &&
		holds(rstd, dt.Accum(), x.Rows), y, x, vector(w), vector(rstd))
	split(q, x.Rows, d.rowGrain(x.Cols), func(i0, i1 int) {
		switch {
		case dt == tensor.F64:
			rmsNorm[float64](d, y, rstd, x, nil, nil, w, eps, i0, i1)
		case d.c == nil:
			rmsNorm[float32](d, y, rstd, x, nil, nil, w, eps, i0, i1)
		default:
			x := x.RowRange(i0, i1)
			d.c.rmsNorm(y.RowRange(i0, i1), rstd.Slice(i0, i1), x, x, tensor.Mat{}, w, eps)
		}
	})
}

// AddRMSNorm adds and normalises row by row.
func (d *Device) AddRMSNorm(q tensor.Queue, y tensor.Mat, rstd tensor.Buffer, sum, res, delta tensor.Mat,
	w tensor.Buffer, eps float64) {
	dt := sum.DType()
	check("AddRMSNorm(y, sum, res, delta, w, rstd)", like(dt, sum.Rows, sum.Cols, y, res, delta) &&
		holds(w, dt, sum.Cols) && holds(rstd, dt.Accum(), sum.Rows), y, sum, res, delta, vector(w), vector(rstd))
	split(q, sum.Rows, d.rowGrain(sum.Cols), func(i0, i1 int) {
		switch {
		case dt == tensor.F64:
			rmsNorm[float64](d, y, rstd, sum, &res, &delta, w, eps, i0, i1)
		case d.c == nil:
			rmsNorm[float32](d, y, rstd, sum, &res, &delta, w, eps, i0, i1)
		default:
			rows := func(m tensor.Mat) tensor.Mat { return m.RowRange(i0, i1) }
			d.c.rmsNorm(rows(y), rstd.Slice(i0, i1), rows(sum), rows(res), rows(delta), w, eps)
		}
	})
}

// rmsNorm is RMSNorm of rows [i0, i1), or AddRMSNorm if there are addends, whose sum x is then.
func rmsNorm[A float](d *Device, y tensor.Mat, rstd tensor.Buffer, x tensor.Mat, res, delta *tensor.Mat,
	w tensor.Buffer, eps float64, i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	n := x.Cols
	xbuf, ybuf, abuf := floats[A](s, n), floats[A](s, n), floats[A](s, n)
	weight := rowsOf[A](vector(w)).read(0, floats[A](s, n))
	xs, ys, rs := rowsOf[A](x), rowsOf[A](y), tensor.Host[A](rstd)
	for i := i0; i < i1; i++ {
		var row []A
		if res == nil {
			row = xs.read(i, xbuf)
		} else {
			row = xs.dest(i, xbuf)
			copy(row, rowsOf[A](*res).read(i, abuf))
			add(row, rowsOf[A](*delta).read(i, abuf))
			xs.round(row)
			xs.store(i, row)
		}
		r := A(1 / math.Sqrt(float64(dot(row, row))/float64(n)+eps))
		rs[i] = r
		out := ys.dest(i, ybuf)[:n]
		for j, v := range row[:n] {
			out[j] = v * r
		}
		ys.round(out)
		for j, v := range weight {
			out[j] *= v
		}
		ys.store(i, out)
	}
}

// RMSNormBackward: with h = x·rstd, dw = Σ dy·h over tokens and dx = rstd·(w·dy − h·mean(w·dy·h)).
func (d *Device) RMSNormBackward(q tensor.Queue, dx tensor.Mat, dw tensor.Buffer, dy, x tensor.Mat,
	w, rstd tensor.Buffer, accumulate bool) {
	dt := x.DType()
	check("RMSNormBackward(dx, dy, x, dw, w, rstd)", like(dt, x.Rows, x.Cols, dx, dy) && holds(w, dt, x.Cols) &&
		holds(dw, dt.Accum(), x.Cols) && holds(rstd, dt.Accum(), x.Rows),
		dx, dy, x, vector(dw), vector(w), vector(rstd))
	if d.c != nil && dt != tensor.F64 {
		d.rmsNormBackward(q, dx, dw, dy, x, w, rstd, accumulate)
		return
	}
	split(q, x.Cols, columnGrain, func(j0, j1 int) {
		dw, dy, x := dw.Slice(j0, j1), dy.ColRange(j0, j1), x.ColRange(j0, j1)
		if dt == tensor.F64 {
			rmsNormWeightGradient[float64](d, dw, dy, x, rstd)
		} else {
			rmsNormWeightGradient[float32](d, dw, dy, x, rstd)
		}
	})
	split(q, x.Rows, d.rowGrain(x.Cols), func(i0, i1 int) {
		if dt == tensor.F64 {
			rmsNormInputGradient[float64](d, dx, dy, x, w, rstd, accumulate, i0, i1)
		} else {
			rmsNormInputGradient[float32](d, dx, dy, x, w, rstd, accumulate, i0, i1)
		}
	})
}

// normChunk is how many tokens' contributions to a norm's weight gradient are added up before they are added to it.
const normChunk = 32

// rmsNormBackward reads a chunk of tokens once, for dx and its part of dw; the parts are added in order.
func (d *Device) rmsNormBackward(q tensor.Queue, dx tensor.Mat, dw tensor.Buffer, dy, x tensor.Mat,
	w, rstd tensor.Buffer, accumulate bool) {
	s, chunks, n := d.scratches.take(), (x.Rows+normChunk-1)/normChunk, x.Cols
	parts := floats[float32](s, chunks*n)
	split(q, chunks, d.rowGrain(normChunk*n), func(c0, c1 int) {
		for c := c0; c < c1; c++ {
			i0, i1 := c*normChunk, min((c+1)*normChunk, x.Rows)
			d.c.rmsNormBackward(dx.RowRange(i0, i1), parts[c*n:][:n], dy.RowRange(i0, i1), x.RowRange(i0, i1), w,
				rstd.Slice(i0, i1), accumulate)
		}
	})
	split(q, 1, 1, func(_, _ int) {
		for c := range chunks {
			add(tensor.Host[float32](dw), parts[c*n:][:n])
		}
		d.scratches.give(s)
	})
}

// rmsNormWeightGradient is dw, for which the columns are shared out.
func rmsNormWeightGradient[A float](d *Device, dw tensor.Buffer, dy, x tensor.Mat, rstd tensor.Buffer) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	xbuf, dybuf, total := floats[A](s, x.Cols), floats[A](s, x.Cols), floats[A](s, x.Cols)
	clear(total)
	xs, dys := rowsOf[A](x), rowsOf[A](dy)
	for i, r := range tensor.Host[A](rstd) {
		row := xs.read(i, xbuf)[:len(total)]
		for j, g := range dys.read(i, dybuf)[:len(total)] {
			total[j] += g * row[j] * r
		}
	}
	add(tensor.Host[A](dw), total)
}

// rmsNormInputGradient is rows [i0, i1) of dx.
func rmsNormInputGradient[A float](d *Device, dx, dy, x tensor.Mat, w, rstd tensor.Buffer, accumulate bool,
	i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	n := x.Cols
	xbuf, dybuf, dxbuf, wdy := floats[A](s, n), floats[A](s, n), floats[A](s, n), floats[A](s, n)
	weight := rowsOf[A](vector(w)).read(0, floats[A](s, n))
	xs, dys, dxs, rs := rowsOf[A](x), rowsOf[A](dy), rowsOf[A](dx), tensor.Host[A](rstd)
	for i := i0; i < i1; i++ {
		row, r := xs.read(i, xbuf)[:n], rs[i]
		for j, g := range dys.read(i, dybuf)[:n] {
			wdy[j] = g * weight[j]
		}
		mean := dot(wdy, row) * r / A(n)
		for j, v := range row {
			wdy[j] = r * (wdy[j] - v*r*mean)
		}
		out := dxs.dest(i, dxbuf)
		if accumulate {
			add(wdy, dxs.read(i, dxbuf))
		}
		copy(out, wdy)
		dxs.store(i, out)
	}
}
