/*
 * The pool: allocation, the second chance clock and the retired list, over the
 * blocks of pool_alloc.c.
 *
 * Retired blocks are linked through their heads (the page id is no longer
 * needed there), because their bytes are still being read.  They go in batches
 * past the hazard slots, outside the pool lock.  A batch belongs to no thread:
 * its places stay in the pool, whoever finds it there may scan the slots for it
 * as well, and the first to come back settles it.  So a thread that stops in
 * the middle of a scan keeps nothing from the others.
 */
#include "pool_internal.h"

#include <assert.h>
#include <string.h>

#include "os.h"

enum {
    LINE = 64,          /* of the processor's caches; a region starts at one */
    MAP_FROM = 1 << 20, /* larger regions are mapped, not allocated */
    BUDGET_MIN = 1024,
    BATCH = BFTI_POOL_BATCH,
    BATCH_KEPT = BATCH / 4, /* of them, those that were named last time */
    DUE_BLOCKS = 64,        /* retired blocks that are worth a pass, if ... */
    DUE_SHARE = 32,         /* ... they are more than this part of the pool */
    DUE_SHARE_FEW = 16,     /* this part is worth one however few they are */
    CLOCK_STEPS = 4096,     /* blocks that the hand passes under one lock */
    READER_SHARE = 16,      /* part of the pool that readers leave to writers */
    ELSEWHERE_SHARE = 2,    /* part of it that others can take away */
    ELSEWHERE_STEP = 256,   /* part of it that is worth a note */
};

static void pool_lock(struct bfti_pool *pool)
{
    bfti_mutex_lock(pool->env, &pool->lock);
}

static void pool_unlock(struct bfti_pool *pool)
{
    bfti_mutex_unlock(pool->env, &pool->lock);
}

/* --- the region -------------------------------------------------------------- */

static void *region_create(struct bfti_pool *pool, size_t bytes)
{
    pool->region_bytes = bytes + LINE;
    if (bytes >= MAP_FROM) {
        pool->region = bfti_os_map(bytes);
        pool->region_bytes = pool->mapped = bytes;
        return pool->region;
    }
    pool->mapped = 0;
    pool->region = bfti_alloc(pool->env, bytes + LINE);
    if (pool->region == NULL)
        return NULL;
    return (uint8_t *)pool->region +
           (LINE - (uintptr_t)pool->region % LINE) % LINE;
}

static void region_destroy(struct bfti_pool *pool)
{
    if (pool->mapped != 0)
        bfti_os_unmap(pool->region, pool->mapped);
    else
        bfti_free(pool->env, pool->region);
}

bft_status bfti_pool_create(struct bfti_threads *threads,
                            const struct bfti_env *env, size_t budget_bytes,
                            struct bfti_pool **out)
{
    const size_t units = budget_bytes / BFTI_UNIT;
    struct bfti_pool *pool;
    void *base;

    *out = NULL;
    if (budget_bytes < BUDGET_MIN || (uint64_t)units >> 36 != 0)
        return bfti_fail(BFT_INVALID,
                         "pool: a budget of %zu bytes is not in %d..2 TiB",
                         budget_bytes, BUDGET_MIN);
    pool = bfti_alloc(env, sizeof(*pool));
    if (pool == NULL)
        return bfti_fail(BFT_NO_MEMORY, "pool: no memory for its lists");
    memset(pool, 0, sizeof(*pool));
    pool->threads = threads;
    pool->env = env;
    base = region_create(pool, units * BFTI_UNIT);
    if (base == NULL) {
        bfti_free(env, pool);
        return bfti_fail(BFT_NO_MEMORY, "pool: no memory for %zu bytes",
                         budget_bytes);
    }
    /* The last unit ends every walk. */
    pool->units = units - 1;
    bfti_blocks_init(&pool->blocks, base, pool->units);
    atomic_store_explicit(&pool->page_units, pool->units, memory_order_relaxed);
    *out = pool;
    return BFT_OK;
}

void bfti_pool_destroy(struct bfti_pool *pool)
{
    if (pool == NULL)
        return;
    /* All that was had from the heap has come back. */
    assert(atomic_load(&pool->heap.free_units) == pool->heap.units &&
           bfti_pool_outside(pool) == 0);
    bfti_blocks_finish(&pool->blocks);
    bfti_blocks_finish(&pool->heap);
    region_destroy(pool);
    bfti_free(pool->env, pool);
}

