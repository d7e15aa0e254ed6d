/*
 * The question: how large does the page file get beside what lives in it, when
 * records are updated at random, when the same volume is inserted and deleted
 * again and again, and when trees are filled and dropped; and what do the calls
 * cost meanwhile?
 *
 * The work comes in rounds, the first of which fills.  A thread looks at the
 * file all the while.  A round's ratio is the longest that the file was in it by
 * the most that lived in it: while everything is being deleted, file and what
 * lives cannot go together.  After the first round and the last one the database is
 * left alone for a moment, and then file and memory are looked at: twenty rounds
 * should leave what one does.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/bftree_calls.h"
#include "support/command.h"
#include "support/histogram.h"
#include "support/keyspace.h"

enum {
    LOOK_US = 4000,
    ROUNDS_MAX = 1000,
};

struct arguments {
    uint64_t records, churned, memory;
    unsigned rounds, rest_ms;
    bool no_threads, each;
    const char *dir, *out, *only;
};

/* Bytes. */
struct sizes {
    uint64_t file, given, live, held, resident;
};

struct run {
    const struct arguments *arguments;
    const struct workload *workload;
    bft_db *db;
    bft_tree *tree;
    struct keyspace keys;
    struct rig_random random;
    struct histogram latency;
    uint64_t version;

    pthread_mutex_t lock;           /* of what follows */
    struct sizes most;              /* of this round, each by itself */
    double worst_file, worst_given; /* ratios of the rounds behind the first */
    struct sizes first;             /* after the first round, and a rest */
    _Atomic bool stop;
};

struct workload {
    const char *name;
    bool churns; /* fewer records, but all of them in each round */
    void (*round)(struct run *run, unsigned round);
};

/* --- one operation -------------------------------------------------------- */

static void note_latency(struct run *run, uint64_t begin)
{
    histogram_note(&run->latency, rig_now_ns() - begin);
}

static void put(struct run *run, const uint8_t key[RIG_KEY])
{
    uint8_t value[RIG_VALUE];
    uint64_t begin;

    keyspace_value(&run->keys, key, ++run->version, value);
    begin = rig_now_ns();
    must(bft_put(run->tree, slice(key, RIG_KEY), slice(value, sizeof(value))),
         "put");
    note_latency(run, begin);
}

static void put_all(struct run *run, uint64_t seed)
{
    uint8_t key[RIG_KEY];

    for (uint64_t i = 0; i < run->keys.n; i++) {
        keyspace_key(&run->keys, keyspace_shuffled(&run->keys, seed, i), key);
        put(run, key);
    }
}

/* --- rounds --------------------------------------------------------------- */

static void update(struct run *run, unsigned round, enum distribution how)
{
    uint8_t key[RIG_KEY];

    if (round == 0) {
        put_all(run, 1);
        return;
    }
    for (uint64_t i = 0; i < run->keys.n; i++) {
        keyspace_key(&run->keys, keyspace_draw(&run->keys, how, &run->random),
                     key);
        put(run, key);
    }
}

static void round_uniform(struct run *run, unsigned round)
{
    update(run, round, DRAW_UNIFORM);
}

static void round_zipf(struct run *run, unsigned round)
{
    update(run, round, DRAW_ZIPF);
}

static void round_churn(struct run *run, unsigned round)
{
    uint8_t key[RIG_KEY];

    put_all(run, UINT64_C(2) * round);
    for (uint64_t i = 0; i < run->keys.n; i++) {
        uint64_t begin, record = keyspace_shuffled(&run->keys, round + 1, i);

        keyspace_key(&run->keys, record, key);
        begin = rig_now_ns();
        must(bft_delete(run->tree, slice(key, sizeof(key))), "delete");
        note_latency(run, begin);
    }
}

