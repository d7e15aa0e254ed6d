/*
 * Inner nodes: searches and walks.  A search works on integers: the first four
 * bytes of each key after the common prefix, compared branch-free in one dense
 * array.  Nodes are immutable, so nothing here synchronises, but for what
 * bfti_inner_here() does.
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

/* The child of NODE, of height 2 or more, that the search goes to.  A node of
 * height 1 is a small block: what is to be fetched is behind it. */
static inline const struct bfti_inner *child_at(const struct bfti_inner *node,
                                                unsigned i)
{
    const struct bfti_inner *child =
        bfti_inner_of_word(bfti_inner_words(node)[i]);
    if (node->height > 2)
        fetch_ahead(child);
    return child;
}

/* The content of NODE, of height 1, or NULL. */
static inline const struct bfti_inner *bottom_of(const struct bfti_inner *node)
{
    const struct bfti_inner *content = bfti_inner_here(node);
    if (content != NULL)
        fetch_ahead(content);
    return content;
}

uint64_t bfti_inner_find(const struct bfti_inner *root, bft_slice key)
{
    const struct bfti_inner *node = root;
    while (node->height > 1)
        node = child_at(node, search(node, key, true));
    node = bottom_of(node);
    return node != NULL ? bfti_inner_words(node)[search(node, key, true)]
                        : BFTI_PAGE_ID_NONE;
}

/* The child of NODE with the keys just below KEY. */
static inline unsigned search_before(const struct bfti_inner *node,
                                     bft_slice key)
{
    return key.len == 0 ? node->count - 1u : search(node, key, false);
}

uint64_t bfti_inner_find_before(const struct bfti_inner *root, bft_slice key)
{
    const struct bfti_inner *node = root;
    while (node->height > 1)
        node = child_at(node, search_before(node, key));
    node = bottom_of(node);
    return node != NULL ? bfti_inner_words(node)[search_before(node, key)]
                        : BFTI_PAGE_ID_NONE;
}

/* The nodes whose keys bound what a search is at: the lowest of its path that
 * have one on that side. */
struct bounds {
    const struct bfti_inner *low_node, *high_node;
    unsigned low_i, high_i;
};

/* It goes to child I of NODE. */
static inline void bounds_pass(struct bounds *b, const struct bfti_inner *node,
                               unsigned i)
{
    if (i > 0) {
        b->low_node = node;
        b->low_i = i;
    }
    if (i + 1u < node->count) {
        b->high_node = node;
        b->high_i = i + 1;
    }
}

static void bounds_copy(const struct bounds *b, void *low, size_t *low_len,
                        void *high, size_t *high_len)
{
    if (low != NULL)
        *low_len = b->low_node == NULL
                       ? 0
                       : bfti_inner_key(b->low_node, b->low_i, low);
    if (high != NULL)
        *high_len = b->high_node == NULL
                        ? 0
                        : bfti_inner_key(b->high_node, b->high_i, high);
}

uint64_t bfti_inner_range(const struct bfti_inner *root, bft_slice key,
                          void *low, size_t *low_len, void *high,
                          size_t *high_len)
{
    struct bounds bounds = {NULL, NULL, 0, 0};
    const struct bfti_inner *node = root;
    uint64_t id = BFTI_PAGE_ID_NONE;

    while (node->height > 1) {
        unsigned i = search(node, key, true);
        bounds_pass(&bounds, node, i);
        node = child_at(node, i);
    }
    node = bottom_of(node);
    if (node != NULL) {
        unsigned i = search(node, key, true);
        bounds_pass(&bounds, node, i);
        id = bfti_inner_words(node)[i];
    }
    bounds_copy(&bounds, low, low_len, high, high_len);
    return id;
}

