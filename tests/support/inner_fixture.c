#include "inner_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

/* --- random numbers, which BFT_SEED repeats ----------------------------- */

static uint64_t seed;

void inner_random_start(void)
{
    const char *text = getenv("BFT_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : 20240607;
    printf("BFT_SEED=%llu\n", (unsigned long long)seed);
}

void inner_random(uint64_t salt)
{
    random_seed(seed + salt);
}

/* --- surroundings that count blocks and refuse the n-th ----------------- */

struct inner_memory inner_memory;

static bool refused(void)
{
    inner_memory.allocations++;
    return inner_memory.refuse_from != 0 &&
           inner_memory.allocations >= inner_memory.refuse_from;
}

static void *counted_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    inner_memory.bytes_asked = bytes;
    if (refused())
        return NULL;
    inner_memory.blocks++;
    return malloc(bytes);
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    if (refused())
        return NULL;
    if (old == NULL)
        inner_memory.blocks++;
    return realloc(old, bytes);
}

static void counted_free(void *ctx, void *block)
{
    (void)ctx;
    if (block != NULL)
        inner_memory.blocks--;
    free(block);
}

const struct bfti_env inner_env = {
    .alloc = counted_alloc,
    .realloc = counted_realloc,
    .free = counted_free,
};

void inner_refuse_from(size_t n)
{
    inner_memory.allocations = 0;
    inner_memory.refuse_from = n;
}

/* --- the model ---------------------------------------------------------- */

bft_slice inner_slice(const struct key *key)
{
    bft_slice slice = {key->byte, key->len};
    return slice;
}

