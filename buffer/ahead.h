/*
 * What a thread has read ahead: extents of leaves that it will come to, several
 * of which the backend brought at a time.  Bytes as they were stored; who comes
 * to an extent checks them as if it had just read them, so what was damaged, or
 * could not be read, costs that one another read, and says then what is wrong.
 *
 * Nothing is named for it.  An extent that a leaf's word led to lies unchanged
 * where it lay until a release frees blocks, and one that is found to be a leaf's
 * when none has since is the same one (bfti_space_released).  So what was read
 * ahead keeps no space from being used again, and may be left lying.
 */
#ifndef BFTI_AHEAD_H
#define BFTI_AHEAD_H

#include "fileio/fileio.h"

enum {
    BFTI_AHEAD = 32,              /* extents that are read for one purpose */
    BFTI_AHEAD_BYTES = 256 << 10, /* of these, at most */
};

struct bfti_ahead; /* a thread's, and its only */
struct bfti_buffer;
struct bfti_rec;

/*
 * Read what the leaves IDS, N of them, have on disk: as much of it as BYTES and
 * BFTI_AHEAD extents allow; their heads in one batch, and what lies beneath deltas
 * in one for each delta of the longest list.  It takes the place of what was read
 * for OWNER, or, of four, of what was read longest ago.  Returns how many of the
 * leaves were regarded.  A hint: what cannot be read, or for want of memory, is
 * not there.  No hazard slot is in use.
 */
size_t bfti_ahead_read(struct bfti_buffer *buffer, struct bfti_rec *rec,
                       const void *owner, const uint64_t *ids, size_t n,
                       size_t bytes);
/* What must be read for leaf ID, as its word: the head of its disk content.  0:
 * nothing, a page has all of it.  *FETCHED: it was read, and not taken.  No hazard
 * slot is in use. */
uint64_t bfti_ahead_head(struct bfti_buffer *buffer, struct bfti_rec *rec,
                         uint64_t id, bool *fetched);
/* The bytes of PLACE, which the caller has named and found to be in use after
 * that; they stay until REC reads ahead again.  NULL: they are not there.  They
 * are given once. */
const void *bfti_ahead_take(const struct bfti_buffer *buffer,
                            struct bfti_rec *rec, uint64_t place);
/* Forget what was read for OWNER. */
void bfti_ahead_drop(struct bfti_rec *rec, const void *owner);
void bfti_ahead_free(struct bfti_rec *rec); /* at its end */

#endif
