package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// attention is a case of Attention. The matrices of q, k, v have the rows and columns of the device's.
type attention struct {
	tensor.AttentionShape
	first []int32 // nil: all zeros
}

// probabilities is the softmax of query head h at row i (of all sequences): element j belongs to key j of the same
// sequence, 0 where it is not visible. lse is the logarithm of the softmax's denominator.
func (a attention) probabilities(q, k []float64, h, i int) (p []float64, lse float64) {
	p = make([]float64, a.Length)
	batch, t, lo := i/a.Length, i%a.Length, 0
	if a.first != nil {
		lo = int(a.first[i])
	}
	if a.Window > 0 {
		lo = max(lo, t-a.Window+1)
	}
	kv := h / (a.Heads / a.KVHeads)
	var sum float64
	for j := lo; j <= t; j++ {
		key := k[((batch*a.Length+j)*a.KVHeads+kv)*a.HeadDim:][:a.HeadDim]
		p[j] = math.Exp(inner(key, q[(i*a.Heads+h)*a.HeadDim:][:a.HeadDim]) * a.Scale)
		sum += p[j]
	}
	for j := range p {
		p[j] /= sum
	}
	return p, math.Log(sum)
}

// forward is o and lse.
func (a attention) forward(q, k, v []float64) (o, lse []float64) {
	n, d := a.Batch*a.Length, a.HeadDim
	o, lse = make([]float64, n*a.Heads*d), make([]float64, n*a.Heads)
	for i := range n {
		for h := range a.Heads {
			p, l := a.probabilities(q, k, h, i)
			lse[(i/a.Length*a.Heads+h)*a.Length+i%a.Length] = l
			for j, x := range p {
				value := v[a.key(i, h, j):][:d]
				for c, y := range value {
					o[(i*a.Heads+h)*d+c] += x * y
				}
			}
		}
	}
	return o, lse
}

// key is where in k and v key j of the sequence of row i begins, for query head h.
func (a attention) key(i, h, j int) int {
	return ((i/a.Length*a.Length+j)*a.KVHeads + h/(a.Heads/a.KVHeads)) * a.HeadDim
}

// backward is the gradients of q, k and v.
func (a attention) backward(do, o, q, k, v []float64) (dq, dk, dv []float64) {
	d := a.HeadDim
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	for i := range a.Batch * a.Length {
		for h := range a.Heads {
			at := (i*a.Heads + h) * d
			p, _ := a.probabilities(q, k, h, i)
			delta := inner(do[at:][:d], o[at:][:d])
			for j, x := range p {
				kv := a.key(i, h, j)
				ds := x * (inner(do[at:][:d], v[kv:][:d]) - delta) * a.Scale
				for c := range d {
					dq[at+c] += ds * k[kv+c]
					dk[kv+c] += ds * q[at+c]
					dv[kv+c] += x * do[at+c]
				}
			}
		}
	}
	return dq, dk, dv
}

// attentionCase draws a shape, with documents and a window in half of the cases each.
func (s *suite) attentionCase() attention {
	kv := s.size(3, 2)
	a := attention{AttentionShape: tensor.AttentionShape{Batch: s.size(3, 1), Length: s.size(40, 100), KVHeads: kv,
		Heads: kv * (1 + s.rng.IntN(3)), HeadDim: 2 * s.size(9, 8)}}
	a.Scale = 1 / math.Sqrt(float64(a.HeadDim))
	if s.rng.IntN(2) == 0 {
		a.Window = 1 + s.rng.IntN(a.Length)
	}
	if s.rng.IntN(2) == 0 {
		a.first = make([]int32, a.Batch*a.Length)
		for i := range a.first {
			if t := i % a.Length; t > 0 {
				a.first[i] = a.first[i-1]
				if s.rng.IntN(5) == 0 {
					a.first[i] = int32(t)
				}
			}
		}
		a.First = s.putInts(a.first)
	}
	return a
}

