/*
 * Histories of a real database: a few keys between many others, threads that
 * read and write them at random and record what they were told, while leaves
 * split, merge, leave memory and come back.
 *
 * What each operation is taken for, which is what bftree.h promises of it:
 *   get, put, insert, replace, delete   one step on one key
 *   batch                               one step on all its keys
 *   truncation                          the same, on all keys of the tree
 *   multi-get                           a get for each key, anywhere in the call
 *   cursor step, first, last            the same for the record shown, and for
 *                                       each key passed over: it was absent
 *   removal of a range                  a delete for each key, the same
 *   bulk load                           a commit that reads all keys of the tree
 *                                       as absent
 *   snapshot                            all that it shows at one instant of its
 *                                       taking, passed over by its cursors too
 *   transaction                         see struct linear_txn
 * Where a tree is truncated each batch keeps to one tree: of one that overlaps
 * the truncation, only what it puts into that tree counts as before it.
 */
#ifndef LINEAR_RUN_H
#define LINEAR_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine_fixture.h"
#include "linear_check.h"

enum {
    LINEAR_THREADS = 8,
    LINEAR_TREES = 2,
    LINEAR_VALUE_MAX = 1200,
};

struct linear_options {
    const char *name;
    enum engine_backend backend;
    bool no_threads;
    uint32_t leaf_bytes;
    uint32_t promote_percent;
    unsigned keys;   /* up to LINEAR_KEYS, in turns of one tree and the other */
    unsigned others; /* records between any two of them */
    unsigned others_bytes; /* of each, at most */
    unsigned ballast;      /* records of a third tree, to fill the pool */
    bool crowded;   /* the pool stays full: leaves leave when others want room,
                     and come back record by record */
    unsigned large; /* one value in so many is a large one; 0: none */
    unsigned yield; /* a thread gives way at one park point in so many */
    unsigned pasts; /* steps in a hundred that are of a snapshot or of a
                       transaction */
    bool brief; /* each of these within one step, so that trees can change */
    bool truncates, renames;
    bool loads;   /* the second tree has no others and is filled when it was
                   truncated */
    bool crashes; /* once a history; sim only */
    enum bfti_sim_policy policy;
};

/* A database for many histories. */
struct linear_run {
    struct linear_options o;
    struct engine_fixture *f;
    bft_tree *tree[LINEAR_TREES], *ballast;
    uint64_t seed;
    uint32_t serial[LINEAR_THREADS]; /* of the last value that each wrote */
    uint32_t start[LINEAR_KEYS];     /* of the next history */
    unsigned operations;             /* of each thread, about */
    _Atomic uint64_t now;            /* counts calls and ends */
    _Atomic unsigned ready;          /* threads that have come to the start */
    _Atomic unsigned ended;
    _Atomic bool go, stop;
    uint64_t overlaps, recorded; /* of all histories, as what follows */
    _Atomic uint64_t snapshots, commits, isolated, conflicts, aborts;
    _Atomic uint64_t truncated, busy, loaded;
};

/* One that reads and writes. */
struct linear_thread {
    struct linear_run *run;
    unsigned id;
    uint64_t random;
    pthread_t thread;
    struct linear_history history;
    uint32_t known[LINEAR_KEYS]; /* the last value that it saw of each */
    bft_batch *batch;
    bft_snapshot *snapshot; /* NULL: none is open */
    struct linear_txn shown;
    bft_txn *txn; /* likewise */
    struct linear_txn told;
    struct linear_txn *into; /* NULL: reads are operations of their own */
    char error[300]; /* what went wrong first, of what is not about order */
};

struct linear_run *linear_run_open(const struct linear_options *options,
                                   uint64_t seed);
void linear_run_close(struct linear_run *run);
/* Run THREADS threads; their history, with what the keys had at the end, is in
 * H; with options.crashes, what is to be ordered of it around the crash is in
 * CRASHED, with what the keys had after recovery. */
void linear_run_once(struct linear_run *run, unsigned threads,
                     struct linear_history *h, struct linear_history *crashed);

/* --- linear_ops.c ---------------------------------------------------------- */

/* Do one operation, chosen at random. */
void linear_do(struct linear_thread *t);
/* Get KEY; recorded. */
void linear_do_get(struct linear_thread *t, unsigned key);
/* Walk from KEY, mostly in one direction; recorded. */
void linear_walk(struct linear_thread *t, bft_cursor *cursor, unsigned key);
unsigned linear_below(struct linear_thread *t, unsigned limit);
/* Now, for calls and ends. */
uint64_t linear_tick(struct linear_thread *t);
bft_tree *linear_tree(const struct linear_thread *t, unsigned key);
/* A number that no other write of the run has; the value that it stands for,
 * and back. */
uint32_t linear_new_number(struct linear_thread *t);
bft_slice linear_value(const struct linear_run *run, uint8_t *buf,
                       uint32_t number);
uint32_t linear_number(struct linear_thread *t, const void *data, size_t len);
/* Are there records behind KEY? */
bool linear_has_others(const struct linear_run *run, unsigned key);
/* The key with number KEY, or the OTHER'th of those behind it (0: itself). */
bft_slice linear_key(char buf[24], unsigned key, unsigned other);
/* Note a STATUS that nobody expects. */
void linear_expect(struct linear_thread *t, bft_status status,
                   const char *what);

/* --- linear_pasts.c -------------------------------------------------------- */

/* One step of a snapshot or a transaction: begin one, or read by the one that is
 * open, write to it, or end it. */
void linear_do_past(struct linear_thread *t, unsigned key);
/* End what is open. */
void linear_end_pasts(struct linear_thread *t);

#endif
