package parallel

import (
	"math"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// ring is the memory of ring attention, which takes the blocks of the ranks one after another.
type ring struct {
	next  tensor.Buffer // x, the block that is on its way
	dnext tensor.Buffer // acc, the gradient of a block that is on its way
	out   tensor.Mat    // acc, the output, or the gradient of the queries, of all tokens here
	part  tensor.Buffer // acc, like out, of a piece by a piece of the keys
	lse   tensor.Buffer // acc, the statistics of a piece
}

// eachBlock calls f with the block of every rank, this one's first; the next one arrives meanwhile. After each it calls
// then.
func (x *Context) eachBlock(kv tensor.Mat, sequences int, f func(rank int, block tensor.Mat), then func()) {
	now, next := x.block(x.own, sequences), x.block(x.ring.next, sequences)
	x.pack(now, kv, sequences)
	for step := range x.pieces {
		var arrives collective.Work
		if step < len(x.pieces)-1 {
			arrives = x.Group.Start(x.queue, collective.Send(now.Buffer, x.behind(-1)), collective.Recv(next.Buffer, x.behind(1)))
			x.work = arrives
		}
		f(x.behind(step), now)
		x.queue.Wait(arrives.Event())
		then()
		now, next = next, now
	}
}

// eachPair calls f with the pieces of this rank's queries and those of a rank's keys that they may see.
func (x *Context) eachPair(sequences, rank int, f func(p, keys llama.Items, row, at int)) {
	x.eachPiece(sequences, x.rank, func(b int, p llama.Items, row, _ int) {
		x.eachPiece(sequences, rank, func(kb int, keys llama.Items, _, at int) {
			if kb == b && keys.Lo <= p.Lo {
				f(p, keys, row, at)
			}
		})
	})
}

func (x *Context) ringAttention(o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat, s tensor.AttentionShape) {
	out, qd := x.ring.out.RowRange(0, o.Rows), o.Cols
	x.dev.Fill(x.queue, out.Buffer, 0)
	x.dev.Fill(x.queue, lse, math.Inf(-1))
	x.eachBlock(kv, s.Batch, func(rank int, block tensor.Mat) {
		x.eachPair(s.Batch, rank, func(p, keys llama.Items, row, at int) {
			n := p.Hi - p.Lo
			k, v := x.halves(block.RowRange(at, at+keys.Hi-keys.Lo))
			part, stats := tensor.Matrix(x.ring.part.Slice(0, n*qd), n, qd), x.ring.lse.Slice(0, n*s.Heads)
			x.dev.Attention(x.queue, part, stats, q.RowRange(row, row+n), k, v, x.of(s, p, row, keys))
			x.dev.MergeAttention(x.queue, out.RowRange(row, row+n), lse.Slice(row*s.Heads, (row+n)*s.Heads), part, stats)
		})
	}, func() {})
	x.dev.Copy(x.queue, o, out)
}

// ringBackward sends the gradient of each block round after it, to which every rank adds, and so back to its own.
func (x *Context) ringBackward(dq, dkv, do, o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat, s tensor.AttentionShape) {
	sum, qd := x.ring.out.RowRange(0, dq.Rows), dq.Cols
	now, next := x.block(x.dblock, s.Batch), x.block(x.ring.dnext, s.Batch)
	x.dev.Fill(x.queue, sum.Buffer, 0)
	x.dev.Fill(x.queue, now.Buffer, 0)
	add := func(to, part tensor.Buffer) { x.dev.Add(x.queue, to, to, part) }
	x.eachBlock(kv, s.Batch, func(rank int, block tensor.Mat) {
		x.eachPair(s.Batch, rank, func(p, keys llama.Items, row, at int) {
			n, m := p.Hi-p.Lo, keys.Hi-keys.Lo
			k, v := x.halves(block.RowRange(at, at+m))
			dqPart, dkvPart := tensor.Matrix(x.ring.part.Slice(0, n*qd), n, qd), tensor.Matrix(x.part.Slice(0, m*x.cols), m, x.cols)
			dk, dv := x.halves(dkvPart)
			x.dev.AttentionBackward(x.queue, dqPart, dk, dv, do.RowRange(row, row+n), o.RowRange(row, row+n),
				lse.Slice(row*s.Heads, (row+n)*s.Heads), q.RowRange(row, row+n), k, v, x.of(s, p, row, keys))
			add(sum.RowRange(row, row+n).Buffer, dqPart.Buffer)
			add(now.RowRange(at, at+m).Buffer, dkvPart.Buffer)
		})
	}, func() {
		x.start(collective.Send(now.Buffer, x.behind(-1)), collective.Recv(next.Buffer, x.behind(1)))
		now, next = next, now
	})
	x.dev.Copy(x.queue, dq, sum)
	x.unpack(dkv, now, s.Batch)
}
