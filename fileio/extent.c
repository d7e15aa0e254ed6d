/*
 * Extents: bytes with a header and a checksum, written once into free blocks
 * and read back with every field checked before it is used.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "extent_pool.h"
#include "fault.h"
#include "pagefile_internal.h"

#undef bfti_extent_wrong

enum { CODEC_PLAIN = 0, CODEC_ZSTD = 1 };
enum {
    FETCHED_MAX = 32,          /* handed over at once */
    ADVISED_BYTES = 128 << 10, /* of several */
};

_Static_assert(BFTI_EXTENT_GRAINS_MAX <= 0x3ff, "ten bits in a place word");
_Static_assert(BFTI_EXTENT_GRAINS_MAX % BLOCK_GRAINS == 0,
               "the largest extent fills its blocks");
_Static_assert((size_t)BUFFER_BYTES >= BFTI_EXTENT_RAW_MAX + BFTI_EXTENT_HEADER,
               "a pooled buffer takes the largest extent");

bool bfti_place_valid(uint64_t place)
{
    uint64_t grain = bfti_disk_grain(place);
    unsigned grains = bfti_disk_grains(place);

    if (bfti_place_tag(place) != BFTI_TAG_DISK || grains == 0 ||
        grains > BFTI_EXTENT_GRAINS_MAX ||
        grain < (uint64_t)SUPERBLOCKS * BLOCK_GRAINS)
        return false;
    unsigned in_block = (unsigned)(grain % BLOCK_GRAINS);
    return in_block == 0 || in_block + grains <= BLOCK_GRAINS;
}

/* --- writing ------------------------------------------------------------- */

/* How a payload is stored. */
struct extent_form {
    unsigned codec, dictionary;
};
static const struct extent_form plain = {CODEC_PLAIN, 0};

/* Fill the header in front of a payload whose bytes stand already, and make
 * the rest of the last block zero: nothing that this process once had in
 * memory may get into the file by chance. */
static void extent_seal(uint8_t *at, const struct bfti_extent_info *info,
                        struct extent_form form, size_t stored_len,
                        size_t raw_len)
{
    struct bfti_extent_header head = {
        .type = (uint8_t)info->type,
        .codec = (uint8_t)form.codec,
        .dictionary = le16_of((uint16_t)form.dictionary),
        .stored_len = le32_of((uint32_t)stored_len),
        .raw_len = le32_of((uint32_t)raw_len),
        .page_id = le64_of(info->page_id),
        .lsn = le64_of(info->lsn),
        .tree_id = le32_of(info->tree_id),
    };
    memcpy(at, &head, sizeof head);
    head.checksum = le32_of(bfti_crc32c(0, at + sizeof head.checksum,
                                        stored_len - sizeof head.checksum));
    memcpy(at, &head.checksum, sizeof head.checksum);

    size_t tail = stored_len % BFTI_BLOCK;
    if (tail > 0)
        memset(at + stored_len, 0, BFTI_BLOCK - tail);
}

/* Build the extent in BUFFER; give the bytes it takes in the file. */
static size_t extent_build(struct bfti_pagefile *pf,
                           struct write_buffer *buffer,
                           const struct bfti_extent_info *info, const void *raw,
                           size_t raw_len)
{
    uint8_t *payload = buffer->bytes + BFTI_EXTENT_HEADER;

    if (pf->compress) {
        struct extent_form form = {.codec = CODEC_ZSTD};
        size_t len = bfti_codec_pack(pf, buffer, info, raw, raw_len, payload,
                                     &form.dictionary);
        if (len > 0) {
            extent_seal(buffer->bytes, info, form, BFTI_EXTENT_HEADER + len,
                        raw_len);
            /* A statistic. */
            atomic_fetch_add_explicit(&pf->compressed_extents, 1,
                                      memory_order_relaxed);
            return BFTI_EXTENT_HEADER + len;
        }
    }
    if (raw_len > 0)
        memcpy(payload, raw, raw_len);
    extent_seal(buffer->bytes, info, plain, BFTI_EXTENT_HEADER + raw_len,
                raw_len);
    return BFTI_EXTENT_HEADER + raw_len;
}

