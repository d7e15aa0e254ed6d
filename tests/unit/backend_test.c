/*
 * The backend as an option: which it is, for whom, and what a caller is told
 * when the system refuses it.  open() and liburing's way in are this program's
 * own, so that both can be refused.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine_fixture.h"

static const bft_backend backends[] = {BFT_BACKEND_POSIX, BFT_BACKEND_DIRECT,
                                       BFT_BACKEND_URING};
enum { BACKENDS = 3, RECORDS = 500 };

/* --- a system that may refuse ------------------------------------------------- */

static bool refusing;

int open(const char *path, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if (refusing && (flags & O_DIRECT) != 0) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#if BFT_WITH_URING
#include <liburing.h>

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    int (*init)(unsigned, struct io_uring *, unsigned);

    if (refusing)
        return -EPERM;
    *(void **)&init = dlsym(RTLD_NEXT, "io_uring_queue_init");
    assert_non_null((void *)(uintptr_t)init);
    return init(entries, ring, flags);
}
#endif

/* --- a directory, and databases in it ------------------------------------------ */

struct fixture {
    struct engine_fixture *dir; /* for its directory; never opened */
    bft_options options;
    unsigned reports;
    char text[400];
};

static void report(void *ctx, bft_status status, const char *text)
{
    struct fixture *f = ctx;

    assert_int_equal(BFT_UNSUPPORTED, status);
    f->reports++;
    snprintf(f->text, sizeof(f->text), "%s", text);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    refusing = false;
    f->dir = engine_fixture_make(ENGINE_POSIX);
    f->options = (bft_options){.size = sizeof(f->options),
                               .memory_bytes = 256 << 10,
                               .report = report,
                               .report_ctx = f};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    engine_fixture_free(f->dir);
    free(f);
    return 0;
}

static bft_status try_open(struct fixture *f, bft_backend backend, bft_db **db)
{
    f->options.backend = backend;
    return bft_open(f->dir->path, &f->options, db);
}

static bft_db *open_db(struct fixture *f, bft_backend backend)
{
    bft_db *db = NULL;

    expect_ok(try_open(f, backend, &db));
    return db;
}

/* Records [FROM, TO) with values that say who wrote them. */
static void put_some(bft_db *db, uint32_t from, uint32_t to)
{
    char value[3000];
    bft_tree *tree;

    memset(value, 'v', sizeof(value));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    for (uint32_t i = from; i < to; i++) {
        memcpy(value, &i, sizeof(i));
        expect_ok(bft_put(tree, (bft_slice){&i, sizeof(i)},
                          (bft_slice){value, sizeof(i) + i * 7 % 2900}));
    }
}

static void expect_some(bft_db *db, uint32_t to)
{
    char value[3000];
    bft_tree *tree;
    size_t len;

    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    for (uint32_t i = 0; i < to; i++) {
        expect_ok(bft_get(tree, (bft_slice){&i, sizeof(i)}, value,
                          sizeof(value), &len));
        assert_int_equal(sizeof(i) + i * 7 % 2900, len);
        assert_memory_equal(&i, value, sizeof(i));
    }
    expect_ok(bft_verify(db));
}

/* --- tests ----------------------------------------------------------------------- */

static void each_backend_opens_what_the_others_wrote(void **state)
{
    struct fixture *f = *state;
    uint32_t written = 0;

    for (int i = 0; i < 3 * BACKENDS; i++) {
        /* Each after each other one, and after itself. */
        bft_db *db = open_db(f, backends[(i * i + i / 3) % BACKENDS]);

        expect_some(db, written);
        put_some(db, written, written + RECORDS);
        written += RECORDS;
        expect_some(db, written);
        expect_ok(bft_close(db));
    }
}

static void an_open_database_keeps_its_backend(void **state)
{
    struct fixture *f = *state;
    char text[400];
    bft_db *other;

    for (int i = 0; i < BACKENDS; i++) {
        bft_db *db = open_db(f, backends[i]);

        for (int j = 0; j < BACKENDS; j++) {
            if (i == j) {
                expect_ok(try_open(f, backends[j], &other));
                expect_ok(bft_close(other));
                continue;
            }
            expect_status(BFT_INVALID, try_open(f, backends[j], &other));
            bft_last_error(text, sizeof(text));
            assert_non_null(strstr(text, "option backend"));
        }
        /* Whoever asks for none has what there is. */
        expect_ok(try_open(f, BFT_BACKEND_DEFAULT, &other));
        expect_ok(bft_close(other));
        expect_ok(bft_open(f->dir->path, NULL, &other));
        expect_ok(bft_close(other));
        expect_ok(bft_close(db));
    }
}

