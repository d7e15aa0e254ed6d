/* What the files of bulk loads share: checks of what is handed over, and a tree
 * that is being built. */
#ifndef BFTI_BULK_INTERNAL_H
#define BFTI_BULK_INTERNAL_H

#include "bftree_bulk.h"
#include "engine.h"

/* --- bulk.c: what a caller hands over --------------------------------------- */

/* When it is to expire, if it says. */
uint64_t bfti_bulk_wish(const bft_bulk_record *record);
/* Can TREE have it? */
BFT_MUST_CHECK bft_status bfti_bulk_check(const struct bfti_tree *tree,
                                          const bft_bulk_record *record);
/* STATUS, whose text says now which record, from 1 on, of the CALL it is of. */
BFT_MUST_CHECK bft_status bfti_bulk_tell(bft_status status, const char *call,
                                         uint64_t number);

/* --- bulk_build.c: a tree from the left -------------------------------------- */

/* A record that waits for its leaf: its key at AT of the bytes, its value
 * behind it. */
struct bfti_bulk_item {
    size_t at;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t flags;
};

/* The leaf that is being filled. */
struct bfti_bulk_leaf {
    uint64_t id;
    size_t low_len;
    uint8_t low[BFTI_KEY_MAX];
    uint8_t *bytes;
    size_t used, cap;
    struct bfti_bulk_item *item;
    struct bfti_view *view; /* as many as ITEM */
    size_t count, item_cap;
    /* Of the first SEEN records: bytes of keys and values, what all keys have
     * in common, and how many, from the first on, are known to make a leaf. */
    size_t seen, weight, prefix_len, fits;
};

/* Children of one height that no node has yet. */
struct bfti_bulk_level {
    uint64_t *word;
    bft_slice *key; /* its data only while nodes are made */
    size_t count, cap;
    uint8_t *bytes; /* of the keys */
    size_t used, bytes_cap;
    size_t look_at; /* look for full nodes at so many children */
};

/* A tree that nobody can find while it is built, leaf by leaf from the left:
 * its leaves are written, but their words are not set. */
struct bfti_bulk {
    struct bfti_engine *engine;
    struct bfti_tree *tree; /* without name; without root until the end */
    size_t limit;           /* of a run, by the fill factor */
    uint64_t records;
    struct bfti_bulk_leaf leaf;
    /* Leaves that are made but not written: slots of LEAF_BYTES. */
    uint8_t *slots;
    struct bfti_extent_source *source;
    size_t waiting, slots_max;
    struct bfti_places ids;    /* of all leaves, ascending by key */
    struct bfti_places leaves; /* extents of those that are written */
    struct bfti_places large;  /* extents of large values */
    struct bfti_bulk_level level[BFTI_INNER_HEIGHT_MAX];
    size_t node_bytes, counted; /* in engine->load_bytes */
};

/* Of a tree with ID, to be filled up to FILL_PERCENT of each leaf.  On failure
 * nothing is left. */
BFT_MUST_CHECK bft_status bfti_bulk_begin(struct bfti_engine *engine,
                                          uint32_t id, uint32_t leaf_bytes,
                                          unsigned fill_percent,
                                          struct bfti_bulk **out);
/* BFT_INVALID: KEY is not above the last one added. */
BFT_MUST_CHECK bft_status bfti_bulk_order(const struct bfti_bulk *bulk,
                                          bft_slice key);
/* A record behind all others, checked; VALUE: bytes, or with BFTI_REC_LARGE in
 * FLAGS a struct bfti_large. */
BFT_MUST_CHECK bft_status bfti_bulk_add(struct bfti_bulk *bulk, bft_slice key,
                                        bft_slice value, uint8_t flags);
/* EXTENTS, which a large value was written to, belong to the tree, or, on
 * failure, nobody. */
BFT_MUST_CHECK bft_status bfti_bulk_own(struct bfti_bulk *bulk,
                                        struct bfti_places *extents);
/* No more records come, and there was one: everything is written, and there is
 * the root. */
BFT_MUST_CHECK bft_status bfti_bulk_end(struct bfti_bulk *bulk,
                                        struct bfti_inner **root);
/* Under checkpoint_lock, no checkpoint running: from here on the tree is one
 * like others, but for its name, and goes by bfti_tree_clear_root and _leaves;
 * its left lists the leaves, and its structure is stopped.  BULK is gone. */
struct bfti_tree *bfti_bulk_publish(struct bfti_bulk *bulk,
                                    struct bfti_inner *root);
/* Give all back instead; ROOT: NULL, or what _end made. */
void bfti_bulk_abandon(struct bfti_bulk *bulk, struct bfti_inner *root);

#endif
