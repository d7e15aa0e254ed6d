/*
 * The log while it is open: linking, copying, syncing, segments, threads.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wal_fixture.h"

static struct wal_seen seen;

enum { SEGMENT = 4096 };

/* --- contents -------------------------------------------------------------- */

static void check_round_trip(enum wal_medium medium)
{
    static const size_t lens[] = {0, 1, 7, 8, 9, 100, 1000, 4095, 4096, 9000};
    enum { FRAMES = 500, KINDS = sizeof(lens) / sizeof(lens[0]) };
    struct wal_fixture *f = wal_fixture_new(medium, SEGMENT);
    struct wal_place place = {0, 0};

    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < FRAMES; i++) {
        struct wal_place now = wal_append(f, i + 1, lens[i % KINDS]);

        assert_int_equal(place.end, now.lsn);
        assert_int_equal(0, now.end % 8);
        assert_in_range(now.end - now.lsn - BFTI_FRAME_HEADER, lens[i % KINDS],
                        lens[i % KINDS] + 7);
        place = now;
    }
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_false(seen.garbled);
    assert_int_equal(FRAMES, seen.count);
    assert_int_equal(place.end, seen.found.end);
    assert_int_equal(FRAMES, seen.found.frames);
    assert_int_equal(1, seen.found.max_incarnation);
    for (uint64_t i = 0; i < FRAMES; i++) {
        assert_int_equal(lens[i % KINDS], seen.at[i].len);
        if (seen.at[i].len >= 8)
            assert_int_equal(i + 1, seen.at[i].id);
    }
    wal_fixture_free(f);
}

static void frames_come_back_in_order(void **state)
{
    (void)state;
    check_round_trip(WAL_IN_MEMORY);
}

static void frames_come_back_from_written_files(void **state)
{
    (void)state;
    check_round_trip(WAL_ON_DISK);
}

static void frames_come_back_from_mapped_files(void **state)
{
    (void)state;
    check_round_trip(WAL_ON_DISK_MAPPED);
}

static _Atomic unsigned writes_seen;

static bft_status count_write(void *arg, uint64_t offset, const void *buf,
                              size_t len)
{
    (void)arg;
    (void)offset;
    (void)buf;
    (void)len;
    atomic_fetch_add(&writes_seen, 1);
    return BFT_OK;
}

static void many_linked_frames_are_copied_in_few_writes(void **state)
{
    enum { FRAMES = 1000, LEN = 100 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 20);
    struct wal_place place = {0, 0};

    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_enter(f->wal, &f->thread);
    for (uint64_t i = 0; i < FRAMES; i++)
        place = wal_link_in(f, &f->thread, i, LEN);
    bfti_wal_leave(f->wal, &f->thread);
    assert_int_equal(0, bfti_wal_copied(f->wal));
    assert_int_equal(place.end, bfti_wal_end(f->wal));

    wal_hooks.write = count_write;
    atomic_store(&writes_seen, 0);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_in_range(atomic_load(&writes_seen), 2, 10);
    assert_int_equal(place.end, bfti_wal_durable(f->wal));
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(FRAMES, seen.count);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

/* The writes that it takes to copy two frames that have so many bytes with their
 * headers. */
static unsigned writes_of_two(uint64_t first, uint64_t second)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 20);
    struct wal_place place;

    wal_fixture_open(f, 0, 0);
    bfti_wal_enter(f->wal, &f->thread);
    place = wal_link_in(f, &f->thread, 1, first - BFTI_FRAME_HEADER);
    assert_int_equal(first, place.end);
    place = wal_link_in(f, &f->thread, 2, second - BFTI_FRAME_HEADER);
    wal_hooks.write = count_write;
    atomic_store(&writes_seen, 0);
    assert_int_equal(BFT_OK, bfti_wal_copy(f->wal, &f->thread, place.end));
    bfti_wal_leave(f->wal, &f->thread);
    wal_fixture_free(f);
    return atomic_load(&writes_seen);
}

enum { BATCH = 64 << 10 };

