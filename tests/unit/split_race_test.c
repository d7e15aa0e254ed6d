/*
 * A leaf that was split off is split in turn, before inner nodes know of the first
 * split.  They would lead past it then, with nobody at work on where they lead:
 * to readers that is damage, and writers take what inner nodes tell for the
 * range of a leaf on the disk.
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_is_known_before_the_next_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
