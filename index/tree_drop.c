/*
 * Trees that go, are emptied or get another name; and what recovery does of drops,
 * truncations, creations and loads.
 */
#include "catalogue.h"
#include "expiry.h"
#include "image.h"
#include "snapshot.h"

#include <assert.h>

/* --- dropping ------------------------------------------------------------ */

/* Of the leaf's page, which takes appends under the same word. */
static uint32_t tail_of(const struct bfti_reader *r)
{
    return r->pages ? atomic_load(&r->page[0]->tail) : 0;
}

/* Take all that leaf ID has.  The tree has no root any more: no reader or writer
 * that comes now gets here; those inside end, and mergers lose their swing.  LAST:
 * if it is damaged, all that is known of it; else it stays as it is. */
static bft_status leaf_clear(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, uint64_t id, bool last)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_places gone = {NULL, 0, 0};
    struct bfti_reader reader;
    bft_status status, damage;
    bool stable = false;

    /* Ends: each round follows a change by one of those still inside. */
    do {
        uint32_t tail;
        gone.count = 0;
        bfti_reader_at(&reader, tree, rec, id);
        tail = tail_of(&reader);
        damage = bfti_leaf_extents(&reader, &gone, &stable);
        status = last && damage == BFT_CORRUPT ? BFT_OK : damage;
        if (status == BFT_OK && stable) {
            bfti_latch(engine->env, reader.entry);
            stable = bfti_reader_still(&reader) && tail_of(&reader) == tail;
            if (!stable)
                bfti_unlatch(engine->env, reader.entry, false);
        }
    } while (status == BFT_OK && !stable);
    if (status == BFT_OK) {
        uint64_t gathered = bfti_table_change(buffer->table, id);
        /* Frames name extents of large values only: all others wait for an image
         * without the tree, whatever redo starts from. */
        uint64_t lsn = atomic_load(&tree->has_large) && !tree->history
                           ? bfti_last_lsn(buffer)
                           : 0;
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
                                      lsn) == BFT_OK);
        bfti_id_free(buffer->table, id);
    }
    bfti_reader_close(&reader);
    bfti_free(engine->env, gone.place);
    return damage;
}

/* Returns the first failure. */
static bft_status clear_leaves(struct bfti_engine *engine, struct bfti_rec *rec,
                               struct bfti_tree *tree, bool last)
{
    bft_status first = BFT_OK;
    size_t kept = 0;
    for (size_t i = 0; i < tree->left_count; i++) {
        bft_status status = leaf_clear(engine, rec, tree, tree->left[i], last);
        if (first == BFT_OK)
            first = status;
        if (status != BFT_OK && !(last && status == BFT_CORRUPT))
            tree->left[kept++] = tree->left[i];
    }
    tree->left_count = kept;
    if (kept == 0) {
        bfti_free(engine->env, tree->left);
        tree->left = NULL;
    }
    return first;
}

/* What cannot be cleared now, because what it refers to cannot be read, is
 * noted for another time. */
bft_status bfti_tree_clear_leaves(struct bfti_engine *engine,
                                  struct bfti_rec *rec, struct bfti_tree *tree)
{
    return clear_leaves(engine, rec, tree, false);
}

bft_status bfti_trees_clear_rest(struct bfti_engine *engine,
                                 struct bfti_rec *rec)
{
    bft_status first = BFT_OK;
    for (struct bfti_tree *t = engine->trees; t; t = t->next) {
        bft_status status = bfti_tree_root(t) || t->left_count == 0
                                ? BFT_OK
                                : clear_leaves(engine, rec, t, true);
        if (first == BFT_OK)
            first = status;
    }
    return first;
}

/* Handles, and threads that were stopped, may have them still; who walks the list
 * has one of its two locks. */
