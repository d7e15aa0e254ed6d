/*
 * What a tree should hold, as plainly as can be: an array sorted by key.  A
 * value is remembered as its length and the seed of its bytes.
 */
#ifndef MODEL_MAP_H
#define MODEL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"

struct model_value {
    uint64_t seed, len;
};

struct model_record {
    uint8_t *key;
    size_t key_len;
    struct model_value value;
};

struct model_map {
    struct model_record *record; /* ascending */
    size_t count, cap;
};

/* The first record with a key >= KEY (count when none); *FOUND: equal. */
size_t model_map_search(const struct model_map *map, bft_slice key,
                        bool *found);
const struct model_value *model_map_get(const struct model_map *map,
                                        bft_slice key);
void model_map_put(struct model_map *map, bft_slice key,
                   struct model_value value);
void model_map_delete(struct model_map *map, bft_slice key);
void model_map_clear(struct model_map *map);
/* TO, which is empty, becomes what FROM is. */
void model_map_copy(struct model_map *to, const struct model_map *from);
static inline bft_slice model_map_key(const struct model_map *map, size_t i)
{
    return (bft_slice){map->record[i].key, map->record[i].key_len};
}

/* LEN bytes of the value from OFFSET on. */
void model_value_bytes(struct model_value value, uint64_t offset, void *buf,
                       size_t len);
bool model_value_is(struct model_value value, uint64_t offset,
                    const void *bytes, size_t len);

#endif
