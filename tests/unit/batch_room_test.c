/*
 * A batch has the memory that it was given, whoever else takes what is free before
 * it comes back for it: what lies in pieces may suffice in one order and not in the
 * next, and then it would ask for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/fault.h"

enum {
    KEYS = 3000,
    VALUE = 300,
    LEAVES = 12,
    EACH = 4,
    TAKEN_MAX = 8192,
    LOOKS_MAX = 4000
};

#ifndef NDEBUG

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
}

/* The batch's Ith record: more come together than a page's tail takes. */
static unsigned number_of(unsigned i)
{
    return i / EACH * (KEYS / LEAVES) + i % EACH;
}

static struct {
    struct bfti_pool *pool;
    uint64_t place[TAKEN_MAX];
    size_t count;
    unsigned looks;
} taken;

static void give_back(void)
{
    while (taken.count)
        bfti_pool_free(taken.pool, taken.place[--taken.count]);
}

/* Nothing is free while the batch goes through its leaves, and much while it looks
 * for room. */
static void take_all(const char *point)
{
    unsigned units = BFTI_UNITS_MAX;
    if (strcmp(point, "evict:chosen") == 0)
        give_back();
    if (strcmp(point, "write:leaf-chosen") != 0 || ++taken.looks > LOOKS_MAX)
        return;
    while (units && taken.count < TAKEN_MAX) {
        uint64_t place = bfti_pool_alloc(taken.pool, units);
        if (place)
            taken.place[taken.count++] = place;
        else
            units /= 2;
    }
}

static void what_a_batch_was_given_stays_with_it(void **state)
{
    static const uint8_t value[VALUE];
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    uint8_t read[VALUE];
    bft_batch *batch;
    bft_tree *tree;
    char buf[16];
    size_t len;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 16 << 20;
    f->options.log_segment_bytes = 1 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 1024);
    for (unsigned i = 0; i < KEYS; i++)
        expect_ok(
            bft_put(tree, key_of(buf, i * 7 % KEYS), (bft_slice){value, 30}));
    expect_ok(bft_batch_create(f->db, &batch));
    for (unsigned i = 0; i < LEAVES * EACH; i++)
        expect_ok(bft_batch_put(batch, tree, key_of(buf, number_of(i)),
                                (bft_slice){value, VALUE}));
    taken.pool = f->db->engine->buffer.pool;
    taken.looks = 0;
    atomic_store(&bfti_park, take_all);
    expect_ok(bft_batch_commit(batch, BFT_NONE, NULL));
    atomic_store(&bfti_park, NULL);
    assert_in_range(taken.looks, LEAVES + 1, LOOKS_MAX); /* it came again */
    give_back();
    bft_batch_free(batch);
    for (unsigned i = 0; i < LEAVES * EACH; i++) {
        expect_ok(bft_get(tree, key_of(buf, number_of(i)), read, VALUE, &len));
        assert_int_equal(VALUE, len);
    }
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_batch_was_given_stays_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
