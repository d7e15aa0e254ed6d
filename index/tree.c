/*
 * Trees: creation, listing, and the changes of their inner nodes that
 * splits and absorptions ask for.
 */
#include "cache.h"
#include "catalogue.h"
#include "expiry.h"
#include "tomb.h"

#include <assert.h>
#include <stdio.h>

/* --- finding ------------------------------------------------------------- */

static struct bfti_tree *find_locked(struct bfti_engine *engine, uint32_t id,
                                     const char *name)
{
    struct bfti_tree *tree = engine->trees;
    /* The name of a tree that is being truncated is its successor's. */
    while (tree &&
           !(bfti_tree_root(tree) && (name ? strcmp(tree->name, name) == 0 &&
                                                 !atomic_load(&tree->successor)
                                           : tree->id == id)))
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

struct bfti_tree *bfti_tree_after(struct bfti_engine *engine, uint32_t after)
{
    struct bfti_tree *best = NULL;
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        if (t->id > after && bfti_tree_root(t) && (!best || t->id < best->id))
            best = t;
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return best;
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
    struct bfti_inner *content = bfti_inner_left(node); /* [content] */
    /* Without memory for the list of held extents its space waits for the next
     * open. */
    if (place)
        (void)(bfti_extent_unlink(engine->buffer.pf, place, gathered, 0) ==
               BFT_OK);
    if (content) {
        atomic_fetch_sub(&engine->inner_bytes, content->bytes);
        bfti_defer_free(engine->buffer.threads, bfti_inner_link(content),
                        content, content->bytes);
    }
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
    return remove
               ? bfti_inner_remove(engine->heap, root, keys[0], ids[0], change)
               : bfti_inner_insert(engine->heap, root, keys, ids, n, change);
}

static size_t made_bytes(const struct bfti_inner_change *change)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < change->made_count; i++)
        bytes += bfti_inner_node_bytes(change->made[i]);
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
        bfti_inner_free_made(engine->heap, &change);
    }
    bfti_defer_unhold(engine->buffer.threads, &hold);
    return status;
}

enum { STRUCTURE_DROP = 1, STRUCTURE_CHANGE = 2 };
#define STRUCTURE_DONE (UINT64_C(1) << 32)

bool bfti_tree_structure_begin(void *engine, struct bfti_rec *rec,
                               uint32_t tree_id, bft_slice key)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    if (!tree)
        return false;
    /* [structure] either we see the drop, or it sees us and waits. */
    if (!(atomic_fetch_add(&tree->structure, STRUCTURE_CHANGE) &
          STRUCTURE_DROP) &&
        bfti_tree_node_stays(tree, rec, key))
        return true;
    atomic_fetch_sub(&tree->structure, STRUCTURE_CHANGE);
    return false;
}

void bfti_tree_structure_end(void *engine, uint32_t tree_id)
{
    /* A drop waits with the root in place. */
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    assert(tree);
    atomic_fetch_add(&tree->structure, STRUCTURE_DONE - STRUCTURE_CHANGE);
}

bool bfti_tree_leads_right(const struct bfti_tree *tree, uint64_t structure)
{
    /* [structure] nothing was under way, and nothing has been since. */
    return (uint32_t)structure == 0 &&
           atomic_load(&tree->structure) == structure &&
           atomic_load(&tree->engine->failed) == 0;
}

void bfti_tree_structure_stop(struct bfti_engine *engine,
                              struct bfti_tree *tree)
{
    atomic_fetch_or(&tree->structure, STRUCTURE_DROP); /* [structure] */
    /* Ends: each is a few steps under latches, without I/O. */
    while ((uint32_t)atomic_load(&tree->structure) != STRUCTURE_DROP)
        engine->env->yield(engine->env->ctx);
}

void bfti_tree_structure_resume(struct bfti_tree *tree)
{
    atomic_fetch_and(&tree->structure, ~(uint64_t)STRUCTURE_DROP);
}

/* A structure change that the inner nodes do not know is harmless to readers,
 * who find the way by siblings and forwards, but not to an image. */
