/*
 * The question: what becomes of the engine when the data outgrows its memory:
 * rates and latencies, what is read and written for each operation, how near the
 * cache comes to an ideal one, how large the file gets, and does memory really
 * stay within the budget?
 *
 * Each size of data is a process of its own, in a memory cgroup of the budget and
 * a little more, which holds the system's cache of its files too; where there is
 * none, or with --direct, files are read and written past that cache.  The
 * process notes its anonymous resident bytes with an empty database, loads in
 * bulk, and then runs one workload after the other, looking at
 * /proc/self/smaps_rollup all the while.
 */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/bftree_calls.h"
#include "support/cgroup.h"
#include "support/command.h"
#include "support/histogram.h"
#include "support/keyspace_load.h"

enum {
    THREADS_MAX = 16,
    SCAN = 50,
    RECORD = RIG_KEY + RIG_VALUE,
    LOOK_US = 100000,
    DRAWS = 1 << 14, /* ahead, a thread; not on the clock */
};

enum work { READ, ABSENT, SCANS, UPDATE };
static const struct workload {
    const char *name;
    enum work work;
    enum distribution draw;
} workloads[] = {
    {"read-uniform", READ, DRAW_UNIFORM},
    {"read-zipf", READ, DRAW_ZIPF},
    {"absent-uniform", ABSENT, DRAW_UNIFORM},
    {"scan-50-uniform", SCANS, DRAW_UNIFORM},
    {"scan-50-zipf", SCANS, DRAW_ZIPF},
    {"update-uniform", UPDATE, DRAW_UNIFORM},
    {"update-zipf", UPDATE, DRAW_ZIPF},
};
enum { WORKLOADS = sizeof(workloads) / sizeof(*workloads) };

struct arguments {
    uint64_t budget, headroom;
    struct command_list factors;
    unsigned threads, seconds, warm_seconds, leaf_bytes;
    bool direct, foreground;
    const char *dir, *out, *only;
};

struct run {
    const struct arguments *arguments;
    const struct workload *workload;
    double factor;
    bool direct;
    bft_db *db;
    bft_tree *tree;
    struct keyspace keys;
    uint64_t empty; /* anonymous bytes with an empty database */
    _Atomic uint64_t most_anonymous, most_file, most_used;
    _Atomic int phase;
    _Atomic bool closing;
};
enum { WARM, COUNT, STOP };

struct worker {
    struct run *run;
    pthread_t thread;
    int phase; /* as last seen */
    uint64_t done, calls, clock_ns;
    struct histogram latency;
    struct rig_random random;
    uint64_t drawn[DRAWS];
};

/* --- memory ----------------------------------------------------------------- */

static void raise_to(_Atomic uint64_t *figure, uint64_t value)
{
    uint64_t was = atomic_load(figure);

    while (was < value && !atomic_compare_exchange_weak(figure, &was, value))
        ;
}

static void look(struct run *run)
{
    struct rig_memory now = rig_look();
    bft_stats stats = {.size = sizeof(stats)};

    must(bft_stats_read(run->db, &stats), "stats");
    raise_to(&run->most_anonymous, now.anonymous);
    raise_to(&run->most_file, now.file);
    raise_to(&run->most_used, stats.memory_used_bytes);
}

static void *watch(void *arg)
{
    struct run *run = arg;

    while (!atomic_load(&run->closing)) {
        look(run);
        usleep(LOOK_US);
    }
    return NULL;
}

/* --- operations ------------------------------------------------------------- */

static void get(const struct run *run, const uint8_t key[RIG_KEY], bool there)
{
    uint8_t value[RIG_VALUE];
    size_t len;
    bft_status status =
        bft_get(run->tree, slice(key, RIG_KEY), value, sizeof(value), &len);

    if (!there && status == BFT_NOT_FOUND)
        return;
    must(status, "get");
    if (!there || len != sizeof(value) ||
        !keyspace_value_fits(&run->keys, key, value))
        rig_die(
            "a record is there that should not be, or holds another's value");
}

static void put(struct worker *w, const uint8_t key[RIG_KEY])
{
    uint8_t value[RIG_VALUE];

    keyspace_value(&w->run->keys, key, rig_random_next(&w->random), value);
    must(
        bft_put(w->run->tree, slice(key, RIG_KEY), slice(value, sizeof(value))),
        "put");
}

