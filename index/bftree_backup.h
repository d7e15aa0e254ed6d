/*
 * Backups of a database and what is restored of them; and salvage: what can be had
 * of a database that bftree does not open any more.
 */
#ifndef BFTREE_BACKUP_H
#define BFTREE_BACKUP_H

#include "bftree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- backup --------------------------------------------------------------- */

/* How far a backup has come. */
typedef struct bft_backup_progress {
    uint64_t lsn; /* the copy has all that was committed up to it, no more */
    uint64_t copied_bytes, total_bytes; /* of the page file */
    uint64_t held_bytes; /* that the database's file cannot reuse meanwhile */
} bft_backup_progress;

/* Where a copy goes. */
typedef enum bft_backup_to {
    BFT_BACKUP_SAME = 0,   /* where the database's own files are */
    BFT_BACKUP_FILES = 1,  /* the file system, also of one in memory */
    BFT_BACKUP_MEMORY = 2, /* this process's memory, also of one in files */
} bft_backup_to;

/* Zero means the default everywhere.  Set size to sizeof(bft_backup_options). */
typedef struct bft_backup_options {
    size_t size;
    /* Called when the copying begins, every 1 MiB or so, and at its end, in the
     * caller's thread and without locks: it may use the database.  The backup
     * ends with what it returns, unless that is BFT_OK. */
    bft_status (*progress)(void *ctx, const bft_backup_progress *now);
    void *ctx;
    bft_backup_to to;
    /* An increment, see below: the backups that it is to, BASE_COUNT of them, in
     * their order.  Unknown to a caller whose size ends before them. */
    const char *const *base;
    size_t base_count;
} bft_backup_options;

/*
 * Copy the database, as it is at one instant of the call, into directory PATH,
 * whose parent exists; OPTIONS may be NULL.  The copy is a database like any: to
 * restore it, open it, or copy its files and open those.
 *
 * Everything accepted before the call is in it, every batch as a whole.  Others
 * go on reading and writing; changing the list of trees waits for the checkpoint
 * that the call begins with.  Until it ends, space that the copy needs is not
 * reused: the database's file may grow by what is changed meanwhile, at most by
 * what it had (held_bytes of the progress, backup_held_bytes of bft_stats).  A
 * copy in memory is there, under that name, until it is opened
 * (BFT_STORAGE_MEMORY) and closed.
 *
 * PATH is new, empty, or has a backup that was not finished, which is removed;
 * and it is not in the directory of a database, where one that is called as a
 * segment of the log, say, would be taken for that at the next opening.
 * All is durable when the call returns BFT_OK.  What a failure or a crash leaves
 * in PATH bft_open() refuses, unless it is the whole copy.
 *
 * With a base the copy is an increment: of the page file it has only blocks of
 * 4 KiB that the base has not, or otherwise, so it takes as much room as was
 * changed since.  The base is a whole backup, and increments each to the one
 * before it; all of them are read to compare, which takes as long as a whole copy
 * less its writing.  They lie where TO says, are best of the same database (of
 * another one they save nothing) and have not been opened but read-only.
 * bft_open() refuses an increment; bft_restore() makes a database of it and what
 * it is to.
 *
 * Every extent's checksum is checked on the way, and the log's.  That all of
 * them belong together bft_verify() tells of the copy.
 *
 * Memory:  3 MiB and a write buffer, not of the budget; and 24 bytes for each
 *          extent that is held.  An increment: 1 MiB more, and 16 bytes for each
 *          run of blocks of those it is to and of its own.
 * Threads: any; one backup of a database at a time, else BFT_BUSY.
 * Errors:  BFT_EXISTS: PATH has something else.  BFT_CORRUPT: the text names the
 *          damaged place of the database, or what is damaged of the base;
 *          nothing was copied for good.  BFT_INVALID: the base is none, or not
 *          in order, or one of them was opened since.  BFT_BUSY: PATH is being
 *          backed up into, or open; or one of the base is.  BFT_NOT_FOUND: PATH
 *          has no parent, or there is no backup in one of the base.  BFT_NO_SPACE, BFT_IO, BFT_NO_MEMORY, BFT_POISONED,
 *          and what the progress callback returns.
 */
BFT_API BFT_MUST_CHECK bft_status bft_backup(bft_db *db, const char *path,
                                             const bft_backup_options *options);

/*
 * Make a database in directory TO, which is new or empty and whose parent
 * exists, of a whole backup, BACKUPS[0], and COUNT - 1 increments, each to the one
 * before it: the database as the last of them was made of it.  A whole backup by
 * itself can as well be opened, but is no backup any more then.  Backups are only
 * read, here and as a base, so they may be where nothing can be written.  Of OPTIONS,
 * which may be NULL, storage and backend say where all of them are.
 *
 * Every checksum is checked on the way, those of the log too, and of large values
 * that only it names.  All is durable when the call returns BFT_OK; what a failure
 * or a crash leaves in TO bft_open() refuses.
 *
 * Memory:  2 MiB, or 1 MiB and the longest frame of the log; and 16 bytes for each
 *          run of blocks that an increment has.
 * Threads: any.  The backups are locked against being opened meanwhile.
 * Errors:  BFT_INVALID: the backups are not those of a chain, in its order, or one
 *          was opened since.  BFT_EXISTS: TO has something else.  BFT_CORRUPT,
 *          BFT_TOO_NEW: of a backup, the text says of which.  BFT_NOT_FOUND: one
 *          is not there.  BFT_BUSY: one is open, or TO is.  BFT_NO_SPACE,
 *          BFT_IO, BFT_NO_MEMORY.
 */
