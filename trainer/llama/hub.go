package llama

import (
	"fmt"
	"strings"

	"github.com/herdtrain/herd/tensor"
)

// Format is a way to name a model's tensors.
type Format string

const (
	HuggingFace Format = "hf"   // as LlamaForCausalLM and MistralForCausalLM: the names of Param
	Meta        Format = "meta" // as Meta's consolidated files
)

// Stem is how the names of a format's safetensors files begin.
func (f Format) Stem() string {
	if f == Meta {
		return "consolidated"
	}
	return "model"
}

// Foreign is a parameter and its name in a format.
type Foreign struct {
	Param
	Foreign string
	// HeadDim, if not 0, says that rows are in another order there: row h·HeadDim + 2j + r of the format is row
	// h·HeadDim + r·HeadDim/2 + j of the parameter (r of 0 and 1). Meta rotates neighbours, Hugging Face and this package
	// rotate halves of a head.
	HeadDim int
}

// Row is the row of the parameter that row i of the format is.
func (f Foreign) Row(i int64) int64 {
	if f.HeadDim == 0 {
		return i
	}
	hd := int64(f.HeadDim)
	h, at := i/hd, i%hd
	return h*hd + at%2*hd/2 + at/2
}

// ForeignRow is the inverse of Row.
func (f Foreign) ForeignRow(i int64) int64 {
	if f.HeadDim == 0 {
		return i
	}
	hd := int64(f.HeadDim)
	h, at := i/hd, i%hd
	return h*hd + at%(hd/2)*2 + at/(hd/2)
}

// parameters are all parameters of the model, whole, without memory.
func (c Config) parameters() []Param {
	return NewParams(tensor.NewPlan(), c, tensor.F32, false, Size{Chunks: []Chunk{{Hi: c.Layers}}}).List
}

// In is the model's parameters and their names in a format, in the order of the model.
func (c Config) In(f Format) []Foreign {
	var list []Foreign
	for _, p := range c.parameters() {
		q := Foreign{Param: p, Foreign: p.Name}
		if f == Meta {
			q.Foreign = metaName(p.Name)
			if strings.HasSuffix(p.Name, "q_proj.weight") || strings.HasSuffix(p.Name, "k_proj.weight") {
				q.HeadDim = c.HeadDim
			}
		}
		list = append(list, q)
	}
	return list
}

// Head is the name of a tied model's second copy of the embedding, which some files hold.
func (f Format) Head() string {
	if f == Meta {
		return metaName(headName)
	}
	return headName
}

// Ignored says whether a tensor of a format holds nothing that is learnt: tables of RoPE in old files.
func (f Format) Ignored(name string) bool {
	return strings.HasSuffix(name, "rotary_emb.inv_freq") || name == "rope.freqs"
}

const headName = "lm_head.weight"

// metaName translates a Hugging Face name (transformers, convert_llama_weights_to_hf.py).
func metaName(name string) string {
	switch name {
	case "model.embed_tokens.weight":
		return "tok_embeddings.weight"
	case "model.norm.weight":
		return "norm.weight"
	case headName:
		return "output.weight"
	}
	var layer int
	var rest string
	if n, _ := fmt.Sscanf(name, "model.layers.%d.%s", &layer, &rest); n != 2 {
		panic("llama: no parameter has the name " + name)
	}
	return fmt.Sprintf("layers.%d.%s", layer, strings.NewReplacer(
		"self_attn.q_proj", "attention.wq", "self_attn.k_proj", "attention.wk",
		"self_attn.v_proj", "attention.wv", "self_attn.o_proj", "attention.wo",
		"mlp.gate_proj", "feed_forward.w1", "mlp.up_proj", "feed_forward.w3", "mlp.down_proj", "feed_forward.w2",
		"input_layernorm", "attention_norm", "post_attention_layernorm", "ffn_norm",
	).Replace(rest))
}
