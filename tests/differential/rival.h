/*
 * Stores that are asked the same: each holds the same trees, does the same
 * operation and says what it answers.  Nothing here knows what is right.
 */
#ifndef RIVAL_H
#define RIVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"

enum {
    RIVAL_TREES = 2,
    RIVAL_PASTS = 2, /* snapshots that are open at a time */
};

enum rival_kind {
    RIVAL_PUT,
    RIVAL_INSERT,
    RIVAL_REPLACE, /* value by value2; no value: must be absent; no value2: it
                      goes */
    RIVAL_DELETE,
    RIVAL_GET,
    RIVAL_SEEK,
    RIVAL_SCAN,
    RIVAL_COUNT,
    RIVAL_END, /* the first record of a range, or the last */
    RIVAL_DELETE_RANGE,
    RIVAL_BATCH,
    RIVAL_TXN,       /* each change, then a get; a scan; commit or abort */
    RIVAL_PAST_TAKE, /* snapshots */
    RIVAL_PAST_GET,
    RIVAL_PAST_SCAN,
    RIVAL_PAST_END,
    RIVAL_KINDS,
};

/* One change of a batch or a transaction. */
struct rival_change {
    unsigned tree;
    bft_slice key, value;
    bool there; /* else it is removed */
};

struct rival_op {
    enum rival_kind kind;
    unsigned tree, past;
    bft_slice key, high;     /* HIGH: the end of a range; empty: no bound */
    bft_slice value, value2; /* data NULL: none */
    bft_seek how;            /* RIVAL_SEEK */
    bool backward, commit;   /* of scans and ends; of transactions */
    size_t limit;            /* of a scan, in records */
    struct rival_change *change;
    size_t changes;
};

/* What a store said: equal bytes are equal answers. */
struct rival_answer {
    bft_status status;
    uint64_t number; /* records: counted, removed or in BYTES */
    uint8_t *bytes;
    size_t len, cap;
};

void rival_say(struct rival_answer *answer, const void *bytes, size_t len);
/* A record, with its lengths. */
void rival_say_record(struct rival_answer *answer, bft_slice key,
                      bft_slice value);
/* A record or, NULL, that there is none. */
void rival_say_found(struct rival_answer *answer, const bft_slice *value);

static inline int rival_compare(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* All fail the test when something goes wrong that is no answer. */
struct rival {
    const char *name;
    /* Opens what is below the folder DIR, or makes it. */
    void *(*open)(const char *dir);
    void (*close)(void *store);
    void (*run)(void *store, const struct rival_op *op,
                struct rival_answer *answer);
};

extern const struct rival rival_bftree, rival_lmdb, rival_sqlite;

#endif
