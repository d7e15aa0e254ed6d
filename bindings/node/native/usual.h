/*
 * Transactions in their usual shape, past JSON.parse() and JSON.stringify().
 *
 * Nearly all that is stored are private transactions as cojson's Rust core makes
 * them.  Parsing one takes several times as long as cutting its two strings out
 * of a text and naming them, and so does making the text of one.
 */
#ifndef BFTN_USUAL_H
#define BFTN_USUAL_H

#include <stdbool.h>
#include <stdint.h>

#include "bft_status.h"

/* {"encryptedChanges":CHANGES,"keyUsed":KEY,"madeAt":MADE_AT,
 *  "privacy":"private"}, the two in quotes. */
struct bftn_usual {
    bft_slice changes, key;
    uint64_t made_at; /* a number that JavaScript has exactly */
};

/* False: JSON is anything else, be it in white space, has something to unescape,
 * or its strings are long (long_strings.h) or not ASCII. */
bool bftn_usual_read(bft_slice json, struct bftn_usual *usual);

enum { BFTN_MADE_AT_DIGITS = 13 };

/*
 * Put together the text at TEXT, of ROOM bytes at least, of which its writer has
 * left all to this but CHANGES_LEN bytes of changes without quotes, KEY_LEN of
 * the key as JSON, and in place of the BFTN_MADE_AT_DIGITS digits of made_at its
 * 64 bits, lowest byte first, each where it belongs.
 *
 * False: it does not fit, made_at has more or fewer digits, or JSON would escape
 * something in the changes, which are ASCII.
 */
bool bftn_usual_complete(uint8_t *text, size_t room, size_t changes_len,
                         size_t key_len);

#endif