/* The place of what extent_build() made, which was written at GRAIN. */
static uint64_t extent_written(struct bfti_pagefile *pf,
                               const struct write_buffer *buffer,
                               uint64_t grain, size_t stored_len)
{
    struct bfti_extent_header head;
    memcpy(&head, buffer->bytes, sizeof head);
    /* relaxed: statistics. */
    atomic_fetch_add_explicit(&pf->written_bytes,
                              bfti_blocks_of(stored_len) * (size_t)BFTI_BLOCK,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&pf->extents_written, 1, memory_order_relaxed);
    return bfti_disk_place(grain, grains_of(stored_len),
                           le32_get(head.checksum) & 0xffff);
}

/* Write what extent_build() made at BLOCK, in whole blocks and one call. */
static bft_status extent_put(struct bfti_pagefile *pf,
                             const struct write_buffer *buffer, uint64_t block,
                             size_t stored_len, uint64_t *place)
{
    bft_status status =
        pf->file->ops->write(pf->file, block * BFTI_BLOCK, buffer->bytes,
                             (size_t)bfti_blocks_of(stored_len) * BFTI_BLOCK);
    if (status == BFT_OK)
        *place = extent_written(pf, buffer, block * BLOCK_GRAINS, stored_len);
    return status;
}

/* The same where there is room for it. */
static bft_status put_alone(struct bfti_pagefile *pf,
                            const struct write_buffer *buffer,
                            size_t stored_len, uint64_t *place)
{
    unsigned blocks = bfti_blocks_of(stored_len);
    uint64_t block;

    bfti_space_lock(pf);
    bft_status status = bfti_space_alloc_locked(pf, blocks, &block);
    bfti_space_unlock(pf);
    if (status != BFT_OK)
        return status;

    PARK("extent:allocated");
    status = extent_put(pf, buffer, block, stored_len, place);
    if (status != BFT_OK) {
        /* Some of it may be in the file: free blocks hold anything. */
        bfti_space_lock(pf);
        bfti_space_give_locked(pf, block, blocks);
        bfti_space_unlock(pf);
    }
    return status;
}

/* ... or where others are, if it is a short one. */
static bft_status put_shared(struct bfti_pagefile *pf,
                             const struct write_buffer *buffer,
                             size_t stored_len, uint64_t *place)
{
    uint64_t grain = 0;
    bft_status status = BFT_OK;

    if (grains_of(stored_len) < BLOCK_GRAINS)
        status =
            bfti_share_write(pf, buffer->bytes, grains_of(stored_len), &grain);
    if (status != BFT_OK)
        return status;
    if (grain == 0)
        return put_alone(pf, buffer, stored_len, place);
    *place = extent_written(pf, buffer, grain, stored_len);
    return BFT_OK;
}

static bft_status write_extent(struct bfti_pagefile *pf,
                               const struct bfti_extent_info *info,
                               const void *raw, size_t raw_len, bool alone,
                               uint64_t *place)
{
    *place = 0;
    if (raw_len > BFTI_EXTENT_RAW_MAX)
        return bfti_fail(BFT_TOO_BIG, "%s: %zu bytes do not fit into an extent",
                         pf->path, raw_len);

    struct write_buffer *buffer;
    bft_status status = bfti_buffer_take(pf, &buffer);
    if (status != BFT_OK)
        return status;
    size_t stored_len = extent_build(pf, buffer, info, raw, raw_len);
    status = alone ? put_alone(pf, buffer, stored_len, place)
                   : put_shared(pf, buffer, stored_len, place);
    bfti_buffer_give(pf, buffer);
    return status;
}

bft_status bfti_extent_write(struct bfti_pagefile *pf,
                             const struct bfti_extent_info *info,
                             const void *raw, size_t raw_len, uint64_t *place)
{
    return write_extent(pf, info, raw, raw_len, false, place);
}

