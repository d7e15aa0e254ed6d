/* Superblocks: written alternately, judged one by one; and syncs. */
#include "pagefile_fixture.h"

#include <string.h>

enum { MEANT = 512 }; /* bytes of a superblock's block that mean something */

static struct bfti_superblock sample(uint64_t sequence)
{
    struct bfti_superblock sb = {
        .major = BFTI_FORMAT_MAJOR,
        .minor = BFTI_FORMAT_MINOR + 5,
        .must_know = BFTI_FEATURE_DELTA_LISTS,
        .must_know_to_write = BFTI_FEATURE_EXPIRY,
        .may_ignore = 0x8000000000000001u,
        .incarnation = 0xfedcba98u,
        .sequence = sequence,
        .redo_lsn = 0x1122334455667788u,
        .durable_mark = 0x99aabbccddeeff00u,
        .log_segment_bytes = 16 << 20,
        .page_ids = (uint64_t)1 << 47,
        .next_tree_id = 77,
        .map_count = BFTI_MAP_PLACES,
        .root_count = BFTI_ROOT_PLACES,
    };
    pf_fill(sb.database_id, sizeof sb.database_id, 1);
    for (unsigned i = 0; i < BFTI_MAP_PLACES; i++)
        sb.map[i] = bfti_disk_place(16 + i * 8, 8, i);
    for (unsigned i = 0; i < BFTI_ROOT_PLACES; i++)
        sb.root[i] = bfti_disk_place(800 + i * 8, 8, i);
    return sb;
}

static void expect_same(const struct bfti_superblock *a,
                        const struct bfti_superblock *b)
{
    assert_int_equal(a->major, b->major);
    assert_int_equal(a->minor, b->minor);
    assert_true(a->must_know == b->must_know);
    assert_true(a->must_know_to_write == b->must_know_to_write);
    assert_true(a->may_ignore == b->may_ignore);
    assert_memory_equal(a->database_id, b->database_id, 16);
    assert_int_equal(a->incarnation, b->incarnation);
    assert_true(a->sequence == b->sequence);
    assert_true(a->redo_lsn == b->redo_lsn);
    assert_true(a->durable_mark == b->durable_mark);
    assert_true(a->log_segment_bytes == b->log_segment_bytes);
    assert_true(a->page_ids == b->page_ids);
    assert_int_equal(a->next_tree_id, b->next_tree_id);
    assert_int_equal(a->map_count, b->map_count);
    assert_memory_equal(a->map, b->map, sizeof a->map);
    assert_int_equal(a->root_count, b->root_count);
    assert_memory_equal(a->root, b->root, sizeof a->root);
}

static void expect_verdicts(struct pagefile_fixture *f, bft_status first,
                            bft_status second)
{
    struct bfti_superblock slot[2];
    bft_status verdict[2];

    EXPECT_STATUS(BFT_OK, bfti_superblock_read(f->pf, slot, verdict));
    EXPECT_STATUS(first, verdict[0]);
    EXPECT_STATUS(second, verdict[1]);
}

static void a_new_file_has_none(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(1);

    pagefile_fixture_open(&f, false);
    expect_verdicts(&f, BFT_NOT_FOUND, BFT_NOT_FOUND);
    (void)pf_write(&f, 10, 1); /* the file has blocks 0 and 1 now, all zero */
    expect_verdicts(&f, BFT_NOT_FOUND, BFT_NOT_FOUND);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &sb));
    expect_verdicts(&f, BFT_NOT_FOUND, BFT_OK);
    pagefile_fixture_close(&f);
}

static void each_slot_gives_back_what_it_got(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock a = sample(1), b = sample(2), slot[2];
    struct bfti_space_stats stats;
    bft_status verdict[2];

    b.map_count = 1;
    b.root_count = 0;
    memset(b.map + 1, 0, sizeof b.map - sizeof b.map[0]);
    memset(b.root, 0, sizeof b.root);
    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &a));
    expect_verdicts(&f, BFT_OK, BFT_NOT_FOUND);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &b));
    pagefile_fixture_reopen(&f);
    memset(slot, 0xa5, sizeof slot);
    EXPECT_STATUS(BFT_OK, bfti_superblock_read(f.pf, slot, verdict));
    EXPECT_STATUS(BFT_OK, verdict[0]);
    EXPECT_STATUS(BFT_OK, verdict[1]);
    expect_same(&slot[0], &a);
    expect_same(&slot[1], &b);
    bfti_space_stats(f.pf, &stats);
    assert_int_equal(2 * BFTI_BLOCK, stats.file_bytes);
    pagefile_fixture_close(&f);
}

