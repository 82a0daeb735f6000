package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// attention is a case of Attention. The matrices of q, k, v have the rows and columns of the device's.
type attention struct {
	tensor.AttentionShape         // with Keys
	first                 []int32 // nil: all zeros
}

// probabilities is the softmax of query head h at row i (of all sequences): element j belongs to key j of the same
// sequence, 0 where it is not visible. lse is the logarithm of the softmax's denominator.
func (a attention) probabilities(q, k []float64, h, i int) (p []float64, lse float64) {
	p = make([]float64, a.Keys)
	batch, t, lo := i/a.Length, a.Offset+i%a.Length, 0 // positions
	if a.first != nil {
		lo = int(a.first[i])
	}
	if a.Window > 0 {
		lo = max(lo, t-a.Window+1)
	}
	kv := h / (a.Heads / a.KVHeads)
	var sum float64
	for j := max(lo-a.Start, 0); j < min(t+1-a.Start, a.Keys); j++ {
		key := k[((batch*a.Keys+j)*a.KVHeads+kv)*a.HeadDim:][:a.HeadDim]
		p[j] = math.Exp(inner(key, q[(i*a.Heads+h)*a.HeadDim:][:a.HeadDim]) * a.Scale)
		sum += p[j]
	}
	for j := range p {
		if sum > 0 {
			p[j] /= sum
		}
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
	return ((i/a.Length*a.Keys+j)*a.KVHeads + h/(a.Heads/a.KVHeads)) * a.HeadDim
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

// attentionCase draws a shape, with documents, a window, and more keys than queries in half of the cases each.
func (s *suite) attentionCase() attention {
	kv := s.size(3, 2)
	a := attention{AttentionShape: tensor.AttentionShape{Batch: s.size(3, 1), Length: s.size(40, 100), KVHeads: kv,
		Heads: kv * (1 + s.rng.IntN(3)), HeadDim: 2 * s.size(9, 8)}}
	a.Scale = 1 / math.Sqrt(float64(a.HeadDim))
	a.Keys = a.Length
	switch s.rng.IntN(3) {
	case 0:
		a.Offset = s.size(40, 100)
		a.Keys += a.Offset + s.rng.IntN(9)
	case 1: // of a piece of the keys, which may all be before the queries
		a.Offset = s.size(40, 100)
		a.Start = s.rng.IntN(a.Offset + 1)
		a.Keys = s.size(40, 100)
	}
	if s.rng.IntN(2) == 0 {
		a.Window = 1 + s.rng.IntN(a.Offset+a.Length)
	}
	if s.rng.IntN(2) == 0 {
		a.first = make([]int32, a.Batch*a.Length)
		for i := range a.first {
			t := a.Offset + i%a.Length
			if t > a.Offset {
				a.first[i] = a.first[i-1]
			}
			if s.rng.IntN(5) == 0 {
				a.first[i] = int32(t)
			}
		}
		a.First = s.putInts(a.first)
	}
	return a
}

func testAttention(s *suite) {
	a := s.attentionCase()
	shape := a.AttentionShape
	if a.Keys == a.Length && a.Offset == 0 {
		shape.Keys = 0
	}
	acc, n, m := s.dt.Accum(), a.Batch*a.Length, a.Batch*a.Keys
	qd, kd := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	qv, kv, vv := s.random(s.dt, n*qd, 1), s.random(s.dt, m*kd, 1), s.random(s.dt, m*kd, 1)
	q, both := s.grid(s.dt, n, qd, qv), s.grid(s.dt, m, 2*kd, beside(m, kv, vv)) // k and v as a model keeps them
	k, v := both.ColRange(0, kd), both.ColRange(kd, 2*kd)
	o, lse := s.blank(s.dt, n, qd), s.put(acc, make([]float64, n*a.Heads))
	s.dev.Attention(s.q, o.Mat, lse, q.Mat, k, v, shape)
	wantO, wantLSE := a.forward(qv, kv, vv)
	ov := s.getGrid(o)
	s.near("o", s.dt, ov, wantO)
	s.near("lse", acc, s.get(lse), wantLSE)

	dov := s.random(s.dt, n*qd, 1)
	dq, dkv := s.blank(s.dt, n, qd), s.blank(s.dt, m, 2*kd)
	s.dev.AttentionBackward(s.q, dq.Mat, dkv.ColRange(0, kd), dkv.ColRange(kd, 2*kd), s.grid(s.dt, n, qd, dov).Mat, o.Mat,
		lse, q.Mat, k, v, shape)
	gotDq, gotDkv := s.getGrid(dq), s.getGrid(dkv)
	wantDq, wantDk, wantDv := a.backward(dov, ov, qv, kv, vv)
	s.near("dq", s.dt, gotDq, wantDq)
	s.near("dk, dv", s.dt, gotDkv, beside(m, wantDk, wantDv))
	if s.dt == tensor.F64 && !s.large {
		loss := func(in [][]float64) float64 {
			o, _ := a.forward(in[0], in[1], in[2])
			return inner(o, dov)
		}
		dk, dv := apart(m, gotDkv)
		s.derivative("q, k, v", loss, [][]float64{qv, kv, vv}, [][]float64{gotDq, dk, dv})
	}
}

// testAttentionInParts cuts the queries of a sequence in two: the parts' rows of o, lse and dq are those of the whole,
// and their shares of dk and dv add up to its.
func testAttentionInParts(s *suite) {
	a := s.attentionCase()
	shape := a.AttentionShape
	shape.Batch, shape.Length, shape.Offset, shape.Start, shape.First = 1, a.Keys, 0, 0, tensor.Buffer{}
	n, qd, kd := a.Keys, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	q, k, v := s.blank(s.dt, n, qd), s.blank(s.dt, n, kd), s.blank(s.dt, n, kd)
	do := s.blank(s.dt, n, qd)
	run := func(i, j int) (o, lse, dq, dk, dv []float64) {
		part := shape
		part.Length, part.Keys, part.Offset = j-i, n, i
		om, l := s.blank(s.dt, j-i, qd), s.alloc(s.dt.Accum(), (j-i)*a.Heads)
		dqm, dkm, dvm := s.blank(s.dt, j-i, qd), s.blank(s.dt, n, kd), s.blank(s.dt, n, kd)
		s.dev.Attention(s.q, om.Mat, l, q.RowRange(i, j), k.Mat, v.Mat, part)
		s.dev.AttentionBackward(s.q, dqm.Mat, dkm.Mat, dvm.Mat, do.RowRange(i, j), om.Mat, l, q.RowRange(i, j), k.Mat, v.Mat,
			part)
		return s.getGrid(om), s.get(l), s.getGrid(dqm), s.getGrid(dkm), s.getGrid(dvm)
	}
	cut := s.rng.IntN(n + 1)
	o, lse, dq, dk, dv := run(0, n)
	o1, lse1, dq1, dk1, dv1 := run(0, cut)
	o2, lse2, dq2, dk2, dv2 := run(cut, n)
	s.near("o", s.dt, append(o1, o2...), o)
	s.near("dq", s.dt, append(dq1, dq2...), dq)
	var parts []float64
	for h := range a.Heads {
		parts = append(append(parts, lse1[h*cut:][:cut]...), lse2[h*(n-cut):][:n-cut]...)
	}
	s.near("lse", s.dt.Accum(), parts, lse)
	for i := range dk1 {
		dk1[i] += dk2[i]
		dv1[i] += dv2[i]
	}
	// Each of the parts is rounded, and so is the whole.
	if s.dt != tensor.BF16 {
		s.near("dk", s.dt, dk1, dk)
		s.near("dv", s.dt, dv1, dv)
	}
}

// testAttentionOfPieces cuts the keys of the later queries of a sequence in two: what both pieces give is merged into the
// whole's o and lse, from which the pieces' dq add up to its, and their dk and dv follow one another.
func testAttentionOfPieces(s *suite) {
	a := s.attentionCase()
	shape, acc := a.AttentionShape, s.dt.Accum()
	n, qd, kd := s.size(40, 100)+1, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	cut := 1 + s.rng.IntN(n-1)
	shape.Batch, shape.Length, shape.Keys, shape.Offset, shape.Start, shape.First = 1, n-cut, n, cut, 0, tensor.Buffer{}
	if s.rng.IntN(2) == 0 {
		first := make([]int32, n-cut)
		for i := range first {
			first[i] = int32(s.rng.IntN(cut + i + 1))
		}
		shape.First = s.putInts(first)
	}
	q, k, v, do := s.blank(s.dt, n-cut, qd), s.blank(s.dt, n, kd), s.blank(s.dt, n, kd), s.blank(s.dt, n-cut, qd)
	o, lse := s.blank(s.dt, n-cut, qd), s.alloc(acc, (n-cut)*a.Heads)
	dq, dk, dv := s.blank(acc, n-cut, qd), s.blank(acc, n, kd), s.blank(acc, n, kd)
	s.dev.Attention(s.q, o.Mat, lse, q.Mat, k.Mat, v.Mat, shape)
	s.dev.AttentionBackward(s.q, dq.Mat, dk.Mat, dv.Mat, do.Mat, o.Mat, lse, q.Mat, k.Mat, v.Mat, shape)

	merged, mergedLSE := s.blank(acc, n-cut, qd), s.alloc(acc, lse.Len())
	s.dev.Fill(s.q, merged.whole, guard)
	s.dev.Fill(s.q, mergedLSE, math.Inf(-1))
	for i := range n - cut {
		s.dev.Fill(s.q, merged.RowRange(i, i+1).Buffer, 0)
	}
	sum, dkPieces, dvPieces := make([]float64, (n-cut)*qd), []float64{}, []float64{}
	for _, r := range [][2]int{{0, cut}, {cut, n}} {
		i, j := r[0], r[1]
		piece := shape
		piece.Start, piece.Keys = i, j-i
		om, l := s.blank(acc, n-cut, qd), s.alloc(acc, lse.Len())
		s.dev.Attention(s.q, om.Mat, l, q.Mat, k.RowRange(i, j), v.RowRange(i, j), piece)
		s.dev.MergeAttention(s.q, merged.Mat, mergedLSE, om.Mat, l)
		dqm, dkm, dvm := s.blank(acc, n-cut, qd), s.blank(acc, j-i, kd), s.blank(acc, j-i, kd)
		s.dev.AttentionBackward(s.q, dqm.Mat, dkm.Mat, dvm.Mat, do.Mat, o.Mat, lse, q.Mat, k.RowRange(i, j), v.RowRange(i, j),
			piece)
		for i, x := range s.getGrid(dqm) {
			sum[i] += x
		}
		dkPieces, dvPieces = append(dkPieces, s.getGrid(dkm)...), append(dvPieces, s.getGrid(dvm)...)
	}
	s.near("merged o", s.dt, s.getGrid(o), s.getGrid(merged))
	s.near("merged lse", acc, s.get(mergedLSE), s.get(lse))
	s.near("sum of dq", acc, sum, s.getGrid(dq))
	s.near("dk", acc, dkPieces, s.getGrid(dk))
	s.near("dv", acc, dvPieces, s.getGrid(dv))
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

// apart takes a matrix of n rows apart into its left and its right half.
func apart(n int, m []float64) (left, right []float64) {
	half := len(m) / n / 2
	for i := range n {
		row := m[2*i*half:][:2*half]
		left, right = append(left, row[:half]...), append(right, row[half:]...)
	}
	return left, right
}
