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
static bft_status segment_fill(struct wal_reader *reader,
                               struct bfti_file *file, uint64_t index,
                               uint64_t from, uint64_t upto, uint8_t *buf)
{
    uint64_t segment_bytes = reader->options->segment_bytes;
    uint64_t base = index * segment_bytes;

    for (uint64_t at = 0; at < segment_bytes;) {
        uint64_t pos = base + at;
        uint64_t left = segment_bytes - at;
        size_t n = left < WAL_CHUNK ? (size_t)left : WAL_CHUNK;
        uint64_t low = pos > from ? pos : from;
        uint64_t high = pos + n < upto ? pos + n : upto;
        const uint8_t *bytes;
        bft_status status;

        memset(buf, 0, n);
        if (low < high) {
            status =
                bfti_wal_reader_get(reader, low, (size_t)(high - low), &bytes);
            if (status != BFT_OK)
                return status;
            memcpy(buf + (low - pos), bytes, (size_t)(high - low));
        }
        status = file->ops->write(file, at, buf, n);
        if (status != BFT_OK)
            return status;
        at += n;
    }
    return file->ops->sync(file);
}

static bft_status segment_export(struct wal_reader *reader, uint64_t index,
                                 uint64_t from, uint64_t upto,
                                 struct bfti_vfs *vfs, const char *dir,
                                 uint8_t *buf)
{
    char path[WAL_PATH_BYTES];
    struct bfti_file *file;
    bft_status status;

    bfti_wal_path(dir, reader->options->segment_bytes, index, path);
    status = vfs->ops->open(vfs, path, BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE,
                            &file);
    if (status != BFT_OK)
        return status;
    status = segment_fill(reader, file, index, from, upto, buf);
    file->ops->close(file);
    return status;
}

/* Not by listing the directory, whose names change meanwhile: those that we want
 * are there, and stay. */
static bft_status reader_begin(struct wal_reader *reader,
                               const struct bfti_wal_options *options,
                               uint64_t from, uint64_t upto)
{
    uint64_t first = from / options->segment_bytes;
    size_t count = (size_t)((upto - 1) / options->segment_bytes - first + 1);

    memset(reader, 0, sizeof(*reader));
    reader->options = options;
    reader->chunk = WAL_CHUNK;
    reader->index = bfti_alloc(options->env, count * sizeof(*reader->index));
    if (reader->index == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: list of log segments",
                         options->dir);
    reader->count = count;
    for (size_t i = 0; i < count; i++)
        reader->index[i] = first + i;
    reader->limit = upto;
    return BFT_OK;
}

bft_status bfti_wal_export(struct bfti_wal *wal, uint64_t from, uint64_t upto,
                           struct bfti_vfs *vfs, const char *dir)
{
    struct bfti_wal_options options = {
        .env = wal->env,
        .vfs = wal->vfs,
        .dir = wal->dir,
        .segment_bytes = wal->segment_bytes,
    };
    struct wal_reader reader;
    uint8_t *buf;
    bft_status status;

    assert(from <= upto && upto <= atomic_load(&wal->durable));
    if (from == upto)
        return BFT_OK;
    status = bfti_wal_check_dir(dir);
    if (status == BFT_OK)
        status = reader_begin(&reader, &options, from, upto);
    if (status != BFT_OK)
        return status;
    buf = bfti_alloc(wal->env, WAL_CHUNK);
    if (buf == NULL)
        status =
            bfti_fail(BFT_NO_MEMORY, "%s: no memory to copy the log", wal->dir);
    for (uint64_t i = from / wal->segment_bytes;
         status == BFT_OK && i <= (upto - 1) / wal->segment_bytes; i++)
        status = segment_export(&reader, i, from, upto, vfs, dir, buf);
    bfti_free(wal->env, buf);
    bfti_wal_reader_close(&reader);
    return status;
}
