/*
 * As many trees as there may be: an image has the names of all of them in one piece.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/pagefile_internal.h"
#include "numbered_key.h"
#include "phrases.h"

enum {
    LONGEST = 255,
    WITH = 200, /* trees with dictionaries */
    WRITES = 3000,
    RECORDS = 300,
    KEY = 200,
    RANGES = 64, /* of longer keys: with many pieces each one more takes long */
    WIDE = 1000,
};

static const bft_slice NONE = {NULL, 0};

static const char *name_of(char name[LONGEST + 1], unsigned n)
{
    memset(name, 'n', LONGEST);
    name[LONGEST] = 0;
    (void)snprintf(name, 8, "%06u", n);
    name[6] = '-';
    return name;
}

/* How many there may be, of which N are there. */
static unsigned fill_from(struct engine_fixture *f, unsigned n)
{
    char name[LONGEST + 1];
    bft_tree *tree;
    bft_status status;
    while ((status = bft_tree_open(f->db, name_of(name, n), NULL, &tree)) ==
           BFT_OK)
        n++;
    expect_status(BFT_TOO_BIG, status);
    return n;
}

static unsigned fill(struct engine_fixture *f)
{
    return fill_from(f, 0);
}

static struct engine_fixture *open_roomy(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->options.memory_bytes = 16 << 20;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    return f;
}

static void one_too_many_is_refused_and_all_goes_on(void **state)
{
    struct engine_fixture *f = open_roomy();
    char name[LONGEST + 1], value[100] = "a value";
    bft_tree *tree, *other;
    unsigned trees;
    uint64_t count;
    (void)state;
    tree = engine_tree(f, "t", 512);
    trees = fill(f);
    assert_true(trees > 1500);
    expect_ok(bft_checkpoint(f->db));
    /* Nor may a name grow. */
    expect_status(BFT_TOO_BIG,
                  bft_tree_rename(f->db, "t", name_of(name, trees)));
    expect_ok(bft_tree_rename(f->db, name_of(name, 0), "s"));
    expect_ok(bft_tree_rename(f->db, "s", name_of(name, 0)));
    for (unsigned n = 0; n < WRITES; n++) {
        struct text text;
        expect_ok(
            bft_put(tree, key_of(&text, n), (bft_slice){value, sizeof(value)}));
    }
    expect_ok(bft_tree_truncate(f->db, name_of(name, 1)));
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    expect_status(BFT_TOO_BIG,
                  bft_tree_open(f->db, name_of(name, trees), NULL, &other));
    tree = engine_tree(f, "t", 0);
    expect_ok(bft_count(tree, NONE, NONE, &count));
    assert_int_equal(WRITES, count);
    /* What goes makes room. */
    expect_ok(bft_tree_drop(f->db, name_of(name, 2)));
    expect_ok(bft_tree_open(f->db, name_of(name, trees), NULL, &other));
    engine_fixture_free(f);
}

static bft_slice key_with(char *key, size_t len, unsigned n)
{
    memset(key, 'k', len);
    (void)snprintf(key + len - 8, 9, "%08u", n);
    return (bft_slice){key, len};
}

static bft_slice long_key(char key[KEY + 1], unsigned n)
{
    return key_with(key, KEY, n);
}

/* A byte of each page of the tree is wrong. */
static void damage(struct engine_fixture *f, const bft_tree *handle)
{
    uint32_t id = atomic_load(&handle->tree)->id;
    uint64_t bytes;
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_BLOCK) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got == sizeof(head) && head.type == BFTI_EXTENT_LEAF &&
            le32_get(head.tree_id) == id)
            expect_ok(
                bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
    }
}

/* What ranges that were deleted need, and what lies in them cannot be taken away, is
 * less then, and is kept to. */
static void deleted_ranges_are_kept_to_what_is_left(void **state)
{
    struct engine_fixture *f = open_roomy();
    char key[KEY + 1], to[KEY + 1];
    bft_status status = BFT_OK;
    unsigned n;
    bft_tree *tree;
    (void)state;
    tree = engine_tree(f, "t", 32768);
    for (n = 0; n < 2 * RECORDS; n++)
        expect_ok(bft_put(tree, long_key(key, n), NONE));
    (void)fill(f);
    f->tolerated = BFT_CORRUPT;
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    damage(f, tree);
    for (n = 0; n < RECORDS && status == BFT_OK; n++)
        status = bft_delete_range(tree, long_key(key, 2 * n),
                                  long_key(to, 2 * n + 1), NULL);
    expect_status(BFT_NO_MEMORY, status);
    assert_true(n > 30);
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    expect_status(BFT_NO_MEMORY,
                  bft_delete_range(tree, long_key(key, 2 * n),
                                   long_key(to, 2 * n + 1), NULL));
    engine_fixture_free(f);
}

/* The other way round: what ranges take is not there for names. */
static void names_leave_deleted_ranges_what_they_have(void **state)
{
    struct engine_fixture *f = open_roomy();
    char key[WIDE + 1], to[WIDE + 1], name[LONGEST + 1];
    bft_status status = BFT_OK;
    bft_tree *tree, *other;
    unsigned n, trees;
    (void)state;
    tree = engine_tree(f, "t", 32768);
    for (n = 0; n < 2 * RANGES; n++)
        expect_ok(bft_put(tree, key_with(key, WIDE, n), NONE));
    f->tolerated = BFT_CORRUPT;
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    damage(f, tree);
    for (n = 0; n < RANGES && status == BFT_OK; n++)
        status = bft_delete_range(tree, key_with(key, WIDE, 2 * n),
                                  key_with(to, WIDE, 2 * n + 1), NULL);
    expect_ok(status);
    trees = fill(f);
    assert_true(trees > 500);
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    expect_status(BFT_TOO_BIG,
                  bft_tree_open(f->db, name_of(name, trees), NULL, &other));
    engine_fixture_free(f);
}

