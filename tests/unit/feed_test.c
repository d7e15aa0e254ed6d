/*
 * Change feeds: what is committed comes once, whole, in order, and not before
 * no crash can take it back; what was dropped is said to be gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "feed_copy.h"
#include "feed_fixture.h"
#include "park.h"

enum { LARGE = 3000000, WHOLE = 1000000 };

static const bft_slice NONE = {NULL, 0};

/* --- what comes ----------------------------------------------------------- */

static void records_come_as_they_were_written(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        bft_feed *feed = feed_at(f, 0);
        bft_tree *tree = engine_tree(f, "birds", 512);
        bft_slice one = feed_text("one"), two = feed_text("two");
        const bft_change *c;
        uint64_t count;
        uint32_t id = feed_tree_id(tree);

        expect_ok(bft_put(tree, feed_text("wren"), one));
        expect_ok(bft_insert(tree, feed_text("kite"), NONE));
        expect_status(BFT_EXISTS, bft_insert(tree, feed_text("kite"), one));
        expect_ok(bft_replace(tree, feed_text("wren"), &one, &two));
        expect_ok(bft_replace(tree, feed_text("wren"), &two, NULL));
        expect_ok(bft_delete(tree, feed_text("absent")));
        expect_ok(bft_delete_range(tree, NONE, NONE, &count));

        c = feed_next_change(feed, BFT_CHANGE_TREE_CREATE);
        assert_true(c->tree_id == id && strcmp("birds", c->name) == 0);
        assert_true(!c->old_name && c->new_tree_id == 0);
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(c->tree_id == id && !c->name);
        assert_true(feed_is(c->key, "wren") && feed_is(c->value, "one"));
        assert_int_equal(3, c->value_bytes);
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(feed_is(c->key, "kite") && c->value.len == 0);
        assert_int_equal(0, c->value_bytes);
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(feed_is(c->key, "wren") && feed_is(c->value, "two"));
        c = feed_next_change(feed, BFT_CHANGE_DELETE);
        assert_true(feed_is(c->key, "wren") && c->value.len == 0);
        c = feed_next_change(feed, BFT_CHANGE_DELETE);
        assert_true(feed_is(c->key, "absent"));
        c = feed_next_change(feed, BFT_CHANGE_DELETE_RANGE);
        assert_true(c->tree_id == id && c->key.len == 0 && c->high.len == 0);
        feed_at_end(feed);
        assert_true(bft_feed_lsn(feed) == bft_durable_lsn(f->db));
        bft_feed_close(feed);
        engine_fixture_free(f);
    }
}

static void trees_come_with_their_names(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        bft_feed *feed = feed_at(f, 0);
        bft_tree *tree = engine_tree(f, "a", 512);
        uint32_t id = feed_tree_id(tree), fresh;
        const bft_change *c;

        expect_ok(bft_tree_rename(f->db, "a", "the other name"));
        expect_ok(bft_tree_truncate(f->db, "the other name"));
        fresh = feed_tree_id(tree);
        assert_int_not_equal(id, fresh);
        expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
        expect_ok(bft_tree_drop(f->db, "the other name"));

        c = feed_next_change(feed, BFT_CHANGE_TREE_CREATE);
        assert_true(c->tree_id == id && strcmp("a", c->name) == 0);
        c = feed_next_change(feed, BFT_CHANGE_TREE_RENAME);
        assert_true(c->tree_id == id && strcmp("a", c->old_name) == 0);
        assert_string_equal("the other name", c->name);
        c = feed_next_change(feed, BFT_CHANGE_TREE_TRUNCATE);
        assert_true(c->tree_id == id && c->new_tree_id == fresh);
        assert_true(strcmp("the other name", c->name) == 0 && !c->old_name);
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_int_equal(fresh, c->tree_id);
        c = feed_next_change(feed, BFT_CHANGE_TREE_DROP);
        assert_true(c->tree_id == fresh && c->new_tree_id == 0);
        assert_string_equal("the other name", c->name);
        feed_at_end(feed);
        bft_feed_close(feed);
        engine_fixture_free(f);
    }
}

