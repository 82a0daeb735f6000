package run

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/trainer/config"
)

// TestPrecision trains llama3-debug on this repository's text in bf16 and in fp32: the validation losses end within 1 % of each other.
func TestPrecision(t *testing.T) {
	steps := 200
	if testing.Short() {
		steps = 10
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	_, err := dataset.Prepare(t.Context(), dataset.PrepareOptions{
		Inputs: []string{"../.."}, Include: []string{"*.go"}, Output: data,
		TokenizerKind: dataset.KindByte, SequenceLength: 128,
	})
	if err != nil {
		t.Fatal(err)
	}
	losses := map[string]float64{}
	for _, precision := range []string{"bf16", "fp32"} {
		out := filepath.Join(dir, precision)
		job, err := config.Load("../../configs/llama3-debug.yaml", []string{
			"job.output=" + out, "data.train.0.path=" + data, "data.validation=null", "tokenizer.kind=byte",
			"tokenizer.path=''", "train.precision=" + precision, fmt.Sprintf("train.steps=%d", steps),
			"train.global_batch=4", "schedule.warmup_steps=5",
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), job, Options{Out: io.Discard}); err != nil {
			t.Fatal(err)
		}
		m, _, err := OpenModel(t.Context(), out, 8)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Evaluate(t.Context(), data, 64, 8)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		losses[precision] = got.Loss
	}
	t.Logf("after %d steps: %v", steps, losses)
	if d := math.Abs(losses["bf16"]/losses["fp32"] - 1); !(d < 0.01) {
		t.Errorf("after %d steps the loss is %.4f in bf16 and %.4f in fp32", steps, losses["bf16"], losses["fp32"])
	}
}
