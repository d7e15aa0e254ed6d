/*
 * Walking all rows of the covalue store: the invariants of README 5, and counts.
 */
#include <string.h>

#include "storage/covalue_internal.h"

struct check {
    bft_covalue_store *store;
    bft_covalue_census *census;
    uint64_t session_rows; /* records that lead from a row to its CoValue */
    uint64_t last_session; /* whose content was looked at last ... */
    bool last_is_orphan;   /* ... and whether it has a session */
    bool last_known;
    uint64_t last_row; /* of the CoValues, by row */
};

typedef bft_status (*visit)(struct check *c, bft_slice key, bft_slice value);

static bft_status walk(struct check *c, enum bfti_cotree tree, visit each)
{
    bft_cursor *cursor;
    bft_status status = bft_cursor_open_newest(c->store->tree[tree], &cursor);

    if (status != BFT_OK)
        return status;
    status = bft_cursor_first(cursor);
    while (status == BFT_OK) {
        bft_slice key, value;

        status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bft_cursor_value(cursor, &value);
        if (status == BFT_OK)
            status = each(c, key, value);
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
        else
            break;
    }
    bft_cursor_close(cursor);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status breach(const char *what, uint64_t row)
{
    return bfti_fail(BFT_CORRUPT, "covalue store: row %llu: %s",
                     (unsigned long long)row, what);
}

/* A lookup that must succeed: NOT_FOUND is a breach. */
static bft_status must(bft_status status, const char *what, uint64_t row)
{
    return status == BFT_NOT_FOUND || status == BFT_TOO_SMALL
               ? breach(what, row)
               : status;
}

static bft_slice behind_tag(bft_slice key)
{
    return (bft_slice){(const uint8_t *)key.data + 1, key.len - 1};
}

static uint8_t tag_of(bft_slice key)
{
    return *(const uint8_t *)key.data;
}

/* --- CoValues ---------------------------------------------------------------------- */

static bft_status covalue_by_id(struct check *c, bft_slice id, bft_slice value)
{
    struct bfti_cokey key;
    uint8_t bytes[BFT_COVALUE_ID_MAX];
    bft_slice found = {bytes, 0};
    uint64_t row;
    bft_status status =
        bfti_covalue_number(value, "a CoValue's row id", &row, &value);

    if (status != BFT_OK)
        return status;
    status = must(bft_get(c->store->tree[COVALUES],
                          bfti_cokey_row(&key, COVALUES_ROW, row), bytes,
                          sizeof(bytes), &found.len),
                  "a CoValue is not listed by its row", row);
    if (status == BFT_OK && !bfti_slice_equal(found, id))
        status = breach("the CoValue's id is another's", row);
    c->census->covalues++;
    return status;
}

static bft_status covalue_by_row(struct check *c, bft_slice number,
                                 bft_slice id)
{
    uint64_t row, found;
    bft_status status = bfti_covalue_number(number, "a row id", &row, NULL);

    if (status != BFT_OK)
        return status;
    if (row != c->last_row + 1)
        return breach("the CoValue row before it is missing", row);
    c->last_row = row;
    status = must(bfti_covalue_find(c->store, id, &found),
                  "the CoValue is missing", row);
    if (status == BFT_OK && found != row)
        status = breach("the CoValue has another row", row);
    return status;
}

static bft_status check_covalue(struct check *c, bft_slice key, bft_slice value)
{
    switch (tag_of(key)) {
    case COVALUES_FORMAT:
        return BFT_OK;
    case COVALUES_ID:
        return covalue_by_id(c, behind_tag(key), value);
    case COVALUES_ROW:
        return covalue_by_row(c, behind_tag(key), value);
    default:
        return breach("a record of unknown kind among the CoValues", 0);
    }
}

/* --- sessions ------------------------------------------------------------------------ */

static bft_status session_by_id(struct check *c, bft_slice key, bft_slice value)
{
    struct bfti_session session;
    uint64_t covalue, listed, first;
    bool kept;
    bft_status status =
        bfti_covalue_number(key, "a session key", &covalue, &key);

    if (status != BFT_OK)
        return status;
    if (!bfti_session_decode(value, &session))
        return breach("a session of this CoValue", covalue);
    c->census->sessions++;
    if (session.row == 0 || session.row >= c->store->shared->next_session)
        return breach("a session row that was never given", session.row);
    status =
        bfti_covalue_next_idx(c->store, SIGNATURES, session.row, 0, &first);
    if (status != BFT_OK)
        return status;
    if (bfti_covalue_hidden(c->store->shared, covalue))
        return BFT_OK;
    if (session.has_signatures != (first != BFT_COVALUE_NONE))
        return breach("the session is wrong about having signatures",
                      session.row);
    status =
        must(bfti_covalue_of_session(c->store, session.row, &listed, &kept),
             "the session is not listed by its row", session.row);
    if (status == BFT_OK &&
        (listed != covalue || kept != bfti_session_kept(key)))
        status = breach("the session is listed as another's", session.row);
    return status;
}

static bft_status check_session(struct check *c, bft_slice key, bft_slice value)
{
    switch (tag_of(key)) {
    case SESSIONS_NEXT:
        return BFT_OK;
    case SESSIONS_OF:
        return session_by_id(c, behind_tag(key), value);
    case SESSIONS_ROW:
        c->session_rows++;
        return BFT_OK;
    default:
        return breach("a record of unknown kind among the sessions", 0);
    }
}

/* --- content -------------------------------------------------------------------------- */

static bft_status content_session(struct check *c, bft_slice key, bool *orphan)
{
    uint64_t session, idx, covalue;
    bool kept;
    bft_status status =
        bfti_covalue_number(key, "a content key", &session, &key);

    if (status == BFT_OK)
        status = bfti_covalue_number(key, "a content key", &idx, NULL);
    if (status != BFT_OK)
        return status;
    if (!c->last_known || c->last_session != session) {
        status = bfti_covalue_of_session(c->store, session, &covalue, &kept);
        if (status != BFT_OK && status != BFT_NOT_FOUND)
            return status;
        c->last_known = true;
        c->last_session = session;
        c->last_is_orphan = status == BFT_NOT_FOUND;
    }
    *orphan = c->last_is_orphan;
    return BFT_OK;
}

static bft_status check_transaction(struct check *c, bft_slice key,
                                    bft_slice value)
{
    bool orphan = false;
    bft_status status = content_session(c, key, &orphan);

    (void)value;
    c->census->transactions++;
    c->census->orphan_transactions += orphan;
    return status;
}

static bft_status check_signature(struct check *c, bft_slice key,
                                  bft_slice value)
{
    bool orphan = false;
    bft_status status = content_session(c, key, &orphan);

    (void)value;
    c->census->signatures++;
    c->census->orphan_signatures += orphan;
    return status;
}

/* --- the small trees --------------------------------------------------------------------- */

static bft_status check_unsynced(struct check *c, bft_slice key,
                                 bft_slice value)
{
    uint8_t id[BFT_KEY_MAX];
    size_t len;

    (void)value;
    c->census->unsynced++;
    if (bfti_key_get_text(key.data, key.len, id, &len) == 0)
        return breach("an unsynced key", c->census->unsynced);
    return BFT_OK;
}

static bft_status check_deletion(struct check *c, bft_slice key,
                                 bft_slice value)
{
    struct bfti_cokey done;
    bft_status status;

    (void)value;
    switch (tag_of(key)) {
    case DELETIONS_ERASING:
        c->census->erasures_unfinished++;
        return BFT_OK;
    case DELETIONS_WAITING:
        if (key.len > 1 + BFT_COVALUE_ID_MAX)
            return breach("an overlong id is queued", key.len);
        c->census->deletions_waiting++;
        status = bfti_covalue_exists(
            c->store, DELETIONS,
            bfti_cokey_id(&done, DELETIONS_DONE, behind_tag(key)));
        if (status == BFT_OK)
            return breach("a finished deletion is queued",
                          c->census->deletions_waiting);
        return status == BFT_NOT_FOUND ? BFT_OK : status;
    case DELETIONS_DONE:
        c->census->deletions_done++;
        return BFT_OK;
    default:
        return breach("a record of unknown kind among the deletions", 0);
    }
}

static bft_status check_lock(struct check *c, bft_slice key, bft_slice value)
{
    bft_covalue_lock lock;

    (void)value;
    c->census->locks++;
    return bft_covalue_lock_get(c->store, behind_tag(key), &lock);
}

/* --- the whole ------------------------------------------------------------------------------ */

bft_status bft_covalue_check(bft_covalue_store *store,
                             bft_covalue_census *census)
{
    static const visit visits[COTREES] = {
        [COVALUES] = check_covalue,
        [SESSIONS] = check_session,
        [TRANSACTIONS] = check_transaction,
        [SIGNATURES] = check_signature,
        [UNSYNCED] = check_unsynced,
        [DELETIONS] = check_deletion,
        [LOCKS] = check_lock,
    };
    struct check c = {.store = store, .census = census};
    bft_status gate = bfti_covalue_gate(store);

    if (gate != BFT_OK)
        return gate;
    if (census == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    if (census->size < sizeof(*census))
        return bfti_fail(BFT_INVALID,
                         "covalue store: the size of a census is %zu, not %zu",
                         census->size, sizeof(*census));
    *census = (bft_covalue_census){.size = sizeof(*census)};
    for (int i = 0; i < COTREES; i++) {
        bft_status status = walk(&c, (enum bfti_cotree)i, visits[i]);

        if (status != BFT_OK)
            return status;
        c.last_known = false;
    }
    if (c.last_row != census->covalues ||
        c.last_row != bft_covalue_count(store))
        return breach("the count of CoValues is another", c.last_row);
    if (c.session_rows != census->sessions && census->erasures_unfinished == 0)
        return breach("more or fewer sessions are listed by row",
                      c.session_rows);
    return BFT_OK;
}
