/* A page file in memory whose extents share blocks, for the tests of these. */
#ifndef SHARED_FIXTURE_H
#define SHARED_FIXTURE_H

#include "pagefile_fixture.h"

#include "fileio/pagefile_internal.h"

struct shared_fixture {
    struct pagefile_fixture p;
    uint64_t map[BFTI_MAP_PLACES];
    size_t map_count;
};

struct shared_fixture *shared_open(void);
void shared_close(struct shared_fixture *f);

/* An extent of so many grains, linked; it is there, whole and in use. */
uint64_t shared_linked(struct shared_fixture *f, unsigned grains);
void shared_expect(struct shared_fixture *f, uint64_t place);
void shared_unlink(struct shared_fixture *f, uint64_t place);

/* Sync, and write the map of a checkpoint. */
void shared_checkpoint(struct shared_fixture *f);
void shared_release(struct shared_fixture *f);
/* What is unlinked now is free when this returns. */
void shared_settle(struct shared_fixture *f);
/* Open again, with the map of the last checkpoint. */
void shared_reload(struct shared_fixture *f);

struct bfti_space_stats shared_stats(const struct shared_fixture *f);
/* Blocks of the map, lists included. */
uint64_t shared_map_blocks(const struct shared_fixture *f);

#endif
