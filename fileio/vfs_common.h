/* What backends have in common: which flags go together, and the asynchronous
 * form of a backend that has none, done before submit returns. */
#ifndef BFTI_VFS_COMMON_H
#define BFTI_VFS_COMMON_H

#include "vfs.h"

/* BFT_INVALID when FLAGS of open contradict each other. */
BFT_MUST_CHECK bft_status bfti_vfs_check_flags(const char *path, int flags);

/* Offsets end at INT64_MAX, as the system's do; and texts for refusals that
 * every backend has. */
bool bfti_vfs_range_is_valid(uint64_t offset, uint64_t len);
bft_status bfti_vfs_fail_range(const char *path, uint64_t offset, uint64_t len);
bft_status bfti_vfs_fail_read_only(const char *path);

/* Entries for struct bfti_vfs_ops.  Submit carries out N requests through the
 * table's read, write and sync: each request has its own status, the call
 * itself does not fail.  Reap finds nothing left to wait for. */
bft_status bfti_vfs_submit_now(struct bfti_vfs *vfs, struct bfti_io **io,
                               size_t n);
bft_status bfti_vfs_reap_none(struct bfti_vfs *vfs, size_t min);

#endif
