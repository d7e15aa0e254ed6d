/*
 * What recovery makes of a log: torn tails, damage, ghosts, missing files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fault.h"
#include "random.h"
#include "wal_fixture.h"

enum { SEGMENT = 4096, WHOLE = SEGMENT - BFTI_FRAME_HEADER };

static struct wal_seen seen;

/* The failed call named the segment of LSN and the offset in it. */
static void expect_place(struct wal_fixture *f, uint64_t lsn)
{
    char text[512], path[320], offset[64];

    (void)bft_last_error(text, sizeof(text));
    wal_segment_path(f, lsn, path);
    (void)snprintf(offset, sizeof(offset),
                   "byte %llu:", (unsigned long long)(lsn % SEGMENT));
    if (strstr(text, path) == NULL || strstr(text, offset) == NULL)
        fail_msg("'%s' names neither %s nor %s", text, path, offset);
}

static void fill(struct wal_fixture *f, uint64_t lsn, uint8_t byte, size_t len)
{
    uint8_t buf[8192];

    assert_true(len <= sizeof(buf));
    memset(buf, byte, len);
    wal_poke(f, lsn, buf, len);
}

static void flip(struct wal_fixture *f, uint64_t lsn, uint8_t mask)
{
    uint8_t byte;

    wal_peek(f, lsn, &byte, 1);
    byte ^= mask;
    wal_poke(f, lsn, &byte, 1);
}

/* --- the tail -------------------------------------------------------------- */

static void a_log_without_files_is_empty(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);

    (void)state;
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_int_equal(0, seen.count);
    assert_int_equal(0, seen.found.end);
    assert_int_equal(0, seen.found.max_incarnation);
    /* A checkpoint's redo start may be where no segment was made yet. */
    assert_int_equal(BFT_OK, wal_scan(f, 5 * SEGMENT, 5 * SEGMENT, &seen));
    assert_int_equal(5 * SEGMENT, seen.found.end);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 8, &seen));
    expect_place(f, 0);
    wal_fixture_free(f);
}

static void a_new_segment_holds_no_frame(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);

    (void)state;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

/* The last frames, from any byte on, were never written: zeros, or what the
 * file held before. */
static void a_tail_torn_at_any_byte_is_cut_off(void **state)
{
    enum { KEPT = 30, TORN = 3 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[KEPT + TORN];
    static uint8_t image[TORN * 200];
    size_t torn_bytes;

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < KEPT + TORN; i++)
        place[i] = i == KEPT - 1 ? wal_append_sync(f, i + 1, 100)
                                 : wal_append(f, i + 1, 91 + i);
    wal_fixture_close(f);
    torn_bytes = place[KEPT + TORN - 1].end - place[KEPT].lsn;
    assert_true(torn_bytes <= sizeof(image));
    wal_peek(f, place[KEPT].lsn, image, torn_bytes);

    for (uint64_t at = 0; at < torn_bytes; at++) {
        uint64_t lsn = place[KEPT].lsn + at;
        unsigned whole = KEPT;

        while (place[whole].end <= lsn)
            whole++;
        for (unsigned byte = 0; byte <= 0xa5; byte += 0xa5) {
            fill(f, lsn, (uint8_t)byte, torn_bytes - at);
            assert_int_equal(BFT_OK, wal_scan(f, 0, place[KEPT].lsn, &seen));
            /* Zeros behind the payload are there anyway. */
            if (seen.count != whole) {
                assert_int_equal(whole + 1, seen.count);
                assert_in_range(lsn, place[whole].end - 7, place[whole].end);
            }
            assert_false(seen.garbled);
            assert_int_equal(place[seen.count - 1].end, seen.found.end);
        }
        wal_poke(f, place[KEPT].lsn, image, torn_bytes);
    }
    wal_fixture_free(f);
}

static void a_hole_before_later_unsynced_frames_is_the_tail(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place kept, lost, last;

    (void)state;
    wal_fixture_open(f, 0, 0);
    kept = wal_append_sync(f, 1, 2 * SEGMENT);
    lost = wal_append(f, 2, 100);
    last = wal_append(f, 3, 2 * SEGMENT);
    wal_fixture_close(f);
    fill(f, lost.lsn, 0, lost.end - lost.lsn);
    assert_int_equal(BFT_OK, wal_scan(f, 0, kept.end, &seen));
    assert_int_equal(1, seen.count);
    assert_int_equal(kept.end, seen.found.end);

    /* Whoever goes on from there does not meet the third frame again, neither
     * behind a new one of the same size nor when redo starts right at it. */
    wal_fixture_recover(f, 0);
    assert_int_equal(2, f->incarnation);
    assert_int_equal(BFT_OK, wal_scan(f, last.lsn, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_append(f, 4, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, kept.end, &seen));
    assert_int_equal(2, seen.count);
    assert_int_equal(4, seen.at[1].id);
    assert_int_equal(BFT_OK, wal_scan(f, last.lsn, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

/* Each of them is looked at, for marks, and then blanked: without reading what lies
 * behind it again and again. */
static void many_frames_behind_the_tail_are_read_once(void **state)
{
    enum { FRAMES = 1500, LONG_SEGMENT = 4 << 20 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LONG_SEGMENT);
    struct wal_place kept, lost;

    (void)state;
    wal_fixture_open(f, 0, 0);
    kept = wal_append_sync(f, 1, 100);
    lost = wal_append(f, 2, 100);
    for (uint64_t i = 0; i < FRAMES; i++)
        (void)wal_append(f, 3 + i, 100 + i % 800);
    wal_fixture_close(f);
    fill(f, lost.lsn, 0, lost.end - lost.lsn);
    atomic_store(&wal_bytes_read, 0);
    wal_fixture_recover(f, 0);
    assert_true(atomic_load(&wal_bytes_read) < 8 * LONG_SEGMENT);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, kept.end, &seen));
    assert_int_equal(1, seen.count);
    assert_int_equal(kept.end, seen.found.end);
    /* None is left that a later scan could begin at. */
    assert_int_equal(BFT_OK, wal_scan(f, lost.end, lost.end, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

static void an_incarnation_seen_only_behind_the_tail_counts(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place kept, lost;

    (void)state;
    wal_fixture_open(f, 0, 0);
    kept = wal_append_sync(f, 1, 100);
    wal_fixture_close(f);
    wal_fixture_open(f, 0, kept.end);
    lost = wal_append(f, 2, 100);
    wal_append(f, 3, 100);
    wal_fixture_close(f);
    flip(f, lost.lsn, 1);
    assert_int_equal(BFT_OK, wal_scan(f, 0, kept.end, &seen));
    assert_int_equal(1, seen.count);
    assert_int_equal(2, seen.found.max_incarnation);
    wal_fixture_free(f);
}

/* --- damage ---------------------------------------------------------------- */

/* Every bit of a log that was durable, in frames of all shapes, one of them
 * across segments. */
static void a_flipped_bit_below_a_mark_is_damage(void **state)
{
    static const size_t lens[] = {0, 5, 8, 60, 3900, 300};
    enum { FRAMES = sizeof(lens) / sizeof(lens[0]) };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[FRAMES];
    uint64_t durable, random = random_start();

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (unsigned i = 0; i < FRAMES; i++)
        place[i] = wal_append(f, i + 1, lens[i]);
    durable = place[FRAMES - 1].end;
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, durable));
    wal_append(f, 100, 20); /* carries the mark */
    wal_fixture_close(f);

    for (unsigned i = 0; i < FRAMES; i++) {
        uint64_t tested = BFTI_FRAME_HEADER + lens[i];

        for (uint64_t at = 0; at < tested; at++) {
            uint8_t mask = (uint8_t)(1u << random_of(&random) % 8);

            flip(f, place[i].lsn + at, mask);
            assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
            expect_place(f, place[i].lsn);
            assert_int_equal(i, seen.count);
            assert_int_equal(0, seen.found.end);
            flip(f, place[i].lsn + at, mask);
        }
    }
    assert_int_equal(BFT_OK, wal_scan(f, 0, durable, &seen));
    wal_fixture_free(f);
}

static void a_mark_in_a_later_segment_tells_damage_too(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;
    char path[320];

    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append_sync(f, 1, 100);
    wal_append(f, 2, 5 * SEGMENT);
    wal_append_sync(f, 3, 100);
    wal_append(f, 4, 100);
    wal_fixture_close(f);
    flip(f, place.lsn, 1);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    expect_place(f, 0);
    flip(f, place.lsn, 1);

    /* The same when whole segments are gone. */
    wal_segment_path(f, 3 * SEGMENT, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    assert_int_equal(1, seen.count);
    wal_segment_path(f, 0, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

/* From where an older superblock starts: what stands there was dropped, and
 * waits to be reused; the segment behind it became the newest, without frames. */
static void a_segment_left_over_before_a_gap_is_no_log(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs *vfs = f->options.vfs;
    uint8_t zero[SEGMENT] = {0};
    struct bfti_file *file;
    char path[320];

    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append_sync(f, 1, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    wal_segment_path(f, 1 * SEGMENT, path);
    (void)(vfs->ops->remove(vfs, path) == BFT_OK);
    wal_segment_path(f, 2 * SEGMENT, path);
    assert_int_equal(BFT_OK,
                     vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
    assert_int_equal(BFT_OK, file->ops->write(file, 0, zero, SEGMENT));
    file->ops->close(file);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    /* From there on it is a log. */
    assert_int_equal(BFT_OK, wal_scan(f, 2 * SEGMENT, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

static void a_log_that_ends_below_the_superblocks_mark_is_damage(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 100);
    place = wal_append_sync(f, 2, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end + 8, &seen));
    expect_place(f, place.end);
    fill(f, place.lsn, 0, place.end - place.lsn);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end, &seen));
    expect_place(f, place.lsn);
    wal_fixture_free(f);
}

/* Frames of a kind that no log of ours would write. */
static void a_frame_with_impossible_lengths_is_not_followed(void **state)
{
    static const uint32_t lens[] = {SEGMENT, 1 << 20, 1 << 30, (1 << 30) + 1,
                                    UINT32_MAX};
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 1, 100);
    wal_append(f, 2, 100);
    wal_fixture_close(f);
    for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        uint8_t header[BFTI_FRAME_HEADER];
        le32 len = le32_of(lens[i]), crc;

        wal_peek(f, place.end, header, sizeof(header));
        memcpy(header + 4, &len, sizeof(len));
        crc = le32_of(bfti_crc32c(0, header + 4, sizeof(header) - 4));
        memcpy(header, &crc, sizeof(crc));
        wal_poke(f, place.end, header, sizeof(header));
        assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
        assert_int_equal(1, seen.count);
    }
    wal_fixture_free(f);
}

/* Durable further than where it lies, or to within a frame. */
static void a_frame_with_an_impossible_mark_is_not_followed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[2];

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 2; i++)
        place[i] = wal_append_sync(f, i + 1, 100);
    wal_fixture_close(f);
    for (unsigned i = 0; i < 3; i++) {
        const uint64_t marks[] = {place[1].end, place[1].lsn - 4,
                                  place[1].lsn - 8};
        uint8_t header[BFTI_FRAME_HEADER];
        le64 mark = le64_of(marks[i]);
        le32 crc;

        wal_peek(f, place[1].lsn, header, sizeof(header));
        memcpy(header + 16, &mark, sizeof(mark));
        crc = le32_of(bfti_crc32c(0, header + 4, sizeof(header) - 4));
        memcpy(header, &crc, sizeof(crc));
        wal_poke(f, place[1].lsn, header, sizeof(header));
        assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
        assert_int_equal(i < 2 ? 1 : 2, seen.count); /* the last is possible */
    }
    wal_fixture_free(f);
}

/* --- ghosts ---------------------------------------------------------------- */

/* Life 1 wrote A, B, C; the crash tore B; life 2 writes a B of the same size,
 * and the old C comes back behind it, as a disk may do. */
static void make_ghost(struct wal_fixture *f, struct wal_place place[3])
{
    static uint8_t ghost[400];

    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 3; i++)
        place[i] = wal_append(f, i + 1, 100);
    wal_fixture_close(f);
    wal_peek(f, place[2].lsn, ghost, place[2].end - place[2].lsn);
    flip(f, place[1].lsn + 60, 1);
    wal_fixture_recover(f, 0);
    assert_int_equal(place[1].lsn, bfti_wal_end(f->wal));
    wal_append(f, 20, 100);
    wal_fixture_close(f);
    wal_poke(f, place[2].lsn, ghost, place[2].end - place[2].lsn);
}

static void an_older_incarnation_behind_a_newer_ends_the_log(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[3];

    (void)state;
    make_ghost(f, place);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place[1].lsn, &seen));
    assert_int_equal(2, seen.count);
    assert_int_equal(20, seen.at[1].id);
    assert_int_equal(2, seen.found.max_incarnation);
    /* What ends there was durable further on: that is damage. */
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place[2].end, &seen));
    expect_place(f, place[2].lsn);
    wal_fixture_free(f);
}

