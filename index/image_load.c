/*
 * Opening reads what a checkpoint (checkpoint.c) left: free-space map, page table,
 * catalogue, and each tree's inner nodes but the lowest.
 */
#include "catalogue.h"
#include "expiry.h"
#include "image.h"
#include "tomb.h"

#include <string.h>

struct load {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    unsigned depth;   /* of the inner node that is being read */
    bool placed;      /* the text of a failure names the node that it is of */
    const char *tree; /* whose nodes are read */
};

static bft_status read_meta(struct bfti_engine *engine,
                            struct bfti_scratch *scratch, uint64_t place,
                            enum bfti_extent_type type, const char *what,
                            const void **raw, size_t *len)
{
    struct bfti_extent_info info;
    bft_status status = bfti_extent_read_as(engine->buffer.pf, place, type,
                                            scratch, &info, raw, len);
    return status == BFT_CORRUPT ? bfti_fail_in(status, "%s", what) : status;
}

/* *NODE, of height 1, goes unless it leads to pages there are. */
static bft_status check_root(struct load *l, struct bfti_inner **node)
{
    bft_status status = bfti_node_check_ids(l->engine, bfti_inner_here(*node));
    if (status == BFT_OK)
        return BFT_OK;
    bfti_inner_destroy(l->engine->heap, *node);
    *node = NULL;
    return status;
}

/* The node in extent PLACE and all above height 1 below it.  Those of height 1
 * are read when they are needed. */
static bft_status load_node(void *arg, uint64_t place, unsigned height,
                            struct bfti_inner **node)
{
    struct load *l = arg;
    struct bfti_scratch scratch; /* of its own: children are read meanwhile */
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    bool read;
    bft_status status;
    *node = NULL;
    if (height == 1)
        return bfti_inner_stub(l->engine->heap, place, node);
    memset(&scratch, 0, sizeof(scratch));
    if (l->depth == BFTI_INNER_HEIGHT_MAX) /* damaged places in a circle */
        return bfti_fail(BFT_CORRUPT, "its tree is over %d nodes high",
                         (int)BFTI_INNER_HEIGHT_MAX);
    l->depth++;
    status = bfti_extent_read_as(l->engine->buffer.pf, place, BFTI_EXTENT_INNER,
                                 &scratch, &info, &raw, &len);
    read = status == BFT_OK;
    if (status == BFT_OK)
        status =
            bfti_inner_decode(l->engine->heap, raw, len, load_node, l, node);
    if (status == BFT_OK) {
        (*node)->image_place = place;
        atomic_store(&(*node)->place, place);
    }
    if (status == BFT_OK && (*node)->height == 1) /* a root */
        status = check_root(l, node);
    if (status == BFT_CORRUPT && read && !l->placed)
        status = bfti_extent_wrong(l->engine->buffer.pf, place, NULL);
    if (status == BFT_CORRUPT && !l->placed) {
        status = bfti_fail_in(status, "an inner node of tree %s", l->tree);
        l->placed = true; /* and it is none of the nodes above it */
    }
    bfti_scratch_free(l->engine->env, &scratch);
    l->depth--;
    return status;
}

static bft_status load_part(struct load *l, size_t index, uint64_t place)
{
    const void *raw;
    size_t len;
    bft_status status;
    if (!place) /* see bfti_table_load() */
        return bfti_table_load(l->engine->buffer.table, index, NULL, 0);
    status = read_meta(l->engine, &l->rec->scratch[1], place, BFTI_EXTENT_TABLE,
                       "a part of the page table", &raw, &len);
    if (status != BFT_OK)
        return status;
    if (len == BFTI_PART_IDS * sizeof(le64))
        status = bfti_table_load(l->engine->buffer.table, index, raw, place);
    else
        status = bfti_fail(BFT_CORRUPT, "it has %zu bytes", len);
    return status == BFT_CORRUPT
               ? bfti_fail_in(
                     bfti_extent_wrong(l->engine->buffer.pf, place, NULL),
                     "a part of the page table")
               : status;
}

