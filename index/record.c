/*
 * The public calls that write single records: put, insert, delete, streams.
 */
#include "engine.h"

static void count_write(bft_tree *tree, enum bfti_counter counter)
{
    struct bfti_rec *rec = bfti_rec_current(tree->db->engine->buffer.threads);
    if (rec)
        bfti_count(rec, counter, 1);
}

bft_status bft_put(bft_tree *tree, bft_slice key, bft_slice value)
{
    bft_status status = bfti_write_one(tree, BFTI_OP_PUT, key, value, NULL);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_PUTS);
    return status;
}

bft_status bft_insert(bft_tree *tree, bft_slice key, bft_slice value)
{
    static const struct bfti_condition absent = {false, {NULL, 0}};
    bft_status status =
        bfti_write_one(tree, BFTI_OP_PUT, key, value, &absent);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_INSERTS);
    if (status == BFT_CONFLICT)
        return bfti_fail_plain(BFT_EXISTS,
                               "the tree has a record with that key");
    return status;
}

bft_status bft_delete(bft_tree *tree, bft_slice key)
{
    bft_slice none = {NULL, 0};
    bft_status status =
        bfti_write_one(tree, BFTI_OP_DELETE, key, none, NULL);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_DELETES);
    return status;
}

bft_status bft_replace(bft_tree *tree, bft_slice key, const bft_slice *expected,
                       const bft_slice *value)
{
    struct bfti_condition condition = {false, {NULL, 0}};
    bft_slice none = {NULL, 0};
    bft_status status;
    if (!expected && !value)
        return bfti_fail(BFT_INVALID,
                         "bft_replace: neither a value expected nor one to set");
    if (expected && !expected->data && expected->len)
        return bfti_fail(BFT_INVALID,
                         "the expected value is NULL with a length");
    if (expected) {
        condition.present = true;
        condition.value = *expected;
    }
    status = bfti_write_one(tree, value ? BFTI_OP_PUT : BFTI_OP_DELETE, key,
                            value ? *value : none, &condition);
    if (status == BFT_OK)
        count_write(tree, value ? BFTI_N_PUTS : BFTI_N_DELETES);
    if (status == BFT_CONFLICT)
        return bfti_fail_plain(BFT_CONFLICT, expected
                                                 ? "the key has another value"
                                                 : "the key has a value");
    return status;
}

bft_status bft_put_stream(bft_tree *handle, bft_slice key, uint64_t bytes,
                          bft_status (*read)(void *ctx, void *buf, size_t len),
                          void *ctx)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_prepared p;
    struct bfti_tree *tree;
    bft_slice none = {NULL, 0};
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status != BFT_OK)
        return status;
    tree = bfti_handle_tree(handle);
    if (!read)
        return bfti_fail(BFT_INVALID, "bft_put_stream: READ is NULL");
    status = bfti_check_record(tree, key, bytes);
    if (status != BFT_OK)
        return status;
    if (!bfti_is_large(tree, key.len, bytes)) {
        uint8_t small[32768 / BFTI_INLINE_SHARE];
        bft_slice value = {small, (size_t)bytes};
        status = bytes ? read(ctx, small, (size_t)bytes) : BFT_OK;
        return status == BFT_OK ? bft_put(handle, key, value) : status;
    }
    status = bfti_gate_write(engine, rec, 256);
    if (status == BFT_OK)
        status = bfti_change_prepare(engine, rec, tree, BFTI_OP_PUT,
                                     key, none, &p);
    if (status != BFT_OK)
        return status;
    status = bfti_large_write(engine, rec, tree, bytes, read, ctx,
                              &p.large, &p.extents);
    if (status != BFT_OK) {
        bfti_prepared_done(engine, &p);
        return status;
    }
    p.logged.value.data = NULL; /* the log names the extents */
    status = bfti_prepared_large(engine, tree, bytes, &p);
    if (status == BFT_OK)
        status = bfti_write_prepared(engine, rec, tree, &p, NULL);
    /* What was read cannot be read again. */
    if (bfti_handle_moved(handle, tree, status))
        return bfti_fail(BFT_CONFLICT,
                         "tree %s was truncated while a value was read",
                         tree->name);
    if (status == BFT_OK)
        count_write(handle, BFTI_N_PUTS);
    return status;
}
