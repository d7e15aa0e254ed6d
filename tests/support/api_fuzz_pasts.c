/* Calls on snapshots, transactions and their cursors. */
#include "api_fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- snapshots ------------------------------------------------------------ */

static void maps_copy(struct model_map *to, const struct model_map *from)
{
    for (unsigned t = 0; t < API_TREES; t++)
        model_map_copy(&to[t], &from[t]);
}

void api_maps_clear(struct model_map *maps)
{
    for (unsigned t = 0; t < API_TREES; t++)
        model_map_clear(&maps[t]);
}

void api_snapshot_take(struct life *life)
{
    struct allowed a = {0, false};
    bft_db *db = random_below(4) ? life->f->db : NULL;
    bft_snapshot *snapshot = (bft_snapshot *)api_bytes;
    bool no_out = random_below(4) == 0;

    if (life->snapshot) {
        if (random_below(2))
            return;
        bft_snapshot_release(life->snapshot);
        bft_snapshot_release(NULL);
        life->snapshot = NULL;
        return;
    }
    if (!db || no_out)
        api_blame(&a, BFT_INVALID);
    else if (life->past_cursor)
        return; /* it shows what the one before shows */
    if (api_judge(a, BFT_OK, bft_snapshot_take(db, no_out ? NULL : &snapshot),
                  "bft_snapshot_take")) {
        life->snapshot = snapshot;
        api_maps_clear(life->past);
        maps_copy(life->past, life->map);
    } else if (!no_out) {
        fuzz_assert(snapshot == NULL);
    }
}

static bft_snapshot *any_snapshot(struct life *life, struct allowed *a)
{
    size_t kind = random_below(20);

    if (kind > 1 && life->snapshot)
        return life->snapshot;
    api_blame(a, BFT_INVALID);
    return kind % 2 ? life->left_snapshot : NULL;
}

static void snapshot_get_copy(struct allowed a, bft_snapshot *snapshot,
                              bft_tree *tree, bft_slice key,
                              const struct model_value *want)
{
    bool no_len = random_below(40) == 0;
    void *copy = api_bytes;
    size_t len = 77;

    if (no_len)
        api_blame(&a, BFT_INVALID);
    if (api_judge(a, want ? BFT_OK : BFT_NOT_FOUND,
                  bft_snapshot_get_copy(snapshot, tree, key, &copy,
                                        no_len ? NULL : &len),
                  "bft_snapshot_get_copy"))
        api_expect_whole(want, copy, len);
    else if (copy != NULL)
        fuzz_fail("a copy of nothing");
    bft_free(copy);
}

void api_snapshot_get(struct life *life)
{
    static uint8_t buf[12000];
    struct allowed a = {0, false};
    char text[32];
    bft_snapshot *snapshot = any_snapshot(life, &a);
    struct tree_arg tree = api_any_tree_at_all(life, &a);
    bft_slice key = api_any_key(&a, 0, text);
    const struct model_value *want =
        a.odd ? NULL : model_map_get(&life->past[tree.t], key);
    size_t room = random_below(2) ? sizeof(buf) : random_below(20), len = 77;
    bool no_len = random_below(40) == 0, no_buf = random_below(40) == 0;
    bft_status good = !want              ? BFT_NOT_FOUND
                      : room < want->len ? BFT_TOO_SMALL
                                         : BFT_OK;

    if (random_below(3) == 0) {
        snapshot_get_copy(a, snapshot, tree.handle, key, want);
        return;
    }
    if (no_len || (no_buf && room))
        api_blame(&a, BFT_INVALID);
    if (api_judge(a, good,
                  bft_snapshot_get(snapshot, tree.handle, key,
                                   no_buf ? NULL : buf, room,
                                   no_len ? NULL : &len),
                  "bft_snapshot_get"))
        api_expect_whole(want, buf, len);
    else if (!no_len)
        api_expect_len(a, want, len);
}

