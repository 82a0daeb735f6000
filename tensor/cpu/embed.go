package cpu

import "github.com/herdtrain/herd/tensor"

// Embed copies rows of w.
func (d *Device) Embed(q tensor.Queue, x, w tensor.Mat, ids tensor.Buffer) {
	check("Embed(x, w, ids)", x.Cols == w.Cols && x.DType() == w.DType() && holds(ids, tensor.I32, x.Rows),
		x, w, vector(ids))
	split(q, x.Rows, d.rowGrain(x.Cols), func(i0, i1 int) {
		for i, id := range tensor.Host[int32](ids)[i0:i1] {
			to := tensor.HostBytes(x.RowRange(i0+i, i0+i+1).Buffer)
			if inRange(id, w.Rows) {
				copy(to, tensor.HostBytes(w.RowRange(int(id), int(id)+1).Buffer))
			} else {
				clear(to)
			}
		}
	})
}

// EmbedBackward shares out the columns, so that one thread adds all tokens, in order, to an element.
func (d *Device) EmbedBackward(q tensor.Queue, dw, dx tensor.Mat, ids tensor.Buffer) {
	check("EmbedBackward(dw, dx, ids)", dw.Cols == dx.Cols && dw.DType() == dx.DType().Accum() &&
		holds(ids, tensor.I32, dx.Rows), dw, dx, vector(ids))
	split(q, dw.Cols, columnGrain, func(j0, j1 int) {
		dw, dx := dw.ColRange(j0, j1), dx.ColRange(j0, j1)
		switch {
		case dw.DType() == tensor.F64:
			embedBackward[float64](d, dw, dx, ids)
		case d.c == nil:
			embedBackward[float32](d, dw, dx, ids)
		default:
			d.c.embedBackward(dw, dx, ids)
		}
	})
}

func embedBackward[A float](d *Device, dw, dx tensor.Mat, ids tensor.Buffer) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	buf := floats[A](s, dx.Cols)
	to, from := rowsOf[A](dw), rowsOf[A](dx)
	for i, id := range tensor.Host[int32](ids) {
		if inRange(id, dw.Rows) {
			add(to.read(int(id), nil), from.read(i, buf))
		}
	}
}

// add sets dst += v.
func add[A float](dst, v []A) {
	dst = dst[:len(v)]
	for i, x := range v {
		dst[i] += x
	}
}
