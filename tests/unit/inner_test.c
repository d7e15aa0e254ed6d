/*
 * Inner nodes against a sorted array of separators: every search after every
 * change, with keys of every awkward shape; allocations that fail; images.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "index/inner.h"

/* --- random numbers, which BFT_SEED repeats ----------------------------- */

static uint64_t seed, random_state;

static uint64_t random64(void)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(size_t n)
{
    return (size_t)(random64() % n);
}

static void random_start(uint64_t salt)
{
    random_state = seed + salt;
}

/* --- surroundings that count blocks and refuse the n-th ----------------- */

static size_t blocks;        /* allocated now */
static size_t allocations;   /* since the last reset */
static size_t refuse_from;   /* 0: none; else this one and all after fail */
static uint64_t bytes_asked; /* of the last allocation */

static bool refused(void)
{
    allocations++;
    return refuse_from != 0 && allocations >= refuse_from;
}

static void *counted_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    bytes_asked = bytes;
    if (refused())
        return NULL;
    blocks++;
    return malloc(bytes);
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    if (refused())
        return NULL;
    if (old == NULL)
        blocks++;
    return realloc(old, bytes);
}

static void counted_free(void *ctx, void *block)
{
    (void)ctx;
    if (block != NULL)
        blocks--;
    free(block);
}

static const struct bfti_env env = {
    .alloc = counted_alloc,
    .realloc = counted_realloc,
    .free = counted_free,
};

/* --- the model ---------------------------------------------------------- */

enum { MODEL_MAX = 20000 };

struct key {
    uint16_t len;
    uint8_t byte[BFTI_KEY_MAX];
};

/* Leaf I holds keys from separator[i] on; separator 0 is no key. */
struct model {
    struct key *separator[MODEL_MAX];
    uint64_t id[MODEL_MAX];
    size_t count;
    uint64_t next_id;
    struct bfti_inner *root;
};

