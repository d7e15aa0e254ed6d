/*
 * A part of the log, as a log of its own: what a copy of the database is redone
 * from.  The bytes of the part are fixed, being durable; those behind it may be
 * written while this runs, and are not read.
 */
#include "wal_internal.h"

#include <string.h>

#include "error.h"

/* Write segment INDEX into FILE: the bytes of [FROM, UPTO), and zeros around
 * them.  BUF: a chunk to work with. */
static bft_status segment_fill(struct bfti_wal *wal, struct bfti_file *file,
                               uint64_t index, uint64_t from, uint64_t upto,
                               uint8_t *buf)
{
    uint64_t base = index * wal->segment_bytes;

    for (uint64_t at = 0; at < wal->segment_bytes;) {
        uint64_t pos = base + at;
        uint64_t left = wal->segment_bytes - at;
        size_t n = left < WAL_CHUNK ? (size_t)left : WAL_CHUNK;
        uint64_t low = pos > from ? pos : from;
        uint64_t high = pos + n < upto ? pos + n : upto;
        bft_status status = BFT_OK;

        memset(buf, 0, n);
        if (low < high)
            status = bfti_segments_read(wal, low, buf + (low - pos),
                                        (size_t)(high - low));
        if (status == BFT_OK)
            status = file->ops->write(file, at, buf, n);
        if (status != BFT_OK)
            return status;
        at += n;
    }
    return file->ops->sync(file);
}

static bft_status segment_export(struct bfti_wal *wal, uint64_t index,
                                 uint64_t from, uint64_t upto,
                                 struct bfti_vfs *vfs, const char *dir,
                                 uint8_t *buf)
{
    char path[WAL_PATH_BYTES];
    struct bfti_file *file;
    bft_status status;

    bfti_wal_path(dir, wal->segment_bytes, index, path);
    status = vfs->ops->open(vfs, path, BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE,
                            &file);
    if (status != BFT_OK)
        return status;
    status = segment_fill(wal, file, index, from, upto, buf);
    file->ops->close(file);
    return status;
}

bft_status bfti_wal_export(struct bfti_wal *wal, uint64_t from, uint64_t upto,
                           struct bfti_vfs *vfs, const char *dir)
{
    uint8_t *buf;
    bft_status status;

    assert(from <= upto && upto <= atomic_load(&wal->durable));
    if (from == upto)
        return BFT_OK;
    status = bfti_wal_check_dir(dir);
    if (status != BFT_OK)
        return status;
    buf = bfti_alloc(wal->env, WAL_CHUNK);
    if (buf == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to copy the log",
                         wal->dir);
    for (uint64_t i = from / wal->segment_bytes;
         status == BFT_OK && i <= (upto - 1) / wal->segment_bytes; i++)
        status = segment_export(wal, i, from, upto, vfs, dir, buf);
    bfti_free(wal->env, buf);
    return status;
}