void bfti_trees_forget(struct bfti_engine *engine)
{
    struct bfti_tree **at = &engine->trees, *tree;
    while ((tree = *at)) {
        if (bfti_tree_root(tree) || tree->left_count ||
            !bfti_codec_forget(engine->buffer.pf, tree->id)) {
            at = &tree->next;
            continue;
        }
        bfti_mutex_lock(engine->env, &engine->trees_lock);
        *at = tree->next;
        bfti_mutex_unlock(engine->env, &engine->trees_lock);
        tree->next = engine->trees_gone;
        engine->trees_gone = tree;
    }
}

bool bfti_trees_left(const struct bfti_engine *engine, uint64_t id)
{
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        for (size_t i = 0; !bfti_tree_root(t) && i < t->left_count; i++)
            if (t->left[i] == id)
                return true;
    return false;
}

/* Note the leaves that AT, of height 1, has. */
static bft_status note_children(struct bfti_tree *tree,
                                const struct bfti_inner *at, size_t *cap)
{
    const struct bfti_env *env = tree->engine->env;
    if (*cap - tree->left_count < at->count) {
        size_t more = 2 * (tree->left_count + at->count);
        uint64_t *grown = bfti_realloc(env, tree->left, more * sizeof(*grown));
        if (!grown)
            return bfti_fail(BFT_NO_MEMORY,
                             "no memory to drop tree %s with over %zu leaves",
                             tree->name, tree->left_count);
        tree->left = grown;
        *cap = more;
    }
    assert(tree->left_count + at->count <= *cap);
    for (unsigned i = 0; i < at->count; i++)
        tree->left[tree->left_count++] = bfti_inner_page(at, i);
    return BFT_OK;
}

/* Note the leaves below NODE, of which nobody replaces any. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status note_leaves(struct bfti_tree *tree,
                              const struct bfti_inner *node, size_t *cap)
{
    const struct bfti_inner *at;
    struct bfti_inner *own = NULL;
    bft_status status = BFT_OK;
    if (node->height == 1) {
        status = bfti_node_borrow(tree, node, &at, &own);
        assert(status != BFT_OK || at);
        if (status == BFT_OK)
            status = note_children(tree, at, cap);
        bfti_free(tree->engine->heap, own);
        return status;
    }
    for (unsigned i = 0; status == BFT_OK && i < node->count; i++)
        status = note_leaves(tree, bfti_inner_child(node, i), cap);
    return status;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static void nodes_retire(struct bfti_engine *engine, struct bfti_inner *node)
{
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        nodes_retire(engine, bfti_inner_child(node, i));
    bfti_node_retire(engine, node, 0);
}

void bfti_tree_clear_undo(struct bfti_engine *engine, struct bfti_tree *tree)
{
    bfti_free(engine->env, tree->left);
    tree->left = NULL;
    tree->left_count = 0;
    bfti_tree_structure_resume(tree);
}

/* What needs memory comes before the drop is logged: then it cannot stop
 * half-way for want of it, and forget leaves. */
bft_status bfti_tree_clear_begin(struct bfti_engine *engine,
                                 struct bfti_tree *tree)
{
    struct bfti_hold hold;
    size_t cap = 0;
    bft_status status;
    /* Of a leaf that a split adds, or whose id an absorption gives away, while
     * we walk we would never hear. */
    bfti_tree_structure_stop(engine, tree);
    PARK("drop:structure-stopped");
    /* Nobody replaces nodes any more; their content may be dropped. */
    bfti_defer_hold(engine->buffer.threads, &hold);
    status = note_leaves(tree, bfti_tree_root(tree), &cap);
    bfti_defer_unhold(engine->buffer.threads, &hold);
    if (status != BFT_OK)
        bfti_tree_clear_undo(engine, tree);
    return status;
}

/* From now on nobody gets to the tree's leaves. */
void bfti_tree_clear_root(struct bfti_engine *engine, struct bfti_tree *tree)
{
    struct bfti_hold hold;
    uintptr_t old;
    bfti_defer_hold(engine->buffer.threads, &hold);
    old = atomic_exchange(&tree->root, 0); /* [root] */
    PARK("drop:root-taken");
    nodes_retire(engine, bfti_root_node(old));
    bfti_codec_drop(engine->buffer.pf, tree->id);
    bfti_defer_unhold(engine->buffer.threads, &hold);
}

