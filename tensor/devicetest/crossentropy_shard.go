package devicetest

import (
	"math"
	"slices"

	"github.com/herdtrain/herd/tensor"
)

// logSumExp is log Σ exp(x).
func logSumExp(x []float64) float64 {
	top, sum := max(slices.Max(x), -math.MaxFloat64), 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return math.Log(sum) + top
}

// extreme is n rows of v random logits, rounded to the suite's dtype, some of them −∞; of the first rows, where there
// are as many, no F32 or F64 holds the exponentials, or all are −∞.
func (s *suite) extreme(n, v int) []float64 {
	x, offset := s.random(s.dt, n*v, 4), append([]float64{256, 1e5, math.Inf(-1), -1e5}, make([]float64, n)...)
	for i := range x {
		x[i] += offset[i/v]
		if i%v > 0 && s.rng.IntN(20) == 0 {
			x[i] = math.Inf(-1)
		}
	}
	return decode(s.dt, encode(s.dt, x), n*v)
}

func testLogSumExp(s *suite) {
	n, v, acc := s.size(9, 60), s.size(70, 200), s.dt.Accum()
	xv := s.extreme(n, v)
	x, lse := s.grid(s.dt, n, v, xv), s.alloc(acc, n)
	s.dev.LogSumExp(s.q, lse, x.Mat)
	s.equal("logits", s.getGrid(x), xv)
	for i, got := range s.get(lse) {
		if want := logSumExp(xv[i*v:][:v]); math.IsInf(want, -1) {
			s.equal("lse of -∞", []float64{got}, []float64{want})
		} else {
			s.near("lse", acc, []float64{got}, []float64{want})
		}
	}
	nothing := make([]float64, n)
	for i := range nothing {
		nothing[i] = math.Inf(-1)
	}
	s.dev.LogSumExp(s.q, lse, x.ColRange(v, v))
	s.equal("lse of no columns", s.get(lse), nothing)
	s.dev.LogSumExp(s.q, lse.Slice(0, 0), x.RowRange(0, 0))
	s.dev.LogSumExp(s.q, lse.Slice(0, 0), tensor.Matrix(s.alloc(s.dt, 0), 0, 0))
	s.equal("lse after one of no rows", s.get(lse), nothing)
}

// testCrossEntropyShard has columns whose row goes on elsewhere.
func testCrossEntropyShard(s *suite) {
	n, v, scale, acc := s.size(9, 60), s.size(70, 200), 0.7, s.dt.Accum()
	xv, targets, lses := s.extreme(n, v), make([]int32, n), make([]float64, n)
	elsewhere := []int32{tensor.NoTarget, tensor.NoTarget + 1, -1, int32(v), math.MaxInt32}
	for i := range targets {
		targets[i] = int32(s.rng.IntN(v))
		if math.IsInf(xv[i*v+int(targets[i])], -1) || s.rng.IntN(2) == 0 {
			targets[i] = elsewhere[s.rng.IntN(len(elsewhere))]
		}
		lses[i] = logSumExp(append([]float64{4 * s.rng.NormFloat64()}, xv[i*v:][:v]...))
	}
	lses = decode(acc, encode(acc, lses), n)
	wantLoss, want := make([]float64, n), make([]float64, n*v)
	for i, target := range targets {
		for j, l := range xv[i*v:][:v] {
			if target != tensor.NoTarget {
				want[i*v+j] = math.Exp(l-lses[i]) * scale
			}
			if int(target) == j {
				wantLoss[i] = lses[i] - l
				want[i*v+j] -= scale
			}
		}
	}
	x, loss, t, lse := s.grid(s.dt, n, v, xv), s.put(acc, s.random(acc, n, 1)), s.putInts(targets), s.put(acc, lses)
	s.dev.CrossEntropyShard(s.q, loss, x.Mat, t, lse, scale, false)
	s.equal("logits", s.getGrid(x), xv)
	alone := s.get(loss)
	s.dev.Fill(s.q, loss, 1)
	s.dev.CrossEntropyShard(s.q, loss, x.Mat, t, lse, scale, true)
	s.equal("loss with gradient", s.get(loss), alone)
	got := s.getGrid(x)
	for i := range n {
		s.near("loss", acc, alone[i:i+1], wantLoss[i:i+1])
		s.near("gradient", s.dt, got[i*v:][:v], want[i*v:][:v])
	}

	s.dev.CrossEntropyShard(s.q, loss.Slice(0, 0), x.RowRange(0, 0), t.Slice(0, 0), lse.Slice(0, 0), scale, true)
	s.equal("loss after one of no rows", s.get(loss), alone)
	s.dev.CrossEntropyShard(s.q, loss, x.ColRange(0, 0), t, lse, scale, true)
	s.equal("loss of no columns", s.get(loss), make([]float64, n))
	s.equal("gradient after one of no columns", s.getGrid(x), got)
}

