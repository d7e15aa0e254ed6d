/*
 * Which cells there are, and which of them a run takes.
 */
#ifndef GRID_H
#define GRID_H

#include "cell.h"

enum {
    GRID_SETTINGS = 3,
    GRID_ENGINES = 16,
    GRID_CELLS = 2048,
    GRID_CHOICES = 16
};

enum grid_level { GRID_QUICK, GRID_DEFAULT, GRID_FULL };

struct grid_cell {
    enum peer_setting setting;
    size_t value_len;
    enum workload workload;
    enum distribution draw;
    unsigned threads;
};

/* What the command line chose; a count of 0: what the level says. */
struct grid_choice {
    enum grid_level level;
    bool settings[GRID_SETTINGS], workloads[WORKLOADS];
    unsigned settings_n, workloads_n;
    size_t values[GRID_CHOICES];
    unsigned values_n;
    unsigned threads[GRID_CHOICES];
    unsigned threads_n;
    enum distribution draws[GRID_CHOICES];
    unsigned draws_n;
};

struct workload_info {
    const char *name, *unit;
    unsigned draws;         /* bits 1 << enum distribution; 0: none matters */
    enum distribution main; /* the one of a short grid */
    bool mostly_writes;
    unsigned needs; /* enum peer_ability */
};

extern const struct workload_info workload_info[WORKLOADS];
extern const char *const setting_name[GRID_SETTINGS];
extern const char *const draw_name[3];

/* The cells of CHOICE in the order to run them; returns how many. */
size_t grid_make(const struct grid_choice *choice,
                 struct grid_cell cells[GRID_CELLS]);
/* "ycsb-a-zipf" */
void grid_workload_text(const struct grid_cell *cell, char text[32]);
/* "memory-100" */
void grid_setting_text(const struct grid_cell *cell, char text[32]);
/* Why KIND has no such row, or NULL. */
const char *grid_cannot(const struct peer_kind *kind,
                        const struct grid_cell *cell);

#endif
