/*
 * A file system in memory.  One mutex guards all names and counts; the bytes
 * of each file have a mutex of their own, held only for a copy.
 */
#include "vfs_memory.h"

#include <assert.h>
#include <string.h>

#include "error.h"
#include "names.h"
#include "sparse.h"
#include "vfs_common.h"

struct memory_file;

struct memory_node {
    struct bfti_node node;
    uint32_t refs;                 /* names and handles; under names_lock */
    struct memory_file *locked_by; /* under names_lock */
    struct bfti_mutex bytes_lock;
    struct bfti_sparse bytes; /* under bytes_lock */
    struct memory_node *next; /* of all nodes; under names_lock */
    struct memory_node *prev; /* under names_lock */
};

struct memory_vfs {
    struct bfti_vfs vfs;
    const struct bfti_env *env; /* fixed after init */
    uint64_t device;            /* fixed after init */
    struct bfti_mutex names_lock;
    struct memory_node *nodes; /* under names_lock */
    struct memory_node *root; /* fixed after init; its names under names_lock */
    uint64_t last_id;         /* under names_lock */
};

struct memory_file {
    struct bfti_file file;
    struct memory_vfs *vfs;   /* fixed after open */
    struct memory_node *node; /* fixed after open */
    bool read_only;           /* fixed after open */
    char *path;               /* fixed after open; for texts */
};

static struct memory_vfs *memory_of(struct bfti_vfs *vfs)
{
    return (struct memory_vfs *)vfs;
}

static struct memory_file *file_of(struct bfti_file *file)
{
    return (struct memory_file *)file;
}

static struct memory_node *node_of(struct bfti_node *node)
{
    return (struct memory_node *)node;
}

static void lock_names(struct memory_vfs *vfs)
{
    bfti_mutex_lock(vfs->env, &vfs->names_lock);
}

static void unlock_names(struct memory_vfs *vfs)
{
    bfti_mutex_unlock(vfs->env, &vfs->names_lock);
}

/* --- nodes: under names_lock --------------------------------------------- */

/* A node that nothing names yet; NULL: no memory. */
static struct memory_node *node_create(struct memory_vfs *vfs, bool is_dir)
{
    struct memory_node *node = bfti_alloc(vfs->env, sizeof(*node));

    if (node == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY, "file in memory: no memory");
        return NULL;
    }
    *node = (struct memory_node){
        .node = {.is_dir = is_dir, .id = ++vfs->last_id},
        .next = vfs->nodes,
    };
    if (vfs->nodes != NULL)
        vfs->nodes->prev = node;
    vfs->nodes = node;
    return node;
}

static void node_free(struct memory_vfs *vfs, struct memory_node *node)
{
    if (node->prev != NULL)
        node->prev->next = node->next;
    else
        vfs->nodes = node->next;
    if (node->next != NULL)
        node->next->prev = node->prev;
    bfti_names_free(vfs->env, &node->node.names);
    bfti_sparse_free(vfs->env, &node->bytes);
    bfti_free(vfs->env, node);
}

static void node_release(struct memory_vfs *vfs, struct memory_node *node)
{
    assert(node->refs > 0);
    node->refs--;
    if (node->refs == 0)
        node_free(vfs, node);
}

/* Make a file or directory at the missing SPOT. */
static bft_status node_make_at(struct memory_vfs *vfs,
                               const struct bfti_spot *spot, bool is_dir,
                               struct memory_node **out)
{
    struct memory_node *node = node_create(vfs, is_dir);
    struct bfti_node *old;
    bft_status status;

    *out = NULL;
    if (node == NULL)
        return BFT_NO_MEMORY;
    status = bfti_names_set(vfs->env, &spot->dir->names, spot->name,
                            spot->name_len, &node->node, &old);
    if (status != BFT_OK) {
        node_free(vfs, node);
        return status;
    }
    assert(old == NULL);
    node->refs = 1;
    *out = node;
    return BFT_OK;
}

/* --- open and close ------------------------------------------------------ */

/* The file at PATH, made if FLAGS say so, with a reference for the caller.
 * Under names_lock. */
static bft_status node_open(struct memory_vfs *vfs, const char *path, int flags,
                            struct memory_node **out)
{
    struct bfti_spot spot;
    bft_status status;

    *out = NULL;
    if ((flags & BFTI_OPEN_EXCLUSIVE) != 0)
        status = bfti_spot_find_free(&vfs->root->node, path, &spot);
    else if ((flags & BFTI_OPEN_CREATE) != 0)
        status = bfti_spot_find(&vfs->root->node, path, &spot);
    else
        status = bfti_spot_find_file(&vfs->root->node, path, &spot);
    if (status != BFT_OK)
        return status;
    if (spot.node == NULL) {
        status = node_make_at(vfs, &spot, false, out);
        if (status != BFT_OK)
            return status;
    } else if (spot.node->is_dir) {
        return bfti_fail(BFT_INVALID, "open %s: is a directory", path);
    } else {
        *out = node_of(spot.node);
    }
    (*out)->refs++;
    return BFT_OK;
}

