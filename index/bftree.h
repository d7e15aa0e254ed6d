/*
 * bftree: an embedded, concurrent, larger-than-memory range index.
 *
 * A database is a directory.  It holds many named trees over one memory
 * budget, one page file and one write-ahead log, so that one batch, and one
 * sync, can span trees.  Keys are byte strings in memcmp order.
 *
 * Handles may be used by any thread; a cursor or a batch by one at a time.
 * Every fallible call returns a bft_status and leaves a text for
 * bft_last_error(); results come last and are 0 or NULL on failure.  A handle
 * that is NULL, or a database's or a tree's and closed lately, as any argument that
 * makes no sense, is answered with BFT_INVALID, one that a forked child inherits
 * with BFT_FORKED.  What else was given back is not to be used again.
 * A bft_tree that was dropped answers BFT_GONE.
 */
#ifndef BFTREE_H
#define BFTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bft_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BFT_VERSION "0.1.0"
#define BFT_KEY_MAX 1024u
#if SIZE_MAX > 0xffffffffu
#define BFT_VALUE_MAX 0xffffffffu
#else
#define BFT_VALUE_MAX 0x40000000u
#endif

typedef struct bft_db bft_db;
typedef struct bft_tree bft_tree;
typedef struct bft_batch bft_batch;
typedef struct bft_cursor bft_cursor;
typedef struct bft_snapshot bft_snapshot;
typedef struct bft_txn bft_txn;

/* When does a commit survive what? */
typedef enum bft_durability {
    BFT_DEFAULT = 0,  /* what the database was opened with */
    BFT_NONE = 1,     /* certain only after a checkpoint, a later stronger
                         commit or a clean close */
    BFT_BUFFERED = 2, /* survives a kill of the process */
    BFT_SYNC = 3,     /* survives power loss; concurrent commits share a sync */
} bft_durability;

/* Where a database's files live. */
typedef enum bft_storage {
    BFT_STORAGE_FILES = 0,  /* the file system */
    BFT_STORAGE_MEMORY = 1, /* this process's memory; gone at the last close */
    BFT_STORAGE_CACHE = 2,  /* the same, and of what does not fit into
                               memory_bytes some is forgotten; see below */
} bft_storage;

/* How the files of BFT_STORAGE_FILES are read and written.  What a commit
 * survives is the same with all of them, and so are the files. */
typedef enum bft_backend {
    BFT_BACKEND_DEFAULT = 0, /* BFT_BACKEND_POSIX */
    BFT_BACKEND_POSIX = 1,   /* plain calls through the page cache */
    BFT_BACKEND_DIRECT = 2,  /* pages past the page cache (O_DIRECT) */
    BFT_BACKEND_URING = 3,   /* through io_uring, a ring for each thread */
} bft_backend;

/* Zero means the default everywhere.  Set size to sizeof(bft_options). */
typedef struct bft_options {
    size_t size;
    bool must_exist;      /* do not create: BFT_NOT_FOUND */
    bool error_if_exists; /* create only: BFT_EXISTS */
    bool read_only;       /* see below */
    bft_storage storage;
    bft_durability durability; /* of writes that do not say; default BUFFERED */
    uint64_t memory_bytes;     /* budget, see below; default 64 MiB, from
                                  256 KiB to 1 TiB, else BFT_INVALID; 1 GiB
                                  on 32-bit */
    uint64_t log_bytes;        /* checkpoint so that the log stays under about
                                  this, or half a million segments; default 64
                                  MiB.  More: fewer leaves written, a longer
                                  opening after a kill.  See below for
                                  checkpoints that fail */
    uint64_t log_segment_bytes; /* of a new database; a multiple of 4 KiB from
                                   64 KiB to 1 GiB; default 4 MiB */
    uint32_t leaf_bytes; /* of a new tree's leaves on disk, default for all
                            trees: 512..32,768 by 512; default 4,096.  16
                            records should fit; more is for data in memory */
    bool compress;       /* zstd, perhaps with a dictionary that is made for
                            the tree, where it saves space: of leaves of up to
                            4 KiB more than half of them; default off.  To a
                            library built without zstd every call that reads
                            such a leaf is BFT_UNSUPPORTED */
    bool no_threads;     /* run background steps in the foreground */
    uint32_t promote_percent; /* cold reads that cache what they found: a
                                 quarter of it where memory is short, four times
                                 where it is not and will hold a small part of
                                 the data; default 30; 101 means never */
    /* Called with texts that no call returns: a failing background step; a
     * backend that the system refuses (BFT_UNSUPPORTED), within bft_open, which
     * goes on with BFT_BACKEND_POSIX.  It calls nothing of ours. */
    void (*report)(void *ctx, bft_status status, const char *text);
    void *report_ctx;
    const void *internal; /* NULL; tests put surroundings here */
    bft_backend backend; /* default BFT_BACKEND_POSIX; unknown to a caller whose
                             size ends before it, which is fine */
} bft_options;

/*
 * What the memory budget holds: pages; the page table, about 1/150 of the data
 * with leaves of 4 KiB, 1/20 with 512 bytes; inner nodes, about as much with
 * short keys, of which those that lead to leaves leave memory, and are read
 * again, where all together take more than an eighth of the budget, or 64 KiB,
 * and that were not changed since the last checkpoint; filters of leaves on disk,
 * an eighth at most, where keys that are not there are asked for; what inner nodes
 * replaced until it is freed; lists of extents that wait for a checkpoint; and
 * lists and buffers of threads, of which what one has read ahead for a scan is a
 * 64th of the budget, or 256 KiB, at most, and for four of them at a time; with
 * compression, a 16th for dictionaries.  Pages give way to the others, but for half
 * of the budget, which is always theirs.
 * So memory_used_bytes stays below the budget, an eighth more, and 16 leaves,
 * at least 64 KiB, for each thread that uses the database (two of its own), as
 * long as all but the pages fits into the other half: the smallest budget that
 * makes sense is twice that.  It is up to five times as much for each thread, as
 * these list a leaf's records, with batches, and with records of less than 20 bytes
 * without what all keys of a leaf begin with.  A thread that reads a value of more
 * than 16 KiB from outside a leaf adds up to 1 MiB for that time.  Not in it:
 * batches, cursors, feeds, frames of the log that are being written, the last that
 * was and 32 KiB of others for each thread that writes, 512 KiB for each value
 * outside of its leaf that is being put, a write buffer of 512 KiB, of which an
 * extent touches only its own length, and with compression zstd's own memory, for
 * each thread that writes the page file at the same time.  Nor 64 KiB for each
 * thread that reads or writes it at the same time with BFT_BACKEND_DIRECT, 256 KiB
 * when it reads several leaves at once, 512 of which are kept; nor a ring of about
 * 20 KiB for each thread that ever did with BFT_BACKEND_URING, or did the latter.
 */

