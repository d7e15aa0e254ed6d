/*
 * What the extent of a catalogue holds: the one place that makes and reads its
 * bytes, for checkpoints, recovery and salvage.
 *
 * le32 number of entries, then each: le32 id, le32 leaf bytes, le64 place of the
 * root node's extent, flags, name length, le64 ttl_ms if flag 2 says so, name; if
 * flag 4 says so le32 length, and so many bytes of tombstones (tomb.c); if flag 8
 * says so a byte, and so many le64 places of dictionaries, the oldest first.
 */
#include "catalogue.h"
#include "tomb.h"

enum { ENTRY = 18, LARGE = 1, EXPIRES = 2, TOMBS = 4, DICTIONARIES = 8 };
/* Of the extent: what entries of trees leave for tombstones and histories. */
enum { REST_SHARE = 8 };
/* Of a tree that has a dictionary, for as many as it may get. */
enum { DICTIONARIES_BYTES = 1 + BFTI_DICTIONARIES_MAX * (int)sizeof(le64) };

/* Of all entries, but for what comes and goes. */
static size_t entries_size(struct bfti_engine *engine)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    size_t bytes = sizeof(le32);
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        if (bfti_tree_root(t))
            bytes += ENTRY + (t->ttl_ms ? sizeof(le64) : 0) + strlen(t->name) +
                     (bfti_codec_count(pf, t->id) ? DICTIONARIES_BYTES : 0);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return bytes;
}

/* May entries have so many BYTES?  Of what they leave, tombstones may take half,
 * see tomb.c: so they have left as much as there are. */
static bool fits(struct bfti_engine *engine, size_t bytes)
{
    return bytes <= BFTI_EXTENT_RAW_MAX - BFTI_EXTENT_RAW_MAX / REST_SHARE &&
           bytes + 2 * bfti_tombs_bytes(engine) <= BFTI_EXTENT_RAW_MAX;
}

size_t bfti_catalogue_rest(struct bfti_engine *engine)
{
    size_t bytes = entries_size(engine);
    return bytes < BFTI_EXTENT_RAW_MAX ? BFTI_EXTENT_RAW_MAX - bytes : 0;
}

bft_status bfti_catalogue_check(struct bfti_engine *engine,
                                const struct bfti_tree *tree, const char *name)
{
    size_t more = ENTRY + sizeof(le64) + strlen(name);
    size_t less = tree ? ENTRY + sizeof(le64) + strlen(tree->name) : 0;
    if (more <= less || fits(engine, entries_size(engine) - less + more))
        return BFT_OK;
    return bfti_fail(BFT_TOO_BIG,
                     "%s: the names of its trees, with some 20 bytes for each, "
                     "33 for its dictionaries, and deleted ranges that are "
                     "still to be cleared leave no room for one called %s",
                     engine->path, name);
}

bool bfti_catalogue_has_room(struct bfti_engine *engine, uint32_t tree_id)
{
    return bfti_codec_count(engine->buffer.pf, tree_id) > 0 ||
           fits(engine, entries_size(engine) + DICTIONARIES_BYTES);
}

size_t bfti_catalogue_size(const struct bfti_tree *tree)
{
    size_t tombs = tree->tombs_image_len;
    uint64_t places[BFTI_DICTIONARIES_MAX];
    unsigned count =
        bfti_codec_places(tree->engine->buffer.pf, tree->id, false, places);
    return ENTRY + (tree->ttl_ms ? sizeof(le64) : 0) + strlen(tree->name) +
           (tombs ? sizeof(le32) + tombs : 0) +
           (count ? 1 + count * sizeof(le64) : 0);
}

