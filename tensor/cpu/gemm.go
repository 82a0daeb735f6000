//go:build cgo

package cpu

/*
#cgo CFLAGS: -O3 -std=c11 -Wall -Wextra
#include "gemm.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/herdtrain/herd/tensor"
)

// gemmKernels are the compiled kernels, best first.
var gemmKernels = []C.gemm_kernel{C.gemm_avx512(), C.gemm_avx2(), C.gemm_portable()}

// gemmEmulated runs the tile of the AVX-512 kernel on other processors, for tests.
var gemmEmulated = C.gemm_avx512_emulated()

// cKernels lists gemmKernels for Kernels.
func cKernels() []Kernel {
	list := make([]Kernel, len(gemmKernels))
	for i, k := range gemmKernels {
		list[i] = Kernel{Name: C.GoString(k.name), Available: k.available != 0}
		if !list[i].Available {
			list[i].Why = fmt.Sprintf("this %s processor does not have the instructions", runtime.GOARCH)
		}
	}
	return list
}

// findKernel is the kernel of that name, or the best one if name is empty.
func findKernel(name string) (C.gemm_kernel, error) {
	if name == C.GoString(gemmEmulated.name) && gemmEmulated.available != 0 {
		return gemmEmulated, nil
	}
	for i, k := range cKernels() {
		if name == k.Name && !k.Available {
			return C.gemm_kernel{}, fmt.Errorf("cpu: kernels %q: %s", name, k.Why)
		}
		if k.Available && (name == "" || name == k.Name) {
			return gemmKernels[i], nil
		}
	}
	return C.gemm_kernel{}, unknownKernels(name)
}

// newGemm makes the matrix product of Device.Gemm for F32 and BF16 on the goroutines of p. kernels is a name of
// Kernels, or empty for the best of them; "go" gives no function. It also returns the name of the kernels in use.
func newGemm(p *pool, kernels string) (
	fn func(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool), name string, err error) {
	if kernels == goKernels {
		return nil, goKernels, nil
	}
	k, err := findKernel(kernels)
	if err != nil {
		return nil, "", err
	}
	g := &gemm{pool: p, kernel: k}
	return g.run, C.GoString(k.name), nil
}

// gemm is one kernel with the memory of its workers.
type gemm struct {
	pool   *pool
	kernel C.gemm_kernel

	mu   sync.Mutex
	idle [][]float32 // workspaces: at most as many are made as goroutines have been in C at once
}

// run is Device.Gemm. The rows of c are shared out, or its columns if there are more of them.
func (g *gemm) run(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	k := gemmDepth(form, c, a, b)
	rows, cols := a.RowRange, b.ColRange
	if form == tensor.TN {
		rows = a.ColRange
	}
	if form == tensor.NT {
		cols = b.RowRange
	}
	if mr := int(g.kernel.mr); c.Rows >= c.Cols {
		tiles := (c.Rows + mr - 1) / mr
		g.pool.run(tiles, gemmGrain(tiles, g.pool.workers+1, mr*c.Cols*k), func(i0, i1 int) {
			i0, i1 = i0*mr, min(i1*mr, c.Rows)
			g.block(form, c.RowRange(i0, i1), rows(i0, i1), b, accumulate)
		})
		return
	}
	nr := int(g.kernel.nr)
	tiles := (c.Cols + nr - 1) / nr
	g.pool.run(tiles, gemmGrain(tiles, g.pool.workers+1, nr*c.Rows*k), func(j0, j1 int) {
		j0, j1 = j0*nr, min(j1*nr, c.Cols)
		g.block(form, c.ColRange(j0, j1), a, cols(j0, j1), accumulate)
	})
}

// block computes c on this goroutine.
func (g *gemm) block(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	work := g.workspace()
	acc := C.int(0)
	if accumulate {
		acc = 1
	}
	C.gemm_run(g.kernel, C.int(form), cMat(c), cMat(a), cMat(b), acc, (*C.float)(&work[0]))
	g.mu.Lock()
	g.idle = append(g.idle, work)
	g.mu.Unlock()
}

func (g *gemm) workspace() []float32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.idle); n > 0 {
		work := g.idle[n-1]
		g.idle = g.idle[:n-1]
		return work
	}
	return make([]float32, g.kernel.workspace)
}

func cMat(m tensor.Mat) C.gemm_mat {
	c := C.gemm_mat{ptr: m.Ptr(), rows: C.int64_t(m.Rows), cols: C.int64_t(m.Cols), stride: C.int64_t(m.Stride)}
	if m.DType() == tensor.BF16 {
		c.bf16 = 1
	}
	return c
}

// peakLoop is a function that runs rounds of multiply-adds in registers, and the floating-point operations in a round.
func peakLoop(kernels string) (loop func(rounds int), flops int) {
	if kernels == goKernels {
		return goPeakLoop, goPeakFLOPs
	}
	k, err := findKernel(kernels)
	if err != nil {
		return nil, 0
	}
	return func(rounds int) { C.gemm_peak(k, C.int64_t(rounds)) }, 2 * int(k.fmas_per_peak)
}
