// AttentionBackward for one instruction set: algorithm 4 of FlashAttention (Dao et al. 2022). The scores have the keys in
// the columns of the tiles, so that probabilities and their gradients are the panels that the products for dv and dk
// read; for dq the gradients are turned, tile by tile. The sums are kept in the workspace, those of dk and dv transposed.
#include "attention_kernel.h"

enum {
	BACK_QUERIES = 96 / MR * MR, // in a query block
	BACK_KEYS = 128,             // in a key block
	BACK_TILES = BACK_QUERIES / MR,
	BACK_PANELS = BACK_KEYS / NR,
	TURNED = BACK_KEYS * MR + SLACK, // floats of a tile's turned gradients
};

_Static_assert(BACK_KEYS % NR == 0, "panels are whole");

// What attention_backward works with: the memory, and the block in hand. d is the head dimension, dm and dn are d rounded
// up to MR and to NR.
typedef struct {
	int64_t d, dm, dn;
	float *q_rows, *do_rows; // [BACK_TILES][d][MR]
	float *q_cols, *do_cols; // [dm/MR][queries][MR]
	float *k_rows, *v_rows;  // [BACK_PANELS][d][NR]
	float *k_cols;           // [dn/NR][keys][NR]
	float *p, *ds;           // [BACK_QUERIES][NR], probabilities and gradients of the scores for a panel of keys
	float *turned;           // [BACK_TILES][TURNED], all of ds as [keys][MR]
	float *lse, *delta;      // [length]; delta is rowsum(do·o)
	float *dq;               // [length/MR][dn/NR][MR][NR], not yet times the scale
	float *dk, *dv;          // [keys/NR][dm][NR], dk not yet times the scale
	sight sights[BACK_TILES];
	int64_t from[BACK_TILES], to[BACK_TILES]; // the panels of keys that a tile of queries sees
} backward;

// Shares out work, unless it is null, and returns how many floats it has.
TARGET static int64_t lay_out(backward *b, int64_t length, int64_t keys, int64_t d, float *work) {
	b->d = d;
	b->dm = round_up(d, MR);
	b->dn = round_up(d, NR);
	length = round_up(length, MR);
	keys = round_up(keys, NR);
	const struct {
		float **part;
		int64_t size;
	} parts[] = {
		{&b->q_rows, BACK_QUERIES * d},     {&b->do_rows, BACK_QUERIES * d},
		{&b->q_cols, BACK_QUERIES * b->dm}, {&b->do_cols, BACK_QUERIES * b->dm},
		{&b->k_rows, BACK_KEYS * d},        {&b->v_rows, BACK_KEYS * d},
		{&b->k_cols, BACK_KEYS * b->dn},    {&b->turned, BACK_TILES * TURNED},
		{&b->p, BACK_QUERIES * NR},         {&b->ds, BACK_QUERIES * NR},
		{&b->lse, length},                  {&b->delta, length},
		{&b->dq, length * b->dn},           {&b->dk, keys * b->dm},
		{&b->dv, keys * b->dm},
	};
	int64_t size = 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		if (work) *parts[i].part = work + size;
		size += parts[i].size + SLACK;
	}
	return size;
}

TARGET static int64_t attention_backward_workspace(int64_t length, int64_t keys, int64_t head_dim) {
	backward b;
	return lay_out(&b, length, keys, head_dim, 0);
}

INLINE void dot_step(lanes *s, const void *x, const void *y, int64_t j, int64_t left, const int bf16) {
	EACH_VECTOR(s->lane[v] = FMA(load_part(at(x, e, bf16), some, 0, bf16), load_part(at(y, e, bf16), some, 0, bf16),
	                             s->lane[v]);)
}

// The inner products of the rows of x and y.
INLINE void dot_rows(float *dots, matrix x, matrix y, const int bf16) {
	for (int64_t i = 0; i < x.rows; i++) {
		lanes s = {0};
		STEPS(x.cols, LANES, dot_step(&s, row(x, i), row(y, i), j, left, bf16));
		dots[i] = total(s);
	}
}

