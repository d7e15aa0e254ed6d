/*
 * Shared by pool.c, pool_alloc.c and pool_heap.c: blocks, and the lists of free
 * ones.
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

/* Under the pool lock. */
struct bfti_pool_blocks {
    uint8_t *base; /* of block 0 */
    size_t units;  /* in all blocks but the last, of size 0 */
    /* Blocks from this index on are given out no more; UNITS: all are. */
    size_t limit;
    size_t withheld; /* free units there, in no list */
    /* Indexes of a block's first unit: the clock's hand, and the one that goes
     * over what is to be vacated. */
    size_t hand, zone_hand;
    uint32_t rows;
    uint32_t cells[ROWS];
    struct block *list[ROWS][CELLS];
    uint16_t generation;
    _Atomic size_t free_units; /* written under the lock; read anywhere */
};

enum { BFTI_POOL_BATCH = 256 }; /* blocks that share one pass over the slots */

/* Retired blocks, oldest first: indexes plus 1, or 0. */
struct queue {
    uint64_t head, tail;
    size_t blocks, units;
};

struct bfti_pool {
    struct bfti_threads *threads; /* fixed */
    const struct bfti_env *env;   /* fixed */
    _Atomic size_t elsewhere;     /* units of the budget; relaxed: a hint */
    void *region;                 /* fixed; what to give back */
    size_t mapped;                /* fixed; bytes of it, 0: from env */
    size_t region_bytes;          /* fixed */
    size_t units;                 /* fixed; of the budget, but the last */
    struct bfti_mutex lock;       /* the pool lock: all below, and heads */
    struct bfti_pool_blocks blocks;
    unsigned turns;     /* of the clock's two hands, while there is a zone */
    struct queue fresh; /* not yet compared with the slots */
    struct queue kept;  /* were named when last compared */
    /* The batch being compared: 0 places when there is none. */
    size_t batch;
    uint64_t batch_serial; /* which one it is */
    uint64_t place[BFTI_POOL_BATCH];
    size_t retired_blocks, retired_units; /* in queues and batch */
    uint64_t used_blocks;                 /* retired ones included */
    uint64_t allocs, failed_allocs;

    /* pool_heap.c.  Under the pool lock but for what is said. */
    struct bfti_pool_blocks heap; /* the region's end; no units: none */
    size_t zone_units;            /* fixed: that the heap grows by, 0: none */
    struct bfti_env heap_env;     /* fixed */
    _Atomic size_t outside;       /* bytes that it has from env; relaxed */
    _Atomic bool vacating;        /* a zone is; relaxed elsewhere: a hint */
    _Atomic size_t page_units;    /* that pages have; relaxed: a figure */
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
/* Give no block out any more that lies in the last UNITS, or across where they
 * begin.  At most once before _cut. */
void bfti_blocks_withhold(struct bfti_pool_blocks *blocks, size_t units);
/* All that is withheld is free: it is no part of the blocks any more.  Returns
 * its units, from behind the last block of size 0 on. */
size_t bfti_blocks_cut(struct bfti_pool_blocks *blocks);
/* Add UNITS that lie just before the base. */
void bfti_blocks_prepend(struct bfti_pool_blocks *blocks, size_t units);
/* Units of the largest free block, or of one nearly as large. */
size_t bfti_blocks_largest(struct bfti_pool_blocks *blocks);
/* What a walk finds, by state; false when a tag or a list is wrong. */
bool bfti_blocks_check(struct bfti_pool_blocks *blocks, size_t units[4],
                       size_t count[4]);

/* --- pool_heap.c; under the pool lock -------------------------------------- */

/* What was released may have been the last of a zone. */
void bfti_zone_settle(struct bfti_pool *pool);
bool bfti_zone_check(struct bfti_pool *pool); /* the heap, for tests */

#endif
