/*
 * The real file system through io_uring: a batch of reads or writes costs one
 * system call and waits for the slowest of them, not for each in turn.
 *
 * Each thread has a ring, made at its first request and freed with the thread.
 * So no request is met by a thread that did not ask for it, a text belongs to
 * the thread that reaps, and nothing here is shared but the list of rings.
 *
 * A transfer that the ring does in part, or is interrupted in, is finished by
 * plain calls, and so is everything where the kernel gives no ring.  A sync
 * that failed is not tried again (vfs_posix.c says why).
 *
 * A ring is memory that the kernel writes: a forked child must not have it.
 * So its memory is not inherited, and the child closes the descriptors of all
 * rings before fork() returns there.
 */
#include "vfs_uring.h"
#include "env.h"
#include "vfs_common.h"
#include "vfs_posix.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <unistd.h>

enum {
    DEPTH = 64,             /* requests of one thread in the kernel */
    TRANSFER_MAX = 1 << 30, /* of one request: its length has 32 bits */
};

struct ring {
    struct io_uring uring;
    uint32_t generation; /* of the process that made it; fixed after init */
    unsigned pending;    /* pushed, and no completion seen yet */
    int broken;          /* errno of a ring that takes no more, or 0 */
    struct ring *next;   /* under rings_lock */
    struct ring *prev;   /* under rings_lock */
};

struct uring_file {
    struct bfti_posix_file base;
    int refusal; /* errno, 0: none; fixed after open */
};

static struct uring_file *uring_of(struct bfti_file *file)
{
    return (struct uring_file *)file;
}

/* --- rings, threads and forks -------------------------------------------- */

/* pthread's own, held across fork(), and while a ring is made or freed: no
 * child gets a descriptor that is not on the list. */
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ring *rings; /* under rings_lock */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t ring_key; /* [once] both written inside pthread_once */
static int once_error;

static _Thread_local struct ring *my_ring;

static void before_fork(void)
{
    (void)pthread_mutex_lock(&rings_lock);
}

static void after_fork_in_parent(void)
{
    (void)pthread_mutex_unlock(&rings_lock);
}

/* The structs of the parent's other threads are lost with their threads. */
static void after_fork_in_child(void)
{
    for (struct ring *ring = rings; ring != NULL; ring = ring->next)
        if (ring->broken == 0)
            (void)close(ring->uring.ring_fd);
    rings = NULL;
    (void)pthread_mutex_unlock(&rings_lock);
}

static void list_remove(struct ring *ring)
{
    if (ring->prev != NULL)
        ring->prev->next = ring->next;
    else
        rings = ring->next;
    if (ring->next != NULL)
        ring->next->prev = ring->prev;
}

/* A thread ends, or finds that its ring is its parent's. */
static void ring_free(void *arg)
{
    struct ring *ring = arg;

    assert(ring->pending == 0 || ring->generation != bfti_fork_generation());
    my_ring = NULL;
    (void)pthread_setspecific(ring_key, NULL);
    if (ring->generation == bfti_fork_generation()) {
        (void)pthread_mutex_lock(&rings_lock);
        list_remove(ring);
        /* A broken one's descriptor is closed, and may be another file's;
         * its memory is still ours. */
        if (ring->broken != 0)
            ring->uring.ring_fd = -1;
        io_uring_queue_exit(&ring->uring);
        (void)pthread_mutex_unlock(&rings_lock);
    }
    bfti_free(bfti_env_system(), ring);
}

/* 0 if the kernel has all requests that are made of URING.  From 5.1 to 5.5 it
 * has rings, but neither reads nor writes without vectors, and no probe. */
static int check_requests(struct io_uring *uring)
{
    enum { OPS = IORING_OP_WRITE + 1 };
    static const uint8_t wanted[] = {IORING_OP_FSYNC, IORING_OP_READ,
                                     IORING_OP_WRITE};
    union {
        struct io_uring_probe probe;
        uint8_t bytes[sizeof(struct io_uring_probe) +
                      OPS * sizeof(struct io_uring_probe_op)];
    } known = {.bytes = {0}};

    if (io_uring_register_probe(uring, &known.probe, OPS) != 0)
        return EOPNOTSUPP;
    for (size_t i = 0; i < sizeof(wanted); i++)
        if (!io_uring_opcode_supported(&known.probe, wanted[i]))
            return EOPNOTSUPP;
    return 0;
}

