/*
 * Change feeds that wait, that are stopped or lose their database, and what
 * goes wrong: arguments, memory, files.
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
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "feed_fixture.h"
#include "park.h"

/* --- waiting -------------------------------------------------------------- */

struct waiting {
    bft_feed *feed;
    uint64_t wait_ms;
    bft_commit commit;
    bft_status status;
    pthread_t thread;
    struct parked parked;
};

static void wait_for_one(void *arg)
{
    struct waiting *w = arg;
    w->status = bft_feed_next(w->feed, w->wait_ms, &w->commit);
}

static void *waiting_main(void *arg)
{
    wait_for_one(arg);
    return NULL;
}

/* Until it is about to sleep. */
static void wait_begin(struct waiting *w, bft_feed *feed)
{
    memset(w, 0, sizeof(*w));
    w->feed = feed;
    w->wait_ms = BFT_FEED_FOREVER;
    assert_true(park_start(&w->parked, "wal:feed-waits", 0, wait_for_one, w));
}

static void a_waiting_feed_is_woken(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_feed *feed = feed_at(f, BFT_FEED_NOW), *other;
        struct waiting w;

        other = feed_at(f, BFT_FEED_NOW);
        /* What happens between the look and the sleep is not missed... */
        wait_begin(&w, feed);
        expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
        park_end(&w.parked);
        expect_ok(w.status);
        assert_int_equal(1, w.commit.count);
        /* ... nor is what happens during it. */
        for (unsigned i = 0; i < 5; i++) {
            w.wait_ms = BFT_FEED_FOREVER;
            assert_int_equal(0,
                             pthread_create(&w.thread, NULL, waiting_main, &w));
            for (unsigned k = 0; k < 4 * i; k++)
                sched_yield();
            expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
            assert_int_equal(0, pthread_join(w.thread, NULL));
            expect_ok(w.status);
        }
        bft_feed_stop(other); /* stops no other feed */
        wait_begin(&w, feed);
        bft_feed_stop(feed);
        park_end(&w.parked);
        expect_status(BFT_INVALID, w.status);
        expect_status(BFT_INVALID, bft_feed_next(feed, 0, &w.commit));
        expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
        expect_status(BFT_INVALID, bft_feed_next(feed, 1, &w.commit));
        bft_feed_close(feed);
        bft_feed_close(other);
        engine_fixture_free(f);
    }
}

static void a_wait_ends_in_time(void **state)
{
    struct engine_fixture *f = feed_open_durable(ENGINE_MEMORY);
    bft_feed *feed = feed_at(f, BFT_FEED_NOW);
    bft_commit commit;
    uint64_t before = f->env.now_ns(f->env.ctx), after;
    (void)state;
    expect_status(BFT_NOT_FOUND, bft_feed_next(feed, 20, &commit));
    after = f->env.now_ns(f->env.ctx);
    if (f->env.thread_start) /* else nobody is waited for */
        assert_true(after - before >= 20000000);
    (void)engine_tree(f, "t", 512);
    expect_ok(bft_feed_next(feed, UINT64_MAX - 1, &commit));
    bft_feed_close(feed);
    engine_fixture_free(f);
}

/* A writer that has not left is waited for, and wakes nobody. */
static void a_wait_outlasts_a_slow_writer(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    struct parked writer;
    struct waiting w = {.wait_ms = BFT_FEED_FOREVER};
    (void)state;
    expect_ok(bft_sync(f->db));
    w.feed = feed_at(f, BFT_FEED_NOW);
    assert_true(park_start(&writer, "write:published", 0, feed_put_k, tree));
    expect_ok(bft_sync(f->db));
    assert_int_equal(0, pthread_create(&w.thread, NULL, waiting_main, &w));
    sched_yield();
    park_end(&writer);
    expect_ok(bft_sync(f->db));
    assert_int_equal(0, pthread_join(w.thread, NULL));
    expect_ok(w.status);
    bft_feed_close(w.feed);
    engine_fixture_free(f);
}

