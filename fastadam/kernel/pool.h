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

#ifdef FASTADAM_NO_THREADS

#define POOL_MAX_HELPERS 0

static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers, int large) {
    (void)helpers, (void)large;
    for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
}

static void pool_expect(int helpers) { (void)helpers; }

#else

#include "atomics.h"
#include "system.h"

#define POOL_MAX_HELPERS 63
#define POOL_SPIN_NS 30000 /* how long a helper that has no work looks for some before it sleeps */

typedef struct {
    ALIGNED(CACHE_LINE) volatile int64_t ticket; /* of the block that is the worker's own */
    system_condition wake;
    volatile int64_t asleep;
    system_thread thread;
    int apart_from; /* the processor on which this helper may not run, or -1 */
} pool_worker;      /* 0 is the caller */

static struct {
    pool_worker workers[POOL_MAX_HELPERS + 1];
    ALIGNED(CACHE_LINE) volatile int64_t done;
    ALIGNED(CACHE_LINE) pool_work work;
    void *context;
    int64_t n_tiles;
    int n_workers;
    volatile int64_t taken; /* by a caller; what follows is his to change */
    int started;            /* helpers */
    int fork_handled;
    int64_t last_end; /* when the last job was done */
    system_lock lock;
} pool = {.lock = SYSTEM_LOCK};

static inline int64_t pool_left(int64_t ticket) { return ticket & 0xffffffff; }
static inline int pool_allowed(int64_t ticket) { return (int)(ticket >> 32 & 0xff); }

/* Where a block begins, when n tiles are cut into as many blocks as there are workers. */
static inline int64_t pool_begin(int64_t n_tiles, int workers, int block) { return n_tiles * block / workers; }

/* Claim and do tiles of a block until none is left; worker 0 is the caller. */
static void pool_claim_block(int worker, int block) {
    volatile int64_t *ticket = &pool.workers[block].ticket;
    int64_t seen = atomic_get(ticket), now;
    for (; pool_left(seen) && worker < pool_allowed(seen); seen = now) {
        now = atomic_swap_if(ticket, seen, seen - 1);
        if (now != seen) continue; /* another was faster */
        pool.work(pool.context, worker, pool_begin(pool.n_tiles, pool.n_workers, block + 1) - pool_left(seen));
        atomic_add(&pool.done, 1);
        now = atomic_get(ticket);
    }
}

/* The worker's own block first, then what the others have left. */
static void pool_claim(int worker) {
    int workers = pool_allowed(atomic_get(&pool.workers[worker].ticket));
    for (int i = 0; i < workers; i++) pool_claim_block(worker, (worker + i) % workers);
}

/* Whether the worker's own block has tiles: its owner comes to them first, so the others' are looked at after it. */
static int pool_has_work(int worker) { return pool_left(atomic_get(&pool.workers[worker].ticket)) != 0; }

SYSTEM_RUNS(pool_helper) {
    int worker = (int)(intptr_t)argument;
    pool_worker *self = &pool.workers[worker];
    for (;;) {
        pool_claim(worker);
        for (int64_t end = system_now() + POOL_SPIN_NS; !pool_has_work(worker) && system_now() < end;)
            for (int i = 0; i < 16; i++) system_pause();
        if (pool_has_work(worker)) continue;
        system_acquire(&pool.lock);
        atomic_publish(&self->asleep, 1); /* before the look at the ticket, as the caller publishes before it looks */
        if (!pool_has_work(worker)) system_wait(&self->wake, &pool.lock); /* woken too late, it spins again */
        atomic_publish(&self->asleep, 0);
        system_release(&pool.lock);
    }
    return 0;
}

/* A forked child has no helpers and no caller inside; its lock may have been held by a thread that it does not have. */
static void pool_after_fork(void) {
    for (int worker = 0; worker <= POOL_MAX_HELPERS; worker++) {
        atomic_publish(&pool.workers[worker].ticket, 0);
        atomic_publish(&pool.workers[worker].asleep, 0);
    }
    atomic_publish(&pool.taken, 0);
    pool.started = 0;
    system_lock_init(&pool.lock);
}

