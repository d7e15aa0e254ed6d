/* Blocks that short extents share: who gets which grains, and when they come
 * free. */
#include "shared_fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    ONE = BFTI_GRAIN - BFTI_EXTENT_HEADER, /* the longest of one grain */
    MANY = 600,
};

/* Nobody else can write while these are taken. */
static void take_all_stripes(struct shared_fixture *f)
{
    for (unsigned i = 0; i < SHARE_STRIPES; i++)
        assert_true(bfti_mutex_try(&f->p.pf->stripe[i].lock));
}

static void give_all_stripes(struct shared_fixture *f)
{
    for (unsigned i = 0; i < SHARE_STRIPES; i++)
        bfti_mutex_unlock(f->p.pf->env, &f->p.pf->stripe[i].lock);
}

/* --- who gets which ------------------------------------------------------- */

static void short_extents_lie_in_one_block(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place[9];

    for (unsigned i = 0; i < 9; i++)
        place[i] = shared_linked(f, 1);
    for (unsigned i = 1; i < 8; i++) {
        assert_int_equal(place_block(place[0]), place_block(place[i]));
        assert_int_equal(i, bfti_disk_grain(place[i]) % BLOCK_GRAINS);
    }
    assert_true(place_block(place[8]) != place_block(place[0]));
    assert_int_equal(9 * BFTI_GRAIN, shared_stats(f).live_bytes);
    for (unsigned i = 0; i < 9; i++)
        shared_expect(f, place[i]);
    shared_close(f);
}

static void each_goes_where_least_is_left(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t four = shared_linked(f, 4), three = shared_linked(f, 3),
             two = shared_linked(f, 2);

    /* 4 and 3 lie together; 2 opened a block. */
    assert_int_equal(place_block(four), place_block(three));
    assert_true(place_block(two) != place_block(four));
    assert_int_equal(place_block(four), place_block(shared_linked(f, 1)));
    assert_int_equal(place_block(two), place_block(shared_linked(f, 4)));
    assert_int_equal(place_block(two), place_block(shared_linked(f, 2)));
    shared_close(f);
}

static void long_ones_begin_at_a_block(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t first = shared_linked(f, 2);

    for (unsigned grains = 8; grains < 30; grains++) {
        uint64_t place = shared_linked(f, grains);
        assert_int_equal(0, bfti_disk_grain(place) % BLOCK_GRAINS);
        shared_expect(f, place);
    }
    assert_int_equal(place_block(first), place_block(shared_linked(f, 2)));
    shared_close(f);
}

/* Leaves that fill most of a block, and nothing else, cost nothing. */
static void what_leaves_little_shares_with_short_ones_alone(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();

    for (unsigned i = 0; i < 20; i++)
        (void)shared_linked(f, 5 + i % 3);
    assert_int_equal(20 * BFTI_BLOCK, shared_stats(f).live_bytes);
    assert_null(f->p.pf->space.chunk[0]->shares);
    shared_checkpoint(f);
    assert_false(bfti_space_shares(f->p.pf));

    uint64_t two = shared_linked(f, 2);
    assert_int_equal(place_block(two), place_block(shared_linked(f, 6)));
    uint64_t five = shared_linked(f, 5); /* one more may come */
    assert_int_equal(place_block(five), place_block(shared_linked(f, 3)));
    shared_checkpoint(f);
    assert_true(bfti_space_shares(f->p.pf));
    shared_close(f);
}

static void what_the_log_may_name_is_alone(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t one = shared_linked(f, 1), alone = pf_write(&f->p, ONE, 1);

    assert_true(place_block(one) != place_block(alone));
    assert_int_equal(place_block(one), place_block(shared_linked(f, 1)));
    bfti_extent_discard(f->p.pf, alone);
    shared_close(f);
}

/* --- when a block is written ---------------------------------------------- */

