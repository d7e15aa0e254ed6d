/*
 * Space where one thing ends and another begins: the end of a chunk, of the file, of
 * memory, and of what may be asked; files laid out by hand, without writing them.
 */
#include "pagefile_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "fileio/pagefile_internal.h"

struct fixture {
    struct pagefile_fixture p;
    uint64_t map[BFTI_MAP_PLACES];
    size_t map_count;
    uint64_t redo;
    uint64_t named;        /* a place that a reader names */
    uint64_t unlink_later; /* while a release asks for names */
};

static void unnamed(void *ctx, uint64_t *places, size_t n)
{
    struct fixture *f = ctx;
    uint64_t later = f->unlink_later;
    f->unlink_later = 0;
    if (later != 0)
        EXPECT_STATUS(BFT_OK, bfti_extent_unlink(f->p.pf, later, 0, 0));
    for (size_t i = 0; i < n; i++)
        if (places[i] != f->named)
            places[i] = 0;
}

static void reopen(struct fixture *f)
{
    pagefile_fixture_reopen(&f->p);
    f->p.pf->space.hole_floor = 0;
}

/* A file of BLOCKS, all of them free. */
static struct fixture *fixture_of(uint64_t blocks)
{
    struct fixture *f = calloc(1, sizeof *f);
    pagefile_fixture_open(&f->p, false);
    f->p.options.unnamed = unnamed;
    f->p.options.unnamed_ctx = f;
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    EXPECT_STATUS(BFT_OK, file->ops->truncate(file, blocks * BFTI_BLOCK));
    reopen(f);
    EXPECT_STATUS(BFT_OK, bfti_space_reset(f->p.pf));
    f->redo = 1;
    return f;
}

static void fixture_close(struct fixture *f)
{
    pagefile_fixture_close(&f->p);
    free(f);
}

/* --- what lies there ------------------------------------------------------------ */

static uint64_t place_of(uint64_t block, unsigned blocks)
{
    return bfti_disk_place(block * BLOCK_GRAINS, blocks * BLOCK_GRAINS, 1);
}

/* Linked, of N blocks at BLOCK. */
static uint64_t put(struct fixture *f, uint64_t block, unsigned n)
{
    uint64_t place = place_of(block, n);
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, place));
    bfti_extent_link(f->p.pf, place, 0);
    return place;
}

