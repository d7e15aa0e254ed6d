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
 * Until the superblock is written and durable, a file whose name says so makes
 * bft_open() refuse the directory.
 */
#include "engine.h"

#include <stdlib.h>

struct backup {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    const char *path;
    bft_backup_options options;
    struct bfti_vfs *vfs; /* where the copy goes */
    struct bfti_file *lock_file;
    bool ours; /* what the directory has came from us, and may be removed */
    struct bfti_pagefile *pf; /* the copy's */
    struct bfti_picture picture;
    struct bfti_scratch scratch;
};

/* --- the directory ------------------------------------------------------- */

/* What is in it. */
struct found {
    bool unfinished; /* a backup that may be removed */
    bool files;      /* of a database, or of that backup */
    bool others;
};

static bool is_content(const char *name)
{
    return strcmp(name, "data") == 0 || strncmp(name, "log-", 4) == 0;
}

static void note_name(void *arg, const char *name)
{
    struct found *found = arg;
    if (strcmp(name, BFTI_UNFINISHED) == 0)
        found->unfinished = true;
    else if (is_content(name))
        found->files = true;
    else if (strcmp(name, "lock") != 0)
        found->others = true;
}

static bft_status check_vacant(const struct backup *b, struct found *found)
{
    bft_status status;
    memset(found, 0, sizeof(*found));
    status = b->vfs->ops->list(b->vfs, b->path, note_name, found);
    if (status == BFT_OK && found->files && !found->unfinished)
        status = bfti_fail(BFT_EXISTS, "%s holds a database", b->path);
    if (status == BFT_OK && found->others)
        status = bfti_fail(BFT_EXISTS, "%s is not empty", b->path);
    return status;
}

struct removal {
    const struct backup *backup;
    bft_status status;
};

static void remove_content(void *arg, const char *name)
{
    struct removal *removal = arg;
    const struct backup *b = removal->backup;
    char *path;
    bft_status status;
    if (!is_content(name))
        return;
    status = bfti_join_path(b->engine->env, b->path, name, &path);
    if (status == BFT_OK) {
        status = b->vfs->ops->remove(b->vfs, path);
        bfti_free(b->engine->env, path);
    }
    if (removal->status == BFT_OK)
        removal->status = status;
}

static bft_status remove_contents(const struct backup *b)
{
    struct removal removal = {b, BFT_OK};
    bft_status status =
        b->vfs->ops->list(b->vfs, b->path, remove_content, &removal);
    return status == BFT_OK ? removal.status : status;
}

static bft_status open_name(const struct bfti_env *env, struct bfti_vfs *vfs,
                            const char *dir, const char *name, int flags,
                            struct bfti_file **file)
{
    char *path;
    bft_status status = bfti_join_path(env, dir, name, &path);
    if (status != BFT_OK)
        return status;
    status = vfs->ops->open(vfs, path, flags, file);
    bfti_free(env, path);
    return status;
}

static bft_status lock_target(struct backup *b)
{
    bft_status status = open_name(b->engine->env, b->vfs, b->path, "lock",
                                  BFTI_OPEN_CREATE, &b->lock_file);
    if (status == BFT_OK)
        status = b->lock_file->ops->lock(b->lock_file);
    if (status == BFT_BUSY)
        status = bfti_fail(BFT_BUSY, "%s is in use", b->path);
    return status;
}

/* From now on bft_open() refuses the directory, also after a crash. */
static bft_status mark_unfinished(struct backup *b)
{
    struct bfti_file *file;
    bft_status status = open_name(b->engine->env, b->vfs, b->path,
                                  BFTI_UNFINISHED, BFTI_OPEN_CREATE, &file);
    if (status != BFT_OK)
        return status;
    file->ops->close(file);
    b->ours = true;
    status = b->vfs->ops->sync_dir(b->vfs, b->path);
    return status == BFT_OK ? bfti_sync_parent(b->engine->env, b->vfs, b->path)
                            : status;
}

