/*
 * The engine, one promise at a time: what survives a reopening, what becomes of
 * space, what callers may do without a crash.
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

enum { VALUE = 100 };

struct text {
    char chars[64];
};

static bft_slice key_of(struct text *text, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key%012llu",
                       (unsigned long long)n);
    return (bft_slice){text->chars, (size_t)len};
}

static bft_slice value_of(char value[VALUE], uint64_t n, uint64_t round)
{
    memset(value, 'v', VALUE);
    (void)snprintf(value, VALUE, "value %llu of round %llu",
                   (unsigned long long)n, (unsigned long long)round);
    return (bft_slice){value, VALUE};
}

static void put(bft_tree *tree, uint64_t n, uint64_t round)
{
    struct text text;
    char value[VALUE];
    expect_ok(bft_put(tree, key_of(&text, n), value_of(value, n, round)));
}

static void put_all(bft_tree *tree, uint64_t from, uint64_t to, uint64_t round)
{
    for (uint64_t n = from; n < to; n++)
        put(tree, n, round);
}

static void delete_all(bft_tree *tree, uint64_t from, uint64_t to)
{
    struct text text;
    for (uint64_t n = from; n < to; n++)
        expect_ok(bft_delete(tree, key_of(&text, n)));
}

static void check(bft_tree *tree, uint64_t n, uint64_t round)
{
    struct text text;
    char value[VALUE], got[VALUE];
    size_t len;
    expect_ok(bft_get(tree, key_of(&text, n), got, sizeof(got), &len));
    assert_int_equal(VALUE, len);
    assert_memory_equal(value_of(value, n, round).data, got, VALUE);
}

static void check_all(bft_tree *tree, uint64_t from, uint64_t to,
                      uint64_t round)
{
    for (uint64_t n = from; n < to; n++)
        check(tree, n, round);
}

static void check_none(bft_tree *tree, uint64_t from, uint64_t to)
{
    struct text text;
    char got[VALUE];
    size_t len;
    for (uint64_t n = from; n < to; n++)
        expect_status(BFT_NOT_FOUND,
                      bft_get(tree, key_of(&text, n), got, sizeof(got), &len));
}

/* The records that a cursor shows, forward. */
static uint64_t count_all(bft_tree *tree)
{
    bft_cursor *cursor;
    uint64_t count = 0;
    bft_status status;
    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK)
        count++;
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return count;
}

static struct engine_fixture *open_quiet(enum engine_backend backend)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    f->options.no_threads = true;
    engine_open(f);
    return f;
}

/* --- what is there after a reopening ---------------------------------------- */

/* However often, on every backend; no flush is called. */
static void reopening_a_database_finds_every_record(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        put_all(engine_tree(f, "t", 512), 0, 3000, 1);
        for (int round = 0; round < 3; round++) {
            engine_reopen(f);
            check_all(engine_tree(f, "t", 0), 0, 3000, 1);
            assert_int_equal(3000, count_all(engine_tree(f, "t", 0)));
            expect_ok(bft_verify(f->db));
        }
        engine_fixture_free(f);
    }
}

/* The log is replayed, whatever the checkpoint before it was. */
static void a_killed_process_loses_no_buffered_write(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    for (uint64_t round = 0; round < 6; round++) {
        bft_tree *tree = engine_tree(f, "t", 512);
        put_all(tree, round * 500, round * 500 + 500, 1);
        if (round == 3)
            expect_ok(bft_checkpoint(f->db));
        put(tree, 7, round);
        engine_crash(f, BFTI_SIM_KILL, round);
        tree = engine_tree(f, "t", 0);
        check_all(tree, 8, round * 500 + 500, 1);
        check(tree, 7, round);
        expect_ok(bft_verify(f->db));
    }
    engine_fixture_free(f);
}

