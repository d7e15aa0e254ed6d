/*
 * Blocks that wait for a grace period: inner nodes that a new path replaced.
 *
 * To put a block off cannot fail, because the new path is published by then: the
 * link that it waits by lies in the block, where nobody reads it.
 *
 * The list is in the order in which blocks were deferred, and each has the
 * number of the last hold before it.  Who began to hold later has read the root
 * later too, and cannot come to the block: so it waits for older holds only,
 * and holds that overlap without end keep nothing for ever.
 */
#include "threads_internal.h"

#include <assert.h>

void bfti_defer_init(struct bfti_defer *defer, const struct bfti_env *env)
{
    defer->env = env;
    defer->first = NULL;
    defer->last = NULL;
    defer->oldest = NULL;
    defer->newest = NULL;
    defer->holds = 0;
}

void bfti_defer_set_env(struct bfti_threads *threads,
                        const struct bfti_env *env)
{
    assert(threads->defer.first == NULL);
    threads->defer.env = env;
}

/* Free the blocks of a chain.  Returns their bytes. */
static size_t chain_free(const struct bfti_env *env,
                         struct bfti_deferred *chain)
{
    size_t bytes = 0;

    while (chain != NULL) {
        struct bfti_deferred *next = chain->next;

        bytes += chain->bytes;
        bfti_free(env, chain->block); /* and with it the link */
        chain = next;
    }
    return bytes;
}

static void bytes_sub(struct bfti_defer *defer, size_t bytes)
{
    /* relaxed: a figure; the list itself is under the lock. */
    atomic_fetch_sub_explicit(&defer->bytes, bytes, memory_order_relaxed);
}

void bfti_defer_destroy(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;

    assert(defer->oldest == NULL);
    bytes_sub(defer, chain_free(defer->env, defer->first));
    defer->first = NULL;
    defer->last = NULL;
}

void bfti_defer_free(struct bfti_threads *threads, struct bfti_deferred *link,
                     void *block, size_t bytes)
{
    struct bfti_defer *defer = &threads->defer;

    link->next = NULL;
    link->block = block;
    link->bytes = bytes;
    bfti_mutex_lock(threads->env, &defer->lock);
    link->holds = defer->holds;
    if (defer->last != NULL)
        defer->last->next = link;
    else
        defer->first = link;
    defer->last = link;
    atomic_fetch_add_explicit(&defer->bytes, bytes, memory_order_relaxed);
    bfti_mutex_unlock(threads->env, &defer->lock);
}

void bfti_defer_hold(struct bfti_threads *threads, struct bfti_hold *hold)
{
    struct bfti_defer *defer = &threads->defer;

    bfti_mutex_lock(threads->env, &defer->lock);
    hold->number = ++defer->holds;
    hold->older = defer->newest;
    hold->newer = NULL;
    if (defer->newest != NULL)
        defer->newest->newer = hold;
    else
        defer->oldest = hold;
    defer->newest = hold;
    bfti_mutex_unlock(threads->env, &defer->lock);
}

void bfti_defer_unhold(struct bfti_threads *threads, struct bfti_hold *hold)
{
    struct bfti_defer *defer = &threads->defer;

    bfti_mutex_lock(threads->env, &defer->lock);
    assert(defer->oldest != NULL);
    if (hold->older != NULL)
        hold->older->newer = hold->newer;
    else
        defer->oldest = hold->newer;
    if (hold->newer != NULL)
        hold->newer->older = hold->older;
    else
        defer->newest = hold->older;
    bfti_mutex_unlock(threads->env, &defer->lock);
}

uint64_t bfti_defer_oldest(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;
    uint64_t number;

    bfti_mutex_lock(threads->env, &defer->lock);
    number = defer->oldest != NULL ? defer->oldest->number : 0;
    bfti_mutex_unlock(threads->env, &defer->lock);
    return number;
}

/* All that was deferred before the oldest hold began. */
static struct bfti_deferred *chain_take(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;
    struct bfti_deferred *chain, *last = NULL;
    uint64_t before;

    bfti_mutex_lock(threads->env, &defer->lock);
    before = defer->oldest != NULL ? defer->oldest->number : UINT64_MAX;
    for (struct bfti_deferred *at = defer->first;
         at != NULL && at->holds < before; at = at->next)
        last = at;
    chain = last != NULL ? defer->first : NULL;
    if (last != NULL) {
        defer->first = last->next;
        last->next = NULL;
    }
    if (defer->first == NULL)
        defer->last = NULL;
    bfti_mutex_unlock(threads->env, &defer->lock);
    return chain;
}

size_t bfti_defer_step(struct bfti_threads *threads)
{
    struct bfti_deferred *chain = chain_take(threads);

    if (chain != NULL) {
        PARK("defer:taken");
        bfti_read_wait(threads);
        PARK("defer:waited");
        bytes_sub(&threads->defer, chain_free(threads->defer.env, chain));
    }
    return bfti_defer_bytes(threads);
}

size_t bfti_defer_bytes(struct bfti_threads *threads)
{
    /* relaxed: a figure. */
    return atomic_load_explicit(&threads->defer.bytes, memory_order_relaxed);
}
