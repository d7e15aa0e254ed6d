/*
 * Snapshots: what they show while everything changes, what they keep from being
 * done, and that what they kept goes when they are released.
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
#include "index/snapshot.h"
#include "model_map.h"
#include "random.h"

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void expect_was(bft_snapshot *snapshot, bft_tree *tree, const char *key,
                       const char *value)
{
    char buf[64];
    size_t len;
    if (!value) {
        expect_status(BFT_NOT_FOUND,
                      bft_snapshot_get(snapshot, tree, text_slice(key), buf,
                                       sizeof(buf), &len));
        return;
    }
    expect_ok(bft_snapshot_get(snapshot, tree, text_slice(key), buf,
                               sizeof(buf), &len));
    assert_int_equal(strlen(value), len);
    assert_memory_equal(value, buf, len);
}

static void put(bft_tree *tree, const char *key, const char *value)
{
    expect_ok(bft_put(tree, text_slice(key), text_slice(value)));
}

/* --- what they show --------------------------------------------------------- */

static void a_snapshot_shows_its_instant(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *one, *two;
    (void)state;
    put(tree, "a", "1");
    put(tree, "b", "1");
    expect_ok(bft_snapshot_take(f->db, &one));
    put(tree, "a", "2");
    put(tree, "c", "2");
    expect_ok(bft_delete(tree, text_slice("b")));
    expect_ok(bft_snapshot_take(f->db, &two));
    put(tree, "a", "3");
    put(tree, "b", "3");
    expect_ok(bft_delete(tree, text_slice("c")));
    expect_was(one, tree, "a", "1");
    expect_was(one, tree, "b", "1");
    expect_was(one, tree, "c", NULL);
    expect_was(two, tree, "a", "2");
    expect_was(two, tree, "b", NULL);
    expect_was(two, tree, "c", "2");
    bft_snapshot_release(one);
    put(tree, "a", "4");
    expect_was(two, tree, "a", "2");
    bft_snapshot_release(two);
    engine_fixture_free(f);
}

static void a_tree_that_is_new_is_empty_before(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_snapshot *before;
    bft_cursor *cursor;
    bft_tree *tree;
    (void)state;
    expect_ok(bft_snapshot_take(f->db, &before));
    tree = engine_tree(f, "new", 0);
    put(tree, "a", "1");
    expect_was(before, tree, "a", NULL);
    expect_ok(bft_snapshot_cursor(before, tree, &cursor));
    expect_status(BFT_NOT_FOUND, bft_cursor_first(cursor));
    bft_cursor_close(cursor);
    bft_snapshot_release(before);
    engine_fixture_free(f);
}

/* They have no room for the tree's number, nor for a byte that a bound has more. */
static void the_longest_keys_are_kept(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 4096);
    uint8_t bytes[BFT_KEY_MAX];
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_slice key, value;
    bft_txn *txn;
    (void)state;
    memset(bytes, 0xff, sizeof(bytes));
    for (size_t less = 0; less < 8; less++)
        expect_ok(bft_put(tree, (bft_slice){bytes, sizeof(bytes) - less},
                          text_slice("was")));
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    for (size_t less = 0; less < 8; less++) {
        key = (bft_slice){bytes, sizeof(bytes) - less};
        if (less % 2)
            expect_ok(bft_delete(tree, key));
        else
            expect_ok(bft_put(tree, key, text_slice("is")));
    }
    expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
    for (size_t less = 0; less < 8; less++) {
        bft_slice wanted = {bytes, sizeof(bytes) - less};
        char buf[8];
        size_t len;
        expect_ok(
            bft_snapshot_get(snapshot, tree, wanted, buf, sizeof(buf), &len));
        assert_memory_equal("was", buf, 3);
        expect_ok(bft_cursor_seek(cursor, less % 2 ? BFT_LE : BFT_GE, wanted));
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_int_equal(wanted.len, key.len);
        assert_memory_equal("was", value.data, 3);
    }
    bft_cursor_close(cursor);
    bft_snapshot_release(snapshot);
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    key = (bft_slice){bytes, sizeof(bytes)};
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    expect_ok(bft_cursor_seek(cursor, BFT_LE, key));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    expect_ok(bft_txn_put(txn, tree, key, text_slice("ours")));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

