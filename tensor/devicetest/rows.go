package devicetest

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// testEmbed has the vocabulary between two rows that no id may reach.
func testEmbed(s *suite) {
	n, v, d := s.size(20, 200), s.size(9, 20), s.size(70, 150)
	acc := s.dt.Accum()
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(s.rng.IntN(v+v/2+2) - v/4 - 1)
	}
	ids[n-1] = []int32{math.MinInt32, -1, int32(v), math.MaxInt32}[s.rng.IntN(4)]
	here := func(id int32) bool { return 0 <= id && int(id) < v }
	wv, dxv, dwv := s.random(s.dt, (v+2)*d, 1), s.random(s.dt, n*d, 1), s.random(acc, (v+2)*d, 1)
	want := make([]float64, n*d)
	for i, id := range ids {
		if here(id) {
			copy(want[i*d:][:d], wv[int(1+id)*d:])
		}
	}
	x := s.blank(s.dt, n, d)
	s.dev.Embed(s.q, x.Mat, s.grid(s.dt, v+2, d, wv).RowRange(1, v+1), s.putInts(ids))
	s.equal("x", s.getGrid(x), want)

	dw := s.grid(acc, v+2, d, dwv)
	s.dev.EmbedBackward(s.q, dw.RowRange(1, v+1), s.grid(s.dt, n, d, dxv).Mat, s.putInts(ids))
	for i, id := range ids {
		if !here(id) {
			continue
		}
		for j := range d {
			k := int(1+id)*d + j
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
