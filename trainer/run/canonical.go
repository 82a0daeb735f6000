package run

import (
	"math"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/parallel"
)

// treeSums are the sums of numerics: canonical on one rank: each gradient is a balanced binary tree over the token leaves
// of the whole batch, whichever rank and micro-batch they are in, in fp32. All of it is host memory of the CPU device.
type treeSums struct {
	params *llama.Params
	nodes  []parallel.Node // the subtrees of this rank's leaves, ascending
	sums   [][]float32     // of each node, [SumLen]
	counts map[int]*count  // by offset
	lens   map[int]int     // of the gradients, by offset
	owner  *parallel.Counter
	shard  parallel.Range // of the flat arrays, what this rank updates
	tied   parallel.Range // of the flat arrays, the part of the shard whose gradient has two sums
	buf    []float32      // [SumLen], a node of another rank
	part   []float32      // of it, the shard and what is tied to it
	exact  parallel.Exact
	limbs  tensor.Buffer // F64 [ExactLimbs]
}

// count is the tree of one gradient.
type count struct {
	*parallel.Counter
	node int // that leaves come for
}

// newTreeSums asks for the memory of a rank's sums, of a model with the given layout of parameters.
func newTreeSums(a *tensor.Arena, p *llama.Params, job *config.Job, l parallel.Layout, rank int) *treeSums {
	t := &treeSums{params: p, counts: map[int]*count{}, lens: p.Sums(), shard: shardOf(p, l, rank)}
	batch := job.Train.GlobalBatch
	t.nodes = subtrees(l, batch, l.Mesh.Coord(rank)[parallel.DP])
	depth := parallel.CounterVectors(batch * llama.TokenLeaves)
	floats := func(name string, n int) []float32 {
		b := a.Alloc("canonical", name, tensor.F32, n)
		if a.Planning() {
			return nil
		}
		return tensor.Host[float32](b)
	}
	vectors := func(name string, count, n int) [][]float32 {
		all := make([][]float32, count)
		for i := range all {
			all[i] = floats(name, n)
		}
		return all
	}
	t.sums = vectors("subtree", len(t.nodes), p.SumLen)
	t.buf = floats("subtree of another rank", p.SumLen)
	trees := vectors("tree of tokens", depth, p.SumLen)
	lo, hi := p.TiedHead()
	t.tied = parallel.Range{Lo: max(lo, t.shard.Lo), Hi: max(lo, t.shard.Lo, min(hi, t.shard.Hi))}
	n := t.shard.Len() + t.tied.Len()
	t.part = floats("part of a subtree", n)
	t.owner = parallel.NewCounter(vectors("tree of ranks", depth, n))
	t.limbs = a.Alloc("canonical", "squared norm", tensor.F64, parallel.ExactLimbs)
	for offset, n := range t.lens {
		c := &count{}
		if !a.Planning() {
			sums := make([][]float32, depth)
			for i := range sums {
				sums[i] = trees[i][offset : offset+n]
			}
			c.Counter = parallel.NewCounter(sums)
		}
		t.counts[offset] = c
	}
	return t
}

// subtrees are those of the leaves of data rank r, ascending, in a batch of so many sequences.
func subtrees(l parallel.Layout, batch, r int) []parallel.Node {
	own := share(l, batch, r)
	return parallel.Subtrees(parallel.Range{Lo: own.Lo * llama.TokenLeaves, Hi: own.Hi * llama.TokenLeaves})
}

// shardOf is the part of the flat arrays that a rank updates.
func shardOf(p *llama.Params, l parallel.Layout, rank int) parallel.Range {
	return parallel.Split(p.Len, l.Shard, l.ShardIndex(rank))
}

// Weights implements llama.LeafSums.
func (t *treeSums) Weights(offset, leaf int, x tensor.Buffer) {
	c := t.counts[offset]
	for leaf >= t.nodes[c.node].Leaves().Hi {
		t.finish(offset, c)
	}
	c.Add(parallel.Node{Level: 0, Index: leaf}, tensor.Host[float32](x))
}

// finish stores the sum of the node that leaves came for; those of the next one come now.
func (t *treeSums) finish(offset int, c *count) {
	c.Sum(t.sums[c.node][offset : offset+t.lens[offset]])
	c.node++
}

// Losses implements llama.LeafSums: losses are rounded to multiples of 2⁻²⁴, whose sums, up to 2²⁹, are exact in any
// order.
func (t *treeSums) Losses(sum, loss tensor.Buffer) {
	total := &tensor.Host[float64](sum)[0]
	for _, x := range tensor.Host[float32](loss) {
		*total += math.RoundToEven(float64(x)*(1<<24)) / (1 << 24)
	}
}

// reduce sets the gradient of this rank's shard to the trees' roots: ranks send their subtrees in the order of leaves.
func (t *treeSums) reduce(w *worker) {
	for offset, c := range t.counts {
		for c.node < len(t.nodes) {
			t.finish(offset, c)
		}
		c.node = 0
	}
	for r := range w.data.Size() {
		for k, n := range subtrees(w.layout, w.job.Train.GlobalBatch, r) {
			x := t.buf
			if r == w.data.Rank() {
				x = t.sums[k]
			}
			w.exchange(w.data, collective.Broadcast(tensor.HostBuffer(x), r))
			rest := copy(t.part, x[t.shard.Lo:t.shard.Hi])
			if lo, _ := t.params.TiedHead(); t.tied.Len() > 0 {
				copy(t.part[rest:], x[t.params.Len+t.tied.Lo-lo:])
			}
			t.owner.Add(n, t.part)
		}
	}
	t.owner.Sum(t.part)
	grads := tensor.Host[float32](w.opt.Grads())
	rest := copy(grads, t.part)
	for i, x := range t.part[rest:] {
		grads[t.tied.Lo-t.shard.Lo+i] += x
	}
}

// measure sets the limbs of the squared norm of this rank's shard of the gradient, or of nothing.
func (t *treeSums) measure(w *worker, counts bool) {
	t.exact = parallel.Exact{}
	if counts {
		for _, x := range tensor.Host[float32](w.opt.Grads()) {
			t.exact.Add(float64(x) * float64(x))
		}
	}
	t.exact.Limbs(tensor.Host[float64](t.limbs))
}

// norm is the squared norm of the whole gradient, once the limbs are the sums of all ranks'.
func (t *treeSums) norm() float64 {
	t.exact.SetLimbs(tensor.Host[float64](t.limbs))
	return t.exact.Value()
}
