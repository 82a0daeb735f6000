package checkpoint

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/herdtrain/herd/tensor"
)

// widenings make fp32 of the elements of src, by dtype, in dst. src may be the end of dst.
var widenings = map[string]func(dst, src []byte){
	"F32":  func(dst, src []byte) { copy(dst, src) },
	"BF16": widenBF16,
	"F16":  widenF16,
}

// narrowings round fp32 elements to the nearest of a dtype, ties to even; those too large become infinite. dst may be the
// beginning of src.
var narrowings = map[string]func(dst, src []byte){
	"F32":  func(dst, src []byte) { copy(dst, src) },
	"BF16": narrowBF16,
	"F16":  narrowF16,
}

func widenBF16(dst, src []byte) {
	for i := 0; i < len(src); i += 2 {
		binary.LittleEndian.PutUint32(dst[2*i:], uint32(binary.LittleEndian.Uint16(src[i:]))<<16)
	}
}

func narrowBF16(dst, src []byte) {
	for i := 0; i < len(src); i += 4 {
		x := math.Float32frombits(binary.LittleEndian.Uint32(src[i:]))
		binary.LittleEndian.PutUint16(dst[i/2:], uint16(tensor.ToBFloat16(x)))
	}
}

func widenF16(dst, src []byte) {
	for i := 0; i < len(src); i += 2 {
		binary.LittleEndian.PutUint32(dst[2*i:], fromF16(binary.LittleEndian.Uint16(src[i:])))
	}
}

func narrowF16(dst, src []byte) {
	for i := 0; i < len(src); i += 4 {
		binary.LittleEndian.PutUint16(dst[i/2:], toF16(binary.LittleEndian.Uint32(src[i:])))
	}
}

// fromF16 is the fp32 bits of an IEEE 754 half: 1 sign, 5 exponent, 10 mantissa bits.
func fromF16(h uint16) uint32 {
	sign, exp, man := uint32(h>>15)<<31, uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exp == 0x1f: // infinite, or no number
		return sign | 0xff<<23 | man<<13
	case exp == 0 && man == 0:
		return sign
	case exp == 0: // subnormal: man·2⁻²⁴
		shift := uint32(bits.LeadingZeros32(man)) - 21
		return sign | (113-shift)<<23 | (man<<shift&0x3ff)<<13
	}
	return sign | (exp+112)<<23 | man<<13
}

// toF16 rounds fp32 bits to a half.
func toF16(f uint32) uint16 {
	sign, exp, man := uint16(f>>16)&0x8000, int(f>>23)&0xff, f&0x7fffff
	switch e := exp - 112; {
	case exp == 0xff && man != 0:
		return sign | 0x7e00 | uint16(man>>13)
	case e >= 0x1f: // too large, or infinite
		return sign | 0x7c00
	case e <= -11: // below half of the smallest
		return sign
	case e <= 0: // subnormal
		man |= 1 << 23
		shift := uint32(14 - e)
		return sign | uint16(roundEven(man, shift))
	default:
		return sign | uint16(roundEven(uint32(e)<<23|man, 13)) // a carry goes into the exponent
	}
}

// roundEven is x/2^shift, rounded to the nearest whole number, ties to even.
func roundEven(x, shift uint32) uint32 {
	half := uint32(1) << (shift - 1)
	return (x + half - 1 + x>>shift&1) >> shift
}
