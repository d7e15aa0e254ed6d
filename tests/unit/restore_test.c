/*
 * Increments to backups, and databases made of them.
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

enum { CHAIN = 4, PATH = 320 };

/* A database and backups of it, each but the first an increment. */
struct chain {
    struct engine_fixture *f;
    struct model *model[CHAIN]; /* as it was at each */
    char path[CHAIN][PATH];
    const char *name[CHAIN];
    char restored[PATH];
};

static bft_status backup_to(struct chain *c, const char *path,
                            size_t base_count)
{
    bft_backup_options options = {
        .size = sizeof(options), .base = c->name, .base_count = base_count};
    return bft_backup(c->f->db, path, &options);
}

static bft_status restore(struct chain *c, size_t count)
{
    bft_options options = {.size = sizeof(options),
                           .internal = &c->f->surroundings};
    return bft_restore(c->name, count, c->restored, &options);
}

/* CHANGES of the model before each increment. */
static void chain_make(struct chain *c, enum engine_backend backend,
                       uint64_t seed, unsigned changes)
{
    struct model *model = model_make(seed);
    char base[300];
    c->f = engine_fixture_make(backend);
    c->f->options.log_segment_bytes = 64 << 10;
    c->f->options.log_bytes = 256 << 10;
    engine_open(c->f);
    model_change(model, c->f->db, 3000);
    for (int i = 0; i < CHAIN; i++) {
        snprintf(c->path[i], PATH, "%s-%d", backup_path(c->f, base), i);
        c->name[i] = c->path[i];
        expect_ok(backup_to(c, c->path[i], (size_t)i));
        c->model[i] = model_copy(model);
        model_change(model, c->f->db, changes);
        if (i == 1)
            engine_reopen(c->f);
    }
    snprintf(c->restored, PATH, "%s-restored", base);
    model_free(model);
}

static void chain_free(struct chain *c)
{
    for (int i = 0; i < CHAIN; i++) {
        model_free(c->model[i]);
        backup_remove(c->f, c->path[i]);
    }
    engine_fixture_free(c->f);
}

static void check_restored(struct chain *c, const struct model *model)
{
    bft_db *db = backup_open(c->f, c->restored, false);
    struct model *then = model_copy(model);
    model_check(then, db);
    expect_ok(bft_verify(db));
    model_change(then, db, 300); /* a life of its own */
    model_check(then, db);
    expect_ok(bft_close(db));
    model_free(then);
    backup_remove(c->f, c->restored);
}

static void a_chain_is_the_database_as_it_was_at_each(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct chain c;
        chain_make(&c, (enum engine_backend)b, seed + (uint64_t)b, 150);
        for (size_t count = 1; count <= CHAIN; count++) {
            expect_ok(restore(&c, count));
            check_restored(&c, c.model[count - 1]);
        }
        chain_free(&c);
    }
}

/* Numbers of the page file's blocks that are not zero, into BLOCK unless that is
 * NULL; how many. */
static size_t stored_blocks(struct engine_fixture *f, const char *dir,
                            uint64_t *block, size_t max)
{
    static uint8_t bytes[4096], zero[4096];
    struct bfti_file *file;
    char path[600];
    size_t got = sizeof(bytes), count = 0;
    snprintf(path, sizeof(path), "%s/data", dir);
    expect_ok(f->vfs->ops->open(f->vfs, path, BFTI_OPEN_READ_ONLY, &file));
    for (uint64_t at = 0; got == sizeof(bytes); at += got) {
        memset(bytes, 0, sizeof(bytes));
        expect_ok(file->ops->read(file, at, bytes, sizeof(bytes), &got));
        if (memcmp(bytes, zero, sizeof(bytes)) == 0)
            continue;
        if (block) {
            assert_true(count < max);
            block[count] = at / sizeof(bytes);
        }
        count++;
    }
    file->ops->close(file);
    return count;
}

/* Little was changed, so little is stored; and nothing is lost by that. */
static void an_increment_has_what_was_changed_only(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct chain c = {
        .f = f, .name = {"/whole", "/more"}, .restored = "/restored"};
    uint8_t key[8] = {0}, value[200];
    bft_tree *tree;
    bft_db *db;
    size_t len;
    (void)state;
    memset(value, 7, sizeof(value));
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(key, (uint8_t[]){(uint8_t)(i >> 8), (uint8_t)i}, 2);
        value[0] = (uint8_t)i;
        expect_ok(bft_put(tree, (bft_slice){key, sizeof(key)},
                          (bft_slice){value, sizeof(value)}));
    }
    expect_ok(backup_to(&c, "/whole", 0));
    value[0] = 99;
    expect_ok(bft_put(tree, (bft_slice){key, sizeof(key)},
                      (bft_slice){value, sizeof(value)}));
    expect_ok(backup_to(&c, "/more", 1));
    assert_true(stored_blocks(f, "/more", NULL, 0) <
                stored_blocks(f, "/whole", NULL, 0) / 20);
    expect_ok(restore(&c, 2));
    db = backup_open(f, "/restored", false);
    expect_ok(bft_verify(db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_get(tree, (bft_slice){key, sizeof(key)}, value, sizeof(value),
                      &len));
    assert_int_equal(99, value[0]);
    expect_ok(bft_close(db));
    engine_fixture_free(f);
}

