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
#include "numbered_key.h"

enum { LONGEST = 255, WRITES = 3000, RECORDS = 300, KEY = 200 };

static const bft_slice NONE = {NULL, 0};

static const char *name_of(char name[LONGEST + 1], unsigned n)
{
    memset(name, 'n', LONGEST);
    name[LONGEST] = 0;
    (void)snprintf(name, 8, "%06u", n);
    name[6] = '-';
    return name;
}

/* How many there may be. */
static unsigned fill(struct engine_fixture *f)
{
    char name[LONGEST + 1];
    unsigned n = 0;
    bft_tree *tree;
    bft_status status;
    while ((status = bft_tree_open(f->db, name_of(name, n), NULL, &tree)) ==
           BFT_OK)
        n++;
    expect_status(BFT_TOO_BIG, status);
    return n;
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

static bft_slice long_key(char key[KEY + 1], unsigned n)
{
    memset(key, 'k', KEY);
    (void)snprintf(key + KEY - 8, 9, "%08u", n);
    return (bft_slice){key, KEY};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_too_many_is_refused_and_all_goes_on),
        cmocka_unit_test(deleted_ranges_are_kept_to_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
