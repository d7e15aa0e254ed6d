/*
 * The store-load races on which hazard slots and read-side sections rest: of a
 * reader that names and then looks, and a writer that unlinks and then scans,
 * at least one must see the other.  Two threads meet there over and over.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>

#include "buffer/buffer.h"

enum { ROUNDS = 60000, LOOKS = 2000, PLACE = 99 };

static struct bfti_threads *threads;

/* One round each, so that the threads need no reset in between. */
struct round {
    _Atomic bool ready;    /* the reader is about to begin */
    _Atomic bool go;       /* and the writer, too */
    _Atomic bool unlinked; /* the word in question */
    _Atomic bool done;     /* the writer has its answer */
    _Atomic bool freed;
    bool missed; /* the reader saw the word as it was before; reader only */
    bool named;  /* the scan found the name; writer only */
};
static struct round *rounds;

static int setup(void **state)
{
    (void)state;
    rounds = calloc(ROUNDS, sizeof(*rounds));
    assert_non_null(rounds);
    assert_int_equal(bfti_threads_create(bfti_env_system(), &threads), BFT_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bfti_threads_destroy(threads);
    free(rounds);
    return 0;
}

static void wait_for(_Atomic bool *flag)
{
    for (int i = 1; !atomic_load_explicit(flag, memory_order_acquire); i++)
        if (i % 1000 == 0)
            sched_yield();
}

/* Now before, now after the other thread: a few steps of nothing. */
static void stagger(int i)
{
    static _Atomic int nothing;

    for (int n = i % 61 * 8; n > 0; n--)
        (void)atomic_load_explicit(&nothing, memory_order_relaxed);
}

/*
 * Stores to lines that the other thread has just written: they wait in the
 * processor, the reader's name behind them, while its second look overtakes
 * them all.
 */
static struct {
    _Alignas(64) _Atomic int word;
} line[12];

static void lines_touch(int i)
{
    for (size_t n = 0; n < sizeof(line) / sizeof(line[0]); n++)
        atomic_store_explicit(&line[n].word, i, memory_order_relaxed);
}

static bool look(_Atomic bool *flag)
{
    /* relaxed, as the order in question is not the load's own. */
    return atomic_load_explicit(flag, memory_order_relaxed);
}

static void *name_and_look(void *arg)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &rounds[i];

        atomic_store_explicit(&round->ready, true, memory_order_release);
        wait_for(&round->go);
        stagger(i);
        lines_touch(i);
        bfti_hazard_set(rec, BFTI_HAZARD_TOP, PLACE);
        round->missed = !look(&round->unlinked);
        wait_for(&round->done);
        bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
    }
    return NULL;
}

static void a_scan_or_a_second_look_sees_the_other(void **state)
{
    pthread_t thread;
    unsigned both = 0;
    unsigned named = 0;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, name_and_look, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &rounds[i];
        uint64_t place = PLACE;

        lines_touch(i);
        wait_for(&round->ready);
        atomic_store_explicit(&round->go, true, memory_order_release);
        stagger(i / 61);
        atomic_store_explicit(&round->unlinked, true, memory_order_relaxed);
        bfti_hazard_unnamed(threads, &place, 1);
        round->named = place != 0;
        atomic_store_explicit(&round->done, true, memory_order_release);
    }
    pthread_join(thread, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        both += rounds[i].missed && !rounds[i].named;
        named += rounds[i].named;
    }
    print_message("%u of %d scans found the name\n", named, ROUNDS);
    assert_int_equal(both, 0);
}

static void *read_and_look(void *arg)
{
    struct bfti_rec *rec = bfti_rec_current(threads);

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &rounds[i];

        atomic_store_explicit(&round->ready, true, memory_order_release);
        wait_for(&round->go);
        stagger(i);
        lines_touch(i);
        bfti_read_begin(rec);
        /* Missed: we are using what is being unlinked. */
        if (!look(&round->unlinked))
            for (int n = 0; n < LOOKS; n++)
                round->missed |= look(&round->freed);
        bfti_read_end(rec);
    }
    return NULL;
}

static void a_wait_or_a_section_sees_the_other(void **state)
{
    pthread_t thread;
    unsigned both = 0;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, read_and_look, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct round *round = &rounds[i];

        lines_touch(i);
        wait_for(&round->ready);
        atomic_store_explicit(&round->go, true, memory_order_release);
        stagger(i / 61);
        atomic_store_explicit(&round->unlinked, true, memory_order_relaxed);
        bfti_read_wait(threads);
        atomic_store_explicit(&round->freed, true, memory_order_relaxed);
    }
    pthread_join(thread, NULL);
    for (int i = 0; i < ROUNDS; i++)
        both += rounds[i].missed;
    assert_int_equal(both, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_scan_or_a_second_look_sees_the_other,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_wait_or_a_section_sees_the_other,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
