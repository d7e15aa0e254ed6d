/*
 * A power cut, or a kill, before every step of a truncation and of a renaming,
 * and of the recovery from that: the tree has all of its records or none, and is
 * found by one name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "tally.h"

enum { RECORDS = 300, IMAGES = 4000 };

static const bft_slice NONE = {NULL, 0};

struct shots {
    struct bfti_vfs *sim;
    struct bfti_vfs *image[IMAGES];
    bool done[IMAGES]; /* taken after the call had returned */
    unsigned count;
    bool over;
};

static void take(void *arg, const struct bfti_sim_step *step)
{
    struct shots *shots = arg;
    for (unsigned policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        if (shots->count == IMAGES)
            return;
        shots->done[shots->count] = shots->over;
        if (bfti_sim_image(shots->sim, (enum bfti_sim_policy)policy,
                           step->number * 7 + policy,
                           &shots->image[shots->count]) != BFT_OK)
            abort();
        shots->count++;
    }
}

static void fill(bft_tree *tree, const char *prefix)
{
    for (unsigned n = 0; n < RECORDS; n++) {
        char key[32];
        int len = snprintf(key, sizeof(key), "%s%05u", prefix, n);
        expect_ok(bft_put(tree, (bft_slice){key, (size_t)len},
                          (bft_slice){key, (size_t)len}));
    }
}

static bool has_tree(bft_db *db, const char *name, uint64_t *count)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    bft_status status = bft_tree_open(db, name, &o, &tree);
    if (status == BFT_NOT_FOUND)
        return false;
    expect_ok(status);
    expect_ok(bft_count(tree, NONE, NONE, count));
    return true;
}

/* After the first change, before the second, and so on. */
static void check(bft_db *db, bool done)
{
    uint64_t old = 0, new = 0, other = 0;
    bool is_old = has_tree(db, "old", &old), is_new = has_tree(db, "new", &new);
    expect_ok(bft_verify(db));
    assert_true(has_tree(db, "other", &other));
    assert_int_equal(RECORDS, other);
    /* "old" full; empty; called "new"; a fresh one, full, is "old" then. */
    if (!is_new) {
        assert_true(is_old && (old == 0 || old == RECORDS));
    } else {
        assert_int_equal(0, new);
        assert_true(!is_old || old <= RECORDS);
    }
    if (done)
        assert_true(is_new && is_old && old == RECORDS);
}

static void open_image(struct engine_fixture *f, struct bfti_vfs *image,
                       bool done)
{
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    bft_options options = f->options;
    bft_db *db;
    options.internal = &surroundings;
    options.must_exist = true;
    expect_ok(bft_open("/db", &options, &db));
    check(db, done);
    /* What recovery wrote is lived from. */
    expect_ok(bft_checkpoint(db));
    check(db, done);
    expect_ok(bft_close(db));
}

static void trees_change_in_one_step(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    (void)state;
    f->options.no_threads = true;
    f->options.durability = BFT_SYNC;
    engine_open(f);
    fill(engine_tree(f, "old", 512), "old");
    fill(engine_tree(f, "other", 512), "other");
    shots->sim = f->vfs;
    bfti_sim_on_step(f->vfs, take, shots);
    expect_ok(bft_tree_truncate(f->db, "old"));
    expect_ok(bft_tree_rename(f->db, "old", "new"));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    /* Many, and steps between them are like those before. */
    fill(engine_tree(f, "old", 512), "again");
    bfti_sim_on_step(f->vfs, take, shots);
    shots->over = true;
    expect_ok(bft_checkpoint(f->db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    assert_true(shots->count > 50 && shots->count < IMAGES);
    for (unsigned i = 0; i < shots->count; i++) {
        open_image(f, shots->image[i], shots->done[i]);
        bfti_vfs_sim_destroy(shots->image[i]);
    }
    tally(TALLY_IMAGES, shots->count);
    free(shots);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_change_in_one_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
