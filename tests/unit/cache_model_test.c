/*
 * A database that only caches beside a map: what is found is what was put last,
 * whatever was forgotten; and what was once found to be gone, or was deleted, stays
 * so until it is put again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "random.h"

enum { KEYS = 4000, VALUE_MAX = 96, FAR = 1000 * 1000, BATCH = 60 };

/* Of one tree. */
struct map {
    bft_tree *tree;
    bool expires;
    unsigned newest[KEYS]; /* the number of the last put; 0: it is gone */
};

struct model {
    struct engine_fixture *f;
    struct map map[2];
    unsigned puts; /* so far */
    uint64_t random;
    uint64_t found, gone; /* gets of what was put */
};

static size_t drawn(struct model *m, size_t limit)
{
    return (size_t)(random_of(&m->random) >> 16) % limit;
}

/* Often the same ones. */
static unsigned draw_key(struct model *m)
{
    return (unsigned)(drawn(m, 3) ? drawn(m, KEYS) : drawn(m, KEYS / 20));
}

struct text {
    char chars[32];
};

static bft_slice key_of(struct text *text, unsigned key)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key-%06u", key);
    return (bft_slice){text->chars, (size_t)len};
}

static unsigned key_in(bft_slice key)
{
    char text[7] = {0};
    assert_int_equal(10, key.len);
    memcpy(text, (const char *)key.data + 4, 6);
    return (unsigned)strtoul(text, NULL, 10);
}

/* The value of put NUMBER of KEY: it tells both, and has a length of its own. */
struct value {
    uint8_t bytes[VALUE_MAX];
    size_t len;
};

static bft_slice value_of(struct value *value, unsigned key, unsigned n)
{
    value->len = 8 + random_mix(n) % (VALUE_MAX - 8);
    memset(value->bytes, (int)n, value->len);
    memcpy(value->bytes, &key, 4);
    memcpy(value->bytes + 4, &n, 4);
    return (bft_slice){value->bytes, value->len};
}

/* KEY was found with this. */
static void expect_newest(const struct map *map, unsigned key, bft_slice value)
{
    struct value expected;
    assert_in_range(key, 0, KEYS - 1);
    if (map->newest[key] == 0)
        fail_msg("key %u is there again", key);
    (void)value_of(&expected, key, map->newest[key]);
    assert_int_equal(expected.len, value.len);
    assert_memory_equal(expected.bytes, value.data, value.len);
}

/* A call found KEY, or not. */
static void note(struct model *m, struct map *map, unsigned key,
                 bft_status status, bft_slice value)
{
    if (map->newest[key])
        ++*(status == BFT_OK ? &m->found : &m->gone);
    if (status == BFT_OK) {
        expect_newest(map, key, value);
    } else {
        expect_status(BFT_NOT_FOUND, status);
        map->newest[key] = 0;
    }
}

static void look(struct model *m, struct map *map, unsigned key)
{
    struct text text;
    struct value value;
    bft_status status = bft_get(map->tree, key_of(&text, key), value.bytes,
                                VALUE_MAX, &value.len);
    note(m, map, key, status, (bft_slice){value.bytes, value.len});
}

static void look_at_many(struct model *m, struct map *map)
{
    enum { MANY = 40 };
    struct text text[MANY];
    struct value value[MANY];
    bft_answer answer[MANY];
    unsigned key[MANY];
    for (int i = 0; i < MANY; i++) {
        key[i] = draw_key(m);
        answer[i] = (bft_answer){.key = key_of(&text[i], key[i]),
                                 .buf = value[i].bytes,
                                 .buf_len = VALUE_MAX};
    }
    expect_ok(bft_multi_get(map->tree, answer, MANY));
    for (int i = 0; i < MANY; i++)
        note(m, map, key[i], answer[i].status,
             (bft_slice){value[i].bytes, answer[i].value_len});
}

/* --- writing -------------------------------------------------------------- */

static void put(struct model *m, struct map *map, unsigned key)
{
    struct text text;
    struct value value;
    bft_slice k = key_of(&text, key), v = value_of(&value, key, ++m->puts);
    map->newest[key] = m->puts;
    if (!map->expires || drawn(m, 2)) {
        expect_ok(bft_put(map->tree, k, v));
        return;
    }
    if (drawn(m, 3)) {
        expect_ok(bft_put_until(map->tree, k, v, bft_now_ms(m->f->db) + FAR));
        return;
    }
    expect_ok(bft_put_until(map->tree, k, v, 1)); /* long ago */
    map->newest[key] = 0;
}