static void scan(const struct run *run, uint64_t record,
                 const uint8_t key[RIG_KEY])
{
    uint64_t rows = run->keys.n - record < SCAN ? run->keys.n - record : SCAN;
    bft_cursor *cursor;
    bft_status status;

    must(bft_cursor_open(run->tree, &cursor), "open a cursor");
    status = bft_cursor_seek(cursor, BFT_GE, slice(key, RIG_KEY));
    for (uint64_t i = 0; i < rows; i++) {
        bft_slice at, value;

        must(status, "scan");
        must(bft_cursor_record(cursor, &at, &value), "read a record");
        status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
}

static void call(struct worker *w, uint64_t record)
{
    const struct run *run = w->run;
    uint8_t key[RIG_KEY];

    if (run->workload->work == ABSENT)
        keyspace_absent_key(&run->keys, record, w->calls, key);
    else
        keyspace_key(&run->keys, record, key);
    switch (run->workload->work) {
    case READ:
    case ABSENT:
        get(run, key, run->workload->work == READ);
        break;
    case SCANS:
        scan(run, record, key);
        break;
    case UPDATE:
        put(w, key);
        break;
    }
}

static void draw_ahead(struct worker *w)
{
    for (unsigned i = 0; i < DRAWS; i++)
        w->drawn[i] =
            keyspace_draw(&w->run->keys, w->run->workload->draw, &w->random);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct run *run = w->run;

    for (;; w->calls++) {
        int phase = atomic_load_explicit(&run->phase, memory_order_relaxed);
        uint64_t begin, ns;

        if (phase == STOP)
            break;
        if (phase != w->phase) {
            w->done = w->clock_ns = 0;
            memset(&w->latency, 0, sizeof(w->latency));
            w->phase = phase;
        }
        if (w->calls % DRAWS == 0)
            draw_ahead(w);
        begin = rig_now_ns();
        call(w, w->drawn[w->calls % DRAWS]);
        ns = rig_now_ns() - begin;
        histogram_note(&w->latency, ns);
        w->clock_ns += ns;
        w->done++;
    }
    return NULL;
}

/* --- a cell ------------------------------------------------------------------ */

/* Since the system's start, or the database's opening. */
struct counts {
    uint64_t disk_read, disk_written, hits, misses, waits;
    double seconds;
};

static struct counts count(const struct run *run)
{
    struct counts now = {.seconds = (double)rig_now_ns() / 1e9};
    bft_stats stats = {.size = sizeof(stats)};
    FILE *from = fopen("/proc/self/io", "re");
    char line[128];

    if (!from)
        rig_die("no /proc/self/io here");
    while (fgets(line, sizeof(line), from)) {
        (void)sscanf(line, "read_bytes: %" SCNu64, &now.disk_read);
        (void)sscanf(line, "write_bytes: %" SCNu64, &now.disk_written);
    }
    fclose(from);
    must(bft_stats_read(run->db, &stats), "stats");
    now.hits = stats.page_hits;
    now.misses = stats.page_misses;
    now.waits = stats.writer_waits;
    return now;
}

/* Of a cache that holds the budget's worth of the records asked for most. */
static double ideal_hits(const struct run *run)
{
    return keyspace_share(&run->keys, run->workload->draw,
                          run->arguments->budget / RECORD);
}

enum figure {
    OPS,
    P50,
    P99,
    P999,
    HITS,
    IDEAL,
    READ_BYTES,
    WRITTEN_BYTES,
    FILE_RATIO,
    OVER,
    USED,
    FILES,
    WAITS,
    FIGURES
};
static const struct {
    const char *name, *title;
    int width, digits;
} figure_info[FIGURES] = {
    [OPS] = {"ops_per_s", "ops/s", 9, 0},
    [P50] = {"us_p50", "p50 us", 8, 1},
    [P99] = {"us_p99", "p99 us", 8, 1},
    [P999] = {"us_p999", "p99.9", 9, 1},
    [HITS] = {"hit_rate", "hits", 6, 3},
    [IDEAL] = {"ideal_hit_rate", "ideal", 6, 3},
    [READ_BYTES] = {"read_bytes_per_op", "read B", 8, 0},
    [WRITTEN_BYTES] = {"written_bytes_per_op", "wrote B", 8, 0},
    [FILE_RATIO] = {"file_by_live", "file/l", 7, 2},
    [OVER] = {"over_budget_percent", "over %", 7, 1},
    [USED] = {"used_mib", "used", 7, 1},
    [FILES] = {"file_pages_mib", "files", 7, 1},
    [WAITS] = {"writer_waits", "waits", 7, 0},
};

static void report(FILE *json, const struct run *run,
                   const double figures[FIGURES])
{
    char setting[32], config[256];

    snprintf(setting, sizeof(setting), "%gx", run->factor);
    snprintf(config, sizeof(config),
             "%" PRIu64 " records of %d+%d bytes; budget %.0f MiB; %s",
             run->keys.n, RIG_KEY, RIG_VALUE, rig_mib(run->arguments->budget),
             run->direct ? "direct I/O" : "memory cgroup");
    printf("%5s %-15s", setting, run->workload->name);
    for (unsigned f = 0; f < FIGURES; f++) {
        struct rig_cell cell = {.bench = "larger",
                                .setting = setting,
                                .workload = run->workload->name,
                                .engine = "bftree",
                                .metric = figure_info[f].name,
                                .config = config,
                                .threads = run->arguments->threads,
                                .rounds = &figures[f],
                                .n = 1};

        if (isnan(figures[f])) {
            printf(" %*s", figure_info[f].width, "-");
            continue;
        }
        printf(" %*.*f", figure_info[f].width, figure_info[f].digits,
               figures[f]);
        rig_json(json, &cell);
    }
    printf("\n");
    fflush(stdout);
}

/* Let the workers run, for a while before the clock counts. */
static void run_workers(struct run *run, struct worker *workers,
                        struct counts *before, struct counts *after)
{
    unsigned n = run->arguments->threads;

    atomic_store(&run->phase, WARM);
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            rig_die("no thread");
    sleep(run->arguments->warm_seconds);
    *before = count(run);
    atomic_store(&run->phase, COUNT);
    sleep(run->arguments->seconds);
    *after = count(run);
    atomic_store(&run->phase, STOP);
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(workers[i].thread, NULL);
}

static void run_workload(struct run *run, FILE *json)
{
    unsigned n = run->arguments->threads;
    struct worker *workers = calloc(n, sizeof(*workers));
    bft_stats stats = {.size = sizeof(stats)};
    struct counts before, after;
    double figures[FIGURES], done = 0, looked;

    if (!workers)
        rig_die("out of memory");
    for (unsigned i = 0; i < n; i++) {
        workers[i].run = run;
        workers[i].random.state = rig_mix(run->keys.n + i);
    }
    atomic_store(&run->most_anonymous, 0);
    atomic_store(&run->most_file, 0);
    atomic_store(&run->most_used, 0);
    run_workers(run, workers, &before, &after);
    look(run);
    must(bft_stats_read(run->db, &stats), "stats");
    figures[OPS] = 0;
    for (unsigned i = 0; i < n; i++) {
        done += (double)workers[i].done;
        figures[OPS] += (double)workers[i].done * 1e9 /
                        (double)(workers[i].clock_ns ? workers[i].clock_ns : 1);
        if (i > 0)
            histogram_add(&workers[0].latency, &workers[i].latency);
    }
    looked = (double)(after.hits + after.misses - before.hits - before.misses);
    figures[P50] = histogram_us(&workers[0].latency, 0.5);
    figures[P99] = histogram_us(&workers[0].latency, 0.99);
    figures[P999] = histogram_us(&workers[0].latency, 0.999);
    figures[HITS] =
        looked > 0 ? (double)(after.hits - before.hits) / looked : NAN;
    figures[IDEAL] = run->workload->work == ABSENT ? NAN : ideal_hits(run);
    figures[READ_BYTES] = (double)(after.disk_read - before.disk_read) / done;
    figures[WRITTEN_BYTES] =
        (double)(after.disk_written - before.disk_written) / done;
    figures[FILE_RATIO] = (double)stats.file_bytes / (double)stats.live_bytes;
    figures[OVER] =
        100 * ((rig_mib(run->most_anonymous) - rig_mib(run->empty)) /
                   rig_mib(run->arguments->budget) -
               1);
    figures[USED] = rig_mib(run->most_used);
    figures[FILES] = rig_mib(run->most_file);
    figures[WAITS] = (double)(after.waits - before.waits);
    report(json, run, figures);
    free(workers);
}

/* --- a size of data ---------------------------------------------------------- */

static void load(struct run *run)
{
    uint64_t begin = rig_now_ns();
    uint64_t loaded = keyspace_load(&run->keys, run->tree);
    double seconds = (double)(rig_now_ns() - begin) / 1e9;

    printf("%4gx %" PRIu64 " records loaded in %.1f s, %.0f MB/s\n",
           run->factor, loaded, seconds,
           (double)loaded * RECORD / 1e6 / seconds);
    fflush(stdout);
}

static void run_factor(const struct arguments *a, double factor, bool direct,
                       FILE *json)
{
    struct run run = {.arguments = a, .factor = factor, .direct = direct};
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = a->budget,
                           .leaf_bytes = a->leaf_bytes,
                           .no_threads = a->foreground,
                           .backend =
                               direct ? BFT_BACKEND_DIRECT : BFT_BACKEND_POSIX};
    pthread_t watcher;

    rig_remove_dir(a->dir);
    keyspace_make(&run.keys, (uint64_t)(factor * (double)a->budget / RECORD),
                  RIG_VALUE);
    must(bft_open(a->dir, &options, &run.db), "open");
    must(bft_tree_open(run.db, "t", NULL, &run.tree), "open the tree");
    run.empty = rig_look().anonymous;
    load(&run);
    if (pthread_create(&watcher, NULL, watch, &run))
        rig_die("no thread");
    for (unsigned i = 0; i < WORKLOADS; i++) {
        run.workload = &workloads[i];
        if (!a->only || strstr(workloads[i].name, a->only))
            run_workload(&run, json);
    }
    atomic_store(&run.closing, true);
    (void)pthread_join(watcher, NULL);
    must(bft_close(run.db), "close");
    free(run.keys.noise);
    rig_remove_dir(a->dir);
}

