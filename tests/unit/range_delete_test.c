/*
 * Ranges that are deleted in one step, while the records that they had are still
 * in the leaves: what reads, writers, snapshots, transactions, feeds, drops and
 * openings make of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bftree_feed.h"
#include "engine_fixture.h"
#include "index/tomb.h"
#include "numbered_key.h"
#include "random.h"

enum { ALL = 2000, LOW = 300, HIGH = 1700, VALUE = 40 };

static const bft_slice NONE = {NULL, 0};

static bft_slice value_of(char value[VALUE], uint64_t n)
{
    memset(value, 'v', VALUE);
    (void)snprintf(value, VALUE, "value %llu", (unsigned long long)n);
    return (bft_slice){value, VALUE};
}

static void put(bft_tree *tree, uint64_t n)
{
    struct text text;
    char value[VALUE];
    expect_ok(bft_put(tree, key_of(&text, n), value_of(value, n)));
}

static void fill(bft_tree *tree)
{
    for (uint64_t n = 0; n < ALL; n++)
        put(tree, n);
}

/* Of LOW..HIGH, which leaves most of the records where they are. */
static void delete_middle(bft_tree *tree)
{
    struct text low, high;
    expect_ok(
        bft_delete_range(tree, key_of(&low, LOW), key_of(&high, HIGH), NULL));
}

/* Are there records that are deleted, and have not gone? */
static bool is_left(struct engine_fixture *f)
{
    for (struct bfti_tree *t = f->db->engine->trees; t; t = t->next)
        if (bfti_tree_root(t) && (atomic_load(&t->tombs_word) & 1))
            return true;
    return false;
}

/* With writes to another tree, each of which takes some of them away. */
static void take_away(struct engine_fixture *f)
{
    bft_tree *other = engine_tree(f, "other", 512);
    for (uint64_t n = 0; is_left(f); n++) {
        assert_true(n < 20 * (uint64_t)ALL);
        put(other, n % 10);
    }
}

static struct engine_fixture *middle_deleted(bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    engine_open(f);
    *tree = engine_tree(f, "t", 512);
    fill(*tree);
    delete_middle(*tree);
    assert_true(is_left(f));
    return f;
}

/* --- what is there ---------------------------------------------------------- */

static bool was_deleted(uint64_t n)
{
    return n >= LOW && n < HIGH;
}

static uint64_t count_of(bft_tree *tree)
{
    uint64_t count;
    expect_ok(bft_count(tree, NONE, NONE, &count));
    return count;
}

static void check_gets(bft_tree *tree)
{
    for (uint64_t n = 0; n < ALL; n += 7) {
        struct text text;
        char buf[VALUE], value[VALUE];
        size_t len;
        bft_answer item = {key_of(&text, n), buf, VALUE, 0, BFT_OK};
        bft_status status = was_deleted(n) ? BFT_NOT_FOUND : BFT_OK;
        expect_status(status, bft_get(tree, item.key, buf, VALUE, &len));
        if (status == BFT_OK)
            assert_memory_equal(value_of(value, n).data, buf, VALUE);
        expect_ok(bft_multi_get(tree, &item, 1));
        assert_int_equal(status, item.status);
    }
}

/* CURSOR has what was not deleted, up and down. */
static void check_cursor(bft_cursor *cursor)
{
    struct text text;
    bft_slice key, value;
    for (uint64_t n = 0; n < ALL; n++) {
        if (was_deleted(n))
            continue;
        expect_ok(bft_cursor_next(cursor));
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_int_equal(0, memcmp(key_of(&text, n).data, key.data, key.len));
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    for (uint64_t n = ALL; n-- > 0;) {
        if (was_deleted(n))
            continue;
        expect_ok(bft_cursor_prev(cursor));
        expect_ok(bft_cursor_key(cursor, &key));
        assert_int_equal(0, memcmp(key_of(&text, n).data, key.data, key.len));
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_prev(cursor));
    expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(&text, LOW + 50)));
    expect_ok(bft_cursor_key(cursor, &key));
    assert_int_equal(0, memcmp(key_of(&text, HIGH).data, key.data, key.len));
    bft_cursor_close(cursor);
}

