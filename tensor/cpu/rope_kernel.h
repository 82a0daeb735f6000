// RoPE for one instruction set.
#include "rows_kernel.h"

INLINE void rope_step(void *lo, void *hi, const float *cos, const float *sin, int64_t j, int64_t left, const int bf16) {
	vec a = load_part(at(lo, j, bf16), left, 0, bf16), b = load_part(at(hi, j, bf16), left, 0, bf16);
	vec c = load_part(cos + j, left, 0, 0), s = load_part(sin + j, left, 0, 0);
	store_part(at(lo, j, bf16), left, a * c - b * s, bf16);
	store_part(at(hi, j, bf16), left, b * c + a * s, bf16);
}

enum { PAIRS = 256 }; // of a head that are rotated at once

INLINE void rope_as(matrix x, const int32_t *pos, const float *table, int64_t head_dim, int inverse, const int bf16) {
	float cos[PAIRS], sin[PAIRS];
	for (int64_t i = 0; i < x.rows; i++)
		for (int64_t first = 0; first < head_dim / 2; first += PAIRS) {
			int64_t pairs = least(PAIRS, head_dim / 2 - first);
			const float *angle = table + pos[i] * head_dim + 2 * first;
			for (int64_t j = 0; j < pairs; j++) cos[j] = angle[2 * j], sin[j] = angle[2 * j + 1];
			if (inverse)
				for (int64_t j = 0; j < pairs; j++) sin[j] = -sin[j];
			for (int64_t head = 0; head < x.cols; head += head_dim) {
				void *lo = at(row(x, i), head + first, bf16), *hi = at(lo, head_dim / 2, bf16);
				STEPS(pairs, VL, rope_step(lo, hi, cos, sin, j, left, bf16));
			}
		}
}

TARGET static void rope(matrix x, const int32_t *pos, const float *table, int64_t head_dim, int inverse) {
	BY_DTYPE(x.bf16, rope_as, x, pos, table, head_dim, inverse);
}
