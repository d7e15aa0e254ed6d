/*
 * The pool's heap: memory for what is no page, from the end of the pool's own,
 * which pages make room for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/buffer.h"
#include "random.h"

enum { BUDGET = 1 << 20, ZONE = 16 << 10 };

static struct bfti_threads *threads;
static struct bfti_pool *pool;
static const struct bfti_env *heap;

static int setup(void **state)
{
    (void)state;
    random_start();
    assert_int_equal(bfti_threads_create(bfti_env_system(), &threads), BFT_OK);
    assert_int_equal(
        bfti_pool_create(threads, bfti_env_system(), BUDGET, &pool), BFT_OK);
    heap = bfti_pool_heap(pool);
    assert_true(bfti_pool_check(pool));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_true(bfti_pool_check(pool));
    bfti_pool_destroy(pool);
    bfti_threads_destroy(threads);
    return 0;
}

static struct bfti_pool_stats stats_of(void)
{
    struct bfti_pool_stats stats;

    assert_true(bfti_pool_check(pool));
    bfti_pool_stats(pool, &stats);
    return stats;
}

static uint64_t page_new(unsigned units, uint64_t id)
{
    uint64_t place = bfti_pool_alloc(pool, units);

    if (place != 0)
        bfti_pool_publish(pool, place, id);
    return place;
}

/* Pages until there is no room for another one; how many. */
static uint64_t fill(unsigned units)
{
    uint64_t id = 1;

    while (page_new(units, id) != 0)
        id++;
    return id - 1;
}

static void evict(void)
{
    uint64_t place, id;

    assert_true(bfti_pool_victim(pool, &place, &id));
    bfti_pool_retire(pool, place);
}

/* --- tests ---------------------------------------------------------------- */

static void blocks_come_from_the_pool_and_count(void **state)
{
    void *first = bfti_alloc(heap, 1);
    struct bfti_pool_stats before = stats_of();
    void *block = bfti_alloc(heap, 5000);
    uint8_t *longer;

    (void)state;
    assert_non_null(first);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 16, 0);
    memset(block, 7, 5000);
    /* Of a zone that the pages have lost already. */
    assert_int_equal(stats_of().free_bytes, before.free_bytes);
    assert_int_equal(bfti_pool_outside(pool), 0);
    longer = bfti_realloc(heap, block, 9000);
    assert_non_null(longer);
    assert_int_equal(longer[0], 7);
    assert_int_equal(longer[4999], 7);
    memset(longer, 8, 9000);
    assert_true(bfti_pool_check(pool));
    bfti_free(heap, longer);
    bfti_free(heap, first);
    bfti_free(heap, NULL);
    assert_true(before.free_bytes <= BUDGET - ZONE);
}

static void what_no_block_is_long_enough_for_comes_from_outside(void **state)
{
    size_t bytes = 40000;
    uint8_t *block = bfti_alloc(heap, bytes);

    (void)state;
    assert_non_null(block);
    memset(block, 3, bytes);
    assert_true(bfti_pool_outside(pool) >= bytes);
    block = bfti_realloc(heap, block, 2 * bytes);
    assert_non_null(block);
    assert_int_equal(block[bytes - 1], 3);
    assert_true(bfti_pool_outside(pool) >= 2 * bytes);
    block = bfti_realloc(heap, block, 100);
    assert_non_null(block);
    assert_int_equal(block[99], 3);
    bfti_free(heap, block);
    assert_int_equal(bfti_pool_outside(pool), 0);
}

/* All of the pool is pages: what the heap wants meanwhile comes from outside, and
 * later from where eviction made room. */
static void pages_make_room_for_the_heap(void **state)
{
    void *block[64];
    unsigned n = 0;
    uint64_t pages = fill(20), evicted = 0;
    size_t outside;

    (void)state;
    while (bfti_pool_outside(pool) == 0) {
        assert_true(n < 64);
        block[n] = bfti_alloc(heap, 3000);
        assert_non_null(block[n++]);
    }
    assert_true(bfti_pool_vacating(pool));
    /* Every second victim is of the zone. */
    for (; bfti_pool_vacating(pool); evicted++) {
        assert_true(evicted < 4 * ZONE / (20 * BFTI_UNIT) + 200);
        evict();
    }
    assert_true(pages > evicted);
    assert_true(bfti_pool_check(pool));
    outside = bfti_pool_outside(pool);
    block[n] = bfti_alloc(heap, 3000);
    assert_non_null(block[n++]);
    assert_int_equal(bfti_pool_outside(pool), outside);
    while (n > 0)
        bfti_free(heap, block[--n]);
}

/* A page of which the zone has a part only goes as those within do: else one page
 * in use would keep the zone waiting for as long as it is in use. */
static void zone_of_pages_ends(unsigned units)
{
    const size_t pages = ZONE / (units * BFTI_UNIT);
    void *block[64];
    unsigned n = 0;

    assert_true(fill(units) > 8 * pages);
    while (!bfti_pool_vacating(pool)) {
        assert_true(n < 64);
        block[n] = bfti_alloc(heap, 1000);
        assert_non_null(block[n++]);
    }
    for (size_t evicted = 0; bfti_pool_vacating(pool); evicted++) {
        assert_true(evicted < 4 * pages);
        evict();
    }
    while (n > 0)
        bfti_free(heap, block[--n]);
}

