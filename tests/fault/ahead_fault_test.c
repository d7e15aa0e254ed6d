/*
 * Reads of a batch that fail: each in turn, of multi-gets and of scans that read
 * ahead.  What goes wrong concerns the leaf that it was read for and no other; a
 * read that fails once is made again; damage that stays is told as of a single
 * read, with the place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"

enum { RECORDS = 1500, VALUE = 60, ASKED = 40, STEP = RECORDS / ASKED };

struct world {
    struct engine_fixture *f;
    bft_tree *tree;
    bft_answer item[ASKED];
    char text[ASKED][16], value[ASKED][VALUE];
};

static bft_slice key_of(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%08u", n)};
}

static void value_of(unsigned n, char value[VALUE])
{
    memset(value, 'a' + (int)(n % 26), VALUE);
}

/* The whole database is read anew: nothing of it is in memory but inner nodes,
 * and reads seem to wait. */
static void world_reopen(struct world *w)
{
    char text[16], value[VALUE];
    size_t len;
    engine_reopen(w->f);
    w->tree = engine_tree(w->f, "t", 0);
    for (unsigned n = STEP / 2; n < RECORDS; n += 2 * STEP)
        expect_ok(
            bft_get(w->tree, key_of(text, n), value, sizeof(value), &len));
    for (unsigned i = 0; i < ASKED; i++)
        w->item[i] = (bft_answer){.key = key_of(w->text[i], i * STEP),
                                  .buf = w->value[i],
                                  .buf_len = VALUE};
}

static void world_make(struct world *w)
{
    char text[16], value[VALUE];
    memset(w, 0, sizeof(*w));
    w->f = engine_fixture_make(ENGINE_SIM);
    w->f->options.no_threads = true;
    w->f->options.memory_bytes = 4 << 20;
    w->f->options.log_bytes = 2 << 20;
    w->f->options.promote_percent = 1;
    engine_slow_reads(w->f, true);
    engine_open(w->f);
    w->tree = engine_tree(w->f, "t", 512);
    for (unsigned n = 0; n < RECORDS; n++) {
        value_of(n, value);
        expect_ok(bft_put(w->tree, key_of(text, n), (bft_slice){value, VALUE}));
    }
    world_reopen(w);
}

static void world_free(struct world *w)
{
    bfti_sim_heal(w->f->vfs);
    engine_fixture_free(w->f);
}

static void expect_answer(const struct world *w, unsigned i)
{
    char value[VALUE];
    value_of(i * STEP, value);
    expect_ok(w->item[i].status);
    assert_int_equal(VALUE, w->item[i].value_len);
    assert_memory_equal(value, w->value[i], VALUE);
}

/* A text says of an extent of the page file where it is. */
static void expect_place_named(void)
{
    char text[400] = "";
    (void)bft_last_error(text, sizeof(text));
    if (!strstr(text, "/db") || !strstr(text, "extent at byte"))
        fail_msg("\"%s\" does not say where", text);
}

/* Rows from the first record on; those that are damaged are jumped over by
 * going on behind them.  Returns how many calls failed with WANT. */
static unsigned scan(const struct world *w, bft_status want)
{
    char text[16], value[VALUE];
    bft_cursor *cursor;
    unsigned n = 0, failed = 0;
    expect_ok(bft_cursor_open(w->tree, &cursor));
    while (n < RECORDS) {
        bft_slice key, got, expected = key_of(text, n);
        bft_status status = bft_cursor_seek(cursor, BFT_GE, expected);
        for (; status == BFT_OK; status = bft_cursor_next(cursor), n++) {
            expected = key_of(text, n);
            expect_ok(bft_cursor_record(cursor, &key, &got));
            assert_int_equal(expected.len, key.len);
            assert_memory_equal(expected.data, key.data, key.len);
            value_of(n, value);
            assert_memory_equal(value, got.data, VALUE);
        }
        if (status == BFT_NOT_FOUND)
            break;
        expect_status(want, status);
        failed++;
        n++;
    }
    assert_int_equal(RECORDS, n);
    bft_cursor_close(cursor);
    return failed;
}

/* How many calls or items fail when read N does. */
static unsigned with_fault(struct world *w, uint64_t n, enum bfti_sim_harm harm,
                           bool scanning)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                   .path = "data",
                                   .nth = n,
                                   .harm = harm,
                                   .status = BFT_IO};
    unsigned failed = 0;
    bft_status status;
    bfti_sim_fail(w->f->vfs, &fault);
    if (scanning) {
        failed = scan(w, harm == BFTI_SIM_REFUSE ? BFT_IO : BFT_CORRUPT);
    } else {
        status = bft_multi_get(w->tree, w->item, ASKED);
        for (unsigned i = 0; i < ASKED; i++)
            if (w->item[i].status == BFT_OK)
                expect_answer(w, i);
            else
                failed++;
        assert_int_equal(failed == 0, status == BFT_OK);
    }
    bfti_sim_heal(w->f->vfs);
    return failed;
}