static void nothing_comes_to_what_was_synced(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place = shared_linked(f, 1), next;

    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f->p.pf));
    next = shared_linked(f, 1);
    assert_true(place_block(place) != place_block(next));
    (void)bfti_space_cut(f->p.pf);
    place = shared_linked(f, 1);
    assert_true(place_block(place) != place_block(next));
    bfti_space_abandon(f->p.pf);
    next = shared_linked(f, 1);
    assert_true(place_block(place) != place_block(next));
    shared_checkpoint(f);
    place = shared_linked(f, 1);
    bfti_space_hold(f->p.pf);
    next = pf_share(&f->p, ONE, 1);
    assert_true(place_block(place) != place_block(next));
    bfti_space_unhold(f->p.pf);
    /* Nor to one that is free, and another's, by now. */
    place = pf_share(&f->p, ONE, 1);
    bfti_extent_discard(f->p.pf, next);
    bfti_extent_discard(f->p.pf, place);
    next = pf_write(&f->p, 1000, 7);
    (void)shared_linked(f, 1);
    pf_expect(&f->p, next, 1000, 7);
    bfti_extent_discard(f->p.pf, next);
    shared_close(f);
}

static void a_write_that_fails_closes_its_block(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, 1, 1};
    uint8_t raw[ONE] = {0};
    uint64_t place = shared_linked(f, 1), none,
             before = shared_stats(f).live_bytes;

    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO,
                  bfti_extent_write(f->p.pf, &info, raw, sizeof raw, &none));
    assert_int_equal(0, none);
    assert_int_equal(before, shared_stats(f).live_bytes);
    shared_expect(f, place);
    assert_true(place_block(place) != place_block(shared_linked(f, 1)));

    /* The first of a block: nothing is left of it. */
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f->p.pf));
    before = f->p.pf->space.used_blocks;
    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_NO_SPACE);
    EXPECT_STATUS(BFT_NO_SPACE,
                  bfti_extent_write(f->p.pf, &info, raw, sizeof raw, &none));
    assert_int_equal(before, f->p.pf->space.used_blocks);
    shared_close(f);
}

/* What was in a block before shows in no part of it. */
static void a_block_is_zero_behind_what_is_in_it(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place = pf_write(&f->p, BFTI_BLOCK - BFTI_EXTENT_HEADER, 9);
    uint8_t block[BFTI_BLOCK], zeros[BFTI_BLOCK] = {0};
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    size_t got;

    bfti_extent_discard(f->p.pf, place);
    uint64_t next = shared_linked(f, 2);
    assert_int_equal(place_block(place), place_block(next));
    EXPECT_STATUS(BFT_OK, file->ops->read(file, place_block(next) * BFTI_BLOCK,
                                          block, sizeof block, &got));
    assert_memory_equal(block + 2 * BFTI_GRAIN, zeros, 6 * BFTI_GRAIN);
    shared_close(f);
}

static void without_memory_it_has_a_block_of_its_own(void **state)
{
    (void)state;
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, 1, 1};
    uint8_t raw[ONE] = {0};

    for (uint64_t nth = 1;; nth++) {
        struct shared_fixture *f = shared_open();
        uint64_t place[3] = {0};
        bft_status status = BFT_OK;
        pf_fail_alloc(nth);
        for (unsigned i = 0; i < 3 && status == BFT_OK; i++)
            status =
                bfti_extent_write(f->p.pf, &info, raw, sizeof raw, &place[i]);
        bool failed = pf_alloc_failed();
        pf_fail_alloc(0);
        if (status != BFT_OK)
            assert_int_equal(BFT_NO_MEMORY, status);
        for (unsigned i = 0; i < 3; i++)
            if (place[i] != 0)
                bfti_extent_discard(f->p.pf, place[i]);
        assert_int_equal(0, shared_stats(f).live_bytes);
        assert_int_equal(SUPERBLOCKS, f->p.pf->space.used_blocks);
        take_all_stripes(f);
        give_all_stripes(f);
        shared_close(f);
        if (!failed)
            break;
        assert_true(nth < 50);
    }
}

