package parallel

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestBubbleFormulas: bubble over ideal time is (p−1)/m for GPipe and 1F1B, that over the chunks of a stage for
// interleaved, and (p−1)(F+I−W) over m(F+I+W) for ZB-H1, whose passes must be about equal (Narayanan et al.
// 2021, §2.2; Qi et al. 2023, table 1).
func TestBubbleFormulas(t *testing.T) {
	for _, cost := range [][3]int64{{10, 10, 10}, {20, 25, 15}, {10, 11, 9}} {
		forward, input, weight := cost[0], cost[1], cost[2]
		for _, p := range []Pipeline{
			{1, 1, 4, 4}, {2, 1, 8, 4}, {4, 1, 4, 4}, {4, 1, 8, 4}, {4, 1, 9, 4}, {8, 1, 32, 8}, {16, 1, 128, 126},
			{2, 2, 8, 4}, {4, 2, 8, 8}, {4, 3, 20, 12}, {4, 2, 9, 8}, {8, 3, 64, 24}, {16, 2, 128, 126},
		} {
			for _, name := range scheduleNames {
				if p.Virtual > 1 && name != "interleaved" {
					continue
				}
				want := float64(p.Stages-1) / float64(p.MicroBatches*p.Virtual)
				if name == "zb-h1" {
					want *= float64(forward+input-weight) / float64(forward+input+weight)
				}
				timeline, err := Simulate(p, Schedules[name](p), UniformCost(forward, input, weight, 0))
				if err != nil {
					t.Fatal(err)
				}
				idle, total := timeline.Bubble()
				if got := float64(idle) / float64(total-idle); math.Abs(got-want) > 0.02*want {
					t.Errorf("%s %+v, costs %v: bubble/ideal is %.4f, want %.4f", name, p, cost, got, want)
				}
			}
		}
	}
}

// soonest is when lists could end if every transfer went on its own from the end of the work that made its content.
func soonest(p Pipeline, lists [][]Action, cost Cost, transfer int64) int64 {
	type made struct {
		forward           bool
		chunk, microBatch int
	}
	there := map[made]int64{} // when it is at the neighbour
	next, ends := make([]int, p.Stages), make([]int64, p.Stages)
	for moved := true; moved; {
		moved = false
		for s := range lists {
			for ; next[s] < len(lists[s]); next[s]++ {
				a := lists[s][next[s]]
				if a.Kind.Transfers() {
					continue
				}
				start := ends[s]
				needs := made{a.Kind == Forward, a.Chunk + 1, a.MicroBatch}
				if needs.forward {
					needs.chunk = a.Chunk - 1
				}
				if a.Kind != BackwardWeight && needs.chunk >= 0 && needs.chunk < p.Chunks() {
					at, ok := there[needs]
					if !ok {
						break
					}
					start = max(start, at)
				}
				ends[s] = start + cost(a)
				if a.Kind != BackwardWeight {
					there[made{a.Kind == Forward, a.Chunk, a.MicroBatch}] = ends[s] + transfer
				}
				moved = true
			}
		}
	}
	var last int64
	for _, end := range ends {
		last = max(last, end)
	}
	return last
}

// TestTransfersCostLittle: laying the transfers into ordered batches costs next to nothing beside what the order of the
// work costs anyway.
func TestTransfersCostLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, p, lists := drawSchedule(t, 10, 30)
		forward := rapid.Int64Range(20, 40).Draw(t, "forward")
		input := rapid.Int64Range(20, 40).Draw(t, "input")
		weight := rapid.Int64Range(20, 40).Draw(t, "weight")
		transfer := rapid.Int64Range(0, 2).Draw(t, "transfer")
		cost := UniformCost(forward, input, weight, transfer)
		timeline, err := Simulate(p, lists, cost)
		if err != nil {
			t.Fatal(err)
		}
		best := soonest(p, lists, cost, transfer)
		if p.Stages == 1 {
			best = soonest(p, lists, cost, 0)
		}
		if timeline.End < best || float64(timeline.End) > 1.1*float64(best) {
			t.Errorf("%s %+v, costs %d %d %d %d: ends at %d, could at %d", name, p, forward, input, weight, transfer,
				timeline.End, best)
		}
	})
}

// TestTimelineIsTrue: what Simulate says about every action is what its doc says.
func TestTimelineIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, p, lists := drawSchedule(t, 6, 12)
		cost := UniformCost(rapid.Int64Range(1, 9).Draw(t, "forward"), rapid.Int64Range(1, 9).Draw(t, "input"),
			rapid.Int64Range(1, 9).Draw(t, "weight"), rapid.Int64Range(0, 9).Draw(t, "transfer"))
		timeline, err := Simulate(p, lists, cost)
		if err != nil {
			t.Fatal(err)
		}
		all := map[Action]Span{} // with Batch 0
		for _, spans := range timeline.Stages {
			for _, s := range spans {
				a := s.Action
				a.Batch = 0
				all[a] = s
			}
		}
		var busy int64
		for s, spans := range timeline.Stages {
			var workEnd, batchEnd, lastEnd int64 // of the work, of the batch, of the batch before it
			for i, span := range spans {
				a := span.Action
				if a.Batch = 0; span.Action != lists[s][i] {
					t.Fatalf("stage %d, action %d is %v, want %v", s, i, span.Action, lists[s][i])
				}
				if !a.Kind.Transfers() {
					if span.Start < workEnd || span.End-span.Start != cost(a) || span.End > timeline.End {
						t.Fatalf("%v from %d to %d after work that ends at %d", a, span.Start, span.End, workEnd)
					}
					for _, need := range p.before(a) {
						if n, ok := all[need]; ok && n.End > span.Start {
							t.Fatalf("%v starts at %d, before the end of %v at %d", a, span.Start, need, n.End)
						}
					}
					workEnd = span.End
					busy += cost(a)
					continue
				}
				if i == 0 || spans[i-1].Batch != span.Batch {
					lastEnd = batchEnd
				}
				batchEnd = max(batchEnd, span.End)
				if span.Start < max(workEnd, lastEnd) {
					t.Fatalf("%v starts at %d, work ends at %d and the batch before at %d", a, span.Start, workEnd, lastEnd)
				}
				if a.Kind.Sends() {
					other := all[p.partner(a)]
					if other.Start != span.Start || other.End != span.End || span.End-span.Start != cost(a) {
						t.Fatalf("%v from %d to %d, its partner from %d to %d", a, span.Start, span.End, other.Start, other.End)
					}
				}
			}
		}
		if idle, total := timeline.Bubble(); total != timeline.End*int64(p.Stages) || total-idle != busy {
			t.Fatalf("bubble %d of %d, with %d of work", idle, total, busy)
		}
	})
}

func TestSimulateRefuses(t *testing.T) {
	p := Pipeline{Stages: 2, Virtual: 1, MicroBatches: 2, Layers: 2}
	lists := OneFOneB(p)
	lists[1] = lists[1][1:]
	if _, err := Simulate(p, lists, UniformCost(1, 1, 1, 0)); err == nil {
		t.Error("a schedule that lacks a receive is simulated")
	}
}
