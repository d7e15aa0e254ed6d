/*
 * Backups that are stopped between two steps while others write: what was
 * written before the image was complete is in the copy, as a whole, and what
 * the copy is made from stays although the database has no more use for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "backup_model.h"
#include "fileio/fault.h"
#include "park.h"
#include "random.h"

#ifndef NDEBUG

struct race {
    struct engine_fixture *f;
    struct model *model, *then;
    unsigned stops;
    const char *point;
    uint64_t frame; /* one that the copy needs */
    bool hurts;     /* it is damaged before it is copied */
};

/* Of the thread that makes the backup, and of no other. */
static _Thread_local struct race *racing;

static void churn(struct race *race)
{
    for (int i = 0; i < 4; i++) {
        model_change(race->model, race->f->db, 300);
        expect_ok(bft_checkpoint(race->f->db));
    }
    model_truncate(race->model, race->f->db, 1);
    expect_ok(bft_checkpoint(race->f->db));
    expect_ok(bft_checkpoint(race->f->db));
    model_change(race->model, race->f->db, 500);
}

/* A byte of the file at PATH is another now, or again what it was. */
static void flip(struct engine_fixture *f, const char *path, uint64_t at)
{
    struct bfti_file *file;
    uint8_t byte;
    size_t got;
    expect_ok(f->vfs->ops->open(f->vfs, path, 0, &file));
    expect_ok(file->ops->read(file, at, &byte, 1, &got));
    assert_int_equal(1, got);
    byte ^= 0x10;
    expect_ok(file->ops->write(file, at, &byte, 1));
    file->ops->close(file);
}

enum { SEGMENT = 64 << 10 };

static void segment_of(const char *dir, uint64_t lsn, char path[400])
{
    snprintf(path, 400, "%s/log-%016llx", dir,
             (unsigned long long)(lsn - lsn % SEGMENT));
}

static void hurt(struct race *race)
{
    char path[400];
    uint64_t at = race->frame + BFTI_FRAME_HEADER; /* may be the next one's */
    segment_of(race->f->path, at, path);
    flip(race->f, path, at % SEGMENT);
}

static void *at_point(void *arg)
{
    struct race *race = arg;
    if (strcmp(race->point, "backup:held") == 0) {
        if (race->hurts)
            hurt(race);
        else
            churn(race);
        return NULL;
    }
    /* Its end is not in the log that the copy gets; a later stage's may be. */
    if (strcmp(race->point, "checkpoint:synced") == 0) {
        if (race->then)
            model_free(race->then);
        race->then = model_copy(race->model);
    }
    if (race->frame == 0)
        race->frame = bfti_wal_end(race->f->db->engine->buffer.wal);
    model_change(race->model, race->f->db, 210);
    return NULL;
}

static void others_go_on(const char *point)
{
    static const char *const points[] = {
        "checkpoint:cut",     "checkpoint:gathered", "checkpoint:structure",
        "checkpoint:written", "checkpoint:synced",   "backup:held"};
    struct race *race = racing;
    pthread_t thread;
    for (size_t i = 0; race && i < sizeof(points) / sizeof(*points); i++) {
        if (strcmp(point, points[i]) != 0)
            continue;
        racing = NULL;
        race->point = point;
        race->stops++;
        assert_int_equal(0, pthread_create(&thread, NULL, at_point, race));
        assert_int_equal(0, pthread_join(thread, NULL));
        racing = race;
    }
}

/* Make a backup in PATH while others write between its steps, or have hurt its
 * log: BFT_CORRUPT. */
static struct race back_up(enum engine_backend backend, uint64_t seed,
                           char path[300], bft_status expected)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    struct race race = {
        .f = f, .model = model_make(seed), .hurts = expected == BFT_CORRUPT};
    f->options.no_threads = true; /* no checkpoint but those here */
    f->options.log_segment_bytes = SEGMENT;
    f->options.memory_bytes = 4 << 20;
    f->options.log_bytes = 16 << 20;
    engine_open(f);
    model_change(race.model, f->db, 3000);
    racing = &race;
    atomic_store(&bfti_park, others_go_on);
    expect_status(expected, bft_backup(f->db, backup_path(f, path), NULL));
    atomic_store(&bfti_park, NULL);
    racing = NULL;
    assert_true(race.stops >= 6);
    return race;
}

static void race_free(struct race *race)
{
    model_free(race->then);
    model_free(race->model);
    engine_fixture_free(race->f);
}

static void the_log_makes_the_image_whole(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        char path[300];
        struct race race =
            back_up((enum engine_backend)b, seed + (uint64_t)b, path, BFT_OK);
        struct engine_fixture *f = race.f;
        for (int round = 0; round < 2; round++) {
            bft_db *copy = backup_open(f, path, round == 0);
            bft_stats stats = {.size = sizeof(stats)};
            expect_ok(bft_stats_read(copy, &stats));
            if (round == 0)
                assert_true(stats.recovered_frames > 500);
            model_check(race.then, copy);
            expect_ok(bft_verify(copy));
            expect_ok(bft_close(copy));
        }
        model_check(race.model, f->db);
        expect_ok(bft_verify(f->db));
        backup_remove(f, path);
        race_free(&race);
    }
}

