// The table of the instruction set whose macros are set, to be included once in kernels_*.c.
#include "attention_backward_kernel.h"
#include "attention_kernel.h"
#include "crossentropy_kernel.h"
#include "gemm_kernel.h"
#include "optimizer_kernel.h"
#include "rmsnorm_kernel.h"
#include "rope_kernel.h"
#include "swiglu_kernel.h"

// Sets k, but for its name and whether it is available.
static void fill_table(kernels *k) {
	k->workspace = WORKSPACE;
	k->progress = PROGRESS;
	k->fmas_per_peak = k->fmas_per_peak_bf16 = CHAINS * VL;
	k->gemm = gemm;
	k->peak = k->peak_bf16 = peak;
	k->rms_norm = rms_norm;
	k->rms_norm_backward = rms_norm_backward;
	k->rope = rope;
	k->swiglu = swiglu;
	k->swiglu_backward = swiglu_backward;
	k->cross_entropy = cross_entropy;
	k->log_sum_exp = log_sum_exp;
	k->cross_entropy_shard = cross_entropy_shard;
	k->embed_backward = embed_backward;
	k->attention = attention;
	k->queries_per_call = QUERIES;
	k->attention_workspace = attention_workspace;
	k->attention_backward = attention_backward;
	k->attention_backward_workspace = attention_backward_workspace;
	k->adamw = adamw;
	k->sum = sum;
	k->add = add;
	k->cast = cast;
	k->exps = exps;
}
