/*
 * Where leaves come to lie in the file that were filled in random order: what is
 * evicted, and what a checkpoint writes, lies as its keys do, for scans.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "index/inner.h"
#include "random.h"

enum { LEAF = 1024, RECORDS = 20000, VALUE = 60, STRETCH = 64, PRIME = 7919 };

static bft_slice key_of(char buf[24], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 24, "key-%06u", i)};
}

/* All keys, far from the last at each step. */
static void fill(bft_tree *tree)
{
    static const uint8_t value[VALUE];
    unsigned at = (unsigned)random_below(RECORDS);
    for (unsigned i = 0; i < RECORDS; i++) {
        char buf[24];
        at = (at + PRIME) % RECORDS;
        expect_ok(
            bft_put(tree, key_of(buf, at), (bft_slice){value, sizeof(value)}));
    }
}

/* Of the leaves that are on the disk only, without deltas, how many lie behind the
 * one before them, by less than a few blocks? */
static double share_in_order(bft_tree *tree, unsigned *leaves)
{
    struct bfti_engine *engine = tree->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    uint8_t buf[2][BFTI_KEY_MAX];
    bft_slice key = {NULL, 0};
    uint64_t last = 0;
    unsigned ordered = 0, next = 0;
    *leaves = 0;
    do {
        uint64_t ids[STRETCH];
        size_t n, len;
        bfti_read_begin(rec);
        n = bfti_inner_stretch(bfti_tree_root(bfti_handle_tree(tree)), key, ids,
                               STRETCH, buf[next], &len);
        bfti_read_end(rec);
        key = (bft_slice){buf[next], len};
        next = !next;
        for (size_t i = 0; i < n; i++) {
            uint64_t word =
                bfti_entry_word(bfti_table_entry(engine->buffer.table, ids[i]));
            uint64_t grain;
            if (!bfti_word_on_disk(word) || bfti_word_deltas(word))
                continue;
            grain = bfti_disk_grain(bfti_word_extent(word));
            ordered +=
                grain > last && grain - last <= 4 * BFTI_BLOCK / BFTI_GRAIN;
            last = grain;
            ++*leaves;
        }
    } while (key.len);
    return (double)ordered / *leaves;
}

static struct engine_fixture *open_filled(uint64_t log_bytes, bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    f->options.memory_bytes = 64 << 20;
    f->options.no_threads = true;
    f->options.log_bytes = log_bytes;
    engine_open(f);
    *tree = engine_tree(f, "t", LEAF);
    fill(*tree);
    return f;
}

static void evict_all(struct engine_fixture *f)
{
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    struct bfti_rec *rec = bfti_rec_current(buffer->threads);
    for (unsigned i = 0; i < 200; i++)
        expect_ok(bfti_evict_several(buffer, rec, BFTI_EVICT_MAX, 0));
}

static void expect_order(bft_tree *tree, double least)
{
    unsigned leaves;
    double share = share_in_order(tree, &leaves);
    print_message("           of %u leaves %.2f\n", leaves, share);
    assert_in_range(leaves, 1000, RECORDS);
    assert_true(share > least);
}

static void what_is_evicted_lies_in_order(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(64 << 20, &tree);
    (void)state;
    evict_all(f);
    expect_order(tree, 0.65); /* 0.8; 0.58 if each goes alone */
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void what_is_flushed_lies_in_order(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(1 << 20, &tree);
    uint64_t written;
    (void)state;
    expect_ok(bft_checkpoint(f->db));
    /* What is left in memory is on the disk as well: nothing is written. */
    written = engine_stats(f).extents_written;
    evict_all(f);
    assert_int_equal(written, engine_stats(f).extents_written);
    expect_order(tree, 0.4); /* 0.7; 0.1 in the order of ids */
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_evicted_lies_in_order),
        cmocka_unit_test(what_is_flushed_lies_in_order),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