static void report_killed(FILE *json, double factor)
{
    char setting[32];
    struct rig_cell cell = {.bench = "larger",
                            .setting = setting,
                            .workload = "all that follow",
                            .engine = "bftree",
                            .metric = "ops_per_s",
                            .config = "",
                            .reason = "killed for passing its memory bound"};

    snprintf(setting, sizeof(setting), "%gx", factor);
    printf("%5s %s\n", setting, cell.reason);
    rig_json(json, &cell);
}

/* A process that passes its bound is killed: a row that says so. */
static void run_alone(const struct arguments *a, double factor,
                      const struct cgroup *group, FILE *json)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child < 0)
        rig_die("no process");
    if (child == 0) {
        if (group)
            cgroup_enter(group);
        run_factor(a, factor, !group, json);
        fflush(NULL);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child)
        rig_die("a process is lost");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && group)
        report_killed(json, factor);
    else if (status)
        rig_die("%gx failed", factor);
}

/* --- the command line ------------------------------------------------------ */

static void parse(int argc, char **argv, struct arguments *a)
{
    const struct command_option options[] = {
        {"budget", COMMAND_MIB, &a->budget, 1, 0, "of memory"},
        {"headroom", COMMAND_MIB, &a->headroom, 1, 0,
         "that the cgroup has beside the budget"},
        {"factor", COMMAND_LIST, &a->factors, 0, 0, "data by budget"},
        {"threads", COMMAND_COUNT, &a->threads, 1, THREADS_MAX,
         "that call the engine"},
        {"seconds", COMMAND_COUNT, &a->seconds, 1, 3600, "of a workload"},
        {"warm", COMMAND_COUNT, &a->warm_seconds, 0, 3600,
         "seconds of it before, that do not count"},
        {"leaf", COMMAND_COUNT, &a->leaf_bytes, 512, 32768,
         "bytes of a leaf on disk; the engine's default"},
        {"only", COMMAND_TEXT, &a->only, 0, 0, "workloads with this in them"},
        {"direct", COMMAND_FLAG, &a->direct, 0, 0,
         "I/O past the system's cache, without a cgroup"},
        {"foreground", COMMAND_FLAG, &a->foreground, 0, 0,
         "without background threads"},
        {"dir", COMMAND_TEXT, &a->dir, 0, 0, "for the database"},
        {"out", COMMAND_TEXT, &a->out, 0, 0, "for the results"},
    };

    command_parse(argc, argv, options, sizeof(options) / sizeof(*options));
}

