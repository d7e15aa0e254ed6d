/*
 * Salvage: what can be had of a database that bftree does not open any more.
 */
#ifndef BFTREE_SALVAGE_H
#define BFTREE_SALVAGE_H

#include "bftree.h"

#ifdef __cplusplus
extern "C" {
#endif

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
    const char *text;     /* what is wrong, for a person */
    const char *file;     /* below FROM: "data" or a segment; NULL: none */
    uint64_t offset, bytes; /* where in it (bytes 0: not known) */
    uint64_t page;        /* id of the page, 0: none or not known */
    uint32_t tree_id;     /* 0: not known */
    const char *tree;     /* name as far as known by then, or NULL */
    bft_slice key;        /* of RECORD, or empty */
    bft_slice low, high;  /* of LOST and OLD: LOW <= key < HIGH, len 0: no
                             bound */
    uint64_t records;     /* of OLD: taken in that range */
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
    bool map_read;              /* all of the map to the pages could be read */
    uint64_t extents_read;      /* pieces of the page file that were whole */
    uint64_t extents_damaged;   /* reported as EXTENT */
    uint64_t bytes_unreadable;  /* that the system refused to read */
    uint64_t trees;             /* in the new database */
    uint64_t trees_unnamed;     /* of these, called tree-ID */
    uint64_t records;           /* written from pages ... */
    uint64_t records_old;       /* ... of which perhaps older ones */
    uint64_t records_lost;      /* reported as RECORD */
    uint64_t ranges_lost, ranges_old;     /* reported as LOST, OLD */
    uint64_t log_frames, log_records;     /* applied, deletions included */
    uint64_t log_gaps, log_gap_bytes;     /* reported as LOG */
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
