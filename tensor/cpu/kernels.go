package cpu

import (
	"fmt"
	"strings"

	"github.com/herdtrain/herd/tensor"
)

// goKernels names the plain Go operations, which every build has.
const goKernels = "go"

// Kernel is an implementation of the operations.
type Kernel struct {
	Name      string // as in Options: amx, avx512, avx2, portable, go
	Available bool
	Why       string // it is not available
}

// kernelSet is the operations of Device on F32 and BF16 in C, for one instruction set. They compute in the calling
// goroutine and do not check shapes.
type kernelSet interface {
	gemmKernels
	rowKernels
	attentionKernels
}

// gemmKernels are the matrix product and the peak that it is measured by.
type gemmKernels interface {
	// gemm is shared by the goroutines that call it with the same arguments: it is complete when all have returned.
	gemm(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool, work []float32)
	// gemmWorkspace is how many floats gemm needs to work in, and how many zeros these begin with.
	gemmWorkspace() (floats, zeros int)
	// peak does rounds of fmasPerPeak fused multiply-adds in registers, as gemm does or, with bf16, as it does for the
	// product of two BF16 matrices.
	peak(bf16 bool, rounds int)
	fmasPerPeak(bf16 bool) int
}

// rowKernels are elementwise operations and those on rows, as Device's of the same names.
type rowKernels interface {
	// rmsNorm is AddRMSNorm if there is a delta.
	rmsNorm(y tensor.Mat, rstd tensor.Buffer, x, res, delta tensor.Mat, w tensor.Buffer, eps float64)
	// rmsNormBackward sets dw.
	rmsNormBackward(dx tensor.Mat, dw []float32, dy, x tensor.Mat, w, rstd tensor.Buffer, accumulate bool)
	rope(x tensor.Mat, pos, table tensor.Buffer, headDim int, inverse bool)
	swiGLU(h, gu tensor.Mat)
	swiGLUBackward(dgu, dh, gu tensor.Mat)
	// crossEntropy sets two numbers for each row: the loss is the logarithm of the first, plus the second.
	crossEntropy(loss []float64, logits tensor.Mat, targets tensor.Buffer, scale float64, grad bool)
	// logSumExp sets two numbers for each row, as crossEntropy does.
	logSumExp(lse []float64, logits tensor.Mat)
	crossEntropyShard(loss tensor.Buffer, logits tensor.Mat, targets, lse tensor.Buffer, scale float64, grad bool)
	embedBackward(dw, dx tensor.Mat, ids tensor.Buffer)
	adamW(p, master, m, v, g tensor.Buffer, n adamWNumbers[float32])
	// sum sets the sum of each block of sumBlock elements, or of their squares.
	sum(sums []float64, x tensor.Buffer, squares bool)
	add(dst, a, b tensor.Buffer)
	// cast converts F32 to BF16 or back.
	cast(dst, src tensor.Buffer)
	// exps replaces x by its exponentials as the operations compute them, for tests.
	exps(x []float32)
}

// attentionKernels are Attention and AttentionBackward of one sequence with one KV head. o and q are [Length, HeadDim],
// k and v [Keys, HeadDim]; s is the whole operation's shape, with first the part of the sequence.
type attentionKernels interface {
	// attention computes the rows from i0 on, at most attentionQueries, of one query head.
	attention(o tensor.Mat, lse tensor.Buffer, q, k, v tensor.Mat, s tensor.AttentionShape, i0 int, work []float32)
	attentionQueries() int
	attentionWorkspace(headDim int) int // floats that attention needs to work in
	// attentionBackward computes all query heads of the KV head: dq, do, o, q have them side by side, lse one after
	// another.
	attentionBackward(dq, dk, dv, do, o tensor.Mat, lse tensor.Buffer, q, k, v tensor.Mat, s tensor.AttentionShape,
		work []float32)
	attentionBackwardWorkspace(s tensor.AttentionShape) int
}

// compiled is an instruction set that C kernels are written for.
type compiled struct {
	Kernel
	set kernelSet // nil if it is not available
}

// Kernels lists the implementations of the operations, in order of preference.
func Kernels() []Kernel {
	var list []Kernel
	for _, c := range compiledKernels {
		list = append(list, c.Kernel)
	}
	return append(list, Kernel{Name: goKernels, Available: true})
}

// findKernels is the kernels of that name, or the best ones if name is empty, and their name. The set is nil for the
// plain Go operations.
func findKernels(name string) (kernelSet, string, error) {
	for _, c := range emulatedKernels {
		if name == c.Name && c.Available {
			return c.set, name, nil
		}
	}
	for _, c := range compiledKernels {
		if name == c.Name && !c.Available {
			return nil, "", fmt.Errorf("cpu: kernels %q: %s", name, c.Why)
		}
		if c.Available && (name == "" || name == c.Name) {
			return c.set, c.Name, nil
		}
	}
	if name == "" || name == goKernels {
		return nil, goKernels, nil
	}
	var names []string
	for _, k := range Kernels() {
		names = append(names, k.Name)
	}
	return nil, "", fmt.Errorf("cpu: no kernels named %q; there are %s", name, strings.Join(names, ", "))
}
