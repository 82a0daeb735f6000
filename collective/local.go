package collective

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// localRoom is how many bytes go through a slot; of more, the other rank reads where they are.
	localRoom = 4 << 10
)

// NewLocal makes a Group of n ranks of this process; result i is rank i's, for a goroutine of its own. Ranks read each
// other's buffers in place. Close each.
func NewLocal(n int, o Options) []Group {
	w := newWorld(n)
	groups := make([]Group, n)
	for r := range n {
		groups[r] = w.join(r, o)
	}
	w.link()
	return groups
}

// world is the ranks of a local Group.
type world struct {
	life    sync.RWMutex
	engines []*engine
	asleep  []atomic.Uint32 // by rank

	mu     sync.Mutex
	splits map[string]*meeting
}

// meeting is a Group in the making.
type meeting struct {
	world *world
	left  int           // ranks that have not come
	done  chan struct{} // closed when all have
}

func newWorld(n int) *world {
	return &world{engines: make([]*engine, n), asleep: make([]atomic.Uint32, n), splits: map[string]*meeting{}}
}

// join makes rank r's engine. It has no links yet.
func (w *world) join(r int, o Options) *engine {
	e := newEngine(r, len(w.engines), o, &w.life)
	e.small = localRoom
	e.shared = w.engines
	e.backend = localRank{w, r}
	w.engines[r] = e
	return e
}

// link joins all ranks and starts their engines.
func (w *world) link() {
	for a, x := range w.engines {
		for b, y := range w.engines[:a] {
			x.links[b] = &link{asleep: &w.asleep[a], other: sleeper{&w.asleep[b], y.wakeUp}}
			y.links[a] = &link{asleep: &w.asleep[b], other: sleeper{&w.asleep[a], x.wakeUp}}
			x.links[b].out, y.links[a].in = localRing()
			y.links[a].out, x.links[b].in = localRing()
		}
	}
	for _, e := range w.engines {
		e.begin()
	}
}

func localRing() (out, in ring) {
	base := unsafe.Pointer(unsafe.SliceData(make([]uint64, ringBytes(localRoom)/8)))
	refs := make([]unsafe.Pointer, slotCount)
	return newRing(base, localRoom, refs), newRing(base, localRoom, refs)
}

// localRank is one rank's backend.
type localRank struct {
	w    *world
	rank int
}

func (l localRank) split(
	ctx context.Context, e *engine, id string, o Options, members []int, rank int,
) (*engine, error) {
	l.w.mu.Lock()
	m := l.w.splits[id]
	if m == nil {
		m = &meeting{newWorld(len(members)), len(members), make(chan struct{})}
		l.w.splits[id] = m
	}
	child := m.world.join(rank, o)
	child.id = id
	if m.left--; m.left == 0 {
		m.world.link()
		delete(l.w.splits, id)
		close(m.done)
	}
	l.w.mu.Unlock()
	select {
	case <-m.done:
		return child, nil
	case <-e.failed:
		return nil, e.err
	case <-ctx.Done():
		err := fmt.Errorf("waiting for its other ranks: %w", context.Cause(ctx))
		e.Abort(err) // they would wait for this one
		return nil, err
	}
}

func (l localRank) tell(*Error) {} // halting one halts all

func (l localRank) ask(_ context.Context, rank int) ([]byte, error) {
	return l.w.engines[rank].recorder.Load().report()
}

func (l localRank) close(bool) error {
	for p, e := range l.w.engines {
		if p != l.rank {
			e.links[l.rank].gone.Store(true)
			e.wakeUp()
		}
	}
	return nil
}
