/*
 * Snapshots and transactions beside others that are stopped between two steps.
 */
#include <sched.h>
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
#include "park.h"

enum { LONG = 100 * 1000 };

struct race {
    struct engine_fixture *f;
    bft_tree *tree, *other;
    bft_status status; /* of the parked thread's call */
    uint8_t *value;    /* LONG bytes */
    bft_snapshot *snapshot;
    char first[8]; /* what the parked thread read */
    bft_txn *txn;
    bft_status taken; /* of taking the snapshot */
    _Atomic bool done;
};

static struct race *race_open(void)
{
    struct race *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->f = engine_fixture_make(ENGINE_MEMORY);
    r->f->options.no_threads = true;
    engine_open(r->f);
    r->tree = engine_tree(r->f, "t", 512);
    r->other = engine_tree(r->f, "other", 512);
    r->value = calloc(1, LONG);
    assert_non_null(r->value);
    return r;
}

static void race_close(struct race *r)
{
    bft_snapshot_release(r->snapshot);
    expect_ok(bft_verify(r->f->db));
    free(r->value);
    engine_fixture_free(r->f);
    free(r);
}

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void put(bft_tree *tree, const char *key, const char *value)
{
    expect_ok(bft_put(tree, text_slice(key), text_slice(value)));
}

static void is_value(const char *value, bft_status status, const char *buf,
                     size_t len)
{
    expect_status(value ? BFT_OK : BFT_NOT_FOUND, status);
    if (value) {
        assert_int_equal(strlen(value), len);
        assert_memory_equal(value, buf, len);
    }
}

static void was_in(struct race *r, bft_tree *tree, const char *key,
                   const char *value)
{
    char buf[64];
    size_t len;
    bft_status status = bft_snapshot_get(r->snapshot, tree, text_slice(key),
                                         buf, sizeof(buf), &len);
    is_value(value, status, buf, len);
}

static void was(struct race *r, const char *key, const char *value)
{
    was_in(r, r->tree, key, value);
}

static void is(bft_tree *tree, const char *key, const char *value)
{
    char buf[64];
    size_t len;
    bft_status status = bft_get(tree, text_slice(key), buf, sizeof(buf), &len);
    is_value(value, status, buf, len);
}

/* So many records around the key "m", which move its leaf. */
static void put_many(bft_tree *tree, const char *prefix, unsigned count,
                     const uint8_t *value, size_t len)
{
    for (unsigned i = 0; i < count; i++) {
        char key[24];
        int n = snprintf(key, sizeof(key), "%s%05u", prefix, i);
        expect_ok(bft_put(tree, (bft_slice){key, (size_t)n},
                          (bft_slice){value, len}));
    }
}

/* --- what parked threads do ------------------------------------------------- */

static void put_short(void *arg)
{
    struct race *r = arg;
    r->status = bft_put(r->tree, text_slice("a"), text_slice("2"));
}

static void *put_later(void *arg)
{
    put_short(arg);
    return NULL;
}

/* Two records of two leaves at once. */
static void put_both(void *arg)
{
    struct race *r = arg;
    bft_batch *batch;
    expect_ok(bft_batch_create(r->f->db, &batch));
    expect_ok(bft_batch_put(batch, r->tree, text_slice("a"), text_slice("2")));
    expect_ok(bft_batch_put(batch, r->tree, text_slice("z"), text_slice("2")));
    r->status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
    bft_batch_free(batch);
}

static void take(void *arg)
{
    struct race *r = arg;
    size_t len;
    r->taken = bft_snapshot_take(r->f->db, &r->snapshot);
    expect_ok(bft_snapshot_get(r->snapshot, r->tree, text_slice("a"), r->first,
                               sizeof(r->first), &len));
    atomic_store(&r->done, true);
}

static void read_a(void *arg)
{
    struct race *r = arg;
    size_t len;
    r->status = bft_snapshot_get(r->snapshot, r->tree, text_slice("a"),
                                 r->first, sizeof(r->first), &len);
}

