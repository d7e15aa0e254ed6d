/*
 * A thread that is stopped between any two steps of the log delays nobody, and
 * finds what it needs when it goes on.
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
#include "wal_fixture.h"

#ifndef NDEBUG

enum { SEGMENT = 1 << 15, LARGE = 70000, BUSY = 1500 };

static struct wal_seen seen;

/* --- threads that stop ------------------------------------------------------ */

struct parked {
    const char *point;
    void (*run)(struct parked *parked);
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    uint64_t number; /* of its frames */
    pthread_t id;
    _Atomic bool closed, reached, done;
};

static _Thread_local struct parked *self;

static void park(const char *point)
{
    if (self == NULL || strcmp(point, self->point) != 0)
        return;
    while (atomic_load(&self->closed)) {
        atomic_store(&self->reached, true);
        sched_yield();
    }
}

static void *run_parked(void *arg)
{
    self = arg;
    bfti_wal_attach(self->f->wal, &self->thread);
    self->run(self);
    atomic_store(&self->done, true);
    return NULL;
}

/* Start RUN on a thread and return once it is stopped at POINT. */
static struct parked *park_at(struct wal_fixture *f, const char *point,
                              void (*run)(struct parked *parked),
                              uint64_t number)
{
    struct parked *parked = calloc(1, sizeof(*parked));

    assert_non_null(parked);
    parked->f = f;
    parked->point = point;
    parked->run = run;
    parked->number = number;
    atomic_store(&parked->closed, true);
    assert_int_equal(0, pthread_create(&parked->id, NULL, run_parked, parked));
    while (!atomic_load(&parked->reached)) {
        if (atomic_load(&parked->done))
            fail_msg("nothing stops at %s", point);
        sched_yield();
    }
    return parked;
}

static void release(struct parked *parked)
{
    atomic_store(&parked->closed, false);
    assert_int_equal(0, pthread_join(parked->id, NULL));
}

static void append_one(struct parked *parked, size_t len)
{
    struct bfti_wal *wal = parked->f->wal;
    struct wal_place place;

    bfti_wal_enter(wal, &parked->thread);
    place = wal_link_in(parked->f, &parked->thread, parked->number++, len);
    assert_int_equal(BFT_OK, bfti_wal_copy(wal, &parked->thread, place.end));
    bfti_wal_leave(wal, &parked->thread);
}

enum { APPENDED = 4 };

static void append_some(struct parked *parked)
{
    append_one(parked, 100);
    append_one(parked, LARGE); /* frees what it retires */
    append_one(parked, 300);
    append_one(parked, 50);
}

static void drop_all(struct parked *parked)
{
    assert_int_equal(BFT_OK, bfti_wal_drop_below(parked->f->wal, UINT64_MAX));
}

/* --- the threads that go on -------------------------------------------------- */

/* First everything linked so far into the file, then enough to free and reuse
 * the memory of all those frames. */
static void be_busy(struct wal_fixture *f)
{
    struct wal_place place = {0, 0};

    assert_int_equal(BFT_OK,
                     bfti_wal_sync(f->wal, &f->thread, bfti_wal_end(f->wal)));
    for (uint64_t i = 0; i < BUSY; i++)
        place = wal_append(f, 1000 + i, i % 300);
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
}

static void link_uncopied(struct wal_fixture *f, uint64_t id)
{
    bfti_wal_enter(f->wal, &f->thread);
    wal_link_in(f, &f->thread, id, 60);
    bfti_wal_leave(f->wal, &f->thread);
}

static void check_all(struct wal_fixture *f, size_t frames)
{
    uint64_t end = bfti_wal_end(f->wal);

    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, end));
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, 0, end, &seen));
    assert_int_equal(end, seen.found.end);
    assert_int_equal(frames, seen.count);
    assert_false(seen.garbled);
}

static const char *const points[] = {
    "wal:entering",      "wal:tail-read",     "wal:tail-named",
    "wal:linked",        "wal:end-raised",    "wal:copied-read",
    "wal:copied-named",  "wal:next-read",     "wal:next-named",
    "wal:stored",        "wal:segment-found", "wal:copied-moved",
    "wal:names-gathered"};

