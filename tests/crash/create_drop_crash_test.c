/* What the crash test found, each by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine_fixture.h"

/* The directory's own name was not synced: all was lost, sync or not. */
static void a_new_database_survives_a_power_cut(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);

    (void)state;
    f->options.must_exist = true;
    engine_crash(f, BFTI_SIM_DROP, 1);
    engine_fixture_free(f);
}

/* Killed after the directory was made and before its name was synced: the next
 * opening, which finds the directory, syncs it. */
static void a_database_made_over_a_killed_attempt_survives_too(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);

    (void)state;
    expect_ok(f->vfs->ops->make_dir(f->vfs, f->path));
    engine_open(f);
    f->options.must_exist = true;
    engine_crash(f, BFTI_SIM_DROP, 1);
    engine_fixture_free(f);
}

/* Without threads a commit runs the checkpoint that is due; the commit of a
 * drop or a creation waited for itself. */
static void trees_come_and_go_while_a_checkpoint_is_due(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint8_t value[100] = {0};

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    for (unsigned i = 0; i < 2000; i++) {
        bft_tree *tree = engine_tree(f, i % 2 ? "odd" : "even", 512);

        expect_ok(bft_put(tree, (bft_slice){"key", 3},
                          (bft_slice){value, sizeof(value)}));
        expect_ok(bft_tree_drop(f->db, i % 2 ? "odd" : "even"));
    }
    assert_true(engine_stats(f).checkpoints > 2);
    engine_fixture_free(f);
}

/* It made nothing before it survive, unless it said `sync` itself. */
static void an_empty_batch_is_a_commit_too(void **state)
{
    static const bft_durability of[] = {BFT_BUFFERED, BFT_DEFAULT, BFT_SYNC};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        bft_batch *batch, *put;
        char value[8];
        size_t len;

        f->options.durability = i == 0 ? BFT_BUFFERED : BFT_SYNC;
        engine_open(f);
        expect_ok(bft_batch_create(f->db, &put));
        expect_ok(bft_batch_put(put, engine_tree(f, "t", 512),
                                (bft_slice){"key", 3}, (bft_slice){"v", 1}));
        expect_ok(bft_batch_commit(put, BFT_NONE, NULL));
        bft_batch_free(put);
        expect_ok(bft_batch_create(f->db, &batch));
        expect_ok(bft_batch_commit(batch, of[i], NULL));
        bft_batch_free(batch);
        engine_crash(f, i == 0 ? BFTI_SIM_KILL : BFTI_SIM_DROP, 1);
        expect_ok(bft_get(engine_tree(f, "t", 512), (bft_slice){"key", 3},
                          value, sizeof(value), &len));
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_database_survives_a_power_cut),
        cmocka_unit_test(a_database_made_over_a_killed_attempt_survives_too),
        cmocka_unit_test(trees_come_and_go_while_a_checkpoint_is_due),
        cmocka_unit_test(an_empty_batch_is_a_commit_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
