/*
 * The real surroundings, as they are in every build, and what is not there in
 * one without threads.  env_test.c has threads, processes and signals.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bftree.h"
#include "bftree_feed.h"
#include "fileio/fileio.h"

static const struct bfti_env *env;

static void wait_returns_when_there_is_nothing_to_wait_for(void **state)
{
    _Atomic uint32_t word = 7;

    (void)state;
    env->wait(env->ctx, &word, 6, UINT64_MAX);
    env->wait(env->ctx, &word, 7, 1000);
    env->wait(env->ctx, &word, 7, 0);
}

static void blocks_are_aligned_and_keep_their_bytes(void **state)
{
    static const size_t sizes[] = {0, 1, 8, 9, 16, 24, 100, 4096, 1 << 20};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = sizes[i];
        unsigned char *block = bfti_alloc(env, size);

        assert_non_null(block);
        assert_int_equal(0, (uintptr_t)block % 16);
        memset(block, 0x5a, size);
        block = bfti_realloc(env, block, size + 1000);
        assert_non_null(block);
        assert_int_equal(0, (uintptr_t)block % 16);
        for (size_t j = 0; j < size; j++)
            assert_int_equal(0x5a, block[j]);
        block = bfti_realloc(env, block, 0);
        assert_non_null(block);
        bfti_free(env, block);
    }
    bfti_free(env, NULL);
    bfti_free(env, bfti_realloc(env, NULL, 10));
}

static void time_does_not_run_backwards(void **state)
{
    uint64_t last = env->now_ns(env->ctx);

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = env->now_ns(env->ctx);

        assert_true(now >= last);
        last = now;
    }
    /* 2020: the clock of the wall is not the other one. */
    assert_true(env->wall_ms(env->ctx) > 1577836800000u);
}

enum { NUMBERS = 1000 };

static int compare_numbers(const void *one, const void *two)
{
    uint64_t a = *(const uint64_t *)one;
    uint64_t b = *(const uint64_t *)two;

    return a < b ? -1 : a > b;
}

static void no_number_is_drawn_twice(void **state)
{
    static uint64_t numbers[NUMBERS];

    (void)state;
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = env->random(env->ctx);
    qsort(numbers, NUMBERS, sizeof(numbers[0]), compare_numbers);
    for (int i = 1; i < NUMBERS; i++)
        assert_true(numbers[i - 1] != numbers[i]);
}

#if !BFT_WITH_THREADS

static void nobody_is_waited_for(void **state)
{
    _Atomic uint32_t word = 7;

    (void)state;
    assert_true(env->thread_start == NULL);
    env->wait(env->ctx, &word, 7, UINT64_MAX - 1); /* 584 years */
}

static void expect_refused(const char *words)
{
    char text[200];

    (void)bft_last_error(text, sizeof(text));
    assert_string_equal(words, text);
}

static void files_of_the_system_are_refused(void **state)
{
    bft_options options = {.size = sizeof(options)};
    struct bfti_file *file;
    bft_db *db;

    (void)state;
    for (int b = BFT_BACKEND_DEFAULT; b <= BFT_BACKEND_URING; b++) {
        options.backend = (bft_backend)b;
        options.storage = BFT_STORAGE_FILES;
        assert_int_equal(BFT_UNSUPPORTED, bft_open("birds", &options, &db));
        expect_refused("stat birds: this build has no files of the system's");
        assert_null(db);
    }
    assert_int_equal(BFT_UNSUPPORTED, bfti_vfs_posix()->ops->open(
                                          bfti_vfs_posix(), "wren", 0, &file));
    expect_refused("open wren: this build has no files of the system's");
    assert_null(file);

    options.storage = BFT_STORAGE_MEMORY;
    assert_int_equal(BFT_OK, bft_open("birds", &options, &db));
    assert_int_equal(BFT_OK, bft_close(db));
}

static void a_feed_does_not_wait(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY};
    bft_commit commit;
    bft_feed *feed;
    bft_db *db;

    (void)state;
    assert_int_equal(BFT_OK, bft_open("birds", &options, &db));
    assert_int_equal(BFT_OK, bft_feed_open(db, BFT_FEED_NOW, NULL, &feed));
    assert_int_equal(BFT_NOT_FOUND,
                     bft_feed_next(feed, BFT_FEED_FOREVER, &commit));
    bft_feed_close(feed);
    assert_int_equal(BFT_OK, bft_close(db));
}

#endif

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(wait_returns_when_there_is_nothing_to_wait_for),
        cmocka_unit_test(blocks_are_aligned_and_keep_their_bytes),
        cmocka_unit_test(time_does_not_run_backwards),
        cmocka_unit_test(no_number_is_drawn_twice),
#if !BFT_WITH_THREADS
        cmocka_unit_test(nobody_is_waited_for),
        cmocka_unit_test(files_of_the_system_are_refused),
        cmocka_unit_test(a_feed_does_not_wait),
#endif
    };

    env = bfti_env_system();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