static void check_middle_gone(struct engine_fixture *f, bft_tree *tree)
{
    struct text low, high;
    bft_cursor *cursor;
    bft_record *record;
    uint64_t count;
    assert_int_equal(ALL - (HIGH - LOW), count_of(tree));
    expect_ok(bft_count(tree, key_of(&low, LOW), key_of(&high, HIGH), &count));
    assert_int_equal(0, count);
    expect_ok(
        bft_estimate(tree, key_of(&low, LOW), key_of(&high, HIGH), &count));
    assert_int_equal(0, count);
    expect_status(BFT_NOT_FOUND, bft_first(tree, key_of(&low, LOW),
                                           key_of(&high, HIGH), &record));
    expect_ok(bft_last(tree, NONE, key_of(&high, HIGH), &record));
    assert_int_equal(0, memcmp(key_of(&low, LOW - 1).data, record->key.data,
                               record->key.len));
    bft_free(record);
    check_gets(tree);
    expect_ok(bft_cursor_open(tree, &cursor));
    check_cursor(cursor);
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    check_cursor(cursor);
    expect_ok(bft_verify(f->db));
}

/* --- tests ------------------------------------------------------------------ */

static void no_read_finds_what_was_deleted(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    (void)state;
    check_middle_gone(f, tree);
    take_away(f);
    check_middle_gone(f, tree);
    engine_fixture_free(f);
}

static void it_stays_deleted_after_openings_and_crashes(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    (void)state;
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_DROP, 1); /* by the log */
    tree = engine_tree(f, "t", 0);
    assert_true(is_left(f));
    check_middle_gone(f, tree);
    engine_reopen(f); /* by the image */
    tree = engine_tree(f, "t", 0);
    assert_true(is_left(f));
    check_middle_gone(f, tree);
    take_away(f);
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    assert_false(is_left(f));
    check_middle_gone(f, tree);
    engine_fixture_free(f);
}

static void who_is_read_only_sees_it(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    (void)state;
    engine_close(f);
    f->options.read_only = true;
    engine_open(f);
    tree = engine_tree(f, "t", 0);
    check_middle_gone(f, tree);
    assert_true(is_left(f));
    engine_fixture_free(f);
}

