package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// kernelNames are the C kernels, the emulated ones too.
var kernelNames = []string{"amx", "amx-emulated", "avx512", "avx512-emulated", "avx2", "portable"}

// testKernels calls f for each of kernelNames that runs here.
func testKernels(t *testing.T, f func(t *testing.T, kernels string)) {
	ran := 0
	for _, kernels := range kernelNames {
		if _, _, err := findKernels(kernels); err != nil {
			t.Log(err)
			continue
		}
		ran++
		t.Run(kernels, func(t *testing.T) { f(t, kernels) })
	}
	if ran == 0 {
		t.Skip("built without cgo")
	}
}

// testDevice is a device that ends with the test.
func testDevice(t *testing.T, kernels string, threads int) *Device {
	t.Helper()
	d, err := New(Options{Kernels: kernels, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// rowOutputs is what the operations on rows and elements write, with gaps and all, for n tokens of dim activations that
// the seed determines.
func rowOutputs(d *Device, dt tensor.DType, seed uint64, n, dim int) map[string]tensor.Buffer {
	r, q := rand.New(rand.NewPCG(seed, 1)), d.Queue(tensor.Compute)
	mat := func(cols int) tensor.Mat { return randomMat(r, dt, n, cols) }
	vec := func(dt tensor.DType, n int) tensor.Buffer { return randomMat(r, dt, 1, n).Slice(0, n) }
	ints := func(n, lowest, end int) tensor.Buffer {
		v := make([]int32, n)
		for i := range v {
			v[i] = int32(lowest + r.IntN(end-lowest))
		}
		return tensor.HostBuffer(v)
	}
	out := map[string]tensor.Buffer{}
	x, w, rstd := mat(dim), vec(dt, dim), vec(tensor.F32, n)
	y := mat(dim)
	d.RMSNorm(q, y, rstd, x, w, 1e-5)
	out["RMSNorm y"], out["RMSNorm rstd"] = y.Buffer, rstd

	y, sum, rstd2 := mat(dim), mat(dim), vec(tensor.F32, n)
	d.AddRMSNorm(q, y, rstd2, sum, x, mat(dim), w, 1e-5)
	out["AddRMSNorm y"], out["AddRMSNorm sum"], out["AddRMSNorm rstd"] = y.Buffer, sum.Buffer, rstd2

	for _, accumulate := range []bool{false, true} {
		dx, dw := mat(dim), vec(tensor.F32, dim)
		d.RMSNormBackward(q, dx, dw, mat(dim), x, w, rstd, accumulate)
		out[fmt.Sprint("RMSNormBackward dx ", accumulate)] = dx.Buffer
		out[fmt.Sprint("RMSNormBackward dw ", accumulate)] = dw

		rotated := mat(3 * 2 * dim)
		d.RoPE(q, rotated, ints(n, 0, 5), vec(tensor.F32, 5*2*dim), 2*dim, accumulate)
		out[fmt.Sprint("RoPE ", accumulate)] = rotated.Buffer

		loss, logits := vec(tensor.F32, n), mat(dim)
		d.CrossEntropy(q, loss, logits, ints(n, -1, dim), 0.7, accumulate)
		out[fmt.Sprint("CrossEntropy loss ", accumulate)] = loss
		out[fmt.Sprint("CrossEntropy logits ", accumulate)] = logits.Buffer

		lse, loss, logits := vec(tensor.F32, n), vec(tensor.F32, n), mat(dim)
		d.LogSumExp(q, lse, logits)
		targets := ints(n, -1, dim+1)
		tensor.Host[int32](targets)[n/2] = tensor.NoTarget
		d.CrossEntropyShard(q, loss, logits, targets, lse, 0.7, accumulate)
		out[fmt.Sprint("LogSumExp ", accumulate)] = lse
		out[fmt.Sprint("CrossEntropyShard loss ", accumulate)] = loss
		out[fmt.Sprint("CrossEntropyShard logits ", accumulate)] = logits.Buffer
	}
	gu, h, dgu := mat(2*dim), mat(dim), mat(2*dim)
	d.SwiGLU(q, h, gu)
	d.SwiGLUBackward(q, dgu, mat(dim), gu)
	out["SwiGLU"], out["SwiGLUBackward"] = h.Buffer, dgu.Buffer

	dw := randomMat(r, tensor.F32, 5, dim)
	d.EmbedBackward(q, dw, x, ints(n, -2, 7))
	out["EmbedBackward"] = dw.Buffer

	p, master, m, v := vec(dt, n*dim), vec(tensor.F32, n*dim), vec(tensor.F32, n*dim), vec(tensor.F32, n*dim)
	for i, x := range tensor.Host[float32](v) {
		tensor.Host[float32](v)[i] = x * x
	}
	gate := tensor.HostBuffer([]float64{0.3, 1})
	step := tensor.AdamWStep{LR: 0.1, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Step: 3}
	d.AdamW(q, p, master, m, v, vec(tensor.F32, n*dim), gate, step)
	out["AdamW p"], out["AdamW master"], out["AdamW m"], out["AdamW v"] = p, master, m, v

	sums := tensor.HostBuffer(make([]float64, 2))
	d.Sum(q, sums.Slice(0, 1), p)
	d.SumSquares(q, sums.Slice(1, 2), p)
	out["Sum, SumSquares"] = sums

	a, b := vec(tensor.F32, n*dim), vec(tensor.F32, n*dim)
	d.Add(q, b, a, b)
	out["Add"] = b

	narrow, wide := vec(tensor.BF16, n*dim), vec(tensor.F32, n*dim)
	d.Cast(q, narrow, wide)
	d.Cast(q, wide, narrow)
	d.Fill(q, narrow.Slice(0, n*dim/2), 3)
	out["Cast"], out["Cast, Fill"] = wide, narrow
	return out
}

// unfused says whether an operation uses no fused multiply-adds, and so has the same bits with all C kernels.
func unfused(name string) bool {
	for _, op := range []string{"RoPE", "Embed", "AdamW", "Sum", "Cast", "AddRMSNorm sum"} {
		if strings.HasPrefix(name, op) {
			return true
		}
	}
	return name == "Add"
}

func values(b tensor.Buffer) []float64 {
	if b.DType() == tensor.F64 {
		return tensor.Host[float64](b)
	}
	v, m := make([]float64, b.Len()), tensor.Matrix(b, 1, b.Len())
	for i := range v {
		v[i] = float64(get(m, 0, i))
	}
	return v
}

func sameBytes(a, b tensor.Buffer) bool {
	return string(tensor.HostBytes(a)) == string(tensor.HostBytes(b))
}

// checkNear wants got within 1e-5 of the largest value, for BF16 also two steps of its precision, and NaN for NaN.
func checkNear(t *testing.T, name string, got, want tensor.Buffer) {
	t.Helper()
	largest := 1.0
	for _, x := range values(want) {
		if x == x {
			largest = max(largest, math.Abs(x))
		}
	}
	for i, x := range values(got) {
		want, tolerance := values(want.Slice(i, i+1))[0], 1e-5*largest
		if got.DType() == tensor.BF16 {
			tolerance += math.Abs(want) / 64
		}
		if !(math.Abs(x-want) <= tolerance) && (x == x || want == want) {
			t.Fatalf("%s: element %d is %v, want %v ± %.2g", name, i, x, want, tolerance)
		}
	}
}

// Around the ends of vectors of 4, 8 and 16, and of the 32 lanes of a sum.
var rowSizes = []int{1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 61, 64, 97, 127, 129}

// TestRowKernels holds the C kernels against the plain Go, and against each other.
func TestRowKernels(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	size := func() int { return rowSizes[r.IntN(len(rowSizes))] }
	plain := testDevice(t, goKernels, 1)
	type run struct {
		dt     tensor.DType
		n, dim int
		want   map[string]tensor.Buffer // of plain Go
		bits   map[string]tensor.Buffer // of C
	}
	var runs []run
	for i := range 24 {
		c := run{dt: []tensor.DType{tensor.F32, tensor.BF16}[i%2], n: size(), dim: size()}
		c.want, c.bits = rowOutputs(plain, c.dt, uint64(i), c.n, c.dim), map[string]tensor.Buffer{}
		runs = append(runs, c)
	}
	testKernels(t, func(t *testing.T, kernels string) {
		d := testDevice(t, kernels, 1)
		for i, c := range runs {
			for name, got := range rowOutputs(d, c.dt, uint64(i), c.n, c.dim) {
				what := fmt.Sprintf("%s %v %d×%d", name, c.dt, c.n, c.dim)
				checkNear(t, what, got, c.want[name])
				if kernels == "portable" && !unfused(name) {
					continue // it rounds products
				}
				if bits, ok := c.bits[name]; ok && !sameBytes(got, bits) {
					t.Errorf("%s: other bits than the kernels before", what)
				}
				c.bits[name] = got
			}
		}
	})
}

// TestRowThreads wants the same bits from any number of threads, with sizes that are split.
func TestRowThreads(t *testing.T) {
	testKernels(t, func(t *testing.T, kernels string) {
		for i, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			want := rowOutputs(testDevice(t, kernels, 1), dt, uint64(i), 601, 131)
			for _, threads := range []int{2, 3, 7} {
				for name, got := range rowOutputs(testDevice(t, kernels, threads), dt, uint64(i), 601, 131) {
					if !sameBytes(got, want[name]) {
						t.Errorf("%s %v: other bits with %d threads", name, dt, threads)
					}
				}
			}
		}
	})
}

// TestRowNotFinite wants NaN and infinity to stay in their rows.
func TestRowNotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	testKernels(t, func(t *testing.T, kernels string) {
		d := testDevice(t, kernels, 1)
		q := d.Queue(tensor.Compute)
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			x := randomMat(rand.New(rand.NewPCG(13, 14)), dt, 5, 37)
			set(x, 1, 36, nan)
			set(x, 2, 3, -inf)
			set(x, 3, 35, inf)
			loss := tensor.HostBuffer(make([]float32, 5))
			d.CrossEntropy(q, loss, x, tensor.HostBuffer([]int32{1, 1, 1, 1, 36}), 1, true)
			for i, v := range tensor.Host[float32](loss) {
				if bad := i == 1 || i == 3; (v != v) != bad {
					t.Errorf("%v: the loss of row %d is %v", dt, i, v)
				}
			}
			if got := get(x, 2, 3); got != 0 {
				t.Errorf("%v: the gradient of a logit of -∞ is %v", dt, got)
			}

			x = randomMat(rand.New(rand.NewPCG(13, 14)), dt, 5, 37)
			set(x, 1, 36, nan)
			set(x, 3, 35, inf)
			for j := range 37 {
				set(x, 2, j, -inf)
				set(x, 4, j, -inf)
			}
			set(x, 4, 20, nan)
			lse := tensor.HostBuffer(make([]float32, 5))
			d.LogSumExp(q, lse, x)
			for i, v := range tensor.Host[float32](lse) {
				if bad := i == 1 || i == 3 || i == 4; (v != v) != bad || i == 2 && v != -inf {
					t.Errorf("%v: the LogSumExp of row %d is %v", dt, i, v)
				}
			}
		}
	})
}

// TestCastBits wants the rounding of tensor.ToBFloat16 for any bits.
func TestCastBits(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	bits := []uint32{0, 1, 0x7f800000, 0xff800000, 0x7f800001, 0x7fffffff, 0xffffffff, 0x7f7fffff, 0x00008000, 0x3f808000}
	for range 1000 {
		u := r.Uint32()
		bits = append(bits, u, u&0xffff8000) // the second often is a tie
	}
	var x []float32
	var want []tensor.BFloat16
	for _, u := range bits {
		x = append(x, math.Float32frombits(u))
		want = append(want, tensor.ToBFloat16(math.Float32frombits(u)))
	}
	testKernels(t, func(t *testing.T, kernels string) {
		d := testDevice(t, kernels, 1)
		for n := len(x) - 17; n <= len(x); n++ {
			got := make([]tensor.BFloat16, n)
			d.Cast(d.Queue(tensor.Compute), tensor.HostBuffer(got), tensor.HostBuffer(x[:n]))
			if !slices.Equal(got, want[:n]) {
				t.Fatal("bits differ from those of tensor.ToBFloat16")
			}
		}
	})
}
