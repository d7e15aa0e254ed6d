/*
 * The removal of a range in one step: a tombstone (tomb.h) that one frame of the
 * log makes, whatever it lies over.
 *
 * A tombstone is put into the tree's set before it is logged, with a number that
 * readers do not see yet.  Writers see it: who is about to write under it waits.
 * Those who looked before it was there are waited for.  So what is in the log
 * before its frame is published when readers see it, and what is behind the frame
 * was written after what lay under it was cleared.
 */
#include "snapshot.h"
#include "tomb.h"

enum {
    AT_ONCE = 4, /* steps that the call takes itself: a short range is gone */
    ROUNDS = 64, /* of clearing, when there are many pieces, */
    PLACE_STEPS = 256, /* so many steps in each tree */
};

struct deletion {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    bft_slice low, high;
    struct bfti_frame *frame;
    struct bfti_tomb_count count;
    uint64_t end;
    bool made; /* false: all of it lay under others */
};

static bool is_in(const struct deletion *d, bft_slice key)
{
    return bfti_key_compare(d->low, key) <= 0 &&
           (d->high.len == 0 || bfti_key_compare(key, d->high) < 0);
}

static bft_status note_inside(void *arg, const struct bfti_frame_record *record)
{
    const struct deletion *d = arg;
    return record->tree_id == d->tree->id && is_in(d, record->key)
               ? (bft_status)BFTI_OVERTAKEN
               : BFT_OK;
}

/* A writer that does not go on, and perhaps did not see the tombstone.  False: he
 * writes into the range, or shows that he has read some of it. */
static bool stays(void *ctx, struct bfti_rec *writer, uint64_t number)
{
    struct deletion *d = ctx;
    bool outside = false;
    size_t len;
    const void *payload = bfti_wal_look(&d->rec->wal, &writer->wal, &len);
    /* If it is still there, the frame is the one that it publishes. */
    if (payload && bfti_publish_is_at(writer, number))
        outside = bfti_frame_each(d->engine->path, 0, payload, len, note_inside,
                                  d) == BFT_OK;
    bfti_wal_look_away(&d->rec->wal);
    return outside && !bfti_reads_of(d->tree, d->rec, writer, d->low, d->high);
}

/* Clear some of what there is, when there are many pieces: of this tree, or of
 * others. */
static bft_status make_place(const struct deletion *d)
{
    bft_status status = BFT_OK;
    bool more = true;
    for (int i = 0; status == BFT_OK && more && i < ROUNDS; i++) {
        struct bfti_tree *tree = d->tree;
        uint32_t id = 0;
        bool done;
        if (!bfti_tombs_crowded(tree))
            return BFT_OK;
        more = false;
        status = bfti_gate_write(d->engine, d->rec, 0);
        while (status == BFT_OK && tree) {
            status = bfti_tombs_clear(tree, d->rec, 0, PLACE_STEPS, &done);
            more = more || !done;
            if (tree != d->tree && status == BFT_GONE)
                status = BFT_OK;
            tree = bfti_tree_after(d->engine, id);
            id = tree ? tree->id : 0;
        }
    }
    if (status == BFT_OK && bfti_tombs_full(d->engine))
        status = bfti_fail(BFT_NO_MEMORY,
                           "%s: too much is being cleared of ranges that were "
                           "deleted",
                           d->engine->path);
    return status;
}

/* Have the tombstone's pieces in the set, for writers to see.  tombs_lock is
 * held when that is fine. */
static bft_status enter(struct deletion *d)
{
    struct bfti_tree *tree = d->tree;
    struct bfti_tombs *fresh = NULL;
    const struct bfti_tombs *old;
    bft_status status = make_place(d);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(d->engine->env, &tree->tombs_lock);
    old = atomic_load(&tree->tombs);
    d->count.born = (atomic_load(&tree->tombs_word) >> 1) + 1;
    if (!bfti_tree_root(tree))
        status = bfti_fail(BFT_GONE, "tree %s was dropped", tree->name);
    else
        fresh =
            bfti_tombs_with(d->engine, old, d->low, d->high, d->count.born, 0);
    if (status == BFT_OK && !fresh)
        status = bfti_fail(BFT_NO_MEMORY, "no memory to delete a range");
    if (status != BFT_OK) {
        bfti_mutex_unlock(d->engine->env, &tree->tombs_lock);
        return status;
    }
    d->made = !old || fresh->count > old->count;
    if (d->made)
        bfti_tombs_put(tree, fresh);
    else
        bfti_free(d->engine->heap, fresh);
    return BFT_OK;
}

