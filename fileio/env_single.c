/*
 * The real surroundings in a build without threads: clocks, a generator for
 * numbers that need not be secret, memory; nothing to start, wait for or wake.
 * POSIX functions only that WebAssembly's system interface has, too.
 */
#include "alloc.h"
#include "env.h"

#include <assert.h>
#include <time.h>
#include <unistd.h>

uint32_t bfti_fork_generation(void)
{
    /* A copy of the process shares no file with it: this build has none. */
    return 1;
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

/* splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t system_random(void *ctx)
{
    static uint64_t counter;
    static bool seeded;
    uint64_t z;

    (void)ctx;
    if (!seeded && getentropy(&counter, sizeof(counter)) != 0)
        counter = clock_ns(CLOCK_MONOTONIC) ^ clock_ns(CLOCK_REALTIME) << 20;
    seeded = true;
    z = counter;
    counter += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- waiting -------------------------------------------------------------- */

static void system_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                        uint64_t timeout_ns)
{
    (void)ctx;
    /* Nobody is there to change the word: to sleep would be to no end, and a
     * wait without limit would have none. */
    assert(timeout_ns != UINT64_MAX || atomic_load(word) != expected);
    (void)word, (void)expected, (void)timeout_ns;
}

static void system_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    (void)ctx, (void)word, (void)all;
}

static void system_yield(void *ctx)
{
    (void)ctx;
}

const struct bfti_env *bfti_env_system(void)
{
    static const struct bfti_env env = {
        .now_ns = system_now_ns,
        .wall_ms = system_wall_ms,
        .random = system_random,
        .wait = system_wait,
        .wake = system_wake,
        .yield = system_yield,
        .alloc = bfti_system_alloc,
        .realloc = bfti_system_realloc,
        .free = bfti_system_free,
    };

    return &env;
}
