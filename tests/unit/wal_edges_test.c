/*
 * The log where one thing ends and another begins: bytes that nothing is said in, a
 * drop that ends with a segment, spares, memory that somebody still names, a sync
 * that was overtaken, and what is left to be read of a damaged log.
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
#include "park.h"
#include "wal_fixture.h"

enum { SEGMENT = 4096, WHOLE = SEGMENT - BFTI_FRAME_HEADER, SPARES = 4 };

static struct wal_seen seen;

static void no_byte_of_a_header_is_left_over(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    static const uint8_t zero[7];
    uint8_t header[BFTI_FRAME_HEADER];
    struct wal_place place;
    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 1, 100);
    wal_peek(f, place.lsn, header, sizeof(header));
    assert_memory_equal(zero, header + sizeof(header) - sizeof(zero),
                        sizeof(zero));
    wal_fixture_free(f);
}

/* --- segments ---------------------------------------------------------------- */

/* All is dropped, up to where the next segment would begin: that and the one behind
 * it are made. */
static void the_segment_at_the_dropped_end_is_made_ahead(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    struct wal_place place;
    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append_sync(f, 1, WHOLE);
    assert_int_equal(SEGMENT, place.end);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, place.end));
    assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
    assert_int_equal(2, wal_file_count(f, true));
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(1, stats.segments_reused);
    assert_int_equal(2, stats.segments_made);
    wal_fixture_free(f);
}

/* Of old files no more are kept than a log in use keeps. */
static void an_opening_keeps_so_many_spares(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place = {0, 0};
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 10; i++)
        place = wal_append_sync(f, i + 1, WHOLE);
    wal_fixture_close(f);
    /* The last one is needed, and one more for what comes, which is a spare. */
    wal_fixture_open(f, place.lsn, place.end);
    assert_int_equal(SPARES - 1 + 2, wal_file_count(f, true));
    wal_fixture_free(f);
}

/* Frames of a log that goes nowhere go once they are linked: it has no files, no end
 * that moves, and of a thread some 32 KiB of memory at most. */
static void what_goes_nowhere_takes_no_room(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_stats stats;
    (void)state;
    f->options.nowhere = true;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        struct wal_place place = wal_append_sync(f, i + 1, WHOLE);
        assert_int_equal(0, place.lsn + place.end);
        assert_in_range(f->thread.retired_bytes, 0, (32 << 10) + 2 * SEGMENT);
        assert_int_equal(BFT_OK, bfti_wal_make_room(f->wal, SEGMENT));
        assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
    }
    assert_int_equal(0, bfti_wal_end(f->wal));
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(0, stats.bytes + stats.frames + stats.segments_made);
    assert_int_equal(0, wal_file_count(f, false));
    wal_fixture_free(f);
}

/* A segment's entry serves another one once the table has gone round. */
static void a_log_goes_round_its_table(void **state)
{
    enum { TABLE = 1 << 20 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t end = ((uint64_t)TABLE - 3) * SEGMENT;
    struct wal_place place = {0, 0};
    (void)state;
    wal_fixture_open(f, end, end);
    for (uint64_t i = 0; i < 6; i++) {
        place = wal_append_sync(f, i + 1, WHOLE);
        if (i > 1)
            assert_int_equal(BFT_OK,
                             bfti_wal_drop_below(f->wal, place.lsn - SEGMENT));
    }
    wal_fixture_close(f);
    assert_int_equal(BFT_OK,
                     wal_scan(f, place.lsn - SEGMENT, place.end, &seen));
    assert_int_equal(2, seen.count);
    wal_fixture_free(f);
}

static unsigned maps;
static bft_status (*map_behind)(struct bfti_file *file, size_t bytes,
                                void **addr);

static bft_status counting_map(struct bfti_file *file, size_t bytes,
                               void **addr)
{
    maps++;
    return map_behind(file, bytes, addr);
}

/* Segments that are made and those that an opening finds are mapped, each once. */
static void segments_are_mapped(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK_MAPPED, SEGMENT);
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
    struct wal_place place;
    (void)state;
    map_behind = ops->map;
    assert_non_null(map_behind);
    ops->map = counting_map;
    maps = 0;
    wal_fixture_open(f, 0, 0);
    assert_int_equal(1, maps);
    wal_append_sync(f, 1, WHOLE);
    place = wal_append_sync(f, 2, 100);
    assert_int_equal(2, maps);
    wal_fixture_close(f);
    maps = 0;
    wal_fixture_open(f, 0, place.end);
    assert_int_equal(2, maps);
    wal_fixture_free(f);
}