static bft_slice slice_of(const struct key *key)
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
        if (compare(slice_of(m->separator[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < m->count && compare(slice_of(m->separator[low]), key) == 0;
    return low;
}

static void model_insert(struct model *m, const struct key *key, uint64_t id)
{
    bool found;
    size_t i = model_search(m, slice_of(key), &found);
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

static void model_remove(struct model *m, size_t i)
{
    free(m->separator[i]);
    m->count--;
    memmove(m->separator + i, m->separator + i + 1,
            (m->count - i) * sizeof m->separator[0]);
    memmove(m->id + i, m->id + i + 1, (m->count - i) * sizeof m->id[0]);
}

static struct model *model_create(void)
{
    struct model *m = calloc(1, sizeof *m);
    m->count = 1;
    m->id[0] = 1;
    m->next_id = 2;
    assert_int_equal(bfti_inner_create(&env, 1, &m->root), BFT_OK);
    return m;
}

static void model_destroy(struct model *m)
{
    bfti_inner_destroy(&env, m->root);
    for (size_t i = 1; i < m->count; i++)
        free(m->separator[i]);
    free(m);
    assert_int_equal(blocks, 0);
}

/* --- checks ------------------------------------------------------------- */

/* The leaves below NODE are the model's from *LEAF on, and its keys their
 * separators. */
static void check_node(const struct model *m, const struct bfti_inner *node,
                       unsigned height, size_t *leaf, size_t *bytes)
{
    uint8_t buf[BFTI_KEY_MAX];
    assert_int_equal(node->height, height);
    assert_true(node->count >= 1);
    assert_true(node->bytes <= BFTI_INNER_BYTES_MAX);
    assert_true(node->bytes <= BFTI_INNER_BYTES || node->count <= 16);
    *bytes += node->bytes;
    for (unsigned i = 0; i < node->count; i++) {
        if (i > 0) {
            bft_slice key = {buf, bfti_inner_key(node, i, buf)};
            assert_int_equal(compare(key, slice_of(m->separator[*leaf])), 0);
        }
        if (height > 1)
            check_node(m, bfti_inner_child(node, i), height - 1, leaf, bytes);
        else
            assert_int_equal(bfti_inner_page(node, i), m->id[(*leaf)++]);
    }
}

static void check_tree(const struct model *m)
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
        assert_int_equal(compare(low_key, slice_of(m->separator[i])), 0);
    if (i + 1 == m->count)
        assert_int_equal(high_len, 0);
    else
        assert_int_equal(compare(high_key, slice_of(m->separator[i + 1])), 0);
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
    size_t max = below(sizeof ids / sizeof ids[0] + 1);
    size_t want = m->count - 1 - at < max ? m->count - 1 - at : max;
    assert_int_equal(bfti_inner_following(m->root, key, ids, max), want);
    for (size_t j = 0; j < want; j++)
        assert_int_equal(ids[j], m->id[at + 1 + j]);
}

/* --- changes ------------------------------------------------------------ */

/* Swing the root, and free what the change replaced. */
static void accept(struct model *m, struct bfti_inner_change *change)
{
    m->root = change->root;
    for (unsigned i = 0; i < change->replaced_count; i++)
        bfti_free(&env, change->replaced[i]);
}

/* Insert the N distinct ascending KEYS.  False, and nothing changed, when they
 * are in too many nodes for one change. */
static bool insert(struct model *m, const struct key *keys, size_t n)
{
    struct bfti_inner_change change;
    bft_slice slices[8];
    uint64_t ids[8];
    size_t blocks_before = blocks;
    for (size_t i = 0; i < n; i++) {
        slices[i] = slice_of(&keys[i]);
        ids[i] = m->next_id + i;
    }
    bft_status status =
        bfti_inner_insert(&env, m->root, slices, ids, n, &change);
    if (status == BFT_TOO_BIG) {
        assert_true(n > 1);
        assert_null(change.root);
        assert_int_equal(blocks, blocks_before);
        return false;
    }
    assert_int_equal(status, BFT_OK);
    assert_int_equal(blocks, blocks_before + change.made_count);
    accept(m, &change);
    for (size_t i = 0; i < n; i++)
        model_insert(m, &keys[i], m->next_id++);
    return true;
}

static void insert_each(struct model *m, const struct key *keys, size_t n)
{
    if (insert(m, keys, n))
        return;
    for (size_t i = 0; i < n; i++)
        assert_true(insert(m, &keys[i], 1));
}

static void remove_leaf(struct model *m, size_t i)
{
    struct bfti_inner_change change;
    size_t blocks_before = blocks;
    assert_int_equal(bfti_inner_remove(&env, m->root, slice_of(m->separator[i]),
                                       m->id[i], &change),
                     BFT_OK);
    assert_int_equal(blocks, blocks_before + change.made_count);
    accept(m, &change);
    model_remove(m, i);
}

/* --- keys of many shapes ------------------------------------------------ */

typedef void make_key(struct key *key);

static void key_short(struct key *key)
{
    key->len = (uint16_t)(1 + below(3));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)random64();
}

/* Of two bytes, one of them zero: many are prefixes of others, and heads of
 * keys that differ in trailing zeros are equal. */
static void key_zeros(struct key *key)
{
    key->len = (uint16_t)(1 + below(14));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)(random64() & 1);
}

static void key_ones(struct key *key)
{
    key->len = (uint16_t)(1 + below(12));
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = below(8) == 0 ? (uint8_t)random64() : 0xff;
}

static void key_longest(struct key *key)
{
    key->len = BFTI_KEY_MAX;
    for (size_t i = 0; i < key->len; i++)
        key->byte[i] = (uint8_t)random64();
}

/* Long keys that differ at their ends, in three families. */
static void key_shared(struct key *key)
{
    size_t family = below(3);
    size_t shared = family == 0 ? 500 : family == 1 ? 1000 : 20;
    memset(key->byte, 'a' + (int)family, shared);
    key->len = (uint16_t)(shared + 1 + below(8));
    for (size_t i = shared; i < key->len; i++)
        key->byte[i] = (uint8_t)('0' + below(10));
}

static void key_number(struct key *key)
{
    uint64_t number = below(1u << 20);
    key->len = 8;
    for (size_t i = 0; i < 8; i++)
        key->byte[i] = (uint8_t)(number >> (56 - 8 * i));
}

static make_key *const shapes[] = {key_short,   key_zeros,  key_ones,
                                   key_longest, key_shared, key_number};

static void key_mixed(struct key *key)
{
    shapes[below(sizeof shapes / sizeof shapes[0])](key);
}

static int compare_keys(const void *a, const void *b)
{
    return compare(slice_of(a), slice_of(b));
}

/* Up to MAX keys, ascending and distinct. */
static size_t make_keys(make_key *make, struct key *keys, size_t max)
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

/* --- against the model -------------------------------------------------- */

static void search_around(const struct model *m, make_key *make)
{
    struct key key;
    bft_slice empty = {NULL, 0};
    make(&key);
    check_searches(m, slice_of(&key));
    check_searches(m, empty);
    if (m->count == 1)
        return;
    key = *m->separator[1 + below(m->count - 1)];
    check_searches(m, slice_of(&key));
    if (key.len < BFTI_KEY_MAX) {
        key.byte[key.len++] = 0;
        check_searches(m, slice_of(&key));
        key.len--;
    }
    key.len--;
    check_searches(m, slice_of(&key));
}

static void grow(struct model *m, make_key *make, size_t changes)
{
    static struct key keys[8];
    for (size_t i = 0; i < changes; i++) {
        if (m->count > 2 && below(4) == 0)
            remove_leaf(m, 1 + below(m->count - 1));
        else
            insert_each(m, keys, make_keys(make, keys, 1 + below(8)));
        search_around(m, make);
        if (i % 64 == 0)
            check_tree(m);
    }
    check_tree(m);
}

/* Random removals, or runs of neighbours, which empty whole nodes. */
static void shrink(struct model *m, make_key *make)
{
    while (m->count > 1) {
        size_t i = 1 + below(m->count - 1);
        size_t n = below(3) == 0 ? below(300) : 1;
        do
            remove_leaf(m, i);
        while (n-- > 1 && i < m->count);
        search_around(m, make);
        if (below(32) == 0)
            check_tree(m);
    }
    check_tree(m);
    assert_int_equal(m->root->height, 1);
}

static void run_shape(make_key *make, size_t changes)
{
    struct model *m = model_create();
    check_tree(m);
    search_around(m, make);
    grow(m, make, changes);
    shrink(m, make);
    grow(m, make, changes / 4);
    model_destroy(m);
}

static void short_keys_are_found(void **state)
{
    (void)state;
    random_start(1);
    run_shape(key_short, 1500);
}

static void keys_with_zero_bytes_and_prefixes_are_found(void **state)
{
    (void)state;
    random_start(2);
    run_shape(key_zeros, 1500);
}

static void keys_of_highest_bytes_are_found(void **state)
{
    (void)state;
    random_start(3);
    run_shape(key_ones, 1000);
}

static void longest_keys_are_found(void **state)
{
    (void)state;
    random_start(4);
    run_shape(key_longest, 800);
}

static void keys_with_shared_prefixes_are_found(void **state)
{
    (void)state;
    random_start(5);
    run_shape(key_shared, 800);
}

static void numbers_are_found(void **state)
{
    (void)state;
    random_start(6);
    run_shape(key_number, 1500);
}

static void mixed_keys_are_found(void **state)
{
    (void)state;
    random_start(7);
    run_shape(key_mixed, 1500);
}

/* --- single promises ---------------------------------------------------- */

static void number_key(struct key *key, uint64_t number, size_t len)
{
    memset(key->byte, 'k', sizeof key->byte);
    key->len = (uint16_t)len;
    for (size_t i = 0; i < 8; i++)
        key->byte[len - 8 + i] = (uint8_t)(number >> (56 - 8 * i));
}

/* The same, with the number in front: keys have little in common. */
static void front_key(struct key *key, uint64_t number, size_t len)
{
    number_key(key, number, 8);
    key->len = (uint16_t)len;
}

static void count_nodes(const struct bfti_inner *node, size_t *nodes,
                        size_t *bytes)
{
    ++*nodes;
    *bytes += node->bytes;
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        count_nodes(bfti_inner_child(node, i), nodes, bytes);
}

static void ascending_load_leaves_full_nodes(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    for (uint64_t i = 0; i < 15000; i++) {
        number_key(&key, i * 3, 8);
        assert_true(insert(m, &key, 1));
    }
    check_tree(m);
    count_nodes(m->root, &nodes, &bytes);
    assert_true(bytes >=
                (nodes - m->root->height) * BFTI_INNER_BYTES / 100 * 95);
    model_destroy(m);
}

static void random_load_leaves_half_full_nodes(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    random_start(8);
    for (uint64_t i = 0; i < 15000; i++) {
        number_key(&key, random64(), 16);
        assert_true(insert(m, &key, 1));
    }
    count_nodes(m->root, &nodes, &bytes);
    assert_true(bytes >= nodes * BFTI_INNER_BYTES / 100 * 55);
    model_destroy(m);
}

/* Eight leaves in the range of one, as a split makes them, however much the
 * tree has to split. */
static void eight_neighbours_always_fit_one_change(void **state)
{
    (void)state;
    static struct key keys[8];
    struct model *m = model_create();
    random_start(9);
    for (uint64_t round = 0; round < 1500; round++) {
        uint64_t number = below(1u << 20) << 20;
        size_t len = below(3) == 0 ? BFTI_KEY_MAX : 8 + below(600);
        bool front = round % 200 < 100;
        if (below(2) == 0)
            len = 8;
        for (size_t i = 0; i < 8; i++)
            (front ? front_key : number_key)(&keys[i], number + i, len);
        assert_true(insert(m, keys, 8));
        if (round % 16 == 0)
            check_tree(m);
    }
    check_tree(m);
    assert_true(m->root->height >= 3);
    model_destroy(m);
}

static void check_fanout(const struct bfti_inner *node, bool root)
{
    assert_true(root || node->count >= 8);
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        check_fanout(bfti_inner_child(node, i), false);
}

/* A descending load is never at the end of a node.  Runs of keys of one length
 * make nodes whose bytes lie on one side. */
static void no_split_leaves_a_part_below_eight(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct key key;
    random_start(10);
    for (uint64_t number = 15000; number > 0;) {
        size_t len = below(3) == 0 ? 8 + below(BFTI_KEY_MAX - 7) : 8;
        size_t run = below(len == 8 ? 300 : 12);
        for (; run > 0 && number > 0; run--, number--) {
            front_key(&key, number, len);
            assert_true(insert(m, &key, 1));
            /* A left part, before it grows. */
            if (m->root->height > 1)
                assert_true(bfti_inner_child(m->root, 0)->count >= 8);
        }
    }
    check_tree(m);
    assert_true(m->root->height >= 3);
    check_fanout(m->root, true);
    model_destroy(m);
}

/* The bytes of a node that was full then lie at one place of it. */
static void long_keys_fit_anywhere_in_a_full_node(void **state)
{
    (void)state;
    static struct key keys[8];
    for (uint64_t at = 0; at < 400; at += at < 8 ? 1 : 28) {
        struct model *m = model_create();
        for (uint64_t i = 0; i < 600; i++) {
            front_key(&keys[0], i * 16, 8);
            assert_true(insert(m, &keys[0], 1));
        }
        for (uint64_t i = 0; i < 8; i++)
            front_key(&keys[i], at * 16 + 1 + i, BFTI_KEY_MAX);
        unsigned nodes = m->root->count;
        assert_true(insert(m, keys, 8));
        check_tree(m);
        /* In two where they lie at its end, else in three at most. */
        assert_true(m->root->count <= nodes + (at < 8 ? 1u : 2u));
        model_destroy(m);
    }
}

/* Eight nodes of most heights, until they all split at once. */
static void keys_in_too_many_nodes_are_refused_whole(void **state)
{
    (void)state;
    static struct key keys[8];
    struct model *m = model_create();
    size_t refused_count = 0;
    for (uint64_t number = 9500; number > 0; number--) {
        front_key(&keys[0], number, BFTI_KEY_MAX);
        assert_true(insert(m, &keys[0], 1));
    }
    assert_true(m->root->height >= 5);
    for (size_t round = 1; round <= 20; round++) {
        for (uint64_t i = 0; i < 8; i++)
            front_key(&keys[i], 1 + i * 1150, BFTI_KEY_MAX - round);
        if (!insert(m, keys, 8)) {
            check_tree(m);
            refused_count++;
            insert_each(m, keys, 8);
        }
    }
    assert_true(refused_count > 0);
    check_tree(m);
    model_destroy(m);
}

/* The first leaf of a node goes, and the longer key of the second becomes the
 * separator above: there a removal can split a node. */
static void removals_that_bring_up_long_keys_split_nodes(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct key key;
    for (uint64_t i = 1; i <= 7000; i++) {
        front_key(&key, i * 16, 40);
        assert_true(insert(m, &key, 1));
    }
    for (uint64_t i = 1; i <= 7000; i++) {
        front_key(&key, i * 16 + 1, BFTI_KEY_MAX);
        assert_true(insert(m, &key, 1));
        remove_leaf(m, (size_t)i);
        if (i % 500 == 0)
            check_tree(m);
    }
    model_destroy(m);
}

static void removals_merge_small_nodes(void **state)
{
    (void)state;
    for (size_t len = 8; len <= BFTI_KEY_MAX; len *= 128) {
        struct model *m = model_create();
        struct key key;
        size_t nodes = 0, bytes = 0;
        random_start(20);
        for (uint64_t i = 0; i < 6000; i++) {
            front_key(&key, random64(), len);
            assert_true(insert(m, &key, 1));
        }
        while (m->count > 300)
            remove_leaf(m, 1 + below(m->count - 1));
        check_tree(m);
        count_nodes(m->root, &nodes, &bytes);
        assert_true(nodes <= (len == 8 ? 300 / 40 : 300 / 5));
        model_destroy(m);
    }
}

static void longest_keys_keep_a_fanout_of_eight(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    random_start(19);
    for (size_t i = 0; i < 3000; i++) {
        key_longest(&key);
        assert_true(insert(m, &key, 1));
    }
    count_nodes(m->root, &nodes, &bytes);
    assert_true((m->count + nodes - 1) / nodes >= 8);
    model_destroy(m);
}

static void a_present_key_gets_the_new_child(void **state)
{
    (void)state;
    struct model *m = model_create();
    random_start(11);
    grow(m, key_number, 600);
    for (size_t i = 1; i < m->count; i++) {
        size_t count = m->count;
        struct key key = *m->separator[i]; /* of every height */
        assert_true(insert(m, &key, 1));
        assert_int_equal(m->count, count);
    }
    check_tree(m);
    model_destroy(m);
}

static void a_leaf_that_is_not_there_is_not_removed(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct bfti_inner_change change;
    bft_slice empty = {NULL, 0};
    struct key key;
    random_start(12);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            bfti_inner_remove(&env, m->root, empty, m->id[0], &change),
            BFT_NOT_FOUND);
        assert_null(change.root);
        key_longest(&key);
        assert_int_equal(bfti_inner_remove(&env, m->root, slice_of(&key),
                                           m->id[m->count - 1], &change),
                         BFT_NOT_FOUND);
        grow(m, key_short, 300);
    }
    assert_int_equal(bfti_inner_remove(&env, m->root, slice_of(m->separator[5]),
                                       m->id[6], &change),
                     BFT_NOT_FOUND);
    check_tree(m);
    model_destroy(m);
}

