/*
 * Transactions of a model run: a few reads, writes and scans, with writes of
 * others beside them, and what the commit then has to answer.
 */
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_ops.h"
#include "random.h"

enum { KEYS = 40, SCANS = 4 };

/* A key that the transaction, or a write beside it, had to do with. */
struct touched {
    struct model_slot *slot;
    struct model_key key;
    bool read, written; /* by the transaction */
    bool was, sees;     /* is there a record when it began, in its eyes? */
    struct model_value was_value, sees_value;
};

static struct deal {
    bft_txn *txn;
    bft_isolation isolation;
    struct touched touched[KEYS];
    size_t count;
    struct {
        struct model_slot *slot;
        struct model_key low, high;
    } scan[SCANS];
    size_t scans;
    size_t bytes; /* about what it keeps */
} deal;

/* --- what it has to do with ------------------------------------------------ */

static int order_of(const struct model_key *a, const struct model_key *b)
{
    return bfti_key_compare(model_slice(a), model_slice(b));
}

/* Before the key is written; NULL: no more of them. */
static struct touched *touch(struct model_slot *s, const struct model_key *key)
{
    const struct model_value *now = model_map_get(&s->map, model_slice(key));
    struct touched *t = deal.touched;
    for (; t < deal.touched + deal.count; t++)
        if (t->slot == s && order_of(&t->key, key) == 0)
            return t;
    if (deal.count == KEYS)
        return NULL;
    deal.count++;
    memset(t, 0, sizeof(*t));
    t->slot = s;
    t->key = *key;
    t->was = t->sees = now != NULL;
    if (now)
        t->was_value = t->sees_value = *now;
    return t;
}

static struct touched *touch_any(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(4) ? model_key_there(s) : model_key_to_add(s);
    if (deal.count && random_below(2))
        return &deal.touched[random_below(deal.count)];
    return touch(s, &key);
}

/* What is kept for it must stay below what it may keep. */
static bool has_room(size_t bytes)
{
    deal.bytes += bytes + 128;
    return deal.bytes <= model_batch_bytes_max();
}

/* --- steps ---------------------------------------------------------------- */

static void step_get(void)
{
    struct touched *t = touch_any();
    bft_status status;
    size_t len;
    if (!t || !has_room(2 * t->key.len))
        return;
    t->read = true;
    status = bft_txn_get(deal.txn, t->slot->tree, model_slice(&t->key),
                         model_buf, MODEL_BUF, &len);
    model_check_answer(t->slot, model_slice(&t->key),
                       t->sees ? &t->sees_value : NULL, status, len);
}

static void step_write(void)
{
    struct touched *t = touch_any();
    struct model_value value =
        model_make_value(random_below(random_below(10) ? 120 : 2000));
    bool put = random_below(4) != 0;
    if (!t || !has_room(t->key.len + value.len))
        return;
    t->written = true;
    t->sees = put;
    t->sees_value = value;
    expect_ok(
        put ? bft_txn_put(deal.txn, t->slot->tree, model_slice(&t->key),
                          model_value_slice(value))
            : bft_txn_delete(deal.txn, t->slot->tree, model_slice(&t->key)));
}

/* What the transaction sees of the records from LOW up to HIGH. */
static void sees(struct model_slot *s, const struct model_key *low,
                 const struct model_key *high, struct model_map *map)
{
    bool found;
    size_t i = model_map_search(&s->map, model_slice(low), &found);
    size_t end = model_map_search(&s->map, model_slice(high), &found);
    memset(map, 0, sizeof(*map));
    for (; i < end; i++)
        model_map_put(map, model_map_key(&s->map, i), s->map.record[i].value);
    for (size_t n = 0; n < deal.count; n++) {
        const struct touched *t = &deal.touched[n];
        if (t->slot != s || order_of(&t->key, low) < 0 ||
            order_of(&t->key, high) >= 0)
            continue;
        if (t->sees)
            model_map_put(map, model_slice(&t->key), t->sees_value);
        else
            model_map_delete(map, model_slice(&t->key));
    }
}