func testAttention(s *suite) {
	a := s.attentionCase()
	acc, n := s.dt.Accum(), a.Batch*a.Length
	qd, kd := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	qv, kv, vv := s.random(s.dt, n*qd, 1), s.random(s.dt, n*kd, 1), s.random(s.dt, n*kd, 1)
	qkv := s.grid(s.dt, n, qd+2*kd, beside(n, qv, kv, vv)) // as a model keeps them
	q, k, v := qkv.ColRange(0, qd), qkv.ColRange(qd, qd+kd), qkv.ColRange(qd+kd, qd+2*kd)
	o, lse := s.blank(s.dt, n, qd), s.put(acc, make([]float64, n*a.Heads))
	s.dev.Attention(s.q, o.Mat, lse, q, k, v, a.AttentionShape)
	wantO, wantLSE := a.forward(qv, kv, vv)
	ov := s.getGrid(o)
	s.near("o", s.dt, ov, wantO)
	s.near("lse", acc, s.get(lse), wantLSE)

	dov := s.random(s.dt, n*qd, 1)
	dqkv := s.blank(s.dt, n, qd+2*kd)
	s.dev.AttentionBackward(s.q, dqkv.ColRange(0, qd), dqkv.ColRange(qd, qd+kd), dqkv.ColRange(qd+kd, qd+2*kd),
		s.grid(s.dt, n, qd, dov).Mat, o.Mat, lse, q, k, v, a.AttentionShape)
	got := s.getGrid(dqkv)
	wantDq, wantDk, wantDv := a.backward(dov, ov, qv, kv, vv)
	s.near("dq, dk, dv", s.dt, got, beside(n, wantDq, wantDk, wantDv))
	if s.dt == tensor.F64 && !s.large {
		loss := func(in [][]float64) float64 {
			q, k, v := apart(n, in[0], qd, kd)
			o, _ := a.forward(q, k, v)
			return inner(o, dov)
		}
		s.derivative("q, k, v", loss, [][]float64{beside(n, qv, kv, vv)}, [][]float64{got})
	}
}

// testLargeScores has all scores at 256, whose exponential no F32 holds: o is the mean of the visible values.
func testLargeScores(s *suite) {
	const n, d = 70, 4
	sixteen, vv := make([]float64, n*d), s.random(s.dt, n*d, 1)
	wantO, wantLSE := make([]float64, n*d), make([]float64, n)
	for i := range sixteen {
		sixteen[i] = 16
	}
	for t := range n {
		for i := range (t + 1) * d {
			wantO[t*d+i%d] += vv[i] / float64(t+1)
		}
		wantLSE[t] = 256 + math.Log(float64(t+1))
	}
	q, k, v, o := s.grid(s.dt, n, d, sixteen), s.grid(s.dt, n, d, sixteen), s.grid(s.dt, n, d, vv), s.blank(s.dt, n, d)
	lse := s.alloc(s.dt.Accum(), n)
	s.dev.Attention(s.q, o.Mat, lse, q.Mat, k.Mat, v.Mat,
		tensor.AttentionShape{Batch: 1, Length: n, Heads: 1, KVHeads: 1, HeadDim: d, Scale: 0.25})
	s.near("o", s.dt, s.getGrid(o), wantO)
	s.near("lse", lse.DType(), s.get(lse), wantLSE)
}

// beside joins matrices of n rows row by row.
func beside(n int, ms ...[]float64) []float64 {
	var out []float64
	for i := range n {
		for _, m := range ms {
			cols := len(m) / n
			out = append(out, m[i*cols:][:cols]...)
		}
	}
	return out
}

// apart is the inverse of beside for q of qd columns and k, v of kd.
func apart(n int, m []float64, qd, kd int) (q, k, v []float64) {
	for i := range n {
		row := m[i*(qd+2*kd):][:qd+2*kd]
		q, k, v = append(q, row[:qd]...), append(k, row[qd:qd+kd]...), append(v, row[qd+kd:]...)
	}
	return q, k, v
}
