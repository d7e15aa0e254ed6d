/*
 * A file system of two files that keeps a log: `disk`, of a fixed size, for a
 * loop device to lie on, and `marks`, for notes of what is being done to it.
 * Each write, discard and sync of `disk` and each write to `marks` becomes a
 * record of power_log.h.
 *
 *   log_disk DIRECTORY LOG BYTES
 *
 * It stays in the foreground and ends when DIRECTORY is unmounted.  One thread,
 * and no cache of the kernel's between it and who writes, so that the order of
 * the records is the order in which the device took them: a write is there when
 * it is acknowledged, a sync covers what was there before it.
 */
#define FUSE_USE_VERSION 31
#include <fuse.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "power_log.h"

static uint8_t *disk;
static uint64_t disk_bytes;
static int log_fd;

/* --- the log -------------------------------------------------------------- */

/* 0, or -EIO, which the file system above then has to live with. */
static int note(enum power_type type, uint64_t offset, const char *bytes,
                uint64_t len)
{
    struct power_record record = {.type = type, .offset = offset, .len = len};
    union {
        const char *from;
        void *to;
    } data = {.from = bytes};
    struct iovec parts[2] = {{&record, sizeof(record)},
                             {data.to, bytes ? len : 0}};
    ssize_t all = (ssize_t)(parts[0].iov_len + parts[1].iov_len);

    if (writev(log_fd, parts, 2) == all)
        return 0;
    perror("log_disk: the log");
    return -EIO;
}

static bool is_disk(const char *path)
{
    return strcmp(path, "/disk") == 0;
}

static bool is_marks(const char *path)
{
    return strcmp(path, "/marks") == 0;
}

/* --- calls of the kernel -------------------------------------------------- */

static void *on_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
    (void)conn;
    config->kernel_cache = 0;
    return NULL;
}

static int on_getattr(const char *path, struct stat *st,
                      struct fuse_file_info *file)
{
    (void)file;
    memset(st, 0, sizeof(*st));
    if (strcmp(path, "/") == 0) {
        st->st_mode = S_IFDIR | 0700;
        st->st_nlink = 2;
        return 0;
    }
    if (!is_disk(path) && !is_marks(path))
        return -ENOENT;
    st->st_mode = S_IFREG | 0600;
    st->st_nlink = 1;
    st->st_size = is_disk(path) ? (off_t)disk_bytes : 0;
    return 0;
}

static int on_readdir(const char *path, void *buf, fuse_fill_dir_t fill,
                      off_t offset, struct fuse_file_info *file,
                      enum fuse_readdir_flags flags)
{
    static const char *const names[] = {".", "..", "disk", "marks"};

    (void)path, (void)offset, (void)file, (void)flags;
    for (unsigned i = 0; i < 4; i++)
        if (fill(buf, names[i], NULL, 0, (enum fuse_fill_dir_flags)0) != 0)
            return -ENOMEM;
    return 0;
}

static int on_open(const char *path, struct fuse_file_info *file)
{
    file->direct_io = 1;
    return is_disk(path) || is_marks(path) ? 0 : -ENOENT;
}

/* `marks` is opened by shells too, which want it empty first. */
static int on_truncate(const char *path, off_t size,
                       struct fuse_file_info *file)
{
    (void)file;
    return is_marks(path) || (uint64_t)size == disk_bytes ? 0 : -EPERM;
}

/* How much of LEN bytes at OFFSET the disk has. */
static size_t within(off_t offset, size_t len)
{
    if (offset < 0 || (uint64_t)offset >= disk_bytes)
        return 0;
    return len < disk_bytes - (uint64_t)offset
               ? len
               : (size_t)(disk_bytes - (uint64_t)offset);
}

static int on_read(const char *path, char *buf, size_t len, off_t offset,
                   struct fuse_file_info *file)
{
    (void)file;
    if (!is_disk(path))
        return 0;
    len = within(offset, len);
    memcpy(buf, disk + offset, len);
    return (int)len;
}

static int on_write(const char *path, const char *buf, size_t len, off_t offset,
                    struct fuse_file_info *file)
{
    int failed;

    (void)file;
    if (is_marks(path)) {
        failed = note(POWER_MARK, 0, buf, len);
        return failed ? failed : (int)len;
    }
    len = within(offset, len);
    if (len == 0)
        return -ENOSPC;
    failed = note(POWER_WRITE, (uint64_t)offset, buf, len);
    if (failed)
        return failed;
    memcpy(disk + offset, buf, len);
    return (int)len;
}

static int on_fsync(const char *path, int data, struct fuse_file_info *file)
{
    (void)data, (void)file;
    return is_disk(path) ? note(POWER_FLUSH, 0, NULL, 0) : 0;
}

/* How a loop device discards and zeroes.  Either leaves zeros here, as mkfs and
 * file systems ask of the second alone. */
static int on_fallocate(const char *path, int mode, off_t offset, off_t len,
                        struct fuse_file_info *file)
{
    size_t some = len > 0 ? within(offset, (size_t)len) : 0;
    int failed;

    (void)file;
    if (!is_disk(path) ||
        !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
        return -EOPNOTSUPP;
    if (some == 0)
        return 0;
    failed = note(POWER_ZERO, (uint64_t)offset, NULL, some);
    if (failed)
        return failed;
    /* Whole pages are given back: a mkfs discards all there is. */
    if (offset % 4096 != 0 || some % 4096 != 0 ||
        madvise(disk + offset, some, MADV_DONTNEED) != 0)
        memset(disk + offset, 0, some);
    return 0;
}

static const struct fuse_operations operations = {
    .init = on_init,
    .getattr = on_getattr,
    .readdir = on_readdir,
    .open = on_open,
    .truncate = on_truncate,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
    .fallocate = on_fallocate,
};

/* --- the program ---------------------------------------------------------- */

int main(int argc, char **argv)
{
    static char name[] = "log_disk", front[] = "-f", one[] = "-s",
                option[] = "-o", options[] = "fsname=log_disk";
    char *args[] = {name, front, one, option, options, NULL, NULL};

    if (argc != 4) {
        fprintf(stderr, "usage: log_disk DIRECTORY LOG BYTES\n");
        return 2;
    }
    disk_bytes = strtoull(argv[3], NULL, 0);
    disk = mmap(NULL, disk_bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    log_fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
                  0600);
    if (disk == MAP_FAILED || log_fd < 0) {
        perror("log_disk");
        return 2;
    }
    /* A Ctrl-C is for who unmounts what lies on the disk first. */
    (void)signal(SIGINT, SIG_IGN);
    /* Memory that it asks for must not wait for writes that wait for it; a
     * kernel that does not know of that has to have enough of it. */
#ifdef PR_SET_IO_FLUSHER
    (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
    args[5] = argv[1];
    return fuse_main(6, args, &operations, NULL);
}
