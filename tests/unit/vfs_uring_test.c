/*
 * The backend "uring" on a kernel that refuses rings, shortens and interrupts
 * what it is asked for, and loses a ring.  liburing's functions are this
 * program's own: a definition here comes before the library's.  What the
 * backend has in common with the others is in vfs_test.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/fileio.h"

enum { LEN = 20000 };

static const struct bfti_vfs_ops *ops;
static struct bfti_file *file;
static char path[300];
static char bytes[LEN];
static char buf[LEN];

static void open_file(void)
{
    assert_int_equal(BFT_OK, ops->open(bfti_vfs_uring(), path, 0, &file));
}

static void expect_refusal(void)
{
    char text[1024];

    assert_int_equal(BFT_UNSUPPORTED, ops->native(file));
    bft_last_error(text, sizeof(text));
    if (strstr(text, path) == NULL || strstr(text, "io_uring") == NULL ||
        strstr(text, "posix") == NULL)
        fail_msg("\"%s\" does not say what becomes of %s", text, path);
}

static void expect_bytes(void)
{
    size_t got;

    memset(buf, 0, LEN);
    assert_int_equal(BFT_OK, ops->read(file, 0, buf, LEN, &got));
    assert_int_equal(LEN, got);
    assert_memory_equal(bytes, buf, LEN);
}

static void begin(void)
{
    const char *tmp = getenv("TMPDIR");

    ops = bfti_vfs_uring()->ops;
    snprintf(path, sizeof(path), "%s/vfs_uring_test_XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    close(mkstemp(path));
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (char)('a' + i % 26);
    open_file();
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
}

static int teardown(void **state)
{
    (void)state;
    ops->close(file);
    unlink(path);
    return 0;
}

#if BFT_WITH_URING

#include <liburing.h>

/* --- a kernel under orders ----------------------------------------------------- */

static struct {
    int refuse_ring;    /* errno of setting one up, or 0 */
    int enter_fails;    /* errno of handing requests over, or 0 */
    int result;         /* less errno of the next requests, or 0 */
    unsigned results;   /* so many of them */
    int bytes_max;      /* a transfer moves no more, 0: no limit */
    unsigned completed; /* looked at here */
    bool no_probe;      /* as before Linux 5.6 */
    int lacks;          /* a request that the kernel has not, or 0 */
    int ring_fd;        /* of the ring that was used last */
    _Atomic int made, freed;
} orders;

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);

    assert_non_null(function);
    return function;
}

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    int (*init)(unsigned, struct io_uring *, unsigned);
    int result;

    if (orders.refuse_ring != 0)
        return -orders.refuse_ring;
    *(void **)&init = real("io_uring_queue_init");
    result = init(entries, ring, flags);
    atomic_fetch_add(&orders.made, result == 0);
    return result;
}

void io_uring_queue_exit(struct io_uring *ring)
{
    void (*leave)(struct io_uring *);

    *(void **)&leave = real("io_uring_queue_exit");
    leave(ring);
    atomic_fetch_add(&orders.freed, 1);
}

int io_uring_register_probe(struct io_uring *ring, struct io_uring_probe *probe,
                            unsigned n)
{
    int (*ask)(struct io_uring *, struct io_uring_probe *, unsigned);
    int result;

    if (orders.no_probe)
        return -EINVAL;
    *(void **)&ask = real("io_uring_register_probe");
    result = ask(ring, probe, n);
    if (orders.lacks != 0)
        probe->ops[orders.lacks].flags = 0;
    return result;
}

/* Change what the kernel put into the queue and nobody has seen yet. */
static void change_results(struct io_uring *ring)
{
    struct io_uring_cq *cq = &ring->cq;

    for (unsigned i = *cq->khead; i != *cq->ktail; i++) {
        struct io_uring_cqe *cqe = &cq->cqes[i & *cq->kring_mask];

        orders.completed++;
        if (orders.bytes_max != 0 && cqe->res > orders.bytes_max)
            cqe->res = orders.bytes_max;
        if (orders.result != 0 && orders.results > 0) {
            orders.results--;
            cqe->res = orders.result;
        }
    }
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    int (*enter)(struct io_uring *, unsigned);
    int result;

    orders.ring_fd = ring->ring_fd;
    if (orders.enter_fails != 0) {
        /* Requests stay where the real one would leave them. */
        if (orders.enter_fails != EINTR)
            return -orders.enter_fails;
        orders.enter_fails = 0;
        return -EINTR;
    }
    *(void **)&enter = real("io_uring_submit_and_wait");
    /* Else the kernel may bring a result when this is over. */
    if (wait == 0 && (orders.bytes_max != 0 || orders.result != 0))
        wait = io_uring_sq_ready(ring);
    result = enter(ring, wait);
    if (orders.bytes_max != 0 || orders.result != 0)
        change_results(ring);
    return result;
}

