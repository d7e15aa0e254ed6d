/*
 * What the extent of a catalogue holds, and the dictionaries that leaves of its
 * trees are compressed with.
 */
#ifndef BFTI_CATALOGUE_H
#define BFTI_CATALOGUE_H

#include "engine.h"

/* Bytes of TREE's entry in a catalogue; and put it at TO, with the place of its
 * root node's extent. */
size_t bfti_catalogue_size(const struct bfti_tree *tree);
size_t bfti_catalogue_put(uint8_t *to, const struct bfti_tree *tree,
                          uint64_t root);
/* A catalogue is one extent.  Bytes of it that are free for what comes and goes beside
 * the entries of trees, of which there may be less. */
size_t bfti_catalogue_rest(struct bfti_engine *engine);
/* Under checkpoint_lock: may there be a tree more, with NAME; or may TREE (else NULL)
 * be called that?  BFT_TOO_BIG. */
BFT_MUST_CHECK bft_status bfti_catalogue_check(struct bfti_engine *engine,
                                               const struct bfti_tree *tree,
                                               const char *name);
/* Likewise: may tree TREE_ID have one dictionary more, if it may by itself? */
bool bfti_catalogue_has_room(struct bfti_engine *engine, uint32_t tree_id);
/* The payload of a catalogue's extent, entry by entry. */
struct bfti_catalogue {
    const uint8_t *at, *end;
    uint32_t left; /* entries still to come, as the catalogue says */
};
struct bfti_catalogue_entry {
    uint32_t id, leaf_bytes;
    uint64_t ttl_ms;
    uint64_t root; /* place of the root node's extent */
    bool has_large;
    const uint8_t *tombs; /* as bfti_tombs_next() reads them */
    size_t tombs_len;
    unsigned dictionary_count; /* see fileio/codec.h */
    uint64_t dictionaries[BFTI_DICTIONARIES_MAX];
    char name[BFTI_NAME_MAX + 1];
};
void bfti_catalogue_begin(struct bfti_catalogue *catalogue, const void *raw,
                          size_t len);
/* False: it is cut off. */
bool bfti_catalogue_next(struct bfti_catalogue *catalogue,
                         struct bfti_catalogue_entry *entry);

/* --- dictionaries.c: of all trees; under checkpoint_lock -------------------- */

/* A checkpoint begins: train one, if there are samples enough, and free those of
 * trees that went.  What fails is left: leaves do without. */
void bfti_dictionaries_turn(struct bfti_engine *engine);
/* Is there one that an image has to have? */
bool bfti_dictionaries_any(const struct bfti_engine *engine);
/* Bring those behind the cleaner's ceiling to free space before it. */
BFT_MUST_CHECK bft_status bfti_dictionaries_lift(struct bfti_engine *engine);

#endif
