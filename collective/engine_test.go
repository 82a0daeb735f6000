package collective

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/herdtrain/herd/tensor"
)

// TestStartDoesNotAllocate counts what a step's operations allocate once a Group has warmed up.
func TestStartDoesNotAllocate(t *testing.T) {
	groups := NewLocal(2, Options{Timeout: time.Minute})
	NewRecorder(16).Watch(groups[0])
	defer closeAll(t, groups)
	type side struct{ small, large, both []Op }
	sides := make([]side, 2)
	for r := range sides {
		f := func(n int) tensor.Buffer { return tensor.HostBuffer(make([]float32, n)) }
		a, b, c, d := f(100), f(100_000), f(200_000), f(100_000)
		sides[r] = side{
			[]Op{AllReduce(a, a, Sum)}, []Op{AllReduce(b, b, Sum)}, []Op{AllGather(c, b), AllReduce(d, d, Max)},
		}
	}
	ctx := context.Background()
	step := func(r int) {
		for _, ops := range [][]Op{sides[r].small, sides[r].large, sides[r].both} {
			if err := groups[r].Start(nil, ops...).Wait(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	const runs = 20
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2*runs + 2 { // AllocsPerRun has a run of its own before the others
			step(1)
		}
	}()
	testing.AllocsPerRun(runs, func() { step(0) })
	if n := testing.AllocsPerRun(runs, func() { step(0) }); n != 0 {
		t.Errorf("a step allocates %v times", n)
	}
	<-done
}

func closeAll(t *testing.T, groups []Group) {
	t.Helper()
	for _, g := range groups {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTimeout has no real clock: a batch that takes an hour is all right within two.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := NewLocal(2, Options{Timeout: 2 * time.Hour})
		defer closeAll(t, groups)
		barrier := func(r int, after time.Duration) (time.Duration, error) {
			time.Sleep(after)
			start := time.Now()
			err := groups[r].Start(nil, Barrier()).Wait(context.Background())
			return time.Since(start), err
		}
		for _, c := range []struct {
			late, waited time.Duration
			want         error
		}{
			{time.Hour, time.Hour, nil},
			{119 * time.Minute, 119 * time.Minute, nil},
			{3 * time.Hour, 2 * time.Hour, ErrTimeout},
		} {
			var other sync.WaitGroup
			other.Go(func() { _, _ = barrier(1, c.late) })
			waited, err := barrier(0, 0)
			if waited != c.waited || !errors.Is(err, c.want) {
				t.Errorf("rank 1 late by %v: rank 0 waited %v and got %v, want %v and %v",
					c.late, waited, err, c.waited, c.want)
			}
			other.Wait()
		}
	})
}

// TestBF16ErrorBound holds a sum in BF16 against the exact one: within n·2⁻⁸ of the sum of magnitudes.
func TestBF16ErrorBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{2, 3, 8, 64} {
		const count = 1000
		terms := make([][]byte, n)
		exact, magnitude := make([]float64, count), make([]float64, count)
		for r := range terms {
			v := make([]tensor.BFloat16, count)
			for i := range v {
				v[i] = tensor.ToBFloat16(float32(rng.NormFloat64() * math.Exp2(rng.Float64()*16)))
				exact[i] += float64(v[i].Float32())
				magnitude[i] += math.Abs(float64(v[i].Float32()))
			}
			terms[r] = tensor.HostBytes(tensor.HostBuffer(v))
		}
		got := make([]tensor.BFloat16, count)
		reduce(Sum, tensor.BF16, tensor.HostBytes(tensor.HostBuffer(got)), terms)
		for i, g := range got {
			if bound := float64(n) / 256 * magnitude[i]; math.Abs(float64(g.Float32())-exact[i]) > bound {
				t.Fatalf("%d ranks: the sum is %v, want %v within %v", n, g.Float32(), exact[i], bound)
			}
		}
	}
}

// TestSpanWaitsForWhatComesFirst holds the order of what a rank passes on: it sends nothing before it has it.
func TestSpanWaitsForWhatComesFirst(t *testing.T) {
	from := &span{buf: make([]byte, 3*blockBytes)}
	s := &span{buf: make([]byte, 4*blockBytes), after: from, slack: blockBytes}
	for _, c := range []struct{ from, n, ready int }{
		{0, 0, blockBytes}, {0, blockBytes, 0}, {blockBytes, blockBytes, blockBytes},
		{2 * blockBytes, 3 * blockBytes, 0},
		{3 * blockBytes, 3 * blockBytes, blockBytes}, {3 * blockBytes, 4 * blockBytes, 0},
	} {
		from.n, s.n = c.from, c.n
		if got := len(s.ready()); got != c.ready {
			t.Errorf("%d bytes came and %d were sent: %d are ready, want %d", c.from, c.n, got, c.ready)
		}
	}
}

func TestRecorderKeepsTheLast(t *testing.T) {
	groups := NewLocal(1, Options{Name: "lone"})
	defer closeAll(t, groups)
	r := NewRecorder(3)
	r.Watch(groups[0])
	for range 5 {
		if err := groups[0].Start(nil, Barrier()).Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	records := r.Records()
	if len(records) != 3 {
		t.Fatalf("%d records, want 3", len(records))
	}
	for i, x := range records {
		want := fmt.Sprintf("lone barrier %d done", i+3)
		if got := fmt.Sprint(x.Group, " ", x.Op, " ", x.Seq, " ", x.State); got != want {
			t.Errorf("record %d is %q, want %q", i, got, want)
		}
		if x.Start.IsZero() || x.Began.Before(x.Start) || x.End.Before(x.Began) {
			t.Errorf("record %d: start %v, begin %v, end %v", i, x.Start, x.Began, x.End)
		}
	}
	if b, err := r.report(); err != nil {
		t.Error(err)
	} else if rep, err := parseReport(b); err != nil || len(rep.Records) != 3 || rep.Last["lone"] != 5 {
		t.Errorf("the report is %s (%v)", b, err)
	}
	var none *Recorder
	if none.Records() != nil {
		t.Error("no recorder has records")
	}
}