static void check_points(enum wal_medium medium)
{
    for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct wal_fixture *f = wal_fixture_new(medium, SEGMENT);
        struct parked *parked;

        wal_fixture_open(f, 0, 0);
        atomic_store(&bfti_park, park);
        link_uncopied(f, 1);
        parked = park_at(f, points[i], append_some, 10);
        be_busy(f);
        release(parked);
        atomic_store(&bfti_park, NULL);
        check_all(f, 1 + APPENDED + BUSY);
        free(parked);
        wal_fixture_free(f);
    }
}

static void stopped_anywhere_in_an_append(void **state)
{
    (void)state;
    check_points(WAL_IN_MEMORY);
}

static void stopped_anywhere_in_a_mapped_append(void **state)
{
    (void)state;
    check_points(WAL_ON_DISK_MAPPED);
}

static void names_nothing(struct bfti_wal_thread *thread)
{
    assert_null(atomic_load(&thread->hazard[0]));
    assert_null(atomic_load(&thread->hazard[1]));
    assert_null(atomic_load(&thread->shown));
    assert_null(atomic_load(&thread->looked));
}

/* One stops between the link and the swing of the tail, the next while it is
 * about to swing it for the first, and others go on. */
static void stopped_while_helping_a_stopped_linker(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct parked *first, *second;

    (void)state;
    wal_fixture_open(f, 0, 0);
    atomic_store(&bfti_park, park);
    link_uncopied(f, 1);
    first = park_at(f, "wal:linked", append_some, 10);
    second = park_at(f, "wal:helping", append_some, 20);
    be_busy(f);
    release(second);
    release(first);
    atomic_store(&bfti_park, NULL);
    names_nothing(&first->thread);
    names_nothing(&second->thread);
    check_all(f, 1 + 2 * APPENDED + BUSY);
    free(first);
    free(second);
    wal_fixture_free(f);
}

/* Two copiers are stopped with the same frames in hand; both go on after those
 * frames were freed and their segments could have been reused. */
static void stopped_copiers_store_nothing_into_a_later_segment(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_ON_DISK_MAPPED, SEGMENT);
    struct parked *first, *second;

    (void)state;
    wal_fixture_open(f, 0, 0);
    atomic_store(&bfti_park, park);
    link_uncopied(f, 1);
    first = park_at(f, "wal:segment-found", append_some, 10);
    second = park_at(f, "wal:next-named", append_some, 20);
    be_busy(f);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(BFT_OK, bfti_wal_drop_below(f->wal, UINT64_MAX));
        wal_append_sync(f, 5000 + i, SEGMENT);
    }
    release(first);
    release(second);
    atomic_store(&bfti_park, NULL);
    check_all(f, 1 + 2 * APPENDED + BUSY + 5);
    free(first);
    free(second);
    wal_fixture_free(f);
}

enum { BOUND = 10 * 1024, EIGHTIETH = BOUND / 80 };

static uint64_t append_behind(struct wal_fixture *f,
                              struct bfti_wal_thread *thread, uint64_t id)
{
    struct wal_place place;

    bfti_wal_enter(f->wal, thread);
    place = wal_link_in(f, thread, id, EIGHTIETH - BFTI_FRAME_HEADER);
    assert_int_equal(BFT_OK,
                     bfti_wal_copy_behind(f->wal, thread, place.end, BOUND));
    bfti_wal_leave(f->wal, thread);
    return place.end - bfti_wal_copied(f->wal);
}

static void append_behind_until_copied(struct parked *parked)
{
    while (append_behind(parked->f, &parked->thread, parked->number++) > 0) {
    }
}

/* Who has taken it on to copy what waits is stopped: others leave that to him
 * for a while, and then copy themselves. */
