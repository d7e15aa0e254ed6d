/*
 * Segments of the log: how many there can be, that files, structs and mappings
 * are given back and used again, and what an opening says of what it finds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/error.h"
#include "wal_fixture.h"

enum { SEGMENT = 4096, WHOLE = SEGMENT - BFTI_FRAME_HEADER, SPARES = 4 };

static struct wal_seen seen;

static void expect_text(const char *part)
{
    char text[512];
    (void)bft_last_error(text, sizeof(text));
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not say '%s'", text, part);
}

static struct bfti_vfs_ops *ops_of(struct wal_fixture *f)
{
    return (void *)(uintptr_t)f->options.vfs->ops;
}

static void remove_segment(struct wal_fixture *f, uint64_t lsn)
{
    char path[320];
    wal_segment_path(f, lsn, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
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

static uint64_t append_whole(struct wal_fixture *f, uint64_t count)
{
    struct wal_place place = {0, 0};
    for (uint64_t i = 0; i < count; i++)
        place = wal_append_sync(f, i + 1, WHOLE);
    return place.end;
}

/* --- how many ------------------------------------------------------------- */

/* More than two of the tables that lead to them have room for. */
static void each_of_many_segments_is_found(void **state)
{
    enum { SEGMENTS = 2100 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_entry entry;
    struct bfti_wal_feed *feed;
    (void)state;
    wal_fixture_open(f, 0, 0);
    append_whole(f, SEGMENTS);
    assert_int_equal(BFT_OK, bfti_wal_feed_open(f->wal, 0, 0, &feed));
    for (uint64_t i = 0; i < SEGMENTS; i++) {
        assert_int_equal(BFT_OK, bfti_wal_feed_read(feed, &entry));
        assert_int_equal(i * SEGMENT, entry.lsn);
        assert_int_equal(wal_payload_byte(i + 1, 8), entry.payload[8]);
        bfti_wal_feed_pass(feed, &entry);
    }
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* A quarter of a segment more than a frame of so many bytes takes. */
static void room_is_made_for_others_too(void **state)
{
    enum { FITS = SEGMENT - SEGMENT / 4 - BFTI_FRAME_HEADER - 1 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, FITS));
    assert_int_equal(1, wal_file_count(f, true));
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, FITS + 1));
    assert_int_equal(2, wal_file_count(f, true));
    wal_fixture_free(f);
}

/* --- used again ----------------------------------------------------------- */

/* However many come and go, memory is needed for those that there are. */
static void structs_are_used_again(void **state)
{
    enum { ROUNDS = 30, SEGMENTS = 8, SLACK = 20 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    int64_t blocks = 0;
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t end = append_whole(f, SEGMENTS);
        assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
        assert_int_equal(SPARES, wal_file_count(f, true));
        assert_int_equal(SPARES, atomic_load(&wal_files_open));
        if (i == 0)
            blocks = atomic_load(&wal_blocks);
        assert_in_range(atomic_load(&wal_blocks), 0, blocks + SLACK);
    }
    wal_fixture_free(f);
}

static bft_status refuse_write(void *arg, uint64_t offset, const void *buf,
                               size_t len)
{
    (void)arg, (void)offset, (void)buf, (void)len;
    return bfti_fail(BFT_NO_SPACE, "it is full");
}

static bft_status refuse_rename(struct bfti_vfs *vfs, const char *from,
                                const char *to)
{
    (void)vfs, (void)from, (void)to;
    return bfti_fail(BFT_NO_SPACE, "it cannot be named");
}

/* Of a segment that was not made nothing is left, however often it is tried. */
static void what_could_not_be_made_leaves_nothing(void **state)
{
    enum { TIMES = 20 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    bft_status (*rename_behind)(struct bfti_vfs * vfs, const char *from,
                                const char *to) = ops_of(f)->rename;
    int64_t blocks = 0;
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (unsigned i = 0; i < 2 * TIMES; i++) {
        wal_hooks.write = i % 2 ? NULL : refuse_write;
        ops_of(f)->rename = refuse_rename;
        assert_int_equal(BFT_NO_SPACE, bfti_wal_make_room(f->wal, SEGMENT));
        expect_text(i % 2 ? "it cannot be named" : "it is full");
        if (i == 0)
            blocks = atomic_load(&wal_blocks);
        assert_int_equal(1, atomic_load(&wal_files_open));
        assert_int_equal(blocks, atomic_load(&wal_blocks));
        assert_int_equal(1, wal_file_count(f, true));
    }
    wal_hooks.write = NULL;
    ops_of(f)->rename = rename_behind;
    append_whole(f, 3);
    assert_int_equal(3, atomic_load(&wal_files_open));
    wal_fixture_free(f);
}

static bft_status refuse_remove(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs, (void)path;
    return bfti_fail(BFT_IO, "it stays");
}

/* Why it was not made counts, and not why what is left of it stays. */
static void the_first_failure_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_hooks.write = refuse_write;
    ops_of(f)->remove = refuse_remove;
    assert_int_equal(BFT_NO_SPACE, bfti_wal_make_room(f->wal, SEGMENT));
    expect_text("cannot make a log segment");
    wal_fixture_free(f);
}

