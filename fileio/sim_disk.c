/*
 * Two images of every file, and the changes between them.
 *
 * A write that waits is kept as the whole sectors it touched, as the cache had
 * them after it.  That is what a disk can receive: it writes sectors whole, and
 * the system hands it what the cache holds.  So a later write of a sector that
 * survives brings the earlier ones of that sector along, and no choice among
 * the waiting changes makes a sector that never was.
 */
#include "sim_disk.h"

#include <assert.h>
#include <string.h>

#include "error.h"

uint64_t bfti_sim_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- nodes --------------------------------------------------------------- */

struct bfti_disk_node *bfti_disk_node_create(struct bfti_disk *disk,
                                             bool is_dir, uint64_t id)
{
    struct bfti_disk_node *node = bfti_alloc(disk->env, sizeof(*node));

    if (node == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY, "simulated disk: no memory");
        return NULL;
    }
    *node = (struct bfti_disk_node){
        .node = {.is_dir = is_dir, .id = id},
        .next = disk->nodes,
    };
    if (disk->nodes != NULL)
        disk->nodes->prev = node;
    disk->nodes = node;
    return node;
}

static void node_free(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    assert(node->first == NULL);
    if (node->prev != NULL)
        node->prev->next = node->next;
    else
        disk->nodes = node->next;
    if (node->next != NULL)
        node->next->prev = node->prev;
    disk->used_blocks -= node->cache.blocks;
    bfti_names_free(disk->env, &node->node.names);
    bfti_names_free(disk->env, &node->disk_names);
    bfti_sparse_free(disk->env, &node->cache);
    bfti_sparse_free(disk->env, &node->disk);
    bfti_free(disk->env, node->map);
    bfti_free(disk->env, node);
}

void bfti_disk_hold(struct bfti_disk_node *node)
{
    node->refs++;
}

void bfti_disk_release(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    assert(node->refs > 0);
    node->refs--;
    /* Directories cannot be removed; one that an image left without a name
     * goes with the disk. */
    if (node->refs > 0 || node->node.is_dir)
        return;
    bfti_disk_forget(disk, node);
    node_free(disk, node);
}

/* --- waiting changes ----------------------------------------------------- */

/* A change of KIND with room for DATA_LEN bytes, not waiting yet. */
struct bfti_change *bfti_change_create(struct bfti_disk *disk,
                                       enum bfti_change_kind kind,
                                       struct bfti_disk_node *node,
                                       size_t data_len)
{
    struct bfti_change *change =
        bfti_alloc(disk->env, sizeof(*change) + data_len);

    if (change == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY, "simulated disk: no memory");
        return NULL;
    }
    *change = (struct bfti_change){
        .kind = kind,
        .node = node,
        .data_len = data_len,
    };
    return change;
}

/* Put CHANGE last; from here it holds its child. */
void bfti_change_wait(struct bfti_disk *disk, struct bfti_change *change)
{
    struct bfti_disk_node *node = change->node;

    change->prev = disk->last;
    if (disk->last != NULL)
        disk->last->next = change;
    else
        disk->first = change;
    disk->last = change;
    if (node->last != NULL)
        node->last->node_next = change;
    else
        node->first = change;
    node->last = change;
    if (change->child != NULL)
        bfti_disk_hold(change->child);
    disk->waiting++;
}

/* Free the first change of NODE. */
static void change_done(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    struct bfti_change *change = node->first;

    node->first = change->node_next;
    if (node->first == NULL)
        node->last = NULL;
    if (change->prev != NULL)
        change->prev->next = change->next;
    else
        disk->first = change->next;
    if (change->next != NULL)
        change->next->prev = change->prev;
    else
        disk->last = change->prev;
    disk->waiting--;
    bfti_free(disk->env, change);
}

void bfti_disk_forget(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    assert(!node->node.is_dir);
    while (node->first != NULL)
        change_done(disk, node);
}

/* --- doing a change to the disk's image ---------------------------------- */

static bool coin(uint64_t *random)
{
    return (bfti_sim_random(random) & 1) != 0;
}

static bft_status apply_bytes(struct bfti_disk *disk,
                              const struct bfti_change *change,
                              struct bfti_disk_node *node, uint64_t from,
                              uint64_t to)
{
    if (change->kind == BFTI_CHANGE_ZERO)
        return bfti_sparse_zero(disk->env, &node->disk, from, to - from);
    return bfti_sparse_write(disk->env, &node->disk, from,
                             change->data + (from - change->offset),
                             (size_t)(to - from));
}

