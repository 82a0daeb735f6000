// Package llamatest reads the golden values that models are held against.
package llamatest

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/herdtrain/herd/trainer/llama"
)

// Golden is what scripts/golden wrote from Hugging Face transformers' LlamaForCausalLM.
type Golden struct {
	Config struct {
		Dim, Layers, Heads, FFN, Vocab int
		KVHeads                        int     `json:"kv_heads"`
		HeadDim                        int     `json:"head_dim"`
		RopeTheta                      float64 `json:"rope_theta"`
		NormEps                        float64 `json:"norm_eps"`
		Tied                           bool
		Window                         int `json:"sliding_window"`
		RopeScaling                    *struct {
			Factor   float64
			Low      float64 `json:"low_freq_factor"`
			High     float64 `json:"high_freq_factor"`
			Original int     `json:"original_max_position"`
		} `json:"rope_scaling"`
	}
	Batch, Length int
	InputIDs      []int32 `json:"input_ids"`
	Targets       []int32
	First         []int32
	Loss          float64
	Trajectory    struct {
		Steps       int
		LR, Eps     float64
		Betas       [2]float64
		WeightDecay float64 `json:"weight_decay"`
		ClipNorm    float64 `json:"clip_norm"`
		Losses      []float64
		GradNorms   []float64 `json:"grad_norms"`
	}
	Tensors map[string][]float32 // weights, "grad." and the name, "final." and the name, "logits"
}

// Model is the shape of the model.
func (g *Golden) Model() llama.Config {
	c := llama.Config{
		Dim: g.Config.Dim, Layers: g.Config.Layers, Heads: g.Config.Heads, KVHeads: g.Config.KVHeads,
		HeadDim: g.Config.HeadDim, FFN: g.Config.FFN, Vocab: g.Config.Vocab, MaxLength: g.Length,
		RopeTheta: g.Config.RopeTheta, NormEps: g.Config.NormEps, Tied: g.Config.Tied, Window: g.Config.Window,
	}
	if r := g.Config.RopeScaling; r != nil {
		c.RopeScaling = &llama.RopeScaling{
			Factor: r.Factor, LowFreqFactor: r.Low, HighFreqFactor: r.High, OriginalLength: r.Original,
		}
	}
	return c
}

// Valid is how many targets there are.
func (g *Golden) Valid() (n int) {
	for _, t := range g.Targets {
		if t >= 0 {
			n++
		}
	}
	return n
}

// ReadGolden reads one, path is its JSON file.
func ReadGolden(t *testing.T, path string) *Golden {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := new(Golden)
	if err := json.Unmarshal(b, g); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(path[:len(path)-len(".json")] + ".safetensors"); err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	var header map[string]struct {
		DType   string
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	g.Tensors = map[string][]float32{}
	for name, h := range header {
		if h.DType == "" { // __metadata__
			continue
		}
		if h.DType != "F32" {
			t.Fatalf("%s is %s, want F32", name, h.DType)
		}
		raw := b[8+n:][h.Offsets[0]:h.Offsets[1]]
		v := make([]float32, len(raw)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		g.Tensors[name] = v
	}
	return g
}

// Input is the whole batch.
func (g *Golden) Input() llama.Input {
	return llama.Input{Sequences: g.Batch, Length: g.Length, IDs: g.InputIDs, Targets: g.Targets, First: g.First}
}

// Cosine is of the angle between a and b.
func Cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// Relative is ‖a−b‖/‖b‖.
func Relative(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		e := float64(a[i]) - float64(b[i])
		d += e * e
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}
