package llama

import "github.com/herdtrain/herd/tensor"

// canonicalAttention is memory of AttentionBackward in canonical numerics, acc. h are the query heads of the share; all
// have keys of their own here, so that each has the gradient of its keys and values apart.
type canonicalAttention struct {
	qkv, dq, o, do tensor.Mat    // of the micro-batch's tokens: [n, (Heads+2·KVHeads)·HeadDim], [n, h·HeadDim]
	keys           tensor.Mat    // of all ranks, [sequences·tokens of one, 2·KVHeads·HeadDim]; none if they are here
	kv             tensor.Mat    // of a sequence, by query head: [tokens, 2·h·HeadDim]
	leaf           tensor.Buffer // like kv, its gradient by a range of tokens
	dkv            tensor.Mat    // its sum, of the micro-batch's tokens: [n, 2·h·HeadDim]
	group          tensor.Buffer // [n·2·HeadDim], the gradient of a KV head by one query head
	lse            tensor.Buffer // [h·tokens of a range]
}

// newCanonicalAttention asks for the memory for a share c of a model and n tokens, of sequences of a length.
func newCanonicalAttention(a *tensor.Arena, acc tensor.DType, c Config, s Size, n int) (w canonicalAttention) {
	alloc := func(name string, n int) tensor.Buffer { return a.Alloc("canonical", "attention/"+name, acc, n) }
	mat := func(name string, rows, cols int) tensor.Mat { return tensor.Matrix(alloc(name, rows*cols), rows, cols) }
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	w.qkv, w.dq, w.o, w.do = mat("qkv", n, qd+2*kd), mat("dq", n, qd), mat("o", n, qd), mat("do", n, qd)
	if s.Spread.Context != nil {
		w.keys = mat("keys", s.Sequences*s.Length, 2*kd)
	}
	w.kv, w.leaf, w.dkv = mat("kv", s.Length, 2*qd), alloc("leaf", s.Length*2*qd), mat("dkv", n, 2*qd)
	w.group = alloc("group", n*2*c.HeadDim)
	w.lse = alloc("lse", c.Heads*Leaf(s.Length, TokenLeaves, 0).len())
	return w
}

// attentionGradient sets dqkv, x, from do.
func (s *Stage) attentionGradient(dqkv, do tensor.Mat, a activations) {
	qm, km, vm := s.columns(a.qkv)
	dq, dk, dv := s.columns(dqkv)
	switch {
	case s.hidden != nil:
		s.canonicalGradient(dqkv, do, a)
	case s.spread.Context != nil:
		s.spread.Context.AttentionBackward(dq, s.keysAndValues(dqkv), do, a.o, a.lse, qm, s.keysAndValues(a.qkv), s.shape)
	default:
		s.dev.AttentionBackward(s.q, dq, dk, dv, do, a.o, a.lse, qm, km, vm, s.shape)
	}
}

