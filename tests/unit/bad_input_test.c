/*
 * Bad input, misuse, full disks and damaged files: each a status with a text
 * that names what and where; nothing is lost and nothing crashes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/engine_fixture.h"

enum { FULL_VALUE_MAX = 3000 };

static const bft_slice none = {NULL, 0};

static bft_slice text_slice(const char *text)
{
    bft_slice s = {text, strlen(text)};
    return s;
}

/* The last failure's text has WORDS in it. */
static void expect_text(const char *words)
{
    char text[512];
    bft_last_error(text, sizeof(text));
    if (!strstr(text, words))
        fail_msg("\"%s\" does not name \"%s\"", text, words);
}

static void put_n(bft_tree *tree, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char key[32], value[64];
        snprintf(key, sizeof(key), "key%06u", i);
        snprintf(value, sizeof(value), "value of %u", i);
        expect_ok(bft_put(tree, text_slice(key), text_slice(value)));
    }
}

/* --- keys and values ----------------------------------------------------- */

static void keys_are_one_to_1024_bytes(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    char big[BFT_KEY_MAX + 1] = {1};
    bft_slice longest = {big, BFT_KEY_MAX}, too_long = {big, sizeof(big)};
    char buf[8];
    void *copy;
    size_t len;
    bft_cursor *cursor;
    bft_snapshot *snapshot;

    (void)state;
    expect_status(BFT_INVALID, bft_put(tree, none, text_slice("v")));
    expect_text("tree t: the key is empty");
    expect_status(BFT_INVALID,
                  bft_put(tree, text_slice("k"), (bft_slice){NULL, 5}));
    expect_text("tree t: the value is NULL");
    expect_status(BFT_INVALID, bft_get(tree, none, buf, 8, &len));
    expect_status(BFT_INVALID, bft_delete(tree, none));
    expect_status(BFT_TOO_BIG, bft_put(tree, too_long, text_slice("v")));
    expect_text("tree t: the key has 1025");
    expect_status(BFT_TOO_BIG, bft_get(tree, too_long, buf, 8, &len));
    expect_status(BFT_TOO_BIG, bft_get_copy(tree, too_long, &copy, &len));
    expect_status(BFT_TOO_BIG, bft_get_range(tree, too_long, 0, buf, 8, &len));
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_status(BFT_TOO_BIG,
                  bft_snapshot_get(snapshot, tree, too_long, buf, 8, &len));
    expect_status(BFT_TOO_BIG,
                  bft_snapshot_get_copy(snapshot, tree, too_long, &copy, &len));
    bft_snapshot_release(snapshot);
    expect_ok(bft_put(tree, longest, text_slice("v")));
    expect_ok(bft_get(tree, longest, buf, 8, &len));
    assert_int_equal(1, len);
    /* Small leaves take short keys only, and say so. */
    expect_status(BFT_TOO_BIG,
                  bft_put(engine_tree(f, "small", 512), longest, none));
    expect_text("small");
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_status(BFT_TOO_BIG, bft_cursor_seek(cursor, BFT_GE, too_long));
    expect_status(BFT_TOO_BIG, bft_cursor_bounds(cursor, none, too_long));
    expect_status(BFT_TOO_BIG, bft_cursor_prefix(cursor, too_long));
    expect_status(BFT_TOO_BIG, bft_delete_range(tree, too_long, none, NULL));
    expect_text("1025");
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

static void empty_values_are_values(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    size_t len = 99;

    (void)state;
    expect_ok(bft_put(tree, text_slice("k"), none));
    expect_ok(bft_get(tree, text_slice("k"), NULL, 0, &len));
    assert_int_equal(0, len);
    engine_fixture_free(f);
}

static void a_buffer_too_small_tells_the_length(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    char buf[4] = "abc";
    size_t len;

    (void)state;
    expect_ok(bft_put(tree, text_slice("k"), text_slice("0123456789")));
    expect_status(BFT_TOO_SMALL,
                  bft_get(tree, text_slice("k"), buf, sizeof(buf), &len));
    assert_int_equal(10, len);
    assert_string_equal("abc", buf);
    engine_fixture_free(f);
}

static void null_arguments_are_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0), *other;
    bft_slice bad = {NULL, 5};
    bft_batch *batch;
    bft_cursor *cursor;
    bft_db *db;
    size_t len;
    char buf[4];

    (void)state;
    expect_status(BFT_INVALID, bft_open(NULL, NULL, &db));
    expect_status(BFT_INVALID, bft_open("", NULL, &db));
    expect_status(BFT_INVALID, bft_open("x", NULL, NULL));
    expect_status(BFT_INVALID, bft_tree_open(NULL, "t", NULL, &other));
    expect_status(BFT_INVALID, bft_tree_open(f->db, NULL, NULL, &other));
    expect_status(BFT_INVALID, bft_tree_open(f->db, "", NULL, &other));
    expect_status(BFT_INVALID, bft_tree_open(f->db, "t", NULL, NULL));
    expect_status(BFT_INVALID, bft_put(NULL, text_slice("k"), none));
    expect_status(BFT_INVALID, bft_put(tree, text_slice("k"), bad));
    expect_status(BFT_INVALID, bft_get(tree, text_slice("k"), buf, 4, NULL));
    expect_status(BFT_INVALID, bft_get(tree, text_slice("k"), NULL, 4, &len));
    expect_status(BFT_INVALID, bft_batch_create(NULL, &batch));
    expect_status(BFT_INVALID, bft_batch_create(f->db, NULL));
    expect_status(BFT_INVALID, bft_batch_commit(NULL, BFT_DEFAULT, NULL));
    expect_status(BFT_INVALID, bft_cursor_open(tree, NULL));
    expect_status(BFT_INVALID, bft_cursor_open(NULL, &cursor));
    expect_status(BFT_INVALID, bft_cursor_open_newest(tree, NULL));
    expect_status(BFT_INVALID, bft_cursor_next(NULL));
    expect_status(BFT_INVALID,
                  bft_put_stream(tree, text_slice("k"), 5, NULL, NULL));
    expect_status(BFT_INVALID, bft_stats_read(f->db, NULL));
    expect_status(BFT_INVALID, bft_checkpoint(NULL));
    bft_batch_free(NULL);
    bft_cursor_close(NULL);
    bft_free(NULL);
    assert_int_equal(BFT_OK, bft_close(NULL));
    engine_fixture_free(f);
}

