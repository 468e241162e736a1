/* Denormal numbers count as zero while a sweep runs: the calling thread's floating-point mode, set and put back.
 * Arithmetic on denormals costs up to a hundred times as much, and states that see no gradient decay into them.
 */
#ifndef FASTADAM_DENORMALS_H
#define FASTADAM_DENORMALS_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)

#include <immintrin.h>

static inline uint64_t denormals_off(void) {
    unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush to zero: of results; denormals are zeros: of operands */
    return mode;
}

static inline void denormals_restore(uint64_t mode) { _mm_setcsr((unsigned int)mode); }

#elif defined(__aarch64__)

static inline uint64_t denormals_off(void) {
    uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode)::"memory");
    __asm__ __volatile__("msr fpcr, %0" ::"r"(mode | (1u << 24)) : "memory"); /* flush to zero, both */
    return mode;
}

static inline void denormals_restore(uint64_t mode) { __asm__ __volatile__("msr fpcr, %0" ::"r"(mode) : "memory"); }

#else /* denormals stay what they are, at their price */

static inline uint64_t denormals_off(void) { return 0; }
static inline void denormals_restore(uint64_t mode) { (void)mode; }

#endif
#endif
