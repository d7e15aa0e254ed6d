/*
 * What every backend owes its callers, asked of each of them in turn through
 * the table of functions.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/fileio.h"
#include "fileio/vfs_memory.h"
#include "fileio/vfs_sim.h"
#include "random.h"

enum backend { POSIX, DIRECT, URING, MEMORY, SIM };

static enum backend backend;

struct fixture {
    struct bfti_vfs *vfs;
    const struct bfti_vfs_ops *ops;
    char dir[256];
    char path[8][300]; /* of path_of(), by turns */
    size_t turn;
};

/* Are its files the machine's? */
static bool is_real(void)
{
    return backend == POSIX || backend == DIRECT || backend == URING;
}

static struct bfti_vfs *make_vfs(void)
{
    struct bfti_vfs *vfs = NULL;

    switch (backend) {
    case POSIX:
        return bfti_vfs_posix();
    case DIRECT:
        return bfti_vfs_direct();
    case URING:
        return bfti_vfs_uring();
    case MEMORY:
        return bfti_vfs_memory_create(bfti_env_system());
    case SIM:
        vfs = bfti_vfs_sim_create(bfti_env_system(), 1);
        bfti_sim_set_map(vfs, true);
    }
    return vfs;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/db");
    if (is_real()) {
        snprintf(f->dir, sizeof(f->dir), "%s/vfs_test_XXXXXX",
                 tmp != NULL ? tmp : "/tmp");
        assert_non_null(mkdtemp(f->dir));
    }
    f->vfs = make_vfs();
    assert_non_null(f->vfs);
    f->ops = f->vfs->ops;
    if (!is_real())
        assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[300];

    if (is_real()) {
        snprintf(command, sizeof(command), "rm -r '%s'", f->dir);
        assert_int_equal(0, system(command));
    } else if (backend == MEMORY) {
        bfti_vfs_memory_destroy(f->vfs);
    } else {
        bfti_vfs_sim_destroy(f->vfs);
    }
    free(f);
    return 0;
}

/* --- helpers ------------------------------------------------------------- */

/* NAME in the fixture's directory; good for the next seven calls. */
static const char *path_of(struct fixture *f, const char *name)
{
    char *path = f->path[f->turn++ % 8];

    snprintf(path, sizeof(f->path[0]), "%s/%s", f->dir, name);
    return path;
}

static struct bfti_file *open_with(struct fixture *f, const char *name,
                                   int flags)
{
    struct bfti_file *file;

    /* Every file is one of pages: where that is no hint, all the same. */
    assert_int_equal(BFT_OK, f->ops->open(f->vfs, path_of(f, name),
                                          flags | BFTI_OPEN_PAGES, &file));
    assert_non_null(file);
    assert_ptr_equal(f->ops, file->ops);
    return file;
}

static struct bfti_file *create(struct fixture *f, const char *name)
{
    return open_with(f, name, BFTI_OPEN_CREATE);
}

static bft_status open_status(struct fixture *f, const char *name, int flags)
{
    struct bfti_file *file;
    bft_status status = f->ops->open(f->vfs, path_of(f, name), flags, &file);

    if (status == BFT_OK)
        f->ops->close(file);
    else
        assert_null(file);
    return status;
}

static void write_text(struct fixture *f, struct bfti_file *file,
                       uint64_t offset, const char *text)
{
    assert_int_equal(BFT_OK, f->ops->write(file, offset, text, strlen(text)));
}

static void expect_text(struct fixture *f, struct bfti_file *file,
                        uint64_t offset, const char *text)
{
    char buf[256] = {0};
    size_t got;

    assert_int_equal(BFT_OK,
                     f->ops->read(file, offset, buf, strlen(text), &got));
    assert_int_equal(strlen(text), got);
    assert_string_equal(text, buf);
}

static void expect_zeros(struct fixture *f, struct bfti_file *file,
                         uint64_t offset, size_t len)
{
    unsigned char *buf = malloc(len);
    size_t got;

    assert_non_null(buf);
    memset(buf, 0xee, len);
    assert_int_equal(BFT_OK, f->ops->read(file, offset, buf, len, &got));
    assert_int_equal(len, got);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(0, buf[i]);
    free(buf);
}

