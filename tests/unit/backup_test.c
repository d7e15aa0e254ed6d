/*
 * Backups of a database in use: what the copy holds, where it may go, and what
 * is left when it fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backup_model.h"
#include "random.h"

/* --- the copy ------------------------------------------------------------- */

enum { CHANGED = 5 };

/* Changes the database in all ways while the copy is made. */
struct changer {
    struct engine_fixture *f;
    struct model *model;
    unsigned calls;
    uint64_t lsn, most_held;
    bool whole;
};

static bft_status change(void *ctx, const bft_backup_progress *now)
{
    struct changer *c = ctx;
    bft_stats stats = {.size = sizeof(stats)};
    char name[32];
    assert_true(c->lsn == 0 || c->lsn == now->lsn);
    assert_true(now->total_bytes > 0);
    assert_true(now->copied_bytes <= now->total_bytes);
    c->lsn = now->lsn;
    c->whole = now->copied_bytes == now->total_bytes;
    if (++c->calls > CHANGED)
        return BFT_OK;
    model_change(c->model, c->f->db, 400);
    expect_ok(bft_checkpoint(c->f->db));
    snprintf(name, sizeof(name), "made %u", c->calls);
    model_change(c->model, c->f->db, 100);
    expect_ok(bft_put(engine_tree(c->f, name, 512), (bft_slice){"k", 1},
                      (bft_slice){"v", 1}));
    if (c->calls == 2)
        model_truncate(c->model, c->f->db, 1);
    expect_ok(bft_checkpoint(c->f->db));
    expect_ok(bft_stats_read(c->f->db, &stats));
    assert_true(stats.backup_held_bytes <= stats.held_bytes);
    if (stats.backup_held_bytes > c->most_held)
        c->most_held = stats.backup_held_bytes;
    return BFT_OK;
}

static void the_copy_is_what_was_there_at_the_call(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_make((enum engine_backend)b);
        struct model *model = model_make(seed + (uint64_t)b);
        struct changer changer = {.f = f, .model = model};
        bft_backup_options options = {
            .size = sizeof(options), .progress = change, .ctx = &changer};
        char path[300];
        struct model *then;
        f->options.compress = b & 1;
        engine_open(f);
        model_change(model, f->db, 4000);
        if (b == ENGINE_POSIX)
            engine_reopen(f);
        model_change(model, f->db, 1000);
        then = model_copy(model);
        expect_ok(bft_backup(f->db, backup_path(f, path), &options));
        assert_true(changer.calls > 1 && changer.whole);
        assert_true(changer.most_held > 0);
        expect_ok(bft_verify(f->db));
        model_check(model, f->db);
        assert_int_equal(0, engine_stats(f).backup_held_bytes);
        for (int round = 0; round < 3; round++) {
            bft_db *copy = backup_open(f, path, round == 1);
            model_check(then, copy);
            expect_ok(bft_verify(copy));
            if (round == 0) { /* a life of its own */
                model_change(then, copy, 500);
                expect_ok(bft_verify(copy));
            }
            expect_ok(bft_close(copy));
        }
        engine_end_background(f);
        /* The space that was held is used again; what the log's last frame may
         * name, when there are others behind it. */
        model_change(model, f->db, 10);
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_put(engine_tree(f, "t", 0), (bft_slice){"k", 1},
                          (bft_slice){"v", 1}));
        expect_ok(bft_checkpoint(f->db));
        model_check(model, f->db);
        assert_true(engine_stats(f).held_bytes <
                    engine_stats(f).live_bytes / 2);
        model_free(then);
        model_free(model);
        backup_remove(f, path);
        engine_fixture_free(f);
    }
}

/* Nothing to copy, no log to go with it; and a copy of a copy. */
static void an_empty_database_has_a_copy_too(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        struct model *none = model_make(1);
        char path[300], second[310];
        bft_db *copy;
        expect_ok(bft_backup(f->db, backup_path(f, path), NULL));
        copy = backup_open(f, path, false);
        model_check(none, copy);
        expect_ok(bft_verify(copy));
        snprintf(second, sizeof(second), "%s2", path);
        expect_ok(bft_backup(copy, second, NULL));
        expect_ok(bft_close(copy));
        copy = backup_open(f, second, false);
        expect_ok(bft_verify(copy));
        expect_ok(bft_close(copy));
        backup_remove(f, path);
        backup_remove(f, second);
        model_free(none);
        engine_fixture_free(f);
    }
}

