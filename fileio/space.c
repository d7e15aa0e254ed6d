/*
 * The space of the page file: which blocks may be allocated, which ones the
 * next image reaches, and since when an unlinked extent waits.
 *
 * The bits stand in chunks of 16 MiB of file, so that the file grows without
 * copying, and a search skips a chunk by what it learned there last time.
 * Allocation is first fit within a chunk and goes on from chunk to chunk; the
 * file grows only after a whole round without a fitting run.  A release sets
 * the cursor back to the front, so that the file's end falls free.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

enum { ASIDE_MIN = 64 };

void bfti_space_lock(struct bfti_pagefile *pf)
{
    bfti_mutex_lock(pf->env, &pf->space.lock);
}

static void see(_Atomic uint64_t *figure, uint64_t value)
{
    /* relaxed: only a hint for who has not the lock. */
    if (atomic_load_explicit(figure, memory_order_relaxed) != value)
        atomic_store_explicit(figure, value, memory_order_relaxed);
}

void bfti_space_unlock(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    see(&space->live_seen, space->used_grains - space->held_grains);
    see(&space->waiting_seen, space->held_grains > space->kept_grains
                                  ? space->held_grains - space->kept_grains
                                  : 0);
    bfti_mutex_unlock(pf->env, &pf->space.lock);
}

/* --- runs of bits within a chunk ----------------------------------------- */

/* The first bit at FROM or above that is VALUE; CHUNK_BLOCKS when none is. */
static unsigned next_bit(const uint64_t *words, unsigned from, bool value)
{
    if (from >= CHUNK_BLOCKS)
        return CHUNK_BLOCKS;
    uint64_t flip = value ? 0 : UINT64_MAX;
    unsigned i = from / 64;
    uint64_t word = (words[i] ^ flip) & UINT64_MAX << (from % 64);
    while (word == 0) {
        if (++i == CHUNK_WORDS)
            return CHUNK_BLOCKS;
        word = words[i] ^ flip;
    }
    return i * 64 + (unsigned)__builtin_ctzll(word);
}

/* Set or clear the N bits from FROM on. */
static void put_run(uint64_t *words, unsigned from, unsigned n, bool value)
{
    for (unsigned bit = from; bit < from + n;) {
        unsigned in_word = bit % 64;
        unsigned span = 64 - in_word;
        if (span > from + n - bit)
            span = from + n - bit;
        uint64_t mask = (span == 64 ? UINT64_MAX : ((uint64_t)1 << span) - 1)
                        << in_word;
        words[bit / 64] =
            value ? words[bit / 64] | mask : words[bit / 64] & ~mask;
        bit += span;
    }
}

/* The start of a run of N free blocks below END, or CHUNK_BLOCKS.  What a
 * search in vain has seen is kept for the next one. */
static unsigned chunk_find(struct space_chunk *chunk, unsigned n, unsigned end)
{
    unsigned longest = 0;
    unsigned at = next_bit(chunk->used, chunk->low, false);

    chunk->low = at;
    while (at < end) {
        unsigned stop = next_bit(chunk->used, at, true);
        if (stop > end)
            stop = end;
        if (stop - at >= n)
            return at;
        if (stop - at > longest)
            longest = stop - at;
        at = next_bit(chunk->used, stop, false);
    }
    chunk->run_bound = longest;
    return CHUNK_BLOCKS;
}

/* --- growing --------------------------------------------------------------- */

static bft_status chunk_add(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    if (space->chunk_count == space->chunk_cap) {
        size_t cap = space->chunk_cap > 0 ? space->chunk_cap * 2 : 16;
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        size_t bytes = cap * sizeof(struct space_chunk *);
        struct space_chunk **chunk =
            bfti_realloc(pf->space_env, space->chunk, bytes);
        if (chunk == NULL)
            goto no_memory;
        space->chunk = chunk;
        space->chunk_cap = cap;
    }
    struct space_chunk *fresh = bfti_alloc(pf->space_env, sizeof *fresh);
    if (fresh == NULL)
        goto no_memory;
    memset(fresh, 0, sizeof *fresh);
    fresh->run_bound = CHUNK_BLOCKS;
    space->chunk[space->chunk_count++] = fresh;
    return BFT_OK;

no_memory:
    return bfti_fail(BFT_NO_MEMORY, "%s: no memory for the space of %zu MiB",
                     pf->path, (space->chunk_count + 1) * 16);
}