/* Writers meet records that are none. */
static void what_is_written_into_it_survives(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    struct text text;
    char value[VALUE], buf[VALUE];
    bft_slice old, is = {"new", 3};
    bft_batch *batch;
    size_t len;
    uint64_t written = 0;
    (void)state;
    (void)random_start();
    for (unsigned i = 0; i < 12; i++) {
        uint64_t n = 1000 + 40 * i + random_below(10);
        bft_slice key = key_of(&text, n);
        old = value_of(value, n);
        switch (i % 4) {
        case 0:
            expect_ok(bft_put(tree, key, is));
            break;
        case 1:
            expect_ok(bft_insert(tree, key, is));
            expect_status(BFT_EXISTS, bft_insert(tree, key, is));
            break;
        case 2:
            expect_status(BFT_CONFLICT, bft_replace(tree, key, &old, &is));
            expect_ok(bft_replace(tree, key, NULL, &is));
            break;
        default:
            expect_ok(bft_batch_create(f->db, &batch));
            expect_ok(bft_batch_put(batch, tree, key, is));
            expect_ok(bft_batch_delete(batch, tree, key_of(&text, n + 11)));
            expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
            bft_batch_free(batch);
            key = key_of(&text, n);
            break;
        }
        written++;
        expect_ok(bft_get(tree, key, buf, VALUE, &len));
        assert_int_equal(3, len);
        assert_int_equal(ALL - (HIGH - LOW) + written, count_of(tree));
    }
    assert_true(is_left(f));
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    assert_int_equal(ALL - (HIGH - LOW) + written, count_of(tree));
    take_away(f);
    assert_int_equal(ALL - (HIGH - LOW) + written, count_of(tree));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Scattered writes would leave a piece between each two: they do not. */
static void scattered_writes_leave_few_pieces(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    uint64_t written = 0;
    (void)state;
    for (uint64_t n = HIGH - 1; n > LOW + 60; n -= 9, written++)
        put(tree, n);
    assert_int_equal(ALL - (HIGH - LOW) + written, count_of(tree));
    take_away(f);
    assert_int_equal(ALL - (HIGH - LOW) + written, count_of(tree));
    engine_fixture_free(f);
}

/* Nor does one of them take all away that lies in front of it. */
static void a_scattered_write_clears_some_of_a_long_piece(void **state)
{
    enum { LONG_TREE = 30000, APART = 100, CROWD = 64, PUTS = CROWD + 16 };
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree *tree;
    struct text text;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (uint64_t i = 0; i < LONG_TREE; i++)
        put(tree, i);
    expect_ok(bft_delete_range(tree, key_of(&text, 0), NONE, NULL));
    for (uint64_t i = 1; i <= PUTS; i++)
        put(tree, LONG_TREE - i * APART);
    assert_true(atomic_load(&bfti_handle_tree(tree)->tombs_count) > CROWD);
    assert_int_equal(PUTS, count_of(tree));
    take_away(f);
    assert_int_equal(PUTS, count_of(tree));
    engine_fixture_free(f);
}

static uint64_t count_by(bft_cursor *cursor)
{
    uint64_t count = 0;
    bft_status status = bft_cursor_first(cursor);
    for (; status == BFT_OK; count++)
        status = bft_cursor_next(cursor);
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return count;
}

static void check_snapshot(bft_snapshot *snapshot, bft_tree *tree,
                           uint64_t expected, uint64_t n, bft_status status)
{
    bft_cursor *cursor;
    struct text text;
    char buf[VALUE];
    size_t len;
    expect_status(status, bft_snapshot_get(snapshot, tree, key_of(&text, n),
                                           buf, VALUE, &len));
    expect_ok(bft_snapshot_cursor(snapshot, tree, &cursor));
    assert_int_equal(expected, count_by(cursor));
}

static void snapshots_see_all_or_nothing_of_it(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    enum { LEFT = ALL - (HIGH - LOW) };
    bft_snapshot *before, *behind;
    bft_cursor *opened;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    fill(tree);
    expect_ok(bft_snapshot_take(f->db, &before));
    expect_ok(bft_cursor_open(tree, &opened));
    delete_middle(tree);
    expect_ok(bft_snapshot_take(f->db, &behind));
    for (int i = 0; i < 2; i++) {
        check_snapshot(before, tree, ALL, 1234, BFT_OK);
        check_snapshot(behind, tree, LEFT, 1234, BFT_NOT_FOUND);
        /* What is written next is in neither. */
        put(tree, 1234);
        check_snapshot(before, tree, ALL, 1234, BFT_OK);
        check_snapshot(behind, tree, LEFT, 1234, BFT_NOT_FOUND);
        check_snapshot(before, tree, ALL, 1235, BFT_OK);
        check_snapshot(behind, tree, LEFT, 1235, BFT_NOT_FOUND);
        take_away(f);
    }
    assert_int_equal(ALL, count_by(opened));
    bft_snapshot_release(before);
    check_snapshot(behind, tree, LEFT, 1234, BFT_NOT_FOUND);
    bft_snapshot_release(behind);
    assert_int_equal(LEFT + 1, count_of(tree));
    engine_fixture_free(f);
}

/* A transaction that READS (one key, or by a cursor from there on), and writes
 * elsewhere or there, with a range deleted meanwhile. */
static bft_status commit_over(bft_tree *tree, bft_db *db, uint64_t reads,
                              bool scans, uint64_t writes, bool gone)
{
    struct text text;
    char buf[VALUE];
    size_t len;
    bft_cursor *cursor;
    bft_txn *txn;
    expect_ok(bft_txn_begin(db, BFT_SERIALIZABLE, &txn));
    if (scans) {
        expect_ok(bft_txn_cursor(txn, tree, &cursor));
        expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(&text, reads)));
        bft_cursor_close(cursor);
    } else {
        expect_ok(
            bft_txn_get(txn, tree, key_of(&text, reads), buf, VALUE, &len));
    }
    expect_ok(
        bft_txn_put(txn, tree, key_of(&text, writes), (bft_slice){"w", 1}));
    if (gone)
        delete_middle(tree);
    return bft_txn_commit(txn, BFT_DEFAULT, NULL);
}

