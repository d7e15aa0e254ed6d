/*
 * Power fails while a range is deleted, while what it leaves is cleared, while
 * images are made of that and while what was found is recovered: it is deleted
 * whole or not at all, and what was written into it afterwards is there.
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
#include "random.h"
#include "tally.h"

enum {
    ALL = 1200,
    LOW = 100,
    HIGH = 1100,
    LEFT = ALL - (HIGH - LOW),
    MANY = 8
};

static const bft_slice NONE = {NULL, 0};

static struct engine_fixture *make(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->options.durability = BFT_SYNC;
    return f;
}

/* What has been done when power fails. */
struct life {
    struct engine_fixture *f;
    bft_tree *tree, *other;
    bool begun;      /* the deletion */
    bool deleted;    /* and acknowledged */
    uint64_t inside; /* records written into the range since, each synced */
    unsigned images;
    /* Taken at steps of the disk within a call. */
    struct bfti_vfs *taken[MANY];
    unsigned takes;
};

static uint64_t count_of(bft_tree *tree)
{
    uint64_t count;
    expect_ok(bft_count(tree, NONE, NONE, &count));
    return count;
}

static void check(const struct life *l, struct engine_fixture *f)
{
    bft_tree *tree = engine_tree(f, "t", 0);
    uint64_t count = count_of(tree);
    if (l->deleted)
        assert_int_equal(LEFT + l->inside, count);
    else
        assert_true(count == ALL || (l->begun && count == LEFT));
    for (uint64_t i = 0; i < l->inside; i++) {
        struct text text;
        char buf[8];
        size_t len;
        expect_ok(bft_get(tree, key_of(&text, HIGH - 1 - 37 * i), buf,
                          sizeof(buf), &len));
        assert_int_equal(1, len);
    }
    expect_ok(bft_verify(f->db));
}

static struct bfti_vfs *image_of(struct bfti_vfs *vfs)
{
    static const enum bfti_sim_policy policies[] = {
        BFTI_SIM_DROP, BFTI_SIM_KEEP, BFTI_SIM_PREFIX, BFTI_SIM_REORDER};
    struct bfti_vfs *image;
    expect_ok(
        bfti_sim_image(vfs, policies[random_below(4)], random_next(), &image));
    return image;
}

/* Open IMAGE, look, and let power fail again while it goes on with what it has
 * found: TIMES. */
/* NOLINTNEXTLINE(misc-no-recursion): as often as that */
static void crash(struct life *l, struct bfti_vfs *image, unsigned times)
{
    struct engine_fixture *after = make();
    bfti_vfs_sim_destroy(after->vfs);
    after->vfs = image;
    engine_open(after);
    l->images++;
    check(l, after);
    for (size_t i = times ? random_below(12) : 0; i > 0; i--) {
        struct text text;
        expect_ok(bft_put(engine_tree(after, "other", 512),
                          key_of(&text, random_below(50)), NONE));
    }
    if (times)
        crash(l, image_of(after->vfs), times - 1);
    check(l, after);
    engine_reopen(after);
    check(l, after);
    engine_fixture_free(after);
}

static void on_step(void *arg, const struct bfti_sim_step *at)
{
    struct life *l = arg;
    (void)at;
    if (l->takes < MANY && random_below(4) == 0)
        l->taken[l->takes++] = image_of(l->f->vfs);
}

/* What was taken within the call that ends now, and before anything else is
 * acknowledged, is opened. */
static void crash_taken(struct life *l)
{
    bfti_sim_on_step(l->f->vfs, NULL, NULL);
    while (l->takes)
        crash(l, l->taken[--l->takes], (unsigned)random_below(2));
}

/* Each write takes some of what is deleted away. */
static void step(struct life *l)
{
    struct text text;
    bfti_sim_on_step(l->f->vfs, on_step, l);
    expect_ok(bft_put(l->other, key_of(&text, random_below(50)), NONE));
    if (random_below(12) == 0)
        expect_ok(bft_checkpoint(l->f->db));
    crash_taken(l);
    if (random_below(6) == 0 && l->inside < 20) {
        expect_ok(bft_put(l->tree, key_of(&text, HIGH - 1 - 37 * l->inside),
                          (bft_slice){"i", 1}));
        l->inside++;
    }
    if (random_below(3) == 0)
        crash(l, image_of(l->f->vfs), (unsigned)random_below(3));
}

static void delete_middle(struct life *l)
{
    struct text low, high;
    crash(l, image_of(l->f->vfs), 0);
    bfti_sim_on_step(l->f->vfs, on_step, l);
    l->begun = true;
    expect_ok(bft_delete_range(l->tree, key_of(&low, LOW), key_of(&high, HIGH),
                               NULL));
    crash_taken(l);
    l->deleted = true;
    crash(l, image_of(l->f->vfs), 2);
}

static void live(unsigned *images)
{
    struct life l = {.f = make()};
    engine_open(l.f);
    l.tree = engine_tree(l.f, "t", 512);
    l.other = engine_tree(l.f, "other", 512);
    for (uint64_t n = 0; n < ALL; n += 100) {
        bft_batch *batch;
        expect_ok(bft_batch_create(l.f->db, &batch));
        for (uint64_t i = n; i < n + 100; i++) {
            struct text text;
            expect_ok(bft_batch_put(batch, l.tree, key_of(&text, i),
                                    (bft_slice){"a value of some length", 22}));
        }
        expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
        bft_batch_free(batch);
    }
    if (random_below(2))
        expect_ok(bft_checkpoint(l.f->db));
    delete_middle(&l);
    for (int i = 0; i < 60; i++)
        step(&l);
    *images += l.images;
    engine_fixture_free(l.f);
}

static void a_crash_leaves_it_whole_or_deleted(void **state)
{
    unsigned images = 0;
    (void)state;
    (void)random_start();
    while (images < 400)
        live(&images);
    tally(TALLY_IMAGES, images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_leaves_it_whole_or_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