static bft_status memory_open(struct bfti_vfs *base, const char *path,
                              int flags, struct bfti_file **out)
{
    struct memory_vfs *vfs = memory_of(base);
    size_t path_size = strlen(path) + 1;
    struct memory_file *file;
    bft_status status;

    *out = NULL;
    status = bfti_vfs_check_flags(path, flags);
    if (status != BFT_OK)
        return status;
    file = bfti_alloc(vfs->env, sizeof(*file) + path_size);
    if (file == NULL)
        return bfti_fail(BFT_NO_MEMORY, "open %s: no memory", path);
    *file = (struct memory_file){
        .file = {.ops = base->ops},
        .vfs = vfs,
        .read_only = (flags & BFTI_OPEN_READ_ONLY) != 0,
        .path = (char *)(file + 1),
    };
    memcpy(file->path, path, path_size);

    lock_names(vfs);
    status = node_open(vfs, path, flags, &file->node);
    unlock_names(vfs);
    if (status != BFT_OK) {
        bfti_free(vfs->env, file);
        return status;
    }
    *out = &file->file;
    return BFT_OK;
}

static void memory_close(struct bfti_file *base)
{
    struct memory_file *file = file_of(base);
    struct memory_vfs *vfs = file->vfs;

    lock_names(vfs);
    if (file->node->locked_by == file)
        file->node->locked_by = NULL;
    node_release(vfs, file->node);
    unlock_names(vfs);
    bfti_free(vfs->env, file);
}

/* --- bytes --------------------------------------------------------------- */

static void lock_bytes(struct memory_file *file)
{
    bfti_mutex_lock(file->vfs->env, &file->node->bytes_lock);
}

static void unlock_bytes(struct memory_file *file)
{
    bfti_mutex_unlock(file->vfs->env, &file->node->bytes_lock);
}

static bft_status memory_read(struct bfti_file *base, uint64_t offset,
                              void *buf, size_t len, size_t *got)
{
    struct memory_file *file = file_of(base);

    *got = 0;
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range(file->path, offset, len);
    lock_bytes(file);
    *got = bfti_sparse_read(&file->node->bytes, offset, buf, len);
    unlock_bytes(file);
    return BFT_OK;
}

static bft_status check_change(const struct memory_file *file, uint64_t offset,
                               uint64_t len)
{
    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range(file->path, offset, len);
    return BFT_OK;
}

static bft_status memory_write(struct bfti_file *base, uint64_t offset,
                               const void *buf, size_t len)
{
    struct memory_file *file = file_of(base);
    bft_status status = check_change(file, offset, len);

    if (status != BFT_OK)
        return status;
    lock_bytes(file);
    status =
        bfti_sparse_write(file->vfs->env, &file->node->bytes, offset, buf, len);
    unlock_bytes(file);
    return status;
}

static bft_status memory_size(struct bfti_file *base, uint64_t *bytes)
{
    struct memory_file *file = file_of(base);

    lock_bytes(file);
    *bytes = file->node->bytes.size;
    unlock_bytes(file);
    return BFT_OK;
}

static bft_status memory_truncate(struct bfti_file *base, uint64_t bytes)
{
    struct memory_file *file = file_of(base);
    bft_status status = check_change(file, bytes, 0);

    if (status != BFT_OK)
        return status;
    lock_bytes(file);
    status = bfti_sparse_resize(file->vfs->env, &file->node->bytes, bytes);
    unlock_bytes(file);
    return status;
}

static bft_status memory_punch(struct bfti_file *base, uint64_t offset,
                               uint64_t len)
{
    struct memory_file *file = file_of(base);
    bft_status status = check_change(file, offset, len);

    if (status != BFT_OK)
        return status;
    lock_bytes(file);
    status = bfti_sparse_zero(file->vfs->env, &file->node->bytes, offset, len);
    unlock_bytes(file);
    return status;
}

static bft_status memory_sync(struct bfti_file *base)
{
    /* Nothing here survives the process, so all of it is as safe as it gets. */
    (void)base;
    return BFT_OK;
}

static bft_status memory_lock(struct bfti_file *base)
{
    struct memory_file *file = file_of(base);
    bft_status status = BFT_OK;

    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    lock_names(file->vfs);
    if (file->node->locked_by == NULL)
        file->node->locked_by = file;
    else if (file->node->locked_by != file)
        status =
            bfti_fail(BFT_BUSY, "%s is locked by another handle", file->path);
    unlock_names(file->vfs);
    return status;
}

/* --- names --------------------------------------------------------------- */

static bft_status memory_identify(struct bfti_vfs *base, const char *path,
                                  uint64_t *device, uint64_t *inode)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot spot;
    bft_status status;

    *device = 0;
    *inode = 0;
    lock_names(vfs);
    status = bfti_spot_find_any(&vfs->root->node, path, &spot);
    if (status == BFT_OK) {
        *device = vfs->device;
        *inode = spot.node->id;
    }
    unlock_names(vfs);
    return status;
}

