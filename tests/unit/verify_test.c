/*
 * Verify: it passes what the engine makes, and names the place of whatever is
 * damaged, on disk or in memory.  The damage is done from inside.
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
#include "random.h"

#define EXPECT(want, call) expect((want), (call), #call, __LINE__)

static void expect(bft_status want, bft_status got, const char *what, int line)
{
    char text[400] = "";
    if (got == want)
        return;
    bft_last_error(text, sizeof(text));
    fail_msg("line %d: %s: %s, not %s (%s)", line, what, bft_strerror(got),
             bft_strerror(want), got == BFT_OK ? "" : text);
}

/* --- a database ----------------------------------------------------------- */

enum { RECORDS = 3000, LARGE = 40 };

struct fixture {
    struct bfti_surroundings surroundings;
    bft_options options;
    bft_db *db;
    bft_tree *tree, *other;
    struct bfti_engine *engine;
    struct bfti_rec *rec;
};

static bft_slice text(const char *chars)
{
    bft_slice slice = {chars, strlen(chars)};
    return slice;
}

static bft_slice key_of(int i)
{
    static char key[16];
    snprintf(key, sizeof(key), "key-%06d", i);
    return text(key);
}

static void fixture_open(struct fixture *f)
{
    EXPECT(BFT_OK, bft_open("verify_test", &f->options, &f->db));
    EXPECT(BFT_OK, bft_tree_open(f->db, "t", NULL, &f->tree));
    EXPECT(BFT_OK, bft_tree_open(f->db, "other", NULL, &f->other));
    f->engine = f->db->engine;
    f->rec = bfti_rec_current(f->engine->buffer.threads);
}

static void fixture_reopen(struct fixture *f)
{
    EXPECT(BFT_OK, bft_close(f->db));
    fixture_open(f);
}

/* Many leaves of small records, some large values of one extent and one of
 * many, in two trees. */
static void fill(struct fixture *f)
{
    static uint8_t bytes[1200000];
    bft_slice value = {bytes, 0};
    random_bytes(bytes, sizeof(bytes));
    for (int i = 0; i < RECORDS; i++) {
        value.len = (size_t)(i % 90);
        EXPECT(BFT_OK, bft_put(f->tree, key_of(i), value));
    }
    for (int i = 0; i < LARGE; i++) {
        value.len = 1000 + (size_t)i * 100;
        EXPECT(BFT_OK, bft_put(f->other, key_of(i), value));
    }
    value.len = sizeof(bytes);
    EXPECT(BFT_OK, bft_put(f->other, text("largest"), value));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->surroundings.vfs = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f->surroundings.vfs);
    f->options.size = sizeof(f->options);
    f->options.internal = &f->surroundings;
    f->options.durability = BFT_NONE;
    f->options.memory_bytes = 1 << 20;
    f->options.leaf_bytes = 512;
    f->options.log_segment_bytes = 64 << 10;
    f->options.log_bytes = 4 << 20;
    f->options.no_threads = true;
    fixture_open(f);
    *state = f;
    return 0;
}

/* Whatever is still damaged: the surroundings go with it. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    (void)bft_close(f->db);
    bfti_vfs_memory_destroy(f->surroundings.vfs);
    free(f);
    return 0;
}

/* Verify finds damage, and its text has WHAT and, unless 0, PLACE's offset. */
static void expect_damage(struct fixture *f, const char *what, uint64_t place)
{
    char said[400], offset[32];
    EXPECT(BFT_CORRUPT, bft_verify(f->db));
    bft_last_error(said, sizeof(said));
    if (!strstr(said, what))
        fail_msg("\"%s\" does not say \"%s\"", said, what);
    snprintf(offset, sizeof(offset), "byte %llu",
             (unsigned long long)bfti_disk_grain(place) * BFTI_GRAIN);
    if (place && !strstr(said, offset))
        fail_msg("\"%s\" does not say \"%s\"", said, offset);
}

/* The leaf of KEY, its pages named until bfti_reader_close. */
static void look(struct fixture *f, bft_tree *tree, bft_slice key,
                 struct bfti_reader *reader)
{
    EXPECT(BFT_OK, bfti_reader_open(reader, tree->tree, f->rec, key, false));
}

/* --- what is right --------------------------------------------------------- */

