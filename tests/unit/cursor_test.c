/*
 * Cursors against a sorted array: a universe of keys, of which some are in the
 * tree.  One thread, so that each step's outcome is known exactly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/vfs_memory.h"
#include "index/engine.h"
#include "random.h"

#define EXPECT(want, call) expect((want), (call), #call, __LINE__)

static void expect(bft_status want, bft_status got, const char *what, int line)
{
    char text[300] = "";
    if (got == want)
        return;
    bft_last_error(text, sizeof(text));
    fail_msg("line %d: %s: %s, not %s (%s)", line, what, bft_strerror(got),
             bft_strerror(want), got == BFT_OK ? "" : text);
}

/* --- a database ----------------------------------------------------------- */

struct fixture {
    struct bfti_surroundings surroundings; /* files that outlive a close */
    bft_options options;
    bft_db *db;
    bft_tree *tree;
    bft_cursor *cursor;
};

static void fixture_open(struct fixture *f)
{
    EXPECT(BFT_OK, bft_open("cursor_test", &f->options, &f->db));
    EXPECT(BFT_OK, bft_tree_open(f->db, "t", NULL, &f->tree));
    EXPECT(BFT_OK, bft_cursor_open_newest(f->tree, &f->cursor));
}

static void fixture_reopen(struct fixture *f)
{
    bft_cursor_close(f->cursor);
    EXPECT(BFT_OK, bft_close(f->db));
    fixture_open(f);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->options.size = sizeof(f->options);
    f->surroundings.vfs = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f->surroundings.vfs);
    f->options.internal = &f->surroundings;
    f->options.durability = BFT_NONE;
    f->options.memory_bytes = 256 << 10;
    f->options.leaf_bytes = 512;
    f->options.log_segment_bytes = 64 << 10;
    f->options.log_bytes = 1 << 20;
    fixture_open(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bft_cursor_close(f->cursor);
    EXPECT(BFT_OK, bft_verify(f->db));
    EXPECT(BFT_OK, bft_close(f->db));
    bfti_vfs_memory_destroy(f->surroundings.vfs);
    free(f);
    return 0;
}

static bft_slice text(const char *chars)
{
    bft_slice slice = {chars, strlen(chars)};
    return slice;
}

static void put(struct fixture *f, const char *key, const char *value)
{
    EXPECT(BFT_OK, bft_put(f->tree, text(key), text(value)));
}

static void expect_at(struct fixture *f, const char *key, const char *value)
{
    bft_slice got, both[2];
    EXPECT(BFT_OK, bft_cursor_key(f->cursor, &got));
    assert_int_equal(got.len, strlen(key));
    assert_memory_equal(got.data, key, got.len);
    EXPECT(BFT_OK, bft_cursor_record(f->cursor, &both[0], &both[1]));
    assert_ptr_equal(both[0].data, got.data);
    assert_int_equal(both[0].len, got.len);
    EXPECT(BFT_OK, bft_cursor_value(f->cursor, &got));
    assert_int_equal(got.len, strlen(value));
    assert_memory_equal(got.data, value, got.len);
    assert_ptr_equal(both[1].data, got.data);
    assert_int_equal(both[1].len, got.len);
}

static void expect_nowhere(struct fixture *f)
{
    bft_slice got;
    EXPECT(BFT_INVALID, bft_cursor_key(f->cursor, &got));
    assert_null(got.data);
    EXPECT(BFT_INVALID, bft_cursor_value(f->cursor, &got));
    assert_int_equal(got.len, 0);
    got = text("old");
    EXPECT(BFT_INVALID, bft_cursor_record(f->cursor, &got, &got));
    assert_null(got.data);
}

/* --- plain cases ---------------------------------------------------------- */

