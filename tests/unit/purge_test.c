/* What has expired goes, and nothing else does.  The clock is the test's own. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/fault.h"
#include "index/expiry.h"

enum {
    START = 1000000, /* what time it is at first */
    LIFE = 80000,    /* an eighth is longer than the shortest gap of passes */
    MANY = 3000,
    LARGE = 20000,
};

static const bft_slice none = {NULL, 0};
static uint64_t clock_ms;

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return clock_ms;
}

static struct engine_fixture *open_at_start(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    clock_ms = START;
    engine_open(f);
    return f;
}

static bft_tree *tree_of(struct engine_fixture *f, uint64_t ttl_ms)
{
    bft_tree_options options = {
        .size = sizeof(options), .leaf_bytes = 512, .ttl_ms = ttl_ms};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, "t", &options, &tree));
    return tree;
}

static bft_slice number(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "k%06u", n)};
}

/* Each third stays, each tenth is long. */
static void put_many(bft_tree *tree)
{
    static const uint8_t bytes[LARGE];
    char text[16];
    for (unsigned n = 0; n < MANY; n++) {
        bft_slice value = {bytes, n % 10 == 0 ? LARGE : 30};
        expect_ok(bft_put_until(tree, number(text, n), value,
                                n % 3 == 0 ? 0 : START + LIFE));
    }
}

/* Another life of the engine, whose clock is back, sees what was not removed. */
static uint64_t records_there(struct engine_fixture *f)
{
    uint64_t count, now = clock_ms;
    clock_ms = START;
    engine_reopen(f);
    expect_ok(bft_count(tree_of(f, 0), none, none, &count));
    clock_ms = now;
    return count;
}

