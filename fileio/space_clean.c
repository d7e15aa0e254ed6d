/*
 * Cleaning: which part of the file is to be emptied, so that it can be cut off.
 *
 * The end of the file falls only as far as nothing lives there.  What keeps it
 * up is copied into free space nearer to the front by whoever knows what it
 * means; here is where the part begins that is to become free, the ceiling, and
 * what lives above it.  While there is a ceiling, allocation looks below it
 * first.
 *
 * What keeps a file long may also be shared blocks of which little lives.
 * Where they are, a pass is for these: what lives in them goes to other blocks,
 * wherever, and the next pass has room below its ceiling.
 */
#include "error.h"
#include "pagefile_internal.h"

enum {
    BEGIN_SHARE = 2,    /* with more than that of what lives on top it begins */
    TARGET_SHARE = 8,   /* and aims at that much */
    CHANGE_SHARE = 8,   /* of the figures it knows: then they are others */
    PASSES_MAX = 3,     /* of a file that stays as it was */
    SLACK_SHARE = 32,   /* of what is used, that a ceiling leaves below it */
    SPARSE_GRAINS = 4,  /* that live in a block, at most: then it is sparse, */
    SPARSER_GRAINS = 6, /* ... or so many, if that was not enough */
};
/* Beyond all blocks: no extent is high but for what lies in sparse blocks. */
#define NO_CEILING BLOCKS_MAX

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
    /* Of shared blocks every other pass is for sparse ones. */
    bool shares = space->used_grains < space->used_blocks * BLOCK_GRAINS;
    return space->cleaned_times < PASSES_MAX + (shares ? 1 : 0);
}

/* Blocks that what lives needs at least. */
static uint64_t need_blocks(const struct bfti_space *space)
{
    return (space->used_grains - space->held_grains + BLOCK_GRAINS - 1) /
           BLOCK_GRAINS;
}

/* The ceiling of a pass over what is so long: NO_CEILING if shared blocks are
 * to be emptied first; and every other time of a file that stays as it was,
 * since they may be of extents that nobody moves. */
static uint64_t ceiling_for(struct bfti_space *space, uint64_t need)
{
    uint64_t live = space->used_blocks - space->held_blocks;
    uint64_t target = need + need / TARGET_SHARE, least;

    if (live > target && space->cleaned_times % 2 == 0) {
        space->sparse_grains =
            space->cleaned_times == 0 ? SPARSE_GRAINS : SPARSER_GRAINS;
        return NO_CEILING;
    }
    least = live + live / SLACK_SHARE;
    return (target > least ? target : least) + space->hole_floor;
}

bool bfti_space_clean_begin(struct bfti_pagefile *pf, uint64_t *from)
{
    struct bfti_space *space = &pf->space;

    *from = 0;
    bfti_space_lock(pf);
    /* relaxed: changed under the lock. */
    uint64_t end = atomic_load_explicit(&pf->end, memory_order_relaxed);
    uint64_t need = need_blocks(space);

    /* A copy keeps what it is made of where it is, for its time. */
    if (space->ready && !space->holding &&
        end > need + need / BEGIN_SHARE + space->hole_floor &&
        is_worth_it(space, end, need)) {
        uint64_t ceiling = ceiling_for(space, need);
        bool sparse = ceiling == NO_CEILING;
        if (sparse || ceiling < space->limit) {
            space->cleaned_end = end;
            space->cleaned_live = need;
            space->cleaned_times++;
            atomic_store(&space->ceiling, ceiling);
            bfti_share_close_locked(space); /* they may lie above it */
            /* Blocks that come meanwhile are not looked at. */
            space->clean_end = sparse ? space->limit : NO_CEILING;
            *from = (sparse ? SUPERBLOCKS : ceiling) * BLOCK_GRAINS;
        }
    }
    bfti_space_unlock(pf);
    return *from != 0;
}