static bft_status target_begin(struct backup *b)
{
    uint64_t device, inode;
    struct found found;
    bft_status status = b->vfs->ops->identify(b->vfs, b->path, &device, &inode);
    if (status == BFT_NOT_FOUND)
        status = b->vfs->ops->make_dir(b->vfs, b->path);
    /* Before a lock file is made in what may be somebody's directory, and again
     * when nobody else can be at it. */
    if (status == BFT_OK)
        status = check_vacant(b, &found);
    if (status == BFT_OK)
        status = lock_target(b);
    if (status == BFT_OK)
        status = check_vacant(b, &found);
    if (status == BFT_OK && found.files)
        status = remove_contents(b);
    return status == BFT_OK ? mark_unfinished(b) : status;
}

static bft_status target_unmark(struct backup *b)
{
    char *path;
    bft_status status =
        bfti_join_path(b->engine->env, b->path, BFTI_UNFINISHED, &path);
    if (status != BFT_OK)
        return status;
    status = b->vfs->ops->remove(b->vfs, path);
    bfti_free(b->engine->env, path);
    if (status == BFT_OK) {
        b->ours = false; /* it is a database now */
        status = b->vfs->ops->sync_dir(b->vfs, b->path);
    }
    return status;
}

/* Close what is open.  After a failure the space is given back, and the mark
 * stays: an empty directory would be opened as a new database. */
static void target_end(struct backup *b)
{
    char text[512];
    bft_last_error(text, sizeof(text));
    bfti_pagefile_close(b->pf);
    if (b->ours) {
        bft_status status = remove_contents(b);
        if (status != BFT_OK) /* the failure that counts is the first one */
            (void)bfti_fail(status, "%s", text);
    }
    if (b->lock_file)
        b->lock_file->ops->close(b->lock_file);
}

bft_status bfti_check_finished(struct bfti_engine *engine)
{
    struct bfti_file *file;
    bft_status status = open_name(engine->env, engine->vfs, engine->path,
                                  BFTI_UNFINISHED, BFTI_OPEN_READ_ONLY, &file);
    if (status == BFT_NOT_FOUND)
        return BFT_OK;
    if (status != BFT_OK)
        return status;
    file->ops->close(file);
    return bfti_fail(
        BFT_CORRUPT,
        "%s holds a backup that was not finished (there is %s): it "
        "is no database",
        engine->path, BFTI_UNFINISHED);
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
                           b->path);
}

static bft_status copy_large(void *arg, const struct bfti_frame_record *record)
{
    struct backup *b = arg;
    struct bfti_buffer *buffer = &b->engine->buffer;
    struct bfti_places places = {NULL, 0, 0};
    struct bfti_large large;
    bft_status status;
    if (!(record->flags & BFTI_REC_LARGE))
        return BFT_OK;
    memcpy(&large, record->value.data, sizeof(large));
    status = bfti_large_places(buffer, b->rec, large, &places);
    for (size_t i = 0; status == BFT_OK && i < places.count; i++)
        status =
            bfti_extent_copy(buffer->pf, places.place[i], &b->scratch, b->pf);
    bfti_free(b->engine->env, places.place);
    return status;
}

static bft_status copy_named(void *arg, uint64_t lsn, uint8_t type,
                             const void *payload, size_t len)
{
    struct backup *b = arg;
    return type == BFTI_FRAME_WRITE
               ? bfti_frame_each(b->engine, lsn, payload, len, copy_large, b)
               : BFT_OK;
}

/* The log that the image needs, read again where it was written to; and the
 * extents that it names, which the image need not reach. */
static bft_status copy_log(struct backup *b)
{
    struct bfti_wal *wal = b->engine->buffer.wal;
    const struct bfti_superblock *sb = &b->picture.sb;
    struct bfti_wal_options log = {
        .env = b->engine->env,
        .vfs = b->vfs,
        .dir = b->path,
        .segment_bytes = sb->log_segment_bytes,
    };
    struct bfti_wal_found found;
    bft_status status =
        bfti_wal_export(wal, sb->redo_lsn, b->picture.log_end, b->vfs, b->path);
    if (status == BFT_OK)
        status = bfti_wal_scan(&log, sb->redo_lsn, b->picture.log_end,
                               copy_named, b, &found);
    if (status == BFT_OK && found.end != b->picture.log_end)
        status =
            bfti_fail(BFT_CORRUPT, "%s: the log ends at %llu instead of %llu",
                      b->engine->path, (unsigned long long)found.end,
                      (unsigned long long)b->picture.log_end);
    return status;
}

