/*
 * Cleaning: which part of the file is to be emptied, so that it can be cut off.
 *
 * The end of the file falls only as far as nothing lives there.  What keeps it up
 * is copied into free space nearer to the front by whoever knows what it means;
 * here is where the part begins that is to become free, the ceiling, and what
 * lives above it.  While there is a ceiling, allocation looks below it first.
 */
#include "error.h"
#include "pagefile_internal.h"

enum {
    BEGIN_SHARE = 2,  /* with more than that of what lives on top it begins */
    TARGET_SHARE = 8, /* and aims at that much */
    CHANGE_SHARE = 8, /* of the figures it knows: then they are others */
    PASSES_MAX = 3,   /* of a file that stays as it was */
};

/* Blocks at word WORD of CHUNK that a leaf's state or an image reaches. */
static uint64_t live_word(const struct space_chunk *chunk, size_t word)
{
    return chunk->used[word] & ~chunk->held[word] & chunk->image[word];
}

static bool differs(uint64_t now, uint64_t then)
{
    uint64_t by = now > then ? now - then : then - now;

    return by > then / CHANGE_SHARE;
}

/* Passes over the same file that did not make it shorter end. */
static bool is_worth_it(struct bfti_space *space, uint64_t end, uint64_t live)
{
    if (differs(end, space->cleaned_end) || differs(live, space->cleaned_live))
        space->cleaned_times = 0;
    return space->cleaned_times < PASSES_MAX;
}

bool bfti_space_clean_begin(struct bfti_pagefile *pf, uint64_t *from)
{
    struct bfti_space *space = &pf->space;

    *from = 0;
    bfti_space_lock(pf);
    /* relaxed: changed under the lock. */
    uint64_t end = atomic_load_explicit(&pf->end, memory_order_relaxed);
    uint64_t live = space->used_blocks - space->held_blocks;
    uint64_t target = live + live / TARGET_SHARE + space->hole_floor;

    /* A copy keeps what it is made of where it is, for its time. */
    if (space->ready && !space->holding &&
        end > live + live / BEGIN_SHARE + space->hole_floor &&
        target < space->limit && is_worth_it(space, end, live)) {
        space->cleaned_end = end;
        space->cleaned_live = live;
        space->cleaned_times++;
        atomic_store(&space->ceiling, target);
        *from = target;
    }
    bfti_space_unlock(pf);
    return *from != 0;
}

uint64_t bfti_space_clean_next(struct bfti_pagefile *pf, uint64_t block)
{
    struct bfti_space *space = &pf->space;
    uint64_t found = 0;
    bool there = true;

    /* The lock is held for a look at one chunk. */
    while (there && found == 0) {
        bfti_space_lock(pf);
        there = block < space->limit;
        while (there && found == 0) {
            const struct space_chunk *chunk = space_chunk_of(space, block);
            uint64_t live = live_word(chunk, block % CHUNK_BLOCKS / 64) &
                            UINT64_MAX << (block % 64);

            block -= block % 64;
            if (live != 0)
                found = block + (unsigned)__builtin_ctzll(live);
            block += 64;
            if (block % CHUNK_BLOCKS == 0)
                break;
            there = block < space->limit;
        }
        bfti_space_unlock(pf);
    }
    return found;
}

void bfti_space_clean_end(struct bfti_pagefile *pf)
{
    atomic_store(&pf->space.ceiling, 0);
}

bool bfti_space_is_high(const struct bfti_pagefile *pf, uint64_t place)
{
    uint64_t ceiling = atomic_load(&pf->space.ceiling);

    return ceiling != 0 && place_block(place) + place_blocks(place) > ceiling;
}
