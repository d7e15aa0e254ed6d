/*
 * Changes of leaves while a checkpoint passes: threads are stopped between two
 * steps, the program is killed after the checkpoint, and what the image has is
 * compared with what its free-space map counts, and with what was written.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"

#ifndef NDEBUG

enum { VALUE = 100 };

static bft_slice key_of(char buf[16], unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
    return key;
}

static void put_sized(bft_tree *tree, unsigned i, size_t len)
{
    char kbuf[16];
    uint8_t *bytes = calloc(1, len);
    bft_slice value = {bytes, len};
    assert_non_null(bytes);
    memcpy(bytes, &i, sizeof(i));
    expect_ok(bft_put(tree, key_of(kbuf, i), value));
    free(bytes);
}

static void put(bft_tree *tree, unsigned i)
{
    put_sized(tree, i, VALUE);
}

static void assert_value(bft_tree *tree, unsigned i)
{
    char kbuf[16];
    uint8_t value[VALUE];
    size_t len;
    unsigned got;
    expect_ok(bft_get(tree, key_of(kbuf, i), value, sizeof(value), &len));
    memcpy(&got, value, sizeof(got));
    assert_int_equal(i, got);
}

/* No eviction and no checkpoint that the test does not ask for. */
static struct engine_fixture *open_roomy(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.memory_bytes = 8 << 20;
    f->options.log_bytes = 8 << 20;
    f->options.no_threads = true;
    engine_open(f);
    return f;
}

static void run_checkpoint(void *arg)
{
    expect_ok(bft_checkpoint(arg));
}

/* Killed now: is the image consistent, and is all there? */
static void crash_and_verify(struct engine_fixture *f)
{
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_ok(bft_verify(f->db));
}

static struct bfti_table *table_of(struct engine_fixture *f)
{
    return f->db->engine->buffer.table;
}

/* Until some thread sleeps on a latch that another holds. */
static void await_sleeper(struct engine_fixture *f)
{
    struct bfti_table *table = table_of(f);
    for (;;) {
        for (uint64_t id = 1; id < bfti_table_ids(table); id++)
            if (atomic_load(&bfti_table_entry(table, id)->latch) == 2)
                return;
        sched_yield();
    }
}

/* --- large values ---------------------------------------------------------- */

static void a_large_value_put_while_its_leaf_is_gathered(void **state)
{
    struct engine_fixture *f = open_roomy();
    bft_tree *tree = engine_tree(f, "t", 512);
    struct parked checkpoint;
    (void)state;

    put(tree, 1);
    assert_true(
        park_start(&checkpoint, "checkpoint:frozen", 0, run_checkpoint, f->db));
    put_sized(tree, 2, 3000);
    park_end(&checkpoint);
    crash_and_verify(f);
    tree = engine_tree(f, "t", 512);
    assert_value(tree, 1);
    engine_fixture_free(f);
}

/* The same where what it supersedes is large too. */
static void large_values_that_change_while_their_leaf_is_gathered(void **state)
{
    static const char *const point[] = {"checkpoint:frozen", "merge:named",
                                        "merge:ready", "checkpoint:merged",
                                        "checkpoint:gathered"};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(point) / sizeof(*point); i++) {
        struct engine_fixture *f = open_roomy();
        bft_tree *tree = engine_tree(f, "t", 512);
        struct parked checkpoint;

        put_sized(tree, 1, 3000);
        put_sized(tree, 2, 600000);
        expect_ok(bft_checkpoint(f->db));
        put_sized(tree, 1, 2000);
        assert_true(
            park_start(&checkpoint, point[i / 2], 0, run_checkpoint, f->db));
        put_sized(tree, 1, 4000);
        put_sized(tree, 2, 700000);
        for (unsigned k = 3; i % 2 && k < 40; k++)
            put(tree, k); /* the leaf is frozen again, merged and split */
        park_end(&checkpoint);
        crash_and_verify(f);
        tree = engine_tree(f, "t", 512);
        for (unsigned k = 3; i % 2 && k < 40; k++)
            assert_value(tree, k);
        expect_ok(bft_checkpoint(f->db));
        crash_and_verify(f);
        engine_fixture_free(f);
    }
}

static void run_evictions(void *arg)
{
    struct bfti_engine *engine = ((bft_db *)arg)->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    for (int i = 0; i < 10; i++) {
        bool done;
        expect_ok(bfti_evict_one(&engine->buffer, rec, &done));
    }
}

