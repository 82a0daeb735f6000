// Attention for one instruction set, on the packed panels and the register tile of gemm_kernel.h.
//
// Forward, the scores of a key block are computed with the queries in the columns of the tiles: softmax works lane by
// lane, and a column of tiles is already the panel that the product with the values reads. The sums of the output are
// kept transposed, [head_dim][NR queries], and turned when they are stored.
#ifndef HERD_ATTENTION_KERNEL_H
#define HERD_ATTENTION_KERNEL_H

#include <float.h>

#include "gemm_kernel.h"
#include "rows_kernel.h"

enum {
	QUERIES = 128,        // for which a packed key block is used
	KEYS = 192 / MR * MR, // in a key block; their scores stay in the L1 cache
	CHUNK = 4 * VL,       // floats that go through exp_vecs together
};

_Static_assert(QUERIES % NR == 0 && MR * NR % CHUNK == 0 && CHUNK % NR % VL == 0 && NR <= CHUNK, "tiles are whole");

typedef int32_t ints __attribute__((vector_size(4 * VL)));

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

INLINE matrix columns(matrix m, int64_t from, int64_t n) {
	m.ptr = at(m.ptr, from, m.bf16);
	m.cols = n;
	return m;
}

// What the queries of a panel or a tile see: each one the keys from first to last, some of them those in [from, to), all
// of them those in [all_from, all_to).
typedef struct {
	int32_t first[NR], last[NR];
	int64_t from, to, all_from, all_to;
} sight;

// Sets v for the n queries from i0 on; up to `width` the last one is repeated. The first of a query that sees no key is
// behind its last.
TARGET static void look(sight *v, const attention_shape *s, int64_t keys, int64_t i0, int64_t n, int width) {
	v->from = v->all_to = INT64_MAX;
	v->to = v->all_from = 0;
	for (int r = 0; r < width; r++) {
		const int64_t i = i0 + least(r, n - 1), position = s->offset + i, last = least(position - s->start, keys - 1);
		int64_t first = s->first ? least(s->first[i], position) : 0;
		if (s->window > 0 && first <= position - s->window) first = position - s->window + 1;
		first = first > s->start ? first - s->start : 0;
		v->first[r] = first;
		v->last[r] = last;
		if (first < v->from) v->from = first;
		if (first > v->all_from) v->all_from = first;
		if (last >= v->to) v->to = last + 1;
		if (last < v->all_to) v->all_to = last + 1;
	}
}

// Stores the transpose of a panel [d][NR] in rows i, … of m, as many as there are, row r times scale[r]. work has room
// for NR·d + SLACK floats.
TARGET static void store_panel(matrix m, int64_t i, const float *panel, const float *scale, float *work) {
	const int64_t d = m.cols;
	pack_rows(work, d, panel, NR, d, NR, 0);
	for (int64_t r = 0; r < least(NR, m.rows - i); r++) {
		vec by = BROADCAST(scale[r]);
		STEPS(d, VL, store_part(at(row(m, i + r), j, m.bf16), left, load_part(work + r * d + j, left, 0, 0) * by, m.bf16));
	}
}

// A panel of NR queries.
typedef struct {
	sight sight;
	float top[NR], total[NR]; // of the scores so far: the largest, and the sum of exp((score − top)·scale)
	int begun;
} query_panel;

// The largest of top and the scores of a tile of keys, all the same columns.
INLINE void raise(vec *top, const float *tile) {
	UNROLL for (int r = 0; r < MR; r += 2)
		UNROLL for (int v = 0; v < NR / VL; v++) {
			const float *x = tile + r * NR + v * VL;
			top[v] = MAX(MAX(*(const unaligned *)x, *(const unaligned *)(x + NR)), top[v]);
		}
}

// Sets the scores of a tile of keys, from `key` on, that are not visible to −∞.
INLINE void hide(float *tile, const sight *see, int64_t key) {
	for (int r = 0; r < MR; r++)
		UNROLL for (int v = 0; v < NR / VL; v++) {
			const int32_t k = key + r;
			ints first, last;
			memcpy(&first, see->first + v * VL, sizeof first);
			memcpy(&last, see->last + v * VL, sizeof last);
			unaligned *x = (unaligned *)(tile + r * NR + v * VL);
			bits seen = (bits)((first <= k) & (last >= k));
			*x = (vec)(((bits)*x & seen) | (~seen & (bits)BROADCAST(-INFINITY)));
		}
}

