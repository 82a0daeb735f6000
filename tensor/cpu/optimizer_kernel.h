// AdamW, the sums of gradients, additions and casts for one instruction set.
#include "rows_kernel.h"

INLINE void adamw_step(void *p, float *master, float *m, float *v, const float *g, const adamw_numbers *s, int64_t j,
                       int64_t left, const int bf16) {
	vec grad = load_part(g + j, left, 0, 0) * s->clip, mean = load_part(m + j, left, 0, 0);
	mean = mean + s->rest1 * (grad - mean);
	vec square = s->beta2 * load_part(v + j, left, 0, 0) + s->rest2 * grad * grad;
	vec w = load_part(master + j, left, 0, 0) * s->keep - s->rate * (mean / (SQRT(square) / s->root2 + s->eps));
	store_part(m + j, left, mean, 0);
	store_part(v + j, left, square, 0);
	store_part(master + j, left, w, 0);
	if (bf16 || p != master) store_part(at(p, j, bf16), left, w, bf16);
}

TARGET static void adamw(matrix p, float *master, float *m, float *v, const float *g, adamw_numbers s) {
	if (p.bf16)
		STEPS(p.cols, VL, adamw_step(p.ptr, master, m, v, g, &s, j, left, 1));
	else
		STEPS(p.cols, VL, adamw_step(p.ptr, master, m, v, g, &s, j, left, 0));
}

// The lanes of a sum in double.
enum { WIDE = VL / 2, DOUBLES = 16 };

typedef double wide __attribute__((vector_size(8 * WIDE)));
typedef float some_floats __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));
typedef uint32_t some_bits __attribute__((vector_size(4 * WIDE)));
typedef uint16_t some_halves __attribute__((vector_size(2 * WIDE), aligned(2), may_alias));

// Adds DOUBLES elements or their squares to s.
INLINE void wide_step(wide *s, const void *x, const int squares, const int bf16) {
	UNROLL for (int v = 0; v < DOUBLES / WIDE; v++) {
		const void *p = at(x, v * WIDE, bf16);
		some_floats f;
		if (bf16)
			f = (some_floats)(__builtin_convertvector(*(const some_halves *)p, some_bits) << 16);
		else
			f = *(const some_floats *)p;
		wide y = __builtin_convertvector(f, wide);
		s[v] += squares ? y * y : y;
	}
}

INLINE double wide_sum(const void *x, int64_t n, const int squares, const int bf16) {
	wide s[DOUBLES / WIDE] = {0};
	int64_t j = 0;
	for (; j + DOUBLES <= n; j += DOUBLES) wide_step(s, at(x, j, bf16), squares, bf16);
	if (j < n) {
		float end[DOUBLES];
		for (int i = 0; i < DOUBLES; i++) end[i] = j + i < n ? load(x, j + i, bf16) : 0;
		wide_step(s, end, squares, 0);
	}
	double y[DOUBLES];
	memcpy(y, s, sizeof y);
	for (int k = DOUBLES / 2; k > 0; k /= 2)
		for (int i = 0; i < k; i++) y[i] += y[i + k];
	return y[0];
}

TARGET static void sum(double *sums, matrix x, int64_t block, int squares) {
	for (int64_t i = 0; i < x.cols; i += block, sums++) {
		const void *p = at(x.ptr, i, x.bf16);
		const int64_t n = least(block, x.cols - i);
		if (x.bf16 && squares) *sums = wide_sum(p, n, 1, 1);
		if (x.bf16 && !squares) *sums = wide_sum(p, n, 0, 1);
		if (!x.bf16 && squares) *sums = wide_sum(p, n, 1, 0);
		if (!x.bf16 && !squares) *sums = wide_sum(p, n, 0, 0);
	}
}

INLINE void cast_step(void *to, const void *from, int64_t j, int64_t left, const int to_bf16, const int from_bf16) {
	store_part(at(to, j, to_bf16), left, load_part(at(from, j, from_bf16), left, 0, from_bf16), to_bf16);
}

TARGET static void cast(matrix dst, matrix src) {
	if (dst.bf16)
		STEPS(src.cols, VL, cast_step(dst.ptr, src.ptr, j, left, 1, 0));
	else
		STEPS(src.cols, VL, cast_step(dst.ptr, src.ptr, j, left, 0, 1));
}

INLINE void add_step(float *to, const float *a, const void *b, int64_t j, int64_t left, const int bf16) {
	store_part(to + j, left, load_part(a + j, left, 0, 0) + load_part(at(b, j, bf16), left, 0, bf16), 0);
}

TARGET static void add(float *dst, const float *a, const float *b, int64_t n) {
	STEPS(n, VL, add_step(dst, a, b, j, left, 0));
}

TARGET static void embed_backward(matrix dw, matrix dx, const int32_t *ids) {
	for (int64_t i = 0; i < dx.rows; i++) {
		if (!in_range(ids[i], dw.rows)) continue;
		float *to = row(dw, ids[i]);
		if (dx.bf16)
			STEPS(dx.cols, VL, add_step(to, to, row(dx, i), j, left, 1));
		else
			STEPS(dx.cols, VL, add_step(to, to, row(dx, i), j, left, 0));
	}
}
