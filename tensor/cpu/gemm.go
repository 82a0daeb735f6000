package cpu

import (
	"fmt"
	"sync"

	"github.com/herdtrain/herd/tensor"
)

// gemm is the matrix product of one set of kernels on the threads of a pool, with the memory of its workers.
type gemm struct {
	pool    *pool
	kernels kernelSet

	mu   sync.Mutex
	idle [][]float32 // workspaces: at most as many are made as goroutines have been in C at once
}

// run is Device.Gemm for F32 and BF16. The rows of c are shared out, or its columns if there are more of them.
func (g *gemm) run(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	k := gemmDepth(form, c, a, b)
	rows, cols := a.RowRange, b.ColRange
	if form == tensor.TN {
		rows = a.ColRange
	}
	if form == tensor.NT {
		cols = b.RowRange
	}
	mr, nr := g.kernels.tile()
	if c.Rows >= c.Cols {
		tiles := (c.Rows + mr - 1) / mr
		g.pool.run(tiles, gemmGrain(tiles, g.pool.workers+1, mr*c.Cols*k), func(i0, i1 int) {
			i0, i1 = i0*mr, min(i1*mr, c.Rows)
			g.block(form, c.RowRange(i0, i1), rows(i0, i1), b, accumulate)
		})
		return
	}
	tiles := (c.Cols + nr - 1) / nr
	g.pool.run(tiles, gemmGrain(tiles, g.pool.workers+1, nr*c.Rows*k), func(j0, j1 int) {
		j0, j1 = j0*nr, min(j1*nr, c.Cols)
		g.block(form, c.ColRange(j0, j1), a, cols(j0, j1), accumulate)
	})
}

// block computes c on this goroutine.
func (g *gemm) block(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	work := g.workspace()
	g.kernels.gemm(form, c, a, b, accumulate, work)
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
	return make([]float32, g.kernels.workspace())
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

// gemmGrain is into how many register tiles, of so many multiply-adds each, a product is cut for the threads. Each
// piece packs an operand whole, so that there are no more pieces than threads unless they are large; and waking a
// thread must be worth it.
func gemmGrain(tiles, threads, multiplyAdds int) int {
	const large, worthwhile = 32, 1 << 19
	pieces := threads * max(1, tiles/(threads*large))
	return max(1, (tiles+pieces-1)/pieces, worthwhile/max(1, multiplyAdds))
}
