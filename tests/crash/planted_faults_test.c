/*
 * Would the crash test notice?  Each fault that is planted in the library must
 * make it fail within so many images, and with none it passes.
 *
 * Needs a build with BFT_FAULTS; says so and skips otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "crash_life.h"
#include "fileio/fault.h"

enum { IMAGES = 2000 };

#ifdef BFT_FAULTS
static struct crash_run run_with(unsigned faults, bool ghosts)
{
    struct crash_run run = {.seed = (uint64_t)time(NULL),
                            .only = UINT64_MAX,
                            .lives = 100,
                            .wanted = UINT32_MAX,
                            .images_max = IMAGES,
                            .ghosts = ghosts};
    const char *seed = getenv("BFT_SEED");

    if (seed)
        run.seed = strtoull(seed, NULL, 0);
    print_message("BFT_SEED=%llu\n", (unsigned long long)run.seed);
    atomic_store(&bfti_fault, faults);
    (void)crash_run(&run);
    atomic_store(&bfti_fault, 0);
    crash_run_free(&run);
    return run;
}

static void check_caught(unsigned fault, bool ghosts)
{
    struct crash_run run = run_with(fault, ghosts);

    if (!run.failure[0])
        fail_msg("%u images, and nothing was noticed", run.images);
    print_message("noticed at image %u: %s\n", run.images, run.failure);
}
#else
static void check_caught(unsigned fault, bool ghosts)
{
    (void)fault, (void)ghosts;
    print_message("built without BFT_FAULTS: skipped\n");
    skip();
}
#endif

static void nothing_is_noticed_where_nothing_is_planted(void **state)
{
    (void)state;
#ifdef BFT_FAULTS
    struct crash_run run = run_with(0, false), ghosts = run_with(0, true);

    if (run.failure[0] || ghosts.failure[0])
        fail_msg("%s%s", run.failure, ghosts.failure);
#else
    skip();
#endif
}

static void a_superblock_before_its_extents_is_noticed(void **state)
{
    (void)state;
    check_caught(BFTI_FAULT_DATA_NOT_SYNCED, false);
}

static void a_log_that_is_not_synced_is_noticed(void **state)
{
    (void)state;
    check_caught(BFTI_FAULT_LOG_NOT_SYNCED, false);
}

static void a_frame_of_an_older_incarnation_is_noticed(void **state)
{
    (void)state;
    check_caught(BFTI_FAULT_OLD_INCARNATION, true);
}

static void a_torn_frame_is_noticed(void **state)
{
    (void)state;
    check_caught(BFTI_FAULT_TORN_FRAME, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_noticed_where_nothing_is_planted),
        cmocka_unit_test(a_superblock_before_its_extents_is_noticed),
        cmocka_unit_test(a_log_that_is_not_synced_is_noticed),
        cmocka_unit_test(a_frame_of_an_older_incarnation_is_noticed),
        cmocka_unit_test(a_torn_frame_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
