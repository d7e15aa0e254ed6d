/* A file system in memory over another one, which it only reads. */
#include "vfs_overlay.h"

#include <assert.h>
#include <string.h>

#include "error.h"
#include "vfs_common.h"

enum { BLOCK = 4096, BUCKETS_MIN = 64 };

/* What was written of a file: blocks in a hash table by their numbers. */
struct block {
    struct block *next; /* of the bucket */
    uint64_t number;
    uint8_t bytes[BLOCK];
};

struct node {
    struct node *next;       /* fixed */
    char *name;              /* under names_lock; NULL: removed */
    bool below;              /* it is LOWER's, of the same name when made */
    struct bfti_file *lower; /* opened when first opened here; or NULL */
    struct bfti_mutex lock;  /* of all that follows */
    uint64_t size;
    uint64_t lower_bytes; /* up to here LOWER's bytes shine through */
    struct block **bucket;
    size_t buckets, blocks;
};

struct overlay {
    struct bfti_vfs vfs;
    const struct bfti_env *env; /* fixed, as the next two */
    struct bfti_vfs *lower;
    char *dir;
    bool forgiving;              /* set before files are opened */
    _Atomic uint64_t unreadable; /* bytes that were made zeros */
    struct bfti_mutex names_lock;
    struct node *nodes; /* under names_lock; freed with the overlay */
};

struct overlay_file {
    struct bfti_file file;
    struct overlay *overlay; /* all fixed */
    struct node *node;
    bool read_only;
};

static struct overlay *overlay_of(struct bfti_vfs *vfs)
{
    return (struct overlay *)vfs;
}

static struct overlay_file *file_of(struct bfti_file *file)
{
    return (struct overlay_file *)file;
}

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY,
                     "no memory for what is changed of a database that is "
                     "only read");
}

static char *text_join(const struct bfti_env *env, const char *a,
                       const char *between, const char *b)
{
    size_t a_len = strlen(a), between_len = strlen(between), b_len = strlen(b);
    char *text = bfti_alloc(env, a_len + between_len + b_len + 1);
    if (text != NULL) {
        memcpy(text, a, a_len + 1);
        memcpy(text + a_len, between, between_len + 1);
        memcpy(text + a_len + between_len, b, b_len + 1);
    }
    return text;
}

/* --- blocks: under the node's lock --------------------------------------- */

