package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/herdtrain/herd/tensor"
)

// BenchmarkAttention reports GFLOP/s, counting the causal half of the products, and the share of the rate of a product
// of 512×512 matrices measured just before, which with the kernels amx is AMX's.
func BenchmarkAttention(b *testing.B) {
	d, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	q, r := d.Queue(tensor.Compute), rand.New(rand.NewPCG(1, 1))
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
		for _, length := range []int{128, 512, 2048} {
			for _, dim := range []int{32, 64, 128} {
				s := tensor.AttentionShape{Batch: 2048 / length, Length: length, Heads: 512 / dim, KVHeads: 256 / dim,
					HeadDim: dim, Scale: 1 / math.Sqrt(float64(dim))}
				queries := func() tensor.Mat { return randomMat(r, dt, 2048, 512) }
				keys := func() tensor.Mat { return randomMat(r, dt, 2048, 256) }
				qm, o, do, dq, k, v, dk, dv := queries(), queries(), queries(), queries(), keys(), keys(), keys(), keys()
				lse := nanBuffer(tensor.F32, 2048*s.Heads)
				product := 2 * 2048 * float64(length) / 2 * 512 // FLOPs
				for _, pass := range []struct {
					name     string
					products float64
					run      func()
				}{
					{"forward", 2, func() { d.Attention(q, o, lse, qm, k, v, s) }},
					{"backward", 5, func() { d.AttentionBackward(q, dq, dk, dv, do, o, lse, qm, k, v, s) }},
				} {
					b.Run(fmt.Sprintf("%v/T=%d/d=%d/%s", dt, length, dim, pass.name), func(b *testing.B) {
						gemm := gemmRate(d, r, dt)
						for b.Loop() {
							pass.run()
						}
						rate := pass.products * product * float64(b.N) / b.Elapsed().Seconds()
						b.ReportMetric(rate/1e9, "GFLOP/s")
						b.ReportMetric(100*rate/gemm, "%gemm")
					})
				}
			}
		}
	}
}

// gemmRate is the FLOP/s of a forward product.
func gemmRate(d *Device, r *rand.Rand, dt tensor.DType) float64 {
	const size = 512
	c, x, y := randomProduct(r, tensor.NT, size, size, size, [3]tensor.DType{dt, dt, dt})
	best := time.Duration(math.MaxInt64)
	for range 10 {
		start := time.Now()
		d.gemm(tensor.NT, c, x, y, false)
		best = min(best, time.Since(start))
	}
	return 2 * size * size * size / best.Seconds()
}