size_t bfti_catalogue_put(uint8_t *to, const struct bfti_tree *tree,
                          uint64_t root)
{
    size_t name_len = strlen(tree->name), at = ENTRY;
    uint64_t places[BFTI_DICTIONARIES_MAX];
    unsigned count =
        bfti_codec_places(tree->engine->buffer.pf, tree->id, true, places);
    le32 head[2] = {le32_of(tree->id), le32_of(tree->leaf_bytes)};
    le64 place = le64_of(root), ttl_ms = le64_of(tree->ttl_ms);
    memcpy(to, head, sizeof(head));
    memcpy(to + 8, &place, sizeof(place));
    to[16] = (uint8_t)((atomic_load(&tree->has_large) ? LARGE : 0) |
                       (tree->ttl_ms ? EXPIRES : 0) |
                       (tree->tombs_image_len ? TOMBS : 0) |
                       (count ? DICTIONARIES : 0));
    to[17] = (uint8_t)name_len;
    if (tree->ttl_ms) {
        memcpy(to + at, &ttl_ms, sizeof(ttl_ms));
        at += sizeof(ttl_ms);
    }
    memcpy(to + at, tree->name, name_len);
    at += name_len;
    if (tree->tombs_image_len) {
        le32 len = le32_of((uint32_t)tree->tombs_image_len);
        memcpy(to + at, &len, sizeof(len));
        memcpy(to + at + sizeof(len), tree->tombs_image, tree->tombs_image_len);
        at += sizeof(len) + tree->tombs_image_len;
    }
    if (count)
        to[at++] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++, at += sizeof(place)) {
        place = le64_of(places[i]);
        memcpy(to + at, &place, sizeof(place));
    }
    return at;
}

void bfti_catalogue_begin(struct bfti_catalogue *catalogue, const void *raw,
                          size_t len)
{
    le32 count = le32_of(0);
    catalogue->at = raw;
    catalogue->end = catalogue->at + len;
    if (len >= sizeof(count)) {
        memcpy(&count, raw, sizeof(count));
        catalogue->at += sizeof(count);
    }
    catalogue->left = le32_get(count);
}

/* Of the entry that AT stands behind the rest of. */
static bool dictionaries_get(const uint8_t **at, const uint8_t *end,
                             struct bfti_catalogue_entry *entry)
{
    size_t len = (size_t)(end - *at), count = len ? (*at)[0] : 0;
    if (count == 0 || count > BFTI_DICTIONARIES_MAX ||
        (len - 1) / sizeof(le64) < count)
        return false;
    entry->dictionary_count = (unsigned)count;
    ++*at;
    for (size_t i = 0; i < count; i++, *at += sizeof(le64)) {
        le64 place;
        memcpy(&place, *at, sizeof(place));
        entry->dictionaries[i] = le64_get(place);
    }
    return true;
}

bool bfti_catalogue_next(struct bfti_catalogue *catalogue,
                         struct bfti_catalogue_entry *entry)
{
    const uint8_t *at = catalogue->at;
    le32 head[2];
    le64 root, ttl_ms = le64_of(0);
    size_t len = (size_t)(catalogue->end - at), name_len, head_len;
    if (len < ENTRY)
        return false;
    name_len = at[17];
    head_len = ENTRY + (at[16] & EXPIRES ? sizeof(ttl_ms) : 0);
    if (len < head_len + name_len)
        return false;
    memcpy(head, at, sizeof(head));
    memcpy(&root, at + 8, sizeof(root));
    memcpy(&ttl_ms, at + ENTRY, head_len - ENTRY);
    entry->id = le32_get(head[0]);
    entry->leaf_bytes = le32_get(head[1]);
    entry->ttl_ms = le64_get(ttl_ms);
    entry->root = le64_get(root);
    entry->has_large = (at[16] & LARGE) != 0;
    memcpy(entry->name, at + head_len, name_len);
    entry->name[name_len] = 0;
    entry->tombs = at + head_len + name_len;
    entry->tombs_len = 0;
    catalogue->at += head_len + name_len;
    if (at[16] & TOMBS) {
        le32 tombs;
        len -= head_len + name_len;
        if (len < sizeof(tombs))
            return false;
        memcpy(&tombs, entry->tombs, sizeof(tombs));
        if (len - sizeof(tombs) < le32_get(tombs))
            return false;
        entry->tombs += sizeof(tombs);
        entry->tombs_len = le32_get(tombs);
        catalogue->at += sizeof(tombs) + entry->tombs_len;
    }
    entry->dictionary_count = 0;
    if (at[16] & DICTIONARIES &&
        !dictionaries_get(&catalogue->at, catalogue->end, entry))
        return false;
    catalogue->left--;
    return true;
}