bft_status bfti_tree_clear(struct bfti_engine *engine, struct bfti_rec *rec,
                           struct bfti_tree *tree)
{
    bft_status status = bfti_tree_clear_begin(engine, tree);
    if (status != BFT_OK)
        return status;
    bfti_tree_clear_root(engine, tree);
    return bfti_tree_clear_leaves(engine, rec, tree);
}

static bft_status drop(struct bfti_engine *engine, struct bfti_rec *rec,
                       struct bfti_tree *tree)
{
    struct bfti_frame_tree gone = {.id = tree->id,
                                   .name = {tree->name, strlen(tree->name)}};
    struct bfti_frame *frame;
    uint64_t end;
    bft_status status = bfti_tree_clear_begin(engine, tree), cleared;
    if (status != BFT_OK)
        return status;
    status = bfti_frame_tree_make(engine->buffer.wal, BFTI_FRAME_DROP, &gone,
                                  &frame);
    if (status != BFT_OK) {
        bfti_tree_clear_undo(engine, tree);
        return status;
    }
    /* In the log it is dropped, whatever comes of the commit. */
    end = bfti_tree_log(engine, rec, frame);
    PARK("drop:logged");
    bfti_tree_clear_root(engine, tree);
    status = bfti_commit(engine, rec, BFT_DEFAULT, end);
    cleared = bfti_tree_clear_leaves(engine, rec, tree);
    return status == BFT_OK ? cleared : status;
}

/* A change to the tree NAME begins: *REC is the caller's, and it is the only
 * change and no checkpoint is under way until change_end(). */
static bft_status change_begin(bft_db *db, const char *name,
                               struct bfti_engine **engine,
                               struct bfti_rec **rec)
{
    bft_status status = bfti_gate(db, engine);
    if (status == BFT_OK)
        status = bfti_tree_check_name(name);
    if (status != BFT_OK)
        return status;
    *rec = bfti_rec_current((*engine)->buffer.threads);
    if (!*rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = bfti_gate_write(*engine, *rec, 512);
    if (status == BFT_OK)
        bfti_mutex_lock((*engine)->env, &(*engine)->checkpoint_lock);
    return status;
}

static void change_end(struct bfti_engine *engine)
{
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
}

static bft_status no_tree(const struct bfti_engine *engine, const char *name)
{
    return bfti_fail(BFT_NOT_FOUND, "%s has no tree %s", engine->path, name);
}

/* What went is free when the call returns, if it is more than may wait for an image
 * and no other is under way.  One that would write all leaves is left to the
 * background, and so is what else stops one. */
static void give_space(struct bfti_engine *engine, struct bfti_rec *rec,
                       bool whole)
{
    if (!atomic_load(&engine->background) || !bfti_space_is_due(engine))
        return;
    if (whole || bfti_checkpoint_space(engine, rec, false) != BFT_OK)
        bfti_wake_checkpointer(engine);
}

/* What drop and truncation have in common. */
static bft_status change_named(bft_db *db, const char *name, const char *what,
                               bft_status (*change)(struct bfti_engine *engine,
                                                    struct bfti_rec *rec,
                                                    struct bfti_tree *tree))
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_status status = change_begin(db, name, &engine, &rec);
    bool whole;
    if (status != BFT_OK)
        return status;
    tree = bfti_tree_by_name(engine, name);
    status =
        tree ? bfti_snapshots_stop(engine, what, name) : no_tree(engine, name);
    if (status == BFT_OK) {
        status = change(engine, rec, tree);
        bfti_snapshots_go(engine);
    }
    whole = bfti_images_are_whole(engine);
    change_end(engine);
    give_space(engine, rec, whole);
    return status;
}

bft_status bft_tree_drop(bft_db *db, const char *name)
{
    return change_named(db, name, "dropped", drop);
}

/* --- truncating ---------------------------------------------------------- */

