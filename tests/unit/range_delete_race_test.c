/*
 * The deletion of a range, and the clearing of what it leaves, stopped between any
 * two of their steps, beside reads, writes, snapshots and transactions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "numbered_key.h"
#include "park.h"

enum { ALL = 400, LOW = 50, HIGH = 350, LEFT = ALL - (HIGH - LOW) };

static const bft_slice NONE = {NULL, 0}, V = {"v", 1}, W = {"w", 1};

struct race {
    struct engine_fixture *f;
    bft_tree *tree;
    bool counts;
    uint64_t deleted;
    uint64_t n; /* that is written, or read */
    bft_status got;
    bft_snapshot *snapshot;
    struct parked parked;
};

static void open_race(struct race *r)
{
    struct text text;
    memset(r, 0, sizeof(*r));
    r->f = engine_fixture_make(ENGINE_MEMORY);
    r->f->options.no_threads = true;
    engine_open(r->f);
    r->tree = engine_tree(r->f, "t", 512);
    for (uint64_t n = 0; n < ALL; n++)
        expect_ok(bft_put(r->tree, key_of(&text, n), V));
}

static void close_race(struct race *r)
{
    expect_ok(bft_verify(r->f->db));
    engine_fixture_free(r->f);
}

static void delete_middle(void *arg)
{
    struct race *r = arg;
    struct text low, high;
    expect_ok(bft_delete_range(r->tree, key_of(&low, LOW), key_of(&high, HIGH),
                               r->counts ? &r->deleted : NULL));
}

static void put_one(void *arg)
{
    const struct race *r = arg;
    struct text text;
    expect_ok(bft_put(r->tree, key_of(&text, r->n), W));
}

static uint64_t count_of(const struct race *r)
{
    uint64_t count;
    expect_ok(bft_count(r->tree, NONE, NONE, &count));
    return count;
}

static bft_status get(const struct race *r, uint64_t n)
{
    struct text text;
    char buf[8];
    size_t len;
    return bft_get(r->tree, key_of(&text, n), buf, sizeof(buf), &len);
}

static uint64_t count_by(bft_cursor *cursor)
{
    uint64_t count = 0;
    bft_status status = bft_cursor_first(cursor);
    for (; status == BFT_OK; count++)
        status = bft_cursor_next(cursor);
    expect_status(BFT_NOT_FOUND, status);
    return count;
}

static uint64_t count_in(bft_snapshot *snapshot, bft_tree *tree)
{
    bft_cursor *cursor;
    uint64_t count;
    expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
    count = count_by(cursor);
    bft_cursor_close(cursor);
    return count;
}

enum { TOGETHER = 60 };

/* What is counted is all that went, if its leaf becomes several meanwhile. */
static void a_leaf_that_is_split_beside_it_is_counted_whole(void **state)
{
    bft_tree_options options = {
        .size = sizeof(options), .leaf_bytes = 512, .ttl_ms = 1000000};
    char value[40] = "a value";
    bft_batch *batch;
    struct race r;
    struct text text;
    (void)state;
    open_race(&r);
    r.counts = true;
    expect_ok(bft_tree_open(r.f->db, "expires", &options, &r.tree));
    expect_ok(bft_batch_create(r.f->db, &batch));
    for (uint64_t n = LOW; n < LOW + TOGETHER; n++)
        expect_ok(bft_batch_put(batch, r.tree, key_of(&text, n),
                                (bft_slice){value, sizeof(value)}));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    assert_true(park_start(&r.parked, "tomb:listed", 0, delete_middle, &r));
    expect_ok(bft_checkpoint(r.f->db));
    park_end(&r.parked);
    assert_int_equal(TOGETHER, r.deleted);
    assert_int_equal(0, count_of(&r));
    close_race(&r);
}

/* Until it is visible all is there, from then on nothing; who began before sees
 * what he saw; what is outside is written without waiting. */
