/* Extents: what is written is read back, and nothing else ever is. */
#include "fileio/pagefile_internal.h"
#include "pagefile_fixture.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

static const size_t lengths[] = {
    0,
    1,
    471,
    472,
    473,
    4055,
    4056,
    4057,
    8152,
    8153,
    32768,
    100000,
    BFTI_EXTENT_RAW_MAX - 1,
    BFTI_EXTENT_RAW_MAX,
};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static void round_trip(bool compress)
{
    struct pagefile_fixture f;
    uint64_t place[LENGTHS];

    _Atomic size_t held = 0;

    pagefile_fixture_open(&f, compress);
    f.scratch.held = &held;
    for (size_t i = 0; i < LENGTHS; i++) {
        place[i] = pf_write(&f, lengths[i], i);
        assert_int_equal(bfti_place_tag(place[i]), BFTI_TAG_DISK);
        assert_int_equal(bfti_disk_grain(place[i]) % 8, 0);
        assert_int_equal(bfti_disk_grains(place[i]),
                         (lengths[i] + BFTI_EXTENT_HEADER + 511) / 512);
    }
    for (size_t i = 0; i < LENGTHS; i++)
        pf_expect(&f, place[i], lengths[i], i);
    assert_in_range(atomic_load(&held), BFTI_EXTENT_RAW_MAX, 1 << 20);
    bfti_scratch_free(&f.env, &f.scratch);
    assert_int_equal(0, atomic_load(&held));
    pagefile_fixture_close(&f);
}

static void every_length_comes_back(void **state)
{
    (void)state;
    round_trip(false);
    round_trip(true); /* random bytes: nothing is saved, all stay plain */
}

static void an_extent_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    uint64_t place = 1;
    void *raw = calloc(1, BFTI_EXTENT_RAW_MAX + 1);

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(
        BFT_TOO_BIG,
        bfti_extent_write(f.pf, &info, raw, BFTI_EXTENT_RAW_MAX + 1, &place));
    assert_int_equal(place, 0);
    free(raw);
    pagefile_fixture_close(&f);
}

/* --- compression ---------------------------------------------------------- */

#if BFT_WITH_ZSTD

static void compression_is_used_where_it_saves_space(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info = {BFTI_EXTENT_VALUE, 1, 2, 3}, got;
    struct bfti_space_stats stats;
    enum { LEN = 100000 };
    char *text = malloc(LEN);
    const void *raw;
    size_t raw_len;
    uint64_t place;

    for (size_t i = 0; i < LEN; i++)
        text[i] = "the quick brown fox "[i % 20];
    pagefile_fixture_open(&f, true);
    EXPECT_STATUS(BFT_OK, bfti_extent_write(f.pf, &info, text, LEN, &place));
    assert_true(bfti_disk_grains(place) <= 8);
    EXPECT_STATUS(BFT_OK, bfti_extent_read(f.pf, place, &f.scratch, &got, &raw,
                                           &raw_len));
    assert_int_equal(raw_len, LEN);
    assert_memory_equal(raw, text, LEN);
    assert_int_equal(got.type, BFTI_EXTENT_VALUE);
    bfti_space_stats(f.pf, &stats);
    assert_int_equal(stats.compressed_extents, 1);

    /* Of one block it has to leave half a block, of less a grain. */
    EXPECT_STATUS(BFT_OK, bfti_extent_write(f.pf, &info, text, 4000, &place));
    EXPECT_STATUS(BFT_OK, bfti_extent_write(f.pf, &info, text, 1000, &place));
    bfti_space_stats(f.pf, &stats);
    assert_int_equal(stats.compressed_extents, 3);
    assert_int_equal(bfti_disk_grains(place), 1);
    free(text);
    pagefile_fixture_close(&f);
}

#endif

/* Write BYTES as they are at block 2 and give a place that fits them. */
static uint64_t plant(struct pagefile_fixture *f, uint8_t *bytes, size_t len)
{
    struct bfti_extent_header head;
    memcpy(&head, bytes, sizeof head);
    head.stored_len = le32_of((uint32_t)len);
    memcpy(bytes, &head, sizeof head);
    head.checksum = le32_of(bfti_crc32c(0, bytes + 4, len - 4));
    memcpy(bytes, &head, sizeof head);

    struct bfti_file *file = bfti_pagefile_file(f->pf);
    EXPECT_STATUS(BFT_OK, file->ops->write(file, 2 * BFTI_BLOCK, bytes, 4096));
    return bfti_disk_place(16, (unsigned)(len + 511) / 512,
                           le32_get(head.checksum) & 0xffff);
}

