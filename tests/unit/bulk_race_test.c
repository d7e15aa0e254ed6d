/*
 * Bulk loads beside other threads: a writer that comes at any step of a load is
 * not lost, and readers see all of what is loaded or nothing of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "bulk_source.h"
#include "random.h"

static const bft_slice NONE = {NULL, 0};

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

/* --- a writer at a step of the load ---------------------------------------- */

#ifndef NDEBUG

static struct {
    const char *point;
    bft_tree *tree;
    bool deletes, beside;
    unsigned times;
    pthread_t loader, thread;
    _Atomic bool chosen, joined;
} at_point;

static void *write_at_point(void *arg)
{
    (void)arg;
    expect_ok(bft_put(at_point.tree, text_slice("z"), text_slice("kept")));
    if (at_point.deletes)
        expect_ok(bft_delete(at_point.tree, text_slice("z")));
    return NULL;
}

static void join_writer(void)
{
    (void)pthread_join(at_point.thread, NULL);
    atomic_store(&at_point.joined, true);
}

/* A writer that comes while the latches are held waits for one of them; its
 * page is in memory, as nothing else would let it write.  It writes when they
 * are free. */
static void hook(const char *point)
{
    if (!pthread_equal(pthread_self(), at_point.loader)) {
        if (strcmp(point, "write:leaf-chosen") == 0)
            atomic_store(&at_point.chosen, true);
        return;
    }
    if (at_point.beside && strcmp(point, "bulk:in-image") == 0) {
        expect_ok(bft_put(at_point.tree, text_slice("y"), NONE));
        expect_ok(bft_delete(at_point.tree, text_slice("y")));
    }
    if (at_point.beside && at_point.times && !atomic_load(&at_point.joined) &&
        strcmp(point, "bulk:unlatched") == 0)
        join_writer();
    if (strcmp(point, at_point.point) != 0 || at_point.times++)
        return;
    if (!at_point.beside) {
        (void)write_at_point(NULL);
        return;
    }
    assert_int_equal(
        0, pthread_create(&at_point.thread, NULL, write_at_point, NULL));
    while (!atomic_load(&at_point.chosen))
        (void)sched_yield();
}

/* Up to the last look the tree has to be empty; behind it a writer waits, and
 * writes to the loaded tree: what it wrote is never lost. */
