package parallel

import (
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Executor runs a pipeline's schedule on one stage. One goroutine uses it.
type Executor struct {
	Pipeline Pipeline
	Stage    *llama.Stage
	Queue    tensor.Queue
	World    collective.Group
	Ranks    []int // of the pipeline's stages in World
	Index    int   // of this stage

	work collective.Work // the last batch of transfers
}

// Step is what a stage does with the micro-batches of a step.
type Step struct {
	Actions []Action                // of this stage
	Slots   []int                   // micro-batches that the Stage keeps at a time, of each chunk
	Input   func(i int) llama.Input // micro-batch i
	Loss    tensor.Buffer           // F64 [1], where the last chunk adds the losses
	Scale   float64                 // of the loss, 1/targets
}

// Slots is how many micro-batches a stage of p keeps of each of its chunks when it runs a list of actions: so many that
// the memory of one is needed no more when the first action of the one that takes its place begins, other than the
// gradient that is on its way to the previous stage, which the latter's forward pass does not touch.
func (p Pipeline) Slots(list []Action) []int {
	type key struct{ chunk, microBatch int }
	first, last := map[key]int{}, map[key]int{} // a batch of transfers is one moment
	moment := 0
	for k, a := range list {
		if k == 0 || a.Batch == 0 || a.Batch != list[k-1].Batch {
			moment++
		}
		at := key{a.Chunk / p.Stages, a.MicroBatch}
		if _, ok := first[at]; !ok {
			first[at] = moment
		}
		last[at] = moment
	}
	slots := make([]int, p.Virtual)
	for k := range slots {
		slots[k] = 1
	}
	for at, end := range last {
		next := func() int { return first[key{at.chunk, at.microBatch + slots[at.chunk]}] } // 0: there is none
		for begin := next(); begin > 0 && begin <= end; begin = next() {
			slots[at.chunk]++
		}
	}
	return slots
}

// Work is the last transfers: when they have ended without a failure, so have all.
func (x *Executor) Work() collective.Work { return x.work }

// Run does the actions in order. A batch of transfers goes on beside one pass of the Stage, unless that needs it; the
// one after waits.
func (x *Executor) Run(s Step) {
	loaded := make([]int, len(s.Slots)) // micro-batches of each chunk
	take := func(a Action) {
		chunk := a.Chunk / x.Pipeline.Stages
		x.Stage.Select(chunk, a.MicroBatch%s.Slots[chunk])
		if a.MicroBatch >= loaded[chunk] {
			x.Stage.Load(s.Input(a.MicroBatch))
			loaded[chunk] = a.MicroBatch + 1
		}
	}
	var due, last collective.Work // the transfers that the next pass waits for, as it waits for all before; and the last
	for k := 0; k < len(s.Actions); {
		a := s.Actions[k]
		if !a.Kind.Transfers() {
			x.Queue.Wait(due.Event())
			due = last
			take(a)
			x.pass(a, s)
			k++
			continue
		}
		var ops []collective.Op
		feeds := false
		for n := k; k < len(s.Actions) && s.Actions[k].Batch == a.Batch; k++ {
			take(s.Actions[k])
			ops = append(ops, x.transfer(s.Actions[k]))
			feeds = feeds || s.Actions[k].feeds(nextPass(s.Actions[n:]))
		}
		last = x.World.Start(x.Queue, ops...)
		if feeds {
			due = last
		}
	}
	x.work = last
}

// nextPass is the first action that is no transfer, or at the end of a step the last transfer.
func nextPass(list []Action) (a Action) {
	for _, a = range list {
		if !a.Kind.Transfers() {
			break
		}
	}
	return a
}

// feeds says whether a brings what pass begins with.
func (a Action) feeds(pass Action) bool {
	if a.Chunk != pass.Chunk || a.MicroBatch != pass.MicroBatch {
		return false
	}
	return a.Kind == RecvForward && pass.Kind == Forward || a.Kind == RecvBackward && pass.Kind.input()
}

// pass does an action with the micro-batch in hand.
func (x *Executor) pass(a Action, s Step) {
	switch a.Kind {
	case Forward:
		x.Stage.Forward()
	case BackwardWeight:
		x.Stage.BackwardWeight()
	default:
		if x.Stage.Ends() {
			x.Stage.Loss(s.Loss, s.Scale, true)
		}
		x.Stage.Backward()
	}
}

// transfer is the operation of an action for the micro-batch in hand.
func (x *Executor) transfer(a Action) collective.Op {
	peer := x.Ranks[a.Peer]
	switch a.Kind {
	case SendForward:
		return collective.Send(x.Stage.Output(), peer)
	case RecvForward:
		return collective.Recv(x.Stage.Input(), peer)
	case SendBackward:
		return collective.Send(x.Stage.ResidualGradient(), peer)
	default:
		return collective.Recv(x.Stage.ResidualGradient(), peer)
	}
}

// Evaluate runs a micro-batch forward only, and with the last chunk adds its losses to loss, F64 [1].
func (x *Executor) Evaluate(in llama.Input, loss tensor.Buffer) {
	exchange := func(a Action) {
		x.work = x.World.Start(x.Queue, x.transfer(a))
		x.Queue.Wait(x.work.Event())
	}
	for k := range x.Pipeline.Virtual {
		chunk := k*x.Pipeline.Stages + x.Index
		x.Stage.Select(k, 0)
		x.Stage.Load(in)
		if x.Pipeline.carries(chunk - 1) {
			exchange(x.Pipeline.action(RecvForward, chunk, 0))
		}
		x.Stage.Forward()
		if x.Pipeline.carries(chunk) {
			exchange(x.Pipeline.action(SendForward, chunk, 0))
		}
	}
	if x.Stage.Ends() {
		x.Stage.Loss(loss, 0, false)
	}
}