static bft_status never(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    (void)buf;
    fail_msg("%zu bytes of the value were asked for", len);
    return BFT_INVALID;
}

/* Sums of them wrap around, and no log has room for them.  Without threads: one
 * makes the log's next segment ahead of need. */
static void lengths_that_cannot_be_are_refused_at_once(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_slice key = {"k", SIZE_MAX - 5000}, value = {"v", SIZE_MAX - 100};
    bft_stats before;
    bft_tree *tree;
    bft_batch *batch;
    size_t len = 9;

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    before = engine_stats(f);
    expect_status(BFT_TOO_BIG, bft_put(tree, text_slice("k"), value));
    expect_status(BFT_TOO_BIG, bft_insert(tree, key, none));
    expect_status(BFT_TOO_BIG, bft_delete(tree, key));
    /* Key and value seem to fit into a leaf together. */
    expect_status(BFT_TOO_BIG, bft_put_stream(tree, key, 10000, never, NULL));
    expect_ok(bft_batch_create(f->db, &batch));
    expect_status(BFT_TOO_BIG,
                  bft_batch_put(batch, tree, text_slice("k"), value));
    expect_status(BFT_TOO_BIG, bft_batch_delete(batch, tree, key));
    bft_batch_free(batch);
    expect_status(BFT_INVALID, bft_get(tree, text_slice("k"), NULL, 4, &len));
    assert_int_equal(0, len);
    assert_int_equal(before.log_segments_made,
                     engine_stats(f).log_segments_made);
    engine_fixture_free(f);
}

static void closed_handles_are_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_db *db = f->db;
    char buf[4];
    size_t len;

    (void)state;
    engine_close(f);
    expect_status(BFT_INVALID, bft_put(tree, text_slice("k"), none));
    expect_text("closed");
    expect_status(BFT_INVALID, bft_get(tree, text_slice("k"), buf, 4, &len));
    expect_status(BFT_INVALID, bft_checkpoint(db));
    expect_text("closed");
    expect_status(BFT_INVALID, bft_close(db));
    engine_fixture_free(f);
}

static void a_batch_takes_trees_of_its_own_database_only(void **state)
{
    struct engine_fixture *a = engine_fixture_open(ENGINE_MEMORY);
    struct engine_fixture *b = engine_fixture_open(ENGINE_MEMORY);
    bft_batch *batch;

    (void)state;
    expect_ok(bft_batch_create(a->db, &batch));
    expect_status(BFT_INVALID, bft_batch_put(batch, engine_tree(b, "t", 0),
                                             text_slice("k"), none));
    expect_text("another database");
    bft_batch_free(batch);
    engine_fixture_free(b);
    engine_fixture_free(a);
}

