/*
 * Inner nodes against a sorted array of separators: every search after every
 * change, with keys of every awkward shape; allocations that fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inner_fixture.h"
#include "random.h"

/* --- against the model -------------------------------------------------- */

/* Random removals, or runs of neighbours, which empty whole nodes. */
static void shrink(struct model *m, make_key *make)
{
    while (m->count > 1) {
        size_t i = 1 + random_below(m->count - 1);
        size_t n = random_below(3) == 0 ? random_below(300) : 1;
        do
            inner_remove_leaf(m, i);
        while (n-- > 1 && i < m->count);
        inner_search_around(m, make);
        if (random_below(32) == 0)
            inner_check_tree(m);
    }
    inner_check_tree(m);
    assert_int_equal(m->root->height, 1);
}

static void run_shape(make_key *make, size_t changes)
{
    struct model *m = inner_model_create();
    inner_check_tree(m);
    inner_search_around(m, make);
    inner_grow(m, make, changes);
    shrink(m, make);
    inner_grow(m, make, changes / 4);
    inner_model_destroy(m);
}

static void short_keys_are_found(void **state)
{
    (void)state;
    inner_random(1);
    run_shape(inner_key_short, 1500);
}

static void keys_with_zero_bytes_and_prefixes_are_found(void **state)
{
    (void)state;
    inner_random(2);
    run_shape(inner_key_zeros, 1500);
}

static void keys_of_highest_bytes_are_found(void **state)
{
    (void)state;
    inner_random(3);
    run_shape(inner_key_ones, 1000);
}

static void longest_keys_are_found(void **state)
{
    (void)state;
    inner_random(4);
    run_shape(inner_key_longest, 800);
}

static void keys_with_shared_prefixes_are_found(void **state)
{
    (void)state;
    inner_random(5);
    run_shape(inner_key_shared, 800);
}

static void numbers_are_found(void **state)
{
    (void)state;
    inner_random(6);
    run_shape(inner_key_number, 1500);
}

static void mixed_keys_are_found(void **state)
{
    (void)state;
    inner_random(7);
    run_shape(inner_key_mixed, 1500);
}
/* --- single promises ---------------------------------------------------- */

static void count_nodes(const struct bfti_inner *node, size_t *nodes,
                        size_t *bytes)
{
    ++*nodes;
    *bytes += bfti_inner_here(node)->bytes;
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        count_nodes(bfti_inner_child(node, i), nodes, bytes);
}

static void ascending_load_leaves_full_nodes(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    for (uint64_t i = 0; i < 15000; i++) {
        inner_key_make(&key, i * 3, 8);
        assert_true(inner_insert(m, &key, 1));
    }
    inner_check_tree(m);
    count_nodes(m->root, &nodes, &bytes);
    assert_true(bytes >=
                (nodes - m->root->height) * BFTI_INNER_BYTES / 100 * 95);
    inner_model_destroy(m);
}

static void random_load_leaves_half_full_nodes(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    inner_random(8);
    for (uint64_t i = 0; i < 15000; i++) {
        inner_key_make(&key, random_next(), 16);
        assert_true(inner_insert(m, &key, 1));
    }
    count_nodes(m->root, &nodes, &bytes);
    assert_true(bytes >= nodes * BFTI_INNER_BYTES / 100 * 55);
    inner_model_destroy(m);
}

/* Eight leaves in the range of one, as a split makes them, however much the
 * tree has to split. */
static void eight_neighbours_always_fit_one_change(void **state)
{
    (void)state;
    static struct key keys[8];
    struct model *m = inner_model_create();
    inner_random(9);
    for (uint64_t round = 0; round < 1500; round++) {
        uint64_t number = random_below(1u << 20) << 20;
        size_t len =
            random_below(3) == 0 ? BFTI_KEY_MAX : 8 + random_below(600);
        bool front = round % 200 < 100;
        if (random_below(2) == 0)
            len = 8;
        for (size_t i = 0; i < 8; i++)
            (front ? inner_key_front : inner_key_make)(&keys[i], number + i,
                                                       len);
        assert_true(inner_insert(m, keys, 8));
        if (round % 16 == 0)
            inner_check_tree(m);
    }
    inner_check_tree(m);
    assert_true(m->root->height >= 3);
    inner_model_destroy(m);
}

static void check_fanout(const struct bfti_inner *node, bool root)
{
    assert_true(root || bfti_inner_here(node)->count >= 8);
    for (unsigned i = 0; node->height > 1 && i < node->count; i++)
        check_fanout(bfti_inner_child(node, i), false);
}

/* A descending load is never at the end of a node.  Runs of keys of one length
 * make nodes whose bytes lie on one side. */
