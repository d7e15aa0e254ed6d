#include "salvage_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

/* --- what a database holds ------------------------------------------------ */

static bool dump_tree(void *ctx, const char *name)
{
    struct dump *dump = ctx;
    bft_tree_options options = {.size = sizeof(options), .must_exist = true};
    bft_cursor *cursor;
    bft_tree *tree;
    bft_status status;
    dump->trees++;
    expect_ok(bft_tree_open(dump->db, name, &options, &tree));
    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        struct entry *e;
        bft_slice key, value;
        expect_ok(bft_cursor_record(cursor, &key, &value));
        if (dump->count == dump->cap) {
            dump->cap = dump->cap ? dump->cap * 2 : 1024;
            dump->entry = realloc(dump->entry, dump->cap * sizeof(*e));
            assert_non_null(dump->entry);
        }
        e = &dump->entry[dump->count++];
        memset(e, 0, sizeof(*e));
        snprintf(e->tree, sizeof(e->tree), "%s", name);
        assert_true(key.len <= sizeof(e->key));
        memcpy(e->key, key.data, key.len);
        e->key_len = key.len;
        e->value_len = value.len;
        e->value_crc = bfti_crc32c(0, value.data, value.len);
    }
    assert_int_equal(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return true;
}

int dump_entry_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = strcmp(x->tree, y->tree);
    if (order == 0)
        order = bfti_key_compare((bft_slice){x->key, x->key_len},
                                 (bft_slice){y->key, y->key_len});
    return order;
}

/* All of the database PATH on VFS, which is opened for it as it is. */
struct dump dump_of(struct engine_fixture *f, struct bfti_vfs *vfs,
                    const char *path)
{
    struct dump dump = {0};
    bft_options options = f->options;
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = vfs};
    options.internal = &surroundings;
    options.must_exist = true;
    options.no_threads = true;
    expect_ok(bft_open(path, &options, &dump.db));
    expect_ok(bft_verify(dump.db));
    expect_ok(bft_tree_list(dump.db, dump_tree, &dump));
    expect_ok(bft_close(dump.db));
    if (dump.count)
        qsort(dump.entry, dump.count, sizeof(*dump.entry), dump_entry_order);
    return dump;
}

const struct entry *dump_find(const struct dump *dump, const struct entry *like)
{
    return dump->count ? bsearch(like, dump->entry, dump->count, sizeof(*like),
                                 dump_entry_order)
                       : NULL;
}

bool dump_same_value(const struct entry *a, const struct entry *b)
{
    return a && a->value_len == b->value_len && a->value_crc == b->value_crc;
}

void dump_expect_same(const struct dump *want, const struct dump *got)
{
    assert_int_equal(want->trees, got->trees);
    assert_int_equal(want->count, got->count);
    for (size_t i = 0; i < want->count; i++) {
        assert_int_equal(0, dump_entry_order(&want->entry[i], &got->entry[i]));
        assert_true(dump_same_value(&want->entry[i], &got->entry[i]));
    }
}

void dump_forget_names(struct dump *dump)
{
    for (size_t i = 0; i < dump->count; i++)
        dump->entry[i].tree[0] = 0;
    qsort(dump->entry, dump->count, sizeof(*dump->entry), dump_entry_order);
}

/* --- a database, and an image of it that is to be damaged ----------------- */

static void on_damage(void *ctx, const bft_salvage_damage *damage)
{
    struct rig *r = ctx;
    struct told *told = &r->told[r->told_count];
    assert_non_null(damage->text);
    if (r->told_count == TOLD_MAX)
        return;
    r->told_count++;
    told->damage = *damage;
    snprintf(told->text, sizeof(told->text), "%s", damage->text);
    snprintf(told->file, sizeof(told->file), "%s",
             damage->file ? damage->file : "");
    snprintf(told->tree, sizeof(told->tree), "%s",
             damage->tree ? damage->tree : "");
    if (damage->low.len)
        memcpy(told->low, damage->low.data, damage->low.len);
    if (damage->high.len)
        memcpy(told->high, damage->high.data, damage->high.len);
    told->damage.low.data = told->low;
    told->damage.high.data = told->high;
}

