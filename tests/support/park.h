/*
 * A thread that is stopped at a PARK point of the library, for as long as the
 * test likes.  Needs a build without NDEBUG.
 */
#ifndef PARK_H
#define PARK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct parked {
    const char *_Atomic point;
    const char *theirs; /* NULL: its own thread stops, else the library's that
                           comes to this point first */
    void (*run)(void *arg);
    void *arg;
    pthread_t thread;
    _Atomic unsigned skip; /* times that it passes the point before it stops */
    _Atomic bool closed, reached, left, done;
};

/* Run RUN(ARG) on a thread of its own.  It stops when it comes to POINT for the
 * (SKIP+1)th time; returns once it has, or has ended: false. */
bool park_start(struct parked *parked, const char *point, unsigned skip,
                void (*run)(void *arg), void *arg);
/* The same for a thread of the library's, the next that comes to THEIRS: it is
 * that one which stops, for RUN to make it come to POINT.  RUN goes on. */
bool park_start_theirs(struct parked *parked, const char *theirs,
                       const char *point, void (*run)(void *arg), void *arg);
/* Let the stopped thread, its own, go on to POINT; returns once it stops there, or
 * has ended: false. */
bool park_move(struct parked *parked, const char *point);
/* Let it go on; wait for its end. */
void park_end(struct parked *parked);

#endif
