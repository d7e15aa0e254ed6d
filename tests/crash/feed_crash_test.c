/*
 * A power cut, or a kill, at any step beside a feed: what the feed gave is in
 * the database that is opened then, and a feed from there on gives the rest.
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
#include "feed_copy.h"
#include "random.h"
#include "tally.h"

enum { KEYS = 60, CHANGES = 1500, IMAGES = 400 };

struct shots {
    struct bfti_vfs *sim;
    const struct feed_copy *copy; /* as it is between two calls */
    uint64_t random;
    struct {
        struct bfti_vfs *image;
        struct feed_copy copy;
        unsigned policy;
    } at[IMAGES];
    unsigned count;
};

static void take(void *arg, const struct bfti_sim_step *step)
{
    struct shots *shots = arg;
    unsigned policy = (unsigned)(random_of(&shots->random) % BFTI_SIM_POLICIES);
    (void)step;
    if (shots->count == IMAGES || random_of(&shots->random) % 10)
        return;
    if (bfti_sim_image(shots->sim, (enum bfti_sim_policy)policy,
                       random_of(&shots->random),
                       &shots->at[shots->count].image) != BFT_OK)
        abort();
    feed_copy_clone(&shots->at[shots->count].copy, shots->copy);
    shots->at[shots->count++].policy = policy;
}

/* --- before the crash ----------------------------------------------------- */

static void change(struct engine_fixture *f)
{
    bft_tree *tree = engine_tree(f, random_below(3) ? "one" : "two", 512);
    static uint8_t value[2000];
    bft_slice bytes = {value, random_below(random_below(5) ? 100 : 2000)};
    char text[16];
    bft_slice key = {text, (size_t)snprintf(text, sizeof(text), "%02zu",
                                            random_below(KEYS))};
    bft_batch *batch;
    random_bytes(value, 16);
    switch (random_below(12)) {
    case 0:
        expect_ok(bft_sync(f->db));
        break;
    case 1:
        expect_ok(bft_delete(tree, key));
        break;
    case 2:
        expect_ok(bft_batch_create(f->db, &batch));
        for (unsigned i = 0; i < 10; i++) {
            text[0] = (char)('a' + i);
            expect_ok(bft_batch_put(batch, tree, key, bytes));
        }
        expect_ok(bft_batch_commit(
            batch, random_below(2) ? BFT_SYNC : BFT_BUFFERED, NULL));
        bft_batch_free(batch);
        break;
    case 3:
        if (random_below(20) == 0)
            expect_ok(bft_tree_truncate(f->db, "two"));
        else if (random_below(20) == 0)
            expect_ok(bft_checkpoint(f->db));
        break;
    default:
        expect_ok(bft_put(tree, key, bytes));
        break;
    }
}

static void live(struct engine_fixture *f, struct shots *shots,
                 struct feed_copy *copy)
{
    bft_feed_options o = {.size = sizeof(o), .hold_bytes = 200000};
    bft_feed *feed;
    (void)engine_tree(f, "two", 512); /* to be truncated, perhaps at once */
    expect_ok(bft_feed_open(f->db, 0, &o, &feed));
    shots->sim = f->vfs;
    shots->copy = copy;
    shots->random = random_next();
    bfti_sim_on_step(f->vfs, take, shots);
    for (unsigned i = 0; i < CHANGES; i++) {
        change(f);
        if (random_below(3) == 0 && !feed_copy_catch_up(copy, feed))
            fail_msg("%s", copy->error);
    }
    bfti_sim_on_step(f->vfs, NULL, NULL);
    bft_feed_close(feed);
}

/* --- after it ------------------------------------------------------------- */

/* The copy and what a feed from its LSN on has are the database. */
static bool check(bft_db *db, struct feed_copy *copy)
{
    bft_feed *feed;
    bft_status status = bft_feed_open(db, copy->lsn, NULL, &feed);
    if (status == BFT_GONE && copy->lsn < bft_feed_lowest(db))
        return false; /* a checkpoint had more than the copy */
    expect_ok(status);
    if (!feed_copy_catch_up(copy, feed) || !feed_copy_is(copy, db))
        fail_msg("%s", copy->error);
    assert_true(copy->lsn == bft_durable_lsn(db));
    bft_feed_close(feed);
    return true;
}

/* *GONE counts those where the write behind it made a checkpoint. */
static bool open_image(struct engine_fixture *f, struct bfti_vfs *image,
                       struct feed_copy *copy, unsigned *gone)
{
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    bft_options options = f->options;
    bft_tree *tree;
    bft_db *db;
    bool whole;
    options.internal = &surroundings;
    options.must_exist = true;
    expect_ok(bft_open("/db", &options, &db));
    whole = check(db, copy);
    /* Positions go on from there. */
    expect_ok(bft_tree_open(db, "one", NULL, &tree));
    expect_ok(bft_put(tree, (bft_slice){"after", 5}, (bft_slice){"it", 2}));
    expect_ok(bft_sync(db));
    if (whole && !check(db, copy))
        ++*gone;
    expect_ok(bft_verify(db));
    expect_ok(bft_close(db));
    return whole;
}

static void what_a_feed_gave_survives(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    struct feed_copy copy = {.trees = 0};
    unsigned compared = 0, gone = 0;
    (void)state;
    random_start();
    assert_non_null(shots);
    f->options.memory_bytes = 1 << 20;
    f->options.no_threads = true;
    engine_open(f);
    live(f, shots, &copy);
    assert_true(shots->count > IMAGES / 4);
    for (unsigned i = 0; i < shots->count; i++) {
        compared +=
            open_image(f, shots->at[i].image, &shots->at[i].copy, &gone);
        feed_copy_free(&shots->at[i].copy);
        bfti_vfs_sim_destroy(shots->at[i].image);
    }
    tally(TALLY_IMAGES, shots->count);
    print_message("%u compared\n", compared);
    assert_true(compared > shots->count / 2 && gone < compared / 4);
    feed_copy_free(&copy);
    free(shots);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_feed_gave_survives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
