/*
 * The free-space map: the blocks that an image reaches, written with it and
 * read back at open.  And the audit, which compares what is in use with what
 * a walk over everything has found.
 *
 * The map lists itself, so its extents are allocated before it is made; the
 * limit of allocation tells how long it is, and stands still meanwhile.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

/* Payload of a map extent, format 1: this head, then one little-endian word
 * for each 64 blocks, lowest block in the lowest bit; 1: the image reaches
 * it.  The extent's page id is the part's number. */
struct map_part {
    le64 first_block; /* 0 */
    le64 blocks;      /* 8  that all parts together describe */
};
_Static_assert(sizeof(struct map_part) == 16, "format 1");

enum {
    PART_CHUNKS = (BFTI_EXTENT_GRAINS_MAX * BFTI_GRAIN - BFTI_EXTENT_HEADER -
                   (int)sizeof(struct map_part)) /
                  (CHUNK_WORDS * 8),
    PART_BLOCKS = PART_CHUNKS * CHUNK_BLOCKS,
    PART_BYTES_MAX = (int)sizeof(struct map_part) + PART_BLOCKS / 8,
};
_Static_assert(PART_BYTES_MAX <= BFTI_EXTENT_RAW_MAX, "a part fits an extent");
_Static_assert((int)BFTI_MAP_PLACES <= (int)HELD_PER_NODE,
               "a map fits one held node");

static size_t part_count(uint64_t blocks)
{
    return (size_t)((blocks + PART_BLOCKS - 1) / PART_BLOCKS);
}

/* Words of bits in part I of a map of BLOCKS. */
static size_t part_words(uint64_t blocks, size_t i)
{
    uint64_t rest = blocks - i * (uint64_t)PART_BLOCKS;
    return (size_t)((rest < PART_BLOCKS ? rest : PART_BLOCKS) + 63) / 64;
}

static size_t part_bytes(uint64_t blocks, size_t i)
{
    return sizeof(struct map_part) + part_words(blocks, i) * sizeof(le64);
}

/* A place for part I at BLOCK; its seal is not known yet. */
static uint64_t part_place(uint64_t blocks, size_t i, uint64_t block)
{
    size_t bytes = BFTI_EXTENT_HEADER + part_bytes(blocks, i);
    return bfti_disk_place(block * BLOCK_GRAINS,
                           (unsigned)((bytes + BFTI_GRAIN - 1) / BFTI_GRAIN),
                           0);
}

/* --- writing ---------------------------------------------------------------- */

/* A map on its way to the file. */
struct map_draft {
    uint64_t blocks; /* described */
    size_t count;    /* parts */
    uint64_t place[BFTI_MAP_PLACES];
    uint8_t *bytes; /* the parts' payloads, one behind the other */
};

static void draft_give(struct bfti_pagefile *pf, struct map_draft *draft)
{
    for (size_t i = 0; i < draft->count; i++)
        bfti_space_give_locked(pf, place_block(draft->place[i]),
                               place_blocks(draft->place[i]));
    draft->count = 0;
}

/* Allocate the extents of a map of all blocks below the limit.  Again when
 * that moved the limit: ends, since it then rose by more than a map takes. */
static bft_status draft_allocate(struct bfti_pagefile *pf,
                                 struct map_draft *draft, size_t places_max)
{
    const struct bfti_space *space = &pf->space;

    do {
        draft_give(pf, draft);
        draft->blocks = space->limit;
        size_t parts = part_count(draft->blocks);
        if (parts > places_max)
            return bfti_fail(BFT_TOO_BIG,
                             "%s: a map of %" PRIu64 " blocks has %zu parts",
                             pf->path, draft->blocks, parts);
        for (size_t i = 0; i < parts; i++) {
            uint64_t block;
            bft_status status = bfti_space_alloc_locked(
                pf, place_blocks(part_place(draft->blocks, i, 0)), &block);
            if (status != BFT_OK) {
                draft_give(pf, draft);
                return status;
            }
            draft->place[i] = part_place(draft->blocks, i, block);
            draft->count = i + 1;
        }
    } while (draft->blocks != space->limit);
    return BFT_OK;
}