/* All blocks from FROM to END are used. */
static void fill(struct fixture *f, uint64_t from, uint64_t end)
{
    enum { AT_ONCE = 64 };
    for (uint64_t at = from; at < end; at += AT_ONCE)
        (void)put(f, at, end - at < AT_ONCE ? (unsigned)(end - at) : AT_ONCE);
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

static bool is_taken(const struct fixture *f, uint64_t place)
{
    const struct bfti_space *space = &f->p.pf->space;
    uint64_t block = place_block(place);
    return block < space->limit &&
           bit_get(space_chunk_of(space, block)->used, block);
}

static bool taken_after_release(struct fixture *f, uint64_t place)
{
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    return is_taken(f, place);
}

static void expect_told(const char *what)
{
    char text[400];
    (void)bft_last_error(text, sizeof text);
    if (strstr(text, what) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", text, what);
}

/* --- growing ---------------------------------------------------------------------- */

/* Of a chunk that has not room enough left what is left stays free. */
static void an_extent_lies_in_one_chunk(void **state)
{
    (void)state;
    for (unsigned left = 0; left < 3; left++) {
        struct fixture *f = fixture_of(CHUNK_BLOCKS - left);
        fill(f, SUPERBLOCKS, CHUNK_BLOCKS - left);
        uint64_t place = pf_write(&f->p, 3 * BFTI_BLOCK - 100, 5);
        assert_int_equal(CHUNK_BLOCKS, place_block(place));
        f->p.pf->space.cursor = 0;
        for (unsigned i = 0; i < left; i++) {
            uint64_t small = pf_write(&f->p, 100, 6);
            assert_int_equal(CHUNK_BLOCKS - left + i, place_block(small));
        }
        pf_expect(&f->p, place, 3 * BFTI_BLOCK - 100, 5);
        fixture_close(f);
    }
}

static void without_memory_the_file_does_not_grow(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    struct bfti_space_stats before, after;
    uint64_t nth = 0, place;
    bft_status status;

    fill(f, SUPERBLOCKS, CHUNK_BLOCKS);
    bfti_space_stats(f->p.pf, &before);
    do {
        pf_fail_alloc(++nth);
        status = bfti_extent_write_alone(f->p.pf, &info, "x", 1, &place);
        pf_fail_alloc(0);
        bfti_space_stats(f->p.pf, &after);
        if (status != BFT_OK) {
            EXPECT_STATUS(BFT_NO_MEMORY, status);
            assert_int_equal(before.live_bytes, after.live_bytes);
        }
    } while (status != BFT_OK);
    assert_true(nth > 1);
    assert_int_equal(CHUNK_BLOCKS, place_block(place));
    fixture_close(f);
}

static void the_format_ends_somewhere(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    bfti_space_lock(f->p.pf);
    EXPECT_STATUS(BFT_NO_SPACE,
                  bfti_space_cover_locked(f->p.pf, BLOCKS_MAX + 1));
    expect_told("32 TiB");
    EXPECT_STATUS(BFT_OK, bfti_space_cover_locked(f->p.pf, CHUNK_BLOCKS + 1));
    bfti_space_unlock(f->p.pf);
    fixture_close(f);
}

/* Of a file that is as long as a map can tell there is an image still. */
static void the_file_ends_where_its_map_does(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    struct bfti_space *space = &f->p.pf->space;
    uint64_t most = bfti_map_blocks_max(), block;

    assert_int_equal(0, most % CHUNK_BLOCKS);
    bfti_space_lock(f->p.pf);
    EXPECT_STATUS(BFT_OK, bfti_space_cover_locked(f->p.pf, most));
    for (size_t i = 0; i < space->chunk_count; i++)
        memset(space->chunk[i]->used, 0xff, sizeof space->chunk[i]->used);
    space->limit = most - CHUNK_BLOCKS;
    memset(space->chunk[space->chunk_count - 1]->used, 0, CHUNK_BLOCKS / 8);
    space->growth = GROWTH_MAX;
    for (unsigned i = 0; i < CHUNK_BLOCKS / 64; i++) {
        EXPECT_STATUS(BFT_OK, bfti_space_alloc_locked(f->p.pf, 64, &block));
        assert_int_equal(most - CHUNK_BLOCKS + i * 64, block);
    }
    assert_int_equal(most, space->limit);
    EXPECT_STATUS(BFT_NO_SPACE, bfti_space_alloc_locked(f->p.pf, 1, &block));
    expect_told("253 GiB");
    assert_int_equal(most, space->limit);
    bfti_space_unlock(f->p.pf);
    fixture_close(f);
}

/* --- linking --------------------------------------------------------------------- */

/* As redo may do it: of the others none is counted for that. */
static void an_extent_may_be_linked_twice(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    struct bfti_space_stats stats;
    uint64_t one = pf_write(&f->p, 100, 1), other = pf_write(&f->p, 100, 2);

    for (unsigned i = 0; i < 3; i++)
        bfti_extent_link(f->p.pf, one, 0);
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(0, stats.private_extents);
    bfti_extent_discard(f->p.pf, other);
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(0, stats.private_extents);
    assert_int_equal(BFTI_BLOCK, stats.live_bytes);
    /* What the file cannot hold is not. */
    bfti_extent_link(f->p.pf, place_of(CHUNK_BLOCKS - 1, 2), 0);
    bfti_extent_link(f->p.pf, 12345, 0);
    checkpoint(f);
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    assert_true(bfti_space_is_used(f->p.pf, one));
    assert_false(is_taken(f, place_of(CHUNK_BLOCKS - 1, 1)));
    fixture_close(f);
}

/* Only what the running checkpoint itself has gathered waits for its end. */
static void what_an_earlier_one_gathered_is_not_kept_aside(void **state)
{
    (void)state;
    for (uint64_t ago = 0; ago < 2; ago++) {
        struct fixture *f = fixture_of(CHUNK_BLOCKS);
        checkpoint(f);
        uint64_t epoch = bfti_space_cut(f->p.pf);
        uint64_t place = pf_write(&f->p, 100, 1), map[BFTI_MAP_PLACES];
        size_t count;
        bfti_extent_link(f->p.pf, place, epoch - ago);
        EXPECT_STATUS(BFT_OK, bfti_space_write(f->p.pf, f->map, f->map_count,
                                               map, BFTI_MAP_PLACES, &count));
        bfti_space_finish(f->p.pf, 1);
        reopen(f);
        EXPECT_STATUS(BFT_OK,
                      bfti_space_load(f->p.pf, map, count, &f->p.scratch));
        assert_int_equal(ago == 1, bfti_space_is_used(f->p.pf, place));
        fixture_close(f);
    }
}

/* There is no room for one change more to be kept aside. */
static void run_full(struct fixture *f, uint64_t place)
{
    enum { MANY = 200 };
    struct bfti_space *space = &f->p.pf->space;

    for (unsigned i = 0; i < MANY; i++)
        bfti_extent_link(f->p.pf, place, BFTI_GATHERED_NOW);
    while (space->aside_count < space->aside_cap)
        bfti_extent_link(f->p.pf, place, BFTI_GATHERED_NOW);
}

static void expect_in_map(struct fixture *f, uint64_t place, bool in)
{
    reopen(f);
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    assert_int_equal(in, bfti_space_is_used(f->p.pf, place));
}

/* PLACE goes, or (LINK) is linked once more. */
static void change_without_memory(struct fixture *f, uint64_t place, bool link)
{
    run_full(f, place);
    pf_fail_alloc(1 + !link); /* the first is for the list of what waits */
    if (link)
        bfti_extent_link(f->p.pf, place, BFTI_GATHERED_NOW);
    else
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_unlink(f->p.pf, place, BFTI_GATHERED_NOW, 0));
    assert_true(pf_alloc_failed());
    assert_int_equal(link, bfti_space_is_used(f->p.pf, place));
}

/* An image that is not known has no map; nothing of the change is forgotten, and
 * the next image has it. */
static void changes_kept_aside_may_want_memory(void **state)
{
    (void)state;
    for (unsigned link = 0; link < 2; link++) {
        struct fixture *f = fixture_of(CHUNK_BLOCKS);
        uint64_t place = linked(f), map[BFTI_MAP_PLACES], later;
        size_t count;

        checkpoint(f);
        (void)bfti_space_cut(f->p.pf);
        later = pf_write(&f->p, 100, 2);
        change_without_memory(f, place, link);
        bfti_extent_link(f->p.pf, later, BFTI_GATHERED_NOW);
        EXPECT_STATUS(BFT_NO_MEMORY,
                      bfti_space_write(f->p.pf, f->map, f->map_count, map,
                                       BFTI_MAP_PLACES, &count));
        expect_told("lost track");
        bfti_space_abandon(f->p.pf);
        checkpoint(f);
        expect_in_map(f, place, link);
        assert_true(bfti_space_is_used(f->p.pf, later));
        fixture_close(f);
    }
}

/* One that has its map by then is what it was. */
static void changes_behind_the_map_may_want_memory(void **state)
{
    (void)state;
    for (unsigned next = 0; next < 2; next++) {
        struct fixture *f = fixture_of(CHUNK_BLOCKS);
        uint64_t place = linked(f), map[BFTI_MAP_PLACES];

        (void)bfti_space_cut(f->p.pf);
        EXPECT_STATUS(BFT_OK,
                      bfti_space_write(f->p.pf, f->map, f->map_count, map,
                                       BFTI_MAP_PLACES, &f->map_count));
        change_without_memory(f, place, false);
        bfti_space_finish(f->p.pf, 1);
        memcpy(f->map, map, sizeof(map));
        if (next)
            checkpoint(f);
        expect_in_map(f, place, !next);
        fixture_close(f);
    }
}

/* --- what waits ------------------------------------------------------------------ */

/* It is held until the next opening. */
static void without_memory_what_is_unlinked_waits(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    uint64_t place = linked(f);

    pf_fail_alloc(1);
    unlink_now(f, place, 0);
    assert_true(pf_alloc_failed());
    assert_false(bfti_space_is_used(f->p.pf, place));
    for (unsigned i = 0; i < 3; i++)
        checkpoint(f);
    assert_true(taken_after_release(f, place));
    reopen(f);
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    assert_false(is_taken(f, place));
    fixture_close(f);
}

static void what_is_unlinked_during_a_release_comes_behind(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    uint64_t named = linked(f), later = linked(f);

    unlink_now(f, named, 0);
    f->named = named;
    f->unlink_later = later;
    assert_true(taken_after_release(f, named));
    assert_true(is_taken(f, later));
    assert_int_equal(0, f->unlink_later);
    f->named = 0;
    assert_false(taken_after_release(f, named));
    assert_false(is_taken(f, later));
    /* Nor is the end of the list lost. */
    uint64_t last = linked(f);
    unlink_now(f, last, 0);
    assert_false(taken_after_release(f, last));
    fixture_close(f);
}

/* Not what was unlinked before it, unless a frame that it reads names it. */
static void a_copy_needs_what_its_log_names(void **state)
{
    enum { BEFORE = 10, WITHIN = 100, REDO = 50 };
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    uint64_t plain = linked(f), before = linked(f), within = linked(f);

    checkpoint(f);
    unlink_now(f, plain, 0);
    unlink_now(f, before, BEFORE);
    checkpoint(f);
    unlink_now(f, within, WITHIN);
    f->redo = REDO;
    checkpoint(f);
    bfti_space_hold(f->p.pf);
    f->redo = 2 * WITHIN;
    checkpoint(f);
    checkpoint(f);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    assert_false(is_taken(f, plain));
    assert_false(is_taken(f, before));
    assert_true(is_taken(f, within));
    bfti_space_unhold(f->p.pf);
    assert_false(taken_after_release(f, within));
    fixture_close(f);
}

/* --- the end of the file ----------------------------------------------------------- */

static bft_status no_truncate(struct bfti_file *file, uint64_t bytes)
{
    (void)file, (void)bytes;
    return BFT_IO;
}

/* The file is as long as before, and nothing is written where it was to be cut. */
static void a_cut_that_fails_is_made_again(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    struct bfti_space_stats stats;
    bft_status (*truncate)(struct bfti_file *, uint64_t) = file->ops->truncate;

    pf_on_punch(&f->p, BFT_OK, NULL, NULL);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)file->ops;
    ops->truncate = no_truncate;
    for (unsigned i = 0; i < 2; i++) {
        EXPECT_STATUS(BFT_IO, bfti_space_release(f->p.pf));
        bfti_space_stats(f->p.pf, &stats);
        assert_int_equal(3 * CHUNK_BLOCKS * BFTI_BLOCK, stats.file_bytes);
    }
    fill(f, SUPERBLOCKS, f->p.pf->space.limit);
    ops->truncate = truncate;
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    bfti_space_stats(f->p.pf, &stats);
    assert_in_range(stats.file_bytes, 0, CHUNK_BLOCKS * BFTI_BLOCK);
    uint64_t place = linked(f);
    pf_expect(&f->p, place, 100, 1);
    fixture_close(f);
}

