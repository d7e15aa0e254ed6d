/*
 * The engine after a sync that failed, and while trees are made and dropped without
 * memory or without reads, each call in turn, once or from then on: on a disk that
 * maps files and on one that does not.  scenario_fault_test.c has whole lives.
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
#include "model_map.h"
#include "tally.h"

enum { KEYS = 120, LARGE = 3000 };

static struct life {
    struct engine_fixture *f;
    bft_tree *tree;
    uint64_t seed[KEYS]; /* of the value; 0: none */
    /* For who wants to repeat it: */
    uint64_t nth;
    bool map, sticky;
} life;

static bft_slice key_of(char text[32], unsigned k)
{
    int len = snprintf(text, 32, "a common prefix %05u", k);
    return (bft_slice){text, (size_t)len};
}

static struct model_value value_of(uint64_t seed)
{
    return (struct model_value){seed, seed % 37 == 0 ? LARGE : seed % 90};
}

/* STATUS is what a call returned that may fail: did it not?  Else a text says why. */
static bool went_well(bft_status status)
{
    char text[400] = "";
    if (status == BFT_OK)
        return true;
    (void)bft_last_error(text, sizeof(text));
    assert_true(status < 0 && text[0] != 0);
    return false;
}

static bft_status write_one(unsigned k, uint64_t seed)
{
    char text[32];
    static uint8_t bytes[LARGE];
    struct model_value value = value_of(seed);
    model_value_bytes(value, 0, bytes, value.len);
    return bft_put(life.tree, key_of(text, k), (bft_slice){bytes, value.len});
}

static void put(unsigned k, uint64_t seed)
{
    expect_ok(write_one(k, seed));
    life.seed[k] = seed;
}

static void put_all(void)
{
    for (unsigned k = 0; k < KEYS; k++)
        put(k, k + 1);
}

static void check_key(unsigned k)
{
    static uint8_t bytes[LARGE];
    char text[32];
    size_t len;
    bft_status status = bft_get(life.tree, key_of(text, k), bytes, LARGE, &len);
    if (!life.seed[k]) {
        expect_status(BFT_NOT_FOUND, status);
        return;
    }
    expect_ok(status);
    assert_int_equal(value_of(life.seed[k]).len, len);
    assert_true(model_value_is(value_of(life.seed[k]), 0, bytes, len));
}

static void check_all(void)
{
    for (unsigned k = 0; k < KEYS; k++)
        check_key(k);
}

static bft_status open_tree(void)
{
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 512};
    bft_status status = engine_open_status(life.f);
    if (status != BFT_OK)
        return status;
    return bft_tree_open(life.f->db, "t", &options, &life.tree);
}

static void life_begin(bool map)
{
    memset(&life, 0, sizeof(life));
    life.map = map;
    life.f = engine_fixture_make(ENGINE_SIM);
    life.f->surroundings.plain_heap = true; /* each allocation may fail */
    life.f->surroundings.nodes_bytes = 1;   /* and each reading of a node */
    life.f->options.no_threads = true;
    bfti_sim_set_map(life.f->vfs, map);
}

/* All is well again: what was acknowledged is there. */
static void life_end(void)
{
    bfti_sim_heal(life.f->vfs);
    atomic_store(&life.f->allocs_left, -1);
    expect_ok(open_tree());
    check_all();
    expect_ok(bft_verify(life.f->db));
    put(3, 1);
    check_key(3);
    atomic_store(&life.f->reported, 0);
    engine_fixture_free(life.f);
    life.f = NULL;
}

/* --- a failed sync ---------------------------------------------------------------- */

static void after_a_failed_sync_of_the_log(bool map)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    bft_cursor *cursor;
    unsigned count = 0;
    life_begin(map);
    expect_ok(open_tree());
    put_all();
    expect_ok(bft_sync(life.f->db));
    put(5, 77);
    bfti_sim_fail(life.f->vfs, &fault);
    assert_true(bft_sync(life.f->db) != BFT_OK);
    assert_int_equal(1, bfti_sim_struck(life.f->vfs));
    /* It is not tried again: what the system forgot would count as synced. */
    expect_status(BFT_POISONED, bft_sync(life.f->db));
    expect_status(BFT_POISONED, write_one(1, 78));
    expect_status(BFT_POISONED, bft_checkpoint(life.f->db));
    check_all();
    expect_ok(bft_cursor_open(life.tree, &cursor));
    while (bft_cursor_next(cursor) == BFT_OK)
        count++;
    bft_cursor_close(cursor);
    assert_int_equal(KEYS, count);
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    life_end();
}

static void a_failed_sync_poisons_writes_but_not_reads(void **state)
{
    (void)state;
    after_a_failed_sync_of_the_log(false);
    after_a_failed_sync_of_the_log(true);
}

/* Calls that sync the page file. */

static bft_status checkpoint_it(void)
{
    return bft_checkpoint(life.f->db);
}

static bft_status put_past_the_log(void)
{
    static uint8_t bytes[(1 << 20) + 1];
    char text[32];
    return bft_put(life.tree, key_of(text, KEYS),
                   (bft_slice){bytes, sizeof(bytes)});
}

static bft_status one_record(void *ctx, bft_bulk_record *record)
{
    unsigned *left = ctx;
    if (!*left)
        return BFT_NOT_FOUND;
    --*left;
    record->key = record->value = (bft_slice){"only", 4};
    return BFT_OK;
}