static void an_empty_tree_has_no_record(void **state)
{
    struct fixture *f = *state;
    EXPECT(BFT_NOT_FOUND, bft_cursor_first(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_last(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_prev(f->cursor));
    for (int how = BFT_GE; how <= BFT_EQ; how++)
        EXPECT(BFT_NOT_FOUND,
               bft_cursor_seek(f->cursor, (bft_seek)how, text("k")));
    expect_nowhere(f);
}

static void wrong_arguments_are_refused(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[BFT_KEY_MAX + 1];
    bft_slice none = {NULL, 0}, null = {NULL, 3}, got;
    bft_slice longer = {bytes, sizeof(bytes)};
    EXPECT(BFT_INVALID, bft_cursor_open(f->tree, NULL));
    EXPECT(BFT_INVALID, bft_cursor_first(NULL));
    EXPECT(BFT_INVALID, bft_cursor_next(NULL));
    EXPECT(BFT_INVALID, bft_cursor_key(f->cursor, NULL));
    EXPECT(BFT_INVALID, bft_cursor_value(f->cursor, NULL));
    EXPECT(BFT_INVALID, bft_cursor_key(NULL, &got));
    EXPECT(BFT_INVALID, bft_cursor_record(f->cursor, &got, NULL));
    EXPECT(BFT_INVALID, bft_cursor_record(f->cursor, NULL, &got));
    EXPECT(BFT_INVALID, bft_cursor_seek(f->cursor, BFT_GE, none));
    EXPECT(BFT_INVALID, bft_cursor_seek(f->cursor, (bft_seek)7, text("k")));
    EXPECT(BFT_TOO_BIG, bft_cursor_seek(f->cursor, BFT_GE, longer));
    EXPECT(BFT_TOO_BIG, bft_cursor_bounds(f->cursor, longer, none));
    EXPECT(BFT_INVALID, bft_cursor_bounds(f->cursor, none, null));
    EXPECT(BFT_TOO_BIG, bft_cursor_prefix(f->cursor, longer));
    bft_cursor_close(NULL);
}

static void the_end_is_a_place_to_come_back_from(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "1");
    put(f, "b", "2");
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "a", "1");
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    expect_nowhere(f);
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    expect_at(f, "b", "2");
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_prev(f->cursor));
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "a", "1");
    /* What comes after the end is found from there. */
    EXPECT(BFT_OK, bft_cursor_last(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    put(f, "c", "3");
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "c", "3");
}

static void a_failed_seek_leaves_no_position(void **state)
{
    struct fixture *f = *state;
    put(f, "b", "2");
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_seek(f->cursor, BFT_GT, text("b")));
    expect_nowhere(f);
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "b", "2");
    EXPECT(BFT_NOT_FOUND, bft_cursor_seek(f->cursor, BFT_EQ, text("a")));
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    expect_at(f, "b", "2");
}

static void a_key_shown_may_be_sought(void **state)
{
    struct fixture *f = *state;
    char key[16];
    bft_slice at;
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "%04d", i);
        put(f, key, key);
    }
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    for (int i = 1; i < 300; i++) {
        snprintf(key, sizeof(key), "%04d", i);
        EXPECT(BFT_OK, bft_cursor_key(f->cursor, &at));
        EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_GT, at));
        expect_at(f, key, key);
        EXPECT(BFT_OK, bft_cursor_key(f->cursor, &at));
        EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_EQ, at));
        expect_at(f, key, key);
    }
}

static void a_prefix_of_ff_has_no_upper_bound(void **state)
{
    struct fixture *f = *state;
    put(f, "\xfe\xff", "0");
    put(f, "\xff", "1");
    put(f, "\xff\xff", "2");
    put(f, "\xff\xff\xff", "3");
    EXPECT(BFT_OK, bft_cursor_prefix(f->cursor, text("\xff\xff")));
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    expect_at(f, "\xff\xff", "2");
    EXPECT(BFT_OK, bft_cursor_last(f->cursor));
    expect_at(f, "\xff\xff\xff", "3");
    EXPECT(BFT_OK, bft_cursor_prefix(f->cursor, text("\xfe\xff")));
    EXPECT(BFT_OK, bft_cursor_last(f->cursor));
    expect_at(f, "\xfe\xff", "0");
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
}

