// The tile of the AVX-512 kernel in AVX2 instructions: tests run the wide tile with it on any x86-64.
#if defined(__x86_64__)
#include "vector_avx2.h"

#define MR 14
#define NR 32
#define TRANSPOSE8
#include "kernels_table.h"

kernels *kernels_avx512_emulated(void) {
	static kernels k = {.name = "avx512-emulated"};
	k.available = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	fill_table(&k);
	return &k;
}
#endif
