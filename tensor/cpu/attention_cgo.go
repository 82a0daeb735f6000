//go:build cgo

package cpu

// #include "kernels.h"
import "C"

import "github.com/herdtrain/herd/tensor"

func cAttentionShape(s tensor.AttentionShape) C.attention_shape {
	c := C.attention_shape{
		offset: C.int64_t(s.Offset), start: C.int64_t(s.Start), window: C.int64_t(s.Window), scale: C.float(s.Scale),
	}
	if s.First.Len() > 0 {
		c.first = cInts(s.First)
	}
	return c
}

func (k cKernels) attention(o tensor.Mat, lse tensor.Buffer, q, keys, v tensor.Mat, s tensor.AttentionShape, i0 int,
	work []float32) {
	C.call_attention(k.table, cMat(o), cFloats(lse), cMat(q), cMat(keys), cMat(v), cAttentionShape(s), C.int64_t(i0),
		(*C.float)(&work[0]))
}

func (k cKernels) attentionQueries() int { return int(k.table.queries_per_call) }

func (k cKernels) attentionWorkspace(headDim int) int {
	return int(C.call_attention_workspace(k.table, C.int64_t(headDim)))
}

func (k cKernels) attentionBackward(dq, dk, dv, do, o tensor.Mat, lse tensor.Buffer, q, keys, v tensor.Mat,
	s tensor.AttentionShape, work []float32) {
	C.call_attention_backward(k.table, cMat(dq), cMat(dk), cMat(dv), cMat(do), cMat(o), cFloats(lse), cMat(q), cMat(keys),
		cMat(v), cAttentionShape(s), (*C.float)(&work[0]))
}

func (k cKernels) attentionBackwardWorkspace(s tensor.AttentionShape) int {
	return int(C.call_attention_backward_workspace(k.table, C.int64_t(s.Length), C.int64_t(s.Keys), C.int64_t(s.HeadDim)))
}
