package llama

import "github.com/herdtrain/herd/tensor"

// TokenLeaves is how many ranges of tokens of a sequence are leaves of the sums over tokens in canonical numerics: leaf
// s·TokenLeaves + i is Leaf(length, TokenLeaves, i) of sequence s of the whole batch.
const TokenLeaves = 32

// LeafSums adds up what a layout may spread over ranks and micro-batches, in an order that no layout changes.
type LeafSums interface {
	// Weights takes what the tokens of a leaf add to the gradient of the weights at an offset of Params.Sums. For each
	// offset leaves come in ascending order. x, acc, is overwritten after the return.
	Weights(offset, leaf int, x tensor.Buffer)
	// Losses adds the losses of tokens, acc, to sum, F64 [1].
	Losses(sum, loss tensor.Buffer)
}

// gradient has add compute terms of a gradient from rows [i, j) of the tokens and add them to g, the gradient of the
// weights at p: those of all rows in [from, to) at once, or leaf by leaf.
func (s *Stage) gradient(p span, from, to int, add func(i, j int, g tensor.Buffer)) {
	if s.leaves == nil {
		add(from, to, s.grad(p))
		return
	}
	s.eachLeaf(func(leaf, i, j int) {
		if i < from || j > to {
			return
		}
		g := s.leaf.Slice(0, p.rows*p.cols)
		s.dev.Fill(s.q, g, 0)
		add(i, j, g)
		s.leaves.Weights(p.sum, leaf, g)
	})
}

// eachLeaf calls f with each leaf of the micro-batch and its rows.
func (s *Stage) eachLeaf(f func(leaf, i, j int)) {
	if s.sequence >= 0 {
		s.eachRange(f)
	}
}

// eachRange is eachLeaf also of a micro-batch that counts for nothing.
func (s *Stage) eachRange(f func(leaf, i, j int)) {
	for b := range s.batch {
		for r := range TokenLeaves {
			t := Leaf(s.shape.Keys, TokenLeaves, r)
			if row, ok := s.row(t.Lo); ok && t.len() > 0 {
				row += b * s.length
				f((s.sequence+b)*TokenLeaves+r, row, row+t.len())
			}
		}
	}
}

// eachChunk calls f with rows [i, j) of as many tokens as may have their logits in memory; a leaf's are in one chunk.
func (s *Stage) eachChunk(f func(i, j int)) {
	n := s.batch * s.length
	if s.leaves == nil {
		for i := 0; i < n; i += logitsChunk {
			f(i, min(i+logitsChunk, n))
		}
		return
	}
	s.eachLeaf(func(_, i, j int) { f(i, j) })
}

// weightGradient adds dyᵀ·x, sums over the micro-batch's tokens, to the gradient of the weights at p.
func (s *Stage) weightGradient(p span, dy, x tensor.Mat) {
	s.gradient(p, 0, dy.Rows, func(i, j int, g tensor.Buffer) {
		s.dev.Gemm(s.q, tensor.TN, tensor.Matrix(g, p.rows, p.cols), dy.RowRange(i, j), x.RowRange(i, j), true)
	})
}

// normBackward is RMSNormBackward from the gradient of the norm's output, which is in the workspace, to that of the
// residual, with the weight at p.
func (s *Stage) normBackward(p span, r residual, accumulate bool) {
	dy, dres, w := s.y(), s.kept(s.dres), s.weight(p)
	backward := func(i, j int, g tensor.Buffer) { // rows of all tokens
		k, l := i-s.rows.Lo, j-s.rows.Lo
		s.dev.RMSNormBackward(s.q, dres.RowRange(k, l), g, dy.RowRange(i, j), r.x.RowRange(k, l), w, r.rstd.Slice(k, l),
			accumulate)
	}
	if s.leaves == nil || !s.sequenceParallel {
		s.gradient(p, s.rows.Lo, s.rows.Hi, backward)
		return
	}
	s.eachLeaf(func(leaf, i, j int) { // is told to the other ranks, so that all have the whole sum
		g := s.leaf.Slice(0, p.rows*p.cols)
		rank := 0
		for s.rowsOf(rank, dy.Rows).Hi < j {
			rank++
		}
		if rank == s.share.Rank {
			s.dev.Fill(s.q, g, 0)
			backward(i, j, g)
		}
		s.hidden.Tell(g, rank)
		s.leaves.Weights(p.sum, leaf, g)
	})
}
