/*
 * The backend "direct" on a system that interrupts, shortens and refuses direct
 * transfers.  The calls are this program's own: a definition here comes before
 * the C library's.  What it has in common with the others is in vfs_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/fileio.h"

enum { BLOCK = 4096, LEN = 100 * BLOCK };

/* --- a system under orders --------------------------------------------------- */

static struct {
    int refuse_open; /* errno of an open() with O_DIRECT, or 0 */
    int refuse_with; /* errno of direct transfers, or 0 */
    unsigned after;  /* that succeed first */
    unsigned refusals;
    size_t bytes_max; /* a direct transfer moves no more, 0: no limit */
    unsigned direct;  /* direct transfers that were asked for */
    unsigned cached;  /* and others */
} orders;

static bool is_direct(int fd)
{
    bool direct = (syscall(SYS_fcntl, fd, F_GETFL) & O_DIRECT) != 0;

    *(direct ? &orders.direct : &orders.cached) += 1;
    return direct;
}

static bool refused(void)
{
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

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    if (is_direct(fd)) {
        if (refused())
            return -1;
        len = shortened(len);
    }
    return syscall(SYS_pread64, fd, buf, len, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    if (is_direct(fd)) {
        if (refused())
            return -1;
        len = shortened(len);
    }
    return syscall(SYS_pwrite64, fd, buf, len, offset);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if ((flags & O_DIRECT) != 0 && orders.refuse_open != 0) {
        errno = orders.refuse_open;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* --- the file under test ------------------------------------------------------ */

static const struct bfti_vfs_ops *ops;
static struct bfti_file *file;
static char path[300];
static char bytes[LEN];
static char buf[LEN];

static void open_file(int flags)
{
    assert_int_equal(BFT_OK, ops->open(bfti_vfs_direct(), path, flags, &file));
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    ops = bfti_vfs_direct()->ops;
    memset(&orders, 0, sizeof(orders));
    snprintf(path, sizeof(path), "%s/vfs_direct_test_XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    close(mkstemp(path));
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (char)('a' + i % 26);
    open_file(BFTI_OPEN_PAGES);
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    /* Where the build's disk takes none, the others have nothing to show. */
    if (ops->native(file) != BFT_OK)
        print_message("O_DIRECT is refused under %s\n", path);
    orders.direct = orders.cached = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ops->close(file);
    unlink(path);
    return 0;
}

static bool direct_works(void)
{
    return ops->native(file) == BFT_OK;
}

static void expect_bytes(void)
{
    size_t got;

    memset(buf, 0, LEN);
    assert_int_equal(BFT_OK, ops->read(file, 0, buf, LEN, &got));
    assert_int_equal(LEN, got);
    assert_memory_equal(bytes, buf, LEN);
}

static void expect_refusal(void)
{
    char text[1024];

    assert_int_equal(BFT_UNSUPPORTED, ops->native(file));
    bft_last_error(text, sizeof(text));
    if (strstr(text, path) == NULL || strstr(text, "O_DIRECT") == NULL ||
        strstr(text, "posix") == NULL)
        fail_msg("\"%s\" does not say what becomes of %s", text, path);
}

/* --- tests --------------------------------------------------------------------- */

static void whole_blocks_go_past_the_cache(void **state)
{
    size_t got;

    (void)state;
    if (!direct_works())
        return;
    expect_bytes();
    assert_int_equal(BFT_OK, ops->write(file, BLOCK, bytes + BLOCK, 3 * BLOCK));
    assert_int_equal(BFT_OK, ops->read(file, 512, buf, 512, &got));
    assert_memory_equal(bytes + 512, buf, 512);
    assert_int_equal(0, orders.cached);
    assert_true(orders.direct >= 3);
}

static void parts_of_blocks_are_written_through_the_cache(void **state)
{
    (void)state;
    if (!direct_works())
        return;
    memcpy(bytes + 100, "part", 4);
    assert_int_equal(BFT_OK, ops->write(file, 100, bytes + 100, 4));
    assert_int_equal(1, orders.cached);
    assert_int_equal(0, orders.direct);
    expect_bytes();
    assert_int_equal(1, orders.cached);
}

static void files_of_other_kinds_are_left_to_the_cache(void **state)
{
    (void)state;
    ops->close(file);
    open_file(0);
    expect_bytes();
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    assert_int_equal(0, orders.direct);
    assert_int_equal(BFT_OK, ops->native(file));
}

static void interrupted_and_short_transfers_are_finished(void **state)
{
    (void)state;
    if (!direct_works())
        return;
    for (size_t max = 512; max <= 5 * BLOCK; max += 1536) {
        orders.bytes_max = max;
        orders.refuse_with = EINTR;
        orders.after = 1;
        orders.refusals = 3;
        memset(bytes + max, 'x', 2 * BLOCK);
        assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
        orders.refusals = 3;
        expect_bytes();
    }
    assert_int_equal(BFT_OK, ops->native(file));
}

static void a_refused_open_falls_back_and_says_so(void **state)
{
    static const int errors[] = {EINVAL, EOPNOTSUPP, EMFILE};

    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        ops->close(file);
        orders.refuse_open = errors[i];
        open_file(BFTI_OPEN_PAGES);
        expect_refusal();
        orders.direct = 0;
        bytes[i] = 'o';
        assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
        expect_bytes();
        assert_int_equal(BFT_OK, ops->sync(file));
        assert_int_equal(0, orders.direct);
    }
}

static void a_refused_transfer_falls_back_and_says_so(void **state)
{
    (void)state;
    if (!direct_works())
        return;
    orders.refuse_with = EINVAL;
    orders.refusals = 1;
    orders.after = 1;
    memset(bytes, 'r', LEN);
    assert_int_equal(BFT_OK, ops->write(file, 0, bytes, LEN));
    expect_refusal();
    expect_bytes();
    ops->close(file);
    open_file(BFTI_OPEN_PAGES);
    orders.refusals = 1;
    expect_bytes();
    expect_refusal();
    orders.direct = 0;
    expect_bytes();
    assert_int_equal(0, orders.direct);
}

static void a_transfer_that_fails_is_a_failure(void **state)
{
    char text[1024];
    size_t got = 1;

    (void)state;
    if (!direct_works())
        return;
    orders.refuse_with = ENOSPC;
    orders.refusals = 1;
    assert_int_equal(BFT_NO_SPACE, ops->write(file, 0, bytes, LEN));
    orders.refuse_with = EIO;
    orders.refusals = 1;
    assert_int_equal(BFT_IO, ops->read(file, BLOCK, buf, BLOCK, &got));
    assert_int_equal(0, got);
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, "at offset 4096"));
    assert_int_equal(BFT_OK, ops->native(file));
    expect_bytes();
}

/* The second descriptor is closed in the child, too. */
static void a_child_has_no_descriptor_of_it(void **state)
{
    bool works = direct_works();
    pid_t child;
    int result;

    (void)state;
    child = fork();
    if (child == 0) {
        char name[64];
        char target[300];
        size_t got;
        int wrong = ops->read(file, 0, buf, BLOCK, &got) != BFT_FORKED ||
                    ops->write(file, 0, bytes, BLOCK) != BFT_FORKED;

        for (int fd = 0; fd < 256; fd++) {
            ssize_t n;

            snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
            n = readlink(name, target, sizeof(target) - 1);
            target[n > 0 ? n : 0] = 0;
            wrong |= strcmp(target, path) == 0;
        }
        ops->close(file);
        _exit(wrong);
    }
    assert_true(child > 0);
    assert_int_equal(child, waitpid(child, &result, 0));
    assert_int_equal(0, result);
    assert_true(works == direct_works());
    expect_bytes();
}

#define DIRECT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        DIRECT_TEST(whole_blocks_go_past_the_cache),
        DIRECT_TEST(parts_of_blocks_are_written_through_the_cache),
        DIRECT_TEST(files_of_other_kinds_are_left_to_the_cache),
        DIRECT_TEST(interrupted_and_short_transfers_are_finished),
        DIRECT_TEST(a_refused_open_falls_back_and_says_so),
        DIRECT_TEST(a_refused_transfer_falls_back_and_says_so),
        DIRECT_TEST(a_transfer_that_fails_is_a_failure),
        DIRECT_TEST(a_child_has_no_descriptor_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
