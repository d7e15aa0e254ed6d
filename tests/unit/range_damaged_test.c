/*
 * Ranges that are deleted while a leaf of theirs cannot be read: what lay in it stays,
 * deleted, and all else goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "index/tomb.h"
#include "numbered_key.h"

enum { ALL = 1000, LOW = 200, HIGH = 800, VALUE = 40, WRITES = 2000 };

static const bft_slice NONE = {NULL, 0};

static void put(bft_tree *tree, uint64_t n)
{
    static const char value[VALUE] = "a value";
    struct text text;
    expect_ok(bft_put(tree, key_of(&text, n), (bft_slice){value, VALUE}));
}

static bft_tree *filled(struct engine_fixture *f, const char *name,
                        uint32_t leaf_bytes)
{
    bft_tree *tree = engine_tree(f, name, leaf_bytes);
    for (uint64_t n = 0; n < ALL; n++)
        put(tree, n);
    return tree;
}

static bft_status delete_range(bft_tree *tree, uint64_t low, uint64_t high)
{
    struct text from, to;
    return bft_delete_range(tree, key_of(&from, low), key_of(&to, high), NULL);
}

/* Nothing can be read any more of the leaf that holds key N. */
static void damage_leaf(struct engine_fixture *f, bft_tree *handle, uint64_t n)
{
    struct bfti_tree *tree = bfti_handle_tree(handle);
    struct bfti_rec *rec = bfti_rec_current(f->db->engine->buffer.threads);
    uint64_t bytes, id;
    unsigned damaged = 0;
    struct text text;
    expect_ok(bfti_node_load(tree, rec, key_of(&text, n), false));
    id = bfti_inner_find(bfti_tree_root(tree), key_of(&text, n));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_GRAIN) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got < sizeof(head) || le64_get(head.page_id) != id ||
            le32_get(head.tree_id) != tree->id)
            continue;
        expect_ok(
            bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
        damaged++;
    }
    assert_true(damaged > 0);
}

/* Does a tombstone lie over key N? */
static bool is_under(struct engine_fixture *f, bft_tree *tree, uint64_t n)
{
    struct bfti_rec *rec = bfti_rec_current(f->db->engine->buffer.threads);
    struct text text;
    return bfti_tomb_on(bfti_handle_tree(tree), rec, key_of(&text, n));
}

static struct engine_fixture *open_filled(bft_tree **a, bft_tree **b,
                                          uint32_t leaf_bytes)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->tolerated = BFT_CORRUPT;
    engine_open(f);
    (void)filled(f, "a", leaf_bytes);
    (void)filled(f, "b", leaf_bytes);
    engine_reopen(f); /* nothing of them is in memory */
    *a = engine_tree(f, "a", 0);
    *b = engine_tree(f, "b", 0);
    return f;
}

static void what_else_was_deleted_goes(void **state)
{
    bft_tree *a, *b, *other;
    struct engine_fixture *f = open_filled(&a, &b, 512);
    uint64_t count;
    (void)state;
    other = engine_tree(f, "other", 512);
    damage_leaf(f, a, LOW + 1);
    damage_leaf(f, a, LOW + 300);
    expect_ok(delete_range(a, LOW, HIGH));
    expect_ok(delete_range(b, LOW, HIGH));
    for (unsigned n = 0; n < WRITES; n++)
        put(other, n % 10);
    assert_int_equal(0, atomic_load(&bfti_handle_tree(b)->tombs_count));
    assert_true(is_under(f, a, LOW + 1));
    assert_true(is_under(f, a, LOW + 300));
    for (uint64_t n = LOW + 50; n < HIGH; n += n == LOW + 250 ? 100 : 50)
        assert_false(is_under(f, a, n));
    expect_ok(bft_count(b, NONE, NONE, &count));
    assert_int_equal(ALL - (HIGH - LOW), count);
    /* And later deletions, of lower keys too. */
    expect_ok(delete_range(a, 0, 100));
    expect_ok(delete_range(b, 0, ALL));
    for (unsigned n = 0; n < WRITES; n++)
        put(other, n % 10);
    assert_int_equal(0, atomic_load(&bfti_handle_tree(b)->tombs_count));
    for (uint64_t n = 0; n < 100; n++)
        assert_false(is_under(f, a, n));
    engine_fixture_free(f);
}

/* As many as there may be, before some are to be taken away. */
static void many_that_stay_stop_no_deletion(void **state)
{
    bft_tree *a, *b;
    struct engine_fixture *f = open_filled(&a, &b, 32768);
    uint64_t count;
    (void)state;
    damage_leaf(f, a, 1);
    for (uint64_t n = 0; n < 100; n++)
        expect_ok(delete_range(a, 2 * n, 2 * n + 1));
    assert_true(is_under(f, a, 2));
    expect_ok(delete_range(a, ALL - 10, ALL));
    expect_ok(delete_range(b, 0, ALL));
    expect_ok(bft_count(b, NONE, NONE, &count));
    assert_int_equal(0, count);
    /* Nor who writes where one lies that begins there. */
    expect_ok(delete_range(a, 50, ALL));
    put(a, ALL - 5);
    put(a, ALL);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_else_was_deleted_goes),
        cmocka_unit_test(many_that_stay_stop_no_deletion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
