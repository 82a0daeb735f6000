package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

var gemmForms = []tensor.GemmForm{tensor.NT, tensor.NN, tensor.TN}

// testGemms calls f for every kernel that runs here, with the product on one goroutine.
func testGemms(t *testing.T, f func(t *testing.T, kernels string, gemm gemmFunc)) {
	ran := 0
	for _, kernels := range kernelNames {
		gemm, name, err := openGemm(t, 1, kernels)
		if err != nil {
			t.Log(err)
			continue
		}
		if name != kernels {
			t.Errorf("openGemm(%q) is %q", kernels, name)
		}
		ran++
		t.Run(kernels, func(t *testing.T) { f(t, kernels, gemm) })
	}
	if ran == 0 {
		t.Skip("built without cgo")
	}
}

// openGemm is the product of those kernels on so many threads, nil for plain Go, and the kernels' name.
func openGemm(t testing.TB, threads int, kernels string) (gemmFunc, string, error) {
	set, name, err := findKernels(kernels)
	if set == nil {
		return nil, name, err
	}
	return (&gemm{pool: testPool(t, threads), kernels: set}).run, name, nil
}

type gemmFunc = func(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool)

// randomMat is a matrix of normal numbers inside a larger buffer of NaNs.
func randomMat(r *rand.Rand, dt tensor.DType, rows, cols int) tensor.Mat {
	pad := r.IntN(3) * r.IntN(9)
	m := tensor.Mat{Rows: rows, Cols: cols, Stride: cols + pad}
	m.Buffer = nanBuffer(dt, rows*m.Stride+pad)
	for i := range rows {
		for j := range cols {
			set(m, i, j, float32(r.NormFloat64()))
		}
	}
	return m
}

func nanBuffer(dt tensor.DType, n int) tensor.Buffer {
	if dt == tensor.BF16 {
		s := make([]tensor.BFloat16, n)
		for i := range s {
			s[i] = tensor.ToBFloat16(float32(math.NaN()))
		}
		return tensor.HostBuffer(s)
	}
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(math.NaN())
	}
	return tensor.HostBuffer(s)
}

func get(m tensor.Mat, i, j int) float32 {
	if m.DType() == tensor.BF16 {
		return tensor.Host[tensor.BFloat16](m.Buffer)[i*m.Stride+j].Float32()
	}
	return tensor.Host[float32](m.Buffer)[i*m.Stride+j]
}

func set(m tensor.Mat, i, j int, x float32) {
	if m.DType() == tensor.BF16 {
		tensor.Host[tensor.BFloat16](m.Buffer)[i*m.Stride+j] = tensor.ToBFloat16(x)
	} else {
		tensor.Host[float32](m.Buffer)[i*m.Stride+j] = x
	}
}

// vectors are the rows of m, or its columns.
func vectors(m tensor.Mat, columns bool) [][]float64 {
	n, length := m.Rows, m.Cols
	if columns {
		n, length = length, n
	}
	v := make([][]float64, n)
	for i := range v {
		v[i] = make([]float64, length)
		for j := range v[i] {
			if columns {
				v[i][j] = float64(get(m, j, i))
			} else {
				v[i][j] = float64(get(m, i, j))
			}
		}
	}
	return v
}

func clone(m tensor.Mat) tensor.Mat {
	if m.DType() == tensor.BF16 {
		m.Buffer = tensor.HostBuffer(append([]tensor.BFloat16(nil), tensor.Host[tensor.BFloat16](m.Buffer)...))
	} else {
		m.Buffer = tensor.HostBuffer(append([]float32(nil), tensor.Host[float32](m.Buffer)...))
	}
	return m
}

// sameBits compares whole buffers, what lies around the matrices included.
func sameBits(a, b tensor.Mat) bool {
	return string(tensor.HostBytes(a.Buffer)) == string(tensor.HostBytes(b.Buffer))
}

// randomProduct is c, a, b for a product with sums of length k.
func randomProduct(r *rand.Rand, form tensor.GemmForm, m, n, k int, dt [3]tensor.DType) (c, a, b tensor.Mat) {
	c = randomMat(r, dt[0], m, n)
	switch form {
	case tensor.NT:
		return c, randomMat(r, dt[1], m, k), randomMat(r, dt[2], n, k)
	case tensor.NN:
		return c, randomMat(r, dt[1], m, k), randomMat(r, dt[2], k, n)
	}
	return c, randomMat(r, dt[1], k, m), randomMat(r, dt[2], k, n)
}

