/*
 * Erasing a CoValue but for its header and the sessions that end in '$'.
 *
 * It is one batch if that takes it.  If not, a first batch sets a mark, and the
 * deletion done; from then on everybody takes what the mark covers for gone, and
 * further batches remove it piece by piece: of each session first the
 * transactions and signatures, then the session itself, so that whatever is left
 * can be found from its sessions; the last batch removes the mark.  README 7 has
 * the steps.
 *
 * Sessions that are added to a CoValue belong to the time after its erasure:
 * who writes to one that is marked finishes the erasure first.  So everything
 * in it that an erasure does not keep is covered by the mark, and no row has to
 * say so itself.
 */
#include <assert.h>
#include <string.h>

#include "storage/covalue_fault.h"
#include "storage/covalue_internal.h"

/* --- what is hidden ------------------------------------------------------------------- */

bool bfti_covalue_hidden(struct bfti_covalue_shared *shared, uint64_t covalue)
{
    uint32_t count;
    bool found = false;

    /* [erase]: a reader that saw the count of an erasure finds it here, until
     * that is counted again: by hide() and unhide(), while they have the lock. */
    if (atomic_load(&shared->hidden_count) == 0)
        return false;
    bfti_mutex_lock(shared->env, &shared->hidden_lock);
    count = atomic_load(&shared->hidden_count);
    for (uint32_t i = 0; i < count && !found; i++)
        found = shared->hidden[i] == covalue;
    bfti_mutex_unlock(shared->env, &shared->hidden_lock);
    return found;
}

bft_status bfti_covalue_session_hidden(bft_covalue_store *store,
                                       uint64_t session, bool *hidden)
{
    uint64_t covalue;
    bool kept;
    bft_status status;

    *hidden = false;
    if (atomic_load(&store->shared->hidden_count) == 0)
        return BFT_OK;
    status = bfti_covalue_of_session(store, session, &covalue, &kept);
    /* No such session, or no more: then its content went before it. */
    if (status == BFT_NOT_FOUND)
        return BFT_OK;
    *hidden = status == BFT_OK && !kept &&
              bfti_covalue_hidden(store->shared, covalue);
    return status;
}

/* Hide COVALUE, which is not hidden.  Removals come after. */
static bft_status hide(struct bfti_covalue_shared *shared, uint64_t covalue)
{
    bft_status status = BFT_OK;
    uint32_t count;

    bfti_mutex_lock(shared->env, &shared->hidden_lock);
    count = atomic_load(&shared->hidden_count);
    if (count == shared->hidden_max) {
        size_t max = shared->hidden_max == 0 ? 8 : shared->hidden_max * 2;
        uint64_t *hidden =
            bfti_realloc(shared->env, shared->hidden, max * sizeof(*hidden));

        if (hidden != NULL) {
            shared->hidden = hidden;
            shared->hidden_max = max;
        } else {
            status = bfti_fail(
                BFT_NO_MEMORY,
                "covalue store: no memory for %zu erasures at once", max);
        }
    }
    if (status == BFT_OK) {
        shared->hidden[count] = covalue;
        atomic_store(&shared->hidden_count, count + 1);
        /* [erase]: within the lock, or a reader that passed by the list when it
         * was empty could find the CoValue in it, and end before the count. */
        atomic_fetch_add(&shared->erasures, 1);
    }
    bfti_mutex_unlock(shared->env, &shared->hidden_lock);
    return status;
}

static void unhide(struct bfti_covalue_shared *shared, uint64_t covalue)
{
    uint32_t count;

    bfti_mutex_lock(shared->env, &shared->hidden_lock);
    count = atomic_load(&shared->hidden_count);
    /* [erase]: a reader that found the CoValue in the list may hold rows that
     * are removed by now, and look again when it is no longer there. */
    atomic_fetch_add(&shared->erasures, 1);
    for (uint32_t i = 0; i < count; i++)
        if (shared->hidden[i] == covalue) {
            shared->hidden[i] = shared->hidden[count - 1];
            atomic_store(&shared->hidden_count, count - 1);
            break;
        }
    bfti_mutex_unlock(shared->env, &shared->hidden_lock);
    /* If it failed, what was read meanwhile is no longer so. */
    atomic_fetch_add(&shared->changes, 1);
}

