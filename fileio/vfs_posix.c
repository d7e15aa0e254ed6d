/*
 * The real file system through POSIX calls, with Linux's open-file-description
 * locks, hole punching and page-cache mappings.
 *
 * A forked child must not keep what its parent has locked: such a lock lives as
 * long as any descriptor of the same open file.  So all open files are on one
 * list, and the child closes every descriptor on it before fork() returns
 * there.  Its file objects stay, answer BFT_FORKED, and can be closed.
 */
#include "vfs_posix.h"
#include "env.h"
#include "error.h"
#include "vfs_common.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static_assert(sizeof(off_t) == sizeof(uint64_t),
              "files end where off_t does: build with _FILE_OFFSET_BITS=64");

/* --- errors -------------------------------------------------------------- */

static bft_status status_of(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return BFT_NO_SPACE;
    case ENOENT:
        return BFT_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return BFT_EXISTS;
    case EROFS:
    case EACCES:
    case EPERM:
        return BFT_READ_ONLY;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return BFT_NO_MEMORY; /* or room in a table of open files */
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
        return BFT_INVALID;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENODEV:
        return BFT_UNSUPPORTED;
    default:
        return BFT_IO;
    }
}

static const char *words_of(int error, char *buf, size_t len)
{
    return strerror_r(error, buf, len);
}

bft_status bfti_posix_fail_path(int error, const char *what, const char *path)
{
    char words[128];

    return bfti_fail(status_of(error), "%s %s: %s", what, path,
                     words_of(error, words, sizeof(words)));
}

bft_status bfti_posix_fail_range(int error, const char *what,
                                 const struct bfti_posix_file *file,
                                 uint64_t offset, uint64_t len)
{
    char words[128];

    return bfti_fail(
        status_of(error), "%s %s, %" PRIu64 " bytes at offset %" PRIu64 ": %s",
        what, file->path, len, offset, words_of(error, words, sizeof(words)));
}

bft_status bfti_posix_fail_native(int error, const char *what,
                                  const struct bfti_posix_file *file)
{
    char words[128];

    return bfti_fail(BFT_UNSUPPORTED,
                     "%s: %s is refused (%s): the file is read and written "
                     "by the backend posix",
                     file->path, what, words_of(error, words, sizeof(words)));
}

static bft_status check_own(const struct bfti_posix_file *file)
{
    if (file->fd < 0)
        return bfti_fail(BFT_FORKED, "%s was opened by the parent process",
                         file->path);
    return BFT_OK;
}

static bft_status check_writable(const struct bfti_posix_file *file)
{
    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    return check_own(file);
}

static bft_status check_range(const struct bfti_posix_file *file,
                              uint64_t offset, uint64_t len)
{
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range(file->path, offset, len);
    return BFT_OK;
}

bft_status bfti_posix_check_read(const struct bfti_posix_file *file,
                                 uint64_t offset, uint64_t len)
{
    bft_status status = check_own(file);

    return status == BFT_OK ? check_range(file, offset, len) : status;
}

bft_status bfti_posix_check_write(const struct bfti_posix_file *file,
                                  uint64_t offset, uint64_t len)
{
    bft_status status = check_writable(file);

    return status == BFT_OK ? check_range(file, offset, len) : status;
}

/* --- the list of open files, and fork ------------------------------------ */

/* Not a bfti_mutex: it is held across fork(), where only pthread's own are
 * defined to work.  Held while a descriptor is made or closed, or a file is
 * mapped, so that no child gets one that is not on the list, or a mapping. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct bfti_posix_file *open_files; /* under open_lock */

static void list_add(struct bfti_posix_file *file)
{
    file->prev = NULL;
    file->next = open_files;
    if (open_files != NULL)
        open_files->prev = file;
    open_files = file;
}

static void list_remove(struct bfti_posix_file *file)
{
    if (file->prev != NULL)
        file->prev->next = file->next;
    else
        open_files = file->next;
    if (file->next != NULL)
        file->next->prev = file->prev;
}

static void close_descriptors(const struct bfti_posix_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    if (file->direct_fd >= 0)
        (void)close(file->direct_fd);
}

static void before_fork(void)
{
    (void)pthread_mutex_lock(&open_lock);
}

static void after_fork_in_parent(void)
{
    (void)pthread_mutex_unlock(&open_lock);
}

