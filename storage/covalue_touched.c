/*
 * The set of what a transaction has touched: a list while it is short, as it is
 * for one message of Jazz, and with an open hash table over it when it is not.
 */
#include "storage/covalue_touched.h"

#include <assert.h>
#include <string.h>

void bfti_touched_init(struct bfti_touched_set *set, const struct bfti_env *env)
{
    set->env = env;
    set->at = set->few;
    set->count = 0;
    set->max = TOUCHED_FEW;
    set->slots = NULL;
    set->slot_mask = 0;
}

void bfti_touched_free(struct bfti_touched_set *set)
{
    for (uint32_t i = 0; i < set->count; i++)
        bfti_free(set->env, set->at[i].owned);
    if (set->at != set->few)
        bfti_free(set->env, set->at);
    bfti_free(set->env, set->slots);
}

static bool key_equal(const struct bfti_touched_key *a,
                      const struct bfti_touched_key *b)
{
    return a->kind == b->kind && a->row == b->row && a->idx == b->idx &&
           bfti_slice_equal(a->id, b->id);
}

/* Multiplication and shifts over the id, eight bytes at a time, and the numbers:
 * keys come from peers, but a transaction is bounded by a batch, and so is what
 * a flood of collisions could cost. */
static uint64_t hash_add(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

static uint32_t key_hash(const struct bfti_touched_key *key)
{
    uint64_t hash = hash_add(key->kind, key->row);
    const uint8_t *id = key->id.data;
    size_t left = key->id.len;
    uint64_t word;

    hash = hash_add(hash, key->idx);
    for (; left >= sizeof(word); left -= sizeof(word), id += sizeof(word)) {
        memcpy(&word, id, sizeof(word));
        hash = hash_add(hash, word);
    }
    if (left != 0) {
        word = 0;
        memcpy(&word, id, left);
        hash = hash_add(hash, word);
    }
    return (uint32_t)hash;
}

uint32_t bfti_touched_find(const struct bfti_touched_set *set,
                           const struct bfti_touched_key *key)
{
    if (set->slots == NULL) {
        for (uint32_t i = 0; i < set->count; i++)
            if (key_equal(&set->at[i].key, key))
                return i;
        return TOUCHED_NONE;
    }
    /* Ends at a free slot: half of them are. */
    for (uint32_t slot = key_hash(key);; slot++) {
        uint32_t at = set->slots[slot & set->slot_mask];

        if (at == TOUCHED_NONE || key_equal(&set->at[at].key, key))
            return at;
    }
}

static void slot_fill(struct bfti_touched_set *set, uint32_t at)
{
    uint32_t slot = key_hash(&set->at[at].key);

    while (set->slots[slot & set->slot_mask] != TOUCHED_NONE)
        slot++;
    set->slots[slot & set->slot_mask] = at;
}

static bft_status grow(struct bfti_touched_set *set)
{
    uint32_t max = set->max * 2;
    uint32_t slot_count = max * 2;
    struct bfti_touched *at = bfti_alloc(set->env, max * sizeof(*at));
    uint32_t *slots = bfti_alloc(set->env, slot_count * sizeof(*slots));

    if (at == NULL || slots == NULL || max > UINT32_MAX / 4) {
        bfti_free(set->env, at);
        bfti_free(set->env, slots);
        return bfti_fail(
            BFT_NO_MEMORY,
            "covalue store: no memory for a transaction over %u rows",
            set->max);
    }
    memcpy(at, set->at, set->count * sizeof(*at));
    if (set->at != set->few)
        bfti_free(set->env, set->at);
    bfti_free(set->env, set->slots);
    set->at = at;
    set->max = max;
    set->slots = slots;
    set->slot_mask = slot_count - 1;
    memset(slots, 0xff, slot_count * sizeof(*slots));
    for (uint32_t i = 0; i < set->count; i++)
        slot_fill(set, i);
    return BFT_OK;
}

bft_status bfti_touched_add(struct bfti_touched_set *set,
                            const struct bfti_touched_key *key, uint32_t *at)
{
    *at = TOUCHED_NONE;
    if (set->count == set->max) {
        bft_status status = grow(set);

        if (status != BFT_OK)
            return status;
    }
    *at = set->count++;
    memset(&set->at[*at], 0, sizeof(set->at[*at]));
    set->at[*at].key = *key;
    set->at[*at].session_at = TOUCHED_NONE;
    if (set->slots != NULL)
        slot_fill(set, *at);
    return BFT_OK;
}