static void a_power_cut_loses_no_synced_write(void **state)
{
    (void)state;
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        f->options.durability = BFT_SYNC;
        engine_open(f);
        put_all(engine_tree(f, "t", 512), 0, 800, 1);
        engine_crash(f, (enum bfti_sim_policy)policy, 17);
        check_all(engine_tree(f, "t", 0), 0, 800, 1);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static void deleted_keys_stay_deleted_after_recovery(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    put_all(tree, 0, 2000, 1);
    expect_ok(bft_checkpoint(f->db));
    delete_all(tree, 500, 1500);
    engine_crash(f, BFTI_SIM_KILL, 1);
    tree = engine_tree(f, "t", 0);
    check_none(tree, 500, 1500);
    check_all(tree, 0, 500, 1);
    check_all(tree, 1500, 2000, 1);
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    check_none(tree, 500, 1500);
    assert_int_equal(1000, count_all(tree));
    engine_fixture_free(f);
}

static void a_scan_after_recovery_shows_all(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    put_all(engine_tree(f, "t", 512), 0, 2000, 1);
    engine_crash(f, BFTI_SIM_KILL, 1);
    assert_int_equal(2000, count_all(engine_tree(f, "t", 0)));
    put_all(engine_tree(f, "t", 0), 2000, 4000, 1);
    assert_int_equal(4000, count_all(engine_tree(f, "t", 0)));
    engine_fixture_free(f);
}

/* --- scans and reads --------------------------------------------------------- */

/* At every rate, with clean pages on top of leaves. */
static void a_scan_after_a_promoting_read_works(void **state)
{
    static const uint32_t percent[] = {1, 50, 100, 101};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        f->options.promote_percent = percent[i];
        engine_open(f);
        put_all(engine_tree(f, "t", 512), 0, 3000, 1);
        engine_reopen(f);
        bft_tree *tree = engine_tree(f, "t", 0);
        for (uint64_t n = 0; n < 3000; n += 7)
            check(tree, n, 1);
        check_none(tree, 5000, 5100);
        assert_int_equal(3000, count_all(tree));
        check_all(tree, 0, 3000, 1);
        if (percent[i] == 100)
            assert_true(engine_stats(f).promotions > 0);
        if (percent[i] == 101)
            assert_int_equal(0, engine_stats(f).promotions);
        engine_fixture_free(f);
    }
}

/* No recursion, however much lies on the way. */
static void a_scan_over_30000_deleted_records_ends(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    put_all(tree, 0, 30000, 1);
    delete_all(tree, 1, 29999);
    assert_int_equal(2, count_all(tree));
    engine_fixture_free(f);
}

static void an_open_cursor_stops_neither_writers_nor_checkpoints(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_cursor *cursor;
    put_all(tree, 0, 1000, 1);
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    expect_ok(bft_cursor_next(cursor));
    put_all(tree, 0, 8000, 2);
    expect_ok(bft_checkpoint(f->db));
    for (uint64_t n = 1; n < 8000; n++)
        expect_ok(bft_cursor_next(cursor));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    assert_true(
        engine_stats(f).evictions_clean + engine_stats(f).evictions_dirty > 0);
    engine_fixture_free(f);
}

/* It is an answer, not a crash. */
static void a_small_buffer_is_told_the_length(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    struct text text;
    char got[VALUE] = "";
    size_t len = 0;
    put(tree, 1, 1);
    expect_status(BFT_TOO_SMALL,
                  bft_get(tree, key_of(&text, 1), got, VALUE - 1, &len));
    assert_int_equal(VALUE, len);
    expect_status(BFT_TOO_SMALL,
                  bft_get(tree, key_of(&text, 1), NULL, 0, &len));
    assert_int_equal(VALUE, len);
    assert_int_equal(0, got[0]);
    engine_fixture_free(f);
}

