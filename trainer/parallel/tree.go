package parallel

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"github.com/herdtrain/herd/trainer/llama"
)

// Leaves of the sums of `numerics: canonical`. A sum whose terms a layout may spread over ranks is one balanced binary
// tree over leaves that no layout changes; ranks hold whole leaves.
const (
	HiddenLeaves = llama.HiddenLeaves // ranges of the FFN's columns, and of the vocabulary; attention's leaves are its heads
	TokenLeaves  = llama.TokenLeaves  // ranges of each sequence
)

// SplitLeaves is part i of n items in leaves of Split(n, leaves, ·), cut between leaves only: the leaves of the part,
// even to one, and their items.
func SplitLeaves(n, leaves, parts, i int) (leaf, items Range) {
	leaf = Split(leaves, parts, i)
	return leaf, Range{cut(n, leaves, leaf.Lo), cut(n, leaves, leaf.Hi)}
}

// Node is a subtree of the tree over leaves 0, 1, …: the 2^Level leaves from Index·2^Level on. Leaf i is {0, i}.
type Node struct{ Level, Index int }

// Leaves are the leaves under n.
func (n Node) Leaves() Range { return Range{n.Index << n.Level, (n.Index + 1) << n.Level} }

// Subtrees are the fewest nodes that cover exactly leaves, in order: what a rank that has them can add up itself.
func Subtrees(leaves Range) []Node {
	var nodes []Node
	for lo := leaves.Lo; lo < leaves.Hi; {
		level := bits.Len(uint(leaves.Hi-lo)) - 1
		if lo > 0 {
			level = min(level, bits.TrailingZeros(uint(lo)))
		}
		nodes = append(nodes, Node{level, lo >> level})
		lo += 1 << level
	}
	return nodes
}

// Shipment is a subtree that one of several ranks adds up and gives to the sum's owner.
type Shipment struct {
	Rank int
	Node Node
}

// Shipments are what ranks ship that hold the given leaves, each leaf on one rank, in the order in which the owner adds
// them to its Counter. leaves[r] are the ranges of rank r, in any order.
func Shipments(leaves [][]Range) []Shipment {
	var all []Shipment
	for rank, ranges := range leaves {
		ranges = slices.DeleteFunc(slices.Clone(ranges), func(r Range) bool { return r.Len() == 0 })
		slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.Lo, b.Lo) })
		for i := 0; i < len(ranges); {
			whole := ranges[i]
			for i++; i < len(ranges) && ranges[i].Lo == whole.Hi; i++ {
				whole.Hi = ranges[i].Hi
			}
			for _, n := range Subtrees(whole) {
				all = append(all, Shipment{rank, n})
			}
		}
	}
	slices.SortFunc(all, func(a, b Shipment) int { return cmp.Compare(a.Node.Leaves().Lo, b.Node.Leaves().Lo) })
	return all
}

// Counter adds fp32 vectors in the order of the balanced binary tree, whoever added up its subtrees: a node is its left
// child plus its right, element by element; a child with no leaf that was added is passed over. It holds one vector for
// each level of the tree and one more. One goroutine uses it.
type Counter struct {
	nodes []Node // subtrees not yet joined, ascending
	sums  [][]float32
}

// CounterVectors is how many vectors the counter of a tree of at most leaves leaves holds.
func CounterVectors(leaves int) int { return bits.Len(uint(max(leaves, 1)-1)) + 1 }

// NewCounter makes a counter with the memory of CounterVectors vectors.
func NewCounter(sums [][]float32) *Counter {
	return &Counter{nodes: make([]Node, 0, len(sums)), sums: sums}
}

// Add adds x, the sum under node. Nodes come in ascending order and do not overlap.
func (c *Counter) Add(node Node, x []float32) {
	leaves := node.Leaves()
	if k := len(c.nodes); k > 0 && c.nodes[k-1].Leaves().Hi > leaves.Lo {
		panic(fmt.Sprintf("parallel: leaves %v are added after leaves %v", leaves, c.nodes[k-1].Leaves()))
	}
	// What joins below the node that is to hold both the last subtree and this one is complete: nothing after it fits in.
	for k := len(c.nodes); k > 1; k = len(c.nodes) {
		if join(c.nodes[k-2], c.nodes[k-1]).Level >= join(c.nodes[k-1], node).Level {
			break
		}
		c.join()
	}
	copy(c.sums[len(c.nodes)], x)
	c.nodes = append(c.nodes, node)
	for k := len(c.nodes); k > 1; k = len(c.nodes) {
		if join(c.nodes[k-2], c.nodes[k-1]).Leaves().Hi > leaves.Hi {
			break
		}
		c.join()
	}
}

// Sum writes the root to dst and empties c. It is false, and dst untouched, when nothing was added.
func (c *Counter) Sum(dst []float32) bool {
	if len(c.nodes) == 0 {
		return false
	}
	for len(c.nodes) > 1 {
		c.join()
	}
	copy(dst, c.sums[0])
	c.nodes = c.nodes[:0]
	return true
}

// join adds the last subtree to the one before it.
func (c *Counter) join() {
	k := len(c.nodes) - 1
	left, right := c.sums[k-1], c.sums[k]
	for i, v := range right {
		left[i] += v
	}
	c.nodes[k-1] = join(c.nodes[k-1], c.nodes[k])
	c.nodes = c.nodes[:k]
}

// join is the smallest subtree that holds both.
func join(a, b Node) Node {
	level := bits.Len(uint(a.Leaves().Lo ^ (b.Leaves().Hi - 1)))
	return Node{level, a.Leaves().Lo >> level}
}
