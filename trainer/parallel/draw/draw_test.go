package draw

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// layout resolves a layout of a model of 18 layers and 8 heads.
func layout(t *testing.T, world, tensor, pipeline, context int, schedule string,
	virtual, zero, shard, batch int) parallel.Layout {
	t.Helper()
	l, err := parallel.Resolve(parallel.Spec{Tensor: tensor, Pipeline: pipeline, Context: context, Schedule: schedule,
		Virtual: virtual, Zero: zero, Shard: shard, GlobalBatch: batch, MicroBatch: 1, SequenceLength: 128},
		world, llama.Config{Layers: 18, Heads: 8, KVHeads: 2, FFN: 64, Vocab: 64})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wellFormed fails if an SVG is no XML.
func wellFormed(t interface{ Fatal(...any) }, svg string) {
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDrawings draws layouts as text and as SVG.
func TestDrawings(t *testing.T) {
	for name, l := range map[string]parallel.Layout{
		"lone":        layout(t, 1, 1, 1, 1, "1f1b", 1, 0, 0, 2),
		"1f1b":        layout(t, 8, 2, 4, 1, "1f1b", 1, 1, 0, 8),
		"gpipe":       layout(t, 16, 2, 4, 2, "gpipe", 1, 0, 0, 5),
		"zb-h1":       layout(t, 16, 1, 4, 1, "zb-h1", 1, 3, 2, 32),
		"interleaved": layout(t, 4, 1, 4, 1, "interleaved", 2, 1, 0, 12),
		"large":       layout(t, 1024, 8, 4, 4, "1f1b", 1, 2, 8, 6*8),
	} {
		t.Run(name, func(t *testing.T) {
			var text, svg strings.Builder
			timeline := l.Timeline()
			if err := Text(&text, l, timeline, 120, nil); err != nil {
				t.Fatal(err)
			}
			storagetest.Golden(t, "testdata/"+name+".txt", text.String())
			if err := SVG(&svg, l, timeline); err != nil {
				t.Fatal(err)
			}
			storagetest.Golden(t, "testdata/"+name+".svg", svg.String())
		})
	}
}

// TestAnyTimeline: with any costs a drawing is well-formed, and a text has all works of at least a column, in order.
func TestAnyTimeline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := parallel.Pipeline{Stages: rapid.IntRange(1, 5).Draw(t, "stages"),
			Virtual: rapid.IntRange(1, 3).Draw(t, "virtual"), MicroBatches: rapid.IntRange(1, 12).Draw(t, "micro-batches")}
		p.Layers = p.Chunks()
		cost := func() int64 {
			return rapid.Int64Range(0, 9).Draw(t, "cost") * rapid.SampledFrom([]int64{1, 10, 1e9 + 7}).Draw(t, "unit")
		}
		timeline, err := parallel.Simulate(p, parallel.Interleaved(p), parallel.UniformCost(cost(), cost(), cost(), cost()))
		if err != nil {
			t.Fatal(err)
		}
		l := parallel.Layout{Mesh: parallel.Mesh{1, 1, p.Stages, 1}, Schedule: "interleaved", Pipeline: p, Shard: 1}
		var text, svg strings.Builder
		width := rapid.IntRange(0, 200).Draw(t, "width")
		paint := func(_ parallel.ActionKind, text string) string { return "<" + text + ">" }
		if err := Text(&text, l, timeline, width, paint); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			plain := strings.NewReplacer("<", "", ">", "").Replace(strings.TrimSpace(line))
			if strings.HasPrefix(line, "stage ") && len(plain) > max(width, 20) {
				t.Fatalf("the line is longer than %d:\n%s", width, line)
			}
		}
		if err := SVG(&svg, l, timeline); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.String())
	})
}

func TestWorksAreDrawn(t *testing.T) {
	l := layout(t, 4, 1, 4, 1, "1f1b", 1, 0, 0, 7)
	timeline := l.Timeline()
	for _, width := range []int{30, 80, 1000} {
		var text strings.Builder
		if err := Text(&text, l, timeline, width, nil); err != nil {
			t.Fatal(err)
		}
		rows := make([]string, 4)
		for line := range strings.Lines(text.String()) {
			var stage int
			if n, _ := fmt.Sscanf(line, "stage %d", &stage); n == 1 {
				rows[stage] += line[len("stage 0"):]
			}
		}
		for s, spans := range timeline.Stages {
			var want []string
			for _, span := range spans {
				if !span.Kind.Transfers() {
					want = append(want, label(l.Pipeline, span.Action))
				}
			}
			got := strings.FieldsFunc(rows[s], func(r rune) bool { return strings.ContainsRune(" .-\n", r) })
			if !slices.Equal(got, want) {
				t.Errorf("width %d, stage %d: %v is drawn, want %v", width, s, got, want)
			}
		}
	}
}

func TestShown(t *testing.T) {
	for _, c := range []struct {
		n, most int
		want    []int
	}{{1, 4, []int{0}}, {4, 4, []int{0, 1, 2, 3}}, {5, 4, []int{0, 1, gap, 4}}, {100, 3, []int{0, gap, 99}}} {
		if got := shown(c.n, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%d of %d are shown as %v, want %v", c.most, c.n, got, c.want)
		}
	}
	if a, b, c := chunkName(25), chunkName(26), chunkName(26*27); a != "z" || b != "aa" || c != "aaa" {
		t.Errorf("chunks 25, 26 and 702 are %s, %s, %s", a, b, c)
	}
}