static void scan_to_a(void *arg)
{
    struct race *r = arg;
    bft_cursor *cursor;
    bft_slice key, value = {NULL, 0};
    expect_ok(bft_snapshot_cursor(r->snapshot, r->tree, &cursor));
    r->status = bft_cursor_first(cursor);
    if (r->status == BFT_OK)
        r->status = bft_cursor_record(cursor, &key, &value);
    if (r->status == BFT_OK && value.len <= sizeof(r->first))
        memcpy(r->first, value.data, value.len);
    bft_cursor_close(cursor);
}

static void commit(void *arg)
{
    struct race *r = arg;
    r->status = bft_txn_commit(r->txn, BFT_DEFAULT, NULL);
    r->txn = NULL;
}

/* Who saves a record is left behind: its snapshot is released, and what it saves
 * to is cleared by a checkpoint.  Nobody needs what it saves then. */
static void saved_for_nobody(const char *point, size_t len)
{
    struct race *r = race_open();
    struct parked writer;
    bft_snapshot *snapshot;
    char buf[8];
    size_t got;
    expect_ok(bft_put(r->tree, text_slice("a"), (bft_slice){r->value, len}));
    expect_ok(bft_put(r->tree, (bft_slice){"b", 1}, (bft_slice){"1", 1}));
    expect_ok(bft_snapshot_take(r->f->db, &snapshot));
    /* So that there is something to clear. */
    expect_ok(bft_put(r->tree, (bft_slice){"b", 1}, (bft_slice){"2", 1}));
    assert_true(park_start(&writer, point, 0, put_short, r));
    bft_snapshot_release(snapshot);
    expect_ok(bft_checkpoint(r->f->db));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    park_end(&writer);
    expect_ok(r->status);
    expect_ok(bft_get(r->tree, text_slice("a"), buf, sizeof(buf), &got));
    assert_int_equal(1, got);
    /* It came behind the new snapshot. */
    expect_status(len > sizeof(buf) ? BFT_TOO_SMALL : BFT_OK,
                  bft_snapshot_get(r->snapshot, r->tree, text_slice("a"), buf,
                                   sizeof(buf), &got));
    assert_int_equal(len, got);
    race_close(r);
}

static void a_saver_that_is_left_behind_goes_on(void **state)
{
    (void)state;
    saved_for_nobody("history:record-read", 4);
    saved_for_nobody("history:record-read", LONG);
    saved_for_nobody("large:part-chosen", LONG);
}

/* What it read first was long and lay apart, and what it reads when it begins anew
 * is short: only that is kept. */
