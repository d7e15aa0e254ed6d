/*
 * Copies of an image: its extents, at the same offsets of another page file.
 *
 * The image's free-space map tells the blocks, and since each extent tells its
 * own length, runs of them are read in the order of the file, whatever they
 * hold.  Only the blocks of the image are read: others may be written now.  Of
 * a block that extents share the copy has those that the image reaches, and
 * zeros.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

enum {
    PIECE_BLOCKS = 256, /* 1 MiB */
    PIECE_BYTES = PIECE_BLOCKS * BFTI_BLOCK,
    TOLD_BYTES = PIECE_BYTES, /* between two calls of progress */
    EXTENT_BLOCKS_MAX = BFTI_EXTENT_GRAINS_MAX / BLOCK_GRAINS,
};
_Static_assert((int)PIECE_BLOCKS >= (int)EXTENT_BLOCKS_MAX,
               "a piece that starts with an extent has all of it");

struct copy {
    struct bfti_pagefile *from, *to;
    struct bfti_image_copying how;
    struct bfti_image_progress now;
    uint64_t told; /* copied when progress was told of last */
    uint8_t *piece;
    struct share_reader lists; /* of the part of the map */
    uint8_t *grains; /* of each block of the chunk; 0: it is not shared */
};

/* Write of BLOCKS blocks what is wanted. */
static bft_status blocks_write(struct copy *c, uint64_t block,
                               const uint8_t *bytes, unsigned blocks)
{
    struct bfti_file *file = c->to->file;
    bft_status status = BFT_OK;

    while (blocks > 0 && status == BFT_OK) {
        unsigned n = blocks;
        bool wanted = true;
        if (c->how.choose != NULL)
            status =
                c->how.choose(c->how.ctx, block, bytes, blocks, &n, &wanted);
        if (status == BFT_OK && wanted)
            status = file->ops->write(file, block * BFTI_BLOCK, bytes,
                                      (size_t)n * BFTI_BLOCK);
        block += n;
        bytes += (size_t)n * BFTI_BLOCK;
        blocks -= n;
    }
    return status;
}

/* Write the first BLOCKS blocks of the piece, which was read at BLOCK. */
static bft_status piece_write(struct copy *c, uint64_t block, unsigned blocks)
{
    bft_status status = blocks_write(c, block, c->piece, blocks);

    if (status != BFT_OK)
        return status;
    c->now.copied_bytes += (uint64_t)blocks * BFTI_BLOCK;
    if (c->now.copied_bytes - c->told < TOLD_BYTES)
        return BFT_OK;
    c->told = c->now.copied_bytes;
    return c->how.progress(c->how.ctx, &c->now);
}

/* The extents of the image in the shared BLOCK, which lie AT and have GRAINS,
 * are whole; what is not theirs becomes zeros. */
static bft_status shared_check(const struct copy *c, uint64_t block,
                               uint8_t *at, unsigned grains)
{
    for (unsigned i = 0; i < BLOCK_GRAINS;) {
        uint8_t *grain = at + (size_t)i * BFTI_GRAIN;
        size_t len = (size_t)(BLOCK_GRAINS - i) * BFTI_GRAIN, stored;
        if ((grains >> i & 1) == 0) {
            memset(grain, 0, BFTI_GRAIN);
            i++;
            continue;
        }
        bft_status status = bfti_extent_judge(c->from, block * BLOCK_GRAINS + i,
                                              grain, len, &stored);
        if (status != BFT_OK)
            return status;
        unsigned n = grains_of(stored);
        unsigned own = stored > len ? 0 : ((1u << n) - 1) << i;
        if (own == 0 || (grains & own) != own)
            return bfti_fail(BFT_CORRUPT,
                             "%s: extent at byte %" PRIu64
                             ", %u grains: the free-space map has fewer",
                             bfti_extent_path(c->from, block * BLOCK_GRAINS, 1),
                             (block * BLOCK_GRAINS + i) * BFTI_GRAIN, n);
        memset(grain + stored, 0, (size_t)n * BFTI_GRAIN - stored);
        i += n;
    }
    return BFT_OK;
}