/* What begins with half of a batch at most is gathered, up to all of one. */
static void a_batch_is_gathered_to_its_last_byte(void **state)
{
    (void)state;
    assert_int_equal(1, writes_of_two(BATCH / 2, 1000));
    assert_int_equal(1, writes_of_two(BATCH / 2, BATCH / 2));
    assert_int_equal(2, writes_of_two(BATCH / 2, BATCH / 2 + 8));
    assert_int_equal(2, writes_of_two(BATCH / 2 + 8, 1000));
}

static bft_status refuse_second_batch(void *arg, uint64_t offset,
                                      const void *buf, size_t len)
{
    (void)arg;
    (void)buf;
    (void)len;
    return offset < BATCH ? BFT_OK : BFT_NO_SPACE;
}

/* A whole batch is said to be copied before the next one is tried. */
static void what_fails_behind_a_batch_takes_nothing_from_it(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 20);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_enter(f->wal, &f->thread);
    wal_link_in(f, &f->thread, 1, BATCH - BFTI_FRAME_HEADER);
    place = wal_link_in(f, &f->thread, 2, 100);
    wal_hooks.write = refuse_second_batch;
    assert_int_equal(BFT_NO_SPACE,
                     bfti_wal_copy(f->wal, &f->thread, place.end));
    assert_int_equal(BATCH, bfti_wal_copied(f->wal));
    wal_hooks.write = NULL;
    assert_int_equal(BFT_OK, bfti_wal_copy(f->wal, &f->thread, place.end));
    assert_int_equal(place.end, bfti_wal_copied(f->wal));
    bfti_wal_leave(f->wal, &f->thread);
    wal_fixture_free(f);
}

static void marks_move_with_link_copy_and_sync(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    struct wal_place first, second;

    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_enter(f->wal, &f->thread);
    first = wal_link_in(f, &f->thread, 1, 10);
    second = wal_link_in(f, &f->thread, 2, 10);
    assert_int_equal(second.end, bfti_wal_end(f->wal));
    assert_int_equal(0, bfti_wal_copied(f->wal));
    assert_int_equal(BFT_OK, bfti_wal_copy(f->wal, &f->thread, first.end));
    assert_int_equal(first.end, bfti_wal_copied(f->wal));
    assert_int_equal(0, bfti_wal_durable(f->wal));
    bfti_wal_leave(f->wal, &f->thread);

    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, first.end));
    /* A sync takes all along that is linked. */
    assert_int_equal(second.end, bfti_wal_durable(f->wal));
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, second.end));
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(1, stats.syncs);
    assert_int_equal(2, stats.frames);
    assert_int_equal(second.end, stats.bytes);
    wal_fixture_free(f);
}

/* Link a frame of LEN bytes that is left to wait until BYTES do; returns how much
 * is not in the file behind it. */
static uint64_t append_behind(struct wal_fixture *f, uint64_t id, size_t len,
                              uint64_t bytes)
{
    struct wal_place place;

    bfti_wal_enter(f->wal, &f->thread);
    place = wal_link_in(f, &f->thread, id, len);
    assert_int_equal(
        BFT_OK, bfti_wal_copy_behind(f->wal, &f->thread, place.end, bytes));
    bfti_wal_leave(f->wal, &f->thread);
    return place.end - bfti_wal_copied(f->wal);
}

static void frames_wait_in_memory_up_to_a_bound(void **state)
{
    enum { FRAMES = 300, LEN = 100, BOUND = 10 * 1024 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t frame_bytes, before;

    (void)state;
    wal_fixture_open(f, 0, 0);
    before = frame_bytes = append_behind(f, 0, LEN, BOUND);
    assert_in_range(frame_bytes, LEN, BOUND / 10);
    for (uint64_t i = 1; i < FRAMES; i++) {
        uint64_t behind = append_behind(f, i, LEN, BOUND);

        /* All is copied at once, or nothing. */
        if (before + frame_bytes > BOUND)
            assert_int_equal(0, behind);
        else
            assert_int_equal(before + frame_bytes, behind);
        before = behind;
    }
    assert_int_equal(BFT_OK,
                     bfti_wal_sync(f->wal, &f->thread, bfti_wal_end(f->wal)));
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, 0, &seen));
    assert_int_equal(FRAMES, seen.count);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