/* Take the picture: the bits as of now, in the form they have on disk. */
static bft_status draft_fill(struct bfti_pagefile *pf, struct map_draft *draft)
{
    size_t bytes = 0;
    for (size_t i = 0; i < draft->count; i++)
        bytes += part_bytes(draft->blocks, i);
    draft->bytes = bfti_alloc(pf->env, bytes);
    if (draft->bytes == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "%s: no memory for a free-space map of %zu bytes",
                         pf->path, bytes);

    uint8_t *at = draft->bytes;
    for (size_t i = 0; i < draft->count; i++) {
        uint64_t first = i * (uint64_t)PART_BLOCKS;
        struct map_part head = {le64_of(first), le64_of(draft->blocks)};
        memcpy(at, &head, sizeof head);
        at += sizeof head;
        for (size_t word = 0; word < part_words(draft->blocks, i); word++) {
            uint64_t block = first + word * 64;
            const struct space_chunk *chunk = space_chunk_of(&pf->space, block);
            le64 bits = le64_of(chunk->image[block % CHUNK_BLOCKS / 64]);
            memcpy(at, &bits, sizeof bits);
            at += sizeof bits;
        }
    }
    return BFT_OK;
}

static void image_put(struct bfti_space *space, const uint64_t *places,
                      size_t count, bool value)
{
    for (size_t i = 0; i < count; i++)
        bfti_space_set_image_locked(space, places[i], value);
}

/* Decide where the map goes, take it over into the image in OLD's stead, and
 * take the picture.  All or nothing. */
static bft_status draft_make(struct bfti_pagefile *pf, struct map_draft *draft,
                             const uint64_t *old, size_t old_count,
                             size_t places_max)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    assert(space->running && space->map.node == NULL);
    bft_status status = BFT_OK;
    for (size_t i = 0; i < old_count && status == BFT_OK; i++)
        if (!bfti_space_live_locked(space, old[i]))
            status =
                bfti_fail(BFT_CORRUPT,
                          "%s: the old free-space map is not in use", pf->path);
    if (status == BFT_OK && space->aside_lost)
        status = bfti_fail(BFT_NO_MEMORY,
                           "%s: the space lost track when memory was short",
                           pf->path);
    if (status == BFT_OK)
        status = draft_allocate(pf, draft, places_max);
    if (status != BFT_OK)
        goto unlock;

    image_put(space, old, old_count, false);
    image_put(space, draft->place, draft->count, true);
    status = draft_fill(pf, draft);
    if (status != BFT_OK) {
        image_put(space, draft->place, draft->count, false);
        image_put(space, old, old_count, true);
        draft_give(pf, draft);
    }

unlock:
    bfti_space_unlock(pf);
    return status;
}

static bft_status draft_write(struct bfti_pagefile *pf, struct map_draft *draft,
                              uint64_t *places)
{
    const uint8_t *at = draft->bytes;
    bft_status status = BFT_OK;

    for (size_t i = 0; i < draft->count && status == BFT_OK; i++) {
        struct bfti_extent_info info = {.type = BFTI_EXTENT_MAP, .page_id = i};
        size_t bytes = part_bytes(draft->blocks, i);
        status = bfti_extent_write_at(pf, place_block(draft->place[i]), &info,
                                      at, bytes, &places[i]);
        at += bytes;
    }
    return status;
}

bft_status bfti_space_write(struct bfti_pagefile *pf, const uint64_t *old,
                            size_t old_count, uint64_t *places,
                            size_t places_max, size_t *count)
{
    struct bfti_space *space = &pf->space;
    struct map_draft draft = {0};

    *count = 0;
    memset(places, 0, places_max * sizeof *places);
    if (places_max > BFTI_MAP_PLACES)
        places_max = BFTI_MAP_PLACES;
    if (old_count > BFTI_MAP_PLACES)
        return bfti_fail(BFT_INVALID, "%s: an old map of %zu extents", pf->path,
                         old_count);
    /* For whichever map loses; there is no failing once that is known. */
    struct held_node *node = bfti_alloc(pf->space_env, sizeof *node);
    if (node == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to hold a map",
                         pf->path);

    bft_status status = draft_make(pf, &draft, old, old_count, places_max);
    if (status != BFT_OK)
        goto free_node;
    status = draft_write(pf, &draft, places);
    bfti_free(pf->env, draft.bytes);

    bfti_space_lock(pf);
    if (status == BFT_OK) {
        *count = draft.count;
        space->map.node = node;
        if (old_count > 0)
            memcpy(space->map.old, old, old_count * sizeof *old);
        memcpy(space->map.fresh, places, draft.count * sizeof *places);
        space->map.old_count = old_count;
        space->map.fresh_count = draft.count;
        space->private_count -= draft.count < space->private_count
                                    ? draft.count
                                    : space->private_count;
    } else {
        image_put(space, draft.place, draft.count, false);
        image_put(space, old, old_count, true);
        draft_give(pf, &draft);
    }
    bfti_space_unlock(pf);
    if (status == BFT_OK)
        return BFT_OK;
    memset(places, 0, places_max * sizeof *places);

free_node:
    bfti_free(pf->space_env, node);
    return status;
}

