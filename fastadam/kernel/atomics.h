/* One word that threads take from one another, right without a GIL too. */
#ifndef FASTADAM_ATOMICS_H
#define FASTADAM_ATOMICS_H

#include <stdint.h>

#include "dialect.h"

#if !GNU_C

#include <intrin.h>

/* Set the word to `to` if it is `from`; what it was. */
static inline int64_t atomic_swap_if(volatile int64_t *word, int64_t from, int64_t to) {
    return _InterlockedCompareExchange64(word, to, from);
}

/* Set the word after all that this thread has written before. */
static inline void atomic_set(volatile int64_t *word, int64_t to) { _InterlockedExchange64(word, to); }

/* The same, and before this thread reads another word. */
static inline void atomic_publish(volatile int64_t *word, int64_t to) { _InterlockedExchange64(word, to); }

/* The same; what the word was. */
static inline int64_t atomic_swap(volatile int64_t *word, int64_t to) { return _InterlockedExchange64(word, to); }

static inline int64_t atomic_get(volatile int64_t *word) { return _InterlockedOr64(word, 0); }

/* Add to the word; what it is then. */
static inline int64_t atomic_add(volatile int64_t *word, int64_t some) {
    return _InterlockedExchangeAdd64(word, some) + some;
}

#else

static inline int64_t atomic_swap_if(volatile int64_t *word, int64_t from, int64_t to) {
    int64_t was = from;
    __atomic_compare_exchange_n(word, &was, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return was;
}

static inline void atomic_set(volatile int64_t *word, int64_t to) { __atomic_store_n(word, to, __ATOMIC_RELEASE); }

static inline void atomic_publish(volatile int64_t *word, int64_t to) { __atomic_store_n(word, to, __ATOMIC_SEQ_CST); }

static inline int64_t atomic_swap(volatile int64_t *word, int64_t to) {
    return __atomic_exchange_n(word, to, __ATOMIC_SEQ_CST);
}

static inline int64_t atomic_get(volatile int64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

static inline int64_t atomic_add(volatile int64_t *word, int64_t some) {
    return __atomic_add_fetch(word, some, __ATOMIC_SEQ_CST);
}

#endif
#endif