static void a_dropped_tree_is_gone(void **state)
{
    struct fixture *f = *state;
    bft_cursor *other;
    put(f, "a", "1");
    put(f, "b", "1");
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    EXPECT(BFT_OK, bft_tree_drop(f->db, "t"));
    EXPECT(BFT_GONE, bft_cursor_next(f->cursor));
    EXPECT(BFT_GONE, bft_cursor_first(f->cursor));
    EXPECT(BFT_GONE, bft_cursor_open(f->tree, &other));
    EXPECT(BFT_GONE, bft_cursor_open_newest(f->tree, &other));
    assert_null(other);
}

/* Of a large value that was not asked for before. */
static void so_is_a_value_of_a_dropped_tree(void **state)
{
    struct fixture *f = *state;
    static char large[100000];
    bft_slice key, value;
    EXPECT(BFT_OK,
           bft_put(f->tree, text("a"), (bft_slice){large, sizeof(large)}));
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    EXPECT(BFT_OK, bft_tree_drop(f->db, "t"));
    EXPECT(BFT_GONE, bft_cursor_value(f->cursor, &value));
    EXPECT(BFT_GONE, bft_cursor_record(f->cursor, &key, &value));
}

/* --- what changes under a cursor ------------------------------------------ */

static void a_step_shows_what_was_written_before_it(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "1");
    put(f, "b", "1");
    put(f, "d", "1");
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    put(f, "b", "2");
    expect_at(f, "a", "1");
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "b", "2");
    put(f, "c", "1");
    EXPECT(BFT_OK, bft_delete(f->tree, text("b")));
    expect_at(f, "b", "2"); /* as of the step that reached it */
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, "c", "1");
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    expect_at(f, "a", "1");
    EXPECT(BFT_OK, bft_delete(f->tree, text("a")));
    EXPECT(BFT_OK, bft_delete(f->tree, text("c")));
    EXPECT(BFT_OK, bft_delete(f->tree, text("d")));
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    EXPECT(BFT_NOT_FOUND, bft_cursor_prev(f->cursor));
}

/* A copy may be of a leaf's former range: the records that a split gave to
 * others change under other latches. */
static void records_that_a_split_moved_are_shown_anew(void **state)
{
    struct fixture *f = *state;
    static char value[100];
    char key[16];
    memset(value, 'v', sizeof(value) - 1);
    for (int round = 0; round < 20; round++) {
        put(f, "0", "1");
        for (int i = 100; i < 116; i++) {
            snprintf(key, sizeof(key), "%d", i);
            put(f, key, "old");
        }
        EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_EQ, text("0")));
        for (int i = 200; i < 260; i++) { /* fills leaves behind them */
            snprintf(key, sizeof(key), "%d", i);
            put(f, key, value);
        }
        EXPECT(BFT_OK, bft_checkpoint(f->db));
        put(f, "115", "new");
        for (int i = 100; i < 116; i++) {
            snprintf(key, sizeof(key), "%d", i);
            EXPECT(BFT_OK, bft_cursor_next(f->cursor));
            expect_at(f, key, i == 115 ? "new" : "old");
        }
        for (int i = 200; i < 260; i++) {
            snprintf(key, sizeof(key), "%d", i);
            EXPECT(BFT_OK, bft_delete(f->tree, text(key)));
        }
        EXPECT(BFT_OK, bft_checkpoint(f->db));
    }
}