static bft_status read_status(struct pagefile_fixture *f, uint64_t place)
{
    struct bfti_extent_info info;
    const void *raw = f;
    size_t raw_len = 1;
    bft_status status =
        bfti_extent_read(f->pf, place, &f->scratch, &info, &raw, &raw_len);
    if (status != BFT_OK) {
        assert_null(raw);
        assert_int_equal(raw_len, 0);
    }
    return status;
}

/* zstd's frame of 300 bytes 'a', so that this also runs without zstd. */
static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x2c, 0x00,
                                0x4d, 0x00, 0x00, 0x10, 0x61, 0x61, 0x01,
                                0x00, 0x27, 0x2a, 0xc0, 0x02};

static void a_foreign_compressed_extent_is_read_or_told(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    uint8_t bytes[4096] = {0};
    struct bfti_extent_header head = {.type = 1, .codec = 1};

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 1, 1); /* so that the file has a block 2 */
    head.raw_len = le32_of(300);
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, frame, sizeof frame);
    uint64_t place = plant(&f, bytes, sizeof head + sizeof frame);
#if BFT_WITH_ZSTD
    EXPECT_STATUS(BFT_OK, read_status(&f, place));

    /* The checksum is right and the content is not: no overrun, no surprise. */
    head.raw_len = le32_of(299);
    memcpy(bytes, &head, sizeof head);
    place = plant(&f, bytes, sizeof head + sizeof frame);
    EXPECT_STATUS(BFT_CORRUPT, read_status(&f, place));
    head.raw_len = le32_of(301);
    memcpy(bytes, &head, sizeof head);
    place = plant(&f, bytes, sizeof head + sizeof frame);
    EXPECT_STATUS(BFT_CORRUPT, read_status(&f, place));
#else
    char text[400];
    EXPECT_STATUS(BFT_UNSUPPORTED, read_status(&f, place));
    (void)bft_last_error(text, sizeof text);
    assert_string_equal(text, "data: extent at byte 8192, 512 bytes: it is "
                              "compressed, and this build has no zstd");
#endif
    pagefile_fixture_close(&f);
}

static void an_unknown_codec_is_too_new(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    uint8_t bytes[4096] = {0};
    struct bfti_extent_header head = {.type = 1, .codec = 2};

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 1, 1);
    head.raw_len = le32_of(60);
    memcpy(bytes, &head, sizeof head);
    EXPECT_STATUS(BFT_TOO_NEW, read_status(&f, plant(&f, bytes, 100)));
    head.codec = 0;
    head.dictionary = le16_of(1);
    memcpy(bytes, &head, sizeof head);
    EXPECT_STATUS(BFT_TOO_NEW, read_status(&f, plant(&f, bytes, 100)));
    /* Of a tree that has none. */
    head.codec = 1;
    memcpy(bytes, &head, sizeof head);
    EXPECT_STATUS(BFT_WITH_ZSTD ? BFT_CORRUPT : BFT_UNSUPPORTED,
                  read_status(&f, plant(&f, bytes, 100)));
    pagefile_fixture_close(&f);
}

/* Lengths that no version writes are damage, checksum or not. */
static void impossible_lengths_are_damage(void **state)
{
    (void)state;
    static const struct {
        unsigned stored_len, codec;
        uint32_t raw_len;
        const char *words; /* NULL: nothing is wrong */
    } cases[] = {
        {100, 0, 60, NULL},
        {100, 0, 61, "payload's length"},
        {100, 0, 0, "payload's length"},
        {100, 1, BFTI_EXTENT_RAW_MAX + 1, "payload's length"},
        {39, 0, 0, "its length is not the one"},
        {40, 0, 0, NULL},
    };
    struct pagefile_fixture f;
    char text[400];

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[4096] = {0};
        struct bfti_extent_header head = {
            .type = 1,
            .codec = (uint8_t)cases[i].codec,
            .raw_len = le32_of(cases[i].raw_len),
        };
        memcpy(bytes, &head, sizeof head);
        uint64_t place = plant(&f, bytes, cases[i].stored_len);
        EXPECT_STATUS(cases[i].words ? BFT_CORRUPT : BFT_OK,
                      read_status(&f, place));
        (void)bft_last_error(text, sizeof text);
        if (cases[i].words)
            assert_non_null(strstr(text, cases[i].words));
    }
    pagefile_fixture_close(&f);
}