/* --- fixture -------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    orders.refuse_ring = orders.enter_fails = orders.result = 0;
    orders.bytes_max = orders.lacks = 0;
    orders.no_probe = false;
    orders.results = orders.completed = 0;
    begin();
    if (ops->native(file) != BFT_OK)
        print_message("io_uring is refused here\n");
    return 0;
}

static bool uring_works(void)
{
    return ops->native(file) == BFT_OK;
}

/* Run TEST on a thread of its own, so with a ring of its own. */
static void on_a_thread(void *(*test)(void *arg))
{
    pthread_t thread;

    assert_int_equal(0, pthread_create(&thread, NULL, test, NULL));
    assert_int_equal(0, pthread_join(thread, NULL));
}

static bool same_bytes(void)
{
    char in[LEN];
    size_t got;

    return ops->read(file, 0, in, LEN, &got) == BFT_OK && got == LEN &&
           memcmp(in, bytes, LEN) == 0;
}

/* --- tests ---------------------------------------------------------------------- */

static void interrupted_and_short_transfers_are_finished(void **state)
{
    static const int results[] = {-EINTR, -EAGAIN};

    (void)state;
    if (!uring_works())
        return;
    for (size_t i = 0; i < 2; i++) {
        orders.result = results[i];
        orders.results = 1;
        bytes[i] = 'i';
        assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
        orders.results = 1;
        expect_bytes();
    }
    orders.result = 0;
    orders.bytes_max = 777;
    bytes[5000] = 's';
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    expect_bytes();
    orders.bytes_max = 0;
    orders.enter_fails = EINTR;
    expect_bytes();
    assert_true(orders.completed >= 6);
}

static void errors_become_statuses(void **state)
{
    static const struct {
        int error;
        bft_status status;
    } map[] = {{ENOSPC, BFT_NO_SPACE}, {EIO, BFT_IO}, {EDQUOT, BFT_NO_SPACE}};
    char text[1024];
    size_t got = 1;

    (void)state;
    if (!uring_works())
        return;
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        orders.result = -map[i].error;
        orders.results = 2;
        assert_int_equal(map[i].status, ops->write(file, 7, bytes, 10));
        bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, path));
        assert_non_null(strstr(text, "10 bytes at offset 7"));
        assert_int_equal(map[i].status, ops->read(file, 7, buf, 10, &got));
        assert_int_equal(0, got);
    }
}

/* A second sync would succeed without the pages that the first one lost. */
static void a_failed_sync_is_not_tried_again(void **state)
{
    static const int errors[] = {EIO, EINTR, EAGAIN};
    struct bfti_io sync = {.op = BFTI_IO_SYNC, .file = file};
    struct bfti_io *list[] = {&sync};

    (void)state;
    if (!uring_works())
        return;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        orders.completed = 0;
        orders.result = -errors[i];
        orders.results = 1;
        sync.file = file;
        assert_int_equal(BFT_OK, ops->submit(bfti_vfs_uring(), list, 1));
        assert_int_equal(BFT_OK, ops->reap(bfti_vfs_uring(), 1));
        assert_true(sync.done);
        assert_int_equal(BFT_IO, sync.status);
        assert_int_equal(1, orders.completed);
    }
}

static void *open_and_read(void *arg)
{
    static const int errors[] = {EPERM, ENOSYS, ENOMEM};

    (void)arg;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        ops->close(file);
        orders.refuse_ring = errors[i];
        open_file();
        expect_refusal();
        bytes[i] = 'r';
        assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
        assert_true(same_bytes());
    }
    return NULL;
}

static void a_refused_ring_falls_back_and_says_so(void **state)
{
    (void)state;
    on_a_thread(open_and_read);
    /* The file was opened without one, and stays so. */
    orders.refuse_ring = 0;
    expect_refusal();
    expect_bytes();
}

static void *open_and_read_without_requests(void *arg)
{
    static const int lacks[] = {0, IORING_OP_FSYNC, IORING_OP_READ,
                                IORING_OP_WRITE};

    for (size_t i = 0; i < sizeof(lacks) / sizeof(lacks[0]); i++) {
        ops->close(file);
        orders.no_probe = lacks[i] == 0;
        orders.lacks = lacks[i];
        /* What such a kernel says to each. */
        orders.result = -EINVAL;
        orders.results = UINT32_MAX;
        open_file();
        expect_refusal();
        bytes[i] = 'k';
        assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
        assert_true(same_bytes());
    }
    return arg;
}

