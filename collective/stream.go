package collective

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// wire carries the rings of a link over TCP connections: connection i has the slots i, i + streams, … of both. Each
// has a goroutine that writes what the engine pushed and one that reads into the ring that the engine takes from.
type wire struct {
	conns   []net.Conn
	out, in unsafe.Pointer // the memory of the rings
	engine  sleeper
	word    atomic.Uint32   // of sleep: some of the goroutines' below
	wakeups []chan struct{} // one of each goroutine
	failed  func(error)     // is told of a broken connection
	flushed sync.WaitGroup  // the writers
	ended   sync.WaitGroup  // the readers
	closing chan struct{}   // the engine pushes no more
	closed  chan struct{}   // nobody takes any more
}

// newWire makes the link and the wire below it, which start runs.
func newWire(conns []net.Conn, e *engine, failed func(error)) (*wire, *link) {
	w := &wire{
		conns: conns, engine: sleeper{new(atomic.Uint32), e.wakeUp}, failed: failed,
		closing: make(chan struct{}), closed: make(chan struct{}),
	}
	w.out, w.in = wireRing(), wireRing()
	for range 2 * len(conns) {
		w.wakeups = append(w.wakeups, make(chan struct{}, 1))
	}
	l := &link{
		out: newRing(w.out, blockBytes, nil), in: newRing(w.in, blockBytes, nil),
		asleep: w.engine.asleep, other: sleeper{&w.word, w.wake},
	}
	return w, l
}

func wireRing() unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, ringBytes(blockBytes)/8)))
}

// start runs the goroutines. drained is called when the other rank has ended all its streams.
func (w *wire) start(drained func()) {
	var reading atomic.Int32
	reading.Store(int32(len(w.conns)))
	for i, c := range w.conns {
		w.flushed.Go(func() { w.write(i, c) })
		w.ended.Go(func() {
			w.read(i, c)
			if reading.Add(-1) == 0 {
				drained()
			}
		})
	}
}

func (w *wire) wake() {
	for _, ch := range w.wakeups {
		token(ch)
	}
}

// wait sleeps until the slot is full or empty, as wanted. It is false when end is closed first.
func (w *wire) wait(h *header, full uint32, ch, end chan struct{}) bool {
	for h.full.Load() != full {
		w.word.Store(1)
		if h.full.Load() == full {
			break
		}
		select {
		case <-ch:
		case <-end:
			return h.full.Load() == full
		}
	}
	return true
}

// write sends the slots of one stream, and at the end what is still in the ring.
func (w *wire) write(i int, conn net.Conn) {
	r := newRing(w.out, blockBytes, nil)
	for slot := i; w.wait(r.at(slot), 1, w.wakeups[2*i], w.closing); slot = (slot + len(w.conns)) % slotCount {
		h := r.at(slot)
		b := unsafe.Slice((*byte)(unsafe.Pointer(h)), headerBytes+int(h.length))
		if _, err := conn.Write(b); err != nil {
			w.failed(err)
			return
		}
		h.full.Store(0)
		w.engine.rouse()
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // the reader's error says it if the connection is broken
	}
}

// read fills the slots of one stream.
func (w *wire) read(i int, conn net.Conn) {
	r := newRing(w.in, blockBytes, nil)
	for slot := i; ; slot = (slot + len(w.conns)) % slotCount {
		var head header
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&head)), headerBytes)
		if _, err := io.ReadFull(conn, raw); err != nil {
			if !errors.Is(err, io.EOF) {
				w.failed(err)
			}
			return
		}
		if head.length > blockBytes {
			w.failed(fmt.Errorf("%w: a block of %d bytes, at most %d", ErrFrame, head.length, blockBytes))
			return
		}
		h := r.at(slot)
		if !w.wait(h, 0, w.wakeups[2*i+1], w.closed) {
			return
		}
		h.length, h.phase, h.desc = head.length, head.phase, head.desc
		block := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerBytes)), h.length)
		if _, err := io.ReadFull(conn, block); err != nil {
			w.failed(noEOF(err))
			return
		}
		h.full.Store(1)
		w.engine.rouse()
	}
}

// flushLimit is how long the other rank has to take what it still needs.
const flushLimit = 10 * time.Second

// close sends what is left if the end is orderly, ends the goroutines and closes the connections.
func (w *wire) close(orderly bool) {
	limit := time.Now()
	if orderly {
		limit = limit.Add(flushLimit)
	}
	for _, c := range w.conns {
		c.SetWriteDeadline(limit)
	}
	close(w.closing)
	w.flushed.Wait()
	close(w.closed)
	for _, c := range w.conns {
		c.Close()
	}
	w.ended.Wait()
}