static void what_the_engine_makes_passes(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[3000];
    EXPECT(BFT_OK, bft_verify(f->db));
    random_start();
    random_bytes(bytes, sizeof(bytes));
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 4000; i++) {
            bft_tree *tree = random_below(4) ? f->tree : f->other;
            bft_slice key = key_of((int)random_below(3000));
            bft_slice value = {bytes,
                               random_below(random_below(40) ? 60 : 3000)};
            if (random_below(3) == 0)
                EXPECT(BFT_OK, bft_delete(tree, key));
            else
                EXPECT(BFT_OK, bft_put(tree, key, value));
        }
        EXPECT(BFT_OK, bft_verify(f->db));
        if (round % 3 == 1)
            EXPECT(BFT_OK, bft_checkpoint(f->db));
        if (round % 3 == 2)
            fixture_reopen(f);
        if (round == 7) {
            EXPECT(BFT_OK, bft_tree_drop(f->db, "other"));
            EXPECT(BFT_OK, bft_verify(f->db));
            EXPECT(BFT_OK, bft_tree_open(f->db, "other", NULL, &f->other));
        }
        EXPECT(BFT_OK, bft_verify(f->db));
    }
    for (int i = 0; i < 3000; i++) {
        EXPECT(BFT_OK, bft_delete(f->tree, key_of(i)));
        EXPECT(BFT_OK, bft_delete(f->other, key_of(i)));
    }
    for (int i = 0; i < 3; i++) {
        EXPECT(BFT_OK, bft_checkpoint(f->db));
        EXPECT(BFT_OK, bft_verify(f->db));
    }
    fixture_reopen(f);
    EXPECT(BFT_OK, bft_verify(f->db));
}

/* --- bytes on disk --------------------------------------------------------- */

/* Flip one byte of the extent at PLACE; done twice it is as it was. */
static void flip(struct fixture *f, uint64_t place, size_t at)
{
    struct bfti_file *file = bfti_pagefile_file(f->engine->buffer.pf);
    uint64_t offset = bfti_disk_grain(place) * BFTI_GRAIN + at;
    uint8_t byte;
    size_t got;
    EXPECT(BFT_OK, file->ops->read(file, offset, &byte, 1, &got));
    assert_int_equal(got, 1);
    byte ^= 0x10;
    EXPECT(BFT_OK, file->ops->write(file, offset, &byte, 1));
}

/* LEN: bytes of the extent that mean anything, 0: as it says itself. */
static void expect_flip_found(struct fixture *f, const char *what,
                              uint64_t place, size_t len)
{
    struct bfti_file *file = bfti_pagefile_file(f->engine->buffer.pf);
    struct bfti_extent_header header;
    size_t at, got;
    EXPECT(BFT_OK, file->ops->read(file, bfti_disk_grain(place) * BFTI_GRAIN,
                                   &header, sizeof(header), &got));
    at = random_below(len ? len : le32_get(header.stored_len));
    flip(f, place, at);
    expect_damage(f, what, place);
    flip(f, place, at);
}

static void flips_in_leaves_and_values_are_found(void **state)
{
    struct fixture *f = *state;
    bft_tree *trees[2];
    random_start();
    fill(f);
    fixture_reopen(f);
    EXPECT(BFT_OK, bft_verify(f->db));
    trees[0] = f->tree;
    trees[1] = f->other;
    for (int i = 0; i < 60; i++) {
        bft_tree *tree = trees[i % 2];
        int key = (int)random_below(i % 2 ? LARGE + 1 : RECORDS);
        struct bfti_places places = {NULL, 0, 0};
        struct bfti_reader reader;
        bool stable;
        look(f, tree, key == LARGE ? text("largest") : key_of(key), &reader);
        EXPECT(BFT_OK, bfti_leaf_extents(&reader, &places, &stable));
        assert_true(stable);
        bfti_reader_close(&reader);
        assert_true(places.count > 0);
        for (int flips = 0; flips < 5; flips++) {
            char name[300];
            snprintf(name, sizeof(name), "page %llu of tree %s",
                     (unsigned long long)reader.id, tree->tree->name);
            expect_flip_found(f, name, places.place[random_below(places.count)],
                              0);
        }
        bfti_free(f->engine->env, places.place);
    }
    EXPECT(BFT_OK, bft_verify(f->db));
}

/* A leaf that is whole in memory is read all the same. */
static void flips_under_a_cached_leaf_are_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    fill(f);
    EXPECT(BFT_OK, bft_checkpoint(f->db));
    look(f, f->tree, key_of(1), &reader);
    assert_true(reader.pages > 0);
    assert_true(reader.head != 0);
    bfti_reader_close(&reader);
    expect_flip_found(f, "tree t", bfti_word_extent(reader.head), 0);
    EXPECT(BFT_OK, bft_verify(f->db));
}

