/*
 * Reading the log: what recovery does before anybody writes, and the frames of
 * an open log for feeds.
 *
 * A frame is valid at a position when its header's checksum is right, the
 * header names that position, and the payload's checksum is right.  The log
 * ends at the first position without a valid frame, or with one of an older
 * incarnation than the frame before it.  Whether that end is the torn tail of
 * a crash or damage is told by durable marks: the superblock's, and those of
 * valid frames that lie further on, which are found again by trying every
 * position that a frame could have.
 */
#include "wal_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "fault.h"
#include "pagefile.h" /* bfti_crc32c */

/* --- segments that exist ------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool bfti_wal_parse_name(const char *name, uint64_t *lsn)
{
    enum { PREFIX = 4, DIGITS = 16 };
    uint64_t value = 0;

    if (strncmp(name, "log-", PREFIX) != 0 || strlen(name) != PREFIX + DIGITS)
        return false;
    for (int i = 0; i < DIGITS; i++) {
        int digit = hex_digit(name[PREFIX + i]);

        if (digit < 0)
            return false;
        value = value << 4 | (unsigned)digit;
    }
    *lsn = value;
    return true;
}

/* Collects segments while the directory is listed. */
struct listing {
    struct wal_reader *reader;
    size_t cap;
    bft_status status;
};

static bool listing_room(struct listing *listing)
{
    struct wal_reader *reader = listing->reader;
    size_t cap = listing->cap == 0 ? 16 : listing->cap * 2;
    uint64_t *grown;

    if (reader->count < listing->cap)
        return true;
    grown =
        bfti_realloc(reader->options->env, reader->index, cap * sizeof(*grown));
    if (grown == NULL)
        return false;
    reader->index = grown;
    listing->cap = cap;
    return true;
}

static void listing_add(void *arg, const char *name)
{
    struct listing *listing = arg;
    struct wal_reader *reader = listing->reader;
    const struct bfti_wal_options *options = reader->options;
    uint64_t lsn;

    if (listing->status != BFT_OK || !bfti_wal_parse_name(name, &lsn))
        return;
    /* The last segment of all would end behind the last position. */
    if (lsn % options->segment_bytes != 0 ||
        lsn > UINT64_MAX - 2 * options->segment_bytes) {
        if (options->damaged)
            return;
        listing->status =
            bfti_fail(BFT_CORRUPT,
                      "%s/%s: no log segment of %" PRIu64 " bytes starts there",
                      options->dir, name, options->segment_bytes);
        return;
    }
    if (!listing_room(listing)) {
        listing->status =
            bfti_fail(BFT_NO_MEMORY, "%s: no memory for a list of log segments",
                      options->dir);
        return;
    }
    reader->index[reader->count++] = lsn / options->segment_bytes;
}

