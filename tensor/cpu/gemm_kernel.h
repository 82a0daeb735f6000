// The product of two matrices for one instruction set, to be included with the macros of vector.h and these:
//
//	MR, NR        rows and columns of the register tile
//	TRANSPOSE8    defined where AVX2 may be used to pack
//
// The scheme is Goto and van de Geijn's (Anatomy of High-Performance Matrix Multiplication, 2008): blocks of both
// operands are copied into panels in the order in which the register tile reads them, converted to fp32 and padded with
// zeros to whole tiles. An element of c is a chain of multiply-adds over k inside each KC-block, and the blocks' sums
// are added in ascending order: its bits depend on K and on the two vectors that make it, not on where it lies.
#ifndef HERD_GEMM_KERNEL_H
#define HERD_GEMM_KERNEL_H

#include "gemm_store.h"
#include "kernels.h"
#include "vector.h"

enum {
	KC = 256,             // k in a block; part of the definition of the result
	ROWS = 96 / MR * MR,  // of a in a chunk; with COLS of b, KC deep, they stay in the L2 cache
	COLS = 128,           // of b
	CHUNKS_A = 11,        // for 1024 rows
	CHUNKS_B = 4,
	SLACK = 16,           // floats that packing may write past the last panel
	CHUNK_A = ROWS * KC + SLACK,
	CHUNK_B = COLS * KC + SLACK,
};

_Static_assert(COLS % NR == 0, "chunks are whole panels");

