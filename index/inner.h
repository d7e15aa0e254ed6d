/*
 * Inner nodes: immutable once published.  A change copies the path from the
 * root and swings one root pointer, so whoever holds a root holds a consistent
 * tree as of one instant (the checkpoint's cut).  Readers descend inside a
 * read-side section; replaced nodes are freed after a grace period.
 */
#ifndef BFTI_INNER_H
#define BFTI_INNER_H

#include "buffer/buffer.h"

/* Opaque layout in inner.c: keys sorted with a common prefix left out and
 * four-byte heads compared as numbers, children as 64-bit words (a page id
 * when height is 1, else a pointer to a node). */
struct bfti_inner {
    _Atomic uint64_t place; /* its extent in the last image, 0: none, 1: the
                               tree has left it.  [node] */
    uint64_t image_place;   /* the same, checkpoint only: it stays readable
                               after the tree has left the node */
    uint32_t bytes;         /* of this block, with the link at its end */
    uint16_t count;         /* children, at least 1; keys are one fewer */
    uint16_t height;        /* 1: children are leaves */
    /* layout follows */
};

enum { BFTI_INNER_BYTES = 4096, BFTI_INNER_BYTES_MAX = 16384 };
enum { BFTI_INNER_HEIGHT_MAX = 16 };

/* What the node waits by once its tree has left it. */
struct bfti_deferred *bfti_inner_link(struct bfti_inner *node);

/* A root with the one leaf PAGE_ID. */
BFT_MUST_CHECK bft_status bfti_inner_create(const struct bfti_env *env,
                                            uint64_t page_id,
                                            struct bfti_inner **out);

/* The leaf whose range holds KEY (len 0: the first leaf). */
uint64_t bfti_inner_find(const struct bfti_inner *root, bft_slice key);
/* The leaf that holds the largest keys below KEY, that is, whose range contains
 * keys just below KEY (KEY.len 0: the last leaf of the tree). */
uint64_t bfti_inner_find_before(const struct bfti_inner *root, bft_slice key);
/* The same as _find, with the range that the tree gives the leaf: LOW and HIGH
 * are buffers of BFTI_KEY_MAX bytes (each may be NULL), *_LEN 0: unbounded. */
uint64_t bfti_inner_range(const struct bfti_inner *root, bft_slice key,
                          void *low, size_t *low_len, void *high,
                          size_t *high_len);
/* Up to MAX leaves after the one that holds KEY, in order (for read-ahead). */
size_t bfti_inner_following(const struct bfti_inner *root, bft_slice key,
                            uint64_t *ids, size_t max);

/* How many leaves have a range that meets LOW <= key < HIGH (len 0: no bound),
 * LOW below HIGH; and the low ends of some of them: of the NTH[0]'th, NTH[1]'th,
 * ..., ascending from 0, in that order to EACH.  Either looks at each node of
 * height 1 in the range once. */
size_t bfti_inner_leaves(const struct bfti_inner *root, bft_slice low,
                         bft_slice high);
void bfti_inner_lows(const struct bfti_inner *root, bft_slice low,
                     bft_slice high, const size_t *nth, size_t n,
                     void (*each)(void *arg, bft_slice key), void *arg);

/* What a change made and what it replaced: on success of the root's swing
 * retire REPLACED, on failure free MADE. */
struct bfti_inner_change {
    struct bfti_inner *root; /* the new root */
    struct bfti_inner *made[32], *replaced[32];
    unsigned made_count, replaced_count;
};

/*
 * A copy of the path with (KEYS[i] -> IDS[i]), ascending, inserted as children
 * to the right of the leaf that held their range.  A key that is present
 * already has its child replaced by the id (redo, late arrivals).  Splits nodes
 * at the middle, or leaves the left one full when the insertion is at its end.
 * On failure nothing is left allocated.
 *
 * Errors:  BFT_NO_MEMORY; BFT_TOO_BIG for BFTI_PARTS_MAX keys or more, or for
 *          keys in so many nodes that the change does not hold them: one key
 *          alone, 8 in the range of one leaf, or all in the range of one leaf
 *          in a tree of at most 11 heights, always fit.
 */
BFT_MUST_CHECK bft_status bfti_inner_insert(const struct bfti_env *env,
                                            const struct bfti_inner *root,
                                            const bft_slice *keys,
                                            const uint64_t *ids, size_t n,
                                            struct bfti_inner_change *change);
/* A copy without the child ID whose range starts at KEY (BFT_NOT_FOUND when it
 * is not there); its range goes to the left neighbour.  KEY is not the tree's
 * first.  Merges small nodes, takes away a root with one inner child. */
BFT_MUST_CHECK bft_status bfti_inner_remove(const struct bfti_env *env,
                                            const struct bfti_inner *root,
                                            bft_slice key, uint64_t id,
                                            struct bfti_inner_change *change);
/*
 * Make nodes of HEIGHT of N children in order, each as full as can be; KEYS[i] is
 * the key to the left of child i, that of the first is ignored.  MADE gets each
 * node, and owns it unless it fails, and the index of its first child.  Unless LAST,
 * the children at the end that do not fill a node are left.  *USED: how many
 * children are in nodes that MADE owns, also on failure.
 *
 * Errors:  BFT_NO_MEMORY, those of MADE.
 */
BFT_MUST_CHECK bft_status bfti_inner_pack(
    const struct bfti_env *env, unsigned height, const uint64_t *words,
    const bft_slice *keys, size_t n, bool last,
    bft_status (*made)(void *arg, struct bfti_inner *node, size_t first),
    void *arg, size_t *used);
void bfti_inner_free_made(const struct bfti_env *env,
                          struct bfti_inner_change *change);
/* Free a whole tree at once (nobody reads it). */
void bfti_inner_destroy(const struct bfti_env *env, struct bfti_inner *root);
size_t bfti_inner_tree_bytes(const struct bfti_inner *root);

/* Child I, as page id (height 1) or node; the separator to its left as a copy
 * (I >= 1), returns its length. */
uint64_t bfti_inner_page(const struct bfti_inner *node, unsigned i);
struct bfti_inner *bfti_inner_child(const struct bfti_inner *node, unsigned i);
size_t bfti_inner_key(const struct bfti_inner *node, unsigned i, void *buf);
/* NODE as the word of a child of height 2 and more; and back. */
uint64_t bfti_inner_word(const struct bfti_inner *node);
struct bfti_inner *bfti_inner_node(uint64_t word);

/*
 * The image of a node: le16 count, le16 height, le32 zero, then for each child
 * le64 word (page id, or the extent place of the child node), le16 key length
 * (0 for the first), key bytes.  _encode writes the children given, which may
 * be fewer than the node's own (a checkpoint leaves out leaves that are younger
 * than its image).  KEYS[0] is ignored.
 */
size_t bfti_inner_encoded_size(const bft_slice *keys, size_t n);
size_t bfti_inner_encode(void *buf, unsigned height, const uint64_t *words,
                         const bft_slice *keys, size_t n);
/* Check IMAGE and build a node from it; for height > 1 CHILD(arg, place, &node)
 * turns each word into a node (a failure undoes all).  BFT_CORRUPT with a text
 * when the image is malformed, or a child has another height or keys outside
 * its range.  A CHILD that decodes in turn stops at a depth of
 * BFTI_INNER_HEIGHT_MAX: damaged places may lead in a circle. */
BFT_MUST_CHECK bft_status bfti_inner_decode(
    const struct bfti_env *env, const void *image, size_t len,
    bft_status (*child)(void *arg, uint64_t place, struct bfti_inner **node),
    void *arg, struct bfti_inner **out);

#endif