static void a_read_only_database_is_copied_and_not_changed(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct model *model = model_make(random_start());
    char path[300];
    bft_db *copy;
    (void)state;
    f->options.no_threads = true; /* no checkpoint comes by itself */
    engine_open(f);
    model_change(model, f->db, 2000);
    expect_ok(bft_sync(f->db));
    f->options.read_only = true;
    engine_crash(f, BFTI_SIM_KILL, 1);
    assert_true(engine_stats(f).recovered_frames > 0);
    expect_ok(bft_backup(f->db, backup_path(f, path), NULL));
    model_check(model, f->db);
    engine_close(f);
    copy = backup_open(f, path, true);
    model_check(model, copy);
    expect_ok(bft_verify(copy));
    expect_ok(bft_close(copy));
    model_free(model);
    engine_fixture_free(f);
}

/* --- moving ----------------------------------------------------------------- */

/* The copy is files, and files may be copied by whatever copies them. */
struct mover {
    struct engine_fixture *f;
    const char *from, *to;
};

static void move_name(void *arg, const char *name)
{
    const struct mover *mover = arg;
    struct bfti_vfs *vfs = mover->f->vfs;
    static uint8_t bytes[1 << 16];
    struct bfti_file *in, *out;
    char path[600];
    size_t got = sizeof(bytes);
    snprintf(path, sizeof(path), "%s/%s", mover->from, name);
    expect_ok(vfs->ops->open(vfs, path, BFTI_OPEN_READ_ONLY, &in));
    snprintf(path, sizeof(path), "%s/%s", mover->to, name);
    expect_ok(vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &out));
    for (uint64_t at = 0; got == sizeof(bytes); at += got) {
        expect_ok(in->ops->read(in, at, bytes, sizeof(bytes), &got));
        expect_ok(out->ops->write(out, at, bytes, got));
    }
    in->ops->close(in);
    out->ops->close(out);
}

static void a_copied_directory_is_the_database_too(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        struct model *model = model_make(random_start());
        char path[300], restored[310];
        struct mover mover = {f, backup_path(f, path), restored};
        bft_db *copy;
        model_change(model, f->db, 1500);
        expect_ok(bft_backup(f->db, path, NULL));
        snprintf(restored, sizeof(restored), "%s-restored", path);
        expect_ok(f->vfs->ops->make_dir(f->vfs, restored));
        expect_ok(f->vfs->ops->list(f->vfs, path, move_name, &mover));
        for (int i = 0; i < 2; i++) {
            copy = backup_open(f, i == 0 ? restored : path, false);
            model_check(model, copy);
            expect_ok(bft_verify(copy));
            expect_ok(bft_close(copy));
        }
        model_free(model);
        backup_remove(f, path);
        backup_remove(f, restored);
        engine_fixture_free(f);
    }
}

/* From memory to files, and from those to memory; with surroundings of the
 * library's own. */
static void a_copy_goes_from_memory_to_files_and_back(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    struct model *model = model_make(random_start());
    bft_options in_memory = f->options, in_files = f->options;
    bft_backup_options to = {.size = sizeof(to)};
    char path[300];
    bft_db *first, *second, *third;
    (void)state;
    in_memory.storage = BFT_STORAGE_MEMORY;
    in_files.must_exist = true;
    expect_ok(bft_open("first", &in_memory, &first));
    model_change(model, first, 1500);
    to.to = BFT_BACKUP_FILES;
    expect_ok(bft_backup(first, backup_path(f, path), &to));
    expect_ok(bft_close(first));
    expect_ok(bft_open(path, &in_files, &second));
    model_check(model, second);
    model_change(model, second, 500);
    to.to = BFT_BACKUP_MEMORY;
    expect_ok(bft_backup(second, "third", &to));
    expect_ok(bft_close(second));
    in_memory.must_exist = true;
    expect_ok(bft_open("third", &in_memory, &third));
    model_check(model, third);
    expect_ok(bft_verify(third));
    to.to = (bft_backup_to)7;
    expect_status(BFT_INVALID, bft_backup(third, "fourth", &to));
    expect_ok(bft_close(third));
    expect_status(BFT_NOT_FOUND, bft_open("third", &in_memory, &third));
    model_free(model);
    backup_remove(f, path);
    engine_fixture_free(f);
}

/* --- where it may go -------------------------------------------------------- */

struct asked {
    struct engine_fixture *f;
    const char *path;
};

