/*
 * Transactions: what they see, when they may be committed, and that of those that
 * may not nothing is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_map.h"
#include "random.h"

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void put(bft_tree *tree, const char *key, const char *value)
{
    expect_ok(bft_put(tree, text_slice(key), text_slice(value)));
}

static void txn_put(bft_txn *txn, bft_tree *tree, const char *key,
                    const char *value)
{
    expect_ok(bft_txn_put(txn, tree, text_slice(key), text_slice(value)));
}

static void is_value(const char *value, bft_status status, const char *buf,
                     size_t len)
{
    expect_status(value ? BFT_OK : BFT_NOT_FOUND, status);
    if (value) {
        assert_int_equal(strlen(value), len);
        assert_memory_equal(value, buf, len);
    }
}

static void txn_sees(bft_txn *txn, bft_tree *tree, const char *key,
                     const char *value)
{
    char buf[64];
    size_t len;
    bft_status status =
        bft_txn_get(txn, tree, text_slice(key), buf, sizeof(buf), &len);
    is_value(value, status, buf, len);
}

static void all_see(bft_tree *tree, const char *key, const char *value)
{
    char buf[64];
    size_t len;
    bft_status status = bft_get(tree, text_slice(key), buf, sizeof(buf), &len);
    is_value(value, status, buf, len);
}

static bft_txn *begin(struct engine_fixture *f, bft_isolation isolation)
{
    bft_txn *txn;
    expect_ok(bft_txn_begin(f->db, isolation, &txn));
    return txn;
}

/* --- what they see ---------------------------------------------------------- */

static void a_transaction_sees_its_instant_and_its_writes(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *one = engine_tree(f, "one", 0), *two = engine_tree(f, "two", 0);
    bft_txn *txn;
    uint64_t lsn;
    (void)state;
    put(one, "a", "1");
    put(two, "a", "2");
    txn = begin(f, BFT_SNAPSHOT_ISOLATION);
    txn_put(txn, one, "b", "mine");
    txn_put(txn, one, "b", "mine again");
    expect_ok(bft_txn_delete(txn, two, text_slice("a")));
    put(one, "c", "others'");
    txn_sees(txn, one, "a", "1");
    txn_sees(txn, one, "b", "mine again");
    txn_sees(txn, one, "c", NULL);
    txn_sees(txn, two, "a", NULL);
    all_see(one, "b", NULL);
    all_see(two, "a", "2");
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, &lsn));
    assert_true(lsn > 0);
    all_see(one, "b", "mine again");
    all_see(two, "a", NULL);
    txn = begin(f, BFT_SERIALIZABLE);
    txn_put(txn, one, "b", "never");
    bft_txn_abort(txn);
    all_see(one, "b", "mine again");
    engine_reopen(f);
    one = engine_tree(f, "one", 0);
    all_see(one, "b", "mine again");
    engine_fixture_free(f);
}