static void a_write_at_any_step_counts(void **state)
{
    static const struct {
        const char *point;
        bool deletes, beside;
        bft_status status;
    } cases[] = {
        {"bulk:leaves-written", false, false, BFT_EXISTS},
        {"bulk:written", false, false, BFT_EXISTS},
        {"bulk:published", false, false, BFT_EXISTS},
        {"bulk:in-image", false, false, BFT_EXISTS},
        {"bulk:in-image", true, false, BFT_OK},
        {"bulk:found-empty", false, false, BFT_EXISTS},
        {"bulk:found-empty", true, false, BFT_OK},
        {"bulk:latched", false, true, BFT_OK},
        {"bulk:logged", false, true, BFT_OK},
        {"bulk:named", false, true, BFT_OK},
        {"drop:root-taken", false, true, BFT_OK},
        {"drop:leaf-taken", false, true, BFT_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct bulk_source s = {.count = 1000, .leaf_bytes = 512};
        char value[16];
        size_t len;
        f->options.no_threads = true;
        engine_open(f);
        at_point.point = cases[i].point;
        at_point.tree = engine_tree(f, "t", 512);
        at_point.deletes = cases[i].deletes;
        at_point.beside = cases[i].beside;
        at_point.times = 0;
        at_point.loader = pthread_self();
        atomic_store(&at_point.chosen, false);
        atomic_store(&at_point.joined, false);
        atomic_store(&bfti_park, hook);
        expect_status(cases[i].status, bulk_try(at_point.tree, &s));
        atomic_store(&bfti_park, NULL);
        assert_true(at_point.times > 0);
        if (cases[i].beside && !atomic_load(&at_point.joined))
            join_writer();
        for (unsigned again = 0; again < 2; again++) {
            bft_tree *tree = engine_tree(f, "t", 512);
            expect_status(cases[i].deletes ? BFT_NOT_FOUND : BFT_OK,
                          bft_get(tree, text_slice("z"), value, 16, &len));
            assert_int_equal((cases[i].status ? 0 : s.count) +
                                 !cases[i].deletes,
                             bulk_count(tree));
            expect_ok(bft_verify(f->db));
            engine_crash(f, BFTI_SIM_KILL, i);
        }
        bulk_free(&s);
        engine_fixture_free(f);
    }
}

#endif

/* --- threads -------------------------------------------------------------- */

struct others {
    struct engine_fixture *f;
    bft_tree *tree, *other;
    unsigned number;
    _Atomic bool stop;
    pthread_t thread;
};

static void must(bft_status expected, bft_status status)
{
    char text[300];
    if (status == expected)
        return;
    (void)bft_last_error(text, sizeof(text));
    (void)fprintf(stderr, "status %d: %s\n", (int)status, text);
    abort();
}

/* What was acknowledged is there until it is removed, in the tree that is being
 * loaded too. */
static void *write_main(void *arg)
{
    struct others *o = arg;
    bft_batch *batch;
    must(BFT_OK, bft_batch_create(o->f->db, &batch));
    for (uint64_t i = 0; !atomic_load(&o->stop); i++) {
        char key[32], value[100];
        size_t len;
        (void)snprintf(key, sizeof(key), "z%u-%llu", o->number,
                       (unsigned long long)i);
        if (i % 3 == 0) {
            must(BFT_OK, bft_batch_put(batch, o->tree, text_slice(key),
                                       text_slice("batch")));
            must(BFT_OK, bft_batch_put(batch, o->other, text_slice(key),
                                       text_slice("batch")));
            must(BFT_OK, bft_batch_commit(batch, BFT_NONE, NULL));
        } else {
            must(BFT_OK,
                 bft_insert(o->tree, text_slice(key), text_slice("insert")));
        }
        must(BFT_OK, bft_get(o->tree, text_slice(key), value, 100, &len));
        must(BFT_OK, bft_delete(o->tree, text_slice(key)));
        must(BFT_NOT_FOUND,
             bft_get(o->tree, text_slice(key), value, 100, &len));
        for (unsigned n = 0; n < 20; n++)
            must(BFT_OK, bft_put(o->other, text_slice(key), text_slice(value)));
    }
    bft_batch_free(batch);
    return NULL;
}

/* Either nothing of what is loaded is seen, or all of it. */
static void *read_main(void *arg)
{
    struct others *o = arg;
    char first[32], last[32];
    (void)snprintf(first, sizeof(first), "%016u", 0);
    (void)snprintf(last, sizeof(last), "%016u", 4999);
    while (!atomic_load(&o->stop)) {
        char value[100];
        size_t len;
        uint64_t count;
        bool there =
            bft_get(o->tree, text_slice(first), value, 100, &len) == BFT_OK;
        bft_status status =
            bft_get(o->tree, text_slice(last), value, 100, &len);
        if (there)
            must(BFT_OK, status);
        must(BFT_OK, bft_count(o->tree, NONE, text_slice("a"), &count));
        if (count != 0 && count != 5000)
            abort();
    }
    return NULL;
}

static void loads_beside_readers_and_writers(void **state)
{
    enum { OTHERS = 3, ROUNDS = 12 };
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    unsigned loaded = 0;
    (void)state;
    f->options.memory_bytes = 1 << 20;
    engine_open(f);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct bulk_source s = {.count = 5000, .leaf_bytes = 512};
        struct others o[OTHERS];
        uint64_t count;
        bft_status status;
        char name[16];
        (void)snprintf(name, sizeof(name), "t%u", round);
        for (unsigned i = 0; i < OTHERS; i++) {
            memset(&o[i], 0, sizeof(o[i]));
            o[i].f = f;
            o[i].tree = engine_tree(f, name, 512);
            o[i].other = engine_tree(f, "other", 512);
            o[i].number = i;
            assert_int_equal(0,
                             pthread_create(&o[i].thread, NULL,
                                            i ? write_main : read_main, &o[i]));
        }
        status = bulk_try(o[0].tree, &s);
        for (unsigned i = 0; i < OTHERS; i++)
            atomic_store(&o[i].stop, true);
        for (unsigned i = 0; i < OTHERS; i++)
            (void)pthread_join(o[i].thread, NULL);
        if (status != BFT_EXISTS && status != BFT_BUSY)
            expect_ok(status);
        loaded += status == BFT_OK;
        count = bulk_count(o[0].tree);
        assert_int_equal(status == BFT_OK ? 5000 : 0, count);
        expect_ok(bft_verify(f->db));
        if (round % 4 == 0) {
            engine_crash(f, BFTI_SIM_KILL, round);
            assert_int_equal(count, bulk_count(engine_tree(f, name, 512)));
            expect_ok(bft_verify(f->db));
        }
        bulk_free(&s);
    }
    print_message("           loaded %u of %u\n", loaded, (unsigned)ROUNDS);
    engine_fixture_free(f);
}
int main(void)
{
    const struct CMUnitTest tests[] = {
#ifndef NDEBUG
        cmocka_unit_test(a_write_at_any_step_counts),
#endif
        cmocka_unit_test(loads_beside_readers_and_writers),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
