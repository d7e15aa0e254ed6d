/*
 * The pool: blocks that never overlap and always join again, the clock's
 * second chance, and retired blocks that stay as long as a slot names them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/buffer.h"
#include "random.h"

static struct bfti_env env;
static size_t allocs_left = SIZE_MAX;
static struct bfti_threads *threads;

static void *env_alloc(void *ctx, size_t bytes)
{
    if (allocs_left == 0)
        return NULL;
    if (allocs_left != SIZE_MAX)
        allocs_left--;
    return bfti_env_system()->alloc(ctx, bytes);
}

static int setup(void **state)
{
    (void)state;
    env = *bfti_env_system();
    env.alloc = env_alloc;
    random_start();
    assert_int_equal(bfti_threads_create(&env, &threads), BFT_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bfti_threads_destroy(threads);
    return 0;
}

static struct bfti_pool *pool_open(size_t budget_bytes)
{
    struct bfti_pool *pool;

    assert_int_equal(bfti_pool_create(threads, &env, budget_bytes, &pool),
                     BFT_OK);
    assert_true(bfti_pool_check(pool));
    return pool;
}

static struct bfti_pool_stats stats_of(struct bfti_pool *pool)
{
    struct bfti_pool_stats stats;

    bfti_pool_stats(pool, &stats);
    assert_int_equal(stats.budget_bytes,
                     stats.used_bytes + stats.free_bytes + stats.retired_bytes);
    assert_int_equal(stats.free_bytes, bfti_pool_free_bytes(pool));
    return stats;
}

static uint64_t page_new(struct bfti_pool *pool, unsigned units, uint64_t id)
{
    uint64_t place = bfti_pool_alloc(pool, units);

    assert_int_not_equal(place, 0);
    bfti_pool_publish(pool, place, id);
    return place;
}

/* --- sizes and places ------------------------------------------------------- */

static void a_class_is_the_smallest_with_room(void **state)
{
    const size_t most = BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD;
    unsigned last = 0;

    (void)state;
    for (size_t bytes = 0; bytes <= most; bytes++) {
        unsigned units = bfti_pool_class(bytes);

        assert_true(units >= 2 && units <= BFTI_UNITS_MAX);
        assert_true((size_t)units * BFTI_UNIT >= bytes + BFTI_BLOCK_HEAD);
        if (units != last) {
            /* The class below had no room for it, and is not far below. */
            assert_true(units > last);
            assert_true(last == 0 || (size_t)last * BFTI_UNIT ==
                                         bytes - 1 + BFTI_BLOCK_HEAD);
            if (last >= 16)
                assert_true(units * 1000 <= last * 1130);
            else if (last != 0)
                assert_int_equal(units, last + 1);
        }
        last = units;
    }
    assert_int_equal(last, BFTI_UNITS_MAX);
    assert_int_equal(bfti_pool_class(most + 1), 0);
    assert_int_equal(bfti_pool_class(SIZE_MAX), 0);
}

static void a_budget_is_checked(void **state)
{
    struct bfti_pool *pool;
    char text[200];

    (void)state;
    assert_int_equal(bfti_pool_create(threads, &env, 1023, &pool), BFT_INVALID);
    assert_null(pool);
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "1023"));
    /* As far as 32 bits count it is no more than there cannot be. */
    assert_int_equal(bfti_pool_create(threads, &env, SIZE_MAX, &pool),
                     SIZE_MAX > UINT32_MAX ? BFT_INVALID : BFT_NO_MEMORY);
    assert_null(pool);
    for (allocs_left = 0; allocs_left < 2;) {
        size_t room = allocs_left;
        assert_int_equal(bfti_pool_create(threads, &env, 4096, &pool),
                         BFT_NO_MEMORY);
        assert_null(pool);
        allocs_left = room + 1;
    }
    allocs_left = SIZE_MAX;

    pool = pool_open(1024);
    assert_int_equal(stats_of(pool).budget_bytes, 1024);
    assert_int_equal(bfti_pool_alloc(pool, BFTI_UNITS_MAX + 1), 0);
    bfti_pool_destroy(pool);
    bfti_pool_destroy(NULL);
}