/* Have at least `helpers` helpers; how many of these there are, if the system gives fewer. */
static int pool_start(int helpers) {
    if (pool.started >= helpers) return helpers;
    if (!pool.fork_handled) pool.fork_handled = system_at_fork(pool_after_fork);
    while (pool.fork_handled && pool.started < helpers) {
        pool_worker *next = &pool.workers[pool.started + 1];
        next->apart_from = -1;
        system_condition_init(&next->wake);
        if (!system_start(&next->thread, pool_helper, (void *)(intptr_t)(pool.started + 1))) break;
        pool.started++;
    }
    return pool.started < helpers ? pool.started : helpers;
}

/* Keep the helpers off the caller's processor. The scheduler likes to wake a thread beside its waker, where it either
 * waits for the caller to finish or takes its time. A call for each helper, but only after the caller has moved. */
static void pool_keep_apart(int helpers) {
    int processor = system_processor(); /* -1 where this is left to the system */
    for (pool_worker *helper = &pool.workers[1]; helper <= &pool.workers[helpers]; helper++) {
        if (processor < 0 || helper->apart_from == processor) continue;
        if (!system_keep_off(helper->thread, processor)) return;
        helper->apart_from = processor;
    }
}

static void pool_wake(int helpers) {
    for (pool_worker *helper = &pool.workers[1]; helper <= &pool.workers[helpers]; helper++) {
        if (!atomic_get(&helper->asleep)) continue;
        system_acquire(&pool.lock);
        system_signal(&helper->wake);
        system_release(&pool.lock);
    }
}

/* A job comes in some microseconds: sleeping helpers are to be awake then. */
static void pool_expect(int helpers) {
    if (helpers <= 0 || atomic_swap(&pool.taken, 1)) return;
    helpers = helpers < pool.started ? helpers : pool.started;
    pool_keep_apart(helpers);
    pool_wake(helpers);
    atomic_publish(&pool.taken, 0);
}

static void pool_alone(pool_work work, void *context, int64_t n_tiles) {
    for (int64_t tile = 0; tile < n_tiles; tile++) work(context, 0, tile);
}

/* Do a job with up to `helpers` helpers. A sleeping one takes some 25 us to wake, on the caller's time: that is spent
 * where the job is `large`, or where jobs follow one another so closely that a helper, once awake, will stay so. */
static void pool_run(pool_work work, void *context, int64_t n_tiles, int helpers, int large) {
    if (helpers <= 0 || n_tiles > 0xffffffff || atomic_swap(&pool.taken, 1)) {
        pool_alone(work, context, n_tiles);
        return;
    }
    helpers = pool_start(helpers > POOL_MAX_HELPERS ? POOL_MAX_HELPERS : helpers);
    if (large || system_now() - pool.last_end < POOL_SPIN_NS) {
        pool_keep_apart(helpers);
        pool.work = work;
        pool.context = context;
        pool.n_tiles = n_tiles;
        pool.n_workers = helpers + 1;
        atomic_publish(&pool.done, 0);
        uint64_t generation = ((uint64_t)atomic_get(&pool.workers[0].ticket) >> 40) + 1;
        for (int block = helpers; block >= 0; block--) {
            int64_t size = pool_begin(n_tiles, helpers + 1, block + 1) - pool_begin(n_tiles, helpers + 1, block);
            uint64_t ticket = generation << 40 | (uint64_t)(helpers + 1) << 32 | (uint64_t)size;
            atomic_publish(&pool.workers[block].ticket, (int64_t)ticket);
        }
        pool_wake(helpers);
        pool_claim(0);
        for (int i = 0; atomic_get(&pool.done) != n_tiles; i++) { /* for tiles that helpers have claimed */
            if (i < 256) system_pause();
            else system_yield(); /* one may have lost its processor */
        }
    } else {
        pool_alone(work, context, n_tiles);
    }
    pool.last_end = system_now();
    atomic_publish(&pool.taken, 0);
}

#endif
#endif
