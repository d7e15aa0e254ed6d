/*
 * The log that makes a copy whole: is all of it there, and what it names too?
 *
 * Redo of the copy reads it once more.  But that comes when the source may be
 * gone, and it reads of a large value no more than the list of its extents.
 */
#include "backup.h"

/* The extents of one value. */
static bft_status each_extent(const struct bfti_backup_log *log,
                              struct bfti_large large)
{
    struct bfti_places places = {NULL, 0, 0};
    bft_status status =
        bfti_large_places(log->buffer, log->rec, large, &places);
    for (size_t i = 0; status == BFT_OK && i < places.count; i++)
        status = log->extent(log->ctx, places.place[i]);
    bfti_free(log->buffer->env, places.place);
    return status == BFT_CORRUPT
               ? bfti_fail_in(status, "a value that the log names")
               : status;
}

static bft_status on_record(void *arg, const struct bfti_frame_record *record)
{
    struct bfti_large large;
    if (!(record->flags & BFTI_REC_LARGE))
        return BFT_OK;
    memcpy(&large, record->value.data, sizeof(large));
    return each_extent(arg, large);
}

static bft_status on_frame(void *arg, uint64_t lsn, uint8_t type,
                           const void *payload, size_t len)
{
    const struct bfti_backup_log *log = arg;
    return type == BFTI_FRAME_WRITE
               ? bfti_frame_each(log->dir, lsn, payload, len, on_record, arg)
               : BFT_OK;
}

bft_status bfti_backup_log_read(struct bfti_backup_log *log,
                                const struct bfti_superblock *sb, uint64_t end)
{
    struct bfti_wal_options options = {
        .env = log->buffer->env,
        .vfs = log->vfs,
        .dir = log->dir,
        .segment_bytes = sb->log_segment_bytes,
    };
    struct bfti_wal_found found;
    bft_status status =
        bfti_wal_scan(&options, sb->redo_lsn, end, on_frame, log, &found);
    if (status == BFT_OK && found.end != end)
        status = bfti_fail(
            BFT_CORRUPT, "%s: the log ends at %llu instead of %llu", log->dir,
            (unsigned long long)found.end, (unsigned long long)end);
    return status;
}
