/*
 * Extents when there is no memory or the disk refuses: without a buffer, or the
 * bits of blocks that are to be used, nothing is written; how many buffers and
 * decompressers are kept; looking through the file; and judging what was copied.
 */
#include "fileio/extent_pool.h"
#include "fileio/pagefile_internal.h"
#include "pagefile_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A look through the file finds all; what the system refuses ends it, and is told.
 * The file ends with a part of a block, behind what is read at once. */
static void a_look_through_the_file_tells_of_the_disk(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_scan scan;
    struct bfti_extent_info info;
    const void *raw;
    uint64_t place;
    size_t raw_len;
    enum { EXTENTS = 70, CHUNK = 1 << 18, TAIL = BFTI_EXTENT_HEADER - 1 };

    pagefile_fixture_open(&f, false);
    uint64_t first = pf_write(&f, 100, 1), last = first;
    for (unsigned i = 1; i < EXTENTS; i++)
        last = pf_write(&f, 100, i + 1);
    assert_true(bfti_disk_grain(last) * BFTI_GRAIN > CHUNK);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    pf_fail_alloc(1);
    EXPECT_STATUS(BFT_NO_MEMORY, bfti_extent_scan_begin(&scan, f.pf));
    bfti_extent_scan_end(&scan);
    EXPECT_STATUS(BFT_OK, bfti_extent_scan_begin(&scan, f.pf));
    for (unsigned failing = 0; failing < 2; failing++) {
        /* The headers; then, those being read, what is behind one. */
        pf_fail_io(&f, BFTI_IO_READ, 1, BFT_IO);
        EXPECT_STATUS(BFT_IO, bfti_extent_scan_next(&scan, &f.scratch, &place,
                                                    &info, &raw, &raw_len));
        EXPECT_STATUS(BFT_OK, bfti_extent_scan_next(&scan, &f.scratch, &place,
                                                    &info, &raw, &raw_len));
        assert_true(failing || place == first);
        assert_int_equal(failing + 1, info.page_id);
    }
    EXPECT_STATUS(BFT_OK, file->ops->truncate(file, CHUNK + TAIL));
    unsigned found = 2;
    do {
        EXPECT_STATUS(BFT_OK, bfti_extent_scan_next(&scan, &f.scratch, &place,
                                                    &info, &raw, &raw_len));
        found += place != 0;
    } while (place != 0);
    assert_int_equal(CHUNK / BFTI_BLOCK - bfti_disk_grain(first) / 8, found);
    bfti_extent_scan_end(&scan);
    pagefile_fixture_close(&f);
}

/* --- the pool ---------------------------------------------------------------------- */

enum { KEPT = 16, AT_OPEN = 2 };

static void every_type_is_found_by_its_grain(void **state)
{
    (void)state;
    struct pagefile_fixture f;

    pagefile_fixture_open(&f, false);
    for (int type = BFTI_EXTENT_LEAF; type <= BFTI_EXTENT_DICTIONARY; type++) {
        struct bfti_extent_info info = {.type = (enum bfti_extent_type)type};
        uint64_t place, found;
        EXPECT_STATUS(BFT_OK, bfti_extent_write(f.pf, &info, "x", 1, &place));
        EXPECT_STATUS(BFT_OK, bfti_extent_find(f.pf, bfti_disk_grain(place),
                                               &f.scratch, &found, &info));
        assert_true(found == place);
        assert_int_equal(type, info.type);
    }
    pagefile_fixture_close(&f);
}

/* Each way to write takes a buffer: without one it says so. */
static void without_a_buffer_nothing_is_written(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_source source[2] = {
        {.info = {.type = BFTI_EXTENT_LEAF}, .raw = "x", .raw_len = 1},
        {.info = {.type = BFTI_EXTENT_LEAF}, .raw = "y", .raw_len = 1},
    };
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    struct bfti_superblock sb = {.major = 1, .log_segment_bytes = 4096};
    struct write_buffer *buffer[AT_OPEN];
    uint64_t place;
    char text[400];

    pagefile_fixture_open(&f, false);
    pf_fail_alloc(1);
    for (unsigned i = 0; i < AT_OPEN; i++)
        EXPECT_STATUS(BFT_OK, bfti_buffer_take(f.pf, &buffer[i]));
    for (unsigned i = 0; i < 8; i++) {
        bft_status status;
        pf_fail_alloc(1 + i % 2); /* its head, its bytes */
        switch (i / 2) {
        case 0:
            status = bfti_extent_write(f.pf, &info, "x", 1, &place);
            break;
        case 1:
            status = bfti_extent_write_apart(f.pf, source, 2);
            break;
        case 2:
            status = bfti_extent_write_at(f.pf, 8, &info, "x", 1, &place);
            break;
        default:
            status = bfti_superblock_write(f.pf, 0, &sb);
            break;
        }
        EXPECT_STATUS(BFT_NO_MEMORY, status);
        (void)bft_last_error(text, sizeof text);
        assert_non_null(strstr(text, "no memory for a write buffer"));
    }
    uint64_t bytes;
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(0, bytes);
    for (unsigned i = 0; i < AT_OPEN; i++)
        bfti_buffer_give(f.pf, buffer[i]);
    /* Two are written as one, and only then one by one. */
    pf_fail_io(&f, BFTI_IO_WRITE, 1, BFT_NO_SPACE);
    EXPECT_STATUS(BFT_OK, bfti_extent_write_apart(f.pf, source, 2));
    pagefile_fixture_close(&f);
}

