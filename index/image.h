/*
 * Inside index/: images of the database, how they are made, and how one is read.
 */
#ifndef BFTI_IMAGE_H
#define BFTI_IMAGE_H

#include "engine.h"

/* --- checkpoint.c --------------------------------------------------------- */

BFT_MUST_CHECK bft_status bfti_checkpoint(struct bfti_engine *engine,
                                          struct bfti_rec *rec);
/* The same by who holds its lock. */
BFT_MUST_CHECK bft_status bfti_checkpoint_locked(struct bfti_engine *engine,
                                                 struct bfti_rec *rec);
/* The same, but nothing when its lock is held: perhaps by the caller, who
 * creates or drops a tree. */
BFT_MUST_CHECK bft_status bfti_checkpoint_try(struct bfti_engine *engine,
                                              struct bfti_rec *rec);
/* An image of the leaves as they are on the disk, for the space that waits for
 * one: redo goes on to start where it does.  BFT_BUSY: it could not be made, because
 * a writer was stopped in a leaf or, without WAIT, the lock is held. */
BFT_MUST_CHECK bft_status bfti_checkpoint_space(struct bfti_engine *engine,
                                                struct bfti_rec *rec,
                                                bool wait);
/* Under checkpoint_lock: is that a whole checkpoint? */
bool bfti_images_are_whole(const struct bfti_engine *engine);
/* How a checkpoint merges. */
unsigned bfti_checkpoint_merge(const struct bfti_engine *engine);

/* --- flush.c -------------------------------------------------------------- */

/* Bring to the disk what all leaves had in memory at *REDO_LSN, a position of
 * within the call.  STAGE is called when as much space waits as may; it may be
 * BFT_BUSY. */
BFT_MUST_CHECK bft_status bfti_flush(struct bfti_engine *engine,
                                     struct bfti_rec *rec,
                                     bft_status (*stage)(void *ctx), void *ctx,
                                     uint64_t *redo_lsn);
uint64_t bfti_flush_beneath(struct bfti_engine *engine,
                            const struct bfti_minipage *page);
/* The leaves IDS, N of them, are the next that a checkpoint merges: read ahead for
 * them.  Returns for how many; it is to be asked again behind these. */
enum { BFTI_FLUSH_AHEAD = 64 };
size_t bfti_flush_expect(struct bfti_engine *engine, struct bfti_rec *rec,
                         const uint64_t *ids, size_t n);

/* --- checkpoint.c, image_load.c ------------------------------------------- */

/* What a checkpoint left: redo of the log from the superblock's redo start up to
 * LOG_END, on top of the image, is the database as it was when the log ended
 * there. */
struct bfti_picture {
    struct bfti_superblock sb;
    uint64_t log_end;
};
/* Sync the page file.  After a failure the database is poisoned: it takes no
 * more writes and makes no checkpoint. */
BFT_MUST_CHECK bft_status bfti_pages_sync(struct bfti_engine *engine);
/* Make a checkpoint and, when that is OK, hold it: its image until
 * bfti_space_unhold, that log until it is no longer kept by bfti_wal_keep. */
BFT_MUST_CHECK bft_status bfti_checkpoint_hold(struct bfti_engine *engine,
                                               struct bfti_rec *rec,
                                               struct bfti_picture *picture);
BFT_MUST_CHECK bft_status bfti_image_load(struct bfti_engine *engine,
                                          struct bfti_rec *rec,
                                          const struct bfti_superblock *sb);
/* Page id of the extents that list the page table's parts: this, and their
 * number. */
#define BFTI_DIRECTORY_ID (UINT64_C(1) << 40)

#endif
