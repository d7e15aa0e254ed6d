/*
 * Shared by the pool_*.c: blocks, which units are free, and what the clock and
 * reclamation know of a block.
 *
 * What others may look at while a block comes and goes lies beside the blocks,
 * in tables that always mean the same: a bit for each unit (pool_map.c), and for
 * each two units a mark that says whether a page's block starts there.  A head,
 * in the block, is read only by who has the block, names its place, or visits
 * it.
 */
#ifndef BFTI_POOL_INTERNAL_H
#define BFTI_POOL_INTERNAL_H

#include "pool.h"

/* --- blocks ----------------------------------------------------------------- */

enum block_state {
    BLOCK_PRIVATE = 1,   /* allocated, not yet published */
    BLOCK_PUBLISHED = 2, /* the clock may choose it */
    BLOCK_RETIRED = 3,   /* unlinked; a hazard slot may still name it */
};

/*
 * word: page id, or of a retired block the number of its retirement (60 bits) |
 * state (2) | reference bit | compared with the slots, and found named.  The
 * reference bit is set by anyone who names the block, at any time.
 */
#define WORD_ID_BITS    60
#define WORD_ID_MASK    ((UINT64_C(1) << WORD_ID_BITS) - 1)
#define WORD_REFERENCED (UINT64_C(1) << 62)
#define WORD_COMPARED   (UINT64_C(1) << 63)
#define PAGE_ID_MASK    ((UINT64_C(1) << 48) - 1)

struct block {
    uint32_t size; /* units (10 bits), generation (16 bits); fixed in use */
    uint32_t unused;
    _Atomic uint64_t word;
    /* The user's bytes begin here. */
};
_Static_assert(sizeof(struct block) == BFTI_BLOCK_HEAD, "head");

/* A block has at least this many units, so that of two units side by side, the
 * first an even one, at most one starts a block. */
enum { BLOCK_UNITS_MIN = 2 };

static inline uint64_t word_of(enum block_state state, uint64_t id)
{
    return (uint64_t)state << WORD_ID_BITS | id;
}
static inline enum block_state word_state(uint64_t word)
{
    return (enum block_state)(word >> WORD_ID_BITS & 3);
}
static inline size_t block_units(const struct block *block)
{
    return block->size & BFTI_UNITS_MAX;
}

enum { LINE = 64 }; /* bytes that processors pass to and fro as one */

/* --- which units are free: pool_map.c ----------------------------------------- */

enum {
    CHUNK_UNITS = 512,
    GROUP_CHUNKS = 64,
    BFTI_MAP_ROWS = 36, /* of sizes up to 1023: row_of() */
};

/*
 * Which units are free, and of each chunk of 512 units and of each group of 64
 * chunks a bound: no longer run of free units begins there.  Safety rests on the
 * bits alone; bounds only lead to them.
 */
struct bfti_pool_map {
    _Atomic uint64_t *bits;  /* one for each unit; ^ FLIP, set means free */
    _Atomic uint64_t *chunk; /* the bound (10 bits) ^ FLIP | retired blocks that
                                start there (16) | raised so many times */
    _Atomic uint64_t *group; /* the same of a group */
    size_t units;            /* fixed; that there are bits for */
    unsigned looks;          /* fixed; chunks to choose from */
    uint64_t flip;           /* fixed: all bits, where 0 is to mean all free */
    uint8_t gap[LINE];
    /* Chunks where a search for units of a row begins.  Relaxed: a hint. */
    _Atomic size_t start[BFTI_MAP_ROWS];
    /* Relaxed, and may miss a reuse: for diagnosis. */
    _Atomic uint16_t generation;
    _Atomic size_t free_units; /* never fewer than are free */
};

/* Units from FROM on, up to TO. */
struct range {
    size_t from, to;
};

/* Take UNITS in a row, or one more where that would remain alone, of RANGE, as
 * near its front as there is a run.  False: there are none. */
bool bfti_map_take(struct bfti_pool_map *map, unsigned units,
                   struct range range, size_t *index, unsigned *got);
/* Take the first free run in RANGE, or its first 1023 units. */
bool bfti_map_take_first(struct bfti_pool_map *map, struct range range,
                         size_t *index, unsigned *got);
/* They are free from now on; with RETIRED they were a retired block, or its
 * beginning, and it is counted no more. */
void bfti_map_give(struct bfti_pool_map *map, size_t index, size_t units,
                   bool retired);
/* One more, or one fewer, retired block starts in the unit INDEX. */
void bfti_map_retired(struct bfti_pool_map *map, size_t index, bool more);
/* Units of the longest free run. */
size_t bfti_map_longest(const struct bfti_pool_map *map, struct range range);
bool bfti_map_is_free(const struct bfti_pool_map *map, size_t index);
/* For tests: nobody else is in the pool. */
bool bfti_map_check(const struct bfti_pool_map *map, struct range range);

static inline unsigned map_retired(uint64_t chunk)
{
    return (unsigned)(chunk >> 10 & 0xffff);
}

/* --- the pool ------------------------------------------------------------------- */

/* Marks, one of four bits for each pair of units. */
enum {
    MARK_BITS = 4,
    MARK_ODD = 1,       /* the block starts at the second unit */
    MARK_PUBLISHED = 2, /* or RETIRED; neither: nobody looks for a head here */
    MARK_RETIRED = 4,
    MARK_VISITED = 8, /* somebody reads the head; the block stays */
    MARKS = 64 / MARK_BITS,
};

enum { PAGES_SHARE = 2 }; /* part of the pool that stays the pages' */

