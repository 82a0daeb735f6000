// The product of two matrices by several threads, to be included with the macros of vector.h and these:
//
//	MR, NR              rows and columns of the register tile
//	KC                  k in a block; part of the definition of the result
//	ROWS, COLS          rows of a and columns of b in a chunk, multiples of MR and of NR
//	CHUNKS_A, CHUNKS_B  chunks that are packed at a time
//	CHUNK_A, CHUNK_B    floats of a packed block of a chunk
//
// and these functions:
//
//	pack_a, pack_b      pack a chunk of an operand, kc deep
//	multiply_block      sets a tile's sums, ROWS × COLS as register tiles, from packed chunks, or adds to them, and
//	                    stores them in c if they are complete
//
// A phase is a part of c, CHUNKS_A × CHUNKS_B tiles, with a part of k: its chunks are packed once, by all threads
// together, and then multiplied. Packing and multiplying are tasks in one order, in which a task needs only what is
// before it. Threads take the next task when they have time, so that one that is held up takes fewer, and wait only for
// a task that another one has in hand. The tasks that pack a phase stand in the middle of those that multiply the phase
// before: nobody waits between phases as long as no thread is held up for half a phase.
#ifndef HERD_GEMM_TASKS_H
#define HERD_GEMM_TASKS_H

#include <sched.h>

#include "kernels.h"
#include "vector.h"

enum {
	DEPTH = 2, // blocks of k in a phase
	TILES_MAX = CHUNKS_A * CHUNKS_B,
	SLOT_A = CHUNKS_A * DEPTH * CHUNK_A, // floats of a phase's chunks; there are two slots, for this phase and the next
	SLOT_B = CHUNKS_B * DEPTH * CHUNK_B,
	LINE_FLOATS = 16, // of a cache line
};

// What threads tell each other: the number of tasks taken, and how many phases each chunk and tile has behind it.
typedef struct {
	int64_t taken, packed_a[CHUNKS_A], packed_b[CHUNKS_B], multiplied[TILES_MAX];
} progress;

enum {
	PROGRESS = (sizeof(progress) / 4 / LINE_FLOATS + 2) * LINE_FLOATS, // floats, with room to align
	WORKSPACE = PROGRESS + 2 * SLOT_A + 2 * SLOT_B + TILES_MAX * ROWS * COLS,
};

// A product as its tasks. Parts of c have the same number of tiles, though some tiles may lie beyond the edge.
typedef struct {
	matrix a, b, c;
	int a_by_rows, b_by_rows, accumulate; // by_rows if k runs along the operand's rows
	int64_t k, depth_parts;
	int64_t rows, row_parts; // chunks of a in a part, and parts
	int64_t cols, col_parts;
	int rows_outside; // whether the parts of a row follow one another, or those of a column
	progress *done;
	float *slots_a, *slots_b, *sums;
} product;

// A phase: the first chunks and block, and which of the operands' parts these are in the order of phases.
typedef struct {
	int64_t row, col, block, nth_a, nth_b;
} phase;

INLINE int64_t parts_of(int64_t n, int64_t size) { return n > 0 ? (n + size - 1) / size : 1; }

TARGET static product lay_tasks(int form, matrix c, matrix a, matrix b, int accumulate, float *work) {
	product p = {.a = a, .b = b, .c = c, .accumulate = accumulate};
	p.a_by_rows = form != GEMM_TN;
	p.b_by_rows = form == GEMM_NT;
	p.k = p.a_by_rows ? a.cols : a.rows;
	p.depth_parts = parts_of(p.k, DEPTH * KC);
	const int64_t rows = parts_of(c.rows, ROWS), cols = parts_of(c.cols, COLS);
	p.row_parts = parts_of(rows, CHUNKS_A);
	p.col_parts = parts_of(cols, CHUNKS_B);
	p.rows = parts_of(rows, p.row_parts);
	p.cols = parts_of(cols, p.col_parts);
	// The operand whose part stays while the other's changes is packed once.
	p.rows_outside = rows + cols * p.row_parts <= cols + rows * p.col_parts;
	work += (-(uintptr_t)work % (4 * LINE_FLOATS)) / 4;
	p.done = (progress *)work;
	p.slots_a = work + PROGRESS - LINE_FLOATS;
	p.slots_b = p.slots_a + 2 * SLOT_A;
	p.sums = p.slots_b + 2 * SLOT_B;
	return p;
}

TARGET static phase nth_phase(const product *p, int64_t n) {
	const int64_t part = n / p->depth_parts, inner = p->rows_outside ? p->col_parts : p->row_parts;
	const int64_t outside = part / inner, inside = part % inner;
	phase f = {.block = n % p->depth_parts * DEPTH, .nth_a = n, .nth_b = n};
	f.row = (p->rows_outside ? outside : inside) * p->rows;
	f.col = (p->rows_outside ? inside : outside) * p->cols;
	if (p->depth_parts == 1 && p->rows_outside) f.nth_a = outside;
	if (p->depth_parts == 1 && !p->rows_outside) f.nth_b = outside;
	return f;
}

