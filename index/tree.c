/*
 * Trees: creation, drop, listing, and the changes of their inner nodes that
 * splits and absorptions ask for.
 */
#include "engine.h"

#include <assert.h>
#include <stdlib.h>

/* Payload of CREATE and DROP frames: le32 id, le32 leaf bytes, name. */
enum { TREE_FRAME_HEAD = 8 };

/* --- finding ------------------------------------------------------------- */

static struct bfti_tree *find_locked(struct bfti_engine *engine, uint32_t id,
                                     const char *name)
{
    struct bfti_tree *tree = engine->trees;
    while (tree && !(bfti_tree_root(tree) &&
                     (name ? strcmp(tree->name, name) == 0 : tree->id == id)))
        tree = tree->next;
    return tree;
}

struct bfti_tree *bfti_tree_by_id(struct bfti_engine *engine, uint32_t id)
{
    struct bfti_tree *tree;
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    tree = find_locked(engine, id, NULL);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return tree;
}

struct bfti_tree *bfti_tree_by_name(struct bfti_engine *engine,
                                    const char *name)
{
    struct bfti_tree *tree;
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    tree = find_locked(engine, 0, name);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return tree;
}

/* --- inner nodes --------------------------------------------------------- */

void bfti_node_retire(struct bfti_engine *engine, struct bfti_inner *node,
                      uint64_t gathered)
{
    /* [node] The checkpoint may be writing its extent just now: whoever comes
     * second, it or we, finds that and gives the extent back. */
    uint64_t place = atomic_exchange(&node->place, BFTI_NODE_RETIRED);
    /* Without memory for the list of held extents its space waits for the next
     * open. */
    if (place)
        (void)(bfti_extent_unlink(engine->buffer.pf, place, gathered, 0) ==
               BFT_OK);
    atomic_fetch_sub(&engine->inner_bytes, node->bytes);
    bfti_defer_free(engine->buffer.threads, bfti_inner_link(node), node,
                    node->bytes);
}

static bft_status copy_path(struct bfti_engine *engine,
                            const struct bfti_inner *root,
                            const bft_slice *keys, const uint64_t *ids,
                            size_t n, bool remove,
                            struct bfti_inner_change *change)
{
    return remove ? bfti_inner_remove(engine->env, root, keys[0], ids[0],
                                      change)
                  : bfti_inner_insert(engine->env, root, keys, ids, n, change);
}

static size_t made_bytes(const struct bfti_inner_change *change)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < change->made_count; i++)
        bytes += change->made[i]->bytes;
    return bytes;
}

/* Copy the path and swing the root; repeated when others were faster. */
static bft_status change_tree(struct bfti_engine *engine,
                              struct bfti_tree *tree, const bft_slice *keys,
                              const uint64_t *ids, size_t n, bool remove)
{
    struct bfti_inner_change change;
    struct bfti_hold hold;
    bft_status status = BFT_OK;
    /* Nothing that we copy from is freed meanwhile; a read-side section would
     * forbid the allocation. */
    bfti_defer_hold(engine->buffer.threads, &hold);
    for (;;) {
        /* Before the root: with the leaf's latch held no later checkpoint gets
         * as far as the structure, so the mark is that one's, or of one that
         * has ended. */
        uint64_t epoch = atomic_load(&engine->epoch);
        uintptr_t root = atomic_load(&tree->root); /* [root] */
        uintptr_t taken = root & BFTI_ROOT_TAKEN;
        if (root - taken == 0)
            break; /* dropped meanwhile */
        status = copy_path(engine, bfti_root_node(root), keys, ids, n, remove,
                           &change);
        if (status != BFT_OK)
            break;
        size_t bytes = made_bytes(&change);
        atomic_fetch_add(&engine->inner_bytes, bytes); /* before others retire
                                                          what it counts */
        if (atomic_compare_exchange_strong(&tree->root, &root,
                                           (uintptr_t)change.root | taken)) {
            PARK("tree:root-swung");
            uint64_t gathered = taken ? epoch : 0;
            for (unsigned i = 0; i < change.replaced_count; i++)
                bfti_node_retire(engine, change.replaced[i], gathered);
            break;
        }
        atomic_fetch_sub(&engine->inner_bytes, bytes);
        bfti_inner_free_made(engine->env, &change);
    }
    bfti_defer_unhold(engine->buffer.threads, &hold);
    return status;
}