/* Of the sectors of a write or punch only some: each by a coin. */
static bft_status apply_torn(struct bfti_disk *disk,
                             const struct bfti_change *change,
                             struct bfti_disk_node *node, uint64_t *tearing)
{
    uint64_t end = change->offset + change->len;
    uint64_t from = change->offset;
    bft_status status = BFT_OK;

    /* The new size is a matter of its own: it may arrive without the data. */
    if (change->kind == BFTI_CHANGE_WRITE && end > node->disk.size &&
        coin(tearing))
        status = bfti_sparse_resize(disk->env, &node->disk, end);
    while (status == BFT_OK && from < end) {
        uint64_t to = from - from % BFTI_SIM_SECTOR + BFTI_SIM_SECTOR;

        if (to > end)
            to = end;
        if (coin(tearing))
            status = apply_bytes(disk, change, node, from, to);
        from = to;
    }
    return status;
}

static bft_status set_disk_name(struct bfti_disk *disk,
                                struct bfti_disk_node *dir, const char *name,
                                size_t len, struct bfti_disk_node *child)
{
    struct bfti_node *old;
    bft_status status = bfti_names_set(disk->env, &dir->disk_names, name, len,
                                       &child->node, &old);

    if (status != BFT_OK)
        return status;
    bfti_disk_hold(child);
    if (old != NULL)
        bfti_disk_release(disk, bfti_disk_node_of(old));
    return BFT_OK;
}

static void remove_disk_name(struct bfti_disk *disk, struct bfti_disk_node *dir,
                             const char *name, size_t len)
{
    struct bfti_node *old =
        bfti_names_remove(disk->env, &dir->disk_names, name, len);

    if (old != NULL)
        bfti_disk_release(disk, bfti_disk_node_of(old));
}

static bft_status apply_move(struct bfti_disk *disk,
                             const struct bfti_change *change,
                             struct bfti_disk_node *dir,
                             struct bfti_disk_node *child)
{
    size_t len = (size_t)change->len;
    bft_status status =
        set_disk_name(disk, dir, change->data + len, change->to_len, child);

    /* The old name may by now be another file's, where the changes that came
     * in between were lost. */
    if (status == BFT_OK &&
        bfti_names_get(&dir->disk_names, change->data, len) == &child->node)
        remove_disk_name(disk, dir, change->data, len);
    return status;
}

/* Do CHANGE to the disk's image of NODE, which is its node or the twin. */
bft_status bfti_change_apply(struct bfti_disk *disk,
                             const struct bfti_change *change,
                             struct bfti_disk_node *node,
                             struct bfti_disk_node *child, uint64_t *tearing)
{
    switch (change->kind) {
    case BFTI_CHANGE_WRITE:
    case BFTI_CHANGE_ZERO:
        if (tearing != NULL && coin(tearing))
            return apply_torn(disk, change, node, tearing);
        return apply_bytes(disk, change, node, change->offset,
                           change->offset + change->len);
    case BFTI_CHANGE_SIZE:
        return bfti_sparse_resize(disk->env, &node->disk, change->offset);
    case BFTI_CHANGE_LINK:
        return set_disk_name(disk, node, change->data, (size_t)change->len,
                             child);
    case BFTI_CHANGE_UNLINK:
        remove_disk_name(disk, node, change->data, (size_t)change->len);
        return BFT_OK;
    case BFTI_CHANGE_MOVE:
        return apply_move(disk, change, node, child);
    }
    return BFT_INVALID;
}

bft_status bfti_disk_sync(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    bft_status status = BFT_OK;

    while (status == BFT_OK && node->first != NULL) {
        struct bfti_disk_node *child = node->first->child;

        status = bfti_change_apply(disk, node->first, node, child, NULL);
        if (status != BFT_OK)
            break;
        change_done(disk, node);
        if (child != NULL)
            bfti_disk_release(disk, child);
    }
    /* The size is written anew by every sync, also when an earlier sync failed
     * and the writes that made it are forgotten. */
    if (status == BFT_OK && !node->node.is_dir &&
        node->disk.size != node->cache.size)
        status = bfti_sparse_resize(disk->env, &node->disk, node->cache.size);
    return status;
}

