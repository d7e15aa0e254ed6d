/*
 * Free space inside the file, given back to the file system as holes.
 *
 * The end of the file can only be cut off as far as nothing lies there; what is
 * free before it stays the file's, and after much was deleted that may be most of
 * it.  A hole takes nothing, and is written again like any free block.  Holes are
 * made while the file has half more than what lives in it, until it has a
 * quarter more; the longest free runs first, and some at a call.
 *
 * While its hole is made a run is as one in a held list: used, so that nobody
 * allocates it, and not live, so that nobody misses its owner.  So a hole never
 * meets a write, and only what is free is punched: nothing that either superblock,
 * a hold, the log or a reader reaches.
 */
#include "error.h"
#include "pagefile_internal.h"

enum {
    BEGIN_SHARE = 2, /* of what lives: with more than that on top it begins, */
    END_SHARE = 4,   /* ... and with this it ends */
    RUN_LONGEST = 256,
    RUN_STEP = 4, /* from a length of runs to the next shorter one */
};

/* Where the file ends, but for what allocation could not yet use. */
static uint64_t file_end(const struct bfti_pagefile *pf)
{
    /* relaxed: changed under the space lock, which we hold. */
    uint64_t end = atomic_load_explicit(&pf->end, memory_order_relaxed);

    return end < pf->space.limit ? end : pf->space.limit;
}

/* Blocks that the file has from the file system, for all we know. */
static uint64_t given_blocks(const struct bfti_pagefile *pf)
{
    uint64_t end = file_end(pf);

    return end > pf->space.hole_blocks ? end - pf->space.hole_blocks : 0;
}

/* Is there more than SHARE of what lives, and any of it free? */
static bool is_over(const struct bfti_pagefile *pf, uint64_t share)
{
    const struct bfti_space *space = &pf->space;
    uint64_t live = space->used_blocks - space->held_blocks;
    uint64_t given = given_blocks(pf);

    return given > live + live / share + space->hole_floor &&
           given > space->used_blocks;
}

/* The first block from BLOCK on, below END and in the same chunk, that is free
 * and no hole (WANTED), or that is not; END if there is none. */
static uint64_t next_block(const struct space_chunk *chunk, uint64_t block,
                           uint64_t end, bool wanted)
{
    for (; block < end; block++) {
        unsigned bit = (unsigned)(block % CHUNK_BLOCKS);
        uint64_t other = chunk->used[bit / 64] | chunk->hole[bit / 64];

        if (bit % 64 == 0 && end - block >= 64 &&
            other == (wanted ? UINT64_MAX : 0)) {
            block += 63;
            continue;
        }
        if ((other >> (bit % 64) & 1) == !wanted)
            return block;
    }
    return end;
}

/* The next run, from *AT to the end of its chunk, of at least LEAST free blocks
 * that are no hole; 0: none, and *AT is where that chunk or the file ends. */
static unsigned run_find(const struct bfti_pagefile *pf, uint64_t *at,
                         unsigned least)
{
    const struct bfti_space *space = &pf->space;
    const struct space_chunk *chunk = space_chunk_of(space, *at);
    uint64_t end = (*at / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS;

    if (end > file_end(pf))
        end = file_end(pf);
    while (chunk->run_bound >= least) {
        uint64_t from = next_block(chunk, *at, end, true);
        uint64_t until = next_block(chunk, from, end, false);

        if (from == end)
            break;
        *at = from;
        if (until - from >= least)
            return (unsigned)(until - from);
        *at = until;
    }
    *at = end;
    return 0;
}

static void run_take(struct bfti_space *space, uint64_t block, unsigned n)
{
    bfti_space_set_used_locked(space, block, n);
    for (uint64_t at = block; at < block + n; at++)
        bit_put(space_chunk_of(space, at)->held, at, true);
    space->held_blocks += n;
    space->held_grains += n * (uint64_t)BLOCK_GRAINS;
}

static void run_give(struct bfti_pagefile *pf, uint64_t block, unsigned n,
                     bool punched)
{
    struct bfti_space *space = &pf->space;

    for (uint64_t at = block; at < block + n; at++) {
        bit_put(space_chunk_of(space, at)->held, at, false);
        bit_put(space_chunk_of(space, at)->hole, at, punched);
    }
    space->held_blocks -= n;
    space->held_grains -= n * (uint64_t)BLOCK_GRAINS;
    space->hole_blocks += punched ? n : 0;
    bfti_space_blocks_free_locked(space, block, n);
}

/* A hole of at least LEAST blocks at *AT or behind it, if there is one in that
 * chunk: the lock is held for a look at one chunk.  *AT moves on.  False: there
 * is enough, or the file is at its end. */
static bool punch_next(struct bfti_pagefile *pf, uint64_t *at, unsigned least,
                       unsigned *holes, bft_status *status)
{
    struct bfti_space *space = &pf->space;
    unsigned n = 0;

    bfti_space_lock(pf);
    bool go_on = is_over(pf, END_SHARE) && *at < file_end(pf);
    if (go_on)
        n = run_find(pf, at, least);
    if (n > 0)
        run_take(space, *at, n);
    bfti_space_unlock(pf);
    if (n == 0)
        return go_on;
    *status = pf->file->ops->punch(pf->file, *at * BFTI_BLOCK,
                                   n * (uint64_t)BFTI_BLOCK);
    bfti_space_lock(pf);
    run_give(pf, *at, n, *status == BFT_OK);
    bfti_space_unlock(pf);
    *at += n;
    --*holes;
    return *status == BFT_OK;
}

static bool is_due(struct bfti_pagefile *pf)
{
    bfti_space_lock(pf);
    bool due = pf->space.ready && pf->file->ops->punch != NULL &&
               !pf->space.no_holes && is_over(pf, BEGIN_SHARE);
    bfti_space_unlock(pf);
    return due;
}

bft_status bfti_space_punch(struct bfti_pagefile *pf, unsigned holes,
                            bool *more)
{
    bft_status status = BFT_OK;

    *more = false;
    if (!is_due(pf))
        return BFT_OK;
    /* A release may cut off the very chunk that is looked at. */
    bfti_mutex_lock(pf->env, &pf->space.release_lock);
    /* Not beyond the first that is refused: it would be tried again, as one of
     * the shorter runs, and that hide the refusal. */
    for (unsigned least = RUN_LONGEST; least > 0 && status == BFT_OK;
         least /= RUN_STEP) {
        uint64_t at = SUPERBLOCKS;

        while (holes > 0 && punch_next(pf, &at, least, &holes, &status))
            ;
    }
    if (status == BFT_UNSUPPORTED) { /* the file system has no holes */
        pf->space.no_holes = true;
        status = BFT_OK;
    } else if (status == BFT_NO_SPACE) { /* nor room to note one now */
        status = BFT_OK;
    } else if (status == BFT_OK) {
        *more = holes == 0;
    }
    bfti_mutex_unlock(pf->env, &pf->space.release_lock);
    return status;
}
