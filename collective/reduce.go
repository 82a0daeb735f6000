package collective

import (
	"unsafe"

	"github.com/herdtrain/herd/tensor"
)

// lane is how many elements are reduced at once, so that what lies between the terms stays in the nearest cache.
const lane = 512

// reduce sets dst to the reduction of terms, in their order, element by element. All have the same length in bytes, a
// multiple of dt's size. dst may be one of the terms.
func reduce(r Reduction, dt tensor.DType, dst []byte, terms [][]byte) {
	if len(terms) == 1 {
		copy(dst, terms[0])
		return
	}
	switch dt {
	case tensor.F32:
		reduceAs[float32](r, dst, terms)
	case tensor.F64:
		reduceAs[float64](r, dst, terms)
	case tensor.I32:
		reduceAs[int32](r, dst, terms)
	case tensor.BF16:
		reduceBF16(r, dst, terms)
	}
}

func elements[T any](b []byte) []T {
	var z T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(z)))
}

func reduceAs[T float32 | float64 | int32](r Reduction, dst []byte, terms [][]byte) {
	if len(terms) == 2 {
		combine(r, elements[T](dst), elements[T](terms[0]), elements[T](terms[1]))
		return
	}
	var scratch [lane]T
	out, last := elements[T](dst), len(terms)-1
	for i := 0; i < len(out); i += lane {
		j := min(i+lane, len(out))
		acc := scratch[:j-i]
		combine(r, acc, elements[T](terms[0])[i:j], elements[T](terms[1])[i:j])
		for _, t := range terms[2:last] {
			combine(r, acc, acc, elements[T](t)[i:j])
		}
		combine(r, out[i:j], acc, elements[T](terms[last])[i:j])
	}
}

// combine sets dst to the reduction of a and b. All have one length; dst may be a or b.
func combine[T float32 | float64 | int32](r Reduction, dst, a, b []T) {
	if r == Max {
		largest(dst, a, b)
	} else {
		add(dst, a, b)
	}
}

// add sets dst to a + b.
func add[T float32 | float64 | int32](dst, a, b []T) {
	a, b = a[:len(dst)], b[:len(dst)]
	if d, ok := any(dst).([]float32); ok {
		n := addVectors(d, any(a).([]float32), any(b).([]float32))
		dst, a, b = dst[n:], a[n:], b[n:]
	}
	for len(dst) >= 8 {
		d, x, y := (*[8]T)(dst), (*[8]T)(a), (*[8]T)(b)
		d[0], d[1], d[2], d[3] = x[0]+y[0], x[1]+y[1], x[2]+y[2], x[3]+y[3]
		d[4], d[5], d[6], d[7] = x[4]+y[4], x[5]+y[5], x[6]+y[6], x[7]+y[7]
		dst, a, b = dst[8:], a[8:], b[8:]
	}
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

// largest sets dst to the larger of a and b, NaN if either is.
func largest[T float32 | float64 | int32](dst, a, b []T) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = max(a[i], b[i])
	}
}

// reduceBF16 works in fp32 and rounds once.
func reduceBF16(r Reduction, dst []byte, terms [][]byte) {
	var scratch [lane]float32
	out := elements[tensor.BFloat16](dst)
	for i := 0; i < len(out); i += lane {
		j := min(i+lane, len(out))
		acc := scratch[:j-i]
		for k, v := range elements[tensor.BFloat16](terms[0])[i:j] {
			acc[k] = v.Float32()
		}
		for _, t := range terms[1:] {
			for k, v := range elements[tensor.BFloat16](t)[i:j] {
				if r == Max {
					acc[k] = max(acc[k], v.Float32())
				} else {
					acc[k] += v.Float32()
				}
			}
		}
		for k, v := range acc {
			out[i+k] = tensor.ToBFloat16(v)
		}
	}
}
