package run

import (
	"context"
	"slices"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

// stagePlan is what one stage of a pipeline does in a step.
type stagePlan struct {
	chunks  []llama.Chunk
	actions []parallel.Action
	slots   []int // of each chunk
	splits  bool  // the backward pass
}

// planStage is the plan of a rank. All pipelines have as many micro-batches, of which some may be padding.
func planStage(l parallel.Layout, rank int) stagePlan {
	stage, p := l.Mesh.Coord(rank)[parallel.PP], l.Pipeline
	s := stagePlan{actions: parallel.Schedules[l.Schedule](p)[stage]}
	s.slots = p.Slots(s.actions)
	for k, slots := range s.slots {
		layers := parallel.ChunkLayers(p.Layers, p.Chunks(), k*p.Stages+stage)
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
			in := padding(w.job.Data.SequenceLength)
			if i*size < b.tokens.Seqs {
				in = microBatch(&b.tokens, i*size, min((i+1)*size, b.tokens.Seqs))
				in.Sequence = first + i*size
			}
			in.Last = i == w.layout.Pipeline.MicroBatches-1
			return in
		},
	})
}

// padding is a micro-batch that has no target.
func padding(length int) llama.Input {
	in := llama.Input{Sequences: 1, Length: length, Sequence: -1, IDs: make([]int32, length), Targets: make([]int32, length)}
	for i := range in.Targets {
		in.Targets[i] = -1
	}
	return in
}

// split makes the Groups of parts of the ranks, which all ranks do together, and the executor of the pipeline.
func (w *worker) split(ctx context.Context) (err error) {
	// group makes a Group of ranks, this one among them, and those that are given others like them; none of a negative
	// number.
	group := func(of []int, ok bool) (g collective.Group) {
		color := -1
		if ok {
			color = of[0]
		}
		if err == nil {
			g, err = w.rank.split(ctx, color)
		}
		return g
	}
	mesh, l := w.layout.Mesh, w.layout
	w.data = group(mesh.Group(w.number, parallel.CP, parallel.DP), true)
	if tp := mesh[parallel.TP]; tp > 1 {
		w.tensor.Group = group(mesh.Group(w.number, parallel.TP), true)
		if w.hidden != nil {
			w.hidden.Group = w.tensor.Group
		}
		r := w.coord[parallel.TP]
		if w.job.Parallel.Sequence {
			w.zero.Norms = group(mesh.Group(w.number, parallel.TP), true)
		}
		w.zero.KV = group([]int{w.number - r + parallel.Heads(w.job.Model.Config(), tp, r).Replicas.Lo}, true)
	}
	if mesh[parallel.CP] > 1 {
		w.context.Group = group(mesh.Group(w.number, parallel.CP), true)
		if w.spread != nil {
			w.spread.Group = w.context.Group
		}
	}
	if w.zero != nil {
		w.zero.Shards, w.zero.Gathers = group(l.ShardGroup(w.number), true), group(l.ShardGroup(w.number), true)
		w.zero.Replicas = group(l.ReplicaGroup(w.number), true)
		w.zero.TiedUnit = w.stage.Params.TiedUnit(w.job.Model.Config())
		w.zero.Tied = group(mesh.Group(w.number, parallel.PP), w.zero.TiedUnit >= 0)
	}
	w.pipeline = &parallel.Executor{
		Pipeline: w.layout.Pipeline, Stage: w.stage, Queue: w.q, World: w.world, Ranks: w.layout.Mesh.Group(w.number, parallel.PP),
		Index: w.coord[parallel.PP],
	}
	return err
}
