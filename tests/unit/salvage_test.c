/*
 * Salvage: what is whole of a damaged database comes back, what is not is told,
 * and nothing of the damaged one is changed.  One thing is damaged at a time.
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
#include "salvage_rig.h"

/* --- no damage ------------------------------------------------------------ */

static void expect_whole(struct rig *r)
{
    struct dump got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    assert_true(r->report.map_read);
    assert_int_equal(0, r->told_count);
    assert_int_equal(0, r->report.extents_damaged);
    assert_int_equal(0, r->report.records_old);
    assert_int_equal(0, r->report.log_gaps);
    assert_int_equal(r->whole.trees, r->report.trees);
    assert_int_equal(0, r->report.trees_unnamed);
    assert_true(r->report.extents_read > 100);
    free(got.entry);
}

static void what_was_closed_comes_back_whole(void **state)
{
    struct rig *r;
    (void)state;
    random_start();
    r = rig_closed();
    expect_whole(r);
    assert_int_equal(r->whole.count, r->report.records);
    rig_free(r);
}

enum { LOADED = 1000 };

static bft_status next_loaded(void *ctx, bft_bulk_record *record)
{
    static char buf[32];
    unsigned *n = ctx;
    if (*n == LOADED)
        return BFT_NOT_FOUND;
    record->key = rig_key(buf, (*n)++);
    record->value = (bft_slice){"a loaded value", 14};
    return BFT_OK;
}

static void load(struct engine_fixture *f, const char *name)
{
    unsigned n = 0;
    uint64_t records;
    expect_ok(bft_bulk_load(engine_tree(f, name, 512), NULL, next_loaded, &n,
                            &records));
    assert_int_equal(LOADED, records);
}

/* A log that has to be applied, with trees that are made, dropped, truncated and
 * renamed in it, and values that it only names. */
static void what_was_killed_comes_back_whole(void **state)
{
    uint64_t frames = 0;
    (void)state;
    random_start();
    for (int round = 0; round < 3; round++) {
        struct rig *r = rig_make();
        rig_fill(r);
        rig_changes(r->f, 400);
        rig_put(engine_tree(r->f, "late", 1024), 1, 10);
        rig_put(engine_tree(r->f, "gone", 1024), 1, 10);
        expect_ok(bft_tree_drop(r->f->db, "gone"));
        expect_ok(bft_tree_rename(r->f->db, "cleared", "gone"));
        rig_put(engine_tree(r->f, "cleared", 512), 3, 5);
        rig_put(engine_tree(r->f, "late", 0), 2, 1200000);
        expect_ok(bft_tree_truncate(r->f->db, "late"));
        rig_put(engine_tree(r->f, "late", 0), 3, 1200000);
        if (round)
            load(r->f, "loaded");
        rig_changes(r->f, 200);
        rig_image(r, false);
        expect_whole(r);
        frames += r->report.log_frames;
        rig_free(r);
    }
    assert_true(frames > 50);
}

static void what_never_held_anything_gives_an_empty_database(void **state)
{
    struct rig *r;
    (void)state;
    random_start();
    r = rig_make();
    rig_image(r, true);
    struct dump got = rig_salvage(r);
    assert_int_equal(0, got.trees);
    assert_int_equal(0, r->told_count);
    rig_free(r);
}

/* The names that trees have meanwhile find room, too. */
static void many_trees_with_short_names_come_back(void **state)
{
    enum { TREES = 9000 };
    struct rig *r;
    (void)state;
    random_start();
    r = rig_make();
    for (unsigned i = 0; i < TREES; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "%x", i);
        (void)engine_tree(r->f, name, 512);
    }
    rig_image(r, true);
    free(rig_salvage(r).entry);
    assert_int_equal(TREES, r->report.trees);
    assert_int_equal(0, r->report.trees_unnamed);
    rig_free(r);
}

/* --- one thing damaged ---------------------------------------------------- */

