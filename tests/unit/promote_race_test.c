/*
 * What a reader leaves in memory while others change its leaf: it is stopped
 * between reading and leaving, and what it read is old by then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"
#include "random.h"

#ifndef NDEBUG

enum {
    LEAF = 2048,
    VALUE = 50,
    LARGE = 1500, /* outside the leaf */
    LARGE_KEY = 100,
    STEP = 10, /* between the first keys: others come in between */
    KEYS = 20, /* at first */
    ROUNDS = 30,
};

struct race {
    struct engine_fixture *f;
    bft_tree *tree;
    uint8_t version[KEYS * STEP]; /* of each key's value; 0: none */
};

static bft_slice key_of(char buf[24], const char *kind, unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 24, "%s-%06u", kind, i)};
    return key;
}

static size_t length_of(unsigned i)
{
    return i == LARGE_KEY ? LARGE : VALUE;
}

static void put(struct race *r, unsigned i)
{
    char kbuf[24];
    uint8_t value[LARGE];
    r->version[i]++;
    memset(value, r->version[i], sizeof(value));
    expect_ok(bft_put(r->tree, key_of(kbuf, "key", i),
                      (bft_slice){value, length_of(i)}));
}

static void get(struct race *r, unsigned i, uint8_t version)
{
    char kbuf[24];
    uint8_t value[LARGE], expected[LARGE];
    size_t len;
    bft_slice key = key_of(kbuf, "key", i);
    if (version == 0) {
        expect_status(BFT_NOT_FOUND,
                      bft_get(r->tree, key, value, sizeof(value), &len));
        return;
    }
    memset(expected, version, sizeof(expected));
    expect_ok(bft_get(r->tree, key, value, sizeof(value), &len));
    assert_int_equal(length_of(i), len);
    assert_memory_equal(expected, value, len);
}

static void get_all(struct race *r)
{
    for (unsigned i = 0; i < KEYS * STEP; i++)
        get(r, i, r->version[i]);
    expect_ok(bft_verify(r->f->db));
}

/* All leaves on disk only. */
static void evict_all(struct race *r)
{
    struct bfti_buffer *buffer = &r->f->db->engine->buffer;
    bool done;
    for (unsigned i = 0; i < 4000; i++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

/* A cold read is left or not at random: the same in each run. */
static uint64_t env_random(void *ctx)
{
    (void)ctx;
    return random_next();
}

static struct race *race_open(uint64_t seed)
{
    struct race *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->f = engine_fixture_make(ENGINE_MEMORY);
    random_seed(seed);
    r->f->env.random = env_random;
    r->f->options.log_bytes = 8 << 20; /* no checkpoint has to come */
    r->f->options.promote_percent = 100;
    r->f->options.no_threads = true;
    engine_open(r->f);
    r->tree = engine_tree(r->f, "t", LEAF);
    for (unsigned i = 0; i < KEYS; i++)
        put(r, i * STEP);
    evict_all(r);
    return r;
}

static void race_close(struct race *r)
{
    get_all(r);
    engine_fixture_free(r->f);
    free(r);
}

/* --- memory to spare --------------------------------------------------------- */

static void run_get(void *arg)
{
    get(arg, STEP, 1);
}

static void run_scan(void *arg)
{
    struct race *r = arg;
    bft_cursor *cursor;
    bft_status status;
    expect_ok(bft_cursor_open(r->tree, &cursor));
    do
        status = bft_cursor_next(cursor);
    while (status == BFT_OK);
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
}

static void a_newer_value_is_not_covered(void **state)
{
    static const struct {
        const char *point;
        void (*run)(void *arg);
    } reader[] = {
        {"promote:built", run_get},
        {"promote:built", run_scan},
        {"cursor:copied", run_scan},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(reader) / sizeof(*reader); i++) {
        struct race *r = race_open(i);
        struct parked parked;
        assert_true(park_start(&parked, reader[i].point, 0, reader[i].run, r));
        put(r, STEP);
        park_end(&parked);
        /* A scan goes on with a copy that is new, and leaves that. */
        assert_int_equal(1, engine_stats(r->f).promotions_dropped);
        race_close(r);
    }
}

/* --- memory that is short ---------------------------------------------------- */

/* Leave less than a quarter of the memory free, in leaves of another tree. */
static void fill_memory(struct race *r)
{
    struct bfti_pool *pool = r->f->db->engine->buffer.pool;
    bft_tree *ballast = engine_tree(r->f, "ballast", LEAF);
    for (unsigned i = 0;
         bfti_pool_free_bytes(pool) >= r->f->options.memory_bytes / 5; i++) {
        char kbuf[24];
        uint8_t value[VALUE] = {0};
        expect_ok(bft_put(ballast, key_of(kbuf, "ballast", i),
                          (bft_slice){value, VALUE}));
    }
}

static void run_get_large(void *arg)
{
    struct race *r = arg;
    get(r, LARGE_KEY, r->version[LARGE_KEY]);
}

/* The reader finds the leaf anew, with other fences and in another extent, and
 * leaves a page of the one record: for this leaf, not for that which it found
 * at first. */
static void a_leaf_that_split_under_a_large_value_gets_the_record(void **state)
{
    uint64_t left = 0;
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct race *r = race_open(round);
        struct parked parked;
        uint64_t before;
        assert_true(
            park_start(&parked, "large:part-chosen", 0, run_get_large, r));
        for (unsigned i = 0; i < KEYS * STEP; i++)
            if (i % STEP)
                put(r, i);
        evict_all(r);
        assert_true(engine_stats(r->f).splits > 0);
        fill_memory(r);
        before = engine_stats(r->f).promotions;
        park_end(&parked);
        left += engine_stats(r->f).promotions - before;
        race_close(r);
    }
    assert_true(left > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newer_value_is_not_covered),
        cmocka_unit_test(a_leaf_that_split_under_a_large_value_gets_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