static void every_record_can_be_changed_on_the_way(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 5000 };
    char key[16];
    bft_slice at;
    size_t steps = 0;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof(key), "%06d", i * 2);
        put(f, key, "old");
    }
    for (bft_status s = bft_cursor_first(f->cursor); s == BFT_OK;
         s = bft_cursor_next(f->cursor), steps++) {
        EXPECT(BFT_OK, bft_cursor_key(f->cursor, &at));
        assert_int_equal(strtol(memcpy(key, at.data, 7), NULL, 10), steps * 2);
        if (steps % 3 == 0)
            EXPECT(BFT_OK, bft_delete(f->tree, at));
        else
            EXPECT(BFT_OK, bft_put(f->tree, at, text("new")));
        /* Behind the cursor: never met on the way up. */
        snprintf(key, sizeof(key), "%06d", (int)steps * 2 - 1);
        if (steps)
            put(f, key, "odd");
    }
    assert_int_equal(steps, COUNT);
    for (steps = 0; bft_cursor_prev(f->cursor) == BFT_OK; steps++) {
        EXPECT(BFT_OK, bft_cursor_key(f->cursor, &at));
        EXPECT(BFT_OK, bft_delete(f->tree, at));
    }
    assert_int_equal(steps, COUNT - (COUNT + 2) / 3 + COUNT - 1);
    EXPECT(BFT_NOT_FOUND, bft_cursor_first(f->cursor));
}

/* --- large values --------------------------------------------------------- */

static void large_values_are_fetched_when_asked_for(void **state)
{
    struct fixture *f = *state;
    enum { BYTES = 700000 };
    uint8_t *bytes = malloc(BYTES);
    bft_slice value = {bytes, BYTES}, got, again, key;
    assert_non_null(bytes);
    random_bytes(bytes, BYTES);
    put(f, "a", "small");
    EXPECT(BFT_OK, bft_put(f->tree, text("b"), value));
    value.len = 3000;
    EXPECT(BFT_OK, bft_put(f->tree, text("c"), value));
    for (int round = 0; round < 2; round++) {
        EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_GE, text("a")));
        expect_at(f, "a", "small");
        EXPECT(BFT_OK, bft_cursor_next(f->cursor));
        EXPECT(BFT_OK, bft_cursor_value(f->cursor, &got));
        EXPECT(BFT_OK, bft_cursor_key(f->cursor, &key));
        EXPECT(BFT_OK, bft_cursor_value(f->cursor, &again));
        assert_ptr_equal(got.data, again.data);
        assert_int_equal(got.len, BYTES);
        assert_memory_equal(got.data, bytes, BYTES);
        EXPECT(BFT_OK, bft_cursor_next(f->cursor));
        EXPECT(BFT_OK, bft_cursor_value(f->cursor, &got));
        assert_int_equal(got.len, 3000);
        assert_memory_equal(got.data, bytes, 3000);
        EXPECT(BFT_OK, bft_checkpoint(f->db));
    }
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    EXPECT(BFT_OK, bft_delete(f->tree, text("b")));
    EXPECT(BFT_OK, bft_cursor_key(f->cursor, &key));
    EXPECT(BFT_NOT_FOUND, bft_cursor_value(f->cursor, &got));
    assert_null(got.data);
    EXPECT(BFT_NOT_FOUND, bft_cursor_record(f->cursor, &key, &got));
    assert_null(key.data);
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    free(bytes);
}

/* --- long runs of deleted records ------------------------------------------ */

static void a_long_deleted_run_is_stepped_over(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 100000 };
    char key[16];
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        put(f, key, "v");
    }
    for (int i = 1; i < COUNT - 1; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        EXPECT(BFT_OK, bft_delete(f->tree, text(key)));
    }
    snprintf(key, sizeof(key), "%08d", COUNT - 1);
    EXPECT(BFT_OK, bft_cursor_first(f->cursor));
    expect_at(f, "00000000", "v");
    EXPECT(BFT_OK, bft_cursor_next(f->cursor));
    expect_at(f, key, "v");
    EXPECT(BFT_NOT_FOUND, bft_cursor_next(f->cursor));
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    EXPECT(BFT_OK, bft_cursor_prev(f->cursor));
    expect_at(f, "00000000", "v");
    EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_GE, text("00050000")));
    expect_at(f, key, "v");
    EXPECT(BFT_OK, bft_cursor_seek(f->cursor, BFT_LE, text("00050000")));
    expect_at(f, "00000000", "v");
}

/* --- caching --------------------------------------------------------------- */