// checkProduct compares c with the sums in float64, to which add is added if it is not nil.
func checkProduct(t *testing.T, form tensor.GemmForm, c, a, b tensor.Mat, add *tensor.Mat) {
	t.Helper()
	rows, cols := vectors(a, form == tensor.TN), vectors(b, form != tensor.NT)
	for i, x := range rows {
		for j, y := range cols {
			want, size := 0.0, 0.0 // the sum, and the sum of magnitudes
			if add != nil {
				want = float64(get(*add, i, j))
				size = math.Abs(want)
			}
			for l := range x {
				want += x[l] * y[l]
				size += math.Abs(x[l] * y[l])
			}
			// Each of the k roundings of a sum is at most 2⁻²⁴ of it; together they grow like a random walk, by √k.
			tolerance := size * 0x1p-24 * (4 + math.Sqrt(float64(len(x))))
			if c.DType() == tensor.BF16 {
				tolerance += math.Abs(want) * 0x1p-8
			}
			if got := float64(get(c, i, j)); !(math.Abs(got-want) <= tolerance) {
				t.Fatalf("element (%d,%d) of %d×%d, sums of %d: got %g, want %g ± %.2g", i, j, c.Rows, c.Cols, len(x), got,
					want, tolerance)
			}
		}
	}
}

func randomDTypes(r *rand.Rand) (dt [3]tensor.DType) {
	for i := range dt {
		dt[i] = [...]tensor.DType{tensor.F32, tensor.BF16}[r.IntN(2)]
	}
	return dt
}

// Sizes at the edges of the tiles (6×16, 14×32, 32×32, 4×8) and of the blocks (256 deep, 182 or 192 rows), 0, 1, primes.
var gemmSizes = []int{0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 31, 32, 33, 61, 97, 127, 129}

func TestGemm(t *testing.T) {
	testGemms(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(1, 2))
		size := func() int { return gemmSizes[r.IntN(len(gemmSizes))] }
		for range 60 {
			for _, form := range gemmForms {
				m, n, k, dt := size(), size(), size(), randomDTypes(r)
				accumulate := r.IntN(2) == 0
				c, a, b := randomProduct(r, form, m, n, k, dt)
				t.Run(fmt.Sprintf("%s_%dx%dx%d_%v_%t", formNames[form], m, n, k, dt, accumulate), func(t *testing.T) {
					checkGemm(t, gemm, form, c, a, b, accumulate)
				})
			}
		}
	})
}

// checkGemm checks the product, that nothing around c changed, and that c += a·b is c + (a·b) rounded once.
func checkGemm(t *testing.T, gemm gemmFunc, form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	t.Helper()
	before := clone(c)
	gemm(form, c, a, b, accumulate)
	if accumulate {
		checkProduct(t, form, c, a, b, &before)
	} else {
		checkProduct(t, form, c, a, b, nil)
	}
	product := randomMat(rand.New(rand.NewPCG(0, 0)), tensor.F32, c.Rows, c.Cols)
	gemm(form, product, a, b, false)
	want := clone(before)
	for i := range c.Rows {
		for j := range c.Cols {
			x := get(product, i, j)
			if accumulate {
				x += get(before, i, j)
			}
			set(want, i, j, x)
		}
	}
	if !sameBits(c, want) {
		t.Fatal("a·b, then rounded or added, has other bits, or memory around c changed")
	}
}

// TestGemmBlocks crosses every loop of the blocked algorithm.
func TestGemmBlocks(t *testing.T) {
	testGemms(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, form := range gemmForms {
			for _, s := range [][3]int{{200, 35, 515}, {7, 530, 257}, {801, 3, 300}, {3, 5, 1031}} {
				c, a, b := randomProduct(r, form, s[0], s[1], s[2], randomDTypes(r))
				t.Run(fmt.Sprint(formNames[form], s), func(t *testing.T) {
					checkGemm(t, gemm, form, c, a, b, r.IntN(2) == 0)
				})
			}
		}
	})
}