static void stopped_while_others_leave_the_copying_to_him(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct parked *parked;
    uint64_t most = 0;

    (void)state;
    wal_fixture_open(f, 0, 0);
    atomic_store(&bfti_park, park);
    parked = park_at(f, "wal:stored", append_behind_until_copied, 10);
    for (uint64_t i = 0; i < BUSY; i++) {
        uint64_t behind = append_behind(f, &f->thread, 1000 + i);

        most = behind > most ? behind : most;
    }
    assert_int_equal(4 * BOUND, most);
    release(parked);
    atomic_store(&bfti_park, NULL);
    check_all(f, (size_t)(parked->number - 10) + BUSY);
    free(parked);
    wal_fixture_free(f);
}

/* A thread enters while another decides what to drop. */
static void check_drop(const char *point)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_thread entered;
    struct parked *parked;
    uint64_t slot;

    memset(&entered, 0, sizeof(entered));
    wal_fixture_open(f, 0, 0);
    bfti_wal_attach(f->wal, &entered);
    wal_append_sync(f, 1, 3 * SEGMENT);
    atomic_store(&bfti_park, park);
    parked = park_at(f, point, drop_all, 0);
    bfti_wal_enter(f->wal, &entered);
    slot = atomic_load(&entered.in_flight);
    be_busy(f);
    release(parked);
    atomic_store(&bfti_park, NULL);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK, wal_scan(f, slot, 0, &seen));
    assert_int_equal(BUSY, seen.count);
    free(parked);
    wal_fixture_free(f);
}

static void stopped_while_dropping_log(void **state)
{
    (void)state;
    check_drop("wal:marks-read");
    check_drop("wal:slots-read");
}

/* --- between two steps ---------------------------------------------------------- */

/* Another thread's turn comes at its point. */
static struct {
    struct wal_fixture *f;
    struct bfti_wal_thread thread;
    bool came;
} other;

static struct wal_fixture *begin_turn(bfti_park_hook *hook)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);

    memset(&other, 0, sizeof(other));
    other.f = f;
    wal_fixture_open(f, 0, 0);
    atomic_store(&bfti_park, hook);
    return f;
}

static void attach_other(const char *point)
{
    if (strcmp(point, "wal:attaching") == 0 && !other.came) {
        other.came = true;
        bfti_wal_attach(other.f->wal, &other.thread);
    }
}

/* Both are among the threads that are asked what is in flight. */
static void overtaken_while_attaching(void **state)
{
    struct wal_fixture *f = begin_turn(attach_other);
    struct bfti_wal_thread late;
    struct wal_place place;

    (void)state;
    memset(&late, 0, sizeof(late));
    bfti_wal_attach(f->wal, &late);
    atomic_store(&bfti_park, NULL);
    assert_true(other.came);
    bfti_wal_enter(f->wal, &late);
    place = wal_append(f, 1, 100);
    bfti_wal_enter(f->wal, &other.thread);
    assert_int_equal(0, bfti_wal_lowest_in_flight(f->wal));
    bfti_wal_leave(f->wal, &late);
    assert_int_equal(place.end, bfti_wal_lowest_in_flight(f->wal));
    bfti_wal_leave(f->wal, &other.thread);
    assert_int_equal(UINT64_MAX, bfti_wal_lowest_in_flight(f->wal));
    wal_fixture_free(f);
}

static void append_and_drop(const char *point)
{
    if (strcmp(point, "wal:entering") != 0 || other.came)
        return;
    other.came = true;
    wal_append_sync(other.f, 1, 3 * SEGMENT);
    assert_int_equal(BFT_OK, bfti_wal_drop_below(other.f->wal, UINT64_MAX));
}

/* An enter is overtaken by copies and a drop between its two looks: what it notes
 * is not below what was dropped, and what was settled stays so. */
