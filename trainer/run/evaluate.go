package run

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// Measure is the result of an evaluation.
type Measure struct {
	LossSum    float64 `json:"-"`
	Loss       float64 `json:"loss"` // mean over the targets, in nats
	Perplexity float64 `json:"perplexity"`
	Targets    int64   `json:"targets"`
	Sequences  int     `json:"sequences"`
}

// sample is the sequences of a dataset that an evaluation reads: always the same ones, drawn from all of it.
type sample struct {
	stream    dataset.Stream
	sequences int
	part      parallel.Range // those that are evaluated here
	most      int            // evaluated by any rank: all run as many micro-batches
	batch     int            // sequences at a time
	length    int            // of a sequence, in tokens
}

// openSample draws sequences of the dataset at path, 0 for all, for the model of a job.
func openSample(job *config.Job, path, tokenizer string, sequences, batch int) (*sample, error) {
	m, err := dataset.ReadManifest(path)
	if err != nil {
		return nil, err
	}
	if n := int(m.Windows); sequences == 0 || sequences > n {
		sequences = n
	}
	s, err := dataset.Open(dataset.Options{
		Sources: []dataset.Source{{Path: path, Weight: 1}}, Length: job.Data.SequenceLength, GlobalBatch: sequences,
		Seed: job.Job.Seed, Vocab: job.Model.Vocab, TokenizerDigest: tokenizer, DocumentMask: job.Data.DocumentMask,
	})
	return &sample{s, sequences, parallel.Range{Lo: 0, Hi: sequences}, sequences, batch, job.Data.SequenceLength}, err
}

// evaluate adds up the losses of the part of the sample that is evaluated here: LossSum and Targets of a Measure. sum is
// F64 [1], overwritten. Of several ranks with the same sequences each has a part of LossSum, and all of Targets.
func (e *sample) evaluate(ctx context.Context, dev tensor.Device, x *parallel.Executor, sum tensor.Buffer) (Measure,
	error) {
	q := dev.Queue(tensor.Compute)
	dev.Fill(q, sum, 0)
	m := Measure{Sequences: e.sequences}
	var tokens dataset.Tokens
	for i := e.part.Lo; i < e.part.Lo+e.most; i += e.batch {
		if i >= e.part.Hi {
			x.Evaluate(padding(e.length), sum)
			continue
		}
		part := dataset.Part{First: i, Count: min(e.batch, e.part.Hi-i)}
		if err := e.stream.Batch(ctx, 0, part, &tokens); err != nil {
			return m, err
		}
		x.Evaluate(microBatch(&tokens, 0, tokens.Seqs), sum)
		for _, t := range tokens.Target {
			if t >= 0 {
				m.Targets++
			}
		}
		if err := errors.Join(x.Work().Wait(ctx), q.Sync(ctx)); err != nil { // tokens is used again
			return m, err
		}
	}
	var total [1]float64
	dev.Download(q, tensor.HostBytes(tensor.HostBuffer(total[:])), sum)
	if err := q.Sync(ctx); err != nil {
		return m, err
	}
	m.LossSum = total[0]
	return m, nil
}

// conclude sets Loss and Perplexity.
func (m *Measure) conclude() error {
	if m.Targets == 0 {
		return fmt.Errorf("none of the %d sequences has a target", m.Sequences)
	}
	m.Loss = m.LossSum / float64(m.Targets)
	m.Perplexity = math.Exp(m.Loss)
	return nil
}
