/*
 * Building a tree from the left: records in order become full leaves, which are
 * written side by side, many in one call, and inner nodes above them, as soon
 * as a node is full.  In memory are the records of one leaf, the leaves of one
 * write, and for each height the children of a node or two; and what the tree
 * costs in memory anyhow.
 *
 * The leaves' ids are allocated, but their words stay 0, so that no checkpoint
 * that runs meanwhile has them in its image; nor has its map their extents,
 * which are not linked.  So what a crash leaves of them is free.
 */
#include "bulk_internal.h"

#include <assert.h>

enum {
    LOOK_CHILDREN = 320, /* more than a node of short keys has */
    WRITE_BLOCKS = 64,   /* 256 KiB in one call... */
    WRITE_SHARE = 16,    /* ... but not more than that part of the budget */
};

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a bulk load");
}

/* Have room for NEED things of SIZE bytes at *AT. */
static bft_status grow(const struct bfti_env *env, void *at, size_t *cap,
                       size_t need, size_t size)
{
    size_t want = *cap ? *cap : 64;
    void *old, *grown;
    if (need <= *cap)
        return BFT_OK;
    while (want < need)
        want *= 2;
    memcpy(&old, at, sizeof(old));
    grown = bfti_realloc(env, old, want * size);
    if (!grown)
        return no_memory();
    memcpy(at, &grown, sizeof(grown));
    *cap = want;
    return BFT_OK;
}

/* --- memory that is counted ----------------------------------------------- */

static void count_bytes(struct bfti_bulk *b, size_t bytes)
{
    /* Modulo arithmetic: the difference may stand for a negative one. */
    atomic_fetch_add(&b->engine->load_bytes, bytes - b->counted);
    b->counted = bytes;
}

static void count_now(struct bfti_bulk *b)
{
    const struct bfti_bulk_leaf *leaf = &b->leaf;
    size_t bytes = sizeof(*b) + b->node_bytes + leaf->cap +
                   leaf->item_cap * (sizeof(*leaf->item) + sizeof(*leaf->view));
    bytes += b->slots_max * (b->tree->leaf_bytes + sizeof(*b->source));
    bytes += (b->ids.cap + b->leaves.cap + b->large.cap) * sizeof(uint64_t);
    for (unsigned h = 0; h < BFTI_INNER_HEIGHT_MAX; h++)
        bytes += b->level[h].bytes_cap +
                 b->level[h].cap *
                     (sizeof(*b->level[h].word) + sizeof(*b->level[h].key));
    count_bytes(b, bytes);
    (void)bfti_memory_elsewhere(b->engine);
}

/* --- inner nodes ---------------------------------------------------------- */

/* A child of HEIGHT (0: a leaf) behind all others. */
static bft_status level_add(struct bfti_bulk *b, unsigned height, uint64_t word,
                            bft_slice key)
{
    const struct bfti_env *env = b->engine->env;
    struct bfti_bulk_level *l = &b->level[height];
    size_t words = l->cap;
    bft_status status;
    if (height == BFTI_INNER_HEIGHT_MAX - 1)
        return bfti_fail(BFT_TOO_BIG, "a loaded tree is over %d nodes high",
                         (int)BFTI_INNER_HEIGHT_MAX);
    status = grow(env, &l->word, &words, l->count + 1, sizeof(*l->word));
    if (status == BFT_OK)
        status = grow(env, &l->key, &l->cap, l->count + 1, sizeof(*l->key));
    if (status == BFT_OK)
        status = grow(env, &l->bytes, &l->bytes_cap, l->used + key.len, 1);
    if (status != BFT_OK)
        return status;
    l->word[l->count] = word;
    l->key[l->count++].len = key.len;
    if (key.len)
        memcpy(l->bytes + l->used, key.data, key.len);
    l->used += key.len;
    return BFT_OK;
}

struct packing {
    struct bfti_bulk *bulk;
    unsigned height; /* of the children */
};

static bft_status node_made(void *arg, struct bfti_inner *node, size_t first)
{
    const struct packing *p = arg;
    bft_status status = level_add(p->bulk, p->height + 1, bfti_inner_word(node),
                                  p->bulk->level[p->height].key[first]);
    if (status == BFT_OK)
        p->bulk->node_bytes += bfti_inner_node_bytes(node);
    return status;
}