static void overtaken_while_entering(void **state)
{
    struct wal_fixture *f = begin_turn(append_and_drop);
    uint64_t settled;

    (void)state;
    bfti_wal_attach(f->wal, &other.thread);
    bfti_wal_enter(f->wal, &other.thread);
    atomic_store(&bfti_park, NULL);
    assert_true(other.came);
    settled = bfti_wal_durable(f->wal);
    assert_true(bfti_wal_first(f->wal) >= 3 * SEGMENT);
    assert_int_equal(settled, atomic_load(&other.thread.in_flight));
    assert_int_equal(settled, bfti_wal_settled(f->wal));
    bfti_wal_leave(f->wal, &other.thread);
    wal_fixture_free(f);
}

static uint64_t settled_before;

/* Again when the slot is set, to what was noted first. */
static void look_at_what_is_settled(const char *point)
{
    struct bfti_wal *wal = other.f->wal;
    struct bfti_wal_entry entry;
    struct bfti_wal_feed *feed;

    if (strcmp(point, "wal:entering") != 0)
        return;
    atomic_store(&bfti_park, NULL);
    if (!other.came) {
        append_and_drop(point);
        settled_before = bfti_wal_durable(wal);
        atomic_store(&bfti_park, look_at_what_is_settled);
        return;
    }
    assert_true(bfti_wal_lowest_in_flight(wal) < bfti_wal_first(wal));
    assert_int_equal(BFT_OK, bfti_wal_feed_open(wal, BFTI_WAL_NOW, 0, &feed));
    assert_int_equal(settled_before, bfti_wal_feed_position(feed));
    assert_int_equal(BFT_NOT_FOUND, bfti_wal_feed_read(feed, &entry));
    bfti_wal_feed_close(feed);
    wal_append_sync(other.f, 2, SEGMENT);
    assert_int_equal(settled_before, bfti_wal_settled(wal));
    settled_before = 0;
}

/* Nor does a feed that comes in between begin at what is gone. */
static void what_is_settled_stays_so_beside_an_enter(void **state)
{
    struct wal_fixture *f = begin_turn(look_at_what_is_settled);

    (void)state;
    bfti_wal_attach(f->wal, &other.thread);
    bfti_wal_enter(f->wal, &other.thread);
    assert_int_equal(0, settled_before);
    bfti_wal_leave(f->wal, &other.thread);
    wal_fixture_free(f);
}

/* --- syncs --------------------------------------------------------------------- */

static struct wal_fixture *syncing;
static struct bfti_wal_thread during;

/* A frame is linked and copied while the file is being synced. */
static bft_status append_during_sync(void *arg)
{
    struct wal_place place;

    (void)arg;
    wal_hooks.sync = NULL;
    bfti_wal_enter(syncing->wal, &during);
    place = wal_link_in(syncing, &during, 2, 100);
    assert_int_equal(BFT_OK, bfti_wal_copy(syncing->wal, &during, place.end));
    bfti_wal_leave(syncing->wal, &during);
    return BFT_OK;
}

static void what_is_copied_during_a_sync_is_not_yet_durable(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct wal_place place;

    (void)state;
    memset(&during, 0, sizeof(during));
    wal_fixture_open(f, 0, 0);
    bfti_wal_attach(f->wal, &during);
    syncing = f;
    place = wal_append(f, 1, 100);
    wal_hooks.sync = append_during_sync;
    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    assert_true(bfti_wal_copied(f->wal) > place.end);
    assert_int_equal(place.end, bfti_wal_durable(f->wal));
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_anywhere_in_an_append),
        cmocka_unit_test(stopped_anywhere_in_a_mapped_append),
        cmocka_unit_test(stopped_while_helping_a_stopped_linker),
        cmocka_unit_test(stopped_copiers_store_nothing_into_a_later_segment),
        cmocka_unit_test(stopped_while_others_leave_the_copying_to_him),
        cmocka_unit_test(stopped_while_dropping_log),
        cmocka_unit_test(overtaken_while_attaching),
        cmocka_unit_test(overtaken_while_entering),
        cmocka_unit_test(what_is_settled_stays_so_beside_an_enter),
        cmocka_unit_test(what_is_copied_during_a_sync_is_not_yet_durable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else /* park points are compiled out */

int main(void)
{
    print_message("no park points in this build\n");
    return 0;
}

#endif
