package parallel

import (
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Pieces is what each of cp context ranks has of a sequence of so many tokens: one piece from its head and one from its
// tail. In canonical numerics they are whole leaves.
func Pieces(length, cp int, canonical bool) [][]llama.Items {
	pieces := make([][]llama.Items, cp)
	for r := range pieces {
		for _, i := range HeadTail(cp, r) {
			p := Split(length, 2*cp, i)
			if canonical {
				_, p = SplitLeaves(length, TokenLeaves, 2*cp, i)
			}
			pieces[r] = append(pieces[r], llama.Items(p))
		}
	}
	return pieces
}

// Context is llama.Context over a Group. Keys and values of all ranks are gathered, or go from rank to rank in a ring (Liu
// et al. 2023, Ring Attention), each block beside the attention to the one before. A block is the keys and values of a
// rank's tokens, [sequences·most, cols]; the last tokens of each sequence in it may be padding.
type Context struct {
	Group collective.Group // of the ranks, set by the caller

	kind   ContextKind
	pieces [][]llama.Items
	rank   int
	length int // tokens of a sequence
	most   int // of them on a rank
	cols   int // of keys and values

	dev   tensor.Device
	queue tensor.Queue
	work  collective.Work // the last

	own, gathered tensor.Buffer // x, a block, and those of all ranks
	keys          tensor.Mat    // x [sequences·length, cols]
	part          tensor.Buffer // acc [length·cols], gradients of keys by a piece of the queries
	dblock        tensor.Buffer // acc, the gradient of a block

	dkeys   tensor.Mat    // acc, like keys; not of a ring
	dblocks tensor.Buffer // acc, the gradients of all blocks; not of a ring
	ring    *ring         // nil: not a ring
}

// ContextKind is how keys and values go between context ranks.
type ContextKind struct {
	Ring      bool // from one to the next; else they are gathered
	Canonical bool // all are there before attention begins, so that no sum over keys is cut
}

// NewContext asks for the memory of rank number rank, for a share c of a model, weights of dtype dt, and micro-batches of
// so many sequences of length tokens. dev is nil while a is only a plan.
func NewContext(a *tensor.Arena, dev tensor.Device, c llama.Config, dt tensor.DType, sequences, length int,
	pieces [][]llama.Items, rank int, kind ContextKind) *Context {
	x := &Context{kind: kind, pieces: pieces, rank: rank, length: length, cols: 2 * c.KVHeads * c.HeadDim, dev: dev}
	if dev != nil {
		x.queue = dev.Queue(tensor.Compute)
	}
	for r := range pieces {
		x.most = max(x.most, x.tokens(r))
	}
	acc, block, qd := dt.Accum(), sequences*x.most*x.cols, c.Heads*c.HeadDim
	alloc := func(name string, dt tensor.DType, n int) tensor.Buffer {
		return a.Alloc("communication", "context/"+name, dt, n)
	}
	x.own = alloc("block", dt, block)
	if kind.Ring && !kind.Canonical {
		n := sequences * x.tokens(rank)
		x.ring = &ring{
			next: alloc("next block", dt, block), dnext: alloc("gradient of the next block", acc, block),
			out:  tensor.Matrix(alloc("output", acc, n*qd), n, qd),
			part: alloc("output of a piece", acc, x.most*qd), lse: alloc("statistics of a piece", acc, x.most*c.Heads),
		}
	} else {
		n := sequences * length
		x.gathered = alloc("blocks", dt, len(pieces)*block)
		x.keys = tensor.Matrix(alloc("keys", dt, n*x.cols), n, x.cols)
	}
	if kind.Canonical {
		return x
	}
	x.part, x.dblock = alloc("gradient of keys by a piece", acc, length*x.cols), alloc("gradient of a block", acc, block)
	if x.ring == nil {
		n := sequences * length
		x.dkeys = tensor.Matrix(alloc("gradient of keys", acc, n*x.cols), n, x.cols)
		x.dblocks = alloc("gradients of blocks", acc, len(pieces)*block)
	}
	return x
}

// tokens is how many tokens of a sequence rank r has.
func (x *Context) tokens(r int) int {
	n := 0
	for _, p := range x.pieces[r] {
		n += p.Hi - p.Lo
	}
	return n
}

// eachPiece calls f with the pieces of rank r of each sequence, and where they begin among its tokens and in its block.
func (x *Context) eachPiece(sequences, r int, f func(b int, p llama.Items, row, inBlock int)) {
	for b := range sequences {
		at := 0
		for _, p := range x.pieces[r] {
			if p.Lo < p.Hi {
				f(b, p, b*x.tokens(r)+at, b*x.most+at)
			}
			at += p.Hi - p.Lo
		}
	}
}

// block is a buffer as the block of so many sequences.
func (x *Context) block(b tensor.Buffer, sequences int) tensor.Mat {
	n := sequences * x.most
	return tensor.Matrix(b.Slice(0, n*x.cols), n, x.cols)
}

// start begins operations after what is on the queue, which waits for them.
func (x *Context) start(ops ...collective.Op) {
	x.work = x.Group.Start(x.queue, ops...)
	x.queue.Wait(x.work.Event())
}

// Work is the last exchange: when it has ended without a failure, so have all.
func (x *Context) Work() collective.Work { return x.work }

// pack puts the keys and values of this rank's tokens into a block.
func (x *Context) pack(block, kv tensor.Mat, sequences int) {
	x.eachPiece(sequences, x.rank, func(_ int, p llama.Items, row, at int) {
		n := p.Hi - p.Lo
		x.dev.Copy(x.queue, block.RowRange(at, at+n), kv.RowRange(row, row+n))
	})
}

// Keys implements llama.Context.
func (x *Context) Keys(kv tensor.Mat, s tensor.AttentionShape) tensor.Mat {
	own, n := x.block(x.own, s.Batch), s.Batch*x.most*x.cols
	x.pack(own, kv, s.Batch)
	all := x.gathered.Slice(0, n*len(x.pieces))
	if !x.kind.Ring {
		x.start(collective.AllGather(all, own.Buffer))
	} else {
		x.dev.Cast(x.queue, all.Slice(x.rank*n, (x.rank+1)*n), own.Buffer)
		for step := 1; step < len(x.pieces); step++ {
			have, get := x.behind(step-1), x.behind(step)
			x.start(collective.Send(all.Slice(have*n, (have+1)*n), x.behind(-1)),
				collective.Recv(all.Slice(get*n, (get+1)*n), x.behind(1)))
		}
	}
	for r := range x.pieces {
		block := x.block(all.Slice(r*n, (r+1)*n), s.Batch)
		x.eachPiece(s.Batch, r, func(b int, p llama.Items, _, at int) {
			x.dev.Copy(x.queue, x.keys.RowRange(b*x.length+p.Lo, b*x.length+p.Hi), block.RowRange(at, at+p.Hi-p.Lo))
		})
	}
	return x.keys.RowRange(0, s.Batch*x.length)
}

// behind is the rank so many places behind this one in the ring.
func (x *Context) behind(n int) int { return (x.rank - n + len(x.pieces)) % len(x.pieces) }

// of is the shape of the attention of piece p, whose tokens begin in row, to keys at positions of the sequence.
func (x *Context) of(s tensor.AttentionShape, p llama.Items, row int, keys llama.Items) tensor.AttentionShape {
	s.Batch, s.Length, s.Offset, s.Start, s.Keys = 1, p.Hi-p.Lo, p.Lo, keys.Lo, keys.Hi-keys.Lo
	if s.First.Len() > 0 {
		s.First = s.First.Slice(row, row+s.Length)
	}
	return s
}

// halves are keys and values of rows of kv.
func (x *Context) halves(kv tensor.Mat) (k, v tensor.Mat) {
	return kv.ColRange(0, x.cols/2), kv.ColRange(x.cols/2, x.cols)
}

// Attention implements llama.Context.
func (x *Context) Attention(o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat, s tensor.AttentionShape) {
	if x.ring != nil {
		x.ringAttention(o, lse, q, kv, s)
		return
	}
	keys := x.Keys(kv, s)
	x.eachPiece(s.Batch, x.rank, func(b int, p llama.Items, row, _ int) {
		n := p.Hi - p.Lo
		k, v := x.halves(keys.RowRange(b*x.length, b*x.length+p.Hi))
		x.dev.Attention(x.queue, o.RowRange(row, row+n), lse.Slice(row*s.Heads, (row+n)*s.Heads), q.RowRange(row, row+n),
			k, v, x.of(s, p, row, llama.Items{Lo: 0, Hi: p.Hi}))
	})
}

// AttentionBackward implements llama.Context.
func (x *Context) AttentionBackward(dq, dkv, do, o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat,
	s tensor.AttentionShape) {
	if x.ring != nil {
		x.ringBackward(dq, dkv, do, o, lse, q, kv, s)
		return
	}
	keys, dkeys := x.Keys(kv, s), x.dkeys.RowRange(0, s.Batch*x.length)
	x.dev.Fill(x.queue, dkeys.Buffer, 0)
	x.eachPiece(s.Batch, x.rank, func(b int, p llama.Items, row, _ int) {
		n, first := p.Hi-p.Lo, b*x.length
		k, v := x.halves(keys.RowRange(first, first+p.Hi))
		part := tensor.Matrix(x.part.Slice(0, p.Hi*x.cols), p.Hi, x.cols)
		dk, dv := x.halves(part)
		x.dev.AttentionBackward(x.queue, dq.RowRange(row, row+n), dk, dv, do.RowRange(row, row+n), o.RowRange(row, row+n),
			lse.Slice(row*s.Heads, (row+n)*s.Heads), q.RowRange(row, row+n), k, v, x.of(s, p, row, llama.Items{Lo: 0, Hi: p.Hi}))
		sum := dkeys.RowRange(first, first+p.Hi).Buffer
		x.dev.Add(x.queue, sum, sum, part.Buffer)
	})
	n := s.Batch * x.most * x.cols
	for r := range x.pieces {
		block := x.block(x.dblocks.Slice(r*n, (r+1)*n), s.Batch)
		x.eachPiece(s.Batch, r, func(b int, p llama.Items, _, at int) {
			x.dev.Copy(x.queue, block.RowRange(at, at+p.Hi-p.Lo), dkeys.RowRange(b*x.length+p.Lo, b*x.length+p.Hi))
		})
	}
	own := x.block(x.dblock, s.Batch)
	x.start(collective.ReduceScatter(own.Buffer, x.dblocks.Slice(0, n*len(x.pieces)), collective.Sum))
	x.unpack(dkv, own, s.Batch)
}

// unpack takes what is of this rank's tokens out of a block.
func (x *Context) unpack(dkv, block tensor.Mat, sequences int) {
	x.eachPiece(sequences, x.rank, func(_ int, p llama.Items, row, at int) {
		n := p.Hi - p.Lo
		x.dev.Copy(x.queue, dkv.RowRange(row, row+n), block.RowRange(at, at+n))
	})
}
