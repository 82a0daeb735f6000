package tensor

import "math"

// DType is the element type of a Buffer.
type DType uint8

// The element types. BF16 is the upper half of an IEEE 754 binary32; weights and activations are stored in it while
// sums are kept in F32. F64 exists for numerical checks: the whole model runs in it.
const (
	F32 DType = iota + 1
	BF16
	F64
	I32
)

var dtypeNames = [...]string{F32: "f32", BF16: "bf16", F64: "f64", I32: "i32"}

// String is the name used in files and messages: f32, bf16, f64, i32.
func (d DType) String() string {
	if int(d) < len(dtypeNames) && d != 0 {
		return dtypeNames[d]
	}
	return "invalid"
}

// ParseDType is the inverse of String.
func ParseDType(s string) (DType, bool) {
	for d := F32; int(d) < len(dtypeNames); d++ {
		if dtypeNames[d] == s {
			return d, true
		}
	}
	return 0, false
}

// Size is the bytes of one element.
func (d DType) Size() int {
	switch d {
	case BF16:
		return 2
	case F32, I32:
		return 4
	case F64:
		return 8
	}
	panic("tensor: size of an invalid dtype")
}

// Accum is the type in which sums over elements of d are kept, and in which gradients, moments and row statistics are
// stored: F64 for F64, else F32.
func (d DType) Accum() DType {
	if d == F64 {
		return F64
	}
	return F32
}

// BFloat16 is a bfloat16 by its bits.
type BFloat16 uint16

// ToBFloat16 rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
func ToBFloat16(f float32) BFloat16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return BFloat16(u>>16 | 0x40)
	}
	return BFloat16((u + 0x7fff + u>>16&1) >> 16)
}

// Float32 is exact.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }
