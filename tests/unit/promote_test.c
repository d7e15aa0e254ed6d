/*
 * What reading leaves in memory: whole leaves while there is memory to spare,
 * records when it is short or will be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/vfs_memory.h"
#include "index/engine.h"

#define EXPECT(want, call) expect((want), (call), #call, __LINE__)

static void expect(bft_status want, bft_status got, const char *what, int line)
{
    char text[300] = "";
    if (got == want)
        return;
    bft_last_error(text, sizeof(text));
    fail_msg("line %d: %s: %s, not %s (%s)", line, what, bft_strerror(got),
             bft_strerror(want), got == BFT_OK ? "" : text);
}

/* --- a database ----------------------------------------------------------- */

enum { RECORDS = 5000 };

struct fixture {
    struct bfti_surroundings surroundings; /* files that outlive a close */
    bft_options options;
    bft_db *db;
    bft_tree *tree;
    uint8_t version[RECORDS]; /* of each record's value */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->surroundings.vfs = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f->surroundings.vfs);
    f->options.size = sizeof(f->options);
    f->options.internal = &f->surroundings;
    f->options.durability = BFT_NONE;
    f->options.promote_percent = 100;
    f->options.no_threads = true; /* each step's outcome is known */
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    EXPECT(BFT_OK, bft_verify(f->db));
    EXPECT(BFT_OK, bft_close(f->db));
    bfti_vfs_memory_destroy(f->surroundings.vfs);
    free(f);
    return 0;
}

static bft_slice key_of(int i, bool absent, char key[24])
{
    snprintf(key, 24, "record %08d%s", i, absent ? "!" : "");
    return (bft_slice){key, strlen(key)};
}

static bft_slice value_of(const struct fixture *f, int i, char value[120])
{
    memset(value, 'v', 100);
    snprintf(value, 100, "value %d version %d", i, f->version[i]);
    return (bft_slice){value, 100};
}

static void put(struct fixture *f, int i)
{
    char key[24], value[120];
    f->version[i]++;
    EXPECT(BFT_OK,
           bft_put(f->tree, key_of(i, false, key), value_of(f, i, value)));
}

static void get(struct fixture *f, int i)
{
    char key[24], value[120], found[120];
    size_t len;
    EXPECT(BFT_OK,
           bft_get(f->tree, key_of(i, false, key), found, sizeof(found), &len));
    assert_int_equal(len, 100);
    assert_memory_equal(found, value_of(f, i, value).data, 100);
}

static void get_absent(struct fixture *f, int i)
{
    char key[24], found[120];
    size_t len;
    EXPECT(BFT_NOT_FOUND,
           bft_get(f->tree, key_of(i, true, key), found, sizeof(found), &len));
}

/* RECORDS records on disk, nothing in a memory of BYTES. */
static void fill(struct fixture *f, uint64_t bytes)
{
    f->options.memory_bytes = 4 << 20;
    EXPECT(BFT_OK, bft_open("promote_test", &f->options, &f->db));
    EXPECT(BFT_OK, bft_tree_open(f->db, "t", NULL, &f->tree));
    for (int i = 0; i < RECORDS; i++)
        put(f, i);
    EXPECT(BFT_OK, bft_close(f->db));
    f->options.memory_bytes = bytes;
    EXPECT(BFT_OK, bft_open("promote_test", &f->options, &f->db));
    EXPECT(BFT_OK, bft_tree_open(f->db, "t", NULL, &f->tree));
}

static uint64_t misses(const struct fixture *f)
{
    bft_stats stats = {.size = sizeof(stats)};
    EXPECT(BFT_OK, bft_stats_read(f->db, &stats));
    return stats.page_misses;
}

/* Get every STEP'th record, and a key behind it; how many looks went to disk? */
static uint64_t misses_of_round(struct fixture *f, int step)
{
    uint64_t before = misses(f);
    for (int i = 0; i < RECORDS; i += step) {
        get(f, i);
        get_absent(f, i);
    }
    return misses(f) - before;
}

/* --- tests ------------------------------------------------------------------ */

/* Also of keys that nobody wrote, and of a leaf with changes on top. */
static void reading_with_memory_to_spare_reads_a_leaf_once(void **state)
{
    struct fixture *f = *state;
    bft_stats stats = {.size = sizeof(stats)};
    fill(f, 4 << 20);
    for (int i = 0; i < RECORDS; i += 100)
        put(f, i);
    EXPECT(BFT_OK, bft_stats_read(f->db, &stats));
    assert_in_range(misses_of_round(f, 1), 1, stats.leaves);
    assert_int_equal(misses_of_round(f, 1), 0);
}

/* A quarter of each leaf's records are asked for: far more than the tail of
 * the page that the first of them made has room for. */
static void records_asked_for_often_stay_in_short_memory(void **state)
{
    struct fixture *f = *state;
    uint64_t misses = 0;
    fill(f, 672 << 10);
    for (int round = 0; round < 60; round++)
        misses = misses_of_round(f, 4);
    assert_in_range(misses, 0, RECORDS / 4 / 4);
}

/* The leaves of the records asked for would not fit, they themselves do. */
static void much_data_leaves_records_in_memory_from_the_first_on(void **state)
{
    enum { OTHERS = 3000, OTHER_BYTES = 1000, STEP = 25, BUDGET = 512 << 10 };
    struct fixture *f = *state;
    bft_stats stats = {.size = sizeof(stats)};
    static char other[OTHER_BYTES];
    bft_tree *tree;
    uint64_t before;
    fill(f, 8 << 20);
    EXPECT(BFT_OK, bft_tree_open(f->db, "others", NULL, &tree));
    for (int i = 0; i < OTHERS; i++) {
        char key[24];
        EXPECT(BFT_OK, bft_put(tree, key_of(i, false, key),
                               (bft_slice){other, sizeof(other)}));
    }
    EXPECT(BFT_OK, bft_close(f->db));
    f->options.memory_bytes = BUDGET;
    EXPECT(BFT_OK, bft_open("promote_test", &f->options, &f->db));
    EXPECT(BFT_OK, bft_tree_open(f->db, "t", NULL, &f->tree));
    EXPECT(BFT_OK, bft_stats_read(f->db, &stats));
    assert_true(stats.live_bytes > 4 * BUDGET);
    assert_in_range(misses_of_round(f, STEP), RECORDS / STEP,
                    2 * RECORDS / STEP);
    before = misses(f);
    for (int i = 0; i < RECORDS; i += STEP)
        get(f, i);
    assert_int_equal(misses(f), before);
    /* Of the filters, which have 16 KiB here, not all stay. */
    assert_in_range(misses_of_round(f, STEP), 0, RECORDS / STEP / 4);
}

/* Caching is never to cover a newer value, nor to lose one. */
static void what_is_cached_is_what_was_written_last(void **state)
{
    struct fixture *f = *state;
    fill(f, 320 << 10);
    for (int round = 0; round < 12; round++) {
        for (int i = round; i < RECORDS; i += 7)
            put(f, i);
        misses_of_round(f, 1 + round % 5);
        if (round % 4 == 3)
            EXPECT(BFT_OK, bft_checkpoint(f->db));
    }
    assert_true(misses_of_round(f, 1) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            reading_with_memory_to_spare_reads_a_leaf_once, setup, teardown),
        cmocka_unit_test_setup_teardown(
            records_asked_for_often_stay_in_short_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(
            much_data_leaves_records_in_memory_from_the_first_on, setup,
            teardown),
        cmocka_unit_test_setup_teardown(what_is_cached_is_what_was_written_last,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
