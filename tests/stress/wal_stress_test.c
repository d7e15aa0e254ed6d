/*
 * Threads that link, copy and sync frames at once, while another drops the log
 * behind them and prepares it ahead.  Afterwards the file holds every frame
 * once, where its linker was told it is.  Made for the thread sanitizer.
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

#include "fileio/fault.h"
#include "random.h"
#include "wal_fixture.h"

enum {
    WRITERS = 4,
    FRAMES = 12000,
    SEGMENT = 1 << 16,
    LOG_KEPT = 20 * SEGMENT
};

struct writer {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    uint64_t number, random;
    pthread_t id;
    uint64_t lsn[FRAMES];
    _Atomic uint64_t last; /* position of its newest frame */
};

struct run {
    struct wal_fixture *f;
    struct writer *writer;
    _Atomic bool done;
    uint64_t redo; /* the log from here on is kept */
    uint64_t seen[WRITERS], frames;
};

/* An assertion of cmocka is for the thread that runs the test. */
static void must(bool good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "failed: %s\n", what);
    abort();
}

#ifndef NDEBUG
/* Lets others in between two steps, one time in eight. */
static void yield_sometimes(const char *point)
{
    static _Thread_local uint64_t random;

    (void)point;
    if (random_of(&random) % 8 == 0)
        sched_yield();
}
#endif

static size_t random_len(uint64_t *random)
{
    uint64_t r = random_of(random);

    return 8 + (size_t)(r % 64 == 0 ? (r >> 8) % 9000 : (r >> 8) % 200);
}

static void *write_frames(void *arg)
{
    struct writer *w = arg;
    struct bfti_wal *wal = w->f->wal;

    bfti_wal_attach(wal, &w->thread);
    for (uint64_t i = 0; i < FRAMES; i++) {
        uint64_t r = random_of(&w->random);
        struct wal_place place;

        bfti_wal_enter(wal, &w->thread);
        place = wal_link_in(w->f, &w->thread, w->number << 32 | i,
                            random_len(&w->random));
        w->lsn[i] = place.lsn;
        must(bfti_wal_end(wal) >= place.end, "the end is behind a frame");
        if (r % 2 == 0) {
            must(bfti_wal_copy(wal, &w->thread, place.end) == BFT_OK, "copy");
            must(bfti_wal_copied(wal) >= place.end, "not copied");
        }
        bfti_wal_leave(wal, &w->thread);
        if (r % 128 == 1) {
            must(bfti_wal_sync(wal, &w->thread, place.end) == BFT_OK, "sync");
            must(bfti_wal_durable(wal) >= place.end, "not durable");
        }
        atomic_store(&w->last, place.lsn);
    }
    return NULL;
}

/* Positions of frames in turn become the redo start, as checkpoints would. */
static void *drop_log(void *arg)
{
    struct run *run = arg;

    uint64_t next = 0;

    for (uint64_t i = 0; !atomic_load(&run->done); i++) {
        uint64_t lsn = atomic_load(&run->writer[i % WRITERS].last);

        if (lsn > next + LOG_KEPT) {
            run->redo = next;
            next = lsn;
        }
        must(bfti_wal_drop_below(run->f->wal, run->redo) == BFT_OK, "drop");
        must(bfti_wal_prepare(run->f->wal) == BFT_OK, "prepare");
        sched_yield();
    }
    return NULL;
}

static bft_status check_frame(void *arg, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    struct run *run = arg;
    const uint8_t *bytes = payload;
    uint64_t id = 0, number, i;

    (void)type;
    for (size_t k = 0; k < sizeof(id); k++)
        id |= (uint64_t)bytes[k] << (8 * k);
    for (size_t k = 0; k < len; k++)
        assert_int_equal(wal_payload_byte(id, k), bytes[k]);
    number = id >> 32;
    i = id & 0xffffffff;
    assert_in_range(number, 0, WRITERS - 1);
    assert_in_range(i, 0, FRAMES - 1);
    assert_int_equal(run->writer[number].lsn[i], lsn);
    /* Its writer's frames come in order, and none is left out. */
    if (run->seen[number] != UINT64_MAX)
        assert_int_equal(run->seen[number] + 1, i);
    run->seen[number] = i;
    run->frames++;
    return BFT_OK;
}

static void check_log(struct run *run, uint64_t end)
{
    struct bfti_wal_found found;
    uint64_t expected = 0;

    memset(run->seen, 0xff, sizeof(run->seen));
    assert_int_equal(BFT_OK, bfti_wal_scan(&run->f->options, run->redo, end,
                                           check_frame, run, &found));
    assert_int_equal(end, found.end);
    for (unsigned w = 0; w < WRITERS; w++) {
        for (unsigned i = 0; i < FRAMES; i++)
            expected += run->writer[w].lsn[i] >= run->redo;
    }
    assert_int_equal(expected, run->frames);
}

static void stress(enum wal_medium medium)
{
    struct run run = {.f = wal_fixture_new(medium, SEGMENT)};
    uint64_t seed = random_start(), end;
    struct bfti_wal_stats stats;
    pthread_t dropper;

    run.writer = calloc(WRITERS, sizeof(*run.writer));
    assert_non_null(run.writer);
    wal_fixture_open(run.f, 0, 0);
#ifndef NDEBUG
    atomic_store(&bfti_park, yield_sometimes);
#endif
    for (unsigned w = 0; w < WRITERS; w++) {
        run.writer[w].f = run.f;
        run.writer[w].number = w;
        run.writer[w].random = seed + w;
        assert_int_equal(0, pthread_create(&run.writer[w].id, NULL,
                                           write_frames, &run.writer[w]));
    }
    assert_int_equal(0, pthread_create(&dropper, NULL, drop_log, &run));
    for (unsigned w = 0; w < WRITERS; w++)
        assert_int_equal(0, pthread_join(run.writer[w].id, NULL));
    atomic_store(&run.done, true);
    assert_int_equal(0, pthread_join(dropper, NULL));

#ifndef NDEBUG
    atomic_store(&bfti_park, NULL);
#endif
    end = bfti_wal_end(run.f->wal);
    assert_int_equal(BFT_OK, bfti_wal_sync(run.f->wal, &run.f->thread, end));
    bfti_wal_stats(run.f->wal, &stats);
    assert_int_equal(WRITERS * FRAMES, stats.frames);
    wal_fixture_close(run.f);
    check_log(&run, end);
    print_message("%llu bytes, %llu syncs, %llu waits, %llu segments made, "
                  "%llu reused, %llu frames left\n",
                  (unsigned long long)stats.bytes,
                  (unsigned long long)stats.syncs,
                  (unsigned long long)stats.sync_waits,
                  (unsigned long long)stats.segments_made,
                  (unsigned long long)stats.segments_reused,
                  (unsigned long long)run.frames);
    free(run.writer);
    wal_fixture_free(run.f);
}

static void no_frame_is_lost_in_written_segments(void **state)
{
    (void)state;
    stress(WAL_IN_MEMORY);
}

static void no_frame_is_lost_in_mapped_segments(void **state)
{
    (void)state;
    stress(WAL_ON_DISK_MAPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_frame_is_lost_in_written_segments),
        cmocka_unit_test(no_frame_is_lost_in_mapped_segments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
