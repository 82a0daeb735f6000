package cpu

import (
	"sync"
	"time"
)

// PeakFLOPS measures for about d how many fp32 floating-point operations a second (a fused multiply-add counts as two)
// the given number of goroutines reach together in registers with the instructions of the kernels, a name of Kernels
// or empty for the best. It is the best of several rounds, and 0 if the kernels are not available.
func PeakFLOPS(kernels string, threads int, d time.Duration) float64 {
	return peakFLOPS(kernels, false, threads, d)
}

// PeakBF16FLOPS is PeakFLOPS for the product of two BF16 matrices: with the kernels amx, on tiles. Elsewhere BF16 is
// computed in fp32.
func PeakBF16FLOPS(kernels string, threads int, d time.Duration) float64 {
	return peakFLOPS(kernels, true, threads, d)
}

func peakFLOPS(kernels string, bf16 bool, threads int, d time.Duration) float64 {
	set, _, err := findKernels(kernels)
	if err != nil {
		return 0
	}
	loop, flops := goPeakLoop, goPeakFLOPs
	if set != nil {
		loop, flops = func(rounds int) { set.peak(bf16, rounds) }, 2*set.fmasPerPeak(bf16)
	}
	const rounds = 8
	n, best := 1000, 0.0
	for end := time.Now().Add(d); ; {
		start := time.Now()
		var wg sync.WaitGroup
		for range threads {
			wg.Go(func() { loop(n) })
		}
		wg.Wait()
		now := time.Now()
		best = max(best, float64(flops)*float64(n)*float64(threads)/now.Sub(start).Seconds())
		if now.After(end) {
			return best
		}
		if now.Sub(start) < d/(2*rounds) {
			n *= 2
		}
	}
}

// goPeakFLOPs are the operations in a round of goPeakLoop.
const goPeakFLOPs = 2 * 8

// goPeakLoop runs 8 independent chains of multiplications and additions.
func goPeakLoop(rounds int) {
	x := [8]float32{1, 2, 3, 4, 5, 6, 7, 8}
	a, b, c, d, e, f, g, h := x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
	for range rounds {
		a, b, c, d = a*0.5+1, b*0.5+1, c*0.5+1, d*0.5+1
		e, f, g, h = e*0.5+1, f*0.5+1, g*0.5+1, h*0.5+1
	}
	goPeakSink(a + b + c + d + e + f + g + h)
}

// goPeakSink keeps the compiler from dropping the loop.
//
//go:noinline
func goPeakSink(float32) {}