/* A merge that is to give a value's extents back: another does, and they hold
 * something else when it looks which they are. */
static void a_late_merge_does_not_read_what_is_gone(void **state)
{
    struct engine_fixture *f = open_roomy();
    bft_tree *tree = engine_tree(f, "t", 512);
    struct parked merge;
    (void)state;

    put_sized(tree, 1, 600000);
    expect_ok(bft_checkpoint(f->db));
    put(tree, 1);
    assert_true(park_start(&merge, "merge:dead-next", 0, run_evictions, f->db));
    for (unsigned i = 2; i < 6; i++) {
        put_sized(tree, 1, 600000); /* merged by the checkpoint */
        expect_ok(bft_checkpoint(f->db));
        put(tree, i);
        for (unsigned k = 10; k < 30; k++)
            put_sized(tree, k, 3000);
    }
    park_end(&merge);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- splits ------------------------------------------------------------------ */

struct fill {
    bft_tree *tree;
    unsigned from, to;
};

static void run_fill(void *arg)
{
    struct fill *fill = arg;
    for (unsigned i = fill->from; i < fill->to; i++)
        put(fill->tree, i);
}

/* A tree "kept" with one leaf, whose id is above some that are free. */
static bft_tree *tree_above_free_ids(struct engine_fixture *f, unsigned leaves)
{
    bft_tree *gone = engine_tree(f, "gone", 512), *kept;
    for (unsigned i = 3 * leaves; i-- > 0;)
        put(gone, i); /* descending: ids grow to the left */
    expect_ok(bft_checkpoint(f->db));
    kept = engine_tree(f, "kept", 512);
    expect_ok(bft_tree_drop(f->db, "gone"));
    expect_ok(bft_checkpoint(f->db));
    return kept;
}

/* The new leaf has its place in the checkpoint's order, but no word yet. */
static void a_leaf_is_in_the_image_if_the_checkpoint_comes_first(void **state)
{
    struct engine_fixture *f = open_roomy();
    struct fill fill = {tree_above_free_ids(f, 20), 0, 40};
    struct parked split, checkpoint;
    (void)state;

    assert_true(park_start(&split, "merge:inherited", 0, run_fill, &fill));
    (void)park_start(&checkpoint, "checkpoint:cut", 0, run_checkpoint, f->db);
    atomic_store(&checkpoint.closed, false);
    await_sleeper(f);
    park_end(&split);
    park_end(&checkpoint);
    crash_and_verify(f);
    fill.tree = engine_tree(f, "kept", 512);
    for (unsigned i = fill.from; i < fill.to; i++)
        assert_value(fill.tree, i);
    engine_fixture_free(f);
}

/* A split's old inner nodes, taken by a checkpoint that has ended since. */
static void an_inner_node_left_late_is_freed(void **state)
{
    struct engine_fixture *f = open_roomy();
    bft_tree *tree = engine_tree(f, "t", 512);
    struct fill fill = {tree, 20, 60};
    struct parked first, split, second;
    (void)state;

    for (unsigned i = 0; i < 20; i++)
        put(tree, i);
    expect_ok(bft_checkpoint(f->db));
    put(tree, 1);
    assert_true(
        park_start(&first, "checkpoint:structure", 0, run_checkpoint, f->db));
    assert_true(park_start(&split, "tree:root-swung", 0, run_fill, &fill));
    park_end(&first);
    (void)park_start(&second, "checkpoint:cut", 0, run_checkpoint, f->db);
    atomic_store(&second.closed, false);
    await_sleeper(f);
    park_end(&split);
    park_end(&second);
    crash_and_verify(f);
    engine_fixture_free(f);
}

/* --- splits of leaves that did not change ------------------------------------ */

struct cut {
    struct engine_fixture *f;
    bft_tree *tree;
    unsigned at; /* key */
};

/* As a batch does that is too big for its leaf. */
static void run_cut(void *arg)
{
    struct cut *cut = arg;
    struct bfti_engine *engine = cut->f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    struct bfti_reader reader;
    char kbuf[16];
    bft_slice key = key_of(kbuf, cut->at);
    struct bfti_view view;
    bool found;
    expect_ok(bfti_leaf_touch(cut->tree->tree, rec, key));
    expect_ok(
        bfti_leaf_find(&reader, cut->tree->tree, rec, key, &found, &view));
    bfti_reader_close(&reader);
    expect_ok(bfti_split_at(&engine->buffer, rec, reader.id, &key, 1));
}

/* A clean leaf in the middle of three parts of the page table; LOW: the next id
 * lies in the first, else in the last. */
static struct cut clean_leaf(struct engine_fixture *f, bool low)
{
    struct cut cut = {f, NULL, 2};
    bft_tree *more;
    cut.tree = tree_above_free_ids(f, 560);
    for (unsigned i = 0; i < 4; i++)
        put(cut.tree, i);
    /* The last part is another one.  The id that was freed last is given out
     * first: that of the right end. */
    more = engine_tree(f, "more", 512);
    for (unsigned i = 0; bfti_table_parts(table_of(f)) < 3; i++)
        put(more, low ? 999999 - i : i);
    expect_ok(bft_tree_drop(f->db, "more"));
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_checkpoint(f->db));
    return cut;
}