static void flips_in_the_image_are_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_inner *root;
    random_start();
    fill(f);
    EXPECT(BFT_OK, bft_checkpoint(f->db));
    EXPECT(BFT_OK, bft_verify(f->db));
    root = bfti_tree_root(f->tree->tree);
    assert_true(root->height > 1);
    expect_flip_found(f, "inner node", atomic_load(&root->place), 0);
    expect_flip_found(f, "inner node",
                      atomic_load(&bfti_inner_child(root, 1)->place), 0);
    expect_flip_found(f, "catalogue", f->engine->superblock.root[0], 0);
    expect_flip_found(f, "the page table", f->engine->superblock.root[1], 0);
    expect_flip_found(f, "map", f->engine->superblock.map[0], 0);
    expect_flip_found(f, "page table",
                      bfti_table_part(f->engine->buffer.table, 0)->place, 0);
    for (unsigned i = 0; i < 2; i++)
        expect_flip_found(f, "superblock",
                          bfti_disk_place(i * (BFTI_BLOCK / BFTI_GRAIN), 1, 0),
                          40);
    EXPECT(BFT_OK, bft_verify(f->db));
}

/* --- space ----------------------------------------------------------------- */

static uint64_t make_extent(struct fixture *f)
{
    struct bfti_extent_info info = {BFTI_EXTENT_VALUE, f->tree->tree->id, 0, 0};
    uint64_t place;
    EXPECT(BFT_OK,
           bfti_extent_write(f->engine->buffer.pf, &info, "bytes", 5, &place));
    return place;
}

static void a_leaked_extent_is_found(void **state)
{
    struct fixture *f = *state;
    uint64_t place;
    fill(f);
    place = make_extent(f);
    EXPECT(BFT_OK, bft_verify(f->db)); /* private: somebody may still link it */
    bfti_extent_link(f->engine->buffer.pf, place, false);
    expect_damage(f, "nothing leads to", 0);
    EXPECT(BFT_OK, bfti_extent_unlink(f->engine->buffer.pf, place, false, 0));
    EXPECT(BFT_OK, bft_verify(f->db));
}

static void an_extent_given_back_too_early_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    fill(f);
    EXPECT(BFT_OK, bft_checkpoint(f->db));
    look(f, f->tree, key_of(100), &reader);
    bfti_reader_close(&reader);
    assert_true(reader.head != 0);
    EXPECT(BFT_OK, bfti_extent_unlink(f->engine->buffer.pf,
                                      bfti_word_extent(reader.head), false, 0));
    expect_damage(f, "counts as free", bfti_word_extent(reader.head));
}

static void an_extent_of_two_leaves_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_view view;
    struct bfti_change change;
    struct bfti_large large;
    uint64_t end;
    bool found;
    fill(f);
    EXPECT(BFT_OK, bfti_leaf_find(&reader, f->other->tree, f->rec, key_of(5),
                                  &found, &view));
    assert_true(found);
    memcpy(&large, view.value, sizeof(large));
    bfti_reader_close(&reader);
    memset(&change, 0, sizeof(change));
    change.key = text("zz");
    change.value = (bft_slice){&large, sizeof(large)};
    change.op = BFTI_OP_PUT;
    change.flags = BFTI_REC_LARGE;
    EXPECT(BFT_OK, bfti_leaf_write(f->other->tree, f->rec, &change, NULL, NULL,
                                   &bfti_unguarded, &end));
    expect_damage(f, "that another has", le64_get(large.place));
}

static void a_large_value_of_another_length_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_view view;
    struct bfti_large large;
    static const uint8_t value[3000];
    bft_slice fresh = {value, sizeof(value)};
    bool found;
    fill(f);
    /* One that no merge has yet made a cached copy of what lies beneath. */
    EXPECT(BFT_OK, bft_put(f->other, key_of(5), fresh));
    EXPECT(BFT_OK, bfti_leaf_find(&reader, f->other->tree, f->rec, key_of(5),
                                  &found, &view));
    assert_true(found && reader.pages > 0 && view.op == BFTI_OP_PUT);
    memcpy(&large, view.value, sizeof(large));
    large.bytes = le64_of(le64_get(large.bytes) + 1);
    memcpy((void *)(uintptr_t)view.value, &large, sizeof(large));
    bfti_reader_close(&reader);
    expect_damage(f, "another length", le64_get(large.place));
}

/* --- pages in memory ------------------------------------------------------- */

