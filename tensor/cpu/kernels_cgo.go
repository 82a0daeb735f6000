//go:build cgo

package cpu

/*
#cgo CFLAGS: -std=c11 -Wall -Wextra
#cgo !sanitize CFLAGS: -O3
#cgo LDFLAGS: -lm
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"runtime"

	"github.com/herdtrain/herd/tensor"
)

// compiledKernels are the kernels written in C, in order of preference. Those for AMX come last, to be used only where
// somebody names them: no processor with these instructions has run them yet, emulators only.
var compiledKernels = []compiled{
	newCompiled(C.kernels_avx512()), newCompiled(C.kernels_avx2()), newCompiled(C.kernels_portable()),
	newCompiled(C.kernels_amx()),
}

// emulatedKernels run the tiles of the AMX and AVX-512 kernels on other processors, for tests.
var emulatedKernels = []compiled{newCompiled(C.kernels_amx_emulated()), newCompiled(C.kernels_avx512_emulated())}

func newCompiled(k *C.kernels) compiled {
	c := compiled{Kernel: Kernel{Name: C.GoString(k.name), Available: k.available != 0}}
	switch {
	case c.Available:
		c.set = cKernels{k}
	case k.why != nil:
		c.Why = C.GoString(k.why)
	default:
		c.Why = fmt.Sprintf("this %s processor does not have the instructions", runtime.GOARCH)
	}
	return c
}

// cKernels implements kernelSet by a table of C functions.
type cKernels struct{ table *C.kernels }

func cMat(m tensor.Mat) C.matrix {
	c := C.matrix{ptr: m.Ptr(), rows: C.int64_t(m.Rows), cols: C.int64_t(m.Cols), stride: C.int64_t(m.Stride)}
	if m.DType() == tensor.BF16 {
		c.bf16 = 1
	}
	return c
}

func cBool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
