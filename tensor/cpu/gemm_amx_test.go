package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// testTiles calls f for the kernels with tiles that run here.
func testTiles(t *testing.T, f func(t *testing.T, kernels string, gemm gemmFunc)) {
	testGemms(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		if kernels == "amx" || kernels == "amx-emulated" {
			f(t, kernels, gemm)
		}
	})
}

// tileDTypes are the dtypes of c, a, b for products on tiles.
var tileDTypes = [][3]tensor.DType{{tensor.F32, tensor.BF16, tensor.BF16}, {tensor.BF16, tensor.BF16, tensor.BF16}}

func TestTileGemm(t *testing.T) {
	testTiles(t, func(t *testing.T, _ string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(11, 12))
		size := func() int { return gemmSizes[r.IntN(len(gemmSizes))] }
		for range 30 {
			for _, form := range gemmForms {
				for _, dt := range tileDTypes {
					c, a, b := randomProduct(r, form, size(), size(), size(), dt)
					checkGemm(t, gemm, form, c, a, b, r.IntN(2) == 0)
				}
			}
		}
	})
}

// TestTileGemmBlocks crosses every loop of the blocked algorithm: 256 deep, 256 and 512 rows, 512 columns.
func TestTileGemmBlocks(t *testing.T) {
	testTiles(t, func(t *testing.T, _ string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(13, 14))
		for _, form := range gemmForms {
			for i, s := range [][3]int{{290, 33, 515}, {5, 530, 257}, {545, 3, 300}, {3, 5, 1031}, {64, 64, 256}} {
				c, a, b := randomProduct(r, form, s[0], s[1], s[2], tileDTypes[i%2])
				checkGemm(t, gemm, form, c, a, b, i%3 == 0)
			}
		}
	})
}

// TestTileGemmBits checks that an element's bits depend on its two vectors alone, and are those of real tiles where
// there are some.
func TestTileGemmBits(t *testing.T) {
	want := map[string]tensor.Mat{}
	testTiles(t, func(t *testing.T, kernels string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(15, 16))
		for _, form := range gemmForms {
			for i, s := range [][2]int{{131, 67}, {40, 150}} {
				m, n, k := s[0], s[1], 301
				c, a, b := randomProduct(r, form, m, n, k, tileDTypes[i])
				before := clone(c)
				gemm(form, c, a, b, true)
				name := fmt.Sprint(formNames[form], s)
				if first, ok := want[name]; !ok {
					want[name] = c
				} else if !sameBits(first, c) {
					t.Errorf("%s: other bits than the kernels before", name)
				}
				for _, threads := range []int{2, 3, 7} {
					parallel, _, err := openGemm(t, threads, kernels)
					if err != nil {
						t.Fatal(err)
					}
					other := clone(before)
					parallel(form, other, a, b, true)
					if !sameBits(other, c) {
						t.Errorf("%s: other bits with %d threads", name, threads)
					}
				}
				rows, cols := a.RowRange, b.ColRange
				if form == tensor.TN {
					rows = a.ColRange
				}
				if form == tensor.NT {
					cols = b.RowRange
				}
				i0, i1, j0, j1 := r.IntN(m/2), m/2+r.IntN(m/2), r.IntN(n/2), n/2+r.IntN(n/2)
				other := clone(before)
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
	})
}

// TestTileOrder holds products against the documented order of sums, bit for bit. With factors of nearly the same size a
// multiply-add is exact in float64, so that its rounding to float32 is the only one.
func TestTileOrder(t *testing.T) {
	testTiles(t, func(t *testing.T, _ string, gemm gemmFunc) {
		r := rand.New(rand.NewPCG(17, 18))
		factor := func() float32 {
			return float32(1-2*r.IntN(2)) * (1 + float32(r.IntN(128))/128) * float32(int(1)<<r.IntN(4))
		}
		for _, form := range gemmForms {
			m, n, k := 18, 35, 291
			c, a, b := randomProduct(r, form, m, n, k, tileDTypes[0])
			for _, x := range []tensor.Mat{a, b} {
				for i := range x.Rows {
					for j := range x.Cols {
						set(x, i, j, factor())
					}
				}
			}
			gemm(form, c, a, b, false)
			rows, cols := vectors(a, form == tensor.TN), vectors(b, form != tensor.NT)
			for i, x := range rows {
				for j, y := range cols {
					if got, want := get(c, i, j), tileSum(x, y); got != want {
						t.Fatalf("%s: element (%d,%d) is %g, want %g", formNames[form], i, j, got, want)
					}
				}
			}
		}
	})
}

// tileSum is x·y in the order of gemm_amx_kernel.h.
func tileSum(x, y []float64) float32 {
	var sum float32
	for k0 := 0; k0 < len(x); k0 += 32 {
		var parts [2]float32
		for k := k0; k < min(k0+32, len(x)); k++ {
			parts[k%2] = float32(float64(parts[k%2]) + x[k]*y[k])
		}
		sum += parts[0] + parts[1]
	}
	return sum
}

// TestTileDenormals checks that tiles take and give denormal numbers as zeros.
func TestTileDenormals(t *testing.T) {
	testTiles(t, func(t *testing.T, _ string, gemm gemmFunc) {
		for _, c := range []struct{ x, y, want float32 }{
			{0x1p-100, 0x1p-20, 0x1p-120},
			{0x1p-100, 0x1p-26, 0x1p-126},
			{0x1p-100, 0x1p-27, 0}, // the product is denormal
			{0x1p-127, 0x1p10, 0},  // a factor is
			{0x1p10, -0x1p-127, 0},
		} {
			product, a, b := randomProduct(rand.New(rand.NewPCG(0, 0)), tensor.NT, 1, 1, 1, tileDTypes[0])
			set(a, 0, 0, c.x)
			set(b, 0, 0, c.y)
			gemm(tensor.NT, product, a, b, false)
			if got := get(product, 0, 0); got != c.want {
				t.Errorf("%g·%g is %g, want %g", c.x, c.y, got, c.want)
			}
		}
	})
}

// TestTileNotFinite checks that NaN and infinity reach the elements that they belong to, and no others.
func TestTileNotFinite(t *testing.T) {
	testTiles(t, func(t *testing.T, _ string, gemm gemmFunc) {
		for _, form := range gemmForms {
			c, a, b := randomProduct(rand.New(rand.NewPCG(7, 8)), form, 37, 41, 5, tileDTypes[0])
			if form == tensor.TN {
				set(a, 2, 33, float32(math.NaN()))
			} else {
				set(a, 33, 2, float32(math.NaN()))
			}
			if form == tensor.NT {
				set(b, 20, 3, float32(math.Inf(1)))
			} else {
				set(b, 3, 20, float32(math.Inf(1)))
			}
			gemm(form, c, a, b, false)
			for i := range c.Rows {
				for j := range c.Cols {
					x := float64(get(c, i, j))
					if math.IsNaN(x) != (i == 33) || math.IsInf(x, 0) != (j == 20 && i != 33) {
						t.Fatalf("%s: element (%d,%d) is %g", formNames[form], i, j, x)
					}
				}
			}
		}
	})
}