/* Make nodes of the children of HEIGHT: full ones, or, if LAST, of all. */
static bft_status level_pack(struct bfti_bulk *b, unsigned height, bool last)
{
    struct bfti_bulk_level *l = &b->level[height];
    struct packing p = {b, height};
    size_t used, bytes = 0;
    bft_status status;
    for (size_t i = 0; i < l->count; i++) {
        /* There are no bytes while all keys are empty. */
        l->key[i].data = l->bytes ? l->bytes + bytes : NULL;
        bytes += l->key[i].len;
    }
    status = bfti_inner_pack(b->engine->heap, height + 1, l->word, l->key,
                             l->count, last, node_made, &p, &used);
    bytes = 0;
    for (size_t i = 0; i < used; i++)
        bytes += l->key[i].len;
    l->used -= bytes;
    if (l->used)
        memmove(l->bytes, l->bytes + bytes, l->used);
    l->count -= used;
    memmove(l->word, l->word + used, l->count * sizeof(*l->word));
    memmove(l->key, l->key + used, l->count * sizeof(*l->key));
    l->look_at = 2 * l->count;
    return status;
}

/* A leaf behind all others, and the nodes that are full now.  So seldom looked
 * for that a child is looked at twice on average. */
static bft_status leaf_added(struct bfti_bulk *b, uint64_t id, bft_slice low)
{
    bft_status status = level_add(b, 0, id, low);
    for (unsigned h = 0; status == BFT_OK && h < BFTI_INNER_HEIGHT_MAX; h++) {
        struct bfti_bulk_level *l = &b->level[h];
        if (l->count < LOOK_CHILDREN || l->count < l->look_at)
            break;
        status = level_pack(b, h, false);
    }
    return status;
}

/* --- leaves --------------------------------------------------------------- */

/* Write the leaves that wait. */
static bft_status write_leaves(struct bfti_bulk *b)
{
    struct bfti_engine *engine = b->engine;
    uint32_t failed = atomic_load(&engine->failed);
    bft_status status;
    if (failed || bfti_wal_poisoned(engine->buffer.wal))
        return bfti_fail(
            failed ? (bft_status)(-(int)failed) : BFT_POISONED,
            "%s refuses writes since an earlier failure: close and "
            "reopen it",
            engine->path);
    status = grow(engine->env, &b->leaves.place, &b->leaves.cap,
                  b->leaves.count + b->waiting, sizeof(uint64_t));
    if (status == BFT_OK && b->waiting)
        status =
            bfti_extent_write_apart(engine->buffer.pf, b->source, b->waiting);
    if (status != BFT_OK)
        return status;
    PARK("bulk:leaves-written");
    for (size_t i = 0; i < b->waiting; i++)
        b->leaves.place[b->leaves.count++] = b->source[i].place;
    b->waiting = 0;
    count_now(b);
    return BFT_OK;
}

static bft_status new_leaf(struct bfti_bulk *b)
{
    struct bfti_table *table = b->engine->buffer.table;
    bft_status status = bfti_id_alloc(table, &b->leaf.id);
    if (status != BFT_OK)
        return status;
    status = bfti_places_add(b->engine->env, &b->ids, b->leaf.id);
    if (status != BFT_OK)
        bfti_id_free(table, b->leaf.id);
    return status;
}

static bft_slice item_key(const struct bfti_bulk_leaf *leaf, size_t i)
{
    bft_slice key = {leaf->bytes + leaf->item[i].at, leaf->item[i].key_len};
    return key;
}

/* The first N records as views. */
static void leaf_views(struct bfti_bulk_leaf *leaf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct bfti_bulk_item *item = &leaf->item[i];
        const uint8_t *key = leaf->bytes + item->at;
        leaf->view[i] = (struct bfti_view){
            .prefix = key,
            .suffix = key,
            .suffix_len = item->key_len,
            .value = key + item->key_len,
            .value_len = item->value_len,
            .op = BFTI_OP_PUT,
            .flags = item->flags,
        };
    }
}