static void a_damaged_leaf_takes_its_own_records_only(void **state)
{
    struct rig *r;
    struct map *map;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    assert_true(map->count > 500 && map->parts > 1);
    for (int round = 0; round < 12; round++) {
        const struct live *live = &map->live[random_below(map->count)];
        struct dump got;
        if (live->places > 1)
            continue;
        r->options.old =
            round % 2 ? BFT_SALVAGE_OLD_NEVER : BFT_SALVAGE_OLD_UNMAPPED;
        rig_damage(r, live->place[0]);
        got = rig_salvage(r);
        assert_int_equal(2, r->told_count);
        assert_int_equal(1, r->report.extents_damaged);
        assert_int_equal(1, r->report.ranges_lost);
        rig_expect_told_place(r, live->place[0]);
        assert_int_equal(live->id,
                         rig_told_of(r, BFT_SALVAGE_EXTENT)->damage.page);
        rig_expect_all_but_lost(r, &got);
        assert_int_equal(0, r->report.records_old);
        assert_true(r->report.map_read);
        free(got.entry);
        rig_repair(r);
    }
    free(map);
    rig_free(r);
}

/* The older page of a damaged one comes back when asked for, and is told. */
static void older_pages_come_back_when_asked_for(void **state)
{
    struct rig *r;
    struct map *map;
    struct dump got;
    size_t old = 0, more = 0;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    for (size_t i = 0; i < map->count; i += 3)
        rig_damage(r, map->live[i].place[0]);
    r->options.old = BFT_SALVAGE_OLD_ALWAYS;
    got = rig_salvage(r);
    for (size_t i = 0; i < r->whole.count; i++) {
        const struct entry *e = &r->whole.entry[i];
        const struct entry *there = dump_find(&got, e);
        if (rig_told_range(r, BFT_SALVAGE_OLD, e))
            old += there != NULL;
        else if (rig_told_range(r, BFT_SALVAGE_LOST, e))
            assert_null(there);
        else
            assert_true(dump_same_value(there, e));
    }
    for (size_t i = 0; i < got.count; i++)
        if (!dump_find(&r->whole, &got.entry[i])) {
            assert_true(rig_told_range(r, BFT_SALVAGE_OLD, &got.entry[i]));
            more++;
        }
    assert_true(old > 10);
    assert_true(r->report.records_old > 0);
    assert_true(r->report.ranges_old > 0);
    free(got.entry);
    free(map);
    rig_free(r);
}

/* A delta without its base page still has what it has; a base page without its
 * delta would be an old page. */
static void changes_come_back_without_what_they_change(void **state)
{
    struct rig *r;
    struct map *map;
    struct dump got;
    size_t deltas = 0, kept = 0, lists = 0;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    for (size_t i = 0; i < map->count; i++)
        if (map->live[i].places > 1) {
            lists += map->live[i].places > 2;
            rig_damage(r, map->live[i].place[deltas++ % map->live[i].places]);
        }
    assert_true(deltas > 20);
    assert_true(lists > 20);
    got = rig_salvage(r);
    assert_int_equal(deltas, r->report.extents_damaged);
    for (size_t i = 0; i < r->whole.count; i++) {
        const struct entry *e = &r->whole.entry[i];
        const struct entry *there = dump_find(&got, e);
        if (!rig_told_range(r, BFT_SALVAGE_LOST, e)) {
            assert_true(dump_same_value(there, e));
        } else if (there) {
            assert_true(dump_same_value(there, e));
            kept++;
        }
    }
    assert_true(kept >= deltas / 2);
    assert_int_equal(0, r->report.records_old);
    free(got.entry);
    free(map);
    rig_free(r);
}

/* Everything of one type that is live. */
static size_t damage_type(struct rig *r, enum bfti_extent_type type)
{
    struct bfti_extent_scan scan;
    struct map map;
    uint64_t place[2000];
    size_t count = 0;
    map_open(&map, r->image);
    expect_ok(bfti_extent_scan_begin(&scan, map.pf));
    for (;;) {
        struct bfti_extent_info info;
        const void *raw;
        size_t len;
        expect_ok(bfti_extent_scan_next(&scan, &map.scratch, &place[count],
                                        &info, &raw, &len));
        if (place[count] == 0)
            break;
        if (info.type == type)
            count++;
        assert_true(count < 2000);
    }
    bfti_extent_scan_end(&scan);
    map_close(&map);
    for (size_t i = 0; i < count; i++)
        rig_damage(r, place[i]);
    return count;
}

static void inner_nodes_and_free_space_are_not_needed(void **state)
{
    struct rig *r;
    struct dump got;
    (void)state;
    random_start();
    r = rig_closed();
    assert_true(damage_type(r, BFTI_EXTENT_INNER) > 2);
    assert_true(damage_type(r, BFTI_EXTENT_MAP) > 0);
    got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    assert_true(r->report.extents_damaged > 0);
    assert_int_equal(0, r->report.ranges_lost);
    free(got.entry);
    rig_free(r);
}