static void expect_size(struct fixture *f, struct bfti_file *file,
                        uint64_t bytes)
{
    uint64_t size;

    assert_int_equal(BFT_OK, f->ops->size(file, &size));
    assert_int_equal(bytes, size);
}

static void make_file(struct fixture *f, const char *name, const char *text)
{
    struct bfti_file *file = create(f, name);

    write_text(f, file, 0, text);
    f->ops->close(file);
}

static void expect_file(struct fixture *f, const char *name, const char *text)
{
    struct bfti_file *file = open_with(f, name, BFTI_OPEN_READ_ONLY);

    expect_size(f, file, strlen(text));
    expect_text(f, file, 0, text);
    f->ops->close(file);
}

/* The text of the last failure names NAME. */
static void expect_error_names(const char *name)
{
    char text[1024];

    assert_true(bft_last_error(text, sizeof(text)) > 0);
    if (strstr(text, name) == NULL)
        fail_msg("\"%s\" does not name %s", text, name);
}

/* --- bytes --------------------------------------------------------------- */

static void what_is_written_is_read(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");

    expect_size(f, file, 0);
    write_text(f, file, 0, "hello world");
    write_text(f, file, 6, "there");
    expect_text(f, file, 0, "hello there");
    expect_size(f, file, 11);
    assert_int_equal(BFT_OK, f->ops->write(file, 100, "", 0));
    expect_size(f, file, 11);
    f->ops->close(file);
    expect_file(f, "a", "hello there");
}

static void a_read_stops_only_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    char buf[16];
    size_t got;

    write_text(f, file, 0, "0123456789");
    assert_int_equal(BFT_OK, f->ops->read(file, 7, buf, 16, &got));
    assert_int_equal(3, got);
    assert_memory_equal("789", buf, 3);
    assert_int_equal(BFT_OK, f->ops->read(file, 10, buf, 16, &got));
    assert_int_equal(0, got);
    assert_int_equal(BFT_OK, f->ops->read(file, 1u << 30, buf, 16, &got));
    assert_int_equal(0, got);
    assert_int_equal(BFT_OK, f->ops->read(file, 0, buf, 0, &got));
    assert_int_equal(0, got);
    f->ops->close(file);
}

static void a_write_beyond_the_end_leaves_zeros(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");

    write_text(f, file, 0, "front");
    write_text(f, file, 100000, "back");
    expect_size(f, file, 100004);
    expect_zeros(f, file, 5, 100000 - 5);
    expect_text(f, file, 100000, "back");
    f->ops->close(file);
}

static void a_gibibyte_is_a_size_like_any_other(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    uint64_t end = (uint64_t)1 << 30;

    write_text(f, file, end - 2, "last");
    expect_size(f, file, end + 2);
    expect_text(f, file, end - 2, "last");
    expect_zeros(f, file, end / 2, 100);
    f->ops->close(file);
}

static void cut_bytes_do_not_come_back(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");

    write_text(f, file, 0, "0123456789");
    write_text(f, file, 50000, "far");
    assert_int_equal(BFT_OK, f->ops->truncate(file, 4));
    expect_size(f, file, 4);
    assert_int_equal(BFT_OK, f->ops->truncate(file, 60000));
    expect_size(f, file, 60000);
    expect_text(f, file, 0, "0123");
    expect_zeros(f, file, 4, 60000 - 4);
    assert_int_equal(BFT_OK, f->ops->truncate(file, 0));
    expect_size(f, file, 0);
    f->ops->close(file);
}

static void a_hole_reads_as_zeros_and_keeps_the_size(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    char block[4096];

    memset(block, 'x', sizeof(block));
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(BFT_OK, f->ops->write(file, i * 4096, block, 4096));
    assert_int_equal(BFT_OK, f->ops->punch(file, 4096, (uint64_t)4096 * 9));
    expect_zeros(f, file, 4096, (size_t)4096 * 9);
    expect_text(f, file, 4093, "xxx");
    expect_text(f, file, (uint64_t)4096 * 10, "xxx");
    assert_int_equal(BFT_OK, f->ops->punch(file, 4096 * 15 + 7, 10));
    expect_text(f, file, 4096 * 15 + 5, "xx");
    expect_zeros(f, file, 4096 * 15 + 7, 10);
    expect_text(f, file, 4096 * 15 + 17, "xx");
    assert_int_equal(BFT_OK,
                     f->ops->punch(file, (uint64_t)4096 * 18, 1u << 20));
    expect_zeros(f, file, (uint64_t)4096 * 18, (size_t)4096 * 2);
    expect_size(f, file, (uint64_t)4096 * 20);
    f->ops->close(file);
}

