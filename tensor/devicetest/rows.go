package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

func testEmbed(s *suite) {
	n, v, d := s.size(20, 200), s.size(9, 20), s.size(70, 150)
	acc := s.dt.Accum()
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(s.rng.IntN(v))
	}
	wv, dxv, dwv := s.random(s.dt, v*d, 1), s.random(s.dt, n*d, 1), s.random(acc, v*d, 1)
	want := make([]float64, n*d)
	for i, id := range ids {
		copy(want[i*d:][:d], wv[int(id)*d:])
	}
	x := s.blank(s.dt, n, d)
	s.dev.Embed(s.q, x.Mat, s.grid(s.dt, v, d, wv).Mat, s.putInts(ids))
	s.equal("x", s.getGrid(x), want)

	dw := s.grid(acc, v, d, dwv)
	s.dev.EmbedBackward(s.q, dw.Mat, s.grid(s.dt, n, d, dxv).Mat, s.putInts(ids))
	for i, id := range ids {
		for j := range d {
			k := int(id)*d + j
			dwv[k] += dxv[i*d+j]
			if acc == tensor.F32 { // in token order, so that the bits are known
				dwv[k] = float64(float32(dwv[k]))
			}
		}
	}
	s.equal("dw", s.getGrid(dw), dwv)
}

func testRoPE(s *suite) {
	n, heads, half := s.size(9, 60), s.size(4, 4), s.size(9, 16)
	d, positions := heads*2*half, 11
	acc := s.dt.Accum()
	xv, table, pos := s.random(s.dt, n*d, 1), make([]float64, positions*2*half), make([]int32, n)
	for p := range positions {
		for j := range half {
			sin, cos := math.Sincos(float64(p) * math.Pow(10000, -float64(j)/float64(half)))
			copy(table[(p*half+j)*2:], []float64{cos, sin})
		}
	}
	for i := range pos {
		pos[i] = int32(s.rng.IntN(positions))
	}
	for _, inverse := range []bool{false, true} {
		want := make([]float64, n*d)
		for i, p := range pos {
			for j := range d / 2 {
				h, k := j/half, j%half
				lo := i*d + h*2*half + k
				c := complex(table[(int(p)*half+k)*2], table[(int(p)*half+k)*2+1])
				if inverse {
					c = 1 / c
				}
				z := complex(xv[lo], xv[lo+half]) * c
				want[lo], want[lo+half] = real(z), imag(z)
			}
		}
		x := s.grid(s.dt, n, d, xv)
		s.dev.RoPE(s.q, x.Mat, s.putInts(pos), s.put(acc, table), 2*half, inverse)
		s.near("x", s.dt, s.getGrid(x), want)
	}
}

// swiGLU is h [n,f] of gu [n,2f].
func swiGLU(gu []float64, f int) []float64 {
	h := make([]float64, len(gu)/2)
	for i := range h {
		g, u := gu[i/f*2*f+i%f], gu[i/f*2*f+f+i%f]
		h[i] = g / (1 + math.Exp(-g)) * u
	}
	return h
}

func testSwiGLU(s *suite) {
	n, f := s.size(9, 60), s.size(70, 150)
	guv, dhv := s.random(s.dt, n*2*f, 3), s.random(s.dt, n*f, 1)
	copy(guv, []float64{-200}) // where the exponential overflows
	gu, h := s.grid(s.dt, n, 2*f, guv), s.blank(s.dt, n, f)
	s.dev.SwiGLU(s.q, h.Mat, gu.Mat)
	s.near("h", s.dt, s.getGrid(h), swiGLU(guv, f))

	want := make([]float64, n*2*f)
	for i, dy := range dhv {
		at := i/f*2*f + i%f
		g, u := guv[at], guv[at+f]
		sigma := 1 / (1 + math.Exp(-g))
		want[at] = dy * u * (sigma + g*sigma*(1-sigma))
		want[at+f] = dy * g * sigma
	}
	dgu := s.blank(s.dt, n, 2*f)
	s.dev.SwiGLUBackward(s.q, dgu.Mat, s.grid(s.dt, n, f, dhv).Mat, gu.Mat)
	got := s.getGrid(dgu)
	s.near("dgu", s.dt, got, want)
	s.dev.SwiGLUBackward(s.q, gu.Mat, s.grid(s.dt, n, f, dhv).Mat, gu.Mat)
	s.near("dgu in place of gu", s.dt, s.getGrid(gu), got)
	loss := func(in [][]float64) float64 { return inner(swiGLU(in[0], f), dhv) }
	s.derivative("gu", loss, [][]float64{guv}, [][]float64{got})
}

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
