/*
 * The public calls on single records: get, put, insert, delete, streams.
 */
#include "engine.h"

#include <stdlib.h>

/* What to do with the value that was found; called while it is held. */
struct take {
    void *buf;
    size_t buf_len;
    size_t value_len; /* out */
    uint64_t offset;  /* a range: from here, at most buf_len */
    bool range;
    bool allocate;    /* buf is to be allocated */
};

static uint64_t view_bytes(const struct bfti_view *view)
{
    struct bfti_large large;
    if (!(view->flags & BFTI_REC_LARGE))
        return view->value_len;
    memcpy(&large, view->value, sizeof(large));
    return le64_get(large.bytes);
}

/* The part of a value of BYTES that TAKE wants; may allocate. */
static bft_status take_room(struct take *take, uint64_t bytes, size_t *len)
{
    *len = 0;
    if (take->range) {
        if (take->offset < bytes) {
            uint64_t rest = bytes - take->offset;
            *len = rest < take->buf_len ? (size_t)rest : take->buf_len;
        }
        take->value_len = *len;
        return BFT_OK;
    }
    take->value_len = (size_t)bytes;
    *len = (size_t)bytes;
    if (take->allocate) {
        free(take->buf);
        take->buf = malloc(*len ? *len : 1);
        if (take->buf)
            return BFT_OK;
        take->value_len = 0;
        return bfti_fail(BFT_NO_MEMORY, "no memory for a value of %zu bytes",
                         *len);
    }
    if (bytes <= take->buf_len)
        return BFT_OK;
    return BFT_TOO_SMALL;
}

static bft_status take_value(struct bfti_reader *reader, bft_slice key,
                             const struct bfti_view *view, struct take *take,
                             bool *stable)
{
    size_t len;
    bft_status status = take_room(take, view_bytes(view), &len);
    *stable = true;
    if (status != BFT_OK || len == 0)
        return status;
    if (view->flags & BFTI_REC_LARGE)
        return bfti_large_read(reader, key, view, take->offset, take->buf, len,
                               stable);
    memcpy(take->buf, view->value + take->offset, len);
    return BFT_OK;
}

static bft_status get(bft_tree *handle, bft_slice key, struct take *take)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_reader reader;
    struct bfti_view view;
    struct bfti_large large;
    bool found, stable = false;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    bfti_count(rec, BFTI_N_GETS, 1);
    /* Ends: a round is repeated only when the value changed meanwhile. */
    while (!stable) {
        status = bfti_leaf_find(&reader, handle->tree, rec, key, &found,
                                &view);
        if (status != BFT_OK)
            return status;
        stable = true;
        if (found && (view.flags & BFTI_REC_LARGE)) {
            /* While its extents are read the leaf may be opened anew, and what
             * the view points to may go. */
            memcpy(&large, view.value, sizeof(large));
            view.value = (const uint8_t *)&large;
        }
        if (found)
            status = take_value(&reader, key, &view, take, &stable);
        if (stable && (status == BFT_OK || status == BFT_TOO_SMALL) &&
            reader.base)
            bfti_leaf_promote(&reader, key, found ? &view : NULL);
        bfti_reader_close(&reader);
        if (status != BFT_OK && status != BFT_TOO_SMALL)
            return status;
    }
    if (!found)
        return bfti_fail_plain(BFT_NOT_FOUND,
                               "the tree has no record with that key");
    if (status == BFT_TOO_SMALL)
        return bfti_fail(BFT_TOO_SMALL,
                         "the value has %zu bytes, the buffer %zu",
                         take->value_len, take->buf_len);
    return status;
}

bft_status bft_get(bft_tree *tree, bft_slice key, void *buf, size_t buf_len,
                   size_t *value_len)
{
    struct take take = {buf, buf_len, 0, 0, false, false};
    bft_status status;
    if (value_len)
        *value_len = 0;
    if (!value_len || (!buf && buf_len))
        return bfti_fail(BFT_INVALID, "bft_get: an output is NULL");
    status = get(tree, key, &take);
    if (status == BFT_OK || status == BFT_TOO_SMALL)
        *value_len = take.value_len;
    return status;
}