/* Nor is one given where a change of it could not be kept aside. */
static void without_memory_for_changes_nothing_is_given(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, 1, 1};
    uint8_t raw[ONE] = {0};
    uint64_t place[100];
    unsigned n = 0, failed = 0;

    for (; n < 8; n++) /* there are stripes, and room for some changes */
        place[n] = pf_share(&f->p, ONE, 1);
    for (; n < 100; n++) {
        pf_fail_alloc(1);
        bft_status status =
            bfti_extent_write(f->p.pf, &info, raw, sizeof raw, &place[n]);
        failed += status != BFT_OK;
        pf_fail_alloc(0);
        if (status != BFT_OK)
            place[n] = pf_share(&f->p, ONE, 1);
    }
    assert_in_range(failed, 1, 3);
    while (n-- > 0)
        bfti_extent_discard(f->p.pf, place[n]);
    assert_int_equal(0, shared_stats(f).private_extents);
    /* A chunk whose blocks are shared no more has no list. */
    shared_checkpoint(f);
    assert_false(bfti_space_shares(f->p.pf));
    shared_close(f);
}

/* --- when grains are free ------------------------------------------------- */

static void a_block_is_free_with_its_last_extent(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = shared_linked(f, 2), b = shared_linked(f, 3),
             c = shared_linked(f, 3);
    uint64_t block = place_block(a);
    const struct bfti_space *space = &f->p.pf->space;

    shared_checkpoint(f);
    assert_int_equal(block, place_block(c));
    shared_unlink(f, b);
    assert_false(bfti_space_is_used(f->p.pf, b));
    EXPECT_STATUS(BFT_CORRUPT, bfti_extent_unlink(f->p.pf, b, 0, 0));
    shared_settle(f);
    shared_expect(f, a);
    shared_expect(f, c);
    assert_int_equal(5 * BFTI_GRAIN + shared_map_blocks(f) * BFTI_BLOCK,
                     shared_stats(f).live_bytes);
    assert_true(place_block(shared_linked(f, 3)) != block); /* not again */
    shared_unlink(f, a);
    shared_unlink(f, c);
    assert_true(bit_get(space_chunk_of(space, block)->held, block));
    shared_checkpoint(f);
    shared_release(f);
    assert_true(bit_get(space_chunk_of(space, block)->used, block));
    shared_settle(f);
    assert_false(bit_get(space_chunk_of(space, block)->used, block));
    shared_close(f);
}

static void all_come_and_go_in_any_order(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t rng = random_start(), place[MANY], alive = MANY;
    uint8_t *taken = calloc(MANY, 8); /* as grains of the first blocks */

    for (unsigned i = 0; i < MANY; i++) {
        place[i] = shared_linked(f, 1 + (unsigned)(random_of(&rng) % 7));
        assert_true(bfti_place_valid(place[i]));
        for (unsigned g = 0; g < bfti_disk_grains(place[i]); g++) {
            uint64_t at = bfti_disk_grain(place[i]) - 16 + g;
            assert_true(at < (uint64_t)MANY * 8);
            assert_int_equal(0, taken[at]++);
        }
    }
    free(taken);
    shared_checkpoint(f);
    while (alive > 0) {
        unsigned i = (unsigned)(random_of(&rng) % MANY);
        if (place[i] == 0)
            continue;
        shared_expect(f, place[i]);
        shared_unlink(f, place[i]);
        place[i] = 0;
        alive--;
        if (random_of(&rng) % 20 == 0)
            shared_checkpoint(f);
        if (random_of(&rng) % 20 == 0)
            shared_release(f);
        if (random_of(&rng) % 100 == 0) {
            shared_checkpoint(f);
            shared_reload(f);
        }
    }
    shared_settle(f);
    shared_settle(f); /* the lists have gone, too */
    assert_int_equal(shared_map_blocks(f) * BFTI_BLOCK,
                     shared_stats(f).live_bytes);
    assert_int_equal(f->p.pf->space.used_blocks * BLOCK_GRAINS,
                     f->p.pf->space.used_grains);
    for (size_t i = 0; i < f->p.pf->space.chunk_count; i++)
        assert_null(f->p.pf->space.chunk[i]->shares);
    assert_false(bfti_space_shares(f->p.pf));
    shared_close(f);
}

