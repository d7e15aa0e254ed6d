/*
 * Feeds and copies of a log, of the log alone: what is held for which feed,
 * what a feed says of a log that is poisoned or damaged, how long it waits, and
 * that a copy has the frames of its part and nothing else.
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

static struct bfti_wal_feed *feed_at(struct wal_fixture *f, uint64_t lsn,
                                     uint64_t hold_bytes)
{
    struct bfti_wal_feed *feed;
    assert_int_equal(BFT_OK,
                     bfti_wal_feed_open(f->wal, lsn, hold_bytes, &feed));
    return feed;
}

static bft_status read_one(struct bfti_wal_feed *feed)
{
    struct bfti_wal_entry entry;
    bft_status status = bfti_wal_feed_read(feed, &entry);
    if (status == BFT_OK)
        bfti_wal_feed_pass(feed, &entry);
    return status;
}

/* In whatever order they are closed. */
static void each_feed_holds_until_it_is_closed(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 3; first++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        struct bfti_wal_feed *feed[3];
        struct bfti_wal_entry entry;
        uint64_t end;
        wal_fixture_open(f, 0, 0);
        for (uint64_t i = 0; i < 3; i++) {
            feed[i] = feed_at(f, BFTI_WAL_NOW, 64 * SEGMENT);
            wal_append_sync(f, i + 1, WHOLE);
        }
        end = bfti_wal_durable(f->wal);
        for (unsigned i = 0; i < 3; i++) {
            unsigned lowest = 0;
            assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
            while (feed[lowest] == NULL)
                lowest++;
            assert_int_equal(lowest * SEGMENT, bfti_wal_first(f->wal));
            assert_int_equal(BFT_OK, bfti_wal_feed_read(feed[lowest], &entry));
            assert_int_equal(lowest * SEGMENT, entry.lsn);
            bfti_wal_feed_close(feed[(first + i) % 3]);
            feed[(first + i) % 3] = NULL;
        }
        assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
        assert_int_equal(end, bfti_wal_first(f->wal));
        bfti_wal_feed_close(NULL);
        wal_fixture_free(f);
    }
}

/* As much as it said, and not a byte more. */
static void a_feed_holds_what_it_said(void **state)
{
    enum { ALL = 3 * SEGMENT };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *more, *less;
    (void)state;
    wal_fixture_open(f, 0, 0);
    more = feed_at(f, 0, ALL);
    less = feed_at(f, 0, ALL - 1);
    for (uint64_t i = 0; i < 3; i++)
        wal_append_sync(f, i + 1, WHOLE);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, ALL));
    assert_int_equal(0, bfti_wal_first(f->wal));
    bfti_wal_feed_close(more);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, ALL));
    assert_int_equal(ALL, bfti_wal_first(f->wal));
    bfti_wal_feed_close(less);
    wal_fixture_free(f);
}

/* What was durable before comes, when its writer has left; then that no more
 * will. */
static void of_a_poisoned_log_the_durable_part_comes(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_thread writer;
    struct bfti_wal_feed *feed, *late;
    struct wal_place place;
    uint32_t watch;
    (void)state;
    wal_fixture_open(f, 0, 0);
    memset(&writer, 0, sizeof(writer));
    bfti_wal_attach(f->wal, &writer);
    feed = feed_at(f, BFTI_WAL_NOW, 0);
    bfti_wal_enter(f->wal, &writer);
    place = wal_link_in(f, &writer, 1, 100);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    watch = bfti_wal_feed_watch(feed);
    bfti_wal_poison(f->wal);
    assert_int_not_equal(watch, bfti_wal_feed_watch(feed)); /* nobody sleeps */
    assert_int_equal(BFT_NOT_FOUND, read_one(feed));
    bfti_wal_leave(f->wal, &writer);
    assert_int_equal(BFT_OK, read_one(feed));
    assert_int_equal(BFT_POISONED, read_one(feed));
    /* One may still begin at the end. */
    late = feed_at(f, place.end, 0);
    assert_int_equal(BFT_POISONED, read_one(late));
    bfti_wal_feed_close(late);
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* Too near the end of what is settled for a frame, where the next segment may not be
 * there yet. */
static void within_the_last_frame_no_feed_begins(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    uint64_t end;
    (void)state;
    wal_fixture_open(f, 0, 0);
    end = wal_append_sync(f, 1, WHOLE).end;
    assert_int_equal(SEGMENT, end);
    for (uint64_t at = end - BFTI_FRAME_HEADER; at < end; at += 8) {
        char text[400];
        assert_int_equal(BFT_INVALID, bfti_wal_feed_open(f->wal, at, 0, &feed));
        (void)bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "no commit ends"));
        assert_null(feed);
    }
    bfti_wal_feed_close(feed_at(f, end, 0));
    wal_fixture_free(f);
}