struct bfti_inner *bfti_inner_bottom(const struct bfti_inner *root,
                                     bft_slice key, bool before, void *low,
                                     size_t *low_len, void *high,
                                     size_t *high_len)
{
    struct bounds bounds = {NULL, NULL, 0, 0};
    const struct bfti_inner *node = root;
    while (node->height > 1) {
        unsigned i =
            before ? search_before(node, key) : search(node, key, true);
        bounds_pass(&bounds, node, i);
        node = child_at(node, i);
    }
    bounds_copy(&bounds, low, low_len, high, high_len);
    return bfti_inner_of_word(bfti_inner_word_of(node));
}

/* --- walks --------------------------------------------------------------- */

/* A way from the root to a node of height 1: the nodes by height - 1, and the
 * child taken in each.  The lowest one is content, or NULL. */
struct walk {
    const struct bfti_inner *node[BFTI_INNER_HEIGHT_MAX];
    unsigned index[BFTI_INNER_HEIGHT_MAX];
    unsigned height; /* of the root */
};

/* At NODE of the height LEVEL + 1, go down by KEY, or BEFORE it, to height 1. */
static void walk_down(struct walk *walk, const struct bfti_inner *node,
                      unsigned level, bft_slice key, bool before)
{
    for (; level > 0; level--) {
        walk->node[level] = node;
        walk->index[level] =
            before ? search_before(node, key) : search(node, key, true);
        node = bfti_inner_child(node, walk->index[level]);
    }
    walk->node[0] = node = bfti_inner_here(node);
    walk->index[0] = node == NULL ? 0
                     : before     ? search_before(node, key)
                                  : search(node, key, true);
}

static void walk_start(struct walk *walk, const struct bfti_inner *root,
                       bft_slice key, bool before)
{
    assert(root->height <= BFTI_INNER_HEIGHT_MAX);
    walk->height = root->height;
    walk_down(walk, root, root->height - 1u, key, before);
}

/* Is the walk at the last child of NODE[LEVEL] on its way? */
static bool walk_at_end(const struct walk *walk, unsigned level, bool back)
{
    return back ? walk->index[level] == 0
                : walk->index[level] + 1u == walk->node[level]->count;
}

/* To the next leaf, or BACK to the one before; false: there is none, or its node
 * has no content. */
static bool walk_on(struct walk *walk, bool back)
{
    bft_slice end = {NULL, 0};
    unsigned level = 0;
    while (level < walk->height && walk_at_end(walk, level, back))
        level++;
    if (level >= walk->height)
        return false;
    walk->index[level] += back ? -1u : 1u;
    if (level > 0)
        walk_down(walk, bfti_inner_child(walk->node[level], walk->index[level]),
                  level - 1, end, back);
    return walk->node[0] != NULL;
}

size_t bfti_inner_following(const struct bfti_inner *root, bft_slice key,
                            bool back, uint64_t *ids, size_t max)
{
    struct walk walk;
    size_t n = 0;

    walk_start(&walk, root, key, back);
    while (n < max && walk.node[0] != NULL && walk_on(&walk, back))
        ids[n++] = bfti_inner_page(walk.node[0], walk.index[0]);
    return n;
}

size_t bfti_inner_stretch(const struct bfti_inner *root, bft_slice key,
                          uint64_t *ids, size_t max, void *next,
                          size_t *next_len)
{
    const struct bfti_inner *node = bfti_inner_peek(
        bfti_inner_bottom(root, key, false, NULL, NULL, next, next_len));
    unsigned i = node ? search(node, key, true) : 0;
    size_t n = 0;

    while (node && n < max && i < node->count)
        ids[n++] = bfti_inner_page(node, i++);
    if (node && i < node->count)
        *next_len = bfti_inner_key(node, i, next);
    return n;
}

/* The children of NODE whose ranges meet LOW <= key < HIGH: FROM <= i < TO. */
static void meeting(const struct bfti_inner *node, bft_slice low,
                    bft_slice high, unsigned *from, unsigned *to)
{
    *from = search(node, low, true);
    *to = high.len ? search(node, high, false) + 1u : node->count;
}

/* About how many leaves a node of height 1 has, by the grains of its extent and
 * KEY_BYTES of a key.  At least one. */
