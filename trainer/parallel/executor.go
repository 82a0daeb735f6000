package parallel

import (
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Executor runs a pipeline's schedule on one stage. One goroutine uses it.
type Executor struct {
	Stage *llama.Stage
	Queue tensor.Queue
	World collective.Group
	Ranks []int // of the pipeline's stages in World
	Index int   // of this stage

	work collective.Work // the last batch of transfers
}

// Step is what a stage does with the micro-batches of a step.
type Step struct {
	Actions []Action                // of this stage
	Slots   int                     // micro-batches that the Stage keeps at a time
	Input   func(i int) llama.Input // micro-batch i
	Loss    tensor.Buffer           // F64 [1], where the last stage adds the losses
	Scale   float64                 // of the loss, 1/targets
}

// Slots is how many micro-batches a stage keeps when it runs a list of actions: so many that the memory of one is needed
// no more, not even by a transfer on its way, when the first action of the one that takes its place begins.
func Slots(list []Action) int {
	first, last := map[int]int{}, map[int]int{} // of each micro-batch; a batch of transfers is one moment
	moment := 0
	for k, a := range list {
		if k == 0 || a.Batch == 0 || a.Batch != list[k-1].Batch {
			moment++
		}
		if _, ok := first[a.MicroBatch]; !ok {
			first[a.MicroBatch] = moment
		}
		last[a.MicroBatch] = moment
	}
	slots := 1
	for i, end := range last {
		for begin, ok := first[i+slots]; ok && begin <= end; begin, ok = first[i+slots] {
			slots++
		}
	}
	return slots
}

// Work is the last transfers: when they have ended without a failure, so have all.
func (x *Executor) Work() collective.Work { return x.work }

// Run does the actions in order. Transfers that start together are waited for together, by the queue.
func (x *Executor) Run(s Step) {
	loaded := -1
	take := func(i int) {
		x.Stage.Select(i % s.Slots)
		if i > loaded {
			x.Stage.Load(s.Input(i))
			loaded = i
		}
	}
	for k := 0; k < len(s.Actions); {
		a := s.Actions[k]
		if a.Kind.Transfers() {
			var ops []collective.Op
			for batch := a.Batch; k < len(s.Actions) && s.Actions[k].Batch == batch; k++ {
				take(s.Actions[k].MicroBatch)
				ops = append(ops, x.transfer(s.Actions[k]))
			}
			x.work = x.World.Start(x.Queue, ops...)
			x.Queue.Wait(x.work.Event())
			continue
		}
		take(a.MicroBatch)
		switch a.Kind {
		case Forward:
			x.Stage.Forward()
		case Backward:
			if x.Index == len(x.Ranks)-1 {
				x.Stage.Loss(s.Loss, s.Scale, true)
			}
			x.Stage.Backward()
		}
		k++
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

// Evaluate runs a micro-batch forward only, and on the last stage adds its losses to loss, F64 [1].
func (x *Executor) Evaluate(in llama.Input, loss tensor.Buffer) {
	exchange := func(op collective.Op) {
		x.work = x.World.Start(x.Queue, op)
		x.Queue.Wait(x.work.Event())
	}
	x.Stage.Select(0)
	x.Stage.Load(in)
	if x.Index > 0 {
		exchange(collective.Recv(x.Stage.Input(), x.Ranks[x.Index-1]))
	}
	x.Stage.Forward()
	if x.Index < len(x.Ranks)-1 {
		exchange(collective.Send(x.Stage.Output(), x.Ranks[x.Index+1]))
	} else {
		x.Stage.Loss(loss, 0, false)
	}
}