bft_status bfti_space_cover_locked(struct bfti_pagefile *pf, uint64_t end)
{
    struct bfti_space *space = &pf->space;

    if (end > BLOCKS_MAX)
        return bfti_fail(BFT_NO_SPACE, "%s: the format ends at 32 TiB",
                         pf->path);
    while (space->chunk_count * (uint64_t)CHUNK_BLOCKS < end) {
        bft_status status = chunk_add(pf);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* Raise the limit by at least N blocks that one run can have. */
static bft_status space_grow(struct bfti_pagefile *pf, unsigned n)
{
    struct bfti_space *space = &pf->space;
    uint64_t step = space->growth > n ? space->growth : n;
    uint64_t first = space->limit, most = bfti_map_blocks_max();

    /* Not enough is left of this chunk: the run starts the next one. */
    unsigned in_chunk = (unsigned)(space->limit % CHUNK_BLOCKS);
    if (in_chunk + n > CHUNK_BLOCKS)
        first += CHUNK_BLOCKS - in_chunk;
    /* Of a longer file there would be no image any more that frees some of it. */
    if (first + n > most)
        return bfti_fail(BFT_NO_SPACE, "%s: the format ends at %u GiB",
                         pf->path, (unsigned)(most * BFTI_BLOCK >> 30));
    uint64_t limit = first + step < most ? first + step : most;
    bft_status status = bfti_space_cover_locked(pf, limit);
    if (status != BFT_OK)
        return status;

    if (in_chunk != 0)
        space_chunk_of(space, space->limit)->run_bound = CHUNK_BLOCKS;
    space->cursor = (size_t)(space->limit / CHUNK_BLOCKS);
    space->limit = limit;
    if (space->growth < GROWTH_MAX)
        space->growth *= 2;
    return BFT_OK;
}

/* What is written again, or cut off, is no hole any more. */
static void holes_forget(struct bfti_space *space, uint64_t block, uint64_t end)
{
    for (; space->hole_blocks > 0 && block < end; block++) {
        struct space_chunk *chunk = space_chunk_of(space, block);

        space->hole_blocks -= bit_get(chunk->hole, block);
        bit_put(chunk->hole, block, false);
    }
}

void bfti_space_shrink_locked(struct bfti_pagefile *pf, uint64_t end)
{
    struct bfti_space *space = &pf->space;
    size_t keep = (size_t)((end + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS);

    holes_forget(space, end, space->limit);
    while (space->chunk_count > keep) {
        struct space_chunk *chunk = space->chunk[--space->chunk_count];
        bfti_free(pf->env, chunk->audit);
        bfti_share_free(pf, chunk);
        bfti_free(pf->space_env, chunk);
    }
    if (space->limit > end)
        space->limit = end;
    space->cursor = 0;
}

/* --- allocation -------------------------------------------------------------- */

/* A run of N free blocks in chunk INDEX, below block LIMIT. */
static bool run_in_chunk(struct bfti_space *space, size_t index, unsigned n,
                         uint64_t limit, uint64_t *block)
{
    struct space_chunk *chunk = space->chunk[index];
    uint64_t first = (uint64_t)index * CHUNK_BLOCKS;
    unsigned bound = chunk->run_bound;

    if (bound < n)
        return false;
    unsigned end =
        limit - first < CHUNK_BLOCKS ? (unsigned)(limit - first) : CHUNK_BLOCKS;
    unsigned at = chunk_find(chunk, n, end);
    if (at == CHUNK_BLOCKS && end < CHUNK_BLOCKS && limit < space->limit)
        chunk->run_bound = bound; /* longer ones may lie above */
    *block = first + at;
    return at < CHUNK_BLOCKS;
}

static bool run_below(struct bfti_space *space, unsigned n, uint64_t limit,
                      uint64_t *block)
{
    size_t count = (size_t)((limit + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS);

    for (size_t i = 0; i < count; i++) {
        size_t index = (space->cursor + i) % count;
        if (run_in_chunk(space, index, n, limit, block)) {
            space->cursor = index;
            return true;
        }
    }
    return false;
}

static bool space_find(struct bfti_space *space, unsigned n, uint64_t *block)
{
    uint64_t ceiling = atomic_load(&space->ceiling);

    if (ceiling != 0 && ceiling < space->limit &&
        run_below(space, n, ceiling, block))
        return true;
    return run_below(space, n, space->limit, block);
}

bft_status bfti_space_aside_locked(struct bfti_pagefile *pf, size_t extra)
{
    struct bfti_space *space = &pf->space;
    size_t need = space->aside_count + space->private_count + extra;

    if (need <= space->aside_cap)
        return BFT_OK;
    size_t cap = space->aside_cap > 0 ? space->aside_cap : ASIDE_MIN;
    while (cap < need)
        cap *= 2;
    struct space_aside *aside =
        bfti_realloc(pf->space_env, space->aside, cap * sizeof *aside);
    if (aside == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "%s: no memory for %zu changes of space kept aside",
                         pf->path, cap);
    space->aside = aside;
    space->aside_cap = cap;
    return BFT_OK;
}

/* Let a release finish cutting the file.  It ends with its system call. */
static void await_truncation(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_unlock(pf);
    pf->env->wait(pf->env->ctx, &space->truncating, 1, UINT64_MAX);
    bfti_space_lock(pf);
}

void bfti_space_set_used_locked(struct bfti_space *space, uint64_t block,
                                unsigned n)
{
    for (uint64_t at = block; at < block + n; at++) {
        struct space_chunk *chunk = space_chunk_of(space, at);
        if (bit_get(chunk->used, at))
            continue;
        bit_put(chunk->used, at, true);
        bit_put(chunk->young, at, false);
        space->used_blocks++;
        space->used_grains += BLOCK_GRAINS;
    }
    holes_forget(space, block, block + n);
}

/* Young: no image can reach it as long as the epoch is the one it was
 * allocated in and no checkpoint was running then. */
static void mark_young(struct bfti_space *space, uint64_t block, unsigned n)
{
    struct space_chunk *chunk = space_chunk_of(space, block);

    if (chunk->young_epoch != space->epoch) {
        memset(chunk->young, 0, sizeof chunk->young);
        chunk->young_epoch = space->epoch;
    }
    put_run(chunk->young, (unsigned)(block % CHUNK_BLOCKS), n, !space->running);
}

bft_status bfti_space_alloc_locked(struct bfti_pagefile *pf, unsigned n,
                                   uint64_t *block)
{
    struct bfti_space *space = &pf->space;
    assert(n >= 1 && n <= BFTI_EXTENT_GRAINS_MAX / BLOCK_GRAINS);

    *block = 0;
    if (!space->ready)
        return bfti_fail(BFT_INVALID, "%s: its space is not loaded", pf->path);
    bft_status status = bfti_space_aside_locked(pf, 2);
    /* Ends: each round either finds a run, fails, grows by a fitting run or
     * waits for a truncation, of which there are few. */
    while (status == BFT_OK && !space_find(space, n, block)) {
        if (atomic_load(&space->truncating) != 0)
            await_truncation(pf);
        else
            status = space_grow(pf, n);
        if (status == BFT_OK)
            status = bfti_space_aside_locked(pf, 2);
    }
    if (status != BFT_OK)
        return status;

    struct space_chunk *chunk = space_chunk_of(space, *block);
    put_run(chunk->used, (unsigned)(*block % CHUNK_BLOCKS), n, true);
    mark_young(space, *block, n);
    holes_forget(space, *block, *block + n);
    space->used_blocks += n;
    space->used_grains += n * (uint64_t)BLOCK_GRAINS;
    space->private_count++;
    /* relaxed: see extent_fetch(). */
    if (*block + n > atomic_load_explicit(&pf->end, memory_order_relaxed))
        atomic_store_explicit(&pf->end, *block + n, memory_order_relaxed);
    return BFT_OK;
}

void bfti_space_blocks_free_locked(struct bfti_space *space, uint64_t block,
                                   unsigned n)
{
    for (uint64_t at = block; at < block + n; at++) {
        struct space_chunk *chunk = space_chunk_of(space, at);
        unsigned bit = (unsigned)(at % CHUNK_BLOCKS);
        assert(bit_get(chunk->used, at) && !bit_get(chunk->image, at));
        bit_put(chunk->used, at, false);
        bit_put(chunk->copied, at, false);
        chunk->run_bound = CHUNK_BLOCKS;
        if (bit < chunk->low)
            chunk->low = bit;
    }
    space->used_blocks -= n;
    space->used_grains -= n * (uint64_t)BLOCK_GRAINS;
}

void bfti_space_give_locked(struct bfti_pagefile *pf, uint64_t block,
                            unsigned n)
{
    bfti_space_blocks_free_locked(&pf->space, block, n);
    if (pf->space.private_count > 0)
        pf->space.private_count--;
}

void bfti_space_give_place_locked(struct bfti_pagefile *pf, uint64_t place)
{
    if (!place_is_shared(&pf->space, place)) {
        bfti_space_give_locked(pf, place_block(place), place_blocks(place));
        return;
    }
    bfti_share_give_locked(&pf->space, place_block(place), place_mask(place));
    pf->space.private_count -= pf->space.private_count > 0;
}

void bfti_space_free_held_locked(struct bfti_pagefile *pf, uint64_t place)
{
    struct bfti_space *space = &pf->space;
    uint64_t block = place_block(place);
    unsigned n = place_blocks(place);

    if (place_is_shared(space, place)) {
        bfti_share_give_locked(space, block, place_mask(place));
        return;
    }
    for (uint64_t at = block; at < block + n; at++)
        bit_put(space_chunk_of(space, at)->held, at, false);
    space->held_blocks -= n;
    space->held_grains -= n * (uint64_t)BLOCK_GRAINS;
    bfti_space_blocks_free_locked(space, block, n);
}

/* --- linking ------------------------------------------------------------------ */

/* May PLACE be an extent's?  Not within a block that is another one's, nor as a
 * whole where others share. */
static bool place_within(const struct bfti_space *space, uint64_t place)
{
    uint64_t block = place_block(place), end = block + place_blocks(place);

    if (!bfti_place_valid(place) || end > space->limit)
        return false;
    if (bfti_disk_grain(place) % BLOCK_GRAINS != 0)
        return block_is_shared(space, block) ||
               !bit_get(space_chunk_of(space, block)->used, block);
    for (; bfti_disk_grains(place) >= BLOCK_GRAINS && block < end; block++)
        if (block_is_shared(space, block))
            return false;
    return true;
}

bool bfti_space_live_locked(const struct bfti_space *space, uint64_t place)
{
    if (!place_within(space, place))
        return false;
    if (place_is_shared(space, place))
        return bfti_share_lives_locked(space, place);
    uint64_t block = place_block(place);
    uint64_t end = block + place_blocks(place);
    for (; block < end; block++) {
        const struct space_chunk *chunk = space_chunk_of(space, block);
        if (!bit_get(chunk->used, block) || bit_get(chunk->held, block))
            return false;
    }
    return true;
}

void bfti_space_set_image_locked(struct bfti_space *space, uint64_t place,
                                 bool value)
{
    uint64_t block = place_block(place);
    uint64_t end = block + place_blocks(place);

    if (place_is_shared(space, place)) {
        bfti_share_image_locked(space, place, value);
        return;
    }
    for (; block < end; block++)
        bit_put(space_chunk_of(space, block)->image, block, value);
}

static void aside_add(struct bfti_space *space, uint64_t place, bool link)
{
    struct space_aside *aside = &space->aside[space->aside_count++];
    aside->place = place;
    aside->link = link;
}

/* Does a change of what checkpoint GATHERED has taken wait for its end? */
static bool is_aside(const struct bfti_space *space, uint64_t gathered)
{
    return space->running && gathered &&
           (gathered == space->epoch || gathered == BFTI_GATHERED_NOW);
}

/* In order: an extent may have come and gone while the checkpoint ran.  All
 * under one lock, since changes made from now on do not go aside. */
static void aside_apply(struct bfti_space *space)
{
    for (size_t i = 0; i < space->aside_count; i++)
        bfti_space_set_image_locked(space, space->aside[i].place,
                                    space->aside[i].link);
    space->aside_count = 0;
}

/* Is there room for a change to be kept aside?  What links has its own, unless it
 * links an extent for the second time. */
static bool aside_room(struct bfti_pagefile *pf, bool link)
{
    const struct bfti_space *space = &pf->space;
    return (link && space->aside_count < space->aside_cap) ||
           bfti_space_aside_locked(pf, 1) == BFT_OK;
}

static void image_change(struct bfti_pagefile *pf, uint64_t place, bool aside,
                         bool link)
{
    struct bfti_space *space = &pf->space;

    if (aside && !space->aside_lost) {
        if (aside_room(pf, link)) {
            aside_add(space, place, link);
            return;
        }
        /* What the image of the running checkpoint reaches is not known from here
         * on: it gets no map, unless it has it. */
        aside_apply(space);
        space->aside_lost = true;
    }
    bfti_space_set_image_locked(space, place, link);
}

void bfti_extent_link(struct bfti_pagefile *pf, uint64_t place,
                      uint64_t gathered)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    /* A damaged log may name what the file cannot hold; reading it tells. */
    if (!place_within(space, place))
        goto unlock;
    assert(bfti_space_live_locked(space, place));
    image_change(pf, place, is_aside(space, gathered), true);
    if (space->private_count > 0)
        space->private_count--;

unlock:
    bfti_space_unlock(pf);
}

/* Into the list of what waits for the same as PLACE does. */
static void held_push(struct bfti_pagefile *pf, uint64_t place, bool aside,
                      uint64_t lsn)
{
    struct bfti_space *space = &pf->space;
    const struct space_chunk *chunk = space_chunk_of(space, place_block(place));
    uint64_t epoch = space->epoch;

    if (lsn != 0)
        bfti_held_push_locked(pf, &space->logged, place, epoch, lsn);
    else if (chunk->young_epoch == epoch &&
             bit_get(chunk->young, place_block(place)))
        bfti_held_push_locked(pf, &space->quick, place, epoch, 0);
    else if (space->running && !aside)
        bfti_held_push_locked(pf, &space->replaced, place, epoch - 1, 0);
    else
        bfti_held_push_locked(pf, &space->waiting, place, epoch, 0);
}

bft_status bfti_extent_unlink(struct bfti_pagefile *pf, uint64_t place,
                              uint64_t gathered, uint64_t lsn)
{
    struct bfti_space *space = &pf->space;
    bft_status status = BFT_OK;

    bfti_space_lock(pf);
    if (!bfti_space_live_locked(space, place)) {
        status = bfti_fail(BFT_CORRUPT,
                           "%s: extent at byte %" PRIu64
                           " given back, but it is not in use",
                           pf->path, bfti_disk_grain(place) * BFTI_GRAIN);
        goto unlock;
    }
    bool aside = is_aside(space, gathered);
    held_push(pf, place, aside, lsn);
    image_change(pf, place, aside, false);

unlock:
    bfti_space_unlock(pf);
    return status;
}

void bfti_extent_discard(struct bfti_pagefile *pf, uint64_t place)
{
    bfti_space_lock(pf);
    assert(bfti_space_live_locked(&pf->space, place));
    bfti_space_give_place_locked(pf, place);
    bfti_space_unlock(pf);
}

void bfti_extent_set_apart(struct bfti_pagefile *pf, bool apart, size_t n)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    size_t *from = apart ? &space->private_count : &space->apart_count;
    size_t *to = apart ? &space->apart_count : &space->private_count;
    /* Redo may have linked an extent twice, and so counted one too few. */
    *from -= n < *from ? n : *from;
    *to += n;
    bfti_space_unlock(pf);
}

/* The log names no extents that share a block; but it may be damaged, or of a
 * format that is to come. */
static bool reserve_shared(struct bfti_pagefile *pf, uint64_t place)
{
    uint64_t block = place_block(place);

    bfti_space_set_used_locked(&pf->space, block, 1);
    if (bfti_share_take_locked(pf, block, place_mask(place)))
        return true;
    /* It was free: where others share it there is memory. */
    bfti_space_blocks_free_locked(&pf->space, block, 1);
    return false;
}

bft_status bfti_extent_reserve(struct bfti_pagefile *pf, uint64_t place)
{
    struct bfti_space *space = &pf->space;
    bft_status status = BFT_OK;

    bfti_space_lock(pf);
    if (!place_within(space, place) || bfti_space_live_locked(space, place))
        goto unlock;
    if (bfti_disk_grain(place) % BLOCK_GRAINS != 0 ||
        place_is_shared(space, place)) {
        if (!reserve_shared(pf, place))
            status =
                bfti_fail(BFT_NO_MEMORY,
                          "%s: no memory for the space of an extent", pf->path);
    } else {
        bfti_space_set_used_locked(space, place_block(place),
                                   place_blocks(place));
    }
    space->private_count += status == BFT_OK;

unlock:
    bfti_space_unlock(pf);
    return status;
}

bool bfti_space_is_used(struct bfti_pagefile *pf, uint64_t place)
{
    bfti_space_lock(pf);
    bool used = bfti_space_live_locked(&pf->space, place);
    bfti_space_unlock(pf);
    return used;
}

/* --- checkpoints ---------------------------------------------------------------- */

uint64_t bfti_space_cut(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(space->ready && !space->running && space->aside_count == 0);
    space->running = true;
    /* An image can reach all extents of a block or none: see YOUNG_EPOCH. */
    bfti_share_close_locked(space);
    uint64_t epoch = ++space->epoch;
    bfti_space_unlock(pf);
    return epoch;
}

void bfti_space_finish(struct bfti_pagefile *pf, uint64_t redo_lsn)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(space->running && space->epoch > space->on_disk[1].cut);
    space->on_disk[0] = space->on_disk[1];
    space->on_disk[1].cut = space->epoch;
    space->on_disk[1].redo_lsn = redo_lsn;
    aside_apply(space);
    space->running = space->aside_lost = false;
    bfti_share_close_locked(space);

    struct space_new_map *map = &space->map;
    if (map->node != NULL) {
        bfti_held_push_node_locked(pf, &space->replaced, map->node,
                                   space->epoch - 1, map->old, map->old_count);
        space->list_count = map->fresh_count - map->parts;
        memcpy(space->lists, map->fresh + map->parts,
               space->list_count * sizeof *space->lists);
    }
    memset(map, 0, sizeof *map);
    bfti_space_unlock(pf);
}

void bfti_space_twin(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(!space->running);
    space->on_disk[0] = space->on_disk[1];
    bfti_space_unlock(pf);
}

void bfti_space_abandon(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;
    struct space_new_map *map = &space->map;

    bfti_space_lock(pf);
    assert(space->running);
    if (map->node != NULL) {
        /* The superblock may have reached the disk before its write failed:
         * the new map's blocks wait like those of any image. */
        for (size_t i = 0; i < map->fresh_count; i++)
            bfti_space_set_image_locked(space, map->fresh[i], false);
        for (size_t i = 0; i < map->old_count; i++)
            bfti_space_set_image_locked(space, map->old[i], true);
        bfti_held_push_node_locked(pf, &space->waiting, map->node, space->epoch,
                                   map->fresh, map->fresh_count);
    }
    memset(map, 0, sizeof *map);
    aside_apply(space);
    space->running = space->aside_lost = false;
    bfti_share_close_locked(space);
    bfti_space_unlock(pf);
}

void bfti_space_hold(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(!space->holding && space->on_disk[1].cut > 0);
    space->hold = space->on_disk[1];
    space->holding = true;
    bfti_share_close_locked(space); /* what comes later is no part of a copy */
    for (size_t i = 0; i < space->chunk_count; i++)
        memcpy(space->chunk[i]->copied, space->chunk[i]->used,
               sizeof space->chunk[i]->copied);
    bfti_space_unlock(pf);
}

void bfti_space_unhold(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(space->holding);
    space->holding = false;
    space->kept_grains = 0;
    for (size_t i = 0; i < space->chunk_count; i++)
        memset(space->chunk[i]->copied, 0, sizeof space->chunk[i]->copied);
    bfti_space_unlock(pf);
}

/* --- the whole -------------------------------------------------------------------- */

void bfti_space_clear(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    for (size_t i = 0; i < space->chunk_count; i++) {
        bfti_free(pf->env, space->chunk[i]->audit);
        bfti_share_free(pf, space->chunk[i]);
        bfti_free(pf->space_env, space->chunk[i]);
    }
    bfti_free(pf->space_env, space->chunk);
    bfti_free(pf->space_env, space->aside);
    bfti_free(pf->space_env, space->map.node);
    bfti_held_free(pf, &space->quick);
    bfti_held_free(pf, &space->replaced);
    bfti_held_free(pf, &space->waiting);
    bfti_held_free(pf, &space->logged);

    /* All but the two mutexes and the word between them. */
    space->ready = space->running = space->aside_lost = false;
    space->epoch = 0;
    memset(space->on_disk, 0, sizeof space->on_disk);
    space->holding = false;
    space->kept_grains = 0;
    space->chunk = NULL;
    space->chunk_count = space->chunk_cap = space->cursor = 0;
    space->limit = space->used_blocks = space->held_blocks = 0;
    space->used_grains = space->held_grains = 0;
    memset(space->open, 0, sizeof space->open);
    space->small_seen = 0;
    space->list_count = 0;
    atomic_store(&space->ceiling, 0);
    space->cleaned_end = space->cleaned_live = 0;
    space->cleaned_times = 0;
    space->growth = GROWTH_MIN;
    space->hole_blocks = 0;
    space->aside = NULL;
    space->aside_count = space->aside_cap = 0;
    space->private_count = space->apart_count = 0;
    memset(&space->map, 0, sizeof space->map);
    space->auditing = false;
}

bft_status bfti_space_reset(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    bfti_space_clear(pf);
    uint64_t end = atomic_load(&pf->end);
    uint64_t limit = end > SUPERBLOCKS ? end : SUPERBLOCKS;
    bft_status status = bfti_space_cover_locked(pf, limit);
    if (status == BFT_OK) {
        bfti_space_set_used_locked(space, 0, SUPERBLOCKS);
        put_run(space->chunk[0]->image, 0, SUPERBLOCKS, true);
        space->limit = limit;
        space->ready = true;
    }
    bfti_space_unlock(pf);
    return status;
}

void bfti_space_glance(const struct bfti_pagefile *pf, uint64_t *live_bytes,
                       uint64_t *waiting_bytes)
{
    /* relaxed: see bfti_space_unlock(). */
    *live_bytes = BFTI_GRAIN * atomic_load_explicit(&pf->space.live_seen,
                                                    memory_order_relaxed);
    *waiting_bytes = BFTI_GRAIN * atomic_load_explicit(&pf->space.waiting_seen,
                                                       memory_order_relaxed);
}

void bfti_space_stats(struct bfti_pagefile *pf, struct bfti_space_stats *out)
{
    const struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    const uint64_t own = (uint64_t)SUPERBLOCKS * BLOCK_GRAINS;
    uint64_t live = space->used_grains - space->held_grains;
    out->live_bytes = (live > own ? live - own : 0) * BFTI_GRAIN;
    out->held_bytes = space->held_grains * BFTI_GRAIN;
    out->kept_bytes = space->kept_grains * BFTI_GRAIN;
    out->hole_bytes = space->hole_blocks * BFTI_BLOCK;
    out->private_extents = space->private_count + space->apart_count;
    bfti_space_unlock(pf);

    /* relaxed: statistics. */
    out->file_bytes =
        atomic_load_explicit(&pf->end, memory_order_relaxed) * BFTI_BLOCK;
    out->written_bytes =
        atomic_load_explicit(&pf->written_bytes, memory_order_relaxed);
    out->extents_written =
        atomic_load_explicit(&pf->extents_written, memory_order_relaxed);
    out->extents_read =
        atomic_load_explicit(&pf->extents_read, memory_order_relaxed);
    out->compressed_extents =
        atomic_load_explicit(&pf->compressed_extents, memory_order_relaxed);
}