static void a_batch_over_an_eighth_of_the_budget_is_too_big(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    static char value[40000];
    bft_slice big = {value, sizeof(value)};
    bft_batch *batch;

    (void)state;
    expect_ok(bft_batch_create(f->db, &batch));
    expect_status(BFT_TOO_BIG,
                  bft_batch_put(batch, tree, text_slice("k"), big));
    expect_text("1/8");
    /* What it held before is untouched. */
    expect_ok(bft_batch_put(batch, tree, text_slice("k"), text_slice("v")));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    engine_fixture_free(f);
}

/* --- paths --------------------------------------------------------------- */

static void a_path_that_is_a_file_is_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_POSIX);
    char path[300];
    FILE *file;
    bft_db *db;

    (void)state;
    snprintf(path, sizeof(path), "%s/a_file", f->path);
    file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    expect_status(BFT_INVALID, bft_open(path, NULL, &db));
    expect_text(path);
    snprintf(path, sizeof(path), "%s/no/such/parent", f->path);
    expect_status(BFT_NOT_FOUND, bft_open(path, NULL, &db));
    expect_text(path);
    engine_fixture_free(f);
}

/* In a child, as somebody whom permissions bind. */
static void a_read_only_directory_is_refused(void **state)
{
    char dir[] = "bad_input_XXXXXX", path[64], text[200];
    int status;
    pid_t child;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/db", dir);
    assert_int_equal(0, chmod(dir, 0555));
    fflush(NULL);
    child = fork();
    if (child == 0) {
        bft_db *db;
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(3);
        if (bft_open(path, NULL, &db) != BFT_READ_ONLY)
            _exit(1);
        bft_last_error(text, sizeof(text));
        _exit(strstr(text, path) ? 0 : 2);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    assert_int_equal(0, WEXITSTATUS(status));
    chmod(dir, 0755);
    rmdir(dir);
}

/* Making such a log segment would fill the disk with zeros first. */
static void gigantic_options_are_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    const char *words = sizeof(size_t) > 4
                            ? "option memory_bytes: is 256 KiB to 1 TiB"
                            : "option memory_bytes: is 256 KiB to 1 GiB";

    (void)state;
    f->options.log_segment_bytes = UINT64_C(1) << 40;
    expect_status(BFT_INVALID, engine_open_status(f));
    expect_text("option log_segment_bytes: is a multiple");
    f->options.log_segment_bytes = 64 << 10;
    f->options.memory_bytes = UINT64_C(1) << 62;
    expect_status(BFT_INVALID, engine_open_status(f));
    expect_text(words);
    f->options.memory_bytes = UINT64_MAX;
    expect_status(BFT_INVALID, engine_open_status(f));
    expect_text(words);
    f->options.memory_bytes = 256 << 10;
    engine_open(f);
    engine_fixture_free(f);
}

static void must_exist_and_error_if_exists_are_kept(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);

    (void)state;
    f->options.must_exist = true;
    expect_status(BFT_NOT_FOUND, engine_open_status(f));
    f->options.must_exist = false;
    engine_open(f);
    engine_close(f);
    f->options.error_if_exists = true;
    /* provokes: bft_open BFT_EXISTS */
    expect_status(BFT_EXISTS, engine_open_status(f));
    f->options.error_if_exists = false;
    engine_open(f);
    engine_fixture_free(f);
}

/* --- files --------------------------------------------------------------- */

static void data_path(const struct engine_fixture *f, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s/data", f->path);
}

static void a_newer_format_is_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct bfti_superblock sb[2];
    bft_status verdict[2];
    struct bfti_pagefile_options options;
    struct bfti_pagefile *pf;
    char path[300];

    (void)state;
    put_n(engine_tree(f, "t", 0), 10);
    engine_close(f);
    data_path(f, path, sizeof(path));
    memset(&options, 0, sizeof(options));
    options.env = bfti_env_system();
    options.vfs = f->vfs;
    options.path = path;
    expect_ok(bfti_pagefile_open(&options, &pf));
    expect_ok(bfti_superblock_read(pf, sb, verdict));
    for (unsigned i = 0; i < 2; i++) {
        sb[i].major = 9;
        expect_ok(bfti_superblock_write(pf, i, &sb[i]));
    }
    bfti_pagefile_close(pf);
    /* provokes: bft_open BFT_TOO_NEW */
    expect_status(BFT_TOO_NEW, engine_open_status(f));
    expect_text(f->path);
    expect_text("format 9.0");
    f->options.error_if_exists = true; /* it is there all the same */
    expect_status(BFT_EXISTS, engine_open_status(f));
    engine_fixture_free(f);
}