static bool change_or_fail(struct bfti_engine *engine, uint32_t tree_id,
                           const bft_slice *keys, const uint64_t *ids, size_t n,
                           bool remove)
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

size_t bfti_tree_following(void *engine, struct bfti_rec *rec, uint32_t tree_id,
                           bft_slice key, uint64_t *ids, size_t max)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    struct bfti_inner *root;
    uint8_t next[BFTI_KEY_MAX];
    size_t next_len, n = 0;
    if (!tree)
        return 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        n = bfti_inner_stretch(root, key, ids, max, next, &next_len);
    bfti_read_end(rec);
    if (n == 0)
        return 0;
    memmove(ids, ids + 1, --n * sizeof(*ids)); /* all but KEY's own */
    return n;
}

uint64_t bfti_tree_before(void *engine, struct bfti_rec *rec, uint32_t tree_id,
                          bft_slice key)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    struct bfti_inner *root;
    uint64_t id = BFTI_PAGE_ID_NONE;
    if (!tree)
        return id;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        id = bfti_inner_find_before(root, key);
    bfti_read_end(rec);
    return id;
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
    status = bfti_inner_create(engine->heap, id, root);
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

struct bfti_name *bfti_name_make(const struct bfti_env *env, const char *name)
{
    size_t len = strlen(name);
    struct bfti_name *made = bfti_alloc(env, sizeof(*made) + len + 1);
    if (made) {
        made->older = NULL;
        memcpy(made->text, name, len + 1);
    }
    return made;
}

void bfti_tree_free(const struct bfti_env *env, struct bfti_tree *tree)
{
    struct bfti_inner *root = bfti_tree_root(tree);
    while (tree->names) {
        struct bfti_name *name = tree->names;
        tree->names = name->older;
        bfti_free(env, name);
    }
    if (root)
        bfti_inner_destroy(tree->engine->heap, root);
    bfti_free(env, tree->left);
    bfti_tombs_free(tree);
    bfti_free(env, tree);
}

bft_status bfti_tree_shell(struct bfti_engine *engine, uint32_t id,
                           const char *name, uint32_t leaf_bytes,
                           struct bfti_tree **out)
{
    struct bfti_tree *tree = bfti_alloc(engine->env, sizeof(*tree));
    *out = NULL;
    if (!tree)
        return bfti_fail(BFT_NO_MEMORY, "no memory for tree %s", name);
    memset(tree, 0, sizeof(*tree));
    tree->engine = engine;
    tree->id = id;
    tree->leaf_bytes = leaf_bytes;
    tree->names = bfti_name_make(engine->env, name);
    if (!tree->names) {
        bfti_free(engine->env, tree);
        return bfti_fail(BFT_NO_MEMORY, "no memory for tree %s", name);
    }
    atomic_store(&tree->name, tree->names->text);
    *out = tree;
    return BFT_OK;
}

bft_status bfti_tree_make(struct bfti_engine *engine, struct bfti_rec *rec,
                          uint32_t id, const char *name, uint32_t leaf_bytes,
                          struct bfti_inner *root, struct bfti_tree **out)
{
    struct bfti_tree *tree;
    bft_status status = bfti_tree_shell(engine, id, name, leaf_bytes, &tree);
    *out = NULL;
    if (status == BFT_OK && !root) {
        status = first_leaf(engine, rec, id, leaf_bytes, &root);
        if (status != BFT_OK)
            bfti_tree_free(engine->env, tree);
    }
    if (status != BFT_OK)
        return status;
    atomic_store(&tree->root, (uintptr_t)root);
    *out = tree;
    return BFT_OK;
}

void bfti_tree_add(struct bfti_engine *engine, struct bfti_tree *tree,
                   struct bfti_tree *instead)
{
    /* Nobody else changes it before it can be found. */
    atomic_fetch_add(&engine->inner_bytes,
                     bfti_inner_tree_bytes(bfti_tree_root(tree)));
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    tree->next = engine->trees;
    engine->trees = tree;
    if (instead)
        atomic_store(&instead->successor, tree);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
}

