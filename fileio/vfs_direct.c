/*
 * The real file system with O_DIRECT: files opened as BFTI_OPEN_PAGES are read
 * and written past the page cache, which would hold a second copy of what the
 * engine caches itself.  All other files, the log's above all, are those of
 * "posix": a frame that was copied must survive the program, and is stored
 * through a mapping of the cache.
 *
 * Whole blocks go past the cache, by way of a buffer of ours: the caller's are
 * not aligned, and a fork while the drive writes into them may leave what it
 * writes to the child (open(2) says so); ours are not the child's.  Reads of
 * parts read the whole blocks around them.  Writes of parts go through the
 * cache.  The kernel keeps both ways one: it writes dirty pages back before a
 * direct read and drops cached ones around a direct write.  It does so page by
 * page, and no page is written both ways at a time: a direct write covers its
 * pages whole, so that the ranges would overlap, which callers exclude (vfs.h).
 *
 * Reads that are handed over together are the drive's together, through the
 * calling thread's ring where it can have one (vfs_uring.c).
 *
 * Past the cache is not on the disk: a drive has a cache of its own, and a file
 * that grew a size.  So a sync is the same fdatasync() as everywhere.
 */
#include "error.h"
#include "vfs_common.h"
#include "vfs_posix.h"
#include "vfs_uring.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BLOCK = 4096,           /* what every disk and file system takes */
    BOUNCE_BYTES = 1 << 16, /* of an aligned buffer; longer transfers go on */
    SPARES = 8,             /* of those kept by a file */
    ROUND_READS = 32,       /* that a drive gets at once, and the buffers */
    ROUND_BOUNCES = 4,      /* that they lie in */
};

struct direct_file {
    struct bfti_posix_file base;
    _Atomic int refusal; /* errno, 0: none; set once, then not direct */
    _Atomic(uint8_t *) spare[SPARES]; /* bounce buffers that nobody uses */
};

static struct direct_file *direct_of(struct bfti_file *file)
{
    return (struct direct_file *)file;
}

/* Is FILE read and written past the cache? */
static bool goes_direct(struct direct_file *file)
{
    /* relaxed: one call more or less past the cache is all the same. */
    return file->base.direct_fd >= 0 &&
           atomic_load_explicit(&file->refusal, memory_order_relaxed) == 0;
}

/* --- aligned buffers ----------------------------------------------------- */

