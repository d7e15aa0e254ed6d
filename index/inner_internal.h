/* What the files of the inner nodes share and nobody else sees. */
#ifndef BFTI_INNER_INTERNAL_H
#define BFTI_INNER_INTERNAL_H

#include <assert.h>

#include "inner.h"

/*
 * The block of a node, or of its content, after struct bfti_inner:
 *
 *   u16 prefix_len, prefix   common to all keys of the node and left out below
 *   u32 head[count - 1]      big-endian value of each suffix's first four
 *                            bytes, zero-padded; aligned to 4
 *   u64 word[count]          children; aligned to 8
 *   u16 end[count - 1]       where each suffix ends in the bytes that follow
 *   suffixes
 *   struct bfti_deferred     what a node that the tree has left waits by;
 *                            aligned to 8, the last of the block
 *
 * A search reads the header's cache line, which holds a short prefix too, a
 * few lines of heads, and one word; suffixes only where heads are equal.
 */
enum {
    BFTI_INNER_PREFIX_AT = sizeof(struct bfti_inner), /* of prefix_len */
    BFTI_INNER_CHILD_BYTES = 8 + 4 + 2,
    BFTI_INNER_STORED_BYTES = 8 + 2, /* in an image, without its key */
    /* More children than any node within BFTI_INNER_BYTES_MAX can have. */
    BFTI_INNER_CHILDREN_MAX = BFTI_INNER_BYTES_MAX / BFTI_INNER_CHILD_BYTES,
    /* No part of a split has fewer children, but the last of an append. */
    BFTI_INNER_FANOUT_MIN = 8,
    BFTI_INNER_INSERT_MAX = BFTI_PARTS_MAX - 1,
};
/* A node of twice the least fan-out fits whatever its keys, so that a node
 * over that can always be cut into two of at least the least fan-out. */
_Static_assert(BFTI_INNER_PREFIX_AT + 2 + 3 + 4 + /* alignment */
                       2 * BFTI_INNER_FANOUT_MIN *
                           (BFTI_INNER_CHILD_BYTES + BFTI_KEY_MAX) -
                       BFTI_KEY_MAX + 7 + sizeof(struct bfti_deferred) <=
                   BFTI_INNER_BYTES_MAX,
               "16 children with the longest keys fit");

/* Offsets in the block of a node of COUNT children and a prefix of that
 * length. */
static inline size_t bfti_inner_heads_at(size_t prefix_len)
{
    return (BFTI_INNER_PREFIX_AT + 2 + prefix_len + 3) & ~(size_t)3;
}
static inline size_t bfti_inner_words_at(size_t prefix_len, size_t count)
{
    return (bfti_inner_heads_at(prefix_len) + 4 * (count - 1) + 7) & ~(size_t)7;
}
static inline size_t bfti_inner_ends_at(size_t prefix_len, size_t count)
{
    return bfti_inner_words_at(prefix_len, count) + 8 * count;
}
static inline size_t bfti_inner_suffixes_at(size_t prefix_len, size_t count)
{
    return bfti_inner_ends_at(prefix_len, count) + 2 * (count - 1);
}

static inline const uint8_t *bfti_inner_block(const struct bfti_inner *node)
{
    return (const uint8_t *)node;
}
static inline size_t bfti_inner_prefix_len(const struct bfti_inner *node)
{
    uint16_t len;
    memcpy(&len, bfti_inner_block(node) + BFTI_INNER_PREFIX_AT, sizeof len);
    return len;
}
static inline const uint8_t *bfti_inner_prefix(const struct bfti_inner *node)
{
    return bfti_inner_block(node) + BFTI_INNER_PREFIX_AT + 2;
}
static inline const uint32_t *bfti_inner_heads(const struct bfti_inner *node)
{
    size_t at = bfti_inner_heads_at(bfti_inner_prefix_len(node));
    return (const uint32_t *)(const void *)(bfti_inner_block(node) + at);
}
static inline const uint64_t *bfti_inner_words(const struct bfti_inner *node)
{
    size_t at = bfti_inner_words_at(bfti_inner_prefix_len(node), node->count);
    return (const uint64_t *)(const void *)(bfti_inner_block(node) + at);
}
/* What follows the prefix in the key to the left of child I >= 1. */
static inline bft_slice bfti_inner_suffix(const struct bfti_inner *node,
                                          unsigned i)
{
    size_t prefix_len = bfti_inner_prefix_len(node);
    const uint16_t *end =
        (const uint16_t *)(const void *)(bfti_inner_block(node) +
                                         bfti_inner_ends_at(prefix_len,
                                                            node->count));
    size_t start = i > 1 ? end[i - 2] : 0u;
    bft_slice suffix = {
        bfti_inner_block(node) +
            bfti_inner_suffixes_at(prefix_len, node->count) + start,
        end[i - 1] - start,
    };
    return suffix;
}

