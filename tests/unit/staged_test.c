/*
 * Images of the leaves as they are on the disk, and checkpoints that are made of
 * such stages: nothing is lost, space that waits is freed, the file stays near what
 * lives in it, and who is stopped in one stops no writer.
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
#include "index/image.h"
#include "park.h"

enum { LEAF = 512, VALUE = 100, KEYS = 3000, LOG = 1 << 20 };

static bft_slice key_of(char buf[16], unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
    return key;
}

static void put_sized(bft_tree *tree, unsigned i, unsigned version, size_t len)
{
    char kbuf[16];
    uint8_t *value = calloc(1, len);
    assert_non_null(value);
    memcpy(value, &version, sizeof(version));
    expect_ok(bft_put(tree, key_of(kbuf, i), (bft_slice){value, len}));
    free(value);
}

static void put(bft_tree *tree, unsigned i, unsigned version)
{
    put_sized(tree, i, version, VALUE);
}

static void expect_version(bft_tree *tree, unsigned i, unsigned version)
{
    char kbuf[16];
    uint8_t value[8000];
    unsigned got;
    size_t len;
    expect_ok(bft_get(tree, key_of(kbuf, i), value, sizeof(value), &len));
    memcpy(&got, value, sizeof(got));
    assert_int_equal(version, got);
}

/* Records scattered over all leaves, not ascending. */
static void put_all(bft_tree *tree, unsigned version)
{
    for (unsigned i = 0; i < KEYS; i++)
        put(tree, i * 7 % KEYS, version);
}

static void expect_all(bft_tree *tree, unsigned version)
{
    for (unsigned i = 0; i < KEYS; i++)
        expect_version(tree, i, version);
}

/* No eviction and no checkpoint that the test does not ask for; large enough for
 * stages. */
static struct engine_fixture *open_filled(bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.memory_bytes = 8 << 20;
    f->options.log_bytes = LOG;
    f->options.no_threads = true;
    engine_open(f);
    *tree = engine_tree(f, "t", LEAF);
    put_all(*tree, 1);
    expect_ok(bft_checkpoint(f->db));
    assert_true(bfti_space_staged(f->db->engine));
    return f;
}

static struct bfti_rec *rec_of(struct engine_fixture *f)
{
    return bfti_rec_current(f->db->engine->buffer.threads);
}

static void expect_after_kill(struct engine_fixture *f, unsigned version)
{
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_ok(bft_verify(f->db));
    expect_all(engine_tree(f, "t", LEAF), version);
}

static void evict_some(struct engine_fixture *f, unsigned n)
{
    bool done;
    while (n-- > 0)
        expect_ok(bfti_evict_one(&f->db->engine->buffer, rec_of(f), &done));
}

/* --- images of the disk ------------------------------------------------------ */

static void an_image_of_the_disk_frees_what_waits(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    uint64_t redo, held;
    (void)state;
    put_all(tree, 2);
    redo = engine_stats(f).redo_lsn;
    evict_some(f, 3000);
    held = engine_stats(f).held_bytes;
    assert_true(held > LOG / 8);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    assert_true(engine_stats(f).held_bytes < held / 4);
    assert_int_equal(redo, engine_stats(f).redo_lsn);
    for (unsigned i = 0; i < KEYS; i += 5) /* in memory alone */
        put(tree, i, 3);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    expect_ok(bft_verify(f->db));
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_ok(bft_verify(f->db));
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i < KEYS; i++)
        expect_version(tree, i, i % 5 ? 2 : 3);
    engine_fixture_free(f);
}

/* What was newer in memory than in such an image comes into the next whole one,
 * though nothing else happens to its leaf. */
static void what_an_image_of_the_disk_left_is_not_forgotten(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    (void)state;
    put_all(tree, 2);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    expect_ok(bft_checkpoint(f->db));
    assert_int_equal(engine_stats(f).accepted_lsn, engine_stats(f).redo_lsn);
    expect_after_kill(f, 2);
    engine_fixture_free(f);
}

/* The extents of large values are in an image only with the leaf that names
 * them. */
static void large_values_are_in_an_image_of_the_disk(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    (void)state;
    for (unsigned i = 0; i < 60; i++)
        put_sized(tree, i * 50, 2, 3000);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    expect_ok(bft_verify(f->db));
    for (unsigned i = 0; i < 60; i++)
        put_sized(tree, i * 50, 3, i % 2 ? 3000 : VALUE);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_ok(bft_verify(f->db));
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i < KEYS; i++)
        expect_version(tree, i, i % 50 ? 1 : 3);
    engine_fixture_free(f);
}