/* Give back what bfti_tree_make() made: nobody ever found it. */
static void unmake(struct bfti_engine *engine, struct bfti_rec *rec,
                   struct bfti_tree *tree)
{
    uint64_t leaf = bfti_inner_page(bfti_inner_here(bfti_tree_root(tree)), 0);
    (void)(leaf_clear(engine, rec, tree, leaf, false) == BFT_OK);
    bfti_tree_free(engine->env, tree);
}

/*
 * Another tree, of the same name, in the place of TREE, which goes.  One frame
 * says both.  A write to the old
 * tree that the log has behind that frame goes with the tree, in memory and in
 * redo alike: it came before the truncation.
 */
static bft_status truncate(struct bfti_engine *engine, struct bfti_rec *rec,
                           struct bfti_tree *tree)
{
    uint32_t id = engine->next_tree_id;
    struct bfti_frame_tree change = {.id = id,
                                     .leaf_bytes = tree->leaf_bytes,
                                     .ttl_ms = tree->ttl_ms,
                                     .old_id = tree->id,
                                     .name = {tree->name, strlen(tree->name)}};
    struct bfti_tree *fresh;
    struct bfti_frame *frame;
    uint64_t end;
    bft_status status = bfti_frame_tree_make(
        engine->buffer.wal, BFTI_FRAME_TRUNCATE, &change, &frame);
    if (status != BFT_OK)
        return status;
    status = bfti_tree_make(engine, rec, id, tree->name, tree->leaf_bytes, NULL,
                            &fresh);
    if (status != BFT_OK)
        goto free_frame;
    bfti_tree_set_ttl(fresh, tree->ttl_ms);
    status = bfti_tree_clear_begin(engine, tree);
    if (status != BFT_OK)
        goto unmake;
    engine->next_tree_id = id + 1;
    PARK("truncate:made");
    end = bfti_tree_log(engine, rec, frame);
    PARK("truncate:logged");
    /* Before the old root goes: who finds that gone finds the successor. */
    bfti_tree_add(engine, fresh, tree);
    PARK("truncate:added");
    bfti_tree_clear_root(engine, tree);
    status = bfti_commit(engine, rec, BFT_DEFAULT, end);
    /* What cannot be taken away now is left to the next checkpoint: the tree is
     * empty all the same. */
    (void)(bfti_tree_clear_leaves(engine, rec, tree) == BFT_OK);
    return status;

unmake:
    unmake(engine, rec, fresh);
free_frame:
    bfti_frame_free(engine->buffer.wal, frame);
    return status;
}

bft_status bft_tree_truncate(bft_db *db, const char *name)
{
    return change_named(db, name, "truncated", truncate);
}

/* --- renaming ------------------------------------------------------------ */

static bft_status no_memory_for(const char *name)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory to rename tree %s", name);
}

static bft_status rename_tree(struct bfti_engine *engine, struct bfti_rec *rec,
                              struct bfti_tree *tree, const char *name)
{
    struct bfti_name *made;
    struct bfti_frame_tree change = {
        .id = tree->id,
        .leaf_bytes = tree->leaf_bytes,
        .name = {name, strlen(name)},
        .old_name = {tree->name, strlen(tree->name)}};
    struct bfti_frame *frame;
    uint64_t end;
    bft_status status = bfti_catalogue_check(engine, tree, name);
    if (status != BFT_OK)
        return status;
    made = bfti_name_make(engine->env, name);
    if (!made)
        return no_memory_for(tree->name);
    status = bfti_frame_tree_make(engine->buffer.wal, BFTI_FRAME_RENAME,
                                  &change, &frame);
    if (status != BFT_OK) {
        bfti_free(engine->env, made);
        return status;
    }
    end = bfti_tree_log(engine, rec, frame);
    PARK("rename:logged");
    bfti_tree_name(engine, tree, made, NULL);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

bft_status bft_tree_rename(bft_db *db, const char *name, const char *new_name)
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_status status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = bfti_tree_check_name(new_name);
    if (status == BFT_OK)
        status = change_begin(db, name, &engine, &rec);
    if (status != BFT_OK)
        return status;
    tree = bfti_tree_by_name(engine, name);
    if (!tree)
        status = no_tree(engine, name);
    else if (bfti_tree_by_name(engine, new_name))
        status =
            bfti_fail(BFT_EXISTS, "%s has a tree %s", engine->path, new_name);
    else
        status = rename_tree(engine, rec, tree, new_name);
    change_end(engine);
    return status;
}

