/*
 * Cursors.  A cursor holds no latch and no hazard slot between calls: it shows
 * records of a copy of a part of a leaf, and takes a new copy, by key, whenever
 * it leaves that part or something was published in its leaf.
 *
 * Copies start small and grow while the cursor goes on in one direction: a short
 * scan does not pay for a whole leaf, a long one takes each leaf at once.
 */
#include "cache.h"
#include "expiry.h"
#include "snapshot.h"
#include "tomb.h"

enum {
    MAGIC_CURSOR = 0x62667463,
    WINDOW_SEEK = 16,  /* records of the first copy after a seek */
    WINDOW_STALE = 8,  /* of one that replaces a copy that has become stale */
    WINDOW_FACTOR = 4, /* by which it grows */
    WINDOW_MAX = 1 << 16,
};
enum {
    SCAN_MOST = 64,  /* leaves of a scan, where it is learned from */
    HABIT_SHARE = 8, /* of what is known that one scan changes */
};

enum where {
    NOWHERE, /* unpositioned */
    ON,      /* on the copy's record INDEX */
    BEHIND,  /* behind the record AT, which was shown last */
    AHEAD,   /* ahead of it */
};

struct bft_cursor {
    uint32_t magic;
    bft_tree *tree;
    enum where where;
    size_t index;
    size_t window;
    uint64_t steps; /* within the copy, not counted yet */
    bool back;      /* the way it goes */
    size_t entered; /* leaves that were copied that way since the seek */
    struct bft_snapshot *snapshot; /* that it shows, or NULL: the newest */
    struct bft_snapshot own[2];    /* its instants: at most one is begun but
                                      within a refresh */
    struct bft_txn *txn;           /* whose writes it shows, too, or NULL */
    uint64_t seen;                 /* of its writes, by the copy */
    struct bfti_copy copy;
    struct bfti_tree *copied; /* what it is a copy of */
    struct bfti_bound at;
    struct bfti_bound low, high; /* of what it regards */
    void *large; /* the large value of the record it is on, once asked for */
    size_t large_len;
};

/* --- how far scans go ------------------------------------------------------ */

static struct bfti_habit *habit_of(const bft_cursor *c, struct bfti_rec *rec)
{
    uint64_t of = 2 * (uint64_t)c->copied->id + c->back;
    struct bfti_habit *habit = &rec->habit[of % BFTI_HABITS];
    if (habit->of != of)
        *habit = (struct bfti_habit){.of = of};
    return habit;
}

/* A scan is over. */
static void learn(bft_cursor *c, struct bfti_rec *rec)
{
    struct bfti_habit *habit;
    uint32_t leaves =
        (uint32_t)(c->entered < SCAN_MOST ? c->entered : SCAN_MOST);
    if (leaves == 0)
        return;
    habit = habit_of(c, rec);
    leaves *= BFTI_HABIT_PARTS;
    if (habit->leaves)
        leaves =
            (habit->leaves * (HABIT_SHARE - 1) + leaves + HABIT_SHARE / 2) /
            HABIT_SHARE;
    habit->leaves = leaves;
    c->entered = 0;
}

/*
 * Which leaves is the scan to have read before it asks for them?  Those that the
 * thread's scans of this tree usually come to.  Of one that went twice as far, or
 * of which nothing is known, more and more, as of one that goes on to the end.
 */
static void look_ahead(const bft_cursor *c, struct bfti_rec *rec,
                       struct bfti_copy_wish *wish)
{
    size_t known = habit_of(c, rec)->leaves;
    size_t usual = (known + BFTI_HABIT_PARTS / 2) / BFTI_HABIT_PARTS;
    wish->further = c->entered > 2 * usual || usual == SCAN_MOST;
    wish->on = c->entered > 2 * usual && c->window == WINDOW_MAX;
    if (usual > c->entered)
        wish->ahead = usual - c->entered - 1;
    else if (wish->further || !known)
        wish->ahead = c->window / BFTI_AHEAD_RECORDS;
    else
        wish->ahead = 0;
}

