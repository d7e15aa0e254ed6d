/* What backends have in common. */
#include "vfs_common.h"

#include <inttypes.h>

#include "error.h"

bft_status bfti_vfs_check_flags(const char *path, int flags)
{
    bool create = (flags & BFTI_OPEN_CREATE) != 0;

    if (create && (flags & BFTI_OPEN_READ_ONLY) != 0)
        return bfti_fail(BFT_INVALID, "open %s: to create and only to read",
                         path);
    if (!create && (flags & BFTI_OPEN_EXCLUSIVE) != 0)
        return bfti_fail(BFT_INVALID, "open %s: exclusive without create",
                         path);
    return BFT_OK;
}

bool bfti_vfs_range_is_valid(uint64_t offset, uint64_t len)
{
    return offset <= INT64_MAX && len <= (uint64_t)INT64_MAX - offset;
}

bft_status bfti_vfs_fail_range(const char *path, uint64_t offset, uint64_t len)
{
    return bfti_fail(BFT_INVALID,
                     "%s: %" PRIu64 " bytes at offset %" PRIu64
                     " are beyond what a file can hold",
                     path, len, offset);
}

bft_status bfti_vfs_fail_read_only(const char *path)
{
    return bfti_fail(BFT_READ_ONLY, "%s is open for reading only", path);
}

static bft_status carry_out(struct bfti_io *io)
{
    const struct bfti_vfs_ops *ops = io->file->ops;

    io->got = 0;
    switch (io->op) {
    case BFTI_IO_READ:
        return ops->read(io->file, io->offset, io->buf, io->len, &io->got);
    case BFTI_IO_WRITE:
        return ops->write(io->file, io->offset, io->buf, io->len);
    case BFTI_IO_SYNC:
        return ops->sync(io->file);
    }
    return BFT_INVALID;
}

bft_status bfti_vfs_submit_now(struct bfti_vfs *vfs, struct bfti_io **io,
                               size_t n)
{
    (void)vfs;
    for (size_t i = 0; i < n; i++) {
        io[i]->status = carry_out(io[i]);
        io[i]->done = true;
    }
    return BFT_OK;
}

bft_status bfti_vfs_reap_none(struct bfti_vfs *vfs, size_t min)
{
    (void)vfs;
    (void)min;
    return BFT_OK;
}
