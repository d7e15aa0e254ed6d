/*
 * The mini-page pool: one region of memory under a byte budget, cut into
 * blocks of whole units.  Without locks: no call here waits for another thread,
 * and one that stops in a call keeps from the others, besides what it was given,
 * one block.
 *
 * A place in memory is 64 bits: tag 1, offset in units (36 bits), size in units
 * (10 bits), generation (16 bits, counts reuses, for diagnosis only).
 */
#ifndef BFTI_POOL_H
#define BFTI_POOL_H

#include "fileio/fileio.h"
#include "threads.h"

enum {
    BFTI_UNIT = 32,       /* bytes; a block starts at a multiple of it */
    BFTI_BLOCK_HEAD = 16, /* bytes of each block that the pool keeps */
    BFTI_UNITS_MAX = 1023,
};

struct bfti_pool;

static inline uint64_t bfti_memory_offset(uint64_t place)
{
    return (place >> 26 & 0xfffffffffu) * BFTI_UNIT;
}
static inline unsigned bfti_memory_units(uint64_t place)
{
    return (unsigned)(place >> 16 & 0x3ff);
}
/* A place that starts at OFFSET, of no size: what it is compared by with hazard
 * slots, as no two blocks start there at the same time. */
static inline uint64_t bfti_memory_start(uint64_t offset)
{
    return (uint64_t)BFTI_TAG_MEMORY << BFTI_TAG_SHIFT | offset / BFTI_UNIT
                                                             << 26;
}
/* Bytes that the block's user has. */
static inline size_t bfti_memory_bytes(uint64_t place)
{
    return (size_t)bfti_memory_units(place) * BFTI_UNIT - BFTI_BLOCK_HEAD;
}

BFT_MUST_CHECK bft_status bfti_pool_create(struct bfti_threads *threads,
                                           const struct bfti_env *env,
                                           size_t budget_bytes,
                                           struct bfti_pool **out);
void bfti_pool_destroy(struct bfti_pool *pool);

/* The smallest size class (32-byte steps to 512, then about 1.125 times) with
 * room for BYTES of the user's, in units; 0: no block is that large. */
unsigned bfti_pool_class(size_t bytes);

/* A block of UNITS for a page, or 0 when none is free: reclaims retired blocks
 * that nobody names before it gives up.  16-byte aligned contents, not zeroed. */
uint64_t bfti_pool_alloc(struct bfti_pool *pool, unsigned units);
/* The same for a reader: reclaims nothing, and 0 as well when less than 1/16 of
 * the pool would be left, but for what others allocate just then. */
uint64_t bfti_pool_try_alloc(struct bfti_pool *pool, unsigned units);
/* The block of a place this thread may use. */
void *bfti_pool_at(struct bfti_pool *pool, uint64_t place);

/* The clock may now meet the block, as the page of PAGE_ID.  Before others can
 * come to it: before its leaf's word has its place. */
void bfti_pool_publish(struct bfti_pool *pool, uint64_t place,
                       uint64_t page_id);
/* Never published to other threads: free at once. */
void bfti_pool_free(struct bfti_pool *pool, uint64_t place);
/* Published, and unlinked: the clock no longer meets it; reused when no hazard slot names it.
 * Makes no system call: may be called under a leaf's latch.  Allocations and
 * the clock compare what is retired with the slots, once it is worth it. */
void bfti_pool_retire(struct bfti_pool *pool, uint64_t place);

/* A reader met the page: sets the reference bit if it is clear. */
void bfti_pool_touch(struct bfti_pool *pool, uint64_t place);
/* Was it not met, nor published, since the clock's hand was there last? */
bool bfti_pool_is_cold(struct bfti_pool *pool, uint64_t place);

/*
 * Second chance: move the clock hand over published blocks, clearing set
 * reference bits, to one that had it clear; give its place and page id.  False
 * when two rounds found none.  The block stays where it is: the caller still
 * has to win its leaf's latch and look again.  Any number of threads: each block
 * that the hand passes is looked at by one of them.
 */
bool bfti_pool_victim(struct bfti_pool *pool, uint64_t *place,
                      uint64_t *page_id);

struct bfti_pool_stats {
    uint64_t budget_bytes, used_bytes, free_bytes, retired_bytes;
};
/* A moment ago, and while others allocate not all of the same one. */
void bfti_pool_stats(struct bfti_pool *pool, struct bfti_pool_stats *out);
/* Bytes free for allocation, a moment ago; of a budget that is in use elsewhere,
 * too, fewer. */
size_t bfti_pool_free_bytes(struct bfti_pool *pool);
size_t bfti_pool_budget(const struct bfti_pool *pool);
/* Of it, what is the pages': all but the heap.  Any thread. */
size_t bfti_pool_pages(struct bfti_pool *pool);
/*
 * BYTES of the budget are in use outside the pool: so much of it is not free to
 * fill, but for a half, which is always the pages': less where the heap has a part
 * of the other one.  Allocations under a latch do not heed it, who evicts for room
 * does.  Any thread.
 */
void bfti_pool_elsewhere(struct bfti_pool *pool, size_t bytes);
/* Are BYTES more in use outside the pages still within that half?  Any thread. */
bool bfti_pool_has_half_for(const struct bfti_pool *pool, size_t bytes);

/*
 * Surroundings as the pool's, but for memory, which comes from the pool's end as
 * far as it can: what is not a page but in use for long.  Counts as used; grows
 * at the cost of the pages' part down to half of the pool, a zone at a time.
 * Before any block is given out, once; all is given back before the pool goes.
 */
const struct bfti_env *bfti_pool_heap(struct bfti_pool *pool);
/* A zone is to be vacated: bfti_pool_victim names its pages, too.  Any thread. */
bool bfti_pool_vacating(struct bfti_pool *pool);
/* Does PLACE, whoever has it by now, reach into a zone, where no block is given out
 * any more?  Any thread. */
bool bfti_pool_in_zone(struct bfti_pool *pool, uint64_t place);
/* Bytes that the heap has from the surroundings instead.  Any thread. */
size_t bfti_pool_outside(struct bfti_pool *pool);

/* For tests, while nobody else is in the pool: false when a mark, a bound or a
 * sum is wrong. */
bool bfti_pool_check(struct bfti_pool *pool);
/* For tests: the longest run of bytes that pages could have. */
size_t bfti_pool_longest_free(struct bfti_pool *pool);

#endif
