package devicetest

import "math"

// crossEntropy is the loss of each row of logits [n,v].
func crossEntropy(logits []float64, v int, targets []int32) []float64 {
	loss := make([]float64, len(targets))
	for i, target := range targets {
		if target < 0 {
			continue
		}
		row, sum := logits[i*v:][:v], 0.0
		for _, x := range row {
			sum += math.Exp(x)
		}
		loss[i] = math.Log(sum) - row[target]
	}
	return loss
}

func testCrossEntropy(s *suite) {
	n, v, scale := s.size(9, 60), s.size(70, 200), 0.7
	acc := s.dt.Accum()
	xv, targets := s.random(s.dt, n*v, 4), make([]int32, n)
	for i := range v { // a row whose exponentials no F32 holds
		xv[i] += 256
	}
	xv = decode(s.dt, encode(s.dt, xv), n*v)
	for i := range targets {
		targets[i] = int32(s.rng.IntN(v+v/4+1) - v/4 - 1)
	}
	wantLoss, want := crossEntropy(xv, v, targets), make([]float64, n*v)
	for i, target := range targets {
		if target < 0 {
			continue
		}
		for j := range v {
			want[i*v+j] = math.Exp(xv[i*v+j]-wantLoss[i]-xv[i*v+int(target)]) * scale
		}
		want[i*v+int(target)] -= scale
	}
	x, loss, t := s.grid(s.dt, n, v, xv), s.put(acc, make([]float64, n)), s.putInts(targets)
	s.dev.CrossEntropy(s.q, loss, x.Mat, t, scale, false)
	s.near("loss alone", acc, s.get(loss), wantLoss)
	s.equal("logits", s.getGrid(x), xv)
	s.dev.CrossEntropy(s.q, loss, x.Mat, t, scale, true)
	s.near("loss", acc, s.get(loss), wantLoss)
	got := s.getGrid(x)
	s.near("gradient", s.dt, got, want)
	total := func(in [][]float64) float64 {
		sum := 0.0
		for _, l := range crossEntropy(in[0], v, targets) {
			sum += l * scale
		}
		return sum
	}
	s.derivative("logits", total, [][]float64{xv}, [][]float64{got})
}
