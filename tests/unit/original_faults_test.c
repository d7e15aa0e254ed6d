/*
 * What the implementation published with the paper (microsoft/bf-tree, as of
 * 0.5.5) is seen to do wrong, and this engine must not: snapshots that copy
 * everything and can be opened once, trees that lose on closing what was not
 * flushed, cached records that come to life in a recovered tree, scans that hang
 * on a full buffer, evictions that are tried for ever.  Other tests have the
 * rest: space in engine_test and absorb_test, threads in tests/stress.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"

enum { VALUE = 100 };

static bft_slice key_of(char text[24], uint64_t n)
{
    return (bft_slice){
        text, (size_t)snprintf(text, 24, "key%012llu", (unsigned long long)n)};
}

static bft_slice value_of(char value[VALUE], uint64_t n, uint64_t round)
{
    memset(value, 'v', VALUE);
    (void)snprintf(value, VALUE, "value %llu of round %llu",
                   (unsigned long long)n, (unsigned long long)round);
    return (bft_slice){value, VALUE};
}

static bft_status put_status(bft_tree *tree, uint64_t n, uint64_t round)
{
    char text[24], value[VALUE];
    return bft_put(tree, key_of(text, n), value_of(value, n, round));
}

/* Every STEP-th number below END, from FROM on. */
struct numbers {
    uint64_t from, end, step;
};

static void put_all(bft_tree *tree, struct numbers n, uint64_t round)
{
    for (uint64_t i = n.from; i < n.end; i += n.step)
        expect_ok(put_status(tree, i, round));
}

static void delete_all(bft_tree *tree, struct numbers n)
{
    char text[24];
    for (uint64_t i = n.from; i < n.end; i += n.step)
        expect_ok(bft_delete(tree, key_of(text, i)));
}

static bft_status get_status(bft_tree *tree, uint64_t n, uint64_t round)
{
    char text[24], value[VALUE], got[VALUE];
    size_t len;
    bft_status status = bft_get(tree, key_of(text, n), got, sizeof(got), &len);
    if (status == BFT_OK) {
        assert_int_equal(VALUE, len);
        assert_memory_equal(value_of(value, n, round).data, got, VALUE);
    }
    return status;
}

static void check_all(bft_tree *tree, struct numbers n, uint64_t round)
{
    for (uint64_t i = n.from; i < n.end; i += n.step)
        expect_ok(get_status(tree, i, round));
}

static void check_none(bft_tree *tree, struct numbers n)
{
    for (uint64_t i = n.from; i < n.end; i += n.step)
        expect_status(BFT_NOT_FOUND, get_status(tree, i, 0));
}

static uint64_t count_all(bft_tree *tree, bool forward)
{
    bft_cursor *cursor;
    uint64_t count = 0;
    bft_status status;
    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = forward ? bft_cursor_next(cursor)
                             : bft_cursor_prev(cursor)) == BFT_OK)
        count++;
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return count;
}

/* --- checkpoints ------------------------------------------------------------ */

/* Not a copy of everything, however often: one leaf, and what leads to it. */
static void a_checkpoint_writes_what_has_changed(void **state)
{
    const struct numbers all = {0, 30000, 1};
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 4096);
    put_all(tree, all, 0);
    for (int i = 0; i < 3; i++)
        expect_ok(bft_checkpoint(f->db));
    assert_true(engine_stats(f).live_bytes > 3 << 20);
    for (uint64_t round = 1; round < 5; round++) {
        uint64_t before = engine_stats(f).extent_bytes_written;
        expect_ok(put_status(tree, 5000 * round, round));
        expect_ok(bft_checkpoint(f->db));
        assert_in_range(engine_stats(f).extent_bytes_written - before, 1,
                        128 << 10);
    }
    engine_fixture_free(f);
}