/* FAILURES: that may be seen in all. */
static void every_read_fails_once(enum bfti_sim_harm harm, bool scanning,
                                  unsigned failures)
{
    uint64_t struck = 1, n = 1;
    unsigned failed = 0;
    struct world w;
    world_make(&w);
    for (; struck; n++) {
        uint64_t before = bfti_sim_struck(w.f->vfs);
        world_reopen(&w);
        failed += with_fault(&w, n, harm, scanning);
        struck = bfti_sim_struck(w.f->vfs) - before;
    }
    print_message("%u reads, %u failures\n", (unsigned)n - 2, failed);
    assert_true(n > ASKED / 2);
    assert_in_range(failed, 0, failures);
    world_free(&w);
}

static void a_multi_get_reads_again_what_failed(void **state)
{
    (void)state;
    every_read_fails_once(BFTI_SIM_REFUSE, false, 0);
    every_read_fails_once(BFTI_SIM_FLIP, false, 0);
    every_read_fails_once(BFTI_SIM_SHORT, false, 0);
}

/* But for the first leaf, which nothing is read ahead for. */
static void a_scan_reads_again_what_failed(void **state)
{
    (void)state;
    every_read_fails_once(BFTI_SIM_REFUSE, true, 2);
    every_read_fails_once(BFTI_SIM_FLIP, true, 2);
}

/* The place of the leaf with record N, 0: it came to stay in memory. */
static uint64_t place_of(const struct world *w, unsigned n, uint64_t *id)
{
    struct bfti_buffer *buffer = &w->f->db->engine->buffer;
    struct bfti_rec *rec = bfti_rec_current(buffer->threads);
    uint64_t word;
    char text[16];
    bfti_read_begin(rec);
    *id = bfti_inner_find(bfti_tree_root(bfti_handle_tree(w->tree)),
                          key_of(text, n));
    bfti_read_end(rec);
    word = bfti_entry_word(bfti_table_entry(buffer->table, *id));
    return bfti_word_on_disk(word) ? bfti_word_extent(word) : 0;
}

static void damage_hurts_its_leaf_alone(void **state)
{
    struct world w;
    unsigned hurts = 0;
    (void)state;
    world_make(&w);
    for (unsigned hurt = 0; hurt < ASKED; hurt++) {
        uint64_t id, other, at, place = place_of(&w, hurt * STEP, &id);
        if (place == 0)
            continue;
        hurts++;
        at = bfti_disk_grain(place) * BFTI_GRAIN + 100;
        expect_ok(bfti_sim_flip(w.f->vfs, "/db/data", at, 4));
        expect_status(BFT_CORRUPT, bft_multi_get(w.tree, w.item, ASKED));
        expect_place_named();
        for (unsigned i = 0; i < ASKED; i++) {
            (void)place_of(&w, i * STEP, &other);
            if (other == id)
                expect_status(BFT_CORRUPT, w.item[i].status);
            else
                expect_answer(&w, i);
        }
        if (hurt % 8 == 0)
            assert_true(scan(&w, BFT_CORRUPT) > 0);
        expect_ok(bfti_sim_flip(w.f->vfs, "/db/data", at, 4));
        world_reopen(&w);
    }
    assert_in_range(hurts, ASKED / 2, ASKED);
    world_free(&w);
}

/* Memory that is not there for reading ahead: it goes on one by one. */
static void memory_may_run_out_for_it(void **state)
{
    struct world w;
    uint64_t allocs = 1;
    (void)state;
    world_make(&w);
    for (int64_t n = 0; n < (int64_t)allocs; n++) {
        world_reopen(&w);
        atomic_store(&w.f->allocs, 0);
        atomic_store(&w.f->allocs_left, n);
        (void)(bft_multi_get(w.tree, w.item, ASKED) == BFT_OK);
        atomic_store(&w.f->allocs_left, -1);
        allocs = (uint64_t)atomic_load(&w.f->allocs);
        for (unsigned i = 0; i < ASKED; i++)
            if (w.item[i].status != BFT_NO_MEMORY)
                expect_answer(&w, i);
    }
    assert_in_range(allocs, 1, 1000);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_multi_get_reads_again_what_failed),
        cmocka_unit_test(a_scan_reads_again_what_failed),
        cmocka_unit_test(damage_hurts_its_leaf_alone),
        cmocka_unit_test(memory_may_run_out_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
