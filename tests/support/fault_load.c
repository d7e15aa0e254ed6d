/* Bulk loads and merges that may fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fault_life.h"

struct source {
    struct fault_life *l;
    struct known_value value[KNOWN_KEYS];
    unsigned k[KNOWN_KEYS];
    unsigned count, asked;
    size_t at; /* in the value that is streamed */
    char text[32];
};

static void source_make(struct source *s, struct fault_life *l, unsigned low,
                        unsigned high, unsigned step, enum known_size usual)
{
    *s = (struct source){.l = l};
    for (unsigned k = low; k < high; k += step) {
        enum known_size size = s->count % 8 == 5    ? KNOWN_MIDDLE
                               : s->count % 40 == 9 ? KNOWN_LARGE
                               : s->count % 32 == 3 ? KNOWN_OUTSIDE
                                                    : usual;
        s->k[s->count] = k;
        s->value[s->count++].seed = known_seed(&l->known, size);
    }
}

static bft_status read_value(void *ctx, void *buf, size_t len)
{
    struct source *s = ctx;
    known_bytes(s->value[s->asked - 1].seed, s->at, buf, len);
    s->at += len;
    return BFT_OK;
}

static bft_status next(void *ctx, bft_bulk_record *record)
{
    struct source *s = ctx;
    uint32_t seed;
    if (s->asked == s->count)
        return BFT_NOT_FOUND;
    seed = s->value[s->asked].seed;
    record->key = known_key(s->text, s->k[s->asked++]);
    s->at = 0;
    if (known_len(seed) >= 3000) {
        record->bytes = known_len(seed);
        record->read = read_value;
    } else {
        known_bytes(seed, 0, s->l->bytes, known_len(seed));
        record->value = (bft_slice){s->l->bytes, known_len(seed)};
    }
    return BFT_OK;
}

/* One step: all of them are there, or none. */
static bft_status load(struct fault_life *l, unsigned t, struct source *s)
{
    uint32_t op = known_op(&l->known);
    uint64_t records;
    bft_status status;
    s->asked = 0;
    status = bft_bulk_load(l->tree[t], NULL, next, s, &records);
    assert_int_equal(status == BFT_OK ? s->count : 0, records);
    for (unsigned i = 0; i < s->count && status != BFT_EXISTS; i++) {
        s->value[i].op = op;
        known_change(&l->known.tree[t].key[s->k[i]], s->value[i], status);
    }
    return status;
}

void fault_load(struct fault_life *l, unsigned t, unsigned low, unsigned high,
                unsigned step, enum known_size usual)
{
    struct source s;
    bft_status status;
    source_make(&s, l, low, high, step, usual);
    if (!l->tree[t])
        return;
    if (fault_well(l, load(l, t, &s)))
        return;
    /* What it left is in the way of no other one; unless it is loaded. */
    status = load(l, t, &s);
    if (status != BFT_EXISTS)
        (void)fault_well(l, status);
}

void fault_merge(struct fault_life *l, unsigned t, unsigned low, unsigned high,
                 unsigned step, enum known_size usual)
{
    struct source s;
    uint64_t records;
    bft_status status;
    source_make(&s, l, low, high, step, usual);
    if (!l->tree[t])
        return;
    status = bft_bulk_merge(l->tree[t], next, &s, &records);
    assert_true(records <= s.asked);
    for (unsigned i = 0; i < s.asked; i++) {
        s.value[i].op = known_op(&l->known);
        known_change(&l->known.tree[t].key[s.k[i]], s.value[i],
                     i < records ? BFT_OK : status);
    }
    (void)fault_well(l, status);
}