/*
 * While checkpoints fail (a leaf that they have to read is damaged, say) none of the
 * log can go.  Writers wait for the one that is due, and go on when it has failed:
 * what they commit is durable as ever, and the log grows beyond log_bytes, up to what
 * the disk has, when writes are BFT_NO_SPACE.  Who writes into a leaf that has to go
 * to the disk for it, and cannot, is told so.  `report` tells of such a checkpoint,
 * of the same failure once in a row, and bft_stats of accepted_lsn, where the log
 * ends, and of redo_lsn, from where on it is needed.  bft_checkpoint() tries again
 * at any time, and says what is wrong; of damage bft_verify() tells the place, and
 * bft_salvage() saves the rest.  With no_threads a write that finds log_bytes in use
 * answers with the checkpoint's failure, and nothing is written.
 */

/*
 * With BFT_STORAGE_CACHE the database is a cache: it has no files and no log, and
 * what is put never fails or waits because of what could be forgotten.  Whatever is
 * put, it stays within memory_bytes and what is said above, where no write buffer is
 * used.  To make room it forgets records that were not used lately, those of a leaf
 * at a time; leaves_forgotten of bft_stats counts the leaves.
 *
 * What was forgotten is as if it had been deleted: BFT_NOT_FOUND, not counted,
 * absent to bft_insert() and bft_replace(), passed over by cursors, of which
 * bft_cursor_open_newest() opens what there are.  What is found is what was put
 * last: no older value, nor what was deleted, comes back.  A batch is visible at
 * once, and its records are forgotten by themselves.  Trees, records that expire and
 * deletions of ranges are as in others.
 *
 * A value that would lie outside of its leaf is refused with BFT_TOO_BIG (see
 * bft_put(); 1,460 bytes less the key in leaves of 4,096), and leaf_bytes is 1/32
 * of memory_bytes at most.  The database begins empty and is gone at the last close;
 * BFT_INVALID, where a database in memory has that path.  All LSNs are 0.  Of the
 * options durability must be BFT_NONE, its default here; read_only and compress are
 * refused with BFT_INVALID; log_bytes, log_segment_bytes, promote_percent and backend
 * mean nothing.
 *
 * BFT_UNSUPPORTED, for they are about what survives, or what was: bft_sync(),
 * bft_checkpoint(), bft_wait_durable(), bft_batch_commit() with BFT_BUFFERED or
 * BFT_SYNC, bft_snapshot_take(), bft_txn_begin(), bft_cursor_open(), bft_feed_open(),
 * bft_bulk_load(), bft_backup().
 */

/*
 * With read_only not a byte and not a name below PATH is changed, so that it may
 * lie where this process cannot write: what a crash left is recovered in memory.
 * Calls that would write, or make something survive, answer BFT_READ_ONLY.  Any
 * number of processes may have it open so at a time, and none otherwise: BFT_BUSY
 * (not told of a copy without its lock file).  Beside the budget this takes
 * memory for what recovery writes: two or three segments of the log, what the log
 * has of large values, and pages that the budget cannot hold.
 */

/*
 * Open or create the database in directory PATH (its parent must exist).
 * The same process may open a directory again, by any name of it: the handles
 * share one engine, closed with the last.  Recovers what a crash left.  A PATH
 * from the working directory is what it is now, wherever the process goes later.
 * Waits for who opens or closes the same directory, and for no other database.
 *
 * Errors:  BFT_BUSY: another process has it open; nothing was touched.  Or this
 *          thread is within its last bft_close(), see bft_db_shared().
 *          BFT_INVALID: options contradict the engine that is open already
 *          (bft_last_error names the option), or PATH is not a directory.
 *          BFT_CORRUPT: also of a directory with an unfinished bft_backup().
 *          BFT_TOO_NEW, BFT_READ_ONLY, BFT_NO_SPACE, BFT_IO,
 *          BFT_NO_MEMORY, BFT_NOT_FOUND, BFT_EXISTS.
 */
BFT_API BFT_MUST_CHECK bft_status bft_open(const char *path,
                                           const bft_options *options,
                                           bft_db **db);
/* Close: with the last handle, makes everything durable (a checkpoint) and
 * frees the engine; close cursors and batches first.  Feeds of the handle end:
 * a call that waits returns, it and later ones answer BFT_INVALID, and each is
 * still to be closed.  NULL is fine.
 *
 * BFT_BUSY: another thread's bft_backup() works through this handle, which
 * stays open.  Whatever else is returned (BFT_NO_SPACE, BFT_IO, BFT_POISONED,
 * BFT_CORRUPT), the handle is gone. */
BFT_API bft_status bft_close(bft_db *db);

/* Everything accepted before the call survives power loss when it returns.
 * Errors: BFT_READ_ONLY, BFT_NO_SPACE, BFT_IO.  BFT_POISONED: an earlier sync
 * failed, and what it was to write is not tried again. */
BFT_API BFT_MUST_CHECK bft_status bft_sync(bft_db *db);
/* Write a checkpoint now: later recovery starts from here.
 * Errors: as of bft_sync().  BFT_CORRUPT: a leaf that it has to read is damaged;
 * what was committed is as durable as before. */
