/* Shared blocks in the map, in recovery, audits, looks through the file and
 * copies; and how those are emptied of which little lives. */
#include "shared_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    ONE = BFTI_GRAIN - BFTI_EXTENT_HEADER, /* the longest of one grain */
    MANY = 600,
};

/* --- the map -------------------------------------------------------------- */

static void the_map_says_which_grains_an_image_reaches(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = shared_linked(f, 2), left = pf_share(&f->p, ONE, 1),
             b = shared_linked(f, 3);
    uint64_t block = place_block(a);

    assert_int_equal(block, place_block(b));
    assert_int_equal(block, place_block(left));
    shared_checkpoint(f);
    shared_reload(f);
    assert_true(bfti_space_shares(f->p.pf));
    shared_expect(f, a);
    shared_expect(f, b);
    assert_false(bfti_space_is_used(f->p.pf, left));
    assert_false(bfti_space_is_used(f->p.pf, bfti_disk_place(block * 8, 8, 0)));
    assert_int_equal(5 * BFTI_GRAIN + shared_map_blocks(f) * BFTI_BLOCK,
                     shared_stats(f).live_bytes);
    assert_true(place_block(shared_linked(f, 1)) != block);
    shared_unlink(f, a);
    shared_unlink(f, b);
    shared_settle(f);
    assert_false(bit_get(space_chunk_of(&f->p.pf->space, block)->used, block));
    shared_close(f);
}

static void an_abandoned_checkpoint_keeps_the_lists(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = shared_linked(f, 2), fresh[BFTI_MAP_PLACES];
    size_t count;

    shared_checkpoint(f);
    (void)bfti_space_cut(f->p.pf);
    uint64_t b = shared_linked(f, 2);
    EXPECT_STATUS(BFT_OK, bfti_space_write(f->p.pf, f->map, f->map_count, fresh,
                                           BFTI_MAP_PLACES, &count));
    bfti_space_abandon(f->p.pf);
    shared_reload(f);
    shared_expect(f, a);
    assert_false(bfti_space_is_used(f->p.pf, b));
    shared_checkpoint(f);
    shared_checkpoint(f);
    shared_reload(f);
    shared_expect(f, a);
    shared_close(f);
}

/* A map of so many chunks that it has several lists. */
static void a_great_map_has_several_lists(void **state)
{
    (void)state;
    enum { CHUNKS = 130 };
    struct shared_fixture *f = shared_open();
    struct bfti_space *space = &f->p.pf->space;
    uint64_t a = shared_linked(f, 1);

    /* Only the bits: a file with holes. */
    bfti_space_lock(f->p.pf);
    EXPECT_STATUS(BFT_OK, bfti_space_cover_locked(f->p.pf, (uint64_t)CHUNKS *
                                                               CHUNK_BLOCKS));
    space->limit = (uint64_t)CHUNKS * CHUNK_BLOCKS;
    for (uint64_t c = 1; c < CHUNKS; c++)
        for (uint64_t at = 0; at < CHUNK_BLOCKS - 200; at++) {
            uint64_t block = c * CHUNK_BLOCKS + at;
            bfti_space_set_used_locked(space, block, 1);
            assert_true(bfti_share_take_locked(f->p.pf, block, 0x81));
            bfti_space_set_image_locked(
                space, bfti_disk_place(block * 8 + 7, 1, 0), true);
        }
    atomic_store(&f->p.pf->end, space->limit);
    bfti_space_unlock(f->p.pf);
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    EXPECT_STATUS(BFT_OK,
                  file->ops->truncate(file, (uint64_t)CHUNKS * CHUNK_BLOCKS *
                                                BFTI_BLOCK));
    uint64_t fresh[BFTI_MAP_PLACES];
    size_t count;
    (void)bfti_space_cut(f->p.pf);
    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_space_write(f->p.pf, NULL, 0, fresh,
                                           BFTI_MAP_PLACES, &count));
    bfti_space_abandon(f->p.pf);
    shared_checkpoint(f);
    assert_int_equal(2, f->p.pf->space.list_count);
    shared_reload(f);
    assert_int_equal(2, f->p.pf->space.list_count);
    shared_expect(f, a);
    for (uint64_t c = 1; c < CHUNKS; c++) {
        uint64_t grain = (c * CHUNK_BLOCKS + 17) * 8;
        assert_true(
            bfti_space_is_used(f->p.pf, bfti_disk_place(grain + 7, 1, 0)));
        assert_false(bfti_space_is_used(f->p.pf, bfti_disk_place(grain, 1, 0)));
    }
    shared_close(f);
}

