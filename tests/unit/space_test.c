/* Space: when blocks may be used again, and what the map on disk says. */
#include "pagefile_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "fileio/pagefile_internal.h"

struct fixture {
    struct pagefile_fixture p;
    uint64_t map[BFTI_MAP_PLACES];
    size_t map_count;
    uint64_t named; /* a place that a reader names */
    uint64_t redo;
};

static void unnamed(void *ctx, uint64_t *places, size_t n)
{
    const struct fixture *f = ctx;
    for (size_t i = 0; i < n; i++)
        if (places[i] != f->named)
            places[i] = 0;
}

static struct fixture *fixture_open(void)
{
    struct fixture *f = calloc(1, sizeof *f);
    pagefile_fixture_open(&f->p, false);
    f->p.options.unnamed = unnamed;
    f->p.options.unnamed_ctx = f;
    pagefile_fixture_reopen(&f->p);
    EXPECT_STATUS(BFT_OK, bfti_space_reset(f->p.pf));
    f->redo = 1;
    return f;
}

static void fixture_close(struct fixture *f)
{
    pagefile_fixture_close(&f->p);
    free(f);
}

static uint64_t linked(struct fixture *f)
{
    uint64_t place = pf_write(&f->p, 100, 1);
    bfti_extent_link(f->p.pf, place, 0);
    return place;
}

static void unlink_now(struct fixture *f, uint64_t place, uint64_t lsn)
{
    EXPECT_STATUS(BFT_OK, bfti_extent_unlink(f->p.pf, place, 0, lsn));
}

static void checkpoint(struct fixture *f)
{
    pf_checkpoint(&f->p, f->map, &f->map_count, f->redo);
}

/* Is the first block of PLACE taken, by whomever, after a release? */
static bool used_after_release(struct fixture *f, uint64_t place)
{
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    const struct bfti_space *space = &f->p.pf->space;
    uint64_t block = place_block(place);
    return block < space->limit &&
           bit_get(space_chunk_of(space, block)->used, block);
}

/* Open again with the map of the last checkpoint. */
static void reload(struct fixture *f)
{
    pagefile_fixture_reopen(&f->p);
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
}

/* --- when blocks are reused --------------------------------------------------- */

static void an_unlinked_extent_waits_for_two_checkpoints(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);
    checkpoint(f);
    unlink_now(f, place, 0);
    assert_true(used_after_release(f, place));
    assert_false(bfti_space_is_used(f->p.pf, place)); /* held is not in use */
    checkpoint(f);
    assert_true(used_after_release(f, place)); /* the older one reaches it */
    checkpoint(f);
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

static void
what_a_running_checkpoint_has_gathered_waits_for_two_later(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);
    checkpoint(f);

    (void)bfti_space_cut(f->p.pf);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_unlink(f->p.pf, place, BFTI_GATHERED_NOW, 0));
    bfti_space_finish(f->p.pf, 1);
    checkpoint(f);
    assert_true(used_after_release(f, place));
    checkpoint(f);
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

static void what_a_running_checkpoint_replaces_counts_it(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f), second = linked(f);
    checkpoint(f);

    (void)bfti_space_cut(f->p.pf);
    unlink_now(f, place, 0);
    bfti_space_finish(f->p.pf, 1);
    assert_true(used_after_release(f, place)); /* the older one reaches it */
    checkpoint(f);
    assert_false(used_after_release(f, place));

    /* Not if that was abandoned. */
    (void)bfti_space_cut(f->p.pf);
    unlink_now(f, second, 0);
    bfti_space_abandon(f->p.pf);
    checkpoint(f);
    assert_true(used_after_release(f, second));
    checkpoint(f);
    assert_false(used_after_release(f, second));
    fixture_close(f);
}

static void with_both_superblocks_written_one_checkpoint_will_do(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t before = linked(f), while_it_runs = linked(f),
             gathered = linked(f);
    checkpoint(f);
    bfti_space_twin(f->p.pf);

    unlink_now(f, before, 0);
    assert_true(used_after_release(f, before));
    (void)bfti_space_cut(f->p.pf);
    unlink_now(f, while_it_runs, 0);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_unlink(f->p.pf, gathered, BFTI_GATHERED_NOW, 0));
    bfti_space_finish(f->p.pf, 1);
    assert_true(used_after_release(f, before));
    assert_true(used_after_release(f, while_it_runs));
    bfti_space_twin(f->p.pf);
    assert_false(used_after_release(f, before));
    assert_false(used_after_release(f, while_it_runs));
    assert_true(used_after_release(f, gathered)); /* this image has it */
    checkpoint(f);
    bfti_space_twin(f->p.pf);
    assert_false(used_after_release(f, gathered));
    fixture_close(f);
}

