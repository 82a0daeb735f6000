package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/optim"
	"github.com/herdtrain/herd/trainer/parallel"
	"github.com/herdtrain/herd/trainer/telemetry"
)

// worker is one rank: a device, the model on it, and the loop over the steps. It belongs to one goroutine.
type worker struct {
	*rank
	job        *config.Job
	generation int64
	o          Options

	dev      tensor.Device
	q        tensor.Queue
	arena    *tensor.Arena
	plan     stagePlan
	stage    *llama.Stage
	pipeline *parallel.Executor
	zero     *parallel.Zero           // nil on a lone rank
	tensor   *parallel.TensorExchange // nil without tensor parallelism
	trees    *treeSums                // of numerics: canonical; nil: fast
	hidden   *parallel.HiddenSums     // as trees, over tensor ranks
	spread   *parallel.HiddenSums     // as trees, over context ranks
	context  *parallel.Context        // nil without context parallelism
	opt      *optim.AdamW
	copies   []tensor.Buffer // of each part of the state that this rank saves
	schedule optim.Schedule

	stream     dataset.Stream
	validation *sample // nil: none
	loader     *loader

	ledger    *Ledger // the leader's; nil on other ranks
	telemetry *telemetry.Recorder
	saver     *saver

	step    int64 // steps done
	tokens  int64 // tokens seen
	applied int64 // updates of the weights
	skipped int   // steps in a row that were not applied

	validated struct { // last
		step int64
		loss float64
	}
	stop bool // the ranks agreed to end after this step

	exchanged map[collective.Group]collective.Work // the last exchange of each Group on the queue
}

// Plan is the memory of a rank of the job.
func Plan(job *config.Job, l parallel.Layout, rank int) *tensor.Arena {
	plan := tensor.NewPlan()
	new(worker).place(plan, nil, job, l, rank)
	return plan
}

// place asks for the memory of the model.
func (w *worker) place(a *tensor.Arena, dev tensor.Device, job *config.Job, l parallel.Layout, rank int) {
	w.plan = planStage(l, rank)
	model := job.Model.Config()
	sharding := llama.Sharding{Stage: l.Zero, Ranks: l.Shard, Index: l.ShardIndex(rank)}
	if l.Shard == 1 {
		sharding.Stage = 0
	}
	if l.Mesh.World() > 1 {
		w.zero = new(parallel.Zero)
		sharding.Shards = w.zero
	}
	size := llama.Size{
		Sequences: job.Train.MicroBatch, Length: job.Data.SequenceLength, Chunks: w.plan.chunks, Sharding: sharding,
		Recompute: llama.Recomputes[job.Parallel.Recompute], SplitBackward: w.plan.splits,
		SequenceParallel: job.Parallel.Sequence,
	}
	if tp := l.Mesh[parallel.TP]; tp > 1 {
		size.Share = parallel.Share(model, tp, l.Mesh.Coord(rank)[parallel.TP], job.Numerics == "canonical")
		w.tensor = parallel.NewTensorExchange(a, tensor.F32, tp, size.Sequences*size.Length)
		size.Share.Exchange = w.tensor
	}
	canonical := job.Numerics == "canonical"
	if cp := l.Mesh[parallel.CP]; cp > 1 {
		size.Spread.Pieces = parallel.Pieces(size.Length, cp, canonical)
		size.Spread.Rank = l.Mesh.Coord(rank)[parallel.CP]
		w.context = parallel.NewContext(a, dev, size.Share.Of(model), dtype(job), size.Sequences, size.Length, size.Spread.Pieces,
			size.Spread.Rank, parallel.ContextKind{Ring: job.Parallel.ContextExchange == "ring", Canonical: canonical})
		size.Spread.Context = w.context
	}
	if canonical {
		w.trees = new(treeSums)
		tp := l.Mesh[parallel.TP]
		w.hidden = parallel.NewHiddenSums(a, dev, "hidden", max(llama.HiddenLeaves, model.Heads+model.KVHeads),
			size.Sequences*size.Length*max(model.Dim, 2*model.HeadDim))
		w.spread = parallel.NewHiddenSums(a, dev, "context", llama.TokenLeaves,
			size.Length*2*size.Share.Of(model).Heads*model.HeadDim)
		size.Spread.Sums = w.spread
		for r := range tp {
			size.Shares = append(size.Shares, parallel.Share(model, tp, r, true))
		}
		size.Leaves, size.Hidden = w.trees, w.hidden
	}
	w.stage = llama.NewStage(a, dev, model, dtype(job), size, true)
	if w.trees != nil {
		*w.trees = *newTreeSums(a, w.stage.Params, job, l, rank)
	}
	if w.zero != nil {
		*w.zero = *parallel.NewZero(a, dev, w.stage.Params, sharding, model.Tied)
	}
	o := optim.New(a, w.stage.Params)
	o.Beta1, o.Beta2 = job.Optimizer.Betas[0], job.Optimizer.Betas[1]
	o.Eps, o.WeightDecay, o.ClipNorm = job.Optimizer.Eps, job.Optimizer.WeightDecay, job.Optimizer.ClipNorm
	w.opt = o
	if _, ok := writer(l, rank); ok {
		for _, p := range ownState(w.stage.Params, w.opt) {
			w.copies = append(w.copies, a.Alloc("snapshot", p.name, p.buf.DType(), p.buf.Len()))
		}
	}
}

