/*
 * Content of inner nodes that is not in memory: it is read when it is needed, by
 * all that goes through a tree, and what is damaged, or cannot be read, or finds
 * no memory, is told and loses nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine_fixture.h"
#include "fileio/fault.h"

enum { RECORDS = 8000, VALUE = 40, BETWEEN = 10 };

static bft_slice key_of(char buf[24], unsigned i)
{
    bft_slice key = {buf,
                     (size_t)snprintf(buf, 24, "record-%08u", i * BETWEEN)};
    return key;
}

static bft_slice value_of(uint8_t buf[VALUE], unsigned i)
{
    bft_slice value = {buf, VALUE};
    memset(buf, (int)(i % 250), VALUE);
    memcpy(buf, &i, sizeof(i));
    return value;
}

static bft_status get(bft_tree *tree, unsigned i)
{
    char kbuf[24];
    uint8_t vbuf[VALUE], expected[VALUE];
    size_t len;
    bft_status status = bft_get(tree, key_of(kbuf, i), vbuf, VALUE, &len);
    if (status == BFT_OK) {
        (void)value_of(expected, i);
        assert_int_equal(VALUE, len);
        assert_memory_equal(expected, vbuf, VALUE);
    }
    return status;
}

static bft_status put(bft_tree *tree, unsigned i)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    return bft_put(tree, key_of(kbuf, i), value_of(vbuf, i));
}

static struct bfti_engine *engine_of(const struct engine_fixture *f)
{
    return f->db->engine;
}

/* --- nodes ----------------------------------------------------------------- */

static struct bfti_inner *root_of(bft_tree *tree)
{
    struct bfti_inner *root = bfti_tree_root(bfti_handle_tree(tree));
    assert_int_equal(2, root->height);
    assert_true(root->count >= 4);
    return root;
}

static unsigned nodes_here(bft_tree *tree)
{
    struct bfti_inner *root = root_of(tree);
    unsigned here = 0;
    for (unsigned i = 0; i < root->count; i++)
        here += bfti_inner_peek(bfti_inner_child(root, i)) != NULL;
    return here;
}

/* What was used lately stays the first time. */
static void drop_nodes(const struct engine_fixture *f)
{
    size_t usual = engine_of(f)->nodes_bytes;
    engine_of(f)->nodes_bytes = 1;
    for (int i = 0; i < 3; i++)
        bfti_nodes_drop(engine_of(f), 0, SIZE_MAX);
    engine_of(f)->nodes_bytes = usual;
}

/* The first record of the Ith node. */
static unsigned first_of(bft_tree *tree, unsigned i)
{
    char text[BFTI_KEY_MAX + 1];
    size_t len;
    if (i == 0)
        return 0;
    len = bfti_inner_key(root_of(tree), i, text);
    while (len < strlen("record-") + 8)
        text[len++] = '0';
    text[len] = 0;
    return (unsigned)(strtoul(text + strlen("record-"), NULL, 10) + BETWEEN -
                      1) /
           BETWEEN;
}

/* --- a database ------------------------------------------------------------ */

static struct engine_fixture *open_filled(enum engine_backend backend,
                                          bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    f->options.no_threads = true;
    f->options.memory_bytes = 1 << 20;
    f->options.promote_percent = 101;
    engine_open(f);
    *tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(put(*tree, i));
    expect_ok(bft_checkpoint(f->db));
    return f;
}

static void reopen(struct engine_fixture *f, bft_tree **tree)
{
    engine_reopen(f);
    *tree = engine_tree(f, "t", 512);
}

static void check_all(struct engine_fixture *f, bft_tree *tree)
{
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(get(tree, i));
    expect_ok(bft_verify(f->db));
}

/* --- tests ----------------------------------------------------------------- */

static void opening_reads_no_node_that_is_not_needed(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    uint64_t before;
    (void)state;
    reopen(f, &tree);
    assert_int_equal(0, nodes_here(tree));
    before = engine_stats(f).nodes_read;
    expect_ok(get(tree, RECORDS / 2));
    expect_ok(get(tree, RECORDS / 2 + 1));
    assert_int_equal(1, nodes_here(tree));
    assert_int_equal(before + 1, engine_stats(f).nodes_read);
    check_all(f, tree);
    assert_int_equal(root_of(tree)->count, nodes_here(tree));
    engine_fixture_free(f);
}

