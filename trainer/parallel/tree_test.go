package parallel

import (
	"math"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSubtreesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.IntRange(0, 300).Draw(t, "lo")
		r := Range{lo, lo + rapid.IntRange(0, 300).Draw(t, "len")}
		nodes := Subtrees(r)
		at := r.Lo
		for i, n := range nodes {
			if n.Leaves().Lo != at || n.Leaves().Len() != 1<<n.Level {
				t.Fatalf("subtree %v of %v after leaf %d", n, r, at)
			}
			at = n.Leaves().Hi
			if i > 0 && nodes[i-1].Level == n.Level && n.Index%2 == 1 {
				t.Fatalf("subtrees %v and %v of %v are one", nodes[i-1], n, r)
			}
		}
		if at != r.Hi || len(nodes) > 2*bits.Len(uint(r.Len())) {
			t.Fatalf("subtrees of %v: %v", r, nodes)
		}
	})
}

func TestSplitLeavesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, leaves := rapid.IntRange(0, 500).Draw(t, "n"), rapid.IntRange(1, 40).Draw(t, "leaves")
		parts := rapid.IntRange(1, 20).Draw(t, "parts")
		leaf := make([]Range, parts)
		at := 0
		for i := range parts {
			var items Range
			leaf[i], items = SplitLeaves(n, leaves, parts, i)
			for k := leaf[i].Lo; k < leaf[i].Hi; k++ {
				if r := Split(n, leaves, k); r.Lo != at {
					t.Fatalf("leaf %d of part %d is %v after %d", k, i, r, at)
				} else if at = r.Hi; r.Lo < items.Lo || r.Hi > items.Hi {
					t.Fatalf("leaf %d is %v, beyond part %d: %v", k, r, i, items)
				}
			}
			if items.Hi != at {
				t.Fatalf("part %d is %v and its last leaf ends at %d", i, items, at)
			}
		}
		checkCover(t, leaves, 1, leaf)
		if at != n {
			t.Fatalf("the parts end at %d of %d", at, n)
		}
	})
}

// treeSum is the definition: the sum under a node, nil if it holds no leaf.
func treeSum(n Node, leaves map[int][]float32) []float32 {
	if n.Level == 0 {
		return leaves[n.Index]
	}
	left, right := treeSum(Node{n.Level - 1, 2 * n.Index}, leaves), treeSum(Node{n.Level - 1, 2*n.Index + 1}, leaves)
	if left == nil || right == nil {
		return append(left, right...)
	}
	sum := make([]float32, len(left))
	for i := range sum {
		sum[i] = left[i] + right[i]
	}
	return sum
}

func equalBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestCounterIsTheTree: any partition of the leaves over ranks, with any of them absent, gives the bits of the tree.
func TestCounterIsTheTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const width = 3
		n := rapid.IntRange(1, 130).Draw(t, "leaves")
		ranks := rapid.IntRange(1, 5).Draw(t, "ranks")
		leaves := map[int][]float32{}
		held := make([][]Range, ranks)
		for lo := 0; lo < n; {
			hi := min(n, lo+rapid.IntRange(1, 20).Draw(t, "run"))
			r := rapid.IntRange(0, ranks-1).Draw(t, "rank")
			held[r] = slices.Insert(held[r], rapid.IntRange(0, len(held[r])).Draw(t, "place"), Range{lo, hi})
			for ; lo < hi; lo++ {
				if rapid.IntRange(0, 3).Draw(t, "absent") > 0 {
					x := make([]float32, width)
					for i := range x {
						x[i] = float32(rapid.IntRange(1, 1<<20).Draw(t, "x")) * 0x1p-10 / 3
					}
					leaves[lo] = x
				}
			}
		}
		want := treeSum(Node{Level: 8}, leaves)

		owner := newCounter(n, width)
		for range 2 { // a counter is used again
			for _, s := range Shipments(held) {
				part := newCounter(s.Node.Leaves().Len(), width) // on rank s.Rank
				for i := s.Node.Leaves().Lo; i < s.Node.Leaves().Hi; i++ {
					if !slices.ContainsFunc(held[s.Rank], func(r Range) bool { return r.Lo <= i && i < r.Hi }) {
						t.Fatalf("rank %d ships leaf %d that it does not hold", s.Rank, i)
					}
					if x := leaves[i]; x != nil {
						part.Add(Node{0, i}, x)
					}
				}
				if sum := make([]float32, width); part.Sum(sum) {
					owner.Add(s.Node, sum)
				}
			}
			got := make([]float32, width)
			if ok := owner.Sum(got); ok != (want != nil) {
				t.Fatalf("a sum of %d leaves is there: %v", len(leaves), ok)
			} else if ok && !equalBits(got, want) {
				t.Fatalf("the sum is %v, want %v", got, want)
			}
		}
	})
}

// TestCounterDiffersFromRunningSum: the property above would not notice a plain sum if the tree were one.
func TestCounterDiffersFromRunningSum(t *testing.T) {
	c := newCounter(4, 1)
	for i, x := range []float32{1, 0x1p-24, 0x1p-24, 0x1p-24} {
		c.Add(Node{0, i}, []float32{x})
	}
	got := []float32{0}
	if c.Sum(got); got[0] != 1+0x1p-23 {
		t.Errorf("(1 + 2⁻²⁴) + (2⁻²⁴ + 2⁻²⁴) is %b, want 1 + 2⁻²³", got[0])
	}
}

func TestCounterOrder(t *testing.T) {
	c := newCounter(8, 1)
	c.Add(Node{1, 1}, []float32{1}) // leaves 2, 3
	defer func() {
		if recover() == nil {
			t.Error("leaf 3 was added twice")
		}
	}()
	c.Add(Node{0, 3}, []float32{1})
}

// newCounter makes the counter of a tree of at most leaves leaves, for vectors of n elements.
func newCounter(leaves, n int) *Counter {
	sums := make([][]float32, CounterVectors(leaves))
	for i := range sums {
		sums[i] = make([]float32, n)
	}
	return NewCounter(sums)
}
