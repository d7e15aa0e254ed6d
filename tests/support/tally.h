/*
 * What a test has done, in numbers that tests/run.sh adds up over a run and
 * compares with what the run's level asks for (tests/levels.txt).
 */
#ifndef TEST_TALLY_H
#define TEST_TALLY_H

#include <stdint.h>

enum tally {
    TALLY_IMAGES,     /* of a disk after a crash, each opened and checked */
    TALLY_CUTS,       /* crashes in the middle of a recovery, likewise */
    TALLY_POINTS,     /* crashes at each step of a life, each way, likewise */
    TALLY_SEQUENCES,  /* of calls, with crashes about each sync */
    TALLY_KILLS,      /* of a process */
    TALLY_FAULTS,     /* calls and allocations that were made to fail */
    TALLY_FLIPS,      /* of a byte in a page file, which is then opened */
    TALLY_DAMAGED,    /* stored images with other damage, likewise */
    TALLY_SEEDS,      /* of simulations of the whole engine */
    TALLY_OPERATIONS, /* compared with a model */
    TALLY_COMPARED,   /* with what other stores answer */
    TALLY_BACKUPS,    /* under load, restored and compared */
    TALLY_HISTORIES,  /* recorded and checked */
    TALLY_EXECUTIONS, /* of a fuzzed function */
    TALLY_INTERLEAVINGS, /* of threads in a scene */
    TALLY_REMOVED,       /* guards, in a scene that then failed */
    TALLY_SOAK,          /* minutes of work on one database, in all */
    TALLY_POWER_CUTS,    /* images of a disk with a kernel's file system */
    TALLIES,
};

/* Say a line of N more of WHAT.  In a process that has not forked. */
void tally(enum tally what, uint64_t n);
/* Say that there is N of WHAT by now, with what earlier runs have done. */
void tally_is(enum tally what, uint64_t n);

#endif