/* --- calls ---------------------------------------------------------------- */

static bft_status check_cursor(const bft_cursor *c)
{
    if (!c)
        return bfti_fail(BFT_INVALID, "the cursor is NULL");
    if (c->magic != MAGIC_CURSOR)
        return bfti_fail(BFT_INVALID, "the cursor is closed");
    return BFT_OK;
}

static bft_status check_open(const bft_cursor *c)
{
    struct bfti_engine *engine;
    bft_status status = check_cursor(c);
    if (status == BFT_OK && c->txn)
        status = bfti_txn_check(c->txn);
    return status == BFT_OK ? bfti_gate_open(c->tree, &engine) : status;
}

/* Has a record of the copy expired since?  Not for a snapshot. */
static inline bool has_aged(const bft_cursor *c)
{
    return c->copied->ttl_ms && !c->snapshot &&
           bfti_now(c->copied->engine) >= c->copy.until;
}

static bft_status check(bft_cursor *c, struct bfti_rec **rec)
{
    struct bfti_engine *engine;
    bft_status status = check_cursor(c);
    *rec = NULL;
    if (status == BFT_OK && c->txn)
        status = bfti_txn_check(c->txn);
    if (status == BFT_OK)
        status = bfti_gate_tree(c->tree, &engine, rec);
    /* Leaves of a truncated tree may be as they were, for a while. */
    if (status == BFT_OK &&
        (c->copied != bfti_handle_tree(c->tree) || has_aged(c)))
        c->copy.valid = false;
    if (status == BFT_OK && c->txn && c->seen != *bfti_txn_changes(c->txn))
        c->copy.valid = false;
    return status;
}

static void drop_large(bft_cursor *c)
{
    if (!c->large)
        return;
    bft_free(c->large);
    c->large = NULL;
}

static bool has_own(const bft_cursor *c)
{
    return c->snapshot == &c->own[0] || c->snapshot == &c->own[1];
}

/* INSTANT: with one of its own. */
static bft_status cursor_open(bft_tree *tree, bool instant,
                              struct bft_snapshot *snapshot,
                              struct bft_txn *txn, bft_cursor **out)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *inside;
    bft_cursor *c;
    bft_status status = bfti_gate_tree(tree, &engine, &rec);
    if (status == BFT_OK && instant)
        status = bfti_check_keeps(engine, "it has cursors for the newest only");
    if (status != BFT_OK)
        return status;
    inside = bfti_handle_tree(tree);
    while (!bfti_tree_root(inside)) {
        if (!bfti_handle_moved(tree, inside, BFT_GONE))
            return bfti_fail(BFT_GONE, "tree %s was dropped", inside->name);
        inside = bfti_handle_tree(tree);
    }
    c = bfti_alloc(engine->env, sizeof(*c));
    if (!c)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a cursor");
    memset(c, 0, sizeof(*c));
    c->magic = MAGIC_CURSOR;
    c->tree = tree;
    c->copy.env = engine->env; /* outlives the handle */
    if (instant) {
        snapshot = &c->own[0];
        status = bfti_instant_begin(engine, rec, tree->db, snapshot);
        if (status != BFT_OK) {
            bfti_free(engine->env, c);
            return status;
        }
    } else if (snapshot) {
        bfti_snapshot_use(snapshot);
    }
    c->snapshot = snapshot;
    c->txn = txn;
    if (txn)
        bfti_txn_use(txn);
    *out = c;
    return BFT_OK;
}

bft_status bft_cursor_open(bft_tree *tree, bft_cursor **out)
{
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_cursor_open: an output is NULL");
    *out = NULL;
    return cursor_open(tree, true, NULL, NULL, out);
}

