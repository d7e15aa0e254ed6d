/*
 * The covalue store: opening, what its handles share, the turn that writers
 * take, and the lookups of single records that its other files stand on.
 */
#include <assert.h>
#include <string.h>

#include "storage/covalue_fault.h"
#include "storage/covalue_internal.h"

#ifdef BFT_FAULTS
_Atomic unsigned bfti_covalue_fault_mask;
#endif

static const char *const tree_names[COTREES] = {
    [COVALUES] = "covalues",
    [SESSIONS] = "sessions",
    [TRANSACTIONS] = "transactions",
    [SIGNATURES] = "signatures",
    [UNSYNCED] = "unsynced",
    [DELETIONS] = "deletions",
    [LOCKS] = "locks",
};

/* --- what all handles share ------------------------------------------------------ */

/* Write the format into a new store, or check that it is ours. */
static bft_status format_check(bft_tree *covalues)
{
    struct bfti_cokey key;
    uint8_t bytes[BFTI_KEY_NUMBER_MAX];
    bft_slice value = {bytes, bfti_key_put_number(bytes, BFTI_COVALUE_FORMAT)};
    uint64_t format;
    bft_status status;
    size_t len;

    status = bft_get(covalues, bfti_cokey_tag(&key, COVALUES_FORMAT), bytes,
                     sizeof(bytes), &len);
    if (status == BFT_NOT_FOUND)
        return bft_put(covalues, bfti_cokey_tag(&key, COVALUES_FORMAT), value);
    if (status != BFT_OK)
        return status;
    status = bfti_covalue_number((bft_slice){bytes, len}, "the format", &format,
                                 NULL);
    if (status == BFT_OK && format > BFTI_COVALUE_FORMAT)
        return bfti_fail(BFT_TOO_NEW,
                         "covalue store: format %llu, this library reads %d",
                         (unsigned long long)format, BFTI_COVALUE_FORMAT);
    return status;
}

/* The number behind PREFIX in the last of TREE's keys that start with it; 0:
 * there is none. */
static bft_status highest_row(bft_tree *tree, bft_slice prefix, uint64_t *row)
{
    bft_cursor *cursor;
    bft_slice found, rest;
    bft_status status = bft_cursor_open_newest(tree, &cursor);

    *row = 0;
    if (status != BFT_OK)
        return status;
    status = bft_cursor_prefix(cursor, prefix);
    if (status == BFT_OK)
        status = bft_cursor_last(cursor);
    if (status == BFT_OK)
        status = bft_cursor_key(cursor, &found);
    if (status == BFT_OK)
        status = bfti_covalue_number(
            (bft_slice){(const uint8_t *)found.data + prefix.len,
                        found.len - prefix.len},
            "a row id", row, &rest);
    else if (status == BFT_NOT_FOUND)
        status = BFT_OK;
    bft_cursor_close(cursor);
    return status;
}

/* The least session row id that was never given.  The highest one there is may
 * have been erased: erasures write down how far it had got. */
static bft_status next_session_load(bft_tree *sessions, uint64_t *next)
{
    struct bfti_cokey key;
    uint8_t bytes[BFTI_KEY_NUMBER_MAX];
    uint64_t noted;
    size_t len;
    bft_status status =
        highest_row(sessions, bfti_cokey_tag(&key, SESSIONS_ROW), next);

    if (status != BFT_OK)
        return status;
    ++*next;
    status = bft_get(sessions, bfti_cokey_tag(&key, SESSIONS_NEXT), bytes,
                     sizeof(bytes), &len);
    if (status == BFT_NOT_FOUND)
        return BFT_OK;
    if (status == BFT_OK)
        status = bfti_covalue_number((bft_slice){bytes, len},
                                     "the next session row", &noted, NULL);
    if (status == BFT_OK && noted > *next)
        *next = noted;
    return status;
}

/* The highest CoValue row of any session. */
static bft_status sessions_last_load(bft_tree *sessions, uint64_t *last)
{
    struct bfti_cokey key;

    return highest_row(sessions, bfti_cokey_tag(&key, SESSIONS_OF), last);
}

