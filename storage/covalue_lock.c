/*
 * Reconciliation locks: one row per key, which says who took it and when, how
 * far they got, and when they were done.  A lock whose holder vanished runs out;
 * who takes it over goes on from there.
 */
#include <string.h>

#include "storage/covalue_internal.h"

/* The value of a lock; the holder follows. */
struct lock_row {
    le64 acquired; /*  0  milliseconds since 1970 */
    le64 released; /*  8  0: held */
    le64 offset;   /* 16 */
};
_Static_assert(sizeof(struct lock_row) == 24, "format 1");
_Static_assert(_Alignof(struct lock_row) == 1, "readable at any offset");

bft_status bfti_covalue_lock_write(bft_covalue_store *store, bft_slice key,
                                   const bft_covalue_lock *lock,
                                   bft_slice holder)
{
    struct bfti_cokey bytes;
    uint8_t value[sizeof(struct lock_row) + BFT_COVALUE_ID_MAX];
    struct lock_row row = {le64_of((uint64_t)lock->acquired),
                           le64_of((uint64_t)lock->released),
                           le64_of(lock->offset)};

    memcpy(value, &row, sizeof(row));
    if (holder.len != 0)
        memcpy(value + sizeof(row), holder.data, holder.len);
    return bfti_covalue_put(store, LOCKS, bfti_cokey_id(&bytes, LOCKS_KEY, key),
                            (bft_slice){value, sizeof(row) + holder.len});
}

/* BFT_NOT_FOUND has no text. */
static bft_status lock_read(bft_covalue_store *store, bft_slice key,
                            bft_covalue_lock *lock)
{
    struct bfti_cokey bytes;
    uint8_t value[sizeof(struct lock_row) + BFT_COVALUE_ID_MAX];
    struct lock_row row;
    size_t len;
    bft_status status;

    memset(lock, 0, sizeof(*lock));
    status = bft_get(store->tree[LOCKS], bfti_cokey_id(&bytes, LOCKS_KEY, key),
                     value, sizeof(value), &len);
    if (status == BFT_TOO_SMALL || (status == BFT_OK && len < sizeof(row)))
        return bfti_fail(BFT_CORRUPT, "covalue store: a lock of %zu bytes",
                         len);
    if (status != BFT_OK)
        return status;
    memcpy(&row, value, sizeof(row));
    lock->acquired = (int64_t)le64_get(row.acquired);
    lock->released = (int64_t)le64_get(row.released);
    lock->offset = le64_get(row.offset);
    lock->holder_len = len - sizeof(row);
    memcpy(lock->holder, value + sizeof(row), lock->holder_len);
    return BFT_OK;
}

