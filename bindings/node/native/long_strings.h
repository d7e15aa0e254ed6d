/*
 * Long strings in JSON text, past JSON.parse().
 *
 * Most of what cojson stores of a file is one string of 100 KB and more in a
 * small object.  Parsing such a text costs two copies of it and a look at each
 * character; here the string is cut out and becomes a value by itself.
 */
#ifndef BFTN_LONG_STRINGS_H
#define BFTN_LONG_STRINGS_H

#include <stdbool.h>

#include "bft_status.h"

enum { BFTN_LONG_STRING = 4096 };

/* Where it is: KEY without quotes, STRING without quotes and without any
 * character that JSON would escape. */
struct bftn_long_string {
    bft_slice key, string;
};

/*
 * Find the first long string among the members of the object that JSON is.
 * False: there is none, or JSON is not as plain as JSON.stringify() writes an
 * object of strings and numbers.
 */
bool bftn_long_string_find(bft_slice json, struct bftn_long_string *found);

/* Would JSON.stringify() leave all of BYTES as they are? */
bool bftn_is_plain(const void *bytes, size_t len);
bool bftn_is_ascii(const void *bytes, size_t len);

#endif