static void check_cut(struct engine_fixture *f)
{
    bft_tree *tree;
    crash_and_verify(f);
    tree = engine_tree(f, "kept", 512);
    for (unsigned i = 0; i < 4; i++)
        assert_value(tree, i);
    engine_fixture_free(f);
}

/* The id was made before one checkpoint and comes into use during the next,
 * which passes its part of the table by. */
static void a_split_that_takes_two_checkpoints(void **state)
{
    struct engine_fixture *f = open_roomy();
    struct cut cut = clean_leaf(f, true);
    struct parked split, checkpoint;
    (void)state;

    assert_true(park_start(&split, "merge:ready", 0, run_cut, &cut));
    expect_ok(bft_checkpoint(f->db));
    assert_true(
        park_start(&checkpoint, "checkpoint:cut", 0, run_checkpoint, f->db));
    park_end(&split);
    park_end(&checkpoint);
    check_cut(f);
}

/* The checkpoint has looked at the parts up to the leaf's. */
static void a_split_in_the_middle_of_the_cut(void **state)
{
    (void)state;
    for (unsigned parts = 0; parts < 6; parts++) {
        struct engine_fixture *f = open_roomy();
        struct cut cut = clean_leaf(f, parts % 2);
        struct parked split, checkpoint;

        assert_true(park_start(&split, "merge:ready", 0, run_cut, &cut));
        assert_true(park_start(&checkpoint, "table:part-cut", parts / 2,
                               run_checkpoint, f->db));
        park_end(&split);
        park_end(&checkpoint);
        check_cut(f);
    }
}

/* And then the new leaf changes again, before the rest is looked at. */
static void a_split_leaf_that_changes_before_the_cut_is_over(void **state)
{
    (void)state;
    for (unsigned parts = 0; parts < 6; parts++) {
        struct engine_fixture *f = open_roomy();
        struct cut cut = clean_leaf(f, parts % 2);
        struct parked checkpoint;

        assert_true(park_start(&checkpoint, "table:part-cut", parts / 2,
                               run_checkpoint, f->db));
        run_cut(&cut);
        put(cut.tree, 3);
        run_evictions(f->db);
        put(cut.tree, 2);
        run_evictions(f->db);
        park_end(&checkpoint);
        for (int i = 0; i < 3; i++) { /* frees what was replaced */
            expect_ok(bft_verify(f->db));
            expect_ok(bft_checkpoint(f->db));
        }
        check_cut(f);
    }
}

/* A clean leaf in the first of three parts; the next id lies in the second. */
static struct cut leaf_before_its_id(struct engine_fixture *f)
{
    struct cut cut = {f, engine_tree(f, "kept", 512), 2};
    bft_tree *gone = engine_tree(f, "gone", 512), *last;
    for (unsigned i = 0; i < 4; i++)
        put(cut.tree, i);
    /* Ascending, so that the right end, which is freed last, has the highest. */
    for (unsigned i = 0; bfti_table_ids(table_of(f)) < 2 * BFTI_PART_IDS; i++)
        put(gone, i);
    last = engine_tree(f, "last", 512);
    for (unsigned i = 0; bfti_table_parts(table_of(f)) < 3; i++)
        put(last, i);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_tree_drop(f->db, "gone"));
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_checkpoint(f->db));
    return cut;
}

/* The checkpoint has passed the leaf, not the new one, which its image is not to
 * have: the next one's is. */
