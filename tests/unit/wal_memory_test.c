/*
 * What the log does with memory: frames are given back in time, and none while
 * somebody may come to it; what is gathered for a write; memory that had another
 * use before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fault.h"
#include "park.h"
#include "wal_fixture.h"

/* A large frame is more than a thread keeps of those that it has copied. */
enum { SEGMENT = 1 << 18, LARGE = 40000, GATHER = 64 << 10 };

/* --- memory that is looked at ------------------------------------------------- */

static unsigned gathers; /* buffers for frames to be written at once */

/* Not one byte of it is zero. */
static void *dirty_alloc(void *ctx, size_t bytes)
{
    const struct bfti_env *env = bfti_env_system();
    void *block = env->alloc(env->ctx, bytes);
    (void)ctx;
    gathers += bytes == GATHER;
    if (block != NULL)
        memset(block, 0xff, bytes);
    return block;
}

/* What was given back: it is kept, so that nothing else comes to lie there. */
static struct {
    void *_Atomic at[4096];
    _Atomic size_t count;
} given;

static void keeping_free(void *ctx, void *block)
{
    size_t n;
    (void)ctx;
    if (block == NULL)
        return;
    n = atomic_fetch_add(&given.count, 1);
    assert_true(n < sizeof(given.at) / sizeof(*given.at));
    atomic_store(&given.at[n], block);
}

static bool was_given(const struct bfti_frame *frame)
{
    for (size_t i = 0; i < atomic_load(&given.count); i++)
        if (atomic_load(&given.at[i]) == frame)
            return true;
    return false;
}

static struct wal_fixture *log_new(void)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    f->env.alloc = dirty_alloc;
    f->env.free = keeping_free;
    atomic_store(&given.count, 0);
    gathers = 0;
    return f;
}

static void log_free(struct wal_fixture *f)
{
    const struct bfti_env *env = bfti_env_system();
    wal_fixture_free(f);
    for (size_t i = 0; i < atomic_load(&given.count); i++)
        env->free(env->ctx, atomic_load(&given.at[i]));
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

static void copy_all(struct wal_fixture *f, struct bfti_wal_thread *thread)
{
    bfti_wal_enter(f->wal, thread);
    assert_int_equal(BFT_OK,
                     bfti_wal_copy(f->wal, thread, bfti_wal_end(f->wal)));
    bfti_wal_leave(f->wal, thread);
}

/* --- frames and buffers ------------------------------------------------------- */

/* Bytes of the header and behind the payload that nothing is said in. */
static void bytes_that_say_nothing_are_zero(void **state)
{
    static const uint8_t zero[8];
    struct wal_fixture *f = log_new();
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (size_t len = 17; len < 25; len++) {
        struct wal_place place = wal_append(f, 1, len);
        uint64_t behind = place.lsn + BFTI_FRAME_HEADER + len;
        uint8_t bytes[8];
        wal_peek(f, place.lsn + BFTI_FRAME_HEADER - 7, bytes, 7);
        assert_memory_equal(zero, bytes, 7);
        wal_peek(f, behind, bytes, (size_t)(place.end - behind));
        assert_memory_equal(zero, bytes, (size_t)(place.end - behind));
    }
    log_free(f);
}

/* It is there to be asked for, memory or not. */
static void the_longest_frame_is_not_too_long(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_frame *frame;
    void *payload;
    (void)state;
    wal_fixture_open(f, 0, 0);
    atomic_store(&wal_fail_alloc, 0);
    assert_int_equal(
        BFT_NO_MEMORY,
        bfti_frame_create(f->wal, 1, (size_t)1 << 30, &frame, &payload));
    assert_null(frame);
    wal_fixture_free(f);
}

/* One alone is written from where it is; for others there is one buffer. */
static void frames_are_gathered_in_one_buffer(void **state)
{
    struct wal_fixture *f = log_new();
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, 100);
    assert_int_equal(0, gathers);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3; i++)
            link_frame(f, &f->thread, frame_of(f, 100));
        copy_all(f, &f->thread);
        assert_int_equal(1, gathers);
    }
    log_free(f);
}

/* It does not wait until many small ones have come. */
static void a_large_frame_goes_with_the_next_one(void **state)
{
    struct wal_fixture *f = log_new();
    struct bfti_frame *large;
    (void)state;
    wal_fixture_open(f, 0, 0);
    large = frame_of(f, LARGE);
    link_frame(f, &f->thread, large);
    copy_all(f, &f->thread);
    assert_false(was_given(large));
    wal_append(f, 2, 100);
    assert_true(was_given(large));
    log_free(f);
}

/* It waits until it is hidden, and is not forgotten. */
static void a_frame_that_was_shown_goes_later(void **state)
{
    struct wal_fixture *f = log_new();
    struct bfti_frame *frame;
    (void)state;
    wal_fixture_open(f, 0, 0);
    frame = frame_of(f, LARGE);
    bfti_wal_show(&f->thread, frame);
    link_frame(f, &f->thread, frame);
    copy_all(f, &f->thread);
    wal_append(f, 2, LARGE);
    assert_false(was_given(frame));
    bfti_wal_hide(&f->thread);
    wal_append(f, 3, LARGE);
    assert_true(was_given(frame));
    log_free(f);
}

#ifndef NDEBUG

/* --- turns of others ---------------------------------------------------------- */

/* What comes when the main thread, or one that stops, comes to a point. */
static struct {
    struct wal_fixture *f;
    struct bfti_wal_thread thread; /* another one, whose turn it is */
    const char *point;
    unsigned came;
} turn;

static struct wal_fixture *log_with_turns(const char *point)
{
    struct wal_fixture *f = log_new();
    memset(&turn, 0, sizeof(turn));
    turn.f = f;
    turn.point = point;
    return f;
}