static void too_many_at_once_are_refused(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct bfti_inner_change change;
    struct key keys[64];
    bft_slice slices[64];
    uint64_t ids[64] = {0};
    for (size_t i = 0; i < 64; i++) {
        number_key(&keys[i], i, 8);
        slices[i] = slice_of(&keys[i]);
    }
    assert_int_equal(bfti_inner_insert(&env, m->root, slices, ids, 64, &change),
                     BFT_TOO_BIG);
    assert_null(change.root);
    assert_int_equal(change.made_count + change.replaced_count, 0);
    model_destroy(m);
}

/* Whoever holds an old root has the tree of its time. */
static void an_old_root_keeps_its_tree(void **state)
{
    (void)state;
    struct model *m = model_create();
    struct bfti_inner_change change;
    struct key key;
    random_start(13);
    grow(m, key_mixed, 800);
    struct bfti_inner *old = m->root;
    key_longest(&key);
    bft_slice slice = slice_of(&key);
    uint64_t id = 99;
    assert_int_equal(bfti_inner_insert(&env, old, &slice, &id, 1, &change),
                     BFT_OK);
    check_tree(m);
    assert_int_equal(bfti_inner_find(change.root, slice), 99);
    bfti_inner_free_made(&env, &change);
    check_tree(m);
    model_destroy(m);
}

