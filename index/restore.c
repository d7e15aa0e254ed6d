/*
 * A database made of backups: a whole one, and increments to it.
 *
 * It is made as a backup is, with what the backups are together for a source:
 * the log of the last of them is read and copied, and the extents that it names;
 * then the image, each extent checked; and the superblock once all is durable.
 */
#include "backup.h"

enum { PIECE = 1 << 20 };

struct restore {
    const struct bfti_env *env;
    struct bfti_chain *chain;
    struct bfti_backup_dir dir;
    struct bfti_buffer from; /* its page file is what the chain is together */
    struct bfti_rec *rec;
    struct bfti_pagefile *to;
    struct bfti_scratch scratch;
    const char *last;  /* where the log is */
    uint8_t *piece;    /* of it */
    bft_status status; /* of a listing */
};

static bft_status copy_bytes(struct restore *r, struct bfti_file *from,
                             struct bfti_file *to)
{
    uint64_t at = 0;
    size_t got = 0;
    do {
        bft_status status = from->ops->read(from, at, r->piece, PIECE, &got);
        if (status == BFT_OK && got > 0)
            status = to->ops->write(to, at, r->piece, got);
        if (status != BFT_OK)
            return status;
        at += got;
    } while (got == PIECE);
    return to->ops->sync(to);
}

static void copy_segment(void *arg, const char *name)
{
    struct restore *r = arg;
    struct bfti_file *from, *to;
    bft_status status;
    if (r->status != BFT_OK || strncmp(name, "log-", 4) != 0)
        return;
    status = bfti_open_name(r->env, r->dir.vfs, r->last, name,
                            BFTI_OPEN_READ_ONLY, &from);
    if (status == BFT_OK) {
        status = bfti_open_name(r->env, r->dir.vfs, r->dir.path, name,
                                BFTI_OPEN_CREATE, &to);
        if (status == BFT_OK) {
            status = copy_bytes(r, from, to);
            to->ops->close(to);
        }
        from->ops->close(from);
    }
    r->status = status;
}

static bft_status copy_extent(void *ctx, uint64_t place)
{
    struct restore *r = ctx;
    return bfti_extent_copy(r->from.pf, place, &r->scratch, r->to);
}

/* Also the extents that it names, which the image need not reach. */
static bft_status copy_log(struct restore *r, const struct bfti_superblock *sb)
{
    struct bfti_backup_log log = {r->dir.vfs, r->last,     &r->from,
                                  r->rec,     copy_extent, r};
    bft_status status = bfti_backup_log_read(&log, sb, sb->durable_mark);
    bfti_scratch_free(r->env, &r->scratch);
    r->piece = status == BFT_OK ? bfti_alloc(r->env, PIECE) : NULL;
    if (status == BFT_OK && !r->piece)
        status = bfti_fail(BFT_NO_MEMORY, "no memory to copy a log");
    if (status == BFT_OK)
        status = r->dir.vfs->ops->list(r->dir.vfs, r->last, copy_segment, r);
    bfti_free(r->env, r->piece);
    return status == BFT_OK ? r->status : status;
}

static bft_status go_on(void *ctx, const struct bfti_image_progress *now)
{
    (void)ctx;
    (void)now;
    return BFT_OK;
}

static bft_status copy(struct restore *r)
{
    const struct bfti_image_copying how = {.progress = go_on};
    struct bfti_superblock sb = *bfti_chain_superblock(r->chain);
    bft_status status = bfti_backup_dir_pagefile(&r->dir, &r->to);
    if (status == BFT_OK)
        status = copy_log(r, &sb);
    if (status == BFT_OK)
        status = bfti_image_copy(r->from.pf, sb.map, sb.map_count, r->to, &how);
    return status == BFT_OK ? bfti_backup_dir_finish(&r->dir, r->to, &sb)
                            : status;
}

/* What reading extents takes, and no more. */
static bft_status open_from(struct restore *r, const char *const *backups,
                            size_t count)
{
    bft_status status =
        bfti_chain_open(r->env, r->dir.vfs, backups, count, &r->chain);
    r->from.env = r->env;
    if (status == BFT_OK)
        status = bfti_chain_pagefile(r->chain, &r->from.pf);
    if (status == BFT_OK)
        status = bfti_threads_create(r->env, &r->from.threads);
    if (status != BFT_OK)
        return status;
    r->rec = bfti_rec_take(r->from.threads);
    return r->rec ? BFT_OK
                  : bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
}

static void close_from(struct restore *r)
{
    if (r->rec)
        bfti_rec_give(r->rec);
    if (r->from.threads)
        bfti_threads_destroy(r->from.threads);
    bfti_pagefile_close(r->from.pf);
    bfti_chain_close(r->chain);
}

bft_status bft_restore(const char *const *backups, size_t count, const char *to,
                       const bft_options *options)
{
    struct restore r;
    bft_status status;
    memset(&r, 0, sizeof(r));
    if (!backups || count == 0)
        return bfti_fail(BFT_INVALID, "bft_restore: no backup is named");
    if (!to || !*to)
        return bfti_fail(BFT_INVALID, "bft_restore: the path is %s",
                         to ? "empty" : "NULL");
    status = bfti_options_vfs(options, &r.env, &r.dir.vfs);
    if (status != BFT_OK)
        return status;
    r.dir.env = r.env;
    r.dir.path = to;
    r.last = backups[count - 1];
    status = open_from(&r, backups, count);
    if (status == BFT_OK)
        status = bfti_backup_dir_begin(&r.dir);
    if (status == BFT_OK)
        status = copy(&r);
    bfti_pagefile_close(r.to);
    bfti_backup_dir_end(&r.dir);
    close_from(&r);
    return status;
}