bft_status bft_cursor_open_newest(bft_tree *tree, bft_cursor **out)
{
    if (!out)
        return bfti_fail(BFT_INVALID,
                         "bft_cursor_open_newest: an output is NULL");
    *out = NULL;
    return cursor_open(tree, false, NULL, NULL, out);
}

bft_status bft_snapshot_cursor(bft_snapshot *snapshot, bft_tree *tree,
                               bft_cursor **out)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_snapshot_cursor: an output is NULL");
    *out = NULL;
    status = bfti_snapshot_gate(snapshot, tree, &engine, &rec);
    return status == BFT_OK ? cursor_open(tree, false, snapshot, NULL, out)
                            : status;
}

bft_status bft_txn_cursor(bft_txn *txn, bft_tree *tree, bft_cursor **out)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_txn_cursor: an output is NULL");
    *out = NULL;
    status = bfti_txn_check(txn);
    if (status == BFT_OK)
        status =
            bfti_snapshot_gate(bfti_txn_snapshot(txn), tree, &engine, &rec);
    return status == BFT_OK
               ? cursor_open(tree, false, bfti_txn_snapshot(txn), txn, out)
               : status;
}

void bft_cursor_close(bft_cursor *c)
{
    struct bfti_rec *rec;
    if (!c || c->magic != MAGIC_CURSOR)
        return;
    drop_large(c);
    if (check(c, &rec) == BFT_OK) {
        bfti_count(rec, BFTI_N_STEPS, c->steps);
        learn(c, rec);
    }
    if (has_own(c))
        bfti_instant_end(c->snapshot);
    else
        bft_snapshot_release(c->snapshot);
    if (c->txn)
        bfti_txn_leave(c->txn);
    bfti_copy_free(&c->copy);
    c->magic = 0;
    bfti_free(c->copy.env, c);
}

bft_status bft_cursor_refresh(bft_cursor *c)
{
    struct bft_snapshot *next;
    struct bfti_rec *rec;
    bft_status status = check(c, &rec);
    if (status != BFT_OK)
        return status;
    if (c->snapshot && !has_own(c))
        return bfti_fail(BFT_INVALID, "the cursor is of a snapshot or of a "
                                      "transaction, which stays as it is");
    if (c->snapshot) {
        next = &c->own[c->snapshot == &c->own[0]];
        status =
            bfti_instant_begin(c->tree->db->engine, rec, c->tree->db, next);
        if (status != BFT_OK)
            return status;
        bfti_instant_end(c->snapshot);
        c->snapshot = next;
    }
    drop_large(c);
    c->where = NOWHERE;
    c->copy.valid = false;
    c->copy.ahead = 0;
    return BFT_OK;
}

/* --- bounds --------------------------------------------------------------- */

/* Off its record.  The copy was cut at the old bounds: it goes. */
static void set_bounds(bft_cursor *c, bft_slice low, bft_slice high)
{
    drop_large(c);
    c->where = NOWHERE;
    c->copy.valid = false;
    c->copy.ahead = 0;
    bfti_bound_set(&c->low, low);
    bfti_bound_set(&c->high, high);
}

bft_status bft_cursor_bounds(bft_cursor *c, bft_slice low, bft_slice high)
{
    struct bfti_rec *rec;
    bft_status status = check(c, &rec);
    if (status == BFT_OK)
        status = bfti_check_bound(low);
    if (status == BFT_OK)
        status = bfti_check_bound(high);
    if (status == BFT_OK)
        set_bounds(c, low, high);
    return status;
}

/* The least key above all keys with PREFIX into BUF; len 0: there is none. */
static bft_slice above_prefix(bft_slice prefix, uint8_t *buf)
{
    bft_slice above = {buf, prefix.len};
    if (prefix.len)
        memcpy(buf, prefix.data, prefix.len);
    while (above.len && buf[above.len - 1] == 0xff)
        above.len--;
    if (above.len)
        buf[above.len - 1]++;
    return above;
}

