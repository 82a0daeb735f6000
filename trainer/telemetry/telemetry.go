// Package telemetry reports the progress of a run: one greppable line a step (docs/telemetry.md lists its keys), a live
// progress line on a terminal, and the same numbers as JSON lines, TensorBoard event files and a Prometheus endpoint.
//
// A Recorder takes each Step, derives the measurement (rates, z-scores, ETA) once, and hands it to every output. An
// output that fails, on a full disk say, is reported once and left out from then on: telemetry never stops a run.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Step is what the training loop knows about one finished step.
type Step struct {
	Step, Steps int64   // this step, counted from 1, and the run's last
	Loss        float64 // mean over the targets of the global batch, in nats
	GradNorm    float64 // of the whole gradient, before clipping
	LR          float64
	Tokens      int64         // of this step
	TokensSeen  int64         // of all steps so far
	Duration    time.Duration // of the step, with DataWait
	DataWait    time.Duration // spent waiting for the batch
	// CheckpointStall is how long training stood still for a save since the step before, not part of Duration.
	CheckpointStall time.Duration
	Applied         bool  // false: loss or gradient was not finite, and the weights stayed as they were
	Memory          int64 // bytes in use; 0: the resident memory of this process is measured
}

// Options says where a Recorder writes and what it measures against. The zero value writes nothing.
type Options struct {
	Out      io.Writer // takes the log lines; nil: none
	Terminal bool      // Out is a terminal: keep a progress line below the log
	Width    int       // columns of the terminal; 0: 80

	// FLOPsFull and FLOPsCausal are the model's operations per token, forward and backward, with attention counted
	// over the whole square of positions and over its causal half. Peak is what the devices of the run can do in a
	// second. MFU is unknown where one of them is 0.
	FLOPsFull, FLOPsCausal, Peak float64

	Resume      int64  // the run continues after this step; what an output holds of later steps is superseded
	JSONL       string // file to append JSON lines to; "": none
	TensorBoard string // directory of event files; "": none
	Prometheus  string // host:port of the metrics endpoint, on the loopback interface if without a host; "": none
}

// output is one destination of measurements. The Recorder calls it under its lock.
type output interface {
	step(m *measurement) error
	validation(v *validation) error
	close() error
}

// Recorder writes telemetry. Its methods may be called from any goroutine.
type Recorder struct {
	o Options

	mu      sync.Mutex
	log     *logWriter
	outputs []named
	meter   meter
}

// named is an output with its name in error reports.
type named struct {
	name string
	output
}

// New opens the outputs. One that the machine refuses (a full disk, a port in use) is reported in the log and left out;
// New itself fails on options that can never work. ctx bounds the opening only: Close ends what New started.
func New(ctx context.Context, o Options) (*Recorder, error) {
	r := &Recorder{o: o, log: newLogWriter(o), meter: newMeter(o)}
	if o.JSONL != "" {
		r.add("JSON lines", func() (output, error) { return openJSONL(o.JSONL, o.Resume) })
	}
	if o.TensorBoard != "" {
		r.add("TensorBoard", func() (output, error) { return openTensorBoard(o.TensorBoard, o.Resume) })
	}
	if o.Prometheus != "" {
		address, err := listenAddress(o.Prometheus)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.add("Prometheus", func() (output, error) {
			e, err := openEndpoint(ctx, address)
			if err == nil {
				r.log.line(fmt.Sprintf("metrics at http://%s/metrics", e.address()))
			}
			return e, err
		})
	}
	return r, nil
}

func (r *Recorder) add(name string, open func() (output, error)) {
	out, err := open()
	if err != nil {
		r.report(name, err)
		return
	}
	r.outputs = append(r.outputs, named{name, out})
}

// Step records a finished step.
func (r *Recorder) Step(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Memory == 0 {
		s.Memory = residentMemory()
	}
	m := r.meter.measure(s, time.Now())
	r.log.step(&m)
	r.each(func(out output) error { return out.step(&m) })
}

// Validation records the loss over the validation set after a step, and how long it took to compute.
func (r *Recorder) Validation(step int64, loss float64, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := validation{time: time.Now(), step: step, loss: loss, duration: d}
	r.log.line(v.String())
	r.each(func(out output) error { return out.validation(&v) })
}

// Event writes one line to the log, without tearing the progress line.
func (r *Recorder) Event(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.line(fmt.Sprintf(format, args...))
}

// Close erases the progress line and closes every output. Its error holds what could not be reported in the log: a
// failure of the log itself. The Recorder is not used afterwards.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.eraseBar()
	for _, out := range r.outputs {
		if err := out.close(); err != nil {
			r.report(out.name, err)
		}
	}
	r.outputs = nil
	return r.log.err
}

// each calls f with every output, and drops those that fail.
func (r *Recorder) each(f func(output) error) {
	r.outputs = slices.DeleteFunc(r.outputs, func(out named) bool {
		err := f(out)
		if err != nil {
			r.report(out.name, err)
			_ = out.close() // the first error is the one that tells
		}
		return err != nil
	})
}

func (r *Recorder) report(name string, err error) {
	r.log.line(fmt.Sprintf("telemetry: %s output ends here, training goes on: %v", name, err))
}
