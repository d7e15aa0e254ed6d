/*
 * Many keys at once, counts of ranges, the first and the last record, and the
 * statistics as a text.
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
#include "random.h"

enum { VALUE = 60, MANY = 4000 };

static const bft_slice NONE = {NULL, 0};

struct text {
    char chars[32];
};

static bft_slice key_of(struct text *text, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key%09llu",
                       (unsigned long long)n);
    return (bft_slice){text->chars, (size_t)len};
}

static bft_slice value_of(char value[VALUE], uint64_t n)
{
    memset(value, 'v', VALUE);
    (void)snprintf(value, VALUE, "value %llu", (unsigned long long)n);
    return (bft_slice){value, VALUE};
}

/* The keys 0, 2, 4, ... below 2 * COUNT. */
static void put_even(bft_tree *tree, uint64_t count)
{
    for (uint64_t n = 0; n < count; n++) {
        struct text text;
        char value[VALUE];
        expect_ok(bft_put(tree, key_of(&text, 2 * n), value_of(value, 2 * n)));
    }
}

/* --- many keys -------------------------------------------------------------- */

struct ask {
    bft_answer item[600];
    struct text text[600];
    char buf[600][VALUE];
    uint64_t n[600];
};

static void ask_random(struct ask *ask, size_t count, uint64_t below)
{
    memset(ask, 0, sizeof(*ask));
    for (size_t i = 0; i < count; i++) {
        ask->n[i] = random_below(below);
        ask->item[i].key = key_of(&ask->text[i], ask->n[i]);
        ask->item[i].buf = ask->buf[i];
        ask->item[i].buf_len = VALUE;
        ask->item[i].status = BFT_IO;
    }
}

static void check_answers(struct ask *ask, size_t count, uint64_t below)
{
    for (size_t i = 0; i < count; i++) {
        char value[VALUE];
        if (ask->n[i] % 2 || ask->n[i] >= below) {
            /* provokes: bft_multi_get BFT_NOT_FOUND */
            assert_int_equal(BFT_NOT_FOUND, ask->item[i].status);
            assert_int_equal(0, ask->item[i].value_len);
            continue;
        }
        assert_int_equal(BFT_OK, ask->item[i].status);
        assert_int_equal(VALUE, ask->item[i].value_len);
        assert_memory_equal(value_of(value, ask->n[i]).data, ask->buf[i],
                            VALUE);
    }
}

static void many_keys_have_one_answer_each(void **state)
{
    struct ask *ask = malloc(sizeof(*ask));
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        bft_tree *tree = engine_tree(f, "t", 512);
        expect_ok(bft_multi_get(tree, NULL, 0));
        put_even(tree, MANY);
        for (int round = 0; round < 20; round++) {
            size_t count = 1 + random_below(600);
            ask_random(ask, count, 2 * MANY + 100);
            expect_ok(bft_multi_get(tree, ask->item, count));
            check_answers(ask, count, 2 * MANY);
            if (round % 5 == 4) {
                engine_reopen(f);
                tree = engine_tree(f, "t", 0);
            }
        }
        engine_fixture_free(f);
    }
    free(ask);
}

/* Of a leaf on disk all keys are found by one read. */
static void keys_of_one_leaf_are_read_at_once(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct ask *ask = malloc(sizeof(*ask));
    bft_tree *tree;
    uint64_t before;
    (void)state;
    f->options.promote_percent = 101;
    f->options.no_threads = true;
    engine_open(f);
    put_even(engine_tree(f, "t", 4096), 500);
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    ask_random(ask, 600, 1000);
    before = engine_stats(f).extents_read;
    expect_ok(bft_multi_get(tree, ask->item, 600));
    check_answers(ask, 600, 1000);
    assert_true(engine_stats(f).extents_read - before <=
                2 * engine_stats(f).leaves);
    free(ask);
    engine_fixture_free(f);
}

