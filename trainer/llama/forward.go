package llama

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

func (c Config) attentionScale() float64 { return 1 / math.Sqrt(float64(c.HeadDim)) }

// Forward runs the loaded micro-batch through the layers: from the embedding, or from Input, to Output.
func (s *Stage) Forward() {
	first := s.layer(s.lo).in
	s.fetch(s.Params.layers[s.lo].qkv)
	if s.begins {
		x := first.x
		if s.sequenceParallel {
			x = s.delta()
		}
		s.dev.Embed(s.q, x, s.matrix(s.Params.embed), s.perToken(s.ids, 1))
		s.sum(x)
		if s.sequenceParallel {
			s.dev.Copy(s.q, first.x, s.here(x))
		}
	}
	s.normalize(first, s.norm1(s.lo))
	for l := s.lo; l < s.hi; l++ {
		a, p := s.layer(l), s.Params.layers[l]
		if l+1 < s.hi {
			s.fetch(s.Params.layers[l+1].qkv)
		} else if s.ends {
			s.fetch(s.Params.norm)
		}
		s.attention(l, a, p)
		s.addAndNormalize(a.mid, a.in.x, s.weight(p.norm2))
		s.ffn(a, p)
		s.addAndNormalize(s.norms(l+1), a.mid.x, s.norm1(l+1))
	}
}

// attention computes delta from the normed input of layer l.
func (s *Stage) attention(l int, a activations, p layerParams) {
	var qm, km, vm tensor.Mat
	if s.cache == nil {
		qm, km, vm = s.project(a, p)
	} else {
		qm, km, vm = s.cached(l, a, p)
	}
	s.attend(a, qm, km, vm, s.keysAndValues(a.qkv))
	s.product(tensor.NT, s.delta(), a.o, s.matrix(p.o), s.hiddenLeaves.query, s.work.out)
}

// project computes the rotated queries and keys, and the values, from the layer's normed input.
func (s *Stage) project(a activations, p layerParams) (qm, km, vm tensor.Mat) {
	s.dev.Gemm(s.q, tensor.NT, a.qkv, s.y(), s.matrix(p.qkv), false)
	s.dev.RoPE(s.q, s.rotated(a.qkv), s.perToken(s.pos, 1), s.table, s.Config.HeadDim, false)
	return s.columns(a.qkv)
}

// ffn computes delta from the normed mid residual.
func (s *Stage) ffn(a activations, p layerParams) {
	d, q := s.dev, s.q
	d.Gemm(q, tensor.NT, a.gateUp, s.y(), s.matrix(p.gateUp), false)
	d.SwiGLU(q, s.swiglu(), a.gateUp)
	s.product(tensor.NT, s.delta(), s.swiglu(), s.matrix(p.down), s.hiddenLeaves.ffn, s.work.out)
}

// Loss runs the final norm and the head over the output of Forward, in chunks of tokens, and adds the sum of the targets'
// losses to sum, F64 [1]. With grad it also begins Backward: the logits' gradient, times scale, flows into the head's
// weight and the final norm's output.
func (s *Stage) Loss(sum tensor.Buffer, scale float64, grad bool) {
	d, q := s.dev, s.q
	head := s.Params.head
	s.normOutput()
	w := s.matrix(head)
	s.eachChunk(func(i, j int) {
		y, logits := s.work.y.RowRange(i, j), s.logits(j-i)
		d.Gemm(q, tensor.NT, logits, y, w, false)
		s.crossEntropy(i, j, logits, scale, grad)
		if grad {
			s.gradient(head, i, j, func(_, _ int, g tensor.Buffer) {
				d.Gemm(q, tensor.TN, tensor.Matrix(g, head.rows, head.cols), logits, y, true)
			})
			s.product(tensor.NN, y, logits, w, s.hiddenLeaves.vocab, tensor.Buffer{})
		}
	})
	switch loss := s.perToken(s.loss, 1); {
	case s.leaves == nil:
		d.Sum(q, sum, loss)
	case s.sequence >= 0:
		s.leaves.Losses(sum, loss)
	}
}

