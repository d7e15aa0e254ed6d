/*
 * Blocks that extents share: each of fewer than eight grains, none across the
 * end of a block.  Which grains are used, held and in the image is noted for
 * these blocks alone; the bits of the block follow from them.
 *
 * A few blocks are open: the next extents go there, one behind the other.
 * Grains that come free before their block does are not given again: what was
 * synced in a block is not to be in one that is being written.
 */
#include <assert.h>
#include <string.h>

#include "fault.h"
#include "pagefile_internal.h"

enum { SMALL_SEEN_MAX = 16 };

static struct space_shares *shares_of(const struct bfti_space *space,
                                      uint64_t block)
{
    return space_chunk_of(space, block)->shares;
}

static unsigned grains_in(unsigned mask)
{
    return (unsigned)__builtin_popcount(mask);
}

/* --- open blocks ---------------------------------------------------------- */

void bfti_share_close_locked(struct bfti_space *space)
{
    if (!bfti_fault_on(BFTI_FAULT_BLOCK_NOT_CLOSED))
        memset(space->open, 0, sizeof space->open);
}

void bfti_share_close_one_locked(struct bfti_space *space, uint64_t block)
{
    for (unsigned i = 0; i < SHARE_STRIPES; i++)
        for (unsigned j = 0; j < SHARE_OPEN; j++)
            if (space->open[i][j].block == block)
                space->open[i][j].block = 0;
}

bool bfti_share_is_open_locked(const struct bfti_space *space, uint64_t block)
{
    bool is = false;

    for (unsigned i = 0; i < SHARE_STRIPES; i++)
        for (unsigned j = 0; j < SHARE_OPEN; j++)
            is = is || space->open[i][j].block == block;
    return is;
}

static unsigned room_of(const struct open_block *open)
{
    return open->block != 0 ? BLOCK_GRAINS - open->filled : 0;
}

/* --- the grains of a block ------------------------------------------------ */

static bool shares_make(struct bfti_pagefile *pf, struct space_chunk *chunk)
{
    if (chunk->shares != NULL)
        return true;
    chunk->shares = bfti_alloc(pf->space_env, sizeof *chunk->shares);
    if (chunk->shares == NULL)
        return false;
    memset(chunk->shares, 0, sizeof *chunk->shares);
    return true;
}

void bfti_share_free(struct bfti_pagefile *pf, struct space_chunk *chunk)
{
    if (chunk->shares != NULL)
        bfti_free(pf->env, chunk->shares->audit);
    bfti_free(pf->space_env, chunk->shares);
    chunk->shares = NULL;
}

void bfti_share_trim_locked(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    for (size_t i = 0; i < space->chunk_count; i++) {
        struct space_chunk *chunk = space->chunk[i];
        if (chunk->shares != NULL && chunk->shares->count == 0 &&
            !space->auditing)
            bfti_share_free(pf, chunk);
    }
}

/* The bits of a block follow from its grains. */
static void block_follow(struct bfti_space *space, uint64_t block)
{
    struct space_chunk *chunk = space_chunk_of(space, block);
    struct space_shares *shares = chunk->shares;
    unsigned at = (unsigned)(block % CHUNK_BLOCKS);
    bool held = shares->used[at] != 0 && shares->held[at] == shares->used[at];

    if (held != bit_get(chunk->held, block)) {
        bit_put(chunk->held, block, held);
        if (held)
            space->held_blocks++;
        else
            space->held_blocks--;
    }
    if (shares->used[at] != 0)
        return;
    bit_put(shares->sparse, block, false);
    shares->count--;
    bfti_share_close_one_locked(space, block);
    space->used_grains += BLOCK_GRAINS; /* they were counted one by one */
    bfti_space_blocks_free_locked(space, block, 1);
}

bool bfti_share_take_locked(struct bfti_pagefile *pf, uint64_t block,
                            uint8_t mask)
{
    struct bfti_space *space = &pf->space;
    struct space_chunk *chunk = space_chunk_of(space, block);
    unsigned at = (unsigned)(block % CHUNK_BLOCKS);

    assert(bit_get(chunk->used, block) && mask != 0);
    if (!shares_make(pf, chunk))
        return false;
    struct space_shares *shares = chunk->shares;
    if (shares->used[at] == 0) {
        shares->count++;
        space->used_grains -= BLOCK_GRAINS;
    }
    space->used_grains += grains_in(mask & ~(unsigned)shares->used[at]);
    shares->used[at] |= mask;
    block_follow(space, block);
    return true;
}

void bfti_share_give_locked(struct bfti_space *space, uint64_t block,
                            uint8_t mask)
{
    struct space_shares *shares = shares_of(space, block);
    unsigned at = (unsigned)(block % CHUNK_BLOCKS);

    assert((shares->used[at] & mask) == mask &&
           (shares->image[at] & mask) == 0);
    space->held_grains -= grains_in(shares->held[at] & mask);
    space->used_grains -= grains_in(mask);
    shares->held[at] = (uint8_t)(shares->held[at] & ~mask);
    shares->used[at] = (uint8_t)(shares->used[at] & ~mask);
    block_follow(space, block);
}

