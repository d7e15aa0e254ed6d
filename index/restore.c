/*
 * A database made of backups: a whole one, and increments to it.
 *
 * First goes what the last of them stores itself, as it is: large values that
 * only its log names are in it.  Then its image, read through all of them, each
 * extent checked; then its log, and the superblock once all is durable.
 */
#include "backup.h"

enum { PIECE = 1 << 20 };

struct restore {
    const struct bfti_env *env;
    struct bfti_chain *chain;
    struct bfti_backup_dir dir;
    struct bfti_pagefile *from, *to;
    const char *last; /* where the log is */
    uint8_t *piece;
    bft_status status; /* of a listing */
};

static bool is_zero(const uint8_t *bytes, size_t len)
{
    return len == 0 ||
           (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* Write the LEN bytes of the piece, which are of AT; blocks of zeros are left out:
 * nothing is there. */
static bft_status write_piece(struct restore *r, uint64_t at, size_t len)
{
    bft_status status = BFT_OK;
    size_t from = 0;
    for (size_t i = 0; i <= len && status == BFT_OK; i += BFTI_BLOCK) {
        if (i < len && !is_zero(r->piece + i, BFTI_BLOCK))
            continue;
        if (from < i)
            status =
                bfti_pagefile_put(r->to, at + from, r->piece + from, i - from);
        from = i + BFTI_BLOCK;
    }
    return status;
}

static bft_status copy_blocks(void *ctx, uint64_t first, uint64_t count)
{
    struct restore *r = ctx;
    uint64_t at = first * BFTI_BLOCK, end = at + count * BFTI_BLOCK;
    while (at < end) {
        size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
        bft_status status = bfti_chain_read(r->chain, at, r->piece, n);
        if (status == BFT_OK)
            status = write_piece(r, at, n);
        if (status != BFT_OK)
            return status;
        at += n;
    }
    return BFT_OK;
}

static bft_status go_on(void *ctx, const struct bfti_image_progress *now)
{
    (void)ctx;
    (void)now;
    return BFT_OK;
}

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

static bft_status copy_log(struct restore *r)
{
    bft_status status =
        r->dir.vfs->ops->list(r->dir.vfs, r->last, copy_segment, r);
    return status == BFT_OK ? r->status : status;
}

static bft_status copy(struct restore *r)
{
    const struct bfti_image_copying how = {.progress = go_on};
    struct bfti_superblock sb = *bfti_chain_superblock(r->chain);
    bft_status status = bfti_backup_dir_pagefile(&r->dir, &r->to);
    if (status == BFT_OK)
        status = bfti_chain_each_last(r->chain, copy_blocks, r);
    if (status == BFT_OK)
        status = bfti_image_copy(r->from, sb.map, sb.map_count, r->to, &how);
    if (status == BFT_OK)
        status = copy_log(r);
    return status == BFT_OK ? bfti_backup_dir_finish(&r->dir, r->to, &sb)
                            : status;
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
    r.piece = bfti_alloc(r.env, PIECE);
    if (!r.piece)
        return bfti_fail(BFT_NO_MEMORY, "no memory to restore %s", to);
    status = bfti_chain_open(r.env, r.dir.vfs, backups, count, &r.chain);
    if (status == BFT_OK)
        status = bfti_chain_pagefile(r.chain, &r.from);
    if (status == BFT_OK)
        status = bfti_backup_dir_begin(&r.dir);
    if (status == BFT_OK)
        status = copy(&r);
    bfti_pagefile_close(r.to);
    bfti_backup_dir_end(&r.dir);
    bfti_pagefile_close(r.from);
    bfti_chain_close(r.chain);
    bfti_free(r.env, r.piece);
    return status;
}
