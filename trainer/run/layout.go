package run

import (
	"fmt"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// Layout is how a job lies on so many ranks, or with 0 on the fewest that its file asks for. The error is
// parallel.ErrLayout, with exit code 2.
func Layout(job *config.Job, ranks int) (parallel.Layout, error) {
	p := job.Parallel
	if ranks == 0 {
		ranks = max(1, int(p.Data)) * p.Tensor * p.Pipeline * p.Context
	}
	virtual := max(1, int(p.Virtual))
	if p.Virtual == 0 && p.PipelineSchedule == "interleaved" && p.Pipeline > 1 {
		virtual = 2
	}
	if p.Sequence && p.Tensor == 1 {
		return parallel.Layout{}, &exitError{exitUsage, fmt.Errorf("parallel: %w: sequence is true, but tensor is 1: there are no "+
			"ranks to share the tokens of a sequence; want tensor above 1, or sequence false", parallel.ErrLayout)}
	}
	l, err := parallel.Resolve(parallel.Spec{
		Data: int(p.Data), Tensor: p.Tensor, Pipeline: p.Pipeline, Context: p.Context,
		Schedule: p.PipelineSchedule, Virtual: virtual, Zero: p.Zero, Shard: int(p.Shard),
		GlobalBatch: job.Train.GlobalBatch, MicroBatch: job.Train.MicroBatch, SequenceLength: job.Data.SequenceLength,
		Canonical: job.Numerics == "canonical",
	}, ranks, job.Model.Config())
	if err != nil {
		err = &exitError{exitUsage, fmt.Errorf("parallel: %w", err)}
	}
	return l, err
}

// share is the sequences of a global batch, or of a sample, that data rank r reads.
func share(l parallel.Layout, sequences, r int) parallel.Range {
	return parallel.Split(sequences, l.Mesh[parallel.DP], r)
}
