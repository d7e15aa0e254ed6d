/*
 * The whole engine, its background threads included, on one thread in an order
 * that a seed decides, with crashes, failing I/O, full and slow disks: see
 * dst.h.  The seeds from 1 to 1,000, or BFT_SEEDS of them from one on that the
 * clock tells.
 *
 * BFT_SEED=N runs that one alone, and tells what happens in it; with BFT_SEEDS
 * it is the first of so many.  What the first seed draws is told, and what one
 * draws that fails; with BFT_DST_OPTIONS set what each of them does.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "dst.h"
#include "tally.h"

enum { SEEDS = 1000, REPEATED = 20 };

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* --- crashes of the program --------------------------------------------------- */

static void tell_and_die(int signal_number)
{
    const char *text = dst_under_way();
    ssize_t written = write(STDERR_FILENO, text, strlen(text));

    (void)written;
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

/* By each test: cmocka has handlers of its own, which would go on with what is
 * left. */
static void watch_for_crashes(void)
{
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = tell_and_die,
                               .sa_flags = SA_ONSTACK};

    assert_int_equal(0, sigaltstack(&alternate, NULL));
    assert_int_equal(0, sigaction(SIGABRT, &action, NULL));
    assert_int_equal(0, sigaction(SIGSEGV, &action, NULL));
}

/* --- seeds ---------------------------------------------------------------------- */

static uint64_t must_live(uint64_t seed, bool verbose, bool tell,
                          struct dst_counts *counts)
{
    struct dst_run run = {.seed = seed, .verbose = verbose, .counts = *counts};
    bool fine = dst_run(&run);

    if (fine && tell)
        print_message("%s\n", run.options);
    if (!fine) {
        print_error("%s\n", run.failure);
        fflush(NULL);
        if (run.over)
            _exit(1);
        fail();
    }
    *counts = run.counts;
    return run.trace;
}

/* Each failed once. */
static void seeds_that_failed_hold(void **state)
{
    static const uint64_t seeds[] = {
        /* After a bulk load's sync had failed, checkpoints went on for ever, into
         * a file that grew. */
        1882498376143674,
        /* What a failed creation had written of a superblock was damage. */
        462, /* a log that cannot grow: each write waited for half a minute */
        1882499520139195,
        /* So was, to verify, what a failed checkpoint had written. */
        1882499963687237,
    };
    struct dst_counts counts = {0};

    (void)state;
    watch_for_crashes();
    for (size_t i = 0; i < sizeof(seeds) / sizeof(*seeds); i++)
        (void)must_live(seeds[i], false, false, &counts);
}

static void seeds_hold_what_is_promised(void **state)
{
    struct dst_counts counts = {0};
    bool some = getenv("BFT_SEEDS") != NULL;
    bool tell = getenv("BFT_DST_OPTIONS") != NULL;
    uint64_t seeds = number_of("BFT_SEEDS", SEEDS);
    uint64_t first =
        number_of("BFT_SEED", some ? (uint64_t)time(NULL) << 20 : 1);

    (void)state;
    watch_for_crashes();
    if (getenv("BFT_SEED") && !some) {
        print_message("trace %016llx\n", (unsigned long long)must_live(
                                             first, true, true, &counts));
    } else {
        print_message("from BFT_SEED=%llu on\n", (unsigned long long)first);
        for (uint64_t i = 0; i < seeds; i++)
            (void)must_live(first + i, false, tell || i == 0, &counts);
    }
    dst_print(&counts);
    tally(TALLY_SEEDS, counts.seeds);
}

static void a_seed_repeats_and_another_does_not(void **state)
{
    struct dst_counts counts = {0}, again = {0};

    (void)state;
    watch_for_crashes();
    for (uint64_t seed = 1; seed <= REPEATED; seed++) {
        uint64_t trace = must_live(seed, false, false, &counts);

        assert_true(trace == must_live(seed, false, false, &again));
        assert_memory_equal(&counts, &again, sizeof(counts));
        assert_true(trace !=
                    must_live(seed + 1, false, false, &(struct dst_counts){0}));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_repeats_and_another_does_not),
        cmocka_unit_test(seeds_that_failed_hold),
        cmocka_unit_test(seeds_hold_what_is_promised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
