package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// attentionRun is the operands and the results of Attention and AttentionBackward.
type attentionRun struct {
	tensor.AttentionShape
	q, k, v, do   tensor.Mat
	o, dq, dk, dv tensor.Mat
	lse           tensor.Buffer
}

func newAttentionRun(r *rand.Rand, dt tensor.DType, s tensor.AttentionShape) *attentionRun {
	s = withKeys(s)
	s.Scale = 1 / math.Sqrt(float64(s.HeadDim))
	a := &attentionRun{AttentionShape: s, lse: nanBuffer(tensor.F32, s.Batch*s.Heads*s.Length)}
	for _, m := range []*tensor.Mat{&a.q, &a.do, &a.o, &a.dq} {
		*m = randomMat(r, dt, s.Batch*s.Length, s.Heads*s.HeadDim)
	}
	for _, m := range []*tensor.Mat{&a.k, &a.v, &a.dk, &a.dv} {
		*m = randomMat(r, dt, s.Batch*s.Keys, s.KVHeads*s.HeadDim)
	}
	return a
}

// results is a with fresh memory for the results.
func (a *attentionRun) results() *attentionRun {
	b := *a
	for _, m := range []*tensor.Mat{&b.o, &b.dq, &b.dk, &b.dv} {
		*m = clone(*m)
	}
	b.lse = nanBuffer(tensor.F32, a.lse.Len())
	return &b
}

func (a *attentionRun) forward(d *Device) {
	d.Attention(d.Queue(tensor.Compute), a.o, a.lse, a.q, a.k, a.v, a.AttentionShape)
}

func (a *attentionRun) backward(d *Device) {
	d.AttentionBackward(d.Queue(tensor.Compute), a.dq, a.dk, a.dv, a.do, a.o, a.lse, a.q, a.k, a.v, a.AttentionShape)
}

// checkLike compares a result with the plain Go one. devicetest holds each of them within 1e-5 of the largest value, and
// 1e-6, of the exact one; here they may be twice as far apart, and as BF16 one rounding more.
func checkLike(t *testing.T, what string, got, want tensor.Mat) {
	t.Helper()
	var largest float64
	for _, row := range vectors(want, false) {
		for _, x := range row {
			if !math.IsInf(x, 0) {
				largest = max(largest, math.Abs(x))
			}
		}
	}
	for i, row := range vectors(want, false) {
		for j, x := range row {
			tolerance := 2e-5*largest + 2e-6
			if want.DType() == tensor.BF16 {
				tolerance += math.Abs(x) / 128
			}
			if math.IsInf(x, 0) && float64(get(got, i, j)) == x {
				continue
			}
			if y := float64(get(got, i, j)); !(math.Abs(y-x) <= tolerance) {
				t.Fatalf("%s (%d,%d) is %g, want %g ± %.2g", what, i, j, y, x, tolerance)
			}
		}
	}
}

// attentionShape draws sizes at the edges of tiles and blocks, 1 and primes.
func attentionShape(r *rand.Rand) tensor.AttentionShape {
	lengths := []int{1, 2, 7, 13, 31, 33, 64, 97, 128, 129, 193, 257, 389}
	dims := []int{1, 2, 7, 8, 16, 17, 32, 61, 64, 129}
	kv := 1 + r.IntN(2)
	s := tensor.AttentionShape{Batch: 1 + r.IntN(2), Length: lengths[r.IntN(len(lengths))], KVHeads: kv,
		Heads: kv * (1 + r.IntN(3)), HeadDim: dims[r.IntN(len(dims))]}
	s.Keys = s.Length
	switch r.IntN(3) {
	case 0:
		s.Offset = r.IntN(300)
		s.Keys += s.Offset + r.IntN(2)*r.IntN(200)
	case 1: // of a piece of the keys, which may all be before the queries
		s.Offset = r.IntN(300)
		s.Start = r.IntN(s.Offset + 1)
		s.Keys = 1 + r.IntN(300)
	}
	if r.IntN(2) == 0 {
		s.Window = 1 + r.IntN(s.Offset+s.Length)
	}
	if r.IntN(2) == 0 { // in any order: the device does not ask for rising ones
		first := make([]int32, s.Batch*s.Length)
		for i := range first {
			first[i] = r.Int32N(int32(s.Offset + i%s.Length + 1))
		}
		s.First = tensor.HostBuffer(first)
	}
	return s
}

