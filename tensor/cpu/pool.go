package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// piecesPerThread is how finely run cuts work, so that a thread that lost time to something else takes fewer pieces.
const piecesPerThread = 4

// patience is how long a goroutine looks for what it waits for before it sleeps: the operations of a step follow one
// another within a few microseconds, and to wake a thread takes many times that.
const patience = 100 * time.Microsecond

// pool is the threads that compute: goroutines that sleep between calls of run, and the caller of run.
type pool struct {
	workers int           // goroutines
	wake    chan struct{} // one token asks one goroutine to help; closed by close
	done    chan struct{} // gets a token if a goroutine, and not the caller, is the last to finish a run
	ended   sync.WaitGroup
	closing sync.Once

	mu sync.Mutex // held by the run in progress, which the fields below belong to
	f  func(i0, i1 int)
	n  int
	// piece is the length of what a thread takes at once.
	piece int
	next  atomic.Int64 // first index that nobody took
	busy  atomic.Int64 // tokens not yet used up, and the caller
}

func newPool(threads int) *pool {
	p := &pool{workers: threads - 1, wake: make(chan struct{}, threads), done: make(chan struct{}, 1)}
	for range p.workers {
		p.ended.Go(func() {
			for take(p.wake) {
				p.work()
				if p.busy.Add(-1) == 0 {
					p.done <- struct{}{}
				}
			}
		})
	}
	return p
}

// run calls f for ranges that cover [0, n), at once on several threads, in pieces of at least grain except the last,
// and returns when all are done. What f computes for an index must not depend on the pieces. Any goroutine may call it,
// also f itself: while the pool is busy, the caller does all the work alone.
func (p *pool) run(n, grain int, f func(i0, i1 int)) {
	if n <= 0 {
		return
	}
	helpers := min(p.workers, (n-1)/grain)
	if helpers == 0 || !p.mu.TryLock() {
		f(0, n)
		return
	}
	defer p.mu.Unlock()
	pieces := piecesPerThread * (p.workers + 1)
	p.f, p.n, p.piece = f, n, max(grain, (n+pieces-1)/pieces)
	p.next.Store(0)
	p.busy.Store(int64(helpers) + 1)
	for range helpers {
		p.wake <- struct{}{}
	}
	p.work()
	if p.busy.Add(-p.recall()-1) > 0 {
		take(p.done)
	}
	p.f = nil
}

// take waits for a token, without sleep at first. It returns false if c is closed and empty.
func take(c <-chan struct{}) bool {
	for start := time.Now(); time.Since(start) < patience; runtime.Gosched() {
		for range 200 {
			select {
			case _, ok := <-c:
				return ok
			default:
			}
		}
	}
	_, ok := <-c
	return ok
}

// work takes pieces until none is left.
func (p *pool) work() {
	for {
		i1 := int(p.next.Add(int64(p.piece)))
		i0 := i1 - p.piece
		if i0 >= p.n {
			return
		}
		p.f(i0, min(i1, p.n))
	}
}

// recall takes back the tokens of goroutines that have not taken theirs: there is nothing left for them.
func (p *pool) recall() (tokens int64) {
	for {
		select {
		case <-p.wake:
			tokens++
		default:
			return tokens
		}
	}
}

// close ends the goroutines; run must not be called any more.
func (p *pool) close() {
	p.closing.Do(func() { close(p.wake) })
	p.ended.Wait()
}