/* Nothing of the caller's is kept. */
static void what_a_caller_hands_in_is_its_own_again(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_batch *batch;
    char *key = malloc(10), *value = malloc(5000);
    size_t len;
    expect_ok(bft_batch_create(f->db, &batch));
    for (int i = 0; i < 10; i++) {
        memset(key, 'a' + i, 10);
        memset(value, 'A' + i, 5000);
        expect_ok(bft_put(tree, (bft_slice){key, 10},
                          (bft_slice){value, (size_t)(i % 2 ? 5000 : 50)}));
        key[0] = 'z';
        expect_ok(bft_batch_put(batch, tree, (bft_slice){key, 10},
                                (bft_slice){value, 50}));
    }
    free(key);
    free(value);
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    for (int i = 0; i < 10; i++) {
        char want[10], got[5000];
        memset(want, 'a' + i, 10);
        expect_ok(bft_get(tree, (bft_slice){want, 10}, got, 5000, &len));
        assert_int_equal(i % 2 ? 5000 : 50, len);
        assert_int_equal('A' + i, got[len - 1]);
        want[0] = 'z';
        expect_ok(bft_get(tree, (bft_slice){want, 10}, got, 5000, &len));
    }
    engine_fixture_free(f);
}

/* --- space -------------------------------------------------------------------- */

/* What is in use, nothing held back, after two checkpoints. */
static bft_stats settled(struct engine_fixture *f)
{
    for (int i = 0; i < 3; i++)
        expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_verify(f->db));
    return engine_stats(f);
}

/* Emptied leaves are absorbed, and deleted records leave them. */
static void deleting_all_and_reinserting_does_not_grow_the_file(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    uint64_t first = 0, last = 0;
    for (uint64_t round = 0; round < 8; round++) {
        put_all(tree, 0, 10000, round);
        last = settled(f).file_bytes;
        first = first ? first : last;
        delete_all(tree, 0, 10000);
    }
    assert_true(last <= first + first / 2);
    engine_fixture_free(f);
}

static void a_queue_of_1000_live_records_keeps_its_file_bounded(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    bft_stats stats;
    put_all(tree, 0, 1000, 1);
    for (uint64_t n = 1000; n < 60000; n++) {
        put(tree, n, 1);
        delete_all(tree, n - 1000, n - 999);
    }
    stats = settled(f);
    assert_int_equal(1000, count_all(tree));
    /* 1,000 records of 127 bytes are 31 full leaves. */
    assert_true(stats.leaves <= 120);
    assert_true(stats.file_bytes <= 4 << 20);
    engine_fixture_free(f);
}

/* Not halves, as splits in the middle would leave them. */
static void ascending_load_fills_leaves_to_three_quarters_at_least(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    uint64_t used = 20000 * (12 + 15 + VALUE), leaves;
    put_all(tree, 0, 20000, 1);
    leaves = settled(f).leaves;
    print_message("%llu leaves of 4,096 bytes for %llu bytes\n",
                  (unsigned long long)leaves, (unsigned long long)used);
    assert_true(leaves * 4096 * 3 / 4 <= used);
    engine_fixture_free(f);
}

/* A put that replaces a record needs no room beside it. */
static void updates_in_place_do_not_split_leaves(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    uint64_t splits;
    put_all(tree, 0, 5000, 0);
    splits = settled(f).splits;
    for (uint64_t round = 1; round < 6; round++) {
        put_all(tree, 0, 5000, round);
        expect_ok(bft_checkpoint(f->db));
    }
    assert_int_equal(splits, settled(f).splits);
    check_all(tree, 0, 5000, 5);
    engine_fixture_free(f);
}

/* What inner nodes take in the file is what they need, within the budget of a
 * few extents. */
static void inner_nodes_take_little_of_the_file(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    bft_stats stats;
    put_all(tree, 0, 20000, 1);
    stats = settled(f);
    assert_true(stats.live_bytes < stats.leaves * 4096 + stats.leaves * 512);
    engine_fixture_free(f);
}

