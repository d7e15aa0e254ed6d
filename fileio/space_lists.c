/*
 * The lists of the free-space map: which blocks of an image extents share, and
 * which grains of these it reaches.  They are extents of their own, named by
 * the part of the map that they belong to, and there are none where nothing is
 * shared.
 */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

/* Payload of a list: records, in the order of the file.  Behind each head stand
 * as many bytes as it has bits set: of each shared block the grains, the first
 * one in the lowest bit.  The extent's page id is the part's number, and the
 * list's, from 1, times SHARE_LIST_ID.  Format 1 with BFTI_FEATURE_SHARED. */
struct record_head {
    le32 chunk;              /* 0 */
    le64 words[CHUNK_WORDS]; /* 4  lowest block in the lowest bit */
};
_Static_assert(sizeof(struct record_head) == 516, "format 1");

/* --- writing -------------------------------------------------------------- */

/* How many shared blocks of CHUNK the image reaches. */
static unsigned shared_count(const struct space_chunk *chunk)
{
    unsigned count = 0;

    if (chunk->shares == NULL || chunk->shares->count == 0)
        return 0;
    for (unsigned at = 0; at < CHUNK_BLOCKS; at++)
        count += chunk->shares->image[at] != 0;
    return count;
}

size_t bfti_share_measure(const struct bfti_space *space, size_t first,
                          size_t end, size_t bytes[MAP_LISTS_PART])
{
    size_t n = 0;

    memset(bytes, 0, MAP_LISTS_PART * sizeof *bytes);
    for (size_t i = first; i < end; i++) {
        unsigned count = shared_count(space->chunk[i]);
        size_t record = sizeof(struct record_head) + count;
        if (count == 0)
            continue;
        if (n == 0 || bytes[n - 1] + record > BFTI_EXTENT_RAW_MAX)
            n++;
        assert(n <= MAP_LISTS_PART);
        bytes[n - 1] += record;
    }
    return n;
}

void bfti_share_fill(const struct bfti_space *space, size_t first, size_t end,
                     uint8_t *at)
{
    for (size_t i = first; i < end; i++) {
        const struct space_shares *shares = space->chunk[i]->shares;
        struct record_head head = {.chunk = le32_of((uint32_t)i)};
        uint8_t *mask = at + sizeof head;

        if (shared_count(space->chunk[i]) == 0)
            continue;
        for (unsigned w = 0; w < CHUNK_WORDS; w++) {
            uint64_t word = 0;
            for (unsigned b = 0; b < 64; b++) {
                uint8_t image = shares->image[w * 64 + b];
                word |= (uint64_t)(image != 0) << b;
                if (image != 0)
                    *mask++ = image;
            }
            head.words[w] = le64_of(word);
        }
        memcpy(at, &head, sizeof head);
        at = mask;
    }
}

/* --- reading -------------------------------------------------------------- */

static bft_status wrong(const struct share_reader *reader, const char *what)
{
    return bfti_map_corrupt(reader->pf, reader->list[reader->next - 1],
                            reader->part, what);
}

static bft_status list_open(struct share_reader *reader)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;

    bft_status status =
        bfti_extent_read(reader->pf, reader->list[reader->next++],
                         &reader->scratch, &info, &raw, &len);
    if (status != BFT_OK)
        return bfti_map_in(status, reader->part);
    if (info.type != BFTI_EXTENT_MAP ||
        info.page_id != reader->part + reader->next * SHARE_LIST_ID)
        return wrong(reader, "another extent lies there");
    reader->at = raw;
    reader->end = reader->at + len;
    return BFT_OK;
}

bft_status bfti_share_read(struct share_reader *reader,
                           struct share_record *record)
{
    struct record_head head;
    unsigned count = 0;

    *record = (struct share_record){.chunk = UINT64_MAX};
    if (reader->at == reader->end) {
        if (reader->next == reader->count)
            return BFT_OK;
        bft_status status = list_open(reader);
        if (status != BFT_OK)
            return status;
    }
    size_t left = (size_t)(reader->end - reader->at);
    if (left < sizeof head)
        return wrong(reader, "it ends within a record");
    memcpy(&head, reader->at, sizeof head);
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        record->words[w] = le64_get(head.words[w]);
        count += (unsigned)__builtin_popcountll(record->words[w]);
    }
    record->masks = reader->at + sizeof head;
    if (count == 0 || left - sizeof head < count ||
        memchr(record->masks, 0, count) != NULL)
        return wrong(reader, "a record has no grains");
    if (le32_get(head.chunk) < reader->at_chunk ||
        le32_get(head.chunk) >= reader->chunk_end)
        return wrong(reader, "a record is of another part of the file");
    record->chunk = le32_get(head.chunk);
    reader->at_chunk = record->chunk + 1;
    reader->at = record->masks + count;
    return BFT_OK;
}
