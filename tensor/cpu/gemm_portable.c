// Any processor with a C compiler that knows vector types; a vector of 4 is one register on x86-64 and arm64.
#define TARGET
#define MR 4
#define NR 8
#define VL 4
#define BROADCAST(x) ((vec){(x), (x), (x), (x)})
#define FMA(x, y, z) ((x) * (y) + (z))
#include "gemm_kernel.h"

gemm_kernel gemm_portable(void) { return kernel("portable", 1); }
