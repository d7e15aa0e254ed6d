/*
 * The pool: its region, blocks in and out, and the second chance clock.
 *
 * No call takes a lock.  A block is had by claiming its units (pool_map.c); its
 * head is written while it is private; the mark that makes it a page's
 * (pool_mark.c) is what the clock goes by, and reclamation (pool_limbo.c).
 */
#include "pool_internal.h"

#include <assert.h>
#include <string.h>

#include "os.h"
#include "threads_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#endif

#ifndef BFT_CHECK
#define BFT_CHECK 1
#endif

enum {
    MAP_FROM = 1 << 20, /* larger regions are mapped, not allocated */
    BUDGET_MIN = 1024,
    PAGES_LOOKS = 4,      /* chunks among which one for a page is chosen */
    READER_SHARE = 16,    /* part of the pool that readers leave to writers */
    ELSEWHERE_SHARE = 2,  /* part of it that others take, the heap among them */
    ELSEWHERE_STEP = 256, /* part of it that is worth a note */
};

/* --- the region -------------------------------------------------------------- */

/* Words of the tables, for each chunk: bits of a map, marks, and all of them. */
enum {
    CHUNK_BITS = CHUNK_UNITS / 64,
    CHUNK_MARKS = CHUNK_UNITS / 2 / MARKS,
    CHUNK_WORDS = 2 * (CHUNK_BITS + 1) + CHUNK_MARKS,
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}
static size_t chunks_of(size_t units)
{
    return round_up(units, CHUNK_UNITS) / CHUNK_UNITS;
}
static size_t groups_of(size_t chunks)
{
    return round_up(chunks, GROUP_CHUNKS) / GROUP_CHUNKS;
}
static size_t tables_bytes(size_t units)
{
    size_t chunks = chunks_of(units);

    return (chunks * CHUNK_WORDS + 2 * groups_of(chunks)) * sizeof(uint64_t);
}

/*
 * Units in BUDGET_BYTES.  Of a region that is mapped the tables, all zero, have
 * their part, but for the half of the heap's map where there will be no heap:
 * untouched, it is no memory.  Of a small one, where it would be more than the
 * words say, they come on top.
 */
static size_t units_of(size_t budget_bytes)
{
    size_t units = budget_bytes / BFTI_UNIT, unused;

    if (budget_bytes < MAP_FROM)
        return units;
    unused =
        chunks_of(units) / PAGES_SHARE * (CHUNK_BITS + 1) * sizeof(uint64_t);
    return (budget_bytes + unused - tables_bytes(units) - LINE) / BFTI_UNIT;
}