/* Before it is known what is in use, nothing is. */
static void of_a_space_that_is_not_loaded_nothing_is_asked(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    struct bfti_space_stats stats;
    uint64_t from;
    bool more;

    reopen(f);
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 9, &more));
    assert_false(more);
    assert_false(bfti_space_clean_begin(f->p.pf, &from));
    EXPECT_STATUS(BFT_INVALID, bfti_space_audit_begin(f->p.pf));
    bfti_space_stats(f->p.pf, &stats);
    assert_int_equal(3 * CHUNK_BLOCKS * BFTI_BLOCK, stats.file_bytes);
    assert_int_equal(0, stats.hole_bytes);
    fixture_close(f);
}

/* --- cleaning ---------------------------------------------------------------------- */

static void a_part_is_high_while_it_is_cleaned(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    uint64_t low = put(f, SUPERBLOCKS, 100);
    uint64_t high = put(f, 2 * CHUNK_BLOCKS + 70, 100);
    uint64_t from;

    assert_false(bfti_space_is_high(f->p.pf, high));
    assert_true(bfti_space_clean_begin(f->p.pf, &from));
    assert_int_equal(0, from % BLOCK_GRAINS);
    from /= BLOCK_GRAINS;
    assert_in_range(from, SUPERBLOCKS + 200, CHUNK_BLOCKS);
    assert_true(bfti_space_is_high(f->p.pf, high));
    assert_false(bfti_space_is_high(f->p.pf, low));
    assert_true(bfti_space_is_high(f->p.pf, place_of(from - 1, 2)));
    assert_false(bfti_space_is_high(f->p.pf, place_of(from - 1, 1)));
    uint64_t grain = bfti_disk_grain(high);
    assert_int_equal(grain,
                     bfti_space_clean_next(f->p.pf, from * BLOCK_GRAINS));
    assert_int_equal(grain + (uint64_t)99 * BLOCK_GRAINS,
                     bfti_space_clean_next(
                         f->p.pf, grain + (uint64_t)98 * BLOCK_GRAINS + 1));
    assert_int_equal(0, bfti_space_clean_next(
                            f->p.pf, grain + (uint64_t)100 * BLOCK_GRAINS));
    bfti_space_clean_end(f->p.pf);
    assert_false(bfti_space_is_high(f->p.pf, high));
    fixture_close(f);
}

