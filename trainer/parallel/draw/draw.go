// Package draw shows a layout, the mesh of its ranks, and a pipeline schedule in time, as fixed-width text and as SVG.
package draw

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/herdtrain/herd/trainer/parallel"
)

// gap stands for the places of a long axis that are not shown.
const gap = -1

// shown are the places of an axis of n that are shown: all up to most, or else the first, gap and the last.
func shown(n, most int) []int {
	var all []int
	for i := range min(n, most) {
		all = append(all, i)
	}
	if n > most {
		all[most-2], all[most-1] = gap, n-1
	}
	return all
}

// most is how many places of each axis a drawing shows.
var most = parallel.Mesh{parallel.TP: 8, parallel.CP: 3, parallel.PP: 16, parallel.DP: 4}

// stageLayers is the layers of a stage, such as "0–3, 16–19".
func stageLayers(p parallel.Pipeline, stage int) string {
	var all []string
	for _, i := range shown(p.Virtual, 4) {
		if i == gap {
			all = append(all, "…")
			continue
		}
		all = append(all, parallel.ChunkLayers(p.Layers, p.Chunks(), i*p.Stages+stage).String())
	}
	return strings.Join(all, ", ")
}

// letters of the kinds of work.
var letters = map[parallel.ActionKind]string{
	parallel.Forward:        "F",
	parallel.Backward:       "B",
	parallel.BackwardInput:  "B",
	parallel.BackwardWeight: "W",
}

// label names work by kind, micro-batch, and chunk of the stage if there are several: F12, B3a.
func label(p parallel.Pipeline, a parallel.Action) string {
	s := letters[a.Kind] + strconv.Itoa(a.MicroBatch)
	if p.Virtual > 1 {
		s += chunkName(a.Chunk / p.Stages)
	}
	return s
}

// chunkName is a … z, aa, ab …
func chunkName(i int) string {
	name := string(rune('a' + i%26))
	if i >= 26 {
		name = chunkName(i/26-1) + name
	}
	return name
}

func meshTitle(l parallel.Layout) string {
	s := fmt.Sprintf("mesh of world size %d: %v", l.Mesh.World(), l.Mesh)
	switch {
	case l.Zero == 0:
		s += "; state replicated"
	case l.Shard == l.Mesh[parallel.CP]*l.Mesh[parallel.DP]:
		s += fmt.Sprintf("; ZeRO-%d over %d", l.Zero, l.Shard)
	default:
		s += fmt.Sprintf("; ZeRO-%d over %d, replicated", l.Zero, l.Shard)
	}
	return s
}

func timelineTitle(l parallel.Layout, t parallel.Timeline) string {
	idle, total := t.Bubble()
	s := fmt.Sprintf("schedule %s: stages %d, micro-batches %d", l.Schedule, t.Pipeline.Stages, t.Pipeline.MicroBatches)
	if t.Pipeline.Virtual > 1 {
		s += fmt.Sprintf(", chunks of a stage %d", t.Pipeline.Virtual)
	}
	return s + fmt.Sprintf("; bubble %.1f %% of the step (simulated)", 100*float64(idle)/float64(max(total, 1)))
}

// meaning is a kind of work and what its letter stands for.
type meaning struct {
	kind  parallel.ActionKind
	words string
}

// meanings are those of the kinds that t has.
func meanings(t parallel.Timeline) []meaning {
	has := map[parallel.ActionKind]bool{}
	for _, spans := range t.Stages {
		for _, s := range spans {
			has[s.Kind] = true
		}
	}
	var all []meaning
	for _, m := range []meaning{
		{parallel.Forward, "forward"},
		{parallel.Backward, "backward"},
		{parallel.BackwardInput, "backward, gradient of the input"},
		{parallel.BackwardWeight, "backward, gradient of the weights"},
	} {
		if has[m.kind] {
			all = append(all, m)
		}
	}
	return all
}