static bft_status ask_for_more(void *ctx, const bft_backup_progress *now)
{
    const struct asked *asked = ctx;
    bft_options options = asked->f->options;
    char other[310];
    bft_db *db;
    (void)now;
    snprintf(other, sizeof(other), "%s2", asked->path);
    expect_status(BFT_BUSY, bft_backup(asked->f->db, other, NULL));
    expect_status(BFT_BUSY, bft_close(asked->f->db));
    options.internal = &asked->f->surroundings;
    expect_status(BFT_BUSY, bft_open(asked->path, &options, &db));
    return BFT_OK;
}

static void one_at_a_time_and_no_close_meanwhile(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        char path[300];
        struct asked asked = {f, backup_path(f, path)};
        bft_backup_options options = {
            .size = sizeof(options), .progress = ask_for_more, .ctx = &asked};
        bft_db *copy;
        expect_ok(bft_put(engine_tree(f, "t", 0), (bft_slice){"k", 1},
                          (bft_slice){"v", 1}));
        expect_ok(bft_backup(f->db, path, &options));
        copy = backup_open(f, path, false);
        expect_status(BFT_EXISTS, bft_backup(f->db, path, NULL));
        expect_ok(bft_close(copy));
        expect_status(BFT_EXISTS, bft_backup(f->db, path, NULL));
        expect_status(BFT_EXISTS, bft_backup(f->db, f->path, NULL));
        backup_remove(f, path);
        engine_fixture_free(f);
    }
}

static void put_file(struct engine_fixture *f, const char *path)
{
    struct bfti_file *file;
    expect_ok(f->vfs->ops->open(f->vfs, path, BFTI_OPEN_CREATE, &file));
    file->ops->close(file);
}

static void only_an_empty_directory_is_taken(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct bfti_vfs *vfs = f->vfs;
    bft_backup_options options = {.size = 1};
    bft_db *copy;
    (void)state;
    expect_status(BFT_INVALID, bft_backup(NULL, "/copy", NULL));
    expect_status(BFT_INVALID, bft_backup(f->db, NULL, NULL));
    expect_status(BFT_INVALID, bft_backup(f->db, "", NULL));
    expect_status(BFT_INVALID, bft_backup(f->db, "/copy", &options));
    expect_status(BFT_NOT_FOUND, bft_backup(f->db, "/none/copy", NULL));
    expect_ok(vfs->ops->make_dir(vfs, "/copy"));
    put_file(f, "/copy/notes");
    expect_status(BFT_EXISTS, bft_backup(f->db, "/copy", NULL));
    /* Not even a lock file is put there. */
    assert_int_equal(1, backup_names(f, "/copy"));
    expect_ok(vfs->ops->remove(vfs, "/copy/notes"));
    expect_ok(bft_backup(f->db, "/copy", NULL));
    copy = backup_open(f, "/copy", false);
    expect_ok(bft_close(copy));
    /* What is no backup is not taken for an unfinished one. */
    put_file(f, "/copy/backup-unfinished");
    put_file(f, "/copy/notes");
    expect_status(BFT_EXISTS, bft_backup(f->db, "/copy", NULL));
    put_file(f, "/file");
    assert_int_not_equal(BFT_OK, bft_backup(f->db, "/file", NULL));
    engine_fixture_free(f);
}

/* --- failing ---------------------------------------------------------------- */

static bft_status stop(void *ctx, const bft_backup_progress *now)
{
    unsigned *left = ctx;
    (void)now;
    return (*left)-- == 0 ? BFT_CONFLICT : BFT_OK;
}

/* A directory that nobody takes for a database, and that takes the next try. */
static void expect_unfinished(struct engine_fixture *f, const char *path)
{
    char text[400];
    bft_db *db;
    for (int i = 0; i < 8; i++) {
        bft_options options = f->options;
        options.internal = &f->surroundings;
        options.must_exist = (i & 1) != 0;
        options.read_only = (i & 2) != 0;
        options.error_if_exists = i == 4;
        expect_status(BFT_CORRUPT, bft_open(path, &options, &db));
        bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "not finished"));
        assert_non_null(strstr(text, path));
    }
}

static void a_cancelled_backup_is_no_database(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        struct model *model = model_make(1);
        char path[300];
        unsigned left;
        bft_backup_options options = {
            .size = sizeof(options), .progress = stop, .ctx = &left};
        bft_db *copy;
        backup_path(f, path);
        model_change(model, f->db, 2000);
        for (unsigned at = 0; at < 3; at++) {
            left = at;
            expect_status(BFT_CONFLICT, bft_backup(f->db, path, &options));
            expect_unfinished(f, path);
            /* Nothing but the mark and the lock is kept. */
            assert_int_equal(2, backup_names(f, path));
            assert_int_equal(0, engine_stats(f).backup_held_bytes);
        }
        expect_ok(bft_verify(f->db));
        expect_ok(bft_backup(f->db, path, NULL));
        copy = backup_open(f, path, false);
        model_check(model, copy);
        expect_ok(bft_close(copy));
        model_free(model);
        backup_remove(f, path);
        engine_fixture_free(f);
    }
}

