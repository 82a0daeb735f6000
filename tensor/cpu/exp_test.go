package cpu

import (
	"math"
	"testing"
)

// expTest is an implementation of the exponential.
type expTest struct {
	exp    func(x []float32)
	lowest float64 // arguments below may give 0
	ulps   float64 // largest error, in units in the last place
}

func exps(t *testing.T) map[string]expTest {
	tests := map[string]expTest{"go": {func(x []float32) {
		for i := range x {
			x[i] *= 2
		}
		expScaled(x, x, 0.5, 0)
	}, math.Inf(-1), 1}}
	for _, name := range kernelNames {
		set, _, err := findKernels(name)
		if err != nil {
			t.Log(err)
			continue
		}
		ulps := 1.0
		if name == "portable" {
			ulps = 2
		}
		tests[name] = expTest{set.exps, math.Log(0x1p-125), ulps}
	}
	return tests
}

// TestExp measures the error over a million arguments from where the result is 0 to where it is infinite.
func TestExp(t *testing.T) {
	var x []float32
	for i := range 1 << 20 {
		x = append(x, -105+195*float32(i)/(1<<20))
	}
	for bits := uint32(0); bits < 0x43000000; bits += 4099 { // also the smallest
		x = append(x, math.Float32frombits(bits), -math.Float32frombits(bits))
	}
	for name, e := range exps(t) {
		t.Run(name, func(t *testing.T) {
			got := append([]float32(nil), x...)
			e.exp(got)
			worst, at := 0.0, float32(0)
			for i, y := range got {
				want := math.Exp(float64(x[i]))
				if float64(x[i]) < e.lowest && y == 0 {
					continue
				}
				if math.IsInf(float64(float32(want)), 0) || want < 0x1p-150 {
					if y != float32(want) {
						t.Fatalf("exp(%v) = %v, want %v", x[i], y, float32(want))
					}
					continue
				}
				_, exponent := math.Frexp(want)
				ulp := math.Ldexp(1, max(exponent-24, -149))
				if err := math.Abs(float64(y)-want) / ulp; err > worst {
					worst, at = err, x[i]
				}
			}
			if worst > e.ulps {
				t.Errorf("exp(%v) is off by %.3f units in the last place, want at most %v", at, worst, e.ulps)
			}
			t.Logf("largest error: %.3f units in the last place, at %v", worst, at)
		})
	}
}

func TestExpExtremes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	x := []float32{0, inf, -inf, 1e38, -1e38, nan, 88.72284, float32(math.Copysign(0, -1)), 1e-45}
	want := []float32{1, inf, 0, inf, 0, nan, inf, 1, 1}
	for name, e := range exps(t) {
		for n := 1; n <= len(x); n++ { // 9 is past the vectors' ends
			got := append([]float32(nil), x[len(x)-n:]...)
			e.exp(got)
			for i, y := range got {
				x, want := x[len(x)-n+i], want[len(x)-n+i]
				if y != want && !(y != y && want != want) && !(y == 0 && float64(x) < e.lowest) {
					t.Errorf("%s: exp(%v) = %v, want %v", name, x, y, want)
				}
			}
		}
	}
}
