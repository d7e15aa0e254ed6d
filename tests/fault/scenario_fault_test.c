/*
 * Eight things that are done with a database, each with every call of the disk in
 * turn made to fail, and every allocation, once or from then on; and with two of
 * them at random.  What failed is told, and changed all or nothing; then all is
 * well again, the handle reads on, and writes if it can; what was acknowledged is
 * there when the database is opened again, also after a loss of power of what was
 * synced; it is sound, and no block of memory is lost.
 *
 * BFT_SEED: what the scenarios draw.  BFT_FAULT_PAIRS: so many pairs of failures.
 * BFT_FAULT_ONE, with BFT_SEED and BFT_TEST: what a life that failed says of itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fault_life.h"
#include "random.h"
#include "tally.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOW_BUILD 1
#endif
#endif

enum {
#ifdef SLOW_BUILD
    PARTS = 6, /* one failure in so many, drawn by the seed */
    PAIRS = 100,
#else
    PARTS = 1,
    PAIRS = 400,
#endif
    PAIRS_EACH = 50, /* with what one seed draws */
};

enum {
    MAKES = BFTI_SIM_CREATE | BFTI_SIM_MAKE_DIR,
    NAMES = MAKES | BFTI_SIM_OPEN | BFTI_SIM_REMOVE | BFTI_SIM_RENAME |
            BFTI_SIM_TRUNCATE | BFTI_SIM_PUNCH,
};

