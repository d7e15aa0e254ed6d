/* Compare and swap: against records in pages, on disk and outside the leaf, and
 * against other threads. */
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
#include "random.h"

enum { LONG = 700000, THREADS = 4, COUNTERS = 3, EACH = 300 };

static const size_t lens[] = {0, 1, 100, 3000, LONG};
enum { LENS = sizeof(lens) / sizeof(lens[0]) };

static bft_slice slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void check_value(bft_tree *tree, bft_slice key, const void *value,
                        size_t len)
{
    void *got;
    size_t got_len;
    expect_ok(bft_get_copy(tree, key, &got, &got_len));
    assert_int_equal(len, got_len);
    assert_memory_equal(value, got, len);
    bft_free(got);
}

static void check_none(bft_tree *tree, bft_slice key)
{
    size_t len;
    expect_status(BFT_NOT_FOUND, bft_get(tree, key, NULL, 0, &len));
}

/* Every length against every other, with records in memory, and on disk. */
static void a_value_is_replaced_only_if_it_is_the_expected_one(void **state)
{
    static uint8_t old[LONG + 1], new[LONG + 1], other[LONG + 1];
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        bft_slice key = slice("the key");
        for (size_t i = 0; i < LENS * LENS * 2; i++) {
            size_t old_len = lens[i % LENS], new_len = lens[i / LENS % LENS];
            bft_slice from = {old, old_len}, to = {new, new_len};
            bft_slice wrong = {other, old_len};
            bft_tree *tree = engine_tree(f, "t", 512);
            fill(old, old_len, (unsigned)i);
            fill(new, new_len, (unsigned)i + 50);
            expect_ok(bft_put(tree, key, from));
            expect_ok(bft_put(tree, slice("the kez"), to));
            if (i >= LENS * LENS) {
                engine_reopen(f);
                tree = engine_tree(f, "t", 0);
            }
            if (old_len) {
                memcpy(other, old, old_len);
                other[random_below(old_len)] ^= 1;
                expect_status(BFT_CONFLICT,
                              bft_replace(tree, key, &wrong, &to));
                wrong.len--;
                memcpy(other, old, old_len);
                expect_status(BFT_CONFLICT,
                              bft_replace(tree, key, &wrong, &to));
            }
            wrong.len = old_len + 1;
            expect_status(BFT_CONFLICT, bft_replace(tree, key, &wrong, &to));
            expect_status(BFT_CONFLICT, bft_replace(tree, key, &wrong, NULL));
            expect_status(BFT_CONFLICT, bft_replace(tree, key, NULL, &to));
            check_value(tree, key, old, old_len);
            expect_ok(bft_replace(tree, key, &from, &to));
            check_value(tree, key, new, new_len);
            expect_ok(bft_replace(tree, key, &to, NULL));
            check_none(tree, key);
        }
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static void absence_is_expected_too(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_slice key = slice("k"), one = slice("1"), two = slice("2");
    (void)state;
    expect_status(BFT_CONFLICT, bft_replace(tree, key, &one, &two));
    expect_status(BFT_CONFLICT, bft_replace(tree, key, &one, NULL));
    expect_ok(bft_replace(tree, key, NULL, &one));
    expect_status(BFT_CONFLICT, bft_replace(tree, key, NULL, &two));
    engine_crash(f, BFTI_SIM_KILL, 1);
    tree = engine_tree(f, "t", 0);
    check_value(tree, key, "1", 1);
    expect_ok(bft_replace(tree, key, &one, NULL));
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    expect_status(BFT_CONFLICT, bft_replace(tree, key, &one, &two));
    expect_ok(bft_replace(tree, key, NULL, &two));
    check_value(tree, key, "2", 1);
    engine_fixture_free(f);
}

static void a_replacement_survives_what_a_put_survives(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_slice key = slice("k"), one = slice("1"), two = slice("2");
    (void)state;
    f->options.durability = BFT_SYNC;
    engine_open(f);
    expect_ok(bft_replace(engine_tree(f, "t", 512), key, NULL, &one));
    expect_ok(bft_replace(engine_tree(f, "t", 512), key, &one, &two));
    engine_crash(f, BFTI_SIM_DROP, 1);
    check_value(engine_tree(f, "t", 512), key, "2", 1);
    engine_fixture_free(f);
}

static void odd_arguments_are_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    static uint8_t bytes[BFT_KEY_MAX + 1];
    bft_slice one = slice("1"), bad = {NULL, 1}, empty = {NULL, 0};
    (void)state;
    expect_status(BFT_INVALID, bft_replace(tree, one, NULL, NULL));
    expect_status(BFT_INVALID, bft_replace(tree, one, &bad, &one));
    expect_status(BFT_INVALID, bft_replace(tree, one, NULL, &bad));
    expect_status(BFT_INVALID, bft_replace(tree, empty, NULL, &one));
    expect_status(BFT_INVALID, bft_replace(NULL, one, NULL, &one));
    expect_status(
        BFT_TOO_BIG,
        bft_replace(tree, (bft_slice){bytes, sizeof(bytes)}, NULL, &one));
    expect_ok(bft_replace(tree, one, NULL, &empty));
    expect_ok(bft_replace(tree, one, &empty, &one));
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_status(BFT_GONE, bft_replace(tree, one, &one, NULL));
    engine_fixture_free(f);
}