static void a_lost_catalogue_costs_names_only(void **state)
{
    struct rig *r;
    struct map *map;
    struct dump got;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    /* The older one is there, with the same names. */
    rig_damage(r, map->sb.root[0]);
    got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    assert_int_equal(0, r->report.trees_unnamed);
    free(got.entry);
    free(map);
    rig_free(r);
    r = rig_make();
    for (unsigned i = 0; i < RECORDS; i++)
        rig_put(engine_tree(r->f, "only", 512), i, 30);
    rig_image(r, true);
    assert_true(damage_type(r, BFTI_EXTENT_CATALOGUE) > 0);
    got = rig_salvage(r);
    assert_int_equal(1, r->report.trees_unnamed);
    assert_int_equal(1, got.trees);
    assert_string_equal("tree-1", got.entry[0].tree);
    dump_forget_names(&r->whole);
    dump_forget_names(&got);
    dump_expect_same(&r->whole, &got);
    free(got.entry);
    rig_free(r);
}

/* All of it comes back, told as perhaps old. */
static void expect_all_found(struct rig *r, bool all_old)
{
    struct dump got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    assert_false(r->report.map_read);
    assert_true(r->report.records_old > 100);
    assert_true(!all_old || r->report.records_old == r->report.records);
    assert_true(r->report.ranges_old > 0);
    assert_int_equal(0, r->report.ranges_lost);
    free(got.entry);
}

static void pages_of_a_lost_part_are_found_in_the_file(void **state)
{
    struct rig *r;
    struct map *map;
    struct dump got;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    rig_damage(r, map->part[random_below(map->parts)]);
    expect_all_found(r, false);
    rig_repair(r);
    rig_damage(r, map->sb.root[1]);
    expect_all_found(r, true);
    rig_repair(r);
    r->options.old = BFT_SALVAGE_OLD_NEVER;
    rig_damage(r, map->part[0]);
    got = rig_salvage(r);
    assert_true(rig_expect_all_but_lost(r, &got) > 100);
    free(got.entry);
    free(map);
    rig_free(r);
}

static void a_value_with_a_damaged_part_is_left_out(void **state)
{
    struct rig *r;
    struct dump got;
    size_t count, lost = 0;
    (void)state;
    random_start();
    r = rig_closed();
    count = damage_type(r, BFTI_EXTENT_VALUE_LIST);
    assert_int_equal(1, count);
    got = rig_salvage(r);
    assert_int_equal(1, r->report.records_lost);
    assert_int_equal(1, r->told_count);
    assert_string_equal("wide", r->told[0].tree);
    assert_int_equal(r->whole.count - 1, got.count);
    free(got.entry);
    rig_repair(r);
    damage_type(r, BFTI_EXTENT_VALUE);
    got = rig_salvage(r);
    for (size_t i = 0; i < r->whole.count; i++) {
        const struct entry *e = &r->whole.entry[i];
        lost += !dump_find(&got, e);
        assert_true(dump_find(&got, e) || e->value_len > 100);
    }
    assert_true(lost > LONG_KEYS);
    assert_int_equal(lost, r->report.records_lost);
    free(got.entry);
    rig_free(r);
}

/* --- superblocks ---------------------------------------------------------- */

static void damage_superblock(struct rig *r, unsigned slot)
{
    rig_damage_at(r, "data", slot * (uint64_t)BFTI_BLOCK + random_below(512));
}

static void all_comes_back_without_superblocks(void **state)
{
    (void)state;
    random_start();
    for (int killed = 0; killed < 2; killed++) {
        struct rig *r = rig_make();
        struct map *map;
        struct dump got;
        rig_fill(r);
        if (killed) {
            load(r->f, "loaded");
            rig_changes(r->f, 500);
        }
        rig_image(r, !killed);
        map = map_read(r->image);
        /* The older: the newer is the newest. */
        damage_superblock(r, map->slot ^ 1);
        got = rig_salvage(r);
        dump_expect_same(&r->whole, &got);
        assert_int_equal(1, r->report.extents_damaged);
        assert_int_equal(0, r->report.records_old);
        free(got.entry);
        rig_repair(r);
        damage_superblock(r, 0);
        damage_superblock(r, 1);
        expect_all_found(r, true);
        assert_int_equal(2, r->report.extents_damaged);
        /* The newer: what the older one leads to is not the newest. */
        rig_repair(r);
        damage_superblock(r, map->slot);
        got = rig_salvage(r);
        dump_expect_same(&r->whole, &got);
        free(got.entry);
        free(map);
        rig_free(r);
    }
}