/* --- dictionaries ---------------------------------------------------------- */

static struct engine_fixture *open_compressing(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->options.memory_bytes = 64 << 20;
    f->options.log_bytes = 16 << 20;
    f->options.leaf_bytes = 8192;
    f->options.compress = true;
    f->eager = true;
    engine_open(f);
    return f;
}

static uint64_t dictionaries_of(bft_tree *tree)
{
    bft_tree_stats stats = {.size = sizeof(stats)};
    expect_ok(bft_tree_stats_read(tree, &stats));
    return stats.dictionaries;
}

/* Written, and a dictionary made of it, if there may be one. */
static void write_phrases(struct engine_fixture *f, bft_tree *tree)
{
    for (uint64_t round = 1; round <= 2; round++) {
        for (uint64_t n = 0; n < WRITES; n++) {
            struct phrases p;
            phrases_make(&p, n, round);
            expect_ok(bft_put(tree, phrases_key(&p), phrases_value(&p)));
        }
        expect_ok(bft_checkpoint(f->db));
    }
}

static void none_is_made_that_the_names_have_no_room_for(void **state)
{
    struct engine_fixture *f = open_compressing();
    char name[LONGEST + 1];
    bft_tree *tree, *later, *other;
    bft_status status = BFT_OK;
    (void)state;
    tree = engine_tree(f, "t", 8192);
    later = engine_tree(f, "later", 8192);
    (void)fill(f);
    for (unsigned n = 0; status == BFT_OK; n++) {
        (void)snprintf(name, sizeof(name), "%u", n);
        status = bft_tree_open(f->db, name, NULL, &other);
    }
    expect_status(BFT_TOO_BIG, status);
    write_phrases(f, tree);
    assert_int_equal(0, dictionaries_of(tree));
    expect_ok(bft_tree_drop(f->db, name_of(name, 0)));
    for (unsigned i = 0; i < 20 && dictionaries_of(later) == 0; i++)
        write_phrases(f, later);
    assert_true(dictionaries_of(later) > 0);
    expect_status(BFT_TOO_BIG,
                  bft_tree_open(f->db, name_of(name, 0), NULL, &tree));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* RAW is one of tree ID's from now on, as if a checkpoint had made it. */
static void give_dictionary(struct engine_fixture *f, const void *raw,
                            size_t len, uint32_t id)
{
    struct bfti_pagefile *pf = f->db->engine->buffer.pf;
    struct bfti_extent_info info = {BFTI_EXTENT_DICTIONARY, id, 1, 0};
    struct bfti_scratch scratch = {.raw = NULL};
    uint64_t place;
    expect_ok(bfti_extent_write(pf, &info, raw, len, &place));
    bfti_extent_link(pf, place, 0);
    expect_ok(bfti_codec_load(pf, id, &place, 1, &scratch));
    bfti_scratch_free(&f->env, &scratch);
}

/* The first of tree ID's, which has some. */
static size_t take_dictionary(struct engine_fixture *f, uint32_t id, void *raw,
                              size_t room)
{
    struct bfti_pagefile *pf = f->db->engine->buffer.pf;
    uint64_t places[BFTI_DICTIONARIES_MAX];
    struct bfti_scratch scratch = {.raw = NULL};
    struct bfti_extent_info info;
    const void *bytes;
    size_t len;
    assert_true(bfti_codec_places(pf, id, false, places) > 0);
    expect_ok(bfti_extent_read(pf, places[0], &scratch, &info, &bytes, &len));
    assert_true(len <= room);
    memcpy(raw, bytes, len);
    bfti_scratch_free(&f->env, &scratch);
    return len;
}

static void trees_that_have_some_leave_room_for_fewer(void **state)
{
    static uint8_t raw[1 << 17];
    struct engine_fixture *f = open_compressing();
    char name[LONGEST + 1];
    bft_tree *tree;
    unsigned plain;
    uint32_t id;
    size_t len;
    (void)state;
    tree = engine_tree(f, "t", 8192);
    write_phrases(f, tree);
    expect_ok(bft_tree_id(tree, &id));
    len = take_dictionary(f, id, raw, sizeof(raw));
    plain = fill(f);
    for (unsigned n = 0; n < plain; n++)
        expect_ok(bft_tree_drop(f->db, name_of(name, n)));
    for (unsigned n = 0; n < WITH; n++) {
        tree = engine_tree(f, name_of(name, n), 8192);
        expect_ok(bft_tree_id(tree, &id));
        give_dictionary(f, raw, len, id);
    }
    assert_in_range(fill_from(f, WITH), plain - WITH / 4, plain - WITH / 10);
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_too_many_is_refused_and_all_goes_on),
        cmocka_unit_test(deleted_ranges_are_kept_to_what_is_left),
        cmocka_unit_test(names_leave_deleted_ranges_what_they_have),
    };
    const struct CMUnitTest compressed[] = {
        cmocka_unit_test(none_is_made_that_the_names_have_no_room_for),
        cmocka_unit_test(trees_that_have_some_leave_room_for_fewer),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return BFT_WITH_ZSTD
               ? failed + cmocka_run_group_tests(compressed, NULL, NULL)
               : failed;
}