// From a tile of products p of q and k, and ds of do and v: p becomes exp(p·scale − lse), ds p·(ds − delta), and both 0
// where a query does not see a key, of which the first is `key`, if `some` are hidden.
INLINE void differentiate(float *p, float *ds, const float *lse, const float *delta, const sight *see, int64_t key,
                          float scale, const int some) {
	const vec by = BROADCAST(scale);
	ints lane;
	for (int i = 0; i < VL; i++) lane[i] = i;
	UNROLL for (int e = 0; e < MR * NR; e += CHUNK) {
		vec x[CHUNK / VL];
		UNROLL for (int v = 0; v < CHUNK / VL; v++)
			x[v] = FMA(*(unaligned *)(p + e + v * VL), by, -BROADCAST(lse[(e + v * VL) / NR]));
		exp_vecs(x, CHUNK / VL);
		UNROLL for (int v = 0; v < CHUNK / VL; v++) {
			const int i = e + v * VL, r = i / NR;
			vec d = x[v] * (*(unaligned *)(ds + i) - BROADCAST(delta[r]));
			if (some) {
				ints keys = lane + (int32_t)(key + i % NR);
				bits seen = (bits)((keys >= see->first[r]) & (keys <= see->last[r]));
				x[v] = (vec)((bits)x[v] & seen);
				d = (vec)((bits)d & seen);
			}
			*(unaligned *)(p + i) = x[v];
			*(unaligned *)(ds + i) = d;
		}
	}
}

// Computes p and ds of tile t of queries, of which the first is i, and panel j of keys, of which the first is `key`.
TARGET static void differentiate_tile(backward *b, int64_t t, int64_t j, int64_t i, int64_t key,
                                      float scale) {
	const sight *see = &b->sights[t];
	float *p = b->p + t * MR * NR, *ds = b->ds + t * MR * NR;
	multiply(p, b->q_rows + t * MR * b->d, b->k_rows + j * NR * b->d, b->d, 0);
	multiply(ds, b->do_rows + t * MR * b->d, b->v_rows + j * NR * b->d, b->d, 0);
	if (key < see->all_from || key + NR > see->all_to)
		differentiate(p, ds, b->lse + i, b->delta + i, see, key, scale, 1);
	else
		differentiate(p, ds, b->lse + i, b->delta + i, see, key, scale, 0);
	pack_rows(b->turned + t * TURNED + j * NR * MR, MR, ds, NR, MR, NR, 0);
}

// Adds to dq, dk and dv what the n queries from i0 on and the nk keys from j0 on, which are packed, give.
TARGET static void add_block(backward *b, const attention_shape *s, int64_t keys, matrix q, matrix dout, int64_t i0,
                             int64_t n, int64_t j0, int64_t nk) {
	const int64_t tiles = (n + MR - 1) / MR, panels = (nk + NR - 1) / NR;
	int64_t seen = 0;
	for (int64_t t = 0; t < tiles; t++) {
		sight *see = &b->sights[t];
		look(see, s, keys, i0 + t * MR, least(MR, n - t * MR), MR);
		b->from[t] = see->from > j0 ? (see->from - j0) / NR : 0;
		b->to[t] = least((see->to - j0 + NR - 1) / NR, panels);
		seen += b->to[t] > b->from[t];
	}
	if (seen == 0) return;
	pack_a(b->q_rows, q, 1, i0, n, 0, b->d);
	pack_a(b->q_cols, q, 0, 0, b->d, i0, n);
	pack_a(b->do_rows, dout, 1, i0, n, 0, b->d);
	pack_a(b->do_cols, dout, 0, 0, b->d, i0, n);
	for (int64_t j = 0; j < panels; j++) {
		int64_t lo = tiles, hi = 0; // the tiles that see the panel, and those between
		for (int64_t t = 0; t < tiles; t++)
			if (b->from[t] <= j && j < b->to[t]) {
				lo = least(lo, t);
				hi = t + 1;
			}
		for (int64_t t = lo; t < hi; t++)
			if (b->from[t] <= j && j < b->to[t]) {
				differentiate_tile(b, t, j, i0 + t * MR, j0 + j * NR, s->scale);
			} else {
				memset(b->p + t * MR * NR, 0, 4 * MR * NR);
				memset(b->ds + t * MR * NR, 0, 4 * MR * NR);
			}
		if (lo >= hi) continue;
		const int64_t first = lo * MR, rows = least(hi * MR, n) - first, panel = (j0 + j * NR) * b->dm;
		for (int64_t e = 0; e < b->dm; e += MR) {
			multiply(b->dv + panel + e * NR, b->do_cols + e * n + first * MR, b->p + first * NR, rows, 1);
			multiply(b->dk + panel + e * NR, b->q_cols + e * n + first * MR, b->ds + first * NR, rows, 1);
		}
	}
	for (int64_t t = 0; t < tiles; t++) {
		const int64_t first = b->from[t] * NR, some = least(b->to[t] * NR, nk) - first;
		if (some <= 0) continue;
		for (int64_t e = 0; e < b->dn; e += NR)
			multiply(b->dq + (i0 + t * MR) * b->dn + e * MR, b->turned + t * TURNED + first * MR,
			         b->k_cols + e * nk + first * NR, some, 1);
	}
}

