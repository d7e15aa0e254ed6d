/*
 * Blocks that threads fill together: each has leaves of its own, of one or two
 * short extents' length, which it writes anew, reads and gives back, while
 * images are made, the file is synced and space is released.  Each reads what
 * it wrote; the last image has all of it, and nothing else is in use.
 */
#include "shared_fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum { THREADS = 4, LEAVES = 24, ROUNDS = 2500, LEN_MAX = 3000 };

struct leaf {
    uint64_t place, salt;
    size_t len;
};

struct worker {
    struct shared_fixture *f;
    uint64_t rng;
    struct leaf leaf[LEAVES];
    struct bfti_mutex mutex; /* of the leaves against the image */
    bool gathered;
    const char *_Atomic wrong;
    _Atomic bool done;
};

static bool is_whole(struct bfti_pagefile *pf, struct bfti_scratch *scratch,
                     const struct leaf *leaf)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    uint8_t want[LEN_MAX];

    if (leaf->place == 0)
        return true;
    pf_fill(want, leaf->len, leaf->salt);
    return bfti_extent_read(pf, leaf->place, scratch, &info, &raw, &len) ==
               BFT_OK &&
           len == leaf->len && info.page_id == leaf->salt &&
           memcmp(raw, want, len) == 0;
}

static bft_status leaf_write(struct worker *w, struct leaf *leaf)
{
    struct bfti_pagefile *pf = w->f->p.pf;
    struct leaf fresh = {.salt = random_of(&w->rng) >> 1};
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 7, fresh.salt, 1};
    uint8_t raw[LEN_MAX];
    uint64_t gathered;

    fresh.len = (size_t)(random_of(&w->rng) % LEN_MAX);
    pf_fill(raw, fresh.len, fresh.salt);
    bft_status status =
        bfti_extent_write(pf, &info, raw, fresh.len, &fresh.place);
    if (status != BFT_OK)
        return status;
    if (random_of(&w->rng) % 8 == 0) {
        bfti_extent_discard(pf, fresh.place);
        return BFT_OK;
    }
    bfti_mutex_lock(&w->f->p.env, &w->mutex);
    gathered = w->gathered ? BFTI_GATHERED_NOW : 0;
    bfti_extent_link(pf, fresh.place, gathered);
    if (leaf->place != 0)
        status = bfti_extent_unlink(pf, leaf->place, gathered, 0);
    *leaf = fresh;
    bfti_mutex_unlock(&w->f->p.env, &w->mutex);
    return status;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct bfti_pagefile *pf = w->f->p.pf;
    struct bfti_scratch scratch = {0};

    for (unsigned i = 0; i < ROUNDS && w->wrong == NULL; i++) {
        struct leaf *leaf = &w->leaf[random_of(&w->rng) % LEAVES];
        if (!is_whole(pf, &scratch, leaf))
            w->wrong = "a leaf is not what was written";
        if (leaf_write(w, leaf) != BFT_OK)
            w->wrong = "a leaf was not written";
        if (random_of(&w->rng) % 50 == 0 && bfti_pagefile_sync(pf) != BFT_OK)
            w->wrong = "a sync failed";
        if (random_of(&w->rng) % 50 == 0 && bfti_space_release(pf) != BFT_OK)
            w->wrong = "a release failed";
    }
    bfti_scratch_free(pf->env, &scratch);
    atomic_store(&w->done, true);
    return NULL;
}

/* An image of all leaves, each thread's as of some moment. */
static void image(struct shared_fixture *f, struct worker *workers,
                  struct leaf (*leaf)[LEAVES])
{
    struct bfti_pagefile *pf = f->p.pf;
    uint64_t map[BFTI_MAP_PLACES];
    size_t count;

    for (unsigned i = 0; i < THREADS; i++) {
        bfti_mutex_lock(&f->p.env, &workers[i].mutex);
        workers[i].gathered = false;
        bfti_mutex_unlock(&f->p.env, &workers[i].mutex);
    }
    (void)bfti_space_cut(pf);
    for (unsigned i = 0; i < THREADS; i++) {
        bfti_mutex_lock(&f->p.env, &workers[i].mutex);
        memcpy(leaf[i], workers[i].leaf, sizeof workers[i].leaf);
        workers[i].gathered = true;
        bfti_mutex_unlock(&f->p.env, &workers[i].mutex);
    }
    EXPECT_STATUS(BFT_OK, bfti_space_write(pf, f->map, f->map_count, map,
                                           BFTI_MAP_PLACES, &count));
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(pf));
    bfti_space_finish(pf, 1);
    bfti_space_twin(pf);
    memcpy(f->map, map, sizeof map);
    f->map_count = count;
    EXPECT_STATUS(BFT_OK, bfti_space_release(pf));
}

static bool all_done(const struct worker *w)
{
    bool done = true;
    for (unsigned i = 0; i < THREADS; i++)
        done = done && atomic_load(&w[i].done);
    return done;
}

static void expect_image(struct shared_fixture *f, struct leaf (*leaf)[LEAVES])
{
    uint64_t place;

    shared_reload(f);
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    for (unsigned i = 0; i < THREADS; i++)
        for (unsigned k = 0; k < LEAVES; k++) {
            assert_true(is_whole(f->p.pf, &f->p.scratch, &leaf[i][k]));
            if (leaf[i][k].place != 0)
                assert_true(bfti_space_audit_mark(f->p.pf, leaf[i][k].place));
        }
    for (size_t i = 0; i < f->map_count; i++)
        assert_true(bfti_space_audit_mark(f->p.pf, f->map[i]));
    for (size_t i = 0; bfti_space_lists(f->p.pf, i, &place, 1) == 1; i++)
        assert_true(bfti_space_audit_mark(f->p.pf, place));
    assert_int_equal(0, bfti_space_audit_end(f->p.pf));
}

static void threads_share_blocks_while_images_are_made(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    struct worker *w = calloc(THREADS, sizeof *w);
    struct leaf(*leaf)[LEAVES] = calloc(THREADS, sizeof *leaf);
    uint64_t seed = random_start();
    pthread_t thread[THREADS];
    unsigned images = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        w[i].f = f;
        w[i].rng = seed + i;
        assert_int_equal(0, pthread_create(&thread[i], NULL, work, &w[i]));
    }
    for (; !all_done(w); images++)
        image(f, w, leaf);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(0, pthread_join(thread[i], NULL));
        if (w[i].wrong != NULL)
            fail_msg("%s", w[i].wrong);
    }
    image(f, w, leaf);
    print_message("%u images\n", images);
    expect_image(f, leaf);
    free(leaf);
    free(w);
    shared_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_blocks_while_images_are_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