static bft_status no_map(struct bfti_file *file, size_t bytes, void **addr)
{
    (void)file, (void)bytes;
    *addr = NULL;
    return BFT_IO;
}

/* Where nothing can be mapped, or could not be taken back, the log is written by
 * system calls. */
static void what_cannot_be_mapped_is_written(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK_MAPPED, SEGMENT);
        struct bfti_vfs_ops *ops = (void *)(uintptr_t)f->options.vfs->ops;
        struct wal_place place = {0, 0};
        if (i == 0) {
            ops->map = no_map;
        } else {
            map_behind = ops->map;
            ops->map = counting_map;
            ops->unmap = NULL;
        }
        maps = 0;
        wal_fixture_open(f, 0, 0);
        for (uint64_t n = 0; n < 3; n++)
            place = wal_append_sync(f, n + 1, WHOLE);
        wal_fixture_close(f);
        assert_int_equal(0, maps);
        assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
        assert_int_equal(3, seen.count);
        wal_fixture_free(f);
    }
}

static void put_file(struct wal_fixture *f, uint64_t lsn, uint64_t bytes)
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

/* An old file of another length is no spare; one further on than a log can reach
 * is none of its own. */
static void files_of_no_use_are_removed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    uint64_t at = 8 * SEGMENT;
    (void)state;
    put_file(f, 0, SEGMENT - 1);
    put_file(f, SEGMENT, 0);
    put_file(f, at + ((uint64_t)SEGMENT << 20), SEGMENT);
    wal_fixture_open(f, at, at);
    assert_int_equal(1, wal_file_count(f, true));
    wal_fixture_free(f);
}

static void positions_that_no_frame_has_are_refused(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal *wal;
    (void)state;
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 4, 0, &seen));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, 4, &seen));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 0, 0, 4, 1, &wal));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 4, 0, 8, 1, &wal));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 0, 4, 8, 1, &wal));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 8, 0, 0, 1, &wal));
    assert_int_equal(BFT_INVALID, bfti_wal_open(&f->options, 0, 8, 0, 1, &wal));
    assert_null(wal);
    wal_fixture_free(f);
}

/* Names that a log gives its files, but of which none begins there. */
static void names_that_are_no_segments_are_told(void **state)
{
    static const uint64_t lsns[] = {UINT64_MAX - SEGMENT + 1, SEGMENT / 2};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
        struct bfti_wal_salvaged out;
        struct wal_place place;
        char text[400];
        wal_fixture_open(f, 0, 0);
        place = wal_append_sync(f, 1, 100);
        wal_fixture_close(f);
        f->options.segment_bytes = SEGMENT / 2;
        put_file(f, lsns[i], SEGMENT);
        f->options.segment_bytes = SEGMENT;
        assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end, &seen));
        (void)bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "no log segment of 4096 bytes"));
        /* Salvage passes them over. */
        assert_int_equal(
            BFT_OK, bfti_wal_salvage(&f->options, 0, place.end, &calls, &out));
        assert_int_equal(1, out.frames);
        assert_int_equal(0, out.gaps);
        wal_fixture_free(f);
    }
}

static bft_status each_way_to_begin(struct wal_fixture *f, unsigned way)
{
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    struct bfti_wal *wal;
    uint64_t bytes;
    bft_status status;
    switch (way) {
    case 0:
        status = bfti_wal_open(&f->options, 0, 0, 0, 1, &wal);
        assert_int_equal(status == BFT_OK, wal != NULL);
        bfti_wal_close(wal);
        return status;
    case 1:
        return wal_scan(f, 0, 0, &seen);
    case 2:
        return bfti_wal_salvage(&f->options, 0, 0, &calls, &out);
    case 3:
        return bfti_wal_guess_segment_bytes(&f->options, &bytes);
    default:
        return bfti_wal_export(f->wal, 0, bfti_wal_durable(f->wal),
                               f->options.vfs, f->options.dir);
    }
}

/* Up to the last byte: with the longest one that is taken all is done. */
static void a_path_that_is_too_long_is_refused(void **state)
{
    enum { WAYS = 5, NAME = 20, PATH = 4096, LONGEST = PATH - NAME - 2 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    const char *home = f->options.dir;
    static char dir[LONGEST + 2];
    char text[400];
    (void)state;
    wal_fixture_open(f, 0, 0);
    (void)wal_append_sync(f, 1, 100);
    memset(dir, 'd', LONGEST);
    f->options.dir = dir;
    for (unsigned way = 0; way < WAYS; way++) {
        dir[LONGEST] = 'd';
        assert_int_equal(BFT_INVALID, each_way_to_begin(f, way));
        (void)bft_last_error(text, sizeof(text));
        assert_non_null(strstr(text, "too long for its log"));
        dir[LONGEST] = 0;
        if (way == 0)
            assert_int_equal(
                BFT_OK, f->options.vfs->ops->make_dir(f->options.vfs, dir));
        if (way + 1 < WAYS) /* where the log of the first way is */
            assert_int_equal(BFT_OK, each_way_to_begin(f, way));
    }
    f->options.dir = home;
    wal_fixture_free(f);
}

/* --- memory ------------------------------------------------------------------ */

#ifndef NDEBUG

/* Frames that have been given back while somebody was stopped. */
static struct {
    void *at[1000];
    size_t count;
    bool on;
} given;

static void noting_free(void *ctx, void *block)
{
    if (given.on && given.count < sizeof(given.at) / sizeof(*given.at))
        given.at[given.count++] = block;
    wal_env_free(ctx, block);
}

static struct bfti_frame *frame_of(struct wal_fixture *f, size_t len)
{
    struct bfti_frame *frame;
    void *payload;
    assert_int_equal(BFT_OK,
                     bfti_frame_create(f->wal, 1, len, &frame, &payload));
    memset(payload, 0, len);
    bfti_frame_seal(f->wal, frame);
    return frame;
}

static void link_frame(struct wal_fixture *f, struct bfti_wal_thread *thread,
                       struct bfti_frame *frame)
{
    uint64_t lsn, end;
    bfti_wal_enter(f->wal, thread);
    bfti_wal_link(f->wal, thread, frame, &lsn, &end);
    bfti_wal_leave(f->wal, thread);
}

static bool was_given(const struct bfti_frame *frame)
{
    for (size_t i = 0; i < given.count; i++)
        if (given.at[i] == frame)
            return true;
    return false;
}

/* What goes on while the main thread is stopped: a thread of its own, whose turn
 * comes within the hook. */
static struct {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    const char *point;
    const struct bfti_frame *named[2]; /* NULL: none */
    bool inside, came;
    struct bfti_wal_thread *crowd; /* more threads, or NULL */
} meanwhile;

static void copy_all(void)
{
    struct bfti_wal *wal = meanwhile.f->wal;
    bfti_wal_enter(wal, &meanwhile.thread);
    assert_int_equal(BFT_OK,
                     bfti_wal_copy(wal, &meanwhile.thread, bfti_wal_end(wal)));
    bfti_wal_leave(wal, &meanwhile.thread);
}

/* All that is linked is copied, and enough more for frames to be given back, but
 * none that is named. */
static void others_go_on(const char *point)
{
    if (meanwhile.inside || meanwhile.came ||
        strcmp(point, meanwhile.point) != 0)
        return;
    meanwhile.inside = meanwhile.came = true;
    given.on = true;
    for (unsigned i = 0; i < 40; i++) {
        link_frame(meanwhile.f, &meanwhile.thread, frame_of(meanwhile.f, 1000));
        copy_all();
    }
    assert_true(given.count > 0);
    for (unsigned i = 0; i < 2; i++)
        if (meanwhile.named[i])
            assert_false(was_given(meanwhile.named[i]));
    given.on = false;
    meanwhile.inside = false;
}

static struct wal_fixture *begin_naming(const char *point)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 1 << 16);
    f->env.free = noting_free;
    wal_fixture_open(f, 0, 0);
    memset(&given, 0, sizeof(given));
    memset(&meanwhile, 0, sizeof(meanwhile));
    meanwhile.f = f;
    meanwhile.point = point;
    bfti_wal_attach(f->wal, &meanwhile.thread);
    return f;
}

/* More names than are gathered at once: each frame is asked about by itself. */
enum { CROWD = 200 };

/* So many threads that all show FRAME. */
static void come_crowd(struct wal_fixture *f, struct bfti_frame *frame)
{
    meanwhile.crowd = calloc(CROWD, sizeof(*meanwhile.crowd));
    assert_non_null(meanwhile.crowd);
    for (unsigned i = 0; i < CROWD; i++) {
        bfti_wal_attach(f->wal, &meanwhile.crowd[i]);
        bfti_wal_attach(f->wal, &meanwhile.crowd[i]); /* once is enough */
        bfti_wal_show(&meanwhile.crowd[i], frame);
    }
}

static void end_naming(struct wal_fixture *f, size_t frames)
{
    struct wal_place place;
    uint64_t end = bfti_wal_end(f->wal);
    atomic_store(&bfti_park, NULL);
    for (unsigned i = 0; meanwhile.crowd && i < CROWD; i++)
        bfti_wal_hide(&meanwhile.crowd[i]);
    assert_true(meanwhile.came);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, end));
    place = wal_append_sync(f, 5, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, place.end, &seen));
    assert_int_equal(frames, seen.count);
    wal_fixture_free(f);
    free(meanwhile.crowd);
}

/* The tail that is linked to. */
static void a_named_tail_is_not_given_back(void **state)
{
    (void)state;
    for (unsigned crowded = 0; crowded < 2; crowded++) {
        struct wal_fixture *f = begin_naming("wal:tail-named");
        struct bfti_frame *first = frame_of(f, 100), *tail = frame_of(f, 100);
        link_frame(f, &f->thread, first);
        if (crowded)
            come_crowd(f, first);
        link_frame(f, &f->thread, tail);
        meanwhile.named[0] = tail;
        atomic_store(&bfti_park, others_go_on);
        link_frame(f, &f->thread, frame_of(f, 100));
        end_naming(f, 2 + 40 + 1 + 1);
    }
}

/* The copied frame, from which on frames are copied; and the next one. */
static void named_frames_are_not_given_back_while_they_are_copied(void **state)
{
    static const char *const points[] = {"wal:copied-named", "wal:next-named"};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct wal_fixture *f = begin_naming(points[i % 2]);
        struct bfti_frame *first = frame_of(f, 100);
        struct bfti_frame *copied = frame_of(f, 100), *next = frame_of(f, 100);
        link_frame(f, &f->thread, first);
        if (i / 2)
            come_crowd(f, first);
        link_frame(f, &f->thread, copied);
        copy_all();
        link_frame(f, &f->thread, next);
        meanwhile.named[0] = copied;
        meanwhile.named[1] = i % 2 ? next : NULL;
        atomic_store(&bfti_park, others_go_on);
        bfti_wal_enter(f->wal, &f->thread);
        assert_int_equal(
            BFT_OK, bfti_wal_copy(f->wal, &f->thread, bfti_wal_end(f->wal)));
        bfti_wal_leave(f->wal, &f->thread);
        end_naming(f, 3 + 40 + 1);
    }
}

struct linker {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    struct bfti_frame *frame;
    struct parked parked;
};

static void link_one(void *arg)
{
    struct linker *linker = arg;
    link_frame(linker->f, &linker->thread, linker->frame);
}

/* One has linked a frame and not moved the tail; the next is about to do that for
 * him.  Then the first goes on: only the second names both frames now. */
static void a_helper_names_both(void **state)
{
    static const char *const points[] = {"wal:linked", "wal:helping"};
    struct wal_fixture *f = begin_naming("");
    struct bfti_frame *tail = frame_of(f, 100);
    struct linker linker[2];
    (void)state;
    link_frame(f, &f->thread, tail);
    for (unsigned i = 0; i < 2; i++) {
        memset(&linker[i], 0, sizeof(linker[i]));
        linker[i].f = f;
        linker[i].frame = frame_of(f, 100);
        bfti_wal_attach(f->wal, &linker[i].thread);
        assert_true(
            park_start(&linker[i].parked, points[i], 0, link_one, &linker[i]));
    }
    park_end(&linker[0].parked);
    meanwhile.named[0] = tail;
    meanwhile.named[1] = linker[0].frame;
    others_go_on("");
    park_end(&linker[1].parked);
    end_naming(f, 3 + 40 + 1);
}

/* Frames that are shown, and those that somebody looks at who found them shown. */
static void shown_frames_are_not_given_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct wal_fixture *f = begin_naming("");
        struct bfti_frame *first = frame_of(f, 100), *last = frame_of(f, 100);
        bool crowded = i % 2, looked = i / 2;
        size_t len;
        bfti_wal_show(&f->thread, first);
        if (crowded)
            come_crowd(f, last);
        link_frame(f, &f->thread, first);
        link_frame(f, &f->thread, last);
        meanwhile.named[0] = first;
        meanwhile.named[1] = crowded ? last : NULL;
        if (looked) {
            assert_non_null(bfti_wal_look(&f->thread, &f->thread, &len));
            assert_int_equal(100, len);
            bfti_wal_hide(&f->thread);
        }
        others_go_on("");
        if (looked)
            bfti_wal_look_away(&f->thread);
        else
            bfti_wal_hide(&f->thread);
        end_naming(f, 2 + 40 + 1);
    }
}

/* Who is looked at shows another frame just then, or none any more. */
static struct {
    struct bfti_wal_thread *shows;
    struct bfti_frame *next;
} showing;

static void show_next(const char *point)
{
    struct bfti_wal_thread *thread = showing.shows;
    if (thread == NULL || strcmp(point, "wal:look-named") != 0)
        return;
    showing.shows = NULL;
    bfti_wal_hide(thread);
    if (showing.next != NULL)
        bfti_wal_show(thread, showing.next);
}

static void who_looks_sees_what_is_shown_then(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_thread other;
    struct bfti_frame *frame[2];
    size_t len = 1;
    (void)state;
    wal_fixture_open(f, 0, 0);
    memset(&other, 0, sizeof(other));
    bfti_wal_attach(f->wal, &other);
    for (size_t i = 0; i < 2; i++)
        frame[i] = frame_of(f, 100 + i);
    assert_null(bfti_wal_look(&f->thread, &other, &len));
    assert_int_equal(0, len);
    atomic_store(&bfti_park, show_next);
    for (unsigned i = 0; i < 2; i++) {
        bfti_wal_show(&other, frame[0]);
        showing.shows = &other;
        showing.next = i ? NULL : frame[1];
        assert_int_equal(i == 0,
                         bfti_wal_look(&f->thread, &other, &len) != NULL);
        assert_int_equal(i ? 0 : 101, len);
        bfti_wal_look_away(&f->thread);
        bfti_wal_hide(&other);
    }
    atomic_store(&bfti_park, NULL);
    for (size_t i = 0; i < 2; i++)
        bfti_frame_drop(f->wal, &other, frame[i]);
    wal_fixture_free(f);
}

/* --- syncs ------------------------------------------------------------------- */

static unsigned nudges;

static void nudge(const char *point)
{
    if (strcmp(point, "wal:sync-word-read") == 0 && nudges++ < 3)
        bfti_wal_nudge(meanwhile.f->wal);
}

/* Who lost the race for the flush tries again. */
static void a_sync_that_was_overtaken_syncs_all_the_same(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;
    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 1, 100);
    meanwhile.f = f;
    nudges = 0;
    atomic_store(&bfti_park, nudge);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    atomic_store(&bfti_park, NULL);
    assert_int_equal(4, nudges);
    assert_int_equal(place.end, bfti_wal_durable(f->wal));
    wal_fixture_free(f);
}

static struct wal_fixture *begin_overtaken(bfti_park_hook *hook)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    wal_fixture_open(f, 0, 0);
    memset(&meanwhile, 0, sizeof(meanwhile));
    meanwhile.f = f;
    bfti_wal_attach(f->wal, &meanwhile.thread);
    atomic_store(&bfti_park, hook);
    return f;
}

static void sync_once(const char *point)
{
    struct bfti_wal *wal = meanwhile.f->wal;
    if (meanwhile.came || strcmp(point, "wal:sync-wanted") != 0)
        return;
    meanwhile.came = true;
    assert_int_equal(BFT_OK,
                     bfti_wal_sync(wal, &meanwhile.thread, bfti_wal_end(wal)));
}

/* Another has synced, between the look at the mark and the turn. */
static void what_is_durable_by_then_is_not_synced_again(void **state)
{
    struct wal_fixture *f = begin_overtaken(sync_once);
    struct wal_place place = wal_append(f, 1, 100);
    struct bfti_wal_stats stats;
    (void)state;
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    atomic_store(&bfti_park, NULL);
    bfti_wal_stats(f->wal, &stats);
    assert_true(meanwhile.came);
    assert_int_equal(1, stats.syncs);
    assert_int_equal(place.end, bfti_wal_durable(f->wal));
    wal_fixture_free(f);
}

static void write_and_drop(const char *point)
{
    struct wal_fixture *f = meanwhile.f;
    uint64_t end = 0;
    if (meanwhile.came || strcmp(point, "wal:segment-missed") != 0)
        return;
    meanwhile.came = true;
    for (unsigned i = 0; i < 5; i++) {
        link_frame(f, &meanwhile.thread, frame_of(f, WHOLE));
        end = bfti_wal_end(f->wal);
        assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &meanwhile.thread, end));
    }
    assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, end));
}

/* Others went on meanwhile, and need the segment no more. */
static void no_segment_is_made_in_the_past(void **state)
{
    struct wal_fixture *f = begin_overtaken(write_and_drop);
    struct bfti_wal_stats stats;
    (void)state;
    assert_int_equal(BFT_OK, bfti_wal_prepare(f->wal));
    atomic_store(&bfti_park, NULL);
    assert_true(meanwhile.came);
    bfti_wal_stats(f->wal, &stats);
    assert_int_equal(5, stats.segments_made);
    assert_int_equal(0, stats.segments_reused);
    wal_fixture_free(f);
}

#endif

/* --- what is left of a damaged log ------------------------------------------- */

static bft_status count_frame(void *arg, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    (void)lsn, (void)type, (void)payload, (void)len;
    ++*(unsigned *)arg;
    return BFT_OK;
}

static void flip(struct wal_fixture *f, uint64_t lsn)
{
    uint8_t byte;
    wal_peek(f, lsn, &byte, 1);
    byte ^= 1;
    wal_poke(f, lsn, &byte, 1);
}

static void of_a_log_without_a_whole_frame_nothing_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    uint64_t lsn[2];
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 2; i++)
        lsn[i] = wal_append(f, i + 1, 100).lsn;
    wal_fixture_close(f);
    for (unsigned i = 0; i < 2; i++)
        flip(f, lsn[i] + BFTI_FRAME_HEADER);
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, BFTI_WAL_OLDEST, 0,
                                              &calls, &out));
    assert_int_equal(0, out.frames);
    assert_int_equal(0, out.first);
    assert_int_equal(0, out.unbroken);
    assert_int_equal(0, out.end);
    /* Nor of one that cannot be. */
    memset(&out, 0xff, sizeof(out));
    f->options.segment_bytes = 0;
    assert_int_equal(BFT_INVALID,
                     bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    assert_int_equal(0, out.frames);
    assert_int_equal(0, out.end);
    assert_false(out.segment_missing);
    wal_fixture_free(f);
}

/* A frame of the life before, which came back behind one that was written over it,
 * as a disk may do. */
static void salvage_passes_over_an_older_life(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    unsigned frames = 0;
    struct bfti_wal_salvage_calls calls = {&frames, count_frame, NULL};
    struct bfti_wal_salvaged out;
    struct wal_place place[3];
    uint8_t ghost[400];
    size_t len;
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 3; i++)
        place[i] = wal_append(f, i + 1, 100);
    wal_fixture_close(f);
    len = (size_t)(place[2].end - place[2].lsn);
    wal_peek(f, place[2].lsn, ghost, len);
    flip(f, place[1].lsn + 60);
    wal_fixture_recover(f, 0);
    wal_append(f, 20, 100);
    wal_fixture_close(f);
    wal_poke(f, place[2].lsn, ghost, len);
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    assert_int_equal(2, frames);
    assert_int_equal(2, out.frames);
    assert_int_equal(place[1].end, out.end);
    wal_fixture_free(f);
}