void bfti_share_hold_locked(struct bfti_space *space, uint64_t place)
{
    uint64_t block = place_block(place);
    struct space_shares *shares = shares_of(space, block);

    shares->held[block % CHUNK_BLOCKS] |= place_mask(place);
    space->held_grains += bfti_disk_grains(place);
    block_follow(space, block);
}

void bfti_share_image_locked(struct bfti_space *space, uint64_t place,
                             bool value)
{
    uint64_t block = place_block(place);
    struct space_chunk *chunk = space_chunk_of(space, block);
    uint8_t *image = &chunk->shares->image[block % CHUNK_BLOCKS];

    *image = (uint8_t)(value ? *image | place_mask(place)
                             : *image & ~place_mask(place));
    bit_put(chunk->image, block, *image != 0);
}

bool bfti_share_lives_locked(const struct bfti_space *space, uint64_t place)
{
    uint64_t block = place_block(place);
    const struct space_shares *shares = shares_of(space, block);
    unsigned at = (unsigned)(block % CHUNK_BLOCKS);
    unsigned live = shares->used[at] & ~(unsigned)shares->held[at];

    return (place_mask(place) & ~live) == 0;
}

/* --- allocation ----------------------------------------------------------- */

/* The open block of STRIPE with the least room for N grains; SHARE_OPEN: none
 * has as much. */
static unsigned best_fit(const struct bfti_space *space, unsigned stripe,
                         unsigned n)
{
    unsigned best = SHARE_OPEN, least = BLOCK_GRAINS + 1;

    for (unsigned i = 0; i < SHARE_OPEN; i++) {
        unsigned room = room_of(&space->open[stripe][i]);
        if (room >= n && room < least) {
            best = i;
            least = room;
        }
    }
    return best;
}

/* Is a block that N grains are in to be shared?  What leaves less than half
 * of it free goes with short ones alone, and only they pay what is noted of
 * the block: leaves of five to seven grains, and nothing else, do as well
 * without. */
static bool may_open(struct bfti_space *space, unsigned n)
{
    if (n <= SHARE_SMALL)
        return true;
    if (space->small_seen == 0)
        return false;
    space->small_seen--;
    return true;
}

/* The entry of STRIPE that a block with ROOM takes: that of the fullest, unless
 * that is no fuller. */
static unsigned open_replace(const struct bfti_space *space, unsigned stripe,
                             unsigned room)
{
    unsigned fullest = 0;

    for (unsigned i = 1; i < SHARE_OPEN; i++)
        if (room_of(&space->open[stripe][i]) <
            room_of(&space->open[stripe][fullest]))
            fullest = i;
    return room > room_of(&space->open[stripe][fullest]) ? fullest : SHARE_OPEN;
}

static uint8_t mask_of(unsigned first, unsigned n)
{
    return (uint8_t)(((1u << n) - 1) << first);
}

/* A block of which the first N grains are taken. */
static bft_status fresh_block(struct bfti_pagefile *pf, unsigned stripe,
                              unsigned n, struct share_spot *spot)
{
    struct bfti_space *space = &pf->space;

    bft_status status = bfti_space_alloc_locked(pf, 1, &spot->block);
    /* Without memory for its grains it is a block of its own. */
    if (status != BFT_OK ||
        !bfti_share_take_locked(pf, spot->block, mask_of(0, n)))
        return status;
    spot->open = open_replace(space, stripe, BLOCK_GRAINS - n);
    if (spot->open < SHARE_OPEN)
        space->open[stripe][spot->open] = (struct open_block){spot->block, n};
    return BFT_OK;
}

bft_status bfti_share_alloc_locked(struct bfti_pagefile *pf, unsigned stripe,
                                   unsigned grains, struct share_spot *spot)
{
    struct bfti_space *space = &pf->space;

    *spot = (struct share_spot){.open = best_fit(space, stripe, grains)};
    if (grains < BLOCK_GRAINS - SHARE_SMALL &&
        space->small_seen < SMALL_SEEN_MAX)
        space->small_seen++;
    if (spot->open == SHARE_OPEN)
        return may_open(space, grains) ? fresh_block(pf, stripe, grains, spot)
                                       : BFT_OK;

    struct open_block *open = &space->open[stripe][spot->open];
    bft_status status = bfti_space_aside_locked(pf, 2);
    if (status != BFT_OK)
        return status;
    spot->block = open->block;
    spot->first = open->filled;
    open->filled += grains;
    /* There are shares, since it is shared. */
    (void)bfti_share_take_locked(pf, spot->block, mask_of(spot->first, grains));
    space->private_count++;
    return BFT_OK;
}
