/*
 * Reading ahead: several extents at once, of leaves that a multi-get or a scan
 * will come to.  What is answered is the same as one by one, on every backend;
 * here is looked at what is read when, and what becomes of it.
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
#include "fileio/pagefile_internal.h"
#include "random.h"

enum { RECORDS = 8000, VALUE = 60, ASKED = 100, LEAVES = 8, MEMORY = 4 << 20 };

/* Calls of the page file, as they are handed over. */
static struct {
    const struct bfti_vfs_ops *vfs;
    struct bfti_vfs_ops patched, files;
    _Atomic uint64_t submits, submitted; /* reads */
    _Atomic uint64_t singles;
} calls;

static bft_status count_submit(struct bfti_vfs *vfs, struct bfti_io **io,
                               size_t n)
{
    atomic_fetch_add(&calls.submits, n > 0);
    atomic_fetch_add(&calls.submitted, n);
    atomic_fetch_sub(&calls.singles, n); /* the simulation reads each */
    return calls.vfs->submit(vfs, io, n);
}

static bft_status count_read(struct bfti_file *file, uint64_t offset, void *buf,
                             size_t len, size_t *got)
{
    atomic_fetch_add(&calls.singles, 1);
    return calls.vfs->read(file, offset, buf, len, got);
}

static bft_status open_counted(struct bfti_vfs *vfs, const char *path,
                               int flags, struct bfti_file **out)
{
    bft_status status = calls.vfs->open(vfs, path, flags, out);
    if (status == BFT_OK) {
        calls.files = *(*out)->ops;
        calls.files.submit = count_submit;
        calls.files.read = count_read;
        (*out)->ops = &calls.files;
    }
    return status;
}

static void calls_forget(void)
{
    atomic_store(&calls.submits, 0);
    atomic_store(&calls.submitted, 0);
    atomic_store(&calls.singles, 0);
}

static bft_slice key_of(char text[16], uint64_t n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%08u", (unsigned)n)};
}

static void value_of(uint64_t n, unsigned version, char value[VALUE])
{
    memset(value, 'a' + (int)(n * 7 + version) % 26, VALUE);
}

static bft_tree *reopened(struct engine_fixture *f)
{
    engine_reopen(f);
    calls_forget();
    return engine_tree(f, "t", 0);
}

/* A database of far more leaves than are in memory: of none of them.  COUNTED:
 * its calls are, on the simulation. */
static struct engine_fixture *make(enum engine_backend backend, bool slow,
                                   bool counted, bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    char text[16], value[VALUE];
    /* Each time the same reads bring a leaf into memory, one in a hundred. */
    engine_seed(f, 1);
    calls.vfs = f->vfs->ops;
    calls.patched = *f->vfs->ops;
    calls.patched.open = open_counted;
    if (counted)
        f->vfs->ops = &calls.patched;
    engine_slow_reads(f, slow);
    f->options.no_threads = true;
    f->options.memory_bytes = MEMORY;
    f->options.log_bytes = 2 << 20;
    f->options.promote_percent = 1;
    engine_open(f);
    *tree = engine_tree(f, "t", 512);
    for (unsigned n = 0; n < RECORDS; n++) {
        value_of(n, 0, value);
        expect_ok(bft_put(*tree, key_of(text, n), (bft_slice){value, VALUE}));
    }
    *tree = reopened(f);
    return f;
}

static struct bfti_buffer *buffer_of(struct engine_fixture *f)
{
    return &f->db->engine->buffer;
}

static struct bfti_rec *rec_of(struct engine_fixture *f)
{
    return bfti_rec_current(buffer_of(f)->threads);
}

/* Rows of a scan from record FROM on, all of them as they are to be. */
static unsigned scan(bft_tree *tree, unsigned from, unsigned rows,
                     unsigned version)
{
    char text[16], value[VALUE];
    bft_cursor *cursor;
    bft_status status;
    unsigned n = from;
    expect_ok(bft_cursor_open(tree, &cursor));
    status = bft_cursor_seek(cursor, BFT_GE, key_of(text, from));
    for (; status == BFT_OK && n < from + rows; n++) {
        bft_slice key, got, want = key_of(text, n);
        expect_ok(bft_cursor_record(cursor, &key, &got));
        assert_int_equal(want.len, key.len);
        assert_memory_equal(want.data, key.data, key.len);
        value_of(n, version, value);
        assert_int_equal(VALUE, got.len);
        assert_memory_equal(value, got.data, VALUE);
        status = bft_cursor_next(cursor);
    }
    if (status != BFT_OK)
        expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return n - from;
}

