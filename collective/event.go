package collective

import "github.com/herdtrain/herd/tensor"

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
