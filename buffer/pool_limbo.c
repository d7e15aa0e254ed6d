/*
 * Retired blocks: unlinked, but perhaps still named by a hazard slot.
 *
 * They are in no list, their marks say what they are.  Whoever needs room notes
 * where some of them start, compares these with the slots, and then visits one
 * after the other: a block that was retired before the comparison began, and that
 * no slot named, is free.  How often blocks were reused meanwhile does not
 * matter: each retirement has a number, and one that is too young is left to the
 * next comparison.  So a thread that stops in here keeps the one block from the
 * others that it visits, and its answer can be late without harm.
 */
#include "pool_internal.h"

#include <assert.h>

enum {
    BATCH = 256,        /* blocks that share one pass over the slots */
    DUE_BLOCKS = 32,    /* retired blocks that are worth a pass, if ... */
    DUE_SHARE = 64,     /* ... they are more than this part of the pool */
    DUE_SHARE_FEW = 32, /* this part is worth one however few they are */
    CHUNK_PAIRS = CHUNK_UNITS / 2,
};

/* Units and blocks in one sum; of blocks the last 24 bits. */
#define UNIT_SUM_BITS 40
static inline uint64_t sum_of(size_t units)
{
    return units | UINT64_C(1) << UNIT_SUM_BITS;
}
static inline size_t sum_units(uint64_t sum)
{
    return (size_t)(sum & ((UINT64_C(1) << UNIT_SUM_BITS) - 1));
}

/* What was never compared; KEPT is read first, because it is never more. */
static uint64_t fresh_sum(const struct bfti_pool *pool)
{
    uint64_t kept = atomic_load(&pool->kept);
    uint64_t retired = atomic_load(&pool->retired);

    return sum_units(retired) > sum_units(kept) ? retired - kept : 0;
}

size_t bfti_limbo_fresh(const struct bfti_pool *pool)
{
    return sum_units(fresh_sum(pool));
}

size_t bfti_limbo_units(const struct bfti_pool *pool)
{
    return sum_units(atomic_load(&pool->retired));
}

/* What is named does not count: a stopped reader must not make every call look
 * again. */
bool bfti_limbo_is_due(const struct bfti_pool *pool)
{
    /* A scan that is under way will do; but its thread may have stopped. */
    size_t patience = atomic_load(&pool->scans) == 0 ? 1 : 2;
    uint64_t fresh = fresh_sum(pool);
    size_t units = sum_units(fresh), blocks = (size_t)(fresh >> UNIT_SUM_BITS);

    return units * DUE_SHARE_FEW > pool->units * patience ||
           (blocks > DUE_BLOCKS * patience &&
            units * DUE_SHARE > pool->units * patience);
}

void bfti_pool_retire(struct bfti_pool *pool, uint64_t place)
{
    const size_t index = (size_t)(bfti_memory_offset(place) / BFTI_UNIT);
    struct block *block = block_at(pool, index);
    uint64_t number;

    assert(word_state(atomic_load(&block->word)) == BLOCK_PUBLISHED);
    assert(block_place(index, block) == place);
    /* In the sums before it can be found, so that these are never too low. */
    atomic_fetch_add(&pool->retired, sum_of(block_units(block)));
    bfti_map_retired(&pool->pages, index, true);
    /* [retired] release: pairs with the load in bfti_limbo_step().  Who counts
     * us in sees the unlink that came before. */
    number = atomic_fetch_add(&pool->retirements, 1);
    /* relaxed: [mark] shows it to who asks for a retired block; the hand may
     * take it for a page, which its leaf then says it is not. */
    atomic_store_explicit(&block->word, word_of(BLOCK_RETIRED, number),
                          memory_order_relaxed);
    PARK("pool:retiring");
    bfti_mark_retire(pool, index);
    /* No scan here, however many they are: our caller may hold a latch, under
     * which there are no system calls.  Who allocates or evicts next does it. */
}

/* --- reclamation -------------------------------------------------------------- */

struct limbo_walk bfti_limbo_walk(const struct bfti_pool *pool)
{
    /* relaxed: a hint. */
    return (struct limbo_walk){
        .at = atomic_load_explicit(&pool->reclaim_at, memory_order_relaxed),
        .left = pool->pairs,
    };
}

