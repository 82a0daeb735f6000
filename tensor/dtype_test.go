package tensor

import (
	"math"
	"testing"
)

// TestBFloat16RoundTrip goes through all values.
func TestBFloat16RoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		b := BFloat16(i)
		f := b.Float32()
		got := ToBFloat16(f)
		if f != f {
			if v := got.Float32(); v == v || got&0x40 == 0 {
				t.Errorf("NaN %#04x became %#04x, want a quiet NaN", i, got)
			}
		} else if got != b {
			t.Errorf("%#04x (%v) became %#04x", i, f, got)
		}
	}
}

// TestBFloat16Rounding looks below, at and above the middle between each two neighbours.
func TestBFloat16Rounding(t *testing.T) {
	for i := range 0x7f80 { // up to the middle between the largest value and infinity
		for _, sign := range []uint32{0, 1 << 31} {
			low, high := BFloat16(uint32(i)|sign>>16), BFloat16(uint32(i+1)|sign>>16)
			even := low
			if i%2 == 1 {
				even = high
			}
			middle := uint32(i)<<16 | 0x8000 | sign
			for bits, want := range map[uint32]BFloat16{middle - 1: low, middle: even, middle + 1: high} {
				if got := ToBFloat16(math.Float32frombits(bits)); got != want {
					t.Fatalf("%#08x became %#04x, want %#04x", bits, got, want)
				}
			}
		}
	}
}

func TestDTypes(t *testing.T) {
	for _, c := range []struct {
		dt    DType
		name  string
		size  int
		accum DType
	}{{F32, "f32", 4, F32}, {BF16, "bf16", 2, F32}, {F64, "f64", 8, F64}, {I32, "i32", 4, F32}} {
		if c.dt.String() != c.name || c.dt.Size() != c.size || c.dt.Accum() != c.accum {
			t.Errorf("%v: size %d, sums in %v", c.dt, c.dt.Size(), c.dt.Accum())
		}
		if dt, ok := ParseDType(c.name); !ok || dt != c.dt {
			t.Errorf("%q parses as %v, %v", c.name, dt, ok)
		}
	}
	if dt, ok := ParseDType("invalid"); ok {
		t.Errorf(`"invalid" parses as %v`, dt)
	}
	if s := DType(0).String() + DType(9).String(); s != "invalidinvalid" {
		t.Errorf("dtypes that do not exist are called %q", s)
	}
}