enum { MANY = 1500 };

static bft_slice number_key(char buf[16], int n)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "%06d", n)};
}

static void put_many(bft_tree *tree, const char *value)
{
    char buf[16];
    for (int n = 0; n < MANY; n++)
        expect_ok(bft_put(tree, number_key(buf, n), text_slice(value)));
}

/* SNAPSHOT shows all of MANY records, each with VALUE. */
static void expect_many(bft_snapshot *snapshot, bft_tree *tree,
                        const char *value)
{
    for (int back = 0; back < 2; back++) {
        bft_cursor *cursor;
        bft_slice key, got;
        char buf[16];
        expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
        for (int n = 0; n < MANY; n++) {
            bft_slice wanted = number_key(buf, back ? MANY - 1 - n : n);
            expect_ok(back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor));
            expect_ok(bft_cursor_record(cursor, &key, &got));
            assert_int_equal(wanted.len, key.len);
            assert_memory_equal(wanted.data, key.data, key.len);
            assert_int_equal(strlen(value), got.len);
            assert_memory_equal(value, got.data, got.len);
        }
        expect_status(BFT_NOT_FOUND,
                      back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor));
        bft_cursor_close(cursor);
    }
}

/* Leave the histories behind, as if they had grown. */
static void begin_history(struct engine_fixture *f)
{
    struct bfti_epoch *before = f->db->engine->history;
    atomic_store(&before->saved, UINT64_MAX / 2);
    expect_ok(bft_checkpoint(f->db));
    assert_true(atomic_load(&f->db->engine->history) != before);
}

/* Leaves that are nearly empty have had more than a cursor lays over them at a
 * time, and two histories say which. */
static void a_cursor_shows_all_that_was_removed(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 32768);
    bft_slice none = {NULL, 0};
    bft_snapshot *snapshot;
    char buf[16];
    (void)state;
    put_many(tree, "was");
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_delete_range(tree, none, number_key(buf, MANY / 2), NULL));
    put(tree, "a", "1"); /* else there may be nothing to write */
    begin_history(f);
    expect_many(snapshot, tree, "was");
    expect_ok(bft_delete_range(tree, none, none, NULL));
    expect_many(snapshot, tree, "was");
    bft_snapshot_release(snapshot);
    engine_fixture_free(f);
}

/* In histories a tree's records end where the next number begins, and the shortest
 * key between those of 255 and 256 is shorter than a number. */
static void trees_of_any_number_are_kept_apart(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_slice none = {NULL, 0};
    bft_tree *tree[4];
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_txn *txn;
    (void)state;
    f->db->engine->next_tree_id = 254;
    for (int i = 0; i < 4; i++) {
        static const char *const name[] = {"254", "255", "256", "257"};
        uint32_t id;
        tree[i] = engine_tree(f, name[i], 512);
        expect_ok(bft_tree_id(tree[i], &id));
        assert_int_equal(254 + i, id);
        put_many(tree[i], name[i]);
    }
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    for (int i = 3; i >= 0; i--)
        put_many(tree[i], "is");
    expect_ok(bft_delete_range(tree[1], none, none, NULL));
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_snapshot_cursor(snapshot, tree[1], &cursor));
    for (int n = 0; n < MANY; n++) {
        char buf[16];
        bft_slice key;
        expect_ok(bft_cursor_seek(cursor, BFT_GE, number_key(buf, n)));
        expect_ok(bft_cursor_key(cursor, &key));
        assert_memory_equal(buf, key.data, key.len);
    }
    bft_cursor_close(cursor);
    expect_many(snapshot, tree[0], "254");
    expect_many(snapshot, tree[1], "255");
    expect_many(snapshot, tree[2], "256");
    expect_many(snapshot, tree[3], "257");
    bft_snapshot_release(snapshot);
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    for (int i = 0; i < 4; i++) {
        expect_ok(bft_txn_cursor(txn, tree[i], &cursor));
        for (int n = 0; n < MANY; n++)
            expect_status(i == 1 ? BFT_NOT_FOUND : BFT_OK,
                          bft_cursor_next(cursor));
        bft_cursor_close(cursor);
    }
    put(engine_tree(f, "another", 512), "a", "1");
    expect_ok(bft_txn_put(txn, tree[2], text_slice("a"), text_slice("1")));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    engine_fixture_free(f);
}