static void a_truncated_page_file_is_damage(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    char path[300];
    bft_status status;

    (void)state;
    put_n(engine_tree(f, "t", 0), 3000);
    expect_ok(bft_checkpoint(f->db));
    engine_close(f);
    data_path(f, path, sizeof(path));
    expect_ok(bfti_sim_cut(f->vfs, path, 16384));
    status = engine_open_status(f);
    if (status == BFT_OK) {
        /* What opening did not need to read, verify does. */
        status = bft_verify(f->db);
    }
    assert_int_equal(BFT_CORRUPT, status);
    expect_text("data");
    if (f->db)
        (void)(bft_close(f->db) == BFT_OK);
    f->db = NULL;
    engine_fixture_free(f);
}

/* A flipped bit anywhere in the page file is either of no account or told. */
static void flipped_bits_are_told_never_returned(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    uint64_t bytes;
    unsigned told = 0;
    char path[300];

    (void)state;
    put_n(engine_tree(f, "t", 0), 1000);
    expect_ok(bft_checkpoint(f->db));
    engine_close(f);
    data_path(f, path, sizeof(path));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, path, &bytes));
    for (uint64_t at = 8192 + 100; at < bytes; at += UINT64_C(3) * 512) {
        bft_status status;
        expect_ok(bfti_sim_flip(f->vfs, path, at, 0x10));
        status = engine_open_status(f);
        if (status == BFT_OK) {
            bft_tree *tree;
            status = bft_tree_open(f->db, "t", NULL, &tree);
            for (unsigned i = 0; status == BFT_OK && i < 1000; i++) {
                char key[32], value[64], want[64];
                size_t len;
                snprintf(key, sizeof(key), "key%06u", i);
                snprintf(want, sizeof(want), "value of %u", i);
                status =
                    bft_get(tree, text_slice(key), value, sizeof(value), &len);
                if (status == BFT_OK) {
                    assert_int_equal(strlen(want), len);
                    assert_memory_equal(want, value, len);
                }
            }
        }
        if (status != BFT_OK) {
            assert_int_equal(BFT_CORRUPT, status);
            expect_text("data");
            told++;
        }
        if (f->db)
            (void)(bft_close(f->db) == BFT_OK);
        f->db = NULL;
        expect_ok(bfti_sim_flip(f->vfs, path, at, 0x10));
    }
    assert_true(told > 5);
    engine_fixture_free(f);
}

/* Once a checkpoint is over, both superblocks lead to its image. */
static void one_damaged_superblock_is_no_loss(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 2; slot++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct bfti_vfs *image;
        char path[300];
        uint64_t keys;

        f->options.log_segment_bytes = 64 << 10;
        f->options.log_bytes = 64 << 20; /* no other checkpoint */
        f->options.memory_bytes = 16 << 20;
        f->options.no_threads = true;
        engine_open(f);
        for (unsigned i = 0; i < 3; i++) { /* the log of the first is gone */
            put_n(engine_tree(f, "t", 512), 12000);
            expect_ok(bft_checkpoint(f->db));
        }
        expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &image));
        engine_close(f);
        bfti_vfs_sim_destroy(f->vfs);
        f->vfs = image;
        data_path(f, path, sizeof(path));
        expect_ok(
            bfti_sim_flip(f->vfs, path, slot * (uint64_t)BFTI_BLOCK + 100, 1));
        engine_open(f);
        expect_ok(bft_count(engine_tree(f, "t", 512), (bft_slice){NULL, 0},
                            (bft_slice){NULL, 0}, &keys));
        assert_int_equal(12000, keys);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* Zeros where both superblocks were, or no page file: that there was a database
 * shows by the rest. */