/* The frame is named by where it is in the database: what was copied is gone. */
static void a_damaged_log_is_not_copied(void **state)
{
    char path[300], segment[400], said[450], text[600];
    struct race race = back_up(ENGINE_SIM, random_start(), path, BFT_CORRUPT);
    (void)state;
    bft_last_error(text, sizeof(text));
    segment_of("", race.frame, segment);
    snprintf(said, sizeof(said), "%s: byte %llu: ", segment,
             (unsigned long long)(race.frame % SEGMENT));
    assert_true(strncmp(text, "/db: ", 5) == 0);
    assert_non_null(strstr(text, said));
    assert_int_equal(2, backup_names(race.f, path)); /* lock and mark */
    race_free(&race);
}

/* --- restored ---------------------------------------------------------------- */

/* What the log of a backup has. */
struct logged {
    struct race *race;
    char dir[300], restored[320];
    struct bfti_superblock sb;
    uint64_t first, last; /* frames of writes */
    uint64_t list;        /* of a long value that it names: where it lies ... */
    uint64_t part;        /* ... and a part of it */
};

static uint64_t offset_of(uint64_t place)
{
    return bfti_disk_grain(place) * BFTI_GRAIN;
}

static bft_status note_long(void *arg, const struct bfti_frame_record *record)
{
    struct logged *l = arg;
    struct bfti_large large;
    if (!(record->flags & BFTI_REC_LARGE))
        return BFT_OK;
    memcpy(&large, record->value.data, sizeof(large));
    if (bfti_large_is_list(bfti_large_bytes(&large)))
        l->list = le64_get(large.place);
    return BFT_OK;
}

static bft_status note_write(void *arg, uint64_t lsn, uint8_t type,
                             const void *payload, size_t len)
{
    struct logged *l = arg;
    if (type != BFTI_FRAME_WRITE)
        return BFT_OK;
    l->first = l->first ? l->first : lsn;
    l->last = lsn;
    return bfti_frame_each(l->dir, lsn, payload, len, note_long, l);
}

static void read_log(struct logged *l)
{
    struct bfti_vfs *vfs = l->race->f->vfs;
    struct bfti_pagefile_options options = {.env = bfti_env_system(),
                                            .vfs = vfs};
    struct bfti_wal_options log = {.env = bfti_env_system(), .vfs = vfs};
    struct bfti_scratch scratch = {0};
    struct bfti_extent_info info;
    struct bfti_superblock sb[2];
    struct bfti_wal_found found;
    struct bfti_pagefile *pf;
    bft_status verdict[2];
    char path[400];
    const void *raw;
    size_t len;
    snprintf(path, sizeof(path), "%s/data", l->dir);
    options.path = path;
    expect_ok(bfti_pagefile_open(&options, &pf));
    expect_ok(bfti_superblock_read(pf, sb, verdict));
    expect_ok(verdict[0]);
    l->sb = sb[0];
    log.dir = l->dir;
    log.segment_bytes = l->sb.log_segment_bytes;
    expect_ok(bfti_wal_scan(&log, l->sb.redo_lsn, l->sb.durable_mark,
                            note_write, l, &found));
    assert_true(l->first && l->list && l->last > l->first);
    expect_ok(bfti_extent_read(pf, l->list, &scratch, &info, &raw, &len));
    l->part = le64_get(((const le64 *)raw)[1]);
    bfti_scratch_free(options.env, &scratch);
    bfti_pagefile_close(pf);
}

static bft_status restore(struct logged *l)
{
    bft_options options = {.size = sizeof(options),
                           .internal = &l->race->f->surroundings};
    const char *name = l->dir;
    return bft_restore(&name, 1, l->restored, &options);
}

/* What is damaged, and where, is told; and nothing is left that would be opened. */
static void not_restored(struct logged *l, const char *path, const char *said)
{
    struct engine_fixture *f = l->race->f;
    bft_options options = {.size = sizeof(options),
                           .internal = &f->surroundings};
    char text[600];
    bft_db *db;
    expect_status(BFT_CORRUPT, restore(l));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, said));
    assert_int_equal(2, backup_names(f, l->restored)); /* lock and mark */
    expect_status(BFT_CORRUPT, bft_open(l->restored, &options, &db));
}

/* A frame, or a segment as a whole, is damaged. */
static void damage_log(struct logged *l, uint64_t lsn, bool whole)
{
    struct bfti_vfs *vfs = l->race->f->vfs;
    char path[400], away[400], log[320];
    snprintf(log, sizeof(log), "%s/log-", l->dir);
    segment_of(l->dir, lsn, path);
    snprintf(away, sizeof(away), "%s-away", l->dir);
    if (whole) {
        expect_ok(vfs->ops->rename(vfs, path, away));
        not_restored(l, log, "in a log that "); /* a frame may begin before */
        expect_ok(vfs->ops->rename(vfs, away, path));
    } else {
        flip(l->race->f, path, lsn % SEGMENT);
        not_restored(l, path, "the checksum of");
        flip(l->race->f, path, lsn % SEGMENT);
    }
}