static void what_was_never_linked_is_free_at_once(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = pf_share(&f->p, ONE, 1), b = pf_share(&f->p, ONE, 1);

    bfti_extent_discard(f->p.pf, a);
    assert_int_equal(1, shared_stats(f).private_extents);
    assert_int_equal(BFTI_GRAIN, shared_stats(f).live_bytes);
    bfti_extent_discard(f->p.pf, b);
    assert_int_equal(0, shared_stats(f).live_bytes);
    shared_close(f);
}

static void a_copy_keeps_grains(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t before = shared_linked(f, 2), after;

    shared_checkpoint(f);
    bfti_space_twin(f->p.pf);
    bfti_space_hold(f->p.pf);
    after = shared_linked(f, 3);
    shared_unlink(f, before);
    shared_unlink(f, after);
    shared_settle(f);
    assert_true(shared_stats(f).kept_bytes >= 2 * BFTI_GRAIN);
    pf_expect(&f->p, before, (size_t)2 * BFTI_GRAIN - BFTI_EXTENT_HEADER, 2);
    const struct bfti_space *space = &f->p.pf->space;
    assert_true(bit_get(space_chunk_of(space, place_block(before))->used,
                        place_block(before)));
    assert_false(bit_get(space_chunk_of(space, place_block(after))->used,
                         place_block(after)));
    bfti_space_unhold(f->p.pf);
    shared_release(f);
    assert_false(bit_get(space_chunk_of(space, place_block(before))->used,
                         place_block(before)));
    shared_close(f);
}

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 300, KEPT = 16 };

struct worker {
    struct shared_fixture *f;
    uint64_t rng;
    bool wrong;
};

static bool is_whole(struct bfti_pagefile *pf, struct bfti_scratch *scratch,
                     uint64_t place, uint64_t salt, size_t len)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t got;
    uint8_t want[BFTI_BLOCK];

    pf_fill(want, len, salt);
    return bfti_extent_read(pf, place, scratch, &info, &raw, &got) == BFT_OK &&
           got == len && info.page_id == salt && memcmp(raw, want, len) == 0;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct bfti_pagefile *pf = w->f->p.pf;
    struct bfti_scratch scratch = {0};
    uint64_t place[KEPT] = {0}, salt[KEPT] = {0};
    size_t len[KEPT] = {0};

    for (unsigned i = 0; i < ROUNDS && !w->wrong; i++) {
        unsigned k = (unsigned)(random_of(&w->rng) % KEPT);
        if (place[k] != 0) {
            w->wrong = !is_whole(pf, &scratch, place[k], salt[k], len[k]);
            bfti_extent_discard(pf, place[k]);
        }
        uint8_t raw[BFTI_BLOCK];
        salt[k] = random_of(&w->rng) >> 1;
        len[k] = (size_t)(random_of(&w->rng) % 2500);
        struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 7, salt[k], 1};
        pf_fill(raw, len[k], salt[k]);
        w->wrong = w->wrong || bfti_extent_write(pf, &info, raw, len[k],
                                                 &place[k]) != BFT_OK;
        if (random_of(&w->rng) % 40 == 0)
            w->wrong = w->wrong || bfti_pagefile_sync(pf) != BFT_OK;
        if (random_of(&w->rng) % 40 == 0)
            w->wrong = w->wrong || bfti_space_release(pf) != BFT_OK;
    }
    for (unsigned k = 0; k < KEPT; k++) {
        if (place[k] == 0)
            continue;
        w->wrong =
            w->wrong || !is_whole(pf, &scratch, place[k], salt[k], len[k]);
        bfti_extent_discard(pf, place[k]);
    }
    bfti_scratch_free(pf->env, &scratch);
    return NULL;
}