/* Nor does it matter what a history has: no frame names its extents. */
static void a_long_history_asks_for_no_whole_image(void **state)
{
    bft_tree *tree, *wide;
    struct engine_fixture *f = open_filled(&tree);
    bft_snapshot *snapshot;
    char kbuf[16];
    size_t len;
    (void)state;
    wide = engine_tree(f, "wide", 32768);
    for (unsigned i = 0; i < 20; i++)
        put_sized(wide, i, 1, 3000);
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    for (unsigned i = 0; i < 20; i++)
        put_sized(wide, i, 2, 3000);
    assert_false(bfti_images_are_whole(f->db->engine));
    put_all(tree, 2);
    evict_some(f, 3000);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    expect_ok(bft_verify(f->db));
    expect_status(
        BFT_TOO_SMALL,
        bft_snapshot_get(snapshot, wide, key_of(kbuf, 7), NULL, 0, &len));
    assert_int_equal(3000, len);
    expect_after_kill(f, 2);
    wide = engine_tree(f, "wide", 32768);
    for (unsigned i = 0; i < 20; i++)
        expect_version(wide, i, 2);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_verify(f->db));
    bft_snapshot_release(snapshot);
    engine_fixture_free(f);
}

/* What is gone with the process need not survive a power cut: no sync. */
static void a_history_syncs_nothing(void **state)
{
    enum { SNAPSHOTS = 20, LONG = 60000 };
    bft_snapshot *snapshot[SNAPSHOTS];
    const struct bfti_sim_fault no_sync = {.ops = BFTI_SIM_SYNC,
                                           .path = "/db/data",
                                           .nth = 1,
                                           .sticky = true,
                                           .harm = BFTI_SIM_REFUSE,
                                           .status = BFT_IO};
    bft_tree *tree;
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    char kbuf[16];
    size_t len;
    (void)state;
    f->options.memory_bytes = 64 << 20;
    f->options.log_bytes = 64 << 20;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        bfti_sim_fail(f->vfs, &no_sync);
        put_sized(tree, 1, i, LONG + i);
        bfti_sim_heal(f->vfs);
        expect_ok(bft_snapshot_take(f->db, &snapshot[i]));
    }
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        expect_status(BFT_TOO_SMALL,
                      bft_snapshot_get(snapshot[i], tree, key_of(kbuf, 1), NULL,
                                       0, &len));
        assert_int_equal(LONG + i, len);
        bft_snapshot_release(snapshot[i]);
    }
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A dropped tree's extents need another image, not another redo start. */
static void an_image_of_the_disk_frees_a_dropped_tree(void **state)
{
    bft_tree *tree, *other;
    struct engine_fixture *f = open_filled(&tree);
    uint64_t redo = engine_stats(f).redo_lsn, live;
    (void)state;
    other = engine_tree(f, "other", LEAF);
    put(other, 1, 1);
    live = engine_stats(f).live_bytes;
    expect_ok(bft_tree_drop(f->db, "t"));
    assert_true(bfti_space_is_due(f->db->engine));
    assert_true(engine_stats(f).held_bytes > live / 2);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec_of(f), true));
    assert_int_equal(redo, engine_stats(f).redo_lsn);
    assert_true(engine_stats(f).held_bytes < live / 8);
    /* Into what was the other tree's, redo passing by that. */
    put_all(other, 2);
    evict_some(f, 3000);
    engine_crash(f, BFTI_SIM_DROP, 1);
    expect_ok(bft_verify(f->db));
    other = engine_tree(f, "other", LEAF);
    for (unsigned i = 0; i < KEYS; i += 7) {
        char kbuf[16];
        size_t len;
        bft_status status = bft_get(other, key_of(kbuf, i), NULL, 0, &len);
        assert_true(status == BFT_NOT_FOUND || status == BFT_TOO_SMALL);
    }
    engine_fixture_free(f);
}

/* --- stages ------------------------------------------------------------------- */

static void a_checkpoint_in_stages_needs_less_than_its_size(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    bft_stats before, after;
    (void)state;
    expect_ok(bft_checkpoint(f->db));
    for (unsigned round = 2; round < 6; round++) {
        put_all(tree, round);
        before = engine_stats(f);
        expect_ok(bft_checkpoint(f->db));
        after = engine_stats(f);
        assert_true(after.checkpoints > before.checkpoints + 2);
        assert_true(after.extent_bytes_written - before.extent_bytes_written >
                    before.live_bytes / 3);
        /* The delta of a leaf is more that lives, for one checkpoint. */
        assert_true(after.file_bytes <= (before.live_bytes > after.live_bytes
                                             ? before.live_bytes
                                             : after.live_bytes) *
                                                3 / 2 +
                                            (1 << 20));
    }
    expect_after_kill(f, 5);
    engine_fixture_free(f);
}

#ifndef NDEBUG

static void run_checkpoint(void *arg)
{
    expect_ok(bft_checkpoint(arg));
}

/* A leaf that the flush has not come to yet is split by another: what was in memory
 * above its frozen page, some of which goes to a new leaf, was there before the
 * position that redo will start from. */
