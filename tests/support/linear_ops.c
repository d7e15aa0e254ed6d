/* What the threads of a history do, and what is recorded of it. */
#include "linear_run.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    OTHERS_IN_BATCH = 6,
    SCAN_STEPS = 8,
    FAR = INT_MAX, /* behind all keys */
};

unsigned linear_below(struct linear_thread *t, unsigned limit)
{
    return (unsigned)(random_of(&t->random) % limit);
}

bft_tree *linear_tree(const struct linear_thread *t, unsigned key)
{
    return t->run->tree[key % LINEAR_TREES];
}

bft_slice linear_key(char buf[24], unsigned key, unsigned other)
{
    int len = other ? snprintf(buf, 24, "k%02u-%04u", key, other)
                    : snprintf(buf, 24, "k%02u", key);
    return (bft_slice){buf, (size_t)len};
}

bool linear_has_others(const struct linear_run *run, unsigned key)
{
    return run->o.others && !(run->o.loads && key % LINEAR_TREES == 1);
}

void linear_expect(struct linear_thread *t, bft_status status, const char *what)
{
    char text[160] = "";
    if (status == BFT_OK || t->error[0])
        return;
    (void)bft_last_error(text, sizeof(text));
    snprintf(t->error, sizeof(t->error), "%s: %s: %s", what,
             bft_strerror(status), text);
}

/* --- values --------------------------------------------------------------- */

/* Number and all bytes of a value follow from each other. */
bft_slice linear_value(const struct linear_run *run, uint8_t *buf,
                       uint32_t number)
{
    uint64_t random = random_mix(number);
    size_t len = sizeof(number) + random % 40;
    if (run->o.large && random / 64 % run->o.large == 0)
        len = LINEAR_VALUE_MAX / 2 + random % (LINEAR_VALUE_MAX / 2);
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(random >> i % 8 * 8);
    memcpy(buf, &number, sizeof(number));
    return (bft_slice){buf, len};
}

uint32_t linear_number(struct linear_thread *t, const void *data, size_t len)
{
    uint8_t expected[LINEAR_VALUE_MAX];
    uint32_t number = 0;
    bft_slice value;
    if (len >= sizeof(number))
        memcpy(&number, data, sizeof(number));
    value = linear_value(t->run, expected, number);
    if ((value.len != len || memcmp(expected, data, len) != 0) && !t->error[0])
        snprintf(t->error, sizeof(t->error),
                 "a value of %zu bytes, number %u, that nobody wrote", len,
                 number);
    return number;
}

/* No two writes of a run set the same. */
uint32_t linear_new_number(struct linear_thread *t)
{
    return ++t->run->serial[t->id] * LINEAR_THREADS + t->id;
}

/* --- recording ------------------------------------------------------------ */

uint64_t linear_tick(struct linear_thread *t)
{
    uint64_t now = atomic_fetch_add(&t->run->now, 1) + 1;
    if (t->run->o.yield && linear_below(t, 2 * t->run->o.yield) == 0)
        sched_yield();
    return now;
}

static struct linear_op called(struct linear_thread *t, enum linear_kind kind,
                               unsigned key)
{
    struct linear_op op;
    memset(&op, 0, sizeof(op));
    op.kind = kind;
    op.thread = t->id;
    op.key = key;
    op.call = linear_tick(t);
    return op;
}

static void ended(struct linear_thread *t, struct linear_op *op)
{
    op->end = linear_tick(t);
    linear_add(&t->history, op);
}

/* KEY had VALUE at some time from CALL to END, or at that of what the thread
 * reads by. */
static void saw(struct linear_thread *t, unsigned key, uint32_t value,
                uint64_t call, uint64_t end)
{
    struct linear_op op;
    if (t->into) {
        linear_txn_read(t->into, key, value);
        return;
    }
    memset(&op, 0, sizeof(op));
    op.kind = LINEAR_GET;
    op.thread = t->id;
    op.key = key;
    op.expected = value;
    op.call = call;
    op.end = end;
    linear_add(&t->history, &op);
    t->known[key] = value;
}

/* --- one key --------------------------------------------------------------- */

