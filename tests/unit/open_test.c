/*
 * Who opens a directory: the same process again, by whatever name of it and in
 * whatever thread, shares one engine, with the options that it has; another
 * process is refused, and so is what a forked child inherited.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bftree_feed.h"
#include "bftree_stores.h"
#include "engine_fixture.h"
#include "every_call.h"

enum { RECORDS = 200 };

static bft_slice text_slice(const char *text)
{
    bft_slice s = {text, strlen(text)};
    return s;
}

static void expect_text(const char *words)
{
    char text[512];
    bft_last_error(text, sizeof(text));
    if (!strstr(text, words))
        fail_msg("\"%s\" does not name \"%s\"", text, words);
}

static bft_slice key_of(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "key%06u", n)};
}

static void put_all(bft_tree *tree)
{
    char text[16];
    for (unsigned n = 0; n < RECORDS; n++)
        expect_ok(bft_put(tree, key_of(text, n), key_of(text, n)));
}

static void check_all(bft_tree *tree)
{
    char text[16], got[16];
    size_t len;
    for (unsigned n = 0; n < RECORDS; n++) {
        bft_slice key = key_of(text, n);
        expect_ok(bft_get(tree, key, got, sizeof(got), &len));
        assert_int_equal(key.len, len);
        assert_memory_equal(text, got, len);
    }
}

/* --- options ------------------------------------------------------------- */

static void contradicting_options_name_the_option(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_POSIX);
    bft_options same = f->options, options;
    bft_db *db;

    (void)state;
#define CONTRADICT(field, value)                                  \
    options = same;                                               \
    options.field = (value);                                      \
    expect_status(BFT_INVALID, bft_open(f->path, &options, &db)); \
    assert_null(db);                                              \
    expect_text(#field)
    CONTRADICT(memory_bytes, 2 * same.memory_bytes);
    CONTRADICT(log_bytes, 2 * same.log_bytes);
    CONTRADICT(durability, BFT_SYNC);
    CONTRADICT(leaf_bytes, 1024);
    CONTRADICT(compress, true);
    CONTRADICT(no_threads, true);
    CONTRADICT(promote_percent, 101);
    CONTRADICT(promote_percent, 29);
    /* Wrong by themselves. */
    CONTRADICT(leaf_bytes, 1000);
    CONTRADICT(promote_percent, 102);
    CONTRADICT(storage, (bft_storage)7);
    CONTRADICT(size, 4);
#undef CONTRADICT
    engine_fixture_free(f);
}

/* Whatever the engine makes of them: it is the same as for the first. */
static void the_same_options_never_contradict(void **state)
{
    static const struct {
        uint64_t segment_bytes, log_bytes;
        uint32_t promote_percent;
    } given[] = {{64 << 10, 1 << 10, 101},
                 {0, 1 << 10, 0},
                 {1 << 20, 0, 30},
                 {256 << 10, 600 << 10, 100}};
    (void)state;
    for (size_t made = 0; made < 4; made++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
        f->options.log_segment_bytes = given[made].segment_bytes;
        engine_open(f);
        put_all(engine_tree(f, "t", 0));
        /* Segments are those that it was made with. */
        for (size_t i = 0; i < 4; i++) {
            bft_options all_defaults = {.size = sizeof(all_defaults),
                                        .internal = &f->surroundings};
            bft_db *db;
            engine_close(f);
            f->options.log_segment_bytes = given[i].segment_bytes;
            f->options.log_bytes = given[i].log_bytes;
            f->options.promote_percent = given[i].promote_percent;
            engine_open(f);
            check_all(engine_tree(f, "t", 0));
            expect_ok(bft_open(f->path, &f->options, &db));
            expect_ok(bft_close(db));
            expect_ok(bft_open(f->path, &all_defaults, &db));
            expect_ok(bft_close(db));
        }
        engine_fixture_free(f);
    }
}

/* A log of more segments than there can be would be full before its checkpoint:
 * half of them is what it has, to others that ask, too. */
