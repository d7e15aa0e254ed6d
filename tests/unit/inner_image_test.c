/*
 * Images of inner nodes: what is decoded is the tree that was encoded, and what
 * is damaged is told as such; allocations that fail.
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
    node = bfti_inner_here(node);
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

static bft_status decode_child(void *arg, uint64_t place, unsigned height,
                               struct bfti_inner **node);

static bft_status decode_place(void *arg, uint64_t place,
                               struct bfti_inner **node)
{
    struct images *images = arg;
    *node = NULL;
    if (place >= images->count || images->depth == BFTI_INNER_HEIGHT_MAX)
        return BFT_CORRUPT;
    images->depth++;
    bft_status status =
        bfti_inner_decode(&inner_env, images->image[place], images->len[place],
                          decode_child, arg, node);
    images->depth--;
    return status;
}

/* Whatever height it is to have: the parent sees to that. */
static bft_status decode_child(void *arg, uint64_t place, unsigned height,
                               struct bfti_inner **node)
{
    (void)height;
    return decode_place(arg, place, node);
}

static void a_decoded_image_is_the_same_tree(void **state)
{
    (void)state;
    inner_random(15);
    for (size_t shape = 0; shape <= 6; shape++) {
        struct model *m = inner_model_create();
        struct images *images = calloc(1, sizeof *images);
        make_key *make = shape == 6 ? inner_key_mixed : inner_key_shapes[shape];
        inner_grow(m, make, shape == 6 ? 1500 : 300);
        uint64_t place = encode_tree(images, m->root);
        size_t bytes = bfti_inner_tree_bytes(m->root);
        bfti_inner_destroy(&inner_env, m->root);
        assert_int_equal(inner_memory.blocks, 0);
        assert_int_equal(decode_place(images, place, &m->root), BFT_OK);
        assert_int_equal(bfti_inner_tree_bytes(m->root), bytes);
        inner_check_tree(m);
        inner_grow(m, make, 20); /* decoded nodes change like others */
        images_free(images);
        inner_model_destroy(m);
    }
}

static bft_status stub_or_child(void *arg, uint64_t place, unsigned height,
                                struct bfti_inner **node)
{
    return height == 1 ? bfti_inner_stub(&inner_env, place, node)
                       : decode_child(arg, place, height, node);
}

/* Whoever comes to such a node is told, and where it ends. */
static void a_node_without_content_answers_nothing_wrong(void **state)
{
    (void)state;
    struct model *m = inner_model_create();
    struct images *images = calloc(1, sizeof *images);
    struct bfti_inner_change change;
    struct bfti_inner *root, *node, *content;
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
    size_t low_len, high_len;
    uint64_t ids[4], id = 7;
    inner_random(22);
    inner_grow(m, inner_key_number, 600);
    uint64_t top = encode_tree(images, m->root);
    assert_int_equal(m->root->height, 2);
    assert_int_equal(bfti_inner_decode(&inner_env, images->image[top],
                                       images->len[top], stub_or_child, images,
                                       &root),
                     BFT_OK);
    bft_slice key = inner_slice(m->separator[m->count / 2]);
    assert_int_equal(bfti_inner_find(root, key), BFTI_PAGE_ID_NONE);
    assert_int_equal(bfti_inner_find_before(root, key), BFTI_PAGE_ID_NONE);
    assert_int_equal(bfti_inner_following(root, key, false, ids, 4), 0);
    assert_int_equal(bfti_inner_following(root, key, true, ids, 4), 0);
    assert_int_equal(
        bfti_inner_range(root, key, low, &low_len, high, &high_len),
        BFTI_PAGE_ID_NONE);
    assert_true(low_len > 0 || high_len > 0);
    assert_int_equal(bfti_inner_insert(&inner_env, root, &key, &id, 1, &change),
                     BFT_BUSY);
    assert_null(change.root);
    assert_int_equal(bfti_inner_remove(&inner_env, root, key, id, &change),
                     BFT_BUSY);

    node = bfti_inner_bottom(root, key, false, NULL, NULL, NULL, NULL);
    uint64_t place = atomic_load(&node->place);
    assert_int_equal(bfti_inner_decode_content(&inner_env, images->image[place],
                                               images->len[place], &content),
                     BFT_OK);
    assert_true(bfti_inner_fits(content, (bft_slice){low, low_len},
                                (bft_slice){high, high_len}));
    assert_true(bfti_inner_fill(node, content));
    assert_false(bfti_inner_fill(node, content));
    assert_int_equal(bfti_inner_find(root, key), m->id[m->count / 2]);
    assert_false(bfti_inner_leave(node)); /* used: only that is forgotten */
    assert_true(bfti_inner_leave(node));
    assert_false(bfti_inner_stays(node));
    bfti_inner_keep(node);
    assert_true(bfti_inner_stays(node));
    assert_null(bfti_inner_empty(node));
    assert_true(bfti_inner_leave(node));
    assert_ptr_equal(bfti_inner_empty(node), content);
    assert_int_equal(bfti_inner_find(root, key), BFTI_PAGE_ID_NONE);
    assert_null(bfti_inner_left(node));
    assert_false(bfti_inner_fill(node, content)); /* the tree has left it */
    bfti_free(&inner_env, content);
    bfti_inner_destroy(&inner_env, root);
    images_free(images);
    inner_model_destroy(m);
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
        inner_key_make(&key[i], i * 10, 12);
        keys[i] = inner_slice(&key[i]);
    }
    /* Ignored: what is to the left of the first. */
    size_t len = bfti_inner_encode(buf, 1, words + 1, keys + 1, 3);
    assert_int_equal(len, bfti_inner_encoded_size(keys + 1, 3));
    assert_int_equal(bfti_inner_decode(&inner_env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    assert_int_equal(bfti_inner_here(node)->count, 3);
    assert_int_equal(bfti_inner_find(node, keys[0]), 12);
    assert_int_equal(bfti_inner_find(node, keys[2]), 13);
    assert_int_equal(bfti_inner_find(node, keys[3]), 14);
    bfti_inner_destroy(&inner_env, node);
    assert_int_equal(inner_memory.blocks, 0);
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
        inner_key_mixed(&key);
        (void)bfti_inner_find(root, inner_slice(&key));
        (void)bfti_inner_find_before(root, inner_slice(&key));
        (void)bfti_inner_following(root, inner_slice(&key), false, ids, 16);
        (void)bfti_inner_following(root, inner_slice(&key), true, ids, 16);
        (void)bfti_inner_tree_bytes(root);
        bfti_inner_destroy(&inner_env, root);
    } else {
        assert_int_equal(status, BFT_CORRUPT);
        assert_null(root);
    }
    assert_int_equal(inner_memory.blocks, 0);
    free(images->image[victim]);
    images->image[victim] = old;
    images->len[victim] = old_len;
}

