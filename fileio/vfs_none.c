/*
 * What takes the place of "posix", "direct" and "uring" in a build without
 * threads, which knows no system's files: every name is refused, with a text
 * that says why.  Memory, the simulation and backends of the caller's remain.
 */
#include "error.h"
#include "vfs.h"
#include "vfs_common.h"

static bft_status refuse(const char *what, const char *path)
{
    return bfti_fail(BFT_UNSUPPORTED,
                     "%s %s: this build has no files of the system's", what,
                     path);
}

static bft_status none_open(struct bfti_vfs *vfs, const char *path, int flags,
                            struct bfti_file **out)
{
    (void)vfs, (void)flags;
    *out = NULL;
    return refuse("open", path);
}

static bft_status none_identify(struct bfti_vfs *vfs, const char *path,
                                uint64_t *device, uint64_t *inode)
{
    (void)vfs;
    *device = 0;
    *inode = 0;
    return refuse("stat", path);
}

static bft_status none_make_dir(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    return refuse("make directory", path);
}

static bft_status none_remove(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    return refuse("remove", path);
}

static bft_status none_rename(struct bfti_vfs *vfs, const char *from,
                              const char *to)
{
    (void)vfs, (void)to;
    return refuse("rename", from);
}

static bft_status none_list(struct bfti_vfs *vfs, const char *dir,
                            void (*each)(void *arg, const char *name),
                            void *arg)
{
    (void)vfs, (void)each, (void)arg;
    return refuse("list", dir);
}

static bft_status none_sync_dir(struct bfti_vfs *vfs, const char *dir)
{
    (void)vfs;
    return refuse("sync directory", dir);
}

/* No file is ever open: what works on one is not there. */
static const struct bfti_vfs_ops ops = {
    .name = "none",
    .open = none_open,
    .identify = none_identify,
    .make_dir = none_make_dir,
    .remove = none_remove,
    .rename = none_rename,
    .list = none_list,
    .sync_dir = none_sync_dir,
    .submit = bfti_vfs_submit_now,
    .reap = bfti_vfs_reap_none,
};

struct bfti_vfs *bfti_vfs_posix(void)
{
    static struct bfti_vfs vfs = {.ops = &ops};

    return &vfs;
}

struct bfti_vfs *bfti_vfs_direct(void)
{
    return bfti_vfs_posix();
}

struct bfti_vfs *bfti_vfs_uring(void)
{
    return bfti_vfs_posix();
}
