// Vectors of floats for one instruction set, shared by the templates, to be included with these macros set:
//
//	TARGET        the attribute that selects the instruction set
//	VL            floats in a vector
//	BROADCAST(x)  a vector of x's
//	FMA(x, y, z)  x·y + z, lane by lane
//	MIN, MAX      of two vectors; if either lane is not a number, the lane of the second
//	SQRT(x)       correctly rounded
//	WIDEN(p)      the VL 16-bit numbers at p
//	NARROW(u)     u, less than 2¹⁶, as 16-bit numbers
#ifndef HERD_VECTOR_H
#define HERD_VECTOR_H

#include <stdint.h>
#include <string.h>

// Products are rounded before they are added, but in FMA. gcc does so by itself in ISO C.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define INLINE TARGET static inline __attribute__((always_inline))

// For loops over registers.
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * VL)));
typedef float unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(4 * VL)));
typedef uint16_t halves __attribute__((vector_size(2 * VL), aligned(2), may_alias));

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The address of element i of fp32, or of bf16.
INLINE void *at(const void *p, int64_t i, int bf16) { return (char *)p + i * (bf16 ? 2 : 4); }

INLINE float load(const void *p, int64_t i, int bf16) {
	if (!bf16) return ((const float *)p)[i];
	uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
	float f;
	memcpy(&f, &u, 4);
	return f;
}

// To nearest, ties to even; a NaN stays one.
INLINE uint16_t to_bf16(float f) {
	uint32_t u;
	memcpy(&u, &f, 4);
	uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
	return (u & 0x7fffffff) > 0x7f800000 ? (u >> 16 | 0x40) : rounded;
}

// load and to_bf16 for a vector.
INLINE vec load_vec(const void *p, int bf16) {
	if (!bf16) return *(const unaligned *)p;
	return (vec)(WIDEN(p) << 16);
}

// x rounded to bf16, in the upper halves; the lower halves have any value.
INLINE bits round_bits(vec x) {
	bits u = (bits)x, rounded = u + 0x7fff + (u >> 16 & 1), nan = (bits)(x != x);
	return rounded ^ ((rounded ^ (u | 0x400000)) & nan);
}

INLINE void store_vec(void *p, vec x, int bf16) {
	if (bf16)
		*(halves *)p = NARROW(round_bits(x) >> 16);
	else
		*(unaligned *)p = x;
}

// x as it would be read from where store_vec stored it.
INLINE vec round_vec(vec x, int bf16) { return bf16 ? (vec)(round_bits(x) & 0xffff0000) : x; }

// load_vec and store_vec of the `left` elements that there are, at most VL. Others read as fill.
INLINE vec load_part(const void *p, int64_t left, float fill, int bf16) {
	if (left >= VL) return load_vec(p, bf16);
	float x[VL];
	store_vec(x, BROADCAST(fill), bf16);
	if (left > 0) memcpy(x, p, left * (bf16 ? 2 : 4));
	return load_vec(x, bf16);
}

INLINE void store_part(void *p, int64_t left, vec x, int bf16) {
	if (left >= VL) {
		store_vec(p, x, bf16);
	} else if (left > 0) {
		float y[VL];
		store_vec(y, x, bf16);
		memcpy(p, y, left * (bf16 ? 2 : 4));
	}
}

// exp(x) = 2ⁿ·exp(r), n = round(x/ln 2), |r| ≤ ln 2 / 2, where a polynomial of degree 6 (minimax, relative error 3e-9)
// stands for exp(r). ln 2 is split so that n·LN2_HIGH is exact. Where the result is a normal number its error is at most
// 1 unit in the last place, 2 without fused multiply-adds; it is 0 below 2⁻¹²⁵·⁵, infinite above the largest float, and
// NaN for NaN. The same bits on every instruction set with fused multiply-adds.
//
// n vectors at once, in turns: one alone would wait for each of its results.
INLINE void exp_vecs(vec *x, const int n) {
	// Numbers of the size of ROUND have steps of 1, so that adding it rounds, and the lower bits of the sum are n + 126:
	// half of 2ⁿ, whose exponent is 0 for results that are too small; hence twice the polynomial.
	const float ROUND = (3 << 22) + 126, LOG2E = 0x1.715476p+0f, LN2_HIGH = 0x1.63p-1f, LN2_LOW = -0x1.bd0106p-13f;
	const float TWICE[] = {2.0f, 2.0f, 0x1.fffffcp-1f, 0x1.555492p-2f, 0x1.5558f2p-4f, 0x1.123a0ap-6f, 0x1.6a23f2p-9f};
	vec half[16], p[16];
	UNROLL for (int i = 0; i < n; i++) x[i] = MAX(BROADCAST(-87.5f), MIN(BROADCAST(89.0f), x[i]));
	UNROLL for (int i = 0; i < n; i++) half[i] = FMA(x[i], BROADCAST(LOG2E), BROADCAST(ROUND));
	UNROLL for (int i = 0; i < n; i++) x[i] = FMA(half[i] - ROUND, BROADCAST(-LN2_HIGH), x[i]);
	UNROLL for (int i = 0; i < n; i++) x[i] = FMA(half[i] - ROUND, BROADCAST(-LN2_LOW), x[i]);
	UNROLL for (int i = 0; i < n; i++) p[i] = BROADCAST(TWICE[6]);
	UNROLL for (int k = 5; k >= 0; k--)
		UNROLL for (int i = 0; i < n; i++) p[i] = FMA(x[i], p[i], BROADCAST(TWICE[k]));
	UNROLL for (int i = 0; i < n; i++) x[i] = p[i] * (vec)((bits)half[i] << 23);
}

#endif
