/* When a checkpoint is due for the space that waits for one, and when not. */
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

#include "engine_fixture.h"

enum { KEYS = 40, ROUNDS = 12, MANY_ROUNDS = 400, VALUE = 100 };

static uint64_t checkpoints(struct engine_fixture *f)
{
    return engine_stats(f).checkpoints;
}

/* A step of what the background does when it is time for it. */
static void step(struct engine_fixture *f)
{
    struct bfti_engine *engine = f->db->engine;
    bfti_background_run(engine, bfti_rec_current(engine->buffer.threads));
}

static void evict_all(struct engine_fixture *f)
{
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    bool done;
    for (unsigned i = 0; i < 4 * KEYS; i++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

static void put_all(bft_tree *tree)
{
    static const uint8_t value[VALUE];
    char text[16];
    for (int i = 0; i < KEYS; i++) {
        bft_slice key = {text, (size_t)snprintf(text, sizeof(text), "%04d", i)};
        expect_ok(bft_put(tree, key, (bft_slice){value, VALUE}));
    }
}

/* Each image replaces blocks of the one before it, which wait for the next; with
 * a small log that alone is more than may wait. */
static void nothing_is_due_in_an_idle_database(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    uint64_t before;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 32 << 10;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < 4; i++) {
        put_all(tree);
        expect_ok(bft_checkpoint(f->db));
    }
    step(f); /* what is due for the puts */
    before = checkpoints(f);
    for (unsigned i = 0; i < ROUNDS; i++)
        step(f);
    assert_int_equal(before, checkpoints(f));
    engine_fixture_free(f);
}

/* Without threads who writes is told, as bftree.h says. */
static void while_images_fail_who_makes_them_is_told(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    const struct bfti_sim_fault full = {.ops = BFTI_SIM_WRITE,
                                        .path = "/db/data",
                                        .nth = 1,
                                        .sticky = true,
                                        .harm = BFTI_SIM_REFUSE,
                                        .status = BFT_NO_SPACE};
    bft_status status = BFT_OK;
    bft_tree *tree;
    uint64_t count;
    unsigned n;
    (void)state;
    f->options.memory_bytes = 16 << 20;
    f->options.no_threads = true;
    f->tolerated = BFT_NO_SPACE;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    bfti_sim_fail(f->vfs, &full);
    for (n = 0; status == BFT_OK && n < 100000; n++)
        status = bft_put(tree, (bft_slice){&n, sizeof(n)}, (bft_slice){"v", 1});
    expect_status(BFT_NO_SPACE, status);
    bfti_sim_heal(f->vfs);
    expect_ok(
        bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0}, &count));
    assert_int_equal(n - 1, count);
    expect_ok(bft_put(tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    engine_fixture_free(f);
}

/* Leaves that are written again and again do make one due, without any record
 * in the log that would. */
static void replaced_extents_make_one_due(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    uint64_t before;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 16 << 20; /* far away */
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    before = checkpoints(f);
    for (unsigned i = 0; i < MANY_ROUNDS && checkpoints(f) == before; i++) {
        put_all(tree);
        evict_all(f);
        expect_ok(bft_sync(f->db));
        step(f);
    }
    assert_true(checkpoints(f) > before);
    engine_fixture_free(f);
}

/* --- threads that begin without memory ------------------------------------ */

static _Thread_local bool is_test; /* this thread, and none of the engine's */
static _Atomic int refusals;       /* that others still get */
static void *(*alloc_behind)(void *ctx, size_t bytes);

static void *refusing_alloc(void *ctx, size_t bytes)
{
    if (!is_test && atomic_load(&refusals) > 0 &&
        atomic_fetch_sub(&refusals, 1) > 0)
        return NULL;
    return alloc_behind(ctx, bytes);
}

static unsigned waits; /* of the test's thread, 10 ms each at most */
static void (*wait_behind)(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                           uint64_t timeout_ns);

static void counting_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                          uint64_t timeout_ns)
{
    waits += is_test;
    wait_behind(ctx, word, expected, timeout_ns);
}

/* It is short for a moment, just when they are started; else nobody would make
 * checkpoints any more, and who writes would wait for them, 3,000 times. */
static void threads_that_find_no_memory_begin_later(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree *tree;
    (void)state;
    is_test = true;
    wait_behind = f->env.wait;
    f->env.wait = counting_wait;
    alloc_behind = f->env.alloc;
    f->env.alloc = refusing_alloc;
    atomic_store(&refusals, f->env.thread_start ? 2 : 0);
    engine_open(f);
    while (atomic_load(&refusals) > 0)
        f->env.yield(f->env.ctx);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < MANY_ROUNDS; i++) {
        waits = 0;
        put_all(tree);
        assert_true(waits < 2500);
    }
    assert_true(checkpoints(f) > 0);
    engine_fixture_free(f);
}

#ifndef NDEBUG