static void all_that_has_expired_goes(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    uint64_t removed;
    (void)state;
    put_many(tree);
    expect_ok(bft_remove_expired(tree, &removed));
    assert_int_equal(0, removed);
    clock_ms = START + LIFE;
    expect_ok(bft_remove_expired(tree, &removed));
    assert_int_equal(MANY - MANY / 3, removed);
    assert_int_equal(removed, engine_stats(f).expired_removed);
    expect_ok(bft_remove_expired(tree, NULL));
    assert_int_equal(MANY - MANY / 3, engine_stats(f).expired_removed);
    assert_int_equal(MANY / 3, records_there(f));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Its space, too. */
static void the_space_comes_back(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    uint64_t before, removed;
    (void)state;
    put_many(tree);
    expect_ok(bft_checkpoint(f->db));
    before = engine_stats(f).live_bytes;
    clock_ms = START + LIFE;
    expect_ok(bft_remove_expired(tree, &removed));
    for (int i = 0; i < 3; i++)
        expect_ok(bft_checkpoint(f->db));
    assert_true(engine_stats(f).live_bytes < before * 2 / 3);
    engine_fixture_free(f);
}

static void what_a_snapshot_sees_stays(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    bft_snapshot *snapshot;
    bft_txn *txn;
    uint64_t removed;
    char buf[100];
    size_t len;
    (void)state;
    expect_ok(bft_put(tree, (bft_slice){"a", 1}, (bft_slice){"v", 1}));
    expect_ok(bft_put_until(tree, (bft_slice){"b", 1}, (bft_slice){"v", 1},
                            START + 10));
    clock_ms = START + 10;
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    clock_ms = START + LIFE;
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    expect_status(BFT_NOT_FOUND, bft_txn_get(txn, tree, (bft_slice){"b", 1},
                                             buf, sizeof(buf), &len));
    /* Only what has expired for both; and that is no conflict. */
    expect_ok(bft_remove_expired(tree, &removed));
    assert_int_equal(1, removed);
    expect_ok(bft_txn_put(txn, tree, (bft_slice){"c", 1}, none));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    expect_ok(bft_snapshot_get(snapshot, tree, (bft_slice){"a", 1}, buf,
                               sizeof(buf), &len));
    assert_int_equal(1, len);
    expect_status(BFT_NOT_FOUND,
                  bft_snapshot_get(snapshot, tree, (bft_slice){"b", 1}, buf,
                                   sizeof(buf), &len));
    bft_snapshot_release(snapshot);
    expect_ok(bft_remove_expired(tree, &removed));
    assert_int_equal(1, removed);
    engine_fixture_free(f);
}

/* Some steps, as many as a pass may need. */
static uint64_t steps(struct engine_fixture *f, unsigned times)
{
    struct bfti_engine *engine = f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    for (unsigned i = 0; i < times; i++) {
        expect_ok(bfti_purge(engine, rec, 16));
        if (i % 16 == 15) /* the log may have come to where steps wait */
            expect_ok(bft_checkpoint(f->db));
    }
    return engine_stats(f).expired_removed;
}

static void steps_remove_what_is_due(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    (void)state;
    put_many(tree);
    expect_ok(bft_checkpoint(f->db));
    assert_int_equal(0, steps(f, 400));
    clock_ms = START + LIFE - 1;
    assert_int_equal(0, steps(f, 400));
    clock_ms = START + LIFE;
    expect_ok(bft_checkpoint(f->db));
    /* One step does not do it all. */
    assert_true(steps(f, 1) <= (uint64_t)16 * 256);
    assert_int_equal(MANY - MANY / 3, steps(f, 800));
    assert_int_equal(MANY / 3, records_there(f));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A pass that has begun leaves alone what came behind it, until the next. */
static void a_pass_waits_for_a_part_of_the_lifetime(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    (void)state;
    expect_ok(bft_put_until(tree, (bft_slice){"a", 1}, none, START + 1));
    clock_ms += 1;
    assert_int_equal(1, steps(f, 4));
    expect_ok(bft_put_until(tree, (bft_slice){"b", 1}, none, START + 2));
    clock_ms += LIFE / 8 - 1;
    assert_int_equal(1, steps(f, 4));
    clock_ms += 1;
    assert_int_equal(2, steps(f, 4));
    engine_fixture_free(f);
}

/* --- what comes while a pass goes on ---------------------------------------- */

enum way { BY_BATCH, BY_TXN, BY_PUT, BY_LARGE_PUT, WAYS };

static struct engine_fixture *stepping;

#ifndef NDEBUG
/* The only thread, in a put that has said when its record is to expire. */
static void step_at(const char *point)
{
    struct engine_fixture *f = stepping;
    if (!f || strcmp(point, "write:saved") != 0)
        return;
    stepping = NULL;
    assert_int_equal(1, steps(f, 4));
}
#endif

/* Put "b", for 2 ms from START on; the passes take "a" meanwhile. */
static void put_across_a_pass(struct engine_fixture *f, bft_tree *tree,
                              enum way way)
{
    static const uint8_t bytes[LARGE];
    bft_slice key = {"b", 1}, value = {bytes, way == BY_LARGE_PUT ? LARGE : 5};
    bft_batch *batch;
    bft_txn *txn;
    switch (way) {
    case BY_BATCH:
        expect_ok(bft_batch_create(f->db, &batch));
        expect_ok(bft_batch_put_until(batch, tree, key, value, START + 2));
        assert_int_equal(1, steps(f, 4));
        expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
        bft_batch_free(batch);
        break;
    case BY_TXN:
        expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
        expect_ok(bft_txn_put_until(txn, tree, key, value, START + 2));
        assert_int_equal(1, steps(f, 4));
        expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
        break;
    default:
        stepping = f;
        expect_ok(bft_put_until(tree, key, value, START + 2));
        assert_null(stepping);
    }
}

/* A pass that is over before the record is there does not know of it, so it must
 * be told of behind it. */
static void what_a_pass_did_not_meet_the_next_one_does(void **state)
{
    (void)state;
#ifdef NDEBUG
    skip(); /* no PARK points in this build */
#else
    for (int way = 0; way < WAYS; way++) {
        struct engine_fixture *f = open_at_start();
        bft_tree *tree = tree_of(f, LIFE);
        expect_ok(bft_put_until(tree, (bft_slice){"a", 1}, none, START + 1));
        clock_ms += 1;
        atomic_store(&bfti_park, step_at);
        put_across_a_pass(f, tree, (enum way)way);
        atomic_store(&bfti_park, NULL);
        clock_ms += LIFE;
        assert_int_equal(2, steps(f, 4));
        engine_fixture_free(f);
    }
#endif
}

#ifndef NDEBUG
/* The tree that is being loaded has no name yet, and no feed has told of it. */
static void step_at_a_load(const char *point)
{
    struct engine_fixture *f = stepping;
    if (!f || strcmp(point, "bulk:in-image") != 0)
        return;
    stepping = NULL;
    clock_ms += LIFE;
    assert_int_equal(0, steps(f, 0));
    for (unsigned i = 0; i < 4; i++)
        expect_ok(bfti_purge(f->db->engine,
                             bfti_rec_current(f->db->engine->buffer.threads),
                             16));
    assert_int_equal(0, engine_stats(f).expired_removed);
}
#endif

static bft_status next_of_ten(void *ctx, bft_bulk_record *record)
{
    unsigned *n = ctx;
    static char text[16];
    if (*n == 10)
        return BFT_NOT_FOUND;
    record->key = number(text, (*n)++);
    return BFT_OK;
}

static void what_is_being_loaded_is_left_alone(void **state)
{
    (void)state;
#ifdef NDEBUG
    skip(); /* no PARK points in this build */
#else
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    unsigned n = 0;
    uint64_t records;
    stepping = f;
    atomic_store(&bfti_park, step_at_a_load);
    expect_ok(bft_bulk_load(tree, NULL, next_of_ten, &n, &records));
    atomic_store(&bfti_park, NULL);
    assert_null(stepping);
    assert_int_equal(10, records);
    assert_int_equal(10, steps(f, 4));
    engine_fixture_free(f);
#endif
}

/* --- beside damage ---------------------------------------------------------- */

/* A byte of each leaf that TREE has in the page file, or of MOST of them, is
 * wrong. */
static void damage_leaves(struct engine_fixture *f, bft_tree *tree,
                          unsigned most)
{
    unsigned leaves = 0;
    uint64_t bytes;
    uint32_t id;
    expect_ok(bft_tree_id(tree, &id));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes && leaves < most;
         at += BFTI_BLOCK) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got < sizeof(head) || head.type != BFTI_EXTENT_LEAF ||
            le32_get(head.tree_id) != id)
            continue;
        expect_ok(
            bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
        leaves++;
    }
    assert_true(leaves > 0);
}

