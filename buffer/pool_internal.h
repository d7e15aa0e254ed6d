/*
 * Shared by pool.c and pool_alloc.c: blocks, and the lists of free ones.
 *
 * The region is cut into blocks without a gap.  Each starts with a head, which
 * names the size of the block before it (a boundary tag), so that both
 * neighbours are found at once.  The last unit of the region is a block of size
 * 0 in use: a walk ends there and nothing joins across it.
 */
#ifndef BFTI_POOL_INTERNAL_H
#define BFTI_POOL_INTERNAL_H

#include "pool.h"

enum block_state {
    BLOCK_FREE = 0,
    BLOCK_PRIVATE = 1,   /* allocated, not yet published */
    BLOCK_PUBLISHED = 2, /* the clock may choose it */
    BLOCK_RETIRED = 3,   /* unlinked; a hazard slot may still name it */
};

/*
 * word: page id, or of a retired block the link to the next one (48 bits) |
 * state (2) | reference bit (1).  Its state changes under the pool lock, but
 * for private to published; the reference bit is set by anyone at any time.
 * All accesses are relaxed: nothing is found through this word, and what a
 * page holds is published by the place in the page table.
 */
#define WORD_ID_BITS     48
#define WORD_ID_MASK     ((UINT64_C(1) << WORD_ID_BITS) - 1)
#define WORD_STATE_SHIFT 48
#define WORD_REFERENCED  (UINT64_C(1) << 50)

struct block {
    /* Under the pool lock.  Free: units.  In use: units (10 bits), generation
     * (16 bits). */
    uint32_t size;
    uint32_t before; /* units of the block before it; 0: the first.  Ditto */
    _Atomic uint64_t word;
    /* Of a free block only; else the user's bytes begin here. */
    struct block *next, *prev;
};
_Static_assert(offsetof(struct block, next) == BFTI_BLOCK_HEAD, "head");
_Static_assert(sizeof(struct block) <= BFTI_UNIT, "the smallest block");

/* Free lists, one for each cell of sizes: below 16 units one cell for each
 * size, above 16 cells for each doubling. */
enum { ROWS = 29, CELLS = 16, CELL_BITS = 4 };

/* Free blocks are at most this long, to keep sizes in 32 bits: a pool above
 * 128 GiB has several, side by side. */
#define FREE_UNITS_MAX UINT32_MAX

struct bfti_pool_blocks {
    uint8_t *base; /* fixed: of block 0 */
    size_t units;  /* fixed: in all blocks but the last, of size 0 */
    /* Under the pool lock from here. */
    size_t hand; /* the clock's: index of a block's first unit */
    uint32_t rows;
    uint32_t cells[ROWS];
    struct block *list[ROWS][CELLS];
    uint16_t generation;
    _Atomic size_t free_units; /* written under the lock; read anywhere */
};

static inline uint64_t word_of(enum block_state state, uint64_t id)
{
    return (uint64_t)state << WORD_STATE_SHIFT | id;
}
static inline enum block_state word_state(uint64_t word)
{
    return (enum block_state)(word >> WORD_STATE_SHIFT & 3);
}
static inline uint64_t block_word(struct block *block)
{
    return atomic_load_explicit(&block->word, memory_order_relaxed);
}
static inline void block_set_word(struct block *block, uint64_t word)
{
    atomic_store_explicit(&block->word, word, memory_order_relaxed);
}
static inline enum block_state block_state(struct block *block)
{
    return word_state(block_word(block));
}
static inline size_t block_units(struct block *block)
{
    return block_state(block) == BLOCK_FREE ? block->size
                                            : block->size & BFTI_UNITS_MAX;
}
static inline struct block *block_at(const struct bfti_pool_blocks *blocks,
                                     size_t index)
{
    return (struct block *)(blocks->base + index * BFTI_UNIT);
}
static inline size_t block_index(const struct bfti_pool_blocks *blocks,
                                 const struct block *block)
{
    return (size_t)((const uint8_t *)block - blocks->base) / BFTI_UNIT;
}
static inline struct block *block_after(struct bfti_pool_blocks *blocks,
                                        struct block *block)
{
    return block_at(blocks, block_index(blocks, block) + block_units(block));
}
/* The place of a block in use. */
static inline uint64_t block_place(const struct bfti_pool_blocks *blocks,
                                   const struct block *block)
{
    return (uint64_t)BFTI_TAG_MEMORY << BFTI_TAG_SHIFT |
           (uint64_t)block_index(blocks, block) << 26 |
           (uint64_t)(block->size & BFTI_UNITS_MAX) << 16 |
           (block->size >> 10 & 0xffff);
}

/* --- pool_alloc.c; all under the pool lock -------------------------------- */

/* Make one free space of UNITS at BASE, and the block behind it. */
void bfti_blocks_init(struct bfti_pool_blocks *blocks, void *base,
                      size_t units);
/* The memory is about to go. */
void bfti_blocks_finish(struct bfti_pool_blocks *blocks);
/* A private block of UNITS, or a little larger; NULL: none is free. */
struct block *bfti_blocks_take(struct bfti_pool_blocks *blocks, unsigned units);
/* Make BLOCK free, joined with free neighbours. */
void bfti_blocks_release(struct bfti_pool_blocks *blocks, struct block *block);
/* Units of the largest free block, or of one nearly as large. */
size_t bfti_blocks_largest(struct bfti_pool_blocks *blocks);
/* What a walk finds, by state; false when a tag or a list is wrong. */
bool bfti_blocks_check(struct bfti_pool_blocks *blocks, size_t units[4],
                       size_t count[4]);

#endif
