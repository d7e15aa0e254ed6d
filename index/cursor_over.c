/*
 * What is laid over a cursor's copy of a part of a tree: what its records were
 * for a snapshot, or what a transaction is about to write.
 */
#include "cursor_internal.h"

#include <stdlib.h>

/* --- what is laid over ---------------------------------------------------- */

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a cursor");
}

void bfti_over_free(const struct bfti_env *env, struct bfti_over *over)
{
    bfti_free(env, over->item);
    bfti_free(env, over->bytes);
    memset(over, 0, sizeof(*over));
}

static bft_status over_reserve(const struct bfti_env *env,
                               struct bfti_over *over, size_t bytes)
{
    if (over->count == over->cap) {
        size_t cap = over->cap ? over->cap * 2 : 16;
        struct bfti_over_item *grown =
            bfti_realloc(env, over->item, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        over->item = grown;
        over->cap = cap;
    }
    if (over->bytes_cap - over->used < bytes) {
        size_t cap = over->bytes_cap * 2;
        uint8_t *grown;
        if (cap < over->used + bytes)
            cap = over->used + bytes + 1024;
        grown = bfti_realloc(env, over->bytes, cap);
        if (!grown)
            return no_memory();
        over->bytes = grown;
        over->bytes_cap = cap;
    }
    return BFT_OK;
}

static size_t over_bytes(struct bfti_over *over, bft_slice from)
{
    size_t at = over->used;
    if (from.len)
        memcpy(over->bytes + at, from.data, from.len);
    over->used += from.len;
    return at;
}

bft_status bfti_over_add(const struct bfti_env *env, struct bfti_over *over,
                         bft_slice key, bft_slice value,
                         const struct bfti_over_item *like)
{
    struct bfti_over_item *item;
    bft_status status = over_reserve(env, over, key.len + value.len);
    if (status != BFT_OK)
        return status;
    item = &over->item[over->count++];
    *item = *like;
    item->key_at = over_bytes(over, key);
    item->key_len = (uint32_t)key.len;
    item->value_at = over_bytes(over, value);
    item->value_len = (uint32_t)value.len;
    return BFT_OK;
}

static bft_slice item_key(const struct bfti_over *over, size_t i)
{
    bft_slice key = {over->bytes + over->item[i].key_at, over->item[i].key_len};
    return key;
}

/* --- bounds of a copy ----------------------------------------------------- */

void bfti_copy_cut(struct bfti_copy *copy, bft_slice key, bool before)
{
    size_t kept = 0;
    if (before) {
        while (kept < copy->count &&
               bfti_key_compare(bfti_copy_key(copy, kept), key) < 0)
            kept++;
        if (kept) /* else there may be no memory of records yet */
            memmove(copy->record, copy->record + kept,
                    (copy->count - kept) * sizeof(*copy->record));
        copy->count -= kept;
        bfti_bound_set(&copy->low, key);
    } else {
        while (copy->count &&
               bfti_key_compare(bfti_copy_key(copy, copy->count - 1), key) >= 0)
            copy->count--;
        bfti_bound_set(&copy->high, key);
    }
}

/* Is KEY above the lower bound, below the upper one? */
static bool above_low(const struct bfti_copy *copy, bft_slice key)
{
    return copy->low.len == 0 ||
           bfti_key_compare(bfti_bound_key(&copy->low), key) < 0;
}

static bool below_high(const struct bfti_copy *copy, bft_slice key)
{
    return copy->high.len == 0 ||
           bfti_key_compare(key, bfti_bound_key(&copy->high)) < 0;
}

void bfti_copy_narrow(struct bfti_copy *copy, const struct bfti_copy_wish *wish)
{
    uint8_t buf[BFTI_KEY_MAX];
    bft_slice end = {buf, wish->key.len};
    if (wish->low.len && above_low(copy, wish->low))
        bfti_copy_cut(copy, wish->low, true);
    if (wish->high.len && below_high(copy, wish->high))
        bfti_copy_cut(copy, wish->high, false);
    if (wish->key.len == 0)
        return;
    if (!wish->before) {
        if (above_low(copy, wish->key))
            bfti_copy_cut(copy, wish->key, true);
        return;
    }
    memcpy(buf, wish->key.data, wish->key.len);
    if (wish->or_equal) /* the next key there is; keys leave room for it */
        buf[end.len++] = 0;
    if (below_high(copy, end))
        bfti_copy_cut(copy, end, false);
}

/* --- laying --------------------------------------------------------------- */

struct order {
    bft_slice key;
    uint64_t rank;
    size_t index;
};

static int by_key(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    int order = bfti_key_compare(x->key, y->key);
    if (order)
        return order;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Add to TO the record with KEY and VALUE; there is room. */
static void add(struct bfti_copy *to, bft_slice key, bft_slice value,
                uint8_t flags)
{
    uint8_t *at = to->bytes + to->used;
    to->record[to->count++] =
        (struct bfti_copied){.at = to->used,
                             .value_len = (uint32_t)value.len,
                             .key_len = (uint16_t)key.len,
                             .flags = flags};
    memcpy(at, key.data, key.len);
    if (value.len)
        memcpy(at + key.len, value.data, value.len);
    to->used += key.len + value.len;
}

/* Both in order; of two records with one key that of OVER. */
static void merge(struct bfti_copy *to, const struct bfti_copy *from,
                  const struct bfti_over *over, const struct order *order,
                  size_t n)
{
    size_t i = 0, j = 0;
    while (i < from->count || j < n) {
        int side;
        if (j == n)
            side = -1;
        else
            side = i == from->count
                       ? 1
                       : bfti_key_compare(bfti_copy_key(from, i), order[j].key);
        if (side < 0) {
            add(to, bfti_copy_key(from, i), bfti_copy_value(from, i),
                from->record[i].flags);
            i++;
            continue;
        }
        if (over->item[order[j].index].there) {
            const struct bfti_over_item *item = &over->item[order[j].index];
            bft_slice value = {over->bytes + item->value_at, item->value_len};
            add(to, order[j].key, value, item->flags);
        }
        i += side == 0;
        for (j++;
             j < n && bfti_key_compare(order[j - 1].key, order[j].key) == 0;)
            j++;
    }
}

bft_status bfti_copy_lay(struct bfti_copy *copy, struct bfti_over *over)
{
    const struct bfti_env *env = copy->env;
    struct bfti_copy fresh = {.env = env};
    struct order *order;
    size_t n = 0;
    if (over->count == 0)
        return BFT_OK;
    order = bfti_alloc(env, over->count * sizeof(*order));
    fresh.cap = copy->count + over->count;
    fresh.bytes_cap = copy->used + over->used + 1;
    fresh.record = bfti_alloc(env, fresh.cap * sizeof(*fresh.record));
    fresh.bytes = bfti_alloc(env, fresh.bytes_cap);
    if (!order || !fresh.record || !fresh.bytes) {
        bfti_free(env, order);
        bfti_copy_free(&fresh);
        copy->valid = false;
        return no_memory();
    }
    for (size_t i = 0; i < over->count; i++) {
        bft_slice key = item_key(over, i);
        if ((above_low(copy, key) ||
             bfti_key_compare(key, bfti_bound_key(&copy->low)) == 0) &&
            below_high(copy, key))
            order[n++] = (struct order){key, over->item[i].rank, i};
    }
    qsort(order, n, sizeof(*order), by_key);
    merge(&fresh, copy, over, order, n);
    bfti_free(env, order);
    bfti_free(env, copy->record);
    bfti_free(env, copy->bytes);
    copy->record = fresh.record;
    copy->cap = fresh.cap;
    copy->bytes = fresh.bytes;
    copy->bytes_cap = fresh.bytes_cap;
    copy->count = fresh.count;
    copy->used = fresh.used;
    return BFT_OK;
}
