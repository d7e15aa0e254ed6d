/*
 * Records that expire: every way to read ends at the same millisecond, and what
 * keeps records keeps their time.  The clock is the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bftree_backup.h"
#include "bftree_feed.h"
#include "engine_fixture.h"

enum {
    START = 1000000, /* what time it is at first */
    LIFE = 60000,    /* of trees that have a lifetime */
    MANY = 2000,
    LONG = 700000, /* several extents, and in the frame */
    APART = 70000, /* kept apart by histories */
    HUGE = 3000000 /* of which the log has the reference only */
};

static const bft_slice none = {NULL, 0};
static uint64_t clock_ms;

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return clock_ms;
}

static struct engine_fixture *open_at_start(enum engine_backend backend)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    clock_ms = START;
    engine_open(f);
    return f;
}

static bft_tree *tree_of(struct engine_fixture *f, const char *name,
                         uint64_t ttl_ms)
{
    bft_tree_options options = {
        .size = sizeof(options), .leaf_bytes = 512, .ttl_ms = ttl_ms};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, name, &options, &tree));
    return tree;
}

static bft_slice slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static bft_slice number(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "k%06u", n)};
}

/* LEN bytes that N tells. */
static bft_slice long_value(size_t len, unsigned n)
{
    static uint8_t bytes[HUGE];
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251 + n);
    return (bft_slice){bytes, len};
}

/* KEY has VALUE, all calls say; or, with VALUE's data NULL, nothing. */
static void check(bft_tree *tree, bft_slice key, bft_slice value)
{
    static uint8_t buf[HUGE];
    bft_status found = value.data ? BFT_OK : BFT_NOT_FOUND;
    bft_answer item = {.key = key, .buf = buf, .buf_len = sizeof(buf)};
    bft_cursor *cursor;
    bft_slice got;
    void *copy;
    uint64_t at;
    size_t len;
    expect_status(found, bft_get(tree, key, buf, sizeof(buf), &len));
    assert_int_equal(value.len, len);
    if (len)
        assert_memory_equal(value.data, buf, len);
    if (len)
        expect_status(BFT_TOO_SMALL, bft_get(tree, key, buf, len - 1, &len));
    expect_status(found, bft_get_copy(tree, key, &copy, &len));
    assert_int_equal(value.len, len);
    if (copy)
        assert_memory_equal(value.data, copy, len);
    bft_free(copy);
    expect_status(
        found, bft_get_range(tree, key, value.len / 2, buf, sizeof(buf), &len));
    assert_int_equal(value.len - value.len / 2, len);
    if (len)
        assert_memory_equal((const uint8_t *)value.data + value.len / 2, buf,
                            len);
    expect_ok(bft_multi_get(tree, &item, 1));
    assert_int_equal(found, item.status);
    assert_int_equal(value.len, item.value_len);
    if (item.value_len)
        assert_memory_equal(value.data, buf, item.value_len);
    expect_status(found, bft_expiry(tree, key, &at));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_status(found, bft_cursor_seek(cursor, BFT_EQ, key));
    if (value.data) {
        expect_ok(bft_cursor_value(cursor, &got));
        assert_int_equal(value.len, got.len);
        if (got.len)
            assert_memory_equal(value.data, got.data, got.len);
    }
    bft_cursor_close(cursor);
}

static void check_past(bft_snapshot *snapshot, bft_tree *tree, bft_slice key,
                       bft_slice value)
{
    static uint8_t buf[HUGE];
    bft_cursor *cursor;
    bft_slice got;
    size_t len;
    bft_status found = value.data ? BFT_OK : BFT_NOT_FOUND;
    expect_status(
        found, bft_snapshot_get(snapshot, tree, key, buf, sizeof(buf), &len));
    assert_int_equal(value.len, len);
    if (len)
        assert_memory_equal(value.data, buf, len);
    for (int forward = 0; forward < 2; forward++) {
        expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
        expect_status(found, forward ? bft_cursor_seek(cursor, BFT_EQ, key)
                                     : bft_cursor_last(cursor));
        if (value.data) {
            expect_ok(bft_cursor_value(cursor, &got));
            assert_int_equal(value.len, got.len);
            assert_memory_equal(value.data, got.data, got.len);
        }
        bft_cursor_close(cursor);
    }
}

static uint64_t count_steps(bft_cursor *cursor, bool forward)
{
    uint64_t n = 0;
    bft_status status;
    while ((status = forward ? bft_cursor_next(cursor)
                             : bft_cursor_prev(cursor)) == BFT_OK)
        n++;
    expect_status(BFT_NOT_FOUND, status);
    return n;
}