/* With as much as it may be all are left to wait, with a byte more none. */
static void as_much_may_wait_as_was_said(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t one;

    (void)state;
    wal_fixture_open(f, 0, 0);
    one = append_behind(f, 1, 100, SEGMENT);
    assert_int_equal(2 * one, append_behind(f, 2, 100, 2 * one));
    assert_int_equal(0, append_behind(f, 3, 100, 3 * one - 1));
    wal_fixture_free(f);
}

/* Of what was there before they say nothing. */
static void statistics_begin_with_the_opening(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append_sync(f, 1, 1000);
    wal_fixture_close(f);
    wal_fixture_open(f, 0, place.end);
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(0, stats.bytes);
    place = wal_append(f, 2, 100);
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(place.end - place.lsn, stats.bytes);
    assert_int_equal(1, stats.frames);
    wal_fixture_free(f);
}

static void a_frame_carries_the_mark_known_when_it_was_linked(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place first, second;
    le64 mark;

    (void)state;
    wal_fixture_open(f, 0, 0);
    first = wal_append_sync(f, 1, 50);
    second = wal_append(f, 2, 50);
    wal_peek(f, first.lsn + 16, &mark, sizeof(mark));
    assert_int_equal(0, le64_get(mark));
    wal_peek(f, second.lsn + 16, &mark, sizeof(mark));
    assert_int_equal(first.end, le64_get(mark));
    wal_fixture_free(f);
}

static void a_frame_may_span_many_segments(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 100);
    place = wal_append_sync(f, 2, 20 * SEGMENT + 13);
    wal_append(f, 3, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(3, seen.count);
    assert_int_equal(20 * SEGMENT + 13, seen.at[1].len);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

static void a_frame_over_the_limit_is_refused(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_frame *frame;
    void *payload;

    (void)state;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(
        BFT_TOO_BIG,
        bfti_frame_create(f->wal, 1, ((size_t)1 << 30) + 1, &frame, &payload));
    assert_null(frame);
    assert_int_equal(BFT_OK,
                     bfti_frame_create(f->wal, 1, 100, &frame, &payload));
    bfti_frame_free(f->wal, frame);
    wal_fixture_free(f);
}

/* --- segments -------------------------------------------------------------- */

static void dropped_segments_become_later_ones(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    struct wal_place place = {0, 0};

    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 2000; i++) {
        place = wal_append(f, i + 1, 200);
        if (i % 50 == 49) {
            assert_int_equal(BFT_OK,
                             bfti_wal_sync(f->wal, &f->thread, place.end));
            assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.lsn));
        }
    }
    bfti_wal_stats(f->wal, &stats);
    assert_in_range(stats.segments_made, 1, 10);
    assert_in_range(stats.segments_reused, 80, 200);
    assert_in_range(wal_file_count(f, false), 1, 10);
    wal_fixture_close(f);

    /* The last frame is there, and nothing of what the file held before. */
    assert_int_equal(BFT_OK, wal_scan(f, place.lsn, place.end, &seen));
    assert_int_equal(1, seen.count);
    assert_int_equal(2000, seen.at[0].id);
    wal_fixture_free(f);
}

static void more_spares_than_wanted_are_removed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 20 * SEGMENT);
    place = wal_append_sync(f, 2, 100);
    assert_int_equal(21, wal_file_count(f, true));
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.lsn));
    assert_int_equal(1 + 4, wal_file_count(f, true));

    /* Reopening keeps them as spares, and uses them. */
    wal_fixture_close(f);
    wal_fixture_open(f, place.lsn, place.end);
    assert_int_equal(1 + 4, wal_file_count(f, true));
    wal_append(f, 3, 4 * SEGMENT);
    assert_int_equal(1 + 4, wal_file_count(f, true));
    wal_fixture_free(f);
}

