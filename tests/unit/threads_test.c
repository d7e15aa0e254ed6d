/*
 * Thread records, hazard slots, read-side sections and deferred frees: who
 * gets which record, what a scan must not miss, and what happens when memory
 * runs out, a thread ends or the process forks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atfork.h"
#include "buffer/buffer.h"
#include "wal_fixture.h"

/* --- surroundings ---------------------------------------------------------- */

static struct bfti_env env;           /* the system's, with these hooks */
static _Atomic long allocs_left = -1; /* before they fail; -1: no limit */
static _Atomic(void *) watched;       /* a block whose free is of interest */
static _Atomic bool watched_freed;

static void *env_alloc(void *ctx, size_t bytes)
{
    if (atomic_load(&allocs_left) == 0)
        return NULL;
    if (atomic_load(&allocs_left) > 0)
        atomic_fetch_sub(&allocs_left, 1);
    return bfti_env_system()->alloc(ctx, bytes);
}

static void env_free(void *ctx, void *block)
{
    if (block != NULL && block == atomic_load(&watched))
        atomic_store(&watched_freed, true);
    bfti_env_system()->free(ctx, block);
}

/* --- the first registry of the process ------------------------------------- */

#if ATFORK_ORDERS

/* A first call asks twice. */
static void expect_no_registry(unsigned refused)
{
    struct bfti_threads *threads;

    atfork_refusals = refused;
    assert_int_equal(bfti_threads_create(bfti_env_system(), &threads),
                     BFT_NO_MEMORY);
    assert_null(threads);
    atfork_refusals = 0;
}

/* What was refused is asked for again, and what was not is registered once: two
 * handlers for one lock would wait for each other. */
static void what_was_refused_once_is_asked_for_again(void **state)
{
    enum { KEYS = 4096, HANDLERS = 1 + BFT_WITH_URCU };
    static pthread_key_t keys[KEYS];
    struct bfti_threads *threads;
    size_t count = 0;

    (void)state;
    for (int i = 0; i < 2; i++)
        expect_no_registry(2);
    while (count < KEYS && pthread_key_create(&keys[count], NULL) == 0)
        count++;
    for (int i = 0; i < 2; i++)
        expect_no_registry(0);
    while (count > 0)
        pthread_key_delete(keys[--count]);
    for (int i = 0; i < 2 * BFT_WITH_URCU; i++)
        expect_no_registry(2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bfti_threads_create(bfti_env_system(), &threads),
                         BFT_OK);
        assert_int_equal(atfork_prepared, HANDLERS);
        bfti_threads_destroy(threads);
    }
}

#endif

static int setup(void **state)
{
    struct bfti_threads *threads;

    env = *bfti_env_system();
    env.alloc = env_alloc;
    env.free = env_free;
    atomic_store(&allocs_left, -1);
    atomic_store(&watched, NULL);
    atomic_store(&watched_freed, false);
    assert_int_equal(bfti_threads_create(&env, &threads), BFT_OK);
    *state = threads;
    return 0;
}

static int teardown(void **state)
{
    bfti_threads_destroy(*state);
    return 0;
}

static void run(void *(*start)(void *arg), void *arg)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, start, arg), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* --- records --------------------------------------------------------------- */

static void *current_of(void *threads)
{
    return bfti_rec_current(threads);
}

static void *current_in_thread(struct bfti_threads *threads)
{
    pthread_t thread;
    void *rec;

    assert_int_equal(pthread_create(&thread, NULL, current_of, threads), 0);
    assert_int_equal(pthread_join(thread, &rec), 0);
    return rec;
}

static void a_thread_keeps_its_record(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);

    assert_non_null(rec);
    assert_ptr_equal(rec->threads, *state);
    assert_ptr_equal(bfti_rec_current(*state), rec);
    assert_ptr_not_equal(current_in_thread(*state), rec);
    assert_int_equal((uintptr_t)rec % 64, 0);
}