static void what_is_not_used_is_dropped_and_read_again(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    size_t bytes = atomic_load(&engine_of(f)->inner_bytes);
    unsigned count = root_of(tree)->count;
    (void)state;
    for (int round = 0; round < 3; round++) {
        bft_stats before = engine_stats(f);
        unsigned here = nodes_here(tree);
        drop_nodes(f);
        assert_int_equal(0, nodes_here(tree));
        assert_int_equal(before.nodes_dropped + here,
                         engine_stats(f).nodes_dropped);
        assert_true(atomic_load(&engine_of(f)->inner_bytes) < bytes / 2);
        check_all(f, tree);
        assert_int_equal(before.nodes_read + count, engine_stats(f).nodes_read);
    }
    engine_fixture_free(f);
}

/* Within their share nothing is dropped; beyond it as much as has to be. */
static void as_much_is_dropped_as_is_too_much(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    struct bfti_engine *engine = engine_of(f);
    unsigned count = root_of(tree)->count;
    (void)state;
    engine->nodes_bytes = atomic_load(&engine->inner_bytes);
    for (int i = 0; i < 3; i++)
        bfti_nodes_drop(engine, 0, SIZE_MAX);
    assert_int_equal(count, nodes_here(tree));
    engine->nodes_bytes -= 1;
    for (int i = 0; i < 3; i++)
        bfti_nodes_drop(engine, 0, SIZE_MAX);
    assert_int_equal(count - 1, nodes_here(tree));
    engine_fixture_free(f);
}

static void what_no_checkpoint_has_stays(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    char kbuf[24];
    uint8_t vbuf[VALUE];
    uint64_t splits;
    (void)state;
    drop_nodes(f);
    splits = engine_stats(f).splits;
    f->options.log_bytes = 64 << 20;
    /* Between two records, until their leaf splits. */
    for (unsigned i = 0; i < 9; i++) {
        bft_slice key = key_of(kbuf, RECORDS / 2);
        kbuf[key.len - 1] = (char)('1' + i);
        expect_ok(bft_put(tree, key, value_of(vbuf, i)));
    }
    for (int i = 0; engine_stats(f).splits == splits && i < 10000; i++) {
        bool done;
        expect_ok(bfti_evict_one(&engine_of(f)->buffer,
                                 bfti_rec_current(engine_of(f)->buffer.threads),
                                 &done));
    }
    assert_true(engine_stats(f).splits > splits);
    drop_nodes(f);
    assert_in_range(nodes_here(tree), 1, 2); /* it was full, perhaps */
    expect_ok(bft_checkpoint(f->db));
    drop_nodes(f);
    assert_int_equal(0, nodes_here(tree));
    check_all(f, tree);
    engine_fixture_free(f);
}

/* Its holder may be about to change the node. */
static void the_node_of_a_latched_leaf_stays(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    struct bfti_engine *engine = engine_of(f);
    struct bfti_entry *entry;
    char kbuf[24];
    (void)state;
    entry = bfti_table_entry(
        engine->buffer.table,
        bfti_inner_find(root_of(tree), key_of(kbuf, RECORDS / 2)));
    bfti_latch(engine->env, entry);
    drop_nodes(f);
    assert_int_equal(1, nodes_here(tree));
    assert_true(bfti_tree_node_stays(bfti_handle_tree(tree),
                                     bfti_rec_current(engine->buffer.threads),
                                     key_of(kbuf, RECORDS / 2)));
    bfti_unlatch(engine->env, entry, false);
    drop_nodes(f);
    assert_int_equal(0, nodes_here(tree));
    engine_fixture_free(f);
}

#ifndef NDEBUG

static struct {
    const struct engine_fixture *f;
    bft_tree *tree;
    unsigned key;
    unsigned dropped, loaded;
} away;

static void *load_main(void *unused)
{
    (void)unused;
    expect_ok(get(away.tree, away.key));
    return NULL;
}

/* A writer's node goes once it has chosen a leaf, and is back when it asks the
 * inner nodes a second time, under the latch. */
static void go_and_come(const char *point)
{
    pthread_t thread;
    if (strcmp(point, "write:leaf-chosen") == 0 && away.dropped++ == 0)
        drop_nodes(away.f);
    if (strcmp(point, "write:leaf-missed") != 0 || away.loaded++)
        return;
    assert_int_equal(0, pthread_create(&thread, NULL, load_main, NULL));
    assert_int_equal(0, pthread_join(thread, NULL));
}