/* Opening does not use up what it recovers from. */
static void one_image_can_be_recovered_from_again_and_again(void **state)
{
    const struct numbers all = {0, 3000, 1}, some = {0, 3000, 7};
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct bfti_vfs *image;
    (void)state;
    put_all(engine_tree(f, "t", 512), all, 1);
    expect_ok(bft_checkpoint(f->db));
    put_all(engine_tree(f, "t", 0), some, 1);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KILL, 1, &image));
    engine_close(f);
    for (uint64_t round = 0; round < 4; round++) {
        if (round < 2) { /* and then what the recovery before has left */
            if (f->db)
                engine_close(f);
            bfti_vfs_sim_destroy(f->vfs);
            expect_ok(bfti_sim_image(image, BFTI_SIM_KILL, round, &f->vfs));
        }
        engine_crash(f, BFTI_SIM_KILL, round);
        check_all(engine_tree(f, "t", 0), all, 1);
        expect_ok(bft_verify(f->db));
        put_all(engine_tree(f, "t", 0), (struct numbers){5000, 5500, 1}, round);
    }
    bfti_vfs_sim_destroy(image);
    engine_fixture_free(f);
}

/* --- closing ----------------------------------------------------------------- */

/* Also what no log promises: it is durable, and not only handed over. */
static void closing_keeps_what_the_log_does_not(void **state)
{
    const struct numbers all = {0, 2000, 1}, gone = {0, 2000, 5};
    (void)state;
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        f->options.durability = BFT_NONE;
        engine_open(f);
        put_all(engine_tree(f, "t", 512), all, 1);
        delete_all(engine_tree(f, "t", 0), gone);
        engine_close(f);
        engine_crash(f, (enum bfti_sim_policy)policy, 3);
        check_none(engine_tree(f, "t", 0), gone);
        assert_int_equal(1600, count_all(engine_tree(f, "t", 0), true));
        engine_fixture_free(f);
    }
}

static void a_close_that_fails_says_so_and_loses_nothing(void **state)
{
    const struct numbers most = {0, 1499, 1}, last = {1499, 1500, 1};
    const struct numbers all = {0, 1500, 1};
    const struct bfti_sim_fault full = {.ops = BFTI_SIM_WRITE,
                                        .path = "/data",
                                        .nth = 1,
                                        .sticky = true,
                                        .harm = BFTI_SIM_REFUSE,
                                        .status = BFT_NO_SPACE};
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    char text[300];
    (void)state;
    put_all(engine_tree(f, "t", 512), most, 1);
    /* With memory to spare, so that the close is first to write; and with
     * something to write, whatever a checkpoint before it has done. */
    engine_reopen(f);
    bfti_sim_fail(f->vfs, &full);
    put_all(engine_tree(f, "t", 0), last, 1);
    expect_status(BFT_NO_SPACE, bft_close(f->db));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "/db/"));
    f->db = NULL;
    bfti_sim_heal(f->vfs);
    /* Background steps may have been told of the full disk, too. */
    atomic_store(&f->reported, 0);
    engine_open(f);
    check_all(engine_tree(f, "t", 0), all, 1);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- cached records ----------------------------------------------------------- */

/* Records that are in memory only because they were read, and known absences,
 * are no content: neither a checkpoint, nor a split, nor a recovery makes them
 * any. */
static void known_absences_never_come_to_life(void **state)
{
    const struct numbers all = {0, 4000, 1}, odd = {1, 4000, 2};
    const struct numbers even = {0, 4000, 2}, above = {4000, 8000, 1};
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    (void)state;
    f->options.promote_percent = 100;
    f->options.memory_bytes = 1 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 1024);
    put_all(tree, all, 1);
    expect_ok(bft_checkpoint(f->db));
    delete_all(tree, odd);
    for (uint64_t round = 2; round < 6; round++) {
        uint64_t promoted = engine_stats(f).promotions;
        if (round % 2)
            engine_crash(f, BFTI_SIM_KILL, round);
        else
            engine_reopen(f);
        tree = engine_tree(f, "t", 0);
        check_none(tree, odd);
        check_none(tree, odd);
        check_all(tree, even, round == 2 ? 1 : round - 1);
        assert_true(engine_stats(f).promotions > promoted);
        expect_ok(bft_checkpoint(f->db));
        /* Between what is cached: leaves merge and split. */
        put_all(tree, even, round);
        put_all(tree, above, round);
        expect_ok(bft_checkpoint(f->db));
        check_none(tree, odd);
        assert_int_equal(6000, count_all(tree, true));
        assert_int_equal(6000, count_all(tree, false));
        delete_all(tree, above);
        expect_ok(bft_verify(f->db));
    }
    assert_true(engine_stats(f).splits > 100);
    engine_fixture_free(f);
}