// Adds nk keys from j0 on, packed, to the outputs of a panel of queries: sums [d][NR], d a multiple of MR. keys are
// [nk/MR][depth][MR], values [d/MR][nk][MR], q [depth][NR].
TARGET static void attend(query_panel *p, float *sums, int64_t d, const float *q, int64_t depth, const float *keys,
                          const float *values, int64_t j0, int64_t nk, float scale, float *scores) {
	const int64_t lo = p->sight.from > j0 ? (p->sight.from - j0) / MR * MR : 0, hi = least(p->sight.to - j0, nk);
	if (lo >= hi) return;
	vec top[NR / VL], factor[NR / VL], by = BROADCAST(scale), total[CHUNK / VL] = {0};
	memcpy(top, p->top, sizeof top);
	int64_t t = lo;
	for (; t < hi; t += MR) {
		float *tile = scores + t * NR;
		multiply(tile, keys + t * depth, q, depth, 0);
		if (j0 + t < p->sight.all_from || j0 + t + MR > p->sight.all_to) hide(tile, &p->sight, j0 + t);
		raise(top, tile);
	}
	memcpy(factor, p->top, sizeof factor);
	memcpy(p->top, top, sizeof top);
	UNROLL for (int v = 0; v < NR / VL; v++) factor[v] = (factor[v] - top[v]) * by;
	exp_vecs(factor, NR / VL);
	for (int64_t e = lo * NR; e < t * NR; e += CHUNK) {
		vec x[CHUNK / VL];
		UNROLL for (int v = 0; v < CHUNK / VL; v++)
			x[v] = (*(unaligned *)(scores + e + v * VL) - top[v % (NR / VL)]) * by;
		exp_vecs(x, CHUNK / VL);
		UNROLL for (int v = 0; v < CHUNK / VL; v++) {
			*(unaligned *)(scores + e + v * VL) = x[v];
			total[v] += x[v];
		}
	}
	UNROLL for (int v = NR / VL; v < CHUNK / VL; v++) total[v % (NR / VL)] += total[v];
	UNROLL for (int v = 0; v < NR / VL; v++) {
		unaligned *sum = (unaligned *)(p->total + v * VL);
		*sum = FMA(*sum, factor[v], total[v]);
	}
	if (p->begun)
		for (int64_t e = 0; e < d * NR; e += NR)
			UNROLL for (int v = 0; v < NR / VL; v++) *(unaligned *)(sums + e + v * VL) *= factor[v];
	for (int64_t e = 0; e < d; e += MR)
		multiply(sums + e * NR, values + e * nk + lo * MR, scores + lo * NR, hi - lo, p->begun);
	p->begun = 1;
}

TARGET static int64_t attention_workspace(int64_t head_dim) {
	const int64_t d = round_up(head_dim, MR);
	return QUERIES * head_dim + KEYS * head_dim + KEYS * d + KEYS * NR + QUERIES * d + 3 * SLACK;
}

// Milakov and Gimelshein's running softmax (2018) over key blocks, as in FlashAttention (Dao et al. 2022). Key blocks
// begin at multiples of KEYS, so that a query's results depend on its keys alone.
TARGET static void attention(matrix o, float *lse, matrix q, matrix k, matrix v, attention_shape s, int64_t i0,
                             float *work) {
	const int64_t n = least(QUERIES, q.rows - i0), depth = q.cols, d = round_up(depth, MR);
	float *queries = work, *keys = queries + QUERIES * depth + SLACK, *values = keys + KEYS * depth + SLACK;
	float *scores = values + KEYS * d + SLACK, *sums = scores + KEYS * NR;
	query_panel panels[QUERIES / NR];
	pack_b(queries, q, 1, i0, n, 0, depth);
	int64_t from = k.rows, to = 0;
	for (int64_t i = 0; i < n; i += NR) {
		query_panel *p = &panels[i / NR];
		look(&p->sight, &s, k.rows, i0 + i, least(NR, n - i), NR);
		for (int r = 0; r < NR; r++) p->top[r] = -FLT_MAX; // less than any score, and −∞ is less
		memset(p->total, 0, sizeof p->total);
		p->begun = 0;
		from = least(from, p->sight.from);
		to = p->sight.to;
	}
	for (int64_t j0 = from / KEYS * KEYS; j0 < to; j0 += KEYS) {
		const int64_t nk = least(KEYS, to - j0);
		pack_a(keys, k, 1, j0, nk, 0, depth);
		pack_a(values, v, 0, 0, depth, j0, nk);
		for (int64_t i = 0; i < n; i += NR)
			attend(&panels[i / NR], sums + i * d, d, queries + i * depth, depth, keys, values, j0, nk,
			       s.scale, scores);
	}
	for (int64_t i = 0; i < n; i += NR) {
		query_panel *p = &panels[i / NR];
		if (!p->begun) memset(sums + i * d, 0, 4 * NR * d);
		for (int r = 0; r < least(NR, n - i); r++) {
			const int any = p->total[r] > 0;
			lse[i0 + i + r] = any ? p->top[r] * s.scale + logf(p->total[r]) : -INFINITY;
			p->total[r] = any ? 1 / p->total[r] : 0;
		}
		store_panel(o, i0 + i, sums + i * d, p->total, keys);
	}
}

#endif
