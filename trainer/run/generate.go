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
// end-of-sequence token, or MaxTokens. The model sees at most sequence_length tokens: a longer prompt's last ones, and
// when there is no room for the next token, it goes on from the last half of them.
func (m *Model) Generate(ctx context.Context, prompt []int32, s Sampling, emit func(id int32) bool) error {
	cache, err := m.newCache()
	if err != nil {
		return err
	}
	draw := tensor.NewPhilox(s.Seed, "generate")
	text := slices.Clone(prompt[max(0, len(prompt)-m.length):])
	added := text // what the model has not seen
	for i := range s.MaxTokens {
		if cache.Len()+len(added) > m.length {
			cache.Clear()
			added = text[len(text)-(m.length+1)/2:]
		}
		row, err := m.next(ctx, added, cache)
		if err != nil {
			return err
		}
		id := s.pick(row, draw.Uniform(uint64(i), 0))
		if id == m.Tokenizer.EOS() || !emit(id) {
			return nil
		}
		text = append(text, id)
		added = text[len(text)-1:]
	}
	return nil
}

// newCache is memory for the keys and values of a sequence, cleared. It is allocated by the first call.
func (m *Model) newCache() (*llama.Cache, error) {
	if m.cache == nil {
		plan := tensor.NewPlan()
		llama.NewCache(plan, m.stage)
		arena, err := plan.Arena(m.dev)
		if err != nil {
			return nil, err
		}
		m.cache = llama.NewCache(arena, m.stage)
	}
	m.cache.Clear()
	return m.cache, nil
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
