/*
 * A database, format 1, with leaves that were compressed with a dictionary of
 * their tree: its extent, the catalogue's entry that names it, and the feature bit
 * that says so.  What an earlier version wrote stays readable.
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

#include "golden_image.h"
#include "phrases.h"

enum { RECORDS = 60, LATE = 7, LEAF = 2048 };

static void put(bft_tree *tree, uint64_t n, uint64_t version)
{
    struct phrases p;
    phrases_make(&p, n, version);
    expect_ok(bft_put(tree, phrases_key(&p), phrases_value(&p)));
}

static void write_database(const void *ctx, const char *to)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    bft_tree *tree;
    (void)ctx;
    f->options.no_threads = true;
    f->options.compress = true;
    f->eager = true;
    engine_seed(f, 1);
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (uint64_t version = 1; version < 3; version++) {
        for (uint64_t n = 0; n < RECORDS; n += version)
            put(tree, n, version);
        expect_ok(bft_checkpoint(f->db));
    }
    put(tree, LATE, 3);
    expect_ok(bft_sync(f->db));
    golden_image_write(to, f);
    engine_fixture_free(f);
}

/* The image has what it is there for. */
static void check_image(const struct engine_fixture *f)
{
    bft_stats stats = {.size = sizeof(stats)};
    assert_true(f->db->engine->superblock.must_know &
                BFTI_FEATURE_DICTIONARIES);
    expect_ok(bft_stats_read(f->db, &stats));
    assert_int_equal(1, stats.dictionaries);
}

static void check_all(struct engine_fixture *f)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, "t", &o, &tree));
    for (uint64_t n = 0; n < RECORDS; n++) {
        struct phrases p;
        char got[sizeof(p.value)];
        size_t len;
        phrases_make(&p, n, n == LATE ? 3 : 2 - n % 2);
        expect_ok(bft_get(tree, phrases_key(&p), got, sizeof(got), &len));
        assert_int_equal(sizeof(got), len);
        assert_memory_equal(p.value, got, len);
    }
}

/* A build without zstd says which file asks for it, and where. */
static void check_refused(struct engine_fixture *f)
{
    char text[512];
    expect_status(BFT_UNSUPPORTED, engine_open_status(f));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "compressed, and this build has no zstd"));
    assert_non_null(strstr(text, "/data"));
}

static void check_database(const void *ctx, struct engine_fixture *f)
{
    (void)ctx;
    for (int i = 0; i < 3; i++) {
        f->options.read_only = i == 0;
        f->options.compress = i == 2;
        if (!BFT_WITH_ZSTD) {
            check_refused(f);
            continue;
        }
        engine_open(f);
        check_image(f);
        expect_ok(bft_verify(f->db));
        check_all(f);
        engine_close(f);
    }
}

static void leaves_with_a_dictionary_are_read_or_refused(void **state)
{
    (void)state;
    golden_image_test(&(struct golden_image){
        "dictionary_format1.txt", write_database, check_database, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_with_a_dictionary_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
