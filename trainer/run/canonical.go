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
	ships  []parallel.Shipment // the subtrees of all ranks' leaves, ascending
	nodes  []parallel.Node     // of this rank's among them, ascending
	sums   [][]float32         // of each node, [SumLen]
	counts map[int]*count      // by offset
	lens   map[int]int         // of the gradients, by offset
	owner  *parallel.Counter
	buf    []float32 // [SumLen], a node of another rank
	part   []float32 // of it, what this rank owns, and what is tied to it
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
	t := &treeSums{params: p, counts: map[int]*count{}, lens: p.Sums()}
	batch := job.Train.GlobalBatch
	var leaves [][]parallel.Range
	group := l.Mesh.Group(rank, parallel.CP, parallel.DP)
	for _, r := range group {
		leaves = append(leaves, leavesOf(l, batch, job.Data.SequenceLength, r))
	}
	t.ships = parallel.Shipments(leaves)
	for _, s := range t.ships {
		if group[s.Rank] == rank {
			t.nodes = append(t.nodes, s.Node)
		}
	}
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
	n := 0
	for _, r := range t.owned() {
		n += r.Len()
	}
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

// leavesOf are the leaves of a rank, those that are not empty, in a batch of so many sequences.
func leavesOf(l parallel.Layout, batch, length, rank int) (all []parallel.Range) {
	at, cp := l.Mesh.Coord(rank), l.Mesh[parallel.CP]
	own := share(l, batch, at[parallel.DP])
	for s := own.Lo; s < own.Hi; s++ {
		first := s * llama.TokenLeaves
		for _, piece := range parallel.HeadTail(cp, at[parallel.CP]) {
			leaves := parallel.Split(llama.TokenLeaves, 2*cp, piece)
			all = append(all, parallel.Range{Lo: first + min(leaves.Lo, length), Hi: first + min(leaves.Hi, length)})
		}
	}
	return all
}

// owned is the elements of a node that this rank adds up: of each unit its own, and behind them what is tied to them.
func (t *treeSums) owned() (all []parallel.Range) {
	for _, u := range t.params.Units {
		all = append(all, parallel.Range(u.Own))
	}
	if lo, hi := t.params.TiedHead(); lo < hi {
		own, behind := t.params.Units[0].Own, t.params.Len-lo
		all = append(all, parallel.Range{Lo: min(own.Lo, hi) + behind, Hi: min(own.Hi, hi) + behind})
	}
	return all
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
	own := 0
	for _, ship := range t.ships {
		x := t.buf
		if ship.Rank == w.data.Rank() {
			x = t.sums[own]
			own++
		}
		w.exchange(w.data, collective.Broadcast(tensor.HostBuffer(x), ship.Rank))
		rest := t.part
		for _, r := range t.owned() {
			rest = rest[copy(rest, x[r.Lo:r.Hi]):]
		}
		t.owner.Add(ship.Node, t.part)
	}
	t.owner.Sum(t.part)
	rest := t.part
	for _, u := range t.params.Units {
		rest = rest[copy(tensor.Host[float32](u.Grads), rest):]
	}
	tied := tensor.Host[float32](t.params.Units[0].Grads)
	for i, x := range rest {
		tied[i] += x
	}
}

// measure sets the limbs of the squared norm of this rank's shard of the gradient, or of nothing.
func (t *treeSums) measure(w *worker, counts bool) {
	t.exact = parallel.Exact{}
	if counts {
		for _, g := range w.opt.Counted() {
			for _, x := range tensor.Host[float32](g) {
				t.exact.Add(float64(x) * float64(x))
			}
		}
	}
	t.exact.Limbs(tensor.Host[float64](t.limbs))
}

// norm is the squared norm of the whole gradient, once the limbs are the sums of all ranks'.
func (t *treeSums) norm() float64 {
	t.exact.SetLimbs(tensor.Host[float64](t.limbs))
	return t.exact.Value()
}
