package collectivetest

import (
	"context"
	"errors"
	"fmt"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// odd starts an operation on rank 1 and another one on the rest: an error on every rank, which blames rank 1.
func odd(g collective.Group, one, rest collective.Op) error {
	if err := finish(g.Start(nil, collective.Barrier())); err != nil {
		return err
	}
	op := rest
	if g.Rank() == 1 {
		op = one
	}
	err := g.Start(nil, op).Wait(context.Background())
	if err := expect(err, collective.ErrMismatch, 1); err != nil {
		return err
	}
	again := g.Start(nil, collective.Barrier()).Wait(context.Background())
	return expect(again, collective.ErrMismatch, 1)
}

func floats(n int) tensor.Buffer { return tensor.HostBuffer(make([]float32, n)) }

func otherSize(g collective.Group) error {
	return odd(g, collective.AllReduce(floats(70_001), floats(70_001), collective.Sum),
		collective.AllReduce(floats(70_000), floats(70_000), collective.Sum))
}

func otherKind(g collective.Group) error {
	return odd(g, collective.AllGather(floats(3*8), floats(8)), collective.Broadcast(floats(3*8), 0))
}

func otherDType(g collective.Group) error {
	i := tensor.HostBuffer(make([]int32, 5))
	return odd(g, collective.AllReduce(i, i, collective.Sum),
		collective.AllReduce(floats(5), floats(5), collective.Sum))
}

func otherRoot(g collective.Group) error {
	return odd(g, collective.Broadcast(floats(100), 1), collective.Broadcast(floats(100), 0))
}

// otherOrder has two ranks only, so that each may be the odd one.
func otherOrder(g collective.Group) error {
	a, b := collective.AllReduce(floats(10), floats(10), collective.Sum), collective.AllGather(floats(20), floats(10))
	if g.Rank() == 1 {
		a, b = b, a
	}
	first := g.Start(nil, a)
	err := g.Start(nil, b).Wait(context.Background())
	if !errors.Is(err, collective.ErrMismatch) || !errors.Is(first.Wait(context.Background()), collective.ErrMismatch) {
		return fmt.Errorf("the error is %v, want %v", err, collective.ErrMismatch)
	}
	return nil
}

func otherMessage(g collective.Group) error {
	op := collective.Send(floats(10), 1)
	if g.Rank() == 1 {
		op = collective.Recv(floats(11), 0)
	}
	// The sender may have been done already: it learns of it at the next operation.
	err := g.Start(nil, op).Wait(context.Background())
	if err == nil && g.Rank() == 0 {
		err = g.Start(nil, collective.Barrier()).Wait(context.Background())
	}
	if !errors.Is(err, collective.ErrMismatch) {
		return fmt.Errorf("the error is %v, want %v", err, collective.ErrMismatch)
	}
	return nil
}

func invalid(g collective.Group) error {
	op := collective.Barrier()
	if g.Rank() == 2 {
		op = collective.AllGather(floats(7), floats(3))
	}
	return expect(g.Start(nil, op).Wait(context.Background()), collective.ErrInvalid, 2)
}

// abort ends a Group from another goroutine while most ranks wait for the last.
func abort(g collective.Group) error {
	cause := errors.New("changed my mind")
	if g.Rank() != 3 {
		w := g.Start(nil, collective.Barrier())
		<-w.Event().Done()
		return expect(w.Wait(context.Background()), collective.ErrAborted, 3)
	}
	done := make(chan struct{})
	go func() { g.Abort(cause); close(done) }()
	<-done
	err := g.Start(nil, collective.Barrier()).Wait(context.Background())
	if !errors.Is(err, cause) {
		return fmt.Errorf("the error is %v, want the cause %v", err, cause)
	}
	return expect(err, collective.ErrAborted, 3)
}

// abortWhileMoving ends a Group in the middle of large operations. Afterwards nobody touches the buffers.
func abortWhileMoving(g collective.Group) error {
	v := make([]float32, 3<<20)
	b := tensor.HostBuffer(v)
	first := g.Start(nil, collective.AllReduce(b, b, collective.Max))
	var w collective.Work
	for range 20 {
		w = g.Start(nil, collective.AllReduce(b, b, collective.Max))
	}
	if g.Rank() == 0 {
		if err := finish(first); err != nil {
			return err
		}
		g.Abort(errors.New("enough"))
	}
	if err := expect(w.Wait(context.Background()), collective.ErrAborted, 0); err != nil {
		return err
	}
	for i := range v {
		v[i] = float32(i) // a race if anybody did
	}
	return nil
}

// absent has rank 1 stay away until the others have given up.
func absent(g collective.Group) error {
	if err := finish(g.Start(nil, collective.Barrier())); err != nil {
		return err
	}
	if g.Rank() == 1 {
		<-failure(g)
	}
	w := g.Start(nil, collective.AllReduce(floats(9), floats(9), collective.Sum))
	return expect(w.Wait(context.Background()), collective.ErrTimeout, 1)
}

func absentSender(g collective.Group) error {
	var w collective.Work
	switch g.Rank() {
	case 0:
		w = g.Start(nil, collective.Recv(floats(4), 2))
	case 1:
		w = g.Start(nil, collective.Recv(floats(4), 0))
	case 2:
		<-failure(g)
		w = g.Start(nil, collective.Barrier())
	}
	err := w.Wait(context.Background())
	var e *collective.Error
	if !errors.Is(err, collective.ErrTimeout) || !errors.As(err, &e) || e.Peer == e.Rank {
		return fmt.Errorf("the error is %v, want %v", err, collective.ErrTimeout)
	}
	return nil
}

// failure is closed when the Group has failed: of a batch that never begins.
func failure(g collective.Group) <-chan struct{} { return g.Start(newGate()).Event().Done() }

// closedRank has rank 1 leave early.
func closedRank(g collective.Group) error {
	if g.Rank() == 1 {
		return g.Close()
	}
	return expect(g.Start(nil, collective.Barrier()).Wait(context.Background()), collective.ErrGone, 1)
}

// closedAtTheEnd has ranks leave as soon as they are done; the others may still be at the last operation.
func closedAtTheEnd(g collective.Group) error {
	v := filled(200_000, 1)
	b := tensor.HostBuffer(v)
	w := []collective.Work{g.Start(nil, collective.AllReduce(b, b, collective.Sum)), g.Start(nil, collective.Barrier())}
	return errors.Join(finish(w...), g.Close(), check("all-reduce", v, float32(g.Size())))
}

func closedInTheMiddle(g collective.Group) error {
	if g.Rank() == 1 {
		w := g.Start(newGate(), collective.Barrier())
		return errors.Join(g.Close(), expect(w.Wait(context.Background()), collective.ErrClosed, 1))
	}
	return expect(g.Start(nil, collective.Barrier()).Wait(context.Background()), collective.ErrClosed, 1)
}