/* The first N records are in a leaf; HIGH is its high fence. */
static void leaf_shift(struct bfti_bulk_leaf *leaf, size_t n, bft_slice high)
{
    size_t from = n < leaf->count ? leaf->item[n].at : leaf->used;
    leaf->low_len = high.len;
    if (high.len)
        memcpy(leaf->low, high.data, high.len);
    leaf->count -= n;
    leaf->used -= from;
    memmove(leaf->bytes, leaf->bytes + from, leaf->used);
    memmove(leaf->item, leaf->item + n, leaf->count * sizeof(*leaf->item));
    for (size_t i = 0; i < leaf->count; i++)
        leaf->item[i].at -= from;
    leaf->seen = leaf->weight = leaf->prefix_len = leaf->fits = 0;
}

/* Make a leaf of the first N records, the last one of the tree if those are
 * all. */
static bft_status close_leaf(struct bfti_bulk *b, size_t n)
{
    struct bfti_bulk_leaf *leaf = &b->leaf;
    struct bfti_extent_source *source = &b->source[b->waiting];
    uint8_t *slot = b->slots + b->waiting * b->tree->leaf_bytes;
    uint8_t high[BFTI_KEY_MAX];
    struct bfti_run_spec spec;
    uint64_t id = leaf->id;
    bool last = n == leaf->count;
    bft_status status = last ? BFT_OK : new_leaf(b);
    if (status != BFT_OK)
        return status;
    leaf_views(leaf, last ? n : n + 1);
    memset(&spec, 0, sizeof(spec));
    spec.view = leaf->view;
    spec.count = n;
    spec.keep = BFTI_KEEP_VALUES;
    spec.low = (bft_slice){leaf->low, leaf->low_len};
    spec.tree_id = b->tree->id;
    if (!last) {
        spec.high.data = high;
        spec.high.len =
            bfti_key_separator(&leaf->view[n - 1], &leaf->view[n], high);
        spec.sibling = leaf->id;
    }
    memset(source, 0, sizeof(*source));
    assert(bfti_run_size(&spec) <= bfti_leaf_run_max(b->tree->leaf_bytes));
    source->info.type = BFTI_EXTENT_LEAF;
    source->info.tree_id = b->tree->id;
    source->info.page_id = id;
    source->raw = slot;
    source->raw_len = bfti_run_build(slot, &spec);
    b->waiting++;
    status = leaf_added(b, id, spec.low);
    leaf_shift(leaf, n, spec.high);
    if (status == BFT_OK && b->waiting == b->slots_max)
        status = write_leaves(b);
    return status;
}

/* Bytes of a run of the records seen, without its high fence. */
static size_t seen_size(const struct bfti_bulk_leaf *leaf)
{
    return sizeof(struct bfti_run) + leaf->seen * sizeof(struct bfti_slot) +
           leaf->low_len + leaf->weight -
           (leaf->seen ? (leaf->seen - 1) * leaf->prefix_len : 0);
}

static size_t common_len(bft_slice a, bft_slice b)
{
    const uint8_t *x = a.data, *y = b.data;
    size_t len = a.len < b.len ? a.len : b.len, i = 0;
    while (i < len && x[i] == y[i])
        i++;
    return i;
}

/*
 * Look at the records not seen yet, and cut off leaves.  A leaf may end before
 * a record if it holds the fence between the two; the first record may always
 * be alone, as it takes 3/8 of a leaf and either fence a quarter.  Without
 * the high fence a run only grows with a record more: so the first that is over
 * the limit ends the search.
 */
static bft_status cut_leaves(struct bfti_bulk *b)
{
    struct bfti_bulk_leaf *leaf = &b->leaf;
    /* Ends: each round sees a record more, or cuts off one at least. */
    while (leaf->seen < leaf->count) {
        size_t i = leaf->seen, common = leaf->item[i].key_len;
        if (i > 0) {
            common = common_len(item_key(leaf, i - 1), item_key(leaf, i));
            if (i == 1 || seen_size(leaf) + common + 1 <= b->limit)
                leaf->fits = i;
        }
        if (i == 0 || common < leaf->prefix_len)
            leaf->prefix_len = common;
        leaf->weight += leaf->item[i].key_len + leaf->item[i].value_len;
        leaf->seen++;
        if (i > 0 && seen_size(leaf) > b->limit) {
            bft_status status = close_leaf(b, leaf->fits);
            if (status != BFT_OK)
                return status;
        }
    }
    return BFT_OK;
}

