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
 * it.  Then the places of the part's lists of shared blocks, if it has some
 * (space_lists.c).  The extent's page id is the part's number. */
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
_Static_assert(PART_BYTES_MAX + MAP_LISTS_PART * (int)sizeof(le64) <=
                   BFTI_EXTENT_RAW_MAX,
               "a part fits an extent");
_Static_assert((int)BFTI_MAP_PLACES + (int)MAP_LISTS_MAX <= (int)HELD_PER_NODE,
               "a map fits one held node");
/* A record of a list is of a chunk and has 516 bytes and one for each block. */
_Static_assert((BFTI_EXTENT_RAW_MAX / (516 + CHUNK_BLOCKS)) * MAP_LISTS_PART >=
                   PART_CHUNKS,
               "a part has room for its lists");

static size_t part_count(uint64_t blocks)
{
    return (size_t)((blocks + PART_BLOCKS - 1) / PART_BLOCKS);
}

uint64_t bfti_map_blocks_max(void)
{
    return (uint64_t)BFTI_MAP_PLACES * PART_BLOCKS;
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

/* Chunks behind those of part I. */
static size_t part_end(uint64_t blocks, size_t i)
{
    size_t chunks = (size_t)((blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS);
    size_t end = (i + 1) * PART_CHUNKS;
    return end < chunks ? end : chunks;
}

/* --- writing -------------------------------------------------------------- */

/* A map on its way to the file. */
struct map_draft {
    uint64_t blocks; /* described */
    size_t count;    /* parts */
    size_t list_count;
    size_t lists[BFTI_MAP_PLACES];                      /* of each part */
    size_t list_bytes[BFTI_MAP_PLACES][MAP_LISTS_PART]; /* ... and of each */
    /* The parts, and behind them the lists of one part after the other; without
     * their seals until they are written. */
    uint64_t place[BFTI_MAP_PLACES + MAP_LISTS_MAX];
    size_t placed;
    uint8_t *bytes; /* the payloads: each part's, then those of its lists */
};

static void draft_give(struct bfti_pagefile *pf, struct map_draft *draft)
{
    for (size_t i = 0; i < draft->placed; i++)
        bfti_space_give_locked(pf, place_block(draft->place[i]),
                               place_blocks(draft->place[i]));
    draft->placed = 0;
}

/* Bytes of part I with the places of its lists. */
static size_t draft_part_bytes(const struct map_draft *draft, size_t i)
{
    return part_bytes(draft->blocks, i) + draft->lists[i] * sizeof(le64);
}

/* How large is a map of what there is? */
static bft_status draft_measure(struct bfti_pagefile *pf,
                                struct map_draft *draft, size_t places_max)
{
    const struct bfti_space *space = &pf->space;

    draft->blocks = space->limit;
    draft->count = part_count(draft->blocks);
    if (draft->count > places_max)
        return bfti_fail(BFT_TOO_BIG,
                         "%s: a map of %" PRIu64 " blocks has %zu parts",
                         pf->path, draft->blocks, draft->count);
    draft->list_count = 0;
    for (size_t i = 0; i < draft->count; i++) {
        draft->lists[i] = bfti_share_measure(space, i * PART_CHUNKS,
                                             part_end(draft->blocks, i),
                                             draft->list_bytes[i]);
        draft->list_count += draft->lists[i];
    }
    return BFT_OK;
}

static bft_status draft_place(struct bfti_pagefile *pf, struct map_draft *draft,
                              size_t bytes)
{
    unsigned grains = grains_of(BFTI_EXTENT_HEADER + bytes);
    uint64_t block;

    bft_status status = bfti_space_alloc_locked(
        pf, (grains + BLOCK_GRAINS - 1) / BLOCK_GRAINS, &block);
    if (status == BFT_OK)
        draft->place[draft->placed++] =
            bfti_disk_place(block * BLOCK_GRAINS, grains, 0);
    return status;
}

/* Those of part I. */
static bft_status draft_place_lists(struct bfti_pagefile *pf,
                                    struct map_draft *draft, size_t i)
{
    for (size_t j = 0; j < draft->lists[i]; j++) {
        bft_status status = draft_place(pf, draft, draft->list_bytes[i][j]);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* Has what it was measured by changed since? */
static bool draft_is_old(struct bfti_pagefile *pf,
                         const struct map_draft *draft)
{
    size_t bytes[MAP_LISTS_PART];

    if (draft->blocks != pf->space.limit)
        return true;
    for (size_t i = 0; i < draft->count; i++)
        if (bfti_share_measure(&pf->space, i * PART_CHUNKS,
                               part_end(draft->blocks, i),
                               bytes) != draft->lists[i] ||
            memcmp(bytes, draft->list_bytes[i], sizeof bytes) != 0)
            return true;
    return false;
}

/* Allocate the extents of a map of all blocks below the limit.  Again when that
 * moved the limit, which then rose by more than a map takes, or waited for a
 * file to be cut, and others shared blocks meanwhile: that does not go on for
 * ever. */
static bft_status draft_allocate(struct bfti_pagefile *pf,
                                 struct map_draft *draft, size_t places_max)
{
    bft_status status;

    do {
        draft_give(pf, draft);
        status = draft_measure(pf, draft, places_max);
        for (size_t i = 0; i < draft->count && status == BFT_OK; i++)
            status = draft_place(pf, draft, draft_part_bytes(draft, i));
        for (size_t i = 0; i < draft->count && status == BFT_OK; i++)
            status = draft_place_lists(pf, draft, i);
    } while (status == BFT_OK && draft_is_old(pf, draft));
    if (status != BFT_OK)
        draft_give(pf, draft);
    return status;
}

static size_t lists_bytes(const struct map_draft *draft, size_t i)
{
    size_t bytes = 0;
    for (size_t j = 0; j < draft->lists[i]; j++)
        bytes += draft->list_bytes[i][j];
    return bytes;
}

/* Take the picture: the bits as of now, in the form they have on disk. */
static bft_status draft_fill(struct bfti_pagefile *pf, struct map_draft *draft)
{
    size_t bytes = 0;
    for (size_t i = 0; i < draft->count; i++)
        bytes += draft_part_bytes(draft, i) + lists_bytes(draft, i);
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
        at += draft->lists[i] * sizeof(le64); /* once they are written */
        bfti_share_fill(&pf->space, i * PART_CHUNKS, part_end(draft->blocks, i),
                        at);
        at += lists_bytes(draft, i);
    }
    return BFT_OK;
}

static void image_put(struct bfti_space *space, const uint64_t *places,
                      size_t count, bool value)
{
    for (size_t i = 0; i < count; i++)
        bfti_space_set_image_locked(space, places[i], value);
}

/* The image is again as it was before draft_make(). */
static void draft_undo(struct bfti_pagefile *pf, struct map_draft *draft,
                       const uint64_t *old, size_t old_count)
{
    struct bfti_space *space = &pf->space;

    image_put(space, draft->place, draft->placed, false);
    image_put(space, old, old_count, true);
    image_put(space, space->lists, space->list_count, true);
    draft_give(pf, draft);
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
    if (status == BFT_OK)
        status = draft_allocate(pf, draft, places_max);
    /* Only now: that may have let go of the lock. */
    if (status == BFT_OK && space->aside_lost) {
        draft_give(pf, draft);
        status = bfti_fail(BFT_NO_MEMORY,
                           "%s: the space lost track when memory was short",
                           pf->path);
    }
    if (status != BFT_OK)
        goto unlock;

    image_put(space, old, old_count, false);
    image_put(space, space->lists, space->list_count, false);
    image_put(space, draft->place, draft->placed, true);
    status = draft_fill(pf, draft);
    if (status != BFT_OK)
        draft_undo(pf, draft, old, old_count);

unlock:
    bfti_space_unlock(pf);
    return status;
}

/* Write the LEN bytes AT as the extent with number I. */
static bft_status draft_put(struct bfti_pagefile *pf, struct map_draft *draft,
                            size_t i, uint64_t page_id, const void *at,
                            size_t len)
{
    struct bfti_extent_info info = {.type = BFTI_EXTENT_MAP,
                                    .page_id = page_id};
    uint64_t place;

    bft_status status = bfti_extent_write_at(pf, place_block(draft->place[i]),
                                             &info, at, len, &place);
    if (status == BFT_OK)
        draft->place[i] = place;
    return status;
}

/* The lists of a part first: it has their places, and these their seals. */
static bft_status draft_write(struct bfti_pagefile *pf, struct map_draft *draft)
{
    uint8_t *part = draft->bytes;
    size_t list = draft->count;
    bft_status status = BFT_OK;

    for (size_t i = 0; i < draft->count && status == BFT_OK; i++) {
        uint8_t *name = part + part_bytes(draft->blocks, i);
        uint8_t *at = part + draft_part_bytes(draft, i);
        for (size_t j = 0; j < draft->lists[i] && status == BFT_OK; j++) {
            status = draft_put(pf, draft, list, i + (j + 1) * SHARE_LIST_ID, at,
                               draft->list_bytes[i][j]);
            le64 place = le64_of(draft->place[list++]);
            memcpy(name + j * sizeof place, &place, sizeof place);
            at += draft->list_bytes[i][j];
        }
        if (status == BFT_OK)
            status =
                draft_put(pf, draft, i, i, part, draft_part_bytes(draft, i));
        part = at;
    }
    return status;
}

/* What DRAFT becomes if the superblock is written that names it. */
static void draft_keep(struct bfti_space *space, const struct map_draft *draft,
                       const uint64_t *old, size_t old_count)
{
    struct space_new_map *map = &space->map;

    if (old_count > 0)
        memcpy(map->old, old, old_count * sizeof *old);
    memcpy(map->old + old_count, space->lists,
           space->list_count * sizeof *space->lists);
    map->old_count = old_count + space->list_count;
    memcpy(map->fresh, draft->place, draft->placed * sizeof *draft->place);
    map->fresh_count = draft->placed;
    map->parts = draft->count;
    space->private_count -= draft->placed < space->private_count
                                ? draft->placed
                                : space->private_count;
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
    status = draft_write(pf, &draft);
    bfti_free(pf->env, draft.bytes);

    bfti_space_lock(pf);
    if (status == BFT_OK) {
        *count = draft.count;
        memcpy(places, draft.place, draft.count * sizeof *places);
        space->map.node = node;
        draft_keep(space, &draft, old, old_count);
    } else {
        draft_undo(pf, &draft, old, old_count);
    }
    bfti_space_unlock(pf);
    if (status == BFT_OK)
        return BFT_OK;

free_node:
    bfti_free(pf->space_env, node);
    return status;
}

/* --- loading -------------------------------------------------------------- */

bft_status bfti_map_in(bft_status status, size_t part)
{
    return status == BFT_CORRUPT
               ? bfti_fail_in(status, "free-space map, part %zu", part)
               : status;
}

bft_status bfti_map_corrupt(const struct bfti_pagefile *pf, uint64_t place,
                            size_t part, const char *what)
{
    return bfti_map_in(bfti_extent_wrong(pf, place, what), part);
}

bool bfti_space_shares(struct bfti_pagefile *pf)
{
    const struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    bool shares = space->map.node != NULL
                      ? space->map.fresh_count > space->map.parts
                      : space->list_count > 0;
    bfti_space_unlock(pf);
    return shares;
}

size_t bfti_space_lists(struct bfti_pagefile *pf, size_t from, uint64_t *places,
                        size_t n)
{
    const struct bfti_space *space = &pf->space;
    size_t count = 0;

    bfti_space_lock(pf);
    while (count < n && from + count < space->list_count) {
        places[count] = space->lists[from + count];
        count++;
    }
    bfti_space_unlock(pf);
    return count;
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
            return bfti_map_corrupt(pf, place, i,
                                    "the file ends before a block in use");
        struct space_chunk *chunk = space_chunk_of(space, block);
        chunk->used[block % CHUNK_BLOCKS / 64] = bits;
        chunk->image[block % CHUNK_BLOCKS / 64] = bits;
        space->used_blocks += (unsigned)__builtin_popcountll(bits);
        space->used_grains +=
            (unsigned)__builtin_popcountll(bits) * (uint64_t)BLOCK_GRAINS;
    }
    return BFT_OK;
}

/* The blocks of RECORD are shared.  Under the lock. */
static bft_status record_apply(struct bfti_pagefile *pf,
                               const struct share_reader *lists,
                               const struct share_record *record)
{
    struct bfti_space *space = &pf->space;
    const uint8_t *mask = record->masks;

    /* The map may tell of more than the file has. */
    if (record->chunk >= space->chunk_count)
        return bfti_map_corrupt(pf, lists->list[lists->next - 1], lists->part,
                                "the file ends before a shared block");
    struct space_chunk *chunk = space->chunk[record->chunk];
    for (size_t w = 0; w < CHUNK_WORDS; w++)
        if ((record->words[w] & ~chunk->used[w]) != 0 ||
            (record->chunk + w == 0 &&
             record->words[0] % (1 << SUPERBLOCKS) != 0))
            return bfti_map_corrupt(pf, lists->list[lists->next - 1],
                                    lists->part,
                                    "a shared block is no extents'");
    for (unsigned at = 0; at < CHUNK_BLOCKS; at++) {
        uint64_t block = record->chunk * CHUNK_BLOCKS + at;
        if (!bit_get(record->words, block))
            continue;
        if (!bfti_share_take_locked(pf, block, *mask))
            return bfti_fail(BFT_NO_MEMORY,
                             "%s: no memory for the space of %zu MiB", pf->path,
                             (size_t)(record->chunk + 1) * 16);
        chunk->shares->image[at] = *mask++;
    }
    return BFT_OK;
}

static bft_status lists_apply(struct bfti_pagefile *pf,
                              struct share_reader *lists)
{
    struct share_record record;
    bft_status status;

    /* There is room: a part has no more, nor a superblock more parts. */
    for (size_t i = 0; i < lists->count; i++)
        pf->space.lists[pf->space.list_count++] = lists->list[i];
    do {
        status = bfti_share_read(lists, &record);
        bfti_space_lock(pf);
        if (status == BFT_OK && record.chunk != UINT64_MAX)
            status = record_apply(pf, lists, &record);
        bfti_space_unlock(pf);
    } while (status == BFT_OK && record.chunk != UINT64_MAX);
    return status;
}

/* LISTS are the COUNT whose places stand AT, of part I. */
static void lists_find(struct bfti_pagefile *pf, size_t i, uint64_t blocks,
                       const uint8_t *at, size_t count,
                       struct share_reader *lists)
{
    struct bfti_scratch scratch = lists->scratch;

    *lists = (struct share_reader){.pf = pf,
                                   .part = i,
                                   .count = count,
                                   .chunk_end = part_end(blocks, i),
                                   .at_chunk = i * (uint64_t)PART_CHUNKS,
                                   .scratch = scratch};
    for (size_t k = 0; k < count; k++) {
        le64 place;
        memcpy(&place, at + k * sizeof place, sizeof place);
        lists->list[k] = le64_get(place);
    }
}

bft_status bfti_map_part_read(struct bfti_pagefile *pf, uint64_t place,
                              size_t i, size_t count, uint64_t *blocks,
                              struct bfti_scratch *scratch, uint64_t *first,
                              const uint8_t **words, size_t *word_count,
                              struct share_reader *lists)
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
        return bfti_map_in(status, i);
    if (info.type != BFTI_EXTENT_MAP || info.page_id != i ||
        raw_len < sizeof head)
        return bfti_map_corrupt(pf, place, i, "another extent lies there");
    memcpy(&head, raw, sizeof head);
    if (i == 0)
        *blocks = le64_get(head.blocks);
    if (*blocks > BLOCKS_MAX || part_count(*blocks) != count ||
        le64_get(head.blocks) != *blocks ||
        le64_get(head.first_block) != i * (uint64_t)PART_BLOCKS ||
        raw_len < part_bytes(*blocks, i))
        return bfti_map_corrupt(pf, place, i,
                                "it does not fit the other parts");
    size_t rest = raw_len - part_bytes(*blocks, i);
    if (rest > sizeof lists->list || rest % sizeof(le64) != 0)
        return bfti_map_corrupt(pf, place, i, "it has too many lists");
    *words = (const uint8_t *)raw + sizeof head;
    *word_count = part_words(*blocks, i);
    lists_find(pf, i, *blocks, *words + *word_count * sizeof(le64),
               rest / sizeof(le64), lists);
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
    struct share_reader lists = {0};

    bft_status status = bfti_map_part_read(pf, place, i, count, blocks, scratch,
                                           &first, &words, &word_count, &lists);
    if (status != BFT_OK)
        return status;
    bfti_space_lock(pf);
    status = part_apply(pf, place, i, words, word_count);
    bfti_space_unlock(pf);
    if (status == BFT_OK)
        status = lists_apply(pf, &lists);
    bfti_scratch_free(pf->env, &lists.scratch);
    return status;
}

/* The map has to list what it is itself made of. */
static bft_status map_check(struct bfti_pagefile *pf, const uint64_t *places,
                            size_t count)
{
    const struct bfti_space *space = &pf->space;

    if (!bit_get(space->chunk[0]->used, 0) ||
        !bit_get(space->chunk[0]->used, 1))
        return bfti_map_corrupt(pf, places[0], 0,
                                "the superblocks are not in it");
    for (size_t i = 0; i < count; i++)
        if (!bfti_space_live_locked(space, places[i]))
            return bfti_map_corrupt(pf, places[i], i,
                                    "it does not contain itself");
    for (size_t i = 0; i < space->list_count; i++)
        if (!bfti_space_live_locked(space, space->lists[i]))
            return bfti_map_corrupt(pf, space->lists[i], 0,
                                    "it does not contain its lists");
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
    pf->space.used_blocks = pf->space.used_grains = 0;
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

/* --- audit ---------------------------------------------------------------- */

static void marks_free(struct bfti_pagefile *pf, struct space_chunk *chunk)
{
    bfti_free(pf->env, chunk->audit);
    chunk->audit = NULL;
    if (chunk->shares == NULL)
        return;
    bfti_free(pf->env, chunk->shares->audit);
    chunk->shares->audit = NULL;
}

static bool marks_make(struct bfti_pagefile *pf, struct space_chunk *chunk)
{
    chunk->audit = bfti_alloc(pf->env, CHUNK_WORDS * sizeof *chunk->audit);
    if (chunk->audit == NULL)
        return false;
    memset(chunk->audit, 0, CHUNK_WORDS * sizeof *chunk->audit);
    if (chunk->shares == NULL)
        return true;
    chunk->shares->audit = bfti_alloc(pf->env, CHUNK_BLOCKS);
    if (chunk->shares->audit == NULL)
        return false;
    memset(chunk->shares->audit, 0, CHUNK_BLOCKS);
    return true;
}

bft_status bfti_space_audit_begin(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;
    bft_status status = BFT_OK;

    bfti_space_lock(pf);
    if (!space->ready || space->auditing) {
        status = bfti_fail(BFT_INVALID, "%s: its space cannot be audited now",
                           pf->path);
        goto unlock;
    }
    for (size_t i = 0; i < space->chunk_count; i++) {
        struct space_chunk *chunk = space->chunk[i];
        if (!marks_make(pf, chunk)) {
            status = bfti_fail(BFT_NO_MEMORY, "%s: no memory for an audit",
                               pf->path);
            goto free_marks;
        }
    }
    for (uint64_t block = 0; block < SUPERBLOCKS; block++)
        bit_put(space->chunk[0]->audit, block, true);
    space->auditing = true;
    goto unlock;

free_marks:
    for (size_t i = 0; i < space->chunk_count; i++)
        marks_free(pf, space->chunk[i]);
unlock:
    bfti_space_unlock(pf);
    return status;
}

/* Mark the grains of PLACE; false: one was marked before.  That nothing is
 * known of what was shared since the start is no fault of theirs. */
static bool mark_shared(struct bfti_space *space, uint64_t place)
{
    uint64_t block = place_block(place);
    struct space_chunk *chunk = space_chunk_of(space, block);
    uint8_t *marks = chunk->shares->audit, mask = place_mask(place);

    if (chunk->audit != NULL)
        bit_put(chunk->audit, block, true);
    if (marks == NULL)
        return true;
    bool alone = (marks[block % CHUNK_BLOCKS] & mask) == 0;
    marks[block % CHUNK_BLOCKS] |= mask;
    return alone;
}

bool bfti_space_audit_mark(struct bfti_pagefile *pf, uint64_t place)
{
    struct bfti_space *space = &pf->space;
    bool alone = true;

    bfti_space_lock(pf);
    assert(space->auditing);
    if (place_block(place) < space->limit && place_is_shared(space, place)) {
        alone = mark_shared(space, place);
        goto unlock;
    }
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

unlock:
    bfti_space_unlock(pf);
    return alone;
}

/* Blocks of CHUNK that are marked, but not all that lives in them is. */
static uint64_t leaked_in_part(const struct space_chunk *chunk)
{
    const struct space_shares *shares = chunk->shares;
    uint64_t leaked = 0;

    for (unsigned at = 0;
         shares != NULL && shares->audit != NULL && at < CHUNK_BLOCKS; at++)
        leaked +=
            bit_get(chunk->audit, at) &&
            (shares->used[at] & ~shares->held[at] & ~shares->audit[at]) != 0;
    return leaked;
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
        leaked += leaked_in_part(chunk);
        marks_free(pf, chunk);
    }
    space->auditing = false;
    bfti_space_unlock(pf);
    return leaked;
}
