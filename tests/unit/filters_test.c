/*
 * Filters by themselves: what a filter denies is not there, it denies most of what
 * is not, and it goes with its extent.  README.md of buffer/, 8.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/filters.h"
#include "park.h"
#include "random.h"

enum {
    ROOM = 256 << 10,
    RECORDS_MAX = 300,
    RUN_BYTES = 16 << 10,
    LEAVES = 3000, /* more than ROOM has filters for, of any size */
    ASKED = 20,    /* absent keys of each leaf */
};

struct fixture {
    struct bfti_env env; /* refuses when told to */
    struct bfti_threads *threads;
    struct bfti_filters *filters;
    bool refuses;
    char buf[RUN_BYTES]; /* of a leaf's run */
    struct bfti_content content;
};

static void *env_alloc(void *ctx, size_t bytes)
{
    const struct fixture *f = ctx;
    return f->refuses ? NULL : bfti_alloc(bfti_env_system(), bytes);
}

static void env_free(void *ctx, void *block)
{
    (void)ctx;
    bfti_free(bfti_env_system(), block);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->env = *bfti_env_system();
    f->env.ctx = f;
    f->env.alloc = env_alloc;
    f->env.free = env_free;
    assert_int_equal(BFT_OK,
                     bfti_threads_create(bfti_env_system(), &f->threads));
    assert_int_equal(BFT_OK, bfti_filters_create(&f->env, f->threads, NULL,
                                                 ROOM, &f->filters));
    assert_non_null(f->filters);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bfti_filters_destroy(f->filters);
    bfti_threads_destroy(f->threads);
    free(f);
    return 0;
}

/* Of leaf LEAF, record I; some share a prefix with all others, some have one byte
 * more than a word. */
static bft_slice key_of(char key[40], unsigned leaf, unsigned i, bool absent)
{
    int len = snprintf(key, 40, "leaf %06u record %04u%s%s", leaf, i,
                       i % 3 ? "" : "+more", absent ? "!" : "");
    return (bft_slice){key, (size_t)len};
}

/* A page table's word; different leaves have different extents. */
static uint64_t word_of(unsigned leaf, unsigned seal)
{
    return bfti_disk_place(((uint64_t)leaf + 2) * 8, 8, seal);
}

/* What leaf LEAF, of COUNT records, has on disk. */
static const struct bfti_content *content_of(struct fixture *f, unsigned leaf,
                                             unsigned count)
{
    static char keys[RECORDS_MAX][40];
    static struct bfti_view view[RECORDS_MAX];
    struct bfti_run_spec spec;
    memset(&spec, 0, sizeof(spec));
    memset(view, 0, sizeof(view));
    for (unsigned i = 0; i < count; i++) {
        bft_slice key = key_of(keys[i], leaf, i, false);
        view[i].suffix = key.data;
        view[i].suffix_len = (uint16_t)key.len;
        view[i].op = BFTI_OP_PUT;
    }
    spec.view = view;
    spec.count = count;
    spec.keep = BFTI_KEEP_ALL;
    assert_true(bfti_run_size(&spec) <= RUN_BYTES);
    bfti_run_build(f->buf, &spec);
    f->content.run[0] = (const struct bfti_run *)f->buf;
    f->content.count = 1;
    return &f->content;
}

static bool add(struct fixture *f, unsigned leaf, unsigned count)
{
    return bfti_filters_add(f->filters, word_of(leaf, 7),
                            content_of(f, leaf, count));
}

/* Of ASKED absent keys, how many does the leaf's filter deny? */
static unsigned denied(const struct fixture *f, unsigned leaf)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ASKED; i++) {
        char key[40];
        n += bfti_filters_lack(f->filters, word_of(leaf, 7),
                               key_of(key, leaf, i, true));
    }
    return n;
}

static void denies_nothing_that_is_there(const struct fixture *f, unsigned leaf,
                                         unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[40];
        assert_false(bfti_filters_lack(f->filters, word_of(leaf, 7),
                                       key_of(key, leaf, i, false)));
    }
}

/* --- tests ------------------------------------------------------------------ */