static void each_step_shows_all_or_nothing(void **state)
{
    static const struct {
        const char *point;
        uint64_t count;
    } steps[] = {{"range:registered", ALL}, {"range:waited", ALL},
                 {"range:logged", ALL},     {"range:visible", LEFT},
                 {"tomb:chosen", LEFT},     {"batch:logged", LEFT},
                 {"batch:decided", LEFT},   {"tomb:cleared", LEFT}};
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        bft_snapshot *snapshot, *before;
        bft_cursor *cursor;
        struct text text;
        struct race r;
        uint64_t count = steps[i].count;
        open_race(&r);
        expect_ok(bft_snapshot_take(r.f->db, &before));
        expect_ok(bft_cursor_open_newest(r.tree, &cursor));
        assert_int_equal(ALL, count_by(cursor));
        assert_true(
            park_start(&r.parked, steps[i].point, 0, delete_middle, &r));
        assert_int_equal(count, count_of(&r));
        assert_int_equal(count, count_by(cursor));
        expect_status(count == ALL ? BFT_OK : BFT_NOT_FOUND, get(&r, 200));
        expect_ok(get(&r, LOW - 1));
        expect_ok(bft_snapshot_take(r.f->db, &snapshot));
        assert_int_equal(count, count_in(snapshot, r.tree));
        expect_ok(bft_put(r.tree, key_of(&text, ALL), V));
        assert_int_equal(ALL, count_in(before, r.tree));
        park_end(&r.parked);
        assert_int_equal(LEFT + 1, count_of(&r));
        assert_int_equal(LEFT + 1, count_by(cursor));
        assert_int_equal(count, count_in(snapshot, r.tree));
        assert_int_equal(ALL, count_in(before, r.tree));
        bft_cursor_close(cursor);
        bft_snapshot_release(snapshot);
        bft_snapshot_release(before);
        close_race(&r);
    }
}

static void multi_get_one(void *arg)
{
    struct race *r = arg;
    struct text text;
    char buf[8];
    bft_answer answer = {
        .key = key_of(&text, r->n), .buf = buf, .buf_len = sizeof(buf)};
    expect_ok(bft_multi_get(r->tree, &answer, 1));
    r->got = answer.status;
}

static void truncate_it(void *arg)
{
    const struct race *r = arg;
    expect_ok(bft_tree_truncate(r->f->db, "t"));
}

/* What others do not find any more does not come back while its tree goes, to one
 * who has found its leaf before. */
static void a_deleted_record_is_not_seen_in_a_truncation(void **state)
{
    struct parked truncater;
    struct race r;
    (void)state;
    open_race(&r);
    r.n = (LOW + HIGH) / 2;
    assert_true(park_start(&r.parked, "read:named", 0, multi_get_one, &r));
    delete_middle(&r);
    expect_status(BFT_NOT_FOUND, get(&r, r.n));
    assert_true(park_start(&truncater, "drop:root-taken", 0, truncate_it, &r));
    park_end(&r.parked);
    expect_status(BFT_NOT_FOUND, r.got);
    park_end(&truncater);
    assert_int_equal(0, count_of(&r));
    close_race(&r);
}

static void take(void *arg)
{
    struct race *r = arg;
    expect_ok(bft_snapshot_take(r->f->db, &r->snapshot));
}

/* Has the snapshot the value that put_one() wrote? */
static bool has_written(const struct race *r)
{
    struct text text;
    char buf[8];
    size_t len;
    expect_ok(bft_snapshot_get(r->snapshot, r->tree, key_of(&text, r->n), buf,
                               sizeof(buf), &len));
    return buf[0] == 'w';
}

/* A snapshot is being taken, and a writer elsewhere is late: of the deletion and of
 * what he writes it has no second without the first. */
static void a_snapshot_has_what_was_seen_before(void **state)
{
    static const char *const points[] = {"snapshot:linked", "late:collected",
                                         "snapshot:looked"};
    (void)state;
    for (unsigned way = 0; way < 6; way++) {
        bool deleted_first = way % 2;
        struct parked writer;
        struct race r;
        open_race(&r);
        r.n = 1;
        assert_true(park_start(&writer, "write:logged", 0, put_one, &r));
        assert_true(park_start(&r.parked, points[way / 2], 0, take, &r));
        if (deleted_first)
            delete_middle(&r);
        park_end(&writer);
        if (!deleted_first)
            delete_middle(&r);
        park_end(&r.parked);
        if (deleted_first && has_written(&r))
            assert_int_equal(LEFT, count_in(r.snapshot, r.tree));
        if (!deleted_first && !has_written(&r))
            assert_int_equal(ALL, count_in(r.snapshot, r.tree));
        assert_int_equal(LEFT, count_of(&r));
        bft_snapshot_release(r.snapshot);
        close_race(&r);
    }
}

/* A snapshot looks at who is late while the deletion is counted, and not yet
 * visible; a writer who began before it, in its range, is to be turned away. */
