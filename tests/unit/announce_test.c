/*
 * Where reads wait for a device, those that will follow are announced: of a scan
 * the leaves after the one it is at, of a multi-get those of its next keys.
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
#include "index/image.h"
#include "random.h"

/* Leaves that share no blocks; or, with SHORT values, leaves that do. */
enum { RECORDS = 8000, VALUE = 480, SHORT = 60, ASKED = 200, SLOW_NS = 10000 };

/* The surroundings of these tests: each look at the clock moves it on, so that a
 * read seems to take so long; files count the blocks that are announced. */
static struct {
    const struct bfti_vfs_ops *vfs;
    struct bfti_vfs_ops patched, files;
    _Atomic uint64_t now, step;
    _Atomic unsigned announced, requests;
} around;

static uint64_t stepping_ns(void *ctx)
{
    (void)ctx;
    return atomic_fetch_add(&around.now, atomic_load(&around.step));
}

static void count(struct bfti_file *file, uint64_t offset, size_t len)
{
    uint64_t bytes;
    assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(0, offset % 512);
    assert_in_range(len, 512, 1 << 20);
    assert_true(offset + len <= bytes);
    atomic_fetch_add(&around.announced, (unsigned)((len + 4095) / 4096));
    atomic_fetch_add(&around.requests, 1);
}

static bft_status open_counted(struct bfti_vfs *vfs, const char *path,
                               int flags, struct bfti_file **out)
{
    bft_status status = around.vfs->open(vfs, path, flags, out);
    if (status == BFT_OK) {
        around.files = *(*out)->ops;
        around.files.advise = count;
        (*out)->ops = &around.files;
    }
    return status;
}

static bft_slice key_of(char text[16], uint64_t n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%08u", (unsigned)n)};
}

/* A database of far more leaves than its memory holds, with nothing cached. */
static struct engine_fixture *make_of(bft_tree **tree, uint32_t leaf_bytes,
                                      size_t len)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    char text[16], value[VALUE];
    around.vfs = f->vfs->ops;
    around.patched = *f->vfs->ops;
    around.patched.open = open_counted;
    f->vfs->ops = &around.patched;
    f->env.now_ns = stepping_ns;
    atomic_store(&around.step, 1);
    f->options.no_threads = true;
    f->options.promote_percent = 1;
    engine_open(f);
    *tree = engine_tree(f, "t", leaf_bytes);
    memset(value, 'v', len);
    for (unsigned n = 0; n < RECORDS; n++)
        expect_ok(bft_put(*tree, key_of(text, n), (bft_slice){value, len}));
    engine_reopen(f);
    *tree = engine_tree(f, "t", 0);
    atomic_store(&around.announced, 0);
    return f;
}

static struct engine_fixture *make(bft_tree **tree)
{
    return make_of(tree, 4096, VALUE);
}

static bft_status step(bft_cursor *cursor, bool back)
{
    return back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
}

static void scan(bft_tree *tree, bool back)
{
    bft_cursor *cursor;
    unsigned n = 0;
    bft_status status;
    expect_ok(bft_cursor_open(tree, &cursor));
    /* The first step of a cursor that is nowhere is to that end. */
    for (status = step(cursor, back); status == BFT_OK;
         status = step(cursor, back), n++) {
        char text[16];
        bft_slice key, want = key_of(text, back ? RECORDS - 1 - n : n);
        expect_ok(bft_cursor_key(cursor, &key));
        assert_int_equal(want.len, key.len);
        assert_memory_equal(want.data, key.data, key.len);
    }
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(RECORDS, n);
    bft_cursor_close(cursor);
}

static void ask(bft_tree *tree)
{
    static struct {
        bft_answer item[ASKED];
        char text[ASKED][16], value[ASKED][VALUE];
    } asked;
    for (unsigned i = 0; i < ASKED; i++)
        asked.item[i] = (bft_answer){
            .key = key_of(asked.text[i], random_below(2 * (uint64_t)RECORDS)),
            .buf = asked.value[i],
            .buf_len = VALUE};
    expect_ok(bft_multi_get(tree, asked.item, ASKED));
    for (unsigned i = 0; i < ASKED; i++) {
        bool there = strtoul(asked.text[i], NULL, 10) < RECORDS;
        assert_int_equal(there ? BFT_OK : BFT_NOT_FOUND, asked.item[i].status);
        assert_int_equal(there ? VALUE : 0, asked.item[i].value_len);
    }
}

static void nothing_is_announced_where_reads_are_quick(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    (void)state;
    scan(tree, false);
    scan(tree, true);
    ask(tree);
    assert_int_equal(0, atomic_load(&around.announced));
    engine_fixture_free(f);
}

