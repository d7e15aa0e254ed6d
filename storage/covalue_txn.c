/*
 * One transaction of the covalue store: its ops in order, each on top of those
 * before it, into one batch.
 *
 * Session rows are written once, at the end, whatever changed them: a message
 * of Jazz changes its session row and adds transactions and perhaps a signature,
 * which the row notes too.
 */
#include <assert.h>
#include <string.h>

#include "storage/covalue_fault.h"
#include "storage/covalue_internal.h"
#include "storage/covalue_touched.h"

_Static_assert(BFTI_COMMIT_SLOTS == 64, "a bit each");

struct txn {
    bft_covalue_store *store;
    struct bfti_touched_set touched;
    uint64_t covalue_count; /* with those it made */
    uint64_t next_session;
    uint64_t content_last; /* as it was before this transaction */
    uint64_t latest_covalue;
    uint64_t latest_session;
};

/* --- CoValues ------------------------------------------------------------------------ */

static bft_status covalue_write(struct txn *t, bft_slice id, uint64_t row,
                                bft_slice header)
{
    struct bfti_cokey key;
    uint8_t few[512];
    uint8_t *value = few;
    size_t len = BFTI_KEY_NUMBER_MAX + header.len;
    bft_status status;

    if (len > sizeof(few))
        value = bfti_alloc(t->store->env, len);
    if (value == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "covalue store: no memory for a header of %zu bytes",
                         header.len);
    len = bfti_key_put_number(value, row);
    if (header.len != 0)
        memcpy(value + len, header.data, header.len);
    status = bfti_covalue_put(t->store, COVALUES,
                              bfti_cokey_id(&key, COVALUES_ID, id),
                              (bft_slice){value, len + header.len});
    if (value != few)
        bfti_free(t->store->env, value);
    return status;
}

static bft_status covalue_make(struct txn *t, const bft_covalue_op *op,
                               uint64_t *row)
{
    struct bfti_cokey key;
    bft_status status;

    if ((op->flags & BFT_OP_FIND) != 0)
        return bfti_fail(BFT_NOT_FOUND,
                         "covalue store: no CoValue has that id");
    *row = t->covalue_count + 1;
    status = covalue_write(t, op->id, *row, op->value);
    if (status == BFT_OK)
        status =
            bfti_covalue_put(t->store, COVALUES,
                             bfti_cokey_row(&key, COVALUES_ROW, *row), op->id);
    if (status == BFT_OK)
        t->covalue_count++;
    return status;
}

static bft_status do_covalue(struct txn *t, bft_covalue_op *op)
{
    struct bfti_touched_key key = {.kind = TOUCHED_COVALUE, .id = op->id};
    uint32_t at = bfti_touched_find(&t->touched, &key);
    uint64_t row;
    bft_status status;

    if (at == TOUCHED_NONE) {
        status = bfti_covalue_find(t->store, op->id, &row);
        if (status == BFT_NOT_FOUND)
            status = covalue_make(t, op, &row);
        else if (status == BFT_OK && op->value.len != 0 &&
                 bfti_covalue_fault_on(BFTI_COVALUE_FAULT_HEADER))
            status = covalue_write(t, op->id, row, op->value);
        if (status == BFT_OK)
            status = bfti_touched_add(&t->touched, &key, &at);
        if (status != BFT_OK)
            return status;
        t->touched.at[at].covalue = row;
    }
    op->result = t->touched.at[at].covalue;
    t->latest_covalue = op->result;
    return BFT_OK;
}

/* --- sessions ------------------------------------------------------------------------ */

/* The entry of session row ROW. */
static bft_status row_touch(struct txn *t, uint64_t row, uint32_t *at)
{
    struct bfti_touched_key key = {.kind = TOUCHED_ROW, .row = row};

    *at = bfti_touched_find(&t->touched, &key);
    if (*at != TOUCHED_NONE)
        return BFT_OK;
    return bfti_touched_add(&t->touched, &key, at);
}