bft_status bfti_extent_write_alone(struct bfti_pagefile *pf,
                                   const struct bfti_extent_info *info,
                                   const void *raw, size_t raw_len,
                                   uint64_t *place)
{
    return write_extent(pf, info, raw, raw_len, true, place);
}

/* Build the extents one behind the other in BUFFER; gives their blocks. */
static unsigned extents_build(const struct write_buffer *buffer,
                              struct bfti_extent_source *extents, size_t n)
{
    unsigned blocks = 0;
    for (size_t i = 0; i < n; i++) {
        struct bfti_extent_source *e = &extents[i];
        size_t stored_len = BFTI_EXTENT_HEADER + e->raw_len;
        uint8_t *at = buffer->bytes + (size_t)blocks * BFTI_BLOCK;
        assert(blocks + bfti_blocks_of(stored_len) <=
               BFTI_EXTENT_GRAINS_MAX / BLOCK_GRAINS);
        blocks += bfti_blocks_of(stored_len);
        memcpy(at + BFTI_EXTENT_HEADER, e->raw, e->raw_len);
        extent_seal(at, &e->info, plain, stored_len, e->raw_len);
    }
    return blocks;
}

/* All of what extents_build() made, at BLOCK in one call. */
static bft_status extents_put(struct bfti_pagefile *pf,
                              const struct write_buffer *buffer, uint64_t block,
                              unsigned blocks,
                              struct bfti_extent_source *extents, size_t n)
{
    size_t bytes = (size_t)blocks * BFTI_BLOCK;
    const uint8_t *at = buffer->bytes;
    bft_status status =
        pf->file->ops->write(pf->file, block * BFTI_BLOCK, at, bytes);
    if (status != BFT_OK)
        return status;
    for (size_t i = 0; i < n; i++) {
        size_t stored_len = BFTI_EXTENT_HEADER + extents[i].raw_len;
        le32 checksum;
        memcpy(&checksum, at, sizeof checksum);
        extents[i].place =
            bfti_disk_place(block * BLOCK_GRAINS, grains_of(stored_len),
                            le32_get(checksum) & 0xffff);
        block += bfti_blocks_of(stored_len);
        at += (size_t)bfti_blocks_of(stored_len) * BFTI_BLOCK;
    }
    /* relaxed: statistics. */
    atomic_fetch_add_explicit(&pf->written_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&pf->extents_written, n, memory_order_relaxed);
    return BFT_OK;
}

static bft_status write_one_by_one(struct bfti_pagefile *pf,
                                   struct bfti_extent_source *extents, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct bfti_extent_source *e = &extents[i];
        bft_status status =
            bfti_extent_write(pf, &e->info, e->raw, e->raw_len, &e->place);
        if (status == BFT_OK)
            continue;
        while (i-- > 0)
            bfti_extent_discard(pf, extents[i].place);
        return status;
    }
    bfti_extent_set_apart(pf, true, n);
    return BFT_OK;
}

/* All in one piece. */
static bft_status write_together(struct bfti_pagefile *pf,
                                 struct write_buffer *buffer,
                                 struct bfti_extent_source *extents, size_t n)
{
    unsigned blocks = extents_build(buffer, extents, n);
    uint64_t block;

    bfti_space_lock(pf);
    bft_status status = bfti_space_alloc_locked(pf, blocks, &block);
    bfti_space_unlock(pf);
    if (status != BFT_OK)
        return status;
    status = extents_put(pf, buffer, block, blocks, extents, n);
    bfti_space_lock(pf);
    if (status != BFT_OK) {
        bfti_space_give_locked(pf, block, blocks);
    } else { /* one private extent has become N */
        pf->space.private_count -= pf->space.private_count > 0;
        pf->space.apart_count += n;
    }
    bfti_space_unlock(pf);
    return status;
}

