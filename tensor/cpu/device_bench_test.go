package cpu

import (
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// BenchmarkOps times each operation but the products at the sizes of llama3-debug: a micro-batch of 4 sequences of 128
// tokens. The rate is of the elements of the largest operand (for Attention of the visible scores).
func BenchmarkOps(b *testing.B) {
	d, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	q := d.Queue(tensor.Compute)
	buf := func(dt tensor.DType, n int) tensor.Buffer {
		x, err := d.Alloc(dt, n)
		if err != nil {
			b.Fatal(err)
		}
		return x
	}
	const n, dim, ffn, vocab, length = 512, 128, 384, 1024, 128
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
		mat := func(cols int) tensor.Mat { return tensor.Matrix(buf(dt, n*cols), n, cols) }
		ids, gate := buf(tensor.I32, n), buf(tensor.F64, 2)
		tensor.Host[float64](gate)[1] = 1
		x, y, dx, gu, dgu, h, logits := mat(dim), mat(dim), mat(dim), mat(2*ffn), mat(2*ffn), mat(ffn), mat(vocab)
		qkv, dqkv := mat(2*dim), mat(2*dim)
		d.Fill(q, qkv.Buffer, 0.1)
		d.Fill(q, x.Buffer, 1)
		w, dw, rstd, rstd2, lse, table := buf(dt, dim), buf(tensor.F32, dim), buf(tensor.F32, n), buf(tensor.F32, n),
			buf(tensor.F32, 4*n), buf(tensor.F32, length*32)
		const params = 1 << 20
		p, master, g := buf(dt, params), buf(tensor.F32, params), buf(tensor.F32, params)
		m, v, step := buf(tensor.F32, params), buf(tensor.F32, params), tensor.AdamWStep{Beta2: 0.9, LR: 1, Step: 1}
		s := tensor.AttentionShape{Batch: n / length, Length: length, Heads: 4, KVHeads: 2, HeadDim: 32, Scale: 0.2}
		parts := func(m tensor.Mat) (q, k, v tensor.Mat) {
			return m.ColRange(0, dim), m.ColRange(dim, dim+64), m.ColRange(dim+64, 2*dim)
		}
		qm, k, vm := parts(qkv)
		dq, dk, dv := parts(dqkv)
		for _, op := range []struct {
			name     string
			elements int
			run      func()
		}{
			{"RMSNorm", n * dim, func() { d.RMSNorm(q, y, rstd, x, w, 1e-5) }},
			{"RMSNormBackward", n * dim, func() { d.RMSNormBackward(q, dx, dw, y, x, w, rstd, true) }},
			{"RoPE", n * dim, func() { d.RoPE(q, x, ids, table, 32, false) }},
			{"Attention", n * 4 * (length + 1) / 2, func() { d.Attention(q, y, lse, qm, k, vm, s) }},
			{"AttentionBackward", n * 4 * (length + 1) / 2, func() {
				d.AttentionBackward(q, dq, dk, dv, dx, y, lse, qm, k, vm, s)
			}},
			{"SwiGLU", n * ffn, func() { d.SwiGLU(q, h, gu) }},
			{"SwiGLUBackward", n * ffn, func() { d.SwiGLUBackward(q, dgu, h, gu) }},
			{"CrossEntropy", n * vocab, func() { d.CrossEntropy(q, rstd, logits, ids, 1, true) }},
			{"LogSumExp", n * vocab, func() { d.LogSumExp(q, rstd, logits) }},
			{"CrossEntropyShard", n * vocab, func() { d.CrossEntropyShard(q, rstd, logits, ids, rstd2, 1, true) }},
			{"SumSquares", params, func() { d.SumSquares(q, gate.Slice(0, 1), g) }},
			{"AdamW", params, func() { d.AdamW(q, p, master, m, v, g, gate, step) }},
		} {
			b.Run(op.name+"/"+dt.String(), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					op.run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(op.elements), "ns/element")
			})
		}
	}
}
