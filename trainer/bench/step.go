package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"
	"time"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/optim"
	"github.com/herdtrain/herd/trainer/telemetry"
)

// StepReport is the speed and the memory of whole training steps.
type StepReport struct {
	Device     string `json:"device"`
	Model      string `json:"model"` // the preset, or the job's name
	Parameters int64  `json:"parameters"`
	Precision  string `json:"precision"`
	MicroBatch int    `json:"micro_batch"` // sequences, the whole batch of a step
	Length     int    `json:"length"`      // tokens of a sequence

	Steps           int     `json:"steps"` // that were measured
	Seconds         Spread  `json:"seconds_per_step"`
	TokensPerSecond Spread  `json:"tokens_per_second"`
	Phases          []Phase `json:"phases"`
	Peak            float64 `json:"peak_gflops"` // fp32 FMA, the mean of before and after
	MFU             float64 `json:"mfu"`         // attention counted in full, of the median
	MFUCausal       float64 `json:"mfu_causal"`  // its causal half
	Loss            float64 `json:"loss"`        // of the last step; the same random tokens in each

	FirstStepAt float64     `json:"first_step_at"` // when the first step had ended, in seconds since 1970
	Memory      []MemoryUse `json:"memory"`        // the plan
	MemoryBytes int64       `json:"memory_bytes"`
	PeakRSS     int64       `json:"peak_rss_bytes"` // of the process so far; 0: unknown
}

// Phase is a part of a step.
type Phase struct {
	Name    string `json:"name"`
	Seconds Spread `json:"seconds"`
}

// MemoryUse is what the plan sets apart for one use.
type MemoryUse struct {
	Use   string `json:"use"`
	Bytes int64  `json:"bytes"`
}

// The phases of a step, in order.
const (
	phaseForward = iota
	phaseLoss
	phaseBackward
	phaseUpdate // clearing the gradients, their norm, the vote, AdamW
	numPhases
)

var phaseNames = [numPhases]string{"forward", "loss", "backward", "update"}

