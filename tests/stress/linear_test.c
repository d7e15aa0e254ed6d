/*
 * What concurrent threads are told of a database is linearizable, while its
 * leaves split, merge, leave memory and come back: a thousand recorded histories,
 * with snapshots and transactions, each checked (linear_check.h; what each operation is taken for: linear_run.h).
 * And what survives a crash in the middle of one is, too.
 *
 * BFT_SEED repeats what the threads do, not who comes when: so a history that
 * fails is printed.  BFT_HISTORIES is how many are made, BFT_KIND the name of the
 * only kind of database that is tried.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "linear_run.h"
#include "random.h"
#include "tally.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifdef SLOW
enum { HISTORIES = 150 };
#else
enum { HISTORIES = 1100 };
#endif

/* Databases, each for its share of the histories. */
static const struct linear_options kinds[] = {
    {.name = "one leaf",
     .pasts = 30,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 100,
     .keys = 4,
     .yield = 2},
    {.name = "tiny leaves",
     .pasts = 30,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 100,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .yield = 3},
    {.name = "without threads",
     .pasts = 30,
     .backend = ENGINE_MEMORY,
     .no_threads = true,
     .leaf_bytes = 512,
     .promote_percent = 50,
     .keys = 10,
     .others = 6,
     .others_bytes = 100,
     .yield = 4},
    {.name = "small neighbours",
     .pasts = 25,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 2048,
     .promote_percent = 100,
     .keys = 16,
     .others = 12,
     .others_bytes = 200,
     .yield = 4},
    {.name = "larger than memory",
     .pasts = 30,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 1024,
     .promote_percent = 30,
     .keys = 8,
     .others = 30,
     .others_bytes = 120,
     .ballast = 1500,
     .yield = 8},
    {.name = "records that come back one by one",
     .pasts = 25,
     .backend = ENGINE_SIM,
     .leaf_bytes = 2048,
     .promote_percent = 100,
     .keys = 12,
     .others = 8,
     .others_bytes = 120,
     .ballast = 1500,
     .crowded = true,
     .yield = 4},
    {.name = "large values",
     .pasts = 30,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 6,
     .others = 3,
     .others_bytes = 100,
     .large = 3,
     .yield = 3},
    {.name = "truncation and renaming",
     .pasts = 20,
     .brief = true,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .yield = 3,
     .truncates = true,
     .renames = true},
    {.name = "truncation without threads",
     .pasts = 20,
     .brief = true,
     .backend = ENGINE_SIM,
     .no_threads = true,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 6,
     .others = 4,
     .others_bytes = 60,
     .large = 6,
     .yield = 2,
     .truncates = true},
    {.name = "killed",
     .pasts = 25,
     .backend = ENGINE_SIM,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .large = 8,
     .yield = 4,
     .renames = true,
     .crashes = true,
     .policy = BFTI_SIM_KILL},
    {.name = "power lost, all that waited too",
     .pasts = 25,
     .backend = ENGINE_SIM,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .yield = 4,
     .crashes = true,
     .policy = BFTI_SIM_DROP},
    {.name = "power lost, torn",
     .pasts = 20,
     .brief = true,
     .backend = ENGINE_SIM,
     .no_threads = true,
     .leaf_bytes = 1024,
     .promote_percent = 60,
     .keys = 10,
     .others = 8,
     .others_bytes = 90,
     .large = 8,
     .yield = 4,
     .truncates = true,
     .crashes = true,
     .policy = BFTI_SIM_TORN},
    {.name = "posix",
     .pasts = 30,
     .backend = ENGINE_POSIX,
     .leaf_bytes = 512,
     .promote_percent = 30,
     .keys = 8,
     .others = 6,
     .others_bytes = 100,
     .large = 10,
     .yield = 6},
    {.name = "direct",
     .backend = ENGINE_DIRECT,
     .leaf_bytes = 512,
     .promote_percent = 100,
     .keys = 8,
     .others = 6,
     .others_bytes = 100,
     .yield = 6},
    {.name = "uring",
     .pasts = 20,
     .backend = ENGINE_URING,
     .leaf_bytes = 512,
     .promote_percent = 100,
     .keys = 8,
     .others = 6,
     .others_bytes = 100,
     .yield = 6},
    {.name = "bulk loads",
     .pasts = 10,
     .brief = true,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .large = 8,
     .yield = 3,
     .truncates = true,
     .loads = true},
    {.name = "bulk loads, power lost",
     .pasts = 10,
     .brief = true,
     .backend = ENGINE_SIM,
     .no_threads = true,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 8,
     .others = 4,
     .others_bytes = 60,
     .yield = 20,
     .truncates = true,
     .loads = true,
     .crashes = true,
     .policy = BFTI_SIM_TORN},
    {.name = "snapshots and transactions, mostly",
     .pasts = 75,
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 60,
     .keys = 6,
     .others = 3,
     .others_bytes = 100,
     .large = 8,
     .yield = 4},
    {.name = "nobody gives way",
     .backend = ENGINE_MEMORY,
     .leaf_bytes = 512,
     .promote_percent = 100,
     .keys = 3,
     .others = 3,
     .others_bytes = 60},
};
enum {
    KINDS = sizeof(kinds) / sizeof(kinds[0]),
    UNDECIDED_SHARE = 16, /* of a kind's histories, and so many more: at most */
    UNDECIDED_MORE = 4,
    LOADS_TRIED = 20, /* times as many histories, until one has a load */
};