BFT_API BFT_MUST_CHECK bft_status bft_checkpoint(bft_db *db);
/* Return when everything up to LSN (of a commit) survives power loss.
 * Errors: as of bft_sync(). */
BFT_API BFT_MUST_CHECK bft_status bft_wait_durable(bft_db *db, uint64_t lsn);
/* The LSN up to which everything survives power loss. */
BFT_API uint64_t bft_durable_lsn(bft_db *db);

/* --- trees --------------------------------------------------------------- */

typedef struct bft_tree_options {
    size_t size;
    bool must_exist;     /* BFT_NOT_FOUND instead of creating it */
    uint32_t leaf_bytes; /* of a new tree; 0: the database's */
    uint64_t ttl_ms; /* of a new tree: its records expire, see below; 0: they do
                        not, or it is as it was made */
} bft_tree_options;

/* The tree NAME (1..255 bytes, zero-ended), made when missing.  OPTIONS may be
 * NULL.  The handle lives until the database is closed; opening again gives the
 * same one.
 * Errors: BFT_INVALID: leaf_bytes or ttl_ms is not what the tree was made with.
 * BFT_NOT_FOUND.  Of making it: BFT_READ_ONLY, BFT_NO_SPACE, BFT_IO,
 * BFT_POISONED; BFT_TOO_BIG: there are so many, or with so long names, that these
 * would be over 444 KiB, with 18 bytes for each, 8 if its records expire, and 33 if
 * it has dictionaries; or they would leave too little for deleted ranges whose
 * records are there still. */
BFT_API BFT_MUST_CHECK bft_status bft_tree_open(bft_db *db, const char *name,
                                                const bft_tree_options *options,
                                                bft_tree **tree);
/* Remove the tree with all it holds; its space is reused.  Durable like a write.
 * Errors: BFT_NOT_FOUND, BFT_READ_ONLY, BFT_NO_SPACE, BFT_IO, BFT_POISONED.
 * BFT_CORRUPT: it is gone, but the space that only what is damaged of it knows of
 * is lost, see bft_verify(); or what leads to its leaves is damaged, and it is
 * there as before, which bft_tree_open() tells.  BFT_BUSY: a snapshot or a
 * transaction is open. */
BFT_API BFT_MUST_CHECK bft_status bft_tree_drop(bft_db *db, const char *name);
/*
 * Remove all records of the tree at once, however many.  Handles and cursors go
 * on with the empty tree.
 *
 * One step to others and to a crash: the tree has all of its records or none.  A
 * write or batch under way may go too, what a batch puts into this tree as a
 * whole: it came before.  The space is reused.  Waits for a checkpoint under way;
 * keeps some 200 bytes until the database is closed.
 *
 * Durable like a write; when the commit fails (BFT_NO_SPACE, BFT_IO,
 * BFT_POISONED) it is done, but may not survive.
 * A bft_put_stream() of a large value under way answers BFT_CONFLICT.
 * Errors: also BFT_NOT_FOUND, BFT_READ_ONLY.  BFT_CORRUPT: what leads to its leaves
 * is damaged, and nothing has changed; damaged leaves lose space as of a drop.
 * BFT_BUSY: a snapshot or a transaction is open.
 */
BFT_API BFT_MUST_CHECK bft_status bft_tree_truncate(bft_db *db,
                                                    const char *name);
/* Give the tree another name, which no tree has (else BFT_EXISTS).  Its handles
 * stay.  One step to others and to a crash: it is found by the one name or the
 * other.  Snapshots are no matter: never BFT_BUSY.  Durable like a write.  Waits for a checkpoint under way; the old name
 * is kept until the close.
 * Errors: as of bft_tree_truncate(), also where the commit fails; BFT_TOO_BIG as of
 * bft_tree_open(). */
BFT_API BFT_MUST_CHECK bft_status bft_tree_rename(bft_db *db, const char *name,
                                                  const char *new_name);
/* Call EACH for every tree, in no order, until it returns false. */
BFT_API BFT_MUST_CHECK bft_status
bft_tree_list(bft_db *db, bool (*each)(void *ctx, const char *name), void *ctx);
BFT_API bft_db *bft_tree_db(bft_tree *tree);
/* The number of the tree that the handle stands for now: another one after a
 * truncation or a bulk load, never one that another tree had.  Of a dropped
 * tree it is what it was: never BFT_GONE.  Errors: BFT_INVALID. */
BFT_API BFT_MUST_CHECK bft_status bft_tree_id(bft_tree *tree, uint32_t *id);

/* --- records ------------------------------------------------------------- */

/*
 * Copy the newest committed value of KEY into BUF, its length into *VALUE_LEN.
 *
 * A value longer than BUF_LEN is not copied: the call returns BFT_TOO_SMALL and
 * *VALUE_LEN is the length to come back with.
 *
 * Units:   bytes throughout; KEY.len is 1..BFT_KEY_MAX.
 * Memory:  borrows KEY and BUF until it returns.
 * Threads: any number, also while others write TREE.  May read the page file;
 *          never waits for a writer.
 * Errors:  BFT_NOT_FOUND, BFT_TOO_SMALL, BFT_IO, BFT_CORRUPT.  BFT_TOO_BIG: the
 *          key is longer than BFT_KEY_MAX.  *VALUE_LEN is 0 unless
 *          the call returns BFT_OK or BFT_TOO_SMALL.
 */
BFT_API BFT_MUST_CHECK bft_status bft_get(bft_tree *tree, bft_slice key,
                                          void *buf, size_t buf_len,
                                          size_t *value_len);
/* The same into memory that the caller gives back with bft_free().
 * Errors: BFT_NOT_FOUND, BFT_NO_MEMORY, BFT_IO, BFT_CORRUPT, BFT_TOO_BIG. */
BFT_API BFT_MUST_CHECK bft_status bft_get_copy(bft_tree *tree, bft_slice key,
                                               void **value, size_t *value_len);