/* Large values, small buffers and wrong keys among good ones. */
static void one_bad_key_spoils_no_other_answer(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    static uint8_t big[700000], got[700000], small[10];
    bft_answer items[5];
    (void)state;
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7 + i / 251);
    put_even(tree, 50);
    expect_ok(bft_put(tree, (bft_slice){"key000000011", 12},
                      (bft_slice){big, sizeof(big)}));
    memset(items, 0, sizeof(items));
    items[0].key = (bft_slice){"key000000012", 12};
    items[0].buf = small;
    items[0].buf_len = sizeof(small);
    items[1].key = (bft_slice){"key000000011", 12};
    items[1].buf = got;
    items[1].buf_len = sizeof(got);
    items[2].key = NONE;
    items[3].key = (bft_slice){big, BFT_KEY_MAX + 1};
    items[4] = items[1];
    items[4].buf = NULL;
    items[4].buf_len = 0;
    expect_status(BFT_INVALID, bft_multi_get(tree, items, 5));
    /* provokes: bft_multi_get BFT_TOO_SMALL */
    assert_int_equal(BFT_TOO_SMALL, items[0].status);
    assert_int_equal(VALUE, items[0].value_len);
    assert_int_equal(BFT_OK, items[1].status);
    assert_int_equal(sizeof(big), items[1].value_len);
    assert_memory_equal(big, got, sizeof(big));
    assert_int_equal(BFT_INVALID, items[2].status);
    assert_int_equal(BFT_TOO_BIG, items[3].status);
    assert_int_equal(BFT_TOO_SMALL, items[4].status);
    assert_int_equal(sizeof(big), items[4].value_len);
    items[0].buf = NULL; /* with a length */
    expect_status(BFT_INVALID, bft_multi_get(tree, items, 1));
    expect_status(BFT_INVALID, bft_multi_get(tree, NULL, 1));
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_status(BFT_GONE, bft_multi_get(tree, items + 1, 1));
    engine_fixture_free(f);
}

/* --- counts ----------------------------------------------------------------- */

static uint64_t even_between(uint64_t low, uint64_t high)
{
    return low >= high ? 0 : (high + 1) / 2 - (low + 1) / 2;
}

static void a_count_is_exact(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_record *record;
        uint64_t count = 77;
        expect_ok(bft_count(tree, NONE, NONE, &count));
        assert_int_equal(0, count);
        put_even(tree, MANY);
        for (int round = 0; round < 40; round++) {
            uint64_t low = random_below(2 * MANY),
                     high = random_below(2 * MANY);
            struct text from, to;
            expect_ok(
                bft_count(tree, key_of(&from, low), key_of(&to, high), &count));
            assert_int_equal(even_between(low, high), count);
            expect_ok(bft_count(tree, key_of(&from, low), NONE, &count));
            assert_int_equal(even_between(low, 2 * MANY), count);
            expect_ok(bft_count(tree, NONE, key_of(&to, high), &count));
            assert_int_equal(even_between(0, high), count);
            if (round == 20) {
                engine_reopen(f);
                tree = engine_tree(f, "t", 0);
            }
        }
        expect_ok(bft_count(tree, NONE, NONE, &count));
        assert_int_equal(MANY, count);
        expect_status(BFT_INVALID, bft_count(tree, NONE, NONE, NULL));
        expect_status(BFT_INVALID,
                      bft_count(tree, (bft_slice){NULL, 3}, NONE, &count));
        expect_status(
            BFT_TOO_BIG,
            bft_count(tree, NONE, (bft_slice){"", BFT_KEY_MAX + 1}, &count));
        expect_status(
            BFT_TOO_BIG,
            bft_estimate(tree, NONE, (bft_slice){"", BFT_KEY_MAX + 1}, &count));
        expect_status(
            BFT_TOO_BIG,
            bft_first(tree, (bft_slice){"", BFT_KEY_MAX + 1}, NONE, &record));
        expect_status(
            BFT_TOO_BIG,
            bft_last(tree, (bft_slice){"", BFT_KEY_MAX + 1}, NONE, &record));
        engine_fixture_free(f);
    }
}

/* Extents read for leaves, and not for the inner nodes that lead there. */
static uint64_t leaf_reads(struct engine_fixture *f)
{
    bft_stats stats = engine_stats(f);
    return stats.extents_read - stats.nodes_read;
}

/* Large values and deleted records are counted without being read. */
static void an_estimate_reads_few_leaves_and_errs_little(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    uint64_t count = 77, before;
    bft_tree *tree;
    (void)state;
    f->options.promote_percent = 101;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    expect_ok(bft_estimate(tree, NONE, NONE, &count));
    assert_int_equal(0, count);
    put_even(tree, 8 * MANY);
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    for (int round = 0; round < 30; round++) {
        uint64_t low = random_below(4 * MANY);
        uint64_t high = low + random_below(12 * MANY), due;
        struct text from, to;
        due = even_between(low, high);
        before = leaf_reads(f);
        expect_ok(
            bft_estimate(tree, key_of(&from, low), key_of(&to, high), &count));
        assert_true(leaf_reads(f) - before <= 2 * 18);
        assert_true(count >= due - due / 5 && count <= due + due / 5);
        if (due < 60) /* 18 leaves have more */
            assert_int_equal(due, count);
    }
    expect_ok(bft_estimate(tree, NONE, NONE, &count));
    assert_true(count > 7 * MANY && count < 9 * MANY);
    expect_status(BFT_INVALID, bft_estimate(tree, NONE, NONE, NULL));
    expect_status(BFT_INVALID,
                  bft_estimate(tree, (bft_slice){NULL, 3}, NONE, &count));
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_status(BFT_GONE, bft_estimate(tree, NONE, NONE, &count));
    expect_status(BFT_GONE, bft_count(tree, NONE, NONE, &count));
    engine_fixture_free(f);
}