static bft_status memory_make_dir(struct bfti_vfs *base, const char *path)
{
    struct memory_vfs *vfs = memory_of(base);
    struct memory_node *made;
    struct bfti_spot spot;
    bft_status status;

    lock_names(vfs);
    status = bfti_spot_find_free(&vfs->root->node, path, &spot);
    if (status == BFT_OK)
        status = node_make_at(vfs, &spot, true, &made);
    unlock_names(vfs);
    return status;
}

static bft_status memory_remove(struct bfti_vfs *base, const char *path)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot spot;
    bft_status status;

    lock_names(vfs);
    status = bfti_spot_find_file(&vfs->root->node, path, &spot);
    if (status == BFT_OK) {
        (void)bfti_names_remove(vfs->env, &spot.dir->names, spot.name,
                                spot.name_len);
        node_release(vfs, node_of(spot.node));
    }
    unlock_names(vfs);
    return status;
}

static bft_status memory_rename(struct bfti_vfs *base, const char *from_path,
                                const char *to_path)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot from;
    struct bfti_spot to;
    struct bfti_node *old;
    bft_status status;

    lock_names(vfs);
    status =
        bfti_spot_find_rename(&vfs->root->node, from_path, to_path, &from, &to);
    if (status != BFT_OK || to.node == from.node)
        goto unlock;
    /* The new name first: it is the step that can fail. */
    status = bfti_names_set(vfs->env, &to.dir->names, to.name, to.name_len,
                            from.node, &old);
    if (status != BFT_OK)
        goto unlock;
    (void)bfti_names_remove(vfs->env, &from.dir->names, from.name,
                            from.name_len);
    if (old != NULL)
        node_release(vfs, node_of(old));

unlock:
    unlock_names(vfs);
    return status;
}

static bft_status memory_list(struct bfti_vfs *base, const char *dir,
                              void (*each)(void *arg, const char *name),
                              void *arg)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot spot;
    char *texts = NULL;
    size_t count = 0;
    bft_status status;

    lock_names(vfs);
    status = bfti_spot_find_dir(&vfs->root->node, dir, &spot);
    if (status == BFT_OK)
        status = bfti_names_texts(vfs->env, &spot.node->names, &texts, &count);
    unlock_names(vfs);
    bfti_names_tell(vfs->env, texts, count, each, arg);
    return status;
}

static bft_status memory_sync_dir(struct bfti_vfs *base, const char *dir)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot spot;
    bft_status status;

    lock_names(vfs);
    status = bfti_spot_find_dir(&vfs->root->node, dir, &spot);
    unlock_names(vfs);
    return status;
}

/* --- the file system ----------------------------------------------------- */

static const struct bfti_vfs_ops memory_ops = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .size = memory_size,
    .truncate = memory_truncate,
    .sync = memory_sync,
    .lock = memory_lock,
    .identify = memory_identify,
    .make_dir = memory_make_dir,
    .remove = memory_remove,
    .rename = memory_rename,
    .list = memory_list,
    .sync_dir = memory_sync_dir,
    .submit = bfti_vfs_submit_now,
    .reap = bfti_vfs_reap_none,
    .punch = memory_punch,
};

struct bfti_vfs *bfti_vfs_memory_create(const struct bfti_env *env)
{
    struct memory_vfs *vfs = bfti_alloc(env, sizeof(*vfs));

    if (vfs == NULL)
        return NULL;
    *vfs = (struct memory_vfs){
        .vfs = {.ops = &memory_ops},
        .env = env,
        .device = bfti_names_device(),
    };
    vfs->root = node_create(vfs, true);
    if (vfs->root == NULL) {
        bfti_free(env, vfs);
        return NULL;
    }
    return &vfs->vfs;
}

static void remove_files(struct memory_vfs *vfs, struct bfti_names *names)
{
    for (size_t i = names->count; i-- > 0;) {
        struct bfti_name *name = &names->list[i];
        struct memory_node *node = node_of(name->node);

        if (name->node->is_dir)
            continue;
        (void)bfti_names_remove(vfs->env, names, name->text,
                                strlen(name->text));
        node_release(vfs, node);
    }
}

void bfti_vfs_memory_remove_dir(struct bfti_vfs *base, const char *path)
{
    struct memory_vfs *vfs = memory_of(base);
    struct bfti_spot spot;

    lock_names(vfs);
    if (bfti_spot_find_dir(&vfs->root->node, path, &spot) == BFT_OK) {
        remove_files(vfs, &spot.node->names);
        /* Not the root, which is in no directory. */
        if (spot.dir != NULL && spot.node->names.count == 0) {
            (void)bfti_names_remove(vfs->env, &spot.dir->names, spot.name,
                                    spot.name_len);
            node_release(vfs, node_of(spot.node));
        }
    }
    unlock_names(vfs);
}

void bfti_vfs_memory_destroy(struct bfti_vfs *base)
{
    struct memory_vfs *vfs = memory_of(base);

    while (vfs->nodes != NULL)
        node_free(vfs, vfs->nodes);
    bfti_free(vfs->env, vfs);
}
