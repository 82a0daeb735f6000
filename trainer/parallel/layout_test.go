package parallel

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/trainer/llama"
)

// TestResolve shows what layouts resolve to, and what their errors and warnings read like.
func TestResolve(t *testing.T) {
	var b strings.Builder
	try := func(what string, world int, c llama.Config, change func(s *Spec)) {
		s := Spec{Tensor: 1, Pipeline: 1, Context: 1, Schedule: "1f1b", Virtual: 1, Zero: 1, GlobalBatch: 16, MicroBatch: 2,
			SequenceLength: 128}
		change(&s)
		fmt.Fprintf(&b, "%d ranks, %d layers, %d heads (%d KV), %s\n", world, c.Layers, c.Heads, c.KVHeads, what)
		l, err := Resolve(s, world, c)
		if err != nil {
			if !errors.Is(err, ErrLayout) {
				t.Errorf("%v is no ErrLayout", err)
			}
			fmt.Fprintf(&b, "  error: %v\n", err)
			return
		}
		fmt.Fprintf(&b, "  %v; zero %d, shard %d; %s: %d stages of %d chunks, %d micro-batches, %d layers\n", l.Mesh, l.Zero,
			l.Shard, l.Schedule, l.Pipeline.Stages, l.Pipeline.Virtual, l.Pipeline.MicroBatches, l.Pipeline.Layers)
		for _, w := range l.Warnings {
			fmt.Fprintf(&b, "  warning: %s\n", w)
		}
	}
	debug := llama.Config{Layers: 4, Heads: 4, KVHeads: 2, FFN: 384, Vocab: 1024}
	large := llama.Config{Layers: 80, Heads: 64, KVHeads: 8, FFN: 28672, Vocab: 128256}
	try("data auto", 1, debug, func(*Spec) {})
	try("data auto, tensor 2", 8, debug, func(s *Spec) { s.Tensor = 2 })
	try("data 2, tensor 2, pipeline 2, zero 0", 8, debug, func(s *Spec) {
		s.Data, s.Tensor, s.Pipeline, s.Zero = 2, 2, 2, 0
	})
	try("context 2, zero 3, shard 4", 16, debug, func(s *Spec) { s.Context, s.Zero, s.Shard = 2, 3, 4 })
	try("tensor 8, pipeline 16, interleaved with 5 chunks, batch 512", 1024, large, func(s *Spec) {
		s.Tensor, s.Pipeline, s.Schedule, s.Virtual, s.GlobalBatch = 8, 16, "interleaved", 5, 512
	})

	try("data 2, tensor 2, pipeline 2", 6, debug, func(s *Spec) { s.Data, s.Tensor, s.Pipeline = 2, 2, 2 })
	try("data auto, tensor 4", 6, debug, func(s *Spec) { s.Tensor = 4 })
	try("data auto, tensor 8", 8, debug, func(s *Spec) { s.Tensor = 8 })
	try("data auto, tensor 8, pipeline 8", 64, debug, func(s *Spec) { s.Tensor, s.Pipeline = 8, 8 })
	try("data auto, pipeline 4, interleaved with 2 chunks", 8, debug, func(s *Spec) {
		s.Pipeline, s.Schedule, s.Virtual = 4, "interleaved", 2
	})
	try("context 8, sequences of 12 tokens", 8, debug, func(s *Spec) { s.Context, s.SequenceLength = 8, 12 })
	try("tensor 32, context 32, canonical", 1024, large, func(s *Spec) { s.Tensor, s.Context, s.Canonical = 32, 32, true })
	try("zero 1, shard 3", 8, debug, func(s *Spec) { s.Shard = 3 })
	try("nonsense", 0, debug, func(s *Spec) {
		*s = Spec{Data: -1, Zero: 4, Schedule: "zigzag", GlobalBatch: 1, MicroBatch: 1, SequenceLength: 1}
	})
	try("zero 0, shard 4, gpipe with 2 chunks", 8, debug, func(s *Spec) {
		s.Zero, s.Shard, s.Schedule, s.Virtual = 0, 4, "gpipe", 2
	})

	try("pipeline 4, batch 4", 4, debug, func(s *Spec) { s.Pipeline, s.GlobalBatch = 4, 4 })
	try("pipeline 4, zb-h1, batch 4", 4, debug, func(s *Spec) { s.Pipeline, s.Schedule, s.GlobalBatch = 4, "zb-h1", 4 })
	try("data auto, batch 18", 4, debug, func(s *Spec) { s.GlobalBatch = 18 })
	try("data auto, batch 4", 8, debug, func(s *Spec) { s.GlobalBatch = 4 })
	try("tensor 3", 6, large, func(s *Spec) { s.Tensor, s.MicroBatch = 3, 1 })
	try("tensor 3", 3, debug, func(s *Spec) { s.Tensor = 3 })
	storagetest.Golden(t, "testdata/layouts.txt", b.String())
}

// TestResolveNearestWorks: whenever a layout does not fit, the error names one that does.
func TestResolveNearestWorks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv := rapid.IntRange(1, 4).Draw(t, "kv heads")
		c := llama.Config{Layers: rapid.IntRange(1, 12).Draw(t, "layers"), KVHeads: kv,
			Heads: kv * rapid.IntRange(1, 4).Draw(t, "group")}
		degree := rapid.IntRange(1, 9)
		s := Spec{Data: rapid.IntRange(0, 9).Draw(t, "data"), Tensor: degree.Draw(t, "tensor"),
			Pipeline: degree.Draw(t, "pipeline"), Context: degree.Draw(t, "context"), Schedule: "1f1b", Virtual: 1,
			GlobalBatch: 64, MicroBatch: 1, SequenceLength: 32, Canonical: rapid.Bool().Draw(t, "canonical")}
		world := rapid.IntRange(1, 64).Draw(t, "world")
		l, err := Resolve(s, world, c)
		if err == nil {
			want := Mesh{TP: s.Tensor, CP: s.Context, PP: s.Pipeline, DP: l.Mesh[DP]}
			if l.Mesh != want || s.Data > 0 && l.Mesh[DP] != s.Data || l.Mesh.World() != world {
				t.Fatalf("%+v on %d ranks is %v", s, world, l.Mesh)
			}
			return
		}
		m, ok := s.nearest(world, c)
		if !ok || !strings.Contains(err.Error(), m.String()) {
			t.Fatalf("%v names no layout that works", err)
		}
		s.Data, s.Tensor, s.Pipeline, s.Context = m[DP], m[TP], m[PP], m[CP]
		if _, err := Resolve(s, world, c); err != nil {
			t.Fatalf("the layout said to work does not: %v", err)
		}
	})
}