/* --- places ------------------------------------------------------------------ */

/* The block of a place that the caller may use. */
static struct block *block_of(struct bfti_pool *pool, uint64_t place)
{
    assert(bfti_place_tag(place) == BFTI_TAG_MEMORY);
    assert(bfti_memory_offset(place) / BFTI_UNIT + bfti_memory_units(place) <=
           pool->units);
    return block_at(&pool->blocks,
                    (size_t)(bfti_memory_offset(place) / BFTI_UNIT));
}

/* The block of a queue's link, which is its index and 1. */
static struct block *block_linked(struct bfti_pool *pool, uint64_t link)
{
    assert(link != 0 && link <= pool->units);
    return block_at(&pool->blocks, (size_t)(link - 1));
}

void *bfti_pool_at(struct bfti_pool *pool, uint64_t place)
{
    return (uint8_t *)block_of(pool, place) + BFTI_BLOCK_HEAD;
}

/*
 * Above 16 units the classes are eight to a doubling: 16, 18 .. 30, 32, 36 ..
 * They are bounds of the free lists' cells, so that a free block of a class is
 * found at the first look.
 */
unsigned bfti_pool_class(size_t bytes)
{
    size_t units;
    size_t step;

    if (bytes > (size_t)BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD)
        return 0;
    units = (bytes + BFTI_BLOCK_HEAD + BFTI_UNIT - 1) / BFTI_UNIT;
    if (units <= 2)
        return 2;
    if (units <= 16)
        return (unsigned)units;
    step = (size_t)1 << (31 - __builtin_clz((unsigned)units - 1) - 3);
    units = (units + step - 1) / step * step;
    return units < BFTI_UNITS_MAX ? (unsigned)units : BFTI_UNITS_MAX;
}

/* --- the retired list; under the pool lock -------------------------------------- */

static void queue_push(struct bfti_pool *pool, struct queue *queue,
                       struct block *block)
{
    uint64_t link = block_index(&pool->blocks, block) + 1;

    block_set_word(block, word_of(BLOCK_RETIRED, 0));
    if (queue->tail == 0)
        queue->head = link;
    else
        block_set_word(block_linked(pool, queue->tail),
                       word_of(BLOCK_RETIRED, link));
    queue->tail = link;
    queue->blocks++;
    queue->units += block_units(block);
}

static struct block *queue_pop(struct bfti_pool *pool, struct queue *queue)
{
    struct block *block;

    if (queue->head == 0)
        return NULL;
    block = block_linked(pool, queue->head);
    queue->head = block_word(block) & WORD_ID_MASK;
    if (queue->head == 0)
        queue->tail = 0;
    queue->blocks--;
    queue->units -= block_units(block);
    return block;
}

/* Move blocks of QUEUE into the batch until it has COUNT. */
static void batch_add(struct bfti_pool *pool, struct queue *queue, size_t count)
{
    while (pool->batch < count) {
        struct block *block = queue_pop(pool, queue);
        if (block == NULL)
            return;
        pool->place[pool->batch++] = block_place(&pool->blocks, block);
    }
}

/* PLACES is the batch after the comparison: 0 where no slot names it. */
static void batch_settle(struct bfti_pool *pool, const uint64_t *places)
{
    for (size_t i = 0; i < pool->batch; i++) {
        struct block *block = block_of(pool, pool->place[i]);

        assert(block_state(block) == BLOCK_RETIRED);
        if (places[i] != 0) {
            queue_push(pool, &pool->kept, block);
            continue;
        }
        pool->retired_blocks--;
        pool->retired_units -= block_units(block);
        pool->used_blocks--;
        bfti_blocks_release(&pool->blocks, block);
    }
    pool->batch = 0;
    bfti_zone_settle(pool);
}

/*
 * Compare a batch of retired blocks with the slots and free those that nobody
 * names.  Leaves the pool lock meanwhile, so that all may have changed.
 * False: nothing is retired.
 */