static void a_scan_leaves_what_it_read_in_memory(void **state)
{
    struct fixture *f = *state;
    bft_stats before = {.size = sizeof(before)}, after = before;
    char key[16], value[40];
    f->options.memory_bytes = 8 << 20;
    f->options.promote_percent = 100;
    /* A reader that finds the latch held drops its promotion: here nobody else
     * may take it. */
    f->options.no_threads = true;
    fixture_reopen(f);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        snprintf(value, sizeof(value), "value %d of them", i);
        put(f, key, value);
    }
    fixture_reopen(f);
    for (int round = 0; round < 3; round++) {
        int i = 0;
        EXPECT(BFT_OK, bft_stats_read(f->db, &before));
        for (bft_status s = bft_cursor_first(f->cursor); s == BFT_OK;
             s = bft_cursor_next(f->cursor), i++) {
            snprintf(key, sizeof(key), "%08d", i);
            snprintf(value, sizeof(value), "value %d of them", i);
            expect_at(f, key, value);
            if (round == 1 && i % 10 == 0)
                put(f, key, value);
        }
        assert_int_equal(i, 5000);
        EXPECT(BFT_OK, bft_stats_read(f->db, &after));
        if (round == 0)
            assert_true(after.promotions > before.promotions);
        else
            assert_int_equal(after.page_misses, before.page_misses);
        EXPECT(BFT_OK, bft_verify(f->db));
    }
}

/* --- against the array ----------------------------------------------------- */

enum { UNIVERSE = 2500, LIMIT = 200, OPERATIONS = 60000 };
enum where { NOWHERE, ON, BEHIND, AHEAD };

struct model {
    struct fixture *f;
    uint8_t *key[UNIVERSE];
    size_t key_len[UNIVERSE];
    bool live[UNIVERSE];
    uint32_t version[UNIVERSE];
    size_t value_len[UNIVERSE];
    /* What the cursor should be like: bounds as indices. */
    int low, high;
    enum where where;
    int at;
    uint32_t shown; /* version of the record shown */
    size_t shown_len;
};

struct key {
    uint8_t *bytes;
    size_t len;
};

static int key_compare(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    size_t len = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->bytes, y->bytes, len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static struct key random_key(size_t len_max)
{
    struct key key = {NULL, 1 + random_below(12)};
    if (random_below(20) == 0)
        key.len = 1 + random_below(len_max);
    key.bytes = malloc(key.len);
    assert_non_null(key.bytes);
    /* Few letters: shared prefixes, keys that begin others. */
    for (size_t i = 0; i < key.len; i++)
        key.bytes[i] = (uint8_t)(random_below(4) * 0x55);
    return key;
}

static void model_make(struct model *m, struct fixture *f, size_t key_max)
{
    struct key keys[UNIVERSE];
    size_t count = 0;
    memset(m, 0, sizeof(*m));
    m->f = f;
    m->high = UNIVERSE;
    while (count < UNIVERSE) {
        while (count < UNIVERSE)
            keys[count++] = random_key(key_max);
        qsort(keys, count, sizeof(*keys), key_compare);
        size_t kept = 1;
        for (size_t i = 1; i < count; i++) {
            if (key_compare(&keys[i], &keys[kept - 1]) != 0)
                keys[kept++] = keys[i];
            else
                free(keys[i].bytes);
        }
        count = kept;
    }
    for (size_t i = 0; i < UNIVERSE; i++) {
        m->key[i] = keys[i].bytes;
        m->key_len[i] = keys[i].len;
    }
}

static bft_slice key_of(const struct model *m, int i)
{
    bft_slice key = {m->key[i], m->key_len[i]};
    return key;
}

/* Mostly small, some large, some empty. */
static size_t random_value_len(void)
{
    switch (random_below(30)) {
    case 0:
        return 0;
    case 1:
        return 100 + random_below(3000);
    default:
        return random_below(40);
    }
}

static void value_fill(uint8_t *bytes, size_t len, uint32_t version)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(version + i * 7);
}