/* --- threads ---------------------------------------------------------------- */

struct adder {
    bft_tree *tree;
    size_t len; /* of the counters' values */
    unsigned number;
    pthread_t thread;
};

static bft_slice counter_key(char text[16], unsigned n)
{
    int len = snprintf(text, 16, "counter %u", n);
    return (bft_slice){text, (size_t)len};
}

static bft_slice counter_value(uint8_t *buf, size_t len, uint64_t n)
{
    fill(buf, len, (unsigned)n);
    memcpy(buf, &n, sizeof(n));
    return (bft_slice){buf, len};
}

static void *add_main(void *arg)
{
    struct adder *adder = arg;
    uint8_t *from = malloc(adder->len), *to = malloc(adder->len);
    for (unsigned i = 0; i < EACH; i++) {
        char text[16];
        bft_slice key = counter_key(text, (i + adder->number) % COUNTERS);
        bft_status status = BFT_CONFLICT;
        while (status == BFT_CONFLICT) {
            bft_slice now, next;
            uint64_t n;
            size_t len;
            status = bft_get(adder->tree, key, from, adder->len, &len);
            if (status != BFT_OK)
                break;
            memcpy(&n, from, sizeof(n));
            now = (bft_slice){from, len};
            next = counter_value(to, adder->len, n + 1);
            status = bft_replace(adder->tree, key, &now, &next);
        }
        if (status != BFT_OK)
            abort();
        if (i % 50 == 0 && bft_checkpoint(bft_tree_db(adder->tree)) != BFT_OK)
            abort();
    }
    free(from);
    free(to);
    return NULL;
}

/* Nothing comes between: no increment is lost. */
static void count_with_threads(size_t len)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    uint8_t *buf = malloc(len);
    struct adder adder[THREADS];
    uint64_t sum = 0;
    char text[16];
    for (unsigned i = 0; i < COUNTERS; i++)
        expect_ok(
            bft_put(tree, counter_key(text, i), counter_value(buf, len, 0)));
    for (unsigned i = 0; i < THREADS; i++) {
        adder[i] = (struct adder){.tree = tree, .len = len, .number = i};
        assert_int_equal(
            0, pthread_create(&adder[i].thread, NULL, add_main, &adder[i]));
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(adder[i].thread, NULL);
    for (unsigned i = 0; i < COUNTERS; i++) {
        uint64_t n;
        size_t got;
        expect_ok(bft_get(tree, counter_key(text, i), buf, len, &got));
        memcpy(&n, buf, sizeof(n));
        sum += n;
    }
    assert_int_equal(THREADS * EACH, sum);
    expect_ok(bft_verify(f->db));
    free(buf);
    engine_fixture_free(f);
}

static void threads_that_add_to_one_record_lose_nothing(void **state)
{
    (void)state;
    count_with_threads(40);
}

static void the_same_with_values_outside_the_leaf(void **state)
{
    (void)state;
    count_with_threads(2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_replaced_only_if_it_is_the_expected_one),
        cmocka_unit_test(absence_is_expected_too),
        cmocka_unit_test(a_replacement_survives_what_a_put_survives),
        cmocka_unit_test(odd_arguments_are_refused),
        cmocka_unit_test(threads_that_add_to_one_record_lose_nothing),
        cmocka_unit_test(the_same_with_values_outside_the_leaf),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