/* The tree has so many records, all calls say. */
static void check_count(bft_tree *tree, uint64_t expected)
{
    bft_cursor *cursor;
    uint64_t count;
    expect_ok(bft_count(tree, none, none, &count));
    assert_int_equal(expected, count);
    expect_ok(bft_cursor_open(tree, &cursor));
    assert_int_equal(expected, count_steps(cursor, true));
    bft_cursor_close(cursor);
    expect_ok(bft_cursor_open(tree, &cursor));
    assert_int_equal(expected, count_steps(cursor, false));
    bft_cursor_close(cursor);
}

/* The first and the last are those numbers. */
static void check_ends(bft_tree *tree, unsigned low, unsigned high)
{
    bft_record *record;
    char text[16];
    bft_slice key = number(text, low);
    expect_ok(bft_first(tree, none, none, &record));
    assert_int_equal(key.len, record->key.len);
    assert_memory_equal(key.data, record->key.data, key.len);
    assert_memory_equal("value", record->value.data, record->value.len);
    bft_free(record);
    key = number(text, high);
    expect_ok(bft_last(tree, none, none, &record));
    assert_memory_equal(key.data, record->key.data, key.len);
    assert_memory_equal("value", record->value.data, record->value.len);
    bft_free(record);
}

/* --- reading ---------------------------------------------------------------- */

/* Of every length, with records in memory and on disk. */
static void all_reads_end_at_the_same_millisecond(void **state)
{
    static const size_t lens[] = {0, 1, 20, 99, 3000, LONG, HUGE};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(lens) / sizeof(lens[0]); i++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_tree *tree = tree_of(f, "t", BFT_FOREVER);
        bft_slice value = long_value(lens[i / 2], (unsigned)i);
        uint64_t at = START + 5000, says;
        expect_ok(bft_put_until(tree, slice("stays"), value, 0));
        expect_ok(bft_put_until(tree, slice("ends"), value, at));
        expect_ok(bft_put(tree, slice("zz"), value));
        if (i % 2)
            engine_reopen(f);
        tree = tree_of(f, "t", 0);
        expect_ok(bft_expiry(tree, slice("ends"), &says));
        assert_int_equal(at, says);
        expect_ok(bft_expiry(tree, slice("stays"), &says));
        assert_int_equal(0, says);
        clock_ms = at - 1;
        check(tree, slice("ends"), value);
        check_count(tree, 3);
        clock_ms = at;
        check(tree, slice("ends"), none);
        check(tree, slice("stays"), value);
        check(tree, slice("zz"), value);
        check_count(tree, 2);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* MANY records, of which number N expires at START + N * 10. */
static bft_tree *put_many(struct engine_fixture *f)
{
    bft_tree *tree = tree_of(f, "many", BFT_FOREVER);
    char text[16];
    for (unsigned n = 0; n < MANY; n++)
        expect_ok(bft_put_until(tree, number(text, n), slice("value"),
                                START + n * 10));
    return tree;
}

/* Over leaves full of what has expired. */
static void cursors_pass_over_what_has_expired(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = put_many(f);
    char text[16];
    (void)state;
    for (unsigned gone = 1; gone < MANY; gone += 333) {
        bft_cursor *cursor;
        bft_slice key;
        clock_ms = START + (gone - 1) * 10;
        check_count(tree, MANY - gone);
        check_ends(tree, gone, MANY - 1);
        expect_ok(bft_cursor_open(tree, &cursor));
        expect_ok(bft_cursor_seek(cursor, BFT_GE, number(text, 0)));
        expect_ok(bft_cursor_key(cursor, &key));
        assert_memory_equal(number(text, gone).data, key.data, key.len);
        expect_status(BFT_NOT_FOUND, bft_cursor_prev(cursor));
        expect_status(BFT_NOT_FOUND,
                      bft_cursor_seek(cursor, BFT_LE, number(text, gone - 1)));
        bft_cursor_close(cursor);
    }
    clock_ms = START + MANY * 10;
    check_count(tree, 0);
    engine_fixture_free(f);
}

/* It has a copy of them from before. */
static void a_cursor_for_the_newest_goes_by_the_time_of_its_step(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = put_many(f);
    bft_cursor *cursor;
    bft_slice key, value;
    char text[16];
    (void)state;
    for (int forward = 0; forward < 2; forward++) {
        clock_ms = START + (unsigned)forward;
        expect_ok(bft_cursor_open_newest(tree, &cursor));
        expect_ok(bft_cursor_seek(cursor, BFT_GE, number(text, 5)));
        expect_ok(bft_cursor_next(cursor));
        clock_ms = START + 70;
        /* It is on it, as it was. */
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_memory_equal(number(text, 6).data, key.data, key.len);
        assert_memory_equal("value", value.data, value.len);
        if (forward) {
            expect_ok(bft_cursor_next(cursor));
            expect_ok(bft_cursor_key(cursor, &key));
            assert_memory_equal(number(text, 8).data, key.data, key.len);
        } else {
            expect_status(BFT_NOT_FOUND, bft_cursor_prev(cursor));
        }
        bft_cursor_close(cursor);
        (void)put_many(f);
        engine_reopen(f); /* and so the clock */
        tree = tree_of(f, "many", 0);
    }
    engine_fixture_free(f);
}

static void the_clock_never_goes_back(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    bft_db *db;
    (void)state;
    expect_ok(bft_put(tree, slice("k"), slice("v")));
    assert_int_equal(START, bft_now_ms(f->db));
    clock_ms = START + LIFE;
    check(tree, slice("k"), none);
    clock_ms = START;
    check(tree, slice("k"), none);
    assert_int_equal(START + LIFE, bft_now_ms(f->db));
    /* Another life of the engine does not know. */
    engine_reopen(f);
    check(tree_of(f, "t", 0), slice("k"), slice("v"));
    db = f->db;
    engine_close(f);
    assert_int_equal(0, bft_now_ms(db));
    assert_int_equal(0, bft_now_ms(NULL));
    engine_fixture_free(f);
}

/* As where the host has none: values have their stamps, of which nobody is told. */
static void a_clock_that_says_0_is_one(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_MEMORY);
    bft_tree *tree;
    bft_cursor *cursor;
    bft_slice value;
    (void)state;
    engine_close(f);
    clock_ms = 0;
    engine_open(f);
    tree = tree_of(f, "t", LIFE);
    expect_ok(bft_put(tree, slice("k"), slice("v")));
    check(tree, slice("k"), slice("v"));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_cursor_first(cursor));
    expect_ok(bft_cursor_value(cursor, &value));
    assert_int_equal(1, value.len);
    bft_cursor_close(cursor);
    clock_ms = LIFE + 1;
    check(tree, slice("k"), none);
    engine_fixture_free(f);
}