/* What remains is too small for a page: the block keeps it and says so. */
static void a_place_tells_the_true_room(void **state)
{
    struct bfti_pool *pool = pool_open(4096);
    uint64_t a = bfti_pool_alloc(pool, 10);
    uint64_t wall = bfti_pool_alloc(pool, 2);
    uint64_t b;

    (void)state;
    assert_int_equal(bfti_memory_units(a), 10);
    assert_int_equal(bfti_memory_bytes(a), 10 * 32 - 16);
    assert_int_equal(bfti_place_tag(a), BFTI_TAG_MEMORY);
    bfti_pool_free(pool, a);
    b = bfti_pool_alloc(pool, 9);
    assert_int_equal(bfti_memory_offset(b), bfti_memory_offset(a));
    assert_int_equal(bfti_memory_units(b), 10);
    assert_int_not_equal(b, a); /* another generation */
    bfti_pool_free(pool, b);
    b = bfti_pool_alloc(pool, 8);
    assert_int_equal(bfti_memory_units(b), 8);
    assert_true(bfti_pool_check(pool));
    bfti_pool_free(pool, b);
    bfti_pool_free(pool, wall);
    assert_true(bfti_pool_check(pool));
    bfti_pool_destroy(pool);
}

/* Of 1024 free units 1023 are asked for: a place cannot say 1024. */
static void the_largest_block_leaves_one_unit(void **state)
{
    struct bfti_pool *pool = pool_open(1024 * BFTI_UNIT);
    uint64_t place = bfti_pool_alloc(pool, BFTI_UNITS_MAX);

    (void)state;
    assert_int_equal(bfti_memory_units(place), BFTI_UNITS_MAX);
    assert_int_equal(bfti_pool_free_bytes(pool), BFTI_UNIT);
    assert_true(bfti_pool_check(pool));
    memset(bfti_pool_at(pool, place), 0xaa, bfti_memory_bytes(place));
    assert_int_equal(bfti_pool_alloc(pool, 2), 0);
    bfti_pool_free(pool, place);
    assert_true(bfti_pool_check(pool));
    assert_int_equal(bfti_pool_longest_free(pool), 1024 * BFTI_UNIT);
    bfti_pool_destroy(pool);
}

/* --- blocks against a model ------------------------------------------------- */

enum { HELD_MAX = 3000 };
static struct held {
    uint64_t place;
    uint8_t fill;
} held[HELD_MAX];
static size_t held_count;

static void held_take(struct bfti_pool *pool, size_t i)
{
    uint64_t place = held[i].place;
    uint8_t *at = bfti_pool_at(pool, place);

    for (size_t k = 0; k < bfti_memory_bytes(place); k++)
        if (at[k] != held[i].fill)
            fail_msg("byte %zu of a block of %u units was overwritten", k,
                     bfti_memory_units(place));
    held[i] = held[--held_count];
    if (random_below(2) != 0) {
        bfti_pool_free(pool, place);
        return;
    }
    bfti_pool_publish(pool, place, 1);
    bfti_pool_retire(pool, place);
}

static bool held_add(struct bfti_pool *pool)
{
    unsigned units = random_below(8) != 0
                         ? bfti_pool_class(random_below(2000))
                         : 2 + (unsigned)random_below(BFTI_UNITS_MAX - 1);
    uint64_t place = bfti_pool_alloc(pool, units);

    if (place == 0)
        return false;
    assert_true(bfti_memory_units(place) >= units);
    assert_true(bfti_memory_units(place) <= units + 1);
    assert_int_equal((uintptr_t)bfti_pool_at(pool, place) % 16, 0);
    held[held_count].place = place;
    held[held_count].fill = (uint8_t)random_next();
    memset(bfti_pool_at(pool, place), held[held_count].fill,
           bfti_memory_bytes(place));
    held_count++;
    return true;
}

static void random_steps(struct bfti_pool *pool, int steps, size_t check_every)
{
    size_t goal = 0;

    for (int i = 0; i < steps; i++) {
        /* Breathe: fill up and drain in turns, fragments stay behind. */
        if (i % 3000 == 0)
            goal = random_below(HELD_MAX);
        if (held_count < goal ? random_below(4) != 0 : random_below(4) == 0) {
            if (held_count < HELD_MAX && !held_add(pool))
                goal = held_count / 2;
        } else if (held_count > 0) {
            held_take(pool, random_below(held_count));
        }
        if ((size_t)i % check_every == 0)
            assert_true(bfti_pool_check(pool));
    }
}

