package cpu

import (
	"math"

	"github.com/herdtrain/herd/tensor"
)

// attentionBlock is how many queries and keys form a tile of scores.
const attentionBlock = 64

// Attention is Milakov & Gimelshein 2018 (the running softmax) over tiles, as in FlashAttention (Dao 2022). A block of
// queries of one head is a piece of work; its tiles go by key blocks in order.
func (d *Device) Attention(q tensor.Queue, o tensor.Mat, lse tensor.Buffer, qm, k, v tensor.Mat,
	s tensor.AttentionShape) {
	s = withKeys(s)
	dt := qm.DType()
	check("Attention(o, q, k, v, lse, first)", attentionFits(s, lse, []tensor.Mat{qm}, []tensor.Mat{k, v}, []tensor.Mat{o}, nil),
		o, qm, k, v, vector(lse), vector(s.First))
	block := attentionBlock
	if d.c != nil && dt != tensor.F64 {
		block = d.c.attentionQueries()
	}
	blocks := (s.Length + block - 1) / block
	split(q, s.Batch*s.Heads*blocks, attentionGrain(s, 2*min(block, s.Length)), func(u0, u1 int) {
		for u := u0; u < u1; u++ {
			h := head{s, u / blocks / s.Heads, u / blocks % s.Heads}
			i0 := (blocks - 1 - u%blocks) * block // those who see the most keys come first
			o, q, k, v, lse := h.query(o), h.query(qm), h.key(k), h.key(v), h.statistics(lse, 1)
			switch i1 := min(i0+block, s.Length); {
			case dt == tensor.F64:
				attend[float64](d, h, o, lse, q, k, v, i0, i1)
			case d.c == nil:
				attend[float32](d, h, o, lse, q, k, v, i0, i1)
			default:
				work := d.scratches.take()
				d.c.attention(o, lse, q, k, v, h.shape(), i0, floats[float32](work, d.c.attentionWorkspace(s.HeadDim)))
				d.scratches.give(work)
			}
		}
	})
}

// attentionGrain is how many pieces of work are worth the waking of a thread. In each, so many rows are multiplied with
// the keys or values of a sequence.
func attentionGrain(s tensor.AttentionShape, rows int) int {
	const worthwhile = 1 << 19 // multiply-adds
	return max(1, worthwhile/max(1, rows*s.Keys*s.HeadDim))
}

// withKeys is s with its number of keys said.
func withKeys(s tensor.AttentionShape) tensor.AttentionShape {
	if s.Keys == 0 {
		s.Keys = s.Length
	}
	return s
}

// attentionFits says whether the matrices of query heads and of KV heads have the shapes that s says: those that are read
// of one dtype, the results of it or its Accum.
func attentionFits(s tensor.AttentionShape, lse tensor.Buffer, queries, keys, dq, dk []tensor.Mat) bool {
	dt, n, qd, kd := queries[0].DType(), s.Batch*s.Length, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	result := func(rows, cols int, all []tensor.Mat) bool {
		return len(all) == 0 || like(dt, rows, cols, all...) || like(dt.Accum(), rows, cols, all...)
	}
	return s.Batch >= 0 && s.Length >= 0 && s.KVHeads > 0 && s.Heads > 0 && s.Heads%s.KVHeads == 0 && s.HeadDim > 0 &&
		s.Scale > 0 && s.Window >= 0 && s.Start >= 0 && s.Start <= s.Offset &&
		like(dt, n, qd, queries...) && like(dt, s.Batch*s.Keys, kd, keys...) &&
		result(n, qd, dq) && result(s.Batch*s.Keys, kd, dk) &&
		holds(lse, dt.Accum(), s.Heads*n) && (s.First.Len() == 0 || holds(s.First, tensor.I32, n))
}

// head is one query head of one sequence.
type head struct {
	tensor.AttentionShape
	batch, head int
}

// query is the part [Length, HeadDim] of m [Batch·Length, Heads·HeadDim] that belongs to h.
func (h head) query(m tensor.Mat) tensor.Mat { return h.part(m, h.Length, h.head) }

// key is the part [Keys, HeadDim] of m [Batch·Keys, KVHeads·HeadDim] that h reads.
func (h head) key(m tensor.Mat) tensor.Mat { return h.part(m, h.Keys, h.head/(h.Heads/h.KVHeads)) }

