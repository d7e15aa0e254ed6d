/*
 * Lives of a database on a simulated disk, cut short: while a random life goes
 * on, images are taken of what a crash at that moment would leave; each is
 * opened, checked, lived in for a while, and crashed or closed again.
 */
#ifndef CRASH_LIFE_H
#define CRASH_LIFE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the engine was about to do, or, of a page, had just done. */
enum crash_step {
    CRASH_CREATE,     /* opening a database that is not there yet */
    CRASH_LOG,        /* append to the log, or sync it */
    CRASH_SEGMENT,    /* make a new segment of the log */
    CRASH_REUSE,      /* make one from an old one */
    CRASH_VALUE,      /* write a large value */
    CRASH_MERGE,      /* write a leaf that a writer found full */
    CRASH_SPLIT,      /* write a leaf as several */
    CRASH_EVICTION,   /* write a leaf to make room */
    CRASH_CHECKPOINT, /* write or sync what a checkpoint is made of */
    CRASH_SUPERBLOCK,
    CRASH_DROP,     /* drop a tree, and the checkpoint behind that */
    CRASH_RECOVERY, /* open what a crash left */
    CRASH_STEPS,
};
const char *crash_step_name(enum crash_step step);

struct crash_run {
    uint64_t seed;
    unsigned lives;        /* at most */
    unsigned wanted, each; /* distinct images: of all, of each kind */
    uint64_t only;         /* that life alone; UINT64_MAX: all */
    unsigned images_max;   /* then stop; 0: no limit */
    bool ghosts;           /* frames all of one length: see crash_life.c */
    bool company;          /* a second thread checkpoints and evicts */
    /* A life is OPERATIONS long, unless that is 0, and has images at each of its
     * steps, of each policy; there are more lives than those until there are WANTED
     * images. */
    unsigned operations;
    /* Found: */
    unsigned images;
    unsigned images_of[CRASH_STEPS], distinct_of[CRASH_STEPS];
    unsigned distinct, crashes, commits, reopenings;
    unsigned damaged, damaged_opened;
    unsigned past;          /* images while a snapshot was open */
    unsigned points, steps; /* images at each step of such lives */
    uint64_t splits, leaf_merges, deltas, promotions, evictions, checkpoints;
    uint64_t leaves_moved;
    char failure[1200]; /* empty: none */
    uint64_t *seen;     /* hashes of images */
};

/* Live, crash, check.  False: R->failure says what was wrong, and how to see
 * it again; or it is empty, and there were not images enough. */
bool crash_run(struct crash_run *r);
void crash_run_free(struct crash_run *r);
void crash_run_print(const struct crash_run *r);

#endif
