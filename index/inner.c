/*
 * Inner nodes: searches and walks.  A search works on integers: the first four
 * bytes of each key after the common prefix, compared branch-free in one dense
 * array.  Nodes are immutable, so nothing here synchronises.
 */
#include "inner_internal.h"

/* The search halves down to so many heads and counts through these: one cache
 * line, which the compiler compares several at a time. */
enum { HEADS_COUNTED = 16 };

/*
 * How many of the N ascending HEADS are below HEAD.  No branch depends on a
 * head.  By a mask, for compilers turn `? :` back into a jump: with random keys
 * every other one is mispredicted, which made a find in cached nodes take more
 * than twice as long.
 */
static unsigned heads_below(const uint32_t *heads, unsigned n, uint32_t head)
{
    const uint32_t *base = heads;
    while (n > HEADS_COUNTED) {
        unsigned half = n / 2;
        base += half & (0u - (unsigned)(base[half - 1] < head));
        n -= half;
    }
    unsigned below = 0;
    for (unsigned i = 0; i < n; i++)
        below += base[i] < head;
    return (unsigned)(base - heads) + below;
}

/* Fetch the lines that hold header, prefix and heads of most nodes, all at
 * once: without branches the processor does not guess ahead, so each step of
 * the search would wait for a line of its own.  May reach past a small node,
 * which is harmless. */
static inline void fetch_ahead(const struct bfti_inner *node)
{
    enum { LINE = 64, LINES = 12 };
    for (unsigned i = 0; i < LINES; i++)
        __builtin_prefetch((const char *)node + (size_t)LINE * i);
}

/* Among the keys with heads equal to REST's, from LOW + 1 on: how many keys of
 * the node lie below PREFIX REST, or, if OR_EQUAL, not above it. */