bft_status bft_cursor_prefix(bft_cursor *c, bft_slice prefix)
{
    struct bfti_rec *rec;
    uint8_t buf[BFT_KEY_MAX];
    bft_status status = check(c, &rec);
    if (status == BFT_OK)
        status = bfti_check_bound(prefix);
    if (status == BFT_OK)
        set_bounds(c, prefix, above_prefix(prefix, buf));
    return status;
}

/* --- within the copy ------------------------------------------------------ */

/* How many of the copy's records lie below KEY or, if OR_EQUAL, not above it. */
static size_t records_below(const struct bfti_copy *copy, bft_slice key,
                            bool or_equal)
{
    size_t low = 0, high = copy->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = bfti_key_compare(bfti_copy_key(copy, middle), key);
        if (order < 0 || (order == 0 && or_equal))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Has nothing been published since in what it is a copy of?  Leaves of a
 * truncated tree may be as they were, for a while. */
static inline bool is_fresh(const bft_cursor *c)
{
    return bfti_copy_fresh(&c->copy) && !atomic_load(&c->copied->successor) &&
           (!c->txn || c->seen == *bfti_txn_changes(c->txn)) && !has_aged(c);
}

/* Does the copy say what follows KEY? */
static bool covers_from(const struct bfti_copy *copy, bft_slice key)
{
    bft_slice low = bfti_bound_key(&copy->low);
    bft_slice high = bfti_bound_key(&copy->high);
    return bfti_copy_fresh(copy) &&
           (low.len == 0 || bfti_key_compare(low, key) <= 0) &&
           (high.len == 0 || bfti_key_compare(key, high) < 0);
}

/* Does it say what lies below KEY (len 0: at the end)? */
static bool covers_below(const struct bfti_copy *copy, bft_slice key,
                         bool or_equal)
{
    bft_slice low = bfti_bound_key(&copy->low);
    bft_slice high = bfti_bound_key(&copy->high);
    if (or_equal)
        return covers_from(copy, key);
    if (!bfti_copy_fresh(copy))
        return false;
    if (key.len == 0)
        return high.len == 0;
    return (low.len == 0 || bfti_key_compare(low, key) < 0) &&
           (high.len == 0 || bfti_key_compare(key, high) <= 0);
}

static void widen(bft_cursor *c)
{
    c->window *= WINDOW_FACTOR;
    if (c->window > WINDOW_MAX)
        c->window = WINDOW_MAX;
}

/* The copy is what the transaction's snapshot sees. */
static bft_status take_txn(bft_cursor *c, const struct bfti_copy_wish *wish)
{
    bft_status status = bfti_txn_lay(c->txn, c->copied, wish, &c->copy);
    c->seen = *bfti_txn_changes(c->txn);
    if (status == BFT_OK)
        status = bfti_txn_note(c->txn, c->copied, bfti_bound_key(&c->copy.low),
                               bfti_bound_key(&c->copy.high));
    if (status != BFT_OK)
        c->copy.valid = false;
    return status;
}

static bft_status take(bft_cursor *c, struct bfti_rec *rec, bft_slice key,
                       bool before, bool or_equal)
{
    struct bfti_copy_wish wish = {.key = key,
                                  .before = before,
                                  .or_equal = or_equal,
                                  .only = BFTI_COPY_ALL,
                                  .window = c->window,
                                  .low = bfti_bound_key(&c->low),
                                  .high = bfti_bound_key(&c->high)};
    const struct bfti_entry *last = c->copy.entry;
    bft_status status;
    bfti_count(rec, BFTI_N_STEPS, c->steps);
    c->steps = 0;
    if (c->back != before) {
        learn(c, rec);
        c->copy.ahead = 0;
        c->back = before;
    }
    do {
        c->copied = bfti_handle_tree(c->tree);
        look_ahead(c, rec, &wish);
        wish.now = c->snapshot ? bfti_snapshot_now(c->snapshot, c->copied)
                               : bfti_tree_now(c->copied);
        status = bfti_copy_shown(&c->copy, c->copied, rec, &wish,
                                 c->snapshot ? bfti_snapshot_number(c->snapshot)
                                             : BFTI_TOMB_NEWEST);
    } while (bfti_handle_moved(c->tree, c->copied, status));
    if (status == BFT_OK && (c->entered == 0 || c->copy.entry != last))
        c->entered++;
    if (status == BFT_OK && c->snapshot)
        status =
            bfti_copy_turn_back(&c->copy, c->copied, rec, &wish, c->snapshot);
    if (status == BFT_OK && c->txn)
        status = take_txn(c, &wish);
    return status;
}

static void show(bft_cursor *c, size_t index)
{
    c->where = ON;
    c->index = index;
    c->steps++;
}

/* The end of every scan: an everyday answer. */
static bft_status no_record(void)
{
    return bfti_fail_plain(BFT_NOT_FOUND, "the tree has no record there");
}

/* --- finding -------------------------------------------------------------- */

/* To the first record at KEY (behind it, if STRICT) or later. */
static bft_status forward(bft_cursor *c, struct bfti_rec *rec, bft_slice key,
                          bool strict)
{
    bft_slice low = bfti_bound_key(&c->low), high = bfti_bound_key(&c->high);
    struct bfti_bound from; /* a copy: KEY may lie in what is overwritten */
    if (low.len && bfti_key_compare(key, low) < 0) {
        key = low;
        strict = false;
    }
    bfti_bound_set(&from, key);
    key = bfti_bound_key(&from);
    /* Ends: KEY rises with each round. */
    while (high.len == 0 || bfti_key_compare(key, high) < 0) {
        size_t i;
        if (!covers_from(&c->copy, key)) {
            bft_status status = take(c, rec, key, false, false);
            if (status != BFT_OK)
                return status;
        }
        i = records_below(&c->copy, key, strict);
        if (i < c->copy.count) {
            show(c, i);
            return BFT_OK;
        }
        if (c->copy.high.len == 0)
            break;
        bfti_bound_set(&from, bfti_bound_key(&c->copy.high));
        key.len = from.len;
        strict = false;
        widen(c);
    }
    return no_record();
}

/* To the last record below KEY (or at it, if OR_EQUAL); len 0: the last. */
static bft_status backward(bft_cursor *c, struct bfti_rec *rec, bft_slice key,
                           bool or_equal)
{
    bft_slice low = bfti_bound_key(&c->low), high = bfti_bound_key(&c->high);
    struct bfti_bound to;
    if (high.len && (key.len == 0 || bfti_key_compare(key, high) >= 0)) {
        key = high;
        or_equal = false;
    }
    bfti_bound_set(&to, key);
    key = bfti_bound_key(&to);
    /* Ends: KEY falls with each round. */
    for (;;) {
        size_t i;
        if (low.len && key.len &&
            bfti_key_compare(key, low) < (or_equal ? 0 : 1))
            break;
        if (!covers_below(&c->copy, key, or_equal)) {
            bft_status status = take(c, rec, key, true, or_equal);
            if (status != BFT_OK)
                return status;
        }
        i = key.len ? records_below(&c->copy, key, or_equal) : c->copy.count;
        if (i > 0) {
            show(c, i - 1);
            return BFT_OK;
        }
        if (c->copy.low.len == 0)
            break;
        bfti_bound_set(&to, bfti_bound_key(&c->copy.low));
        key.len = to.len;
        or_equal = false;
        widen(c);
    }
    return no_record();
}

/* --- seeking -------------------------------------------------------------- */

/* A seek begins: it leaves the cursor unpositioned unless it succeeds. */
static bft_status begin_seek(bft_cursor *c, struct bfti_rec **rec)
{
    bft_status status = check(c, rec);
    if (status != BFT_OK)
        return status;
    learn(c, *rec);
    drop_large(c);
    c->where = NOWHERE;
    c->window = WINDOW_SEEK;
    c->copy.ahead = 0;
    return BFT_OK;
}

/* KEY itself; what is around it is not looked for. */
static bft_status seek_equal(bft_cursor *c, struct bfti_rec *rec, bft_slice key)
{
    bft_slice low = bfti_bound_key(&c->low), high = bfti_bound_key(&c->high);
    struct bfti_bound wanted; /* a copy: KEY may lie in what is overwritten */
    size_t i;
    if ((low.len && bfti_key_compare(key, low) < 0) ||
        (high.len && bfti_key_compare(key, high) >= 0))
        return no_record();
    bfti_bound_set(&wanted, key);
    key = bfti_bound_key(&wanted);
    if (!covers_from(&c->copy, key)) {
        bft_status status = take(c, rec, key, false, false);
        if (status != BFT_OK)
            return status;
    }
    i = records_below(&c->copy, key, false);
    if (i == c->copy.count ||
        bfti_key_compare(bfti_copy_key(&c->copy, i), key) != 0)
        return no_record();
    show(c, i);
    return BFT_OK;
}

bft_status bft_cursor_seek(bft_cursor *c, bft_seek how, bft_slice key)
{
    struct bfti_rec *rec;
    bft_status status = begin_seek(c, &rec);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    switch (how) {
    case BFT_GE:
        return forward(c, rec, key, false);
    case BFT_GT:
        return forward(c, rec, key, true);
    case BFT_LE:
        return backward(c, rec, key, true);
    case BFT_LT:
        return backward(c, rec, key, false);
    case BFT_EQ:
        return seek_equal(c, rec, key);
    default:
        return bfti_fail(BFT_INVALID, "seek %d is unknown", (int)how);
    }
}

static bft_status to_first(bft_cursor *c, struct bfti_rec *rec)
{
    bft_slice begin = {NULL, 0};
    return forward(c, rec, begin, false);
}

static bft_status to_last(bft_cursor *c, struct bfti_rec *rec)
{
    bft_slice end = {NULL, 0};
    return backward(c, rec, end, false);
}

bft_status bft_cursor_first(bft_cursor *c)
{
    struct bfti_rec *rec;
    bft_status status = begin_seek(c, &rec);
    return status == BFT_OK ? to_first(c, rec) : status;
}

bft_status bft_cursor_last(bft_cursor *c)
{
    struct bfti_rec *rec;
    bft_status status = begin_seek(c, &rec);
    return status == BFT_OK ? to_last(c, rec) : status;
}

/* --- stepping ------------------------------------------------------------- */

/* Leave the copy's record: the copy may go, so its key is kept. */
static void leave_record(bft_cursor *c, enum where where)
{
    if (c->where == ON)
        bfti_bound_set(&c->at, bfti_copy_key(&c->copy, c->index));
    if (c->where == NOWHERE)
        c->window = WINDOW_SEEK;
    else if (bfti_copy_fresh(&c->copy))
        widen(c);
    else
        c->window = WINDOW_STALE;
    if (c->where == ON)
        c->where = where;
}

/* After a step that found nothing the cursor is at that end.  After one that
 * failed it stays between the records where it was. */
static bft_status end_step(bft_cursor *c, bft_status status, enum where end)
{
    if (status == BFT_NOT_FOUND && c->where != NOWHERE)
        c->where = end;
    return status;
}

static bft_status step_next(bft_cursor *c, struct bfti_rec *rec)
{
    leave_record(c, BEHIND);
    if (c->where == NOWHERE)
        return to_first(c, rec);
    return end_step(
        c, forward(c, rec, bfti_bound_key(&c->at), c->where == BEHIND), BEHIND);
}

static bft_status step_prev(bft_cursor *c, struct bfti_rec *rec)
{
    leave_record(c, AHEAD);
    if (c->where == NOWHERE)
        return to_last(c, rec);
    return end_step(
        c, backward(c, rec, bfti_bound_key(&c->at), c->where == BEHIND), AHEAD);
}

bft_status bft_cursor_next(bft_cursor *c)
{
    struct bfti_rec *rec;
    bft_status status = check_open(c);
    if (status != BFT_OK)
        return status;
    drop_large(c);
    if (c->where == ON && c->index + 1 < c->copy.count && is_fresh(c)) {
        show(c, c->index + 1);
        return BFT_OK;
    }
    status = check(c, &rec);
    return status == BFT_OK ? step_next(c, rec) : status;
}

bft_status bft_cursor_prev(bft_cursor *c)
{
    struct bfti_rec *rec;
    bft_status status = check_open(c);
    if (status != BFT_OK)
        return status;
    drop_large(c);
    if (c->where == ON && c->index > 0 && is_fresh(c)) {
        show(c, c->index - 1);
        return BFT_OK;
    }
    status = check(c, &rec);
    return status == BFT_OK ? step_prev(c, rec) : status;
}

/* --- looking -------------------------------------------------------------- */

static bft_status check_record(const bft_cursor *c)
{
    bft_status status = check_open(c);
    if (status == BFT_OK && c->where != ON)
        status = bfti_fail(BFT_INVALID, "the cursor is on no record");
    return status;
}

bft_status bft_cursor_key(bft_cursor *c, bft_slice *key)
{
    bft_status status;
    if (!key)
        return bfti_fail(BFT_INVALID, "bft_cursor_key: an output is NULL");
    *key = (bft_slice){NULL, 0};
    status = check_record(c);
    if (status == BFT_OK)
        *key = bfti_copy_key(&c->copy, c->index);
    return status;
}

/* The copy has only a large value's reference. */
static bft_status fetch_large(bft_cursor *c)
{
    bft_slice key = bfti_copy_key(&c->copy, c->index);
    bft_status status =
        c->txn
            ? bft_txn_get_copy(c->txn, c->tree, key, &c->large, &c->large_len)
        : c->snapshot ? bft_snapshot_get_copy(c->snapshot, c->tree, key,
                                              &c->large, &c->large_len)
                      : bft_get_copy(c->tree, key, &c->large, &c->large_len);
    if (status == BFT_NOT_FOUND)
        return bfti_fail(BFT_NOT_FOUND,
                         "tree %s: the record was deleted since the cursor "
                         "came to it, before its large value was read",
                         bfti_handle_tree(c->tree)->name);
    return status;
}

static bft_status value_of(bft_cursor *c, bft_slice *value)
{
    bft_status status = BFT_OK;
    if (!(c->copy.record[c->index].flags & BFTI_REC_LARGE)) {
        *value = bfti_copy_value(&c->copy, c->index);
        return BFT_OK;
    }
    if (!c->large)
        status = fetch_large(c);
    if (status == BFT_OK)
        *value = (bft_slice){c->large, c->large_len};
    return status;
}

bft_status bft_cursor_value(bft_cursor *c, bft_slice *value)
{
    bft_status status;
    if (!value)
        return bfti_fail(BFT_INVALID, "bft_cursor_value: an output is NULL");
    *value = (bft_slice){NULL, 0};
    status = check_record(c);
    return status == BFT_OK ? value_of(c, value) : status;
}

bft_status bft_cursor_record(bft_cursor *c, bft_slice *key, bft_slice *value)
{
    bft_status status;
    if (!key || !value)
        return bfti_fail(BFT_INVALID, "bft_cursor_record: an output is NULL");
    status = check_record(c);
    if (status == BFT_OK)
        status = value_of(c, value);
    /* Not at first, and from each other: that costs more than all the rest. */
    if (status == BFT_OK)
        *key = bfti_copy_key(&c->copy, c->index);
    else
        *key = *value = (bft_slice){NULL, 0};
    return status;
}
