/*
 * A process for each engine: so that one's crash, or its death by its memory
 * bound, is a row without a figure and not the end of the run.  Workers whose
 * turn it is not are stopped, background threads and all.
 */
#ifndef WORKER_H
#define WORKER_H

#include "cell.h"
#include "cgroup.h"

enum { WORKER_REASON = 200 };

struct worker {
    int pid; /* 0: none */
    int channel, errors;
    char reason[WORKER_REASON]; /* why it is gone, once it is */
    const struct cgroup *group;
};

/* Start one with the database of CONFIG open, inside GROUP if there is one. */
bool worker_start(struct worker *worker, const struct peer_kind *kind,
                  const struct peer_config *config,
                  const struct keyspace *space, const struct cgroup *group);
/* Each is false when the worker is gone, or was killed after LIMIT seconds:
 * see reason. */
bool worker_fill(struct worker *worker, enum fill_order order, double limit);
bool worker_run(struct worker *worker, const struct cell_spec *spec,
                struct cell_sample *sample, double limit);
/* Its database holds LIVE records that a predecessor put in, in that ORDER. */
bool worker_resume(struct worker *worker, enum fill_order order, uint64_t live,
                   double limit);
/* Close the database and end. */
bool worker_stop(struct worker *worker, double limit);

#endif
