/*
 * What a round of the fuzz of calls has, and the calls: each takes arguments at
 * random, good or odd, and judges the answer by them and by a model.
 */
#ifndef API_FUZZ_H
#define API_FUZZ_H

#include "bftree_feed.h"
#include "engine_fixture.h"
#include "fuzz.h"
#include "model_map.h"
#include "random.h"

enum { API_TREES = 3, API_KEYS = 300, API_BYTES = 70000 };
#define API_NONE UINT64_MAX

extern const char *const api_tree_name[API_TREES];
extern const uint32_t api_leaf_bytes[API_TREES];
extern uint8_t api_bytes[API_BYTES];

struct life {
    struct engine_fixture *f, *other; /* OTHER: another database */
    bft_tree *tree[API_TREES], *dropped, *foreign, *closed;
    struct model_map map[API_TREES];
    bft_batch *batch;
    struct model_map
        pending[API_TREES]; /* of BATCH; a length of NONE: deleted */
    bft_cursor *cursor;
    bft_snapshot *snapshot;
    struct model_map
        past[API_TREES];     /* of SNAPSHOT and of what shows the past */
    bft_cursor *past_cursor; /* often open longer than SNAPSHOT */
    bft_txn *txn;
    bft_isolation isolation;
    struct model_map began[API_TREES]; /* all there was */
    struct model_map wrote[API_TREES]; /* by TXN; a length of NONE: deleted */
    size_t txn_bytes;                  /* at least what it keeps */
    bool doomed;                       /* it writes a tree that is gone */
    bft_cursor *txn_cursor;            /* with ENDED, if that is not NULL */
    bft_txn *ended;                    /* kept by its cursor */
    bft_snapshot *left_snapshot;       /* their handle was closed */
    bft_txn *left_txn;
    bft_feed *feed, *left_feed;
    unsigned copies; /* backups so far */
    uint64_t number; /* of the next value */
};

/* Statuses that a call may give: what its arguments are blamed for, or, when
 * they are good, only what the model says. */
struct allowed {
    unsigned mask; /* bit -status */
    bool odd;
};
struct api_reached {
    unsigned good, odd, of[32], loads, merges, copies, commits;
};
extern struct api_reached api_reached;

struct tree_arg {
    bft_tree *handle;
    unsigned t; /* which, if it is good */
};

/* --- api_fuzz_args.c -------------------------------------------------------- */

void api_blame(struct allowed *a, bft_status status);
/* True when STATUS is BFT_OK. */
bool api_judge(struct allowed a, bft_status good, bft_status status,
               const char *call);
struct tree_arg api_any_tree(struct life *life, struct allowed *a);
/* As api_any_tree(), or of another database. */
struct tree_arg api_any_tree_at_all(struct life *life, struct allowed *a);
/* LEAF: bytes of the leaves that are to hold it; 0: it is only looked for. */
bft_slice api_any_key(struct allowed *a, uint32_t leaf, char *buf);
bft_slice api_any_bound(struct allowed *a, char *buf);
bft_slice api_any_value(struct life *life, struct allowed *a,
                        struct model_value *value);

/* The LEN bytes at BUF are the value WANT from AT on. */
void api_expect_value(const struct model_value *want, uint64_t at,
                      const void *buf, size_t len);
/* They are all of it. */
void api_expect_whole(const struct model_value *want, const void *buf,
                      size_t len);
/* An output's length when the call failed: WANT's, if it was only too small. */
void api_expect_len(struct allowed a, const struct model_value *want,
                    size_t len);

/* --- api_fuzz_records.c ------------------------------------------------------ */

void api_get(struct life *life);
void api_get_range(struct life *life);
void api_write(struct life *life);
void api_put_stream(struct life *life);
void api_batch_add(struct life *life);
void api_batch_commit(struct life *life);
void api_batch_forget(struct life *life);
/* Make of MAP what it is with the changes of PENDING. */
void api_pending_apply(struct model_map *map, const struct model_map *pending);
bool api_past_is_open(const struct life *life);
void api_drop(struct life *life);
void api_tree_open(struct life *life);
void api_walk(struct life *life);
void api_cursor(struct life *life);
void api_database(struct life *life);

/* --- api_fuzz_pasts.c --------------------------------------------------------- */

void api_snapshot_take(struct life *life);
void api_snapshot_get(struct life *life);
void api_snapshot_cursor(struct life *life);
void api_txn(struct life *life);
void api_maps_clear(struct model_map *maps);
/* A snapshot, a transaction and a feed whose handle is closed, the database is
 * not. */
void api_leave_behind(struct life *life);
/* Cursors go first; the others may be of any age, and their database closed. */
void api_pasts_end(struct life *life);

/* --- api_fuzz_whole.c --------------------------------------------------------- */

void api_bulk_load(struct life *life);
void api_feed(struct life *life);
void api_backup(struct life *life);

/* --- api_fuzz_life.c ---------------------------------------------------------- */

/* Make a database, call it so often (MORE is not NULL: as long as it says so), and
 * see that all of it is there, now and after another opening. */
void api_life(unsigned calls, bool (*more)(void));

#endif