static void ask(bft_tree *tree, unsigned version)
{
    static struct {
        bft_answer item[ASKED];
        char text[ASKED][16], value[ASKED][VALUE];
    } asked;
    for (unsigned i = 0; i < ASKED; i++)
        asked.item[i] = (bft_answer){
            .key = key_of(asked.text[i], random_below(RECORDS + 100)),
            .buf = asked.value[i],
            .buf_len = VALUE};
    expect_ok(bft_multi_get(tree, asked.item, ASKED));
    for (unsigned i = 0; i < ASKED; i++) {
        uint64_t n = strtoul(asked.text[i], NULL, 10);
        char value[VALUE];
        value_of(n, version, value);
        expect_status(n < RECORDS ? BFT_OK : BFT_NOT_FOUND,
                      asked.item[i].status);
        if (n < RECORDS)
            assert_memory_equal(value, asked.value[i], VALUE);
    }
}

/* --- what is read when ------------------------------------------------------- */

static void a_multi_get_hands_its_leaves_over_together(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    (void)state;
    (void)scan(tree, 0, 1, 0); /* the first read that seems to wait */
    calls_forget();
    ask(tree, 0);
    /* All of them in a few batches; what reads for itself is inner nodes. */
    assert_in_range(atomic_load(&calls.submitted), ASKED / 2, ASKED + 1);
    assert_in_range(atomic_load(&calls.submits), 2, 5);
    assert_in_range(atomic_load(&calls.singles), 0, 12);
    engine_fixture_free(f);
}

static void a_scan_hands_over_the_leaves_that_follow(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    uint64_t leaves;
    (void)state;
    leaves = engine_stats(f).page_misses;
    assert_int_equal(RECORDS, scan(tree, 0, 2 * RECORDS, 0));
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(leaves, 500, RECORDS);
    /* Each once, and most of them in full batches. */
    assert_in_range(atomic_load(&calls.submitted) + atomic_load(&calls.singles),
                    leaves, leaves + leaves / 16);
    assert_in_range(atomic_load(&calls.submits), 1, leaves / 16);
    assert_in_range(atomic_load(&calls.singles), 0, leaves / 16);
    engine_fixture_free(f);
}

static void a_short_scan_reads_what_it_needs(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    uint64_t extents = engine_stats(f).extents_read;
    (void)state;
    for (unsigned from = 0; from < RECORDS; from += 100)
        assert_int_equal(2, scan(tree, from, 2, 0));
    assert_int_equal(0, atomic_load(&calls.submits));
    assert_in_range(engine_stats(f).extents_read - extents, RECORDS / 100,
                    RECORDS / 100 * 3);
    engine_fixture_free(f);
}

static void a_bound_ends_what_is_read_ahead(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    char text[16];
    uint64_t count;
    (void)state;
    (void)scan(tree, RECORDS - 1, 1, 0);
    calls_forget();
    /* Six records to a leaf, or seven. */
    expect_ok(bft_count(tree, (bft_slice){NULL, 0}, key_of(text, 60), &count));
    assert_int_equal(60, count);
    assert_in_range(atomic_load(&calls.submitted) + atomic_load(&calls.singles),
                    2, 60 / 5 + 2);
    engine_fixture_free(f);
}

static uint64_t still_ns(void *ctx)
{
    (void)ctx;
    return 1;
}

static void nothing_is_read_ahead_where_reads_are_quick(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    (void)state;
    ask(tree, 0);
    f->env.now_ns = still_ns;
    for (unsigned i = 0; i < 3; i++)
        (void)scan(tree, i * 1000, 500, 0); /* so many that it is believed */
    calls_forget();
    ask(tree, 0);
    (void)scan(tree, 4000, 1000, 0);
    assert_int_equal(0, atomic_load(&calls.submits));
    engine_fixture_free(f);
}