/* What is whole, and not what was looked for. */
static void an_extent_of_another_type_is_told(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    char text[400];

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, 1000, 4);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_read_as(f.pf, place, BFTI_EXTENT_LEAF, &f.scratch,
                                      &info, &raw, &raw_len));
    assert_int_equal(1000, raw_len);
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_extent_read_as(f.pf, place, BFTI_EXTENT_VALUE,
                                      &f.scratch, &info, &raw, &raw_len));
    (void)bft_last_error(text, sizeof text);
    assert_non_null(strstr(text, "its type is"));
    pf_fail_io(&f, BFTI_IO_READ, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO,
                  bfti_extent_read_as(f.pf, place, BFTI_EXTENT_LEAF, &f.scratch,
                                      &info, &raw, &raw_len));
    pagefile_fixture_close(&f);
}

/* --- damage --------------------------------------------------------------- */

static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    enum { LEN = 600 };
    uint8_t byte;
    size_t got;

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, LEN, 3);
    uint64_t at = bfti_disk_grain(place) * BFTI_GRAIN;
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    for (uint64_t i = at; i < at + BFTI_EXTENT_HEADER + LEN; i++) {
        EXPECT_STATUS(BFT_OK, file->ops->read(file, i, &byte, 1, &got));
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t wrong = (uint8_t)(byte ^ 1u << bit);
            EXPECT_STATUS(BFT_OK, file->ops->write(file, i, &wrong, 1));
            EXPECT_STATUS(BFT_CORRUPT, read_status(&f, place));
        }
        EXPECT_STATUS(BFT_OK, file->ops->write(file, i, &byte, 1));
    }
    pf_expect(&f, place, LEN, 3);
    pagefile_fixture_close(&f);
}

/* H30: a lost write leaves the page's older extent, whole and valid. */
static void an_older_extent_in_the_same_blocks_is_found(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    uint8_t block[BFTI_BLOCK];
    size_t got;

    pagefile_fixture_open(&f, false);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    uint64_t older = pf_write(&f, 1000, 4);
    uint64_t at = bfti_disk_grain(older) * BFTI_GRAIN;
    EXPECT_STATUS(BFT_OK, file->ops->read(file, at, block, sizeof block, &got));
    bfti_extent_discard(f.pf, older);
    uint64_t newer = pf_write(&f, 1000, 5);
    assert_int_equal(bfti_disk_grain(newer), bfti_disk_grain(older));
    EXPECT_STATUS(BFT_OK, file->ops->write(file, at, block, sizeof block));
    EXPECT_STATUS(BFT_CORRUPT, read_status(&f, newer));
    pagefile_fixture_close(&f);
}

static void impossible_places_are_refused(void **state)
{
    (void)state;
    struct pagefile_fixture f;

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, 5000, 6);
    uint64_t grain = bfti_disk_grain(place);
    unsigned grains = bfti_disk_grains(place), seal = bfti_disk_seal(place);
    EXPECT_STATUS(BFT_OK, read_status(&f, place));

    const uint64_t bad[] = {
        0,
        UINT64_MAX,
        place & UINT64_MAX >> 2,               /* no tag */
        place | (uint64_t)1 << BFTI_TAG_SHIFT, /* another tag */
        bfti_disk_place(0, grains, seal),      /* superblocks */
        bfti_disk_place(8, grains, seal),
        bfti_disk_place(grain, 0, seal),
        bfti_disk_place(grain, BFTI_EXTENT_GRAINS_MAX + 1, seal),
        bfti_disk_place(grain, grains - 1, seal), /* another length */
        bfti_disk_place(grain, grains + 1, seal),
        bfti_disk_place(grain, grains, seal ^ 1),     /* another seal */
        bfti_disk_place(grain + 1, grains, seal),     /* across blocks */
        bfti_disk_place(grain + 1, 1, seal),          /* within one */
        bfti_disk_place(grain + 80000, grains, seal), /* past the end */
        bfti_disk_place(0xfffffffffu, grains, seal),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        EXPECT_STATUS(BFT_CORRUPT, read_status(&f, bad[i]));
    assert_true(bfti_place_valid(bfti_disk_place(17, 7, 0)));
    assert_false(bfti_place_valid(bfti_disk_place(17, 8, 0)));
    pagefile_fixture_close(&f);
}

static void a_file_cut_short_is_found(void **state)
{
    (void)state;
    struct pagefile_fixture f;

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, 3000, 7);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    uint64_t bytes = bfti_disk_grain(place) * BFTI_GRAIN + 3000;
    EXPECT_STATUS(BFT_OK, file->ops->truncate(file, bytes));
    EXPECT_STATUS(BFT_CORRUPT, read_status(&f, place));
    pagefile_fixture_close(&f);
}