/* --- what is refused ------------------------------------------------------ */

static void what_cannot_be_done_is_refused(void **state)
{
    struct rig *r;
    bft_salvage_options options;
    bft_salvage_report report = {.size = 1};
    bft_db *db;
    (void)state;
    random_start();
    r = rig_make();
    rig_put(engine_tree(r->f, "t", 512), 1, 10);
    rig_image(r, true);
    /* Locked. */
    r->surroundings =
        (struct bfti_surroundings){.env = &r->f->env, .vfs = r->image};
    r->f->options.internal = &r->surroundings;
    expect_ok(bft_open(FROM, &r->f->options, &db));
    r->database = r->f->options;
    r->options = (bft_salvage_options){.size = sizeof(r->options),
                                       .database = &r->database};
    options = r->options;
    expect_status(BFT_BUSY, bft_salvage(FROM, TO, &options, NULL));
    expect_ok(bft_close(db));
    /* There already. */
    expect_ok(bft_salvage(FROM, TO, &options, NULL));
    expect_status(BFT_EXISTS, bft_salvage(FROM, TO, &options, NULL));
    expect_status(BFT_INVALID, bft_salvage(FROM, FROM, &options, NULL));
    expect_status(BFT_INVALID, bft_salvage(FROM, "./db", &options, NULL));
    expect_status(BFT_NOT_FOUND, bft_salvage("/none", "/b", &options, NULL));
    expect_ok(r->image->ops->make_dir(r->image, "/empty"));
    expect_status(BFT_NOT_FOUND, bft_salvage("/empty", "/b", &options, NULL));
    /* Arguments. */
    expect_status(BFT_INVALID, bft_salvage(NULL, "/b", &options, NULL));
    expect_status(BFT_INVALID, bft_salvage(FROM, "", &options, NULL));
    expect_status(BFT_INVALID, bft_salvage(FROM, "/b", &options, &report));
    options.old = (bft_salvage_old)3;
    expect_status(BFT_INVALID, bft_salvage(FROM, "/b", &options, NULL));
    options = r->options;
    options.size = 8;
    expect_status(BFT_INVALID, bft_salvage(FROM, "/b", &options, NULL));
    options = r->options;
    r->database.read_only = true;
    expect_status(BFT_INVALID, bft_salvage(FROM, "/b", &options, NULL));
    r->database.read_only = false;
    r->database.storage = BFT_STORAGE_MEMORY;
    expect_status(BFT_INVALID, bft_salvage(FROM, "/b", &options, NULL));
    rig_free(r);
}

static void a_newer_format_is_left_alone(void **state)
{
    struct bfti_pagefile_options options = {.env = bfti_env_system(),
                                            .path = FROM "/data"};
    struct bfti_superblock sb[2];
    struct bfti_pagefile *pf;
    bft_status verdict[2];
    struct rig *r;
    (void)state;
    random_start();
    r = rig_make();
    rig_image(r, true);
    options.vfs = r->image;
    expect_ok(bfti_pagefile_open(&options, &pf));
    expect_ok(bfti_superblock_read(pf, sb, verdict));
    sb[0].major++;
    expect_ok(bfti_superblock_write(pf, 0, &sb[0]));
    bfti_pagefile_close(pf);
    /* provokes: bft_salvage BFT_TOO_NEW */
    expect_status(BFT_TOO_NEW, rig_salvage_status(r));
    rig_free(r);
}

static void a_full_disk_is_told(void **state)
{
    struct rig *r;
    struct dump got;
    uint64_t used;
    (void)state;
    random_start();
    r = rig_closed();
    used = bfti_sim_used(r->image);
    bfti_sim_set_capacity(r->image, used + (400 << 10));
    expect_status(BFT_NO_SPACE, rig_salvage_status(r));
    bfti_sim_set_capacity(r->image, UINT64_MAX);
    expect_status(BFT_EXISTS, rig_salvage_status(r));
    rig_repair(r);
    got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    free(got.entry);
    rig_free(r);
}