/* Other keys come before those of the round before go: the volume stays. */
static void round_replace(struct run *run, unsigned round)
{
    uint8_t key[RIG_KEY];

    for (uint64_t i = 0; i < run->keys.n; i++) {
        uint64_t begin, fresh = round * run->keys.n + i;

        keyspace_inserted_key(&run->keys, fresh, key);
        put(run, key);
        if (round == 0)
            continue;
        keyspace_inserted_key(&run->keys, fresh - run->keys.n, key);
        begin = rig_now_ns();
        must(bft_delete(run->tree, slice(key, sizeof(key))), "delete");
        note_latency(run, begin);
    }
}

static void round_drop(struct run *run, unsigned round)
{
    uint64_t begin;

    put_all(run, round);
    begin = rig_now_ns();
    must(bft_tree_drop(run->db, "t"), "drop");
    note_latency(run, begin);
    must(bft_tree_open(run->db, "t", NULL, &run->tree), "open the tree");
}

static const struct workload workloads[] = {
    {"update-uniform", false, round_uniform},
    {"update-zipf", false, round_zipf},
    {"insert-delete", true, round_churn},
    {"replace-keys", true, round_replace},
    {"fill-drop", true, round_drop},
};
enum { WORKLOADS = sizeof(workloads) / sizeof(*workloads) };

/* --- looking -------------------------------------------------------------- */

static struct sizes look(const struct run *run)
{
    bft_stats stats = {.size = sizeof(stats)};
    struct sizes now;
    struct stat data;
    char path[4096];

    snprintf(path, sizeof(path), "%s/data", run->arguments->dir);
    if (stat(path, &data) != 0)
        rig_die("no %s", path);
    must(bft_stats_read(run->db, &stats), "stats");
    now.file = (uint64_t)data.st_size;
    now.given = (uint64_t)data.st_blocks * 512;
    now.live = stats.live_bytes;
    now.held = stats.held_bytes;
    now.resident = 0;
    return now;
}

/* What there is when the background has had a while. */
static struct sizes rest_and_look(const struct run *run)
{
    struct sizes now;

    usleep(run->arguments->rest_ms * 1000);
    now = look(run);
    now.resident = rig_look().anonymous;
    return now;
}

static void raise_to(uint64_t *figure, uint64_t value)
{
    if (*figure < value)
        *figure = value;
}

static void note_sizes(struct run *run)
{
    struct sizes now = look(run);

    pthread_mutex_lock(&run->lock);
    raise_to(&run->most.file, now.file);
    raise_to(&run->most.given, now.given);
    raise_to(&run->most.live, now.live);
    raise_to(&run->most.held, now.held);
    pthread_mutex_unlock(&run->lock);
}

static void *watch(void *arg)
{
    struct run *run = arg;

    while (!atomic_load(&run->stop)) {
        note_sizes(run);
        usleep(LOOK_US);
    }
    return NULL;
}

/* By a MiB at least: an empty database has a file, too. */
static double ratio(uint64_t bytes, uint64_t live)
{
    return rig_mib(bytes) / (rig_mib(live) > 1 ? rig_mib(live) : 1);
}

static void round_ends(struct run *run, unsigned round)
{
    note_sizes(run);
    pthread_mutex_lock(&run->lock);
    if (round > 0) {
        double file = ratio(run->most.file, run->most.live);
        double given = ratio(run->most.given, run->most.live);

        run->worst_file = file > run->worst_file ? file : run->worst_file;
        run->worst_given = given > run->worst_given ? given : run->worst_given;
    }
    if (run->arguments->each)
        printf(
            "  round %3u, at most: live %.1f held %.1f file %.1f given %.1f\n",
            round, rig_mib(run->most.live), rig_mib(run->most.held),
            rig_mib(run->most.file), rig_mib(run->most.given));
    memset(&run->most, 0, sizeof(run->most));
    pthread_mutex_unlock(&run->lock);
}

/* --- results -------------------------------------------------------------- */

