package llama

import (
	"fmt"

	"github.com/herdtrain/herd/tensor"
)

// Stage is a model with its memory for one micro-batch at a time: what Forward saves, and what Backward needs. Here it
// holds all layers; n below is the tokens of the micro-batch, x the dtype of the weights.
type Stage struct {
	Config Config
	Params *Params

	dev           tensor.Device
	q             tensor.Queue
	batch, length int // of the micro-batch in hand
	shape         tensor.AttentionShape
	cache         *Cache // of its input

	// The micro-batch's input, I32 [n].
	ids, targets, first, pos tensor.Buffer
	table                    tensor.Buffer // acc [length, HeadDim/2, 2]

	acts []activations // one per layer; one for all of them when the stage only evaluates
	last residual      // the final norm
	loss tensor.Buffer // acc [n]
	work workspace
	dres tensor.Mat // x [n, Dim], the gradient of the residual; none when the stage only evaluates

	leaves   LeafSums // of canonical numerics; nil: fast
	leaf     tensor.Buffer
	sequence int // of the whole batch, the first of the micro-batch in hand
}

// residual is a norm's input, x [n, Dim], and 1/rms, acc [n].
type residual struct {
	x    tensor.Mat
	rstd tensor.Buffer
}

// workspace is what lives for an operation or two. Gradients take the place of what has been used.
type workspace struct {
	// y is x [n, Dim], the output of the norm in hand, and then its gradient. Forward does not save it for Backward: to
	// compute it again costs less than its memory.
	y tensor.Mat
	// out is the output of o-proj and down-proj before it joins the residual, x [n, Dim], or the gradient of the output
	// of attention, x [n, Heads·HeadDim].
	out tensor.Buffer
	// wide is the SwiGLU's output, which Backward computes again, and then its gradient, x [n, FFN]; or the gradient of
	// Q, K and V; or the logits of a chunk of tokens, x [chunk, Vocab].
	wide tensor.Buffer
}

// activations are what a layer saves.
type activations struct {
	in, mid residual      // before attention, before the FFN
	qkv     tensor.Mat    // x [n, (Heads+2·KVHeads)·HeadDim], rotated
	o       tensor.Mat    // x [n, Heads·HeadDim]
	lse     tensor.Buffer // acc [batch, Heads, length]
	gateUp  tensor.Mat    // x [n, 2·FFN]; Backward sets their gradient in their place
}

// logitsChunk bounds the logits held at a time, in tokens.
const logitsChunk = 256

// Size is what a Stage's memory is made for.
type Size struct {
	Sequences, Length int      // of the largest micro-batch
	Shards            int      // into which the parameters' flat arrays can be cut equally; 0 is as 1
	Leaves            LeafSums // if not nil, takes the sums over tokens: canonical numerics
}

// NewStage asks for the memory of a model of weights dtype dt for micro-batches up to s. dev is nil while a is only a
// plan; such a Stage cannot run.
func NewStage(a *tensor.Arena, dev tensor.Device, c Config, dt tensor.DType, s Size, train bool) *Stage {
	n, acc := s.Sequences*s.Length, dt.Accum()
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	st := &Stage{Config: c, Params: NewParams(a, c, dt, train, max(s.Shards, 1)), dev: dev}
	alloc := func(use, name string, dt tensor.DType, n int) tensor.Buffer { return a.Alloc(use, name, dt, n) }
	mat := func(use, name string, cols int) tensor.Mat {
		return tensor.Matrix(alloc(use, name, dt, n*cols), n, cols)
	}
	norm := func(name string) residual {
		return residual{mat("activations", name+"/x", c.Dim), alloc("activations", name+"/rstd", acc, n)}
	}
	for _, b := range []struct {
		name string
		to   *tensor.Buffer
	}{{"ids", &st.ids}, {"targets", &st.targets}, {"first", &st.first}, {"positions", &st.pos}} {
		*b.to = alloc("input", b.name, tensor.I32, n)
	}
	st.table = alloc("input", "rope table", acc, s.Length*c.HeadDim)

	saved := 1
	if train {
		saved = c.Layers
	}
	for l := range saved {
		name := fmt.Sprintf("layer %d/", l)
		st.acts = append(st.acts, activations{
			in: norm(name + "in"), mid: norm(name + "mid"),
			qkv:    mat("activations", name+"qkv", qd+2*kd),
			o:      mat("activations", name+"attention", qd),
			lse:    alloc("activations", name+"lse", acc, n*c.Heads),
			gateUp: mat("activations", name+"gate up", 2*c.FFN),
		})
	}
	st.last = norm("final")
	wide, out := max(n*c.FFN, min(n, logitsChunk)*c.Vocab), n*c.Dim
	if train {
		wide, out = max(wide, n*(qd+2*kd)), max(out, n*qd)
		st.dres = mat("workspace", "dresidual", c.Dim)
	}
	st.work = workspace{
		y:    mat("workspace", "norm", c.Dim),
		out:  alloc("workspace", "projections", dt, out),
		wide: alloc("workspace", "swiglu, dqkv, logits", dt, wide),
	}
	st.loss = alloc("workspace", "loss", acc, n)
	if st.leaves = s.Leaves; s.Leaves != nil {
		st.leaf = alloc("workspace", "leaf", acc, st.Params.largest())
	}
	if dev != nil {
		st.q = dev.Queue(tensor.Compute)
		st.uploadTable(s.Length)
	}
	return st
}

