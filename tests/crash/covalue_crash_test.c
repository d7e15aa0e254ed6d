/*
 * The covalue store after a crash before any step of a workload.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "covalue_crash.h"

static void transactions_are_whole_after_a_crash(void **state)
{
    const char *said = every_crash_leaves_whole_transactions();

    (void)state;
    if (said != NULL)
        fail_msg("%s", said);
}

static void synced_transactions_survive_a_crash(void **state)
{
    const char *said = what_was_synced_survives_every_crash();

    (void)state;
    if (said != NULL)
        fail_msg("%s", said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transactions_are_whole_after_a_crash),
        cmocka_unit_test(synced_transactions_survive_a_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
