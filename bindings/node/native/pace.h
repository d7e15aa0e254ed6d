/*
 * Where shall a short call of the asynchronous flavour be made?
 *
 * While the engine answers from memory such a call takes some microseconds, less
 * than it takes to hand it to a thread and to be told of its end; so it is made
 * on the JavaScript thread.  When the engine has to wait for the disk, calls go
 * to other threads for a while:
 *
 *  - writes, from shortly before the memory budget is used up on, since a write
 *    that finds no room waits for pages to be written;
 *  - all, once one took long while the thread read from the disk, or the engine's
 *    counter of waits moved.  (One that took long without is taken for a busy
 *    processor.)
 */
#ifndef BFTN_PACE_H
#define BFTN_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "bftree.h"

/* Zeroed at first; one for each handle, used by its JavaScript thread. */
struct bftn_pace {
    bool looked;
    bool crowded;         /* the memory is nearly full */
    unsigned writes_left; /* before looking again */
    uint64_t away_until;  /* calls go to other threads */
    uint64_t waits;       /* counted so far */
};

/* May a call be made here? */
bool bftn_pace_here(struct bftn_pace *pace, bft_db *db, bool writes,
                    uint64_t now_ns);
/* One that was made here took from START to END. */
void bftn_pace_took(struct bftn_pace *pace, bft_db *db, uint64_t start_ns,
                    uint64_t end_ns);

/* Nanoseconds of a clock that never goes back. */
uint64_t bftn_now_ns(void);

#endif