/* LEN bytes of the value from OFFSET on (fewer at its end: *GOT).
 * Errors: BFT_NOT_FOUND, BFT_IO, BFT_CORRUPT, BFT_TOO_BIG. */
BFT_API BFT_MUST_CHECK bft_status bft_get_range(bft_tree *tree, bft_slice key,
                                                uint64_t offset, void *buf,
                                                size_t len, size_t *got);
/* One key of bft_multi_get(), and its answer: as bft_get() gives it, in an order
 * of the caller's. */
typedef struct bft_answer {
    bft_slice key; /* asked for */
    void *buf;     /* where its value goes, BUF_LEN bytes */
    size_t buf_len;
    size_t value_len;  /* out */
    bft_status status; /* out */
} bft_answer;
/*
 * Look for COUNT keys of one tree, in any order, some perhaps twice.
 *
 * Inside, leaves in memory are fetched several at a time, and what they cannot
 * tell is sorted: each leaf on disk is read once.  Each answer is the newest
 * committed value at some instant of the call, not all at one.
 *
 * Memory:  borrows keys and buffers until it returns.
 * Threads: as bft_get().
 * Errors:  of the call itself (BFT_INVALID, BFT_NO_MEMORY, ...: no answer is
 *          set), else the first answer's in ITEMS that is neither BFT_OK,
 *          BFT_NOT_FOUND nor BFT_TOO_SMALL, say BFT_IO or BFT_CORRUPT; the
 *          others are answered all the same.
 */
BFT_API BFT_MUST_CHECK bft_status bft_multi_get(bft_tree *tree,
                                                bft_answer *items,
                                                size_t count);
/*
 * Set KEY to VALUE.  Visible to others when it returns; survives what the
 * database's durability says.  Waits only for a writer of the same leaf, for
 * room, and for its own sync.
 *
 * This and the rest holds for the writes that follow as well:
 *
 * Units:   KEY.len is 1..BFT_KEY_MAX and at most a quarter of the tree's
 *          leaf_bytes (128 with leaves of 512), VALUE.len 0..BFT_VALUE_MAX.
 *          A record of more than 3/8 of that (less 64 bytes) has its value in an
 *          extent of its own, which each read of it fetches from the file.
 * Memory:  borrows KEY and VALUE until it returns.
 * Threads: any number, also for one key.
 * Errors:  BFT_INVALID, BFT_TOO_BIG: key or value is not as above.  BFT_GONE:
 *          the tree was dropped.  BFT_READ_ONLY.  After these nothing has
 *          changed.  After others (BFT_NO_SPACE, BFT_IO, BFT_POISONED, BFT_CORRUPT,
 *          BFT_NO_MEMORY) either nothing has, or the change is visible, but
 *          may not survive: bft_get() tells which.
 */
BFT_API BFT_MUST_CHECK bft_status bft_put(bft_tree *tree, bft_slice key,
                                          bft_slice value);
/* Set KEY only if it is absent, else BFT_EXISTS, and nothing has changed.
 * Errors: as of bft_put(). */
BFT_API BFT_MUST_CHECK bft_status bft_insert(bft_tree *tree, bft_slice key,
                                             bft_slice value);
/*
 * Compare and swap: set KEY to *VALUE only if its value is *EXPECTED, in one
 * step that no other write comes between, else BFT_CONFLICT.  EXPECTED NULL:
 * only if KEY is absent.  VALUE NULL: remove KEY.
 *
 * May read the page file, and reads all of an expected value outside the leaf.
 *
 * Errors:  as of bft_put(), and before anything has changed BFT_CONFLICT: KEY
 *          has another value, none, or one where none was expected.
 *          BFT_INVALID: also when both are NULL.
 */
BFT_API BFT_MUST_CHECK bft_status bft_replace(bft_tree *tree, bft_slice key,
                                              const bft_slice *expected,
                                              const bft_slice *value);
/* Remove KEY.  Blind: removing an absent key is BFT_OK.
 * Errors: as of bft_put(). */
BFT_API BFT_MUST_CHECK bft_status bft_delete(bft_tree *tree, bft_slice key);
/* Set KEY to a value of BYTES bytes that READ hands over piece by piece (into
 * BUF, exactly LEN bytes, LEN at most 512 KiB; a failure of it ends the call
 * with that status and nothing is changed).  BFT_CONFLICT: the tree was truncated
 * meanwhile.
 * Errors: as of bft_put(). */
BFT_API BFT_MUST_CHECK bft_status
bft_put_stream(bft_tree *tree, bft_slice key, uint64_t bytes,
               bft_status (*read)(void *ctx, void *buf, size_t len), void *ctx);
BFT_API void bft_free(void *memory);

/* --- records that expire -------------------------------------------------- */

/*
 * A tree made with ttl_ms keeps with each record when it expires; from that
 * millisecond on nobody finds it, by whatever call.  ttl_ms is the lifetime of a
 * record that is put without a time of its own, or BFT_FOREVER: those stay.  It
 * counts from the call (of bft_batch_put() and bft_txn_put(), not of the commit).
 *
 * What an expired record is: none.  bft_insert() and bft_replace() find the key
 * absent, bft_count() does not count it, a bulk load finds the tree empty.  A
 * snapshot or transaction goes by the time that it was taken: for it no record
 * expires later, nor is it a conflict that one did.  bft_feed_next() gives a put
 * with its time when it was committed, expired or not.
 *
 * The clock is the system's wall clock, but of one engine it never goes back: the
 * latest time seen counts.  After a restart with the clock set back, records that
 * had expired and were not removed yet may be there again.
 *
 * A value has 8 bytes less than elsewhere at most; outside a leaf its time is
 * rounded up to a second.  A put copies the value.
 */
#define BFT_FOREVER UINT64_MAX

/* What time it is for records that expire: milliseconds since 1970; 0 for a
 * closed handle. */