static bft_status open_copy(struct backup *b)
{
    struct bfti_pagefile_options options;
    char *path;
    bft_status status = bfti_join_path(b->engine->env, b->path, "data", &path);
    if (status != BFT_OK)
        return status;
    memset(&options, 0, sizeof(options));
    options.env = b->engine->env;
    options.vfs = b->vfs;
    options.path = path;
    options.create = true;
    status = bfti_pagefile_open(&options, &b->pf);
    bfti_free(b->engine->env, path);
    return status;
}

/* Everything but the superblock, while the source is held. */
static bft_status copy_held(struct backup *b)
{
    const struct bfti_superblock *sb = &b->picture.sb;
    bft_status status = open_copy(b);
    PARK("backup:held");
    if (status == BFT_OK)
        status = copy_log(b);
    bfti_wal_keep(b->engine->buffer.wal, UINT64_MAX);
    return status == BFT_OK ? bfti_image_copy(b->engine->buffer.pf, sb->map,
                                              sb->map_count, b->pf, tell, b)
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
    /* Not to wait for the next checkpoint, which tries again. */
    (void)(bfti_space_release(engine->buffer.pf) == BFT_OK);
    bfti_scratch_free(engine->env, &b->scratch);
    return status;
}

/* Name what was copied, once all of it is durable. */
static bft_status finish(struct backup *b)
{
    struct bfti_superblock *sb = &b->picture.sb;
    bft_status status = bfti_pagefile_sync(b->pf);
    if (status == BFT_OK)
        status = b->vfs->ops->sync_dir(b->vfs, b->path);
    if (status != BFT_OK)
        return status;
    /* A life of its own from here on; the frames are of the source's. */
    bfti_fill_id(b->engine->env, sb->database_id);
    sb->durable_mark = b->picture.log_end;
    status = bfti_superblock_write(b->pf, 0, sb);
    return status == BFT_OK ? target_unmark(b) : status;
}

static bft_status back_up(struct bfti_engine *engine, const char *path,
                          const bft_backup_options *options)
{
    struct backup b;
    bft_status status;
    memset(&b, 0, sizeof(b));
    b.engine = engine;
    b.path = path;
    b.options = *options;
    b.rec = bfti_rec_current(engine->buffer.threads);
    if (!b.rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = bfti_copy_vfs(engine, options->to, &b.vfs);
    if (status != BFT_OK)
        return status;
    status = target_begin(&b);
    if (status == BFT_OK)
        status = copy(&b);
    if (status == BFT_OK)
        status = finish(&b);
    target_end(&b);
    return status;
}

bft_status bft_backup(bft_db *db, const char *path,
                      const bft_backup_options *options)
{
    bft_backup_options defaults = {.size = sizeof(defaults)};
    struct bfti_engine *engine;
    bft_status status;
    if (!path || !*path)
        return bfti_fail(BFT_INVALID, "bft_backup: the path is %s",
                         path ? "empty" : "NULL");
    if (!options)
        options = &defaults;
    if (options->size != sizeof(defaults))
        return bfti_fail(BFT_INVALID, "option size: is not "
                                      "sizeof(bft_backup_options)");
    status = bfti_db_pin(db, &engine);
    if (status != BFT_OK)
        return status;
    if (bfti_mutex_try(&engine->backup_lock)) {
        status = back_up(engine, path, options);
        bfti_mutex_unlock(engine->env, &engine->backup_lock);
    } else {
        status =
            bfti_fail(BFT_BUSY, "%s is being backed up already", engine->path);
    }
    bfti_db_unpin(db);
    return status;
}