static void transactions_conflict_with_it(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (int i = 0; i < 4; i++) {
        static const struct {
            uint64_t reads, writes;
            bool scans;
            bft_status status;
        } kinds[] = {{900, 10, false, BFT_CONFLICT},
                     {900, 10, true, BFT_CONFLICT},
                     {10, 900, false, BFT_CONFLICT},
                     {10, 20, false, BFT_OK}};
        fill(tree);
        expect_status(kinds[i].status,
                      commit_over(tree, f->db, kinds[i].reads, kinds[i].scans,
                                  kinds[i].writes, true));
        assert_true(is_left(f));
        /* One that begins behind it commits, though records are left. */
        put(tree, 901);
        expect_ok(commit_over(tree, f->db, 901, false, 902, false));
        assert_int_equal(ALL - (HIGH - LOW) + 2, count_of(tree));
    }
    engine_fixture_free(f);
}

static void trees_change_over_it(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    (void)state;
    expect_ok(bft_tree_rename(f->db, "t", "u"));
    check_middle_gone(f, tree);
    expect_ok(bft_tree_truncate(f->db, "u"));
    fill(tree);
    assert_int_equal(ALL, count_of(tree));
    delete_middle(tree);
    expect_ok(bft_tree_drop(f->db, "u"));
    expect_status(BFT_GONE, bft_delete_range(tree, NONE, NONE, NULL));
    expect_ok(bft_verify(f->db));
    assert_false(is_left(f));
    engine_fixture_free(f);
}

/* The next one counts what the first has not deleted. */
static void ranges_may_overlap(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    struct text low, high;
    uint64_t deleted;
    (void)state;
    put(tree, 800);
    expect_ok(bft_delete_range(tree, key_of(&low, 100), key_of(&high, 1750),
                               &deleted));
    assert_int_equal(200 + 50 + 1, deleted);
    assert_int_equal(100 + ALL - 1750, count_of(tree));
    expect_ok(bft_delete_range(tree, key_of(&low, 100), key_of(&high, 1750),
                               &deleted));
    assert_int_equal(0, deleted);
    expect_ok(bft_delete_range(tree, NONE, NONE, NULL));
    assert_int_equal(0, count_of(tree));
    expect_ok(bft_delete_range(tree, NONE, NONE, &deleted));
    assert_int_equal(0, deleted);
    take_away(f);
    assert_int_equal(0, count_of(tree));
    engine_fixture_free(f);
}

/* Records that expire are counted if they have not, and have no time then. */
static void records_that_expire_go_with_it(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree_options options = {.size = sizeof(options), .ttl_ms = 1000000};
    uint64_t deleted, expires;
    struct text low, high;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    expect_ok(bft_tree_open(f->db, "t", &options, &tree));
    fill(tree);
    for (uint64_t n = 800; n < 810; n++) /* long ago */
        expect_ok(bft_put_until(tree, key_of(&low, n), NONE, 1));
    delete_middle(tree);
    assert_true(is_left(f));
    check_middle_gone(f, tree);
    expect_ok(bft_expiry(tree, key_of(&low, LOW - 1), &expires));
    expect_status(BFT_NOT_FOUND,
                  bft_expiry(tree, key_of(&low, LOW + 600), &expires));
    expect_ok(bft_delete_range(tree, NONE, key_of(&high, HIGH), &deleted));
    assert_int_equal(LOW, deleted);
    for (uint64_t n = 0; n < 10; n++)
        expect_ok(bft_put_until(tree, key_of(&low, n), NONE, 1 + n % 2));
    put(tree, 20);
    expect_ok(bft_delete_range(tree, NONE, key_of(&high, HIGH), &deleted));
    assert_int_equal(1, deleted);
    engine_fixture_free(f);
}

/* --- beside damage ---------------------------------------------------------- */

enum { LONG = 900, LONGS = 100 };

static bft_slice long_key(char key[LONG], unsigned n)
{
    memset(key, 'x', LONG);
    (void)snprintf(key + LONG - 8, 8, "%07u", n);
    return (bft_slice){key, LONG};
}

/* A byte of each leaf that TREE has in the page file is wrong. */
static void damage_leaves(struct engine_fixture *f, bft_tree *tree)
{
    uint64_t bytes;
    uint32_t id;
    expect_ok(bft_tree_id(tree, &id));
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_BLOCK) {
        struct bfti_extent_header head;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        if (got >= sizeof(head) && head.type == BFTI_EXTENT_LEAF &&
            le32_get(head.tree_id) == id)
            expect_ok(
                bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
    }
}

