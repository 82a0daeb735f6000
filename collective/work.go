package collective

import (
	"context"
	"runtime"

	"github.com/herdtrain/herd/tensor"
)

// Work is a batch in progress. The zero Work has ended.
type Work struct {
	e   *engine
	seq uint64 // of the batch
}

// Wait blocks until the batch has ended, and returns why it failed: an *Error. If ctx ends first it returns the
// context's cause, and the batch goes on.
func (w Work) Wait(ctx context.Context) error {
	if w.e == nil {
		return nil
	}
	return w.e.wait(ctx, w.seq)
}

// Event is the end of the batch, for other queues to wait for. Its failure, an *Error, is what Query returns.
func (w Work) Event() tensor.Event {
	if w.e == nil {
		return ended{}
	}
	return w.e.event(w.seq)
}

// status says whether a batch has ended, and how.
func (e *engine) status(seq uint64) (bool, error) {
	if e.done.Load() >= seq {
		return true, nil
	}
	select {
	case <-e.failed:
		return true, e.err
	default:
		return false, nil
	}
}

// wait is Work.Wait.
func (e *engine) wait(ctx context.Context, seq uint64) error {
	for i := range polls {
		if ended, err := e.status(seq); ended {
			return err
		}
		if e.run.TryLock() {
			e.step()
			e.run.Unlock()
		}
		if i%yieldEvery == yieldEvery-1 {
			runtime.Gosched()
		}
	}
	ch := e.waitFor(seq)
	if ch == nil {
		return nil
	}
	e.rouse()
	select {
	case <-ch:
	case <-e.failed:
	case <-ctx.Done():
	}
	e.mu.Lock()
	for i, w := range e.waiters {
		if w.ch == ch {
			e.waiters = append(e.waiters[:i], e.waiters[i+1:]...)
			break
		}
	}
	select {
	case <-ch:
	default:
	}
	e.tokens = append(e.tokens, ch)
	e.mu.Unlock()
	if ended, err := e.status(seq); ended {
		return err
	}
	return context.Cause(ctx)
}

// waitFor registers a waiter; nil if the batch has ended well.
func (e *engine) waitFor(seq uint64) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done.Load() >= seq {
		return nil
	}
	var ch chan struct{}
	if n := len(e.tokens); n > 0 {
		ch, e.tokens = e.tokens[n-1], e.tokens[:n-1]
	} else {
		ch = make(chan struct{}, 1)
	}
	e.waiters = append(e.waiters, waiter{seq: seq, ch: ch})
	return ch
}

// ended is the event of the zero Work.
type ended struct{}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (ended) Query() (bool, error)  { return true, nil }
func (ended) Done() <-chan struct{} { return closedChannel }

// workEvent is the end of a batch.
type workEvent struct {
	e   *engine
	seq uint64
	ch  chan struct{} // closed at the end
}

// Query implements tensor.Event.
func (w *workEvent) Query() (bool, error) { return w.e.status(w.seq) }

// Done implements tensor.Event.
func (w *workEvent) Done() <-chan struct{} { return w.ch }

// event is Work.Event.
func (e *engine) event(seq uint64) tensor.Event {
	e.mu.Lock()
	ch := closedChannel
	if e.done.Load() < seq && e.err == nil {
		ch = make(chan struct{})
		e.waiters = append(e.waiters, waiter{seq: seq, ch: ch, event: true})
	}
	e.mu.Unlock()
	e.rouse()
	return &workEvent{e, seq, ch}
}