/* --- refusals ---------------------------------------------------------------- */

/* provokes: bft_restore BFT_NOT_FOUND, bft_restore BFT_BUSY */
static void refused(struct chain *c, bft_status status, const char *a,
                    const char *b, const char *said)
{
    bft_options options = {.size = sizeof(options),
                           .internal = &c->f->surroundings};
    bft_backup_options backup = {.size = sizeof(backup)};
    const char *name[2] = {a, b};
    char text[400];
    backup.base = name;
    backup.base_count = b ? 2 : 1;
    expect_status(status, bft_restore(name, b ? 2 : 1, c->restored, &options));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, said));
    expect_status(status, bft_backup(c->f->db, c->restored, &backup));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, said));
}

static void flip(struct engine_fixture *f, const char *dir, const char *name,
                 uint64_t at)
{
    struct bfti_file *file;
    char path[600];
    uint8_t byte;
    size_t got;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    expect_ok(f->vfs->ops->open(f->vfs, path, 0, &file));
    expect_ok(file->ops->read(file, at, &byte, 1, &got));
    byte ^= 0x10;
    expect_ok(file->ops->write(file, at, &byte, 1));
    file->ops->close(file);
}

static void what_is_no_chain_is_refused(void **state)
{
    struct chain c;
    bft_options options = {.size = sizeof(options)};
    bft_backup_options backup = {.size = sizeof(backup), .base_count = 1};
    bft_db *db;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 50);
    options.internal = &c.f->surroundings;
    refused(&c, BFT_INVALID, c.name[1], NULL, "is an increment");
    refused(&c, BFT_INVALID, c.name[0], c.name[2], "is no increment to");
    refused(&c, BFT_INVALID, NULL, NULL, "is NULL");
    refused(&c, BFT_INVALID, "", NULL, "is empty");
    refused(&c, BFT_NOT_FOUND, "/none", NULL, "/none");
    refused(&c, BFT_BUSY, c.name[0], c.name[0], "locked");
    expect_status(BFT_INVALID, bft_restore(NULL, 1, "/to", &options));
    expect_status(BFT_INVALID, bft_restore(c.name, 0, "/to", &options));
    expect_status(BFT_INVALID, bft_restore(c.name, 1, NULL, &options));
    expect_status(BFT_INVALID, bft_restore(c.name, 1, "", &options));
    expect_status(BFT_EXISTS, bft_restore(c.name, 1, c.f->path, &options));
    expect_status(BFT_INVALID, bft_backup(c.f->db, "/to", &backup));
    backup.size = 7;
    expect_status(BFT_INVALID, bft_backup(c.f->db, "/to", &backup));
    /* An increment is no database. */
    expect_status(BFT_INVALID, bft_open(c.path[1], &options, &db));
    /* Who opened a backup may have changed it. */
    db = backup_open(c.f, c.path[0], false);
    refused(&c, BFT_BUSY, c.name[0], NULL, "");
    expect_ok(bft_close(db));
    refused(&c, BFT_INVALID, c.name[0], NULL, "a backup no longer");
    chain_free(&c);
}

/* Each in its turn is damaged: that is told, with the file, and nothing is left
 * that could be opened. */
static void damage_is_told(void **state)
{
    static const struct {
        int at;
        const char *name;
        uint64_t offset;
        const char *said;
    } damage[] = {
        {1, "increment", 20, "increment: its checksum"},
        {1, "increment", 3, "increment: it does not begin"},
        {2, "data", 100, "data: its superblock"},
        {0, "data", 300, "data: its superblock"},
    };
    struct chain c;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 50);
    for (size_t i = 0; i < sizeof(damage) / sizeof(*damage); i++) {
        const char *dir = c.path[damage[i].at];
        char text[400];
        flip(c.f, dir, damage[i].name, damage[i].offset);
        /* provokes: bft_restore BFT_CORRUPT */
        expect_status(BFT_CORRUPT, restore(&c, 3));
        bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, damage[i].said));
        assert_non_null(strstr(text, dir));
        flip(c.f, dir, damage[i].name, damage[i].offset);
    }
    chain_free(&c);
}

