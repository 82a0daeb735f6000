package bench

import (
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const short = 2 * time.Millisecond

func TestParseShape(t *testing.T) {
	const most = 1 << 20
	for text, want := range map[string]Shape{"7": {7, 7, 7}, "5x3x2": {5, 3, 2}, "1048576": {most, most, most}} {
		if got, err := ParseShape(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "5x3", "5x3x2x1", "5x3x", "axb", "1048577", "9999999999999999999"} {
		if got, err := ParseShape(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestSpread(t *testing.T) {
	s := newSpread([]float64{4, 1, 8, 2})
	if want := (Spread{3, 1, 8}); s != want {
		t.Errorf("got %v, want %v", s, want)
	}
	if got, want := s.rate(24), (Spread{8, 3, 24}); got != want {
		t.Errorf("got a rate of %v, want %v", got, want)
	}
	if got, want := newSpread([]float64{5}), (Spread{5, 5, 5}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func (s Spread) ordered() bool { return s.Min > 0 && s.Min <= s.Median && s.Median <= s.Max }

func checkRate(t *testing.T, r Rate) {
	t.Helper()
	if !r.GFLOPS.ordered() || r.Peak <= 0 || r.Share != r.GFLOPS.Median/r.Peak {
		t.Errorf("got %+v", r)
	}
}

// kernels are those that run here.
func kernels() []string {
	var names []string
	for _, k := range cpu.Kernels() {
		if k.Available {
			names = append(names, k.Name)
		}
	}
	return names
}

func TestGemm(t *testing.T) {
	for _, k := range kernels() {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			o := Options{Threads: 2, Kernels: k, Duration: short}
			r, err := Gemm(t.Context(), o, dt, []Shape{{8, 8, 8}, {7, 33, 5}})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(r.Device, k) || len(r.Rows) != 6 {
				t.Fatalf("%s: %d rows on %s", k, len(r.Rows), r.Device)
			}
			for i, row := range r.Rows {
				if want := forms[i%3].name; row.Form != want {
					t.Errorf("row %d is of %s, want %s", i, row.Form, want)
				}
				checkRate(t, row.Rate)
			}
			var table strings.Builder
			if err := r.Print(&table); err != nil || !strings.Contains(table.String(), "\n7×33×5         wgrad    ") {
				t.Errorf("%v, table\n%s", err, table.String())
			}
		}
	}
}

func TestAttention(t *testing.T) {
	s := AttentionShape{Batch: 2, Length: 17, Heads: 4, KVHeads: 2, HeadDims: []int{4, 16}, GemmSize: 8}
	for _, k := range kernels() {
		r, err := Attention(t.Context(), Options{Threads: 1, Kernels: k, Duration: short}, tensor.BF16, s)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Rows) != 4 || r.Rows[0].Pass != "forward" || r.Rows[3].Pass != "backward" || r.Rows[3].HeadDim != 16 {
			t.Errorf("got rows %+v", r.Rows)
		}
		for _, row := range r.Rows {
			checkRate(t, row.Rate)
			if row.Gemm <= 0 || row.GemmShare != row.GFLOPS.Median/row.Gemm {
				t.Errorf("got %+v", row)
			}
		}
		var table strings.Builder
		if err := r.Print(&table); err != nil || strings.Count(table.String(), "\n") != 3+len(r.Rows) {
			t.Errorf("%v, table\n%s", err, table.String())
		}
	}
}

const tinyJob = `version: 1
job: {name: tiny, output: none}
model: {dim: 16, layers: 2, heads: 4, kv_heads: 2, ffn: 24, vocab: 40, max_length: 16, rope_theta: 10000, norm_eps: 1e-5}
tokenizer: {kind: byte}
data: {sequence_length: 8, train: [{path: none}]}
train: {steps: 1, global_batch: 6, micro_batch: 3, precision: bf16}
optimizer: {lr: 1e-2}
`

func TestStep(t *testing.T) {
	for _, precision := range []string{"fp32", "bf16"} {
		job, err := config.Parse("tiny", []byte(tinyJob), []string{"train.precision=" + precision})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Step(t.Context(), Options{Duration: 20 * short}, job)
		if err != nil {
			t.Fatal(err)
		}
		if r.Model != "tiny" || r.Precision != precision || r.MicroBatch != 3 || r.Length != 8 ||
			r.Parameters != job.Model.Config().Parameters() {
			t.Errorf("got %+v", r)
		}
		if r.Steps < leastRepetitions || !r.Seconds.ordered() || !r.TokensPerSecond.ordered() ||
			len(r.Phases) != numPhases || r.Peak <= 0 || r.FirstStepAt <= 0 || r.MFUCausal <= 0 || r.MFU <= r.MFUCausal ||
			!(r.Loss > 0) {
			t.Errorf("got %+v", r)
		}
		if got, want := r.TokensPerSecond.Median, 24/r.Seconds.Median; math.Abs(got-want) > 1e-9*want {
			t.Errorf("got %v tokens/s in steps of %v s", got, r.Seconds.Median)
		}
		var sum int64
		for _, u := range r.Memory {
			sum += u.Bytes
		}
		if sum == 0 || sum != r.MemoryBytes {
			t.Errorf("the plan's parts are %d bytes, the whole %d", sum, r.MemoryBytes)
		}
		var table strings.Builder
		if err := r.Print(&table); err != nil || !strings.Contains(table.String(), "\ntokens/s ") {
			t.Errorf("%v, table\n%s", err, table.String())
		}
	}
}

// TestStepTrains: the same tokens again and again are learnt.
func TestStepTrains(t *testing.T) {
	job, err := config.Parse("tiny", []byte(tinyJob), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := open(Options{Duration: short})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	training, err := newTraining(m, job)
	if err != nil {
		t.Fatal(err)
	}
	var losses []float64
	for range 30 {
		if err := training.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		losses = append(losses, training.loss)
	}
	if first, last := losses[0], losses[29]; first < 2 || first > 8 || last > first-0.5 {
		t.Errorf("the loss went from %v to %v", first, last)
	}
}

func TestRefusals(t *testing.T) {
	good := Options{Duration: short}
	shape := AttentionShape{Batch: 1, Length: 4, Heads: 4, KVHeads: 3, HeadDims: []int{4}, GemmSize: 4}
	huge := AttentionShape{Batch: 1 << 15, Length: 1 << 15, Heads: 1 << 10, KVHeads: 1, HeadDims: []int{64}, GemmSize: 4}
	for name, run := range map[string]func() error{
		"3 key and value heads": func() error { _, err := Attention(t.Context(), good, tensor.F32, shape); return err },
		"want at most":          func() error { _, err := Attention(t.Context(), good, tensor.F32, huge); return err },
		"positive duration": func() error {
			_, err := Gemm(t.Context(), Options{}, tensor.F32, []Shape{{1, 1, 1}})
			return err
		},
		`kernels named "abacus"`: func() error {
			_, err := Gemm(t.Context(), Options{Kernels: "abacus", Duration: short}, tensor.F32, []Shape{{1, 1, 1}})
			return err
		},
	} {
		if err := run(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %q", err, name)
		}
	}
}
