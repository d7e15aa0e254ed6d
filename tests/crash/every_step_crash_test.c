/*
 * The engine on a disk that loses power, at each step of I/O of a life of 300
 * operations and with each of the policies: what engine_crash_test draws some of.
 * What is left is opened, verified and compared, lived in, crashed again and
 * compared again.  Where nothing waits for a sync all policies leave the same, which
 * is looked at once.
 *
 * BFT_SEED repeats a run, BFT_LIVES is how many lives there are at least, BFT_LIFE one
 * of them alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash_life.h"
#include "random.h"

enum { OPERATIONS = 300, IMAGES = 5000 };

#if defined(__SANITIZE_ADDRESS__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW_BUILD 1
#endif
#endif

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name); /* NOLINT(concurrency-mt-unsafe) */

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void a_crash_at_each_step_loses_nothing(void **state)
{
    struct crash_run run = {.seed = random_start(),
                            .lives = (unsigned)number_of("BFT_LIVES", 1),
                            .only = number_of("BFT_LIFE", UINT64_MAX),
                            .operations = OPERATIONS,
                            .wanted = IMAGES};

    (void)state;
#ifdef SLOW_BUILD
    skip(); /* minutes there, and engine_crash_test has of all kinds of steps */
#endif
    if (run.only != UINT64_MAX && run.only >= run.lives)
        run.lives = (unsigned)run.only + 1;
    (void)crash_run(&run);
    crash_run_print(&run);
    crash_run_free(&run);
    if (run.failure[0])
        fail_msg("%s", run.failure);
    assert_true(run.steps > OPERATIONS / 2);
    assert_true(run.points >= IMAGES || run.only != UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_at_each_step_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
