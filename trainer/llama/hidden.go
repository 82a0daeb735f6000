package llama

import (
	"slices"

	"github.com/herdtrain/herd/tensor"
)

// HiddenLeaves is into how many ranges the columns of the FFN, and the vocabulary, are cut for the leaves of sums over
// them in canonical numerics; range i of n items is Leaf(n, HiddenLeaves, i). The leaves of sums over attention are heads.
const HiddenLeaves = 16

// Leaf is the items [lo, hi) of range i of n that are cut into so many ranges: even to one, the first ones longer. It may
// be empty.
func Leaf(n, ranges, i int) Items {
	cut := func(i int) int { return n/ranges*i + min(i, n%ranges) }
	return Items{cut(i), cut(i + 1)}
}

// HiddenSums adds up, in canonical numerics, what tensor- or context-parallel ranks have of a sum: as a tree over leaves
// each of which one of them computes. All ranks call it for the same leaves in the same order, a lone one too.
type HiddenSums interface {
	// Tell gives all ranks x of one of them; on the others x is overwritten.
	Tell(x tensor.Buffer, rank int)
	// Add is Tell of the next leaf of a sum, acc, and adds it.
	Add(x tensor.Buffer, rank int)
	// Sum sets out, of any dtype, to the sum of what was added, rounded once.
	Sum(out tensor.Mat)
	// LogSumExp sets lse, acc [n], from those of parts of the logits, acc [parts·n].
	LogSumExp(lse, parts tensor.Buffer)
}

// hiddenLeaf is one leaf of a sum over heads or columns.
type hiddenLeaf struct {
	rank int     // that has it
	cols []Items // this rank's columns whose products it is the sum of, in this order; nil on a rank that has it not
}

// hiddenLeaves are those of a layer's products, and of the head's.
type hiddenLeaves struct {
	query, ffn, gateUp, qkv, vocab []hiddenLeaf
}

// newHiddenLeaves are the leaves of a model, for a rank with share s of it. all are the shares of all ranks.
func newHiddenLeaves(c Config, s Share, all []Share) (l hiddenLeaves) {
	leaf := func(has func(Share) bool, cols ...Items) hiddenLeaf {
		if !has(s) {
			cols = nil
		}
		return hiddenLeaf{slices.IndexFunc(all, has), cols}
	}
	hd, queries, keys := c.HeadDim, s.Query.len(), s.KV.len()
	head := func(i int) Items { return Items{i * hd, (i + 1) * hd} }
	for h := range c.Heads {
		has := func(s Share) bool { return s.Query.Lo <= h && h < s.Query.Hi }
		l.query = append(l.query, leaf(has, head(h-s.Query.Lo)))
	}
	l.qkv = append(l.qkv, l.query...)
	for h := range c.KVHeads {
		has := func(s Share) bool { return s.FirstKV && s.KV.Lo <= h && h < s.KV.Hi }
		l.qkv = append(l.qkv, leaf(has, head(queries+h-s.KV.Lo), head(queries+keys+h-s.KV.Lo)))
	}
	ranges := func(n int, of func(Share) Items, more ...int) (leaves []hiddenLeaf) {
		for i := range HiddenLeaves {
			r := Leaf(n, HiddenLeaves, i)
			if r.len() == 0 {
				continue
			}
			has := func(s Share) bool { return of(s).Lo <= r.Lo && r.Hi <= of(s).Hi }
			first := Items{r.Lo - of(s).Lo, r.Hi - of(s).Lo}
			cols := []Items{first}
			for _, m := range more {
				cols = append(cols, Items{first.Lo + m, first.Hi + m})
			}
			leaves = append(leaves, leaf(has, cols...))
		}
		return leaves
	}
	ffn := func(s Share) Items { return s.FFN }
	l.ffn, l.gateUp = ranges(c.FFN, ffn), ranges(c.FFN, ffn, s.FFN.len())
	l.vocab = ranges(c.Vocab, func(s Share) Items { return s.Vocab })
	return l
}

// product is out = x·w in the form NT or NN, added up over the tensor-parallel ranks, each of which has some of x's
// columns; in canonical numerics leaf by leaf. With sequence parallelism it is of this rank's rows, if out, of all tokens, is
// at the front of a buffer in; a zero Buffer asks for all rows.
func (s *Stage) product(form tensor.GemmForm, out, x, w tensor.Mat, leaves []hiddenLeaf, in tensor.Buffer) {
	if s.hidden == nil {
		s.dev.Gemm(s.q, form, out, x, w, false)
		if s.sequenceParallel && in.Len() > 0 {
			s.scatter(in, out)
		} else {
			s.sum(out)
		}
		return
	}
	for _, l := range leaves {
		leaf := tensor.Matrix(s.leaf.Slice(0, out.Rows*out.Cols), out.Rows, out.Cols)
		for i, c := range l.cols {
			part := w.RowRange
			if form == tensor.NT {
				part = w.ColRange
			}
			s.dev.Gemm(s.q, form, leaf, x.ColRange(c.Lo, c.Hi), part(c.Lo, c.Hi), i > 0)
		}
		s.hidden.Add(leaf.Buffer, l.rank)
	}
	s.hidden.Sum(out)
}

// logSumExp sets lse, acc [rows], of logits, those of the share.
func (s *Stage) logSumExp(lse tensor.Buffer, logits tensor.Mat) {
	if s.hidden == nil {
		s.dev.LogSumExp(s.q, lse, logits)
		s.share.Exchange.LogSumExp(s.q, lse)
		return
	}
	n := logits.Rows
	for i, l := range s.hiddenLeaves.vocab {
		part := s.leaf.Slice(i*n, (i+1)*n)
		for _, c := range l.cols {
			s.dev.LogSumExp(s.q, part, logits.ColRange(c.Lo, c.Hi))
		}
		s.hidden.Tell(part, l.rank)
	}
	s.hidden.LogSumExp(lse, s.leaf.Slice(0, len(s.hiddenLeaves.vocab)*n))
}
