/*
 * What frames of the log hold, cut off at every byte or with lengths that cannot be:
 * each is told from a whole one, and nothing behind it is read.
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
#include "index/tomb.h"

enum { ROOM = 400 };

/* A copy of LEN bytes in a block of its own length, for who looks for reads behind
 * it. */
static uint8_t *cut(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

/* --- records ------------------------------------------------------------------ */

static size_t record_make(uint8_t bytes[ROOM], uint8_t flags, size_t value_len)
{
    static const uint8_t value[100];
    struct bfti_frame_record record = {.tree_id = 7,
                                       .op = BFTI_OP_PUT,
                                       .flags = flags,
                                       .key = {"key", 3},
                                       .value = {value, value_len}};
    assert_ptr_equal(bytes + bfti_frame_record_size(&record),
                     bfti_frame_record_put(bytes, &record));
    return bfti_frame_record_size(&record);
}

static const char *record_wrong(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = cut(bytes, len);
    const uint8_t *at = copy;
    struct bfti_frame_record record;
    const char *wrong = bfti_frame_record_get(&at, copy + len, &record);
    if (!wrong) {
        assert_ptr_equal(copy + len, at);
        assert_int_equal(7, record.tree_id);
    }
    free(copy);
    return wrong;
}

static void a_record_is_whole_or_told(void **state)
{
    uint8_t bytes[ROOM];
    size_t len = record_make(bytes, 0, 20);
    (void)state;
    assert_null(record_wrong(bytes, len));
    for (size_t n = 0; n < len; n++)
        assert_non_null(record_wrong(bytes, n));
    /* Of a large value it has the reference, and no more or less. */
    len = record_make(bytes, BFTI_REC_LARGE, sizeof(struct bfti_large));
    assert_null(record_wrong(bytes, len));
    len = record_make(bytes, BFTI_REC_LARGE, sizeof(struct bfti_large) + 1);
    assert_non_null(record_wrong(bytes, len));
}

static void a_record_has_a_key_and_an_operation(void **state)
{
    static const struct {
        size_t at;
        uint8_t byte;
    } wrong[] = {
        {4, 0xff}, {6, 0}, {7, 0xff}}; /* op; key length, 0 or too much */
    uint8_t bytes[ROOM], key[BFT_KEY_MAX + 40];
    struct bfti_frame_record record;
    const uint8_t *at = key;
    le16 key_len = le16_of(BFT_KEY_MAX);
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        size_t len = record_make(bytes, 0, 20);
        bytes[wrong[i].at] = wrong[i].byte;
        assert_non_null(record_wrong(bytes, len));
    }
    /* One that is there, of the greatest length, and longer. */
    memset(key, 0, sizeof(key));
    key[4] = BFTI_OP_PUT;
    memcpy(key + 6, &key_len, sizeof(key_len));
    assert_null(bfti_frame_record_get(&at, key + sizeof(key), &record));
    at = key;
    key_len = le16_of(BFT_KEY_MAX + 1);
    memcpy(key + 6, &key_len, sizeof(key_len));
    assert_non_null(bfti_frame_record_get(&at, key + sizeof(key), &record));
}

/* --- ranges ------------------------------------------------------------------- */

static void a_range_is_whole_or_told(void **state)
{
    struct bfti_frame_range range = {.tree_id = 7,
                                     .low = {"aaa", 3},
                                     .high = {"bbbb", 4}},
                            got;
    uint8_t bytes[BFTI_KEY_MAX * 3];
    size_t len = bfti_frame_range_size(&range);
    (void)state;
    memset(bytes, 0, sizeof(bytes));
    assert_ptr_equal(bytes + len, bfti_frame_range_put(bytes, &range));
    for (size_t n = 0; n <= len; n++) {
        uint8_t *copy = cut(bytes, n);
        expect_status(n == len ? BFT_OK : BFT_CORRUPT,
                      bfti_frame_range_get(copy, n, &got));
        assert_int_equal(n == len ? 7 : 0, got.tree_id);
        assert_int_equal(0, got.behind_len);
        free(copy);
    }
    /* A bound as long as a key can be, and longer. */
    for (size_t i = 0; i < 4; i++) {
        le16 most = le16_of((uint16_t)(BFTI_KEY_MAX + i % 2));
        (void)bfti_frame_range_put(bytes, &range);
        memcpy(bytes + 4 + i / 2 * 2, &most, sizeof(most));
        expect_status(i % 2 ? BFT_CORRUPT : BFT_OK,
                      bfti_frame_range_get(bytes, sizeof(bytes), &got));
    }
}

/* --- trees -------------------------------------------------------------------- */

/* The payload of a frame of TYPE, with a name of 4 bytes. */
static size_t tree_make(uint8_t bytes[ROOM], uint8_t type, bool expires)
{
    le32 head[2] = {le32_of(9),
                    le32_of(512 | (expires ? UINT32_C(0x80000000) : 0))};
    size_t len = sizeof(head);
    memset(bytes, 0, ROOM);
    memcpy(bytes, head, sizeof(head));
    if (type == BFTI_FRAME_TRUNCATE)
        len += sizeof(le32);
    else if (type == BFTI_FRAME_LOAD)
        len += sizeof(le32) + sizeof(le64);
    else if (type == BFTI_FRAME_RENAME) {
        memcpy(bytes + len, "\3old", 1 + 3);
        len += 1 + 3;
    }
    if (expires)
        len += sizeof(le64);
    memcpy(bytes + len, "name", 4);
    return len + 4;
}

static void a_trees_frame_is_whole_or_told(void **state)
{
    static const uint8_t types[] = {BFTI_FRAME_CREATE, BFTI_FRAME_DROP,
                                    BFTI_FRAME_TRUNCATE, BFTI_FRAME_RENAME,
                                    BFTI_FRAME_LOAD};
    struct bfti_frame_tree got;
    uint8_t bytes[ROOM];
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(types); i++) {
        uint8_t type = types[i / 2];
        size_t len = tree_make(bytes, type, i % 2);
        for (size_t n = 0; n <= len; n++) {
            uint8_t *copy = cut(bytes, n);
            bool whole = n > len - 4; /* of the name one byte at least */
            expect_status(whole ? BFT_OK : BFT_CORRUPT,
                          bfti_frame_tree_get(type, copy, n, &got));
            assert_int_equal(whole ? 9 : 0, got.id);
            assert_int_equal(whole ? 512 : 0, got.leaf_bytes);
            assert_int_equal(whole ? n - (len - 4) : 0, got.name.len);
            free(copy);
        }
        len += BFTI_NAME_MAX - 4;
        expect_ok(bfti_frame_tree_get(type, bytes, len, &got));
        expect_status(BFT_CORRUPT,
                      bfti_frame_tree_get(type, bytes, len + 1, &got));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_whole_or_told),
        cmocka_unit_test(a_record_has_a_key_and_an_operation),
        cmocka_unit_test(a_range_is_whole_or_told),
        cmocka_unit_test(a_trees_frame_is_whole_or_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
