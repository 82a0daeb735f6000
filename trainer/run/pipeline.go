package run

import (
	"context"
	"slices"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

// stagePlan is what one stage of a pipeline does in a step.
type stagePlan struct {
	pipeline parallel.Pipeline
	chunks   []llama.Chunk
	actions  []parallel.Action
	slots    []int // of each chunk
	splits   bool  // the backward pass
}

// planStage is the plan of a rank. Each pipeline has as many micro-batches as its part of the batch needs.
func planStage(job *config.Job, l parallel.Layout, rank int) stagePlan {
	at := l.Mesh.Coord(rank)
	n := share(l, job.Train.GlobalBatch, at[parallel.DP]).Len()
	s := stagePlan{pipeline: l.Pipeline, slots: make([]int, l.Pipeline.Virtual)}
	p := &s.pipeline
	if p.MicroBatches = (n + job.Train.MicroBatch - 1) / job.Train.MicroBatch; p.MicroBatches > 0 {
		s.actions = parallel.Schedules[l.Schedule](*p)[at[parallel.PP]]
		s.slots = p.Slots(s.actions)
	}
	for k, slots := range s.slots {
		layers := parallel.ChunkLayers(p.Layers, p.Chunks(), k*p.Stages+at[parallel.PP])
		s.chunks = append(s.chunks, llama.Chunk{Lo: layers.Lo, Hi: layers.Hi, Slots: slots})
	}
	s.splits = slices.ContainsFunc(s.actions, func(a parallel.Action) bool { return a.Kind == parallel.BackwardWeight })
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
		Pipeline: w.plan.pipeline, Stage: w.stage, Queue: w.q, World: w.world, Ranks: w.layout.Mesh.Group(w.number, parallel.PP),
		Index: w.coord[parallel.PP],
	}
	return nil
}