static bft_status refuse_frame(void *arg, uint64_t lsn, uint8_t type,
                               const void *payload, size_t len)
{
    (void)arg, (void)lsn, (void)type, (void)payload, (void)len;
    return BFT_NO_SPACE;
}

static bft_status refuse_gap(void *arg, uint64_t from, uint64_t to,
                             const char *why)
{
    (void)arg, (void)from, (void)to, (void)why;
    return BFT_NO_MEMORY;
}

/* Who is told may have enough. */
static void salvage_stops_when_it_is_told_to(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, refuse_frame, NULL};
    struct bfti_wal_salvaged out;
    struct wal_place place;
    (void)state;
    wal_fixture_open(f, 0, 0);
    place = wal_append(f, 1, 100);
    wal_fixture_close(f);
    assert_int_equal(BFT_NO_SPACE,
                     bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    calls = (struct bfti_wal_salvage_calls){NULL, NULL, refuse_gap};
    assert_int_equal(
        BFT_NO_MEMORY,
        bfti_wal_salvage(&f->options, 0, place.end + 800, &calls, &out));
    calls.gap = NULL; /* durable further than what is left */
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, 0, place.end + 800,
                                              &calls, &out));
    assert_int_equal(1, out.gaps);
    assert_int_equal(800, out.gap_bytes);
    assert_int_equal(place.end + 800, out.end);
    wal_fixture_free(f);
}

static void cut_all(struct wal_fixture *f, uint64_t end, uint64_t bytes)
{
    for (uint64_t lsn = 0; lsn < end; lsn += SEGMENT) {
        struct bfti_file *file;
        char path[320];
        wal_segment_path(f, lsn, path);
        assert_int_equal(
            BFT_OK, f->options.vfs->ops->open(f->options.vfs, path, 0, &file));
        assert_int_equal(BFT_OK, file->ops->truncate(file, bytes));
        file->ops->close(file);
    }
}

/* By what files are left: their lengths, or, where all were cut off, their
 * names. */
static void the_length_of_segments_is_guessed(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;
    uint64_t bytes = 1;
    (void)state;
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    assert_int_equal(0, bytes);
    wal_fixture_open(f, 0, 0);
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    assert_int_equal(SEGMENT, bytes);
    for (uint64_t i = 0; i < 4; i++)
        place = wal_append(f, i + 1, WHOLE);
    wal_fixture_close(f);
    cut_all(f, place.end, 1000);
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    assert_int_equal(SEGMENT, bytes);
    /* One is far away, others are no segments; and there are very many. */
    put_file(f, (uint64_t)3 << 40, 1000);
    f->options.segment_bytes = 1;
    put_file(f, 1001, 1000);
    f->options.segment_bytes = SEGMENT;
    for (uint64_t i = 4; i < 100; i++)
        put_file(f, i * SEGMENT, SEGMENT);
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    assert_int_equal(SEGMENT, bytes);
    wal_fixture_free(f);
}

/* A length that no log has is not guessed, whatever speaks for it. */
static void an_impossible_length_is_not_guessed(void **state)
{
    static const struct {
        uint64_t lsn, bytes;
    } files[] = {{(uint64_t)2 << 40, 1000}, {6000, 6000}, {0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        uint64_t bytes = 1;
        put_file(f, 0, files[i].bytes);
        f->options.segment_bytes = 1;
        put_file(f, files[i].lsn, files[i].bytes);
        assert_int_equal(BFT_OK,
                         bfti_wal_guess_segment_bytes(&f->options, &bytes));
        assert_int_equal(0, bytes);
        f->options.segment_bytes = SEGMENT;
        wal_fixture_free(f);
    }
}

/* Where as much speaks for two lengths the longer one is guessed, in whatever order
 * the files are met. */
static void of_two_lengths_the_longer_is_guessed(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2; i++) {
        struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
        uint64_t bytes = 1;
        put_file(f, 0, (i + 1) * SEGMENT);
        put_file(f, (uint64_t)2 * SEGMENT, (2 - i) * SEGMENT);
        assert_int_equal(BFT_OK,
                         bfti_wal_guess_segment_bytes(&f->options, &bytes));
        assert_int_equal(2 * SEGMENT, bytes);
        wal_fixture_free(f);
    }
}

