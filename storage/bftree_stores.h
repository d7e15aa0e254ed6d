/*
 * Stores built on bftree's trees.  One so far: the covalue store, which holds
 * what Jazz (cojson 0.20) keeps in SQLite or IndexedDB, row for row.
 *
 * A database has one covalue store.  Its rows:
 *
 *   CoValue      row id, id, header              never changed, never removed
 *   session      row id, of a CoValue, session id, count of transactions, last
 *                signature, bytes since the last stored signature
 *   transaction  of a session row, index from 0, value
 *   signature    of a session row, index of the last transaction it covers
 *   unsynced     a CoValue id and a peer that lacks something of it
 *   deletion     a CoValue id, waiting for its erasure or done
 *   lock         a key, its holder, when taken and released, how far it got
 *
 * Ids, headers, transactions and signatures are bytes that the store does not
 * look into, but for a session id that ends in '$': it survives an erasure.
 * Row ids are 1, 2, 3, ... in the order of commits, without gaps, and are never
 * given twice.
 */
#ifndef BFTREE_STORES_H
#define BFTREE_STORES_H

#include "bftree.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bft_covalue_store bft_covalue_store;

/* In the place of a number: there is none.  So it is no index. */
#define BFT_COVALUE_NONE UINT64_MAX
/* Longest id of a CoValue, a session or a peer, and longest key of a lock.
 * With leaf_bytes below 4,096 shorter ones may be refused with BFT_TOO_BIG: a
 * key, that is an id and up to 10 bytes, or the ids of a CoValue and a peer
 * together, takes a quarter of that at most. */
#define BFT_COVALUE_ID_MAX 500u

/* Zero means the default everywhere.  Set size to sizeof. */
typedef struct bft_covalue_options {
    size_t size;
    bft_durability durability; /* BFT_DEFAULT below; default BUFFERED */
} bft_covalue_options;

/*
 * Open the covalue store of DB, making its trees when they are missing.
 * OPTIONS may be NULL.  Finishes the erasures that a crash interrupted; one that
 * cannot go on (say the disk is full, or DB is only read) does not fail the call:
 * what it had left to remove stays unseen, and the next erasure takes it up again.
 * BFT_INVALID: also with BFT_STORAGE_CACHE, which forgets records one by one.
 *
 * Memory:  close the store before DB.
 * Threads: a store may be used by any number of threads, and opened any number
 *          of times; handles see each other's writes at once.  Writes take
 *          turns; a read waits for nobody.
 */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_open(
    bft_db *db, const bft_covalue_options *options, bft_covalue_store **store);
/* NULL is fine.  Later calls on STORE answer BFT_INVALID, until many more have
 * been closed; as they do when DB has been closed before. */
BFT_API void bft_covalue_close(bft_covalue_store *store);

/* --- writing ------------------------------------------------------------- */

typedef enum bft_covalue_op_kind {
    /* Find or make the CoValue `id`.  `value` is its header, kept as it is when
     * there is one already.  BFT_OP_FIND: only find, else BFT_NOT_FOUND.
     * Result: its row id. */
    BFT_OP_COVALUE = 1,
    /* Make or change the session `id` of CoValue `row`: its count of
     * transactions is `idx`, its last signature `value`, `bytes` those since the
     * last stored signature (BFT_COVALUE_NONE: null).  BFT_OP_EXPECT: the row
     * must still be what the caller read, row id `expect_row` (0: no such row)
     * and count `expect_idx`, else BFT_CONFLICT.  Result: its row id. */
    BFT_OP_SESSION = 2,
    /* Add transaction `value` at `idx` of session `row`: BFT_EXISTS when there
     * is one, or BFT_OP_OVERWRITE. */
    BFT_OP_TRANSACTION = 3,
    /* Add signature `value` after transaction `idx` of session `row`, in the
     * same two ways. */
    BFT_OP_SIGNATURE = 4,
    /* Queue the CoValue `id` for erasure; one that is done stays done. */
    BFT_OP_DELETED = 5,
    /* Peer `value` lacks something of the CoValue `id` ... */
    BFT_OP_UNSYNCED = 6,
    /* ... or nothing any more ... */
    BFT_OP_SYNCED = 7,
    /* ... and no peer is to be remembered for `id`. */
    BFT_OP_UNTRACK = 8,
    /* Set lock `id`: holder `value`, acquired `row`, released `bytes` (0: held),
     * offset `idx`. */
    BFT_OP_LOCK = 9,
} bft_covalue_op_kind;