static struct block **block_spot(const struct node *node, uint64_t number)
{
    struct block **at = &node->bucket[number % node->buckets];
    while (*at != NULL && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

static struct block *block_find(const struct node *node, uint64_t number)
{
    return node->buckets ? *block_spot(node, number) : NULL;
}

static bft_status buckets_grow(const struct bfti_env *env, struct node *node)
{
    size_t old_count = node->buckets;
    size_t count = old_count ? old_count * 2 : BUCKETS_MIN;
    struct block **old = node->bucket;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    struct block **grown = bfti_alloc(env, count * sizeof(*grown));
    if (grown == NULL)
        return no_memory();
    assert(count > 0);
    for (size_t i = 0; i < count; i++)
        grown[i] = NULL;
    node->bucket = grown;
    node->buckets = count;
    for (size_t i = 0; i < old_count; i++)
        while (old[i] != NULL) {
            struct block *block = old[i];
            struct block **at = &grown[block->number % count];
            old[i] = block->next;
            block->next = *at;
            *at = block;
        }
    bfti_free(env, old);
    return BFT_OK;
}

/* What LOWER has of block NUMBER, zeros behind it. */
static bft_status block_fill(const struct node *node, struct block *block)
{
    uint64_t at = block->number * BLOCK;
    size_t len = 0, got = 0;
    bft_status status = BFT_OK;
    if (node->lower != NULL && at < node->lower_bytes)
        len = node->lower_bytes - at < BLOCK ? (size_t)(node->lower_bytes - at)
                                             : BLOCK;
    if (len > 0)
        status =
            node->lower->ops->read(node->lower, at, block->bytes, len, &got);
    memset(block->bytes + got, 0, BLOCK - got);
    return status;
}

/* The block to write to; WHOLE: all of it will be written. */
static bft_status block_make(const struct bfti_env *env, struct node *node,
                             uint64_t number, bool whole, struct block **out)
{
    bft_status status = BFT_OK;
    *out = block_find(node, number);
    if (*out != NULL)
        return BFT_OK;
    if (node->blocks >= node->buckets)
        status = buckets_grow(env, node);
    if (status != BFT_OK)
        return status;
    *out = bfti_alloc(env, sizeof(**out));
    if (*out == NULL)
        return no_memory();
    (*out)->number = number;
    if (!whole)
        status = block_fill(node, *out);
    if (status != BFT_OK) {
        bfti_free(env, *out);
        return status;
    }
    (*out)->next = node->bucket[number % node->buckets];
    node->bucket[number % node->buckets] = *out;
    node->blocks++;
    return BFT_OK;
}

/* Forget the blocks from FROM on. */
static void blocks_drop(const struct bfti_env *env, struct node *node,
                        uint64_t from)
{
    for (size_t i = 0; i < node->buckets; i++)
        for (struct block **at = &node->bucket[i]; *at != NULL;) {
            struct block *block = *at;
            if (block->number < from) {
                at = &block->next;
                continue;
            }
            *at = block->next;
            bfti_free(env, block);
            node->blocks--;
        }
}

/* --- names: under names_lock --------------------------------------------- */

/* The name of a file in the directory; NULL: PATH lies elsewhere. */
static const char *name_in(const struct overlay *overlay, const char *path)
{
    size_t len = strlen(overlay->dir);
    if (strncmp(path, overlay->dir, len) != 0 || path[len] != '/')
        return NULL;
    return path + len + 1;
}

static struct node *node_find(struct overlay *overlay, const char *name)
{
    struct node *node = overlay->nodes;
    while (node != NULL &&
           (node->name == NULL || strcmp(node->name, name) != 0))
        node = node->next;
    return node;
}

static struct node *node_make(struct overlay *overlay, const char *name,
                              bool below)
{
    struct node *node = bfti_alloc(overlay->env, sizeof(*node));
    if (node == NULL)
        return NULL;
    memset(node, 0, sizeof(*node));
    node->name = text_join(overlay->env, name, "", "");
    if (node->name == NULL) {
        bfti_free(overlay->env, node);
        return NULL;
    }
    node->below = below;
    node->next = overlay->nodes;
    overlay->nodes = node;
    return node;
}

/* Open LOWER's file of the node's name, which it has until it is renamed. */
static bft_status node_open_lower(struct overlay *overlay, struct node *node,
                                  int flags)
{
    char *path;
    bft_status status;
    if (!node->below || node->lower != NULL)
        return BFT_OK;
    path = text_join(overlay->env, overlay->dir, "/", node->name);
    if (path == NULL)
        return no_memory();
    status = overlay->lower->ops->open(
        overlay->lower, path, BFTI_OPEN_READ_ONLY | (flags & BFTI_OPEN_PAGES),
        &node->lower);
    bfti_free(overlay->env, path);
    if (status != BFT_OK)
        return status;
    status = node->lower->ops->size(node->lower, &node->size);
    node->lower_bytes = node->size;
    if (status == BFT_OK)
        return BFT_OK;
    /* Or the next opening would find an empty file. */
    node->lower->ops->close(node->lower);
    node->lower = NULL;
    return status;
}

static bft_status fail_name(const char *path)
{
    return bfti_fail(BFT_NOT_FOUND, "%s: there is no such file", path);
}

/* --- files --------------------------------------------------------------- */

static const struct bfti_vfs_ops overlay_ops;

static bft_status node_open(struct overlay *overlay, const char *path,
                            int flags, struct node **out)
{
    const char *name = name_in(overlay, path);
    struct node *node = name ? node_find(overlay, name) : NULL;
    if (node != NULL && (flags & BFTI_OPEN_EXCLUSIVE))
        return bfti_fail(BFT_EXISTS, "%s exists", path);
    if (node == NULL && (name == NULL || !(flags & BFTI_OPEN_CREATE)))
        return fail_name(path);
    if (node == NULL) {
        node = node_make(overlay, name, false);
        if (node == NULL)
            return no_memory();
    }
    *out = node;
    return node_open_lower(overlay, node, flags);
}

static bft_status overlay_open(struct bfti_vfs *vfs, const char *path,
                               int flags, struct bfti_file **out)
{
    struct overlay *overlay = overlay_of(vfs);
    struct overlay_file *file;
    bft_status status = bfti_vfs_check_flags(path, flags);
    *out = NULL;
    if (status != BFT_OK)
        return status;
    file = bfti_alloc(overlay->env, sizeof(*file));
    if (file == NULL)
        return no_memory();
    file->file.ops = &overlay_ops;
    file->overlay = overlay;
    file->read_only = (flags & BFTI_OPEN_READ_ONLY) != 0;
    bfti_mutex_lock(overlay->env, &overlay->names_lock);
    status = node_open(overlay, path, flags, &file->node);
    bfti_mutex_unlock(overlay->env, &overlay->names_lock);
    if (status != BFT_OK) {
        bfti_free(overlay->env, file);
        return status;
    }
    *out = &file->file;
    return BFT_OK;
}

static void overlay_close(struct bfti_file *base)
{
    bfti_free(file_of(base)->overlay->env, base);
}

/* The part of [OFFSET, OFFSET + LEN) that lies in OFFSET's block. */
static size_t in_block(uint64_t offset, size_t len)
{
    size_t left = BLOCK - (size_t)(offset % BLOCK);
    return left < len ? left : len;
}

/* How many of LEN bytes from OFFSET on lie in blocks that were not written. */
static size_t unwritten(const struct node *node, uint64_t offset, size_t len)
{
    size_t n = 0;
    while (n < len && block_find(node, (offset + n) / BLOCK) == NULL)
        n += in_block(offset + n, len - n);
    return n;
}

/* A read of LOWER failed: block by block, zeros for those that fail alone. */
static void read_readable(struct overlay *overlay, const struct node *node,
                          uint64_t offset, uint8_t *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        size_t n = in_block(offset + done, len - done), got = 0;
        if (node->lower->ops->read(node->lower, offset + done, to + done, n,
                                   &got) != BFT_OK) {
            got = 0;
            atomic_fetch_add(&overlay->unreadable, n);
        }
        memset(to + done + got, 0, n - got);
        done += n;
    }
}

/* Of LOWER's bytes, zeros behind them.  Not under the lock: it is never
 * written. */
static bft_status read_lower(struct overlay *overlay, const struct node *node,
                             uint64_t lower_bytes, uint64_t offset, uint8_t *to,
                             size_t len)
{
    size_t have = 0, got = 0;
    bft_status status = BFT_OK;
    if (node->lower != NULL && offset < lower_bytes)
        have =
            lower_bytes - offset < len ? (size_t)(lower_bytes - offset) : len;
    if (have > 0)
        status = node->lower->ops->read(node->lower, offset, to, have, &got);
    if (status == BFT_IO && overlay->forgiving) {
        read_readable(overlay, node, offset, to, have);
        got = have;
        status = BFT_OK;
    }
    memset(to + got, 0, len - got);
    return status;
}

static bft_status overlay_read(struct bfti_file *base, uint64_t offset,
                               void *buf, size_t len, size_t *got)
{
    struct node *node = file_of(base)->node;
    const struct bfti_env *env = file_of(base)->overlay->env;
    bft_status status = BFT_OK;
    uint8_t *to = buf;
    size_t done = 0;
    *got = 0;
    while (status == BFT_OK && done < len) {
        uint64_t at = offset + done, lower_bytes;
        size_t n, left;
        const struct block *block;
        bfti_mutex_lock(env, &node->lock);
        lower_bytes = node->lower_bytes;
        left = at >= node->size               ? 0
               : node->size - at < len - done ? (size_t)(node->size - at)
                                              : len - done;
        block = block_find(node, at / BLOCK);
        n = block ? in_block(at, left) : unwritten(node, at, left);
        if (block)
            memcpy(to + done, block->bytes + at % BLOCK, n);
        bfti_mutex_unlock(env, &node->lock);
        if (n == 0)
            break;
        if (!block)
            status = read_lower(file_of(base)->overlay, node, lower_bytes, at,
                                to + done, n);
        done += n;
    }
    if (status == BFT_OK)
        *got = done;
    return status;
}

static bft_status overlay_write(struct bfti_file *base, uint64_t offset,
                                const void *buf, size_t len)
{
    struct overlay_file *file = file_of(base);
    const struct bfti_env *env = file->overlay->env;
    struct node *node = file->node;
    bft_status status = BFT_OK;
    if (file->read_only)
        return bfti_vfs_fail_read_only("a file of a database");
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range("a file of a database", offset, len);
    bfti_mutex_lock(env, &node->lock);
    for (size_t done = 0; status == BFT_OK && done < len;) {
        uint64_t at = offset + done;
        size_t n = in_block(at, len - done);
        struct block *block;
        status = block_make(env, node, at / BLOCK, n == BLOCK, &block);
        if (status != BFT_OK)
            break;
        memcpy(block->bytes + at % BLOCK, (const uint8_t *)buf + done, n);
        done += n;
        if (at + n > node->size)
            node->size = at + n;
    }
    bfti_mutex_unlock(env, &node->lock);
    return status;
}

static bft_status overlay_size(struct bfti_file *base, uint64_t *bytes)
{
    struct overlay_file *file = file_of(base);
    bfti_mutex_lock(file->overlay->env, &file->node->lock);
    *bytes = file->node->size;
    bfti_mutex_unlock(file->overlay->env, &file->node->lock);
    return BFT_OK;
}

static bft_status overlay_truncate(struct bfti_file *base, uint64_t bytes)
{
    struct overlay_file *file = file_of(base);
    const struct bfti_env *env = file->overlay->env;
    struct node *node = file->node;
    struct block *last;
    if (file->read_only)
        return bfti_vfs_fail_read_only("a file of a database");
    bfti_mutex_lock(env, &node->lock);
    if (bytes < node->size) {
        blocks_drop(env, node, (bytes + BLOCK - 1) / BLOCK);
        last = block_find(node, bytes / BLOCK);
        if (last != NULL)
            memset(last->bytes + bytes % BLOCK, 0, BLOCK - bytes % BLOCK);
        if (bytes < node->lower_bytes)
            node->lower_bytes = bytes;
    }
    node->size = bytes;
    bfti_mutex_unlock(env, &node->lock);
    return BFT_OK;
}

static bft_status overlay_sync(struct bfti_file *base)
{
    (void)base; /* nothing here survives anything */
    return BFT_OK;
}

static bft_status overlay_lock(struct bfti_file *base)
{
    (void)base; /* nor is it anyone else's */
    return BFT_OK;
}

/* --- the directory ------------------------------------------------------- */

static bft_status overlay_identify(struct bfti_vfs *vfs, const char *path,
                                   uint64_t *device, uint64_t *inode)
{
    struct bfti_vfs *lower = overlay_of(vfs)->lower;
    return lower->ops->identify(lower, path, device, inode);
}

static bft_status overlay_make_dir(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    return bfti_vfs_fail_read_only(path);
}

static bft_status overlay_remove(struct bfti_vfs *vfs, const char *path)
{
    struct overlay *overlay = overlay_of(vfs);
    const char *name = name_in(overlay, path);
    struct node *node;
    bfti_mutex_lock(overlay->env, &overlay->names_lock);
    node = name ? node_find(overlay, name) : NULL;
    if (node != NULL) {
        bfti_free(overlay->env, node->name);
        node->name = NULL;
    }
    bfti_mutex_unlock(overlay->env, &overlay->names_lock);
    return node ? BFT_OK : fail_name(path);
}

static bft_status overlay_rename(struct bfti_vfs *vfs, const char *from,
                                 const char *to)
{
    struct overlay *overlay = overlay_of(vfs);
    const char *name = name_in(overlay, from), *new_name = name_in(overlay, to);
    struct node *node, *old;
    char *text;
    bft_status status = BFT_OK;
    if (name == NULL || new_name == NULL)
        return fail_name(name ? to : from);
    text = text_join(overlay->env, new_name, "", "");
    if (text == NULL)
        return no_memory();
    bfti_mutex_lock(overlay->env, &overlay->names_lock);
    node = node_find(overlay, name);
    old = node_find(overlay, new_name);
    if (node == NULL)
        status = fail_name(from);
    else /* while it still has LOWER's name */
        status = node_open_lower(overlay, node, 0);
    if (status == BFT_OK && old != NULL && old != node) {
        bfti_free(overlay->env, old->name);
        old->name = NULL;
    }
    if (status == BFT_OK) {
        char *gone = node->name;
        node->name = text;
        text = gone;
    }
    bfti_mutex_unlock(overlay->env, &overlay->names_lock);
    bfti_free(overlay->env, text);
    return status;
}

static bft_status overlay_list(struct bfti_vfs *vfs, const char *dir,
                               void (*each)(void *arg, const char *name),
                               void *arg)
{
    struct overlay *overlay = overlay_of(vfs);
    size_t bytes = 1, at = 0;
    char *names;
    if (strcmp(dir, overlay->dir) != 0)
        return overlay->lower->ops->list(overlay->lower, dir, each, arg);
    /* A copy: EACH may call us. */
    bfti_mutex_lock(overlay->env, &overlay->names_lock);
    for (struct node *n = overlay->nodes; n != NULL; n = n->next)
        bytes += n->name ? strlen(n->name) + 1 : 0;
    names = bfti_alloc(overlay->env, bytes);
    for (struct node *n = overlay->nodes; names != NULL && n != NULL;
         n = n->next)
        if (n->name != NULL) {
            memcpy(names + at, n->name, strlen(n->name) + 1);
            at += strlen(n->name) + 1;
        }
    bfti_mutex_unlock(overlay->env, &overlay->names_lock);
    if (names == NULL)
        return no_memory();
    for (size_t i = 0; i < at; i += strlen(names + i) + 1)
        each(arg, names + i);
    bfti_free(overlay->env, names);
    return BFT_OK;
}

static bft_status overlay_sync_dir(struct bfti_vfs *vfs, const char *dir)
{
    (void)vfs;
    (void)dir;
    return BFT_OK;
}

static const struct bfti_vfs_ops overlay_ops = {
    .name = "overlay",
    .open = overlay_open,
    .close = overlay_close,
    .read = overlay_read,
    .write = overlay_write,
    .size = overlay_size,
    .truncate = overlay_truncate,
    .sync = overlay_sync,
    .lock = overlay_lock,
    .identify = overlay_identify,
    .make_dir = overlay_make_dir,
    .remove = overlay_remove,
    .rename = overlay_rename,
    .list = overlay_list,
    .sync_dir = overlay_sync_dir,
    .submit = bfti_vfs_submit_now,
    .reap = bfti_vfs_reap_none,
};

/* --- making -------------------------------------------------------------- */

struct listing {
    struct overlay *overlay;
    bft_status status;
};

static void note_name(void *arg, const char *name)
{
    struct listing *listing = arg;
    if (listing->status == BFT_OK &&
        node_make(listing->overlay, name, true) == NULL)
        listing->status = no_memory();
}

bft_status bfti_vfs_overlay_create(const struct bfti_env *env,
                                   struct bfti_vfs *lower, const char *dir,
                                   struct bfti_vfs **out)
{
    struct overlay *overlay = bfti_alloc(env, sizeof(*overlay));
    struct listing listing = {overlay, BFT_OK};
    bft_status status;
    *out = NULL;
    if (overlay == NULL)
        return no_memory();
    memset(overlay, 0, sizeof(*overlay));
    overlay->vfs.ops = &overlay_ops;
    overlay->env = env;
    overlay->lower = lower;
    overlay->dir = text_join(env, dir, "", "");
    status = overlay->dir ? lower->ops->list(lower, dir, note_name, &listing)
                          : no_memory();
    if (status == BFT_OK)
        status = listing.status;
    if (status != BFT_OK) {
        bfti_vfs_overlay_destroy(&overlay->vfs);
        return status;
    }
    *out = &overlay->vfs;
    return BFT_OK;
}

void bfti_vfs_overlay_forgive(struct bfti_vfs *vfs)
{
    overlay_of(vfs)->forgiving = true;
}

uint64_t bfti_vfs_overlay_unreadable(struct bfti_vfs *vfs)
{
    return atomic_load(&overlay_of(vfs)->unreadable);
}

void bfti_vfs_overlay_destroy(struct bfti_vfs *vfs)
{
    struct overlay *overlay = overlay_of(vfs);
    const struct bfti_env *env = overlay->env;
    while (overlay->nodes != NULL) {
        struct node *node = overlay->nodes;
        overlay->nodes = node->next;
        blocks_drop(env, node, 0);
        if (node->lower != NULL)
            node->lower->ops->close(node->lower);
        bfti_free(env, node->bucket);
        bfti_free(env, node->name);
        bfti_free(env, node);
    }
    bfti_free(env, overlay->dir);
    bfti_free(env, overlay);
}
