/*
 * Inside index/: snapshots, the histories that they read, and transactions.
 */
#ifndef BFTI_SNAPSHOT_H
#define BFTI_SNAPSHOT_H

#include "engine.h"

/* What a snapshot keeps itself: of records that were about to be changed when it
 * was taken.  All zeros: nothing. */
struct bfti_late_record;
struct bfti_late {
    struct bfti_late_record *record; /* ascending by (tree id, key) */
    size_t count, cap, bytes;
};

struct bft_snapshot {
    uint32_t magic;
    bool of_cursor; /* its own: refuses no change of trees.  Fixed */
    bft_db *db;
    struct bfti_engine *engine; /* NULL once its handle is closed; under the
                                   engine's snapshots_lock */
    const struct bfti_env *env;
    uint64_t number;
    uint64_t now;          /* when it was taken, see expiry.h */
    struct bfti_late late; /* fixed once it is settled.  Under snapshots_lock
                              until then */
    bool settled;          /* under snapshots_lock */
    _Atomic unsigned uses; /* the caller's, and cursors */
    struct bft_snapshot *newer, *older; /* under snapshots_lock */
};

/* --- snapshot.c ---------------------------------------------------------- */

/* The instant of a cursor, in memory of its own: a snapshot that refuses no change
 * of trees, and does not wait for one.  To be ended with _end unless _begin failed:
 * errors of bfti_late_keep(). */
BFT_MUST_CHECK bft_status bfti_instant_begin(struct bfti_engine *engine,
                                             struct bfti_rec *rec, bft_db *db,
                                             struct bft_snapshot *instant);
void bfti_instant_end(struct bft_snapshot *instant);

/* The number of the newest snapshot, 0: none is open. */
static inline uint64_t bfti_snapshots_newest(const struct bfti_engine *engine)
{
    return atomic_load(&engine->snapshot_newest); /* [publish] */
}
/* The number of the oldest one, UINT64_MAX: none is open. */
uint64_t bfti_snapshots_oldest(struct bfti_engine *engine);
/* What has expired for all that are open, and all that will be taken, expired by
 * then: in milliseconds, not above NOW, which bfti_now() gave. */
uint64_t bfti_snapshots_time(struct bfti_engine *engine, uint64_t now);
/* Is one open that was taken from number FROM up to below UNTIL? */
bool bfti_snapshots_any(struct bfti_engine *engine, uint64_t from,
                        uint64_t until);
/* Until _let none is settled; all up to the number returned are, or have ended, and
 * no other.  Nothing is waited for in between. */
uint64_t bfti_snapshots_hold(struct bfti_engine *engine);
void bfti_snapshots_let(struct bfti_engine *engine);
/* No snapshot of a caller is open and none is taken before _go; or BFT_BUSY, for
 * WHAT. */
BFT_MUST_CHECK bft_status bfti_snapshots_stop(struct bfti_engine *engine,
                                              const char *what,
                                              const char *tree);
void bfti_snapshots_go(struct bfti_engine *engine);
/* DB closes: its snapshots end. */
void bfti_snapshots_end(bft_db *db);

/* Rounds of saving and publishing, until no snapshot was taken between the two, and
 * nobody who is being decided has read the record: all zeros but for the engine, then
 * _begin of each round, _again behind it, and _end after the last.  Errors of _begin:
 * bfti_late_keep(). */
struct bfti_saver {
    struct bfti_engine *engine;
    struct bfti_guard guard; /* all up to its snapshot are settled */
    unsigned rounds, held;   /* HELD: those that a reader ended */
    bool in_haste;
};
BFT_MUST_CHECK bft_status bfti_saver_begin(struct bfti_saver *saver,
                                           struct bfti_rec *rec);
/* Has the round, that ended with *STATUS, to be repeated?  *STATUS is BFT_OK
 * then.  May sleep for a while, in bounds. */
bool bfti_saver_again(struct bfti_saver *saver, bft_status *status);
void bfti_saver_end(struct bfti_saver *saver);

BFT_MUST_CHECK bft_status
bfti_snapshot_gate(const struct bft_snapshot *snapshot, bft_tree *tree,
                   struct bfti_engine **engine, struct bfti_rec **rec);
uint64_t bfti_snapshot_number(const struct bft_snapshot *snapshot);
const struct bfti_late *bfti_snapshot_late(const struct bft_snapshot *snapshot);
/* By when records of TREE have expired for it; 0: they do not. */
uint64_t bfti_snapshot_now(const struct bft_snapshot *snapshot,
                           const struct bfti_tree *tree);