/* --- redo ---------------------------------------------------------------- */

/* TREE goes, if it can: then what cannot be read of it is left to checkpoints, as
 * it was when it went before the crash. */
static bft_status redo_clear(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree)
{
    bft_status status = bfti_tree_clear(engine, rec, tree);
    return bfti_tree_root(tree) ? status : BFT_OK;
}

/* Ids are never reused: the image has the tree, perhaps as it was called later,
 * or it was dropped.  Behind the frame all that made it so comes again.  One
 * without a name was loaded: the frame puts it in the place of another. */
static bft_status redo_name(struct bfti_engine *engine, struct bfti_rec *rec,
                            uint32_t id, const char *name)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, id), *old = NULL;
    struct bfti_name *made;
    if (!tree || strcmp(tree->name, name) == 0)
        return BFT_OK;
    made = bfti_name_make(engine->env, name);
    if (!made)
        return no_memory_for(name);
    if (!bfti_tree_is_there(tree))
        old = bfti_tree_by_name(engine, name);
    bfti_tree_name(engine, tree, made, old);
    return old ? redo_clear(engine, rec, old) : BFT_OK;
}

/* A truncation is told from a creation by the name, which is taken; a renaming
 * by the id, which is there: logs have frames of type CREATE for either. */
static bft_status redo_create(struct bfti_engine *engine, struct bfti_rec *rec,
                              const struct bfti_frame_tree *change)
{
    char name[BFTI_NAME_MAX + 1];
    struct bfti_tree *tree, *old;
    bft_status status;
    bfti_frame_name(change->name, name);
    if (change->id < engine->next_tree_id)
        return redo_name(engine, rec, change->id, name);
    if (bfti_tree_check_leaf_bytes(change->leaf_bytes) != BFT_OK)
        return bfti_fail(BFT_CORRUPT,
                         "%s: by the log leaves of tree %s have %u bytes",
                         engine->path, name, (unsigned)change->leaf_bytes);
    status = bfti_tree_make(engine, rec, change->id, name, change->leaf_bytes,
                            NULL, &tree);
    if (status != BFT_OK)
        return status;
    bfti_tree_set_ttl(tree, change->ttl_ms);
    old = bfti_tree_by_name(engine, name); /* truncated, if there is one */
    engine->next_tree_id = change->id + 1;
    bfti_tree_add(engine, tree, old);
    return old ? redo_clear(engine, rec, old) : BFT_OK;
}

static bft_status redo_drop(struct bfti_engine *engine, struct bfti_rec *rec,
                            uint32_t id)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, id);
    return tree ? redo_clear(engine, rec, tree) : BFT_OK;
}

bft_status bfti_tree_redo(struct bfti_engine *engine, struct bfti_rec *rec,
                          uint8_t type, const void *payload, size_t len)
{
    struct bfti_frame_tree change;
    bft_status status = bfti_frame_tree_get(type, payload, len, &change);
    if (status != BFT_OK)
        return status;
    return type == BFTI_FRAME_DROP ? redo_drop(engine, rec, change.id)
                                   : redo_create(engine, rec, &change);
}

bft_status bfti_trees_clear_unnamed(struct bfti_engine *engine,
                                    struct bfti_rec *rec)
{
    bft_status status = BFT_OK;
    for (struct bfti_tree *t = engine->trees; status == BFT_OK && t;
         t = t->next) {
        if (!bfti_tree_root(t) || bfti_tree_is_there(t))
            continue;
        status = redo_clear(engine, rec, t);
        /* So that the image forgets it. */
        atomic_store(&engine->want_checkpoint, true);
    }
    return status;
}