/* The highest session row of any transaction or signature. */
static bft_status content_last_load(bft_tree *const *tree, uint64_t *last)
{
    bft_slice all = {NULL, 0};
    uint64_t transactions, signatures;
    bft_status status = highest_row(tree[TRANSACTIONS], all, &transactions);

    if (status == BFT_OK)
        status = highest_row(tree[SIGNATURES], all, &signatures);
    if (status == BFT_OK)
        *last = transactions > signatures ? transactions : signatures;
    return status;
}

static bft_status shared_load(struct bfti_covalue_shared *shared, bft_db *db)
{
    bft_tree *tree[COTREES];
    struct bfti_cokey key;
    uint64_t count;
    bft_status status = BFT_OK;

    for (int i = 0; i < COTREES && status == BFT_OK; i++)
        status = bft_tree_open(db, tree_names[i], NULL, &tree[i]);
    if (status == BFT_OK)
        status = format_check(tree[COVALUES]);
    if (status == BFT_OK)
        status = highest_row(tree[COVALUES], bfti_cokey_tag(&key, COVALUES_ROW),
                             &count);
    if (status == BFT_OK)
        status = next_session_load(tree[SESSIONS], &shared->next_session);
    if (status == BFT_OK)
        status = sessions_last_load(tree[SESSIONS], &shared->sessions_last);
    if (status == BFT_OK)
        status = content_last_load(tree, &shared->content_last);
    if (status == BFT_OK)
        status = bfti_covalue_marks_load(shared, tree[DELETIONS]);
    if (status == BFT_OK)
        atomic_init(&shared->covalue_count, count);
    return status;
}

static void shared_destroy(void *object)
{
    struct bfti_covalue_shared *shared = object;

    bfti_free(shared->env, shared->hidden);
    bfti_free(shared->env, shared);
}

static bft_status shared_create(void *ctx, bft_db *db, void **object)
{
    const struct bfti_env *env = bfti_env_system();
    struct bfti_covalue_shared *shared = bfti_alloc(env, sizeof(*shared));
    bft_status status;

    (void)ctx;
    *object = NULL;
    if (shared == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "covalue store: no memory for %zu bytes",
                         sizeof(*shared));
    memset(shared, 0, sizeof(*shared));
    shared->env = env;
    status = shared_load(shared, db);
    if (status != BFT_OK) {
        shared_destroy(shared);
        return status;
    }
    *object = shared;
    return BFT_OK;
}

/* --- opening ------------------------------------------------------------------------- */

static bft_status store_init(bft_covalue_store *store,
                             const bft_covalue_options *options)
{
    void *shared;
    bft_status status;

    store->durability = BFT_BUFFERED;
    if (options != NULL && options->durability != BFT_DEFAULT)
        store->durability = options->durability;
    for (int i = 0; i < COTREES; i++) {
        status = bft_tree_open(store->db, tree_names[i], NULL, &store->tree[i]);
        if (status != BFT_OK)
            return status;
    }
    status = bft_batch_create(store->db, &store->batch);
    if (status != BFT_OK)
        return status;
    status = bft_db_shared(store->db, "covalue store", shared_create,
                           shared_destroy, NULL, &shared);
    store->shared = shared;
    return status;
}