static bool reclaim(struct bfti_pool *pool)
{
    uint64_t places[BATCH];
    uint64_t serial;
    size_t count;

    if (pool->batch == 0) {
        batch_add(pool, &pool->kept, BATCH_KEPT);
        batch_add(pool, &pool->fresh, BATCH);
        batch_add(pool, &pool->kept, BATCH);
        if (pool->batch == 0)
            return false;
        pool->batch_serial++;
    }
    serial = pool->batch_serial;
    count = pool->batch;
    memcpy(places, pool->place, count * sizeof(places[0]));

    pool_unlock(pool);
    PARK("pool:batch-copied");
    bfti_hazard_unnamed(pool->threads, places, count);
    PARK("pool:batch-compared");
    pool_lock(pool);

    /* Else another thread settled it: its answer is as good as ours. */
    if (pool->batch != 0 && pool->batch_serial == serial)
        batch_settle(pool, places);
    return true;
}

/* Is enough retired, and not yet compared, to be worth a pass?  What is named
 * does not count: a stopped reader must not make every call look again. */
static bool reclaim_is_due(const struct bfti_pool *pool)
{
    /* A scan that is under way will do; but its thread may have stopped. */
    size_t patience = pool->batch == 0 ? 1 : 2;
    const struct queue *fresh = &pool->fresh;

    return fresh->units * DUE_SHARE_FEW > pool->blocks.units * patience ||
           (fresh->blocks > DUE_BLOCKS * patience &&
            fresh->units * DUE_SHARE > pool->blocks.units * patience);
}

/* Is a zone to be vacated that is free, or retired, but for little? */
static bool zone_awaits(const struct bfti_pool *pool)
{
    const struct bfti_pool_blocks *blocks = &pool->blocks;

    return blocks->limit != blocks->units &&
           blocks->withheld + pool->fresh.units >=
               (blocks->units - blocks->limit) / 2;
}

/* Units that may still be filled, of FREE_UNITS. */
static size_t units_left(const struct bfti_pool *pool, size_t free_units)
{
    size_t elsewhere =
        atomic_load_explicit(&pool->elsewhere, memory_order_relaxed);

    return free_units > elsewhere ? free_units - elsewhere : 0;
}

/* --- blocks in and out ------------------------------------------------------------ */

/* Under the pool lock; 0: none is free. */
static uint64_t place_take(struct bfti_pool *pool, unsigned units)
{
    struct block *block = bfti_blocks_take(&pool->blocks, units);

    if (block == NULL)
        return 0;
    pool->used_blocks++;
    return block_place(&pool->blocks, block);
}

uint64_t bfti_pool_alloc(struct bfti_pool *pool, unsigned units)
{
    uint64_t place;

    assert(units > 0);
    if (units == 0 || units > BFTI_UNITS_MAX)
        return 0;
    pool_lock(pool);
    if (reclaim_is_due(pool))
        (void)reclaim(pool);
    pool->allocs++;
    place = place_take(pool, units);
    /* Ends: each round compares a batch of what is retired now, the longest
     * waiting first, and no round is added for what comes in meanwhile. */
    for (size_t rounds = pool->retired_blocks / BATCH + 2;
         place == 0 && rounds > 0 && reclaim(pool); rounds--)
        place = place_take(pool, units);
    if (place == 0)
        pool->failed_allocs++;
    pool_unlock(pool);
    return place;
}

uint64_t bfti_pool_try_alloc(struct bfti_pool *pool, unsigned units)
{
    uint64_t place = 0;
    size_t left;

    assert(units > 0);
    if (units == 0 || units > BFTI_UNITS_MAX || !bfti_mutex_try(&pool->lock))
        return 0;
    pool->allocs++;
    /* relaxed: its writers hold the pool lock, and so do we. */
    left = units_left(pool, atomic_load_explicit(&pool->blocks.free_units,
                                                 memory_order_relaxed));
    if (left >= units && (left - units) * READER_SHARE >= pool->blocks.units)
        place = place_take(pool, units);
    if (place == 0)
        pool->failed_allocs++;
    pool_unlock(pool);
    return place;
}