/* 0, or the errno of a kernel that refuses. */
static int ring_make(struct ring **out)
{
    struct ring *ring = bfti_alloc(bfti_env_system(), sizeof(*ring));
    int error;

    *out = NULL;
    if (ring == NULL)
        return ENOMEM;
    *ring = (struct ring){.generation = bfti_fork_generation()};
    (void)pthread_mutex_lock(&rings_lock);
    error = -io_uring_queue_init(DEPTH, &ring->uring, 0);
    if (error != 0)
        goto free_ring;
    error = check_requests(&ring->uring);
    if (error == 0)
        error = -io_uring_ring_dontfork(&ring->uring);
    if (error == 0)
        error = pthread_setspecific(ring_key, ring);
    if (error != 0)
        goto exit_uring;
    ring->next = rings;
    if (rings != NULL)
        rings->prev = ring;
    rings = ring;
    (void)pthread_mutex_unlock(&rings_lock);
    *out = ring;
    return 0;

exit_uring:
    io_uring_queue_exit(&ring->uring);
free_ring:
    (void)pthread_mutex_unlock(&rings_lock);
    bfti_free(bfti_env_system(), ring);
    return error;
}

/* The calling thread's ring.  0, or an errno: it has none. */
static int ring_get(struct ring **out)
{
    *out = NULL;
    if (once_error != 0)
        return once_error;
    if (my_ring != NULL && my_ring->generation != bfti_fork_generation())
        ring_free(my_ring);
    if (my_ring == NULL) {
        int error = ring_make(&my_ring);

        if (error != 0)
            return error;
    }
    if (my_ring->broken != 0)
        return my_ring->broken;
    *out = my_ring;
    return 0;
}

/* --- requests ------------------------------------------------------------ */

/* Do what is left of IO by plain calls; GOT bytes of it are done. */
static void finish_plain(struct bfti_io *io, size_t got)
{
    uint64_t offset = io->offset + got;
    size_t rest = 0;

    switch (io->op) {
    case BFTI_IO_READ:
        io->status = bfti_posix_read(io->file, offset, (char *)io->buf + got,
                                     io->len - got, &rest);
        io->got = io->status == BFT_OK ? got + rest : 0;
        break;
    case BFTI_IO_WRITE:
        io->status = bfti_posix_write(
            io->file, offset, (const char *)io->buf + got, io->len - got);
        break;
    case BFTI_IO_SYNC:
        io->status = io->file->ops->sync(io->file);
        break;
    }
    io->done = true;
}

static void finish_failed(struct bfti_io *io, int error)
{
    const struct bfti_posix_file *file = bfti_posix_of(io->file);

    if (io->op == BFTI_IO_SYNC)
        io->status = bfti_posix_fail_path(error, "sync", file->path);
    else
        io->status = bfti_posix_fail_range(
            error, io->op == BFTI_IO_READ ? "read" : "write", file, io->offset,
            io->len);
    io->done = true;
}

/* The kernel is done with IO: RESULT is what a plain call would return, or
 * less errno. */
static void complete(struct bfti_io *io, int result)
{
    bool sync = io->op == BFTI_IO_SYNC;

    if (!sync && (result == -EINTR || result == -EAGAIN)) {
        finish_plain(io, 0);
    } else if (result < 0) {
        finish_failed(io, -result);
    } else if (sync || (size_t)result == io->len) {
        io->got = io->op == BFTI_IO_READ ? (size_t)result : 0;
        io->status = BFT_OK;
        io->done = true;
    } else {
        finish_plain(io, (size_t)result);
    }
}

/* Take what has completed; without a system call as a rule. */
static void ring_take(struct ring *ring)
{
    struct io_uring_cqe *cqe;

    while (ring->pending > 0 && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        struct bfti_io *io = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->uring, cqe);
        ring->pending--;
        complete(io, result);
    }
}

