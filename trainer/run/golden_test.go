package run

import (
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/llama/llamatest"
)

// TestGolden holds 8 ranks, tensor 2 · pipeline 2 · data 2, against transformers, with the tolerances of a lone rank in
// trainer/llama: loss, every gradient, a trajectory, and the weights after it.
func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("../llama/testdata/golden/*.json")
	if len(files) < 5 {
		t.Fatalf("%d golden models, want at least 5", len(files))
	}
	for _, file := range short(files, 3) {
		for _, zero := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s-zero-%d", filepath.Base(file), zero), func(t *testing.T) {
				testGolden(t, llamatest.ReadGolden(t, file), zero)
			})
		}
	}
}

func testGolden(t *testing.T, g *llamatest.Golden, zero int) {
	job := goldenJob(t, g, zero)
	layout, err := Layout(job, 8)
	if err != nil {
		t.Fatal(err)
	}
	ranks := localRanks(layout, stepTimeout)
	whole := map[string][]float32{} // tensors put together from all ranks
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range ranks {
		all.Go(func() {
			w := &worker{rank: r, job: job, exchanged: map[collective.Group]collective.Work{}}
			w.golden(t, g, func(name string, p llama.Param, lo, hi int, x []float32) {
				mu.Lock()
				defer mu.Unlock()
				place(whole, name, p, lo, hi, x)
			})
			if t.Failed() {
				r.abort(fmt.Errorf("rank %d failed", r.number))
			}
		})
	}
	all.Wait()
	for _, r := range ranks {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
	for name, x := range whole {
		if e := llamatest.Relative(x, g.Tensors[name]); !(e < 1e-4) {
			t.Errorf("%s is off by %.1e of its norm", name, e)
		}
	}
	for name := range g.Tensors {
		if _, ok := whole[name]; !ok && (len(name) > 5 && (name[:5] == "grad." || name[:5] == "final")) {
			t.Errorf("no rank has %s", name)
		}
	}
}

// golden trains on the golden batch, and has collect see its part of every gradient and of the weights at the end.
func (w *worker) golden(t *testing.T, g *llamatest.Golden, collect func(name string, p llama.Param, lo, hi int, x []float32)) {
	ctx := t.Context()
	if err := w.openModel(); err != nil {
		t.Error(err)
		return
	}
	defer w.dev.Close()
	if err := w.split(ctx); err != nil {
		t.Error(err)
		return
	}
	tr := g.Trajectory
	w.opt.Beta1, w.opt.Beta2, w.opt.Eps = tr.Betas[0], tr.Betas[1], tr.Eps
	w.opt.WeightDecay, w.opt.ClipNorm = tr.WeightDecay, tr.ClipNorm
	each := func(f func(p llama.Param, lo, hi int, unit int, part func(tensor.Buffer) []float32)) {
		for _, p := range w.stage.Params.List {
			own := w.stage.Params.Units[p.Unit].Own
			if lo, hi := p.Within(own); lo < hi {
				f(p, lo, hi, p.Unit, func(b tensor.Buffer) []float32 { return tensor.Host[float32](p.Part(b, own.Lo, lo, hi)) })
			}
		}
	}
	each(func(p llama.Param, lo, hi, unit int, part func(tensor.Buffer) []float32) {
		master := part(w.opt.Units[unit].Master)
		for i := range master {
			master[i] = g.Tensors[p.Name][index(p, lo+i)]
		}
	})
	if err := w.deriveWeights(ctx); err != nil {
		t.Error(err)
		return
	}
	own := w.share(g.Batch)
	b := &batch{targets: int64(g.Valid()), tokens: dataset.Tokens{
		Seqs: own.Len(), Length: g.Length, Input: g.InputIDs[own.Lo*g.Length : own.Hi*g.Length],
		Target: g.Targets[own.Lo*g.Length : own.Hi*g.Length],
	}}
	if b.tokens.First = make([]int32, own.Len()*g.Length); g.First != nil {
		b.tokens.First = g.First[own.Lo*g.Length : own.Hi*g.Length]
	}
	for s := range tr.Steps {
		w.opt.Begin(w.dev, w.q)
		w.runBatch(b)
		w.reduceGradients()
		w.vote([]int32{0}, false)
		if err := w.sync(ctx); err != nil {
			t.Error(err)
			return
		}
		stats := tensor.Host[float64](w.opt.Stats())
		loss, norm := stats[0]/float64(g.Valid()), math.Sqrt(stats[1])
		if s == 0 {
			if math.Abs(loss-g.Loss) > 1e-5 {
				t.Errorf("loss %.7f, want %.7f", loss, g.Loss)
			}
			each(func(p llama.Param, lo, hi, unit int, part func(tensor.Buffer) []float32) {
				collect("grad."+p.Name, p, lo, hi, part(w.stage.Params.Units[unit].Grads))
			})
		}
		if math.Abs(loss-tr.Losses[s]) > 1e-4 || math.Abs(norm/tr.GradNorms[s]-1) > 1e-3 {
			t.Errorf("step %d: loss %.6f, gradient norm %.6f; want %.6f, %.6f", s, loss, norm, tr.Losses[s], tr.GradNorms[s])
		}
		w.opt.Step(w.dev, w.q, tr.LR, int64(s+1))
		w.gatherWeights()
		if err := w.sync(ctx); err != nil {
			t.Error(err)
			return
		}
	}
	each(func(p llama.Param, lo, hi, unit int, part func(tensor.Buffer) []float32) {
		collect("final."+p.Name, p, lo, hi, part(w.opt.Units[unit].Master))
	})
}

// index is where element i of what is here of p is in the whole tensor.
func index(p llama.Param, i int) int {
	if len(p.Shape) == 1 {
		return int(p.Offset[0]) + i
	}
	row, col := i/int(p.Extent[1]), i%int(p.Extent[1])
	return (int(p.Offset[0])+row)*int(p.Shape[1]) + int(p.Offset[1]) + col
}

// place puts elements [lo, hi) of what is here of p into the whole tensor.
func place(whole map[string][]float32, name string, p llama.Param, lo, hi int, x []float32) {
	if whole[name] == nil {
		n := 1
		for _, s := range p.Shape {
			n *= int(s)
		}
		whole[name] = make([]float32, n)
		for i := range whole[name] {
			whole[name][i] = float32(math.NaN())
		}
	}
	for i := lo; i < hi; i++ {
		whole[name][index(p, i)] = x[i-lo]
	}
}

// goldenJob is a job of the golden model in fp32, whose data is not read.
func goldenJob(t *testing.T, g *llamatest.Golden, zero int) *config.Job {
	t.Helper()
	c := g.Model()
	scaling := "null"
	if r := c.RopeScaling; r != nil {
		scaling = fmt.Sprintf("{factor: %g, low_freq_factor: %g, high_freq_factor: %g, original_length: %d}", r.Factor,
			r.LowFreqFactor, r.HighFreqFactor, r.OriginalLength)
	}
	text := fmt.Sprintf(`
version: 1
job: {name: golden, output: unused}
model: {dim: %d, layers: %d, heads: %d, kv_heads: %d, head_dim: %d, ffn: %d, vocab: %d, max_length: %d, rope_theta: %g,
  norm_eps: %g, tied: %v, sliding_window: %d, rope_scaling: %s}
tokenizer: {kind: byte}
data: {sequence_length: %d, train: [{path: unused}]}
train: {steps: 1, global_batch: %d, micro_batch: 1, precision: fp32}
parallel: {tensor: 2, pipeline: 2, data: 2, zero: %d}
`, c.Dim, c.Layers, c.Heads, c.KVHeads, c.HeadDim, c.FFN, c.Vocab, c.MaxLength, c.RopeTheta, c.NormEps, c.Tied, c.Window,
		scaling, g.Length, g.Batch, zero)
	job, err := config.Parse("golden", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return job
}