static void json(FILE *to, const struct run *run, const char *metric,
                 double value)
{
    char config[128];
    struct rig_cell cell = {.bench = "space",
                            .setting = run->arguments->no_threads ? "foreground"
                                                                  : "threads",
                            .workload = run->workload->name,
                            .engine = "bftree",
                            .metric = metric,
                            .config = config,
                            .threads = 1,
                            .rounds = &value,
                            .n = 1};

    snprintf(config, sizeof(config),
             "records=%" PRIu64 " rounds=%u memory_mib=%" PRIu64
             " (0: the default)",
             run->keys.n, run->arguments->rounds, run->arguments->memory >> 20);
    rig_json(to, &cell);
}

static void json_sizes(FILE *to, const struct run *run, const char *when,
                       const struct sizes *sizes)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } figures[] = {
        {"live", sizes->live},
        {"file", sizes->file},
        {"given", sizes->given},
        {"resident", sizes->resident},
    };
    char name[64];

    for (size_t i = 0; i < sizeof(figures) / sizeof(*figures); i++) {
        snprintf(name, sizeof(name), "%s_mib_%s", figures[i].name, when);
        json(to, run, name, rig_mib(figures[i].bytes));
    }
}

static void report(FILE *to, const struct run *run, uint64_t ns,
                   const struct sizes *last)
{
    struct sizes end = *last;
    bft_stats stats = {.size = sizeof(stats)};
    const struct {
        const char *name;
        double value;
    } figures[] = {
        {"live_mib", rig_mib(end.live)},
        {"held_mib", rig_mib(end.held)},
        {"file_mib", rig_mib(end.file)},
        {"given_mib", rig_mib(end.given)},
        {"file_ratio_end", ratio(end.file, end.live)},
        {"file_ratio_most", run->worst_file},
        {"given_ratio_end", ratio(end.given, end.live)},
        {"given_ratio_most", run->worst_given},
        {"ops_per_s", (double)run->latency.total * 1e9 / (double)ns},
        {"p99_us", histogram_us(&run->latency, 0.99)},
        {"p999_us", histogram_us(&run->latency, 0.999)},
        {"longest_us", (double)run->latency.longest_ns / 1e3},
    };
    enum { FIGURES = sizeof(figures) / sizeof(*figures) };

    must(bft_stats_read(run->db, &stats), "stats");
    printf("%-15s %8.1f %7.1f %7.1f %7.1f  %6.2f %6.2f %6.2f %6.2f  %8.0f "
           "%6.1f %7.1f %8.0f %6" PRIu64 " %6" PRIu64 " %7.0f\n",
           run->workload->name, figures[0].value, figures[1].value,
           figures[2].value, figures[3].value, figures[4].value,
           figures[5].value, figures[6].value, figures[7].value,
           figures[8].value / 1e3, figures[9].value, figures[10].value,
           figures[11].value, stats.checkpoints, stats.writer_waits,
           rig_mib(stats.extent_bytes_written));
    printf("%15s round 1: live %.1f file %.1f given %.1f resident %.1f; round "
           "%u: %.1f %.1f %.1f %.1f\n",
           "after", rig_mib(run->first.live), rig_mib(run->first.file),
           rig_mib(run->first.given), rig_mib(run->first.resident),
           run->arguments->rounds, rig_mib(end.live), rig_mib(end.file),
           rig_mib(end.given), rig_mib(end.resident));
    fflush(stdout);
    json_sizes(to, run, "first", &run->first);
    json_sizes(to, run, "last", &end);
    for (size_t i = 0; i < FIGURES; i++)
        json(to, run, figures[i].name, figures[i].value);
    json(to, run, "checkpoints", (double)stats.checkpoints);
    json(to, run, "writer_waits", (double)stats.writer_waits);
    json(to, run, "written_mib", rig_mib(stats.extent_bytes_written));
}

