#include "records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

int key_order(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    for (size_t i = 0; i < a_len && i < b_len; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return (a_len > b_len) - (a_len < b_len);
}

int record_order(const struct record *a, const struct record *b)
{
    return key_order(a->key, a->key_len, b->key, b->key_len);
}

bft_slice record_key(const struct record *r)
{
    return (bft_slice){r->key, r->key_len};
}

static void letters(struct record *r, size_t from, size_t count)
{
    static const uint8_t letter[] = {0, 0, 1, 'a', 'b', 0xfe, 0xff, 0xff};
    for (size_t i = 0; i < count; i++)
        r->key[from + i] = letter[random_below(sizeof letter)];
    r->key_len = from + count;
}

void record_random_key(struct record *r, unsigned shape)
{
    switch (shape) {
    case 0: /* "a", "a\0", "a\0\0": heads that padding makes equal */
        letters(r, 0, 1 + random_below(7));
        break;
    case 1: /* one head for all */
        memset(r->key, 0xff, 4);
        letters(r, 4, random_below(6));
        break;
    case 2: /* a long common prefix, and it itself as a key */
        memset(r->key, 'p', 40);
        letters(r, 40, random_below(7));
        break;
    case 3: /* a few groups, numbered within */
        memset(r->key, 'g', 9);
        r->key[9] = (uint8_t)random_below(4);
        memset(r->key + 10, 0, 6);
        r->key[16] = (uint8_t)random_below(3);
        r->key[17] = (uint8_t)random_next();
        r->key_len = 18;
        break;
    case 4: /* up to the longest */
        r->key_len = random_below(8) ? 1 + random_below(40)
                                     : BFTI_KEY_MAX - random_below(3);
        memset(r->key, 'l', r->key_len);
        letters(r, r->key_len - 1, 1);
        break;
    default:
        r->key_len = 1 + random_below(20);
        random_bytes(r->key, r->key_len);
    }
}

void record_random_value(struct record *r)
{
    r->op = (uint8_t)(BFTI_OP_PUT + random_below(4));
    r->flags = 0;
    r->value_len = 0;
    if (!bfti_op_has_value(r->op))
        return;
    r->value_len =
        random_below(4) ? random_below(20) : random_below(RECORD_VALUE_MAX + 1);
    if (random_below(4) == 0) {
        r->flags = BFTI_REC_LARGE;
        r->value_len = sizeof(struct bfti_large);
    }
    random_bytes(r->value, r->value_len);
}

static int order(const void *a, const void *b)
{
    return record_order(a, b);
}

size_t records_sort(struct record *r, size_t count)
{
    size_t kept = 0;
    qsort(r, count, sizeof *r, order);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || record_order(r + kept - 1, r + i) != 0)
            r[kept++] = r[i];
    return kept;
}

size_t records_make(struct record *r, size_t count, unsigned shape)
{
    for (size_t i = 0; i < count; i++) {
        record_random_key(r + i, shape);
        record_random_value(r + i);
    }
    return records_sort(r, count);
}

struct bfti_view record_view(const struct record *r)
{
    size_t cut = random_below(r->key_len + 1);
    return (struct bfti_view){
        .prefix = r->key,
        .suffix = r->key + cut,
        .value = r->value,
        .prefix_len = (uint16_t)cut,
        .suffix_len = (uint16_t)(r->key_len - cut),
        .value_len = (uint32_t)r->value_len,
        .op = r->op,
        .flags = r->flags,
    };
}

void record_expect(const struct record *r, uint8_t op,
                   const struct bfti_view *v)
{
    uint8_t key[BFTI_KEY_MAX];

    assert_int_equal(bfti_view_key_len(v), r->key_len);
    bfti_view_key(v, key);
    assert_memory_equal(key, r->key, r->key_len);
    assert_int_equal(v->value_len, r->value_len);
    if (r->value_len > 0)
        assert_memory_equal(v->value, r->value, r->value_len);
    assert_int_equal(v->op, op);
    assert_int_equal(v->flags, r->flags);
}

uint64_t record_place(const struct record *r)
{
    struct bfti_large large;
    memcpy(&large, r->value, sizeof large);
    return le64_get(large.place);
}
