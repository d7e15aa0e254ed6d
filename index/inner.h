/*
 * Inner nodes: immutable once published.  A change copies the path from the
 * root and swings one root pointer, so whoever holds a root holds a consistent
 * tree as of one instant (the checkpoint's cut).  Readers descend inside a
 * read-side section; replaced nodes are freed after a grace period.
 *
 * A node of height 1, of which there are by far the most, is two blocks: a small
 * one that the tree has, and its content, which may leave memory while it is in
 * an extent too, and be read again.  What looks for a leaf tells when the
 * content is not there.
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
    _Atomic uint64_t
        content;     /* of height 1 in the tree: the block with keys and
                                 children, and marks; else 0.  [content] */
    uint32_t bytes;  /* of this block, with the link at its end */
    uint16_t count;  /* children; keys are one fewer; 0: they are in CONTENT */
    uint16_t height; /* 1: children are leaves */
    /* layout follows */
};

/* Marks in the lowest bits of CONTENT. */
enum {
    BFTI_INNER_LEAVING =
        1,               /* it is about to be dropped: who needs that it stays
                               takes the mark away, or comes again */
    BFTI_INNER_LEFT = 2, /* the tree has left the node: content goes with it */
    BFTI_INNER_USED = 4, /* since somebody looked which one to drop */
    BFTI_INNER_MARKS = 7,
};

enum { BFTI_INNER_BYTES = 4096, BFTI_INNER_BYTES_MAX = 16384 };
enum { BFTI_INNER_HEIGHT_MAX = 16 };

/* What the block waits by once its tree has left it. */
struct bfti_deferred *bfti_inner_link(struct bfti_inner *node);

/* --- content (inner_content.c) --------------------------------------------- */

/* What has NODE's keys and children: itself, or its content, which stays
 * readable while NODE would; NULL: that is not in memory. */
const struct bfti_inner *bfti_inner_here(const struct bfti_inner *node);
/* The same for who would drop it: it does not count as used by that. */
const struct bfti_inner *bfti_inner_peek(const struct bfti_inner *node);
/* Is it there, and not about to leave? */
bool bfti_inner_stays(const struct bfti_inner *node);
/* NODE's content is CONTENT from now on.  False: it has one, or the tree has left
 * it; CONTENT is still the caller's. */
bool bfti_inner_fill(struct bfti_inner *node, struct bfti_inner *content);
/* If it is there, it stays. */
void bfti_inner_keep(struct bfti_inner *node);
/* Steps of dropping it.  _leave: false when it is not there or was used lately,
 * which is forgotten.  _empty: gives it back, to be freed when nobody reads it
 * any more; NULL: it is to stay, and the mark is gone. */
bool bfti_inner_leave(struct bfti_inner *node);
struct bfti_inner *bfti_inner_empty(struct bfti_inner *node);
/* The tree has left NODE: its content, to be freed with it, or NULL. */
struct bfti_inner *bfti_inner_left(struct bfti_inner *node);
/* A node of height 1 with that content, or NULL; nothing is taken over on
 * failure.  BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status bfti_inner_wrap(const struct bfti_env *env,
                                          struct bfti_inner *content,
                                          struct bfti_inner **out);
/* A node of height 1 that is in the extent PLACE only. */
BFT_MUST_CHECK bft_status bfti_inner_stub(const struct bfti_env *env,
                                          uint64_t place,
                                          struct bfti_inner **out);
/* NODE's blocks, at once. */
void bfti_inner_free(const struct bfti_env *env, struct bfti_inner *node);
size_t bfti_inner_node_bytes(const struct bfti_inner *node);
/* Do CONTENT's keys lie between LOW and HIGH (len 0: no limit)? */
bool bfti_inner_fits(const struct bfti_inner *content, bft_slice low,
                     bft_slice high);

/* --- looking --------------------------------------------------------------- */

/* A root with the one leaf PAGE_ID. */
BFT_MUST_CHECK bft_status bfti_inner_create(const struct bfti_env *env,
                                            uint64_t page_id,
                                            struct bfti_inner **out);