/* Each byte of a list, and of the place that names it. */
static void a_damaged_list_is_told(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t list;

    (void)shared_linked(f, 2);
    shared_checkpoint(f);
    assert_int_equal(1, bfti_space_lists(f->p.pf, 0, &list, 1));
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    uint64_t from = bfti_disk_grain(list) * BFTI_GRAIN;
    unsigned len = BFTI_EXTENT_HEADER + 516 + 1;
    for (unsigned i = 0; i < len; i += 7) {
        uint8_t byte, flipped;
        size_t got;
        EXPECT_STATUS(BFT_OK, file->ops->read(file, from + i, &byte, 1, &got));
        flipped = byte ^ 0x10;
        EXPECT_STATUS(BFT_OK, file->ops->write(file, from + i, &flipped, 1));
        EXPECT_STATUS(
            BFT_CORRUPT,
            bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
        char text[BFTI_ERROR_MAX];
        (void)bft_last_error(text, sizeof text);
        assert_non_null(strstr(text, "free-space map, part 0"));
        EXPECT_STATUS(BFT_OK, file->ops->write(file, from + i, &byte, 1));
    }
    shared_reload(f);
    shared_close(f);
}

/* --- maps that no version writes ------------------------------------------ */

/* A list, and the part of a map that names it, with checksums that are
 * right. */
struct forged {
    enum bfti_extent_type type;
    uint64_t page_id;
    uint32_t chunk[2]; /* of its records */
    unsigned records;
    uint64_t word; /* of blocks that they are about */
    size_t cut;    /* bytes that lack at its end */
    uint8_t mask;
    unsigned names; /* times that the part names it */
    size_t more;    /* bytes behind that */
    bool outside;   /* it is in no block of the image */
    bool beyond;    /* the map has two chunks, the file one */
};

enum { RECORD = 4 + 512 };

static size_t list_bytes(const struct forged *forged, uint8_t *at)
{
    size_t len = 0;

    for (unsigned i = 0; i < forged->records; i++) {
        unsigned blocks = (unsigned)__builtin_popcountll(forged->word);
        le32 chunk = le32_of(forged->chunk[i]);
        le64 word = le64_of(forged->word);
        memset(at + len, 0, RECORD);
        memcpy(at + len, &chunk, sizeof chunk);
        memcpy(at + len + sizeof chunk, &word, sizeof word);
        memset(at + len + RECORD, forged->mask, blocks);
        len += RECORD + blocks;
    }
    return len - forged->cut;
}

static bft_status load_forged(const struct forged *forged)
{
    struct shared_fixture *f = shared_open();
    struct bfti_pagefile *pf = f->p.pf;
    struct bfti_extent_info info = {forged->type, 0, forged->page_id, 0};
    uint8_t bytes[2 * (RECORD + 64)], part[BFTI_BLOCK] = {0};
    uint64_t list, place, first = UINT64_MAX;

    /* Of the first 64 blocks all are in the image; the file has 128. */
    bfti_extent_discard(pf, pf_write(&f->p, 500000, 1));
    uint64_t filler = forged->outside ? pf_write(&f->p, 260000, 1) : 0;
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_write_alone(pf, &info, bytes,
                                          list_bytes(forged, bytes), &list));
    if (filler != 0) {
        assert_true(place_block(list) >= 64);
        bfti_extent_discard(pf, filler);
    }
    size_t blocks = forged->beyond ? 2 * CHUNK_BLOCKS : 128;
    le64 head[2] = {le64_of(0), le64_of(blocks)}, word = le64_of(first);
    size_t len = 0;
    memcpy(part, head, sizeof head);
    memcpy(part + 16, &word, sizeof word);
    len = 16 + blocks / 64 * sizeof word;
    for (unsigned i = 0; i < forged->names; i++) {
        le64 name = le64_of(list);
        memcpy(part + len, &name, sizeof name);
        len += sizeof name;
    }
    len += forged->more;
    info = (struct bfti_extent_info){BFTI_EXTENT_MAP, 0, 0, 0};
    EXPECT_STATUS(BFT_OK,
                  bfti_extent_write_alone(pf, &info, part, len, &place));
    assert_true(place_block(place) < 64);
    bft_status status = bfti_space_load(pf, &place, 1, &f->p.scratch);
    shared_close(f);
    return status;
}