/* The first pair from PAIR on, in front of END, that has a retired block. */
static size_t retired_find(const struct bfti_pool *pool, size_t pair,
                           size_t end)
{
    while (pair < end) {
        size_t c = pair / CHUNK_PAIRS, g = c / GROUP_CHUNKS, next, found;

        if (map_retired(atomic_load(&pool->pages.group[g])) == 0) {
            pair = (g + 1) * GROUP_CHUNKS * CHUNK_PAIRS;
            continue;
        }
        next = (c + 1) * CHUNK_PAIRS < end ? (c + 1) * CHUNK_PAIRS : end;
        if (map_retired(atomic_load(&pool->pages.chunk[c])) != 0) {
            found = bfti_mark_find(pool, pair, next, MARK_RETIRED);
            if (found < next)
                return found;
        }
        pair = next;
    }
    return end;
}

/* Places, but for sizes and generations, of up to BATCH retired blocks. */
static size_t collect(const struct bfti_pool *pool, struct limbo_walk *walk,
                      uint64_t *places)
{
    size_t n = 0;

    while (n < BATCH && walk->left > 0) {
        size_t end = walk->at + walk->left < pool->pairs ? walk->at + walk->left
                                                         : pool->pairs;
        size_t pair = retired_find(pool, walk->at, end);
        size_t next = pair < end ? pair + 1 : end;

        if (pair < end)
            places[n++] =
                bfti_memory_start(bfti_mark_index(pool, pair) * BFTI_UNIT);
        walk->left -= next - walk->at;
        walk->at = next < pool->pairs ? next : 0;
    }
    return n;
}

/* A retired block that nobody names, and that the caller visits.  What the sum of
 * what is retired has too much from now on. */
static uint64_t block_free(struct bfti_pool *pool, size_t index)
{
    struct block *block = block_at(pool, index);
    size_t units = block_units(block);

    if (atomic_load(&block->word) & WORD_COMPARED)
        atomic_fetch_sub(&pool->kept, sum_of(units));
    bfti_block_forget(pool, index, units);
    bfti_mark_clear(pool, index / 2);
    PARK("pool:unmarked");
    bfti_block_release(pool, index, units, true);
    return sum_of(units);
}

/* The block that starts at INDEX was compared with the slots, if it was retired
 * when fewer than BEFORE had been.  What was freed, as a sum. */
static uint64_t settle(struct bfti_pool *pool, size_t index, bool named,
                       uint64_t before)
{
    struct block *block = block_at(pool, index);
    uint64_t word;
    size_t at;

    if (!bfti_mark_visit(pool, index / 2, MARK_RETIRED, &at))
        return 0; /* free by now, or another thread is at it */
    PARK("pool:settling");
    word = atomic_load(&block_at(pool, at)->word);
    if (at == index && (word & WORD_ID_MASK) < before && !named)
        return block_free(pool, index);
    if (at == index && (word & WORD_ID_MASK) < before &&
        !(word & WORD_COMPARED)) {
        atomic_fetch_or(&block->word, WORD_COMPARED);
        atomic_fetch_add(&pool->kept, sum_of(block_units(block)));
    }
    bfti_mark_leave(pool, index / 2);
    return 0;
}

bool bfti_limbo_step(struct bfti_pool *pool, struct limbo_walk *walk)
{
    uint64_t places[BATCH];
    size_t index[BATCH];
    uint64_t before, freed = 0;
    size_t n;

    n = bfti_limbo_units(pool) == 0 ? 0 : collect(pool, walk, places);
    if (n == 0)
        return false;
    atomic_fetch_add(&pool->scans, 1);
    /* relaxed: a hint. */
    atomic_store_explicit(&pool->reclaim_at, walk->at, memory_order_relaxed);
    for (size_t i = 0; i < n; i++)
        index[i] = (size_t)(bfti_memory_offset(places[i]) / BFTI_UNIT);
    /* [retired] acquire: pairs with the numbering in bfti_pool_retire(): what
     * was retired under a lower number was unlinked before the fence that the
     * comparison begins with. */
    before = atomic_load(&pool->retirements);
    PARK("pool:batch-collected");
    bfti_hazard_unnamed(pool->threads, places, n);
    PARK("pool:batch-compared");
    for (size_t i = 0; i < n; i++) {
        freed += settle(pool, index[i], places[i] != 0, before);
        /* The line is all threads': it is taken once for several blocks, and not
         * for all at the end, as we may stop here with the sum too high. */
        if (freed != 0 && (i % DUE_BLOCKS == DUE_BLOCKS - 1 || i + 1 == n)) {
            atomic_fetch_sub(&pool->retired, freed);
            freed = 0;
        }
    }
    atomic_fetch_sub(&pool->scans, 1);
    return true;
}
