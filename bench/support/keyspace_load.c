#include "keyspace_load.h"

#include "bftree_bulk.h"
#include "bftree_calls.h"

struct loading {
    const struct keyspace *keys;
    uint64_t next;
    uint8_t key[RIG_KEY], value[RIG_VALUE];
};

static bft_status next_record(void *ctx, bft_bulk_record *record)
{
    struct loading *l = ctx;

    if (l->next == l->keys->n)
        return BFT_NOT_FOUND;
    keyspace_key(l->keys, l->next++, l->key);
    keyspace_value(l->keys, l->key, 0, l->value);
    record->key = slice(l->key, sizeof(l->key));
    record->value = slice(l->value, l->keys->value_len);
    return BFT_OK;
}

uint64_t keyspace_load(const struct keyspace *keys, bft_tree *tree)
{
    struct loading loading = {.keys = keys};
    uint64_t loaded;

    must(bft_bulk_load(tree, NULL, next_record, &loading, &loaded), "load");
    return loaded;
}
