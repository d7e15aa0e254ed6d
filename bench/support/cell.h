/*
 * A cell: one workload on one open database for a while, and what was seen.
 */
#ifndef CELL_H
#define CELL_H

#include "keyspace.h"

enum { CELL_THREADS_MAX = 16, CELL_SCAN = 50, FILL_STRETCHES = 64 };

/* In the order in which they run: loads, what only reads, what writes. */
enum workload {
    LOAD_SEQ,
    LOAD_RAND,
    YCSB_C,
    GET_ABSENT,
    MULTI_GET,
    SCAN_50,
    SCAN_FORWARD,
    SCAN_BACKWARD,
    YCSB_B,
    YCSB_D,
    YCSB_E,
    YCSB_A,
    YCSB_F,
    UPDATE,
    UPDATE_BATCH,
    DELETE,
    WORKLOADS
};

static inline bool workload_loads(enum workload workload)
{
    return workload <= LOAD_RAND;
}

static inline bool workload_writes(enum workload workload)
{
    return workload_loads(workload) || workload >= YCSB_B;
}

/* How an empty database is filled, outside of any clock. */
enum fill_order {
    FILL_RANDOM,
    FILL_ASCENDING,
    /* Stretches of the keys one after the other, each in random order: what is
     * written at a time fits into a small memory, and the pages of a B-tree
     * end as full as by random order. */
    FILL_BY_STRETCHES,
};

/* Plain data: it crosses a pipe. */
struct cell_spec {
    enum workload workload;
    enum distribution draw;
    unsigned threads;
    uint64_t cell_ns;
    uint64_t seed;
    bool close_too;        /* the debt is counted up to a clean close */
    bool capped;           /* a load ends with the cell's time too */
    enum fill_order order; /* of the workload LOAD_RAND */
};

struct cell_sample {
    double ops;          /* operations, rows or records: the workload's unit */
    double seconds;      /* of the calls */
    double debt_seconds; /* to settle, rest, and close where asked */
    double cpu_seconds;  /* of the process, debt included */
    double p50_us, p99_us, p999_us;
    double resident_bytes;
    double written_bytes,
        user_bytes; /* to the disk, by the caller; with debt */
    double file_bytes, live_bytes;
};

/* A database in use. */
struct cell_database {
    const struct peer_kind *kind;
    struct peer_config config;
    const struct keyspace *space;
    struct peer *peer;
    struct peer_session *session[CELL_THREADS_MAX];
    uint64_t live;         /* records */
    uint64_t insertions;   /* numbers of inserted keys that are used up */
    enum fill_order order; /* in which it was filled */
};

void cell_open(struct cell_database *database);
void cell_close(struct cell_database *database);
/* Put all records in; not measured. */
void cell_fill(struct cell_database *database, enum fill_order order);
struct cell_sample cell_run(struct cell_database *database,
                            const struct cell_spec *spec);

#endif