/* --- the end -------------------------------------------------------------- */

static void *close_main(void *arg)
{
    bft_db *db = arg;
    expect_ok(bft_close(db));
    return NULL;
}

static void closed(bft_feed *feed)
{
    bft_change change = {.op = BFT_CHANGE_PUT};
    bft_commit commit;
    uint8_t byte;
    size_t got;
    expect_status(BFT_INVALID, bft_feed_next(feed, 0, &commit));
    expect_status(BFT_INVALID, bft_feed_next(feed, BFT_FEED_FOREVER, &commit));
    expect_status(BFT_INVALID,
                  bft_feed_value(feed, &change, 0, &byte, 1, &got));
    assert_true(bft_feed_lsn(feed) == 0);
    bft_feed_stop(feed);
}

static void closing_the_database_ends_its_feeds(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = feed_open_durable(b);
        struct waiting parked, asleep = {.wait_ms = BFT_FEED_FOREVER};
        bft_feed *idle = feed_at(f, 0), *gone = feed_at(f, 0), *other;
        pthread_t closer;
        bft_db *db;

        (void)engine_tree(f, "t", 512);
        (void)feed_next_commit(idle);
        bft_feed_close(gone);
        expect_ok(bft_open(f->path, &f->options, &db));
        expect_ok(bft_feed_open(db, 0, NULL, &other));
        asleep.feed = feed_at(f, BFT_FEED_NOW);
        wait_begin(&parked, feed_at(f, BFT_FEED_NOW));
        assert_int_equal(
            0, pthread_create(&asleep.thread, NULL, waiting_main, &asleep));
        assert_int_equal(0, pthread_create(&closer, NULL, close_main, f->db));
        for (unsigned i = 0; i < 100; i++)
            sched_yield();
        park_end(&parked.parked);
        assert_int_equal(0, pthread_join(asleep.thread, NULL));
        assert_int_equal(0, pthread_join(closer, NULL));
        f->db = NULL;
        expect_status(BFT_INVALID, parked.status);
        expect_status(BFT_INVALID, asleep.status);
        closed(parked.feed);
        closed(asleep.feed);
        closed(idle);
        bft_feed_close(parked.feed);
        bft_feed_close(asleep.feed);
        /* Another handle's goes on, until that is the last to be closed. */
        (void)feed_next_commit(other);
        expect_ok(bft_close(db));
        closed(other);
        engine_open(f);
        closed(other);
        bft_feed_close(other);
        bft_feed_close(idle);
        engine_fixture_free(f);
    }
}

static void close_db(void *arg)
{
    expect_ok(bft_close(arg));
}

static void close_feed(void *arg)
{
    bft_feed_close(arg);
}

static void *close_feed_main(void *arg)
{
    close_feed(arg);
    return NULL;
}

static void a_feed_may_be_closed_while_its_database_is(void **state)
{
    struct engine_fixture *f = feed_open_durable(ENGINE_MEMORY);
    bft_feed *feed = feed_at(f, 0), *second = feed_at(f, 0);
    struct parked closer;
    pthread_t thread;
    (void)state;
    /* The list's first is the last opened: the other is still to come. */
    assert_true(park_start(&closer, "feed:ended", 0, close_db, f->db));
    assert_int_equal(0, pthread_create(&thread, NULL, close_feed_main, feed));
    closed(second);
    park_end(&closer);
    assert_int_equal(0, pthread_join(thread, NULL));
    bft_feed_close(second);
    /* The same, when the feed's close was there first. */
    engine_open(f);
    feed = feed_at(f, BFT_FEED_NOW);
    assert_true(park_start(&closer, "feed:closing", 0, close_feed, feed));
    assert_int_equal(0, pthread_create(&thread, NULL, close_main, f->db));
    for (unsigned i = 0; i < 1000; i++)
        sched_yield();
    park_end(&closer);
    assert_int_equal(0, pthread_join(thread, NULL));
    f->db = NULL;
    engine_fixture_free(f);
}

