/* What the pool needs of the system: threads, a lock, a condition, the time. Windows comes first, then POSIX. */
#ifndef FASTADAM_SYSTEM_H
#define FASTADAM_SYSTEM_H

#include <stdint.h>

#include "dialect.h"

#ifdef _WIN32

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <process.h>

typedef SRWLOCK system_lock;
typedef CONDITION_VARIABLE system_condition;
typedef int system_thread; /* its handle is closed at once: nothing is done to a thread that runs */

#define SYSTEM_LOCK SRWLOCK_INIT
#define SYSTEM_RUNS(name) static unsigned __stdcall name(void *argument) /* what a thread runs. It returns 0 */

static inline void system_lock_init(system_lock *lock) { InitializeSRWLock(lock); }
static inline void system_acquire(system_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void system_release(system_lock *lock) { ReleaseSRWLockExclusive(lock); }
static inline void system_condition_init(system_condition *condition) { InitializeConditionVariable(condition); }
static inline void system_signal(system_condition *condition) { WakeConditionVariable(condition); }
static inline void system_wait(system_condition *condition, system_lock *lock) {
    SleepConditionVariableSRW(condition, lock, INFINITE, 0);
}

static inline void system_yield(void) { SwitchToThread(); }
static inline void system_pause(void) { YieldProcessor(); } /* within a loop that waits: a core's other thread goes on */

static inline int64_t system_now(void) { /* in nanoseconds */
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    int64_t rest = ticks.QuadPart % frequency.QuadPart;
    return ticks.QuadPart / frequency.QuadPart * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

static inline int system_start(system_thread *thread, unsigned(__stdcall *run)(void *), void *argument) {
    uintptr_t handle = _beginthreadex(NULL, 0, run, argument, 0, NULL);
    *thread = 0;
    if (handle) CloseHandle((HANDLE)handle);
    return handle != 0;
}

static inline int system_at_fork(void (*in_child)(void)) { return (void)in_child, 1; } /* there is no fork */

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t system_lock;
typedef pthread_cond_t system_condition;
typedef pthread_t system_thread;

#define SYSTEM_LOCK PTHREAD_MUTEX_INITIALIZER
#define SYSTEM_RUNS(name) static void *name(void *argument)

static inline void system_lock_init(system_lock *lock) { pthread_mutex_init(lock, NULL); }
static inline void system_acquire(system_lock *lock) { pthread_mutex_lock(lock); }
static inline void system_release(system_lock *lock) { pthread_mutex_unlock(lock); }
static inline void system_condition_init(system_condition *condition) { pthread_cond_init(condition, NULL); }
static inline void system_signal(system_condition *condition) { pthread_cond_signal(condition); }
static inline void system_wait(system_condition *condition, system_lock *lock) { pthread_cond_wait(condition, lock); }

static inline void system_yield(void) { sched_yield(); }

static inline void system_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static inline int64_t system_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Start a thread that nobody joins, and return whether there is one. Signals are the interpreter's, so all are blocked in
 * the thread, which inherits the mask. */
static inline int system_start(system_thread *thread, void *(*run)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int created = pthread_create(thread, NULL, run, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (created) pthread_detach(*thread);
    return created;
}

/* Have this called in each forked child, and return whether it will be. */
static inline int system_at_fork(void (*in_child)(void)) { return pthread_atfork(NULL, NULL, in_child) == 0; }

#endif

#ifdef __linux__

static inline int system_processor(void) { return sched_getcpu(); }

/* Have a thread run on the others of this process's processors. */
static inline int system_keep_off(system_thread thread, int processor) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return 0;
    CPU_CLR(processor, &allowed);
    if (CPU_COUNT(&allowed)) pthread_setaffinity_np(thread, sizeof allowed, &allowed);
    return 1;
}

#else /* the scheduler decides */

static inline int system_processor(void) { return -1; }
static inline int system_keep_off(system_thread thread, int processor) { return (void)thread, (void)processor, 0; }

#endif
#endif