BFT_API uint64_t bft_now_ms(bft_db *db);
/* bft_put() of a record that expires at EXPIRES_MS; never, if that is 0,
 * BFT_FOREVER, or behind the year 2105.  At once, if it is past.
 * Errors: as of bft_put().  BFT_INVALID: also of a tree made without ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_put_until(bft_tree *tree, bft_slice key,
                                                bft_slice value,
                                                uint64_t expires_ms);
/* bft_insert(), likewise: a record that expired does not count.
 * Errors: as of bft_insert().  BFT_EXISTS: it has one that did not.
 * BFT_INVALID: also of a tree made without ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_insert_until(bft_tree *tree,
                                                   bft_slice key,
                                                   bft_slice value,
                                                   uint64_t expires_ms);
/* bft_replace(), likewise; EXPIRES_MS says nothing when VALUE is NULL.  When the
 * record expires that is replaced is not compared: bft_expiry() tells it.
 * Errors: as of bft_replace().  BFT_INVALID: also of a tree made without
 * ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_replace_until(bft_tree *tree,
                                                    bft_slice key,
                                                    const bft_slice *expected,
                                                    const bft_slice *value,
                                                    uint64_t expires_ms);
/* bft_put_stream(), likewise.
 * Errors: as of bft_put_stream().  BFT_INVALID: also of a tree made without
 * ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status
bft_put_stream_until(bft_tree *tree, bft_slice key, uint64_t bytes,
                     bft_status (*read)(void *ctx, void *buf, size_t len),
                     void *ctx, uint64_t expires_ms);
/* When the record of KEY expires; 0: never.
 * Errors: BFT_NOT_FOUND, BFT_IO, BFT_CORRUPT.  BFT_INVALID: also of a tree made
 * without ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_expiry(bft_tree *tree, bft_slice key,
                                             uint64_t *expires_ms);

/*
 * Remove what has expired of TREE, for all open snapshots too; *REMOVED (may be
 * NULL) is how many records, also when the call fails.
 *
 * Background steps do that by and by: once a minute, or after an eighth of the
 * tree's ttl_ms if that is less, they look through the tree, if something may have
 * expired.  Without threads they go on when writers make room.  A newer value of
 * a key is not removed.
 *
 * Each removal is a bft_delete() of its own, as durable as a commit with BFT_NONE.
 * Errors: BFT_READ_ONLY, BFT_NO_SPACE, BFT_IO, BFT_POISONED, BFT_NO_MEMORY.
 * BFT_CORRUPT: of leaves that cannot be read; it went on behind them.
 * BFT_INVALID: also of a tree made without ttl_ms.
 */
BFT_API BFT_MUST_CHECK bft_status bft_remove_expired(bft_tree *tree,
                                                     uint64_t *removed);

/* --- batches ------------------------------------------------------------- */

/* Changes that become visible, and survive, all or none, over any trees of one
 * database.  The last change of a key in a batch wins.  To be given back with
 * bft_batch_free(). */
BFT_API BFT_MUST_CHECK bft_status bft_batch_create(bft_db *db,
                                                   bft_batch **batch);
/* Keys and values are copied.  BFT_TOO_BIG: a key over BFT_KEY_MAX (the commit
 * tells of one over a quarter of its tree's leaf), or the batch with this
 * change over 1/8 of the memory budget, or 512 MiB: such values go by bft_put().
 * After a failure the batch is as it was. */
BFT_API BFT_MUST_CHECK bft_status bft_batch_put(bft_batch *batch,
                                                bft_tree *tree, bft_slice key,
                                                bft_slice value);
/* The same as bft_put_until().
 * Errors: as of bft_batch_put().  BFT_INVALID: also of a tree made without
 * ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_batch_put_until(bft_batch *batch,
                                                      bft_tree *tree,
                                                      bft_slice key,
                                                      bft_slice value,
                                                      uint64_t expires_ms);
/* KEY is copied.
 * Errors: as of bft_batch_put(). */
BFT_API BFT_MUST_CHECK bft_status bft_batch_delete(bft_batch *batch,
                                                   bft_tree *tree,
                                                   bft_slice key);
/*
 * Commit.  Two completion points: accepted (visible, *COMMIT_LSN set) and
 * durable.  With BFT_SYNC the call returns when durable; with BFT_BUFFERED or
 * BFT_NONE when accepted, and bft_wait_durable(db, *COMMIT_LSN) waits for the
 * rest.  COMMIT_LSN may be NULL.
 *
 * On failure with *COMMIT_LSN 0 nothing has changed and the batch is as it was
 * (its changes sorted).  With an LSN it is visible and the batch empty, but the
 * log could not take it (BFT_NO_SPACE, BFT_IO) or not sync it (BFT_IO, or
 * BFT_POISONED when another's sync failed): it may not survive.  BFT_POISONED
 * also answers every commit after such a one, BFT_READ_ONLY all there are.
 * BFT_NO_MEMORY: nothing has changed.
 */
BFT_API BFT_MUST_CHECK bft_status bft_batch_commit(bft_batch *batch,
                                                   bft_durability durability,
                                                   uint64_t *commit_lsn);
/* Without its changes, as after a commit; some memory, 64 KiB or less for their
 * bytes, stays for the next ones. */
BFT_API void bft_batch_clear(bft_batch *batch);
/* Give it back, changes and all.  NULL is fine. */
BFT_API void bft_batch_free(bft_batch *batch);
/* Bytes and records it holds. */
BFT_API size_t bft_batch_bytes(const bft_batch *batch);
BFT_API size_t bft_batch_count(const bft_batch *batch);

/* --- snapshots ----------------------------------------------------------- */