bft_status bft_get_copy(bft_tree *tree, bft_slice key, void **value,
                        size_t *value_len)
{
    struct take take = {NULL, 0, 0, 0, false, true};
    bft_status status;
    if (value)
        *value = NULL;
    if (value_len)
        *value_len = 0;
    if (!value || !value_len)
        return bfti_fail(BFT_INVALID, "bft_get_copy: an output is NULL");
    status = get(tree, key, &take);
    if (status != BFT_OK) {
        free(take.buf);
        return status;
    }
    *value = take.buf;
    *value_len = take.value_len;
    return BFT_OK;
}

bft_status bft_get_range(bft_tree *tree, bft_slice key, uint64_t offset,
                         void *buf, size_t len, size_t *got)
{
    struct take take = {buf, len, 0, offset, true, false};
    bft_status status;
    if (got)
        *got = 0;
    if (!got || (!buf && len))
        return bfti_fail(BFT_INVALID, "bft_get_range: an output is NULL");
    status = get(tree, key, &take);
    if (status == BFT_OK)
        *got = take.value_len;
    return status;
}

void bft_free(void *memory)
{
    free(memory);
}

/* --- writing ------------------------------------------------------------- */

static void count_write(bft_tree *tree, enum bfti_counter counter)
{
    struct bfti_rec *rec = bfti_rec_current(tree->db->engine->buffer.threads);
    if (rec)
        bfti_count(rec, counter, 1);
}

bft_status bft_put(bft_tree *tree, bft_slice key, bft_slice value)
{
    bft_status status = bfti_write_one(tree, BFTI_OP_PUT, key, value, false);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_PUTS);
    return status;
}

bft_status bft_insert(bft_tree *tree, bft_slice key, bft_slice value)
{
    bft_status status = bfti_write_one(tree, BFTI_OP_PUT, key, value, true);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_INSERTS);
    return status;
}

bft_status bft_delete(bft_tree *tree, bft_slice key)
{
    bft_slice none = {NULL, 0};
    bft_status status =
        bfti_write_one(tree, BFTI_OP_DELETE, key, none, false);
    if (status == BFT_OK)
        count_write(tree, BFTI_N_DELETES);
    return status;
}

bft_status bft_put_stream(bft_tree *handle, bft_slice key, uint64_t bytes,
                          bft_status (*read)(void *ctx, void *buf, size_t len),
                          void *ctx)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_prepared p;
    bft_slice none = {NULL, 0};
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status != BFT_OK)
        return status;
    if (!read)
        return bfti_fail(BFT_INVALID, "bft_put_stream: READ is NULL");
    status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    if (bytes > BFT_VALUE_MAX)
        return bfti_fail(BFT_TOO_BIG, "a value of %llu bytes is over %u",
                         (unsigned long long)bytes, (unsigned)BFT_VALUE_MAX);
    if (!bfti_is_large(handle->tree, key.len, bytes)) {
        uint8_t small[32768 / BFTI_INLINE_SHARE];
        bft_slice value = {small, (size_t)bytes};
        status = bytes ? read(ctx, small, (size_t)bytes) : BFT_OK;
        return status == BFT_OK ? bft_put(handle, key, value) : status;
    }
    status = bfti_gate_write(engine, rec, 256);
    if (status == BFT_OK)
        status = bfti_change_prepare(engine, rec, handle->tree, BFTI_OP_PUT,
                                     key, none, &p);
    if (status != BFT_OK)
        return status;
    status = bfti_large_write(engine, rec, handle->tree, bytes, read, ctx,
                              &p.large, &p.extents);
    if (status != BFT_OK) {
        bfti_prepared_done(engine, &p);
        return status;
    }
    p.logged.value.data = NULL; /* the log names the extents */
    status = bfti_prepared_large(engine, handle->tree, bytes, &p);
    if (status == BFT_OK)
        status = bfti_write_prepared(engine, rec, handle->tree, &p, false);
    if (status == BFT_OK)
        count_write(handle, BFTI_N_PUTS);
    return status;
}