bft_status bfti_extent_write_apart(struct bfti_pagefile *pf,
                                   struct bfti_extent_source *extents, size_t n)
{
    bft_status status = BFT_NO_SPACE;

    if (n > 1 && !pf->compress) {
        struct write_buffer *buffer;
        status = bfti_buffer_take(pf, &buffer);
        if (status != BFT_OK)
            return status;
        status = write_together(pf, buffer, extents, n);
        bfti_buffer_give(pf, buffer);
    }
    /* There may be as much room in smaller pieces. */
    return status == BFT_NO_SPACE ? write_one_by_one(pf, extents, n) : status;
}

bft_status bfti_extent_write_at(struct bfti_pagefile *pf, uint64_t block,
                                const struct bfti_extent_info *info,
                                const void *raw, size_t raw_len,
                                uint64_t *place)
{
    assert(raw_len <= BFTI_EXTENT_RAW_MAX);
    *place = 0;

    struct write_buffer *buffer;
    bft_status status = bfti_buffer_take(pf, &buffer);
    if (status != BFT_OK)
        return status;
    size_t stored_len = BFTI_EXTENT_HEADER + raw_len;
    memcpy(buffer->bytes + BFTI_EXTENT_HEADER, raw, raw_len);
    extent_seal(buffer->bytes, info, plain, stored_len, raw_len);
    status = extent_put(pf, buffer, block, stored_len, place);
    bfti_buffer_give(pf, buffer);
    return status;
}

/* --- reading ------------------------------------------------------------- */

const char *bfti_extent_path(const struct bfti_pagefile *pf, uint64_t grain,
                             uint64_t grains)
{
    uint64_t first = grain / BLOCK_GRAINS;
    uint64_t end = (grain + grains + BLOCK_GRAINS - 1) / BLOCK_GRAINS;
    return pf->path_of != NULL
               ? pf->path_of(pf->path_of_ctx, first, end - first)
               : pf->path;
}

static const char *path_at(const struct bfti_pagefile *pf, uint64_t place)
{
    return bfti_extent_path(pf, bfti_disk_grain(place),
                            bfti_disk_grains(place));
}

static bft_status fail_at(bft_status status, const struct bfti_pagefile *pf,
                          uint64_t place, const char *what)
{
    return bfti_fail(status, "%s: extent at byte %" PRIu64 ", %u bytes: %s",
                     path_at(pf, place), bfti_disk_grain(place) * BFTI_GRAIN,
                     bfti_disk_grains(place) * BFTI_GRAIN, what);
}

bft_status bfti_extent_wrong(const struct bfti_pagefile *pf, uint64_t place,
                             const char *what)
{
    char text[BFTI_ERROR_MAX];

    if (what == NULL) {
        (void)bft_last_error(text, sizeof text);
        what = text;
    }
    return fail_at(BFT_CORRUPT, pf, place, what);
}

static void scratch_count(const struct bfti_scratch *scratch, size_t more,
                          size_t less)
{
    if (scratch->held) /* relaxed: a figure */
        atomic_fetch_add_explicit(scratch->held, more - less,
                                  memory_order_relaxed);
}

static bft_status scratch_grow(const struct bfti_pagefile *pf,
                               const struct bfti_scratch *scratch, void **buf,
                               size_t *cap, size_t need)
{
    if (need <= *cap)
        return BFT_OK;
    size_t bytes = BFTI_BLOCK;
    while (bytes < need)
        bytes *= 2;
    void *fresh = bfti_alloc(pf->env, bytes);
    if (fresh == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "%s: no memory for a read buffer of %zu bytes",
                         pf->path, bytes);
    bfti_free(pf->env, *buf);
    scratch_count(scratch, bytes, *cap);
    *buf = fresh;
    *cap = bytes;
    return BFT_OK;
}

void bfti_scratch_free(const struct bfti_env *env, struct bfti_scratch *s)
{
    bfti_free(env, s->stored);
    bfti_free(env, s->raw);
    scratch_count(s, 0, s->stored_cap + s->raw_cap);
    *s = (struct bfti_scratch){.held = s->held};
}

