// The AVX-512 kernels, with the product of two bf16 matrices on the tiles of Intel AMX.
#if defined(__x86_64__)
#define _DEFAULT_SOURCE // syscall
#include <cpuid.h>
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vector_avx512.h"

#define WORDS __m512i
#define OP(name) _mm512_##name
#define AT(p, i) _mm_loadu_si128((const __m128i *)((p) + (i) * 256))
#define INSERT(x, p, i) _mm512_inserti32x4(x, AT(p, i), i)
#define LANES(p) INSERT(INSERT(INSERT(_mm512_castsi128_si512(AT(p, 0)), p, 1), p, 2), p, 3)

// Written out, since gcc 12's intrinsics do not say which memory LDTILECFG and TILELOADD read.
#define TILES
#define CONFIGURE() __asm__ volatile("ldtilecfg %0" ::"m"(sixteen_by_sixtyfour))
#define RELEASE() __asm__ volatile("tilerelease" ::: "memory")
#define ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define LOAD(t, p, ld) __asm__ volatile("tileloadd (%0,%1), %%tmm" #t ::"r"(p), "r"((int64_t)(ld)) : "memory")
#define STORE(t, p, ld) __asm__ volatile("tilestored %%tmm" #t ", (%0,%1)" ::"r"(p), "r"((int64_t)(ld)) : "memory")
#define DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

// The operand of LDTILECFG.
static const struct {
	uint8_t palette, start_row, reserved[14];
	uint16_t bytes_per_row[16]; // of the first 8 tiles; the rest is reserved
	uint8_t rows[16];
} sixteen_by_sixtyfour = {
	.palette = 1,
	.bytes_per_row = {64, 64, 64, 64, 64, 64, 64, 64},
	.rows = {16, 16, 16, 16, 16, 16, 16, 16},
};
_Static_assert(sizeof sixteen_by_sixtyfour == 64, "the operand of ldtilecfg has 64 bytes");

#include "gemm_amx_kernel.h"

static int has_tiles(void) {
	unsigned a, b, c, d;
	const unsigned osxsave = 1u << 27, bf16 = 1u << 22, tile = 1u << 24;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return 0;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & bf16) || !(d & tile)) return 0;
	const uint32_t tile_state = 3 << 17; // of the tiles and of their configuration
	uint32_t enabled, high;
	__asm__ volatile("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
	return (enabled & tile_state) == tile_state;
}

// Linux gives a process the 8 KiB of tile state for each thread when it asks (Documentation/arch/x86/xstate.rst), for
// all of its threads, those of the future too.
static int permitted(void) {
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
	return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

kernels *kernels_amx(void) {
	static kernels k = {.name = "amx"};
	const kernels *avx512 = kernels_avx512();
	fill_table(&k, avx512);
	k.available = avx512->available && has_tiles();
	if (k.available && !permitted()) {
		k.available = 0;
		k.why = errno == EINVAL ? "the kernel does not support AMX; Linux 5.16 or newer does"
		                        : "the kernel does not permit AMX to this process";
	}
	return &k;
}
#endif