static void most_of_what_is_absent_is_denied_and_nothing_else(void **state)
{
    static const unsigned counts[] = {0, 1, 25, 33, 70, 150};
    static const unsigned least[] = {100, 99, 90, 95, 80, 85}; /* percent */
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        struct fixture *f = *state;
        unsigned n = 0;
        for (unsigned leaf = 0; leaf < 50; leaf++) {
            assert_true(add(f, leaf, counts[c]));
            assert_false(add(f, leaf, counts[c])); /* it is there */
            n += denied(f, leaf);
            denies_nothing_that_is_there(f, leaf, counts[c]);
        }
        assert_in_range(n * 100 / (50 * ASKED), least[c], 100);
        /* The next ones are of another size. */
        assert_int_equal(0, teardown(state));
        assert_int_equal(0, setup(state));
    }
}

static void a_word_has_a_filter_of_its_own(void **state)
{
    struct fixture *f = *state;
    char key[40];
    assert_true(add(f, 1, 20));
    assert_true(denied(f, 1) > 0);
    assert_int_equal(0, denied(f, 2));
    /* The same place with other content: by its seal, and as a delta. */
    assert_false(
        bfti_filters_lack(f->filters, word_of(1, 8), key_of(key, 1, 0, true)));
    assert_false(bfti_filters_lack(f->filters,
                                   bfti_delta_word(word_of(1, 7), 1),
                                   key_of(key, 1, 0, true)));
}

static void a_filter_goes_with_its_extent(void **state)
{
    struct fixture *f = *state;
    char key[40];
    uint64_t delta = bfti_delta_word(word_of(3, 7), 2);
    assert_true(add(f, 1, 20));
    assert_true(add(f, 2, 20));
    assert_true(bfti_filters_add(f->filters, delta, content_of(f, 3, 20)));
    bfti_filters_forget(f->filters, word_of(1, 7));
    assert_int_equal(0, denied(f, 1));
    assert_true(denied(f, 2) > 0);
    assert_true(bfti_filters_lack(f->filters, delta, key_of(key, 3, 0, true)) ||
                bfti_filters_lack(f->filters, delta, key_of(key, 3, 1, true)));
    bfti_filters_forget(f->filters, word_of(3, 7));
    for (unsigned i = 0; i < ASKED; i++)
        assert_false(
            bfti_filters_lack(f->filters, delta, key_of(key, 3, i, true)));
    assert_true(add(f, 1, 20));
    assert_true(denied(f, 1) > 0);
}

/* How many of LEAVES leaves have one. */
static unsigned known(const struct fixture *f)
{
    unsigned n = 0;
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        n += denied(f, leaf) > 0;
    return n;
}

static void the_table_grows_with_what_is_asked_and_no_further(void **state)
{
    struct fixture *f = *state;
    size_t before = 0, grown = 0;
    assert_int_equal(0, bfti_filters_bytes(f->filters));
    for (unsigned round = 0; round < 3; round++)
        for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
            (void)add(f, leaf, 25);
            grown += bfti_filters_bytes(f->filters) > before;
            before = bfti_filters_bytes(f->filters);
            denies_nothing_that_is_there(f, leaf, 25);
            /* A table that grew still has most of what it had. */
            assert_true(leaf == 0 || denied(f, leaf - 1) > 0);
        }
    assert_int_equal(ROOM, before);
    assert_in_range(grown, 3, 5);
    assert_in_range(known(f), LEAVES * 8 / 10, LEAVES);
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        denies_nothing_that_is_there(f, leaf, 25);
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        bfti_filters_forget(f->filters, word_of(leaf, 7));
    assert_int_equal(0, known(f));
}

/* Where few of the reads are for keys that are not there. */
static void the_table_stays_small_where_little_is_absent(void **state)
{
    struct fixture *f = *state;
    struct bfti_rec *rec = bfti_rec_current(f->threads);
    assert_non_null(rec);
    for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
        (void)add(f, leaf, 25);
        bfti_count(rec, BFTI_N_MISSES, 100);
    }
    assert_int_equal(16 << 10, bfti_filters_bytes(f->filters));
}

