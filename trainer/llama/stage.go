package llama

import (
	"fmt"

	"github.com/herdtrain/herd/tensor"
)

// Stage is some layers of a model, all of them or those of a pipeline's stage, in one or several chunks, with their
// memory: what Forward saves of each micro-batch, and what Backward needs. n below is the tokens of the micro-batch, x the
// dtype of the weights.
type Stage struct {
	Config Config // of its share of the model
	Params *Params

	dev    tensor.Device
	q      tensor.Queue
	share  Share
	spread Spread

	sequenceParallel bool
	table            tensor.Buffer // acc [length, HeadDim/2, 2]
	loss             tensor.Buffer // acc [n]
	lse              tensor.Buffer // acc [chunk]; none without tensor parallelism
	work             workspace
	train            bool
	again            Recompute
	split            bool // Backward leaves gradients to BackwardWeight

	sharding Sharding

	leaves       LeafSums      // of canonical numerics; nil: fast
	hidden       HiddenSums    // as leaves
	leaf         tensor.Buffer // acc, a leaf of any sum
	whole        Config        // of the model, not of the share
	hiddenLeaves hiddenLeaves
	canonical    canonicalAttention

	*microBatch                 // the one in hand
	slots       [][]*microBatch // of each chunk
}

// microBatch is a micro-batch with what is saved of it in a chunk.
type microBatch struct {
	chunk
	batch, length int     // length: tokens of a sequence that are here
	pieces        []Items // of a sequence that are here
	rows          Items   // of the tokens, whose residual is here
	sequence      int     // number in the whole batch of its first
	final         bool    // of the step
	shape         tensor.AttentionShape
	cache         *Cache

	ids, targets, first, pos tensor.Buffer // I32 [n]

	acts []activations // one per layer; one for all of them when the stage only evaluates
	last residual      // the stage's output, at the end of the model the final norm
	dres tensor.Mat    // x [n, Dim], the gradient of the residual; none when the stage only evaluates
}

// chunk is layers [lo, hi) of a Stage, counted from its first, and whether they are the model's first and last.
type chunk struct {
	lo, hi       int
	begins, ends bool
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
	// dres is the gradient of the residual of all tokens, x [n, Dim]; none without sequence parallelism.
	dres tensor.Mat
}

// Recompute is what Backward computes again instead of Forward saving it. In any case the norms, SwiGLU and the
// probabilities of attention are.
type Recompute int

// RecomputeFFN computes gate and up again, the largest part; RecomputeLayer everything from the layer's input on. What is
// computed again has the same bits.
const (
	RecomputeNone Recompute = iota
	RecomputeFFN
	RecomputeLayer
)

// Recomputes are by their words in a job file.
var Recomputes = map[string]Recompute{"none": RecomputeNone, "selective": RecomputeFFN, "full": RecomputeLayer}

// activations are what a layer saves. Parts that are computed again all layers have in common.
type activations struct {
	in, mid residual      // before attention, before the FFN
	qkv     tensor.Mat    // x [n, (Heads+2·KVHeads)·HeadDim], rotated
	o       tensor.Mat    // x [n, Heads·HeadDim]
	lse     tensor.Buffer // acc [batch, Heads, length]
	gateUp  tensor.Mat    // x [n, 2·FFN]; Backward sets their gradient in their place
	later   deferred      // of a split Backward
}

// deferred is what BackwardInput leaves to BackwardWeight: the gradients of the outputs of a layer's products.
type deferred struct {
	down, o tensor.Mat // x [n, Dim]
	gateUp  tensor.Mat // x [n, 2·FFN]
	qkv     tensor.Mat // x [n, (Heads+2·KVHeads)·HeadDim]
}

// logitsChunk bounds the logits held at a time, in tokens.
const logitsChunk = 256

// Size is what a Stage's memory is made for.
type Size struct {
	Sequences, Length int     // of the largest micro-batch
	Chunks            []Chunk // ascending; nil: one of all layers
	Share             Share   // of each layer
	Recompute         Recompute
	SplitBackward     bool       // for BackwardInput and BackwardWeight
	Sharding          Sharding   // of the parameters
	Leaves            LeafSums   // if not nil, takes the sums over tokens: canonical numerics
	Hidden            HiddenSums // with Leaves, takes the sums over heads and columns
	Shares            []Share    // with Leaves, of all tensor-parallel ranks; nil: there is one
	Spread            Spread     // of the tokens of a sequence
	SequenceParallel  bool       // the residual is spread over tensor-parallel ranks
}

// Chunk is layers [Lo, Hi) of a model.
type Chunk struct {
	Lo, Hi int
	Slots  int // micro-batches that are kept at a time; 0 is as 1
}