/* A few neighbours, to the end, so that all of the range was read. */
static void step_scan(void)
{
    struct model_slot *s = model_any_slot();
    size_t from = random_below(s->map.count + 1), to = from + random_below(8);
    bool forward = random_below(2);
    struct model_place p = {.slot = s};
    struct model_map map;
    if (to >= s->map.count || deal.scans == SCANS ||
        !has_room((to - from + 4) * 2 * model_key_max(s)))
        return;
    p.low = model_key_at(&s->map, from);
    p.high = model_key_at(&s->map, to);
    sees(s, &p.low, &p.high, &map);
    p.map = &map;
    expect_ok(bft_txn_cursor(deal.txn, s->tree, &p.cursor));
    expect_ok(
        bft_cursor_bounds(p.cursor, model_slice(&p.low), model_slice(&p.high)));
    for (size_t n = 0; n <= map.count; n++)
        model_place_step(&p, forward);
    model_place_close(&p);
    deal.scan[deal.scans].slot = s;
    deal.scan[deal.scans].low = p.low;
    deal.scan[deal.scans++].high = p.high;
    model_run.deeds[MODEL_TXN_SCANS]++;
    model_map_clear(&map);
}

/* Others write, also what was there. */
static void step_beside(void)
{
    struct touched *t = touch_any();
    struct model_value value;
    if (!t)
        return;
    value = model_any_value(t->slot);
    if (random_below(3) == 0)
        model_write(t->slot, model_slice(&t->key),
                    t->was ? &t->was_value : NULL);
    else
        model_write(t->slot, model_slice(&t->key),
                    random_below(3) ? &value : NULL);
}

/* --- the end -------------------------------------------------------------- */

static bool is_scanned(const struct touched *t)
{
    bool any = false;
    for (size_t i = 0; i < deal.scans; i++)
        any = any || (deal.scan[i].slot == t->slot &&
                      order_of(&t->key, &deal.scan[i].low) >= 0 &&
                      order_of(&t->key, &deal.scan[i].high) < 0);
    return any;
}

/* Short values may be equal whatever they were made of. */
static bool is_as_it_was(const struct touched *t)
{
    const struct model_value *now =
        model_map_get(&t->slot->map, model_slice(&t->key));
    if (!now || !t->was)
        return !now && !t->was;
    return now->len == t->was_value.len &&
           model_value_is(*now, 0, model_value_slice(t->was_value).data,
                          (size_t)now->len);
}

static bft_status due_status(void)
{
    bool writes = false, may = true;
    for (size_t i = 0; i < deal.count; i++) {
        const struct touched *t = &deal.touched[i];
        bool counts = t->written || (deal.isolation == BFT_SERIALIZABLE &&
                                     (t->read || is_scanned(t)));
        writes = writes || t->written;
        may = may && (!counts || is_as_it_was(t));
    }
    return may || !writes ? BFT_OK : BFT_CONFLICT;
}

static void commit(void)
{
    bft_status due = due_status();
    bool writes = false;
    expect_status(due, bft_txn_commit(deal.txn, BFT_DEFAULT, NULL));
    for (size_t i = 0; due == BFT_OK && i < deal.count; i++) {
        const struct touched *t = &deal.touched[i];
        writes = writes || t->written;
        if (t->written && t->sees)
            model_map_put(&t->slot->map, model_slice(&t->key), t->sees_value);
        else if (t->written)
            model_map_delete(&t->slot->map, model_slice(&t->key));
    }
    model_run.deeds[MODEL_CONFLICTS] += due != BFT_OK;
    model_run.deeds[MODEL_COMMITS] += writes;
}

void model_op_txn(void)
{
    bool alone = random_below(2);
    deal.count = deal.scans = deal.bytes = 0;
    deal.isolation = (bft_isolation)random_below(2);
    expect_ok(bft_txn_begin(model_run.f->db, deal.isolation, &deal.txn));
    for (size_t n = 1 + random_below(12); n > 0; n--)
        switch (random_below(8)) {
        case 0:
            step_scan();
            break;
        case 1:
        case 2:
            if (!alone)
                step_beside();
            break;
        case 3:
        case 4:
            step_get();
            break;
        default:
            step_write();
        }
    if (random_below(8)) {
        commit();
    } else {
        bft_txn_abort(deal.txn);
        model_run.deeds[MODEL_ABORTS]++;
    }
    for (size_t i = 0; i < deal.count && i < 6; i++)
        model_check_get(deal.touched[i].slot,
                        model_slice(&deal.touched[i].key));
}
