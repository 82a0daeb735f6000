package cpu

import (
	"fmt"
	"sync"

	"github.com/herdtrain/herd/tensor"
)

// gemm is the matrix product of one set of kernels on the threads of a pool, with the memory that they share.
type gemm struct {
	pool    *pool
	kernels kernelSet

	mu   sync.Mutex
	idle [][]float32 // workspaces: at most as many are made as there have been products at once
}

// run is Device.Gemm for F32 and BF16.
func (g *gemm) run(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	k := gemmDepth(form, c, a, b)
	const worthwhile = 1 << 19 // multiply-adds, for which to wake a thread
	threads := max(1, min(g.pool.workers+1, c.Rows*c.Cols*k/worthwhile))
	work := g.take()
	g.pool.run(threads, 1, func(_, _ int) { g.kernels.gemm(form, c, a, b, accumulate, work) })
	g.give(work)
}

// take is a workspace at the start of a product.
func (g *gemm) take() []float32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	floats, zeros := g.kernels.gemmWorkspace()
	n := len(g.idle)
	if n == 0 {
		return make([]float32, floats)
	}
	work := g.idle[n-1]
	g.idle = g.idle[:n-1]
	clear(work[:zeros])
	return work
}

func (g *gemm) give(work []float32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = append(g.idle, work)
}

// gemmDepth is the length of the sums in a product. It panics if the shapes do not fit, or a matrix leaves its buffer
// or has a dtype without kernels.
func gemmDepth(form tensor.GemmForm, c, a, b tensor.Mat) int {
	for _, m := range [...]tensor.Mat{c, a, b} {
		if dt := m.DType(); dt != tensor.F32 && dt != tensor.BF16 {
			panic(fmt.Sprintf("cpu: a gemm of a %v matrix", dt))
		}
		if m.Rows < 0 || m.Cols < 0 || m.Stride < m.Cols ||
			m.Rows > 0 && m.Cols > 0 && (m.Rows-1)*m.Stride+m.Cols > m.Len() {
			panic(fmt.Sprintf("cpu: a gemm of a %d×%d matrix with stride %d in a buffer of %d elements",
				m.Rows, m.Cols, m.Stride, m.Len()))
		}
	}
	rows, depth := a.Rows, a.Cols
	if form == tensor.TN {
		rows, depth = a.Cols, a.Rows
	}
	depthB, cols := b.Rows, b.Cols
	if form == tensor.NT {
		depthB, cols = b.Cols, b.Rows
	}
	if c.Rows != rows || c.Cols != cols || depth != depthB {
		panic(fmt.Sprintf("cpu: gemm form %d sets a %d×%d matrix from %d×%d and %d×%d", form, c.Rows, c.Cols,
			a.Rows, a.Cols, b.Rows, b.Cols))
	}
	return depth
}