// dtype is the storage type of weights and activations.
func dtype(job *config.Job) tensor.DType {
	if job.Train.Precision == "bf16" {
		return tensor.BF16
	}
	return tensor.F32
}

func newSchedule(job *config.Job) optim.Schedule {
	return optim.Schedule{
		Kind: job.Schedule.Kind, LR: job.Optimizer.LR, WarmupSteps: job.Schedule.WarmupSteps, Steps: job.Train.Steps,
		FinalRatio: job.Schedule.FinalRatio, DecaySteps: job.Schedule.DecaySteps,
	}
}

// openModel brings up the device, with the memory of the plan, and the model on it; the parameters are still zero.
func (w *worker) openModel() error {
	dev, err := cpu.New(cpu.Options{Threads: w.threads})
	if err != nil {
		return err
	}
	w.dev, w.q = dev, dev.Queue(tensor.Compute)
	if w.arena, err = Plan(w.job, w.layout, w.number).Arena(dev); err != nil {
		return err
	}
	w.place(w.arena, dev, w.job, w.layout, w.number)
	w.schedule = newSchedule(w.job)
	return nil
}

// openData opens the training and validation streams, which must fit the model and the tokenizer.
func (w *worker) openData(tokenizer string) (err error) {
	o := dataset.Options{
		Length: w.job.Data.SequenceLength, GlobalBatch: w.job.Train.GlobalBatch, Seed: w.job.Job.Seed,
		Vocab: w.job.Model.Vocab, TokenizerDigest: tokenizer, DocumentMask: w.job.Data.DocumentMask,
	}
	for _, s := range w.job.Data.Train {
		o.Sources = append(o.Sources, dataset.Source{Path: s.Path, Weight: s.Weight})
	}
	if w.stream, err = dataset.Open(o); err != nil {
		return fmt.Errorf("data.train: %w", err)
	}
	if v := w.job.Data.Validation; v != nil {
		if w.validation, err = openSample(w.job, v.Path, tokenizer, v.Sequences, w.job.Train.MicroBatch); err != nil {
			return fmt.Errorf("data.validation: %w", err)
		}
		w.validation.part = w.share(w.validation.sequences)
		w.validation.most = share(w.layout, w.validation.sequences, 0).Len()
	}
	return nil
}

// share is the sequences of a global batch or of a sample that this rank computes.
func (w *worker) share(sequences int) parallel.Range {
	return share(w.layout, sequences, w.coord[parallel.DP])
}

// train runs the steps that are left. When Options.Stop is closed on any rank all finish the step, save and return an error with
// exit code 75.
func (w *worker) train(ctx context.Context) error {
	steps := w.job.Train.Steps
	w.loader = newLoader(ctx, w.stream, w.step, steps, w.share(w.job.Train.GlobalBatch))
	defer w.loader.close()
	if w.step == 0 {
		if err := w.validate(ctx); err != nil {
			return err
		}
	}
	for w.step < steps {
		if err := w.trainStep(ctx, w.step); err != nil {
			return err
		}
		if v := w.job.Data.Validation; v != nil && (w.step%int64(v.Every) == 0 || w.step == steps) {
			if err := w.validate(ctx); err != nil {
				return err
			}
		}
		stopping := w.stop && w.step < steps
		if every := w.job.Checkpoint.Every; stopping || w.step == steps || every > 0 && w.step%every == 0 {
			w.saver.begin(ctx, w)
		}
		if stopping {
			return w.stopped(ctx)
		}
	}
	if err := w.saver.wait(ctx); err != nil {
		return err
	}
	return w.reportMemory(ctx)
}

