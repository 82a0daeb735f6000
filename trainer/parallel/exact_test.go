package parallel

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// TestExact compares sums of numbers of every size with those of package math/big, in any order and spread over ranks.
func TestExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := rapid.SliceOf(rapid.Float64Range(-1e300, 1e300)).Draw(t, "terms")
		ranks := rapid.IntRange(1, 5).Draw(t, "ranks")
		want := new(big.Float).SetPrec(4000)
		var whole Exact
		parts := make([]Exact, ranks)
		for i, x := range terms {
			x = math.Ldexp(x, -i%1300)
			want.Add(want, new(big.Float).SetFloat64(x))
			whole.Add(x)
			parts[(i*7)%ranks].Add(x)
		}
		sum, limbs := make([]float64, ExactLimbs), make([]float64, ExactLimbs)
		for i := range parts {
			parts[i].Limbs(limbs)
			for j, v := range limbs {
				sum[j] += v
			}
		}
		var spread Exact
		spread.SetLimbs(sum)
		got := whole.Value()
		if x := spread.Value(); x != got {
			t.Fatalf("over %d ranks %v, on one %v", ranks, x, got)
		}
		exact, _ := want.Float64()
		if math.Abs(got-exact) > math.Abs(exact)*0x1p-51 {
			t.Fatalf("sum %v, want %v", got, exact)
		}
	})
}

func TestExactNotFinite(t *testing.T) {
	for _, terms := range [][]float64{{1, math.Inf(1)}, {math.Inf(-1), 2}, {math.NaN(), 1}, {math.Inf(1), math.Inf(-1)}} {
		var e Exact
		want := 0.0
		for _, x := range terms {
			e.Add(x)
			want += x
		}
		if got := e.Value(); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("sum of %v is %v, want %v", terms, got, want)
		}
	}
}
