package run

import (
	"context"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

// stagePlan is what one stage of a pipeline does in a step.
type stagePlan struct {
	layers  parallel.Range
	actions []parallel.Action
	slots   int
	count   int // micro-batches
}

// planStage is the plan of a rank. Each pipeline has as many micro-batches as its part of the batch needs.
func planStage(job *config.Job, l parallel.Layout, rank int) stagePlan {
	at := l.Mesh.Coord(rank)
	p := l.Pipeline
	n := share(l, job.Train.GlobalBatch, at[parallel.DP]).Len()
	s := stagePlan{
		layers: parallel.ChunkLayers(p.Layers, p.Stages, at[parallel.PP]), slots: 1,
		count: (n + job.Train.MicroBatch - 1) / job.Train.MicroBatch,
	}
	if p.MicroBatches = s.count; s.count > 0 {
		s.actions = parallel.Schedules[l.Schedule](p)[at[parallel.PP]]
		s.slots = parallel.Slots(s.actions)
	}
	return s
}

// runBatch runs the pipeline's schedule over this rank's part of the batch.
func (w *worker) runBatch(b *batch) {
	size, first := w.job.Train.MicroBatch, w.share(w.job.Train.GlobalBatch).Lo
	w.pipeline.Run(parallel.Step{
		Actions: w.plan.actions, Slots: w.plan.slots, Loss: w.opt.LossSum(), Scale: 1 / float64(b.targets),
		Input: func(i int) llama.Input {
			in := microBatch(&b.tokens, i*size, min((i+1)*size, b.tokens.Seqs))
			in.Sequence = first + i*size
			return in
		},
	})
}

// split makes the Groups of parts of the ranks, which all ranks do together, and the executor of the pipeline.
func (w *worker) split(ctx context.Context) (err error) {
	peers := w.layout.Mesh.Group(w.number, parallel.CP, parallel.DP)
	if w.data, err = w.world.Split(ctx, peers[0], w.number); err != nil {
		return err
	}
	w.groups = append(w.groups, w.data)
	if tp := w.layout.Mesh[parallel.TP]; tp > 1 {
		r := w.coord[parallel.TP]
		if w.tensor.Group, err = w.world.Split(ctx, w.layout.Mesh.Group(w.number, parallel.TP)[0], w.number); err != nil {
			return err
		}
		w.groups = append(w.groups, w.tensor.Group)
		same := parallel.Heads(w.job.Model.Config(), tp, r).Replicas
		if w.kv, err = w.world.Split(ctx, w.number-r+same.Lo, w.number); err != nil {
			return err
		}
		w.groups = append(w.groups, w.kv)
	}
	w.pipeline = &parallel.Executor{
		Stage: w.stage, Queue: w.q, World: w.world, Ranks: w.layout.Mesh.Group(w.number, parallel.PP),
		Index: w.coord[parallel.PP],
	}
	return nil
}
