//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import "github.com/herdtrain/herd/tensor"

func (k cKernels) gemmWorkspace() (floats, zeros int) {
	return int(k.table.workspace), int(k.table.progress)
}

func (k cKernels) gemm(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool, work []float32) {
	C.call_gemm(k.table, C.int(form), cMat(c), cMat(a), cMat(b), cBool(accumulate), (*C.float)(&work[0]))
}

func (k cKernels) peak(bf16 bool, rounds int) { C.call_peak(k.table, cBool(bf16), C.int64_t(rounds)) }

func (k cKernels) fmasPerPeak(bf16 bool) int {
	if bf16 {
		return int(k.table.fmas_per_peak_bf16)
	}
	return int(k.table.fmas_per_peak)
}
