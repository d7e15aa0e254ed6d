/*
 * The page table at its ends: leaves far beyond what a tree of tables in memory
 * can be filled with in a test, and more than there can be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/buffer.h"

/* 2^27 leaves of 4 KiB are 512 GiB; 2^31 are 8 TiB. */
static const uint64_t many = UINT64_C(1) << 27, most = UINT64_C(1) << 31;

#define ON_DISK ((uint64_t)BFTI_TAG_DISK << BFTI_TAG_SHIFT)

/* WORD and those behind it. */
static bft_status load(struct bfti_table *table, uint64_t first, uint64_t word)
{
    static le64 words[BFTI_PART_IDS];
    for (uint64_t i = 0; i < BFTI_PART_IDS; i++)
        words[i] = le64_of(word + i);
    return bfti_table_load(table, (size_t)(first / BFTI_PART_IDS), words, 0);
}

static void leaves_far_beyond_134_million_have_places(void **state)
{
    const uint64_t first[] = {0, many, 5 * many, most - BFTI_PART_IDS};
    struct bfti_table *table;
    (void)state;
    assert_int_equal(BFT_OK, bfti_table_create(bfti_env_system(), &table));
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(BFT_OK, load(table, first[i], ON_DISK + (i << 20)));
    for (size_t i = 0; i < 4; i++)
        for (uint64_t id = 0; id < BFTI_PART_IDS; id++) {
            struct bfti_entry *entry = bfti_table_entry(table, first[i] + id);
            assert_true(bfti_entry_word(entry) == ON_DISK + (i << 20) + id);
            bfti_latch(bfti_env_system(), entry);
            bfti_entry_set(entry, id + 1);
            bfti_unlatch(bfti_env_system(), entry, true);
            assert_true(bfti_entry_word(entry) == id + 1);
        }
    bfti_table_destroy(table);
}

/* A status, and the table is as it was. */
static void a_full_page_table_is_told(void **state)
{
    struct bfti_table *table;
    char text[200];
    uint64_t id;
    (void)state;
    assert_int_equal(BFT_OK, bfti_table_create(bfti_env_system(), &table));
    assert_int_equal(BFT_OK, load(table, 0, ON_DISK));
    assert_int_equal(BFT_NO_SPACE, load(table, most, ON_DISK));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "page table is full"));
    assert_int_equal(BFT_CORRUPT, bfti_table_loaded(table, most + 1));
    assert_int_equal(1, bfti_table_parts(table));
    assert_int_equal(BFT_OK, bfti_id_alloc(table, &id));
    bfti_id_free(table, id);
    bfti_table_destroy(table);
}

/* What an image tells of a page is a place on disk, or nothing: a place in memory
 * would be followed. */
static void an_image_has_no_places_in_memory(void **state)
{
    static const unsigned odd[] = {BFTI_TAG_NONE, BFTI_TAG_MEMORY};
    char text[200];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bfti_table *table;
        assert_int_equal(BFT_OK, bfti_table_create(bfti_env_system(), &table));
        assert_int_equal(BFT_CORRUPT,
                         load(table, BFTI_PART_IDS,
                              ((uint64_t)odd[i] << BFTI_TAG_SHIFT) + 5));
        (void)bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "no place on disk"));
        bfti_table_destroy(table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_far_beyond_134_million_have_places),
        cmocka_unit_test(a_full_page_table_is_told),
        cmocka_unit_test(an_image_has_no_places_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
