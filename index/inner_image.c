/*
 * Inner nodes: their image on disk.  The one parser checks every length before
 * it follows it; keys and children are what the node holds, without its prefix
 * and heads, so the layout in memory may change and the format stays.
 */
#include "inner_internal.h"

/* Format 1: a header, then for each child an entry and its key. */
struct image_header {
    le16 count;    /*  0 */
    le16 height;   /*  2 */
    le32 reserved; /*  4  0 */
};
_Static_assert(sizeof(struct image_header) == 8, "format 1");
_Static_assert(_Alignof(struct image_header) == 1, "readable at any offset");

struct image_child {
    le64 word;    /*  0  page id, or place of the child's extent */
    le16 key_len; /*  8  0 for the first */
};
_Static_assert(sizeof(struct image_child) == BFTI_INNER_STORED_BYTES,
               "format 1");
_Static_assert(_Alignof(struct image_child) == 1, "readable at any offset");

size_t bfti_inner_encoded_size(const bft_slice *keys, size_t n)
{
    size_t size = sizeof(struct image_header) + n * sizeof(struct image_child);
    for (size_t i = 1; i < n; i++)
        size += keys[i].len;
    return size;
}

size_t bfti_inner_encode(void *buf, unsigned height, const uint64_t *words,
                         const bft_slice *keys, size_t n)
{
    uint8_t *at = buf;
    struct image_header header = {le16_of((uint16_t)n),
                                  le16_of((uint16_t)height), le32_of(0)};
    assert(n >= 1);
    assert(n <= BFTI_INNER_CHILDREN_MAX);
    assert(height >= 1);
    assert(height <= BFTI_INNER_HEIGHT_MAX);

    memcpy(at, &header, sizeof header);
    at += sizeof header;
    for (size_t i = 0; i < n; i++) {
        size_t key_len = i == 0 ? 0 : keys[i].len;
        struct image_child child = {le64_of(words[i]),
                                    le16_of((uint16_t)key_len)};
        assert(key_len <= BFTI_KEY_MAX);
        memcpy(at, &child, sizeof child);
        at += sizeof child;
        if (key_len > 0)
            memcpy(at, keys[i].data, key_len);
        at += key_len;
    }
    return (size_t)(at - (uint8_t *)buf);
}

/* --- decode -------------------------------------------------------------- */

static bft_status corrupt(const char *what)
{
    return bfti_fail(BFT_CORRUPT, "image of an inner node: %s", what);
}

static bft_status decode_header(const void *image, size_t len, unsigned *count,
                                unsigned *height)
{
    struct image_header header;
    *count = 0;
    *height = 0;
    if (len < sizeof header)
        return corrupt("shorter than its header");
    memcpy(&header, image, sizeof header);
    *count = le16_get(header.count);
    *height = le16_get(header.height);
    if (*count < 1 || *count > BFTI_INNER_CHILDREN_MAX)
        return corrupt("a number of children that no node has");
    if (*height < 1 || *height > BFTI_INNER_HEIGHT_MAX)
        return corrupt("a height that no tree has");
    if (le32_get(header.reserved) != 0)
        return corrupt("a reserved field is set");
    return BFT_OK;
}

/* Add the child at AT, of which LEFT bytes are left; *USED is its length. */
static bft_status decode_child(struct bfti_inner_list *list, const uint8_t *at,
                               size_t left, size_t *used)
{
    struct image_child child;
    *used = 0;
    if (left < sizeof child)
        return corrupt("it ends in a child");
    memcpy(&child, at, sizeof child);

    size_t i = list->count;
    bft_slice bytes = {at + sizeof child, le16_get(child.key_len)};
    struct bfti_separator key = bfti_separator_of(bytes);
    if (bytes.len > left - sizeof child)
        return corrupt("it ends in a key");
    if ((i == 0) != (bytes.len == 0))
        return corrupt(i == 0 ? "a key before the first child"
                              : "no key between two children");
    if (bytes.len > BFTI_KEY_MAX)
        return corrupt("a key over the limit");
    if (i > 1 && bfti_separator_compare(&list->at[i - 1].key, &key) >= 0)
        return corrupt("keys out of order");
    bfti_inner_list_insert(list, i, key, le64_get(child.word));
    *used = sizeof child + bytes.len;
    return BFT_OK;
}