/* Somebody took a spare's file away: the next one is used, and what the log had
 * of the first serves one that is made later. */
static void a_spare_that_is_gone_is_forgotten(void **state)
{
    enum { FRAMES = 4 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    end = append_whole(f, FRAMES);
    assert_int_equal(BFT_OK,
                     bfti_wal_drop_below(f->wal, end - UINT64_C(2) * SEGMENT));
    remove_segment(f, SEGMENT); /* the first to be used */
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, SEGMENT / 2));
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(1, stats.segments_reused);
    assert_int_equal(3, atomic_load(&wal_files_open));
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, (size_t)3 * SEGMENT));
    assert_int_equal(6, atomic_load(&wal_files_open));
    append_whole(f, FRAMES);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK,
                     wal_scan(f, end - UINT64_C(2) * SEGMENT, 0, &seen));
    assert_int_equal(2 + FRAMES, seen.count);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

static struct {
    struct wal_fixture *f;
    bft_status (*remove)(struct bfti_vfs *vfs, const char *path);
    bft_status (*read)(struct bfti_file *file, uint64_t offset, void *buf,
                       size_t len, size_t *got);
    unsigned removed;
} odd;

static bft_status counting_remove(struct bfti_vfs *vfs, const char *path)
{
    odd.removed++;
    assert_int_equal(8 - odd.removed, atomic_load(&wal_files_open));
    return odd.remove(vfs, path);
}

/* There are systems that remove no file that is open. */
static void a_file_is_closed_before_it_is_removed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    end = append_whole(f, 8);
    memset(&odd, 0, sizeof(odd));
    odd.remove = ops_of(f)->remove;
    ops_of(f)->remove = counting_remove;
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
    assert_int_equal(8 - SPARES, odd.removed);
    wal_fixture_free(f);
}

static bft_status dropping_read(struct bfti_file *file, uint64_t offset,
                                void *buf, size_t len, size_t *got)
{
    if (odd.f != NULL) {
        struct bfti_wal *wal = odd.f->wal;
        struct wal_fixture *f = odd.f;
        odd.f = NULL;
        assert_int_equal(BFT_OK,
                         bfti_wal_drop_below(wal, bfti_wal_durable(wal)));
        assert_int_equal(SPARES + 1, wal_file_count(f, true));
        assert_int_equal(SPARES + 1, atomic_load(&wal_files_open));
    }
    return odd.read(file, offset, buf, len, got);
}

/* One more than is wanted, be there enough or not. */
static void a_file_that_is_read_stays_as_a_spare(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    (void)state;
    wal_fixture_open(f, 0, 0);
    append_whole(f, 8);
    memset(&odd, 0, sizeof(odd));
    odd.f = f;
    odd.read = ops_of(f)->read;
    ops_of(f)->read = dropping_read;
    assert_int_equal(
        BFT_GONE, bfti_wal_feed_open(f->wal, UINT64_C(6) * SEGMENT, 0, &feed));
    assert_null(odd.f);
    wal_fixture_free(f);
}

/* --- mappings ------------------------------------------------------------- */

/* New segments, those that are used again, and those of an opening. */
static void a_mapped_log_stores_without_writing(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK_MAPPED, SEGMENT);
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, (size_t)3 * SEGMENT));
    wal_hooks.write = refuse_write;
    end = append_whole(f, 3);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end - SEGMENT));
    append_whole(f, 2);
    wal_append_sync(f, 8, 100);
    end = wal_append_sync(f, 9, 100).end; /* where the last one was synced */
    wal_fixture_close(f);
    wal_hooks.write = NULL; /* an opening writes what may not be durable */
    wal_fixture_open(f, end - end % SEGMENT, end);
    wal_hooks.write = refuse_write;
    wal_append_sync(f, 10, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, end - end % SEGMENT, end, &seen));
    assert_int_equal(3, seen.count);
    wal_fixture_free(f);
}

