/*
 * What the real file system makes of a system that interrupts, shortens and
 * refuses calls.  The calls are this program's own: a definition here comes
 * before the C library's.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "atfork.h"
#include "fileio/fileio.h"

/* --- a system under orders -------------------------------------------------- */

static struct {
    int refuse_with;   /* errno of the calls below, 0: none is refused */
    unsigned after;    /* calls that succeed first */
    unsigned refusals; /* then this many are refused */
    size_t bytes_max;  /* a transfer moves no more, 0: no limit */
    bool nothing;      /* a write moves nothing and gives no reason */
    unsigned calls;
    unsigned interrupted; /* so many openings are, first */
    /* Called once, when a mapping is there and children get it still. */
    void (*mapped)(void *addr);
    long fs_type;    /* of the file system, 0: as it is */
    uint64_t inodes; /* then that it has */
} orders;

static bool refused(void)
{
    orders.calls++;
    if (orders.refuse_with == 0 || orders.refusals == 0)
        return false;
    if (orders.after > 0) {
        orders.after--;
        return false;
    }
    orders.refusals--;
    errno = orders.refuse_with;
    return true;
}

static size_t shortened(size_t len)
{
    return orders.bytes_max != 0 && len > orders.bytes_max ? orders.bytes_max
                                                           : len;
}

