package llama

import "github.com/herdtrain/herd/tensor"

// Backward adds the gradients of the loaded micro-batch to Params.Grads, after Forward and Loss with grad. Each line is
// the derivative of its counterpart in Forward, in reverse order.
func (s *Stage) Backward() {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	layers := s.Params.layers
	last, dres := s.norm(s.last), s.tokens(s.dres)
	d.RMSNormBackward(q, dres, s.Params.norm.of(g), s.y(), last.x, s.Params.norm.of(w), last.rstd, false)
	for l := len(layers) - 1; l >= 0; l-- {
		a, p := s.layer(l), layers[l]
		s.ffnBackward(a, p)
		d.RMSNormBackward(q, dres, p.norm2.of(g), s.y(), a.mid.x, p.norm2.of(w), a.mid.rstd, true)
		s.attentionBackward(a, p)
		d.RMSNormBackward(q, dres, p.norm1.of(g), s.y(), a.in.x, p.norm1.of(w), a.in.rstd, true)
	}
	d.EmbedBackward(q, s.Params.embed.mat(g), dres, s.perToken(s.ids, 1))
}

// ffnBackward turns the gradient of delta, which is that of the residual, into that of the normed mid residual.
func (s *Stage) ffnBackward(a activations, p layerParams) {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	y, hidden, dres := s.y(), s.hidden(), s.tokens(s.dres)
	d.SwiGLU(q, hidden, a.gateUp)
	d.Gemm(q, tensor.TN, p.down.mat(g), dres, hidden, true)
	d.Gemm(q, tensor.NN, hidden, dres, p.down.mat(w), false)
	d.SwiGLUBackward(q, a.gateUp, hidden, a.gateUp)
	d.RMSNorm(q, y, a.mid.rstd, a.mid.x, p.norm2.of(w), s.Config.NormEps)
	d.Gemm(q, tensor.TN, p.gateUp.mat(g), a.gateUp, y, true)
	d.Gemm(q, tensor.NN, y, a.gateUp, p.gateUp.mat(w), false)
}

// attentionBackward turns the gradient of delta into that of the normed input.
func (s *Stage) attentionBackward(a activations, p layerParams) {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	y, do, dqkv, dres := s.y(), s.of(s.work.out, a.o.Cols), s.of(s.work.wide, a.qkv.Cols), s.tokens(s.dres)
	d.Gemm(q, tensor.TN, p.o.mat(g), dres, a.o, true)
	d.Gemm(q, tensor.NN, do, dres, p.o.mat(w), false)
	qm, km, vm := s.split(a.qkv)
	dq, dk, dv := s.split(dqkv)
	d.AttentionBackward(q, dq, dk, dv, do, a.o, a.lse, qm, km, vm, s.shape)
	d.RoPE(q, s.rotated(dqkv), s.perToken(s.pos, 1), s.table, s.Config.HeadDim, true)
	d.RMSNorm(q, y, a.in.rstd, a.in.x, p.norm1.of(w), s.Config.NormEps)
	d.Gemm(q, tensor.TN, p.qkv.mat(g), dqkv, y, true)
	d.Gemm(q, tensor.NN, y, dqkv, p.qkv.mat(w), false)
}
