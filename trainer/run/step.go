package run

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
	"github.com/herdtrain/herd/trainer/telemetry"
)

// maxSkipped is how many steps in a row may have a loss or gradient that is not finite before the job stops.
const maxSkipped = 3

// trainStep runs step s, counted from 0: this rank's part of the global batch in micro-batches, the exchange of gradients,
// the vote, the update, the ledger. If Options.Stop is closed all ranks end after it.
func (w *worker) trainStep(ctx context.Context, s int64) error {
	begin := time.Now()
	batch, err := w.loader.next(ctx)
	if err != nil {
		return err
	}
	defer w.loader.release(batch)
	wait := time.Since(begin)
	if batch.targets == 0 {
		return fmt.Errorf("step %d: none of its %d sequences has a target", s, w.job.Train.GlobalBatch)
	}

	w.opt.Begin(w.dev, w.q)
	w.runBatch(batch)
	digest := []int32{0}
	if w.coord[parallel.PP]+w.coord[parallel.TP]+w.coord[parallel.CP] == 0 { // one rank of those with the same sequences
		digest[0] = int32(batchDigest(&batch.tokens))
	}
	lr := w.schedule.Rate(s)
	w.reduceGradients()
	w.vote(digest, isClosed(w.o.Stop))
	w.opt.Step(w.dev, w.q, lr, s+1)
	w.gatherWeights()
	var stats [5]float64
	w.dev.Download(w.q, tensor.HostBytes(tensor.HostBuffer(stats[:])), w.opt.Stats())
	if err := w.sync(ctx); err != nil {
		return fmt.Errorf("step %d: %w", s, err)
	}

	loss, norm, applied := stats[0]/float64(batch.targets), math.Sqrt(stats[1]), stats[4] != 0
	w.stop = stats[2] > 0
	count := int64(w.job.Train.GlobalBatch)
	rec := Record{
		Generation: w.generation, Step: s, First: s * count, Count: count,
		Digest: fmt.Sprintf("%08x", uint32(digest[0])), Applied: applied,
	}
	if !math.IsNaN(loss) && !math.IsInf(loss, 0) {
		rec.Loss = loss
	}
	if w.leads() {
		if err := w.ledger.Append(rec); err != nil {
			return err
		}
	}
	w.step = s + 1
	if applied {
		w.applied++
	}
	tokens := count * int64(w.job.Data.SequenceLength)
	w.tokens += tokens
	w.telemetry.Step(telemetry.Step{
		Step: w.step, Steps: w.job.Train.Steps, Loss: loss, GradNorm: norm, LR: lr, Applied: applied,
		Tokens: tokens, TokensSeen: w.tokens,
		Duration: time.Since(begin), DataWait: wait, CheckpointStall: w.saver.takeStall(),
	})
	w.saver.poll(ctx)
	return w.checkSkipped(rec, loss, norm)
}

// checkSkipped reports a step whose update was not applied, and stops the job at the third in a row.
func (w *worker) checkSkipped(rec Record, loss, norm float64) error {
	if rec.Applied {
		w.skipped = 0
		return nil
	}
	w.skipped++
	w.telemetry.Event("step %d skipped: loss %v, gradient norm %v; samples %d to %d were consumed",
		rec.Step+1, loss, norm, rec.First, rec.First+rec.Count-1)
	if w.skipped < maxSkipped {
		return nil
	}
	return &exitError{exitHopeless, fmt.Errorf(
		"loss or gradient was not finite in %d steps in a row, up to step %d: lower optimizer.lr, or look at samples %d to %d",
		maxSkipped, rec.Step+1, rec.First-(maxSkipped-1)*rec.Count, rec.First+rec.Count-1)}
}

// microBatch is sequences [i, j) of a batch.
func microBatch(t *dataset.Tokens, i, j int) llama.Input {
	a, b := i*t.Length, j*t.Length
	return llama.Input{
		Sequences: j - i, Length: t.Length, IDs: t.Input[a:b], Targets: t.Target[a:b], First: t.First[a:b],
	}
}