static void offsets_that_no_file_has_are_refused(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    char buf[8] = {0};
    size_t got;

    assert_int_equal(BFT_INVALID,
                     f->ops->write(file, UINT64_MAX, buf, sizeof(buf)));
    expect_error_names("/a");
    assert_int_equal(BFT_INVALID,
                     f->ops->write(file, INT64_MAX - 3, buf, sizeof(buf)));
    assert_int_equal(BFT_INVALID, f->ops->read(file, UINT64_MAX - 3, buf,
                                               sizeof(buf), &got));
    assert_int_equal(BFT_INVALID, f->ops->truncate(file, UINT64_MAX));
    assert_int_equal(BFT_INVALID, f->ops->punch(file, 0, UINT64_MAX));
    expect_size(f, file, 0);
    f->ops->close(file);
}

static void two_handles_see_one_file(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *one = create(f, "a");
    struct bfti_file *two = create(f, "a");

    write_text(f, one, 0, "from one");
    expect_text(f, two, 0, "from one");
    write_text(f, two, 5, "two");
    expect_text(f, one, 0, "from two");
    f->ops->close(one);
    expect_text(f, two, 0, "from two");
    f->ops->close(two);
}

static void sync_succeeds_on_any_open_file(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");

    assert_int_equal(BFT_OK, f->ops->sync(file));
    write_text(f, file, 0, "bytes");
    assert_int_equal(BFT_OK, f->ops->sync(file));
    f->ops->close(file);
    file = open_with(f, "a", BFTI_OPEN_READ_ONLY);
    assert_int_equal(BFT_OK, f->ops->sync(file));
    f->ops->close(file);
}

/* Random writes, cuts and holes, against a plain array. */
static void random_changes_match_a_plain_array(void **state)
{
    enum { LEN_MAX = 200000, WRITE_MAX = 40000, ROUNDS = 400 };
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    unsigned char *model = calloc(1, LEN_MAX);
    unsigned char *buf = malloc(LEN_MAX);
    size_t size = 0;
    size_t got;

    assert_non_null(model);
    assert_non_null(buf);
    random_start();
    for (int i = 0; i < ROUNDS; i++) {
        size_t at = random_below(LEN_MAX);
        size_t len = random_below(WRITE_MAX);

        /* Whole blocks and parts of them go different ways in some. */
        if (random_below(2) == 0)
            at -= at % 4096;
        if (random_below(2) == 0)
            len -= len % 4096;
        len = at + len > LEN_MAX ? LEN_MAX - at : len;
        switch (random_below(8)) {
        case 0:
            assert_int_equal(BFT_OK, f->ops->truncate(file, at));
            if (at < size)
                memset(model + at, 0, size - at);
            size = at;
            break;
        case 1:
            assert_int_equal(BFT_OK, f->ops->punch(file, at, len));
            memset(model + at, 0, len);
            break;
        case 2:
            assert_int_equal(BFT_OK, f->ops->sync(file));
            break;
        default:
            random_bytes(buf, len);
            assert_int_equal(BFT_OK, f->ops->write(file, at, buf, len));
            memcpy(model + at, buf, len);
            if (len > 0 && at + len > size)
                size = at + len;
        }
        expect_size(f, file, size);
        assert_int_equal(BFT_OK, f->ops->read(file, 0, buf, LEN_MAX, &got));
        assert_int_equal(size, got);
        assert_memory_equal(model, buf, size);
    }
    free(buf);
    free(model);
    f->ops->close(file);
}

/* --- opening -------------------------------------------------------------- */

static void open_does_what_its_flags_say(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(BFT_NOT_FOUND, open_status(f, "a", 0));
    expect_error_names("/a");
    assert_int_equal(BFT_NOT_FOUND, open_status(f, "a", BFTI_OPEN_READ_ONLY));
    assert_int_equal(
        BFT_OK, open_status(f, "a", BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE));
    make_file(f, "a", "kept");
    assert_int_equal(
        BFT_EXISTS,
        open_status(f, "a", BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE));
    expect_error_names("/a");
    assert_int_equal(BFT_OK, open_status(f, "a", BFTI_OPEN_CREATE));
    assert_int_equal(BFT_OK, open_status(f, "a", 0));
    expect_file(f, "a", "kept");
    assert_int_equal(
        BFT_INVALID,
        open_status(f, "a", BFTI_OPEN_CREATE | BFTI_OPEN_READ_ONLY));
    assert_int_equal(BFT_INVALID, open_status(f, "a", BFTI_OPEN_EXCLUSIVE));
}