static void a_log_has_no_more_than_half_the_segments(void **state)
{
    const uint64_t segment = 64 << 10, most = segment << 19;
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_options same;
    bft_db *db;
    (void)state;
    f->options.log_segment_bytes = segment;
    f->options.log_bytes = UINT64_MAX;
    engine_open(f);
    same = f->options;
    same.log_bytes = most;
    expect_ok(bft_open(f->path, &same, &db));
    expect_ok(bft_close(db));
    same.log_bytes = most - 1;
    expect_status(BFT_INVALID, bft_open(f->path, &same, &db));
    expect_text("log_bytes");
    engine_fixture_free(f);
}

/* Whatever the budget is, a batch fits into a frame of the log. */
static void a_batch_has_no_more_than_the_log_takes(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    const uint8_t byte = 0; /* not read */
    bft_slice key = {"k", 1}, value = {&byte, 513 << 20};
    bft_batch *batch;
    bft_tree *tree;
    bft_txn *txn;
    (void)state;
    if (sizeof(size_t) == 4) {
        engine_fixture_free(f);
        skip();
    }
    f->options.memory_bytes = UINT64_C(8) << 30;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    expect_ok(bft_batch_create(f->db, &batch));
    expect_status(BFT_TOO_BIG, bft_batch_put(batch, tree, key, value));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    expect_status(BFT_TOO_BIG, bft_txn_put(txn, tree, key, value));
    bft_txn_abort(txn);
    bft_batch_free(batch);
    engine_fixture_free(f);
}

/* --- what a killed predecessor left --------------------------------------- */

/* A file of BYTES zeros in the directory of F. */
static void leave_file(const struct engine_fixture *f, const char *name,
                       long bytes)
{
    char path[300];
    FILE *file;
    snprintf(path, sizeof(path), "%s/%s", f->path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(0, fflush(file));
    assert_int_equal(0, ftruncate(fileno(file), bytes));
    assert_int_equal(0, fclose(file));
}

static void expect_left(const struct engine_fixture *f, const char *name)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", f->path, name);
    assert_int_equal(0, access(path, F_OK));
}

/* Each allocation fails once. */
static void open_with_little_memory(struct engine_fixture *f)
{
    bft_status status = BFT_NO_MEMORY;
    for (int64_t n = 0; status != BFT_OK; n++) {
        atomic_store(&f->allocs_left, n);
        status = engine_open_status(f);
        if (status != BFT_OK)
            assert_int_equal(BFT_NO_MEMORY, status);
    }
    atomic_store(&f->allocs_left, -1);
}

