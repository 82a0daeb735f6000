package run

import (
	"io"
	"slices"
	"testing"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// TestGenerateReadsTokensOnce wants the likeliest tokens that come of reading the whole text again for each: its last
// half each time that the sequence is full.
func TestGenerateReadsTokensOnce(t *testing.T) {
	out := t.TempDir()
	job := testJob(t, out, "train.precision=fp32", "model.sliding_window=9")
	if err := Run(t.Context(), job, Options{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	m, _, err := OpenModel(t.Context(), out, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	const tokens = 60 // of which a sequence holds 32
	prompt := []int32("func f1")
	var want []int32
	for text := slices.Clone(prompt); len(want) < tokens; {
		if len(text) > m.length {
			text = text[len(text)-m.length/2:]
		}
		m.stage.Load(llama.Input{Sequences: 1, Length: len(text), IDs: text})
		m.stage.Forward()
		m.dev.Cast(m.q, m.row, m.stage.Logits(len(text)-1).Buffer)
		id := Sampling{}.pick(tensor.Host[float32](m.row), 0.5)
		text, want = append(text, id), append(want, id)
	}
	for range 2 {
		var got []int32
		err := m.Generate(t.Context(), prompt, Sampling{MaxTokens: tokens}, func(id int32) bool {
			got = append(got, id)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("generated %v, want %v", got, want)
		}
	}
}
