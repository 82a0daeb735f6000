package collective

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// askTimeout is how long the others have to show their recorders.
const askTimeout = time.Second

var errNoRecorder = errors.New("it has no recorder")

// finding is what one rank said about the operation that others wait in.
type finding struct {
	rank   int
	guilty bool
	why    string // what the rank has not done, and does instead
}

// explain finds out which rank keeps the operation of mark waiting. missing are the ranks of which this one has heard
// nothing. It returns the rank at fault and a sentence.
func (r *Recorder) explain(ctx context.Context, e *engine, m mark, missing []int) (int, string) {
	var op Record
	r.update(m, func(x *entry, _ time.Time) { op = x.record() })
	if op.Seq == 0 || len(missing) == 0 {
		return -1, "the operation did not end, although every rank has come"
	}
	found := make([]finding, len(missing))
	var asking sync.WaitGroup
	for i, p := range missing {
		asking.Go(func() { found[i] = e.question(ctx, p, op) })
	}
	asking.Wait()
	culprit, others := -1, 0
	for i, f := range found {
		switch {
		case !f.guilty:
		case culprit < 0:
			culprit = i
		default:
			others++
		}
	}
	waited := time.Since(op.Began).Round(time.Millisecond)
	if culprit < 0 {
		return missing[0], fmt.Sprintf("every rank has come, but data of rank %d is missing after %v",
			missing[0], waited)
	}
	why := fmt.Sprintf("after %v rank %d %s", waited, found[culprit].rank, found[culprit].why)
	if others > 0 {
		why += fmt.Sprintf("; %d more have not come", others)
	}
	return found[culprit].rank, why
}

// question asks a rank about an operation of this one.
func (e *engine) question(ctx context.Context, rank int, op Record) finding {
	b, err := e.backend.ask(ctx, rank)
	if err == nil {
		var rep report
		if rep, err = parseReport(b); err == nil {
			f := rep.judge(e.rank, op)
			f.rank = rank
			return f
		}
	}
	if errors.Is(err, errNoRecorder) {
		return finding{rank, true, "has not come; " + err.Error()}
	}
	return finding{rank, true, fmt.Sprintf("has not come and does not answer (%v)", err)}
}

// judge says whether the rank of the report has come to an operation that rank asker waits in.
func (r report) judge(asker int, op Record) finding {
	came := op.Peer < 0 && r.Last[op.ID] >= op.Seq
	var now *Record // what the rank does instead: its oldest unfinished operation, else its last one
	for i := range r.Records {
		x := &r.Records[i]
		same := x.ID == op.ID && x.Seq == op.Seq && (x.Peer < 0) == (op.Peer < 0)
		if same && (op.Peer < 0 || x.Peer == asker && x.Recv != op.Recv) {
			came = true
			if x.State == Queued {
				return finding{guilty: true, why: fmt.Sprintf(
					"has started it, but its queue has not come to it for %v (%s)", r.age(x.Start), x.Caller)}
			}
		}
		if now == nil || !now.End.IsZero() { // else the oldest unfinished one stays
			now = x
		}
	}
	switch {
	case came:
		return finding{}
	case now == nil:
		return finding{guilty: true, why: "has not come: it has not started any operation yet"}
	case now.State == Queued || now.State == Running:
		return finding{guilty: true, why: fmt.Sprintf("has not come: it has been in %s #%d of group %s for %v (%s)",
			now.Op, now.Seq, now.Group, r.age(now.Start), now.Caller)}
	}
	return finding{guilty: true, why: fmt.Sprintf(
		"has not come: its last operation, %s #%d of group %s (%s), ended %v ago",
		now.Op, now.Seq, now.Group, now.Caller, r.age(now.End))}
}

// age is how long ago something was for the rank of the report, by its own clock.
func (r report) age(t time.Time) time.Duration { return r.Now.Sub(t).Round(time.Millisecond) }