static struct {
    struct engine_fixture *f;
    bft_tree *tree;
    uint64_t checkpoints; /* by then */
} passing;

/* What others do meanwhile: the log goes on, and an image takes it. */
static void pass_by(const char *point)
{
    if (strcmp(point, "gate:redo-seen") != 0)
        return;
    atomic_store(&bfti_park, NULL);
    put_all(passing.tree);
    expect_ok(bft_checkpoint(passing.f->db));
    passing.checkpoints = checkpoints(passing.f);
}

/* Between its looks at the log's begin and end: the begin may be behind the end
 * that was there before, and then there is no log, and not the longest there is. */
static void a_log_that_an_image_takes_meanwhile_is_not_full(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    passing.f = f;
    passing.tree = engine_tree(f, "t", 0);
    put_all(passing.tree);
    expect_ok(bft_checkpoint(f->db));
    atomic_store(&bfti_park, pass_by);
    expect_ok(bft_put(passing.tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    assert_null(atomic_load(&bfti_park));
    assert_int_equal(passing.checkpoints, checkpoints(f));
    engine_fixture_free(f);
}

#endif

#ifndef NDEBUG

/* Who is where, or may go on to: an image that will be the last, a writer, and an
 * image after that. */
enum {
    BEGINS,
    LEAVES_SEEN,
    MARK_NOTED,
    MAY_END,
    MAY_ENTER,
    MARK_STORED,
    NEXT_BEGUN,
    MAY_GO_ON,
};
enum role { NOBODY, LAST, WRITER, NEXT };

static _Atomic unsigned stage;
static _Thread_local enum role role;

static void await(unsigned now)
{
    while (atomic_load(&stage) != now)
        sched_yield();
}

static void reach(unsigned now, unsigned next)
{
    atomic_store(&stage, now);
    await(next);
}

static void stop_here(const char *point)
{
    bool enters = role == WRITER && strcmp(point, "wal:entering") == 0;
    if (role == LAST && strcmp(point, "checkpoint:structure") == 0)
        reach(LEAVES_SEEN, MAY_END);
    else if (enters && atomic_load(&stage) == LEAVES_SEEN)
        reach(MARK_NOTED, MAY_ENTER);
    else if (enters && atomic_load(&stage) == MAY_ENTER)
        reach(MARK_STORED, MAY_GO_ON);
    else if (role == NEXT && strcmp(point, "flush:begun") == 0)
        atomic_store(&stage, NEXT_BEGUN);
}

struct part {
    enum role role;
    bft_tree *tree;
};

static void *play(void *arg)
{
    const struct part *part = arg;
    role = part->role;
    if (role == WRITER)
        put_all(part->tree);
    else
        expect_ok(bft_checkpoint(bft_tree_db(part->tree)));
    return NULL;
}

/* A writer is stopped before its slot has the mark that it noted, and once more
 * when it has, though an image has begun behind that.  It does not lead the next
 * one back, to where there may be no log. */
static void redo_never_begins_before_the_last_image(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct part last = {.role = LAST}, writer = {.role = WRITER},
                next = {.role = NEXT};
    pthread_t thread[3];
    uint64_t before;
    (void)state;
    f->options.no_threads = true;
    f->options.durability = BFT_NONE; /* frames wait for an image */
    engine_open(f);
    writer.tree = engine_tree(f, "u", 512);
    last.tree = next.tree = engine_tree(f, "t", 512);
    put_all(writer.tree);
    expect_ok(bft_checkpoint(f->db));
    put_all(last.tree);
    atomic_store(&stage, BEGINS);
    atomic_store(&bfti_park, stop_here);
    assert_int_equal(0, pthread_create(&thread[0], NULL, play, &last));
    await(LEAVES_SEEN);
    assert_int_equal(0, pthread_create(&thread[1], NULL, play, &writer));
    await(MARK_NOTED);
    atomic_store(&stage, MAY_END);
    assert_int_equal(0, pthread_join(thread[0], NULL));
    before = engine_stats(f).redo_lsn;
    atomic_store(&stage, MAY_ENTER);
    await(MARK_STORED);
    assert_int_equal(0, pthread_create(&thread[2], NULL, play, &next));
    await(NEXT_BEGUN);
    atomic_store(&stage, MAY_GO_ON);
    assert_int_equal(0, pthread_join(thread[1], NULL));
    assert_int_equal(0, pthread_join(thread[2], NULL));
    atomic_store(&bfti_park, NULL);
    assert_true(engine_stats(f).redo_lsn >= before);
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_DROP, 1);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_due_in_an_idle_database),
        cmocka_unit_test(while_images_fail_who_makes_them_is_told),
        cmocka_unit_test(replaced_extents_make_one_due),
        cmocka_unit_test(threads_that_find_no_memory_begin_later),
#ifndef NDEBUG
        cmocka_unit_test(a_log_that_an_image_takes_meanwhile_is_not_full),
        cmocka_unit_test(redo_never_begins_before_the_last_image),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