static void the_record_of_an_ended_thread_goes_to_the_next(void **state)
{
    void *first = current_in_thread(*state);
    size_t bytes = bfti_threads_bytes(*state);

    assert_non_null(first);
    for (int i = 0; i < 20; i++)
        assert_ptr_equal(current_in_thread(*state), first);
    assert_int_equal(bfti_threads_bytes(*state), bytes);
}

static void *name_and_end(void *threads)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    bfti_hazard_set(rec, BFTI_HAZARD_EXTENT, 77);
    return NULL;
}

static void a_thread_that_ends_names_nothing(void **state)
{
    uint64_t place = 77;

    run(name_and_end, *state);
    bfti_hazard_unnamed(*state, &place, 1);
    assert_int_equal(place, 0);
}

/* More registries than the cache has entries: each keeps its record. */
static void records_of_many_registries_are_kept_apart(void **state)
{
    enum { MANY = 40 };
    struct bfti_threads *threads[MANY];
    struct bfti_rec *rec[MANY];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(bfti_threads_create(&env, &threads[i]), BFT_OK);
        rec[i] = bfti_rec_current(threads[i]);
        assert_ptr_equal(rec[i]->threads, threads[i]);
    }
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < MANY; i++)
            assert_ptr_equal(bfti_rec_current(threads[i]), rec[i]);
    for (int i = 0; i < MANY; i++)
        bfti_threads_destroy(threads[i]);
}

/* The allocator likes to give a new registry the memory of the last one. */
static void a_registry_in_old_memory_is_a_new_one(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct bfti_threads *threads;
        struct bfti_rec *rec;

        assert_int_equal(bfti_threads_create(&env, &threads), BFT_OK);
        rec = bfti_rec_current(threads);
        assert_ptr_equal(rec->threads, threads);
        assert_int_equal(atomic_load(&rec->used), 1);
        bfti_threads_destroy(threads);
    }
}

struct baton {
    pthread_barrier_t barrier;
    struct bfti_threads *short_lived, *long_lived;
};

static void *outlive_a_registry(void *arg)
{
    struct baton *baton = arg;

    (void)bfti_rec_current(baton->short_lived);
    (void)bfti_rec_current(baton->long_lived);
    pthread_barrier_wait(&baton->barrier);
    /* The short-lived one goes now. */
    pthread_barrier_wait(&baton->barrier);
    return bfti_rec_current(baton->long_lived);
}

static void a_thread_may_outlive_a_registry(void **state)
{
    struct baton baton = {.long_lived = *state};
    pthread_t thread;
    void *rec;

    assert_int_equal(bfti_threads_create(&env, &baton.short_lived), BFT_OK);
    pthread_barrier_init(&baton.barrier, NULL, 2);
    pthread_create(&thread, NULL, outlive_a_registry, &baton);
    pthread_barrier_wait(&baton.barrier);
    bfti_threads_destroy(baton.short_lived);
    pthread_barrier_wait(&baton.barrier);
    pthread_join(thread, &rec);
    pthread_barrier_destroy(&baton.barrier);
    /* Its end gave the other record back all the same. */
    assert_ptr_equal(current_in_thread(*state), rec);
}

/* Another library's exit handler, which runs behind ours, uses the engine. */
static pthread_key_t late_key;
static _Atomic bool late_owned;

static void late_handler(void *threads)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    /* Not the one that was given back before. */
    atomic_store(&late_owned, rec != NULL && atomic_load(&rec->used) == 1);
}

static void *end_late(void *threads)
{
    void *rec = bfti_rec_current(threads);

    pthread_setspecific(late_key, threads);
    return rec;
}

static void an_exit_handler_may_use_the_engine(void **state)
{
    pthread_t thread;
    void *rec;
    size_t bytes;

    assert_non_null(bfti_rec_current(*state)); /* our key comes first */
    assert_int_equal(pthread_key_create(&late_key, late_handler), 0);
    pthread_create(&thread, NULL, end_late, *state);
    pthread_join(thread, &rec);
    pthread_key_delete(late_key);
    assert_true(atomic_load(&late_owned));
    bytes = bfti_threads_bytes(*state);
    assert_ptr_equal(current_in_thread(*state), rec);
    assert_int_equal(bfti_threads_bytes(*state), bytes);
}

