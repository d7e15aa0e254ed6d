/*
 * The heap: the end of the pool's region, for what is no page but counts against
 * the same budget: page table, inner nodes, lists of held extents.
 *
 * An allocator of its own would keep what it was given back, scattered, and
 * memory in use would be the budget and that besides.  So the heap takes its
 * blocks from the pool's end, by a map of its own: when little of it is free, the
 * limit between pages and heap moves down by a zone.  No block behind the limit
 * is given out any more, eviction prefers the pages there, and their units are
 * the heap's as they become free.  Zones are never given back, since what the
 * heap is for only grows with the data, until the next opening; half of the pool
 * stays the pages'.
 *
 * The limit says what to look for where, no more: a unit is in use, or free in
 * one of the two maps, and goes from one to the other only in the hands of who
 * claimed it.  So a call that read an earlier limit does no harm: what it takes
 * behind the limit is a page to be evicted, what it frees there is swept up.
 *
 * Until there is room, and for blocks longer than the pool's, the heap asks the
 * surroundings; that is counted.
 */
#include "pool_internal.h"

#include <assert.h>
#include <string.h>

enum {
    ZONE_SHARE = 64,           /* part of the pool that is a zone, but ... */
    ZONE_BYTES_MIN = 16 << 10, /* ... this at least */
    ZONE_BYTES_MAX = 16 << 20, /* ... and this at most: a walk */
    ZONES_MIN = 4,             /* a pool has more, or it has no heap */
    HEAD = 16,                 /* of a block from outside: its bytes */
};

/* --- zones --------------------------------------------------------------------- */

void bfti_heap_gain(struct bfti_pool *pool, size_t index, size_t units)
{
    bfti_map_give(&pool->heap, index, units, false);
    PARK("pool:heap-gains");
    atomic_fetch_add(&pool->moved, units);
}

void bfti_zone_sweep(struct bfti_pool *pool)
{
    struct range zone = {atomic_load(&pool->limit), pool->units};
    size_t index;
    unsigned got;

    /* Of older zones nothing is left. */
    if (zone.to - zone.from > pool->zone_units)
        zone.to = zone.from + pool->zone_units;
    /* Ends: what is taken is not the pages' any more, and no block of the zone
     * is given out but by calls that read an earlier limit. */
    while (bfti_map_take_first(&pool->pages, zone, &index, &got)) {
        PARK("pool:swept");
        bfti_heap_gain(pool, index, got);
        zone.from = index;
    }
}

/* Let the heap have another zone, or what is free of the one that it is to have
 * already. */
static void zone_begin(struct bfti_pool *pool)
{
    size_t limit = atomic_load(&pool->limit), to;

    if (zone_left(pool) == 0) {
        to = limit > pool->zone_units ? limit - pool->zone_units : 0;
        /* Else another thread was faster: it sweeps, and so may we. */
        if (to < pool->units / PAGES_SHARE ||
            !atomic_compare_exchange_strong(&pool->limit, &limit, to))
            return;
        PARK("pool:zone-begun");
    }
    bfti_zone_sweep(pool);
}

bool bfti_heap_check(const struct bfti_pool *pool)
{
    return bfti_map_check(&pool->heap, heap_range(pool)) &&
           atomic_load(&pool->heap.free_units) <= atomic_load(&pool->moved);
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

/* The heap has little free, or nothing. */
static bool is_low(const struct bfti_pool *pool)
{
    return atomic_load(&pool->heap.free_units) < pool->zone_units / 2;
}

static void *heap_alloc(void *ctx, size_t bytes)
{
    struct bfti_pool *pool = ctx;
    size_t units, index;
    unsigned got;
    bool found;

    if (bytes > (size_t)BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD)
        return outside_alloc(pool, bytes);
    units = (bytes + BFTI_BLOCK_HEAD + BFTI_UNIT - 1) / BFTI_UNIT;
    found = bfti_map_take(&pool->heap, (unsigned)units, heap_range(pool),
                          &index, &got);
    if (!found || (is_low(pool) && zone_left(pool) == 0))
        zone_begin(pool);
    if (!found) /* of a zone that was free already, perhaps */
        found = bfti_map_take(&pool->heap, (unsigned)units, heap_range(pool),
                              &index, &got);
    if (!found)
        return outside_alloc(pool, bytes);
    return (uint8_t *)bfti_block_make(pool, &pool->heap, index, got) +
           BFTI_BLOCK_HEAD;
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
    struct block *block;
    size_t index, units;

    if (at == NULL)
        return;
    if (!is_within(pool, at)) {
        outside_add(pool, 0, bytes_at(pool, at) + HEAD);
        bfti_free(pool->env, (uint8_t *)at - HEAD);
        return;
    }
    block = block_from(at);
    units = block_units(block);
    index = (size_t)((uint8_t *)block - pool->base) / BFTI_UNIT;
    bfti_block_forget(pool, index, units);
    bfti_map_give(&pool->heap, index, units, false);
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
    size_t bytes = bfti_pool_budget(pool) / ZONE_SHARE;

    assert(pool->zone_units == 0 &&
           atomic_load(&pool->pages.free_units) == pool->units);
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
    if (pool->units / ZONES_MIN <= bytes / BFTI_UNIT)
        return pool->env; /* too small a pool to share */
    pool->zone_units = bytes / BFTI_UNIT;
    zone_begin(pool);
    return &pool->heap_env;
}

bool bfti_pool_vacating(struct bfti_pool *pool)
{
    return zone_left(pool) != 0;
}

bool bfti_pool_in_zone(struct bfti_pool *pool, uint64_t place)
{
    return bfti_memory_offset(place) / BFTI_UNIT + bfti_memory_units(place) >
           atomic_load(&pool->limit);
}

size_t bfti_pool_outside(struct bfti_pool *pool)
{
    return atomic_load_explicit(&pool->outside, memory_order_relaxed);
}