static void a_node_that_goes_and_comes_leads_nobody_astray(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    (void)state;
    engine_reopen(f); /* all leaves are on the disk only */
    tree = engine_tree(f, "t", 512);
    away.f = f;
    away.tree = tree;
    away.key = RECORDS / 2;
    away.dropped = away.loaded = 0;
    expect_ok(get(tree, away.key));
    atomic_store(&bfti_park, go_and_come);
    expect_ok(put(tree, away.key));
    atomic_store(&bfti_park, NULL);
    assert_true(away.dropped > 1);
    assert_int_equal(1, away.loaded);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

#endif

static void scans_and_counts_go_through_nodes_away(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    bft_slice none = {NULL, 0};
    char low[24], high[24];
    bft_cursor *cursor;
    bft_status status;
    uint64_t count;
    unsigned n = 0;
    (void)state;
    engine_of(f)->nodes_bytes = 1;
    drop_nodes(f);
    expect_ok(bft_count(tree, none, none, &count));
    assert_int_equal(RECORDS, count);
    drop_nodes(f);
    expect_ok(bft_cursor_open(tree, &cursor));
    for (status = bft_cursor_last(cursor); status == BFT_OK;
         status = bft_cursor_prev(cursor))
        n++;
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(RECORDS, n);
    bft_cursor_close(cursor);
    drop_nodes(f);
    /* Few are counted; how many are in nodes between is guessed. */
    expect_ok(
        bft_estimate(tree, key_of(low, 4000), key_of(high, 4010), &count));
    assert_int_equal(10, count);
    drop_nodes(f);
    expect_ok(bft_estimate(tree, none, none, &count));
    assert_in_range(count, RECORDS / 2, RECORDS * 2);
    engine_fixture_free(f);
}

/* More nodes than may be in memory, all needed at once. */
static void a_batch_has_the_nodes_of_all_its_leaves(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    bft_batch *batch;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    unsigned count = root_of(tree)->count;
    uint64_t before;
    (void)state;
    engine_of(f)->nodes_bytes = 1;
    drop_nodes(f);
    before = engine_stats(f).nodes_read;
    expect_ok(bft_batch_create(f->db, &batch));
    for (unsigned i = 0; i < RECORDS; i += 100)
        expect_ok(
            bft_batch_put(batch, tree, key_of(kbuf, i), value_of(vbuf, i)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    assert_int_equal(before + count, engine_stats(f).nodes_read);
    assert_int_equal(0, atomic_load(&engine_of(f)->nodes_kept));
    check_all(f, tree);
    engine_fixture_free(f);
}

static void a_tree_goes_with_its_nodes_away(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    (void)state;
    drop_nodes(f);
    expect_ok(bft_tree_truncate(f->db, "t"));
    expect_ok(bft_verify(f->db));
    expect_status(BFT_NOT_FOUND, get(tree, 1));
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(put(tree, i));
    reopen(f, &tree);
    expect_ok(bft_tree_drop(f->db, "t"));
    for (int i = 0; i < 2; i++) {
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_verify(f->db)); /* nothing is lost of the space */
    }
    engine_fixture_free(f);
}

/* The first node has few leaves left, the next ones are full. */
static void a_tree_goes_with_nodes_of_any_size(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    struct bfti_engine *engine = engine_of(f);
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    const struct bfti_inner *node[2];
    uint64_t deleted;
    char low[24], high[24];
    (void)state;
    /* Who asks how many waits until they are gone. */
    expect_ok(bft_delete_range(tree, key_of(low, 20),
                               key_of(high, first_of(tree, 1) - 20), &deleted));
    for (unsigned i = 0; i < 3000; i++) {
        bool done;
        expect_ok(bfti_evict_one(&engine->buffer, rec, &done));
        expect_ok(bfti_sweep(engine, rec));
    }
    for (unsigned i = 0; i < 2; i++)
        node[i] = bfti_inner_here(bfti_inner_child(root_of(tree), i));
    assert_true(node[0]->count * 4 < node[1]->count);
    expect_ok(bft_tree_drop(f->db, "t"));
    for (int i = 0; i < 2; i++) {
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_verify(f->db));
    }
    assert_int_equal(0, engine_stats(f).leaves);
    engine_fixture_free(f);
}

/* --- what goes wrong --------------------------------------------------------- */

static void flip(struct engine_fixture *f, uint64_t place)
{
    struct bfti_file *file = bfti_pagefile_file(engine_of(f)->buffer.pf);
    uint64_t offset = bfti_disk_grain(place) * BFTI_GRAIN + 100;
    uint8_t byte;
    size_t got;
    expect_ok(file->ops->read(file, offset, &byte, 1, &got));
    byte ^= 0x10;
    expect_ok(file->ops->write(file, offset, &byte, 1));
}

static void expect_damage(bft_status status, uint64_t place)
{
    char text[512], at[64];
    expect_status(BFT_CORRUPT, status);
    bft_last_error(text, sizeof(text));
    (void)snprintf(at, sizeof(at), "byte %llu",
                   (unsigned long long)bfti_disk_grain(place) * BFTI_GRAIN);
    assert_non_null(strstr(text, "tree t"));
    assert_non_null(strstr(text, at));
}

static void a_damaged_node_is_told_and_the_others_serve(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    unsigned first, next;
    uint64_t place;
    (void)state;
    reopen(f, &tree);
    first = first_of(tree, 1);
    next = first_of(tree, 2);
    place = atomic_load(&bfti_inner_child(root_of(tree), 1)->place);
    flip(f, place);
    expect_damage(get(tree, first + 5), place);
    expect_damage(put(tree, first + 5), place);
    expect_ok(get(tree, first - 5));
    expect_ok(put(tree, next + 5));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    expect_status(BFT_CORRUPT, bft_tree_drop(f->db, "t"));
    expect_status(BFT_CORRUPT, bft_tree_truncate(f->db, "t"));
    flip(f, place);
    check_all(f, tree);
    engine_fixture_free(f);
}

/* Another node of the tree, whole, at the place of the one that is looked for,
 * is not taken for it. */
static void a_node_of_another_range_is_damage(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    struct bfti_inner *node[2];
    uint64_t place[2];
    (void)state;
    reopen(f, &tree);
    for (unsigned i = 0; i < 2; i++) {
        node[i] = bfti_inner_child(root_of(tree), i + 1);
        place[i] = atomic_load(&node[i]->place);
    }
    atomic_store(&node[0]->place, place[1]);
    expect_damage(get(tree, first_of(tree, 1) + 5), place[1]);
    atomic_store(&node[0]->place, place[0]);
    check_all(f, tree);
    engine_fixture_free(f);
}

/* CALL fails with STATUS when its node cannot be had, and serves afterwards. */
static void expect_all_fail(struct engine_fixture *f, bft_tree *tree,
                            bft_status status)
{
    bft_slice none = {NULL, 0};
    bft_cursor *cursor;
    uint64_t count;
    expect_status(status, get(tree, RECORDS / 2));
    expect_status(status, put(tree, RECORDS / 2));
    expect_status(status, bft_count(tree, none, none, &count));
    expect_status(status, bft_estimate(tree, none, none, &count));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_status(status, bft_cursor_last(cursor));
    bft_cursor_close(cursor);
    expect_status(status, bft_tree_drop(f->db, "t"));
    expect_status(status, bft_tree_truncate(f->db, "t"));
}

static void a_node_that_cannot_be_read_changes_nothing(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                   .nth = 1,
                                   .sticky = true,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_SIM, &tree);
    (void)state;
    reopen(f, &tree);
    bfti_sim_fail(f->vfs, &fault);
    expect_all_fail(f, tree, BFT_IO);
    bfti_sim_heal(f->vfs);
    assert_int_equal(0, nodes_here(tree));
    check_all(f, tree);
    engine_fixture_free(f);
}

