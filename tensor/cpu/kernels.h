// The operations of tensor.Device on fp32 and bf16 in C. Each template (*_kernel.h) is compiled once for each
// instruction set by kernels_*.c, which fill in a table; Go chooses a table at run time. What the operations compute is
// said in tensor/device.go.
#ifndef HERD_KERNELS_H
#define HERD_KERNELS_H

#include <stdint.h>

// A row-major matrix of fp32, or of bf16: element (i, j) is element i·stride + j of ptr. A vector is a matrix of one row.
typedef struct {
	void *ptr;
	int64_t rows, cols, stride;
	int bf16;
} matrix;

// The numbers of tensor.GemmForm.
enum { GEMM_NT, GEMM_NN, GEMM_TN };

enum { NO_TARGET = INT32_MIN }; // tensor.NoTarget

// An AdamW step, its corrections for bias worked out.
typedef struct {
	float clip, keep, beta2, rest1, rest2, rate, root2, eps;
} adamw_numbers;

// Attention of the queries of one sequence with its keys, as tensor.AttentionShape has it.
typedef struct {
	int64_t offset, start, window;
	float scale;
	const int32_t *first; // of each query, or null for zeros
} attention_shape;

// The code for one instruction set. Matrices of an operation are all fp32 or all bf16, unless said.
typedef struct {
	const char *name;
	int available;   // whether the processor and the operating system run it
	const char *why; // it is not, if that is not for want of instructions

	// Threads that call it with the same arguments share out the product, and whoever calls it when there is nothing left
	// to do returns at once: it is complete when all have returned. work, of `workspace` floats, begins with `progress`
	// zeros.
	int64_t workspace, progress;
	void (*gemm)(int form, matrix c, matrix a, matrix b, int accumulate, float *work);
	// Rounds of as many fused multiply-adds as fit in registers: those of gemm, and of its product of bf16 matrices.
	float (*peak)(int64_t rounds), (*peak_bf16)(int64_t rounds);
	int64_t fmas_per_peak, fmas_per_peak_bf16; // in a round

	// x = res + delta comes first if delta.ptr is not null.
	void (*rms_norm)(matrix y, float *rstd, matrix x, matrix res, matrix delta, matrix w, double eps);
	// Sets dw, fp32 [cols].
	void (*rms_norm_backward)(matrix dx, float *dw, matrix dy, matrix x, matrix w, const float *rstd, int accumulate);
	void (*rope)(matrix x, const int32_t *pos, const float *table, int64_t head_dim, int inverse);
	void (*swiglu)(matrix h, matrix gu);
	void (*swiglu_backward)(matrix dgu, matrix dh, matrix gu);
	// The loss of row i is log loss[i][0] + loss[i][1].
	void (*cross_entropy)(double (*loss)[2], matrix logits, const int32_t *targets, float scale, int grad);
	// lse of row i is log lse[i][0] + lse[i][1].
	void (*log_sum_exp)(double (*lse)[2], matrix logits);
	void (*cross_entropy_shard)(float *loss, matrix logits, const int32_t *targets, const float *lse, float scale,
	                            int grad);
	// dw is fp32.
	void (*embed_backward)(matrix dw, matrix dx, const int32_t *ids);
	// One query head of a sequence and its KV head: queries i0, … i0 + queries_per_call − 1 or as many as there are.
	void (*attention)(matrix o, float *lse, matrix q, matrix k, matrix v, attention_shape s, int64_t i0, float *work);
	int64_t queries_per_call;
	int64_t (*attention_workspace)(int64_t head_dim); // floats
	// One KV head of a sequence; dq, dout, o, q and lse hold its query heads, side by side and after one another. dq, dk and
	// dv, and o of attention, may be fp32.
	void (*attention_backward)(matrix dq, matrix dk, matrix dv, matrix dout, matrix o, const float *lse, matrix q, matrix k,
	                           matrix v, attention_shape s, float *work);
	int64_t (*attention_backward_workspace)(int64_t length, int64_t keys, int64_t head_dim); // floats
	// p, fp32 or bf16, is a vector; the others are of its length.
	void (*adamw)(matrix p, float *master, float *m, float *v, const float *g, adamw_numbers s);
	// Sets a sum for each block of the vector x.
	void (*sum)(double *sums, matrix x, int64_t block, int squares);
	void (*add)(float *dst, const float *a, const float *b, int64_t n);
	// From fp32 to bf16 or back, vectors.
	void (*cast)(matrix dst, matrix src);
	// The exponential that the operations use, for tests.
	void (*exps)(float *x, int64_t n);
} kernels;

kernels *kernels_amx(void);
kernels *kernels_amx_emulated(void);
kernels *kernels_avx512(void);
kernels *kernels_avx512_emulated(void);
kernels *kernels_avx2(void);
kernels *kernels_portable(void);

// Calls through the pointers of a table, for Go.
void call_gemm(const kernels *k, int form, matrix c, matrix a, matrix b, int accumulate, float *work);
float call_peak(const kernels *k, int bf16, int64_t rounds);
void call_rms_norm(const kernels *k, matrix y, float *rstd, matrix x, matrix res, matrix delta, matrix w, double eps);
void call_rms_norm_backward(const kernels *k, matrix dx, float *dw, matrix dy, matrix x, matrix w, const float *rstd,
                            int accumulate);
void call_rope(const kernels *k, matrix x, const int32_t *pos, const float *table, int64_t head_dim, int inverse);
void call_swiglu(const kernels *k, matrix h, matrix gu);
void call_swiglu_backward(const kernels *k, matrix dgu, matrix dh, matrix gu);
void call_cross_entropy(const kernels *k, double (*loss)[2], matrix logits, const int32_t *targets, float scale,
                        int grad);
void call_log_sum_exp(const kernels *k, double (*lse)[2], matrix logits);
void call_cross_entropy_shard(const kernels *k, float *loss, matrix logits, const int32_t *targets, const float *lse,
                              float scale, int grad);
void call_embed_backward(const kernels *k, matrix dw, matrix dx, const int32_t *ids);
void call_attention(const kernels *k, matrix o, float *lse, matrix q, matrix keys, matrix v, attention_shape s,
                    int64_t i0, float *work);
int64_t call_attention_workspace(const kernels *k, int64_t head_dim);
void call_attention_backward(const kernels *k, matrix dq, matrix dk, matrix dv, matrix dout, matrix o, const float *lse,
                             matrix q, matrix keys, matrix v, attention_shape s, float *work);
int64_t call_attention_backward_workspace(const kernels *k, int64_t length, int64_t keys, int64_t head_dim);
void call_adamw(const kernels *k, matrix p, float *master, float *m, float *v, const float *g, adamw_numbers s);
void call_sum(const kernels *k, double *sums, matrix x, int64_t block, int squares);
void call_add(const kernels *k, float *dst, const float *a, const float *b, int64_t n);
void call_cast(const kernels *k, matrix dst, matrix src);
void call_exps(const kernels *k, float *x, int64_t n);

#endif
