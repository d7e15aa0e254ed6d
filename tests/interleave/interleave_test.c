/*
 * The shortest plays of each protocol, with all their interleavings: README.md.
 *
 * BFT_PREEMPTIONS=N allows for N more than every run does.  BFT_TEST=PATTERN plays
 * the scenes with such names, BFT_SKIP=PATTERN the others.  BFT_SCHEDULE='...', as a
 * failure tells it, is that one run, with the fault of BFT_FAULT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "atomic_points.h"
#include "fileio/fault.h"
#include "scenes.h"
#include "stage.h"
#include "tally.h"

enum { SECONDS_MAX = 1200 }; /* of the search for what a guard is for */

/* --- what every run does ------------------------------------------------------- */

struct part {
    const struct scene *scene;
    unsigned players, preemptions;
    bool fine;
};

static const struct part parts[] = {
    {&scene_promote, 3, 2, false},    {&scene_promote, 3, 1, true},
    {&scene_promote, 2, 2, true},     {&scene_merge, 3, 2, false},
    {&scene_merge, 3, 1, true},       {&scene_merge, 2, 2, true},
    {&scene_log, 3, 2, false},        {&scene_log, 3, 1, true},
    {&scene_log, 2, 2, true},         {&scene_checkpoint, 3, 2, false},
    {&scene_checkpoint, 2, 2, false}, {&scene_checkpoint, 2, 1, true},
    {&scene_versions, 3, 2, false},   {&scene_versions, 2, 2, false},
    {&scene_versions, 3, 1, true},    {&scene_skew, 2, 2, false},
    {&scene_skew, 2, 1, true},        {&scene_range, 3, 1, false},
    {&scene_range, 2, 2, false},      {&scene_range, 2, 1, true},
    {&scene_both, 3, 1, false},
};

/* Scenes that a fault must not survive: the guard that it takes away. */
static const struct guard {
    const struct scene *scene;
    unsigned players;
    enum bfti_fault_number fault;
    const char *name;
} guards[] = {
#define GUARD(scene, players, name) \
    &scene_##scene, players, BFTI_FAULT_##name, #name
    {GUARD(promote, 3, PROMOTE_BLIND)},
    {GUARD(promote, 3, EVICTION_DROPS)},
    {GUARD(merge, 2, MERGE_BLIND)},
    {GUARD(log, 2, LOG_SLOTS_UNSEEN)},
    {GUARD(checkpoint, 2, REDO_TOO_LATE)},
    {GUARD(checkpoint, 3, GATHER_SKIPS_SPLIT)},
    {GUARD(versions, 3, BATCH_EARLY)},
    {GUARD(versions, 3, SNAPSHOT_NEWER)},
    {GUARD(versions, 3, SNAPSHOT_HASTY)},
    {GUARD(versions, 3, SNAPSHOT_UNSETTLED)},
    {GUARD(skew, 2, TXN_UNWATCHED)},
    {GUARD(both, 3, READS_HIDDEN)},
    {GUARD(range, 2, RANGE_UNSEEN)},
#undef GUARD
};

enum {
    PARTS = sizeof(parts) / sizeof(*parts),
    GUARDS = sizeof(guards) / sizeof(*guards),
};

static unsigned more_preemptions(void)
{
    const char *text = getenv("BFT_PREEMPTIONS");

    return text ? (unsigned)strtoul(text, NULL, 0) : 0;
}

static void tell(const struct exploration *e)
{
    print_message("%-10s %u threads, %u preemptions, %-6s %8llu interleavings "
                  "(%llu runs, %u lines, %u choices in one)\n",
                  e->scene->name, e->players, e->preemptions,
                  e->fine ? "fine" : "coarse",
                  (unsigned long long)(e->runs - e->redundant),
                  (unsigned long long)e->runs, e->shared, e->longest);
}

/* No other run after one that failed: its threads are left inside. */
static void must_hold(struct exploration *e)
{
    if (!explore(e)) {
        print_error("%s\n", e->failure);
        fflush(NULL);
        _exit(1);
    }
}