static void a_scan_announces_the_leaves_that_follow(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    (void)state;
    atomic_store(&around.step, SLOW_NS);
    for (int back = 0; back < 2; back++) {
        uint64_t leaves = engine_stats(f).page_misses;
        atomic_store(&around.announced, 0);
        atomic_store(&around.requests, 0);
        scan(tree, back);
        leaves = engine_stats(f).page_misses - leaves;
        /* Each but the first, and none twice. */
        assert_in_range(leaves, 500, RECORDS);
        assert_in_range(atomic_load(&around.announced), leaves / 2, leaves);
        /* Many lie side by side. */
        assert_in_range(atomic_load(&around.requests), leaves / 128,
                        leaves / 2);
    }
    engine_fixture_free(f);
}

/* Much is announced ahead of a scan that goes on, but where the next leaves' inner
 * node is not in memory: it does not come to an end each time, and wait there. */
static void a_scan_that_goes_on_has_much_announced(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    bft_cursor *cursor;
    uint64_t before = engine_stats(f).page_misses;
    unsigned much = 0;
    (void)state;
    atomic_store(&around.step, SLOW_NS);
    expect_ok(bft_cursor_open(tree, &cursor));
    for (unsigned n = 0; n < RECORDS / 2; n++) {
        expect_ok(bft_cursor_next(cursor));
        much += atomic_load(&around.announced) >
                engine_stats(f).page_misses - before + 50;
    }
    assert_in_range(much, RECORDS / 4, RECORDS / 2);
    /* Elsewhere what was announced is of no use. */
    atomic_store(&around.announced, 0);
    before = engine_stats(f).page_misses;
    char text[16];
    expect_ok(bft_cursor_bounds(cursor, key_of(text, RECORDS / 4 * 3),
                                (bft_slice){NULL, 0}));
    for (unsigned n = 0; n < RECORDS / 16; n++)
        expect_ok(bft_cursor_next(cursor));
    assert_true(atomic_load(&around.announced) >
                (engine_stats(f).page_misses - before) / 2);
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

/* A checkpoint announces the leaves that it is to merge with what was put blindly,
 * and no others; also one that must make its image of whole leaves, because there
 * are large values. */
static void a_checkpoint_announces_what_it_merges(void **state)
{
    enum { PUTS = 100, APART = RECORDS / PUTS };
    enum { DELTAS, STAGES, WHOLE };
    bft_tree *tree;
    struct engine_fixture *f;
    char text[16], value[VALUE], large[2000] = "";
    (void)state;
    f = make_of(&tree, 512, SHORT);
    memset(value, 'w', SHORT);
    for (int way = DELTAS; way <= WHOLE; way++) {
        f->surroundings.small_deltas = way == DELTAS;
        engine_reopen(f);
        tree = engine_tree(f, "t", 0);
        if (way == WHOLE)
            expect_ok(bft_put(tree, (bft_slice){"large", 5},
                              (bft_slice){large, sizeof(large)}));
        assert_int_equal(way == WHOLE,
                         bfti_images_are_whole(tree->tree->engine));
        for (unsigned n = 0; n < PUTS; n++)
            expect_ok(bft_put(tree, key_of(text, (uint64_t)n * APART),
                              (bft_slice){value, SHORT}));
        atomic_store(&around.step, SLOW_NS);
        for (unsigned n = 0; n < 3; n++) /* it is seen that reads take long */
            expect_ok(bft_get(tree, key_of(text, 1 + (uint64_t)n * APART),
                              value, VALUE, &(size_t){0}));
        atomic_store(&around.announced, 0);
        expect_ok(bft_checkpoint(f->db));
        if (way == DELTAS)
            assert_int_equal(0, atomic_load(&around.announced));
        else
            /* Deltas of the first round lie eight in a block. */
            assert_in_range(atomic_load(&around.announced), PUTS / 8, PUTS);
        atomic_store(&around.step, 1);
    }
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* How scans are made: of so many records each, from anywhere, and within a bound
 * that leaves BOUND of them, if that is not 0. */
struct scans {
    unsigned times, records, bound;
    bool back;
};

static void set_bound(bft_cursor *cursor, const struct scans *s, unsigned first)
{
    char text[16];
    bft_slice none = {NULL, 0}, key;
    if (!s->bound)
        return;
    key = key_of(text, s->back ? first - s->bound + 1 : first + s->bound);
    expect_ok(
        bft_cursor_bounds(cursor, s->back ? key : none, s->back ? none : key));
}

/* Returns how many leaves were announced by the time that each scan was at its first
 * record. */
static unsigned short_scans(bft_tree *tree, const struct scans *s)
{
    unsigned at_once = 0;
    for (unsigned i = 0; i < s->times; i++) {
        char text[16];
        bft_cursor *cursor;
        unsigned first =
            s->records + (unsigned)random_below(RECORDS - 2 * s->records);
        unsigned before = atomic_load(&around.announced);
        expect_ok(bft_cursor_open(tree, &cursor));
        set_bound(cursor, s, first);
        expect_ok(bft_cursor_seek(cursor, s->back ? BFT_LE : BFT_GE,
                                  key_of(text, first)));
        at_once += atomic_load(&around.announced) - before;
        for (unsigned n = 1; n < s->records; n++) {
            bft_slice key, want = key_of(text, s->back ? first - n : first + n);
            if (n == s->bound) {
                expect_status(BFT_NOT_FOUND, step(cursor, s->back));
                break;
            }
            expect_ok(step(cursor, s->back));
            expect_ok(bft_cursor_key(cursor, &key));
            assert_memory_equal(want.data, key.data, want.len);
        }
        bft_cursor_close(cursor);
    }
    return at_once;
}

/* Whose scans end after a few leaves has those read together, and no more. */
static void check_short_scans(bool back)
{
    enum { SCANS = 300, LONG = 30, WARM = 20 };
    const struct scans warm = {WARM, LONG, 0, back},
                       scans = {SCANS, LONG, 0, back},
                       bounded = {SCANS, LONG, 1, back},
                       warm_one = {WARM, 1, 0, back}, one = {SCANS, 1, 0, back};
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    unsigned announced, at_once;
    uint64_t leaves;
    atomic_store(&around.step, SLOW_NS);
    short_scans(tree, &warm);
    atomic_store(&around.announced, 0);
    leaves = engine_stats(f).page_misses;
    at_once = short_scans(tree, &scans);
    announced = atomic_load(&around.announced);
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(leaves, 3 * SCANS, LONG * SCANS);
    assert_in_range(announced, leaves - 2 * SCANS, leaves - SCANS / 2);
    /* What goes twice as far as the others is all that announces more. */
    assert_in_range(at_once, announced - announced / 10, announced);

    /* Not what lies behind a bound, wherever they would come to without it. */
    assert_in_range(short_scans(tree, &bounded), 0, SCANS / 2);

    /* Who looks at one record learns to announce nothing, and then to go on. */
    short_scans(tree, &warm_one);
    atomic_store(&around.announced, 0);
    short_scans(tree, &one);
    assert_int_equal(0, atomic_load(&around.announced));
    leaves = engine_stats(f).page_misses;
    scan(tree, back);
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(atomic_load(&around.announced), leaves / 2, leaves);
    engine_fixture_free(f);
}

static void scans_announce_what_they_usually_come_to(void **state)
{
    (void)state;
    check_short_scans(false);
    check_short_scans(true);
}

static void a_multi_get_announces_its_leaves(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    (void)state;
    atomic_store(&around.step, SLOW_NS);
    ask(tree);
    assert_in_range(atomic_load(&around.announced), ASKED / 3, ASKED);
    /* Quick again, as once the system's cache has them: it stops. */
    atomic_store(&around.step, 1);
    ask(tree);
    atomic_store(&around.announced, 0);
    ask(tree);
    scan(tree, false);
    assert_int_equal(0, atomic_load(&around.announced));
    engine_fixture_free(f);
}

/* A hint may be of anything. */
static void a_hint_is_taken_of_any_place(void **state)
{
    static const enum engine_backend backends[] = {ENGINE_POSIX, ENGINE_DIRECT,
                                                   ENGINE_URING};
    (void)state;
    for (size_t b = 0; b < sizeof(backends) / sizeof(backends[0]); b++) {
        struct engine_fixture *f = engine_fixture_make(backends[b]);
        struct bfti_file *file;
        char path[300];
        snprintf(path, sizeof(path), "%s/file", f->path);
        expect_ok(f->vfs->ops->open(f->vfs, path,
                                    BFTI_OPEN_CREATE | BFTI_OPEN_PAGES, &file));
        if (file->ops->advise) {
            file->ops->advise(file, 0, 4096);
            file->ops->advise(file, UINT64_MAX - 4095, 4096);
            file->ops->advise(file, (uint64_t)1 << 62, 1 << 20);
        }
        file->ops->close(file);
        expect_ok(f->vfs->ops->remove(f->vfs, path));
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_announced_where_reads_are_quick),
        cmocka_unit_test(a_scan_announces_the_leaves_that_follow),
        cmocka_unit_test(a_scan_that_goes_on_has_much_announced),
        cmocka_unit_test(a_checkpoint_announces_what_it_merges),
        cmocka_unit_test(scans_announce_what_they_usually_come_to),
        cmocka_unit_test(a_multi_get_announces_its_leaves),
        cmocka_unit_test(a_hint_is_taken_of_any_place),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