static void after_fork_in_child(void)
{
    for (struct bfti_posix_file *file = open_files; file != NULL;
         file = file->next) {
        close_descriptors(file);
        file->fd = -1;
        file->direct_fd = -1;
    }
    (void)pthread_mutex_unlock(&open_lock);
}

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_error; /* [once]; then under open_lock */

static void watch_forks(void)
{
    fork_error =
        pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* --- open and close ------------------------------------------------------ */

/* NULL: no memory. */
static struct bfti_posix_file *make_posix_file(const char *path, int flags,
                                               size_t bytes)
{
    size_t path_size = strlen(path) + 1;
    struct bfti_posix_file *file =
        bfti_alloc(bfti_env_system(), bytes + path_size);

    if (file == NULL)
        return NULL;
    memset(file, 0, bytes);
    *file = (struct bfti_posix_file){
        .fd = -1,
        .direct_fd = -1,
        .read_only = (flags & BFTI_OPEN_READ_ONLY) != 0,
        .path = (char *)file + bytes,
    };
    memcpy(file->path, path, path_size);
    return file;
}

/* Directories, pipes and devices keep none of the promises of vfs.h. */
static bft_status check_regular(int fd, const char *path)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        return bfti_posix_fail_path(errno, "stat", path);
    if (!S_ISREG(stat.st_mode))
        return bfti_fail(BFT_INVALID, "open %s: not a regular file", path);
    return BFT_OK;
}

static int open_mode(int flags)
{
    /* O_NONBLOCK: a pipe at that path must not hang us before we see that it
     * is one; regular files ignore it. */
    int mode = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

    mode |= (flags & BFTI_OPEN_READ_ONLY) != 0 ? O_RDONLY : O_RDWR;
    if ((flags & BFTI_OPEN_CREATE) != 0)
        mode |= O_CREAT;
    if ((flags & BFTI_OPEN_EXCLUSIVE) != 0)
        mode |= O_EXCL;
    return mode;
}

