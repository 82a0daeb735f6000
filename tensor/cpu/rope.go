package cpu

import "github.com/herdtrain/herd/tensor"

// RoPE is Su et al. 2021 in the pairing of Hugging Face.
func (d *Device) RoPE(q tensor.Queue, x tensor.Mat, pos, table tensor.Buffer, headDim int, inverse bool) {
	dt := x.DType()
	check("RoPE(x, pos, table)", like(dt, x.Rows, x.Cols) && headDim > 0 && headDim%2 == 0 && x.Cols%headDim == 0 &&
		holds(pos, tensor.I32, x.Rows) && table.DType() == dt.Accum() && table.Len()%headDim == 0,
		x, vector(pos), vector(table))
	split(q, x.Rows, d.rowGrain(x.Cols), func(i0, i1 int) {
		for _, p := range tensor.Host[int32](pos)[i0:i1] {
			checkIndex("RoPE", "position", p, table.Len()/headDim)
		}
		switch {
		case dt == tensor.F64:
			rope[float64](d, x, pos, table, headDim, inverse, i0, i1)
		case d.c == nil:
			rope[float32](d, x, pos, table, headDim, inverse, i0, i1)
		default:
			d.c.rope(x.RowRange(i0, i1), pos.Slice(i0, i1), table, headDim, inverse)
		}
	})
}

func rope[A float](d *Device, x tensor.Mat, pos, table tensor.Buffer, headDim int, inverse bool, i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	buf := floats[A](s, x.Cols)
	xs, angles, half := rowsOf[A](x), tensor.Host[A](table), headDim/2
	sign := A(1)
	if inverse {
		sign = -1
	}
	for i, p := range tensor.Host[int32](pos)[i0:i1] {
		angle := angles[int(p)*headDim:][:headDim]
		row := xs.read(i0+i, buf)
		for h := 0; h < len(row); h += headDim {
			lo, hi := row[h:][:half], row[h+half:][:half]
			for j, a := range lo {
				b, cos, sin := hi[j], angle[2*j], sign*angle[2*j+1]
				lo[j] = a*cos - b*sin
				hi[j] = b*cos + a*sin
			}
		}
		xs.store(i0+i, row)
	}
}
