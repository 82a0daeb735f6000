// Package llama is the model: the shapes of the Llama family, its parameters and their initialisation, and the forward
// and backward passes written by hand over tensor.Device. There is no autograd.
package llama

import "fmt"

// Config is the shape of a model. Presets are in trainer/config.
type Config struct {
	Dim     int // width of the residual stream
	Layers  int
	Heads   int // query heads
	KVHeads int // key and value heads; Heads is a multiple
	HeadDim int // usually Dim/Heads
	FFN     int // width of the SwiGLU
	Vocab   int // rows of the embedding, special tokens included

	MaxLength   int // longest sequence, in tokens
	RopeTheta   float64
	RopeScaling *RopeScaling // nil: none
	NormEps     float64
	Tied        bool // the output head is the embedding
	Window      int  // sliding attention window in tokens; 0: none
}

// RopeScaling is the "llama3" stretching of RoPE's long wavelengths (llama-models, apply_scaling).
type RopeScaling struct {
	Factor         float64
	LowFreqFactor  float64
	HighFreqFactor float64
	OriginalLength int // the context length before stretching
}

// Validate reports the first thing that makes c no model.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		v    int
	}{{"dim", c.Dim}, {"layers", c.Layers}, {"heads", c.Heads}, {"kv_heads", c.KVHeads}, {"head_dim", c.HeadDim},
		{"ffn", c.FFN}, {"vocab", c.Vocab}, {"max_length", c.MaxLength}} {
		if f.v <= 0 {
			return fmt.Errorf("%s is %d, want a positive number", f.name, f.v)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("heads is %d, want a multiple of kv_heads (%d)", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim is %d, want an even number (RoPE rotates pairs)", c.HeadDim)
	case c.Window < 0:
		return fmt.Errorf("sliding_window is %d, want 0 (none) or a positive number", c.Window)
	case !(c.RopeTheta > 0):
		return fmt.Errorf("rope_theta is %v, want a positive number", c.RopeTheta)
	case !(c.NormEps > 0):
		return fmt.Errorf("norm_eps is %v, want a positive number", c.NormEps)
	}
	return nil
}

// Parameters is the exact number of trainable parameters:
// Layers·(2·Dim·(Heads+KVHeads)·HeadDim + 3·Dim·FFN + 2·Dim) + Dim + Vocab·Dim·(2, or 1 if Tied).
func (c Config) Parameters() int64 {
	d, hd := int64(c.Dim), int64(c.HeadDim)
	layer := 2*d*int64(c.Heads)*hd + 2*d*int64(c.KVHeads)*hd + 3*d*int64(c.FFN) + 2*d
	n := int64(c.Layers)*layer + d + int64(c.Vocab)*d
	if !c.Tied {
		n += int64(c.Vocab) * d
	}
	return n
}

// FLOPs is the floating-point operations to train on one token of a sequence of length tokens, without recomputation:
// 6·N + 12·Layers·Heads·HeadDim·T (PaLM, appendix B; attention counted in full) and with the causal half of it, as
// Megatron counts. N leaves the input embedding out and keeps the head. Under a sliding window T is at most the window.
func (c Config) FLOPs(length int) (full, causal float64) {
	n := c.Parameters()
	if !c.Tied {
		n -= int64(c.Vocab) * int64(c.Dim)
	}
	t := length
	if c.Window > 0 {
		t = min(t, c.Window)
	}
	attention := 12 * float64(c.Layers) * float64(c.Heads) * float64(c.HeadDim) * float64(t)
	return 6*float64(n) + attention, 6*float64(n) + attention/2
}