/* open(), also when interrupted: a descriptor, or -1 with errno. */
static int open_path(const char *path, int mode)
{
    int fd;

    do {
        fd = open(path, mode, 0644);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

bft_status bfti_posix_open(struct bfti_vfs *vfs, const char *path, int flags,
                           size_t bytes, struct bfti_file **out)
{
    struct bfti_posix_file *file;
    bft_status status;

    assert(bytes >= sizeof(*file));
    *out = NULL;
    status = bfti_vfs_check_flags(path, flags);
    if (status != BFT_OK)
        return status;
    (void)pthread_once(&fork_once, watch_forks);
    file = make_posix_file(path, flags, bytes);
    if (file == NULL)
        return bfti_fail(BFT_NO_MEMORY, "open %s: no memory", path);
    file->file.ops = vfs->ops;

    (void)pthread_mutex_lock(&open_lock);
    if (fork_error != 0)
        watch_forks(); /* there may be memory by now; no fork waits for us,
                        * who have no handler */
    if (fork_error != 0) {
        status = bfti_posix_fail_path(fork_error, "open", path);
        goto free_file;
    }
    file->fd = open_path(path, open_mode(flags));
    if (file->fd < 0) {
        status = bfti_posix_fail_path(errno, "open", path);
        goto free_file;
    }
    status = check_regular(file->fd, path);
    if (status != BFT_OK)
        goto close_fd;
    list_add(file);
    (void)pthread_mutex_unlock(&open_lock);
    *out = &file->file;
    return BFT_OK;

close_fd:
    (void)close(file->fd);
free_file:
    (void)pthread_mutex_unlock(&open_lock);
    bfti_free(bfti_env_system(), file);
    return status;
}

static bft_status posix_open(struct bfti_vfs *vfs, const char *path, int flags,
                             struct bfti_file **out)
{
    return bfti_posix_open(vfs, path, flags, sizeof(struct bfti_posix_file),
                           out);
}

int bfti_posix_open_direct(struct bfti_posix_file *file, int flags)
{
    int mode = open_mode(flags & BFTI_OPEN_READ_ONLY) | O_DIRECT;
    struct stat one, two;
    int error = 0;
    int fd;

    (void)pthread_mutex_lock(&open_lock);
    fd = open_path(file->path, mode);
    if (fd < 0 || fstat(fd, &two) != 0 || fstat(file->fd, &one) != 0) {
        error = errno;
    } else if (one.st_dev != two.st_dev || one.st_ino != two.st_ino) {
        /* Another file has the name by now. */
        error = ENOENT;
    }
    if (error == 0)
        file->direct_fd = fd;
    else if (fd >= 0)
        (void)close(fd);
    (void)pthread_mutex_unlock(&open_lock);
    return error;
}

void bfti_posix_close(struct bfti_file *base)
{
    struct bfti_posix_file *file = bfti_posix_of(base);

    (void)pthread_mutex_lock(&open_lock);
    list_remove(file);
    /* No promise hangs on the result: what must last was synced. */
    close_descriptors(file);
    (void)pthread_mutex_unlock(&open_lock);
    bfti_free(bfti_env_system(), file);
}

/* --- bytes --------------------------------------------------------------- */

bft_status bfti_posix_read(struct bfti_file *base, uint64_t offset, void *buf,
                           size_t len, size_t *got)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    size_t done = 0;
    bft_status status;

    *got = 0;
    status = bfti_posix_check_read(file, offset, len);
    if (status != BFT_OK)
        return status;
    while (done < len) {
        ssize_t n = pread(file->fd, (char *)buf + done, len - done,
                          (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bfti_posix_fail_range(errno, "read", file, offset, len);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *got = done;
    return BFT_OK;
}

bft_status bfti_posix_write(struct bfti_file *base, uint64_t offset,
                            const void *buf, size_t len)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    size_t done = 0;
    bft_status status = bfti_posix_check_write(file, offset, len);

    if (status != BFT_OK)
        return status;
    while (done < len) {
        ssize_t n = pwrite(file->fd, (const char *)buf + done, len - done,
                           (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        /* Nothing written and no reason given would loop for ever. */
        if (n <= 0)
            return bfti_posix_fail_range(n < 0 ? errno : EIO, "write", file,
                                         offset, len);
        done += (size_t)n;
    }
    return BFT_OK;
}

static bft_status posix_size(struct bfti_file *base, uint64_t *bytes)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    struct stat stat;
    bft_status status;

    *bytes = 0;
    status = check_own(file);
    if (status != BFT_OK)
        return status;
    if (fstat(file->fd, &stat) != 0)
        return bfti_posix_fail_path(errno, "stat", file->path);
    *bytes = (uint64_t)stat.st_size;
    return BFT_OK;
}

static bft_status posix_truncate(struct bfti_file *base, uint64_t bytes)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    bft_status status = bfti_posix_check_write(file, bytes, 0);
    int result;

    if (status != BFT_OK)
        return status;
    do {
        result = ftruncate(file->fd, (off_t)bytes);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return bfti_posix_fail_range(errno, "truncate", file, bytes, 0);
    return BFT_OK;
}

static bft_status posix_sync(struct bfti_file *base)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    bft_status status = check_own(file);

    if (status != BFT_OK)
        return status;
    /* Not tried again, whatever the error: after a failed sync Linux counts
     * the pages as clean, and a second one would succeed without them. */
    if (fdatasync(file->fd) != 0)
        return bfti_posix_fail_path(errno, "sync", file->path);
    return BFT_OK;
}

static bft_status lock_as(struct bfti_posix_file *file, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

    /* Of the open file and not of the process: another open file of this
     * process is refused too, and closing that one releases nothing. */
    if (fcntl(file->fd, F_OFD_SETLK, &lock) == 0)
        return BFT_OK;
    switch (errno) {
    case EAGAIN:
    case EACCES:
        return bfti_fail(BFT_BUSY, "%s is locked by another process or handle",
                         file->path);
    case EINVAL:
    case ENOLCK:
        return bfti_fail(BFT_UNSUPPORTED, "%s: its file system has no locks",
                         file->path);
    default:
        return bfti_posix_fail_path(errno, "lock", file->path);
    }
}

static bft_status posix_lock(struct bfti_file *base)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    bft_status status = check_writable(file);

    return status == BFT_OK ? lock_as(file, F_WRLCK) : status;
}

static bft_status posix_lock_shared(struct bfti_file *base)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    bft_status status = check_own(file);

    return status == BFT_OK ? lock_as(file, F_RDLCK) : status;
}

/* --- names --------------------------------------------------------------- */

static bft_status posix_identify(struct bfti_vfs *vfs, const char *path,
                                 uint64_t *device, uint64_t *inode)
{
    struct stat result;

    (void)vfs;
    *device = 0;
    *inode = 0;
    if (stat(path, &result) != 0)
        return bfti_posix_fail_path(errno, "stat", path);
    *device = (uint64_t)result.st_dev;
    *inode = (uint64_t)result.st_ino;
    return BFT_OK;
}

static bft_status posix_make_dir(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    if (mkdir(path, 0755) != 0)
        return bfti_posix_fail_path(errno, "make directory", path);
    return BFT_OK;
}

static bft_status posix_remove(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    if (unlink(path) != 0)
        return bfti_posix_fail_path(errno, "remove", path);
    return BFT_OK;
}

static bft_status posix_rename(struct bfti_vfs *vfs, const char *from,
                               const char *to)
{
    char words[128];
    int error;

    (void)vfs;
    if (rename(from, to) == 0)
        return BFT_OK;
    error = errno;
    /* EINVAL: a directory into itself. */
    return bfti_fail(error == EINVAL ? BFT_INVALID : status_of(error),
                     "rename %s to %s: %s", from, to,
                     words_of(error, words, sizeof(words)));
}

static bft_status posix_list(struct bfti_vfs *vfs, const char *path,
                             void (*each)(void *arg, const char *name),
                             void *arg)
{
    bft_status status = BFT_OK;
    DIR *dir = opendir(path);

    (void)vfs;
    if (dir == NULL)
        return bfti_posix_fail_path(errno, "list", path);
    for (;;) {
        const struct dirent *entry;

        /* The end of the directory and an error differ only in errno. */
        errno = 0;
        /* Safe among threads: the stream is ours alone. */
        entry = readdir(dir); /* NOLINT(concurrency-mt-unsafe) */
        if (entry == NULL)
            break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(arg, entry->d_name);
    }
    if (errno != 0)
        status = bfti_posix_fail_path(errno, "list", path);
    (void)closedir(dir);
    return status;
}

static bft_status posix_sync_dir(struct bfti_vfs *vfs, const char *path)
{
    bft_status status = BFT_OK;
    int fd = open_path(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)vfs;
    if (fd < 0)
        return bfti_posix_fail_path(errno, "open directory", path);
    if (fsync(fd) != 0)
        status = bfti_posix_fail_path(errno, "sync directory", path);
    if (status == BFT_NO_MEMORY) /* which would say that it did not begin */
        status = BFT_IO;
    (void)close(fd);
    return status;
}

static void posix_where(struct bfti_vfs *vfs, char *buf, size_t len)
{
    (void)vfs;
    /* One that was removed has no path, nor one outside of our root, which the
     * system tells as "(unreachable)". */
    if (len > 0 && (getcwd(buf, len) == NULL || buf[0] != '/'))
        buf[0] = '\0';
}

/* --- optional: mappings and holes ---------------------------------------- */

/* fallocate(), also when interrupted.  0, or an errno. */
static int allocate(const struct bfti_posix_file *file, int mode,
                    uint64_t offset, uint64_t len)
{
    int result;

    do {
        result = fallocate(file->fd, mode, (off_t)offset, (off_t)len);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}

/* Does the file system take new blocks for what is overwritten?  Then a store
 * into a mapping may find the disk full, which is a signal, and not an error. */
static bool copies_on_write(const struct bfti_posix_file *file)
{
    struct statfs fs;

    if (fstatfs(file->fd, &fs) != 0)
        return false;
    switch ((uint32_t)fs.f_type) {
    case UINT32_C(0x9123683e): /* btrfs */
    case UINT32_C(0xca451a4e): /* bcachefs */
    case UINT32_C(0x2fc12fc1): /* ZFS */
    case UINT32_C(0x3434):     /* nilfs2 */
    case UINT32_C(0x7461636f): /* OCFS2, where own_blocks() could not part what
                                * a copy shares */
        return true;
    case UINT32_C(0x794c7630): /* overlayfs: the numbers are those of what is
                                * below, and btrfs counts no inodes */
        return fs.f_files == 0;
    default:
        return false;
    }
}

/*
 * Let each of FILE's first LEN bytes lie in a block that is there and its own:
 * a file that was copied may have holes, or share its blocks with the original,
 * and a store into a mapping of it then wants a block.  0, or an errno.
 */
static int own_blocks(const struct bfti_posix_file *file, uint64_t len)
{
    /* This fills holes too.  Where it is not known, no copy shares blocks. */
    int error = allocate(file, FALLOC_FL_UNSHARE_RANGE, 0, len);

    return error == EOPNOTSUPP || error == EINVAL ? allocate(file, 0, 0, len)
                                                  : error;
}

/* Map FILE, for this process and no child of it.  0, or an errno. */
static int map_unforked(const struct bfti_posix_file *file, size_t len,
                        void **addr)
{
    void *mapping;
    int error = 0;

    /* No fork comes in between. */
    (void)pthread_mutex_lock(&open_lock);
    /* Populated for reading: the pages are in the cache, since the file was
     * just written full.  MADV_POPULATE_WRITE would mark all of them dirty,
     * and the next sync would write the whole file once more. */
    mapping = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                   file->fd, 0);
    if (mapping == MAP_FAILED) {
        error = errno;
    } else if (madvise(mapping, len, MADV_DONTFORK) != 0) {
        /* A mapping keeps the open file, and with it the lock, alive in a
         * child; and a child has no business in its parent's log. */
        error = errno;
        (void)munmap(mapping, len);
    }
    (void)pthread_mutex_unlock(&open_lock);
    *addr = error == 0 ? mapping : NULL;
    return error;
}

static bft_status posix_map(struct bfti_file *base, size_t len, void **addr)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    uint64_t bytes;
    bft_status status;
    int error;

    *addr = NULL;
    status = check_writable(file);
    if (status == BFT_OK)
        status = posix_size(base, &bytes);
    if (status != BFT_OK)
        return status;
    /* A store behind the end of the file would be a signal, not an error. */
    if (len == 0 || bytes < len)
        return bfti_fail(BFT_INVALID,
                         "map %s: %zu bytes wanted, the file has %" PRIu64,
                         file->path, len, bytes);
    if (copies_on_write(file))
        return bfti_fail(BFT_UNSUPPORTED,
                         "map %s: its file system copies on write", file->path);
    error = own_blocks(file, len);
    if (error != 0)
        return bfti_posix_fail_range(error, "take the blocks to map", file, 0,
                                     len);
    error = map_unforked(file, len, addr);
    return error == 0 ? BFT_OK
                      : bfti_posix_fail_range(error, "map", file, 0, len);
}

