package tensor

import (
	"fmt"
	"unsafe"
)

// Buffer is a typed run of elements in the memory of one device. It is a value: copying it copies the reference, and a
// slice of it is another Buffer over the same memory. The zero Buffer has no elements. A Buffer does not own its
// memory; the Arena or Device that made it does.
type Buffer struct {
	ptr unsafe.Pointer
	n   int
	dt  DType
}

// At makes a Buffer of n elements at an address of the device. For host memory of the Go heap, see HostBuffer.
func At(ptr unsafe.Pointer, dt DType, n int) Buffer { return Buffer{ptr, n, dt} }

// Elem is a Go type whose memory can be a Buffer.
type Elem interface {
	float32 | float64 | BFloat16 | int32
}

// HostBuffer is a Buffer over the memory of s, which it keeps alive.
func HostBuffer[T Elem](s []T) Buffer {
	return Buffer{unsafe.Pointer(unsafe.SliceData(s)), len(s), dtypeOf[T]()}
}

// Host is the memory of b as a Go slice. b must lie in host memory (the CPU device's, or a HostBuffer) and hold T.
func Host[T Elem](b Buffer) []T {
	if b.n == 0 {
		return nil
	}
	if want := dtypeOf[T](); b.dt != want {
		panic(fmt.Sprintf("tensor: a %v buffer read as %v", b.dt, want))
	}
	return unsafe.Slice((*T)(b.ptr), b.n)
}

// HostBytes is the memory of b, which must lie in host memory, as bytes.
func HostBytes(b Buffer) []byte {
	if b.n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(b.ptr), b.n*b.dt.Size())
}

func dtypeOf[T Elem]() DType {
	var z T
	switch any(z).(type) {
	case float32:
		return F32
	case float64:
		return F64
	case BFloat16:
		return BF16
	default:
		return I32
	}
}

// Len is the number of elements.
func (b Buffer) Len() int { return b.n }

// DType is the element type.
func (b Buffer) DType() DType { return b.dt }

// Ptr is the device address of the first element.
func (b Buffer) Ptr() unsafe.Pointer { return b.ptr }

// Bytes is the size in bytes.
func (b Buffer) Bytes() int64 { return int64(b.n) * int64(b.dt.Size()) }

// Slice is elements [i, j).
func (b Buffer) Slice(i, j int) Buffer {
	if i < 0 || j < i || j > b.n {
		panic(fmt.Sprintf("tensor: slice [%d:%d] of a buffer of %d elements", i, j, b.n))
	}
	if b.ptr == nil { // of a plan
		return Buffer{nil, j - i, b.dt}
	}
	return Buffer{unsafe.Add(b.ptr, i*b.dt.Size()), j - i, b.dt}
}

// Mat is a row-major matrix in a Buffer: element (i, j) is element i·Stride + j of it, Stride ≥ Cols.
type Mat struct {
	Buffer
	Rows, Cols, Stride int
}

// Matrix is b as rows × cols without gaps; b must hold exactly that many elements.
func Matrix(b Buffer, rows, cols int) Mat {
	if b.n != rows*cols {
		panic(fmt.Sprintf("tensor: a buffer of %d elements as a %d×%d matrix", b.n, rows, cols))
	}
	return Mat{b, rows, cols, cols}
}

// RowRange is rows [i, j).
func (m Mat) RowRange(i, j int) Mat {
	if i < 0 || j < i || j > m.Rows {
		panic(fmt.Sprintf("tensor: rows [%d:%d] of %d", i, j, m.Rows))
	}
	return m.view(i*m.Stride, j-i, m.Cols)
}

// ColRange is columns [i, j), a view with the same stride.
func (m Mat) ColRange(i, j int) Mat {
	if i < 0 || j < i || j > m.Cols {
		panic(fmt.Sprintf("tensor: columns [%d:%d] of %d", i, j, m.Cols))
	}
	return m.view(i, m.Rows, j-i)
}

func (m Mat) view(off, rows, cols int) Mat {
	if rows == 0 || cols == 0 {
		return Mat{Buffer{m.ptr, 0, m.dt}, rows, cols, m.Stride}
	}
	return Mat{m.Slice(off, off+(rows-1)*m.Stride+cols), rows, cols, m.Stride}
}
