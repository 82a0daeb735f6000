package checkpoint

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawPartition cuts a box at random, into parts that are not a grid.
func drawPartition(t *rapid.T, b Box, deep int) []Box {
	if deep == 0 || b.Elements() == 1 || rapid.IntRange(0, 3).Draw(t, "uncut") == 0 {
		return []Box{b}
	}
	var list []Box
	if rapid.Bool().Draw(t, "flat") {
		n := b.Elements()
		at := rapid.Int64Range(1, n-1).Draw(t, "at")
		return slices.Concat(b.Cut(0, at), b.Cut(at, n))
	}
	d := rapid.SampledFrom(cuttable(b)).Draw(t, "dimension")
	at := rapid.Int64Range(1, b.Extent[d]-1).Draw(t, "at")
	for _, r := range [][2]int64{{0, at}, {at, b.Extent[d]}} {
		half := Box{slices.Clone(b.Offset), slices.Clone(b.Extent)}
		half.Offset[d], half.Extent[d] = b.Offset[d]+r[0], r[1]-r[0]
		list = append(list, drawPartition(t, half, deep-1)...)
	}
	return list
}

func cuttable(b Box) (dimensions []int) {
	for d, n := range b.Extent {
		if n > 1 {
			dimensions = append(dimensions, d)
		}
	}
	return dimensions
}

// spoilPartition makes a partition into something that is none, most likely.
func spoilPartition(t *rapid.T, shape []int64, boxes []Box) []Box {
	i := rapid.IntRange(0, len(boxes)-1).Draw(t, "box")
	switch rapid.IntRange(0, 3).Draw(t, "fault") {
	case 0:
		return slices.Delete(boxes, i, i+1)
	case 1:
		return append(boxes, boxes[i])
	case 2:
		return append(boxes, drawBox(t, shape))
	}
	boxes[i] = drawBox(t, shape)
	return boxes
}

// miscovered finds what counting finds.
func TestMiscovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t)
		boxes := drawPartition(t, Whole(shape), 4)
		for range rapid.IntRange(0, 2).Draw(t, "faults") {
			if len(boxes) > 0 {
				boxes = spoilPartition(t, shape, boxes)
			}
		}
		all := Whole(shape).elements(shape)
		counts := make([]int64, len(all))
		for _, b := range boxes {
			for _, x := range b.elements(shape) {
				counts[x]++
			}
		}
		want := slices.IndexFunc(counts, func(n int64) bool { return n != 1 })
		element, count := miscovered(shape, slices.Clone(boxes))
		if count == 1 && want < 0 {
			return
		}
		number := int64(0)
		for d, n := range shape {
			number = number*n + element[d]
		}
		if want < 0 || count != counts[want] || number != all[want] {
			t.Fatalf("%v of %v: element %v is in %d; want number %d of %v", boxes, shape, element, count, want, counts)
		}
	})
}

// Five boxes that no straight cut parts.
func TestPinwheel(t *testing.T) {
	boxes := []Box{
		{[]int64{0, 0}, []int64{1, 2}}, {[]int64{0, 2}, []int64{2, 1}}, {[]int64{1, 1}, []int64{1, 1}},
		{[]int64{1, 0}, []int64{2, 1}}, {[]int64{2, 1}, []int64{1, 2}},
	}
	if at, count := miscovered([]int64{3, 3}, boxes); count != 1 {
		t.Errorf("element %v is in %d", at, count)
	}
	if at, count := miscovered([]int64{3, 3}, slices.Delete(boxes, 2, 3)); count != 0 || !slices.Equal(at, []int64{1, 1}) {
		t.Errorf("element %v is in %d, want [1 1] in none", at, count)
	}
}

func BenchmarkMiscovered(b *testing.B) {
	square, cube := []int64{1 << 14, 1 << 14}, slices.Repeat([]int64{4}, 8)
	var flat []Box
	for lo, hi := int64(0), int64(0); lo < 1<<28; lo = hi {
		hi = min(lo+65537, 1<<28)
		flat = append(flat, Whole(square).Cut(lo, hi)...)
	}
	for _, c := range []struct {
		name  string
		shape []int64
		boxes []Box
	}{
		{"rows", square, grid(square, 4096)},
		{"columns", square, grid(square, 1, 4096)},
		{"tiles", square, grid(square, 64, 64)},
		{"flat", square, flat},
		{"rank8", cube, grid(cube, 4, 4, 4, 4, 4, 4, 4, 4)}, // the worst case
	} {
		b.Run(fmt.Sprintf("%s-%d", c.name, len(c.boxes)), func(b *testing.B) {
			for b.Loop() {
				if at, count := miscovered(c.shape, slices.Clone(c.boxes)); count != 1 {
					b.Fatal(at, count)
				}
			}
		})
	}
}

// grid cuts each dimension into as many equal parts as by says.
func grid(shape []int64, by ...int64) []Box {
	list := []Box{Whole(shape)}
	for d, n := range by {
		var next []Box
		for _, b := range list {
			size := b.Extent[d] / n
			for i := range n {
				tile := Box{slices.Clone(b.Offset), slices.Clone(b.Extent)}
				tile.Offset[d], tile.Extent[d] = i*size, size
				next = append(next, tile)
			}
		}
		list = next
	}
	return list
}
