package parallel

import "math"

// Exact is a sum of float64 numbers without rounding: of limbs of 32 bits in fixed point, so that neither the order of
// the terms nor how they are spread over ranks can be seen in the result. It takes 2³⁰ terms between two calls of
// Limbs, or of Add of another sum's limbs.
type Exact struct {
	limbs [ExactLimbs]int64 // of 2^(32·i − exactBias)
	odd   float64           // the sum of the terms that are not finite
}

// ExactLimbs is the length of Limbs: from 2⁻¹⁰⁷⁴, the smallest float64, to the largest, a place for carries, and the sum
// of the terms that are not finite.
const (
	ExactLimbs = 68
	exactBias  = 1088
)

// Add adds x.
func (e *Exact) Add(x float64) {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		e.odd += x
		return
	}
	frac, exp := math.Frexp(x) // x = frac·2^exp, |frac| in [½, 1)
	m := int64(math.Ldexp(frac, 53))
	if m == 0 {
		return
	}
	shift := exp - 53 + exactBias // of m's lowest bit
	i, by := shift/32, uint(shift%32)
	sign := int64(1)
	if m < 0 {
		sign, m = -1, -m
	}
	low := uint64(m) << by // may lose the upper bits, which follow
	high := uint64(m) >> (32 - by) >> 32
	e.limbs[i] += sign * int64(low&math.MaxUint32)
	e.limbs[i+1] += sign * int64(low>>32)
	e.limbs[i+2] += sign * int64(high)
}

// Limbs writes the sum to dst [ExactLimbs] as whole numbers of less than 33 bits, which float64 sums of 2²⁰ ranks add up
// exactly, and the sum of what is not finite in the last place.
func (e *Exact) Limbs(dst []float64) {
	e.carry()
	for i, v := range e.limbs[:ExactLimbs-1] {
		dst[i] = float64(v)
	}
	dst[ExactLimbs-1] = e.odd
}

// SetLimbs makes e the sum of limbs that were added up, element by element.
func (e *Exact) SetLimbs(src []float64) {
	for i, v := range src[:ExactLimbs-1] {
		e.limbs[i] = int64(v)
	}
	e.odd = src[ExactLimbs-1]
}

// carry leaves every limb but the last in [0, 2³²).
func (e *Exact) carry() {
	for i := range ExactLimbs - 2 {
		e.limbs[i+1] += e.limbs[i] >> 32
		e.limbs[i] &= math.MaxUint32
	}
}

// Value is the sum, rounded by at most a few units of the last place: the same bits for the same sum.
func (e *Exact) Value() float64 {
	if e.odd != 0 || math.IsNaN(e.odd) {
		return e.odd
	}
	e.carry()
	size, sign := *e, 1.0
	if e.limbs[ExactLimbs-2] < 0 { // and all others are not
		sign = -1
		for i := range size.limbs {
			size.limbs[i] *= -1
		}
		size.carry()
	}
	var v float64
	for i := ExactLimbs - 2; i >= 0; i-- {
		v += math.Ldexp(float64(size.limbs[i]), 32*i-exactBias)
	}
	return sign * v
}