/* --- against a map ---------------------------------------------------------- */

enum { TREES = 2, OPEN = 4, KEYS = 300, STEPS = 6000, LONG = 200 * 1000 };

struct past {
    bft_snapshot *snapshot;
    struct model_map map[TREES];
};

struct world {
    struct engine_fixture *f;
    bft_tree *tree[TREES];
    struct model_map now[TREES];
    struct past past[OPEN];
    uint8_t *value;
};

static void map_copy(struct model_map *to, const struct model_map *from)
{
    memset(to, 0, sizeof(*to));
    for (size_t i = 0; i < from->count; i++)
        model_map_put(to, model_map_key(from, i), from->record[i].value);
}

static bft_slice draw_key(uint8_t buf[BFT_KEY_MAX])
{
    size_t n = random_below(KEYS);
    int len = snprintf((char *)buf, 64, "%s%zu", n % 7 ? "k" : "prefix-of-", n);
    /* Some as long as they may be, one the beginning of another. */
    if (n % 50 == 0)
        while (len < 128)
            buf[len++] = 'x';
    return (bft_slice){buf, (size_t)len};
}

static struct model_value draw_value(void)
{
    struct model_value value = {random_next(), random_below(40)};
    if (random_below(40) == 0)
        value.len = random_below(3000);
    if (random_below(150) == 0)
        value.len = 60000 + random_below(LONG - 60000);
    return value;
}

static void world_put(struct world *w, size_t t, bft_slice key)
{
    struct model_value value = draw_value();
    model_value_bytes(value, 0, w->value, value.len);
    expect_ok(bft_put(w->tree[t], key, (bft_slice){w->value, value.len}));
    model_map_put(&w->now[t], key, value);
}

