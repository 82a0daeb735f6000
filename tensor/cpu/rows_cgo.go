//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import (
	"unsafe"

	"github.com/herdtrain/herd/tensor"
)

func cVec(b tensor.Buffer) C.matrix { return cMat(vector(b)) }

func cFloats(b tensor.Buffer) *C.float { return (*C.float)(b.Ptr()) }

func cInts(b tensor.Buffer) *C.int32_t { return (*C.int32_t)(b.Ptr()) }

func cPairs(v []float64) *[2]C.double { return (*[2]C.double)(unsafe.Pointer(unsafe.SliceData(v))) }

func (k cKernels) rmsNorm(y tensor.Mat, rstd tensor.Buffer, x, res, delta tensor.Mat, w tensor.Buffer, eps float64) {
	C.call_rms_norm(k.table, cMat(y), cFloats(rstd), cMat(x), cMat(res), cMat(delta), cVec(w), C.double(eps))
}

func (k cKernels) rmsNormBackward(dx tensor.Mat, dw []float32, dy, x tensor.Mat, w, rstd tensor.Buffer,
	accumulate bool) {
	C.call_rms_norm_backward(k.table, cMat(dx), (*C.float)(unsafe.SliceData(dw)), cMat(dy), cMat(x), cVec(w),
		cFloats(rstd), cBool(accumulate))
}

func (k cKernels) rope(x tensor.Mat, pos, table tensor.Buffer, headDim int, inverse bool) {
	C.call_rope(k.table, cMat(x), cInts(pos), cFloats(table), C.int64_t(headDim), cBool(inverse))
}

func (k cKernels) swiGLU(h, gu tensor.Mat) { C.call_swiglu(k.table, cMat(h), cMat(gu)) }

func (k cKernels) swiGLUBackward(dgu, dh, gu tensor.Mat) {
	C.call_swiglu_backward(k.table, cMat(dgu), cMat(dh), cMat(gu))
}

func (k cKernels) crossEntropy(loss []float64, logits tensor.Mat, targets tensor.Buffer, scale float64, grad bool) {
	C.call_cross_entropy(k.table, cPairs(loss), cMat(logits), cInts(targets), C.float(scale), cBool(grad))
}

func (k cKernels) logSumExp(lse []float64, logits tensor.Mat) {
	C.call_log_sum_exp(k.table, cPairs(lse), cMat(logits))
}

func (k cKernels) crossEntropyShard(loss tensor.Buffer, logits tensor.Mat, targets, lse tensor.Buffer, scale float64,
	grad bool) {
	C.call_cross_entropy_shard(k.table, cFloats(loss), cMat(logits), cInts(targets), cFloats(lse), C.float(scale),
		cBool(grad))
}

func (k cKernels) embedBackward(dw, dx tensor.Mat, ids tensor.Buffer) {
	C.call_embed_backward(k.table, cMat(dw), cMat(dx), cInts(ids))
}

func (k cKernels) adamW(p, master, m, v, g tensor.Buffer, n adamWNumbers[float32]) {
	C.call_adamw(k.table, cVec(p), cFloats(master), cFloats(m), cFloats(v), cFloats(g), C.adamw_numbers{
		clip: C.float(n.clip), keep: C.float(n.keep), beta2: C.float(n.beta2), rest1: C.float(n.rest1),
		rest2: C.float(n.rest2), rate: C.float(n.rate), root2: C.float(n.root2), eps: C.float(n.eps)})
}

func (k cKernels) sum(sums []float64, x tensor.Buffer, squares bool) {
	C.call_sum(k.table, (*C.double)(unsafe.SliceData(sums)), cVec(x), sumBlock, cBool(squares))
}

func (k cKernels) add(dst, a, b tensor.Buffer) {
	C.call_add(k.table, cFloats(dst), cFloats(a), cFloats(b), C.int64_t(dst.Len()))
}

func (k cKernels) cast(dst, src tensor.Buffer) { C.call_cast(k.table, cVec(dst), cVec(src)) }

func (k cKernels) exps(x []float32) {
	C.call_exps(k.table, (*C.float)(unsafe.SliceData(x)), C.int64_t(len(x)))
}