/* After a backup that ended with STATUS: what is there? */
static void check_outcome(struct engine_fixture *f, const struct model *model,
                          bft_status status)
{
    bft_options options = f->options;
    bft_db *db;
    bft_status opened;
    options.internal = &f->surroundings;
    options.must_exist = true;
    opened = bft_open("/copy", &options, &db);
    if (opened == BFT_OK) {
        model_check(model, db);
        expect_ok(bft_close(db));
        return;
    }
    assert_int_not_equal(BFT_OK, status);
    if (opened != BFT_NOT_FOUND)
        assert_int_equal(BFT_CORRUPT, opened);
}

/* Each call on the copy's files in turn fails. */
static void no_failure_leaves_a_wrong_copy(void **state)
{
    const bft_status statuses[] = {BFT_IO, BFT_NO_SPACE};
    unsigned failed = 0;
    (void)state;
    for (uint64_t nth = 1, more = 1; more; nth++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct model *model = model_make(1);
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_ALL,
                                       .path = "/copy",
                                       .nth = nth,
                                       .harm = nth & 1 ? BFTI_SIM_REFUSE
                                                       : BFTI_SIM_PART,
                                       .status = statuses[nth / 2 % 2]};
        bft_status status;
        f->options.no_threads = true;
        engine_open(f);
        model_change(model, f->db, 300);
        bfti_sim_fail(f->vfs, &fault);
        status = bft_backup(f->db, "/copy", NULL);
        more = bfti_sim_struck(f->vfs);
        bfti_sim_heal(f->vfs);
        failed += status != BFT_OK;
        if (status != BFT_OK && status != BFT_IO)
            assert_int_equal(BFT_NO_SPACE, status);
        check_outcome(f, model, status);
        expect_ok(bft_verify(f->db));
        model_check(model, f->db);
        model_free(model);
        engine_fixture_free(f);
    }
    print_message("%u calls failed\n", failed);
    assert_true(failed > 10);
}

static void a_full_disk_ends_the_copy_and_not_the_database(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct model *model = model_make(1);
    uint64_t room = 400 << 10;
    bft_status status = BFT_NO_SPACE;
    (void)state;
    f->tolerated = BFT_NO_SPACE;
    engine_open(f);
    model_change(model, f->db, 2000);
    for (unsigned tries = 0; status != BFT_OK; tries++) {
        assert_true(tries < 100);
        /* What is left of a copy that failed may have taken all there was. */
        bfti_sim_set_capacity(f->vfs, UINT64_MAX);
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_checkpoint(f->db));
        bfti_sim_set_capacity(f->vfs, bfti_sim_used(f->vfs) + room);
        status = bft_backup(f->db, "/copy", NULL);
        if (status == BFT_OK)
            break;
        /* provokes: bft_backup BFT_NO_SPACE */
        assert_int_equal(BFT_NO_SPACE, status);
        expect_unfinished(f, "/copy");
        room += 400 << 10;
    }
    assert_true(room > 800 << 10);
    bfti_sim_set_capacity(f->vfs, UINT64_MAX);
    check_outcome(f, model, BFT_OK);
    model_check(model, f->db);
    expect_ok(bft_verify(f->db));
    model_free(model);
    engine_fixture_free(f);
}

static void no_memory_leaves_no_wrong_copy(void **state)
{
    unsigned failed = 0;
    bft_status status = BFT_NO_MEMORY;
    (void)state;
    for (int64_t left = 0; status != BFT_OK; left++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct model *model = model_make(1);
        f->options.no_threads = true;
        engine_open(f);
        model_change(model, f->db, 100);
        expect_ok(bft_checkpoint(f->db));
        atomic_store(&f->allocs_left, left);
        status = bft_backup(f->db, "/copy", NULL);
        atomic_store(&f->allocs_left, -1);
        if (status != BFT_OK) {
            /* provokes: bft_backup BFT_NO_MEMORY */
            assert_int_equal(BFT_NO_MEMORY, status);
            failed++;
        }
        check_outcome(f, model, status);
        model_check(model, f->db);
        model_free(model);
        engine_fixture_free(f);
    }
    assert_true(failed > 10);
}

