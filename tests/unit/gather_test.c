/*
 * Who gathers memory for many pages has a turn at it, and loses it when it gets no
 * further and another waits: two that each hold half of what they need would
 * otherwise wait for each other until both give up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine_fixture.h"

enum { UNITS = 64, HELD_MAX = 4096 };

struct gatherer {
    struct bfti_buffer *buffer;
    struct bfti_gather turn;
    uint64_t held[HELD_MAX];
    size_t count;
};

static struct engine_fixture *open_small(struct gatherer *g, size_t n)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    f->options.no_threads = true;
    f->options.memory_bytes = 256 << 10;
    engine_open(f);
    memset(g, 0, n * sizeof(*g));
    for (size_t i = 0; i < n; i++) {
        g[i].buffer = &f->db->engine->buffer;
        g[i].turn.tries = 100;
    }
    return f;
}

static bft_status gather(struct gatherer *g)
{
    bft_status status =
        bfti_gather_alloc(g->buffer, bfti_rec_current(g->buffer->threads),
                          &g->turn, UNITS, &g->held[g->count]);
    if (status == BFT_OK) {
        assert_true(g->held[g->count] != 0);
        assert_true(++g->count < HELD_MAX);
    }
    return status;
}

static void *gather_once(void *arg)
{
    expect_ok(gather(arg));
    return NULL;
}

static void give_back(struct gatherer *g)
{
    while (g->count)
        bfti_pool_free(g->buffer->pool, g->held[--g->count]);
}

static void who_stands_still_loses_its_turn(void **state)
{
    static struct gatherer g[2];
    struct engine_fixture *f = open_small(g, 2);
    pthread_t thread;
    (void)state;
    expect_ok(gather(&g[0]));
    expect_ok(gather(&g[0]));
    assert_int_equal(0, pthread_create(&thread, NULL, gather_once, &g[1]));
    assert_int_equal(
        0, pthread_join(thread, NULL)); /* it does not wait for ever */
    expect_status(BFT_BUSY, gather(&g[0]));
    give_back(&g[0]);
    bfti_gather_end(g[1].buffer, &g[1].turn);
    expect_ok(gather(&g[0]));
    give_back(&g[0]);
    give_back(&g[1]);
    bfti_gather_end(g[0].buffer, &g[0].turn);
    assert_int_equal(0, atomic_load(&g[0].buffer->gatherer));
    engine_fixture_free(f);
}

/* One that had its turn taken does not end another's. */
static void a_lost_turn_ends_nobody_elses(void **state)
{
    static struct gatherer g[2];
    struct engine_fixture *f = open_small(g, 2);
    pthread_t thread;
    (void)state;
    expect_ok(gather(&g[0]));
    assert_int_equal(0, pthread_create(&thread, NULL, gather_once, &g[1]));
    assert_int_equal(0, pthread_join(thread, NULL));
    bfti_gather_end(g[0].buffer, &g[0].turn);
    expect_ok(gather(&g[1]));
    bfti_gather_end(g[1].buffer, &g[1].turn);
    give_back(&g[0]);
    give_back(&g[1]);
    engine_fixture_free(f);
}

/* Waits that are over at once, by a clock that only they move, 5 ms each. */
static _Atomic uint64_t waits;

static void wait_too_short(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                           uint64_t timeout_ns)
{
    (void)ctx, (void)word, (void)expected, (void)timeout_ns;
    atomic_fetch_add(&waits, 1);
}

static uint64_t clock_of_waits(void *ctx)
{
    (void)ctx;
    return atomic_load(&waits) * 5000000;
}

/* A wait that a signal ended, say, takes nobody's turn. */
static void who_does_not_stand_still_for_long_keeps_its_turn(void **state)
{
    static struct gatherer g[2];
    struct engine_fixture *f = open_small(g, 2);
    pthread_t thread;
    (void)state;
    expect_ok(gather(&g[0]));
    atomic_store(&waits, 0);
    f->env.wait = wait_too_short;
    f->env.now_ns = clock_of_waits;
    assert_int_equal(0, pthread_create(&thread, NULL, gather_once, &g[1]));
    assert_int_equal(0, pthread_join(thread, NULL));
    assert_in_range(atomic_load(&waits), 20, 40); /* 100 ms */
    bfti_gather_end(g[0].buffer, &g[0].turn);
    bfti_gather_end(g[1].buffer, &g[1].turn);
    give_back(&g[0]);
    give_back(&g[1]);
    engine_fixture_free(f);
}

static void more_than_there_is_fails(void **state)
{
    static struct gatherer g;
    struct engine_fixture *f = open_small(&g, 1);
    bft_status status;
    (void)state;
    do {
        status = gather(&g);
    } while (status == BFT_OK);
    expect_status(BFT_NO_MEMORY, status);
    assert_int_equal(0, g.turn.tries);
    give_back(&g);
    g.turn.tries = 1;
    expect_ok(gather(&g));
    give_back(&g);
    bfti_gather_end(g.buffer, &g.turn);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_stands_still_loses_its_turn),
        cmocka_unit_test(a_lost_turn_ends_nobody_elses),
        cmocka_unit_test(who_does_not_stand_still_for_long_keeps_its_turn),
        cmocka_unit_test(more_than_there_is_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