/* Of the functions that read one value, any. */
static bft_status get_any(struct linear_thread *t, unsigned key, uint8_t *buf,
                          size_t *len)
{
    char kbuf[24];
    bft_slice name = linear_key(kbuf, key, 0);
    void *copy;
    bft_status status;
    switch (linear_below(t, 4)) {
    case 0:
        status = bft_get_copy(linear_tree(t, key), name, &copy, len);
        if (status == BFT_OK && *len <= LINEAR_VALUE_MAX)
            memcpy(buf, copy, *len);
        bft_free(copy);
        return status;
    case 1:
        return bft_get_range(linear_tree(t, key), name, 0, buf,
                             LINEAR_VALUE_MAX, len);
    default:
        return bft_get(linear_tree(t, key), name, buf, LINEAR_VALUE_MAX, len);
    }
}

void linear_do_get(struct linear_thread *t, unsigned key)
{
    uint8_t buf[LINEAR_VALUE_MAX];
    size_t len;
    struct linear_op op = called(t, LINEAR_GET, key);
    bft_status status = get_any(t, key, buf, &len);
    op.expected = LINEAR_ABSENT;
    if (status == BFT_OK)
        op.expected = linear_number(t, buf, len);
    else if (status != BFT_NOT_FOUND)
        linear_expect(t, status, "get");
    ended(t, &op);
    t->known[key] = op.expected;
}

static void do_put(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    uint8_t buf[LINEAR_VALUE_MAX];
    uint32_t number = linear_new_number(t);
    bft_slice name = linear_key(kbuf, key, 0);
    bft_slice value = linear_value(t->run, buf, number);
    struct linear_op op = called(t, LINEAR_PUT, key);
    linear_set(&op, key, number);
    linear_expect(t, bft_put(linear_tree(t, key), name, value), "put");
    ended(t, &op);
    t->known[key] = number;
}

static void do_delete(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    bft_slice name = linear_key(kbuf, key, 0);
    struct linear_op op = called(t, LINEAR_DELETE, key);
    linear_set(&op, key, LINEAR_ABSENT);
    linear_expect(t, bft_delete(linear_tree(t, key), name), "delete");
    ended(t, &op);
    t->known[key] = LINEAR_ABSENT;
}

static void do_insert(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    uint8_t buf[LINEAR_VALUE_MAX];
    uint32_t number = linear_new_number(t);
    bft_slice name = linear_key(kbuf, key, 0);
    bft_slice value = linear_value(t->run, buf, number);
    struct linear_op op = called(t, LINEAR_INSERT, key);
    bft_status status = bft_insert(linear_tree(t, key), name, value);
    if (status == BFT_EXISTS) {
        op.kind = LINEAR_EXISTS;
    } else {
        linear_expect(t, status, "insert");
        linear_set(&op, key, number);
        t->known[key] = number;
    }
    ended(t, &op);
}

/* From what it knows of the key, now and then from something else. */
static void do_replace(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    uint8_t old_buf[LINEAR_VALUE_MAX], new_buf[LINEAR_VALUE_MAX];
    uint32_t old = t->known[key], number = linear_new_number(t);
    bool removes = old != LINEAR_ABSENT && linear_below(t, 4) == 0;
    bft_slice name = linear_key(kbuf, key, 0);
    bft_slice expected = linear_value(t->run, old_buf, old);
    bft_slice value = linear_value(t->run, new_buf, number);
    struct linear_op op = called(t, LINEAR_REPLACE, key);
    bft_status status = bft_replace(linear_tree(t, key), name,
                                    old == LINEAR_ABSENT ? NULL : &expected,
                                    removes ? NULL : &value);
    op.expected = old;
    if (status == BFT_CONFLICT) {
        op.kind = LINEAR_CONFLICT;
    } else {
        linear_expect(t, status, "replace");
        linear_set(&op, key, removes ? LINEAR_ABSENT : number);
        t->known[key] = op.value[key];
    }
    ended(t, &op);
}

/* --- many keys -------------------------------------------------------------- */

/* Records that the history does not tell of, so that batches come in all
 * sizes. */
