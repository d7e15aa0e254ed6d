/*
 * Keys of several parts whose memcmp order is the order of the parts, one
 * after the other: numbers ascending, texts in the order of their bytes.
 *
 * Each encoded part ends where it says, so no key is a prefix of another with
 * the same parts, and what comes after a part does not change its order.
 */
#ifndef BFTI_KEYCODEC_H
#define BFTI_KEYCODEC_H

#include <stddef.h>
#include <stdint.h>

#include "bft_status.h"

enum { BFTI_KEY_NUMBER_MAX = 9 }; /* bytes of the longest number */

/* Write NUMBER to OUT; return its length, 1 for numbers up to 240, 3 up to
 * 67,823, 9 at most. */
size_t bfti_key_put_number(uint8_t *out, uint64_t number);
/* Read a number from the LEN bytes at IN; return its length, or 0 when IN does
 * not start with what bfti_key_put_number() writes. */
size_t bfti_key_get_number(const uint8_t *in, size_t len, uint64_t *number);

/* How long TEXT becomes as a part of a key that is not the last part: a zero
 * byte in it takes two, and two end it. */
size_t bfti_key_text_len(bft_slice text);
/* Write TEXT, which may hold any bytes, to the bfti_key_text_len() bytes at
 * OUT; return that length. */
size_t bfti_key_put_text(uint8_t *out, bft_slice text);
/* Read a text from the LEN bytes at IN into TEXT, which has room for LEN bytes,
 * and its length into *TEXT_LEN; return how many bytes of IN it took, or 0 when
 * IN does not start with what bfti_key_put_text() writes. */
size_t bfti_key_get_text(const uint8_t *in, size_t len, uint8_t *text,
                         size_t *text_len);

#endif
