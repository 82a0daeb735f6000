// The tile of the AVX-512 kernel in AVX2 instructions: tests run the wide tile with it on any x86-64.
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define MR 14
#define NR 32
#define VL 8
#define BROADCAST(x) _mm256_set1_ps(x)
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define TRANSPOSE8
#include "gemm_kernel.h"

gemm_kernel gemm_avx512_emulated(void) {
	return kernel("avx512-emulated", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}
#endif