// NewStage asks for the memory of a model of weights dtype dt for micro-batches up to s. dev is nil while a is only a
// plan; such a Stage cannot run.
func NewStage(a *tensor.Arena, dev tensor.Device, c Config, dt tensor.DType, s Size, train bool) *Stage {
	if s.Chunks == nil {
		s.Chunks = []Chunk{{Hi: c.Layers}}
	}
	params, share, whole := NewParams(a, c, dt, train, s), s.Share.whole(c), c
	c = share.Of(c)
	n, acc := s.Sequences*s.Spread.local(s.Length), dt.Accum()
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	st := &Stage{Config: c, Params: params, share: share, dev: dev, train: train, again: s.Recompute,
		split: train && s.SplitBackward, sharding: s.Sharding, spread: s.Spread, sequenceParallel: s.SequenceParallel}
	alloc := func(use, name string, dt tensor.DType, n int) tensor.Buffer { return a.Alloc(use, name, dt, n) }
	mat := func(use, name string, cols int) tensor.Mat {
		return tensor.Matrix(alloc(use, name, dt, n*cols), n, cols)
	}
	st.table = alloc("input", "rope table", acc, s.Length*c.HeadDim)
	rows := min(n, logitsChunk) // of logits at a time
	if s.Leaves != nil {        // a leaf's logits are in one chunk
		rows = min(n, max(logitsChunk, (s.Length+TokenLeaves-1)/TokenLeaves))
	}
	wide, out := n*c.FFN, padded(s, n)*c.Dim
	if st.Params.ends {
		wide = max(wide, rows*c.Vocab)
	}
	if train {
		wide, out = max(wide, n*(qd+2*kd)), max(out, n*qd)
	}
	st.work = workspace{
		y:    tensor.Matrix(alloc("workspace", "norm", dt, padded(s, n)*c.Dim), padded(s, n), c.Dim),
		out:  alloc("workspace", "projections", dt, out),
		wide: alloc("workspace", "swiglu, dqkv, logits", dt, wide),
	}
	if train && s.SequenceParallel {
		st.work.dres = tensor.Matrix(alloc("workspace", "dresidual of all ranks", dt, padded(s, n)*c.Dim), padded(s, n), c.Dim)
	}
	st.loss = alloc("workspace", "loss", acc, n)
	if share.Exchange != nil || s.Hidden != nil {
		st.lse = alloc("workspace", "log sum of exponentials", acc, rows)
	}
	if st.leaves, st.hidden, st.whole = s.Leaves, s.Hidden, whole; s.Leaves != nil {
		if s.Shares == nil {
			s.Shares = []Share{share}
		}
		st.hiddenLeaves = newHiddenLeaves(whole, share, s.Shares)
		st.leaf = alloc("workspace", "leaf", acc, max(st.Params.largest(), n*c.Dim, HiddenLeaves*rows))
	}
	if s.Leaves != nil && train {
		st.canonical = newCanonicalAttention(a, acc, c, s, n)
	}
	kept := func(use, name string) tensor.Mat { // of the residual
		n := residualRows(s, n)
		return tensor.Matrix(alloc(use, name, dt, n*c.Dim), n, c.Dim)
	}
	norm := func(use, name string) residual {
		return residual{kept(use, name+"/x"), alloc(use, name+"/rstd", acc, residualRows(s, n))}
	}
	// What is saved of a layer beside its input, in two parts.
	attention := func(use, name string, a *activations) {
		a.mid = norm(use, name+"mid")
		a.qkv, a.o = mat(use, name+"qkv", qd+2*kd), mat(use, name+"attention", qd)
		a.lse = alloc(use, name+"lse", acc, n*c.Heads)
	}
	ffn := func(use, name string, a *activations) { a.gateUp = mat(use, name+"gate up", 2*c.FFN) }
	var common activations
	if s.Recompute >= RecomputeFFN {
		ffn("workspace", "", &common)
	}
	if s.Recompute >= RecomputeLayer {
		attention("workspace", "", &common)
	}
	at := 0
	for k, part := range s.Chunks {
		layers := chunk{at, at + part.Hi - part.Lo, part.Lo == 0, part.Hi == c.Layers}
		at = layers.hi
		var dres tensor.Mat
		if train && layers.begins && layers.ends { // the whole model goes through one micro-batch after another
			dres = kept("workspace", "dresidual")
		}
		st.slots = append(st.slots, nil)
		for i := range max(part.Slots, 1) {
			m := &microBatch{chunk: layers, dres: dres}
			name := func(s string) string { return fmt.Sprintf("micro-batch %d/%s", i, s) }
			if len(s.Chunks) > 1 {
				name = func(s string) string { return fmt.Sprintf("chunk %d/micro-batch %d/%s", k, i, s) }
			}
			for _, b := range []struct {
				name string
				to   *tensor.Buffer
			}{{"ids", &m.ids}, {"targets", &m.targets}, {"first", &m.first}, {"positions", &m.pos}} {
				*b.to = alloc("input", name(b.name), tensor.I32, n)
			}
			saved := 1
			if train {
				saved = part.Hi - part.Lo
			}
			for l := range saved {
				layer, a := name(fmt.Sprintf("layer %d/", part.Lo+l)), common
				a.in = norm("activations", layer+"in")
				if s.Recompute < RecomputeLayer {
					attention("activations", layer, &a)
				}
				if s.Recompute < RecomputeFFN {
					ffn("activations", layer, &a)
				}
				if st.split {
					later := func(name string, cols int) tensor.Mat { return mat("activations", layer+name, cols) }
					a.later = deferred{later("dffn", c.Dim), later("do", c.Dim), later("dgate up", 2*c.FFN),
						later("dqkv", qd+2*kd)}
				}
				m.acts = append(m.acts, a)
			}
			m.last = norm("activations", name("output"))
			if train && dres.Rows == 0 {
				m.dres = kept("activations", name("dresidual"))
			}
			st.slots[k] = append(st.slots[k], m)
		}
	}
	st.Select(0, 0)
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
	// Sequence is the number of the first in the whole batch, for canonical numerics. Negative: it is only there so that
	// all ranks have as many micro-batches, without targets, and counts for nothing.
	Sequence int
	Last     bool    // micro-batch of the step
	IDs      []int32 // [Sequences·Length]
	Targets  []int32 // the next token; negative: not a target. nil: there is no loss to compute
	First    []int32 // index in its sequence of the first token of its document; nil: all zeros
	// Cache holds the tokens before IDs, which are added to it, if there is one sequence to evaluate; nil: none.
	Cache *Cache
}

