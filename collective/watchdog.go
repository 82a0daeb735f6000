package collective

import (
	"sync"
	"time"
)

// watchdog calls overdue when a batch takes longer than timeout. One timer serves all batches: it is set when it is
// not running, and finds out when it fires how long the batch of that moment may still take.
type watchdog struct {
	timeout time.Duration // 0: never
	overdue func(seq uint64)

	mu      sync.Mutex
	timer   *time.Timer
	running bool
	stopped bool
	seq     uint64 // of the batch in progress, 0: none
	since   time.Time
}

// begin says that a batch has begun.
func (w *watchdog) begin(seq uint64) {
	if w.timeout <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq, w.since = seq, time.Now()
	switch {
	case w.running || w.stopped:
	case w.timer == nil:
		w.running, w.timer = true, time.AfterFunc(w.timeout, w.fire)
	default:
		w.running = true
		w.timer.Reset(w.timeout)
	}
}

// end says that the batch has ended.
func (w *watchdog) end() {
	if w.timeout <= 0 {
		return
	}
	w.mu.Lock()
	w.seq = 0
	w.mu.Unlock()
}

func (w *watchdog) fire() {
	w.mu.Lock()
	seq, rest := w.seq, w.timeout-time.Since(w.since)
	w.running = false
	if seq != 0 && rest > 0 && !w.stopped {
		w.running = true
		w.timer.Reset(rest)
	}
	overdue := seq != 0 && rest <= 0 && !w.stopped
	w.mu.Unlock()
	if overdue {
		w.overdue(seq)
	}
}

// stop ends the watch for good. A call of overdue may still be in progress.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
