#if defined(__x86_64__)
#include "vector_avx512.h"

#define MR 14
#define NR 32
#define TRANSPOSE8
#include "kernels_table.h"

kernels *kernels_avx512(void) {
	static kernels k = {.name = "avx512"};
	k.available = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
	fill_table(&k);
	return &k;
}
#endif
