// SwiGLU for one instruction set.
#include "rows_kernel.h"

INLINE void swiglu_step(void *h, const void *g, const void *u, int64_t j, int64_t left, const int bf16) {
	vec exps[VECTORS];
	EACH_VECTOR(exps[v] = -load_part(at(g, e, bf16), some, 0, bf16);)
	exp_vecs(exps, VECTORS);
	EACH_VECTOR({
		vec x = load_part(at(g, e, bf16), some, 0, bf16), y = load_part(at(u, e, bf16), some, 0, bf16);
		store_part(at(h, e, bf16), some, x / (1 + exps[v]) * y, bf16);
	})
}

INLINE void swiglu_as(matrix h, matrix gu, const int bf16) {
	for (int64_t i = 0; i < h.rows; i++) {
		const void *g = row(gu, i), *u = at(g, h.cols, bf16);
		STEPS(h.cols, LANES, swiglu_step(row(h, i), g, u, j, left, bf16));
	}
}

TARGET static void swiglu(matrix h, matrix gu) {
	BY_DTYPE(h.bf16, swiglu_as, h, gu);
}

INLINE void swiglu_backward_step(void *dg, void *du, const void *dh, const void *g, const void *u, int64_t j,
                                 int64_t left, const int bf16) {
	vec exps[VECTORS];
	EACH_VECTOR(exps[v] = -load_part(at(g, e, bf16), some, 0, bf16);)
	exp_vecs(exps, VECTORS);
	EACH_VECTOR({
		vec x = load_part(at(g, e, bf16), some, 0, bf16), y = load_part(at(u, e, bf16), some, 0, bf16);
		vec d = load_part(at(dh, e, bf16), some, 0, bf16), sigma = 1 / (1 + exps[v]);
		store_part(at(dg, e, bf16), some, d * y * sigma * (1 + x * (1 - sigma)), bf16);
		store_part(at(du, e, bf16), some, d * x * sigma, bf16);
	})
}

INLINE void swiglu_backward_as(matrix dgu, matrix dh, matrix gu, const int bf16) {
	for (int64_t i = 0; i < dh.rows; i++) {
		const void *g = row(gu, i), *u = at(g, dh.cols, bf16);
		void *dg = row(dgu, i), *du = at(dg, dh.cols, bf16);
		STEPS(dh.cols, LANES, swiglu_backward_step(dg, du, row(dh, i), g, u, j, left, bf16));
	}
}

TARGET static void swiglu_backward(matrix dgu, matrix dh, matrix gu) {
	BY_DTYPE(dh.bf16, swiglu_backward_as, dgu, dh, gu);
}