/* The kinds of frames that the feed tells apart mean the same to recovery. */
static void trees_are_the_same_after_recovery(void **state)
{
    struct engine_fixture *f = feed_open_durable(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "a", 512);
    struct feed_copy copy = {.trees = 0};
    bft_feed *feed;
    (void)state;
    expect_ok(bft_put(tree, feed_text("old"), feed_text("v")));
    expect_ok(bft_tree_truncate(f->db, "a"));
    expect_ok(bft_put(tree, feed_text("new"), feed_text("v")));
    expect_ok(bft_tree_rename(f->db, "a", "b"));
    expect_ok(
        bft_put(engine_tree(f, "a", 512), feed_text("k"), feed_text("v")));
    engine_crash(f, BFTI_SIM_DROP, 1);
    feed = feed_at(f, 0);
    if (!feed_copy_catch_up(&copy, feed) || !feed_copy_is(&copy, f->db))
        fail_msg("%s", copy.error);
    assert_int_equal(2, copy.trees);
    bft_feed_close(feed);
    feed_copy_free(&copy);
    engine_fixture_free(f);
}

static void batches_come_whole(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        bft_tree *one = engine_tree(f, "one", 512);
        bft_tree *two = engine_tree(f, "two", 512);
        bft_feed *feed = feed_at(f, BFT_FEED_NOW);
        uint64_t first, last, none;
        bft_commit commit;
        bft_batch *batch;
        static uint8_t value[300];

        feed_at_end(feed);
        expect_ok(bft_batch_create(f->db, &batch));
        /* More than the feed reads at once, over several segments. */
        for (unsigned i = 0; i < 1000; i++) {
            char key[16];
            snprintf(key, sizeof(key), "%08u", i);
            expect_ok(bft_batch_put(batch, i % 2 ? one : two, feed_text(key),
                                    (bft_slice){value, sizeof(value)}));
        }
        expect_ok(bft_batch_commit(batch, BFT_SYNC, &first));
        expect_ok(
            bft_batch_put(batch, one, feed_text("twice"), feed_text("lost")));
        expect_ok(
            bft_batch_put(batch, one, feed_text("twice"), feed_text("kept")));
        expect_ok(bft_batch_delete(batch, two, feed_text("00000000")));
        expect_ok(bft_batch_commit(batch, BFT_SYNC, &last));
        expect_ok(bft_batch_commit(batch, BFT_SYNC, &none));

        commit = feed_next_commit(feed);
        assert_true(commit.lsn == first && commit.count == 1000);
        for (unsigned i = 0; i < 1000; i++) {
            assert_int_equal(BFT_CHANGE_PUT, commit.changes[i].op);
            assert_int_equal(sizeof(value), commit.changes[i].value.len);
            assert_int_equal(i < 500 ? feed_tree_id(one) : feed_tree_id(two),
                             commit.changes[i].tree_id);
        }
        commit = feed_next_commit(feed);
        assert_true(commit.lsn == last && commit.count == 2);
        assert_true(feed_is(commit.changes[0].value, "kept"));
        feed_at_end(feed);
        assert_true(none == last);
        bft_batch_free(batch);
        bft_feed_close(feed);
        engine_fixture_free(f);
    }
}

/* --- large values --------------------------------------------------------- */

static bft_status nth_byte(void *ctx, void *buf, size_t len)
{
    uint64_t *at = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)(*at)++;
    return BFT_OK;
}

static void check_bytes(bft_feed *feed, const bft_change *c, uint64_t offset,
                        size_t len, size_t expected)
{
    uint8_t *buf = malloc(len + 1);
    size_t got;
    assert_non_null(buf);
    expect_ok(bft_feed_value(feed, c, offset, buf, len, &got));
    assert_int_equal(expected, got);
    for (size_t i = 0; i < got; i++)
        assert_int_equal((uint8_t)(offset + i), buf[i]);
    free(buf);
}