static void a_snapshot_in_the_middle_of_a_deletion(void **state)
{
    struct parked writer, deleter, taker;
    struct race r;
    (void)state;
    open_race(&r);
    expect_ok(bft_snapshot_take(r.f->db, &r.snapshot)); /* makes the history */
    bft_snapshot_release(r.snapshot);
    r.n = LOW + 1;
    assert_true(park_start(&writer, "write:saved", 0, put_one, &r));
    assert_true(park_start(&deleter, "range:waited", 0, delete_middle, &r));
    assert_true(park_move(&writer, "write:guarded"));
    assert_true(park_start(&taker, "snapshot:linked", 0, take, &r));
    assert_true(park_move(&deleter, "range:counted"));
    assert_true(park_move(&taker, "snapshot:looked"));
    assert_true(park_move(&deleter, "range:visible"));
    park_end(&taker);
    assert_int_equal(LEFT, count_in(r.snapshot, r.tree));
    atomic_store(&writer.closed, false); /* each waits for the other */
    park_end(&deleter);
    park_end(&writer);
    assert_int_equal(LEFT, count_in(r.snapshot, r.tree));
    assert_int_equal(LEFT + 1, count_of(&r));
    bft_snapshot_release(r.snapshot);
    close_race(&r);
}

static void *delete_on(void *arg)
{
    delete_middle(arg);
    return NULL;
}

/* Readers, is it deleted? */
static bool is_deleted(const struct race *r)
{
    return get(r, 201) == BFT_NOT_FOUND;
}

/* A writer who has looked, and then publishes, comes before: he is waited for. */
static void a_writer_under_way_comes_before(void **state)
{
    static const char *const points[] = {"write:guarded", "write:logged",
                                         "write:published"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        pthread_t deletion;
        struct race r;
        open_race(&r);
        r.n = 200;
        assert_true(park_start(&r.parked, points[i], 0, put_one, &r));
        assert_int_equal(0, pthread_create(&deletion, NULL, delete_on, &r));
        /* As long as it is looked for, it does not come. */
        for (int look = 0; look < 20000; look++)
            assert_false(is_deleted(&r));
        park_end(&r.parked);
        assert_int_equal(0, pthread_join(deletion, NULL));
        expect_status(BFT_NOT_FOUND, get(&r, 200));
        assert_int_equal(LEFT, count_of(&r));
        close_race(&r);
    }
}

static void batch_one(void *arg)
{
    const struct race *r = arg;
    struct text text;
    bft_batch *batch;
    expect_ok(bft_batch_create(r->f->db, &batch));
    expect_ok(bft_batch_put(batch, r->tree, key_of(&text, r->n), W));
    expect_ok(bft_batch_put(batch, r->tree, key_of(&text, ALL), W));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

/* One who looked, and then is overtaken by the deletion, comes behind it. */
static void a_writer_overtaken_comes_behind(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct race r;
        open_race(&r);
        r.n = 200;
        assert_true(park_start(&r.parked, i ? "batch:checked" : "write:saved",
                               0, i ? batch_one : put_one, &r));
        delete_middle(&r);
        park_end(&r.parked);
        expect_ok(get(&r, 200));
        expect_status(BFT_NOT_FOUND, get(&r, 201));
        assert_int_equal(LEFT + 1 + i, count_of(&r));
        close_race(&r);
    }
}

/* One who writes elsewhere is not waited for. */
static void a_writer_elsewhere_is_not_waited_for(void **state)
{
    struct race r;
    (void)state;
    open_race(&r);
    r.n = 10;
    assert_true(park_start(&r.parked, "write:guarded", 0, put_one, &r));
    delete_middle(&r);
    assert_int_equal(LEFT, count_of(&r));
    park_end(&r.parked);
    assert_int_equal(LEFT, count_of(&r));
    close_race(&r);
}

/* What comes between the look at records and their removal survives. */
static void what_is_written_over_a_step_survives(void **state)
{
    struct text text;
    struct race r;
    (void)state;
    open_race(&r);
    r.counts = true;
    assert_true(park_start(&r.parked, "tomb:chosen", 0, delete_middle, &r));
    expect_ok(bft_insert(r.tree, key_of(&text, LOW + 1), W));
    expect_ok(bft_insert(r.tree, key_of(&text, HIGH - 1), W));
    park_end(&r.parked);
    assert_int_equal(HIGH - LOW, r.deleted);
    assert_int_equal(LEFT + 2, count_of(&r));
    expect_ok(get(&r, LOW + 1));
    expect_ok(get(&r, HIGH - 1));
    close_race(&r);
}

