#include "fault_known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

/* --- changes -------------------------------------------------------------- */

void known_clear(struct known_db *db)
{
    memset(db, 0, sizeof(*db));
    for (unsigned t = 0; t < KNOWN_TREES; t++) {
        db->tree[t].name.count = 1; /* seed 0 */
        for (unsigned k = 0; k < KNOWN_KEYS; k++)
            db->tree[t].key[k].count = 1;
    }
}

uint32_t known_seed(struct known_db *db, enum known_size size)
{
    return ++db->last_seed << 3 | (uint32_t)size;
}

uint32_t known_op(struct known_db *db)
{
    assert_true(db->op + 1 < KNOWN_OPS);
    return ++db->op;
}

void known_change(struct known *known, struct known_value value,
                  bft_status status)
{
    if (known->count == KNOWN_MAYBE) {
        known->any = true;
        return;
    }
    known->may[known->count++] = value;
    if (status == BFT_OK)
        known->acked = known->count - 1;
}

static void synced(struct known *known)
{
    known->count -= known->acked;
    memmove(known->may, known->may + known->acked,
            known->count * sizeof(*known->may));
    known->acked = 0;
}

void known_synced(struct known_db *db)
{
    for (unsigned t = 0; t < KNOWN_TREES; t++) {
        synced(&db->tree[t].name);
        for (unsigned k = 0; k < KNOWN_KEYS; k++)
            synced(&db->tree[t].key[k]);
    }
}

/* --- keys, names and values -------------------------------------------------- */

#define PREFIX "a common prefix "

bft_slice known_key(char text[32], unsigned k)
{
    return (bft_slice){text, (size_t)snprintf(text, 32, PREFIX "%05u", k)};
}

unsigned known_key_number(bft_slice key)
{
    char text[32];
    unsigned k;
    assert_true(key.len == strlen(PREFIX) + 5);
    memcpy(text, key.data, key.len);
    text[key.len] = 0;
    k = (unsigned)strtoul(text + strlen(PREFIX), NULL, 10);
    assert_true(k < KNOWN_KEYS);
    return k;
}

const char *known_name(char text[16], unsigned tree, unsigned which)
{
    (void)snprintf(text, 16, "%s %u", which == 1 ? "tree" : "renamed", tree);
    return text;
}

size_t known_len(uint32_t seed)
{
    static const uint32_t len[] = {
        [KNOWN_MIDDLE] = 300,      [KNOWN_KILO] = 1000,
        [KNOWN_OUTSIDE] = 3000,    [KNOWN_LARGE] = 20000,
        [KNOWN_STREAMED] = 150000, [KNOWN_SEVERAL] = KNOWN_LEN_MAX};
    return (seed & 7) == KNOWN_SHORT ? random_mix(seed) % 80 : len[seed & 7];
}

/* Words of eight bytes, each of its place. */
void known_bytes(uint32_t seed, size_t from, void *buf, size_t len)
{
    uint8_t *to = buf;
    while (len) {
        uint64_t word = (from / 8 + 1) * 0x9e3779b97f4a7c15u ^ seed;
        size_t skip = from % 8, some = 8 - skip < len ? 8 - skip : len;
        memcpy(to, (uint8_t *)&word + skip, some);
        to += some;
        from += some;
        len -= some;
    }
}

static bool is_value(uint32_t seed, const uint8_t *bytes, size_t len)
{
    uint8_t some[512];
    if (!seed || len != known_len(seed))
        return false;
    for (size_t at = 0; at < len; at += sizeof(some)) {
        size_t n = len - at < sizeof(some) ? len - at : sizeof(some);
        known_bytes(seed, at, some, n);
        if (memcmp(some, bytes + at, n) != 0)
            return false;
    }
    return true;
}

/* --- looking ----------------------------------------------------------------- */

uint32_t known_seed_of(const struct known *known, const void *bytes, size_t len)
{
    for (unsigned i = known->count; i-- > 0;)
        if (is_value(known->may[i].seed, bytes, len))
            return known->may[i].seed;
    return UINT32_MAX;
}

uint32_t known_seed_ever(const struct known_db *db, const void *bytes,
                         size_t len)
{
    for (uint32_t seed = 8; seed < (db->last_seed + 1) << 3; seed++)
        if ((seed & 7) <= KNOWN_SEVERAL && is_value(seed, bytes, len))
            return seed;
    return UINT32_MAX;
}

/* VALUE as it is found at that time. */
static uint32_t found(const struct known_look *look,
                      const struct known_value *value)
{
    bool gone = value->until && look->known->now_ms >= value->until;
    return gone ? 0 : value->seed;
}

static bool matches(const struct known_look *look,
                    const struct known_value *value, uint32_t seed)
{
    if (value->until && look->either_gone && (!seed || seed == value->seed))
        return true;
    return seed == found(look, value);
}

/* What KNOWN has tells of the last change, unless one before leaves the same. */
static void see(struct known_look *look, const struct known *known,
                unsigned from, uint32_t seed)
{
    const struct known_value *last = &known->may[known->count - 1];
    if (from == known->count - 1 || look->either_gone)
        return;
    for (unsigned i = from; i + 1 < known->count; i++)
        if (found(look, &known->may[i]) == found(look, last))
            return;
    look->seen[last->op] |= found(look, last) == seed ? 1 : 2;
}

bool known_may_be(struct known_look *look, const struct known *known,
                  uint32_t seed)
{
    unsigned from = look->power ? 0 : known->acked;
    if (known->any)
        return true;
    for (unsigned i = from; i < known->count; i++)
        if (matches(look, &known->may[i], seed)) {
            see(look, known, from, seed);
            return true;
        }
    return false;
}

uint32_t known_torn(const struct known_look *look)
{
    for (uint32_t op = 0; op < KNOWN_OPS; op++)
        if (look->seen[op] == 3)
            return op;
    return 0;
}
