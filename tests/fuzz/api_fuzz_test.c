/*
 * Odd arguments among good ones: missing, empty, oversized, of another
 * database, of a dropped tree, of a closed handle.  Each call gives a status
 * that fits its arguments and changes nothing it should not; what is there in
 * the end is what the good calls made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api_fuzz.h"
#include "fuzz_inputs.h"

enum { ROUNDS = 100, CALLS = 1500 };

static void odd_arguments_get_a_status_and_change_nothing(void **state)
{
    (void)state;
    memset(&api_reached, 0, sizeof(api_reached));
    for (unsigned round = 0; fuzz_next(&round, ROUNDS, 1);)
        api_life(CALLS, NULL);
    printf("%u good calls, %u odd ones; invalid %u, too big %u, gone %u, "
           "exists %u, too small %u\n",
           api_reached.good, api_reached.odd, api_reached.of[-BFT_INVALID],
           api_reached.of[-BFT_TOO_BIG], api_reached.of[-BFT_GONE],
           api_reached.of[-BFT_EXISTS], api_reached.of[-BFT_TOO_SMALL]);
    printf("%u loads, %u merges, %u copies, %u commits of feeds; conflict %u, "
           "busy %u\n",
           api_reached.loads, api_reached.merges, api_reached.copies,
           api_reached.commits, api_reached.of[-BFT_CONFLICT],
           api_reached.of[-BFT_BUSY]);
    if (!fuzz_counts())
        return;
    assert_true(api_reached.good > ROUNDS * CALLS / 3);
    assert_true(api_reached.odd > ROUNDS * CALLS / 20);
    assert_true(api_reached.of[-BFT_INVALID] > ROUNDS * 20);
    assert_true(api_reached.of[-BFT_TOO_BIG] > ROUNDS * 10);
    assert_true(api_reached.of[-BFT_GONE] > ROUNDS / 5);
    assert_true(api_reached.of[-BFT_EXISTS] > ROUNDS);
    assert_true(api_reached.of[-BFT_TOO_SMALL] > ROUNDS);
    assert_true(api_reached.of[-BFT_CONFLICT] && api_reached.of[-BFT_BUSY]);
    assert_true(api_reached.loads && api_reached.merges && api_reached.copies);
    assert_true(api_reached.commits > ROUNDS);
}

/* Options with one or two odd fields: refused, or a database that works. */
static void odd_options_are_refused_or_work(void **state)
{
    (void)state;
    memset(&api_reached, 0, sizeof(api_reached));
    for (unsigned round = 0; fuzz_next(&round, 300, 2);) {
        bft_status status = fuzz_options();
        api_reached.good += status == BFT_OK;
        api_reached.odd += status != BFT_OK;
    }
    printf("%u opened, %u refused\n", api_reached.good, api_reached.odd);
    if (fuzz_counts())
        assert_true(api_reached.good > 30 && api_reached.odd > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_arguments_get_a_status_and_change_nothing),
        cmocka_unit_test(odd_options_are_refused_or_work),
    };
    fuzz_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