static void recovery_lays_ghosts_where_redo_may_start(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[3];

    (void)state;
    make_ghost(f, place);
    /* A checkpoint's redo start, right behind the frame that hid the ghost. */
    assert_int_equal(BFT_OK, wal_scan(f, place[2].lsn, 0, &seen));
    assert_int_equal(1, seen.count);
    wal_fixture_recover(f, 0);
    assert_int_equal(BFT_OK, wal_scan(f, place[2].lsn, 0, &seen));
    assert_int_equal(0, seen.count);
    wal_fixture_free(f);
}

static void frames_of_a_reused_segment_do_not_come_back(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place = {0, 0};

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 300; i++) {
        /* All of one size, so that old frames begin where new ones would. */
        place = wal_append_sync(f, i + 1, 88);
        assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.lsn));
        assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
        assert_int_equal(BFT_OK, wal_scan(f, place.lsn, place.end, &seen));
        assert_int_equal(1, seen.count);
        assert_int_equal(i + 1, seen.at[0].id);
    }
    wal_fixture_free(f);
}

/* --- files ----------------------------------------------------------------- */

static void put_file(struct wal_fixture *f, const char *name, size_t len)
{
    struct bfti_vfs *vfs = f->options.vfs;
    struct bfti_file *file;
    char path[320];
    uint8_t byte = 0x5a;

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(BFT_OK,
                     vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
    for (size_t i = 0; i < len; i++)
        assert_int_equal(BFT_OK, file->ops->write(file, i, &byte, 1));
    file->ops->close(file);
}

static void foreign_files_are_passed_over(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    put_file(f, "pages", 100);
    put_file(f, "log-", 100);
    put_file(f, "log-new", 100); /* a crash while a segment was made */
    put_file(f, "log-000000000000000G", 100);
    put_file(f, "log-000000000000000g", 100);
    put_file(f, "log-000000000000000`", 100);
    put_file(f, "log-00000000000010000", 100);
    wal_fixture_open(f, 0, 0);
    place = wal_append_sync(f, 1, 2 * SEGMENT);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(1, seen.count);
    wal_fixture_free(f);
}

static void segments_of_another_size_are_refused(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal *wal;

    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 2 * SEGMENT);
    wal_fixture_close(f);
    f->options.segment_bytes = 2 * SEGMENT;
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    f->options.segment_bytes = 1000;
    assert_int_equal(BFT_INVALID, wal_scan(f, 0, 0, &seen));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 0, 0, 0, 1, &wal));
    assert_null(wal);
    f->options.segment_bytes = (1 << 30) + 4096;
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 0, 0, 0, 1, &wal));
    f->options.segment_bytes = SEGMENT;
    put_file(f, "log-0000000000003000", SEGMENT + 1);
    assert_int_equal(BFT_CORRUPT, bfti_wal_open(&f->options, 0, 0, 0, 1, &wal));
    assert_null(wal);
    wal_fixture_free(f);
}