static void a_node_takes_exactly_its_bytes(void **state)
{
    (void)state;
    struct model *m = model_create();
    assert_int_equal(bytes_asked, m->root->bytes);
    assert_int_equal(atomic_load(&m->root->place), 0);
    model_destroy(m);
}

/* --- allocations that fail ---------------------------------------------- */

/* Run CHANGE with its first, second, ... allocation refused until it passes;
 * each failure leaves the tree as it was and no block behind. */
static void refuse_each(struct model *m,
                        bft_status (*change_of)(struct model *m, void *arg,
                                                struct bfti_inner_change *c),
                        void *arg)
{
    struct bfti_inner_change change;
    size_t blocks_before = blocks;
    for (size_t n = 1;; n++) {
        allocations = 0;
        refuse_from = n;
        bft_status status = change_of(m, arg, &change);
        refuse_from = 0;
        if (status == BFT_OK) {
            assert_true(n > 1);
            accept(m, &change);
            return;
        }
        assert_int_equal(status, BFT_NO_MEMORY);
        assert_null(change.root);
        assert_int_equal(blocks, blocks_before);
        check_tree(m);
    }
}

struct insertion {
    struct key key[8];
    size_t n;
};

static bft_status change_insert(struct model *m, void *arg,
                                struct bfti_inner_change *change)
{
    const struct insertion *insertion = arg;
    bft_slice slices[8];
    uint64_t ids[8];
    for (size_t i = 0; i < insertion->n; i++) {
        slices[i] = slice_of(&insertion->key[i]);
        ids[i] = m->next_id + i;
    }
    return bfti_inner_insert(&env, m->root, slices, ids, insertion->n, change);
}