struct bfti_pool {
    struct bfti_threads *threads; /* fixed, as all up to the first gap */
    const struct bfti_env *env;
    void *region;  /* what to give back */
    size_t mapped; /* bytes of it, 0: from env */
    size_t region_bytes;
    uint8_t *base; /* of block 0 */
    size_t units;
    size_t pairs; /* of units, the last perhaps alone */
    _Atomic uint64_t *marks;
    size_t zone_units; /* that the heap grows by, 0: there is no heap */
    struct bfti_env heap_env;
    uint8_t gap[LINE];

    struct bfti_pool_map pages; /* up to LIMIT */
    uint8_t pages_gap[LINE];
    struct bfti_pool_map heap; /* from LIMIT on */
    uint8_t heap_gap[LINE];

    _Atomic uint64_t retirements; /* so far; numbers them */
    /* Units (40 bits) and blocks (24 bits) that are retired, and of them those
     * that were compared with the slots. */
    _Atomic uint64_t retired, kept;
    _Atomic unsigned scans;    /* threads that are comparing */
    _Atomic size_t reclaim_at; /* pair; relaxed: a hint */
    _Atomic size_t hand;       /* pair that the clock looks at next */
    _Atomic size_t zone_hand;  /* the same of what is to be vacated */
    _Atomic unsigned turns;    /* of the two; relaxed */
    uint8_t clock_gap[LINE];

    _Atomic size_t elsewhere; /* units of the budget; relaxed: a hint */
    _Atomic size_t outside;   /* bytes that the heap has from env; relaxed */
    _Atomic size_t limit;     /* units that are the pages'; only falls */
    _Atomic size_t moved;     /* units that the heap has got from the pages */
};

static inline struct block *block_at(const struct bfti_pool *pool, size_t index)
{
    return (struct block *)(void *)(pool->base + index * BFTI_UNIT);
}
/* The place of a block in use. */
static inline uint64_t block_place(size_t index, const struct block *block)
{
    return (uint64_t)BFTI_TAG_MEMORY << BFTI_TAG_SHIFT | (uint64_t)index << 26 |
           (uint64_t)(block->size & BFTI_UNITS_MAX) << 16 |
           (block->size >> 10 & 0xffff);
}
static inline struct range pages_range(const struct bfti_pool *pool)
{
    return (struct range){0, atomic_load(&pool->limit)};
}
/* All that the heap can come to have: what is not its own yet is not free in its
 * map.  The same for all, however old the limit is that they have read. */
static inline struct range heap_range(const struct bfti_pool *pool)
{
    return (struct range){pool->units / PAGES_SHARE, pool->units};
}

/* Units that are still to go from the pages to the heap. */
static inline size_t zone_left(const struct bfti_pool *pool)
{
    /* The limit first: MOVED may have grown since, and then LIMIT's zone is
     * nearer its end than we say. */
    size_t goal = pool->units - atomic_load(&pool->limit);
    size_t moved = atomic_load(&pool->moved);

    return goal > moved ? goal - moved : 0;
}

/* --- pool.c ------------------------------------------------------------------------ */

/* A head for units that were taken: a private block. */
struct block *bfti_block_make(struct bfti_pool *pool, struct bfti_pool_map *map,
                              size_t index, unsigned units);
/* The bytes of a block that is about to be free. */
void bfti_block_forget(struct bfti_pool *pool, size_t index, size_t units);
/* Give a block's units to the pages or the heap; its mark is gone.  RETIRED: it
 * is still counted where it starts. */
void bfti_block_release(struct bfti_pool *pool, size_t index, size_t units,
                        bool retired);

/* --- pool_mark.c --------------------------------------------------------------------- */

void bfti_mark_publish(struct bfti_pool *pool, size_t index);
void bfti_mark_retire(struct bfti_pool *pool, size_t index);
/* The first pair from PAIR on, in front of END, that has MARK and no visitor;
 * END: there is none. */
size_t bfti_mark_find(const struct bfti_pool *pool, size_t pair, size_t end,
                      unsigned mark);
/* Where the block of PAIR starts, if it has one. */
size_t bfti_mark_index(const struct bfti_pool *pool, size_t pair);
/* From now on the block of PAIR stays until _leave or _clear, and its head may be
 * read.  False: it has not MARK, or somebody else visits it. */
bool bfti_mark_visit(struct bfti_pool *pool, size_t pair, unsigned mark,
                     size_t *index);
void bfti_mark_leave(struct bfti_pool *pool, size_t pair);
/* It is no page's block any more, and its visitor's. */
void bfti_mark_clear(struct bfti_pool *pool, size_t pair);
/* For tests: do all marks fit the heads, the bits and the sums? */
bool bfti_mark_check(const struct bfti_pool *pool);

/* --- pool_limbo.c ---------------------------------------------------------------------- */

/* Pairs that are still to be looked at for retired blocks. */
struct limbo_walk {
    size_t at, left;
};
struct limbo_walk bfti_limbo_walk(const struct bfti_pool *pool);
/*
 * Compare the next retired blocks with the slots, a batch at most, and free
 * those that nobody names.  False: the walk is over.
 */
bool bfti_limbo_step(struct bfti_pool *pool, struct limbo_walk *walk);
/* Is enough retired, and not yet compared, to be worth a step? */
bool bfti_limbo_is_due(const struct bfti_pool *pool);
/* Units that are retired; of them those that were never compared. */
size_t bfti_limbo_units(const struct bfti_pool *pool);
size_t bfti_limbo_fresh(const struct bfti_pool *pool);

/* --- pool_heap.c ----------------------------------------------------------------------- */

/* Units that were the pages' are the heap's. */
void bfti_heap_gain(struct bfti_pool *pool, size_t index, size_t units);
/* Give the heap what is free of the zone that it is to have. */
void bfti_zone_sweep(struct bfti_pool *pool);
bool bfti_heap_check(const struct bfti_pool *pool); /* for tests */

#endif