static void open_takes_only_files(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "dir")));
    make_file(f, "file", "x");
    assert_int_equal(BFT_INVALID, open_status(f, "dir", 0));
    assert_int_equal(BFT_INVALID, open_status(f, "dir", BFTI_OPEN_READ_ONLY));
    assert_int_equal(BFT_INVALID, open_status(f, "dir", BFTI_OPEN_CREATE));
    assert_int_equal(BFT_INVALID,
                     open_status(f, "file/inside", BFTI_OPEN_CREATE));
    assert_int_equal(BFT_NOT_FOUND,
                     open_status(f, "missing/inside", BFTI_OPEN_CREATE));
    if (is_real()) {
        assert_int_equal(0, mkfifo(path_of(f, "pipe"), 0600));
        assert_int_equal(BFT_INVALID, open_status(f, "pipe", 0));
        assert_int_equal(BFT_INVALID,
                         open_status(f, "pipe", BFTI_OPEN_READ_ONLY));
    }
}

static void a_file_open_for_reading_refuses_changes(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file;

    make_file(f, "a", "as it was");
    file = open_with(f, "a", BFTI_OPEN_READ_ONLY);
    assert_int_equal(BFT_READ_ONLY, f->ops->write(file, 0, "x", 1));
    expect_error_names("/a");
    assert_int_equal(BFT_READ_ONLY, f->ops->truncate(file, 0));
    assert_int_equal(BFT_READ_ONLY, f->ops->punch(file, 0, 4));
    assert_int_equal(BFT_READ_ONLY, f->ops->lock(file));
    f->ops->close(file);
    expect_file(f, "a", "as it was");
}

static void one_handle_at_a_time_holds_the_lock(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *one = create(f, "lock");
    struct bfti_file *two = create(f, "lock");
    struct bfti_file *three = create(f, "lock");

    assert_int_equal(BFT_OK, f->ops->lock(one));
    assert_int_equal(BFT_OK, f->ops->lock(one));
    assert_int_equal(BFT_BUSY, f->ops->lock(two));
    expect_error_names("/lock");
    /* A process's own lock would be lost by closing any of its handles. */
    f->ops->close(three);
    assert_int_equal(BFT_BUSY, f->ops->lock(two));
    f->ops->close(one);
    assert_int_equal(BFT_OK, f->ops->lock(two));
    f->ops->close(two);
}

/* --- names ---------------------------------------------------------------- */

static void every_name_of_a_file_has_one_identity(void **state)
{
    struct fixture *f = *state;
    uint64_t device[3];
    uint64_t inode[3];

    make_file(f, "a", "x");
    make_file(f, "b", "x");
    assert_int_equal(BFT_OK, f->ops->identify(f->vfs, path_of(f, "a"),
                                              &device[0], &inode[0]));
    assert_int_equal(BFT_OK, f->ops->identify(f->vfs, path_of(f, ".//./a"),
                                              &device[1], &inode[1]));
    assert_int_equal(BFT_OK, f->ops->identify(f->vfs, path_of(f, "b"),
                                              &device[2], &inode[2]));
    assert_int_equal(device[0], device[1]);
    assert_int_equal(inode[0], inode[1]);
    assert_int_not_equal(inode[0], inode[2]);
    assert_int_equal(BFT_OK,
                     f->ops->rename(f->vfs, path_of(f, "a"), path_of(f, "c")));
    assert_int_equal(BFT_OK, f->ops->identify(f->vfs, path_of(f, "c"),
                                              &device[1], &inode[1]));
    assert_int_equal(inode[0], inode[1]);
    assert_int_equal(BFT_NOT_FOUND, f->ops->identify(f->vfs, path_of(f, "a"),
                                                     &device[0], &inode[0]));
    assert_int_equal(0, inode[0]);
    assert_int_equal(BFT_OK,
                     f->ops->identify(f->vfs, f->dir, &device[0], &inode[0]));
}