static struct images *images_of(make_key *make, size_t changes, uint64_t *top)
{
    struct images *images = calloc(1, sizeof *images);
    struct model *m = inner_model_create();
    inner_grow(m, make, changes);
    *top = encode_tree(images, m->root);
    inner_model_destroy(m);
    return images;
}

static void a_damaged_image_is_corrupt_or_a_node(void **state)
{
    (void)state;
    static uint8_t image[64 * 1024];
    inner_random(16);
    for (size_t shape = 0; shape < 6; shape++) {
        uint64_t top;
        struct images *images = images_of(inner_key_shapes[shape], 60, &top);
        for (size_t round = 0; round < 1500; round++) {
            size_t victim =
                random_below(4) == 0 ? top : random_below(images->count);
            size_t len = images->len[victim];
            assert_true(len <= sizeof image);
            memcpy(image, images->image[victim], len);
            if (round % 3 == 0)
                len = random_below(len);
            else
                for (size_t flips = 1 + random_below(3); flips > 0; flips--)
                    image[random_below(random_below(2) == 0 ? 40 : len) %
                          len] ^= (uint8_t)(1u << random_below(8));
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
        assert_int_equal(
            bfti_inner_decode(&inner_env, buf, len, NULL, NULL, &node),
            BFT_CORRUPT);
        assert_null(node);
        buf[broken[i].at] = was;
    }
    assert_int_equal(bfti_inner_decode(&inner_env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    bfti_inner_destroy(&inner_env, node);
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
        inner_key_make(&key[i], i, BFTI_KEY_MAX);
        key[i].byte[0] = (uint8_t)i; /* nothing in common */
        keys[i] = inner_slice(&key[i]);
    }
    size_t len = bfti_inner_encode(buf, 1, words, keys, 20);
    assert_int_equal(bfti_inner_decode(&inner_env, buf, len, NULL, NULL, &node),
                     BFT_CORRUPT);
    assert_null(node);
    assert_int_equal(inner_memory.blocks, 0);
    len = bfti_inner_encode(buf, 1, words, keys, 16);
    assert_int_equal(bfti_inner_decode(&inner_env, buf, len, NULL, NULL, &node),
                     BFT_OK);
    bfti_inner_destroy(&inner_env, node);
}

static void children_of_another_place_are_corrupt(void **state)
{
    (void)state;
    uint64_t top;
    struct bfti_inner *root;
    inner_random(17);
    struct images *images = images_of(inner_key_longest, 120, &top);
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
        assert_int_equal(inner_memory.blocks, 0);
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
    inner_random(18);
    struct images *images = images_of(inner_key_longest, 60, &top);
    for (size_t n = 1;; n++) {
        inner_refuse_from(n);
        bft_status status = decode_place(images, top, &root);
        inner_refuse_from(0);
        if (status == BFT_OK)
            break;
        assert_int_equal(status, BFT_NO_MEMORY);
        assert_null(root);
        assert_int_equal(inner_memory.blocks, 0);
    }
    bfti_inner_destroy(&inner_env, root);
    images_free(images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decoded_image_is_the_same_tree),
        cmocka_unit_test(a_node_without_content_answers_nothing_wrong),
        cmocka_unit_test(an_image_may_leave_out_children),
        cmocka_unit_test(a_damaged_image_is_corrupt_or_a_node),
        cmocka_unit_test(each_broken_rule_is_corrupt),
        cmocka_unit_test(an_image_of_too_many_key_bytes_is_corrupt),
        cmocka_unit_test(children_of_another_place_are_corrupt),
        cmocka_unit_test(a_refused_allocation_undoes_a_decode),
    };
    inner_random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
