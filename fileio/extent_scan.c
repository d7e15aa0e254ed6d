/*
 * Finding extents without being told where they are: every grain of the file
 * may begin one, short ones within a block, and its own header and checksum say
 * whether it does.
 */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

enum { CHUNK_BYTES = 1 << 18 }; /* of the file, read at once for headers */
_Static_assert(CHUNK_BYTES % BFTI_BLOCK == 0, "headers lie within a chunk");

bft_status bfti_extent_scan_begin(struct bfti_extent_scan *scan,
                                  struct bfti_pagefile *pf)
{
    *scan = (struct bfti_extent_scan){
        .pf = pf, .grain = (uint64_t)SUPERBLOCKS * BLOCK_GRAINS};
    scan->chunk = bfti_alloc(pf->env, CHUNK_BYTES);
    return scan->chunk ? BFT_OK
                       : bfti_fail(BFT_NO_MEMORY,
                                   "%s: %d bytes to look for extents with",
                                   pf->path, (int)CHUNK_BYTES);
}

void bfti_extent_scan_end(struct bfti_extent_scan *scan)
{
    bfti_free(scan->pf->env, scan->chunk);
}

/* The header that stands at GRAIN; false: the file ends before it does. */
static bft_status header_at(struct bfti_extent_scan *scan, uint64_t grain,
                            struct bfti_extent_header *header, bool *there)
{
    struct bfti_file *file = scan->pf->file;
    uint64_t at = grain * BFTI_GRAIN;
    bft_status status = BFT_OK;

    assert(at >= scan->base); /* it goes forward only */
    if (at - scan->base >= CHUNK_BYTES || !scan->filled) {
        scan->base = at - at % CHUNK_BYTES;
        status = file->ops->read(file, scan->base, scan->chunk, CHUNK_BYTES,
                                 &scan->fill);
        scan->filled = status == BFT_OK;
    }
    *there = status == BFT_OK && at - scan->base + sizeof *header <= scan->fill;
    if (*there)
        memcpy(header, scan->chunk + (at - scan->base), sizeof *header);
    return status;
}

/* The place that an extent with HEADER at GRAIN has; 0: it cannot be one. */
static uint64_t place_of(uint64_t grain,
                         const struct bfti_extent_header *header)
{
    uint32_t stored_len = le32_get(header->stored_len);
    uint64_t place;

    if (header->type < BFTI_EXTENT_LEAF ||
        header->type > BFTI_EXTENT_DICTIONARY ||
        stored_len < BFTI_EXTENT_HEADER ||
        stored_len > BFTI_EXTENT_GRAINS_MAX * BFTI_GRAIN ||
        le32_get(header->raw_len) > BFTI_EXTENT_RAW_MAX)
        return 0;
    place = bfti_disk_place(grain, grains_of(stored_len),
                            le32_get(header->checksum) & 0xffff);
    return bfti_place_valid(place) ? place : 0;
}

/* Where one may begin behind PLACE: not in the last block of a long one. */
static uint64_t next_grain(uint64_t place)
{
    uint64_t end = bfti_disk_grain(place) + bfti_disk_grains(place);

    if (bfti_disk_grains(place) < BLOCK_GRAINS)
        return end;
    return (end + BLOCK_GRAINS - 1) / BLOCK_GRAINS * BLOCK_GRAINS;
}

bft_status bfti_extent_scan_next(struct bfti_extent_scan *scan,
                                 struct bfti_scratch *scratch, uint64_t *place,
                                 struct bfti_extent_info *info,
                                 const void **raw, size_t *raw_len)
{
    struct bfti_extent_header header;
    bool there;

    for (; scan->grain < BLOCKS_MAX * BLOCK_GRAINS; scan->grain++) {
        bft_status status = header_at(scan, scan->grain, &header, &there);
        *place = there ? place_of(scan->grain, &header) : 0;
        if (status != BFT_OK || !there)
            return status;
        if (*place == 0)
            continue;
        status =
            bfti_extent_read(scan->pf, *place, scratch, info, raw, raw_len);
        if (status == BFT_OK) {
            /* All its bytes are its own: none begins within it, and a value
             * that looks like one is not taken for one. */
            scan->grain = next_grain(*place);
            return BFT_OK;
        }
        if (status != BFT_CORRUPT && status != BFT_TOO_NEW)
            return status;
    }
    *place = 0;
    return BFT_OK;
}

bft_status bfti_extent_find(struct bfti_pagefile *pf, uint64_t grain,
                            struct bfti_scratch *scratch, uint64_t *place,
                            struct bfti_extent_info *info)
{
    struct bfti_extent_header header;
    const void *raw;
    size_t got, raw_len;

    *place = 0;
    bft_status status = pf->file->ops->read(pf->file, grain * BFTI_GRAIN,
                                            &header, sizeof header, &got);
    if (status != BFT_OK || got < sizeof header)
        return status;
    uint64_t found = place_of(grain, &header);
    if (found == 0)
        return BFT_OK;
    status = bfti_extent_read(pf, found, scratch, info, &raw, &raw_len);
    if (status == BFT_OK)
        *place = found;
    return status == BFT_CORRUPT || status == BFT_TOO_NEW ||
                   status == BFT_UNSUPPORTED || status == BFT_GONE
               ? BFT_OK
               : status;
}
