#include "model_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

static int compare(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = memcmp(a.data, b.data, len);
    return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

size_t model_map_search(const struct model_map *map, bft_slice key, bool *found)
{
    size_t low = 0, high = map->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(model_map_key(map, middle), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < map->count && compare(model_map_key(map, low), key) == 0;
    return low;
}

const struct model_value *model_map_get(const struct model_map *map,
                                        bft_slice key)
{
    bool found;
    size_t i = model_map_search(map, key, &found);
    return found ? &map->record[i].value : NULL;
}

void model_map_put(struct model_map *map, bft_slice key,
                   struct model_value value)
{
    bool found;
    size_t i = model_map_search(map, key, &found);
    if (!found) {
        if (map->count == map->cap) {
            map->cap = map->cap ? map->cap * 2 : 64;
            map->record = realloc(map->record, map->cap * sizeof(*map->record));
            assert(map->record);
        }
        memmove(&map->record[i + 1], &map->record[i],
                (map->count - i) * sizeof(*map->record));
        map->count++;
        map->record[i].key = malloc(key.len);
        assert(map->record[i].key);
        memcpy(map->record[i].key, key.data, key.len);
        map->record[i].key_len = key.len;
    }
    map->record[i].value = value;
}

void model_map_delete(struct model_map *map, bft_slice key)
{
    bool found;
    size_t i = model_map_search(map, key, &found);
    if (!found)
        return;
    free(map->record[i].key);
    map->count--;
    memmove(&map->record[i], &map->record[i + 1],
            (map->count - i) * sizeof(*map->record));
}

void model_map_clear(struct model_map *map)
{
    for (size_t i = 0; i < map->count; i++)
        free(map->record[i].key);
    free(map->record);
    memset(map, 0, sizeof(*map));
}

void model_map_copy(struct model_map *to, const struct model_map *from)
{
    memset(to, 0, sizeof(*to));
    if (from->count == 0)
        return;
    to->record = malloc(from->count * sizeof(*to->record));
    assert(to->record);
    to->count = to->cap = from->count;
    for (size_t i = 0; i < from->count; i++) {
        to->record[i] = from->record[i];
        to->record[i].key = malloc(from->record[i].key_len);
        assert(to->record[i].key);
        memcpy(to->record[i].key, from->record[i].key, from->record[i].key_len);
    }
}

/* splitmix64 of the number of the word. */
static uint64_t word_of(uint64_t seed, uint64_t i)
{
    return random_mix(seed + (i + 1) * 0x9e3779b97f4a7c15u);
}

void model_value_bytes(struct model_value value, uint64_t offset, void *buf,
                       size_t len)
{
    uint8_t *to = buf;
    while (len) {
        uint64_t word = word_of(value.seed, offset / 8);
        size_t skip = offset % 8, n = 8 - skip < len ? 8 - skip : len;
        memcpy(to, (uint8_t *)&word + skip, n);
        to += n;
        offset += n;
        len -= n;
    }
}

bool model_value_is(struct model_value value, uint64_t offset,
                    const void *bytes, size_t len)
{
    const uint8_t *from = bytes;
    while (len) {
        uint64_t word = word_of(value.seed, offset / 8);
        size_t skip = offset % 8, n = 8 - skip < len ? 8 - skip : len;
        if (memcmp(from, (uint8_t *)&word + skip, n) != 0)
            return false;
        from += n;
        offset += n;
        len -= n;
    }
    return true;
}
