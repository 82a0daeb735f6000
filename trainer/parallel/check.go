package parallel

import (
	"errors"
	"fmt"
)

// ErrSchedule is what every fault of a schedule is.
var ErrSchedule = errors.New("bad schedule")

// Fault is what is wrong with an action of a schedule.
type Fault struct {
	Stage, Index int    // place in the lists; Index is the list's length if something is missing at its end
	Action       Action // zero at the end
	Why          string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("%v: stage %d, action %d: %s", ErrSchedule, f.Stage, f.Index, f.Why)
}

// Unwrap makes a Fault an ErrSchedule.
func (f *Fault) Unwrap() error { return ErrSchedule }

// Usage is the most that a stage keeps at a time.
type Usage struct {
	Activations int // pairs of a chunk and a micro-batch from Forward to the end of Backward or BackwardWeight
	Received    int // inputs and gradients from their receive to the end of the work that takes them
}

// Check proves that lists, one for each stage, run p: every chunk takes every micro-batch forward and back once, after
// what that needs; every transfer has one partner, in the same order and with the same content; and nothing waits for
// ever, even if a stage does nothing until the transfers of its batch are through, and a transfer is through only when
// both of its stages are at it. The error is ErrSchedule, of one action a *Fault.
func Check(p Pipeline, lists [][]Action) ([]Usage, error) {
	if len(lists) != p.Stages {
		return nil, fmt.Errorf("%w: %d lists for %d stages", ErrSchedule, len(lists), p.Stages)
	}
	usage := make([]Usage, p.Stages)
	for s, list := range lists {
		c := stageCheck{p: p, stage: s, done: make([]kinds, p.Chunks()*p.MicroBatches)}
		for i, a := range list {
			if why := c.add(a); why != "" {
				return nil, &Fault{s, i, a, a.String() + " " + why}
			}
		}
		if why := c.missing(); why != "" {
			return nil, &Fault{s, len(list), Action{}, why}
		}
		usage[s] = c.peak
	}
	if f := p.checkTransfers(lists); f != nil {
		return nil, f
	}
	return usage, nil
}

// kinds is a set of kinds of action.
type kinds uint16

const (
	inputKinds  kinds = 1<<Backward | 1<<BackwardInput  // either makes the gradient of the input
	weightKinds kinds = 1<<Backward | 1<<BackwardWeight // either ends the backward pass
)

// stageCheck goes through the list of one stage.
type stageCheck struct {
	p         Pipeline
	stage     int
	done      []kinds // by chunk and micro-batch
	batch     int     // the last
	open      bool    // the last action is of that batch
	now, peak Usage
}

func (c *stageCheck) of(chunk, microBatch int) *kinds {
	return &c.done[chunk*c.p.MicroBatches+microBatch]
}

// add says why a must not come next, "" if it may.
func (c *stageCheck) add(a Action) string {
	p := c.p
	if a.Kind >= numKinds || a.Chunk < 0 || a.Chunk >= p.Chunks() || p.Stage(a.Chunk) != c.stage ||
		a.MicroBatch < 0 || a.MicroBatch >= p.MicroBatches {
		return fmt.Sprintf("is not of this stage; there are %d micro-batches, and chunk c of %d on stage c mod %d",
			p.MicroBatches, p.Chunks(), p.Stages)
	}
	want := p.action(a.Kind, a.Chunk, a.MicroBatch)
	if a.Kind.Transfers() {
		if !p.has(a.Kind, a.Chunk) {
			return "crosses no boundary between stages"
		}
		if !c.open || a.Batch != c.batch {
			c.batch++
		}
		want.Batch = c.batch
	}
	if a != want {
		return fmt.Sprintf("has peer %d, batch %d, layers %v; want peer %d, batch %d, layers %v",
			a.Peer, a.Batch, a.Layers, want.Peer, want.Batch, want.Layers)
	}
	c.open = a.Kind.Transfers()

	done := c.of(a.Chunk, a.MicroBatch)
	once := kinds(1 << a.Kind)
	if a.Kind.input() {
		once = inputKinds
	}
	if *done&once != 0 {
		return "is done already"
	}
	for _, need := range p.before(a) {
		if *c.of(need.Chunk, need.MicroBatch)&accepts(need.Kind) == 0 {
			return "comes before " + need.String()
		}
	}
	*done |= 1 << a.Kind
	c.count(a)
	return ""
}

// accepts are the kinds that are as good as k for what comes after it.
func accepts(k ActionKind) kinds {
	if k == Backward {
		return inputKinds
	}
	return 1 << k
}

// has says whether kind k is among the actions of a chunk.
func (p Pipeline) has(k ActionKind, chunk int) bool {
	switch k {
	case RecvForward, SendBackward:
		return p.carries(chunk - 1)
	case SendForward, RecvBackward:
		return p.carries(chunk)
	}
	return true
}

// before is what a stage must have done before a. A Backward stands for BackwardInput too.
func (p Pipeline) before(a Action) []Action {
	own := func(k ActionKind) Action { return p.action(k, a.Chunk, a.MicroBatch) }
	switch {
	case a.Kind == Forward && p.carries(a.Chunk-1):
		return []Action{own(RecvForward)}
	case a.Kind == Forward && a.Chunk > 0:
		return []Action{p.action(Forward, a.Chunk-1, a.MicroBatch)}
	case a.Kind.input() && p.carries(a.Chunk):
		return []Action{own(Forward), own(RecvBackward)}
	case a.Kind.input() && a.Chunk < p.Chunks()-1:
		return []Action{own(Forward), p.action(Backward, a.Chunk+1, a.MicroBatch)}
	case a.Kind.input(), a.Kind == SendForward:
		return []Action{own(Forward)}
	case a.Kind == SendBackward:
		return []Action{own(Backward)}
	case a.Kind == BackwardWeight:
		return []Action{own(BackwardInput)}
	}
	return nil
}

// count follows what the stage keeps through a.
func (c *stageCheck) count(a Action) {
	switch a.Kind {
	case RecvForward, RecvBackward:
		c.now.Received++
	case Forward:
		c.now.Activations++
	}
	c.peak.Activations = max(c.peak.Activations, c.now.Activations)
	c.peak.Received = max(c.peak.Received, c.now.Received)
	if 1<<a.Kind&weightKinds != 0 {
		c.now.Activations--
	}
	if a.Kind == Forward && c.p.has(RecvForward, a.Chunk) || a.Kind.input() && c.p.has(RecvBackward, a.Chunk) {
		c.now.Received--
	}
}

// missing says what the list lacks at its end, "" for nothing.
func (c *stageCheck) missing() string {
	for chunk := c.stage; chunk < c.p.Chunks(); chunk += c.p.Stages {
		for i := range c.p.MicroBatches {
			done := *c.of(chunk, i)
			for _, k := range []ActionKind{Forward, RecvForward, SendForward, RecvBackward, SendBackward} {
				if c.p.has(k, chunk) && done&(1<<k) == 0 {
					return c.p.action(k, chunk, i).String() + " is missing"
				}
			}
			if done&weightKinds == 0 {
				return fmt.Sprintf("the backward pass of micro-batch %d through chunk %d is missing", i, chunk)
			}
		}
	}
	return ""
}