static void a_feed_may_hold_a_byte(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    (void)state;
    wal_fixture_open(f, 0, 0);
    feed = feed_at(f, BFTI_WAL_NOW, 1);
    wal_append_sync(f, 1, WHOLE);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, SEGMENT));
    assert_int_equal(SEGMENT, bfti_wal_first(f->wal));
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* --- reading -------------------------------------------------------------- */

static void of_nothing_there_is_nothing_to_see(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_entry entry;
    struct bfti_wal_feed *feed;
    (void)state;
    wal_fixture_open(f, 0, 0);
    feed = feed_at(f, BFTI_WAL_NOW, 0);
    memset(&entry, 0xff, sizeof(entry));
    assert_int_equal(BFT_NOT_FOUND, bfti_wal_feed_read(feed, &entry));
    assert_null(entry.payload);
    assert_int_equal(0, entry.lsn);
    assert_int_equal(0, entry.end);
    assert_int_equal(0, entry.len);
    assert_int_equal(0, entry.type);
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* The shortest that there is, with nothing behind it. */
static void a_frame_of_no_bytes_is_read(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    (void)state;
    wal_fixture_open(f, 0, 0);
    feed = feed_at(f, BFTI_WAL_NOW, 0);
    assert_int_equal(BFTI_FRAME_HEADER, wal_append_sync(f, 1, 0).end);
    assert_int_equal(BFT_OK, read_one(feed));
    assert_int_equal(BFT_NOT_FOUND, read_one(feed));
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

static void flip(struct wal_fixture *f, uint64_t lsn)
{
    uint8_t byte;
    wal_peek(f, lsn, &byte, 1);
    byte ^= 1;
    wal_poke(f, lsn, &byte, 1);
}

/* At its end a frame begins, be it there yet or not: what is wrong there later
 * is the log's fault, and not that of who opened the feed. */
static void damage_is_told_from_the_end_on(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    uint64_t lsn;
    (void)state;
    wal_fixture_open(f, 0, 0);
    lsn = wal_append_sync(f, 1, 100).end;
    feed = feed_at(f, lsn, 0);
    wal_append_sync(f, 2, 100);
    flip(f, lsn);
    assert_int_equal(BFT_CORRUPT, read_one(feed));
    flip(f, lsn);
    assert_int_equal(BFT_OK, read_one(feed));
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* A frame of the life before, which came back in the place of one that was
 * written over it, as a disk may do. */
static void a_feed_takes_no_frame_of_an_older_life(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;
    struct wal_place place[3];
    uint8_t ghost[200];
    size_t len;
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 3; i++)
        place[i] = wal_append(f, i + 1, 100);
    wal_fixture_close(f);
    len = (size_t)(place[2].end - place[2].lsn);
    assert_in_range(len, 100, sizeof(ghost));
    wal_peek(f, place[2].lsn, ghost, len);
    flip(f, place[1].lsn + 60);
    wal_fixture_recover(f, 0);
    for (uint64_t i = 1; i < 3; i++)
        assert_int_equal(place[i].lsn, wal_append_sync(f, 20 + i, 100).lsn);
    wal_poke(f, place[2].lsn, ghost, len);
    feed = feed_at(f, 0, 0);
    assert_int_equal(BFT_OK, read_one(feed));
    assert_int_equal(BFT_OK, read_one(feed));
    assert_int_equal(BFT_CORRUPT, read_one(feed));
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

static void cut_first_segment(struct wal_fixture *f, uint64_t bytes)
{
    struct bfti_file *file;
    char path[320];
    wal_segment_path(f, 0, path);
    assert_int_equal(BFT_OK,
                     f->options.vfs->ops->open(f->options.vfs, path, 0, &file));
    assert_int_equal(BFT_OK, file->ops->truncate(file, bytes));
    file->ops->close(file);
}

/* Bytes that a file has lost are zeros, and not those that a reader happens to
 * have of it. */
static void what_was_cut_off_is_zeros(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed, *behind;
    struct bfti_frame *frame;
    struct wal_place place, zeros;
    void *payload;
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append_sync(f, 1, 100);
    place = wal_append_sync(f, 2, 1000);
    assert_int_equal(BFT_OK,
                     bfti_frame_create(f->wal, 1, 1000, &frame, &payload));
    memset(payload, 0, 1000);
    bfti_frame_seal(f->wal, frame);
    bfti_wal_enter(f->wal, &f->thread);
    bfti_wal_link(f->wal, &f->thread, frame, &zeros.lsn, &zeros.end);
    bfti_wal_leave(f->wal, &f->thread);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, zeros.end));
    flip(f, place.lsn + 60);
    feed = feed_at(f, 0, 0);
    assert_int_equal(BFT_OK, read_one(feed));
    for (unsigned i = 0; i < 2; i++) /* then read from there on */
        assert_int_equal(BFT_CORRUPT, read_one(feed));
    cut_first_segment(f, zeros.lsn + 900);
    behind = feed_at(f, zeros.lsn, 0);
    assert_int_equal(BFT_OK, read_one(behind));
    bfti_wal_feed_close(behind);
    flip(f, place.lsn + 60);
    cut_first_segment(f, place.lsn + 900);
    assert_int_equal(BFT_CORRUPT, read_one(feed));
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

static struct {
    bft_status (*behind)(struct bfti_file *file, uint64_t offset, void *buf,
                         size_t len, size_t *got);
    bool fails;
} reads;

/* It fails once, when much was read already. */
static bft_status spoiling_read(struct bfti_file *file, uint64_t offset,
                                void *buf, size_t len, size_t *got)
{
    if (!reads.fails)
        return reads.behind(file, offset, buf, len, got);
    reads.fails = false;
    memset(buf, 0xa5, len);
    *got = 0;
    return BFT_IO;
}

/* Of a frame whose header was there before, and the rest was not. */
static void a_read_that_failed_is_done_again(void **state)
{
    enum { FRAMES = 200, LEN = 900, AT_ONCE = 1 << 16 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 20);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
    struct bfti_wal_feed *feed;
    unsigned across = 0;
    (void)state;
    reads.behind = ops->read;
    ops->read = spoiling_read;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < FRAMES; i++) {
        struct wal_place place = wal_append_sync(f, i + 1, LEN);
        across +=
            place.lsn + BFTI_FRAME_HEADER <= AT_ONCE && place.end > AT_ONCE;
    }
    assert_int_equal(1, across);
    feed = feed_at(f, 0, 0);
    reads.fails = true;
    for (unsigned i = 0; i < FRAMES; i++) {
        bool before = reads.fails;
        bft_status status = read_one(feed);
        if (before && !reads.fails) {
            assert_int_equal(BFT_IO, status);
            status = read_one(feed);
        }
        assert_int_equal(BFT_OK, status);
    }
    assert_false(reads.fails);
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

static unsigned waits;
static uint64_t waited_ns;

static void noting_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                        uint64_t timeout_ns)
{
    (void)ctx, (void)word, (void)expected;
    waits++;
    waited_ns = timeout_ns;
}

/* For what is not there as long as it is told; for a writer that is about to
 * leave, who wakes nobody, a moment. */
static void a_feed_waits_as_long_as_it_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    const uint64_t told_ns = UINT64_C(5000) * 1000 * 1000;
    struct bfti_wal_thread writer;
    struct bfti_wal_feed *feed;
    struct wal_place place;
    (void)state;
    f->env.wait = noting_wait;
    waits = 0;
    wal_fixture_open(f, 0, 0);
    memset(&writer, 0, sizeof(writer));
    bfti_wal_attach(f->wal, &writer);
    feed = feed_at(f, BFTI_WAL_NOW, 0);
    bfti_wal_feed_wait(feed, bfti_wal_feed_watch(feed), told_ns);
    assert_int_equal(1, waits);
    assert_int_equal(told_ns, waited_ns);
    bfti_wal_enter(f->wal, &writer);
    place = wal_link_in(f, &writer, 1, 100);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_int_equal(BFT_NOT_FOUND, read_one(feed));
    bfti_wal_feed_wait(feed, bfti_wal_feed_watch(feed), told_ns);
    assert_int_equal(2, waits);
    assert_int_equal(1000 * 1000, waited_ns);
    bfti_wal_leave(f->wal, &writer);
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

/* --- copies ------------------------------------------------------------------ */

static struct wal_seen seen, copied;

static void expect_zeros(struct wal_fixture *f, uint64_t from, uint64_t to)
{
    uint8_t byte;
    for (uint64_t lsn = from; lsn < to; lsn += 999) {
        wal_peek(f, lsn, &byte, 1);
        assert_int_equal(0, byte);
    }
}

static void expect_copy(struct wal_fixture *f, uint64_t from, uint64_t upto)
{
    const char *home = f->options.dir;
    uint64_t segment_bytes = f->options.segment_bytes;
    uint64_t first = from - from % segment_bytes;
    uint64_t last =
        upto + (segment_bytes - upto % segment_bytes) % segment_bytes;
    assert_int_equal(BFT_OK, wal_scan(f, from, 0, &seen));
    f->options.dir = "copy";
    (void)snprintf(f->dir, sizeof(f->dir), "copy");
    assert_int_equal(BFT_OK, wal_scan(f, from, 0, &copied));
    assert_int_equal(upto, copied.found.end);
    assert_false(copied.garbled);
    assert_true(copied.count > 0);
    for (size_t i = 0; i < copied.count; i++) {
        assert_int_equal(seen.at[i].id, copied.at[i].id);
        assert_int_equal(seen.at[i].lsn, copied.at[i].lsn);
        assert_int_equal(seen.at[i].len, copied.at[i].len);
    }
    expect_zeros(f, first, from);
    expect_zeros(f, upto, last);
    /* Whole segments, and no others: what opens it finds them as it must. */
    assert_int_equal((last - first) / segment_bytes, wal_file_count(f, false));
    wal_fixture_close(f);
    wal_fixture_open(f, from, upto);
    f->options.dir = home;
}

/* Segments are longer than what is copied at once, and the part lies within. */
static void a_copy_has_its_part_and_zeros(void **state)
{
    enum { LARGE = 1 << 22, FRAMES = 40, LEN = 40000 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LARGE);
    struct bfti_vfs *vfs = f->options.vfs;
    struct wal_place place[FRAMES];
    (void)state;
    assert_int_equal(BFT_OK, vfs->ops->make_dir(vfs, "copy"));
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < FRAMES; i++)
        place[i] = wal_append_sync(f, i + 1, LEN);
    /* Of nothing there is nothing. */
    assert_int_equal(BFT_OK, bfti_wal_export(f->wal, 8, 8, vfs, "copy"));
    assert_int_equal(BFT_OK,
                     bfti_wal_export(f->wal, place[3].lsn,
                                     place[FRAMES - 5].end, vfs, "copy"));
    /* Not over what is there. */
    assert_int_equal(BFT_EXISTS,
                     bfti_wal_export(f->wal, place[3].lsn,
                                     place[FRAMES - 5].end, vfs, "copy"));
    expect_copy(f, place[3].lsn, place[FRAMES - 5].end);
    wal_fixture_free(f);
}