static void posix_unmap(struct bfti_file *base, void *addr, size_t len)
{
    /* In a child the range is not mapped, or is by now somebody else's. */
    if (bfti_posix_of(base)->fd >= 0)
        (void)munmap(addr, len);
}

static bft_status posix_punch(struct bfti_file *base, uint64_t offset,
                              uint64_t len)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    bft_status status = bfti_posix_check_write(file, offset, len);
    int error;

    if (status != BFT_OK || len == 0)
        return status;
    error =
        allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (error != 0)
        return bfti_posix_fail_range(error, "punch a hole into", file, offset,
                                     len);
    return BFT_OK;
}

static void posix_advise(struct bfti_file *base, uint64_t offset, size_t len)
{
    struct bfti_posix_file *file = bfti_posix_of(base);
    if (file->fd >= 0 && offset <= INT64_MAX - (uint64_t)len)
        (void)posix_fadvise(file->fd, (off_t)offset, (off_t)len,
                            POSIX_FADV_WILLNEED);
}

struct bfti_vfs *bfti_vfs_posix(void)
{
    static const struct bfti_vfs_ops ops = {
        .name = "posix",
        .open = posix_open,
        .close = bfti_posix_close,
        .read = bfti_posix_read,
        .write = bfti_posix_write,
        .size = posix_size,
        .truncate = posix_truncate,
        .sync = posix_sync,
        .lock = posix_lock,
        .lock_shared = posix_lock_shared,
        .identify = posix_identify,
        .make_dir = posix_make_dir,
        .remove = posix_remove,
        .rename = posix_rename,
        .list = posix_list,
        .sync_dir = posix_sync_dir,
        .submit = bfti_vfs_submit_now,
        .reap = bfti_vfs_reap_none,
        .map = posix_map,
        .unmap = posix_unmap,
        .punch = posix_punch,
        .advise = posix_advise,
        .where = posix_where,
    };
    static struct bfti_vfs vfs = {.ops = &ops};

    return &vfs;
}