static void blocks_never_overlap_and_always_join(void **state)
{
    const size_t budgets[] = {1024, 40000, 900000, 3 << 20};

    (void)state;
    for (size_t b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
        struct bfti_pool *pool = pool_open(budgets[b]);
        uint64_t whole;

        held_count = 0;
        random_steps(pool, 20000, b < 2 ? 50 : 500);
        while (held_count > 0)
            held_take(pool, held_count - 1);
        /* One that cannot fit has all that is retired given back. */
        while ((whole = bfti_pool_alloc(pool, BFTI_UNITS_MAX)) != 0) {
            held[held_count].place = whole;
            held[held_count++].fill = 0;
            memset(bfti_pool_at(pool, whole), 0, bfti_memory_bytes(whole));
        }
        assert_int_equal(stats_of(pool).retired_bytes, 0);
        while (held_count > 0)
            bfti_pool_free(pool, held[--held_count].place);
        assert_true(bfti_pool_check(pool));
        assert_int_equal(stats_of(pool).used_bytes, 0);
        assert_int_equal(bfti_pool_longest_free(pool),
                         stats_of(pool).budget_bytes);
        bfti_pool_destroy(pool);
    }
}

/* Many free blocks of nearly the right size, of which one has it: found. */
static void a_block_that_fits_is_found_among_smaller_ones(void **state)
{
    struct bfti_pool *pool = pool_open(4096 * BFTI_UNIT);
    uint64_t small[40];
    uint64_t walls[41];
    uint64_t right;

    (void)state;
    right = bfti_pool_alloc(pool, 66);
    walls[40] = bfti_pool_alloc(pool, 2);
    for (int i = 0; i < 40; i++) {
        small[i] = bfti_pool_alloc(pool, 64);
        walls[i] = bfti_pool_alloc(pool, 2);
    }
    while (bfti_pool_alloc(pool, 2) != 0) {
    }
    bfti_pool_free(pool, right);
    for (int i = 0; i < 40; i++)
        bfti_pool_free(pool, small[i]);
    /* 64 to 67 units share a list; the one of 66 is at its far end. */
    right = bfti_pool_alloc(pool, 66);
    assert_int_not_equal(right, 0);
    assert_int_equal(bfti_memory_units(right), 66);
    assert_int_equal(bfti_pool_alloc(pool, 65), 0);
    assert_true(bfti_pool_check(pool));
    (void)walls;
    bfti_pool_destroy(pool);
}

static void readers_leave_a_part_to_writers(void **state)
{
    struct bfti_pool *pool = pool_open(32 * 1024);
    struct bfti_pool_stats stats;

    (void)state;
    while (bfti_pool_try_alloc(pool, 4) != 0) {
    }
    stats = stats_of(pool);
    assert_true(stats.free_bytes >= stats.budget_bytes / 16);
    assert_true(stats.free_bytes < stats.budget_bytes / 16 + 5 * BFTI_UNIT);
    assert_int_equal(bfti_pool_try_alloc(pool, BFTI_UNITS_MAX + 1), 0);
    assert_int_not_equal(bfti_pool_alloc(pool, 4), 0);
    bfti_pool_destroy(pool);
}

