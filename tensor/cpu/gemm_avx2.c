#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define MR 6
#define NR 16
#define VL 8
#define BROADCAST(x) _mm256_set1_ps(x)
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define TRANSPOSE8
#include "gemm_kernel.h"

gemm_kernel gemm_avx2(void) {
	return kernel("avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}
#endif
