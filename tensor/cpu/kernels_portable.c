// Any processor with a C compiler that knows vector types; a vector of 4 is one register on x86-64 and arm64.
#define TARGET
#define VL 4
#define BROADCAST(x) ((vec){(x), (x), (x), (x)})
#define WIDEN(p) __builtin_convertvector(*(const halves *)(p), bits)
#define NARROW(u) __builtin_convertvector(u, halves)
#if defined(__x86_64__)
#include <immintrin.h>
#define FMA(x, y, z) ((x) * (y) + (z))
#define MIN(x, y) _mm_min_ps(x, y)
#define MAX(x, y) _mm_max_ps(x, y)
#define SQRT(x) _mm_sqrt_ps(x)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define FMA(x, y, z) ((vec)vfmaq_f32((float32x4_t)(z), (float32x4_t)(x), (float32x4_t)(y)))
#define MIN(x, y) ((vec)vminq_f32((float32x4_t)(x), (float32x4_t)(y)))
#define MAX(x, y) ((vec)vmaxq_f32((float32x4_t)(x), (float32x4_t)(y)))
#define SQRT(x) ((vec)vsqrtq_f32((float32x4_t)(x)))
#else
#include <math.h>
#define FMA(x, y, z) ((x) * (y) + (z))
#define EACH(a, b, c, d) ((vec){(a), (b), (c), (d)})
#define LESS(x, y, i) ((x)[i] < (y)[i] ? (x)[i] : (y)[i])
#define MIN(x, y) EACH(LESS(x, y, 0), LESS(x, y, 1), LESS(x, y, 2), LESS(x, y, 3))
#define MAX(x, y) -MIN(-(x), -(y))
#define SQRT(x) EACH(sqrtf((x)[0]), sqrtf((x)[1]), sqrtf((x)[2]), sqrtf((x)[3]))
#endif
#define MR 4
#define NR 8
#include "kernels_table.h"

kernels *kernels_portable(void) {
	static kernels k = {.name = "portable", .available = 1};
	fill_table(&k);
	return &k;
}