static void a_cursor_shows_writes_that_come_while_it_is_open(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    static const char *keys[] = {"a", "b", "c", "d"};
    bft_cursor *cursor;
    bft_slice key;
    bft_txn *txn;
    (void)state;
    put(tree, "a", "1");
    put(tree, "c", "1");
    put(tree, "e", "1");
    txn = begin(f, BFT_SERIALIZABLE);
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    expect_ok(bft_cursor_first(cursor));
    txn_put(txn, tree, "b", "2");
    txn_put(txn, tree, "d", "2");
    expect_ok(bft_txn_delete(txn, tree, text_slice("e")));
    for (size_t i = 0; i < 4; i++) {
        expect_ok(bft_cursor_key(cursor, &key));
        assert_memory_equal(keys[i], key.data, 1);
        expect_status(i < 3 ? BFT_OK : BFT_NOT_FOUND, bft_cursor_next(cursor));
    }
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    expect_status(BFT_INVALID, bft_cursor_first(cursor));
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

/* --- when they may be ------------------------------------------------------- */

static void of_two_writers_of_a_key_one_is_first(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    (void)state;
    for (int isolation = 0; isolation < 2; isolation++) {
        bft_txn *one, *two;
        put(tree, "a", "0");
        one = begin(f, (bft_isolation)isolation);
        two = begin(f, (bft_isolation)isolation);
        txn_put(one, tree, "a", "1");
        txn_put(two, tree, "a", "2");
        txn_put(two, tree, "b", "2");
        expect_ok(bft_txn_commit(one, BFT_DEFAULT, NULL));
        expect_status(BFT_CONFLICT, bft_txn_commit(two, BFT_DEFAULT, NULL));
        all_see(tree, "a", "1");
        all_see(tree, "b", NULL);
        /* Whoever begins behind it sees it. */
        two = begin(f, (bft_isolation)isolation);
        txn_put(two, tree, "a", "2");
        expect_ok(bft_txn_commit(two, BFT_DEFAULT, NULL));
        all_see(tree, "a", "2");
    }
    engine_fixture_free(f);
}

/* Each reads what the other writes. */
static bft_status skew(struct engine_fixture *f, bft_tree *tree,
                       bft_isolation isolation)
{
    bft_txn *one = begin(f, isolation), *two = begin(f, isolation);
    txn_sees(one, tree, "x", "0");
    txn_sees(two, tree, "y", "0");
    txn_put(one, tree, "y", "1");
    txn_put(two, tree, "x", "1");
    expect_ok(bft_txn_commit(one, BFT_DEFAULT, NULL));
    return bft_txn_commit(two, BFT_DEFAULT, NULL);
}

static void reads_count_if_it_is_serializable(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_txn *txn;
    (void)state;
    put(tree, "x", "0");
    put(tree, "y", "0");
    expect_status(BFT_CONFLICT, skew(f, tree, BFT_SERIALIZABLE));
    put(tree, "x", "0");
    put(tree, "y", "0");
    expect_ok(skew(f, tree, BFT_SNAPSHOT_ISOLATION));
    /* One that writes nothing is as of its instant. */
    txn = begin(f, BFT_SERIALIZABLE);
    txn_sees(txn, tree, "x", "1");
    put(tree, "x", "2");
    txn_sees(txn, tree, "x", "1");
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    /* What is as it was is no conflict. */
    txn = begin(f, BFT_SERIALIZABLE);
    txn_sees(txn, tree, "x", "2");
    txn_put(txn, tree, "z", "1");
    put(tree, "x", "3");
    put(tree, "x", "2");
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    engine_fixture_free(f);
}

static bft_status phantom(struct engine_fixture *f, bft_tree *tree,
                          const char *key)
{
    bft_txn *txn = begin(f, BFT_SERIALIZABLE);
    bft_cursor *cursor;
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    expect_ok(bft_cursor_bounds(cursor, text_slice("b"), text_slice("d")));
    expect_ok(bft_cursor_first(cursor));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    txn_put(txn, tree, "z", "1");
    put(tree, key, "new");
    return bft_txn_commit(txn, BFT_DEFAULT, NULL);
}

static void a_record_that_was_not_there_counts(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_txn *txn;
    (void)state;
    put(tree, "b", "1");
    expect_status(BFT_CONFLICT, phantom(f, tree, "c"));
    expect_ok(bft_delete(tree, text_slice("c")));
    expect_ok(phantom(f, tree, "a"));
    expect_ok(phantom(f, tree, "d"));
    txn = begin(f, BFT_SERIALIZABLE);
    txn_sees(txn, tree, "absent", NULL);
    txn_put(txn, tree, "z", "2");
    put(tree, "absent", "no more");
    expect_status(BFT_CONFLICT, bft_txn_commit(txn, BFT_DEFAULT, NULL));
    engine_fixture_free(f);
}

/* --- against a map ---------------------------------------------------------- */

enum { TREES = 2, OPEN = 3, KEYS = 120, STEPS = 4000, LONG = 100 * 1000 };

struct deal {
    bft_txn *txn;
    bft_isolation isolation;
    struct model_map was[TREES]; /* when it began */
    struct model_map sees[TREES];
    bool read[TREES][KEYS], wrote[TREES][KEYS];
};

struct world {
    struct engine_fixture *f;
    bft_tree *tree[TREES];
    struct model_map now[TREES];
    struct deal deal[OPEN];
    uint8_t value[LONG];
};

static bft_slice key_of(size_t n, char buf[32])
{
    int len = snprintf(buf, 32, "key%03zu", n);
    return (bft_slice){buf, (size_t)len};
}

static struct model_value draw_value(void)
{
    struct model_value value = {random_next(), random_below(60)};
    if (random_below(60) == 0)
        value.len = random_below(random_below(2) ? 5000 : LONG);
    return value;
}

static void maps_copy(struct model_map *to, const struct model_map *from)
{
    for (size_t t = 0; t < TREES; t++) {
        model_map_clear(&to[t]);
        for (size_t i = 0; i < from[t].count; i++)
            model_map_put(&to[t], model_map_key(&from[t], i),
                          from[t].record[i].value);
    }
}

static bool same(const struct model_map *a, const struct model_map *b,
                 bft_slice key)
{
    const struct model_value *x = model_map_get(a, key);
    const struct model_value *y = model_map_get(b, key);
    return (!x && !y) ||
           (x && y && x->len == y->len && (x->seed == y->seed || x->len == 0));
}

static void deal_begin(struct world *w, struct deal *d)
{
    memset(d->read, 0, sizeof(d->read));
    memset(d->wrote, 0, sizeof(d->wrote));
    d->isolation = (bft_isolation)random_below(2);
    d->txn = begin(w->f, d->isolation);
    maps_copy(d->was, w->now);
    maps_copy(d->sees, w->now);
}

static void deal_write(struct world *w, struct deal *d, size_t t, size_t n)
{
    char buf[32];
    bft_slice key = key_of(n, buf);
    struct model_value value = draw_value();
    d->wrote[t][n] = true;
    if (random_below(3) == 0) {
        expect_ok(bft_txn_delete(d->txn, w->tree[t], key));
        model_map_delete(&d->sees[t], key);
        return;
    }
    if (value.len > 5000)
        value.len = 5000; /* within an eighth of the budget */
    model_value_bytes(value, 0, w->value, value.len);
    expect_ok(
        bft_txn_put(d->txn, w->tree[t], key, (bft_slice){w->value, value.len}));
    model_map_put(&d->sees[t], key, value);
}

static void deal_read(struct world *w, struct deal *d, size_t t, size_t n)
{
    char buf[32];
    bft_slice key = key_of(n, buf);
    const struct model_value *value = model_map_get(&d->sees[t], key);
    void *got;
    size_t len;
    d->read[t][n] = d->read[t][n] || !d->wrote[t][n];
    expect_status(value ? BFT_OK : BFT_NOT_FOUND,
                  bft_txn_get_copy(d->txn, w->tree[t], key, &got, &len));
    if (value) {
        assert_int_equal(value->len, len);
        assert_true(model_value_is(*value, 0, got, len));
    }
    bft_free(got);
}

/* A part of a tree, in either direction. */
static void deal_scan(struct world *w, struct deal *d, size_t t)
{
    char a[32], b[32];
    size_t from = random_below(KEYS), to = from + random_below(20);
    bool back = random_below(2), found;
    bft_slice low = key_of(from, a), high = key_of(to, b), key, value;
    struct model_map *map = &d->sees[t];
    size_t i = model_map_search(map, low, &found);
    size_t end = model_map_search(map, high, &found);
    bft_cursor *cursor;
    bft_status status;
    expect_ok(bft_txn_cursor(d->txn, w->tree[t], &cursor));
    expect_ok(bft_cursor_bounds(cursor, low, high));
    status = back ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
    for (; i < end; back ? end-- : i++) {
        size_t at = back ? end - 1 : i;
        expect_ok(status);
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_int_equal(0, bfti_key_compare(model_map_key(map, at), key));
        assert_int_equal(map->record[at].value.len, value.len);
        assert_true(
            model_value_is(map->record[at].value, 0, value.data, value.len));
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    for (size_t n = from; n < to && n < KEYS; n++)
        d->read[t][n] = d->read[t][n] || !d->wrote[t][n];
}

/* It may be committed if what counts is as it was. */
static void deal_commit(struct world *w, struct deal *d)
{
    bool may = true, wrote = false;
    bft_status status;
    for (size_t t = 0; t < TREES; t++)
        for (size_t n = 0; n < KEYS; n++) {
            char buf[32];
            bft_slice key = key_of(n, buf);
            wrote = wrote || d->wrote[t][n];
            if ((d->wrote[t][n] ||
                 (d->isolation == BFT_SERIALIZABLE && d->read[t][n])) &&
                !same(&d->was[t], &w->now[t], key))
                may = false;
        }
    status = bft_txn_commit(d->txn, BFT_DEFAULT, NULL);
    expect_status(may || !wrote ? BFT_OK : BFT_CONFLICT, status);
    for (size_t t = 0; status == BFT_OK && t < TREES; t++)
        for (size_t n = 0; n < KEYS; n++) {
            char buf[32];
            bft_slice key = key_of(n, buf);
            const struct model_value *value = model_map_get(&d->sees[t], key);
            if (d->wrote[t][n] && value)
                model_map_put(&w->now[t], key, *value);
            else if (d->wrote[t][n])
                model_map_delete(&w->now[t], key);
        }
    d->txn = NULL;
}

static void deal_step(struct world *w, struct deal *d)
{
    size_t t = random_below(TREES), n = random_below(KEYS);
    switch (random_below(10)) {
    case 0:
        if (random_below(2)) {
            deal_commit(w, d);
        } else if (random_below(3) == 0) {
            bft_txn_abort(d->txn);
            d->txn = NULL;
        }
        break;
    case 1:
        deal_scan(w, d, t);
        break;
    case 2:
    case 3:
    case 4:
        deal_write(w, d, t, n);
        break;
    default:
        deal_read(w, d, t, n);
    }
}

static void plain_step(struct world *w)
{
    size_t t = random_below(TREES);
    char buf[32];
    bft_slice key = key_of(random_below(KEYS), buf);
    struct model_value value = draw_value();
    if (random_below(3) == 0) {
        expect_ok(bft_delete(w->tree[t], key));
        model_map_delete(&w->now[t], key);
        return;
    }
    model_value_bytes(value, 0, w->value, value.len);
    expect_ok(bft_put(w->tree[t], key, (bft_slice){w->value, value.len}));
    model_map_put(&w->now[t], key, value);
}

static void commits_are_those_that_may_be(void **state)
{
    static struct world w;
    (void)state;
    w.f = engine_fixture_open(ENGINE_MEMORY);
    for (size_t t = 0; t < TREES; t++)
        w.tree[t] = engine_tree(w.f, t ? "one" : "zero", 0);
    for (size_t i = 0; i < STEPS; i++) {
        struct deal *d = &w.deal[random_below(OPEN)];
        if (random_below(6) == 0)
            plain_step(&w);
        else if (d->txn)
            deal_step(&w, d);
        else
            deal_begin(&w, d);
    }
    for (size_t i = 0; i < OPEN; i++) {
        if (w.deal[i].txn)
            deal_commit(&w, &w.deal[i]);
        for (size_t t = 0; t < TREES; t++) {
            model_map_clear(&w.deal[i].was[t]);
            model_map_clear(&w.deal[i].sees[t]);
        }
    }
    for (size_t t = 0; t < TREES; t++) {
        uint64_t records;
        bft_slice none = {NULL, 0};
        expect_ok(bft_count(w.tree[t], none, none, &records));
        assert_int_equal(w.now[t].count, records);
        model_map_clear(&w.now[t]);
    }
    expect_ok(bft_verify(w.f->db));
    engine_fixture_free(w.f);
}

/* --- what is kept ------------------------------------------------------------ */

static void scan_all(bft_cursor *cursor, bool forward, unsigned records)
{
    bft_status status =
        forward ? bft_cursor_first(cursor) : bft_cursor_last(cursor);
    for (; status == BFT_OK; records--)
        status = forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(0, records);
}

/* Neighbouring reads are kept as one, whichever way they went: there are far more
 * leaves, which were emptied, than there is room for the bounds of. */
static void a_scan_takes_no_more_room_the_longer_it_is(void **state)
{
    enum { RECORDS = 3000 };
    (void)state;
    for (int forward = 0; forward < 2; forward++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        bft_cursor *cursor;
        bft_tree *tree;
        bft_txn *txn;
        char key[120];
        f->options.memory_bytes = 256 << 10;
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        for (unsigned i = 0; i < RECORDS; i++) {
            snprintf(key, sizeof(key), "%0100u", i);
            put(tree, key, "v");
        }
        for (unsigned i = 1; i < RECORDS - 1; i++) {
            snprintf(key, sizeof(key), "%0100u", i);
            expect_ok(bft_delete(tree, text_slice(key)));
        }
        txn = begin(f, BFT_SERIALIZABLE);
        expect_ok(bft_txn_cursor(txn, tree, &cursor));
        scan_all(cursor, forward, 2);
        bft_cursor_close(cursor);
        /* And all of it counts as read. */
        put(tree, key, "other");
        txn_put(txn, tree, "more", "v");
        expect_status(BFT_CONFLICT, bft_txn_commit(txn, BFT_DEFAULT, NULL));
        engine_fixture_free(f);
    }
}

/* Record I of those below, whose value says how often it was set. */
static bft_slice nth_key(char text[16], unsigned i)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%06u", i)};
}

static void set_nth(bft_txn *txn, bft_tree *tree, unsigned i, char value)
{
    char text[16];
    bft_slice written = {&value, 1};
    expect_ok(bft_txn_put(txn, tree, nth_key(text, i), written));
}

static void is_at(bft_cursor *cursor, unsigned i, char value)
{
    char text[16];
    bft_slice key, got, expected = nth_key(text, i);
    expect_ok(bft_cursor_key(cursor, &key));
    expect_ok(bft_cursor_value(cursor, &got));
    assert_int_equal(expected.len, key.len);
    assert_memory_equal(expected.data, key.data, key.len);
    assert_int_equal(1, got.len);
    assert_int_equal(value, *(const char *)got.data);
}

/* Each third record is in the tree, the next is written, and the one behind that
 * is in the tree and removed.  WRITE: what is passed is set again. */
static void walk_own(bft_txn *txn, bft_tree *tree, unsigned records,
                     bool forward, bool write)
{
    bft_cursor *cursor;
    unsigned seen = 0;
    bft_status status;
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    status = forward ? bft_cursor_first(cursor) : bft_cursor_last(cursor);
    for (; status == BFT_OK; seen++) {
        unsigned nth = forward ? seen : records / 3 * 2 - 1 - seen;
        unsigned i = nth / 2 * 3 + nth % 2;
        is_at(cursor, i, "tw"[nth % 2]);
        if (write)
            set_nth(txn, tree, i, "tw"[nth % 2]);
        status = forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
    }
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(records / 3 * 2, seen);
    bft_cursor_close(cursor);
}

static void writes_lie_between_records_however_many(void **state)
{
    enum { RECORDS = 900 };
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        bft_tree *tree;
        bft_txn *txn;
        char text[16];
        f->options.memory_bytes = 8 << 20;
        engine_open(f);
        tree = engine_tree(f, "t", way % 2 ? 512 : 32768);
        (void)engine_tree(f, "u", 0);
        for (unsigned i = 0; i < RECORDS; i++)
            if (i % 3 != 1)
                expect_ok(bft_put(tree, nth_key(text, i), text_slice("t")));
        txn = begin(f, way / 2 ? BFT_SERIALIZABLE : BFT_SNAPSHOT_ISOLATION);
        /* In the trees before and behind it. */
        txn_put(txn, engine_tree(f, "u", 0), "000001", "x");
        for (unsigned i = 0; i < RECORDS; i++)
            if (i % 3 == 1)
                set_nth(txn, tree, i, 'w');
            else if (i % 3 == 2)
                expect_ok(bft_txn_delete(txn, tree, nth_key(text, i)));
        walk_own(txn, tree, RECORDS, true, false);
        walk_own(txn, tree, RECORDS, false, false);
        walk_own(txn, tree, RECORDS, true, true);
        walk_own(txn, tree, RECORDS, false, true);
        expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
        engine_fixture_free(f);
    }
}

