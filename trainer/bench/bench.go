// Package bench measures the engine on this machine: matrix products, attention, and whole training steps, each beside
// what the processor can do at that moment. docs/bench.md says how to read the results.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
)

// Options of every measurement.
type Options struct {
	Threads  int           // that compute, 0: GOMAXPROCS
	Kernels  string        // as in cpu.Options
	Duration time.Duration // of one measurement, about
}

// Spread is what the repetitions of a measurement gave.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func newSpread(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// rate is how often a second something is done amount times at once, with s the seconds that it takes.
func (s Spread) rate(amount float64) Spread {
	return Spread{amount / s.Median, amount / s.Max, amount / s.Min}
}

// Rate is a speed in GFLOP/s, and the fp32 FMA peak of the same kernels and threads just before and after, their mean.
type Rate struct {
	GFLOPS Spread  `json:"gflops"`
	Peak   float64 `json:"peak_gflops"`
	Share  float64 `json:"peak_share"` // of the median
}

func newRate(seconds Spread, flops, peakBefore, peakAfter float64) Rate {
	r := Rate{GFLOPS: seconds.rate(flops / 1e9), Peak: (peakBefore + peakAfter) / 2 / 1e9}
	r.Share = r.GFLOPS.Median / r.Peak
	return r
}

// At least so many repetitions; more, shorter ones where they fit into the duration.
const leastRepetitions, repetitions = 3, 9

// machine is a device to measure.
type machine struct {
	tensor.Device
	q        tensor.Queue
	kernels  string
	threads  int
	duration time.Duration
}

func open(o Options) (*machine, error) {
	if o.Duration <= 0 {
		return nil, fmt.Errorf("bench: a measurement of %v, want a positive duration", o.Duration)
	}
	dev, err := cpu.New(cpu.Options{Threads: o.Threads, Kernels: o.Kernels})
	if err != nil {
		return nil, err
	}
	return &machine{
		Device: dev, q: dev.Queue(tensor.Compute), duration: o.Duration,
		kernels: cmp.Or(o.Kernels, os.Getenv(cpu.KernelsEnv)), threads: cmp.Or(o.Threads, runtime.GOMAXPROCS(0)),
	}, nil
}

// peak is the fp32 FMA peak in FLOP/s.
func (m *machine) peak() float64 { return cpu.PeakFLOPS(m.kernels, m.threads, m.duration/20) }

// measure calls f for about d, after a first call that does not count, and gives the seconds of one call.
func (m *machine) measure(ctx context.Context, d time.Duration, f func()) (Spread, error) {
	repeat := func(calls int) (time.Duration, error) {
		begin := time.Now()
		for range calls {
			f()
		}
		err := m.q.Sync(ctx)
		return time.Since(begin), err
	}
	once, err := repeat(1)
	calls := max(1, int(d/repetitions/max(1, once)))
	var seconds []float64
	for begin := time.Now(); err == nil && (len(seconds) < leastRepetitions || time.Since(begin) < d); {
		var took time.Duration
		took, err = repeat(calls)
		seconds = append(seconds, took.Seconds()/float64(calls))
	}
	if err != nil {
		return Spread{}, err
	}
	return newSpread(seconds), nil
}

// random allocates a matrix of dtype F32 or BF16 with values from −1 to 1.
func (m *machine) random(dt tensor.DType, rows, cols int) (tensor.Mat, error) {
	b, err := m.Alloc(dt, rows*cols)
	if err != nil {
		return tensor.Mat{}, err
	}
	r := rand.New(rand.NewPCG(uint64(rows), uint64(cols)))
	host := make([]float32, b.Len())
	for i := range host {
		host[i] = 2*r.Float32() - 1
	}
	from := tensor.HostBuffer(host)
	if dt == tensor.BF16 {
		narrow := make([]tensor.BFloat16, len(host))
		for i, v := range host {
			narrow[i] = tensor.ToBFloat16(v)
		}
		from = tensor.HostBuffer(narrow)
	}
	m.Upload(m.q, b, tensor.HostBytes(from))
	return tensor.Matrix(b, rows, cols), m.q.Sync(context.Background())
}

// randomMats is random of several matrices.
func (m *machine) randomMats(mats ...matSpec) ([]tensor.Mat, error) {
	var all []tensor.Mat
	for _, s := range mats {
		mat, err := m.random(s.dt, s.rows, s.cols)
		if err != nil {
			return nil, err
		}
		all = append(all, mat)
	}
	return all, nil
}

type matSpec struct {
	dt         tensor.DType
	rows, cols int
}
