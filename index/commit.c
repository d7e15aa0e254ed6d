/*
 * Frames of changes, and what is done after one is published.
 *
 * A WRITE frame is a sequence of records: le32 tree id, op, flags, le16 key
 * length, le32 value length, key, value.  All of a frame is applied or none.
 */
#include "engine.h"

enum {
    RECORD_HEAD = 12,
    UNCOPIED_MAX = 1 << 20, /* of linked frames that a `none` commit leaves */
};

size_t bfti_frame_record_size(const struct bfti_frame_record *record)
{
    return RECORD_HEAD + record->key.len + record->value.len;
}

uint8_t *bfti_frame_record_put(uint8_t *to,
                               const struct bfti_frame_record *record)
{
    le32 tree_id = le32_of(record->tree_id);
    le16 key_len = le16_of((uint16_t)record->key.len);
    le32 value_len = le32_of((uint32_t)record->value.len);
    memcpy(to, &tree_id, 4);
    to[4] = record->op;
    to[5] = record->flags;
    memcpy(to + 6, &key_len, 2);
    memcpy(to + 8, &value_len, 4);
    to += RECORD_HEAD;
    memcpy(to, record->key.data, record->key.len);
    to += record->key.len;
    if (record->value.len)
        memcpy(to, record->value.data, record->value.len);
    return to + record->value.len;
}

const char *bfti_frame_record_get(const uint8_t **from, const uint8_t *end,
                                  struct bfti_frame_record *record)
{
    const uint8_t *at = *from;
    le32 tree_id, value_len;
    le16 key_len;
    if (end - at < RECORD_HEAD)
        return "a record's head is cut off";
    memcpy(&tree_id, at, 4);
    memcpy(&key_len, at + 6, 2);
    memcpy(&value_len, at + 8, 4);
    record->tree_id = le32_get(tree_id);
    record->op = at[4];
    record->flags = at[5];
    record->key.len = le16_get(key_len);
    record->value.len = le32_get(value_len);
    at += RECORD_HEAD;
    if ((size_t)(end - at) < record->key.len ||
        (size_t)(end - at) - record->key.len < record->value.len)
        return "a record runs past its frame";
    if (record->key.len == 0 || record->key.len > BFT_KEY_MAX)
        return "a record's key has a wrong length";
    if (!bfti_op_is_dirty(record->op))
        return "a record has an unknown operation";
    if ((record->flags & BFTI_REC_LARGE) &&
        record->value.len != sizeof(struct bfti_large))
        return "a large value's reference has a wrong length";
    record->key.data = at;
    record->value.data = at + record->key.len;
    *from = at + record->key.len + record->value.len;
    return NULL;
}

bft_status bfti_frame_each(const struct bfti_engine *engine, uint64_t lsn,
                           const void *payload, size_t len,
                           bft_status (*each)(
                               void *arg,
                               const struct bfti_frame_record *record),
                           void *arg)
{
    const uint8_t *at = payload, *end = at + len;
    bft_status status = BFT_OK;
    while (status == BFT_OK && at < end) {
        struct bfti_frame_record record;
        const char *wrong = bfti_frame_record_get(&at, end, &record);
        if (wrong)
            return bfti_fail(BFT_CORRUPT, "%s: log frame at %llu: %s",
                             engine->path, (unsigned long long)lsn, wrong);
        status = each(arg, &record);
    }
    return status;
}

bft_status bfti_commit(struct bfti_engine *engine, struct bfti_rec *rec,
                       bft_durability durability, uint64_t end)
{
    struct bfti_wal *wal = engine->buffer.wal;
    bft_status status = BFT_OK;
    if (durability == BFT_DEFAULT)
        durability = engine->options.durability;
    /* The owner of frames copies them at a bound, whatever it asked for, so
     * that linked frames cannot fill the memory. */
    if (durability != BFT_NONE ||
        end - bfti_wal_copied(wal) > UNCOPIED_MAX)
        status = bfti_wal_copy(wal, &rec->wal, end);
    bfti_wal_leave(wal, &rec->wal);
    if (status == BFT_OK && durability == BFT_SYNC)
        status = bfti_wal_sync(wal, &rec->wal, end);
    if (!engine->checkpointer && atomic_load(&engine->want_checkpoint))
        bfti_background_run(engine, rec);
    return status;
}

bft_status bfti_check_record(const struct bfti_tree *tree, bft_slice key,
                             uint64_t value_bytes)
{
    if (key.len == 0 || !key.data)
        return bfti_fail(BFT_INVALID, "tree %s: the key is empty", tree->name);
    if (key.len > BFT_KEY_MAX)
        return bfti_fail(BFT_TOO_BIG,
                         "tree %s: the key has %zu bytes, the limit is %u",
                         tree->name, key.len, BFT_KEY_MAX);
    if (key.len > tree->leaf_bytes / BFTI_INLINE_SHARE)
        return bfti_fail(BFT_TOO_BIG,
                         "tree %s: leaves of %u bytes take keys up to %u "
                         "bytes, this one has %zu",
                         tree->name, (unsigned)tree->leaf_bytes,
                         (unsigned)tree->leaf_bytes / BFTI_INLINE_SHARE,
                         key.len);
    if (value_bytes > BFT_VALUE_MAX)
        return bfti_fail(BFT_TOO_BIG,
                         "tree %s: a value of %llu bytes, the limit is %u",
                         tree->name, (unsigned long long)value_bytes,
                         (unsigned)BFT_VALUE_MAX);
    return BFT_OK;
}

