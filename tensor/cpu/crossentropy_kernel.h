// CrossEntropy for one instruction set: three passes over a row, or two without gradient. Of a shard of the vocabulary,
// LogSumExp is the two, and CrossEntropyShard the third.
#include "rows_kernel.h"

INLINE void max_step(lanes *m, const void *x, int64_t j, int64_t left, const int bf16) {
	EACH_VECTOR(m->lane[v] = MAX(load_part(at(x, e, bf16), some, -INFINITY, bf16), m->lane[v]);)
}

// Adds exp(x − top) to s.
INLINE void exp_step(lanes *s, const void *x, vec top, int64_t j, int64_t left, const int bf16) {
	vec y[VECTORS];
	EACH_VECTOR(y[v] = load_part(at(x, e, bf16), some, -INFINITY, bf16) - top;)
	exp_vecs(y, VECTORS);
	UNROLL for (int v = 0; v < VECTORS; v++) s->lane[v] += y[v];
}

INLINE float largest_of(const void *x, int64_t n, const int bf16) {
	lanes m;
	for (int v = 0; v < VECTORS; v++) m.lane[v] = BROADCAST(-INFINITY);
	STEPS(n, LANES, max_step(&m, x, j, left, bf16));
	return largest(&m);
}

INLINE float sum_of_exps(const void *x, float top, int64_t n, const int bf16) {
	lanes s = {0};
	vec tops = BROADCAST(top);
	STEPS(n, LANES, exp_step(&s, x, tops, j, left, bf16));
	return total(s);
}

INLINE void softmax_step(void *x, vec top, vec factor, int64_t j, int64_t left, const int bf16) {
	vec y[VECTORS];
	EACH_VECTOR(y[v] = load_part(at(x, e, bf16), some, 0, bf16) - top;)
	exp_vecs(y, VECTORS);
	EACH_VECTOR(store_part(at(x, e, bf16), some, y[v] * factor, bf16);)
}

INLINE void cross_entropy_as(double (*loss)[2], matrix logits, const int32_t *targets, float scale, int grad,
                             const int bf16) {
	const int64_t n = logits.cols;
	for (int64_t i = 0; i < logits.rows; i++) {
		void *x = row(logits, i);
		if (targets[i] < 0) {
			loss[i][0] = 1;
			loss[i][1] = 0;
			if (grad) memset(x, 0, n * (bf16 ? 2 : 4));
			continue;
		}
		float top = largest_of(x, n, bf16), sum = sum_of_exps(x, top, n, bf16), target = load(x, targets[i], bf16);
		loss[i][0] = sum;
		loss[i][1] = (double)top - target;
		if (!grad) continue;
		vec tops = BROADCAST(top), factor = BROADCAST(scale / sum);
		STEPS(n, LANES, softmax_step(x, tops, factor, j, left, bf16));
		vec hit = BROADCAST(target - top);
		exp_vecs(&hit, 1);
		store_part(at(x, targets[i], bf16), 1, (hit / sum - 1) * scale, bf16);
	}
}

TARGET static void cross_entropy(double (*loss)[2], matrix logits, const int32_t *targets, float scale, int grad) {
	BY_DTYPE(logits.bf16, cross_entropy_as, loss, logits, targets, scale, grad);
}

INLINE void log_sum_exp_as(double (*lse)[2], matrix logits, const int bf16) {
	for (int64_t i = 0; i < logits.rows; i++) {
		const void *x = row(logits, i);
		float top = largest_of(x, logits.cols, bf16);
		if (top == -INFINITY) top = 0; // the difference of two such logits is not a number
		lse[i][0] = sum_of_exps(x, top, logits.cols, bf16);
		lse[i][1] = top;
	}
}

TARGET static void log_sum_exp(double (*lse)[2], matrix logits) {
	BY_DTYPE(logits.bf16, log_sum_exp_as, lse, logits);
}

INLINE void cross_entropy_shard_as(float *loss, matrix logits, const int32_t *targets, const float *lse, float scale,
                                   int grad, const int bf16) {
	const int64_t n = logits.cols;
	for (int64_t i = 0; i < logits.rows; i++) {
		void *x = row(logits, i);
		const int here = in_range(targets[i], n);
		float l = lse[i], target = here ? load(x, targets[i], bf16) : 0;
		loss[i] = here ? l - target : 0;
		if (!grad) continue;
		if (targets[i] == NO_TARGET) {
			memset(x, 0, n * (bf16 ? 2 : 4));
			continue;
		}
		vec whole = BROADCAST(l), factor = BROADCAST(scale);
		STEPS(n, LANES, softmax_step(x, whole, factor, j, left, bf16));
		if (!here) continue;
		vec hit = BROADCAST(target - l);
		exp_vecs(&hit, 1);
		store_part(at(x, targets[i], bf16), 1, (hit - 1) * scale, bf16);
	}
}

TARGET static void cross_entropy_shard(float *loss, matrix logits, const int32_t *targets, const float *lse,
                                       float scale, int grad) {
	BY_DTYPE(logits.bf16, cross_entropy_shard_as, loss, logits, targets, lse, scale, grad);
}

INLINE void exps_step(float *x, int64_t left) {
	vec y = load_part(x, left, 0, 0);
	exp_vecs(&y, 1);
	store_part(x, left, y, 0);
}

TARGET static void exps(float *x, int64_t n) {
	STEPS(n, VL, exps_step(x + j, left));
}