static void count_point(const char *point)
{
    turn.came += strcmp(point, turn.point) == 0;
}

/* Each time that a thread has retired 32 KiB, not for each frame. */
static void retired_frames_are_looked_through_together(void **state)
{
    enum { FRAMES = 1000, LEN = 984 };
    (void)state;
    for (unsigned nowhere = 0; nowhere < 2; nowhere++) {
        struct wal_fixture *f = log_with_turns("wal:names-gathered");
        f->options.nowhere = nowhere;
        wal_fixture_open(f, 0, 0);
        atomic_store(&bfti_park, count_point);
        for (uint64_t i = 0; i < FRAMES; i++)
            wal_append(f, i, LEN);
        atomic_store(&bfti_park, NULL);
        assert_in_range(turn.came, FRAMES * LEN / (32 << 10), 34);
        log_free(f);
    }
}

static void hide_shown(const char *point)
{
    if (strcmp(point, turn.point) == 0)
        bfti_wal_hide(&turn.thread);
}

/* It was hidden when he had named it. */
static void who_finds_nothing_shown_keeps_nothing(void **state)
{
    struct wal_fixture *f = log_with_turns("wal:look-named");
    struct bfti_frame *frame;
    size_t len;
    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_attach(f->wal, &turn.thread);
    frame = frame_of(f, LARGE);
    bfti_wal_show(&turn.thread, frame);
    atomic_store(&bfti_park, hide_shown);
    assert_null(bfti_wal_look(&f->thread, &turn.thread, &len));
    atomic_store(&bfti_park, NULL);
    bfti_frame_drop(f->wal, &turn.thread, frame);
    assert_true(was_given(frame));
    log_free(f);
}

static void retire_copied(const char *point)
{
    if (strcmp(point, "wal:copied-named") == 0)
        assert_false(was_given(atomic_load(&turn.f->thread.hazard[1])));
    if (strcmp(point, turn.point) != 0 || turn.came++)
        return;
    for (unsigned i = 0; i < 2; i++) {
        link_frame(turn.f, &turn.thread, frame_of(turn.f, LARGE));
        copy_all(turn.f, &turn.thread);
    }
}

/* The copied frame goes between the first look at it and its name. */
static void a_copier_names_the_copied_frame_of_now(void **state)
{
    struct wal_fixture *f = log_with_turns("wal:copied-read");
    struct bfti_frame *copied;
    (void)state;
    wal_fixture_open(f, 0, 0);
    bfti_wal_attach(f->wal, &turn.thread);
    copied = frame_of(f, LARGE);
    link_frame(f, &f->thread, copied);
    copy_all(f, &f->thread);
    link_frame(f, &f->thread, frame_of(f, 100));
    atomic_store(&bfti_park, retire_copied);
    copy_all(f, &f->thread);
    atomic_store(&bfti_park, NULL);
    assert_true(was_given(copied));
    assert_int_equal(bfti_wal_end(f->wal), bfti_wal_copied(f->wal));
    log_free(f);
}

struct worker {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    struct parked parked;
};

static void link_one(void *arg)
{
    struct worker *worker = arg;
    link_frame(worker->f, &worker->thread, frame_of(worker->f, 100));
}

static void copy_what_is_there(void *arg)
{
    struct worker *worker = arg;
    copy_all(worker->f, &worker->thread);
}

static void stop_worker(struct worker *worker, struct wal_fixture *f,
                        const char *point, void (*run)(void *arg))
{
    worker->f = f;
    memset(&worker->thread, 0, sizeof(worker->thread));
    bfti_wal_attach(f->wal, &worker->thread);
    assert_true(park_start(&worker->parked, point, 0, run, worker));
}

/*
 * One has linked a frame and not moved the tail to it; another copies it, and
 * looks who names what he has retired; a third comes, whom he does not see, and
 * names the tail; then the first takes his names back.  What the third has named
 * must be none of those that were retired.
 */
static void the_tail_is_moved_before_its_frame_is_retired(void **state)
{
    (void)state;
    for (unsigned copied = 0; copied < 2; copied++) {
        struct wal_fixture *f = log_with_turns("");
        struct worker linker, copier, late;
        const struct bfti_frame *named;
        wal_fixture_open(f, 0, 0);
        link_frame(f, &f->thread, frame_of(f, LARGE));
        if (copied)
            copy_all(f, &f->thread);
        stop_worker(&linker, f, "wal:end-raised", link_one);
        stop_worker(&copier, f, "wal:names-wanted", copy_what_is_there);
        stop_worker(&late, f, "wal:tail-named", link_one);
        named = atomic_load(&late.thread.hazard[0]);
        park_end(&linker.parked);
        park_end(&copier.parked);
        assert_true(atomic_load(&given.count) > 0);
        assert_false(was_given(named));
        park_end(&late.parked);
        atomic_store(&bfti_park, NULL);
        copy_all(f, &f->thread);
        assert_int_equal(bfti_wal_end(f->wal), bfti_wal_copied(f->wal));
        log_free(f);
    }
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_that_say_nothing_are_zero),
        cmocka_unit_test(the_longest_frame_is_not_too_long),
        cmocka_unit_test(frames_are_gathered_in_one_buffer),
        cmocka_unit_test(a_large_frame_goes_with_the_next_one),
        cmocka_unit_test(a_frame_that_was_shown_goes_later),
#ifndef NDEBUG
        cmocka_unit_test(retired_frames_are_looked_through_together),
        cmocka_unit_test(who_finds_nothing_shown_keeps_nothing),
        cmocka_unit_test(a_copier_names_the_copied_frame_of_now),
        cmocka_unit_test(the_tail_is_moved_before_its_frame_is_retired),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