static void a_file_that_stays_as_it_was_is_not_cleaned_for_ever(void **state)
{
    enum { PASSES = 3 };
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    uint64_t from;

    (void)put(f, SUPERBLOCKS, 100);
    for (unsigned lives = 0; lives < 2; lives++) {
        /* More lives there, but the file is no longer. */
        (void)put(f, 2 * CHUNK_BLOCKS + 1000 * lives, 100);
        for (unsigned i = 0; i < PASSES; i++) {
            assert_true(bfti_space_clean_begin(f->p.pf, &from));
            bfti_space_clean_end(f->p.pf);
        }
        assert_false(bfti_space_clean_begin(f->p.pf, &from));
        assert_int_equal(0, from);
    }
    fixture_close(f);
}

static void under_a_copy_nothing_is_cleaned(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    uint64_t from;

    (void)put(f, 2 * CHUNK_BLOCKS, 100);
    checkpoint(f);
    bfti_space_hold(f->p.pf);
    assert_false(bfti_space_clean_begin(f->p.pf, &from));
    bfti_space_unhold(f->p.pf);
    assert_true(bfti_space_clean_begin(f->p.pf, &from));
    fixture_close(f);
}

/* A file that could not be cut, of which less is used than was aimed at. */
static void what_is_out_of_reach_is_not_cleaned(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    uint64_t from;

    (void)put(f, SUPERBLOCKS, 100);
    pf_on_punch(&f->p, BFT_OK, NULL, NULL);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)file->ops;
    ops->truncate = no_truncate;
    EXPECT_STATUS(BFT_IO, bfti_space_release(f->p.pf));
    f->p.pf->space.hole_floor = GROWTH_MIN + 100;
    assert_false(bfti_space_clean_begin(f->p.pf, &from));
    f->p.pf->space.hole_floor = 0;
    assert_true(bfti_space_clean_begin(f->p.pf, &from));
    fixture_close(f);
}