int open(const char *name, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if (orders.interrupted > 0) {
        orders.interrupted--;
        errno = EINTR;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    return refused() ? -1
                     : syscall(SYS_pread64, fd, buf, shortened(len), offset);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    if (orders.nothing)
        return 0;
    return refused() ? -1
                     : syscall(SYS_pwrite64, fd, buf, shortened(len), offset);
}

int fdatasync(int fd)
{
    return refused() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return refused() ? -1 : (int)syscall(SYS_fsync, fd);
}

int ftruncate(int fd, off_t bytes)
{
    return refused() ? -1 : (int)syscall(SYS_ftruncate, fd, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    return refused() ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fstatfs(int fd, struct statfs *fs)
{
    int result = (int)syscall(SYS_fstatfs, fd, fs);

    if (orders.fs_type != 0) {
        fs->f_type = orders.fs_type;
        fs->f_files = orders.inodes;
    }
    return result;
}

int madvise(void *addr, size_t len, int advice)
{
    void (*mapped)(void *addr) = orders.mapped;

    orders.mapped = NULL;
    if (mapped != NULL)
        mapped(addr);
    return (int)syscall(SYS_madvise, addr, len, advice);
}

int fcntl(int fd, int command, ...)
{
    va_list args;
    void *arg;

    va_start(args, command);
    arg = va_arg(args, void *);
    va_end(args);
    return refused() ? -1 : (int)syscall(SYS_fcntl, fd, command, arg);
}

/* --- the file under test ----------------------------------------------------- */

enum { LEN = 10000, EXT4 = 0xef53 };

static const struct bfti_vfs_ops *ops;
static struct bfti_file *file;
static char path[300];
static char bytes[LEN];
static char buf[LEN];

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    ops = bfti_vfs_posix()->ops;
    memset(&orders, 0, sizeof(orders));
    snprintf(path, sizeof(path), "%s/vfs_posix_test_XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    close(mkstemp(path));
    assert_int_equal(BFT_OK, ops->open(bfti_vfs_posix(), path, 0, &file));
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (char)('a' + i % 26);
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    orders.calls = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ops->close(file);
    unlink(path);
    return 0;
}

static void refuse(int error, unsigned after, unsigned times)
{
    orders.refuse_with = error;
    orders.after = after;
    orders.refusals = times;
    orders.calls = 0;
}

static void expect_text(const char *words)
{
    char text[1024];

    bft_last_error(text, sizeof(text));
    if (strstr(text, words) == NULL || strstr(text, path) == NULL)
        fail_msg("\"%s\" does not say %s of %s", text, words, path);
}

/* --- tests ------------------------------------------------------------------ */

#if ATFORK_ORDERS

/* The first one in this process is refused for want of memory. */
static void opening_goes_on_when_there_is_memory(void **state)
{
    struct bfti_file *first;

    (void)state;
    ops = bfti_vfs_posix()->ops;
    snprintf(path, sizeof(path), "/proc/self/exe");
    atfork_refusals = 2;
    assert_int_equal(BFT_NO_MEMORY, ops->open(bfti_vfs_posix(), path,
                                              BFTI_OPEN_READ_ONLY, &first));
    expect_text("open");
    assert_null(first);
    atfork_refusals = 0;
    assert_int_equal(
        BFT_OK, ops->open(bfti_vfs_posix(), path, BFTI_OPEN_READ_ONLY, &first));
    ops->close(first);
}

#endif

static void interrupted_and_short_transfers_are_finished(void **state)
{
    size_t got;
    void *map;

    (void)state;
    orders.bytes_max = 777;
    refuse(EINTR, 3, 4);
    assert_int_equal(BFT_OK, ops->read(file, 0, buf, LEN, &got));
    assert_int_equal(LEN, got);
    assert_memory_equal(bytes, buf, LEN);
    assert_int_equal((LEN + 776) / 777 + 4, orders.calls);
    refuse(EINTR, 3, 4);
    assert_int_equal(BFT_OK, ops->write(file, LEN, bytes, LEN));
    assert_int_equal((LEN + 776) / 777 + 4, orders.calls);
    assert_int_equal(BFT_OK, ops->read(file, LEN, buf, LEN, &got));
    assert_memory_equal(bytes, buf, LEN);
    refuse(EINTR, 0, 2);
    assert_int_equal(BFT_OK, ops->truncate(file, 5));
    refuse(EINTR, 0, 2);
    assert_int_equal(BFT_OK, ops->punch(file, 0, 5));
    refuse(EINTR, 0, 2);
    orders.fs_type = EXT4;
    if (ops->map(file, 5, &map) == BFT_OK)
        ops->unmap(file, map, 5);
    assert_int_equal(0, orders.refusals);
}

/* Of a directory, too: it is not synced then, and the log would be poisoned. */
static void an_interrupted_opening_is_tried_again(void **state)
{
    struct bfti_file *again;

    (void)state;
    orders.interrupted = 2;
    assert_int_equal(BFT_OK, ops->open(bfti_vfs_posix(), path, 0, &again));
    ops->close(again);
    assert_int_equal(0, orders.interrupted);
    orders.interrupted = 2;
    assert_int_equal(BFT_OK, ops->sync_dir(bfti_vfs_posix(), "/tmp"));
    assert_int_equal(0, orders.interrupted);
}

static void a_transfer_that_fails_midway_says_where_and_why(void **state)
{
    size_t got = 1;

    (void)state;
    orders.bytes_max = 1000;
    refuse(ENOSPC, 2, 1);
    assert_int_equal(BFT_NO_SPACE, ops->write(file, 4000, bytes, 5000));
    expect_text("5000 bytes at offset 4000");
    expect_text("No space left");
    refuse(EIO, 2, 1);
    assert_int_equal(BFT_IO, ops->read(file, 4000, buf, 5000, &got));
    assert_int_equal(0, got);
    expect_text("5000 bytes at offset 4000");
    expect_text("Input/output error");
}

static void errors_become_statuses(void **state)
{
    static const struct {
        int error;
        bft_status status;
    } map[] = {
        {ENOSPC, BFT_NO_SPACE},
        {EDQUOT, BFT_NO_SPACE},
        {ENOENT, BFT_NOT_FOUND},
        {EEXIST, BFT_EXISTS},
        {EROFS, BFT_READ_ONLY},
        {EACCES, BFT_READ_ONLY},
        {EPERM, BFT_READ_ONLY},
        {ENOMEM, BFT_NO_MEMORY},
        {EMFILE, BFT_NO_MEMORY},
        {ENFILE, BFT_NO_MEMORY},
        {ENOTDIR, BFT_INVALID},
        {EISDIR, BFT_INVALID},
        {ELOOP, BFT_INVALID},
        {ENAMETOOLONG, BFT_INVALID},
        {EIO, BFT_IO},
        {EBADF, BFT_IO},
        {EOPNOTSUPP, BFT_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        refuse(map[i].error, 0, 1);
        assert_int_equal(map[i].status, ops->write(file, 0, bytes, 1));
        refuse(map[i].error, 0, 1);
        assert_int_equal(map[i].status, ops->truncate(file, 1));
        refuse(map[i].error, 0, 1);
        assert_int_equal(map[i].status, ops->punch(file, 0, 1));
        refuse(map[i].error, 0, 1);
        assert_int_equal(map[i].status, ops->sync(file));
        expect_text("sync");
    }
}

static void a_write_that_moves_nothing_ends(void **state)
{
    (void)state;
    orders.nothing = true;
    assert_int_equal(BFT_IO, ops->write(file, 0, bytes, 10));
    orders.nothing = false;
}

/* A second sync would succeed without the pages that the first one lost. */
static void a_failed_sync_is_not_tried_again(void **state)
{
    static const int errors[] = {EIO, EINTR, ENOSPC};

    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        refuse(errors[i], 0, 1);
        assert_true(ops->sync(file) != BFT_OK);
        assert_int_equal(1, orders.calls);
        refuse(errors[i], 0, 1);
        assert_true(ops->sync_dir(bfti_vfs_posix(), "/tmp") != BFT_OK);
        assert_int_equal(1, orders.calls);
    }
}

static void a_file_system_without_locks_is_named(void **state)
{
    (void)state;
    refuse(EINVAL, 0, 1);
    assert_int_equal(BFT_UNSUPPORTED, ops->lock(file));
    expect_text("no locks");
    refuse(ENOLCK, 0, 1);
    assert_int_equal(BFT_UNSUPPORTED, ops->lock(file));
    refuse(EACCES, 0, 1);
    assert_int_equal(BFT_BUSY, ops->lock(file));
    refuse(EIO, 0, 1);
    assert_int_equal(BFT_IO, ops->lock(file));
    assert_int_equal(BFT_OK, ops->lock(file));
}

/* --- mappings ---------------------------------------------------------------- */

enum { SPARSE = 1 << 20 };

/* As after a copy that left out zeros.  A store there would want a block. */
static void a_hole_is_filled_before_it_is_mapped(void **state)
{
    struct stat stat;
    bft_status status;
    void *map;
    size_t got;

    (void)state;
    assert_int_equal(BFT_OK, ops->truncate(file, SPARSE));
    status = ops->map(file, SPARSE, &map);
    if (status == BFT_UNSUPPORTED) {
        print_message("nothing is mapped here\n");
        return;
    }
    assert_int_equal(BFT_OK, status);
    assert_int_equal(0, lstat(path, &stat));
    assert_int_equal(SPARSE, stat.st_size);
    assert_true(stat.st_blocks * 512 >= SPARSE);
    assert_memory_equal(bytes, map, LEN);
    memset((char *)map + LEN, 'm', LEN);
    assert_int_equal(BFT_OK, ops->read(file, LEN, buf, LEN, &got));
    assert_memory_equal((char *)map + LEN, buf, LEN);
    ops->unmap(file, map, SPARSE);
}

static void what_has_no_blocks_of_its_own_is_not_mapped(void **state)
{
    static const struct {
        int error;
        unsigned asked; /* once whether blocks are shared, and once for all */
        bft_status status;
    } map[] = {
        {ENOSPC, 1, BFT_NO_SPACE},
        {EIO, 1, BFT_IO},
        {EOPNOTSUPP, 2, BFT_UNSUPPORTED},
        {ENOSYS, 1, BFT_UNSUPPORTED},
    };
    void *addr = bytes;

    (void)state;
    orders.fs_type = EXT4;
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        refuse(map[i].error, 0, 2);
        assert_int_equal(map[i].status, ops->map(file, LEN, &addr));
        assert_null(addr);
        assert_int_equal(map[i].asked, orders.calls);
        if (orders.refusals == 1)
            expect_text("10000 bytes at offset 0");
    }
}

static void what_is_copied_on_write_is_not_mapped(void **state)
{
    static const struct {
        long type;
        uint64_t inodes;
    } fs[] = {
        {0x9123683e, 0}, {0xca451a4e, 9}, {0x2fc12fc1, 9},
        {0x3434, 9},     {0x7461636f, 9}, {0x794c7630, 0},
    };
    void *addr = bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(fs) / sizeof(fs[0]); i++) {
        orders.fs_type = fs[i].type;
        orders.inodes = fs[i].inodes;
        assert_int_equal(BFT_UNSUPPORTED, ops->map(file, LEN, &addr));
        assert_null(addr);
        expect_text("copies on write");
    }
    orders.inodes = 9; /* something else is below */
    if (ops->map(file, LEN, &addr) == BFT_OK)
        ops->unmap(file, addr, LEN);
    else
        expect_text("take the blocks");
}

static struct {
    pthread_t thread;
    void *addr;
    int status;
    _Atomic bool ended;
} forked;

static void *fork_and_look(void *arg)
{
    unsigned char resident;
    pid_t child = fork();

    if (child == 0)
        _exit(syscall(SYS_mincore, forked.addr, 1, &resident) == 0);
    if (child < 0 || waitpid(child, &forked.status, 0) != child)
        forked.status = -1;
    atomic_store(&forked.ended, true);
    return arg;
}

/* Let another thread fork now.  If it has to wait for us, so many turns are in
 * vain; if not, they are enough. */
static void let_fork(void *addr)
{
    enum { TURNS = 100000 };

    forked.addr = addr;
    assert_int_equal(0,
                     pthread_create(&forked.thread, NULL, fork_and_look, NULL));
    for (int i = 0; i < TURNS && !atomic_load(&forked.ended); i++)
        (void)sched_yield();
}

static void no_child_gets_a_mapping(void **state)
{
    void *map;

    (void)state;
    orders.mapped = let_fork;
    if (ops->map(file, LEN, &map) != BFT_OK) {
        print_message("nothing is mapped here\n");
        return;
    }
    assert_null(orders.mapped);
    assert_int_equal(0, pthread_join(forked.thread, NULL));
    assert_int_equal(0, forked.status);
    ops->unmap(file, map, LEN);
}

#define POSIX_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
#if ATFORK_ORDERS
        cmocka_unit_test(opening_goes_on_when_there_is_memory), /* first */
#endif
        POSIX_TEST(interrupted_and_short_transfers_are_finished),
        POSIX_TEST(an_interrupted_opening_is_tried_again),
        POSIX_TEST(a_transfer_that_fails_midway_says_where_and_why),
        POSIX_TEST(errors_become_statuses),
        POSIX_TEST(a_write_that_moves_nothing_ends),
        POSIX_TEST(a_failed_sync_is_not_tried_again),
        POSIX_TEST(a_file_system_without_locks_is_named),
        POSIX_TEST(a_hole_is_filled_before_it_is_mapped),
        POSIX_TEST(what_has_no_blocks_of_its_own_is_not_mapped),
        POSIX_TEST(what_is_copied_on_write_is_not_mapped),
        POSIX_TEST(no_child_gets_a_mapping),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
