/*
 * What the engine asks of its surroundings besides files: time, randomness,
 * threads, waiting and memory.  One table, so that the whole engine can run
 * deterministically on one thread, and so that tests can make allocation fail.
 */
#ifndef BFTI_ENV_H
#define BFTI_ENV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bft_status.h"

struct bfti_thread;

struct bfti_env {
    void *ctx;

    uint64_t (*now_ns)(void *ctx);  /* monotonic */
    uint64_t (*wall_ms)(void *ctx); /* since 1970 */
    uint64_t (*random)(void *ctx);  /* 64 random bits; not for secrets */

    /* Start RUN(ARG) on a thread that blocks all signals.  NULL where there
     * are no threads: the engine then runs its steps in the foreground. */
    bft_status (*thread_start)(void *ctx, void (*run)(void *arg), void *arg,
                               struct bfti_thread **out);
    void (*thread_join)(void *ctx, struct bfti_thread *thread);

    /* Sleep while *WORD is EXPECTED, until woken or for TIMEOUT_NS at most
     * (UINT64_MAX: no limit).  May return early; callers test again. */
    void (*wait)(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                 uint64_t timeout_ns);
    void (*wake)(void *ctx, _Atomic uint32_t *word, bool all);
    void (*yield)(void *ctx);

    /* NULL, or what is called, where asserts are on, at moments at which the
     * calling thread might as well be interrupted: it holds a lock there, or
     * has just let go of one. */
    void (*step)(void *ctx);

    void *(*alloc)(void *ctx, size_t bytes); /* 16-byte aligned or NULL */
    void *(*realloc)(void *ctx, void *old, size_t bytes);
    void (*free)(void *ctx, void *block); /* NULL is fine */
};

/* The real surroundings: clock_gettime, getrandom-seeded generator, pthreads,
 * futex, and mimalloc (mi_*) or malloc as the build chose.  In a build without
 * threads a wait returns at once. */
const struct bfti_env *bfti_env_system(void);

/*
 * Which process this is: a number that is another one in a forked child than
 * in its parent, and never 0.  A handle notes it when it is made and answers
 * BFT_FORKED once it has changed.  One load.
 */
uint32_t bfti_fork_generation(void);

static inline void *bfti_alloc(const struct bfti_env *env, size_t bytes)
{
    return env->alloc(env->ctx, bytes);
}

static inline void *bfti_realloc(const struct bfti_env *env, void *old,
                                 size_t bytes)
{
    return env->realloc(env->ctx, old, bytes);
}

static inline void bfti_free(const struct bfti_env *env, void *block)
{
    env->free(env->ctx, block);
}

static inline void bfti_step(const struct bfti_env *env)
{
#ifdef NDEBUG
    (void)env;
#else
    if (env->step)
        env->step(env->ctx);
#endif
}

/* A mutex of one word over wait and wake: 0 free, 1 held, 2 held and awaited.
 * Spins for about a microsecond, then sleeps. */
struct bfti_mutex {
    _Atomic uint32_t word;
};

void bfti_mutex_lock(const struct bfti_env *env, struct bfti_mutex *mutex);
bool bfti_mutex_try(struct bfti_mutex *mutex);
void bfti_mutex_unlock(const struct bfti_env *env, struct bfti_mutex *mutex);

#endif
