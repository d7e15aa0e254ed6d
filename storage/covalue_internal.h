/*
 * What the files of the covalue store share: its trees, the records in them,
 * and the object that all handles of one engine have in common.
 */
#ifndef BFTI_COVALUE_INTERNAL_H
#define BFTI_COVALUE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree_stores.h"
#include "fileio/fileio.h"
#include "storage/covalue_ends.h"
#include "storage/keycodec.h"

/* --- records ------------------------------------------------------------------ */

enum bfti_cotree {
    COVALUES,
    SESSIONS,
    TRANSACTIONS,
    SIGNATURES,
    UNSYNCED,
    DELETIONS,
    LOCKS,
    COTREES
};

enum { BFTI_COVALUE_FORMAT = 1 };
enum { BFTI_COMMIT_SLOTS = 64 };

/*
 * Format 1.  Keys start with one of these bytes where a tree has several kinds
 * of records; n is a number of keycodec.h.
 *
 *   covalues      FORMAT                     n format
 *                 ID id                      n row, header
 *                 ROW n row                  id
 *   sessions      NEXT                       n least row id not given yet
 *                 OF n covalue, id           struct bfti_session but the ids
 *                 ROW n row                  n covalue, u8 kept by an erasure
 *   transactions  n session, n idx           transaction
 *   signatures    n session, n idx           signature
 *   unsynced      text id, peer              -
 *   deletions     ERASING n covalue          -
 *                 WAITING id                 -
 *                 DONE id                    -
 *   locks         LOCK key                   struct lock_row, then the holder
 */
enum {
    COVALUES_FORMAT = 0,
    COVALUES_ID = 1,
    COVALUES_ROW = 2,
    SESSIONS_NEXT = 0,
    SESSIONS_OF = 1,
    SESSIONS_ROW = 2,
    DELETIONS_ERASING = 0,
    DELETIONS_WAITING = 1,
    DELETIONS_DONE = 2,
    LOCKS_KEY = 0,
};

/* A key under construction.  The functions below fill it and return it. */
struct bfti_cokey {
    uint8_t bytes[BFT_KEY_MAX];
};

bft_slice bfti_cokey_tag(struct bfti_cokey *key, uint8_t tag);
bft_slice bfti_cokey_id(struct bfti_cokey *key, uint8_t tag, bft_slice id);
bft_slice bfti_cokey_row(struct bfti_cokey *key, uint8_t tag, uint64_t row);
bft_slice bfti_cokey_session(struct bfti_cokey *key, uint64_t covalue,
                             bft_slice id);
/* The prefix of all sessions of COVALUE. */
bft_slice bfti_cokey_sessions(struct bfti_cokey *key, uint64_t covalue);
/* Of a transaction or a signature ... */
bft_slice bfti_cokey_content(struct bfti_cokey *key, uint64_t session,
                             uint64_t idx);
/* ... and the least key above it. */
bft_slice bfti_cokey_above(struct bfti_cokey *key, uint64_t session,
                           uint64_t idx);
/* Length 0: longer than BFT_KEY_MAX. */
bft_slice bfti_cokey_peer(struct bfti_cokey *key, bft_slice id, bft_slice peer);
/* The prefix of all peers of ID. */
bft_slice bfti_cokey_peers(struct bfti_cokey *key, bft_slice id);

/* Of a session row all but its ids. */
struct bfti_session {
    uint64_t row;
    uint64_t last_idx;
    uint64_t bytes_since; /* BFT_COVALUE_NONE: null */
    bool has_signatures;  /* there are rows in the tree of signatures */
    bft_slice signature;
};

enum { BFTI_SESSION_HEAD_MAX = 3 * BFTI_KEY_NUMBER_MAX + 1 };

/* Write all but the signature to the BFTI_SESSION_HEAD_MAX bytes at OUT. */
size_t bfti_session_encode(uint8_t *out, const struct bfti_session *session);
/* False: VALUE is none.  The signature is what VALUE holds of it. */
bool bfti_session_decode(bft_slice value, struct bfti_session *session);