BFT_API BFT_MUST_CHECK bft_status bft_restore(const char *const *backups,
                                              size_t count, const char *to,
                                              const bft_options *options);

/* --- salvage -------------------------------------------------------------- */

/* What to do with pages of a damaged database of which nothing says that they
 * are the newest of their range of keys. */
typedef enum bft_salvage_old {
    BFT_SALVAGE_OLD_UNMAPPED = 0, /* take them where the map to the pages, or
                                     a superblock, is lost itself; not for a
                                     page that the map names and that is
                                     damaged */
    BFT_SALVAGE_OLD_NEVER = 1,
    BFT_SALVAGE_OLD_ALWAYS = 2,
} bft_salvage_old;

typedef enum bft_salvage_kind {
    BFT_SALVAGE_EXTENT = 1, /* a superblock or a piece of the page file */
    BFT_SALVAGE_LOG = 2,    /* bytes of the log */
    BFT_SALVAGE_RECORD = 3, /* one record is left out: a part of its value is
                               damaged, or no tree can hold it */
    BFT_SALVAGE_LOST = 4,   /* a range of keys of which no page was there */
    BFT_SALVAGE_OLD = 5,    /* a range of which perhaps older pages were
                               taken */
} bft_salvage_kind;

/* Something that was lost.  All of it is valid during the call only. */
typedef struct bft_salvage_damage {
    bft_salvage_kind kind;
    const char *text;       /* what is wrong, for a person */
    const char *file;       /* below FROM: "data" or a segment; NULL: none */
    uint64_t offset, bytes; /* where in it (bytes 0: not known) */
    uint64_t page;          /* id of the page, 0: none or not known */
    uint32_t tree_id;       /* 0: not known */
    const char *tree;       /* name as far as known by then, or NULL */
    bft_slice key;          /* of RECORD, or empty */
    bft_slice low, high;    /* of LOST and OLD: LOW <= key < HIGH, len 0: no
                             bound */
    uint64_t records;       /* of OLD: taken in that range */
} bft_salvage_damage;

/* Set size to sizeof(bft_salvage_options). */
typedef struct bft_salvage_options {
    size_t size;
    bft_salvage_old old;
    /* Of the new database, and backend and storage (files only) of both; NULL:
     * defaults.  read_only is refused, durability and error_if_exists are
     * salvage's own. */
    const bft_options *database;
    /* Called for each damage that was met; may be NULL.  It calls nothing of
     * ours. */
    void (*damage)(void *ctx, const bft_salvage_damage *damage);
    void *damage_ctx;
} bft_salvage_options;

/* Set size to sizeof(bft_salvage_report). */
typedef struct bft_salvage_report {
    size_t size;
    bool map_read;             /* all of the map to the pages could be read */
    uint64_t extents_read;     /* pieces of the page file that were whole */
    uint64_t extents_damaged;  /* reported as EXTENT */
    uint64_t bytes_unreadable; /* that the system refused to read */
    uint64_t trees;            /* in the new database */
    uint64_t trees_unnamed;    /* of these, called tree-ID */
    uint64_t records;          /* written from pages ... */
    uint64_t records_old;      /* ... of which perhaps older ones */
    uint64_t records_lost;     /* reported as RECORD */
    uint64_t ranges_lost, ranges_old; /* reported as LOST, OLD */
    uint64_t log_frames, log_records; /* applied, deletions included */
    uint64_t log_gaps, log_gap_bytes; /* reported as LOG */
} bft_salvage_report;

/*
 * Read what is whole of the database in directory FROM, which bft_open() may
 * refuse, and put it into a new one in directory TO (its parent must exist).
 * Not a byte and not a name below FROM is changed.
 *
 * Every record comes back whose page can be read, with its value, as the log
 * left it.  Where the map to the pages is damaged, pages are looked for all
 * through the file, and the newest of each range of keys is taken; the report
 * calls its records old, for a newer page may have been among what was damaged.
 * Old records may be deleted ones, or those of a dropped tree.  A frame of the
 * log that is lost leaves its records as they were before, or as frames before
 * it had them.  README.md of index/ says more.
 *
 * OPTIONS may be NULL, and so may REPORT, which is filled on failure too.
 *
 * Memory:  the budget of the new database, about 4 MiB, and what the longest
 *          frame of the log takes; 1.5 KiB for each tree.
 * Threads: any.  FROM's lock is held meanwhile.
 * Errors:  BFT_BUSY: FROM is open for writing.  BFT_NOT_FOUND: nothing of a
 *          database is in it.  BFT_EXISTS: TO holds one.  BFT_INVALID.
 *          BFT_TOO_NEW: a superblock is of a newer format.  Those of opening
 *          and writing TO: what was made of it by then is not complete, and is
 *          to be removed.  Damage is not a failure.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_salvage(const char *from, const char *to,
            const bft_salvage_options *options, bft_salvage_report *report);

#ifdef __cplusplus
}
#endif

#endif
