/*
 * Inside salvage: what its files share.
 *
 *   salvage.c        the call: both databases, and the steps in their order
 *   salvage_trees.c  the new database's trees, by the ids of the old one
 *   salvage_cover.c  which ranges of keys were found, and how new they are
 *   salvage_pages.c  pages: through the map, and all through the file
 *   salvage_log.c    the log
 */
#ifndef BFTI_SALVAGE_H
#define BFTI_SALVAGE_H

#include "bftree_backup.h"
#include "engine.h"

enum {
    /* Of trees whose own is not known: keys of any length fit. */
    SALVAGE_LEAF_BYTES = BFT_KEY_MAX * BFTI_KEY_SHARE,
    SALVAGE_TEXT = 512,
};
/* As the LSN of a page: nothing is newer. */
#define SALVAGE_NEWEST UINT64_MAX

/* A range of keys: LEN 0 of LOW and of HIGH, no bound. */
struct salvage_range {
    size_t low_len, high_len;
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
};

/* Where the pages of a range come from. */
struct salvage_origin {
    uint64_t lsn; /* of the extent */
    uint64_t records;
    bool old; /* perhaps not the newest */
};

/* The part of a tree from its lowest key on: a key of no bytes cannot be one of
 * the tree of ranges. */
struct salvage_first {
    struct salvage_origin origin;
    size_t high_len;
    uint8_t high[BFTI_KEY_MAX];
};

struct salvage_tree {
    uint32_t id, leaf_bytes;
    uint64_t ttl_ms; /* as far as known when TARGET is made */
    bool named, dropped;
    bool loading; /* in the catalogue without a name, which the log gives it */
    uint64_t named_at; /* position in the log */
    char name[BFTI_NAME_MAX + 1];
    bft_tree *target;  /* NULL: not made yet */
    bft_tree *cover;   /* low fence -> origin, high fence; or NULL */
    bft_tree *changed; /* key -> LSN of the newest delta that lacks its page and
                          has the key; or NULL */
    struct salvage_first *first; /* or NULL */
    uint8_t *tombs; /* of the catalogue, if that is exact; or NULL */
    size_t tombs_len;
};

struct salvage {
    const struct bfti_env *env;
    bft_salvage_options options;
    bft_salvage_report report;

    /* The damaged one, through a layer that writes nothing. */
    const char *from;
    struct bfti_vfs *vfs;
    struct bfti_file *lock;
    struct bfti_buffer source; /* env, threads and pf only */
    struct bfti_rec *rec;
    struct bfti_scratch meta;  /* of extents that lead to others */
    struct bfti_superblock sb; /* the newest, if there is one */
    bool has_sb, mapped;       /* MAPPED: it leads to the newest pages */
    bool doubted;              /* or, with the log, to what they had: another
                                  superblock cannot be read */
    uint64_t segment_bytes, log_start, log_mark;
    struct bfti_wal_salvaged log; /* as it was found at first */
    uint64_t loaded; /* the last checkpoint that a bulk load in it rests on */
    struct bfti_places loads; /* ids of the trees that were loaded */

    /* Names, as of a position in the log. */
    bool catalogue, catalogue_exact; /* EXACT: it is the newest */
    uint64_t catalogue_lsn;

    /* Parts of the page table that are lost, a bit each. */
    uint64_t *lost;
    size_t parts, lost_count;
    bool pages_lost;      /* some page or part was damaged */
    bool dictionary_lost; /* one that the catalogue names */

    /* The new one. */
    bft_db *to;
    uint64_t tag;      /* in the names of trees until they are complete */
    bft_tree *order;   /* pages found in the file, the newest first */
    bft_tree *orphans; /* changes without their page, the oldest first */
    uint64_t orphan_count;
    struct salvage_tree **tree; /* ascending by id */
    size_t tree_count, tree_cap;

    struct bfti_places places; /* of a large value */
    uint8_t *value;            /* room for one that is written at once */
    uint64_t gap_end;          /* behind the last hole in the log so far */
};

/* Damage that a call has met, and not a failure of ours? */
static inline bool salvage_is_damage(bft_status status)
{
    return status == BFT_CORRUPT || status == BFT_TOO_NEW;
}
static inline bft_slice salvage_low(const struct salvage_range *range)
{
    return (bft_slice){range->low, range->low_len};
}
static inline bft_slice salvage_high(const struct salvage_range *range)
{
    return (bft_slice){range->high, range->high_len};
}

/* --- salvage.c ------------------------------------------------------------ */

/* Tell the caller of DAMAGE; a text that is NULL is the last failure's. */
void bfti_salvage_tell(struct salvage *s, bft_salvage_damage *damage);
/* An extent at PLACE is damaged, as the last failure says. */
void bfti_salvage_extent(struct salvage *s, uint64_t place, uint64_t page,
                         uint32_t tree_id);
/* Read an extent of TYPE, and of PAGE_ID unless that is UINT64_MAX, into
 * s->meta.  *WHOLE false: it is damaged, which was told. */