static void lost_superblocks_are_no_new_database(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    static const char zeros[8192];
    char path[300];

    (void)state;
    data_path(f, path, sizeof(path));
    put_n(engine_tree(f, "t", 0), 10);
    engine_crash(f, BFTI_SIM_KEEP, 1);
    put_n(engine_tree(f, "t", 0), 20);
    expect_ok(bft_close(f->db));
    /* The log tells, in which the database began ... */
    expect_ok(bfti_sim_put(f->vfs, path, zeros, 0));
    expect_status(BFT_CORRUPT, engine_open_status(f));
    expect_text(path);
    expect_text("the log has frames");
    /* ... also beside a part of a superblock ... */
    expect_ok(bfti_sim_put(f->vfs, path, "part", 4));
    expect_status(BFT_CORRUPT, engine_open_status(f));
    expect_text("the log has frames");
    /* ... and the page file, which has more than a superblock. */
    expect_ok(bfti_sim_put(f->vfs, path, zeros, sizeof(zeros)));
    expect_status(BFT_CORRUPT, engine_open_status(f));
    expect_text("byte 4096");
    f->db = NULL;
    engine_fixture_free(f);
}

/* The same where of all frames only the first is not whole. */
static void nor_is_a_log_that_begins_with_damage(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_vfs *image;
    char path[300];

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    put_n(engine_tree(f, "t", 0), 10);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &image));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = image;
    data_path(f, path, sizeof(path));
    expect_ok(bfti_sim_put(f->vfs, path, "", 0));
    expect_ok(bfti_sim_flip(f->vfs, "/db/log-0000000000000000",
                            BFTI_FRAME_HEADER, 1));
    expect_status(BFT_CORRUPT, engine_open_status(f));
    expect_text("the log has frames");
    f->db = NULL;
    engine_fixture_free(f);
}

/* Nothing was ever in it. */
static void a_creation_that_was_cut_off_is_begun_again(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_WRITE,
                                   .path = "/data",
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    char path[300];

    (void)state;
    data_path(f, path, sizeof(path));
    bfti_sim_fail(f->vfs, &fault);
    expect_status(BFT_IO, engine_open_status(f));
    assert_int_equal(1, bfti_sim_struck(f->vfs));
    f->db = NULL;
    /* What such a write may leave of a superblock. */
    expect_ok(bfti_sim_put(f->vfs, path, "part", 4));
    /* Who only reads finds none, and begins none. */
    f->options.read_only = true;
    expect_status(BFT_NOT_FOUND, engine_open_status(f));
    expect_text("never finished being made");
    f->db = NULL;
    f->options.read_only = false;
    /* Nor does who only opens; and who only makes one may. */
    f->options.must_exist = true;
    expect_status(BFT_NOT_FOUND, engine_open_status(f));
    expect_text("never finished being made");
    f->options.must_exist = false;
    f->options.error_if_exists = true;
    engine_open(f);
    f->options.error_if_exists = false;
    put_n(engine_tree(f, "t", 0), 10);
    engine_reopen(f);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A checkpoint that fails may leave a part of its superblock: that is no damage,
 * before the next one writes it whole. */
static void a_superblock_cut_off_by_a_failure_is_no_damage(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_WRITE,
                                   .path = "/data",
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_NO_SPACE};
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_status status = BFT_NO_SPACE;
    unsigned cut = 0;
    char path[300];

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    data_path(f, path, sizeof(path));
    for (fault.nth = 1; status != BFT_OK; fault.nth++) {
        struct bfti_engine *engine = f->db->engine;

        put_n(engine_tree(f, "t", 0), 10);
        bfti_sim_fail(f->vfs, &fault);
        status = bft_checkpoint(f->db);
        bfti_sim_heal(f->vfs);
        if (status != BFT_OK)
            expect_status(BFT_NO_SPACE, status);
        if (!engine->superblock_cut)
            continue;
        cut++;
        expect_ok(bfti_sim_flip(
            f->vfs, path, (engine->superblock_slot ^ 1u) * BFTI_BLOCK + 100,
            1));
        expect_ok(bft_verify(f->db));
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_verify(f->db));
    }
    assert_int_equal(2, cut); /* the superblock, and its twin */
    expect_ok(bfti_sim_flip(f->vfs, path, 100, 1));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    engine_fixture_free(f);
}

/* The tree goes, and so does its memory; its space, as far as it cannot be
 * known, is lost. */
static void a_damaged_tree_is_dropped_and_told(void **state)
{
    static const char large[2000];
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    uint64_t bytes;
    char path[300];
    bft_tree *tree;

    (void)state;
    tree = engine_tree(f, "t", 0);
    put_n(tree, 1000);
    /* Only leaves tell of large values: they must be read. */
    expect_ok(
        bft_put(tree, text_slice("k"), (bft_slice){large, sizeof(large)}));
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    data_path(f, path, sizeof(path));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, path, &bytes));
    for (uint64_t at = 8192 + 100; at < bytes; at += 4096)
        expect_ok(bfti_sim_flip(f->vfs, path, at, 0x10));
    expect_status(BFT_CORRUPT, bft_tree_drop(f->db, "t"));
    expect_text("data");
    expect_status(BFT_GONE, bft_put(tree, text_slice("k"), none));
    (void)(bft_close(f->db) == BFT_OK);
    f->db = NULL;
    engine_fixture_free(f);
}