bft_slice rig_key(char buf[32], unsigned n)
{
    int len = snprintf(buf, 32, "key %07u", n);
    return (bft_slice){buf, (size_t)len};
}

void rig_put(bft_tree *tree, unsigned n, size_t len)
{
    static uint8_t bytes[1600000];
    char buf[32];
    assert_true(len <= sizeof(bytes));
    random_bytes(bytes, len);
    expect_ok(bft_put(tree, rig_key(buf, n), (bft_slice){bytes, len}));
}

void rig_delete(bft_tree *tree, unsigned n)
{
    char buf[32];
    expect_ok(bft_delete(tree, rig_key(buf, n)));
}

/* Random changes of what is there. */
void rig_changes(struct engine_fixture *f, unsigned count)
{
    bft_tree *narrow = engine_tree(f, "narrow", 512);
    bft_tree *wide = engine_tree(f, "wide", 4096);
    for (unsigned i = 0; i < count; i++) {
        unsigned n = (unsigned)random_below(RECORDS);
        bft_tree *tree = random_below(3) ? narrow : wide;
        if (random_below(5) == 0)
            rig_delete(tree, n);
        else
            rig_put(tree, n,
                    (size_t)random_below(random_below(50) ? 80 : 3000));
    }
}

struct rig *rig_make(void)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->f = engine_fixture_make(ENGINE_SIM);
    r->f->options.no_threads = true;
    /* No checkpoint comes by itself, neither for the log nor for space. */
    r->f->options.log_bytes = (uint64_t)1 << 30;
    r->f->options.memory_bytes = 4 << 20;
    r->f->options.compress = random_below(2);
    r->f->eager = true;
    engine_open(r->f);
    return r;
}

/* Records in trees of two sizes, values of several extents among them, deltas,
 * a dropped tree, a truncated and a renamed one; checkpoints between. */
void rig_fill(struct rig *r)
{
    struct engine_fixture *f = r->f;
    bft_tree *narrow = engine_tree(f, "narrow", 512);
    bft_tree *wide = engine_tree(f, "wide", 4096);
    for (unsigned i = 0; i < RECORDS; i++) {
        rig_put(narrow, i, 20 + (size_t)random_below(60));
        rig_put(wide, i, (size_t)random_below(100));
        rig_put(engine_tree(f, "dropped", 512), i, 30);
        rig_put(engine_tree(f, "cleared", 512), i, 30);
    }
    for (unsigned i = 0; i < LONG_KEYS; i++)
        rig_put(wide, RECORDS + i, 2000 + i * 1000);
    rig_put(wide, RECORDS + LONG_KEYS, 1500000);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_tree_drop(f->db, "dropped"));
    expect_ok(bft_tree_truncate(f->db, "cleared"));
    expect_ok(bft_tree_rename(f->db, "wide", "wider"));
    expect_ok(bft_tree_rename(f->db, "wider", "wide"));
    rig_changes(f, 1500);
    expect_ok(bft_checkpoint(f->db));
    rig_changes(f, 300);
    rig_put(engine_tree(f, "cleared", 512), 7, 30);
    expect_ok(bft_checkpoint(f->db));
    /* Small changes here and there: deltas, and lists of them as recovery would
     * make them. */
    f->db->engine->buffer.hurried = true;
    for (unsigned step = 160; step > 40; step /= 2) {
        for (unsigned i = 0; i < RECORDS; i += step)
            rig_put(narrow, i, 10);
        expect_ok(bft_checkpoint(f->db));
    }
    for (unsigned i = 0; i < RECORDS; i += 40)
        rig_put(narrow, i, 10);
}

/* Undo all damage. */
void rig_repair(struct rig *r)
{
    if (r->image)
        bfti_vfs_sim_destroy(r->image);
    expect_ok(bfti_sim_image(r->clean, BFTI_SIM_KEEP, 1, &r->image));
}

/* Take the image: of a database that was closed, or killed with a log that is
 * to be applied. */