/* Whatever it held in what it lost: no crash makes one. */
static void a_short_segment_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_file *file;
    struct bfti_wal *wal;
    char path[320], text[512];

    (void)state;
    wal_fixture_open(f, 0, 0);
    (void)wal_append(f, 1, 100);
    wal_fixture_close(f);
    wal_segment_path(f, 0, path);
    assert_int_equal(BFT_OK,
                     f->options.vfs->ops->open(f->options.vfs, path, 0, &file));
    assert_int_equal(BFT_OK, file->ops->truncate(file, SEGMENT - 1));
    file->ops->close(file);
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 0, &seen));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, ": byte 4095: the file ends there"));
    assert_int_equal(BFT_CORRUPT, bfti_wal_open(&f->options, 0, 0, 0, 1, &wal));
    assert_null(wal);
    /* Where nobody reads it any more it is none's loss. */
    assert_int_equal(BFT_OK, wal_scan(f, SEGMENT, 0, &seen));
    wal_fixture_free(f);
}

static void a_log_with_a_missing_segment_does_not_open(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal *wal;

    (void)state;
    assert_int_equal(BFT_CORRUPT, bfti_wal_open(&f->options, 0, 0, 8, 1, &wal));
    assert_null(wal);
    assert_int_equal(BFT_INVALID,
                     bfti_wal_open(&f->options, 16, 8, 8, 1, &wal));
    wal_fixture_free(f);
}

