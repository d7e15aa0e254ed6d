/*
 * Order-preserving parts of keys.
 *
 * Numbers follow the variable-length integers of SQLite 4 (varint.wiki), whose
 * first byte tells the length and grows with the value: 0..240 stand for
 * themselves, 241..248 lead one more byte, 249 two, 250..255 three to eight.
 * Only the shortest form is read, for a longer one would sort elsewhere.
 *
 * Texts end with 00 00; a 00 inside becomes 00 ff, so that the end sorts below
 * everything that could have stood there.
 */
#include "keycodec.h"

#include <assert.h>
#include <string.h>

enum {
    ONE_MAX = 240,
    TWO_FIRST = 241, /* first of the bytes that lead a second one */
    TWO_MAX = ONE_MAX + 8 * 256 - 1,
    THREE_LEAD = 249,
    THREE_MAX = TWO_MAX + 65536,
    WIDE_LEAD = 250, /* three bytes follow; one more for each above */
    WIDE_MIN = 3,
};

_Static_assert(THREE_MAX == 67823, "as published");
_Static_assert(WIDE_LEAD - WIDE_MIN + 8 == 255, "eight bytes follow 255");

static size_t put_wide(uint8_t *out, uint64_t number)
{
    size_t bytes = WIDE_MIN;

    while (bytes < 8 && number >> (8 * bytes) != 0)
        bytes++;
    out[0] = (uint8_t)(WIDE_LEAD - WIDE_MIN + bytes);
    for (size_t i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(number >> (8 * (bytes - 1 - i)));
    return 1 + bytes;
}

size_t bfti_key_put_number(uint8_t *out, uint64_t number)
{
    if (number <= ONE_MAX) {
        out[0] = (uint8_t)number;
        return 1;
    }
    if (number <= TWO_MAX) {
        uint64_t rest = number - ONE_MAX;

        out[0] = (uint8_t)(TWO_FIRST + (rest >> 8));
        out[1] = (uint8_t)rest;
        return 2;
    }
    if (number <= THREE_MAX) {
        uint64_t rest = number - TWO_MAX - 1;

        out[0] = THREE_LEAD;
        out[1] = (uint8_t)(rest >> 8);
        out[2] = (uint8_t)rest;
        return 3;
    }
    return put_wide(out, number);
}

static size_t get_wide(const uint8_t *in, size_t len, uint64_t *number)
{
    size_t bytes = (size_t)in[0] - WIDE_LEAD + WIDE_MIN;
    uint64_t value = 0;

    if (len < 1 + bytes)
        return 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | in[1 + i];
    /* Not the shortest form. */
    if (value <= THREE_MAX || (bytes > WIDE_MIN && in[1] == 0))
        return 0;
    *number = value;
    return 1 + bytes;
}

size_t bfti_key_get_number(const uint8_t *in, size_t len, uint64_t *number)
{
    *number = 0;
    if (len == 0)
        return 0;
    if (in[0] <= ONE_MAX) {
        *number = in[0];
        return 1;
    }
    if (in[0] < THREE_LEAD) {
        /* 241 0 would be 240, which has a shorter form. */
        if (len < 2 || (in[0] == TWO_FIRST && in[1] == 0))
            return 0;
        *number = ONE_MAX + ((uint64_t)(in[0] - TWO_FIRST) << 8) + in[1];
        return 2;
    }
    if (in[0] == THREE_LEAD) {
        if (len < 3)
            return 0;
        *number = TWO_MAX + 1 + ((uint64_t)in[1] << 8) + in[2];
        return 3;
    }
    return get_wide(in, len, number);
}

size_t bfti_key_text_len(bft_slice text)
{
    const uint8_t *at = text.data;
    size_t len = text.len + 2;

    for (size_t i = 0; i < text.len; i++)
        len += at[i] == 0;
    return len;
}

size_t bfti_key_put_text(uint8_t *out, bft_slice text)
{
    const uint8_t *at = text.data;
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        out[n++] = at[i];
        if (at[i] == 0)
            out[n++] = 0xff;
    }
    out[n++] = 0;
    out[n++] = 0;
    assert(n == bfti_key_text_len(text));
    return n;
}

size_t bfti_key_get_text(const uint8_t *in, size_t len, uint8_t *text,
                         size_t *text_len)
{
    size_t n = 0;

    *text_len = 0;
    for (size_t i = 0; i < len; i++) {
        if (in[i] != 0) {
            text[n++] = in[i];
            continue;
        }
        if (++i == len)
            return 0;
        if (in[i] == 0) {
            *text_len = n;
            return i + 1;
        }
        if (in[i] != 0xff)
            return 0;
        text[n++] = 0;
    }
    return 0;
}