static void an_abandoned_checkpoint_does_not_count(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);
    checkpoint(f);
    unlink_now(f, place, 0);
    for (unsigned i = 0; i < 3; i++) {
        (void)bfti_space_cut(f->p.pf);
        bfti_space_abandon(f->p.pf);
        assert_true(used_after_release(f, place));
    }
    checkpoint(f);
    assert_true(used_after_release(f, place));
    checkpoint(f);
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

static void an_extent_that_no_image_had_is_free_at_once(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    checkpoint(f);
    uint64_t place = linked(f);
    unlink_now(f, place, 0);
    assert_false(used_after_release(f, place));

    /* Not so if a checkpoint began in between ... */
    place = linked(f);
    (void)bfti_space_cut(f->p.pf);
    unlink_now(f, place, 0);
    assert_true(used_after_release(f, place));
    /* ... or ran when it was allocated ... */
    uint64_t second = linked(f);
    bfti_space_finish(f->p.pf, 1);
    unlink_now(f, second, 0);
    assert_true(used_after_release(f, second));
    /* ... or if the log names it. */
    uint64_t third = linked(f);
    unlink_now(f, third, 5);
    assert_true(used_after_release(f, third));
    f->redo = 6;
    checkpoint(f);
    checkpoint(f);
    assert_false(used_after_release(f, place));
    assert_false(used_after_release(f, second));
    assert_false(used_after_release(f, third));
    fixture_close(f);
}

static void a_place_in_the_log_waits_for_redo_to_pass_it(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);
    unlink_now(f, place, 100);
    f->redo = 100;
    for (unsigned i = 0; i < 4; i++) {
        checkpoint(f);
        assert_true(used_after_release(f, place));
    }
    f->redo = 101;
    checkpoint(f);
    assert_true(used_after_release(f, place)); /* the older one's redo */
    checkpoint(f);
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

static void a_place_that_a_reader_names_is_kept(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t quick = linked(f), slow;
    f->named = quick;
    unlink_now(f, quick, 0);
    assert_true(used_after_release(f, quick));
    f->named = 0;
    assert_false(used_after_release(f, quick));

    slow = linked(f);
    checkpoint(f);
    f->named = slow;
    unlink_now(f, slow, 0);
    checkpoint(f);
    checkpoint(f);
    assert_true(used_after_release(f, slow));
    f->named = 0;
    assert_false(used_after_release(f, slow));
    fixture_close(f);
}

/* Many at once: lists of several nodes, some of whose entries stay. */
static void long_lists_are_released_in_part(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static uint64_t place[MANY];
    struct fixture *f = fixture_open();
    struct bfti_space_stats stats;

    for (unsigned i = 0; i < MANY; i++)
        place[i] = linked(f);
    checkpoint(f);
    for (unsigned i = 0; i < MANY; i++)
        unlink_now(f, place[i], i % 7 == 0 ? 50 : 0);
    checkpoint(f);
    uint64_t late = linked(f);
    unlink_now(f, late, 9);
    checkpoint(f);
    for (unsigned i = 0; i < MANY; i++)
        if (i % 500 == 0 || i % 7 == 1)
            assert_int_equal(used_after_release(f, place[i]), i % 7 == 0);
    bfti_space_stats(f->p.pf, &stats);
    /* ... and LATE, and the map of the last checkpoint but one. */
    assert_int_equal(stats.held_bytes / BFTI_BLOCK, (MANY + 6) / 7 + 2);
    f->redo = 51;
    checkpoint(f);
    checkpoint(f);
    for (unsigned i = 0; i < MANY; i += 499)
        assert_false(used_after_release(f, place[i]));
    assert_false(used_after_release(f, late));
    fixture_close(f);
}