/* --- ends ------------------------------------------------------------------- */

static void expect_record(bft_record *record, uint64_t n)
{
    struct text text;
    char value[VALUE];
    bft_slice key = key_of(&text, n);
    assert_int_equal(key.len, record->key.len);
    assert_memory_equal(key.data, record->key.data, key.len);
    assert_int_equal(VALUE, record->value.len);
    assert_memory_equal(value_of(value, n).data, record->value.data, VALUE);
    bft_free(record);
}

static void the_ends_of_a_range_are_found(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    static uint8_t big[5000];
    bft_record *record;
    struct text a, b;
    (void)state;
    expect_status(BFT_NOT_FOUND, bft_first(tree, NONE, NONE, &record));
    expect_status(BFT_NOT_FOUND, bft_last(tree, NONE, NONE, &record));
    assert_null(record);
    put_even(tree, MANY);
    expect_ok(bft_first(tree, NONE, NONE, &record));
    expect_record(record, 0);
    expect_ok(bft_last(tree, NONE, NONE, &record));
    expect_record(record, 2 * MANY - 2);
    expect_ok(bft_first(tree, key_of(&a, 501), key_of(&b, 601), &record));
    expect_record(record, 502);
    expect_ok(bft_last(tree, key_of(&a, 501), key_of(&b, 600), &record));
    expect_record(record, 598);
    expect_status(BFT_NOT_FOUND,
                  bft_first(tree, key_of(&a, 501), key_of(&b, 502), &record));
    expect_ok(
        bft_put(tree, (bft_slice){"z", 1}, (bft_slice){big, sizeof(big)}));
    expect_ok(bft_last(tree, NONE, NONE, &record));
    assert_int_equal(sizeof(big), record->value.len);
    bft_free(record);
    expect_status(BFT_INVALID, bft_first(tree, NONE, NONE, NULL));
    expect_status(BFT_INVALID, bft_last(tree, NONE, NONE, NULL));
    engine_fixture_free(f);
}

/* --- removing --------------------------------------------------------------- */

static void a_range_is_removed_and_nothing_beside_it(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_make((enum engine_backend)b);
        struct text from, to;
        uint64_t count;
        bft_tree *tree;
        f->options.durability = b == ENGINE_SIM ? BFT_SYNC : BFT_BUFFERED;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        expect_ok(bft_delete_range(tree, NONE, NONE, &count));
        assert_int_equal(0, count);
        for (uint64_t n = 0; n < MANY; n++) {
            char value[VALUE];
            bft_batch *batch;
            expect_ok(bft_batch_create(f->db, &batch));
            for (int i = 0; i < 50 && n < MANY; i++, n++)
                expect_ok(bft_batch_put(batch, tree, key_of(&from, n),
                                        value_of(value, n)));
            n--;
            expect_ok(bft_batch_commit(batch, BFT_BUFFERED, NULL));
            bft_batch_free(batch);
        }
        expect_ok(bft_delete_range(tree, key_of(&from, 100), key_of(&to, 3100),
                                   &count));
        assert_int_equal(3000, count);
        if (b == ENGINE_SIM) {
            engine_crash(f, BFTI_SIM_DROP, 1);
            tree = engine_tree(f, "t", 0);
        }
        expect_ok(bft_count(tree, NONE, NONE, &count));
        assert_int_equal(MANY - 3000, count);
        expect_ok(bft_count(tree, NONE, key_of(&to, 100), &count));
        assert_int_equal(100, count);
        expect_ok(bft_delete_range(tree, key_of(&from, 100), key_of(&to, 3100),
                                   NULL));
        expect_ok(
            bft_delete_range(tree, key_of(&from, 5), key_of(&to, 5), &count));
        assert_int_equal(0, count);
        expect_ok(bft_delete_range(tree, key_of(&from, 3500), NONE, &count));
        assert_int_equal(MANY - 3500, count);
        expect_ok(bft_verify(f->db));
        expect_ok(bft_delete_range(tree, NONE, NONE, &count));
        assert_int_equal(500, count);
        engine_reopen(f);
        tree = engine_tree(f, "t", 0);
        expect_ok(bft_count(tree, NONE, NONE, &count));
        assert_int_equal(0, count);
        expect_status(BFT_INVALID, bft_delete_range(tree, (bft_slice){NULL, 3},
                                                    NONE, &count));
        expect_ok(bft_tree_drop(f->db, "t"));
        expect_status(BFT_GONE, bft_delete_range(tree, NONE, NONE, NULL));
        engine_fixture_free(f);
    }
}

