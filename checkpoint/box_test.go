package checkpoint

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawBox draws a box of a tensor.
func drawBox(t *rapid.T, shape []int64) Box {
	b := Box{make([]int64, len(shape)), make([]int64, len(shape))}
	for d, n := range shape {
		b.Offset[d] = rapid.Int64Range(0, n-1).Draw(t, "offset")
		b.Extent[d] = rapid.Int64Range(1, n-b.Offset[d]).Draw(t, "extent")
	}
	return b
}

func drawShape(t *rapid.T) []int64 {
	return rapid.SliceOfN(rapid.Int64Range(1, 5), 0, 4).Draw(t, "shape")
}

// elements gives the numbers, in the whole tensor, of a box's elements in their order.
func (b Box) elements(shape []int64) []int64 {
	list := []int64{0}
	for d, n := range shape {
		var next []int64
		for _, x := range list {
			for i := range b.Extent[d] {
				next = append(next, x*n+b.Offset[d]+i)
			}
		}
		list = next
	}
	return list
}

// The boxes of a range have its elements, in order, and are few.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t)
		b := drawBox(t, shape)
		all := b.elements(shape)
		lo := rapid.IntRange(0, len(all)).Draw(t, "lo")
		hi := rapid.IntRange(lo, len(all)).Draw(t, "hi")
		boxes := b.Cut(int64(lo), int64(hi))
		if most := max(1, 2*len(shape)-1); len(boxes) > most || (len(boxes) == 0) != (lo == hi) {
			t.Fatalf("%d boxes, want at most %d: %v", len(boxes), most, boxes)
		}
		var got []int64
		for _, c := range boxes {
			if err := c.check(shape); err != nil {
				t.Fatal(err)
			}
			part := c.elements(shape)
			first, ok := c.within(b)
			if !ok || first != int64(lo+len(got)) || int64(len(part)) != c.Elements() {
				t.Fatalf("%v is at %d of %v, %v", c, first, b, ok)
			}
			got = append(got, part...)
		}
		if !slices.Equal(got, all[lo:hi]) {
			t.Fatalf("%v have elements %v, want %v", boxes, got, all[lo:hi])
		}
	})
}

func TestCutExample(t *testing.T) {
	got := Box{[]int64{4, 0, 16}, []int64{3, 4, 5}}.Cut(7, 46)
	want := []Box{
		{[]int64{4, 1, 18}, []int64{1, 1, 3}},
		{[]int64{4, 2, 16}, []int64{1, 2, 5}},
		{[]int64{5, 0, 16}, []int64{1, 4, 5}},
		{[]int64{6, 0, 16}, []int64{1, 1, 5}},
		{[]int64{6, 1, 16}, []int64{1, 1, 1}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := want[0].String(); s != "[4:5, 1:2, 18:21]" {
		t.Errorf("String is %s", s)
	}
	parts := Whole([]int64{2, 3}).Parts(2, 6, []byte("ccddeeff"))
	if len(parts) != 2 || string(parts[0].Data) != "cc" || string(parts[1].Data) != "ddeeff" {
		t.Errorf("parts %v", parts)
	}
	defer func() {
		if recover() == nil {
			t.Error("a range past the end was cut")
		}
	}()
	Whole([]int64{2, 3}).Cut(0, 7)
}

// within and intersect say what the elements say.
func TestBoxRelations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := drawShape(t)
		a, b := drawBox(t, shape), drawBox(t, shape)
		of, in := a.elements(shape), b.elements(shape)
		var both []int64
		for _, x := range of {
			if slices.Contains(in, x) {
				both = append(both, x)
			}
		}
		if c, ok := a.intersect(b); ok != (both != nil) || ok && !slices.Equal(c.elements(shape), both) {
			t.Errorf("%v and %v intersect in %v", a, b, c)
		}
		at := slices.Index(in, of[0])
		want := at >= 0 && len(in) >= at+len(of) && slices.Equal(in[at:at+len(of)], of)
		if first, ok := a.within(b); ok != want || ok && int(first) != at {
			t.Errorf("%v is at %d of %v, %v; want %d, %v", a, first, b, ok, at, want)
		}
	})
}