void rig_image(struct rig *r, bool closed)
{
    struct engine_fixture *f = r->f;
    if (closed)
        engine_close(f);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &r->clean));
    if (!closed)
        engine_close(f);
    rig_repair(r);
    r->whole = dump_of(f, r->image, FROM);
    rig_repair(r);
}

struct rig *rig_closed(void)
{
    struct rig *r = rig_make();
    rig_fill(r);
    rig_image(r, true);
    return r;
}

void rig_free(struct rig *r)
{
    free(r->whole.entry);
    bfti_vfs_sim_destroy(r->image);
    bfti_vfs_sim_destroy(r->clean);
    engine_fixture_free(r->f);
    free(r);
}

static void expect_not_below_from(void *arg, const struct bfti_sim_step *step)
{
    (void)arg;
    assert_true(strncmp(step->path, FROM, strlen(FROM)) != 0);
    assert_true(!step->to || strncmp(step->to, FROM, strlen(FROM)) != 0);
}

bft_status rig_salvage_status(struct rig *r)
{
    bft_status status;
    r->database = r->f->options;
    r->surroundings.env = &r->f->env;
    r->surroundings.vfs = r->image;
    r->database.internal = &r->surroundings;
    r->options.size = sizeof(r->options);
    r->options.database = &r->database;
    r->options.damage = on_damage;
    r->options.damage_ctx = r;
    r->report.size = sizeof(r->report);
    r->told_count = 0;
    bfti_sim_on_step(r->image, expect_not_below_from, NULL);
    status = bft_salvage(FROM, TO, &r->options, &r->report);
    bfti_sim_on_step(r->image, NULL, NULL);
    assert_null(r->f->memory);
    return status;
}

struct dump rig_salvage(struct rig *r)
{
    expect_ok(rig_salvage_status(r));
    return dump_of(r->f, r->image, TO);
}

/* --- pages by the map, as a reader of the format finds them --------------- */

/* What leaves may need to be read. */
static void map_dictionaries(struct map *map)
{
    struct bfti_extent_scan scan;
    struct bfti_extent_info info;
    const void *raw;
    uint64_t place;
    size_t len;
    expect_ok(bfti_extent_scan_begin(&scan, map->pf));
    do {
        expect_ok(bfti_extent_scan_next(&scan, &map->scratch, &place, &info,
                                        &raw, &len));
        if (place && info.type == BFTI_EXTENT_DICTIONARY)
            expect_ok(bfti_codec_offer(map->pf, &info, raw, len));
    } while (place);
    bfti_extent_scan_end(&scan);
}

void map_open(struct map *map, struct bfti_vfs *vfs)
{
    struct bfti_pagefile_options options = {
        .env = bfti_env_system(), .vfs = vfs, .path = FROM "/data"};
    memset(&map->scratch, 0, sizeof(map->scratch));
    expect_ok(bfti_pagefile_open(&options, &map->pf));
    map_dictionaries(map);
}

void map_close(struct map *map)
{
    bfti_scratch_free(bfti_env_system(), &map->scratch);
    bfti_pagefile_close(map->pf);
}

bft_status map_extent(struct map *map, uint64_t place,
                      struct bfti_extent_info *info, const void **raw,
                      size_t *len)
{
    return bfti_extent_read(map->pf, place, &map->scratch, info, raw, len);
}

static void map_leaf(struct map *map, uint64_t word, uint64_t id)
{
    struct live *live = &map->live[map->count++];
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    assert_true(map->count < PAGES_MAX);
    live->word = word;
    live->id = id;
    live->place[0] = bfti_word_extent(word);
    live->places = 1;
    expect_ok(map_extent(map, live->place[0], &info, &raw, &len));
    while (info.type == BFTI_EXTENT_DELTA) {
        uint64_t beneath = le64_get(((const struct bfti_run *)raw)->beneath);
        live->place[live->places++] = bfti_word_extent(beneath);
        expect_ok(
            map_extent(map, bfti_word_extent(beneath), &info, &raw, &len));
    }
}