/*
 * The kernel takes no more requests for the reason ERROR: the descriptor was
 * closed by somebody else, as daemons do with all there are.  Do by plain calls
 * what it has not got yet, and wait for the rest: it still fills the mapped
 * queue, and owns their buffers.
 */
static void ring_break(struct ring *ring, int error)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    unsigned head = io_uring_smp_load_acquire(sq->khead);

    ring->broken = error;
    for (; head != sq->sqe_tail; head++) {
        const struct io_uring_sqe *sqe = &sq->sqes[head & *sq->kring_mask];
        /* What io_uring_sqe_set_data() made of the pointer.
         * NOLINTNEXTLINE(performance-no-int-to-ptr) */
        struct bfti_io *io = (struct bfti_io *)(uintptr_t)sqe->user_data;

        ring->pending--;
        finish_plain(io, 0);
    }
    while (ring->pending > 0) {
        ring_take(ring);
        bfti_env_system()->yield(NULL);
    }
}

/* Hand over what was pushed, and wait for WAIT completions. */
static void ring_enter(struct ring *ring, unsigned wait)
{
    int result = io_uring_submit_and_wait(&ring->uring, wait);

    /* Interrupted, or the kernel is out of room for the moment: the caller
     * comes back as long as something is pending. */
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
        ring_break(ring, -result);
    else
        ring_take(ring);
}