static void holds_in_every_interleaving(void **state)
{
    const struct scene *scene = *state;
    uint64_t sum = 0;

    for (size_t i = 0; i < PARTS; i++) {
        struct exploration e = {.scene = parts[i].scene,
                                .players = parts[i].players,
                                .preemptions =
                                    parts[i].preemptions + more_preemptions(),
                                .fine = parts[i].fine};

        if (parts[i].scene != scene)
            continue;
        must_hold(&e);
        assert_true(e.whole);
        tell(&e);
        sum += e.runs - e.redundant;
    }
    assert_true(sum > 0);
    tally(TALLY_INTERLEAVINGS, sum);
}

/* --- guards ------------------------------------------------------------------- */

/* With E's fault a run fails, by its end or by a crash: in a process of its own. */
static bool fails_in_a_child(struct exploration *e)
{
    int status = 0;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child == 0) {
        (void)alarm(SECONDS_MAX);
        if (explore(e))
            _exit(0);
        printf("%s: noticed after %llu runs: %s\n", e->scene->name,
               (unsigned long long)e->runs, e->failure);
        fflush(NULL);
        _exit(1);
    }
    assert_true(child > 0);
    assert_int_equal(child, waitpid(child, &status, 0));
    if (WIFEXITED(status))
        return WEXITSTATUS(status) == 1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void is_missed(void **state)
{
    const struct guard *guard = *state;
    struct exploration e = {.scene = guard->scene,
                            .players = guard->players,
                            .preemptions = 2,
                            .faults = BFTI_FAULT_BIT(guard->fault)};

    if (!fails_in_a_child(&e))
        fail_msg("%s: without the guard that %s takes away nothing failed",
                 guard->scene->name, guard->name);
    tally(TALLY_REMOVED, 1);
}

/* --- the search itself ------------------------------------------------------------ */

static unsigned met[8];
static uint32_t walked;
static _Atomic unsigned shared_sum;

static void open_walk(struct stage *st)
{
    (void)st;
    walked = 0;
}

/* Three steps, with a point between any two. */
static void walk(struct stage *st, unsigned thread)
{
    (void)st;
    walked = walked << 1 | thread;
    PARK("walk:first");
    walked = walked << 1 | thread;
    PARK("walk:second");
    walked = walked << 1 | thread;
}

static uint32_t walks[64];
static unsigned walk_count;

static void end_walk(struct stage *st)
{
    for (unsigned i = 0; i < walk_count; i++)
        if (walks[i] == walked)
            stage_fail(st, "the same walk twice");
    walks[walk_count++] = walked;
}

/* Of two threads with three steps each there are 6! / 3! / 3! = 20 orders, and four
 * preemptions in one at most: A, B, A, B, A, B. */
static void the_search_comes_to_each_order_once(void **state)
{
    static const struct scene scene = {.name = "walk",
                                       .open = open_walk,
                                       .play = {walk, walk},
                                       .end = end_walk};
    static const unsigned orders[] = {2, 6, 14, 18, 20, 20};

    (void)state;
    for (unsigned n = 0; n < sizeof(orders) / sizeof(*orders); n++) {
        struct exploration e = {
            .scene = &scene, .players = 2, .preemptions = n};

        walk_count = 0;
        must_hold(&e);
        assert_true(e.whole);
        assert_int_equal(orders[n], walk_count);
    }
}

static void open_sum(struct stage *st)
{
    (void)st;
    atomic_store(&shared_sum, 0);
}

static void add_one(struct stage *st, unsigned thread)
{
    (void)st, (void)thread;
    atomic_store(&shared_sum, atomic_load(&shared_sum) + 1);
}

static void end_sum(struct stage *st)
{
    (void)st;
    met[atomic_load(&shared_sum)]++;
}

static void a_fine_search_stops_between_atomic_operations(void **state)
{
    static const struct scene scene = {.name = "sum",
                                       .open = open_sum,
                                       .play = {add_one, add_one},
                                       .end = end_sum};
    struct exploration e = {
        .scene = &scene, .players = 2, .preemptions = 1, .fine = true};

    (void)state;
    memset(met, 0, sizeof(met));
    must_hold(&e);
    assert_int_equal(0, met[0]);
    assert_true(met[1] > 0);
    assert_true(met[2] > 0);
}