static void lists_that_no_version_writes_are_told(void **state)
{
    const struct forged right = {.type = BFTI_EXTENT_MAP,
                                 .page_id = 1 << 16,
                                 .records = 1,
                                 .word = UINT64_C(3) << 40,
                                 .mask = 0x31,
                                 .names = 1};
    struct forged wrong[15];
    (void)state;

    EXPECT_STATUS(BFT_OK, load_forged(&right));
    for (unsigned i = 0; i < 15; i++)
        wrong[i] = right;
    wrong[0].type = BFTI_EXTENT_TABLE;
    wrong[1].page_id++;
    wrong[2].word = 0;
    wrong[3].cut = 1;
    wrong[4].cut = RECORD + 1;
    wrong[5].mask = 0;
    wrong[6].chunk[0] = 1; /* of the next part */
    wrong[7].records = 2;  /* the same chunk twice */
    wrong[8].word = 4 | 2; /* a superblock */
    wrong[9].names = 11;
    wrong[10].more = 4;
    wrong[11].outside = true;
    wrong[12].records = 0;
    wrong[13].page_id = 2 << 16;
    wrong[14].chunk[0] = wrong[14].beyond = 1;
    for (unsigned i = 0; i < 15; i++)
        EXPECT_STATUS(BFT_CORRUPT, load_forged(&wrong[i]));
}

/* A shared block that the image does not have. */
static void a_list_of_free_blocks_is_told(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place = shared_linked(f, 2);

    shared_checkpoint(f);
    /* The same lists, and the part of an image without that block. */
    uint8_t part[BFTI_BLOCK];
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    EXPECT_STATUS(BFT_OK, bfti_extent_read(f->p.pf, f->map[0], &f->p.scratch,
                                           &info, &raw, &len));
    memcpy(part, raw, len);
    part[16 + place_block(place) / 8] &=
        (uint8_t) ~(1u << place_block(place) % 8);
    EXPECT_STATUS(BFT_OK, bfti_extent_write_at(f->p.pf, place_block(f->map[0]),
                                               &info, part, len, &f->map[0]));
    EXPECT_STATUS(BFT_CORRUPT, bfti_space_load(f->p.pf, f->map, f->map_count,
                                               &f->p.scratch));
    shared_close(f);
}

/* --- failures ------------------------------------------------------------- */