void bfti_pool_publish(struct bfti_pool *pool, uint64_t place, uint64_t page_id)
{
    struct block *block = block_of(pool, place);
    uint64_t before = block_word(block);

    assert(page_id <= WORD_ID_MASK);
    /* Referenced, so that the hand passes it once before it may choose it.
     * Ends: the reference bit is the only one that changes under us and stays
     * set.  A page that was retired before we came here stays retired. */
    while (word_state(before) == BLOCK_PRIVATE &&
           !atomic_compare_exchange_weak_explicit(
               &block->word, &before,
               word_of(BLOCK_PUBLISHED, page_id) | WORD_REFERENCED,
               memory_order_relaxed, memory_order_relaxed))
        ;
}

void bfti_pool_free(struct bfti_pool *pool, uint64_t place)
{
    struct block *block = block_of(pool, place);

    pool_lock(pool);
    assert(block_state(block) == BLOCK_PRIVATE);
    assert(block_place(&pool->blocks, block) == place);
    pool->used_blocks--;
    bfti_blocks_release(&pool->blocks, block);
    bfti_zone_settle(pool);
    pool_unlock(pool);
}

void bfti_pool_retire(struct bfti_pool *pool, uint64_t place)
{
    struct block *block = block_of(pool, place);

    pool_lock(pool);
    assert(block_state(block) == BLOCK_PRIVATE ||
           block_state(block) == BLOCK_PUBLISHED);
    assert(block_place(&pool->blocks, block) == place);
    queue_push(pool, &pool->fresh, block);
    pool->retired_blocks++;
    pool->retired_units += block_units(block);
    /* No scan here, however many they are: our caller may hold a latch, under
     * which there are no system calls.  Who allocates or evicts next does it. */
    pool_unlock(pool);
}

/* --- the clock -------------------------------------------------------------------- */

void bfti_pool_touch(struct bfti_pool *pool, uint64_t place)
{
    struct block *block = block_of(pool, place);

    /* Read first: a hot page's line stays shared between processors. */
    if (!(block_word(block) & WORD_REFERENCED))
        atomic_fetch_or_explicit(&block->word, WORD_REFERENCED,
                                 memory_order_relaxed);
}

/* Move the hand over up to CLOCK_STEPS blocks, while *WALKED is below LIMIT.
 * True: *VICTIM had its bit clear, and the hand stands behind it. */
static bool hand_move(struct bfti_pool_blocks *blocks, uint64_t limit,
                      uint64_t *walked, struct block **victim)
{
    for (int i = 0; i < CLOCK_STEPS && *walked < limit; i++) {
        struct block *block = block_at(blocks, blocks->hand);
        size_t units = block_units(block);
        uint64_t word = block_word(block);

        blocks->hand += units;
        if (blocks->hand == blocks->units)
            blocks->hand = 0;
        *walked += units;
        if (word_state(word) != BLOCK_PUBLISHED)
            continue;
        if (!(word & WORD_REFERENCED)) {
            *victim = block;
            return true;
        }
        atomic_fetch_and_explicit(&block->word, ~WORD_REFERENCED,
                                  memory_order_relaxed);
    }
    return false;
}

/* A page in what is to be vacated, used or not: every other victim, so that
 * who waits for free bytes gets some too. */
static struct block *zone_victim(struct bfti_pool *pool)
{
    struct bfti_pool_blocks *blocks = &pool->blocks;

    if (blocks->limit == blocks->units || ++pool->turns % 2 == 0)
        return NULL;
    for (int i = 0; i < CLOCK_STEPS && blocks->zone_hand < blocks->units; i++) {
        struct block *block = block_at(blocks, blocks->zone_hand);

        blocks->zone_hand += block_units(block);
        if (block_state(block) == BLOCK_PUBLISHED)
            return block;
    }
    if (blocks->zone_hand == blocks->units)
        blocks->zone_hand = blocks->limit;
    return NULL;
}

bool bfti_pool_victim(struct bfti_pool *pool, uint64_t *place,
                      uint64_t *page_id)
{
    struct bfti_pool_blocks *blocks = &pool->blocks;
    const uint64_t limit = 2 * (uint64_t)pool->units;
    uint64_t walked = 0;
    struct block *block;
    bool found;

    *place = 0;
    *page_id = 0;
    /* Else an evictor that waits for free bytes would go on evicting while
     * those it already won lie in the retired list. */
    pool_lock(pool);
    if (reclaim_is_due(pool) || zone_awaits(pool))
        (void)reclaim(pool);
    block = zone_victim(pool);
    found = block != NULL;
    if (found) {
        *place = block_place(blocks, block);
        *page_id = block_word(block) & WORD_ID_MASK;
    }
    pool_unlock(pool);
    /* Ends: every step adds at least one unit to WALKED. */
    while (!found && walked < limit) {
        pool_lock(pool);
        found = hand_move(blocks, limit, &walked, &block);
        if (found) {
            *place = block_place(blocks, block);
            *page_id = block_word(block) & WORD_ID_MASK;
        }
        pool_unlock(pool);
    }
    return found;
}

