package cpu

import (
	"fmt"
	"math"

	"github.com/herdtrain/herd/tensor"
)

// Upload copies src into dst.
func (d *Device) Upload(q tensor.Queue, dst tensor.Buffer, src []byte) {
	checkSizes("Upload", dst.Bytes(), int64(len(src)))
	split(q, 1, 1, func(_, _ int) { copy(tensor.HostBytes(dst), src) })
}

// Download copies src into dst.
func (d *Device) Download(q tensor.Queue, dst []byte, src tensor.Buffer) {
	checkSizes("Download", int64(len(dst)), src.Bytes())
	split(q, 1, 1, func(_, _ int) { copy(dst, tensor.HostBytes(src)) })
}

func checkSizes(op string, dst, src int64) {
	if dst != src {
		panic(fmt.Sprintf("cpu: %s: %d bytes into %d", op, src, dst))
	}
}

// Fill sets every element of dst to v, rounded to its dtype.
func (d *Device) Fill(q tensor.Queue, dst tensor.Buffer, v float64) {
	split(q, dst.Len(), d.elementGrain(), func(i0, i1 int) {
		switch b := dst.Slice(i0, i1); b.DType() {
		case tensor.F32:
			fill(tensor.Host[float32](b), float32(v))
		case tensor.F64:
			fill(tensor.Host[float64](b), v)
		case tensor.BF16:
			fill(tensor.Host[tensor.BFloat16](b), bfloat16(v))
		case tensor.I32:
			fill(tensor.Host[int32](b), int32(v))
		}
	})
}

func fill[T any](dst []T, v T) {
	if len(dst) == 0 {
		return
	}
	dst[0] = v
	for n := 1; n < len(dst); n *= 2 {
		copy(dst[n:], dst[:n])
	}
}

// Cast converts src to dst's dtype. Integers are not converted.
func (d *Device) Cast(q tensor.Queue, dst, src tensor.Buffer) {
	check("Cast(dst, src)", dst.Len() == src.Len() && casts(dst, src), vector(dst), vector(src))
	split(q, dst.Len(), d.elementGrain(), func(i0, i1 int) { d.cast(dst.Slice(i0, i1), src.Slice(i0, i1)) })
}

// Copy is Cast of matrices.
func (d *Device) Copy(q tensor.Queue, dst, src tensor.Mat) {
	check("Copy(dst, src)", dst.Rows == src.Rows && dst.Cols == src.Cols && casts(dst.Buffer, src.Buffer), dst, src)
	split(q, dst.Rows, max(1, d.elementGrain()/max(1, dst.Cols)), func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			d.cast(dst.RowRange(i, i+1).Buffer, src.RowRange(i, i+1).Buffer)
		}
	})
}

// casts says whether the dtypes can be converted.
func casts(dst, src tensor.Buffer) bool {
	return dst.DType() == src.DType() || dst.DType() != tensor.I32 && src.DType() != tensor.I32
}

func (d *Device) cast(dst, src tensor.Buffer) {
	switch {
	case dst.DType() == src.DType():
		copy(tensor.HostBytes(dst), tensor.HostBytes(src))
	case src.DType() == tensor.F64 && dst.DType() == tensor.F32:
		convert(tensor.Host[float32](dst), tensor.Host[float64](src))
	case src.DType() == tensor.F64:
		out := tensor.Host[tensor.BFloat16](dst)
		for i, v := range tensor.Host[float64](src) {
			out[i] = bfloat16(v)
		}
	case src.DType() == tensor.F32 && dst.DType() == tensor.F64:
		convert(tensor.Host[float64](dst), tensor.Host[float32](src))
	case d.c != nil && dst.DType() != tensor.F64:
		d.c.cast(dst, src)
	case src.DType() == tensor.F32:
		rowsOf[float32](vector(dst)).store(0, tensor.Host[float32](src))
	case dst.DType() == tensor.F64:
		out := tensor.Host[float64](dst)
		for i, v := range tensor.Host[tensor.BFloat16](src) {
			out[i] = float64(v.Float32())
		}
	default:
		rowsOf[float32](vector(src)).read(0, tensor.Host[float32](dst))
	}
}

func convert[T, S float](dst []T, src []S) {
	for i, v := range src {
		dst[i] = T(v)
	}
}

// bfloat16 rounds v once. Going through float32 would round twice, so that step rounds to odd: towards zero, with the
// last bit set if anything was lost.
func bfloat16(v float64) tensor.BFloat16 {
	f := float32(v)
	if float64(f) != v && v == v {
		u := math.Float32bits(f)
		if math.Abs(float64(f)) > math.Abs(v) {
			u--
		}
		f = math.Float32frombits(u | 1)
	}
	return tensor.ToBFloat16(f)
}
