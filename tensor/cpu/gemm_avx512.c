#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define MR 14
#define NR 32
#define VL 16
#define BROADCAST(x) _mm512_set1_ps(x)
#define FMA(x, y, z) _mm512_fmadd_ps(x, y, z)
#define TRANSPOSE8
#include "gemm_kernel.h"

gemm_kernel gemm_avx512(void) {
	return kernel("avx512", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
}
#endif