bft_status bfti_disk_settle(struct bfti_disk *disk)
{
    bft_status status = BFT_OK;

    while (status == BFT_OK && disk->first != NULL)
        status = bfti_disk_sync(disk, disk->first->node);
    /* Now only sizes differ, where a failed sync forgot them; and nothing is
     * left that could free a node. */
    for (struct bfti_disk_node *node = disk->nodes;
         status == BFT_OK && node != NULL; node = node->next)
        status = bfti_disk_sync(disk, node);
    return status;
}

/* --- changing the cache: bytes ------------------------------------------- */

/* What the cache has of a range goes into the mapping too, if there is one. */
static void refresh_map(struct bfti_disk_node *node, uint64_t offset,
                        uint64_t len)
{
    size_t n;
    size_t got;

    if (node->map == NULL || offset >= node->map_len)
        return;
    n = node->map_len - (size_t)offset;
    if (n > len)
        n = (size_t)len;
    got = bfti_sparse_read(&node->cache, offset, (char *)node->map + offset, n);
    memset((char *)node->map + offset + got, 0, n - got);
}

static bft_status write_cache(struct bfti_disk *disk,
                              struct bfti_disk_node *node, uint64_t offset,
                              const void *data, size_t len)
{
    uint64_t start = offset - offset % BFTI_SIM_SECTOR;
    uint64_t end = offset + len + BFTI_SIM_SECTOR - 1;
    struct bfti_change *change;
    bft_status status;

    if (len == 0)
        return BFT_OK;
    end -= end % BFTI_SIM_SECTOR;
    change = bfti_change_create(disk, BFTI_CHANGE_WRITE, node,
                                (size_t)(end - start));
    if (change == NULL)
        return BFT_NO_MEMORY;
    disk->used_blocks -= node->cache.blocks;
    status = bfti_sparse_write(disk->env, &node->cache, offset, data, len);
    disk->used_blocks += node->cache.blocks;
    if (status != BFT_OK) {
        bfti_free(disk->env, change);
        return status;
    }
    change->offset = start;
    change->len =
        bfti_sparse_read(&node->cache, start, change->data, change->data_len);
    bfti_change_wait(disk, change);
    return BFT_OK;
}

bft_status bfti_disk_write(struct bfti_disk *disk, struct bfti_disk_node *node,
                           uint64_t offset, const void *data, size_t len)
{
    bft_status status = write_cache(disk, node, offset, data, len);

    refresh_map(node, offset, len);
    return status;
}

/* The part of zero and resize that is the same. */
static bft_status change_cache(struct bfti_disk *disk,
                               struct bfti_disk_node *node,
                               enum bfti_change_kind kind, uint64_t offset,
                               uint64_t len)
{
    struct bfti_change *change = bfti_change_create(disk, kind, node, 0);
    bft_status status;

    if (change == NULL)
        return BFT_NO_MEMORY;
    disk->used_blocks -= node->cache.blocks;
    if (kind == BFTI_CHANGE_ZERO)
        status = bfti_sparse_zero(disk->env, &node->cache, offset, len);
    else
        status = bfti_sparse_resize(disk->env, &node->cache, offset);
    disk->used_blocks += node->cache.blocks;
    if (status != BFT_OK) {
        bfti_free(disk->env, change);
        return status;
    }
    change->offset = offset;
    change->len = len;
    bfti_change_wait(disk, change);
    return BFT_OK;
}

bft_status bfti_disk_zero(struct bfti_disk *disk, struct bfti_disk_node *node,
                          uint64_t offset, uint64_t len)
{
    bft_status status;

    if (offset >= node->cache.size)
        return BFT_OK;
    if (len > node->cache.size - offset)
        len = node->cache.size - offset;
    status = change_cache(disk, node, BFTI_CHANGE_ZERO, offset, len);
    refresh_map(node, offset, len);
    return status;
}

bft_status bfti_disk_resize(struct bfti_disk *disk, struct bfti_disk_node *node,
                            uint64_t bytes)
{
    bft_status status = change_cache(disk, node, BFTI_CHANGE_SIZE, bytes, 0);

    refresh_map(node, bytes, UINT64_MAX);
    return status;
}

static bft_status flip_byte(struct bfti_disk *disk, struct bfti_sparse *bytes,
                            uint64_t offset, uint8_t mask)
{
    uint8_t byte;

    if (bfti_sparse_read(bytes, offset, &byte, 1) == 0)
        return BFT_OK;
    byte ^= mask;
    return bfti_sparse_write(disk->env, bytes, offset, &byte, 1);
}

