// Package collectivetest is the conformance suite of collective.Group. A case is what one rank does; the suite runs it
// on every rank, in goroutines or in processes, and each rank checks what it got against its formula.
package collectivetest

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/herdtrain/herd/collective"
)

// Case is one test: what each rank of a Group does.
type Case struct {
	Name    string
	Ranks   int
	Timeout time.Duration // of the Group's Options
	Rank    func(g collective.Group) error
	Dies    int // a rank whose process does not end well, 0: none; such a case is for processes only
	// Essential cases are run in processes also in short mode.
	Essential bool
}

// patience is the limit of operations that should not time out.
const patience = 20 * time.Second

// Cases are all tests, in sizes for short mode or not.
func Cases(short bool) []Case {
	cases := []Case{
		{Name: "batches", Essential: true, Ranks: 4, Rank: batches},
		{Name: "messages", Ranks: 4, Rank: messages},
		{Name: "queues", Ranks: 3, Rank: queues},
		{Name: "events", Ranks: 2, Rank: events},
		{Name: "cancelled wait", Ranks: 2, Rank: cancelledWait},
		{Name: "split", Essential: true, Ranks: 5, Rank: splits},
		{Name: "other size", Essential: true, Ranks: 3, Rank: otherSize},
		{Name: "other kind", Ranks: 3, Rank: otherKind},
		{Name: "other dtype", Ranks: 3, Rank: otherDType},
		{Name: "other root", Ranks: 3, Rank: otherRoot},
		{Name: "other order", Ranks: 2, Rank: otherOrder},
		{Name: "other message", Ranks: 2, Rank: otherMessage},
		{Name: "invalid", Ranks: 3, Rank: invalid},
		{Name: "abort", Ranks: 4, Rank: abort},
		{Name: "abort while moving", Essential: true, Ranks: 3, Rank: abortWhileMoving},
		{Name: "absent rank", Ranks: 3, Timeout: 300 * time.Millisecond, Rank: absent},
		{Name: "absent sender", Ranks: 3, Timeout: 300 * time.Millisecond, Rank: absentSender},
		{Name: "verdict: elsewhere", Ranks: 3, Timeout: 300 * time.Millisecond, Rank: elsewhere},
		{Name: "verdict: late", Essential: true, Ranks: 3, Timeout: 300 * time.Millisecond, Rank: late},
		{Name: "verdict: stuck queue", Ranks: 3, Timeout: 300 * time.Millisecond, Rank: stuckQueue},
		{Name: "killed", Essential: true, Ranks: 3, Dies: 1, Rank: killed},
		{Name: "killed while moving", Essential: true, Ranks: 3, Dies: 2, Rank: killedWhileMoving},
		{Name: "stopped", Essential: true, Ranks: 3, Dies: 1, Timeout: 300 * time.Millisecond, Rank: stopped},
		{Name: "closed rank", Ranks: 3, Rank: closedRank},
		{Name: "closed at the end", Ranks: 4, Rank: closedAtTheEnd},
		{Name: "closed in the middle", Ranks: 3, Rank: closedInTheMiddle},
	}
	worlds := []int{1, 2, 3, 5}
	if short {
		worlds = []int{1, 2, 3}
	}
	for _, n := range worlds {
		cases = append(cases, Case{
			Name: fmt.Sprintf("operations of %d", n), Ranks: n,
			Rank: func(g collective.Group) error { return operations(g, short) },
		})
	}
	return cases
}

// Run tests the Groups that open makes, with each rank in a goroutine; the suite closes them.
func Run(t *testing.T, open func(t testing.TB, n int, o collective.Options) []collective.Group) {
	for _, c := range Cases(testing.Short()) {
		if c.Dies > 0 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			c.parallel(t)
			groups := open(t, c.Ranks, c.options())
			for _, g := range groups {
				collective.NewRecorder(0).Watch(g)
			}
			for r, err := range Each(groups, c.Rank) {
				if err != nil {
					t.Errorf("rank %d: %v", r, err)
				}
			}
			for _, g := range groups {
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// parallel lets the cases that only wait for a time-out wait together.
func (c Case) parallel(t *testing.T) {
	if c.Timeout > 0 {
		t.Parallel()
	}
}

func (c Case) options() collective.Options {
	return collective.Options{Name: "test", Timeout: cmp.Or(c.Timeout, patience)}
}

// Each runs f on every rank in a goroutine of its own, and returns each rank's error. A rank that fails ends the
// others'.
func Each(groups []collective.Group, f func(g collective.Group) error) []error {
	errs := make([]error, len(groups))
	var ranks sync.WaitGroup
	for r, g := range groups {
		ranks.Go(func() {
			if errs[r] = f(g); errs[r] != nil {
				g.Abort(errs[r])
			}
		})
	}
	ranks.Wait()
	return errs
}

// expect says what is wrong with an error that should wrap want and name peer.
func expect(err, want error, peer int) error {
	var e *collective.Error
	switch {
	case !errors.Is(err, want):
		return fmt.Errorf("the error is %v, want %v", err, want)
	case !errors.As(err, &e):
		return fmt.Errorf("%v is a %T, want a *collective.Error", err, err)
	case e.Peer != peer:
		return fmt.Errorf("%v blames rank %d, want %d", err, e.Peer, peer)
	}
	return nil
}
