package dataset

import (
	"math/bits"

	"github.com/herdtrain/herd/tensor"
)

// permutation is a keyed bijection of 0 … n−1 for each epoch, without tables: a Feistel network over the smallest even
// number of bits that hold n, with Philox as its round function, applied again while the result is outside the range
// (cycle walking; under 4 times on average).
type permutation struct {
	n    uint64
	half int // bits in each half
	key  tensor.Philox
}

const feistelRounds = 8

func newPermutation(n int64, seed uint64, name string) permutation {
	return permutation{uint64(n), (bits.Len64(uint64(n-1)) + 1) / 2, tensor.NewPhilox(seed, name)}
}

// at is the image of i, 0 ≤ i < n, in an epoch, 0 ≤ epoch < 2⁵⁶.
func (p permutation) at(i, epoch int64) int64 {
	x := uint64(i)
	for {
		if x = p.feistel(x, uint64(epoch)); x < p.n {
			return int64(x)
		}
	}
}

func (p permutation) feistel(x, epoch uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	left, right := x>>p.half, x&mask
	for round := range uint64(feistelRounds) {
		left, right = right, left^uint64(p.key.Block(right, epoch<<8|round)[0])&mask
	}
	return left<<p.half | right
}