bft_status bfti_disk_flip(struct bfti_disk *disk, struct bfti_disk_node *node,
                          uint64_t offset, uint8_t mask)
{
    bft_status status;

    disk->used_blocks -= node->cache.blocks;
    status = flip_byte(disk, &node->cache, offset, mask);
    disk->used_blocks += node->cache.blocks;
    if (status == BFT_OK)
        status = flip_byte(disk, &node->disk, offset, mask);
    if (status != BFT_OK)
        return status;
    for (struct bfti_change *change = node->first; change != NULL;
         change = change->node_next)
        if (change->kind == BFTI_CHANGE_WRITE && offset >= change->offset &&
            offset - change->offset < change->len)
            ((uint8_t *)change->data)[offset - change->offset] ^= mask;
    refresh_map(node, offset, 1);
    return BFT_OK;
}

/* --- changing the cache: names ------------------------------------------- */

/* A change of directory entry SPOT, and of TO if it is a move. */
static struct bfti_change *name_change(struct bfti_disk *disk,
                                       enum bfti_change_kind kind,
                                       const struct bfti_spot *spot,
                                       const struct bfti_spot *to,
                                       struct bfti_disk_node *child)
{
    size_t to_len = to != NULL ? to->name_len : 0;
    struct bfti_change *change = bfti_change_create(
        disk, kind, bfti_disk_node_of(spot->dir), spot->name_len + to_len);

    if (change == NULL)
        return NULL;
    change->child = child;
    change->len = spot->name_len;
    change->to_len = to_len;
    memcpy(change->data, spot->name, spot->name_len);
    if (to != NULL)
        memcpy(change->data + spot->name_len, to->name, to_len);
    return change;
}

static bft_status set_name(struct bfti_disk *disk, const struct bfti_spot *spot,
                           struct bfti_disk_node *child)
{
    struct bfti_node *old;
    bft_status status = bfti_names_set(disk->env, &spot->dir->names, spot->name,
                                       spot->name_len, &child->node, &old);

    if (status != BFT_OK)
        return status;
    bfti_disk_hold(child);
    if (old != NULL)
        bfti_disk_release(disk, bfti_disk_node_of(old));
    return BFT_OK;
}

static void remove_name(struct bfti_disk *disk, const struct bfti_spot *spot)
{
    struct bfti_node *old = bfti_names_remove(disk->env, &spot->dir->names,
                                              spot->name, spot->name_len);

    assert(old != NULL);
    bfti_disk_release(disk, bfti_disk_node_of(old));
}

bft_status bfti_disk_make(struct bfti_disk *disk, const struct bfti_spot *spot,
                          bool is_dir, struct bfti_disk_node **out)
{
    struct bfti_disk_node *node =
        bfti_disk_node_create(disk, is_dir, ++disk->last_id);
    struct bfti_change *link;
    bft_status status = BFT_NO_MEMORY;

    *out = NULL;
    if (node == NULL)
        return BFT_NO_MEMORY;
    link = name_change(disk, BFTI_CHANGE_LINK, spot, NULL, node);
    if (link == NULL)
        goto free_node;
    status = set_name(disk, spot, node);
    if (status != BFT_OK)
        goto free_link;
    bfti_change_wait(disk, link);
    *out = node;
    return BFT_OK;

free_link:
    bfti_free(disk->env, link);
free_node:
    node_free(disk, node);
    return status;
}

bft_status bfti_disk_unlink(struct bfti_disk *disk,
                            const struct bfti_spot *spot)
{
    struct bfti_change *unlink =
        name_change(disk, BFTI_CHANGE_UNLINK, spot, NULL, NULL);

    if (unlink == NULL)
        return BFT_NO_MEMORY;
    remove_name(disk, spot);
    bfti_change_wait(disk, unlink);
    return BFT_OK;
}

bft_status bfti_disk_rename(struct bfti_disk *disk,
                            const struct bfti_spot *from,
                            const struct bfti_spot *to)
{
    struct bfti_disk_node *child = bfti_disk_node_of(from->node);
    bool one_dir = from->dir == to->dir;
    struct bfti_change *change;
    struct bfti_change *unlink = NULL;
    bft_status status = BFT_NO_MEMORY;

    if (one_dir)
        change = name_change(disk, BFTI_CHANGE_MOVE, from, to, child);
    else
        change = name_change(disk, BFTI_CHANGE_LINK, to, NULL, child);
    if (change == NULL)
        return BFT_NO_MEMORY;
    if (!one_dir) {
        unlink = name_change(disk, BFTI_CHANGE_UNLINK, from, NULL, NULL);
        if (unlink == NULL)
            goto free_change;
    }
    status = set_name(disk, to, child);
    if (status != BFT_OK)
        goto free_unlink;
    remove_name(disk, from);
    bfti_change_wait(disk, change);
    if (unlink != NULL)
        bfti_change_wait(disk, unlink);
    return BFT_OK;

free_unlink:
    bfti_free(disk->env, unlink);
free_change:
    bfti_free(disk->env, change);
    return status;
}