// testAttentions calls f with a device of every kernel set that runs here.
func testAttentions(t *testing.T, f func(t *testing.T, kernels string, d *Device)) {
	for _, kernels := range []string{"avx512", "avx512-emulated", "avx2", "portable"} {
		if d, err := New(Options{Kernels: kernels, Threads: 2}); err == nil {
			t.Run(kernels, func(t *testing.T) { f(t, kernels, d) })
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAttentionLikeGo(t *testing.T) {
	plain, err := New(Options{Kernels: goKernels, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	testAttentions(t, func(t *testing.T, _ string, d *Device) {
		r := rand.New(rand.NewPCG(11, 12))
		for i := range rounds {
			dt := []tensor.DType{tensor.F32, tensor.BF16}[i%2]
			want := newAttentionRun(r, dt, attentionShape(r))
			got := want.results()
			t.Run(fmt.Sprintf("%v %+v", dt, want.AttentionShape), func(t *testing.T) {
				want.forward(plain)
				got.forward(d)
				checkLike(t, "o", got.o, want.o)
				checkLike(t, "lse", vector(got.lse), vector(want.lse))
				got.o, got.lse = want.o, want.lse // the same for both
				want.backward(plain)
				got.backward(d)
				checkLike(t, "dq", got.dq, want.dq)
				checkLike(t, "dk", got.dk, want.dk)
				checkLike(t, "dv", got.dv, want.dv)
			})
		}
	})
}

// TestAttentionBits wants the same bits from any number of threads, and the results of a query from its position and the
// keys before it alone, whichever queries are computed with it.
func TestAttentionBits(t *testing.T) {
	testAttentions(t, func(t *testing.T, kernels string, d *Device) {
		r := rand.New(rand.NewPCG(13, 14))
		s := tensor.AttentionShape{Batch: 2, Length: 300, Heads: 4, KVHeads: 2, HeadDim: 24, Window: 250}
		want := newAttentionRun(r, tensor.BF16, s)
		want.forward(d)
		want.backward(d)
		for _, threads := range []int{1, 3, 7} {
			other, err := New(Options{Kernels: kernels, Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			got := want.results()
			got.forward(other)
			got.backward(other)
			if !sameBits(got.o, want.o) || !sameBits(vector(got.lse), vector(want.lse)) || !sameBits(got.dq, want.dq) ||
				!sameBits(got.dk, want.dk) || !sameBits(got.dv, want.dv) {
				t.Errorf("other bits with %d threads", threads)
			}
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		}
		i0, i1 := 77, 222 // of the second sequence
		part := want.results()
		part.Batch, part.Length, part.Offset = 1, i1-i0, i0
		rows := func(m tensor.Mat) tensor.Mat { return m.RowRange(s.Length+i0, s.Length+i1) }
		keys := func(m tensor.Mat) tensor.Mat { return m.RowRange(s.Length, 2*s.Length) }
		part.q, part.do, part.o, part.dq = rows(part.q), rows(part.do), rows(part.o), rows(part.dq)
		part.k, part.v, part.dk, part.dv = keys(part.k), keys(part.v), keys(part.dk), keys(part.dv)
		for _, m := range []tensor.Mat{part.o, part.dq} {
			for i := range m.Rows {
				set(m, i, 0, float32(math.NaN()))
			}
		}
		part.lse = nanBuffer(tensor.F32, s.Heads*part.Length)
		part.forward(d)
		part.backward(d)
		if !sameBits(part.o, rows(want.o)) || !sameBits(part.dq, rows(want.dq)) {
			t.Error("a part of the queries has other bits than in the whole")
		}
		for h := range s.Heads {
			whole := want.lse.Slice((s.Heads+h)*s.Length+i0, (s.Heads+h)*s.Length+i1)
			if !sameBits(vector(part.lse.Slice(h*part.Length, (h+1)*part.Length)), vector(whole)) {
				t.Errorf("head %d: lse of a part has other bits than of the whole", h)
			}
		}
	})
}
