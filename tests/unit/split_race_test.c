/*
 * A leaf that was split off is split in turn, before inner nodes know of the first
 * split.  They would lead past it then, with nobody at work on where they lead:
 * to readers that is damage, and writers take what inner nodes tell for the
 * range of a leaf on the disk.
 *
 * And a leaf is split, or absorbs another, while more comes to its page than there
 * was room for in what the thread has to list it with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "engine_fixture.h"
#include "fileio/fault.h"

enum {
    LEAF = 1024,
    KEYS = 160, /* of records on the disk, in steps of ten */
    LAST = KEYS - 1,
    LONG = 160,
    SHORT = 40,
};

#ifndef NDEBUG

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "key-%04u", i)};
}

static void put(bft_tree *tree, unsigned i, size_t len)
{
    static const char value[LONG];
    char buf[16];
    expect_ok(bft_put(tree, key_of(buf, i), (bft_slice){value, len}));
}

static void get(bft_tree *tree, unsigned i)
{
    char buf[16], value[LONG];
    size_t len;
    expect_ok(bft_get(tree, key_of(buf, i), value, sizeof(value), &len));
}

static void get_all(bft_tree *tree)
{
    for (unsigned i = 0; i < KEYS; i += 10)
        get(tree, i);
    for (unsigned i = 5; i < KEYS; i += 30)
        get(tree, i);
    for (unsigned i = 71; i < 76; i++)
        get(tree, i);
}

static void evict_all(struct engine_fixture *f)
{
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    bool done;
    for (unsigned i = 0; i < 400; i++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

/* Where the thread that splits is, or may go on to. */
enum { MERGES, MERGE_READY, MAY_SPLIT, SPLIT_PUBLISHED, MAY_END };

static _Atomic unsigned stage;
static _Thread_local bool splits;

static _Atomic bool writes; /* another has chosen a leaf */

static void reach(unsigned now, unsigned next)
{
    atomic_store(&stage, now);
    while (atomic_load(&stage) != next)
        sched_yield();
}

static void await(unsigned now)
{
    while (atomic_load(&stage) != now)
        sched_yield();
}

static void stop_here(const char *point)
{
    if (strcmp(point, "write:leaf-chosen") == 0 &&
        atomic_load(&stage) == SPLIT_PUBLISHED)
        atomic_store(&writes, true);
    if (!splits)
        return;
    if (atomic_load(&stage) == MERGES && strcmp(point, "merge:ready") == 0)
        reach(MERGE_READY, MAY_SPLIT);
    else if (atomic_load(&stage) == MAY_SPLIT &&
             strcmp(point, "merge:split-published") == 0)
        reach(SPLIT_PUBLISHED, MAY_END);
}

static void *split_main(void *f)
{
    splits = true;
    evict_all(f);
    return NULL;
}

static void *write_main(void *tree)
{
    put(tree, LAST, SHORT);
    return NULL;
}

static void a_split_is_known_before_the_next_begins(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    pthread_t splitter, writer;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i < KEYS; i += 10)
        put(tree, i, SHORT);
    evict_all(f); /* one leaf, on the disk */
    for (unsigned i = 5; i < KEYS; i += 30)
        put(tree, i, LONG);
    atomic_store(&bfti_park, stop_here);
    assert_int_equal(0, pthread_create(&splitter, NULL, split_main, f));
    await(MERGE_READY);
    /* To what will be the middle of three, more than it has room for. */
    for (unsigned i = 71; i < 76; i++)
        put(tree, i, LONG);
    atomic_store(&stage, MAY_SPLIT);
    await(SPLIT_PUBLISHED);
    evict_all(f); /* the middle, too, if it may */
    get_all(tree);
    /* To the last of three.  It waits until the tree leads there, or writes. */
    assert_int_equal(0, pthread_create(&writer, NULL, write_main, tree));
    while (!atomic_load(&writes))
        sched_yield();
    atomic_store(&stage, MAY_END);
    (void)pthread_join(splitter, NULL);
    (void)pthread_join(writer, NULL);
    atomic_store(&bfti_park, NULL);
    evict_all(f);
    assert_true(engine_stats(f).splits >= 4); /* of both leaves, into three */
    get_all(tree);
    get(tree, LAST);
    expect_ok(bft_verify(f->db));
    engine_reopen(f);
    tree = engine_tree(f, "t", LEAF);
    get_all(tree);
    get(tree, LAST);
    engine_fixture_free(f);
}

/* --- more than the lists have room for ------------------------------------- */

enum { BIG_LEAF = 4096, BIG = 900, FEW = 90, MANY = 60 };

static bft_tree *crowded;
static unsigned crowds; /* times that it was stopped */

static void put_bytes(unsigned i, size_t len)
{
    static const char value[BIG];
    char buf[16];
    expect_ok(bft_put(crowded, key_of(buf, i), (bft_slice){value, len}));
}

static void *put_one(void *arg)
{
    (void)arg;
    put_bytes(1000, FEW); /* a page, with room for more than as many again */
    return NULL;
}

static void *put_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < MANY; i++)
        put_bytes(2000 + i, 1);
    return NULL;
}

