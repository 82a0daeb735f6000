package llama_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/optim"
)

// golden is what scripts/golden wrote from Hugging Face transformers' LlamaForCausalLM.
type golden struct {
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
	tensors map[string][]float32
}

func (g *golden) config() llama.Config {
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

func (g *golden) valid() (n int) {
	for _, t := range g.Targets {
		if t >= 0 {
			n++
		}
	}
	return n
}

func readGolden(t *testing.T, path string) *golden {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := new(golden)
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
	g.tensors = map[string][]float32{}
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
		g.tensors[name] = v
	}
	return g
}

// trained is a model with its optimizer on the CPU device.
type trained struct {
	dev   *cpu.Device
	q     tensor.Queue
	stage *llama.Stage
	opt   *optim.AdamW
}

func newTrained(t testing.TB, c llama.Config, dt tensor.DType, s llama.Size, kernels string) *trained {
	t.Helper()
	dev, err := cpu.New(cpu.Options{Kernels: kernels})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	plan := tensor.NewPlan()
	p := llama.NewStage(plan, nil, c, dt, s, true).Params
	optim.New(plan, p)
	arena, err := plan.Arena(dev)
	if err != nil {
		t.Fatal(err)
	}
	m := &trained{dev: dev, q: dev.Queue(tensor.Compute), stage: llama.NewStage(arena, dev, c, dt, s, true)}
	m.opt = optim.New(arena, m.stage.Params)
	if arena.Bytes() != plan.Bytes() {
		t.Errorf("the arena holds %d bytes, the plan said %d", arena.Bytes(), plan.Bytes())
	}
	return m
}

// lossAndGradients runs one micro-batch and returns its mean loss.
func (m *trained) lossAndGradients(in llama.Input, valid int) float64 {
	m.opt.Begin(m.dev, m.q)
	m.stage.Load(in)
	m.stage.Forward()
	m.stage.Loss(m.opt.LossSum(), 1/float64(valid), true)
	m.stage.Backward()
	return tensor.Host[float64](m.opt.LossSum())[0] / float64(valid)
}

// meanLoss is lossAndGradients without the gradients.
func (m *trained) meanLoss(in llama.Input, valid int) float64 {
	m.opt.Begin(m.dev, m.q)
	m.stage.Load(in)
	m.stage.Forward()
	m.stage.Loss(m.opt.LossSum(), 0, false)
	return tensor.Host[float64](m.opt.LossSum())[0] / float64(valid)
}

// kernelSets are the kernels that this machine can run; in short mode the best of them.
func kernelSets() []string {
	if testing.Short() {
		return []string{""}
	}
	sets := []string{"go"}
	for _, k := range cpu.Kernels() {
		if k.Available && k.Name != "go" {
			sets = append(sets, k.Name)
		}
	}
	return sets
}