/* What restoring three of which AT is damaged ended with: was it told? */
static bool check_told(struct chain *c, int at, bft_status status)
{
    bft_options options = {.size = sizeof(options),
                           .internal = &c->f->surroundings,
                           .must_exist = true};
    char text[600], name[400];
    bft_db *db;
    if (status == BFT_OK) { /* no image has it any more */
        check_restored(c, c->model[2]);
        return false;
    }
    assert_int_equal(BFT_CORRUPT, status);
    bft_last_error(text, sizeof(text));
    snprintf(name, sizeof(name), "%s/data", c->path[at]);
    if (!strstr(text, name))
        fail_msg("%s is damaged, but: %s", name, text);
    assert_int_not_equal(BFT_OK, bft_open(c->restored, &options, &db));
    /* Of an extent that has blocks in several, all are named. */
    snprintf(name, sizeof(name), "%s/data", c->path[2]);
    return at == 2 || !strstr(text, name);
}

/* In whichever extent of the chain, so long as the image has it: it is told of the
 * backup that has it. */
static void a_damaged_extent_is_not_restored(void **state)
{
    struct chain c;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 50);
    for (int at = 0; at < 3; at++) {
        uint64_t block[4096];
        size_t count = stored_blocks(c.f, c.path[at], block, 4096);
        unsigned told = 0;
        for (size_t i = 1; i < count; i += at ? 2 : 13) { /* no superblock */
            flip(c.f, c.path[at], "data", block[i] * 4096 + 11);
            told += check_told(&c, at, restore(&c, 3));
            flip(c.f, c.path[at], "data", block[i] * 4096 + 11);
        }
        print_message("%u of %zu blocks\n", told, count);
        assert_true(told > 0);
    }
    expect_ok(restore(&c, 3));
    check_restored(&c, c.model[2]);
    chain_free(&c);
}

/* The list of the first increment, as it is after CHANGE, with a good checksum. */
static void forge_list(struct chain *c,
                       void (*change)(uint8_t *bytes, uint64_t arg),
                       uint64_t arg)
{
    uint8_t bytes[4096];
    struct bfti_file *file;
    char path[600];
    le32 sum;
    size_t len;
    snprintf(path, sizeof(path), "%s/increment", c->path[1]);
    expect_ok(c->f->vfs->ops->open(c->f->vfs, path, 0, &file));
    expect_ok(file->ops->read(file, 0, bytes, sizeof(bytes), &len));
    assert_true(len < sizeof(bytes));
    change(bytes, arg);
    sum = le32_of(bfti_crc32c(0, bytes, len - sizeof(sum)));
    memcpy(bytes + len - sizeof(sum), &sum, sizeof(sum));
    expect_ok(file->ops->write(file, 0, bytes, len));
    file->ops->close(file);
}

static void set_version(uint8_t *bytes, uint64_t version)
{
    bytes[8] = (uint8_t)version;
}

/* A list that only a later library understands. */
static void a_newer_format_is_refused(void **state)
{
    struct chain c;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 5);
    forge_list(&c, set_version, 2);
    /* provokes: bft_restore BFT_TOO_NEW */
    expect_status(BFT_TOO_NEW, restore(&c, 2));
    chain_free(&c);
}

/* The last run has BLOCKS more, or has lost so many. */
static void add_blocks(uint8_t *bytes, uint64_t blocks)
{
    le64 count;
    memcpy(&count, bytes + 32, sizeof(count));
    assert_true(le64_get(count) > 0);
    bytes += 40 + (le64_get(count) - 1) * 16 + 8;
    memcpy(&count, bytes, sizeof(count));
    count = le64_of(le64_get(count) + blocks);
    memcpy(bytes, &count, sizeof(count));
}

/* Whether by one block or by all that there can be, which would take for ever. */
static void a_list_of_more_than_there_is_is_refused(void **state)
{
    const uint64_t more[] = {1, UINT64_C(1) << 51, UINT64_MAX / 4};
    struct chain c;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 5);
    for (size_t i = 0; i < sizeof(more) / sizeof(*more); i++) {
        forge_list(&c, add_blocks, more[i]);
        refused(&c, BFT_CORRUPT, c.name[0], c.name[1], "-1/increment: ");
        forge_list(&c, add_blocks, 0 - more[i]);
    }
    expect_ok(restore(&c, 2));
    check_restored(&c, c.model[1]);
    chain_free(&c);
}

/* --- media that cannot be written -------------------------------------------- */

static struct {
    const struct bfti_vfs_ops *below;
    const struct chain *chain; /* its backups are on such a medium */
    unsigned refused;
} medium;

/* Where a lock cannot be shared its file is one that can be written. */
static bool is_lock(const char *path)
{
    size_t len = strlen(path);
    return len > 5 && strcmp(path + len - 5, "/lock") == 0;
}

