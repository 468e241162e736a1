/* Which instruction sets can be used: the processor has the instructions, and the system saves the registers. The
 * processor itself is asked. Compilers have no common function for it. */
#ifndef FASTADAM_CPU_H
#define FASTADAM_CPU_H

#include <stdint.h>

#include "dialect.h"

#if X86_64

#if GNU_C

#include <cpuid.h>

static void cpu_leaf(unsigned int leaf, unsigned int out[4]) {
    __cpuid_count(leaf, 0, out[0], out[1], out[2], out[3]);
}

static uint64_t cpu_saved(void) { /* registers, a bit for each kind */
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#else

#include <intrin.h>

static void cpu_leaf(unsigned int leaf, unsigned int out[4]) { __cpuidex((int *)out, (int)leaf, 0); }
static uint64_t cpu_saved(void) { return _xgetbv(0); }

#endif

enum { EAX, EBX, ECX, EDX };

/* Whether register `of` of a leaf has all the bits; a leaf that the processor does not know has none. */
static int cpu_has(unsigned int leaf, int of, unsigned int bits) {
    unsigned int out[4];
    cpu_leaf(leaf & 0x80000000u, out);
    if (out[EAX] < leaf) return 0;
    cpu_leaf(leaf, out);
    return (out[of] & bits) == bits;
}

/* Whether the system saves these registers. A processor without OSXSAVE cannot be asked. */
static int cpu_saves(uint64_t registers) {
    return cpu_has(1, ECX, 1u << 27) && (cpu_saved() & registers) == registers;
}

/* x86-64-v3 is FMA, MOVBE, AVX and F16C; BMI1, AVX2 and BMI2; LZCNT. Its registers are xmm and ymm. */
static int cpu_has_v3(void) {
    return cpu_saves(0x6) && cpu_has(1, ECX, 1u << 12 | 1u << 22 | 1u << 28 | 1u << 29) &&
           cpu_has(7, EBX, 1u << 3 | 1u << 5 | 1u << 8) && cpu_has(0x80000001u, ECX, 1u << 5);
}

/* x86-64-v4 adds AVX512F, DQ, CD, BW and VL. Its registers are zmm and masks. macOS saves these from a thread's first
 * use of them on, and says no before. */
static int cpu_has_v4(void) {
#ifdef __APPLE__
    uint64_t registers = 0x6;
#else
    uint64_t registers = 0xe6;
#endif
    return cpu_has_v3() && cpu_saves(registers) &&
           cpu_has(7, EBX, 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31);
}

#else

static int cpu_has_v3(void) { return 0; }
static int cpu_has_v4(void) { return 0; }

#endif
#endif