static void model_write(struct model *m, int i)
{
    static uint8_t bytes[4000];
    static uint32_t version;
    bft_slice value = {bytes, random_value_len()};
    if (random_below(5) < 2) {
        EXPECT(BFT_OK, bft_delete(m->f->tree, key_of(m, i)));
        m->live[i] = false;
        return;
    }
    value_fill(bytes, value.len, ++version);
    EXPECT(BFT_OK, bft_put(m->f->tree, key_of(m, i), value));
    m->live[i] = true;
    m->version[i] = version;
    m->value_len[i] = value.len;
}

/* The first live one from I on, or below I, within bounds; -1: none. */
static int model_up(const struct model *m, int i)
{
    for (i = i < m->low ? m->low : i; i < m->high; i++)
        if (m->live[i])
            return i;
    return -1;
}

static int model_down(const struct model *m, int i)
{
    for (i = i > m->high ? m->high : i; i > m->low;)
        if (m->live[--i])
            return i;
    return -1;
}

static bft_status model_show(struct model *m, int i)
{
    if (i < 0)
        return BFT_NOT_FOUND;
    m->where = ON;
    m->at = i;
    m->shown = m->version[i];
    m->shown_len = m->value_len[i];
    return BFT_OK;
}

static bft_status model_seek(struct model *m, bft_seek how, int i)
{
    int found = -1;
    m->where = NOWHERE;
    switch (how) {
    case BFT_GE:
        found = model_up(m, i);
        break;
    case BFT_GT:
        found = model_up(m, i + 1);
        break;
    case BFT_LE:
        found = model_down(m, i + 1);
        break;
    case BFT_LT:
        found = model_down(m, i);
        break;
    case BFT_EQ:
        found = m->live[i] && i >= m->low && i < m->high ? i : -1;
        break;
    }
    return model_show(m, found);
}

static bft_status model_next(struct model *m)
{
    int from = m->where == NOWHERE ? m->low
               : m->where == AHEAD ? m->at
                                   : m->at + 1;
    bft_status status = model_show(m, model_up(m, from));
    if (status != BFT_OK && m->where != NOWHERE)
        m->where = BEHIND;
    return status;
}

static bft_status model_prev(struct model *m)
{
    int from = m->where == NOWHERE  ? m->high
               : m->where == BEHIND ? m->at + 1
                                    : m->at;
    bft_status status = model_show(m, model_down(m, from));
    if (status != BFT_OK && m->where != NOWHERE)
        m->where = AHEAD;
    return status;
}

static void model_bounds(struct model *m)
{
    bft_slice none = {NULL, 0};
    bool low = random_below(2) == 0, high = random_below(2) == 0;
    int i = (int)random_below(UNIVERSE);
    m->where = NOWHERE;
    m->low = 0;
    m->high = UNIVERSE;
    if (random_below(2)) { /* of a prefix */
        bft_slice prefix = key_of(m, i);
        if (prefix.len > 3)
            prefix.len = random_below(4);
        EXPECT(BFT_OK, bft_cursor_prefix(m->f->cursor, prefix));
        for (; m->low < UNIVERSE; m->low++)
            if (m->key_len[m->low] >= prefix.len &&
                memcmp(m->key[m->low], prefix.data, prefix.len) == 0)
                break;
        for (; m->high > 0; m->high--)
            if (m->key_len[m->high - 1] >= prefix.len &&
                memcmp(m->key[m->high - 1], prefix.data, prefix.len) == 0)
                break;
        return;
    }
    if (low)
        m->low = i;
    if (high)
        m->high = random_below(10) ? i + (int)random_below(200)
                                   : (int)random_below(UNIVERSE);
    if (m->high >= UNIVERSE) {
        m->high = UNIVERSE;
        high = false;
    }
    EXPECT(BFT_OK, bft_cursor_bounds(m->f->cursor, low ? key_of(m, i) : none,
                                     high ? key_of(m, m->high) : none));
}

