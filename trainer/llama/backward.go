package llama

import "github.com/herdtrain/herd/tensor"

// Backward adds the gradients of the loaded micro-batch to Params.Grads, after Forward, and Loss with grad just before or
// ResidualGradient. Each line is the derivative of its counterpart in Forward, in reverse order. In a Stage whose backward
// pass is split it is BackwardInput: the gradients of the weights of the layers' products are left to BackwardWeight.
func (s *Stage) Backward() {
	if s.ends {
		s.normBackward(s.Params.norm, s.norm(s.last), false)
		s.reduce(s.Params.norm, true)
		if s.Params.head.unit > s.Params.norm.unit {
			s.reduce(s.Params.head, true)
		}
	}
	for l := s.hi - 1; l >= s.lo; l-- {
		a, p := s.layer(l), s.Params.layers[l]
		if l > s.lo {
			s.fetch(s.Params.layers[l-1].qkv)
		}
		s.recompute(l, a, p)
		s.ffnBackward(a, p)
		s.normBackward(p.norm2, a.mid, true)
		s.attentionBackward(a, p)
		s.normBackward(p.norm1, a.in, true)
		s.reduce(p.qkv, !s.split)
	}
	if !s.begins {
		return
	}
	embed, dres := s.Params.embed, s.residualGradient()
	s.gradient(embed, 0, dres.Rows, func(i, j int, g tensor.Buffer) {
		s.dev.EmbedBackward(s.q, tensor.Matrix(g, embed.rows, embed.cols), dres.RowRange(i, j), s.ids.Slice(i, j))
	})
	s.reduce(embed, true)
}

// BackwardWeight adds the gradients that Backward of the micro-batch in hand has left, when other micro-batches may have
// been in hand since.
func (s *Stage) BackwardWeight() {
	for l := s.hi - 1; l >= s.lo; l-- {
		a, p := s.layer(l), s.Params.layers[l]
		if l > s.lo {
			s.fetch(s.Params.layers[l-1].qkv)
		}
		s.recompute(l, a, p)
		s.dev.SwiGLU(s.q, s.swiglu(), a.gateUp)
		s.weightGradient(p.down, a.later.down, s.swiglu())
		s.normalize(a.mid, s.weight(p.norm2))
		s.weightGradient(p.gateUp, a.later.gateUp, s.y())
		s.weightGradient(p.o, a.later.o, a.o)
		s.normalize(a.in, s.weight(p.norm1))
		s.weightGradient(p.qkv, a.later.qkv, s.y())
		s.reduce(p.qkv, true)
	}
}

// recompute computes again what Forward did not save of layer l.
func (s *Stage) recompute(l int, a activations, p layerParams) {
	switch s.again {
	case RecomputeNone:
		return
	case RecomputeFFN:
		s.normalize(a.mid, s.weight(p.norm2))
	case RecomputeLayer:
		s.normalize(a.in, s.weight(p.norm1))
		s.attention(l, a, p)
		s.addAndNormalize(a.mid, a.in.x, s.weight(p.norm2))
	}
	s.dev.Gemm(s.q, tensor.NT, a.gateUp, s.y(), s.matrix(p.gateUp), false)
}

// ffnBackward turns the gradient of delta, which is that of the residual, into that of the normed mid residual.
func (s *Stage) ffnBackward(a activations, p layerParams) {
	d, q := s.dev, s.q
	y, hidden, dres, dgateUp := s.y(), s.swiglu(), s.residualGradient(), a.gateUp
	if !s.split {
		d.SwiGLU(q, hidden, a.gateUp)
		s.weightGradient(p.down, dres, hidden)
	} else {
		d.Copy(q, a.later.down, dres)
		dgateUp = a.later.gateUp
	}
	d.Gemm(q, tensor.NN, hidden, dres, s.matrix(p.down), false)
	d.SwiGLUBackward(q, dgateUp, hidden, a.gateUp)
	if !s.split {
		s.normalize(a.mid, s.weight(p.norm2))
		s.weightGradient(p.gateUp, dgateUp, y)
	}
	s.product(tensor.NN, y, dgateUp, s.matrix(p.gateUp), s.hiddenLeaves.gateUp, s.work.y.Buffer)
}

// attentionBackward turns the gradient of delta into that of the normed input.
func (s *Stage) attentionBackward(a activations, p layerParams) {
	d, q := s.dev, s.q
	y, do, dqkv, dres := s.y(), s.of(s.work.out, a.o.Cols), s.of(s.work.wide, a.qkv.Cols), s.residualGradient()
	if !s.split {
		s.weightGradient(p.o, dres, a.o)
	} else {
		d.Copy(q, a.later.o, dres)
		dqkv = a.later.qkv
	}
	d.Gemm(q, tensor.NN, do, dres, s.matrix(p.o), false)
	s.attentionGradient(dqkv, do, a)
	d.RoPE(q, s.rotated(dqkv), s.perToken(s.pos, 1), s.table, s.Config.HeadDim, true)
	if !s.split {
		s.normalize(a.in, s.weight(p.norm1))
		s.weightGradient(p.qkv, dqkv, y)
	}
	s.product(tensor.NN, y, dqkv, s.matrix(p.qkv), s.hiddenLeaves.qkv, s.work.y.Buffer)
}