static int compare(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.data, b.data, len) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* The first leaf from 1 on whose separator is not below KEY; *FOUND: equal. */
static size_t model_search(const struct model *m, bft_slice key, bool *found)
{
    size_t low = 1, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(inner_slice(m->separator[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found =
        low < m->count && compare(inner_slice(m->separator[low]), key) == 0;
    return low;
}

void inner_model_insert(struct model *m, const struct key *key, uint64_t id)
{
    bool found;
    size_t i = model_search(m, inner_slice(key), &found);
    if (!found) {
        assert_true(m->count < MODEL_MAX);
        memmove(m->separator + i + 1, m->separator + i,
                (m->count - i) * sizeof m->separator[0]);
        memmove(m->id + i + 1, m->id + i, (m->count - i) * sizeof m->id[0]);
        m->separator[i] = malloc(sizeof *key);
        *m->separator[i] = *key;
        m->count++;
    }
    m->id[i] = id;
}

void inner_model_remove(struct model *m, size_t i)
{
    free(m->separator[i]);
    m->count--;
    memmove(m->separator + i, m->separator + i + 1,
            (m->count - i) * sizeof m->separator[0]);
    memmove(m->id + i, m->id + i + 1, (m->count - i) * sizeof m->id[0]);
}

struct model *inner_model_create(void)
{
    struct model *m = calloc(1, sizeof *m);
    m->count = 1;
    m->id[0] = 1;
    m->next_id = 2;
    assert_int_equal(bfti_inner_create(&inner_env, 1, &m->root), BFT_OK);
    return m;
}

void inner_model_destroy(struct model *m)
{
    bfti_inner_destroy(&inner_env, m->root);
    for (size_t i = 1; i < m->count; i++)
        free(m->separator[i]);
    free(m);
    assert_int_equal(inner_memory.blocks, 0);
}

/* --- checks ------------------------------------------------------------- */

/* The leaves below NODE are the model's from *LEAF on, and its keys their
 * separators. */
static void check_node(const struct model *m, const struct bfti_inner *node,
                       unsigned height, size_t *leaf, size_t *bytes)
{
    uint8_t buf[BFTI_KEY_MAX];
    assert_int_equal(node->height, height);
    *bytes += bfti_inner_node_bytes(node);
    node = bfti_inner_here(node);
    assert_non_null(node);
    assert_int_equal(node->height, height);
    assert_true(node->count >= 1);
    assert_true(node->bytes <= BFTI_INNER_BYTES_MAX);
    assert_true(node->bytes <= BFTI_INNER_BYTES || node->count <= 16);
    for (unsigned i = 0; i < node->count; i++) {
        if (i > 0) {
            bft_slice key = {buf, bfti_inner_key(node, i, buf)};
            assert_int_equal(compare(key, inner_slice(m->separator[*leaf])), 0);
        }
        if (height > 1)
            check_node(m, bfti_inner_child(node, i), height - 1, leaf, bytes);
        else
            assert_int_equal(bfti_inner_page(node, i), m->id[(*leaf)++]);
    }
}

void inner_check_tree(const struct model *m)
{
    size_t leaf = 0, bytes = 0;
    check_node(m, m->root, m->root->height, &leaf, &bytes);
    assert_int_equal(leaf, m->count);
    assert_int_equal(bfti_inner_tree_bytes(m->root), bytes);
    assert_true(m->root->height == 1 || m->root->count > 1);
}

static void check_range(const struct model *m, bft_slice key, size_t i)
{
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
    size_t low_len = 77, high_len = 77;
    assert_int_equal(
        bfti_inner_range(m->root, key, low, &low_len, high, &high_len),
        m->id[i]);
    bft_slice low_key = {low, low_len}, high_key = {high, high_len};
    if (i == 0)
        assert_int_equal(low_len, 0);
    else
        assert_int_equal(compare(low_key, inner_slice(m->separator[i])), 0);
    if (i + 1 == m->count)
        assert_int_equal(high_len, 0);
    else
        assert_int_equal(compare(high_key, inner_slice(m->separator[i + 1])),
                         0);
    assert_int_equal(bfti_inner_range(m->root, key, NULL, NULL, NULL, NULL),
                     m->id[i]);
}

static void check_searches(const struct model *m, bft_slice key)
{
    bool found;
    size_t i = model_search(m, key, &found);
    size_t at = found ? i : i - 1; /* the leaf that holds KEY */
    uint64_t ids[40];

    assert_int_equal(bfti_inner_find(m->root, key), m->id[at]);
    assert_int_equal(bfti_inner_find_before(m->root, key),
                     m->id[key.len == 0 ? m->count - 1 : i - 1]);
    check_range(m, key, at);
    size_t max = random_below(sizeof ids / sizeof ids[0] + 1);
    size_t want = m->count - 1 - at < max ? m->count - 1 - at : max;
    assert_int_equal(bfti_inner_following(m->root, key, false, ids, max), want);
    for (size_t j = 0; j < want; j++)
        assert_int_equal(ids[j], m->id[at + 1 + j]);
    at = key.len == 0 ? m->count - 1 : i - 1; /* with the keys just below KEY */
    want = at < max ? at : max;
    assert_int_equal(bfti_inner_following(m->root, key, true, ids, max), want);
    for (size_t j = 0; j < want; j++)
        assert_int_equal(ids[j], m->id[at - 1 - j]);
}

/* --- changes ------------------------------------------------------------ */

void inner_accept(struct model *m, struct bfti_inner_change *change)
{
    m->root = change->root;
    for (unsigned i = 0; i < change->replaced_count; i++)
        bfti_inner_free(&inner_env, change->replaced[i]);
}

/* Of height 1 a node is two blocks. */
static size_t blocks_made(const struct bfti_inner_change *change)
{
    size_t blocks = change->made_count;
    for (unsigned i = 0; i < change->made_count; i++)
        blocks += change->made[i]->height == 1;
    return blocks;
}

bool inner_insert(struct model *m, const struct key *keys, size_t n)
{
    struct bfti_inner_change change;
    bft_slice slices[8];
    uint64_t ids[8];
    size_t blocks_before = inner_memory.blocks;
    for (size_t i = 0; i < n; i++) {
        slices[i] = inner_slice(&keys[i]);
        ids[i] = m->next_id + i;
    }
    bft_status status =
        bfti_inner_insert(&inner_env, m->root, slices, ids, n, &change);
    if (status == BFT_TOO_BIG) {
        assert_true(n > 1);
        assert_null(change.root);
        assert_int_equal(inner_memory.blocks, blocks_before);
        return false;
    }
    assert_int_equal(status, BFT_OK);
    assert_int_equal(inner_memory.blocks, blocks_before + blocks_made(&change));
    inner_accept(m, &change);
    for (size_t i = 0; i < n; i++)
        inner_model_insert(m, &keys[i], m->next_id++);
    return true;
}

void inner_insert_each(struct model *m, const struct key *keys, size_t n)
{
    if (inner_insert(m, keys, n))
        return;
    for (size_t i = 0; i < n; i++)
        assert_true(inner_insert(m, &keys[i], 1));
}

void inner_remove_leaf(struct model *m, size_t i)
{
    struct bfti_inner_change change;
    size_t blocks_before = inner_memory.blocks;
    assert_int_equal(bfti_inner_remove(&inner_env, m->root,
                                       inner_slice(m->separator[i]), m->id[i],
                                       &change),
                     BFT_OK);
    assert_int_equal(inner_memory.blocks, blocks_before + blocks_made(&change));
    inner_accept(m, &change);
    inner_model_remove(m, i);
}

/* --- keys of many shapes ------------------------------------------------ */

void inner_key_short(struct key *key)
{
    key->len = (uint16_t)(1 + random_below(3));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)random_next();
}

/* Of two bytes, one of them zero: many are prefixes of others, and heads of
 * keys that differ in trailing zeros are equal. */
void inner_key_zeros(struct key *key)
{
    key->len = (uint16_t)(1 + random_below(14));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)(random_next() & 1);
}

void inner_key_ones(struct key *key)
{
    key->len = (uint16_t)(1 + random_below(12));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = random_below(8) == 0 ? (uint8_t)random_next() : 0xff;
}

void inner_key_longest(struct key *key)
{
    key->len = BFTI_KEY_MAX;
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)random_next();
}

