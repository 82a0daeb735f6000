package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"strings"
)

// hubConfig is a Hugging Face config.json: what is read of it, and what is written.
type hubConfig struct {
	Architectures []string        `json:"architectures"`
	ModelType     string          `json:"model_type"`
	Dim           int             `json:"hidden_size"`
	Layers        int             `json:"num_hidden_layers"`
	Heads         int             `json:"num_attention_heads"`
	KVHeads       int             `json:"num_key_value_heads"`
	HeadDim       int             `json:"head_dim"`
	FFN           int             `json:"intermediate_size"`
	Vocab         int             `json:"vocab_size"`
	MaxLength     int             `json:"max_position_embeddings"`
	NormEps       float64         `json:"rms_norm_eps"`
	RopeTheta     float64         `json:"rope_theta"`
	RopeScaling   *hubRope        `json:"rope_scaling"`
	Tied          bool            `json:"tie_word_embeddings"`
	Window        *int            `json:"sliding_window,omitempty"`
	Activation    string          `json:"hidden_act"`
	AttentionBias bool            `json:"attention_bias"`
	FFNBias       bool            `json:"mlp_bias"`
	BOS           json.RawMessage `json:"bos_token_id,omitempty"`
	EOS           json.RawMessage `json:"eos_token_id,omitempty"`
	DType         string          `json:"torch_dtype,omitempty"`
}

// hubRope is rope_scaling, and rope_parameters, which transformers 5 writes in place of it and of rope_theta.
type hubRope struct {
	Type     string  `json:"rope_type,omitempty"`
	OldType  string  `json:"type,omitempty"`
	Theta    float64 `json:"rope_theta,omitempty"`
	Factor   float64 `json:"factor"`
	Low      float64 `json:"low_freq_factor"`
	High     float64 `json:"high_freq_factor"`
	Original int     `json:"original_max_position_embeddings"`
}

