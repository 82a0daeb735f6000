// Package config is the job file: its keys with their defaults and rules (keys.go), strict reading that shows every
// fault at its place, the model presets, where each value came from, and what a resumed run may change. Paths in a job
// are not opened here. docs/job-file.md is the same for users.
package config

import (
	"io"
	"os"
	"strconv"
)

// Version is the newest version of the job file that this build reads.
const Version = 1

// MaxBytes bounds the text of a job file.
const MaxBytes = 1 << 20

// Job is a job file with every value filled in. A Job made by Load or Parse is valid; nobody changes it afterwards.
type Job struct {
	Version     int         `yaml:"version"`
	Job         Info        `yaml:"job"`
	Model       Model       `yaml:"model"`
	Init        Init        `yaml:"init"`
	Tokenizer   Tokenizer   `yaml:"tokenizer"`
	Data        Data        `yaml:"data"`
	Train       Train       `yaml:"train"`
	Optimizer   Optimizer   `yaml:"optimizer"`
	Schedule    Schedule    `yaml:"schedule"`
	Parallel    Parallel    `yaml:"parallel"`
	Numerics    string      `yaml:"numerics"` // fast
	Checkpoint  Checkpoint  `yaml:"checkpoint"`
	Device      string      `yaml:"device"` // auto, cpu
	Coordinator Coordinator `yaml:"coordinator"`
	Telemetry   Telemetry   `yaml:"telemetry"`

	file    string
	origins map[string]origin // by path
}

// Info names the job.
type Info struct {
	Name   string `yaml:"name"`
	Output string `yaml:"output"` // directory
	Seed   uint64 `yaml:"seed"`
}

// Tokenizer is the tokenizer that made the data.
type Tokenizer struct {
	Kind string `yaml:"kind"` // bpe, byte
	Path string `yaml:"path"` // file; "" for kind byte
}

// Data is what the model reads.
type Data struct {
	SequenceLength int         `yaml:"sequence_length"` // tokens
	Train          []Source    `yaml:"train"`           // at least one
	Validation     *Validation `yaml:"validation"`      // nil: none
	DocumentMask   bool        `yaml:"document_mask"`
}

// Source is one shard set of the training mixture.
type Source struct {
	Path   string  `yaml:"path"`   // directory
	Weight float64 `yaml:"weight"` // > 0; the shares are the weights over their sum
}

// Validation is measured between steps.
type Validation struct {
	Path      string `yaml:"path"`      // directory
	Every     int    `yaml:"every"`     // steps
	Sequences int    `yaml:"sequences"` // at most, each time
}

// Train is the length of the job and its batch.
type Train struct {
	Steps       int64  `yaml:"steps"`
	GlobalBatch int    `yaml:"global_batch"` // sequences a step
	MicroBatch  int    `yaml:"micro_batch"`  // sequences at once; divides GlobalBatch
	Precision   string `yaml:"precision"`    // bf16, fp32
}

// Optimizer is AdamW's settings.
type Optimizer struct {
	Kind        string     `yaml:"kind"` // adamw
	LR          float64    `yaml:"lr"`   // peak
	Betas       [2]float64 `yaml:"betas"`
	Eps         float64    `yaml:"eps"`
	WeightDecay float64    `yaml:"weight_decay"`
	ClipNorm    float64    `yaml:"clip_norm"` // 0: off
}

// Schedule is the course of the learning rate.
type Schedule struct {
	Kind        string  `yaml:"kind"` // constant, cosine, linear, wsd
	WarmupSteps int64   `yaml:"warmup_steps"`
	FinalRatio  float64 `yaml:"final_ratio"` // the last step's learning rate over the peak
	DecaySteps  int64   `yaml:"decay_steps"` // the falling end of wsd; 0 for the other kinds
}

// Parallel is the layout of the ranks.
type Parallel struct {
	Data             Degree `yaml:"data"`
	Tensor           int    `yaml:"tensor"`
	Sequence         bool   `yaml:"sequence"`
	Pipeline         int    `yaml:"pipeline"`
	Context          int    `yaml:"context"`
	ContextExchange  string `yaml:"context_exchange"`
	Zero             int    `yaml:"zero"`
	Shard            Degree `yaml:"shard"`
	PipelineSchedule string `yaml:"pipeline_schedule"`
	Virtual          Degree `yaml:"virtual"`
	Recompute        string `yaml:"recompute"`
}

// Init says what a fresh run begins with.
type Init struct {
	From string `yaml:"from"` // a model's directory or a checkpoint, "": random weights
}

// Checkpoint says when to save and what to keep.
type Checkpoint struct {
	Every int64 `yaml:"every"` // steps; 0: only at the end
	Keep  int   `yaml:"keep"`  // the newest; the last two verified ones stay in any case

	KeepEvery int64 `yaml:"keep_every"` // and those of steps that are multiples of it
	KeepBest  int   `yaml:"keep_best"`  // and those of the lowest validation loss

	Mirror string `yaml:"mirror"` // where checkpoints are copied: a directory, or s3://BUCKET/PREFIX; "": nowhere
}

// Coordinator says where ranks meet.
type Coordinator struct {
	Mode string `yaml:"mode"` // embedded
}

// Telemetry is what a run writes besides its step line.
type Telemetry struct {
	TensorBoard bool   `yaml:"tensorboard"`
	JSONL       bool   `yaml:"jsonl"`
	Prometheus  string `yaml:"prometheus"` // host:port to listen on; "": off
}

// Degree is a number of the layout; 0, written auto, is for Herd to choose.
type Degree int

func (d Degree) String() string {
	if d == 0 {
		return "auto"
	}
	return strconv.Itoa(int(d))
}

// Load reads the job file at path ("-": standard input) and lays sets over it, each a `--set` text as a.b=value, the
// value in YAML. Every fault is in one *Errors.
func Load(path string, sets []string) (*Job, error) {
	name, in := path, os.Stdin
	if path == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, unreadable(path, err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, MaxBytes+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	return Parse(name, text, sets)
}

func unreadable(name string, err error) error {
	return newErrors([]*Error{{File: name, What: "cannot read the job file", Err: err}}, 0)
}

// Parse is Load of a text; name stands for it in errors.
func Parse(name string, text []byte, sets []string) (*Job, error) {
	l := newLoader(name)
	if root := l.document(text); root != nil {
		for _, set := range sets {
			l.overlay(root, set)
		}
		l.read(root)
	}
	if len(l.errs) > 0 {
		return nil, newErrors(l.errs, l.more)
	}
	return l.job, nil
}
