/*
 * Bulk loads: a tree is built beside the one it is for, which must be empty,
 * and takes its place as the successor of a truncation does.
 *
 * First the leaves are written, which nobody can find (bulk_build.c).  Then a
 * checkpoint has the new tree in its image, still without a name: its
 * superblock is durable before the tree is there for anyone.  Then, with the
 * latches of all leaves of the old tree held, so that it stays empty, one frame
 * names the new tree.  Recovery that meets the frame does as we did; one that
 * does not drops the tree.
 */
#include "bulk_internal.h"
#include "cache.h"
#include "expiry.h"
#include "image.h"
#include "snapshot.h"
#include "tomb.h"

enum {
    SWING_TRIES = 1000, /* looks at an old tree that changes all the time */
    FILL_LEAST = 10,    /* percent */
    RECORD_SMALL = 32768 / 8 * BFTI_INLINE_PARTS,
};

/* --- is there anything in the tree? --------------------------------------- */

static bft_status is_empty(struct bfti_tree *tree, struct bfti_rec *rec,
                           bool *empty)
{
    struct bfti_copy copy = {.env = tree->engine->env};
    struct bfti_copy_wish wish = {
        .only = BFTI_COPY_COUNT, .window = 1, .now = bfti_tree_now(tree)};
    struct bfti_bound *at = bfti_alloc(copy.env, sizeof(*at));
    bft_status status;
    *empty = false;
    if (!at)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a bulk load");
    at->len = 0;
    /* Ends: the key rises with each round. */
    do {
        wish.key = bfti_bound_key(at);
        status = bfti_copy_shown(&copy, tree, rec, &wish, BFTI_TOMB_NEWEST);
        *at = copy.high;
    } while (status == BFT_OK && copy.count == 0 && at->len);
    *empty = status == BFT_OK && copy.count == 0;
    bfti_copy_free(&copy);
    bfti_free(copy.env, at);
    return status;
}

static bft_status check_empty(struct bfti_tree *tree, struct bfti_rec *rec)
{
    bool empty;
    bft_status status = is_empty(tree, rec, &empty);
    if (status == BFT_OK && !empty)
        status = bfti_fail(BFT_EXISTS,
                           "tree %s has records: a bulk load needs an "
                           "empty one",
                           tree->name);
    return status;
}

/* --- the swing ------------------------------------------------------------ */

/* A load on its way into its place; under checkpoint_lock. */
struct swing {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *old, *fresh;
    struct bfti_name *name; /* for FRESH */
    struct bfti_frame *frame;
    uint32_t *seq; /* of OLD's leaves, when it was found empty */
};

/* TREE, which the next superblock's image has without a name, is called as the old
 * one is from here on, in its place. */
static bft_status load_frame(struct swing *s, const struct bfti_tree *tree)
{
    struct bfti_engine *engine = s->engine;
    struct bfti_frame_tree load = {
        .id = tree->id,
        .leaf_bytes = tree->leaf_bytes,
        .ttl_ms = tree->ttl_ms,
        .old_id = s->old->id,
        .sequence = engine->superblock.sequence + 1,
        .name = {s->old->name, strlen(s->old->name)}};
    return bfti_frame_tree_make(engine->buffer.wal, BFTI_FRAME_LOAD, &load,
                                &s->frame);
}

static struct bfti_entry *old_leaf(const struct swing *s, size_t i)
{
    return bfti_table_entry(s->engine->buffer.table, s->old->left[i]);
}

static void unlatch_all(const struct swing *s, bool changed)
{
    for (size_t i = s->old->left_count; i-- > 0;)
        bfti_unlatch(s->engine->env, old_leaf(s, i), changed);
}

/* All leaves of the old tree, in order as a batch does.  False, and none: one
 * of them has changed since it was looked at. */
static bool latch_all(const struct swing *s)
{
    bool same = true;
    for (size_t i = 0; i < s->old->left_count; i++)
        bfti_latch(s->engine->env, old_leaf(s, i));
    for (size_t i = 0; same && i < s->old->left_count; i++)
        same = atomic_load(&old_leaf(s, i)->seq) == s->seq[i]; /* [seq] */
    if (!same)
        unlatch_all(s, false);
    return same;
}

