/*
 * Leaves whose disk content is a list of several deltas over a base page: they are
 * read, reopened, folded, merged, split, absorbed and checked as any other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "random.h"

enum { KEYS = 60, FEW = 15, CHANGES = 6, VALUE = 20 };

struct fixture {
    struct engine_fixture *f;
    bft_tree *tree;
    unsigned version[2 * KEYS]; /* of each key's value; 0: it is not there */
    unsigned writes;
};

static struct bfti_engine *engine_of(const struct fixture *d)
{
    return d->tree->tree->engine;
}

/* As in recovery: lists grow as long as they may. */
static void hurry(struct fixture *d, bool on)
{
    engine_of(d)->buffer.hurried = on;
}

static bft_slice key_of(char text[16], unsigned k)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "key-%05u", k)};
}

static void value_of(uint8_t value[VALUE], unsigned k, unsigned version)
{
    memset(value, (int)(k + version), VALUE);
    memcpy(value, &version, sizeof(version));
}

static void put(struct fixture *d, unsigned k)
{
    uint8_t value[VALUE];
    char text[16];
    d->version[k] = ++d->writes;
    value_of(value, k, d->version[k]);
    expect_ok(bft_put(d->tree, key_of(text, k), (bft_slice){value, VALUE}));
}

static void take(struct fixture *d, unsigned k)
{
    char text[16];
    d->version[k] = 0;
    expect_ok(bft_delete(d->tree, key_of(text, k)));
}

static void check_gets(const struct fixture *d)
{
    for (unsigned k = 0; k < 2 * KEYS; k++) {
        uint8_t want[VALUE], got[VALUE];
        char text[16];
        size_t len;
        expect_status(d->version[k] ? BFT_OK : BFT_NOT_FOUND,
                      bft_get(d->tree, key_of(text, k), got, VALUE, &len));
        if (!d->version[k])
            continue;
        value_of(want, k, d->version[k]);
        assert_int_equal(len, VALUE);
        assert_memory_equal(want, got, VALUE);
    }
}

static void check_scan(const struct fixture *d)
{
    bft_cursor *cursor;
    bft_status status;
    unsigned k = 0;
    expect_ok(bft_cursor_open(d->tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        uint8_t want[VALUE];
        char text[16];
        bft_slice key, value;
        while (k < 2 * KEYS && !d->version[k])
            k++;
        assert_true(k < 2 * KEYS);
        expect_ok(bft_cursor_key(cursor, &key));
        expect_ok(bft_cursor_value(cursor, &value));
        assert_int_equal(key.len, key_of(text, k).len);
        assert_memory_equal(key.data, text, key.len);
        value_of(want, k, d->version[k]);
        assert_int_equal(value.len, VALUE);
        assert_memory_equal(want, value.data, VALUE);
        k++;
    }
    expect_status(BFT_NOT_FOUND, status);
    while (k < 2 * KEYS)
        assert_int_equal(d->version[k++], 0);
    bft_cursor_close(cursor);
}

/* From what is in memory and what is not. */
static void check(struct fixture *d)
{
    check_scan(d);
    check_gets(d);
    check_gets(d);
    expect_ok(bft_verify(d->f->db));
}

static struct bfti_reader look(const struct fixture *d, unsigned k)
{
    struct bfti_rec *rec = bfti_rec_current(engine_of(d)->buffer.threads);
    struct bfti_reader reader;
    char text[16];
    expect_ok(
        bfti_reader_open(&reader, d->tree->tree, rec, key_of(text, k), false));
    bfti_reader_close(&reader);
    return reader;
}

static unsigned deltas_of(const struct fixture *d, unsigned k)
{
    return bfti_word_deltas(look(d, k).head);
}

static void reopen(struct fixture *d)
{
    engine_reopen(d->f);
    d->tree = engine_tree(d->f, "t", 0);
}

/* A leaf with every other key, on disk. */
static void setup_as(struct fixture *d, uint32_t leaf_bytes, bool small_deltas)
{
    random_start();
    memset(d, 0, sizeof(*d));
    d->f = engine_fixture_make(ENGINE_SIM);
    d->f->surroundings.small_deltas = small_deltas;
    d->f->options.no_threads = true;
    d->f->options.memory_bytes = 1 << 20;
    engine_open(d->f);
    d->tree = engine_tree(d->f, "t", leaf_bytes);
    for (unsigned k = 0; k < KEYS; k++)
        put(d, 2 * k);
    expect_ok(bft_checkpoint(d->f->db));
}

static void setup_with(struct fixture *d, uint32_t leaf_bytes)
{
    setup_as(d, leaf_bytes, true);
}

/* Of the first KEYS keys. */
static void change_some(struct fixture *d, unsigned keys)
{
    unsigned from = (unsigned)random_below(keys);
    for (unsigned i = 0; i < CHANGES; i++)
        put(d, (from + i) % keys);
    take(d, (from + CHANGES) % keys);
}

/* Until the leaf has COUNT deltas, which change the first KEYS keys. */
static void pile_up_of(struct fixture *d, unsigned count, unsigned keys)
{
    hurry(d, true);
    for (unsigned i = 0; i < count; i++) {
        change_some(d, keys);
        expect_ok(bft_checkpoint(d->f->db));
        assert_int_equal(deltas_of(d, 0), i + 1);
    }
    hurry(d, false);
}

static void pile_up(struct fixture *d, unsigned count)
{
    pile_up_of(d, count, 2 * KEYS);
}

static void lists_of_any_length_are_read(void **state)
{
    struct fixture d;
    (void)state;
    for (unsigned n = 1; n <= BFTI_DELTAS_MAX; n++) {
        setup_with(&d, 4096);
        pile_up(&d, n);
        check(&d);
        reopen(&d);
        assert_int_equal(deltas_of(&d, 0), n);
        check(&d);
        /* Over a list that was cached, absences too. */
        change_some(&d, 2 * KEYS);
        check(&d);
        engine_crash(d.f, BFTI_SIM_KILL, 1);
        d.tree = engine_tree(d.f, "t", 0);
        check(&d);
        engine_fixture_free(d.f);
    }
}

/* A delta takes a block, and so do these leaves: who reads one would read twice. */
static void leaves_of_one_block_have_no_delta(void **state)
{
    struct fixture d;
    (void)state;
    for (uint32_t leaf = 512; leaf <= 16384; leaf *= 2) {
        setup_as(&d, leaf, false);
        for (unsigned reopened = 0; reopened < 2; reopened++) {
            put(&d, 3);
            expect_ok(bft_checkpoint(d.f->db));
            assert_int_equal(deltas_of(&d, 3), leaf > 4096 && !reopened);
            check(&d);
            reopen(&d); /* nothing is in memory */
        }
        engine_fixture_free(d.f);
    }
}

/* But where its base page cannot be read: a checkpoint goes on once without. */
static void a_leaf_that_cannot_be_read_has_one(void **state)
{
    static const bft_status why[] = {BFT_IO, BFT_UNSUPPORTED};
    struct fixture d;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                       .path = "/db/data",
                                       .nth = 1,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = why[i]};
        setup_as(&d, 4096, false);
        for (int again = 0; again < 2; again++) {
            reopen(&d);
            (void)look(&d, 3); /* its inner node comes into memory */
            put(&d, 3);
            bfti_sim_fail(d.f->vfs, &fault);
            expect_status(again ? why[i] : BFT_OK, bft_checkpoint(d.f->db));
            assert_true(bfti_sim_struck(d.f->vfs));
            bfti_sim_heal(d.f->vfs);
            assert_int_equal(deltas_of(&d, 3), 1);
            check(&d);
        }
        /* All of it becomes a base page again. */
        expect_ok(bft_checkpoint(d.f->db));
        assert_int_equal(deltas_of(&d, 3), 0);
        check(&d);
        engine_fixture_free(d.f);
    }
}

/* Older libraries do not know of lists, and are not to open what has them. */
static void an_image_says_that_it_has_lists(void **state)
{
    struct fixture d;
    (void)state;
    setup_with(&d, 4096);
    pile_up(&d, 1);
    reopen(&d);
    assert_true(engine_of(&d)->superblock.must_know == BFTI_FEATURE_SHARED);
    engine_fixture_free(d.f);
    setup_with(&d, 4096);
    pile_up(&d, 2);
    reopen(&d);
    assert_true(engine_of(&d)->superblock.must_know ==
                (BFTI_FEATURE_DELTA_LISTS | BFTI_FEATURE_SHARED));
    engine_fixture_free(d.f);
}