enum { STRUCTURE_DROP = 1, STRUCTURE_CHANGE = 2 };

bool bfti_tree_structure_begin(void *engine, uint32_t tree_id)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    if (!tree)
        return false;
    /* [structure] either we see the drop, or it sees us and waits. */
    if (!(atomic_fetch_add(&tree->structure, STRUCTURE_CHANGE) &
          STRUCTURE_DROP))
        return true;
    atomic_fetch_sub(&tree->structure, STRUCTURE_CHANGE);
    return false;
}

void bfti_tree_structure_end(void *engine, uint32_t tree_id)
{
    /* A drop waits with the root in place. */
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    assert(tree);
    atomic_fetch_sub(&tree->structure, STRUCTURE_CHANGE);
}

/* No split or absorption is under way when this returns, and none will be: the
 * inner nodes name each of the tree's leaves, and only those. */
static void structure_stop(struct bfti_engine *engine, struct bfti_tree *tree)
{
    atomic_fetch_or(&tree->structure, STRUCTURE_DROP); /* [structure] */
    /* Ends: each is a few steps under latches, without I/O. */
    while (atomic_load(&tree->structure) != STRUCTURE_DROP)
        engine->env->yield(engine->env->ctx);
}

/* A structure change that the inner nodes do not know is harmless to readers,
 * who find the way by siblings and forwards, but not to an image. */
static bool change_or_fail(struct bfti_engine *engine, uint32_t tree_id,
                           const bft_slice *keys, const uint64_t *ids,
                           size_t n, bool remove)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    bft_status status;
    if (!tree)
        return true;
    status = change_tree(engine, tree, keys, ids, n, remove);
    if (status != BFT_OK)
        bfti_engine_fail(engine, status);
    return status == BFT_OK;
}

void bfti_tree_split(void *engine, uint32_t tree_id, const bft_slice *keys,
                     const uint64_t *ids, size_t n)
{
    (void)change_or_fail(engine, tree_id, keys, ids, n, false);
}

bool bfti_tree_absorbed(void *engine, uint32_t tree_id, bft_slice key,
                        uint64_t id)
{
    return change_or_fail(engine, tree_id, &key, &id, 1, true);
}

/* --- making -------------------------------------------------------------- */

/* A leaf without records, all in memory, and a root that leads to it.  Found by
 * nobody before all of it is there. */
static bft_status first_leaf(struct bfti_engine *engine, struct bfti_rec *rec,
                             uint32_t tree_id, uint32_t leaf_bytes,
                             struct bfti_inner **root)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_run_spec spec;
    struct bfti_minipage *page;
    uint64_t place, id;
    bft_status status;

    memset(&spec, 0, sizeof(spec));
    spec.tree_id = tree_id;
    spec.keep = BFTI_KEEP_ALL;
    status = bfti_buffer_alloc(
        buffer, rec, bfti_pool_class(bfti_minipage_size(&spec, 4, 256)),
        &place);
    if (status != BFT_OK)
        return status;
    status = bfti_id_alloc(buffer->table, &id);
    if (status != BFT_OK)
        goto free_page;
    status = bfti_inner_create(engine->env, id, root);
    if (status != BFT_OK)
        goto free_id;
    page = bfti_page_at(buffer, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), &spec, id, 0, 0);
    page->leaf_bytes = leaf_bytes;
    (void)bfti_table_change(buffer->table, id);
    bfti_pool_publish(buffer->pool, place, id);
    bfti_entry_set(bfti_table_entry(buffer->table, id), place); /* [place] */
    return BFT_OK;

free_id:
    bfti_id_free(buffer->table, id);
free_page:
    bfti_pool_free(buffer->pool, place);
    return status;
}

