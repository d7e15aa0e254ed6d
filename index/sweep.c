/*
 * The sweep: lets small neighbouring leaves become one.  It runs when merges
 * have left small leaves and no checkpoint is under way, over all trees in key
 * order, some leaves at a step.  How full a leaf is its place tells, to a grain,
 * or a page that has all of it; what may be small by that is read and measured
 * by who absorbs.
 */
#include "engine.h"

enum {
    SWEEP_LEAVES = 64,
    SWEEP_STEPS = 32,
    SWEEP_READS = 512, /* pairs that are read, at one call */
};

void bfti_note_small(void *arg)
{
    struct bfti_engine *engine = arg;
    atomic_fetch_add(&engine->small_leaves, 1);
}

/* The leaf has at least so many bytes; SIZE_MAX: it is not to be absorbed now.
 * Leaves of few grains cannot be told apart by their places. */
static size_t leaf_bytes_least(struct bfti_rec *rec, struct bfti_tree *tree,
                               uint64_t id)
{
    struct bfti_reader reader;
    size_t bytes = SIZE_MAX;
    bfti_reader_at(&reader, tree, rec, id);
    if (reader.pages <= 1 && bfti_place_tag(reader.head) == BFTI_TAG_DISK) {
        const struct bfti_minipage *page = reader.pages ? reader.page[0] : NULL;
        bytes = (size_t)(bfti_disk_grains(reader.head) - 1) * BFTI_GRAIN + 1;
        /* Clean and complete, it is what lies on disk. */
        if (page && (page->flags & BFTI_PAGE_COMPLETE) && !page->dirty &&
            bfti_minipage_tail(page) == 0 &&
            le32_get(bfti_minipage_run(page)->bytes) > bytes)
            bytes = le32_get(bfti_minipage_run(page)->bytes);
    }
    bfti_reader_close(&reader);
    return bytes;
}

/* Of two neighbours one is half full at most, and one a quarter, for all we can
 * tell. */
static bool may_absorb(struct bfti_rec *rec, struct bfti_tree *tree,
                       const uint64_t ids[2])
{
    size_t left = leaf_bytes_least(rec, tree, ids[0]);
    size_t right = left <= tree->leaf_bytes / 2
                       ? leaf_bytes_least(rec, tree, ids[1])
                       : SIZE_MAX;
    return right <= tree->leaf_bytes / 2 &&
           (left <= tree->leaf_bytes / 4 || right <= tree->leaf_bytes / 4);
}

/* Up to MAX leaves from KEY on; *COUNT 0: the tree is gone. */
static size_t leaves_from(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key, uint64_t *ids, size_t max)
{
    struct bfti_inner *root;
    size_t count = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree);
    if (root) {
        ids[0] = bfti_inner_find(root, key);
        count = 1 + bfti_inner_following(root, key, ids + 1, max - 1);
    }
    bfti_read_end(rec);
    return count;
}

/* Where the leaf that holds KEY ends: the next step's key.  False: the last. */
static bool next_key(struct bfti_engine *engine, struct bfti_tree *tree,
                     struct bfti_rec *rec, bft_slice key)
{
    struct bfti_inner *root;
    size_t high_len = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree);
    if (root)
        (void)bfti_inner_range(root, key, NULL, NULL, engine->sweep_key,
                               &high_len);
    bfti_read_end(rec);
    engine->sweep_len = (uint16_t)high_len;
    return high_len != 0;
}

/* Neighbours from the sweep's place on; it moves on by a leaf, or stays with the
 * one that has absorbed its neighbour.  *LAST: the tree is done. */
static bft_status sweep_leaf(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, unsigned *reads,
                             bool *last)
{
    uint8_t copy[BFTI_KEY_MAX];
    bft_slice key = {copy, engine->sweep_len};
    uint64_t ids[2];
    bool done = false;
    bft_status status = BFT_OK;
    memcpy(copy, engine->sweep_key, engine->sweep_len);
    *last = leaves_from(tree, rec, key, ids, 2) < 2;
    if (*last)
        return BFT_OK;
    if (may_absorb(rec, tree, ids)) {
        ++*reads;
        status = bfti_absorb(&engine->buffer, rec, ids[0], tree->leaf_bytes,
                             &done);
    }
    if (status == BFT_OK && !done)
        *last = !next_key(engine, tree, rec, key);
    return status;
}

/* The live tree with the smallest id above AFTER, or NULL. */
static struct bfti_tree *next_tree(struct bfti_engine *engine, uint32_t after)
{
    struct bfti_tree *best = NULL;
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        if (t->id > after && bfti_tree_root(t) && (!best || t->id < best->id))
            best = t;
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return best;
}

static bft_status sweep_some(struct bfti_engine *engine, struct bfti_rec *rec,
                             unsigned *reads)
{
    bft_status status = BFT_OK;
    for (int i = 0; i < SWEEP_LEAVES && status == BFT_OK; i++) {
        struct bfti_tree *tree = bfti_tree_by_id(engine, engine->sweep_tree);
        bool last = true;
        if (atomic_load(&engine->epoch))
            return BFT_OK; /* goes on after the checkpoint */
        if (tree)
            status = sweep_leaf(engine, rec, tree, reads, &last);
        if (status == BFT_OK && last) {
            tree = next_tree(engine, engine->sweep_tree);
            engine->sweep_tree = tree ? tree->id : 0;
            engine->sweep_len = 0;
            if (!tree) { /* all done; start anew with what came meanwhile */
                atomic_store(&engine->small_leaves, 0);
                return BFT_OK;
            }
        }
    }
    return status;
}

bft_status bfti_sweep(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status = BFT_OK;
    unsigned reads = 0;
    if (atomic_load(&engine->small_leaves) == 0 ||
        !bfti_mutex_try(&engine->sweep_lock))
        return BFT_OK;
    for (int i = 0; i < SWEEP_STEPS && reads < SWEEP_READS &&
                    status == BFT_OK && atomic_load(&engine->small_leaves) &&
                    !atomic_load(&engine->epoch);
         i++)
        status = sweep_some(engine, rec, &reads);
    bfti_mutex_unlock(engine->env, &engine->sweep_lock);
    return status;
}