static bft_status change_remove(struct model *m, void *arg,
                                struct bfti_inner_change *change)
{
    const size_t *i = arg;
    return bfti_inner_remove(&env, m->root, slice_of(m->separator[*i]),
                             m->id[*i], change);
}

static void a_refused_allocation_leaves_the_old_tree(void **state)
{
    (void)state;
    static struct insertion insertion;
    struct model *m = model_create();
    random_start(14);
    for (size_t round = 0; round < 250; round++) {
        insertion.n = make_keys(below(2) == 0 ? key_longest : key_mixed,
                                insertion.key, 1 + below(3));
        refuse_each(m, change_insert, &insertion);
        for (size_t i = 0; i < insertion.n; i++)
            model_insert(m, &insertion.key[i], m->next_id++);
    }
    while (m->count > 1) {
        size_t i = 1 + below(m->count - 1);
        refuse_each(m, change_remove, &i);
        model_remove(m, i);
    }
    check_tree(m);
    model_destroy(m);

    struct bfti_inner *root;
    allocations = 0;
    refuse_from = 1;
    assert_int_equal(bfti_inner_create(&env, 1, &root), BFT_NO_MEMORY);
    refuse_from = 0;
    assert_null(root);
    assert_int_equal(blocks, 0);
}

/* --- images ------------------------------------------------------------- */

