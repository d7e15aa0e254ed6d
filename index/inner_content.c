/*
 * Inner nodes: content that comes and goes.  A node of height 1 names its
 * content by one word, the block's address with marks in its lowest bits.  Only
 * that word changes; the content itself is as immutable as a node, so that who
 * has it reads on while it leaves.
 *
 *     none --_fill--> content --_leave--> leaving --_empty--> none
 *                        ^  <--_keep, _here--+
 *
 * _left sets a mark for good: from then on nothing comes and nothing goes.
 */
#include "inner_internal.h"

static struct bfti_inner *content_of(uint64_t word)
{
    return bfti_inner_of_word(word & ~(uint64_t)BFTI_INNER_MARKS);
}

/* Words are changed through nodes that are read-only only to their readers. */
static struct bfti_inner *writable(const struct bfti_inner *node)
{
    return bfti_inner_of_word(bfti_inner_word_of(node));
}

const struct bfti_inner *bfti_inner_here(const struct bfti_inner *node)
{
    uint64_t word;
    if (node->count)
        return node;
    /* [content] acquire: pairs with bfti_inner_fill(). */
    word = atomic_load_explicit(&node->content, memory_order_acquire);
    /* Once for each time that somebody asks.  acquire: when it fails WORD is
     * another one, perhaps of content that has come since. */
    if (word >= BFTI_INNER_MARKS && !(word & BFTI_INNER_USED))
        (void)atomic_compare_exchange_strong_explicit(
            &writable(node)->content, &word, word | BFTI_INNER_USED,
            memory_order_acquire, memory_order_acquire);
    return content_of(word);
}

const struct bfti_inner *bfti_inner_peek(const struct bfti_inner *node)
{
    /* [content] as above. */
    return content_of(
        atomic_load_explicit(&node->content, memory_order_acquire));
}

bool bfti_inner_stays(const struct bfti_inner *node)
{
    /* [content] seq_cst: under a leaf's latch, pairs with bfti_inner_leave(). */
    uint64_t word = atomic_load(&node->content);
    return node->count || (content_of(word) && !(word & BFTI_INNER_LEAVING));
}

bool bfti_inner_fill(struct bfti_inner *node, struct bfti_inner *content)
{
    uint64_t none = 0;
    /* [content] release: who sees the word sees what was built behind it. */
    return atomic_compare_exchange_strong(
        &node->content, &none, bfti_inner_word_of(content) | BFTI_INNER_USED);
}

void bfti_inner_keep(struct bfti_inner *node)
{
    uint64_t word = atomic_load(&node->content);
    /* Ends: each round somebody else has changed a mark. */
    while ((word & BFTI_INNER_LEAVING) &&
           !atomic_compare_exchange_weak(&node->content, &word,
                                         word & ~(uint64_t)BFTI_INNER_LEAVING))
        ;
}

bool bfti_inner_leave(struct bfti_inner *node)
{
    uint64_t word = atomic_load(&node->content);
    if (content_of(word) == NULL || (word & BFTI_INNER_LEFT))
        return false;
    if (!(word & BFTI_INNER_USED)) /* [content] seq_cst */
        return atomic_compare_exchange_strong(&node->content, &word,
                                              word | BFTI_INNER_LEAVING);
    (void)atomic_compare_exchange_strong(&node->content, &word,
                                         word & ~(uint64_t)BFTI_INNER_USED);
    return false;
}

struct bfti_inner *bfti_inner_empty(struct bfti_inner *node)
{
    uint64_t word = atomic_load(&node->content);
    if ((word & BFTI_INNER_MARKS) == BFTI_INNER_LEAVING &&
        atomic_compare_exchange_strong(&node->content, &word, 0))
        return content_of(word);
    bfti_inner_keep(node);
    return NULL;
}

struct bfti_inner *bfti_inner_left(struct bfti_inner *node)
{
    return content_of(atomic_fetch_or(&node->content, BFTI_INNER_LEFT));
}

bft_status bfti_inner_wrap(const struct bfti_env *env,
                           struct bfti_inner *content, struct bfti_inner **out)
{
    size_t bytes = sizeof(struct bfti_inner) + sizeof(struct bfti_deferred);
    struct bfti_inner *node = bfti_alloc(env, bytes);
    *out = NULL;
    if (node == NULL)
        return bfti_fail(BFT_NO_MEMORY, "inner node: no memory for %zu bytes",
                         bytes);
    memset(node, 0, bytes);
    node->bytes = (uint32_t)bytes;
    node->height = 1;
    atomic_init(&node->content,
                content ? bfti_inner_word_of(content) | BFTI_INNER_USED : 0);
    *out = node;
    return BFT_OK;
}

bft_status bfti_inner_stub(const struct bfti_env *env, uint64_t place,
                           struct bfti_inner **out)
{
    bft_status status = bfti_inner_wrap(env, NULL, out);
    if (status == BFT_OK) {
        (*out)->image_place = place;
        atomic_init(&(*out)->place, place);
    }
    return status;
}

void bfti_inner_free(const struct bfti_env *env, struct bfti_inner *node)
{
    struct bfti_inner *content = content_of(atomic_load(&node->content));
    bfti_free(env, content);
    bfti_free(env, node);
}

size_t bfti_inner_node_bytes(const struct bfti_inner *node)
{
    const struct bfti_inner *content = content_of(atomic_load(&node->content));
    return node->bytes + (content ? content->bytes : 0);
}

bool bfti_inner_fits(const struct bfti_inner *content, bft_slice low,
                     bft_slice high)
{
    struct bfti_separator from = bfti_separator_of(low);
    struct bfti_separator to = bfti_separator_of(high);
    if (content->count == 1)
        return true;
    struct bfti_separator first = bfti_separator_at(content, 1);
    struct bfti_separator last =
        bfti_separator_at(content, content->count - 1u);
    return (low.len == 0 || bfti_separator_compare(&from, &first) < 0) &&
           (high.len == 0 || bfti_separator_compare(&last, &to) < 0);
}