/* What was in memory when the image was taken, clean and changed, is read and
 * scanned like the rest in the tree that comes back. */
static void a_tree_recovered_with_its_pages_full_is_scanned(void **state)
{
    const struct numbers all = {0, 3000, 1}, some = {0, 3000, 3};
    static const uint32_t leaf[] = {512, 4096};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        bft_tree *tree;
        f->options.promote_percent = 100;
        f->options.memory_bytes = 1 << 20;
        engine_open(f);
        put_all(engine_tree(f, "t", leaf[i]), all, 1);
        engine_reopen(f);
        tree = engine_tree(f, "t", 0);
        check_all(tree, all, 1);
        put_all(tree, some, 1);
        assert_int_equal(3000, count_all(tree, true));
        expect_ok(bft_checkpoint(f->db));
        for (uint64_t round = 0; round < 3; round++) {
            engine_crash(f, BFTI_SIM_KILL, round);
            tree = engine_tree(f, "t", 0);
            assert_int_equal(3000, count_all(tree, round % 2));
            check_all(tree, all, 1);
            put_all(tree, some, 1);
            assert_int_equal(3000, count_all(tree, round % 2 == 0));
        }
        engine_fixture_free(f);
    }
}

/* --- a full pool --------------------------------------------------------------- */

/* A single thread, every read wants to be cached, and what is in memory is
 * changed: nobody else makes room. */
static void a_scan_that_caches_all_ends_in_a_full_pool(void **state)
{
    const struct numbers all = {0, 20000, 1}, some = {0, 20000, 4};
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree *tree;
    (void)state;
    f->options.promote_percent = 100;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 1024);
    put_all(tree, all, 0);
    for (uint64_t round = 1; round < 4; round++) {
        put_all(tree, some, round);
        assert_int_equal(20000, count_all(tree, true));
        check_all(tree, some, round);
        assert_int_equal(20000, count_all(tree, false));
    }
    assert_true(engine_stats(f).live_bytes >
                6 * engine_stats(f).memory_budget_bytes);
    engine_fixture_free(f);
}

/* Open the database with a changed leaf whose page in the file is damaged, at *DAMAGE:
 * it can never be written, so its records cannot leave memory. */
static uint64_t damage_a_leaf(struct engine_fixture *f, uint64_t end,
                              uint64_t *damage)
{
    uint64_t bytes;
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = 64 << 10; at < bytes; at += 512) {
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at + 50, 0x10));
        for (uint64_t n = 0; n < end; n += 5) {
            bft_status status = get_status(engine_tree(f, "t", 0), n, 1);
            if (status == BFT_CORRUPT) {
                *damage = at + 50;
                return n;
            }
            expect_ok(status);
        }
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at + 50, 0x10));
    }
    fail_msg("no leaf lies in the file");
    return 0;
}

/* Put N and those behind it, in a batch if they are several. */
static bft_status put_several(struct engine_fixture *f, bft_tree *tree,
                              uint64_t n, unsigned count)
{
    bft_batch *batch;
    bft_status status;
    if (count == 1)
        return put_status(tree, n, 3);
    expect_ok(bft_batch_create(f->db, &batch));
    for (uint64_t i = n; i < n + count; i++) {
        char text[24], value[VALUE];
        expect_ok(
            bft_batch_put(batch, tree, key_of(text, i), value_of(value, i, 3)));
    }
    status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
    bft_batch_free(batch);
    return status;
}

/* Eviction passes it over, and others go on as long as there is log; then, as
 * no checkpoint can write it, writers are told and do not wait for ever. */