/* Of BLOCK, which is shared and of an image, the first grain from IN_BLOCK on
 * that lives; 0: none, or the block is not sparse while such are looked for. */
static uint64_t grain_in(struct bfti_space *space, uint64_t block,
                         unsigned in_block)
{
    struct space_shares *shares = space_chunk_of(space, block)->shares;
    unsigned at = (unsigned)(block % CHUNK_BLOCKS);
    unsigned live = shares->used[at] & ~(unsigned)shares->held[at];
    unsigned rest = live & shares->image[at] & (0xffu << in_block);

    if (atomic_load(&space->ceiling) == NO_CEILING &&
        !bit_get(shares->sparse, block)) {
        if ((unsigned)__builtin_popcount(live) > space->sparse_grains ||
            bfti_share_is_open_locked(space, block))
            return 0;
        bit_put(shares->sparse, block, rest != 0);
    }
    return rest != 0 ? block * BLOCK_GRAINS + (unsigned)__builtin_ctz(rest) : 0;
}

/* The first grain of an extent at GRAIN or behind it that is to go, up to the
 * end of its word of blocks; 0: there is none. */
static uint64_t grain_in_word(struct bfti_space *space, uint64_t grain)
{
    uint64_t block = grain / BLOCK_GRAINS;
    const struct space_chunk *chunk = space_chunk_of(space, block);
    uint64_t live = live_word(chunk, block % CHUNK_BLOCKS / 64) &
                    UINT64_MAX << (block % 64);
    bool sparse = atomic_load(&space->ceiling) == NO_CEILING;

    for (; live != 0; live &= live - 1) {
        uint64_t at = block - block % 64 + (unsigned)__builtin_ctzll(live);
        unsigned in_block = at == block ? (unsigned)(grain % BLOCK_GRAINS) : 0;
        uint64_t found = 0;
        if (block_is_shared(space, at))
            found = grain_in(space, at, in_block);
        else if (!sparse && in_block == 0)
            found = at * BLOCK_GRAINS;
        if (found != 0)
            return found;
    }
    return 0;
}

static bool is_looked_at(const struct bfti_space *space, uint64_t grain)
{
    uint64_t block = grain / BLOCK_GRAINS;
    return block < space->limit && block < space->clean_end;
}

uint64_t bfti_space_clean_next(struct bfti_pagefile *pf, uint64_t grain)
{
    const uint64_t word = (uint64_t)64 * BLOCK_GRAINS;
    struct bfti_space *space = &pf->space;
    uint64_t found = 0;
    bool there = true;

    /* The lock is held for a look at one chunk. */
    while (there && found == 0) {
        bfti_space_lock(pf);
        there = is_looked_at(space, grain);
        while (there && found == 0) {
            found = grain_in_word(space, grain);
            grain += word - grain % word;
            if (grain % (word * CHUNK_WORDS) == 0)
                break;
            there = is_looked_at(space, grain);
        }
        bfti_space_unlock(pf);
    }
    return found;
}

void bfti_space_clean_end(struct bfti_pagefile *pf)
{
    atomic_store(&pf->space.ceiling, 0);
}

/* Does the extent at PLACE lie in a block that is to be emptied? */
static bool is_sparse(struct bfti_pagefile *pf, uint64_t place)
{
    struct bfti_space *space = &pf->space;
    uint64_t block = place_block(place);

    bfti_space_lock(pf);
    bool sparse = block < space->limit && block_is_shared(space, block) &&
                  bit_get(space_chunk_of(space, block)->shares->sparse, block);
    bfti_space_unlock(pf);
    return sparse;
}

bool bfti_space_is_high(struct bfti_pagefile *pf, uint64_t place)
{
    uint64_t ceiling = atomic_load(&pf->space.ceiling);

    if (ceiling == NO_CEILING)
        return is_sparse(pf, place);
    return ceiling != 0 && place_block(place) + place_blocks(place) > ceiling;
}