/* What a buffer held before never gets into the file. */
static void what_lies_behind_an_extent_is_zero(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    const size_t len[] = {100, BFTI_BLOCK + 1 - BFTI_EXTENT_HEADER};
    uint8_t bytes[2 * BFTI_BLOCK];
    size_t got;

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 50000, 8);
    for (size_t i = 0; i < 2; i++) {
        uint64_t place = pf_write(&f, len[i], 9);
        struct bfti_file *file = bfti_pagefile_file(f.pf);
        EXPECT_STATUS(BFT_OK,
                      file->ops->read(file, bfti_disk_grain(place) * BFTI_GRAIN,
                                      bytes, sizeof bytes, &got));
        assert_int_equal(got, (i + 1) * BFTI_BLOCK);
        for (size_t at = BFTI_EXTENT_HEADER + len[i]; at < got; at++)
            assert_int_equal(bytes[at], 0);
    }
    pagefile_fixture_close(&f);
}

/* --- several at once ------------------------------------------------------ */

enum { SEVERAL = 40 };

struct several {
    struct bfti_extent_source source[SEVERAL];
    uint8_t raw[SEVERAL][9000];
};

/* Of one to three blocks. */
static struct several *several_make(void)
{
    struct several *s = calloc(1, sizeof *s);
    assert_non_null(s);
    for (size_t i = 0; i < SEVERAL; i++) {
        struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, i, i};
        size_t len = 1 + i * 8999 / (SEVERAL - 1);
        pf_fill(s->raw[i], len, i);
        s->source[i].info = info;
        s->source[i].raw = s->raw[i];
        s->source[i].raw_len = len;
    }
    return s;
}

static void several_expect(struct pagefile_fixture *f, const struct several *s)
{
    for (size_t i = 0; i < SEVERAL; i++) {
        struct bfti_extent_info got;
        const void *raw;
        size_t raw_len;
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_read(f->pf, s->source[i].place, &f->scratch,
                                       &got, &raw, &raw_len));
        assert_int_equal(raw_len, s->source[i].raw_len);
        assert_memory_equal(raw, s->raw[i], raw_len);
        assert_int_equal(got.page_id, i);
    }
}

static void several_discard(struct pagefile_fixture *f, const struct several *s)
{
    bfti_extent_set_apart(f->pf, false, SEVERAL);
    for (size_t i = 0; i < SEVERAL; i++)
        bfti_extent_discard(f->pf, s->source[i].place);
}

static void several_extents_lie_side_by_side(void **state)
{
    (void)state;
    for (unsigned compress = 0; compress < 2; compress++) {
        struct pagefile_fixture f;
        struct several *s = several_make();
        struct bfti_space_stats before, after;
        struct bfti_extent_source *last = &s->source[SEVERAL - 1];

        if (compress != 0) { /* of a tree of which nothing is known */
            memset(s->raw[SEVERAL - 1], 0, last->raw_len);
            last->info.tree_id = 2;
        }
        pagefile_fixture_open(&f, compress != 0);
        bfti_space_stats(f.pf, &before);
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_write_apart(f.pf, s->source, SEVERAL));
        bfti_space_stats(f.pf, &after);
        assert_int_equal(after.extents_written - before.extents_written,
                         SEVERAL);
        assert_int_equal(after.private_extents - before.private_extents,
                         SEVERAL);
        assert_true((bfti_disk_grains(last->place) == 1) ==
                    (BFT_WITH_ZSTD && compress != 0));
        several_expect(&f, s);
        /* Compressed ones may share blocks. */
        for (size_t i = 1; i < SEVERAL && compress == 0; i++) {
            uint64_t end = bfti_disk_grain(s->source[i - 1].place) +
                           bfti_disk_grains(s->source[i - 1].place);
            assert_int_equal((end + 7) / 8 * 8,
                             bfti_disk_grain(s->source[i].place));
        }
        /* What is set apart is kept out of maps. */
        uint64_t place[BFTI_MAP_PLACES];
        size_t count = 0;
        pf_checkpoint(&f, place, &count, 0);
        several_expect(&f, s);
        several_discard(&f, s);
        bfti_space_stats(f.pf, &after);
        assert_int_equal(after.private_extents, before.private_extents);
        free(s);
        pagefile_fixture_close(&f);
    }
}

/* Open what was fetched as number I: its STATUS, or its bytes. */
static void fetched_expect(struct pagefile_fixture *f, const struct several *s,
                           const struct bfti_fetch *fetch, size_t i)
{
    struct bfti_extent_info got;
    const void *raw;
    size_t raw_len;
    EXPECT_STATUS(BFT_OK, fetch->status);
    EXPECT_STATUS(BFT_OK, bfti_extent_open(f->pf, fetch->place, fetch->stored,
                                           &f->scratch, &got, &raw, &raw_len));
    assert_int_equal(raw_len, s->source[i].raw_len);
    assert_memory_equal(raw, s->raw[i], raw_len);
    assert_int_equal(got.page_id, i);
}

