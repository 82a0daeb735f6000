// The product of two bf16 matrices on tiles (Intel AMX), to be included with the macros of vector.h and these:
//
//	WORDS              the type of a vector of 32-bit words, and
//	OP(name)           the intrinsic of that name for it
//	LANES(p)           a vector of the 16 bytes at p, p + 256, p + 512, …
//	TILES              declares the tile registers, where they are variables
//	CONFIGURE()        makes every tile register 16 rows of 64 bytes
//	RELEASE()          ends their use
//	ZERO(t)            clears tile t
//	LOAD(t, p, ld)     sets tile t from rows ld bytes apart, and STORE(t, p, ld) is the reverse
//	DOT(c, a, b)       adds the product of the tiles a and b to tile c: the instruction TDPBF16PS
//
// A tile of a is [16 rows][32 k] bf16, a tile of b [16 pairs of k][16 columns][2] bf16, and their product is added to
// 16 rows of 16 fp32: for each element a chain of fused multiply-adds from 0 over the even k of the 32, another over the
// odd ones, the sum of both, and that added to what the tile holds; each rounded to nearest even, with denormal numbers
// taken and given as zeros (Intel, Software Developer's Manual, TDPBF16PS). An element of c is the sum of those in
// ascending order of k, started from 0, with zeros beyond K: its bits depend on K and on the two vectors that make it,
// not on where it lies.
//
// Blocks and tasks are those of gemm_kernel.h, for an L2 cache of 2 MB. As matrices of 32-bit words the tiles of a and of b
// are each other's transposes. From a matrix one of the two comes by copying rows, the other by interleaving pairs of
// rows: packing does what suits the matrix and then, if that made the other operand's tiles, transposes them.
#define MR 32
#define NR 32
#include "gemm_store.h"
#include "kernels.h"
#include "vector.h"

enum {
	STEP = 32,   // k in a tile
	KC = 256,   // k in a block: a panel of a and one of b, 16 KiB each, stay in the L1 cache
	ROWS = 256, // of a in a chunk; with COLS of b, KC deep, they stay in the L2 cache
	COLS = 256, // of b
	CHUNKS_A = 4,
	CHUNKS_B = 2,
	CHUNK_A = ROWS * KC / 2, // floats
	CHUNK_B = COLS * KC / 2,
};

// In bytes: a row of a tile, a tile, and from one step of k to the next in a panel.
enum { LINE = 64, TILE = 16 * LINE, PANEL_STEP = 2 * TILE };

typedef WORDS unaligned_words __attribute__((aligned(2), may_alias));

// Transposes a tile of 16 × 16 words in place.
INLINE void transpose(char *tile) {
	WORDS rows[16 / VL][4][4]; // lane l of [h][g][i] is words 4g … 4g + 3 of row h·VL + 4l + i
	UNROLL for (int h = 0; h < 16 / VL; h++)
		UNROLL for (int g = 0; g < 4; g++)
			UNROLL for (int i = 0; i < 4; i++) rows[h][g][i] = LANES(tile + (h * VL + i) * LINE + g * 16);
	UNROLL for (int h = 0; h < 16 / VL; h++)
		UNROLL for (int g = 0; g < 4; g++) {
			WORDS *r = rows[h][g];
			WORDS lo01 = OP(unpacklo_epi32)(r[0], r[1]), hi01 = OP(unpackhi_epi32)(r[0], r[1]);
			WORDS lo23 = OP(unpacklo_epi32)(r[2], r[3]), hi23 = OP(unpackhi_epi32)(r[2], r[3]);
			char *out = tile + 4 * g * LINE + h * VL * 4;
			*(unaligned_words *)out = OP(unpacklo_epi64)(lo01, lo23);
			*(unaligned_words *)(out + LINE) = OP(unpackhi_epi64)(lo01, lo23);
			*(unaligned_words *)(out + 2 * LINE) = OP(unpacklo_epi64)(hi01, hi23);
			*(unaligned_words *)(out + 3 * LINE) = OP(unpackhi_epi64)(hi01, hi23);
		}
}

enum { AHEAD = 8 }; // rows that packing fetches ahead: rows lie in different pages, where the processor does not

// Sets a tile for each step of k: its rows are STEP elements of the rows of src, of which there are `rows` of `depth`
// elements.
INLINE void copy_rows(char *tiles, const uint16_t *src, int64_t stride, int64_t rows, int64_t depth) {
	for (int64_t r = 0; r < 16; r++) {
		const int64_t valid = r < rows ? depth : 0;
		const uint16_t *row = src + (r < rows ? r * stride : 0);
		const uint16_t *later = r + AHEAD < rows ? row + AHEAD * stride : row;
		for (int64_t k = 0; k < depth; k += STEP) {
			char *line = tiles + k / STEP * PANEL_STEP + r * LINE;
			if (k + STEP <= valid) {
				__builtin_prefetch(later + k);
				UNROLL for (int x = 0; x < STEP; x += 2 * VL)
					*(unaligned_words *)(line + 2 * x) = *(const unaligned_words *)(row + k + x);
			} else {
				memset(line, 0, LINE);
				if (k < valid) memcpy(line, row + k, 2 * (valid - k));
			}
		}
	}
}

