// RMSNorm for one instruction set.
#include "rows_kernel.h"

// Adds the squares of res, or of x = res + delta, to s.
INLINE void square_step(lanes *s, void *x, const void *res, const void *delta, int64_t j, int64_t left, const int bf16) {
	EACH_VECTOR({
		vec y = load_part(at(res, e, bf16), some, 0, bf16);
		if (delta) {
			y = round_vec(y + load_part(at(delta, e, bf16), some, 0, bf16), bf16);
			store_part(at(x, e, bf16), some, y, bf16);
		}
		s->lane[v] = FMA(y, y, s->lane[v]);
	})
}

INLINE void norm_step(void *y, const void *x, const void *w, vec r, int64_t j, int64_t left, const int bf16) {
	vec h = round_vec(load_part(at(x, j, bf16), left, 0, bf16) * r, bf16);
	store_part(at(y, j, bf16), left, h * load_part(at(w, j, bf16), left, 0, bf16), bf16);
}

INLINE void rms_norm_as(matrix y, float *rstd, matrix x, matrix res, matrix delta, matrix w, double eps,
                        const int bf16) {
	for (int64_t i = 0; i < x.rows; i++) {
		lanes s = {0};
		void *to = row(x, i);
		if (delta.ptr)
			STEPS(x.cols, LANES, square_step(&s, to, row(res, i), row(delta, i), j, left, bf16));
		else
			STEPS(x.cols, LANES, square_step(&s, to, to, 0, j, left, bf16));
		rstd[i] = 1 / sqrt(total(s) / (double)x.cols + eps);
		vec r = BROADCAST(rstd[i]);
		STEPS(x.cols, VL, norm_step(row(y, i), to, w.ptr, r, j, left, bf16));
	}
}

TARGET static void rms_norm(matrix y, float *rstd, matrix x, matrix res, matrix delta, matrix w, double eps) {
	BY_DTYPE(x.bf16, rms_norm_as, y, rstd, x, res, delta, w, eps);
}

// Adds x·w·dy to s.
INLINE void product_step(lanes *s, const void *x, const void *w, const void *dy, int64_t j, int64_t left,
                         const int bf16) {
	EACH_VECTOR({
		vec g = load_part(at(w, e, bf16), some, 0, bf16) * load_part(at(dy, e, bf16), some, 0, bf16);
		s->lane[v] = FMA(load_part(at(x, e, bf16), some, 0, bf16), g, s->lane[v]);
	})
}

INLINE void norm_backward_step(void *dx, float *dw, const void *dy, const void *x, const void *w, vec r, float mean,
                               const int accumulate, int64_t j, int64_t left, const int bf16) {
	vec g = load_part(at(dy, j, bf16), left, 0, bf16), h = load_part(at(x, j, bf16), left, 0, bf16) * r;
	store_part(dw + j, left, load_part(dw + j, left, 0, 0) + g * h, 0);
	vec d = r * (g * load_part(at(w, j, bf16), left, 0, bf16) - h * mean);
	if (accumulate) d += load_part(at(dx, j, bf16), left, 0, bf16);
	store_part(at(dx, j, bf16), left, d, bf16);
}

INLINE void rms_norm_backward_as(matrix dx, float *dw, matrix dy, matrix x, matrix w, const float *rstd,
                                 const int accumulate, const int bf16) {
	memset(dw, 0, 4 * x.cols);
	for (int64_t i = 0; i < x.rows; i++) {
		lanes s = {0};
		STEPS(x.cols, LANES, product_step(&s, row(x, i), w.ptr, row(dy, i), j, left, bf16));
		float mean = total(s) * rstd[i] / x.cols;
		vec r = BROADCAST(rstd[i]);
		STEPS(x.cols, VL, norm_backward_step(row(dx, i), dw, row(dy, i), row(x, i), w.ptr, r, mean, accumulate, j, left,
		                                     bf16));
	}
}

TARGET static void rms_norm_backward(matrix dx, float *dw, matrix dy, matrix x, matrix w, const float *rstd,
                                     int accumulate) {
	if (x.bf16 && accumulate) rms_norm_backward_as(dx, dw, dy, x, w, rstd, 1, 1);
	if (x.bf16 && !accumulate) rms_norm_backward_as(dx, dw, dy, x, w, rstd, 0, 1);
	if (!x.bf16 && accumulate) rms_norm_backward_as(dx, dw, dy, x, w, rstd, 1, 0);
	if (!x.bf16 && !accumulate) rms_norm_backward_as(dx, dw, dy, x, w, rstd, 0, 0);
}