/* Linux 5.1 to 5.5 have rings that cannot read. */
static void a_ring_without_the_requests_is_none(void **state)
{
    (void)state;
    on_a_thread(open_and_read_without_requests);
}

static void *write_and_read(void *arg)
{
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    assert_true(same_bytes());
    return arg;
}

static void a_thread_without_a_ring_reads_and_writes(void **state)
{
    (void)state;
    orders.refuse_ring = EMFILE;
    on_a_thread(write_and_read);
}

static void a_ring_goes_with_its_thread(void **state)
{
    int made, freed;

    (void)state;
    if (!uring_works())
        return;
    made = atomic_load(&orders.made);
    freed = atomic_load(&orders.freed);
    for (int i = 0; i < 20; i++)
        on_a_thread(write_and_read);
    made = atomic_load(&orders.made) - made;
    /* Where little memory may be locked, a ring counts for a while after its end,
     * and the next ones are refused. */
    assert_in_range(made, 1, 20);
    assert_int_equal(freed + made, atomic_load(&orders.freed));
}

enum { REQUESTS = 40, PIECE = LEN / REQUESTS };

static void *lose_the_ring(void *arg)
{
    struct bfti_io io[REQUESTS];
    struct bfti_io *list[REQUESTS];

    memset(bytes, 'b', LEN);
    for (size_t i = 0; i < REQUESTS; i++) {
        io[i] = (struct bfti_io){.op = BFTI_IO_WRITE,
                                 .file = file,
                                 .offset = i * PIECE,
                                 .buf = bytes + i * PIECE,
                                 .len = PIECE};
        list[i] = &io[i];
    }
    assert_int_equal(BFT_OK, ops->submit(bfti_vfs_uring(), list, REQUESTS / 2));
    orders.enter_fails = EBADF;
    assert_int_equal(BFT_OK, ops->submit(bfti_vfs_uring(), list + REQUESTS / 2,
                                         REQUESTS / 2));
    assert_int_equal(BFT_OK, ops->reap(bfti_vfs_uring(), REQUESTS));
    for (size_t i = 0; i < REQUESTS; i++)
        assert_true(io[i].done && io[i].status == BFT_OK);
    assert_true(same_bytes());
    orders.enter_fails = 0;
    bytes[1] = 'c';
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    assert_true(same_bytes());
    return arg;
}

static void a_ring_that_breaks_is_replaced_by_plain_calls(void **state)
{
    (void)state;
    if (!uring_works())
        return;
    on_a_thread(lose_the_ring);
    expect_bytes();
}

static unsigned rings_mapped(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[600];
    unsigned found = 0;

    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL)
        found += strstr(line, "[io_uring]") != NULL;
    fclose(maps);
    return found;
}

/* As a daemon does, and then the number is another file's. */
static void *close_the_ring(void *arg)
{
    int *number = arg;

    if (!ops->overlaps(file))
        return NULL;
    assert_true(same_bytes());
    *number = orders.ring_fd;
    close(*number);
    assert_int_equal(*number, open("/dev/null", O_RDONLY));
    assert_true(same_bytes());
    return NULL;
}

static void a_broken_ring_leaves_nothing(void **state)
{
    unsigned before = rings_mapped();
    int number = -1;
    pthread_t thread;

    (void)state;
    assert_int_equal(0, pthread_create(&thread, NULL, close_the_ring, &number));
    assert_int_equal(0, pthread_join(thread, NULL));
    if (number < 0)
        return; /* it had none */
    assert_int_equal(before, rings_mapped());
    assert_int_equal(0, close(number)); /* it is not closed */
    expect_bytes();
}

/* The child's files and rings are its own. */
static void a_child_makes_a_ring_of_its_own(void **state)
{
    pid_t child;
    int result;

    (void)state;
    if (!uring_works())
        return;
    expect_bytes();
    child = fork();
    if (child == 0) {
        int made = atomic_load(&orders.made);
        struct bfti_file *own;
        size_t got = 0;
        int wrong = ops->read(file, 0, buf, 10, &got) != BFT_FORKED;

        wrong |= ops->open(bfti_vfs_uring(), path, 0, &own) != BFT_OK;
        if (wrong == 0) {
            /* As above, it may be refused one. */
            bool has_ring = ops->native(own) == BFT_OK;

            wrong |= ops->read(own, 0, buf, LEN, &got) != BFT_OK;
            wrong |= got != LEN || memcmp(buf, bytes, LEN) != 0;
            wrong |= atomic_load(&orders.made) != made + has_ring;
            ops->close(own);
        }
        _exit(wrong);
    }
    assert_true(child > 0);
    assert_int_equal(child, waitpid(child, &result, 0));
    assert_int_equal(0, result);
    expect_bytes();
}

