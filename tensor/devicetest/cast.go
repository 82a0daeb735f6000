package devicetest

import "github.com/herdtrain/herd/tensor"

func testCast(s *suite) {
	n := s.size(40, 20000)
	v := s.random(s.dt, n, 3)
	src := s.put(s.dt, v)
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F64} {
		dst := s.put(dt, s.random(dt, n+2, 1))
		before := s.get(dst)
		s.dev.Cast(s.q, dst.Slice(1, n+1), src)
		want := append(append(before[:1:1], decode(dt, encode(dt, v), n)...), before[n+1])
		s.equal("Cast to "+dt.String(), s.get(dst), want)
	}
	if s.dt == tensor.F64 { // 1 + 2^-8 is a tie between bfloat16 values, and float32 would lose what decides it
		const tie, more = 1 + 0x1p-8, 0x1p-40
		src := s.put(tensor.F64, []float64{tie + more, tie - more, -tie - more, tie})
		dst := s.alloc(tensor.BF16, 4)
		s.dev.Cast(s.q, dst, src)
		s.equal("Cast near a tie", s.get(dst), []float64{1 + 0x1p-7, 1, -1 - 0x1p-7, 1})
	}
	dst := s.put(s.dt, v)
	s.dev.Fill(s.q, dst.Slice(n/3, n), 1.5)
	for i := range v[n/3:] {
		v[n/3+i] = 1.5
	}
	s.equal("Fill", s.get(dst), v)
	ints := s.putInts([]int32{1, 2, 3})
	s.dev.Fill(s.q, ints.Slice(1, 3), -7)
	s.equal("Fill of integers", s.get(ints), []float64{1, -7, -7})
}

func testAdd(s *suite) {
	n, acc := s.size(40, 20000), s.dt.Accum()
	av, bv := s.random(acc, n+2, 1), s.random(acc, n, 1)
	want := append([]float64(nil), av...)
	for i, x := range bv {
		want[1+i] += x
	}
	want = decode(acc, encode(acc, want), n+2)
	a, b, dst := s.put(acc, av), s.put(acc, bv), s.alloc(acc, n)
	s.dev.Add(s.q, dst, a.Slice(1, n+1), b)
	s.equal("a + b", s.get(dst), want[1:n+1])
	s.dev.Add(s.q, b, a.Slice(1, n+1), b)
	s.equal("b", s.get(b), want[1:n+1])
	s.dev.Upload(s.q, b, encode(acc, bv))
	s.dev.Add(s.q, a.Slice(1, n+1), a.Slice(1, n+1), b)
	s.equal("a, with its neighbours", s.get(a), want)
}

func testCopy(s *suite) {
	rows, cols := s.size(9, 70), s.size(40, 200)
	v := s.random(s.dt, rows*cols, 3)
	src := s.grid(s.dt, rows, cols, v)
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F64} {
		dst := s.blank(dt, rows, cols)
		s.dev.Copy(s.q, dst.Mat, src.Mat)
		s.equal("Copy to "+dt.String(), s.getGrid(dst), decode(dt, encode(dt, v), len(v)))
	}
}