/* Two scans that take turns do not throw out what the other's was read for. */
static void scans_that_take_turns_keep_theirs(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    bft_cursor *cursor[2];
    char text[16];
    uint64_t leaves;
    (void)state;
    for (unsigned c = 0; c < 2; c++) {
        expect_ok(bft_cursor_open(tree, &cursor[c]));
        expect_ok(
            bft_cursor_seek(cursor[c], BFT_GE, key_of(text, c * RECORDS / 2)));
    }
    leaves = engine_stats(f).page_misses;
    calls_forget();
    for (unsigned n = 1; n < 3000; n++)
        for (unsigned c = 0; c < 2; c++) {
            bft_slice key;
            expect_ok(bft_cursor_next(cursor[c]));
            expect_ok(bft_cursor_key(cursor[c], &key));
            assert_memory_equal(key_of(text, n + c * RECORDS / 2).data,
                                key.data, 8);
        }
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(atomic_load(&calls.submitted) + atomic_load(&calls.singles),
                    leaves, leaves + leaves / 8);
    bft_cursor_close(cursor[0]);
    bft_cursor_close(cursor[1]);
    engine_fixture_free(f);
}

static void what_was_read_ahead_counts_against_the_budget(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, false, &tree);
    size_t before, after;
    (void)state;
    (void)scan(tree, 0, 10, 0);
    before = bfti_threads_bytes(buffer_of(f)->threads);
    (void)scan(tree, 0, RECORDS, 0);
    after = bfti_threads_bytes(buffer_of(f)->threads);
    assert_in_range(after - before, 16 << 10, MEMORY / 64 + (16 << 10));
    engine_fixture_free(f);
}

static void evictions_wait_together_for_what_they_read(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    char text[16], value[VALUE];
    uint64_t evicted;
    (void)state;
    for (unsigned n = 0; n < RECORDS; n += 20) {
        value_of(n, 0, value);
        expect_ok(bft_put(tree, key_of(text, n), (bft_slice){value, VALUE}));
    }
    evicted = engine_stats(f).evictions_dirty;
    calls_forget();
    for (unsigned i = 0; i < 100; i++)
        expect_ok(bfti_evict_several(buffer_of(f), rec_of(f), 16, MEMORY / 64));
    evicted = engine_stats(f).evictions_dirty - evicted;
    assert_in_range(evicted, RECORDS / 40, RECORDS / 20 + 20);
    assert_in_range(atomic_load(&calls.submitted), evicted / 2, evicted + 16);
    assert_in_range(atomic_load(&calls.submits), 1, evicted / 4);
    assert_in_range(atomic_load(&calls.singles), 0, evicted / 4);
    expect_ok(bft_verify(f->db));
    assert_int_equal(RECORDS, scan(tree, 0, 2 * RECORDS, 0));
    engine_fixture_free(f);
}

/* --- what becomes of it ------------------------------------------------------ */

/* The ids of leaves in the middle of the tree. */
static size_t some_leaves(struct engine_fixture *f, bft_tree *tree,
                          uint64_t ids[LEAVES])
{
    struct bfti_rec *rec = rec_of(f);
    char text[16];
    size_t n;
    bfti_read_begin(rec);
    n = bfti_inner_following(bfti_tree_root(bfti_handle_tree(tree)),
                             key_of(text, RECORDS / 2), false, ids, LEAVES);
    bfti_read_end(rec);
    assert_int_equal(LEAVES, n);
    return n;
}

static uint64_t place_of(struct engine_fixture *f, uint64_t id)
{
    uint64_t word = bfti_entry_word(bfti_table_entry(buffer_of(f)->table, id));
    assert_true(bfti_word_on_disk(word));
    return bfti_word_extent(word);
}

static void it_is_given_once_and_only_until_space_is_released(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, false, &tree);
    uint64_t ids[LEAVES], place[LEAVES];
    int owner = 0;
    (void)state;
    (void)scan(tree, RECORDS / 2, 50, 0); /* nodes are in memory */
    (void)some_leaves(f, tree, ids);
    for (size_t i = 0; i < LEAVES; i++)
        place[i] = place_of(f, ids[i]);
    assert_int_equal(LEAVES, bfti_ahead_read(buffer_of(f), rec_of(f), &owner,
                                             ids, LEAVES, 1 << 16));
    assert_non_null(bfti_ahead_take(buffer_of(f), rec_of(f), place[0]));
    assert_null(bfti_ahead_take(buffer_of(f), rec_of(f), place[0]));
    assert_non_null(bfti_ahead_take(buffer_of(f), rec_of(f), place[1]));
    expect_ok(bfti_space_release(buffer_of(f)->pf));
    for (size_t i = 0; i < LEAVES; i++)
        assert_null(bfti_ahead_take(buffer_of(f), rec_of(f), place[i]));
    assert_int_equal(LEAVES, bfti_ahead_read(buffer_of(f), rec_of(f), &owner,
                                             ids, LEAVES, 1 << 16));
    bfti_ahead_drop(rec_of(f), &owner);
    assert_null(bfti_ahead_take(buffer_of(f), rec_of(f), place[2]));
    /* No more than there is room for. */
    assert_in_range(
        bfti_ahead_read(buffer_of(f), rec_of(f), &owner, ids, LEAVES, 2048), 1,
        4);
    engine_fixture_free(f);
}

