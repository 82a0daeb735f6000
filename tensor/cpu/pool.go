package cpu

import (
	"sync"
	"sync/atomic"
)

// piecesPerThread is how finely run cuts work, so that a thread that lost time to something else takes fewer pieces.
const piecesPerThread = 4

// pool is the threads that compute: goroutines that sleep between calls of run, and the caller of run.
type pool struct {
	workers int           // goroutines
	wake    chan struct{} // one token asks one goroutine to help; closed by close
	ended   sync.WaitGroup
	closing sync.Once

	mu sync.Mutex // held by the run in progress, which the fields below belong to
	f  func(i0, i1 int)
	n  int
	// piece is the length of what a thread takes at once.
	piece int
	next  atomic.Int64   // first index that nobody took
	busy  sync.WaitGroup // tokens not yet used up
}

func newPool(threads int) *pool {
	p := &pool{workers: threads - 1, wake: make(chan struct{}, threads)}
	for range p.workers {
		p.ended.Go(func() {
			for range p.wake {
				p.work()
				p.busy.Done()
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
	p.busy.Add(helpers)
	for range helpers {
		p.wake <- struct{}{}
	}
	p.work()
	p.recall()
	p.busy.Wait()
	p.f = nil
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

// recall takes back the tokens of goroutines that have not woken up: there is nothing left for them.
func (p *pool) recall() {
	for {
		select {
		case <-p.wake:
			p.busy.Done()
		default:
			return
		}
	}
}

// close ends the goroutines; run must not be called any more.
func (p *pool) close() {
	p.closing.Do(func() { close(p.wake) })
	p.ended.Wait()
}
