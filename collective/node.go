package collective

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// handshakeLimit is how long a handshake may take.
	handshakeLimit = 10 * time.Second
	// handshakes is how many connections may be unproved at once; more wait in the listener's queue.
	handshakes = 64
	// redial is the longest pause between two tries to reach a rank that does not listen yet.
	redial = 50 * time.Millisecond

	unixScheme = "unix:"
)

// node is where a process meets the other ranks of its run: it listens, lets in who holds the key, and dials. The
// Groups of the process share it.
type node struct {
	c    Config
	host string // which ranks it can share memory with
	unix string // where those call it

	listeners []net.Listener
	ended     sync.WaitGroup
	closing   chan struct{}

	mu       sync.Mutex
	users    int // Groups that have not been closed
	arrivals map[arrival]chan caller
	refused  map[int]error // the last caller that claimed to be a rank and was not let in
}

// arrival is a connection that a Group waits for.
type arrival struct {
	group        string
	rank, stream int // of the whole run
	unix         bool
}

// caller is a connection that was let in, or why it was not although it holds the key.
type caller struct {
	conn  net.Conn
	hello hello
	err   error
}

// newNode listens.
func newNode(c Config) (*node, error) {
	n := &node{
		c: c, host: hostID(), users: 1, closing: make(chan struct{}),
		arrivals: map[arrival]chan caller{}, refused: map[int]error{},
	}
	if c.Plain {
		n.host = fmt.Sprintf("rank %d alone", c.Rank)
	}
	l := c.Listener
	if l == nil {
		var err error
		network, addr := address(c.Addrs[c.Rank])
		if l, err = net.Listen(network, addr); err != nil {
			return nil, fmt.Errorf("collective: rank %d: %w", c.Rank, err)
		}
	}
	n.listeners = append(n.listeners, l)
	if l.Addr().Network() == "unix" {
		n.unix = l.Addr().String()
	} else if !c.Plain {
		u, err := net.Listen("unix", "@herd-"+rand.Text())
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("collective: rank %d: listen for ranks of this host: %w", c.Rank, err)
		}
		n.listeners = append(n.listeners, u)
		n.unix = u.Addr().String()
	}
	for _, l := range n.listeners {
		n.ended.Go(func() { n.accept(l) })
	}
	return n, nil
}

// address splits an address of a Ticket.
func address(a string) (network, addr string) {
	if name, ok := strings.CutPrefix(a, unixScheme); ok {
		return "unix", name
	}
	return "tcp", a
}

// hostID is the same text for processes that can share memory over an abstract unix socket: those of one boot of one
// machine and one network namespace.
func hostID() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/net")
	if err != nil || err2 != nil {
		return "unknown host " + rand.Text()
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// use counts a Group, release drops it; the last one ends the node.
func (n *node) use() {
	n.mu.Lock()
	n.users++
	n.mu.Unlock()
}

func (n *node) release() {
	n.mu.Lock()
	n.users--
	last := n.users == 0
	n.mu.Unlock()
	if !last {
		return
	}
	close(n.closing)
	for _, l := range n.listeners {
		l.Close()
	}
	n.ended.Wait()
	for _, ch := range n.arrivals {
		select {
		case c := <-ch:
			c.close()
		default:
		}
	}
}

func (c caller) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

func (n *node) hello() hello {
	return hello{
		Generation: n.c.Generation, Incarnation: n.c.Incarnation, From: n.c.Rank, Facts: n.c.Facts, Host: n.host,
		Unix:   n.unix,
		Layout: fmt.Sprintf("%d slots of %d bytes, %d streams", slotCount, blockBytes, n.c.Streams),
	}
}

// accept lets callers in until the listener is closed.
func (n *node) accept(l net.Listener) {
	room := make(chan struct{}, handshakes)
	for {
		conn, err := l.Accept()
		if err != nil {
			select {
			case <-n.closing:
				return
			case <-time.After(redial): // out of descriptors, or a caller that hung up
				continue
			}
		}
		room <- struct{}{}
		n.ended.Go(func() {
			defer func() { <-room }()
			n.admit(conn)
		})
	}
}

// admit puts a caller where a Group waits for it, or will.
func (n *node) admit(conn net.Conn) {
	done := make(chan struct{})
	defer close(done)
	n.ended.Go(func() { // a node that closes does not wait for slow callers
		select {
		case <-n.closing:
			conn.SetDeadline(time.Now())
		case <-done:
		}
	})
	conn.SetDeadline(time.Now().Add(handshakeLimit))
	other, err := listenHandshake(conn, n.c.Key, n.hello())
	if err != nil {
		conn.Close()
		if errors.Is(err, errUnproved) || other.Nonce == nil {
			n.mu.Lock()
			if other.Nonce != nil && other.From < len(n.c.Addrs) {
				n.refused[other.From] = err
			}
			n.mu.Unlock()
			return
		}
	}
	conn.SetDeadline(time.Time{})
	n.place(arrival{other.Group, other.From, other.Stream, isUnix(conn)}, caller{conn, other, err})
}

// place keeps a caller for the Group that waits for it. A rank that calls again has given up its first call.
func (n *node) place(a arrival, c caller) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := n.channel(a)
	select {
	case old := <-ch:
		old.close()
	default:
	}
	ch <- c
}

func isUnix(c net.Conn) bool { return c.LocalAddr().Network() == "unix" }

// channel is where a connection is kept. The caller holds mu.
func (n *node) channel(a arrival) chan caller {
	ch := n.arrivals[a]
	if ch == nil {
		ch = make(chan caller, 1)
		n.arrivals[a] = ch
	}
	return ch
}

// await returns the connection that another rank makes.
func (n *node) await(ctx context.Context, a arrival) (caller, error) {
	n.mu.Lock()
	ch := n.channel(a)
	n.mu.Unlock()
	select {
	case c := <-ch:
		n.mu.Lock()
		delete(n.arrivals, a)
		n.mu.Unlock()
		return c, c.err
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		if err := n.refused[a.rank]; err != nil {
			return caller{}, fmt.Errorf("has not joined: %w; somebody who claims to be it was refused: %w",
				context.Cause(ctx), err)
		}
		return caller{}, fmt.Errorf("has not joined: %w", context.Cause(ctx))
	}
}

// dial calls another rank until it answers.
func (n *node) dial(ctx context.Context, network, addr, group string, rank, stream int) (caller, error) {
	mine := n.hello()
	mine.Group, mine.To, mine.Stream = group, rank, stream
	for pause := time.Millisecond; ; pause = min(2*pause, redial) {
		c, err := n.call(ctx, network, addr, mine)
		if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrFrame) {
			return c, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return caller{}, fmt.Errorf("cannot be reached at %s: %w: %w", addr, context.Cause(ctx), err)
		}
	}
}

func (n *node) call(ctx context.Context, network, addr string, mine hello) (caller, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return caller{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	conn.SetDeadline(time.Now().Add(handshakeLimit))
	other, err := dialHandshake(conn, n.c.Key, mine)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return caller{}, err
	}
	conn.SetDeadline(time.Time{})
	return caller{conn: conn, hello: other}, nil
}
