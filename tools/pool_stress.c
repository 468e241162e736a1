/* The pool of threads under stress: every tile of every job is done once, and before the job ends.
 * `.ci/builds pool` runs it plainly and under gcc's ThreadSanitizer, which watches the counters: they are plain memory.
 * `.ci/builds windows` runs it under Wine.
 *
 * Two callers run jobs of every size, with and without pauses in which helpers fall asleep. Where the system has forks,
 * the main thread forks children meanwhile that run jobs of their own; on Linux one more has no memory for all the
 * helpers that it asks for.
 * Its argument: how many jobs each caller runs.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum { CALLERS = 2, MOST_TILES = 3000, SECONDS = 1800 };

#ifdef _WIN32
static void pause_for(int64_t microseconds) { Sleep((DWORD)(microseconds / 1000 + 1)); }
#else
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
static void pause_for(int64_t microseconds) { usleep((useconds_t)microseconds); }
#endif

#if defined(_WIN32)
enum { FORKS = 0 };
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { FORKS = 0 }; /* their allocators are left locked in the child of a process of many threads */
#else
enum { FORKS = 12 };
#endif

typedef struct {
    uint64_t random;
    int done[MOST_TILES];               /* how often each tile was */
    int64_t of[POOL_MAX_HELPERS + 1];   /* tiles of each worker in this job */
    int64_t jobs, tiles, helped, slept; /* of all jobs; by helpers; jobs that found a helper asleep */
} caller;

static void fail(const char *what, int64_t expected, int64_t got) {
    fprintf(stderr, "pool_stress: %s: expected %lld, got %lld\n", what, (long long)expected, (long long)got);
    _Exit(1);
}

static void expect(const char *what, int64_t expected, int64_t got) {
    if (got != expected) fail(what, expected, got);
}

/* One of 0 … n - 1 (xorshift64). */
static int64_t one_of(caller *self, int64_t n) {
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return (int64_t)(self->random % (uint64_t)n);
}

static void work(void *context, int worker, int64_t tile) {
    caller *self = context;
    self->done[tile]++;
    self->of[worker]++;
    if (tile % 997 == 5) system_yield(); /* claimed, and the last to be done */
}

static void job(caller *self, int64_t n_tiles, int helpers, int large) {
    memset(self->done, 0, sizeof self->done);
    memset(self->of, 0, sizeof self->of);
    self->slept += atomic_get(&pool.workers[1].asleep);
    if (one_of(self, 4) == 0) pool_expect(helpers); /* which may come before a helper has started, and beside a job */
    pool_run(work, self, n_tiles, helpers, large);
    for (int64_t tile = 0; tile < MOST_TILES; tile++)
        expect("times that a tile was done", tile < n_tiles, self->done[tile]);
    int64_t of_all = 0;
    for (int worker = 0; worker <= helpers && worker <= POOL_MAX_HELPERS; worker++) of_all += self->of[worker];
    expect("tiles of the workers that were asked for", n_tiles, of_all);
    self->jobs++;
    self->tiles += n_tiles;
    self->helped += n_tiles - self->of[0];
}

static void random_jobs(caller *self, int64_t jobs) {
    static const int64_t most_tiles[] = {1, 3, 8, 65, 300, MOST_TILES + 1};
    static const int most_helpers[] = {1, 2, 4, 8, POOL_MAX_HELPERS + 9};
    for (int64_t k = 0; k < jobs; k++) {
        int most = most_helpers[one_of(self, k % 50 ? 4 : 5)];
        job(self, one_of(self, most_tiles[one_of(self, 6)]), (int)one_of(self, most + 1), (int)one_of(self, 2));
        if (one_of(self, 20) == 0) pause_for(one_of(self, 5 * POOL_SPIN_NS / 1000));
    }
}

static int64_t jobs_of_each;
static volatile int64_t ready; /* callers */

SYSTEM_RUNS(call) {
    random_jobs(argument, jobs_of_each);
    atomic_add(&ready, 1);
    return 0;
}

#ifdef __linux__
/* Where memory has room for three stacks, the system refuses the other helpers; the job is done by those there are. */
static void with_few_helpers(caller *self) {
    long pages = 0;
    size_t stack;
    pthread_attr_t attributes;
    FILE *statm = fopen("/proc/self/statm", "r");
    expect("numbers read from statm", 1, statm ? fscanf(statm, "%ld", &pages) : 0);
    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &stack);
    rlim_t limit = (rlim_t)pages * (rlim_t)getpagesize() + 3 * stack + stack / 2;
    expect("setrlimit", 0, setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}));
    job(self, MOST_TILES, POOL_MAX_HELPERS, 1);
    if (pool.started < 1 || pool.started > 3) fail("helpers under a limit", 3, pool.started);
}

#endif

#ifndef _WIN32
/* A child of callers at work begins without helpers, and gets its own; the alarm ends one whose helpers do nothing. */
static void after_a_fork(caller *self) {
    expect("helpers of a new child", 0, pool.started);
    do random_jobs(self, 200);
    while (self->helped == 0);
}

static void in_a_child(void (*run)(caller *), caller *self) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS);
        run(self);
        _exit(0);
    }
    expect("the child that was waited for", child, waitpid(child, &status, 0));
    expect("status of a child", 0, status);
}
#endif

static void forks(caller *of_children) {
#ifndef _WIN32
    for (int k = 0; k < FORKS; k++) {
        pause_for(20000); /* the callers are at work */
        in_a_child(after_a_fork, of_children);
    }
#endif
    (void)of_children;
}

int main(int count, char **arguments) {
    static caller callers[CALLERS + 1]; /* the last is the children's */
    system_thread thread;
    jobs_of_each = count > 1 ? atoll(arguments[1]) : 20000;
    for (int k = 0; k <= CALLERS; k++) callers[k].random = 0x9E3779B97F4A7C15u * (uint64_t)(k + 1);
#ifdef __linux__
    if (FORKS) in_a_child(with_few_helpers, &callers[CALLERS]); /* a later one would inherit memory of threads */
#endif
    for (int k = 0; k < CALLERS; k++) expect("a thread", 1, system_start(&thread, call, &callers[k]));
    forks(&callers[CALLERS]);
    for (int64_t end = system_now() + SECONDS * INT64_C(1000000000); atomic_get(&ready) < CALLERS; pause_for(1000))
        if (system_now() > end) fail("callers that do not wait for ever", CALLERS, ready);
    caller all = {0};
    for (int k = 0; k < CALLERS; k++) {
        all.jobs += callers[k].jobs, all.tiles += callers[k].tiles;
        all.helped += callers[k].helped, all.slept += callers[k].slept;
    }
    expect("jobs", CALLERS * jobs_of_each, all.jobs);
    if (all.helped == 0 || all.slept == 0) fail("tiles by helpers, and jobs that found one asleep", 1, 0);
    printf("%lld jobs, %lld tiles, %.0f%% by helpers; %lld jobs found a helper asleep; %d forks\n", (long long)all.jobs,
           (long long)all.tiles, 100.0 * (double)all.helped / (double)all.tiles, (long long)all.slept, FORKS);
    return 0;
}