static int by_index(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

bool bfti_wal_segment_bytes_valid(uint64_t bytes)
{
    return bytes != 0 && bytes % 4096 == 0 && bytes <= WAL_SEGMENT_BYTES_MAX;
}

bft_status bfti_wal_reader_open(struct wal_reader *reader,
                                const struct bfti_wal_options *options)
{
    struct bfti_vfs *vfs = options->vfs;
    struct listing listing = {.reader = reader, .status = BFT_OK};
    bft_status status;

    memset(reader, 0, sizeof(*reader));
    reader->options = options;
    reader->chunk = WAL_CHUNK;
    if (!bfti_wal_segment_bytes_valid(options->segment_bytes))
        return bfti_fail(BFT_INVALID,
                         "%s: a log segment cannot have %" PRIu64
                         " bytes, but a multiple of 4 KiB up to 1 GiB",
                         options->dir, options->segment_bytes);
    status = bfti_wal_check_dir(options->dir);
    if (status == BFT_OK)
        status = vfs->ops->list(vfs, options->dir, listing_add, &listing);
    if (status == BFT_OK)
        status = listing.status;
    if (status != BFT_OK) {
        bfti_wal_reader_close(reader);
        return status;
    }
    if (reader->count > 0) {
        qsort(reader->index, reader->count, sizeof(*reader->index), by_index);
        reader->limit =
            (reader->index[reader->count - 1] + 1) * options->segment_bytes;
    }
    return BFT_OK;
}

void bfti_wal_reader_close(struct wal_reader *reader)
{
    const struct bfti_env *env = reader->options->env;

    if (reader->file != NULL)
        reader->file->ops->close(reader->file);
    bfti_free(env, reader->buf);
    bfti_free(env, reader->index);
}

/* --- bytes --------------------------------------------------------------- */

static bool segment_exists(const struct wal_reader *reader, uint64_t index)
{
    if (reader->wal != NULL)
        return true; /* or it was dropped, which reading it tells */
    return reader->count > 0 &&
           bsearch(&index, reader->index, reader->count, sizeof(*reader->index),
                   by_index) != NULL;
}

static bft_status open_segment(struct wal_reader *reader, uint64_t index)
{
    const struct bfti_wal_options *options = reader->options;
    char path[WAL_PATH_BYTES];

    if (reader->file != NULL && reader->file_index == index)
        return BFT_OK;
    if (reader->file != NULL)
        reader->file->ops->close(reader->file);
    bfti_wal_path(options->dir, options->segment_bytes, index, path);
    reader->file_index = index;
    return options->vfs->ops->open(options->vfs, path, BFTI_OPEN_READ_ONLY,
                                   &reader->file);
}

bft_status bfti_wal_short_read(struct bfti_file *file, const char *dir,
                               uint64_t offset, size_t got)
{
    uint64_t bytes;
    bft_status status = file->ops->size(file, &bytes);

    if (status == BFT_OK && bytes > offset + got)
        status = bfti_fail(BFT_IO,
                           "%s: a read of the log ended at byte %" PRIu64
                           " of a segment, which has %" PRIu64,
                           dir, offset + got, bytes);
    return status;
}

/* Read LEN bytes at POS into BUF; what no file holds becomes zeros. */
static bft_status read_bytes(struct wal_reader *reader, uint64_t pos,
                             uint8_t *buf, size_t len)
{
    uint64_t segment_bytes = reader->options->segment_bytes;

    if (reader->wal != NULL)
        return bfti_segments_read(reader->wal, pos, buf, len);
    while (len > 0) {
        uint64_t offset = pos % segment_bytes;
        uint64_t left = segment_bytes - offset;
        size_t n = len < left ? len : (size_t)left;
        size_t got = 0;

        if (segment_exists(reader, pos / segment_bytes)) {
            bft_status status = open_segment(reader, pos / segment_bytes);

            if (status == BFT_OK)
                status =
                    reader->file->ops->read(reader->file, offset, buf, n, &got);
            if (status == BFT_OK && got < n)
                status = bfti_wal_short_read(reader->file, reader->options->dir,
                                             offset, got);
            if (status != BFT_OK)
                return status;
        }
        memset(buf + got, 0, n - got);
        pos += n;
        buf += n;
        len -= n;
    }
    return BFT_OK;
}

bft_status bfti_wal_reader_get(struct wal_reader *reader, uint64_t pos,
                               size_t len, const uint8_t **bytes)
{
    size_t want = len < reader->chunk ? reader->chunk : len;
    bft_status status;

    *bytes = NULL;
    if (pos >= reader->base && len <= reader->fill &&
        pos - reader->base <= reader->fill - len) {
        *bytes = reader->buf + (pos - reader->base);
        return BFT_OK;
    }
    if (want > reader->cap) {
        uint8_t *grown = bfti_realloc(reader->options->env, reader->buf, want);

        if (grown == NULL) {
            (void)bfti_fail(BFT_NO_MEMORY,
                            "%s: no memory for %zu bytes to read the log with",
                            reader->options->dir, want);
            return BFT_NO_MEMORY;
        }
        reader->buf = grown;
        reader->cap = want;
    }
    /* Read ahead to the end of the log, not behind it. */
    if (pos + want > reader->limit)
        want = reader->limit > pos + len ? (size_t)(reader->limit - pos) : len;
    reader->fill = 0;
    status = read_bytes(reader, pos, reader->buf, want);
    if (status != BFT_OK)
        return status;
    reader->base = pos;
    reader->fill = want;
    *bytes = reader->buf;
    return BFT_OK;
}

/* --- frames -------------------------------------------------------------- */

/* NULL when BYTES are a good frame header for POS, else what is wrong. */
static const char *parse_header(const uint8_t *bytes, uint64_t pos,
                                struct wal_frame_view *view)
{
    struct wal_frame_header header;
    const uint8_t *covered = bytes + sizeof(header.checksum);

    /* First the test that fails at almost every wrong position. */
    memcpy(&header.lsn, bytes + offsetof(struct wal_frame_header, lsn),
           sizeof(header.lsn));
    if (le64_get(header.lsn) != pos)
        return "no frame starts there";
    memcpy(&header, bytes, sizeof(header));
    if (bfti_crc32c(0, covered, sizeof(header) - sizeof(header.checksum)) !=
        le32_get(header.checksum))
        return "the checksum of the frame header is wrong";
    view->lsn = pos;
    view->len = le32_get(header.len);
    view->mark = le64_get(header.mark);
    view->incarnation = le32_get(header.incarnation);
    view->payload_crc = le32_get(header.payload_crc);
    view->type = header.type;
    if (view->len > WAL_PAYLOAD_MAX || view->mark > pos ||
        view->mark % WAL_ALIGN != 0)
        return "the frame header contradicts itself";
    view->end = pos + wal_frame_bytes(view->len);
    return NULL;
}

bft_status bfti_wal_reader_frame(struct wal_reader *reader, uint64_t pos,
                                 uint32_t last, struct wal_frame_view *view,
                                 const uint8_t **payload, const char **why)
{
    const uint8_t *bytes;
    bft_status status;

    *payload = NULL;
    *why = NULL;
    if (!segment_exists(reader, pos / reader->options->segment_bytes)) {
        *why = "the segment is missing";
        return BFT_OK;
    }
    if (reader->wal != NULL && reader->limit - pos < BFTI_FRAME_HEADER) {
        *why = "no frame starts there";
        return BFT_OK;
    }
    status = bfti_wal_reader_get(reader, pos, BFTI_FRAME_HEADER, &bytes);
    if (status != BFT_OK)
        return status;
    *why = parse_header(bytes, pos, view);
    if (*why != NULL)
        return BFT_OK;
    if (view->incarnation < last &&
        !bfti_fault_on(BFTI_FAULT_OLD_INCARNATION)) {
        *why = "the frame is of an older incarnation";
        return BFT_OK;
    }
    if (view->end > reader->limit) {
        *why = "the frame is longer than the log";
        return BFT_OK;
    }
    status =
        bfti_wal_reader_get(reader, pos, (size_t)(view->end - pos), &bytes);
    if (status != BFT_OK)
        return status;
    *payload = bytes + BFTI_FRAME_HEADER;
    if (bfti_crc32c(0, *payload, view->len) != view->payload_crc &&
        !bfti_fault_on(BFTI_FAULT_TORN_FRAME))
        *why = "the checksum of the payload is wrong";
    return BFT_OK;
}

/* Most of what a seek looks at was never written: pass over it by the word. */
static inline bool may_be_header(const uint8_t *bytes, uint64_t pos)
{
    uint64_t lsn;

    memcpy(&lsn, bytes + offsetof(struct wal_frame_header, lsn), sizeof(lsn));
    return lsn != 0 || pos == 0;
}

/* How many bytes from AT on, up to STOP, to try as headers at once.  What was read
 * already comes first: a log that was torn early has frame upon frame behind that,
 * and to read a chunk anew from each on would take minutes. */
static size_t seek_piece(const struct wal_reader *reader, uint64_t at,
                         uint64_t stop)
{
    uint64_t n = stop - at;
    uint64_t read = at >= reader->base && at - reader->base < reader->fill
                        ? reader->fill - (at - reader->base)
                        : 0;

    /* The last header may reach into what follows. */
    if (read >= BFTI_FRAME_HEADER + WAL_ALIGN) {
        read = (read - BFTI_FRAME_HEADER) / WAL_ALIGN * WAL_ALIGN;
        return (size_t)(n < read ? n : read);
    }
    return n < WAL_CHUNK ? (size_t)n : WAL_CHUNK;
}

bft_status bfti_wal_reader_seek(struct wal_reader *reader, uint64_t *pos,
                                struct wal_frame_view *view, bool *found)
{
    uint64_t segment_bytes = reader->options->segment_bytes;

    *found = false;
    for (size_t i = 0; i < reader->count; i++) {
        uint64_t at = reader->index[i] * segment_bytes;
        uint64_t stop = at + segment_bytes;

        if (at < *pos)
            at = *pos;
        while (at < stop) {
            size_t n = seek_piece(reader, at, stop);
            const uint8_t *bytes;
            bft_status status =
                bfti_wal_reader_get(reader, at, n + BFTI_FRAME_HEADER, &bytes);

            if (status != BFT_OK)
                return status;
            for (size_t offset = 0; offset < n; offset += WAL_ALIGN) {
                if (may_be_header(bytes + offset, at + offset) &&
                    parse_header(bytes + offset, at + offset, view) == NULL) {
                    *pos = at + offset;
                    *found = true;
                    return BFT_OK;
                }
            }
            at += n;
        }
    }
    return BFT_OK;
}

/* --- the scan ------------------------------------------------------------ */

/* The log ended at FOUND->end for the reason WHY, after a frame of incarnation
 * LAST.  BFT_OK when that is its tail, BFT_CORRUPT when it is damage. */
static bft_status judge_end(struct wal_reader *reader, uint64_t sb_mark,
                            uint32_t last, const char *why,
                            struct bfti_wal_found *found)
{
    const struct bfti_wal_options *options = reader->options;
    uint64_t end = found->end, pos = end, durable = sb_mark;
    char path[WAL_PATH_BYTES];

    /* Also the header at END itself, which may be good with a bad payload: the
     * next incarnation is to be above every one that was ever used. */
    while (durable <= end) {
        struct wal_frame_view view;
        bool more;
        bft_status status = bfti_wal_reader_seek(reader, &pos, &view, &more);

        if (status != BFT_OK)
            return status;
        if (!more)
            return BFT_OK;
        pos += WAL_ALIGN;
        /* Older ones are ghosts; their marks speak of another log. */
        if (view.incarnation < last)
            continue;
        if (view.incarnation > found->max_incarnation)
            found->max_incarnation = view.incarnation;
        if (view.mark > durable)
            durable = view.mark;
    }
    bfti_wal_path(options->dir, options->segment_bytes,
                  end / options->segment_bytes, path);
    return bfti_fail(BFT_CORRUPT,
                     "%s: byte %" PRIu64 ": %s, in a log that was durable "
                     "up to %" PRIu64 ", %" PRIu64 " bytes further on",
                     path, end % options->segment_bytes, why, durable,
                     durable - end);
}

/*
 * Segments are made in order and dropped from the oldest on, so none is missing
 * between START's and the newest, unless START lies below what was dropped: an
 * older superblock was used.  What still has a name there waits to be reused,
 * whole and without what followed.
 */
static bft_status check_no_gap(const struct wal_reader *reader, uint64_t start)
{
    const struct bfti_wal_options *options = reader->options;
    uint64_t want = start / options->segment_bytes;
    char path[WAL_PATH_BYTES];

    for (size_t i = 0; i < reader->count; i++) {
        if (reader->index[i] < want)
            continue;
        if (reader->index[i] == want) {
            want++;
            continue;
        }
        bfti_wal_path(options->dir, options->segment_bytes, want, path);
        return bfti_fail(BFT_CORRUPT,
                         "%s: the segment is missing, in a log that goes on "
                         "behind it",
                         path);
    }
    return BFT_OK;
}

bft_status bfti_wal_fail_short(const char *path, uint64_t bytes,
                               uint64_t segment_bytes)
{
    return bfti_fail(BFT_CORRUPT,
                     "%s: byte %" PRIu64
                     ": the file ends there, and a log segment has %" PRIu64
                     " bytes",
                     path, bytes, segment_bytes);
}

/* No crash leaves a file shorter than it was made, and that was durable before it
 * had its name: so a short one was cut, and what it has lost may be commits that
 * nothing else tells of.  What lies before START is not read. */
static bft_status check_lengths(struct wal_reader *reader, uint64_t start)
{
    const struct bfti_wal_options *options = reader->options;
    char path[WAL_PATH_BYTES];

    for (size_t i = 0; i < reader->count; i++) {
        uint64_t bytes;
        bft_status status;

        if (reader->index[i] < start / options->segment_bytes)
            continue;
        status = open_segment(reader, reader->index[i]);
        if (status == BFT_OK)
            status = reader->file->ops->size(reader->file, &bytes);
        if (status != BFT_OK)
            return status;
        bfti_wal_path(options->dir, options->segment_bytes, reader->index[i],
                      path);
        if (bytes < options->segment_bytes)
            return bfti_wal_fail_short(path, bytes, options->segment_bytes);
    }
    return BFT_OK;
}

bft_status bfti_wal_scan(const struct bfti_wal_options *options, uint64_t start,
                         uint64_t sb_mark,
                         bft_status (*each)(void *arg, uint64_t lsn,
                                            uint8_t type, const void *payload,
                                            size_t len),
                         void *arg, struct bfti_wal_found *found)
{
    struct bfti_wal_found seen = {.end = start};
    struct wal_reader reader;
    const char *why = NULL;
    uint32_t last = 0;
    bft_status status;

    memset(found, 0, sizeof(*found));
    if (start % WAL_ALIGN != 0)
        return bfti_fail(BFT_CORRUPT, "%s: no log frame can start at %" PRIu64,
                         options->dir, start);
    if (sb_mark % WAL_ALIGN != 0)
        return bfti_fail(BFT_CORRUPT, "%s: no log frame can end at %" PRIu64,
                         options->dir, sb_mark);
    status = bfti_wal_reader_open(&reader, options);
    if (status != BFT_OK)
        return status;
    for (;;) {
        struct wal_frame_view view;
        const uint8_t *payload;

        status = bfti_wal_reader_frame(&reader, seen.end, last, &view, &payload,
                                       &why);
        if (status != BFT_OK || why != NULL)
            break;
        if (each != NULL)
            status = each(arg, view.lsn, view.type, payload, view.len);
        if (status != BFT_OK)
            break;
        last = view.incarnation;
        if (last > seen.max_incarnation)
            seen.max_incarnation = last;
        if (view.mark > seen.highest_mark)
            seen.highest_mark = view.mark;
        seen.frames++;
        seen.end = view.end;
    }
    if (status == BFT_OK)
        status = check_no_gap(&reader, start);
    if (status == BFT_OK)
        status = check_lengths(&reader, start);
    if (status == BFT_OK)
        status = judge_end(&reader, sb_mark, last, why, &seen);
    bfti_wal_reader_close(&reader);
    if (status == BFT_OK)
        *found = seen;
    return status;
}