/* Structure is stopped: the leaves are those noted. */
static bft_status latch_empty(struct swing *s)
{
    for (int i = 0; i < SWING_TRIES; i++) {
        bft_status status;
        /* Before any content: what is published from here on changes it. */
        for (size_t n = 0; n < s->old->left_count; n++)
            s->seq[n] = atomic_load(&old_leaf(s, n)->seq); /* [seq] */
        status = check_empty(s->old, s->rec);
        if (status != BFT_OK)
            return status;
        PARK("bulk:found-empty");
        if (latch_all(s))
            return BFT_OK;
    }
    return bfti_fail(BFT_BUSY, "tree %s is written to all the time",
                     s->old->name);
}

/* With all latches: log, then make it so.  Who waits for a latch finds the root
 * gone and goes on with the new tree. */
static bft_status swing_latched(struct swing *s)
{
    struct bfti_engine *engine = s->engine;
    uint64_t end;
    PARK("bulk:latched");
    end = bfti_tree_log(engine, s->rec, s->frame);
    PARK("bulk:logged");
    /* From now on it may split. */
    bfti_tree_clear_undo(engine, s->fresh);
    bfti_tree_name(engine, s->fresh, s->name, s->old);
    PARK("bulk:named");
    bfti_tree_clear_root(engine, s->old);
    unlatch_all(s, true);
    PARK("bulk:unlatched");
    return bfti_commit(engine, s->rec, BFT_SYNC, end);
}

static bft_status swing(struct swing *s, bool *done)
{
    struct bfti_engine *engine = s->engine;
    bft_status status = bfti_tree_clear_begin(engine, s->old);
    *done = false;
    if (status != BFT_OK)
        return status;
    s->seq = bfti_alloc(engine->env, s->old->left_count * sizeof(*s->seq));
    status = s->seq ? latch_empty(s)
                    : bfti_fail(BFT_NO_MEMORY, "no memory to load tree %s",
                                s->old->name);
    if (status == BFT_OK) {
        *done = true;
        status = swing_latched(s);
        /* What cannot be taken away now is left to the next checkpoint. */
        (void)(bfti_tree_clear_leaves(engine, s->rec, s->old) == BFT_OK);
    } else {
        bfti_tree_clear_undo(engine, s->old);
    }
    bfti_free(engine->env, s->seq);
    return status;
}

/* The new tree is in no superblock, or in one that forgets it again. */
static void drop_fresh(struct swing *s)
{
    bfti_tree_clear_root(s->engine, s->fresh);
    (void)(bfti_tree_clear_leaves(s->engine, s->rec, s->fresh) == BFT_OK);
}

/* Under checkpoint_lock, which keeps names as they are. */
static bft_status put_in_place(struct swing *s, struct bfti_bulk *bulk,
                               struct bfti_inner *root)
{
    struct bfti_engine *engine = s->engine;
    bool done = false;
    bft_status status = check_empty(s->old, s->rec);
    if (status == BFT_OK) {
        s->name = bfti_name_make(engine->env, s->old->name);
        if (!s->name)
            status = bfti_fail(BFT_NO_MEMORY, "no memory to load tree %s",
                               s->old->name);
    }
    if (status == BFT_OK)
        status = load_frame(s, bulk->tree);
    if (status != BFT_OK) {
        bfti_free(engine->env, s->name);
        bfti_bulk_abandon(bulk, root);
        return status;
    }
    s->fresh = bfti_bulk_publish(bulk, root);
    PARK("bulk:published");
    status = bfti_checkpoint_locked(engine, s->rec);
    PARK("bulk:in-image");
    if (status == BFT_OK)
        status = swing(s, &done);
    if (!done) {
        drop_fresh(s);
        bfti_free(engine->env, s->name);
        bfti_frame_free(engine->buffer.wal, s->frame);
    }
    return status;
}

