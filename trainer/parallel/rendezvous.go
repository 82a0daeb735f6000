package parallel

import (
	"fmt"
	"slices"
	"strings"
)

// checkTransfers runs the transfers of lists that are each in order by themselves. A stage goes on when all transfers
// of its batch are through. One is through when, of those between its two stages in its direction, it is the first
// that both have open.
func (p Pipeline) checkTransfers(lists [][]Action) *Fault {
	runs := make([]batchRun, len(lists))
	for s := range runs {
		runs[s].list = lists[s]
	}
	for moved := true; moved; {
		moved = false
		for s := range runs {
			from := &runs[s]
			if len(from.open) == 0 && from.nextBatch() {
				moved = true
			}
			for _, i := range slices.Clone(from.open) {
				send := from.list[i]
				if !send.Kind.Sends() || from.first(send.Peer, true) != i {
					continue
				}
				to := &runs[send.Peer]
				j := to.first(s, false)
				if j < 0 {
					continue
				}
				recv, want := to.list[j], p.partner(send)
				if want.Batch = recv.Batch; recv != want {
					return &Fault{send.Peer, j, recv, fmt.Sprintf("%v meets %v, action %d of stage %d", recv, send, i, s)}
				}
				from.close(i)
				to.close(j)
				moved = true
			}
		}
	}
	return deadlock(runs)
}

// deadlock is the fault of a run that moves no more, nil if all have ended.
func deadlock(runs []batchRun) *Fault {
	var fault *Fault
	var why []string
	for s, r := range runs {
		if len(r.open) == 0 {
			continue
		}
		i := r.open[0]
		if fault == nil {
			fault = &Fault{Stage: s, Index: i, Action: r.list[i]}
		}
		why = append(why, fmt.Sprintf("%v (stage %d, action %d)", r.list[i], s, i))
	}
	if fault != nil {
		fault.Why = "deadlock: waiting are " + strings.Join(why, ", ")
	}
	return fault
}

// batchRun is a stage in the run of checkTransfers.
type batchRun struct {
	list []Action
	next int   // first action after the batch
	open []int // transfers of the batch that are not through
}

// nextBatch opens the next batch of transfers; false at the end.
func (r *batchRun) nextBatch() bool {
	for r.next < len(r.list) && !r.list[r.next].Kind.Transfers() {
		r.next++
	}
	for i := r.next; r.next < len(r.list) && r.list[r.next].Kind.Transfers() && r.list[r.next].Batch == r.list[i].Batch; {
		r.open = append(r.open, r.next)
		r.next++
	}
	return len(r.open) > 0
}

// first is the index of the first open transfer with a peer in one direction, −1 for none.
func (r *batchRun) first(peer int, sends bool) int {
	for _, i := range r.open {
		if a := r.list[i]; a.Peer == peer && a.Kind.Sends() == sends {
			return i
		}
	}
	return -1
}

func (r *batchRun) close(i int) {
	r.open = slices.DeleteFunc(r.open, func(j int) bool { return j == i })
}