static void objects_have_records_of_their_own(void **state)
{
    struct bfti_rec *own = bfti_rec_current(*state);
    struct bfti_rec *a = bfti_rec_take(*state);
    struct bfti_rec *b = bfti_rec_take(*state);

    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    assert_ptr_not_equal(a, own);
    assert_ptr_not_equal(b, own);
    bfti_hazard_set(a, BFTI_HAZARD_TOP, 5);
    bfti_rec_give(a);
    assert_int_equal(atomic_load(&a->hazard[BFTI_HAZARD_TOP]), 0);
    assert_ptr_equal(bfti_rec_take(*state), a);
    bfti_rec_give(a);
    bfti_rec_give(b);
    assert_ptr_equal(bfti_rec_current(*state), own);
}

static void records_join_the_log_before_and_after_it_is_set(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, 64 * 1024);
    struct bfti_rec *before = bfti_rec_current(*state);
    struct bfti_rec *after;

    wal_fixture_open(f, 0, 0);
    bfti_threads_set_wal(*state, f->wal);
    after = bfti_rec_take(*state);
    assert_true(atomic_load(&before->wal.attached));
    assert_true(atomic_load(&after->wal.attached));
    bfti_wal_enter(f->wal, &after->wal);
    assert_int_not_equal(bfti_wal_lowest_in_flight(f->wal), UINT64_MAX);
    bfti_wal_leave(f->wal, &after->wal);
    assert_int_equal(bfti_wal_lowest_in_flight(f->wal), UINT64_MAX);
    wal_fixture_close(f);
    bfti_threads_set_wal(*state, NULL);
    assert_false(atomic_load(&before->wal.attached));
    bfti_rec_give(after);
    wal_fixture_free(f);
}

static void counters_add_up_over_threads(void **state)
{
    struct bfti_rec *taken = bfti_rec_take(*state);

    bfti_count(bfti_rec_current(*state), 3, 40);
    bfti_count(taken, 3, 2);
    bfti_count(taken, 4, 1);
    bfti_rec_give(taken);
    assert_int_equal(bfti_threads_count(*state, 3), 42);
    assert_int_equal(bfti_threads_count(*state, 4), 1);
    assert_int_equal(bfti_threads_count(*state, 0), 0);
}

static void buffers_grow_and_are_counted(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);
    size_t bytes = bfti_threads_bytes(*state);
    char text[200];

    assert_int_equal(bfti_rec_buf(rec, 1, 100), BFT_OK);
    memset(rec->buf[1], 1, 100);
    void *buf = rec->buf[1];
    assert_int_equal(bfti_rec_buf(rec, 1, 50), BFT_OK);
    assert_ptr_equal(rec->buf[1], buf);
    assert_int_equal(bfti_rec_buf(rec, 1, 100000), BFT_OK);
    memset(rec->buf[1], 2, 100000);
    assert_int_equal(bfti_threads_bytes(*state), bytes + rec->buf_cap[1]);

    atomic_store(&allocs_left, 0);
    assert_int_equal(bfti_rec_buf(rec, 1, 200000), BFT_NO_MEMORY);
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "thread buffer"));
    assert_int_equal(rec->buf_cap[1], 0);
    assert_int_equal(bfti_threads_bytes(*state), bytes);
    assert_int_equal(bfti_rec_buf(rec, 1, SIZE_MAX), BFT_NO_MEMORY);
    atomic_store(&allocs_left, -1);
    assert_int_equal(bfti_rec_buf(rec, 1, 10), BFT_OK);
}