static void world_batch(struct world *w)
{
    bft_batch *batch;
    uint8_t buf[BFT_KEY_MAX];
    expect_ok(bft_batch_create(w->f->db, &batch));
    for (size_t n = random_below(20); n > 0; n--) {
        size_t t = random_below(TREES);
        bft_slice key = draw_key(buf);
        struct model_value value = {random_next(), random_below(60)};
        if (random_below(3) == 0) {
            expect_ok(bft_batch_delete(batch, w->tree[t], key));
            model_map_delete(&w->now[t], key);
            continue;
        }
        model_value_bytes(value, 0, w->value, value.len);
        expect_ok(bft_batch_put(batch, w->tree[t], key,
                                (bft_slice){w->value, value.len}));
        model_map_put(&w->now[t], key, value);
    }
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

static void world_delete_range(struct world *w)
{
    uint8_t a[BFT_KEY_MAX], b[BFT_KEY_MAX];
    bft_slice low = draw_key(a), high = draw_key(b);
    size_t t = random_below(TREES), i;
    bool found;
    expect_ok(bft_delete_range(w->tree[t], low, high, NULL));
    i = model_map_search(&w->now[t], low, &found);
    while (i < w->now[t].count &&
           bfti_key_compare(model_map_key(&w->now[t], i), high) < 0)
        model_map_delete(&w->now[t], model_map_key(&w->now[t], i));
}

static void world_change(struct world *w)
{
    uint8_t buf[BFT_KEY_MAX];
    size_t t = random_below(TREES);
    bft_slice key = draw_key(buf);
    switch (random_below(12)) {
    case 0:
        world_batch(w);
        break;
    case 1:
        if (random_below(10) == 0)
            world_delete_range(w);
        break;
    case 2:
    case 3:
    case 4:
        expect_ok(bft_delete(w->tree[t], key));
        model_map_delete(&w->now[t], key);
        break;
    default:
        world_put(w, t, key);
    }
}

static void check_record(const struct model_map *map, size_t i, bft_slice key,
                         bft_slice value)
{
    bft_slice expected = model_map_key(map, i);
    assert_int_equal(expected.len, key.len);
    assert_memory_equal(expected.data, key.data, key.len);
    assert_int_equal(map->record[i].value.len, value.len);
    assert_true(model_value_is(map->record[i].value, 0, value.data, value.len));
}

static void check_scan(struct world *w, struct past *p, size_t t, bool back)
{
    struct model_map *map = &p->map[t];
    bft_cursor *cursor;
    bft_status status;
    size_t seen = 0;
    expect_ok(bft_snapshot_cursor(p->snapshot, w->tree[t], &cursor));
    status = back ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
    for (; status == BFT_OK; seen++) {
        bft_slice key, value;
        assert_in_range(seen, 0, map->count - 1);
        expect_ok(bft_cursor_record(cursor, &key, &value));
        check_record(map, back ? map->count - 1 - seen : seen, key, value);
        if (random_below(8) == 0) /* writers go on */
            world_change(w);
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(map->count, seen);
    bft_cursor_close(cursor);
}

static void check_seek(struct world *w, struct past *p, size_t t)
{
    static const bft_seek how[] = {BFT_GE, BFT_GT, BFT_LE, BFT_LT, BFT_EQ};
    struct model_map *map = &p->map[t];
    uint8_t buf[BFT_KEY_MAX];
    bft_slice wanted = draw_key(buf), key, value;
    bft_seek seek = how[random_below(5)];
    bft_cursor *cursor;
    bool found;
    size_t i = model_map_search(map, wanted, &found);
    bool there = true;
    if (seek == BFT_GT && found)
        i++;
    if (seek == BFT_LT || (seek == BFT_LE && !found))
        there = i-- > 0;
    if (seek == BFT_EQ)
        there = found;
    there = there && i < map->count;
    expect_ok(bft_snapshot_cursor(p->snapshot, w->tree[t], &cursor));
    for (int step = 0; step < 6; step++) {
        if (step == 0)
            expect_status(there ? BFT_OK : BFT_NOT_FOUND,
                          bft_cursor_seek(cursor, seek, wanted));
        if (!there)
            break;
        expect_ok(bft_cursor_record(cursor, &key, &value));
        check_record(map, i, key, value);
        world_change(w);
        if (random_below(2)) {
            there = ++i < map->count;
            expect_status(there ? BFT_OK : BFT_NOT_FOUND,
                          bft_cursor_next(cursor));
        } else {
            there = i-- > 0;
            expect_status(there ? BFT_OK : BFT_NOT_FOUND,
                          bft_cursor_prev(cursor));
        }
    }
    bft_cursor_close(cursor);
}

static void check_get(struct world *w, struct past *p, size_t t)
{
    uint8_t buf[BFT_KEY_MAX];
    bft_slice key = draw_key(buf);
    const struct model_value *value = model_map_get(&p->map[t], key);
    void *got;
    size_t len;
    expect_status(
        value ? BFT_OK : BFT_NOT_FOUND,
        bft_snapshot_get_copy(p->snapshot, w->tree[t], key, &got, &len));
    if (value) {
        assert_int_equal(value->len, len);
        assert_true(model_value_is(*value, 0, got, len));
    }
    bft_free(got);
}

static void past_take(struct world *w, struct past *p)
{
    expect_ok(bft_snapshot_take(w->f->db, &p->snapshot));
    for (size_t t = 0; t < TREES; t++)
        map_copy(&p->map[t], &w->now[t]);
}

static void past_release(struct past *p)
{
    bft_snapshot_release(p->snapshot);
    p->snapshot = NULL;
    for (size_t t = 0; t < TREES; t++)
        model_map_clear(&p->map[t]);
}

static void check_past(struct world *w)
{
    struct past *p = &w->past[random_below(OPEN)];
    size_t t = random_below(TREES);
    if (!p->snapshot)
        return;
    switch (random_below(8)) {
    case 0:
        check_scan(w, p, t, random_below(2));
        break;
    case 1:
    case 2:
    case 3:
        check_seek(w, p, t);
        break;
    default:
        check_get(w, p, t);
    }
}

/* A page leaves memory, whether room is needed or not. */
static void evict_one(struct world *w)
{
    struct bfti_engine *engine = w->f->db->engine;
    bool done;
    expect_ok(bfti_evict_one(&engine->buffer,
                             bfti_rec_current(engine->buffer.threads), &done));
}

static void run_world(enum engine_backend backend, size_t steps)
{
    struct world w = {.f = engine_fixture_open(backend)};
    w.value = malloc(LONG);
    assert_non_null(w.value);
    for (size_t t = 0; t < TREES; t++)
        w.tree[t] = engine_tree(w.f, t ? "one" : "zero", 0);
    for (size_t i = 0; i < steps; i++) {
        struct past *p = &w.past[random_below(OPEN)];
        world_change(&w);
        if (random_below(60) == 0 && !p->snapshot)
            past_take(&w, p);
        else if (random_below(120) == 0 && p->snapshot)
            past_release(p);
        if (random_below(10) == 0)
            check_past(&w);
        if (random_below(1000) == 0)
            expect_ok(bft_checkpoint(w.f->db));
        if (random_below(20) == 0)
            evict_one(&w);
    }
    for (size_t i = 0; i < OPEN; i++)
        if (w.past[i].snapshot) {
            for (size_t t = 0; t < TREES; t++)
                check_scan(&w, &w.past[i], t, i % 2);
            past_release(&w.past[i]);
        }
    expect_ok(bft_verify(w.f->db));
    assert_true(engine_stats(w.f).evictions_dirty > 0);
    for (size_t t = 0; t < TREES; t++)
        model_map_clear(&w.now[t]);
    free(w.value);
    engine_fixture_free(w.f);
}

static void what_they_show_is_what_was(void **state)
{
    (void)state;
    run_world(ENGINE_MEMORY, STEPS);
    run_world(BFT_WITH_THREADS ? ENGINE_POSIX : ENGINE_SIM, STEPS / 3);
}

/* --- what they keep --------------------------------------------------------- */

static void what_was_kept_goes(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    char value[100];
    uint64_t leaves;
    (void)state;
    memset(value, 'v', sizeof(value));
    for (int round = 0; round < 2; round++)
        for (int n = 0; n < 2000; n++) {
            char key[16];
            int len = snprintf(key, sizeof(key), "%08d", n);
            if (round && n == 0)
                expect_ok(bft_snapshot_take(f->db, &snapshot));
            expect_ok(bft_put(tree, (bft_slice){key, (size_t)len},
                              (bft_slice){value, sizeof(value)}));
        }
    leaves = engine_stats(f).leaves;
    bft_snapshot_release(snapshot);
    expect_ok(bft_checkpoint(f->db));
    assert_in_range(engine_stats(f).leaves, 1, leaves - 50);
    expect_ok(bft_verify(f->db));
    /* Nor is anything left when the process ends with one open. */
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    put(tree, "a", "1");
    engine_reopen(f);
    expect_ok(bft_verify(f->db));
    bft_snapshot_release(snapshot);
    engine_fixture_free(f);
}

static void nothing_is_kept_without_one(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    uint64_t saved;
    (void)state;
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    put(tree, "a", "1");
    saved = atomic_load(&f->db->engine->history->saved);
    assert_true(saved > 0);
    put(tree, "a", "2"); /* it is kept already */
    bft_snapshot_release(snapshot);
    put(tree, "b", "1");
    assert_int_equal(saved, atomic_load(&f->db->engine->history->saved));
    engine_fixture_free(f);
}

static void old_histories_go_while_new_snapshots_come(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *last, *next;
    uint64_t most = 0;
    char value[200];
    (void)state;
    memset(value, 'v', sizeof(value));
    expect_ok(bft_snapshot_take(f->db, &last));
    for (int n = 0; n < 20000; n++) {
        char key[16];
        int len = snprintf(key, sizeof(key), "%04d", n % 500);
        bft_stats stats;
        if (n % 50 == 0) { /* one at least is always open */
            expect_ok(bft_snapshot_take(f->db, &next));
            bft_snapshot_release(last);
            last = next;
        }
        expect_ok(bft_put(tree, (bft_slice){key, (size_t)len},
                          (bft_slice){value, sizeof(value)}));
        if (n % 1000 == 999) {
            expect_ok(bft_checkpoint(f->db));
            stats = engine_stats(f);
            if (stats.leaves > most)
                most = stats.leaves;
        }
    }
    /* 20,000 versions of 200 bytes would take 8,000 leaves. */
    assert_in_range(most, 1, 4000);
    bft_snapshot_release(last);
    engine_fixture_free(f);
}

static unsigned trees_walked(const struct bfti_engine *engine)
{
    unsigned count = 0;
    for (const struct bfti_tree *t = engine->trees; t; t = t->next)
        count++;
    return count;
}

static unsigned histories_walked(const struct bfti_engine *engine)
{
    const struct bfti_epoch *epoch = atomic_load(&engine->history);
    unsigned count = 0;
    for (; epoch; epoch = atomic_load(&epoch->older))
        count++;
    return count;
}

/* Also of trees that were dropped, or truncated: what looks for a tree, or for what
 * was, does not come by them. */
static void what_went_is_not_walked(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_snapshot *snapshot, *first;
    bft_tree *tree;
    char value[16];
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    put(tree, "a", "first");
    for (int i = 0; i < 100; i++) {
        (void)snprintf(value, sizeof(value), "%d", i);
        expect_ok(bft_snapshot_take(f->db, &snapshot));
        put(tree, "a", value);
        bft_snapshot_release(snapshot);
        (void)engine_tree(f, "u", 0);
        expect_ok(i % 2 ? bft_tree_drop(f->db, "u")
                        : bft_tree_truncate(f->db, "u"));
        expect_ok(bft_checkpoint(f->db));
        assert_in_range(trees_walked(f->db->engine), 1, 5);
        assert_in_range(histories_walked(f->db->engine), 1, 2);
    }
    /* Those that somebody needs are. */
    expect_ok(bft_snapshot_take(f->db, &first));
    for (int i = 0; i < 10; i++) {
        put(tree, "a", "another");
        begin_history(f);
        expect_was(first, tree, "a", "99");
    }
    assert_in_range(histories_walked(f->db->engine), 11, 13);
    bft_snapshot_release(first);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_checkpoint(f->db));
    assert_in_range(histories_walked(f->db->engine), 1, 2);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static bft_status no_record(void *ctx, bft_bulk_record *record)
{
    static const bft_bulk_record one = {.key = {"k", 1}, .value = {"v", 1}};
    int *given = ctx;
    *record = one;
    return (*given)++ ? BFT_NOT_FOUND : BFT_OK;
}

static void trees_stay_while_one_is_open(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    int given = 0;
    (void)state;
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_status(BFT_BUSY, bft_bulk_load(tree, NULL, no_record, &given, NULL));
    put(tree, "a", "1");
    expect_status(BFT_BUSY, bft_tree_drop(f->db, "t"));
    expect_status(BFT_BUSY, bft_tree_truncate(f->db, "t"));
    expect_ok(bft_tree_rename(f->db, "t", "u"));
    expect_was(snapshot, tree, "a", NULL);
    bft_snapshot_release(snapshot);
    expect_ok(bft_tree_truncate(f->db, "u"));
    expect_ok(bft_tree_drop(f->db, "u"));
    engine_fixture_free(f);
}

static void a_cursor_keeps_its_snapshot(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_slice key, value;
    (void)state;
    put(tree, "a", "1");
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
    bft_snapshot_release(snapshot);
    put(tree, "a", "2");
    expect_ok(bft_cursor_first(cursor));
    expect_ok(bft_cursor_record(cursor, &key, &value));
    assert_memory_equal("1", value.data, 1);
    expect_status(BFT_BUSY, bft_tree_truncate(f->db, "t"));
    bft_cursor_close(cursor);
    expect_ok(bft_tree_truncate(f->db, "t"));
    engine_fixture_free(f);
}

/* --- misuse ----------------------------------------------------------------- */

static void misuse_is_told(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct engine_fixture *g = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0), *other = engine_tree(g, "t", 0);
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    char buf[4];
    void *copy;
    size_t len;
    (void)state;
    put(tree, "a", "12345678");
    expect_status(BFT_INVALID, bft_snapshot_take(NULL, &snapshot));
    expect_status(BFT_INVALID, bft_snapshot_take(f->db, NULL));
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_status(BFT_INVALID,
                  bft_snapshot_get(NULL, tree, text_slice("a"), buf, 4, &len));
    expect_status(BFT_INVALID, bft_snapshot_get(snapshot, other,
                                                text_slice("a"), buf, 4, &len));
    expect_status(BFT_INVALID, bft_snapshot_get(snapshot, tree, text_slice("a"),
                                                buf, 4, NULL));
    expect_status(
        BFT_INVALID,
        bft_snapshot_get_copy(snapshot, tree, text_slice("a"), NULL, &len));
    expect_status(BFT_INVALID, bft_snapshot_cursor(snapshot, tree, NULL));
    expect_status(BFT_INVALID, bft_snapshot_cursor(NULL, tree, &cursor));
    expect_status(
        BFT_TOO_SMALL,
        bft_snapshot_get(snapshot, tree, text_slice("a"), buf, 4, &len));
    assert_int_equal(8, len);
    put(tree, "a", "1");
    expect_status(
        BFT_TOO_SMALL,
        bft_snapshot_get(snapshot, tree, text_slice("a"), buf, 4, &len));
    assert_int_equal(8, len);
    bft_snapshot_release(NULL);
    engine_close(f);
    expect_status(
        BFT_INVALID,
        bft_snapshot_get_copy(snapshot, tree, text_slice("a"), &copy, &len));
    bft_snapshot_release(snapshot);
    engine_fixture_free(g);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_shows_its_instant),
        cmocka_unit_test(a_tree_that_is_new_is_empty_before),
        cmocka_unit_test(the_longest_keys_are_kept),
        cmocka_unit_test(a_cursor_shows_all_that_was_removed),
        cmocka_unit_test(trees_of_any_number_are_kept_apart),
        cmocka_unit_test(what_they_show_is_what_was),
        cmocka_unit_test(what_was_kept_goes),
        cmocka_unit_test(nothing_is_kept_without_one),
        cmocka_unit_test(old_histories_go_while_new_snapshots_come),
        cmocka_unit_test(what_went_is_not_walked),
        cmocka_unit_test(trees_stay_while_one_is_open),
        cmocka_unit_test(a_cursor_keeps_its_snapshot),
        cmocka_unit_test(misuse_is_told),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
