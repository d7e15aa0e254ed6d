/*
 * Looking for what is not there, in a memory that has not all that is: by get,
 * multi-get and conditional writes, while leaves change, split and move.
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

enum {
    LEAF = 1024,
    VALUE = 40,
    LONG = 160,
    KEYS = 3000, /* the even ones are there at first */
    MANY = 64,
};

struct absent {
    struct engine_fixture *f;
    bft_tree *tree;
    bool there[KEYS];
};

static bft_slice key_of(char buf[24], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 24, "key-%06u", i)};
}

static void put_bytes(struct absent *a, unsigned i, size_t len)
{
    char kbuf[24], value[LONG] = {0};
    a->there[i] = true;
    expect_ok(bft_put(a->tree, key_of(kbuf, i), (bft_slice){value, len}));
}

static void put(struct absent *a, unsigned i)
{
    put_bytes(a, i, VALUE);
}

static void erase(struct absent *a, unsigned i)
{
    char kbuf[24];
    a->there[i] = false;
    expect_ok(bft_delete(a->tree, key_of(kbuf, i)));
}

static void get(const struct absent *a, unsigned i)
{
    char kbuf[24], value[LONG];
    size_t len;
    expect_status(
        a->there[i] ? BFT_OK : BFT_NOT_FOUND,
        bft_get(a->tree, key_of(kbuf, i), value, sizeof(value), &len));
}

static void get_many(const struct absent *a, unsigned from, unsigned step)
{
    char kbuf[MANY][24], value[MANY][LONG];
    bft_answer answer[MANY];
    memset(answer, 0, sizeof(answer));
    for (unsigned i = 0; i < MANY; i++) {
        answer[i].key = key_of(kbuf[i], (from + i * step) % KEYS);
        answer[i].buf = value[i];
        answer[i].buf_len = LONG;
    }
    expect_ok(bft_multi_get(a->tree, answer, MANY));
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(a->there[(from + i * step) % KEYS] ? BFT_OK
                                                            : BFT_NOT_FOUND,
                         answer[i].status);
}

/* Insert, which is to be refused where the key is there. */
static void insert(struct absent *a, unsigned i)
{
    char kbuf[24], value[VALUE] = {0};
    expect_status(
        a->there[i] ? BFT_EXISTS : BFT_OK,
        bft_insert(a->tree, key_of(kbuf, i), (bft_slice){value, VALUE}));
    a->there[i] = true;
}

/* All leaves on disk only. */
static void evict_all(struct absent *a)
{
    struct bfti_buffer *buffer = &a->f->db->engine->buffer;
    bool done;
    for (unsigned i = 0; i < 4000; i++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

static struct absent *absent_open(uint64_t memory_bytes)
{
    struct absent *a = calloc(1, sizeof(*a));
    assert_non_null(a);
    a->f = engine_fixture_make(ENGINE_MEMORY);
    a->f->options.memory_bytes = memory_bytes;
    a->f->options.log_bytes = 8 << 20; /* no checkpoint has to come */
    a->f->options.promote_percent = 0; /* filters alone */
    a->f->options.no_threads = true;
    engine_open(a->f);
    a->tree = engine_tree(a->f, "t", LEAF);
    for (unsigned i = 0; i < KEYS; i += 2)
        put(a, i);
    evict_all(a);
    return a;
}

static void absent_close(struct absent *a)
{
    for (unsigned i = 0; i < KEYS; i++)
        get(a, i);
    expect_ok(bft_verify(a->f->db));
    engine_fixture_free(a->f);
    free(a);
}

/* Reads of the page file since *BEFORE, which is set anew. */
static uint64_t misses(const struct absent *a, bft_stats *before)
{
    bft_stats now = engine_stats(a->f);
    uint64_t n = now.page_misses - before->page_misses;
    *before = now;
    return n;
}

/* --- tests ------------------------------------------------------------------ */

static void a_leaf_is_read_once_for_what_it_has_not(void **state)
{
    struct absent *a = absent_open(512 << 10);
    bft_stats stats = engine_stats(a->f);
    uint64_t leaves = stats.leaves;
    (void)state;
    for (unsigned i = 1; i < KEYS; i += 2)
        get(a, i);
    assert_in_range(misses(a, &stats), leaves / 2, leaves + KEYS / 20);
    for (unsigned i = 1; i < KEYS; i += 2)
        get(a, i);
    assert_in_range(misses(a, &stats), 0, KEYS / 20);
    for (unsigned i = 1; i < KEYS; i += 2 * MANY)
        get_many(a, i, 2);
    assert_in_range(misses(a, &stats), 0, KEYS / 20);
    /* Some leaves came whole, by chance: those are answered in memory. */
    assert_in_range(stats.filter_hits, KEYS / 2, KEYS * 3 / 2);
    assert_in_range(stats.filter_bytes, 1, (512 << 10) / 8);
    /* Some of it in memory, on top. */
    for (unsigned i = 0; i < KEYS; i += 40)
        put(a, i);
    (void)misses(a, &stats);
    for (unsigned i = 1; i < KEYS; i += 2)
        get(a, i);
    assert_in_range(misses(a, &stats), 0, KEYS / 20);
    absent_close(a);
}

static void what_comes_is_found_and_what_goes_is_not(void **state)
{
    struct absent *a = absent_open(512 << 10);
    (void)state;
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 1; i < KEYS; i += 2)
            get(a, i);
        for (unsigned i = round; i < KEYS; i += 7)
            insert(a, i);
        for (unsigned i = round; i < KEYS; i += 11)
            erase(a, i);
        for (unsigned i = 0; i < KEYS; i++)
            get(a, i);
        if (round % 2)
            expect_ok(bft_checkpoint(a->f->db));
        evict_all(a);
        for (unsigned i = 0; i < KEYS; i += MANY)
            get_many(a, i, 1);
    }
    absent_close(a);
}

