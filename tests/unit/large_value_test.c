/*
 * Values outside the leaf: streamed in, read by ranges, replaced and removed
 * with their space coming back; one of 1 GiB under a budget of 64 MiB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/support/engine_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GREAT_MIB = 64 };
#else
enum { GREAT_MIB = 1024 };
#endif

/* A byte that depends on where it stands and on which value it is in. */
static uint8_t byte_at(uint64_t at, unsigned kind)
{
    return (uint8_t)((at * 2654435761u >> 13) + at / 4096 + kind);
}

struct source {
    uint64_t at;
    unsigned kind;
    uint64_t fail_at; /* UINT64_MAX: never */
};

static bft_status source_read(void *ctx, void *buf, size_t len)
{
    struct source *source = ctx;
    if (source->at >= source->fail_at)
        return BFT_IO;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = byte_at(source->at + i, source->kind);
    source->at += len;
    return BFT_OK;
}

static bft_slice text_slice(const char *text)
{
    bft_slice s = {text, strlen(text)};
    return s;
}

static void put_value(bft_tree *tree, const char *key, uint64_t bytes,
                      unsigned kind)
{
    struct source source = {0, kind, UINT64_MAX};
    expect_ok(
        bft_put_stream(tree, text_slice(key), bytes, source_read, &source));
    assert_int_equal(bytes, source.at);
}

static void check_range(bft_tree *tree, const char *key, uint64_t offset,
                        size_t len, size_t want, unsigned kind)
{
    uint8_t *buf = malloc(len);
    size_t got;
    assert_non_null(buf);
    expect_ok(bft_get_range(tree, text_slice(key), offset, buf, len, &got));
    assert_int_equal(want, got);
    for (size_t i = 0; i < got; i++)
        if (buf[i] != byte_at(offset + i, kind))
            fail_msg("byte %llu of %s is wrong",
                     (unsigned long long)(offset + i), key);
    free(buf);
}

static void ranges_of_values_of_every_size_are_right(void **state)
{
    static const uint64_t sizes[] = {
        0,      1,      100,    1023,   1024,    1025,    4096,    65535,
        200000, 520151, 520152, 520153, 1048576, 1048577, 1100000, 3000000};
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;

    (void)state;
    f->options.memory_bytes = 4 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 4096);
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
            char key[32];
            snprintf(key, sizeof(key), "size%u", i);
            if (round == 0)
                put_value(tree, key, sizes[i], i);
            check_range(tree, key, 0, (size_t)sizes[i] + 10, (size_t)sizes[i],
                        i);
            check_range(tree, key, sizes[i], 10, 0, i);
            if (sizes[i] > 20)
                check_range(tree, key, sizes[i] - 15, 100, 15, i);
            if (sizes[i] > 520140)
                check_range(tree, key, 520130, 40,
                            sizes[i] - 520130 < 40 ? (size_t)(sizes[i] - 520130)
                                                   : 40,
                            i);
        }
        engine_reopen(f);
        tree = engine_tree(f, "t", 4096);
        expect_ok(bft_verify(f->db));
    }
    engine_fixture_free(f);
}

static void a_stream_that_fails_changes_nothing(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 4096);
    struct source broken = {0, 9, 600000};

    (void)state;
    put_value(tree, "k", 300000, 1);
    expect_status(BFT_IO, bft_put_stream(tree, text_slice("k"), 2000000,
                                         source_read, &broken));
    check_range(tree, "k", 0, 300000, 300000, 1);
    engine_reopen(f);
    check_range(engine_tree(f, "t", 4096), "k", 0, 300000, 300000, 1);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void replaced_values_give_their_space_back(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 4096);
    uint64_t after_ten = 0;

    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        put_value(tree, "k", 700000 + i * 1000, i);
        for (int c = 0; c < 3; c++)
            expect_ok(bft_checkpoint(f->db));
        if (i == 9)
            after_ten = engine_stats(f).file_bytes;
    }
    assert_true(engine_stats(f).file_bytes <= after_ten + (1 << 20));
    expect_ok(bft_delete(tree, text_slice("k")));
    for (int c = 0; c < 4; c++) {
        char key[16];
        snprintf(key, sizeof(key), "n%d", c);
        expect_ok(bft_put(tree, text_slice(key), text_slice("v")));
        expect_ok(bft_checkpoint(f->db));
    }
    assert_true(engine_stats(f).live_bytes < 200000);
    engine_fixture_free(f);
}

