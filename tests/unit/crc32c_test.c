/* crc32c: known answers, and both forms agree at every length and offset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/pagefile_internal.h"

/* RFC 3720, B.4, and the check value of the catalogue of CRCs. */
static void known_answers_hold(void **state)
{
    (void)state;
    uint8_t buf[32];

    assert_int_equal(bfti_crc32c(0, "", 0), 0);
    assert_int_equal(bfti_crc32c(0, "123456789", 9), 0xe3069283u);
    memset(buf, 0, sizeof buf);
    assert_int_equal(bfti_crc32c(0, buf, sizeof buf), 0x8a9136aau);
    memset(buf, 0xff, sizeof buf);
    assert_int_equal(bfti_crc32c(0, buf, sizeof buf), 0x62a8ab43u);
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)i;
    assert_int_equal(bfti_crc32c(0, buf, sizeof buf), 0x46dd794eu);
    assert_int_equal(bfti_crc32c_table(0, buf, sizeof buf), 0x46dd794eu);
}

/* One bit at a time: the definition. */
static uint32_t bitwise(uint32_t crc, const uint8_t *at, size_t len)
{
    crc = ~crc;
    for (; len > 0; at++, len--) {
        crc ^= *at;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void forms_agree_at_every_length_and_offset(void **state)
{
    (void)state;
    static uint8_t buf[4096];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof buf; i++) {
        x = x * 1664525u + 1013904223u;
        buf[i] = (uint8_t)(x >> 24);
    }
    for (size_t len = 0; len < 1700; len++) {
        const uint8_t *at = buf + len % 9;
        uint32_t want = bitwise((uint32_t)len, at, len);
        assert_int_equal(bfti_crc32c((uint32_t)len, at, len), want);
        assert_int_equal(bfti_crc32c_table((uint32_t)len, at, len), want);
    }
    assert_int_equal(bfti_crc32c(0, buf, 4096), bitwise(0, buf, 4096));
}

static void a_sum_goes_on_where_it_stopped(void **state)
{
    (void)state;
    uint8_t buf[1000];
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * 7);
    uint32_t whole = bfti_crc32c(0, buf, sizeof buf);
    for (size_t cut = 0; cut <= sizeof buf; cut += 13)
        assert_int_equal(
            bfti_crc32c(bfti_crc32c(0, buf, cut), buf + cut, sizeof buf - cut),
            whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers_hold),
        cmocka_unit_test(forms_agree_at_every_length_and_offset),
        cmocka_unit_test(a_sum_goes_on_where_it_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