/* Give the session at SESSION its row id, and note whose it is. */
static bft_status session_make(struct txn *t, uint32_t session_at)
{
    struct bfti_touched *touched = &t->touched.at[session_at];
    struct bfti_cokey key;
    uint8_t value[BFTI_KEY_NUMBER_MAX + 1];
    size_t len = bfti_key_put_number(value, touched->key.row);
    uint64_t row = t->next_session;
    uint64_t first = BFT_COVALUE_NONE;
    bft_status status;

    value[len++] = bfti_session_kept(touched->key.id);
    status = bfti_covalue_put(t->store, SESSIONS,
                              bfti_cokey_row(&key, SESSIONS_ROW, row),
                              (bft_slice){value, len});
    /* Signatures may be there before their session: rows are not checked. */
    if (status == BFT_OK && row <= t->content_last)
        status = bfti_covalue_next_idx(t->store, SIGNATURES, row, 0, &first);
    if (status != BFT_OK)
        return status;
    touched->session.row = row;
    touched->session.has_signatures = first != BFT_COVALUE_NONE;
    t->next_session++;
    return BFT_OK;
}

/* The entry of session ID of CoValue row COVALUE, which may not exist. */
static bft_status session_touch(struct txn *t, uint64_t covalue, bft_slice id,
                                uint32_t *at)
{
    struct bfti_touched_key key = {TOUCHED_SESSION, covalue, 0, id};
    struct bfti_session session;
    bft_status status;

    *at = bfti_touched_find(&t->touched, &key);
    if (*at != TOUCHED_NONE)
        return BFT_OK;
    status = covalue > t->store->shared->sessions_last
                 ? BFT_NOT_FOUND
                 : bfti_covalue_session_head(t->store, covalue, id, &session);
    if (status != BFT_OK && status != BFT_NOT_FOUND)
        return status;
    if (status == BFT_NOT_FOUND)
        memset(&session, 0, sizeof(session));
    status = bfti_touched_add(&t->touched, &key, at);
    if (status == BFT_OK)
        t->touched.at[*at].session = session;
    return status;
}

static bft_status session_expect(const struct bfti_touched *touched,
                                 const bft_covalue_op *op)
{
    const struct bfti_session *session = &touched->session;

    if ((op->flags & BFT_OP_EXPECT) == 0 ||
        (session->row == op->expect_row &&
         (session->row == 0 || session->last_idx == op->expect_idx)))
        return BFT_OK;
    return bfti_fail(
        BFT_CONFLICT,
        "covalue store: a session of CoValue row %llu is row %llu "
        "with %llu transactions, not row %llu with %llu",
        (unsigned long long)touched->key.row, (unsigned long long)session->row,
        (unsigned long long)session->last_idx,
        (unsigned long long)op->expect_row, (unsigned long long)op->expect_idx);
}

static bft_status do_session(struct txn *t, bft_covalue_op *op)
{
    uint64_t covalue =
        (op->flags & BFT_OP_LATEST) != 0 ? t->latest_covalue : op->row;
    struct bfti_covalue_shared *shared = t->store->shared;
    struct bfti_touched *touched;
    uint32_t at, row_at;
    bft_status status = session_touch(t, covalue, op->id, &at);

    if (covalue > shared->sessions_last)
        shared->sessions_last = covalue; /* if all goes well */
    if (status == BFT_OK)
        status = session_expect(&t->touched.at[at], op);
    if (status == BFT_OK && t->touched.at[at].session.row == 0)
        status = session_make(t, at);
    if (status == BFT_OK)
        status = row_touch(t, t->touched.at[at].session.row, &row_at);
    if (status != BFT_OK)
        return status;
    t->touched.at[row_at].session_at = at;
    touched = &t->touched.at[at];
    touched->session.last_idx = op->idx;
    touched->session.bytes_since = op->bytes;
    touched->session.signature = op->value;
    touched->session.has_signatures |= t->touched.at[row_at].is_signed;
    touched->dirty = true;
    if (bfti_covalue_fault_on(BFTI_COVALUE_FAULT_BYTES_SINCE))
        touched->session.bytes_since = 0;
    op->result = touched->session.row;
    t->latest_session = op->result;
    return BFT_OK;
}