static void what_is_in_use_elsewhere_is_not_free(void **state)
{
    const size_t budget = 32 * 1024;
    struct bfti_pool *pool = pool_open(budget);
    size_t all = bfti_pool_free_bytes(pool);

    (void)state;
    assert_in_range(bfti_pool_budget(pool), budget - BFTI_UNIT, budget);
    bfti_pool_elsewhere(pool, budget / 4);
    assert_int_equal(bfti_pool_free_bytes(pool), all - budget / 4);
    assert_true(bfti_pool_has_half_for(pool, budget / 4 - BFTI_UNIT));
    assert_false(bfti_pool_has_half_for(pool, budget / 4 + BFTI_UNIT));
    /* Half is the pool's, whatever others have. */
    bfti_pool_elsewhere(pool, budget * 2);
    assert_in_range(bfti_pool_free_bytes(pool), all / 2, all / 2 + BFTI_UNIT);
    while (bfti_pool_try_alloc(pool, 4) != 0) {
    }
    assert_true(bfti_pool_free_bytes(pool) < all / 16 + 5 * BFTI_UNIT);
    /* Whoever must have it gets it. */
    for (size_t got = 0; got < all / 2 - 64 * BFTI_UNIT; got += 4 * BFTI_UNIT)
        assert_int_not_equal(bfti_pool_alloc(pool, 4), 0);
    assert_int_equal(bfti_pool_free_bytes(pool), 0);
    bfti_pool_elsewhere(pool, 0);
    assert_true(bfti_pool_free_bytes(pool) > 0);
    bfti_pool_destroy(pool);
}

#if defined(__SANITIZE_ADDRESS__)
enum { SHADOWED = 1 }; /* an eighth of the pool would be touched after all */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { SHADOWED = 1 };
#else
enum { SHADOWED = 0 };
#endif
#else
enum { SHADOWED = 0 };
#endif

/* Units that 32 bits cannot count.  Nothing but a few heads and table words is
 * touched. */
static void a_pool_beyond_32_bits_works(void **state)
{
    struct bfti_pool *pool = NULL;
    uint64_t place[4];

    (void)state;
    if (SHADOWED || sizeof(size_t) < 8 ||
        bfti_pool_create(threads, &env, (size_t)UINT64_C(0x2100000000),
                         &pool) != BFT_OK) {
        skip();
        return;
    }
    for (int i = 0; i < 4; i++)
        place[i] = bfti_pool_alloc(pool, 1000);
    for (int i = 0; i < 4; i++)
        bfti_pool_free(pool, place[i]);
    assert_int_equal(stats_of(pool).free_bytes, stats_of(pool).budget_bytes);
    bfti_pool_destroy(pool);
}

/* --- the clock ---------------------------------------------------------------- */

static void a_touched_page_gets_a_second_chance(void **state)
{
    struct bfti_pool *pool = pool_open(4096);
    uint64_t page[4];
    uint64_t place;
    uint64_t id;

    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        page[i] = page_new(pool, 4, 100 + i);
    /* All were just published: the first round clears, the second chooses. */
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, page[0]);
    assert_int_equal(id, 100);
    bfti_pool_touch(pool, page[1]);
    bfti_pool_touch(pool, page[1]);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, page[2]);
    assert_int_equal(id, 102);
    (void)page_new(pool, 4, 104);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, page[3]);
    /* The new page is passed over as well: it counts as just used. */
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, page[0]);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, page[1]);
    bfti_pool_destroy(pool);
}

static void the_clock_meets_published_pages_only(void **state)
{
    struct bfti_pool *pool = pool_open(4096);
    struct bfti_rec *rec = bfti_rec_current(threads);
    uint64_t private_page = bfti_pool_alloc(pool, 4);
    uint64_t retired = page_new(pool, 4, 1);
    uint64_t freed = bfti_pool_alloc(pool, 4);
    uint64_t last = bfti_pool_alloc(pool, 4);
    uint64_t place;
    uint64_t id;

    (void)state;
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, retired);
    bfti_pool_retire(pool, retired);
    bfti_pool_free(pool, freed);
    assert_false(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, 0);
    bfti_pool_publish(pool, last, (UINT64_C(1) << 48) - 1);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, last);
    assert_int_equal(id, (UINT64_C(1) << 48) - 1);
    bfti_pool_publish(pool, private_page, 7);
    assert_true(bfti_pool_victim(pool, &place, &id));
    bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
    assert_true(bfti_pool_check(pool));
    bfti_pool_destroy(pool);
}