static void an_in_flight_slot_keeps_the_log_above_it(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_thread other;
    struct wal_place place;

    (void)state;
    memset(&other, 0, sizeof(other));
    wal_fixture_open(f, 0, 0);
    bfti_wal_attach(f->wal, &other);
    assert_int_equal(UINT64_MAX, bfti_wal_lowest_in_flight(f->wal));
    place = wal_append(f, 1, 100);
    bfti_wal_enter(f->wal, &other);
    assert_int_equal(place.end, bfti_wal_lowest_in_flight(f->wal));
    place = wal_append_sync(f, 2, 3 * SEGMENT);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.end));
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(2, seen.count);

    bfti_wal_leave(f->wal, &other);
    assert_int_equal(UINT64_MAX, bfti_wal_lowest_in_flight(f->wal));
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.end));
    wal_append(f, 3, 3 * SEGMENT); /* into the spares */
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end, &seen));
    wal_fixture_free(f);
}

static void log_that_is_not_durable_is_not_dropped(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 1, 3 * SEGMENT);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.end));
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(1, seen.count);
    wal_fixture_free(f);
}

static void prepare_makes_the_next_segment_ahead(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);

    (void)state;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(1, wal_file_count(f, true));
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t made = wal_file_count(f, true);

        atomic_store(&wal_syncs_called, 0);
        assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
        /* Full and durable before it can be mapped. */
        assert_int_equal(wal_file_count(f, true) - made,
                         atomic_load(&wal_syncs_called));
        assert_int_equal(bfti_wal_copied(f->wal) / SEGMENT + 2,
                         wal_file_count(f, true));
        wal_append(f, i + 1, 300);
    }
    wal_fixture_free(f);
}

static bft_status refuse_write(void *arg, uint64_t offset, const void *buf,
                               size_t len)
{
    (void)offset;
    (void)buf;
    (void)len;
    return *(bft_status *)arg;
}

static void a_full_disk_refuses_the_copy_and_loses_nothing(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    bft_status refusal = BFT_NO_SPACE;
    struct wal_place place;

    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_enter(f->wal, &f->thread);
    place = wal_link_in(f, &f->thread, 1, 2 * SEGMENT);
    wal_hooks.write = refuse_write;
    wal_hooks.arg = &refusal;
    assert_int_equal(BFT_NO_SPACE,
                     bfti_wal_copy(f->wal, &f->thread, place.end));
    bfti_wal_leave(f->wal, &f->thread);
    assert_int_equal(BFT_NO_SPACE,
                     bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_int_equal(0, bfti_wal_copied(f->wal));
    assert_false(bfti_wal_poisoned(f->wal));

    wal_hooks.write = NULL;
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(1, seen.count);
    wal_fixture_free(f);
}

static void without_memory_every_call_says_so(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal *wal = NULL;
    bft_status status = BFT_NO_MEMORY;

    (void)state;
    for (int64_t n = 0; status != BFT_OK; n++) {
        assert_int_equal(BFT_NO_MEMORY, status);
        assert_null(wal);
        assert_in_range(n, 0, 50);
        atomic_store(&wal_fail_alloc, n);
        status = bfti_wal_open(&f->options, 0, 0, 0, 1, &wal);
        atomic_store(&wal_fail_alloc, -1);
    }
    bfti_wal_close(wal);
    status = BFT_NO_MEMORY;
    for (int64_t n = 0; status != BFT_OK; n++) {
        struct bfti_wal_found found;

        assert_int_equal(BFT_NO_MEMORY, status);
        assert_in_range(n, 0, 50);
        atomic_store(&wal_fail_alloc, n);
        status = bfti_wal_scan(&f->options, 0, 0, NULL, NULL, &found);
        atomic_store(&wal_fail_alloc, -1);
    }
    wal_fixture_free(f);
}

/* --- failed syncs ---------------------------------------------------------- */

static bft_status refuse_sync(void *arg)
{
    (void)arg;
    return BFT_IO;
}

static void a_failed_sync_poisons_the_log(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place first, second;

    (void)state;
    wal_fixture_open(f, 0, 0);
    first = wal_append_sync(f, 1, 2 * SEGMENT);
    second = wal_append(f, 2, 100);
    wal_hooks.sync = refuse_sync;
    assert_int_equal(BFT_IO, bfti_wal_sync(f->wal, &f->thread, second.end));
    wal_hooks.sync = NULL;
    assert_true(bfti_wal_poisoned(f->wal));
    assert_int_equal(first.end, bfti_wal_durable(f->wal));
    assert_int_equal(BFT_POISONED,
                     bfti_wal_sync(f->wal, &f->thread, second.end));
    /* What was durable before still is. */
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, first.end));
    assert_int_equal(BFT_POISONED, bfti_wal_drop_below(f->wal, first.end));
    wal_fixture_free(f);
}

