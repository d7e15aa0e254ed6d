/*
 * The engine on a disk that loses power: at any step of random lives, and of
 * the recovery from that, what comes back verifies, has every acknowledged
 * commit, every batch whole, and is a prefix of the commits.
 *
 * BFT_SEED repeats a run, BFT_LIFE is one of its lives alone, BFT_IMAGES how many
 * different images are wanted of each test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "crash_life.h"

enum {
    LIVES = 100,
    IMAGES = 2000, /* every_step_crash_test has more; here lives are many */
    IMAGES_EACH = 40,
    GHOST_IMAGES = 600,
    COMPANY_IMAGES = 1000,
};

static void check(bool ghosts, bool company)
{
    struct crash_run run = {.seed = (uint64_t)time(NULL),
                            .only = UINT64_MAX,
                            .lives = LIVES,
                            .wanted = ghosts    ? GHOST_IMAGES
                                      : company ? COMPANY_IMAGES
                                                : IMAGES,
                            .each = ghosts || company ? 0 : IMAGES_EACH,
                            .ghosts = ghosts,
                            .company = company};
    const char *seed = getenv("BFT_SEED"), *only = getenv("BFT_LIFE");
    const char *images = getenv("BFT_IMAGES");
    bool fine;

    if (images) {
        run.wanted = (unsigned)strtoul(images, NULL, 0);
        run.each = 0;
    }
    if (seed)
        run.seed = strtoull(seed, NULL, 0);
    if (only)
        run.only = strtoull(only, NULL, 0);
    print_message("BFT_SEED=%llu\n", (unsigned long long)run.seed);
    fine = crash_run(&run);
    crash_run_print(&run);
    crash_run_free(&run);
    if (run.failure[0])
        fail_msg("%s", run.failure);
    if (!fine && !only)
        fail_msg("not images enough");
    if (!ghosts && !only && !images)
        assert_true(run.leaf_merges && run.deltas && run.promotions &&
                    run.evictions && run.past && run.leaves_moved);
}

static void no_crash_loses_what_was_acknowledged(void **state)
{
    (void)state;
    check(false, false);
}

static void frames_of_a_lost_tail_stay_lost(void **state)
{
    (void)state;
    check(true, false);
}

/* Writes between the steps of a checkpoint, whose cut they are behind. */
static void a_crash_between_a_checkpoint_and_its_writers(void **state)
{
    (void)state;
    check(false, true);
}

/* Lives that once showed a fault; what they draw changes with what there is to do. */
static void lives_that_showed_a_fault(void **state)
{
    static const struct {
        uint64_t seed, life;
    } saved[] = {{1795240601, 2}, {1795259410, 0}, {1795269618, 7}};

    (void)state;
    for (size_t i = 0; i < sizeof(saved) / sizeof(saved[0]); i++) {
        struct crash_run run = {.seed = saved[i].seed,
                                .only = saved[i].life,
                                .lives = (unsigned)saved[i].life + 1,
                                .wanted = 1};

        (void)crash_run(&run);
        assert_true(run.images > 0);
        crash_run_free(&run);
        if (run.failure[0])
            fail_msg("%s", run.failure);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_that_showed_a_fault),
        cmocka_unit_test(no_crash_loses_what_was_acknowledged),
        cmocka_unit_test(frames_of_a_lost_tail_stay_lost),
        cmocka_unit_test(a_crash_between_a_checkpoint_and_its_writers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
