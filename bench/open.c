/*
 * The question: how long does opening take when the data is far larger than
 * memory and none of it is in the system's cache, after a clean close and after
 * a kill with a full log, and how much memory does it take?
 *
 * Records of 16 + 16 bytes are loaded in bulk.  Each step is a process of its
 * own, so that none finds what another one left in memory.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bftree_bulk.h"
#include "support/bftree_calls.h"
#include "support/command.h"

enum { VALUE = 16, ROUNDS_MAX = RIG_ROUNDS_MAX };
#define LOG_BYTES ((uint64_t)64 << 20) /* the default limit */

struct arguments {
    uint64_t records, budget;
    unsigned rounds;
    bool files_only; /* only their pages are dropped, not the whole cache */
    const char *dir, *out;
};

/* What an opening showed; it crosses a pipe. */
struct opening {
    double open_ms, get_ms; /* the second: of the first get */
    double anonymous_mib, used_mib;
    double reads, frames; /* extents read, frames of the log redone */
};

/* --- records --------------------------------------------------------------- */

/* Keys in even steps: record I is the I'th. */
static void key_of(const struct arguments *a, uint64_t i, uint8_t key[RIG_KEY])
{
    rig_key(i * (UINT64_MAX / a->records), key);
}

static void value_of(uint64_t i, uint64_t version, uint8_t value[VALUE])
{
    uint64_t words[2] = {rig_mix(i), rig_mix(i ^ rig_mix(version + 1))};

    memcpy(value, words, VALUE);
}

struct loading {
    const struct arguments *arguments;
    uint64_t next;
    uint8_t key[RIG_KEY], value[VALUE];
};

static bft_status next_record(void *ctx, bft_bulk_record *record)
{
    struct loading *l = ctx;

    if (l->next == l->arguments->records)
        return BFT_NOT_FOUND;
    key_of(l->arguments, l->next, l->key);
    value_of(l->next, 0, l->value);
    l->next++;
    record->key = slice(l->key, sizeof(l->key));
    record->value = slice(l->value, sizeof(l->value));
    return BFT_OK;
}

/* --- what the processes do -------------------------------------------------- */

static bft_options usual(const struct arguments *a)
{
    return (bft_options){.size = sizeof(bft_options),
                         .memory_bytes = a->budget,
                         .log_bytes = LOG_BYTES};
}

static bft_db *open_database(const struct arguments *a,
                             const bft_options *options, bft_tree **tree)
{
    bft_db *db;

    must(bft_open(a->dir, options, &db), "open");
    must(bft_tree_open(db, "t", NULL, tree), "open the tree");
    return db;
}

static void fill(const struct arguments *a, struct opening *opening)
{
    struct loading loading = {.arguments = a};
    bft_options options = usual(a);
    uint64_t loaded;
    bft_tree *tree;
    bft_db *db;

    (void)opening;
    rig_remove_dir(a->dir);
    db = open_database(a, &options, &tree);
    must(bft_bulk_load(tree, NULL, next_record, &loading, &loaded), "load");
    must(bft_close(db), "close");
}

static void measure(const struct arguments *a, struct opening *opening)
{
    bft_stats stats = {.size = sizeof(stats)};
    bft_options options = usual(a);
    uint8_t key[RIG_KEY], value[VALUE], expected[VALUE];
    uint64_t begin = rig_now_ns(), opened, record = a->records / 3;
    size_t len;
    bft_tree *tree;
    bft_db *db = open_database(a, &options, &tree);

    opened = rig_now_ns();
    must(bft_stats_read(db, &stats), "stats");
    opening->reads = (double)stats.extents_read;
    opening->frames = (double)stats.recovered_frames;
    opening->anonymous_mib = rig_mib(rig_look().anonymous);
    opening->used_mib = rig_mib(stats.memory_used_bytes);
    opening->open_ms = (double)(opened - begin) / 1e6;
    key_of(a, record, key);
    value_of(record, 0, expected);
    begin = rig_now_ns();
    must(bft_get(tree, slice(key, sizeof(key)), value, sizeof(value), &len),
         "get");
    opening->get_ms = (double)(rig_now_ns() - begin) / 1e6;
    if (len != VALUE || memcmp(value, expected, VALUE / 2) != 0)
        rig_die("record %" PRIu64 " is another one", record);
    must(bft_close(db), "close");
}

/* Fill the log to just under its default limit, and die.  The limit is set far
 * higher meanwhile, or a checkpoint would come half-way, or earlier for the
 * space that evictions leave. */
static void fill_log(const struct arguments *a, struct opening *opening)
{
    bft_stats stats = {.size = sizeof(stats)};
    struct rig_random random = {a->records};
    bft_options options = usual(a);
    bft_tree *tree;
    bft_db *db;

    (void)opening;
    options.log_bytes = 1024 * LOG_BYTES;
    db = open_database(a, &options, &tree);
    do {
        for (int i = 0; i < 1000; i++) {
            uint8_t key[RIG_KEY], value[VALUE];
            uint64_t record = rig_random_below(&random, a->records);

            key_of(a, record, key);
            value_of(record, random.state, value);
            must(bft_put(tree, slice(key, sizeof(key)),
                         slice(value, sizeof(value))),
                 "put");
        }
        must(bft_stats_read(db, &stats), "stats");
    } while (stats.accepted_lsn - stats.redo_lsn < LOG_BYTES / 64 * 63);
    (void)kill(getpid(), SIGKILL);
}