/* A child node as a word.  Through memory: a cast between integer and pointer
 * hides from the compiler what the pointer points to. */
static inline uint64_t bfti_inner_word_of(const struct bfti_inner *node)
{
    uint64_t word = 0;
    _Static_assert(sizeof(void *) <= sizeof word, "a pointer fits into a word");
    memcpy(&word, &node, sizeof(void *));
    return word;
}
static inline struct bfti_inner *bfti_inner_of_word(uint64_t word)
{
    struct bfti_inner *node;
    memcpy(&node, &word, sizeof(void *));
    return node;
}

static inline uint32_t bfti_inner_head(const uint8_t *at, size_t len)
{
    if (len >= 4)
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
               (uint32_t)at[2] << 8 | at[3];
    uint32_t head = 0;
    for (size_t i = 0; i < len; i++)
        head |= (uint32_t)at[i] << (24 - 8 * i);
    return head;
}

/* The index of the child whose range holds KEY. */
unsigned bfti_inner_index(const struct bfti_inner *node, bft_slice key);

/* --- building (inner_build.c) ------------------------------------------- */

/* A key in two parts, of a node or (prefix_len 0) a caller's. */
struct bfti_separator {
    const uint8_t *prefix, *suffix;
    uint16_t prefix_len, suffix_len;
};

static inline size_t bfti_separator_len(const struct bfti_separator *s)
{
    return (size_t)s->prefix_len + s->suffix_len;
}
struct bfti_separator bfti_separator_of(bft_slice key);
/* The key to the left of child I; empty for I == 0. */
struct bfti_separator bfti_separator_at(const struct bfti_inner *node,
                                        unsigned i);
/* memcmp order, as bfti_key_compare. */
int bfti_separator_compare(const struct bfti_separator *a,
                           const struct bfti_separator *b);

/* A child of a node that is being made, with the key to its left. */
struct bfti_inner_entry {
    struct bfti_separator key; /* ignored where it comes first in a node */
    uint32_t total; /* key bytes up to here: bfti_inner_list_measure */
    uint64_t word;
};

/* Children in order.  Their keys borrow from the nodes or callers they came
 * from. */
struct bfti_inner_list {
    const struct bfti_env *env;
    struct bfti_inner_entry *at;
    size_t count, cap;
};

BFT_MUST_CHECK bft_status bfti_inner_list_reserve(struct bfti_inner_list *list,
                                                  size_t more);
void bfti_inner_list_free(struct bfti_inner_list *list);
/* The following need room from bfti_inner_list_reserve. */
void bfti_inner_list_insert(struct bfti_inner_list *list, size_t at,
                            struct bfti_separator key, uint64_t word);
/* All children of NODE, which has content, from AT on, the first with KEY to its
 * left. */
void bfti_inner_list_insert_node(struct bfti_inner_list *list, size_t at,
                                 struct bfti_separator key,
                                 const struct bfti_inner *node);
void bfti_inner_list_erase(struct bfti_inner_list *list, size_t at, size_t n);

/* Sum up key lengths; before the three below. */
void bfti_inner_list_measure(struct bfti_inner_list *list);
/* Bytes of a node of the children [FROM, TO). */
size_t bfti_inner_list_bytes(const struct bfti_inner_list *list, size_t from,
                             size_t to);
/* Where the node that begins at FROM should end: all that is left when it fits
 * into one, else in the middle or, if APPEND, when the node is full. */
size_t bfti_inner_list_cut(const struct bfti_inner_list *list, size_t from,
                           bool append);
/* A node of the children [FROM, TO); of height 1 with its content, or, by
 * _block, only that.  BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status
bfti_inner_list_block(const struct bfti_inner_list *list, size_t from,
                      size_t to, unsigned height, struct bfti_inner **out);
BFT_MUST_CHECK bft_status
bfti_inner_list_build(const struct bfti_inner_list *list, size_t from,
                      size_t to, unsigned height, struct bfti_inner **out);

#endif