static bft_status refuse_second(void *arg, uint64_t lsn, uint8_t type,
                                const void *payload, size_t len)
{
    unsigned *count = arg;

    (void)lsn;
    (void)type;
    (void)payload;
    (void)len;
    return ++*count == 2 ? BFT_TOO_NEW : BFT_OK;
}

static void the_callers_refusal_stops_the_scan(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_found found;
    unsigned count = 0;

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 5; i++)
        wal_append(f, i, 100);
    assert_int_equal(BFT_TOO_NEW, bfti_wal_scan(&f->options, 0, 0,
                                                refuse_second, &count, &found));
    assert_int_equal(2, count);
    wal_fixture_free(f);
}

/* --- what opening writes ---------------------------------------------------- */

static uint64_t rewritten_from, rewritten_to;

static bft_status note_write(void *arg, uint64_t offset, const void *buf,
                             size_t len)
{
    (void)arg;
    (void)buf;
    if (offset < rewritten_from)
        rewritten_from = offset;
    if (offset + len > rewritten_to)
        rewritten_to = offset + len;
    return BFT_OK;
}

static void opening_writes_and_syncs_what_no_mark_covers(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place marked, last;

    (void)state;
    wal_fixture_open(f, 0, 0);
    marked = wal_append_sync(f, 1, 100);
    last = wal_append(f, 2, 100);
    wal_fixture_close(f);
    rewritten_from = UINT64_MAX;
    rewritten_to = 0;
    atomic_store(&wal_syncs_called, 0);
    wal_hooks.write = note_write;
    assert_int_equal(BFT_OK, bfti_wal_open(&f->options, 0, marked.end, last.end,
                                           2, &f->wal));
    assert_int_equal(marked.end, rewritten_from);
    assert_int_equal(last.end, rewritten_to);
    assert_int_equal(1, atomic_load(&wal_syncs_called));
    assert_int_equal(last.end, bfti_wal_durable(f->wal));
    assert_int_equal(last.end, bfti_wal_copied(f->wal));
    wal_fixture_free(f);
}

/* Random lives: appends, syncs, drops, then some of the bytes that were not
 * synced change, and the next life goes on from what is found. */
static void random_lives_keep_what_was_synced(void **state)
{
    enum { LIVES = 60, FRAMES_MAX = 4000 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    static uint64_t ids[FRAMES_MAX], lsns[FRAMES_MAX];
    uint64_t random = random_start(), id = 0, count = 0, redo = 0;

    (void)state;
    for (unsigned life = 0; life < LIVES; life++) {
        struct wal_place place = {0, 0};
        uint64_t durable, end, first = 0;

        wal_fixture_recover(f, redo);
        for (uint64_t n = random_of(&random) % 60; n > 0; n--) {
            assert_true(count < FRAMES_MAX);
            ids[count] = ++id;
            place = wal_append(f, id, 8 + random_of(&random) % 700);
            lsns[count++] = place.lsn;
            if (random_of(&random) % 8 == 0)
                assert_int_equal(BFT_OK,
                                 bfti_wal_sync(f->wal, &f->thread, place.end));
            if (random_of(&random) % 20 == 0 &&
                place.end == bfti_wal_durable(f->wal)) {
                redo = place.lsn;
                assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, redo));
            }
            if (random_of(&random) % 10 == 0)
                assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
        }
        durable = bfti_wal_durable(f->wal);
        end = bfti_wal_end(f->wal);
        wal_fixture_close(f);
        if (end > durable && random_of(&random) % 4 != 0)
            flip(f, durable + random_of(&random) % (end - durable), 0x10);

        assert_int_equal(BFT_OK, wal_scan(f, redo, durable, &seen));
        assert_false(seen.garbled);
        assert_true(seen.found.end >= durable);
        while (first < count && lsns[first] < redo)
            first++;
        assert_true(seen.count <= count - first);
        for (size_t i = 0; i < seen.count; i++) {
            assert_int_equal(ids[first + i], seen.at[i].id);
            assert_int_equal(lsns[first + i], seen.at[i].lsn);
        }
        count = first + seen.count;
    }
    wal_fixture_free(f);
}