/* --- writing ---------------------------------------------------------------- */

static void an_expired_record_is_none_to_conditions(void **state)
{
    static const size_t lens[] = {3, 100, LONG};
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_tree *tree = tree_of(f, "t", LIFE);
        bft_slice key = slice("k"), value = long_value(lens[i / 2], 1);
        bft_slice v = slice("v"), w = slice("w");
        uint64_t says;
        expect_ok(bft_insert(tree, key, value));
        if (i % 2)
            engine_reopen(f);
        tree = tree_of(f, "t", 0);
        clock_ms += LIFE - 1;
        expect_status(BFT_EXISTS, bft_insert(tree, key, v));
        expect_status(BFT_CONFLICT, bft_replace(tree, key, NULL, &v));
        expect_status(BFT_CONFLICT, bft_replace(tree, key, &w, &v));
        clock_ms += 1001; /* times of large values are in seconds */
        expect_status(BFT_CONFLICT, bft_replace(tree, key, &value, &v));
        expect_status(BFT_CONFLICT, bft_replace(tree, key, &value, NULL));
        expect_ok(bft_insert(tree, key, value));
        expect_ok(bft_replace(tree, key, &value, &v));
        check(tree, key, v);
        clock_ms += LIFE - 1;
        expect_ok(bft_replace(tree, key, &v, &w));
        expect_ok(bft_expiry(tree, key, &says));
        assert_int_equal(clock_ms + LIFE, says); /* a life of its own */
        clock_ms += LIFE;
        expect_ok(bft_replace(tree, key, NULL, &v));
        check(tree, key, v);
        expect_ok(bft_delete(tree, key));
        check(tree, key, none);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static void a_time_that_is_past_or_never(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    uint64_t says;
    (void)state;
    expect_ok(bft_put_until(tree, slice("k"), slice("v"), START - 1));
    check(tree, slice("k"), none);
    expect_ok(bft_put_until(tree, slice("k"), slice("v"), BFT_FOREVER));
    expect_ok(bft_expiry(tree, slice("k"), &says));
    assert_int_equal(0, says);
    expect_ok(bft_put_until(tree, slice("k"), slice("v"), BFT_FOREVER - 1));
    expect_ok(bft_put_until(tree, slice("l"), slice("v"), 0));
    clock_ms = UINT64_MAX;
    check(tree, slice("k"), slice("v"));
    check(tree, slice("l"), slice("v"));
    /* There is no time left. */
    expect_ok(bft_put(tree, slice("m"), slice("v")));
    expect_ok(bft_expiry(tree, slice("m"), &says));
    assert_int_equal(0, says);
    engine_fixture_free(f);
}

static bft_status read_on(void *ctx, void *buf, size_t len)
{
    bft_slice *rest = ctx;
    if (rest->len < len)
        return BFT_IO;
    memcpy(buf, rest->data, len);
    rest->data = (const uint8_t *)rest->data + len;
    rest->len -= len;
    return BFT_OK;
}

static void streams_have_the_lifetime_of_the_tree(void **state)
{
    static const size_t lens[] = {0, 50, 127, 3000, LONG, HUGE};
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    (void)state;
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        bft_slice value = long_value(lens[i], 9), rest = value;
        expect_ok(bft_put_stream(tree, slice("k"), value.len, read_on, &rest));
        assert_int_equal(0, rest.len);
        check(tree, slice("k"), value);
        engine_crash(f, BFTI_SIM_KILL, 1);
        tree = tree_of(f, "t", 0);
        check(tree, slice("k"), value);
        clock_ms += LIFE;
        check(tree, slice("k"), none);
    }
    engine_fixture_free(f);
}

