package collective

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// grace is how long a rank that saw another one at another operation waits for the rest, to learn which of them
// differs from most.
const grace = time.Second

// blame is the failure of an operation by err.
func (e *engine) blame(t *transfer, err error) *Error {
	return &Error{Peer: -1, Op: t.desc.String(), Seq: t.desc.seq, Err: err}
}

// lost finds out whether an operation that does not move can never end: a rank that it needs has left, or is at
// another operation.
func (e *engine) lost(t *transfer) *Error {
	for p, l := range e.links {
		if l == nil || !l.gone.Load() {
			continue
		}
		// All that it sent before it left is in the ring by now.
		f := &t.flows[p]
		if f.block == nil && f.inLeft(t) && l.in.peek() == nil || f.outLeft() && !l.out.vacant() || !l.out.drained() {
			err := e.blame(t, fmt.Errorf("%w: rank %d closed the group", ErrGone, p))
			err.Peer = p
			return err
		}
	}
	if t.disputed.IsZero() {
		return nil
	}
	return e.judge(t)
}

// judge says which rank is at another operation than most are, once all have been seen somewhere or have had their
// time.
func (e *engine) judge(t *transfer) *Error {
	votes := map[desc]int{t.desc: 1}
	missing := 0
	for p := range t.flows {
		switch f := &t.flows[p]; {
		case p == e.rank || t.to >= 0 && p != t.to:
		case f.agreed:
			votes[t.desc]++
		case f.other.seq != 0:
			votes[f.other]++
		default:
			missing++
		}
	}
	if wait := grace - time.Since(t.disputed); missing > 0 && wait > 0 {
		if !t.patient {
			t.patient = true
			time.AfterFunc(wait, e.wakeUp)
		}
		return nil
	}
	// A tie goes against the other rank.
	most := t.desc
	for d, n := range votes {
		if n > votes[most] {
			most = d
		}
	}
	culprit, at := e.rank, t.desc
	if most == t.desc {
		for p := range t.flows {
			if f := &t.flows[p]; f.other.seq != 0 {
				culprit, at = p, f.other
				break
			}
		}
	}
	err := e.blame(t, fmt.Errorf("%w: rank %d is at %v #%d, %s at %v #%d",
		ErrMismatch, culprit, at, at.seq, e.others(votes[most], t), most, most.seq))
	err.Peer = culprit
	return err
}

// others names those that the culprit differs from.
func (e *engine) others(votes int, t *transfer) string {
	if t.to >= 0 || e.size == 2 {
		return "the other one"
	}
	return fmt.Sprintf("%d of %d", votes, e.size)
}

// overdue fails the Group: batch seq took longer than it may.
func (e *engine) overdue(seq uint64) {
	e.run.Lock()
	_, head := e.step()
	if head == nil || head.seq != seq { // it ended, or failed, just now
		e.run.Unlock()
		return
	}
	late := head.transfers[0]
	for _, t := range head.transfers {
		if !t.done(e.links) {
			late = t
			break
		}
	}
	missing := e.missing(late)
	err, mark := e.blame(late, nil), late.mark
	e.run.Unlock()

	if len(missing) > 0 {
		err.Peer = missing[0]
	}
	why := fmt.Sprintf("%s after %v", notCome(missing), e.o.Timeout)
	if r := e.recorder.Load(); r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		err.Peer, why = r.explain(ctx, e, mark, missing)
		cancel()
	}
	err.Err = fmt.Errorf("%w: %s", ErrTimeout, why)
	e.fail(err)
}

// missing are the ranks that an operation waits for: those that have not begun it or, if all have, those that owe
// data.
func (e *engine) missing(t *transfer) []int {
	var absent, slow []int
	for p := range t.flows {
		f := &t.flows[p]
		if p == e.rank || t.to >= 0 && p != t.to {
			continue
		}
		if !f.agreed {
			absent = append(absent, p)
		}
		if f.inLeft(t) && f.block == nil || f.outLeft() || !e.links[p].out.drained() {
			slow = append(slow, p)
		}
	}
	if len(absent) > 0 {
		return absent
	}
	return slow
}

// notCome says it in words.
func notCome(ranks []int) string {
	if len(ranks) == 1 {
		return fmt.Sprintf("rank %d has not come", ranks[0])
	}
	return fmt.Sprintf("ranks %s have not come", strings.Trim(fmt.Sprint(ranks), "[]"))
}
