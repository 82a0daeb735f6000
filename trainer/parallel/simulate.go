package parallel

// Cost is how long an action takes, in any unit; never negative.
type Cost func(Action) int64

// UniformCost is the Cost of pipelines whose chunks take equal time: the forward pass, the two halves of the backward
// pass, and a transfer, each of one micro-batch through one chunk.
func UniformCost(forward, input, weight, transfer int64) Cost {
	return func(a Action) int64 {
		switch a.Kind {
		case Forward:
			return forward
		case Backward:
			return input + weight
		case BackwardInput:
			return input
		case BackwardWeight:
			return weight
		}
		return transfer
	}
}

// Span is an action in time.
type Span struct {
	Action
	Start, End int64
}

// Timeline is a schedule in time.
type Timeline struct {
	Pipeline Pipeline
	Stages   [][]Span // one span for each action of a stage's list, in its order
	End      int64    // of the last action; the first starts at 0
}

// Simulate runs lists that pass Check, in exact time. A stage works on its list in order and does its transfers beside
// the work: a batch starts when the work before it in the list and the batch before it have ended, a transfer of it
// when its partner has started too. Work starts when the work before it and the batches with what it needs have ended.
// A transfer takes the cost of its send.
func Simulate(p Pipeline, lists [][]Action, cost Cost) (Timeline, error) {
	if _, err := Check(p, lists); err != nil {
		return Timeline{}, err
	}
	t := Timeline{Pipeline: p, Stages: make([][]Span, p.Stages)}
	sim := simulation{p, cost, map[Action]*message{}}
	stages := make([]simStage, p.Stages)
	for s, list := range lists {
		t.Stages[s] = make([]Span, len(list))
		for i, a := range list {
			t.Stages[s][i].Action = a
		}
		stages[s] = simStage{spans: t.Stages[s], received: map[Action]batch{}}
	}
	for moved := true; moved; {
		moved = false
		for s := range stages {
			for sim.step(&stages[s]) {
				moved = true
			}
		}
	}
	for s := range stages {
		t.End = max(t.End, stages[s].ends)
	}
	return t, nil
}

type simulation struct {
	p        Pipeline
	cost     Cost
	messages map[Action]*message // by their receive
}

// message is a transfer and its partner.
type message struct {
	sides      []*Span // that have started
	start, end int64   // once both have
}

// batch is the transfers that a stage starts together.
type batch []*message

// end is when all are through; false if that is not known yet.
func (b batch) end() (int64, bool) {
	var end int64
	for _, m := range b {
		if len(m.sides) < 2 {
			return 0, false
		}
		end = max(end, m.end)
	}
	return end, true
}

// simStage is a stage in the run of Simulate.
type simStage struct {
	spans    []Span
	next     int              // first that has not started
	ends     int64            // of the work before it
	last     batch            // that started
	received map[Action]batch // by receive, with Batch 0
}

// step starts the next work or batch of a stage; false if its start is not known yet.
func (sim simulation) step(r *simStage) bool {
	if r.next == len(r.spans) {
		return false
	}
	span, start := &r.spans[r.next], r.ends
	if !span.Kind.Transfers() {
		for _, need := range sim.p.before(span.Action) {
			if need.Kind.Transfers() {
				end, ok := r.received[need].end()
				if !ok {
					return false
				}
				start = max(start, end)
			}
		}
		span.Start, span.End = start, start+sim.cost(span.Action)
		r.ends = span.End
		r.next++
		return true
	}
	end, ok := r.last.end()
	if !ok {
		return false
	}
	r.last = nil
	first := r.next
	for r.next < len(r.spans) && r.spans[r.next].Batch == span.Batch {
		r.last = append(r.last, sim.meet(&r.spans[r.next], max(start, end)))
		r.next++
	}
	for _, s := range r.spans[first:r.next] {
		if a := s.Action; !a.Kind.Sends() {
			a.Batch = 0
			r.received[a] = r.last
		}
	}
	return true
}

// message is the one that a transfer belongs to.
func (sim simulation) message(a Action) *message {
	if a.Batch = 0; a.Kind.Sends() {
		a = sim.p.partner(a)
	}
	m := sim.messages[a]
	if m == nil {
		m = new(message)
		sim.messages[a] = m
	}
	return m
}

// meet starts one side of a message.
func (sim simulation) meet(side *Span, start int64) *message {
	m := sim.message(side.Action)
	m.sides = append(m.sides, side)
	m.start = max(m.start, start)
	if side.Kind.Sends() {
		m.end = sim.cost(side.Action)
	}
	if len(m.sides) == 2 {
		m.end += m.start
		for _, s := range m.sides {
			s.Start, s.End = m.start, m.end
		}
	}
	return m
}

// Bubble is the time that the stages, all together, do not work, and the time that they have.
func (t Timeline) Bubble() (idle, total int64) {
	total = t.End * int64(len(t.Stages))
	idle = total
	for _, spans := range t.Stages {
		for _, span := range spans {
			if !span.Kind.Transfers() {
				idle -= span.End - span.Start
			}
		}
	}
	return idle, total
}
