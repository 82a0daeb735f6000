package collectivetest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/herdtrain/herd/collective"
)

// expectSentence is expect, and looks for what the error says.
func expectSentence(err, want error, peer int, parts ...string) error {
	if err := expect(err, want, peer); err != nil {
		return err
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			return fmt.Errorf("the error says %q, want %q in it", err, p)
		}
	}
	return nil
}

// elsewhere has rank 1 skip an all-reduce and wait in another Group.
func elsewhere(g collective.Group) error {
	other, err := g.Split(context.Background(), 0, 0)
	if err != nil {
		return err
	}
	defer other.Close()
	if g.Rank() == 1 {
		other.Start(newGate(), collective.AllGather(floats(6), floats(2))) // it never begins, and never times out
		<-failure(g)
	}
	w := g.Start(nil, collective.AllReduce(floats(9), floats(9), collective.Sum))
	return expectSentence(w.Wait(context.Background()), collective.ErrTimeout, 1,
		"all-reduce of 9 × f32, sum #2",
		"rank 1 has not come: it has been in all-gather of 6 × f32 #1 of group test/0 for",
		"collectivetest/verdicts.go:")
}

// late has rank 1 come when the others have given up.
func late(g collective.Group) error {
	if err := finish(g.Start(nil, collective.Barrier())); err != nil {
		return err
	}
	if g.Rank() == 1 {
		<-failure(g)
	}
	w := g.Start(nil, collective.AllReduce(floats(9), floats(9), collective.Sum))
	return expectSentence(w.Wait(context.Background()), collective.ErrTimeout, 1,
		"rank 1 has not come: its last operation, barrier #1 of group test", "ended")
}

// stuckQueue has rank 2 start the operation on a queue that never comes to it.
func stuckQueue(g collective.Group) error {
	if err := finish(g.Start(nil, collective.Barrier())); err != nil {
		return err
	}
	w := collective.Work{}
	if g.Rank() == 2 {
		w = g.Start(newGate(), collective.Barrier())
	} else {
		w = g.Start(nil, collective.Barrier())
	}
	return expectSentence(w.Wait(context.Background()), collective.ErrTimeout, 2,
		"rank 2 has started it, but its queue has not come to it for")
}

// killed has the process of rank 1 die before an operation.
func killed(g collective.Group) error {
	if err := finish(g.Start(nil, collective.Barrier())); err != nil && g.Rank() == 1 {
		return err
	}
	if g.Rank() == 1 {
		return unix.Kill(unix.Getpid(), unix.SIGKILL)
	}
	w := g.Start(nil, collective.AllReduce(floats(9), floats(9), collective.Sum))
	return expectSentence(w.Wait(context.Background()), collective.ErrGone, 1, "rank 1")
}

// killedWhileMoving has the process of rank 2 die in the middle of large operations.
func killedWhileMoving(g collective.Group) error {
	v := floats(3 << 20)
	first := g.Start(nil, collective.AllReduce(v, v, collective.Max))
	var w collective.Work
	for range 20 {
		w = g.Start(nil, collective.AllReduce(v, v, collective.Max))
	}
	if g.Rank() == 2 {
		return errors.Join(finish(first), unix.Kill(unix.Getpid(), unix.SIGKILL))
	}
	return expectSentence(w.Wait(context.Background()), collective.ErrGone, 2, "rank 2")
}

// stopped has the process of rank 1 hang.
func stopped(g collective.Group) error {
	err := finish(g.Start(nil, collective.Barrier()))
	if g.Rank() == 1 && err == nil {
		err = unix.Kill(unix.Getpid(), unix.SIGSTOP)
		<-newGate().Done() // if the signal takes its time
	}
	if err == nil {
		err = g.Start(nil, collective.AllReduce(floats(9), floats(9), collective.Sum)).Wait(context.Background())
	}
	return expectSentence(err, collective.ErrTimeout, 1, "rank 1 has not come and does not answer")
}