/* Behind the end of a file cut off within one all is zero: what memory held of the
 * one read before is none of it. */
static void a_file_that_ends_within_one_has_zeros_there(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(1);
    uint8_t zeros[100] = {0};

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &sb));
    expect_verdicts(&f, BFT_OK, BFT_OK);
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK, file->ops->truncate(file, sizeof zeros));
    expect_verdicts(&f, BFT_CORRUPT, BFT_NOT_FOUND);
    EXPECT_STATUS(BFT_OK, file->ops->write(file, 0, zeros, sizeof zeros));
    expect_verdicts(&f, BFT_NOT_FOUND, BFT_NOT_FOUND);
    pagefile_fixture_close(&f);
}

/* What memory held before never gets into the file. */
static void what_means_nothing_is_zero(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(1);
    uint8_t block[BFTI_BLOCK];
    size_t got;

    pagefile_fixture_open(&f, false);
    (void)pf_write(&f, 50000, 8);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    sb.map_count = 3;
    sb.root_count = 2;
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK, file->ops->read(file, 0, block, sizeof block, &got));
    for (size_t at = 112 + 3 * 8; at < sizeof block; at++)
        if ((at < 240 || at >= 240 + 2 * 8) && (at < 508 || at >= MEANT))
            assert_int_equal(0, block[at]);
    pagefile_fixture_close(&f);
}

static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(5);

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &sb));
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    for (uint64_t i = 0; i < MEANT; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint64_t at = BFTI_BLOCK + i;
            uint8_t byte;
            size_t got;
            EXPECT_STATUS(BFT_OK, file->ops->read(file, at, &byte, 1, &got));
            uint8_t wrong = (uint8_t)(byte ^ 1u << bit);
            EXPECT_STATUS(BFT_OK, file->ops->write(file, at, &wrong, 1));
            expect_verdicts(&f, BFT_OK, BFT_CORRUPT);
            EXPECT_STATUS(BFT_OK, file->ops->write(file, at, &byte, 1));
        }
    }
    expect_verdicts(&f, BFT_OK, BFT_OK);
    /* One whose beginning is lost was written all the same. */
    EXPECT_STATUS(BFT_OK, file->ops->write(file, BFTI_BLOCK, "\0", 1));
    expect_verdicts(&f, BFT_OK, BFT_CORRUPT);
    pagefile_fixture_close(&f);
}

static void a_superblock_cut_short_is_damaged(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(5);

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    for (uint64_t len = MEANT; len-- > 0;) {
        EXPECT_STATUS(BFT_OK, file->ops->truncate(file, len));
        expect_verdicts(&f, len > 0 ? BFT_CORRUPT : BFT_NOT_FOUND,
                        BFT_NOT_FOUND);
    }
    pagefile_fixture_close(&f);
}

/* Whoever wrote it knew something that this library does not. */
static void a_newer_format_is_named_not_guessed_at(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock good = sample(6);
    char text[300];

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &good));
    for (unsigned i = 0; i < 3; i++) {
        struct bfti_superblock sb = sample(7);
        if (i == 0)
            sb.major = BFTI_FORMAT_MAJOR + 1;
        if (i == 1)
            sb.must_know = (uint64_t)1 << 62;
        if (i == 2)
            sb.must_know_to_write = (uint64_t)1 << 63;
        EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
        expect_verdicts(&f, BFT_TOO_NEW, BFT_OK);
        (void)bft_last_error(text, sizeof text);
        assert_non_null(strstr(text, "data"));
        assert_non_null(strstr(text, i == 0 ? "2.5" : "1.5"));
    }
    /* It is told of, whatever became of the other slot. */
    struct bfti_file *file = bfti_pagefile_file(f.pf);
    EXPECT_STATUS(BFT_OK, file->ops->write(file, BFTI_BLOCK, "x", 1));
    expect_verdicts(&f, BFT_TOO_NEW, BFT_CORRUPT);
    (void)bft_last_error(text, sizeof text);
    assert_non_null(strstr(text, "superblock 0 has format 1.5"));
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &good));
    struct bfti_superblock minor = sample(8);
    minor.minor = 9;
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &minor));
    expect_verdicts(&f, BFT_OK, BFT_OK);
    pagefile_fixture_close(&f);
}