/* --- writing with a time of one's own ---------------------------------------- */

/* Insert-if-absent and compare-and-swap: whether a record in memory, or on disk,
 * has expired is what they go by, and what they put ends when they say. */
static void conditions_give_times_of_their_own(void **state)
{
    static const size_t lens[] = {3, 100, LONG, HUGE};
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_tree *tree = tree_of(f, "t", LIFE);
        bft_slice key = slice("k"), value = long_value(lens[i / 2], 1);
        bft_slice v = slice("v");
        uint64_t at = START + 5000, says;
        expect_ok(bft_insert_until(tree, key, value, at));
        if (i % 2)
            engine_crash(f, BFTI_SIM_KILL, 1);
        tree = tree_of(f, "t", 0);
        clock_ms = at - 1;
        expect_status(BFT_EXISTS, bft_insert_until(tree, key, v, at + 9000));
        expect_status(BFT_CONFLICT, bft_replace_until(tree, key, NULL, &v, 0));
        expect_status(BFT_CONFLICT, bft_replace_until(tree, key, &v, &v, 0));
        check(tree, key, value);
        clock_ms = at;
        check(tree, key, none);
        expect_status(BFT_CONFLICT,
                      bft_replace_until(tree, key, &value, &v, 0));
        expect_status(BFT_CONFLICT,
                      bft_replace_until(tree, key, &value, NULL, 0));
        expect_ok(bft_insert_until(tree, key, v, BFT_FOREVER));
        expect_ok(bft_replace_until(tree, key, &v, &value, at + 2000));
        expect_ok(bft_expiry(tree, key, &says));
        assert_int_equal(at + 2000, says);
        if (i % 2)
            engine_reopen(f);
        tree = tree_of(f, "t", 0);
        clock_ms = at + 1999;
        check(tree, key, value);
        clock_ms = at + 2000;
        check(tree, key, none);
        expect_ok(bft_replace_until(tree, key, NULL, &v, clock_ms - 1));
        check(tree, key, none); /* past when it was put */
        expect_ok(bft_insert_until(tree, key, v, 0));
        expect_ok(bft_replace_until(tree, key, &v, NULL, clock_ms + 1));
        expect_status(BFT_NOT_FOUND, bft_expiry(tree, key, &says));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static void streams_have_times_of_their_own(void **state)
{
    static const size_t lens[] = {0, 50, 127, 3000, LONG, HUGE};
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    bft_snapshot *snapshot;
    (void)state;
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        bft_slice value = long_value(lens[i], 9), rest = value;
        uint64_t at = (clock_ms / 1000 + 2) * 1000, says;
        expect_ok(bft_put_stream_until(tree, slice("k"), value.len, read_on,
                                       &rest, at));
        assert_int_equal(0, rest.len);
        engine_crash(f, BFTI_SIM_KILL, 1);
        tree = tree_of(f, "t", 0);
        expect_ok(bft_expiry(tree, slice("k"), &says));
        assert_int_equal(at, says);
        clock_ms = at - 1;
        check(tree, slice("k"), value);
        expect_ok(bft_snapshot_take(f->db, &snapshot));
        clock_ms = at;
        check(tree, slice("k"), none);
        rest = value;
        expect_ok(bft_put_stream_until(tree, slice("k"), value.len, read_on,
                                       &rest, BFT_FOREVER));
        check_past(snapshot, tree, slice("k"), value);
        bft_snapshot_release(snapshot);
        clock_ms += LIFE;
        check(tree, slice("k"), value);
    }
    engine_fixture_free(f);
}

static bft_status truncate_first(void *ctx, void *buf, size_t len)
{
    memset(buf, 0, len);
    return bft_tree_truncate(ctx, "t");
}

