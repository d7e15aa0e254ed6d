/*
 * Content of inner nodes of height 1: read when it is needed, dropped when it is
 * not.  The tree names it in one place, so neither changes a path; who needs it
 * looks for the node again when it is there.
 *
 * Who holds a latch does no I/O, and yet a split or an absorption must find the
 * node of its leaf.  So content is dropped only when no leaf of it is latched,
 * nor half absorbed: first it is marked, then latches are looked at, then it
 * goes.  Who looks for it under a latch, and finds it without mark, finds it
 * until the latch is let go.
 */
#include "engine.h"

enum {
    LOAD_STEPS = 64, /* nodes that who reads one looks at, to drop some */
};

/* --- reading --------------------------------------------------------------- */

/* Where a node without content is. */
struct site {
    uint64_t place;
    size_t low_len, high_len; /* of its range; 0: unbounded */
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
};

enum found { FOUND_NO_TREE, FOUND_HERE, FOUND_AWAY };

/* The node of KEY; its content, if it is there, stays. */
static enum found find_node(struct bfti_tree *tree, struct bfti_rec *rec,
                            bft_slice key, bool before, struct site *site)
{
    enum found found = FOUND_NO_TREE;
    struct bfti_inner *root;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root) {
        struct bfti_inner *node =
            bfti_inner_bottom(root, key, before, site->low, &site->low_len,
                              site->high, &site->high_len);
        bfti_inner_keep(node);
        found = bfti_inner_stays(node) ? FOUND_HERE : FOUND_AWAY;
        site->place = atomic_load(&node->place); /* [node] */
    }
    bfti_read_end(rec);
    return found;
}

bft_status bfti_node_check_ids(struct bfti_engine *engine,
                               const struct bfti_inner *content)
{
    uint64_t ids = bfti_table_ids(engine->buffer.table);
    for (unsigned i = 0; i < content->count; i++) {
        uint64_t id = bfti_inner_page(content, i);
        if (id == BFTI_PAGE_ID_NONE || id >= ids)
            return bfti_fail(BFT_CORRUPT,
                             "it leads to a page that was never made");
    }
    return BFT_OK;
}

static bft_status decode(const struct bfti_tree *tree,
                         const struct bfti_extent_info *info, const void *raw,
                         size_t len, struct bfti_inner **content)
{
    bft_status status;
    if (info->type != BFTI_EXTENT_INNER || info->tree_id != tree->id)
        return bfti_fail(BFT_CORRUPT, "it has type %d and tree %u",
                         (int)info->type, (unsigned)info->tree_id);
    status = bfti_inner_decode_content(tree->engine->heap, raw, len, content);
    if (status == BFT_OK)
        status = bfti_node_check_ids(tree->engine, *content);
    return status;
}

/* Decoded from the extent PLACE, or a failure that names it. */
static bft_status read_content(struct bfti_tree *tree, uint64_t place,
                               struct bfti_inner **content)
{
    struct bfti_engine *engine = tree->engine;
    struct bfti_extent_info info;
    struct bfti_scratch scratch; /* the thread's are its callers' */
    const void *raw;
    size_t len;
    bft_status status;
    *content = NULL;
    memset(&scratch, 0, sizeof(scratch));
    status =
        bfti_extent_read(engine->buffer.pf, place, &scratch, &info, &raw, &len);
    if (status == BFT_OK) {
        status = decode(tree, &info, raw, len, content);
        if (status == BFT_CORRUPT)
            status = bfti_extent_wrong(engine->buffer.pf, place, NULL);
    }
    if (status != BFT_OK) {
        status = bfti_fail_in(status, "an inner node of tree %s", tree->name);
        bfti_free(engine->heap, *content);
        *content = NULL;
    }
    bfti_scratch_free(engine->env, &scratch);
    return status;
}

/* CONTENT, of the extent that the thread named before it read it, is put into
 * the node of KEY that has that extent.  It may be another than was found
 * before: named, the extent has not become another one. */