/* Long keys that differ at their ends, in three families. */
void inner_key_shared(struct key *key)
{
    size_t family = random_below(3);
    size_t shared = family == 0 ? 500 : family == 1 ? 1000 : 20;
    memset(key->byte, 'a' + (int)family, shared);
    key->len = (uint16_t)(shared + 1 + random_below(8));
    for (size_t i = shared; i < key->len; i++)
        key->byte[i] = (uint8_t)('0' + random_below(10));
}

void inner_key_number(struct key *key)
{
    uint64_t number = random_below(1u << 20);
    key->len = 8;
    for (size_t i = 0; i < 8; i++)
        key->byte[i] = (uint8_t)(number >> (56 - 8 * i));
}

make_key *const inner_key_shapes[INNER_SHAPES] = {
    inner_key_short,   inner_key_zeros,  inner_key_ones,
    inner_key_longest, inner_key_shared, inner_key_number};

void inner_key_mixed(struct key *key)
{
    inner_key_shapes[random_below(INNER_SHAPES)](key);
}

static int compare_keys(const void *a, const void *b)
{
    return compare(inner_slice(a), inner_slice(b));
}

size_t inner_make_keys(make_key *make, struct key *keys, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < max; i++)
        make(&keys[i]);
    qsort(keys, max, sizeof *keys, compare_keys);
    for (size_t i = 0; i < max; i++)
        if (n == 0 || compare_keys(&keys[n - 1], &keys[i]) != 0)
            keys[n++] = keys[i];
    return n;
}
void inner_key_make(struct key *key, uint64_t number, size_t len)
{
    memset(key->byte, 'k', sizeof key->byte);
    key->len = (uint16_t)len;
    for (size_t i = 0; i < 8; i++)
        key->byte[len - 8 + i] = (uint8_t)(number >> (56 - 8 * i));
}

void inner_key_front(struct key *key, uint64_t number, size_t len)
{
    inner_key_make(key, number, 8);
    key->len = (uint16_t)len;
}

/* --- against the model -------------------------------------------------- */

void inner_search_around(const struct model *m, make_key *make)
{
    struct key key;
    bft_slice empty = {NULL, 0};
    make(&key);
    check_searches(m, inner_slice(&key));
    check_searches(m, empty);
    if (m->count == 1)
        return;
    key = *m->separator[1 + random_below(m->count - 1)];
    check_searches(m, inner_slice(&key));
    if (key.len < BFTI_KEY_MAX) {
        key.byte[key.len++] = 0;
        check_searches(m, inner_slice(&key));
        key.len--;
    }
    key.len--;
    check_searches(m, inner_slice(&key));
}

void inner_grow(struct model *m, make_key *make, size_t changes)
{
    static struct key keys[8];
    for (size_t i = 0; i < changes; i++) {
        if (m->count > 2 && random_below(4) == 0)
            inner_remove_leaf(m, 1 + random_below(m->count - 1));
        else
            inner_insert_each(m, keys,
                              inner_make_keys(make, keys, 1 + random_below(8)));
        inner_search_around(m, make);
        if (i % 64 == 0)
            inner_check_tree(m);
    }
    inner_check_tree(m);
}
