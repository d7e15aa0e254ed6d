/*
 * Dictionaries of trees, as far as checkpoints, the cleaner and callers have to do
 * with them; what they are, fileio/codec.c says.
 */
#include "catalogue.h"

void bfti_dictionaries_turn(struct bfti_engine *engine)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    const struct bfti_tree *tree;
    uint32_t id;
    bfti_trees_forget(engine);
    if (!bfti_codec_ready(pf, &id))
        return;
    tree = bfti_tree_by_id(engine, id);
    (void)(bfti_codec_train(pf, id,
                            tree && bfti_tree_root(tree) &&
                                bfti_catalogue_has_room(engine, id),
                            bfti_wal_end(engine->buffer.wal)) == BFT_OK);
    PARK("checkpoint:trained");
}

bool bfti_dictionaries_any(const struct bfti_engine *engine)
{
    uint64_t places[BFTI_DICTIONARIES_MAX];
    bool any = false;
    for (const struct bfti_tree *t = engine->trees; t && !any; t = t->next)
        any = bfti_codec_places(engine->buffer.pf, t->id, false, places) > 0;
    return any;
}

bft_status bfti_dictionaries_lift(struct bfti_engine *engine)
{
    bft_status first = BFT_OK;
    for (const struct bfti_tree *t = engine->trees; t; t = t->next) {
        bft_status status = bfti_codec_lift(engine->buffer.pf, t->id,
                                            bfti_wal_end(engine->buffer.wal));
        if (first == BFT_OK)
            first = status;
    }
    return first;
}

bft_status bft_tree_stats_read(bft_tree *tree, bft_tree_stats *stats)
{
    struct bfti_codec_stats codec;
    struct bfti_engine *engine;
    const struct bfti_tree *now;
    bft_status status = bfti_gate_open(tree, &engine);
    if (status != BFT_OK)
        return status;
    if (!stats || stats->size != sizeof(*stats))
        return bfti_fail(
            BFT_INVALID,
            "bft_tree_stats_read: size is not sizeof(bft_tree_stats)");
    now = bfti_handle_tree(tree);
    if (!bfti_tree_root(now))
        return bfti_fail(BFT_GONE, "tree %s was dropped",
                         atomic_load(&now->name));
    bfti_codec_stats(engine->buffer.pf, now->id, &codec);
    stats->compression = (bft_compression)codec.choice;
    stats->dictionaries = codec.dictionaries;
    stats->dictionary_bytes = codec.dictionary_bytes;
    stats->compressible_bytes = codec.raw_bytes;
    stats->compressed_bytes = codec.stored_bytes;
    return BFT_OK;
}