static void no_split_leaves_a_part_below_eight(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct key key;
    inner_random(10);
    for (uint64_t number = 15000; number > 0;) {
        size_t len =
            random_below(3) == 0 ? 8 + random_below(BFTI_KEY_MAX - 7) : 8;
        size_t run = random_below(len == 8 ? 300 : 12);
        for (; run > 0 && number > 0; run--, number--) {
            inner_key_front(&key, number, len);
            assert_true(inner_insert(m, &key, 1));
            /* A left part, before it grows. */
            if (m->root->height > 1)
                assert_true(
                    bfti_inner_here(bfti_inner_child(m->root, 0))->count >= 8);
        }
    }
    inner_check_tree(m);
    assert_true(m->root->height >= 3);
    check_fanout(m->root, true);
    inner_model_destroy(m);
}

/* The bytes of a node that was full then lie at one place of it. */
static void long_keys_fit_anywhere_in_a_full_node(void **state)
{
    (void)state;
    static struct key keys[8];
    for (uint64_t at = 0; at < 400; at += at < 8 ? 1 : 28) {
        struct model *m = inner_model_create();
        for (uint64_t i = 0; i < 600; i++) {
            inner_key_front(&keys[0], i * 16, 8);
            assert_true(inner_insert(m, &keys[0], 1));
        }
        for (uint64_t i = 0; i < 8; i++)
            inner_key_front(&keys[i], at * 16 + 1 + i, BFTI_KEY_MAX);
        unsigned nodes = m->root->count;
        assert_true(inner_insert(m, keys, 8));
        inner_check_tree(m);
        /* In two where they lie at its end, else in three at most. */
        assert_true(m->root->count <= nodes + (at < 8 ? 1u : 2u));
        inner_model_destroy(m);
    }
}

/* Eight nodes of most heights, until they all split at once. */
static void keys_in_too_many_nodes_are_refused_whole(void **state)
{
    (void)state;
    static struct key keys[8];
    struct model *m = inner_model_create();
    size_t refused_count = 0;
    for (uint64_t number = 9500; number > 0; number--) {
        inner_key_front(&keys[0], number, BFTI_KEY_MAX);
        assert_true(inner_insert(m, &keys[0], 1));
    }
    assert_true(m->root->height >= 5);
    for (size_t round = 1; round <= 20; round++) {
        for (uint64_t i = 0; i < 8; i++)
            inner_key_front(&keys[i], 1 + i * 1150, BFTI_KEY_MAX - round);
        if (!inner_insert(m, keys, 8)) {
            inner_check_tree(m);
            refused_count++;
            inner_insert_each(m, keys, 8);
        }
    }
    assert_true(refused_count > 0);
    inner_check_tree(m);
    inner_model_destroy(m);
}

/* The first leaf of a node goes, and the longer key of the second becomes the
 * separator above: there a removal can split a node. */
static void removals_that_bring_up_long_keys_split_nodes(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct key key;
    for (uint64_t i = 1; i <= 7000; i++) {
        inner_key_front(&key, i * 16, 40);
        assert_true(inner_insert(m, &key, 1));
    }
    for (uint64_t i = 1; i <= 7000; i++) {
        inner_key_front(&key, i * 16 + 1, BFTI_KEY_MAX);
        assert_true(inner_insert(m, &key, 1));
        inner_remove_leaf(m, (size_t)i);
        if (i % 500 == 0)
            inner_check_tree(m);
    }
    inner_model_destroy(m);
}

static void removals_merge_small_nodes(void **state)
{
    (void)state;
    for (size_t len = 8; len <= BFTI_KEY_MAX; len *= 128) {
        struct model *m = inner_model_create();
        struct key key;
        size_t nodes = 0, bytes = 0;
        inner_random(20);
        for (uint64_t i = 0; i < 6000; i++) {
            inner_key_front(&key, random_next(), len);
            assert_true(inner_insert(m, &key, 1));
        }
        while (m->count > 300)
            inner_remove_leaf(m, 1 + random_below(m->count - 1));
        inner_check_tree(m);
        count_nodes(m->root, &nodes, &bytes);
        assert_true(nodes <= (len == 8 ? 300 / 40 : 300 / 5));
        inner_model_destroy(m);
    }
}

static void longest_keys_keep_a_fanout_of_eight(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct key key;
    size_t nodes = 0, bytes = 0;
    inner_random(19);
    for (size_t i = 0; i < 3000; i++) {
        inner_key_longest(&key);
        assert_true(inner_insert(m, &key, 1));
    }
    count_nodes(m->root, &nodes, &bytes);
    assert_true((m->count + nodes - 1) / nodes >= 8);
    inner_model_destroy(m);
}

static void a_present_key_gets_the_new_child(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    inner_random(11);
    inner_grow(m, inner_key_number, 600);
    for (size_t i = 1; i < m->count; i++) {
        size_t count = m->count;
        struct key key = *m->separator[i]; /* of every height */
        assert_true(inner_insert(m, &key, 1));
        assert_int_equal(m->count, count);
    }
    inner_check_tree(m);
    inner_model_destroy(m);
}

