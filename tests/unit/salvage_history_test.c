/*
 * Salvage of a database that was killed while a snapshot was open: what it kept for
 * that lies in its image, in a tree that is nobody's and has longer keys than any.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "salvage_rig.h"

enum { RECORDS_LONG = 600, VALUE_LONG = 20 };

/* Keys of the greatest length, which differ in their last bytes: so do fences. */
static bft_slice long_key(char buf[BFT_KEY_MAX + 1], unsigned n)
{
    memset(buf, 'k', BFT_KEY_MAX);
    (void)snprintf(buf + BFT_KEY_MAX - 6, 7, "%06u", n);
    return (bft_slice){buf, BFT_KEY_MAX};
}

static void put_all(bft_tree *tree, const char *value)
{
    char key[BFT_KEY_MAX + 1];
    for (unsigned n = 0; n < RECORDS_LONG; n++)
        expect_ok(
            bft_put(tree, long_key(key, n), (bft_slice){value, strlen(value)}));
}

/* Its image has a history of all records, and its log some frames more.  *LSN:
 * where the first of them lies. */
static struct rig *killed(uint64_t *lsn)
{
    struct rig *r = rig_make();
    struct engine_fixture *f = r->f;
    bft_tree *tree = engine_tree(f, "long", 4096);
    bft_tree *other = engine_tree(f, "other", 512);
    bft_snapshot *snapshot;
    put_all(tree, "what it was before");
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    put_all(tree, "what it is behind");
    expect_ok(bft_checkpoint(f->db));
    *lsn = bfti_wal_end(f->db->engine->buffer.wal);
    for (unsigned n = 0; n < 3; n++) {
        rig_put(other, n, 20);
        expect_ok(bft_sync(f->db));
    }
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &r->clean));
    bft_snapshot_release(snapshot);
    engine_close(f);
    rig_repair(r);
    return r;
}

static bool note_name(void *ctx, const char *name)
{
    unsigned *trees = ctx;
    ++*trees;
    assert_true(strcmp(name, "long") == 0 || strcmp(name, "other") == 0);
    return true;
}

/* All records of the tree are there as they were last, of the other one OTHERS, and
 * if ALONE no other tree is. */
static void check(struct rig *r, unsigned others, bool alone)
{
    struct bfti_surroundings surroundings = {.env = &r->f->env,
                                             .vfs = r->image};
    bft_options options = r->f->options;
    char key[BFT_KEY_MAX + 1], value[VALUE_LONG];
    bft_slice none = {NULL, 0};
    unsigned trees = 0;
    uint64_t count;
    bft_tree *tree;
    bft_db *db;
    size_t len;
    options.internal = &surroundings;
    expect_ok(bft_open(TO, &options, &db));
    expect_ok(bft_verify(db));
    if (alone) {
        expect_ok(bft_tree_list(db, note_name, &trees));
        assert_int_equal(2, trees);
    }
    expect_ok(bft_tree_open(db, "long", NULL, &tree));
    expect_ok(bft_count(tree, none, none, &count));
    assert_int_equal(RECORDS_LONG, count);
    for (unsigned n = 0; n < RECORDS_LONG; n++) {
        expect_ok(bft_get(tree, long_key(key, n), value, sizeof(value), &len));
        assert_int_equal(strlen("what it is behind"), len);
        assert_memory_equal("what it is behind", value, len);
    }
    expect_ok(bft_tree_open(db, "other", NULL, &tree));
    expect_ok(bft_count(tree, none, none, &count));
    assert_int_equal(others, count);
    expect_ok(bft_close(db));
}

static void what_was_kept_for_a_snapshot_is_passed_by(void **state)
{
    struct rig *r;
    uint64_t lsn;
    (void)state;
    random_start();
    r = killed(&lsn);
    expect_ok(rig_salvage_status(r));
    check(r, 3, true);
    assert_int_equal(0, r->told_count);
    assert_int_equal(RECORDS_LONG, r->report.records);
    assert_int_equal(2, r->report.trees);
    rig_free(r);
}

/* Among the frames that are lost may be one that says what the tree is. */
static void it_is_passed_by_in_a_log_with_a_hole(void **state)
{
    struct rig *r;
    uint64_t lsn, segment;
    char name[32];
    (void)state;
    random_start();
    r = killed(&lsn);
    segment = lsn - lsn % r->f->options.log_segment_bytes;
    (void)snprintf(name, sizeof(name), "log-%016llx",
                   (unsigned long long)segment);
    rig_damage_at(r, name, lsn - segment + BFTI_FRAME_HEADER);
    expect_ok(rig_salvage_status(r));
    check(r, 2, true);
    assert_int_equal(1, r->report.log_gaps);
    assert_int_equal(0, r->report.records_lost);
    assert_int_equal(1, r->told_count);
    rig_free(r);
}

static void it_stops_nothing_without_superblocks(void **state)
{
    struct rig *r;
    uint64_t lsn;
    (void)state;
    random_start();
    r = killed(&lsn);
    rig_damage_at(r, "data", 16);
    rig_damage_at(r, "data", BFTI_BLOCK + 16);
    expect_ok(rig_salvage_status(r));
    check(r, 3, false);
    assert_int_equal(0, r->report.records_lost);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_for_a_snapshot_is_passed_by),
        cmocka_unit_test(it_is_passed_by_in_a_log_with_a_hole),
        cmocka_unit_test(it_stops_nothing_without_superblocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