static size_t leaves_stored(const struct bfti_inner *node, size_t key_bytes)
{
    uint64_t place = node->image_place;
    size_t bytes = (size_t)bfti_disk_grains(place) * BFTI_GRAIN;
    return 1 + bytes / (BFTI_INNER_STORED_BYTES + key_bytes);
}

/* Of NODE's keys, on average. */
static size_t key_bytes_of(const struct bfti_inner *node)
{
    size_t bytes = 0, keys = node->count - 1u;
    for (unsigned i = 1; i <= keys; i++)
        bytes += bfti_inner_suffix(node, i).len;
    return keys ? bfti_inner_prefix_len(node) + bytes / keys : 0;
}

/* Of a child of PARENT (NULL: none), of height 1, without content. */
static size_t leaves_unseen(const struct bfti_inner *parent,
                            const struct bfti_inner *node)
{
    return leaves_stored(node, parent ? key_bytes_of(parent) : 0);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static size_t leaves_below(const struct bfti_inner *parent,
                           const struct bfti_inner *node, bft_slice low,
                           bft_slice high)
{
    bft_slice open = {NULL, 0};
    size_t leaves = 0;
    unsigned from, to;
    const struct bfti_inner *at = bfti_inner_here(node);
    if (at == NULL)
        return leaves_unseen(parent, node);
    meeting(at, low, high, &from, &to);
    if (at->height == 1)
        return to - from;
    for (unsigned i = from; i < to; i++)
        leaves +=
            leaves_below(node, bfti_inner_child(node, i),
                         i == from ? low : open, i + 1 == to ? high : open);
    return leaves;
}

size_t bfti_inner_leaves(const struct bfti_inner *root, bft_slice low,
                         bft_slice high)
{
    return leaves_below(NULL, root, low, high);
}

struct lows {
    const size_t *nth;
    size_t n, next; /* of those: the next to be found */
    size_t at;      /* leaves passed */
    void (*each)(void *arg, bft_slice key);
    void *arg;
};

/* BOUND_I of BOUND (NULL: none) is the key to the left of the next LEAVES. */
static void lows_pass(struct lows *l, size_t leaves,
                      const struct bfti_inner *bound, unsigned bound_i)
{
    l->at += leaves;
    while (l->next < l->n && l->nth[l->next] < l->at) {
        uint8_t buf[BFTI_KEY_MAX];
        bft_slice key = {buf, bound ? bfti_inner_key(bound, bound_i, buf) : 0};
        l->next++;
        l->each(l->arg, key);
    }
}

/* The same of what is below NODE, a child of PARENT (NULL: none). */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static void lows_below(struct lows *l, const struct bfti_inner *parent,
                       const struct bfti_inner *node, bft_slice low,
                       bft_slice high, const struct bfti_inner *bound,
                       unsigned bound_i)
{
    const struct bfti_inner *at = bfti_inner_here(node);
    bft_slice open = {NULL, 0};
    unsigned from, to;
    if (at == NULL) {
        lows_pass(l, leaves_unseen(parent, node), bound, bound_i);
        return;
    }
    meeting(at, low, high, &from, &to);
    for (unsigned i = from; i < to && l->next < l->n; i++) {
        const struct bfti_inner *left = i ? at : bound;
        unsigned left_i = i ? i : bound_i;
        if (at->height > 1)
            lows_below(l, at, bfti_inner_child(at, i), i == from ? low : open,
                       i + 1 == to ? high : open, left, left_i);
        else
            lows_pass(l, 1, left, left_i);
    }
}

void bfti_inner_lows(const struct bfti_inner *root, bft_slice low,
                     bft_slice high, const size_t *nth, size_t n,
                     void (*each)(void *arg, bft_slice key), void *arg)
{
    struct lows l = {nth, n, 0, 0, each, arg};
    lows_below(&l, NULL, root, low, high, NULL, 0);
}

/* --- one node ------------------------------------------------------------ */

uint64_t bfti_inner_page(const struct bfti_inner *node, unsigned i)
{
    assert(node->height == 1);
    assert(i < node->count); /* what bfti_inner_here() gave */
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