bft_status bfti_tree_make(struct bfti_engine *engine, struct bfti_rec *rec,
                          uint32_t id, const char *name, uint32_t leaf_bytes,
                          struct bfti_inner *root, struct bfti_tree **out)
{
    struct bfti_tree *tree = bfti_alloc(engine->env, sizeof(*tree));
    bft_status status = BFT_OK;
    *out = NULL;
    if (!tree)
        return bfti_fail(BFT_NO_MEMORY, "no memory for tree %s", name);
    memset(tree, 0, sizeof(*tree));
    tree->engine = engine;
    tree->id = id;
    tree->leaf_bytes = leaf_bytes;
    memcpy(tree->name, name, strlen(name) + 1);
    if (!root)
        status = first_leaf(engine, rec, id, leaf_bytes, &root);
    if (status != BFT_OK) {
        bfti_free(engine->env, tree);
        return status;
    }
    atomic_store(&tree->root, (uintptr_t)root);
    *out = tree;
    return BFT_OK;
}

void bfti_tree_add(struct bfti_engine *engine, struct bfti_tree *tree)
{
    /* Nobody else changes it before it can be found. */
    atomic_fetch_add(&engine->inner_bytes,
                     bfti_inner_tree_bytes(bfti_tree_root(tree)));
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    tree->next = engine->trees;
    engine->trees = tree;
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
}

void bfti_trees_free(struct bfti_engine *engine)
{
    while (engine->trees) {
        struct bfti_tree *tree = engine->trees;
        struct bfti_inner *root = bfti_tree_root(tree);
        engine->trees = tree->next;
        if (root)
            bfti_inner_destroy(engine->env, root);
        bfti_free(engine->env, tree->left);
        bfti_free(engine->env, tree);
    }
}