/* The last fence of a leaf may be the longest key there can be. */
static void
keys_of_a_quarter_leaf_with_one_prefix_fill_many_leaves(void **state)
{
    (void)state;
    static const uint32_t leaf[] = {512, 1024, 4096};
    for (size_t l = 0; l < 3; l++) {
        struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
        bft_tree *tree = engine_tree(f, "t", leaf[l]);
        size_t key_len = leaf[l] / 4, len;
        char key[1100], got[20];
        memset(key, 'p', sizeof(key));
        for (int round = 0; round < 2; round++)
            for (unsigned n = 0; n < 400; n++) {
                (void)snprintf(key + key_len - 4, 5, "%04u", n * 7919 % 400);
                expect_ok(bft_put(tree, (bft_slice){key, key_len},
                                  (bft_slice){"value of key", n % 13}));
            }
        expect_ok(bft_checkpoint(f->db));
        for (unsigned n = 0; n < 400; n++) {
            (void)snprintf(key + key_len - 4, 5, "%04u", n * 7919 % 400);
            expect_ok(bft_get(tree, (bft_slice){key, key_len}, got, 20, &len));
            assert_int_equal(n % 13, len);
        }
        key[key_len] = 'p';
        expect_status(BFT_TOO_BIG, bft_put(tree, (bft_slice){key, key_len + 1},
                                           (bft_slice){"v", 1}));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* Of the longest that lie in their leaf a page has room for one or two: on top of a
 * leaf on disk, and in a redo. */
static void long_records_find_room_on_large_leaves(void **state)
{
    static uint8_t value[12300];
    (void)state;
    for (size_t bytes = 9000; bytes <= sizeof(value); bytes += 300) {
        struct engine_fixture *f = open_quiet(ENGINE_SIM);
        bft_tree *tree = engine_tree(f, "t", 32768);
        char key[1024];
        size_t len;
        memset(key, 'k', sizeof(key));
        for (int n = 0; n < 12; n++) {
            bft_slice long_key = {key, n % 2 ? sizeof(key) : 8};
            key[0] = (char)('a' + n * 5 % 12);
            if (n % 3 == 0) /* all leaves are on disk */
                engine_reopen(f);
            tree = engine_tree(f, "t", 32768);
            expect_ok(bft_put(tree, long_key,
                              (bft_slice){value, bytes - long_key.len}));
        }
        expect_ok(bft_sync(f->db));
        engine_crash(f, BFTI_SIM_DROP, 1);
        tree = engine_tree(f, "t", 32768);
        for (int n = 0; n < 12; n++) {
            bft_slice long_key = {key, n % 2 ? sizeof(key) : 8};
            key[0] = (char)('a' + n * 5 % 12);
            expect_ok(bft_get(tree, long_key, value, sizeof(value), &len));
            assert_int_equal(bytes - long_key.len, len);
        }
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* --- large values --------------------------------------------------------------- */

static bft_status stop_reading(void *ctx, void *buf, size_t len)
{
    size_t *left = ctx;
    if (*left == 0)
        return BFT_CONFLICT;
    --*left;
    memset(buf, 'x', len);
    return BFT_OK;
}

/* All of them are freed again: the fixture counts memory, verify space. */
static void a_stream_that_fails_leaves_nothing(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_slice key = {"k", 1};
    uint64_t live = settled(f).live_bytes;
    size_t len;
    for (size_t parts = 0; parts < 3; parts++) {
        size_t left = parts;
        expect_status(BFT_CONFLICT,
                      bft_put_stream(tree, key, 2 << 20, stop_reading, &left));
        expect_status(BFT_NOT_FOUND, bft_get(tree, key, NULL, 0, &len));
    }
    assert_int_equal(live, settled(f).live_bytes);
    engine_fixture_free(f);
}

static void space_of_replaced_large_values_is_reused(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    static char value[600000];
    for (int i = 0; i < 60; i++) {
        memset(value, 'a' + i % 26, sizeof(value));
        expect_ok(bft_put(tree, (bft_slice){"key", 3},
                          (bft_slice){value, sizeof(value) - (size_t)i}));
        if (i % 20 == 19) {
            engine_crash(f, BFTI_SIM_KILL, 1);
            tree = engine_tree(f, "t", 0);
        }
    }
    assert_true(settled(f).live_bytes < 1 << 20);
    assert_true(settled(f).file_bytes < 8 << 20);
    engine_fixture_free(f);
}

/* --- trees ---------------------------------------------------------------------- */

static void a_dropped_tree_gives_its_space_back(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    for (int round = 0; round < 20; round++) {
        bft_tree *tree = engine_tree(f, "t", 512);
        size_t len;
        put_all(tree, 0, 1500, 1);
        expect_ok(bft_tree_drop(f->db, "t"));
        expect_status(BFT_GONE,
                      bft_get(tree, (bft_slice){"k", 1}, NULL, 0, &len));
        expect_ok(bft_verify(f->db));
    }
    /* A merge that came too late gives back the leaves it had in mind. */
    engine_end_background(f);
    /* What is left is the page table's parts and the image's own. */
    assert_true(settled(f).live_bytes < 256 << 10);
    assert_true(engine_stats(f).held_bytes < 256 << 10);
    assert_int_equal(0, engine_stats(f).leaves);
    engine_fixture_free(f);
}

/* Batches over trees are there whole or not at all, after a kill too. */
static void a_batch_over_trees_is_one_step(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    char name[8];
    for (uint64_t round = 0; round < 30; round++) {
        bft_batch *batch;
        struct text text;
        char value[VALUE];
        expect_ok(bft_batch_create(f->db, &batch));
        for (uint64_t n = 0; n < 90; n++) {
            (void)snprintf(name, sizeof(name), "t%llu",
                           (unsigned long long)(n % 3));
            expect_ok(bft_batch_put(batch, engine_tree(f, name, 512),
                                    key_of(&text, n),
                                    value_of(value, n, round)));
        }
        expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
        bft_batch_free(batch);
        if (round % 10 == 9)
            engine_crash(f, BFTI_SIM_KILL, round);
        for (uint64_t n = 0; n < 90; n++) {
            (void)snprintf(name, sizeof(name), "t%llu",
                           (unsigned long long)(n % 3));
            check(engine_tree(f, name, 0), n, round);
        }
    }
    engine_fixture_free(f);
}

/* What is cleared is not committed, and the batch can be used again. */
static void a_batch_says_what_it_holds(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    size_t least = 0, bytes;
    struct text text;
    char value[VALUE];
    bft_batch *batch;

    put_all(tree, 0, 10, 0);
    expect_ok(bft_batch_create(f->db, &batch));
    assert_int_equal(0, bft_batch_count(batch));
    assert_int_equal(0, bft_batch_bytes(batch));
    for (uint64_t n = 0; n < 100; n++) {
        bft_slice put = value_of(value, n, 1), key = key_of(&text, n);
        expect_ok(bft_batch_put(batch, tree, key, put));
        least += key.len + put.len;
        assert_int_equal(n + 1, bft_batch_count(batch));
        assert_in_range(bft_batch_bytes(batch), least, least + (n + 1) * 128);
    }
    bytes = bft_batch_bytes(batch);
    expect_ok(bft_batch_delete(batch, tree, key_of(&text, 5)));
    assert_int_equal(101, bft_batch_count(batch));
    assert_true(bft_batch_bytes(batch) >= bytes + key_of(&text, 5).len);

    bft_batch_clear(batch);
    assert_int_equal(0, bft_batch_count(batch));
    assert_int_equal(0, bft_batch_bytes(batch));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    for (uint64_t n = 0; n < 10; n++)
        check(tree, n, 0);
    expect_ok(
        bft_batch_put(batch, tree, key_of(&text, 9), value_of(value, 9, 2)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    check(tree, 8, 0);
    check(tree, 9, 2);
    assert_int_equal(0, bft_batch_count(batch));
    assert_int_equal(0, bft_batch_bytes(batch));
    bft_batch_free(batch);
    engine_fixture_free(f);
}

/* A commit that fails sorts the changes, and leaves the last one of each key.  What
 * is added then comes behind these. */
static void a_batch_that_failed_takes_later_changes(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct text text;
    char value[VALUE];
    bft_tree *tree;
    bft_batch *batch;

    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    expect_ok(bft_batch_create(f->db, &batch));
    for (uint64_t version = 1; version <= 3; version++)
        for (uint64_t n = 0; n < 5; n++)
            expect_ok(bft_batch_put(batch, tree, key_of(&text, n),
                                    value_of(value, n, version)));
    atomic_store(&f->allocs_left, 0);
    expect_status(BFT_NO_MEMORY, bft_batch_commit(batch, BFT_DEFAULT, NULL));
    atomic_store(&f->allocs_left, -1);
    assert_int_equal(5, bft_batch_count(batch));
    for (uint64_t n = 0; n < 5; n++)
        expect_ok(bft_batch_put(batch, tree, key_of(&text, n),
                                value_of(value, n, 4)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    for (uint64_t n = 0; n < 5; n++)
        check(tree, n, 4);
    bft_batch_free(batch);
    engine_fixture_free(f);
}

/* --- threads --------------------------------------------------------------------- */

enum { THREADS = 80 };

struct writer {
    pthread_t thread;
    bft_tree *tree;
    uint64_t from;
    bft_status status;
};

static void *write_some(void *arg)
{
    struct writer *w = arg;
    for (uint64_t n = 0; w->status == BFT_OK && n < 60; n++) {
        struct text text;
        char value[VALUE];
        w->status = bft_put(w->tree, key_of(&text, n * THREADS + w->from),
                            value_of(value, n * THREADS + w->from, 1));
    }
    return NULL;
}

/* More than a table of fixed length, say of 64, would have had room for. */
static void eighty_threads_write_with_checkpoints(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    static struct writer writer[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        writer[i] = (struct writer){.tree = tree, .from = i};
        assert_int_equal(
            0, pthread_create(&writer[i].thread, NULL, write_some, &writer[i]));
    }
    for (int i = 0; i < 5; i++)
        expect_ok(bft_checkpoint(f->db));
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(0, pthread_join(writer[i].thread, NULL));
        assert_int_equal(BFT_OK, writer[i].status);
    }
    check_all(tree, 0, 60 * THREADS, 1);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- memory ---------------------------------------------------------------------- */

/* Budgets of any number of bytes, leaves of several sizes side by side. */
static void odd_budgets_and_leaf_sizes_work(void **state)
{
    static const uint32_t leaf[] = {512, 1536, 4096, 32768};
    (void)state;
    for (uint64_t budget = 256 << 10; budget < 1 << 20; budget += 123457) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        char name[8];
        f->options.memory_bytes = budget;
        engine_open(f);
        for (unsigned i = 0; i < 4; i++) {
            (void)snprintf(name, sizeof(name), "t%u", i);
            put_all(engine_tree(f, name, leaf[i]), 0, 2000, i);
        }
        for (unsigned i = 0; i < 4; i++) {
            (void)snprintf(name, sizeof(name), "t%u", i);
            check_all(engine_tree(f, name, 0), 0, 2000, i);
        }
        engine_reopen(f);
        for (unsigned i = 0; i < 4; i++) {
            (void)snprintf(name, sizeof(name), "t%u", i);
            check_all(engine_tree(f, name, 0), 0, 2000, i);
        }
        engine_fixture_free(f);
    }
}

/* Page table and inner nodes count, too. */
static void memory_in_use_stays_near_the_budget(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    bft_stats stats;
    put_all(tree, 0, 30000, 1);
    stats = engine_stats(f);
    assert_int_equal(256 << 10, stats.memory_budget_bytes);
    print_message("%llu bytes in use of a budget of %llu\n",
                  (unsigned long long)stats.memory_used_bytes,
                  (unsigned long long)stats.memory_budget_bytes);
    assert_true(stats.memory_used_bytes < 4 * stats.memory_budget_bytes);
    engine_fixture_free(f);
}

/* --- bytes ------------------------------------------------------------------------ */

static void *marked_alloc(void *ctx, size_t bytes)
{
    void *block = malloc(bytes);
    (void)ctx;
    if (block)
        for (size_t i = 0; i + 16 <= bytes; i += 16)
            memcpy((char *)block + i, "UNINITIALISEDMEM", 16);
    return block;
}

static void *marked_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    return realloc(old, bytes);
}

static void marked_free(void *ctx, void *block)
{
    (void)ctx;
    free(block);
}

static bool holds_mark(struct bfti_vfs *vfs, const char *path, size_t *size)
{
    uint64_t bytes;
    bool found;
    char *all;
    size_t got;
    expect_ok(bfti_sim_size(vfs, BFTI_SIM_CACHE, path, &bytes));
    all = malloc(bytes);
    assert_non_null(all);
    expect_ok(bfti_sim_read(vfs, BFTI_SIM_CACHE, path, 0, all, bytes, &got));
    found = memmem(all, got, "UNINITIAL", 9) != NULL;
    free(all);
    *size = got;
    return found;
}

static void find_logs(void *ctx, const char *name)
{
    char(*last)[64] = ctx;
    if (strcmp(name, "data") != 0 && strcmp(name, "lock") != 0)
        (void)snprintf(*last, sizeof(*last), "/db/%s", name);
}

/* Memory comes with a mark in it, which must not be found in the files. */
static void no_uninitialised_bytes_reach_the_file(void **state)
{
    (void)state;
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    char log[64] = "";
    static char value[5000];
    size_t size;
    bft_tree *tree;
    f->env.alloc = marked_alloc;
    f->env.realloc = marked_realloc;
    f->env.free = marked_free;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    put_all(tree, 0, 3000, 1);
    delete_all(tree, 100, 900);
    expect_ok(bft_put(tree, (bft_slice){"large", 5},
                      (bft_slice){value, sizeof(value)}));
    expect_ok(bft_checkpoint(f->db));
    put_all(tree, 0, 300, 2);
    assert_false(holds_mark(f->vfs, "/db/data", &size));
    assert_true(size > 100000);
    expect_ok(f->vfs->ops->list(f->vfs, "/db", find_logs, &log));
    assert_true(log[0]);
    assert_false(holds_mark(f->vfs, log, &size));
    engine_fixture_free(f);
}

/* Each flipped byte of the page file is noticed or of no account. */
static void damage_is_told_and_not_returned(void **state)
{
    (void)state;
    struct engine_fixture *f = open_quiet(ENGINE_SIM);
    uint64_t bytes, told = 0;
    put_all(engine_tree(f, "t", 512), 0, 2000, 1);
    expect_ok(bft_close(f->db));
    f->db = NULL;
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = 100; at < bytes; at += bytes / 40) {
        struct bfti_vfs *whole = f->vfs;
        bft_status status;
        expect_ok(bfti_sim_image(whole, BFTI_SIM_KILL, 1, &f->vfs));
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at, 0x10));
        status = engine_open_status(f);
        if (status == BFT_OK) {
            bft_tree_options o = {.size = sizeof(o), .must_exist = true};
            bft_tree *tree;
            expect_ok(bft_tree_open(f->db, "t", &o, &tree));
            for (uint64_t n = 0; n < 2000; n++) {
                struct text text;
                char value[VALUE], got[VALUE];
                size_t len;
                status = bft_get(tree, key_of(&text, n), got, VALUE, &len);
                told += status != BFT_OK;
                if (status == BFT_OK)
                    assert_memory_equal(value_of(value, n, 1).data, got, VALUE);
                else
                    assert_int_equal(BFT_CORRUPT, status);
            }
            (void)bft_close(f->db);
            f->db = NULL;
        } else {
            assert_int_equal(BFT_CORRUPT, status);
            told++;
        }
        bfti_vfs_sim_destroy(f->vfs);
        f->vfs = whole;
    }
    assert_true(told > 0);
    atomic_store(&f->reported, 0);
    engine_fixture_free(f);
}

/* What the log changed is put beside what is on disk, and not merged with it. */
static void recovery_reads_few_of_the_leaves_it_writes(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    bft_stats stats;
    (void)state;
    f->options.log_bytes = 4 << 20;
    f->options.no_threads = true; /* no checkpoint comes by itself */
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    put_all(tree, 0, 12000, 1);
    expect_ok(bft_checkpoint(f->db));
    for (uint64_t n = 0; n < 12000; n += 6)
        put(tree, n, 2);
    engine_crash(f, BFTI_SIM_KILL, 1);
    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    expect_ok(bft_stats_read(f->db, &stats));
    assert_in_range(stats.recovered_frames, 1500, 2000);
    assert_true(stats.deltas > 500);
    assert_in_range(stats.extents_read, 0, 1000);
    tree = engine_tree(f, "t", 0);
    for (uint64_t n = 0; n < 12000; n++)
        check(tree, n, n % 6 ? 1 : 2);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reopening_a_database_finds_every_record),
        cmocka_unit_test(long_records_find_room_on_large_leaves),
        cmocka_unit_test(a_killed_process_loses_no_buffered_write),
        cmocka_unit_test(a_power_cut_loses_no_synced_write),
        cmocka_unit_test(deleted_keys_stay_deleted_after_recovery),
        cmocka_unit_test(a_scan_after_recovery_shows_all),
        cmocka_unit_test(recovery_reads_few_of_the_leaves_it_writes),
        cmocka_unit_test(a_scan_after_a_promoting_read_works),
        cmocka_unit_test(a_scan_over_30000_deleted_records_ends),
        cmocka_unit_test(an_open_cursor_stops_neither_writers_nor_checkpoints),
        cmocka_unit_test(a_small_buffer_is_told_the_length),
        cmocka_unit_test(what_a_caller_hands_in_is_its_own_again),
        cmocka_unit_test(deleting_all_and_reinserting_does_not_grow_the_file),
        cmocka_unit_test(a_queue_of_1000_live_records_keeps_its_file_bounded),
        cmocka_unit_test(
            ascending_load_fills_leaves_to_three_quarters_at_least),
        cmocka_unit_test(updates_in_place_do_not_split_leaves),
        cmocka_unit_test(inner_nodes_take_little_of_the_file),
        cmocka_unit_test(
            keys_of_a_quarter_leaf_with_one_prefix_fill_many_leaves),
        cmocka_unit_test(a_stream_that_fails_leaves_nothing),
        cmocka_unit_test(space_of_replaced_large_values_is_reused),
        cmocka_unit_test(a_dropped_tree_gives_its_space_back),
        cmocka_unit_test(a_batch_over_trees_is_one_step),
        cmocka_unit_test(a_batch_says_what_it_holds),
        cmocka_unit_test(a_batch_that_failed_takes_later_changes),
        cmocka_unit_test(eighty_threads_write_with_checkpoints),
        cmocka_unit_test(odd_budgets_and_leaf_sizes_work),
        cmocka_unit_test(memory_in_use_stays_near_the_budget),
        cmocka_unit_test(no_uninitialised_bytes_reach_the_file),
        cmocka_unit_test(damage_is_told_and_not_returned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
