package llama_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/llama"
)

// TestDecode compares the logits of every position, computed with a cache in parts of several lengths, with those of one
// Forward over all tokens.
func TestDecode(t *testing.T) {
	c := llama.Config{
		Dim: 32, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 97, MaxLength: 24,
		RopeTheta: 10000, NormEps: 1e-5,
	}
	for _, window := range []int{0, 5} {
		for _, kernels := range []string{"", "go"} {
			t.Run(fmt.Sprintf("window %d, kernels %q", window, kernels), func(t *testing.T) {
				c.Window = window
				testDecode(t, c, kernels)
			})
		}
	}
}

func testDecode(t *testing.T, c llama.Config, kernels string) {
	const length = 24
	dev, err := cpu.New(cpu.Options{Kernels: kernels})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	layout := func(a *tensor.Arena, dev tensor.Device) (*llama.Stage, *llama.Cache) {
		s := llama.NewStage(a, dev, c, tensor.F32, llama.Size{Sequences: 1, Length: length}, false)
		return s, llama.NewCache(a, s)
	}
	plan := tensor.NewPlan()
	layout(plan, nil)
	arena, err := plan.Arena(dev)
	if err != nil {
		t.Fatal(err)
	}
	stage, cache := layout(arena, dev)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range tensor.Host[float32](stage.Params.Weights) {
		tensor.Host[float32](stage.Params.Weights)[i] = float32(rng.NormFloat64() * 0.3)
	}
	var ids []int32
	for range length {
		ids = append(ids, rng.Int32N(int32(c.Vocab)))
	}
	stage.Load(llama.Input{Sequences: 1, Length: length, IDs: ids})
	stage.Forward()
	var want [][]float32
	for i := range length {
		want = append(want, append([]float32(nil), tensor.Host[float32](stage.Logits(i).Buffer)...))
	}
	for _, parts := range [][]int{{7, 1, 1, 1, 3, 1, 10}, {length}, {1, 1}} {
		cache.Clear()
		for _, n := range parts {
			start := cache.Len()
			stage.Load(llama.Input{Sequences: 1, Length: n, IDs: ids[start : start+n], Cache: cache})
			stage.Forward()
			for i := range n {
				for j, got := range tensor.Host[float32](stage.Logits(i).Buffer) {
					if x := want[start+i][j]; !(math.Abs(float64(got-x)) <= 1e-5*(1+math.Abs(float64(x)))) {
						t.Fatalf("parts of %v: logit %d of token %d is %v, want %v", parts, j, start+i, got, x)
					}
				}
			}
		}
	}
}