static void several_are_fetched_each_with_its_status(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct several *s = several_make();
    struct bfti_fetch fetch[SEVERAL] = {{0}};
    uint8_t *stored = malloc(SEVERAL * 10240);
    struct bfti_extent_info got;
    struct bfti_space_stats stats;
    const void *raw;
    size_t raw_len;
    char text[400];

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_extent_write_apart(f.pf, s->source, SEVERAL));
    for (size_t i = 0; i < SEVERAL; i++) {
        fetch[i].place = s->source[i].place;
        fetch[i].stored = stored + i * 10240;
        assert_true(bfti_extent_stored_max(fetch[i].place) <= 10240);
    }
    bfti_extents_fetch(f.pf, fetch, SEVERAL);
    for (size_t i = 0; i < SEVERAL; i++)
        fetched_expect(&f, s, &fetch[i], i);

    /* Two that cannot be read, one that is no place, one beyond the end. */
    pf_fail_io(&f, BFTI_IO_READ, 2, BFT_IO);
    fetch[3].place = 12345;
    fetch[7].place = bfti_disk_place((uint64_t)1 << 30, 1, 7);
    bfti_extents_fetch(f.pf, fetch, SEVERAL);
    EXPECT_STATUS(BFT_IO, fetch[0].status);
    EXPECT_STATUS(BFT_IO, fetch[1].status);
    EXPECT_STATUS(BFT_CORRUPT, fetch[3].status);
    EXPECT_STATUS(BFT_CORRUPT, fetch[7].status);
    bfti_space_stats(f.pf, &stats);
    assert_int_equal(2 * SEVERAL - 4, stats.extents_read);
    for (size_t i = 2; i < SEVERAL; i++)
        if (i != 3 && i != 7)
            fetched_expect(&f, s, &fetch[i], i);

    /* What is damaged is found by who opens it, with the place. */
    ((uint8_t *)fetch[5].stored)[60] ^= 1;
    EXPECT_STATUS(BFT_CORRUPT,
                  bfti_extent_open(f.pf, fetch[5].place, fetch[5].stored,
                                   &f.scratch, &got, &raw, &raw_len));
    EXPECT_STATUS(BFT_CORRUPT, bfti_extent_wrong(f.pf, fetch[5].place, NULL));
    (void)bft_last_error(text, sizeof text);
    assert_non_null(strstr(text, "extent at byte"));
    assert_non_null(strstr(text, "checksum"));
    fetched_expect(&f, s, &fetch[6], 6);
    several_discard(&f, s);
    free(stored);
    free(s);
    pagefile_fixture_close(&f);
}

/* Calls that were made, or are to be. */
static struct {
    uint64_t from[SEVERAL], len[SEVERAL];
    size_t count;
    const struct bfti_vfs_ops *real;
    struct bfti_vfs *reaped;
    unsigned writes_left;
} watch;

static bft_status reap_note(struct bfti_vfs *vfs, size_t min)
{
    watch.reaped = vfs;
    return watch.real->reap(vfs, min);
}

static bft_status write_some(struct bfti_file *file, uint64_t offset,
                             const void *buf, size_t len)
{
    return watch.writes_left-- > 0 ? watch.real->write(file, offset, buf, len)
                                   : BFT_IO;
}

static void announce_note(struct bfti_file *file, uint64_t offset, size_t len)
{
    (void)file;
    assert_true(watch.count < SEVERAL);
    watch.from[watch.count] = offset;
    watch.len[watch.count++] = len;
}

/* How many requests tell of N extents, each at a block and of so many grains; of
 * them the LAST bytes are the last one's. */
static void announce_expect(struct bfti_pagefile *pf, size_t requests,
                            size_t last, size_t n, const unsigned at[][2])
{
    uint64_t place[3] = {0};
    for (size_t i = 0; i < n; i++)
        place[i] =
            bfti_disk_place((uint64_t)at[i][0] * BLOCK_GRAINS, at[i][1], 0);
    watch.count = 0;
    bfti_extents_advise(pf, place, n);
    assert_int_equal(requests, watch.count);
    if (n > 0) {
        assert_int_equal(watch.from[0], 10 * BFTI_BLOCK);
        assert_int_equal(watch.len[requests - 1], last);
    }
}

