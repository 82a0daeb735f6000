package run

import (
	"context"
	"fmt"
	"math"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
)

// Measure is the result of an evaluation.
type Measure struct {
	Loss       float64 `json:"loss"` // mean over the targets, in nats
	Perplexity float64 `json:"perplexity"`
	Targets    int64   `json:"targets"`
	Sequences  int     `json:"sequences"`
}

// sample is the sequences of a dataset that an evaluation reads: always the same ones, drawn from all of it.
type sample struct {
	stream    dataset.Stream
	sequences int
	batch     int // sequences at a time
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
		Sources: []dataset.Source{{Path: path, Weight: 1}}, Length: job.Data.SequenceLength, GlobalBatch: batch,
		Seed: job.Job.Seed, Vocab: job.Model.Vocab, TokenizerDigest: tokenizer, DocumentMask: job.Data.DocumentMask,
	})
	return &sample{s, sequences, batch}, err
}

// evaluate runs the model over the sample. sum is F64 [1], overwritten.
func (e *sample) evaluate(ctx context.Context, dev tensor.Device, stage *llama.Stage, sum tensor.Buffer) (Measure, error) {
	q := dev.Queue(tensor.Compute)
	dev.Fill(q, sum, 0)
	var m Measure
	var tokens dataset.Tokens
	for step := int64(0); m.Sequences < e.sequences; step++ {
		part := dataset.Part{First: 0, Count: min(e.batch, e.sequences-m.Sequences)}
		if err := e.stream.Batch(ctx, step, part, &tokens); err != nil {
			return m, err
		}
		stage.Load(microBatch(&tokens, 0, tokens.Seqs))
		stage.Forward()
		stage.Loss(sum, 0, false)
		for _, t := range tokens.Target {
			if t >= 0 {
				m.Targets++
			}
		}
		m.Sequences += tokens.Seqs
		if err := q.Sync(ctx); err != nil { // tokens is used again
			return m, err
		}
	}
	if m.Targets == 0 {
		return m, fmt.Errorf("none of the %d sequences has a target", m.Sequences)
	}
	var total [1]float64
	dev.Download(q, tensor.HostBytes(tensor.HostBuffer(total[:])), sum)
	if err := q.Sync(ctx); err != nil {
		return m, err
	}
	m.Loss = total[0] / float64(m.Targets)
	m.Perplexity = math.Exp(m.Loss)
	return m, nil
}
