/* Memory that is needed soon: it comes while the processor does other things. */
#ifndef FASTADAM_PREFETCH_H
#define FASTADAM_PREFETCH_H

#include <stddef.h>

#include "dialect.h"

#define PREFETCH_MOST 1024 /* bytes that are asked for: the processor foresees what follows them */

static inline void prefetch(const void *address, ptrdiff_t n_bytes) {
#if GNU_C
    for (ptrdiff_t at = 0; at < n_bytes && at < PREFETCH_MOST; at += CACHE_LINE)
        __builtin_prefetch((const char *)address + at, 1, 3);
    __asm__ volatile(""); /* gcc drops calls of a function that does nothing else: for it, that has no effect */
#else
    (void)address, (void)n_bytes;
#endif
}

#endif
