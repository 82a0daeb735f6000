package devicetest

import "github.com/herdtrain/herd/tensor"

func testGemm(s *suite) {
	m, n, k := s.size(40, 90), s.size(40, 70), s.size(40, 300)
	types := []tensor.DType{s.dt, s.dt, s.dt}
	if s.dt != tensor.F64 {
		for i := range types {
			types[i] = []tensor.DType{tensor.F32, tensor.BF16, s.dt}[s.rng.IntN(3)]
		}
	}
	for _, form := range []tensor.GemmForm{tensor.NT, tensor.NN, tensor.TN} {
		av, bv, cv := s.random(types[0], m*k, 1), s.random(types[1], k*n, 1), s.random(types[2], m*n, 1)
		product := make([]float64, m*n)
		for i := range m {
			for j := range n {
				for l := range k {
					product[i*n+j] += av[i*k+l] * bv[l*n+j]
				}
			}
		}
		a, b := s.grid(types[0], m, k, av), s.grid(types[1], k, n, bv)
		if form == tensor.TN {
			a = s.grid(types[0], k, m, transpose(av, m, k))
		}
		if form == tensor.NT {
			b = s.grid(types[1], n, k, transpose(bv, k, n))
		}
		c := s.grid(types[2], m, n, cv)
		name := [...]string{tensor.NT: "Gemm NT", tensor.NN: "Gemm NN", tensor.TN: "Gemm TN"}[form]
		s.dev.Gemm(s.q, form, c.Mat, a.Mat, b.Mat, false)
		set := s.getGrid(c)
		s.near(name, types[2], set, product)
		s.dev.Gemm(s.q, form, c.Mat, a.Mat, b.Mat, true)
		for i, x := range set {
			product[i] += x
		}
		s.near(name+", accumulating", types[2], s.getGrid(c), product)

		// The sums over K have the same order in a part of the product.
		i0, j0 := s.rng.IntN(m), s.rng.IntN(n)
		i1, j1 := i0+1+s.rng.IntN(m-i0), j0+1+s.rng.IntN(n-j0)
		part := s.blank(types[2], i1-i0, j1-j0)
		ap, bp := a.RowRange, b.ColRange
		if form == tensor.TN {
			ap = a.ColRange
		}
		if form == tensor.NT {
			bp = b.RowRange
		}
		s.dev.Gemm(s.q, form, part.Mat, ap(i0, i1), bp(j0, j1), false)
		var want []float64
		for i := i0; i < i1; i++ {
			want = append(want, set[i*n+j0:i*n+j1]...)
		}
		s.equal(name+" of a part", s.getGrid(part), want)
	}
}

// transpose is v [rows, cols] as [cols, rows].
func transpose(v []float64, rows, cols int) []float64 {
	out := make([]float64, len(v))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = v[i*cols+j]
		}
	}
	return out
}
