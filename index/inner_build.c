/*
 * Inner nodes: making one from a list of children.  What a change or an image
 * says goes into one list in order; the list is then cut into nodes that fit.
 */
#include "inner_internal.h"

/* So many children fit into a node whatever their keys. */
enum { ALWAYS_FIT = 2 * BFTI_INNER_FANOUT_MIN };

/* --- separators ---------------------------------------------------------- */

struct bfti_separator bfti_separator_of(bft_slice key)
{
    struct bfti_separator s = {NULL, key.data, 0, (uint16_t)key.len};
    return s;
}

struct bfti_separator bfti_separator_at(const struct bfti_inner *node,
                                        unsigned i)
{
    struct bfti_separator s = {NULL, NULL, 0, 0};
    if (i > 0) {
        bft_slice suffix = bfti_inner_suffix(node, i);
        s.prefix = bfti_inner_prefix(node);
        s.prefix_len = (uint16_t)bfti_inner_prefix_len(node);
        s.suffix = suffix.data;
        s.suffix_len = (uint16_t)suffix.len;
    }
    return s;
}

static inline uint8_t byte_at(const struct bfti_separator *s, size_t i)
{
    return i < s->prefix_len ? s->prefix[i] : s->suffix[i - s->prefix_len];
}

static size_t common_len(const struct bfti_separator *a,
                         const struct bfti_separator *b)
{
    size_t a_len = bfti_separator_len(a), b_len = bfti_separator_len(b);
    size_t len = a_len < b_len ? a_len : b_len;
    /* Of one node: most pairs are. */
    size_t i = a->prefix == b->prefix ? a->prefix_len : 0;
    while (i < len && byte_at(a, i) == byte_at(b, i))
        i++;
    return i;
}

int bfti_separator_compare(const struct bfti_separator *a,
                           const struct bfti_separator *b)
{
    size_t a_len = bfti_separator_len(a), b_len = bfti_separator_len(b);
    size_t common = common_len(a, b);
    if (common < a_len && common < b_len)
        return byte_at(a, common) < byte_at(b, common) ? -1 : 1;
    return a_len < b_len ? -1 : a_len > b_len;
}

/* Copy S from byte FROM on; returns how many bytes that was. */
static size_t copy_from(const struct bfti_separator *s, size_t from,
                        uint8_t *buf)
{
    size_t n = 0;
    if (from < s->prefix_len) {
        n = s->prefix_len - from;
        memcpy(buf, s->prefix + from, n);
        from = s->prefix_len;
    }
    size_t rest = bfti_separator_len(s) - from;
    if (rest > 0)
        memcpy(buf + n, s->suffix + (from - s->prefix_len), rest);
    return n + rest;
}

/* --- lists of children --------------------------------------------------- */

bft_status bfti_inner_list_reserve(struct bfti_inner_list *list, size_t more)
{
    size_t want = list->count + more;
    if (want <= list->cap)
        return BFT_OK;
    if (want < 2 * list->cap)
        want = 2 * list->cap;
    struct bfti_inner_entry *at =
        bfti_realloc(list->env, list->at, want * sizeof *at);
    if (at == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "inner node: no memory for a list of %zu children",
                         want);
    list->at = at;
    list->cap = want;
    return BFT_OK;
}

void bfti_inner_list_free(struct bfti_inner_list *list)
{
    bfti_free(list->env, list->at);
    list->at = NULL;
    list->count = 0;
    list->cap = 0;
}

static void open_gap(struct bfti_inner_list *list, size_t at, size_t n)
{
    assert(at <= list->count);
    assert(list->count + n <= list->cap);
    memmove(list->at + at + n, list->at + at,
            (list->count - at) * sizeof *list->at);
    list->count += n;
}

void bfti_inner_list_insert(struct bfti_inner_list *list, size_t at,
                            struct bfti_separator key, uint64_t word)
{
    open_gap(list, at, 1);
    list->at[at].key = key;
    list->at[at].total = 0;
    list->at[at].word = word;
}

void bfti_inner_list_insert_node(struct bfti_inner_list *list, size_t at,
                                 struct bfti_separator key,
                                 const struct bfti_inner *node)
{
    const uint64_t *words = bfti_inner_words(node);
    open_gap(list, at, node->count);
    for (unsigned i = 0; i < node->count; i++) {
        struct bfti_inner_entry *entry = &list->at[at + i];
        entry->key = i == 0 ? key : bfti_separator_at(node, i);
        entry->total = 0;
        entry->word = words[i];
    }
}