/* --- loading ------------------------------------------------------------------- */

/* Say which part of the map it was. */
static bft_status of_part(bft_status status, size_t part)
{
    return status == BFT_CORRUPT
               ? bfti_fail_in(status, "free-space map, part %zu", part)
               : status;
}

static bft_status map_corrupt(const struct bfti_pagefile *pf, uint64_t place,
                              size_t part, const char *what)
{
    return of_part(bfti_extent_wrong(pf, place, what), part);
}

/* Set used and image for each block whose bit is set in part I.  Under the
 * lock. */
static bft_status part_apply(struct bfti_pagefile *pf, uint64_t place, size_t i,
                             const uint8_t *words, size_t count)
{
    struct bfti_space *space = &pf->space;
    uint64_t first = i * (uint64_t)PART_BLOCKS;

    for (size_t w = 0; w < count; w++) {
        le64 stored;
        memcpy(&stored, words + w * sizeof stored, sizeof stored);
        uint64_t bits = le64_get(stored);
        uint64_t block = first + w * 64;
        if (bits == 0)
            continue;
        uint64_t last = block + 63 - (unsigned)__builtin_clzll(bits);
        if (last >= space->limit)
            return map_corrupt(pf, place, i,
                               "the file ends before a block in use");
        struct space_chunk *chunk = space_chunk_of(space, block);
        chunk->used[block % CHUNK_BLOCKS / 64] = bits;
        chunk->image[block % CHUNK_BLOCKS / 64] = bits;
        space->used_blocks += (unsigned)__builtin_popcountll(bits);
    }
    return BFT_OK;
}

bft_status bfti_map_part_read(struct bfti_pagefile *pf, uint64_t place,
                              size_t i, size_t count, uint64_t *blocks,
                              struct bfti_scratch *scratch, uint64_t *first,
                              const uint8_t **words, size_t *word_count)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    struct map_part head;

    *words = NULL;
    *word_count = 0;
    *first = i * (uint64_t)PART_BLOCKS;
    bft_status status =
        bfti_extent_read(pf, place, scratch, &info, &raw, &raw_len);
    if (status != BFT_OK)
        return of_part(status, i);
    if (info.type != BFTI_EXTENT_MAP || info.page_id != i ||
        raw_len < sizeof head)
        return map_corrupt(pf, place, i, "another extent lies there");
    memcpy(&head, raw, sizeof head);
    if (i == 0)
        *blocks = le64_get(head.blocks);
    if (*blocks > BLOCKS_MAX || part_count(*blocks) != count ||
        le64_get(head.blocks) != *blocks ||
        le64_get(head.first_block) != i * (uint64_t)PART_BLOCKS ||
        raw_len != part_bytes(*blocks, i))
        return map_corrupt(pf, place, i, "it does not fit the other parts");
    *words = (const uint8_t *)raw + sizeof head;
    *word_count = part_words(*blocks, i);
    return BFT_OK;
}

/* Read part I of COUNT; *BLOCKS is what part 0 said of all. */
static bft_status part_load(struct bfti_pagefile *pf, uint64_t place, size_t i,
                            size_t count, uint64_t *blocks,
                            struct bfti_scratch *scratch)
{
    uint64_t first;
    const uint8_t *words;
    size_t word_count;

    bft_status status = bfti_map_part_read(pf, place, i, count, blocks, scratch,
                                           &first, &words, &word_count);
    if (status != BFT_OK)
        return status;
    bfti_space_lock(pf);
    status = part_apply(pf, place, i, words, word_count);
    bfti_space_unlock(pf);
    return status;
}

