#include "bulk_source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

enum { VALUE_MOST = 1200000, SMALL = 40 };

static uint64_t number_of(uint64_t n, uint64_t kind)
{
    return random_mix(n * 8 + kind);
}

static size_t key_len(const struct bulk_source *s, uint64_t n)
{
    size_t most = s->leaf_bytes / BFTI_KEY_SHARE;
    if (most > BFT_KEY_MAX)
        most = BFT_KEY_MAX;
    switch (s->keys) {
    case BULK_SHORT:
        return 16;
    case BULK_RAGGED: /* few are very long */
        return 16 + number_of(n, 1) % (n % 50 ? 20 : most - 15);
    default:
        return most;
    }
}

static bft_slice key_of(const struct bulk_source *s, uint64_t n,
                        uint8_t key[BFT_KEY_MAX])
{
    size_t len = key_len(s, n), at = s->keys == BULK_LONG ? len - 16 : 0;
    char digits[24];
    memset(key, 'p', len);
    for (size_t i = 0; s->keys != BULK_LONG && i < len; i++)
        key[i] = (uint8_t)(number_of(n, 2) >> 8 * (i % 8));
    (void)snprintf(digits, sizeof(digits), "%016llu", (unsigned long long)n);
    memcpy(key + at, digits, 16);
    return (bft_slice){key, len};
}

static uint64_t value_len(const struct bulk_source *s, uint64_t n)
{
    uint64_t r = number_of(n, 3);
    if (s->values == BULK_SMALL)
        return SMALL;
    switch (r % 64) {
    case 0:
        return n % 500 == 0 ? 1 + r / 64 % VALUE_MOST : r / 64 % 40000;
    case 1:
    case 2:
        return r / 64 % 6000;
    case 3:
        return 0;
    default:
        return r / 64 % 150;
    }
}

static uint8_t byte_of(uint64_t n, uint64_t at)
{
    return (uint8_t)(n * 31 + at + at / 4096);
}

static void fill(uint8_t *buf, uint64_t n, uint64_t from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_of(n, from + i);
}

static bft_status read_value(void *ctx, void *buf, size_t len)
{
    struct bulk_source *s = ctx;
    fill(buf, s->n - 1, s->at, len);
    s->at += len;
    return BFT_OK;
}

void bulk_rewind(struct bulk_source *s)
{
    s->n = 0;
    if (!s->value)
        s->value = malloc(VALUE_MOST + 1);
    assert_non_null(s->value);
}

bft_status bulk_next(void *ctx, bft_bulk_record *record)
{
    struct bulk_source *s = ctx;
    uint64_t n = s->n;
    if (s->each)
        s->each(s->arg, n);
    if (s->stop_at && n == s->stop_at)
        return s->stop_with;
    if (n == s->count)
        return BFT_NOT_FOUND;
    s->n++;
    record->key = key_of(s, s->bad_at && n == s->bad_at ? n - 1 : n, s->key);
    if (number_of(n, 4) % 3 == 0) {
        s->at = 0;
        record->bytes = value_len(s, n);
        record->read = read_value;
        return BFT_OK;
    }
    record->value = (bft_slice){s->value, (size_t)value_len(s, n)};
    fill(s->value, n, 0, record->value.len);
    return BFT_OK;
}

void bulk_free(struct bulk_source *s)
{
    free(s->value);
    s->value = NULL;
}

void bulk_load(bft_tree *tree, struct bulk_source *s, unsigned fill_percent)
{
    bft_bulk_options options = {.size = sizeof(options),
                                .fill_percent = fill_percent};
    uint64_t records;
    bulk_rewind(s);
    expect_ok(bft_bulk_load(tree, &options, bulk_next, s, &records));
    assert_int_equal(s->count, records);
}

bft_status bulk_try(bft_tree *tree, struct bulk_source *s)
{
    uint64_t records = 77;
    bft_status status;
    bulk_rewind(s);
    status = bft_bulk_load(tree, NULL, bulk_next, s, &records);
    assert_int_equal(status == BFT_OK ? s->count : 0, records);
    return status;
}

uint64_t bulk_count(bft_tree *tree)
{
    bft_slice none = {NULL, 0};
    uint64_t count;
    expect_ok(bft_count(tree, none, none, &count));
    return count;
}

static void expect_record(const struct bulk_source *s, uint64_t n,
                          bft_slice key, bft_slice value)
{
    uint8_t buf[BFT_KEY_MAX];
    bft_slice want = key_of(s, n, buf);
    assert_int_equal(want.len, key.len);
    assert_memory_equal(want.data, key.data, key.len);
    assert_int_equal(value_len(s, n), value.len);
    fill(s->value, n, 0, value.len);
    assert_memory_equal(s->value, value.data, value.len);
}

void bulk_expect(bft_tree *tree, struct bulk_source *s)
{
    bft_cursor *cursor;
    bft_slice key, value;
    bft_status status;
    uint64_t n = 0;
    bulk_rewind(s);
    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_true(n < s->count);
        expect_record(s, n++, key, value);
    }
    expect_status(BFT_NOT_FOUND, status);
    assert_int_equal(s->count, n);
    while (n-- > 0 && bft_cursor_prev(cursor) == BFT_OK) {
        uint8_t buf[BFT_KEY_MAX];
        bft_slice want = key_of(s, n, buf);
        expect_ok(bft_cursor_key(cursor, &key));
        assert_int_equal(want.len, key.len);
        assert_memory_equal(want.data, key.data, key.len);
    }
    assert_true(n == UINT64_MAX);
    bft_cursor_close(cursor);
}
