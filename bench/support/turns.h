/*
 * The order of things: groups of cells, rounds, turns of the engines.
 */
#ifndef TURNS_H
#define TURNS_H

#include "results.h"

/* Run whatever of RUN has no result yet, with progress on stdout. */
void turns_run(struct run *run);

#endif
