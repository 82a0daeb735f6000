package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// CrossEntropy works row by row, in three passes: largest logit, exponentials and their sum, gradient.
func (d *Device) CrossEntropy(q tensor.Queue, loss tensor.Buffer, logits tensor.Mat, targets tensor.Buffer,
	scale float64, grad bool) {
	dt := logits.DType()
	check("CrossEntropy(loss, logits, targets)", like(dt, logits.Rows, logits.Cols, logits) && logits.Cols > 0 &&
		holds(loss, dt.Accum(), logits.Rows) && holds(targets, tensor.I32, logits.Rows),
		vector(loss), logits, vector(targets))
	split(q, logits.Rows, d.rowGrain(logits.Cols), func(i0, i1 int) {
		for _, target := range tensor.Host[int32](targets)[i0:i1] {
			checkIndex("CrossEntropy", "target", max(0, target), logits.Cols)
		}
		switch {
		case dt == tensor.F64:
			crossEntropy[float64](d, loss, logits, targets, scale, grad, i0, i1)
		case d.c == nil:
			crossEntropy[float32](d, loss, logits, targets, float32(scale), grad, i0, i1)
		default:
			s := d.scratches.take()
			defer d.scratches.give(s)
			parts := floats[float64](s, 2*(i1-i0))
			d.c.crossEntropy(parts, logits.RowRange(i0, i1), targets.Slice(i0, i1), scale, grad)
			for i := range i1 - i0 {
				tensor.Host[float32](loss)[i0+i] = float32(math.Log(parts[2*i]) + parts[2*i+1])
			}
		}
	})
}

func crossEntropy[A float](d *Device, loss tensor.Buffer, logits tensor.Mat, targets tensor.Buffer, scale A, grad bool,
	i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	buf, e := floats[A](s, logits.Cols), floats[A](s, logits.Cols)
	xs, losses := rowsOf[A](logits), tensor.Host[A](loss)
	for i, target := range tensor.Host[int32](targets)[i0:i1] {
		i += i0
		row := xs.read(i, buf)
		if target < 0 {
			losses[i] = 0
			if grad {
				clear(row)
				xs.store(i, row)
			}
			continue
		}
		top := largest(row)
		expScaled(e, row, 1, top)
		total := sum(e)
		losses[i] = A(math.Log(float64(total)) + float64(top) - float64(row[target]))
		if grad {
			factor := scale / total
			for j, v := range e {
				row[j] = v * factor
			}
			row[target] = (e[target]/total - 1) * scale
			xs.store(i, row)
		}
	}
}

func largest[A float](v []A) A {
	top := v[0]
	for _, x := range v {
		if x > top {
			top = x
		}
	}
	return top
}