static void batch_others(struct linear_thread *t, unsigned key)
{
    uint8_t buf[64] = {0};
    for (unsigned n = linear_below(t, OTHERS_IN_BATCH);
         n-- > 0 && linear_has_others(t->run, key);) {
        char kbuf[24];
        bft_slice name =
            linear_key(kbuf, key, 1 + linear_below(t, t->run->o.others));
        bft_slice value = {buf, 1 + linear_below(t, sizeof(buf))};
        linear_expect(t,
                      bft_batch_put(t->batch, linear_tree(t, key), name, value),
                      "batch put");
    }
}

static void batch_one(struct linear_thread *t, struct linear_op *op,
                      unsigned key)
{
    char kbuf[24];
    uint8_t buf[LINEAR_VALUE_MAX];
    uint32_t number = linear_new_number(t);
    bft_slice name = linear_key(kbuf, key, 0);
    bft_slice value = linear_value(t->run, buf, number);
    bft_status status;
    if (linear_below(t, 4) == 0) {
        status = bft_batch_delete(t->batch, linear_tree(t, key), name);
        number = LINEAR_ABSENT;
    } else {
        status = bft_batch_put(t->batch, linear_tree(t, key), name, value);
    }
    linear_expect(t, status, "batch change");
    linear_set(op, key, number); /* the last change of a key wins */
    t->known[key] = number;
}

static void do_batch(struct linear_thread *t, unsigned key)
{
    struct linear_op op;
    uint64_t call;
    memset(&op, 0, sizeof(op));
    batch_one(t, &op, key);
    for (unsigned n = 1 + linear_below(t, 3); n-- > 0;) {
        unsigned other = linear_below(t, t->run->o.keys);
        if (t->run->o.truncates && other % LINEAR_TREES != key % LINEAR_TREES)
            continue;
        batch_one(t, &op, other);
    }
    batch_others(t, key);
    call = linear_tick(t);
    linear_expect(t, bft_batch_commit(t->batch, BFT_DEFAULT, NULL), "commit");
    op.kind = LINEAR_BATCH;
    op.thread = t->id;
    op.call = call;
    ended(t, &op);
}

/* The second tree: that one keeps its name.  Not while a snapshot is open. */
static bool do_truncate(struct linear_thread *t)
{
    struct linear_op op = called(t, LINEAR_BATCH, 0);
    bft_status status = bft_tree_truncate(t->run->f->db, "two");
    for (unsigned k = 1; k < t->run->o.keys; k += LINEAR_TREES)
        linear_set(&op, k, LINEAR_ABSENT);
    if (status == BFT_BUSY && t->run->o.pasts) {
        atomic_fetch_add(&t->run->busy, 1);
        return false;
    }
    linear_expect(t, status, "truncate");
    atomic_fetch_add(&t->run->truncated, 1);
    ended(t, &op);
    return true;
}

struct load {
    struct linear_thread *t;
    struct linear_op *op;
    unsigned key;
    char kbuf[24];
    uint8_t vbuf[LINEAR_VALUE_MAX];
};

static bft_status load_next(void *ctx, bft_bulk_record *record)
{
    struct load *l = ctx;
    struct linear_run *run = l->t->run;
    uint32_t number;
    while (l->key < run->o.keys && linear_below(l->t, 3) == 0)
        l->key += LINEAR_TREES;
    if (l->key >= run->o.keys)
        return BFT_NOT_FOUND;
    number = linear_new_number(l->t);
    linear_set(l->op, l->key, number);
    record->key = linear_key(l->kbuf, l->key, 0);
    record->value = linear_value(run, l->vbuf, number);
    l->key += LINEAR_TREES;
    return BFT_OK;
}

/* The second tree, if it is empty: it has no other records than these. */
static void do_load(struct linear_thread *t)
{
    struct linear_op op = called(t, LINEAR_COMMIT, 0);
    struct load load = {.t = t, .op = &op, .key = 1};
    bft_status status =
        bft_bulk_load(t->run->tree[1], NULL, load_next, &load, NULL);
    for (unsigned k = 1; k < t->run->o.keys; k += LINEAR_TREES)
        op.reads |= 1u << k; /* LINEAR_ABSENT */
    if (status == BFT_EXISTS || (status == BFT_BUSY && t->run->o.pasts))
        return;
    linear_expect(t, status, "bulk load");
    if (op.writes == 0)
        return; /* nothing was looked at */
    atomic_fetch_add(&t->run->loaded, 1);
    ended(t, &op);
}

