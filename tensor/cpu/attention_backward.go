package cpu

import "github.com/herdtrain/herd/tensor"

// AttentionBackward is algorithm 4 of FlashAttention (Dao 2022), which recomputes the probabilities from lse. A KV head
// of a sequence is a piece of work: its query heads, key blocks and query blocks go in order.
func (d *Device) AttentionBackward(q tensor.Queue, dq, dk, dv, do, o tensor.Mat, lse tensor.Buffer, qm, k, v tensor.Mat,
	s tensor.AttentionShape) {
	s = withKeys(s)
	check("AttentionBackward(dq, dk, dv, do, o, q, k, v, lse, first)",
		attentionFits(s, lse, []tensor.Mat{qm, do, o}, []tensor.Mat{k, v}, []tensor.Mat{dq}, []tensor.Mat{dk, dv}),
		dq, dk, dv, do, o, qm, k, v, vector(lse), vector(s.First))
	group := s.Heads / s.KVHeads
	split(q, s.Batch*s.KVHeads, attentionGrain(s, 5*group*s.Length), func(u0, u1 int) {
		for u := u0; u < u1; u++ {
			h := head{s, u / s.KVHeads, u % s.KVHeads * group}
			switch {
			case qm.DType() == tensor.F64:
				attendBackward[float64](d, h, dq, dk, dv, do, o, lse, qm, k, v)
			case d.c == nil:
				attendBackward[float32](d, h, dq, dk, dv, do, o, lse, qm, k, v)
			default:
				work := d.scratches.take()
				d.c.attentionBackward(h.queries(dq), h.key(dk), h.key(dv), h.queries(do), h.queries(o), h.statistics(lse, group),
					h.queries(qm), h.key(k), h.key(v), h.shape(), floats[float32](work, d.c.attentionBackwardWorkspace(s)))
				d.scratches.give(work)
			}
		}
	})
}

// queries is the part of m [Batch·Length, Heads·HeadDim] that belongs to the query heads of a KV head, h the first.
func (h head) queries(m tensor.Mat) tensor.Mat {
	from, heads := h.head*h.HeadDim, h.Heads/h.KVHeads
	return m.RowRange(h.batch*h.Length, (h.batch+1)*h.Length).ColRange(from, from+heads*h.HeadDim)
}

// attendBackward computes dk and dv of a KV head, and dq of its query heads, the first of which is h.
func attendBackward[A float](d *Device, h head, dq, dk, dv, do, o tensor.Mat, lse tensor.Buffer, q, k, v tensor.Mat) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	dkSum, dvSum, dqSum := newSums[A](s, h.key(dk)), newSums[A](s, h.key(dv)), newSums[A](s, h.query(dq))
	dkSum.begin(h.key(dk))
	dvSum.begin(h.key(dv))
	w := backwardTiles[A]{d: d, k: h.key(k), v: h.key(v), dk: dkSum.Mat, dv: dvSum.Mat, delta: floats[A](s, h.Length)}
	w.probability, w.p = scratchMat[A](s, attentionBlock, attentionBlock)
	w.gradient, w.dp = scratchMat[A](s, attentionBlock, attentionBlock)
	buf, dbuf := floats[A](s, h.HeadDim), floats[A](s, h.HeadDim)
	for range h.Heads / h.KVHeads {
		dqSum.begin(h.query(dq))
		w.head, w.q, w.do, w.dq = h, h.query(q), h.query(do), dqSum.Mat
		w.lse = tensor.Host[A](h.statistics(lse, 1))
		os, dos := rowsOf[A](h.query(o)), rowsOf[A](w.do)
		for i := range w.delta {
			w.delta[i] = dot(os.read(i, buf), dos.read(i, dbuf))
		}
		for j0 := 0; j0 < h.Keys; j0 += attentionBlock {
			for i0 := max(0, j0-(h.Offset-h.Start)) / attentionBlock * attentionBlock; i0 < h.Length; i0 += attentionBlock {
				w.add(i0, min(i0+attentionBlock, h.Length), j0, min(j0+attentionBlock, h.Keys))
			}
		}
		dqSum.end()
		h.head++
	}
	dkSum.end()
	dvSum.end()
}

// backwardTiles is the state of attendBackward within one query head. q, do, dq are [Length, HeadDim], the others
// [Keys, HeadDim].
type backwardTiles[A float] struct {
	head
	d           *Device
	q, k, v, do tensor.Mat
	dq, dk, dv  tensor.Mat // of dtype A
	lse, delta  []A        // [Length]; delta is rowsum(do·o)
	probability tensor.Mat // [attentionBlock, attentionBlock]
	gradient    tensor.Mat // of the scores, like probability
	p, dp       []A        // their elements
	first       [attentionBlock]int
}

// add adds the share of queries [i0, i1) and keys [j0, j1).
func (w *backwardTiles[A]) add(i0, i1, j0, j1 int) {
	if w.firstKeys(&w.first, i0, i1) >= j1 || w.lastKey(i1-1) < j0 {
		return
	}
	q, do, k, v := w.q.RowRange(i0, i1), w.do.RowRange(i0, i1), w.k.RowRange(j0, j1), w.v.RowRange(j0, j1)
	probability := w.probability.RowRange(0, i1-i0).ColRange(0, j1-j0)
	gradient := w.gradient.RowRange(0, i1-i0).ColRange(0, j1-j0)
	w.d.product(tensor.NT, probability, q, k, false)
	w.d.product(tensor.NT, gradient, do, v, false)
	scale := A(w.Scale)
	for i := range i1 - i0 {
		first, last := w.first[i]-j0, w.lastKey(i0+i)-j0
		p := visible(w.p[i*attentionBlock:][:j1-j0], first, last)
		dp := visible(w.dp[i*attentionBlock:][:j1-j0], first, last)[:len(p)]
		expScaled(p, p, scale, w.lse[i0+i])
		delta := w.delta[i0+i]
		for j, x := range p {
			dp[j] = x * (dp[j] - delta) * scale
		}
	}
	w.d.product(tensor.TN, w.dv.RowRange(j0, j1), probability, do, true)
	w.d.product(tensor.TN, w.dk.RowRange(j0, j1), gradient, q, true)
	w.d.product(tensor.NN, w.dq.RowRange(i0, i1), gradient, k, true)
}

// sums is a matrix of A to add into: the destination itself if it holds A, else scratch that is rounded into it.
type sums[A float] struct {
	tensor.Mat
	to tensor.Mat
}

// newSums makes sums for destinations like to.
func newSums[A float](s *scratch, to tensor.Mat) *sums[A] {
	if to.DType() != tensor.BF16 {
		return &sums[A]{}
	}
	m, _ := scratchMat[A](s, to.Rows, to.Cols)
	return &sums[A]{Mat: m}
}

// begin sets the sums for to to 0.
func (m *sums[A]) begin(to tensor.Mat) {
	m.to = to
	if to.DType() != tensor.BF16 {
		m.Mat = to
	}
	r := rowsOf[A](m.Mat)
	for i := range m.Rows {
		clear(r.read(i, nil))
	}
}

// end stores the sums in the destination.
func (m *sums[A]) end() {
	from, to := rowsOf[A](m.Mat), rowsOf[A](m.to)
	for i := range m.Rows {
		to.store(i, from.read(i, nil))
	}
}
