package cpu

import (
	"fmt"
	"strings"

	"github.com/herdtrain/herd/tensor"
)

// goKernels names the plain Go operations, which every build has.
const goKernels = "go"

// Kernel is an implementation of the matrix product.
type Kernel struct {
	Name      string // as in newGemm: avx512, avx2, portable, go
	Available bool
	Why       string // it is not available
}

// Kernels lists the implementations of the matrix product, fastest first.
func Kernels() []Kernel { return append(cKernels(), Kernel{Name: goKernels, Available: true}) }

func unknownKernels(name string) error {
	var names []string
	for _, k := range Kernels() {
		names = append(names, k.Name)
	}
	return fmt.Errorf("cpu: no kernels named %q; there are %s", name, strings.Join(names, ", "))
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