static void a_stream_with_a_time_tells_of_a_truncation(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    (void)state;
    expect_status(BFT_CONFLICT,
                  bft_put_stream_until(tree, slice("k"), 5000, truncate_first,
                                       f->db, START + 1));
    check(tree, slice("k"), none);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void a_batch_gives_each_record_its_time(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    bft_tree *plain = engine_tree(f, "plain", 0);
    bft_slice value = long_value(3000, 2);
    bft_batch *batch;
    (void)state;
    expect_ok(bft_batch_create(f->db, &batch));
    expect_ok(bft_batch_put(batch, tree, slice("a"), slice("v")));
    expect_ok(
        bft_batch_put_until(batch, tree, slice("b"), value, START + 1000));
    expect_ok(bft_batch_put_until(batch, tree, slice("c"), none, 0));
    expect_ok(bft_batch_put(batch, plain, slice("a"), slice("v")));
    expect_status(BFT_INVALID,
                  bft_batch_put_until(batch, plain, slice("b"), slice("v"), 0));
    expect_status(BFT_TOO_BIG, bft_batch_put_until(batch, tree, slice("b"),
                                                   long_value(100000, 0), 0));
    assert_int_equal(4, bft_batch_count(batch));
    clock_ms += 500; /* lifetimes count from the call */
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    for (int round = 0; round < 2; round++) {
        check_count(tree, 3);
        check(tree, slice("b"), long_value(3000, 2));
        engine_crash(f, BFTI_SIM_KILL, 1);
        tree = tree_of(f, "t", 0);
    }
    clock_ms = START + 1000;
    check_count(tree, 2);
    clock_ms = START + LIFE;
    check_count(tree, 1);
    engine_fixture_free(f);
}

static void deleting_a_range_counts_what_is_there(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = put_many(f);
    uint64_t deleted;
    char low[16], high[16];
    (void)state;
    clock_ms = START + 999 * 10; /* 0 to 999 have expired */
    expect_ok(
        bft_delete_range(tree, number(low, 900), number(high, 1100), &deleted));
    assert_int_equal(100, deleted);
    check_count(tree, MANY - 1100);
    engine_fixture_free(f);
}

/* --- what is as it was ------------------------------------------------------- */

/* Whether the record is as it was, replaced, or removed. */
static void a_snapshot_goes_by_its_own_time(void **state)
{
    static const size_t lens[] = {1, 100, 3000, APART, LONG};
    (void)state;
    for (size_t i = 0; i < 15; i++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_tree *tree = tree_of(f, "t", LIFE);
        bft_slice key = slice("k"), value = long_value(lens[i / 3], 3);
        bft_snapshot *before, *after;
        expect_ok(bft_put(tree, key, value));
        clock_ms += LIFE - 1;
        expect_ok(bft_snapshot_take(f->db, &before));
        clock_ms += 1001;
        expect_ok(bft_snapshot_take(f->db, &after));
        if (i % 3 == 1)
            expect_ok(bft_put(tree, key, slice("new")));
        if (i % 3 == 2)
            expect_ok(bft_delete(tree, key));
        check_past(before, tree, key, value);
        check_past(after, tree, key, none);
        bft_snapshot_release(before);
        check_past(after, tree, key, none);
        bft_snapshot_release(after);
        check(tree, key, i % 3 == 1 ? slice("new") : none);
        engine_fixture_free(f);
    }
}

/* It may read what has expired by now, and be committed. */
static void a_transaction_goes_by_the_time_of_its_begin(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE), *plain = engine_tree(f, "p", 0);
    char buf[100];
    bft_cursor *cursor;
    bft_slice got;
    bft_txn *txn;
    size_t len;
    (void)state;
    expect_ok(bft_put(tree, slice("a"), slice("value")));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    clock_ms += LIFE;
    check(tree, slice("a"), none);
    expect_ok(bft_txn_get(txn, tree, slice("a"), buf, sizeof(buf), &len));
    assert_int_equal(5, len);
    assert_memory_equal("value", buf, 5);
    expect_ok(bft_txn_put(txn, tree, slice("b"), slice("mine")));
    expect_ok(bft_txn_put_until(txn, tree, slice("c"), slice("past"), START));
    expect_ok(
        bft_txn_put_until(txn, tree, slice("d"), slice("short"), clock_ms + 5));
    expect_status(BFT_INVALID,
                  bft_txn_put_until(txn, plain, slice("d"), none, 1));
    expect_status(BFT_TOO_BIG, bft_txn_put_until(txn, tree, slice("d"),
                                                 long_value(100000, 0), 1));
    expect_ok(bft_txn_get(txn, tree, slice("b"), buf, sizeof(buf), &len));
    assert_int_equal(4, len);
    assert_memory_equal("mine", buf, 4);
    expect_status(BFT_NOT_FOUND,
                  bft_txn_get(txn, tree, slice("c"), buf, sizeof(buf), &len));
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    assert_int_equal(3, count_steps(cursor, true));
    expect_ok(bft_cursor_last(cursor));
    expect_ok(bft_cursor_value(cursor, &got));
    assert_int_equal(5, got.len);
    assert_memory_equal("short", got.data, 5);
    bft_cursor_close(cursor);
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    check_count(tree, 2);
    check(tree, slice("b"), slice("mine"));
    clock_ms += 5;
    check_count(tree, 1);
    clock_ms += LIFE;
    check_count(tree, 0);
    engine_fixture_free(f);
}