/* As if its superblock stayed on disk: the image, and what redo from it names,
 * unlinked before the cut or after it. */
static void what_a_copy_is_made_of_is_held(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_space_stats stats;
    uint64_t imaged = linked(f), logged = linked(f), gone = linked(f);

    checkpoint(f);
    unlink_now(f, gone, 0);
    unlink_now(f, logged, 70);
    f->redo = 60;
    checkpoint(f);
    bfti_space_hold(f->p.pf);
    unlink_now(f, imaged, 0);
    uint64_t later = linked(f);
    checkpoint(f);
    unlink_now(f, later, 0);
    f->redo = 100;
    for (int i = 0; i < 3; i++)
        checkpoint(f);
    assert_false(used_after_release(f, gone));
    assert_true(used_after_release(f, imaged));
    assert_true(used_after_release(f, logged));
    /* What comes and goes meanwhile is reused. */
    assert_false(used_after_release(f, later));
    bfti_space_stats(f->p.pf, &stats);
    /* Those two, and the map of the held checkpoint; another map waits besides. */
    assert_int_equal(stats.kept_bytes / BFTI_BLOCK, 3);
    assert_int_equal(stats.held_bytes / BFTI_BLOCK, 4);
    bfti_space_unhold(f->p.pf);
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(stats.kept_bytes, 0);
    assert_false(used_after_release(f, imaged));
    assert_false(used_after_release(f, logged));
    fixture_close(f);
}

/* --- holes ------------------------------------------------------------------- */

enum { HOLED = 600, LEFT = 16 };

/* Of HOLED extents, every LEFTth stays, the others are free: runs of LEFT - 1. */
static void make_free(struct fixture *f, uint64_t place[HOLED])
{
    f->p.pf->space.hole_floor = 0;
    for (unsigned i = 0; i < HOLED; i++)
        place[i] = linked(f);
    checkpoint(f);
    for (unsigned i = 0; i < HOLED; i++)
        if (i % LEFT != LEFT - 1)
            unlink_now(f, place[i], 0);
    checkpoint(f);
}

static void count_holes(void *arg, uint64_t block, uint64_t n)
{
    (void)block;
    *(uint64_t *)arg += n;
}

static void free_space_inside_the_file_is_given_back(void **state)
{
    (void)state;
    static uint64_t place[HOLED];
    struct fixture *f = fixture_open();
    struct bfti_space_stats stats;
    uint64_t blocks = 0;
    bool more;

    make_free(f, place);
    pf_on_punch(&f->p, BFT_OK, count_holes, &blocks);
    /* Nothing that waits. */
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_int_equal(0, blocks);
    checkpoint(f);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1, &more));
    assert_true(more);
    assert_int_equal(LEFT - 1, blocks);
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_false(more);
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(blocks * BFTI_BLOCK, stats.hole_bytes);
    assert_true(stats.file_bytes - stats.hole_bytes <=
                stats.live_bytes + stats.live_bytes / 4 +
                    UINT64_C(20) * BFTI_BLOCK);
    for (unsigned i = LEFT - 1; i < HOLED; i += LEFT)
        pf_expect(&f->p, place[i], 100, 1);
    /* Enough is enough; and what is written again is no hole. */
    blocks = 0;
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_int_equal(0, blocks);
    for (unsigned i = 0; i < HOLED / 2; i++)
        pf_expect(&f->p, linked(f), 100, 1);
    bfti_space_stats(f->p.pf, &stats);
    assert_true(stats.hole_bytes < UINT64_C(300) * BFTI_BLOCK);
    fixture_close(f);
}

static void a_file_system_without_holes_is_not_asked_again(void **state)
{
    (void)state;
    static uint64_t place[HOLED];
    static const struct {
        bft_status refused, answer;
        bool again;
    } cases[] = {{BFT_UNSUPPORTED, BFT_OK, false},
                 {BFT_NO_SPACE, BFT_OK, true},
                 {BFT_IO, BFT_IO, true}};

    for (unsigned i = 0; i < 3; i++) {
        struct fixture *f = fixture_open();
        struct bfti_space_stats stats;
        uint64_t blocks = 0;
        bool more;

        make_free(f, place);
        checkpoint(f);
        EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
        pf_on_punch(&f->p, cases[i].refused, NULL, NULL);
        EXPECT_STATUS(cases[i].answer, bfti_space_punch(f->p.pf, 9, &more));
        assert_false(more);
        bfti_space_stats(f->p.pf, &stats);
        assert_int_equal(0, stats.hole_bytes);
        pf_on_punch(&f->p, BFT_OK, count_holes, &blocks);
        EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 9, &more));
        assert_int_equal(cases[i].again, blocks > 0);
        for (unsigned j = LEFT - 1; j < HOLED; j += LEFT)
            pf_expect(&f->p, place[j], 100, 1);
        fixture_close(f);
    }
}

