/*
 * The cleaner: a file whose end still has what lives gets short again, nothing is
 * lost by that, and who changes a leaf that is being moved wins.
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
#include "fileio/pagefile_internal.h"
#include "index/image.h"
#include "park.h"

enum { LEAF = 1024, VALUE = 100, KEYS = 20000, STEP = 64 << 10 };

static bft_slice key_of(char buf[16], unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
    return key;
}

static void put(bft_tree *tree, unsigned i, unsigned version)
{
    uint8_t value[VALUE] = {0};
    char kbuf[16];
    memcpy(value, &version, sizeof(version));
    memcpy(value + sizeof(version), &i, sizeof(i));
    expect_ok(bft_put(tree, key_of(kbuf, i), (bft_slice){value, VALUE}));
}

static void expect_version(bft_tree *tree, unsigned i, unsigned version)
{
    uint8_t value[VALUE];
    char kbuf[16];
    unsigned got;
    size_t len;
    expect_ok(bft_get(tree, key_of(kbuf, i), value, sizeof(value), &len));
    memcpy(&got, value, sizeof(got));
    assert_int_equal(version, got);
}

static struct bfti_rec *rec_of(struct engine_fixture *f)
{
    return bfti_rec_current(f->db->engine->buffer.threads);
}

/* One pass, if one is due. */
static void clean(struct engine_fixture *f)
{
    bool more = true;
    while (more)
        expect_ok(bfti_clean(f->db->engine, rec_of(f), STEP, true, &more));
}

/* One for blocks of which little lives, and one for the end of the file. */
static void clean_twice(struct engine_fixture *f)
{
    clean(f);
    clean(f);
}

/* By what lives, less the MiB that a file may always have in spare. */
static double length_ratio(struct engine_fixture *f)
{
    bft_stats stats = engine_stats(f);
    return ((double)stats.file_bytes - (1 << 20)) / (double)stats.live_bytes;
}

/*
 * Two trees, filled by turns so that their leaves lie mixed, of which one goes:
 * three quarters of the file are free, and its end is not.
 */
static struct engine_fixture *open_sparse(enum engine_backend backend,
                                          uint64_t memory, bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    bft_tree *other;
    f->options.memory_bytes = memory;
    f->options.log_bytes = 4 << 20;
    f->options.no_threads = true;
    engine_open(f);
    /* Without it a file of this size would be let be, and holes be made. */
    f->db->engine->buffer.pf->space.hole_floor = 8;
    *tree = engine_tree(f, "stays", LEAF);
    other = engine_tree(f, "goes", LEAF);
    for (unsigned i = 0; i < KEYS; i++)
        put(i % 4 ? other : *tree, i, 1);
    expect_ok(bft_checkpoint(f->db));
    return f;
}

static void drop_other(struct engine_fixture *f)
{
    expect_ok(bft_tree_drop(f->db, "goes"));
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
}

static void expect_all(bft_tree *tree, unsigned version)
{
    for (unsigned i = 0; i < KEYS; i += 4)
        expect_version(tree, i, version);
}

static void the_end_is_cut_off(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_sparse(ENGINE_SIM, 256 << 10, &tree);
    double before;
    (void)state;
    drop_other(f);
    before = length_ratio(f);
    assert_true(before > 2.5);
    clean_twice(f);
    assert_true(engine_stats(f).leaves_moved > 20);
    assert_true(length_ratio(f) < 1.3);
    expect_ok(bft_verify(f->db));
    expect_all(tree, 1);
    engine_crash(f, BFTI_SIM_DROP, 1);
    clean_twice(f); /* the disk had forgotten that the file was cut */
    assert_true(length_ratio(f) < 1.3);
    expect_ok(bft_verify(f->db));
    tree = engine_tree(f, "stays", LEAF);
    expect_all(tree, 1);
    engine_fixture_free(f);
}

/* Deltas on base pages are moved with them, and what is in memory above goes on
 * lying on them. */
static void deltas_and_pages_stay_where_they_lie(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_sparse(ENGINE_SIM, 8 << 20, &tree);
    (void)state;
    /* Deltas of a few records; then newer ones in memory. */
    for (unsigned i = 0; i < KEYS; i += 100)
        put(tree, i, 2);
    expect_ok(bft_checkpoint(f->db));
    assert_true(engine_stats(f).deltas > 50);
    for (unsigned i = 0; i < KEYS; i += 200)
        put(tree, i, 3);
    drop_other(f);
    clean(f);
    assert_true(engine_stats(f).leaves_moved > 50);
    expect_ok(bft_verify(f->db));
    for (int reopened = 0; reopened < 2; reopened++) {
        for (unsigned i = 0; i < KEYS; i += 4)
            expect_version(tree, i, i % 200 == 0 ? 3 : i % 100 == 0 ? 2 : 1);
        engine_crash(f, BFTI_SIM_KILL, 1);
        expect_ok(bft_verify(f->db));
        tree = engine_tree(f, "stays", LEAF);
    }
    engine_fixture_free(f);
}

/* Where it does not help, it is not done over and over. */
static void what_cannot_be_cut_off_is_left_alone(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_sparse(ENGINE_SIM, 256 << 10, &tree);
    bft_cursor *cursor;
    uint64_t written, checkpoints;
    (void)state;
    drop_other(f);
    /* It names its leaf: the last one of the file, or not far from it. */
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_cursor_last(cursor));
    for (unsigned i = 0; i < 10; i++)
        clean(f);
    written = engine_stats(f).extents_written;
    checkpoints = engine_stats(f).checkpoints;
    for (unsigned i = 0; i < 10; i++)
        clean(f);
    assert_int_equal(written, engine_stats(f).extents_written);
    assert_int_equal(checkpoints, engine_stats(f).checkpoints);
    bft_cursor_close(cursor);
    expect_ok(bft_verify(f->db));
    expect_all(tree, 1);
    engine_fixture_free(f);
}

