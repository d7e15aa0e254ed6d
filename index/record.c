/*
 * The public calls that write single records: put, insert, delete, streams.
 */
#include "expiry.h"

static void count_write(bft_tree *tree, enum bfti_counter counter)
{
    struct bfti_rec *rec = bfti_rec_current(tree->db->engine->buffer.threads);
    if (rec)
        bfti_count(rec, counter, 1);
}

/* EXPIRES: as of bfti_write_one(), in these as well. */
static bft_status put(bft_tree *tree, bft_slice key, bft_slice value,
                      uint64_t expires)
{
    bft_status status =
        bfti_write_one(tree, BFTI_OP_PUT, key, value, expires, NULL);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_PUTS);
    return status;
}

bft_status bft_put(bft_tree *tree, bft_slice key, bft_slice value)
{
    return put(tree, key, value, BFTI_EXPIRES_DEFAULT);
}

bft_status bft_put_until(bft_tree *tree, bft_slice key, bft_slice value,
                         uint64_t expires_ms)
{
    return put(tree, key, value, bfti_expires_wish(expires_ms));
}

static bft_status insert(bft_tree *tree, bft_slice key, bft_slice value,
                         uint64_t expires)
{
    static const struct bfti_condition absent = {.present = false};
    bft_status status =
        bfti_write_one(tree, BFTI_OP_PUT, key, value, expires, &absent);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_INSERTS);
    if (status == BFT_CONFLICT)
        return bfti_fail_plain(BFT_EXISTS,
                               "the tree has a record with that key");
    return status;
}

bft_status bft_insert(bft_tree *tree, bft_slice key, bft_slice value)
{
    return insert(tree, key, value, BFTI_EXPIRES_DEFAULT);
}

bft_status bft_insert_until(bft_tree *tree, bft_slice key, bft_slice value,
                            uint64_t expires_ms)
{
    return insert(tree, key, value, bfti_expires_wish(expires_ms));
}

bft_status bft_delete(bft_tree *tree, bft_slice key)
{
    bft_slice none = {NULL, 0};
    bft_status status = bfti_write_one(tree, BFTI_OP_DELETE, key, none,
                                       BFTI_EXPIRES_DEFAULT, NULL);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_DELETES);
    return status;
}

/* NAME: of the call, for its texts. */
static bft_status replace(bft_tree *tree, bft_slice key,
                          const bft_slice *expected, const bft_slice *value,
                          uint64_t expires, const char *name)
{
    struct bfti_condition condition = {.present = false};
    bft_slice none = {NULL, 0};
    bft_status status;
    if (!expected && !value)
        return bfti_fail(BFT_INVALID,
                         "%s: neither a value expected nor one to set", name);
    if (expected && !expected->data && expected->len)
        return bfti_fail(BFT_INVALID,
                         "the expected value is NULL with a length");
    if (expected) {
        condition.present = true;
        condition.value = *expected;
    }
    status = bfti_write_one(tree, value ? BFTI_OP_PUT : BFTI_OP_DELETE, key,
                            value ? *value : none, expires, &condition);
    if (status == BFT_OK)
        count_write(tree, value ? BFTI_N_PUTS : BFTI_N_DELETES);
    if (status == BFT_CONFLICT)
        return bfti_fail_plain(BFT_CONFLICT, expected
                                                 ? "the key has another value"
                                                 : "the key has a value");
    return status;
}

bft_status bft_replace(bft_tree *tree, bft_slice key, const bft_slice *expected,
                       const bft_slice *value)
{
    return replace(tree, key, expected, value, BFTI_EXPIRES_DEFAULT,
                   "bft_replace");
}

bft_status bft_replace_until(bft_tree *tree, bft_slice key,
                             const bft_slice *expected, const bft_slice *value,
                             uint64_t expires_ms)
{
    return replace(tree, key, expected, value, bfti_expires_wish(expires_ms),
                   "bft_replace_until");
}

/* A value that turned out to be short. */
static bft_status put_short(bft_tree *handle, bft_slice key, uint64_t bytes,
                            bft_status (*read)(void *ctx, void *buf,
                                               size_t len),
                            void *ctx, uint64_t expires)
{
    uint8_t small[32768 / 8 * BFTI_INLINE_PARTS];
    bft_slice value = {small, (size_t)bytes};
    bft_status status = bytes ? read(ctx, small, (size_t)bytes) : BFT_OK;
    return status == BFT_OK
               ? bfti_write_one(handle, BFTI_OP_PUT, key, value, expires, NULL)
               : status;
}

/* A value of BYTES as they are to be stored, too long for a leaf. */
static bft_status put_long(struct bfti_engine *engine, struct bfti_rec *rec,
                           bft_tree *handle, bft_slice key, uint64_t bytes,
                           bft_status (*read)(void *ctx, void *buf, size_t len),
                           void *ctx)
{
    struct bfti_tree *tree = bfti_handle_tree(handle);
    struct bfti_prepared p;
    bft_slice none = {NULL, 0};
    bft_status status = bfti_gate_write(engine, rec, 256);
    if (status == BFT_OK)
        status =
            bfti_change_prepare(engine, rec, tree, BFTI_OP_PUT, key, none, &p);
    if (status != BFT_OK)
        return status;
    status = bfti_large_write(engine, rec, tree, bytes, true, read, ctx,
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
    return status;
}

bft_status bfti_put_stream(bft_tree *handle, bft_slice key, uint64_t bytes,
                           bft_status (*read)(void *ctx, void *buf, size_t len),
                           void *ctx, uint64_t expires)
{
    bool stored = expires == BFTI_EXPIRES_STORED;
    struct bfti_stamped_source source = {.read = read, .ctx = ctx};
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    uint64_t length;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status != BFT_OK)
        return status;
    tree = bfti_handle_tree(handle);
    if (!read)
        return bfti_fail(BFT_INVALID,
                         "READ is NULL: nobody hands over the value");
    length = stored ? bytes : bfti_stored_bytes(tree, bytes);
    status = bfti_check_record(tree, key, length);
    if (status == BFT_OK)
        status = bfti_check_expires(tree, expires);
    if (status != BFT_OK)
        return status;
    if (!bfti_is_large(tree, key.len, length)) {
        status = put_short(handle, key, bytes, read, ctx, expires);
    } else if (stored || !tree->ttl_ms) {
        status = put_long(engine, rec, handle, key, bytes, read, ctx);
    } else {
        source.expires = bfti_expires_at(tree, expires, key.len, bytes);
        status = put_long(engine, rec, handle, key, length, bfti_stamped_read,
                          &source);
    }
    if (status == BFT_OK)
        count_write(handle, BFTI_N_PUTS);
    return status;
}

bft_status bft_put_stream(bft_tree *tree, bft_slice key, uint64_t bytes,
                          bft_status (*read)(void *ctx, void *buf, size_t len),
                          void *ctx)
{
    return bfti_put_stream(tree, key, bytes, read, ctx, BFTI_EXPIRES_DEFAULT);
}

bft_status bft_put_stream_until(bft_tree *tree, bft_slice key, uint64_t bytes,
                                bft_status (*read)(void *ctx, void *buf,
                                                   size_t len),
                                void *ctx, uint64_t expires_ms)
{
    return bfti_put_stream(tree, key, bytes, read, ctx,
                           bfti_expires_wish(expires_ms));
}