/* Log, then let readers see it. */
static void publish(struct deletion *d)
{
    struct bfti_engine *engine = d->engine;
    struct bfti_tombs *tombs = atomic_load(&d->tree->tombs);
    d->end = bfti_tree_log(engine, d->rec, d->frame);
    d->frame = NULL;
    PARK("range:logged");
    d->count.next = d->tree->tomb_counts;
    d->tree->tomb_counts = &d->count;
    /* [tomb] none is settled between these: it comes behind those that are, and
     * is in the others. */
    atomic_store(&tombs->stamp, bfti_snapshots_hold(engine) + 1);
    /* Before it is seen, and behind that: whose commit, or taking of a snapshot,
     * finds the same even number twice saw all of it or none between. */
    atomic_fetch_add(&engine->tombs_made, 1);
    PARK("range:counted");
    bfti_tombs_show(d->tree, d->count.born);
    atomic_fetch_add(&engine->tombs_made, 1);
    bfti_snapshots_let(engine);
    PARK("range:visible");
}

static bft_status make(struct deletion *d)
{
    struct bfti_frame_range range = {d->tree->id, d->low, d->high, NULL, 0};
    void *payload;
    bft_status status =
        bfti_frame_create(d->engine->buffer.wal, BFTI_FRAME_RANGE,
                          bfti_frame_range_size(&range), &d->frame, &payload);
    if (status != BFT_OK)
        return status;
    (void)bfti_frame_range_put(payload, &range);
    bfti_frame_seal(d->engine->buffer.wal, d->frame);
    status = enter(d);
    if (status == BFT_OK && d->made) {
        PARK("range:registered");
        /* [publish] whoever did not see it has published when this returns. */
        bfti_publish_wait(d->engine->buffer.threads, stays, d);
        PARK("range:waited");
        publish(d);
    }
    if (status == BFT_OK)
        bfti_mutex_unlock(d->engine->env, &d->tree->tombs_lock);
    if (d->frame)
        bfti_frame_free(d->engine->buffer.wal, d->frame);
    d->frame = NULL;
    return status;
}

/* Nobody counts for it any more. */
static void leave(struct deletion *d)
{
    struct bfti_tomb_count **at = &d->tree->tomb_counts;
    bfti_mutex_lock(d->engine->env, &d->tree->tombs_lock);
    while (*at != &d->count)
        at = &(*at)->next;
    *at = d->count.next;
    bfti_mutex_unlock(d->engine->env, &d->tree->tombs_lock);
}

/* Take away what lay under it: ALL, or what is soon done. */
static bft_status finish(struct deletion *d, bool all)
{
    bool done = false;
    bft_status status;
    do {
        status = bfti_gate_write(d->engine, d->rec, 0);
        if (status == BFT_OK)
            status = bfti_tombs_clear(d->tree, d->rec, d->count.born, AT_ONCE,
                                      &done);
    } while (all && status == BFT_OK && !done);
    leave(d);
    if (!done)
        bfti_wake_evictor(d->engine);
    /* With the tree all that is left has gone; and what is not asked for now
     * others will do. */
    return all && status != BFT_GONE ? status : BFT_OK;
}

/* A commit, if of nothing: what was committed before is then as durable as it. */
static bft_status commit_nothing(struct bfti_engine *engine,
                                 struct bfti_rec *rec)
{
    uint64_t end = bfti_wal_end(engine->buffer.wal);
    bfti_wal_enter(engine->buffer.wal, &rec->wal);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

static bft_status delete_range(bft_tree *handle, struct bfti_engine *engine,
                               struct bfti_rec *rec, bft_slice low,
                               bft_slice high, uint64_t *deleted)
{
    struct deletion d = {
        .engine = engine, .rec = rec, .low = low, .high = high};
    bft_status status;
    do { /* ends: a round is repeated only after a truncation */
        d.tree = bfti_handle_tree(handle);
        status = make(&d);
    } while (bfti_handle_moved(handle, d.tree, status));
    if (status != BFT_OK)
        return status;
    if (!d.made)
        return commit_nothing(engine, rec);
    status = bfti_commit(engine, rec, BFT_DEFAULT, d.end);
    if (status == BFT_OK)
        status = finish(&d, deleted != NULL);
    else
        leave(&d);
    if (deleted)
        *deleted = d.count.records;
    return status;
}

bft_status bft_delete_range(bft_tree *tree, bft_slice low, bft_slice high,
                            uint64_t *deleted)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = bfti_gate_tree(tree, &engine, &rec);
    if (deleted)
        *deleted = 0;
    if (status == BFT_OK)
        status = bfti_check_bound(low);
    if (status == BFT_OK)
        status = bfti_check_bound(high);
    if (status == BFT_OK && !bfti_tree_root(bfti_handle_tree(tree)))
        status = bfti_fail(BFT_GONE, "tree %s was dropped",
                           bfti_handle_tree(tree)->name);
    if (status == BFT_OK)
        status = bfti_gate_write(engine, rec, 128 + low.len + high.len);
    if (status != BFT_OK)
        return status;
    if (low.len && high.len && bfti_key_compare(low, high) >= 0)
        return commit_nothing(engine, rec);
    return delete_range(tree, engine, rec, low, high, deleted);
}