enum {
    BFT_OP_FIND = 1,
    BFT_OP_OVERWRITE = 2,
    BFT_OP_EXPECT = 4,
    /* `row` is that of the last COVALUE (for a SESSION), or the last SESSION
     * (for a TRANSACTION or SIGNATURE), before it among these. */
    BFT_OP_LATEST = 8,
};

/* One change.  What a kind does not name is not looked at. */
typedef struct bft_covalue_op {
    bft_covalue_op_kind kind;
    uint32_t flags;
    uint64_t row, idx, bytes;
    uint64_t expect_row, expect_idx;
    bft_slice id, value;
    uint64_t result; /* set by the call: a row id, or 0 */
} bft_covalue_op;

typedef struct bft_covalue_applied {
    uint64_t lsn;     /* of the commit; of the last one before when nothing had
                         to change: what the caller may have seen lies below */
    uint64_t changes; /* bft_covalue_changes() just after it */
    uint64_t before;  /* and just before: what was read then is what it met */
} bft_covalue_applied;

/*
 * Do OPS in order as one transaction: each sees those before it, others see all
 * of them or none, and after a failure none happened.
 *
 * Row ids of a failed transaction are given to the next.  Transactions survive a
 * crash in the order of their commits: if one is there, all before it are.
 *
 * Memory:  borrows everything until it returns.  APPLIED may be NULL.
 * Threads: one at a time, in no promised order among those that wait; the wait
 *          for BFT_SYNC is not part of the turn, so that commits share a sync.
 * Errors:  BFT_EXISTS, BFT_NOT_FOUND, BFT_CONFLICT as said at the ops.
 *          BFT_TOO_BIG: an id is over BFT_COVALUE_ID_MAX, or all of it is over
 *          1/8 of the memory budget, or 512 MiB.
 *          BFT_INVALID: an op is malformed.
 *          BFT_READ_ONLY: the database was opened to be read.
 *          BFT_NO_SPACE, BFT_IO, BFT_POISONED: the disk refused.  With an
 *          APPLIED->lsn that is not 0 it happened, but is not as durable as
 *          DURABILITY asks.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_covalue_apply(bft_covalue_store *store, bft_covalue_op *ops, size_t count,
                  bft_durability durability, bft_covalue_applied *applied);

/*
 * The same from LEN bytes: ops one after the other, without padding, all numbers
 * little-endian:
 *
 *    0  u8   kind
 *    1  u8   flags
 *    2  u16  length of id
 *    4  u32  length of value
 *    8  u64  row
 *   16  u64  idx
 *            SESSION and LOCK only:
 *   24  u64  bytes
 *   32  u64  expect_row
 *   40  u64  expect_idx
 *            then id, then value
 *
 * The row ids of the COVALUE and SESSION ops go to ROWS in order, at most
 * ROWS_MAX of them.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_covalue_apply_packed(bft_covalue_store *store, const void *packed,
                         size_t len, bft_durability durability, uint64_t *rows,
                         size_t rows_max, bft_covalue_applied *applied);

/*
 * Erase the CoValue ID: remove every session whose id does not end in '$' with
 * its transactions and signatures, keep the header and the other sessions, and
 * set its deletion done (adding it when missing).  BFT_NOT_FOUND: no such
 * CoValue; nothing is changed.
 *
 * One too big for one batch is marked first and done in several.  From the mark
 * on every read behaves as if it was finished, also after a crash, and whoever
 * opens the store, erases, or writes to that CoValue finishes it.
 * After BFT_NO_SPACE, BFT_IO or BFT_POISONED it may have happened, be marked, or
 * not have begun.  BFT_READ_ONLY: the database was opened to be read.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_covalue_erase(bft_covalue_store *store, bft_slice id,
                  bft_durability durability, bft_covalue_applied *applied);

/* --- reading ------------------------------------------------------------- */

/* How many transactions and erasures have changed the store since its database
 * was opened, by any handle: while it stays the same, what was read stays so. */