/* Segments that are no multiple of that; and the part ends where one does. */
static void a_copy_has_whole_segments(void **state)
{
    enum { LENGTH = 3 << 19, HALF = LENGTH / 2 - BFTI_FRAME_HEADER };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LENGTH);
    struct bfti_vfs *vfs = f->options.vfs;
    struct wal_place place[6];
    (void)state;
    assert_int_equal(BFT_OK, vfs->ops->make_dir(vfs, "copy"));
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 6; i++)
        place[i] = wal_append_sync(f, i + 1, HALF);
    assert_int_equal(BFT_OK, bfti_wal_export(f->wal, place[1].lsn, place[3].end,
                                             vfs, "copy"));
    assert_int_equal(0, place[3].end % LENGTH);
    expect_copy(f, place[1].lsn, place[3].end);
    wal_fixture_free(f);
}

static bft_status refuse_write(void *arg, uint64_t offset, const void *buf,
                               size_t len)
{
    (void)arg, (void)offset, (void)buf, (void)len;
    return BFT_NO_SPACE;
}

/* No memory, nothing to read, no room: nothing is left open. */
static void a_copy_that_fails_says_why(void **state)
{
    static const bft_status why[] = {BFT_NO_MEMORY, BFT_IO, BFT_NO_SPACE};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        struct bfti_vfs *vfs = f->options.vfs;
        struct bfti_vfs_ops *ops = (void *)(uintptr_t)vfs->ops;
        uint64_t end;
        assert_int_equal(BFT_OK, vfs->ops->make_dir(vfs, "copy"));
        wal_fixture_open(f, 0, 0);
        end = wal_append_sync(f, 1, 100).end;
        reads.behind = ops->read;
        ops->read = spoiling_read;
        atomic_store(&wal_fail_alloc, i == 0 ? 0 : -1);
        reads.fails = i == 1;
        wal_hooks.write = i == 2 ? refuse_write : NULL;
        assert_int_equal(why[i], bfti_wal_export(f->wal, 0, end, vfs, "copy"));
        assert_int_equal(1, atomic_load(&wal_files_open));
        wal_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_feed_holds_until_it_is_closed),
        cmocka_unit_test(a_feed_holds_what_it_said),
        cmocka_unit_test(of_a_poisoned_log_the_durable_part_comes),
        cmocka_unit_test(within_the_last_frame_no_feed_begins),
        cmocka_unit_test(a_feed_may_hold_a_byte),
        cmocka_unit_test(of_nothing_there_is_nothing_to_see),
        cmocka_unit_test(a_frame_of_no_bytes_is_read),
        cmocka_unit_test(damage_is_told_from_the_end_on),
        cmocka_unit_test(a_feed_takes_no_frame_of_an_older_life),
        cmocka_unit_test(what_was_cut_off_is_zeros),
        cmocka_unit_test(a_read_that_failed_is_done_again),
        cmocka_unit_test(a_feed_waits_as_long_as_it_is_told),
        cmocka_unit_test(a_copy_has_its_part_and_zeros),
        cmocka_unit_test(a_copy_has_whole_segments),
        cmocka_unit_test(a_copy_that_fails_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