struct listing {
    struct fixture *f;
    char names[256];
    size_t count;
    bool remove;
};

static void note_name(void *arg, const char *name)
{
    struct listing *listing = arg;

    listing->count++;
    strcat(strcat(listing->names, name), ",");
    if (listing->remove)
        assert_int_equal(BFT_OK,
                         listing->f->ops->remove(listing->f->vfs,
                                                 path_of(listing->f, name)));
}

static void a_directory_lists_its_names(void **state)
{
    struct fixture *f = *state;
    struct listing listing = {.f = f};

    assert_int_equal(BFT_OK, f->ops->list(f->vfs, f->dir, note_name, &listing));
    assert_int_equal(0, listing.count);
    make_file(f, "one", "");
    make_file(f, "two", "");
    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "three")));
    make_file(f, "three/inside", "");
    assert_int_equal(BFT_OK, f->ops->list(f->vfs, f->dir, note_name, &listing));
    assert_int_equal(3, listing.count);
    assert_non_null(strstr(listing.names, "one,"));
    assert_non_null(strstr(listing.names, "two,"));
    assert_non_null(strstr(listing.names, "three,"));
    assert_int_equal(BFT_NOT_FOUND, f->ops->list(f->vfs, path_of(f, "four"),
                                                 note_name, &listing));
    expect_error_names("/four");
    assert_int_equal(BFT_INVALID, f->ops->list(f->vfs, path_of(f, "one"),
                                               note_name, &listing));
    assert_int_equal(3, listing.count);
}

static void files_may_be_removed_while_they_are_listed(void **state)
{
    struct fixture *f = *state;
    struct listing listing = {.f = f, .remove = true};
    char name[32];

    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%02d", i);
        make_file(f, name, "x");
    }
    assert_int_equal(BFT_OK, f->ops->list(f->vfs, f->dir, note_name, &listing));
    assert_int_equal(20, listing.count);
    listing = (struct listing){.f = f};
    assert_int_equal(BFT_OK, f->ops->list(f->vfs, f->dir, note_name, &listing));
    assert_int_equal(0, listing.count);
}

static void directories_are_made_once(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "dir")));
    assert_int_equal(BFT_EXISTS, f->ops->make_dir(f->vfs, path_of(f, "dir")));
    expect_error_names("/dir");
    assert_int_equal(BFT_NOT_FOUND,
                     f->ops->make_dir(f->vfs, path_of(f, "no/dir")));
    make_file(f, "file", "");
    assert_int_equal(BFT_EXISTS, f->ops->make_dir(f->vfs, path_of(f, "file")));
    assert_int_equal(BFT_INVALID,
                     f->ops->make_dir(f->vfs, path_of(f, "file/dir")));
    make_file(f, "dir/file", "deep");
    expect_file(f, "dir/file", "deep");
}

static void a_removed_file_lives_until_it_is_closed(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");

    write_text(f, file, 0, "still here");
    assert_int_equal(BFT_OK, f->ops->remove(f->vfs, path_of(f, "a")));
    assert_int_equal(BFT_NOT_FOUND, f->ops->remove(f->vfs, path_of(f, "a")));
    expect_error_names("/a");
    assert_int_equal(BFT_NOT_FOUND, open_status(f, "a", 0));
    expect_text(f, file, 0, "still here");
    make_file(f, "a", "another");
    expect_text(f, file, 0, "still here");
    assert_int_equal(BFT_OK, f->ops->sync(file));
    f->ops->close(file);
    expect_file(f, "a", "another");
    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "dir")));
    assert_int_equal(BFT_INVALID, f->ops->remove(f->vfs, path_of(f, "dir")));
}

static bft_status rename_status(struct fixture *f, const char *from,
                                const char *to)
{
    return f->ops->rename(f->vfs, path_of(f, from), path_of(f, to));
}