/* Is one of the N blocks from BLOCK on, but for the first, shared? */
static bool meets_shared(const struct copy *c, uint64_t block, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        if (c->grains[(block + i) % CHUNK_BLOCKS] != 0)
            return true;
    return false;
}

/* How many of the piece's BLOCKS are whole extents, each of them checked, with
 * zeros up to the end of its last block.  REST: more blocks of the image that
 * lie behind the piece. */
static bft_status piece_check(const struct copy *c, uint64_t block,
                              unsigned blocks, uint64_t rest, unsigned *whole)
{
    unsigned at = 0;

    *whole = 0;
    while (at < blocks) {
        uint8_t *extent = c->piece + (size_t)at * BFTI_BLOCK;
        unsigned grains = c->grains[(block + at) % CHUNK_BLOCKS];
        size_t stored = BFTI_BLOCK;
        bft_status status =
            grains != 0
                ? shared_check(c, block + at, extent, grains)
                : bfti_extent_judge(c->from, (block + at) * BLOCK_GRAINS,
                                    extent, (size_t)(blocks - at) * BFTI_BLOCK,
                                    &stored);
        if (status != BFT_OK)
            return status;
        unsigned n = (unsigned)((stored + BFTI_BLOCK - 1) / BFTI_BLOCK);
        if (n > blocks - at + rest || meets_shared(c, block + at, n))
            return bfti_fail(
                BFT_CORRUPT,
                "%s: extent at byte %" PRIu64
                ", %u blocks: the free-space map has fewer",
                bfti_extent_path(c->from, (block + at) * BLOCK_GRAINS, 1),
                (block + at) * BFTI_BLOCK, n);
        if (n > blocks - at)
            break;
        memset(extent + stored, 0, (size_t)n * BFTI_BLOCK - stored);
        at += n;
        *whole = at;
    }
    return BFT_OK;
}

/* Copy the blocks [BLOCK, END), all of the image, and none beside them is. */
static bft_status run_copy(struct copy *c, uint64_t block, uint64_t end)
{
    struct bfti_file *file = c->from->file;

    /* Ends: a piece has one whole extent at least. */
    while (block < end) {
        unsigned blocks =
            end - block < PIECE_BLOCKS ? (unsigned)(end - block) : PIECE_BLOCKS;
        size_t len = (size_t)blocks * BFTI_BLOCK, got;
        unsigned whole;
        bft_status status =
            file->ops->read(file, block * BFTI_BLOCK, c->piece, len, &got);
        if (status == BFT_OK && got < len)
            status = bfti_fail(
                BFT_CORRUPT,
                "%s: the file ends at byte %" PRIu64 ", within an extent",
                bfti_extent_path(c->from, block * BLOCK_GRAINS,
                                 (uint64_t)blocks * BLOCK_GRAINS),
                block * BFTI_BLOCK + got);
        if (status == BFT_OK)
            status =
                piece_check(c, block, blocks, end - block - blocks, &whole);
        if (status != BFT_OK)
            return status;
        assert(whole > 0);
        status = piece_write(c, block, whole);
        if (status != BFT_OK)
            return status;
        block += whole;
    }
    return BFT_OK;
}

static uint64_t word_at(const uint8_t *words, size_t i)
{
    le64 stored;
    memcpy(&stored, words + i * sizeof stored, sizeof stored);
    return le64_get(stored);
}

/* The grains of the blocks of chunk CHUNK.  RECORD is the last that was read,
 * and becomes the next one if it is that chunk's. */
static bft_status grains_of_chunk(struct copy *c, uint64_t chunk,
                                  struct share_record *record)
{
    memset(c->grains, 0, CHUNK_BLOCKS);
    if (record->chunk != chunk)
        return BFT_OK;
    for (unsigned at = 0; at < CHUNK_BLOCKS; at++)
        if (bit_get(record->words, at))
            c->grains[at] = *record->masks++;
    return bfti_share_read(&c->lists, record);
}

/* Copy what the COUNT words of bits say, the first of which is about FIRST; no
 * extent lies in two chunks, nor with the superblocks. */
