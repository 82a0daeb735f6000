package llama

import (
	"fmt"
	"math"
	"strings"

	"github.com/herdtrain/herd/tensor"
)

// Param is one logical tensor of the model, row-major, under its Hugging Face name. Q and K rows are in Hugging Face's
// order (RoPE pairs j and j + HeadDim/2).
type Param struct {
	Name  string
	Shape []int64 // [out, in], or [dim] for a norm
	// Offset and Extent are the part of it that is here, in each dimension.
	Offset, Extent []int64
	// Copy says that a rank before this one, tensor-parallel or of the pipeline's first stage, holds the same part. Both
	// compute the same values.
	Copy bool
	Norm bool // initialised to 1, and not decayed

	// Initialisation: normal with this standard deviation, cut at ±Cut.
	Std, Cut float64

	offset int // elements into the flat arrays
}

// Len is the number of elements that are here.
func (p Param) Len() int {
	n := 1
	for _, s := range p.Extent {
		n *= int(s)
	}
	return n
}

// Of is the parameter's part of a flat array (weights, gradients, master weights, moments).
func (p Param) Of(flat tensor.Buffer) tensor.Buffer { return flat.Slice(p.offset, p.offset+p.Len()) }

// Within is the part of the parameter that lies in elements [lo, hi) of the flat arrays, as elements [first, end) of the
// parameter; empty if there is none.
func (p Param) Within(lo, hi int) (first, end int) {
	first, end = max(lo-p.offset, 0), min(hi-p.offset, p.Len())
	return first, max(first, end)
}

// Index is where element i of the parameter is in the flat arrays.
func (p Param) Index(i int) int { return p.offset + i }

// Part is the elements [first, end) of the parameter in a flat array that begins at element lo of the whole one.
func (p Param) Part(flat tensor.Buffer, lo, first, end int) tensor.Buffer {
	return flat.Slice(p.offset+first-lo, p.offset+end-lo)
}

// Params is a model's parameters, laid out one after another in flat arrays. Matrices that one product reads together
// are neighbours: Q, K, V, and gate, up.
type Params struct {
	List []Param
	Len  int // elements of a flat array: a little more than the parameters, for alignment and equal shards
	// SumLen is the elements of the flat array of LeafSums: as Len, and behind it the head of a model whose embedding is
	// tied to it, whose gradients are summed apart.
	SumLen int

	Weights tensor.Buffer // x [Len], what the passes read
	Grads   tensor.Buffer // acc [Len], what Backward adds to; zero Buffer for a model that is not trained

	begins, ends bool // the model: with the embedding, with the final norm and the head
	layers       []layerParams
	embed        span
	norm, head   span
}

// span is a matrix of the flat arrays. LeafSums have its gradient at offset sum.
type span struct{ offset, rows, cols, sum int }

func (s span) of(flat tensor.Buffer) tensor.Buffer {
	return flat.Slice(s.offset, s.offset+s.rows*s.cols)
}

type layerParams struct{ norm1, qkv, o, norm2, gateUp, down span }

// largest is the length of the longest matrix that one product reads.
func (p *Params) largest() int {
	n := max(p.embed.rows*p.embed.cols, p.head.rows*p.head.cols)
	for _, l := range p.layers {
		for _, s := range []span{l.qkv, l.o, l.gateUp, l.down} {
			n = max(n, s.rows*s.cols)
		}
	}
	return n
}

// KVGrads are the gradients of the K and V weights of each layer, acc, which ranks with the same KV heads add up.
func (p *Params) KVGrads() []tensor.Buffer {
	var all []tensor.Buffer
	for i, q := range p.List {
		if strings.HasSuffix(q.Name, "k_proj.weight") {
			all = append(all, p.Grads.Slice(q.offset, q.offset+q.Len()+p.List[i+1].Len()))
		}
	}
	return all
}

// Sums is where in the flat array of LeafSums gradients begin, and their lengths.
func (p *Params) Sums() map[int]int {
	all := map[int]int{}
	add := func(spans ...span) {
		for _, s := range spans {
			all[s.sum] = s.rows * s.cols
		}
	}
	if p.begins {
		add(p.embed)
	}
	if p.ends {
		add(p.norm, p.head)
	}
	for _, l := range p.layers {
		add(l.norm1, l.qkv, l.o, l.norm2, l.gateUp, l.down)
	}
	return all
}

// TiedGrads is the gradient of the embedding or the head of a stage that holds one of two that are tied, acc; false if it
// does not.
func (p *Params) TiedGrads(c Config) (tensor.Buffer, bool) {
	switch {
	case !c.Tied || p.begins == p.ends:
		return tensor.Buffer{}, false
	case p.begins:
		return p.embed.of(p.Grads), true
	}
	return p.head.of(p.Grads), true
}

// TiedHead is the elements [lo, hi) of the flat arrays whose gradient is the sum of what LeafSums have at lo and at Len:
// embedding and head; none if they are not tied.
func (p *Params) TiedHead() (lo, hi int) { return p.embed.offset, p.embed.offset + p.SumLen - p.Len }