static void a_map_that_fails_leaves_the_older_one(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = shared_linked(f, 2), fresh[BFTI_MAP_PLACES], private[62];
    size_t count;

    shared_checkpoint(f);
    /* So many that there is room for one more to be kept aside: for a part. */
    for (unsigned i = 0; i < 62; i++)
    private[i] = pf_share(&f->p, ONE, 1);
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        (void)bfti_space_cut(f->p.pf);
        pf_fail_alloc(nth);
        bft_status status = bfti_space_write(f->p.pf, f->map, f->map_count,
                                             fresh, BFTI_MAP_PLACES, &count);
        failed = pf_alloc_failed();
        pf_fail_alloc(0);
        EXPECT_STATUS(failed ? BFT_NO_MEMORY : BFT_OK, status);
        assert_true(bfti_space_shares(f->p.pf));
        bfti_space_abandon(f->p.pf);
    }
    (void)bfti_space_cut(f->p.pf);
    pf_fail_io(&f->p, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_space_write(f->p.pf, f->map, f->map_count, fresh,
                                           BFTI_MAP_PLACES, &count));
    bfti_space_abandon(f->p.pf);
    for (unsigned i = 0; i < 62; i++)
        bfti_extent_discard(f->p.pf, private[i]);
    shared_settle(f);
    shared_reload(f);
    shared_expect(f, a);
    shared_close(f);
}

static void without_memory_no_lists_are_loaded(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();

    (void)shared_linked(f, 2);
    shared_checkpoint(f);
    shared_reload(f); /* there is memory to read with */
    for (uint64_t nth = 1;; nth++) {
        pf_fail_alloc(nth);
        bft_status status =
            bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch);
        bool failed = pf_alloc_failed();
        pf_fail_alloc(0);
        if (!failed) {
            EXPECT_STATUS(BFT_OK, status);
            assert_true(nth > 2);
            break;
        }
        EXPECT_STATUS(BFT_NO_MEMORY, status);
    }
    shared_close(f);
}

/* --- recovery, audit, scan ------------------------------------------------ */

static void grains_may_be_reserved(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t a = shared_linked(f, 2), private = pf_share(&f->p, ONE, 1);
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f->p.pf));
    uint64_t left = pf_share(&f->p, ONE, 1), b = shared_linked(f, 3);
    assert_int_equal(place_block(left), place_block(b));

    bfti_extent_discard(f->p.pf, pf_write(&f->p, 100000, 1));
    shared_checkpoint(f);
    shared_reload(f);
    /* Beside what the image has. */
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, private));
    assert_true(bfti_space_is_used(f->p.pf, private));
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, a));
    assert_int_equal(1, shared_stats(f).private_extents);
    bfti_extent_discard(f->p.pf, private);
    shared_expect(f, a);
    uint64_t front = bfti_disk_place(place_block(b) * 8, 1, 0);
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, front));
    bfti_extent_discard(f->p.pf, front);
    /* In a block that nobody has; and where that cannot be noted. */
    uint64_t far = bfti_disk_place((place_block(a) + 5) * 8 + 3, 2, 0);
    EXPECT_STATUS(BFT_OK, bfti_extent_reserve(f->p.pf, far));
    assert_true(bfti_space_is_used(f->p.pf, far));
    bfti_extent_discard(f->p.pf, far);
    /* What cannot be is let be: it lies across others, or within one. */
    uint64_t alone = pf_write(&f->p, ONE, 1);
    EXPECT_STATUS(
        BFT_OK, bfti_extent_reserve(f->p.pf,
                                    bfti_disk_place(place_block(a) * 8, 8, 0)));
    EXPECT_STATUS(
        BFT_OK,
        bfti_extent_reserve(f->p.pf,
                            bfti_disk_place(place_block(alone) * 8 + 1, 1, 0)));
    bfti_extent_discard(f->p.pf, alone);
    shared_expect(f, a);
    assert_int_equal(0, shared_stats(f).private_extents);
    shared_close(f);
}

static void reserving_needs_memory(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place = shared_linked(f, 8);

    bfti_extent_discard(f->p.pf, pf_write(&f->p, 100000, 1));
    shared_checkpoint(f);
    shared_reload(f);
    uint64_t used = f->p.pf->space.used_blocks;
    uint64_t far = bfti_disk_place((place_block(place) + 5) * 8 + 3, 2, 0);
    pf_fail_alloc(1);
    EXPECT_STATUS(BFT_NO_MEMORY, bfti_extent_reserve(f->p.pf, far));
    pf_fail_alloc(0);
    assert_int_equal(used, f->p.pf->space.used_blocks);
    assert_int_equal(used * BLOCK_GRAINS, f->p.pf->space.used_grains);
    shared_close(f);
}