/* Everything that changes a leaf, in any order. */
static void every_answer_is_right_whatever_comes_between(void **state)
{
    struct absent *a = absent_open(256 << 10);
    uint64_t hits = 0;
    (void)state;
    random_start();
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)random_below(KEYS);
        switch (random_below(12)) {
        case 0:
        case 1:
            put(a, i);
            break;
        case 2:
            insert(a, i);
            break;
        case 3:
        case 4:
            erase(a, i);
            break;
        case 5:
            get_many(a, i, 1 + (unsigned)random_below(9));
            break;
        default:
            get(a, i);
        }
        if (random_below(500) == 0)
            evict_all(a);
        if (random_below(2000) == 0)
            expect_ok(bft_checkpoint(a->f->db));
        if (random_below(4000) == 0) {
            hits += engine_stats(a->f).filter_hits;
            engine_reopen(a->f);
            a->tree = engine_tree(a->f, "t", LEAF);
        }
    }
    hits += engine_stats(a->f).filter_hits;
    print_message("           %llu reads spared\n", (unsigned long long)hits);
    assert_true(hits > 100);
    absent_close(a);
}

/* --- the leaf that inner nodes do not know yet --------------------------------- */

#ifndef NDEBUG

static void run_evictions(void *arg)
{
    evict_all(arg);
}

/* The left half has a filter, which does not say what the right one has. */
static void a_leaf_is_split_and_its_right_half_not_yet_known(void **state)
{
    struct absent *a = absent_open(512 << 10);
    struct parked parked;
    bool split;
    (void)state;
    /* So much that leaves must split when they leave memory. */
    for (unsigned i = 1000; i < 1080; i += 2)
        put_bytes(a, i, LONG);
    split = park_start(&parked, "merge:split-published", 0, run_evictions, a);
    assert_true(split);
    /* Twice: who comes first makes the filters. */
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 900; i < 1200; i++)
            get(a, i);
    for (unsigned i = 900; i < 1200; i += MANY)
        get_many(a, i, 1);
    park_end(&parked);
    absent_close(a);
}

/* Its filter does not stay for what comes to its place. */
static void an_extent_that_is_freed_has_no_filter(void **state)
{
    struct absent *a = absent_open(512 << 10);
    struct bfti_engine *engine = a->f->db->engine;
    struct bfti_buffer *buffer = &engine->buffer;
    uint64_t known[KEYS], n = 0;
    char kbuf[24];
    (void)state;
    for (unsigned i = 1; i < KEYS; i += 2)
        get(a, i);
    for (uint64_t id = 1; id < bfti_table_ids(buffer->table); id++) {
        uint64_t word = bfti_entry_word(bfti_table_entry(buffer->table, id));
        /* A key of no leaf: whoever has a filter denies it, or nearly. */
        if (bfti_word_on_disk(word) &&
            bfti_filters_lack(buffer->filters, word, key_of(kbuf, 999999)))
            known[n++] = word;
    }
    assert_true(n > 10);
    for (unsigned i = 0; i < KEYS; i += 2)
        put(a, i);
    evict_all(a);
    for (unsigned i = 0; i < 4; i++) { /* superblocks, then what they held */
        put(a, 0);
        expect_ok(bft_checkpoint(a->f->db));
        expect_ok(bfti_space_release(buffer->pf));
    }
    for (uint64_t i = 0; i < n; i++)
        assert_false(
            bfti_filters_lack(buffer->filters, known[i], key_of(kbuf, 999999)));
    absent_close(a);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_is_read_once_for_what_it_has_not),
        cmocka_unit_test(what_comes_is_found_and_what_goes_is_not),
        cmocka_unit_test(every_answer_is_right_whatever_comes_between),
#ifndef NDEBUG
        cmocka_unit_test(a_leaf_is_split_and_its_right_half_not_yet_known),
        cmocka_unit_test(an_extent_that_is_freed_has_no_filter),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