static void damage_extent(struct logged *l, uint64_t place)
{
    char path[400], said[100];
    snprintf(path, sizeof(path), "%s/data", l->dir);
    snprintf(said, sizeof(said), "extent at byte %llu",
             (unsigned long long)offset_of(place));
    flip(l->race->f, path, offset_of(place) + BFTI_EXTENT_HEADER);
    not_restored(l, path, said);
    flip(l->race->f, path, offset_of(place) + BFTI_EXTENT_HEADER);
}

static void a_damaged_log_is_not_restored(void **state)
{
    uint64_t seed = random_start();
    struct logged l = {.first = 0};
    struct race race = back_up(ENGINE_SIM, seed, l.dir, BFT_OK);
    bft_db *db;
    (void)state;
    l.race = &race;
    snprintf(l.restored, sizeof(l.restored), "%s-restored", l.dir);
    read_log(&l);
    damage_log(&l, l.first + BFTI_FRAME_HEADER, false);
    damage_log(&l, l.last + BFTI_FRAME_HEADER, false);
    damage_log(&l, l.last, false);
    damage_log(&l, l.sb.redo_lsn, true);
    damage_log(&l, l.last, true);
    damage_extent(&l, l.list);
    damage_extent(&l, l.part);
    expect_ok(restore(&l));
    db = backup_open(race.f, l.restored, false);
    model_check(race.then, db);
    expect_ok(bft_verify(db));
    expect_ok(bft_close(db));
    backup_remove(race.f, l.restored);
    backup_remove(race.f, l.dir);
    race_free(&race);
}

enum { LEAF = 512, LAST = 1999 };

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
}

/* Put record I and write its leaf. */
static void write_leaf(struct engine_fixture *f, bft_tree *tree, unsigned i)
{
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    char buf[16];
    bool done;
    expect_ok(bft_put(tree, key_of(buf, i), (bft_slice){buf, sizeof(buf)}));
    for (unsigned n = 0; n < 400; n++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

/* What is on the disk of record I's leaf. */
static uint64_t place_of(const struct engine_fixture *f, bft_tree *tree,
                         unsigned i)
{
    char buf[16];
    const struct bfti_inner *root = bfti_tree_root(bfti_handle_tree(tree));
    uint64_t word = bfti_entry_word(bfti_table_entry(
        f->db->engine->buffer.table, bfti_inner_find(root, key_of(buf, i))));
    assert_true(bfti_word_on_disk(word));
    return word;
}

static void run_backup(void *arg)
{
    struct engine_fixture *f = arg;
    char path[300];
    expect_ok(bft_backup(f->db, backup_path(f, path), NULL));
}

static void run_verify(void *arg)
{
    struct engine_fixture *f = arg;
    expect_ok(bft_verify(f->db));
}

/* An extent that verify has met is not reused before its end, though nothing leads
 * to it any more and no image has it: the backup that ends is no checkpoint. */
static void the_end_of_a_backup_disturbs_no_verify(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct parked backup, verify;
    char buf[16], path[300];
    bft_tree *tree;
    uint64_t met, held;
    (void)state;
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    f->options.log_bytes = 16 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i <= LAST; i++)
        expect_ok(bft_put(tree, key_of(buf, i), (bft_slice){buf, sizeof(buf)}));
    assert_true(park_start(&backup, "backup:held", 0, run_backup, f));
    write_leaf(f, tree, 0);
    assert_true(park_start(&verify, "verify:leaf-met", 20, run_verify, f));
    met = place_of(f, tree, 0);
    write_leaf(f, tree, 0); /* nothing leads there any more */
    assert_true(place_of(f, tree, 0) != met);
    held = engine_stats(f).held_bytes;
    assert_true(held > 0);
    park_end(&backup);
    assert_int_equal(held, engine_stats(f).held_bytes);
    for (unsigned i = LAST; i > LAST - 200; i -= 10)
        write_leaf(f, tree, i);
    park_end(&verify);
    expect_ok(bft_checkpoint(f->db)); /* what the backup's end left, too */
    expect_ok(bft_checkpoint(f->db));
    assert_true(engine_stats(f).held_bytes < held);
    backup_remove(f, backup_path(f, path));
    engine_fixture_free(f);
}

#else
static void a_damaged_log_is_not_copied(void **state)
{
    (void)state;
    skip();
}

static void a_damaged_log_is_not_restored(void **state)
{
    (void)state;
    skip();
}

static void the_end_of_a_backup_disturbs_no_verify(void **state)
{
    (void)state;
    skip();
}

static void the_log_makes_the_image_whole(void **state)
{
    (void)state;
    skip(); /* no PARK points in this build */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_makes_the_image_whole),
        cmocka_unit_test(a_damaged_log_is_not_copied),
        cmocka_unit_test(a_damaged_log_is_not_restored),
        cmocka_unit_test(the_end_of_a_backup_disturbs_no_verify),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
