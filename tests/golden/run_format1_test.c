/* Run images of format 1, byte for byte: what is on disk stays readable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "records.h"

static const uint8_t large[16] = {
    8, 7, 6, 5, 4, 3, 2, 1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
};

/* Every operation; keys that only differ by zero bytes; an empty value. */
static const struct {
    const char *key;
    size_t key_len;
    uint8_t op, flags;
    const void *value;
    size_t value_len;
} content[] = {
    {"leaf:a", 6, BFTI_OP_CACHED, 0, "one", 3},
    {"leaf:b", 6, BFTI_OP_DELETE, 0, NULL, 0},
    {"leaf:b\0", 7, BFTI_OP_PUT, BFTI_REC_LARGE, large, 16},
    {"leaf:c", 6, BFTI_OP_ABSENT, 0, NULL, 0},
    {"leaf:dddddd", 11, BFTI_OP_PUT, 0, "", 0},
};
enum { COUNT = sizeof content / sizeof *content };

/* clang-format off */
/* A mini-page's run, all kept. */
static const uint8_t all[] = {
    /* header: bytes, count, dead, prefix, low, high, flags */
    0xa0, 0x00, 0x00, 0x00, 0x05, 0x00, 0x01, 0x00,
    0x05, 0x00, 0x05, 0x00, 0x04, 0x00, 0x01, 0x00,
    /* sibling, beneath, tree, reserved */
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    0xf8, 0xf7, 0xf6, 0xf5, 0xf4, 0xf3, 0xf2, 0xf1,
    0xee, 0xff, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00,
    /* slots: head, offset, key, value, op, flags */
    0x00, 0x00, 0x00, 0x61, 0x82, 0x00, 0x01, 0x00, 0x03, 0x00, 0x03, 0x00,
    0x00, 0x00, 0x00, 0x62, 0x86, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00,
    0x00, 0x00, 0x00, 0x62, 0x87, 0x00, 0x02, 0x00, 0x10, 0x00, 0x01, 0x01,
    0x00, 0x00, 0x00, 0x63, 0x99, 0x00, 0x01, 0x00, 0x00, 0x00, 0x04, 0x00,
    0x64, 0x64, 0x64, 0x64, 0x9a, 0x00, 0x06, 0x00, 0x00, 0x00, 0x01, 0x00,
    /* dead */
    0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0xad, 0xde, 0x00,
    /* prefix, low, high */
    0x6c, 0x65, 0x61, 0x66, 0x3a, 0x6c, 0x65, 0x61, 0x66, 0x3a, 0x6c, 0x65,
    0x61, 0x67,
    /* suffixes and values */
    0x61, 0x6f, 0x6e, 0x65, 0x62, 0x62, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04,
    0x03, 0x02, 0x01, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x63,
    0x64, 0x64, 0x64, 0x64, 0x64, 0x64,
};

/* The base page of the same: what has a value, as puts; no dead. */
static const uint8_t base[] = {
    /* header: bytes, count, dead, prefix, low, high, flags */
    0x76, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
    0x05, 0x00, 0x05, 0x00, 0x04, 0x00, 0x01, 0x00,
    /* sibling, beneath, tree, reserved */
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xee, 0xff, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00,
    /* slots: head, offset, key, value, op, flags */
    0x00, 0x00, 0x00, 0x61, 0x5a, 0x00, 0x01, 0x00, 0x03, 0x00, 0x01, 0x00,
    0x00, 0x00, 0x00, 0x62, 0x5e, 0x00, 0x02, 0x00, 0x10, 0x00, 0x01, 0x01,
    0x64, 0x64, 0x64, 0x64, 0x70, 0x00, 0x06, 0x00, 0x00, 0x00, 0x01, 0x00,
    /* prefix, low, high */
    0x6c, 0x65, 0x61, 0x66, 0x3a, 0x6c, 0x65, 0x61, 0x66, 0x3a, 0x6c, 0x65,
    0x61, 0x67,
    /* suffixes and values */
    0x61, 0x6f, 0x6e, 0x65, 0x62, 0x00, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03,
    0x02, 0x01, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x64, 0x64,
    0x64, 0x64, 0x64, 0x64,
};
/* clang-format on */

