/*
 * A thread that stops in the middle of a scan of the hazard slots keeps no
 * block from the others, and its late answer does no harm.
 *
 * Reclamation is compiled into this test, with a scan that can be told to stop;
 * the linker then leaves the library's out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "buffer/buffer.h"

static void scan_and_stop(void *registry, uint64_t *places, size_t n);

#define bfti_hazard_unnamed scan_and_stop
#include "buffer/pool_limbo.c"
#undef bfti_hazard_unnamed

static pthread_barrier_t stopped, go_on;
static _Atomic bool stop_next; /* the next scan stops, once it has its answer */

static void scan_and_stop(void *registry, uint64_t *places, size_t n)
{
    bool stops = atomic_exchange(&stop_next, false);

    bfti_hazard_unnamed(registry, places, n);
    if (stops) {
        pthread_barrier_wait(&stopped);
        pthread_barrier_wait(&go_on);
    }
}

struct fixture {
    struct bfti_threads *threads;
    struct bfti_pool *pool;
    uint64_t taken; /* by the thread that stops */
    pthread_t thread;
};

enum { UNITS = 20, PAGES = 15 }; /* the pool is full with so many */

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct bfti_env *env = bfti_env_system();

    assert_non_null(f);
    assert_int_equal(bfti_threads_create(env, &f->threads), BFT_OK);
    assert_int_equal(
        bfti_pool_create(f->threads, env, UNITS * PAGES * BFTI_UNIT, &f->pool),
        BFT_OK);
    pthread_barrier_init(&stopped, NULL, 2);
    pthread_barrier_init(&go_on, NULL, 2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    pthread_barrier_destroy(&stopped);
    pthread_barrier_destroy(&go_on);
    bfti_pool_destroy(f->pool);
    bfti_threads_destroy(f->threads);
    free(f);
    return 0;
}

static size_t retired_pages(struct fixture *f)
{
    struct bfti_pool_stats stats;

    bfti_pool_stats(f->pool, &stats);
    return stats.retired_bytes / (UNITS * BFTI_UNIT);
}

/* Fill the pool, and retire its first COUNT pages. */
static void fill_and_retire(struct fixture *f, uint64_t place[PAGES], int count)
{
    for (int i = 0; i < PAGES; i++) {
        place[i] = bfti_pool_alloc(f->pool, UNITS);
        assert_int_not_equal(place[i], 0);
        bfti_pool_publish(f->pool, place[i], (uint64_t)i);
    }
    for (int i = 0; i < count; i++)
        bfti_pool_retire(f->pool, place[i]);
    assert_true(bfti_pool_check(f->pool));
}

static void *alloc_and_stop(void *arg)
{
    struct fixture *f = arg;

    f->taken = bfti_pool_alloc(f->pool, UNITS);
    return NULL;
}

static void stop_a_scan(struct fixture *f)
{
    atomic_store(&stop_next, true);
    assert_int_equal(pthread_create(&f->thread, NULL, alloc_and_stop, f), 0);
    pthread_barrier_wait(&stopped);
}

static void let_it_go_on(struct fixture *f)
{
    pthread_barrier_wait(&go_on);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
}

static void a_stopped_scan_keeps_nothing_back(void **state)
{
    struct fixture *f = *state;
    uint64_t place[PAGES];

    fill_and_retire(f, place, PAGES);
    stop_a_scan(f);
    for (int i = 0; i < PAGES - 1; i++)
        assert_int_not_equal(bfti_pool_alloc(f->pool, UNITS), 0);
    assert_true(bfti_pool_check(f->pool));
    let_it_go_on(f);
    /* It got the last one, as the blocks of its batch had been freed. */
    assert_int_not_equal(f->taken, 0);
    assert_true(bfti_pool_check(f->pool));
    assert_int_equal(bfti_pool_alloc(f->pool, UNITS), 0);
}

/* Its answer is about a block that was reused since, and retired again, and is
 * named now. */
static void a_late_answer_is_not_taken_for_the_next_retirement(void **state)
{
    struct fixture *f = *state;
    struct bfti_rec *rec = bfti_rec_current(f->threads);
    uint64_t place[PAGES];
    uint64_t again;

    fill_and_retire(f, place, 1);
    stop_a_scan(f); /* with the answer: the one block is not named */
    again = bfti_pool_alloc(f->pool, UNITS);
    assert_int_equal(bfti_memory_offset(again), bfti_memory_offset(place[0]));
    bfti_pool_publish(f->pool, again, 1);
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, again);
    bfti_pool_retire(f->pool, again);

    let_it_go_on(f);
    assert_int_equal(f->taken, 0);
    assert_int_equal(retired_pages(f), 1);
    assert_true(bfti_pool_check(f->pool));
    bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
    assert_int_not_equal(bfti_pool_alloc(f->pool, UNITS), 0);
}

/* Nor for a block that starts one unit on. */
static void a_late_answer_is_not_taken_for_a_neighbour(void **state)
{
    struct fixture *f = *state;
    struct bfti_rec *rec = bfti_rec_current(f->threads);
    uint64_t place[PAGES], first, next;

    fill_and_retire(f, place, 1);
    stop_a_scan(f);
    first = bfti_pool_alloc(f->pool, 3);
    next = bfti_pool_alloc(f->pool, UNITS - 3);
    assert_int_equal(bfti_memory_offset(next),
                     bfti_memory_offset(place[0]) + 3 * BFTI_UNIT);
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, next);
    bfti_hazard_set(rec, BFTI_HAZARD_FROZEN, first);
    bfti_pool_publish(f->pool, next, 1);
    bfti_pool_publish(f->pool, first, 2);
    bfti_pool_retire(f->pool, next);
    bfti_pool_retire(f->pool, first);
    let_it_go_on(f);
    assert_int_equal(f->taken, 0);
    assert_true(bfti_pool_check(f->pool));
    bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
    bfti_hazard_clear(rec, BFTI_HAZARD_FROZEN);
}

/* Evictors wait for free bytes, and the one scan under way has stopped. */
static void retired_blocks_stay_few_behind_a_stopped_scan(void **state)
{
    struct fixture *f = *state;
    uint64_t place[PAGES];

    fill_and_retire(f, place, 1);
    stop_a_scan(f);
    for (int i = 1; i < PAGES; i++) {
        uint64_t victim;
        uint64_t id;

        bfti_pool_retire(f->pool, place[i]);
        (void)bfti_pool_victim(f->pool, &victim, &id);
        assert_true(retired_pages(f) <= 3);
    }
    let_it_go_on(f);
    assert_true(bfti_pool_check(f->pool));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_stopped_scan_keeps_nothing_back),
        T(a_late_answer_is_not_taken_for_the_next_retirement),
        T(a_late_answer_is_not_taken_for_a_neighbour),
        T(retired_blocks_stay_few_behind_a_stopped_scan),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