static const struct fault_kind any_call = {"call", BFTI_SIM_ALL,
                                           BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind full = {"write to a full disk",
                                       MAKES | BFTI_SIM_WRITE, BFTI_SIM_REFUSE,
                                       BFT_NO_SPACE};
static const struct fault_kind write_part = {"write in part", BFTI_SIM_WRITE,
                                             BFTI_SIM_PART, BFT_IO};
static const struct fault_kind full_part = {"write in part to a full disk",
                                            BFTI_SIM_WRITE, BFTI_SIM_PART,
                                            BFT_NO_SPACE};
static const struct fault_kind read_short = {"short read", BFTI_SIM_READ,
                                             BFTI_SIM_SHORT, BFT_OK};
static const struct fault_kind read_io = {"read", BFTI_SIM_READ,
                                          BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind write_io = {"write", BFTI_SIM_WRITE,
                                           BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind sync_io = {
    "sync", BFTI_SIM_SYNC | BFTI_SIM_SYNC_DIR, BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind name_io = {"open, rename or other call on names",
                                          NAMES, BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind map_io = {"map or question", BFTI_SIM_QUERY,
                                         BFTI_SIM_REFUSE, BFT_IO};
static const struct fault_kind memory = {"allocation", 0, BFTI_SIM_REFUSE,
                                         BFT_NO_MEMORY};

/* Of those that are refused with BFT_IO once, `any_call` has each. */
static const struct sweep {
    const struct fault_kind *kind;
    bool sticky;
} sweeps[] = {
    {&any_call, false},   {&full, false},     {&write_part, false},
    {&read_short, false}, {&memory, false},   {&any_call, true},
    {&full, true},        {&full_part, true}, {&read_short, true},
    {&read_io, true},     {&write_io, true},  {&sync_io, true},
    {&name_io, true},     {&map_io, true},    {&memory, true},
};
enum { SWEEPS = sizeof(sweeps) / sizeof(sweeps[0]) };

static uint64_t seed;

static int begin(void **state)
{
    (void)state;
    seed = random_start();
    return 0;
}

/* Say what repeats a life that failed. */
static int say_where(void **state)
{
    struct fault_shot shot[FAULT_SHOTS];
    const struct fault_base *base = fault_of_life(shot);
    (void)state;
    if (!base)
        return 0;
    print_error("BFT_SEED=%llu BFT_TEST=%s BFT_FAULT_ONE=\"%d",
                (unsigned long long)base->seed, base->scenario->name,
                base->map);
    for (unsigned i = 0; i < FAULT_SHOTS; i++)
        for (unsigned s = 0; s < SWEEPS && shot[i].kind; s++)
            if (sweeps[s].kind == shot[i].kind) {
                print_error(" %u %llu %d", s, (unsigned long long)shot[i].nth,
                            shot[i].sticky);
                break;
            }
    print_error("\": %s %s\n", shot[0].kind ? shot[0].kind->name : "nothing",
                shot[1].kind ? shot[1].kind->name : "");
    return 0;
}

/* How many there are to fail. */
static uint64_t calls_of(const struct fault_base *base,
                         const struct fault_kind *kind)
{
    uint64_t sum = 0;
    if (!kind->ops)
        return base->allocs;
    for (unsigned i = 0; i < sizeof(base->calls) / sizeof(*base->calls); i++)
        sum += kind->ops & 1u << i ? base->calls[i] : 0;
    return sum;
}

/* --- every one ------------------------------------------------------------------ */

static uint64_t sweep(struct fault_base *base, const struct sweep *which)
{
    uint64_t count = calls_of(base, which->kind), lives = 0;
    for (uint64_t n = 1 + random_below(PARTS); n <= count; n += PARTS) {
        struct fault_shot shot[FAULT_SHOTS] = {{which->kind, n, which->sticky}};
        assert_true(fault_live(base, shot)); /* it is as the one that was
                                                counted, up to there */
        lives++;
    }
    return lives;
}

/* TEXT: see say_where(). */
static void repeat(const struct fault_scenario *scenario, const char *text)
{
    struct fault_shot shot[FAULT_SHOTS] = {{NULL, 0, false}};
    char *rest;
    bool map = strtoul(text, &rest, 0);
    struct fault_base *base;
    for (unsigned i = 0; i < FAULT_SHOTS && *rest; i++) {
        size_t s = strtoul(rest, &rest, 0);
        assert_true(s < SWEEPS);
        shot[i].kind = sweeps[s].kind;
        shot[i].nth = strtoul(rest, &rest, 0);
        shot[i].sticky = strtoul(rest, &rest, 0);
    }
    base = fault_base_make(scenario, seed, map);
    fault_life_aloud = true;
    (void)fault_live(base, shot);
    fault_base_free(base);
}

static void every_failure_of(unsigned i)
{
    const struct fault_scenario *scenario = &fault_scenarios[i];
    const char *one = getenv("BFT_FAULT_ONE"); /* NOLINT */
    struct fault_base *base;
    uint64_t lives = 0;
    if (one) {
        repeat(scenario, one);
        return;
    }
    base = fault_base_make(scenario, seed, scenario->map);
    /* Of the first one a tenth has an image just before memory would be full: such
     * a life says nothing of pages that give way. */
    while (i == 0 && base->evictions == 0) {
        fault_base_free(base);
        base = fault_base_make(scenario, ++seed, scenario->map);
    }
    for (unsigned s = 0; s < SWEEPS; s++)
        lives += sweep(base, &sweeps[s]);
    print_message("           %s: %llu calls, %llu of them reads, %llu writes, "
                  "%llu allocations; %llu lives, %llu times space was lost\n",
                  scenario->name, (unsigned long long)calls_of(base, &any_call),
                  (unsigned long long)calls_of(base, &read_io),
                  (unsigned long long)calls_of(base, &write_io),
                  (unsigned long long)base->allocs, (unsigned long long)lives,
                  (unsigned long long)base->with_lost_space);
    tally(TALLY_FAULTS, lives);
    assert_true(calls_of(base, &any_call) > 50 && base->allocs > 20);
    fault_base_free(base);
}

static void work(void **state)
{
    (void)state;
    every_failure_of(0);
}

static void recovery(void **state)
{
    (void)state;
    every_failure_of(1);
}

static void load(void **state)
{
    (void)state;
    every_failure_of(2);
}

static void merge(void **state)
{
    (void)state;
    every_failure_of(3);
}

static void backup(void **state)
{
    (void)state;
    every_failure_of(4);
}

static void salvage(void **state)
{
    (void)state;
    every_failure_of(5);
}

static void ranges(void **state)
{
    (void)state;
    every_failure_of(6);
}

static void trees(void **state)
{
    (void)state;
    every_failure_of(7);
}

/* --- two of them ---------------------------------------------------------------- */

static struct fault_shot any_shot(const struct fault_base *base)
{
    const struct sweep *which;
    uint64_t count;
    do {
        which = &sweeps[random_below(SWEEPS)];
        count = calls_of(base, which->kind);
    } while (count == 0);
    return (struct fault_shot){which->kind, 1 + random_below(count),
                               random_below(2)};
}

static void two_failures_at_random(void **state)
{
    const char *text = getenv("BFT_FAULT_PAIRS"); /* NOLINT */
    unsigned pairs = text ? (unsigned)strtoul(text, NULL, 0) : PAIRS;
    (void)state;
    random_seed(seed);
    for (unsigned done = 0; done < pairs;) {
        const struct fault_scenario *scenario =
            &fault_scenarios[random_below(fault_scenario_count)];
        struct fault_base *base =
            fault_base_make(scenario, random_next(), random_below(2));
        for (unsigned i = 0; i < PAIRS_EACH && done < pairs; i++, done++) {
            struct fault_shot shot[FAULT_SHOTS];
            shot[0] = any_shot(base);
            do
                shot[1] = any_shot(base);
            while (!shot[0].kind->ops && !shot[1].kind->ops);
            (void)fault_live(base, shot);
        }
        fault_base_free(base);
    }
    tally(TALLY_FAULTS, pairs);
}

#define life_test(name) cmocka_unit_test_setup_teardown(name, begin, say_where)

int main(void)
{
    const struct CMUnitTest tests[] = {
        life_test(work),
        life_test(recovery),
        life_test(load),
        life_test(merge),
        life_test(backup),
        life_test(salvage),
        life_test(ranges),
        life_test(trees),
        life_test(two_failures_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