/* The map has to list what it is itself made of. */
static bft_status map_check(struct bfti_pagefile *pf, const uint64_t *places,
                            size_t count)
{
    const struct bfti_space *space = &pf->space;

    if (!bit_get(space->chunk[0]->used, 0) ||
        !bit_get(space->chunk[0]->used, 1))
        return map_corrupt(pf, places[0], 0, "the superblocks are not in it");
    for (size_t i = 0; i < count; i++)
        if (!bfti_space_live_locked(space, places[i]))
            return map_corrupt(pf, places[i], i, "it does not contain itself");
    return BFT_OK;
}

bft_status bfti_space_load(struct bfti_pagefile *pf, const uint64_t *places,
                           size_t count, struct bfti_scratch *scratch)
{
    uint64_t blocks = 0;

    bft_status status = bfti_space_reset(pf);
    if (status != BFT_OK)
        return status;
    bfti_space_lock(pf);
    pf->space.ready = false;
    /* The superblocks have to be in the map. */
    pf->space.used_blocks = 0;
    pf->space.chunk[0]->used[0] = pf->space.chunk[0]->image[0] = 0;
    bfti_space_unlock(pf);

    if (count == 0 || count > BFTI_MAP_PLACES)
        status = bfti_fail(BFT_CORRUPT, "%s: a free-space map of %zu parts",
                           pf->path, count);
    for (size_t i = 0; i < count && status == BFT_OK; i++)
        status = part_load(pf, places[i], i, count, &blocks, scratch);

    bfti_space_lock(pf);
    if (status == BFT_OK)
        status = map_check(pf, places, count);
    if (status == BFT_OK)
        pf->space.ready = true;
    else
        bfti_space_clear(pf);
    bfti_space_unlock(pf);
    return status;
}

/* --- audit --------------------------------------------------------------------- */

bft_status bfti_space_audit_begin(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;
    const size_t bytes = CHUNK_WORDS * sizeof(uint64_t);
    bft_status status = BFT_OK;

    bfti_space_lock(pf);
    if (!space->ready || space->auditing) {
        status = bfti_fail(BFT_INVALID, "%s: its space cannot be audited now",
                           pf->path);
        goto unlock;
    }
    for (size_t i = 0; i < space->chunk_count; i++) {
        struct space_chunk *chunk = space->chunk[i];
        chunk->audit = bfti_alloc(pf->env, bytes);
        if (chunk->audit == NULL) {
            status = bfti_fail(BFT_NO_MEMORY, "%s: no memory for an audit",
                               pf->path);
            goto free_marks;
        }
        memset(chunk->audit, 0, bytes);
    }
    for (uint64_t block = 0; block < SUPERBLOCKS; block++)
        bit_put(space->chunk[0]->audit, block, true);
    space->auditing = true;
    goto unlock;

free_marks:
    for (size_t i = 0; i < space->chunk_count; i++) {
        bfti_free(pf->env, space->chunk[i]->audit);
        space->chunk[i]->audit = NULL;
    }
unlock:
    bfti_space_unlock(pf);
    return status;
}

bool bfti_space_audit_mark(struct bfti_pagefile *pf, uint64_t place)
{
    struct bfti_space *space = &pf->space;
    bool alone = true;

    bfti_space_lock(pf);
    assert(space->auditing);
    uint64_t block = place_block(place);
    uint64_t end = block + place_blocks(place);
    for (; block < end && block < space->limit; block++) {
        /* NULL: a part of the file that did not exist at the start. */
        uint64_t *audit = space_chunk_of(space, block)->audit;
        if (audit == NULL)
            continue;
        alone = alone && !bit_get(audit, block);
        bit_put(audit, block, true);
    }
    bfti_space_unlock(pf);
    return alone;
}

uint64_t bfti_space_audit_end(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;
    uint64_t leaked = 0;

    bfti_space_lock(pf);
    assert(space->auditing);
    for (size_t i = 0; i < space->chunk_count; i++) {
        struct space_chunk *chunk = space->chunk[i];
        if (chunk->audit == NULL)
            continue;
        for (size_t word = 0; word < CHUNK_WORDS; word++)
            leaked += (unsigned)__builtin_popcountll(
                chunk->used[word] & ~chunk->audit[word] & ~chunk->held[word]);
        bfti_free(pf->env, chunk->audit);
        chunk->audit = NULL;
    }
    space->auditing = false;
    bfti_space_unlock(pf);
    return leaked;
}
