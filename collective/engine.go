package collective

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/herdtrain/herd/tensor"
)

const (
	// polls is how often somebody who waits looks before going to sleep, some tens of microseconds in all.
	polls = 512
	// yieldEvery of these polls lets other goroutines run.
	yieldEvery  = 64
	defaultName = "world" // of a Group
	// inlineBytes is the largest batch that the goroutine of the rank moves itself in Start.
	inlineBytes = 64 << 10
)

// backend is what an engine asks of the place where its Group lives.
type backend interface {
	// split makes the engine of a new Group among the given ranks of e, of which the caller is number rank.
	split(ctx context.Context, e *engine, id string, o Options, members []int, rank int) (*engine, error)
	// tell lets the other ranks fail with err; never blocks.
	tell(err *Error)
	// ask returns what rank's Recorder reports.
	ask(ctx context.Context, rank int) ([]byte, error)
	// close ends goroutines and connections; orderly, if the Group had not failed and others may still need what this
	// rank sent. The engine's goroutine has ended.
	close(orderly bool) error
}

// engine is a Group. Its batches are moved on by whoever holds run: the rank's goroutine in Start and Wait, as long as
// it need not sleep, or the engine's own goroutine. So small operations cost no change of goroutine, and large ones go
// on beside what the rank does.
type engine struct {
	rank, size int
	o          Options
	id         string  // as Options.Name, different for each Group of a run
	links      []*link // by rank; nil at this one
	small      int     // bytes up to which an all-reduce is done at once
	chain      int     // bytes from which operations go along the chain, 0: never
	backend    backend

	collectives uint64        // started; the rank's goroutine alone
	splits      int           // made; the same
	done        atomic.Uint64 // batches that have ended well
	dog         watchdog
	recorder    atomic.Pointer[Recorder]

	run   sync.Mutex // held by whoever moves batches
	terms [][]byte   // scratch of a reduction

	// Buffers are touched with life held for reading. To fail takes it for writing, so that when anybody learns of a
	// failure, nobody touches buffers any more. Ranks that read each other's memory share it.
	life   *sync.RWMutex
	shared []*engine // those that fail together, by rank; nil: this one alone
	halted bool      // guarded by life

	mu      sync.Mutex // guards the fields below
	queue   []*batch   // not ended, oldest first
	spare   []*batch
	started uint64 // batches
	waiters []waiter
	tokens  []chan struct{} // spare channels of waiters
	err     *Error

	failed  chan struct{} // closed when err is set
	kick    chan struct{} // one token: batches wait for the engine's goroutine
	wakened chan struct{} // one token: a link changed
	closing chan struct{}
	closed  sync.Once
	ended   sync.WaitGroup
}

// batch is the operations of one Start.
type batch struct {
	seq       uint64
	ready     tensor.Event // what its queue held; nil if that has passed
	transfers []*transfer
	made      []*transfer // all that this batch ever had, to use again
	begun     bool
	posted    bool // everything that this rank has to send is on its way
}

// waiter is somebody who waits for a batch.
type waiter struct {
	seq   uint64
	ch    chan struct{} // gets one token or, of an event, is closed
	event bool
}

func newEngine(rank, size int, o Options, life *sync.RWMutex) *engine {
	o.Name = cmp.Or(o.Name, defaultName)
	e := &engine{
		rank: rank, size: size, o: o, id: o.Name, links: make([]*link, size), life: life, terms: make([][]byte, size),
		failed: make(chan struct{}), kick: make(chan struct{}, 1), wakened: make(chan struct{}, 1),
		closing: make(chan struct{}),
	}
	e.dog = watchdog{timeout: o.Timeout, overdue: e.overdue}
	return e
}

// begin starts the engine's goroutine. Its links and backend are set.
func (e *engine) begin() { e.ended.Go(e.loop) }

func (e *engine) Rank() int                    { return e.rank }
func (e *engine) Size() int                    { return e.size }
func (e *engine) Register(tensor.Buffer) error { return nil } // any host memory will do

// Start implements Group.
func (e *engine) Start(q tensor.Queue, ops ...Op) Work {
	b := e.newBatch(len(ops))
	bytes := 0
	recorder := e.recorder.Load()
	e.mu.Lock()
	if e.err != nil { // what is started now is not what this rank did when the Group failed
		recorder = nil
	}
	e.mu.Unlock()
	for i, op := range ops {
		if err := op.check(e.rank, e.size); err != nil {
			e.fail(&Error{Peer: e.rank, Op: op.kind.String(), Seq: e.collectives + 1, Err: err})
			return Work{e, ^uint64(0)}
		}
		e.plan(b.transfers[i], op)
		b.transfers[i].mark = recorder.started(e, b.transfers[i], op.kind == kindRecv)
		bytes += len(tensor.HostBytes(op.dst)) + len(tensor.HostBytes(op.src))
	}
	if q != nil {
		b.ready = q.Record()
	}
	e.mu.Lock()
	e.started++
	b.seq = e.started
	seq := b.seq // of this moment on, b may end and be used again
	e.queue = append(e.queue, b)
	e.mu.Unlock()
	if bytes <= inlineBytes && e.run.TryLock() {
		_, head := e.step()
		asleep := head == nil || head.seq == seq && head.posted
		e.run.Unlock()
		if asleep { // nobody waits for this rank: the rest has time until somebody here waits
			return Work{e, seq}
		}
	}
	e.rouse()
	return Work{e, seq}
}