#ifdef TRANSPOSE8
INLINE __m256 load8(const void *p, int bf16) {
	if (!bf16) return _mm256_loadu_ps(p);
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

// dst [8][8], ld apart, is the transpose of 8 columns of src, of which the first `valid` rows exist.
INLINE void transpose8(float *dst, int64_t ld, const void *src, int64_t stride, int64_t valid, int bf16) {
	__m256 r[8], s[8];
	for (int i = 0; i < 8; i++) r[i] = i < valid ? load8(at(src, i * stride, bf16), bf16) : _mm256_setzero_ps();
	for (int i = 0; i < 8; i += 2) {
		s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
		s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
	}
	for (int i = 0; i < 8; i += 4) {
		r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
		r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
		r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
		r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
	}
	for (int i = 0; i < 4; i++) _mm256_storeu_ps(dst + i * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
	for (int i = 0; i < 4; i++) _mm256_storeu_ps(dst + (i + 4) * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
}
#endif

// Packs a [count][kc] block, k contiguous in src, into panels [kc][width].
INLINE void pack_rows(float *dst, const int width, const void *src, int64_t stride, int64_t count, int64_t kc,
                      const int bf16) {
	for (int64_t t = 0; t < count; t += width, dst += width * kc) {
		const void *rows = at(src, t * stride, bf16);
		int64_t valid = least(width, count - t), k = 0;
#ifdef TRANSPOSE8
		// The last group of 8 may reach past the panel's width, into floats that are written after it.
		for (; k + 8 <= kc; k += 8)
			for (int r = (width - 1) / 8 * 8; r >= 0; r -= 8)
				transpose8(dst + k * width + r, width, at(rows, r * stride + k, bf16), stride, valid - r, bf16);
#endif
		for (; k < kc; k++)
			for (int r = 0; r < width; r++) dst[k * width + r] = r < valid ? load(rows, r * stride + k, bf16) : 0;
	}
}

// Packs a [kc][count] block into panels [kc][width].
INLINE void pack_columns(float *dst, const int width, const void *src, int64_t stride, int64_t count, int64_t kc,
                         const int bf16) {
	// Where a panel ends inside a cache line, 8 rows at a time: the lines stay until the next panel reads on in them.
	// Rows and panels often lie a multiple of 2 KiB apart and compete for the same few places of the cache.
	const int64_t step = width * (bf16 ? 2 : 4) % 64 ? 8 : 1;
	for (int64_t k0 = 0; k0 < kc; k0 += step) {
		int64_t k1 = least(k0 + step, kc);
		for (int64_t t = 0; t < count; t += width)
			for (int64_t k = k0; k < k1; k++) {
				const void *row = at(src, k * stride + t, bf16);
				float *d = dst + t * kc + k * width;
				if (t + width <= count)
					for (int r = 0; r < width; r++) d[r] = load(row, r, bf16);
				else
					for (int r = 0; r < width; r++) d[r] = t + r < count ? load(row, r, bf16) : 0;
			}
	}
}

// Packs rows or columns t0 … t0+count, k0 … k0+kc of m; by_rows if k runs along m's rows.
INLINE void pack(float *dst, const int width, matrix m, int by_rows, int64_t t0, int64_t count, int64_t k0,
                 int64_t kc) {
	const void *src = at(m.ptr, by_rows ? t0 * m.stride + k0 : k0 * m.stride + t0, m.bf16);
	if (by_rows && m.bf16) pack_rows(dst, width, src, m.stride, count, kc, 1);
	if (by_rows && !m.bf16) pack_rows(dst, width, src, m.stride, count, kc, 0);
	if (!by_rows && m.bf16) pack_columns(dst, width, src, m.stride, count, kc, 1);
	if (!by_rows && !m.bf16) pack_columns(dst, width, src, m.stride, count, kc, 0);
}

TARGET static void pack_a(float *dst, matrix m, int by_rows, int64_t t0, int64_t n, int64_t k0, int64_t kc) {
	pack(dst, MR, m, by_rows, t0, n, k0, kc);
}

TARGET static void pack_b(float *dst, matrix m, int by_rows, int64_t t0, int64_t n, int64_t k0, int64_t kc) {
	pack(dst, NR, m, by_rows, t0, n, k0, kc);
}

// tile [MR][NR] is, or has added to it, the product of the panels a [kc][MR] and b [kc][NR]. The sums stay in registers:
// every loop over them is unrolled.
TARGET __attribute__((noinline)) static void multiply(float *tile, const float *a, const float *b, int64_t kc,
                                                      int add) {
	vec sum[MR][NR / VL], row[NR / VL];
	UNROLL for (int i = 0; i < MR; i++)
		UNROLL for (int j = 0; j < NR / VL; j++) sum[i][j] = (vec){0};
	for (int64_t k = 0; k < kc; k++, a += MR, b += NR) {
		UNROLL for (int j = 0; j < NR / VL; j++) row[j] = *(const unaligned *)(b + j * VL);
		UNROLL for (int i = 0; i < MR; i++) {
			vec x = BROADCAST(a[i]);
			UNROLL for (int j = 0; j < NR / VL; j++) sum[i][j] = FMA(x, row[j], sum[i][j]);
		}
	}
	unaligned *out = (unaligned *)tile;
	UNROLL for (int i = 0; i < MR; i++)
		UNROLL for (int j = 0; j < NR / VL; j++, out++) {
			if (add) sum[i][j] += *out;
			*out = sum[i][j];
		}
}

// Fetches the lines of a tile of c into the cache while the tile is computed.
INLINE void prefetch(matrix c, int64_t i, int64_t j) {
	for (int64_t r = i; r < least(i + MR, c.rows); r++)
		for (int x = 0; x < NR; x += 16) __builtin_prefetch(at(c.ptr, r * c.stride + j + x, c.bf16), 1);
}

// Sets the register tiles of sums from the chunks a and b, kc deep, or adds to them; the last time stores them in c at
// (row, col), as much as lies in c.
TARGET static void multiply_block(matrix c, int64_t row, int64_t col, float *sums, const float *a, const float *b,
                                  int64_t kc, int add, int last, int accumulate) {
	const int64_t rows = least(ROWS, c.rows - row), cols = least(COLS, c.cols - col);
	float single[MR * NR] __attribute__((aligned(64)));
	for (int64_t j = 0; j < cols; j += NR)
		for (int64_t i = 0; i < rows; i += MR, sums += MR * NR) {
			float *tile = add || !last ? sums : single;
			if (last) prefetch(c, row + i, col + j);
			multiply(tile, a + i * kc, b + j * kc, kc, add);
			if (last) store(c, row + i, col + j, tile, accumulate);
		}
}

#include "gemm_tasks.h"

TARGET static void gemm(int form, matrix c, matrix a, matrix b, int accumulate, float *work) {
	const product p = lay_tasks(form, c, a, b, accumulate, work);
	work_on(&p);
}

enum { CHAINS = 12 };

// Runs CHAINS independent chains of multiply-adds in registers.
TARGET static float peak(int64_t rounds) {
	volatile float scale = 0.5f, shift = 1.0f;
	vec x = BROADCAST(scale), y = BROADCAST(shift), sum[CHAINS];
	for (int i = 0; i < CHAINS; i++) sum[i] = y * (float)i; // different chains, lest they become one
	for (int64_t n = 0; n < rounds; n++)
		for (int i = 0; i < CHAINS; i++) sum[i] = FMA(sum[i], x, y);
	for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];
	return sum[0][0];
}

#endif