static uint64_t block_of(struct bfti_inner *node)
{
    return place_block(atomic_load(&node->place));
}

/* A pass from BLOCK on, whatever the file is like. */
static void clean_from(struct engine_fixture *f, uint64_t block)
{
    atomic_store(&f->db->engine->buffer.pf->space.ceiling, block);
    f->db->engine->clean_grain = block * (BFTI_BLOCK / BFTI_GRAIN);
    clean(f);
}

/* The place of a node that was moved stands in the node above, which stays. */
static void nodes_above_those_that_are_moved_are_written(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_sparse(ENGINE_SIM, 256 << 10, &tree);
    struct bfti_inner *root;
    uint64_t highest = 0;
    (void)state;
    drop_other(f);
    root = bfti_tree_root(bfti_handle_tree(tree));
    assert_int_equal(2, root->height);
    clean_from(f, block_of(root));
    assert_true(bfti_tree_root(bfti_handle_tree(tree)) == root);
    for (unsigned i = 0; i < root->count; i++) {
        uint64_t block = block_of(bfti_inner_child(root, i));
        highest = block > highest ? block : highest;
    }
    assert_true(block_of(root) < highest);
    clean_from(f, highest);
    for (unsigned i = 0; i < root->count; i++)
        assert_true(block_of(bfti_inner_child(root, i)) < highest);
    engine_crash(f, BFTI_SIM_DROP, 1);
    expect_ok(bft_verify(f->db));
    tree = engine_tree(f, "stays", LEAF);
    expect_all(tree, 1);
    engine_fixture_free(f);
}

#ifndef NDEBUG

static void run_clean(void *arg)
{
    clean_twice(arg);
}

static void run_checkpoint(void *arg)
{
    struct engine_fixture *f = arg;
    expect_ok(bft_checkpoint(f->db));
}

static void evict_all(struct engine_fixture *f)
{
    bool done;
    for (unsigned i = 0; i < 4000; i++)
        expect_ok(bfti_evict_one(&f->db->engine->buffer, rec_of(f), &done));
}

/* Between any two steps of moving a leaf all of them are written, merged, taken
 * by a checkpoint and moved by another. */
static void who_changes_a_leaf_that_is_moved_wins(void **state)
{
    static const char *const point[] = {"relocate:named", "relocate:written",
                                        "relocate:swung", "clean:node-copied"};
    (void)state;
    for (unsigned i = 0; i < sizeof(point) / sizeof(*point); i++) {
        bft_tree *tree;
        struct engine_fixture *f = open_sparse(ENGINE_SIM, 1 << 20, &tree);
        struct parked cleaner;
        drop_other(f);
        assert_true(park_start(&cleaner, point[i], 3, run_clean, f));
        for (unsigned version = 2; version < 5; version++) {
            for (unsigned key = 0; key < KEYS; key += 4)
                put(tree, key, version);
            evict_all(f);
            if (i < 3) /* else it has checkpoint_lock */
                expect_ok(bft_checkpoint(f->db));
        }
        expect_all(tree, 4);
        park_end(&cleaner);
        expect_ok(bft_verify(f->db));
        expect_all(tree, 4);
        engine_crash(f, BFTI_SIM_KILL, 1);
        expect_ok(bft_verify(f->db));
        tree = engine_tree(f, "stays", LEAF);
        expect_all(tree, 4);
        engine_fixture_free(f);
    }
}

/* A checkpoint that begins while a leaf is moved has it, as it was or moved. */
static void a_checkpoint_beside_it_has_the_leaf(void **state)
{
    static const char *const point[] = {"checkpoint:cut", "checkpoint:gathered",
                                        "checkpoint:structure",
                                        "checkpoint:written"};
    (void)state;
    for (unsigned i = 0; i < sizeof(point) / sizeof(*point); i++) {
        bft_tree *tree;
        struct engine_fixture *f = open_sparse(ENGINE_SIM, 1 << 20, &tree);
        struct bfti_buffer *buffer = &f->db->engine->buffer;
        struct parked checkpoint;
        uint64_t from;
        (void)state;
        drop_other(f);
        put(tree, 0, 1); /* so that there is something to do */
        assert_true(bfti_space_clean_begin(buffer->pf, &from));
        assert_true(park_start(&checkpoint, point[i], 0, run_checkpoint, f));
        for (uint64_t id = 1; id < bfti_table_ids(buffer->table); id++) {
            bool room, done;
            expect_ok(bfti_relocate(buffer, rec_of(f), id, &room, &done));
        }
        park_end(&checkpoint);
        bfti_space_clean_end(buffer->pf);
        expect_ok(bft_verify(f->db));
        engine_crash(f, BFTI_SIM_DROP, 1);
        expect_ok(bft_verify(f->db));
        expect_all(engine_tree(f, "stays", LEAF), 1);
        engine_fixture_free(f);
    }
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_is_cut_off),
        cmocka_unit_test(deltas_and_pages_stay_where_they_lie),
        cmocka_unit_test(nodes_above_those_that_are_moved_are_written),
        cmocka_unit_test(what_cannot_be_cut_off_is_left_alone),
#ifndef NDEBUG
        cmocka_unit_test(who_changes_a_leaf_that_is_moved_wins),
        cmocka_unit_test(a_checkpoint_beside_it_has_the_leaf),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