static void what_lies_together_is_announced_as_one(void **state)
{
    (void)state;
    enum { BLOCKS_16 = 16 * BLOCK_GRAINS };
    struct pagefile_fixture f;
    struct several *s = several_make();
    struct bfti_fetch fetch[SEVERAL] = {{0}};
    uint8_t *stored = malloc(SEVERAL * 10240);

    pagefile_fixture_open(&f, false);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    struct bfti_vfs_ops ops = *file->ops;
    watch.real = file->ops;
    ops.reap = reap_note;
    ops.advise = announce_note;
    ops.overlaps = NULL;
    file->ops = &ops;
    announce_expect(f.pf, 0, 0, 0, NULL);
    announce_expect(f.pf, 1, 1536, 1, (const unsigned[][2]){{10, 3}});
    announce_expect(f.pf, 1, 8704, 3,
                    (const unsigned[][2]){{12, 1}, {10, 7}, {11, 8}});
    announce_expect(f.pf, 2, 512, 2, (const unsigned[][2]){{10, 8}, {12, 1}});
    announce_expect(f.pf, 1, 32 * BFTI_BLOCK, 2,
                    (const unsigned[][2]){{10, BLOCKS_16}, {26, BLOCKS_16}});
    announce_expect(
        f.pf, 2, 16 * BFTI_BLOCK + 512, 2,
        (const unsigned[][2]){{10, BLOCKS_16}, {26, BLOCKS_16 + 1}});

    /* All that is fetched. */
    EXPECT_STATUS(BFT_OK, bfti_extent_write_apart(f.pf, s->source, SEVERAL));
    for (size_t i = 0; i < SEVERAL; i++) {
        fetch[i].place = s->source[i].place;
        fetch[i].stored = stored + i * 10240;
    }
    watch.count = 0;
    bfti_extents_fetch(f.pf, fetch, SEVERAL);
    assert_ptr_equal(f.vfs, watch.reaped);
    for (size_t i = 0, k = 0; i < SEVERAL; i++) {
        uint64_t at = bfti_disk_grain(fetch[i].place) * BFTI_GRAIN;
        while (k < watch.count && at >= watch.from[k] + watch.len[k])
            k++;
        assert_true(k < watch.count && at >= watch.from[k]);
    }
    several_discard(&f, s);
    free(stored);
    free(s);
    pagefile_fixture_close(&f);
}

/* The disk has no room for all in one piece: they go where there is room.  What
 * fails in the middle leaves nothing. */
static void several_extents_are_written_wholly_or_not(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct several *s = several_make();
    struct bfti_space_stats before, after;

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 10, 1);
    bfti_space_stats(f.pf, &before);
    pf_fail_io(&f, BFTI_IO_WRITE, 1, BFT_NO_SPACE);
    EXPECT_STATUS(BFT_OK, bfti_extent_write_apart(f.pf, s->source, SEVERAL));
    several_expect(&f, s);
    several_discard(&f, s);
    const bft_status errors[] = {BFT_NO_SPACE, BFT_IO};
    for (size_t i = 0; i < 2; i++) {
        pf_fail_io(&f, BFTI_IO_WRITE, 2, errors[i]);
        EXPECT_STATUS(errors[i],
                      bfti_extent_write_apart(f.pf, s->source, SEVERAL));
        pf_fail_io(&f, BFTI_IO_WRITE, 0, errors[i]);
        bfti_space_stats(f.pf, &after);
        assert_int_equal(after.live_bytes, before.live_bytes);
        assert_int_equal(after.private_extents, before.private_extents);
    }
    /* One by one from the beginning. */
    pagefile_fixture_close(&f);
    pagefile_fixture_open(&f, true);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    struct bfti_vfs_ops ops = *file->ops;
    watch.real = file->ops;
    ops.write = write_some;
    file->ops = &ops;
    for (unsigned i = 0; i < 3; i++) {
        watch.writes_left = i;
        EXPECT_STATUS(BFT_IO,
                      bfti_extent_write_apart(f.pf, s->source, SEVERAL));
        bfti_space_stats(f.pf, &after);
        assert_int_equal(after.live_bytes, 0);
        assert_int_equal(after.private_extents, 0);
    }
    free(s);
    pagefile_fixture_close(&f);
}

/* --- failures ------------------------------------------------------------- */

static void a_failed_write_gives_its_blocks_back(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    struct bfti_space_stats before, after;
    uint8_t raw[10000] = {0};
    uint64_t place;

    pagefile_fixture_open(&f, false);
    uint64_t first = pf_write(&f, 10, 1);
    bfti_space_stats(f.pf, &before);
    const bft_status errors[] = {BFT_NO_SPACE, BFT_IO};
    for (size_t i = 0; i < 2; i++) {
        pf_fail_io(&f, BFTI_IO_WRITE, 1, errors[i]);
        EXPECT_STATUS(errors[i],
                      bfti_extent_write(f.pf, &info, raw, sizeof raw, &place));
        assert_int_equal(place, 0);
    }
    bfti_space_stats(f.pf, &after);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.extents_written, before.extents_written);
    uint64_t second = pf_write(&f, sizeof raw, 2);
    assert_int_equal(bfti_disk_grain(second), bfti_disk_grain(first) + 8);
    pf_expect(&f, second, sizeof raw, 2);
    pagefile_fixture_close(&f);
}