/*
 * Take a snapshot: the database as it is at one instant of the call, in all its
 * trees, for as long as it is not released.  Writers go on; what was accepted
 * before the call is in it.
 *
 * While one is open, the first change of a record since the newest snapshot was
 * taken keeps what the record was, which costs a read of it and another write;
 * these lie in the page file and the memory budget until no snapshot needs them.
 * A value of 64 KiB or more is copied.  bft_tree_drop(), bft_tree_truncate() and
 * bft_bulk_load() answer BFT_BUSY meanwhile.
 *
 * Waits for no writer, also for one that was stopped while it publishes (unless
 * what it replaces is more than 1/16 of the memory budget, or cannot be read); but
 * for those calls above while they are under way.  The first one of a process waits for a
 * checkpoint under way.
 *
 * Memory:  some hundred bytes; where a writer was stopped while it publishes, also
 *          what it replaces.  To be given back with bft_snapshot_release();
 *          what is left ends with its database handle.
 * Threads: any number may use it at a time.
 * Errors:  BFT_NO_MEMORY, BFT_NO_SPACE, BFT_IO.
 */
BFT_API BFT_MUST_CHECK bft_status bft_snapshot_take(bft_db *db,
                                                    bft_snapshot **snapshot);
/* As bft_get(), of that instant.  A tree that was made since is empty.
 * Errors: as of bft_get(); BFT_NO_MEMORY.  BFT_GONE: the tree was dropped before
 * the snapshot was taken. */
BFT_API BFT_MUST_CHECK bft_status bft_snapshot_get(bft_snapshot *snapshot,
                                                   bft_tree *tree,
                                                   bft_slice key, void *buf,
                                                   size_t buf_len,
                                                   size_t *value_len);
/* As bft_get_copy(), likewise.
 * Errors: as of bft_get_copy(). */
BFT_API BFT_MUST_CHECK bft_status bft_snapshot_get_copy(bft_snapshot *snapshot,
                                                        bft_tree *tree,
                                                        bft_slice key,
                                                        void **value,
                                                        size_t *value_len);
/* A cursor that shows the records of that instant, whatever is written
 * meanwhile, and keeps the snapshot until it is closed.
 * Errors: as of bft_cursor_open(). */
BFT_API BFT_MUST_CHECK bft_status bft_snapshot_cursor(bft_snapshot *snapshot,
                                                      bft_tree *tree,
                                                      bft_cursor **cursor);
/* The caller needs it no more.  NULL is fine. */
BFT_API void bft_snapshot_release(bft_snapshot *snapshot);

/* --- transactions -------------------------------------------------------- */

typedef enum bft_isolation {
    /* As if transactions, and all other calls, came one after the other: nothing
     * that it read may have changed by the commit.  Who writes what it read waits
     * while the commit is being decided. */
    BFT_SERIALIZABLE = 0,
    /* Only what it writes may not have changed. */
    BFT_SNAPSHOT_ISOLATION = 1,
} bft_isolation;

/*
 * Begin a transaction over all trees of the database.  It reads one instant (see
 * bft_snapshot_take(), also for what that costs others) and its own writes, which
 * nobody else sees before the commit.  It is optimistic: nobody waits for it, and
 * it waits for nobody; whether it can be is told at the commit.
 *
 * Memory:  writes and reads are kept, 1/8 of the memory budget or 512 MiB at most,
 *          outside of it; with small records several times that.  To be ended with
 *          bft_txn_commit() or bft_txn_abort().
 * Threads: one at a time; any number of transactions.
 * Errors:  as of bft_snapshot_take().
 */
BFT_API BFT_MUST_CHECK bft_status bft_txn_begin(bft_db *db,
                                                bft_isolation isolation,
                                                bft_txn **txn);
/* As bft_get(), of the transaction.
 * Errors: as of bft_snapshot_get().  BFT_TOO_BIG: too many reads to be kept. */
BFT_API BFT_MUST_CHECK bft_status bft_txn_get(bft_txn *txn, bft_tree *tree,
                                              bft_slice key, void *buf,
                                              size_t buf_len,
                                              size_t *value_len);
/* As bft_get_copy(), likewise.
 * Errors: as of bft_snapshot_get_copy().  BFT_TOO_BIG. */
BFT_API BFT_MUST_CHECK bft_status bft_txn_get_copy(bft_txn *txn, bft_tree *tree,
                                                   bft_slice key, void **value,
                                                   size_t *value_len);
/* Set or remove KEY when it is committed; key and value are copied.
 * Errors: BFT_TOO_BIG: too long for the tree, or too much to be kept.
 * BFT_READ_ONLY, BFT_NO_MEMORY. */
BFT_API BFT_MUST_CHECK bft_status bft_txn_put(bft_txn *txn, bft_tree *tree,
                                              bft_slice key, bft_slice value);
BFT_API BFT_MUST_CHECK bft_status bft_txn_delete(bft_txn *txn, bft_tree *tree,
                                                 bft_slice key);
/* Set KEY as bft_put_until() does, when it is committed.
 * Errors: as of bft_txn_put().  BFT_INVALID: also of a tree made without
 * ttl_ms. */
BFT_API BFT_MUST_CHECK bft_status bft_txn_put_until(bft_txn *txn,
                                                    bft_tree *tree,
                                                    bft_slice key,
                                                    bft_slice value,
                                                    uint64_t expires_ms);
/* A cursor that shows what the transaction sees, also what it writes while the
 * cursor is open.  What it comes past counts as read, and what lies around that,
 * up to a leaf.  Once the transaction has ended it answers BFT_INVALID; closing
 * it lets the snapshot go.
 * Errors: as of bft_cursor_open(). */
BFT_API BFT_MUST_CHECK bft_status bft_txn_cursor(bft_txn *txn, bft_tree *tree,
                                                 bft_cursor **cursor);
/*
 * Commit: all writes become visible at once, as those of bft_batch_commit(), or
 * none.  The transaction has ended, whatever is returned.
 *
 * BFT_CONFLICT: another commit changed what it wrote or, if it is serializable
 * and wrote something, read, and nothing has changed: begin again.  A value that
 * was set back to what it was is no conflict; much writing beside it may be taken
 * for one.
 * Errors:  also those of bft_batch_commit(), with the same meaning.
 */
BFT_API BFT_MUST_CHECK bft_status bft_txn_commit(bft_txn *txn,
                                                 bft_durability durability,
                                                 uint64_t *commit_lsn);
