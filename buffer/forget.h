/*
 * Inside buffer/: the leaves of a database that only caches (README.md, 9).
 */
#ifndef BFTI_FORGET_H
#define BFTI_FORGET_H

#include "core.h"

enum bfti_forgot {
    BFTI_FORGOT_NOTHING, /* it is not that leaf's, or there is no memory */
    BFTI_FORGOT_LEAF,    /* the leaf has no records any more */
    BFTI_FORGOT_EMPTY,   /* it had none before: absorption takes it away */
    BFTI_FORGOT_FOLD,    /* it is to be merged, as the leaf is in use */
};

/* Under the latch of leaf ID: PLACE, a page that is to leave memory, goes, and so
 * do all records of the leaf. */
enum bfti_forgot bfti_forget(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             struct bfti_entry *entry, uint64_t id,
                             uint64_t place);
/* Leaf ID was emptied: let it become one with a neighbour.  True: it has. */
bool bfti_absorb_around(struct bfti_buffer *buffer, struct bfti_rec *rec,
                        uint64_t id);

/* As bfti_merge(), which calls it: what leaf ID has in memory becomes one page, or
 * one for each part, in which nothing is frozen.  With FORCE, N keys to cut at,
 * also when nothing was. */
BFT_MUST_CHECK bft_status bfti_fold(struct bfti_buffer *buffer,
                                    struct bfti_rec *rec, uint64_t id,
                                    unsigned flags, const bft_slice *force,
                                    size_t n, bool *done);
/* As bfti_absorb(), which calls it. */
BFT_MUST_CHECK bft_status bfti_absorb_pages(struct bfti_buffer *buffer,
                                            struct bfti_rec *rec, uint64_t left,
                                            bool *done);

#endif