/* Below the ceiling first; above it when there is no room, and wherever there is
 * once the file ends below. */
static void room_is_looked_for_below_the_ceiling(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(3 * CHUNK_BLOCKS);
    struct bfti_space *space = &f->p.pf->space;

    fill(f, SUPERBLOCKS, CHUNK_BLOCKS - 10);
    space->cursor = 1;
    atomic_store(&space->ceiling, CHUNK_BLOCKS - 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(CHUNK_BLOCKS - 10 + i,
                         place_block(pf_write(&f->p, 100, 1)));
    assert_int_equal(CHUNK_BLOCKS - 5, place_block(pf_write(&f->p, 100, 1)));
    atomic_store(&space->ceiling, 3 * CHUNK_BLOCKS);
    assert_int_equal(CHUNK_BLOCKS - 4, place_block(pf_write(&f->p, 100, 1)));
    fixture_close(f);
}

/* --- holes ------------------------------------------------------------------------- */

static void note_hole(void *arg, uint64_t block, uint64_t n)
{
    uint64_t *longest = arg;
    (void)block;
    if (n > *longest)
        *longest = n;
}

/* Every 14 blocks of the first chunk four are used; of the second one all are
 * free. */
static struct fixture *holed(void)
{
    struct fixture *f = fixture_of(2 * CHUNK_BLOCKS);
    for (unsigned at = SUPERBLOCKS; at + 4 <= CHUNK_BLOCKS; at += 14)
        (void)put(f, at, 4);
    return f;
}

/* A chunk that was searched in vain is passed over, until shorter ones will do. */
static void holes_are_made_of_the_longest_runs_first(void **state)
{
    (void)state;
    struct fixture *f = holed();
    uint64_t longest = 0;
    bool more;

    uint64_t place = pf_write(&f->p, 20 * BFTI_BLOCK - 100, 1);
    assert_int_equal(CHUNK_BLOCKS, place_block(place));
    pf_on_punch(&f->p, BFT_OK, note_hole, &longest);
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1, &more));
    assert_true(more);
    assert_int_equal(CHUNK_BLOCKS - 20, longest);
    longest = 0;
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_false(more);
    assert_int_equal(10, longest);
    pf_expect(&f->p, place, 20 * BFTI_BLOCK - 100, 1);
    fixture_close(f);
}

