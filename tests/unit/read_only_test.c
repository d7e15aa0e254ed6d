/* Databases that are read and not written: nothing of them changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_fixture.h"

enum { VALUE = 100, MANY = 3000 };

static const bft_slice NONE = {NULL, 0};

static bft_slice key_of(char text[32], uint64_t n)
{
    int len = snprintf(text, 32, "key%09llu", (unsigned long long)n);
    return (bft_slice){text, (size_t)len};
}

static void put_some(bft_tree *tree, uint64_t from, uint64_t to)
{
    static const uint8_t value[VALUE];
    char text[32];
    for (uint64_t n = from; n < to; n++)
        expect_ok(bft_put(tree, key_of(text, n), (bft_slice){value, VALUE}));
}

static void check_some(bft_db *db, uint64_t count)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    uint64_t found;
    char text[32];
    uint8_t value[VALUE];
    size_t len;
    expect_ok(bft_tree_open(db, "t", &o, &tree));
    expect_ok(bft_count(tree, NONE, NONE, &found));
    assert_int_equal(count, found);
    for (uint64_t n = 0; n < count; n += 7)
        expect_ok(bft_get(tree, key_of(text, n), value, VALUE, &len));
    expect_ok(bft_verify(db));
}

/* What a crash leaves, large values among it, through a budget that is smaller
 * than what is replayed; on a disk that tells of every write. */
static void what_a_crash_left_is_read_and_stays_as_it_is(void **state)
{
    static uint8_t big[300000];
    (void)state;
    for (int clean = 0; clean < 2; clean++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        uint64_t steps;
        f->options.log_bytes = 8 << 20;
        f->options.no_threads = true; /* no checkpoint but that here */
        engine_open(f);
        put_some(engine_tree(f, "t", 512), 0, MANY / 2);
        expect_ok(bft_checkpoint(f->db));
        put_some(engine_tree(f, "t", 512), MANY / 2, 2 * MANY);
        expect_ok(bft_put(engine_tree(f, "big", 512), (bft_slice){"k", 1},
                          (bft_slice){big, sizeof(big)}));
        f->options.read_only = !clean;
        if (clean) {
            engine_close(f);
            f->options.read_only = true;
            engine_open(f);
        } else {
            engine_crash(f, BFTI_SIM_KILL, 1);
        }
        engine_close(f);
        steps = bfti_sim_steps(f->vfs);
        if (!clean)
            assert_int_equal(0, steps);
        for (int i = 0; i < 2; i++) {
            size_t len;
            engine_open(f);
            check_some(f->db, 2 * MANY);
            if (!clean)
                assert_true(engine_stats(f).recovered_frames > MANY);
            expect_ok(bft_get(engine_tree(f, "big", 0), (bft_slice){"k", 1},
                              big, sizeof(big), &len));
            assert_int_equal(sizeof(big), len);
            engine_close(f);
        }
        assert_int_equal(steps, bfti_sim_steps(f->vfs));
        f->options.read_only = false;
        engine_open(f);
        check_some(f->db, 2 * MANY);
        put_some(engine_tree(f, "t", 0), 2 * MANY, 2 * MANY + 1);
        engine_fixture_free(f);
    }
}

static bft_status no_record(void *ctx, bft_bulk_record *record)
{
    (void)ctx;
    (void)record;
    return BFT_NOT_FOUND;
}

static void every_write_is_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    bft_slice k = {"k", 1};
    bft_batch *batch;
    bft_tree *tree;
    uint64_t steps, count;
    (void)state;
    put_some(engine_tree(f, "t", 512), 0, 10);
    engine_close(f);
    steps = bfti_sim_steps(f->vfs);
    f->options.read_only = true;
    engine_open(f);
    expect_status(BFT_READ_ONLY, bft_tree_open(f->db, "new", NULL, &tree));
    expect_ok(bft_tree_open(f->db, "t", NULL, &tree));
    expect_status(BFT_READ_ONLY, bft_put(tree, k, k));
    expect_status(BFT_READ_ONLY, bft_insert(tree, k, k));
    expect_status(BFT_READ_ONLY, bft_replace(tree, k, NULL, &k));
    expect_status(BFT_READ_ONLY, bft_delete(tree, k));
    expect_status(BFT_READ_ONLY, bft_delete_range(tree, NONE, NONE, &count));
    expect_ok(bft_batch_create(f->db, &batch));
    expect_status(BFT_READ_ONLY, bft_batch_commit(batch, BFT_SYNC, NULL));
    expect_ok(bft_batch_put(batch, tree, k, k));
    expect_status(BFT_READ_ONLY, bft_batch_commit(batch, BFT_NONE, NULL));
    bft_batch_free(batch);
    expect_status(BFT_READ_ONLY, bft_tree_drop(f->db, "t"));
    expect_status(BFT_READ_ONLY,
                  bft_bulk_load(tree, NULL, no_record, NULL, NULL));
    expect_status(BFT_READ_ONLY, bft_tree_truncate(f->db, "t"));
    expect_status(BFT_READ_ONLY, bft_tree_rename(f->db, "t", "u"));
    expect_status(BFT_READ_ONLY, bft_checkpoint(f->db));
    expect_status(BFT_READ_ONLY, bft_sync(f->db));
    expect_status(BFT_READ_ONLY, bft_wait_durable(f->db, 0));
    check_some(f->db, 10);
    engine_close(f);
    assert_int_equal(steps, bfti_sim_steps(f->vfs));
    engine_fixture_free(f);
}

static void only_what_is_there_can_be_read(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    bft_options options = f->options;
    char path[300];
    struct stat st;
    bft_db *db;
    (void)state;
    options.read_only = true;
    expect_status(BFT_NOT_FOUND, bft_open(f->path, &options, &db));
    (void)snprintf(path, sizeof(path), "%s/none", f->path);
    expect_status(BFT_NOT_FOUND, bft_open(path, &options, &db));
    assert_int_equal(-1, stat(path, &st));
    options.error_if_exists = true;
    expect_status(BFT_INVALID, bft_open(f->path, &options, &db));
    engine_fixture_free(f);
}

/* In a process of its own, the status of opening. */
static int status_elsewhere(const char *path, const bft_options *options)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bft_db *db;
        bft_status opened = bft_open(path, options, &db);
        _exit(-(int)opened);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static void readers_share_and_keep_writers_out(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    bft_options reads, writes;
    bft_db *db;
    (void)state;
    f->options.no_threads = true; /* one may hold a lock while we fork */
    engine_open(f);
    writes = f->options;
    put_some(engine_tree(f, "t", 512), 0, 10);
    reads = writes;
    reads.read_only = true;
    assert_int_equal(BFT_BUSY, status_elsewhere(f->path, &reads));
    expect_status(BFT_INVALID, bft_open(f->path, &reads, &db));
    engine_close(f);
    f->options.read_only = true;
    engine_open(f);
    assert_int_equal(BFT_OK, status_elsewhere(f->path, &reads));
    assert_int_equal(BFT_BUSY, status_elsewhere(f->path, &writes));
    expect_status(BFT_INVALID, bft_open(f->path, &writes, &db));
    expect_ok(bft_open(f->path, &reads, &db));
    check_some(db, 10);
    expect_ok(bft_close(db));
    check_some(f->db, 10);
    engine_close(f);
    f->options.read_only = false;
    engine_open(f);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_crash_left_is_read_and_stays_as_it_is),
        cmocka_unit_test(every_write_is_refused),
        cmocka_unit_test(only_what_is_there_can_be_read),
        cmocka_unit_test(readers_share_and_keep_writers_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