/* Blocks, then tables, which are as good as zero. */
static void *region_create(struct bfti_pool *pool, size_t budget_bytes)
{
    const size_t blocks = round_up(pool->units * BFTI_UNIT, LINE);
    const size_t tables = tables_bytes(pool->units);
    const size_t bytes = blocks + tables;

    /* What is mapped for the heap's map goes beyond the budget, and so, of the
     * largest, beyond what a 32-bit system can address. */
    if (tables > SIZE_MAX - LINE - blocks)
        return NULL;
    if (budget_bytes >= MAP_FROM) {
        pool->region_bytes = pool->mapped = bytes;
        pool->region = bfti_os_map(bytes);
        return pool->region;
    }
    pool->mapped = 0;
    pool->region_bytes = bytes + LINE;
    pool->region = bfti_alloc(pool->env, bytes + LINE);
    if (pool->region == NULL)
        return NULL;
    memset(pool->region, 0, bytes + LINE);
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

/* Cut the tables; all units are the pages', and free. */
static void tables_init(struct bfti_pool *pool)
{
    const size_t chunks = chunks_of(pool->units), groups = groups_of(chunks);
    _Atomic uint64_t *at =
        (void *)(pool->base + round_up(pool->units * BFTI_UNIT, LINE));

    pool->pages.bits = at;
    pool->marks = at += chunks * CHUNK_BITS;
    pool->pages.chunk = at += chunks * CHUNK_MARKS;
    pool->pages.group = at += chunks;
    pool->heap.group = at += groups;
    pool->heap.chunk = at += groups;
    pool->heap.bits = at + chunks;
    pool->pages.looks = PAGES_LOOKS;
    pool->heap.looks = GROUP_CHUNKS;
    pool->pages.flip = ~UINT64_C(0);
    pool->pages.units = pool->heap.units = pool->units;
    atomic_store(&pool->pages.free_units, pool->units);
    atomic_store(&pool->limit, pool->units);
    pool->pairs = (pool->units + 1) / 2;
}

bft_status bfti_pool_create(struct bfti_threads *threads,
                            const struct bfti_env *env, size_t budget_bytes,
                            struct bfti_pool **out)
{
    struct bfti_pool *pool;

    *out = NULL;
    if (budget_bytes < BUDGET_MIN ||
        (uint64_t)(budget_bytes / BFTI_UNIT) >> 36 != 0)
        return bfti_fail(BFT_INVALID,
                         "pool: a budget of %zu bytes is not in %d..2 TiB",
                         budget_bytes, BUDGET_MIN);
    pool = bfti_alloc(env, sizeof(*pool));
    if (pool == NULL)
        return bfti_fail(BFT_NO_MEMORY, "pool: no memory for its figures");
    memset(pool, 0, sizeof(*pool));
    pool->threads = threads;
    pool->env = env;
    pool->units = units_of(budget_bytes);
    pool->base = region_create(pool, budget_bytes);
    if (pool->base == NULL) {
        bfti_free(env, pool);
        return bfti_fail(BFT_NO_MEMORY, "pool: no memory for %zu bytes",
                         budget_bytes);
    }
    tables_init(pool);
    *out = pool;
    return BFT_OK;
}

/*
 * Whoever still reads a freed page shall be noticed: by the address sanitizer,
 * by the thread sanitizer (a write that races with the read), or by nonsense
 * in place of records.
 */
void bfti_block_forget(struct bfti_pool *pool, size_t index, size_t units)
{
    uint8_t *at = pool->base + index * BFTI_UNIT;

    if (BFT_CHECK >= 2 || BFTI_TSAN)
        memset(at + BFTI_BLOCK_HEAD, 0xdd, units * BFTI_UNIT - BFTI_BLOCK_HEAD);
#ifdef POOL_ASAN
    __asan_poison_memory_region(at, units * BFTI_UNIT);
#else
    (void)at;
    (void)units;
#endif
}

static void bytes_recall(const uint8_t *at, size_t len)
{
#ifdef POOL_ASAN
    __asan_unpoison_memory_region(at, len);
#else
    (void)at;
    (void)len;
#endif
}

void bfti_pool_destroy(struct bfti_pool *pool)
{
    if (pool == NULL)
        return;
    /* All that was had from the heap has come back. */
    assert(atomic_load(&pool->heap.free_units) == atomic_load(&pool->moved) &&
           atomic_load(&pool->outside) == 0);
    bytes_recall(pool->base, pool->units * BFTI_UNIT);
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
    return block_at(pool, (size_t)(bfti_memory_offset(place) / BFTI_UNIT));
}

void *bfti_pool_at(struct bfti_pool *pool, uint64_t place)
{
    return (uint8_t *)block_of(pool, place) + BFTI_BLOCK_HEAD;
}

/*
 * Above 16 units the classes are eight to a doubling: 16, 18 .. 30, 32, 36 ..
 * Few, so that what one page leaves mostly fits another exactly.
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

/* --- blocks in and out ------------------------------------------------------------ */

struct block *bfti_block_make(struct bfti_pool *pool, struct bfti_pool_map *map,
                              size_t index, unsigned units)
{
    struct block *block = block_at(pool, index);
    /* relaxed: for diagnosis only. */
    uint16_t generation =
        (uint16_t)(atomic_load_explicit(&map->generation,
                                        memory_order_relaxed) +
                   1u);

    atomic_store_explicit(&map->generation, generation, memory_order_relaxed);
    bytes_recall(pool->base + index * BFTI_UNIT, (size_t)units * BFTI_UNIT);
    block->size = units | (uint32_t)generation << 10;
    /* relaxed: it is nobody else's yet. */
    atomic_store_explicit(&block->word, word_of(BLOCK_PRIVATE, 0),
                          memory_order_relaxed);
    return block;
}

void bfti_block_release(struct bfti_pool *pool, size_t index, size_t units,
                        bool retired)
{
    size_t limit = atomic_load(&pool->limit);
    size_t below = index < limit ? limit - index : 0;

    if (below > units)
        below = units;
    if (below > 0)
        bfti_map_give(&pool->pages, index, below, retired);
    else if (retired)
        bfti_map_retired(&pool->pages, index, false);
    if (below < units)
        bfti_heap_gain(pool, index + below, units - below);
}

/* 0: none is free. */
static uint64_t place_take(struct bfti_pool *pool, unsigned units)
{
    size_t index;
    unsigned got;

    if (!bfti_map_take(&pool->pages, units, pages_range(pool), &index, &got))
        return 0;
    PARK("pool:taken");
    return block_place(index, bfti_block_make(pool, &pool->pages, index, got));
}

static void limbo_step(struct bfti_pool *pool)
{
    struct limbo_walk walk = bfti_limbo_walk(pool);

    (void)bfti_limbo_step(pool, &walk);
}

uint64_t bfti_pool_alloc(struct bfti_pool *pool, unsigned units)
{
    struct limbo_walk walk;
    uint64_t place;

    assert(units > 0);
    if (units == 0 || units > BFTI_UNITS_MAX)
        return 0;
    if (units < BLOCK_UNITS_MIN)
        units = BLOCK_UNITS_MIN;
    if (bfti_limbo_is_due(pool))
        limbo_step(pool);
    place = place_take(pool, units);
    if (place != 0)
        return place;
    /* Ends: a walk goes round once, whatever comes in meanwhile. */
    walk = bfti_limbo_walk(pool);
    while (place == 0 && bfti_limbo_step(pool, &walk))
        place = place_take(pool, units);
    return place;
}

/* Units that may still be filled. */
static size_t units_left(const struct bfti_pool *pool)
{
    /* relaxed: figures, out of date when they arrive. */
    size_t free_units =
        atomic_load_explicit(&pool->pages.free_units, memory_order_relaxed);
    size_t elsewhere =
        atomic_load_explicit(&pool->elsewhere, memory_order_relaxed);

    return free_units > elsewhere ? free_units - elsewhere : 0;
}

uint64_t bfti_pool_try_alloc(struct bfti_pool *pool, unsigned units)
{
    size_t left = units_left(pool);

    assert(units > 0);
    if (units == 0 || units > BFTI_UNITS_MAX || left < units ||
        (left - units) * READER_SHARE < pool->units)
        return 0;
    return place_take(pool, units < BLOCK_UNITS_MIN ? BLOCK_UNITS_MIN : units);
}

void bfti_pool_publish(struct bfti_pool *pool, uint64_t place, uint64_t page_id)
{
    struct block *block = block_of(pool, place);

    assert(page_id <= PAGE_ID_MASK);
    assert(word_state(atomic_load(&block->word)) == BLOCK_PRIVATE);
    /* Referenced, so that the hand passes it once before it may choose it.
     * relaxed: it is nobody else's until [mark] shows it. */
    atomic_store_explicit(&block->word,
                          word_of(BLOCK_PUBLISHED, page_id) | WORD_REFERENCED,
                          memory_order_relaxed);
    PARK("pool:publishing");
    bfti_mark_publish(pool, (size_t)(bfti_memory_offset(place) / BFTI_UNIT));
}

void bfti_pool_free(struct bfti_pool *pool, uint64_t place)
{
    size_t index = (size_t)(bfti_memory_offset(place) / BFTI_UNIT);
    struct block *block = block_of(pool, place);
    size_t units = block_units(block);

    assert(word_state(atomic_load(&block->word)) == BLOCK_PRIVATE);
    assert(block_place(index, block) == place);
    bfti_block_forget(pool, index, units);
    bfti_block_release(pool, index, units, false);
}

/* --- the clock -------------------------------------------------------------------- */

void bfti_pool_touch(struct bfti_pool *pool, uint64_t place)
{
    struct block *block = block_of(pool, place);

    /* Read first: a hot page's line stays shared between processors.
     * relaxed: nothing is found through the bit. */
    if (!(atomic_load_explicit(&block->word, memory_order_relaxed) &
          WORD_REFERENCED))
        atomic_fetch_or_explicit(&block->word, WORD_REFERENCED,
                                 memory_order_relaxed);
}

bool bfti_pool_is_cold(struct bfti_pool *pool, uint64_t place)
{
    const struct block *block = block_of(pool, place);
    /* relaxed: as above */
    return !(atomic_load_explicit(&block->word, memory_order_relaxed) &
             WORD_REFERENCED);
}

/* A hand has come to PAIR.  True: that block may go; of one that ends behind the
 * unit BEYOND always, of others only if it was not met since the hand was there
 * last; BEYOND 0: no block. */
static bool hand_looks(struct bfti_pool *pool, size_t pair, size_t beyond,
                       uint64_t *place, uint64_t *page_id)
{
    struct block *block;
    uint64_t word;
    size_t index;
    bool goes;

    PARK("pool:hand-moved");
    if (!bfti_mark_visit(pool, pair, MARK_PUBLISHED, &index))
        return false;
    PARK("pool:visiting");
    block = block_at(pool, index);
    word = atomic_load(&block->word);
    /* Else it is being retired. */
    goes = word_state(word) == BLOCK_PUBLISHED;
    if (beyond != 0)
        goes = goes && index + block_units(block) > beyond;
    else if (goes && word & WORD_REFERENCED) {
        atomic_fetch_and(&block->word, ~WORD_REFERENCED);
        goes = false;
    }
    if (goes) {
        *place = block_place(index, block);
        *page_id = word & PAGE_ID_MASK;
    }
    bfti_mark_leave(pool, pair);
    return goes;
}

/* Move the hand over up to LIMIT pairs, to a page that may go. */
static bool hand_move(struct bfti_pool *pool, uint64_t limit, uint64_t *place,
                      uint64_t *page_id)
{
    const size_t end = pool->pairs;
    size_t at = atomic_load(&pool->hand);
    uint64_t walked = 0;

    /* Ends: a step adds to WALKED, or the hand is moved by another thread,
     * which then looks at a page in our place. */
    while (walked < limit) {
        size_t pair = bfti_mark_find(pool, at, end, MARK_PUBLISHED);
        size_t behind = pair < end ? pair + 1 : end;
        size_t next = behind < end ? behind : 0;

        if (!atomic_compare_exchange_weak(&pool->hand, &at, next))
            continue;
        walked += behind - at;
        at = next;
        if (pair < end && hand_looks(pool, pair, 0, place, page_id))
            return true;
    }
    return false;
}

/* A page in what is to be vacated, used or not: every other victim, so that
 * who waits for free bytes gets some too. */
static bool zone_victim(struct bfti_pool *pool, uint64_t *place,
                        uint64_t *page_id)
{
    const size_t limit = atomic_load(&pool->limit), end = pool->pairs;
    /* The longest block that reaches across the limit starts there. */
    const size_t from =
        limit > BFTI_UNITS_MAX ? (limit - BFTI_UNITS_MAX) / 2 : 0;
    size_t at, pair;

    /* relaxed: any turn is as good. */
    if (zone_left(pool) == 0 ||
        atomic_fetch_add_explicit(&pool->turns, 1, memory_order_relaxed) % 2)
        return false;
    /* Ends: the hand moves on with each round, or another thread moved it and
     * looks at a page in our place, and at the end we return. */
    at = atomic_load(&pool->zone_hand);
    for (;;) {
        pair = bfti_mark_find(pool, at > from ? at : from, end, MARK_PUBLISHED);
        if (!atomic_compare_exchange_weak(&pool->zone_hand, &at,
                                          pair < end ? pair + 1 : 0))
            continue;
        at = pair + 1;
        if (pair == end) {
            bfti_zone_sweep(pool);
            return false;
        }
        if (hand_looks(pool, pair, limit, place, page_id))
            return true;
    }
}

/* Is a zone to be vacated that is the heap's, or retired, but for little? */
static bool zone_awaits(const struct bfti_pool *pool)
{
    size_t left = zone_left(pool);

    return left != 0 && left <= pool->zone_units / 2 + bfti_limbo_fresh(pool);
}

bool bfti_pool_victim(struct bfti_pool *pool, uint64_t *place,
                      uint64_t *page_id)
{
    *place = 0;
    *page_id = 0;
    /* Else an evictor that waits for free bytes would go on evicting while
     * those it already won are retired. */
    if (bfti_limbo_is_due(pool) || zone_awaits(pool))
        limbo_step(pool);
    return zone_victim(pool, place, page_id) ||
           hand_move(pool, 2 * (uint64_t)pool->pairs, place, page_id);
}

/* --- figures ------------------------------------------------------------------------ */

size_t bfti_pool_free_bytes(struct bfti_pool *pool)
{
    return units_left(pool) * BFTI_UNIT;
}

size_t bfti_pool_budget(const struct bfti_pool *pool)
{
    return pool->units * BFTI_UNIT;
}

size_t bfti_pool_pages(struct bfti_pool *pool)
{
    return (pool->units - atomic_load(&pool->moved)) * BFTI_UNIT;
}

void bfti_pool_elsewhere(struct bfti_pool *pool, size_t bytes)
{
    size_t units = bytes / BFTI_UNIT;
    size_t before =
        atomic_load_explicit(&pool->elsewhere, memory_order_relaxed);
    size_t most = pool->units / ELSEWHERE_SHARE;
    size_t heap = atomic_load(&pool->moved), by;

    most = most > heap ? most - heap : 0;
    if (units > most)
        units = most;
    by = units > before ? units - before : before - units;
    /* Every writer calls, and the line is read by all: small steps can wait. */
    if (by * ELSEWHERE_STEP > pool->units || (units == 0 && before))
        atomic_store_explicit(&pool->elsewhere, units, memory_order_relaxed);
}

bool bfti_pool_has_half_for(const struct bfti_pool *pool, size_t bytes)
{
    /* relaxed: a figure, out of date when it arrives. */
    size_t taken =
        atomic_load_explicit(&pool->elsewhere, memory_order_relaxed) +
        atomic_load(&pool->moved);

    return taken + bytes / BFTI_UNIT <= pool->units / ELSEWHERE_SHARE;
}

void bfti_pool_stats(struct bfti_pool *pool, struct bfti_pool_stats *out)
{
    uint64_t retired = bfti_limbo_units(pool);
    uint64_t free_units = atomic_load(&pool->pages.free_units);
    uint64_t units = pool->units;

    /* What is just being freed is in both. */
    if (retired > units)
        retired = units;
    if (free_units > units - retired)
        free_units = units - retired;
    out->budget_bytes = units * BFTI_UNIT;
    out->free_bytes = free_units * BFTI_UNIT;
    out->retired_bytes = retired * BFTI_UNIT;
    out->used_bytes = (units - free_units - retired) * BFTI_UNIT;
}

size_t bfti_pool_longest_free(struct bfti_pool *pool)
{
    return bfti_map_longest(&pool->pages, pages_range(pool)) * BFTI_UNIT;
}

bool bfti_pool_check(struct bfti_pool *pool)
{
    return bfti_map_check(&pool->pages, pages_range(pool)) &&
           bfti_heap_check(pool) && bfti_mark_check(pool);
}
