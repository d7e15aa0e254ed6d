/*
 * What compare_engines found, cell by cell, and the files made from it.
 */
#ifndef RESULTS_H
#define RESULTS_H

#include "grid.h"
#include "limits.h"

enum { RESULT_REASON = 256 };

struct result {
    bool have[RIG_ROUNDS_MAX];
    struct cell_sample sample[RIG_ROUNDS_MAX];
    char reason[RESULT_REASON]; /* why rounds have none */
};

/* What one setting and value length is run with. */
struct group_size {
    uint64_t records, memory_bytes;
    uint64_t bound_bytes; /* of the cgroup; 0: none */
    uint64_t read_ns, write_ns;
    unsigned rounds, threads;
};

struct run {
    struct grid_cell cells[GRID_CELLS];
    struct group_size size[GRID_CELLS]; /* the same for all cells of a group */
    size_t cells_n;
    const struct peer_kind *engines[GRID_ENGINES];
    unsigned engines_n;
    struct result *results; /* cells_n x engines_n */
    struct limits limits;
    char machine[2048]; /* rig_machine(), before anything ran */
    const char *dir, *out;
    char parameters[128]; /* a resumed run must have the same */
    bool ascending_fill;
};

static inline struct result *result_at(const struct run *run, size_t cell,
                                       unsigned engine)
{
    return &run->results[cell * run->engines_n + engine];
}

static inline bool same_group(const struct grid_cell *a,
                              const struct grid_cell *b)
{
    return a->setting == b->setting && a->value_len == b->value_len;
}

/* The configuration that ENGINE is opened with for CELL; dir is left out. */
struct peer_config results_config(const struct run *run, size_t cell);

/* Take up what a run with the same parameters left in its state file, or begin
 * a new one. */
void results_begin(struct run *run, bool resume);
/* A sample, or a reason without one, into the state file. */
void results_save(const struct run *run, size_t cell, unsigned engine,
                  unsigned round);
/* compare_engines.jsonl and .md of all there is; the tables to ECHO too, if
 * not NULL. */
void results_write(const struct run *run, FILE *echo);

#endif
