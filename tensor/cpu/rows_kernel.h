// What the operations on rows share, to be included with the macros of vector.h.
//
// Only exponentials and sums over rows use fused multiply-adds: all else has the same bits on every instruction set. Sums
// are kept in a fixed number of lanes, element i in lane i mod LANES, that are added as a tree: their order depends on
// the length alone. The end of a row goes through the same vectors, padded.
#ifndef HERD_ROWS_KERNEL_H
#define HERD_ROWS_KERNEL_H

#include <math.h>

#include "kernels.h"
#include "vector.h"

enum { LANES = 32, VECTORS = LANES / VL }; // of a sum over a row

// Runs call for every step of `step` elements of n: j is the first, left how many there are, a constant but at the end.
#define STEPS(n, step, call)                     \
	do {                                         \
		int64_t j = 0;                           \
		for (; j + (step) <= (n); j += (step)) { \
			const int64_t left = (step);         \
			call;                                \
		}                                        \
		if (j < (n)) {                           \
			const int64_t left = (n) - j;        \
			call;                                \
		}                                        \
	} while (0)

// Runs a block for the vectors of a step of LANES: v is the vector's number, e its first element, `some` how many elements
// it has, which may be none.
#define EACH_VECTOR(...)                                    \
	UNROLL for (int v = 0; v < VECTORS; v++) {              \
		const int64_t e = j + v * VL, some = left - v * VL; \
		__VA_ARGS__                                         \
	}

typedef struct {
	vec lane[VECTORS];
} lanes;

INLINE float total(lanes s) {
	for (int n = VECTORS / 2; n > 0; n /= 2)
		UNROLL for (int i = 0; i < n; i++) s.lane[i] += s.lane[i + n];
	float t[VL];
	*(unaligned *)t = s.lane[0];
	for (int n = VL / 2; n > 0; n /= 2)
		for (int i = 0; i < n; i++) t[i] += t[i + n];
	return t[0];
}

INLINE float largest(const lanes *s) {
	float x[LANES];
	memcpy(x, s, sizeof x);
	for (int i = 1; i < LANES; i++) x[0] = x[i] > x[0] ? x[i] : x[0];
	return x[0];
}

// f with a last argument that is a constant.
#define BY_DTYPE(bf16, f, ...) ((bf16) ? f(__VA_ARGS__, 1) : f(__VA_ARGS__, 0))

INLINE int in_range(int64_t i, int64_t n) { return i >= 0 && i < n; }

INLINE void *row(matrix m, int64_t i) { return at(m.ptr, i * m.stride, m.bf16); }

#endif
