/*
 * A mutex of one word over the surroundings' wait and wake, after the third
 * mutex of Drepper, "Futexes Are Tricky" (2011), with a short spin in front:
 * the sections it guards are mostly shorter than a trip into the kernel.
 */
#include "env.h"

#include <assert.h>

enum { FREE = 0, HELD = 1, AWAITED = 2 };

/* About a microsecond: a pause takes 10 to 140 cycles, by processor. */
enum { SPIN_MAX = 32 };

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

bool bfti_mutex_try(struct bfti_mutex *mutex)
{
    uint32_t expected = FREE;

    /* [mutex] acquire: pairs with the release in bfti_mutex_unlock().
     * relaxed on failure: who does not get the mutex sees nothing behind it. */
    return atomic_compare_exchange_strong_explicit(&mutex->word, &expected,
                                                   HELD, memory_order_acquire,
                                                   memory_order_relaxed);
}

static bool lock_soon(struct bfti_mutex *mutex)
{
    for (int i = 0; i < SPIN_MAX; i++) {
        if (bfti_mutex_try(mutex))
            return true;
        /* Others sleep already: a spinner would only overtake them. */
        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == AWAITED)
            break;
        pause_cpu();
    }
    return false;
}

void bfti_mutex_lock(const struct bfti_env *env, struct bfti_mutex *mutex)
{
    if (lock_soon(mutex)) {
        bfti_step(env);
        return;
    }

    /* [mutex] acquire: pairs with the release in bfti_mutex_unlock().  Taken
     * as AWAITED, because we cannot know whether somebody sleeps; that costs
     * at most one needless wake.  Ends when the holder unlocks: every unlock
     * of an AWAITED mutex wakes one sleeper, who comes back here. */
    while (atomic_exchange_explicit(&mutex->word, AWAITED,
                                    memory_order_acquire) != FREE)
        env->wait(env->ctx, &mutex->word, AWAITED, UINT64_MAX);
    bfti_step(env);
}

void bfti_mutex_unlock(const struct bfti_env *env, struct bfti_mutex *mutex)
{
    /* [mutex] release: pairs with the acquires above.  After it the memory of
     * MUTEX may be freed by the next holder: only its address is used, and a
     * wake at an address that nobody waits at is harmless. */
    uint32_t before =
        atomic_exchange_explicit(&mutex->word, FREE, memory_order_release);

    assert(before != FREE);
    if (before == AWAITED)
        env->wake(env->ctx, &mutex->word, false);
    bfti_step(env);
}