bft_status bfti_covalue_marks_load(struct bfti_covalue_shared *shared,
                                   bft_tree *deletions)
{
    struct bfti_cokey key;
    bft_cursor *cursor;
    bft_status status = bft_cursor_open_newest(deletions, &cursor);

    if (status != BFT_OK)
        return status;
    status = bft_cursor_prefix(cursor, bfti_cokey_tag(&key, DELETIONS_ERASING));
    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    while (status == BFT_OK) {
        bft_slice mark;
        uint64_t covalue;

        status = bft_cursor_key(cursor, &mark);
        if (status == BFT_OK)
            status = bfti_covalue_number(
                (bft_slice){(const uint8_t *)mark.data + 1, mark.len - 1},
                "the mark of an erasure", &covalue, NULL);
        if (status == BFT_OK)
            status = hide(shared, covalue);
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

/* --- filling a batch --------------------------------------------------------------------- */

/* Add the removal of SESSION's rows in TREE to the batch, from its first one. */
static bft_status content_remove(bft_covalue_store *store,
                                 enum bfti_cotree tree, uint64_t session)
{
    struct bfti_cokey low;
    struct bfti_cokey high;
    bft_cursor *cursor;
    bft_status status;

    if (bfti_covalue_fault_on(BFTI_COVALUE_FAULT_ERASURE))
        return BFT_OK;
    status = bfti_covalue_cursor_get(store, tree, &cursor);
    if (status != BFT_OK)
        return status;
    status = bft_cursor_bounds(cursor, bfti_cokey_content(&low, session, 0),
                               bfti_cokey_above(&high, session, UINT64_MAX));
    if (status == BFT_OK)
        status = bfti_covalue_remove_all(store, tree, cursor);
    bfti_covalue_cursor_put(store, tree, cursor);
    return status;
}

/* Add the removal of the session with KEY and VALUE: its content first, itself
 * last, for what a full batch leaves is found again from it. */
static bft_status session_remove(bft_covalue_store *store, bft_slice key,
                                 bft_slice value)
{
    struct bfti_session session;
    struct bfti_cokey bytes;
    bft_status status;

    if (!bfti_session_decode(value, &session))
        return bfti_fail(BFT_CORRUPT, "covalue store: a session to be erased");
    status = content_remove(store, TRANSACTIONS, session.row);
    if (status == BFT_OK)
        status = content_remove(store, SIGNATURES, session.row);
    if (status == BFT_OK)
        status = bfti_covalue_remove(
            store, SESSIONS, bfti_cokey_row(&bytes, SESSIONS_ROW, session.row));
    if (status == BFT_OK)
        status = bfti_covalue_remove(store, SESSIONS, key);
    return status;
}

/* Put down which session row comes next: the record that told it may go. */
static bft_status next_session_note(bft_covalue_store *store)
{
    struct bfti_cokey key;
    uint8_t value[BFTI_KEY_NUMBER_MAX];
    size_t len = bfti_key_put_number(value, store->shared->next_session);

    return bfti_covalue_put(store, SESSIONS,
                            bfti_cokey_tag(&key, SESSIONS_NEXT),
                            (bft_slice){value, len});
}

/* Add the removal of all that is to be erased of COVALUE. */
static bft_status sessions_remove(bft_covalue_store *store, uint64_t covalue)
{
    struct bfti_cokey bytes;
    bft_slice prefix = bfti_cokey_sessions(&bytes, covalue);
    bft_cursor *cursor;
    bft_status status = next_session_note(store);

    if (status == BFT_OK)
        status = bfti_covalue_cursor_get(store, SESSIONS, &cursor);
    if (status != BFT_OK)
        return status;
    status = bft_cursor_prefix(cursor, prefix);
    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    while (status == BFT_OK) {
        bft_slice key, value;

        status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bft_cursor_value(cursor, &value);
        if (status == BFT_OK &&
            !bfti_session_kept((bft_slice){
                (const uint8_t *)key.data + prefix.len, key.len - prefix.len}))
            status = session_remove(store, key, value);
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
    }
    bfti_covalue_cursor_put(store, SESSIONS, cursor);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

/* Add to the batch that the deletion of ID is done. */
static bft_status deletion_done(bft_covalue_store *store, bft_slice id)
{
    bft_slice none = {NULL, 0};
    struct bfti_cokey key;
    bft_status status = bfti_covalue_remove(
        store, DELETIONS, bfti_cokey_id(&key, DELETIONS_WAITING, id));

    if (status == BFT_OK)
        status = bfti_covalue_put(
            store, DELETIONS, bfti_cokey_id(&key, DELETIONS_DONE, id), none);
    return status;
}

/* --- in several batches --------------------------------------------------------------------- */

bft_status bfti_covalue_erase_mark(bft_covalue_store *store, bft_slice id,
                                   uint64_t covalue)
{
    bft_slice none = {NULL, 0};
    struct bfti_cokey key;
    bool accepted;
    bft_status status = deletion_done(store, id);

    if (status == BFT_OK)
        status = bfti_covalue_put(
            store, DELETIONS, bfti_cokey_row(&key, DELETIONS_ERASING, covalue),
            none);
    if (status == BFT_OK)
        status = hide(store->shared, covalue);
    if (status != BFT_OK)
        return status;
    status = bfti_covalue_accept(store, BFT_BUFFERED, &accepted);
    if (!accepted)
        unhide(store->shared, covalue);
    return status;
}

bft_status bfti_covalue_erase_step(bft_covalue_store *store, uint64_t covalue,
                                   bool *done)
{
    struct bfti_cokey key;
    bool accepted = false;
    bool last;
    bft_status status;

    *done = !bfti_covalue_hidden(store->shared, covalue);
    if (*done)
        return BFT_OK;
    status = sessions_remove(store, covalue);
    if (status == BFT_OK)
        status = bfti_covalue_remove(
            store, DELETIONS, bfti_cokey_row(&key, DELETIONS_ERASING, covalue));
    last = status == BFT_OK;
    /* A full batch: what is in it goes, the rest next time.  Its first record
     * is a note, so two are progress. */
    if (status == BFT_TOO_BIG && bft_batch_count(store->batch) >= 2)
        status = BFT_OK;
    if (status == BFT_OK)
        status = bfti_covalue_accept(store, BFT_BUFFERED, &accepted);
    bft_batch_clear(store->batch);
    if (last && accepted)
        unhide(store->shared, covalue);
    *done = last && status == BFT_OK;
    return status;
}

bft_status bfti_covalue_erase_finish(bft_covalue_store *store, uint64_t covalue)
{
    bft_status status;
    bool done;

    /* Ends: each step removes at least one record, and within the turn nobody
     * adds one. */
    do {
        status = bfti_covalue_erase_step(store, covalue, &done);
    } while (status == BFT_OK && !done);
    return status;
}

/* The same with a turn for each step, so that other writers get theirs. */
static bft_status finish_in_turns(bft_covalue_store *store, uint64_t covalue,
                                  bft_covalue_applied *applied)
{
    bft_status status;
    bool done;

    do {
        bfti_covalue_begin(store);
        status = bfti_covalue_erase_step(store, covalue, &done);
        bfti_covalue_end(store, applied);
    } while (status == BFT_OK && !done);
    return status;
}

void bfti_covalue_erase_resume(bft_covalue_store *store)
{
    struct bfti_covalue_shared *shared = store->shared;
    uint32_t skip = 0;

    /* One that fails is left hidden, and the next one tried. */
    while (atomic_load(&shared->hidden_count) > skip) {
        uint64_t covalue = 0;
        bool found = false;
        bft_covalue_applied applied;

        bfti_mutex_lock(shared->env, &shared->hidden_lock);
        if (atomic_load(&shared->hidden_count) > skip) {
            covalue = shared->hidden[skip];
            found = true;
        }
        bfti_mutex_unlock(shared->env, &shared->hidden_lock);
        if (found && finish_in_turns(store, covalue, &applied) != BFT_OK)
            skip++;
    }
}

/* --- the whole --------------------------------------------------------------------------------- */

/* All in one batch; BFT_TOO_BIG: it does not take it, nothing happened.  (No
 * commit says that: the batch would have said it before.) */
static bft_status erase_at_once(bft_covalue_store *store, bft_slice id,
                                uint64_t covalue, bft_durability durability)
{
    bool accepted;
    bft_status status = sessions_remove(store, covalue);

    if (status == BFT_OK)
        status = deletion_done(store, id);
    if (status == BFT_OK)
        status = hide(store->shared, covalue);
    if (status != BFT_OK) {
        bft_batch_clear(store->batch);
        return status;
    }
    status = bfti_covalue_accept(store, durability, &accepted);
    unhide(store->shared, covalue);
    return status;
}

/* Within the turn: at once, or if that is too much marked, *MORE to do. */
static bft_status erase_begin(bft_covalue_store *store, bft_slice id,
                              uint64_t *covalue, bft_durability durability,
                              bool *more)
{
    bft_status status = bfti_covalue_find(store, id, covalue);

    *more = false;
    if (status == BFT_NOT_FOUND)
        return bfti_fail(status, "covalue store: no CoValue has that id");
    if (status != BFT_OK)
        return status;
    *more = bfti_covalue_hidden(store->shared, *covalue);
    if (*more)
        return BFT_OK;
    status = erase_at_once(store, id, *covalue, durability);
    if (status != BFT_TOO_BIG)
        return status;
    status = bfti_covalue_erase_mark(store, id, *covalue);
    *more = status == BFT_OK;
    return status;
}

bft_status bft_covalue_erase(bft_covalue_store *store, bft_slice id,
                             bft_durability durability,
                             bft_covalue_applied *applied)
{
    bft_covalue_applied done = {0, 0, 0};
    uint64_t covalue, before;
    bft_status status;
    bool more;

    if (applied != NULL)
        *applied = done;
    status = bfti_covalue_gate(store);
    if (status == BFT_OK)
        status = bfti_covalue_check_slice(id, "an id");
    if (status != BFT_OK)
        return status;
    bfti_covalue_begin(store);
    status = erase_begin(store, id, &covalue, durability, &more);
    bfti_covalue_end(store, &done);
    before = done.before;
    if (status == BFT_OK && more)
        status = finish_in_turns(store, covalue, &done);
    if (status != BFT_OK)
        return status;
    done.before = before;
    if (applied != NULL)
        *applied = done;
    bfti_covalue_erase_resume(store);
    return bfti_covalue_settle(store, durability, done.lsn);
}
