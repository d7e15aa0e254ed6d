/*
 * Inner nodes and leaves that disagree, each whole by itself, as no damage that a
 * checksum shows would leave them: whoever is led astray says so, and does not look
 * for ever; what is next to it serves.
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
#include "fileio/fault.h"
#include "index/inner_internal.h"

enum { RECORDS = 400, VALUE = 40 };

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
}

static bft_status get(bft_tree *tree, unsigned i)
{
    uint8_t value[VALUE];
    char buf[16];
    size_t len;
    return bft_get(tree, key_of(buf, i), value, sizeof(value), &len);
}

static bft_status put(bft_tree *tree, unsigned i)
{
    static const uint8_t value[VALUE];
    char buf[16];
    return bft_put(tree, key_of(buf, i), (bft_slice){value, VALUE});
}

/* Leaves of 512 bytes under one inner node, all on the disk only. */
static struct engine_fixture *open_filled(bft_tree **tree)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    engine_open(f);
    *tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(put(*tree, i));
    engine_reopen(f);
    *tree = engine_tree(f, "t", 512);
    return f;
}

static struct bfti_table *table_of(const struct engine_fixture *f)
{
    return f->db->engine->buffer.table;
}

/* The node that leads to the leaves. */
static const struct bfti_inner *node_of(bft_tree *tree)
{
    const struct bfti_inner *root = bfti_tree_root(bfti_handle_tree(tree));
    const struct bfti_inner *node = bfti_inner_here(root);
    assert_int_equal(1, root->height);
    assert_true(node->count > 8);
    return node;
}

/* The number of the first key of child I. */
static unsigned first_of(bft_tree *tree, unsigned i)
{
    char text[BFTI_KEY_MAX + 1];
    size_t len = bfti_inner_key(node_of(tree), i, text);
    while (len < strlen("key-") + 6)
        text[len++] = '0';
    text[len] = 0;
    return (unsigned)strtoul(text + strlen("key-"), NULL, 10);
}

static void swap(bft_tree *tree, unsigned i, unsigned j)
{
    uint64_t *word = (uint64_t *)(uintptr_t)bfti_inner_words(node_of(tree));
    uint64_t id = word[i];
    word[i] = word[j];
    word[j] = id;
}

/* The text names the file, the tree and the page. */
static void expect_astray(bft_status status, uint64_t id)
{
    char text[512], page[32];
    expect_status(BFT_CORRUPT, status);
    (void)bft_last_error(text, sizeof(text));
    (void)snprintf(page, sizeof(page), "page %llu ", (unsigned long long)id);
    assert_non_null(strstr(text, "db"));
    assert_non_null(strstr(text, "tree t"));
    assert_non_null(strstr(text, page));
}

static void a_leaf_elsewhere_is_told_by_all_who_come_to_it(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    unsigned first = first_of(tree, 3), behind = first_of(tree, 4);
    unsigned last = first_of(tree, 6);
    char low[16], high[16];
    bft_slice first_key = key_of(low, first), behind_key = key_of(high, behind);
    uint64_t id, count;
    bft_cursor *cursor;
    (void)state;
    swap(tree, 3, 6);
    id = bfti_inner_page(node_of(tree), 3);
    /* Too far to the right, and by the other way too far to the left. */
    expect_astray(get(tree, first), id);
    expect_astray(get(tree, last), bfti_inner_page(node_of(tree), 6));
    expect_astray(bft_count(tree, first_key, behind_key, &count), id);
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_astray(bft_cursor_seek(cursor, BFT_GE, first_key), id);
    expect_astray(bft_cursor_seek(cursor, BFT_LT, behind_key), id);
    bft_cursor_close(cursor);
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    expect_ok(get(tree, first - 1));
    expect_ok(put(tree, behind));
    swap(tree, 3, 6);
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(get(tree, i));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A checkpoint says so, and nothing of it is in the file. */
static void expect_another_range(struct engine_fixture *f)
{
    char text[512];
    bft_tree *tree;
    expect_status(BFT_CORRUPT, bft_checkpoint(f->db));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "another range"));
    expect_status(BFT_CORRUPT, bft_close(f->db));
    f->db = NULL;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        expect_ok(get(tree, i));
    expect_ok(bft_verify(f->db));
}

/* A put that reads nothing is not led back; what it wrote is not joined to what is
 * beneath it. */
static void what_was_put_into_a_leaf_elsewhere_is_not_merged(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    unsigned first = first_of(tree, 3), behind = first_of(tree, 4);
    (void)state;
    swap(tree, 3, 6);
    f->tolerated = BFT_CORRUPT;
    for (unsigned i = first; i < behind; i++) /* more than a delta takes */
        expect_ok(put(tree, i));
    expect_ok(get(tree, first));
    expect_another_range(f);
    engine_fixture_free(f);
}

/* Nor does a delta take the place of that, which it does of a page that cannot be
 * read. */
static void what_was_put_into_a_leaf_elsewhere_is_no_delta(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    unsigned first = first_of(tree, 3);
    (void)state;
    f->surroundings.small_deltas = false;
    engine_reopen(f);
    tree = engine_tree(f, "t", 512);
    expect_ok(get(tree, first)); /* its inner node comes into memory */
    swap(tree, 3, 6);
    f->tolerated = BFT_CORRUPT;
    expect_ok(put(tree, first));
    expect_another_range(f);
    engine_fixture_free(f);
}

