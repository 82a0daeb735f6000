// The macros of vector.h for AVX-512.
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prfchw")))
#define VL 16
#define BROADCAST(x) _mm512_set1_ps(x)
#define FMA(x, y, z) _mm512_fmadd_ps(x, y, z)
#define MIN(x, y) _mm512_min_ps(x, y)
#define MAX(x, y) _mm512_max_ps(x, y)
#define SQRT(x) _mm512_sqrt_ps(x)
#define WIDEN(p) ((bits)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))))
#define NARROW(u) ((halves)_mm512_cvtepi32_epi16((__m512i)(u)))
