/*
 * The same volume inserted and deleted twenty times leaves the file and memory
 * where one time leaves them: bytes are counted, not time.
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

enum { ROUNDS = 20, KEYS = 12000, LEAF = 1024, VALUE = 100, STEPS = 40 };

/* What there is after a round. */
struct left {
    uint64_t live, held, file, given, leaves, memory;
};

static bft_slice key_of(char buf[16], unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
    return key;
}

static struct bfti_rec *rec_of(struct engine_fixture *f)
{
    return bfti_rec_current(f->db->engine->buffer.threads);
}

/* What background threads would do by and by. */
static void settle(struct engine_fixture *f)
{
    struct bfti_engine *engine = f->db->engine;
    expect_ok(bft_checkpoint(f->db));
    for (unsigned i = 0; i < STEPS; i++) {
        bool more = true;
        bfti_background_run(engine, rec_of(f));
        while (more)
            expect_ok(bfti_clean(engine, rec_of(f), 1 << 20, true, &more));
    }
}

static struct left left_by(struct engine_fixture *f)
{
    bft_stats stats = engine_stats(f);
    struct left left = {.live = stats.live_bytes,
                        .held = stats.held_bytes,
                        .file = stats.file_bytes,
                        .given = stats.file_bytes - stats.hole_bytes,
                        .leaves = stats.leaves,
                        .memory = engine_env_bytes(f)};
    return left;
}

static void put_all(bft_tree *tree, unsigned factor, size_t value_len)
{
    uint8_t *value = calloc(1, value_len);
    char kbuf[16];
    assert_non_null(value);
    for (unsigned i = 0; i < KEYS; i++)
        expect_ok(bft_put(tree, key_of(kbuf, i * factor % KEYS),
                          (bft_slice){value, value_len}));
    free(value);
}

static void delete_all(bft_tree *tree, unsigned factor)
{
    char kbuf[16];
    for (unsigned i = 0; i < KEYS; i++)
        expect_ok(bft_delete(tree, key_of(kbuf, i * factor % KEYS)));
}

static void round_of(struct engine_fixture *f, unsigned round)
{
    /* Ascending, descending, and all over the place. */
    static const unsigned factor[] = {1, KEYS - 1, 7, 4999};
    bft_tree *tree = engine_tree(f, "t", LEAF);
    put_all(tree, factor[round % 4], VALUE);
    delete_all(tree, factor[round / 4 % 4]);
    settle(f);
}

static void expect_no_more(const char *what, uint64_t first, uint64_t now,
                           uint64_t slack)
{
    if (now > first + first / 8 + slack)
        fail_msg("%s: %llu bytes after the first round, %llu after the last",
                 what, (unsigned long long)first, (unsigned long long)now);
}

static void run(uint64_t memory,
                void (*round)(struct engine_fixture *f, unsigned n))
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct left first, now;
    f->options.memory_bytes = memory;
    f->options.log_bytes = 2 << 20;
    f->options.no_threads = true;
    engine_open(f);
    round(f, 0);
    first = left_by(f);
    /* One round leaves next to nothing itself. */
    assert_true(first.live < 256 << 10);
    assert_true(first.leaves <= 8);
    for (unsigned i = 1; i < ROUNDS; i++)
        round(f, i);
    now = left_by(f);
    print_message(
        "           live %llu, %llu; file %llu, %llu; given %llu, "
        "%llu; memory %llu, %llu\n",
        (unsigned long long)first.live, (unsigned long long)now.live,
        (unsigned long long)first.file, (unsigned long long)now.file,
        (unsigned long long)first.given, (unsigned long long)now.given,
        (unsigned long long)first.memory, (unsigned long long)now.memory);
    expect_no_more("live", first.live, now.live, 64 << 10);
    expect_no_more("held", first.held, now.held, 64 << 10);
    /* A file may keep a MiB in spare; what a round goes through is several. */
    expect_no_more("file", first.file, now.file, 1 << 20);
    expect_no_more("given", first.given, now.given, 1 << 20);
    expect_no_more("leaves", first.leaves, now.leaves, 8);
    expect_no_more("memory", first.memory, now.memory, 64 << 10);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void inserted_and_deleted_twenty_times(void **state)
{
    (void)state;
    run(512 << 10, round_of);
}

/* What merges leave cached, that records are gone, keeps no leaf alive. */
static void the_same_where_all_fits_in_memory(void **state)
{
    (void)state;
    run(16 << 20, round_of);
}

/* Trees that are filled and dropped. */
static void round_of_trees(struct engine_fixture *f, unsigned round)
{
    put_all(engine_tree(f, "passes", LEAF), round % 2 ? 7 : 1, VALUE);
    expect_ok(bft_tree_drop(f->db, "passes"));
    settle(f);
}

static void filled_and_dropped_twenty_times(void **state)
{
    (void)state;
    run(512 << 10, round_of_trees);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inserted_and_deleted_twenty_times),
        cmocka_unit_test(the_same_where_all_fits_in_memory),
        cmocka_unit_test(filled_and_dropped_twenty_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