static bft_status open_on_medium(struct bfti_vfs *vfs, const char *path,
                                 int flags, struct bfti_file **out)
{
    const struct chain *c = medium.chain;
    bool shares = c->f->backend > ENGINE_SIM;
    bool there = false;
    for (int i = 0; i < CHAIN; i++)
        there = there || strncmp(path, c->path[i], strlen(c->path[i])) == 0;
    if (!there || (flags & BFTI_OPEN_READ_ONLY) || (is_lock(path) && !shares))
        return medium.below->open(vfs, path, flags, out);
    medium.refused++;
    return bfti_fail(BFT_READ_ONLY, "%s: a medium that is not written", path);
}

/* Backups are read as they are, by whom they are restored, and who makes one more
 * increment to them. */
static void backups_on_a_read_only_medium_are_read(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct bfti_vfs_ops ops;
        struct chain c;
        char more[PATH + 8];
        chain_make(&c, (enum engine_backend)b, seed + (uint64_t)b, 20);
        engine_close(c.f);
        medium.below = c.f->vfs->ops;
        medium.chain = &c;
        medium.refused = 0;
        ops = *medium.below;
        ops.open = open_on_medium;
        c.f->vfs->ops = &ops;
        expect_ok(restore(&c, CHAIN));
        check_restored(&c, c.model[CHAIN - 1]);
        engine_open(c.f);
        snprintf(more, sizeof(more), "%s-more", c.restored);
        expect_ok(backup_to(&c, more, CHAIN));
        engine_close(c.f);
        c.f->vfs->ops = medium.below;
        assert_int_equal(0, medium.refused);
        backup_remove(c.f, more);
        chain_free(&c);
    }
}

/* --- failures ---------------------------------------------------------------- */

/* What a restoration that ended with STATUS has left. */
static void check_outcome(struct chain *c, bft_status status)
{
    bft_options options = c->f->options;
    bft_status opened;
    bft_db *db;
    options.internal = &c->f->surroundings;
    options.must_exist = true;
    opened = bft_open(c->restored, &options, &db);
    if (opened == BFT_OK) {
        model_check(c->model[1], db);
        expect_ok(bft_close(db));
        backup_remove(c->f, c->restored);
        return;
    }
    assert_int_not_equal(BFT_OK, status);
    if (opened != BFT_NOT_FOUND)
        assert_int_equal(BFT_CORRUPT, opened);
}

/* Calls on files in turn fail, of the first ones each; the next try begins where it ended. */
static void no_failure_leaves_a_wrong_database(void **state)
{
    const bft_status statuses[] = {BFT_IO, BFT_NO_SPACE};
    struct chain c;
    unsigned failed = 0;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 20);
    engine_close(c.f); /* its threads would fail too */
    for (uint64_t nth = 1, struck = 0, more = 1; more > struck;
         nth += 1 + nth / 32) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_ALL,
                                       .path = "/copy",
                                       .nth = nth,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = statuses[nth / 2 % 2]};
        bft_status status;
        struck = bfti_sim_struck(c.f->vfs);
        bfti_sim_fail(c.f->vfs, &fault);
        status = restore(&c, 2);
        more = bfti_sim_struck(c.f->vfs);
        bfti_sim_heal(c.f->vfs);
        failed += status != BFT_OK;
        /* provokes: bft_restore BFT_IO, bft_restore BFT_NO_SPACE */
        if (status != BFT_OK && status != BFT_IO)
            assert_int_equal(BFT_NO_SPACE, status);
        check_outcome(&c, status);
    }
    print_message("%u calls failed\n", failed);
    assert_true(failed > 15);
    chain_free(&c);
}

static void no_memory_leaves_nothing_wrong(void **state)
{
    struct chain c;
    bft_status status = BFT_NO_MEMORY;
    unsigned failed = 0;
    (void)state;
    chain_make(&c, ENGINE_SIM, random_start(), 20);
    engine_close(c.f); /* its threads would fail too */
    for (int64_t left = 0; status != BFT_OK; left++) {
        atomic_store(&c.f->allocs_left, left);
        status = restore(&c, 2);
        atomic_store(&c.f->allocs_left, -1);
        failed += status != BFT_OK;
        /* provokes: bft_restore BFT_NO_MEMORY */
        if (status != BFT_OK)
            assert_int_equal(BFT_NO_MEMORY, status);
        check_outcome(&c, status);
    }
    assert_true(failed > 5);
    chain_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_is_the_database_as_it_was_at_each),
        cmocka_unit_test(an_increment_has_what_was_changed_only),
        cmocka_unit_test(what_is_no_chain_is_refused),
        cmocka_unit_test(damage_is_told),
        cmocka_unit_test(a_damaged_extent_is_not_restored),
        cmocka_unit_test(a_newer_format_is_refused),
        cmocka_unit_test(a_list_of_more_than_there_is_is_refused),
        cmocka_unit_test(backups_on_a_read_only_medium_are_read),
        cmocka_unit_test(no_failure_leaves_a_wrong_database),
        cmocka_unit_test(no_memory_leaves_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