static void do_multi_get(struct linear_thread *t, unsigned key)
{
    enum { MAX = 4 };
    char kbuf[MAX][24];
    uint8_t buf[MAX][LINEAR_VALUE_MAX];
    bft_answer item[MAX];
    unsigned asked[MAX], count = 2 + linear_below(t, MAX - 1);
    uint64_t call, end;
    for (unsigned i = 0; i < count; i++) {
        asked[i] = (key + LINEAR_TREES * linear_below(t, t->run->o.keys)) %
                   (t->run->o.keys / LINEAR_TREES * LINEAR_TREES);
        item[i] = (bft_answer){.key = linear_key(kbuf[i], asked[i], 0),
                               .buf = buf[i],
                               .buf_len = sizeof(buf[i])};
    }
    call = linear_tick(t);
    linear_expect(t, bft_multi_get(linear_tree(t, key), item, count),
                  "multi-get");
    end = linear_tick(t);
    for (unsigned i = 0; i < count; i++)
        saw(t, asked[i],
            item[i].status == BFT_OK
                ? linear_number(t, buf[i], item[i].value_len)
                : LINEAR_ABSENT,
            call, end);
}

static void do_delete_range(struct linear_thread *t, unsigned key)
{
    char low[24], high[24];
    unsigned to = key + 1 + linear_below(t, 2 * LINEAR_TREES);
    uint64_t call = linear_tick(t), end;
    linear_expect(t,
                  bft_delete_range(linear_tree(t, key), linear_key(low, key, 0),
                                   linear_key(high, to, 0), NULL),
                  "delete range");
    end = linear_tick(t);
    for (unsigned k = key; k < to && k < t->run->o.keys; k += LINEAR_TREES) {
        struct linear_op op;
        memset(&op, 0, sizeof(op));
        op.kind = LINEAR_DELETE;
        op.thread = t->id;
        op.key = k;
        op.call = call;
        op.end = end;
        linear_set(&op, k, LINEAR_ABSENT);
        linear_add(&t->history, &op);
        t->known[k] = LINEAR_ABSENT;
    }
}

/* --- in order ------------------------------------------------------------- */

/* Where a record stands: two for each key, itself and those behind it. */
static int position(bft_slice name)
{
    const char *text = name.data;
    int key = (text[1] - '0') * 10 + text[2] - '0';
    return 2 * key + (name.len > 3);
}

/* The keys of the tree of KEY between two positions were absent. */
static void saw_none(struct linear_thread *t, unsigned key, int from, int to,
                     uint64_t call, uint64_t end)
{
    int low = from < to ? from : to, high = from < to ? to : from;
    for (unsigned k = key % LINEAR_TREES; k < t->run->o.keys; k += LINEAR_TREES)
        if (2 * (int)k > low && 2 * (int)k < high)
            saw(t, k, LINEAR_ABSENT, call, end);
}

/* The record at NAME has been shown, coming from FROM; returns where it is. */
static int saw_record(struct linear_thread *t, unsigned key, int from,
                      bft_slice name, bft_slice value, const uint64_t time[3])
{
    int at = position(name);
    /* A large value is fetched when asked for, and may be another by then, of
     * any length. */
    bool late = t->run->o.large != 0;
    saw_none(t, key, from, at, time[0], time[1]);
    if (at % 2 == 0)
        saw(t, (unsigned)at / 2, linear_number(t, value.data, value.len),
            time[0], late ? time[2] : time[1]);
    return at;
}

