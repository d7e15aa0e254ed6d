/*
 * Blocks that wait for a grace period: inner nodes that a new path replaced.
 *
 * To put a block off must not fail, because the new path is published by then.
 * So the list keeps one empty chunk ahead, made when the last spare went into
 * use; only when memory stayed short for a whole chunk of calls does one of
 * them fall back to waiting for its own grace period.
 */
#include "threads_internal.h"

#include <assert.h>

enum { CHUNK = 255 };

struct bfti_defer_chunk {
    struct bfti_defer_chunk *next;
    size_t count;
    struct {
        void *block;
        size_t bytes;
    } entry[CHUNK];
};

void bfti_defer_init(struct bfti_defer *defer)
{
    defer->first = NULL;
    defer->spare = NULL;
    defer->holds = 0;
}

static void bytes_add(struct bfti_defer *defer, size_t bytes)
{
    /* relaxed: a figure; the list itself is under the lock. */
    atomic_fetch_add_explicit(&defer->bytes, bytes, memory_order_relaxed);
}

static void bytes_sub(struct bfti_defer *defer, size_t bytes)
{
    atomic_fetch_sub_explicit(&defer->bytes, bytes, memory_order_relaxed);
}

static struct bfti_defer_chunk *chunk_create(const struct bfti_env *env)
{
    struct bfti_defer_chunk *chunk = bfti_alloc(env, sizeof(*chunk));

    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->count = 0;
    }
    return chunk;
}

/* Free the blocks of a chain of chunks, and the chunks.  Returns the bytes of
 * the blocks. */
static size_t chain_free(const struct bfti_env *env,
                         struct bfti_defer_chunk *chunk)
{
    size_t bytes = 0;

    while (chunk != NULL) {
        struct bfti_defer_chunk *next = chunk->next;

        for (size_t i = 0; i < chunk->count; i++) {
            bfti_free(env, chunk->entry[i].block);
            bytes += chunk->entry[i].bytes;
        }
        bfti_free(env, chunk);
        chunk = next;
    }
    return bytes;
}

void bfti_defer_destroy(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;

    assert(defer->holds == 0);
    bytes_sub(defer, chain_free(threads->env, defer->first));
    bfti_free(threads->env, defer->spare);
    defer->first = NULL;
    defer->spare = NULL;
}

/* Under the lock.  False: no chunk has room. */
static bool entry_add(struct bfti_defer *defer, void *block, size_t bytes)
{
    struct bfti_defer_chunk *chunk = defer->first;

    if (chunk == NULL || chunk->count == CHUNK) {
        if (defer->spare == NULL)
            return false;
        chunk = defer->spare;
        defer->spare = NULL;
        chunk->next = defer->first;
        defer->first = chunk;
    }
    chunk->entry[chunk->count].block = block;
    chunk->entry[chunk->count].bytes = bytes;
    chunk->count++;
    bytes_add(defer, bytes);
    return true;
}

/* Have a spare chunk, if memory allows.  Allocates outside the lock. */
static void spare_refill(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;
    struct bfti_defer_chunk *chunk = chunk_create(threads->env);

    if (chunk == NULL)
        return;
    bfti_mutex_lock(threads->env, &defer->lock);
    if (defer->spare == NULL) {
        defer->spare = chunk;
        chunk = NULL;
    }
    bfti_mutex_unlock(threads->env, &defer->lock);
    bfti_free(threads->env, chunk);
}

/* No memory to note BLOCK: wait for its grace period here and now. */
static void free_at_once(struct bfti_threads *threads, void *block,
                         size_t bytes)
{
    struct bfti_defer *defer = &threads->defer;
    bool held;

    bfti_read_wait(threads);
    bfti_mutex_lock(threads->env, &defer->lock);
    held = defer->holds != 0;
    if (held)
        /* The holder may be walking it, and to wait for the holder could be
         * to wait for ourselves.  The block is lost to the process; it stays
         * in the figure, where it can be seen. */
        bytes_add(defer, bytes);
    bfti_mutex_unlock(threads->env, &defer->lock);
    if (!held)
        bfti_free(threads->env, block);
}

void bfti_defer_free(struct bfti_threads *threads, void *block, size_t bytes)
{
    struct bfti_defer *defer = &threads->defer;
    bool added = false;

    /* Twice: the first call of all finds no chunk and no spare. */
    for (int i = 0; i < 2 && !added; i++) {
        bool spare;

        bfti_mutex_lock(threads->env, &defer->lock);
        added = entry_add(defer, block, bytes);
        spare = defer->spare != NULL;
        bfti_mutex_unlock(threads->env, &defer->lock);
        if (!spare) {
            PARK("defer:spare-gone");
            spare_refill(threads);
        }
    }
    if (!added)
        free_at_once(threads, block, bytes);
}

void bfti_defer_hold(struct bfti_threads *threads)
{
    bfti_mutex_lock(threads->env, &threads->defer.lock);
    threads->defer.holds++;
    bfti_mutex_unlock(threads->env, &threads->defer.lock);
}

void bfti_defer_unhold(struct bfti_threads *threads)
{
    bfti_mutex_lock(threads->env, &threads->defer.lock);
    assert(threads->defer.holds > 0);
    threads->defer.holds--;
    bfti_mutex_unlock(threads->env, &threads->defer.lock);
}

/* All chunks, unless they are held. */
static struct bfti_defer_chunk *chain_take(struct bfti_threads *threads)
{
    struct bfti_defer *defer = &threads->defer;
    struct bfti_defer_chunk *chain = NULL;

    bfti_mutex_lock(threads->env, &defer->lock);
    if (defer->holds == 0) {
        chain = defer->first;
        defer->first = NULL;
    }
    bfti_mutex_unlock(threads->env, &defer->lock);
    return chain;
}

/* Put CHAIN back if somebody came to hold it while we waited.  Who holds after
 * this look reads the root after it as well, and finds nothing of CHAIN. */
static bool chain_put_back(struct bfti_threads *threads,
                           struct bfti_defer_chunk *chain)
{
    struct bfti_defer *defer = &threads->defer;
    bool held;

    bfti_mutex_lock(threads->env, &defer->lock);
    held = defer->holds != 0;
    if (held) {
        struct bfti_defer_chunk *last = chain;

        while (last->next != NULL)
            last = last->next;
        /* In front, so that a half-full first chunk is filled up again. */
        last->next = defer->first;
        defer->first = chain;
    }
    bfti_mutex_unlock(threads->env, &defer->lock);
    return held;
}

size_t bfti_defer_step(struct bfti_threads *threads)
{
    struct bfti_defer_chunk *chain = chain_take(threads);

    if (chain != NULL) {
        PARK("defer:taken");
        bfti_read_wait(threads);
        PARK("defer:waited");
        if (!chain_put_back(threads, chain))
            bytes_sub(&threads->defer, chain_free(threads->env, chain));
    }
    return bfti_defer_bytes(threads);
}

size_t bfti_defer_bytes(struct bfti_threads *threads)
{
    /* relaxed: a figure. */
    return atomic_load_explicit(&threads->defer.bytes, memory_order_relaxed);
}