/* --- mappings ------------------------------------------------------------ */

bft_status bfti_disk_map(struct bfti_disk *disk, struct bfti_disk_node *node,
                         size_t len, void **addr)
{
    *addr = NULL;
    if (len == 0 || len > node->cache.size)
        return bfti_fail(BFT_INVALID, "map: the file is shorter than that");
    if (node->map != NULL && node->map_len != len)
        return bfti_fail(BFT_INVALID, "map: mapped with another length");
    if (node->map == NULL) {
        node->map = bfti_alloc(disk->env, len);
        if (node->map == NULL)
            return bfti_fail(BFT_NO_MEMORY, "map: no memory");
        node->map_len = len;
        (void)bfti_sparse_read(&node->cache, 0, node->map, len);
        disk->mapped++;
    }
    node->map_count++;
    *addr = node->map;
    return BFT_OK;
}

void bfti_disk_unmap(struct bfti_disk *disk, struct bfti_disk_node *node)
{
    assert(node->map_count > 0);
    node->map_count--;
    if (node->map_count > 0)
        return;
    bfti_free(disk->env, node->map);
    node->map = NULL;
    disk->mapped--;
}

static bool sector_differs(const char *map, const char *cache, size_t at,
                           size_t end)
{
    size_t n = end - at < BFTI_SIM_SECTOR ? end - at : BFTI_SIM_SECTOR;

    return memcmp(map + at, cache + at, n) != 0;
}

/* [FROM, FROM + LEN) of a mapping, whose bytes in the cache are CACHE. */
static bft_status absorb_part(struct bfti_disk *disk,
                              struct bfti_disk_node *node, size_t from,
                              const char *cache, size_t len)
{
    const char *map = (const char *)node->map + from;
    bft_status status = BFT_OK;
    size_t at = 0;

    if (memcmp(map, cache, len) == 0)
        return BFT_OK;
    while (status == BFT_OK && at < len) {
        size_t end = at;

        while (end < len && sector_differs(map, cache, end, len))
            end += BFTI_SIM_SECTOR;
        if (end > len)
            end = len;
        /* Not bfti_disk_write: to copy back would undo newer stores. */
        if (end > at)
            status = write_cache(disk, node, from + at, map + at, end - at);
        at = end > at ? end : at + BFTI_SIM_SECTOR;
    }
    return status;
}

static bft_status absorb_node(struct bfti_disk *disk,
                              struct bfti_disk_node *node)
{
    char cache[BFTI_SPARSE_PAGE];
    bft_status status = BFT_OK;

    for (size_t from = 0; status == BFT_OK && from < node->map_len;
         from += sizeof(cache)) {
        size_t len = node->map_len - from;
        size_t got =
            bfti_sparse_read(&node->cache, from, cache,
                             len < sizeof(cache) ? len : sizeof(cache));

        status = absorb_part(disk, node, from, cache, got);
    }
    return status;
}

bft_status bfti_disk_absorb(struct bfti_disk *disk)
{
    bft_status status = BFT_OK;

    if (disk->mapped == 0)
        return BFT_OK;
    for (struct bfti_disk_node *node = disk->nodes;
         status == BFT_OK && node != NULL; node = node->next)
        if (node->map != NULL)
            status = absorb_node(disk, node);
    return status;
}

/* --- the whole ----------------------------------------------------------- */

bft_status bfti_disk_init(struct bfti_disk *disk, const struct bfti_env *env)
{
    *disk = (struct bfti_disk){.env = env, .device = bfti_names_device()};
    disk->root = bfti_disk_node_create(disk, true, ++disk->last_id);
    return disk->root != NULL ? BFT_OK : BFT_NO_MEMORY;
}

void bfti_disk_free(struct bfti_disk *disk)
{
    /* All at once: no count matters any more. */
    for (struct bfti_disk_node *node = disk->nodes; node != NULL;
         node = node->next)
        while (node->first != NULL)
            change_done(disk, node);
    while (disk->nodes != NULL)
        node_free(disk, disk->nodes);
}
