package tensor

import (
	"math"
	"testing"
)

// TestPhiloxKnownAnswers uses the vectors of Random123 (tests/kat_vectors, philox4x32 10).
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		k0, k1  uint32
		want    [4]uint32
	}{
		{[4]uint32{}, 0, 0, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, math.MaxUint32, math.MaxUint32,
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0,
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox10(c.counter, c.k0, c.k1); got != c.want {
			t.Errorf("counter %x, key %x %x: %x, want %x", c.counter, c.k0, c.k1, got, c.want)
		}
	}
}

func TestPhiloxStreams(t *testing.T) {
	p := NewPhilox(42, "layers.0.wq")
	b := p.Block(3, 5)
	low, high := uint64(b[0])|uint64(b[1])<<32, uint64(b[2])|uint64(b[3])<<32
	if p.Uint64(6, 5) != low || p.Uint64(7, 5) != high {
		t.Errorf("words %x and %x are not block %x", p.Uint64(6, 5), p.Uint64(7, 5), b)
	}
	if b != philox10([4]uint32{3, 0, 5, 0}, p.k0, p.k1) {
		t.Error("a block is not a function of counter and stream")
	}
	for _, q := range []Philox{NewPhilox(43, "layers.0.wq"), NewPhilox(42, "layers.1.wq")} {
		if q == p {
			t.Error("two names or seeds have one key")
		}
	}
	const n = 100_000
	var sum, squares float64
	for i := range uint64(n) {
		u := p.Uniform(i, 1)
		if !(u > 0 && u < 1) {
			t.Fatalf("draw %d is %v", i, u)
		}
		sum += u
		squares += u * u
	}
	// Five standard deviations of the mean and of the mean square.
	if mean := sum / n; math.Abs(mean-1./2) > 5*math.Sqrt(1./12/n) {
		t.Errorf("mean %v", mean)
	}
	if mean := squares / n; math.Abs(mean-1./3) > 5*math.Sqrt(4./45/n) {
		t.Errorf("mean square %v", mean)
	}
}