// canonicalGradient is attentionGradient in canonical numerics. The gradient of keys and values is, for each query head, a
// tree over the ranges of the tokens that see them, and then one over the query heads of a KV head. It is computed in acc,
// and rounded once; every rank that holds a KV head has it.
func (s *Stage) canonicalGradient(dqkv, do tensor.Mat, a activations) {
	w, c := &s.canonical, s.Config
	hd, qd, group := c.HeadDim, c.Heads*c.HeadDim, s.whole.Heads/s.whole.KVHeads
	widen := func(to, from tensor.Mat) tensor.Mat {
		to = to.RowRange(0, from.Rows)
		s.dev.Copy(s.q, to, from)
		return to
	}
	head := func(m tensor.Mat, h int) tensor.Mat { return m.ColRange(h*hd, (h+1)*hd) }
	qkv, o, dout, dq := widen(w.qkv, a.qkv), widen(w.o, a.o), widen(w.do, do), s.tokens(w.dq)
	q, keys := qkv.ColRange(0, qd), s.keysAndValues(qkv)
	if s.spread.Context != nil {
		keys = widen(w.keys, s.spread.Context.Keys(s.keysAndValues(a.qkv), s.shape))
	}
	length := s.shape.Keys // of a sequence
	kv, leaf := w.kv.RowRange(0, length), tensor.Matrix(w.leaf.Slice(0, length*2*qd), length, 2*qd)
	for b := range s.batch {
		of := keys.RowRange(b*length, (b+1)*length)
		for h := range c.Heads {
			k := (s.share.Query.Lo+h)/group - s.share.KV.Lo
			s.dev.Copy(s.q, head(kv, h), head(of, k))
			s.dev.Copy(s.q, head(kv, c.Heads+h), head(of, c.KVHeads+k))
		}
		for r := range TokenLeaves {
			t := Leaf(length, TokenLeaves, r)
			if t.len() == 0 {
				continue
			}
			if row, ok := s.row(t.Lo); ok {
				i, j := b*s.length+row, b*s.length+row+t.len()
				shape := s.shape
				shape.Batch, shape.Length, shape.Keys, shape.Offset, shape.KVHeads = 1, t.len(), t.Hi, t.Lo, c.Heads
				if s.shape.First.Len() > 0 {
					shape.First = s.shape.First.Slice(i, j)
				}
				seen := leaf.RowRange(0, t.Hi)
				s.dev.AttentionBackward(s.q, dq.RowRange(i, j), seen.ColRange(0, qd), seen.ColRange(qd, 2*qd),
					dout.RowRange(i, j), o.RowRange(i, j), s.statistics(a.lse, b, t), q.RowRange(i, j),
					kv.RowRange(0, t.Hi).ColRange(0, qd), kv.RowRange(0, t.Hi).ColRange(qd, 2*qd), shape)
				s.dev.Fill(s.q, leaf.Buffer.Slice(t.Hi*2*qd, length*2*qd), 0)
			}
			s.spread.Sums.Add(leaf.Buffer, s.spread.owner(t.Lo))
		}
		s.spread.Sums.Sum(leaf)
		row := b * s.length
		for _, p := range s.pieces {
			s.dev.Copy(s.q, w.dkv.RowRange(row, row+p.len()), leaf.RowRange(p.Lo, p.Hi))
			row += p.len()
		}
	}
	s.groupGradient(dqkv, s.tokens(w.dkv))
	s.dev.Copy(s.q, dqkv.ColRange(0, qd), dq)
}

// statistics is what a.lse has of tokens t of sequence b, which are here, acc [Heads, tokens].
func (s *Stage) statistics(lse tensor.Buffer, b int, t Items) tensor.Buffer {
	row, heads := b*s.length, s.Config.Heads
	for _, p := range s.pieces {
		if p.Lo <= t.Lo && t.Hi <= p.Hi {
			whole := tensor.Matrix(lse.Slice(row*heads, (row+p.len())*heads), heads, p.len())
			part := tensor.Matrix(s.canonical.lse.Slice(0, heads*t.len()), heads, t.len())
			s.dev.Copy(s.q, part, whole.ColRange(t.Lo-p.Lo, t.Hi-p.Lo))
			return part.Buffer
		}
		row += p.len()
	}
	panic("llama: a range of tokens that is not here")
}

// groupGradient sets the keys' and values' columns of dqkv, x, from dkv, acc [n, 2·h·HeadDim], those of query heads.
func (s *Stage) groupGradient(dqkv, dkv tensor.Mat) {
	hd, n, group := s.Config.HeadDim, dqkv.Rows, s.whole.Heads/s.whole.KVHeads
	head := func(m tensor.Mat, h int) tensor.Mat { return m.ColRange(h*hd, (h+1)*hd) }
	_, dk, dv := s.columns(dqkv)
	leaf := tensor.Matrix(s.canonical.group.Slice(0, n*2*hd), n, 2*hd)
	for kv := range s.whole.KVHeads {
		for h := kv * group; h < (kv+1)*group; h++ {
			l := s.hiddenLeaves.query[h]
			if len(l.cols) > 0 {
				i := h - s.share.Query.Lo
				s.dev.Copy(s.q, leaf.ColRange(0, hd), head(dkv, i))
				s.dev.Copy(s.q, leaf.ColRange(hd, 2*hd), head(dkv, s.Config.Heads+i))
			}
			s.hidden.Add(leaf.Buffer, l.rank)
		}
		s.hidden.Sum(leaf)
		if local := kv - s.share.KV.Lo; 0 <= local && local < s.share.KV.len() {
			s.dev.Copy(s.q, head(dk, local), leaf.ColRange(0, hd))
			s.dev.Copy(s.q, head(dv, local), leaf.ColRange(hd, 2*hd))
		}
	}
}
