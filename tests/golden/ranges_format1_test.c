/*
 * A database, format 1, with ranges that were deleted while their records are in the
 * leaves still: pieces in the catalogue, with the feature bit that says so, and in
 * the log a range, and parts that were cleared of both.  What an earlier version
 * wrote stays readable.
 *
 * BFT_GOLDEN_OUT=DIR writes the image anew, of the version under test.  That is for
 * a new format, beside the old image: an old one is never replaced.
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
#include "golden_image.h"

enum {
    RECORDS = 500,
    LOW = 20,
    HIGH = 260,
    MIDDLE = 200,
    LATE = 300,
    END = 480
};

static bft_slice key_of(char text[24], unsigned n)
{
    int len = snprintf(text, 24, "record %06u", n);
    return (bft_slice){text, (size_t)len};
}

static void put(bft_tree *tree, unsigned n, const char *value)
{
    char text[24];
    expect_ok(
        bft_put(tree, key_of(text, n), (bft_slice){value, strlen(value)}));
}

/* In few frames. */
static void fill(struct engine_fixture *f, bft_tree *tree)
{
    bft_batch *batch;
    char text[24];
    expect_ok(bft_batch_create(f->db, &batch));
    for (unsigned n = 0; n < RECORDS; n++) {
        expect_ok(
            bft_batch_put(batch, tree, key_of(text, n), (bft_slice){"old", 3}));
        if (n % 100 == 99)
            expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    }
    bft_batch_free(batch);
}

static void delete_range(bft_tree *tree, unsigned low, unsigned high)
{
    char from[24], to[24];
    expect_ok(
        bft_delete_range(tree, key_of(from, low), key_of(to, high), NULL));
}

static void write_database(const void *ctx, const char *to)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    bft_tree *tree;
    (void)ctx;
    f->options.no_threads = true;
    engine_seed(f, 1);
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    fill(f, tree);
    delete_range(tree, LOW, HIGH);
    expect_ok(bft_checkpoint(f->db));
    put(tree, MIDDLE, "new");
    delete_range(tree, LATE, END);
    put(tree, LATE, "new");
    expect_ok(bft_sync(f->db));
    golden_image_write(to, f);
    engine_fixture_free(f);
}

static const char *value_of(unsigned n)
{
    if (n == MIDDLE || n == LATE)
        return "new";
    return (n >= LOW && n < HIGH) || (n >= LATE && n < END) ? NULL : "old";
}

static void check_all(struct engine_fixture *f)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    uint64_t count, there = 0;
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, "t", &o, &tree));
    for (unsigned n = 0; n < RECORDS; n++) {
        const char *want = value_of(n);
        char text[24], got[8];
        size_t len;
        expect_status(want ? BFT_OK : BFT_NOT_FOUND,
                      bft_get(tree, key_of(text, n), got, sizeof(got), &len));
        if (want)
            assert_memory_equal(want, got, 3);
        there += want != NULL;
    }
    expect_ok(
        bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0}, &count));
    assert_int_equal(there, count);
}

/* The image has what it is there for. */
static void check_image(const struct engine_fixture *f)
{
    const struct bfti_engine *engine = f->db->engine;
    bool left = false;
    assert_true(engine->superblock.must_know & BFTI_FEATURE_TOMBS);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        left = left || atomic_load(&t->tombs) != NULL;
    assert_true(left);
}

static void check_database(const void *ctx, struct engine_fixture *f)
{
    (void)ctx;
    f->options.read_only = true;
    engine_open(f);
    check_image(f);
    expect_ok(bft_verify(f->db));
    check_all(f);
    engine_close(f);
    f->options.read_only = false;
    engine_open(f);
    expect_ok(bft_verify(f->db));
    check_all(f);
    engine_reopen(f);
    expect_ok(bft_verify(f->db));
    check_all(f);
}

static void deleted_ranges_are_read(void **state)
{
    (void)state;
    golden_image_test(&(struct golden_image){
        "ranges_format1.txt", write_database, check_database, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deleted_ranges_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