/* For who uses it beyond a call. */
void bfti_snapshot_use(struct bft_snapshot *snapshot);
/* Read KEY as of SNAPSHOT; TAKE's now is that of the snapshot. */
BFT_MUST_CHECK bft_status bfti_snapshot_read(
    const struct bft_snapshot *snapshot, struct bfti_rec *rec,
    struct bfti_tree *tree, bft_slice key, struct bfti_take *take, bool *found);

/* --- txn.c ---------------------------------------------------------------- */

struct bfti_copy;
struct bfti_copy_wish;
BFT_MUST_CHECK bft_status bfti_txn_check(const struct bft_txn *txn);
bft_snapshot *bfti_txn_snapshot(const struct bft_txn *txn);
/* How many writes it was given so far. */
const uint64_t *bfti_txn_changes(const struct bft_txn *txn);
/* For cursors: the memory stays until the last has left. */
void bfti_txn_use(struct bft_txn *txn);
void bfti_txn_leave(struct bft_txn *txn);
/* It read what is in [LOW, HIGH). */
BFT_MUST_CHECK bft_status bfti_txn_note(struct bft_txn *txn,
                                        struct bfti_tree *tree, bft_slice low,
                                        bft_slice high);
/* Lay its writes over COPY, which WISH asked for: so many as that has records, and
 * there it is cut, since all of them may lie in one leaf. */
BFT_MUST_CHECK bft_status bfti_txn_lay(struct bft_txn *txn,
                                       const struct bfti_tree *tree,
                                       const struct bfti_copy_wish *wish,
                                       struct bfti_copy *copy);

/* --- reads.c: what is read by commits that are being decided ------------------ */

struct bfti_reads;
/* Room for COUNT ranges with BYTES of keys; NULL: no memory.  Then each is added,
 * and _done; from then on it is constant. */
struct bfti_reads *bfti_reads_make(struct bfti_engine *engine, size_t count,
                                   size_t bytes);
void bfti_reads_add(struct bfti_reads *reads, struct bfti_tree *tree,
                    bft_slice low, bft_slice high);
void bfti_reads_done(struct bfti_reads *reads);
/* Hidden, or never shown; NULL is fine. */
void bfti_reads_free(struct bfti_engine *engine, struct bfti_reads *reads);
/* From _show to _hide nobody publishes a change of what READS has, but for those who
 * had looked before: their latches are seen then, or what they saved.  One at a
 * time. */
void bfti_reads_show(struct bfti_engine *engine, struct bfti_rec *rec,
                     struct bfti_reads *reads);
void bfti_reads_hide(struct bfti_engine *engine, struct bfti_rec *rec);
/* Behind _show: is some of it about to be deleted as part of a range? */
bool bfti_reads_coming(const struct bfti_reads *reads, struct bfti_rec *rec);
/* Is KEY in what another than REC shows? */
bool bfti_reads_over(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key);
/* With KEY's latch held, and NEWEST the newest open snapshot's number, 0: none is,
 * nor is a transaction.  May a change not be published? */
static inline bool bfti_reads_stop(struct bfti_tree *tree, struct bfti_rec *rec,
                                   bft_slice key, uint64_t newest)
{
    return newest && atomic_load(&tree->engine->reads_shown) && /* [reads] */
           bfti_reads_over(tree, rec, key);
}
/* Is something of [LOW, HIGH) in what WRITER shows? */
bool bfti_reads_of(struct bfti_tree *tree, struct bfti_rec *rec,
                   struct bfti_rec *writer, bft_slice low, bft_slice high);

/* --- history.c: what records were while snapshots were open --------------- */

/* Histories of a while: a tree of its own, which no log and no catalogue entry
 * with a name knows. */
struct bfti_epoch {
    struct bfti_tree *tree;
    _Atomic uint64_t end;   /* the newest snapshot when another took its place;
                               0 before */
    _Atomic uint64_t saved; /* bytes */
    _Atomic uint64_t
        until; /* the newest snapshot that something was saved for */
    struct bfti_epoch *_Atomic older; /* NULL also if those are not needed */
    struct bfti_epoch *gone;          /* the next of those that were cut off */
};

struct bfti_version {
    uint64_t until; /* the number of the first snapshot that does not see it */
    enum { BFTI_WAS_ABSENT, BFTI_WAS_VALUE, BFTI_WAS_APART } kind;
    uint64_t bytes;   /* of the value */
    uint64_t expires; /* of WAS_APART: when it does, see expiry.h */
    bft_slice value;  /* of WAS_VALUE */
    uint64_t serial;  /* of WAS_APART: where its value is */
    struct bfti_epoch *epoch;
    void *memory; /* what VALUE lies in, for bfti_version_free */
};

