/*
 * What cmocka.h declares.
 */
#include "cmocka.h"

#include <inttypes.h>
#include <stdlib.h>

enum { SKIPPED = 77 };

/* --- running ---------------------------------------------------------------- */

/* The test that runs, and what it was given. */
static const struct CMUnitTest *running;
static void *given;

static int run(const struct CMUnitTest *test, CMFixtureFunction setup,
               CMFixtureFunction teardown)
{
    void *of_group = NULL;

    if (setup && setup(&of_group) != 0)
        fail_msg("the group's setup failed");
    given = of_group;
    if (test->setup && test->setup(&given) != 0)
        fail_msg("setup failed");
    running = test;
    test->test(&given);
    running = NULL;
    if (test->teardown && test->teardown(&given) != 0)
        fail_msg("teardown failed");
    if (teardown && teardown(&of_group) != 0)
        fail_msg("the group's teardown failed");
    return 0;
}

int wasm_run_group(const char *group, const struct CMUnitTest *tests,
                   size_t count, CMFixtureFunction setup,
                   CMFixtureFunction teardown)
{
    const char *asked = getenv("BFT_TEST"), *between = *group ? "/" : "";
    char name[200];

    for (size_t i = 0; i < count; i++) {
        (void)snprintf(name, sizeof(name), "%s%s%s", group, between,
                       tests[i].name);
        if (!asked)
            printf("test %s\n", name);
        else if (strcmp(asked, name) == 0)
            return run(&tests[i], setup, teardown);
    }
    return 0;
}

/* --- ends ------------------------------------------------------------------- */

void _fail(const char *file, int line)
{
    const struct CMUnitTest *test = running;

    print_error("%s:%d: failed\n", file, line);
    /* Teardowns say how to have the failure again. */
    running = NULL;
    if (test && test->teardown)
        (void)test->teardown(&given);
    exit(EXIT_FAILURE);
}

void wasm_skip(const char *file, int line)
{
    print_message("%s:%d: skipped\n", file, line);
    exit(SKIPPED);
}

/* --- asserts ---------------------------------------------------------------- */

void wasm_assert(bool holds, const char *what, const char *file, int line)
{
    if (holds)
        return;
    print_error("%s\n", what);
    _fail(file, line);
}

void wasm_assert_int(uint64_t a, uint64_t b, bool equal, const char *file,
                     int line)
{
    if ((a == b) == equal)
        return;
    print_error("%#" PRIx64 " %s %#" PRIx64 "\n", a, equal ? "!=" : "==", b);
    _fail(file, line);
}

void wasm_assert_range(uint64_t value, uint64_t low, uint64_t high,
                       const char *file, int line)
{
    if (low <= value && value <= high)
        return;
    print_error("%" PRIu64 " is not in %" PRIu64 "..%" PRIu64 "\n", value, low,
                high);
    _fail(file, line);
}

void wasm_assert_string(const char *a, const char *b, bool equal,
                        const char *file, int line)
{
    if ((strcmp(a, b) == 0) == equal)
        return;
    print_error("\"%s\" %s \"%s\"\n", a, equal ? "!=" : "==", b);
    _fail(file, line);
}

void wasm_assert_memory(const void *a, const void *b, size_t len,
                        const char *file, int line)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0; i < len; i++)
        if (x[i] != y[i]) {
            print_error("byte %zu of %zu: 0x%02x != 0x%02x\n", i, len, x[i],
                        y[i]);
            _fail(file, line);
        }
}
