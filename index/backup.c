/*
 * Online backup: a directory with a copy of one checkpoint's image, and of the
 * log that makes it whole.
 *
 * The image is fuzzy: it has all that was published before its cut and some of
 * what came later.  Redo from its start up to where the log ended when the image
 * was complete makes it the database of that instant, as after a crash there.
 * So the copy gets the image's extents, at the same offsets, that part of the
 * log, and the extents of large values which it names; the first opening redoes
 * it.
 *
 * An increment has of the image only the blocks that differ from what the backups
 * before it have there; all that the log names it has itself.
 */
#include "backup.h"
#include "cache.h"
#include "image.h"

#include <stdlib.h>

enum { SEEN_BLOCKS = 256, SEEN_BYTES = SEEN_BLOCKS * BFTI_BLOCK };

struct backup {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_backup_options options;
    struct bfti_backup_dir dir;
    struct bfti_pagefile *pf; /* the copy's */
    struct bfti_picture picture;
    struct bfti_scratch scratch;

    /* Of an increment: */
    struct bfti_chain *chain;    /* what it is to; or NULL */
    struct bfti_block_runs runs; /* the blocks that it has */
    uint8_t *seen;               /* blocks of the chain ... */
    uint64_t seen_first;
    unsigned seen_count; /* ... how many */
};

/* --- increments ---------------------------------------------------------- */

/* Have BLOCKS blocks of the chain in memory. */
static bft_status see(struct backup *b, uint64_t block, unsigned blocks)
{
    bft_status status = BFT_OK;
    if (block >= b->seen_first &&
        block + blocks <= b->seen_first + b->seen_count)
        return BFT_OK;
    b->seen_count = 0;
    if (!b->seen && !(b->seen = bfti_alloc(b->engine->env, SEEN_BYTES)))
        return bfti_fail(BFT_NO_MEMORY, "no memory to read a backup");
    status = bfti_chain_read(b->chain, block * BFTI_BLOCK, b->seen,
                             (size_t)blocks * BFTI_BLOCK);
    if (status == BFT_OK) {
        b->seen_first = block;
        b->seen_count = blocks;
    }
    return status;
}

static bool is_seen(const struct backup *b, uint64_t block,
                    const uint8_t *bytes)
{
    return memcmp(b->seen + (size_t)(block - b->seen_first) * BFTI_BLOCK, bytes,
                  BFTI_BLOCK) == 0;
}

/* Only blocks that the chain has not, or otherwise. */
static bft_status choose(void *ctx, uint64_t block, const uint8_t *bytes,
                         unsigned blocks, unsigned *n, bool *wanted)
{
    struct backup *b = ctx;
    bft_status status;
    if (blocks > SEEN_BLOCKS)
        blocks = SEEN_BLOCKS;
    status = see(b, block, blocks);
    if (status != BFT_OK)
        return status;
    *wanted = !is_seen(b, block, bytes);
    for (*n = 1; *n < blocks; ++*n)
        if (is_seen(b, block + *n, bytes + (size_t)*n * BFTI_BLOCK) == *wanted)
            break;
    return *wanted ? bfti_block_runs_add(b->engine->env, &b->runs, block, *n)
                   : BFT_OK;
}

/* --- copying ------------------------------------------------------------- */

static bft_status tell(void *arg, const struct bfti_image_progress *now)
{
    struct backup *b = arg;
    bft_backup_progress progress = {
        .lsn = b->picture.log_end,
        .copied_bytes = now->copied_bytes,
        .total_bytes = now->total_bytes,
    };
    struct bfti_space_stats space;
    bft_status status;
    PARK("backup:copied");
    if (!b->options.progress)
        return BFT_OK;
    bfti_space_stats(b->engine->buffer.pf, &space);
    progress.held_bytes = space.kept_bytes;
    status = b->options.progress(b->options.ctx, &progress);
    return status == BFT_OK
               ? BFT_OK
               : bfti_fail(status, "%s: the backup was ended by its caller",
                           b->dir.path);
}

/* Always, also into an increment: the image need not reach it. */
static bft_status copy_extent(void *ctx, uint64_t place)
{
    struct backup *b = ctx;
    uint64_t first = bfti_disk_grain(place) * BFTI_GRAIN / BFTI_BLOCK;
    uint64_t bytes = (uint64_t)bfti_disk_grains(place) * BFTI_GRAIN;
    bft_status status =
        bfti_extent_copy(b->engine->buffer.pf, place, &b->scratch, b->pf);
    if (status != BFT_OK || !b->chain)
        return status;
    return bfti_block_runs_add(b->engine->env, &b->runs, first,
                               (bytes + BFTI_BLOCK - 1) / BFTI_BLOCK);
}

/* The log that the image needs, read again where it was written to; and the
 * extents that it names, which the image need not reach. */
