/* Requests memory that is needed soon, so that it is loaded while the processor does other work. */
#ifndef FASTADAM_PREFETCH_H
#define FASTADAM_PREFETCH_H

#include <stddef.h>

#define PREFETCH_LINE 64   /* bytes of a cache line */
#define PREFETCH_MOST 1024 /* the most bytes to request: the processor predicts the following ones */

static inline void prefetch(const void *address, ptrdiff_t n_bytes) {
#if defined(__GNUC__)
    for (ptrdiff_t at = 0; at < n_bytes && at < PREFETCH_MOST; at += PREFETCH_LINE)
        __builtin_prefetch((const char *)address + at, 1, 3);
    __asm__ volatile(""); /* without it, gcc removes calls of this function, as it seems to have no effect */
#else
    (void)address, (void)n_bytes;
#endif
}

#endif
