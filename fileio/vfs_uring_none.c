/* What takes the place of vfs_uring.c in a build without liburing: "posix",
 * and a text that says so. */
#include "vfs_posix.h"
#include "vfs_uring.h"

#include <errno.h>
#include <pthread.h>

static struct bfti_vfs_ops none_ops; /* [once] written inside pthread_once */

static bft_status none_native(struct bfti_file *file)
{
    return bfti_posix_fail_native(ENOSYS, "io_uring, not built in,",
                                  bfti_posix_of(file));
}

static void fill_ops(void)
{
    none_ops = *bfti_vfs_posix()->ops;
    none_ops.name = "uring";
    none_ops.native = none_native;
}

bool bfti_uring_ready(void)
{
    return false;
}

void bfti_uring_read_direct(struct bfti_io *io, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        io[i].status = bfti_posix_read(io[i].file, io[i].offset, io[i].buf,
                                       io[i].len, &io[i].got);
        io[i].done = true;
    }
}

struct bfti_vfs *bfti_vfs_uring(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static struct bfti_vfs vfs = {.ops = &none_ops};

    (void)pthread_once(&once, fill_ops);
    return &vfs;
}