static void lists_and_read_buffers_are_counted(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);
    size_t bytes = bfti_threads_bytes(*state);

    for (unsigned i = 0; i < BFTI_LISTS; i++)
        assert_int_equal(bfti_list_reserve(&env, &rec->list[i], 100 + i, 50),
                         BFT_OK);
    for (unsigned i = 0; i < BFTI_LISTS; i++)
        bytes += rec->list[i].cap * sizeof(struct bfti_view) +
                 rec->list[i].dead_cap * sizeof(struct bfti_large);
    assert_int_equal(bfti_threads_bytes(*state), bytes);
    for (unsigned i = 0; i < BFTI_LISTS; i++) {
        bytes -= rec->list[i].cap * sizeof(struct bfti_view) +
                 rec->list[i].dead_cap * sizeof(struct bfti_large);
        bfti_list_free(&env, &rec->list[i]);
    }
    assert_int_equal(bfti_threads_bytes(*state), bytes);
    for (unsigned i = 0; i < BFTI_SCRATCHES; i++)
        assert_non_null(rec->scratch[i].held); /* tests/unit/memory_test.c */
}

static void random_numbers_differ_between_records(void **state)
{
    struct bfti_rec *a = bfti_rec_current(*state);
    struct bfti_rec *b = bfti_rec_take(*state);
    uint64_t any = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t x = bfti_rec_random(a);
        assert_int_not_equal(a->random, 0);
        assert_int_not_equal(x, bfti_rec_random(b));
        any |= x;
    }
    assert_int_equal(any, UINT64_MAX);
    bfti_rec_give(b);
}

static void without_memory_there_is_no_record(void **state)
{
    struct bfti_threads *threads;
    char text[200];

    atomic_store(&allocs_left, 0);
    assert_int_equal(bfti_threads_create(&env, &threads), BFT_NO_MEMORY);
    assert_null(threads);
    assert_null(bfti_rec_current(*state));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "thread record"));
    assert_null(bfti_rec_take(*state));
    atomic_store(&allocs_left, -1);
    assert_non_null(bfti_rec_current(*state));
}

/* --- hazard slots ---------------------------------------------------------- */

static void a_scan_keeps_exactly_what_is_named(void **state)
{
    enum { N = 1000, RECS = 30, EACH = 5 * BFTI_HAZARDS };
    static uint64_t places[N];
    struct bfti_rec *rec[RECS];

    for (int i = 0; i < RECS; i++) {
        rec[i] = bfti_rec_take(*state);
        for (unsigned slot = 0; slot < BFTI_HAZARDS; slot++)
            bfti_hazard_set(rec[i], slot, 1 + (uint64_t)i * EACH + slot * 5);
    }
    for (size_t i = 0; i < N; i++)
        places[i] = i + 1;
    bfti_hazard_unnamed(*state, places, N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(places[i], i % 5 == 0 && i < RECS * EACH ? i + 1 : 0);
    for (int i = 0; i < RECS; i++)
        bfti_rec_give(rec[i]);
    bfti_hazard_unnamed(*state, places, N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(places[i], 0);
    bfti_hazard_unnamed(*state, places, 0);
}

static void a_place_given_twice_is_kept_twice(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);
    uint64_t places[6] = {9, 0, 8, 9, 0, 8};

    bfti_hazard_set(rec, BFTI_HAZARD_SPARE, 9);
    bfti_hazard_unnamed(*state, places, 6);
    assert_int_equal(places[0], 9);
    assert_int_equal(places[3], 9);
    assert_int_equal(places[1] | places[2] | places[4] | places[5], 0);
    bfti_hazard_clear(rec, BFTI_HAZARD_SPARE);
}

/* Places that meet in one cell of the scan's table. */
static void places_that_collide_are_told_apart(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);
    uint64_t places[256];

    for (uint64_t i = 0; i < 256; i++)
        places[i] = (i + 1) << 54; /* the product's top bits: few values */
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, UINT64_C(100) << 54);
    bfti_hazard_unnamed(*state, places, 256);
    for (uint64_t i = 0; i < 256; i++)
        assert_int_equal(places[i], i == 99 ? UINT64_C(100) << 54 : 0);
    bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
}

/* --- deferred frees and sections --------------------------------------------- */

static void *watched_block(size_t bytes)
{
    void *block = bfti_alloc(&env, bytes);

    assert_non_null(block);
    atomic_store(&watched, block);
    atomic_store(&watched_freed, false);
    return block;
}

/* Defer BLOCK, with its link in front. */
static void defer(struct bfti_threads *threads, void *block, size_t bytes)
{
    assert_non_null(block);
    assert_true(bytes >= sizeof(struct bfti_deferred));
    bfti_defer_free(threads, block, block, bytes);
}

