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

	Unit   int // of Params.Units
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

// Within is the part of the parameter that lies in some elements of the flat arrays, as elements [first, end) of the
// parameter; empty if there is none.
func (p Param) Within(flat Items) (first, end int) {
	first, end = max(flat.Lo-p.offset, 0), min(flat.Hi-p.offset, p.Len())
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

	Units []Unit // ascending; all have a length that can be cut into equal shards

	Weights tensor.Buffer // x [Len], what the passes read; zero Buffer with ZeRO 3
	// Grads is acc [Len], what Backward adds to; zero Buffer for a model that is not trained, and from ZeRO 2 on.
	Grads tensor.Buffer

	begins, ends bool // the model: with the embedding, with the final norm and the head
	layers       []layerParams
	embed        span
	norm, head   span
}

// span is a matrix of the flat arrays. LeafSums have its gradient at offset sum.
type span struct{ offset, rows, cols, sum, unit int }

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

// KV is the elements [lo, hi) of the flat arrays with the K and V weights of a unit, which ranks with the same KV heads
// add up; none if it is no layer.
func (p *Params) KV(unit int) (lo, hi int) {
	for i, q := range p.List {
		if q.Unit == unit && strings.HasSuffix(q.Name, "k_proj.weight") {
			return q.offset, q.offset + q.Len() + p.List[i+1].Len()
		}
	}
	return 0, 0
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

// Norms are the elements of the flat arrays with the norms of a unit, which ranks of a sequence-parallel group add up.
func (p *Params) Norms(unit int) (all []Items) {
	for _, q := range p.List {
		if q.Unit == unit && q.Norm {
			all = append(all, Items{q.offset, q.offset + q.Len()})
		}
	}
	return all
}

// TiedUnit is the unit of the embedding, or of the head, of a stage that holds one of two that are tied; −1 if it does
// not. Their shards are alike.
func (p *Params) TiedUnit(c Config) int {
	switch {
	case !c.Tied || p.begins == p.ends:
		return -1
	case p.begins:
		return p.embed.unit
	}
	return p.head.unit
}

// TiedHead is the elements [lo, hi) of the flat arrays whose gradient is the sum of what LeafSums have at lo and at Len:
// embedding and head; none if they are not tied.
func (p *Params) TiedHead() (lo, hi int) { return p.embed.offset, p.embed.offset + p.SumLen - p.Len }

const alignElems = tensor.Align / 2 // so that every matrix of a bf16 array starts on an aligned address

// NewParams lays out the parameters of the layers of s, in flat arrays, and asks for their weights, of dtype dt, and, when
// they are to be trained, gradients.
func NewParams(a *tensor.Arena, c Config, dt tensor.DType, train bool, s Size) *Params {
	p := &Params{begins: s.Chunks[0].Lo == 0, ends: s.Chunks[len(s.Chunks)-1].Hi == c.Layers}
	d, qd, kd := c.Dim, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	share := s.Share.whole(c)
	heads := func(i Items) Items { return Items{i.Lo * c.HeadDim, i.Hi * c.HeadDim} }
	place := func(q Param) int {
		q.offset, q.Unit = p.Len, len(p.Units)-1
		p.List = append(p.List, q)
		p.Len += q.Len()
		return q.offset
	}
	align := func(to int) { p.Len = (p.Len + to - 1) / to * to }
	// unit begins the next one, or ends the last.
	unit := func(more bool) {
		align(alignElems * s.Sharding.ranks())
		if n := len(p.Units); n > 0 {
			p.Units[n-1].Hi = p.Len
		}
		if more {
			p.Units = append(p.Units, Unit{Items: Items{Lo: p.Len}})
		}
	}
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
		s := span{offset: p.Len, cols: int(parts[0].Extent[1]), sum: p.Len, unit: len(p.Units) - 1}
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
		return span{at, 1, d, at, len(p.Units) - 1}
	}
	// torchtitan's scheme (models/llama3: init_weights): an absolute cut at ±2 in trunc_normal_, the head at ±3σ.
	headStd := 1 / math.Sqrt(float64(d))
	embedding := func(std, cut float64) Param {
		return byRows("model.embed_tokens.weight", std, cut, c.Vocab, share.Vocab)
	}
	if p.begins {
		unit(true)
		std, cut := 1.0, 2.0
		if c.Tied { // a tied weight takes the head's draw
			std, cut = headStd, 3*headStd
		}
		p.embed = add(embedding(std, cut))
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
			unit(true)
			layer(l)
		}
	}
	if p.ends {
		unit(true)
		p.norm = norm("model.norm.weight")
		switch {
		case !c.Tied:
			p.head = add(byRows("lm_head.weight", headStd, 3*headStd, c.Vocab, share.Vocab))
		case p.begins:
			p.head = p.embed
		default: // the copy of the last of several stages
			unit(true)
			q := embedding(headStd, 3*headStd)
			q.Copy = true
			p.head = add(q)
		}
	}
	unit(false)
	if p.SumLen = p.Len; c.Tied && p.begins && p.ends { // the head's gradient is a tree of its own
		p.head.sum = p.Len
		p.SumLen += p.head.rows * p.head.cols
	}

	p.alloc(a, dt, train, s.Sharding)
	return p
}

// alloc asks for the memory of the weights and gradients that s keeps here.
func (p *Params) alloc(a *tensor.Arena, dt tensor.DType, train bool, s Sharding) {
	if s.Stage < 3 {
		p.Weights = a.Alloc("weights", "weights", dt, p.Len)
	}
	if train && s.Stage < 2 {
		p.Grads = a.Alloc("gradients", "gradients", dt.Accum(), p.Len)
	}
	for i := range p.Units {
		u := &p.Units[i]
		n := u.Len() / s.ranks()
		u.Own = Items{u.Lo + n*s.Index, u.Lo + n*(s.Index+1)}
		if s.Stage < 3 {
			u.Weights = p.Weights.Slice(u.Own.Lo, u.Own.Hi)
		} else {
			u.Weights = a.Alloc("weights", fmt.Sprintf("unit %d/weights", i), dt, n)
		}
		switch {
		case !train:
		case s.Stage < 2:
			u.Grads = p.Grads.Slice(u.Own.Lo, u.Own.Hi)
		default:
			u.Grads = a.Alloc("gradients", fmt.Sprintf("unit %d/gradients", i), dt.Accum(), n)
		}
	}
}
