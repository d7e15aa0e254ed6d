/*
 * Bulk loads into a tree that may have records: batches of neighbours, one after
 * the other, each a commit like any other.  So there is nothing here that
 * recovery, snapshots or feeds would have to know; why leaves are not hung into
 * the tree instead, README.md, 8 tells.
 */
#include "bulk_internal.h"
#include "cursor_internal.h"
#include "expiry.h"

enum {
    STEP_RECORDS =
        512, /* latches of as many leaves are held at once, at most */
    STEP_BYTES = 64 << 10,
    STEP_SHARE = 64, /* of the budget, at most */
    RECORD_SMALL = 32768 / 8 * BFTI_INLINE_PARTS,
};

struct merging {
    bft_tree *handle;
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status (*next)(void *ctx, bft_bulk_record *record);
    void *ctx;
    bft_batch *batch; /* of the next step */
    size_t step_bytes;
    bft_durability durability; /* of a step */
    struct bfti_bound last;    /* key that was taken last */
    uint64_t taken, done;      /* records: handed over, in the tree */
};

/* What waits is put into the tree. */
static bft_status step(struct merging *m)
{
    size_t count = bft_batch_count(m->batch);
    bft_status status =
        count ? bft_batch_commit(m->batch, m->durability, NULL) : BFT_OK;
    if (status == BFT_OK)
        m->done += count;
    return status;
}

/* A value that no step has room for, or that is not all there, so that what
 * comes before it has to be there first. */
static bft_status put_alone(struct merging *m, const bft_bulk_record *record,
                            uint64_t wish)
{
    bft_status status = step(m);
    if (status != BFT_OK)
        return status;
    if (record->read) {
        status = bfti_put_stream(m->handle, record->key, record->bytes,
                                 record->read, m->ctx, wish);
    } else {
        status = bfti_write_one(m->handle, BFTI_OP_PUT, record->key,
                                record->value, wish, NULL);
        if (status == BFT_OK)
            bfti_count(m->rec, BFTI_N_PUTS, 1);
    }
    if (status == BFT_OK)
        m->done++;
    return status;
}

static bft_status put_with_others(struct merging *m,
                                  const bft_bulk_record *record, uint64_t wish)
{
    uint8_t small[RECORD_SMALL];
    bft_slice value = record->value;
    bft_status status = BFT_OK;
    if (record->read) {
        value = (bft_slice){small, (size_t)record->bytes};
        if (value.len)
            status = record->read(m->ctx, small, value.len);
    }
    if (status == BFT_OK)
        status = bfti_batch_put(m->batch, m->handle, record->key, value, wish);
    if (status == BFT_OK && (bft_batch_count(m->batch) >= STEP_RECORDS ||
                             bft_batch_bytes(m->batch) >= m->step_bytes))
        status = step(m);
    return status;
}

/* Else it is said which record it was. */
static bft_status check(const struct merging *m, const struct bfti_tree *tree,
                        const bft_bulk_record *record)
{
    bft_status status = bfti_bulk_check(tree, record);
    if (status == BFT_OK && m->taken &&
        bfti_key_compare(bfti_bound_key(&m->last), record->key) >= 0)
        status =
            bfti_fail(BFT_INVALID, "its key is not above the one before it");
    return status == BFT_OK
               ? BFT_OK
               : bfti_bulk_tell(status, "bft_bulk_merge", m->taken + 1);
}

static bft_status take(struct merging *m, const bft_bulk_record *record)
{
    const struct bfti_tree *tree = bfti_handle_tree(m->handle);
    uint64_t wish = bfti_bulk_wish(record);
    uint64_t bytes = record->read ? record->bytes : record->value.len;
    bool large;
    bft_status status = check(m, tree, record);
    if (status != BFT_OK)
        return status;
    bfti_bound_set(&m->last, record->key);
    m->taken++;
    large =
        bfti_is_large(tree, record->key.len, bfti_stored_bytes(tree, bytes));
    return large && (record->read || bytes > m->step_bytes)
               ? put_alone(m, record, wish)
               : put_with_others(m, record, wish);
}

/* Until there are no more. */
static bft_status take_all(struct merging *m)
{
    for (;;) {
        bft_bulk_record record = {.key = {NULL, 0}};
        bft_status status = m->next(m->ctx, &record);
        if (status == BFT_NOT_FOUND)
            return step(m);
        if (status == BFT_OK)
            status = take(m, &record);
        if (status != BFT_OK)
            return status;
    }
}

/* Writable, and there: nobody reads his records for nothing. */
static bft_status begin(struct merging *m)
{
    const struct bfti_tree *tree;
    uint64_t share;
    bft_status status = bfti_gate_tree(m->handle, &m->engine, &m->rec);
    if (status == BFT_OK)
        status = bfti_gate_write(m->engine, m->rec, 512);
    if (status != BFT_OK)
        return status;
    do { /* ends: a round is repeated only after a truncation */
        tree = bfti_handle_tree(m->handle);
        status = bfti_tree_root(tree)
                     ? BFT_OK
                     : bfti_fail(BFT_GONE, "tree %s was dropped", tree->name);
    } while (bfti_handle_moved(m->handle, tree, status));
    if (status != BFT_OK)
        return status;
    share = m->engine->options.memory_bytes / STEP_SHARE;
    m->step_bytes = share < STEP_BYTES ? (size_t)share : STEP_BYTES;
    m->durability = m->engine->options.durability;
    if (m->durability == BFT_SYNC)
        m->durability = BFT_BUFFERED; /* one sync at the end, for all */
    return bft_batch_create(m->handle->db, &m->batch);
}

/* A commit, if of nothing: the steps are then as durable as it.  Also of a call
 * that fails, with STATUS, for it tells how many records it put. */
static bft_status end(struct merging *m, bft_status status)
{
    struct bfti_error_own told = {.text_len = 0};
    bft_status synced;
    bft_batch_clear(m->batch);
    bfti_error_swap(&told);
    synced = bft_batch_commit(m->batch, BFT_DEFAULT, NULL);
    if (synced == BFT_OK)
        bfti_error_swap(&told); /* the text of STATUS stays */
    bft_batch_free(m->batch);
    return synced == BFT_OK ? status : synced;
}

bft_status bft_bulk_merge(bft_tree *tree,
                          bft_status (*next)(void *ctx,
                                             bft_bulk_record *record),
                          void *ctx, uint64_t *records)
{
    struct merging m = {.handle = tree, .next = next, .ctx = ctx};
    bft_status status;
    if (records)
        *records = 0;
    if (!next)
        return bfti_fail(BFT_INVALID, "bft_bulk_merge: NEXT is NULL");
    status = begin(&m);
    if (status != BFT_OK)
        return status;
    status = end(&m, take_all(&m));
    if (records)
        *records = m.done;
    return status;
}