/* However many were needed at once. */
static void so_many_buffers_are_kept(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct write_buffer *buffer[KEPT + 5];

    pagefile_fixture_open(&f, false);
    for (unsigned i = 0; i < KEPT + 5; i++)
        EXPECT_STATUS(BFT_OK, bfti_buffer_take(f.pf, &buffer[i]));
    for (unsigned i = 0; i < KEPT + 5; i++)
        bfti_buffer_give(f.pf, buffer[i]);
    pf_fail_alloc(1);
    for (unsigned i = 0; i < KEPT; i++)
        EXPECT_STATUS(BFT_OK, bfti_buffer_take(f.pf, &buffer[i]));
    EXPECT_STATUS(BFT_NO_MEMORY, bfti_buffer_take(f.pf, &buffer[KEPT]));
    assert_null(buffer[KEPT]);
    for (unsigned i = 0; i < KEPT; i++)
        bfti_buffer_give(f.pf, buffer[i]);
    pagefile_fixture_close(&f);
}

#if BFT_WITH_ZSTD

/* zstd's frame of 300 bytes 'a'. */
static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x2c, 0x00,
                                0x4d, 0x00, 0x00, 0x10, 0x61, 0x61, 0x01,
                                0x00, 0x27, 0x2a, 0xc0, 0x02};

/* While one decompresser is made another one is needed, and so on. */
static struct {
    struct pagefile_fixture *f;
    void *(*alloc)(void *ctx, size_t bytes);
    void (*free)(void *ctx, void *block);
    unsigned depth, most, freed;
} nested;

static void decompress_letters(void)
{
    char raw[300];
    EXPECT_STATUS(BFT_OK, bfti_decompress(nested.f->pf, NULL, raw, sizeof raw,
                                          frame, sizeof frame));
    for (size_t i = 0; i < sizeof raw; i++)
        assert_int_equal('a', raw[i]);
}

static void *nested_alloc(void *ctx, size_t bytes)
{
    if (nested.depth < nested.most) {
        nested.depth++;
        decompress_letters();
    }
    return nested.alloc(ctx, bytes);
}

static void nested_free(void *ctx, void *block)
{
    nested.freed++;
    nested.free(ctx, block);
}

static void so_many_decompressers_are_kept(void **state)
{
    (void)state;
    static const unsigned most[] = {KEPT - 1, KEPT};
    for (unsigned i = 0; i < 2; i++) {
        struct pagefile_fixture f;
        pagefile_fixture_open(&f, false);
        memset(&nested, 0, sizeof nested);
        nested.f = &f;
        nested.alloc = f.env.alloc;
        nested.free = f.env.free;
        nested.most = most[i];
        f.env.alloc = nested_alloc;
        f.env.free = nested_free;
        decompress_letters();
        assert_int_equal(most[i], nested.depth);
        assert_int_equal(most[i] + 1 > KEPT, nested.freed > 0);
        f.env.alloc = nested.alloc;
        f.env.free = nested.free;
        pagefile_fixture_close(&f);
    }
}

#endif

/* The file grows until there is no memory to note its blocks: what is written then
 * is refused, and takes nothing. */