/* Short ones, and some that are outside leaves. */
static bft_slice value_of(unsigned n, uint8_t value[FULL_VALUE_MAX])
{
    size_t len = n % 16 ? 8 + n % 60 : FULL_VALUE_MAX - n % 100;
    memset(value, (int)(n % 251), len);
    memcpy(value, &n, sizeof(n));
    return (bft_slice){value, len};
}

/* Key after key, until the disk is full. */
static unsigned write_until_full(bft_tree *tree, unsigned written)
{
    bft_status status = BFT_OK;
    while (status == BFT_OK && written < 1000000) {
        uint8_t value[FULL_VALUE_MAX];
        char key[32];
        snprintf(key, sizeof(key), "key%06u", written);
        status = bft_put(tree, text_slice(key), value_of(written, value));
        written += status == BFT_OK;
    }
    assert_int_equal(BFT_NO_SPACE, status);
    return written;
}

static void expect_all(bft_tree *tree, unsigned written)
{
    for (unsigned i = 0; i < written; i++) {
        uint8_t value[FULL_VALUE_MAX], got[FULL_VALUE_MAX];
        bft_slice wanted = value_of(i, value);
        char key[32];
        size_t len;
        snprintf(key, sizeof(key), "key%06u", i);
        expect_ok(bft_get(tree, text_slice(key), got, sizeof(got), &len));
        assert_int_equal(wanted.len, len);
        assert_memory_equal(wanted.data, got, len);
    }
}

/* It is full after SPACE bytes more, twice, and has room again after each time. */
static void check_full_disk(uint64_t space)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    unsigned written = 0;
    bft_tree *tree;

    f->tolerated = BFT_NO_SPACE;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    for (unsigned times = 0; times < 2; times++) {
        bfti_sim_set_capacity(f->vfs, bfti_sim_used(f->vfs) + space);
        written = write_until_full(tree, written);
        expect_all(tree, written);
        bfti_sim_set_capacity(f->vfs, UINT64_MAX);
        /* The one that was refused comes first. */
        for (unsigned i = 0; i < 100; i++, written++) {
            uint8_t value[FULL_VALUE_MAX];
            char key[32];
            snprintf(key, sizeof(key), "key%06u", written);
            expect_ok(bft_put(tree, text_slice(key), value_of(written, value)));
        }
    }
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    expect_all(engine_tree(f, "t", 0), written);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void a_full_disk_is_told_and_loses_nothing(void **state)
{
    (void)state;
    for (unsigned kilobytes = 20; kilobytes < 600; kilobytes += 28)
        check_full_disk((uint64_t)kilobytes << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_one_to_1024_bytes),
        cmocka_unit_test(empty_values_are_values),
        cmocka_unit_test(a_buffer_too_small_tells_the_length),
        cmocka_unit_test(null_arguments_are_refused),
        cmocka_unit_test(lengths_that_cannot_be_are_refused_at_once),
        cmocka_unit_test(closed_handles_are_refused),
        cmocka_unit_test(a_batch_takes_trees_of_its_own_database_only),
        cmocka_unit_test(a_batch_over_an_eighth_of_the_budget_is_too_big),
        cmocka_unit_test(a_path_that_is_a_file_is_refused),
        cmocka_unit_test(a_read_only_directory_is_refused),
        cmocka_unit_test(gigantic_options_are_refused),
        cmocka_unit_test(must_exist_and_error_if_exists_are_kept),
        cmocka_unit_test(a_newer_format_is_refused),
        cmocka_unit_test(a_truncated_page_file_is_damage),
        cmocka_unit_test(flipped_bits_are_told_never_returned),
        cmocka_unit_test(one_damaged_superblock_is_no_loss),
        cmocka_unit_test(lost_superblocks_are_no_new_database),
        cmocka_unit_test(nor_is_a_log_that_begins_with_damage),
        cmocka_unit_test(a_creation_that_was_cut_off_is_begun_again),
        cmocka_unit_test(a_superblock_cut_off_by_a_failure_is_no_damage),
        cmocka_unit_test(a_damaged_tree_is_dropped_and_told),
        cmocka_unit_test(a_full_disk_is_told_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
