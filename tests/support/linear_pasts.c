/* Snapshots and transactions that the threads of a history have. */
#include "linear_run.h"

#include <string.h>

/* --- reading ---------------------------------------------------------------- */

/* Of the four functions, the one that fits. */
static bft_status get(struct linear_thread *t, bool by_txn, unsigned key,
                      uint8_t *buf, size_t *len)
{
    char kbuf[24];
    bft_slice name = linear_key(kbuf, key, 0);
    bft_tree *tree = linear_tree(t, key);
    bft_status status;
    void *copy;
    if (linear_below(t, 2))
        return by_txn
                   ? bft_txn_get(t->txn, tree, name, buf, LINEAR_VALUE_MAX, len)
                   : bft_snapshot_get(t->snapshot, tree, name, buf,
                                      LINEAR_VALUE_MAX, len);
    status = by_txn
                 ? bft_txn_get_copy(t->txn, tree, name, &copy, len)
                 : bft_snapshot_get_copy(t->snapshot, tree, name, &copy, len);
    if (status == BFT_OK && *len <= LINEAR_VALUE_MAX)
        memcpy(buf, copy, *len);
    bft_free(copy);
    return status;
}

static void do_get(struct linear_thread *t, bool by_txn, unsigned key)
{
    uint8_t buf[LINEAR_VALUE_MAX];
    size_t len;
    bft_status status = get(t, by_txn, key, buf, &len);
    uint32_t value = LINEAR_ABSENT;
    if (status == BFT_OK)
        value = linear_number(t, buf, len);
    else if (status != BFT_NOT_FOUND)
        linear_expect(t, status, by_txn ? "txn get" : "snapshot get");
    linear_txn_read(by_txn ? &t->told : &t->shown, key, value);
}

static void do_walk(struct linear_thread *t, bool by_txn, unsigned key)
{
    bft_tree *tree = linear_tree(t, key);
    bft_cursor *cursor;
    bft_status status = by_txn
                            ? bft_txn_cursor(t->txn, tree, &cursor)
                            : bft_snapshot_cursor(t->snapshot, tree, &cursor);
    linear_expect(t, status, "cursor of the past");
    if (!cursor)
        return;
    t->into = by_txn ? &t->told : &t->shown;
    linear_walk(t, cursor, key);
    t->into = NULL;
    bft_cursor_close(cursor);
}

/* --- snapshots -------------------------------------------------------------- */

static void take(struct linear_thread *t)
{
    uint64_t call = linear_tick(t);
    linear_expect(t, bft_snapshot_take(t->run->f->db, &t->snapshot),
                  "snapshot");
    linear_txn_begin(&t->shown, t->id, false, call, linear_tick(t));
}

static void release(struct linear_thread *t)
{
    bft_snapshot_release(t->snapshot);
    t->snapshot = NULL;
    linear_txn_end(&t->shown, false, 0, 0, &t->history);
    atomic_fetch_add(&t->run->snapshots, 1);
}

static void do_snapshot(struct linear_thread *t, unsigned key)
{
    if (!t->snapshot)
        take(t);
    else if (linear_below(t, 5) == 0)
        release(t);
    else if (linear_below(t, 2))
        do_walk(t, false, key);
    else
        do_get(t, false, key);
}

/* --- transactions ----------------------------------------------------------- */

static void begin(struct linear_thread *t)
{
    bool serializable = linear_below(t, 3) > 0;
    uint64_t call = linear_tick(t);
    linear_expect(
        t,
        bft_txn_begin(t->run->f->db,
                      serializable ? BFT_SERIALIZABLE : BFT_SNAPSHOT_ISOLATION,
                      &t->txn),
        "txn begin");
    linear_txn_begin(&t->told, t->id, serializable, call, linear_tick(t));
}

/* Mostly of what it has read. */
static void do_write(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    uint8_t buf[LINEAR_VALUE_MAX];
    bft_slice name = linear_key(kbuf, key, 0);
    bft_tree *tree = linear_tree(t, key);
    uint32_t number = LINEAR_ABSENT;
    if (linear_below(t, 4))
        do_get(t, true, key);
    if (linear_below(t, 4) == 0) {
        linear_expect(t, bft_txn_delete(t->txn, tree, name), "txn delete");
    } else {
        bft_slice value;
        number = linear_new_number(t);
        value = linear_value(t->run, buf, number);
        linear_expect(t, bft_txn_put(t->txn, tree, name, value), "txn put");
    }
    linear_txn_write(&t->told, key, number);
}

static void commit(struct linear_thread *t)
{
    uint64_t call = linear_tick(t);
    bft_status status = bft_txn_commit(t->txn, BFT_DEFAULT, NULL);
    t->txn = NULL;
    if (status != BFT_CONFLICT)
        linear_expect(t, status, "txn commit");
    linear_txn_end(&t->told, status == BFT_OK, call, linear_tick(t),
                   &t->history);
    atomic_fetch_add(status == BFT_CONFLICT ? &t->run->conflicts
                     : t->told.serializable ? &t->run->commits
                                            : &t->run->isolated,
                     1);
}

static void give_up(struct linear_thread *t)
{
    bft_txn_abort(t->txn);
    t->txn = NULL;
    linear_txn_end(&t->told, false, 0, 0, &t->history);
    atomic_fetch_add(&t->run->aborts, 1);
}

static void do_txn(struct linear_thread *t, unsigned key)
{
    unsigned pick = linear_below(t, 32);
    if (!t->txn)
        begin(t);
    else if (pick == 0)
        give_up(t);
    else if (pick < 8)
        commit(t);
    else if (pick < 12)
        do_walk(t, true, key);
    else if (pick < 18)
        do_get(t, true, key);
    else
        do_write(t, key);
}

/* --- one or the other -------------------------------------------------------- */

void linear_end_pasts(struct linear_thread *t)
{
    if (t->snapshot)
        release(t);
    if (t->txn)
        commit(t);
}

void linear_do_past(struct linear_thread *t, unsigned key)
{
    bool by_txn = linear_below(t, 3) > 0;
    unsigned steps = 1;
    /* All at once, or a step now and others between other operations. */
    bool brief = t->run->o.brief || linear_below(t, 4) == 0;
    if (brief)
        steps = 2 + linear_below(t, 4);
    for (; steps > 0 && !t->error[0]; steps--) {
        if (by_txn)
            do_txn(t, key);
        else
            do_snapshot(t, key);
        key = linear_below(t, t->run->o.keys);
    }
    if (brief)
        linear_end_pasts(t);
}