/* Who is stopped while he clears holds up nobody who writes elsewhere. */
static void clearing_holds_up_nobody_elsewhere(void **state)
{
    static const char *const points[] = {"tomb:chosen", "tomb:cleared"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct text text;
        struct race r;
        open_race(&r);
        assert_true(park_start(&r.parked, points[i], 0, delete_middle, &r));
        for (uint64_t n = HIGH + 20; n < ALL; n++)
            expect_ok(bft_put(r.tree, key_of(&text, n), W));
        assert_int_equal(LEFT, count_of(&r));
        park_end(&r.parked);
        assert_int_equal(LEFT, count_of(&r));
        close_race(&r);
    }
}

/* A copy that was taken before the range was deleted, and is looked at behind it,
 * is taken again. */
static void count_all(void *arg)
{
    struct race *r = arg;
    r->n = count_of(r);
}

static void a_read_overtaken_begins_anew(void **state)
{
    struct text text;
    struct race r;
    (void)state;
    open_race(&r);
    assert_true(park_start(&r.parked, "tomb:copied", 10, count_all, &r));
    delete_middle(&r);
    /* In the leaf that the count has a copy of, or before it. */
    for (uint64_t n = LOW; n < HIGH; n += 20)
        expect_ok(bft_put(r.tree, key_of(&text, n), W));
    park_end(&r.parked);
    assert_in_range(r.n, LEFT, ALL);
    assert_int_equal(LEFT + (HIGH - LOW) / 20, count_of(&r));
    close_race(&r);
}

struct question {
    const struct race *r;
    bft_status status;
};

static void ask_one(void *arg)
{
    struct question *q = arg;
    struct text text;
    char buf[8];
    bft_answer item = {
        .key = key_of(&text, LOW + 1), .buf = buf, .buf_len = sizeof(buf)};
    expect_ok(bft_multi_get(q->r->tree, &item, 1));
    q->status = item.status;
}

/* Who has a leaf open since before it was cleared asks for deleted ranges behind
 * that: what he has open tells nothing any more. */
static void a_leaf_that_was_cleared_meanwhile_is_opened_anew(void **state)
{
    struct race r;
    struct question q = {.r = &r, .status = BFT_OK};
    struct parked asking;
    struct bfti_buffer *buffer;
    bool done;
    (void)state;
    open_race(&r);
    buffer = &r.f->db->engine->buffer;
    assert_true(park_start(&r.parked, "tomb:chosen", 0, delete_middle, &r));
    expect_status(BFT_NOT_FOUND, get(&r, LOW + 1));
    assert_true(park_start(&asking, "read:named", 0, ask_one, &q));
    /* The page goes that he has open, and with it what he could still see. */
    for (unsigned i = 0; i < 1000; i++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
    park_end(&r.parked);
    park_end(&asking);
    assert_int_equal(BFT_NOT_FOUND, q.status);
    close_race(&r);
}

struct commit {
    struct race *r;
    bft_txn *txn;
    bft_status status;
};

static void commit(void *arg)
{
    struct commit *c = arg;
    c->status = bft_txn_commit(c->txn, BFT_DEFAULT, NULL);
}

/* Between the look at what it read and its publishing. */
static void a_commit_sees_it_come_between(void **state)
{
    struct commit c;
    struct text text;
    struct race r;
    char buf[8];
    size_t len;
    (void)state;
    open_race(&r);
    c.r = &r;
    expect_ok(bft_txn_begin(r.f->db, BFT_SERIALIZABLE, &c.txn));
    expect_ok(
        bft_txn_get(c.txn, r.tree, key_of(&text, 200), buf, sizeof(buf), &len));
    expect_ok(bft_txn_put(c.txn, r.tree, key_of(&text, 10), W));
    assert_true(park_start(&r.parked, "batch:checked", 0, commit, &c));
    delete_middle(&r);
    park_end(&r.parked);
    expect_status(BFT_CONFLICT, c.status);
    close_race(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_shows_all_or_nothing),
        cmocka_unit_test(a_deleted_record_is_not_seen_in_a_truncation),
        cmocka_unit_test(a_leaf_that_is_split_beside_it_is_counted_whole),
        cmocka_unit_test(a_snapshot_has_what_was_seen_before),
        cmocka_unit_test(a_snapshot_in_the_middle_of_a_deletion),
        cmocka_unit_test(a_writer_under_way_comes_before),
        cmocka_unit_test(a_writer_overtaken_comes_behind),
        cmocka_unit_test(a_writer_elsewhere_is_not_waited_for),
        cmocka_unit_test(what_is_written_over_a_step_survives),
        cmocka_unit_test(clearing_holds_up_nobody_elsewhere),
        cmocka_unit_test(a_read_overtaken_begins_anew),
        cmocka_unit_test(a_leaf_that_was_cleared_meanwhile_is_opened_anew),
        cmocka_unit_test(a_commit_sees_it_come_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