/* Values of a kilobyte are not worth a file access each: three lie in a leaf. */
/* Though nothing is written after it: redo that starts at the log's end needs none
 * of what went. */
static void the_last_to_go_gives_its_space_back_too(void **state)
{
    (void)state;
    for (uint64_t bytes = 100000; bytes < 4000000; bytes *= 30) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        bft_tree *tree;
        f->options.no_threads = true;
        f->options.memory_bytes = 64 << 20;
        f->options.log_bytes = 64 << 20;
        engine_open(f);
        tree = engine_tree(f, "t", 4096);
        put_value(tree, "a", bytes, 1);
        put_value(tree, "b", bytes, 2);
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_delete(tree, text_slice("a")));
        for (int i = 0; i < 3; i++)
            expect_ok(bft_checkpoint(f->db));
        assert_in_range(engine_stats(f).held_bytes, 0, bytes / 2);
        /* What comes there harms nobody. */
        put_value(tree, "c", bytes, 3);
        engine_crash(f, BFTI_SIM_KILL, 1);
        tree = engine_tree(f, "t", 0);
        check_range(tree, "b", 0, (size_t)bytes, (size_t)bytes, 2);
        check_range(tree, "c", 0, (size_t)bytes, (size_t)bytes, 3);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static void a_kilobyte_lies_in_its_leaf(void **state)
{
    enum { RECORDS = 600, VALUE = 1024, IN_A_LEAF = 3 };
    static uint8_t value[VALUE];
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 4096);
    struct bft_stats stats;

    (void)state;
    for (unsigned i = 0; i < RECORDS; i++) {
        char key[24];
        snprintf(key, sizeof(key), "key %012u", i);
        expect_ok(bft_put(tree, text_slice(key), (bft_slice){value, VALUE}));
    }
    expect_ok(bft_checkpoint(f->db));
    stats = engine_stats(f);
    assert_true(stats.leaves >= RECORDS / IN_A_LEAF);
    assert_true(stats.live_bytes < 2 * RECORDS * VALUE);
    engine_fixture_free(f);
}

static void a_great_value_needs_little_memory(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    uint64_t bytes = (uint64_t)GREAT_MIB << 20;
    struct rusage before, after;
    bft_tree *tree;

    (void)state;
    f->options.memory_bytes = 64 << 20;
    f->options.log_bytes = 64 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 4096);
    getrusage(RUSAGE_SELF, &before);
    put_value(tree, "great", bytes, 3);
    check_range(tree, "great", 0, 100000, 100000, 3);
    check_range(tree, "great", bytes / 2 - 50, 2000000, 2000000, 3);
    check_range(tree, "great", bytes - 7, 100, 7, 3);
    engine_reopen(f);
    tree = engine_tree(f, "t", 4096);
    check_range(tree, "great", bytes / 3, 300000, 300000, 3);
    getrusage(RUSAGE_SELF, &after);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    /* In KiB; the budget and what reading and writing hold. */
    assert_true(after.ru_maxrss - before.ru_maxrss < 80 << 10);
#endif
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_of_values_of_every_size_are_right),
        cmocka_unit_test(a_stream_that_fails_changes_nothing),
        cmocka_unit_test(replaced_values_give_their_space_back),
        cmocka_unit_test(the_last_to_go_gives_its_space_back_too),
        cmocka_unit_test(a_kilobyte_lies_in_its_leaf),
        cmocka_unit_test(a_great_value_needs_little_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
