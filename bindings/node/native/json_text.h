/* JSON text under construction: what a read found, on its way to one
 * JSON.parse(). */
#ifndef BFTN_JSON_TEXT_H
#define BFTN_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero it to start.  After a failed allocation `failed` is set and everything
 * added is ignored, so that only the end has to look. */
struct bftn_text {
    char *bytes;
    size_t len, room;
    bool failed;
};

/* Make it empty; keeps its memory unless that has grown beyond KEEP bytes. */
void bftn_text_reset(struct bftn_text *text, size_t keep);
void bftn_text_free(struct bftn_text *text);

void bftn_text_add(struct bftn_text *text, const void *bytes, size_t len);
/* A string that the program spells out, as it is. */
void bftn_text_put(struct bftn_text *text, const char *literal);
void bftn_text_number(struct bftn_text *text, uint64_t number);
/* BYTES, UTF-8, as a JSON string. */
void bftn_text_string(struct bftn_text *text, const void *bytes, size_t len);
/* The key of a member, with the comma before it unless it is the first. */
void bftn_text_key(struct bftn_text *text, const char *key);
/* A member whose value is a number. */
void bftn_text_member(struct bftn_text *text, const char *key, uint64_t number);
/* A comma, unless an array or an object has just been opened. */
void bftn_text_comma(struct bftn_text *text);

#endif
