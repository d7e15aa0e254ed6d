/*
 * Changes on their way into the log, and what is done after one is published.
 */
#include "expiry.h"
#include "image.h"
#include "snapshot.h"
#include "tomb.h"

enum {
    UNCOPIED_MAX = 1 << 18, /* bytes of linked frames that are left to wait */
};

bft_status bfti_commit(struct bfti_engine *engine, struct bfti_rec *rec,
                       bft_durability durability, uint64_t end)
{
    struct bfti_wal *wal = engine->buffer.wal;
    bft_status status = BFT_OK;
    if (durability == BFT_DEFAULT)
        durability = engine->options.durability;
    /* The owner of frames copies them at a bound, whatever it asked for, so
     * that linked frames cannot fill the memory.  Files in this process's memory
     * go with it: what is in them survives no kill that a frame does not. */
    if (durability == BFT_NONE ||
        (durability == BFT_BUFFERED && engine->in_memory))
        status = bfti_wal_copy_behind(wal, &rec->wal, end, UNCOPIED_MAX);
    else if (!bfti_fault_on(BFTI_FAULT_LOG_NOT_COPIED))
        status = bfti_wal_copy(wal, &rec->wal, end);
    bfti_wal_leave(wal, &rec->wal);
    if (status == BFT_OK && durability == BFT_SYNC)
        status = bfti_wal_sync(wal, &rec->wal, end);
    if (!atomic_load(&engine->background) &&
        atomic_load(&engine->want_checkpoint))
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
    if (key.len > tree->leaf_bytes / BFTI_KEY_SHARE)
        return bfti_fail(BFT_TOO_BIG,
                         "tree %s: leaves of %u bytes take keys up to %u "
                         "bytes, this one has %zu",
                         tree->name, (unsigned)tree->leaf_bytes,
                         (unsigned)tree->leaf_bytes / BFTI_KEY_SHARE, key.len);
    if (tree->engine->buffer.forgets &&
        bfti_is_large(tree, key.len, value_bytes))
        return bfti_fail(BFT_TOO_BIG,
                         "tree %s: a value of %llu bytes: a cache-only "
                         "database takes those that a leaf of %u bytes has "
                         "room for",
                         tree->name, (unsigned long long)value_bytes,
                         (unsigned)tree->leaf_bytes);
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

bft_status bfti_change_prepare(struct bfti_engine *engine, struct bfti_rec *rec,
                               struct bfti_tree *tree, uint8_t op,
                               bft_slice key, bft_slice value,
                               struct bfti_prepared *p)
{
    bft_status status = check_change(tree, key, value);
    if (status == BFT_OK)
        return bfti_change_make(engine, rec, tree, op, key, value, p);
    memset(p, 0, sizeof(*p));
    return status;
}

bft_status bfti_change_make(struct bfti_engine *engine, struct bfti_rec *rec,
                            struct bfti_tree *tree, uint8_t op, bft_slice key,
                            bft_slice value, struct bfti_prepared *p)
{
    bft_status status;
    memset(p, 0, sizeof(*p));
    p->change.key = key;
    p->change.value = value;
    p->change.op = op;
    p->logged.tree_id = tree->id;
    p->logged.op = op;
    p->logged.key = key;
    p->logged.value = value;
    p->logged.flags =
        op == BFTI_OP_PUT && tree->ttl_ms ? BFTI_FRAME_STAMPED : 0;
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

bft_status bfti_pages_sync(struct bfti_engine *engine)
{
    bft_status status = bfti_pagefile_sync(engine->buffer.pf);
    if (status != BFT_OK)
        bfti_wal_poison(engine->buffer.wal);
    return status;
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
    if (!tree->history &&
        (bytes > BFTI_LOGGED_VALUE_MAX || !p->logged.value.data)) {
        /* The frame only names the extents: they must be there first. */
        p->logged.value = p->change.value;
        p->logged.flags |= BFTI_REC_LARGE;
        status = bfti_pages_sync(engine);
        if (status != BFT_OK)
            bfti_prepared_discard(engine, p);
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

bft_status bfti_write_prepared(struct bfti_engine *engine, struct bfti_rec *rec,
                               struct bfti_tree *tree, struct bfti_prepared *p,
                               const struct bfti_condition *condition)
{
    struct bfti_wal *wal = engine->buffer.wal;
    struct bfti_saver saver = {.engine = engine};
    struct bfti_frame *frame;
    void *payload;
    uint64_t end = 0;
    bft_status status =
        bfti_frame_create(wal, BFTI_FRAME_WRITE,
                          bfti_frame_record_size(&p->logged), &frame, &payload);
    if (status != BFT_OK) {
        bfti_prepared_discard(engine, p);
        return status;
    }
    bfti_frame_record_put(payload, &p->logged);
    bfti_frame_seal(wal, frame);
    do {
        status = bfti_saver_begin(&saver, rec);
        if (status == BFT_OK)
            status = bfti_tomb_clear(tree, rec, p->change.key);
        if (status == BFT_OK && saver.guard.saved)
            status = bfti_history_save(engine, rec, tree, p->change.key,
                                       saver.guard.saved);
        PARK("write:saved");
        if (status == BFT_OK)
            status = bfti_leaf_write(tree, rec, &p->change, frame, condition,
                                     &saver.guard, &end);
        if (status == (bft_status)BFTI_HELD && condition && condition->at_once)
            status = BFT_BUSY;
    } while (bfti_saver_again(&saver, &status));
    bfti_saver_end(&saver);
    if (status != BFT_OK) {
        bfti_frame_drop(wal, &rec->wal, frame);
        bfti_prepared_discard(engine, p);
        return status;
    }
    bfti_expires_note(tree, &p->change);
    bfti_prepared_done(engine, p);
    return bfti_commit(engine, rec, BFT_DEFAULT, end);
}

/* VALUE is as it is to be stored. */
static bft_status write_stored(struct bfti_engine *engine, struct bfti_rec *rec,
                               bft_tree *handle, uint8_t op, bft_slice key,
                               bft_slice value,
                               const struct bfti_condition *condition)
{
    struct bfti_tree *tree;
    struct bfti_prepared p;
    bft_status status;
    /* Ends: a round is repeated only after a truncation. */
    do {
        tree = bfti_handle_tree(handle);
        status = bfti_change_prepare(engine, rec, tree, op, key, value, &p);
        if (status == BFT_OK)
            status = bfti_write_prepared(engine, rec, tree, &p, condition);
    } while (bfti_handle_moved(handle, tree, status));
    return status;
}

/* To a tree whose records expire: what it is truncated to does the same. */
static bft_status write_stamped(struct bfti_engine *engine,
                                struct bfti_rec *rec, bft_tree *handle,
                                uint8_t op, bft_slice key, bft_slice value,
                                uint64_t expires,
                                const struct bfti_condition *condition)
{
    struct bfti_tree *tree = bfti_handle_tree(handle);
    struct bfti_stamped stamped = {.memory = NULL};
    struct bfti_condition timed;
    bft_status status = BFT_OK;
    if (condition) {
        timed = *condition;
        timed.now = bfti_tree_now(tree);
        condition = &timed;
    }
    if (op == BFTI_OP_PUT && expires != BFTI_EXPIRES_STORED) {
        status = bfti_stamp(engine->env, value,
                            bfti_expires_at(tree, expires, key.len, value.len),
                            &stamped);
        value = stamped.value;
    }
    if (status == BFT_OK)
        status = write_stored(engine, rec, handle, op, key, value, condition);
    bfti_stamped_free(engine->env, &stamped);
    return status;
}

bft_status bfti_write_one(bft_tree *handle, uint8_t op, bft_slice key,
                          bft_slice value, uint64_t expires,
                          const struct bfti_condition *condition)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    /* Before room is made in the log, whose size a wrong length would be. */
    if (status == BFT_OK)
        status = check_change(bfti_handle_tree(handle), key, value);
    if (status == BFT_OK)
        status = bfti_check_expires(bfti_handle_tree(handle), expires);
    if (status == BFT_OK)
        status = bfti_gate_write(
            engine, rec,
            key.len + 128 +
                (value.len > BFTI_LOGGED_VALUE_MAX ? 0 : value.len));
    if (status != BFT_OK)
        return status;
    if (bfti_handle_tree(handle)->ttl_ms)
        return write_stamped(engine, rec, handle, op, key, value, expires,
                             condition);
    return write_stored(engine, rec, handle, op, key, value, condition);
}