static bft_status load_table(struct load *l, const struct bfti_superblock *sb)
{
    size_t index = 0;
    for (unsigned i = 1; i < sb->root_count; i++) {
        const void *raw;
        size_t len;
        bft_status status =
            read_meta(l->engine, &l->rec->scratch[0], sb->root[i],
                      BFTI_EXTENT_TABLE, "the page table", &raw, &len);
        for (size_t at = 0; status == BFT_OK && at + 8 <= len; at += 8)
            status =
                load_part(l, index++,
                          le64_get(*(const le64 *)((const uint8_t *)raw + at)));
        if (status != BFT_OK)
            return status;
    }
    return bfti_table_loaded(l->engine->buffer.table, sb->page_ids);
}

/* ENTRY is of the catalogue in extent PLACE. */
static bft_status load_tree(struct load *l, uint64_t place,
                            const struct bfti_catalogue_entry *entry)
{
    struct bfti_inner *root;
    struct bfti_tree *tree;
    bft_status status = bfti_tree_check_leaf_bytes(entry->leaf_bytes);
    if (status != BFT_OK) {
        (void)bfti_fail(BFT_CORRUPT, "leaves of tree %s have %u bytes",
                        entry->name, (unsigned)entry->leaf_bytes);
        return bfti_fail_in(
            bfti_extent_wrong(l->engine->buffer.pf, place, NULL),
            "the catalogue");
    }
    l->tree = entry->name;
    status = load_node(l, entry->root, 0, &root);
    if (status != BFT_OK)
        return status;
    status =
        bfti_codec_load(l->engine->buffer.pf, entry->id, entry->dictionaries,
                        entry->dictionary_count, &l->rec->scratch[1]);
    if (status == BFT_OK)
        status = bfti_tree_make(l->engine, l->rec, entry->id, entry->name,
                                entry->leaf_bytes, root, &tree);
    if (status != BFT_OK) {
        bfti_inner_destroy(l->engine->heap, root);
        return status;
    }
    atomic_store(&tree->has_large, entry->has_large);
    bfti_tree_set_ttl(tree, entry->ttl_ms);
    bfti_tree_add(l->engine, tree, NULL);
    return bfti_tombs_load(tree, entry);
}

static bft_status load_catalogue(struct load *l, uint64_t place)
{
    const void *raw;
    size_t len;
    struct bfti_catalogue catalogue;
    struct bfti_catalogue_entry entry;
    struct bfti_scratch scratch;
    bft_status status;
    memset(&scratch, 0, sizeof(scratch));
    status = read_meta(l->engine, &scratch, place, BFTI_EXTENT_CATALOGUE,
                       "the catalogue", &raw, &len);
    if (status == BFT_OK)
        bfti_catalogue_begin(&catalogue, raw, len);
    while (status == BFT_OK && catalogue.left)
        status = bfti_catalogue_next(&catalogue, &entry)
                     ? load_tree(l, place, &entry)
                     : bfti_extent_wrong(l->engine->buffer.pf, place,
                                         "the catalogue is cut off");
    l->tree = NULL; /* it was ENTRY's */
    bfti_scratch_free(l->engine->env, &scratch);
    return status;
}

bft_status bfti_image_load(struct bfti_engine *engine, struct bfti_rec *rec,
                           const struct bfti_superblock *sb)
{
    struct load l = {engine, rec, 0, false, NULL};
    bft_status status;
    engine->next_tree_id = sb->next_tree_id;
    if (sb->map_count == 0)
        status = bfti_space_reset(engine->buffer.pf);
    else
        status = bfti_space_load(engine->buffer.pf, sb->map, sb->map_count,
                                 &rec->scratch[0]);
    if (status == BFT_OK)
        status = load_table(&l, sb);
    if (status == BFT_OK && sb->root[0])
        status = load_catalogue(&l, sb->root[0]);
    return status;
}