/* Link a frame that creates or drops a tree and make it survive a kill. */
static bft_status log_tree(struct bfti_engine *engine, struct bfti_rec *rec,
                           uint8_t type, uint32_t id, uint32_t leaf_bytes,
                           const char *name)
{
    struct bfti_wal *wal = engine->buffer.wal;
    struct bfti_frame *frame;
    size_t name_len = strlen(name);
    void *payload;
    uint64_t lsn, end;
    le32 head[2] = {le32_of(id), le32_of(leaf_bytes)};
    bft_status status = bfti_frame_create(wal, type, TREE_FRAME_HEAD + name_len,
                                          &frame, &payload);
    if (status != BFT_OK)
        return status;
    memcpy(payload, head, TREE_FRAME_HEAD);
    memcpy((uint8_t *)payload + TREE_FRAME_HEAD, name, name_len);
    bfti_frame_seal(wal, frame);
    bfti_wal_enter(wal, &rec->wal);
    bfti_wal_link(wal, &rec->wal, frame, &lsn, &end);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

static bft_status create(struct bfti_engine *engine, struct bfti_rec *rec,
                         const char *name, uint32_t leaf_bytes,
                         struct bfti_tree **out)
{
    uint32_t id = engine->next_tree_id;
    bft_status status =
        bfti_tree_make(engine, rec, id, name, leaf_bytes, NULL, out);
    if (status != BFT_OK)
        return status;
    engine->next_tree_id = id + 1;
    PARK("create:made");
    /* Logged before anybody can find it, so that no write to it comes first. */
    status = log_tree(engine, rec, BFTI_FRAME_CREATE, id, leaf_bytes, name);
    PARK("create:logged");
    bfti_tree_add(engine, *out);
    return status;
}

static bft_status check_leaf_bytes(uint32_t leaf_bytes)
{
    if (leaf_bytes < 512 || leaf_bytes > 32768 || leaf_bytes % 512)
        return bfti_fail(BFT_INVALID,
                         "option leaf_bytes is %u: a multiple of 512 from 512 "
                         "to 32768",
                         (unsigned)leaf_bytes);
    return BFT_OK;
}

static bft_status open_or_create(struct bfti_engine *engine,
                                 struct bfti_rec *rec, const char *name,
                                 const bft_tree_options *options,
                                 struct bfti_tree **out)
{
    uint32_t leaf_bytes = options ? options->leaf_bytes : 0;
    bft_status status;
    *out = bfti_tree_by_name(engine, name);
    if (*out) {
        if (leaf_bytes && leaf_bytes != (*out)->leaf_bytes)
            return bfti_fail(BFT_INVALID,
                             "option leaf_bytes is %u, tree %s has %u",
                             (unsigned)leaf_bytes, name,
                             (unsigned)(*out)->leaf_bytes);
        return BFT_OK;
    }
    if (options && options->must_exist)
        return bfti_fail(BFT_NOT_FOUND, "%s has no tree %s", engine->path,
                         name);
    if (leaf_bytes == 0)
        leaf_bytes = engine->options.leaf_bytes;
    status = check_leaf_bytes(leaf_bytes);
    if (status == BFT_OK)
        status = bfti_gate_write(engine, rec, 512);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    *out = bfti_tree_by_name(engine, name); /* another was faster */
    if (!*out)
        status = create(engine, rec, name, leaf_bytes, out);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

static bft_status check_name(const char *name)
{
    size_t len = name ? strnlen(name, BFTI_NAME_MAX + 1) : 0;
    if (len == 0 || len > BFTI_NAME_MAX)
        return bfti_fail(BFT_INVALID,
                         "a tree's name has 1 to %d bytes, this one %zu%s",
                         (int)BFTI_NAME_MAX, len, name ? "" : " (NULL)");
    return BFT_OK;
}

/* The handle of TREE in DB, made when it is the first. */
static bft_status handle_for(bft_db *db, struct bfti_tree *tree,
                             bft_tree **out)
{
    bft_tree *handle;
    bfti_mutex_lock(tree->engine->env, &db->lock);
    for (handle = db->trees; handle && handle->tree != tree;)
        handle = handle->next;
    if (!handle && (handle = calloc(1, sizeof(*handle)))) {
        handle->magic = BFTI_MAGIC_TREE;
        handle->db = db;
        handle->tree = tree;
        handle->next = db->trees;
        db->trees = handle;
    }
    bfti_mutex_unlock(tree->engine->env, &db->lock);
    *out = handle;
    return handle ? BFT_OK
                  : bfti_fail(BFT_NO_MEMORY, "no memory for a tree handle");
}

bft_status bft_tree_open(bft_db *db, const char *name,
                         const bft_tree_options *options, bft_tree **out)
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_tree_open: an output is NULL");
    *out = NULL;
    status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = check_name(name);
    if (status != BFT_OK)
        return status;
    if (options && options->size != sizeof(*options))
        return bfti_fail(BFT_INVALID,
                         "option size is %zu, this library knows %zu",
                         options->size, sizeof(*options));
    rec = bfti_rec_current(engine->buffer.threads);
    if (!rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = open_or_create(engine, rec, name, options, &tree);
    return status == BFT_OK ? handle_for(db, tree, out) : status;
}

bft_db *bft_tree_db(bft_tree *tree)
{
    return tree && tree->magic == BFTI_MAGIC_TREE ? tree->db : NULL;
}

bft_status bft_tree_list(bft_db *db, bool (*each)(void *ctx, const char *name),
                         void *ctx)
{
    struct bfti_engine *engine;
    char(*names)[BFTI_NAME_MAX + 1] = NULL;
    size_t count = 0, at = 0;
    bft_status status = bfti_gate(db, &engine);
    if (status != BFT_OK)
        return status;
    if (!each)
        return bfti_fail(BFT_INVALID, "bft_tree_list: EACH is NULL");
    /* Names are copied, so that EACH may call the library. */
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        count += bfti_tree_root(t) != NULL;
    names = malloc((count + 1) * sizeof(*names));
    for (struct bfti_tree *t = engine->trees; names && t; t = t->next)
        if (bfti_tree_root(t) && at < count)
            memcpy(names[at++], t->name, sizeof(t->name));
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    if (!names)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a list of trees");
    for (size_t i = 0; i < at && each(ctx, names[i]); i++)
        ;
    free(names);
    return BFT_OK;
}

/* --- dropping ------------------------------------------------------------ */

/* Take all that leaf ID has.  The tree has no root any more: no reader or writer
 * that comes now gets here; those inside end, and mergers lose their swing. */
static bft_status leaf_clear(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, uint64_t id)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_places gone = {NULL, 0, 0};
    struct bfti_reader reader;
    bft_status status;
    bool stable = false;

    /* Ends: each round follows a change by one of those still inside. */
    do {
        gone.count = 0;
        bfti_reader_at(&reader, tree, rec, id);
        status = bfti_leaf_extents(&reader, &gone, &stable);
        if (status == BFT_OK && stable) {
            bfti_latch(engine->env, reader.entry);
            stable = bfti_reader_still(&reader);
            if (!stable)
                bfti_unlatch(engine->env, reader.entry, false);
        }
    } while (status == BFT_OK && !stable);
    if (status == BFT_OK) {
        uint64_t gathered = bfti_table_change(buffer->table, id);
        PARK("drop:leaf-latched");
        bfti_entry_set(reader.entry, 0); /* [place] */
        bfti_unlatch(engine->env, reader.entry, true);
        PARK("drop:leaf-taken");
        for (unsigned i = 0; i < reader.pages; i++)
            bfti_pool_retire(buffer->pool, reader.place[i]);
        /* Without memory for the list of held extents its space waits for the
         * next open. */
        for (size_t i = 0; i < gone.count; i++)
            (void)(bfti_extent_unlink(buffer->pf, gone.place[i], gathered,
                                      bfti_last_lsn(buffer)) == BFT_OK);
        bfti_id_free(buffer->table, id);
    }
    bfti_reader_close(&reader);
    bfti_free(engine->env, gone.place);
    return status;
}

/* What cannot be cleared now, because what it refers to cannot be read, is
 * noted for another time.  Returns the first failure. */
static bft_status clear_left(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree)
{
    bft_status first = BFT_OK;
    size_t kept = 0;
    for (size_t i = 0; i < tree->left_count; i++) {
        bft_status status = leaf_clear(engine, rec, tree, tree->left[i]);
        if (status == BFT_OK)
            continue;
        tree->left[kept++] = tree->left[i];
        if (first == BFT_OK)
            first = status;
    }
    tree->left_count = kept;
    if (kept == 0) {
        bfti_free(engine->env, tree->left);
        tree->left = NULL;
    }
    return first;
}

bft_status bfti_trees_clear_rest(struct bfti_engine *engine,
                                 struct bfti_rec *rec)
{
    bft_status first = BFT_OK;
    for (struct bfti_tree *t = engine->trees; t; t = t->next) {
        bft_status status = bfti_tree_root(t) || t->left_count == 0
                                ? BFT_OK
                                : clear_left(engine, rec, t);
        if (first == BFT_OK)
            first = status;
    }
    return first;
}

/* Count the leaves below NODE, and note them if TREE has room for them. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static size_t note_leaves(struct bfti_tree *tree, const struct bfti_inner *node)
{
    size_t count = 0;
    for (unsigned i = 0; i < node->count; i++) {
        if (node->height > 1)
            count += note_leaves(tree, bfti_inner_child(node, i));
        else if (tree->left)
            tree->left[tree->left_count++] = bfti_inner_page(node, i);
        count += node->height == 1;
    }
    return count;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static void nodes_retire(struct bfti_engine *engine, struct bfti_inner *node)
{
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        nodes_retire(engine, bfti_inner_child(node, i));
    bfti_node_retire(engine, node, 0);
}

static void clear_undo(struct bfti_engine *engine, struct bfti_tree *tree)
{
    bfti_free(engine->env, tree->left);
    tree->left = NULL;
    tree->left_count = 0;
    atomic_fetch_and(&tree->structure, ~(uint32_t)STRUCTURE_DROP);
}

/* What needs memory comes before the drop is logged: then it cannot stop
 * half-way for want of it, and forget leaves. */
static bft_status clear_begin(struct bfti_engine *engine,
                              struct bfti_tree *tree)
{
    const struct bfti_inner *root;
    size_t count;
    /* Of a leaf that a split adds, or whose id an absorption gives away, while
     * we walk we would never hear. */
    structure_stop(engine, tree);
    PARK("drop:structure-stopped");
    /* Nobody replaces nodes any more. */
    root = bfti_tree_root(tree);
    count = note_leaves(tree, root);
    tree->left = bfti_alloc(engine->env, count * sizeof(*tree->left));
    if (!tree->left) {
        clear_undo(engine, tree);
        return bfti_fail(BFT_NO_MEMORY, "no memory to drop tree %s with %zu "
                                        "leaves",
                         tree->name, count);
    }
    (void)note_leaves(tree, root);
    return BFT_OK;
}

static bft_status clear_all(struct bfti_engine *engine, struct bfti_rec *rec,
                            struct bfti_tree *tree)
{
    struct bfti_hold hold;
    uintptr_t old;
    bfti_defer_hold(engine->buffer.threads, &hold);
    old = atomic_exchange(&tree->root, 0); /* [root] */
    PARK("drop:root-taken");
    nodes_retire(engine, bfti_root_node(old));
    bfti_defer_unhold(engine->buffer.threads, &hold);
    return clear_left(engine, rec, tree);
}

bft_status bfti_tree_clear(struct bfti_engine *engine, struct bfti_rec *rec,
                           struct bfti_tree *tree)
{
    bft_status status = clear_begin(engine, tree);
    return status == BFT_OK ? clear_all(engine, rec, tree) : status;
}

static bft_status drop(struct bfti_engine *engine, struct bfti_rec *rec,
                       struct bfti_tree *tree)
{
    bft_status status = clear_begin(engine, tree);
    if (status != BFT_OK)
        return status;
    status = log_tree(engine, rec, BFTI_FRAME_DROP, tree->id, 0, tree->name);
    PARK("drop:logged");
    if (status == BFT_OK)
        return clear_all(engine, rec, tree);
    clear_undo(engine, tree);
    return status;
}

bft_status bft_tree_drop(bft_db *db, const char *name)
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_status status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = check_name(name);
    if (status != BFT_OK)
        return status;
    rec = bfti_rec_current(engine->buffer.threads);
    if (!rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = bfti_gate_write(engine, rec, 512);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    tree = bfti_tree_by_name(engine, name);
    if (!tree)
        status = bfti_fail(BFT_NOT_FOUND, "%s has no tree %s", engine->path,
                           name);
    else
        status = drop(engine, rec, tree);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

/* --- redo ---------------------------------------------------------------- */

static bft_status parse(const void *payload, size_t len, uint32_t *id,
                        uint32_t *leaf_bytes, char name[BFTI_NAME_MAX + 1])
{
    le32 head[2];
    if (len <= TREE_FRAME_HEAD || len > TREE_FRAME_HEAD + BFTI_NAME_MAX)
        return bfti_fail(BFT_CORRUPT, "a tree's frame has %zu bytes", len);
    memcpy(head, payload, TREE_FRAME_HEAD);
    *id = le32_get(head[0]);
    *leaf_bytes = le32_get(head[1]);
    memcpy(name, (const uint8_t *)payload + TREE_FRAME_HEAD,
           len - TREE_FRAME_HEAD);
    name[len - TREE_FRAME_HEAD] = 0;
    return BFT_OK;
}

bft_status bfti_tree_redo_create(struct bfti_engine *engine,
                                 struct bfti_rec *rec, const void *payload,
                                 size_t len)
{
    char name[BFTI_NAME_MAX + 1];
    uint32_t id = 0, leaf_bytes = 0;
    struct bfti_tree *tree;
    bft_status status = parse(payload, len, &id, &leaf_bytes, name);
    /* Ids are never reused: what the image has, or had and dropped, is passed
     * by. */
    if (status != BFT_OK || id < engine->next_tree_id)
        return status;
    status = check_leaf_bytes(leaf_bytes);
    if (status == BFT_OK)
        status = bfti_tree_make(engine, rec, id, name, leaf_bytes, NULL, &tree);
    if (status == BFT_OK) {
        engine->next_tree_id = id + 1;
        bfti_tree_add(engine, tree);
    }
    return status;
}

bft_status bfti_tree_redo_drop(struct bfti_engine *engine,
                               struct bfti_rec *rec, const void *payload,
                               size_t len)
{
    char name[BFTI_NAME_MAX + 1];
    uint32_t id = 0, leaf_bytes = 0;
    struct bfti_tree *tree;
    bft_status status = parse(payload, len, &id, &leaf_bytes, name);
    if (status != BFT_OK)
        return status;
    tree = bfti_tree_by_id(engine, id);
    return tree ? bfti_tree_clear(engine, rec, tree) : BFT_OK;
}
