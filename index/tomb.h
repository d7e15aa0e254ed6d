/*
 * Inside index/: tombstones of ranges.
 *
 * A range is deleted by one frame; from then on a tombstone says that its records
 * are none, and takes them away afterwards, step by step.  What is in a tree is
 * what its leaves have and no tombstone of it lies over.
 */
#ifndef BFTI_TOMB_H
#define BFTI_TOMB_H

#include "cursor_internal.h"

/* A piece of a tombstone; its keys lie in its set's bytes. */
struct bfti_tomb {
    uint64_t born;  /* the number of its tombstone, of the tree's word */
    uint64_t stamp; /* 1 + the newest snapshot that it comes behind; 0: the
                       set's */
    uint32_t low_at, high_at;
    uint16_t low_len, high_len; /* high 0: up to the end */
};

/* All pieces of a tree's tombstones, ascending and disjoint.  One block, not
 * changed once it is the tree's but for the stamp. */
struct bfti_tombs {
    struct bfti_deferred deferred;
    size_t size;            /* of the block */
    _Atomic uint64_t stamp; /* of pieces that have none; 0: readers do not see
                               them yet.  [tomb] */
    size_t count, cap;
    size_t used, room; /* bytes of keys */
    uint8_t *bytes;
    struct bfti_tomb tomb[];
};

/* Who waits until a tombstone's records are gone, and counts them. */
struct bfti_tomb_count {
    uint64_t born;
    uint64_t records;
    struct bfti_tomb_count *next; /* under the tree's tombs_lock */
};

/* A step that takes records of a piece away. */
struct bfti_tomb_step {
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    uint64_t born, stamp;         /* of the piece */
    struct bfti_bound from, next; /* what it clears */
    struct bfti_bound high;       /* where the piece ends */
    struct bfti_bound behind;     /* what lies below it is passed by */
    struct bfti_tombs *fresh;     /* room for the set without that */
    uint64_t records;             /* of those that had not expired */
    bool waits;                   /* for who is about to change the set */
};

#define BFTI_TOMB_NEWEST UINT64_MAX

/* Is some tombstone of TREE there?  One load, for every reader. */
static inline bool bfti_tombs_alive(const struct bfti_tree *tree)
{
    return atomic_load(&tree->tombs_word) & 1; /* [tomb] */
}
bool bfti_tomb_over(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key,
                    uint64_t number);
/* Is KEY deleted by a tombstone, for snapshot NUMBER, or for BFTI_TOMB_NEWEST?
 * To be asked before the leaf is looked at: if so, it has no record, whatever the
 * leaf has; if not, the leaf's record is right as of some instant since. */
static inline bool bfti_tomb_hides(struct bfti_tree *tree, struct bfti_rec *rec,
                                   bft_slice key, uint64_t number)
{
    return bfti_tombs_alive(tree) && bfti_tomb_over(tree, rec, key, number);
}
bool bfti_tomb_on(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key);
/* Is a tombstone about to be, and seen by writers only, over some of [LOW, HIGH)?
 * Of one that is visible by then tombs_made tells who loads it behind this. */
bool bfti_tomb_coming(struct bfti_tree *tree, struct bfti_rec *rec,
                      bft_slice low, bft_slice high);
/* Between bfti_publish_begin() and the publishing: does a tombstone, or one that
 * is about to be, lie over KEY?  Then nothing is to be published. */
static inline bool bfti_tomb_stops(struct bfti_tree *tree, struct bfti_rec *rec,
                                   bft_slice key)
{
    return atomic_load(&tree->tombs) && /* [tomb] */
           bfti_tomb_on(tree, rec, key);
}

/* As bfti_copy_take(), without what tombstones hide from NUMBER. */
BFT_MUST_CHECK bft_status bfti_copy_shown(struct bfti_copy *copy,
                                          struct bfti_tree *tree,
                                          struct bfti_rec *rec,
                                          const struct bfti_copy_wish *wish,
                                          uint64_t number);
/* Was something in [LOW, HIGH) deleted by a tombstone that snapshot NUMBER does
 * not see, and is in the leaves still?  NOW: what had expired by then does not
 * count; 0: nothing expires. */
BFT_MUST_CHECK bft_status bfti_tomb_changed(struct bfti_tree *tree,
                                            struct bfti_rec *rec, bft_slice low,
                                            bft_slice high, uint64_t number,
                                            uint64_t now, bool *changed);

/* Before KEY is written: no tombstone lies over it, as of some instant of the
 * call.  Waits for one that is about to be.  Errors: as of a write. */
BFT_MUST_CHECK bft_status bfti_tomb_clear(struct bfti_tree *tree,
                                          struct bfti_rec *rec, bft_slice key);
/* A step of the background over some leaves.  *MORE: there is more to be done. */
BFT_MUST_CHECK bft_status bfti_tombs_sweep(struct bfti_engine *engine,
                                           struct bfti_rec *rec,
                                           unsigned leaves, bool *more);