/* The base page is not read for it. */
static void a_full_list_is_folded_into_one_delta(void **state)
{
    struct fixture d;
    uint64_t read;
    (void)state;
    setup_with(&d, 4096);
    pile_up_of(&d, BFTI_DELTAS_MAX, FEW);
    hurry(&d, true);
    put(&d, 4);
    put(&d, 5);
    /* What deletes more than a quarter of what it puts is merged instead. */
    for (unsigned k = 0, absent = 0; k < FEW; k++)
        if (!d.version[k] && ++absent > 2)
            put(&d, k);
    read = engine_stats(d.f).extents_read;
    expect_ok(bft_checkpoint(d.f->db));
    assert_int_equal(engine_stats(d.f).extents_read - read, BFTI_DELTAS_MAX);
    assert_int_equal(deltas_of(&d, 0), 1);
    hurry(&d, false);
    check(&d);
    reopen(&d);
    check(&d);
    engine_fixture_free(d.f);
}

/* What is too much for one delta becomes a base page. */
static void a_full_list_that_is_much_is_merged(void **state)
{
    struct fixture d;
    (void)state;
    setup_with(&d, 4096);
    hurry(&d, true);
    for (unsigned i = 0; i <= BFTI_DELTAS_MAX; i++) {
        assert_int_equal(deltas_of(&d, 0), i);
        for (unsigned k = 0; k < 12; k++)
            put(&d, 12 * i + k);
        expect_ok(bft_checkpoint(d.f->db));
    }
    assert_int_equal(deltas_of(&d, 0), 0);
    check(&d);
    reopen(&d);
    check(&d);
    engine_fixture_free(d.f);
}

static void a_list_is_merged_with_its_base(void **state)
{
    struct fixture d;
    (void)state;
    for (unsigned n = 1; n <= BFTI_DELTAS_MAX; n++) {
        setup_with(&d, 4096);
        pile_up(&d, n);
        change_some(&d, 2 * KEYS);
        expect_ok(bft_checkpoint(d.f->db));
        assert_int_equal(deltas_of(&d, 0), 0);
        check(&d);
        reopen(&d);
        check(&d);
        engine_fixture_free(d.f);
    }
}

/* Until nothing is in memory of the leaf. */
static void evict(struct fixture *d)
{
    struct bfti_engine *engine = engine_of(d);
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool done;
    for (int i = 0; i < 1000 && look(d, 0).pages > 0; i++)
        expect_ok(bfti_evict_one(&engine->buffer, rec, &done));
    assert_int_equal(look(d, 0).pages, 0);
}

/* One of several blocks, beside which a delta is small, leaves its base page as it
 * is every other time; a smaller one is merged. */
static void larger_leaves_are_evicted_as_deltas(void **state)
{
    struct fixture d;
    (void)state;
    for (uint32_t leaf = 4096; leaf <= 16384; leaf *= 2) {
        setup_with(&d, leaf);
        for (unsigned i = 0; i < 4; i++) {
            uint64_t merges = engine_stats(d.f).merges;
            bool delta = leaf > 4096 && i % 2 == 0;
            change_some(&d, 2 * KEYS);
            evict(&d);
            assert_int_equal(deltas_of(&d, 0), delta);
            assert_int_equal(engine_stats(d.f).merges - merges, !delta);
            check(&d);
            reopen(&d); /* nothing is cached */
        }
        engine_fixture_free(d.f);
    }
}

static void a_leaf_with_a_list_is_split(void **state)
{
    struct fixture d;
    (void)state;
    for (unsigned n = 1; n <= BFTI_DELTAS_MAX; n++) {
        uint64_t splits;
        setup_with(&d, 4096);
        pile_up(&d, n);
        splits = engine_stats(d.f).splits;
        for (unsigned k = 0; k < 2 * KEYS; k++)
            put(&d, k);
        expect_ok(bft_checkpoint(d.f->db));
        assert_true(engine_stats(d.f).splits > splits);
        check(&d);
        reopen(&d);
        check(&d);
        engine_fixture_free(d.f);
    }
}