static struct bfti_run_spec
make_spec(struct bfti_view *views, struct bfti_large *dead, enum bfti_keep keep)
{
    for (size_t i = 0; i < COUNT; i++)
        views[i] = (struct bfti_view){
            .prefix = (const uint8_t *)content[i].key,
            .suffix = (const uint8_t *)content[i].key + 2,
            .value = content[i].value,
            .prefix_len = 2,
            .suffix_len = (uint16_t)(content[i].key_len - 2),
            .value_len = (uint32_t)content[i].value_len,
            .op = content[i].op,
            .flags = content[i].flags,
        };
    *dead = (struct bfti_large){le64_of(0x1000), le64_of(0xdeadull << 40)};
    return (struct bfti_run_spec){
        .view = views,
        .count = COUNT,
        .dead = dead,
        .dead_count = 1,
        .keep = keep,
        .low = {"leaf:", 5},
        .high = {"leag", 4},
        .sibling = 0x0102030405060708,
        .beneath = keep == BFTI_KEEP_ALL ? 0xf1f2f3f4f5f6f7f8 : 0,
        .tree_id = 0x00c0ffee,
    };
}

static void expect_image(enum bfti_keep keep, const uint8_t *want, size_t len)
{
    struct bfti_view views[COUNT];
    struct bfti_large dead;
    struct bfti_run_spec spec = make_spec(views, &dead, keep);
    uint8_t image[400];

    assert_int_equal(bfti_run_size(&spec), len);
    assert_int_equal(bfti_run_build(image, &spec), len);
    assert_memory_equal(image, want, len);
}

static void a_built_run_is_the_stored_image(void **state)
{
    (void)state;
    expect_image(BFTI_KEEP_ALL, all, sizeof all);
    expect_image(BFTI_KEEP_VALUES, base, sizeof base);
}

static void the_stored_image_reads_as_it_was_written(void **state)
{
    (void)state;
    const struct bfti_run *run = (const struct bfti_run *)all;

    assert_null(bfti_run_check(all, sizeof all));
    assert_int_equal(bfti_run_count(run), COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        struct bfti_view v = bfti_run_view(run, i);
        struct record r = {.key_len = content[i].key_len,
                           .value_len = content[i].value_len,
                           .flags = content[i].flags};
        bool found;
        memcpy(r.key, content[i].key, r.key_len);
        if (r.value_len > 0)
            memcpy(r.value, content[i].value, r.value_len);
        record_expect(&r, content[i].op, &v);
        assert_int_equal(bfti_run_search(run, record_key(&r), &found), i);
        assert_true(found);
    }
    struct bfti_large dead = bfti_run_dead(run, 0);
    assert_true(le64_get(dead.bytes) == 0x1000);
    assert_true(le64_get(dead.place) == 0xdeadull << 40);
    assert_true(bfti_run_sibling(run) == 0x0102030405060708);
    assert_true(le64_get(run->beneath) == 0xf1f2f3f4f5f6f7f8);
    assert_int_equal(le32_get(run->tree_id), 0x00c0ffee);
    assert_int_equal(
        bfti_key_compare(bfti_run_low(run), (bft_slice){"leaf:", 5}), 0);
    assert_int_equal(
        bfti_key_compare(bfti_run_high(run), (bft_slice){"leag", 4}), 0);
}

static void the_stored_base_page_reads_as_puts(void **state)
{
    (void)state;
    static const unsigned kept[] = {0, 2, 4};
    const struct bfti_run *run = (const struct bfti_run *)base;

    assert_null(bfti_run_check(base, sizeof base));
    assert_int_equal(bfti_run_count(run), 3);
    for (unsigned i = 0; i < 3; i++) {
        struct bfti_view v = bfti_run_view(run, i);
        assert_int_equal(v.op, BFTI_OP_PUT);
        assert_int_equal(v.flags, content[kept[i]].flags);
        assert_int_equal(
            bfti_view_compare_key(&v, (bft_slice){content[kept[i]].key,
                                                  content[kept[i]].key_len}),
            0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_built_run_is_the_stored_image),
        cmocka_unit_test(the_stored_image_reads_as_it_was_written),
        cmocka_unit_test(the_stored_base_page_reads_as_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