// Computes dq of one query head.
TARGET static void attention_backward_head(backward *b, matrix dq, matrix dout, matrix o, const float *lse, matrix q,
                                           matrix k, matrix v, attention_shape s) {
	const int64_t ahead = s.offset - s.start, seen = least(k.rows, ahead + q.rows);
	memset(b->dq, 0, 4 * round_up(q.rows, MR) * b->dn);
	memcpy(b->lse, lse, 4 * q.rows);
	BY_DTYPE(o.bf16, dot_rows, b->delta, o, dout);
	for (int64_t i = q.rows; i < round_up(q.rows, MR); i++) b->lse[i] = b->delta[i] = 0;
	for (int64_t j0 = 0; j0 < seen; j0 += BACK_KEYS) {
		const int64_t nk = least(BACK_KEYS, seen - j0), i0 = j0 > ahead ? j0 - ahead : 0;
		pack_b(b->k_rows, k, 1, j0, nk, 0, b->d);
		pack_b(b->v_rows, v, 1, j0, nk, 0, b->d);
		pack_b(b->k_cols, k, 0, 0, b->d, j0, nk);
		for (int64_t i = i0 / BACK_QUERIES * BACK_QUERIES; i < q.rows; i += BACK_QUERIES)
			add_block(b, &s, k.rows, q, dout, i, least(BACK_QUERIES, q.rows - i), j0, nk);
	}
	vec scale = BROADCAST(s.scale);
	for (int64_t i = 0; i < q.rows; i++)
		for (int64_t e = 0; e < b->d; e += NR) {
			const float *sums = b->dq + i / MR * MR * b->dn + e * MR + i % MR * NR;
			const int64_t cols = least(NR, b->d - e);
			STEPS(cols, VL,
			      store_part(at(row(dq, i), e + j, dq.bf16), left, load_part(sums + j, left, 0, 0) * scale, dq.bf16));
		}
}

TARGET static void attention_backward(matrix dq, matrix dk, matrix dv, matrix dout, matrix o, const float *lse, matrix q,
                                      matrix k, matrix v, attention_shape s, float *work) {
	backward b;
	lay_out(&b, q.rows, k.rows, k.cols, work);
	const int64_t size = 4 * round_up(k.rows, NR) * b.dm;
	memset(b.dk, 0, size);
	memset(b.dv, 0, size);
	for (int64_t h = 0; q.rows > 0 && h < q.cols; h += b.d, lse += q.rows)
		attention_backward_head(&b, columns(dq, h, b.d), columns(dout, h, b.d), columns(o, h, b.d), lse,
		                        columns(q, h, b.d), k, v, s);
	float one[NR], scale[NR];
	for (int r = 0; r < NR; r++) {
		one[r] = 1;
		scale[r] = s.scale;
	}
	for (int64_t j = 0; j < k.rows; j += NR) {
		store_panel(dk, j, b.dk + j * b.dm, scale, b.k_rows);
		store_panel(dv, j, b.dv + j * b.dm, one, b.k_rows);
	}
}