static void a_split_beside_a_flush_loses_nothing(void **state)
{
    bft_tree *tree, *small;
    struct engine_fixture *f = open_filled(&tree);
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    struct bfti_entry *entry;
    struct parked checkpoint;
    char kbuf[16];
    bft_slice cut;
    uint64_t id;
    (void)state;

    small = engine_tree(f, "small", 4096);
    for (unsigned i = 0; i < 10; i++)
        put(small, i, 1);
    expect_ok(bft_checkpoint(f->db));
    id = bfti_inner_page(
        bfti_inner_here(bfti_tree_root(bfti_handle_tree(small))), 0);
    entry = bfti_table_entry(buffer->table, id);
    put(small, 3, 2);
    bfti_latch(f->db->engine->env, entry);
    bfti_freeze(rec_of(f), bfti_page_at(buffer, bfti_entry_word(entry)));
    bfti_unlatch(f->db->engine->env, entry, false);
    for (unsigned i = 10; i < 20; i++)
        put(small, i, 1);
    for (unsigned i = 0; i < KEYS; i += 100) /* leaves to stop at */
        put(tree, i, 2);
    assert_true(
        park_start(&checkpoint, "flush:frozen", 0, run_checkpoint, f->db));
    assert_false(bfti_flush_has(buffer->table, id));
    cut = key_of(kbuf, 8);
    expect_ok(bfti_split_at(buffer, rec_of(f), id, &cut, 1));
    park_end(&checkpoint);
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_ok(bft_verify(f->db));
    small = engine_tree(f, "small", 4096);
    for (unsigned i = 0; i < 20; i++)
        expect_version(small, i, i == 3 ? 2 : 1);
    engine_fixture_free(f);
}

/* Whoever is stopped in a flush or in one of its images stops nobody else; writers
 * wait for the image once, and then the file grows. */
static void a_stopped_stage_stops_no_writer(void **state)
{
    static const char *const point[] = {"flush:begun", "flush:frozen",
                                        "flush:merged", "checkpoint:cut",
                                        "checkpoint:written"};
    (void)state;
    for (unsigned i = 0; i < sizeof(point) / sizeof(*point); i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct parked checkpoint;
        unsigned version = 1, until;
        uint64_t file;
        bft_tree *tree;

        f->options.memory_bytes = 256 << 10;
        f->options.log_bytes = 4 << 20;
        engine_open(f);
        tree = engine_tree(f, "t", LEAF);
        put_all(tree, version);
        expect_ok(bft_checkpoint(f->db));
        /* The background may have come first, and left it little to do. */
        do {
            assert_true(version < 50);
            put_all(tree, ++version);
        } while (!park_start(&checkpoint, point[i], 0, run_checkpoint, f->db));
        file = engine_stats(f).file_bytes;
        for (until = version + 6; version < until;)
            put_all(tree, ++version);
        assert_true(engine_stats(f).file_bytes > file);
        assert_true(engine_stats(f).writer_waits > 0);
        park_end(&checkpoint);
        expect_after_kill(f, version);
        engine_fixture_free(f);
    }
}

static void put_first(void *arg)
{
    put(arg, 0, 1);
}

/* Whose frame is not in the log yet, with its latch let go: no image begins behind
 * it, and others do not make one after the other. */
static void a_stopped_writer_makes_the_log_longer(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct parked writer;
    bft_stats before, after;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 128 << 10;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    put_all(tree, 1);
    expect_ok(bft_checkpoint(f->db));
    before = engine_stats(f);
    assert_true(park_start(&writer, "wal:stored", 0, put_first, tree));
    for (unsigned i = 1; i < KEYS; i++)
        put(tree, i, 2);
    after = engine_stats(f);
    assert_true(after.accepted_lsn - after.redo_lsn > 2 * f->options.log_bytes);
    assert_in_range(after.checkpoints, before.checkpoints,
                    before.checkpoints + 30);
    park_end(&writer);
    put(tree, 1, 2);
    assert_true(engine_stats(f).redo_lsn > after.redo_lsn);
    for (unsigned i = 0; i < KEYS; i++)
        expect_version(tree, i, i ? 2 : 1);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_of_the_disk_frees_what_waits),
        cmocka_unit_test(what_an_image_of_the_disk_left_is_not_forgotten),
        cmocka_unit_test(large_values_are_in_an_image_of_the_disk),
        cmocka_unit_test(a_long_history_asks_for_no_whole_image),
        cmocka_unit_test(a_history_syncs_nothing),
        cmocka_unit_test(an_image_of_the_disk_frees_a_dropped_tree),
        cmocka_unit_test(a_checkpoint_in_stages_needs_less_than_its_size),
#ifndef NDEBUG
        cmocka_unit_test(a_split_beside_a_flush_loses_nothing),
        cmocka_unit_test(a_stopped_stage_stops_no_writer),
        cmocka_unit_test(a_stopped_writer_makes_the_log_longer),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