static bft_status copy_log(struct backup *b)
{
    struct bfti_buffer *buffer = &b->engine->buffer;
    const struct bfti_superblock *sb = &b->picture.sb;
    struct bfti_backup_log log = {b->dir.vfs, b->dir.path, buffer,
                                  b->rec,     copy_extent, b};
    bft_status status = bfti_wal_export(
        buffer->wal, sb->redo_lsn, b->picture.log_end, b->dir.vfs, b->dir.path);
    if (status == BFT_OK)
        status = bfti_backup_log_read(&log, sb, b->picture.log_end);
    /* By that name it is gone soon; segments are called the same in the source. */
    return status == BFT_CORRUPT ? bfti_fail_in(status, "%s", b->engine->path)
                                 : status;
}

/* Everything but the superblock, while the source is held. */
static bft_status copy_held(struct backup *b)
{
    const struct bfti_superblock *sb = &b->picture.sb;
    const struct bfti_image_copying how = {tell, b->chain ? choose : NULL, b};
    bft_status status = bfti_backup_dir_pagefile(&b->dir, &b->pf);
    PARK("backup:held");
    if (status == BFT_OK)
        status = copy_log(b);
    bfti_wal_keep(b->engine->buffer.wal, UINT64_MAX);
    return status == BFT_OK ? bfti_image_copy(b->engine->buffer.pf, sb->map,
                                              sb->map_count, b->pf, &how)
                            : status;
}

static bft_status copy(struct backup *b)
{
    struct bfti_engine *engine = b->engine;
    bft_status status = bfti_checkpoint_hold(engine, b->rec, &b->picture);
    if (status != BFT_OK)
        return status;
    status = copy_held(b);
    bfti_space_unhold(engine->buffer.pf);
    /* Not to wait for the next checkpoint, which tries again.  Under the lock, as
     * there: bfti_verify() relies on it that nothing is reused that it has met. */
    if (bfti_mutex_try(&engine->checkpoint_lock)) {
        (void)(bfti_space_release(engine->buffer.pf) == BFT_OK);
        bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    }
    bfti_scratch_free(engine->env, &b->scratch);
    return status;
}

/* Name what was copied, once all of it is durable. */
static bft_status finish(struct backup *b)
{
    bft_status status = BFT_OK;
    if (b->chain)
        status = bfti_increment_write(
            &b->dir, bfti_chain_superblock(b->chain)->database_id, &b->runs);
    b->picture.sb.durable_mark = b->picture.log_end;
    return status == BFT_OK
               ? bfti_backup_dir_finish(&b->dir, b->pf, &b->picture.sb)
               : status;
}

static bft_status back_up(struct bfti_engine *engine, const char *path,
                          const bft_backup_options *options)
{
    struct backup b;
    bft_status status;
    memset(&b, 0, sizeof(b));
    b.engine = engine;
    b.options = *options;
    b.dir.env = engine->env;
    b.dir.path = path;
    b.rec = bfti_rec_current(engine->buffer.threads);
    if (!b.rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = bfti_copy_vfs(engine, options->to, &b.dir.vfs);
    if (status == BFT_OK && options->base_count)
        status = bfti_chain_open(engine->env, b.dir.vfs, options->base,
                                 options->base_count, &b.chain);
    if (status != BFT_OK)
        return status;
    status = bfti_backup_dir_begin(&b.dir);
    if (status == BFT_OK)
        status = copy(&b);
    if (status == BFT_OK)
        status = finish(&b);
    bfti_pagefile_close(b.pf);
    bfti_backup_dir_end(&b.dir);
    bfti_chain_close(b.chain);
    bfti_block_runs_free(engine->env, &b.runs);
    bfti_free(engine->env, b.seen);
    return status;
}

/* GIVEN may be of a caller who does not know of the last options. */
static bft_status copy_options(const bft_backup_options *given,
                               bft_backup_options *options)
{
    size_t least = offsetof(bft_backup_options, base);
    memset(options, 0, sizeof(*options));
    if (given && (given->size < least || given->size > sizeof(*options)))
        return bfti_fail(BFT_INVALID, "option size: is not "
                                      "sizeof(bft_backup_options)");
    if (given)
        memcpy(options, given, given->size);
    if (options->base_count && !options->base)
        return bfti_fail(BFT_INVALID, "option base: is NULL with a count");
    return BFT_OK;
}

bft_status bft_backup(bft_db *db, const char *path,
                      const bft_backup_options *options)
{
    bft_backup_options filled;
    struct bfti_engine *engine;
    bft_status status;
    if (!path || !*path)
        return bfti_fail(BFT_INVALID, "bft_backup: the path is %s",
                         path ? "empty" : "NULL");
    status = copy_options(options, &filled);
    if (status == BFT_OK)
        status = bfti_db_pin(db, &engine);
    if (status != BFT_OK)
        return status;
    status = bfti_check_keeps(engine, "it has no backups");
    if (status != BFT_OK) {
        bfti_db_unpin(db);
        return status;
    }
    if (bfti_mutex_try(&engine->backup_lock)) {
        status = back_up(engine, path, &filled);
        bfti_mutex_unlock(engine->env, &engine->backup_lock);
    } else {
        status =
            bfti_fail(BFT_BUSY, "%s is being backed up already", engine->path);
    }
    bfti_db_unpin(db);
    return status;
}