/* May PLACE be read at all? */
static bft_status place_check(const struct bfti_pagefile *pf, uint64_t place)
{
    if (!bfti_place_valid(place))
        return bfti_extent_wrong(pf, place, "that is no place of one");
    /* relaxed: a bound that no extent in use lies above; whoever knows PLACE
     * learned it after the write that raised it. */
    if (place_block(place) + place_blocks(place) >
        atomic_load_explicit(&pf->end, memory_order_relaxed))
        return bfti_extent_wrong(pf, place,
                                 "it lies beyond the end of the file");
    return BFT_OK;
}

/* Bring the bytes of PLACE into SCRATCH->STORED. */
static bft_status extent_fetch(struct bfti_pagefile *pf, uint64_t place,
                               struct bfti_scratch *scratch)
{
    bft_status status = place_check(pf, place);
    if (status != BFT_OK)
        return status;
    size_t len = bfti_extent_stored_max(place);
    status =
        scratch_grow(pf, scratch, &scratch->stored, &scratch->stored_cap, len);
    if (status != BFT_OK)
        return status;
    size_t got;
    status = pf->file->ops->read(pf->file, bfti_disk_grain(place) * BFTI_GRAIN,
                                 scratch->stored, len, &got);
    if (status == BFT_OK && got < len)
        status = bfti_extent_wrong(pf, place, "the file ends within it");
    return status;
}

/* Compare header and place with the bytes; nothing of them is trusted before
 * this is OK.  The seal first: a lost write leaves an older extent there,
 * whose own checksum is right. */
static bft_status extent_check(const struct bfti_pagefile *pf, uint64_t place,
                               const uint8_t *at,
                               const struct bfti_extent_header *head)
{
    uint32_t stored_len = le32_get(head->stored_len);
    uint32_t raw_len = le32_get(head->raw_len);
    uint32_t checksum = le32_get(head->checksum);

    if (bfti_disk_seal(place) != (checksum & 0xffff))
        return bfti_extent_wrong(pf, place,
                                 "it is another one than its place tells");
    if (stored_len < BFTI_EXTENT_HEADER ||
        (stored_len + BFTI_GRAIN - 1) / BFTI_GRAIN != bfti_disk_grains(place))
        return bfti_extent_wrong(pf, place,
                                 "its length is not the one its place tells");
    if (bfti_crc32c(0, at + sizeof head->checksum,
                    stored_len - sizeof head->checksum) != checksum &&
        !bfti_fault_on(BFTI_FAULT_FORGED))
        return bfti_extent_wrong(pf, place, "its checksum does not match");
    if (head->codec > CODEC_ZSTD ||
        (head->codec == CODEC_PLAIN && le16_get(head->dictionary) != 0))
        return bfti_fail(
            BFT_TOO_NEW,
            "%s: extent at byte %" PRIu64 ": codec %u with dictionary %u",
            path_at(pf, place), bfti_disk_grain(place) * BFTI_GRAIN,
            head->codec, le16_get(head->dictionary));
    if (raw_len > BFTI_EXTENT_RAW_MAX ||
        (head->codec == CODEC_PLAIN &&
         raw_len != stored_len - BFTI_EXTENT_HEADER))
        return bfti_extent_wrong(pf, place,
                                 "its payload's length is impossible");
    return BFT_OK;
}

bft_status bfti_extent_judge(const struct bfti_pagefile *pf, uint64_t grain,
                             const uint8_t *at, size_t len, size_t *stored)
{
    struct bfti_extent_header head;
    assert(len >= BFTI_GRAIN);
    memcpy(&head, at, sizeof head);
    uint32_t stored_len = le32_get(head.stored_len);

    *stored = 0;
    if (stored_len < BFTI_EXTENT_HEADER ||
        stored_len > BFTI_EXTENT_GRAINS_MAX * BFTI_GRAIN)
        return bfti_fail(BFT_CORRUPT,
                         "%s: there is no extent at byte %" PRIu64
                         ", where the free-space map has one",
                         bfti_extent_path(pf, grain, 1), grain * BFTI_GRAIN);
    *stored = stored_len;
    if (stored_len > len)
        return BFT_OK;
    return extent_check(pf,
                        bfti_disk_place(grain, grains_of(stored_len),
                                        le32_get(head.checksum) & 0xffff),
                        at, &head);
}

