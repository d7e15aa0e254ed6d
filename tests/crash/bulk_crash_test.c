/*
 * A power cut, or a kill, before every step of a bulk load, with checkpoints
 * and writes to another tree between, and of the recovery from that: the tree
 * has all that was loaded or nothing, and no space is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bulk_source.h"
#include "tally.h"

enum { RECORDS = 400, OTHERS = 40, IMAGES = 6000 };
/* What a database takes that has next to no records. */
enum { LITTLE = 40 * BFTI_BLOCK };

static const bft_slice NONE = {NULL, 0};

struct shots {
    struct bfti_vfs *sim;
    struct bfti_vfs *image[IMAGES];
    bool done[IMAGES]; /* taken after the call had returned */
    unsigned others[IMAGES];
    unsigned count;
    unsigned others_now; /* records of the other tree that are durable */
    bool over;
};

static void take(void *arg, const struct bfti_sim_step *step)
{
    struct shots *shots = arg;
    for (unsigned policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        if (shots->count == IMAGES)
            return;
        shots->done[shots->count] = shots->over;
        shots->others[shots->count] = shots->others_now;
        if (bfti_sim_image(shots->sim, (enum bfti_sim_policy)policy,
                           step->number * 7 + policy,
                           &shots->image[shots->count]) != BFT_OK)
            abort();
        shots->count++;
    }
}

/* What else goes on while records are handed over. */
struct beside {
    struct engine_fixture *f;
    struct shots *shots;
    bft_tree *other;
};

static void go_on(void *arg, uint64_t n)
{
    struct beside *b = arg;
    char key[16];
    if (n % (RECORDS / OTHERS) == 5) {
        int len = snprintf(key, sizeof(key), "%u", (unsigned)n);
        expect_ok(bft_put(b->other, (bft_slice){key, (size_t)len}, NONE));
        b->shots->others_now++;
    }
    if (n == RECORDS / 2)
        expect_ok(bft_checkpoint(b->f->db));
}

static void check(bft_db *db, unsigned others, bool done)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    struct bulk_source s = {
        .count = RECORDS, .values = BULK_MIXED, .leaf_bytes = 512};
    bft_stats stats = {.size = sizeof(stats)};
    bft_tree *tree;
    uint64_t count;
    expect_ok(bft_verify(db));
    expect_ok(bft_tree_open(db, "other", &o, &tree));
    expect_ok(bft_count(tree, NONE, NONE, &count));
    assert_true(count >= others);
    expect_ok(bft_tree_open(db, "t", &o, &tree));
    expect_ok(bft_count(tree, NONE, NONE, &count));
    if (count || done)
        bulk_expect(tree, &s);
    expect_ok(bft_stats_read(db, &stats));
    assert_int_equal(2, stats.trees);
    bulk_free(&s);
}

static bft_db *open_image(struct engine_fixture *f, struct bfti_vfs *image)
{
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    bft_options options = f->options;
    bft_db *db;
    options.internal = &surroundings;
    options.must_exist = true;
    expect_ok(bft_open("/db", &options, &db));
    return db;
}

/* Open it, and open what another crash leaves of that; live on, and what was
 * not loaded takes no space. */
static void recover(struct engine_fixture *f, struct shots *shots, unsigned i)
{
    bft_db *db = open_image(f, shots->image[i]);
    bft_stats stats = {.size = sizeof(stats)};
    struct bfti_vfs *again;
    uint64_t count;
    bft_tree *tree;
    check(db, shots->others[i], shots->done[i]);
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_count(tree, NONE, NONE, &count));
    if (i % 3 == 0)
        expect_ok(bft_put(tree, (bft_slice){"z", 1}, NONE));
    expect_ok(bfti_sim_image(shots->image[i],
                             (enum bfti_sim_policy)(i % BFTI_SIM_POLICIES), i,
                             &again));
    if (i % 3 == 0)
        expect_ok(bft_delete(tree, (bft_slice){"z", 1}));
    for (unsigned n = 0; n < 3; n++)
        expect_ok(bft_checkpoint(db));
    check(db, shots->others[i], count > 0);
    expect_ok(bft_stats_read(db, &stats));
    if (count == 0)
        assert_true(stats.live_bytes < LITTLE);
    assert_true(stats.held_bytes < LITTLE);
    expect_ok(bft_close(db));
    db = open_image(f, again);
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    (void)(bft_delete(tree, (bft_slice){"z", 1}) == BFT_OK);
    check(db, 0, count > 0);
    expect_ok(bft_close(db));
    bfti_vfs_sim_destroy(again);
}

static void a_load_is_there_as_a_whole_or_not_at_all(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    struct beside beside = {.f = f, .shots = shots};
    struct bulk_source s = {.count = RECORDS,
                            .values = BULK_MIXED,
                            .leaf_bytes = 512,
                            .each = go_on,
                            .arg = &beside};
    (void)state;
    f->options.no_threads = true;
    f->options.durability = BFT_SYNC;
    engine_open(f);
    beside.other = engine_tree(f, "other", 512);
    shots->sim = f->vfs;
    (void)engine_tree(f, "t", 512);
    bfti_sim_on_step(f->vfs, take, shots);
    bulk_load(engine_tree(f, "t", 512), &s, 100);
    shots->over = true;
    expect_ok(bft_checkpoint(f->db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    assert_true(shots->count > 500 && shots->count < IMAGES);
    for (unsigned i = 0; i < shots->count; i++) {
        recover(f, shots, i);
        bfti_vfs_sim_destroy(shots->image[i]);
    }
    tally(TALLY_IMAGES, shots->count);
    free(shots);
    bulk_free(&s);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_is_there_as_a_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
