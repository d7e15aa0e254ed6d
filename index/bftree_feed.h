/*
 * Feeds: what was committed, in the order of the commits, from the log.
 */
#ifndef BFTREE_FEED_H
#define BFTREE_FEED_H

#include "bftree.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bft_feed bft_feed;
/*
 * A feed reads from the log what was committed, in the order of the commits,
 * each whole and once.  It never gives one that a crash could take back, nor
 * one that a read could miss by then.  So a commit comes when it is durable:
 * with BFT_BUFFERED at the next sync, bft_sync() or checkpoint.
 *
 * To copy trees and stay up to date, open a feed at BFT_FEED_NOW, then read
 * them, then apply what the feed gives.  Some of that was read already, but
 * changes are results: once all of it is applied the copy is right.
 */

typedef enum bft_change_op {
    BFT_CHANGE_PUT = 1,           /* KEY has VALUE from here on */
    BFT_CHANGE_DELETE = 2,        /* KEY has none (it may have had none) */
    BFT_CHANGE_TREE_CREATE = 3,   /* TREE_ID is new, and empty */
    BFT_CHANGE_TREE_DROP = 4,     /* TREE_ID and all its records are gone */
    BFT_CHANGE_TREE_RENAME = 5,   /* TREE_ID is called NAME, was OLD_NAME */
    BFT_CHANGE_TREE_TRUNCATE = 6, /* TREE_ID is gone, NEW_TREE_ID is in its
                                     place, under its name and empty */
    BFT_CHANGE_TREE_LOAD = 7,     /* the same of a bulk load: NEW_TREE_ID has
                                     what was loaded, which no commit gives:
                                     read it by a cursor */
    BFT_CHANGE_DELETE_RANGE = 8,  /* no key from KEY (len 0: the first) up to,
                                     and without, HIGH (len 0: the end) has a
                                     value */
} bft_change_op;

/*
 * One change.  What does not belong to OP is 0 or NULL.  TREE_ID is what
 * bft_tree_id() tells; after the commit that dropped or truncated a tree there
 * may come changes with its old number, of writes that met it: to be passed
 * over.
 *
 * VALUE_BYTES is the value's length.  VALUE is whole where VALUE.len is the same, as
 * it is of most of up to 1 MiB.  Else, also for those of bft_put_stream() and
 * bft_bulk_merge() that lie outside their leaf, it is 0: bft_feed_value() reads it.
 */
typedef struct bft_change {
    bft_change_op op;
    uint32_t tree_id;
    uint32_t new_tree_id;
    bft_slice key, value;
    uint64_t value_bytes;
    const char *name, *old_name; /* of the tree, zero-ended */
    const void *internal;
    uint64_t expires_ms; /* PUT: when the record expires, 0: never */
    uint64_t ttl_ms;     /* CREATE, TRUNCATE, LOAD: of the new tree */
    bft_slice high;      /* DELETE_RANGE: where it ends */
} bft_change;

/* What one commit did, in an order in which it may be applied.  LSN is where a
 * feed goes on behind it, also after a restart, and the commit_lsn of
 * bft_batch_commit().  Memory is the feed's, until its next call. */
typedef struct bft_commit {
    uint64_t lsn;
    const bft_change *changes;
    size_t count; /* at least 1 */
} bft_commit;

typedef struct bft_feed_options {
    size_t size;
    /* Keep the log for this feed while it is at most so far behind the log's
     * end: the log may take that much more than log_bytes.  What was kept goes
     * with the first checkpoint after the feed has read on, was left behind
     * further than this, or closed.  0: it does not hold the log.  At most half
     * a million segments, else BFT_INVALID. */
    uint64_t hold_bytes;
} bft_feed_options;

#define BFT_FEED_NOW     UINT64_MAX
#define BFT_FEED_FOREVER UINT64_MAX

/*
 * Open a feed of what was committed behind LSN: that of a commit, 0 for all
 * since the database was made, or BFT_FEED_NOW for all that a read from now on
 * may not see.  OPTIONS may be NULL.
 *
 * An LSN means the same after a restart if it was durable before: one of a
 * feed, or one that was waited for.  A lost commit's LSN may become another
 * one's.
 *
 * Memory:  64 KiB, and what the largest commit takes, outside the budget.
 * Threads: a feed is used by one thread at a time, bft_feed_stop() apart; feeds
 *          take no lock, and no writer waits for one.
 * Errors:  BFT_GONE: a checkpoint dropped some of it; bft_feed_lowest() is what
 *          there is.  BFT_INVALID: no commit ends at LSN, or a bad argument.
 *          BFT_IO, BFT_CORRUPT, BFT_NO_MEMORY.
 */
BFT_API BFT_MUST_CHECK bft_status bft_feed_open(bft_db *db, uint64_t lsn,
                                                const bft_feed_options *options,
                                                bft_feed **feed);
/* The lowest LSN that a feed can be opened at for certain; it grows with
 * checkpoints, and lower ones may still do.  0 for a closed handle, too. */
BFT_API uint64_t bft_feed_lowest(bft_db *db);
/*
 * The next commit.  Waits for it for WAIT_MS milliseconds at most, or for ever
 * with BFT_FEED_FOREVER; 0, and in a build without threads: not at all.
 *
 * A writer that was stopped between logging a change and publishing it stops
 * feeds there, too.
 *
 * Errors:  BFT_NOT_FOUND: nothing more is durable by now.  BFT_GONE: it was
 *          dropped before it was read; the feed stays where it is.
 *          BFT_INVALID: the feed was stopped, or its database handle closed;
 *          or, of the first call, no commit ends where it was opened.
 *          BFT_POISONED: a sync failed, and all that was durable before was
 *          read.  BFT_TOO_NEW.  BFT_IO, BFT_CORRUPT, BFT_NO_MEMORY: may be
 *          tried again.  *COMMIT is 0 then.
 */
BFT_API BFT_MUST_CHECK bft_status bft_feed_next(bft_feed *feed,
                                                uint64_t wait_ms,
                                                bft_commit *commit);
/*
 * LEN bytes from OFFSET on of the value that CHANGE, of the last commit that
 * the feed gave, has put (fewer at its end: *GOT).
 *
 * A value that is not in VALUE is read from its tree, as long as it is the
 * newest of its key.  It is not kept for the feed: that could take any amount
 * of space.
 *
 * Errors:  BFT_GONE: it was replaced, removed, or its tree was; which a later
 *          commit of the feed will tell.  BFT_INVALID: the change is no put.
 *          BFT_IO, BFT_CORRUPT, BFT_NO_MEMORY.
 */
BFT_API BFT_MUST_CHECK bft_status bft_feed_value(bft_feed *feed,
                                                 const bft_change *change,
                                                 uint64_t offset, void *buf,
                                                 size_t len, size_t *got);
/* The LSN that the feed is at: behind the last commit that it gave.  0 once its
 * handle is closed. */
BFT_API uint64_t bft_feed_lsn(bft_feed *feed);
/* End the call that waits, and let all later ones answer BFT_INVALID.  By any
 * thread, at any time before bft_feed_close().  NULL is fine. */
BFT_API void bft_feed_stop(bft_feed *feed);
/* No call on the feed is under way, a bft_close() of its handle may be.  NULL
 * is fine. */
BFT_API void bft_feed_close(bft_feed *feed);

#ifdef __cplusplus
}
#endif

#endif
