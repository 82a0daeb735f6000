package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

func testSum(s *suite) {
	n := s.size(40, 20000)
	v := s.random(s.dt, n, 1)
	x, sum, squares := s.put(s.dt, v), s.put(tensor.F64, []float64{3}), s.put(tensor.F64, []float64{5})
	s.dev.Sum(s.q, sum, x)
	s.dev.SumSquares(s.q, squares, x)
	want, absolute := 3.0, 0.0
	for _, x := range v {
		want += x
		absolute += math.Abs(x)
	}
	if got := s.get(sum)[0]; !(math.Abs(got-want) <= 1e-13*absolute) {
		s.Errorf("sum %v, want %v", got, want)
	}
	want = 5 + inner(v, v)
	if got := s.get(squares)[0]; !(math.Abs(got-want) <= 1e-13*want) {
		s.Errorf("sum of squares %v, want %v", got, want)
	}
}

func testGate(s *suite) {
	for _, c := range []struct{ loss, sq, maxNorm, clip, open float64 }{
		{1, 0.25, 1, 1, 1},
		{1, 16, 1, 1 / (4 + 1e-6), 1},
		{1, 16, 0, 1, 1},
		{math.NaN(), 0.25, 1, 1, 0},
		{math.Inf(1), 0.25, 1, 1, 0},
		{1, math.Inf(1), 0, 1, 0},
		{1, math.NaN(), 0, 1, 0},
	} {
		gate := s.put(tensor.F64, []float64{9, 9})
		s.dev.Gate(s.q, gate, s.put(tensor.F64, []float64{c.loss}), s.put(tensor.F64, []float64{c.sq}), c.maxNorm)
		s.equal("gate", s.get(gate), []float64{c.clip, c.open})
	}
}

func testAdamW(s *suite) {
	n, acc := s.size(40, 20000), s.dt.Accum()
	step := tensor.AdamWStep{LR: 1e-2, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1}
	wv, mv, vv := s.random(acc, n, 1), make([]float64, n), make([]float64, n)
	master, m, v := s.put(acc, wv), s.put(acc, mv), s.put(acc, vv)
	p := master
	if s.dt != acc || s.rng.IntN(2) == 0 {
		p = s.alloc(s.dt, n)
	}
	gate := s.put(tensor.F64, []float64{0.5, 1})
	for range 3 {
		step.Step++
		gv := s.random(acc, n, 1)
		s.dev.AdamW(s.q, p, master, m, v, s.put(acc, gv), gate, step)
		for i, g := range gv {
			g *= 0.5
			mv[i] = step.Beta1*mv[i] + (1-step.Beta1)*g
			vv[i] = step.Beta2*vv[i] + (1-step.Beta2)*g*g
			mHat := mv[i] / (1 - math.Pow(step.Beta1, float64(step.Step)))
			vHat := vv[i] / (1 - math.Pow(step.Beta2, float64(step.Step)))
			wv[i] = wv[i]*(1-step.LR*step.WeightDecay) - step.LR*mHat/(math.Sqrt(vHat)+step.Eps)
		}
	}
	got := s.get(master)
	s.near("master", acc, got, wv)
	s.near("m", acc, s.get(m), mv)
	s.near("v", acc, s.get(v), vv)
	s.equal("p", s.get(p), decode(s.dt, encode(s.dt, got), n))

	s.dev.Upload(s.q, gate, encode(tensor.F64, []float64{0.5, 0}))
	before := [][]float64{got, s.get(m), s.get(v), s.get(p)}
	s.dev.AdamW(s.q, p, master, m, v, s.put(acc, s.random(acc, n, 1)), gate, step)
	for i, b := range []tensor.Buffer{master, m, v, p} {
		s.equal("a buffer behind a closed gate", s.get(b), before[i])
	}
}
