/*
 * The directory that a backup, or what is restored of backups, is written to.
 *
 * Until it is whole and durable, a file whose name says so makes bft_open()
 * refuse it, also after a crash.
 */
#include "backup.h"

/* What is in it. */
struct found {
    bool unfinished; /* a backup that may be removed */
    bool files;      /* of a database, or of that backup */
    bool others;
};

bool bfti_backup_is_content(const char *name)
{
    return strcmp(name, "data") == 0 || strncmp(name, "log-", 4) == 0 ||
           strcmp(name, BFTI_INCREMENT) == 0;
}

static void note_name(void *arg, const char *name)
{
    struct found *found = arg;
    if (strcmp(name, BFTI_UNFINISHED) == 0)
        found->unfinished = true;
    else if (bfti_backup_is_content(name))
        found->files = true;
    else if (strcmp(name, "lock") != 0)
        found->others = true;
}

static bft_status check_vacant(const struct bfti_backup_dir *dir,
                               struct found *found)
{
    bft_status status;
    memset(found, 0, sizeof(*found));
    status = dir->vfs->ops->list(dir->vfs, dir->path, note_name, found);
    if (status == BFT_OK && found->files && !found->unfinished)
        status = bfti_fail(BFT_EXISTS, "%s holds a database", dir->path);
    if (status == BFT_OK && found->others)
        status = bfti_fail(BFT_EXISTS, "%s is not empty", dir->path);
    return status;
}

struct removal {
    const struct bfti_backup_dir *dir;
    bft_status status;
};

static void remove_content(void *arg, const char *name)
{
    struct removal *removal = arg;
    const struct bfti_backup_dir *dir = removal->dir;
    char *path;
    bft_status status;
    if (!bfti_backup_is_content(name))
        return;
    status = bfti_join_path(dir->env, dir->path, name, &path);
    if (status == BFT_OK) {
        status = dir->vfs->ops->remove(dir->vfs, path);
        bfti_free(dir->env, path);
    }
    if (removal->status == BFT_OK)
        removal->status = status;
}

static bft_status remove_contents(const struct bfti_backup_dir *dir)
{
    struct removal removal = {dir, BFT_OK};
    bft_status status =
        dir->vfs->ops->list(dir->vfs, dir->path, remove_content, &removal);
    return status == BFT_OK ? removal.status : status;
}

static bft_status lock_dir(struct bfti_backup_dir *dir)
{
    bft_status status = bfti_open_name(dir->env, dir->vfs, dir->path, "lock",
                                       BFTI_OPEN_CREATE, &dir->lock_file);
    if (status == BFT_OK)
        status = dir->lock_file->ops->lock(dir->lock_file);
    if (status == BFT_BUSY)
        status = bfti_fail(BFT_BUSY, "%s is in use", dir->path);
    return status;
}

/* From now on bft_open() refuses the directory, also after a crash. */
static bft_status mark_unfinished(struct bfti_backup_dir *dir)
{
    struct bfti_file *file;
    bft_status status =
        bfti_open_name(dir->env, dir->vfs, dir->path, BFTI_UNFINISHED,
                       BFTI_OPEN_CREATE, &file);
    if (status != BFT_OK)
        return status;
    file->ops->close(file);
    dir->ours = true;
    status = dir->vfs->ops->sync_dir(dir->vfs, dir->path);
    return status == BFT_OK ? bfti_sync_parent(dir->env, dir->vfs, dir->path)
                            : status;
}

bft_status bfti_backup_dir_begin(struct bfti_backup_dir *dir)
{
    uint64_t device, inode;
    struct found found;
    struct bfti_vfs *vfs = dir->vfs;
    bft_status status = vfs->ops->identify(vfs, dir->path, &device, &inode);
    if (status == BFT_NOT_FOUND)
        status = vfs->ops->make_dir(vfs, dir->path);
    /* Before a lock file is made in what may be somebody's directory, and again
     * when nobody else can be at it. */
    if (status == BFT_OK)
        status = check_vacant(dir, &found);
    if (status == BFT_OK)
        status = lock_dir(dir);
    if (status == BFT_OK)
        status = check_vacant(dir, &found);
    if (status == BFT_OK && found.files)
        status = remove_contents(dir);
    return status == BFT_OK ? mark_unfinished(dir) : status;
}

static bft_status unmark(struct bfti_backup_dir *dir)
{
    char *path;
    bft_status status =
        bfti_join_path(dir->env, dir->path, BFTI_UNFINISHED, &path);
    if (status != BFT_OK)
        return status;
    status = dir->vfs->ops->remove(dir->vfs, path);
    bfti_free(dir->env, path);
    if (status == BFT_OK) {
        dir->ours = false; /* it is what it was to be */
        status = dir->vfs->ops->sync_dir(dir->vfs, dir->path);
    }
    return status;
}

bft_status bfti_backup_dir_finish(struct bfti_backup_dir *dir,
                                  struct bfti_pagefile *pf,
                                  struct bfti_superblock *sb)
{
    bft_status status = bfti_pagefile_sync(pf);
    if (status == BFT_OK)
        status = dir->vfs->ops->sync_dir(dir->vfs, dir->path);
    if (status != BFT_OK)
        return status;
    bfti_fill_id(dir->env, sb->database_id);
    status = bfti_superblock_write(pf, 0, sb);
    return status == BFT_OK ? unmark(dir) : status;
}

/* After a failure the space is given back, and the mark stays: an empty
 * directory would be opened as a new database. */
void bfti_backup_dir_end(struct bfti_backup_dir *dir)
{
    char text[512];
    bft_last_error(text, sizeof(text));
    if (dir->ours) {
        bft_status status = remove_contents(dir);
        if (status != BFT_OK) /* the failure that counts is the first one */
            (void)bfti_fail(status, "%s", text);
    }
    if (dir->lock_file)
        dir->lock_file->ops->close(dir->lock_file);
}

bft_status bfti_backup_dir_pagefile(const struct bfti_backup_dir *dir,
                                    struct bfti_pagefile **pf)
{
    struct bfti_pagefile_options options;
    char *path;
    bft_status status = bfti_join_path(dir->env, dir->path, "data", &path);
    if (status != BFT_OK)
        return status;
    memset(&options, 0, sizeof(options));
    options.env = dir->env;
    options.vfs = dir->vfs;
    options.path = path;
    options.create = true;
    status = bfti_pagefile_open(&options, pf);
    bfti_free(dir->env, path);
    return status;
}

/* BFT_OK when the engine's directory has no file NAME, else a failure. */
static bft_status check_without(struct bfti_engine *engine, const char *name,
                                bft_status failure, const char *what)
{
    struct bfti_file *file;
    bft_status status = bfti_open_name(engine->env, engine->vfs, engine->path,
                                       name, BFTI_OPEN_READ_ONLY, &file);
    if (status == BFT_NOT_FOUND)
        return BFT_OK;
    if (status != BFT_OK)
        return status;
    file->ops->close(file);
    return bfti_fail(failure, "%s holds %s (there is %s): it is no database",
                     engine->path, what, name);
}

bft_status bfti_check_finished(struct bfti_engine *engine)
{
    bft_status status = check_without(engine, BFTI_UNFINISHED, BFT_CORRUPT,
                                      "a backup that was not finished");
    return status == BFT_OK
               ? check_without(engine, BFTI_INCREMENT, BFT_INVALID,
                               "an incremental backup, of which bft_restore() "
                               "makes one")
               : status;
}