static void mark_all(struct shared_fixture *f, const uint64_t *places, size_t n)
{
    uint64_t list;
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    for (size_t i = 0; i < f->map_count; i++)
        assert_true(bfti_space_audit_mark(f->p.pf, f->map[i]));
    for (size_t i = 0; bfti_space_lists(f->p.pf, i, &list, 1) == 1; i++)
        assert_true(bfti_space_audit_mark(f->p.pf, list));
    for (size_t i = 0; i < n; i++)
        assert_true(bfti_space_audit_mark(f->p.pf, places[i]));
}

static void the_audit_looks_at_grains(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place[3] = {shared_linked(f, 2), shared_linked(f, 3),
                         shared_linked(f, 2)};

    shared_checkpoint(f);
    mark_all(f, place, 3);
    assert_int_equal(0, bfti_space_audit_end(f->p.pf));
    mark_all(f, place, 2); /* one of them belongs to nobody */
    assert_int_equal(1, bfti_space_audit_end(f->p.pf));
    mark_all(f, place, 0);
    assert_int_equal(1, bfti_space_audit_end(f->p.pf));
    mark_all(f, place, 2); /* one grain of two owners */
    assert_false(bfti_space_audit_mark(
        f->p.pf, bfti_disk_place(bfti_disk_grain(place[1]) + 2, 2, 0)));
    (void)bfti_space_audit_end(f->p.pf);
    shared_unlink(f, place[2]); /* held is not leaked */
    mark_all(f, place, 2);
    assert_int_equal(0, bfti_space_audit_end(f->p.pf));
    /* A block that is shared since it began. */
    mark_all(f, place, 2);
    shared_reload(f);
    shared_close(f);
}

static void a_chunk_shared_since_an_audit_began_is_no_fault(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();

    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    uint64_t a = shared_linked(f, 2), b = shared_linked(f, 2);
    assert_true(bfti_space_audit_mark(f->p.pf, a));
    assert_true(bfti_space_audit_mark(f->p.pf, b));
    assert_int_equal(0, bfti_space_audit_end(f->p.pf));

    /* Nor is one that is not shared any more, or that was not there. */
    struct bfti_space *space = &f->p.pf->space;
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    shared_unlink(f, a);
    shared_unlink(f, b);
    shared_settle(f);
    bfti_space_lock(f->p.pf);
    EXPECT_STATUS(BFT_OK, bfti_space_cover_locked(f->p.pf, 2 * CHUNK_BLOCKS));
    uint64_t limit = space->limit;
    space->limit = 2 * CHUNK_BLOCKS;
    bfti_space_set_used_locked(space, limit, CHUNK_BLOCKS - (unsigned)limit);
    bfti_space_unlock(f->p.pf);
    uint64_t far;
    do
        far = shared_linked(f, 4);
    while (place_block(far) < CHUNK_BLOCKS);
    assert_true(bfti_space_audit_mark(f->p.pf, far));
    assert_true(bfti_space_audit_end(f->p.pf) > 0);
    shared_close(f);
}

static void without_memory_there_is_no_audit(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();

    (void)shared_linked(f, 2);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        pf_fail_alloc(nth);
        EXPECT_STATUS(BFT_NO_MEMORY, bfti_space_audit_begin(f->p.pf));
    }
    pf_fail_alloc(0);
    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(f->p.pf));
    assert_int_equal(1, bfti_space_audit_end(f->p.pf));
    shared_close(f);
}

