/* A process-wide pool of sleeping helper threads that take tiles of a caller's job.
 *
 * A job is `n_tiles` calls of `work(context, worker, tile)`. The caller publishes it and works itself; helpers claim
 * tiles beside it. All of the protocol is one word, the ticket:
 *
 *     generation (24 bits) | helpers allowed (8 bits) | tiles not yet claimed (32 bits)
 *
 * A tile is claimed by lowering the last field by compare-and-swap. A claimed tile keeps its job alive, because the
 * caller leaves only when as many tiles are done as there are; so a helper reads the job after its claim, and the
 * caller never waits for a helper that has claimed nothing. Helpers spin for some microseconds after work, then sleep.
 * One job runs at a time: a caller that finds the pool taken does its job alone.
 */
#ifndef FASTADAM_POOL_H
#define FASTADAM_POOL_H

#include <stdint.h>

typedef void (*pool_work)(void *context, int worker, int64_t tile);

#if defined(FASTADAM_NO_THREADS) || defined(_WIN32)

#define POOL_MAX_HELPERS 0

static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers) {
    (void)helpers;
    for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define POOL_MAX_HELPERS 63
#define POOL_SPIN_NS 30000

static struct {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic int64_t done;
    _Alignas(64) pool_work work;
    void *context;
    int64_t n_tiles;
    _Atomic int taken;   /* by a caller */
    _Atomic int asleep;  /* helpers that wait for the condition */
    int started;         /* helpers; changed by the caller that has taken the pool */
    int fork_handled;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline uint64_t pool_left(uint64_t ticket) { return ticket & 0xffffffffu; }
static inline int pool_helpers(uint64_t ticket) { return (int)(ticket >> 32 & 0xff); }

static inline int64_t pool_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Claim and do tiles until none is left. Worker 0 is the caller, k + 1 helper k. */
static void pool_claim(int worker) {
    uint64_t ticket = atomic_load(&pool.ticket);
    while (pool_left(ticket) && worker <= pool_helpers(ticket)) {
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket - 1)) continue;
        pool.work(pool.context, worker, pool.n_tiles - (int64_t)pool_left(ticket));
        atomic_fetch_add(&pool.done, 1);
        ticket = atomic_load(&pool.ticket);
    }
}

static int pool_has_work(int worker) {
    uint64_t ticket = atomic_load(&pool.ticket);
    return pool_left(ticket) && worker <= pool_helpers(ticket);
}

static void *pool_helper(void *argument) {
    int worker = (int)(intptr_t)argument;
    for (;;) {
        pool_claim(worker);
        for (int64_t end = pool_now() + POOL_SPIN_NS; !pool_has_work(worker) && pool_now() < end;)
            for (int i = 0; i < 16; i++) pool_pause();
        if (pool_has_work(worker)) continue;
        pthread_mutex_lock(&pool.mutex);
        atomic_fetch_add(&pool.asleep, 1); /* before the look at the ticket, as the caller publishes before it looks */
        while (!pool_has_work(worker)) pthread_cond_wait(&pool.wake, &pool.mutex);
        atomic_fetch_sub(&pool.asleep, 1);
        pthread_mutex_unlock(&pool.mutex);
    }
    return NULL;
}

/* A forked child has no helpers and no caller inside; its locks may have been held by threads it does not have. */
static void pool_after_fork(void) {
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.taken, 0);
    atomic_store(&pool.asleep, 0);
    pool.started = 0;
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

/* Have at least `helpers` helpers, or as many as the system gives. */
static int pool_start(int helpers) {
    if (!pool.fork_handled) pool.fork_handled = pthread_atfork(NULL, NULL, pool_after_fork) == 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the interpreter's: helpers inherit the mask */
    for (; pool.fork_handled && pool.started < helpers; pool.started++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, pool_helper, (void *)(intptr_t)(pool.started + 1))) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool.started < helpers ? pool.started : helpers;
}

static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers) {
    if (helpers > POOL_MAX_HELPERS) helpers = POOL_MAX_HELPERS;
    if (helpers <= 0 || n_tiles > 0xffffffff || atomic_exchange(&pool.taken, 1)) {
        for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
        return;
    }
    if (pool.started < helpers) helpers = pool_start(helpers);
    pool.work = work;
    pool.context = context;
    pool.n_tiles = n_tiles;
    atomic_store(&pool.done, 0);
    uint64_t generation = (atomic_load(&pool.ticket) >> 40) + 1;
    atomic_store(&pool.ticket, generation << 40 | (uint64_t)helpers << 32 | (uint64_t)n_tiles);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.mutex);
    }
    pool_claim(0);
    while (atomic_load(&pool.done) != n_tiles) pool_pause(); /* for tiles that helpers have claimed */
    atomic_store(&pool.taken, 0);
}

#endif
#endif
