package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// sumBlock is the elements whose sum is one term of Sum and SumSquares.
const sumBlock = 4096

// Sum adds the elements of each block of sumBlock, then the blocks in order, all in float64.
func (d *Device) Sum(q tensor.Queue, out, x tensor.Buffer) {
	d.sumBlocks(q, "Sum(out, x)", out, x, false)
}

// SumSquares adds in the order of Sum.
func (d *Device) SumSquares(q tensor.Queue, out, x tensor.Buffer) {
	d.sumBlocks(q, "SumSquares(out, x)", out, x, true)
}

func (d *Device) sumBlocks(q tensor.Queue, op string, out, x tensor.Buffer, squares bool) {
	check(op, holds(out, tensor.F64, 1) && like(x.DType(), 0, 0), vector(out), vector(x))
	parts := make([]float64, (x.Len()+sumBlock-1)/sumBlock)
	split(q, len(parts), max(1, d.elementGrain()/sumBlock), func(i0, i1 int) {
		if d.c != nil && x.DType() != tensor.F64 {
			d.c.sum(parts[i0:i1], x.Slice(i0*sumBlock, min(i1*sumBlock, x.Len())), squares)
			return
		}
		s := d.scratches.take()
		defer d.scratches.give(s)
		for i := i0; i < i1; i++ {
			block := vector(x.Slice(i*sumBlock, min((i+1)*sumBlock, x.Len())))
			if x.DType() == tensor.F64 {
				parts[i] = sumBlock64(rowsOf[float64](block).read(0, nil), squares)
			} else {
				parts[i] = sumBlock64(rowsOf[float32](block).read(0, floats[float32](s, sumBlock)), squares)
			}
		}
	})
	split(q, 1, 1, func(_, _ int) {
		total := tensor.Host[float64](out)
		for _, p := range parts {
			total[0] += p
		}
	})
}

func sumBlock64[A float](v []A, squares bool) float64 {
	var s0, s1, s2, s3 float64
	for ; len(v) >= 4; v = v[4:] {
		a, b, c, d := float64(v[0]), float64(v[1]), float64(v[2]), float64(v[3])
		if squares {
			a, b, c, d = a*a, b*b, c*c, d*d
		}
		s0, s1, s2, s3 = s0+a, s1+b, s2+c, s3+d
	}
	for _, x := range v {
		a := float64(x)
		if squares {
			a *= a
		}
		s0 += a
	}
	return (s0 + s1) + (s2 + s3)
}

// Gate decides whether, and by what factor, a gradient is applied.
func (d *Device) Gate(q tensor.Queue, gate, loss, sq tensor.Buffer, maxNorm float64) {
	check("Gate(gate, loss, sq)", holds(gate, tensor.F64, 2) && holds(loss, tensor.F64, 1) && holds(sq, tensor.F64, 1),
		vector(gate), vector(loss), vector(sq))
	split(q, 1, 1, func(_, _ int) {
		gate, loss, sq := tensor.Host[float64](gate), tensor.Host[float64](loss)[0], tensor.Host[float64](sq)[0]
		gate[0], gate[1] = 1, 0
		if maxNorm != 0 {
			gate[0] = min(1, maxNorm/(math.Sqrt(sq)+1e-6))
		}
		if finite(loss) && finite(sq) {
			gate[1] = 1
		}
	})
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