// crossEntropy computes the losses of rows [i, j), and with grad the gradient of their logits in their place. Of several
// tensor-parallel ranks each has the losses of the targets in its share of the vocabulary.
func (s *Stage) crossEntropy(i, j int, logits tensor.Mat, scale float64, grad bool) {
	loss, targets := s.loss.Slice(i, j), s.targets.Slice(i, j)
	if s.lse.Len() == 0 {
		s.dev.CrossEntropy(s.q, loss, logits, targets, scale, grad)
		return
	}
	lse := s.lse.Slice(0, j-i)
	s.logSumExp(lse, logits)
	s.dev.CrossEntropyShard(s.q, loss, logits, targets, lse, scale, grad)
}

// normOutput runs the final norm. Forward has done so, but since then there may have been other micro-batches.
func (s *Stage) normOutput() {
	s.normalize(s.norm(s.last), s.weight(s.Params.norm))
}

// Logits runs the head over row i, counted over the whole micro-batch, of what Forward has just computed. The result, x
// [1, Vocab], lives until the next call of Logits or Loss.
func (s *Stage) Logits(i int) tensor.Mat {
	m := s.logits(1)
	s.dev.Gemm(s.q, tensor.NT, m, s.work.y.RowRange(i, i+1), s.matrix(s.Params.head), false)
	return m
}

// logits is memory for the logits of n tokens.
func (s *Stage) logits(n int) tensor.Mat {
	return tensor.Matrix(s.work.wide.Slice(0, n*s.Config.Vocab), n, s.Config.Vocab)
}

// layer is the micro-batch's part of what layer l saves.
func (s *Stage) layer(l int) activations {
	a := s.acts[min(l-s.lo, len(s.acts)-1)]
	a.in, a.mid = s.norm(a.in), s.norm(a.mid)
	a.qkv, a.o, a.gateUp = s.tokens(a.qkv), s.tokens(a.o), s.tokens(a.gateUp)
	a.lse = s.perToken(a.lse, s.Config.Heads)
	if s.split {
		x := &a.later
		x.down, x.o, x.gateUp, x.qkv = s.tokens(x.down), s.tokens(x.o), s.tokens(x.gateUp), s.tokens(x.qkv)
	}
	return a
}

func (s *Stage) norm(r residual) residual {
	return residual{s.kept(r.x), r.rstd.Slice(0, s.rows.len())}
}

// norms is the norm at the entry of layer l, or the final one after the last layer.
func (s *Stage) norms(l int) residual {
	if l < s.hi {
		return s.layer(l).in
	}
	return s.norm(s.last)
}

// norm1 is the weight of that norm. Where another chunk has it, it is any: the norm is computed there.
func (s *Stage) norm1(l int) tensor.Buffer {
	switch p := s.Params; {
	case l < s.hi:
		return s.weight(p.layers[l].norm1)
	case s.ends:
		return s.weight(p.norm)
	default:
		return s.weight(p.layers[l-1].norm1)
	}
}

// columns gives the Q, K and V columns of a packed matrix.
func (s *Stage) columns(qkv tensor.Mat) (q, k, v tensor.Mat) {
	i := s.Config.Heads * s.Config.HeadDim
	j := i + s.Config.KVHeads*s.Config.HeadDim
	return qkv.ColRange(0, i), qkv.ColRange(i, j), qkv.ColRange(j, qkv.Cols)
}

// keysAndValues gives the K and V columns, which are neighbours.
func (s *Stage) keysAndValues(qkv tensor.Mat) tensor.Mat {
	return qkv.ColRange(s.Config.Heads*s.Config.HeadDim, qkv.Cols)
}

// rotated gives the columns that RoPE turns: Q and K, which are neighbours.
func (s *Stage) rotated(qkv tensor.Mat) tensor.Mat {
	return qkv.ColRange(0, (s.Config.Heads+s.Config.KVHeads)*s.Config.HeadDim)
}
