/*
 * What our tests use of cmocka, for builds where it is not to be had: without
 * threads, WebAssembly among them.  That has no jumps out of a failed test, so
 * a failure ends the program, and run_tests.mjs starts it once for each test:
 *
 *   BFT_TEST unset    it prints the names of its tests, each behind "test "
 *   BFT_TEST=NAME     it runs that one; its exit status is 0, 1 when the test
 *                     failed, 77 when it was skipped
 */
#ifndef WASM_CMOCKA_H
#define WASM_CMOCKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdnoreturn.h>
#include <string.h>

typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
    CMFixtureFunction setup, teardown; /* may be NULL */
};

#define cmocka_unit_test_setup_teardown(run, before, after)                 \
    {                                                                       \
        .name = #run, .test = (run), .setup = (before), .teardown = (after) \
    }
#define cmocka_unit_test_teardown(test, teardown) \
    cmocka_unit_test_setup_teardown(test, NULL, teardown)
#define cmocka_unit_test(test) cmocka_unit_test_setup_teardown(test, NULL, NULL)

/* Run the test that was asked for if it is one of the group, or print names: of
 * a group with a name, GROUP/TEST.  0, or it does not return. */
int wasm_run_group(const char *group, const struct CMUnitTest *tests,
                   size_t count, CMFixtureFunction setup,
                   CMFixtureFunction teardown);
#define cmocka_run_group_tests_name(name, tests, setup, teardown)          \
    wasm_run_group(name, tests, sizeof(tests) / sizeof((tests)[0]), setup, \
                   teardown)
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run_group_tests_name("", tests, setup, teardown)

/* --- ends ----------------------------------------------------------------- */

noreturn void _fail(const char *file, int line);
noreturn void wasm_skip(const char *file, int line);
#define fail()             _fail(__FILE__, __LINE__)
#define skip()             wasm_skip(__FILE__, __LINE__)
#define print_message(...) ((void)printf(__VA_ARGS__))
#define print_error(...)   ((void)fprintf(stderr, __VA_ARGS__))
#define fail_msg(...)              \
    do {                           \
        print_error(__VA_ARGS__);  \
        print_error("\n");         \
        _fail(__FILE__, __LINE__); \
    } while (0)

/* --- asserts --------------------------------------------------------------- */

/* All integers are compared as 64 bits, without a sign. */
void wasm_assert(bool holds, const char *what, const char *file, int line);
void wasm_assert_int(uint64_t a, uint64_t b, bool equal, const char *file,
                     int line);
void wasm_assert_range(uint64_t value, uint64_t low, uint64_t high,
                       const char *file, int line);
void wasm_assert_string(const char *a, const char *b, bool equal,
                        const char *file, int line);
void wasm_assert_memory(const void *a, const void *b, size_t len,
                        const char *file, int line);

#define WASM_HOLDS(condition) \
    wasm_assert((condition), #condition, __FILE__, __LINE__)
#define assert_true(condition)   WASM_HOLDS(!!(condition))
#define assert_false(condition)  WASM_HOLDS(!(condition))
#define assert_null(pointer)     WASM_HOLDS((pointer) == NULL)
#define assert_non_null(pointer) WASM_HOLDS((pointer) != NULL)
#define assert_ptr_equal(a, b) \
    WASM_HOLDS((const void *)(a) == (const void *)(b))
#define assert_ptr_not_equal(a, b) \
    WASM_HOLDS((const void *)(a) != (const void *)(b))
#define assert_int_equal(a, b) \
    wasm_assert_int((uint64_t)(a), (uint64_t)(b), true, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) \
    wasm_assert_int((uint64_t)(a), (uint64_t)(b), false, __FILE__, __LINE__)
#define assert_in_range(value, low, high)                                   \
    wasm_assert_range((uint64_t)(value), (uint64_t)(low), (uint64_t)(high), \
                      __FILE__, __LINE__)
#define assert_string_equal(a, b) \
    wasm_assert_string(a, b, true, __FILE__, __LINE__)
#define assert_string_not_equal(a, b) \
    wasm_assert_string(a, b, false, __FILE__, __LINE__)
#define assert_memory_equal(a, b, len) \
    wasm_assert_memory(a, b, len, __FILE__, __LINE__)

#endif