/* Decompress the checked extent AT into SCRATCH->RAW.  BFT_GONE: its tree was
 * dropped, and nobody comes to it any more. */
static bft_status extent_unpack(struct bfti_pagefile *pf, uint64_t place,
                                const uint8_t *at,
                                const struct bfti_extent_header *head,
                                struct bfti_scratch *scratch)
{
    size_t raw_len = le32_get(head->raw_len);
    bft_status status =
        scratch_grow(pf, scratch, &scratch->raw, &scratch->raw_cap, raw_len);
    if (status != BFT_OK)
        return status;
    status = bfti_codec_unpack(pf, le32_get(head->tree_id),
                               le16_get(head->dictionary), scratch->raw,
                               raw_len, at + BFTI_EXTENT_HEADER,
                               le32_get(head->stored_len) - BFTI_EXTENT_HEADER);
    switch (status) {
    case BFT_CORRUPT:
        return bfti_extent_wrong(pf, place,
                                 "it does not decompress to its length");
    case BFT_UNSUPPORTED:
        return fail_at(status, pf, place,
                       "it is compressed, and this build has no zstd");
    case BFT_NOT_FOUND:
        return bfti_extent_wrong(pf, place,
                                 "its tree has not the dictionary it needs");
    case BFT_GONE:
        return fail_at(status, pf, place, "its tree was dropped");
    default:
        return status;
    }
}

bft_status bfti_extent_read(struct bfti_pagefile *pf, uint64_t place,
                            struct bfti_scratch *scratch,
                            struct bfti_extent_info *info, const void **raw,
                            size_t *raw_len)
{
    *raw = NULL;
    *raw_len = 0;
    memset(info, 0, sizeof *info);
    bft_status status = extent_fetch(pf, place, scratch);
    if (status == BFT_OK)
        status = bfti_extent_open(pf, place, scratch->stored, scratch, info,
                                  raw, raw_len);
    if (status == BFT_OK) /* relaxed: a statistic. */
        atomic_fetch_add_explicit(&pf->extents_read, 1, memory_order_relaxed);
    return status;
}

bft_status bfti_extent_read_as(struct bfti_pagefile *pf, uint64_t place,
                               enum bfti_extent_type type,
                               struct bfti_scratch *scratch,
                               struct bfti_extent_info *info, const void **raw,
                               size_t *raw_len)
{
    bft_status status =
        bfti_extent_read(pf, place, scratch, info, raw, raw_len);
    char what[40];

    if (status != BFT_OK || info->type == type)
        return status;
    (void)snprintf(what, sizeof what, "its type is %d, not %d", (int)info->type,
                   (int)type);
    return bfti_extent_wrong(pf, place, what);
}

