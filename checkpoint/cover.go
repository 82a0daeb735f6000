package checkpoint

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
)

// checkCover says which slices of a tensor overlap, or what none of them holds.
func (c *Checkpoint) checkCover(t *Info) error {
	boxes := make([]Box, len(t.Slices))
	for i, s := range t.Slices {
		boxes[i] = s.Box
	}
	element, count := miscovered(t.Shape, boxes)
	switch count {
	case 1:
		return nil
	case 0:
		return &DamageError{File: c.dir, Tensor: t.Name, Reason: fmt.Sprintf("none of its %d slices holds element %v of "+
			"shape %v", len(boxes), element, t.Shape)}
	}
	var holders []Slice
	for _, s := range t.Slices {
		if _, ok := s.Box.intersect(Box{element, slices.Repeat([]int64{1}, len(element))}); ok {
			holders = append(holders, s)
		}
	}
	a, b := holders[0], holders[1]
	return &DamageError{
		File: filepath.Join(c.dir, fmt.Sprintf(indexName, b.Writer)), Tensor: t.Name,
		Reason: fmt.Sprintf("slices %v of writer %d and %v of writer %d both hold element %v", a.Box, a.Writer, b.Box,
			b.Writer, element),
	}
}

// miscovered finds the first element of a tensor, in row-major order, that is not in exactly one of the boxes, all of
// which are within it, and in how many it is: if count is 1 there is none.
//
// Let f(x) be the number of boxes that hold element x, less one inside of the tensor: it shall be 0 everywhere. A box
// is the sum over its corners c, with the sign of their parity, of the orthants {x ≥ c}; so f is 0 if and only if at
// every point the signs of the corners there cancel, those of the whole tensor being negative. And at the first point
// where they do not, their sum is f, since all corners before it cancel. In thousands of boxes that are strips, tiles
// or flat ranges few meet in a coordinate, so this takes about a sort of them; at worst 2^rank times that.
func miscovered(shape []int64, boxes []Box) (element []int64, count int64) {
	s := sweep{append(boxes, Whole(shape)), make([]int64, len(shape)), make([][]corner, len(shape))}
	all := make([]corner, len(s.boxes))
	for i := range all {
		all[i] = corner{box: i, sign: 1}
	}
	all[len(boxes)].sign = -1
	count = 1 + s.uneven(0, all)
	return s.at, count
}

// corner is one of a box, its coordinates in some leading dimensions fixed.
type corner struct {
	box  int
	sign int64
	at   int64 // in the last of these dimensions
}

// sweep goes through corners in the order of their coordinates.
type sweep struct {
	boxes   []Box
	at      []int64    // the coordinates where it is
	corners [][]corner // memory, one list for each dimension
}

// uneven sums the signs at the first point, in dimensions d and following, where they do not cancel; 0: there is none.
func (s *sweep) uneven(d int, list []corner) (sum int64) {
	if d == len(s.at) {
		for _, c := range list {
			sum += c.sign
		}
		return sum
	}
	side := func(c corner) [2]int64 { return [2]int64{s.boxes[c.box].Offset[d], s.boxes[c.box].Extent[d]} }
	one := side(list[0])
	if !slices.ContainsFunc(list, func(c corner) bool { return side(c) != one }) {
		s.at[d] = one[0] // and the far corners cancel if these do
		return s.uneven(d+1, list)
	}
	ends := s.corners[d][:0]
	for _, c := range list {
		from := side(c)
		ends = append(ends, corner{c.box, c.sign, from[0]}, corner{c.box, -c.sign, from[0] + from[1]})
	}
	s.corners[d] = ends
	slices.SortFunc(ends, func(a, b corner) int { return cmp.Compare(a.at, b.at) })
	for len(ends) > 0 {
		n := slices.IndexFunc(ends, func(c corner) bool { return c.at != ends[0].at })
		if n < 0 {
			n = len(ends)
		}
		s.at[d] = ends[0].at
		if sum := s.uneven(d+1, ends[:n]); sum != 0 {
			return sum
		}
		ends = ends[n:]
	}
	return 0
}
