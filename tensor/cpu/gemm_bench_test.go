package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/herdtrain/herd/tensor"
)

func TestPeakFLOPS(t *testing.T) {
	for _, k := range Kernels() {
		if peak := PeakFLOPS(k.Name, 2, 4*time.Millisecond); (peak > 0) != k.Available {
			t.Errorf("%+v: %g FLOP/s", k, peak)
		}
	}
}

// BenchmarkGemm reports GFLOP/s and the share of the peak that was measured just before.
func BenchmarkGemm(b *testing.B) {
	shapes := [][3]int{ // m, n, k of the forward product
		{128, 128, 128}, {256, 256, 256}, {512, 512, 512}, {1024, 1024, 1024},
		{512, 128, 128}, {512, 256, 128}, {512, 768, 128}, {512, 128, 384}, {512, 1024, 128},
		{512, 512, 128}, {512, 3072, 512}, {512, 512, 1536},
	}
	f32, bf16 := tensor.F32, tensor.BF16
	r := rand.New(rand.NewPCG(1, 1))
	for _, kernels := range []string{"avx512", "avx2", "portable"} {
		for _, threads := range []int{1, 2} {
			gemm, _, err := openGemm(b, threads, kernels)
			if err != nil {
				continue
			}
			for _, s := range shapes {
				for _, dt := range []tensor.DType{f32, bf16} {
					for _, form := range gemmForms {
						m, n, k := s[0], s[1], s[2]
						switch form {
						case tensor.NN:
							n, k = k, n
						case tensor.TN:
							m, n, k = n, k, m
						}
						mats := [3]tensor.DType{dt, dt, dt}
						if form == tensor.TN {
							mats[0] = f32
						}
						c, x, y := randomProduct(r, form, m, n, k, mats)
						name := fmt.Sprintf("%s/%d/%v/%dx%dx%d/%s", kernels, threads, dt, s[0], s[1], s[2], formNames[form])
						b.Run(name, func(b *testing.B) {
							peak := PeakFLOPS(kernels, threads, 10*time.Millisecond)
							for b.Loop() {
								gemm(form, c, x, y, form == tensor.TN)
							}
							rate := 2 * float64(m) * float64(n) * float64(k) * float64(b.N) / b.Elapsed().Seconds()
							b.ReportMetric(rate/1e9, "GFLOP/s")
							b.ReportMetric(100*rate/peak, "%peak")
						})
					}
				}
			}
		}
	}
}
