package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// LogSumExp is the first two passes of CrossEntropy: largest logit, exponentials and their sum.
func (d *Device) LogSumExp(q tensor.Queue, lse tensor.Buffer, logits tensor.Mat) {
	dt := logits.DType()
	check("LogSumExp(lse, logits)", like(dt, logits.Rows, logits.Cols, logits) && holds(lse, dt.Accum(), logits.Rows),
		vector(lse), logits)
	if logits.Cols == 0 {
		d.Fill(q, lse, math.Inf(-1))
		return
	}
	split(q, logits.Rows, d.rowGrain(logits.Cols), func(i0, i1 int) {
		lse, logits := lse.Slice(i0, i1), logits.RowRange(i0, i1)
		s := d.scratches.take()
		defer d.scratches.give(s)
		switch {
		case dt == tensor.F64:
			logSumExp[float64](s, lse, logits)
		case d.c == nil:
			logSumExp[float32](s, lse, logits)
		default:
			parts := floats[float64](s, 2*logits.Rows)
			d.c.logSumExp(parts, logits)
			for i := range logits.Rows {
				tensor.Host[float32](lse)[i] = float32(math.Log(parts[2*i]) + parts[2*i+1])
			}
		}
	})
}

func logSumExp[A float](s *scratch, lse tensor.Buffer, logits tensor.Mat) {
	buf, e := floats[A](s, logits.Cols), floats[A](s, logits.Cols)
	xs := rowsOf[A](logits)
	for i := range logits.Rows {
		row := xs.read(i, buf)
		top := largest(row)
		if math.IsInf(float64(top), -1) { // the difference of two such logits is not a number
			top = 0
		}
		expScaled(e, row, 1, top)
		tensor.Host[A](lse)[i] = A(math.Log(float64(sum(e))) + float64(top))
	}
}

// CrossEntropyShard works row by row, in one pass.
func (d *Device) CrossEntropyShard(q tensor.Queue, loss tensor.Buffer, logits tensor.Mat, targets, lse tensor.Buffer,
	scale float64, grad bool) {
	dt, n := logits.DType(), logits.Rows
	check("CrossEntropyShard(loss, logits, targets, lse)", like(dt, n, logits.Cols, logits) &&
		holds(loss, dt.Accum(), n) && holds(targets, tensor.I32, n) && holds(lse, dt.Accum(), n),
		vector(loss), logits, vector(targets), vector(lse))
	if logits.Cols == 0 {
		d.Fill(q, loss, 0)
		return
	}
	split(q, n, d.rowGrain(logits.Cols), func(i0, i1 int) {
		loss, logits, targets, lse := loss.Slice(i0, i1), logits.RowRange(i0, i1), targets.Slice(i0, i1), lse.Slice(i0, i1)
		switch {
		case dt == tensor.F64:
			crossEntropyShard[float64](d, loss, logits, targets, lse, scale, grad)
		case d.c == nil:
			crossEntropyShard[float32](d, loss, logits, targets, lse, float32(scale), grad)
		default:
			d.c.crossEntropyShard(loss, logits, targets, lse, scale, grad)
		}
	})
}

func crossEntropyShard[A float](d *Device, loss tensor.Buffer, logits tensor.Mat, targets, lse tensor.Buffer, scale A,
	grad bool) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	buf := floats[A](s, logits.Cols)
	xs, losses := rowsOf[A](logits), tensor.Host[A](loss)
	for i, target := range tensor.Host[int32](targets) {
		row, l, here := xs.read(i, buf), tensor.Host[A](lse)[i], inRange(target, logits.Cols)
		losses[i] = 0
		if here {
			losses[i] = l - row[target]
		}
		if !grad {
			continue
		}
		if target == tensor.NoTarget {
			clear(row)
		} else {
			expScaled(row, row, 1, l)
			if here {
				row[target]--
			}
			for j := range row {
				row[j] *= scale
			}
		}
		xs.store(i, row)
	}
}
