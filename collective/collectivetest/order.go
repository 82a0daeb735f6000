package collectivetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// finish waits for works, all of which should end well.
func finish(works ...collective.Work) error {
	for i, w := range works {
		if err := w.Wait(context.Background()); err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
	}
	return nil
}

// filled is n elements of value v.
func filled(n int, v float32) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func check(name string, got []float32, want float32) error {
	for i, v := range got {
		if v != want {
			return fmt.Errorf("%s: element %d of %d is %v, want %v", name, i, len(got), v, want)
		}
	}
	return nil
}

// batches starts batches of several operations, many before it waits for the first.
func batches(g collective.Group) error {
	n, me := float32(g.Size()), float32(g.Rank())
	const rounds = 16
	var works []collective.Work
	var sums, all, rooted [rounds][]float32
	for i := range rounds {
		count := 1 + i*i*i*30 // up to 100,000; with the gathered ones more than a ring holds
		sums[i], all[i], rooted[i] = filled(count, me+1), make([]float32, g.Size()*count), filled(count, me)
		b := tensor.HostBuffer[float32]
		works = append(works, g.Start(nil,
			collective.AllReduce(b(sums[i]), b(sums[i]), collective.Sum),
			collective.AllGather(b(all[i]), b(slices.Clone(rooted[i]))),
			collective.Broadcast(b(rooted[i]), i%g.Size()),
			collective.Barrier(),
		))
	}
	slices.Reverse(works) // the order of waiting does not matter
	if err := finish(works...); err != nil {
		return err
	}
	for i := range rounds {
		count := len(sums[i])
		if err := errors.Join(
			check("all-reduce", sums[i], n*(n+1)/2),
			check("all-gather", all[i][:count], 0), check("all-gather", all[i][len(all[i])-count:], n-1),
			check("broadcast", rooted[i], float32(i%g.Size())),
		); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	return finish(g.Start(nil))
}

// messages sends around the ring in both directions at once, and from rank 0 to the others in turn.
func messages(g collective.Group) error {
	n, me := g.Size(), g.Rank()
	next, prev := (me+1)%n, (me+n-1)%n
	b := tensor.HostBuffer[float32]
	for _, count := range []int{0, 1, 5000, 700_001} {
		mine, fromPrev, fromNext := filled(count, float32(me)), filled(count, -1), filled(count, -1)
		w := g.Start(nil,
			collective.Send(b(mine), next), collective.Send(b(mine), prev),
			collective.Recv(b(fromPrev), prev), collective.Recv(b(fromNext), next))
		if err := errors.Join(finish(w), check("from the previous", fromPrev, float32(prev)),
			check("from the next", fromNext, float32(next))); err != nil {
			return err
		}
		if me == 0 {
			for to := 1; to < n; to++ {
				if err := finish(g.Start(nil, collective.Send(b(mine), to))); err != nil {
					return err
				}
			}
		} else if err := errors.Join(finish(g.Start(nil, collective.Recv(b(mine), 0))),
			check("from rank 0", mine, 0)); err != nil {
			return err
		}
	}
	return finish(g.Start(nil, collective.Barrier()))
}

// gate is a queue whose operations are done when it is opened.
type gate struct {
	once sync.Once
	ch   chan struct{}
	err  error
}

func newGate() *gate                       { return &gate{ch: make(chan struct{})} }
func (q *gate) open()                      { q.once.Do(func() { close(q.ch) }) }
func (q *gate) Record() tensor.Event       { return q }
func (q *gate) Wait(e tensor.Event)        { <-e.Done() }
func (q *gate) Sync(context.Context) error { <-q.ch; return nil }
func (q *gate) Done() <-chan struct{}      { return q.ch }
func (q *gate) Query() (passed bool, err error) {
	select {
	case <-q.ch:
		return true, q.err
	default:
		return false, nil
	}
}

// queues starts batches on a queue that has not come to them.
func queues(g collective.Group) error {
	b := tensor.HostBuffer[float32]
	for _, count := range []int{1, 100_000} {
		late := newGate()
		v, after := filled(count, -1), filled(count, 1)
		first := g.Start(late, collective.AllReduce(b(v), b(v), collective.Sum))
		second := g.Start(nil, collective.AllReduce(b(after), b(after), collective.Sum))
		e := second.Event()
		if passed, err := e.Query(); passed || err != nil {
			return fmt.Errorf("a batch ended before its queue came to it: %v, %v", passed, err)
		}
		copy(v, filled(count, 2)) // what the queue held
		late.open()
		<-e.Done()
		if passed, err := e.Query(); !passed || err != nil {
			return fmt.Errorf("an event that is done says %v, %v", passed, err)
		}
		if err := errors.Join(finish(first, second), check("first", v, float32(2*g.Size())),
			check("second", after, float32(g.Size()))); err != nil {
			return err
		}
	}
	// The others have looked at the events above when this ends; it may fail if rank 1 is faster still.
	_ = finish(g.Start(nil, collective.Barrier()))
	broken := newGate()
	broken.err = errors.New("the device is on fire")
	broken.open()
	var w collective.Work
	if g.Rank() == 1 {
		w = g.Start(broken, collective.Barrier())
	} else {
		w = g.Start(nil, collective.Barrier())
	}
	return expect(w.Wait(context.Background()), collective.ErrDevice, 1)
}

// events waits for batches by their events alone.
func events(g collective.Group) error {
	b := tensor.HostBuffer[float32]
	for i := range 50 {
		v := filled(1+i*1000, 1)
		e := g.Start(nil, collective.AllReduce(b(v), b(v), collective.Sum)).Event()
		<-e.Done()
		if passed, err := e.Query(); !passed || err != nil {
			return fmt.Errorf("an event that is done says %v, %v", passed, err)
		}
		if err := check("all-reduce", v, float32(g.Size())); err != nil {
			return err
		}
	}
	<-collective.Work{}.Event().Done()
	if passed, err := (collective.Work{}).Event().Query(); !passed || err != nil {
		return fmt.Errorf("the event of no work says %v, %v", passed, err)
	}
	return finish(collective.Work{})
}

// cancelledWait gives up waiting, and the batch goes on.
func cancelledWait(g collective.Group) error {
	late := newGate()
	v := filled(10_000, 1)
	w := g.Start(late, collective.AllReduce(tensor.HostBuffer(v), tensor.HostBuffer(v), collective.Sum))
	ctx, cancel := context.WithCancelCause(context.Background())
	enough := errors.New("enough")
	cancel(enough)
	if err := w.Wait(ctx); !errors.Is(err, enough) {
		return fmt.Errorf("waiting ended with %v, want %v", err, enough)
	}
	late.open()
	return errors.Join(finish(w), check("all-reduce", v, float32(g.Size())))
}

// splits makes Groups of Groups and uses several at once.
func splits(g collective.Group) error {
	ctx := context.Background()
	me, n := g.Rank(), g.Size()
	half, err := g.Split(ctx, me%2, -me) // reversed order
	if err != nil {
		return err
	}
	defer half.Close()
	if want := (n - me%2 + 1) / 2; half.Size() != want || half.Rank() != want-1-me/2 {
		return fmt.Errorf("rank %d of %d became rank %d of %d", me, n, half.Rank(), half.Size())
	}
	color := 7
	if me == 0 {
		color = -1
	}
	rest, err := g.Split(ctx, color, 0)
	if err != nil {
		return err
	}
	if me == 0 {
		if rest != nil {
			return fmt.Errorf("a rank without a color got a group")
		}
		rest = half
	} else {
		defer rest.Close()
		if rest.Rank() != me-1 || rest.Size() != n-1 {
			return fmt.Errorf("rank %d of %d became rank %d of %d", me, n, rest.Rank(), rest.Size())
		}
	}
	b := tensor.HostBuffer[float32]
	for _, count := range []int{1, 50_000} {
		x, y, z := filled(count, float32(me)), filled(count, float32(me)), filled(count, float32(me))
		w := []collective.Work{half.Start(nil, collective.AllReduce(b(x), b(x), collective.Sum))}
		if me != 0 {
			w = append(w, rest.Start(nil, collective.AllReduce(b(y), b(y), collective.Max)))
		}
		w = append(w, g.Start(nil, collective.AllReduce(b(z), b(z), collective.Max)))
		sum := 0
		for r := me % 2; r < n; r += 2 {
			sum += r
		}
		if err := errors.Join(finish(w...), check("half", x, float32(sum)), check("all", z, float32(n-1))); err != nil {
			return err
		}
		if me != 0 {
			if err := check("rest", y, float32(n-1)); err != nil {
				return err
			}
		}
	}
	leaf, err := half.Split(ctx, half.Rank(), 0)
	if err != nil {
		return err
	}
	defer leaf.Close()
	return finish(leaf.Start(nil, collective.Barrier()), g.Start(nil, collective.Barrier()))
}
