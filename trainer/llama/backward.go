package llama

import "github.com/herdtrain/herd/tensor"

// Backward adds the gradients of the loaded micro-batch to Params.Grads, after Forward, and Loss with grad just before or
// ResidualGradient. Each line is the derivative of its counterpart in Forward, in reverse order.
func (s *Stage) Backward() {
	layers := s.Params.layers
	if s.Params.ends {
		s.normBackward(s.Params.norm, s.norm(s.last), false)
	}
	for l := len(layers) - 1; l >= 0; l-- {
		a, p := s.layer(l), layers[l]
		s.recompute(l, a, p)
		s.ffnBackward(a, p)
		s.normBackward(p.norm2, a.mid, true)
		s.attentionBackward(a, p)
		s.normBackward(p.norm1, a.in, true)
	}
	if !s.Params.begins {
		return
	}
	embed, dres := s.Params.embed, s.tokens(s.dres)
	s.gradient(embed, 0, dres.Rows, func(i, j int, g tensor.Buffer) {
		s.dev.EmbedBackward(s.q, tensor.Matrix(g, embed.rows, embed.cols), dres.RowRange(i, j), s.ids.Slice(i, j))
	})
}

// recompute computes again what Forward did not save of layer l.
func (s *Stage) recompute(l int, a activations, p layerParams) {
	d, q, eps := s.dev, s.q, s.Config.NormEps
	switch s.again {
	case RecomputeNone:
		return
	case RecomputeFFN:
		d.RMSNorm(q, s.y(), a.mid.rstd, a.mid.x, s.weight(p.norm2), eps)
	case RecomputeLayer:
		d.RMSNorm(q, s.y(), a.in.rstd, a.in.x, s.weight(p.norm1), eps)
		s.attention(l, a, p)
		d.AddRMSNorm(q, s.y(), a.mid.rstd, a.mid.x, a.in.x, s.delta(), s.weight(p.norm2), eps)
	}
	d.Gemm(q, tensor.NT, a.gateUp, s.y(), s.matrix(p.gateUp), false)
}

// ffnBackward turns the gradient of delta, which is that of the residual, into that of the normed mid residual.
func (s *Stage) ffnBackward(a activations, p layerParams) {
	d, q := s.dev, s.q
	y, hidden, dres := s.y(), s.hidden(), s.tokens(s.dres)
	d.SwiGLU(q, hidden, a.gateUp)
	s.weightGradient(p.down, dres, hidden)
	d.Gemm(q, tensor.NN, hidden, dres, s.matrix(p.down), false)
	d.SwiGLUBackward(q, a.gateUp, hidden, a.gateUp)
	d.RMSNorm(q, y, a.mid.rstd, a.mid.x, s.weight(p.norm2), s.Config.NormEps)
	s.weightGradient(p.gateUp, a.gateUp, y)
	d.Gemm(q, tensor.NN, y, a.gateUp, s.matrix(p.gateUp), false)
	s.sum(y)
}

// attentionBackward turns the gradient of delta into that of the normed input.
func (s *Stage) attentionBackward(a activations, p layerParams) {
	d, q := s.dev, s.q
	y, do, dqkv, dres := s.y(), s.of(s.work.out, a.o.Cols), s.of(s.work.wide, a.qkv.Cols), s.tokens(s.dres)
	s.weightGradient(p.o, dres, a.o)
	d.Gemm(q, tensor.NN, do, dres, s.matrix(p.o), false)
	qm, km, vm := s.split(a.qkv)
	dq, dk, dv := s.split(dqkv)
	d.AttentionBackward(q, dq, dk, dv, do, a.o, a.lse, qm, km, vm, s.shape)
	d.RoPE(q, s.rotated(dqkv), s.perToken(s.pos, 1), s.table, s.Config.HeadDim, true)
	d.RMSNorm(q, y, a.in.rstd, a.in.x, s.weight(p.norm1), s.Config.NormEps)
	s.weightGradient(p.qkv, dqkv, y)
	d.Gemm(q, tensor.NN, y, dqkv, s.matrix(p.qkv), false)
	s.sum(y)
}
