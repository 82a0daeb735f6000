package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

// Model is a trained model to evaluate or to generate with. It belongs to one goroutine.
type Model struct {
	Job        *config.Job // that trained it
	Tokenizer  dataset.Tokenizer
	Checkpoint string // its directory
	Step       int64

	length int // tokens of context
	dev    tensor.Device
	q      tensor.Queue
	stage  *llama.Stage
	sum    tensor.Buffer // F64 [1]
	row    tensor.Buffer // F32 [Vocab]
	cache  *llama.Cache  // of Generate; nil before its first call
}

// OpenModel loads the weights of a checkpoint, or of the newest good one of a run's output directory, for sequences of
// the length that it was trained on, size at a time. Checkpoints that had to be passed over are returned beside it.
func OpenModel(ctx context.Context, path string, size int) (*Model, []checkpoint.Rejection, error) {
	root, dir, err := checkpoint.Locate(storage.OS, filepath.Clean(path))
	if err != nil {
		return nil, nil, err
	}
	m := new(Model)
	load := func(c *checkpoint.Checkpoint) error { return m.load(ctx, c, size) }
	if dir != "" {
		c, err := checkpoint.Open(ctx, storage.OS, dir)
		if err == nil {
			err = load(c)
		}
		if err != nil {
			return nil, nil, errors.Join(err, m.Close())
		}
		return m, nil, nil
	}
	head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	_, rejected, err := checkpoint.Resolve(ctx, storage.OS, root, head, load)
	if err != nil {
		return nil, rejected, errors.Join(err, m.Close())
	}
	return m, rejected, nil
}

func (m *Model) load(ctx context.Context, c *checkpoint.Checkpoint, size int) (err error) {
	if err := m.Close(); err != nil { // of a checkpoint that failed
		return err
	}
	st := c.State()
	m.Checkpoint, m.Step = c.Dir(), st.Step
	if m.Job, err = config.Parse(c.Dir()+" (its job file)", []byte(st.Config), nil); err != nil {
		return err
	}
	if m.Tokenizer, err = openTokenizer(m.Job); err != nil {
		return err
	}
	if got := m.Tokenizer.Digest(); got != st.TokenizerDigest {
		return fmt.Errorf("%s is not the tokenizer that the model was trained with: %s, want %s", m.Job.Tokenizer.Path, got,
			st.TokenizerDigest)
	}
	if m.dev, err = cpu.New(cpu.Options{}); err != nil {
		return err
	}
	m.q = m.dev.Queue(tensor.Compute)
	m.length = m.Job.Data.SequenceLength
	var master tensor.Buffer
	layout := func(a *tensor.Arena, dev tensor.Device) {
		m.stage = llama.NewStage(a, dev, m.Job.Model.Config(), dtype(m.Job), llama.Size{Sequences: size, Length: m.length}, false)
		m.sum = a.Alloc("workspace", "loss", tensor.F64, 1)
		m.row = a.Alloc("workspace", "logits of one token", tensor.F32, m.Job.Model.Vocab)
		master = m.stage.Params.Weights
		if dt := dtype(m.Job); dt != dt.Accum() {
			master = a.Alloc("workspace", "master weights", dt.Accum(), m.stage.Params.Len)
		}
	}
	plan := tensor.NewPlan()
	layout(plan, nil)
	arena, err := plan.Arena(m.dev)
	if err != nil {
		return err
	}
	layout(arena, m.dev)
	var list []stored
	for _, q := range m.stage.Params.List {
		list = append(list, stored{q.Name, q, 0, q.Len(), q.Of(master)})
	}
	if err := loadTensors(ctx, c, m.dev, m.q, list); err != nil {
		return err
	}
	if master != m.stage.Params.Weights {
		m.dev.Cast(m.q, m.stage.Params.Weights, master)
	}
	return m.q.Sync(ctx)
}

// Evaluate measures the model on sequences drawn from a dataset, 0 for all of them, size at a time.
func (m *Model) Evaluate(ctx context.Context, data string, sequences, size int) (Measure, error) {
	e, err := openSample(m.Job, data, m.Tokenizer.Digest(), sequences, size)
	if err != nil {
		return Measure{}, err
	}
	got, err := e.evaluate(ctx, m.dev, &parallel.Executor{
		Pipeline: parallel.Pipeline{Stages: 1, Virtual: 1}, Stage: m.stage, Queue: m.q,
	}, m.sum)
	if err == nil {
		err = got.conclude()
	}
	return got, errors.Join(err, e.stream.Close())
}

// Close frees the model's memory.
func (m *Model) Close() error {
	if m.dev == nil {
		return nil
	}
	dev := m.dev
	m.dev, m.cache = nil, nil
	return dev.Close()
}