/* What a cursor is on is in one of the maps. */
static void cursor_shows(bft_cursor *cursor, bft_status status,
                         const struct model_map *maps)
{
    const struct model_value *want = NULL;
    bft_slice key, value;

    fuzz_assert(status == BFT_OK || status == BFT_NOT_FOUND);
    if (status != BFT_OK)
        return;
    expect_ok(bft_cursor_record(cursor, &key, &value));
    for (unsigned t = 0; t < API_TREES; t++) {
        want = model_map_get(&maps[t], key);
        if (want && want->len == value.len &&
            model_value_is(*want, 0, value.data, value.len))
            return;
    }
    fuzz_fail("a cursor shows what nobody wrote");
}

void api_snapshot_cursor(struct life *life)
{
    struct allowed a = {0, false};
    bft_cursor *cursor = (bft_cursor *)api_bytes;
    bool no_out = random_below(30) == 0;
    bft_snapshot *snapshot;
    struct tree_arg tree;

    if (life->past_cursor && random_below(8)) {
        cursor = life->past_cursor;
        cursor_shows(cursor,
                     random_below(2) ? bft_cursor_next(cursor)
                                     : bft_cursor_prev(cursor),
                     life->past);
        return;
    }
    bft_cursor_close(life->past_cursor);
    life->past_cursor = NULL;
    snapshot = any_snapshot(life, &a);
    tree = api_any_tree_at_all(life, &a);
    if (no_out)
        api_blame(&a, BFT_INVALID);
    if (api_judge(
            a, BFT_OK,
            bft_snapshot_cursor(snapshot, tree.handle, no_out ? NULL : &cursor),
            "bft_snapshot_cursor"))
        life->past_cursor = cursor;
    else if (!no_out)
        fuzz_assert(cursor == NULL);
}

/* --- transactions --------------------------------------------------------- */

/* It is over; a cursor of it, if there is one, may be open longer. */
static void txn_over(struct life *life)
{
    if (life->txn_cursor)
        life->ended = life->txn;
    life->txn = NULL;
    api_maps_clear(life->began);
    api_maps_clear(life->wrote);
}

static void txn_cursor_close(struct life *life)
{
    bft_cursor_close(life->txn_cursor);
    life->txn_cursor = NULL;
    life->ended = NULL;
}

static void call_txn_begin(struct life *life)
{
    struct allowed a = {0, false};
    bft_db *db = random_below(8) ? life->f->db : NULL;
    int isolation =
        random_below(8) ? (int)random_below(2) : 2 + (int)random_below(90);
    bool no_out = random_below(8) == 0;
    bft_txn *txn = (bft_txn *)api_bytes;

    if (!db || no_out || isolation > BFT_SNAPSHOT_ISOLATION)
        api_blame(&a, BFT_INVALID);
    if (api_judge(
            a, BFT_OK,
            bft_txn_begin(db, (bft_isolation)isolation, no_out ? NULL : &txn),
            "bft_txn_begin")) {
        txn_cursor_close(life);
        life->txn = txn;
        life->isolation = (bft_isolation)isolation;
        life->txn_bytes = 0;
        life->doomed = false;
        maps_copy(life->began, life->map);
    } else if (!no_out) {
        fuzz_assert(txn == NULL);
    }
}

static bft_txn *any_txn(struct life *life, struct allowed *a)
{
    size_t kind = random_below(30);

    if (kind > 2)
        return life->txn;
    api_blame(a, BFT_INVALID);
    return kind == 0 ? NULL : kind == 1 ? life->left_txn : life->ended;
}

/* FULL is odd as well, once the transaction has much. */
static void txn_keeps(struct life *life, struct allowed *a, size_t more)
{
    life->txn_bytes += more;
    if (life->txn_bytes > 12000 && !a->odd)
        *a = (struct allowed){
            3 | 1u << -(int)BFT_TOO_BIG | 1u << -(int)BFT_TOO_SMALL, true};
}