static void where_no_holes_can_be_made_none_are_looked_for(void **state)
{
    (void)state;
    struct fixture *f = holed();
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    bool more;

    pf_on_punch(&f->p, BFT_OK, NULL, NULL);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)file->ops;
    ops->punch = NULL;
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_false(more);
    assert_int_equal(0, f->p.pf->space.hole_blocks);
    fixture_close(f);
}

/* Little lives there, but nothing is free. */
static void of_what_waits_no_holes_are_made(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    uint64_t longest = 0;
    bool more;

    fill(f, SUPERBLOCKS, CHUNK_BLOCKS);
    checkpoint(f);
    for (uint64_t at = SUPERBLOCKS; at + 64 <= CHUNK_BLOCKS; at += 64)
        unlink_now(f, place_of(at, 64), 0);
    fill(f, CHUNK_BLOCKS + 1, f->p.pf->space.limit);
    for (uint64_t at = CHUNK_BLOCKS + 1; at + 64 <= f->p.pf->space.limit;
         at += 64)
        unlink_now(f, place_of(at, 64), 0);
    pf_on_punch(&f->p, BFT_OK, note_hole, &longest);
    EXPECT_STATUS(BFT_OK, bfti_space_punch(f->p.pf, 1000, &more));
    assert_int_equal(0, longest);
    fixture_close(f);
}

/* --- the map --------------------------------------------------------------------- */

static uint64_t write_part(struct fixture *f, uint64_t page_id,
                           const void *part, size_t bytes)
{
    struct bfti_extent_info info = {.type = BFTI_EXTENT_MAP,
                                    .page_id = page_id};
    uint64_t place;
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_write(f->p.pf, &info, part, bytes, &place));
    return place;
}