static void put_beside_a_damaged_leaf(unsigned count)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_status status = BFT_OK;
    bft_tree *tree;
    uint64_t damaged, damage = 0, n;
    f->surroundings.small_deltas = false;
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    f->options.log_bytes = 4 << 20;
    engine_open(f);
    put_all(engine_tree(f, "t", 512), (struct numbers){0, 2000, 1}, 1);
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    damaged = damage_a_leaf(f, 2000, &damage);
    /* Blind puts need no page, nor does a delta, which takes the place of merging
     * with a damaged one; merging that does. */
    expect_ok(put_status(tree, damaged, 2));
    expect_ok(bft_checkpoint(f->db));
    expect_ok(put_status(tree, damaged, 3));
    for (n = 10000; n < 100000; n += count) {
        status = put_several(f, tree, n, count);
        if (status != BFT_OK)
            break;
        expect_ok(get_status(tree, n, 3));
    }
    print_message("%llu more puts, then %d\n", (unsigned long long)n - 10000,
                  (int)status);
    assert_int_equal(BFT_CORRUPT, status);
    /* Many times the budget. */
    assert_true(n - 10000 > 10000);
    check_all(tree, (struct numbers){10000, n, 1}, 3);
    expect_status(BFT_CORRUPT, bft_checkpoint(f->db));
    (void)(bft_close(f->db) == BFT_OK);
    f->db = NULL;
    atomic_store(&f->reported, 0);
    /* Of what the disk has nothing is lost: it lies beneath the delta still. */
    expect_ok(bfti_sim_flip(f->vfs, "/db/data", damage, 0x10));
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    expect_ok(bft_verify(f->db));
    check_all(tree, (struct numbers){10000, n, 1}, 3);
    for (uint64_t i = 0; i < 2000; i++)
        expect_ok(get_status(tree, i, i == damaged ? 3 : 1));
    engine_fixture_free(f);
}

static void a_leaf_that_cannot_be_evicted_stops_nobody(void **state)
{
    (void)state;
    put_beside_a_damaged_leaf(1);
}

/* Which make room by themselves. */
static void a_leaf_that_cannot_be_evicted_stops_no_batch(void **state)
{
    (void)state;
    for (unsigned count = 7; count < 100; count *= 3)
        put_beside_a_damaged_leaf(count);
}

/* --- what a database is opened with --------------------------------------------- */

/* Nothing of it need be as it was when the files were written. */
static void other_options_open_the_same_database(void **state)
{
    static const struct {
        uint64_t memory_bytes, log_bytes, segment_bytes;
        uint32_t leaf_bytes;
        bool compress, no_threads;
    } with[] = {{32 << 20, 0, 0, 0, true, false},
                {256 << 10, 128 << 10, 64 << 10, 512, false, true},
                {300007, 0, 1 << 20, 32768, false, false},
                {1 << 20, 1, 64 << 10, 1536, true, true}};
    const struct numbers all = {0, 6000, 1};
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        f->options.memory_bytes = with[i % 4].memory_bytes;
        f->options.log_bytes = with[i % 4].log_bytes;
        f->options.log_segment_bytes = with[i % 4].segment_bytes;
        f->options.leaf_bytes = with[i % 4].leaf_bytes;
        f->options.compress = with[i % 4].compress;
        f->options.no_threads = with[i % 4].no_threads;
        /* All of it is in the log, in memory and in the file by turns. */
        engine_crash(f, BFTI_SIM_KILL, i);
        if (i)
            check_all(engine_tree(f, "t", 0), all, i - 1);
        expect_ok(bft_verify(f->db));
        put_all(engine_tree(f, "t", 0), all, i);
    }
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_writes_what_has_changed),
        cmocka_unit_test(one_image_can_be_recovered_from_again_and_again),
        cmocka_unit_test(closing_keeps_what_the_log_does_not),
        cmocka_unit_test(a_close_that_fails_says_so_and_loses_nothing),
        cmocka_unit_test(known_absences_never_come_to_life),
        cmocka_unit_test(a_tree_recovered_with_its_pages_full_is_scanned),
        cmocka_unit_test(a_scan_that_caches_all_ends_in_a_full_pool),
        cmocka_unit_test(a_leaf_that_cannot_be_evicted_stops_nobody),
        cmocka_unit_test(a_leaf_that_cannot_be_evicted_stops_no_batch),
        cmocka_unit_test(other_options_open_the_same_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