/* --- a damaged database ------------------------------------------------------- */

/* Does BLOCK of the file PATH have bytes that are not 0? */
static bool is_used(struct engine_fixture *f, const char *path, uint64_t block)
{
    static uint8_t bytes[BFTI_BLOCK];
    size_t got;
    memset(bytes, 0, sizeof(bytes));
    expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, path, block * BFTI_BLOCK,
                            bytes, sizeof(bytes), &got));
    for (size_t i = 0; i < got; i++)
        if (bytes[i])
            return true;
    return false;
}

static void a_damaged_extent_is_named_and_not_copied(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct model *model = model_make(1);
    uint64_t bytes, seed = random_start();
    unsigned damaged = 0;
    (void)state;
    model_change(model, f->db, 3000);
    engine_reopen(f);
    expect_ok(bft_backup(f->db, "/first", NULL));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/first/data", &bytes));
    for (int i = 0; i < 60; i++) {
        uint64_t block = 2 + random_of(&seed) % (bytes / BFTI_BLOCK - 2);
        /* In the header or the first bytes behind it: of any extent. */
        uint64_t at = block * BFTI_BLOCK + random_of(&seed) % 48;
        char text[400];
        bft_status status;
        if (!is_used(f, "/first/data", block))
            continue;
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at, 4));
        status = bft_backup(f->db, "/copy", NULL);
        if (status == BFT_OK) { /* no extent of this image */
            backup_remove(f, "/copy");
        } else {
            /* provokes: bft_backup BFT_CORRUPT */
            assert_int_equal(BFT_CORRUPT, status);
            bft_last_error(text, sizeof(text));
            assert_non_null(strstr(text, "/db/data"));
            expect_unfinished(f, "/copy");
            damaged++;
        }
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at, 4));
    }
    print_message("%u damaged extents\n", damaged);
    assert_true(damaged > 15);
    expect_ok(bft_backup(f->db, "/copy", NULL));
    check_outcome(f, model, BFT_OK);
    model_free(model);
    engine_fixture_free(f);
}

static void an_unreadable_extent_ends_the_copy(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct model *model = model_make(1);
    unsigned failed = 0;
    (void)state;
    model_change(model, f->db, 3000);
    engine_reopen(f);
    for (uint64_t nth = 1, struck = 0; bfti_sim_struck(f->vfs) == struck;
         nth++) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                       .path = "/db/data",
                                       .nth = nth,
                                       .harm = nth & 1 ? BFTI_SIM_REFUSE
                                                       : BFTI_SIM_FLIP,
                                       .status = BFT_IO};
        bft_status status;
        bfti_sim_fail(f->vfs, &fault);
        status = bft_backup(f->db, "/copy", NULL);
        bfti_sim_heal(f->vfs);
        struck++;
        if (status == BFT_OK) {
            /* What was flipped lay behind an extent; or it was the last. */
            check_outcome(f, model, BFT_OK);
            backup_remove(f, "/copy");
            continue;
        }
        /* provokes: bft_backup BFT_IO */
        assert_int_equal(nth & 1 ? BFT_IO : BFT_CORRUPT, status);
        failed++;
        expect_unfinished(f, "/copy");
    }
    print_message("%u reads failed\n", failed);
    assert_true(failed > 2);
    expect_ok(bft_backup(f->db, "/copy", NULL));
    check_outcome(f, model, BFT_OK);
    expect_ok(bft_verify(f->db));
    model_free(model);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_copy_is_what_was_there_at_the_call),
        cmocka_unit_test(an_empty_database_has_a_copy_too),
        cmocka_unit_test(a_read_only_database_is_copied_and_not_changed),
        cmocka_unit_test(a_copied_directory_is_the_database_too),
        cmocka_unit_test(a_copy_goes_from_memory_to_files_and_back),
        cmocka_unit_test(one_at_a_time_and_no_close_meanwhile),
        cmocka_unit_test(only_an_empty_directory_is_taken),
        cmocka_unit_test(a_cancelled_backup_is_no_database),
        cmocka_unit_test(no_failure_leaves_a_wrong_copy),
        cmocka_unit_test(a_full_disk_ends_the_copy_and_not_the_database),
        cmocka_unit_test(no_memory_leaves_no_wrong_copy),
        cmocka_unit_test(a_damaged_extent_is_named_and_not_copied),
        cmocka_unit_test(an_unreadable_extent_ends_the_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