static void without_memory_the_file_does_not_grow(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static const uint8_t raw[BFTI_EXTENT_RAW_MAX];
    for (unsigned apart = 0; apart < 2; apart++) {
        struct pagefile_fixture f;
        struct bfti_extent_source source[2] = {
            {.info = {.type = BFTI_EXTENT_LEAF}, .raw = raw, .raw_len = 200000},
            {.info = {.type = BFTI_EXTENT_LEAF}, .raw = raw, .raw_len = 200000},
        };
        struct bfti_space_stats before, after;
        bft_status status = BFT_OK;
        unsigned n = 0;

        pagefile_fixture_open(&f, false);
        for (; status == BFT_OK && n < MANY; n++) {
            uint64_t place;
            bfti_space_stats(f.pf, &before);
            pf_fail_alloc(1);
            status = apart ? bfti_extent_write_apart(f.pf, source, 2)
                           : bfti_extent_write(f.pf, &source[0].info, raw,
                                               sizeof raw, &place);
        }
        EXPECT_STATUS(BFT_NO_MEMORY, status);
        assert_true(pf_alloc_failed());
        bfti_space_stats(f.pf, &after);
        assert_int_equal(before.live_bytes, after.live_bytes);
        assert_int_equal(before.private_extents, after.private_extents);
        assert_int_equal(before.extents_written, after.extents_written);
        EXPECT_STATUS(BFT_OK, bfti_extent_write_apart(f.pf, source, 2));
        pagefile_fixture_close(&f);
    }
}

static void *no_memory(void *ctx, size_t bytes)
{
    (void)ctx, (void)bytes;
    return NULL;
}

/* The bits of blocks come from the heap that is named. */
static void the_space_is_in_its_heap(void **state)
{
    (void)state;
    struct pagefile_fixture f;

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 1, 1);
    pagefile_fixture_reopen(&f);
    struct bfti_env heap = f.env;
    heap.alloc = no_memory;
    bfti_pagefile_set_heap(f.pf, &heap);
    EXPECT_STATUS(BFT_NO_MEMORY, bfti_space_reset(f.pf));
    pagefile_fixture_close(&f);
}

/* Also one that ends with what was read of the file. */
static void a_copied_extent_is_judged(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    uint8_t bytes[BFTI_BLOCK];
    size_t got, stored;

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, BFTI_BLOCK - BFTI_EXTENT_HEADER, 3);
    uint64_t grain = bfti_disk_grain(place);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK, file->ops->read(file, grain * BFTI_GRAIN, bytes,
                                          sizeof bytes, &got));
    EXPECT_STATUS(BFT_OK, bfti_extent_judge(f.pf, grain, bytes, got, &stored));
    assert_int_equal(BFTI_BLOCK, stored);
    bytes[got - 1] ^= 1;
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_extent_judge(f.pf, grain, bytes, got, &stored));
    memset(bytes, 0, sizeof bytes);
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_extent_judge(f.pf, grain, bytes, got, &stored));
    assert_int_equal(0, stored);
    /* And one without content. */
    grain = bfti_disk_grain(pf_write(&f, 0, 4));
    EXPECT_STATUS(BFT_OK, file->ops->read(file, grain * BFTI_GRAIN, bytes,
                                          sizeof bytes, &got));
    EXPECT_STATUS(BFT_OK, bfti_extent_judge(f.pf, grain, bytes, got, &stored));
    assert_int_equal(BFTI_EXTENT_HEADER, stored);
    pagefile_fixture_close(&f);
}

static const char *path_of_member(void *ctx, uint64_t block, uint64_t blocks)
{
    *(uint64_t *)ctx = block;
    return blocks == 1 ? "/one" : "/several";
}

/* Of a backup made of several files, one that cannot be told how long it is lies in
 * one block. */
static void a_copied_extent_is_blamed_on_the_file_of_its_block(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    uint8_t bytes[BFTI_GRAIN] = {0};
    uint64_t block = 0, last = 7 * BLOCK_GRAINS + BLOCK_GRAINS - 1;
    char text[200], wanted[60];
    size_t stored;

    pagefile_fixture_open(&f, false);
    f.pf->path_of = path_of_member;
    f.pf->path_of_ctx = &block;
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_extent_judge(f.pf, last, bytes, sizeof bytes, &stored));
    assert_int_equal(7, block);
    (void)bft_last_error(text, sizeof text);
    (void)snprintf(wanted, sizeof wanted, "/one: there is no extent at byte %u",
                   (unsigned)(last * BFTI_GRAIN));
    assert_non_null(strstr(text, wanted));
    f.pf->path_of = NULL;
    pagefile_fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_look_through_the_file_tells_of_the_disk),
        cmocka_unit_test(every_type_is_found_by_its_grain),
        cmocka_unit_test(a_copied_extent_is_judged),
        cmocka_unit_test(a_copied_extent_is_blamed_on_the_file_of_its_block),
        cmocka_unit_test(without_a_buffer_nothing_is_written),
        cmocka_unit_test(without_memory_the_file_does_not_grow),
        cmocka_unit_test(the_space_is_in_its_heap),
        cmocka_unit_test(so_many_buffers_are_kept),
#if BFT_WITH_ZSTD
        cmocka_unit_test(so_many_decompressers_are_kept),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
