/*
 * Threads for calls that shall not hold up JavaScript: one set for the whole
 * process, shared by all databases and all JavaScript threads.
 *
 * There are two lanes.  Calls that work take turns in a few threads; those that
 * wait for a sync have threads of their own, so that many waiting stores leave
 * the others room.  Threads are started when they are needed and stay.
 */
#ifndef BFTN_LANES_H
#define BFTN_LANES_H

#include "bft_status.h"

enum bftn_lane { BFTN_LANE_WORK, BFTN_LANE_WAIT, BFTN_LANES };

/* Embed it in what is to be done. */
struct bftn_task {
    struct bftn_task *next;
    /* Called on a thread of the lane; TASK may be gone afterwards. */
    void (*run)(struct bftn_task *task);
};

/*
 * Have TASK run, after those of its lane before it have been started.
 * BFT_NO_MEMORY: there is no thread for it; it will not be run.
 */
BFT_MUST_CHECK bft_status bftn_lanes_push(enum bftn_lane lane,
                                          struct bftn_task *task);

#endif
