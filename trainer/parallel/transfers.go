package parallel

import (
	"fmt"
	"slices"
)

// Reference times of addTransfers: of a forward and of each half of a backward pass, and of a transfer on its way. Any
// give lists that run; with these, stages wait least for transfers that take up to a tenth of a forward.
const (
	passTime = 4
	wayTime  = 1
)

// addTransfers lays sends and receives between the work of all stages.
//
// It lets the stages run in reference times. A send follows the work that made its content. The receive comes before
// the work at which the peer is at that moment, so that the transfer goes on beside it. The transfers before a work
// are two batches, up to the one for which the work waited and after it, so that it does not wait for those.
//
// Hence no deadlock, even if a stage did nothing until its batch is through: order the transfers by their moments, and
// at one moment those for which a stage waits before the others. Then a transfer waits, on both of its stages, only
// for works that ended by its moment and for batches of transfers that come before it in this order.
func (p Pipeline) addTransfers(work [][]Action) [][]Action {
	runs := make([]stageRun, p.Stages)
	for s := range runs {
		runs[s] = stageRun{p: p, work: work[s], batches: make([][]Action, 2*len(work[s])+1)}
	}
	there := arrivals{p, make([]int, 2*p.Chunks()*p.MicroBatches)}
	for {
		now := 0 // the next end of a work
		for s := range runs {
			r := &runs[s]
			if !r.busy && r.next < len(r.work) {
				if at, ok := there.at(r.work[r.next]); ok {
					r.start(at)
				}
			}
			if r.busy && (now == 0 || r.ends < now) {
				now = r.ends
			}
		}
		if now == 0 {
			break
		}
		var awaited, others []Action // sends of this moment
		for s := range runs {
			r := &runs[s]
			if !r.busy || r.ends != now {
				continue
			}
			r.busy = false
			a := r.work[r.next-1]
			there.add(a, now)
			if send, ok := p.transfer(a); ok {
				others = append(others, send)
			}
		}
		others = slices.DeleteFunc(others, func(send Action) bool {
			if !runs[send.Peer].awaits(p.partner(send)) {
				return false
			}
			awaited = append(awaited, send)
			return true
		})
		for _, send := range awaited {
			runs[p.Stage(send.Chunk)].place(send)
			runs[send.Peer].place(p.partner(send))
		}
		for _, send := range awaited {
			runs[send.Peer].fed = true
		}
		for _, send := range others {
			runs[p.Stage(send.Chunk)].place(send)
			runs[send.Peer].place(p.partner(send))
		}
	}
	lists := make([][]Action, p.Stages)
	for s := range runs {
		lists[s] = runs[s].list()
	}
	return lists
}

// stageRun is a stage in the run of addTransfers.
type stageRun struct {
	p       Pipeline
	work    []Action
	batches [][]Action // 2i and 2i+1 are before work i
	next    int        // the first work whose start is not known
	busy    bool       // the work before it has not ended
	ends    int        // when it does
	fed     bool       // the receive for which the next work waits is placed
}

// start starts the next work when the stage is free, at the earliest at.
func (r *stageRun) start(at int) {
	r.ends = max(r.ends, at) + passTime
	if r.work[r.next].Kind == Backward {
		r.ends += passTime
	}
	r.busy, r.fed = true, false
	r.next++
}

// awaits says whether the stage stands still for want of recv.
func (r *stageRun) awaits(recv Action) bool {
	return !r.busy && r.next < len(r.work) && slices.Contains(r.p.before(r.work[r.next]), recv)
}

// place puts a transfer of this moment before the work at which the stage is, or for which it waits.
func (r *stageRun) place(a Action) {
	i := 2 * r.next
	switch {
	case r.busy:
		i--
	case r.fed:
		i++
	}
	r.batches[i] = append(r.batches[i], a)
}

func (r *stageRun) list() []Action {
	if r.next < len(r.work) {
		panic(fmt.Sprintf("parallel: %v waits for ever in %+v", r.work[r.next], r.p))
	}
	var list []Action
	number := 0
	for i, batch := range r.batches {
		if len(batch) > 0 {
			number++
		}
		for _, a := range batch {
			a.Batch = number
			list = append(list, a)
		}
		if i%2 == 1 {
			list = append(list, r.work[i/2])
		}
	}
	return list
}

// arrivals says when what the chunks made was at their neighbours, 0 for not yet; forward, then backward.
type arrivals struct {
	p     Pipeline
	times []int
}

func (t arrivals) of(k ActionKind, chunk, microBatch int) *int {
	if k != Forward {
		chunk += t.p.Chunks()
	}
	return &t.times[chunk*t.p.MicroBatches+microBatch]
}

func (t arrivals) add(a Action, now int) {
	if a.Kind != BackwardWeight {
		*t.of(a.Kind, a.Chunk, a.MicroBatch) = now + wayTime
	}
}

// at is when the stage of a had what it needs from the neighbouring chunk; false for not yet.
func (t arrivals) at(a Action) (int, bool) {
	from := a.Chunk - 1
	if a.Kind != Forward {
		from = a.Chunk + 1
	}
	if a.Kind == BackwardWeight || from < 0 || from == t.p.Chunks() {
		return 0, true
	}
	time := *t.of(a.Kind, from, a.MicroBatch)
	return time, time > 0
}
