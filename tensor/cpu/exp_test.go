package cpu

import (
	"math"
	"testing"
)

// TestExp32 measures the error of expScaled in units in the last place, over a million arguments from where the result
// is 0 to where it is infinite.
func TestExp32(t *testing.T) {
	exp32 := func(x float32) float32 {
		v := []float32{2 * x}
		expScaled(v, v, 0.5, 0)
		return v[0]
	}
	const bound = 1
	worst, at := 0.0, float32(0)
	check := func(x float32) {
		want := math.Exp(float64(x))
		got := exp32(x)
		if float64(float32(want)) != want && math.IsInf(float64(float32(want)), 0) || want < 0x1p-150 {
			if got != float32(want) {
				t.Fatalf("exp32(%v) = %v, want %v", x, got, float32(want))
			}
			return
		}
		_, e := math.Frexp(want)
		ulp := math.Ldexp(1, max(e-24, -149))
		if err := math.Abs(float64(got)-want) / ulp; err > worst {
			worst, at = err, x
		}
	}
	for i := range 1 << 20 {
		check(-105 + 195*float32(i)/(1<<20))
	}
	for bits := uint32(0); bits < 0x43000000; bits += 4099 { // also the smallest
		check(math.Float32frombits(bits))
		check(-math.Float32frombits(bits))
	}
	if worst > bound {
		t.Errorf("exp32(%v) is off by %.3f units in the last place, want at most %v", at, worst, bound)
	}
	t.Logf("largest error: %.3f units in the last place, at %v", worst, at)
	const half = 1e38 // 2 * half is finite
	inf := float32(math.Inf(1))
	for x, want := range map[float32]float32{0: 1, inf: inf, -inf: 0, half: inf, -half: 0} {
		if got := exp32(x); got != want {
			t.Errorf("exp32(%v) = %v, want %v", x, got, want)
		}
	}
	if got := exp32(float32(math.NaN())); got == got {
		t.Errorf("exp32(NaN) = %v", got)
	}
}