/* A feed that is not its database's any more has nothing of it, either. */
static void a_feed_is_done_with_its_database_when_it_leaves(void **state)
{
    bft_feed_options options = {.size = sizeof(options), .hold_bytes = 4096};
    struct engine_fixture *f = feed_open_durable(ENGINE_MEMORY);
    struct parked closer;
    bft_feed *feed;
    (void)state;
    expect_ok(bft_feed_open(f->db, BFT_FEED_NOW, &options, &feed));
    assert_true(park_start(&closer, "feed:taken-off", 0, close_feed, feed));
    engine_close(f);
    engine_open(f);
    park_end(&closer);
    engine_fixture_free(f);
}

static int use_in_child(bft_feed *feed)
{
    bft_change change = {.op = BFT_CHANGE_PUT};
    bft_commit commit;
    uint8_t byte;
    size_t got;
    if (bft_feed_next(feed, 0, &commit) != BFT_FORKED)
        return 1;
    if (bft_feed_value(feed, &change, 0, &byte, 1, &got) != BFT_FORKED)
        return 2;
    if (bft_feed_lsn(feed) != 0)
        return 3;
    bft_feed_stop(feed);
    bft_feed_close(feed);
    return 0;
}

static void a_forked_child_has_no_feeds(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
    bft_feed *feed = feed_at(f, 0);
    int status;
    pid_t child;
    (void)state;
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(use_in_child(feed));
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    assert_int_equal(0, WEXITSTATUS(status));
    feed_at_end(feed); /* the child stopped its own */
    bft_feed_close(feed);
    engine_fixture_free(f);
}

/* --- what goes wrong ------------------------------------------------------ */

