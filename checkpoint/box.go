package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// Box is a part of a tensor: Extent[d] elements, at least 1, from Offset[d] on, in each dimension d. Its elements are
// counted, and its bytes stored, in row-major order. The zero Box stands for the whole tensor.
type Box struct{ Offset, Extent []int64 }

// Whole is the box of all elements of a tensor.
func Whole(shape []int64) Box { return Box{make([]int64, len(shape)), shape} }

// String is the range of each dimension: [0:4, 16:24].
func (b Box) String() string {
	ranges := make([]string, len(b.Extent))
	for d := range ranges {
		ranges[d] = fmt.Sprintf("%d:%d", b.Offset[d], b.Offset[d]+b.Extent[d])
	}
	return "[" + strings.Join(ranges, ", ") + "]"
}

// Elements is how many elements the box has.
func (b Box) Elements() int64 { return product(b.Extent) }

// Cut gives the elements lo ≤ i < hi of the box, counted in row-major order, as boxes of the same tensor, in that
// order and each with consecutive elements: at most 2·rank−1 of them (one of a scalar), none if lo = hi. So a flat
// range of the elements that a rank holds can be stored. It panics unless 0 ≤ lo ≤ hi ≤ Elements.
func (b Box) Cut(lo, hi int64) []Box {
	if lo < 0 || hi < lo || hi > b.Elements() {
		panic(fmt.Sprintf("checkpoint: elements %d to %d of box %v", lo, hi, b))
	}
	return b.cut(nil, nil, lo, hi)
}

// cut appends the boxes of a range of the row that the leading dimensions' offsets in first single out.
func (b Box) cut(list []Box, first []int64, lo, hi int64) []Box {
	d := len(first)
	switch {
	case lo == hi:
		return list
	case d == len(b.Extent): // a scalar
		return append(list, Box{})
	}
	row := product(b.Extent[d+1:])
	inside := func(list []Box, i, lo, hi int64) []Box { // elements lo to hi of row i
		return b.cut(list, append(slices.Clone(first), b.Offset[d]+i), lo, hi)
	}
	from, to := (lo+row-1)/row, hi/row // the whole rows
	if from > to {
		return inside(list, to, lo-to*row, hi-to*row)
	}
	if lo < from*row {
		list = inside(list, from-1, lo-(from-1)*row, row)
	}
	if from < to {
		ones := slices.Repeat([]int64{1}, d)
		list = append(list, Box{
			Offset: slices.Concat(first, []int64{b.Offset[d] + from}, b.Offset[d+1:]),
			Extent: slices.Concat(ones, []int64{to - from}, b.Extent[d+1:]),
		})
	}
	if to*row < hi {
		list = inside(list, to, 0, hi-to*row)
	}
	return list
}

// Part is a box of a tensor and its elements.
type Part struct {
	Box  Box
	Data []byte // row-major, little-endian
}

// Parts is Cut with data, which holds just these elements, dealt out to the boxes. The parts share its memory.
func (b Box) Parts(lo, hi int64, data []byte) []Part {
	var parts []Part
	for _, box := range b.Cut(lo, hi) {
		n := int64(len(data)) / (hi - lo) * box.Elements()
		parts = append(parts, Part{box, data[:n]})
		data, lo = data[n:], lo+box.Elements()
	}
	return parts
}

// of is the box, the whole of the shape if it is zero.
func (b Box) of(shape []int64) Box {
	if b.Offset == nil && b.Extent == nil {
		return Whole(shape)
	}
	return b
}

// check says what is wrong with b as a box of a tensor of that shape.
func (b Box) check(shape []int64) error {
	if len(b.Offset) != len(shape) || len(b.Extent) != len(shape) {
		return fmt.Errorf("the box at %v of extent %v does not have the dimensions of shape %v", b.Offset, b.Extent, shape)
	}
	for d, n := range shape {
		if b.Offset[d] < 0 || b.Extent[d] < 1 || b.Extent[d] > n || b.Offset[d] > n-b.Extent[d] {
			return fmt.Errorf("the box at %v of extent %v is not within shape %v", b.Offset, b.Extent, shape)
		}
	}
	return nil
}

// intersect is what two boxes of one tensor have in common; ok is false if that is nothing.
func (b Box) intersect(o Box) (common Box, ok bool) {
	for d := range b.Extent {
		lo := max(b.Offset[d], o.Offset[d])
		n := min(b.Offset[d]+b.Extent[d], o.Offset[d]+o.Extent[d]) - lo
		if n < 1 {
			return Box{}, false
		}
		common.Offset, common.Extent = append(common.Offset, lo), append(common.Extent, n)
	}
	return common, true
}

// within is the number of b's first element among those of o, and whether all of b is in o, as consecutive elements.
func (b Box) within(o Box) (first int64, ok bool) {
	ok = true
	single := true // so far b has one row
	for d, n := range o.Extent {
		at := b.Offset[d] - o.Offset[d]
		ok = ok && at >= 0 && at+b.Extent[d] <= n && (single || b.Extent[d] == n)
		single = single && b.Extent[d] == 1
		first = first*n + at
	}
	return first, ok
}

func product(list []int64) int64 {
	n := int64(1)
	for _, x := range list {
		n *= x
	}
	return n
}