bft_status bft_covalue_lock_get(bft_covalue_store *store, bft_slice key,
                                bft_covalue_lock *lock)
{
    bft_status status;

    if (lock == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    memset(lock, 0, sizeof(*lock));
    status = bfti_covalue_gate(store);
    if (status == BFT_OK)
        status = bfti_covalue_check_id(key, "a lock's key");
    if (status == BFT_OK)
        status = lock_read(store, key, lock);
    if (status == BFT_NOT_FOUND)
        return bfti_fail(status, "covalue store: no lock has that key");
    return status;
}

static bool held_by(const bft_covalue_lock *lock, bft_slice holder)
{
    return bfti_slice_equal((bft_slice){lock->holder, lock->holder_len},
                            holder);
}

/* Is A - B less than LIMIT?  Times come from callers' clocks. */
static bool within(int64_t a, int64_t b, int64_t limit)
{
    int64_t span;

    if (__builtin_sub_overflow(a, b, &span))
        return a < b;
    return span < limit;
}

static bft_covalue_lock_result may_acquire(const bft_covalue_lock *lock,
                                           bft_slice holder, int64_t now_ms,
                                           int64_t interval_ms, int64_t ttl_ms)
{
    if (lock->released != 0)
        return within(now_ms, lock->released, interval_ms) ? BFT_LOCK_NOT_DUE
                                                           : BFT_LOCK_ACQUIRED;
    /* Up to and with the moment at which it runs out. */
    if (!held_by(lock, holder) &&
        (ttl_ms == INT64_MAX || within(now_ms, lock->acquired, ttl_ms + 1)))
        return BFT_LOCK_HELD;
    return BFT_LOCK_ACQUIRED;
}

/* What one call does with the lock row, within the turn. */
struct lock_change {
    bft_slice key, holder;
    int64_t now_ms, interval_ms, ttl_ms;
    uint64_t offset;
    bft_covalue_lock_result result;
};

static bft_status acquire(bft_covalue_store *store, struct lock_change *c)
{
    bft_covalue_lock lock;
    bft_status status = lock_read(store, c->key, &lock);

    c->result = BFT_LOCK_ACQUIRED;
    if (status == BFT_OK)
        c->result =
            may_acquire(&lock, c->holder, c->now_ms, c->interval_ms, c->ttl_ms);
    else if (status != BFT_NOT_FOUND)
        return status;
    c->offset = 0;
    if (c->result != BFT_LOCK_ACQUIRED)
        return BFT_OK;
    if (status == BFT_OK && lock.released == 0)
        c->offset = lock.offset;
    lock.acquired = c->now_ms;
    lock.released = 0;
    lock.offset = c->offset;
    return bfti_covalue_lock_write(store, c->key, &lock, c->holder);
}

static bft_status renew(bft_covalue_store *store, struct lock_change *c)
{
    bft_covalue_lock lock;
    bft_status status = lock_read(store, c->key, &lock);

    if (status != BFT_OK)
        return status == BFT_NOT_FOUND ? BFT_OK : status;
    if (lock.released != 0 || !held_by(&lock, c->holder))
        return BFT_OK;
    lock.offset = c->offset;
    return bfti_covalue_lock_write(store, c->key, &lock, c->holder);
}

static bft_status release(bft_covalue_store *store, struct lock_change *c)
{
    bft_covalue_lock lock;
    bft_status status = lock_read(store, c->key, &lock);

    if (status != BFT_OK)
        return status == BFT_NOT_FOUND ? BFT_OK : status;
    if (!held_by(&lock, c->holder))
        return BFT_OK;
    /* 0 would say that it is held. */
    lock.released = c->now_ms == 0 ? 1 : c->now_ms;
    lock.offset = 0;
    return bfti_covalue_lock_write(store, c->key, &lock, c->holder);
}

static bft_status change(bft_covalue_store *store, struct lock_change *c,
                         bft_status (*step)(bft_covalue_store *store,
                                            struct lock_change *c))
{
    bft_covalue_applied done;
    bool accepted;
    bft_status status = bfti_covalue_gate(store);

    if (status == BFT_OK)
        status = bfti_covalue_check_id(c->key, "a lock's key");
    if (status == BFT_OK)
        status = bfti_covalue_check_id(c->holder, "a lock's holder");
    if (status != BFT_OK)
        return status;
    bfti_covalue_begin(store);
    status = step(store, c);
    if (status == BFT_OK)
        status = bfti_covalue_accept(store, BFT_DEFAULT, &accepted);
    bfti_covalue_end(store, &done);
    if (status != BFT_OK)
        return status;
    return bfti_covalue_settle(store, BFT_DEFAULT, done.lsn);
}

bft_status bft_covalue_lock_acquire(bft_covalue_store *store, bft_slice key,
                                    bft_slice holder, int64_t now_ms,
                                    int64_t interval_ms, int64_t ttl_ms,
                                    bft_covalue_lock_result *result,
                                    uint64_t *offset)
{
    struct lock_change c = {key,    holder, now_ms,       interval_ms,
                            ttl_ms, 0,      BFT_LOCK_HELD};
    bft_status status;

    if (result == NULL || offset == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    status = change(store, &c, acquire);
    *result = c.result;
    *offset = status == BFT_OK ? c.offset : 0;
    return status;
}

bft_status bft_covalue_lock_renew(bft_covalue_store *store, bft_slice key,
                                  bft_slice holder, uint64_t offset)
{
    struct lock_change c = {.key = key, .holder = holder, .offset = offset};

    return change(store, &c, renew);
}

bft_status bft_covalue_lock_release(bft_covalue_store *store, bft_slice key,
                                    bft_slice holder, int64_t now_ms)
{
    struct lock_change c = {.key = key, .holder = holder, .now_ms = now_ms};

    return change(store, &c, release);
}
