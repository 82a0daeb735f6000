package cpu

import "math"

// expScaled sets dst[i] = exp(x[i]·scale − shift). dst may be x. In float32 the error of the exponential is at most one
// unit in the last place.
func expScaled[A float](dst, x []A, scale, shift A) {
	switch x := any(x).(type) {
	case []float32:
		expScaled32(any(dst).([]float32), x, float32(scale), float32(shift))
	case []float64:
		dst := any(dst).([]float64)[:len(x)]
		for i, v := range x {
			dst[i] = math.Exp(v*float64(scale) - float64(shift))
		}
	}
}

// expScaled32 computes exp(x) as 2^n · exp(r) with n = round(x/ln 2), |r| ≤ ln 2 / 2, and a polynomial of degree 6 for
// exp(r) (coefficients of Cephes, expf.c). ln 2 is split so that n·ln2High is exact. Beyond low and high 2^n is not a
// normal number.
func expScaled32(dst, x []float32, scale, shift float32) {
	const (
		low, high  = -87, 88
		log2E      = 1.44269504088896341
		ln2High    = 0.693359375
		ln2Low     = -2.12194440e-4
		roundMagic = 3 << 22 // float32 numbers of this size have steps of 1: adding it rounds
	)
	dst = dst[:len(x)]
	for i, v := range x {
		v = float32(v*scale) - shift
		if !(v > low && v < high) {
			dst[i] = float32(math.Exp(float64(v)))
			continue
		}
		n := float32(v*log2E) + roundMagic
		power := math.Float32frombits((math.Float32bits(n) + 127) << 23)
		n -= roundMagic
		// The conversions keep the compiler from fusing, which it may do on some architectures.
		r := v - float32(n*ln2High) - float32(n*ln2Low)
		r2 := float32(r * r)
		p := float32((float32(1.9875691500e-4*r)+1.3981999507e-3)*r2) + (float32(8.3334519073e-3*r) + 4.1665795894e-2)
		p = float32(p*r2) + (float32(1.6666665459e-1*r) + 5.0000001201e-1)
		dst[i] = (float32(p*r2) + r + 1) * power
	}
}

// sum adds v in an order that depends on its length alone.
func sum[A float](v []A) A {
	var s0, s1, s2, s3 A
	for ; len(v) >= 4; v = v[4:] {
		s0 += v[0]
		s1 += v[1]
		s2 += v[2]
		s3 += v[3]
	}
	for _, x := range v {
		s0 += x
	}
	return (s0 + s1) + (s2 + s3)
}

// dot is Σ a[i]·b[i] in an order that depends on the length alone.
func dot[A float](a, b []A) A {
	var s0, s1, s2, s3 A
	for ; len(a) >= 4 && len(b) >= 4; a, b = a[4:], b[4:] {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}