BFT_MUST_CHECK bft_status bfti_salvage_meta(struct salvage *s, uint64_t place,
                                            enum bfti_extent_type type,
                                            uint64_t page_id, bool *whole,
                                            uint64_t *lsn, const void **raw,
                                            size_t *len);
/* A tree for our own use in the new database. */
BFT_MUST_CHECK bft_status bfti_salvage_work_tree(struct salvage *s,
                                                 const char *what, uint32_t id,
                                                 bft_tree **out);

/* --- salvage_trees.c ------------------------------------------------------ */

/* Take names from the catalogue at PLACE.  EXACT: it is of the newest image.
 * *WHOLE false: it could not be read. */
BFT_MUST_CHECK bft_status bfti_salvage_catalogue(struct salvage *s,
                                                 uint64_t place, bool exact,
                                                 bool *whole);
/* What is known of tree ID, or NULL. */
struct salvage_tree *bfti_salvage_find(const struct salvage *s, uint32_t id);
/*
 * The tree that a page or frame of ID belongs to, made if it is not there;
 * *OUT NULL: it was dropped.  BEFORE: the page or frame is older than the
 * catalogue, where the tree would be.
 */
BFT_MUST_CHECK bft_status bfti_salvage_tree(struct salvage *s, uint32_t id,
                                            bool before,
                                            struct salvage_tree **out);
/* Frames of the log at LSN. */
BFT_MUST_CHECK bft_status bfti_salvage_created(
    struct salvage *s, uint64_t lsn, const struct bfti_frame_tree *tree);
BFT_MUST_CHECK bft_status bfti_salvage_dropped(struct salvage *s, uint32_t id);
/* All trees are complete: give them their names, drop our own. */
BFT_MUST_CHECK bft_status bfti_salvage_name_trees(struct salvage *s);
void bfti_salvage_trees_free(struct salvage *s);

/* --- salvage_cover.c ------------------------------------------------------ */

/* The first part of RANGE that nothing was found of yet; *THERE false: none. */
BFT_MUST_CHECK bft_status bfti_salvage_missing(
    struct salvage_tree *tree, const struct salvage_range *range,
    struct salvage_range *missing, bool *there);
/* RANGE, all of which is missing, was found. */
BFT_MUST_CHECK bft_status bfti_salvage_cover(
    struct salvage *s, struct salvage_tree *tree,
    const struct salvage_range *range, const struct salvage_origin *origin);
/* KEY has what a delta of LSN says, whose page is damaged. */
BFT_MUST_CHECK bft_status bfti_salvage_changed(struct salvage *s,
                                               struct salvage_tree *tree,
                                               bft_slice key, uint64_t lsn);
/* Is there a page of KEY, or such a delta, newer than LSN? */
BFT_MUST_CHECK bft_status bfti_salvage_newer(struct salvage_tree *tree,
                                             bft_slice key, uint64_t lsn,
                                             bool *newer);
/* Tell of RANGE, as LOST or OLD. */
void bfti_salvage_tell_range(struct salvage *s, const struct salvage_tree *tree,
                             const struct salvage_range *range,
                             bft_salvage_kind kind, uint64_t records);
/* Tell of all ranges that are lost or old. */
BFT_MUST_CHECK bft_status bfti_salvage_tell_ranges(struct salvage *s,
                                                   struct salvage_tree *tree);

/* --- salvage_pages.c ------------------------------------------------------ */

/* All pages that the map leads to. */
BFT_MUST_CHECK bft_status bfti_salvage_mapped_pages(struct salvage *s);
/* What the catalogue says is deleted goes, behind the pages and before the log. */
BFT_MUST_CHECK bft_status bfti_salvage_tombs(struct salvage *s);
/* Dictionaries from all through the file, if some may not have been found. */
BFT_MUST_CHECK bft_status bfti_salvage_other_dictionaries(struct salvage *s);
/* The newest catalogue in the page file, if there is one. */
BFT_MUST_CHECK bft_status bfti_salvage_look_for_catalogue(struct salvage *s);
/* Pages from all through the file, for the ranges that are missing. */
BFT_MUST_CHECK bft_status bfti_salvage_other_pages(struct salvage *s);
/* Changes whose page beneath is lost. */
BFT_MUST_CHECK bft_status bfti_salvage_orphans(struct salvage *s);
/* Write the large value LARGE of KEY.  *DONE false: it is damaged, which was
 * told. */
BFT_MUST_CHECK bft_status bfti_salvage_large(struct salvage *s,
                                             const struct salvage_tree *tree,
                                             uint64_t page, bft_slice key,
                                             struct bfti_large large,
                                             bool *done);
/* Write a plain record.  *DONE false: no tree can hold it, which was told. */
BFT_MUST_CHECK bft_status bfti_salvage_put(struct salvage *s,
                                           const struct salvage_tree *tree,
                                           uint64_t page, bft_slice key,
                                           bft_slice value, bool *done);

/* --- salvage_log.c -------------------------------------------------------- */

/* See how much of the log is there: fills s->log. */
BFT_MUST_CHECK bft_status bfti_salvage_log_look(struct salvage *s);
BFT_MUST_CHECK bft_status bfti_salvage_log_apply(struct salvage *s);

#endif