static bft_status check_change(const struct bfti_tree *tree, bft_slice key,
                               bft_slice value)
{
    if (!value.data && value.len)
        return bfti_fail(BFT_INVALID,
                         "tree %s: the value is NULL with a length",
                         tree->name);
    return bfti_check_record(tree, key, value.len);
}

bft_status bfti_change_prepare(struct bfti_engine *engine,
                               struct bfti_rec *rec, struct bfti_tree *tree,
                               uint8_t op, bft_slice key, bft_slice value,
                               struct bfti_prepared *p)
{
    bft_status status = check_change(tree, key, value);
    memset(p, 0, sizeof(*p));
    if (status != BFT_OK)
        return status;
    p->change.key = key;
    p->change.value = value;
    p->change.op = op;
    p->logged.tree_id = tree->id;
    p->logged.op = op;
    p->logged.key = key;
    p->logged.value = value;
    if (op != BFTI_OP_PUT || !bfti_is_large(tree, key.len, value.len))
        return BFT_OK;
    status = bfti_large_write_slice(engine, rec, tree, value, &p->large,
                                    &p->extents);
    if (status != BFT_OK) {
        bfti_prepared_done(engine, p);
        return status;
    }
    return bfti_prepared_large(engine, tree, value.len, p);
}

bft_status bfti_prepared_large(struct bfti_engine *engine,
                               struct bfti_tree *tree, uint64_t bytes,
                               struct bfti_prepared *p)
{
    bft_status status = BFT_OK;
    p->change.value.data = &p->large;
    p->change.value.len = sizeof(p->large);
    p->change.flags = BFTI_REC_LARGE;
    p->change.extents = &p->extents;
    if (bytes > BFTI_LOGGED_VALUE_MAX || !p->logged.value.data) {
        /* The frame only names the extents: they must be there first. */
        p->logged.value = p->change.value;
        p->logged.flags = BFTI_REC_LARGE;
        status = bfti_pagefile_sync(engine->buffer.pf);
        if (status != BFT_OK) {
            bfti_wal_poison(engine->buffer.wal);
            bfti_prepared_discard(engine, p);
        }
    }
    if (status == BFT_OK)
        atomic_store(&tree->has_large, true);
    return status;
}

void bfti_prepared_discard(struct bfti_engine *engine, struct bfti_prepared *p)
{
    bfti_large_discard(engine, &p->extents);
    bfti_prepared_done(engine, p);
}

void bfti_prepared_done(struct bfti_engine *engine, struct bfti_prepared *p)
{
    bfti_free(engine->env, p->extents.place);
    memset(&p->extents, 0, sizeof(p->extents));
}

bft_status bfti_write_prepared(struct bfti_engine *engine,
                               struct bfti_rec *rec, struct bfti_tree *tree,
                               struct bfti_prepared *p,
                               const struct bfti_condition *condition)
{
    struct bfti_wal *wal = engine->buffer.wal;
    struct bfti_frame *frame;
    void *payload;
    uint64_t end;
    bft_status status = bfti_frame_create(
        wal, BFTI_FRAME_WRITE, bfti_frame_record_size(&p->logged), &frame,
        &payload);
    if (status != BFT_OK) {
        bfti_prepared_discard(engine, p);
        return status;
    }
    bfti_frame_record_put(payload, &p->logged);
    bfti_frame_seal(wal, frame);
    status = bfti_leaf_write(tree, rec, &p->change, frame, condition,
                             &end);
    if (status != BFT_OK) {
        bfti_frame_free(wal, frame);
        bfti_prepared_discard(engine, p);
        return status;
    }
    bfti_prepared_done(engine, p);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

bft_status bfti_write_one(bft_tree *handle, uint8_t op, bft_slice key,
                          bft_slice value,
                          const struct bfti_condition *condition)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    struct bfti_prepared p;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    /* Before room is made in the log, whose size a wrong length would be. */
    if (status == BFT_OK)
        status = check_change(bfti_handle_tree(handle), key, value);
    if (status == BFT_OK)
        status = bfti_gate_write(engine, rec,
                                 key.len + 128 +
                                     (value.len > BFTI_LOGGED_VALUE_MAX
                                          ? 0
                                          : value.len));
    if (status != BFT_OK)
        return status;
    /* Ends: a round is repeated only after a truncation. */
    do {
        tree = bfti_handle_tree(handle);
        status = bfti_change_prepare(engine, rec, tree, op, key, value, &p);
        if (status == BFT_OK)
            status = bfti_write_prepared(engine, rec, tree, &p, condition);
    } while (bfti_handle_moved(handle, tree, status));
    return status;
}