/* BULK is gone when this returns. */
static bft_status finish(struct bfti_bulk *bulk, bft_tree *handle,
                         struct bfti_rec *rec)
{
    struct bfti_engine *engine = bulk->engine;
    struct swing s = {.engine = engine, .rec = rec};
    struct bfti_inner *root = NULL;
    bft_status status = bfti_bulk_end(bulk, &root);
    /* All that was written, while checkpoints of others may still come between:
     * the one of ours has little left to sync. */
    if (status == BFT_OK)
        status = bfti_pages_sync(engine);
    PARK("bulk:written");
    if (status == BFT_OK)
        status = bfti_gate_write(engine, rec, 512);
    if (status != BFT_OK) {
        bfti_bulk_abandon(bulk, root);
        return status;
    }
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    s.old = bfti_handle_tree(handle);
    status = bfti_tree_root(s.old)
                 ? bfti_snapshots_stop(engine, "loaded", s.old->name)
                 : bfti_fail(BFT_GONE, "tree %s was dropped", s.old->name);
    if (status == BFT_OK) {
        status = put_in_place(&s, bulk, root);
        bfti_snapshots_go(engine);
    } else {
        bfti_bulk_abandon(bulk, root);
    }
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

/* --- taking records ------------------------------------------------------- */

/* What the caller's callbacks and the load have to do with each other. */
struct source {
    bft_status (*next)(void *ctx, bft_bulk_record *record);
    void *ctx;
    struct bfti_bulk *bulk;
    struct bfti_rec *rec;
};

static bft_status read_value(void *ctx, void *buf, size_t len)
{
    bft_slice *rest = ctx;
    memcpy(buf, rest->data, len);
    rest->data = (const uint8_t *)rest->data + len;
    rest->len -= len;
    return BFT_OK;
}

uint64_t bfti_bulk_wish(const bft_bulk_record *record)
{
    return record->expires_ms ? bfti_expires_wish(record->expires_ms)
                              : BFTI_EXPIRES_DEFAULT;
}

static bft_status add_large(struct source *source,
                            const bft_bulk_record *record, uint64_t bytes)
{
    struct bfti_bulk *bulk = source->bulk;
    struct bfti_places extents = {NULL, 0, 0};
    struct bfti_large large;
    bft_slice rest = record->value, value = {&large, sizeof(large)};
    struct bfti_stamped_source stamped = {
        .read = record->read ? record->read : read_value,
        .ctx = record->read ? source->ctx : &rest};
    bft_status status;
    if (bulk->tree->ttl_ms) {
        stamped.expires = bfti_expires_at(bulk->tree, bfti_bulk_wish(record),
                                          record->key.len, bytes);
        status =
            bfti_large_write(bulk->engine, source->rec, bulk->tree,
                             bfti_stored_bytes(bulk->tree, bytes), false,
                             bfti_stamped_read, &stamped, &large, &extents);
    } else {
        status = bfti_large_write(bulk->engine, source->rec, bulk->tree, bytes,
                                  false, stamped.read, stamped.ctx, &large,
                                  &extents);
    }
    if (status == BFT_OK)
        status = bfti_bulk_own(bulk, &extents);
    bfti_free(bulk->engine->env, extents.place);
    if (status == BFT_OK)
        status = bfti_bulk_add(bulk, record->key, value, BFTI_REC_LARGE);
    return status;
}

bft_status bfti_bulk_check(const struct bfti_tree *tree,
                           const bft_bulk_record *record)
{
    bft_status status = bfti_check_record(
        tree, record->key,
        bfti_stored_bytes(tree,
                          record->read ? record->bytes : record->value.len));
    if (status == BFT_OK && !record->read && !record->value.data &&
        record->value.len)
        status = bfti_fail(BFT_INVALID, "the value is NULL with a length");
    if (status == BFT_OK)
        status = bfti_check_expires(tree, bfti_bulk_wish(record));
    return status;
}

bft_status bfti_bulk_tell(bft_status status, const char *call, uint64_t number)
{
    char text[256];
    bft_last_error(text, sizeof(text));
    return bfti_fail(status, "%s: record %llu: %s", call,
                     (unsigned long long)number, text);
}

/* Else it is said which record it was. */
static bft_status check(const struct bfti_bulk *bulk,
                        const bft_bulk_record *record)
{
    bft_status status = bfti_bulk_check(bulk->tree, record);
    if (status == BFT_OK)
        status = bfti_bulk_order(bulk, record->key);
    return status == BFT_OK
               ? BFT_OK
               : bfti_bulk_tell(status, "bft_bulk_load", bulk->records + 1);
}

/* A short one, at SMALL. */
static bft_status add_small(struct source *source,
                            const bft_bulk_record *record, uint8_t *small,
                            size_t bytes)
{
    struct bfti_tree *tree = source->bulk->tree;
    uint8_t *to = small;
    bft_slice value = record->value;
    bft_status status = BFT_OK;
    if (tree->ttl_ms) {
        bfti_stamp_put(to, bfti_expires_at(tree, bfti_bulk_wish(record),
                                           record->key.len, bytes));
        to += BFTI_STAMP;
    }
    if (record->read)
        status = bytes ? record->read(source->ctx, to, bytes) : BFT_OK;
    else if (bytes && tree->ttl_ms)
        memcpy(to, value.data, bytes);
    if (record->read || tree->ttl_ms)
        value = (bft_slice){small, (size_t)(to - small) + bytes};
    return status == BFT_OK ? bfti_bulk_add(source->bulk, record->key, value, 0)
                            : status;
}

static bft_status add(struct source *source, const bft_bulk_record *record)
{
    uint8_t small[RECORD_SMALL];
    struct bfti_tree *tree = source->bulk->tree;
    uint64_t bytes = record->read ? record->bytes : record->value.len;
    uint64_t stored = bfti_stored_bytes(tree, bytes);
    bft_status status = check(source->bulk, record);
    if (status != BFT_OK)
        return status;
    return bfti_is_large(tree, record->key.len, stored)
               ? add_large(source, record, bytes)
               : add_small(source, record, small, (size_t)bytes);
}

/* Until there are no more. */
static bft_status take_records(struct source *source)
{
    for (;;) {
        bft_bulk_record record = {.key = {NULL, 0}};
        bft_status status = source->next(source->ctx, &record);
        if (status == BFT_NOT_FOUND)
            return BFT_OK;
        if (status != BFT_OK)
            return status; /* the caller's */
        status = add(source, &record);
        if (status != BFT_OK)
            return status;
    }
}

static bft_status check_options(const bft_bulk_options *options,
                                unsigned *fill_percent)
{
    *fill_percent = 100;
    if (!options)
        return BFT_OK;
    if (options->size != sizeof(*options))
        return bfti_fail(BFT_INVALID,
                         "option size is %zu, this library knows %zu",
                         options->size, sizeof(*options));
    if (options->fill_percent)
        *fill_percent = options->fill_percent;
    if (*fill_percent < FILL_LEAST || *fill_percent > 100)
        return bfti_fail(BFT_INVALID, "option fill_percent is %u: %d to 100",
                         *fill_percent, (int)FILL_LEAST);
    return BFT_OK;
}

/* The tree must be empty already, and writable: nobody reads his records for
 * nothing. */
static bft_status begin(bft_tree *handle, unsigned fill_percent,
                        struct source *source)
{
    struct bfti_engine *engine;
    struct bfti_tree *old;
    uint32_t id;
    bft_status status = bfti_gate_tree(handle, &engine, &source->rec);
    if (status == BFT_OK)
        status = bfti_check_keeps(engine, "it has no bulk loads");
    if (status == BFT_OK)
        status = bfti_gate_write(engine, source->rec, 512);
    if (status != BFT_OK)
        return status;
    do { /* ends: a round is repeated only after a truncation */
        old = bfti_handle_tree(handle);
        status = check_empty(old, source->rec);
    } while (bfti_handle_moved(handle, old, status));
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    id = engine->next_tree_id++;
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    status = bfti_bulk_begin(engine, id, old->leaf_bytes, fill_percent,
                             &source->bulk);
    if (status == BFT_OK)
        bfti_tree_set_ttl(source->bulk->tree, old->ttl_ms);
    return status;
}

bft_status bft_bulk_load(bft_tree *tree, const bft_bulk_options *options,
                         bft_status (*next)(void *ctx, bft_bulk_record *record),
                         void *ctx, uint64_t *records)
{
    struct source source = {.next = next, .ctx = ctx};
    unsigned fill_percent;
    uint64_t count;
    bft_status status = check_options(options, &fill_percent);
    if (records)
        *records = 0;
    if (status == BFT_OK && !next)
        status = bfti_fail(BFT_INVALID, "bft_bulk_load: NEXT is NULL");
    if (status == BFT_OK)
        status = begin(tree, fill_percent, &source);
    if (status != BFT_OK)
        return status;
    status = take_records(&source);
    count = source.bulk->records;
    if (status == BFT_OK && count) {
        status = finish(source.bulk, tree, source.rec);
    } else {
        bfti_bulk_abandon(source.bulk, NULL);
    }
    if (status == BFT_OK && records)
        *records = count;
    return status;
}
