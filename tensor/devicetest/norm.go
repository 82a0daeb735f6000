package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

const normEps = 1e-5

// rmsNorm is the norm of x [n,d] and its 1/rms [n].
func rmsNorm(x, w []float64) (y, rstd []float64) {
	d := len(w)
	y, rstd = make([]float64, len(x)), make([]float64, len(x)/d)
	for i := range rstd {
		row := x[i*d:][:d]
		rstd[i] = 1 / math.Sqrt(inner(row, row)/float64(d)+normEps)
		for j, v := range row {
			y[i*d+j] = v * rstd[i] * w[j]
		}
	}
	return y, rstd
}

func testRMSNorm(s *suite) {
	n, d := s.size(9, 60), s.size(70, 200)
	xv, wv := s.random(s.dt, n*d, 2), s.random(s.dt, d, 1)
	y, rstd, x, w := s.blank(s.dt, n, d), s.alloc(s.dt.Accum(), n), s.grid(s.dt, n, d, xv), s.put(s.dt, wv)
	s.dev.RMSNorm(s.q, y.Mat, rstd, x.Mat, w, normEps)
	s.checkRMSNorm(s.getGrid(y), s.get(rstd), xv, wv)
}

// checkRMSNorm holds y and rstd against the norm of x. For BF16 it wants the bits of the two roundings of Llama.
func (s *suite) checkRMSNorm(y, rstd, x, w []float64) {
	s.Helper()
	wantY, wantRstd := rmsNorm(x, w)
	s.near("rstd", s.dt.Accum(), rstd, wantRstd)
	if s.dt != tensor.BF16 {
		s.near("y", s.dt, y, wantY)
		return
	}
	for i, v := range x {
		wantY[i] = v * rstd[i/len(w)]
	}
	wantY = decode(s.dt, encode(s.dt, wantY), len(y))
	for i := range wantY {
		wantY[i] *= w[i%len(w)]
	}
	s.equal("y", y, decode(s.dt, encode(s.dt, wantY), len(y)))
}

func testAddRMSNorm(s *suite) {
	n, d := s.size(9, 60), s.size(70, 200)
	rv, dv, wv := s.random(s.dt, n*d, 2), s.random(s.dt, n*d, 2), s.random(s.dt, d, 1)
	y, rstd, w := s.blank(s.dt, n, d), s.alloc(s.dt.Accum(), n), s.put(s.dt, wv)
	res, delta, sum := s.grid(s.dt, n, d, rv), s.grid(s.dt, n, d, dv), s.blank(s.dt, n, d)
	if s.rng.IntN(2) == 0 {
		sum = res
	}
	s.dev.AddRMSNorm(s.q, y.Mat, rstd, sum.Mat, res.Mat, delta.Mat, w, normEps)
	want := make([]float64, n*d)
	for i := range want {
		want[i] = rv[i] + dv[i]
	}
	got := s.getGrid(sum)
	s.near("sum", s.dt, got, want)
	s.checkRMSNorm(s.getGrid(y), s.get(rstd), got, wv)
}

func testRMSNormBackward(s *suite) {
	n, d := s.size(9, 60), s.size(70, 200)
	acc := s.dt.Accum()
	xv, wv, dyv := s.random(s.dt, n*d, 2), s.random(s.dt, d, 1), s.random(s.dt, n*d, 1)
	before, dwBefore := s.random(s.dt, n*d, 1), s.random(acc, d, 1)
	_, rstd := rmsNorm(xv, wv)
	wantDx, wantDw := make([]float64, n*d), make([]float64, d)
	for i, r := range rstd {
		var mean float64
		for j, w := range wv {
			mean += dyv[i*d+j] * w * xv[i*d+j] * r / float64(d)
		}
		for j, w := range wv {
			h := xv[i*d+j] * r
			wantDx[i*d+j] = r * (dyv[i*d+j]*w - h*mean)
			wantDw[j] += dyv[i*d+j] * h
		}
	}
	dx, dw := s.grid(s.dt, n, d, before), s.put(acc, dwBefore)
	dy, x, w, r := s.grid(s.dt, n, d, dyv), s.grid(s.dt, n, d, xv), s.put(s.dt, wv), s.put(acc, rstd)
	s.dev.RMSNormBackward(s.q, dx.Mat, dw, dy.Mat, x.Mat, w, r, false)
	gotDx, gotDw := s.getGrid(dx), s.get(dw)
	s.near("dx", s.dt, gotDx, wantDx)
	s.near("dw", acc, gotDw, plus(wantDw, dwBefore))
	loss := func(in [][]float64) float64 { y, _ := rmsNorm(in[0], in[1]); return inner(y, dyv) }
	for i := range gotDw {
		gotDw[i] -= dwBefore[i]
	}
	s.derivative("x, w", loss, [][]float64{xv, wv}, [][]float64{gotDx, gotDw})

	s.dev.RMSNormBackward(s.q, dx.Mat, dw, dy.Mat, x.Mat, w, r, true)
	s.near("dx, accumulating", s.dt, s.getGrid(dx), plus(wantDx, gotDx))
}

func plus(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] + b[i]
	}
	return out
}