static bft_status poison(void *arg)
{
    struct wal_fixture *f = arg;

    bfti_wal_poison(f->wal); /* as after a failed sync of the page file */
    return BFT_OK;
}

static void a_poisoned_log_acknowledges_nothing_more(void **state)
{
    (void)state;
    for (unsigned during = 0; during < 2; during++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        struct wal_place place;

        wal_fixture_open(f, 0, 0);
        place = wal_append(f, 1, 100);
        wal_hooks.arg = f;
        if (during)
            wal_hooks.sync = poison;
        else
            (void)poison(f);
        assert_int_equal(BFT_POISONED,
                         bfti_wal_sync(f->wal, &f->thread, place.end));
        assert_int_equal(during, atomic_load(&wal_syncs_called) - 1);
        assert_int_equal(0, bfti_wal_durable(f->wal));
        /* Nor does it take a segment more. */
        assert_int_equal(BFT_POISONED, bfti_wal_prepare(f->wal));
        assert_int_equal(1, wal_file_count(f, false));
        wal_fixture_free(f);
    }
}

/* --- threads --------------------------------------------------------------- */

/* A call that waits until the test lets it go on. */
struct gate {
    _Atomic bool closed, reached;
    bft_status status;
};

static bft_status gate_sync(void *arg)
{
    struct gate *gate = arg;

    while (atomic_load(&gate->closed)) {
        atomic_store(&gate->reached, true);
        sched_yield();
    }
    return gate->status;
}

struct committer {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    pthread_t id;
    uint64_t number;
    bft_status status;
};

static void *commit(void *arg)
{
    struct committer *c = arg;
    struct wal_place place;

    bfti_wal_attach(c->f->wal, &c->thread);
    bfti_wal_enter(c->f->wal, &c->thread);
    place = wal_link_in(c->f, &c->thread, c->number, 100);
    bfti_wal_leave(c->f->wal, &c->thread);
    c->status = bfti_wal_sync(c->f->wal, &c->thread, place.end);
    return NULL;
}

enum { COMMITTERS = 5 };

/* Let the first commit reach the gate in its sync, and the others wait. */
static void start_committers(struct wal_fixture *f, struct gate *gate,
                             struct committer c[COMMITTERS])
{
    struct bfti_wal_stats stats;

    memset(c, 0, COMMITTERS * sizeof(*c));
    wal_hooks.sync = gate_sync;
    wal_hooks.arg = gate;
    for (unsigned i = 0; i < COMMITTERS; i++) {
        c[i].f = f;
        c[i].number = i + 1;
        assert_int_equal(0, pthread_create(&c[i].id, NULL, commit, &c[i]));
        while (i == 0 && !atomic_load(&gate->reached))
            sched_yield();
    }
    do {
        sched_yield();
        bfti_wal_stats(f->wal, &stats);
    } while (stats.sync_waits < COMMITTERS - 1);
}

static void waiting_commits_share_one_sync(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 16);
    struct gate gate = {.closed = true, .status = BFT_OK};
    struct committer c[COMMITTERS];
    struct bfti_wal_stats stats;

    (void)state;
    wal_fixture_open(f, 0, 0);
    start_committers(f, &gate, c);
    atomic_store(&gate.closed, false);
    for (unsigned i = 0; i < COMMITTERS; i++) {
        assert_int_equal(0, pthread_join(c[i].id, NULL));
        assert_int_equal(BFT_OK, c[i].status);
    }
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(2, stats.syncs);
    assert_int_equal(bfti_wal_end(f->wal), bfti_wal_durable(f->wal));
    wal_hooks.sync = NULL;
    wal_fixture_free(f);
}

static _Atomic unsigned waits;

