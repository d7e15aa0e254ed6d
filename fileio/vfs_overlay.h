/*
 * A directory that is read and never written: over the files of another file
 * system lie, in memory, what was written to them, and files and names that were
 * made, changed or removed.  With it a database is recovered without a byte of it
 * being touched.
 */
#ifndef BFTI_VFS_OVERLAY_H
#define BFTI_VFS_OVERLAY_H

#include "env.h"
#include "vfs.h"

/*
 * Over the directory DIR of LOWER.  Only files in DIR itself are opened; they
 * are opened read-only in LOWER when first opened here.  The caller keeps others
 * from changing them.  What lies elsewhere is LOWER's, and only looked at.
 *
 * Memory: a block of 4 KiB for each that was written a byte of, until destroyed.
 * Errors: of LOWER's list; BFT_NO_MEMORY.
 */
BFT_MUST_CHECK bft_status bfti_vfs_overlay_create(const struct bfti_env *env,
                                                  struct bfti_vfs *lower,
                                                  const char *dir,
                                                  struct bfti_vfs **out);
/* From now on what LOWER cannot read reads as zeros, and is told by
 * _unreadable: a reader of damaged files finds out by checksums. */
void bfti_vfs_overlay_forgive(struct bfti_vfs *vfs);
uint64_t bfti_vfs_overlay_unreadable(struct bfti_vfs *vfs); /* bytes read so */
/* All its files are closed by now. */
void bfti_vfs_overlay_destroy(struct bfti_vfs *vfs);

#endif