/* Have histories to save to. */
BFT_MUST_CHECK bft_status bfti_history_begin(struct bfti_engine *engine,
                                             struct bfti_rec *rec);
bool bfti_history_is_there(struct bfti_engine *engine);
/* Under checkpoint_lock: let histories go that no snapshot needs. */
BFT_MUST_CHECK bft_status bfti_history_turn(struct bfti_engine *engine,
                                            struct bfti_rec *rec);
void bfti_history_free(struct bfti_engine *engine);
/* Before KEY of TREE is changed: keep what it is, for the snapshot NEWEST and
 * those before it. */
BFT_MUST_CHECK bft_status bfti_history_save(struct bfti_engine *engine,
                                            struct bfti_rec *rec,
                                            struct bfti_tree *tree,
                                            bft_slice key, uint64_t newest);
/* What KEY was for snapshot NUMBER, if it was changed since (*THERE).  Whoever
 * reads the tree before he asks, and takes the tree's record if there is none,
 * has what the snapshot sees. */
BFT_MUST_CHECK bft_status bfti_history_find(struct bfti_engine *engine,
                                            struct bfti_rec *rec,
                                            const struct bfti_tree *tree,
                                            bft_slice key, uint64_t number,
                                            bool *there,
                                            struct bfti_version *version);
void bfti_version_free(struct bfti_version *version);
/* Where a range ended early, if LEN is not 0. */
struct bfti_cut {
    size_t len;
    uint8_t key[BFTI_KEY_MAX];
};
/* What keys of TREE in [LOW, HIGH) were for snapshot NUMBER, if they were changed
 * since, from LOW on (BEFORE: from HIGH down): EACH is told, of one epoch after
 * the other, at most MOST of each.  Only those below CUT (BEFORE: from it on) are
 * all there. */
BFT_MUST_CHECK bft_status
bfti_history_range(struct bfti_engine *engine, struct bfti_rec *rec,
                   const struct bfti_tree *tree, uint64_t number, bft_slice low,
                   bft_slice high, bool before, size_t most,
                   bft_status (*each)(void *ctx, bft_slice key,
                                      const struct bfti_version *version),
                   void *ctx, struct bfti_cut *cut);
/* The same of all of the range, and of each key what the epochs say together
 * (twice, if two have it); and WATCH is told of the histories' leaves that have,
 * or would have, something of it. */
BFT_MUST_CHECK bft_status bfti_history_watch(
    struct bfti_engine *engine, struct bfti_rec *rec,
    const struct bfti_tree *tree, uint64_t number, bft_slice low,
    bft_slice high,
    bft_status (*watch)(void *ctx, const struct bfti_entry *entry,
                        uint32_t seq),
    bft_status (*each)(void *ctx, bft_slice key,
                       const struct bfti_version *version),
    void *watch_ctx, void *each_ctx);
/* Was it a record to who reads at NOW, 0: of a tree whose records do not expire? */
bool bfti_version_is_there(const struct bfti_version *version, uint64_t now);
/* Give TAKE the version's value. */
BFT_MUST_CHECK bft_status bfti_version_take(struct bfti_rec *rec,
                                            const struct bfti_version *version,
                                            struct bfti_take *take,
                                            bool *found);

/* --- late.c: writers that a snapshot did not wait for ---------------------- */

/* Snapshot NUMBER is there for writers to see, and not settled: nobody who saw it
 * has published.  When this returns, of those that did not see it LATE (zeros
 * before) has what the records were of each that was hidden at some instant of the
 * call; all others had published by then.  One of which that is too much, or cannot
 * be read, is waited for.
 * Errors: BFT_NO_MEMORY; LATE is empty then. */
BFT_MUST_CHECK bft_status bfti_late_keep(struct bfti_engine *engine,
                                         struct bfti_rec *rec, uint64_t number,
                                         struct bfti_late *late);
/* What KEY was, if LATE has it; valid as long as that.  It goes before what tree
 * and history say. */
bool bfti_late_find(const struct bfti_late *late, const struct bfti_tree *tree,
                    bft_slice key, struct bfti_version *version);
/* The same of all in [LOW, HIGH), ascending. */
BFT_MUST_CHECK bft_status
bfti_late_range(const struct bfti_late *late, const struct bfti_tree *tree,
                bft_slice low, bft_slice high,
                bft_status (*each)(void *ctx, bft_slice key,
                                   const struct bfti_version *version),
                void *ctx);
void bfti_late_free(const struct bfti_env *env, struct bfti_late *late);

#endif
