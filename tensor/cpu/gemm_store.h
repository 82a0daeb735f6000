// From a register tile of a product to the matrix that it is part of, to be included with the macros of vector.h and
// these:
//
//	MR, NR        rows and columns of the register tile
#include "kernels.h"
#include "vector.h"

// Sets `rows` rows of c from out on to whole rows of a tile, or adds them.
INLINE void store_rows(void *out, int64_t stride, int64_t rows, const float *tile, const int bf16, const int add) {
	for (int64_t r = 0; r < rows; r++, tile += NR)
		UNROLL for (int x = 0; x < NR; x += VL) {
			void *p = at(out, r * stride + x, bf16);
			vec y = *(const unaligned *)(tile + x);
			store_vec(p, add ? load_vec(p, bf16) + y : y, bf16);
		}
}

// Sets c at (i, j) from the part of a tile that lies in c, or adds it.
TARGET static void store(matrix c, int64_t i, int64_t j, const float *tile, int accumulate) {
	int64_t rows = least(MR, c.rows - i), cols = least(NR, c.cols - j);
	void *out = at(c.ptr, i * c.stride + j, c.bf16);
	if (cols == NR) {
		if (c.bf16 && accumulate) store_rows(out, c.stride, rows, tile, 1, 1);
		if (c.bf16 && !accumulate) store_rows(out, c.stride, rows, tile, 1, 0);
		if (!c.bf16 && accumulate) store_rows(out, c.stride, rows, tile, 0, 1);
		if (!c.bf16 && !accumulate) store_rows(out, c.stride, rows, tile, 0, 0);
		return;
	}
	for (int64_t r = 0; r < rows; r++)
		for (int64_t x = 0; x < cols; x++) {
			int64_t e = r * c.stride + x;
			float y = accumulate ? load(out, e, c.bf16) + tile[r * NR + x] : tile[r * NR + x];
			if (c.bf16)
				((uint16_t *)out)[e] = to_bf16(y);
			else
				((float *)out)[e] = y;
		}
}
