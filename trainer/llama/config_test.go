package llama

import (
	"math"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// The llama3 rope test vectors: head dimension 128 and 64, theta 500000, original length 8192 (computed in float64
// from the published formula).
func TestFrequencies(t *testing.T) {
	scaled := func(headDim int, factor float64) []float64 {
		return Config{HeadDim: headDim, RopeTheta: 500000, RopeScaling: &RopeScaling{factor, 1, 4, 8192}}.Frequencies()
	}
	plain := Config{HeadDim: 128, RopeTheta: 500000}.Frequencies()
	by8, by32, small := scaled(128, 8), scaled(128, 32), scaled(64, 32)
	for _, c := range []struct{ got, want float64 }{
		{plain[1], 8.1461723386e-01}, {plain[29], 2.6160992529e-03}, {plain[63], 2.4551407911e-06},
		{by8[1], 8.1461723386e-01}, {by8[28], plain[28]},
		{by8[29], 2.1665707635e-03}, {by32[29], 2.1184069968e-03},
		{by8[30], 1.3718935678e-03}, {by32[30], 1.2905479282e-03},
		{by8[31], 8.5675141292e-04}, {by32[31], 7.6254120336e-04},
		{by8[32], 5.2484616099e-04}, {by32[32], 4.2955679656e-04},
		{by8[33], 3.1269375038e-04}, {by32[33], 2.2276350147e-04},
		{by8[34], 1.7850781277e-04}, {by32[34], 9.7082878026e-05},
		{by8[35], plain[35] / 8}, {by8[63], 3.0689259889e-07}, {by32[63], 7.6723149723e-08},
		{small[14], math.Pow(500000, -28.0/64)},
		{small[15], 1.2905479282e-03}, {small[16], 4.2955679656e-04}, {small[17], 9.7082878026e-05},
		{small[31], 9.4183067254e-08},
	} {
		if math.Abs(c.got-c.want) > 1e-10*c.want+1e-17 {
			t.Errorf("frequency %.10e, want %.10e", c.got, c.want)
		}
	}
}

// tiny is a model small enough for every kind of check: odd sizes, grouped heads.
var tiny = Config{
	Dim: 32, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 97, MaxLength: 32,
	RopeTheta: 10000, NormEps: 1e-5,
}

func TestParameterLayout(t *testing.T) {
	for _, tied := range []bool{false, true} {
		c := tiny
		c.Tied = tied
		plan := tensor.NewPlan()
		p := NewParams(plan, c, tensor.BF16, true, Size{Chunks: []Chunk{{Hi: c.Layers}}})
		var n int64
		end := 0
		for _, q := range p.List {
			n += int64(q.Len())
			if q.offset < end {
				t.Errorf("%s begins at %d, before %d", q.Name, q.offset, end)
			}
			end = q.offset + q.Len()
		}
		if n != c.Parameters() {
			t.Errorf("tied %v: %d parameters laid out, want %d", tied, n, c.Parameters())
		}
		if want := 9*c.Layers + 3; len(p.List) != want && !tied || tied && len(p.List) != want-1 {
			t.Errorf("tied %v: %d tensors", tied, len(p.List))
		}
		if qkv := p.layers[1].qkv; qkv.rows != 64 || p.Weights.Len() != p.Len || p.Grads.DType() != tensor.F32 {
			t.Errorf("tied %v: qkv has %d rows", tied, qkv.rows)
		}
	}
}

func TestInitial(t *testing.T) {
	plan := tensor.NewPlan()
	c := Config{Dim: 256, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 64, FFN: 512, Vocab: 512, MaxLength: 8, RopeTheta: 1e4,
		NormEps: 1e-5}
	p := NewParams(plan, c, tensor.F32, false, Size{Chunks: []Chunk{{Hi: c.Layers}}})
	for _, q := range p.List {
		got := make([]float32, q.Len())
		q.Initial(got, 42, 0)
		part := make([]float32, 100)
		q.Initial(part, 42, 33)
		var sum, sq, top float64
		for i, v := range got {
			if i >= 33 && i < 133 && part[i-33] != v {
				t.Fatalf("%s: element %d depends on where the draw begins", q.Name, i)
			}
			sum += float64(v)
			sq += float64(v) * float64(v)
			top = max(top, math.Abs(float64(v)))
		}
		n := float64(len(got))
		if q.Norm {
			if sum != n || sq != n {
				t.Errorf("%s is not all ones", q.Name)
			}
			continue
		}
		want := q.Std
		switch q.Cut / q.Std { // the variance of a truncated normal
		case 2:
			want *= 0.8796
		case 3:
			want *= 0.9866
		}
		if got := math.Sqrt(sq / n); math.Abs(got/want-1) > 0.01 || math.Abs(sum/n) > 4*want/math.Sqrt(n) {
			t.Errorf("%s: mean %.2e, standard deviation %.5f, want 0 and %.5f", q.Name, sum/n, got, want)
		}
		if top > q.Cut {
			t.Errorf("%s: a value of %v lies beyond the cut at %v", q.Name, top, q.Cut)
		}
	}
}