BFT_API uint64_t bft_covalue_changes(bft_covalue_store *store);
/* How many CoValues there are; their row ids are 1 to that. */
BFT_API uint64_t bft_covalue_count(bft_covalue_store *store);
/* The row id of the CoValue ID, or BFT_NOT_FOUND.  It never changes. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_row(bft_covalue_store *store,
                                                  bft_slice id, uint64_t *row);

/*
 * What one of these calls brings is as it was at one moment, but where commits
 * to the same CoValue never pause: then its sessions are, and the content of
 * each, which may be newer.  No session says that it has more transactions than
 * there are.
 *
 * What the reads below leave in the caller's buffer: this head, then texts and
 * tables.  Places are byte offsets from the head; the tables are arrays of the
 * structs below, aligned to 8.  Numbers are little-endian.
 *
 * `text` is one run of bytes: "[", the header if there is one, the transactions
 * in the order of their table, with "," between any two, "]"; so that those
 * whose values are JSON texts can parse all of them at once.
 */
typedef struct bft_covalue_view {
    uint64_t row;     /* of the CoValue, 0 if none was asked for */
    uint64_t changes; /* bft_covalue_changes() just before the read */
    uint64_t next;    /* 0: all that was asked for is here; else ask again from
                         this index */
    uint32_t header, header_len; /* place 0: none */
    uint32_t text, text_len;
    uint32_t sessions, session_count;         /* bft_session_row, by row id */
    uint32_t signatures, signature_count;     /* bft_signature_row, by session
                                                 as in their table, and idx */
    uint32_t transactions, transaction_count; /* bft_transaction_row, so too */
} bft_covalue_view;

typedef struct bft_session_row {
    uint64_t row, covalue;
    uint64_t last_idx;    /* how many transactions */
    uint64_t bytes_since; /* last signature; BFT_COVALUE_NONE: null */
    uint32_t id, id_len;
    uint32_t signature, signature_len; /* the last one */
    uint32_t flags;
    uint32_t signature_count, transaction_count; /* its rows in this view */
    uint32_t reserved;
} bft_session_row;

enum {
    BFT_SESSION_SIGNED = 1,  /* it has signature rows */
    BFT_SESSION_CONTENT = 2, /* its signature rows are in this view, and its
                                transactions up to the first of them, or to
                                last_idx - 1 if there is none.  Not set when
                                they did not fit: ask for them by themselves */
};

typedef struct bft_signature_row {
    uint64_t session, idx;
    uint32_t signature, signature_len;
} bft_signature_row;

typedef struct bft_transaction_row {
    uint64_t session, idx;
    uint32_t value, value_len;
} bft_transaction_row;

typedef enum bft_covalue_what {
    BFT_LOAD_KNOWN = 0,   /* ids and counts of the sessions */
    BFT_LOAD_ROWS = 1,    /* also header and last signatures */
    BFT_LOAD_CONTENT = 2, /* also what BFT_SESSION_CONTENT says */
} bft_covalue_what;

/*
 * Read the CoValue ID into BUF, *USED bytes of it: what WHAT says.  KNOWN and
 * ROWS touch two trees.
 *
 * What is too long for BUF is not returned: BFT_TOO_SMALL, and *USED is a length
 * that would have done.  Content that does not fit is left out instead.
 *
 * Memory:  BUF is aligned to 8; 4 GiB of it are used at most.
 * Errors:  BFT_NOT_FOUND: no such CoValue.  BFT_TOO_SMALL, BFT_IO, BFT_CORRUPT.
 *          *USED is 0 unless the call returns BFT_OK or BFT_TOO_SMALL.
 */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_load(bft_covalue_store *store,
                                                   bft_slice id,
                                                   bft_covalue_what what,
                                                   void *buf, size_t len,
                                                   size_t *used);
