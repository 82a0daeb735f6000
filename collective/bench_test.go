package collective_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// benchEnv makes this binary the other process of a benchmark: its value is the benchmark.
const benchEnv = "HERD_COLLECTIVE_BENCH"

const (
	latencyElements   = 256      // 1 KiB
	bandwidthElements = 16 << 20 // 64 MiB
)

// benchBody is an operation on a buffer of so many elements.
type benchBody struct {
	elements int
	op       func(g collective.Group, b tensor.Buffer) collective.Op
}

// allReduce and allGather are in place, as gradients are reduced and weights gathered.
func allReduce(_ collective.Group, b tensor.Buffer) collective.Op {
	return collective.AllReduce(b, b, collective.Sum)
}

func allGather(g collective.Group, b tensor.Buffer) collective.Op {
	n := b.Len() / g.Size()
	return collective.AllGather(b, b.Slice(g.Rank()*n, (g.Rank()+1)*n))
}

var benchBodies = map[string]benchBody{
	"all-reduce":       {bandwidthElements, allReduce},
	"all-gather":       {bandwidthElements, allGather},
	"small all-reduce": {latencyElements, allReduce},
}

// rounds runs f as often as rank 0 says.
func (b benchBody) rounds(g collective.Group, n int, each func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	count := []int32{int32(n)}
	ops := []collective.Op{b.op(g, touched(b.elements))}
	ctx := context.Background()
	if err := g.Start(nil, collective.Broadcast(tensor.HostBuffer(count), 0)).Wait(ctx); err != nil {
		return err
	}
	for range count[0] {
		if err := g.Start(nil, ops...).Wait(ctx); err != nil {
			return err
		}
		each()
	}
	return nil
}

// touched is memory that the operating system has provided.
func touched(n int) tensor.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i)
	}
	return tensor.HostBuffer(v)
}

// benchChild is the other process: it runs the benchmark until rank 0 leaves.
func benchChild() {
	name := os.Getenv(benchEnv)
	if name == "" {
		return
	}
	ticket, err := collective.ReadTicket(os.NewFile(3, "ticket"))
	if err != nil {
		panic(err)
	}
	g, err := collective.Join(context.Background(), collective.Config{Ticket: ticket})
	if err != nil {
		panic(err)
	}
	for err == nil {
		err = benchBodies[name].rounds(g, 0, func() {})
	}
	g.Close()
	os.Exit(0)
}

// benchmark runs a body with another process, over shared memory.
func benchmark(b *testing.B, name string, each func()) {
	tickets, err := collective.HostTickets(2, 1)
	if err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), benchEnv+"="+name)
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	if err := tickets[1].Write(w); err != nil {
		b.Fatal(err)
	}
	w.Close()
	g, err := collective.Join(context.Background(), collective.Config{Ticket: tickets[0]})
	if err != nil {
		b.Fatal(err)
	}
	if err := benchBodies[name].rounds(g, 3, func() {}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	if err := benchBodies[name].rounds(g, b.N, each); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := g.Close(); err != nil {
		b.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Errorf("%v: %s", err, out.String())
	}
}

// BenchmarkSharedMemory reports the bus bandwidth of 64 MiB between two processes as nccl-tests defines it
// (all-reduce: 2(n−1)/n of the buffer, all-gather: (n−1)/n of the gathered one), and its ratio to copying 64 MiB in
// one thread, and in two at the same time: the two processes share the memory's bandwidth.
func BenchmarkSharedMemory(b *testing.B) {
	for _, c := range []struct {
		name string
		bus  float64
	}{{"all-reduce", 1}, {"all-gather", 0.5}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(4 * bandwidthElements)
			benchmark(b, c.name, func() {})
			bus := c.bus * 4 * bandwidthElements * float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(bus/1e9, "busGB/s")
			b.ReportMetric(bus/memcpy(1), "of-memcpy")
			b.ReportMetric(bus/memcpy(2), "of-memcpy-by-both")
		})
	}
}

// memcpy is the bandwidth of each of n threads that copy 64 MiB at the same time, in bytes per second, on average.
func memcpy(n int) float64 {
	const rounds = 20
	var threads sync.WaitGroup
	ready := make(chan struct{})
	for range n {
		dst, src := tensor.HostBytes(touched(bandwidthElements)), tensor.HostBytes(touched(bandwidthElements))
		threads.Go(func() {
			<-ready
			for range rounds {
				copy(dst, src)
			}
		})
	}
	start := time.Now()
	close(ready)
	threads.Wait()
	return rounds * 4 * bandwidthElements / time.Since(start).Seconds()
}

// BenchmarkSmallAllReduce reports the median time of a 1 KiB all-reduce of two processes.
func BenchmarkSmallAllReduce(b *testing.B) {
	times := make([]time.Duration, 0, b.N+3)
	last := time.Now()
	benchmark(b, "small all-reduce", func() {
		now := time.Now()
		times = append(times, now.Sub(last))
		last = now
	})
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "median-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// BenchmarkLocal is the same among goroutines.
func BenchmarkLocal(b *testing.B) {
	for name, body := range benchBodies {
		b.Run(name, func(b *testing.B) {
			groups := collective.NewLocal(2, collective.Options{})
			b.SetBytes(4 * int64(body.elements))
			done := make(chan error, 2)
			for _, g := range groups {
				go func() { done <- body.rounds(g, b.N, func() {}) }()
			}
			for range groups {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
			for _, g := range groups {
				g.Close()
			}
		})
	}
}
