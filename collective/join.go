package collective

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
)

// Config is how a rank joins the others of its run.
type Config struct {
	Ticket
	Options
	// Facts must be the same on all ranks, by name: such as the digests of the job and of the build. Ranks refuse each
	// other over a different one, and name it.
	Facts map[string]string
	// Listener, if not nil, is where this rank listens, which the others know as Addrs[Rank]. Join takes it over.
	Listener net.Listener
	// Streams is how many TCP connections carry the data of two ranks of different hosts: 1, 2, 4 or 8; 0: 2.
	Streams int
	// Plain makes ranks of one host use TCP, too.
	Plain bool
}

const (
	// wireSmall is up to how many bytes an all-reduce between processes is done at once.
	wireSmall = 16 << 10
	// chainBytes is from how many bytes on operations of ranks on several hosts go along the chain of ranks.
	chainBytes = 128 << 10
)

// Join makes the Group of all ranks of a Ticket, one of which this process (or goroutine) is. It returns when every
// rank has joined, or ctx ends: the error names the ranks that have not come. Ranks of one host exchange data through
// shared memory, others over TCP. Both sides of each connection prove that they hold the key; the data itself is not
// encrypted.
func Join(ctx context.Context, c Config) (Group, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("collective: join: %w", err)
	}
	if c.Streams == 0 {
		c.Streams = 2
	}
	n, err := newNode(c)
	if err != nil {
		return nil, err
	}
	world := make([]int, len(c.Addrs))
	for r := range world {
		world[r] = r
	}
	e, err := n.join(ctx, cmp.Or(c.Name, defaultName), c.Options, world, c.Rank)
	if err != nil {
		n.release()
		return nil, fmt.Errorf("collective: join: %w", err)
	}
	return e, nil
}

func (c *Config) check() error {
	if !slices.Contains([]int{0, 1, 2, 4, 8}, c.Streams) {
		return fmt.Errorf("%d streams, want 1, 2, 4 or 8", c.Streams)
	}
	return c.Ticket.check()
}

// join connects this rank, number rank of world, to the others of a Group. The node has one user for it.
func (n *node) join(ctx context.Context, id string, o Options, world []int, rank int) (*engine, error) {
	e := newEngine(rank, len(world), o, new(sync.RWMutex))
	e.small = wireSmall
	e.id = id
	m := &mesh{node: n, e: e, world: world, peers: make([]*peer, len(world))}
	e.backend = m
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(world))
	var joining sync.WaitGroup
	for p := range world {
		if p == rank {
			continue
		}
		m.peers[p] = &peer{m: m, rank: p}
		joining.Go(func() {
			if err := m.peers[p].connect(ctx); err != nil {
				errs[p] = fmt.Errorf("rank %d: %w", p, err)
				if errors.Is(err, ErrRefused) {
					cancel() // waiting for the others does not help
				}
			}
		})
	}
	joining.Wait()
	if err := firstCause(errs); err != nil {
		for _, p := range m.peers {
			p.drop()
		}
		return nil, err
	}
	for p, x := range m.peers {
		if x != nil {
			e.links[p] = x.link
			if x.host != n.host && e.size > 2 {
				e.chain = chainBytes
			}
		}
	}
	e.begin()
	for _, p := range m.peers {
		p.start()
	}
	return e, nil
}

// firstCause leaves out what only followed from another rank's refusal.
func firstCause(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, ErrRefused) && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

// connect makes the connections to another rank. Of two ranks the higher one dials.
func (p *peer) connect(ctx context.Context) error {
	n, m := p.m.node, p.m
	mine, other := m.world[m.e.rank], m.world[p.rank]
	get := func(stream int, overUnix bool) (caller, error) {
		if mine < other {
			return n.await(ctx, arrival{m.e.id, other, stream, overUnix})
		}
		network, addr := address(n.c.Addrs[other])
		if overUnix && p.unix != "" {
			network, addr = "unix", p.unix
		}
		return n.dial(ctx, network, addr, m.e.id, other, stream)
	}
	network, _ := address(n.c.Addrs[min(mine, other)])
	c, err := get(0, network == "unix")
	if err != nil {
		return err
	}
	p.control, p.host, p.unix = c.conn, c.hello.Host, c.hello.Unix
	if p.host != n.host {
		return p.connectStreams(get, network == "unix")
	}
	if !isUnix(p.control) { // a descriptor needs a socket of this host
		p.control.Close()
		if c, err = get(0, true); err != nil {
			return err
		}
		p.control = c.conn
	}
	conn := p.control.(*net.UnixConn)
	if mine < other {
		p.segment, err = recvSegment(conn)
	} else {
		p.segment, err = sendSegment(conn)
	}
	if err == nil {
		p.link = segmentLink(p.segment, mine > other, p.ring)
	}
	return err
}

func (p *peer) connectStreams(get func(int, bool) (caller, error), overUnix bool) error {
	var conns []net.Conn
	for i := range p.m.node.c.Streams {
		c, err := get(i+1, overUnix)
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
			return fmt.Errorf("stream %s: %w", strconv.Itoa(i+1), err)
		}
		conns = append(conns, c.conn)
	}
	p.wire, p.link = newWire(conns, p.m.e, p.broken)
	return nil
}