// TestGemmBits checks that an element's bits depend on its two vectors alone: neither on the number of goroutines, nor
// on the rows and columns computed with it, nor, where there are fused multiply-adds, on the instruction set.
func TestGemmBits(t *testing.T) {
	var want map[string]tensor.Mat
	testGemms(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(5, 6))
		got := map[string]tensor.Mat{}
		for _, form := range gemmForms {
			name := formNames[form]
			for _, s := range [][2]int{{67, 41}, {20, 150}} {
				m, n, k := s[0], s[1], 300
				c, a, b := randomProduct(r, form, m, n, k, [3]tensor.DType{tensor.F32, tensor.BF16, tensor.F32})
				before := clone(c)
				gemm(form, c, a, b, true)
				got[fmt.Sprint(formNames[form], s)] = c
				for threads := 2; threads <= 5; threads++ {
					parallel, _, err := openGemm(t, threads, kernels)
					if err != nil {
						t.Fatal(err)
					}
					other := clone(before)
					parallel(form, other, a, b, true)
					if !sameBits(other, c) {
						t.Errorf("%s %d×%d: other bits with %d threads", name, m, n, threads)
					}
				}
				other, i0, i1, j0, j1 := clone(before), r.IntN(m/2), m/2+r.IntN(m/2), r.IntN(n/2), n/2+r.IntN(n/2)
				rows, cols := a.RowRange, b.ColRange
				if form == tensor.TN {
					rows = a.ColRange
				}
				if form == tensor.NT {
					cols = b.RowRange
				}
				gemm(form, other.RowRange(i0, i1).ColRange(j0, j1), rows(i0, i1), cols(j0, j1), true)
				for i := i0; i < i1; i++ {
					for j := j0; j < j1; j++ {
						if get(other, i, j) != get(c, i, j) {
							t.Fatalf("%s: element (%d,%d) has other bits in rows %d–%d, columns %d–%d", name, i, j, i0, i1, j0, j1)
						}
					}
				}
			}
		}
		if kernels == "portable" {
			return // it rounds products
		}
		for name := range want {
			if !sameBits(want[name], got[name]) {
				t.Errorf("%s: %s has other bits than the kernel before it", name, kernels)
			}
		}
		want = got
	})
}

// TestGemmNotFinite checks that NaN and infinity reach the elements that they belong to, and no others.
func TestGemmNotFinite(t *testing.T) {
	testGemms(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			c, a, b := randomProduct(rand.New(rand.NewPCG(7, 8)), tensor.NN, 9, 21, 5, [3]tensor.DType{dt, dt, dt})
			set(a, 4, 2, float32(math.NaN()))
			set(b, 3, 20, float32(math.Inf(1)))
			gemm(tensor.NN, c, a, b, false)
			for i := range 9 {
				for j := range 21 {
					x := float64(get(c, i, j))
					if math.IsNaN(x) != (i == 4) || math.IsInf(x, 0) != (j == 20 && i != 4) {
						t.Errorf("%v: element (%d,%d) is %g", dt, i, j, x)
					}
				}
			}
		}
	})
}

func TestGemmKernelNames(t *testing.T) {
	if _, _, err := openGemm(t, 1, "sse9"); err == nil {
		t.Error("no error for kernels that do not exist")
	}
	if gemm, name, err := openGemm(t, 1, "go"); gemm != nil || name != "go" || err != nil {
		t.Errorf("go: %q, %v", name, err)
	}
	best := true
	for _, k := range Kernels() {
		_, name, err := openGemm(t, 1, k.Name)
		if k.Available != (err == nil) || k.Available != (k.Why == "") || k.Available && name != k.Name {
			t.Errorf("%+v: %q, %v", k, name, err)
		}
		if k.Available && best {
			best = false
			if _, name, err := openGemm(t, 1, ""); err != nil || name != k.Name {
				t.Errorf("the best of the kernels is %q, not %q: %v", name, k.Name, err)
			}
		}
	}
}

func TestGemmShapesPanic(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	c, a, b := randomProduct(r, tensor.NN, 4, 5, 6, [3]tensor.DType{tensor.F32, tensor.F32, tensor.F32})
	long := c
	long.Rows = 100
	for name, call := range map[string]func(){
		"shape":  func() { gemmDepth(tensor.NT, c, a, b) },
		"buffer": func() { gemmDepth(tensor.NN, long, a, b) },
		"dtype":  func() { gemmDepth(tensor.NN, c, tensor.Matrix(tensor.HostBuffer(make([]float64, 24)), 4, 6), b) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
