package config

import "github.com/herdtrain/herd/trainer/llama"

// Model is a model's shape: a preset, with any of its fields overridden, or every field. After Load all are filled in.
type Model struct {
	Preset        string       `yaml:"preset"` // "": none
	Dim           int          `yaml:"dim"`
	Layers        int          `yaml:"layers"`
	Heads         int          `yaml:"heads"`
	KVHeads       int          `yaml:"kv_heads"`
	HeadDim       int          `yaml:"head_dim"`
	FFN           int          `yaml:"ffn"`
	Vocab         int          `yaml:"vocab"`
	MaxLength     int          `yaml:"max_length"` // tokens
	RopeTheta     float64      `yaml:"rope_theta"`
	RopeScaling   *RopeScaling `yaml:"rope_scaling"` // nil: none
	NormEps       float64      `yaml:"norm_eps"`
	Tied          bool         `yaml:"tied"`
	SlidingWindow int          `yaml:"sliding_window"` // tokens; 0: none
}

// RopeScaling is llama.RopeScaling under its names in a job file.
type RopeScaling struct {
	Factor         float64 `yaml:"factor"`
	LowFreqFactor  float64 `yaml:"low_freq_factor"`
	HighFreqFactor float64 `yaml:"high_freq_factor"`
	OriginalLength int     `yaml:"original_length"`
}

// Config is m as the model's own configuration.
func (m Model) Config() llama.Config {
	c := llama.Config{
		Dim: m.Dim, Layers: m.Layers, Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, FFN: m.FFN, Vocab: m.Vocab,
		MaxLength: m.MaxLength, RopeTheta: m.RopeTheta, NormEps: m.NormEps, Tied: m.Tied, Window: m.SlidingWindow,
	}
	if m.RopeScaling != nil {
		s := llama.RopeScaling(*m.RopeScaling)
		c.RopeScaling = &s
	}
	return c
}

// ModelOf is c as a section of a job file, without a preset.
func ModelOf(c llama.Config) Model {
	m := Model{
		Dim: c.Dim, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, FFN: c.FFN, Vocab: c.Vocab,
		MaxLength: c.MaxLength, RopeTheta: c.RopeTheta, NormEps: c.NormEps, Tied: c.Tied, SlidingWindow: c.Window,
	}
	if c.RopeScaling != nil {
		s := RopeScaling(*c.RopeScaling)
		m.RopeScaling = &s
	}
	return m
}

// Presets are the names of the presets, the small ones first.
func Presets() []string {
	names := make([]string, len(presets))
	for i, m := range presets {
		names[i] = m.Preset
	}
	return names
}

// presets hold the published shapes: of Llama 2 and 3 as in Meta's llama-models and the Hugging Face configurations
// (the scaling factor of 3.2 is the latter's), of Mistral 7B v0.1 as published by Mistral.
var presets = []Model{
	small("llama3-debug", 128, 4, 4, 2, 384, 1024, 2048),
	small("llama3-26m", 512, 6, 8, 2, 1536, 8192, 2048),
	small("llama3-124m", 768, 12, 12, 4, 2048, 32000, 4096),
	llama32("llama3.2-1b", 2048, 16, 32, 64),
	llama32("llama3.2-3b", 3072, 28, 24, 128),
	llama2("llama2-7b", 4096, 32, 32, 32, 11008),
	llama2("llama2-13b", 5120, 40, 40, 40, 13824),
	llama2("llama2-70b", 8192, 80, 64, 8, 28672),
	mistral7b,
	llama3("llama3-8b", 4096, 32, 32, 14336),
	llama3("llama3-70b", 8192, 80, 64, 28672),
	llama31("llama3.1-8b", 4096, 32, 32, 14336),
	llama31("llama3.1-70b", 8192, 80, 64, 28672),
	llama31("llama3.1-405b", 16384, 126, 128, 53248),
}

var mistral7b = Model{
	Preset: "mistral-7b", Dim: 4096, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128, FFN: 14336, Vocab: 32000,
	MaxLength: 32768, RopeTheta: 10000, NormEps: 1e-5, SlidingWindow: 4096,
}

// small is a model of this project: Llama 3's architecture at a size for one machine.
func small(name string, dim, layers, heads, kvHeads, ffn, vocab, maxLength int) Model {
	return Model{
		Preset: name, Dim: dim, Layers: layers, Heads: heads, KVHeads: kvHeads, HeadDim: dim / heads, FFN: ffn, Vocab: vocab,
		MaxLength: maxLength, RopeTheta: 500000, NormEps: 1e-5,
	}
}

func llama2(name string, dim, layers, heads, kvHeads, ffn int) Model {
	return Model{
		Preset: name, Dim: dim, Layers: layers, Heads: heads, KVHeads: kvHeads, HeadDim: 128, FFN: ffn, Vocab: 32000,
		MaxLength: 4096, RopeTheta: 10000, NormEps: 1e-5,
	}
}

func llama3(name string, dim, layers, heads, ffn int) Model {
	return Model{
		Preset: name, Dim: dim, Layers: layers, Heads: heads, KVHeads: 8, HeadDim: 128, FFN: ffn, Vocab: 128256,
		MaxLength: 8192, RopeTheta: 500000, NormEps: 1e-5,
	}
}

func llama31(name string, dim, layers, heads, ffn int) Model {
	m := llama3(name, dim, layers, heads, ffn)
	m.MaxLength = 131072
	m.RopeScaling = &RopeScaling{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalLength: 8192}
	return m
}

func llama32(name string, dim, layers, heads, headDim int) Model {
	m := llama31(name, dim, layers, heads, 8192)
	m.HeadDim = headDim
	m.RopeScaling.Factor = 32
	m.Tied = true
	return m
}