/* A database that was never finished being made, with other segments. */
static void what_was_left_unmade_may_have_other_segments(void **state)
{
    static const struct {
        const char *name;
        long bytes;
    } left[] = {{"log-new", 1 << 20},
                {"log-0000000000000000", 1 << 20},
                {"log-0000000000000000", 64 << 10},
                {"log-0000000000000000", 256 << 10}};
    (void)state;
    for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
        f->options.log_segment_bytes = 256 << 10;
        leave_file(f, left[i].name, left[i].bytes);
        leave_file(f, "data", i % 2 ? 4096 : 0);
        /* It is none, and stays none while memory is short. */
        f->options.must_exist = true;
        expect_status(BFT_NOT_FOUND, engine_open_status(f));
        expect_left(f, left[i].name);
        f->options.must_exist = false;
        if (i == 1) {
            open_with_little_memory(f);
            engine_close(f);
        }
        engine_open(f);
        put_all(engine_tree(f, "t", 0));
        engine_reopen(f);
        check_all(engine_tree(f, "t", 0));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* --- where the process is ------------------------------------------------- */

/* The path is what it meant when the database was opened. */
static void a_process_that_goes_elsewhere_writes_where_it_opened(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    char path[sizeof(f->path)], before[4096], text[16];
    char *name = strrchr(f->path, '/');

    (void)state;
    snprintf(path, sizeof(path), "%s", f->path);
    assert_non_null(getcwd(before, sizeof(before)));
    *name = 0;
    assert_int_equal(0, chdir(f->path));
    memmove(f->path, name + 1, strlen(name + 1) + 1);
    engine_open(f);
    assert_int_equal(0, chdir("/"));
    /* Segments are made meanwhile, and dropped. */
    for (unsigned n = 0; n < 20 * RECORDS; n++)
        expect_ok(bft_put(engine_tree(f, "t", 0), key_of(text, n % RECORDS),
                          key_of(text, n % RECORDS)));
    expect_ok(bft_checkpoint(f->db));
    check_all(engine_tree(f, "t", 0));
    engine_close(f);
    snprintf(f->path, sizeof(f->path), "%s", path);
    engine_open(f);
    check_all(engine_tree(f, "t", 0));
    assert_int_equal(0, chdir(before));
    engine_fixture_free(f);
}

/* --- what another process does meanwhile ---------------------------------- */

static struct {
    struct bfti_vfs_ops ops;
    struct bfti_vfs vfs;
    void (*meanwhile)(void); /* before the lock is taken */
    const char *here, *there;
} racing;

static bft_status racing_make_dir(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    assert_int_equal(0, mkdir(path, 0755));
    return bfti_vfs_posix()->ops->make_dir(bfti_vfs_posix(), path);
}

static bft_status racing_lock(struct bfti_file *file)
{
    racing.meanwhile();
    return bfti_vfs_posix()->ops->lock(file);
}

static void do_nothing(void)
{
}

static void move_file(const char *name)
{
    char from[300], to[300];
    snprintf(from, sizeof(from), "%s/%s", racing.there, name);
    snprintf(to, sizeof(to), "%s/%s", racing.here, name);
    assert_int_equal(0, rename(from, to));
}

static void move_database(void)
{
    move_file("data");
    move_file("log-0000000000000000");
}

static struct engine_fixture *fixture_racing(void (*meanwhile)(void))
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    racing.ops = *f->vfs->ops;
    racing.ops.make_dir = racing_make_dir;
    racing.ops.lock = racing_lock;
    racing.vfs.ops = &racing.ops;
    racing.meanwhile = meanwhile;
    racing.here = f->path;
    f->vfs = &racing.vfs;
    return f;
}