static void a_leaf_that_is_not_there_is_not_removed(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct bfti_inner_change change;
    bft_slice empty = {NULL, 0};
    struct key key;
    inner_random(12);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            bfti_inner_remove(&inner_env, m->root, empty, m->id[0], &change),
            BFT_NOT_FOUND);
        assert_null(change.root);
        inner_key_longest(&key);
        assert_int_equal(bfti_inner_remove(&inner_env, m->root,
                                           inner_slice(&key),
                                           m->id[m->count - 1], &change),
                         BFT_NOT_FOUND);
        inner_grow(m, inner_key_short, 300);
    }
    assert_int_equal(bfti_inner_remove(&inner_env, m->root,
                                       inner_slice(m->separator[5]), m->id[6],
                                       &change),
                     BFT_NOT_FOUND);
    inner_check_tree(m);
    inner_model_destroy(m);
}

static void too_many_at_once_are_refused(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct bfti_inner_change change;
    struct key keys[64];
    bft_slice slices[64];
    uint64_t ids[64] = {0};
    for (size_t i = 0; i < 64; i++) {
        inner_key_make(&keys[i], i, 8);
        slices[i] = inner_slice(&keys[i]);
    }
    assert_int_equal(
        bfti_inner_insert(&inner_env, m->root, slices, ids, 64, &change),
        BFT_TOO_BIG);
    assert_null(change.root);
    assert_int_equal(change.made_count + change.replaced_count, 0);
    inner_model_destroy(m);
}

/* Whoever holds an old root has the tree of its time. */
static void an_old_root_keeps_its_tree(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct bfti_inner_change change;
    struct key key;
    inner_random(13);
    inner_grow(m, inner_key_mixed, 800);
    struct bfti_inner *old = m->root;
    inner_key_longest(&key);
    bft_slice slice = inner_slice(&key);
    uint64_t id = 99;
    assert_int_equal(
        bfti_inner_insert(&inner_env, old, &slice, &id, 1, &change), BFT_OK);
    inner_check_tree(m);
    assert_int_equal(bfti_inner_find(change.root, slice), 99);
    bfti_inner_free_made(&inner_env, &change);
    inner_check_tree(m);
    inner_model_destroy(m);
}

static void a_node_takes_exactly_its_bytes(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    assert_int_equal(inner_memory.bytes_asked, m->root->bytes);
    assert_int_equal(atomic_load(&m->root->place), 0);
    inner_model_destroy(m);
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
    size_t blocks_before = inner_memory.blocks;
    for (size_t n = 1;; n++) {
        inner_refuse_from(n);
        bft_status status = change_of(m, arg, &change);
        inner_refuse_from(0);
        if (status == BFT_OK) {
            assert_true(n > 1);
            inner_accept(m, &change);
            return;
        }
        assert_int_equal(status, BFT_NO_MEMORY);
        assert_null(change.root);
        assert_int_equal(inner_memory.blocks, blocks_before);
        inner_check_tree(m);
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
        slices[i] = inner_slice(&insertion->key[i]);
        ids[i] = m->next_id + i;
    }
    return bfti_inner_insert(&inner_env, m->root, slices, ids, insertion->n,
                             change);
}

static bft_status change_remove(struct model *m, void *arg,
                                struct bfti_inner_change *change)
{
    const size_t *i = arg;
    return bfti_inner_remove(&inner_env, m->root, inner_slice(m->separator[*i]),
                             m->id[*i], change);
}

static void a_refused_allocation_leaves_the_old_tree(void **state)
{
    (void)state;
    static struct insertion insertion;
    struct model *m = inner_model_create();
    inner_random(14);
    for (size_t round = 0; round < 250; round++) {
        insertion.n = inner_make_keys(random_below(2) == 0 ? inner_key_longest
                                                           : inner_key_mixed,
                                      insertion.key, 1 + random_below(3));
        refuse_each(m, change_insert, &insertion);
        for (size_t i = 0; i < insertion.n; i++)
            inner_model_insert(m, &insertion.key[i], m->next_id++);
    }
    while (m->count > 1) {
        size_t i = 1 + random_below(m->count - 1);
        refuse_each(m, change_remove, &i);
        inner_model_remove(m, i);
    }
    inner_check_tree(m);
    inner_model_destroy(m);

    struct bfti_inner *root;
    inner_refuse_from(1);
    assert_int_equal(bfti_inner_create(&inner_env, 1, &root), BFT_NO_MEMORY);
    inner_refuse_from(0);
    assert_null(root);
    assert_int_equal(inner_memory.blocks, 0);
}

int main(void)
{
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
    };
    inner_random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