// Sets a row of the tiles of `count` columns, side by side in panels of `steps` steps: the elements of two rows of src
// by turns. Rows beyond `rows` and columns up to a whole panel are zeros.
INLINE void interleave(char *panel, const uint16_t *src, int64_t stride, int64_t rows, int64_t count, int64_t steps) {
	const uint16_t *even = src, *odd = src + (rows > 1 ? stride : 0);
	const uint16_t *later = src + (rows > AHEAD + 1 ? AHEAD * stride : 0);
	for (int64_t t = 0; t < count; t += NR, panel += steps * PANEL_STEP)
		for (int64_t half = 0; half < 2; half++) {
			const int64_t x = t + 16 * half, valid = rows > 1 ? count - x : 0;
			char *line = panel + half * TILE;
			if (valid >= 16) {
				__builtin_prefetch(later + x);
				__builtin_prefetch(later + (odd - even) + x);
				UNROLL for (int i = 0; i < 16; i += VL) {
					bits lo = __builtin_convertvector(*(const halves *)(even + x + i), bits);
					bits hi = __builtin_convertvector(*(const halves *)(odd + x + i), bits);
					*(unaligned_words *)(line + 4 * i) = (WORDS)(lo | hi << 16);
				}
			} else {
				for (int64_t i = 0; i < 16; i++) {
					uint32_t lo = rows > 0 && x + i < count ? even[x + i] : 0;
					uint32_t hi = rows > 1 && x + i < count ? odd[x + i] : 0;
					uint32_t pair = lo | hi << 16;
					memcpy(line + 4 * i, &pair, 4);
				}
			}
		}
}

enum operand { OF_A, OF_B };

// Packs `count` rows or columns of m from t0 on, their elements k0 … k0 + depth, into panels [step of k][2] tiles;
// by_rows if k runs along m's rows.
INLINE void pack(char *dst, enum operand operand, matrix m, int by_rows, int64_t t0, int64_t count, int64_t k0,
                        int64_t depth) {
	if (depth == 0) return;
	const int64_t steps = (depth + STEP - 1) / STEP;
	const uint16_t *src = (const uint16_t *)m.ptr + (by_rows ? t0 * m.stride + k0 : k0 * m.stride + t0);
	if (by_rows) {
		for (int64_t t = 0; t < count; t += 16) {
			char *tiles = dst + t / NR * steps * PANEL_STEP + t / 16 % 2 * TILE;
			copy_rows(tiles, src + t * m.stride, m.stride, count - t, depth);
			for (int64_t s = 0; operand == OF_B && s < steps; s++) transpose(tiles + s * PANEL_STEP);
		}
		return; // a tile without rows stays as it is: what comes of it lies beyond c
	}
	for (int64_t s = 0; s < steps; s++, dst += PANEL_STEP) {
		for (int64_t pair = 0; pair < 16; pair++) {
			const int64_t k = s * STEP + 2 * pair;
			interleave(dst + pair * LINE, src + (k < depth ? k * m.stride : 0), m.stride, depth - k, count, steps);
		}
		for (int64_t t = 0; operand == OF_A && t < count; t += 16)
			transpose(dst + t / NR * steps * PANEL_STEP + t / 16 % 2 * TILE);
	}
}

TARGET static void pack_a(float *dst, matrix m, int by_rows, int64_t t0, int64_t n, int64_t k0, int64_t kc) {
	pack((char *)dst, OF_A, m, by_rows, t0, n, k0, kc);
}

TARGET static void pack_b(float *dst, matrix m, int by_rows, int64_t t0, int64_t n, int64_t k0, int64_t kc) {
	pack((char *)dst, OF_B, m, by_rows, t0, n, k0, kc);
}

// Memory that will be needed after a multiplication: MR rows ld bytes apart, and the last byte of a row.
typedef struct {
	const char *row;
	int64_t ld, last;
} upcoming;