/* What is there stays: only what is not may be inserted. */
static void insert(struct model *m, struct map *map, unsigned key)
{
    struct text text;
    struct value value;
    bft_status status = bft_insert(map->tree, key_of(&text, key),
                                   value_of(&value, key, ++m->puts));
    if (status == BFT_OK) {
        map->newest[key] = m->puts;
        return;
    }
    expect_status(BFT_EXISTS, status);
    assert_int_not_equal(0, map->newest[key]);
}

/* By what it should have, or by what it cannot have. */
static void replace(struct model *m, struct map *map, unsigned key)
{
    struct text text;
    struct value old, value;
    bool right = drawn(m, 4) != 0;
    bft_slice was = value_of(&old, key, right ? map->newest[key] : m->puts + 7);
    bft_slice now = value_of(&value, key, ++m->puts);
    bool removes = drawn(m, 3) == 0;
    bft_status status =
        bft_replace(map->tree, key_of(&text, key), &was, removes ? NULL : &now);
    if (status == BFT_OK) {
        assert_true(right && map->newest[key]);
        map->newest[key] = removes ? 0 : m->puts;
        return;
    }
    expect_status(BFT_CONFLICT, status);
    if (right)
        map->newest[key] = 0;
}

static void remove_one(struct model *m, struct map *map, unsigned key)
{
    struct text text;
    (void)m;
    expect_ok(bft_delete(map->tree, key_of(&text, key)));
    map->newest[key] = 0;
}

static void remove_range(struct model *m, struct map *map)
{
    unsigned low = draw_key(m), high = low + (unsigned)drawn(m, 300);
    struct text from, to;
    uint64_t deleted = 0, most = 0;
    bool counts = drawn(m, 2);
    if (high > KEYS)
        high = KEYS;
    expect_ok(bft_delete_range(map->tree, key_of(&from, low), key_of(&to, high),
                               counts ? &deleted : NULL));
    for (unsigned key = low; key < high; key++) {
        most += map->newest[key] != 0;
        map->newest[key] = 0;
    }
    assert_in_range(deleted, 0, most);
}

/* Over both trees; the last change of a key counts. */
static void write_batch(struct model *m)
{
    bft_batch *batch;
    unsigned first = m->puts;
    size_t n = 1 + drawn(m, BATCH);
    struct change {
        struct map *map;
        unsigned key, number;
    } change[BATCH];
    expect_ok(bft_batch_create(m->f->db, &batch));
    for (size_t i = 0; i < n; i++) {
        struct text text;
        struct value value;
        change[i] = (struct change){&m->map[drawn(m, 2)], draw_key(m), 0};
        if (drawn(m, 4)) {
            change[i].number = ++m->puts;
            expect_ok(bft_batch_put(
                batch, change[i].map->tree, key_of(&text, change[i].key),
                value_of(&value, change[i].key, change[i].number)));
        } else {
            expect_ok(bft_batch_delete(batch, change[i].map->tree,
                                       key_of(&text, change[i].key)));
        }
    }
    assert_in_range(m->puts, first, first + n);
    expect_ok(bft_batch_commit(batch, BFT_NONE, NULL));
    for (size_t i = 0; i < n; i++)
        change[i].map->newest[change[i].key] = change[i].number;
    bft_batch_free(batch);
}

/* --- ranges --------------------------------------------------------------- */

