/*
 * A database, format 1, whose short extents share blocks: leaves of 512 bytes,
 * values outside of them, inner nodes and a catalogue; the lists of its map,
 * and the feature bit that says so.  Some grains of these blocks its image does
 * not reach. What an earlier version wrote stays readable, and can be gone on
 * with.
 *
 * BFT_GOLDEN_OUT=DIR writes the image anew, as for database_format1_test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/pagefile_internal.h"
#include "golden_image.h"

enum { RECORDS = 60, LONG_ONES = 9, LONG = 700, LATE = 5 };

static bft_slice key_of(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "key-%03u", n)};
}

/* Long ones are nearly all zeros, for the sake of the image. */
static bft_slice value_of(unsigned n, unsigned version)
{
    static uint8_t bytes[LONG * 2];
    size_t len = n < LONG_ONES ? LONG + n * 70 : 20;
    memset(bytes, 0, sizeof(bytes));
    bytes[0] = (uint8_t)n;
    bytes[len - 1] = (uint8_t)version;
    return (bft_slice){bytes, len};
}

static void put(bft_tree *tree, unsigned n, unsigned version)
{
    char text[16];
    expect_ok(bft_put(tree, key_of(text, n), value_of(n, version)));
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
    for (unsigned version = 1; version < 4; version++) {
        for (unsigned n = 0; n < RECORDS; n += version)
            put(tree, n, version);
        expect_ok(bft_checkpoint(f->db));
    }
    put(tree, LATE, 4);
    expect_ok(bft_sync(f->db));
    golden_image_write(to, f);
    engine_fixture_free(f);
}

static unsigned version_of(unsigned n)
{
    if (n == LATE)
        return 4;
    return n % 3 == 0 ? 3 : n % 2 == 0 ? 2 : 1;
}

/* The image has what it is there for. */
static void check_image(const struct engine_fixture *f)
{
    const struct bfti_space *space = &f->db->engine->buffer.pf->space;
    uint64_t place;
    unsigned several = 0;
    assert_true(f->db->engine->superblock.must_know & BFTI_FEATURE_SHARED);
    assert_int_equal(1,
                     bfti_space_lists(f->db->engine->buffer.pf, 0, &place, 1));
    for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
        several += __builtin_popcount(space->chunk[0]->shares->used[i]) > 3;
    assert_true(several > 1);
}

static void check_all(struct engine_fixture *f)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, "t", &o, &tree));
    for (unsigned n = 0; n < RECORDS; n++) {
        bft_slice want = value_of(n, version_of(n));
        uint8_t got[LONG * 2];
        char text[16];
        size_t len;
        expect_ok(bft_get(tree, key_of(text, n), got, sizeof(got), &len));
        assert_int_equal(want.len, len);
        assert_memory_equal(want.data, got, len);
    }
}

static void change_and_check(struct engine_fixture *f)
{
    bft_tree *tree = engine_tree(f, "t", 512);
    for (unsigned n = 0; n < RECORDS; n++)
        put(tree, n, version_of(n));
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_verify(f->db));
    check_all(f);
}

static void check_database(const void *ctx, struct engine_fixture *f)
{
    (void)ctx;
    for (int i = 0; i < 3; i++) {
        f->options.read_only = i == 0;
        engine_open(f);
        check_image(f);
        expect_ok(bft_verify(f->db));
        check_all(f);
        if (i > 0)
            change_and_check(f);
        engine_close(f);
    }
}

static void shared_blocks_are_read_and_gone_on_with(void **state)
{
    (void)state;
    golden_image_test(&(struct golden_image){
        "shared_format1.txt", write_database, check_database, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_blocks_are_read_and_gone_on_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
