/*
 * Every interleaving of a few short threads of real calls, up to a number of
 * preemptions: each is a run of its own on a fresh database, on the threads of
 * sched.h, which get their turns as this says.
 *
 * Stateless search by replay (P. Godefroid, "Model checking for programming
 * languages using VeriSoft", POPL 1997): a run repeats the choices of the last one
 * up to the last that can be made otherwise.  Bounded by preemptions (M. Musuvathi
 * and S. Qadeer, "Iterative context bounding for systematic testing of multithreaded
 * programs", PLDI 2007): a turn that is taken from a thread that could go on counts;
 * one that is passed on, by who waits or ends, does not.
 *
 * A turn may be taken at each PARK point and wherever a thread is about to wait; in
 * fine searches also in front of each atomic operation on memory that threads share,
 * one of them writing.  Which those are is learnt: a search begins again whenever a
 * line of the library turns out to be one.  Between two such lines nothing happens
 * that another thread could notice, so nothing is left out by not stopping there.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sched.h"

enum { SCENE_THREADS = 3 };

struct stage; /* stage.h */

struct scene {
    const char *name;
    const char *says;               /* what is played, thread by thread */
    void (*open)(struct stage *st); /* what there is before: alone */
    void (*play[SCENE_THREADS])(struct stage *st, unsigned thread);
    void (*end)(struct stage *st); /* alone again: is it as it must be? */
};

struct exploration {
    const struct scene *scene;
    unsigned players; /* the first of its threads; others do not play */
    unsigned preemptions;
    bool fine;            /* atomic operations are points, too */
    uint64_t runs_max;    /* 0: no limit */
    const char *schedule; /* one run, that of this text; or NULL */
    uint64_t faults; /* bits of fileio/fault.h, planted while threads play */

    uint64_t runs, points; /* so far: interleavings, and points of them all */
    uint64_t redundant;    /* of the runs, that turned out to be like another */
    unsigned longest;      /* the most points of one of them that were shared */
    unsigned shared;       /* lines that are points */
    bool whole;            /* there are no more of them */
    char failure[2500];    /* with its schedule; empty: none */
};

/* False: a run failed, E->failure; then no other one in this process. */
bool explore(struct exploration *e);

/* By a scene, on any of its threads: what it found is wrong. */
__attribute__((format(printf, 2, 3), noreturn)) void
stage_fail(struct stage *st, const char *format, ...);

/* --- for explore.c --------------------------------------------------------- */

/* Make what every scene has; and look at it and free it. */
void stage_open(struct stage *st);
void stage_close(struct stage *st);
struct stage *stage_make(const struct scene *scene, struct sched *s);
void stage_free(struct stage *st);

#endif
