/*
 * Writing extents into shared blocks.
 *
 * Who writes one has a stripe to itself: its lock is held across the write.
 * The bytes of its open blocks are in memory, so each write is of a whole
 * block, and what lies in it already is written again as it is.  Nobody waits
 * for a stripe: who finds none free takes a block of its own.
 *
 * What a sync has made certain is in no block that is written again: a sync
 * closes all open blocks and waits for the writes under way.  A disk may write
 * sectors of four kilobytes; one that the power tears then has nothing that
 * anybody relies on.
 */
#include <assert.h>
#include <string.h>

#include "pagefile_internal.h"

/* A stripe with memory, its lock held; SHARE_STRIPES: there is none. */
static unsigned stripe_take(struct bfti_pagefile *pf)
{
    unsigned i = 0;

    while (i < SHARE_STRIPES && !bfti_mutex_try(&pf->stripe[i].lock))
        i++;
    if (i == SHARE_STRIPES || pf->stripe[i].bytes != NULL)
        return i;
    pf->stripe[i].bytes = bfti_alloc(pf->env, (size_t)SHARE_OPEN * BFTI_BLOCK);
    if (pf->stripe[i].bytes != NULL)
        return i;
    bfti_mutex_unlock(pf->env, &pf->stripe[i].lock);
    return SHARE_STRIPES;
}

/* Write the block of SPOT with the extent in it. */
static bft_status spot_write(struct bfti_pagefile *pf, unsigned stripe,
                             const struct share_spot *spot,
                             const uint8_t *bytes, unsigned grains)
{
    const uint8_t *block = bytes;

    if (spot->open < SHARE_OPEN) {
        uint8_t *to =
            pf->stripe[stripe].bytes + (size_t)spot->open * BFTI_BLOCK;
        /* Behind what is in it are zeros, as in any other block. */
        if (spot->first == 0)
            memset(to, 0, BFTI_BLOCK);
        memcpy(to + (size_t)spot->first * BFTI_GRAIN, bytes,
               (size_t)grains * BFTI_GRAIN);
        block = to;
    }
    bft_status status = pf->file->ops->write(pf->file, spot->block * BFTI_BLOCK,
                                             block, BFTI_BLOCK);
    if (status == BFT_OK)
        return BFT_OK;
    bfti_space_lock(pf);
    bfti_share_close_one_locked(&pf->space, spot->block);
    bfti_space_give_place_locked(
        pf,
        bfti_disk_place(spot->block * BLOCK_GRAINS + spot->first, grains, 0));
    bfti_space_unlock(pf);
    return status;
}

bft_status bfti_share_write(struct bfti_pagefile *pf, const uint8_t *bytes,
                            unsigned grains, uint64_t *grain)
{
    struct share_spot spot;
    assert(grains >= 1 && grains < BLOCK_GRAINS);

    *grain = 0;
    unsigned stripe = stripe_take(pf);
    if (stripe == SHARE_STRIPES)
        return BFT_OK;
    bfti_space_lock(pf);
    bft_status status = bfti_share_alloc_locked(pf, stripe, grains, &spot);
    bfti_space_unlock(pf);
    if (status == BFT_OK && spot.block != 0)
        status = spot_write(pf, stripe, &spot, bytes, grains);
    bfti_mutex_unlock(pf->env, &pf->stripe[stripe].lock);
    if (status == BFT_OK)
        *grain = spot.block * BLOCK_GRAINS + spot.first;
    return status;
}

void bfti_share_settle(struct bfti_pagefile *pf)
{
    bfti_space_lock(pf);
    bfti_share_close_locked(&pf->space);
    bfti_space_unlock(pf);
    for (unsigned i = 0; i < SHARE_STRIPES; i++) {
        bfti_mutex_lock(pf->env, &pf->stripe[i].lock);
        bfti_mutex_unlock(pf->env, &pf->stripe[i].lock);
    }
}

void bfti_share_end(struct bfti_pagefile *pf)
{
    for (unsigned i = 0; i < SHARE_STRIPES; i++)
        bfti_free(pf->env, pf->stripe[i].bytes);
}
