#include "kernels.h"

#if !defined(__x86_64__)
static kernels amx = {.name = "amx"}, amx_emulated = {.name = "amx-emulated"}, avx512 = {.name = "avx512"},
               avx512_emulated = {.name = "avx512-emulated"}, avx2 = {.name = "avx2"};

kernels *kernels_amx(void) { return &amx; }
kernels *kernels_amx_emulated(void) { return &amx_emulated; }
kernels *kernels_avx512(void) { return &avx512; }
kernels *kernels_avx512_emulated(void) { return &avx512_emulated; }
kernels *kernels_avx2(void) { return &avx2; }
#endif

void call_gemm(const kernels *k, int form, matrix c, matrix a, matrix b, int accumulate, float *work) {
	k->gemm(form, c, a, b, accumulate, work);
}

float call_peak(const kernels *k, int bf16, int64_t rounds) { return (bf16 ? k->peak_bf16 : k->peak)(rounds); }

void call_rms_norm(const kernels *k, matrix y, float *rstd, matrix x, matrix res, matrix delta, matrix w, double eps) {
	k->rms_norm(y, rstd, x, res, delta, w, eps);
}

void call_rms_norm_backward(const kernels *k, matrix dx, float *dw, matrix dy, matrix x, matrix w, const float *rstd,
                            int accumulate) {
	k->rms_norm_backward(dx, dw, dy, x, w, rstd, accumulate);
}

void call_rope(const kernels *k, matrix x, const int32_t *pos, const float *table, int64_t head_dim, int inverse) {
	k->rope(x, pos, table, head_dim, inverse);
}

void call_swiglu(const kernels *k, matrix h, matrix gu) {
	k->swiglu(h, gu);
}

void call_swiglu_backward(const kernels *k, matrix dgu, matrix dh, matrix gu) {
	k->swiglu_backward(dgu, dh, gu);
}

void call_cross_entropy(const kernels *k, double (*loss)[2], matrix logits, const int32_t *targets, float scale,
                        int grad) {
	k->cross_entropy(loss, logits, targets, scale, grad);
}

void call_log_sum_exp(const kernels *k, double (*lse)[2], matrix logits) {
	k->log_sum_exp(lse, logits);
}

void call_cross_entropy_shard(const kernels *k, float *loss, matrix logits, const int32_t *targets, const float *lse,
                              float scale, int grad) {
	k->cross_entropy_shard(loss, logits, targets, lse, scale, grad);
}

void call_embed_backward(const kernels *k, matrix dw, matrix dx, const int32_t *ids) {
	k->embed_backward(dw, dx, ids);
}

void call_attention(const kernels *k, matrix o, float *lse, matrix q, matrix keys, matrix v, attention_shape s,
                    int64_t i0, float *work) {
	k->attention(o, lse, q, keys, v, s, i0, work);
}

int64_t call_attention_workspace(const kernels *k, int64_t head_dim) { return k->attention_workspace(head_dim); }

void call_attention_backward(const kernels *k, matrix dq, matrix dk, matrix dv, matrix dout, matrix o, const float *lse,
                             matrix q, matrix keys, matrix v, attention_shape s, float *work) {
	k->attention_backward(dq, dk, dv, dout, o, lse, q, keys, v, s, work);
}

int64_t call_attention_backward_workspace(const kernels *k, int64_t length, int64_t keys, int64_t head_dim) {
	return k->attention_backward_workspace(length, keys, head_dim);
}

void call_adamw(const kernels *k, matrix p, float *master, float *m, float *v, const float *g, adamw_numbers s) {
	k->adamw(p, master, m, v, g, s);
}

void call_sum(const kernels *k, double *sums, matrix x, int64_t block, int squares) {
	k->sum(sums, x, block, squares);
}

void call_add(const kernels *k, float *dst, const float *a, const float *b, int64_t n) {
	k->add(dst, a, b, n);
}

void call_cast(const kernels *k, matrix dst, matrix src) {
	k->cast(dst, src);
}

void call_exps(const kernels *k, float *x, int64_t n) {
	k->exps(x, n);
}
