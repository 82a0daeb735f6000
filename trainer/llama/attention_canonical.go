package llama

import "github.com/herdtrain/herd/tensor"

// canonicalAttention is memory of AttentionBackward in canonical numerics, acc. It computes in acc, and rounds sums over
// query heads once.
type canonicalAttention struct {
	qkv, dqkv tensor.Mat    // [n, (Heads+2·KVHeads)·HeadDim]
	o, do     tensor.Mat    // [n, Heads·HeadDim]
	group     tensor.Buffer // [n·2·HeadDim], the gradient of a KV head by one query head
}

// attentionGradient sets dqkv, x, from do. Of the ranks that hold a KV head, each has its gradient, to which every query
// head adds a leaf.
func (s *Stage) attentionGradient(dqkv, do tensor.Mat, a activations) {
	if s.hidden == nil {
		qm, km, vm := s.columns(a.qkv)
		dq, dk, dv := s.columns(dqkv)
		s.dev.AttentionBackward(s.q, dq, dk, dv, do, a.o, a.lse, qm, km, vm, s.shape)
		return
	}
	w, hd, group := s.attend, s.Config.HeadDim, s.whole.Heads/s.whole.KVHeads
	widen := func(to, from tensor.Mat) tensor.Mat {
		n := from.Rows * from.Cols
		s.dev.Cast(s.q, to.Buffer.Slice(0, n), from.Buffer.Slice(0, n))
		return s.tokens(to)
	}
	qm, km, vm := s.columns(widen(w.qkv, a.qkv))
	dq, dk, dv := s.columns(s.tokens(w.dqkv))
	o, dout := widen(w.o, a.o), widen(w.do, do)
	n := dqkv.Rows
	leaf := tensor.Matrix(w.group.Slice(0, n*2*hd), n, 2*hd)
	head := func(m tensor.Mat, h int) tensor.Mat { return m.ColRange(h*hd, (h+1)*hd) }
	for kv := range s.whole.KVHeads {
		local := kv - s.share.KV.Lo
		for h := kv * group; h < (kv+1)*group; h++ {
			has := s.hiddenLeaves.query[h].has
			if has(s.share) {
				i := h - s.share.Query.Lo
				s.headGradient(head(dq, i), leaf.ColRange(0, hd), leaf.ColRange(hd, 2*hd), head(dout, i), head(o, i),
					i, a.lse, head(qm, i), head(km, local), head(vm, local))
			}
			s.hidden.Add(leaf.Buffer, has)
		}
		s.hidden.Sum(leaf)
		if 0 <= local && local < s.share.KV.len() {
			s.hidden.Round(head(dk, local), leaf.ColRange(0, hd))
			s.hidden.Round(head(dv, local), leaf.ColRange(hd, 2*hd))
		}
	}
	s.hidden.Round(dqkv, s.tokens(w.dqkv))
}

// headGradient is AttentionBackward of query head h of the share alone, one sequence after another.
func (s *Stage) headGradient(dq, dk, dv, do, o tensor.Mat, h int, lse tensor.Buffer, q, k, v tensor.Mat) {
	shape := s.shape
	shape.Batch, shape.Heads, shape.KVHeads = 1, 1, 1
	for b := range s.batch {
		i, j := b*s.length, (b+1)*s.length
		if s.shape.First.Len() > 0 {
			shape.First = s.shape.First.Slice(i, j)
		}
		from := (b*s.Config.Heads + h) * s.length
		s.dev.AttentionBackward(s.q, dq.RowRange(i, j), dk.RowRange(i, j), dv.RowRange(i, j), do.RowRange(i, j),
			o.RowRange(i, j), lse.Slice(from, from+s.length), q.RowRange(i, j), k.RowRange(i, j), v.RowRange(i, j), shape)
	}
}