static void a_look_through_the_file_finds_each(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t rng = random_start(), place[40];
    struct bfti_extent_scan scan;
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    uint64_t found;
    unsigned count = 0;

    for (unsigned i = 0; i < 40; i++)
        place[i] = shared_linked(f, 1 + (unsigned)(random_of(&rng) % 12));
    EXPECT_STATUS(BFT_OK, bfti_extent_scan_begin(&scan, f->p.pf));
    for (;;) {
        EXPECT_STATUS(BFT_OK, bfti_extent_scan_next(&scan, &f->p.scratch,
                                                    &found, &info, &raw, &len));
        if (found == 0)
            break;
        unsigned i = 0;
        while (i < 40 && place[i] != found)
            i++;
        assert_true(i < 40);
        count++;
    }
    assert_int_equal(40, count);
    bfti_extent_scan_end(&scan);
    /* And each by its first grain. */
    for (unsigned i = 0; i < 40; i++) {
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_find(f->p.pf, bfti_disk_grain(place[i]),
                                       &f->p.scratch, &found, &info));
        assert_true(found == place[i]);
    }
    shared_close(f);
}

/* The last grain of a longer one is a copy of one that is whole. */
static void what_looks_like_one_within_another_is_not_found(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    uint64_t place[10] = {shared_linked(f, 1)}, found;
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, 1, 1};
    uint8_t copy[BFTI_GRAIN], bytes[16 * BFTI_GRAIN] = {0};
    struct bfti_extent_scan scan;
    const void *raw;
    size_t len;
    unsigned count = 0;

    EXPECT_STATUS(BFT_OK,
                  file->ops->read(file, bfti_disk_grain(place[0]) * BFTI_GRAIN,
                                  copy, sizeof copy, &len));
    for (unsigned i = 1; i < 10; i++) {
        len = (size_t)(i + 7) * BFTI_GRAIN - BFTI_EXTENT_HEADER;
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes + len - sizeof copy, copy, sizeof copy);
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_write(f->p.pf, &info, bytes, len, &place[i]));
    }
    EXPECT_STATUS(BFT_OK, bfti_extent_scan_begin(&scan, f->p.pf));
    for (;; count++) {
        EXPECT_STATUS(BFT_OK, bfti_extent_scan_next(&scan, &f->p.scratch,
                                                    &found, &info, &raw, &len));
        if (found == 0)
            break;
        assert_true(count < 10 && found == place[count]);
    }
    assert_int_equal(10, count);
    bfti_extent_scan_end(&scan);
    for (unsigned i = 1; i < 10; i++)
        bfti_extent_discard(f->p.pf, place[i]);
    shared_close(f);
}

/* --- copies --------------------------------------------------------------- */

static bft_status no_progress(void *ctx, const struct bfti_image_progress *now)
{
    (void)ctx;
    (void)now;
    return BFT_OK;
}

static bft_status copy(struct shared_fixture *f, struct pagefile_fixture *to)
{
    const struct bfti_image_copying how = {no_progress, NULL, NULL};
    return bfti_image_copy(f->p.pf, f->map, f->map_count, to->pf, &how);
}

static void a_copy_has_the_grains_of_its_image(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t rng = random_start(), place[MANY], out[MANY / 8];
    struct pagefile_fixture to = f->p;
    uint8_t bytes[BFTI_GRAIN], zeros[BFTI_GRAIN] = {0};
    size_t got;

    for (unsigned i = 0; i < MANY; i++) {
        place[i] = shared_linked(f, 1 + (unsigned)(random_of(&rng) % 10));
        if (i % 8 == 0)
            out[i / 8] = pf_share(&f->p, ONE, 3);
    }
    shared_checkpoint(f);
    to.options.path = "copy";
    to.options.create = true;
    EXPECT_STATUS(BFT_OK, bfti_pagefile_open(&to.options, &to.pf));
    EXPECT_STATUS(BFT_OK, copy(f, &to));
    bfti_pagefile_close(to.pf);
    bfti_pagefile_close(f->p.pf);
    f->p.options.path = "copy";
    EXPECT_STATUS(BFT_OK, bfti_pagefile_open(&f->p.options, &f->p.pf));
    EXPECT_STATUS(
        BFT_OK, bfti_space_load(f->p.pf, f->map, f->map_count, &f->p.scratch));
    for (unsigned i = 0; i < MANY; i++)
        shared_expect(f, place[i]);
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    for (unsigned i = 0; i < MANY / 8; i++) {
        EXPECT_STATUS(
            BFT_OK, file->ops->read(file, bfti_disk_grain(out[i]) * BFTI_GRAIN,
                                    bytes, sizeof bytes, &got));
        assert_memory_equal(bytes, zeros, got);
    }
    shared_close(f);
}

