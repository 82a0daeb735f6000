// The AMX kernels with tiles in memory and AVX2 instructions: tests run the product of bf16 matrices on tiles with it on
// any x86-64.
#if defined(__x86_64__)
#include <stdint.h>
#include <string.h>

#include "vector_avx2.h"

#define WORDS __m256i
#define OP(name) _mm256_##name
#define AT(p, i) _mm_loadu_si128((const __m128i *)((p) + (i) * 256))
#define LANES(p) _mm256_inserti128_si256(_mm256_castsi128_si256(AT(p, 0)), AT(p, 1), 1)

#define TILES char tiles[8][1024]
#define CONFIGURE()
#define RELEASE()
#define ZERO(t) memset(tiles[t], 0, 1024)
#define LOAD(t, p, ld) copy_tile(tiles[t], 64, p, ld)
#define STORE(t, p, ld) copy_tile(p, ld, tiles[t], 64)
#define DOT(c, a, b) dot(tiles[c], tiles[a], tiles[b])

static void copy_tile(void *to, int64_t to_ld, const void *from, int64_t from_ld) {
	for (int r = 0; r < 16; r++) memcpy((char *)to + r * to_ld, (const char *)from + r * from_ld, 64);
}

static void dot(char *c, const char *a, const char *b);

#include "gemm_amx_kernel.h"

// Zeros in place of denormal numbers.
INLINE vec flush(vec x) {
	bits u = (bits)x, exponent = u & 0x7f800000;
	return (vec)(u & ((bits)(exponent != 0) | 0x80000000));
}

// The even and the odd of pairs of bf16.
INLINE vec even(bits pairs) { return flush((vec)(pairs << 16)); }
INLINE vec odd(bits pairs) { return flush((vec)(pairs & 0xffff0000)); }

// Adds the product of tiles of bf16 to c, as TDPBF16PS does.
TARGET static void dot(char *c, const char *a, const char *b) {
	for (int m = 0; m < 16; m++)
		for (int n = 0; n < 16; n += VL) {
			vec sum_even = {0}, sum_odd = {0};
			for (int k = 0; k < 16; k++) {
				int32_t pair;
				memcpy(&pair, a + 64 * m + 4 * k, 4);
				bits x = (bits)_mm256_set1_epi32(pair), y = (bits) * (const unaligned *)(b + 64 * k + 4 * n);
				sum_even = flush(FMA(even(x), even(y), sum_even));
				sum_odd = flush(FMA(odd(x), odd(y), sum_odd));
			}
			unaligned *sum = (unaligned *)(c + 64 * m + 4 * n);
			*sum = flush(flush(*sum) + flush(sum_even + sum_odd));
		}
}

kernels *kernels_amx_emulated(void) {
	static kernels k = {.name = "amx-emulated"};
	fill_table(&k, kernels_avx512_emulated());
	return &k;
}
#endif
