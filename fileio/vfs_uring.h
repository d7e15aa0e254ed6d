/*
 * What "direct" asks of the rings of vfs_uring.c.  Nobody else includes this.
 */
#ifndef BFTI_VFS_URING_H
#define BFTI_VFS_URING_H

#include "vfs.h"

/* Has the calling thread a ring?  Makes it one at the first call. */
bool bfti_uring_ready(void);
/* Carry out N reads together, past the cache: of whole blocks, into memory that
 * is aligned and that no child inherits, from files with a direct_fd.  Waits for
 * all; each has its own status.  Where there is no ring (any more) they are read
 * one after the other, through the cache. */
void bfti_uring_read_direct(struct bfti_io *io, size_t n);

#endif