bft_status bft_covalue_open(bft_db *db, const bft_covalue_options *options,
                            bft_covalue_store **store_out)
{
    const struct bfti_env *env = bfti_env_system();
    bft_covalue_store *store;
    bft_status status;

    if (store_out == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    *store_out = NULL;
    if (options != NULL && options->size < sizeof(*options))
        return bfti_fail(BFT_INVALID,
                         "covalue store: option size is %zu, not %zu",
                         options->size, sizeof(*options));
    if (options != NULL && (unsigned)options->durability > BFT_SYNC)
        return bfti_fail(BFT_INVALID, "covalue store: option durability is %d",
                         (int)options->durability);
    if (bft_wait_durable(db, 0) == BFT_UNSUPPORTED)
        return bfti_fail(BFT_INVALID, "covalue store: a cache-only database "
                                      "forgets rows one by one");
    store = bfti_alloc(env, sizeof(*store));
    if (store == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "covalue store: no memory for %zu bytes",
                         sizeof(*store));
    memset(store, 0, sizeof(*store));
    store->magic = BFTI_MAGIC_COVALUE;
    store->db = db;
    store->env = env;
    status = store_init(store, options);
    if (status != BFT_OK) {
        bft_covalue_close(store);
        return status;
    }
    bfti_covalue_erase_resume(store);
    *store_out = store;
    return BFT_OK;
}

/* Keep a closed handle for a while, so that using one gives an error and not a
 * crash; free the one closed longest ago. */
static void keep_closed(bft_covalue_store *store)
{
    enum { KEPT = 16 };
    static struct bfti_mutex lock;
    static bft_covalue_store *kept[KEPT];
    static unsigned oldest;
    bft_covalue_store *former;

    bfti_mutex_lock(store->env, &lock);
    former = kept[oldest];
    kept[oldest] = store;
    oldest = (oldest + 1) % KEPT;
    bfti_mutex_unlock(store->env, &lock);
    if (former != NULL)
        bfti_free(former->env, former);
}

void bft_covalue_close(bft_covalue_store *store)
{
    if (store == NULL || store->magic != BFTI_MAGIC_COVALUE)
        return;
    store->magic = 0;
    for (int i = 0; i < COTREES; i++)
        bft_cursor_close(atomic_load(&store->idle[i]));
    bft_batch_free(store->batch);
    keep_closed(store);
}

bft_status bfti_covalue_gate(bft_covalue_store *store)
{
    bft_status status;

    if (store == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: the handle is NULL");
    if (store->magic != BFTI_MAGIC_COVALUE)
        return bfti_fail(BFT_INVALID, "covalue store: the handle is closed");
    /* Waits for nothing, and says whether the database is closed, or the parent's
     * of a forked child: what all handles share is gone then, or locked by nobody
     * who is here. */
    status = bft_wait_durable(store->db, 0);
    /* It is asked last whether it may be written: whose call writes is told. */
    return status == BFT_READ_ONLY ? BFT_OK : status;
}

/* --- the turn -------------------------------------------------------------------------- */

void bfti_covalue_begin(bft_covalue_store *store)
{
    struct bfti_covalue_shared *shared = store->shared;

    bfti_mutex_lock(store->env, &shared->write_lock);
    shared->turn_changes = atomic_load(&shared->changes);
    assert(bft_batch_count(store->batch) == 0);
}

/* Planted: the change goes alone. */
static bft_status fault_split(bft_covalue_store *store)
{
    bool accepted;

    if (!bfti_covalue_fault_on(BFTI_COVALUE_FAULT_ATOMICITY) ||
        bft_batch_count(store->batch) != 1)
        return BFT_OK;
    return bfti_covalue_accept(store, BFT_BUFFERED, &accepted);
}

bft_status bfti_covalue_put(bft_covalue_store *store, enum bfti_cotree tree,
                            bft_slice key, bft_slice value)
{
    bft_status status =
        bft_batch_put(store->batch, store->tree[tree], key, value);

    return status == BFT_OK ? fault_split(store) : status;
}

bft_status bfti_covalue_remove(bft_covalue_store *store, enum bfti_cotree tree,
                               bft_slice key)
{
    return bft_batch_delete(store->batch, store->tree[tree], key);
}

bft_status bfti_covalue_remove_all(bft_covalue_store *store,
                                   enum bfti_cotree tree, bft_cursor *cursor)
{
    bft_status status = bft_cursor_first(cursor);

    while (status == BFT_OK) {
        bft_slice key;

        status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bfti_covalue_remove(store, tree, key);
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

bft_status bfti_covalue_accept(bft_covalue_store *store,
                               bft_durability durability, bool *accepted)
{
    struct bfti_covalue_shared *shared = store->shared;
    uint64_t lsn;
    bft_status status;

    *accepted = false;
    if (bft_batch_count(store->batch) == 0)
        return BFT_OK;
    if (durability == BFT_DEFAULT)
        durability = store->durability;
    /* Accepted is enough within the turn: whoever asked for more waits for it
     * outside, so that those who come meanwhile share the sync. */
    if (durability == BFT_SYNC)
        durability = bfti_covalue_fault_on(BFTI_COVALUE_FAULT_DURABILITY)
                         ? BFT_NONE
                         : BFT_BUFFERED;
    status = bft_batch_commit(store->batch, durability, &lsn);
    /* The log takes it before the disk does: it may be there although the disk
     * refused, and then it has an LSN. */
    *accepted = lsn != 0;
    if (!*accepted)
        return status;
    shared->last_lsn = lsn;
    /* After the commit, before its caller hears of it: who reads, and then sees
     * the count it had before, read what is still so. */
    atomic_fetch_add(&shared->changes, 1);
    return status;
}

void bfti_covalue_end(bft_covalue_store *store, bft_covalue_applied *applied)
{
    struct bfti_covalue_shared *shared = store->shared;

    bft_batch_clear(store->batch);
    if (applied != NULL) {
        applied->lsn = shared->last_lsn;
        applied->changes = atomic_load(&shared->changes);
        applied->before = shared->turn_changes;
    }
    bfti_mutex_unlock(store->env, &shared->write_lock);
}

bft_status bfti_covalue_settle(bft_covalue_store *store,
                               bft_durability durability, uint64_t lsn)
{
    if (durability == BFT_DEFAULT)
        durability = store->durability;
    if (durability != BFT_SYNC || lsn == 0 ||
        bfti_covalue_fault_on(BFTI_COVALUE_FAULT_DURABILITY))
        return BFT_OK;
    return bft_wait_durable(store->db, lsn);
}

bft_status bfti_covalue_check_slice(bft_slice slice, const char *what)
{
    if (slice.data == NULL && slice.len != 0)
        return bfti_fail(BFT_INVALID, "covalue store: %s is NULL", what);
    return BFT_OK;
}

bft_status bfti_covalue_check_id(bft_slice id, const char *what)
{
    if (id.len > BFT_COVALUE_ID_MAX)
        return bfti_fail(BFT_TOO_BIG, "covalue store: %s of %zu bytes, over %u",
                         what, id.len, BFT_COVALUE_ID_MAX);
    return bfti_covalue_check_slice(id, what);
}

/* --- records one by one -------------------------------------------------------------- */

bft_status bfti_covalue_cursor_get(bft_covalue_store *store,
                                   enum bfti_cotree tree, bft_cursor **cursor)
{
    *cursor = atomic_exchange(&store->idle[tree], NULL);
    if (*cursor != NULL)
        return BFT_OK;
    return bft_cursor_open_newest(store->tree[tree], cursor);
}

void bfti_covalue_cursor_put(bft_covalue_store *store, enum bfti_cotree tree,
                             bft_cursor *cursor)
{
    bft_cursor *none = NULL;
    bft_slice all = {NULL, 0};

    if (cursor == NULL)
        return;
    /* Off its record: a spare cursor shall not keep a page from leaving. */
    if (bft_cursor_bounds(cursor, all, all) == BFT_OK &&
        atomic_compare_exchange_strong(&store->idle[tree], &none, cursor))
        return;
    bft_cursor_close(cursor);
}

bft_status bfti_covalue_exists(bft_covalue_store *store, enum bfti_cotree tree,
                               bft_slice key)
{
    uint8_t byte;
    size_t len;
    bft_status status = bft_get(store->tree[tree], key, &byte, 0, &len);

    return status == BFT_TOO_SMALL ? BFT_OK : status;
}

bft_status bfti_covalue_find(bft_covalue_store *store, bft_slice id,
                             uint64_t *row)
{
    struct bfti_cokey key;
    uint8_t head[BFTI_KEY_NUMBER_MAX];
    bft_slice rest;
    size_t len;
    bft_status status;

    *row = 0;
    if (id.len > BFT_COVALUE_ID_MAX)
        return BFT_NOT_FOUND;
    status = bft_get_range(store->tree[COVALUES],
                           bfti_cokey_id(&key, COVALUES_ID, id), 0, head,
                           sizeof(head), &len);
    if (status != BFT_OK)
        return status;
    return bfti_covalue_number((bft_slice){head, len}, "a CoValue's row id",
                               row, &rest);
}

bft_status bfti_covalue_of_session(bft_covalue_store *store, uint64_t session,
                                   uint64_t *covalue, bool *kept)
{
    struct bfti_cokey key;
    uint8_t bytes[BFTI_KEY_NUMBER_MAX + 1];
    bft_slice rest;
    size_t len;
    bft_status status;

    *covalue = 0;
    *kept = false;
    status = bft_get(store->tree[SESSIONS],
                     bfti_cokey_row(&key, SESSIONS_ROW, session), bytes,
                     sizeof(bytes), &len);
    if (status != BFT_OK)
        return status;
    status = bfti_covalue_number((bft_slice){bytes, len}, "a session's CoValue",
                                 covalue, &rest);
    if (status != BFT_OK)
        return status;
    if (rest.len != 1)
        return bfti_fail(BFT_CORRUPT, "covalue store: session row %llu",
                         (unsigned long long)session);
    *kept = *(const uint8_t *)rest.data != 0;
    return BFT_OK;
}

bft_status bfti_covalue_session_head(bft_covalue_store *store, uint64_t covalue,
                                     bft_slice id, struct bfti_session *session)
{
    struct bfti_cokey key;
    uint8_t head[BFTI_SESSION_HEAD_MAX];
    size_t len;
    bft_status status;

    memset(session, 0, sizeof(*session));
    status = bft_get_range(store->tree[SESSIONS],
                           bfti_cokey_session(&key, covalue, id), 0, head,
                           sizeof(head), &len);
    if (status != BFT_OK)
        return status;
    if (!bfti_session_decode((bft_slice){head, len}, session))
        return bfti_fail(BFT_CORRUPT,
                         "covalue store: a session of CoValue row %llu",
                         (unsigned long long)covalue);
    session->signature = (bft_slice){NULL, 0};
    return BFT_OK;
}

bft_status bfti_covalue_next_idx(bft_covalue_store *store,
                                 enum bfti_cotree tree, uint64_t session,
                                 uint64_t from, uint64_t *idx)
{
    struct bfti_cokey low;
    struct bfti_cokey high;
    bft_cursor *cursor;
    bft_slice found;
    uint64_t number;
    bft_status status = bfti_covalue_cursor_get(store, tree, &cursor);

    *idx = BFT_COVALUE_NONE;
    if (status != BFT_OK)
        return status;
    status = bft_cursor_bounds(cursor, bfti_cokey_content(&low, session, from),
                               bfti_cokey_above(&high, session, UINT64_MAX));
    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    if (status == BFT_OK)
        status = bft_cursor_key(cursor, &found);
    if (status == BFT_OK)
        status = bfti_covalue_number(found, "a content key", &number, &found);
    if (status == BFT_OK)
        status = bfti_covalue_number(found, "a content key", idx, NULL);
    else if (status == BFT_NOT_FOUND)
        status = BFT_OK;
    bfti_covalue_cursor_put(store, tree, cursor);
    return status;
}

uint64_t bft_covalue_changes(bft_covalue_store *store)
{
    if (bfti_covalue_gate(store) != BFT_OK)
        return 0;
    return atomic_load(&store->shared->changes);
}

uint64_t bft_covalue_count(bft_covalue_store *store)
{
    if (bfti_covalue_gate(store) != BFT_OK)
        return 0;
    return atomic_load(&store->shared->covalue_count);
}

bft_status bft_covalue_row(bft_covalue_store *store, bft_slice id,
                           uint64_t *row)
{
    bft_status status;

    if (row == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    *row = 0;
    status = bfti_covalue_gate(store);
    if (status == BFT_OK)
        status = bfti_covalue_check_slice(id, "an id");
    if (status != BFT_OK)
        return status;
    status = bfti_covalue_find(store, id, row);
    if (status == BFT_NOT_FOUND)
        return bfti_fail(status, "covalue store: no CoValue has that id");
    return status;
}
