/*
 * Spare segments of the log where the file system refuses what is wanted of them:
 * a name cannot be taken back, the directory is gone, the file was taken away while
 * a feed reads it.
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

enum { SEGMENT = 4096, WHOLE = SEGMENT - BFTI_FRAME_HEADER, FRAMES = 3 };

static struct wal_seen seen;

/* --- what fails -------------------------------------------------------------- */

static struct bfti_vfs_ops behind;
static bft_status sync_dir_says; /* once; BFT_OK: it is asked */
static unsigned renames_left;    /* then no more is done */
static void (*before_read)(void);

static bft_status odd_sync_dir(struct bfti_vfs *vfs, const char *dir)
{
    bft_status status = sync_dir_says;
    sync_dir_says = BFT_OK;
    return status == BFT_OK ? behind.sync_dir(vfs, dir) : status;
}

static bft_status odd_rename(struct bfti_vfs *vfs, const char *from,
                             const char *to)
{
    if (renames_left == 0)
        return BFT_IO;
    renames_left--;
    return behind.rename(vfs, from, to);
}

static bft_status odd_read(struct bfti_file *file, uint64_t offset, void *buf,
                           size_t len, size_t *got)
{
    void (*before)(void) = before_read;
    before_read = NULL;
    if (before != NULL)
        before();
    return behind.read(file, offset, buf, len, got);
}

/* A log of FRAMES whole segments, in the file system above. */
static struct wal_fixture *log_new(void)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
    behind = *ops;
    sync_dir_says = BFT_OK;
    renames_left = UINT32_MAX;
    before_read = NULL;
    ops->sync_dir = odd_sync_dir;
    ops->rename = odd_rename;
    ops->read = odd_read;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < FRAMES; i++)
        (void)wal_append_sync(f, i + 1, WHOLE);
    return f;
}

static void drop(struct wal_fixture *f, uint64_t lsn)
{
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, lsn));
    assert_int_equal(lsn, bfti_wal_first(f->wal));
}

static void expect_gone(bft_status status)
{
    char text[400];
    assert_int_equal(BFT_IO, status);
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "the log's directory is gone"));
}

/* Whatever name the file has on disk: what was durable is read, from LSN on. */
static void expect_poisoned(struct wal_fixture *f, uint64_t lsn)
{
    assert_true(bfti_wal_poisoned(f->wal));
    assert_int_equal(BFT_POISONED, bfti_wal_make_room(f->wal, 4 * SEGMENT));
    wal_fixture_close(f);
    renames_left = UINT32_MAX;
    assert_int_equal(BFT_OK, wal_scan(f, lsn, 0, &seen));
    assert_int_equal(FRAMES - lsn / SEGMENT, seen.count);
    assert_false(seen.garbled);
    wal_fixture_recover(f, lsn);
    (void)wal_append_sync(f, 9, WHOLE);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, lsn, 0, &seen));
    assert_int_equal(FRAMES + 1 - lsn / SEGMENT, seen.count);
    wal_fixture_free(f);
}

/* --- names ------------------------------------------------------------------- */

/* Of a spare and of a new segment.  As long as it can be taken back, nothing has
 * happened. */
static void a_name_that_cannot_be_taken_back_poisons(void **state)
{
    (void)state;
    for (uint64_t lsn = 0; lsn <= SEGMENT; lsn += SEGMENT) {
        struct wal_fixture *f = log_new();
        drop(f, lsn);
        for (unsigned renames = 2; renames > 0; renames--) {
            renames_left = renames;
            sync_dir_says = BFT_NO_MEMORY;
            assert_int_equal(BFT_NO_MEMORY,
                             bfti_wal_make_room(f->wal, SEGMENT / 2));
            assert_int_equal(0, renames_left);
            assert_int_equal(renames == 1, bfti_wal_poisoned(f->wal));
        }
        expect_poisoned(f, lsn);
    }
}

/* The file has its new name, and then there is no directory to sync. */
static void a_directory_that_goes_after_the_rename_poisons(void **state)
{
    (void)state;
    for (uint64_t lsn = 0; lsn <= SEGMENT; lsn += SEGMENT) {
        struct wal_fixture *f = log_new();
        drop(f, lsn);
        sync_dir_says = BFT_NOT_FOUND;
        expect_gone(bfti_wal_make_room(f->wal, SEGMENT / 2));
        expect_poisoned(f, lsn);
    }
}

/* --- a spare that is read ------------------------------------------------------ */

static struct wal_fixture *read_log;

static void take_it_away(void)
{
    struct bfti_vfs *vfs = read_log->options.vfs;
    char path[320];
    drop(read_log, SEGMENT);
    wal_segment_path(read_log, 0, path);
    assert_int_equal(BFT_OK, vfs->ops->remove(vfs, path));
    expect_gone(bfti_wal_make_room(read_log->wal, SEGMENT / 2));
    assert_false(bfti_wal_poisoned(read_log->wal));
}

/* Its file stays open as long, and is not forgotten before. */
static void a_spare_that_is_gone_is_kept_for_its_reader(void **state)
{
    struct wal_fixture *f = log_new();
    struct bfti_wal_feed *feed;
    (void)state;
    read_log = f;
    before_read = take_it_away;
    assert_int_equal(BFT_GONE, bfti_wal_feed_open(f->wal, 0, 0, &feed));
    assert_null(before_read);
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, SEGMENT / 2));
    (void)wal_append_sync(f, FRAMES + 1, WHOLE);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, SEGMENT, 0, &seen));
    assert_int_equal(FRAMES, seen.count);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_cannot_be_taken_back_poisons),
        cmocka_unit_test(a_directory_that_goes_after_the_rename_poisons),
        cmocka_unit_test(a_spare_that_is_gone_is_kept_for_its_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