/* A tree of small leaves, which are on the disk only. */
static bft_tree *small_leaves(struct engine_fixture *f)
{
    struct bfti_engine *engine = f->db->engine;
    bft_tree *tree = engine_tree(f, "small", 512);
    char text[16];
    for (unsigned n = 0; n < 200; n++)
        expect_ok(
            bft_put(tree, number(text, n), (bft_slice){"0123456789", 10}));
    expect_ok(bft_checkpoint(f->db));
    for (unsigned n = 0; n < 200; n++)
        if (n % 8)
            expect_ok(bft_delete(tree, number(text, n)));
    /* So that nobody makes fewer of them. */
    assert_true(bfti_mutex_try(&engine->sweep_lock));
    expect_ok(bft_checkpoint(f->db));
    bfti_mutex_unlock(engine->env, &engine->sweep_lock);
    return tree;
}

/* What cannot be read stops nothing else, and is passed by. */
static void damage_elsewhere_stops_no_pass(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_engine *engine;
    bft_tree *tree;
    char text[16];
    (void)state;
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    f->tolerated = BFT_CORRUPT;
    clock_ms = START;
    engine_open(f);
    damage_leaves(f, small_leaves(f), UINT_MAX);
    tree = tree_of(f, LIFE);
    for (unsigned n = 0; n < 10; n++)
        expect_ok(bft_put(tree, number(text, n), none));
    engine_reopen(f);
    engine = f->db->engine;
    bfti_note_small(engine);
    clock_ms = START + LIFE;
    for (int i = 0; i < 20; i++)
        expect_ok(bft_checkpoint(f->db));
    assert_int_equal(10, engine_stats(f).expired_removed);
    for (int i = 0; i < 100 && atomic_load(&engine->small_leaves); i++)
        expect_ok(bft_checkpoint(f->db));
    assert_int_equal(0, atomic_load(&engine->small_leaves));
    engine_fixture_free(f);
}

/* The records of one leaf stay, and the pass goes on behind it. */
static void a_damaged_leaf_does_not_end_a_pass(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint64_t removed;
    bft_tree *tree;
    char text[16];
    (void)state;
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    f->tolerated = BFT_CORRUPT;
    clock_ms = START;
    engine_open(f);
    tree = tree_of(f, LIFE);
    for (unsigned n = 0; n < 500; n++)
        expect_ok(bft_put(tree, number(text, n), none));
    engine_reopen(f);
    damage_leaves(f, tree_of(f, LIFE), 1);
    clock_ms = START + LIFE;
    for (int i = 0; i < 100; i++)
        expect_ok(bft_checkpoint(f->db));
    removed = engine_stats(f).expired_removed;
    assert_in_range(removed, 450, 499);
    expect_status(BFT_CORRUPT, bft_remove_expired(tree_of(f, 0), NULL));
    engine_fixture_free(f);
}