/* What must have happened beneath the histories. */
struct happened {
    uint64_t histories, undecided, recorded, overlaps, tried;
    uint64_t splits, leaf_merges, merges, freezes, evictions, promotions;
    uint64_t checkpoints;
    uint64_t snapshots, commits, isolated, conflicts, aborts;
    uint64_t truncated, busy, loaded;
};

static void add(struct happened *h, struct linear_run *run)
{
    bft_stats stats = engine_stats(run->f);
    h->recorded += run->recorded;
    h->overlaps += run->overlaps;
    h->splits += stats.splits;
    h->leaf_merges += stats.leaf_merges;
    h->merges += stats.merges;
    h->freezes += stats.freezes;
    h->evictions += stats.evictions_clean + stats.evictions_dirty;
    h->promotions += stats.promotions;
    h->checkpoints += stats.checkpoints;
    h->snapshots += atomic_load(&run->snapshots);
    h->commits += atomic_load(&run->commits);
    h->isolated += atomic_load(&run->isolated);
    h->conflicts += atomic_load(&run->conflicts);
    h->aborts += atomic_load(&run->aborts);
    h->truncated += atomic_load(&run->truncated);
    h->busy += atomic_load(&run->busy);
    h->loaded += atomic_load(&run->loaded);
}

static void check(const struct linear_run *run, unsigned number,
                  const struct linear_history *h, const char *what,
                  struct happened *happened)
{
    struct linear_report *report = calloc(1, sizeof(*report));
    enum linear_verdict verdict;
    assert_non_null(report);
    verdict = linear_check(h, report);
    happened->tried += report->tried;
    if (verdict == LINEAR_NO) {
        linear_print(h, report);
        fail_msg("%s, history %u%s: no order explains it", run->o.name, number,
                 what);
    }
    if (verdict == LINEAR_UNDECIDED)
        happened->undecided++;
    else
        happened->histories++;
    free(report);
}

/* In a kind that loads there is one load at least: few histories come to it. */
static bool goes_on(const struct linear_run *run, unsigned i,
                    unsigned histories, const struct happened *happened)
{
    return i < histories + happened->undecided ||
           (run->o.loads && i < LOADS_TRIED * histories &&
            atomic_load(&run->loaded) == 0);
}

/* In the stead of one that has too many orders to try, as when all threads of a
 * busy machine stand still within batches, another is run. */
