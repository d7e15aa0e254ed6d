/*
 * The schedule that simulations of the whole engine stand on: its threads are
 * threads to the library, all follows from the seed, and what never ends is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/threads.h"
#include "sched.h"

enum { WORKERS = 4, TURNS = 200 };

struct play {
    struct sched *s;
    const struct bfti_env *env;
    struct bfti_threads *threads;
    struct bfti_mutex mutex;
    unsigned inside, most_inside, done, met;
    _Atomic uint32_t word;
    uint64_t log; /* who came when */
    void (*worker)(struct play *p);
    unsigned wrong;
};

static void worker_main(void *arg)
{
    struct play *p = arg;

    p->worker(p);
    p->done++;
}

static void start_and_join(void *arg)
{
    struct play *p = arg;
    struct bfti_thread *thread[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++)
        if (p->env->thread_start(p->env->ctx, worker_main, p, &thread[i]) !=
            BFT_OK)
            sched_fail(p->s, "no thread");
    for (unsigned i = 0; i < WORKERS; i++)
        p->env->thread_join(p->env->ctx, thread[i]);
}

/* A run of WORKER by WORKERS threads; false: it did not end, TEXT says why. */
static bool play(struct play *p, void (*worker)(struct play *p),
                 const struct sched_options *options, char *text, size_t len)
{
    bool ended;

    memset(p, 0, sizeof(*p));
    p->s = sched_make(options);
    p->env = sched_env(p->s);
    p->worker = worker;
    assert_int_equal(BFT_OK, bfti_threads_create(p->env, &p->threads));
    ended = sched_run(p->s, start_and_join, p);
    if (text)
        snprintf(text, len, "%s", sched_failure(p->s));
    return ended;
}

static struct sched_counts play_end(struct play *p)
{
    struct sched_counts counts = sched_counts(p->s);

    bfti_threads_destroy(p->threads);
    sched_free(p->s);
    return counts;
}

static void must_end(struct play *p, void (*worker)(struct play *p),
                     uint64_t seed)
{
    char text[400];
    struct sched_options options = {.seed = seed};

    if (!play(p, worker, &options, text, sizeof(text)))
        fail_msg("seed %llu: %s", (unsigned long long)seed, text);
    assert_int_equal(WORKERS, p->done);
    assert_int_equal(0, p->wrong);
}

/* --- turns ------------------------------------------------------------------- */

static void take_the_mutex(struct play *p)
{
    for (unsigned i = 0; i < TURNS; i++) {
        bfti_mutex_lock(p->env, &p->mutex);
        p->wrong += p->inside++ != 0;
        p->log = p->log * 31 + sched_self(p->s);
        sched_step(p->s, "inside");
        p->inside--;
        bfti_mutex_unlock(p->env, &p->mutex);
    }
}

static void the_mutex_excludes_and_is_fought_for(void **state)
{
    struct play p;
    struct sched_counts counts;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        must_end(&p, take_the_mutex, seed);
        counts = play_end(&p);
        assert_true(counts.switches > WORKERS);
    }
}

static void come_and_go(struct play *p)
{
    for (unsigned i = 0; i < TURNS; i++) {
        unsigned inside = ++p->inside;

        p->most_inside = inside > p->most_inside ? inside : p->most_inside;
        sched_step(p->s, "inside");
        p->inside--;
    }
}

static void without_a_mutex_threads_meet(void **state)
{
    struct play p;

    (void)state;
    must_end(&p, come_and_go, 1);
    assert_true(p.most_inside > 1);
    (void)play_end(&p);
}

static void a_seed_repeats_and_another_does_not(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct play p[3];
        struct sched_counts counts[3];

        for (unsigned i = 0; i < 3; i++) {
            must_end(&p[i], take_the_mutex, i < 2 ? seed : seed + 1000);
            counts[i] = play_end(&p[i]);
        }
        assert_int_equal(p[0].log, p[1].log);
        assert_memory_equal(&counts[0], &counts[1], sizeof(counts[0]));
        assert_true(counts[0].trace != counts[2].trace);
    }
}

/* --- waiting, and the clock ---------------------------------------------------- */

static void meet(struct play *p)
{
    if (++p->met == WORKERS) {
        atomic_store(&p->word, 1);
        p->env->wake(p->env->ctx, &p->word, true);
    }
    while (atomic_load(&p->word) == 0)
        p->env->wait(p->env->ctx, &p->word, 0, UINT64_MAX);
    p->wrong += p->met != WORKERS;
}