void bfti_inner_list_erase(struct bfti_inner_list *list, size_t at, size_t n)
{
    assert(at + n <= list->count);
    memmove(list->at + at, list->at + at + n,
            (list->count - at - n) * sizeof *list->at);
    list->count -= n;
}

/* --- nodes that fit ------------------------------------------------------ */

void bfti_inner_list_measure(struct bfti_inner_list *list)
{
    size_t total = 0;
    for (size_t i = 0; i < list->count; i++) {
        total += bfti_separator_len(&list->at[i].key);
        list->at[i].total = (uint32_t)total;
    }
}

/* The keys are in order, so what the first and the last have in common all
 * have. */
static size_t common_prefix(const struct bfti_inner_list *list, size_t from,
                            size_t to)
{
    if (to - from < 2)
        return 0;
    return common_len(&list->at[from + 1].key, &list->at[to - 1].key);
}

size_t bfti_inner_list_bytes(const struct bfti_inner_list *list, size_t from,
                             size_t to)
{
    size_t count = to - from;
    size_t prefix_len = common_prefix(list, from, to);
    size_t key_bytes = list->at[to - 1].total - list->at[from].total;
    size_t bytes = bfti_inner_suffixes_at(prefix_len, count) + key_bytes -
                   (count - 1) * prefix_len;
    return ((bytes + 7) & ~(size_t)7) + sizeof(struct bfti_deferred);
}

/*
 * May one node hold the children [FROM, TO)?  A part of what fits does, too:
 * a key less saves more bytes than a longer prefix and alignment can cost.
 */
static bool fits(const struct bfti_inner_list *list, size_t from, size_t to)
{
    return to - from <= ALWAYS_FIT ||
           bfti_inner_list_bytes(list, from, to) <= BFTI_INNER_BYTES;
}