/* All children into the list; the words are still the image's. */
static bft_status decode_list(struct bfti_inner_list *list, const void *image,
                              size_t len, unsigned *height)
{
    unsigned count = 0;
    bft_status status = decode_header(image, len, &count, height);
    if (status != BFT_OK)
        return status;
    status = bfti_inner_list_reserve(list, count);
    if (status != BFT_OK)
        return status;

    const uint8_t *bytes = image;
    size_t at = sizeof(struct image_header);
    for (unsigned i = 0; i < count; i++) {
        size_t used = 0;
        status = decode_child(list, bytes + at, len - at, &used);
        if (status != BFT_OK)
            return status;
        at += used;
    }
    if (at != len)
        return corrupt("bytes behind the last child");
    bfti_inner_list_measure(list);
    if (bfti_inner_list_bytes(list, 0, count) > BFTI_INNER_BYTES_MAX)
        return corrupt("more key bytes than a node can hold");
    return BFT_OK;
}

/* Does NODE belong below the list's child I: its height, and its own keys
 * within the child's range? */
static bool belongs(const struct bfti_inner_list *list, size_t i,
                    const struct bfti_inner *node, unsigned height)
{
    if (node->height != height)
        return false;
    node = bfti_inner_here(node);
    if (node == NULL || node->count == 1) /* who reads it looks again */
        return true;
    struct bfti_separator first = bfti_separator_at(node, 1);
    struct bfti_separator last = bfti_separator_at(node, node->count - 1u);
    if (i > 0 && bfti_separator_compare(&list->at[i].key, &first) >= 0)
        return false;
    return i + 1 == list->count ||
           bfti_separator_compare(&last, &list->at[i + 1].key) < 0;
}

static void destroy_children(const struct bfti_inner_list *list, size_t n)
{
    while (n > 0)
        bfti_inner_destroy(list->env, bfti_inner_of_word(list->at[--n].word));
}

/* Turn the places in the list into nodes of HEIGHT; all of them, or none. */
static bft_status decode_children(struct bfti_inner_list *list, unsigned height,
                                  bft_status (*child)(void *arg, uint64_t place,
                                                      unsigned height,
                                                      struct bfti_inner **node),
                                  void *arg)
{
    for (size_t i = 0; i < list->count; i++) {
        struct bfti_inner *node = NULL;
        bft_status status = child(arg, list->at[i].word, height, &node);
        if (status != BFT_OK) {
            destroy_children(list, i);
            return status;
        }
        bool fine = belongs(list, i, node, height);
        list->at[i].word = bfti_inner_word_of(node);
        if (!fine) {
            destroy_children(list, i + 1);
            return corrupt("a child of another height or range");
        }
    }
    return BFT_OK;
}

bft_status bfti_inner_decode(const struct bfti_env *env, const void *image,
                             size_t len,
                             bft_status (*child)(void *arg, uint64_t place,
                                                 unsigned height,
                                                 struct bfti_inner **node),
                             void *arg, struct bfti_inner **out)
{
    struct bfti_inner_list list = {env, NULL, 0, 0};
    unsigned height = 0;

    *out = NULL;
    bft_status status = decode_list(&list, image, len, &height);
    if (status != BFT_OK)
        goto free_list;
    if (height > 1) {
        status = decode_children(&list, height - 1, child, arg);
        if (status != BFT_OK)
            goto free_list;
    }
    status = bfti_inner_list_build(&list, 0, list.count, height, out);
    if (status != BFT_OK && height > 1)
        destroy_children(&list, list.count);

free_list:
    bfti_inner_list_free(&list);
    return status;
}

bft_status bfti_inner_decode_content(const struct bfti_env *env,
                                     const void *image, size_t len,
                                     struct bfti_inner **out)
{
    struct bfti_inner_list list = {env, NULL, 0, 0};
    unsigned height = 0;
    *out = NULL;
    bft_status status = decode_list(&list, image, len, &height);
    if (status == BFT_OK && height != 1)
        status = corrupt("a height that its parent does not expect");
    if (status == BFT_OK)
        status = bfti_inner_list_block(&list, 0, list.count, 1, out);
    bfti_inner_list_free(&list);
    return status;
}