/* --- would a test notice? --------------------------------------------------- */

#ifdef BFT_FAULTS
static void planted_faults_change_what_they_say(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place[3];

    (void)state;
    make_ghost(f, place);
    atomic_store(&bfti_fault, BFTI_FAULT_BIT(BFTI_FAULT_OLD_INCARNATION));
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_int_equal(3, seen.count);
    flip(f, place[1].lsn + 60, 1);
    atomic_store(&bfti_fault, BFTI_FAULT_BIT(BFTI_FAULT_TORN_FRAME));
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_int_equal(2, seen.count);
    assert_true(seen.garbled);

    atomic_store(&bfti_fault, BFTI_FAULT_BIT(BFTI_FAULT_LOG_NOT_SYNCED));
    wal_fixture_recover(f, 0);
    atomic_store(&wal_syncs_called, 0);
    wal_append_sync(f, 9, 100);
    assert_int_equal(0, atomic_load(&wal_syncs_called));
    atomic_store(&bfti_fault, 0);
    wal_append_sync(f, 10, 100);
    assert_int_equal(1, atomic_load(&wal_syncs_called));
    wal_fixture_free(f);
}
#endif

/* Also behind one that redo does not need; and no mark speaks of it. */
static void a_segment_is_missed_behind_an_older_one(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    char path[320];
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 4; i++)
        wal_append(f, i + 1, WHOLE);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, SEGMENT, 0, &seen));
    wal_segment_path(f, (uint64_t)2 * SEGMENT, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, SEGMENT, 0, &seen));
    wal_fixture_free(f);
}

/* Segments need not be multiples of what is written at once. */
static void a_segment_is_as_long_as_it_was_asked_for(void **state)
{
    enum { LENGTH = 68 << 10 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LENGTH);
    struct bfti_file *file;
    char path[320];
    uint64_t bytes;
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append_sync(f, 1, 100);
    wal_segment_path(f, 0, path);
    assert_int_equal(BFT_OK,
                     f->options.vfs->ops->open(f->options.vfs, path,
                                               BFTI_OPEN_READ_ONLY, &file));
    assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(LENGTH, bytes);
    file->ops->close(file);
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_without_files_is_empty),
        cmocka_unit_test(a_segment_is_missed_behind_an_older_one),
        cmocka_unit_test(a_segment_is_as_long_as_it_was_asked_for),
        cmocka_unit_test(a_new_segment_holds_no_frame),
        cmocka_unit_test(a_tail_torn_at_any_byte_is_cut_off),
        cmocka_unit_test(a_hole_before_later_unsynced_frames_is_the_tail),
        cmocka_unit_test(many_frames_behind_the_tail_are_read_once),
        cmocka_unit_test(an_incarnation_seen_only_behind_the_tail_counts),
        cmocka_unit_test(a_flipped_bit_below_a_mark_is_damage),
        cmocka_unit_test(a_mark_in_a_later_segment_tells_damage_too),
        cmocka_unit_test(a_segment_left_over_before_a_gap_is_no_log),
        cmocka_unit_test(a_log_that_ends_below_the_superblocks_mark_is_damage),
        cmocka_unit_test(a_frame_with_impossible_lengths_is_not_followed),
        cmocka_unit_test(a_frame_with_an_impossible_mark_is_not_followed),
        cmocka_unit_test(an_older_incarnation_behind_a_newer_ends_the_log),
        cmocka_unit_test(recovery_lays_ghosts_where_redo_may_start),
        cmocka_unit_test(frames_of_a_reused_segment_do_not_come_back),
        cmocka_unit_test(foreign_files_are_passed_over),
        cmocka_unit_test(segments_of_another_size_are_refused),
        cmocka_unit_test(a_short_segment_is_told),
        cmocka_unit_test(a_log_with_a_missing_segment_does_not_open),
        cmocka_unit_test(the_callers_refusal_stops_the_scan),
        cmocka_unit_test(opening_writes_and_syncs_what_no_mark_covers),
        cmocka_unit_test(random_lives_keep_what_was_synced),
#ifdef BFT_FAULTS
        cmocka_unit_test(planted_faults_change_what_they_say),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