struct refusal {
    struct pagefile_fixture *p;
    uint64_t tried;
};

/* This one is refused, and none after it. */
static void refuse_once(void *arg, uint64_t block, uint64_t n)
{
    struct refusal *refusal = arg;
    (void)block, (void)n;
    refusal->tried++;
    pf_on_punch(refusal->p, BFT_OK, refuse_once, refusal);
}

/* Whatever could be done after it. */
static void the_first_refusal_of_a_hole_is_told(void **state)
{
    (void)state;
    static uint64_t place[HOLED];
    struct fixture *f = fixture_open();
    struct refusal refusal = {&f->p, 0};
    bool more;

    make_free(f, place);
    checkpoint(f);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    pf_on_punch(&f->p, BFT_IO, refuse_once, &refusal);
    EXPECT_STATUS(BFT_IO, bfti_space_punch(f->p.pf, 9, &more));
    assert_false(more);
    assert_int_equal(1, refusal.tried);
    /* The next call goes on. */
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 9, &more));
    assert_true(refusal.tried > 1);
    fixture_close(f);
}

static void giving_back_what_is_not_in_use_is_told(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);

    unlink_now(f, place, 0);
    EXPECT_STATUS(BFT_CORRUPT, bfti_extent_unlink(f->p.pf, place, 0, 0));
    EXPECT_STATUS(BFT_CORRUPT, bfti_extent_unlink(
                                   f->p.pf, bfti_disk_place(800, 8, 0), 0, 0));
    EXPECT_STATUS(
        BFT_CORRUPT,
        bfti_extent_unlink(f->p.pf, bfti_disk_place(1u << 30, 8, 0), 0, 0));
    EXPECT_STATUS(BFT_CORRUPT, bfti_extent_unlink(f->p.pf, 0, 0, 0));
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

/* --- the map ---------------------------------------------------------------------- */

static void the_map_has_what_the_image_reaches(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_pagefile *pf = f->p.pf;
    uint64_t kept = linked(f), gone = linked(f), late_gone = linked(f);
    uint64_t private = pf_write(&f->p, 100, 1);
    uint64_t fresh[BFTI_MAP_PLACES];

    unlink_now(f, gone, 0);
    (void)bfti_space_cut(pf);
    /* In a leaf that the checkpoint has passed, and in one that it has not. */
    uint64_t late = pf_write(&f->p, 100, 1), early = pf_write(&f->p, 100, 1);
    bfti_extent_link(pf, late, BFTI_GATHERED_NOW);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_unlink(pf, late_gone, BFTI_GATHERED_NOW, 0));
    bfti_extent_link(pf, early, 0);
    EXPECT_STATUS(BFT_OK, bfti_space_write(pf, NULL, 0, fresh, BFTI_MAP_PLACES,
                                           &f->map_count));
    memcpy(f->map, fresh, sizeof fresh);
    bfti_space_finish(pf, 1);
    reload(f);
    pf = f->p.pf;
    assert_true(bfti_space_is_used(pf, kept));
    assert_true(bfti_space_is_used(pf, late_gone));
    assert_true(bfti_space_is_used(pf, early));
    assert_true(bfti_space_is_used(pf, f->map[0]));
    assert_false(bfti_space_is_used(pf, gone));
    assert_false(bfti_space_is_used(pf, late));
    assert_false(bfti_space_is_used(pf, private));
    fixture_close(f);
}

