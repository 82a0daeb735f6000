// Matrix products of fp32 and bf16 matrices with fp32 sums. gemm_kernel.h holds the algorithm, compiled once for each
// instruction set; gemm.c picks among them at run time.
#ifndef HERD_GEMM_H
#define HERD_GEMM_H

#include <stdint.h>

// A row-major matrix of fp32, or of bf16: element (i, j) is element i·stride + j of ptr.
typedef struct {
	void *ptr;
	int64_t rows, cols, stride;
	int bf16;
} gemm_mat;

// The numbers of tensor.GemmForm.
enum { GEMM_NT, GEMM_NN, GEMM_TN };

// The code for one instruction set.
typedef struct {
	const char *name;
	int mr, nr;                // rows and columns of a register tile
	int available;             // whether the processor and the operating system run it
	int64_t workspace;         // floats that gemm needs to work in
	int64_t fmas_per_peak;     // fused multiply-adds in one round of peak
	void (*gemm)(int form, gemm_mat c, gemm_mat a, gemm_mat b, int accumulate, float *work);
	float (*peak)(int64_t rounds);
} gemm_kernel;

gemm_kernel gemm_avx512(void);
gemm_kernel gemm_avx512_emulated(void);
gemm_kernel gemm_avx2(void);
gemm_kernel gemm_portable(void);

// Calls through the pointers of a kernel, for Go.
void gemm_run(gemm_kernel k, int form, gemm_mat c, gemm_mat a, gemm_mat b, int accumulate, float *work);
float gemm_peak(gemm_kernel k, int64_t rounds);

#endif
