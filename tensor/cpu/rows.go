package cpu

import (
	"fmt"
	"strings"

	"github.com/herdtrain/herd/tensor"
)

// float is an accumulator type: float32 for F32 and BF16 storage, float64 for F64.
type float interface{ float32 | float64 }

// rows reads and writes the rows of a matrix as A, the accumulator type of its dtype.
type rows[A float] struct {
	wide         []A               // the elements, if their type is A
	narrow       []tensor.BFloat16 // the elements, if not
	cols, stride int
}

func rowsOf[A float](m tensor.Mat) rows[A] {
	r := rows[A]{cols: m.Cols, stride: m.Stride}
	if m.DType() == tensor.BF16 {
		r.narrow = tensor.Host[tensor.BFloat16](m.Buffer)
	} else {
		r.wide = tensor.Host[A](m.Buffer)
	}
	return r
}

// read is row i: the matrix's memory if it holds A, else buf filled with the row.
func (r rows[A]) read(i int, buf []A) []A {
	if r.narrow == nil {
		return r.wide[i*r.stride:][:r.cols]
	}
	buf = buf[:r.cols]
	for j, v := range r.narrow[i*r.stride:][:r.cols] {
		buf[j] = A(v.Float32())
	}
	return buf
}

// dest is where row i is to be computed: the matrix's memory if it holds A, else buf. Call store when done.
func (r rows[A]) dest(i int, buf []A) []A {
	if r.narrow == nil {
		return r.wide[i*r.stride:][:r.cols]
	}
	return buf[:r.cols]
}

// store rounds v, which dest or read gave for row i, into the matrix.
func (r rows[A]) store(i int, v []A) {
	if r.narrow == nil {
		return
	}
	row := r.narrow[i*r.stride:][:r.cols]
	for j, x := range v[:r.cols] {
		row[j] = tensor.ToBFloat16(float32(x))
	}
}

// round rounds v to the matrix's dtype in place.
func (r rows[A]) round(v []A) {
	if r.narrow == nil {
		return
	}
	for j, x := range v {
		v[j] = A(tensor.ToBFloat16(float32(x)).Float32())
	}
}

// vector is b as a matrix of one row.
func vector(b tensor.Buffer) tensor.Mat { return tensor.Matrix(b, 1, b.Len()) }

// scratchMat is a matrix [r, c] without gaps over scratch, and its elements.
func scratchMat[A float](s *scratch, r, c int) (tensor.Mat, []A) {
	v := floats[A](s, r*c)
	return tensor.Matrix(tensor.HostBuffer(v), r, c), v
}

// elementGrain is how many elements are worth the waking of a thread.
func (d *Device) elementGrain() int {
	if d.c == nil {
		return 8 << 10
	}
	return 32 << 10
}

// rowGrain is the least number of rows of cols elements for one thread.
func (d *Device) rowGrain(cols int) int { return max(1, d.elementGrain()/max(cols, 1)) }

// columnGrain is the least number of columns for one thread, four cache lines of F32.
const columnGrain = 64

// check panics with op, which lists the operands' names, and their shapes unless ok.
func check(op string, ok bool, operands ...tensor.Mat) {
	if ok {
		return
	}
	var b strings.Builder
	for i, m := range operands {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%v [%d %d]", m.DType(), m.Rows, m.Cols)
		if m.Stride != m.Cols {
			fmt.Fprintf(&b, " stride %d", m.Stride)
		}
	}
	panic(fmt.Sprintf("cpu: %s: shapes or dtypes do not fit: %s", op, b.String()))
}

// checkIndex panics unless i is in [0, n).
func checkIndex(op, what string, i int32, n int) {
	if !inRange(i, n) {
		panic(fmt.Sprintf("cpu: %s: %s %d is not in [0, %d)", op, what, i, n))
	}
}

// inRange says whether i is in [0, n).
func inRange(i int32, n int) bool { return i >= 0 && int(i) < n }

// like says whether every matrix is rows × cols of dt, a dtype to compute in.
func like(dt tensor.DType, rows, cols int, ms ...tensor.Mat) bool {
	for _, m := range ms {
		if m.DType() != dt || m.Rows != rows || m.Cols != cols {
			return false
		}
	}
	return dt == tensor.F32 || dt == tensor.BF16 || dt == tensor.F64
}

// holds says whether b is n elements of dt.
func holds(b tensor.Buffer, dt tensor.DType, n int) bool { return b.DType() == dt && b.Len() == n }