/* Of an undamaged file. */
struct map *map_read(struct bfti_vfs *vfs)
{
    struct map *map = calloc(1, sizeof(*map));
    struct bfti_superblock sb[2];
    struct bfti_extent_info info;
    bft_status verdict[2];
    const void *raw;
    size_t len;
    assert_non_null(map);
    map_open(map, vfs);
    expect_ok(bfti_superblock_read(map->pf, sb, verdict));
    expect_ok(verdict[0]);
    expect_ok(verdict[1]);
    map->slot = sb[1].sequence > sb[0].sequence;
    map->sb = sb[map->slot];
    assert_int_equal(2, map->sb.root_count);
    expect_ok(map_extent(map, map->sb.root[1], &info, &raw, &len));
    for (size_t i = 0; i < len / 8; i++)
        map->part[map->parts++] = le64_get(((const le64 *)raw)[i]);
    for (size_t p = 0; p < map->parts; p++) {
        le64 words[BFTI_PART_IDS];
        expect_ok(map_extent(map, map->part[p], &info, &raw, &len));
        memcpy(words, raw, sizeof(words));
        for (size_t i = 0; i < BFTI_PART_IDS; i++)
            if (bfti_word_on_disk(le64_get(words[i])))
                map_leaf(map, le64_get(words[i]), p * BFTI_PART_IDS + i);
    }
    map_close(map);
    return map;
}

/* --- damage --------------------------------------------------------------- */

void rig_damage_at(struct rig *r, const char *file, uint64_t offset)
{
    char path[64];
    snprintf(path, sizeof(path), FROM "/%s", file);
    expect_ok(bfti_sim_flip(r->image, path, offset, 0x10));
}

void rig_damage(struct rig *r, uint64_t place)
{
    rig_damage_at(r, "data",
                  bfti_disk_grain(place) * BFTI_GRAIN +
                      random_below(BFTI_EXTENT_HEADER + 8));
}

const struct told *rig_told_of(const struct rig *r, bft_salvage_kind kind)
{
    for (unsigned i = 0; i < r->told_count; i++)
        if (r->told[i].damage.kind == kind)
            return &r->told[i];
    return NULL;
}

void rig_expect_told_place(const struct rig *r, uint64_t place)
{
    uint64_t offset = bfti_disk_grain(place) * BFTI_GRAIN;
    for (unsigned i = 0; i < r->told_count; i++)
        if (r->told[i].damage.kind == BFT_SALVAGE_EXTENT &&
            r->told[i].damage.offset == offset) {
            assert_string_equal("data", r->told[i].file);
            assert_int_equal(bfti_disk_grains(place) * BFTI_GRAIN,
                             r->told[i].damage.bytes);
            return;
        }
    fail_msg("damage at byte %llu was not told", (unsigned long long)offset);
}

static bool in_range(const struct told *range, const struct entry *e)
{
    bft_slice key = {e->key, e->key_len};
    return strcmp(range->tree, e->tree) == 0 &&
           bfti_key_compare(range->damage.low, key) <= 0 &&
           (range->damage.high.len == 0 ||
            bfti_key_compare(key, range->damage.high) < 0);
}

bool rig_told_range(const struct rig *r, bft_salvage_kind kind,
                    const struct entry *e)
{
    for (unsigned i = 0; i < r->told_count; i++)
        if (r->told[i].damage.kind == kind && in_range(&r->told[i], e))
            return true;
    return false;
}

/* What is missing lies in ranges that were told as lost, and nothing in them is
 * there; the rest is as it was. */
size_t rig_expect_all_but_lost(const struct rig *r, const struct dump *got)
{
    size_t lost = 0;
    for (size_t i = 0; i < r->whole.count; i++) {
        const struct entry *e = &r->whole.entry[i];
        const struct entry *there = dump_find(got, e);
        if (rig_told_range(r, BFT_SALVAGE_LOST, e)) {
            assert_null(there);
            lost++;
        } else {
            assert_true(dump_same_value(there, e));
        }
    }
    assert_int_equal(r->whole.count - lost, got->count);
    return lost;
}