// sums [MR][NR] is, or has added to it, the product of the panels a and b. A few lines of `next` are fetched in each
// step: all at once they would keep the tiles waiting.
TARGET __attribute__((noinline)) static void multiply(float *sums, const char *a, const char *b, int64_t steps, int add,
                                                      upcoming next) {
	enum { LD = 4 * NR, RIGHT = 16, BELOW = 16 * NR };
	TILES;
	if (add) {
		LOAD(0, sums, LD);
		LOAD(1, sums + RIGHT, LD);
		LOAD(2, sums + BELOW, LD);
		LOAD(3, sums + BELOW + RIGHT, LD);
	} else {
		ZERO(0);
		ZERO(1);
		ZERO(2);
		ZERO(3);
	}
	for (; steps > 0; steps--, a += PANEL_STEP, b += PANEL_STEP) {
		LOAD(4, a, LINE);
		LOAD(6, b, LINE);
		DOT(0, 4, 6);
		LOAD(7, b + TILE, LINE);
		DOT(1, 4, 7);
		LOAD(5, a + TILE, LINE);
		DOT(2, 5, 6);
		DOT(3, 5, 7);
		UNROLL for (int i = 0; i < MR * STEP / KC; i++, next.row += next.ld) {
			__builtin_prefetch(next.row, 1);
			__builtin_prefetch(next.row + next.last, 1);
		}
	}
	STORE(0, sums, LD);
	STORE(1, sums + RIGHT, LD);
	STORE(2, sums + BELOW, LD);
	STORE(3, sums + BELOW + RIGHT, LD);
}

// The tile of c at (i, j), if it is whole.
INLINE upcoming tile_of(matrix c, int64_t i, int64_t j) {
	if (i + MR > c.rows || j + NR > c.cols) return (upcoming){c.ptr, 0, 0};
	const int64_t size = c.bf16 ? 2 : 4;
	return (upcoming){at(c.ptr, i * c.stride + j, c.bf16), c.stride * size, NR * size - 1};
}

// Sets the register tiles of sums from the chunks a and b, kc deep, or adds to them; the last time stores them in c at
// (row, col), as much as lies in c.
TARGET static void multiply_block(matrix c, int64_t row, int64_t col, float *sums, const float *a, const float *b,
                                  int64_t kc, int add, int last, int accumulate) {
	const int64_t rows = least(ROWS, c.rows - row), cols = least(COLS, c.cols - col), steps = (kc + STEP - 1) / STEP;
	float single[MR * NR] __attribute__((aligned(LINE)));
	for (int64_t j = 0; j < cols; j += NR)
		for (int64_t i = 0; i < rows; i += MR, sums += MR * NR) {
			float *tile = add || !last ? sums : single;
			upcoming next = {(const char *)(tile + MR * NR), 4 * NR, 4 * NR - 1};
			if (last) next = tile_of(c, row + i, col + j);
			multiply(tile, (const char *)a + i / MR * steps * PANEL_STEP, (const char *)b + j / NR * steps * PANEL_STEP,
			         steps, add, next);
			if (last) store(c, row + i, col + j, tile, accumulate);
		}
}

#include "gemm_tasks.h"

// The products of other than two bf16 matrices are left to the kernels with which table was filled.
static kernels others;

TARGET static void gemm(int form, matrix c, matrix a, matrix b, int accumulate, float *work) {
	if (!a.bf16 || !b.bf16) {
		others.gemm(form, c, a, b, accumulate, work);
		return;
	}
	const product p = lay_tasks(form, c, a, b, accumulate, work);
	CONFIGURE();
	work_on(&p);
	RELEASE();
}

enum { ROUND = 4 * 16 * 16 * STEP }; // multiply-adds in a round of peak

// Runs rounds of products of tiles in registers. The elements of a are 1, those of b for even and odd k 1 and -1.
TARGET static float peak_bf16(int64_t rounds) {
	uint16_t a[16 * STEP], b[16 * STEP];
	float sums[16 * 16];
	for (int i = 0; i < 16 * STEP; i++) {
		a[i] = 0x3f80;
		b[i] = i % 2 ? 0xbf80 : 0x3f80;
	}
	CONFIGURE();
	TILES;
	ZERO(0);
	ZERO(1);
	ZERO(2);
	ZERO(3);
	LOAD(4, a, LINE);
	LOAD(5, a, LINE);
	LOAD(6, b, LINE);
	LOAD(7, b, LINE);
	for (; rounds > 0; rounds--) {
		DOT(0, 4, 6);
		DOT(1, 4, 7);
		DOT(2, 5, 6);
		DOT(3, 5, 7);
	}
	STORE(0, sums, LINE);
	RELEASE();
	return sums[0];
}

// Sets k to table with the product of bf16 matrices on tiles.
static void fill_table(kernels *k, const kernels *table) {
	others = *table;
	const char *name = k->name;
	*k = *table;
	k->name = name;
	k->workspace = WORKSPACE > table->workspace ? WORKSPACE : table->workspace;
	k->progress = PROGRESS > table->progress ? PROGRESS : table->progress;
	k->gemm = gemm;
	k->fmas_per_peak_bf16 = ROUND;
	k->peak_bf16 = peak_bf16;
}