static unsigned search_equal_heads(const struct bfti_inner *node, unsigned low,
                                   bft_slice rest, uint32_t head, bool or_equal)
{
    const uint32_t *heads = bfti_inner_heads(node);
    unsigned n = node->count - 1u;
    /* Zero padding makes "a" and "a\0" equal heads; only suffixes decide. */
    unsigned high = head == UINT32_MAX
                        ? n
                        : low + heads_below(heads + low, n - low, head + 1);

    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = bfti_key_compare(bfti_inner_suffix(node, middle + 1), rest);
        if (order < 0 || (order == 0 && or_equal))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* How many keys of NODE lie below KEY or, if OR_EQUAL, not above it. */
static inline unsigned search(const struct bfti_inner *node, bft_slice key,
                              bool or_equal)
{
    unsigned n = node->count - 1u;
    const uint8_t *rest = key.data;
    size_t rest_len = key.len;
    size_t prefix_len = bfti_inner_prefix_len(node);

    if (key.len == 0)
        return 0; /* below every key; and key.data may be NULL */
    if (prefix_len > 0) {
        size_t len = key.len < prefix_len ? key.len : prefix_len;
        int order = memcmp(key.data, bfti_inner_prefix(node), len);
        if (order != 0)
            return order < 0 ? 0 : n;
        if (key.len < prefix_len)
            return 0;
        rest += prefix_len;
        rest_len -= prefix_len;
    }

    uint32_t head = bfti_inner_head(rest, rest_len);
    const uint32_t *heads = bfti_inner_heads(node);
    unsigned low = heads_below(heads, n, head);
    if (low == n || heads[low] != head)
        return low;
    bft_slice rest_slice = {rest, rest_len};
    return search_equal_heads(node, low, rest_slice, head, or_equal);
}

unsigned bfti_inner_index(const struct bfti_inner *node, bft_slice key)
{
    return search(node, key, true);
}

uint64_t bfti_inner_find(const struct bfti_inner *root, bft_slice key)
{
    const struct bfti_inner *node = root;
    for (;;) {
        uint64_t word = bfti_inner_words(node)[search(node, key, true)];
        if (node->height == 1)
            return word;
        node = bfti_inner_of_word(word);
        fetch_ahead(node);
    }
}

uint64_t bfti_inner_find_before(const struct bfti_inner *root, bft_slice key)
{
    const struct bfti_inner *node = root;
    for (;;) {
        unsigned i = key.len == 0 ? node->count - 1u : search(node, key, false);
        uint64_t word = bfti_inner_words(node)[i];
        if (node->height == 1)
            return word;
        node = bfti_inner_of_word(word);
        fetch_ahead(node);
    }
}

uint64_t bfti_inner_range(const struct bfti_inner *root, bft_slice key,
                          void *low, size_t *low_len, void *high,
                          size_t *high_len)
{
    /* The nodes whose keys bound the leaf: the lowest of the path that have
     * one on that side. */
    const struct bfti_inner *low_node = NULL, *high_node = NULL;
    unsigned low_i = 0, high_i = 0;
    const struct bfti_inner *node = root;
    uint64_t word;

    for (;;) {
        unsigned i = search(node, key, true);
        if (i > 0) {
            low_node = node;
            low_i = i;
        }
        if (i + 1u < node->count) {
            high_node = node;
            high_i = i + 1;
        }
        word = bfti_inner_words(node)[i];
        if (node->height == 1)
            break;
        node = bfti_inner_of_word(word);
        fetch_ahead(node);
    }
    if (low != NULL)
        *low_len = low_node == NULL ? 0 : bfti_inner_key(low_node, low_i, low);
    if (high != NULL)
        *high_len =
            high_node == NULL ? 0 : bfti_inner_key(high_node, high_i, high);
    return word;
}

/* --- walks --------------------------------------------------------------- */

/* A way from the root to a node of height 1: the nodes by height - 1, and the
 * child taken in each. */
struct walk {
    const struct bfti_inner *node[BFTI_INNER_HEIGHT_MAX];
    unsigned index[BFTI_INNER_HEIGHT_MAX];
    unsigned height; /* of the root */
};

/* From the node at LEVEL go down its child by KEY to height 1. */
static void walk_down(struct walk *walk, unsigned level, bft_slice key)
{
    for (; level > 0; level--) {
        const struct bfti_inner *parent = walk->node[level];
        walk->node[level - 1] = bfti_inner_child(parent, walk->index[level]);
        walk->index[level - 1] = search(walk->node[level - 1], key, true);
    }
}

static void walk_start(struct walk *walk, const struct bfti_inner *root,
                       bft_slice key)
{
    assert(root->height <= BFTI_INNER_HEIGHT_MAX);
    walk->height = root->height;
    walk->node[root->height - 1] = root;
    walk->index[root->height - 1] = search(root, key, true);
    walk_down(walk, root->height - 1u, key);
}

/* To the next node of height 1, at its first child; false behind the last. */
static bool walk_next_node(struct walk *walk)
{
    bft_slice first = {NULL, 0};
    unsigned level = 1;
    while (level < walk->height &&
           walk->index[level] + 1u == walk->node[level]->count)
        level++;
    if (level >= walk->height)
        return false;
    walk->index[level]++;
    walk_down(walk, level, first);
    return true;
}

size_t bfti_inner_following(const struct bfti_inner *root, bft_slice key,
                            uint64_t *ids, size_t max)
{
    struct walk walk;
    size_t n = 0;

    walk_start(&walk, root, key);
    while (n < max) {
        walk.index[0]++;
        if (walk.index[0] == walk.node[0]->count && !walk_next_node(&walk))
            break;
        ids[n++] = bfti_inner_page(walk.node[0], walk.index[0]);
    }
    return n;
}

/* The children of NODE whose ranges meet LOW <= key < HIGH: FROM <= i < TO. */
static void meeting(const struct bfti_inner *node, bft_slice low,
                    bft_slice high, unsigned *from, unsigned *to)
{
    *from = search(node, low, true);
    *to = high.len ? search(node, high, false) + 1u : node->count;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
size_t bfti_inner_leaves(const struct bfti_inner *node, bft_slice low,
                         bft_slice high)
{
    bft_slice open = {NULL, 0};
    size_t leaves = 0;
    unsigned from, to;
    meeting(node, low, high, &from, &to);
    if (node->height == 1)
        return to - from;
    for (unsigned i = from; i < to; i++)
        leaves += bfti_inner_leaves(bfti_inner_child(node, i),
                                    i == from ? low : open,
                                    i + 1 == to ? high : open);
    return leaves;
}

struct lows {
    const size_t *nth;
    size_t n, next; /* of those: the next to be found */
    size_t at;      /* leaves passed */
    void (*each)(void *arg, bft_slice key);
    void *arg;
};

/* BOUND_I of BOUND (NULL: none) is the key to the left of NODE. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static void lows_below(struct lows *l, const struct bfti_inner *node,
                       bft_slice low, bft_slice high,
                       const struct bfti_inner *bound, unsigned bound_i)
{
    bft_slice open = {NULL, 0};
    unsigned from, to;
    meeting(node, low, high, &from, &to);
    for (unsigned i = from; i < to && l->next < l->n; i++) {
        const struct bfti_inner *left = i ? node : bound;
        unsigned left_i = i ? i : bound_i;
        if (node->height > 1) {
            lows_below(l, bfti_inner_child(node, i), i == from ? low : open,
                       i + 1 == to ? high : open, left, left_i);
        } else if (l->at++ == l->nth[l->next]) {
            uint8_t buf[BFTI_KEY_MAX];
            bft_slice key = {buf, left ? bfti_inner_key(left, left_i, buf) : 0};
            l->next++;
            l->each(l->arg, key);
        }
    }
}

void bfti_inner_lows(const struct bfti_inner *root, bft_slice low,
                     bft_slice high, const size_t *nth, size_t n,
                     void (*each)(void *arg, bft_slice key), void *arg)
{
    struct lows l = {nth, n, 0, 0, each, arg};
    lows_below(&l, root, low, high, NULL, 0);
}

/* --- one node ------------------------------------------------------------ */

uint64_t bfti_inner_page(const struct bfti_inner *node, unsigned i)
{
    assert(node->height == 1);
    assert(i < node->count);
    return bfti_inner_words(node)[i];
}

struct bfti_inner *bfti_inner_child(const struct bfti_inner *node, unsigned i)
{
    assert(node->height > 1);
    assert(i < node->count);
    return bfti_inner_of_word(bfti_inner_words(node)[i]);
}

size_t bfti_inner_key(const struct bfti_inner *node, unsigned i, void *buf)
{
    assert(i >= 1);
    assert(i < node->count);
    size_t prefix_len = bfti_inner_prefix_len(node);
    bft_slice suffix = bfti_inner_suffix(node, i);
    memcpy(buf, bfti_inner_prefix(node), prefix_len);
    memcpy((uint8_t *)buf + prefix_len, suffix.data, suffix.len);
    return prefix_len + suffix.len;
}