func (e *engine) newBatch(ops int) *batch {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b *batch
	if n := len(e.spare); n > 0 {
		b, e.spare = e.spare[n-1], e.spare[:n-1]
	} else {
		b = new(batch)
	}
	*b = batch{made: b.made}
	for len(b.made) < ops {
		b.made = append(b.made, &transfer{flows: make([]flow, e.size)})
	}
	b.transfers = b.made[:ops]
	return b
}

// rouse makes the engine's goroutine move batches.
func (e *engine) rouse() { token(e.kick) }

// wakeUp ends the sleep of whoever moves batches.
func (e *engine) wakeUp() { token(e.wakened) }

func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// loop is the engine's goroutine.
func (e *engine) loop() {
	for {
		select {
		case <-e.kick:
			e.run.Lock()
			e.drive()
			e.run.Unlock()
		case <-e.failed:
			return
		case <-e.closing:
			return
		}
	}
}

// drive moves batches until none is left. It holds run but while it sleeps.
func (e *engine) drive() {
	for idle := 0; ; idle++ {
		moved, head := e.step()
		switch {
		case head == nil:
			return
		case moved:
			idle = 0
		case idle < polls && head.begun:
			if idle%yieldEvery == 0 {
				runtime.Gosched()
			}
		default:
			idle = 0
			if !e.sleep() {
				return
			}
		}
	}
}

// sleep waits until another rank did something, or the queue of the oldest batch has come to it. It is false when the
// Group ends.
func (e *engine) sleep() bool {
	for _, l := range e.links {
		if l != nil {
			l.asleep.Store(1)
		}
	}
	moved, head := e.step() // what changed before the others saw this rank sleep
	if moved || head == nil {
		return head != nil
	}
	var ready <-chan struct{}
	if !head.begun {
		ready = head.ready.Done()
	}
	e.run.Unlock()
	defer e.run.Lock()
	select {
	case <-ready:
	case <-e.wakened:
	case <-e.failed:
		return false
	case <-e.closing:
		return false
	}
	return true
}

// step moves the oldest batches on as far as that goes without waiting. It returns the oldest that has not ended, nil
// if there is none or the Group has failed. The caller holds run.
func (e *engine) step() (moved bool, head *batch) {
	e.life.RLock()
	var err *Error
	for !e.halted {
		e.mu.Lock()
		head = nil
		if len(e.queue) > 0 {
			head = e.queue[0]
		}
		e.mu.Unlock()
		if head == nil {
			break
		}
		var m, done bool
		if m, done, err = e.advance(head); err != nil {
			break
		}
		moved = moved || m
		if !done {
			break
		}
		moved = true
		e.end(head)
	}
	halted := e.halted
	e.life.RUnlock()
	if err != nil {
		e.fail(err)
	}
	if halted || err != nil {
		return false, nil
	}
	return moved, head
}

// advance moves one batch on.
func (e *engine) advance(b *batch) (moved, done bool, err *Error) {
	if !b.begun {
		if b.ready != nil {
			switch passed, err := b.ready.Query(); {
			case err != nil:
				return false, false, &Error{Peer: e.rank, Err: fmt.Errorf("%w: %w", ErrDevice, err)}
			case !passed:
				return false, false, nil
			}
		}
		b.begun = true
		e.dog.begin(b.seq)
		for _, t := range b.transfers {
			e.recorder.Load().began(t.mark)
			copy(t.keep[0], t.keep[1])
		}
	}
	for _, l := range e.links {
		if l != nil {
			l.inBusy, l.outBusy = false, false
		}
	}
	done, b.posted = true, true
	for _, t := range b.transfers {
		m, err := t.advance(e)
		if err != nil {
			return false, false, e.blame(t, err)
		}
		moved = moved || m
		done = done && t.done(e.links)
		b.posted = b.posted && t.posted()
	}
	if !moved && !done {
		for _, t := range b.transfers {
			if err := e.lost(t); err != nil {
				return false, false, err
			}
		}
	}
	return moved, done, nil
}

// end takes the oldest batch, which has ended well, from the queue.
func (e *engine) end(b *batch) {
	e.dog.end()
	for _, t := range b.transfers {
		e.recorder.Load().ended(t.mark)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done.Store(b.seq)
	copy(e.queue, e.queue[1:])
	e.queue = e.queue[:len(e.queue)-1]
	b.ready = nil
	e.spare = append(e.spare, b)
	left := e.waiters[:0]
	for _, w := range e.waiters {
		switch {
		case w.seq > b.seq:
			left = append(left, w)
		case w.event:
			close(w.ch)
		default:
			w.ch <- struct{}{}
		}
	}
	clear(e.waiters[len(left):])
	e.waiters = left
}