static void what_was_kept_aside_is_in_the_next_map(void **state)
{
    (void)state;
    for (unsigned abandon = 0; abandon < 2; abandon++) {
        struct fixture *f = fixture_open();
        struct bfti_pagefile *pf = f->p.pf;
        uint64_t gone = linked(f);

        (void)bfti_space_cut(pf);
        uint64_t late = pf_write(&f->p, 100, 1), brief = pf_write(&f->p, 9, 1);
        bfti_extent_link(pf, late, BFTI_GATHERED_NOW);
        bfti_extent_link(pf, brief, BFTI_GATHERED_NOW);
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_unlink(pf, brief, BFTI_GATHERED_NOW, 0));
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_unlink(pf, gone, BFTI_GATHERED_NOW, 0));
        if (abandon)
            bfti_space_abandon(pf);
        else
            bfti_space_finish(pf, 1);
        checkpoint(f);
        reload(f);
        assert_true(bfti_space_is_used(f->p.pf, late));
        assert_false(bfti_space_is_used(f->p.pf, brief));
        assert_false(bfti_space_is_used(f->p.pf, gone));
        fixture_close(f);
    }
}

/* Abandoned after its map was written: the old map is still the one on disk,
 * is given again next time, and nothing is lost in the end. */
static void a_map_may_be_written_in_vain(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_pagefile *pf = f->p.pf;
    struct bfti_space_stats stats;
    uint64_t fresh[BFTI_MAP_PLACES];
    size_t count;

    checkpoint(f);
    for (unsigned i = 0; i < 5; i++) {
        (void)bfti_space_cut(pf);
        EXPECT_STATUS(BFT_OK, bfti_space_write(pf, f->map, f->map_count, fresh,
                                               BFTI_MAP_PLACES, &count));
        bfti_space_abandon(pf);
        /* Perhaps the superblock did reach the disk. */
        assert_true(used_after_release(f, fresh[0]));
        assert_true(bfti_space_is_used(pf, f->map[0]));
    }
    checkpoint(f);
    checkpoint(f);
    assert_false(used_after_release(f, fresh[0]));
    bfti_space_stats(pf, &stats);
    assert_int_equal(stats.live_bytes, f->map_count * BFTI_BLOCK);
    reload(f);
    fixture_close(f);
}

static void a_map_that_cannot_be_written_changes_nothing(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_pagefile *pf = f->p.pf;
    struct bfti_space_stats before, after;
    uint64_t fresh[BFTI_MAP_PLACES];
    size_t count = 0;

    uint64_t place = linked(f);
    checkpoint(f);
    bfti_space_stats(pf, &before);
    (void)bfti_space_cut(pf);
    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_NO_SPACE);
    EXPECT_STATUS(BFT_NO_SPACE,
                  bfti_space_write(pf, f->map, f->map_count, fresh,
                                   BFTI_MAP_PLACES, &count));
    EXPECT_STATUS(BFT_TOO_BIG,
                  bfti_space_write(pf, f->map, f->map_count, fresh, 0, &count));
    bft_status status;
    uint64_t nth = 0;
    do {
        pf_fail_alloc(++nth);
        status = bfti_space_write(pf, f->map, f->map_count, fresh,
                                  BFTI_MAP_PLACES, &count);
        if (status != BFT_OK) {
            EXPECT_STATUS(BFT_NO_MEMORY, status);
            assert_int_equal(count, 0);
            assert_int_equal(fresh[0], 0);
            bfti_space_stats(pf, &after);
            assert_int_equal(after.live_bytes, before.live_bytes);
        }
    } while (status != BFT_OK);
    pf_fail_alloc(0);
    assert_true(nth > 2);
    memcpy(f->map, fresh, sizeof fresh);
    f->map_count = count;
    bfti_space_finish(pf, 1);
    reload(f);
    assert_true(bfti_space_is_used(f->p.pf, place));
    fixture_close(f);
}

/* 20 GiB of file: two parts. */
static void a_large_file_has_a_map_of_several_parts(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    uint64_t far = bfti_disk_place((uint64_t)8 * 5000000, 20, 1);

    EXPECT_STATUS(BFT_OK, file->ops->truncate(file, (uint64_t)20 << 30));
    pagefile_fixture_reopen(&f->p);
    EXPECT_STATUS(BFT_OK, bfti_space_reset(f->p.pf));
    uint64_t near = linked(f);
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, far));
    bfti_extent_link(f->p.pf, far, 0);
    checkpoint(f);
    assert_int_equal(f->map_count, 2);
    reload(f);
    assert_true(bfti_space_is_used(f->p.pf, near));
    assert_true(bfti_space_is_used(f->p.pf, far));
    assert_false(bfti_space_is_used(f->p.pf, far + ((uint64_t)24 << 26)));
    pf_expect(&f->p, near, 100, 1);

    uint64_t one = f->map[0];
    f->map[0] = f->map[1];
    f->map[1] = one;
    pagefile_fixture_reopen(&f->p);
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_space_load(f->p.pf, f->map, 2, &f->p.scratch));
    fixture_close(f);
}