static void counting_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                          uint64_t timeout_ns)
{
    const struct bfti_env *env = bfti_env_system();

    (void)ctx;
    atomic_fetch_add(&waits, 1);
    env->wait(env->ctx, word, expected, timeout_ns);
}

/* Woken by somebody else, they go on to wait for the same sync. */
static void who_is_woken_too_early_waits_on(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 16);
    struct gate gate = {.closed = true, .status = BFT_OK};
    struct committer c[COMMITTERS];
    struct bfti_wal_stats stats;

    (void)state;
    wal_fixture_open(f, 0, 0);
    atomic_store(&waits, 0);
    f->env.wait = counting_wait;
    start_committers(f, &gate, c);
    while (atomic_load(&waits) < COMMITTERS - 1)
        sched_yield();
    bfti_wal_nudge(f->wal);
    while (atomic_load(&waits) < 2 * (COMMITTERS - 1))
        sched_yield();
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(COMMITTERS - 1, stats.sync_waits);
    assert_int_equal(0, bfti_wal_durable(f->wal));
    atomic_store(&gate.closed, false);
    for (unsigned i = 0; i < COMMITTERS; i++) {
        assert_int_equal(0, pthread_join(c[i].id, NULL));
        assert_int_equal(BFT_OK, c[i].status);
    }
    assert_int_equal(bfti_wal_end(f->wal), bfti_wal_durable(f->wal));
    wal_hooks.sync = NULL;
    wal_fixture_free(f);
}

static unsigned wakes;

static void count_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    (void)ctx;
    (void)word;
    wakes += all;
}

/* It has been nudged while it sleeps. */
static void nudged_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                        uint64_t timeout_ns)
{
    struct wal_fixture *f = ctx;

    (void)timeout_ns;
    assert_int_equal(expected, atomic_load(word));
    bfti_wal_nudge(f->wal);
}

/* A call of the system for each who sleeps, and for nobody else. */
static void nobody_is_woken_when_nobody_sleeps(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_feed *feed;

    (void)state;
    f->env.ctx = f;
    f->env.wait = nudged_wait;
    f->env.wake = count_wake;
    wal_fixture_open(f, 0, 0);
    wakes = 0;
    wal_append_sync(f, 1, 100);
    assert_int_equal(0, wakes);
    assert_int_equal(BFT_OK,
                     bfti_wal_feed_open(f->wal, BFTI_WAL_NOW, 0, &feed));
    for (unsigned i = 1; i < 4; i++) {
        bfti_wal_feed_wait(feed, bfti_wal_feed_watch(feed), 1);
        assert_int_equal(i, wakes);
        wal_append_sync(f, 1 + i, 100);
        assert_int_equal(i, wakes);
    }
    bfti_wal_feed_close(feed);
    wal_fixture_free(f);
}

static void a_failed_sync_wakes_all_who_wait(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 16);
    struct gate gate = {.closed = true, .status = BFT_IO};
    struct committer c[COMMITTERS];

    (void)state;
    wal_fixture_open(f, 0, 0);
    start_committers(f, &gate, c);
    atomic_store(&gate.closed, false);
    for (unsigned i = 0; i < COMMITTERS; i++)
        assert_int_equal(0, pthread_join(c[i].id, NULL));
    assert_int_equal(BFT_IO, c[0].status);
    for (unsigned i = 1; i < COMMITTERS; i++)
        assert_int_equal(BFT_POISONED, c[i].status);
    assert_int_equal(0, bfti_wal_durable(f->wal));
    wal_hooks.sync = NULL;
    wal_fixture_free(f);
}

/* The thread that stops at its first write, while the gate is closed. */
static _Thread_local bool stops_here;
static struct gate write_gate;

static bft_status stop_one_writer(void *arg, uint64_t offset, const void *buf,
                                  size_t len)
{
    (void)arg;
    (void)offset;
    (void)buf;
    (void)len;
    return stops_here ? gate_sync(&write_gate) : BFT_OK;
}

