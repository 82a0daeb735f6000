// The macros of vector.h for AVX2 and FMA.
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define VL 8
#define BROADCAST(x) _mm256_set1_ps(x)
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define MIN(x, y) _mm256_min_ps(x, y)
#define MAX(x, y) _mm256_max_ps(x, y)
#define SQRT(x) _mm256_sqrt_ps(x)
#define WIDEN(p) ((bits)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define NARROW(u) \
	((halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)(u), (__m256i)(u)), 0xd8)))
