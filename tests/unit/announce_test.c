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
#include "random.h"

enum { RECORDS = 8000, VALUE = 60, ASKED = 200, SLOW_NS = 10000 };

/* The surroundings of these tests: each look at the clock moves it on, so that a
 * read seems to take so long; files count what is announced. */
static struct {
    const struct bfti_vfs_ops *vfs;
    struct bfti_vfs_ops patched, files;
    _Atomic uint64_t now, step;
    _Atomic unsigned announced;
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
    assert_int_equal(0, offset % 4096);
    assert_in_range(len, 512, 1 << 16);
    assert_true(offset + len <= bytes);
    atomic_fetch_add(&around.announced, 1);
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
static struct engine_fixture *make(bft_tree **tree)
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
    *tree = engine_tree(f, "t", 512);
    memset(value, 'v', VALUE);
    for (unsigned n = 0; n < RECORDS; n++)
        expect_ok(bft_put(*tree, key_of(text, n), (bft_slice){value, VALUE}));
    engine_reopen(f);
    *tree = engine_tree(f, "t", 0);
    atomic_store(&around.announced, 0);
    return f;
}

static void scan(bft_tree *tree)
{
    bft_cursor *cursor;
    unsigned n = 0;
    bft_status status;
    expect_ok(bft_cursor_open(tree, &cursor));
    for (status = bft_cursor_first(cursor); status == BFT_OK;
         status = bft_cursor_next(cursor), n++) {
        char text[16];
        bft_slice key, want = key_of(text, n);
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
    scan(tree);
    ask(tree);
    assert_int_equal(0, atomic_load(&around.announced));
    engine_fixture_free(f);
}

static void a_scan_announces_the_leaves_that_follow(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    uint64_t leaves;
    (void)state;
    leaves = engine_stats(f).page_misses;
    atomic_store(&around.step, SLOW_NS);
    scan(tree);
    leaves = engine_stats(f).page_misses - leaves;
    /* Each but the first, and none twice. */
    assert_in_range(leaves, 500, RECORDS);
    assert_in_range(atomic_load(&around.announced), leaves / 2, leaves);
    engine_fixture_free(f);
}

/* Scans of N records each, from anywhere, or of BELOW if that is not 0.  Returns how
 * many leaves were announced by the time that each was at its first record. */
static unsigned short_scans(bft_tree *tree, unsigned scans, unsigned records,
                            unsigned below)
{
    unsigned at_once = 0;
    for (unsigned i = 0; i < scans; i++) {
        char text[16], bound[16];
        bft_cursor *cursor;
        unsigned first = (unsigned)random_below(RECORDS - records);
        unsigned before = atomic_load(&around.announced);
        bft_slice high = {NULL, 0};
        if (below)
            high = key_of(bound, first + below);
        expect_ok(bft_cursor_open(tree, &cursor));
        expect_ok(bft_cursor_bounds(cursor, (bft_slice){NULL, 0}, high));
        expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(text, first)));
        at_once += atomic_load(&around.announced) - before;
        for (unsigned n = 1; n < records; n++) {
            bft_slice key, want = key_of(text, first + n);
            if (below && n == below) {
                expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
                break;
            }
            expect_ok(bft_cursor_next(cursor));
            expect_ok(bft_cursor_key(cursor, &key));
            assert_memory_equal(want.data, key.data, want.len);
        }
        bft_cursor_close(cursor);
    }
    return at_once;
}

/* Whose scans end after a few leaves has those read together, and no more. */
static void scans_announce_what_they_usually_come_to(void **state)
{
    enum { SCANS = 300, LONG = 30, WARM = 20 };
    bft_tree *tree;
    struct engine_fixture *f = make(&tree);
    unsigned announced, at_once;
    uint64_t leaves;
    (void)state;
    atomic_store(&around.step, SLOW_NS);
    short_scans(tree, WARM, LONG, 0);
    atomic_store(&around.announced, 0);
    leaves = engine_stats(f).page_misses;
    at_once = short_scans(tree, SCANS, LONG, 0);
    announced = atomic_load(&around.announced);
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(leaves, 3 * SCANS, LONG * SCANS);
    assert_in_range(announced, leaves - 2 * SCANS, leaves - SCANS / 2);
    /* What goes twice as far as the others is all that announces more. */
    assert_in_range(at_once, announced - announced / 10, announced);

    /* Not what lies behind a bound, wherever they would come to without it. */
    atomic_store(&around.announced, 0);
    at_once = short_scans(tree, SCANS, LONG, 1);
    assert_in_range(at_once, 0, SCANS / 2);

    /* Who looks at one record learns to announce nothing, and then to go on. */
    short_scans(tree, WARM, 1, 0);
    atomic_store(&around.announced, 0);
    short_scans(tree, SCANS, 1, 0);
    assert_int_equal(0, atomic_load(&around.announced));
    leaves = engine_stats(f).page_misses;
    scan(tree);
    leaves = engine_stats(f).page_misses - leaves;
    assert_in_range(atomic_load(&around.announced), leaves / 2, leaves);
    engine_fixture_free(f);
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
    scan(tree);
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
        cmocka_unit_test(scans_announce_what_they_usually_come_to),
        cmocka_unit_test(a_multi_get_announces_its_leaves),
        cmocka_unit_test(a_hint_is_taken_of_any_place),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