static void threads_fill_blocks_together(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t seed = random_start();
    struct worker w[THREADS];
    pthread_t thread[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){f, seed + i, false};
        assert_int_equal(0, pthread_create(&thread[i], NULL, work, &w[i]));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(0, pthread_join(thread[i], NULL));
        assert_false(w[i].wrong);
    }
    assert_int_equal(0, shared_stats(f).live_bytes);
    assert_int_equal(0, shared_stats(f).private_extents);
    assert_int_equal(SUPERBLOCKS, f->p.pf->space.used_blocks);
    shared_close(f);
}

/* Whoever finds all stripes in use waits for none of them; any that is free
 * does. */
static void nobody_waits_for_another_who_writes(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    struct share_stripe *stripe = f->p.pf->stripe;

    take_all_stripes(f);
    uint64_t a = pf_share(&f->p, ONE, 1), b = pf_share(&f->p, ONE, 1);
    assert_true(place_block(a) != place_block(b));
    bfti_extent_discard(f->p.pf, a);
    bfti_extent_discard(f->p.pf, b);
    for (unsigned i = 0; i < SHARE_STRIPES; i++) {
        bfti_mutex_unlock(f->p.pf->env, &stripe[i].lock);
        a = pf_share(&f->p, ONE, 1);
        b = pf_share(&f->p, ONE, 1);
        assert_int_equal(place_block(a), place_block(b));
        bfti_extent_discard(f->p.pf, a);
        bfti_extent_discard(f->p.pf, b);
        assert_true(bfti_mutex_try(&stripe[i].lock));
    }
    give_all_stripes(f);
    shared_close(f);
}

/* Whom a sync waits for: the stripes, in their order, each of which ends its
 * write then. */
static struct shared_fixture *awaited;
static unsigned awaited_count;

static void end_the_write(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                          uint64_t timeout_ns)
{
    (void)ctx;
    (void)expected;
    (void)timeout_ns;
    assert_true(awaited_count < SHARE_STRIPES);
    struct bfti_mutex *lock = &awaited->p.pf->stripe[awaited_count++].lock;
    assert_ptr_equal(word, &lock->word);
    bfti_mutex_unlock(awaited->p.pf->env, lock);
}

static void a_sync_waits_for_writes_under_way(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();

    take_all_stripes(f);
    awaited = f;
    awaited_count = 0;
    f->p.env.wait = end_the_write;
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f->p.pf));
    f->p.env.wait = bfti_env_system()->wait;
    assert_int_equal(SHARE_STRIPES, awaited_count);
    take_all_stripes(f);
    give_all_stripes(f);
    shared_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_extents_lie_in_one_block),
        cmocka_unit_test(each_goes_where_least_is_left),
        cmocka_unit_test(long_ones_begin_at_a_block),
        cmocka_unit_test(what_leaves_little_shares_with_short_ones_alone),
        cmocka_unit_test(what_the_log_may_name_is_alone),
        cmocka_unit_test(nothing_comes_to_what_was_synced),
        cmocka_unit_test(a_write_that_fails_closes_its_block),
        cmocka_unit_test(a_block_is_zero_behind_what_is_in_it),
        cmocka_unit_test(without_memory_it_has_a_block_of_its_own),
        cmocka_unit_test(without_memory_for_changes_nothing_is_given),
        cmocka_unit_test(a_block_is_free_with_its_last_extent),
        cmocka_unit_test(all_come_and_go_in_any_order),
        cmocka_unit_test(what_was_never_linked_is_free_at_once),
        cmocka_unit_test(a_copy_keeps_grains),
        cmocka_unit_test(threads_fill_blocks_together),
        cmocka_unit_test(nobody_waits_for_another_who_writes),
        cmocka_unit_test(a_sync_waits_for_writes_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
