/* Plain records, the model that runs, lists and mini-pages are held against. */
#ifndef TEST_RECORDS_H
#define TEST_RECORDS_H

#include "buffer/run.h"

enum { RECORD_VALUE_MAX = 200, RECORD_SHAPES = 6 };

struct record {
    uint8_t key[BFTI_KEY_MAX];
    size_t key_len;
    uint8_t value[RECORD_VALUE_MAX];
    size_t value_len;
    uint8_t op, flags;
};

/* Byte by byte: -1, 0, 1. */
int key_order(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len);
int record_order(const struct record *a, const struct record *b);

/* A random key of shape 0.. RECORD_SHAPES - 1: each tempts another part of
 * search (few letters and zero bytes, equal heads, long prefixes, any). */
void record_random_key(struct record *r, unsigned shape);
/* A random operation with the value that goes with it, large ones among. */
void record_random_value(struct record *r);
/* COUNT random records, sorted, without equal keys: returns how many. */
size_t records_make(struct record *r, size_t count, unsigned shape);
size_t records_sort(struct record *r, size_t count);

/* A view of R; its key is cut anywhere in two, its value lies elsewhere. */
struct bfti_view record_view(const struct record *r);
/* Fails the test unless V shows R, as operation OP. */
void record_expect(const struct record *r, uint8_t op,
                   const struct bfti_view *v);
/* The place in a LARGE record. */
uint64_t record_place(const struct record *r);

bft_slice record_key(const struct record *r);

#endif
