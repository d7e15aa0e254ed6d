/*
 * Which tests of a program run: with BFT_TEST=PATTERN in the environment those with
 * such names, with BFT_SKIP=PATTERN the others.  A pattern is cmocka's: * is any
 * text, ? a character.
 */
#include <stdlib.h>

#include <cmocka.h>

#if BFT_WITH_THREADS /* elsewhere wasm/stand_in.c asks, by whole names */
/* Before main: no test need know of it. */
__attribute__((constructor)) static void choose(void)
{
    const char *some = getenv("BFT_TEST");   /* NOLINT(concurrency-mt-unsafe) */
    const char *others = getenv("BFT_SKIP"); /* NOLINT(concurrency-mt-unsafe) */

    if (some != NULL)
        cmocka_set_test_filter(some);
    if (others != NULL)
        cmocka_set_skip_filter(others);
}
#endif