bft_status bfti_bulk_order(const struct bfti_bulk *b, bft_slice key)
{
    const struct bfti_bulk_leaf *leaf = &b->leaf;
    if (leaf->count == 0 ||
        bfti_key_compare(item_key(leaf, leaf->count - 1), key) < 0)
        return BFT_OK;
    return bfti_fail(BFT_INVALID, "its key is not above the one before it");
}

bft_status bfti_bulk_add(struct bfti_bulk *b, bft_slice key, bft_slice value,
                         uint8_t flags)
{
    const struct bfti_env *env = b->engine->env;
    struct bfti_bulk_leaf *leaf = &b->leaf;
    size_t views = leaf->item_cap;
    bft_status status = BFT_OK;
    if (b->ids.count == 0)
        status = new_leaf(b);
    if (status == BFT_OK)
        status = grow(env, &leaf->view, &views, leaf->count + 1,
                      sizeof(*leaf->view));
    if (status == BFT_OK)
        status = grow(env, &leaf->item, &leaf->item_cap, leaf->count + 1,
                      sizeof(*leaf->item));
    if (status == BFT_OK)
        status = grow(env, &leaf->bytes, &leaf->cap,
                      leaf->used + key.len + value.len, 1);
    if (status != BFT_OK)
        return status;
    leaf->item[leaf->count++] =
        (struct bfti_bulk_item){.at = leaf->used,
                                .value_len = (uint32_t)value.len,
                                .key_len = (uint16_t)key.len,
                                .flags = flags};
    memcpy(leaf->bytes + leaf->used, key.data, key.len);
    if (value.len)
        memcpy(leaf->bytes + leaf->used + key.len, value.data, value.len);
    leaf->used += key.len + value.len;
    b->records++;
    return cut_leaves(b);
}

bft_status bfti_bulk_own(struct bfti_bulk *b, struct bfti_places *extents)
{
    struct bfti_pagefile *pf = b->engine->buffer.pf;
    bft_status status = grow(b->engine->env, &b->large.place, &b->large.cap,
                             b->large.count + extents->count, sizeof(uint64_t));
    if (status != BFT_OK) {
        bfti_large_discard(b->engine, extents);
        return status;
    }
    bfti_extent_set_apart(pf, true, extents->count);
    for (size_t i = 0; i < extents->count; i++)
        b->large.place[b->large.count++] = extents->place[i];
    atomic_store(&b->tree->has_large, true);
    return BFT_OK;
}

/* --- from begin to end ---------------------------------------------------- */

static void bulk_free(struct bfti_bulk *b)
{
    const struct bfti_env *env = b->engine->env;
    count_bytes(b, 0);
    for (unsigned h = 0; h < BFTI_INNER_HEIGHT_MAX; h++) {
        bfti_free(env, b->level[h].word);
        bfti_free(env, b->level[h].key);
        bfti_free(env, b->level[h].bytes);
    }
    bfti_free(env, b->leaf.bytes);
    bfti_free(env, b->leaf.item);
    bfti_free(env, b->leaf.view);
    bfti_free(env, b->slots);
    bfti_free(env, b->source);
    bfti_free(env, b->ids.place);
    bfti_free(env, b->leaves.place);
    bfti_free(env, b->large.place);
    if (b->tree)
        bfti_tree_free(env, b->tree);
    bfti_free(env, b);
}