/* --- trees ------------------------------------------------------------------- */

/* A transaction that found none, since it had expired, is not told that it has
 * changed when somebody takes it away, or puts it there and away again. */
static void what_had_expired_is_none_to_a_commit(void **state)
{
    static const size_t lens[] = {5, 300, APART};
    (void)state;
    for (size_t i = 0; i < 9; i++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_tree *tree = tree_of(f, "t", LIFE);
        bft_slice value = long_value(lens[i / 3], 1);
        bft_txn *txn;
        bft_status committed = i % 3 == 2 ? BFT_CONFLICT : BFT_OK;
        uint8_t buf[8];
        size_t len;
        expect_ok(bft_put(tree, slice("k"), value));
        clock_ms += 2 * (uint64_t)LIFE;
        expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
        expect_status(BFT_NOT_FOUND, bft_txn_get(txn, tree, slice("k"), buf,
                                                 sizeof(buf), &len));
        expect_ok(bft_txn_put(txn, tree, slice("other"), slice("v")));
        if (i % 3)
            expect_ok(bft_insert(tree, slice("k"), value));
        if (i % 3 < 2)
            expect_ok(bft_delete(tree, slice("k")));
        expect_status(committed, bft_txn_commit(txn, BFT_DEFAULT, NULL));
        engine_fixture_free(f);
    }
}

static void the_option_is_the_tree_s(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree_options other = {.size = sizeof(other), .ttl_ms = LIFE + 1};
    bft_tree *tree, *again;
    char text[300];
    uint64_t says;
    (void)state;
    (void)tree_of(f, "t", LIFE);
    (void)engine_tree(f, "plain", 0);
    for (int round = 0; round < 3; round++) {
        expect_status(BFT_INVALID, bft_tree_open(f->db, "t", &other, &again));
        bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "ttl_ms"));
        expect_status(BFT_INVALID,
                      bft_tree_open(f->db, "plain", &other, &again));
        tree = tree_of(f, "t", round % 2 ? LIFE : 0);
        expect_ok(bft_put(tree, slice("k"), slice("v")));
        expect_ok(bft_expiry(tree, slice("k"), &says));
        assert_int_equal(clock_ms + LIFE, says);
        if (round == 0)
            engine_crash(f, BFTI_SIM_KILL, 1); /* from the log */
        else
            engine_reopen(f); /* from the catalogue */
    }
    expect_ok(bft_tree_rename(f->db, "t", "u"));
    expect_ok(bft_tree_truncate(f->db, "u"));
    engine_crash(f, BFTI_SIM_KILL, 1);
    tree = tree_of(f, "u", LIFE);
    check_count(tree, 0);
    expect_ok(bft_put(tree, slice("k"), slice("v")));
    clock_ms += LIFE;
    check_count(tree, 0);
    engine_fixture_free(f);
}

static void other_trees_have_no_times(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *plain = engine_tree(f, "plain", 512);
    bft_tree *tree = tree_of(f, "t", LIFE);
    bft_slice value = slice("v");
    uint64_t says;
    (void)state;
    expect_status(BFT_INVALID,
                  bft_put_until(plain, slice("k"), slice("v"), START + 1));
    expect_status(BFT_INVALID, bft_put_until(plain, slice("k"), slice("v"), 0));
    expect_status(BFT_INVALID,
                  bft_insert_until(plain, slice("k"), slice("v"), 0));
    expect_status(BFT_INVALID,
                  bft_replace_until(plain, slice("k"), NULL, &value, 0));
    expect_status(BFT_INVALID,
                  bft_replace_until(tree, slice("k"), NULL, NULL, 0));
    expect_status(BFT_INVALID, bft_put_stream_until(plain, slice("k"), 5000,
                                                    read_on, NULL, 0));
    expect_status(BFT_INVALID, bft_put_stream_until(plain, slice("k"), 5,
                                                    read_on, NULL, START));
    expect_status(BFT_INVALID,
                  bft_put_stream_until(tree, slice("k"), 5, NULL, NULL, 0));
    expect_status(BFT_INVALID, bft_expiry(plain, slice("k"), &says));
    expect_status(BFT_INVALID, bft_expiry(tree, slice("k"), NULL));
    expect_status(BFT_NOT_FOUND, bft_expiry(tree, slice("k"), &says));
    expect_status(BFT_TOO_BIG,
                  bft_insert_until(tree, long_value(1025, 0), value, 0));
    expect_status(BFT_TOO_BIG, bft_replace_until(tree, long_value(1025, 0),
                                                 NULL, &value, 0));
    expect_status(BFT_TOO_BIG, bft_put_stream_until(tree, long_value(1025, 0),
                                                    5, read_on, NULL, 0));
    expect_status(BFT_TOO_BIG,
                  bft_put_until(tree, long_value(1025, 0), slice("v"), 0));
    check_count(plain, 0);
    expect_ok(bft_put(plain, slice("k"), slice("v")));
    clock_ms = UINT64_MAX;
    check_count(plain, 1);
    engine_fixture_free(f);
}