/* The number that fills VALUE, or starts it; BFT_CORRUPT naming WHAT. */
bft_status bfti_covalue_number(bft_slice value, const char *what,
                               uint64_t *number, bft_slice *rest);

bool bfti_slice_equal(bft_slice a, bft_slice b);
/* Does a session of this ID survive an erasure? */
bool bfti_session_kept(bft_slice id);

/* --- what all handles share ----------------------------------------------------- */

struct bfti_covalue_shared {
    const struct bfti_env *env;

    /* One write at a time, from its first read to its acceptance: so row ids
     * are given in the order of commits, and a failed write gives its back. */
    struct bfti_mutex write_lock;
    uint64_t next_session; /* under write_lock */
    /* No session has a higher CoValue row, and no transaction or signature a
     * higher session row: there they need not be looked for.  Under write_lock. */
    uint64_t sessions_last, content_last;
    struct bfti_ends ends; /* under write_lock */
    uint64_t last_lsn;     /* under write_lock */
    uint64_t turn_changes; /* under write_lock: `changes` when the turn began */

    _Atomic uint64_t covalue_count; /* written under write_lock */
    _Atomic uint64_t changes;       /* written under write_lock */
    /* [commit] README 6: of each slot's CoValues or sessions how many commits
     * have begun and ended, so odd while one is under way.  Written under
     * write_lock. */
    _Atomic uint64_t commits[BFTI_COMMIT_SLOTS];

    /* [erase] README 6: readers of sessions and content compare `erasures`
     * before and after; from before an erasure's first commit to after its last
     * one the CoValue is listed in `hidden`.  Both moments are counted. */
    _Atomic uint64_t erasures;
    _Atomic uint32_t hidden_count;
    struct bfti_mutex hidden_lock;
    uint64_t *hidden; /* rows, under hidden_lock */
    size_t hidden_max;
};

struct bft_covalue_store {
    uint32_t magic; /* BFTI_MAGIC_COVALUE, 0 once closed */
    bft_db *db;
    const struct bfti_env *env;
    struct bfti_covalue_shared *shared;
    bft_durability durability;
    bft_tree *tree[COTREES];             /* fixed after open */
    _Atomic(bft_cursor *) idle[COTREES]; /* one spare cursor of each tree */
    bft_batch *batch;                    /* under shared->write_lock */
};

/* Where commits are counted that write session rows of COVALUE ... */
static inline unsigned bfti_commit_slot_covalue(uint64_t covalue)
{
    return (unsigned)(covalue % (BFTI_COMMIT_SLOTS / 2));
}

/* ... or content of SESSION. */
static inline unsigned bfti_commit_slot_session(uint64_t session)
{
    return BFTI_COMMIT_SLOTS / 2 +
           (unsigned)(session % (BFTI_COMMIT_SLOTS / 2));
}

#define BFTI_MAGIC_COVALUE UINT32_C(0xc0fa1e5d)

/* What every call asks first: is the handle open, and its database, in the
 * right process? */
bft_status bfti_covalue_gate(bft_covalue_store *store);

/* --- reading records ------------------------------------------------------------ */

/* A cursor of TREE, spare or new; give it back with cursor_put. */
bft_status bfti_covalue_cursor_get(bft_covalue_store *store,
                                   enum bfti_cotree tree, bft_cursor **cursor);
void bfti_covalue_cursor_put(bft_covalue_store *store, enum bfti_cotree tree,
                             bft_cursor *cursor);
/* BFT_OK or BFT_NOT_FOUND: is KEY in TREE? */
bft_status bfti_covalue_exists(bft_covalue_store *store, enum bfti_cotree tree,
                               bft_slice key);