/* Each allocation in turn. */
static void a_node_without_memory_changes_nothing(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(ENGINE_MEMORY, &tree);
    bft_status status = BFT_NO_MEMORY;
    (void)state;
    f->surroundings.plain_heap = true;
    reopen(f, &tree);
    for (int64_t n = 0; status != BFT_OK; n++) {
        assert_true(n < 100);
        atomic_store(&f->allocs_left, n);
        status = get(tree, RECORDS / 2);
        atomic_store(&f->allocs_left, -1);
        if (status == BFT_OK)
            break;
        expect_status(BFT_NO_MEMORY, status);
        assert_true(nodes_here(tree) <= 1);
    }
    check_all(f, tree);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_reads_no_node_that_is_not_needed),
        cmocka_unit_test(what_is_not_used_is_dropped_and_read_again),
        cmocka_unit_test(as_much_is_dropped_as_is_too_much),
        cmocka_unit_test(what_no_checkpoint_has_stays),
        cmocka_unit_test(the_node_of_a_latched_leaf_stays),
#ifndef NDEBUG
        cmocka_unit_test(a_node_that_goes_and_comes_leads_nobody_astray),
#endif
        cmocka_unit_test(scans_and_counts_go_through_nodes_away),
        cmocka_unit_test(a_batch_has_the_nodes_of_all_its_leaves),
        cmocka_unit_test(a_tree_goes_with_its_nodes_away),
        cmocka_unit_test(a_tree_goes_with_nodes_of_any_size),
        cmocka_unit_test(a_damaged_node_is_told_and_the_others_serve),
        cmocka_unit_test(a_node_of_another_range_is_damage),
        cmocka_unit_test(a_node_that_cannot_be_read_changes_nothing),
        cmocka_unit_test(a_node_without_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