/* Run WORK in a process, which dies by SIGNAL (0: ends). */
static struct opening run_apart(void (*work)(const struct arguments *a,
                                             struct opening *opening),
                                const struct arguments *a, int signal)
{
    struct opening opening;
    int ends[2], status;
    pid_t child;

    fflush(stdout);
    memset(&opening, 0, sizeof(opening));
    if (pipe(ends) || (child = fork()) < 0)
        rig_die("no process");
    if (child == 0) {
        work(a, &opening);
        if (write(ends[1], &opening, sizeof(opening)) != sizeof(opening))
            rig_die("a pipe is broken");
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], &opening, sizeof(opening)) < 0)
        rig_die("a pipe is broken");
    close(ends[0]);
    if (waitpid(child, &status, 0) != child ||
        (signal ? !WIFSIGNALED(status) || WTERMSIG(status) != signal
                : status != 0))
        rig_die("a step failed");
    return opening;
}

/* --- results ----------------------------------------------------------------- */

enum { METRICS = 6 };

static const struct {
    const char *name;
    size_t at;
} metrics[METRICS] = {
    {"open_ms", offsetof(struct opening, open_ms)},
    {"first_get_ms", offsetof(struct opening, get_ms)},
    {"anonymous_mib", offsetof(struct opening, anonymous_mib)},
    {"used_mib", offsetof(struct opening, used_mib)},
    {"extents_read", offsetof(struct opening, reads)},
    {"frames_redone", offsetof(struct opening, frames)},
};

static void report(FILE *json, const struct arguments *a, const char *setting,
                   const char *dropped, const struct opening *openings)
{
    char config[256];

    snprintf(config, sizeof(config),
             "%" PRIu64 " records of %d+%d bytes; budget %.0f MiB, log limit "
             "%.0f MiB; %s",
             a->records, RIG_KEY, VALUE, rig_mib(a->budget), rig_mib(LOG_BYTES),
             dropped);
    printf("%-13s", setting);
    for (unsigned m = 0; m < METRICS; m++) {
        double rounds[ROUNDS_MAX];
        struct rig_cell cell = {.bench = "open",
                                .setting = setting,
                                .workload = "open",
                                .engine = "bftree",
                                .metric = metrics[m].name,
                                .config = config,
                                .threads = 1,
                                .rounds = rounds,
                                .n = a->rounds};

        for (unsigned i = 0; i < a->rounds; i++)
            memcpy(&rounds[i], (const char *)&openings[i] + metrics[m].at,
                   sizeof(double));
        rig_json(json, &cell);
        printf(" %13.1f", rig_median(rounds, a->rounds));
    }
    printf("\n");
}

static void run(const struct arguments *a, FILE *json)
{
    struct opening clean[ROUNDS_MAX], killed[ROUNDS_MAX];
    const char *dropped = "";

    (void)run_apart(fill, a, 0);
    for (unsigned i = 0; i < a->rounds; i++) {
        (void)rig_drop_cache(a->dir, !a->files_only);
        clean[i] = run_apart(measure, a, 0);
        (void)run_apart(fill_log, a, SIGKILL);
        dropped = rig_drop_cache(a->dir, !a->files_only);
        killed[i] = run_apart(measure, a, 0);
    }
    printf("%" PRIu64 " records of %d+%d bytes, budget %.0f MiB; %s\n\n%13s",
           a->records, RIG_KEY, VALUE, rig_mib(a->budget), dropped, "");
    for (unsigned m = 0; m < METRICS; m++)
        printf(" %13s", metrics[m].name);
    printf("\n");
    report(json, a, "after-close", dropped, clean);
    report(json, a, "after-kill", dropped, killed);
}

/* --- the command line ------------------------------------------------------ */

static void parse(int argc, char **argv, struct arguments *a)
{
    const struct command_option options[] = {
        {"records", COMMAND_BIG, &a->records, 1, 0, "in the database"},
        {"budget", COMMAND_MIB, &a->budget, 1, 0, "of memory"},
        {"rounds", COMMAND_COUNT, &a->rounds, 1, ROUNDS_MAX, "to take"},
        {"files", COMMAND_FLAG, &a->files_only, 0, 0,
         "drop only the files' pages from the cache"},
        {"dir", COMMAND_TEXT, &a->dir, 0, 0, "for the database"},
        {"out", COMMAND_TEXT, &a->out, 0, 0, "for the results"},
    };

    command_parse(argc, argv, options, sizeof(options) / sizeof(*options));
}

int main(int argc, char **argv)
{
    struct arguments a = {.records = 100000000,
                          .budget = 64 << 20,
                          .rounds = 3,
                          .dir = "build/bench-data/open",
                          .out = "build/results"};
    FILE *json;

    parse(argc, argv, &a);
    rig_make_dir(a.dir);
    json = rig_results(a.out, "open");
    rig_machine(stdout, a.dir);
    printf("\nTo open a database of which the system has nothing in its cache, "
           "and to read one record.\n\n");
    run(&a, json);
    rig_results_written(json, a.out, "open");
    rig_remove_dir(a.dir);
    return 0;
}