func (h head) part(m tensor.Mat, rows, i int) tensor.Mat {
	return m.RowRange(h.batch*rows, (h.batch+1)*rows).ColRange(i*h.HeadDim, (i+1)*h.HeadDim)
}

// statistics is the part [heads, Length] of lse that belongs to so many heads from h on.
func (h head) statistics(lse tensor.Buffer, heads int) tensor.Buffer {
	i := (h.batch*h.Heads + h.head) * h.Length
	return lse.Slice(i, i+heads*h.Length)
}

// shape is the shape of the operation, with First for the sequence of h.
func (h head) shape() tensor.AttentionShape {
	s := h.AttentionShape
	if s.First.Len() > 0 {
		s.First = s.First.Slice(h.batch*h.Length, (h.batch+1)*h.Length)
	}
	return s
}

// firstKeys sets the first key that each of the queries [i0, i1) sees, and returns the least of them. One that sees none
// has it behind its last.
func (h head) firstKeys(first *[attentionBlock]int, i0, i1 int) (least int) {
	least = h.Keys
	for i := i0; i < i1; i++ {
		lo, position := 0, h.Offset+i
		if h.First.Len() > 0 {
			lo = min(int(tensor.Host[int32](h.First)[h.batch*h.Length+i]), position)
		}
		if h.Window > 0 {
			lo = max(lo, position-h.Window+1)
		}
		first[i-i0] = max(lo-h.Start, 0)
		least = min(least, first[i-i0])
	}
	return least
}

// lastKey is the last key that query i sees: the one at its position, or the last.
func (h head) lastKey(i int) int { return min(h.Offset+i-h.Start, h.Keys-1) }

// attend computes rows [i0, i1) of one head: o, q [Length, HeadDim], lse [Length], k, v [Keys, HeadDim].
func attend[A float](d *Device, h head, o tensor.Mat, lse tensor.Buffer, q, k, v tensor.Mat, i0, i1 int) {
	s := d.scratches.take()
	defer d.scratches.give(s)
	n := i1 - i0
	tile, scores := scratchMat[A](s, n, attentionBlock)
	outMat, out := scratchMat[A](s, n, h.HeadDim)
	clear(out)
	var first [attentionBlock]int
	var top, total [attentionBlock]A // of the scores so far: the largest, and Σ exp(score − top)
	for i := range n {
		top[i] = A(math.Inf(-1))
	}
	q = q.RowRange(i0, i1)
	end := h.lastKey(i1-1) + 1
	for j0 := h.firstKeys(&first, i0, i1) / attentionBlock * attentionBlock; j0 < end; j0 += attentionBlock {
		j1 := min(j0+attentionBlock, end)
		tile := tile.ColRange(0, j1-j0)
		d.product(tensor.NT, tile, q, k.RowRange(j0, j1), false)
		for i := range n {
			row := visible(scores[i*attentionBlock:][:j1-j0], first[i]-j0, h.lastKey(i0+i)-j0)
			if len(row) == 0 {
				continue
			}
			largest := top[i]
			for j, x := range row {
				x *= A(h.Scale)
				row[j] = x
				if x > largest {
					largest = x
				}
			}
			factor := A(math.Exp(float64(top[i] - largest)))
			expScaled(row, row, 1, largest)
			total[i] = total[i]*factor + sum(row)
			top[i] = largest
			if factor != 1 {
				scaleRow(out[i*h.HeadDim:][:h.HeadDim], factor)
			}
		}
		d.product(tensor.NN, outMat, tile, v.RowRange(j0, j1), true)
	}
	os, stats := rowsOf[A](o), tensor.Host[A](lse)
	for i := range n {
		row := out[i*h.HeadDim:][:h.HeadDim]
		if total[i] > 0 {
			scaleRow(row, 1/total[i])
		}
		copy(os.dest(i0+i, row), row)
		os.store(i0+i, row)
		stats[i0+i] = top[i] + A(math.Log(float64(total[i])))
	}
}

// visible is the part [first, last] of a row of a tile of scores, which may reach beyond it. The rest is set to 0.
func visible[A float](row []A, first, last int) []A {
	first, last = max(first, 0), min(last, len(row)-1)
	if first > last {
		clear(row)
		return nil
	}
	clear(row[:first])
	clear(row[last+1:])
	return row[first : last+1]
}

func scaleRow[A float](v []A, by A) {
	for i := range v {
		v[i] *= by
	}
}