void bfti_tree_name(struct bfti_engine *engine, struct bfti_tree *tree,
                    struct bfti_name *name, struct bfti_tree *instead)
{
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    name->older = tree->names; /* others may be reading it */
    tree->names = name;
    atomic_store(&tree->name, name->text);
    if (instead)
        atomic_store(&instead->successor, tree); /* [successor] */
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
}

static void list_free(struct bfti_engine *engine, struct bfti_tree *tree)
{
    while (tree) {
        struct bfti_tree *next = tree->next;
        bfti_tree_free(engine->env, tree);
        tree = next;
    }
}

void bfti_trees_free(struct bfti_engine *engine)
{
    list_free(engine, engine->trees);
    list_free(engine, engine->trees_gone);
    engine->trees = engine->trees_gone = NULL;
}

uint64_t bfti_tree_log(struct bfti_engine *engine, struct bfti_rec *rec,
                       struct bfti_frame *frame)
{
    struct bfti_wal *wal = engine->buffer.wal;
    uint64_t lsn, end;
    bfti_wal_enter(wal, &rec->wal);
    bfti_wal_link(wal, &rec->wal, frame, &lsn, &end);
    return end;
}

static bft_status create(struct bfti_engine *engine, struct bfti_rec *rec,
                         const char *name, uint32_t leaf_bytes, uint64_t ttl_ms,
                         struct bfti_tree **out)
{
    uint32_t id = engine->next_tree_id;
    struct bfti_frame_tree created = {.id = id,
                                      .leaf_bytes = leaf_bytes,
                                      .ttl_ms = ttl_ms,
                                      .name = {name, strlen(name)}};
    struct bfti_frame *frame;
    uint64_t end;
    bft_status status = bfti_catalogue_check(engine, NULL, name);
    *out = NULL;
    if (status == BFT_OK)
        status = bfti_frame_tree_make(engine->buffer.wal, BFTI_FRAME_CREATE,
                                      &created, &frame);
    if (status != BFT_OK)
        return status;
    status = bfti_tree_make(engine, rec, id, name, leaf_bytes, NULL, out);
    if (status != BFT_OK) {
        bfti_frame_free(engine->buffer.wal, frame);
        return status;
    }
    bfti_tree_set_ttl(*out, ttl_ms);
    engine->next_tree_id = id + 1;
    PARK("create:made");
    /* Logged before anybody can find it, so that no write to it comes first.
     * In the log it is there, whatever comes of the commit. */
    end = bfti_tree_log(engine, rec, frame);
    PARK("create:logged");
    bfti_tree_add(engine, *out, NULL);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

bft_status bfti_tree_check_leaf_bytes(uint32_t leaf_bytes)
{
    if (leaf_bytes < 512 || leaf_bytes > 32768 || leaf_bytes % 512)
        return bfti_fail(BFT_INVALID,
                         "option leaf_bytes is %u: a multiple of 512 from 512 "
                         "to 32768",
                         (unsigned)leaf_bytes);
    return BFT_OK;
}

/* Does the tree that is there have what it is to have (0: no matter)? */
static bft_status check_same(const struct bfti_tree *tree, const char *name,
                             uint32_t leaf_bytes, uint64_t ttl_ms)
{
    if (leaf_bytes && leaf_bytes != tree->leaf_bytes)
        return bfti_fail(BFT_INVALID, "option leaf_bytes is %u, tree %s has %u",
                         (unsigned)leaf_bytes, name,
                         (unsigned)tree->leaf_bytes);
    if (ttl_ms && ttl_ms != tree->ttl_ms)
        return bfti_fail(BFT_INVALID, "option ttl_ms is %llu, tree %s has %llu",
                         (unsigned long long)ttl_ms, name,
                         (unsigned long long)tree->ttl_ms);
    return BFT_OK;
}

static bft_status open_or_create(struct bfti_engine *engine,
                                 struct bfti_rec *rec, const char *name,
                                 const bft_tree_options *options,
                                 struct bfti_tree **out)
{
    uint32_t asked = options ? options->leaf_bytes : 0, leaf_bytes = asked;
    uint64_t ttl_ms = options ? options->ttl_ms : 0;
    bft_status status;
    *out = bfti_tree_by_name(engine, name);
    if (*out)
        return check_same(*out, name, asked, ttl_ms);
    if (options && options->must_exist)
        return bfti_fail(BFT_NOT_FOUND, "%s has no tree %s", engine->path,
                         name);
    if (leaf_bytes == 0)
        leaf_bytes = engine->options.leaf_bytes;
    status = bfti_tree_check_leaf_bytes(leaf_bytes);
    if (status == BFT_OK && engine->buffer.forgets)
        status =
            bfti_check_leaf_share(leaf_bytes, engine->options.memory_bytes);
    if (status == BFT_OK)
        status = bfti_gate_write(engine, rec, 512);
    if (status != BFT_OK)
        return status;
    PARK("tree:not-there");
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    *out = bfti_tree_by_name(engine, name);
    status = *out /* another was faster */
                 ? check_same(*out, name, asked, ttl_ms)
                 : create(engine, rec, name, leaf_bytes, ttl_ms, out);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

bft_status bfti_tree_check_name(const char *name)
{
    size_t len = name ? strnlen(name, BFTI_NAME_MAX + 1) : 0;
    if (len == 0 || len > BFTI_NAME_MAX)
        return bfti_fail(BFT_INVALID,
                         "a tree's name has 1 to %d bytes, this one %zu%s",
                         (int)BFTI_NAME_MAX, len, name ? "" : " (NULL)");
    return BFT_OK;
}

struct bfti_tree *bfti_handle_follow(struct bft_tree *handle)
{
    struct bfti_tree *tree = atomic_load(&handle->tree), *next;
    while ((next = atomic_load(&tree->successor)))
        tree = next;
    atomic_store(&handle->tree, tree); /* or one on the way there: no matter */
    return tree;
}

/* Is HANDLE that of TREE, or of what has succeeded it? */
static bool is_handle_of(struct bft_tree *handle, struct bfti_tree *tree)
{
    /* Ends: each round follows a truncation or a bulk load. */
    for (;;) {
        const struct bfti_tree *is = bfti_handle_tree(handle);
        struct bfti_tree *next;
        while ((next = atomic_load(&tree->successor)))
            tree = next;
        if (is == tree)
            return true;
        if (bfti_handle_tree(handle) == is)
            return false;
    }
}

/* The handle of TREE in DB, made when it is the first. */
static bft_status handle_for(bft_db *db, struct bfti_tree *tree, bft_tree **out)
{
    bft_tree *handle;
    PARK("tree:found");
    bfti_mutex_lock(tree->engine->env, &db->lock);
    for (handle = db->trees; handle && !is_handle_of(handle, tree);)
        handle = handle->next;
    /* Handles outlive the engine and so its surroundings. */
    if (!handle && (handle = bfti_alloc(bfti_env_system(), sizeof(*handle)))) {
        memset(handle, 0, sizeof(*handle));
        handle->magic = BFTI_MAGIC_TREE;
        handle->db = db;
        atomic_store(&handle->tree, tree);
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
        status = bfti_tree_check_name(name);
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

bft_status bft_tree_id(bft_tree *tree, uint32_t *id)
{
    struct bfti_engine *engine;
    bft_status status;
    if (!id)
        return bfti_fail(BFT_INVALID, "bft_tree_id: an output is NULL");
    *id = 0;
    status = bfti_gate_open(tree, &engine);
    if (status == BFT_OK)
        *id = bfti_handle_tree(tree)->id;
    return status;
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
        count += bfti_tree_is_there(t);
    names = bfti_alloc(engine->env, (count + 1) * sizeof(*names));
    for (struct bfti_tree *t = engine->trees; names && t; t = t->next)
        if (bfti_tree_is_there(t) && !atomic_load(&t->successor) && at < count)
            (void)snprintf(names[at++], sizeof(*names), "%s", t->name);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    if (!names)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a list of trees");
    for (size_t i = 0; i < at && each(ctx, names[i]); i++)
        ;
    bfti_free(engine->env, names);
    return BFT_OK;
}