static bft_status load_a_tree(void)
{
    unsigned left = 1;
    bft_tree *tree;
    bft_status status = bft_tree_open(life.f->db, "loaded", NULL, &tree);
    return status == BFT_OK ? bft_bulk_load(tree, NULL, one_record, &left, NULL)
                            : status;
}

/* What a later checkpoint wrote could only be lost, again and again. */
static void after_a_failed_sync(bft_status (*call)(void), bft_status why,
                                bool map)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                   .path = "/data",
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = why};
    uint64_t bytes;
    life_begin(map);
    expect_ok(open_tree());
    put_all();
    bfti_sim_fail(life.f->vfs, &fault);
    assert_int_not_equal(BFT_OK, call());
    assert_int_equal(1, bfti_sim_struck(life.f->vfs));
    bytes = bfti_sim_used(life.f->vfs);
    expect_status(BFT_POISONED, write_one(1, 78));
    expect_status(BFT_POISONED, bft_checkpoint(life.f->db));
    assert_int_equal(bytes, bfti_sim_used(life.f->vfs));
    check_all();
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    life_end();
}

static void no_checkpoint_follows_a_failed_sync_of_pages(void **state)
{
    bft_status (*const calls[])(void) = {checkpoint_it, put_past_the_log,
                                         load_a_tree};
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        after_a_failed_sync(calls[i], BFT_IO, i % 2);
        after_a_failed_sync(calls[i], BFT_NO_SPACE, (i + 1) % 2);
    }
}

/* --- making and dropping trees ---------------------------------------------------- */

enum { DOOMED = 300, DOOMED_LARGE = 20 };

/* A database whose tree DOOMED lies on disk, with large values. */
static void doomed_begin(bool map, bool sticky)
{
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 512};
    static uint8_t bytes[LARGE];
    char text[32];
    life_begin(map);
    life.sticky = sticky;
    expect_ok(open_tree());
    expect_ok(bft_tree_open(life.f->db, "doomed", &options, &life.tree));
    for (unsigned k = 0; k < DOOMED; k++)
        expect_ok(bft_put(life.tree, key_of(text, k),
                          (bft_slice){bytes, k % DOOMED_LARGE ? 40 : LARGE}));
    expect_ok(bft_close(life.f->db));
    expect_ok(open_tree());
}

/* Make a tree and drop one while something fails; then all is well again, and
 * nothing is in use that nothing leads to, neither space nor a leaf. */
static bool make_and_drop(void)
{
    bft_tree *tree;
    bool well = went_well(bft_tree_open(life.f->db, "new", NULL, &tree));
    well = went_well(bft_tree_drop(life.f->db, "doomed")) && well;
    return well;
}

static void nothing_is_lost(void)
{
    bft_status status;
    bfti_sim_heal(life.f->vfs);
    atomic_store(&life.f->allocs_left, -1);
    expect_ok(bft_verify(life.f->db));
    status = bft_tree_drop(life.f->db, "doomed");
    if (status != BFT_POISONED) {
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
        status = bft_tree_drop(life.f->db, "new");
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
        expect_ok(bft_tree_drop(life.f->db, "t"));
        expect_ok(bft_verify(life.f->db));
        assert_int_equal(0, engine_stats(life.f).leaves);
    }
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    memset(life.seed, 0, sizeof(life.seed));
    life_end();
}

static uint64_t drop_without_memory(bool map, bool sticky)
{
    bool well = false;
    int64_t n = 0;
    for (; !well; n++) {
        doomed_begin(map, sticky);
        life.nth = (uint64_t)n;
        life.f->allocs_sticky = sticky;
        atomic_store(&life.f->allocs_left, n);
        well = make_and_drop() &&
               atomic_load(&life.f->allocs_left) >= (sticky ? 1 : 0);
        nothing_is_lost();
    }
    return (uint64_t)(n - 1);
}

static uint64_t drop_without_reads(bool map, bool sticky)
{
    uint64_t struck = 1, n = 1;
    for (; struck; n++) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                       .nth = n,
                                       .sticky = sticky,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = BFT_IO};
        doomed_begin(map, sticky);
        life.nth = n;
        bfti_sim_fail(life.f->vfs, &fault);
        (void)make_and_drop();
        struck = bfti_sim_struck(life.f->vfs);
        nothing_is_lost();
    }
    return n - 2;
}

static void sweep(uint64_t (*drop)(bool map, bool sticky))
{
    for (unsigned i = 0; i < 4; i++) {
        uint64_t failed = drop(i % 2, i / 2);
        tally(TALLY_FAULTS, failed);
        assert_true(failed > 8);
    }
}

static void a_drop_without_memory_loses_nothing(void **state)
{
    (void)state;
    sweep(drop_without_memory);
}

static void a_drop_that_cannot_read_loses_nothing(void **state)
{
    (void)state;
    sweep(drop_without_reads);
}

static int say_where(void **state)
{
    (void)state;
    if (life.f)
        print_error("with failure %llu%s, %s map\n",
                    (unsigned long long)life.nth,
                    life.sticky ? " and all after it" : "",
                    life.map ? "with" : "without");
    return 0;
}

#define fault_test(name) cmocka_unit_test_teardown(name, say_where)

int main(void)
{
    const struct CMUnitTest tests[] = {
        fault_test(a_failed_sync_poisons_writes_but_not_reads),
        fault_test(no_checkpoint_follows_a_failed_sync_of_pages),
        fault_test(a_drop_without_memory_loses_nothing),
        fault_test(a_drop_that_cannot_read_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