static struct bfti_mutex first, second;

static void take_both(struct stage *st, struct bfti_mutex *a,
                      struct bfti_mutex *b)
{
    bfti_mutex_lock(st->env, a);
    PARK("both:first");
    bfti_mutex_lock(st->env, b);
    bfti_mutex_unlock(st->env, b);
    bfti_mutex_unlock(st->env, a);
}

static void take_forward(struct stage *st, unsigned thread)
{
    (void)thread;
    take_both(st, &first, &second);
}

static void take_backward(struct stage *st, unsigned thread)
{
    (void)thread;
    take_both(st, &second, &first);
}

static void open_nothing(struct stage *st)
{
    (void)st;
}

static void keep_memory(struct stage *st, unsigned thread)
{
    (void)thread;
    st->own = bfti_alloc(st->env, 16);
}

static void what_waits_for_ever_and_what_leaks_is_told(void **state)
{
    static const struct scene waits = {.name = "deadlock",
                                       .open = open_nothing,
                                       .play = {take_forward, take_backward}};
    static const struct scene leaks = {
        .name = "leak", .open = open_nothing, .play = {keep_memory}};
    struct exploration e = {.scene = &waits, .players = 2, .preemptions = 0};

    (void)state;
    must_hold(&e); /* one after the other all is well */
    e.preemptions = 1;
    e.whole = false;
    assert_true(fails_in_a_child(&e));
    e = (struct exploration){.scene = &leaks, .players = 1};
    assert_true(fails_in_a_child(&e));
}

/* --- one run ------------------------------------------------------------------------ */

/* "SCENE/fine switches...": as tell_schedule() has it. */
static int play_schedule(const char *text)
{
    size_t len = strcspn(text, " "), name = strcspn(text, "/ ");
    struct exploration e = {
        .players = SCENE_THREADS, .schedule = text + len, .fine = name < len};

    for (size_t i = 0; i < PARTS; i++)
        if (strlen(parts[i].scene->name) == name &&
            strncmp(parts[i].scene->name, text, name) == 0)
            e.scene = parts[i].scene;
    if (e.scene == NULL) {
        fprintf(stderr, "BFT_SCHEDULE: no such scene\n");
        return 2;
    }
    must_hold(&e);
    printf("%.*s: holds, %llu points\n", (int)len, text,
           (unsigned long long)e.points);
    return 0;
}

/* --- all ------------------------------------------------------------------------------ */

static size_t list_scenes(struct CMUnitTest *test)
{
    size_t n = 0;

    for (size_t i = 0; i < PARTS; i++)
        if (i == 0 || parts[i].scene != parts[i - 1].scene)
            test[n++] = (struct CMUnitTest){
                .name = parts[i].scene->name,
                .test_func = holds_in_every_interleaving,
                /* NOLINTNEXTLINE(clang-diagnostic-cast-qual) */
                .initial_state = (void *)(uintptr_t)parts[i].scene};
    return n;
}

static size_t list_guards(struct CMUnitTest *test)
{
    static char names[GUARDS][64];

    for (size_t i = 0; i < GUARDS; i++) {
        snprintf(names[i], sizeof(names[i]), "%s notices %s",
                 guards[i].scene->name, guards[i].name);
        test[i] =
            (struct CMUnitTest){.name = names[i],
                                .test_func = is_missed,
                                .initial_state = (void *)(uintptr_t)&guards[i]};
    }
    return GUARDS;
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        cmocka_unit_test(the_search_comes_to_each_order_once),
        cmocka_unit_test(a_fine_search_stops_between_atomic_operations),
        cmocka_unit_test(what_waits_for_ever_and_what_leaks_is_told),
    };
    static struct CMUnitTest tests[PARTS + GUARDS + 3];
    const char *schedule = getenv("BFT_SCHEDULE");
    size_t n = 3;

    if (schedule)
        return play_schedule(schedule);
    memcpy(tests, own, sizeof(own));
    n += list_scenes(tests + n);
    n += list_guards(tests + n);
    return _cmocka_run_group_tests("interleave", tests, n, NULL, NULL);
}
