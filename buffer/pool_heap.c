/*
 * The heap: the end of the pool's region, for what is no page but counts against
 * the same budget: page table, inner nodes, lists of held extents.
 *
 * An allocator of its own would keep what it was given back, scattered, and
 * memory in use would be the budget and that besides.  So the heap takes its
 * blocks, by the same lists, from the pool's end: when little of it is free, the
 * pool's last part is chosen, as a zone, to be vacated.  No block of it is given
 * out any more, eviction prefers its pages, and the moment that all of it is
 * free it belongs to the heap.  Zones are never given back, since what the heap
 * is for only grows with the data, until the next opening; half of the pool
 * stays the pages'.
 *
 * Until a zone is vacated, and for blocks longer than the pool's, the heap asks
 * the surroundings; that is counted.
 */
#include "pool_internal.h"

#include <assert.h>
#include <string.h>

enum {
    ZONE_SHARE = 64,           /* part of the pool that is a zone, but ... */
    ZONE_BYTES_MIN = 16 << 10, /* ... this at least */
    ZONE_BYTES_MAX = 16 << 20, /* ... and this at most: a walk, locked */
    PAGES_SHARE = 2,           /* part of the pool that stays the pages' */
    ZONES_MIN = 4,             /* that a pool has, or it has no heap */
    HEAD = 16,                 /* of a block from outside: its bytes */
};

/* --- zones; under the pool lock --------------------------------------------- */

static bool is_on(const struct bfti_pool *pool)
{
    return pool->zone_units != 0;
}

static void zone_begin(struct bfti_pool *pool)
{
    struct bfti_pool_blocks *blocks = &pool->blocks;

    if (blocks->limit != blocks->units ||
        blocks->units - pool->zone_units < pool->units / PAGES_SHARE)
        return;
    bfti_blocks_withhold(blocks, pool->zone_units);
    atomic_store_explicit(&pool->vacating, true, memory_order_relaxed);
    bfti_zone_settle(pool);
}

void bfti_zone_settle(struct bfti_pool *pool)
{
    struct bfti_pool_blocks *blocks = &pool->blocks;

    if (blocks->limit == blocks->units ||
        blocks->withheld != blocks->units - blocks->limit)
        return;
    /* The block of size 0 moves down: what was the zone's begins behind it. */
    bfti_blocks_prepend(&pool->heap, bfti_blocks_cut(blocks));
    atomic_store_explicit(&pool->page_units, blocks->units,
                          memory_order_relaxed);
    atomic_store_explicit(&pool->vacating, false, memory_order_relaxed);
}

bool bfti_zone_check(struct bfti_pool *pool)
{
    size_t units[4] = {0};
    size_t count[4] = {0};

    if (!is_on(pool))
        return true;
    return pool->heap.base ==
               (uint8_t *)block_at(&pool->blocks, pool->blocks.units + 1) &&
           pool->blocks.units + 1 + pool->heap.units == pool->units &&
           bfti_blocks_check(&pool->heap, units, count) &&
           count[BLOCK_PUBLISHED] == 0 && count[BLOCK_RETIRED] == 0;
}

/* --- blocks ------------------------------------------------------------------ */

static void outside_add(struct bfti_pool *pool, size_t more, size_t less)
{
    /* relaxed: a figure. */
    atomic_fetch_add_explicit(&pool->outside, more - less,
                              memory_order_relaxed);
}

static void *outside_alloc(struct bfti_pool *pool, size_t bytes)
{
    uint8_t *block;

    if (bytes > SIZE_MAX - HEAD)
        return NULL;
    block = bfti_alloc(pool->env, bytes + HEAD);
    if (block == NULL)
        return NULL;
    memcpy(block, &bytes, sizeof(bytes));
    outside_add(pool, bytes + HEAD, 0);
    return block + HEAD;
}

static void *heap_alloc(void *ctx, size_t bytes)
{
    struct bfti_pool *pool = ctx;
    size_t units;
    struct block *block;

    if (bytes > (size_t)BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD)
        return outside_alloc(pool, bytes);
    units = (bytes + BFTI_BLOCK_HEAD + BFTI_UNIT - 1) / BFTI_UNIT;
    bfti_mutex_lock(pool->env, &pool->lock);
    block = bfti_blocks_take(&pool->heap, (unsigned)units);
    /* relaxed: its writers hold the lock, and so do we. */
    if (block == NULL ||
        atomic_load_explicit(&pool->heap.free_units, memory_order_relaxed) <
            pool->zone_units / 2)
        zone_begin(pool);
    if (block == NULL) /* of a zone that was free already, perhaps */
        block = bfti_blocks_take(&pool->heap, (unsigned)units);
    bfti_mutex_unlock(pool->env, &pool->lock);
    return block != NULL ? (uint8_t *)block + BFTI_BLOCK_HEAD
                         : outside_alloc(pool, bytes);
}

