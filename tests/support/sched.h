/*
 * Surroundings whose threads take turns on one thread of the system, in an
 * order that a seed decides: a run, its interleavings and its clock included,
 * repeats from the seed.
 *
 * A thread may lose its turn wherever it comes to the surroundings: when it
 * waits, wakes and yields, at each step (bfti_step(): locks), each allocation,
 * each PARK point of the library, and where its owner calls sched_step(), as
 * for the I/O of a simulated disk.  Between two such points it runs alone, so
 * interleavings within a read-side section, or between two atomics without a
 * PARK point, are not shown.
 *
 * The clock is virtual.  It moves a little at each such point, and when all
 * threads sleep to the moment at which the first one wakes.
 */
#ifndef SCHED_H
#define SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "fileio/fileio.h"

enum { SCHED_THREADS_MAX = 64 };

/* Somebody may get the turn. */
struct sched_choice {
    const char *at; /* the point that SELF came to */
    unsigned self;  /* who has had the turn */
    bool goes_on;   /* it may keep it, and is in READY */
    unsigned ready[SCHED_THREADS_MAX], count; /* ascending; one at least */
};
/* Who decides in the place of the seed: one of choice->ready.  Then nobody stalls,
 * and nobody wakes for nothing; time passes as it does otherwise. */
struct sched_guide {
    unsigned (*choose)(void *arg, const struct sched_choice *choice);
    void *arg;
};

/* How turns are given: each that is 0 is drawn from the seed. */
struct sched_options {
    uint64_t seed;
    const struct sched_guide *guide; /* NULL: the seed decides */
    unsigned switch_every; /* of so many points at one another thread's turn
                              comes; 1: at each somebody is drawn anew */
    unsigned stall_every;  /* of so many points at one the thread stops for up
                              to 20 ms; UINT32_MAX: never */
    uint64_t points_max;   /* a run with more does not end (20 million) */
};

struct sched;

struct sched *sched_make(const struct sched_options *options);
/* All its threads have ended, or the program is about to. */
void sched_free(struct sched *s);
const struct bfti_env *sched_env(struct sched *s);

/*
 * Run MAIN(ARG) and all threads that it starts, and that these start.  True
 * when all have ended.  False: they never will, because all wait for each
 * other, they take more than points_max, or one called sched_fail();
 * sched_failure() says which.  Then they are left where they are: with all they
 * hold, locks too.
 *
 * One run at a time; it takes the library's PARK hook for itself.
 */
bool sched_run(struct sched *s, void (*main)(void *arg), void *arg);
const char *sched_failure(const struct sched *s);
/* By one of its threads: the run ends here, with this text. */
void sched_fail(struct sched *s, const char *text);

/* Of its threads only: a point, called NAME; and one where time passes. */
void sched_step(struct sched *s, const char *name);
void sched_sleep(struct sched *s, uint64_t ns);
/* Which of its threads the caller is, from 0 in the order of their start. */
unsigned sched_self(const struct sched *s);

/* What is drawn from the seed, of a sequence that all share. */
uint64_t sched_random(struct sched *s);
static inline size_t sched_below(struct sched *s, size_t limit)
{
    return (size_t)(sched_random(s) % limit);
}

/* Let WHAT be a part of the trace: a number of all that happened, and in which
 * order, the same when the run is. */
void sched_trace(struct sched *s, uint64_t what);

struct sched_counts {
    uint64_t trace;
    uint64_t points, switches, stalls;
    uint64_t now_ns; /* since the beginning */
    int64_t blocks;  /* of memory that the run has had and not given back */
    unsigned switch_every, stall_every;
};
struct sched_counts sched_counts(const struct sched *s);

#endif
