package dataset

import (
	"fmt"
	"math"
	"math/bits"
)

// mixture deals sample ordinals 0, 1, 2, … to sources in proportion to their weights, in closed form: which source has
// ordinal i, and how many ordinals before i it had, takes no history. The sources are the leaves of a balanced binary
// tree; a node that holds share p of its weight in its left branch has given it ⌊i·p + ½⌋ of its first i ordinals.
// So among the first i ordinals each source has i times its relative weight, give or take ½ per level of the tree.
type mixture struct {
	left  *mixture // nil for a leaf
	right *mixture
	share uint64 // of left, in units of 2⁻⁶⁴
	leaf  int    // the source
}

// newMixture builds the tree; weights must be positive and finite.
func newMixture(weights []float64) (*mixture, error) {
	if len(weights) == 0 {
		return nil, fmt.Errorf("no sources")
	}
	for i, w := range weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("source %d has weight %v, want a positive number", i, w)
		}
	}
	return mixtureOf(weights, 0), nil
}

func mixtureOf(weights []float64, first int) *mixture {
	if len(weights) == 1 {
		return &mixture{leaf: first}
	}
	mid := len(weights) / 2
	l, r := total(weights[:mid]), total(weights[mid:])
	share := uint64(math.MaxUint64)
	if p := math.Ldexp(1/(1+r/l), 64); p < 0x1p64 {
		share = uint64(p)
	}
	return &mixture{left: mixtureOf(weights[:mid], first), right: mixtureOf(weights[mid:], first+mid), share: share}
}

func total(weights []float64) float64 {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	return sum
}

// at is the source of ordinal i ≥ 0 and the number of ordinals below i of the same source.
func (m *mixture) at(i int64) (source int, count int64) {
	for m.left != nil {
		before, after := m.leftCount(i), m.leftCount(i+1)
		if after > before {
			m, i = m.left, before
		} else {
			m, i = m.right, i-before
		}
	}
	return m.leaf, i
}

// leftCount is the number of the first i ordinals that go left.
func (m *mixture) leftCount(i int64) int64 {
	hi, lo := bits.Mul64(uint64(i), m.share)
	_, carry := bits.Add64(lo, 1<<63, 0)
	return int64(hi + carry)
}