static void leaves_with_lists_are_absorbed(void **state)
{
    struct fixture d;
    uint64_t absorbed;
    (void)state;
    setup_with(&d, 512);
    for (unsigned k = 0; k < 2 * KEYS; k++)
        put(&d, k);
    expect_ok(bft_checkpoint(d.f->db));
    for (unsigned k = 0; k < 2 * KEYS; k++)
        if (k % 10)
            take(&d, k);
    absorbed = engine_stats(d.f).leaf_merges;
    hurry(&d, true);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = 0; k < 2 * KEYS; k += 10)
            put(&d, k);
        expect_ok(bft_checkpoint(d.f->db));
    }
    hurry(&d, false);
    for (int i = 0; i < 10; i++)
        expect_ok(bft_checkpoint(d.f->db));
    assert_true(engine_stats(d.f).leaf_merges > absorbed);
    check(&d);
    engine_fixture_free(d.f);
}

/* No delta takes a large value over: it goes with the merge. */
static void large_values_over_a_list_are_given_back(void **state)
{
    static uint8_t bytes[3000];
    struct fixture d;
    char text[16];
    (void)state;
    setup_with(&d, 4096);
    pile_up(&d, 3);
    d.version[7] = 0;
    expect_ok(
        bft_put(d.tree, key_of(text, 7), (bft_slice){bytes, sizeof(bytes)}));
    expect_ok(bft_checkpoint(d.f->db));
    reopen(&d); /* what is cached does not speak of the value */
    pile_up(&d, 3);
    hurry(&d, true);
    put(&d, 7);
    expect_ok(bft_checkpoint(d.f->db));
    assert_int_equal(deltas_of(&d, 7), 4);
    hurry(&d, false);
    check(&d);
    change_some(&d, 2 * KEYS);
    expect_ok(bft_checkpoint(d.f->db));
    assert_int_equal(deltas_of(&d, 0), 0);
    reopen(&d);
    check(&d);
    engine_fixture_free(d.f);
}

static void a_dropped_tree_gives_its_lists_back(void **state)
{
    struct fixture d;
    uint64_t leaves;
    (void)state;
    setup_with(&d, 4096);
    pile_up(&d, 5);
    leaves = engine_stats(d.f).leaves;
    expect_ok(bft_tree_drop(d.f->db, "t"));
    expect_ok(bft_verify(d.f->db)); /* with an audit of all space */
    assert_true(engine_stats(d.f).leaves < leaves);
    engine_fixture_free(d.f);
}

static bool always(void *arg)
{
    (void)arg;
    return true;
}

/* A word that leads to another number of deltas is damage, not a longer list. */
static void a_list_of_another_length_is_damage(void **state)
{
    struct fixture d;
    struct bfti_content content = {.above = NULL};
    struct bfti_reader reader;
    struct bfti_rec *rec;
    bool stable;
    (void)state;
    setup_with(&d, 4096);
    pile_up(&d, 3);
    rec = bfti_rec_current(engine_of(&d)->buffer.threads);
    reader = look(&d, 0);
    for (unsigned n = 0; n <= BFTI_DELTAS_MAX + 1; n++) {
        uint64_t word = bfti_word_extent(reader.head);
        bft_status status;
        if (n)
            word = bfti_delta_word(word, 1) | (uint64_t)(n - 1)
                                                  << BFTI_DELTAS_SHIFT;
        status = bfti_disk_read(&engine_of(&d)->buffer, rec, word, 0, reader.id,
                                always, NULL, false, &stable, &content);
        expect_status(n == 3 ? BFT_OK : BFT_CORRUPT, status);
        if (n != 3)
            continue;
        assert_int_equal(content.count, 4);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(
                bfti_word_deltas(le64_get(content.run[i]->beneath)), 2 - i);
    }
    bfti_reader_close(&reader);
    engine_fixture_free(d.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_of_any_length_are_read),
        cmocka_unit_test(leaves_of_one_block_have_no_delta),
        cmocka_unit_test(a_leaf_that_cannot_be_read_has_one),
        cmocka_unit_test(an_image_says_that_it_has_lists),
        cmocka_unit_test(a_full_list_is_folded_into_one_delta),
        cmocka_unit_test(a_full_list_that_is_much_is_merged),
        cmocka_unit_test(a_list_is_merged_with_its_base),
        cmocka_unit_test(larger_leaves_are_evicted_as_deltas),
        cmocka_unit_test(a_leaf_with_a_list_is_split),
        cmocka_unit_test(leaves_with_lists_are_absorbed),
        cmocka_unit_test(large_values_over_a_list_are_given_back),
        cmocka_unit_test(a_dropped_tree_gives_its_lists_back),
        cmocka_unit_test(a_list_of_another_length_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