static bft_status session_write(struct txn *t,
                                const struct bfti_touched *touched)
{
    const struct bfti_session *session = &touched->session;
    struct bfti_cokey key;
    uint8_t few[512];
    uint8_t *value = few;
    size_t len = BFTI_SESSION_HEAD_MAX + session->signature.len;
    bft_status status;

    if (len > sizeof(few))
        value = bfti_alloc(t->store->env, len);
    if (value == NULL)
        return bfti_fail(
            BFT_NO_MEMORY,
            "covalue store: no memory for a signature of %zu bytes",
            session->signature.len);
    len = bfti_session_encode(value, session);
    if (session->signature.len != 0)
        memcpy(value + len, session->signature.data, session->signature.len);
    status = bfti_covalue_put(
        t->store, SESSIONS,
        bfti_cokey_session(&key, touched->key.row, touched->key.id),
        (bft_slice){value, len + session->signature.len});
    if (value != few)
        bfti_free(t->store->env, value);
    return status;
}

static bft_status sessions_write(struct txn *t)
{
    for (uint32_t i = 0; i < t->touched.count; i++) {
        const struct bfti_touched *touched = &t->touched.at[i];

        if (touched->key.kind == TOUCHED_SESSION && touched->dirty) {
            bft_status status = session_write(t, touched);

            if (status != BFT_OK)
                return status;
        }
    }
    return BFT_OK;
}

/* --- a signature for a session that no op named ---------------------------------------- */

/* Make the record KEY, VALUE an entry to be written with the note that the
 * session has signatures. */
static bft_status session_adopt(struct txn *t, uint64_t covalue, bft_slice id,
                                const struct bfti_session *session)
{
    struct bfti_touched_key key = {TOUCHED_SESSION, covalue, 0, id};
    size_t len = id.len + session->signature.len;
    struct bfti_touched *touched;
    uint8_t *owned;
    uint32_t at;
    bft_status status;

    owned = bfti_alloc(t->store->env, len + 1);
    if (owned == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "covalue store: no memory for %zu bytes", len);
    memcpy(owned, id.data, id.len);
    memcpy(owned + id.len, session->signature.data, session->signature.len);
    key.id.data = owned;
    status = bfti_touched_add(&t->touched, &key, &at);
    if (status != BFT_OK) {
        bfti_free(t->store->env, owned);
        return status;
    }
    touched = &t->touched.at[at];
    touched->owned = owned;
    touched->session = *session;
    touched->session.signature.data = owned + id.len;
    touched->session.has_signatures = true;
    touched->dirty = true;
    return BFT_OK;
}