/* --- what "direct" hands over together ----------------------------------------- */

enum { READS = 50 };

/* READS pieces of the file, of any length and at any offset, past its end too. */
static bool pieces_are_right(struct bfti_file *direct)
{
    static char in[READS][4 * 4096];
    struct bfti_io io[READS];
    struct bfti_io *list[READS];
    bool right = true;

    memset(in, 0, sizeof(in));
    for (size_t i = 0; i < READS; i++) {
        io[i] = (struct bfti_io){.op = BFTI_IO_READ,
                                 .file = direct,
                                 .offset = i * 431,
                                 .buf = in[i],
                                 .len = 1 + i * 300};
        list[i] = &io[i];
    }
    if (direct->ops->submit(bfti_vfs_direct(), list, READS) != BFT_OK ||
        direct->ops->reap(bfti_vfs_direct(), READS) != BFT_OK)
        return false;
    for (size_t i = 0; i < READS; i++) {
        size_t there = io[i].offset < LEN ? LEN - (size_t)io[i].offset : 0;
        size_t want = io[i].len < there ? io[i].len : there;

        right = right && io[i].done && io[i].status == BFT_OK &&
                io[i].got == want &&
                memcmp(in[i], bytes + io[i].offset, want) == 0;
    }
    return right;
}

static void *break_while_reading(void *arg)
{
    orders.enter_fails = EBADF;
    assert_true(pieces_are_right(arg));
    orders.enter_fails = 0;
    assert_true(pieces_are_right(arg));
    return NULL;
}

static void *read_without_a_ring(void *arg)
{
    orders.refuse_ring = EMFILE;
    assert_true(pieces_are_right(arg));
    orders.refuse_ring = 0;
    return NULL;
}

static void with_a_thread(void *(*test)(void *arg), struct bfti_file *direct)
{
    pthread_t thread;

    assert_int_equal(0, pthread_create(&thread, NULL, test, direct));
    assert_int_equal(0, pthread_join(thread, NULL));
}

static void direct_reads_together_what_is_handed_over(void **state)
{
    struct bfti_file *direct;
    bool works;

    (void)state;
    assert_int_equal(BFT_OK,
                     bfti_vfs_direct()->ops->open(bfti_vfs_direct(), path,
                                                  BFTI_OPEN_PAGES, &direct));
    works = uring_works() && direct->ops->native(direct) == BFT_OK;
    if (!works)
        print_message("no reads past the cache, or no io_uring, here\n");
    assert_int_equal(works, direct->ops->overlaps(direct));
    orders.bytes_max = 1 << 30; /* counts */
    orders.completed = 0;
    assert_true(pieces_are_right(direct));
    assert_int_equal(works ? READS : 0, orders.completed);
    /* Interrupted, short, and broken: each by itself then. */
    orders.result = -EINTR;
    orders.results = 3;
    assert_true(pieces_are_right(direct));
    orders.result = -EIO;
    orders.results = 7;
    assert_true(pieces_are_right(direct));
    orders.result = 0;
    orders.bytes_max = 4096;
    assert_true(pieces_are_right(direct));
    orders.bytes_max = 0;
    orders.enter_fails = EINTR;
    assert_true(pieces_are_right(direct));
    orders.enter_fails = 0;
    with_a_thread(break_while_reading, direct);
    with_a_thread(read_without_a_ring, direct);
    assert_true(pieces_are_right(direct));
    direct->ops->close(direct);
}

#define URING_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    URING_TEST(interrupted_and_short_transfers_are_finished),
    URING_TEST(errors_become_statuses),
    URING_TEST(a_failed_sync_is_not_tried_again),
    URING_TEST(a_refused_ring_falls_back_and_says_so),
    URING_TEST(a_ring_without_the_requests_is_none),
    URING_TEST(a_thread_without_a_ring_reads_and_writes),
    URING_TEST(a_ring_goes_with_its_thread),
    URING_TEST(a_ring_that_breaks_is_replaced_by_plain_calls),
    URING_TEST(a_broken_ring_leaves_nothing),
    URING_TEST(a_child_makes_a_ring_of_its_own),
    URING_TEST(direct_reads_together_what_is_handed_over),
};

#else

static int setup(void **state)
{
    (void)state;
    begin();
    return 0;
}

static void a_build_without_io_uring_says_so(void **state)
{
    (void)state;
    expect_refusal();
    expect_bytes();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(a_build_without_io_uring_says_so, setup,
                                    teardown),
};

#endif

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
