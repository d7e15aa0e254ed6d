/*
 * Reading the files of a log that is not open: in how many pieces, how far, and
 * what is said of a file that ends too early.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wal_fixture.h"

enum { SEGMENT = 4096, WHOLE = SEGMENT - BFTI_FRAME_HEADER };

static struct wal_seen seen;

static void expect_text(const char *part)
{
    char text[512];
    (void)bft_last_error(text, sizeof(text));
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not say '%s'", text, part);
}

static void set_length(struct wal_fixture *f, uint64_t lsn, uint64_t bytes)
{
    struct bfti_file *file;
    char path[320];
    wal_segment_path(f, lsn, path);
    assert_int_equal(BFT_OK,
                     f->options.vfs->ops->open(f->options.vfs, path,
                                               BFTI_OPEN_CREATE, &file));
    assert_int_equal(BFT_OK, file->ops->truncate(file, bytes));
    file->ops->close(file);
}

static void remove_segment(struct wal_fixture *f, uint64_t lsn)
{
    char path[320];
    wal_segment_path(f, lsn, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
}

/* --- pieces --------------------------------------------------------------- */

static struct {
    bft_status (*read)(struct bfti_file *file, uint64_t offset, void *buf,
                       size_t len, size_t *got);
    void *(*realloc)(void *ctx, void *old, size_t bytes);
    unsigned reads, buffers; /* so many of them */
    size_t longest;          /* that was allocated */
} counted;

static bft_status counting_read(struct bfti_file *file, uint64_t offset,
                                void *buf, size_t len, size_t *got)
{
    counted.reads++;
    return counted.read(file, offset, buf, len, got);
}

static void *counting_realloc(void *ctx, void *old, size_t bytes)
{
    counted.buffers++;
    if (bytes > counted.longest)
        counted.longest = bytes;
    return counted.realloc(ctx, old, bytes);
}

static void begin_counting(struct wal_fixture *f)
{
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
    memset(&counted, 0, sizeof(counted));
    counted.read = ops->read;
    counted.realloc = f->env.realloc;
    ops->read = counting_read;
    f->env.realloc = counting_realloc;
}

static void count_anew(void)
{
    counted.reads = counted.buffers = 0;
    counted.longest = 0;
    atomic_store(&wal_bytes_read, 0);
}

/* A megabyte at once, into one buffer that grows by a header: a list of
 * segments and two buffers are all that is allocated. */
static void expect_few(unsigned reads, uint64_t bytes)
{
    assert_in_range(counted.buffers, 0, 3);
    assert_in_range(counted.longest, 1 << 20, (1 << 20) + 64);
    assert_in_range(counted.reads, 0, reads);
    assert_in_range(atomic_load(&wal_bytes_read), 0, bytes);
}

/* Far from where all logs begin, with frames behind the one that is torn, and
 * much behind those that was never written. */
static void a_long_log_is_read_by_the_megabyte(void **state)
{
    enum { LONG = 8 << 20, FRAMES = 3000, LEN = 1000, TORN = 2500 };
    const uint64_t start = UINT64_C(5) * LONG;
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LONG);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    uint64_t torn = 0;
    uint8_t byte = 0;
    (void)state;
    wal_fixture_open(f, start, start);
    for (uint64_t i = 0; i < FRAMES; i++) {
        uint64_t lsn = wal_append(f, i + 1, LEN).lsn;
        if (i == TORN)
            torn = lsn;
    }
    wal_fixture_close(f);
    wal_poke(f, torn + 8, &byte, 1);
    begin_counting(f);
    count_anew();
    assert_int_equal(BFT_OK, wal_scan(f, start, 0, &seen));
    assert_int_equal(TORN, seen.count);
    expect_few(20, 2 * LONG);
    count_anew();
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, BFTI_WAL_OLDEST, 0,
                                              &calls, &out));
    assert_int_equal(TORN, out.frames);
    expect_few(20, 2 * LONG);
    wal_fixture_free(f);
}

/* --- ends ----------------------------------------------------------------- */

/* All frames are of one type, which the last one's header names in a file that
 * is gone: what the reader has of the others does not stand in for it. */
