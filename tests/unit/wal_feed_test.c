/*
 * Feeds and copies of a log, of the log alone: what is held for which feed, what a
 * feed says of a poisoned log, and that a copy has the frames of its part and
 * nothing else.
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

/* --- copies ------------------------------------------------------------------ */

static struct wal_seen seen, copied;

static void expect_copy(struct wal_fixture *f, uint64_t from, uint64_t upto)
{
    const char *home = f->options.dir;
    uint64_t first = from - from % f->options.segment_bytes;
    uint8_t byte;
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
    for (uint64_t lsn = first; lsn < from; lsn += 999) {
        wal_peek(f, lsn, &byte, 1);
        assert_int_equal(0, byte);
    }
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
    expect_copy(f, place[3].lsn, place[FRAMES - 5].end);
    /* Not over what is there. */
    assert_int_equal(BFT_EXISTS,
                     bfti_wal_export(f->wal, place[3].lsn,
                                     place[FRAMES - 5].end, vfs, "copy"));
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_feed_holds_until_it_is_closed),
        cmocka_unit_test(a_feed_holds_what_it_said),
        cmocka_unit_test(of_a_poisoned_log_the_durable_part_comes),
        cmocka_unit_test(within_the_last_frame_no_feed_begins),
        cmocka_unit_test(a_copy_has_its_part_and_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