static void what_is_deferred_is_freed_by_a_step(void **state)
{
    defer(*state, watched_block(100), 100);
    defer(*state, bfti_alloc(&env, 50), 50);
    assert_int_equal(bfti_defer_bytes(*state), 150);
    assert_false(atomic_load(&watched_freed));
    assert_int_equal(bfti_defer_step(*state), 0);
    assert_true(atomic_load(&watched_freed));
    assert_int_equal(bfti_defer_step(*state), 0);
}

static void what_is_held_is_not_freed(void **state)
{
    struct bfti_hold hold[2];

    bfti_defer_hold(*state, &hold[0]);
    bfti_defer_hold(*state, &hold[1]);
    defer(*state, watched_block(100), 100);
    assert_int_equal(bfti_defer_step(*state), 100);
    bfti_defer_unhold(*state, &hold[0]);
    assert_int_equal(bfti_defer_step(*state), 100);
    assert_false(atomic_load(&watched_freed));
    bfti_defer_unhold(*state, &hold[1]);
    assert_int_equal(bfti_defer_step(*state), 0);
    assert_true(atomic_load(&watched_freed));
}

/* Holds that overlap, so that there always is one: each keeps what was deferred
 * after it began, and no more. */
static void holds_without_end_keep_nothing_for_ever(void **state)
{
    struct bfti_hold hold[2];

    bfti_defer_hold(*state, &hold[0]);
    for (unsigned i = 1; i < 100; i++) {
        defer(*state, watched_block(64), 64);
        bfti_defer_hold(*state, &hold[i % 2]);
        assert_int_equal(bfti_defer_step(*state), 64);
        assert_false(atomic_load(&watched_freed));
        bfti_defer_unhold(*state, &hold[(i + 1) % 2]);
        assert_int_equal(bfti_defer_step(*state), 0);
        assert_true(atomic_load(&watched_freed));
    }
    bfti_defer_unhold(*state, &hold[1]);
}

/* What still waits goes with the registry; the sanitizer sees a leak. */
static void the_registry_frees_what_still_waits(void **state)
{
    for (int i = 0; i < 1000; i++)
        defer(*state, bfti_alloc(&env, 32), 32);
    assert_int_equal(bfti_defer_bytes(*state), 32000);
}

/* The new path is published by then: there is nothing to go back to. */
static void deferring_needs_no_memory(void **state)
{
    struct bfti_hold hold;
    void *block[600];

    for (int i = 0; i < 600; i++)
        block[i] = bfti_alloc(&env, 32);
    bfti_defer_hold(*state, &hold);
    atomic_store(&allocs_left, 0);
    for (int i = 0; i < 600; i++)
        defer(*state, block[i], 32);
    assert_int_equal(bfti_defer_bytes(*state), 600 * 32);
    assert_int_equal(bfti_defer_step(*state), 600 * 32);
    bfti_defer_unhold(*state, &hold);
    assert_int_equal(bfti_defer_step(*state), 0);
    atomic_store(&allocs_left, -1);
}

static _Atomic bool stepping;

static void *step(void *threads)
{
    atomic_store(&stepping, true);
    (void)bfti_defer_step(threads);
    return NULL;
}

/* A step in another thread, which is likely to be waiting by the end. */
static pthread_t step_begin(struct bfti_threads *threads)
{
    pthread_t thread;

    atomic_store(&stepping, false);
    assert_int_equal(pthread_create(&thread, NULL, step, threads), 0);
    while (!atomic_load(&stepping))
        sched_yield();
    for (int i = 0; i < 5000; i++)
        sched_yield();
    return thread;
}

static void a_section_delays_what_was_deferred_before_its_end(void **state)
{
    struct bfti_rec *rec = bfti_rec_current(*state);
    unsigned char *block = watched_block(64);
    pthread_t thread;

    memset(block, 7, 64);
    bfti_read_begin(rec);
    defer(*state, block, 64);
    thread = step_begin(*state);
    for (size_t i = sizeof(struct bfti_deferred); i < 64; i++)
        assert_int_equal(block[i], 7);
    assert_false(atomic_load(&watched_freed));
    bfti_read_end(rec);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&watched_freed));
}