/* A page that was never made, or that was given back. */
static void a_leaf_that_is_none_is_told(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    uint64_t id = bfti_inner_page(node_of(tree), 3), word;
    struct bfti_entry *entry = bfti_table_entry(table_of(f), id);
    unsigned first = first_of(tree, 3);
    (void)state;
    word = bfti_entry_word(entry);
    bfti_entry_set(entry, 0);
    expect_astray(get(tree, first), id);
    expect_astray(put(tree, first), id);
    bfti_entry_set(entry, word);
    expect_ok(get(tree, first));
    expect_ok(put(tree, first));
    engine_fixture_free(f);
}

/* The leaf's base page in the file names page SIBLING as its neighbour. */
static void forge_sibling(const struct engine_fixture *f, uint64_t id,
                          uint64_t sibling)
{
    struct bfti_file *file = bfti_pagefile_file(f->db->engine->buffer.pf);
    struct bfti_entry *entry = bfti_table_entry(table_of(f), id);
    uint64_t word = bfti_entry_word(entry);
    uint64_t at = bfti_disk_grain(word) * BFTI_GRAIN;
    struct bfti_extent_header head;
    uint8_t extent[4096];
    struct bfti_run *run = (void *)(extent + BFTI_EXTENT_HEADER);
    size_t got, len;
    expect_ok(file->ops->read(file, at, extent, sizeof(extent), &got));
    memcpy(&head, extent, sizeof(head));
    len = le32_get(head.stored_len);
    assert_true(len <= got);
    assert_int_equal(0, head.codec);
    run->sibling = le64_of(sibling);
    head.checksum =
        le32_of(bfti_crc32c(0, extent + sizeof(le32), len - sizeof(le32)));
    memcpy(extent, &head, sizeof(head));
    expect_ok(file->ops->write(file, at, extent, len));
    bfti_entry_set(entry, bfti_disk_place(bfti_disk_grain(word),
                                          bfti_disk_grains(word),
                                          le32_get(head.checksum) & 0xffff));
}

static void a_neighbour_that_was_never_made_is_told(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    uint64_t id = bfti_inner_page(node_of(tree), 3);
    uint64_t next = bfti_inner_page(node_of(tree), 4);
    unsigned first = first_of(tree, 3);
    char text[512];
    (void)state;
    forge_sibling(f, id, bfti_table_ids(table_of(f)));
    expect_status(BFT_CORRUPT, get(tree, first));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "neighbour"));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    forge_sibling(f, id, next);
    expect_ok(get(tree, first));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static struct {
    bft_tree *tree;
    struct bfti_entry *entry;
    unsigned looks, until;
} at_work;

/* Who is at work on the leaf ends with it. */
static void work(const char *point)
{
    if (strcmp(point, "read:leaf-chosen") != 0 &&
        strcmp(point, "write:leaf-chosen") != 0)
        return;
    if (++at_work.looks != at_work.until)
        return;
    swap(at_work.tree, 3, 6);
    bfti_unlatch(bfti_env_system(), at_work.entry, true);
}

static void begin_work(const struct engine_fixture *f, bft_tree *tree,
                       unsigned until)
{
    uint64_t id = bfti_inner_page(node_of(tree), 6); /* 3, once they change */
    at_work.tree = tree;
    at_work.entry = bfti_table_entry(table_of(f), id);
    at_work.looks = 0;
    at_work.until = until;
    assert_true(bfti_latch_try(at_work.entry));
    swap(tree, 3, 6);
}

/* Who holds the latch may be about to mend it. */
static void a_leaf_that_somebody_is_at_is_not_judged(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    (void)state;
    atomic_store(&bfti_park, work);
    begin_work(f, tree, 20);
    expect_ok(get(tree, first_of(tree, 3)));
    assert_true(at_work.looks >= 20);
    begin_work(f, tree, 3);
    expect_ok(put(tree, first_of(tree, 3)));
    assert_true(at_work.looks >= 3);
    atomic_store(&bfti_park, NULL);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static _Atomic uint32_t *fails;

/* What is to happen to the inner nodes cannot, while a writer waits for the leaf. */
static void fail_now(const char *point)
{
    if (strcmp(point, "write:leaf-chosen") == 0)
        atomic_store(fails, (uint32_t)(-(int)BFT_NO_MEMORY));
}

/* They may tell another range of it then than it has. */
static void after_a_failure_no_leaf_is_taken_for_what_they_say(void **state)
{
    bft_tree *tree;
    struct engine_fixture *f = open_filled(&tree);
    (void)state;
    fails = &f->db->engine->failed;
    atomic_store(&bfti_park, fail_now);
    expect_status(BFT_NO_MEMORY, put(tree, first_of(tree, 3)));
    atomic_store(&bfti_park, NULL);
    /* Nor is that damage, of which nothing is in the file. */
    expect_ok(bft_verify(f->db));
    swap(tree, 3, 6);
    expect_status(BFT_NO_MEMORY, bft_verify(f->db));
    atomic_store(fails, 0);
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    swap(tree, 3, 6);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_elsewhere_is_told_by_all_who_come_to_it),
        cmocka_unit_test(what_was_put_into_a_leaf_elsewhere_is_not_merged),
        cmocka_unit_test(what_was_put_into_a_leaf_elsewhere_is_no_delta),
        cmocka_unit_test(a_leaf_that_is_none_is_told),
        cmocka_unit_test(a_neighbour_that_was_never_made_is_told),
        cmocka_unit_test(a_leaf_that_somebody_is_at_is_not_judged),
        cmocka_unit_test(after_a_failure_no_leaf_is_taken_for_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