/* Either way, from some key on: ascending, right, and what it passes is gone. */
static void walk(struct model *m, struct map *map)
{
    bool back = drawn(m, 2);
    unsigned at = draw_key(m), steps = (unsigned)drawn(m, 400);
    bft_cursor *cursor;
    struct text text;
    bft_status status;
    expect_ok(bft_cursor_open_newest(map->tree, &cursor));
    status = bft_cursor_seek(cursor, back ? BFT_LE : BFT_GE, key_of(&text, at));
    while (status == BFT_OK && steps--) {
        bft_slice key, value;
        unsigned n;
        expect_ok(bft_cursor_record(cursor, &key, &value));
        n = key_in(key);
        expect_newest(map, n, value);
        for (; at != n; at = back ? at - 1 : at + 1)
            map->newest[at] = 0;
        at = back ? n - 1 : n + 1;
        /* One that is written while the cursor is here is shown as it is then. */
        if (drawn(m, 50) == 0)
            put(m, map, draw_key(m));
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    if (status != BFT_OK)
        expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
}

static void count(struct model *m, struct map *map)
{
    unsigned low = draw_key(m), high = low + (unsigned)drawn(m, KEYS - low);
    uint64_t records, most = 0;
    struct text from, to;
    expect_ok(
        bft_count(map->tree, key_of(&from, low), key_of(&to, high), &records));
    for (unsigned key = low; key < high; key++)
        most += map->newest[key] != 0;
    assert_in_range(records, 0, most);
}

static void ends(struct model *m, struct map *map)
{
    struct text from, to;
    unsigned low = draw_key(m);
    bft_record *record;
    bool last = drawn(m, 2);
    bft_slice high = key_of(&to, low + 200);
    bft_status status =
        last ? bft_last(map->tree, key_of(&from, low), high, &record)
             : bft_first(map->tree, key_of(&from, low), high, &record);
    if (status != BFT_OK) {
        expect_status(BFT_NOT_FOUND, status);
        return;
    }
    assert_in_range(key_in(record->key), low, low + 199);
    expect_newest(map, key_in(record->key), record->value);
    bft_free(record);
}

/* --- lives ---------------------------------------------------------------- */

static void step(struct model *m)
{
    struct map *map = &m->map[drawn(m, 2)];
    unsigned key = draw_key(m);
    size_t what = drawn(m, 1000);
    if (what < 400)
        put(m, map, key);
    else if (what < 650)
        look(m, map, key);
    else if (what < 730)
        remove_one(m, map, key);
    else if (what < 800)
        insert(m, map, key);
    else if (what < 870)
        replace(m, map, key);
    else if (what < 920)
        write_batch(m);
    else if (what < 940)
        look_at_many(m, map);
    else if (what < 960)
        walk(m, map);
    else if (what < 975)
        ends(m, map);
    else if (what < 985)
        count(m, map);
    else if (what < 998)
        remove_range(m, map);
    else if (map->expires)
        expect_ok(bft_remove_expired(map->tree, NULL));
}

static void live(uint64_t seed, bool threads, unsigned steps)
{
    static const uint32_t leaf_bytes[] = {512, 1024, 4096, 8192};
    struct model *m = calloc(1, sizeof(*m));
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree_options options = {.size = sizeof(options), .ttl_ms = FAR};
    bft_stats stats;
    assert_non_null(m);
    m->f = f;
    m->random = seed;
    f->options.storage = BFT_STORAGE_CACHE;
    f->options.durability = BFT_NONE;
    f->options.no_threads = !threads;
    f->options.leaf_bytes = leaf_bytes[drawn(m, 4)];
    engine_open(f);
    m->map[0].tree = engine_tree(f, "t", 0);
    expect_ok(bft_tree_open(f->db, "expires", &options, &m->map[1].tree));
    m->map[1].expires = true;
    for (unsigned i = 0; i < steps; i++) {
        step(m);
        if (i % (steps / 8) == 0)
            expect_ok(bft_verify(f->db));
    }
    for (unsigned key = 0; key < KEYS; key++) {
        look(m, &m->map[0], key);
        look(m, &m->map[1], key);
    }
    stats = engine_stats(f);
    print_message("seed %llu, leaves of %u: %llu found, %llu gone, %llu leaves "
                  "forgotten, %llu absorbed\n",
                  (unsigned long long)seed, (unsigned)f->options.leaf_bytes,
                  (unsigned long long)m->found, (unsigned long long)m->gone,
                  (unsigned long long)stats.leaves_forgotten,
                  (unsigned long long)stats.leaf_merges);
    assert_true(m->found > steps / 50);
    assert_true(m->gone > steps / 50 && stats.leaves_forgotten > 0);
    free(m);
    engine_fixture_free(f);
}

static void nothing_older_comes_back(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (uint64_t i = 0; i < 6; i++)
        live(seed + i, false, 30000);
}

static void nor_with_threads(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (uint64_t i = 0; i < 3; i++)
        live(seed + i, true, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_older_comes_back),
        cmocka_unit_test(nor_with_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