// Waits until *n is at least `phases`. Whoever sets it is at work on it, but may have lost its processor.
static void await(const int64_t *n, int64_t phases) {
	for (int i = 0; __atomic_load_n(n, __ATOMIC_ACQUIRE) < phases; i++)
		if (i >= 1000) sched_yield();
}

static void finish(int64_t *n, int64_t phases) { __atomic_store_n(n, phases, __ATOMIC_RELEASE); }

INLINE float *chunk_a(const product *p, const phase *f, int64_t i) {
	return p->slots_a + f->nth_a % 2 * SLOT_A + i * DEPTH * CHUNK_A;
}

INLINE float *chunk_b(const product *p, const phase *f, int64_t j) {
	return p->slots_b + f->nth_b % 2 * SLOT_B + j * DEPTH * CHUNK_B;
}

// Packs chunk t of phase n, of a or then of b, unless it is there from the phase before.
TARGET static void pack_task(const product *p, int64_t n, int64_t t) {
	const phase f = nth_phase(p, n), before = nth_phase(p, n > 0 ? n - 1 : 0);
	const int of_a = t < p->rows;
	const int64_t i = of_a ? t : t - p->rows;
	int64_t *packed = of_a ? &p->done->packed_a[i] : &p->done->packed_b[i];
	await(packed, n);
	// The slot was that of the phase before the last, or of an earlier one.
	for (int64_t tile = 0; tile < p->rows * p->cols; tile++) await(&p->done->multiplied[tile], n - 1);
	const int kept = n > 0 && (of_a ? f.nth_a == before.nth_a : f.nth_b == before.nth_b);
	for (int64_t d = 0; d < DEPTH && !kept; d++) {
		const int64_t k = (f.block + d) * KC, kc = least(KC, p->k - k);
		if (kc <= 0) break;
		if (of_a) {
			const int64_t row = (f.row + i) * ROWS, count = least(ROWS, p->c.rows - row);
			if (count > 0) pack_a(chunk_a(p, &f, i) + d * CHUNK_A, p->a, p->a_by_rows, row, count, k, kc);
		} else {
			const int64_t col = (f.col + i) * COLS, count = least(COLS, p->c.cols - col);
			if (count > 0) pack_b(chunk_b(p, &f, i) + d * CHUNK_B, p->b, p->b_by_rows, col, count, k, kc);
		}
	}
	finish(packed, n + 1);
}

// Multiplies the chunks of tile t of phase n.
TARGET static void tile_task(const product *p, int64_t n, int64_t t) {
	const phase f = nth_phase(p, n);
	const int64_t i = t % p->rows, j = t / p->rows, row = (f.row + i) * ROWS, col = (f.col + j) * COLS;
	await(&p->done->packed_a[i], n + 1);
	await(&p->done->packed_b[j], n + 1);
	await(&p->done->multiplied[t], n);
	if (row < p->c.rows && col < p->c.cols)
		for (int64_t d = 0; d < DEPTH; d++) {
			const int64_t k = (f.block + d) * KC, kc = least(KC, p->k - k);
			if (kc <= 0 && k > 0) break; // once even if K is 0
			multiply_block(p->c, row, col, p->sums + t * ROWS * COLS, chunk_a(p, &f, i) + d * CHUNK_A,
			               chunk_b(p, &f, j) + d * CHUNK_B, kc, k > 0, k + kc == p->k, p->accumulate);
		}
	finish(&p->done->multiplied[t], n + 1);
}

// Takes tasks until none is left. The order: those that pack the first phase; then for each phase the first half of its
// tiles, what packs the next phase, the second half.
TARGET static void work_on(const product *p) {
	const int64_t packs = p->rows + p->cols, tiles = p->rows * p->cols, half = tiles / 2;
	const int64_t phases = p->row_parts * p->col_parts * p->depth_parts, tasks = phases * (packs + tiles);
	for (;;) {
		const int64_t task = __atomic_fetch_add(&p->done->taken, 1, __ATOMIC_RELAXED);
		if (task >= tasks) return;
		if (task < packs) {
			pack_task(p, 0, task);
			continue;
		}
		const int64_t n = (task - packs) / (packs + tiles), t = (task - packs) % (packs + tiles);
		const int64_t between = n + 1 < phases ? packs : 0; // the last phase packs none
		if (t < half)
			tile_task(p, n, t);
		else if (t < half + between)
			pack_task(p, n + 1, t - half);
		else
			tile_task(p, n, t - between);
	}
}

#endif