// testVocabularyInShards cuts the columns of the logits into shards, some of them empty: the losses add up to
// CrossEntropy's, and the gradients are its, within the rounding of lse.
func testVocabularyInShards(s *suite) {
	n, v, scale, acc := s.size(9, 60), s.size(70, 200), 0.7, s.dt.Accum()
	xv, targets := s.random(s.dt, n*v, 4), make([]int32, n)
	for i := range targets {
		targets[i] = int32(s.rng.IntN(v+v/4+1) - v/4 - 1)
	}
	whole, wantLoss := s.grid(s.dt, n, v, xv), s.alloc(acc, n)
	s.dev.CrossEntropy(s.q, wantLoss, whole.Mat, s.putInts(targets), scale, true)
	for shards := 1; shards <= 4; shards++ {
		cuts := []int{0, v}
		for range shards - 1 {
			cuts = append(cuts, s.rng.IntN(v+1))
		}
		slices.Sort(cuts)
		x, lse, loss := s.grid(s.dt, n, v, xv), s.alloc(acc, n), s.alloc(acc, n)
		parts := make([]float64, n*shards) // [n, shards]
		for k := range shards {
			s.dev.LogSumExp(s.q, lse, x.ColRange(cuts[k], cuts[k+1]))
			for i, l := range s.get(lse) {
				parts[i*shards+k] = l
			}
		}
		s.dev.LogSumExp(s.q, lse, tensor.Matrix(s.put(acc, parts), n, shards))
		sum := s.put(acc, make([]float64, n))
		for k := range shards {
			shifted := slices.Clone(targets)
			for i, target := range targets {
				shifted[i] = target - int32(cuts[k])
				if target < 0 {
					shifted[i] = tensor.NoTarget
				}
			}
			s.dev.CrossEntropyShard(s.q, loss, x.ColRange(cuts[k], cuts[k+1]), s.putInts(shifted), lse, scale, true)
			s.dev.Add(s.q, sum, sum, loss)
		}
		s.nearRows("loss", acc, s.get(sum), s.get(wantLoss), s.get(lse))
		got := s.getGrid(x)
		s.nearRows("gradient", s.dt, got, s.getGrid(whole), s.get(lse))
		total := func(in [][]float64) float64 {
			sum := 0.0
			for _, l := range crossEntropy(in[0], v, targets) {
				sum += l * scale
			}
			return sum
		}
		s.derivative("logits", total, [][]float64{xv}, [][]float64{got})
	}
}

// nearRows compares what was computed, in two ways, from logits with the given LogSumExp of each row: within a few
// steps of its precision, and for BF16 one step of each value.
func (s *suite) nearRows(what string, dt tensor.DType, got, want, lse []float64) {
	s.Helper()
	epsilon := 0x1p-23
	if dt == tensor.F64 {
		epsilon = 0x1p-52
	}
	cols := len(want) / len(lse)
	for i, x := range want {
		tolerance := epsilon * (4 + math.Abs(lse[i/cols]) + math.Abs(x))
		if dt == tensor.BF16 {
			tolerance += math.Abs(x) / 128
		}
		if !(math.Abs(got[i]-x) <= tolerance) {
			s.Fatalf("%s: element %d of row %d is %v, want %v within %.2g", what, i%cols, i/cols, got[i], x, tolerance)
		}
	}
}