static bool put_content(struct bfti_tree *tree, struct bfti_rec *rec,
                        bft_slice key, bool before, uint64_t place,
                        struct bfti_inner *content)
{
    struct bfti_engine *engine = tree->engine;
    struct bfti_inner *root;
    bool done = false;
    /* Before others can drop what it counts. */
    atomic_fetch_add(&engine->inner_bytes, content->bytes);
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root) {
        struct bfti_inner *node =
            bfti_inner_bottom(root, key, before, NULL, NULL, NULL, NULL);
        done = atomic_load(&node->place) == place &&
               bfti_inner_fill(node, content);
    }
    bfti_read_end(rec);
    if (!done)
        atomic_fetch_sub(&engine->inner_bytes, content->bytes);
    return done;
}

/* The extent of SITE is named and was the node's then. */
static bft_status load_named(struct bfti_tree *tree, struct bfti_rec *rec,
                             bft_slice key, bool before,
                             const struct site *site)
{
    struct bfti_engine *engine = tree->engine;
    bft_slice low = {site->low, site->low_len};
    bft_slice high = {site->high, site->high_len};
    struct bfti_inner *content;
    bft_status status = read_content(tree, site->place, &content);
    if (status == BFT_OK && !bfti_inner_fits(content, low, high)) {
        bfti_free(engine->heap, content);
        return bfti_fail_in(bfti_extent_wrong(engine->buffer.pf, site->place,
                                              "its keys lie outside its range"),
                            "an inner node of tree %s", tree->name);
    }
    if (status != BFT_OK)
        return status;
    /* First room, then content: it is not what is dropped. */
    bfti_nodes_drop(engine, content->bytes, LOAD_STEPS);
    PARK("node:read");
    if (put_content(tree, rec, key, before, site->place, content))
        bfti_count(rec, BFTI_N_NODES_READ, 1);
    else
        bfti_free(engine->heap, content);
    PARK("node:put");
    return BFT_OK;
}

bft_status bfti_node_load(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key, bool before)
{
    struct site site, named;
    bft_status status = BFT_OK;
    /* Ends: each round follows a change of that node by another thread. */
    for (;;) {
        if (find_node(tree, rec, key, before, &site) != FOUND_AWAY)
            return BFT_OK;
        PARK("node:away");
        bfti_hazard_set(rec, BFTI_HAZARD_NODE, site.place);
        if (find_node(tree, rec, key, before, &named) == FOUND_AWAY &&
            named.place == site.place && site.place > BFTI_NODE_RETIRED) {
            status = load_named(tree, rec, key, before, &named);
            /* A failure counts only if the node is still there. */
            if (status == BFT_OK ||
                (find_node(tree, rec, key, before, &site) == FOUND_AWAY &&
                 site.place == named.place))
                break;
        }
        bfti_hazard_clear(rec, BFTI_HAZARD_NODE);
    }
    bfti_hazard_clear(rec, BFTI_HAZARD_NODE);
    return status;
}

bft_status bfti_node_borrow(struct bfti_tree *tree,
                            const struct bfti_inner *node,
                            const struct bfti_inner **at,
                            struct bfti_inner **own)
{
    uint64_t place;
    bft_status status;
    *own = NULL;
    *at = bfti_inner_here(node);
    if (*at)
        return BFT_OK;
    place = atomic_load(&node->place); /* [node] */
    if (place <= BFTI_NODE_RETIRED)
        return BFT_OK;
    status = read_content(tree, place, own);
    if (atomic_load(&node->place) != place) {
        /* The tree has left it meanwhile: the extent may be another's. */
        bfti_free(tree->engine->heap, *own);
        *own = NULL;
        status = BFT_OK;
    }
    *at = *own;
    return status;
}

/* --- dropping -------------------------------------------------------------- */

/* No thread is between finding the node and changing it: it would hold a latch
 * of one of its leaves, or that leaf would be one that forwards by now. */
static bool untouched(struct bfti_engine *engine,
                      const struct bfti_inner *content)
{
    struct bfti_table *table = engine->buffer.table;
    for (unsigned i = 0; i < content->count; i++) {
        const struct bfti_entry *entry =
            bfti_table_entry(table, bfti_inner_page(content, i));
        /* [content] seq_cst, behind the mark; the latch before the word, as an
         * absorption sets that before it lets the latch go. */
        if (atomic_load(&entry->latch) != 0 ||
            bfti_place_tag(bfti_entry_word(entry)) == BFTI_TAG_NONE)
            return false;
    }
    return true;
}