static void a_map_that_cannot_be_right_is_refused(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_pagefile *pf = f->p.pf;
    struct bfti_scratch *scratch = &f->p.scratch;
    uint64_t place = linked(f);

    checkpoint(f);
    EXPECT_STATUS(BFT_CORRUPT, bfti_space_load(pf, f->map, 0, scratch));
    EXPECT_STATUS(BFT_CORRUPT, bfti_space_load(pf, &place, 1, scratch));
    uint64_t twice[2] = {f->map[0], f->map[0]};
    EXPECT_STATUS(BFT_CORRUPT, bfti_space_load(pf, twice, 2, scratch));

    /* Nothing can be written as long as the space is not known. */
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    EXPECT_STATUS(BFT_INVALID, bfti_extent_write(pf, &info, "x", 1, &place));

    /* A map with a right checksum that lacks itself, or the superblocks, or
     * that reaches beyond the file. */
    const uint64_t bits[] = {0x7, ~(uint64_t)0 << 1, ~(uint64_t)0};
    for (size_t i = 0; i < 3; i++) {
        EXPECT_STATUS(BFT_OK, bfti_space_reset(pf));
        le64 part[] = {le64_of(0), le64_of(64), le64_of(bits[i])};
        info.type = BFTI_EXTENT_MAP;
        uint64_t alone = pf_write(&f->p, 10, 1); /* block 2 */
        (void)alone;
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_write(pf, &info, part, sizeof part, &place));
        EXPECT_STATUS(BFT_CORRUPT, bfti_space_load(pf, &place, 1, scratch));
    }
    fixture_close(f);
}

static void any_damage_to_the_map_is_found(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    (void)linked(f);
    checkpoint(f);
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    uint64_t at = bfti_disk_grain(f->map[0]) * BFTI_GRAIN;
    for (uint64_t i = at; i < at + 72; i += 5) {
        uint8_t byte;
        size_t got;
        EXPECT_STATUS(BFT_OK, file->ops->read(file, i, &byte, 1, &got));
        byte ^= 0x10;
        EXPECT_STATUS(BFT_OK, file->ops->write(file, i, &byte, 1));
        EXPECT_STATUS(
            BFT_CORRUPT,
            bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
        byte ^= 0x10;
        EXPECT_STATUS(BFT_OK, file->ops->write(file, i, &byte, 1));
    }
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    fixture_close(f);
}

/* After an open both superblocks name what was loaded: what goes then waits
 * for both to be replaced. */
static void after_loading_both_superblocks_count(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place = linked(f);
    f->redo = 1000;
    checkpoint(f);
    reload(f);
    unlink_now(f, place, 0);
    checkpoint(f);
    assert_true(used_after_release(f, place));
    checkpoint(f);
    assert_false(used_after_release(f, place));
    fixture_close(f);
}

static void reserved_blocks_are_not_allocated(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t far = pf_write(&f->p, 9000, 3), near = pf_write(&f->p, 100, 4);
    checkpoint(f); /* neither is linked: the map lacks both */
    reload(f);
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, far));
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, far));
    EXPECT_STATUS(
        BFT_OK,
        bfti_extent_reserve(f->p.pf, bfti_disk_place((uint64_t)8 << 30, 8, 0)));
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, 12345));
    for (unsigned i = 0; i < 20; i++) {
        uint64_t place = pf_write(&f->p, 100, 5);
        assert_false(place_block(place) >= place_block(far) &&
                     place_block(place) < place_block(far) + 3);
    }
    pf_expect(&f->p, far, 9000, 3);
    (void)near;
    fixture_close(f);
}

/* --- allocation ---------------------------------------------------------------------- */