/* Positions from which a seek looks, and what it looks for. */
static bft_status seek(struct linear_thread *t, bft_cursor *cursor,
                       unsigned key, int *from, int *to)
{
    char kbuf[24];
    bft_slice name = linear_key(kbuf, key, 0);
    int at = 2 * (int)key;
    *to = FAR;
    switch (linear_below(t, 6)) {
    case 0:
        *from = at - 1;
        return bft_cursor_seek(cursor, BFT_GE, name);
    case 1:
        *from = at;
        return bft_cursor_seek(cursor, BFT_GT, name);
    case 2:
        *from = at + 1;
        *to = -1;
        return bft_cursor_seek(cursor, BFT_LE, name);
    case 3:
        *from = at;
        *to = -1;
        return bft_cursor_seek(cursor, BFT_LT, name);
    case 4:
        *from = -1;
        return bft_cursor_first(cursor);
    default:
        *from = FAR;
        *to = -1;
        return bft_cursor_last(cursor);
    }
}

void linear_walk(struct linear_thread *t, bft_cursor *cursor, unsigned key)
{
    int from, to;
    uint64_t time[3] = {0}; /* call, end, and when the value was there */
    bft_status status;
    bool forward;
    time[0] = linear_tick(t);
    status = seek(t, cursor, key, &from, &to);
    forward = to == FAR;
    for (unsigned step = 0;; step++) {
        bft_slice name, value;
        time[1] = linear_tick(t);
        if (status != BFT_OK)
            break;
        status = bft_cursor_record(cursor, &name, &value);
        time[2] = linear_tick(t);
        if (status == BFT_OK)
            from = saw_record(t, key, from, name, value, time);
        if (status != BFT_OK || step == SCAN_STEPS)
            break;
        if (linear_below(t, 8) == 0)
            forward = !forward;
        to = forward ? FAR : -1;
        time[0] = linear_tick(t);
        status = forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
    }
    if (status == BFT_NOT_FOUND && time[2] < time[1])
        saw_none(t, key, from, to, time[0], time[1]);
    else if (status != BFT_NOT_FOUND)
        linear_expect(t, status, "cursor step");
}

static void do_scan(struct linear_thread *t, unsigned key)
{
    bft_cursor *cursor;
    linear_expect(t, bft_cursor_open_newest(linear_tree(t, key), &cursor),
                  "cursor");
    if (!cursor)
        return;
    linear_walk(t, cursor, key);
    bft_cursor_close(cursor);
}

/* The first or last of the records from KEY on, or up to it. */
static void do_end(struct linear_thread *t, unsigned key)
{
    char kbuf[24];
    bft_slice name = linear_key(kbuf, key, 0), none = {NULL, 0};
    bool first = linear_below(t, 2);
    bft_record *record;
    uint64_t time[3];
    bft_status status;
    int from = first ? 2 * (int)key - 1 : 2 * (int)key;
    time[0] = linear_tick(t);
    status = first ? bft_first(linear_tree(t, key), name, none, &record)
                   : bft_last(linear_tree(t, key), none, name, &record);
    time[1] = time[2] = linear_tick(t);
    if (status == BFT_OK)
        (void)saw_record(t, key, from, record->key, record->value, time);
    else if (status == BFT_NOT_FOUND)
        saw_none(t, key, from, first ? FAR : -1, time[0], time[1]);
    else
        linear_expect(t, status, "first or last");
    bft_free(record);
}

void linear_do(struct linear_thread *t)
{
    static const struct {
        unsigned share;
        void (*run)(struct linear_thread *t, unsigned key);
    } kinds[] = {
        {24, linear_do_get},  {14, do_put},     {8, do_delete},
        {9, do_insert},       {12, do_replace}, {14, do_batch},
        {6, do_multi_get},    {7, do_scan},     {3, do_end},
        {2, do_delete_range},
    };
    unsigned key = linear_below(t, t->run->o.keys), pick = linear_below(t, 99);
    if (t->run->o.loads && linear_below(t, 4))
        key -= key % LINEAR_TREES; /* or no load would find the tree empty */
    if (t->run->o.truncates && linear_below(t, 60) == 0) {
        if (do_truncate(t) && t->run->o.loads)
            do_load(t);
        return;
    }
    if (linear_below(t, 100) < t->run->o.pasts) {
        linear_do_past(t, key);
        return;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (pick < kinds[i].share) {
            kinds[i].run(t, key);
            return;
        }
        pick -= kinds[i].share;
    }
}