static void a_failed_read_is_not_damage(void **state)
{
    (void)state;
    struct pagefile_fixture f;

    pagefile_fixture_open(&f, false);
    uint64_t place = pf_write(&f, 10, 1);
    pf_fail_io(&f, BFTI_IO_READ, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, read_status(&f, place));
    pf_expect(&f, place, 10, 1);
    pagefile_fixture_close(&f);
}

/* Open, write, read; whichever allocation fails, all is undone. */
static void a_copy_that_fails_has_no_place(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF};
    uint64_t place = 1;

    pagefile_fixture_open(&f, false);
    pf_fail_io(&f, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_extent_write_at(f.pf, 8, &info, "x", 1, &place));
    assert_int_equal(0, place);
    EXPECT_STATUS(BFT_OK, bfti_extent_write_at(f.pf, 8, &info, "x", 1, &place));
    assert_int_not_equal(0, place);
    pagefile_fixture_close(&f);
}

/* What begins at a grain is found when it is whole; else nothing is, and that
 * is no failure, but what the system refuses is. */
static void what_begins_at_a_grain_is_found(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info;
    uint64_t place, found;
    uint8_t byte;
    size_t got;

    pagefile_fixture_open(&f, false);
    place = pf_write(&f, 5000, 3);
    uint64_t grain = bfti_disk_grain(place), at = grain * BFTI_GRAIN;
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_find(f.pf, grain, &f.scratch, &found, &info));
    assert_true(found == place);
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_find(f.pf, grain + 1, &f.scratch, &found, &info));
    assert_int_equal(0, found);
    static const struct {
        uint64_t byte;
        uint8_t flip;
    } harm[] = {{4999, 1}, {5, 2}, {4, 0x80}}; /* payload, codec, type */
    for (size_t i = 0; i < sizeof harm / sizeof *harm; i++) {
        uint64_t where = at + harm[i].byte;
        EXPECT_STATUS(BFT_OK, file->ops->read(file, where, &byte, 1, &got));
        byte ^= harm[i].flip;
        EXPECT_STATUS(BFT_OK, file->ops->write(file, where, &byte, 1));
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_find(f.pf, grain, &f.scratch, &found, &info));
        assert_int_equal(0, found);
        byte ^= harm[i].flip;
        EXPECT_STATUS(BFT_OK, file->ops->write(file, where, &byte, 1));
    }
    /* Behind the end there is none; and where superblocks are none can be. */
    EXPECT_STATUS(BFT_OK, bfti_extent_find(f.pf, grain + 50 * BLOCK_GRAINS,
                                           &f.scratch, &found, &info));
    assert_int_equal(0, found);
    uint8_t copy[2 * BFTI_BLOCK];
    EXPECT_STATUS(BFT_OK, file->ops->read(file, at, copy, sizeof copy, &got));
    EXPECT_STATUS(BFT_OK, file->ops->write(file, 0, copy, sizeof copy));
    EXPECT_STATUS(BFT_OK, bfti_extent_find(f.pf, 0, &f.scratch, &found, &info));
    assert_int_equal(0, found);
    for (unsigned nth = 1; nth <= 2; nth++) {
        pf_fail_io(&f, BFTI_IO_READ, nth, BFT_IO);
        EXPECT_STATUS(BFT_IO,
                      bfti_extent_find(f.pf, grain, &f.scratch, &found, &info));
        assert_int_equal(0, found);
        pf_fail_io(&f, BFTI_IO_READ, 0, BFT_OK);
    }
    /* One byte over a grain; and the largest there can be. */
    const size_t len[] = {BFTI_GRAIN + 1 - BFTI_EXTENT_HEADER,
                          BFTI_EXTENT_RAW_MAX};
    for (size_t i = 0; i < 2; i++) {
        place = pf_write(&f, len[i], i);
        grain = bfti_disk_grain(place);
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_find(f.pf, grain, &f.scratch, &found, &info));
        assert_true(found == place);
    }
    bfti_scratch_free(&f.env, &f.scratch);
    pf_fail_alloc(1);
    EXPECT_STATUS(BFT_NO_MEMORY,
                  bfti_extent_find(f.pf, grain, &f.scratch, &found, &info));
    pagefile_fixture_close(&f);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_extent_info info = {.type = BFTI_EXTENT_LEAF}, got;
    char *text = calloc(1, 60000);
    const void *raw;
    size_t raw_len;
    uint64_t nth = 0, place;

    pagefile_fixture_open(&f, true);
    struct bfti_pagefile *first = f.pf;
    do {
        struct bfti_scratch scratch = {0};
        struct bfti_pagefile *pf = NULL;
        pf_fail_alloc(++nth);
        bft_status status = bfti_pagefile_open(&f.options, &pf);
        if (status == BFT_OK)
            status = bfti_space_reset(pf);
        if (status == BFT_OK)
            status = bfti_extent_write(pf, &info, text, 60000, &place);
        if (status == BFT_OK)
            status =
                bfti_extent_read(pf, place, &scratch, &got, &raw, &raw_len);
        /* A compressor that cannot be made is done without. */
        if (status != BFT_OK)
            EXPECT_STATUS(BFT_NO_MEMORY, status);
        bfti_scratch_free(&f.env, &scratch);
        bfti_pagefile_close(pf);
    } while (pf_alloc_failed());
    assert_true(nth > 8);
    pf_fail_alloc(0);
    free(text);
    f.pf = first;
    pagefile_fixture_close(&f);
}

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 150 };