static void what_a_cut_leaves_out_is_in_the_next_image(void **state)
{
    struct engine_fixture *f = open_roomy();
    struct cut cut = leaf_before_its_id(f);
    struct parked split, checkpoint;
    (void)state;

    assert_true(park_start(&split, "merge:ready", 0, run_cut, &cut));
    assert_true(
        park_start(&checkpoint, "table:part-cut", 0, run_checkpoint, f->db));
    park_end(&split);
    park_end(&checkpoint);
    expect_ok(bft_checkpoint(f->db));
    check_cut(f);
}

/* --- parts of the page table --------------------------------------------------- */

static void fill_a_part(struct engine_fixture *f, bft_tree *tree, unsigned *n)
{
    size_t parts = bfti_table_parts(table_of(f));
    while (bfti_table_parts(table_of(f)) == parts)
        put(tree, (*n)++);
}

/* Splits ask for a part more when the image has all of its own: it names those
 * that it has. */
static void a_part_made_beside_the_directory_is_not_in_it(void **state)
{
    struct engine_fixture *f = open_roomy();
    bft_tree *tree = engine_tree(f, "t", 512);
    struct parked checkpoint;
    unsigned n = 0;
    (void)state;

    fill_a_part(f, tree, &n);
    for (unsigned killed = 0; killed < 2; killed++) {
        assert_true(park_start(&checkpoint, "checkpoint:parts-written", 0,
                               run_checkpoint, f->db));
        fill_a_part(f, tree, &n);
        park_end(&checkpoint);
        crash_and_verify(f);
        tree = engine_tree(f, "t", 512);
        for (unsigned i = 0; i < n; i++)
            assert_value(tree, i);
    }
    engine_fixture_free(f);
}

/* --- ids that are used again ------------------------------------------------- */

enum { MANY = 800, ROUNDS = 4 };

/* A tree with few leaves and many ids that no leaf has. */
static bft_tree *empty_leaves(struct engine_fixture *f)
{
    bft_tree *tree = engine_tree(f, "t", 512);
    char buf[16];
    for (unsigned i = 0; i < MANY; i++)
        put(tree, i);
    expect_ok(bft_checkpoint(f->db));
    for (unsigned i = 0; i < MANY; i++)
        if (i % 50)
            expect_ok(bft_delete(tree, key_of(buf, i)));
    for (unsigned i = 0; i < ROUNDS; i++)
        expect_ok(bft_checkpoint(f->db));
    put(tree, 0); /* lest their part of the table be skipped */
    return tree;
}

/* Wherever the checkpoint is, splits beside it take ids that are free, and what it
 * leaves is whole. */
static void ids_are_used_again_beside_a_checkpoint(void **state)
{
    static const char *const point[] = {"checkpoint:cut", "checkpoint:gathered",
                                        "checkpoint:structure",
                                        "checkpoint:written"};
    (void)state;
    for (size_t p = 0; p < sizeof(point) / sizeof(*point); p++) {
        struct engine_fixture *f = open_roomy();
        bft_tree *tree = empty_leaves(f);
        uint64_t ids = bfti_table_ids(table_of(f)),
                 leaves = engine_stats(f).leaves;
        struct parked checkpoint;
        assert_true(
            park_start(&checkpoint, point[p], 0, run_checkpoint, f->db));
        for (unsigned i = 0; i < MANY; i++)
            put(tree, i);
        assert_true(engine_stats(f).leaves > 4 * leaves);
        assert_int_equal(ids, bfti_table_ids(table_of(f)));
        park_end(&checkpoint);
        for (unsigned killed = 0; killed < 2; killed++) {
            crash_and_verify(f);
            tree = engine_tree(f, "t", 0);
            for (unsigned i = 0; i < MANY; i++)
                assert_value(tree, i);
            expect_ok(bft_checkpoint(f->db));
        }
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_used_again_beside_a_checkpoint),
        cmocka_unit_test(a_part_made_beside_the_directory_is_not_in_it),
        cmocka_unit_test(a_large_value_put_while_its_leaf_is_gathered),
        cmocka_unit_test(large_values_that_change_while_their_leaf_is_gathered),
        cmocka_unit_test(a_late_merge_does_not_read_what_is_gone),
        cmocka_unit_test(a_leaf_is_in_the_image_if_the_checkpoint_comes_first),
        cmocka_unit_test(an_inner_node_left_late_is_freed),
        cmocka_unit_test(a_split_that_takes_two_checkpoints),
        cmocka_unit_test(a_split_in_the_middle_of_the_cut),
        cmocka_unit_test(a_split_leaf_that_changes_before_the_cut_is_over),
        cmocka_unit_test(what_a_cut_leaves_out_is_in_the_next_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
