package llama

import "github.com/herdtrain/herd/tensor"

// Backward adds the gradients of the loaded micro-batch to Params.Grads, after Forward and Loss with grad. Each line is
// the derivative of its counterpart in Forward, in reverse order.
func (s *Stage) Backward() {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	layers := s.Params.layers
	b := s.backward()
	last := s.norm(s.last)
	d.RMSNormBackward(q, b.res, s.Params.norm.of(g), b.y, last.x, s.Params.norm.of(w), last.rstd, false)
	for l := len(layers) - 1; l >= 0; l-- {
		a, p := s.layer(l), layers[l]
		s.ffnBackward(a, p, b)
		d.RMSNormBackward(q, b.res, p.norm2.of(g), b.y, a.mid.x, p.norm2.of(w), a.mid.rstd, true)
		s.attentionBackward(a, p, b)
		d.RMSNormBackward(q, b.res, p.norm1.of(g), b.y, a.in.x, p.norm1.of(w), a.in.rstd, true)
	}
	d.EmbedBackward(q, s.Params.embed.mat(g), b.res, s.perToken(s.ids, 1))
}

// ffnBackward turns the gradient of delta, which is that of the residual, into that of the normed mid residual.
func (s *Stage) ffnBackward(a activations, p layerParams, b gradients) {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	hid := s.tokens(s.hid)
	d.SwiGLU(q, hid, a.gateUp)
	d.Gemm(q, tensor.TN, p.down.mat(g), b.res, hid, true)
	d.Gemm(q, tensor.NN, b.hid, b.res, p.down.mat(w), false)
	d.SwiGLUBackward(q, b.gateUp, b.hid, a.gateUp)
	d.Gemm(q, tensor.TN, p.gateUp.mat(g), b.gateUp, a.mid.y, true)
	d.Gemm(q, tensor.NN, b.y, b.gateUp, p.gateUp.mat(w), false)
}

// attentionBackward turns the gradient of delta into that of the normed input.
func (s *Stage) attentionBackward(a activations, p layerParams, b gradients) {
	d, q, w, g := s.dev, s.q, s.Params.Weights, s.Params.Grads
	d.Gemm(q, tensor.TN, p.o.mat(g), b.res, a.o, true)
	d.Gemm(q, tensor.NN, b.o, b.res, p.o.mat(w), false)
	qm, km, vm := s.split(a.qkv)
	dq, dk, dv := s.split(b.qkv)
	d.AttentionBackward(q, dq, dk, dv, b.o, a.o, a.lse, qm, km, vm, s.shape)
	d.RoPE(q, s.rotated(b.qkv), s.perToken(s.pos, 1), s.table, s.Config.HeadDim, true)
	d.Gemm(q, tensor.TN, p.qkv.mat(g), b.qkv, a.in.y, true)
	d.Gemm(q, tensor.NN, b.y, b.qkv, p.qkv.mat(w), false)
}

func (s *Stage) backward() gradients {
	b := *s.back
	for _, m := range []*tensor.Mat{&b.res, &b.y, &b.o, &b.qkv, &b.hid, &b.gateUp} {
		*m = s.tokens(*m)
	}
	return b
}