/* Bytes AT of superblock 0 become VALUE, under a checksum that is right. */
static void forge(struct pagefile_fixture *f, size_t at, const void *value,
                  size_t len)
{
    struct bfti_file *file = bfti_pagefile_file(f->pf);
    uint8_t disk[MEANT];
    size_t got;
    le32 sum;
    EXPECT_STATUS(BFT_OK, file->ops->read(file, 0, disk, MEANT, &got));
    memcpy(disk + at, value, len);
    sum = le32_of(bfti_crc32c(0, disk, MEANT - sizeof sum));
    memcpy(disk + MEANT - sizeof sum, &sum, sizeof sum);
    EXPECT_STATUS(BFT_OK, file->ops->write(file, 0, disk, MEANT));
}

/* What no version writes is damage, checksum or not. */
static void impossible_fields_are_damage(void **state)
{
    (void)state;
    static const struct {
        size_t at, len;
        uint64_t value;
    } wrong[] = {
        {8, 2, 0},                      /* major */
        {12, 4, 1024},                  /* grain */
        {104, 4, BFTI_MAP_PLACES + 1},  /* map_count */
        {108, 4, BFTI_ROOT_PLACES + 1}, /* root_count */
        {88, 8, 0},                     /* log_segment_bytes */
        {88, 8, 4097},
        {88, 8, (UINT64_C(1) << 30) + 4096},
    };
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(9);

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &sb));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        le64 value = le64_of(wrong[i].value);
        EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
        forge(&f, wrong[i].at, &value, wrong[i].len);
        expect_verdicts(&f, BFT_CORRUPT, BFT_OK);
    }
    for (unsigned i = 0; i < 2; i++) { /* the smallest, the largest */
        le64 value = le64_of(i ? UINT64_C(1) << 30 : 4096);
        forge(&f, 88, &value, sizeof value);
        expect_verdicts(&f, BFT_OK, BFT_OK);
    }
    pagefile_fixture_close(&f);
}

static void a_torn_write_leaves_the_other_slot(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock a = sample(1), b = sample(2), c = sample(3), slot[2];
    bft_status verdict[2];

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &a));
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &b));
    pf_fail_io(&f, BFTI_IO_WRITE, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_superblock_write(f.pf, 0, &c));
    EXPECT_STATUS(BFT_OK, bfti_superblock_read(f.pf, slot, verdict));
    EXPECT_STATUS(BFT_OK, verdict[1]);
    expect_same(&slot[1], &b);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &c));
    expect_verdicts(&f, BFT_OK, BFT_OK);
    pagefile_fixture_close(&f);
}

static void expect_unread(struct pagefile_fixture *f, unsigned reads,
                          bft_status status)
{
    struct bfti_superblock slot[2];
    bft_status verdict[2];

    pf_fail_io(f, BFTI_IO_READ, reads, status);
    EXPECT_STATUS(status, bfti_superblock_read(f->pf, slot, verdict));
}

/* Of one that the system refuses to read that is the verdict, and the text; and if
 * it is both, or more than that, the call's. */
static void what_cannot_be_read_is_not_judged(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(1);
    char text[200];

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 1, &sb));
    pf_fail_io(&f, BFTI_IO_READ, 1, BFT_IO);
    expect_verdicts(&f, BFT_IO, BFT_OK);
    (void)bft_last_error(text, sizeof text);
    assert_non_null(strstr(text, "data: superblock 0: "));
    expect_unread(&f, 2, BFT_IO);
    expect_unread(&f, 1, BFT_NO_MEMORY);
    expect_verdicts(&f, BFT_OK, BFT_OK);
    pagefile_fixture_close(&f);
}