static void free_runs_are_filled_before_the_file_grows(void **state)
{
    (void)state;
    enum { N = 9000 }; /* more than two chunks */
    static uint64_t place[N];
    struct fixture *f = fixture_open();
    struct bfti_space_stats before, after;

    for (unsigned i = 0; i < N; i++)
        place[i] = pf_write(&f->p, 1, 1);
    bfti_space_stats(f->p.pf, &before);
    assert_int_equal(before.live_bytes, (uint64_t)N * BFTI_BLOCK);
    /* Runs of three and holes of one. */
    for (unsigned i = 0; i + 10 < N; i += 10) {
        bfti_extent_discard(f->p.pf, place[i]);
        for (unsigned j = 4; j < 7; j++)
            bfti_extent_discard(f->p.pf, place[i + j]);
    }
    /* A release turns back to the front; else what is left of the last step
     * of growth would come first. */
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    for (unsigned i = 0; i + 10 < N; i += 10) {
        (void)pf_write(&f->p, 9000, 2);
        (void)pf_write(&f->p, 1, 2);
    }
    bfti_space_stats(f->p.pf, &after);
    /* An extent never lies in two chunks, so a run at a border may be lost. */
    assert_true(after.file_bytes <= before.file_bytes + 8 * BFTI_BLOCK);
    fixture_close(f);
}

static void the_end_of_the_file_is_given_back(void **state)
{
    (void)state;
    enum { N = 150 };
    uint64_t place[N], bytes;
    struct fixture *f = fixture_open();
    struct bfti_space_stats stats;
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);

    for (unsigned i = 0; i < N; i++) {
        place[i] = pf_write(&f->p, BFTI_EXTENT_RAW_MAX, i);
        bfti_extent_link(f->p.pf, place[i], 0);
    }
    for (unsigned i = 1; i < N; i++)
        unlink_now(f, place[i], 0);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    EXPECT_STATUS(BFT_OK, file->ops->size(file, &bytes));
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(bytes, stats.file_bytes);
    assert_true(bytes <= 2 << 20);
    pf_expect(&f->p, place[0], BFTI_EXTENT_RAW_MAX, 0);

    /* And it grows again. */
    for (unsigned i = 1; i < N; i++)
        place[i] = pf_write(&f->p, BFTI_EXTENT_RAW_MAX, i);
    for (unsigned i = 0; i < N; i++)
        pf_expect(&f->p, place[i], BFTI_EXTENT_RAW_MAX, i);
    fixture_close(f);
}

/* One who writes while the file is being cut. */
struct cutter {
    struct fixture *f;
    void (*wait)(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                 uint64_t timeout_ns);
    struct bfti_thread *thread;
    uint64_t place[4];
    bft_status status;
    _Atomic bool waits, wrote;
};
static struct cutter cutter;

static void wait_and_tell(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                          uint64_t timeout_ns)
{
    if (word == &cutter.f->p.pf->space.truncating)
        cutter.waits = true;
    cutter.wait(ctx, word, expected, timeout_ns);
}

static void cutter_write(void *arg)
{
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 7, 9, 10};
    uint8_t *raw = malloc(BFTI_EXTENT_RAW_MAX);

    (void)arg;
    pf_fill(raw, BFTI_EXTENT_RAW_MAX, 9);
    for (unsigned i = 0; i < 4 && cutter.status == BFT_OK; i++)
        cutter.status = bfti_extent_write(
            cutter.f->p.pf, &info, raw, BFTI_EXTENT_RAW_MAX, &cutter.place[i]);
    free(raw);
    cutter.wrote = true;
}

/* The writer has all the time it wants, until it waits for us. */
static void cutter_start(void *arg)
{
    const struct bfti_env *env = &cutter.f->p.env;

    (void)arg;
    EXPECT_STATUS(BFT_OK, env->thread_start(env->ctx, cutter_write, NULL,
                                            &cutter.thread));
    while (!cutter.waits && !cutter.wrote)
        env->yield(env->ctx);
}