/* Drop NODE's content, if it is whole on disk and was not used lately. */
static void drop_content(struct bfti_engine *engine, struct bfti_rec *rec,
                         struct bfti_inner *node)
{
    struct bfti_inner *content = NULL;
    const struct bfti_inner *here;
    if (atomic_load(&node->place) <= BFTI_NODE_RETIRED ||
        !bfti_inner_leave(node))
        return;
    PARK("node:leaving");
    here = bfti_inner_peek(node);
    if (here && untouched(engine, here))
        content = bfti_inner_empty(node);
    else
        bfti_inner_keep(node);
    if (!content)
        return;
    atomic_fetch_sub(&engine->inner_bytes, content->bytes);
    bfti_defer_free(engine->buffer.threads, bfti_inner_link(content), content,
                    content->bytes);
    bfti_count(rec, BFTI_N_NODES_DROPPED, 1);
}

/* Look at the next node of a clock that goes through all trees by key.  *ROUND:
 * it has come to its beginning. */
static void clock_step(struct bfti_engine *engine, struct bfti_rec *rec,
                       bool *round)
{
    struct bfti_tree *tree = bfti_tree_by_id(engine, engine->nodes_tree);
    struct bfti_inner *root = tree ? bfti_tree_root(tree) : NULL; /* [root] */
    size_t high_len = 0;
    if (root) {
        uint8_t copy[BFTI_KEY_MAX];
        bft_slice key = {copy, engine->nodes_len};
        memcpy(copy, engine->nodes_key, engine->nodes_len);
        drop_content(engine, rec,
                     bfti_inner_bottom(root, key, false, NULL, NULL,
                                       engine->nodes_key, &high_len));
    }
    engine->nodes_len = (uint16_t)high_len;
    if (high_len)
        return;
    tree = bfti_tree_after(engine, engine->nodes_tree);
    engine->nodes_tree = tree ? tree->id : 0;
    *round = tree == NULL;
}

void bfti_nodes_drop(struct bfti_engine *engine, size_t more, size_t steps)
{
    struct bfti_rec *rec;
    struct bfti_hold hold;
    bool round = false;
    if (atomic_load(&engine->inner_bytes) + more <= engine->nodes_bytes ||
        atomic_load(&engine->nodes_kept) ||
        !bfti_mutex_try(&engine->nodes_lock))
        return;
    rec = bfti_rec_current(engine->buffer.threads);
    /* Nodes that the tree leaves meanwhile stay readable. */
    bfti_defer_hold(engine->buffer.threads, &hold);
    /* No more than one round: what was used since the last one stays. */
    while (rec && steps-- && !round && !atomic_load(&engine->nodes_kept) &&
           atomic_load(&engine->inner_bytes) + more > engine->nodes_bytes)
        clock_step(engine, rec, &round);
    bfti_defer_unhold(engine->buffer.threads, &hold);
    bfti_mutex_unlock(engine->env, &engine->nodes_lock);
}

void bfti_nodes_keep(struct bfti_engine *engine, bool *kept)
{
    if (!*kept)
        atomic_fetch_add(&engine->nodes_kept, 1);
    *kept = true;
}

void bfti_nodes_release(struct bfti_engine *engine, bool *kept)
{
    if (*kept)
        atomic_fetch_sub(&engine->nodes_kept, 1);
    *kept = false;
}

/* --- what changes need ------------------------------------------------------ */

bft_status bfti_tree_structure_ready(void *arg, struct bfti_rec *rec,
                                     uint32_t tree_id, bft_slice key)
{
    struct bfti_engine *engine = arg;
    struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    return tree ? bfti_node_load(tree, rec, key, false) : BFT_OK;
}

bool bfti_tree_node_stays(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key)
{
    struct bfti_inner *root;
    bool stays = false;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        stays = bfti_inner_stays(
            bfti_inner_bottom(root, key, false, NULL, NULL, NULL, NULL));
    bfti_read_end(rec);
    return stays;
}