/* Whose checksum is right. */
static void a_forged_map_is_refused(void **state)
{
    static const struct {
        uint64_t page_id, first_block, blocks, bits;
        size_t bytes;
        const char *told;
    } parts[] = {
        {0, 0, 64, 7, 8, "another extent"},
        {1, 0, 64, 7, 24, "another extent"},
        {0, 0, BLOCKS_MAX + 1, 7, 24, "does not fit"},
        {0, 0, (uint64_t)1 << 32, 7, 24, "does not fit"},
        {0, 64, 64, 7, 24, "does not fit"},
        {0, 0, 128, 7, 24, "does not fit"},
        {0, 0, 64, 0x1e, 24, "superblocks"},
        {0, 0, 64, 0x1d, 24, "superblocks"},
        {0, 0, 64, 0x3, 24, "contain itself"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct fixture *f = fixture_of(CHUNK_BLOCKS);
        le64 part[] = {le64_of(parts[i].first_block), le64_of(parts[i].blocks),
                       le64_of(parts[i].bits)};
        uint64_t place = write_part(f, parts[i].page_id, part, parts[i].bytes);
        EXPECT_STATUS(BFT_CORRUPT,
                      bfti_space_load(f->p.pf, &place, 1, &f->p.scratch));
        expect_told("free-space map, part 0");
        expect_told(parts[i].told);
        fixture_close(f);
    }
}

static void a_map_that_cannot_be_read_is_not_damaged(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    uint64_t nth = 0;
    bft_status status;

    checkpoint(f);
    pf_fail_io(&f->p, BFTI_IO_READ, 1, BFT_IO);
    EXPECT_STATUS(
        BFT_IO, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    bfti_scratch_free(&f->p.env, &f->p.scratch);
    do {
        pf_fail_alloc(++nth);
        status = bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch);
        pf_fail_alloc(0);
        if (status != BFT_OK)
            EXPECT_STATUS(BFT_NO_MEMORY, status);
    } while (status != BFT_OK);
    assert_true(nth > 2);
    assert_true(bfti_space_is_used(f->p.pf, f->map[0]));
    fixture_close(f);
}

/* 20 GiB of file: two parts, of which the second says that there is less. */
static void parts_of_a_map_say_the_same(void **state)
{
    (void)state;
    struct fixture *f = fixture_of((uint64_t)20 << 18);
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    uint64_t place[2], map[BFTI_MAP_PLACES];
    size_t count;
    le64 blocks;

    checkpoint(f);
    assert_int_equal(2, f->map_count);
    EXPECT_STATUS(BFT_OK, bfti_extent_read(f->p.pf, f->map[1], &f->p.scratch,
                                           &info, &raw, &len));
    uint8_t *part = malloc(len);
    memcpy(part, raw, len);
    memcpy(&blocks, part + 8, sizeof blocks);
    blocks = le64_of(le64_get(blocks) - 1);
    memcpy(part + 8, &blocks, sizeof blocks);
    place[0] = f->map[0];
    place[1] = write_part(f, 1, part, len);
    free(part);

    /* The first part cannot be written, and the second is not tried. */
    (void)bfti_space_cut(f->p.pf);
    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_space_write(f->p.pf, f->map, f->map_count, map,
                                           BFTI_MAP_PLACES, &count));
    bfti_space_abandon(f->p.pf);

    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_space_load(f->p.pf, place, 2, &f->p.scratch));
    expect_told("part 1");
    expect_told("does not fit");
    fixture_close(f);
}

static void a_map_takes_the_place_of_one_that_is_there(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);
    struct bfti_space_stats before, after;
    uint64_t map[BFTI_MAP_PLACES], nowhere = place_of(1000, 1);
    size_t count;
    uint64_t nth = 0;
    bft_status status;

    checkpoint(f);
    fill(f, place_block(f->map[0]) + 1, CHUNK_BLOCKS);
    bfti_space_stats(f->p.pf, &before);
    (void)bfti_space_cut(f->p.pf);
    EXPECT_STATUS(BFT_INVALID,
                  bfti_space_write(f->p.pf, f->map, BFTI_MAP_PLACES + 1, map,
                                   BFTI_MAP_PLACES, &count));
    nowhere += (uint64_t)CHUNK_BLOCKS * BLOCK_GRAINS << 26;
    EXPECT_STATUS(BFT_CORRUPT, bfti_space_write(f->p.pf, &nowhere, 1, map,
                                                BFTI_MAP_PLACES, &count));
    expect_told("not in use");
    /* All is full: the file has to grow for it. */
    do {
        pf_fail_alloc(++nth);
        status = bfti_space_write(f->p.pf, f->map, f->map_count, map,
                                  BFTI_MAP_PLACES, &count);
        pf_fail_alloc(0);
        bfti_space_stats(f->p.pf, &after);
        if (status != BFT_OK) {
            EXPECT_STATUS(BFT_NO_MEMORY, status);
            assert_int_equal(before.live_bytes, after.live_bytes);
        }
    } while (status != BFT_OK);
    assert_true(nth > 3);
    bfti_space_finish(f->p.pf, 1);
    EXPECT_STATUS(BFT_OK, bfti_space_load(f->p.pf, map, count, &f->p.scratch));
    fixture_close(f);
}