static void what_cannot_be_done_is_told(void **state)
{
    struct engine_fixture *f = open_at_start();
    bft_tree *tree = tree_of(f, LIFE);
    uint64_t removed = 7;
    (void)state;
    expect_status(BFT_INVALID,
                  bft_remove_expired(engine_tree(f, "plain", 0), &removed));
    assert_int_equal(0, removed);
    expect_ok(bft_put(tree, (bft_slice){"a", 1}, none));
    engine_close(f);
    f->options.read_only = true;
    engine_open(f);
    clock_ms += LIFE;
    expect_status(BFT_READ_ONLY, bft_remove_expired(tree_of(f, 0), &removed));
    assert_int_equal(0, steps(f, 0));
    engine_fixture_free(f);
}

/* A byte is wrong of what the leaf of number N has on the disk. */
static void damage_leaf(struct engine_fixture *f, bft_tree *handle, unsigned n)
{
    struct bfti_tree *tree = bfti_handle_tree(handle);
    struct bfti_rec *rec = bfti_rec_current(f->db->engine->buffer.threads);
    char text[16];
    uint64_t id, bytes;
    expect_ok(bfti_node_load(tree, rec, number(text, n), false));
    id = bfti_inner_find(bfti_tree_root(tree), number(text, n));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_BLOCK) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got == sizeof(head) && le64_get(head.page_id) == id &&
            le32_get(head.tree_id) == tree->id)
            expect_ok(
                bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
    }
}

static bool is_there(bft_tree *tree, unsigned n)
{
    struct bfti_tree *inside = bfti_handle_tree(tree);
    struct bfti_rec *rec = bfti_rec_current(inside->engine->buffer.threads);
    struct bfti_reader reader;
    struct bfti_view view;
    char text[16];
    bool found;
    expect_ok(
        bfti_leaf_find(&reader, inside, rec, number(text, n), &found, &view));
    bfti_reader_close(&reader);
    return found;
}

static void what_lies_behind_a_damaged_leaf_goes(void **state)
{
    enum { SOME = 1000, ALL = 2 };
    (void)state;
    for (int how = 0; how < ALL; how++) {
        struct engine_fixture *f = open_at_start();
        bft_tree *tree = tree_of(f, LIFE);
        uint64_t removed;
        char text[16];
        for (unsigned n = 0; n < SOME; n++)
            expect_ok(bft_put(tree, number(text, n), (bft_slice){"value", 5}));
        f->tolerated = BFT_CORRUPT;
        engine_reopen(f); /* none is in memory */
        tree = tree_of(f, LIFE);
        damage_leaf(f, tree, SOME / 2);
        clock_ms += 2 * (uint64_t)LIFE;
        if (how) {
            expect_status(BFT_CORRUPT, bft_remove_expired(tree, &removed));
            assert_true(removed > SOME * 9 / 10);
        } else {
            struct bfti_engine *engine = f->db->engine;
            struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
            for (unsigned n = 0; n < SOME; n++)
                bfti_background_run(engine, rec);
        }
        assert_false(is_there(tree, 0));
        assert_false(is_there(tree, SOME - 1));
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_has_expired_goes),
        cmocka_unit_test(the_space_comes_back),
        cmocka_unit_test(what_lies_behind_a_damaged_leaf_goes),
        cmocka_unit_test(what_a_snapshot_sees_stays),
        cmocka_unit_test(steps_remove_what_is_due),
        cmocka_unit_test(a_pass_waits_for_a_part_of_the_lifetime),
        cmocka_unit_test(what_a_pass_did_not_meet_the_next_one_does),
        cmocka_unit_test(what_is_being_loaded_is_left_alone),
        cmocka_unit_test(damage_elsewhere_stops_no_pass),
        cmocka_unit_test(a_damaged_leaf_does_not_end_a_pass),
        cmocka_unit_test(what_cannot_be_done_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