/* --- figures ------------------------------------------------------------------------ */

size_t bfti_pool_free_bytes(struct bfti_pool *pool)
{
    /* relaxed: a figure, out of date when it arrives. */
    size_t units =
        atomic_load_explicit(&pool->blocks.free_units, memory_order_relaxed);

    return units_left(pool, units) * BFTI_UNIT;
}

size_t bfti_pool_budget(const struct bfti_pool *pool)
{
    return pool->units * BFTI_UNIT;
}

size_t bfti_pool_pages(struct bfti_pool *pool)
{
    return atomic_load_explicit(&pool->page_units, memory_order_relaxed) *
           BFTI_UNIT;
}

void bfti_pool_elsewhere(struct bfti_pool *pool, size_t bytes)
{
    size_t units = bytes / BFTI_UNIT;
    size_t before =
        atomic_load_explicit(&pool->elsewhere, memory_order_relaxed);
    size_t by;

    if (units > pool->units / ELSEWHERE_SHARE)
        units = pool->units / ELSEWHERE_SHARE;
    by = units > before ? units - before : before - units;
    /* Every writer calls, and the line is read by all: small steps can wait. */
    if (by * ELSEWHERE_STEP > pool->units || (units == 0 && before))
        atomic_store_explicit(&pool->elsewhere, units, memory_order_relaxed);
}

void bfti_pool_stats(struct bfti_pool *pool, struct bfti_pool_stats *out)
{
    uint64_t free_bytes;

    pool_lock(pool);
    free_bytes =
        atomic_load_explicit(&pool->blocks.free_units, memory_order_relaxed) *
        BFTI_UNIT;
    out->budget_bytes = (uint64_t)pool->units * BFTI_UNIT;
    out->free_bytes = free_bytes;
    out->largest_free_bytes =
        (uint64_t)bfti_blocks_largest(&pool->blocks) * BFTI_UNIT;
    out->retired_bytes = (uint64_t)pool->retired_units * BFTI_UNIT;
    out->used_bytes = out->budget_bytes - free_bytes - out->retired_bytes;
    out->blocks = pool->used_blocks;
    out->allocs = pool->allocs;
    out->failed_allocs = pool->failed_allocs;
    pool_unlock(pool);
}

/* --- check -------------------------------------------------------------------------- */

/* Are the blocks of QUEUE retired, and as many as it says? */
static bool queue_check(struct bfti_pool *pool, const struct queue *queue)
{
    uint64_t link = queue->head;
    uint64_t last = 0;
    size_t blocks = 0;
    size_t units = 0;

    while (link != 0 && blocks < queue->blocks) {
        struct block *block = block_linked(pool, link);

        if (block_state(block) != BLOCK_RETIRED)
            return false;
        blocks++;
        units += block_units(block);
        last = link;
        link = block_word(block) & WORD_ID_MASK;
    }
    return link == 0 && last == queue->tail && blocks == queue->blocks &&
           units == queue->units;
}

bool bfti_pool_check(struct bfti_pool *pool)
{
    size_t units[4] = {0};
    size_t count[4] = {0};
    bool ok;

    pool_lock(pool);
    ok = bfti_zone_check(pool) &&
         bfti_blocks_check(&pool->blocks, units, count) &&
         queue_check(pool, &pool->fresh) && queue_check(pool, &pool->kept) &&
         pool->retired_units == units[BLOCK_RETIRED] &&
         pool->retired_blocks == count[BLOCK_RETIRED] &&
         pool->fresh.blocks + pool->kept.blocks + pool->batch ==
             pool->retired_blocks &&
         count[BLOCK_PRIVATE] + count[BLOCK_PUBLISHED] + count[BLOCK_RETIRED] ==
             pool->used_blocks;
    pool_unlock(pool);
    return ok;
}