/* --- the audit -------------------------------------------------------------------- */

/* Of a part of the file that was not there at the start nothing is said. */
static void a_file_may_grow_during_an_audit(void **state)
{
    (void)state;
    struct fixture *f = fixture_of(CHUNK_BLOCKS);

    fill(f, SUPERBLOCKS, CHUNK_BLOCKS);
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    uint64_t beyond = linked(f);
    assert_int_equal(CHUNK_BLOCKS, place_block(beyond));
    assert_true(bfti_space_audit_mark(f->p.pf, beyond));
    assert_true(bfti_space_audit_mark(f->p.pf, beyond));
    assert_true(bfti_space_audit_mark(f->p.pf, place_of(1 << 20, 8)));
    assert_true(bfti_space_audit_mark(f->p.pf, place_of(SUPERBLOCKS, 100)));
    assert_false(bfti_space_audit_mark(f->p.pf, place_of(SUPERBLOCKS, 100)));
    assert_false(bfti_space_audit_mark(f->p.pf, place_of(101, 100)));
    assert_true(bfti_space_audit_mark(f->p.pf, place_of(201, 100)));
    assert_int_equal(CHUNK_BLOCKS - SUPERBLOCKS - 299,
                     bfti_space_audit_end(f->p.pf));
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_extent_lies_in_one_chunk),
        cmocka_unit_test(without_memory_the_file_does_not_grow),
        cmocka_unit_test(the_format_ends_somewhere),
        cmocka_unit_test(the_file_ends_where_its_map_does),
        cmocka_unit_test(an_extent_may_be_linked_twice),
        cmocka_unit_test(what_an_earlier_one_gathered_is_not_kept_aside),
        cmocka_unit_test(changes_kept_aside_may_want_memory),
        cmocka_unit_test(changes_behind_the_map_may_want_memory),
        cmocka_unit_test(without_memory_what_is_unlinked_waits),
        cmocka_unit_test(what_is_unlinked_during_a_release_comes_behind),
        cmocka_unit_test(a_copy_needs_what_its_log_names),
        cmocka_unit_test(a_cut_that_fails_is_made_again),
        cmocka_unit_test(of_a_space_that_is_not_loaded_nothing_is_asked),
        cmocka_unit_test(a_part_is_high_while_it_is_cleaned),
        cmocka_unit_test(a_file_that_stays_as_it_was_is_not_cleaned_for_ever),
        cmocka_unit_test(under_a_copy_nothing_is_cleaned),
        cmocka_unit_test(what_is_out_of_reach_is_not_cleaned),
        cmocka_unit_test(room_is_looked_for_below_the_ceiling),
        cmocka_unit_test(holes_are_made_of_the_longest_runs_first),
        cmocka_unit_test(where_no_holes_can_be_made_none_are_looked_for),
        cmocka_unit_test(of_what_waits_no_holes_are_made),
        cmocka_unit_test(a_forged_map_is_refused),
        cmocka_unit_test(a_map_that_cannot_be_read_is_not_damaged),
        cmocka_unit_test(parts_of_a_map_say_the_same),
        cmocka_unit_test(a_map_takes_the_place_of_one_that_is_there),
        cmocka_unit_test(a_file_may_grow_during_an_audit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
