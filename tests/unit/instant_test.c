/*
 * Cursors show the tree as it was at one instant, whatever is written meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"

enum { KEYS = 600, LARGE = 5000 };

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "k%05u", i)};
}

static void put(bft_tree *tree, unsigned i, const char *value)
{
    char buf[16];
    expect_ok(bft_put(tree, key_of(buf, i), text_slice(value)));
}

/* The cursor is on record I, which is VALUE. */
static void is_on(bft_cursor *cursor, unsigned i, const char *value)
{
    char buf[16];
    bft_slice want = key_of(buf, i), key, got;
    expect_ok(bft_cursor_record(cursor, &key, &got));
    assert_int_equal(want.len, key.len);
    assert_memory_equal(want.data, key.data, key.len);
    assert_int_equal(strlen(value), got.len);
    assert_memory_equal(value, got.data, got.len);
}

/* Every second record, by the first KEYS numbers, has VALUE, and no other is
 * there. */
static void shows_even(bft_cursor *cursor, const char *value)
{
    char buf[16];
    expect_ok(bft_cursor_first(cursor));
    for (unsigned i = 0; i < KEYS; i += 2) {
        is_on(cursor, i, value);
        expect_status(i + 2 < KEYS ? BFT_OK : BFT_NOT_FOUND,
                      bft_cursor_next(cursor));
    }
    for (unsigned i = KEYS; i > 0; i -= 2) {
        expect_ok(bft_cursor_prev(cursor));
        is_on(cursor, i - 2, value);
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_prev(cursor));
    expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(buf, 3)));
    is_on(cursor, 4, value);
    expect_ok(bft_cursor_seek(cursor, BFT_EQ, key_of(buf, 8)));
    expect_status(BFT_NOT_FOUND,
                  bft_cursor_seek(cursor, BFT_EQ, key_of(buf, 9)));
    expect_ok(bft_cursor_seek(cursor, BFT_LE, key_of(buf, 11)));
    is_on(cursor, 10, value);
}

static void put_even(bft_tree *tree, const char *value)
{
    for (unsigned i = 0; i < KEYS; i += 2)
        put(tree, i, value);
}

static void what_was_there_when_it_was_opened(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_cursor *cursor, *later;
    char buf[16];
    (void)state;
    put_even(tree, "before");
    expect_ok(bft_cursor_open(tree, &cursor));
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 3)
            put(tree, i, "behind");
        else
            expect_ok(bft_delete(tree, key_of(buf, i)));
    }
    shows_even(cursor, "before");
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_delete_range(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0},
                               NULL));
    put_even(tree, "last");
    expect_ok(bft_cursor_open(tree, &later));
    shows_even(cursor, "before");
    shows_even(later, "last");
    put_even(tree, "after all");
    expect_ok(bft_cursor_refresh(cursor));
    shows_even(cursor, "after all");
    shows_even(later, "last");
    bft_cursor_close(cursor);
    bft_cursor_close(later);
    /* Nobody keeps anything any more. */
    assert_true(atomic_load(&f->db->engine->snapshot_newest) == 0);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void large_values_are_those_of_then(void **state)
{
    static uint8_t large[LARGE];
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_cursor *cursor;
    bft_slice value;
    char buf[16];
    (void)state;
    expect_ok(bft_put(tree, key_of(buf, 1), (bft_slice){large, LARGE}));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_cursor_first(cursor));
    expect_ok(bft_delete(tree, key_of(buf, 1)));
    expect_ok(bft_cursor_value(cursor, &value));
    assert_int_equal(LARGE, value.len);
    assert_memory_equal(large, value.data, LARGE);
    bft_cursor_close(cursor);
    engine_reopen(f);
    engine_fixture_free(f);
}

/* Unlike a snapshot's, which refuse them. */
static void trees_can_be_changed_beside_a_cursor(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512), *other;
    bft_cursor *cursor, *gone;
    (void)state;
    other = engine_tree(f, "other", 512);
    put_even(tree, "before");
    put_even(other, "before");
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_cursor_open(other, &gone));
    expect_ok(bft_cursor_first(gone));
    expect_ok(bft_tree_truncate(f->db, "t"));
    put_even(tree, "behind");
    expect_status(BFT_NOT_FOUND, bft_cursor_first(cursor));
    expect_ok(bft_tree_drop(f->db, "other"));
    expect_status(BFT_GONE, bft_cursor_last(gone));
    expect_ok(bft_cursor_refresh(cursor));
    shows_even(cursor, "behind");
    bft_cursor_close(gone);
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

static void what_cannot_be_refreshed(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_txn *txn;
    (void)state;
    put_even(tree, "before");
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
    expect_status(BFT_INVALID, bft_cursor_refresh(cursor));
    put_even(tree, "behind");
    shows_even(cursor, "before");
    bft_cursor_close(cursor);
    bft_snapshot_release(snapshot);
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    expect_status(BFT_INVALID, bft_cursor_refresh(cursor));
    bft_cursor_close(cursor);
    bft_txn_abort(txn);
    /* One without an instant goes back to the beginning. */
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    expect_ok(bft_cursor_last(cursor));
    expect_ok(bft_cursor_refresh(cursor));
    expect_ok(bft_cursor_next(cursor));
    is_on(cursor, 0, "behind");
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

struct late {
    bft_tree *tree;
};

static void put_late(void *arg)
{
    struct late *late = arg;
    put(late->tree, 0, "late");
}

/* The writer is stopped while it publishes: behind the cursor, which does not
 * wait. */
static void a_stopped_writer_comes_behind(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct late late;
    struct parked writer;
    bft_cursor *cursor, *none;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true; /* memory runs out for nobody else */
    engine_open(f);
    tree = late.tree = engine_tree(f, "t", 512);
    put_even(tree, "before");
    expect_ok(bft_cursor_open(tree, &none));
    bft_cursor_close(none);
    expect_ok(bft_cursor_open(tree, &cursor));
    assert_true(park_start(&writer, "write:guarded", 0, put_late, &late));
    f->allocs_sticky = true;
    atomic_store(&f->allocs_left, 0);
    expect_status(BFT_NO_MEMORY, bft_cursor_refresh(cursor));
    expect_status(BFT_NO_MEMORY, bft_cursor_open(tree, &none));
    atomic_store(&f->allocs_left, -1);
    shows_even(cursor, "before");
    expect_ok(bft_cursor_refresh(cursor));
    shows_even(cursor, "before");
    park_end(&writer);
    put(tree, 0, "later");
    shows_even(cursor, "before");
    expect_ok(bft_cursor_refresh(cursor));
    expect_ok(bft_cursor_first(cursor));
    is_on(cursor, 0, "later");
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

static void a_database_closed_under_a_cursor(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_cursor *cursor;
    bft_db *second;
    (void)state;
    put_even(tree, "before");
    expect_ok(bft_open(f->path, &f->options, &second));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_cursor_first(cursor));
    expect_ok(bft_close(f->db));
    assert_true(atomic_load(&second->engine->snapshot_newest) == 0);
    expect_status(BFT_INVALID, bft_cursor_next(cursor));
    expect_status(BFT_INVALID, bft_cursor_refresh(cursor));
    bft_cursor_close(cursor);
    f->db = second;
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_there_when_it_was_opened),
        cmocka_unit_test(large_values_are_those_of_then),
        cmocka_unit_test(trees_can_be_changed_beside_a_cursor),
        cmocka_unit_test(what_cannot_be_refreshed),
        cmocka_unit_test(a_stopped_writer_comes_behind),
        cmocka_unit_test(a_database_closed_under_a_cursor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