static void bad_arguments_are_refused(void **state)
{
    struct engine_fixture *f = feed_open_durable(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_feed_options o = {.size = sizeof(o)};
    bft_change strange = {.op = BFT_CHANGE_PUT};
    bft_feed *feed = NULL, *none = NULL;
    bft_commit commit;
    const bft_change *c;
    uint32_t id = 1;
    uint8_t byte;
    size_t got;
    (void)state;

    expect_status(BFT_INVALID, bft_feed_open(f->db, 0, NULL, NULL));
    expect_status(BFT_INVALID, bft_feed_open(NULL, 0, NULL, &feed));
    assert_null(feed);
    o.size = 4;
    expect_status(BFT_INVALID, bft_feed_open(f->db, 0, &o, &feed));
    o.size = sizeof(o);
    o.hold_bytes = UINT64_MAX;
    expect_status(BFT_INVALID, bft_feed_open(f->db, 0, &o, &feed));
    o.hold_bytes = UINT64_C(1) << 35; /* half a million segments of 64 KiB */
    expect_ok(bft_feed_open(f->db, 0, &o, &feed));
    expect_status(BFT_INVALID, bft_feed_next(feed, 0, NULL));
    expect_status(BFT_INVALID, bft_feed_next(NULL, 0, &commit));
    expect_status(BFT_INVALID,
                  bft_feed_value(NULL, &strange, 0, &byte, 1, &got));
    expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
    c = feed_next_change(feed, BFT_CHANGE_TREE_CREATE);
    expect_status(BFT_INVALID, bft_feed_value(feed, c, 0, &byte, 1, &got));
    c = feed_next_change(feed, BFT_CHANGE_PUT);
    expect_status(BFT_INVALID,
                  bft_feed_value(feed, &strange, 0, &byte, 1, &got));
    expect_status(BFT_INVALID, bft_feed_value(feed, NULL, 0, &byte, 1, &got));
    expect_status(BFT_INVALID, bft_feed_value(feed, c, 0, NULL, 1, &got));
    expect_status(BFT_INVALID, bft_feed_value(feed, c, 0, &byte, 1, NULL));
    expect_ok(bft_feed_value(feed, c, 0, &byte, 1, &got));
    assert_true(got == 1 && byte == 'v');
    expect_ok(bft_feed_value(feed, c, 9, &byte, 1, &got));
    assert_int_equal(0, got);
    feed_at_end(feed);
    expect_status(BFT_INVALID, bft_feed_value(feed, c, 0, &byte, 1, &got));
    assert_true(bft_feed_lsn(NULL) == 0 && bft_feed_lowest(NULL) == 0);
    bft_feed_stop(NULL);
    bft_feed_close(NULL);
    bft_feed_close(none);
    expect_status(BFT_INVALID, bft_tree_id(NULL, &id));
    assert_int_equal(0, id);
    expect_status(BFT_INVALID, bft_tree_id(tree, NULL));
    bft_feed_close(feed);
    engine_fixture_free(f);
}

static void without_memory_nothing_is_lost(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_feed *feed;
    bft_batch *batch;
    bft_commit commit;
    unsigned refused = 0;
    (void)state;
    expect_ok(bft_batch_create(f->db, &batch));
    for (unsigned i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%u", i);
        expect_ok(bft_batch_put(batch, tree, feed_text(key), feed_text("v")));
    }
    expect_ok(bft_batch_commit(batch, BFT_SYNC, NULL));
    for (int64_t n = 0;; n++) {
        bft_status status;
        atomic_store(&f->allocs_left, n);
        status = bft_feed_open(f->db, 0, NULL, &feed);
        atomic_store(&f->allocs_left, -1);
        if (status == BFT_OK)
            break;
        /* provokes: bft_feed_open BFT_NO_MEMORY */
        expect_status(BFT_NO_MEMORY, status);
        assert_null(feed);
    }
    (void)feed_next_commit(feed);
    for (int64_t n = 0;; n++) {
        bft_status status;
        atomic_store(&f->allocs_left, n);
        status = bft_feed_next(feed, 0, &commit);
        atomic_store(&f->allocs_left, -1);
        if (status == BFT_OK)
            break;
        /* provokes: bft_feed_next BFT_NO_MEMORY */
        expect_status(BFT_NO_MEMORY, status);
        assert_int_equal(0, commit.count);
        refused++;
    }
    assert_in_range(refused, 1, 20);
    assert_int_equal(100, commit.count);
    feed_at_end(feed);
    bft_batch_free(batch);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

/* Where the log is and not its end. */
static void harm(struct engine_fixture *f, uint64_t lsn)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/log-%016llx", f->path,
             (unsigned long long)(lsn & ~UINT64_C(0xffff)));
    expect_ok(bfti_sim_flip(f->vfs, path, lsn & 0xffff, 4));
}

static void damage_is_told_and_not_passed(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_commit commit;
    bft_feed *feed;
    char error[300];
    bft_status status;
    unsigned before = 0;
    (void)state;
    feed_put_some(tree, 0, 300);
    expect_ok(bft_sync(f->db));
    feed = feed_at(f, 0);
    harm(f, 200000);
    while ((status = bft_feed_next(feed, 0, &commit)) == BFT_OK)
        before++;
    expect_status(BFT_CORRUPT, status);
    bft_last_error(error, sizeof(error));
    assert_non_null(strstr(error, "/db/log-0000000000030000: byte "));
    assert_in_range(before, 150, 200);
    expect_status(BFT_CORRUPT, bft_feed_next(feed, 0, &commit));
    /* Mended, it goes on where it was. */
    harm(f, 200000);
    while (bft_feed_next(feed, 0, &commit) == BFT_OK)
        before++;
    assert_int_equal(301, before);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

static void fail_a_read(enum bfti_sim_harm harm)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_SIM);
    bft_tree *tree = engine_tree(f, "t", 512);
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                   .path = "log-",
                                   .nth = 2,
                                   .harm = harm,
                                   .status = BFT_IO};
    bft_commit commit;
    bft_feed *feed;
    unsigned count = 0, failed = 0;
    bft_status status;
    feed_put_some(tree, 0, 300);
    expect_ok(bft_sync(f->db));
    bfti_sim_fail(f->vfs, &fault);
    feed = feed_at(f, 0);
    while ((status = bft_feed_next(feed, 0, &commit)) != BFT_NOT_FOUND) {
        count += status == BFT_OK;
        failed += status == BFT_IO; /* provokes: bft_feed_next BFT_IO */
        assert_true(status == BFT_OK || status == BFT_IO);
    }
    assert_true(count == 301 && failed == 1);
    bfti_sim_heal(f->vfs);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