static void call_txn_get(struct life *life)
{
    static uint8_t buf[12000];
    struct allowed a = {0, false};
    char text[32];
    bft_txn *txn = any_txn(life, &a);
    struct tree_arg tree = api_any_tree_at_all(life, &a);
    bft_slice key = api_any_key(&a, 0, text);
    const struct model_value *want = NULL;
    size_t room = random_below(2) ? sizeof(buf) : random_below(20), len = 77;

    if (!a.odd) {
        want = model_map_get(&life->wrote[tree.t], key);
        if (!want)
            want = model_map_get(&life->began[tree.t], key);
        else if (want->len == API_NONE)
            want = NULL;
        txn_keeps(life, &a, 2 * key.len + 200);
    }
    if (api_judge(a,
                  !want              ? BFT_NOT_FOUND
                  : room < want->len ? BFT_TOO_SMALL
                                     : BFT_OK,
                  bft_txn_get(txn, tree.handle, key, buf, room, &len),
                  "bft_txn_get"))
        api_expect_whole(want, buf, len);
}

static void call_txn_write(struct life *life)
{
    struct allowed a = {0, false};
    struct model_value value = {0, API_NONE};
    char text[32];
    bft_txn *txn = any_txn(life, &a);
    struct tree_arg tree = api_any_tree_at_all(life, &a);
    bft_slice key = api_any_key(&a, api_leaf_bytes[tree.t], text),
              of = {NULL, 0};
    bool remove = random_below(3) == 0;
    bool gone = tree.handle && tree.handle == life->dropped;
    bft_status status;

    if (!remove)
        of = api_any_value(life, &a, &value);
    if (gone) /* told here or by the commit */
        a.mask |= 1;
    if (!a.odd)
        txn_keeps(life, &a, key.len + (remove ? 0 : of.len) + 200);
    status = remove ? bft_txn_delete(txn, tree.handle, key)
                    : bft_txn_put(txn, tree.handle, key, of);
    if (!api_judge(a, BFT_OK, status, "bft_txn_put"))
        return;
    if (gone)
        life->doomed = true;
    else
        model_map_put(&life->wrote[tree.t], key, value);
}

/* Is any key of these in A or in B only, or with another value? */
static bool differ(const struct model_map *keys, const struct model_map *a,
                   const struct model_map *b)
{
    bool any = false;

    for (size_t i = 0; i < keys->count; i++) {
        const struct model_value *x = model_map_get(a, model_map_key(keys, i));
        const struct model_value *y = model_map_get(b, model_map_key(keys, i));
        any =
            any || !x != !y || (x && (x->len != y->len || x->seed != y->seed));
    }
    return any;
}

static void call_txn_commit(struct life *life)
{
    struct allowed a = {0, false};
    int durability =
        random_below(8) ? (int)random_below(4) : 4 + (int)random_below(90);
    bool changed = false, wrote = life->doomed;
    uint64_t lsn = 77;

    for (unsigned t = 0; t < API_TREES; t++) {
        wrote = wrote || life->wrote[t].count > 0;
        changed =
            changed || differ(&life->wrote[t], &life->began[t], &life->map[t]);
        if (life->isolation == BFT_SERIALIZABLE)
            changed = changed ||
                      differ(&life->began[t], &life->began[t], &life->map[t]) ||
                      differ(&life->map[t], &life->began[t], &life->map[t]);
    }
    if (durability > BFT_SYNC)
        api_blame(&a, BFT_INVALID);
    else if (wrote && (changed || life->doomed || life->txn_bytes > 12000))
        a = (struct allowed){life->doomed ? 1u << -(int)BFT_GONE : 1, true};
    if (changed && wrote)
        a.mask |= 1u << -(int)BFT_CONFLICT;
    if (life->txn_bytes > 12000)
        a.mask |= 1u << -(int)BFT_TOO_BIG;
    if (api_judge(a, BFT_OK,
                  bft_txn_commit(life->txn, (bft_durability)durability, &lsn),
                  "bft_txn_commit")) {
        for (unsigned t = 0; t < API_TREES; t++)
            api_pending_apply(&life->map[t], &life->wrote[t]);
    } else {
        fuzz_assert(lsn == 0);
    }
    txn_over(life);
}

