#include "shared_fixture.h"

#include <stdlib.h>

struct shared_fixture *shared_open(void)
{
    struct shared_fixture *f = calloc(1, sizeof *f);
    pagefile_fixture_open(&f->p, false);
    return f;
}

void shared_close(struct shared_fixture *f)
{
    pagefile_fixture_close(&f->p);
    free(f);
}

uint64_t shared_linked(struct shared_fixture *f, unsigned grains)
{
    size_t len = (size_t)grains * BFTI_GRAIN - BFTI_EXTENT_HEADER;
    uint64_t place = pf_share(&f->p, len, grains);
    assert_int_equal(grains, bfti_disk_grains(place));
    bfti_extent_link(f->p.pf, place, 0);
    return place;
}

void shared_expect(struct shared_fixture *f, uint64_t place)
{
    unsigned grains = bfti_disk_grains(place);
    pf_expect(&f->p, place, (size_t)grains * BFTI_GRAIN - BFTI_EXTENT_HEADER,
              grains);
    assert_true(bfti_space_is_used(f->p.pf, place));
}

void shared_unlink(struct shared_fixture *f, uint64_t place)
{
    EXPECT_STATUS(BFT_OK, bfti_extent_unlink(f->p.pf, place, 0, 0));
}

void shared_checkpoint(struct shared_fixture *f)
{
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f->p.pf));
    pf_checkpoint(&f->p, f->map, &f->map_count, 1);
}

void shared_release(struct shared_fixture *f)
{
    EXPECT_STATUS(BFT_OK, bfti_space_release(f->p.pf));
}

void shared_settle(struct shared_fixture *f)
{
    for (int i = 0; i < 3; i++)
        shared_checkpoint(f);
    shared_release(f);
}

void shared_reload(struct shared_fixture *f)
{
    pagefile_fixture_reopen(&f->p);
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
}

struct bfti_space_stats shared_stats(const struct shared_fixture *f)
{
    struct bfti_space_stats stats;
    bfti_space_stats(f->p.pf, &stats);
    return stats;
}

uint64_t shared_map_blocks(const struct shared_fixture *f)
{
    uint64_t place, blocks = 0;
    for (size_t i = 0; i < f->map_count; i++)
        blocks += place_blocks(f->map[i]);
    for (size_t i = 0; bfti_space_lists(f->p.pf, i, &place, 1) == 1; i++)
        blocks += place_blocks(place);
    return blocks;
}