/* Row id of ID, or BFT_NOT_FOUND without a text. */
bft_status bfti_covalue_find(bft_covalue_store *store, bft_slice id,
                             uint64_t *row);
/* CoValue of session row SESSION and whether an erasure keeps it; BFT_NOT_FOUND
 * without a text. */
bft_status bfti_covalue_of_session(bft_covalue_store *store, uint64_t session,
                                   uint64_t *covalue, bool *kept);
/* Of session ID of COVALUE all but the signature; BFT_NOT_FOUND without a
 * text. */
bft_status bfti_covalue_session_head(bft_covalue_store *store, uint64_t covalue,
                                     bft_slice id,
                                     struct bfti_session *session);
/* The least index from FROM on of SESSION in TREE; BFT_COVALUE_NONE: none. */
bft_status bfti_covalue_next_idx(bft_covalue_store *store,
                                 enum bfti_cotree tree, uint64_t session,
                                 uint64_t from, uint64_t *idx);

/* --- writing ----------------------------------------------------------------------- */

/* Enter the store's turn; the batch is empty. */
void bfti_covalue_begin(bft_covalue_store *store);
/* Change the batch. */
bft_status bfti_covalue_put(bft_covalue_store *store, enum bfti_cotree tree,
                            bft_slice key, bft_slice value);
bft_status bfti_covalue_remove(bft_covalue_store *store, enum bfti_cotree tree,
                               bft_slice key);
/* All that CURSOR regards of TREE. */
bft_status bfti_covalue_remove_all(bft_covalue_store *store,
                                   enum bfti_cotree tree, bft_cursor *cursor);
/* Have the batch accepted, if there is anything in it, within the turn.  It may
 * have been ACCEPTED although the call fails: then it is visible, but not as
 * durable as was asked. */
bft_status bfti_covalue_accept(bft_covalue_store *store,
                               bft_durability durability, bool *accepted);
/* Leave the turn: what is in the batch is dropped. */
void bfti_covalue_end(bft_covalue_store *store, bft_covalue_applied *applied);
/* After the turn: wait for what DURABILITY asks of the commit LSN. */
bft_status bfti_covalue_settle(bft_covalue_store *store,
                               bft_durability durability, uint64_t lsn);
bft_status bfti_covalue_check_id(bft_slice id, const char *what);
/* The same without a limit: NULL has no bytes. */
bft_status bfti_covalue_check_slice(bft_slice slice, const char *what);
/* Change the batch: set lock KEY to LOCK, held by HOLDER.  (covalue_lock.c) */
bft_status bfti_covalue_lock_write(bft_covalue_store *store, bft_slice key,
                                   const bft_covalue_lock *lock,
                                   bft_slice holder);

/* --- erasure (covalue_erase.c) ---------------------------------------------------- */

/* Is CoValue COVALUE being erased? */
bool bfti_covalue_hidden(struct bfti_covalue_shared *shared, uint64_t covalue);
/* Is what SESSION has to be taken for erased? */
bft_status bfti_covalue_session_hidden(bft_covalue_store *store,
                                       uint64_t session, bool *hidden);
/* Read the marks into SHARED, in its creation. */
bft_status bfti_covalue_marks_load(struct bfti_covalue_shared *shared,
                                   bft_tree *deletions);
/* Finish what is marked, as far as it goes. */
void bfti_covalue_erase_resume(bft_covalue_store *store);
/* Within the turn, with an empty batch: finish the marked COVALUE. */
bft_status bfti_covalue_erase_finish(bft_covalue_store *store,
                                     uint64_t covalue);

/* The steps of an erasure in several batches, for tests that stop between two:
 * mark ID; then remove one batch of COVALUE, *DONE with the last. */
bft_status bfti_covalue_erase_mark(bft_covalue_store *store, bft_slice id,
                                   uint64_t covalue);
bft_status bfti_covalue_erase_step(bft_covalue_store *store, uint64_t covalue,
                                   bool *done);

#endif