static void *append_and_stop(void *arg)
{
    struct committer *c = arg;
    struct wal_place place;

    stops_here = true;
    bfti_wal_attach(c->f->wal, &c->thread);
    bfti_wal_enter(c->f->wal, &c->thread);
    place = wal_link_in(c->f, &c->thread, c->number, 100);
    c->status = bfti_wal_copy(c->f->wal, &c->thread, place.end);
    bfti_wal_leave(c->f->wal, &c->thread);
    return NULL;
}

/* A thread stopped in the middle of a copy holds up neither those behind it
 * nor the sync, and its frame's memory waits for it. */
static void a_stopped_copier_delays_nobody(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct committer c;
    struct wal_place place = {0, 0};

    (void)state;
    memset(&c, 0, sizeof(c));
    write_gate.status = BFT_OK;
    atomic_store(&write_gate.reached, false);
    atomic_store(&write_gate.closed, true);
    c.f = f;
    c.number = 1;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1000, 100);
    wal_hooks.write = stop_one_writer;
    assert_int_equal(0, pthread_create(&c.id, NULL, append_and_stop, &c));
    while (!atomic_load(&write_gate.reached))
        sched_yield();

    for (uint64_t i = 2; i < 2000; i++)
        place = wal_append(f, i, 100);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.end));
    atomic_store(&write_gate.closed, false);
    assert_int_equal(0, pthread_join(c.id, NULL));
    assert_int_equal(BFT_OK, c.status);
    wal_hooks.write = NULL;
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(2000, seen.count);
    assert_false(seen.garbled);
    wal_fixture_free(f);
}

/* Nor is that a key that is not there. */
static void a_directory_that_is_gone_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK, 4096);
    char away[300], text[400];

    (void)state;
    wal_fixture_open(f, 0, 0);
    (void)snprintf(away, sizeof(away), "%s-away", f->dir);
    assert_int_equal(0, rename(f->dir, away));
    assert_int_equal(BFT_IO, bfti_wal_make_room(f->wal, 3 * 4096));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "the log's directory is gone"));
    assert_non_null(strstr(text, f->dir));
    assert_int_equal(0, rename(away, f->dir));
    assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, 3 * 4096));
    wal_append_sync(f, 1, 2 * 4096);
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_back_in_order),
        cmocka_unit_test(frames_come_back_from_written_files),
        cmocka_unit_test(frames_come_back_from_mapped_files),
        cmocka_unit_test(many_linked_frames_are_copied_in_few_writes),
        cmocka_unit_test(a_batch_is_gathered_to_its_last_byte),
        cmocka_unit_test(what_fails_behind_a_batch_takes_nothing_from_it),
        cmocka_unit_test(marks_move_with_link_copy_and_sync),
        cmocka_unit_test(frames_wait_in_memory_up_to_a_bound),
        cmocka_unit_test(as_much_may_wait_as_was_said),
        cmocka_unit_test(statistics_begin_with_the_opening),
        cmocka_unit_test(a_frame_carries_the_mark_known_when_it_was_linked),
        cmocka_unit_test(a_frame_may_span_many_segments),
        cmocka_unit_test(a_frame_over_the_limit_is_refused),
        cmocka_unit_test(dropped_segments_become_later_ones),
        cmocka_unit_test(more_spares_than_wanted_are_removed),
        cmocka_unit_test(an_in_flight_slot_keeps_the_log_above_it),
        cmocka_unit_test(log_that_is_not_durable_is_not_dropped),
        cmocka_unit_test(prepare_makes_the_next_segment_ahead),
        cmocka_unit_test(a_full_disk_refuses_the_copy_and_loses_nothing),
        cmocka_unit_test(without_memory_every_call_says_so),
        cmocka_unit_test(a_failed_sync_poisons_the_log),
        cmocka_unit_test(a_poisoned_log_acknowledges_nothing_more),
        cmocka_unit_test(waiting_commits_share_one_sync),
        cmocka_unit_test(who_is_woken_too_early_waits_on),
        cmocka_unit_test(nobody_is_woken_when_nobody_sleeps),
        cmocka_unit_test(a_failed_sync_wakes_all_who_wait),
        cmocka_unit_test(a_stopped_copier_delays_nobody),
        cmocka_unit_test(a_directory_that_is_gone_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