static void short_memory_is_told_and_nothing_is_lost(void **state)
{
    struct rig *r;
    struct map *map;
    struct dump got;
    unsigned failed = 0;
    (void)state;
    random_start();
    r = rig_closed();
    map = map_read(r->image);
    for (int64_t n = 0;; n += 1 + n / 12) {
        bft_status status;
        rig_repair(r);
        rig_damage(r, map->part[0]);
        atomic_store(&r->f->allocs_left, n);
        r->f->allocs_sticky = n % 2;
        status = rig_salvage_status(r);
        if (atomic_load(&r->f->allocs_left) > 0)
            break;
        atomic_store(&r->f->allocs_left, -1);
        if (status != BFT_OK)
            expect_status(BFT_NO_MEMORY, status);
        failed += status != BFT_OK;
    }
    atomic_store(&r->f->allocs_left, -1);
    assert_true(failed > 20);
    rig_repair(r);
    got = rig_salvage(r);
    dump_expect_same(&r->whole, &got);
    free(got.entry);
    free(map);
    rig_free(r);
}

/* Sectors that the medium does not give back are damage like any other. */
static void what_cannot_be_read_is_damage(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                   .path = FROM,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    struct rig *r;
    (void)state;
    random_start();
    r = rig_closed();
    for (uint64_t nth = 1; nth < 400; nth += 1 + random_below(40)) {
        struct dump got;
        rig_repair(r);
        fault.nth = nth;
        bfti_sim_fail(r->image, &fault);
        /* Tried again block by block it succeeds. */
        expect_ok(rig_salvage_status(r));
        bfti_sim_heal(r->image);
        got = dump_of(r->f, r->image, TO);
        dump_expect_same(&r->whole, &got);
        free(got.entry);
    }
    rig_repair(r);
    fault.nth = 60;
    fault.sticky = true;
    bfti_sim_fail(r->image, &fault);
    expect_ok(rig_salvage_status(r));
    assert_true(r->report.bytes_unreadable > 0);
    assert_true(r->report.extents_damaged > 0);
    rig_free(r);
}

/* Through real files and threads, with defaults for what can have them. */
static void real_files_are_salvaged(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_POSIX);
    bft_salvage_report report = {.size = sizeof(report)};
    bft_salvage_options options = {.size = sizeof(options)};
    char to[300];
    bft_tree *tree;
    bft_db *db;
    size_t len;
    uint8_t value[100];
    char buf[32];
    (void)state;
    random_start();
    for (unsigned i = 0; i < 3000; i++)
        rig_put(engine_tree(f, "t", 512), i, 50);
    snprintf(to, sizeof(to), "%s/out", f->path);
    expect_status(BFT_BUSY, bft_salvage(f->path, to, NULL, NULL));
    engine_close(f);
    expect_ok(bft_salvage(f->path, to, &options, &report));
    assert_int_equal(3000, report.records);
    expect_ok(bft_open(to, NULL, &db));
    expect_ok(bft_verify(db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_get(tree, rig_key(buf, 2999), value, sizeof(value), &len));
    expect_ok(bft_close(db));
    backup_remove(f, to); /* how many log segments is not known */
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_closed_comes_back_whole),
        cmocka_unit_test(what_was_killed_comes_back_whole),
        cmocka_unit_test(what_never_held_anything_gives_an_empty_database),
        cmocka_unit_test(many_trees_with_short_names_come_back),
        cmocka_unit_test(a_damaged_leaf_takes_its_own_records_only),
        cmocka_unit_test(older_pages_come_back_when_asked_for),
        cmocka_unit_test(changes_come_back_without_what_they_change),
        cmocka_unit_test(inner_nodes_and_free_space_are_not_needed),
        cmocka_unit_test(a_lost_catalogue_costs_names_only),
        cmocka_unit_test(pages_of_a_lost_part_are_found_in_the_file),
        cmocka_unit_test(a_value_with_a_damaged_part_is_left_out),
        cmocka_unit_test(all_comes_back_without_superblocks),
        cmocka_unit_test(what_cannot_be_done_is_refused),
        cmocka_unit_test(a_newer_format_is_left_alone),
        cmocka_unit_test(a_full_disk_is_told),
        cmocka_unit_test(short_memory_is_told_and_nothing_is_lost),
        cmocka_unit_test(what_cannot_be_read_is_damage),
        cmocka_unit_test(real_files_are_salvaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