static void a_read_that_fails_may_be_tried_again(void **state)
{
    (void)state;
    fail_a_read(BFTI_SIM_REFUSE);
    fail_a_read(BFTI_SIM_SHORT);
}

/* Of the log, at a sync; or of the page file, which no sync of the log follows
 * that could wake who waits. */
static void after_a_failed_sync_no_more_comes(void **state)
{
    (void)state;
    for (unsigned data = 0; data < 2; data++) {
        struct engine_fixture *f = feed_open_idle(ENGINE_SIM);
        bft_tree *tree = engine_tree(f, "t", 512);
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                       .path = data ? "data" : "log-",
                                       .nth = 1,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = BFT_IO};
        struct waiting w;
        bft_commit commit;
        bft_feed *feed;

        expect_ok(bft_sync(f->db));
        feed = feed_at(f, 0);
        wait_begin(&w, feed_at(f, BFT_FEED_NOW));
        expect_ok(bft_put(tree, feed_text("k"), feed_text("v")));
        bfti_sim_fail(f->vfs, &fault);
        expect_status(BFT_IO, data ? bft_checkpoint(f->db) : bft_sync(f->db));
        park_end(&w.parked);
        expect_status(BFT_POISONED, w.status);
        bfti_sim_heal(f->vfs);
        /* What was durable before comes still. */
        (void)feed_next_commit(feed);
        expect_status(BFT_POISONED, bft_feed_next(feed, 0, &commit));
        bft_feed_close(feed);
        bft_feed_close(w.feed);
        (void)bft_close(f->db);
        f->db = NULL;
        engine_fixture_free(f);
    }
}

static void a_read_only_database_has_feeds(void **state)
{
    struct engine_fixture *f = feed_open_idle(ENGINE_SIM);
    bft_feed *feed;
    (void)state;
    feed_put_some(engine_tree(f, "t", 512), 0, 100);
    expect_ok(bft_sync(f->db));
    f->options.read_only = true;
    engine_crash(f, BFTI_SIM_DROP, 1);
    feed = feed_at(f, 0);
    assert_int_equal(BFT_CHANGE_TREE_CREATE,
                     feed_next_commit(feed).changes[0].op);
    for (unsigned i = 0; i < 100; i++)
        (void)feed_next_commit(feed);
    feed_at_end(feed);
    bft_feed_close(feed);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_waiting_feed_is_woken),
        cmocka_unit_test(a_wait_ends_in_time),
        cmocka_unit_test(a_wait_outlasts_a_slow_writer),
        cmocka_unit_test(closing_the_database_ends_its_feeds),
        cmocka_unit_test(a_feed_may_be_closed_while_its_database_is),
        cmocka_unit_test(a_feed_is_done_with_its_database_when_it_leaves),
        cmocka_unit_test(a_forked_child_has_no_feeds),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(without_memory_nothing_is_lost),
        cmocka_unit_test(damage_is_told_and_not_passed),
        cmocka_unit_test(a_read_that_fails_may_be_tried_again),
        cmocka_unit_test(after_a_failed_sync_no_more_comes),
        cmocka_unit_test(a_read_only_database_has_feeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
