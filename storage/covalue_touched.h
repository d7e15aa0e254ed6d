/*
 * What a transaction under way has read or changed: its own writes are not in
 * the trees yet, and what it read cannot change while it has the turn.
 */
#ifndef BFTI_COVALUE_TOUCHED_H
#define BFTI_COVALUE_TOUCHED_H

#include "storage/covalue_internal.h"

enum bfti_touched_kind {
    TOUCHED_COVALUE,     /* by id */
    TOUCHED_SESSION,     /* by CoValue row and session id */
    TOUCHED_ROW,         /* by session row */
    TOUCHED_TRANSACTION, /* by session row and idx: out of the usual order */
    TOUCHED_SIGNATURE,   /* by session row and idx */
};

#define TOUCHED_NONE UINT32_MAX

struct bfti_touched_key {
    enum bfti_touched_kind kind;
    uint64_t row, idx;
    bft_slice id; /* borrowed of the caller's ops, or `owned` */
};

struct bfti_touched {
    struct bfti_touched_key key;
    uint64_t covalue;            /* COVALUE: its row */
    struct bfti_session session; /* SESSION: row 0 when there is none yet */
    bool dirty;                  /* SESSION: to be written */
    bool is_signed;              /* ROW: has signatures of this transaction */
    bool probed;                 /* ROW: the next three are set */
    uint64_t probed_from;        /* ROW: from this index on ... */
    uint64_t probed_next;        /* ... this is the first in the tree */
    uint64_t added_from, added_end; /* ROW: transactions of this transaction */
    uint32_t session_at;            /* ROW: its SESSION, or TOUCHED_NONE */
    void *owned;                    /* SESSION: where id and signature are */
};

enum { TOUCHED_FEW = 8 };

struct bfti_touched_set {
    const struct bfti_env *env;
    struct bfti_touched *at; /* moves when it grows: keep indexes */
    uint32_t count, max;
    uint32_t *slots; /* hash table of indexes, once there are more than FEW */
    uint32_t slot_mask;
    struct bfti_touched few[TOUCHED_FEW];
};

void bfti_touched_init(struct bfti_touched_set *set,
                       const struct bfti_env *env);
void bfti_touched_free(struct bfti_touched_set *set);
/* The index of KEY, or TOUCHED_NONE. */
uint32_t bfti_touched_find(const struct bfti_touched_set *set,
                           const struct bfti_touched_key *key);
/* Add KEY, which is not there, all else zero. */
bft_status bfti_touched_add(struct bfti_touched_set *set,
                            const struct bfti_touched_key *key, uint32_t *at);

#endif
