#include "gemm.h"

#if !defined(__x86_64__)
gemm_kernel gemm_avx512(void) { return (gemm_kernel){.name = "avx512"}; }
gemm_kernel gemm_avx512_emulated(void) { return (gemm_kernel){.name = "avx512-emulated"}; }
gemm_kernel gemm_avx2(void) { return (gemm_kernel){.name = "avx2"}; }
#endif

void gemm_run(gemm_kernel k, int form, gemm_mat c, gemm_mat a, gemm_mat b, int accumulate, float *work) {
	k.gemm(form, c, a, b, accumulate, work);
}

float gemm_peak(gemm_kernel k, int64_t rounds) { return k.peak(rounds); }