enum { IMAGES_MAX = 4096 };

/* Images of a tree; a place is an index here. */
struct images {
    uint8_t *image[IMAGES_MAX];
    size_t len[IMAGES_MAX];
    size_t count;
    unsigned depth; /* of decode_place in itself */
};

/* Encode NODE and all below it; returns its place. */
static uint64_t encode_tree(struct images *images,
                            const struct bfti_inner *node)
{
    unsigned n = node->count;
    uint64_t *words = calloc(n, sizeof *words);
    bft_slice *keys = calloc(n, sizeof *keys);
    uint8_t *bytes = malloc((size_t)n * BFTI_KEY_MAX);
    for (unsigned i = 0; i < n; i++) {
        words[i] = node->height == 1
                       ? bfti_inner_page(node, i)
                       : encode_tree(images, bfti_inner_child(node, i));
        keys[i].data = bytes + (size_t)i * BFTI_KEY_MAX;
        if (i > 0)
            keys[i].len =
                bfti_inner_key(node, i, bytes + (size_t)i * BFTI_KEY_MAX);
    }
    size_t size = bfti_inner_encoded_size(keys, n);
    assert_true(images->count < IMAGES_MAX);
    uint64_t place = images->count++;
    images->image[place] = malloc(size);
    images->len[place] = size;
    assert_int_equal(
        bfti_inner_encode(images->image[place], node->height, words, keys, n),
        size);
    free(bytes);
    free(keys);
    free(words);
    return place;
}

static void images_free(struct images *images)
{
    for (size_t i = 0; i < images->count; i++)
        free(images->image[i]);
    free(images);
}

static bft_status decode_place(void *arg, uint64_t place,
                               struct bfti_inner **node)
{
    struct images *images = arg;
    *node = NULL;
    if (place >= images->count || images->depth == BFTI_INNER_HEIGHT_MAX)
        return BFT_CORRUPT;
    images->depth++;
    bft_status status =
        bfti_inner_decode(&env, images->image[place], images->len[place],
                          decode_place, arg, node);
    images->depth--;
    return status;
}

static void a_decoded_image_is_the_same_tree(void **state)
{
    (void)state;
    random_start(15);
    for (size_t shape = 0; shape <= 6; shape++) {
        struct model *m = model_create();
        struct images *images = calloc(1, sizeof *images);
        make_key *make = shape == 6 ? key_mixed : shapes[shape];
        grow(m, make, shape == 6 ? 1500 : 300);
        uint64_t place = encode_tree(images, m->root);
        size_t bytes = bfti_inner_tree_bytes(m->root);
        bfti_inner_destroy(&env, m->root);
        assert_int_equal(blocks, 0);
        assert_int_equal(decode_place(images, place, &m->root), BFT_OK);
        assert_int_equal(bfti_inner_tree_bytes(m->root), bytes);
        check_tree(m);
        grow(m, make, 20); /* decoded nodes change like others */
        images_free(images);
        model_destroy(m);
    }
}

