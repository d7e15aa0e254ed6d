/*
 * Trees that go while something of theirs cannot be read.
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

enum { LONG = 1 << 20, SHORT = 90 };

/* A byte of each list of places in the page file is wrong; how many. */
static unsigned damage_lists(struct engine_fixture *f)
{
    unsigned lists = 0;
    uint64_t bytes;

    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_BLOCK) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got < sizeof(head) || head.type != BFTI_EXTENT_VALUE_LIST ||
            le32_get(head.tree_id) == 0)
            continue;
        expect_ok(
            bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
        lists++;
    }
    return lists;
}

static void put(bft_tree *tree, unsigned n, size_t len)
{
    static uint8_t value[LONG];
    char key[16];

    (void)snprintf(key, sizeof(key), "key %u", n);
    expect_ok(
        bft_put(tree, (bft_slice){key, strlen(key)}, (bft_slice){value, len}));
}

/* Of a leaf that stays behind, because nobody can tell what its large value has,
 * no more is written: a split of it, which its records in memory ask for, would
 * not begin. */
static void a_checkpoint_passes_by_what_a_drop_left(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_slice all = {NULL, 0};
    bft_tree *tree, *other;
    uint64_t count;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    other = engine_tree(f, "other", 512);
    tree = engine_tree(f, "t", 512);
    put(tree, 0, LONG);
    for (unsigned n = 1; n < 4; n++)
        put(tree, n, SHORT);
    expect_ok(bft_checkpoint(f->db));
    assert_true(damage_lists(f) > 0);
    for (unsigned n = 4; n < 8; n++)
        put(tree, n, SHORT);
    put(other, 1, SHORT);
    expect_status(BFT_CORRUPT, bft_tree_drop(f->db, "t"));
    expect_ok(bft_checkpoint(f->db));
    put(other, 2, SHORT);
    expect_ok(bft_checkpoint(f->db));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    engine_reopen(f);
    other = engine_tree(f, "other", 512);
    expect_ok(bft_count(other, all, all, &count));
    assert_int_equal(2, count);
    tree = engine_tree(f, "t", 512); /* another one */
    expect_ok(bft_count(tree, all, all, &count));
    assert_int_equal(0, count);
    /* What is lost is space. */
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_passes_by_what_a_drop_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