static void the_hand_moves_to_the_front_of_a_joined_block(void **state)
{
    struct bfti_pool *pool = pool_open(4096);
    uint64_t a = page_new(pool, 4, 1);
    uint64_t b = page_new(pool, 4, 2);
    uint64_t place;
    uint64_t id;

    (void)state;
    (void)page_new(pool, 4, 3);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(place, a);
    /* It stands at B, which becomes a part of A's free space. */
    bfti_pool_retire(pool, a);
    bfti_pool_retire(pool, b);
    assert_int_equal(bfti_pool_alloc(pool, BFTI_UNITS_MAX), 0);
    assert_true(bfti_pool_check(pool));
    memset(bfti_pool_at(pool, bfti_pool_alloc(pool, 8)), 0xff, 200);
    assert_true(bfti_pool_victim(pool, &place, &id));
    assert_int_equal(id, 3);
    bfti_pool_destroy(pool);
}

/* Pages come and go, by the clock's choice, anywhere around the hand. */
static void the_hand_survives_what_happens_under_it(void **state)
{
    struct bfti_pool *pool = pool_open(64 * 1024);
    uint64_t place;
    uint64_t id;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint64_t page = bfti_pool_alloc(
            pool, bfti_pool_class(random_below(i % 1000 < 500 ? 300 : 3000)));

        if (page != 0)
            bfti_pool_publish(pool, page, (uint64_t)i);
        if (page == 0 || random_below(3) == 0) {
            if (bfti_pool_victim(pool, &place, &id))
                bfti_pool_retire(pool, place);
        }
        if (i % 100 == 0)
            assert_true(bfti_pool_check(pool));
    }
    bfti_pool_destroy(pool);
}

static void the_hand_goes_all_the_way_round(void **state)
{
    enum { PAGES = 20000 };
    struct bfti_pool *pool = pool_open(3 * PAGES * BFTI_UNIT);
    uint8_t *seen = calloc(PAGES, 1);
    uint64_t place;
    uint64_t id;

    (void)state;
    assert_non_null(seen);
    for (uint64_t i = 0; i < PAGES; i++)
        (void)page_new(pool, 2, i);
    for (int i = 0; i < PAGES; i++) {
        assert_true(bfti_pool_victim(pool, &place, &id));
        assert_true(id < PAGES && !seen[id]);
        seen[id] = 1;
        bfti_pool_retire(pool, place);
    }
    assert_false(bfti_pool_victim(pool, &place, &id));
    assert_true(bfti_pool_check(pool));
    free(seen);
    bfti_pool_destroy(pool);
}

/* --- retired blocks -------------------------------------------------------------- */

static void a_named_block_is_not_reused(void **state)
{
    struct bfti_pool *pool = pool_open(8192);
    struct bfti_rec *rec = bfti_rec_take(threads);
    uint64_t named = page_new(pool, 20, 1);
    uint64_t other = page_new(pool, 20, 2);
    uint64_t place;

    (void)state;
    memset(bfti_pool_at(pool, named), 0x5a, bfti_memory_bytes(named));
    bfti_hazard_set(rec, BFTI_HAZARD_FROZEN, named);
    bfti_pool_retire(pool, named);
    bfti_pool_retire(pool, other);
    bfti_pool_touch(pool, named); /* a reader may still do that */
    for (int i = 0; (place = bfti_pool_alloc(pool, 2)) != 0; i++) {
        assert_true(i < 1000);
        assert_true(bfti_memory_offset(place) >=
                        bfti_memory_offset(named) + 20 * BFTI_UNIT ||
                    bfti_memory_offset(place) + 2 * BFTI_UNIT <=
                        bfti_memory_offset(named));
        memset(bfti_pool_at(pool, place), 0xee, bfti_memory_bytes(place));
    }
    assert_int_equal(stats_of(pool).retired_bytes, 20 * BFTI_UNIT);
    for (size_t i = 0; i < bfti_memory_bytes(named); i++)
        assert_int_equal(((uint8_t *)bfti_pool_at(pool, named))[i], 0x5a);
    assert_true(bfti_pool_check(pool));

    bfti_hazard_clear(rec, BFTI_HAZARD_FROZEN);
    place = bfti_pool_alloc(pool, 20);
    assert_int_equal(bfti_memory_offset(place), bfti_memory_offset(named));
    assert_int_equal(stats_of(pool).retired_bytes, 0);
    bfti_rec_give(rec);
    bfti_pool_destroy(pool);
}