bft_status bfti_extent_open(struct bfti_pagefile *pf, uint64_t place,
                            const void *stored, struct bfti_scratch *scratch,
                            struct bfti_extent_info *info, const void **raw,
                            size_t *raw_len)
{
    const uint8_t *at = stored;
    struct bfti_extent_header head;

    *raw = NULL;
    *raw_len = 0;
    memset(info, 0, sizeof *info);
    memcpy(&head, at, sizeof head);
    bft_status status = extent_check(pf, place, at, &head);
    if (status != BFT_OK)
        return status;

    const void *payload = at + BFTI_EXTENT_HEADER;
    if (head.codec == CODEC_ZSTD) {
        status = extent_unpack(pf, place, at, &head, scratch);
        if (status != BFT_OK)
            return status;
        payload = scratch->raw;
    }
    info->type = (enum bfti_extent_type)head.type;
    info->tree_id = le32_get(head.tree_id);
    info->page_id = le64_get(head.page_id);
    info->lsn = le64_get(head.lsn);
    *raw = payload;
    *raw_len = le32_get(head.raw_len);
    return BFT_OK;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Blocks that lie together are one request, which costs as much as many more bytes
 * do; but not of more than systems bring at once: Linux leaves out what is behind a
 * device's read-ahead, often 128 KiB. */
void bfti_extents_advise(struct bfti_pagefile *pf, const uint64_t *place,
                         size_t n)
{
    const struct bfti_vfs_ops *ops = pf->file->ops;
    uint64_t sorted[BFTI_ADVISED_MAX];
    assert(n <= BFTI_ADVISED_MAX);
    if (n == 0 || !ops->advise)
        return;
    memcpy(sorted, place, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_number); /* that is by position */
    uint64_t from = bfti_disk_grain(sorted[0]) * BFTI_GRAIN;
    uint64_t to = from + bfti_extent_stored_max(sorted[0]);
    for (size_t i = 1; i < n; i++) {
        uint64_t at = bfti_disk_grain(sorted[i]) * BFTI_GRAIN;
        uint64_t end = at + bfti_extent_stored_max(sorted[i]);
        if (at >= to + BFTI_BLOCK || end > from + ADVISED_BYTES) {
            ops->advise(pf->file, from, (size_t)(to - from));
            from = at;
        }
        to = end;
    }
    ops->advise(pf->file, from, (size_t)(to - from));
}

bool bfti_extents_overlap(struct bfti_pagefile *pf)
{
    const struct bfti_vfs_ops *ops = pf->file->ops;
    return ops->overlaps && ops->overlaps(pf->file);
}

/* At most FETCHED_MAX of them. */
static void fetch_some(struct bfti_pagefile *pf, struct bfti_fetch *fetch,
                       size_t n)
{
    const struct bfti_vfs_ops *ops = pf->file->ops;
    struct bfti_io io[FETCHED_MAX], *asked[FETCHED_MAX];
    size_t count = 0, read = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t place = fetch[i].place;
        fetch[i].status = place_check(pf, place);
        if (fetch[i].status != BFT_OK)
            continue;
        asked[count++] = &io[i];
        io[i] = (struct bfti_io){.op = BFTI_IO_READ,
                                 .file = pf->file,
                                 .offset = bfti_disk_grain(place) * BFTI_GRAIN,
                                 .buf = fetch[i].stored,
                                 .len = bfti_extent_stored_max(place)};
    }
    /* Neither fails: each request has its own status, once it is done. */
    (void)ops->submit(pf->vfs, asked, count);
    (void)ops->reap(pf->vfs, count);
    for (size_t i = 0; i < n; i++) {
        if (fetch[i].status != BFT_OK)
            continue;
        assert(io[i].done);
        fetch[i].status = io[i].status;
        if (io[i].status == BFT_OK && io[i].got < io[i].len)
            fetch[i].status = bfti_extent_wrong(pf, fetch[i].place,
                                                "the file ends within it");
        read += fetch[i].status == BFT_OK;
    }
    /* relaxed: a statistic. */
    atomic_fetch_add_explicit(&pf->extents_read, read, memory_order_relaxed);
}

void bfti_extents_fetch(struct bfti_pagefile *pf, struct bfti_fetch *fetch,
                        size_t n)
{
    bool overlap = bfti_extents_overlap(pf);
    for (size_t i = 0; i < n; i += FETCHED_MAX) {
        size_t some = n - i < FETCHED_MAX ? n - i : FETCHED_MAX;
        uint64_t place[FETCHED_MAX];
        for (size_t k = 0; k < some; k++)
            place[k] = fetch[i + k].place;
        if (!overlap)
            bfti_extents_advise(pf, place, some);
        fetch_some(pf, fetch + i, some);
    }
}