static void a_directory_that_is_made_meanwhile_will_do(void **state)
{
    struct engine_fixture *f = fixture_racing(do_nothing);
    (void)state;
    assert_int_equal(0, rmdir(f->path));
    engine_open(f);
    put_all(engine_tree(f, "t", 0));
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

static void what_is_made_or_goes_before_the_lock_is_seen(void **state)
{
    struct engine_fixture *f = fixture_racing(move_database);
    struct engine_fixture *other = engine_fixture_open(ENGINE_POSIX);
    (void)state;
    put_all(engine_tree(other, "t", 0));
    engine_close(other);
    racing.there = other->path;
    f->options.error_if_exists = true;
    expect_status(BFT_EXISTS, engine_open_status(f));
    racing.meanwhile = do_nothing;
    f->options.error_if_exists = false;
    engine_open(f);
    check_all(engine_tree(f, "t", 0));
    engine_close(f);
    racing.here = other->path;
    racing.there = f->path;
    racing.meanwhile = move_database;
    f->options.must_exist = true;
    expect_status(BFT_NOT_FOUND, engine_open_status(f));
    engine_fixture_free(f);
    engine_open(other);
    check_all(engine_tree(other, "t", 0));
    engine_fixture_free(other);
}

/* --- files that somebody else takes away ---------------------------------- */

/* Segments that wait to be used again; what is in them nobody needs. */
static void spare_segments_may_be_taken_away(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    unsigned taken = 0;
    bft_tree *tree;

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    for (unsigned i = 0; i < 60; i++)
        put_all(tree);
    expect_ok(bft_checkpoint(f->db));
    for (uint64_t lsn = 0;
         lsn + f->options.log_segment_bytes <= bft_feed_lowest(f->db);
         lsn += f->options.log_segment_bytes) {
        char path[300];
        snprintf(path, sizeof(path), "%s/log-%016llx", f->path,
                 (unsigned long long)lsn);
        taken += unlink(path) == 0;
    }
    assert_true(taken > 0);
    for (unsigned i = 0; i < 60; i++)
        put_all(tree);
    check_all(tree);
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

/* --- descriptors ---------------------------------------------------------- */

/* No new segment can be had, or be given its name, meanwhile; but nothing is lost
 * that was there. */
static void a_process_that_was_out_of_descriptors_goes_on(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    enum { FEW = 128 };
    struct rlimit before, few;
    int taken[FEW], count = 0;
    bft_status status = BFT_OK;
    char text[16];
    bft_tree *tree;

    (void)state;
    f->options.no_threads = true;
    f->tolerated = BFT_NO_MEMORY;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    put_all(tree);
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
    few = before;
    few.rlim_cur = FEW;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &few));
    while (count < FEW && (taken[count] = dup(1)) >= 0)
        count++;
    for (unsigned n = 0; n < 100 * RECORDS && status == BFT_OK; n++)
        status =
            bft_put(tree, key_of(text, n % RECORDS), key_of(text, n % RECORDS));
    while (count > 0)
        (void)close(taken[--count]);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
    assert_int_equal(BFT_NO_MEMORY, status);
    for (unsigned i = 0; i < 100; i++)
        put_all(tree);
    expect_ok(bft_checkpoint(f->db));
    check_all(tree);
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

static int lowest_descriptor(void)
{
    int fd = dup(1);
    assert_in_range(fd, 3, 1 << 20);
    assert_int_equal(0, close(fd));
    return fd;
}

/* Files may not get as long as a segment for a while: those that were begun are
 * closed, and gone. */
static void a_segment_that_cannot_be_made_is_left_nowhere(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    struct rlimit before, shorter;
    void (*handler)(int);
    bft_status status = BFT_OK;
    bft_tree *tree;
    char text[16], said[300];
    int lowest;

    (void)state;
    f->options.log_bytes = 8 << 20;
    f->options.log_segment_bytes = 1 << 20;
    f->options.no_threads = true;
    f->tolerated = BFT_IO;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    put_all(tree);
    lowest = lowest_descriptor();
    handler = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &before));
    shorter = before;
    shorter.rlim_cur = 512 << 10;
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &shorter));
    for (unsigned n = 0; n < 1000 * RECORDS && status == BFT_OK; n++)
        status =
            bft_put(tree, key_of(text, n % RECORDS), key_of(text, n % RECORDS));
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &before));
    (void)signal(SIGXFSZ, handler);
    (void)bft_last_error(said, sizeof(said));
    assert_int_equal(BFT_IO, status);
    assert_non_null(strstr(said, "/log-"));
    assert_int_equal(lowest, lowest_descriptor());
    put_all(tree);
    expect_ok(bft_checkpoint(f->db));
    check_all(tree);
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

/* --- memory --------------------------------------------------------------- */

/* Not even its directory, of which a process may come to have made many. */
static void a_closed_database_in_memory_leaves_nothing(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .no_threads = true,
                           .storage = BFT_STORAGE_MEMORY};
    bft_db *db, *within;

    (void)state;
    expect_ok(bft_open("gone", &options, &db));
    expect_ok(bft_open("gone/within", &options, &within));
    expect_ok(bft_close(db));
    /* There is another one in it. */
    expect_ok(bft_open("gone/within", &options, &db));
    expect_ok(bft_close(db));
    expect_ok(bft_close(within));
    options.must_exist = true;
    expect_status(BFT_NOT_FOUND, bft_open("gone/within", &options, &db));
    expect_text("there is no database gone/within");
    options.must_exist = false;
    expect_ok(bft_open("gone", &options, &db));
    expect_ok(bft_close(db));
    options.must_exist = true;
    expect_status(BFT_NOT_FOUND, bft_open("gone", &options, &db));
    expect_text("there is no database gone");
}

/* --- the same process ---------------------------------------------------- */