static void large_values_are_whole_or_can_be_read(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_feed *feed = feed_at(f, BFT_FEED_NOW);
        uint64_t at = 0, lsn;
        const bft_change *c;
        uint8_t byte, *whole = malloc(WHOLE);
        size_t got;

        assert_non_null(whole);
        /* A stream's is left out however short it is, if it lies outside. */
        expect_ok(
            bft_put_stream(tree, feed_text("short"), 1000, nth_byte, &at));
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(c->value.len == 0 && c->value_bytes == 1000);
        check_bytes(feed, c, 0, 1000, 1000);
        at = 0;
        expect_ok(nth_byte(&at, whole, WHOLE));
        expect_ok(bft_put(tree, feed_text("whole"), (bft_slice){whole, WHOLE}));
        at = 0;
        expect_ok(
            bft_put_stream(tree, feed_text("left out"), LARGE, nth_byte, &at));

        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(c->value.len == WHOLE && c->value_bytes == WHOLE);
        assert_memory_equal(whole, c->value.data, WHOLE);
        check_bytes(feed, c, 10, 100, 100);
        lsn = bft_feed_lsn(feed);
        c = feed_next_change(feed, BFT_CHANGE_PUT);
        assert_true(c->value.len == 0 && c->value_bytes == LARGE);
        check_bytes(feed, c, 0, LARGE + 5, LARGE);
        check_bytes(feed, c, 520000, 1000, 1000);
        check_bytes(feed, c, LARGE, 10, 0);
        check_bytes(feed, c, 3, 0, 0);
        /* As it lies on disk, too, after a checkpoint and after a restart. */
        expect_ok(bft_checkpoint(f->db));
        check_bytes(feed, c, LARGE - 10, 20, 10);
        bft_feed_close(feed);
        if (f->backend == ENGINE_SIM)
            engine_crash(f, BFTI_SIM_DROP, 1);
        else
            engine_reopen(f);
        tree = engine_tree(f, "t", 512);
        if (lsn >= bft_feed_lowest(f->db)) {
            feed = feed_at(f, lsn);
            c = feed_next_change(feed, BFT_CHANGE_PUT);
            check_bytes(feed, c, 0, LARGE, LARGE);
            bft_feed_close(feed);
        }
        /* Replaced, removed, and gone with its tree. */
        feed = feed_at(f, BFT_FEED_NOW);
        for (unsigned i = 0; i < 4; i++) {
            at = i;
            expect_ok(
                bft_put_stream(tree, feed_text("k"), LARGE, nth_byte, &at));
            c = feed_next_change(feed, BFT_CHANGE_PUT);
            at = i + 1;
            if (i == 0)
                expect_ok(
                    bft_put_stream(tree, feed_text("k"), LARGE, nth_byte, &at));
            else if (i == 1)
                expect_ok(bft_delete(tree, feed_text("k")));
            else if (i == 2)
                expect_ok(bft_tree_truncate(f->db, "t"));
            else
                expect_ok(bft_tree_drop(f->db, "t"));
            expect_status(BFT_GONE, bft_feed_value(feed, c, 0, &byte, 1, &got));
            assert_int_equal(0, got);
            (void)feed_next_commit(feed);
        }
        feed_at_end(feed);
        bft_feed_close(feed);
        free(whole);
        engine_fixture_free(f);
    }
}

/* --- durable -------------------------------------------------------------- */