// Select takes the micro-batch in a slot of a chunk in hand, as it was left.
func (s *Stage) Select(chunk, slot int) { s.microBatch = s.slots[chunk][slot] }

// Ends says whether the chunk in hand is the model's last, with the head.
func (s *Stage) Ends() bool { return s.ends }

// Input is where Forward of a chunk that does not begin the model finds the residual, x [n·Dim].
func (s *Stage) Input() tensor.Buffer { return s.flat(s.acts[0].in.x) }

// Output is where Forward leaves the residual for the next chunk, x [n·Dim].
func (s *Stage) Output() tensor.Buffer { return s.flat(s.last.x) }

// ResidualGradient is where Backward of a chunk that does not end the model finds the gradient of its output, and where
// it leaves that of its input, x [n·Dim].
func (s *Stage) ResidualGradient() tensor.Buffer { return s.flat(s.dres) }

// flat is the elements of the micro-batch's rows of a planned matrix of the residual.
func (s *Stage) flat(m tensor.Mat) tensor.Buffer { return s.kept(m).Buffer }

// Load uploads a micro-batch, which must fit the Stage's Size, with the tokens of its Cache. Its slices must stay as they
// are until the queue ran.
func (s *Stage) Load(in Input) {
	length, offset := s.spread.local(in.Length), 0
	n := in.Sequences * length
	if in.Cache != nil {
		offset = in.Cache.length
		in.Cache.length += n
	}
	if n > s.ids.Len() || (offset+in.Length)*s.Config.HeadDim > s.table.Len() || len(in.IDs) != in.Sequences*in.Length ||
		in.Cache != nil && (in.Sequences != 1 || s.train) {
		panic(fmt.Sprintf("llama: a micro-batch of %d×%d tokens (%d ids, %d cached) for a stage of %d tokens",
			in.Sequences, in.Length, len(in.IDs), offset, s.ids.Len()))
	}
	c := s.Config
	moved := s.batch != in.Sequences || s.length != length || s.shape.Offset != offset
	s.batch, s.length, s.sequence, s.final, s.cache = in.Sequences, length, in.Sequence, in.Last, in.Cache
	if s.pieces = []Items{{0, in.Length}}; s.spread.Context != nil {
		s.pieces = s.spread.Pieces[s.spread.Rank]
	}
	s.shape = tensor.AttentionShape{
		Batch: in.Sequences, Length: length, Keys: offset + in.Length, Offset: offset,
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: c.attentionScale(), Window: c.Window,
	}
	s.rows = s.rowsOf(s.share.Rank, n)
	up := func(dst tensor.Buffer, src []int32) tensor.Buffer {
		dst = dst.Slice(0, n)
		s.dev.Upload(s.q, dst, tensor.HostBytes(tensor.HostBuffer(src)))
		return dst
	}
	up(s.ids, s.local(s.pick(in.IDs, in.Length)))
	if in.Targets != nil {
		up(s.targets, s.local(s.pick(in.Targets, in.Length)))
	}
	if in.First != nil {
		s.shape.First = up(s.first, s.pick(in.First, in.Length))
	}
	if moved {
		pos := make([]int32, 0, n)
		for range in.Sequences {
			for _, p := range s.pieces {
				for t := p.Lo; t < p.Hi; t++ {
					pos = append(pos, int32(offset+t))
				}
			}
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

// swiglu is the SwiGLU's output.
func (s *Stage) swiglu() tensor.Mat { return s.of(s.work.wide, s.Config.FFN) }

// tokens is the micro-batch's rows of a planned matrix.
func (s *Stage) tokens(m tensor.Mat) tensor.Mat { return m.RowRange(0, s.batch*s.length) }

// perToken is the micro-batch's part of a planned buffer of one or more elements per token.
func (s *Stage) perToken(b tensor.Buffer, each int) tensor.Buffer {
	return b.Slice(0, s.batch*s.length*each)
}
