#if defined(__x86_64__)
#include "vector_avx2.h"

#define MR 6
#define NR 16
#define TRANSPOSE8
#include "kernels_table.h"

kernels *kernels_avx2(void) {
	static kernels k = {.name = "avx2"};
	k.available = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	fill_table(&k);
	return &k;
}
#endif
