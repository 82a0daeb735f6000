package telemetry

import (
	"math"
	"slices"
	"time"
)

const (
	scoreWindow = 128 // steps that a z-score compares with
	scoreMin    = 16  // values needed for the first z-score
	etaWindow   = 32  // steps whose mean time predicts the rest
)

// measurement is a Step with what follows from it. A number that is unknown is NaN.
type measurement struct {
	Step
	time                 time.Time
	lossZ, gradNormZ     float64
	tokensPerSecond      float64
	mfuFull, mfuCausal   float64 // fractions of the peak
	dataWait, checkpoint float64 // fractions of the step's time, the checkpoint stall included
	eta                  time.Duration
}

// meter derives measurements from steps; it holds the windows that they compare with.
type meter struct {
	o              Options
	loss, gradNorm window
	times          window // seconds per step
}

func newMeter(o Options) meter {
	return meter{
		o:    o,
		loss: window{size: scoreWindow}, gradNorm: window{size: scoreWindow}, times: window{size: etaWindow},
	}
}

func (t *meter) measure(s Step, now time.Time) measurement {
	seconds := (s.Duration + s.CheckpointStall).Seconds()
	m := measurement{
		Step: s, time: now,
		lossZ: t.loss.score(s.Loss), gradNormZ: t.gradNorm.score(s.GradNorm),
		tokensPerSecond: ratio(float64(s.Tokens), seconds),
		dataWait:        ratio(s.DataWait.Seconds(), seconds),
		checkpoint:      ratio(s.CheckpointStall.Seconds(), seconds),
	}
	m.mfuFull = ratio(m.tokensPerSecond*known(t.o.FLOPsFull), t.o.Peak)
	m.mfuCausal = ratio(m.tokensPerSecond*known(t.o.FLOPsCausal), t.o.Peak)
	if s.Applied {
		t.loss.add(s.Loss)
		t.gradNorm.add(s.GradNorm)
	}
	t.times.add(seconds)
	m.eta = time.Duration(t.times.mean() * float64(max(0, s.Steps-s.Step)) * float64(time.Second))
	return m
}

// ratio is a/b, NaN where b is not positive.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return math.NaN()
	}
	return a / b
}

// known is x, NaN for 0.
func known(x float64) float64 {
	if x == 0 {
		return math.NaN()
	}
	return x
}

// window holds the last size values of a series.
type window struct {
	size   int
	values []float64
	next   int // the oldest, once full
}

func (w *window) add(x float64) {
	if len(w.values) < w.size {
		w.values = append(w.values, x)
		return
	}
	w.values[w.next] = x
	w.next = (w.next + 1) % w.size
}

func (w *window) mean() float64 {
	sum := 0.0
	for _, x := range w.values {
		sum += x
	}
	return sum / float64(len(w.values))
}

// score is the robust z-score of x against the window: its distance from the median in units of 1.4826 times the
// median absolute deviation, which estimates a normal distribution's standard deviation (Rousseeuw & Croux 1993) and
// which a spike among the values does not move. NaN with too few values, or when most of them are equal.
func (w *window) score(x float64) float64 {
	if len(w.values) < scoreMin {
		return math.NaN()
	}
	sorted := slices.Clone(w.values)
	center := median(sorted)
	for i, v := range sorted {
		sorted[i] = math.Abs(v - center)
	}
	return ratio(x-center, 1.4826*median(sorted))
}

// median sorts v.
func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
