//go:build !cgo

package cpu

import (
	"fmt"

	"github.com/herdtrain/herd/tensor"
)

// cKernels lists the kernels written in C, none of which is in this build.
func cKernels() []Kernel {
	var list []Kernel
	for _, name := range []string{"avx512", "avx2", "portable"} {
		list = append(list, Kernel{Name: name, Why: "this program was built without cgo (CGO_ENABLED=0 or no C compiler)"})
	}
	return list
}

// newGemm returns no function: the plain Go product is the only one of this build. Other kernels than "" and "go" are
// an error.
func newGemm(_ *pool, kernels string) (
	fn func(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool), name string, err error) {
	if kernels == "" || kernels == goKernels {
		return nil, goKernels, nil
	}
	for _, k := range cKernels() {
		if k.Name == kernels {
			return nil, "", fmt.Errorf("cpu: kernels %q: %s", kernels, k.Why)
		}
	}
	return nil, "", unknownKernels(kernels)
}

// peakLoop is a function that runs rounds of multiply-adds, and the floating-point operations in a round.
func peakLoop(kernels string) (loop func(rounds int), flops int) {
	if kernels == "" || kernels == goKernels {
		return goPeakLoop, goPeakFLOPs
	}
	return nil, 0
}