/* Of segments that were in use when they were synced. */
static void a_spare_may_be_mapped_still(void **state)
{
    static struct bfti_wal_thread slow; /* as long as the log is open */
    struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK_MAPPED, SEGMENT);
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    memset(&slow, 0, sizeof(slow));
    bfti_wal_attach(f->wal, &slow);
    bfti_wal_enter(f->wal, &slow);
    append_whole(f, 2);
    bfti_wal_leave(f->wal, &slow);
    end = append_whole(f, 1);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
    wal_hooks.write = refuse_write;
    append_whole(f, 2);
    wal_fixture_close(f);
    wal_hooks.write = NULL;
    assert_int_equal(BFT_OK, wal_scan(f, end, 0, &seen));
    assert_int_equal(2, seen.count);
    wal_fixture_free(f);
}

/* A file that was to become a segment, of a log with longer ones. */
static void a_new_segment_is_no_longer_than_others(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs *vfs = f->options.vfs;
    struct bfti_file *file;
    uint64_t bytes;
    char path[320];
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/log-new", f->dir);
    assert_int_equal(BFT_OK,
                     vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
    assert_int_equal(BFT_OK, file->ops->truncate(file, 3 * SEGMENT));
    file->ops->close(file);
    wal_fixture_open(f, 0, 0);
    wal_append_sync(f, 1, 100);
    wal_segment_path(f, 0, path);
    assert_int_equal(BFT_OK,
                     vfs->ops->open(vfs, path, BFTI_OPEN_READ_ONLY, &file));
    assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(SEGMENT, bytes);
    file->ops->close(file);
    wal_fixture_free(f);
}

/* --- what an opening finds ------------------------------------------------ */

static void what_it_does_not_keep_is_closed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    set_length(f, 0, SEGMENT - 1);
    wal_fixture_open(f, 8 * SEGMENT, 8 * SEGMENT);
    assert_int_equal(1, wal_file_count(f, true));
    assert_int_equal(1, atomic_load(&wal_files_open));
    wal_fixture_free(f);
}

/* Also when it is the only file that there is. */
static void what_lies_beyond_reach_is_removed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    (void)state;
    set_length(f, (uint64_t)SEGMENT << 20, SEGMENT);
    wal_fixture_open(f, 0, 0);
    assert_int_equal(1, wal_file_count(f, true));
    wal_fixture_free(f);
}

static void expect_refused(struct wal_fixture *f, uint64_t end, uint64_t lsn)
{
    struct bfti_wal *wal;
    char path[320];
    assert_int_equal(BFT_CORRUPT,
                     bfti_wal_open(&f->options, 0, end, end, 2, &wal));
    assert_null(wal);
    wal_segment_path(f, lsn, path);
    expect_text(path);
}

/* Missing, or too short, with others around it. */
static void the_segment_that_is_wrong_is_named(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    end = append_whole(f, 3);
    wal_fixture_close(f);
    set_length(f, SEGMENT, 1000);
    expect_refused(f, end, SEGMENT);
    remove_segment(f, SEGMENT);
    expect_refused(f, end, SEGMENT);
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_of_many_segments_is_found),
        cmocka_unit_test(room_is_made_for_others_too),
        cmocka_unit_test(structs_are_used_again),
        cmocka_unit_test(what_could_not_be_made_leaves_nothing),
        cmocka_unit_test(the_first_failure_is_told),
        cmocka_unit_test(a_spare_that_is_gone_is_forgotten),
        cmocka_unit_test(a_file_is_closed_before_it_is_removed),
        cmocka_unit_test(a_file_that_is_read_stays_as_a_spare),
        cmocka_unit_test(a_mapped_log_stores_without_writing),
        cmocka_unit_test(a_spare_may_be_mapped_still),
        cmocka_unit_test(a_new_segment_is_no_longer_than_others),
        cmocka_unit_test(what_it_does_not_keep_is_closed),
        cmocka_unit_test(what_lies_beyond_reach_is_removed),
        cmocka_unit_test(the_segment_that_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
