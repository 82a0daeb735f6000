package llama_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// TestDirectionalDerivative compares the hand-written backward pass, in float64, with central differences along random
// directions: (L(p+hv) − L(p−hv))/2h against g·v. One direction covers every parameter at once.
func TestDirectionalDerivative(t *testing.T) {
	base := llama.Config{
		Dim: 32, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 97, MaxLength: 16,
		RopeTheta: 10000, NormEps: 1e-5,
	}
	tied, windowed, scaled := base, base, base
	tied.Tied = true
	windowed.Window = 3
	scaled.RopeScaling = &llama.RopeScaling{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalLength: 64}
	for name, c := range map[string]llama.Config{"plain": base, "tied": tied, "window": windowed, "scaled": scaled} {
		t.Run(name, func(t *testing.T) { testDerivative(t, c) })
	}
}

func testDerivative(t *testing.T, c llama.Config) {
	const batch, length = 3, 9
	rng := rand.New(rand.NewPCG(1, 2))
	m := newTrained(t, c, tensor.F64, llama.Size{Sequences: batch, Length: length}, "go")
	p := m.stage.Params
	w := tensor.Host[float64](p.Weights)
	for _, q := range p.List {
		v := tensor.Host[float64](q.Of(p.Weights))
		for i := range v {
			v[i] = rng.NormFloat64() * 0.3
			if q.Norm {
				v[i] += 1
			}
		}
	}
	in := llama.Input{Sequences: batch, Length: length}
	valid := 0
	for i := range batch * length {
		first, target := int32(0), int32(rng.IntN(c.Vocab))
		if i/length == 1 && i%length >= 4 { // the second sequence holds two documents
			first = 4
		}
		if i == length+3 || i == 2 {
			target = -1
		} else {
			valid++
		}
		in.IDs = append(in.IDs, int32(rng.IntN(c.Vocab)))
		in.Targets = append(in.Targets, target)
		in.First = append(in.First, first)
	}
	m.lossAndGradients(in, valid)
	grad := append([]float64(nil), tensor.Host[float64](p.Grads)...)
	origin := append([]float64(nil), w...)

	for trial := range 5 {
		dir := make([]float64, len(w))
		var along float64
		for _, q := range p.List { // not the padding between parameters
			for _, i := range indices(p, q) {
				dir[i] = rng.NormFloat64()
				along += grad[i] * dir[i]
			}
		}
		// A fourth-order difference, so that the step can be large enough for the roundoff of the loss.
		at := func(h float64) float64 {
			for i := range w {
				w[i] = origin[i] + h*dir[i]
			}
			return m.meanLoss(in, valid)
		}
		const h = 1e-5
		numeric := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
		if e := math.Abs(numeric-along) / math.Abs(along); !(e < 1e-7) {
			t.Errorf("direction %d: g·v = %.12g, differences say %.12g (off by %.1e)", trial, along, numeric, e)
		}
		copy(w, origin)
	}

	// A few single elements of every tensor, so that a tensor whose part is small cannot hide.
	for _, q := range p.List {
		idx := indices(p, q)
		for range 2 {
			i := idx[rng.IntN(len(idx))]
			at := func(h float64) float64 {
				w[i] = origin[i] + h
				defer func() { w[i] = origin[i] }()
				return m.meanLoss(in, valid)
			}
			const h = 1e-3
			numeric := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
			if math.Abs(numeric-grad[i]) > 1e-5*math.Abs(grad[i])+1e-9 {
				t.Errorf("%s: gradient of element %d is %.9g, differences say %.9g", q.Name, i, grad[i], numeric)
			}
		}
	}
}

// indices are the places of a parameter in the flat arrays.
func indices(p *llama.Params, q llama.Param) []int {
	off := int(uintptr(q.Of(p.Weights).Ptr())-uintptr(p.Weights.Ptr())) / p.Weights.DType().Size()
	idx := make([]int, q.Len())
	for i := range idx {
		idx[i] = off + i
	}
	return idx
}

// ExampleConfig_FLOPs shows the two conventions by which a model's arithmetic is counted.
func ExampleConfig_FLOPs() {
	c := llama.Config{
		Dim: 4096, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128, FFN: 14336, Vocab: 128256, MaxLength: 8192,
	}
	full, causal := c.FLOPs(8192)
	fmt.Printf("%d parameters, %.3f GFLOP a token, %.3f causal\n", c.Parameters(), full/1e9, causal/1e9)
	// Output: 8030261248 parameters, 57.914 GFLOP a token, 51.472 causal
}