/* Removing nothing is a commit like any other: what was committed before it is
 * as durable as it. */
static void removing_nothing_makes_what_was_before_durable(void **state)
{
    static const char *const HIGH[] = {"b", "a", "9"};
    (void)state;
    for (size_t i = 0; i < sizeof(HIGH) / sizeof(HIGH[0]); i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        bft_batch *batch;
        bft_tree *tree;
        struct text text;
        char value[VALUE];
        uint64_t count;
        f->options.durability = BFT_SYNC;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        expect_ok(bft_batch_create(f->db, &batch));
        expect_ok(
            bft_batch_put(batch, tree, key_of(&text, 1), value_of(value, 1)));
        expect_ok(bft_batch_commit(batch, BFT_NONE, NULL));
        bft_batch_free(batch);
        expect_ok(bft_delete_range(tree, (bft_slice){"a", 1},
                                   (bft_slice){HIGH[i], 1}, &count));
        assert_int_equal(0, count);
        engine_crash(f, BFTI_SIM_DROP, 1);
        tree = engine_tree(f, "t", 0);
        expect_ok(bft_count(tree, NONE, NONE, &count));
        assert_int_equal(1, count);
        engine_fixture_free(f);
    }
}

/* Keys so long that a leaf's are more than a batch may be. */
static void long_keys_are_removed_in_small_batches(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 32768);
    uint64_t count;
    (void)state;
    for (unsigned n = 0; n < 200; n++) {
        uint8_t key[BFT_KEY_MAX];
        memset(key, 'k', sizeof(key));
        (void)snprintf((char *)key + 900, 20, "%08u", n);
        expect_ok(bft_put(tree, (bft_slice){key, sizeof(key)}, NONE));
    }
    expect_ok(bft_delete_range(tree, NONE, NONE, &count));
    assert_int_equal(200, count);
    expect_ok(bft_count(tree, NONE, NONE, &count));
    assert_int_equal(0, count);
    engine_fixture_free(f);
}

/* --- statistics ------------------------------------------------------------- */

static void the_statistics_are_json_of_the_same_names(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    char text[4096], small[100];
    size_t len, needed;
    (void)state;
    put_even(tree, 123);
    expect_ok(bft_stats_json(f->db, text, sizeof(text), &len));
    assert_int_equal(strlen(text), len);
    assert_int_equal('{', text[0]);
    assert_int_equal('}', text[len - 1]);
    assert_non_null(strstr(text, "{\"gets\":0,\"puts\":123,\"deletes\":0,"));
    assert_non_null(strstr(text, ",\"trees\":1,"));
    assert_non_null(strstr(text, ",\"incarnation\":1,"));
    assert_non_null(strstr(
        text, ",\"filter_hits\":0,\"filter_bytes\":0,\"leaves_forgotten\":0}"));
    expect_status(BFT_TOO_SMALL,
                  bft_stats_json(f->db, small, sizeof(small), &needed));
    assert_int_equal(0, small[0]);
    assert_true(needed >= sizeof(small));
    expect_status(BFT_TOO_SMALL, bft_stats_json(f->db, NULL, 0, &needed));
    expect_status(BFT_INVALID, bft_stats_json(f->db, NULL, 9, &needed));
    expect_status(BFT_INVALID, bft_stats_json(f->db, text, 9, NULL));
    expect_status(BFT_INVALID, bft_stats_json(NULL, text, 9, &needed));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_keys_have_one_answer_each),
        cmocka_unit_test(keys_of_one_leaf_are_read_at_once),
        cmocka_unit_test(one_bad_key_spoils_no_other_answer),
        cmocka_unit_test(a_count_is_exact),
        cmocka_unit_test(an_estimate_reads_few_leaves_and_errs_little),
        cmocka_unit_test(the_ends_of_a_range_are_found),
        cmocka_unit_test(a_range_is_removed_and_nothing_beside_it),
        cmocka_unit_test(removing_nothing_makes_what_was_before_durable),
        cmocka_unit_test(long_keys_are_removed_in_small_batches),
        cmocka_unit_test(the_statistics_are_json_of_the_same_names),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
