package devicetest

import (
	"math"
	"unsafe"

	"github.com/herdtrain/herd/tensor"
)

// guard is what the gaps of a grid hold: no operation may change it.
const guard = 42

// grid is a matrix on the device with gaps between its rows.
type grid struct {
	tensor.Mat
	whole tensor.Buffer // the gaps too
}

// encode rounds v to dt and returns its bytes.
func encode(dt tensor.DType, v []float64) []byte {
	switch dt {
	case tensor.F32:
		out := make([]float32, len(v))
		for i, x := range v {
			out[i] = float32(x)
		}
		return tensor.HostBytes(tensor.HostBuffer(out))
	case tensor.BF16:
		out := make([]tensor.BFloat16, len(v))
		for i, x := range v {
			out[i] = tensor.ToBFloat16(float32(x))
		}
		return tensor.HostBytes(tensor.HostBuffer(out))
	default:
		return tensor.HostBytes(tensor.HostBuffer(append([]float64(nil), v...)))
	}
}

// decode reads n elements of dt.
func decode(dt tensor.DType, b []byte, n int) []float64 {
	out := make([]float64, n)
	if n == 0 {
		return out
	}
	at := tensor.At(unsafe.Pointer(unsafe.SliceData(b)), dt, n)
	for i := range out {
		switch dt {
		case tensor.F32:
			out[i] = float64(tensor.Host[float32](at)[i])
		case tensor.BF16:
			out[i] = float64(tensor.Host[tensor.BFloat16](at)[i].Float32())
		case tensor.I32:
			out[i] = float64(tensor.Host[int32](at)[i])
		default:
			out[i] = tensor.Host[float64](at)[i]
		}
	}
	return out
}

// random is n normal draws times scale, rounded to dt.
func (s *suite) random(dt tensor.DType, n int, scale float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = s.rng.NormFloat64() * scale
	}
	return decode(dt, encode(dt, v), n)
}

func (s *suite) alloc(dt tensor.DType, n int) tensor.Buffer {
	s.Helper()
	b, err := s.dev.Alloc(dt, n)
	if err != nil {
		s.Fatal(err)
	}
	return b
}

// put is a new buffer that holds v.
func (s *suite) put(dt tensor.DType, v []float64) tensor.Buffer {
	s.Helper()
	b := s.alloc(dt, len(v))
	s.dev.Upload(s.q, b, encode(dt, v))
	s.sync()
	return b
}

func (s *suite) putInts(v []int32) tensor.Buffer {
	s.Helper()
	b := s.alloc(tensor.I32, len(v))
	s.dev.Upload(s.q, b, tensor.HostBytes(tensor.HostBuffer(v)))
	s.sync()
	return b
}

// get reads b.
func (s *suite) get(b tensor.Buffer) []float64 {
	s.Helper()
	raw := make([]byte, b.Bytes())
	s.dev.Download(s.q, raw, b)
	s.sync()
	s.digest.Write(raw)
	return decode(b.DType(), raw, b.Len())
}

// grid is a new matrix that holds v, with gaps.
func (s *suite) grid(dt tensor.DType, rows, cols int, v []float64) grid {
	s.Helper()
	stride := cols + s.rng.IntN(4)
	whole := make([]float64, rows*stride)
	for i := range whole {
		whole[i] = guard
		if j := i % stride; j < cols {
			whole[i] = v[i/stride*cols+j]
		}
	}
	b := s.put(dt, whole)
	return grid{tensor.Matrix(b, rows, stride).ColRange(0, cols), b}
}

// blank is a new matrix for results.
func (s *suite) blank(dt tensor.DType, rows, cols int) grid {
	s.Helper()
	return s.grid(dt, rows, cols, s.random(dt, rows*cols, 1))
}

// getGrid reads g and checks its gaps.
func (s *suite) getGrid(g grid) []float64 {
	s.Helper()
	whole := s.get(g.whole)
	v := make([]float64, 0, g.Rows*g.Cols)
	for i, x := range whole {
		if i%g.Stride < g.Cols {
			v = append(v, x)
		} else if x != guard {
			s.Fatalf("a gap of a matrix was overwritten by %v", x)
		}
	}
	return v
}

// near compares what a device stored as dt with the exact values: within 1e-12 of the largest for F64, 1e-5 (and 1e-6
// absolute) for F32, and for BF16, which rounds to 8 bits, also 2^-8 of each value.
func (s *suite) near(what string, dt tensor.DType, got, want []float64) {
	s.Helper()
	if len(got) != len(want) {
		s.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	var largest float64
	for _, x := range want {
		if !math.IsInf(x, 0) {
			largest = max(largest, math.Abs(x))
		}
	}
	for i, x := range want {
		if got[i] == x { // also infinite
			continue
		}
		tolerance := 1e-5*largest + 1e-6
		switch dt {
		case tensor.F64:
			tolerance = 1e-12 * max(largest, 1)
		case tensor.BF16:
			tolerance += math.Abs(x) / 256
		}
		if !(math.Abs(got[i]-x) <= tolerance) {
			s.Fatalf("%s: element %d of %d is %v, want %v within %.2g", what, i, len(want), got[i], x, tolerance)
		}
	}
}

// equal wants the very values.
func (s *suite) equal(what string, got, want []float64) {
	s.Helper()
	if len(got) != len(want) {
		s.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			s.Fatalf("%s: element %d of %d is %v, want %v", what, i, len(want), got[i], want[i])
		}
	}
}

// derivative holds gradients (in F64) of f against its differences along a random direction.
func (s *suite) derivative(what string, f func(in [][]float64) float64, in, grads [][]float64) {
	s.Helper()
	if s.dt != tensor.F64 {
		return
	}
	moved, dir := make([][]float64, len(in)), make([][]float64, len(in))
	var along, norm float64
	for i := range in {
		moved[i] = make([]float64, len(in[i]))
		dir[i] = s.random(tensor.F64, len(in[i]), 1)
		for j, v := range dir[i] {
			along += v * grads[i][j]
			norm += math.Abs(v * grads[i][j])
		}
	}
	at := func(h float64) float64 {
		for i := range in {
			for j, v := range in[i] {
				moved[i][j] = v + h*dir[i][j]
			}
		}
		return f(moved)
	}
	const h = 1e-4
	numeric := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
	if !(math.Abs(along-numeric) <= 1e-8*norm) {
		s.Fatalf("%s: the derivative along a direction is %.12g, differences say %.12g", what, along, numeric)
	}
}

// inner is Σ a·b.
func inner(a, b []float64) float64 {
	var sum float64
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}