/* PATH leads to the engine that F has open. */
static void expect_shared(struct engine_fixture *f, const char *path)
{
    char got[16];
    bft_tree *tree;
    bft_db *db;
    size_t len;
    expect_ok(bft_open(path, &f->options, &db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    check_all(tree);
    expect_ok(bft_put(tree, text_slice(path), text_slice("here")));
    expect_ok(bft_get(engine_tree(f, "t", 0), text_slice(path), got,
                      sizeof(got), &len));
    expect_ok(bft_close(db));
}

/* What is in the directory goes, another database's directory in it stays. */
static void databases_in_memory_may_lie_in_each_other(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .no_threads = true,
                           .log_bytes = 256 << 10,
                           .log_segment_bytes = 64 << 10,
                           .storage = BFT_STORAGE_MEMORY};
    char value[1000] = {0};
    bft_db *above, *below;
    bft_tree *tree;
    size_t len;
    (void)state;
    expect_ok(bft_open("above", &options, &above));
    expect_ok(bft_open("above/below", &options, &below));
    expect_ok(bft_tree_open(below, "t", NULL, &tree));
    expect_ok(bft_put(tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    expect_ok(bft_tree_open(above, "t", NULL, &tree));
    /* Segments of its log come behind the directory. */
    for (int i = 0; i < 150; i++)
        expect_ok(bft_put(tree, (bft_slice){"k", 1},
                          (bft_slice){value, sizeof(value)}));
    expect_ok(bft_close(above));
    expect_ok(bft_open("above", &options, &above));
    expect_ok(bft_tree_open(above, "t", NULL, &tree));
    expect_status(BFT_NOT_FOUND, bft_get(tree, (bft_slice){"k", 1}, value,
                                         sizeof(value), &len));
    expect_ok(bft_close(above));
    expect_ok(bft_tree_open(below, "t", NULL, &tree));
    expect_ok(bft_get(tree, (bft_slice){"k", 1}, value, sizeof(value), &len));
    expect_ok(bft_close(below));
}

static void every_name_of_a_directory_is_one_engine(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_POSIX);
    char other[300], link[300];

    (void)state;
    put_all(engine_tree(f, "t", 0));
    snprintf(other, sizeof(other), "%s/../%s/.", f->path,
             strrchr(f->path, '/') + 1);
    expect_shared(f, other);
    snprintf(link, sizeof(link), "%s-link", f->path);
    assert_int_equal(0, symlink(strrchr(f->path, '/') + 1, link));
    expect_shared(f, link);
    assert_int_equal(0, unlink(link));
    snprintf(other, sizeof(other), "%s-mount", f->path);
    assert_int_equal(0, mkdir(other, 0700));
    if (mount(f->path, other, NULL, MS_BIND, NULL) == 0) {
        expect_shared(f, other);
        assert_int_equal(0, umount(other));
    } else {
        print_message("no bind mount: not allowed here\n");
    }
    assert_int_equal(0, rmdir(other));
    check_all(engine_tree(f, "t", 0));
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

enum { OPENERS = 4, TURNS = 25 };

static void *open_and_close(void *arg)
{
    struct engine_fixture *f = arg;
    for (unsigned i = 0; i < TURNS; i++) {
        bft_db *db;
        bft_tree *tree;
        char text[16];
        if (bft_open(f->path, &f->options, &db) != BFT_OK ||
            bft_tree_open(db, "t", NULL, &tree) != BFT_OK ||
            bft_put(tree, key_of(text, i), key_of(text, i)) != BFT_OK ||
            bft_close(db) != BFT_OK)
            return arg;
    }
    return NULL;
}

/* The last one out closes it, whoever that is, and the next opens it anew. */
static void threads_open_and_close_one_engine(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    pthread_t thread[OPENERS];

    (void)state;
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    for (size_t i = 0; i < OPENERS; i++)
        assert_int_equal(0,
                         pthread_create(&thread[i], NULL, open_and_close, f));
    for (size_t i = 0; i < OPENERS; i++) {
        void *failed;
        assert_int_equal(0, pthread_join(thread[i], &failed));
        assert_null(failed);
    }
    engine_open(f);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* What handles share, and what became of it. */
struct object {
    bft_db *made_with;
    bft_tree *tree; /* of the handle that is closed last */
    unsigned made, destroyed;
    bft_status answer;
};

static bft_status make_object(void *ctx, bft_db *db, void **object)
{
    struct object *o = ctx;
    o->made++;
    o->made_with = db;
    *object = o;
    return o->answer;
}

static void destroy_object(void *object)
{
    struct object *o = object;
    o->destroyed++;
    o->answer = bft_put(o->tree, text_slice("destroyed"), text_slice("yes"));
}

static void handles_of_an_engine_share_objects(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_POSIX);
    struct object one = {.answer = BFT_CONFLICT}, two = {.answer = BFT_OK};
    char got[16];
    size_t len;
    bft_db *db;
    void *object = f;

    (void)state;
    expect_ok(bft_open(f->path, &f->options, &db));
    expect_ok(bft_tree_open(f->db, "t", NULL, &one.tree));
    /* What could not be made is made by the next call. */
    expect_status(BFT_CONFLICT, bft_db_shared(db, "one", make_object,
                                              destroy_object, &one, &object));
    assert_null(object);
    one.answer = BFT_OK;
    expect_ok(
        bft_db_shared(db, "one", make_object, destroy_object, &one, &object));
    assert_ptr_equal(&one, object);
    assert_ptr_equal(db, one.made_with);
    /* Once for all handles, but for each name. */
    expect_ok(bft_db_shared(f->db, "one", make_object, destroy_object, &two,
                            &object));
    assert_ptr_equal(&one, object);
    expect_ok(bft_db_shared(f->db, "two", make_object, NULL, &two, &object));
    assert_ptr_equal(&two, object);
    assert_int_equal(2, one.made);
    assert_int_equal(1, two.made);
    /* The last handle takes them along, while its trees still work. */
    expect_ok(bft_close(db));
    assert_int_equal(0, one.destroyed);
    engine_close(f);
    assert_int_equal(1, one.destroyed);
    assert_int_equal(0, two.destroyed);
    expect_ok(one.answer);
    engine_open(f);
    expect_ok(bft_get(engine_tree(f, "t", 0), text_slice("destroyed"), got,
                      sizeof(got), &len));
    assert_int_equal(3, len);
    engine_fixture_free(f);
}

/* --- other processes ----------------------------------------------------- */

/* Without threads: nothing is written behind our back, and none has a lock of
 * the address sanitizer's allocator, which does not see to forks. */
static struct engine_fixture *open_to_fork(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    f->options.no_threads = true;
    engine_open(f);
    return f;
}

/* Runs CHECK in a child; what it returned. */
static int in_child(int (*check)(struct engine_fixture *f),
                    struct engine_fixture *f)
{
    int status;
    pid_t child;
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(check(f));
    assert_int_equal(child, waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Names, sizes, times and bytes of what is in PATH, as a number. */
static uint64_t sum_of(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    uint64_t sum = 0;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char name[600];
        struct stat st;
        uint64_t one = 1469598103934665603u;
        int byte;
        FILE *file;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, "..") == 0)
            continue;
        assert_int_equal(0, stat(name, &st));
        for (const char *c = entry->d_name; *c; c++)
            one = (one ^ (uint8_t)*c) * 1099511628211u;
        one = (one ^ (uint64_t)st.st_size) * 1099511628211u;
        one = (one ^ (uint64_t)st.st_mtim.tv_nsec) * 1099511628211u;
        one = (one ^ (uint64_t)st.st_mtim.tv_sec) * 1099511628211u;
        file = S_ISREG(st.st_mode) ? fopen(name, "rb") : NULL;
        while (file && (byte = getc_unlocked(file)) != EOF)
            one = (one ^ (uint64_t)byte) * 1099511628211u;
        if (file)
            fclose(file);
        sum += one;
    }
    closedir(dir);
    return sum;
}

static int open_elsewhere(struct engine_fixture *f)
{
    char text[300];
    bft_options options = f->options;
    bft_db *db;
    /* A fresh one: it has nothing to do with what it inherited. */
    options.internal = NULL;
    if (bft_open(f->path, &options, &db) != BFT_BUSY || db)
        return 1;
    bft_last_error(text, sizeof(text));
    return strstr(text, f->path) ? 0 : 2;
}

static void another_process_gets_busy_and_touches_nothing(void **state)
{
    struct engine_fixture *f = open_to_fork();
    uint64_t before;

    (void)state;
    put_all(engine_tree(f, "t", 0));
    before = sum_of(f->path);
    assert_int_equal(0, in_child(open_elsewhere, f));
    assert_true(before == sum_of(f->path));
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

static struct inherited {
    bft_tree *tree;
    bft_cursor *cursor;
    bft_batch *batch;
    bft_covalue_store *store;
    bft_snapshot *snapshot;
    bft_txn *txn, *other;
} inherited;

#define REFUSED(call)                                              \
    do {                                                           \
        if ((call) != BFT_FORKED) {                                \
            print_error("in a child: " #call " is not refused\n"); \
            return 1;                                              \
        }                                                          \
    } while (0)

static int use_all(struct engine_fixture *f)
{
    struct calls c = {.expected = BFT_FORKED};
    bft_covalue_op op = {
        .kind = BFT_OP_COVALUE, .id = {"co_z", 4}, .value = {"{}", 2}};
    bft_tree_stats stats = {.size = sizeof(stats)};
    uint32_t id;
    every_call_on_db(&c, f->db);
    every_call_on_tree(&c, inherited.tree);
    every_call_on_batch(&c, inherited.batch, inherited.tree);
    every_call_on_cursor(&c, inherited.cursor);
    every_call_on_snapshot(&c, inherited.snapshot, inherited.tree);
    every_call_on_txn(&c, inherited.txn, inherited.tree);
    /* provokes: bft_tree_id BFT_FORKED */
    REFUSED(bft_tree_id(inherited.tree, &id));
    /* provokes: bft_tree_stats_read BFT_FORKED */
    REFUSED(bft_tree_stats_read(inherited.tree, &stats));
    REFUSED(bft_covalue_apply(inherited.store, &op, 1, BFT_DEFAULT, NULL));
    /* Giving back is no use, and reaches nothing of the parent's. */
    bft_cursor_close(inherited.cursor);
    bft_batch_free(inherited.batch);
    bft_covalue_close(inherited.store);
    bft_snapshot_release(inherited.snapshot);
    bft_txn_abort(inherited.other);
    REFUSED(bft_close(f->db)); /* provokes: bft_close BFT_FORKED */
    return c.wrong ? 2 : 0;
}

static void a_forked_child_is_refused_everywhere(void **state)
{
    struct engine_fixture *f = open_to_fork();
    bft_slice key = text_slice("batch"), got;
    size_t len;

    (void)state;
    inherited.tree = engine_tree(f, "t", 0);
    put_all(inherited.tree);
    expect_ok(bft_cursor_open(inherited.tree, &inherited.cursor));
    expect_ok(bft_cursor_next(inherited.cursor));
    expect_ok(bft_batch_create(f->db, &inherited.batch));
    expect_ok(bft_batch_put(inherited.batch, inherited.tree, key, key));
    expect_ok(bft_covalue_open(f->db, NULL, &inherited.store));
    expect_ok(bft_snapshot_take(f->db, &inherited.snapshot));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &inherited.txn));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &inherited.other));
    expect_ok(bft_txn_put(inherited.txn, inherited.tree, key, key));
    assert_int_equal(0, in_child(use_all, f));
    /* It all goes on here. */
    expect_ok(bft_cursor_key(inherited.cursor, &got));
    expect_ok(bft_cursor_next(inherited.cursor));
    expect_ok(bft_txn_commit(inherited.txn, BFT_DEFAULT, NULL));
    bft_txn_abort(inherited.other);
    expect_ok(bft_batch_commit(inherited.batch, BFT_SYNC, NULL));
    expect_status(BFT_NOT_FOUND,
                  bft_snapshot_get(inherited.snapshot, inherited.tree, key,
                                   NULL, 0, &len));
    bft_snapshot_release(inherited.snapshot);
    check_all(inherited.tree);
    bft_cursor_close(inherited.cursor);
    bft_batch_free(inherited.batch);
    bft_covalue_close(inherited.store);
    engine_reopen(f);
    check_all(engine_tree(f, "t", 0));
    engine_fixture_free(f);
}