static bft_status chunk_copy(struct copy *c, uint64_t first,
                             const uint8_t *words, size_t count)
{
    uint64_t start = 0, block = first;
    bool within = false;

    for (size_t i = 0; i < count; i++) {
        uint64_t bits = word_at(words, i);
        if (block == 0)
            bits &= ~(((uint64_t)1 << SUPERBLOCKS) - 1);
        for (unsigned bit = 0; bit < 64; bit++, block++) {
            bool set = (bits >> bit & 1) != 0;
            bft_status status =
                within && !set ? run_copy(c, start, block) : BFT_OK;
            if (status != BFT_OK)
                return status;
            if (set && !within)
                start = block;
            within = set;
        }
    }
    return within ? run_copy(c, start, block) : BFT_OK;
}

static bft_status words_copy(struct copy *c, uint64_t first,
                             const uint8_t *words, size_t count)
{
    struct share_record record;
    bft_status status = bfti_share_read(&c->lists, &record);

    for (size_t i = 0; i < count && status == BFT_OK; i += CHUNK_WORDS) {
        size_t n = count - i < CHUNK_WORDS ? count - i : CHUNK_WORDS;
        status = grains_of_chunk(c, first / CHUNK_BLOCKS, &record);
        if (status == BFT_OK)
            status = chunk_copy(c, first, words + i * sizeof(le64), n);
        first += CHUNK_BLOCKS;
    }
    return status;
}

static uint64_t words_count(uint64_t first, const uint8_t *words, size_t count)
{
    uint64_t blocks = 0;
    for (size_t i = 0; i < count; i++)
        blocks += (unsigned)__builtin_popcountll(word_at(words, i));
    return first == 0 && blocks >= SUPERBLOCKS ? blocks - SUPERBLOCKS : blocks;
}

/* Go through the map: to count its blocks, or to copy them. */
static bft_status map_walk(struct copy *c, const uint64_t *map, size_t count,
                           bool copying)
{
    struct bfti_scratch scratch = {0};
    uint64_t blocks = 0;
    bft_status status = BFT_OK;

    for (size_t i = 0; i < count && status == BFT_OK; i++) {
        uint64_t first;
        const uint8_t *words;
        size_t word_count;
        status =
            bfti_map_part_read(c->from, map[i], i, count, &blocks, &scratch,
                               &first, &words, &word_count, &c->lists);
        if (status == BFT_OK && copying)
            status = words_copy(c, first, words, word_count);
        else if (status == BFT_OK)
            c->now.total_bytes +=
                words_count(first, words, word_count) * BFTI_BLOCK;
    }
    bfti_scratch_free(c->from->env, &scratch);
    bfti_scratch_free(c->from->env, &c->lists.scratch);
    return status;
}

bft_status bfti_image_copy(struct bfti_pagefile *from, const uint64_t *map,
                           size_t count, struct bfti_pagefile *to,
                           const struct bfti_image_copying *how)
{
    struct copy c = {.from = from, .to = to, .how = *how};

    c.piece = bfti_alloc(from->env, PIECE_BYTES + CHUNK_BLOCKS);
    if (c.piece == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to copy it", from->path);
    c.grains = c.piece + PIECE_BYTES;
    bft_status status = map_walk(&c, map, count, false);
    if (status == BFT_OK)
        status = how->progress(how->ctx, &c.now);
    if (status == BFT_OK)
        status = map_walk(&c, map, count, true);
    if (status == BFT_OK && c.told != c.now.copied_bytes)
        status = how->progress(how->ctx, &c.now);
    bfti_free(from->env, c.piece);
    return status;
}

bft_status bfti_extent_copy(struct bfti_pagefile *from, uint64_t place,
                            struct bfti_scratch *scratch,
                            struct bfti_pagefile *to)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;

    bft_status status =
        bfti_extent_read(from, place, scratch, &info, &raw, &raw_len);
    if (status != BFT_OK)
        return status;
    /* Its grains: behind them the new file has zeros. */
    return to->file->ops->write(to->file, bfti_disk_grain(place) * BFTI_GRAIN,
                                scratch->stored,
                                (size_t)bfti_disk_grains(place) * BFTI_GRAIN);
}