static void run_workload(const struct arguments *arguments,
                         const struct workload *workload, FILE *to)
{
    struct run *run = calloc(1, sizeof(*run));
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = arguments->memory,
                           .no_threads = arguments->no_threads};
    struct sizes last;
    pthread_t watcher;
    uint64_t begin, ns = 0;

    if (!run)
        rig_die("out of memory");
    run->arguments = arguments;
    run->workload = workload;
    run->random.state = 1;
    pthread_mutex_init(&run->lock, NULL);
    keyspace_make(&run->keys,
                  workload->churns ? arguments->churned : arguments->records,
                  RIG_VALUE);
    rig_remove_dir(arguments->dir);
    rig_make_dir(arguments->dir);
    must(bft_open(arguments->dir, &options, &run->db), "open");
    must(bft_tree_open(run->db, "t", NULL, &run->tree), "open the tree");
    if (pthread_create(&watcher, NULL, watch, run) != 0)
        rig_die("no thread");
    for (unsigned round = 0; round < arguments->rounds; round++) {
        begin = rig_now_ns();
        workload->round(run, round);
        ns += rig_now_ns() - begin;
        round_ends(run, round);
        if (round == 0)
            run->first = rest_and_look(run);
    }
    last = rest_and_look(run);
    atomic_store(&run->stop, true);
    (void)pthread_join(watcher, NULL);
    report(to, run, ns, &last);
    must(bft_close(run->db), "close");
    rig_remove_dir(arguments->dir);
    free(run->keys.noise);
    pthread_mutex_destroy(&run->lock);
    free(run);
}

/* --- the command line ------------------------------------------------------ */

static void parse(int argc, char **argv, struct arguments *a)
{
    const struct command_option options[] = {
        {"records", COMMAND_BIG, &a->records, 2, 0, "of the updates"},
        {"churned", COMMAND_BIG, &a->churned, 2, 0,
         "of the other workloads, in each round"},
        {"rounds", COMMAND_COUNT, &a->rounds, 1, ROUNDS_MAX, "to take"},
        {"rest", COMMAND_COUNT, &a->rest_ms, 0, 600000,
         "milliseconds after the first and the last round"},
        {"memory", COMMAND_MIB, &a->memory, 0, 0, "of budget; the default"},
        {"only", COMMAND_TEXT, &a->only, 0, 0, "one workload, by its name"},
        {"foreground", COMMAND_FLAG, &a->no_threads, 0, 0,
         "without background threads"},
        {"each", COMMAND_FLAG, &a->each, 0, 0, "print each round's sizes"},
        {"dir", COMMAND_TEXT, &a->dir, 0, 0, "for the database"},
        {"out", COMMAND_TEXT, &a->out, 0, 0, "for the results"},
    };

    command_parse(argc, argv, options, sizeof(options) / sizeof(*options));
}

int main(int argc, char **argv)
{
    struct arguments a = {.records = 400000,
                          .churned = 100000,
                          .rounds = 20,
                          .rest_ms = 3000,
                          .dir = "build/bench-data/space",
                          .out = "build/results"};
    FILE *to;

    parse(argc, argv, &a);
    to = rig_results(a.out, "space");
    rig_machine(stdout, ".");
    printf("\nMiB at the end: what lives, what waits for a checkpoint, the "
           "file's length, what the\nfile system gave for it; length and that "
           "by what lives, at the end and at most;\nthousands of calls a "
           "second, their latency in us; checkpoints, waits, MiB written.\n\n"
           "%-15s %8s %7s %7s %7s  %6s %6s %6s %6s  %8s %6s %7s %8s %6s %6s "
           "%7s\n",
           "workload", "live", "held", "file", "given", "file/l", "most",
           "giv/l", "most", "kops/s", "p99", "p99.9", "longest", "ckpts",
           "waits", "written");
    for (size_t i = 0; i < WORKLOADS; i++)
        if (!a.only || strcmp(a.only, workloads[i].name) == 0)
            run_workload(&a, &workloads[i], to);
    rig_results_written(to, a.out, "space");
    return 0;
}