/* --- a fork in the middle of a call --------------------------------------- */

static _Atomic int closing; /* 1: within bft_close(); 2: go on */

static bft_status make_nothing(void *ctx, bft_db *db, void **object)
{
    (void)ctx;
    *object = db;
    return BFT_OK;
}

static void wait_within(void *object)
{
    (void)object;
    atomic_store(&closing, 1);
    while (atomic_load(&closing) != 2)
        sched_yield();
}

static void *close_slowly(void *db)
{
    return bft_close(db) == BFT_OK ? NULL : db;
}

static int open_another(struct engine_fixture *f)
{
    /* The thread sanitizer wants no threads of a forked child. */
    bft_options options = {.size = sizeof(options), .no_threads = true};
    char path[300];
    bft_db *db;
    alarm(100); /* it would wait for a thread that is not there */
    REFUSED(bft_close(f->db));
    snprintf(path, sizeof(path), "%s-child", f->path);
    if (bft_open(path, &options, &db) != BFT_OK || bft_close(db) != BFT_OK)
        return 3;
    options.storage = BFT_STORAGE_MEMORY;
    if (bft_open("slow", &options, &db) != BFT_OK || bft_close(db) != BFT_OK)
        return 4;
    return open_elsewhere(f);
}

/* Another thread of the parent is opening or closing at that moment. */
static void a_child_of_a_busy_parent_can_open(void **state)
{
    struct engine_fixture *f = open_to_fork();
    bft_options in_memory = {.size = sizeof(in_memory),
                             .no_threads = true,
                             .storage = BFT_STORAGE_MEMORY};
    char command[400];
    pthread_t thread;
    void *object;
    bft_db *other;

    (void)state;
    expect_ok(bft_open("slow", &in_memory, &other));
    expect_ok(
        bft_db_shared(other, "slow", make_nothing, wait_within, NULL, &object));
    atomic_store(&closing, 0);
    assert_int_equal(0, pthread_create(&thread, NULL, close_slowly, other));
    while (atomic_load(&closing) != 1)
        sched_yield();
    assert_int_equal(0, in_child(open_another, f));
    atomic_store(&closing, 2);
    assert_int_equal(0, pthread_join(thread, &object));
    assert_null(object);
    snprintf(command, sizeof(command), "rm -r %s-child", f->path);
    assert_int_equal(0, system(command));
    engine_reopen(f);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contradicting_options_name_the_option),
        cmocka_unit_test(the_same_options_never_contradict),
        cmocka_unit_test(a_log_has_no_more_than_half_the_segments),
        cmocka_unit_test(a_batch_has_no_more_than_the_log_takes),
        cmocka_unit_test(what_was_left_unmade_may_have_other_segments),
        cmocka_unit_test(a_process_that_goes_elsewhere_writes_where_it_opened),
        cmocka_unit_test(a_directory_that_is_made_meanwhile_will_do),
        cmocka_unit_test(what_is_made_or_goes_before_the_lock_is_seen),
        cmocka_unit_test(spare_segments_may_be_taken_away),
        cmocka_unit_test(a_process_that_was_out_of_descriptors_goes_on),
        cmocka_unit_test(a_closed_database_in_memory_leaves_nothing),
        cmocka_unit_test(databases_in_memory_may_lie_in_each_other),
        cmocka_unit_test(every_name_of_a_directory_is_one_engine),
        cmocka_unit_test(threads_open_and_close_one_engine),
        cmocka_unit_test(handles_of_an_engine_share_objects),
        cmocka_unit_test(another_process_gets_busy_and_touches_nothing),
        cmocka_unit_test(a_forked_child_is_refused_everywhere),
        cmocka_unit_test(a_child_of_a_busy_parent_can_open),
        cmocka_unit_test(a_segment_that_cannot_be_made_is_left_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