/* With the latches of all leaves of STEP's records: may it be published?  If so,
 * the tree's tombs_lock is held until _leave, behind the publishing. */
bool bfti_tomb_step_enter(struct bfti_tomb_step *step);
void bfti_tomb_step_leave(struct bfti_tomb_step *step);

/* --- frame.c ---------------------------------------------------------------- */

/* Of a frame of type RANGE, and before the records of one of type CLEAR. */
struct bfti_frame_range {
    uint32_t tree_id;
    bft_slice low, high;   /* HIGH.len 0: up to the end */
    const uint8_t *behind; /* in the frame, */
    size_t behind_len;     /* so many bytes */
};
size_t bfti_frame_range_size(const struct bfti_frame_range *range);
uint8_t *bfti_frame_range_put(uint8_t *to,
                              const struct bfti_frame_range *range);
/* Slices point into PAYLOAD. */
BFT_MUST_CHECK bft_status bfti_frame_range_get(const void *payload, size_t len,
                                               struct bfti_frame_range *range);

/* --- images and recovery ------------------------------------------------------ */

/* Recovery: a tombstone over [LOW, HIGH), and a part of one that was cleared. */
BFT_MUST_CHECK bft_status bfti_tomb_redo(struct bfti_tree *tree, bft_slice low,
                                         bft_slice high);
BFT_MUST_CHECK bft_status bfti_tomb_redo_clear(struct bfti_tree *tree,
                                               bft_slice low, bft_slice high);
/* Under checkpoint_lock: have the pieces of all trees, as of now, ready for the
 * catalogue: what the log has from the redo start on was not yet done when the
 * image was cut, or is in them.  *ANY: there are some. */
BFT_MUST_CHECK bft_status bfti_tombs_take(struct bfti_engine *engine,
                                          struct bfti_rec *rec, bool *any);
struct bfti_catalogue_entry;
/* TREE was opened, with the pieces that ENTRY has. */
BFT_MUST_CHECK bft_status bfti_tombs_load(
    struct bfti_tree *tree, const struct bfti_catalogue_entry *entry);
/* The next piece of those bytes; false: they are cut off, or there is none. */
bool bfti_tombs_next(const uint8_t **at, const uint8_t *end, bft_slice *low,
                     bft_slice *high);
void bfti_tombs_free(struct bfti_tree *tree);

/* --- between tomb.c and tomb_step.c --------------------------------------- */

/* A set with room for COUNT pieces, and BYTES of keys; NULL: no memory. */
struct bfti_tombs *bfti_tombs_make(struct bfti_engine *engine, size_t count,
                                   size_t bytes);
/* FRESH is OLD (may be NULL) without [LOW, HIGH).  False: no room. */
bool bfti_tombs_without(struct bfti_tombs *fresh, const struct bfti_tombs *old,
                        bft_slice low, bft_slice high);
/* OLD with pieces of BORN where [LOW, HIGH) has none; NULL: no memory. */
struct bfti_tombs *bfti_tombs_with(struct bfti_engine *engine,
                                   const struct bfti_tombs *old, bft_slice low,
                                   bft_slice high, uint64_t born,
                                   uint64_t stamp);
/* Under tombs_lock: FRESH, which may be without pieces, is the tree's set; and
 * then: readers see it. */
void bfti_tombs_put(struct bfti_tree *tree, struct bfti_tombs *fresh);
void bfti_tombs_show(struct bfti_tree *tree, uint64_t number);
/* The piece over KEY, NULL: none.  Pieces that are about to be count. */
const struct bfti_tomb *bfti_tombs_find(const struct bfti_tombs *tombs,
                                        bft_slice key);
/* In a read-side section, of a piece that readers see. */
uint64_t bfti_tomb_stamp(const struct bfti_tombs *tombs,
                         const struct bfti_tomb *tomb);
static inline bft_slice bfti_tomb_low(const struct bfti_tombs *tombs,
                                      const struct bfti_tomb *tomb)
{
    bft_slice low = {tombs->bytes + tomb->low_at, tomb->low_len};
    return low;
}
static inline bft_slice bfti_tomb_high(const struct bfti_tombs *tombs,
                                       const struct bfti_tomb *tomb)
{
    bft_slice high = {tombs->bytes + tomb->high_at, tomb->high_len};
    return high;
}
/* What a catalogue is to have of all trees' pieces. */
size_t bfti_tombs_bytes(struct bfti_engine *engine);
/* Are there so many pieces that no more should be made? */
bool bfti_tombs_crowded(struct bfti_tree *tree);
/* Are there so many, of all trees, that none can be made? */
bool bfti_tombs_full(struct bfti_engine *engine);
/* Clear what the tombstone BORN has left of TREE, 0: what any has, in STEPS of a leaf
 * or less at most, waiting for who changes the set.  Of what any has, leaves that
 * cannot be read are passed by; else that is the failure. */
BFT_MUST_CHECK bft_status bfti_tombs_clear(struct bfti_tree *tree,
                                           struct bfti_rec *rec, uint64_t born,
                                           unsigned steps, bool *done);

#endif