const alignElems = tensor.Align / 2 // so that every matrix of a bf16 array starts on an aligned address

// NewParams lays out the parameters of the layers of s, in flat arrays that can be cut into its number of equal shards,
// and asks for their weights, of dtype dt, and, when they are to be trained, gradients.
func NewParams(a *tensor.Arena, c Config, dt tensor.DType, train bool, s Size) *Params {
	p := &Params{begins: s.Chunks[0].Lo == 0, ends: s.Chunks[len(s.Chunks)-1].Hi == c.Layers}
	d, qd, kd := c.Dim, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	share := s.Share.whole(c)
	heads := func(i Items) Items { return Items{i.Lo * c.HeadDim, i.Hi * c.HeadDim} }
	place := func(q Param) int {
		q.offset = p.Len
		p.List = append(p.List, q)
		p.Len += q.Len()
		return q.offset
	}
	align := func(to int) { p.Len = (p.Len + to - 1) / to * to }
	// part is some rows and columns of a matrix.
	part := func(name string, std, cut float64, rows, cols int, r, c Items) Param {
		return Param{
			Name: name, Shape: []int64{int64(rows), int64(cols)}, Std: std, Cut: cut,
			Offset: []int64{int64(r.Lo), int64(c.Lo)}, Extent: []int64{int64(r.len()), int64(c.len())},
		}
	}
	// byRows and byColumns are the rank's rows, or columns, of a matrix.
	byRows := func(name string, std, cut float64, rows int, r Items) Param {
		return part(name, std, cut, rows, d, r, Items{0, d})
	}
	byColumns := func(name string, std, cut float64, cols int, c Items) Param {
		return part(name, std, cut, d, cols, Items{0, d}, c)
	}
	byKV := func(name string, std float64) Param {
		q := byRows(name, std, 2, kd, heads(share.KV))
		q.Copy = !share.FirstKV
		return q
	}
	// add places matrices of equal width one under another.
	add := func(parts ...Param) span {
		align(alignElems)
		s := span{offset: p.Len, cols: int(parts[0].Extent[1]), sum: p.Len}
		for _, q := range parts {
			place(q)
			s.rows += int(q.Extent[0])
		}
		return s
	}
	norm := func(name string) span {
		align(alignElems)
		shape := []int64{int64(d)}
		at := place(Param{Name: name, Shape: shape, Offset: []int64{0}, Extent: shape, Copy: !share.First, Norm: true})
		return span{at, 1, d, at}
	}
	// torchtitan's scheme (models/llama3: init_weights): an absolute cut at ±2 in trunc_normal_, the head at ±3σ.
	headStd := 1 / math.Sqrt(float64(d))
	embedding := func(std, cut float64) Param {
		return byRows("model.embed_tokens.weight", std, cut, c.Vocab, share.Vocab)
	}
	switch {
	case !p.begins:
	case c.Tied: // a tied weight takes the head's draw
		p.embed = add(embedding(headStd, 3*headStd))
	default:
		p.embed = add(embedding(1, 2))
	}
	layer := func(l int) {
		name := func(s string) string { return fmt.Sprintf("model.layers.%d.%s.weight", l, s) }
		std, deep := 0.02, 0.02/math.Sqrt(2*float64(l+1))
		var q layerParams
		q.norm1 = norm(name("input_layernorm"))
		q.qkv = add(
			byRows(name("self_attn.q_proj"), std, 2, qd, heads(share.Query)),
			byKV(name("self_attn.k_proj"), std),
			byKV(name("self_attn.v_proj"), std))
		q.o = add(byColumns(name("self_attn.o_proj"), deep, 2, qd, heads(share.Query)))
		q.norm2 = norm(name("post_attention_layernorm"))
		q.gateUp = add(
			byRows(name("mlp.gate_proj"), std, 2, c.FFN, share.FFN),
			byRows(name("mlp.up_proj"), deep, 2, c.FFN, share.FFN))
		q.down = add(byColumns(name("mlp.down_proj"), deep, 2, c.FFN, share.FFN))
		p.layers = append(p.layers, q)
	}
	for _, k := range s.Chunks {
		for l := k.Lo; l < k.Hi; l++ {
			layer(l)
		}
	}
	if p.ends {
		p.norm = norm("model.norm.weight")
		switch {
		case !c.Tied:
			p.head = add(byRows("lm_head.weight", headStd, 3*headStd, c.Vocab, share.Vocab))
		case p.begins:
			p.head = p.embed
		default: // the copy of the last of several stages
			q := embedding(headStd, 3*headStd)
			q.Copy = true
			p.head = add(q)
		}
	}
	align(alignElems * max(s.Shards, 1))
	if p.SumLen = p.Len; c.Tied && p.begins && p.ends { // the head's gradient is a tree of its own
		p.head.sum = p.Len
		p.SumLen += p.head.rows * p.head.cols
	}

	p.Weights = a.Alloc("weights", "weights", dt, p.Len)
	if train {
		p.Grads = a.Alloc("gradients", "gradients", dt.Accum(), p.Len)
	}
	return p
}