/* Where ranges of a tree were deleted that cannot be cleared, as many as are to be
 * there, ranges of other trees can be deleted. */
static void damage_elsewhere_stops_no_deletion(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    char low[LONG], high[LONG];
    bft_tree *damaged, *tree;
    (void)state;
    f->options.no_threads = true;
    f->tolerated = BFT_CORRUPT;
    engine_open(f);
    damaged = engine_tree(f, "damaged", 4096);
    for (unsigned n = 0; n < 2 * LONGS; n++)
        expect_ok(bft_put(damaged, long_key(low, n), NONE));
    engine_reopen(f);
    damaged = engine_tree(f, "damaged", 0);
    damage_leaves(f, damaged);
    for (unsigned n = 0; n < LONGS; n++)
        expect_ok(bft_delete_range(damaged, long_key(low, 2 * n),
                                   long_key(high, 2 * n + 1), NULL));
    tree = engine_tree(f, "t", 512);
    /* None of them can be cleared. */
    assert_true(bfti_tombs_crowded(bfti_handle_tree(tree)));
    fill(tree);
    delete_middle(tree);
    check_gets(tree);
    engine_fixture_free(f);
}

/* In one commit, however many records there are. */
static void a_feed_tells_of_it_once(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct text text;
    bft_feed *feed;
    bft_commit commit;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    fill(tree);
    expect_ok(bft_sync(f->db));
    expect_ok(bft_feed_open(f->db, BFT_FEED_NOW, NULL, &feed));
    delete_middle(tree);
    put(tree, LOW + 500);
    expect_ok(bft_sync(f->db));
    expect_ok(bft_feed_next(feed, 0, &commit));
    assert_int_equal(1, commit.count);
    assert_int_equal(BFT_CHANGE_DELETE_RANGE, commit.changes[0].op);
    assert_memory_equal(key_of(&text, LOW).data, commit.changes[0].key.data, 9);
    assert_memory_equal(key_of(&text, HIGH).data, commit.changes[0].high.data,
                        9);
    expect_ok(bft_feed_next(feed, 0, &commit));
    assert_int_equal(BFT_CHANGE_PUT, commit.changes[0].op);
    expect_status(BFT_NOT_FOUND, bft_feed_next(feed, 0, &commit));
    bft_feed_close(feed);
    engine_fixture_free(f);
}

struct source {
    uint64_t n;
};

static bft_status next_record(void *ctx, bft_bulk_record *record)
{
    static struct text text;
    struct source *source = ctx;
    if (source->n == ALL)
        return BFT_NOT_FOUND;
    record->key = key_of(&text, source->n++);
    record->value = (bft_slice){"b", 1};
    return BFT_OK;
}

/* Its records are none to a load, either. */
static void a_tree_may_be_loaded_over_it(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = middle_deleted(&tree);
    struct source source = {0};
    (void)state;
    expect_status(BFT_EXISTS,
                  bft_bulk_load(tree, NULL, next_record, &source, NULL));
    expect_ok(bft_delete_range(tree, NONE, NONE, NULL));
    assert_true(is_left(f));
    source.n = 0;
    expect_ok(bft_bulk_load(tree, NULL, next_record, &source, NULL));
    assert_int_equal(ALL, count_of(tree));
    assert_false(is_left(f));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_read_finds_what_was_deleted),
        cmocka_unit_test(it_stays_deleted_after_openings_and_crashes),
        cmocka_unit_test(who_is_read_only_sees_it),
        cmocka_unit_test(what_is_written_into_it_survives),
        cmocka_unit_test(scattered_writes_leave_few_pieces),
        cmocka_unit_test(a_scattered_write_clears_some_of_a_long_piece),
        cmocka_unit_test(snapshots_see_all_or_nothing_of_it),
        cmocka_unit_test(transactions_conflict_with_it),
        cmocka_unit_test(trees_change_over_it),
        cmocka_unit_test(ranges_may_overlap),
        cmocka_unit_test(records_that_expire_go_with_it),
        cmocka_unit_test(damage_elsewhere_stops_no_deletion),
        cmocka_unit_test(a_feed_tells_of_it_once),
        cmocka_unit_test(a_tree_may_be_loaded_over_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