static void what_may_be_lost_does_not_come(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_idle(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_batch *batch;
        bft_feed *feed, *ahead;
        uint64_t lsn[3];

        expect_ok(bft_sync(f->db));
        feed = feed_at(f, BFT_FEED_NOW);
        expect_ok(bft_batch_create(f->db, &batch));
        for (unsigned i = 0; i < 3; i++) {
            char key[2] = {(char)('a' + i), 0};
            expect_ok(
                bft_batch_put(batch, tree, feed_text(key), feed_text("v")));
            expect_ok(bft_batch_commit(batch, i % 2 ? BFT_NONE : BFT_BUFFERED,
                                       &lsn[i]));
            feed_at_end(feed);
        }
        /* From a commit that is not durable yet it goes on all the same. */
        ahead = feed_at(f, lsn[1]);
        feed_at_end(ahead);
        expect_ok(bft_wait_durable(f->db, lsn[0]));
        assert_true(feed_next_commit(feed).lsn == lsn[0]);
        /* A sync takes all that was copied. */
        expect_ok(bft_sync(f->db));
        assert_true(feed_next_commit(feed).lsn == lsn[1]);
        assert_true(feed_next_commit(feed).lsn == lsn[2]);
        feed_at_end(feed);
        assert_true(feed_next_commit(ahead).lsn == lsn[2]);
        feed_at_end(ahead);
        bft_feed_close(ahead);
        bft_feed_close(feed);
        bft_batch_free(batch);
        engine_fixture_free(f);
    }
}

/* Of a database whose files go with the process frames wait in memory, some of
 * them past the last that were copied. */
static void what_is_in_memory_only_comes_after_a_sync(void **state)
{
    enum { RECORDS = 700 };
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY,
                           .no_threads = true};
    bft_commit commit;
    bft_feed *feed;
    bft_tree *tree;
    bft_db *db;

    (void)state;
    expect_ok(bft_open("frames", &options, &db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_sync(db));
    expect_ok(bft_feed_open(db, BFT_FEED_NOW, NULL, &feed));
    feed_put_some(tree, 0, RECORDS);
    feed_at_end(feed);
    expect_ok(bft_sync(db));
    for (unsigned i = 0; i < RECORDS; i++) {
        expect_ok(bft_feed_next(feed, 0, &commit));
        assert_int_equal(1, commit.count);
        assert_int_equal(BFT_CHANGE_PUT, commit.changes[0].op);
    }
    feed_at_end(feed);
    assert_true(bft_feed_lsn(feed) == bft_durable_lsn(db));
    bft_feed_close(feed);
    expect_ok(bft_close(db));
}

/* Logged, and durable by another's sync, but not published by its writer. */
static void what_cannot_be_read_yet_does_not_come(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_tree *other = engine_tree(f, "other", 512);
    struct parked writer;
    char value[8];
    bft_feed *feed;
    size_t len;
    (void)state;
    expect_ok(bft_sync(f->db));
    feed = feed_at(f, BFT_FEED_NOW);
    assert_true(park_start(&writer, "write:logged", 0, feed_put_k, tree));
    expect_ok(bft_put(other, feed_text("later"), feed_text("v")));
    expect_ok(bft_sync(f->db));
    assert_true(bft_durable_lsn(f->db) > bft_feed_lsn(feed));
    expect_status(BFT_NOT_FOUND,
                  bft_get(tree, feed_text("k"), value, sizeof(value), &len));
    feed_at_end(feed);
    park_end(&writer);
    assert_true(feed_is(feed_next_change(feed, BFT_CHANGE_PUT)->key, "k"));
    expect_ok(bft_get(tree, feed_text("k"), value, sizeof(value), &len));
    assert_true(feed_is(feed_next_change(feed, BFT_CHANGE_PUT)->key, "later"));
    bft_feed_close(feed);
    engine_fixture_free(f);
}

static void create_u(void *arg)
{
    bft_tree *tree;
    expect_ok(bft_tree_open(arg, "u", NULL, &tree));
}

static void rename_t(void *arg)
{
    expect_ok(bft_tree_rename(arg, "t", "renamed"));
}

static void truncate_t(void *arg)
{
    expect_ok(bft_tree_truncate(arg, "t"));
}

static void drop_t(void *arg)
{
    expect_ok(bft_tree_drop(arg, "t"));
}

