package cpu

import (
	"context"
	"sync"

	"github.com/herdtrain/herd/tensor"
)

// queue is what an operation needs of the queue it is given.
type queue interface {
	tensor.Queue
	// split enqueues the calls of f that cover [0, n), in pieces of at least grain. What f computes for an index must
	// not depend on the pieces.
	split(n, grain int, f func(i0, i1 int))
	close()
}

// split enqueues on q, which must be a queue of a CPU device.
func split(q tensor.Queue, n, grain int, f func(i0, i1 int)) { q.(queue).split(n, grain, f) }

// inlineQueue runs an operation at once, on the pool and the caller.
type inlineQueue struct{ pool *pool }

func (q inlineQueue) Record() tensor.Event                   { return passed }
func (q inlineQueue) Wait(e tensor.Event)                    { <-e.Done() }
func (q inlineQueue) Sync(context.Context) error             { return nil }
func (q inlineQueue) split(n, grain int, f func(i0, i1 int)) { q.pool.run(n, grain, f) }
func (q inlineQueue) close()                                 {}

// asyncQueue runs its operations one after the other on a goroutine of its own, which the first one starts.
type asyncQueue struct {
	mu      sync.Mutex
	changed sync.Cond
	tasks   []func() // to run, in order
	started bool
	closed  bool
	ended   chan struct{} // closed when the goroutine has ended
}

func newAsyncQueue() *asyncQueue {
	q := &asyncQueue{ended: make(chan struct{})}
	q.changed.L = &q.mu
	return q
}

func (q *asyncQueue) enqueue(task func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		panic("cpu: an operation was enqueued after Close")
	}
	if !q.started {
		q.started = true
		go q.loop()
	}
	q.tasks = append(q.tasks, task)
	q.changed.Signal()
}

func (q *asyncQueue) loop() {
	defer close(q.ended)
	for {
		q.mu.Lock()
		for len(q.tasks) == 0 && !q.closed {
			q.changed.Wait()
		}
		tasks := q.tasks
		q.tasks = nil
		q.mu.Unlock()
		if len(tasks) == 0 {
			return
		}
		for _, t := range tasks {
			t()
		}
	}
}

func (q *asyncQueue) Record() tensor.Event {
	e := event(make(chan struct{}))
	q.enqueue(func() { close(e) })
	return e
}

func (q *asyncQueue) Wait(e tensor.Event) { q.enqueue(func() { <-e.Done() }) }

func (q *asyncQueue) Sync(ctx context.Context) error {
	e := q.Record()
	select {
	case <-e.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (q *asyncQueue) split(n, _ int, f func(i0, i1 int)) {
	if n > 0 {
		q.enqueue(func() { f(0, n) })
	}
}

func (q *asyncQueue) close() {
	q.mu.Lock()
	q.closed = true
	started := q.started
	q.changed.Signal()
	q.mu.Unlock()
	if started {
		<-q.ended
	}
}

// event is closed when its point has been passed.
type event chan struct{}

// passed is the event of a queue with nothing to do.
var passed = func() event { e := make(event); close(e); return e }()

func (e event) Done() <-chan struct{} { return e }

func (e event) Query() (bool, error) {
	select {
	case <-e:
		return true, nil
	default:
		return false, nil
	}
}