/* The leaf whose range holds KEY (len 0: the first leaf).  This and the next two:
 * BFTI_PAGE_ID_NONE when the content of the leaf's node is not in memory. */
uint64_t bfti_inner_find(const struct bfti_inner *root, bft_slice key);
/* The leaf that holds the largest keys below KEY, that is, whose range contains
 * keys just below KEY (KEY.len 0: the last leaf of the tree). */
uint64_t bfti_inner_find_before(const struct bfti_inner *root, bft_slice key);
/* The same as _find, with the range that the tree gives the leaf, or else the
 * node without content: LOW and HIGH are buffers of BFTI_KEY_MAX bytes (each may
 * be NULL), *_LEN 0: unbounded. */
uint64_t bfti_inner_range(const struct bfti_inner *root, bft_slice key,
                          void *low, size_t *low_len, void *high,
                          size_t *high_len);
/* The node of height 1 with KEY in its range, or, if BEFORE, keys just below it;
 * and its range, as above. */
struct bfti_inner *bfti_inner_bottom(const struct bfti_inner *root,
                                     bft_slice key, bool before, void *low,
                                     size_t *low_len, void *high,
                                     size_t *high_len);
/* Up to MAX leaves after the one that holds KEY or, if BACK, before the one with the
 * keys just below it (len 0: the last), the nearest first (for read-ahead), not
 * beyond a node without content. */
size_t bfti_inner_following(const struct bfti_inner *root, bft_slice key,
                            bool back, uint64_t *ids, size_t max);
/* Leaves from the one that holds KEY on, in order: MAX, or the rest of its node of
 * height 1, if fewer, and none if that has no content.  NEXT, BFTI_KEY_MAX bytes
 * that KEY is not in, is where the one behind them begins; *NEXT_LEN 0: they are the
 * tree's last. */
size_t bfti_inner_stretch(const struct bfti_inner *root, bft_slice key,
                          uint64_t *ids, size_t max, void *next,
                          size_t *next_len);

/* How many leaves have a range that meets LOW <= key < HIGH (len 0: no bound),
 * LOW below HIGH; and the low ends of some of them: of the NTH[0]'th, NTH[1]'th,
 * ..., ascending from 0, in that order to EACH.  Either looks at each node of
 * height 1 in the range once; one without content counts by what its extent's
 * length tells, and its low end stands for those of its leaves. */
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
 *          in a tree of at most 11 heights, always fit.  BFT_BUSY: the content
 *          of a node that is to be changed is not in memory.
 */
BFT_MUST_CHECK bft_status bfti_inner_insert(const struct bfti_env *env,
                                            const struct bfti_inner *root,
                                            const bft_slice *keys,
                                            const uint64_t *ids, size_t n,
                                            struct bfti_inner_change *change);
/* A copy without the child ID whose range starts at KEY (BFT_NOT_FOUND when it
 * is not there; BFT_BUSY as above); its range goes to the left neighbour.  KEY is not the tree's
 * first.  Merges small nodes that are in memory, takes away a root with one inner child. */
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
 * (I >= 1), returns its length.  NODE is what bfti_inner_here() gave. */
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
/* Check IMAGE and build a node from it; for height > 1 CHILD(arg, place, height,
 * &node) turns each word into a node (a failure undoes all), of that height,
 * with content or without.  BFT_CORRUPT with a text
 * when the image is malformed, or a child has another height or keys outside
 * its range.  A CHILD that decodes in turn stops at a depth of
 * BFTI_INNER_HEIGHT_MAX: damaged places may lead in a circle. */
BFT_MUST_CHECK bft_status bfti_inner_decode(
    const struct bfti_env *env, const void *image, size_t len,
    bft_status (*child)(void *arg, uint64_t place, unsigned height,
                        struct bfti_inner **node),
    void *arg, struct bfti_inner **out);
/* The content of a node of height 1. */
BFT_MUST_CHECK bft_status bfti_inner_decode_content(const struct bfti_env *env,
                                                    const void *image,
                                                    size_t len,
                                                    struct bfti_inner **out);

#endif