static void call_txn_cursor(struct life *life)
{
    struct allowed a = {0, false};
    bft_cursor *cursor = (bft_cursor *)api_bytes;
    bft_txn *txn;
    struct tree_arg tree;
    bft_status status;

    if (life->txn_cursor && random_below(8)) {
        cursor = life->txn_cursor;
        status =
            random_below(2) ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
        if (life->ended)
            fuzz_assert(status == BFT_INVALID);
        else if (status == BFT_TOO_BIG)
            fuzz_assert((life->txn_bytes += 200) > 12000);
        else
            fuzz_assert(status == BFT_OK || status == BFT_NOT_FOUND);
        life->txn_bytes += 200;
        return;
    }
    txn_cursor_close(life);
    txn = any_txn(life, &a);
    tree = api_any_tree_at_all(life, &a);
    if (!txn)
        api_blame(&a, BFT_INVALID);
    if (api_judge(a, BFT_OK, bft_txn_cursor(txn, tree.handle, &cursor),
                  "bft_txn_cursor"))
        life->txn_cursor = cursor;
    else
        fuzz_assert(cursor == NULL);
}

void api_txn(struct life *life)
{
    uint64_t lsn = 77;

    if (!life->txn && random_below(4) == 0) {
        call_txn_begin(life);
        return;
    }
    if (!life->txn) { /* those that are over, or of no use */
        bft_txn *txn = random_below(2) ? life->ended : life->left_txn;
        fuzz_assert(bft_txn_put(txn, life->tree[0], (bft_slice){"k", 1},
                                (bft_slice){"v", 1}) == BFT_INVALID);
        if (txn != life->left_txn)
            fuzz_assert(bft_txn_commit(txn, BFT_DEFAULT, &lsn) == BFT_INVALID &&
                        lsn == 0);
        if (txn != life->left_txn)
            bft_txn_abort(txn);
        return;
    }
    switch (random_below(24)) {
    case 0:
        call_txn_commit(life);
        break;
    case 1:
        if (random_below(4) == 0) {
            bft_txn_abort(life->txn);
            txn_over(life);
        }
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        call_txn_cursor(life);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
        call_txn_get(life);
        break;
    default:
        call_txn_write(life);
    }
}

/* --- beginning and end ------------------------------------------------------ */

/* A snapshot and a transaction whose handle is closed, the database is not. */
void api_leave_behind(struct life *life)
{
    bft_db *db;
    bft_tree *tree;

    expect_ok(bft_open(life->f->path, &life->f->options, &db));
    expect_ok(bft_tree_open(db, api_tree_name[0], NULL, &tree));
    expect_ok(bft_snapshot_take(db, &life->left_snapshot));
    expect_ok(bft_txn_begin(db, BFT_SERIALIZABLE, &life->left_txn));
    expect_ok(bft_txn_put(life->left_txn, tree, (bft_slice){"k", 1},
                          (bft_slice){"v", 1}));
    expect_ok(bft_feed_open(db, BFT_FEED_NOW, NULL, &life->left_feed));
    expect_ok(bft_close(db));
}

/* Cursors go first; the others may be of any age, and their database closed. */
void api_pasts_end(struct life *life)
{
    bft_cursor_close(life->past_cursor);
    txn_cursor_close(life);
    if (random_below(2)) {
        bft_snapshot_release(life->snapshot);
        life->snapshot = NULL;
    }
    if (random_below(2)) {
        bft_txn_abort(life->txn);
        life->txn = NULL;
    }
    api_maps_clear(life->past);
    api_maps_clear(life->began);
    api_maps_clear(life->wrote);
}
