/* Words that threads take from one another or look at, right without a GIL too. */
#ifndef FASTADAM_ATOMICS_H
#define FASTADAM_ATOMICS_H

#include <stdint.h>
#include <string.h>

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

/* What this thread did before comes, for all threads, before what it does next. */
static inline void atomic_fence(void) {
    volatile long word = 0;
    _InterlockedExchange(&word, 1);
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

static inline void atomic_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif

/* The same words as numbers. */
static inline void atomic_set_number(volatile int64_t *word, double to) {
    int64_t bits;
    memcpy(&bits, &to, sizeof bits);
    atomic_set(word, bits);
}

static inline double atomic_get_number(volatile int64_t *word) {
    int64_t bits = atomic_get(word);
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* Count a change that follows, in a word that one thread at a time writes: whoever sees any of the change sees the count.
 * Where there is a GIL, it sees to that. */
static inline void atomic_announce(volatile int64_t *word) {
    atomic_set(word, *word + 1);
#ifdef Py_GIL_DISABLED
    atomic_fence();
#endif
}
#endif
