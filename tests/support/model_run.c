/* Random keys and values of a model run, and what a tree answers for them. */
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_run.h"
#include "random.h"

struct model_run model_run;
uint8_t model_buf[MODEL_BUF];

/* --- keys ----------------------------------------------------------------- */

size_t model_key_max(const struct model_slot *s)
{
    return s->leaf_bytes / 4;
}

static void put_be64(uint8_t *to, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(n >> (56 - 8 * i));
}

struct model_key model_key_of(const struct model_slot *s, uint64_t n)
{
    struct model_key key = {.len = 0};
    uint64_t h = n * 0x9e3779b97f4a7c15u;
    switch (s->style) {
    case 0:
        put_be64(key.bytes, n);
        key.len = 8;
        break;
    case 1: /* a long prefix in common */
        key.len = (size_t)snprintf((char *)key.bytes, 100,
                                   "co_zabcdefghijklmnopqrst/session/%014llu",
                                   (unsigned long long)n);
        break;
    case 2: /* any length, few letters: many prefixes in common */
        key.len = 1 + (h >> 40) % (n % 16 == 0 ? model_key_max(s) : 24);
        for (size_t i = 0; i < key.len; i++) {
            h = h * 6364136223846793005u + 1442695040888963407u;
            key.bytes[i] = (uint8_t)("\0\0a\xff"[h >> 62]);
        }
        break;
    case 4: /* as long as can be, and different only at the end */
        key.len = model_key_max(s);
        memset(key.bytes, 'p', key.len);
        put_be64(key.bytes + key.len - 8, n);
        break;
    default: /* groups */
        snprintf((char *)key.bytes, 100, "%03llu/",
                 h >> 56 & 0x3f ? (unsigned long long)(h >> 56 & 0x3f) : 0ull);
        put_be64(key.bytes + 4, n);
        key.len = 12;
        break;
    }
    return key;
}

struct model_key model_key_to_add(struct model_slot *s)
{
    uint64_t middle = UINT64_C(1) << 32;
    switch (random_below(8) ? model_run.phase : MODEL_RANDOM) {
    case MODEL_ASCENDING:
    case MODEL_QUEUE:
        return model_key_of(s, middle + s->head++);
    case MODEL_DESCENDING:
        return model_key_of(s, middle - ++s->low);
    default:
        return model_key_of(s, random_below(MODEL_KEYS));
    }
}

struct model_key model_key_at(const struct model_map *map, size_t i)
{
    struct model_key key;
    bft_slice there = model_map_key(map, i);
    memcpy(key.bytes, there.data, there.len);
    key.len = there.len;
    return key;
}

struct model_key model_key_in(const struct model_slot *s,
                              const struct model_map *map)
{
    if (map->count && random_below(8))
        return model_key_at(map, random_below(map->count));
    return model_key_of(s, random_below(MODEL_KEYS));
}

struct model_key model_key_there(const struct model_slot *s)
{
    return model_key_in(s, &s->map);
}

struct model_key model_key_to_delete(struct model_slot *s)
{
    if (model_run.phase == MODEL_QUEUE && random_below(8)) {
        if (s->tail < s->head)
            return model_key_of(s, (UINT64_C(1) << 32) + s->tail++);
        if (s->map.count)
            return model_key_at(&s->map, 0);
    }
    return model_key_there(s);
}

struct model_slot *model_any_slot(void)
{
    struct model_slot *s;
    do
        s = &model_run.slot[random_below(MODEL_TREES)];
    while (!s->live);
    return s;
}

size_t model_batch_bytes_max(void)
{
    return model_run.f->options.memory_bytes / 8 * 3 / 4;
}

/* --- values --------------------------------------------------------------- */

struct model_value model_make_value(uint64_t len)
{
    struct model_value value = {random_next(), len};
    return value;
}

struct model_value model_any_value(const struct model_slot *s)
{
    size_t kind = random_below(1000);
    if (kind < 20)
        return model_make_value(0);
    if (kind < 960)
        return model_make_value(random_below(120));
    if (kind < 990)
        return model_make_value(random_below(s->leaf_bytes / 4));
    return model_make_value(s->leaf_bytes / 4 +
                            random_below((size_t)s->leaf_bytes * 2));
}

struct model_value model_huge_value(void)
{
    static const uint32_t around[] = {16 << 10, 508 << 10, 1 << 20, 2 << 20};
    return model_make_value(around[random_below(4)] + random_below(9000));
}

bft_slice model_value_slice(struct model_value value)
{
    assert_true(value.len <= MODEL_BUF);
    model_value_bytes(value, 0, model_buf, value.len);
    return (bft_slice){model_buf, value.len};
}

/* --- comparing ------------------------------------------------------------ */

void model_describe(const struct model_slot *s, bft_slice key)
{
    print_error("tree %s (leaves of %u bytes, style %u), key of %zu bytes:",
                s->name, (unsigned)s->leaf_bytes, s->style, key.len);
    for (size_t i = 0; i < key.len && i < 48; i++)
        print_error(" %02x", ((const uint8_t *)key.data)[i]);
    print_error("\n");
}

void model_check_answer(const struct model_slot *s, bft_slice key,
                        const struct model_value *want, bft_status status,
                        size_t len)
{
    char text[400] = "";
    if (status == (want ? BFT_OK : BFT_NOT_FOUND) &&
        len == (want ? want->len : 0) &&
        (!want || model_value_is(*want, 0, model_buf, len)))
        return;
    (void)bft_last_error(text, sizeof(text));
    model_describe(s, key);
    print_error("got status %d, %zu bytes; %s\n", (int)status, len, text);
    if (want)
        print_error("expected %llu bytes of seed %llx\n",
                    (unsigned long long)want->len,
                    (unsigned long long)want->seed);
    else
        print_error("expected nothing\n");
    fail();
}

void model_check_get(struct model_slot *s, bft_slice key)
{
    size_t len = 0;
    bft_status status = bft_get(s->tree, key, model_buf, MODEL_BUF, &len);
    model_check_answer(s, key, model_map_get(&s->map, key), status, len);
}

/* --- writing -------------------------------------------------------------- */

void model_write(struct model_slot *s, bft_slice key,
                 const struct model_value *value)
{
    if (!value) {
        expect_ok(bft_delete(s->tree, key));
        model_map_delete(&s->map, key);
        return;
    }
    expect_ok(bft_put(s->tree, key, model_value_slice(*value)));
    model_map_put(&s->map, key, *value);
}