/* --- what carries records elsewhere ------------------------------------------ */

struct load {
    unsigned n;
    bft_slice rest;
    char key[16];
};

/* By turns: in the leaf and not, streamed and not, with a time and without. */
static bft_status load_next(void *ctx, bft_bulk_record *record)
{
    struct load *load = ctx;
    bft_slice value = long_value(load->n & 1 ? 40 : 5000, load->n);
    if (load->n == 64)
        return BFT_NOT_FOUND;
    record->key = number(load->key, load->n);
    if (load->n & 2) {
        load->rest = value;
        record->bytes = value.len;
        record->read = read_on;
    } else {
        record->value = value;
    }
    if (load->n & 4)
        record->expires_ms = load->n & 8 ? BFT_FOREVER : START + 1000;
    load->n++;
    return BFT_OK;
}

static bft_status read_load(void *ctx, void *buf, size_t len)
{
    struct load *load = ctx;
    return read_on(&load->rest, buf, len);
}

static bft_status load_each(void *ctx, bft_bulk_record *record)
{
    bft_status status = load_next(ctx, record);
    if (record->read)
        record->read = read_load;
    return status;
}

/* Of the 64: 32 have the lifetime, 16 one second, 16 for ever. */
static void check_loaded(bft_tree *tree)
{
    char text[16];
    for (unsigned n = 0; n < 64; n++)
        check(tree, number(text, n), long_value(n & 1 ? 40 : 5000, n));
    check_count(tree, 64);
    clock_ms = START + 1000;
    check_count(tree, 48);
    clock_ms = START + LIFE;
    check_count(tree, 16);
}