static void who_waits_is_woken(void **state)
{
    struct play p;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        must_end(&p, meet, seed);
        (void)play_end(&p);
    }
}

static void forget_to_wake(struct play *p)
{
    if (++p->met == WORKERS)
        atomic_store(&p->word, 1);
    while (atomic_load(&p->word) == 0)
        p->env->wait(p->env->ctx, &p->word, 0, UINT64_MAX);
}

static void a_lost_wake_is_told(void **state)
{
    struct sched_options options = {.seed = 3};
    struct play p;
    char text[400];

    (void)state;
    assert_false(play(&p, forget_to_wake, &options, text, sizeof(text)));
    assert_non_null(strstr(text, "wait for each other"));
    assert_non_null(strstr(text, "at wait"));
    /* Its threads are left, with the records that they have. */
    (void)play_end(&p);
}

static void spin(struct play *p)
{
    while (p->wrong == 0)
        p->env->yield(p->env->ctx);
}

static void what_spins_for_ever_is_told(void **state)
{
    struct sched_options options = {.seed = 3, .points_max = 10000};
    struct play p;
    char text[400];

    (void)state;
    assert_false(play(&p, spin, &options, text, sizeof(text)));
    assert_non_null(strstr(text, "no end"));
    (void)play_end(&p);
}

static void sleep_an_hour(struct play *p)
{
    const uint64_t hour = UINT64_C(3600) * 1000000000;
    uint64_t begun = p->env->now_ns(p->env->ctx), slept;
    _Atomic uint32_t never = 0;

    do {
        p->env->wait(p->env->ctx, &never, 0, hour);
        slept = p->env->now_ns(p->env->ctx) - begun;
    } while (slept < hour);
    p->wrong += slept > 2 * hour;
}

static void an_hour_passes_at_once(void **state)
{
    struct play p;
    struct sched_counts counts;

    (void)state;
    must_end(&p, sleep_an_hour, 5);
    counts = play_end(&p);
    assert_true(counts.points < 10000);
}

/* --- what threads have of their own ---------------------------------------------- */

static void keep_own(struct play *p)
{
    struct bfti_rec *rec = bfti_rec_current(p->threads);
    char text[40], now[40];

    snprintf(text, sizeof(text), "of thread %u", sched_self(p->s));
    for (unsigned i = 0; i < TURNS; i++) {
        (void)bfti_fail(BFT_IO, "%s", text);
        bfti_hazard_set(rec, BFTI_HAZARD_TOP, sched_self(p->s) + 1);
        sched_step(p->s, "own");
        (void)bft_last_error(now, sizeof(now));
        p->wrong += strcmp(text, now) != 0;
        p->wrong += bfti_rec_current(p->threads) != rec;
        p->wrong +=
            atomic_load(&rec->hazard[BFTI_HAZARD_TOP]) != sched_self(p->s) + 1;
    }
}

static void each_thread_has_its_own_record_and_text(void **state)
{
    struct play p;
    struct bfti_rec *rec;
    uint64_t places[WORKERS];
    char text[40];

    (void)state;
    (void)bfti_fail(BFT_IO, "of the program");
    for (uint64_t seed = 0; seed < 20; seed++) {
        must_end(&p, keep_own, seed);
        (void)bft_last_error(text, sizeof(text));
        assert_string_equal("of the program", text);
        /* They have ended: what they named is named no more... */
        for (unsigned i = 0; i < WORKERS; i++)
            places[i] = i + 2;
        bfti_hazard_unnamed(p.threads, places, WORKERS);
        for (unsigned i = 0; i < WORKERS; i++)
            assert_int_equal(0, places[i]);
        /* ... and their records are free to be had. */
        rec = bfti_rec_current(p.threads);
        assert_non_null(rec);
        (void)play_end(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mutex_excludes_and_is_fought_for),
        cmocka_unit_test(without_a_mutex_threads_meet),
        cmocka_unit_test(a_seed_repeats_and_another_does_not),
        cmocka_unit_test(who_waits_is_woken),
        cmocka_unit_test(a_lost_wake_is_told),
        cmocka_unit_test(what_spins_for_ever_is_told),
        cmocka_unit_test(an_hour_passes_at_once),
        cmocka_unit_test(each_thread_has_its_own_record_and_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
