/*
 * The real file system's backends, and what they share: files of "posix", which
 * "direct" and "uring" open, list, lock and close alike, and read and write in
 * ways of their own.  Nobody else includes this.
 */
#ifndef BFTI_VFS_POSIX_H
#define BFTI_VFS_POSIX_H

#include "vfs.h"

struct bfti_posix_file {
    struct bfti_file file;
    int fd;         /* -1 in a child that inherited the object */
    int direct_fd;  /* the same file past the cache, or -1; fixed after open
                       but in such a child */
    bool read_only; /* fixed after open */
    char *path;     /* fixed after open; for texts */
    struct bfti_posix_file *next; /* under open_lock */
    struct bfti_posix_file *prev; /* under open_lock */
};

static inline struct bfti_posix_file *bfti_posix_of(struct bfti_file *file)
{
    return (struct bfti_posix_file *)file;
}

/* Open as "posix" does.  The object has BYTES bytes, zero but for its head:
 * a backend's own file begins with a struct bfti_posix_file. */
BFT_MUST_CHECK bft_status bfti_posix_open(struct bfti_vfs *vfs,
                                          const char *path, int flags,
                                          size_t bytes, struct bfti_file **out);
void bfti_posix_close(struct bfti_file *base);
/* Open FILE's path once more, past the cache, into direct_fd.  0, or the errno
 * of a file system that refuses: direct_fd is -1 then. */
int bfti_posix_open_direct(struct bfti_posix_file *file, int flags);

BFT_MUST_CHECK bft_status bfti_posix_read(struct bfti_file *base,
                                          uint64_t offset, void *buf,
                                          size_t len, size_t *got);
BFT_MUST_CHECK bft_status bfti_posix_write(struct bfti_file *base,
                                           uint64_t offset, const void *buf,
                                           size_t len);

/* May LEN bytes at OFFSET be read, written, now, in this process? */
BFT_MUST_CHECK bft_status bfti_posix_check_read(
    const struct bfti_posix_file *file, uint64_t offset, uint64_t len);
BFT_MUST_CHECK bft_status bfti_posix_check_write(
    const struct bfti_posix_file *file, uint64_t offset, uint64_t len);
/* The status of ERROR, an errno, and a text that says what and where. */
bft_status bfti_posix_fail_path(int error, const char *what, const char *path);
bft_status bfti_posix_fail_range(int error, const char *what,
                                 const struct bfti_posix_file *file,
                                 uint64_t offset, uint64_t len);
/* BFT_UNSUPPORTED, with a text: WHAT is refused for the reason ERROR, and FILE
 * is served as "posix" would. */
bft_status bfti_posix_fail_native(int error, const char *what,
                                  const struct bfti_posix_file *file);

#endif
