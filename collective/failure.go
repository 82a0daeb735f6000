package collective

import (
	"errors"
	"fmt"
)

// fail ends the Group on this rank, and tells the others. Only the first failure counts. The caller does not hold
// life.
func (e *engine) fail(err *Error) {
	err.Group, err.Rank = e.o.Name, e.rank
	together := e.shared
	if together == nil {
		together = []*engine{e}
	}
	if halted := e.halt(together...); len(halted) > 0 {
		e.backend.tell(err) // before anybody here learns of it, and closes the connections
		publish(err, halted)
	}
}

// fell ends the Group on this rank alone: another one has told it.
func (e *engine) fell(err *Error) { publish(err, e.halt(e)) }

// halt stops ranks that share life: nobody touches buffers any more. It returns those that were not halted before.
func (e *engine) halt(together ...*engine) (halted []*engine) {
	e.life.Lock()
	defer e.life.Unlock()
	for _, x := range together {
		if x != nil && !x.halted {
			x.halted = true
			halted = append(halted, x)
		}
	}
	return halted
}

// publish lets everybody know why ranks were halted.
func publish(err *Error, halted []*engine) {
	for _, x := range halted {
		x.dog.stop()
		x.recorder.Load().failed(x)
		x.mu.Lock()
		x.err = err
		close(x.failed)
		for _, w := range x.waiters {
			if w.event {
				close(w.ch)
			}
		}
		x.waiters = nil
		x.mu.Unlock()
	}
}

// Abort implements Group.
func (e *engine) Abort(cause error) {
	if cause == nil {
		cause = errors.New("no cause was given")
	}
	e.fail(&Error{Peer: e.rank, Err: fmt.Errorf("%w: %w", ErrAborted, cause)})
}

// Close implements Group.
func (e *engine) Close() error {
	var err error
	e.closed.Do(func() {
		if e.run.TryLock() { // a batch whose rest nobody waited for
			e.step()
			e.run.Unlock()
		}
		e.mu.Lock()
		pending := len(e.queue) > 0
		e.mu.Unlock()
		if pending {
			e.fail(&Error{Peer: e.rank, Err: ErrClosed})
		}
		halted := e.halt(e)
		publish(&Error{Group: e.o.Name, Rank: e.rank, Peer: e.rank, Err: ErrClosed}, halted)
		<-e.failed
		close(e.closing)
		e.ended.Wait()
		err = e.backend.close(len(halted) > 0)
	})
	return err
}