/* Does it lie in the region?  Else it came from outside. */
static bool is_within(const struct bfti_pool *pool, const uint8_t *at)
{
    const uint8_t *region = pool->region;
    return at >= region && (size_t)(at - region) < pool->region_bytes;
}

static struct block *block_from(void *at)
{
    return (struct block *)(void *)((uint8_t *)at - BFTI_BLOCK_HEAD);
}

/* Bytes that whoever has it may use. */
static size_t bytes_at(const struct bfti_pool *pool, void *at)
{
    size_t bytes;

    /* Of a block in use, in nobody's hands but the caller's. */
    if (is_within(pool, at))
        return block_units(block_from(at)) * BFTI_UNIT - BFTI_BLOCK_HEAD;
    memcpy(&bytes, (uint8_t *)at - HEAD, sizeof(bytes));
    return bytes;
}

static void heap_free(void *ctx, void *at)
{
    struct bfti_pool *pool = ctx;

    if (at == NULL)
        return;
    if (!is_within(pool, at)) {
        outside_add(pool, 0, bytes_at(pool, at) + HEAD);
        bfti_free(pool->env, (uint8_t *)at - HEAD);
        return;
    }
    bfti_mutex_lock(pool->env, &pool->lock);
    bfti_blocks_release(&pool->heap, block_from(at));
    bfti_mutex_unlock(pool->env, &pool->lock);
}

static void *heap_realloc(void *ctx, void *old, size_t bytes)
{
    struct bfti_pool *pool = ctx;
    size_t had;
    void *moved;

    if (old == NULL)
        return heap_alloc(ctx, bytes);
    had = bytes_at(pool, old);
    if (is_within(pool, old) && bytes <= had)
        return old;
    moved = heap_alloc(ctx, bytes);
    if (moved == NULL)
        return NULL;
    memcpy(moved, old, bytes < had ? bytes : had);
    heap_free(ctx, old);
    return moved;
}

/* --- surroundings: the rest is handed on ---------------------------------------- */

static const struct bfti_env *below(void *ctx)
{
    return ((struct bfti_pool *)ctx)->env;
}

static uint64_t heap_now_ns(void *ctx)
{
    return below(ctx)->now_ns(below(ctx)->ctx);
}

static uint64_t heap_wall_ms(void *ctx)
{
    return below(ctx)->wall_ms(below(ctx)->ctx);
}

static uint64_t heap_random(void *ctx)
{
    return below(ctx)->random(below(ctx)->ctx);
}

static void heap_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                      uint64_t timeout_ns)
{
    below(ctx)->wait(below(ctx)->ctx, word, expected, timeout_ns);
}

static void heap_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    below(ctx)->wake(below(ctx)->ctx, word, all);
}

static void heap_yield(void *ctx)
{
    below(ctx)->yield(below(ctx)->ctx);
}

const struct bfti_env *bfti_pool_heap(struct bfti_pool *pool)
{
    const size_t units = pool->blocks.units;
    size_t bytes = bfti_pool_budget(pool) / ZONE_SHARE;

    assert(!is_on(pool) && pool->used_blocks == 0);
    if (bytes < ZONE_BYTES_MIN)
        bytes = ZONE_BYTES_MIN;
    if (bytes > ZONE_BYTES_MAX)
        bytes = ZONE_BYTES_MAX;
    pool->heap_env = (struct bfti_env){
        .ctx = pool,
        .now_ns = heap_now_ns,
        .wall_ms = heap_wall_ms,
        .random = heap_random,
        .wait = heap_wait,
        .wake = heap_wake,
        .yield = heap_yield,
        .alloc = heap_alloc,
        .realloc = heap_realloc,
        .free = heap_free,
    };
    if (units / ZONES_MIN < bytes / BFTI_UNIT)
        return pool->env; /* too small a pool to share */
    bfti_mutex_lock(pool->env, &pool->lock);
    /* The last unit ends the heap, of which there is nothing yet, and the one
     * before it the pages' part. */
    bfti_blocks_init(&pool->heap, block_at(&pool->blocks, units), 0);
    bfti_blocks_init(&pool->blocks, pool->blocks.base, units - 1);
    pool->zone_units = bytes / BFTI_UNIT;
    zone_begin(pool);
    bfti_mutex_unlock(pool->env, &pool->lock);
    return &pool->heap_env;
}

bool bfti_pool_vacating(struct bfti_pool *pool)
{
    return atomic_load_explicit(&pool->vacating, memory_order_relaxed);
}

size_t bfti_pool_outside(struct bfti_pool *pool)
{
    return atomic_load_explicit(&pool->outside, memory_order_relaxed);
}