static void nor_do_changes_of_trees(void **state)
{
    static const struct {
        const char *point;
        void (*run)(void *db);
        bft_change_op op;
    } at[] = {
        {"create:logged", create_u, BFT_CHANGE_TREE_CREATE},
        {"rename:logged", rename_t, BFT_CHANGE_TREE_RENAME},
        {"truncate:logged", truncate_t, BFT_CHANGE_TREE_TRUNCATE},
        {"truncate:added", truncate_t, BFT_CHANGE_TREE_TRUNCATE},
        {"drop:logged", drop_t, BFT_CHANGE_TREE_DROP},
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(at) / sizeof(*at); i++) {
        struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
        struct parked parked;
        bft_feed *feed;
        (void)engine_tree(f, "t", 512);
        expect_ok(bft_sync(f->db));
        feed = feed_at(f, BFT_FEED_NOW);
        assert_true(park_start(&parked, at[i].point, 0, at[i].run, f->db));
        expect_ok(bft_sync(f->db));
        assert_true(bft_durable_lsn(f->db) > bft_feed_lsn(feed));
        feed_at_end(feed);
        park_end(&parked);
        (void)feed_next_change(feed, at[i].op);
        feed_at_end(feed);
        bft_feed_close(feed);
        engine_fixture_free(f);
    }
}

/* --- positions ------------------------------------------------------------ */

static void any_lsn_that_came_is_gone_on_from(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        enum { COMMITS = 40 };
        struct engine_fixture *f = feed_open_durable(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        uint64_t lsn[COMMITS + 1] = {0};
        bft_feed *feed = feed_at(f, 0), *again;

        feed_put_some(tree, 0, COMMITS - 1);
        for (unsigned i = 1; i <= COMMITS; i++) {
            lsn[i] = feed_next_commit(feed).lsn;
            assert_true(lsn[i] > lsn[i - 1]);
        }
        bft_feed_close(feed);
        for (unsigned life = 0; life < 3; life++) {
            for (unsigned i = 0; i < COMMITS; i++) {
                bft_status status = bft_feed_open(f->db, lsn[i], NULL, &again);
                if (status == BFT_GONE) {
                    assert_true(lsn[i] < bft_feed_lowest(f->db));
                    continue;
                }
                expect_ok(status);
                assert_true(feed_next_commit(again).lsn == lsn[i + 1]);
                bft_feed_close(again);
            }
            again = feed_at(f, lsn[COMMITS]);
            feed_at_end(again);
            bft_feed_close(again);
            if (f->backend == ENGINE_SIM && life == 0)
                engine_crash(f, BFTI_SIM_DROP, life);
            else
                engine_reopen(f);
        }
        engine_fixture_free(f);
    }
}

