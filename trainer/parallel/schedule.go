package parallel

import "fmt"

// Schedule makes the list of actions of every stage. The lists pass Check.
type Schedule func(Pipeline) [][]Action

// Schedules by their names in a job file.
var Schedules = map[string]Schedule{
	"gpipe":       GPipe,
	"1f1b":        OneFOneB,
	"interleaved": Interleaved,
	"zb-h1":       ZBH1,
}

// GPipe runs all micro-batches forward, then all backward (Huang et al. 2019). A stage keeps the activations of every
// micro-batch.
func GPipe(p Pipeline) [][]Action {
	return p.lists(func(stage int, do func(k ActionKind, chunk, microBatch int)) {
		for i := range p.MicroBatches {
			do(Forward, stage, i)
		}
		for i := range p.MicroBatches {
			do(Backward, stage, i)
		}
	})
}

// OneFOneB fills the pipeline and then takes one micro-batch forward for each that comes back (Narayanan et al. 2019,
// PipeDream-Flush). Stage s keeps the activations of at most Stages−s micro-batches.
func OneFOneB(p Pipeline) [][]Action {
	return p.lists(func(stage int, do func(k ActionKind, chunk, microBatch int)) {
		m, ahead := p.MicroBatches, p.Stages-1-stage
		for i := range m + ahead {
			if i < m {
				do(Forward, stage, i)
			}
			if i >= ahead {
				do(Backward, stage, i-ahead)
			}
		}
	})
}

// ZBH1 is OneFOneB with the backward pass split: the input's gradient goes on to the previous stage at once, the
// weights' waits until it fills a bubble (Qi et al. 2023, Zero Bubble Pipeline Parallelism, ZB-H1). Stage s holds back
// s of them, so that every stage keeps the activations of at most Stages micro-batches, as OneFOneB's first does.
func ZBH1(p Pipeline) [][]Action {
	return p.lists(func(stage int, do func(k ActionKind, chunk, microBatch int)) {
		m, ahead, behind := p.MicroBatches, p.Stages-1-stage, p.Stages-1
		for i := range m + behind {
			if i < m {
				do(Forward, stage, i)
			}
			if j := i - ahead; j >= 0 && j < m {
				do(BackwardInput, stage, j)
			}
			if i >= behind {
				do(BackwardWeight, stage, i-behind)
			}
		}
	})
}

// Interleaved is OneFOneB with several chunks on each stage, which divides the bubble by their number and multiplies
// the transfers (Narayanan et al. 2021, §2.2). Micro-batches go through a stage's chunks in groups: all of a group
// through the first chunk, then all through the next. A group of fewer than Stages would run dry before its first
// micro-batch is back, so there are ⌊MicroBatches/Stages⌋ groups, at least one, with sizes even to one: Stages each
// when that divides. With MicroBatches below Stages it does run dry; with one chunk on each stage it is OneFOneB.
func Interleaved(p Pipeline) [][]Action {
	if p.Virtual == 1 {
		return OneFOneB(p)
	}
	groups := max(1, p.MicroBatches/p.Stages)
	var order [][2]int // (chunk of a stage, micro-batch) forward; backward is the same with the chunks reversed
	for g := range groups {
		group := Split(p.MicroBatches, groups, g)
		for k := range p.Virtual {
			for i := group.Lo; i < group.Hi; i++ {
				order = append(order, [2]int{k, i})
			}
		}
	}
	largest := Split(p.MicroBatches, groups, 0).Len()
	return p.lists(func(stage int, do func(k ActionKind, chunk, microBatch int)) {
		n, ahead := len(order), 2*(p.Stages-1-stage)+(p.Virtual-1)*largest
		for i := range n + ahead {
			if i < n {
				do(Forward, order[i][0]*p.Stages+stage, order[i][1])
			}
			if i >= ahead {
				j := order[i-ahead]
				do(Backward, (p.Virtual-1-j[0])*p.Stages+stage, j[1])
			}
		}
	})
}

// lists are the actions of all stages, given the work of each in order.
func (p Pipeline) lists(order func(stage int, do func(k ActionKind, chunk, microBatch int))) [][]Action {
	if min(p.Stages, p.Virtual, p.MicroBatches) < 1 || p.Layers < p.Chunks() {
		panic(fmt.Sprintf("parallel: no pipeline: %+v", p))
	}
	work := make([][]Action, p.Stages)
	for s := range work {
		order(s, func(k ActionKind, chunk, microBatch int) {
			work[s] = append(work[s], p.action(k, chunk, microBatch))
		})
	}
	return p.addTransfers(work)
}