/* The system forgets what it could not write; a second sync would lie. */
static void a_failed_sync_is_never_made_good(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_superblock sb = sample(1);

    pagefile_fixture_open(&f, false);
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(f.pf));
    pf_fail_io(&f, BFTI_IO_SYNC, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_pagefile_sync(f.pf));
    EXPECT_STATUS(BFT_POISONED, bfti_pagefile_sync(f.pf));
    EXPECT_STATUS(BFT_POISONED, bfti_superblock_write(f.pf, 0, &sb));
    expect_verdicts(&f, BFT_NOT_FOUND, BFT_NOT_FOUND);
    pagefile_fixture_reopen(&f);
    EXPECT_STATUS(BFT_OK, bfti_superblock_write(f.pf, 0, &sb));
    pf_fail_io(&f, BFTI_IO_SYNC, 1, BFT_IO);
    EXPECT_STATUS(BFT_IO, bfti_superblock_write(f.pf, 1, &sb));
    EXPECT_STATUS(BFT_POISONED, bfti_pagefile_sync(f.pf));
    pagefile_fixture_close(&f);
}

/* Of a page file: as it was opened, but its length is not to be had. */
static struct {
    const struct bfti_vfs_ops *vfs;
    const struct bfti_vfs_ops *real;
    struct bfti_vfs_ops file;
    unsigned closed;
} unsized;

static bft_status no_size(struct bfti_file *file, uint64_t *bytes)
{
    (void)file, (void)bytes;
    return bfti_fail(BFT_IO, "the test made this call fail");
}

static void close_counted(struct bfti_file *file)
{
    unsized.closed++;
    unsized.real->close(file);
}

static bft_status open_unsized(struct bfti_vfs *vfs, const char *path,
                               int flags, struct bfti_file **out)
{
    bft_status status = unsized.vfs->open(vfs, path, flags, out);
    if (status != BFT_OK)
        return status;
    unsized.real = (*out)->ops;
    unsized.file = *unsized.real;
    unsized.file.size = no_size;
    unsized.file.close = close_counted;
    (*out)->ops = &unsized.file;
    return BFT_OK;
}

static void a_file_of_unknown_length_is_closed_again(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_pagefile *pf = NULL;

    pagefile_fixture_open(&f, false);
    struct bfti_vfs_ops ops = *f.vfs->ops;
    unsized.vfs = f.vfs->ops;
    ops.open = open_unsized;
    f.vfs->ops = &ops;
    EXPECT_STATUS(BFT_IO, bfti_pagefile_open(&f.options, &pf));
    assert_null(pf);
    assert_int_equal(1, unsized.closed);
    f.vfs->ops = unsized.vfs;
    pagefile_fixture_close(&f);
}

static void a_missing_file_is_not_made_unasked(void **state)
{
    (void)state;
    struct pagefile_fixture f;
    struct bfti_pagefile *pf = NULL;

    pagefile_fixture_open(&f, false);
    f.options.path = "nowhere";
    f.options.create = false;
    EXPECT_STATUS(BFT_NOT_FOUND, bfti_pagefile_open(&f.options, &pf));
    assert_null(pf);
    bfti_pagefile_close(NULL);
    pagefile_fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_file_has_none),
        cmocka_unit_test(each_slot_gives_back_what_it_got),
        cmocka_unit_test(a_file_that_ends_within_one_has_zeros_there),
        cmocka_unit_test(what_means_nothing_is_zero),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(a_superblock_cut_short_is_damaged),
        cmocka_unit_test(a_newer_format_is_named_not_guessed_at),
        cmocka_unit_test(impossible_fields_are_damage),
        cmocka_unit_test(a_torn_write_leaves_the_other_slot),
        cmocka_unit_test(what_cannot_be_read_is_not_judged),
        cmocka_unit_test(a_failed_sync_is_never_made_good),
        cmocka_unit_test(a_file_of_unknown_length_is_closed_again),
        cmocka_unit_test(a_missing_file_is_not_made_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