// TestGolden holds the model against transformers in fp32. The tolerances are the issue's: both sides round to 24 bits
// in other orders, which for these sizes leaves an error near 1e-6.
func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/golden/*.json")
	if len(files) < 5 {
		t.Fatalf("%d golden models, want at least 5", len(files))
	}
	for _, file := range files {
		for _, kernels := range kernelSets() {
			t.Run(fmt.Sprintf("%s/%s", filepath.Base(file), kernels), func(t *testing.T) {
				g := readGolden(t, file)
				testGolden(t, g, kernels)
				testGoldenBF16(t, g, kernels)
			})
		}
	}
}

func testGolden(t *testing.T, g *golden, kernels string) {
	c := g.config()
	m := g.model(t, tensor.F32, kernels)
	p, in := m.stage.Params, g.input()
	loss := m.lossAndGradients(in, g.valid())
	if math.Abs(loss-g.Loss) > 1e-5 {
		t.Errorf("loss %.7f, want %.7f", loss, g.Loss)
	}
	for _, q := range p.List {
		if e := relative(tensor.Host[float32](q.Of(p.Grads)), g.tensors["grad."+q.Name]); !(e < 1e-4) {
			t.Errorf("gradient of %s is off by %.1e of its norm", q.Name, e)
		}
	}
	m.stage.Forward()
	var worst float64
	for i := range g.Batch * g.Length {
		for j, v := range tensor.Host[float32](m.stage.Logits(i).Buffer) {
			worst = max(worst, math.Abs(float64(v-g.tensors["logits"][i*c.Vocab+j])))
		}
	}
	if !(worst < 1e-5) {
		t.Errorf("a logit is off by %.1e", worst)
	}

	tr := g.Trajectory
	m.opt.Beta1, m.opt.Beta2, m.opt.Eps = tr.Betas[0], tr.Betas[1], tr.Eps
	m.opt.WeightDecay, m.opt.ClipNorm = tr.WeightDecay, tr.ClipNorm
	for s := range tr.Steps {
		loss := m.lossAndGradients(in, g.valid())
		m.opt.Measure(m.dev, m.q)
		m.opt.Step(m.dev, m.q, tr.LR, int64(s+1))
		norm := math.Sqrt(tensor.Host[float64](m.opt.Stats())[1])
		if math.Abs(loss-tr.Losses[s]) > 1e-4 || math.Abs(norm/tr.GradNorms[s]-1) > 1e-3 {
			t.Errorf("step %d: loss %.6f, gradient norm %.6f; want %.6f, %.6f", s, loss, norm, tr.Losses[s], tr.GradNorms[s])
		}
	}
	for _, q := range p.List {
		if e := relative(tensor.Host[float32](q.Of(p.Weights)), g.tensors["final."+q.Name]); !(e < 1e-4) {
			t.Errorf("after %d steps %s is off by %.1e of its norm", tr.Steps, q.Name, e)
		}
	}
}

// testGoldenBF16 holds bf16 storage with fp32 sums against fp32 on the same weights, those that bf16 can hold. Each
// rounding to 8 bits errs by up to 2⁻⁹; the bound on the cosine leaves room for the some 20 in a row of two layers.
// Rounding the weights moves the gradients of these narrow models by as much again: the bound against the golden
// gradients, of unrounded weights, is wider.
func testGoldenBF16(t *testing.T, g *golden, kernels string) {
	narrow, wide := g.model(t, tensor.BF16, kernels), g.model(t, tensor.F32, kernels)
	wide.dev.Cast(wide.q, wide.stage.Params.Weights, narrow.stage.Params.Weights)
	wide.lossAndGradients(g.input(), g.valid())
	if loss := narrow.lossAndGradients(g.input(), g.valid()); math.Abs(loss-g.Loss) > 2e-2 {
		t.Errorf("bf16: loss %.5f, want %.5f", loss, g.Loss)
	}
	for _, q := range narrow.stage.Params.List {
		got := tensor.Host[float32](q.Of(narrow.stage.Params.Grads))
		if c := cosine(got, tensor.Host[float32](q.Of(wide.stage.Params.Grads))); !(c > 0.999) {
			t.Errorf("bf16: the gradient of %s has cosine %.5f with that of fp32", q.Name, c)
		}
		if c := cosine(got, g.tensors["grad."+q.Name]); !(c > 0.998) {
			t.Errorf("bf16: the gradient of %s has cosine %.5f with the golden one", q.Name, c)
		}
	}
}

// model is the golden model with its weights in dt.
func (g *golden) model(t *testing.T, dt tensor.DType, kernels string) *trained {
	t.Helper()
	m := newTrained(t, g.config(), dt, llama.Size{Sequences: g.Batch, Length: g.Length}, kernels)
	p := m.stage.Params
	for _, q := range p.List {
		w, ok := g.tensors[q.Name]
		if !ok || len(w) != q.Len() {
			t.Fatalf("%s: %d golden values, want %d", q.Name, len(w), q.Len())
		}
		m.dev.Cast(m.q, q.Of(p.Weights), tensor.HostBuffer(w))
	}
	return m
}

func (g *golden) input() llama.Input {
	return llama.Input{Sequences: g.Batch, Length: g.Length, IDs: g.InputIDs, Targets: g.Targets, First: g.First}
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// relative is ‖a−b‖/‖b‖.
func relative(a, b []float32) float64 {
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