/* A caller that was compiled when the struct ended before the backend. */
static void a_shorter_struct_asks_for_the_default(void **state)
{
    struct fixture *f = *state;
    bft_db *db, *other;

    f->options.size = offsetof(bft_options, backend);
    expect_ok(try_open(f, (bft_backend)77, &db));
    f->options.size = sizeof(f->options);
    expect_ok(try_open(f, BFT_BACKEND_POSIX, &other));
    expect_ok(bft_close(other));
    f->options.size = offsetof(bft_options, backend);
    expect_ok(try_open(f, (bft_backend)77, &other));
    expect_ok(bft_close(other));
    expect_ok(bft_close(db));
    f->options.size = offsetof(bft_options, internal);
    expect_status(BFT_INVALID, try_open(f, BFT_BACKEND_POSIX, &db));
}

static void an_unknown_backend_is_named(void **state)
{
    struct fixture *f = *state;
    char text[400];
    bft_db *db;

    expect_status(BFT_INVALID, try_open(f, (bft_backend)4, &db));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "option backend"));
}

static void a_refused_backend_is_reported_and_does_without(void **state)
{
    static const char *const what[] = {"", "O_DIRECT", "io_uring"};
    struct fixture *f = *state;

    refusing = true;
    for (int i = 0; i < BACKENDS; i++) {
        bft_db *db;

        f->reports = 0;
        /* Made under a refusal, and found under one. */
        for (int round = 0; round < 2; round++) {
            f->options.no_threads = round == 1;
            db = open_db(f, backends[i]);
            put_some(db, 0, RECORDS);
            expect_some(db, RECORDS);
            expect_ok(bft_close(db));
        }
        assert_int_equal(i == 0 ? 0 : 2, f->reports);
        if (i == 0)
            continue;
        assert_non_null(strstr(f->text, what[i]));
        assert_non_null(strstr(f->text, f->dir->path));
        assert_non_null(strstr(f->text, "posix"));
    }
    f->options.report = NULL;
    expect_ok(bft_close(open_db(f, BFT_BACKEND_DIRECT)));
}

static uint64_t given_bytes(const struct fixture *f)
{
    struct stat data;
    char path[600];

    snprintf(path, sizeof(path), "%s/data", f->dir->path);
    assert_int_equal(0, stat(path, &data));
    return (uint64_t)data.st_blocks * 512;
}

static bool has_holes(const struct fixture *f)
{
    static const char block[1 << 16];
    char path[600];
    int fd;
    bool made;

    snprintf(path, sizeof(path), "%s.holes", f->dir->path);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sizeof(block), write(fd, block, sizeof(block)));
    made = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                     sizeof(block)) == 0;
    close(fd);
    unlink(path);
    return made;
}

/* What is deleted is given back, though the file goes on behind it. */
static void each_backend_gives_space_back(void **state)
{
    struct fixture *f = *state;
    enum { MANY = 6000, LEFT = 16, ROUNDS = 200 };

    if (!has_holes(f))
        skip();
    f->options.no_threads = true;
    for (int i = 0; i < BACKENDS; i++) {
        bft_stats stats = {.size = sizeof(stats)};
        bft_db *db = open_db(f, backends[i]);
        bft_tree *tree;

        put_some(db, 0, MANY);
        expect_ok(bft_tree_open(db, "t", NULL, &tree));
        for (uint32_t key = 0; key < MANY; key++)
            if (key % LEFT != 0)
                expect_ok(bft_delete(tree, (bft_slice){&key, sizeof(key)}));
        for (int round = 0; round < ROUNDS; round++) {
            expect_ok(bft_checkpoint(db)); /* and a step of the background: */
            put_some(db, 0, 1);
            expect_ok(bft_sync(db));
        }
        expect_ok(bft_stats_read(db, &stats));
        assert_true(stats.hole_bytes > 0);
        assert_true(given_bytes(f) <= stats.live_bytes + stats.live_bytes / 2 +
                                          stats.held_bytes + (2 << 20));
        expect_ok(bft_close(db));
        db = open_db(f, backends[i]);
        put_some(db, 0, MANY);
        expect_some(db, MANY);
        expect_ok(bft_close(db));
    }
}

#define BACKEND_TEST(name) \
    cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    /* The refusals first: a thread that has a ring keeps it. */
    static const struct CMUnitTest tests[] = {
        BACKEND_TEST(a_refused_backend_is_reported_and_does_without),
        BACKEND_TEST(each_backend_opens_what_the_others_wrote),
        BACKEND_TEST(an_open_database_keeps_its_backend),
        BACKEND_TEST(a_shorter_struct_asks_for_the_default),
        BACKEND_TEST(an_unknown_backend_is_named),
        BACKEND_TEST(each_backend_gives_space_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