/* Flipped bytes of any extent in a shared block, and a length that lies. */
static void damage_in_a_shared_block_ends_a_copy(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place[3] = {shared_linked(f, 2), shared_linked(f, 3),
                         shared_linked(f, 2)};
    struct pagefile_fixture to = f->p;

    shared_checkpoint(f);
    to.options.path = "copy";
    to.options.create = true;
    EXPECT_STATUS(BFT_OK, bfti_pagefile_open(&to.options, &to.pf));
    EXPECT_STATUS(BFT_OK, copy(f, &to));
    struct bfti_file *file = bfti_pagefile_file(f->p.pf);
    const unsigned at[] = {0, 4, 8, 9, 10, 12, 100};
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < sizeof at / sizeof *at; k++) {
            uint64_t offset = bfti_disk_grain(place[i]) * BFTI_GRAIN + at[k];
            uint8_t byte, flipped;
            size_t got;
            EXPECT_STATUS(BFT_OK,
                          file->ops->read(file, offset, &byte, 1, &got));
            flipped = byte ^ 0x10;
            EXPECT_STATUS(BFT_OK, file->ops->write(file, offset, &flipped, 1));
            EXPECT_STATUS(BFT_CORRUPT, copy(f, &to));
            EXPECT_STATUS(BFT_OK, file->ops->write(file, offset, &byte, 1));
        }
    EXPECT_STATUS(BFT_OK, copy(f, &to));
    bfti_pagefile_close(to.pf);
    shared_close(f);
}

/* --- cleaning ------------------------------------------------------------- */

struct moved {
    uint64_t place[4 * MANY];
    size_t count;
};

/* What the engine does: copy what is to go, and unlink it. */
static unsigned pass(struct shared_fixture *f, struct moved *m, bool *begun)
{
    struct bfti_pagefile *pf = f->p.pf;
    uint64_t grain;
    unsigned moves = 0;

    *begun = bfti_space_clean_begin(pf, &grain);
    if (!*begun)
        return 0;
    while ((grain = bfti_space_clean_next(pf, grain)) != 0) {
        struct bfti_extent_info info;
        uint64_t place;
        size_t i = 0;
        EXPECT_STATUS(
            BFT_OK, bfti_extent_find(pf, grain, &f->p.scratch, &place, &info));
        while (i < m->count && (m->place[i] != place || place == 0))
            i++;
        grain += place != 0 ? bfti_disk_grains(place) : 1;
        if (i == m->count)
            continue; /* of the map */
        assert_true(bfti_space_is_high(pf, place));
        uint64_t fresh = shared_linked(f, bfti_disk_grains(place));
        assert_false(bfti_space_is_high(pf, fresh) &&
                     place_block(fresh) < place_block(place));
        shared_unlink(f, place);
        m->place[i] = fresh;
        moves++;
    }
    shared_checkpoint(f);
    bfti_space_twin(pf);
    shared_release(f);
    shared_checkpoint(f);
    bfti_space_twin(pf);
    shared_release(f);
    bfti_space_clean_end(pf);
    return moves;
}