static void a_bulk_load_has_times(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    bft_tree *plain = engine_tree(f, "plain", 512);
    struct load load = {.n = 0}, again = {.n = 4};
    uint64_t records;
    (void)state;
    expect_status(BFT_INVALID,
                  bft_bulk_load(plain, NULL, load_each, &again, &records));
    /* What has expired does not count as a record. */
    expect_ok(bft_put_until(tree, slice("old"), slice("v"), START - 1));
    expect_ok(bft_bulk_load(tree, NULL, load_each, &load, &records));
    assert_int_equal(64, records);
    check_loaded(tree);
    engine_crash(f, BFTI_SIM_KILL, 1);
    clock_ms = START;
    check_loaded(tree_of(f, "t", LIFE));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void load(bft_tree *tree)
{
    struct load load = {.n = 0};
    expect_ok(bft_bulk_load(tree, NULL, load_each, &load, NULL));
}

static void backup_and_salvage_keep_times(void **state)
{
    (void)state;
    for (int salvage = 0; salvage < 2; salvage++) {
        struct engine_fixture *f = open_at_start(ENGINE_SIM);
        bft_salvage_options options = {.size = sizeof(options),
                                       .database = &f->options};
        bft_tree *tree = tree_of(f, "t", LIFE);
        uint64_t says;
        bft_slice value = long_value(HUGE, 8), rest = value;
        load(tree);
        /* In the log only. */
        expect_ok(bft_put_until(tree, slice("k"), value, START + 1000));
        expect_ok(bft_put_stream_until(tree, slice("l"), value.len, read_on,
                                       &rest, START + 1000));
        expect_ok(
            bft_insert_until(tree, slice("m"), slice("mine"), START + 1000));
        expect_ok(bft_put(tree_of(f, "u", LIFE), slice("k"), slice("v")));
        if (!salvage)
            expect_ok(bft_backup(f->db, "/copy", NULL));
        expect_ok(bft_sync(f->db));
        engine_crash(f, BFTI_SIM_KILL, 1);
        engine_close(f);
        if (salvage)
            expect_ok(bft_salvage("/db", "/copy", &options, NULL));
        (void)snprintf(f->path, sizeof(f->path), "/copy");
        engine_open(f);
        tree = tree_of(f, "t", LIFE);
        check(tree, slice("k"), value);
        check(tree, slice("l"), value);
        check(tree, slice("m"), slice("mine"));
        check(tree_of(f, "u", LIFE), slice("k"), slice("v"));
        expect_ok(bft_expiry(tree, slice("l"), &says));
        assert_int_equal(START + 1000, says);
        expect_ok(bft_expiry(tree, slice("m"), &says));
        assert_int_equal(START + 1000, says);
        expect_ok(bft_delete(tree, slice("k")));
        expect_ok(bft_delete(tree, slice("l")));
        expect_ok(bft_delete(tree, slice("m")));
        check_loaded(tree);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* The next change of KEY. */
static bft_change next_of(bft_feed *feed, bft_slice key)
{
    for (;;) {
        bft_commit commit;
        expect_ok(bft_feed_next(feed, 0, &commit));
        for (size_t i = 0; i < commit.count; i++)
            if (commit.changes[i].op == BFT_CHANGE_PUT &&
                commit.changes[i].key.len == key.len &&
                memcmp(commit.changes[i].key.data, key.data, key.len) == 0)
                return commit.changes[i];
    }
}

static void a_feed_tells_the_times(void **state)
{
    struct engine_fixture *f = open_at_start(ENGINE_SIM);
    bft_tree *tree = tree_of(f, "t", LIFE);
    static uint8_t buf[HUGE];
    bft_feed *feed;
    bft_commit commit;
    bft_change change;
    bft_slice value = long_value(HUGE, 8), rest = value;
    bft_slice was = slice("short"), now = slice("other");
    size_t got;
    (void)state;
    expect_ok(bft_put(tree, slice("a"), slice("short")));
    expect_ok(bft_put_until(tree, slice("b"), value, START + 999));
    expect_ok(bft_insert_until(tree, slice("c"), slice("mine"), START + 7));
    expect_ok(bft_replace_until(tree, slice("a"), &was, &now, START + 8));
    expect_ok(bft_put_stream_until(tree, slice("d"), HUGE, read_on, &rest,
                                   START + 1999));
    clock_ms += 2 * (uint64_t)LIFE;
    expect_ok(bft_sync(f->db));
    expect_ok(bft_feed_open(f->db, 0, NULL, &feed));
    expect_ok(bft_feed_next(feed, 0, &commit));
    assert_int_equal(BFT_CHANGE_TREE_CREATE, commit.changes[0].op);
    assert_int_equal(LIFE, commit.changes[0].ttl_ms);
    assert_string_equal("t", commit.changes[0].name);
    change = next_of(feed, slice("a"));
    assert_int_equal(5, change.value.len);
    assert_memory_equal("short", change.value.data, 5);
    assert_int_equal(START + LIFE, change.expires_ms);
    expect_ok(bft_feed_next(feed, 0, &commit));
    change = commit.changes[0];
    assert_int_equal(HUGE, change.value_bytes);
    assert_int_equal(START + 1000, change.expires_ms);
    expect_ok(
        bft_feed_value(feed, &commit.changes[0], 5, buf, sizeof(buf), &got));
    assert_int_equal(HUGE - 5, got);
    assert_memory_equal((const uint8_t *)value.data + 5, buf, got);
    assert_int_equal(START + 7, next_of(feed, slice("c")).expires_ms);
    assert_int_equal(START + 8, next_of(feed, slice("a")).expires_ms);
    change = next_of(feed, slice("d"));
    assert_int_equal(HUGE, change.value_bytes);
    assert_int_equal(START + 2000, change.expires_ms);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_reads_end_at_the_same_millisecond),
        cmocka_unit_test(cursors_pass_over_what_has_expired),
        cmocka_unit_test(a_cursor_for_the_newest_goes_by_the_time_of_its_step),
        cmocka_unit_test(the_clock_never_goes_back),
        cmocka_unit_test(a_clock_that_says_0_is_one),
        cmocka_unit_test(an_expired_record_is_none_to_conditions),
        cmocka_unit_test(a_time_that_is_past_or_never),
        cmocka_unit_test(streams_have_the_lifetime_of_the_tree),
        cmocka_unit_test(conditions_give_times_of_their_own),
        cmocka_unit_test(streams_have_times_of_their_own),
        cmocka_unit_test(a_stream_with_a_time_tells_of_a_truncation),
        cmocka_unit_test(a_batch_gives_each_record_its_time),
        cmocka_unit_test(deleting_a_range_counts_what_is_there),
        cmocka_unit_test(a_snapshot_goes_by_its_own_time),
        cmocka_unit_test(a_transaction_goes_by_the_time_of_its_begin),
        cmocka_unit_test(what_had_expired_is_none_to_a_commit),
        cmocka_unit_test(the_option_is_the_tree_s),
        cmocka_unit_test(other_trees_have_no_times),
        cmocka_unit_test(a_bulk_load_has_times),
        cmocka_unit_test(backup_and_salvage_keep_times),
        cmocka_unit_test(a_feed_tells_the_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