static void a_cut_of_the_file_takes_nothing_written_meanwhile(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    uint64_t place[8];

    memset(&cutter, 0, sizeof cutter);
    cutter.f = f;
    cutter.wait = f->p.env.wait;
    f->p.env.wait = wait_and_tell;
    for (unsigned i = 0; i < 8; i++)
        place[i] = pf_write(&f->p, BFTI_EXTENT_RAW_MAX, i);
    for (unsigned i = 0; i < 8; i++)
        bfti_extent_discard(f->p.pf, place[i]);
    pf_on_truncate(&f->p, cutter_start, NULL);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    assert_non_null(cutter.thread);
    f->p.env.thread_join(f->p.env.ctx, cutter.thread);
    EXPECT_STATUS(BFT_OK, cutter.status);
    for (unsigned i = 0; i < 4; i++)
        pf_expect(&f->p, cutter.place[i], BFTI_EXTENT_RAW_MAX, 9);
    fixture_close(f);
}

/* --- the audit ------------------------------------------------------------------------ */

static void the_audit_finds_leaks_and_second_owners(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    struct bfti_pagefile *pf = f->p.pf;
    uint64_t a = linked(f), b = pf_write(&f->p, 9000, 1), c = linked(f);

    bfti_extent_link(pf, b, 0);
    checkpoint(f);
    unlink_now(f, c, 0); /* held: nobody's, but no leak */
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(pf));
    EXPECT_STATUS(BFT_INVALID, bfti_space_audit_begin(pf));
    assert_true(bfti_space_audit_mark(pf, a));
    assert_false(bfti_space_audit_mark(pf, a));
    assert_true(bfti_space_audit_mark(pf, f->map[0]));
    assert_int_equal(bfti_space_audit_end(pf), 3);

    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(pf));
    assert_true(bfti_space_audit_mark(pf, a));
    assert_true(bfti_space_audit_mark(pf, b));
    assert_true(bfti_space_audit_mark(pf, f->map[0]));
    assert_int_equal(bfti_space_audit_end(pf), 0);

    for (uint64_t nth = 1;; nth++) {
        pf_fail_alloc(nth);
        bft_status status = bfti_space_audit_begin(pf);
        pf_fail_alloc(0);
        if (status == BFT_OK)
            break;
        EXPECT_STATUS(BFT_NO_MEMORY, status);
    }
    assert_int_equal(bfti_space_audit_end(pf), 5);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unlinked_extent_waits_for_two_checkpoints),
        cmocka_unit_test(
            what_a_running_checkpoint_has_gathered_waits_for_two_later),
        cmocka_unit_test(what_a_running_checkpoint_replaces_counts_it),
        cmocka_unit_test(with_both_superblocks_written_one_checkpoint_will_do),
        cmocka_unit_test(an_abandoned_checkpoint_does_not_count),
        cmocka_unit_test(an_extent_that_no_image_had_is_free_at_once),
        cmocka_unit_test(a_place_in_the_log_waits_for_redo_to_pass_it),
        cmocka_unit_test(a_place_that_a_reader_names_is_kept),
        cmocka_unit_test(long_lists_are_released_in_part),
        cmocka_unit_test(what_a_copy_is_made_of_is_held),
        cmocka_unit_test(free_space_inside_the_file_is_given_back),
        cmocka_unit_test(a_file_system_without_holes_is_not_asked_again),
        cmocka_unit_test(the_first_refusal_of_a_hole_is_told),
        cmocka_unit_test(giving_back_what_is_not_in_use_is_told),
        cmocka_unit_test(the_map_has_what_the_image_reaches),
        cmocka_unit_test(what_was_kept_aside_is_in_the_next_map),
        cmocka_unit_test(a_map_may_be_written_in_vain),
        cmocka_unit_test(a_map_that_cannot_be_written_changes_nothing),
        cmocka_unit_test(a_large_file_has_a_map_of_several_parts),
        cmocka_unit_test(a_map_that_cannot_be_right_is_refused),
        cmocka_unit_test(any_damage_to_the_map_is_found),
        cmocka_unit_test(after_loading_both_superblocks_count),
        cmocka_unit_test(reserved_blocks_are_not_allocated),
        cmocka_unit_test(free_runs_are_filled_before_the_file_grows),
        cmocka_unit_test(the_end_of_the_file_is_given_back),
        cmocka_unit_test(a_cut_of_the_file_takes_nothing_written_meanwhile),
        cmocka_unit_test(the_audit_finds_leaks_and_second_owners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