static void the_table_grows_within_what_the_pool_can_spare(void **state)
{
    struct fixture *f = *state;
    const size_t budget = 1 << 20, half = budget / 2;
    struct bfti_pool *pool;
    bfti_filters_destroy(f->filters);
    assert_int_equal(BFT_OK,
                     bfti_pool_create(f->threads, &f->env, budget, &pool));
    assert_int_equal(BFT_OK, bfti_filters_create(&f->env, f->threads, pool,
                                                 ROOM, &f->filters));
    bfti_pool_elsewhere(pool, half - (40 << 10)); /* room for one doubling */
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        (void)add(f, leaf, 25);
    assert_int_equal(64 << 10, bfti_filters_bytes(f->filters));
    bfti_pool_elsewhere(pool, 0);
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        (void)add(f, leaf, 25);
    assert_int_equal(ROOM, bfti_filters_bytes(f->filters));
    bfti_pool_destroy(pool);
}

static void without_memory_there_are_fewer(void **state)
{
    struct fixture *f = *state;
    struct bfti_filters *none;
    f->refuses = true;
    assert_false(add(f, 1, 25));
    assert_int_equal(0, denied(f, 1));
    f->refuses = false;
    assert_true(add(f, 1, 25));
    f->refuses = true;
    for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
        (void)add(f, leaf, 25);
        denies_nothing_that_is_there(f, leaf, 25);
    }
    assert_int_equal(16 << 10, bfti_filters_bytes(f->filters));
    assert_int_equal(BFT_NO_MEMORY, bfti_filters_create(&f->env, f->threads,
                                                        NULL, ROOM, &none));
    assert_null(none);
    f->refuses = false;
    /* Too little to have any. */
    assert_int_equal(
        BFT_OK, bfti_filters_create(&f->env, f->threads, NULL, 16383, &none));
    assert_null(none);
    bfti_filters_forget(none, word_of(1, 7));
    assert_false(bfti_filters_add(none, word_of(1, 7), content_of(f, 1, 25)));
    assert_int_equal(0, bfti_filters_bytes(none));
    bfti_filters_destroy(none);
}

/* Large leaves of small records beside the leaves that the table was made for. */
static void a_leaf_with_too_many_records_has_none(void **state)
{
    struct fixture *f = *state;
    assert_true(add(f, 1, 25));
    assert_false(add(f, 2, RECORDS_MAX));
    assert_int_equal(0, denied(f, 2));
    assert_true(add(f, 3, 90));
    denies_nothing_that_is_there(f, 3, 90);
}

struct asked {
    const struct fixture *f;
    unsigned leaf;
    bool denied;
};

static void ask_for_what_is_there(void *arg)
{
    struct asked *asked = arg;
    char key[40];
    asked->denied =
        bfti_filters_lack(asked->f->filters, word_of(asked->leaf, 7),
                          key_of(key, asked->leaf, 0, false));
}

/* A reader has seen the leaf's tag, then bits of another's filter, and then the
 * leaf's tag again. */
static void a_filter_that_went_and_came_denies_nothing(void **state)
{
    struct fixture *f = *state;
    struct asked asked = {.f = f, .leaf = 10 * LEAVES};
    struct parked reader;
    unsigned other = asked.leaf;
    for (unsigned leaf = 0; leaf < asked.leaf; leaf++) /* no place is free */
        (void)add(f, leaf, 25);
    assert_true(add(f, asked.leaf, 25));
    assert_true(denied(f, asked.leaf) > 0);
    assert_true(park_start(&reader, "filters:tag-read", 0,
                           ask_for_what_is_there, &asked));
    while (denied(f, asked.leaf) > 0)
        (void)add(f, ++other, 25);
    assert_true(park_move(&reader, "filters:bits-read"));
    assert_true(add(f, asked.leaf, 25)); /* in the place that it had */
    park_end(&reader);
    assert_false(asked.denied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            most_of_what_is_absent_is_denied_and_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(a_word_has_a_filter_of_its_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_filter_goes_with_its_extent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            the_table_grows_with_what_is_asked_and_no_further, setup, teardown),
        cmocka_unit_test_setup_teardown(
            the_table_stays_small_where_little_is_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(
            the_table_grows_within_what_the_pool_can_spare, setup, teardown),
        cmocka_unit_test_setup_teardown(without_memory_there_are_fewer, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_leaf_with_too_many_records_has_none,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_filter_that_went_and_came_denies_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