static void run_kind(const struct linear_options *kind, unsigned histories,
                     struct happened *happened)
{
    struct linear_run *run = linear_run_open(kind, random_next());
    for (unsigned i = 0; goes_on(run, i, histories, happened); i++) {
        struct linear_history h, crashed;
        unsigned threads = 2 + (unsigned)random_below(LINEAR_THREADS - 1);
        linear_init(&h);
        linear_init(&crashed);
        linear_run_once(run, threads, &h, &crashed);
        check(run, i, &h, "", happened);
        if (kind->crashes)
            check(run, i, &crashed, ", crashed", happened);
        linear_free(&h);
        linear_free(&crashed);
        assert_true(happened->undecided <=
                    UNDECIDED_MORE + histories / UNDECIDED_SHARE);
    }
    add(happened, run);
    linear_run_close(run);
}

static void print_happened(const char *name, const struct happened *h)
{
    print_message(
        "%s: %llu histories, %llu more not decided, %llu operations, %llu "
        "overlapping, %llu configurations\n",
        name, (unsigned long long)h->histories,
        (unsigned long long)h->undecided, (unsigned long long)h->recorded,
        (unsigned long long)h->overlaps, (unsigned long long)h->tried);
    print_message(
        "  %llu splits, %llu leaves absorbed, %llu merges, %llu "
        "freezes, %llu evictions, %llu promotions, %llu "
        "checkpoints\n",
        (unsigned long long)h->splits, (unsigned long long)h->leaf_merges,
        (unsigned long long)h->merges, (unsigned long long)h->freezes,
        (unsigned long long)h->evictions, (unsigned long long)h->promotions,
        (unsigned long long)h->checkpoints);
    print_message(
        "  %llu snapshots, %llu serializable commits, %llu isolated, %llu "
        "conflicts, %llu aborts; %llu truncations, %llu refused, %llu loads\n",
        (unsigned long long)h->snapshots, (unsigned long long)h->commits,
        (unsigned long long)h->isolated, (unsigned long long)h->conflicts,
        (unsigned long long)h->aborts, (unsigned long long)h->truncated,
        (unsigned long long)h->busy, (unsigned long long)h->loaded);
}

static void sum(struct happened *all, const struct happened *h)
{
    all->histories += h->histories;
    all->undecided += h->undecided;
    all->recorded += h->recorded;
    all->overlaps += h->overlaps;
    all->tried += h->tried;
    all->splits += h->splits;
    all->leaf_merges += h->leaf_merges;
    all->merges += h->merges;
    all->freezes += h->freezes;
    all->evictions += h->evictions;
    all->promotions += h->promotions;
    all->checkpoints += h->checkpoints;
    all->snapshots += h->snapshots;
    all->commits += h->commits;
    all->isolated += h->isolated;
    all->conflicts += h->conflicts;
    all->aborts += h->aborts;
    all->truncated += h->truncated;
    all->busy += h->busy;
    all->loaded += h->loaded;
}

static void what_threads_are_told_is_linearizable(void **state)
{
    /* No other thread runs yet. */
    const char *text =
        getenv("BFT_HISTORIES");           /* NOLINT(concurrency-mt-unsafe) */
    const char *only = getenv("BFT_KIND"); /* NOLINT(concurrency-mt-unsafe) */
    unsigned histories = text ? (unsigned)strtoul(text, NULL, 10) : HISTORIES;
    struct happened all;
    (void)state;
    memset(&all, 0, sizeof(all));
    random_start();
    for (unsigned i = 0; i < KINDS; i++) {
        struct happened h;
        if (only && strcmp(only, kinds[i].name) != 0)
            continue;
        memset(&h, 0, sizeof(h));
        run_kind(&kinds[i], (histories + KINDS - 1) / KINDS, &h);
        print_happened(kinds[i].name, &h);
        sum(&all, &h);
    }
    print_happened("all", &all);
    tally(TALLY_HISTORIES, all.histories);
    if (only)
        return;
    assert_true(all.histories >= histories);
    assert_true(all.overlaps > all.recorded / 10);
    assert_true(all.splits && all.leaf_merges && all.merges && all.freezes);
    assert_true(all.evictions && all.promotions && all.checkpoints);
    assert_true(all.snapshots > histories && all.commits > histories);
    assert_true(all.isolated > histories / 4 && all.conflicts && all.aborts);
    assert_true(all.truncated && all.busy && all.loaded > histories / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_threads_are_told_is_linearizable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