static void a_header_is_not_made_up(void **state)
{
    enum { LEFT = 32, LEN = 100 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;
    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 7, LEN);
    wal_append(f, 7 + 250, WHOLE - place.end - LEFT);
    place = wal_append(f, 7, LEN);
    assert_int_equal(SEGMENT - LEFT, place.lsn);
    wal_fixture_close(f);
    remove_segment(f, SEGMENT);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(2, seen.count);
    expect_text("the checksum of the frame header is wrong");
    wal_fixture_free(f);
}

/* In front of the last one too, and where no frame lies; what nobody reads may
 * be as short as it likes. */
static void each_short_segment_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, WHOLE);
    wal_append(f, 2, WHOLE);
    assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
    wal_fixture_close(f);
    assert_int_equal(4, wal_file_count(f, true));
    for (uint64_t lsn = 0; lsn < 4 * SEGMENT; lsn += SEGMENT) {
        uint8_t whole[SEGMENT];
        wal_peek(f, lsn, whole, SEGMENT);
        set_length(f, lsn, SEGMENT - 1);
        for (uint64_t start = 0; start < 3 * SEGMENT; start += SEGMENT) {
            bft_status status = lsn < start ? BFT_OK : BFT_CORRUPT;
            assert_int_equal(status, wal_scan(f, start, 0, &seen));
            if (status != BFT_OK)
                expect_text("the file ends there");
        }
        wal_poke(f, lsn, whole, SEGMENT);
    }
    wal_fixture_free(f);
}

static bft_status short_read(struct bfti_file *file, uint64_t offset, void *buf,
                             size_t len, size_t *got)
{
    return counted.read(file, offset, buf, len < 10 ? len : 10, got);
}

/* By a system that gives less than there is. */
static void a_read_that_ends_early_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
    struct wal_place place;
    char text[64];
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 100);
    place = wal_append(f, 2, 100);
    wal_fixture_close(f);
    counted.read = ops->read;
    ops->read = short_read;
    assert_int_equal(BFT_IO, wal_scan(f, place.lsn, 0, &seen));
    (void)snprintf(text, sizeof(text), "ended at byte %llu of a segment",
                   (unsigned long long)place.lsn + 10);
    expect_text(text);
    wal_fixture_free(f);
}

static void how_much_is_damaged_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    end = wal_append(f, 1, 100).end;
    wal_fixture_close(f);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, end + 800, &seen));
    expect_text(", 800 bytes further on");
    wal_fixture_free(f);
}

/* As long as a frame may be, it is longer than what there is of the log. */
static void the_longest_frame_is_one(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 100);
    wal_fixture_close(f);
    for (uint32_t more = 0; more < 2; more++) {
        uint8_t header[BFTI_FRAME_HEADER];
        le32 len = le32_of((UINT32_C(1) << 30) + more), crc;
        wal_peek(f, 0, header, sizeof(header));
        memcpy(header + 4, &len, sizeof(len));
        crc = le32_of(bfti_crc32c(0, header + 4, sizeof(header) - 4));
        memcpy(header, &crc, sizeof(crc));
        wal_poke(f, 0, header, sizeof(header));
        assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 8, &seen));
        expect_text(more ? "contradicts itself" : "longer than the log");
    }
    wal_fixture_free(f);
}

/* A segment and one more have to fit below the last position. */
static void the_last_segments_of_all_are_none(void **state)
{
    (void)state;
    for (uint64_t left = 1; left < 4; left++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        uint64_t lsn = 0 - left * SEGMENT;
        set_length(f, lsn, SEGMENT);
        assert_int_equal(left < 3 ? BFT_CORRUPT : BFT_OK,
                         wal_scan(f, lsn, 0, &seen));
        if (left < 3)
            expect_text("no log segment of 4096 bytes starts there");
        wal_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_log_is_read_by_the_megabyte),
        cmocka_unit_test(a_header_is_not_made_up),
        cmocka_unit_test(each_short_segment_is_told),
        cmocka_unit_test(a_read_that_ends_early_is_told),
        cmocka_unit_test(how_much_is_damaged_is_told),
        cmocka_unit_test(the_longest_frame_is_one),
        cmocka_unit_test(the_last_segments_of_all_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