static void where_no_commit_ends_no_feed_begins(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_feed *feed;
    bft_commit commit;
    uint64_t end;
    (void)state;
    feed_put_some(tree, 0, 10);
    expect_ok(bft_sync(f->db));
    end = bft_durable_lsn(f->db);
    expect_status(BFT_INVALID, bft_feed_open(f->db, end - 8, NULL, &feed));
    assert_null(feed);
    expect_status(BFT_INVALID, bft_feed_open(f->db, 8, NULL, &feed));
    expect_status(BFT_INVALID, bft_feed_open(f->db, end - 1, NULL, &feed));
    expect_status(BFT_INVALID, bft_feed_open(f->db, end + 8, NULL, &feed));
    /* Of what is not durable it turns out when it is. */
    feed_put_some(tree, 10, 2);
    feed = feed_at(f, end + 16);
    feed_at_end(feed);
    expect_ok(bft_sync(f->db));
    expect_status(BFT_INVALID, bft_feed_next(feed, 0, &commit));
    assert_true(bft_feed_lsn(feed) == end + 16);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

/* --- dropped -------------------------------------------------------------- */

static void what_was_dropped_is_gone(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_idle(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_feed *begin, *at, *feed;
        uint64_t lowest;
        bft_commit commit;
        char error[200];

        feed_put_some(tree, 0, 100); /* more than a segment */
        expect_ok(bft_sync(f->db));
        begin = feed_at(f, 0);
        at = feed_at(f, 0);
        assert_int_equal(BFT_CHANGE_TREE_CREATE,
                         feed_next_commit(at).changes[0].op);
        assert_true(bft_feed_lowest(f->db) == 0);
        feed_put_some(tree, 0, 500);
        expect_ok(bft_checkpoint(f->db));
        feed_put_some(tree, 0, 500); /* the segments of before are used again */
        expect_ok(bft_sync(f->db));
        lowest = bft_feed_lowest(f->db);
        assert_true(lowest > 500 * 1000);
        expect_status(BFT_GONE, bft_feed_open(f->db, 0, NULL, &feed));
        bft_last_error(error, sizeof(error));
        assert_non_null(strstr(error, f->path));
        /* What was read ahead still comes, in order. */
        for (feed = begin; feed; feed = feed == begin ? at : NULL) {
            uint64_t last = bft_feed_lsn(feed);
            bft_status status;
            while ((status = bft_feed_next(feed, 0, &commit)) == BFT_OK) {
                assert_true(commit.lsn > last && commit.lsn < 100000);
                last = commit.lsn;
            }
            expect_status(BFT_GONE, status);
            expect_status(BFT_GONE, bft_feed_next(feed, 0, &commit));
            assert_true(bft_feed_lsn(feed) == last);
            bft_feed_close(feed);
        }
        feed = feed_at(f, lowest);
        for (unsigned i = 0; i < 500; i++)
            assert_int_equal(BFT_CHANGE_PUT,
                             feed_next_commit(feed).changes[0].op);
        feed_at_end(feed);
        bft_feed_close(feed);
        engine_fixture_free(f);
    }
}

static void a_feed_holds_the_log_as_far_as_it_said(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_idle(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_feed_options o = {.size = sizeof(o), .hold_bytes = 1 << 20};
        bft_feed *feed, *other, *late;
        bft_commit commit;
        uint64_t lowest;

        expect_ok(bft_sync(f->db));
        expect_ok(bft_feed_open(f->db, BFT_FEED_NOW, &o, &feed));
        expect_ok(bft_feed_open(f->db, 0, &o, &other));
        (void)feed_next_commit(other);
        assert_true(bft_feed_lsn(other) == bft_feed_lsn(feed));
        for (unsigned i = 0; i < 8; i++) {
            feed_put_some(tree, i * 100, 100);
            expect_ok(bft_checkpoint(f->db));
            assert_true(bft_feed_lowest(f->db) <= bft_feed_lsn(feed));
        }
        late = feed_at(f, bft_feed_lsn(feed));
        for (unsigned i = 0; i < 800; i++)
            assert_int_equal(BFT_CHANGE_PUT,
                             feed_next_commit(feed).changes[0].op);
        feed_at_end(feed);
        /* The one that holds it longest counts. */
        expect_ok(bft_checkpoint(f->db));
        lowest = bft_feed_lowest(f->db);
        assert_true(lowest <= bft_feed_lsn(other));
        /* Beyond its bound it does not, and those that go with it neither. */
        feed_put_some(tree, 0, 400);
        expect_ok(bft_checkpoint(f->db));
        assert_true(bft_feed_lowest(f->db) == bft_feed_lsn(feed));
        for (unsigned i = 0; i < 400; i++)
            (void)feed_next_commit(feed);
        feed_at_end(feed);
        for (unsigned i = 0; bft_feed_next(other, 0, &commit) == BFT_OK; i++)
            assert_in_range(i, 0, 200);
        expect_status(BFT_GONE, bft_feed_next(other, 0, &commit));
        for (unsigned i = 0; bft_feed_next(late, 0, &commit) == BFT_OK; i++)
            assert_in_range(i, 0, 200);
        bft_feed_close(late);
        bft_feed_close(other);
        bft_feed_close(feed);
        feed_put_some(tree, 0, 200);
        expect_ok(bft_checkpoint(f->db));
        assert_true(bft_feed_lowest(f->db) == bft_durable_lsn(f->db));
        engine_fixture_free(f);
    }
}

/* A feed stands between finding a segment and reading it, or after that, while
 * it is dropped and becomes another: it says so, and gives nothing of that. */
struct reading {
    struct engine_fixture *f;
    bft_feed *feed;
    bft_status status;
    unsigned commits;
};

static void read_on(void *arg)
{
    struct reading *r = arg;
    bft_commit commit;
    while ((r->status = bft_feed_next(r->feed, 0, &commit)) == BFT_OK)
        r->commits++;
}

static void count_log(void *arg, const char *name)
{
    unsigned *count = arg;
    *count += strncmp(name, "log-", 4) == 0;
}

static unsigned log_files(struct engine_fixture *f)
{
    unsigned count = 0;
    expect_ok(f->vfs->ops->list(f->vfs, f->path, count_log, &count));
    return count;
}

static void a_segment_reused_under_a_feed_is_noticed(void **state)
{
    static const char *const point[] = {
        "wal:segment-chosen", "wal:segment-pinned", "wal:segment-read"};
    (void)state;
    for (unsigned i = 0; i < 2 * 3 * 3; i++) {
        enum engine_backend backend = (enum engine_backend)(i / 3 % 3);
        struct engine_fixture *f;
        /* In the first segment, which becomes a spare and is used again; or in
         * one of those that are too many for that. */
        bool late = i >= 3 * 3;
        struct reading r = {.feed = NULL};
        struct parked parked;
        bft_tree *tree;

        if (backend == ENGINE_POSIX && i % 3 != 1)
            continue; /* its syncs take long */
        r.f = f = engine_fixture_make(backend);
        f->options.memory_bytes = 16 << 20;
        f->options.log_bytes = 16 << 20;
        f->options.log_segment_bytes = 256
                                       << 10; /* more than is read at once */
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        feed_put_some(tree, 0, 2000);
        expect_ok(bft_sync(f->db));
        r.feed = feed_at(f, 0);
        assert_true(
            park_start(&parked, point[i % 3], late ? 24 : 1, read_on, &r));
        assert_in_range(r.commits, late ? 1200 : 60, late ? 1600 : 200);
        for (unsigned round = 0; round < 3; round++) {
            expect_ok(bft_checkpoint(f->db));
            feed_put_some(tree, 0, 1000);
        }
        park_end(&parked);
        expect_status(BFT_GONE, r.status);
        assert_in_range(r.commits, late ? 1200 : 60, late ? 1600 : 200);
        /* It is no longer taken for one that is read, which a spare may be beyond
         * the fourth. */
        for (unsigned round = 0; round < 2; round++) {
            feed_put_some(tree, 0, 4000);
            expect_ok(bft_checkpoint(f->db));
            assert_in_range(log_files(f), 1, 4 + 2);
        }
        bft_feed_close(r.feed);
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_as_they_were_written),
        cmocka_unit_test(trees_come_with_their_names),
        cmocka_unit_test(trees_are_the_same_after_recovery),
        cmocka_unit_test(batches_come_whole),
        cmocka_unit_test(large_values_are_whole_or_can_be_read),
        cmocka_unit_test(what_may_be_lost_does_not_come),
        cmocka_unit_test(what_is_in_memory_only_comes_after_a_sync),
        cmocka_unit_test(what_cannot_be_read_yet_does_not_come),
        cmocka_unit_test(nor_do_changes_of_trees),
        cmocka_unit_test(any_lsn_that_came_is_gone_on_from),
        cmocka_unit_test(where_no_commit_ends_no_feed_begins),
        cmocka_unit_test(what_was_dropped_is_gone),
        cmocka_unit_test(a_feed_holds_the_log_as_far_as_it_said),
        cmocka_unit_test(a_segment_reused_under_a_feed_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
