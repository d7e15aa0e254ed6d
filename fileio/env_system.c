/*
 * The real surroundings, on Linux: clocks, a generator for numbers that need
 * not be secret, POSIX threads, futexes, and the count of forks.
 */
#include "alloc.h"
#include "env.h"
#include "error.h"

#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct bfti_thread {
    pthread_t id;
    void (*run)(void *arg);
    void *arg;
};

/* --- forks --------------------------------------------------------------- */

/* 0 until the handler that counts is in place, then 1 and up. */
static _Atomic uint32_t fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void count_fork(void)
{
    /* The child has one thread, this one: relaxed does. */
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    /* It fails only for want of memory at the first use in a process.  Then
     * the count stands still, and files still close in the child. */
    (void)pthread_atfork(NULL, NULL, count_fork);
    atomic_store_explicit(&fork_generation, 1, memory_order_relaxed);
}

uint32_t bfti_fork_generation(void)
{
    /* relaxed: the word changes only in a process that has one thread. */
    uint32_t generation =
        atomic_load_explicit(&fork_generation, memory_order_relaxed);

    if (generation == 0) {
        (void)pthread_once(&fork_once, watch_forks);
        generation =
            atomic_load_explicit(&fork_generation, memory_order_relaxed);
    }
    return generation;
}

/* --- time and randomness ------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now = {0};

    /* Cannot fail for the two clocks used here. */
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t system_now_ns(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t system_wall_ms(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_REALTIME) / 1000000u;
}

static _Atomic uint64_t random_counter;
/* The generation whose seed is in the counter; a child seeds itself anew, or
 * it and its parent would make the same database ids. */
static _Atomic uint32_t random_seeded;

static void random_seed(uint32_t generation)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = clock_ns(CLOCK_MONOTONIC) ^ clock_ns(CLOCK_REALTIME) << 20 ^
               (uint64_t)getpid() << 40;
    /* Added and not stored: of two threads that seed at once neither takes
     * the other back to a number that was handed out. */
    atomic_fetch_add_explicit(&random_counter, seed, memory_order_relaxed);
    /* [seeded] release: pairs with the acquire in system_random(). */
    atomic_store_explicit(&random_seeded, generation, memory_order_release);
}

/* splitmix64 (Steele, Lea and Flood, 2014) over a shared counter. */
static uint64_t system_random(void *ctx)
{
    uint32_t generation = bfti_fork_generation();
    uint64_t z;

    (void)ctx;
    /* [seeded] acquire: pairs with the release in random_seed(). */
    if (atomic_load_explicit(&random_seeded, memory_order_acquire) !=
        generation)
        random_seed(generation);
    z = atomic_fetch_add_explicit(&random_counter, 0x9e3779b97f4a7c15u,
                                  memory_order_relaxed);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- threads ------------------------------------------------------------- */

static void *thread_main(void *arg)
{
    const struct bfti_thread *thread = arg;

    thread->run(thread->arg);
    return NULL;
}

/* Signals of the program, and not those that a thread's own fault raises: the
 * system ends the process where such a one is blocked, be there a handler or
 * not. */
static void fill_blocked(sigset_t *blocked)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

    (void)sigfillset(blocked);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        (void)sigdelset(blocked, own[i]);
}

static bft_status system_thread_start(void *ctx, void (*run)(void *arg),
                                      void *arg, struct bfti_thread **out)
{
    struct bfti_thread *thread = bfti_system_alloc(ctx, sizeof(*thread));
    sigset_t blocked;
    sigset_t before;
    int error;

    *out = NULL;
    if (thread == NULL)
        return bfti_fail(BFT_NO_MEMORY, "thread: no memory for its record");
    thread->run = run;
    thread->arg = arg;

    /* A thread inherits the mask of its creator: blocked here, so that not one
     * signal of the program lands on a thread of ours. */
    fill_blocked(&blocked);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = pthread_create(&thread->id, NULL, thread_main, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        bfti_system_free(ctx, thread);
        return bfti_fail(BFT_NO_MEMORY,
                         "thread: the system refuses one more (error %d)",
                         error);
    }
    *out = thread;
    return BFT_OK;
}

static void system_thread_join(void *ctx, struct bfti_thread *thread)
{
    int error = pthread_join(thread->id, NULL);

    assert(error == 0);
    (void)error;
    bfti_system_free(ctx, thread);
}

static void system_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                        uint64_t timeout_ns)
{
    struct timespec timeout;
    struct timespec *limit = NULL;

    (void)ctx;
    if (timeout_ns != UINT64_MAX) {
        timeout.tv_sec = (time_t)(timeout_ns / 1000000000u);
        timeout.tv_nsec = (long)(timeout_ns % 1000000000u);
        limit = &timeout;
    }
    /* Woken, interrupted, timed out or changed before we slept: the caller
     * tests its word again in every case. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, limit, NULL,
                  0);
}

static void system_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    (void)ctx;
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, all ? INT32_MAX : 1,
                  NULL, NULL, 0);
}

static void system_yield(void *ctx)
{
    (void)ctx;
    (void)sched_yield();
}

const struct bfti_env *bfti_env_system(void)
{
    static const struct bfti_env env = {
        .now_ns = system_now_ns,
        .wall_ms = system_wall_ms,
        .random = system_random,
        .thread_start = system_thread_start,
        .thread_join = system_thread_join,
        .wait = system_wait,
        .wake = system_wake,
        .yield = system_yield,
        .alloc = bfti_system_alloc,
        .realloc = bfti_system_realloc,
        .free = bfti_system_free,
    };

    return &env;
}
