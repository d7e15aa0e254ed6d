/*
 * Leaves that have become small are absorbed, whatever size leaves have: also
 * where a leaf of little content takes as many grains on disk as a full one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"

enum { KEYS = 4000, KEPT = 40, ROUNDS = 100 };

static bft_slice key_of(char text[32], unsigned k)
{
    return (bft_slice){text, (size_t)snprintf(text, 32, "key-%07u", k)};
}

static void put_all(bft_tree *tree, const void *bytes, size_t len)
{
    char text[32];
    for (unsigned k = 0; k < KEYS; k++)
        expect_ok(bft_put(tree, key_of(text, k), (bft_slice){bytes, len}));
}

static void delete_most(bft_tree *tree)
{
    char text[32];
    for (unsigned k = 0; k < KEYS; k++)
        if (k % KEPT)
            expect_ok(bft_delete(tree, key_of(text, k)));
}

static void check_kept(bft_tree *tree, const void *bytes, size_t len)
{
    uint8_t got[512];
    char text[32];
    size_t got_len;
    for (unsigned k = 0; k < KEYS; k++) {
        bft_status status =
            bft_get(tree, key_of(text, k), got, sizeof(got), &got_len);
        if (k % KEPT) {
            expect_status(BFT_NOT_FOUND, status);
            continue;
        }
        expect_ok(status);
        assert_int_equal(len, got_len);
        assert_memory_equal(bytes, got, len);
    }
}

/* Checkpoints run the steps of the background; until they find no more to do. */
static void settle(struct engine_fixture *f)
{
    uint64_t before = 0;
    for (int i = 0; i < ROUNDS && before != engine_stats(f).leaf_merges + 1;
         i++) {
        before = engine_stats(f).leaf_merges + 1;
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_checkpoint(f->db));
    }
}

static void emptied_leaves_are_absorbed(void **state)
{
    static const uint32_t leaf[] = {512, 1024, 1536, 2048, 4096};
    (void)state;
    for (size_t i = 0; i < sizeof(leaf) / sizeof(*leaf); i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        size_t len = leaf[i] < 1024 ? 30 : 90;
        uint8_t bytes[512];
        uint64_t before;
        bft_tree *tree;
        memset(bytes, (int)i + 1, sizeof(bytes));
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", leaf[i]);
        put_all(tree, bytes, len);
        expect_ok(bft_checkpoint(f->db));
        before = engine_stats(f).leaves;
        delete_most(tree);
        settle(f);
        print_message("%u bytes: %llu leaves, then %llu\n", leaf[i],
                      (unsigned long long)before,
                      (unsigned long long)engine_stats(f).leaves);
        assert_true(engine_stats(f).leaves * 3 < before);
        check_kept(tree, bytes, len);
        expect_ok(bft_verify(f->db));
        engine_reopen(f);
        check_kept(engine_tree(f, "t", 0), bytes, len);
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emptied_leaves_are_absorbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
