/*
 * Files behind one table of functions.  A backend is one file, vfs_*.c.
 * Positional I/O only; every call returns a status and notes a text with the
 * path (bfti_fail); errno does not leave a backend.
 */
#ifndef BFTI_VFS_H
#define BFTI_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bft_status.h"

enum {
    BFTI_OPEN_CREATE = 1, /* make the file when it is missing */
    BFTI_OPEN_READ_ONLY = 2,
    BFTI_OPEN_EXCLUSIVE = 4, /* with CREATE: BFT_EXISTS when it is there */
    BFTI_OPEN_PAGES = 8,     /* mostly whole blocks of 4 KiB, which the opener
                                caches itself: a hint */
};

enum bfti_io_op { BFTI_IO_READ, BFTI_IO_WRITE, BFTI_IO_SYNC };

struct bfti_file;
struct bfti_vfs;

/* One request of the asynchronous form.  Owned by the caller, who keeps it in
 * place until it is reaped; completions carry the request itself. */
struct bfti_io {
    enum bfti_io_op op;
    struct bfti_file *file;
    uint64_t offset;
    void *buf;
    size_t len;
    bft_status status; /* set when done */
    bool done;
    struct bfti_io *next; /* backend only, until done */
    size_t got;           /* set when done: bytes read, as *GOT of read */
};

struct bfti_vfs_ops {
    const char *name; /* "posix", "direct", "uring", "memory", "sim" */

    /* *OUT is NULL when it fails. */
    bft_status (*open)(struct bfti_vfs *vfs, const char *path, int flags,
                       struct bfti_file **out);
    void (*close)(struct bfti_file *file);

    /* Read LEN bytes; *GOT is less only at the end of the file. */
    bft_status (*read)(struct bfti_file *file, uint64_t offset, void *buf,
                       size_t len, size_t *got);
    /* Write all of LEN or fail; extends the file as needed. */
    bft_status (*write)(struct bfti_file *file, uint64_t offset,
                        const void *buf, size_t len);
    bft_status (*size)(struct bfti_file *file, uint64_t *bytes);
    bft_status (*truncate)(struct bfti_file *file, uint64_t bytes);
    /* Contents, and the size needed to read them, survive power loss. */
    bft_status (*sync)(struct bfti_file *file);
    /* Exclusive among processes, and among the files open in this one, until
     * close; BFT_BUSY when held.  FILE is open for writing. */
    bft_status (*lock)(struct bfti_file *file);
    /* Identity of the thing at PATH, equal for every name of it. */
    bft_status (*identify)(struct bfti_vfs *vfs, const char *path,
                           uint64_t *device, uint64_t *inode);

    bft_status (*make_dir)(struct bfti_vfs *vfs, const char *path);
    bft_status (*remove)(struct bfti_vfs *vfs, const char *path);
    bft_status (*rename)(struct bfti_vfs *vfs, const char *from,
                         const char *to);
    /* Call EACH for every name in DIR, "." and ".." left out.  EACH may call
     * VFS, also to remove what it is told of. */
    bft_status (*list)(struct bfti_vfs *vfs, const char *dir,
                       void (*each)(void *arg, const char *name), void *arg);
    /* Creations, renames and removals in DIR survive power loss.  BFT_NO_MEMORY:
     * it did not begin, and nothing of them is lost. */
    bft_status (*sync_dir)(struct bfti_vfs *vfs, const char *dir);

    /* Asynchronous form.  A synchronous backend finishes in submit.  reap
     * returns when at least MIN of the submitted requests are done.  A thread
     * reaps what it submitted itself. */
    bft_status (*submit)(struct bfti_vfs *vfs, struct bfti_io **io, size_t n);
    bft_status (*reap)(struct bfti_vfs *vfs, size_t min);

    /* Optional, NULL where the system cannot: map a whole file of LEN bytes,
     * for stores that reach the page cache and meet no full disk, and fail where
     * that cannot be promised; give a range of a file back to the file system:
     * it reads as zeros, and the size stays. */
    bft_status (*map)(struct bfti_file *file, size_t len, void **addr);
    void (*unmap)(struct bfti_file *file, void *addr, size_t len);
    bft_status (*punch)(struct bfti_file *file, uint64_t offset, uint64_t len);
    /* Optional, NULL where nothing can be brought ahead: LEN bytes at OFFSET will
     * be read soon.  Does not wait, and tells of no failure. */
    void (*advise)(struct bfti_file *file, uint64_t offset, size_t len);
    /* Optional: BFT_UNSUPPORTED, with a text, when the system refuses FILE what
     * the backend is there for, so that it is served as by "posix". */
    bft_status (*native)(struct bfti_file *file);
    /* Optional, NULL where files are of one process: as lock, but shared with
     * others who ask so; FILE is open for reading. */
    bft_status (*lock_shared)(struct bfti_file *file);
    /* Optional, NULL where requests are carried out one after the other: are
     * reads of FILE that the calling thread hands to one submit worked on
     * together? */
    bool (*overlaps)(struct bfti_file *file);
    /* Optional, NULL where all paths begin at one root: into BUF the directory,
     * itself by a path from the root, at which paths without "/" in front begin
     * now; "" when it has none that fits LEN bytes. */
    void (*where)(struct bfti_vfs *vfs, char *buf, size_t len);
};

/* A backend's own data follows these heads. */
struct bfti_vfs {
    const struct bfti_vfs_ops *ops;
};
struct bfti_file {
    const struct bfti_vfs_ops *ops;
};

/* The real file system.  One object for the process; never freed.  Its
 * descriptors are close-on-exec and are closed in a forked child.  In a build
 * without threads all three answer BFT_UNSUPPORTED to every name. */
struct bfti_vfs *bfti_vfs_posix(void);
/* The same files, and the same object for the process; these work as "posix"
 * where the system refuses what they are for (NATIVE says so).  Files opened
 * as BFTI_OPEN_PAGES are read and written past the page cache: */
struct bfti_vfs *bfti_vfs_direct(void);
/* All reads and writes go through io_uring, one ring for each thread: */
struct bfti_vfs *bfti_vfs_uring(void);

#endif
