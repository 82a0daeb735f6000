package parallel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/herdtrain/herd/storage/storagetest"
)

var scheduleNames = slices.Sorted(maps.Keys(Schedules))

// drawSchedule draws the lists of a schedule, for pipelines of every shape.
func drawSchedule(t *rapid.T, stages, microBatches int) (string, Pipeline, [][]Action) {
	name := rapid.SampledFrom(scheduleNames).Draw(t, "schedule")
	p := Pipeline{
		Stages:       rapid.IntRange(1, stages).Draw(t, "stages"),
		Virtual:      1,
		MicroBatches: rapid.IntRange(1, microBatches).Draw(t, "micro-batches"),
	}
	if name == "interleaved" {
		p.Virtual = rapid.IntRange(1, 4).Draw(t, "virtual")
	}
	p.Layers = p.Chunks() + rapid.IntRange(0, 10).Draw(t, "more layers")
	return name, p, Schedules[name](p)
}

// activations is the most that a stage keeps, by the schedule's definition.
func activations(name string, p Pipeline, stage int) int {
	m, ahead := p.MicroBatches, p.Stages-1-stage
	switch {
	case name == "gpipe":
		return m
	case name == "zb-h1":
		return min(m, p.Stages)
	case p.Virtual > 1:
		largest := Split(m, max(1, m/p.Stages), 0).Len()
		return min(m*p.Virtual, 2*ahead+(p.Virtual-1)*largest+1)
	}
	return min(m, ahead+1)
}

func TestSchedulesRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, p, lists := drawSchedule(t, 10, 30)
		usage, err := Check(p, lists)
		if err != nil {
			t.Fatalf("%s %+v: %v", name, p, err)
		}
		for s, u := range usage {
			if want := activations(name, p, s); u.Activations != want {
				t.Errorf("%s %+v: stage %d keeps %d activations, want %d", name, p, s, u.Activations, want)
			}
			kept, most := 0, 0
			for _, a := range lists[s] {
				switch {
				case a.Kind == RecvForward, a.Kind == RecvBackward:
					kept++
				case a.Kind == Forward && p.carries(a.Chunk-1), a.Kind.input() && p.carries(a.Chunk):
					kept--
				}
				most = max(most, kept)
			}
			if u.Received != most || p.Virtual == 1 && most > 2 || kept != 0 {
				t.Errorf("%s %+v: stage %d keeps %d received, want %d", name, p, s, u.Received, most)
			}
		}
		for s, list := range lists { // sums over micro-batches go in ascending order, as a Counter wants them
			last := make([]int, p.Chunks())
			for _, a := range list {
				if 1<<a.Kind&weightKinds == 0 {
					continue
				}
				if a.MicroBatch != last[a.Chunk] {
					t.Fatalf("%s %+v: on stage %d %v comes before micro-batch %d", name, p, s, a, last[a.Chunk])
				}
				last[a.Chunk]++
			}
		}
	})
}

// TestScheduleLists shows what the lists look like.
func TestScheduleLists(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name string
		p    Pipeline
	}{
		{"gpipe", Pipeline{3, 1, 3, 3}},
		{"1f1b", Pipeline{3, 1, 4, 3}},
		{"zb-h1", Pipeline{3, 1, 4, 3}},
		{"interleaved", Pipeline{2, 2, 4, 4}},
		{"interleaved", Pipeline{2, 2, 3, 4}},
		{"interleaved", Pipeline{3, 2, 2, 6}},
		{"interleaved", Pipeline{1, 2, 2, 2}},
	} {
		fmt.Fprintf(&b, "%s: %d stages of %d chunks, %d micro-batches\n", c.name, c.p.Stages, c.p.Virtual, c.p.MicroBatches)
		for s, list := range Schedules[c.name](c.p) {
			fmt.Fprintf(&b, "stage %d:", s)
			for i, a := range list {
				opens := a.Batch > 0 && list[i-min(i, 1)].Batch != a.Batch || i == 0 && a.Batch > 0
				closes := a.Batch > 0 && (i == len(list)-1 || list[i+1].Batch != a.Batch)
				b.WriteString(" ")
				if opens {
					b.WriteString("[")
				}
				b.WriteString(a.String())
				if closes {
					b.WriteString("]")
				}
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	storagetest.Golden(t, "testdata/schedules.txt", b.String())
}

func TestNoPipeline(t *testing.T) {
	for _, p := range []Pipeline{{0, 1, 1, 1}, {2, 1, 0, 2}, {2, 1, 1, 1}, {2, 0, 1, 2}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v has a schedule", p)
				}
			}()
			OneFOneB(p)
		}()
	}
}
