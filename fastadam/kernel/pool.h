/* A process-wide pool of sleeping helper threads that take tiles of a caller's job.
 *
 * A job is `n_tiles` calls of `work(context, worker, tile)`. The caller publishes it and works itself; helpers claim
 * tiles beside it. Each worker has a block of consecutive tiles, the same ones at every job of a kind, so that their
 * memory stays in its core's cache; who is done with his own helps with the others'. All of the protocol is one word a
 * block, the ticket:
 *
 *     generation (24 bits) | workers allowed (8 bits) | tiles of the block not yet claimed (32 bits)
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

static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers, int large) {
    (void)helpers, (void)large;
    for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
}

static void pool_expect(int helpers) { (void)helpers; }

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define POOL_MAX_HELPERS 63
#define POOL_SPIN_NS 30000 /* how long a helper that has no work looks for some before it sleeps */

#define POOL_MAX_WORKERS (POOL_MAX_HELPERS + 1)

typedef struct {
    _Alignas(64) _Atomic uint64_t ticket; /* of the block that is the worker's own */
    pthread_cond_t wake;
    _Atomic int asleep;
    pthread_t thread;
    int apart_from; /* the processor on which this helper may not run, or -1 */
} pool_worker;      /* 0 is the caller */

static struct {
    pool_worker workers[POOL_MAX_HELPERS + 1];
    _Alignas(64) _Atomic int64_t done;
    _Alignas(64) pool_work work;
    void *context;
    int64_t n_tiles;
    int n_workers;
    _Atomic int taken; /* by a caller; what follows is his to change */
    int started;       /* helpers */
    int fork_handled;
    int64_t last_end; /* when the last job was done */
    pthread_mutex_t mutex;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static inline uint64_t pool_left(uint64_t ticket) { return ticket & 0xffffffffu; }
static inline int pool_allowed(uint64_t ticket) { return (int)(ticket >> 32 & 0xff); }

/* Where a block begins, when n tiles are cut into as many blocks as there are workers. */
static inline int64_t pool_begin(int64_t n_tiles, int workers, int block) { return n_tiles * block / workers; }

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

/* Claim and do tiles of a block until none is left; worker 0 is the caller. */
static void pool_claim_block(int worker, int block) {
    uint64_t ticket = atomic_load(&pool.workers[block].ticket);
    while (pool_left(ticket) && worker < pool_allowed(ticket)) {
        if (!atomic_compare_exchange_weak(&pool.workers[block].ticket, &ticket, ticket - 1)) continue;
        pool.work(pool.context, worker, pool_begin(pool.n_tiles, pool.n_workers, block + 1) - (int64_t)pool_left(ticket));
        atomic_fetch_add(&pool.done, 1);
        ticket = atomic_load(&pool.workers[block].ticket);
    }
}

/* The worker's own block first, then what the others have left. */
static void pool_claim(int worker) {
    int workers = pool_allowed(atomic_load(&pool.workers[worker].ticket));
    for (int i = 0; i < workers; i++) pool_claim_block(worker, (worker + i) % workers);
}

/* Whether the worker's own block has tiles: its owner comes to them first, so the others' are looked at after it. */
static int pool_has_work(int worker) { return pool_left(atomic_load(&pool.workers[worker].ticket)) != 0; }

static void *pool_helper(void *argument) {
    int worker = (int)(intptr_t)argument;
    pool_worker *self = &pool.workers[worker];
    for (;;) {
        pool_claim(worker);
        for (int64_t end = pool_now() + POOL_SPIN_NS; !pool_has_work(worker) && pool_now() < end;)
            for (int i = 0; i < 16; i++) pool_pause();
        if (pool_has_work(worker)) continue;
        pthread_mutex_lock(&pool.mutex);
        atomic_store(&self->asleep, 1); /* before the look at the ticket, as the caller publishes before it looks */
        if (!pool_has_work(worker)) pthread_cond_wait(&self->wake, &pool.mutex); /* woken too late, it spins again */
        atomic_store(&self->asleep, 0);
        pthread_mutex_unlock(&pool.mutex);
    }
    return NULL;
}

/* A forked child has no helpers and no caller inside; its lock may have been held by a thread that it does not have. */
static void pool_after_fork(void) {
    for (int worker = 0; worker <= POOL_MAX_HELPERS; worker++) {
        atomic_store(&pool.workers[worker].ticket, 0);
        atomic_store(&pool.workers[worker].asleep, 0);
    }
    atomic_store(&pool.taken, 0);
    pool.started = 0;
    pthread_mutex_init(&pool.mutex, NULL);
}

/* Have at least `helpers` helpers; how many of these there are, if the system gives fewer. */
static int pool_start(int helpers) {
    if (pool.started >= helpers) return helpers;
    if (!pool.fork_handled) pool.fork_handled = pthread_atfork(NULL, NULL, pool_after_fork) == 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the interpreter's: helpers inherit the mask */
    while (pool.fork_handled && pool.started < helpers) {
        pool_worker *next = &pool.workers[pool.started + 1];
        next->apart_from = -1;
        pthread_cond_init(&next->wake, NULL);
        if (pthread_create(&next->thread, NULL, pool_helper, (void *)(intptr_t)(pool.started + 1))) break;
        pthread_detach(next->thread);
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool.started < helpers ? pool.started : helpers;
}

/* Keep the helpers off the caller's processor. The scheduler likes to wake a thread beside its waker, where it either
 * waits for the caller to finish or takes its time. A call for each helper, but only after the caller has moved. */
static void pool_keep_apart(int helpers) {
#ifdef __linux__
    int processor = sched_getcpu();
    cpu_set_t allowed;
    for (pool_worker *helper = &pool.workers[1]; helper <= &pool.workers[helpers]; helper++) {
        if (processor < 0 || helper->apart_from == processor) continue;
        if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
        CPU_CLR(processor, &allowed);
        if (CPU_COUNT(&allowed)) pthread_setaffinity_np(helper->thread, sizeof allowed, &allowed);
        helper->apart_from = processor;
    }
#else
    (void)helpers;
#endif
}

static void pool_wake(int helpers) {
    for (pool_worker *helper = &pool.workers[1]; helper <= &pool.workers[helpers]; helper++) {
        if (!atomic_load(&helper->asleep)) continue;
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_signal(&helper->wake);
        pthread_mutex_unlock(&pool.mutex);
    }
}

/* A job comes in some microseconds: sleeping helpers are to be awake then. */
static void pool_expect(int helpers) {
    if (helpers <= 0 || atomic_exchange(&pool.taken, 1)) return;
    helpers = helpers < pool.started ? helpers : pool.started;
    pool_keep_apart(helpers);
    pool_wake(helpers);
    atomic_store(&pool.taken, 0);
}

static void pool_alone(pool_work work, void *context, int64_t n_tiles) {
    for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
}

/* Do a job with up to `helpers` helpers. A sleeping one takes some 25 us to wake, on the caller's time: that is spent
 * where the job is `large`, or where jobs follow one another so closely that a helper, once awake, will stay so. */
static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers, int large) {
    if (helpers <= 0 || n_tiles > 0xffffffff || atomic_exchange(&pool.taken, 1)) {
        pool_alone(work, context, n_tiles);
        return;
    }
    helpers = pool_start(helpers > POOL_MAX_HELPERS ? POOL_MAX_HELPERS : helpers);
    if (large || pool_now() - pool.last_end < POOL_SPIN_NS) {
        pool_keep_apart(helpers);
        pool.work = work;
        pool.context = context;
        pool.n_tiles = n_tiles;
        pool.n_workers = helpers + 1;
        atomic_store(&pool.done, 0);
        uint64_t generation = (atomic_load(&pool.workers[0].ticket) >> 40) + 1;
        for (int block = helpers; block >= 0; block--) {
            int64_t size = pool_begin(n_tiles, helpers + 1, block + 1) - pool_begin(n_tiles, helpers + 1, block);
            uint64_t ticket = generation << 40 | (uint64_t)(helpers + 1) << 32 | (uint64_t)size;
            atomic_store(&pool.workers[block].ticket, ticket);
        }
        pool_wake(helpers);
        pool_claim(0);
        for (int i = 0; atomic_load(&pool.done) != n_tiles; i++) { /* for tiles that helpers have claimed */
            if (i < 256) pool_pause();
            else sched_yield(); /* one may have lost its processor */
        }
    } else {
        pool_alone(work, context, n_tiles);
    }
    pool.last_end = pool_now();
    atomic_store(&pool.taken, 0);
}

#endif
#endif