/* End it without its writes.  NULL is fine. */
BFT_API void bft_txn_abort(bft_txn *txn);

/* --- cursors ------------------------------------------------------------- */

typedef enum bft_seek { BFT_GE, BFT_GT, BFT_LE, BFT_LT, BFT_EQ } bft_seek;

/* Open a cursor: it shows the tree as it is at one instant of the call, whatever
 * is written meanwhile, also by its own thread.  It holds no lock, and waits for
 * writers as bft_snapshot_take() does, if at all.  To be given back with
 * bft_cursor_close().
 *
 * While it is open, who changes a record keeps what it was, as for a snapshot.  So
 * one that stays open under writes, for ever say, makes the page file longer by one
 * version of each record that is changed, until it is refreshed; memory stays
 * within the budget.  But trees can be changed: a truncation or a bulk load leaves
 * it with what takes the place of its tree.
 * Errors: BFT_GONE: the tree was dropped.  BFT_NO_MEMORY. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_open(bft_tree *tree,
                                                  bft_cursor **cursor);
/* The same without an instant: it shows each record's newest committed value as of
 * the step that reached it, costs writers nothing, and may stay open for as long
 * as one likes.
 * Errors: BFT_GONE: the tree was dropped.  BFT_NO_MEMORY. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_open_newest(bft_tree *tree,
                                                         bft_cursor **cursor);
/* Show the tree as it is at one instant of this call from now on: unpositioned,
 * bounds stay.  BFT_INVALID: it is of a snapshot or a transaction.
 * Errors: BFT_NO_MEMORY: it is as it was. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_refresh(bft_cursor *cursor);
/* Regard only keys with LOW <= key < HIGH (len 0: no bound; BFT_TOO_BIG: over
 * BFT_KEY_MAX)... */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_bounds(bft_cursor *cursor,
                                                    bft_slice low,
                                                    bft_slice high);
/* ... or with this prefix (BFT_TOO_BIG likewise).  Either call leaves the
 * cursor unpositioned. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_prefix(bft_cursor *cursor,
                                                    bft_slice prefix);
/* Go to the first or the last record: BFT_NOT_FOUND when there is none (the
 * cursor is then unpositioned).
 * Errors: also BFT_IO, BFT_CORRUPT, BFT_NO_MEMORY.  BFT_GONE: the tree was
 * dropped.  BFT_TOO_BIG: of a transaction, which has read too much to be kept. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_first(bft_cursor *cursor);
BFT_API BFT_MUST_CHECK bft_status bft_cursor_last(bft_cursor *cursor);
/* Go to the record that KEY tells.  GE: ceiling, LE: floor.
 * Errors: as of bft_cursor_first().  BFT_TOO_BIG: also if no tree takes such a
 * key. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_seek(bft_cursor *cursor,
                                                  bft_seek how, bft_slice key);
/* The next or previous record; unpositioned: first or last.  BFT_NOT_FOUND at
 * the end, where the cursor stays: the other direction comes back to the last
 * record shown.
 * Errors: as of bft_cursor_first(). */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_next(bft_cursor *cursor);
BFT_API BFT_MUST_CHECK bft_status bft_cursor_prev(bft_cursor *cursor);
/* Of the record that the cursor is on; valid until its next call.  BFT_INVALID
 * when it is on none. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_key(bft_cursor *cursor,
                                                 bft_slice *key);
/* A large value is fetched when asked for: BFT_NOT_FOUND when its record has
 * been removed since the step.
 * Errors: also BFT_IO, BFT_CORRUPT, BFT_NO_MEMORY.  BFT_GONE: the tree was
 * dropped. */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_value(bft_cursor *cursor,
                                                   bft_slice *value);
/* Both at once.
 * Errors: as of bft_cursor_value(). */
BFT_API BFT_MUST_CHECK bft_status bft_cursor_record(bft_cursor *cursor,
                                                    bft_slice *key,
                                                    bft_slice *value);
BFT_API void bft_cursor_close(bft_cursor *cursor);

/* --- ranges -------------------------------------------------------------- */

/* LOW <= key < HIGH; a bound of length 0 is none, so two of them are the whole
 * tree.  One is BFT_KEY_MAX long at most, else BFT_TOO_BIG. */

/* How many records the range has: each counted that was there all the time of
 * the call, none that was not there at any.  Reads every leaf of the range.
 * Errors: BFT_IO, BFT_CORRUPT, BFT_TOO_BIG. */
BFT_API BFT_MUST_CHECK bft_status bft_count(bft_tree *tree, bft_slice low,
                                            bft_slice high, uint64_t *records);
/*
 * About how many records the range has, in time that hardly grows with it: the
 * inner nodes tell the number of its leaves, and 18 leaves at most are read, with
 * the inner nodes above them.  What is in inner nodes that are not in memory, but
 * for the ends of the range, is guessed by their length on disk, to about a tenth,
 * with compression worse.
 *
 * Exact, as bft_count(), up to 18 leaves.  Beyond that the first leaf and the
 * last are counted and the mean of 16 leaves spread evenly stands for those
 * between: where leaves differ in their number of records by a share D of the
 * mean (standard deviation; 0.2 is usual for records of like size), the error is
 * D/4 in two of three cases and D/2 in 19 of 20.  No bound holds for records
 * whose sizes follow the order of keys.
 *
 * Errors: as of bft_count().
 */
BFT_API BFT_MUST_CHECK bft_status bft_estimate(bft_tree *tree, bft_slice low,
                                               bft_slice high,
                                               uint64_t *records);
/* A record in one piece of memory, to be given back with bft_free(). */
typedef struct bft_record {
    bft_slice key, value;
} bft_record;
/* The record of the range with the lowest, or highest, key: BFT_NOT_FOUND when
 * there is none.
 * Errors: also BFT_IO, BFT_CORRUPT, BFT_TOO_BIG. */
BFT_API BFT_MUST_CHECK bft_status bft_first(bft_tree *tree, bft_slice low,
                                            bft_slice high,
                                            bft_record **record);