int main(int argc, char **argv)
{
    struct arguments a = {.budget = 256 << 20,
                          .headroom = 16 << 20,
                          .factors = {{1, 2, 5, 10, 20, 50}, 6, false},
                          .threads = 2,
                          .seconds = 8,
                          .warm_seconds = 8,
                          .dir = "build/bench-data/larger",
                          .out = "build/results"};
    struct cgroup group;
    char reason[256] = "--direct";
    bool bounded;
    FILE *json;

    parse(argc, argv, &a);
    rig_make_dir(a.dir);
    json = rig_results(a.out, "larger");
    rig_machine(stdout, a.dir);
    bounded =
        !a.direct && cgroup_make(&group, "bftree-larger", a.budget + a.headroom,
                                 reason, sizeof(reason));
    printf("\nBudget %.0f MiB, %u threads; ", rig_mib(a.budget), a.threads);
    if (bounded)
        printf("the process and its files' pages in a cgroup of %.0f MiB.\n",
               rig_mib(a.budget + a.headroom));
    else
        printf("direct I/O (%s).\n", reason);
    printf("Hits beside an ideal cache's; bytes of the disk an operation; the "
           "file by what lives in it;\nanonymous memory beyond an empty "
           "database's, over the budget; MiB used by the engine's count and\n"
           "of files' pages, at most; waits of writers.\n\n%5s %-15s",
           "data", "workload");
    for (unsigned f = 0; f < FIGURES; f++)
        printf(" %*s", figure_info[f].width, figure_info[f].title);
    printf("\n");
    for (unsigned i = 0; i < a.factors.n; i++)
        run_alone(&a, a.factors.values[i], bounded ? &group : NULL, json);
    if (bounded)
        cgroup_remove(&group);
    rig_results_written(json, a.out, "larger");
    return 0;
}