func (s *Stage) uploadTable(length int) {
	table := s.Config.ropeTable(length)
	host := tensor.HostBuffer(table)
	if s.table.DType() == tensor.F32 {
		narrow := make([]float32, len(table))
		for i, v := range table {
			narrow[i] = float32(v)
		}
		host = tensor.HostBuffer(narrow)
	}
	s.dev.Upload(s.q, s.table, tensor.HostBytes(host))
}

// Input is a micro-batch on the host: Sequences rows of Length tokens, one after another.
type Input struct {
	Sequences, Length int
	Sequence          int     // number of the first in the whole batch, for canonical numerics
	IDs               []int32 // [Sequences·Length]
	Targets           []int32 // the next token; negative: not a target. nil: there is no loss to compute
	First             []int32 // index in its sequence of the first token of its document; nil: all zeros
	// Cache holds the tokens before IDs, which are added to it, if there is one sequence to evaluate; nil: none.
	Cache *Cache
}

// Load uploads a micro-batch, which must fit the Stage's Size, with the tokens of its Cache. Its slices must stay as they
// are until the queue ran.
func (s *Stage) Load(in Input) {
	n, offset := in.Sequences*in.Length, 0
	if in.Cache != nil {
		offset = in.Cache.length
		in.Cache.length += n
	}
	if n > s.ids.Len() || (offset+in.Length)*s.Config.HeadDim > s.table.Len() || len(in.IDs) != n ||
		in.Cache != nil && (in.Sequences != 1 || s.dres.Len() > 0) {
		panic(fmt.Sprintf("llama: a micro-batch of %d×%d tokens (%d ids, %d cached) for a stage of %d tokens",
			in.Sequences, in.Length, len(in.IDs), offset, s.ids.Len()))
	}
	c := s.Config
	moved := s.batch != in.Sequences || s.length != in.Length || s.shape.Offset != offset
	s.batch, s.length, s.sequence, s.cache = in.Sequences, in.Length, in.Sequence, in.Cache
	s.shape = tensor.AttentionShape{
		Batch: in.Sequences, Length: in.Length, Keys: offset + in.Length, Offset: offset,
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: c.attentionScale(), Window: c.Window,
	}
	up := func(dst tensor.Buffer, src []int32) tensor.Buffer {
		dst = dst.Slice(0, n)
		s.dev.Upload(s.q, dst, tensor.HostBytes(tensor.HostBuffer(src)))
		return dst
	}
	up(s.ids, in.IDs)
	if in.Targets != nil {
		up(s.targets, in.Targets)
	}
	if in.First != nil {
		s.shape.First = up(s.first, in.First)
	}
	if moved {
		pos := make([]int32, n)
		for i := range pos {
			pos[i] = int32(offset + i%in.Length)
		}
		up(s.pos, pos)
	}
}

// of is the front of a workspace as a matrix of so many columns for the micro-batch's tokens.
func (s *Stage) of(work tensor.Buffer, cols int) tensor.Mat {
	n := s.batch * s.length
	return tensor.Matrix(work.Slice(0, n*cols), n, cols)
}

// y is the micro-batch's rows of the norm in hand.
func (s *Stage) y() tensor.Mat { return s.tokens(s.work.y) }

// delta is the output of o-proj and down-proj.
func (s *Stage) delta() tensor.Mat { return s.of(s.work.out, s.Config.Dim) }

// hidden is the SwiGLU's output.
func (s *Stage) hidden() tensor.Mat { return s.of(s.work.wide, s.Config.FFN) }

// tokens is the micro-batch's rows of a planned matrix.
func (s *Stage) tokens(m tensor.Mat) tensor.Mat { return m.RowRange(0, s.batch*s.length) }

// perToken is the micro-batch's part of a planned buffer of one or more elements per token.
func (s *Stage) perToken(b tensor.Buffer, each int) tensor.Buffer {
	return b.Slice(0, s.batch*s.length*each)
}
