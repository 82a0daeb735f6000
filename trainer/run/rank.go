package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/parallel"
)

// How long an exchange may take before the run ends with an error that says who did not come. Other ranks may be reading
// a checkpoint, or writing one to a slow disk, meanwhile.
const (
	stepTimeout = 10 * time.Minute
	saveTimeout = time.Hour
)

// Options of the Groups of all ranks.
var saveOptions = collective.Options{Name: "saves", Timeout: saveTimeout}

func worldOptions(timeout time.Duration) collective.Options {
	return collective.Options{Name: "world", Timeout: timeout}
}

// rank is the place of a worker among all of the run, and its Groups: of all ranks, one for the goroutine that trains and
// one for saves, and of some.
type rank struct {
	number  int
	layout  parallel.Layout
	coord   parallel.Coord
	threads int  // that compute, 0: all
	process bool // it is a process
	world   collective.Group
	data    collective.Group // of ranks with the same parameters; nil until split
	saves   collective.Group

	mu     sync.Mutex
	groups []collective.Group // all of them
	failed error              // why they were aborted; nil: they were not
}

// newRank is rank number of a layout with its first Groups.
func newRank(number int, l parallel.Layout, threads int, world, saves collective.Group) *rank {
	collective.NewRecorder(0).Watch(world)
	return &rank{
		number: number, layout: l, coord: l.Mesh.Coord(number), threads: threads, world: world, saves: saves,
		groups: []collective.Group{world, saves},
	}
}

// leads says whether this rank speaks for all: it keeps the ledger, commits checkpoints and reports.
func (r *rank) leads() bool { return r.number == 0 }

// split makes the Group of the ranks that give the same color, in the order of their numbers; none of a negative one. All
// ranks call it.
func (r *rank) split(ctx context.Context, color int) (collective.Group, error) {
	g, err := r.world.Split(ctx, color, r.number)
	if err != nil || g == nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups = append(r.groups, g)
	if r.failed != nil {
		g.Abort(r.failed)
	}
	return g, nil
}

// abort fails all Groups on every rank, so that none waits for one that gave up. Any goroutine may call it.
func (r *rank) abort(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = cause
	for _, g := range r.groups {
		g.Abort(cause)
	}
}

func (r *rank) close() error {
	var errs []error
	for _, g := range slices.Backward(r.groups) {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}

// localRanks are the ranks of a run whose ranks are goroutines of this process: a lone one computes on all cores, each
// of several on one.
func localRanks(l parallel.Layout, timeout time.Duration) []*rank {
	n := l.Mesh.World()
	world := collective.NewLocal(n, worldOptions(timeout))
	saves := collective.NewLocal(n, saveOptions)
	ranks := make([]*rank, n)
	for i := range ranks {
		ranks[i] = newRank(i, l, min(n-1, 1), world[i], saves[i])
	}
	return ranks
}

// maxMessage bounds what a rank tells the others at once, in bytes.
const maxMessage = 64 << 20

// gather gives every rank all ranks' messages, by rank; they may have different lengths.
func gather(ctx context.Context, g collective.Group, mine []byte) ([][]byte, error) {
	lengths := make([]int32, g.Size())
	own := tensor.HostBuffer([]int32{int32(min(len(mine), maxMessage+1))})
	if err := g.Start(nil, collective.AllGather(tensor.HostBuffer(lengths), own)).Wait(ctx); err != nil {
		return nil, err
	}
	longest := 0
	for i, n := range lengths {
		if n < 0 || n > maxMessage {
			return nil, fmt.Errorf("a message of rank %d has more than %d bytes", i, maxMessage)
		}
		longest = max(longest, int(n))
	}
	words := (longest + 3) / 4
	padded, all := make([]int32, words), make([]int32, words*g.Size())
	copy(tensor.HostBytes(tensor.HostBuffer(padded)), mine)
	op := collective.AllGather(tensor.HostBuffer(all), tensor.HostBuffer(padded))
	if err := g.Start(nil, op).Wait(ctx); err != nil {
		return nil, err
	}
	messages := make([][]byte, g.Size())
	for i, n := range lengths {
		part := all[i*words : (i+1)*words]
		messages[i] = tensor.HostBytes(tensor.HostBuffer(part))[:n]
	}
	return messages, nil
}

// gatherJSON is gather of values.
func gatherJSON[T any](ctx context.Context, g collective.Group, mine T) ([]T, error) {
	text, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	texts, err := gather(ctx, g, text)
	if err != nil {
		return nil, err
	}
	all := make([]T, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal(text, &all[i]); err != nil {
			return nil, fmt.Errorf("rank %d: %w", i, err)
		}
	}
	return all, nil
}

// tell gives every rank the leader's v, as JSON. The others pass a v to be filled.
func tell[T any](ctx context.Context, g collective.Group, v *T) error {
	var mine []byte
	if g.Rank() == 0 {
		var err error
		if mine, err = json.Marshal(v); err != nil {
			return err
		}
	}
	all, err := gather(ctx, g, mine)
	if err == nil && g.Rank() != 0 {
		err = json.Unmarshal(all[0], v)
	}
	return err
}
