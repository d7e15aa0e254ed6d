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

/* What the inner nodes say of the leaf that holds a key, and of the next one. */
struct pair {
    uint64_t id[2];  /* 0: there is none, or its node is not in memory */
    bool there;      /* the tree is */
    size_t high_len; /* where the first ends; 0: it is the last */
    uint8_t high[BFTI_KEY_MAX];
};

static void look_at_pair(struct bfti_tree *tree, struct bfti_rec *rec,
                         bft_slice key, struct pair *pair)
{
    struct bfti_inner *root;
    pair->id[0] = pair->id[1] = BFTI_PAGE_ID_NONE;
    pair->high_len = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        pair->id[0] = bfti_inner_range(root, key, NULL, NULL, pair->high,
                                       &pair->high_len);
    if (pair->high_len) {
        bft_slice high = {pair->high, pair->high_len};
        pair->id[1] = bfti_inner_find(root, high);
    }
    pair->there = root != NULL;
    bfti_read_end(rec);
}

/* The same with the nodes of both in memory. */
static bft_status find_pair(struct bfti_tree *tree, struct bfti_rec *rec,
                            bft_slice key, struct pair *pair)
{
    bft_status status = BFT_OK;
    look_at_pair(tree, rec, key, pair);
    /* Ends: each round has another of the two, and none is dropped. */
    while (status == BFT_OK && pair->there &&
           (pair->id[0] == BFTI_PAGE_ID_NONE ||
            (pair->high_len && pair->id[1] == BFTI_PAGE_ID_NONE))) {
        bft_slice high = {pair->high, pair->high_len};
        status = bfti_node_load(
            tree, rec, pair->id[0] == BFTI_PAGE_ID_NONE ? key : high, false);
        if (status == BFT_OK)
            look_at_pair(tree, rec, key, pair);
    }
    return status;
}

/* Neighbours from the sweep's place on; it moves on by a leaf, also by one that
 * cannot be read, or stays with the one that has absorbed its neighbour.  *LAST:
 * the tree is done. */
static bft_status sweep_leaf(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, unsigned *reads,
                             bool *last)
{
    bft_slice key = {engine->sweep_key, engine->sweep_len};
    struct pair pair;
    bool done = false, kept = false;
    bft_status status;
    bfti_nodes_keep(engine, &kept);
    status = find_pair(tree, rec, key, &pair);
    bfti_nodes_release(engine, &kept);
    *last = pair.high_len == 0;
    if (status == BFT_OK && !*last && may_absorb(rec, tree, pair.id)) {
        ++*reads;
        status = bfti_absorb(&engine->buffer, rec, pair.id[0], tree->leaf_bytes,
                             &done);
    }
    if (!*last && !done) {
        engine->sweep_len = (uint16_t)pair.high_len;
        memcpy(engine->sweep_key, pair.high, pair.high_len);
    }
    return status;
}

static bft_status sweep_some(struct bfti_engine *engine, struct bfti_rec *rec,
                             unsigned *reads)
{
    bft_status status = BFT_OK;
    for (int i = 0; i < SWEEP_LEAVES && status == BFT_OK; i++) {
        struct bfti_tree *tree = bfti_tree_by_id(engine, engine->sweep_tree);
        bool last = true;
        /* Leaves that get small behind us are for the next round. */
        if (engine->sweep_tree == 0)
            engine->sweep_small = atomic_load(&engine->small_leaves);
        if (atomic_load(&engine->epoch))
            return BFT_OK; /* goes on after the checkpoint */
        if (tree)
            status = sweep_leaf(engine, rec, tree, reads, &last);
        if (last) {
            tree = bfti_tree_after(engine, engine->sweep_tree);
            engine->sweep_tree = tree ? tree->id : 0;
            engine->sweep_len = 0;
            if (!tree) { /* all done; again for what came meanwhile */
                atomic_fetch_sub(&engine->small_leaves, engine->sweep_small);
                return status;
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
    for (int i = 0;
         i < SWEEP_STEPS && reads < SWEEP_READS && status == BFT_OK &&
         atomic_load(&engine->small_leaves) && !atomic_load(&engine->epoch);
         i++)
        status = sweep_some(engine, rec, &reads);
    bfti_mutex_unlock(engine->env, &engine->sweep_lock);
    return status;
}
