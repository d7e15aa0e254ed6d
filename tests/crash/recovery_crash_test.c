/*
 * A process is killed before any of the last steps of a checkpoint, and the power
 * fails before any step of the recovery that follows: what the kill left in the
 * system's cache may be lost then, the newer superblock too.
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
#include "random.h"
#include "tally.h"

enum {
    SEGMENT = 64 << 10,
    VALUE = 3000,
    SYNCED = 60,
    ALL = 200, /* more segments than are kept for reuse */
    LAST = 9,  /* steps of the checkpoint */
    IMAGES = 4000
};

struct shots {
    struct bfti_vfs *sim;
    struct bfti_vfs *image[IMAGES];
    unsigned count;
    bool powerless; /* the power fails, in all ways; else a kill */
};

static void take_one(struct shots *s, enum bfti_sim_policy policy,
                     uint64_t seed)
{
    assert_true(s->count < IMAGES);
    if (bfti_sim_image(s->sim, policy, seed, &s->image[s->count++]) != BFT_OK)
        abort();
}

static void take(void *arg, const struct bfti_sim_step *step)
{
    struct shots *s = arg;
    if (!s->powerless) {
        take_one(s, BFTI_SIM_KILL, step->number);
        return;
    }
    take_one(s, BFTI_SIM_DROP, 0);
    take_one(s, BFTI_SIM_KEEP, 0);
    take_one(s, BFTI_SIM_PREFIX, random_next());
    for (int n = 0; n < 4; n++) {
        take_one(s, BFTI_SIM_REORDER, random_next());
        take_one(s, BFTI_SIM_TORN, random_next());
    }
}

static bft_slice key_of(char text[16], unsigned n)
{
    snprintf(text, 16, "key %05u", n);
    return (bft_slice){text, 9};
}

/* Those of two keys differ. */
static const uint8_t *value_of(unsigned n)
{
    static uint8_t value[VALUE];
    for (unsigned i = 0; i < VALUE; i++)
        value[i] = (uint8_t)(n * 31 + i * i % 251);
    return value;
}

static bft_status open_image(struct engine_fixture *f, struct bfti_vfs *image,
                             bft_db **db)
{
    bft_options options = f->options;
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    options.internal = &surroundings;
    options.must_exist = true;
    return bft_open("/db", &options, db);
}

/* Of AT_LEAST and those behind, a prefix. */
static void check(bft_db *db, unsigned at_least)
{
    static uint8_t value[VALUE];
    bft_tree *tree;
    bool there = true;
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    for (unsigned n = 0; n < ALL; n++) {
        char text[16];
        size_t len;
        bft_status status =
            bft_get(tree, key_of(text, n), value, sizeof(value), &len);
        if (status != BFT_OK)
            expect_status(BFT_NOT_FOUND, status);
        assert_true(status == BFT_OK ? there : n >= at_least);
        if (status == BFT_OK) {
            assert_int_equal(VALUE, len);
            assert_memory_equal(value_of(n), value, VALUE);
        }
        there = status == BFT_OK;
    }
    expect_ok(bft_verify(db));
}

/* The recovery of IMAGE, cut off by a power failure before each step. */
static unsigned cut_recovery(struct engine_fixture *f, struct bfti_vfs *image)
{
    static struct shots cut;
    unsigned images;
    bft_db *db;
    memset(&cut, 0, sizeof(cut));
    cut.sim = image;
    cut.powerless = true;
    bfti_sim_on_step(image, take, &cut);
    expect_ok(open_image(f, image, &db));
    bfti_sim_on_step(image, NULL, NULL);
    check(db, ALL);
    expect_ok(bft_close(db));
    images = cut.count;
    for (unsigned i = 0; i < images; i++) {
        expect_ok(open_image(f, cut.image[i], &db));
        check(db, SYNCED);
        expect_ok(bft_close(db));
        bfti_vfs_sim_destroy(cut.image[i]);
    }
    return images;
}

static void a_power_cut_after_a_kill_finds_the_log(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    unsigned images = 0;
    bft_tree *tree;
    char text[16];
    (void)state;
    assert_non_null(shots);
    f->options.no_threads = true;
    f->options.log_segment_bytes = SEGMENT;
    f->options.log_bytes = 64 << 20;
    f->options.memory_bytes = 64 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    for (unsigned n = 0; n < ALL; n++) {
        expect_ok(
            bft_put(tree, key_of(text, n), (bft_slice){value_of(n), VALUE}));
        if (n + 1 == SYNCED)
            expect_ok(bft_sync(f->db));
    }
    shots->sim = f->vfs;
    bfti_sim_on_step(f->vfs, take, shots);
    expect_ok(bft_checkpoint(f->db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    for (unsigned i = 0; i < shots->count; i++) {
        if (i + LAST >= shots->count) /* about the superblock */
            images += cut_recovery(f, shots->image[i]);
        bfti_vfs_sim_destroy(shots->image[i]);
    }
    tally(TALLY_CUTS, images);
    assert_true(shots->count > LAST && images > 500);
    free(shots);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_after_a_kill_finds_the_log),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