static void ring_push(struct ring *ring, struct bfti_io *io, int fd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    unsigned len = io->len < TRANSFER_MAX ? (unsigned)io->len : TRANSFER_MAX;

    /* As many as are pending at most have a place. */
    assert(sqe != NULL && ring->pending < DEPTH);
    switch (io->op) {
    case BFTI_IO_READ:
        io_uring_prep_read(sqe, fd, io->buf, len, io->offset);
        break;
    case BFTI_IO_WRITE:
        io_uring_prep_write(sqe, fd, io->buf, len, io->offset);
        break;
    case BFTI_IO_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
    ring->pending++;
}

/* Push IO, of descriptor FD, or have it done where the ring takes no more. */
static void ring_ask(struct ring *ring, struct bfti_io *io, int fd)
{
    while (ring->pending == DEPTH)
        ring_enter(ring, 1);
    if (ring->broken != 0)
        finish_plain(io, 0);
    else
        ring_push(ring, io, fd);
}

/* Is there anything in IO for the kernel to do?  If not, it is done. */
static bool io_begin(struct bfti_io *io)
{
    const struct bfti_posix_file *file = bfti_posix_of(io->file);

    io->got = 0;
    io->done = false;
    if (io->op == BFTI_IO_WRITE)
        io->status = bfti_posix_check_write(file, io->offset, io->len);
    else
        io->status = bfti_posix_check_read(
            file, io->offset, io->op == BFTI_IO_READ ? io->len : 0);
    io->done = io->status != BFT_OK || (io->op != BFTI_IO_SYNC && io->len == 0);
    return !io->done;
}

/* One request, from beginning to end. */
static void ring_run(struct bfti_io *io)
{
    struct ring *ring;

    if (!io_begin(io))
        return;
    if (uring_of(io->file)->refusal != 0 || ring_get(&ring) != 0) {
        finish_plain(io, 0);
        return;
    }
    ring_ask(ring, io, bfti_posix_of(io->file)->fd);
    while (!io->done)
        ring_enter(ring, 1);
}

bool bfti_uring_ready(void)
{
    struct ring *ring;

    (void)bfti_vfs_uring();
    return ring_get(&ring) == 0;
}

void bfti_uring_read_direct(struct bfti_io *io, size_t n)
{
    struct ring *ring;

    (void)bfti_vfs_uring();
    for (size_t i = 0; i < n; i++) {
        io[i].got = 0;
        io[i].done = false;
        if (ring_get(&ring) == 0)
            ring_ask(ring, &io[i], bfti_posix_of(io[i].file)->direct_fd);
        else
            finish_plain(&io[i], 0);
    }
    for (size_t i = 0; i < n; i++)
        /* One that breaks has had all of them done. */
        while (!io[i].done && ring_get(&ring) == 0)
            ring_enter(ring, ring->pending);
}

/* --- the table ----------------------------------------------------------- */

static bft_status uring_read(struct bfti_file *base, uint64_t offset, void *buf,
                             size_t len, size_t *got)
{
    struct bfti_io io = {.op = BFTI_IO_READ,
                         .file = base,
                         .offset = offset,
                         .buf = buf,
                         .len = len};

    ring_run(&io);
    *got = io.got;
    return io.status;
}

static bft_status uring_write(struct bfti_file *base, uint64_t offset,
                              const void *buf, size_t len)
{
    /* A request has one kind of pointer; the kernel only reads here. */
    union {
        const void *from;
        void *buf;
    } bytes = {.from = buf};
    struct bfti_io io = {.op = BFTI_IO_WRITE,
                         .file = base,
                         .offset = offset,
                         .buf = bytes.buf,
                         .len = len};

    ring_run(&io);
    return io.status;
}

static bft_status uring_submit(struct bfti_vfs *vfs, struct bfti_io **io,
                               size_t n)
{
    struct ring *ring;

    (void)vfs;
    for (size_t i = 0; i < n; i++) {
        if (!io_begin(io[i]))
            continue;
        if (uring_of(io[i]->file)->refusal == 0 && ring_get(&ring) == 0)
            ring_ask(ring, io[i], bfti_posix_of(io[i]->file)->fd);
        else
            finish_plain(io[i], 0);
    }
    if (ring_get(&ring) == 0 && ring->pending > 0)
        ring_enter(ring, 0);
    return BFT_OK;
}

static bft_status uring_reap(struct bfti_vfs *vfs, size_t min)
{
    struct ring *ring = my_ring;
    unsigned left;

    (void)vfs;
    if (ring == NULL || ring->generation != bfti_fork_generation())
        return BFT_OK;
    ring_take(ring);
    /* Of those that are not done yet, so that it is MIN at the least: how many
     * were done at once nobody counts. */
    left = min < ring->pending ? ring->pending - (unsigned)min : 0;
    while (ring->pending > left)
        ring_enter(ring, ring->pending - left);
    return BFT_OK;
}

static bft_status uring_open(struct bfti_vfs *vfs, const char *path, int flags,
                             struct bfti_file **out)
{
    bft_status status =
        bfti_posix_open(vfs, path, flags, sizeof(struct uring_file), out);
    struct ring *ring;

    if (status == BFT_OK)
        uring_of(*out)->refusal = ring_get(&ring);
    return status;
}

static bft_status uring_native(struct bfti_file *base)
{
    const struct uring_file *file = uring_of(base);

    return file->refusal == 0
               ? BFT_OK
               : bfti_posix_fail_native(file->refusal, "io_uring", &file->base);
}

static bool uring_overlaps(struct bfti_file *file)
{
    struct ring *ring;

    return uring_of(file)->refusal == 0 && ring_get(&ring) == 0;
}

static struct bfti_vfs_ops uring_ops; /* [once] written inside pthread_once */

static void prepare(void)
{
    uring_ops = *bfti_vfs_posix()->ops;
    uring_ops.name = "uring";
    uring_ops.open = uring_open;
    uring_ops.read = uring_read;
    uring_ops.write = uring_write;
    uring_ops.submit = uring_submit;
    uring_ops.reap = uring_reap;
    uring_ops.native = uring_native;
    uring_ops.overlaps = uring_overlaps;
    once_error = pthread_key_create(&ring_key, ring_free);
    if (once_error == 0)
        once_error = pthread_atfork(before_fork, after_fork_in_parent,
                                    after_fork_in_child);
}

struct bfti_vfs *bfti_vfs_uring(void)
{
    static struct bfti_vfs vfs = {.ops = &uring_ops};

    (void)pthread_once(&once, prepare);
    return &vfs;
}