/* The end of the longest node that begins at FROM. */
static size_t longest(const struct bfti_inner_list *list, size_t from)
{
    size_t low = from + 1, high = list->count;
    while (low < high) {
        size_t middle = high - (high - low) / 2;
        if (fits(list, from, middle))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* The start of the longest node that ends the list, not before FROM. */
static size_t longest_last(const struct bfti_inner_list *list, size_t from)
{
    size_t low = from, high = list->count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (fits(list, middle, list->count))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The cut in [LOW, HIGH] where the left part begins to outweigh the right. */
static size_t middle_by_bytes(const struct bfti_inner_list *list, size_t from,
                              size_t low, size_t high)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bfti_inner_list_bytes(list, from, middle) >=
            bfti_inner_list_bytes(list, middle, list->count))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

size_t bfti_inner_list_cut(const struct bfti_inner_list *list, size_t from,
                           bool append)
{
    size_t end = list->count;
    size_t full = longest(list, from);
    if (append || full == end || !fits(list, full, end))
        return full;

    /* Two parts.  Such a cut exists: both the end of the full left part and
     * the cut that leaves the least fan-out on the right fit, whichever comes
     * first, and the left part has twice the least. */
    size_t low = longest_last(list, from);
    size_t high = full;
    if (low < from + BFTI_INNER_FANOUT_MIN)
        low = from + BFTI_INNER_FANOUT_MIN;
    if (high > end - BFTI_INNER_FANOUT_MIN)
        high = end - BFTI_INNER_FANOUT_MIN;
    assert(low <= high);
    return middle_by_bytes(list, from, low, high);
}

/* Write the keys of the children [FROM, TO) into NODE's block. */
static void write_keys(const struct bfti_inner_list *list, size_t from,
                       size_t to, size_t prefix_len, uint8_t *block)
{
    size_t count = to - from;
    uint16_t len = (uint16_t)prefix_len;
    memcpy(block + BFTI_INNER_PREFIX_AT, &len, sizeof len);
    if (count < 2)
        return;

    uint32_t *heads =
        (uint32_t *)(void *)(block + bfti_inner_heads_at(prefix_len));
    uint16_t *ends =
        (uint16_t *)(void *)(block + bfti_inner_ends_at(prefix_len, count));
    uint8_t *suffixes = block + bfti_inner_suffixes_at(prefix_len, count);
    size_t end = 0;
    for (size_t i = 1; i < count; i++) {
        const struct bfti_separator *key = &list->at[from + i].key;
        size_t n = copy_from(key, prefix_len, suffixes + end);
        heads[i - 1] = bfti_inner_head(suffixes + end, n);
        end += n;
        ends[i - 1] = (uint16_t)end;
    }
    for (size_t i = 0; i < prefix_len; i++)
        block[BFTI_INNER_PREFIX_AT + 2 + i] =
            byte_at(&list->at[from + 1].key, i);
}

#if defined(BFT_CHECK) && BFT_CHECK >= 2
static void check_order(const struct bfti_inner_list *list, size_t from,
                        size_t to)
{
    for (size_t i = from + 2; i < to; i++)
        assert(bfti_separator_compare(&list->at[i - 1].key, &list->at[i].key) <
               0);
}
#else
#define check_order(list, from, to) ((void)0)
#endif

bft_status bfti_inner_list_block(const struct bfti_inner_list *list,
                                 size_t from, size_t to, unsigned height,
                                 struct bfti_inner **out)
{
    size_t count = to - from;
    size_t prefix_len = common_prefix(list, from, to);
    size_t bytes = bfti_inner_list_bytes(list, from, to);
    assert(count > 0);
    assert(height > 0);
    assert(bytes <= BFTI_INNER_BYTES_MAX);
    check_order(list, from, to);

    *out = NULL;
    struct bfti_inner *node = bfti_alloc(list->env, bytes);
    if (node == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "inner node: no memory for %zu bytes at height %u",
                         bytes, height);
    memset(node, 0, sizeof *node); /* in no image */
    atomic_init(&node->place, 0);
    atomic_init(&node->content, 0);
    node->image_place = 0;
    node->bytes = (uint32_t)bytes;
    node->count = (uint16_t)count;
    node->height = (uint16_t)height;

    uint8_t *block = (uint8_t *)node;
    write_keys(list, from, to, prefix_len, block);
    uint64_t *words =
        (uint64_t *)(void *)(block + bfti_inner_words_at(prefix_len, count));
    for (size_t i = 0; i < count; i++)
        words[i] = list->at[from + i].word;
    *out = node;
    return BFT_OK;
}

bft_status bfti_inner_list_build(const struct bfti_inner_list *list,
                                 size_t from, size_t to, unsigned height,
                                 struct bfti_inner **out)
{
    struct bfti_inner *content;
    bft_status status = bfti_inner_list_block(list, from, to, height, out);
    if (status != BFT_OK || height > 1)
        return status;
    content = *out;
    status = bfti_inner_wrap(list->env, content, out);
    if (status != BFT_OK)
        bfti_free(list->env, content);
    return status;
}

/* --- from nothing ----------------------------------------------------------- */

bft_status bfti_inner_pack(
    const struct bfti_env *env, unsigned height, const uint64_t *words,
    const bft_slice *keys, size_t n, bool last,
    bft_status (*made)(void *arg, struct bfti_inner *node, size_t first),
    void *arg, size_t *used)
{
    struct bfti_inner_list list = {env, NULL, 0, 0};
    bft_status status = bfti_inner_list_reserve(&list, n);
    *used = 0;
    if (status != BFT_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        bfti_inner_list_insert(&list, i, bfti_separator_of(keys[i]), words[i]);
    bfti_inner_list_measure(&list);
    while (*used < n) {
        size_t to = bfti_inner_list_cut(&list, *used, !last);
        struct bfti_inner *node;
        if (to == n && !last)
            break;
        status = bfti_inner_list_build(&list, *used, to, height, &node);
        if (status != BFT_OK)
            break;
        status = made(arg, node, *used);
        if (status != BFT_OK) {
            bfti_inner_free(env, node);
            break;
        }
        *used = to;
    }
    bfti_inner_list_free(&list);
    return status;
}

uint64_t bfti_inner_word(const struct bfti_inner *node)
{
    return bfti_inner_word_of(node);
}

struct bfti_inner *bfti_inner_node(uint64_t word)
{
    return bfti_inner_of_word(word);
}

struct bfti_deferred *bfti_inner_link(struct bfti_inner *node)
{
    uint8_t *end = (uint8_t *)node + node->bytes;
    return (struct bfti_deferred *)(void *)(end - sizeof(struct bfti_deferred));
}