/* Sections of the next epoch do not keep a wait from ending. */
static _Atomic bool stop;

static void *read_again_and_again(void *threads)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    while (!atomic_load(&stop)) {
        bfti_read_begin(rec);
        bfti_read_end(rec);
    }
    return NULL;
}

static void a_wait_ends_while_others_read(void **state)
{
    pthread_t thread;

    atomic_store(&stop, false);
    pthread_create(&thread, NULL, read_again_and_again, *state);
    for (int i = 0; i < 50; i++)
        bfti_read_wait(*state);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

/* --- forks ------------------------------------------------------------------- */

#if !defined(__SANITIZE_THREAD__) && !defined(BFT_NO_FORK_TEST)
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BFT_NO_FORK_TEST 1 /* starts no threads after a fork of many */
#endif
#endif
#else
#define BFT_NO_FORK_TEST 1
#endif

#ifndef BFT_NO_FORK_TEST
static pthread_barrier_t reading;

static void *read_across_a_fork(void *threads)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    bfti_read_begin(rec);
    pthread_barrier_wait(&reading);
    pthread_barrier_wait(&reading);
    bfti_read_end(rec);
    return NULL;
}

/* In the child: a new registry works, though the parent's other thread was
 * inside a section at the fork.  Returns an exit status. */
static int child(void)
{
    struct bfti_threads *threads;
    uint64_t place = 6;

    alarm(100);
    if (bfti_threads_create(&env, &threads) != BFT_OK)
        return 1;
    run(name_and_end, threads);
    bfti_hazard_set(bfti_rec_current(threads), BFTI_HAZARD_TOP, 6);
    bfti_hazard_unnamed(threads, &place, 1);
    if (place != 6)
        return 2;
    defer(threads, bfti_alloc(&env, 32), 32);
    if (bfti_defer_step(threads) != 0)
        return 3;
    bfti_threads_destroy(threads);
    return 0;
}
#endif

static void a_child_can_have_a_registry_of_its_own(void **state)
{
#ifdef BFT_NO_FORK_TEST
    (void)state;
    skip();
#else
    pthread_t thread;
    int status;
    pid_t pid;

    pthread_barrier_init(&reading, NULL, 2);
    pthread_create(&thread, NULL, read_across_a_fork, *state);
    pthread_barrier_wait(&reading);
    pid = fork();
    if (pid == 0)
        _exit(child());
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    pthread_barrier_wait(&reading);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&reading);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
#endif
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
#if ATFORK_ORDERS
        cmocka_unit_test(what_was_refused_once_is_asked_for_again), /* first */
#endif
        T(a_thread_keeps_its_record),
        T(the_record_of_an_ended_thread_goes_to_the_next),
        T(a_thread_that_ends_names_nothing),
        T(records_of_many_registries_are_kept_apart),
        T(a_registry_in_old_memory_is_a_new_one),
        T(a_thread_may_outlive_a_registry),
        T(an_exit_handler_may_use_the_engine),
        T(objects_have_records_of_their_own),
        T(records_join_the_log_before_and_after_it_is_set),
        T(counters_add_up_over_threads),
        T(buffers_grow_and_are_counted),
        T(lists_and_read_buffers_are_counted),
        T(random_numbers_differ_between_records),
        T(without_memory_there_is_no_record),
        T(a_scan_keeps_exactly_what_is_named),
        T(a_place_given_twice_is_kept_twice),
        T(places_that_collide_are_told_apart),
        T(what_is_deferred_is_freed_by_a_step),
        T(what_is_held_is_not_freed),
        T(the_registry_frees_what_still_waits),
        T(holds_without_end_keep_nothing_for_ever),
        T(deferring_needs_no_memory),
        T(a_section_delays_what_was_deferred_before_its_end),
        T(a_wait_ends_while_others_read),
        T(a_child_can_have_a_registry_of_its_own),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