static void a_saver_left_behind_saves_what_it_read_last(void **state)
{
    bft_tree_options expiring = {
        .size = sizeof(expiring), .leaf_bytes = 512, .ttl_ms = 60 * 1000};
    struct race *r = race_open();
    struct parked writer;
    bft_snapshot *snapshot;
    (void)state;
    expect_ok(bft_tree_open(r->f->db, "expiring", &expiring, &r->tree));
    expect_ok(bft_put(r->tree, text_slice("a"), (bft_slice){r->value, LONG}));
    put(r->tree, "b", "1");
    expect_ok(bft_snapshot_take(r->f->db, &snapshot));
    put(r->tree, "b", "2"); /* so that there is something to clear */
    assert_true(park_start(&writer, "history:record-read", 0, put_short, r));
    bft_snapshot_release(snapshot);
    expect_ok(bft_checkpoint(r->f->db));
    put(r->tree, "a", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    park_end(&writer);
    expect_ok(r->status);
    is(r->tree, "a", "2");
    was(r, "a", "1");
    race_close(r);
}

/* --- between the writes ----------------------------------------------------- */

static void *take_later(void *arg)
{
    take(arg);
    return NULL;
}

/* What the snapshot has of "a" and "z", by all ways to it; NULL: nothing. */
static void shows(struct race *r, const char *a, const char *z)
{
    const char *const want[] = {a, z}, *const name[] = {"a", "z"};
    bft_cursor *cursor;
    bft_slice key, value;
    was(r, "a", a);
    was(r, "z", z);
    expect_ok(bft_snapshot_cursor(r->snapshot, r->tree, &cursor));
    for (unsigned i = 0; i < 2; i++) {
        if (!want[i])
            continue;
        expect_ok(bft_cursor_next(cursor));
        expect_ok(bft_cursor_record(cursor, &key, &value));
        is_value(name[i], BFT_OK, key.data, key.len);
        is_value(want[i], BFT_OK, value.data, value.len);
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    for (unsigned i = 2; i-- > 0;) {
        if (!want[i])
            continue;
        expect_ok(bft_cursor_prev(cursor));
        expect_ok(bft_cursor_record(cursor, &key, &value));
        is_value(want[i], BFT_OK, value.data, value.len);
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_prev(cursor));
    bft_cursor_close(cursor);
}

/* "a" and "z" are what A and Z say.  WRITE is stopped at POINT.  The snapshot has
 * all of it, if VISIBLE, or nothing, whatever comes later. */
static void pass_by(const char *a, const char *z, void (*write)(void *),
                    const char *point, bool visible)
{
    const char *after_z = write == put_short ? z : "2";
    const char *see_a = visible ? "2" : a, *see_z = visible ? after_z : z;
    struct race *r = race_open();
    struct parked writer;
    bft_snapshot *first;
    if (a)
        put(r->tree, "a", a);
    if (z)
        put(r->tree, "z", z);
    assert_true(park_start(&writer, point, 0, write, r));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    shows(r, see_a, see_z);
    park_end(&writer);
    expect_ok(r->status);
    shows(r, see_a, see_z);
    first = r->snapshot;
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    shows(r, "2", after_z);
    put(r->tree, "a", "3"); /* saves what the late writer wrote */
    put(r->tree, "z", "3");
    shows(r, "2", after_z);
    bft_snapshot_release(r->snapshot);
    r->snapshot = first;
    shows(r, see_a, see_z);
    put(r->tree, "z", "4");
    shows(r, see_a, see_z);
    race_close(r);
}

/* Who publishes has not seen the number.  It is before the snapshot if something
 * of its is visible by then, else behind it; and nobody waits for it. */
static void a_snapshot_passes_by_who_publishes(void **state)
{
    static const struct {
        const char *point;
        void (*write)(void *);
        bool visible;
    } way[] = {
        {"write:guarded", put_short, false},
        {"wal:tail-named", put_short, false},
        {"wal:linked", put_short, false},
        {"write:logged", put_short, false},
        {"write:published", put_short, true},
        {"batch:latched", put_both, false},
        {"batch:logged", put_both, false},
        {"batch:part-published", put_both, false},
        {"batch:decided", put_both, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(way) / sizeof(*way); i++) {
        pass_by("1", "1", way[i].write, way[i].point, way[i].visible);
        pass_by(NULL, "1", way[i].write, way[i].point, way[i].visible);
        pass_by("1", NULL, way[i].write, way[i].point, way[i].visible);
    }
}

/* A write that has seen the number is stopped.  What it is about to change was
 * changed once more behind the number, and is not what the snapshot has. */
static void what_was_changed_before_a_stopped_writer(void **state)
{
    struct race *r = race_open();
    struct parked writer, taker;
    (void)state;
    put(r->tree, "a", "1");
    assert_true(park_start(&taker, "snapshot:linked", 0, take, r));
    put(r->tree, "a", "3");
    assert_true(park_start(&writer, "write:logged", 0, put_short, r));
    park_end(&taker);
    expect_ok(r->taken);
    assert_memory_equal("1", r->first, 1);
    park_end(&writer);
    expect_ok(r->status);
    was(r, "a", "1");
    is(r->tree, "a", "2");
    race_close(r);
}

/* The writer goes on while what it is about to change is read. */
static void who_was_late_publishes_after_all(void **state)
{
    struct race *r = race_open();
    struct parked writer, taker;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        put(r->tree, "a", "1");
        put(r->tree, "z", "1");
        assert_true(park_start(&writer, i ? "batch:logged" : "write:logged", 0,
                               i ? put_both : put_short, r));
        assert_true(park_start(
            &taker, i ? "late:records-read" : "late:frame-named", 0, take, r));
        park_end(&writer);
        expect_ok(r->status);
        put(r->tree, "z", "3"); /* its frame may go; and behind the number */
        park_end(&taker);
        expect_ok(r->taken);
        assert_memory_equal("2", r->first, 1);
        shows(r, "2", i ? "2" : "1");
        bft_snapshot_release(r->snapshot);
        r->snapshot = NULL;
    }
    race_close(r);
}

static void put_other(void *arg)
{
    struct race *r = arg;
    r->status = bft_put(r->other, text_slice("z"), text_slice("2"));
}

/* A write that has seen the number is seen, while its taker is stopped, and one
 * that has not is still hidden: by who reads, and by a snapshot that comes later.
 * So the first snapshot has neither, though the hidden one is published before its
 * taker goes on. */
static void who_sees_the_number_comes_behind_who_is_hidden(void **state)
{
    struct race *r = race_open(), first;
    struct parked writer, taker;
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        bool both = way % 2, later = way / 2;
        put(r->tree, "a", "1");
        put(r->tree, "z", "1");
        put(r->other, "b", "1");
        first = (struct race){.f = r->f, .tree = r->tree};
        assert_true(park_start(&writer, both ? "batch:logged" : "write:logged",
                               0, both ? put_both : put_short, r));
        assert_true(park_start(&taker, "snapshot:linked", 0, take, &first));
        put(r->other, "b", "3");
        is(r->other, "b", "3");
        is(r->tree, "a", "1");
        if (later)
            expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
        park_end(&writer);
        expect_ok(r->status);
        park_end(&taker);
        expect_ok(first.taken);
        if (later) {
            was_in(r, r->other, "b", "3");
            was(r, "a", "1");
            was(r, "z", "1");
        }
        was_in(&first, r->other, "b", "1");
        was(&first, "a", "1");
        was(&first, "z", "1");
        bft_snapshot_release(first.snapshot);
        bft_snapshot_release(r->snapshot);
        r->snapshot = NULL;
    }
    race_close(r);
}

/* Two who are late: one is looked at, and kept; then both publish, one behind the
 * other, before the other is looked at. */
static void of_two_late_writers_the_second_is_not_alone(void **state)
{
    void (*const write[])(void *) = {put_short, put_other};
    struct race *r = race_open();
    struct parked writer[2], taker;
    (void)state;
    /* Who is looked at first, and who publishes first, is each way about. */
    for (unsigned way = 0; way < 4; way++) {
        unsigned first = way % 2, started = way / 2;
        char z[8];
        size_t len;
        put(r->tree, "a", "1");
        put(r->other, "z", "1");
        for (unsigned i = 0; i < 2; i++)
            assert_true(park_start(&writer[i ^ started], "write:logged", 0,
                                   write[i ^ started], r));
        assert_true(park_start(&taker, "late:frame-named", 1, take, r));
        park_end(&writer[first]);
        park_end(&writer[!first]);
        park_end(&taker);
        expect_ok(r->status);
        expect_ok(r->taken);
        expect_ok(bft_snapshot_get(r->snapshot, r->other, text_slice("z"), z,
                                   sizeof(z), &len));
        if (first == 0 ? z[0] == '2' : r->first[0] == '2')
            assert_memory_equal(z, r->first, 1);
        bft_snapshot_release(r->snapshot);
        r->snapshot = NULL;
    }
    race_close(r);
}

/* More than a snapshot keeps is waited for. */
static void a_late_writer_of_much_is_waited_for(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    pthread_t taker;
    (void)state;
    expect_ok(bft_put(r->tree, text_slice("a"), (bft_slice){r->value, LONG}));
    r->f->db->engine->options.memory_bytes = LONG;
    assert_true(park_start(&writer, "write:logged", 0, put_short, r));
    assert_int_equal(0, pthread_create(&taker, NULL, take_later, r));
    for (int i = 0; i < 1000; i++)
        sched_yield(); /* time for one that does not wait */
    assert_false(atomic_load(&r->done));
    park_end(&writer);
    assert_int_equal(0, pthread_join(taker, NULL));
    expect_ok(r->taken);
    assert_memory_equal("2", r->first, 1);
    race_close(r);
}

/* What a transaction read, or writes, a late writer changes. */
static void a_transaction_beside_a_late_writer(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    char buf[8];
    size_t len;
    (void)state;
    for (unsigned way = 0; way < 5; way++) {
        put(r->tree, "a", "1");
        put(r->tree, "b", "1");
        put(r->other, "z", "1");
        assert_true(park_start(&writer, "write:logged", 0, put_short, r));
        expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
        if (way < 3)
            expect_ok(bft_txn_get(r->txn, r->tree, text_slice(way ? "a" : "b"),
                                  buf, sizeof(buf), &len));
        assert_memory_equal("1", buf, 1);
        expect_ok(bft_txn_put(r->txn, way < 3 ? r->other : r->tree,
                              text_slice(way < 3 ? "z" : "a"),
                              text_slice("3")));
        if (way != 2) /* else it commits while the writer is stopped */
            park_end(&writer);
        if (way == 4) /* saves what the late writer wrote */
            put(r->tree, "a", "1");
        commit(r);
        expect_status(way % 4 ? BFT_CONFLICT : BFT_OK, r->status);
        if (way == 2)
            park_end(&writer);
        is(r->tree, "a", way < 4 ? "2" : "3");
        is(r->other, "z", way ? "1" : "3");
    }
    race_close(r);
}

/* Who saves a record of a leaf that is being written waits for its writer. */
static void who_saves_waits_for_who_publishes(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    struct race second;
    pthread_t later;
    (void)state;
    put(r->tree, "a", "1");
    put(r->tree, "z", "1");
    assert_true(park_start(&writer, "batch:logged", 0, put_both, r));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    second = (struct race){.f = r->f, .tree = r->tree};
    assert_int_equal(0, pthread_create(&later, NULL, put_later, &second));
    for (int i = 0; i < 1000; i++)
        sched_yield(); /* time for one that does not wait */
    park_end(&writer);
    assert_int_equal(0, pthread_join(later, NULL));
    shows(r, "1", "1");
    race_close(r);
}

/* Who decided to write while no snapshot was open, and has not begun to publish,
 * decides again. */
static void a_snapshot_between_deciding_and_publishing(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    (void)state;
    put(r->tree, "a", "1");
    put(r->tree, "z", "1");
    assert_true(park_start(&writer, "write:saved", 0, put_short, r));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    park_end(&writer);
    expect_ok(r->status);
    was(r, "a", "1");
    bft_snapshot_release(r->snapshot);
    put(r->tree, "a", "1");
    assert_true(park_start(&writer, "batch:checked", 0, put_both, r));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    park_end(&writer);
    expect_ok(r->status);
    was(r, "a", "1");
    was(r, "z", "1");
    is(r->tree, "a", "2");
    is(r->tree, "z", "2");
    race_close(r);
}

/* A writer saves for one snapshot while the next is taken. */
static void a_snapshot_between_saving_and_publishing(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    bft_snapshot *first;
    (void)state;
    put(r->tree, "a", "0");
    expect_ok(bft_snapshot_take(r->f->db, &first));
    put(r->tree, "a", "1");
    assert_true(park_start(&writer, "write:saved", 0, put_short, r));
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    park_end(&writer);
    expect_ok(r->status);
    was(r, "a", "1");
    bft_snapshot_release(r->snapshot);
    r->snapshot = first;
    was(r, "a", "0");
    race_close(r);
}

/* A reader that has read the tree, but not the history. */
static void a_write_behind_a_reader(void **state)
{
    struct race *r = race_open();
    struct parked reader;
    (void)state;
    put(r->tree, "a", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    assert_true(park_start(&reader, "snapshot:tree-read", 0, read_a, r));
    put(r->tree, "a", "3");
    park_end(&reader);
    expect_ok(r->status);
    assert_memory_equal("1", r->first, 1);
    bft_snapshot_release(r->snapshot);
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    assert_true(park_start(&reader, "cursor:copied", 0, scan_to_a, r));
    put(r->tree, "a", "4");
    park_end(&reader);
    expect_ok(r->status);
    assert_memory_equal("3", r->first, 1);
    race_close(r);
}

/* Two save the same record at once: one of them finds it saved. */
static void of_two_who_save_one_does(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    (void)state;
    put(r->tree, "a", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    assert_true(park_start(&writer, "history:record-read", 0, put_short, r));
    put(r->tree, "a", "3");
    park_end(&writer);
    expect_ok(r->status);
    was(r, "a", "1");
    is(r->tree, "a", "2");
    race_close(r);
}

static void drop_other(void *arg)
{
    struct race *r = arg;
    r->status = bft_tree_drop(r->f->db, "other");
}

/* Trees do not go while a snapshot is open: so none is taken while one goes. */
static void a_snapshot_waits_for_a_drop(void **state)
{
    struct race *r = race_open();
    struct parked dropper;
    pthread_t taker;
    (void)state;
    put(r->tree, "a", "1");
    /* Histories are there: it is not for them that it waits. */
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    bft_snapshot_release(r->snapshot);
    r->snapshot = NULL;
    assert_true(park_start(&dropper, "drop:logged", 0, drop_other, r));
    assert_int_equal(0, pthread_create(&taker, NULL, take_later, r));
    for (int i = 0; i < 1000; i++)
        sched_yield(); /* time for one that does not wait */
    assert_false(atomic_load(&r->done));
    park_end(&dropper);
    assert_int_equal(0, pthread_join(taker, NULL));
    expect_ok(r->status);
    expect_ok(r->taken);
    was(r, "a", "1");
    race_close(r);
}

/* Histories that nobody needs go while one is taken that found them there. */
static void a_history_goes_while_a_snapshot_is_taken(void **state)
{
    struct race *r = race_open();
    struct parked taker;
    (void)state;
    put(r->tree, "a", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    put(r->tree, "a", "2");
    bft_snapshot_release(r->snapshot);
    assert_true(park_start(&taker, "snapshot:history-there", 0, take, r));
    expect_ok(bft_checkpoint(r->f->db));
    park_end(&taker);
    expect_ok(r->taken);
    put(r->tree, "a", "3");
    was(r, "a", "2");
    race_close(r);
}

/* Leave the histories behind, as if they had grown. */
static void begin_history(struct race *r)
{
    struct bfti_epoch *before = r->f->db->engine->history;
    atomic_store(&before->saved, UINT64_MAX / 2);
    put(r->tree, "c00000", "3"); /* else there is nothing to write */
    expect_ok(bft_checkpoint(r->f->db));
    assert_true(atomic_load(&r->f->db->engine->history) != before);
}

/* Who saves for a snapshot that is released saves a later value, to a history that
 * was left behind.  An older snapshot has what the newer history has. */
static void a_late_saver_saves_to_what_was_left_behind(void **state)
{
    struct race *r = race_open();
    struct parked writer;
    bft_snapshot *second;
    (void)state;
    put(r->tree, "a", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    expect_ok(bft_snapshot_take(r->f->db, &second));
    assert_true(park_start(&writer, "write:leaf-chosen", 0, put_short, r));
    bft_snapshot_release(second);
    begin_history(r);
    put(r->tree, "a", "3");
    park_end(&writer);
    expect_ok(r->status);
    is(r->tree, "a", "2");
    was(r, "a", "1");
    race_close(r);
}

/* Two histories have it: what it was first, and what it was between. */
static void
what_was_set_back_is_no_conflict_whatever_histories_say(void **state)
{
    struct race *r = race_open();
    char buf[8];
    size_t len;
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        bool read = way % 2, back = way < 2;
        put(r->tree, "a", "1");
        expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
        if (read)
            expect_ok(bft_txn_get(r->txn, r->tree, text_slice("a"), buf,
                                  sizeof(buf), &len));
        expect_ok(bft_txn_put(r->txn, read ? r->other : r->tree,
                              text_slice("a"), text_slice("3")));
        put(r->tree, "a", "2");
        begin_history(r);
        expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
        put(r->tree, "a", back ? "1" : "2"); /* saves the "2" */
        was(r, "a", "2");
        bft_snapshot_release(r->snapshot);
        r->snapshot = NULL;
        commit(r);
        expect_status(back ? BFT_OK : BFT_CONFLICT, r->status);
    }
    race_close(r);
}

/* --- between looking and publishing ----------------------------------------- */

/* A transaction that read what is from "m" on up to "n", and writes "z", its
 * commit stopped at POINT, or when it has looked at all.  SAVED: a history has what
 * "m" was by then. */
static void begin_and_look(struct race *r, struct parked *committer, bool saved,
                           const char *point)
{
    bft_cursor *cursor;
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
    expect_ok(bft_txn_cursor(r->txn, r->tree, &cursor));
    expect_ok(bft_cursor_bounds(cursor, text_slice("m"), text_slice("n")));
    expect_ok(bft_cursor_first(cursor));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    expect_ok(bft_txn_put(r->txn, r->other, text_slice("z"), text_slice("2")));
    if (saved) {
        put(r->tree, "m", "0");
        put(r->tree, "m", "1");
    }
    /* It compares "z" first. */
    assert_true(park_start(committer, point ? point : "batch:checked",
                           point ? 1 : 0, commit, r));
}

enum { WAYS = 9, MANY = 200, FEW = 60 };

/* What comes between; true: it may be committed all the same. */
static bool come_between(struct race *r, unsigned way)
{
    struct bfti_engine *engine = r->f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool done;
    switch (way) {
    case 0: /* what was read */
        put(r->tree, "m", "3");
        return false;
    case 1: /* what was not there */
        put(r->tree, "mm", "3");
        return false;
    case 2: /* set back to what it was */
        put(r->tree, "m", "3");
        put(r->tree, "m", "1");
        return true;
    case 3: /* its leaf splits, and it is another's then */
        put_many(r->tree, "l", MANY, r->value, 100);
        put_many(r->tree, "n", MANY, r->value, 100);
        put(r->tree, "m", "3");
        return false;
    case 4: /* the same, and it is not changed */
        put_many(r->tree, "l", MANY, r->value, 100);
        put_many(r->tree, "n", MANY, r->value, 100);
        return true;
    case 5: /* leaves go, and it with them */
        expect_ok(
            bft_delete_range(r->tree, text_slice("b"), text_slice("y"), NULL));
        for (unsigned i = 0; i < MANY; i++)
            expect_ok(bfti_sweep(engine, rec));
        return false;
    case 6: /* all is written to disk and forgotten */
        expect_ok(bft_checkpoint(r->f->db));
        for (unsigned i = 0; i < MANY; i++)
            expect_ok(bfti_evict_one(&engine->buffer, rec, &done));
        return true;
    case 7: /* leaves are absorbed, it stays */
        expect_ok(
            bft_delete_range(r->tree, text_slice("b"), text_slice("m"), NULL));
        expect_ok(bft_checkpoint(r->f->db));
        for (unsigned i = 0; i < MANY; i++)
            expect_ok(bfti_sweep(engine, rec));
        return true;
    default: /* what it wrote */
        put(r->other, "z", "3");
        return false;
    }
}

static void commit_with(unsigned way, bool saved, const char *point)
{
    struct race *r = race_open();
    struct parked committer;
    bool may;
    put_many(r->tree, "c", MANY, r->value, 40);
    put(r->tree, "m", "1");
    put_many(r->tree, "x", MANY, r->value, 40);
    put(r->other, "z", "1");
    begin_and_look(r, &committer, saved, point);
    may = come_between(r, way);
    park_end(&committer);
    if ((r->status == BFT_OK) != may)
        print_error("way %u\n", way);
    expect_status(may ? BFT_OK : BFT_CONFLICT, r->status);
    is(r->other, "z", may ? "2" : way == WAYS - 1 ? "3" : "1");
    race_close(r);
}

static void what_comes_between_looking_and_publishing(void **state)
{
    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        commit_with(way, false, NULL);
        commit_with(way, true, NULL);
        commit_with(way, true, "txn:compared");
    }
}

/* Histories begin anew: what is changed then is saved where nobody looked. */
static void a_history_begins_between_looking_and_publishing(void **state)
{
    struct race *r = race_open();
    struct parked committer;
    bft_tree *last = engine_tree(r->f, "last", 512);
    (void)state;
    put_many(last, "c", FEW / 3, r->value, 100);
    put_many(r->tree, "c", FEW, r->value, 100);
    put(r->tree, "m", "1");
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
    /* So that the history has some leaves, and nothing befalls that of "m" when it
     * is left behind: only that another begins may tell. */
    put_many(last, "c", FEW / 3, r->value, 99);
    put_many(r->tree, "c", FEW, r->value, 99);
    expect_ok(bft_checkpoint(r->f->db));
    begin_and_look(r, &committer, false, NULL);
    begin_history(r);
    put(r->tree, "m", "3");
    park_end(&committer);
    expect_status(BFT_CONFLICT, r->status);
    race_close(r);
}

/* Each of two reads what the other writes, and one is about to publish. */
static void a_commit_beside_one_that_publishes(void **state)
{
    struct race *r = race_open(), second;
    struct parked committer;
    char buf[8];
    size_t len;
    (void)state;
    put(r->tree, "m", "1");
    put(r->other, "z", "1");
    second = (struct race){.f = r->f};
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &second.txn));
    expect_ok(
        bft_txn_get(r->txn, r->other, text_slice("z"), buf, sizeof(buf), &len));
    expect_ok(bft_txn_get(second.txn, r->tree, text_slice("m"), buf,
                          sizeof(buf), &len));
    expect_ok(bft_txn_put(r->txn, r->tree, text_slice("m"), text_slice("2")));
    expect_ok(
        bft_txn_put(second.txn, r->other, text_slice("z"), text_slice("2")));
    assert_true(park_start(&committer, "batch:latched", 0, commit, r));
    commit(&second); /* does not wait for it */
    expect_status(BFT_CONFLICT, second.status);
    park_end(&committer);
    expect_ok(r->status);
    is(r->tree, "m", "2");
    is(r->other, "z", "1");
    race_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_saver_that_is_left_behind_goes_on),
        cmocka_unit_test(a_saver_left_behind_saves_what_it_read_last),
        cmocka_unit_test(a_snapshot_passes_by_who_publishes),
        cmocka_unit_test(what_was_changed_before_a_stopped_writer),
        cmocka_unit_test(who_was_late_publishes_after_all),
        cmocka_unit_test(who_sees_the_number_comes_behind_who_is_hidden),
        cmocka_unit_test(of_two_late_writers_the_second_is_not_alone),
        cmocka_unit_test(a_late_writer_of_much_is_waited_for),
        cmocka_unit_test(a_transaction_beside_a_late_writer),
        cmocka_unit_test(who_saves_waits_for_who_publishes),
        cmocka_unit_test(a_snapshot_between_deciding_and_publishing),
        cmocka_unit_test(a_snapshot_between_saving_and_publishing),
        cmocka_unit_test(a_write_behind_a_reader),
        cmocka_unit_test(of_two_who_save_one_does),
        cmocka_unit_test(a_snapshot_waits_for_a_drop),
        cmocka_unit_test(a_history_goes_while_a_snapshot_is_taken),
        cmocka_unit_test(a_late_saver_saves_to_what_was_left_behind),
        cmocka_unit_test(
            what_was_set_back_is_no_conflict_whatever_histories_say),
        cmocka_unit_test(what_comes_between_looking_and_publishing),
        cmocka_unit_test(a_history_begins_between_looking_and_publishing),
        cmocka_unit_test(a_commit_beside_one_that_publishes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