static bft_status session_search(struct txn *t, bft_cursor *cursor,
                                 uint64_t covalue, uint64_t row)
{
    struct bfti_cokey bytes;
    bft_slice prefix = bfti_cokey_sessions(&bytes, covalue);
    bft_status status = bft_cursor_prefix(cursor, prefix);

    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    for (; status == BFT_OK; status = bft_cursor_next(cursor)) {
        struct bfti_session session;
        bft_slice key, value;

        status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bft_cursor_value(cursor, &value);
        if (status != BFT_OK)
            return status;
        if (!bfti_session_decode(value, &session))
            return bfti_fail(BFT_CORRUPT, "covalue store: a session row");
        if (session.row != row)
            continue;
        key = (bft_slice){(const uint8_t *)key.data + prefix.len,
                          key.len - prefix.len};
        return session.has_signatures
                   ? BFT_OK
                   : session_adopt(t, covalue, key, &session);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

/* Session row ROW gets a signature: its record says so. */
static bft_status session_sign(struct txn *t, uint64_t row)
{
    struct bfti_touched *touched;
    bft_cursor *cursor;
    uint64_t covalue;
    uint32_t at;
    bool kept;
    bft_status status = row_touch(t, row, &at);

    if (status != BFT_OK)
        return status;
    touched = &t->touched.at[at];
    if (touched->session_at != TOUCHED_NONE)
        t->touched.at[touched->session_at].session.has_signatures = true;
    if (touched->session_at != TOUCHED_NONE || touched->is_signed)
        return BFT_OK;
    touched->is_signed = true;
    status = bfti_covalue_of_session(t->store, row, &covalue, &kept);
    if (status != BFT_OK)
        return status == BFT_NOT_FOUND ? BFT_OK : status;
    status = bfti_covalue_cursor_get(t->store, SESSIONS, &cursor);
    if (status != BFT_OK)
        return status;
    status = session_search(t, cursor, covalue, row);
    bfti_covalue_cursor_put(t->store, SESSIONS, cursor);
    return status;
}

/* --- transactions and signatures --------------------------------------------------------- */

/* Session row ROW gets a transaction or signature, if all goes well. */
static void content_note(struct txn *t, uint64_t row)
{
    struct bfti_covalue_shared *shared = t->store->shared;

    if (row > shared->content_last)
        shared->content_last = row;
}

/* Is there a transaction IDX in the tree?  Mostly it is known that there is none;
 * else a cursor tells the next one there is. */
static bft_status transaction_in_tree(struct txn *t, struct bfti_touched *row,
                                      uint64_t idx, bool *there)
{
    struct bfti_ends *ends = &t->store->shared->ends;
    bft_status status;

    *there = false;
    if (row->key.row > t->content_last) {
        if (row->added_end == 0)
            bfti_ends_know(ends, row->key.row, 0);
        return BFT_OK;
    }
    if (bfti_ends_before(ends, row->key.row, idx))
        return BFT_OK;
    if (!row->probed || idx < row->probed_from || idx > row->probed_next) {
        status = bfti_covalue_next_idx(t->store, TRANSACTIONS, row->key.row,
                                       idx, &row->probed_next);
        if (status != BFT_OK)
            return status;
        row->probed = true;
        row->probed_from = idx;
    }
    *there = idx == row->probed_next;
    if (row->probed_next == BFT_COVALUE_NONE && row->added_end == 0)
        bfti_ends_know(ends, row->key.row, idx);
    return BFT_OK;
}

/* Note that IDX was added; *THERE: it had been before. */
static bft_status transaction_note(struct txn *t, uint32_t row_at, uint64_t idx,
                                   bool *there)
{
    struct bfti_touched *row = &t->touched.at[row_at];
    struct bfti_touched_key key = {
        .kind = TOUCHED_TRANSACTION, .row = row->key.row, .idx = idx};
    uint32_t at;

    *there = (idx >= row->added_from && idx < row->added_end) ||
             bfti_touched_find(&t->touched, &key) != TOUCHED_NONE;
    if (*there)
        return BFT_OK;
    if (row->added_end == 0) {
        row->added_from = idx;
        row->added_end = idx;
    }
    if (idx == row->added_end) {
        row->added_end++;
        return BFT_OK;
    }
    return bfti_touched_add(&t->touched, &key, &at);
}

static bft_status exists(const char *what, uint64_t session, uint64_t idx)
{
    return bfti_fail(BFT_EXISTS, "covalue store: session row %llu has %s %llu",
                     (unsigned long long)session, what,
                     (unsigned long long)idx);
}

static bft_status do_transaction(struct txn *t, const bft_covalue_op *op)
{
    uint64_t session =
        (op->flags & BFT_OP_LATEST) != 0 ? t->latest_session : op->row;
    struct bfti_cokey key;
    bool in_tree = false;
    bool added;
    uint32_t at;
    bft_status status = row_touch(t, session, &at);

    if (status == BFT_OK && (op->flags & BFT_OP_OVERWRITE) == 0)
        status = transaction_in_tree(t, &t->touched.at[at], op->idx, &in_tree);
    if (status == BFT_OK)
        status = transaction_note(t, at, op->idx, &added);
    if (status != BFT_OK)
        return status;
    if ((op->flags & BFT_OP_OVERWRITE) == 0 && (in_tree || added))
        return exists("transaction", session, op->idx);
    content_note(t, session);
    bfti_ends_raise(&t->store->shared->ends, session, op->idx);
    return bfti_covalue_put(t->store, TRANSACTIONS,
                            bfti_cokey_content(&key, session, op->idx),
                            op->value);
}

static bft_status do_signature(struct txn *t, const bft_covalue_op *op)
{
    uint64_t session =
        (op->flags & BFT_OP_LATEST) != 0 ? t->latest_session : op->row;
    struct bfti_touched_key touched = {
        .kind = TOUCHED_SIGNATURE, .row = session, .idx = op->idx};
    struct bfti_cokey bytes;
    bft_slice key = bfti_cokey_content(&bytes, session, op->idx);
    bool there = true;
    uint32_t at = bfti_touched_find(&t->touched, &touched);
    bft_status status = BFT_OK;

    if (at == TOUCHED_NONE) {
        status = bfti_covalue_exists(t->store, SIGNATURES, key);
        there = status != BFT_NOT_FOUND;
        if (status == BFT_OK || status == BFT_NOT_FOUND)
            status = bfti_touched_add(&t->touched, &touched, &at);
    }
    if (status == BFT_OK && there && (op->flags & BFT_OP_OVERWRITE) == 0)
        status = exists("signature", session, op->idx);
    if (status == BFT_OK)
        status = session_sign(t, session);
    content_note(t, session);
    if (status == BFT_OK)
        status = bfti_covalue_put(t->store, SIGNATURES, key, op->value);
    return status;
}

/* --- the small trees ------------------------------------------------------------------------ */

static bft_status do_deleted(struct txn *t, const bft_covalue_op *op)
{
    bft_slice none = {NULL, 0};
    struct bfti_cokey key;
    bft_status status = bfti_covalue_exists(
        t->store, DELETIONS, bfti_cokey_id(&key, DELETIONS_DONE, op->id));

    if (status == BFT_OK && bfti_covalue_fault_on(BFTI_COVALUE_FAULT_REQUEUE))
        status = BFT_NOT_FOUND;
    if (status != BFT_NOT_FOUND)
        return status;
    return bfti_covalue_put(t->store, DELETIONS,
                            bfti_cokey_id(&key, DELETIONS_WAITING, op->id),
                            none);
}

static bft_status do_peer(struct txn *t, const bft_covalue_op *op)
{
    bft_slice none = {NULL, 0};
    struct bfti_cokey bytes;
    bft_slice key = bfti_cokey_peer(&bytes, op->id, op->value);

    if (key.len == 0)
        return bfti_fail(BFT_TOO_BIG,
                         "covalue store: ids of %zu and %zu bytes in one key",
                         op->id.len, op->value.len);
    return op->kind == BFT_OP_UNSYNCED
               ? bfti_covalue_put(t->store, UNSYNCED, key, none)
               : bfti_covalue_remove(t->store, UNSYNCED, key);
}

/* Remove the peers of OP's id that are in the tree, and those that FIRST and
 * what follows it, up to OP, added. */
static bft_status do_untrack(struct txn *t, const bft_covalue_op *first,
                             const bft_covalue_op *op)
{
    struct bfti_cokey bytes;
    bft_slice prefix = bfti_cokey_peers(&bytes, op->id);
    bft_cursor *cursor;
    bft_status status;

    for (; first != op; first++)
        if (first->kind == BFT_OP_UNSYNCED &&
            bfti_slice_equal(first->id, op->id)) {
            struct bfti_cokey key;

            status = bfti_covalue_remove(
                t->store, UNSYNCED,
                bfti_cokey_peer(&key, first->id, first->value));
            if (status != BFT_OK)
                return status;
        }
    /* An id that is too long for a key has no peers. */
    if (prefix.len == 0)
        return BFT_OK;
    status = bfti_covalue_cursor_get(t->store, UNSYNCED, &cursor);
    if (status != BFT_OK)
        return status;
    status = bft_cursor_prefix(cursor, prefix);
    if (status == BFT_OK)
        status = bfti_covalue_remove_all(t->store, UNSYNCED, cursor);
    bfti_covalue_cursor_put(t->store, UNSYNCED, cursor);
    return status;
}

static bft_status do_lock(struct txn *t, const bft_covalue_op *op)
{
    const bft_covalue_lock lock = {.acquired = (int64_t)op->row,
                                   .released = (int64_t)op->bytes,
                                   .offset = op->idx};

    return bfti_covalue_lock_write(t->store, op->id, &lock, op->value);
}

/* --- the whole --------------------------------------------------------------------------------- */

static bft_status do_op(struct txn *t, bft_covalue_op *first,
                        bft_covalue_op *op)
{
    switch (op->kind) {
    case BFT_OP_COVALUE:
        return do_covalue(t, op);
    case BFT_OP_SESSION:
        return do_session(t, op);
    case BFT_OP_TRANSACTION:
        return do_transaction(t, op);
    case BFT_OP_SIGNATURE:
        return do_signature(t, op);
    case BFT_OP_DELETED:
        return do_deleted(t, op);
    case BFT_OP_UNSYNCED:
    case BFT_OP_SYNCED:
        return do_peer(t, op);
    case BFT_OP_UNTRACK:
        return do_untrack(t, first, op);
    case BFT_OP_LOCK:
        return do_lock(t, op);
    }
    return bfti_fail(BFT_INVALID, "covalue store: op kind %d", (int)op->kind);
}

/* Is VALUE there, and may a record hold it with all that comes before it? */
static bft_status value_check(bft_slice value)
{
    if (value.len > BFT_VALUE_MAX - BFTI_SESSION_HEAD_MAX)
        return bfti_fail(BFT_TOO_BIG, "covalue store: a value of %zu bytes",
                         value.len);
    return bfti_covalue_check_slice(value, "a value");
}

/* Is OP well-formed, given which rows LATEST may mean? */
static bft_status op_check(const bft_covalue_op *op, bool after_covalue,
                           bool after_session)
{
    bool latest = (op->flags & BFT_OP_LATEST) != 0;
    bft_status status = bfti_covalue_check_id(op->id, "an id");

    if (status != BFT_OK)
        return status;
    if (op->kind < BFT_OP_COVALUE || op->kind > BFT_OP_LOCK)
        return bfti_fail(BFT_INVALID, "covalue store: op kind %d",
                         (int)op->kind);
    status = value_check(op->value);
    if (status != BFT_OK)
        return status;
    if ((op->kind == BFT_OP_TRANSACTION || op->kind == BFT_OP_SIGNATURE) &&
        op->idx == BFT_COVALUE_NONE)
        return bfti_fail(BFT_INVALID, "covalue store: an index of none");
    if (latest && op->kind == BFT_OP_SESSION && !after_covalue)
        return bfti_fail(BFT_INVALID,
                         "covalue store: no CoValue op before the session's");
    if (latest && !after_session &&
        (op->kind == BFT_OP_TRANSACTION || op->kind == BFT_OP_SIGNATURE))
        return bfti_fail(BFT_INVALID,
                         "covalue store: no session op before its content's");
    if (op->kind == BFT_OP_UNSYNCED || op->kind == BFT_OP_SYNCED ||
        op->kind == BFT_OP_LOCK)
        return bfti_covalue_check_id(op->value, "a peer or holder");
    return BFT_OK;
}

static bft_status ops_check(bft_covalue_op *ops, size_t count)
{
    bool after_covalue = false;
    bool after_session = false;

    for (size_t i = 0; i < count; i++) {
        bft_status status = op_check(&ops[i], after_covalue, after_session);

        ops[i].result = 0;
        if (status != BFT_OK)
            return status;
        after_covalue |= ops[i].kind == BFT_OP_COVALUE;
        after_session |= ops[i].kind == BFT_OP_SESSION;
    }
    return BFT_OK;
}

/* The CoValue that OP writes sessions or content of; 0: none that is stored. */
static bft_status op_covalue(bft_covalue_store *store, const bft_covalue_op *op,
                             uint64_t *latest, uint64_t *covalue)
{
    bft_status status = BFT_OK;
    bool kept;

    *covalue = 0;
    if (op->kind == BFT_OP_COVALUE)
        status = bfti_covalue_find(store, op->id, latest);
    else if (op->kind == BFT_OP_SESSION)
        *covalue = (op->flags & BFT_OP_LATEST) != 0 ? *latest : op->row;
    else if ((op->kind == BFT_OP_TRANSACTION || op->kind == BFT_OP_SIGNATURE) &&
             (op->flags & BFT_OP_LATEST) == 0)
        status = bfti_covalue_of_session(store, op->row, covalue, &kept);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

/* Finish the erasures of what OPS write to: what they add belongs to the time
 * after. */
static bft_status erasures_finish(bft_covalue_store *store,
                                  const bft_covalue_op *ops, size_t count)
{
    uint64_t latest = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t covalue;
        bft_status status;

        if (atomic_load(&store->shared->hidden_count) == 0)
            return BFT_OK;
        status = op_covalue(store, &ops[i], &latest, &covalue);
        if (status == BFT_OK && bfti_covalue_hidden(store->shared, covalue))
            status = bfti_covalue_erase_finish(store, covalue);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* Which slots' readers the commit may disturb, a bit each. */
static uint64_t commit_slots(const struct txn *t)
{
    uint64_t slots = 0;

    for (uint32_t i = 0; i < t->touched.count; i++) {
        const struct bfti_touched *touched = &t->touched.at[i];
        uint64_t row = touched->key.row;

        if (touched->key.kind == TOUCHED_SESSION && touched->dirty)
            slots |= UINT64_C(1) << bfti_commit_slot_covalue(row);
        if (touched->key.kind != TOUCHED_ROW)
            continue;
        /* Whose session it is nobody asked: it may be anybody's. */
        if (touched->session_at == TOUCHED_NONE)
            return UINT64_MAX;
        slots |= UINT64_C(1) << bfti_commit_slot_session(row);
    }
    return slots;
}

/* A commit to SLOTS begins or has ended. */
static void commits_count(struct bfti_covalue_shared *shared, uint64_t slots)
{
    for (unsigned i = 0; slots != 0; i++, slots >>= 1)
        if ((slots & 1) != 0)
            atomic_fetch_add(&shared->commits[i], 1);
}

static bft_status txn_accept(struct txn *t, bft_durability durability,
                             bool *accepted)
{
    uint64_t slots = commit_slots(t);
    bft_status status;

    /* [commit]: before anybody can see it, and when all can. */
    commits_count(t->store->shared, slots);
    status = bfti_covalue_accept(t->store, durability, accepted);
    commits_count(t->store->shared, slots);
    return status;
}

static bft_status txn_run(struct txn *t, bft_covalue_op *ops, size_t count,
                          bft_durability durability, bool *accepted)
{
    struct bfti_covalue_shared *shared = t->store->shared;
    bft_status status = erasures_finish(t->store, ops, count);

    *accepted = false;
    t->covalue_count = atomic_load(&shared->covalue_count);
    t->next_session = shared->next_session;
    t->content_last = shared->content_last;
    for (size_t i = 0; i < count && status == BFT_OK; i++)
        status = do_op(t, ops, &ops[i]);
    if (status == BFT_OK)
        status = sessions_write(t);
    if (status == BFT_OK)
        status = txn_accept(t, durability, accepted);
    /* Only now: a transaction that failed gives its row ids to the next. */
    if (status == BFT_OK || *accepted) {
        shared->next_session = t->next_session;
        atomic_store(&shared->covalue_count, t->covalue_count);
    }
    return status;
}

bft_status bft_covalue_apply(bft_covalue_store *store, bft_covalue_op *ops,
                             size_t count, bft_durability durability,
                             bft_covalue_applied *applied)
{
    bft_covalue_applied done = {0, 0, 0};
    struct txn t;
    bool accepted;
    bft_status status;

    if (applied != NULL)
        *applied = done;
    status = bfti_covalue_gate(store);
    if (status == BFT_OK && ops == NULL && count != 0)
        status = bfti_fail(BFT_INVALID, "covalue store: the ops are NULL");
    if (status == BFT_OK)
        status = ops_check(ops, count);
    if (status == BFT_OK && (unsigned)durability > BFT_SYNC)
        status = bfti_fail(BFT_INVALID, "covalue store: durability %d",
                           (int)durability);
    if (status != BFT_OK)
        return status;
    t.store = store;
    t.latest_covalue = 0;
    t.latest_session = 0;
    bfti_touched_init(&t.touched, store->env);
    bfti_covalue_begin(store);
    status = txn_run(&t, ops, count, durability, &accepted);
    bfti_covalue_end(store, &done);
    bfti_touched_free(&t.touched);
    if (status != BFT_OK && !accepted) {
        for (size_t i = 0; i < count; i++)
            ops[i].result = 0;
        return status;
    }
    if (applied != NULL)
        *applied = done;
    if (status != BFT_OK)
        return status;
    return bfti_covalue_settle(store, durability, done.lsn);
}
