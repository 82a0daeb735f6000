package tensor

import "math/bits"

// Philox is the counter-based generator Philox4x32-10 (Salmon et al. 2011): a pure function of key and counter, so that
// element i of a tensor gets the same draw wherever it lives.
type Philox struct{ k0, k1 uint32 }

// NewPhilox keys a generator by a seed and a name (of a tensor, of a permutation).
func NewPhilox(seed uint64, name string) Philox {
	h := uint64(14695981039346656037) // FNV-1a of the name, then mixed with the seed
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= seed
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return Philox{uint32(h), uint32(h >> 32)}
}

// Block is the four words for counter (c, stream).
func (p Philox) Block(c, stream uint64) [4]uint32 {
	return philox10([4]uint32{uint32(c), uint32(c >> 32), uint32(stream), uint32(stream >> 32)}, p.k0, p.k1)
}

// Uint64 is the i-th word of the stream.
func (p Philox) Uint64(i, stream uint64) uint64 {
	b := p.Block(i/2, stream)
	if i%2 == 0 {
		return uint64(b[0]) | uint64(b[1])<<32
	}
	return uint64(b[2]) | uint64(b[3])<<32
}

// Uniform is the i-th draw of the stream, in the open interval (0, 1) with 52 random bits.
func (p Philox) Uniform(i, stream uint64) float64 {
	return (float64(p.Uint64(i, stream)>>12) + 0.5) * 0x1p-52
}

func philox10(c [4]uint32, k0, k1 uint32) [4]uint32 {
	for range 10 {
		h0, l0 := bits.Mul32(0xD2511F53, c[0])
		h1, l1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}
