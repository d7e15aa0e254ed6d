/*
 * Transactions in their usual shape, past JSON.parse().
 *
 * Nearly all that is stored are private transactions as cojson's Rust core makes
 * them.  Parsing one takes several times as long as cutting its two strings out
 * of a text and naming them.
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

#endif