bft_status bfti_bulk_begin(struct bfti_engine *engine, uint32_t id,
                           uint32_t leaf_bytes, unsigned fill_percent,
                           struct bfti_bulk **out)
{
    const struct bfti_env *env = engine->env;
    size_t blocks = (leaf_bytes + BFTI_BLOCK - 1) / BFTI_BLOCK;
    size_t share = (size_t)engine->options.memory_bytes / WRITE_SHARE;
    struct bfti_bulk *b = bfti_alloc(env, sizeof(*b));
    bft_status status;
    *out = NULL;
    if (!b)
        return no_memory();
    memset(b, 0, sizeof(*b));
    b->engine = engine;
    status = bfti_tree_shell(engine, id, "", leaf_bytes, &b->tree);
    b->limit = bfti_leaf_run_max(leaf_bytes) * fill_percent / 100;
    b->slots_max = WRITE_BLOCKS / blocks;
    if (b->slots_max > share / leaf_bytes)
        b->slots_max = share / leaf_bytes;
    if (b->slots_max == 0)
        b->slots_max = 1;
    b->slots = bfti_alloc(env, b->slots_max * leaf_bytes);
    b->source = bfti_alloc(env, b->slots_max * sizeof(*b->source));
    if (status == BFT_OK && !(b->slots && b->source))
        status = no_memory();
    if (status != BFT_OK) {
        bulk_free(b);
        return status;
    }
    *out = b;
    return BFT_OK;
}

bft_status bfti_bulk_end(struct bfti_bulk *b, struct bfti_inner **root)
{
    bft_status status = close_leaf(b, b->leaf.count);
    *root = NULL;
    if (status == BFT_OK)
        status = write_leaves(b);
    /* Ends: each height has fewer nodes than the one below, in the end one. */
    for (unsigned h = 0; status == BFT_OK && !*root; h++) {
        const struct bfti_bulk_level *above = &b->level[h + 1];
        bool top = true;
        status = level_pack(b, h, true);
        for (unsigned i = h + 2; i < BFTI_INNER_HEIGHT_MAX; i++)
            top = top && b->level[i].count == 0;
        if (status == BFT_OK && top && above->count == 1)
            *root = bfti_inner_node(above->word[0]);
    }
    if (*root)
        for (unsigned h = 0; h < BFTI_INNER_HEIGHT_MAX; h++)
            b->level[h].count = 0;
    return status;
}

struct bfti_tree *bfti_bulk_publish(struct bfti_bulk *b,
                                    struct bfti_inner *root)
{
    struct bfti_engine *engine = b->engine;
    struct bfti_table *table = engine->buffer.table;
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_tree *tree = b->tree;
    assert(b->ids.count == b->leaves.count);
    for (size_t i = 0; i < b->large.count; i++) {
        bfti_extent_set_apart(pf, false, 1);
        bfti_extent_link(pf, b->large.place[i], 0);
    }
    for (size_t i = 0; i < b->ids.count; i++) {
        uint64_t id = b->ids.place[i];
        (void)bfti_table_change(table, id);
        bfti_extent_set_apart(pf, false, 1);
        bfti_extent_link(pf, b->leaves.place[i], 0);
        bfti_entry_set(bfti_table_entry(table, id),
                       b->leaves.place[i]); /* [place] */
    }
    atomic_store(&tree->root, (uintptr_t)root);
    bfti_tree_structure_stop(engine, tree);
    tree->left = b->ids.place;
    tree->left_count = b->ids.count;
    memset(&b->ids, 0, sizeof(b->ids));
    b->tree = NULL;
    bulk_free(b);
    bfti_tree_add(engine, tree, NULL);
    return tree;
}

void bfti_bulk_abandon(struct bfti_bulk *b, struct bfti_inner *root)
{
    struct bfti_engine *engine = b->engine;
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_places *written[2] = {&b->leaves, &b->large};
    for (unsigned k = 0; k < 2; k++)
        for (size_t i = 0; i < written[k]->count; i++) {
            bfti_extent_set_apart(pf, false, 1);
            bfti_extent_discard(pf, written[k]->place[i]);
        }
    for (size_t i = 0; i < b->ids.count; i++)
        bfti_id_free(engine->buffer.table, b->ids.place[i]);
    for (unsigned h = 1; h < BFTI_INNER_HEIGHT_MAX; h++)
        for (size_t i = 0; i < b->level[h].count; i++)
            bfti_inner_destroy(engine->heap,
                               bfti_inner_node(b->level[h].word[i]));
    if (root)
        bfti_inner_destroy(engine->heap, root);
    bulk_free(b);
}