/* By another thread, as each has lists of its own. */
static void elsewhere(void *(*what)(void *))
{
    pthread_t thread;
    crowds++;
    assert_int_equal(0, pthread_create(&thread, NULL, what, NULL));
    assert_int_equal(0, pthread_join(thread, NULL));
}

static void crowd_split(const char *point)
{
    if (crowds == 0 && strcmp(point, "merge:named") == 0)
        elsewhere(put_one);
    else if (crowds == 1 && strcmp(point, "merge:ready") == 0)
        elsewhere(put_many);
}

static void crowd_absorb(const char *point)
{
    if (crowds < 2 && strcmp(point, "absorb:written") == 0)
        elsewhere(crowds ? put_many : put_one);
}

static void expect_records(size_t expected)
{
    bft_cursor *cursor;
    size_t n = 0;
    bft_status status;
    expect_ok(bft_cursor_open(crowded, &cursor));
    status = bft_cursor_first(cursor);
    for (; status == BFT_OK; status = bft_cursor_next(cursor))
        n++;
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    assert_int_equal(expected, n);
}

static struct engine_fixture *begin_crowd(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    engine_open(f);
    crowded = engine_tree(f, "t", BIG_LEAF);
    crowds = 0;
    return f;
}

static void end_crowd(struct engine_fixture *f, size_t expected)
{
    expect_records(expected);
    expect_ok(bft_verify(f->db));
    engine_reopen(f);
    crowded = engine_tree(f, "t", BIG_LEAF);
    expect_records(expected);
    engine_fixture_free(f);
}

static void a_split_takes_in_what_came_meanwhile(void **state)
{
    struct engine_fixture *f = begin_crowd();
    (void)state;
    for (unsigned i = 0; i < 40; i += 10)
        put_bytes(i, BIG);
    evict_all(f);
    for (unsigned i = 5; i < 35; i += 10)
        put_bytes(i, BIG);
    atomic_store(&bfti_park, crowd_split);
    evict_all(f);
    atomic_store(&bfti_park, NULL);
    assert_int_equal(2, crowds);
    assert_true(engine_stats(f).splits > 0);
    end_crowd(f, 7 + 1 + MANY);
}

static uint64_t first_leaf(struct bfti_rec *rec)
{
    char buf[16];
    uint64_t id;
    bfti_read_begin(rec);
    id = bfti_inner_find(bfti_tree_root(bfti_handle_follow(crowded)),
                         key_of(buf, 0));
    bfti_read_end(rec);
    return id;
}

static void an_absorption_takes_in_what_came_meanwhile(void **state)
{
    struct engine_fixture *f = begin_crowd();
    struct bfti_engine *engine = f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool done = false;
    uint64_t first;
    char buf[16];
    (void)state;
    for (unsigned i = 0; i < 30; i += 5)
        put_bytes(i, BIG);
    evict_all(f);
    bfti_mutex_lock(engine->env,
                    &engine->sweep_lock); /* or it is done already */
    for (unsigned i = 5; i < 30; i += 5)
        expect_ok(bft_delete(crowded, key_of(buf, i)));
    evict_all(f);
    assert_int_equal(2, engine_stats(f).leaves);
    first = first_leaf(rec);
    atomic_store(&bfti_park, crowd_absorb);
    for (unsigned i = 0; i < 5 && !done; i++)
        expect_ok(bfti_absorb(&engine->buffer, rec, first, BIG_LEAF, &done));
    atomic_store(&bfti_park, NULL);
    bfti_mutex_unlock(engine->env, &engine->sweep_lock);
    assert_int_equal(2, crowds);
    assert_true(done);
    end_crowd(f, 1 + 1 + MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_is_known_before_the_next_begins),
        cmocka_unit_test(a_split_takes_in_what_came_meanwhile),
        cmocka_unit_test(an_absorption_takes_in_what_came_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