// Step measures training steps of the job's model, with its optimizer and at its learning rate, each of one micro-batch
// of the job. The job's data is not opened: the tokens are random, all of them targets, one document a sequence.
func Step(ctx context.Context, o Options, job *config.Job) (report *StepReport, err error) {
	m, err := open(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	t, err := newTraining(m, job)
	if err != nil {
		return nil, err
	}
	r := &StepReport{
		Device: m.Name(), Model: job.Model.Preset, Precision: job.Train.Precision,
		MicroBatch: job.Train.MicroBatch, Length: job.Data.SequenceLength,
	}
	if r.Model == "" {
		r.Model = job.Job.Name
	}
	if err := t.step(ctx); err != nil {
		return nil, err
	}
	r.FirstStepAt = float64(time.Now().UnixMicro()) / 1e6

	peakBefore := m.peak()
	var whole []float64
	var parts [numPhases][]float64
	for begin := time.Now(); len(whole) < leastRepetitions || time.Since(begin) < m.duration; {
		if err := t.step(ctx); err != nil {
			return nil, err
		}
		sum := 0.0
		for i, d := range t.took {
			sum += d.Seconds()
			parts[i] = append(parts[i], d.Seconds())
		}
		whole = append(whole, sum)
	}
	r.Peak = (peakBefore + m.peak()) / 2 / 1e9

	tokens := float64(r.MicroBatch * r.Length)
	r.Steps, r.Seconds, r.Loss = len(whole), newSpread(whole), t.loss
	r.TokensPerSecond = r.Seconds.rate(tokens)
	for i, p := range parts {
		r.Phases = append(r.Phases, Phase{phaseNames[i], newSpread(p)})
	}
	model := job.Model.Config()
	full, causal := model.FLOPs(r.Length)
	r.Parameters = model.Parameters()
	r.MFU = full * r.TokensPerSecond.Median / (r.Peak * 1e9)
	r.MFUCausal = causal * r.TokensPerSecond.Median / (r.Peak * 1e9)
	r.MemoryBytes, r.PeakRSS = t.arena.Bytes(), telemetry.PeakMemory()
	uses, bytes := t.arena.Uses()
	for _, use := range uses {
		r.Memory = append(r.Memory, MemoryUse{use, bytes[use]})
	}
	return r, nil
}

// training is a model and its optimizer that take one step after another on the same micro-batch.
type training struct {
	m      *machine
	arena  *tensor.Arena
	stage  *llama.Stage
	opt    *optim.AdamW
	lr     float64
	in     llama.Input
	number int64                    // of steps taken
	took   [numPhases]time.Duration // by the last step
	loss   float64                  // of the last step, a mean
}

func newTraining(m *machine, job *config.Job) (*training, error) {
	t := &training{m: m, lr: job.Optimizer.LR}
	plan := tensor.NewPlan()
	t.place(plan, nil, job)
	var err error
	if t.arena, err = plan.Arena(m); err != nil {
		return nil, err
	}
	t.place(t.arena, m, job)

	if err := t.opt.Initialize(context.Background(), m, m.q, job.Job.Seed); err != nil {
		return nil, err
	}
	t.opt.Derive(m, m.q)
	n := job.Train.MicroBatch * job.Data.SequenceLength
	t.in = llama.Input{
		Sequences: job.Train.MicroBatch, Length: job.Data.SequenceLength, IDs: make([]int32, n), Targets: make([]int32, n),
		First: make([]int32, n),
	}
	r := rand.New(rand.NewPCG(job.Job.Seed, 0))
	for i := range n {
		t.in.IDs[i], t.in.Targets[i] = r.Int32N(int32(job.Model.Vocab)), r.Int32N(int32(job.Model.Vocab))
	}
	return t, m.q.Sync(context.Background())
}

// place asks for the memory of model and optimizer, as trainer/run does.
func (t *training) place(a *tensor.Arena, dev tensor.Device, job *config.Job) {
	dt := tensor.F32
	if job.Train.Precision == "bf16" {
		dt = tensor.BF16
	}
	size := llama.Size{
		Sequences: job.Train.MicroBatch, Length: job.Data.SequenceLength,
		Recompute: llama.Recomputes[job.Parallel.Recompute],
	}
	t.stage = llama.NewStage(a, dev, job.Model.Config(), dt, size, true)
	t.opt = optim.New(a, t.stage.Params)
	t.opt.Beta1, t.opt.Beta2 = job.Optimizer.Betas[0], job.Optimizer.Betas[1]
	t.opt.Eps, t.opt.WeightDecay, t.opt.ClipNorm = job.Optimizer.Eps, job.Optimizer.WeightDecay, job.Optimizer.ClipNorm
}

// step is a training step as trainer/run takes it, timed by phase.
func (t *training) step(ctx context.Context) error {
	m, n := t.m, float64(len(t.in.IDs))
	t.number++
	t.took = [numPhases]time.Duration{}
	last := time.Now()
	// end waits for the device and counts the time since the phase before.
	end := func(phase int) error {
		err := m.q.Sync(ctx)
		now := time.Now()
		t.took[phase] += now.Sub(last)
		last = now
		return err
	}
	var stats [5]float64
	for _, part := range []struct {
		phase int
		run   func()
	}{
		{phaseUpdate, func() { t.opt.Begin(m, m.q) }},
		{phaseForward, func() { t.stage.Load(t.in); t.stage.Forward() }},
		{phaseLoss, func() { t.stage.Loss(t.opt.LossSum(), 1/n, true) }},
		{phaseBackward, t.stage.Backward},
		{phaseUpdate, func() {
			t.opt.Measure(m, m.q)
			t.opt.Step(m, m.q, t.lr, t.number)
			m.Download(m.q, tensor.HostBytes(tensor.HostBuffer(stats[:])), t.opt.Stats())
		}},
	} {
		part.run()
		if err := end(part.phase); err != nil {
			return fmt.Errorf("step %d: %w", t.number, err)
		}
	}
	if t.loss = stats[0] / n; stats[4] == 0 {
		return fmt.Errorf("step %d was not applied: loss %v, squared gradient norm %v", t.number, t.loss, stats[1])
	}
	return nil
}

// Print writes r for a reader.
func (r *StepReport) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	mib := func(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
	fmt.Fprintf(w, "device\t%s\n", r.Device)
	fmt.Fprintf(w, "model\t%s, %d parameters, %s\n", r.Model, r.Parameters, r.Precision)
	fmt.Fprintf(w, "step\t%d×%d tokens, one micro-batch; %d steps\n", r.MicroBatch, r.Length, r.Steps)
	fmt.Fprintf(w, "tokens/s\t%.1f\t%.1f–%.1f\n", r.TokensPerSecond.Median, r.TokensPerSecond.Min, r.TokensPerSecond.Max)
	fmt.Fprintf(w, "time\t%.4f s\t%.4f–%.4f\n", r.Seconds.Median, r.Seconds.Min, r.Seconds.Max)
	for _, p := range r.Phases {
		fmt.Fprintf(w, "  %s\t%.4f s\t%.4f–%.4f\t%.1f%%\n", p.Name, p.Seconds.Median, p.Seconds.Min, p.Seconds.Max,
			100*p.Seconds.Median/r.Seconds.Median)
	}
	fmt.Fprintf(w, "MFU\t%.1f%%\tfull attention, of a peak of %.1f GFLOP/s fp32\n", 100*r.MFU, r.Peak)
	fmt.Fprintf(w, "\t%.1f%%\tcausal half\n", 100*r.MFUCausal)
	fmt.Fprintf(w, "loss\t%.4f\tof the last step, on random tokens\n", r.Loss)
	fmt.Fprintf(w, "memory plan\t%s\n", mib(r.MemoryBytes))
	for _, u := range r.Memory {
		fmt.Fprintf(w, "  %s\t%s\n", u.Use, mib(u.Bytes))
	}
	fmt.Fprintf(w, "peak resident\t%s\n", mib(r.PeakRSS))
	return w.Flush()
}