static void rename_replaces_and_handles_follow(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    struct bfti_file *old = create(f, "b");

    write_text(f, file, 0, "new");
    write_text(f, old, 0, "old");
    assert_int_equal(BFT_OK, rename_status(f, "a", "b"));
    assert_int_equal(BFT_NOT_FOUND, open_status(f, "a", 0));
    expect_file(f, "b", "new");
    write_text(f, file, 3, "er");
    expect_file(f, "b", "newer");
    expect_text(f, old, 0, "old");
    assert_int_equal(BFT_OK, rename_status(f, "b", "b"));
    expect_file(f, "b", "newer");
    assert_int_equal(BFT_NOT_FOUND, rename_status(f, "a", "c"));
    expect_error_names("/a");
    assert_int_equal(BFT_NOT_FOUND, rename_status(f, "b", "no/c"));
    f->ops->close(old);
    f->ops->close(file);
    expect_file(f, "b", "newer");
}

static void rename_moves_directories_whole(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "dir")));
    make_file(f, "dir/file", "inside");
    make_file(f, "file", "outside");
    assert_int_equal(BFT_INVALID, rename_status(f, "dir", "dir/dir"));
    assert_int_equal(BFT_INVALID, rename_status(f, "dir", "file"));
    assert_int_equal(BFT_INVALID, rename_status(f, "file", "dir"));
    assert_int_equal(BFT_OK, rename_status(f, "dir", "moved"));
    expect_file(f, "moved/file", "inside");
    assert_int_equal(BFT_NOT_FOUND, open_status(f, "dir/file", 0));
    assert_int_equal(BFT_OK, rename_status(f, "file", "moved/other"));
    expect_file(f, "moved/other", "outside");
    assert_int_equal(BFT_OK, f->ops->make_dir(f->vfs, path_of(f, "full")));
    make_file(f, "full/file", "");
    assert_int_equal(BFT_EXISTS, rename_status(f, "moved", "full"));
}

static void directories_can_be_synced(void **state)
{
    struct fixture *f = *state;

    make_file(f, "a", "x");
    assert_int_equal(BFT_OK, f->ops->sync_dir(f->vfs, f->dir));
    assert_int_equal(BFT_NOT_FOUND, f->ops->sync_dir(f->vfs, path_of(f, "no")));
    expect_error_names("/no");
    assert_int_equal(BFT_INVALID, f->ops->sync_dir(f->vfs, path_of(f, "a")));
}

/* --- the asynchronous form and mappings ----------------------------------- */

static void submitted_requests_are_reaped_done(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    char out[] = "written";
    char in[16] = {0};
    struct bfti_io write = {
        .op = BFTI_IO_WRITE, .file = file, .offset = 3, .buf = out, .len = 7};
    struct bfti_io sync = {.op = BFTI_IO_SYNC, .file = file};
    struct bfti_io read = {
        .op = BFTI_IO_READ, .file = file, .buf = in, .len = sizeof(in)};
    struct bfti_io bad = {.op = BFTI_IO_WRITE,
                          .file = file,
                          .offset = UINT64_MAX,
                          .buf = out,
                          .len = 7};
    struct bfti_io *first[] = {&write, &bad};
    struct bfti_io *second[] = {&sync, &read};

    assert_int_equal(BFT_OK, f->ops->submit(f->vfs, first, 2));
    assert_int_equal(BFT_OK, f->ops->reap(f->vfs, 2));
    assert_true(write.done);
    assert_int_equal(BFT_OK, write.status);
    assert_true(bad.done);
    assert_int_equal(BFT_INVALID, bad.status);
    assert_int_equal(BFT_OK, f->ops->submit(f->vfs, second, 2));
    assert_int_equal(BFT_OK, f->ops->reap(f->vfs, 2));
    assert_true(sync.done && read.done);
    assert_int_equal(BFT_OK, sync.status);
    assert_int_equal(BFT_OK, read.status);
    assert_int_equal(10, read.got);
    assert_memory_equal("\0\0\0written", in, 10);
    f->ops->close(file);
}