/* The same for the CoValue in row ROW, without its header; no sessions when
 * there is no such row. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_sessions(bft_covalue_store *store,
                                                       uint64_t row,
                                                       bft_covalue_what what,
                                                       void *buf, size_t len,
                                                       size_t *used);
/* What KNOWN says of the CoValues in rows FROM to TO, both included: their
 * sessions, by CoValue.  Those of as many CoValues as BUF takes; `next` is then
 * the first that was left out. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_known(bft_covalue_store *store,
                                                    uint64_t from, uint64_t to,
                                                    void *buf, size_t len,
                                                    size_t *used);
/* The one session ID of the CoValue in row ROW, or BFT_NOT_FOUND. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_session(bft_covalue_store *store,
                                                      uint64_t row,
                                                      bft_slice id, void *buf,
                                                      size_t len, size_t *used);
/* The transactions FROM to TO, both included, of session row SESSION, as many as
 * BUF takes; BFT_TOO_SMALL when it does not take the first. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_transactions(
    bft_covalue_store *store, uint64_t session, uint64_t from, uint64_t to,
    void *buf, size_t len, size_t *used);
/* The signatures from index FROM on, in the same way. */
BFT_API BFT_MUST_CHECK bft_status
bft_covalue_signatures(bft_covalue_store *store, uint64_t session,
                       uint64_t from, void *buf, size_t len, size_t *used);

/* A list of ids: this head, the ids one after the other, and the table of their
 * ends (uint32_t, counted from the start of the text). */
typedef struct bft_id_list {
    uint32_t text, text_len;
    uint32_t ends, count;
    uint32_t more; /* 1: there are more than BUF or LIMIT took */
    uint32_t reserved;
} bft_id_list;

/* The CoValues with row ids above AFTER, by row id, at most LIMIT. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_ids(bft_covalue_store *store,
                                                  uint64_t after,
                                                  uint64_t limit, void *buf,
                                                  size_t len, size_t *used);
/* The CoValues that wait for erasure, by id, from the first above AFTER (NULL
 * data: from the first of all). */
BFT_API BFT_MUST_CHECK bft_status
bft_covalue_deletions(bft_covalue_store *store, bft_slice after, void *buf,
                      size_t len, size_t *used);
/* The CoValues that some peer lacks something of, each once, in the same way. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_unsynced(bft_covalue_store *store,
                                                       bft_slice after,
                                                       void *buf, size_t len,
                                                       size_t *used);

/* --- reconciliation locks ------------------------------------------------ */

typedef struct bft_covalue_lock {
    int64_t acquired; /* milliseconds since 1970 */
    int64_t released; /* 0: held */
    uint64_t offset;
    size_t holder_len;
    uint8_t holder[BFT_COVALUE_ID_MAX];
} bft_covalue_lock;

typedef enum bft_covalue_lock_result {
    BFT_LOCK_ACQUIRED = 0,
    BFT_LOCK_NOT_DUE = 1, /* released less than INTERVAL_MS ago */
    BFT_LOCK_HELD = 2,    /* by another, since at most TTL_MS */
} bft_covalue_lock_result;

/* The row of lock KEY, or BFT_NOT_FOUND. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_lock_get(bft_covalue_store *store,
                                                       bft_slice key,
                                                       bft_covalue_lock *lock);
/* Take lock KEY for HOLDER if it is due and free: then *OFFSET is where a holder
 * that did not release it got to, or 0. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_lock_acquire(
    bft_covalue_store *store, bft_slice key, bft_slice holder, int64_t now_ms,
    int64_t interval_ms, int64_t ttl_ms, bft_covalue_lock_result *result,
    uint64_t *offset);
/* Note how far its holder got.  Nothing happens unless HOLDER holds it. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_lock_renew(
    bft_covalue_store *store, bft_slice key, bft_slice holder, uint64_t offset);
/* Give it back, done.  Nothing happens unless HOLDER took it last.  A NOW_MS of
 * 0 is noted as 1. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_lock_release(
    bft_covalue_store *store, bft_slice key, bft_slice holder, int64_t now_ms);

/* --- looking inside ------------------------------------------------------ */

/* What bft_covalue_check() counted. */
typedef struct bft_covalue_census {
    size_t size; /* set to sizeof */
    uint64_t covalues, sessions, transactions, signatures;
    uint64_t unsynced, deletions_waiting, deletions_done, locks;
    /* Transactions and signatures whose session row is gone or never was. */
    uint64_t orphan_transactions, orphan_signatures;
    uint64_t erasures_unfinished;
} bft_covalue_census;

/* Walk all rows: row ids without gaps, ids and rows that name each other.
 * BFT_CORRUPT names the first breach.  Exclude writers. */
BFT_API BFT_MUST_CHECK bft_status bft_covalue_check(bft_covalue_store *store,
                                                    bft_covalue_census *census);

#ifdef __cplusplus
}
#endif

#endif
