/* Filling a tree of this engine with all records of a keyspace. */
#ifndef BENCH_KEYSPACE_LOAD_H
#define BENCH_KEYSPACE_LOAD_H

#include "index/bftree.h"
#include "keyspace.h"

/* Load the records of KEYS, whose values are at most RIG_VALUE bytes long, in
 * bulk into TREE, which is empty; gives how many.  Ends the program when that
 * fails. */
uint64_t keyspace_load(const struct keyspace *keys, bft_tree *tree);

#endif
