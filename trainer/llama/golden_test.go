package llama_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/llama/llamatest"
	"github.com/herdtrain/herd/trainer/optim"
)

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
				g := llamatest.ReadGolden(t, file)
				testGolden(t, g, kernels)
				testGoldenBF16(t, g, kernels)
			})
		}
	}
}

func testGolden(t *testing.T, g *llamatest.Golden, kernels string) {
	c := g.Model()
	m := goldenModel(t, g, tensor.F32, kernels)
	p, in := m.stage.Params, g.Input()
	loss := m.lossAndGradients(in, g.Valid())
	if math.Abs(loss-g.Loss) > 1e-5 {
		t.Errorf("loss %.7f, want %.7f", loss, g.Loss)
	}
	for _, q := range p.List {
		if e := llamatest.Relative(tensor.Host[float32](q.Of(p.Grads)), g.Tensors["grad."+q.Name]); !(e < 1e-4) {
			t.Errorf("gradient of %s is off by %.1e of its norm", q.Name, e)
		}
	}
	m.stage.Forward()
	var worst float64
	for i := range g.Batch * g.Length {
		for j, v := range tensor.Host[float32](m.stage.Logits(i).Buffer) {
			worst = max(worst, math.Abs(float64(v-g.Tensors["logits"][i*c.Vocab+j])))
		}
	}
	if !(worst < 1e-5) {
		t.Errorf("a logit is off by %.1e", worst)
	}

	tr := g.Trajectory
	m.opt.Beta1, m.opt.Beta2, m.opt.Eps = tr.Betas[0], tr.Betas[1], tr.Eps
	m.opt.WeightDecay, m.opt.ClipNorm = tr.WeightDecay, tr.ClipNorm
	for s := range tr.Steps {
		loss := m.lossAndGradients(in, g.Valid())
		m.opt.Measure(m.dev, m.q)
		m.opt.Step(m.dev, m.q, tr.LR, int64(s+1))
		norm := math.Sqrt(tensor.Host[float64](m.opt.Stats())[1])
		if math.Abs(loss-tr.Losses[s]) > 1e-4 || math.Abs(norm/tr.GradNorms[s]-1) > 1e-3 {
			t.Errorf("step %d: loss %.6f, gradient norm %.6f; want %.6f, %.6f", s, loss, norm, tr.Losses[s], tr.GradNorms[s])
		}
	}
	for _, q := range p.List {
		if e := llamatest.Relative(tensor.Host[float32](q.Of(p.Weights)), g.Tensors["final."+q.Name]); !(e < 1e-4) {
			t.Errorf("after %d steps %s is off by %.1e of its norm", tr.Steps, q.Name, e)
		}
	}
}

// testGoldenBF16 holds bf16 storage with fp32 sums against fp32 on the same weights, those that bf16 can hold. Each
// rounding to 8 bits errs by up to 2⁻⁹; the bound on the cosine leaves room for the some 20 in a row of two layers.
// Rounding the weights moves the gradients of these narrow models by as much again: the bound against the golden
// gradients, of unrounded weights, is wider.
func testGoldenBF16(t *testing.T, g *llamatest.Golden, kernels string) {
	narrow, wide := goldenModel(t, g, tensor.BF16, kernels), goldenModel(t, g, tensor.F32, kernels)
	wide.dev.Cast(wide.q, wide.stage.Params.Weights, narrow.stage.Params.Weights)
	wide.lossAndGradients(g.Input(), g.Valid())
	if loss := narrow.lossAndGradients(g.Input(), g.Valid()); math.Abs(loss-g.Loss) > 2e-2 {
		t.Errorf("bf16: loss %.5f, want %.5f", loss, g.Loss)
	}
	for _, q := range narrow.stage.Params.List {
		got := tensor.Host[float32](q.Of(narrow.stage.Params.Grads))
		if c := llamatest.Cosine(got, tensor.Host[float32](q.Of(wide.stage.Params.Grads))); !(c > 0.999) {
			t.Errorf("bf16: the gradient of %s has cosine %.5f with that of fp32", q.Name, c)
		}
		if c := llamatest.Cosine(got, g.Tensors["grad."+q.Name]); !(c > 0.998) {
			t.Errorf("bf16: the gradient of %s has cosine %.5f with the golden one", q.Name, c)
		}
	}
}

// goldenModel is a golden model with its weights in dt.
func goldenModel(t *testing.T, g *llamatest.Golden, dt tensor.DType, kernels string) *trained {
	t.Helper()
	m := newTrained(t, g.Model(), dt, llama.Size{Sequences: g.Batch, Length: g.Length}, kernels)
	p := m.stage.Params
	for _, q := range p.List {
		w, ok := g.Tensors[q.Name]
		if !ok || len(w) != q.Len() {
			t.Fatalf("%s: %d golden values, want %d", q.Name, len(w), q.Len())
		}
		m.dev.Cast(m.q, q.Of(p.Weights), tensor.HostBuffer(w))
	}
	return m
}