static void a_page_across_the_limit_is_evicted_too(void **state)
{
    zone_of_pages_ends(5);
    for (unsigned units = 7; units <= 13; units += 2) {
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
        zone_of_pages_ends(units);
    }
}

/* A page that a reader names, or that nobody has published yet, keeps its zone;
 * no new one is put there. */
static void a_zone_waits_for_the_last_of_its_blocks(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(threads);
    uint64_t last = 0, place, id;
    void *block[64];
    unsigned n = 0;

    (void)state;
    for (id = 1; (place = page_new(20, id)) != 0; id++)
        if (bfti_memory_offset(place) > bfti_memory_offset(last))
            last = place;
    bfti_hazard_set(rec, 0, last);
    while (!bfti_pool_vacating(pool)) {
        assert_true(n < 64);
        block[n] = bfti_alloc(heap, 3000);
        assert_non_null(block[n++]);
    }
    for (int i = 0; i < 1500; i++) {
        if (!bfti_pool_victim(pool, &place, &id))
            break;
        bfti_pool_retire(pool, place);
    }
    assert_true(bfti_pool_vacating(pool));
    assert_int_equal(((uint8_t *)bfti_pool_at(pool, last))[0],
                     ((uint8_t *)bfti_pool_at(pool, last))[0]);
    bfti_hazard_clear(rec, 0);
    /* What was named is compared again when room is wanted. */
    (void)fill(20);
    assert_false(bfti_pool_vacating(pool));
    while (n > 0)
        bfti_free(heap, block[--n]);
}

static void half_of_the_pool_stays_the_pages(void **state)
{
    enum { MANY = 600 };
    static void *block[MANY];
    struct bfti_pool_stats stats;

    (void)state;
    for (int i = 0; i < MANY; i++) {
        block[i] = bfti_alloc(heap, 2000);
        assert_non_null(block[i]);
    }
    stats = stats_of();
    assert_true(stats.free_bytes >= BUDGET / 2 - ZONE);
    assert_true(bfti_pool_outside(pool) >= MANY * 2000 - BUDGET / 2 - ZONE);
    /* Also from what is in use elsewhere, which the heap's half is for. */
    bfti_pool_elsewhere(pool, BUDGET);
    assert_true(bfti_pool_free_bytes(pool) >= BUDGET / 2 - ZONE);
    bfti_pool_elsewhere(pool, 0);
    for (int i = 0; i < MANY; i++)
        bfti_free(heap, block[i]);
    assert_int_equal(bfti_pool_outside(pool), 0);
}

static void random_blocks_never_overlap(void **state)
{
    enum { SLOTS = 200, STEPS = 20000 };
    static struct {
        uint8_t *bytes;
        size_t len;
        uint8_t mark;
    } slot[SLOTS];
    uint64_t id = 1;

    (void)state;
    for (int i = 0; i < STEPS; i++) {
        unsigned s = (unsigned)random_below(SLOTS);
        size_t len = 1 + (size_t)random_below(random_below(8) ? 900 : 9000);

        for (size_t at = 0; at < slot[s].len; at++)
            assert_int_equal(slot[s].bytes[at], slot[s].mark);
        if (slot[s].bytes != NULL && random_below(3) != 0) {
            bfti_free(heap, slot[s].bytes);
            slot[s].bytes = NULL;
            slot[s].len = 0;
            continue;
        }
        slot[s].bytes = bfti_realloc(heap, slot[s].bytes, len);
        assert_non_null(slot[s].bytes);
        if (slot[s].len != 0)
            assert_int_equal(slot[s].bytes[0], slot[s].mark);
        slot[s].len = len;
        slot[s].mark = (uint8_t)i;
        memset(slot[s].bytes, slot[s].mark, len);
        if (page_new(2 + (unsigned)random_below(60), id++) == 0)
            for (int victims = 0; victims < 8; victims++)
                evict();
        if (i % 500 == 0)
            assert_true(bfti_pool_check(pool));
    }
    for (int s = 0; s < SLOTS; s++)
        bfti_free(heap, slot[s].bytes);
}

static void a_small_pool_has_no_heap(void **state)
{
    struct bfti_pool *small;

    (void)state;
    assert_int_equal(
        bfti_pool_create(threads, bfti_env_system(), 64 << 10, &small), BFT_OK);
    assert_ptr_equal(bfti_pool_heap(small), bfti_env_system());
    bfti_pool_destroy(small);
}

int main(void)
{
#define HEAP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        HEAP_TEST(blocks_come_from_the_pool_and_count),
        HEAP_TEST(what_no_block_is_long_enough_for_comes_from_outside),
        HEAP_TEST(pages_make_room_for_the_heap),
        HEAP_TEST(a_page_across_the_limit_is_evicted_too),
        HEAP_TEST(a_zone_waits_for_the_last_of_its_blocks),
        HEAP_TEST(half_of_the_pool_stays_the_pages),
        HEAP_TEST(random_blocks_never_overlap),
        HEAP_TEST(a_small_pool_has_no_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
