/*
 * Simulation of the whole engine from a seed: a database with its background
 * threads on a simulated disk, several clients, crashes, failing I/O, full and
 * slow disks, all on one thread (sched.h).  After each crash, and each closing,
 * the database is opened again and must be what the clients know it to be.
 *
 * A client has keys of its own, in every tree, which nobody else writes: it
 * knows exactly what a read must give, also one at an instant of the past, and
 * what a crash may leave.  All move money between the accounts of a bank, whose
 * sum never changes.
 */
#ifndef DST_H
#define DST_H

#include <stdbool.h>
#include <stdint.h>

struct dst_counts {
    uint64_t seeds, lives, crashes, crashes_opening, faults, full_disks;
    uint64_t spaces; /* full disks that had room again, within the life */
    uint64_t again;  /* clients that went on then, after a change had failed */
    uint64_t points, switches, stalls, steps; /* steps: of I/O */
    uint64_t operations, commits, conflicts, snapshots, backups, expired;
    uint64_t checkpoints, evictions, merges, splits, waits;
    uint64_t recovered_frames;
};

struct dst_run {
    uint64_t seed;
    bool verbose;             /* print what clients and the disk do */
    struct dst_counts counts; /* of this run, added */
    uint64_t trace;           /* the same when the run is */
    bool over; /* no other run in this process: threads are left inside */
    char options[400];  /* the seed, the commit, and all that was drawn first */
    char failure[2000]; /* empty: none */
};

/* Live as R->seed says.  False: R->failure says what was wrong, with
 * R->options. */
bool dst_run(struct dst_run *r);
void dst_print(const struct dst_counts *counts);
/* What a signal handler may write: the seed under way, its options and step. */
const char *dst_under_way(void);

#endif