/* More requests than any backend takes at once, each to a place of its own. */
static void many_requests_are_carried_out(void **state)
{
    enum { MANY = 300, LEN = 1000 };
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    struct bfti_io *io = calloc(MANY, sizeof(*io));
    struct bfti_io **list = calloc(MANY, sizeof(struct bfti_io *));
    unsigned char *bytes = malloc((size_t)MANY * LEN);

    assert_true(io != NULL && list != NULL && bytes != NULL);
    random_start();
    random_bytes(bytes, (size_t)MANY * LEN);
    for (size_t i = 0; i < MANY; i++) {
        io[i] = (struct bfti_io){.op = BFTI_IO_WRITE,
                                 .file = file,
                                 .offset = i * LEN,
                                 .buf = bytes + i * LEN,
                                 .len = LEN};
        list[i] = &io[i];
    }
    assert_int_equal(BFT_OK, f->ops->submit(f->vfs, list, MANY));
    assert_int_equal(BFT_OK, f->ops->reap(f->vfs, MANY));
    for (size_t i = 0; i < MANY; i++) {
        assert_true(io[i].done && io[i].status == BFT_OK);
        io[i].op = BFTI_IO_READ;
        io[i].buf = malloc(LEN);
        assert_non_null(io[i].buf);
    }
    expect_size(f, file, (uint64_t)MANY * LEN);
    /* Half of them, and a call that is not one of them in between. */
    assert_int_equal(BFT_OK, f->ops->submit(f->vfs, list, MANY / 2));
    expect_size(f, file, (uint64_t)MANY * LEN);
    write_text(f, file, (uint64_t)MANY * LEN, "behind");
    assert_int_equal(BFT_OK,
                     f->ops->submit(f->vfs, list + MANY / 2, MANY - MANY / 2));
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(BFT_OK, f->ops->reap(f->vfs, 1));
    for (size_t i = 0; i < MANY; i++) {
        assert_true(io[i].done && io[i].status == BFT_OK);
        assert_int_equal(LEN, io[i].got);
        assert_memory_equal(bytes + i * LEN, io[i].buf, LEN);
        free(io[i].buf);
    }
    free(bytes);
    free(list);
    free(io);
    f->ops->close(file);
}

/* Memory that a disk could read and write by itself, and memory that it could
 * not; and a file that ends anywhere. */
static void memory_may_lie_anywhere(void **state)
{
    enum { BLOCK = 4096, LEN = 40 * BLOCK };
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    unsigned char *out = aligned_alloc(BLOCK, LEN + BLOCK);
    unsigned char *in = aligned_alloc(BLOCK, LEN + BLOCK);
    size_t got;

    assert_true(out != NULL && in != NULL);
    random_start();
    random_bytes(out, LEN + BLOCK);
    for (size_t shift = 0; shift < 2; shift++) {
        assert_int_equal(BFT_OK,
                         f->ops->write(file, 2 * BLOCK, out + shift, LEN));
        expect_size(f, file, LEN + 2 * BLOCK);
        assert_int_equal(BFT_OK,
                         f->ops->read(file, 2 * BLOCK, in + shift, LEN, &got));
        assert_int_equal(LEN, got);
        assert_memory_equal(out + shift, in + shift, LEN);
        assert_int_equal(BFT_OK, f->ops->truncate(file, LEN + 700));
        memset(in, 0, LEN);
        assert_int_equal(BFT_OK,
                         f->ops->read(file, 2 * BLOCK, in + shift, LEN, &got));
        assert_int_equal(LEN + 700 - 2 * BLOCK, got);
        assert_memory_equal(out + shift, in + shift, got);
        assert_int_equal(BFT_OK,
                         f->ops->read(file, LEN + 600, in, 3 * BLOCK, &got));
        assert_int_equal(100, got);
        assert_memory_equal(out + shift + LEN + 600 - 2 * BLOCK, in, got);
    }
    free(in);
    free(out);
    f->ops->close(file);
}

static void a_mapping_and_the_file_are_one(void **state)
{
    enum { LEN = 65536 };
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "a");
    char *zeros = calloc(1, LEN);
    void *map = NULL;

    assert_non_null(zeros);
    if (f->ops->map != NULL) {
        assert_int_equal(BFT_INVALID, f->ops->map(file, LEN, &map));
        assert_null(map);
        assert_int_equal(BFT_OK, f->ops->write(file, 0, zeros, LEN));
        assert_int_equal(BFT_OK, f->ops->map(file, LEN, &map));
        memcpy((char *)map + 40000, "stored", 6);
        expect_text(f, file, 40000, "stored");
        write_text(f, file, 50000, "written");
        assert_memory_equal("written", (char *)map + 50000, 7);
        assert_int_equal(BFT_OK, f->ops->sync(file));
        memcpy((char *)map + LEN - 4, "last", 4);
        f->ops->unmap(file, map, LEN);
        expect_text(f, file, LEN - 4, "last");
        expect_text(f, file, 40000, "stored");
    }
    free(zeros);
    f->ops->close(file);
}

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 4, TURNS = 60, PIECE = 3000 };