static void model_compare(struct model *m)
{
    static uint8_t bytes[4000];
    bft_slice key, value;
    if (m->where != ON) {
        expect_nowhere(m->f);
        return;
    }
    EXPECT(BFT_OK, bft_cursor_key(m->f->cursor, &key));
    assert_int_equal(key.len, m->key_len[m->at]);
    assert_memory_equal(key.data, m->key[m->at], key.len);
    if (m->shown != m->version[m->at] || !m->live[m->at])
        return; /* a large one may be newer, or gone */
    EXPECT(BFT_OK, bft_cursor_value(m->f->cursor, &value));
    assert_int_equal(value.len, m->shown_len);
    value_fill(bytes, value.len, m->shown);
    assert_memory_equal(value.data, bytes, value.len);
}

/* One call of the cursor's, and what comes of it. */
static void model_move(struct model *m)
{
    bft_cursor *c = m->f->cursor;
    size_t what = random_below(100);
    if (what < 20) {
        bft_seek how = (bft_seek)random_below(5);
        int i = (int)random_below(UNIVERSE);
        EXPECT(model_seek(m, how, i), bft_cursor_seek(c, how, key_of(m, i)));
    } else if (what < 22) {
        m->where = NOWHERE;
        EXPECT(model_next(m), bft_cursor_first(c));
    } else if (what < 24) {
        m->where = NOWHERE;
        EXPECT(model_prev(m), bft_cursor_last(c));
    } else if (what < 28) {
        model_bounds(m);
    } else {
        size_t steps = 1 + random_below(random_below(10) ? 6 : 100);
        bool up = random_below(2) == 0;
        for (size_t i = 0; i < steps; i++) {
            if (up)
                EXPECT(model_next(m), bft_cursor_next(c));
            else
                EXPECT(model_prev(m), bft_cursor_prev(c));
            model_compare(m);
        }
    }
    model_compare(m);
}

static void agree_with_the_array(struct fixture *f, size_t key_max)
{
    static struct model m;
    random_start();
    model_make(&m, f, key_max);
    for (int i = 0; i < OPERATIONS; i++) {
        /* Now many writes, now none; near the cursor, or anywhere. */
        bool writing = i / 1000 % 3 != 2;
        if (writing && random_below(3) == 0)
            model_write(&m, (int)random_below(UNIVERSE));
        else if (writing && m.where != NOWHERE && random_below(3) == 0)
            model_write(&m, (m.at + (int)random_below(4)) % UNIVERSE);
        else
            model_move(&m);
        if (random_below(5000) == 0)
            EXPECT(BFT_OK, bft_checkpoint(f->db));
        if (random_below(5000) == 0)
            EXPECT(BFT_OK, bft_verify(f->db));
    }
    for (size_t i = 0; i < UNIVERSE; i++)
        free(m.key[i]);
}

static void cursors_agree_with_the_array(void **state)
{
    agree_with_the_array(*state, 128);
}

static void cursors_agree_with_the_array_in_large_leaves(void **state)
{
    struct fixture *f = *state;
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 8192};
    bft_cursor_close(f->cursor);
    EXPECT(BFT_OK, bft_tree_open(f->db, "large", &options, &f->tree));
    EXPECT(BFT_OK, bft_cursor_open_newest(f->tree, &f->cursor));
    agree_with_the_array(f, BFT_KEY_MAX);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_empty_tree_has_no_record),
        TEST(wrong_arguments_are_refused),
        TEST(the_end_is_a_place_to_come_back_from),
        TEST(a_failed_seek_leaves_no_position),
        TEST(a_key_shown_may_be_sought),
        TEST(a_prefix_of_ff_has_no_upper_bound),
        TEST(a_dropped_tree_is_gone),
        TEST(so_is_a_value_of_a_dropped_tree),
        TEST(a_step_shows_what_was_written_before_it),
        TEST(records_that_a_split_moved_are_shown_anew),
        TEST(every_record_can_be_changed_on_the_way),
        TEST(large_values_are_fetched_when_asked_for),
        TEST(a_long_deleted_run_is_stepped_over),
        TEST(a_scan_leaves_what_it_read_in_memory),
        TEST(cursors_agree_with_the_array),
        TEST(cursors_agree_with_the_array_in_large_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