/* A leaf of the tree, in memory over disk content: its page. */
static struct bfti_minipage *page_to_damage(struct fixture *f, int key,
                                            struct bfti_reader *reader)
{
    f->options.promote_percent = 100;
    fill(f);
    fixture_reopen(f);
    for (int i = 0; i < 20; i++) {
        uint8_t buf[100];
        size_t len;
        EXPECT(BFT_OK, bft_get(f->tree, key_of(key), buf, sizeof(buf), &len));
    }
    look(f, f->tree, key_of(key), reader);
    assert_true(reader->pages > 0);
    bfti_reader_close(reader);
    EXPECT(BFT_OK, bft_verify(f->db));
    return bfti_page_at(&f->engine->buffer, reader->place[0]);
}

static void a_stale_cached_record_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_minipage *page = page_to_damage(f, 1000, &reader);
    struct bfti_view view;
    assert_true(bfti_minipage_find(page, key_of(1000), &view));
    assert_int_equal(view.op, BFTI_OP_CACHED);
    assert_true(view.value_len > 0);
    *(uint8_t *)(uintptr_t)view.value ^= 1;
    expect_damage(f, "a cached record has another value", 0);
}

static void a_key_that_is_wrongly_absent_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_minipage *page = page_to_damage(f, 1000, &reader);
    bft_slice none = {NULL, 0};
    assert_true(bfti_minipage_fits(page, key_of(1001).len, 0));
    bfti_minipage_append(page, key_of(1001), none, BFTI_OP_ABSENT, 0);
    expect_damage(f, "cached as absent", 0);
}

static void a_page_that_is_not_complete_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_minipage *page;
    fill(f);
    fixture_reopen(f);
    /* Reading would bring in all of the leaf: there is memory to spare. */
    EXPECT(BFT_OK, bft_delete(f->tree, key_of(1000)));
    look(f, f->tree, key_of(1000), &reader);
    assert_true(reader.pages == 1 && !reader.complete);
    bfti_reader_close(&reader);
    page = bfti_page_at(&f->engine->buffer, reader.place[0]);
    page->flags |= BFTI_PAGE_COMPLETE;
    expect_damage(f, "passes for complete", 0);
}

static void fences_and_neighbours_are_compared(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    struct bfti_minipage *page = page_to_damage(f, 1000, &reader);
    struct bfti_run *run = (struct bfti_run *)(page + 1);
    bft_slice fence = bfti_run_high(run);
    le64 sibling = run->sibling;
    uint8_t *last = (uint8_t *)(uintptr_t)fence.data + fence.len - 1;

    run->sibling = le64_of(le64_get(sibling) + 1);
    expect_damage(f, "its left neighbour names another leaf", 0);
    run->sibling = sibling;
    *last = (uint8_t)(*last + 1);
    expect_damage(f, "it has another range", 0);
    *last = (uint8_t)(*last - 1);
    fence = bfti_run_low(run);
    last = (uint8_t *)(uintptr_t)fence.data + fence.len - 1;
    *last = (uint8_t)(*last - 1);
    expect_damage(f, "it has another range", 0);
    *last = (uint8_t)(*last + 1);
    run->tree_id = le32_of(99);
    expect_damage(f, "another tree", 0);
    run->tree_id = le32_of(f->tree->tree->id);
    page->page_id++;
    expect_damage(f, "of another leaf", 0);
    page->page_id--;
    EXPECT(BFT_OK, bft_verify(f->db));
}

static void a_leaf_that_is_not_there_is_found(void **state)
{
    struct fixture *f = *state;
    struct bfti_reader reader;
    uint64_t word;
    (void)page_to_damage(f, 1000, &reader);
    word = bfti_entry_word(reader.entry);
    bfti_entry_set(reader.entry, 0);
    expect_damage(f, "but it is free", 0);
    bfti_entry_set(reader.entry, 1); /* forwards, and no absorber at work */
    expect_damage(f, "but it is no leaf", 0);
    bfti_entry_set(reader.entry, word);
    EXPECT(BFT_OK, bft_verify(f->db));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_the_engine_makes_passes),
        TEST(flips_in_leaves_and_values_are_found),
        TEST(flips_under_a_cached_leaf_are_found),
        TEST(flips_in_the_image_are_found),
        TEST(a_leaked_extent_is_found),
        TEST(an_extent_given_back_too_early_is_found),
        TEST(an_extent_of_two_leaves_is_found),
        TEST(a_large_value_of_another_length_is_found),
        TEST(a_stale_cached_record_is_found),
        TEST(a_key_that_is_wrongly_absent_is_found),
        TEST(a_page_that_is_not_complete_is_found),
        TEST(fences_and_neighbours_are_compared),
        TEST(a_leaf_that_is_not_there_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
