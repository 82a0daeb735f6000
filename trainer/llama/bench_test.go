package llama_test

import (
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// BenchmarkStep is a micro-batch of llama3-debug, forward and backward, and the update after it.
func BenchmarkStep(b *testing.B) {
	c := llama.Config{
		Dim: 128, Layers: 4, Heads: 4, KVHeads: 2, HeadDim: 32, FFN: 384, Vocab: 1024, MaxLength: 2048,
		RopeTheta: 500000, NormEps: 1e-5,
	}
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
		b.Run(dt.String(), func(b *testing.B) {
			const sequences, length = 4, 128
			m := newTrained(b, c, dt, llama.Size{Sequences: sequences, Length: length}, "")
			if err := m.opt.Initialize(b.Context(), m.dev, m.q, 1); err != nil {
				b.Fatal(err)
			}
			m.opt.Derive(m.dev, m.q)
			in := llama.Input{Sequences: sequences, Length: length}
			for range sequences * length {
				in.IDs = append(in.IDs, rand.Int32N(int32(c.Vocab)))
			}
			in.Targets = in.IDs
			for b.Loop() {
				m.lossAndGradients(in, len(in.IDs))
				m.opt.Measure(m.dev, m.q)
				m.opt.Step(m.dev, m.q, 1e-3, 1)
			}
			b.ReportMetric(float64(b.N*len(in.IDs))/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