/* Between two steps of a cursor all is rewritten, and the space reused. */
static void what_is_read_ahead_is_never_old(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, false, &tree);
    bft_cursor *cursor;
    char text[16], value[VALUE];
    unsigned version = 0;
    (void)state;
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    for (unsigned n = 0; n < RECORDS; n++) {
        bft_slice key, got;
        expect_ok(bft_cursor_next(cursor));
        expect_ok(bft_cursor_record(cursor, &key, &got));
        assert_memory_equal(key_of(text, n).data, key.data, 8);
        value_of(n, version, value);
        assert_memory_equal(value, got.data, VALUE);
        if (n % 500 != 250)
            continue;
        version++;
        for (unsigned i = n > 100 ? n - 100 : 0; i < RECORDS; i++) {
            value_of(i, version, value);
            expect_ok(
                bft_put(tree, key_of(text, i), (bft_slice){value, VALUE}));
        }
        expect_ok(bft_checkpoint(f->db));
        for (unsigned i = 0; i < 200; i++) {
            bool done;
            expect_ok(bfti_evict_one(buffer_of(f), rec_of(f), &done));
        }
    }
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

/* Leaves with deltas: those are of the batch, and what lies beneath is. */
static void lists_of_deltas_are_read_ahead(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(ENGINE_SIM, true, true, &tree);
    char text[16], value[VALUE];
    uint64_t leaves, deltas = engine_stats(f).deltas;
    (void)state;
    buffer_of(f)->hurried = true;
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned n = 0; n < RECORDS; n += 7) {
            value_of(n, 0, value);
            expect_ok(
                bft_put(tree, key_of(text, n), (bft_slice){value, VALUE}));
        }
        for (bool done = true; done;)
            expect_ok(bfti_evict_one(buffer_of(f), rec_of(f), &done));
        for (unsigned i = 0; i < 3000; i++) {
            bool done;
            expect_ok(bfti_evict_one(buffer_of(f), rec_of(f), &done));
        }
    }
    assert_in_range(engine_stats(f).deltas - deltas, 500, 1 << 20);
    tree = reopened(f);
    leaves = engine_stats(f).page_misses;
    assert_int_equal(RECORDS, scan(tree, 0, 2 * RECORDS, 0));
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(atomic_load(&calls.singles), 0, leaves / 8);
    ask(tree, 0);
    engine_fixture_free(f);
}

/* --- every backend ----------------------------------------------------------- */

static void answers_are_those_of_single_reads(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        bft_tree *tree;
        struct engine_fixture *f =
            make((enum engine_backend)b, true, false, &tree);
        for (unsigned i = 0; i < 20; i++) {
            ask(tree, 0);
            (void)scan(tree, (unsigned)random_below(RECORDS), 300, 0);
        }
        assert_int_equal(RECORDS, scan(tree, 0, 2 * RECORDS, 0));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_multi_get_hands_its_leaves_over_together),
        cmocka_unit_test(a_scan_hands_over_the_leaves_that_follow),
        cmocka_unit_test(a_short_scan_reads_what_it_needs),
        cmocka_unit_test(a_bound_ends_what_is_read_ahead),
        cmocka_unit_test(nothing_is_read_ahead_where_reads_are_quick),
        cmocka_unit_test(scans_that_take_turns_keep_theirs),
        cmocka_unit_test(what_was_read_ahead_counts_against_the_budget),
        cmocka_unit_test(evictions_wait_together_for_what_they_read),
        cmocka_unit_test(it_is_given_once_and_only_until_space_is_released),
        cmocka_unit_test(what_is_read_ahead_is_never_old),
        cmocka_unit_test(lists_of_deltas_are_read_ahead),
        cmocka_unit_test(answers_are_those_of_single_reads),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