/* The pool is never full, so nothing presses; yet what is retired does not pile
 * up in front of who evicts or allocates. */
static void retired_blocks_stay_a_small_part(void **state)
{
    struct bfti_pool *pool = pool_open(1 << 20);
    uint64_t place;
    uint64_t id;

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct bfti_pool_stats stats;

        for (held_count = 0; held_count < 1000; held_count++)
            held[held_count].place = page_new(pool, 10, held_count);
        while (held_count > 0) {
            bfti_pool_retire(pool, held[--held_count].place);
            if (round % 2 == 0)
                (void)bfti_pool_victim(pool, &place, &id);
            else
                bfti_pool_free(pool, bfti_pool_alloc(pool, 2));
            stats = stats_of(pool);
            assert_true(stats.retired_bytes <= stats.budget_bytes / 16 + 320);
        }
    }
    assert_true(bfti_pool_check(pool));
    bfti_pool_destroy(pool);
}

/* More named blocks than one batch takes: what is behind them is still met,
 * and they themselves later. */
static void named_blocks_do_not_hide_others(void **state)
{
    enum { NAMED = 117 * BFTI_HAZARDS };
    static struct bfti_rec *rec[NAMED / BFTI_HAZARDS];
    static uint64_t named[NAMED];
    struct bfti_pool *pool = pool_open(4000 * BFTI_UNIT);
    unsigned count = 0;

    (void)state;
    for (size_t i = 0; i < NAMED / BFTI_HAZARDS; i++)
        rec[i] = bfti_rec_take(threads);
    for (size_t i = 0; i < NAMED; i++) {
        named[i] = page_new(pool, 2, i);
        bfti_hazard_set(rec[i / BFTI_HAZARDS], (unsigned)(i % BFTI_HAZARDS),
                        named[i]);
    }
    for (size_t i = 0; i < NAMED; i++)
        bfti_pool_retire(pool, named[i]);
    held_count = 0;
    while (held_count < 100)
        held[held_count++].place = page_new(pool, 20, 1);
    while (held_count > 0)
        bfti_pool_retire(pool, held[--held_count].place);
    while (bfti_pool_alloc(pool, 20) != 0)
        count++;
    /* All that is not named could be had, but for what is too short. */
    assert_in_range(count, (4000 - 2 * NAMED) / 20 - 2,
                    (4000 - 2 * NAMED) / 20);
    assert_int_equal(stats_of(pool).retired_bytes, 2 * NAMED * BFTI_UNIT);
    assert_true(bfti_pool_check(pool));

    for (size_t i = 0; i < NAMED / BFTI_HAZARDS; i++)
        bfti_rec_give(rec[i]);
    /* One call finds them all before it gives up. */
    assert_int_not_equal(bfti_pool_alloc(pool, BFTI_UNITS_MAX), 0);
    while (bfti_pool_alloc(pool, 20) != 0) {
    }
    assert_int_equal(stats_of(pool).retired_bytes, 0);
    bfti_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_class_is_the_smallest_with_room),
        cmocka_unit_test(a_budget_is_checked),
        cmocka_unit_test(a_place_tells_the_true_room),
        cmocka_unit_test(the_largest_block_leaves_one_unit),
        cmocka_unit_test(blocks_never_overlap_and_always_join),
        cmocka_unit_test(a_block_that_fits_is_found_among_smaller_ones),
        cmocka_unit_test(readers_leave_a_part_to_writers),
        cmocka_unit_test(a_pool_beyond_32_bits_works),
        cmocka_unit_test(a_touched_page_gets_a_second_chance),
        cmocka_unit_test(the_clock_meets_published_pages_only),
        cmocka_unit_test(the_hand_moves_to_the_front_of_a_joined_block),
        cmocka_unit_test(the_hand_survives_what_happens_under_it),
        cmocka_unit_test(the_hand_goes_all_the_way_round),
        cmocka_unit_test(what_is_in_use_elsewhere_is_not_free),
        cmocka_unit_test(a_named_block_is_not_reused),
        cmocka_unit_test(retired_blocks_stay_a_small_part),
        cmocka_unit_test(named_blocks_do_not_hide_others),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
