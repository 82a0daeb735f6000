package run

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Sampling says how Generate draws tokens.
type Sampling struct {
	MaxTokens   int
	Temperature float64 // 0: always the likeliest token
	TopK        int     // only among the k likeliest; 0: all
	TopP        float64 // only among the likeliest that together have this probability; 1: all
	Seed        uint64
}

// Generate continues prompt, which must not be empty, and hands each new token to emit, until emit returns false, the
// end-of-sequence token, or MaxTokens. The model sees the last sequence_length tokens.
func (m *Model) Generate(ctx context.Context, prompt []int32, s Sampling, emit func(id int32) bool) error {
	draw := tensor.NewPhilox(s.Seed, "generate")
	window := slices.Clone(prompt)
	row := make([]float32, m.row.Len())
	for i := range s.MaxTokens {
		if over := len(window) - m.length; over > 0 {
			window = window[over:]
		}
		m.stage.Load(llama.Input{Sequences: 1, Length: len(window), IDs: window})
		m.stage.Forward()
		m.dev.Cast(m.q, m.row, m.stage.Logits(len(window)-1).Buffer)
		m.dev.Download(m.q, tensor.HostBytes(tensor.HostBuffer(row)), m.row)
		if err := m.q.Sync(ctx); err != nil {
			return err
		}
		id := s.pick(row, draw.Uniform(uint64(i), 0))
		if id == m.Tokenizer.EOS() || !emit(id) {
			return nil
		}
		window = append(window, id)
	}
	return nil
}

// pick draws a token from logits by a uniform u in (0, 1).
func (s Sampling) pick(logits []float32, u float64) int32 {
	order := make([]int32, len(logits))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b))
	})
	if s.Temperature == 0 {
		return order[0]
	}
	if s.TopK > 0 {
		order = order[:min(s.TopK, len(order))]
	}
	p := make([]float64, len(order))
	var total float64
	for i, id := range order {
		p[i] = math.Exp(float64(logits[id]-logits[order[0]]) / s.Temperature)
		total += p[i]
	}
	var kept float64
	n := 0
	for n < len(p) && kept < s.TopP*total {
		kept += p[n]
		n++
	}
	n = max(n, 1)
	rest := u * kept
	for i, v := range p[:n-1] {
		if rest -= v; rest < 0 {
			return order[i]
		}
	}
	return order[n-1]
}