BFT_API BFT_MUST_CHECK bft_status bft_last(bft_tree *tree, bft_slice low,
                                           bft_slice high, bft_record **record);

/*
 * Remove all records of the range, in one step: to any reader, cursor, snapshot,
 * transaction and feed, and after any crash, all of them are there or none.
 * However many they are, it is one small commit; what was put into the range
 * before the call, and not behind it, goes.  Durable like bft_put().  That holds
 * also when there was nothing to remove.
 *
 * The records leave memory and file afterwards, by and by, in the background; in
 * a database without threads some with each write.  Until then reads of the tree
 * cost some more, and who writes into the range takes what lies around his key away
 * himself: some hundred records, or, where many wrote to it here and there, some
 * thousand.
 *
 * With DELETED (else NULL) the call takes them away itself and counts: *DELETED is
 * how many records went that had not expired.  Should that fail (then of the
 * errors below) the range is deleted all the same, and *DELETED less than all.
 *
 * Waits for writers of the range that have begun to publish.
 * Errors: as of bft_put().
 */
BFT_API BFT_MUST_CHECK bft_status bft_delete_range(bft_tree *tree,
                                                   bft_slice low,
                                                   bft_slice high,
                                                   uint64_t *deleted);

/* --- looking inside ------------------------------------------------------ */

/* Walk everything: checksums, order, fences, reachability, free space.  Writers
 * may go on, a checkpoint waits.  BFT_CORRUPT names the place, or how many blocks
 * nothing leads to: lost space, all else is sound.  BFT_IO, BFT_NO_MEMORY; after a
 * failure that refuses writes, that, where it may be why something disagrees. */
BFT_API BFT_MUST_CHECK bft_status bft_verify(bft_db *db);

/* Counters since open, gauges now.  Set size to sizeof(bft_stats). */
typedef struct bft_stats {
    size_t size;
    uint64_t gets, puts, deletes, inserts, batches, batch_records, cursor_steps;
    uint64_t page_hits, page_misses; /* reads answered in memory / from disk */
    uint64_t promotions, promotions_dropped;
    uint64_t rebuilds, growths; /* mini-pages built anew; into a larger one */
    uint64_t freezes, merges, deltas, splits, leaf_merges;
    uint64_t evictions_clean, evictions_dirty;
    uint64_t checkpoints;  /* images, those for the space included */
    uint64_t writer_waits; /* for room, for the log, or for an image */
    uint64_t trees, leaves;
    uint64_t memory_budget_bytes, memory_used_bytes;
    uint64_t log_bytes, log_frames, log_syncs, log_sync_waits;
    uint64_t log_segments_made, log_segments_reused;
    uint64_t accepted_lsn, durable_lsn, redo_lsn;
    uint64_t file_bytes, live_bytes, held_bytes;
    uint64_t extents_written, extents_read, extent_bytes_written;
    uint64_t recovered_frames, incarnation;
    uint64_t backup_held_bytes; /* of held_bytes, what only a backup keeps */
    uint64_t
        hole_bytes; /* of file_bytes, what was given back to the file system
                            as holes since open */
    uint64_t nodes_read,
        nodes_dropped; /* inner nodes, into and out of memory */
    uint64_t
        leaves_moved; /* towards the front of the file, for its end to be cut
                              off */
    uint64_t expired_removed;                /* records that had expired */
    uint64_t dictionaries, dictionary_bytes; /* to compress leaves with */
    /* With `compress`: what was written would have taken uncompressed, and what
     * it took, in blocks of 4 KiB and, of up to half of one, in units of 512
     * bytes. */
    uint64_t compressible_bytes, compressed_bytes;
    /* Reads of keys that are not there, answered by a filter of what lies on disk;
     * and the memory of those, counted in memory_used_bytes. */
    uint64_t filter_hits, filter_bytes;
    uint64_t leaves_forgotten; /* with BFT_STORAGE_CACHE, for want of room */
} bft_stats;
BFT_API BFT_MUST_CHECK bft_status bft_stats_read(bft_db *db, bft_stats *stats);
/* The same as a JSON object, {"gets":0,...}, names and order as above without
 * size, with a zero byte behind it.  *TEXT_LEN: its length without that; with
 * BFT_TOO_SMALL the buffer needs one byte more. */
BFT_API BFT_MUST_CHECK bft_status bft_stats_json(bft_db *db, char *buf,
                                                 size_t buf_len,
                                                 size_t *text_len);

/* How leaves of a tree are compressed, since it was opened. */
typedef enum bft_compression {
    BFT_COMPRESSION_OPEN = 0, /* by zstd where it saves space; too few were
                                 written to choose */
    BFT_COMPRESSION_NONE = 1, /* few would save any */
    BFT_COMPRESSION_ZSTD = 2,
    BFT_COMPRESSION_DICTIONARY = 3, /* by zstd with one of the tree's own */
} bft_compression;
/* Of one tree, the fields as in bft_stats.  Set size to sizeof(bft_tree_stats). */
typedef struct bft_tree_stats {
    size_t size;
    bft_compression compression;
    uint64_t dictionaries, dictionary_bytes;
    uint64_t compressible_bytes, compressed_bytes;
} bft_tree_stats;
/* Errors: BFT_GONE: the tree was dropped. */
BFT_API BFT_MUST_CHECK bft_status bft_tree_stats_read(bft_tree *tree,
                                                      bft_tree_stats *stats);

/*
 * For stores built on the trees: the object NAME that all handles of one engine
 * share, made by CREATE at the first call and destroyed by DESTROY when the
 * engine closes: its trees still work then, and other databases may be opened and
 * closed.  One call at a time.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_db_shared(bft_db *db, const char *name,
              bft_status (*create)(void *ctx, bft_db *db, void **object),
              void (*destroy)(void *object), void *ctx, void **object);

BFT_API const char *bft_version(void);

#ifdef __cplusplus
}
#endif

#endif