// reportMemory says how much memory the ranks had, if each is a process, and which had most beside its plan.
func (w *worker) reportMemory(ctx context.Context) error {
	if !w.process {
		return nil
	}
	type memory struct{ Peak, Plan int64 }
	all, err := gatherJSON(ctx, w.saves, memory{telemetry.PeakMemory(), w.arena.Bytes()}) // some may still be saving
	if err != nil {
		return err
	}
	most := 0
	for i, m := range all {
		if m.Peak-m.Plan > all[most].Peak-all[most].Plan {
			most = i
		}
	}
	m := all[most]
	w.telemetry.Event("resident memory of rank %d was %.1f MiB at most, %.1f above its plan; no rank was further above", most,
		float64(m.Peak)/(1<<20), float64(m.Peak-m.Plan)/(1<<20))
	return nil
}

func (w *worker) stopped(ctx context.Context) error {
	if err := w.saver.wait(ctx); err != nil {
		return fmt.Errorf("stopped after step %d of %d, which could not be saved: %w", w.step, w.job.Train.Steps, err)
	}
	return &exitError{exitStopped, fmt.Errorf("stopped after step %d of %d, which is saved", w.step, w.job.Train.Steps)}
}

// validate measures the mean loss over the job's validation sequences.
func (w *worker) validate(ctx context.Context) error {
	if w.validation == nil {
		return nil
	}
	begin := time.Now()
	m, err := w.validation.evaluate(ctx, w.dev, w.pipeline, w.opt.LossSum())
	if err == nil {
		err = w.sync(ctx)
	}
	if err == nil {
		if w.coord[parallel.PP]+w.coord[parallel.TP]+w.coord[parallel.CP] > 0 {
			m.Targets = 0 // another rank with the same sequences counts them
		}
		sums := tensor.HostBuffer([]float64{m.LossSum, float64(m.Targets)})
		err = w.world.Start(nil, collective.AllReduce(sums, sums, collective.Sum)).Wait(ctx)
		m.LossSum, m.Targets = tensor.Host[float64](sums)[0], int64(tensor.Host[float64](sums)[1])
	}
	if err == nil {
		err = m.conclude()
	}
	if err != nil {
		return fmt.Errorf("validation after step %d: %w", w.step, err)
	}
	w.validated.step, w.validated.loss = w.step, m.Loss
	w.telemetry.Validation(w.step, m.Loss, time.Since(begin))
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// openTelemetry starts the step line and the files beside it; the steps go on after w.step.
func (w *worker) openTelemetry(ctx context.Context) (err error) {
	if !w.leads() {
		w.telemetry, err = telemetry.New(ctx, telemetry.Options{})
		return err
	}
	out, t := w.job.Job.Output, w.job.Telemetry
	opt := telemetry.Options{
		Out: w.o.Out, Terminal: w.o.Terminal, Width: w.o.Width, Resume: w.step, Prometheus: t.Prometheus,
		Peak: w.o.peak,
	}
	opt.FLOPsFull, opt.FLOPsCausal = w.job.Model.Config().FLOPs(w.job.Data.SequenceLength)
	if t.JSONL {
		opt.JSONL = filepath.Join(out, "metrics.jsonl")
	}
	if t.TensorBoard {
		opt.TensorBoard = filepath.Join(out, "tensorboard")
	}
	w.telemetry, err = telemetry.New(ctx, opt)
	if err == nil {
		ranks := ""
		if n := w.layout.Mesh.World(); n > 1 {
			ranks = fmt.Sprintf("%d ranks (%v, zero %d), ", n, w.layout.Mesh, w.layout.Zero)
		}
		w.telemetry.Event("%s%s, peak %.0f GFLOP/s in fp32; memory plan %s", ranks, w.dev.Name(), opt.Peak/1e9, planLine(w.arena))
	}
	return err
}

// planLine is a memory plan in a few words.
func planLine(a *tensor.Arena) string {
	s := fmt.Sprintf("%.1f MiB:", float64(a.Bytes())/(1<<20))
	uses, bytes := a.Uses()
	for _, u := range uses {
		s += fmt.Sprintf(" %s %.1f,", u, float64(bytes[u])/(1<<20))
	}
	return strings.TrimSuffix(s, ",")
}

// close ends what the worker started: it waits for a save in flight and reports its failure.
func (w *worker) close(ctx context.Context) error {
	var errs []error
	if w.saver != nil {
		errs = append(errs, w.saver.wait(ctx))
		w.saver.mirror.wait(ctx)
	}
	if w.telemetry != nil {
		errs = append(errs, w.telemetry.Close())
	}
	if w.ledger != nil {
		errs = append(errs, w.ledger.Close())
	}
	if w.stream != nil {
		errs = append(errs, w.stream.Close())
	}
	if w.validation != nil {
		errs = append(errs, w.validation.stream.Close())
	}
	if w.dev != nil {
		errs = append(errs, w.dev.Close())
	}
	return errors.Join(errs...)
}