/* Of a log that is longer than what is read at once: where it goes on is told by a
 * mark far behind the hole, and it is found from the hole on. */
static void a_wide_hole_is_passed(void **state)
{
    enum { LARGE = 1 << 22, WIDE = 5 << 19 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, LARGE);
    unsigned frames = 0;
    struct bfti_wal_salvage_calls calls = {&frames, count_frame, NULL};
    struct bfti_wal_salvaged out;
    struct wal_place place[4];
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 4; i++)
        place[i] = wal_append_sync(f, i + 1, i == 1 || i == 2 ? WIDE : 100);
    wal_fixture_close(f);
    flip(f, place[1].lsn);
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    assert_int_equal(3, frames);
    assert_int_equal(1, out.gaps);
    assert_int_equal(place[1].end - place[1].lsn, out.gap_bytes);
    assert_int_equal(place[3].end, out.end);
    /* Without memory for the frame behind it that is told. */
    bft_status status = BFT_NO_MEMORY;
    for (int64_t n = 0; status != BFT_OK; n++) {
        assert_int_equal(BFT_NO_MEMORY, status);
        assert_in_range(n, 0, 50);
        atomic_store(&wal_fail_alloc, n);
        status = bfti_wal_salvage(&f->options, 0, 0, &calls, &out);
        atomic_store(&wal_fail_alloc, -1);
    }
    assert_int_equal(place[3].end, out.end);
    wal_fixture_free(f);
}

/* The last file of a log that went on is gone. */
static void a_frame_beyond_the_last_file_is_told(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;
    char text[400], path[320];
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 1000);
    place = wal_append(f, 2, SEGMENT);
    wal_fixture_close(f);
    wal_segment_path(f, SEGMENT, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
    assert_int_equal(BFT_CORRUPT, wal_scan(f, 0, place.end, &seen));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "longer than the log"));
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_of_a_header_is_left_over),
        cmocka_unit_test(the_segment_at_the_dropped_end_is_made_ahead),
        cmocka_unit_test(an_opening_keeps_so_many_spares),
        cmocka_unit_test(what_goes_nowhere_takes_no_room),
        cmocka_unit_test(a_log_goes_round_its_table),
        cmocka_unit_test(segments_are_mapped),
        cmocka_unit_test(what_cannot_be_mapped_is_written),
        cmocka_unit_test(files_of_no_use_are_removed),
        cmocka_unit_test(positions_that_no_frame_has_are_refused),
        cmocka_unit_test(names_that_are_no_segments_are_told),
        cmocka_unit_test(a_path_that_is_too_long_is_refused),
#ifndef NDEBUG
        cmocka_unit_test(a_named_tail_is_not_given_back),
        cmocka_unit_test(named_frames_are_not_given_back_while_they_are_copied),
        cmocka_unit_test(a_helper_names_both),
        cmocka_unit_test(shown_frames_are_not_given_back),
        cmocka_unit_test(who_looks_sees_what_is_shown_then),
        cmocka_unit_test(a_sync_that_was_overtaken_syncs_all_the_same),
        cmocka_unit_test(what_is_durable_by_then_is_not_synced_again),
        cmocka_unit_test(no_segment_is_made_in_the_past),
#endif
        cmocka_unit_test(of_a_log_without_a_whole_frame_nothing_is_told),
        cmocka_unit_test(salvage_passes_over_an_older_life),
        cmocka_unit_test(salvage_stops_when_it_is_told_to),
        cmocka_unit_test(the_length_of_segments_is_guessed),
        cmocka_unit_test(an_impossible_length_is_not_guessed),
        cmocka_unit_test(of_two_lengths_the_longer_is_guessed),
        cmocka_unit_test(a_wide_hole_is_passed),
        cmocka_unit_test(a_frame_beyond_the_last_file_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