struct worker {
    struct pagefile_fixture *f;
    unsigned number;
    _Atomic bool failed;
};

static bft_status worker_round(struct worker *w, struct bfti_scratch *scratch,
                               uint8_t *bytes, uint64_t salt)
{
    size_t len = (size_t)(random_of(&salt) % 20000);
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, w->number, salt, 0}, got;
    const void *raw;
    size_t raw_len;
    uint64_t place;

    pf_fill(bytes, len, salt);
    memset(bytes, (int)w->number, len / 2); /* something to compress */
    bft_status status = bfti_extent_write(w->f->pf, &info, bytes, len, &place);
    if (status != BFT_OK)
        return status;
    status = bfti_extent_read(w->f->pf, place, scratch, &got, &raw, &raw_len);
    if (status != BFT_OK)
        return status;
    if (raw_len != len || memcmp(raw, bytes, len) != 0 || got.page_id != salt)
        return BFT_CORRUPT;
    if (salt % 3 == 0)
        bfti_extent_discard(w->f->pf, place);
    return BFT_OK;
}

static void worker_run(void *arg)
{
    struct worker *w = arg;
    struct bfti_scratch scratch = {0};
    uint8_t *bytes = malloc(20000);

    for (uint64_t i = 0; i < ROUNDS; i++)
        if (worker_round(w, &scratch, bytes, w->number * 1000 + i) != BFT_OK)
            w->failed = true;
    bfti_scratch_free(&w->f->env, &scratch);
    free(bytes);
}

static void threads_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct worker worker[THREADS];
    struct bfti_thread *thread[THREADS];

    pagefile_fixture_open(&f, true);
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i].f = &f;
        worker[i].number = i;
        worker[i].failed = false;
        EXPECT_STATUS(BFT_OK, f.env.thread_start(f.env.ctx, worker_run,
                                                 &worker[i], &thread[i]));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        f.env.thread_join(f.env.ctx, thread[i]);
        assert_false(worker[i].failed);
    }
    pagefile_fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_comes_back),
        cmocka_unit_test(an_extent_over_the_limit_is_refused),
#if BFT_WITH_ZSTD
        cmocka_unit_test(compression_is_used_where_it_saves_space),
#endif
        cmocka_unit_test(a_foreign_compressed_extent_is_read_or_told),
        cmocka_unit_test(an_unknown_codec_is_too_new),
        cmocka_unit_test(impossible_lengths_are_damage),
        cmocka_unit_test(an_extent_of_another_type_is_told),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(an_older_extent_in_the_same_blocks_is_found),
        cmocka_unit_test(impossible_places_are_refused),
        cmocka_unit_test(a_file_cut_short_is_found),
        cmocka_unit_test(what_lies_behind_an_extent_is_zero),
        cmocka_unit_test(several_extents_lie_side_by_side),
        cmocka_unit_test(several_are_fetched_each_with_its_status),
        cmocka_unit_test(what_lies_together_is_announced_as_one),
        cmocka_unit_test(several_extents_are_written_wholly_or_not),
        cmocka_unit_test(a_failed_write_gives_its_blocks_back),
        cmocka_unit_test(a_failed_read_is_not_damage),
        cmocka_unit_test(a_copy_that_fails_has_no_place),
        cmocka_unit_test(what_begins_at_a_grain_is_found),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(threads_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