// ParseHubConfig reads a config.json of Llama 2, 3, 3.1 and 3.2, or of Mistral 7B, as transformers 4 or 5 writes it. What
// this package cannot compute is an error that names key and value.
func ParseHubConfig(text []byte) (Config, error) {
	var h hubConfig
	var more struct {
		Rope         *hubRope        `json:"rope_parameters"`
		Quantization json.RawMessage `json:"quantization_config"`
	}
	if err := errors.Join(json.Unmarshal(text, &h), json.Unmarshal(text, &more)); err != nil {
		return Config{}, err
	}
	for _, key := range []struct {
		name  string
		wrong bool
		found any
		want  string
	}{
		{"model_type", h.ModelType != "llama" && h.ModelType != "mistral", h.ModelType, `"llama" or "mistral"`},
		{"hidden_act", h.Activation != "silu" && h.Activation != "", h.Activation, `"silu"`},
		{"attention_bias", h.AttentionBias, true, "false"},
		{"mlp_bias", h.FFNBias, true, "false"},
		{"quantization_config", len(more.Quantization) > 0 && string(more.Quantization) != "null",
			string(more.Quantization), "weights in bf16, fp16 or fp32, without it"},
	} {
		if key.wrong {
			return Config{}, fmt.Errorf("%s is %.80q, want %s", key.name, fmt.Sprint(key.found), key.want)
		}
	}
	c := Config{
		Dim: h.Dim, Layers: h.Layers, Heads: h.Heads, KVHeads: h.KVHeads, HeadDim: h.HeadDim, FFN: h.FFN, Vocab: h.Vocab,
		MaxLength: h.MaxLength, RopeTheta: h.RopeTheta, NormEps: h.NormEps, Tied: h.Tied,
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	if c.NormEps == 0 {
		c.NormEps = 1e-6 // transformers' default
	}
	if h.Window != nil && h.ModelType == "mistral" {
		c.Window = *h.Window
	}
	rope := h.RopeScaling
	if more.Rope != nil {
		rope = more.Rope
	}
	if rope != nil && rope.Theta != 0 {
		c.RopeTheta = rope.Theta
	}
	if c.RopeTheta == 0 {
		c.RopeTheta = 10000 // transformers' default
	}
	if rope != nil {
		switch kind := rope.Type + rope.OldType; {
		case strings.HasPrefix(kind, "llama3"):
			c.RopeScaling = &RopeScaling{rope.Factor, rope.Low, rope.High, rope.Original}
		case !strings.HasPrefix(kind, "default") && kind != "":
			return Config{}, fmt.Errorf("the rope type is %.80q, want %q or %q", kind, "llama3", "default")
		}
	}
	return c, c.Validate()
}

// Tokens are the ids that begin and end a text, −1 if there is none.
type Tokens struct{ BOS, EOS int32 }

func (t Tokens) raw() (bos, eos json.RawMessage) {
	id := func(n int32) json.RawMessage {
		if n < 0 {
			return json.RawMessage("null")
		}
		return json.RawMessage(fmt.Sprint(n))
	}
	return id(t.BOS), id(t.EOS)
}

// HubConfig is the model's config.json, which transformers 4 and 5 read; dtype is of the weights beside it: F32, BF16, F16.
func (c Config) HubConfig(dtype string, t Tokens) []byte {
	h := hubConfig{
		Architectures: []string{"LlamaForCausalLM"}, ModelType: "llama", Dim: c.Dim, Layers: c.Layers, Heads: c.Heads,
		KVHeads: c.KVHeads, HeadDim: c.HeadDim, FFN: c.FFN, Vocab: c.Vocab, MaxLength: c.MaxLength, NormEps: c.NormEps,
		RopeTheta: c.RopeTheta, Tied: c.Tied, Activation: "silu",
		DType: map[string]string{"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[dtype],
	}
	h.BOS, h.EOS = t.raw()
	if c.Window > 0 {
		h.Architectures, h.ModelType, h.Window = []string{"MistralForCausalLM"}, "mistral", &c.Window
	}
	if s := c.RopeScaling; s != nil {
		h.RopeScaling = &hubRope{Type: "llama3", Factor: s.Factor, Low: s.LowFreqFactor, High: s.HighFreqFactor,
			Original: s.OriginalLength}
	}
	return indented(h)
}

// GenerationConfig is a generation_config.json.
func (t Tokens) GenerationConfig() []byte {
	bos, eos := t.raw()
	return indented(struct {
		BOS json.RawMessage `json:"bos_token_id"`
		EOS json.RawMessage `json:"eos_token_id"`
	}{bos, eos})
}

func indented(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // plain values
	}
	return append(b, '\n')
}

// metaParams is a params.json of Meta's llama-models (ModelArgs).
type metaParams struct {
	Dim        int      `json:"dim"`
	Layers     int      `json:"n_layers"`
	Heads      int      `json:"n_heads"`
	KVHeads    *int     `json:"n_kv_heads"`
	HeadDim    int      `json:"head_dim,omitempty"`
	Vocab      int      `json:"vocab_size"`
	Multiplier *float64 `json:"ffn_dim_multiplier,omitempty"`
	MultipleOf int      `json:"multiple_of"`
	NormEps    float64  `json:"norm_eps"`
	RopeTheta  float64  `json:"rope_theta"`
	Scaled     bool     `json:"use_scaled_rope"`
	Factor     float64  `json:"rope_scaling_factor,omitempty"`
	High       float64  `json:"high_freq_factor,omitempty"`
}

// ParseMetaParams reads a params.json. Tied and a length that it does not say are set by the caller.
func ParseMetaParams(text []byte) (Config, error) {
	p := metaParams{MultipleOf: 256, NormEps: 1e-5, RopeTheta: 10000}
	if err := json.Unmarshal(text, &p); err != nil {
		return Config{}, err
	}
	if p.MultipleOf < 1 || p.Heads < 1 || p.Dim < 1 || p.Dim > 1<<24 {
		return Config{}, fmt.Errorf("dim %d, n_heads %d, multiple_of %d: want positive numbers", p.Dim, p.Heads, p.MultipleOf)
	}
	c := Config{
		Dim: p.Dim, Layers: p.Layers, Heads: p.Heads, KVHeads: p.Heads, HeadDim: p.HeadDim, Vocab: p.Vocab,
		RopeTheta: p.RopeTheta, NormEps: p.NormEps, MaxLength: 4096,
	}
	if p.KVHeads != nil {
		c.KVHeads = *p.KVHeads
	}
	if c.HeadDim == 0 {
		c.HeadDim = p.Dim / p.Heads
	}
	if p.RopeTheta >= 500000 {
		c.MaxLength = 8192 // Llama 3
	}
	if p.Scaled {
		// Without a factor it is Meta's constant, 8, but for the two small models of Llama 3.2: 32.
		s := RopeScaling{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalLength: 8192}
		if p.Dim == 2048 || p.Dim == 3072 {
			s.Factor = 32
		}
		if p.Factor > 0 {
			s.Factor = p.Factor
		}
		if p.High > 0 {
			s.HighFreqFactor = p.High
		}
		c.RopeScaling, c.MaxLength = &s, 131072
	}
	hidden := 2 * (4 * p.Dim) / 3
	if p.Multiplier != nil {
		hidden = int(*p.Multiplier * float64(hidden))
	}
	c.FFN = (hidden + p.MultipleOf - 1) / p.MultipleOf * p.MultipleOf
	return c, c.Validate()
}

// MetaParams is the model's params.json; ParseMetaParams makes the same shape of it. Not every model has one: Meta's code
// knows no sliding window and one kind of rope scaling.
func (c Config) MetaParams() ([]byte, error) {
	p := metaParams{
		Dim: c.Dim, Layers: c.Layers, Heads: c.Heads, KVHeads: &c.KVHeads, Vocab: c.Vocab, NormEps: c.NormEps,
		RopeTheta: c.RopeTheta, MultipleOf: 1 << bits.TrailingZeros(uint(c.FFN)),
	}
	if c.HeadDim != c.Dim/c.Heads {
		p.HeadDim = c.HeadDim
	}
	// The multiplier that, rounded up to MultipleOf, gives FFN: that of the middle of what is rounded to it.
	multiplier := (float64(c.FFN-(p.MultipleOf-1)/2) + 0.5) / float64(2*(4*c.Dim)/3)
	p.Multiplier = &multiplier
	if s := c.RopeScaling; s != nil {
		p.Scaled, p.Factor, p.High = true, s.Factor, s.HighFreqFactor
	}
	text := indented(p)
	back, err := ParseMetaParams(text)
	back.Tied, back.MaxLength = c.Tied, c.MaxLength
	if err == nil && !reflect.DeepEqual(back, c) {
		err = fmt.Errorf("a params.json has no sliding window, and only llama3 rope scaling from 8192 tokens on: it cannot say %+v", c)
	}
	return text, err
}