static void what_nobody_moves_is_let_be(void **state)
{
    (void)state;
    struct shared_fixture *f = shared_open();
    uint64_t place[MANY], from;
    unsigned passes = 0, sparse = 0, grains[4] = {0};

    f->p.pf->space.hole_floor = 4;
    for (unsigned i = 0; i < MANY; i++)
        place[i] = shared_linked(f, 1 + i % 2);
    for (unsigned i = 0; i < MANY; i++)
        if (i % 7 != 0)
            shared_unlink(f, place[i]);
    shared_settle(f);
    while (passes < 9 && bfti_space_clean_begin(f->p.pf, &from)) {
        passes++;
        if (f->p.pf->space.ceiling == BLOCKS_MAX)
            grains[sparse++] = f->p.pf->space.sparse_grains;
        assert_false(bfti_space_is_high(
                         f->p.pf, bfti_disk_place((uint64_t)1 << 30, 1, 0)) &&
                     f->p.pf->space.ceiling == BLOCKS_MAX);
        bfti_space_clean_end(f->p.pf);
    }
    assert_int_equal(4, passes);
    assert_int_equal(2, sparse);
    assert_true(grains[0] < grains[1]);
    shared_close(f);
}

/* However few live in each block, in the end the file is not half longer than
 * what lives in it, and then nothing is moved any more. */
static void blocks_of_which_little_lives_are_emptied(void **state)
{
    (void)state;
    uint64_t rng = random_start();

    for (unsigned keep = 2; keep <= 12; keep += 5) {
        struct shared_fixture *f = shared_open();
        struct moved *m = calloc(1, sizeof *m);
        unsigned passes = 0;
        bool begun = true;
        f->p.pf->space.hole_floor = 4;
        for (unsigned i = 0; i < 4 * MANY; i++)
            m->place[m->count++] =
                shared_linked(f, 1 + (unsigned)(random_of(&rng) % 4));
        shared_checkpoint(f);
        for (size_t i = 0; i < m->count; i++)
            if (i % keep != 0 && m->place[i] != 0) {
                shared_unlink(f, m->place[i]);
                m->place[i] = 0;
            }
        shared_settle(f);
        bfti_space_twin(f->p.pf);
        for (; begun && passes < 12; passes++)
            (void)pass(f, m, &begun);
        assert_false(begun);
        struct bfti_space_stats now = shared_stats(f);
        print_message("one of %u lives: %u passes, %llu of %llu bytes\n", keep,
                      passes, (unsigned long long)now.live_bytes,
                      (unsigned long long)now.file_bytes);
        /* The end is cut off by the MiB. */
        assert_true(f->p.pf->space.used_blocks * 2 <=
                    3 * (now.live_bytes / BFTI_BLOCK + 8));
        for (size_t i = 0; i < m->count; i++)
            if (m->place[i] != 0)
                shared_expect(f, m->place[i]);
        free(m);
        shared_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_says_which_grains_an_image_reaches),
        cmocka_unit_test(an_abandoned_checkpoint_keeps_the_lists),
        cmocka_unit_test(a_great_map_has_several_lists),
        cmocka_unit_test(a_damaged_list_is_told),
        cmocka_unit_test(lists_that_no_version_writes_are_told),
        cmocka_unit_test(a_list_of_free_blocks_is_told),
        cmocka_unit_test(a_map_that_fails_leaves_the_older_one),
        cmocka_unit_test(without_memory_no_lists_are_loaded),
        cmocka_unit_test(grains_may_be_reserved),
        cmocka_unit_test(reserving_needs_memory),
        cmocka_unit_test(the_audit_looks_at_grains),
        cmocka_unit_test(a_chunk_shared_since_an_audit_began_is_no_fault),
        cmocka_unit_test(without_memory_there_is_no_audit),
        cmocka_unit_test(a_look_through_the_file_finds_each),
        cmocka_unit_test(what_looks_like_one_within_another_is_not_found),
        cmocka_unit_test(a_copy_has_the_grains_of_its_image),
        cmocka_unit_test(damage_in_a_shared_block_ends_a_copy),
        cmocka_unit_test(what_nobody_moves_is_let_be),
        cmocka_unit_test(blocks_of_which_little_lives_are_emptied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
