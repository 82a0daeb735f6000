package tensor

import (
	"fmt"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestBufferSlice(t *testing.T) {
	v := []int32{0, 1, 2, 3, 4, 5, 6, 7}
	b := HostBuffer(v).Slice(2, 7).Slice(1, 3)
	if got := Host[int32](b); !slices.Equal(got, []int32{3, 4}) || b.Len() != 2 || b.Bytes() != 8 || b.DType() != I32 {
		t.Errorf("slice is %v, %d elements, %d bytes of %v", got, b.Len(), b.Bytes(), b.DType())
	}
	if raw := HostBytes(b); len(raw) != 8 || raw[0] != 3 || raw[4] != 4 {
		t.Errorf("bytes %v", raw)
	}
	if empty := b.Slice(2, 2); empty.Len() != 0 || len(HostBytes(empty)) != 0 || Host[int32](empty) != nil {
		t.Errorf("an empty slice has %d elements", empty.Len())
	}
	planned := At(nil, F32, 10).Slice(3, 5)
	if planned.Len() != 2 || planned.Ptr() != nil {
		t.Errorf("a slice of a plan has %d elements at %v", planned.Len(), planned.Ptr())
	}
	for name, f := range map[string]func(){
		"backwards":   func() { b.Slice(2, 1) },
		"too long":    func() { b.Slice(0, 3) },
		"negative":    func() { b.Slice(-1, 1) },
		"other dtype": func() { Host[float32](b) },
		"not a fit":   func() { Matrix(b, 3, 1) },
		"rows":        func() { Matrix(b, 2, 1).RowRange(1, 3) },
		"columns":     func() { Matrix(b, 2, 1).ColRange(0, 2) },
	} {
		if !panics(f) {
			t.Errorf("%s: no panic", name)
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// TestMatViews takes views of views and looks their elements up in the matrix.
func TestMatViews(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(0, 9).Draw(t, "rows"), rapid.IntRange(0, 9).Draw(t, "cols")
		v := make([]float64, rows*cols)
		for i := range v {
			v[i] = float64(i)
		}
		m := Matrix(HostBuffer(v), rows, cols)
		top, left := 0, 0
		for range rapid.IntRange(0, 4).Draw(t, "views") {
			if rapid.Bool().Draw(t, "of rows") {
				i := rapid.IntRange(0, m.Rows).Draw(t, "i")
				m, top = m.RowRange(i, rapid.IntRange(i, m.Rows).Draw(t, "j")), top+i
			} else {
				i := rapid.IntRange(0, m.Cols).Draw(t, "i")
				m, left = m.ColRange(i, rapid.IntRange(i, m.Cols).Draw(t, "j")), left+i
			}
		}
		if want := max(0, (m.Rows-1)*m.Stride+m.Cols); m.Cols > 0 && m.Rows > 0 && m.Len() != want {
			t.Fatalf("the view's buffer has %d elements, want %d", m.Len(), want)
		}
		elements := Host[float64](m.Buffer)
		for i := range m.Rows {
			for j := range m.Cols {
				if got, want := elements[i*m.Stride+j], float64((top+i)*cols+left+j); got != want {
					t.Fatalf("element (%d, %d) is %v, want %v", i, j, got, want)
				}
			}
		}
	})
}

// blockDevice allocates from the Go heap, and does nothing else.
type blockDevice struct{ Device }

func (blockDevice) Alloc(dt DType, n int) (Buffer, error) {
	if n > 1<<20 {
		return Buffer{}, fmt.Errorf("no room for %d", n)
	}
	words := make([]float64, n*dt.Size()/8+8)
	p := unsafe.Pointer(&words[0])
	return At(unsafe.Add(p, -uintptr(p)%Align), dt, n), nil
}

// TestArenaIsItsPlan asks a plan and its arena for the same buffers.
func TestArenaIsItsPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Region {
			return Region{rapid.SampledFrom([]string{"weights", "gradients", "activations"}).Draw(t, "use"), "name",
				rapid.SampledFrom([]DType{F32, BF16, F64, I32}).Draw(t, "dtype"), rapid.IntRange(0, 300).Draw(t, "len")}
		}), 0, 20).Draw(t, "regions")
		ask := func(a *Arena) (all []Buffer) {
			for _, r := range want {
				all = append(all, a.Alloc(r.Use, r.Name, r.DType, r.Len))
			}
			return all
		}
		plan := NewPlan()
		ask(plan)
		arena, err := plan.Arena(blockDevice{})
		if err != nil {
			t.Fatal(err)
		}
		got := ask(arena)
		if plan.Bytes() != arena.Bytes() || !slices.Equal(plan.Regions(), arena.Regions()) ||
			!slices.Equal(plan.Regions(), want) {
			t.Fatalf("the arena of %d bytes is not its plan of %d", arena.Bytes(), plan.Bytes())
		}
		for i, b := range got { // each keeps what was written into it
			if b.Len() != want[i].Len || b.DType() != want[i].DType || b.Len() > 0 && uintptr(b.Ptr())%Align != 0 {
				t.Fatalf("buffer %d: %d elements of %v at %p", i, b.Len(), b.DType(), b.Ptr())
			}
			for j := range HostBytes(b) {
				HostBytes(b)[j] = byte(i + 1)
			}
		}
		for i, b := range got {
			for _, v := range HostBytes(b) {
				if v != byte(i+1) {
					t.Fatalf("buffer %d was overwritten", i)
				}
			}
		}
		uses, bytes := arena.Uses()
		var total int64
		for _, u := range uses {
			total += bytes[u]
		}
		if total != arena.Bytes() {
			t.Fatalf("the uses add up to %d bytes, want %d", total, arena.Bytes())
		}
		if !panics(func() { arena.Alloc("weights", "unplanned", F32, 1) }) {
			t.Fatal("a buffer beyond the plan: no panic")
		}
	})
}

func TestArenaTooLarge(t *testing.T) {
	plan := NewPlan()
	plan.Alloc("weights", "w", F32, 1<<20)
	if _, err := plan.Arena(blockDevice{}); err == nil {
		t.Error("no error")
	}
}