/* All writes to an empty tree lie in one leaf's range: a cursor that had them all
 * laid over its copy would do so anew after each write, and have them twice. */
static void a_cursor_copies_few_of_many_writes(void **state)
{
    enum { RECORDS = 5000, VALUE = 1000, LARGE = 2 << 20 };
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    char *value = malloc(LARGE);
    size_t before;
    char text[16];
    bft_cursor *cursor;
    bft_tree *tree;
    bft_txn *txn;

    (void)state;
    assert_non_null(value);
    memset(value, 'v', LARGE);
    f->options.memory_bytes = 128 << 20;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    txn = begin(f, BFT_SERIALIZABLE);
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(bft_txn_put(txn, tree, nth_key(text, i),
                              (bft_slice){value, i % 1250 ? VALUE : LARGE}));
    before = engine_env_bytes(f);
    for (int forward = 0; forward < 2; forward++) {
        size_t most = 0;
        unsigned n = 0;
        bft_status status;
        expect_ok(bft_txn_cursor(txn, tree, &cursor));
        status = forward ? bft_cursor_first(cursor) : bft_cursor_last(cursor);
        for (; status == BFT_OK; n++) {
            unsigned i = forward ? n : RECORDS - 1 - n;
            bft_slice got;
            if (i % 25 == 0 && engine_env_bytes(f) - before > most)
                most = engine_env_bytes(f) - before;
            expect_ok(bft_cursor_value(cursor, &got));
            assert_int_equal(i % 1250 ? VALUE : LARGE, got.len);
            status =
                forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
        }
        assert_int_equal(RECORDS, n);
        assert_in_range(most, 0, 2 * LARGE);
        bft_cursor_close(cursor);
    }
    bft_txn_abort(txn);
    free(value);
    engine_fixture_free(f);
}