struct worker {
    struct fixture *f;
    struct bfti_file *file;
    unsigned id;
    bool wrong;
};

/* Writes and reads its own pieces of a shared file, and files of its own. */
static void *work(void *arg)
{
    struct worker *w = arg;
    const struct bfti_vfs_ops *ops = w->f->ops;
    unsigned char out[PIECE];
    unsigned char in[PIECE];
    char path[300];

    snprintf(path, sizeof(path), "%s/own-%u", w->f->dir, w->id);
    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t at = ((uint64_t)i * THREADS + w->id) * PIECE;
        struct bfti_file *own;
        size_t got = 0;

        memset(out, (int)(w->id * TURNS + i), sizeof(out));
        w->wrong |= ops->write(w->file, at, out, PIECE) != BFT_OK;
        w->wrong |= ops->read(w->file, at, in, PIECE, &got) != BFT_OK;
        w->wrong |= got != PIECE || memcmp(in, out, PIECE) != 0;
        w->wrong |=
            ops->open(w->f->vfs, path, BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE,
                      &own) != BFT_OK;
        if (w->wrong)
            break;
        w->wrong |= ops->write(own, 0, out, PIECE) != BFT_OK;
        ops->close(own);
        w->wrong |= ops->remove(w->f->vfs, path) != BFT_OK;
    }
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
    struct fixture *f = *state;
    struct bfti_file *file = create(f, "shared");
    struct worker workers[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.f = f, .file = file, .id = i};
        assert_int_equal(0,
                         pthread_create(&threads[i], NULL, work, &workers[i]));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(0, pthread_join(threads[i], NULL));
        assert_false(workers[i].wrong);
    }
    expect_size(f, file, (uint64_t)THREADS * TURNS * PIECE);
    f->ops->close(file);
}

#define BACKEND_TEST(name) \
    cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    BACKEND_TEST(what_is_written_is_read),
    BACKEND_TEST(a_read_stops_only_at_the_end),
    BACKEND_TEST(a_write_beyond_the_end_leaves_zeros),
    BACKEND_TEST(a_gibibyte_is_a_size_like_any_other),
    BACKEND_TEST(cut_bytes_do_not_come_back),
    BACKEND_TEST(a_hole_reads_as_zeros_and_keeps_the_size),
    BACKEND_TEST(offsets_that_no_file_has_are_refused),
    BACKEND_TEST(two_handles_see_one_file),
    BACKEND_TEST(sync_succeeds_on_any_open_file),
    BACKEND_TEST(random_changes_match_a_plain_array),
    BACKEND_TEST(open_does_what_its_flags_say),
    BACKEND_TEST(open_takes_only_files),
    BACKEND_TEST(a_file_open_for_reading_refuses_changes),
    BACKEND_TEST(one_handle_at_a_time_holds_the_lock),
    BACKEND_TEST(every_name_of_a_file_has_one_identity),
    BACKEND_TEST(a_directory_lists_its_names),
    BACKEND_TEST(files_may_be_removed_while_they_are_listed),
    BACKEND_TEST(directories_are_made_once),
    BACKEND_TEST(a_removed_file_lives_until_it_is_closed),
    BACKEND_TEST(rename_replaces_and_handles_follow),
    BACKEND_TEST(rename_moves_directories_whole),
    BACKEND_TEST(directories_can_be_synced),
    BACKEND_TEST(submitted_requests_are_reaped_done),
    BACKEND_TEST(many_requests_are_carried_out),
    BACKEND_TEST(memory_may_lie_anywhere),
    BACKEND_TEST(a_mapping_and_the_file_are_one),
    BACKEND_TEST(threads_do_not_disturb_each_other),
};

int main(void)
{
    int failed = 0;

    backend = POSIX;
    failed += cmocka_run_group_tests_name("posix", tests, NULL, NULL);
    backend = DIRECT;
    failed += cmocka_run_group_tests_name("direct", tests, NULL, NULL);
    backend = URING;
    failed += cmocka_run_group_tests_name("uring", tests, NULL, NULL);
    backend = MEMORY;
    failed += cmocka_run_group_tests_name("memory", tests, NULL, NULL);
    backend = SIM;
    failed += cmocka_run_group_tests_name("sim", tests, NULL, NULL);
    return failed;
}
