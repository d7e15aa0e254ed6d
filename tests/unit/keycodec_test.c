/*
 * Parts of keys: what is encoded comes back, and sorts as the part does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "storage/keycodec.h"

/* Both sides of every change of length. */
static const uint64_t numbers[] = {
    0,
    1,
    239,
    240,
    241,
    255,
    256,
    2286,
    2287,
    2288,
    67822,
    67823,
    67824,
    0xffffff,
    0x1000000,
    0xffffffff,
    0x100000000,
    0xffffffffff,
    0x10000000000,
    0xffffffffffff,
    0x1000000000000,
    0xffffffffffffff,
    0x100000000000000,
    UINT64_MAX - 1,
    UINT64_MAX,
};
enum { NUMBERS = sizeof(numbers) / sizeof(numbers[0]) };

static int compare(const uint8_t *a, size_t a_len, const uint8_t *b,
                   size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static void check_number(uint64_t number, size_t len)
{
    uint8_t bytes[BFTI_KEY_NUMBER_MAX + 1];
    uint64_t back;

    assert_in_range(len, 1, BFTI_KEY_NUMBER_MAX);
    memset(bytes, 0xee, sizeof(bytes));
    assert_int_equal(len, bfti_key_put_number(bytes, number));
    assert_int_equal(0xee, bytes[len]);
    /* What follows a number is not part of it. */
    assert_int_equal(len, bfti_key_get_number(bytes, sizeof(bytes), &back));
    assert_true(back == number);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(0, bfti_key_get_number(bytes, cut, &back));
}

static void numbers_come_back(void **state)
{
    uint8_t bytes[BFTI_KEY_NUMBER_MAX];

    (void)state;
    for (size_t i = 0; i < NUMBERS; i++)
        check_number(numbers[i], bfti_key_put_number(bytes, numbers[i]));
    random_start();
    for (int i = 0; i < 10000; i++) {
        uint64_t number = random_next() >> random_below(64);

        check_number(number, bfti_key_put_number(bytes, number));
    }
}

static void small_numbers_are_short(void **state)
{
    (void)state;
    check_number(240, 1);
    check_number(241, 2);
    check_number(2287, 2);
    check_number(2288, 3);
    check_number(67823, 3);
    check_number(67824, 4);
    check_number(0xffffffff, 5);
    check_number(UINT64_MAX, 9);
}

static void numbers_sort_as_numbers(void **state)
{
    (void)state;
    random_start();
    for (int i = 0; i < 10000; i++) {
        uint64_t a = random_next() >> random_below(64);
        uint64_t b = i % 2 == 0 ? a + 1 : random_next() >> random_below(64);
        uint8_t a_bytes[BFTI_KEY_NUMBER_MAX];
        uint8_t b_bytes[BFTI_KEY_NUMBER_MAX];
        size_t a_len = bfti_key_put_number(a_bytes, a);
        size_t b_len = bfti_key_put_number(b_bytes, b);
        int order = compare(a_bytes, a_len, b_bytes, b_len);

        assert_true((a < b && order < 0) || (a > b && order > 0) ||
                    (a == b && order == 0));
    }
}

/* A longer form of a number would be a second key for it, in the wrong place. */
static void only_the_shortest_form_is_read(void **state)
{
    static const uint8_t forms[][9] = {
        {241, 0},
        {250, 0, 0, 1},
        {250, 1, 8, 239}, /* 67,823 */
        {251, 0, 255, 255, 255},
        {252, 0, 255, 255, 255, 255},
        {255, 0, 255, 255, 255, 255, 255, 255, 255},
    };
    uint64_t number;

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        assert_int_equal(
            0, bfti_key_get_number(forms[i], sizeof(forms[i]), &number));
        assert_true(number == 0);
    }
}

static void check_text(bft_slice text)
{
    uint8_t bytes[64];
    uint8_t back[64];
    size_t len = bfti_key_text_len(text);
    size_t back_len;

    assert_in_range(len, text.len + 2, 62);
    memset(bytes, 0xee, sizeof(bytes));
    assert_int_equal(len, bfti_key_put_text(bytes, text));
    assert_int_equal(0xee, bytes[len]);
    assert_int_equal(len,
                     bfti_key_get_text(bytes, sizeof(bytes), back, &back_len));
    assert_int_equal(text.len, back_len);
    if (text.len != 0)
        assert_memory_equal(text.data, back, text.len);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(0, bfti_key_get_text(bytes, cut, back, &back_len));
}

static void texts_come_back(void **state)
{
    static const char nul[] = "a\0b\0\0c";
    static const char high[] = "\xff\0\xff";

    (void)state;
    check_text((bft_slice){NULL, 0});
    check_text((bft_slice){nul, 6});
    check_text((bft_slice){nul, 2});
    check_text((bft_slice){high, 3});
}

/* Few different bytes, so that texts share what they start with. */
static size_t short_text(uint8_t *out)
{
    static const uint8_t bytes[] = {0, 1, 0xff};
    size_t len = random_below(7);

    for (size_t i = 0; i < len; i++)
        out[i] = bytes[random_below(sizeof(bytes))];
    return len;
}

/* Keys of a text and a second part sort by the text first, whatever follows. */
static void texts_sort_as_texts_before_what_follows(void **state)
{
    (void)state;
    random_start();
    for (int i = 0; i < 20000; i++) {
        uint8_t text[2][8];
        uint8_t key[2][32];
        size_t text_len[2];
        size_t key_len[2];
        int by_text, by_key;

        for (int k = 0; k < 2; k++) {
            text_len[k] = short_text(text[k]);
            key_len[k] =
                bfti_key_put_text(key[k], (bft_slice){text[k], text_len[k]});
            key[k][key_len[k]++] = (uint8_t)random_below(256);
        }
        by_text = compare(text[0], text_len[0], text[1], text_len[1]);
        by_key = compare(key[0], key_len[0], key[1], key_len[1]);
        if (by_text != 0)
            assert_true((by_text < 0) == (by_key < 0));
    }
}

static void a_broken_text_is_refused(void **state)
{
    static const uint8_t bytes[] = {'a', 0, 1, 0, 0};
    uint8_t text[8];
    size_t len;

    (void)state;
    assert_int_equal(0, bfti_key_get_text(bytes, sizeof(bytes), text, &len));
    assert_int_equal(0, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_back),
        cmocka_unit_test(small_numbers_are_short),
        cmocka_unit_test(numbers_sort_as_numbers),
        cmocka_unit_test(only_the_shortest_form_is_read),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(texts_sort_as_texts_before_what_follows),
        cmocka_unit_test(a_broken_text_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