static void an_image_may_leave_out_children(void **state)
{
    (void)state;
    struct key key[4];
    bft_slice keys[4];
    uint64_t words[4] = {11, 12, 13, 14};
    uint8_t buf[256];
    struct bfti_inner *node;
    for (size_t i = 0; i < 4; i++) {
        number_key(&key[i], i * 10, 12);
        keys[i] = slice_of(&key[i]);
    }
    /* Ignored: what is to the left of the first. */
    size_t len = bfti_inner_encode(buf, 1, words + 1, keys + 1, 3);
    assert_int_equal(len, bfti_inner_encoded_size(keys + 1, 3));
    assert_int_equal(bfti_inner_decode(&env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    assert_int_equal(node->count, 3);
    assert_int_equal(bfti_inner_find(node, keys[0]), 12);
    assert_int_equal(bfti_inner_find(node, keys[2]), 13);
    assert_int_equal(bfti_inner_find(node, keys[3]), 14);
    bfti_inner_destroy(&env, node);
    assert_int_equal(blocks, 0);
}

/* Decode in a block of exactly LEN bytes, so that a tool sees a read beyond
 * them; walk what comes out. */
static void decode_damaged(struct images *images, size_t victim,
                           const uint8_t *image, size_t len, uint64_t top)
{
    struct bfti_inner *root;
    uint8_t *old = images->image[victim];
    size_t old_len = images->len[victim];
    images->image[victim] = malloc(len > 0 ? len : 1);
    images->len[victim] = len;
    memcpy(images->image[victim], image, len);

    bft_status status = decode_place(images, top, &root);
    if (status == BFT_OK) {
        struct key key;
        uint64_t ids[16];
        key_mixed(&key);
        (void)bfti_inner_find(root, slice_of(&key));
        (void)bfti_inner_find_before(root, slice_of(&key));
        (void)bfti_inner_following(root, slice_of(&key), ids, 16);
        (void)bfti_inner_tree_bytes(root);
        bfti_inner_destroy(&env, root);
    } else {
        assert_int_equal(status, BFT_CORRUPT);
        assert_null(root);
    }
    assert_int_equal(blocks, 0);
    free(images->image[victim]);
    images->image[victim] = old;
    images->len[victim] = old_len;
}

static struct images *images_of(make_key *make, size_t changes, uint64_t *top)
{
    struct images *images = calloc(1, sizeof *images);
    struct model *m = model_create();
    grow(m, make, changes);
    *top = encode_tree(images, m->root);
    model_destroy(m);
    return images;
}

static void a_damaged_image_is_corrupt_or_a_node(void **state)
{
    (void)state;
    static uint8_t image[64 * 1024];
    random_start(16);
    for (size_t shape = 0; shape < 6; shape++) {
        uint64_t top;
        struct images *images = images_of(shapes[shape], 60, &top);
        for (size_t round = 0; round < 1500; round++) {
            size_t victim = below(4) == 0 ? top : below(images->count);
            size_t len = images->len[victim];
            assert_true(len <= sizeof image);
            memcpy(image, images->image[victim], len);
            if (round % 3 == 0)
                len = below(len);
            else
                for (size_t flips = 1 + below(3); flips > 0; flips--)
                    image[below(below(2) == 0 ? 40 : len) % len] ^=
                        (uint8_t)(1u << below(8));
            decode_damaged(images, victim, image, len, top);
        }
        images_free(images);
    }
}

/* Each rule of the format, broken by one byte. */
static void each_broken_rule_is_corrupt(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
    } broken[] = {
        {0, 0},    /* no children */
        {0, 2},    /* fewer than there are: bytes behind */
        {0, 4},    /* more than there are */
        {1, 0x40}, /* more than any node has */
        {2, 0},    /* height 0 */
        {2, 17},   /* height 17 */
        {4, 1},    /* reserved */
        {16, 1},   /* a key before the first child */
        {26, 0},   /* no key in between */
        {26, 9},   /* a key over the next child */
        {27, 4},   /* a key over the limit, and the end */
        {28, 'z'}, /* keys out of order */
        {28, 'b'}, /* a key twice */
    };
    bft_slice keys[3] = {{NULL, 0}, {"a", 1}, {"b", 1}};
    uint64_t words[3] = {5, 6, 7};
    uint8_t buf[64];
    struct bfti_inner *node;
    size_t len = bfti_inner_encode(buf, 1, words, keys, 3);
    assert_int_equal(len, 40);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        uint8_t was = buf[broken[i].at];
        buf[broken[i].at] = broken[i].value;
        assert_int_equal(bfti_inner_decode(&env, buf, len, NULL, NULL, &node),
                         BFT_CORRUPT);
        assert_null(node);
        buf[broken[i].at] = was;
    }
    assert_int_equal(bfti_inner_decode(&env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    bfti_inner_destroy(&env, node);
}

/* Well-formed, but no node has room for it. */
static void an_image_of_too_many_key_bytes_is_corrupt(void **state)
{
    (void)state;
    static struct key key[20];
    bft_slice keys[20];
    uint64_t words[20] = {0};
    static uint8_t buf[32 * 1024];
    struct bfti_inner *node;
    for (size_t i = 0; i < 20; i++) {
        number_key(&key[i], i, BFTI_KEY_MAX);
        key[i].byte[0] = (uint8_t)i; /* nothing in common */
        keys[i] = slice_of(&key[i]);
    }
    size_t len = bfti_inner_encode(buf, 1, words, keys, 20);
    assert_int_equal(bfti_inner_decode(&env, buf, len, NULL, NULL, &node),
                     BFT_CORRUPT);
    assert_null(node);
    assert_int_equal(blocks, 0);
    len = bfti_inner_encode(buf, 1, words, keys, 16);
    assert_int_equal(bfti_inner_decode(&env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    bfti_inner_destroy(&env, node);
}

static void children_of_another_place_are_corrupt(void **state)
{
    (void)state;
    uint64_t top;
    struct bfti_inner *root;
    random_start(17);
    struct images *images = images_of(key_longest, 120, &top);
    assert_true(images->count > 10);
    for (size_t i = 0; i + 1 < top; i++) {
        uint8_t *image = images->image[i];
        if (images->image[i + 1][0] == 1)
            continue; /* one child: no key to tell by */
        images->image[i] = images->image[i + 1];
        size_t len = images->len[i];
        images->len[i] = images->len[i + 1];
        assert_int_equal(decode_place(images, top, &root), BFT_CORRUPT);
        assert_null(root);
        assert_int_equal(blocks, 0);
        images->image[i] = image;
        images->len[i] = len;
    }
    images_free(images);
}

static void a_refused_allocation_undoes_a_decode(void **state)
{
    (void)state;
    uint64_t top;
    struct bfti_inner *root;
    random_start(18);
    struct images *images = images_of(key_longest, 60, &top);
    for (size_t n = 1;; n++) {
        allocations = 0;
        refuse_from = n;
        bft_status status = decode_place(images, top, &root);
        refuse_from = 0;
        if (status == BFT_OK)
            break;
        assert_int_equal(status, BFT_NO_MEMORY);
        assert_null(root);
        assert_int_equal(blocks, 0);
    }
    bfti_inner_destroy(&env, root);
    images_free(images);
}

int main(void)
{
    const char *text = getenv("BFT_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : 20240607;
    printf("BFT_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_keys_are_found),
        cmocka_unit_test(keys_with_zero_bytes_and_prefixes_are_found),
        cmocka_unit_test(keys_of_highest_bytes_are_found),
        cmocka_unit_test(longest_keys_are_found),
        cmocka_unit_test(keys_with_shared_prefixes_are_found),
        cmocka_unit_test(numbers_are_found),
        cmocka_unit_test(mixed_keys_are_found),
        cmocka_unit_test(ascending_load_leaves_full_nodes),
        cmocka_unit_test(random_load_leaves_half_full_nodes),
        cmocka_unit_test(eight_neighbours_always_fit_one_change),
        cmocka_unit_test(no_split_leaves_a_part_below_eight),
        cmocka_unit_test(long_keys_fit_anywhere_in_a_full_node),
        cmocka_unit_test(keys_in_too_many_nodes_are_refused_whole),
        cmocka_unit_test(removals_that_bring_up_long_keys_split_nodes),
        cmocka_unit_test(removals_merge_small_nodes),
        cmocka_unit_test(longest_keys_keep_a_fanout_of_eight),
        cmocka_unit_test(a_present_key_gets_the_new_child),
        cmocka_unit_test(a_leaf_that_is_not_there_is_not_removed),
        cmocka_unit_test(too_many_at_once_are_refused),
        cmocka_unit_test(an_old_root_keeps_its_tree),
        cmocka_unit_test(a_node_takes_exactly_its_bytes),
        cmocka_unit_test(a_refused_allocation_leaves_the_old_tree),
        cmocka_unit_test(a_decoded_image_is_the_same_tree),
        cmocka_unit_test(an_image_may_leave_out_children),
        cmocka_unit_test(a_damaged_image_is_corrupt_or_a_node),
        cmocka_unit_test(each_broken_rule_is_corrupt),
        cmocka_unit_test(an_image_of_too_many_key_bytes_is_corrupt),
        cmocka_unit_test(children_of_another_place_are_corrupt),
        cmocka_unit_test(a_refused_allocation_undoes_a_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