/* BOUNCE_BYTES, aligned, not inherited by a child; or NULL: no memory. */
static uint8_t *bounce_make(void)
{
    void *bounce = mmap(NULL, BOUNCE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (bounce == MAP_FAILED)
        return NULL;
    if (madvise(bounce, BOUNCE_BYTES, MADV_DONTFORK) == 0)
        return bounce;
    (void)munmap(bounce, BOUNCE_BYTES);
    return NULL;
}

static uint8_t *bounce_take(struct direct_file *file)
{
    for (size_t i = 0; i < SPARES; i++) {
        uint8_t *bounce = atomic_exchange(&file->spare[i], NULL);

        if (bounce != NULL)
            return bounce;
    }
    return bounce_make();
}

static void bounce_give(struct direct_file *file, uint8_t *bounce)
{
    for (size_t i = 0; i < SPARES; i++) {
        uint8_t *none = NULL;

        if (atomic_compare_exchange_strong(&file->spare[i], &none, bounce))
            return;
    }
    (void)munmap(bounce, BOUNCE_BYTES);
}

static bft_status fail_bounce(const struct direct_file *file)
{
    return bfti_fail(BFT_NO_MEMORY, "%s: no memory for an aligned buffer",
                     file->base.path);
}

/* --- whole blocks -------------------------------------------------------- */

/* ERROR of a transfer: is it that this file, or its disk, takes no direct ones
 * of our alignment? */
static bool is_refusal(struct direct_file *file, int error)
{
    if (error != EINVAL)
        return false;
    atomic_store(&file->refusal, error);
    return true;
}

/* Read LEN bytes, whole blocks, into BUF, which is aligned. */
static bft_status read_blocks(struct direct_file *file, uint64_t offset,
                              uint8_t *buf, size_t len, size_t *got)
{
    size_t done = 0, rest = 0;
    bft_status status = BFT_OK;

    *got = 0;
    while (done < len) {
        ssize_t n = pread(file->base.direct_fd, buf + done, len - done,
                          (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && !is_refusal(file, errno))
            return bfti_posix_fail_range(errno, "read", &file->base, offset,
                                         len);
        if (n == 0)
            break;
        done += n > 0 ? (size_t)n : 0;
        /* The end of the file within a block, where no direct read may start:
         * or a refusal.  The cache knows the rest. */
        if (n < 0 || done % BLOCK != 0) {
            status = bfti_posix_read(&file->base.file, offset + done,
                                     buf + done, len - done, &rest);
            break;
        }
    }
    if (status == BFT_OK)
        *got = done + rest;
    return status;
}

/* Write LEN bytes, whole blocks, from BUF, which is aligned. */
static bft_status write_blocks(struct direct_file *file, uint64_t offset,
                               const uint8_t *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pwrite(file->base.direct_fd, buf + done, len - done,
                           (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && !is_refusal(file, errno))
            return bfti_posix_fail_range(errno, "write", &file->base, offset,
                                         len);
        done += n > 0 ? (size_t)n : 0;
        /* The cache takes what is refused, or says why the disk cannot. */
        if (n <= 0 || done % BLOCK != 0)
            return bfti_posix_write(&file->base.file, offset + done, buf + done,
                                    len - done);
    }
    return BFT_OK;
}

/* --- the table ----------------------------------------------------------- */

/* Read the blocks around LEN bytes at OFFSET, piece by piece. */
static bft_status read_around(struct direct_file *file, uint64_t offset,
                              uint8_t *buf, size_t len, size_t *got)
{
    uint64_t at = offset - offset % BLOCK;
    uint64_t end = (offset + len + BLOCK - 1) / BLOCK * BLOCK;
    uint8_t *bounce = bounce_take(file);
    bft_status status = BFT_OK;
    size_t done = 0;

    if (bounce == NULL)
        return fail_bounce(file);
    while (at < end) {
        size_t n = end - at < BOUNCE_BYTES ? (size_t)(end - at) : BOUNCE_BYTES;
        size_t skip = at < offset ? (size_t)(offset - at) : 0;
        size_t here, use;

        status = read_blocks(file, at, bounce, n, &here);
        if (status != BFT_OK)
            break;
        use = here > skip ? here - skip : 0;
        use = use < len - done ? use : len - done;
        memcpy(buf + done, bounce + skip, use);
        done += use;
        if (here < n)
            break;
        at += n;
    }
    bounce_give(file, bounce);
    if (status == BFT_OK)
        *got = done;
    return status;
}

static bft_status direct_read(struct bfti_file *base, uint64_t offset,
                              void *buf, size_t len, size_t *got)
{
    struct direct_file *file = direct_of(base);
    bft_status status;

    *got = 0;
    /* Blocks around the last offsets that there are would reach over them. */
    if (!goes_direct(file) || len == 0 ||
        !bfti_vfs_range_is_valid(offset, (uint64_t)len + BLOCK))
        return bfti_posix_read(base, offset, buf, len, got);
    status = bfti_posix_check_read(&file->base, offset, len);
    if (status != BFT_OK)
        return status;
    return read_around(file, offset, buf, len, got);
}

/* Write LEN bytes at OFFSET, whole blocks, piece by piece. */
static bft_status write_bounced(struct direct_file *file, uint64_t offset,
                                const uint8_t *buf, size_t len)
{
    uint8_t *bounce = bounce_take(file);
    bft_status status = BFT_OK;

    if (bounce == NULL)
        return fail_bounce(file);
    while (status == BFT_OK && len > 0) {
        size_t n = len < BOUNCE_BYTES ? len : BOUNCE_BYTES;

        memcpy(bounce, buf, n);
        status = write_blocks(file, offset, bounce, n);
        offset += n;
        buf += n;
        len -= n;
    }
    bounce_give(file, bounce);
    return status;
}

static bft_status direct_write(struct bfti_file *base, uint64_t offset,
                               const void *buf, size_t len)
{
    struct direct_file *file = direct_of(base);
    bft_status status;

    if (!goes_direct(file) || offset % BLOCK != 0 || len % BLOCK != 0)
        return bfti_posix_write(base, offset, buf, len);
    status = bfti_posix_check_write(&file->base, offset, len);
    if (status != BFT_OK)
        return status;
    return write_bounced(file, offset, buf, len);
}

/* --- several reads at once ------------------------------------------------ */

/* Reads of one file that are to be carried out together: of the blocks around
 * what was asked for, side by side in bounce buffers. */
struct round {
    struct direct_file *file;
    struct bfti_io block[ROUND_READS];
    struct bfti_io *asked[ROUND_READS];
    size_t reads;
    uint8_t *bounce[ROUND_BOUNCES];
    size_t bounces;
    size_t used; /* bytes of the last of them */
};

/* Give what was asked for of what was read.  What went wrong is read again by
 * itself: that notes a refusal, and finds the words for a failure. */
static void round_answer(struct bfti_io *asked, const struct bfti_io *block)
{
    size_t skip = (size_t)(asked->offset - block->offset);
    size_t use = block->got > skip ? block->got - skip : 0;

    if (block->status != BFT_OK) {
        (void)bfti_vfs_submit_now(NULL, &asked, 1);
        return;
    }
    asked->got = use < asked->len ? use : asked->len;
    memcpy(asked->buf, (const uint8_t *)block->buf + skip, asked->got);
    asked->status = BFT_OK;
    asked->done = true;
}

static void round_run(struct round *round)
{
    bfti_uring_read_direct(round->block, round->reads);
    for (size_t i = 0; i < round->reads; i++)
        round_answer(round->asked[i], &round->block[i]);
    while (round->bounces > 0)
        bounce_give(round->file, round->bounce[--round->bounces]);
    round->reads = round->used = 0;
}

/* Room for BYTES in ROUND, or NULL: it has to run first, or there is no memory.
 */
static uint8_t *round_room(struct round *round, size_t bytes)
{
    uint8_t *room;

    if (round->reads == ROUND_READS)
        return NULL;
    if (round->bounces == 0 || BOUNCE_BYTES - round->used < bytes) {
        uint8_t *bounce =
            round->bounces < ROUND_BOUNCES ? bounce_take(round->file) : NULL;
        if (bounce == NULL)
            return NULL;
        round->bounce[round->bounces++] = bounce;
        round->used = 0;
    }
    room = round->bounce[round->bounces - 1] + round->used;
    round->used += bytes;
    return room;
}

/* Is IO a read that can be a part of a round? */
static bool fits_round(const struct bfti_io *io)
{
    struct direct_file *file = direct_of(io->file);

    return io->op == BFTI_IO_READ && goes_direct(file) && io->len > 0 &&
           io->len <= BOUNCE_BYTES - 2 * BLOCK &&
           bfti_vfs_range_is_valid(io->offset, (uint64_t)io->len + BLOCK) &&
           bfti_posix_check_read(&file->base, io->offset, io->len) == BFT_OK;
}

/* Make IO a part of ROUND, which runs first if it has to. */
static void round_add(struct round *round, struct bfti_io *io)
{
    uint64_t at = io->offset - io->offset % BLOCK;
    uint64_t end = (io->offset + io->len + BLOCK - 1) / BLOCK * BLOCK;
    size_t bytes = (size_t)(end - at);
    uint8_t *room;

    if (round->reads > 0 && round->file != direct_of(io->file))
        round_run(round);
    round->file = direct_of(io->file);
    room = round_room(round, bytes);
    if (room == NULL && round->reads > 0) {
        round_run(round);
        room = round_room(round, bytes);
    }
    if (room == NULL) {
        (void)bfti_vfs_submit_now(NULL, &io, 1); /* says that */
        return;
    }
    round->asked[round->reads] = io;
    round->block[round->reads++] = (struct bfti_io){.op = BFTI_IO_READ,
                                                    .file = io->file,
                                                    .offset = at,
                                                    .buf = room,
                                                    .len = bytes};
}

static bft_status direct_submit(struct bfti_vfs *vfs, struct bfti_io **io,
                                size_t n)
{
    struct round round;

    if (n < 2 || !bfti_uring_ready())
        return bfti_vfs_submit_now(vfs, io, n);
    round.file = NULL;
    round.reads = round.bounces = round.used = 0;
    for (size_t i = 0; i < n; i++) {
        if (fits_round(io[i])) {
            round_add(&round, io[i]);
            continue;
        }
        round_run(&round); /* in their order, should it be a write */
        (void)bfti_vfs_submit_now(vfs, &io[i], 1);
    }
    round_run(&round);
    return BFT_OK;
}

static bool direct_overlaps(struct bfti_file *base)
{
    return goes_direct(direct_of(base)) && bfti_uring_ready();
}

static bft_status direct_open(struct bfti_vfs *vfs, const char *path, int flags,
                              struct bfti_file **out)
{
    bft_status status =
        bfti_posix_open(vfs, path, flags, sizeof(struct direct_file), out);

    if (status == BFT_OK && (flags & BFTI_OPEN_PAGES) != 0) {
        struct direct_file *file = direct_of(*out);

        atomic_store(&file->refusal,
                     bfti_posix_open_direct(&file->base, flags));
    }
    return status;
}

static void direct_close(struct bfti_file *base)
{
    struct direct_file *file = direct_of(base);

    for (size_t i = 0; i < SPARES; i++) {
        uint8_t *bounce = atomic_load(&file->spare[i]);

        /* In a child it is not mapped, or is by now somebody else's. */
        if (bounce != NULL && file->base.fd >= 0)
            (void)munmap(bounce, BOUNCE_BYTES);
    }
    bfti_posix_close(base);
}

static bft_status direct_native(struct bfti_file *base)
{
    struct direct_file *file = direct_of(base);
    int refusal = atomic_load(&file->refusal);

    return refusal == 0
               ? BFT_OK
               : bfti_posix_fail_native(refusal, "O_DIRECT", &file->base);
}

static struct bfti_vfs_ops direct_ops; /* [once] written inside pthread_once */

static void fill_ops(void)
{
    direct_ops = *bfti_vfs_posix()->ops;
    direct_ops.name = "direct";
    direct_ops.open = direct_open;
    direct_ops.close = direct_close;
    direct_ops.read = direct_read;
    direct_ops.write = direct_write;
    direct_ops.native = direct_native;
    direct_ops.submit = direct_submit;
    direct_ops.overlaps = direct_overlaps;
    direct_ops.advise = NULL; /* it would fill the cache that reads pass by */
}

struct bfti_vfs *bfti_vfs_direct(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static struct bfti_vfs vfs = {.ops = &direct_ops};

    (void)pthread_once(&once, fill_ops);
    return &vfs;
}