/* --- misuse ----------------------------------------------------------------- */

static void misuse_is_told(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    static char big[64 * 1024];
    bft_txn *txn;
    size_t len;
    void *copy;
    (void)state;
    expect_status(BFT_INVALID, bft_txn_begin(NULL, BFT_SERIALIZABLE, &txn));
    expect_status(BFT_INVALID, bft_txn_begin(f->db, BFT_SERIALIZABLE, NULL));
    expect_status(BFT_INVALID, bft_txn_begin(f->db, (bft_isolation)7, &txn));
    expect_status(BFT_INVALID, bft_txn_commit(NULL, BFT_DEFAULT, NULL));
    txn = begin(f, BFT_SERIALIZABLE);
    expect_status(BFT_INVALID,
                  bft_txn_get(txn, tree, text_slice("a"), NULL, 4, &len));
    expect_status(BFT_INVALID,
                  bft_txn_get_copy(txn, tree, text_slice("a"), &copy, NULL));
    expect_status(BFT_INVALID, bft_txn_cursor(txn, tree, NULL));
    expect_status(BFT_INVALID,
                  bft_txn_put(txn, tree, text_slice(""), text_slice("v")));
    expect_status(BFT_INVALID, bft_txn_delete(txn, NULL, text_slice("k")));
    expect_status(BFT_TOO_BIG, bft_txn_put(txn, tree, text_slice("a"),
                                           (bft_slice){big, sizeof(big)}));
    expect_status(BFT_TOO_BIG,
                  bft_txn_delete(txn, tree, (bft_slice){big, 200}));
    txn_put(txn, tree, "a", "1");
    expect_status(BFT_BUSY, bft_tree_truncate(f->db, "t"));
    expect_status(BFT_INVALID, bft_txn_commit(txn, (bft_durability)9, NULL));
    all_see(tree, "a", NULL);
    bft_txn_abort(NULL);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_sees_its_instant_and_its_writes),
        cmocka_unit_test(a_cursor_shows_writes_that_come_while_it_is_open),
        cmocka_unit_test(of_two_writers_of_a_key_one_is_first),
        cmocka_unit_test(reads_count_if_it_is_serializable),
        cmocka_unit_test(a_record_that_was_not_there_counts),
        cmocka_unit_test(commits_are_those_that_may_be),
        cmocka_unit_test(a_scan_takes_no_more_room_the_longer_it_is),
        cmocka_unit_test(writes_lie_between_records_however_many),
        cmocka_unit_test(a_cursor_copies_few_of_many_writes),
        cmocka_unit_test(misuse_is_told),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
