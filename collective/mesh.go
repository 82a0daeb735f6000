package collective

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// mesh is the backend of a Group of processes.
type mesh struct {
	node  *node
	e     *engine
	world []int   // ranks of the run, by rank of the Group
	peers []*peer // by rank; nil at this one

	closing atomic.Bool
	ended   sync.WaitGroup // the readers of control connections

	asked   sync.Mutex // guards the fields below
	asks    uint64
	answers map[uint64]chan []byte
}

// peer is another rank as this one sees it.
type peer struct {
	m       *mesh
	rank    int
	control net.Conn
	host    string
	unix    string
	segment []byte // one of segment and wire
	wire    *wire
	link    *link

	bye     atomic.Bool // it left in good order
	drained atomic.Bool // and all that it sent has come
}

// controlLimit is how long a frame may wait in a control connection, which is nearly always empty.
const controlLimit = time.Second

// send writes a frame to the peer's control connection.
func (p *peer) send(b []byte) error {
	p.control.SetWriteDeadline(time.Now().Add(controlLimit))
	defer p.control.SetWriteDeadline(time.Time{}) // bells have none
	_, err := p.control.Write(b)
	return err
}

// ring wakes the peer's engine. If it cannot be told, its reader finds out why.
func (p *peer) ring() { _, _ = p.control.Write(bell) }

// start begins to listen to the peer.
func (p *peer) start() {
	if p == nil {
		return
	}
	if p.wire != nil {
		p.wire.start(func() { p.drained.Store(true); p.left() })
	} else {
		p.drained.Store(true)
	}
	p.m.ended.Go(p.listen)
}

// broken hears of an error of a stream. The control connection usually says why within moments; if it does not, this
// is the reason.
func (p *peer) broken(err error) {
	if errors.Is(err, ErrFrame) {
		p.m.lost(p.rank, err)
		return
	}
	time.AfterFunc(grace, func() { p.m.lost(p.rank, err) })
}

// left marks the link when the peer has said bye and nothing of it is on its way.
func (p *peer) left() {
	if p.bye.Load() && p.drained.Load() {
		p.link.gone.Store(true)
		p.m.e.wakeUp()
	}
}

// listen reads control frames until the connection ends.
func (p *peer) listen() {
	for {
		kind, b, err := readFrame(p.control)
		if err == nil {
			err = p.handle(kind, b)
		}
		if err != nil {
			if !p.bye.Load() {
				p.m.lost(p.rank, err)
			}
			return
		}
	}
}

func (p *peer) handle(kind frameKind, b []byte) error {
	m := p.m
	switch kind {
	case frameBell:
		m.e.wakeUp()
	case frameBye:
		p.bye.Store(true)
		p.left()
	case frameAbort:
		err, bad := parseAbort(b, m.e.size)
		if bad != nil {
			return bad
		}
		err.Group = m.e.o.Name
		m.e.fell(err)
	case frameAsk:
		report, err := m.e.recorder.Load().report()
		if err != nil {
			report = nil
		}
		// Why a peer cannot be answered is among what it has sent.
		_ = p.send(frame(frameAnswer, append(b[:len(b):len(b)], report...)))
	case frameAnswer:
		if len(b) < 8 {
			return fmt.Errorf("%w: an answer of %d bytes", ErrFrame, len(b))
		}
		m.asked.Lock()
		ch := m.answers[binary.LittleEndian.Uint64(b)]
		delete(m.answers, binary.LittleEndian.Uint64(b))
		m.asked.Unlock()
		if ch != nil {
			ch <- b[8:]
		}
	default:
		return fmt.Errorf("%w: kind %d after the handshake", ErrFrame, kind)
	}
	return nil
}

// lost fails the Group: a connection to a rank broke.
func (m *mesh) lost(rank int, err error) {
	if m.closing.Load() {
		return
	}
	switch {
	case errors.Is(err, ErrFrame):
		err = fmt.Errorf("%w from rank %d", err, rank)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("%w: rank %d has ended without leaving the group: its process died", ErrGone, rank)
	default:
		err = fmt.Errorf("%w: rank %d: %w", ErrGone, rank, err)
	}
	m.e.fail(&Error{Peer: rank, Err: err})
}

func (m *mesh) tell(err *Error) {
	b := err.frame()
	for _, p := range m.peers {
		if p != nil && !p.bye.Load() {
			_ = p.send(b) // a rank that cannot be told is gone
		}
	}
}

func (m *mesh) ask(ctx context.Context, rank int) ([]byte, error) {
	ch := make(chan []byte, 1)
	m.asked.Lock()
	m.asks++
	id := m.asks
	if m.answers == nil {
		m.answers = map[uint64]chan []byte{}
	}
	m.answers[id] = ch
	m.asked.Unlock()
	defer func() {
		m.asked.Lock()
		delete(m.answers, id)
		m.asked.Unlock()
	}()
	if err := m.peers[rank].send(frame(frameAsk, binary.LittleEndian.AppendUint64(nil, id))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	select {
	case b := <-ch:
		if len(b) == 0 {
			return nil, errNoRecorder
		}
		return b, nil
	case <-m.e.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *mesh) split(
	ctx context.Context, e *engine, id string, o Options, members []int, rank int,
) (*engine, error) {
	world := make([]int, len(members))
	for i, r := range members {
		world[i] = m.world[r]
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.node.ended.Go(func() { // this rank need not wait for ranks that have failed
		select {
		case <-e.failed:
			cancel(e.err)
		case <-ctx.Done():
		}
	})
	m.node.use()
	child, err := m.node.join(ctx, id, o, world, rank)
	if err != nil {
		m.node.release()
		e.Abort(err) // the others would wait for this one
	}
	return child, err
}

func (m *mesh) close(orderly bool) error {
	m.closing.Store(true)
	if !orderly { // a rank that has not heard of the failure yet must not take the bye for the reason
		m.tell(m.e.err)
	}
	for _, p := range m.peers {
		if p != nil && p.wire != nil {
			p.wire.close(orderly)
		}
	}
	var errs []error
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		_ = p.send(frame(frameBye, nil)) // a rank that cannot be told is gone
		errs = append(errs, p.control.Close())
	}
	m.ended.Wait()
	for _, p := range m.peers {
		if p != nil && p.segment != nil {
			errs = append(errs, unix.Munmap(p.segment))
		}
	}
	m.node.release()
	return errors.Join(errs...)
}

// drop ends a peer of a Group that did not come about.
func (p *peer) drop() {
	if p == nil {
		return
	}
	if p.control != nil {
		p.control.Close()
	}
	if p.wire != nil {
		for _, c := range p.wire.conns {
			c.Close()
		}
	}
	if p.segment != nil {
		_ = unix.Munmap(p.segment)
	}
}
