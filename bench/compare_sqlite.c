/*
 * The question: how does this engine compare with SQLite where both could be
 * used, at the same memory budget and the same durability?
 *
 *   compare_sqlite [--quick] [--rounds N] [--records N] [--cell-ms N]
 *                  [--setting NAME]... [--workload NAME]... [--dir DIR]
 *                  [--out DIR] [--shared-file]
 *
 * Both databases are open side by side and take turns cell by cell; who begins
 * alternates between rounds.  Units are operations per second (rows for loads
 * and full scans, records for update-batch).  A cell that writes is measured
 * thrice: calls alone, with the checkpoint that settles its debt inside the
 * clock, and the latter per second of processor time of the whole process,
 * background threads included.  README.md says what could not be made equal.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/store.h"

enum {
    ENGINES = 2,
    BATCH = 100,
    SHORT_SCAN = 50,
    PICKS = 1 << 18,
    METRICS = 3,
    MIB = 1 << 20,
};

static const struct store_kind *const engines[ENGINES] = {&store_bftree,
                                                          &store_sqlite};

enum metric { CALLS, SETTLED, PER_CPU };

static const char *const metric_name[METRICS] = {
    [CALLS] = "ops_per_s",
    [SETTLED] = "ops_per_s_with_checkpoint",
    [PER_CPU] = "ops_per_cpu_s_with_checkpoint",
};

struct setting {
    const char *name, *says;
    uint64_t memory_bytes; /* 0: a sixth of what the records weigh */
    bool sync;
    bool chosen;
};

static struct setting settings[] = {
    {"buffered",
     "BUFFERED against synchronous=NORMAL: an acknowledged write survives a "
     "kill of the process, not a power cut; everything fits the budget",
     128 * MIB, false, false},
    {"buffered-tight",
     "the same, with a budget of a sixth of the records (the kernel's page "
     "cache helps both)",
     0, false, false},
    {"sync",
     "SYNC against synchronous=FULL: an acknowledged write survives a power "
     "cut; everything fits the budget",
     128 * MIB, true, false},
};
enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };

/* What one run of a cell found. */
struct sample {
    double ops, ns;
};

struct bench {
    struct rig_records records;
    uint32_t *uniform, *zipf; /* PICKS positions of records */
    uint32_t *shuffled;       /* every position once */
    uint64_t cell_ns;
    uint64_t version; /* of the values that the next cell writes */
    unsigned rounds;
    bool shared_file;
    const char *dir;
};

/* A loop of calls that ends with the cell's time.  The clock is read every
 * STRIDE calls. */
struct span {
    uint64_t start, end;
    uint64_t ops;
    unsigned stride;
};

static struct span span_begin(const struct bench *bench, unsigned stride)
{
    struct span span = {.start = rig_now_ns(), .stride = stride};

    span.end = span.start + bench->cell_ns;
    return span;
}

static bool span_more(struct span *span)
{
    return span->ops % span->stride || rig_now_ns() < span->end;
}

static struct sample span_end(const struct span *span, double per_op)
{
    return (struct sample){(double)span->ops * per_op,
                           (double)(rig_now_ns() - span->start)};
}

/* --- workloads ----------------------------------------------------------- */

struct run {
    const struct bench *bench;
    const struct store_kind *kind;
    struct store *store;
};

static void key_at(const struct run *run, uint32_t i, uint8_t key[RIG_KEY])
{
    rig_key(run->bench->records.number[i], key);
}

static struct sample load(const struct run *run, const uint32_t *order)
{
    const struct rig_records *records = &run->bench->records;
    uint64_t start = rig_now_ns();
    uint8_t key[RIG_KEY], value[BATCH][RIG_VALUE];

    for (uint32_t i = 0; i < records->n; i++) {
        uint32_t at = order ? order[i] : i;

        if (i % BATCH == 0)
            run->kind->begin(run->store);
        key_at(run, at, key);
        rig_value(records, records->number[at], 0, value[i % BATCH]);
        run->kind->insert_in(run->store, key, value[i % BATCH]);
        if (i % BATCH == BATCH - 1 || i + 1 == records->n)
            run->kind->commit(run->store);
    }
    return (struct sample){records->n, (double)(rig_now_ns() - start)};
}

static struct sample load_sequential(const struct run *run)
{
    return load(run, NULL);
}

static struct sample load_random(const struct run *run)
{
    return load(run, run->bench->shuffled);
}

static void get_checked(const struct run *run, uint32_t i)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];

    key_at(run, i, key);
    if (!run->kind->get(run->store, key, value) ||
        !rig_value_fits(&run->bench->records, key, value, RIG_VALUE))
        rig_die("%s: record %u is missing or holds what is not its own",
                run->kind->name, i);
}

static struct sample gets(const struct run *run, const uint32_t *picks)
{
    struct span span = span_begin(run->bench, 32);

    for (; span_more(&span); span.ops++)
        get_checked(run, picks[span.ops % PICKS]);
    return span_end(&span, 1);
}

static struct sample get_uniform(const struct run *run)
{
    return gets(run, run->bench->uniform);
}

static struct sample get_zipf(const struct run *run)
{
    return gets(run, run->bench->zipf);
}

static struct sample get_absent(const struct run *run)
{
    struct span span = span_begin(run->bench, 32);
    uint8_t key[RIG_KEY], value[RIG_VALUE];

    for (; span_more(&span); span.ops++) {
        rig_absent_key(&run->bench->records,
                       run->bench->uniform[span.ops % PICKS], key);
        if (run->kind->get(run->store, key, value))
            rig_die("%s: a record that nobody wrote", run->kind->name);
    }
    return span_end(&span, 1);
}

static struct sample scan_full(const struct run *run, bool back)
{
    struct span span = span_begin(run->bench, 1);
    uint32_t n = run->bench->records.n;

    for (; span_more(&span); span.ops++) {
        size_t rows = run->kind->scan(run->store, NULL, back, SIZE_MAX);

        if (rows != n)
            rig_die("%s: a scan of %zu rows, not %u", run->kind->name, rows, n);
    }
    return span_end(&span, n);
}

static struct sample scan_forward(const struct run *run)
{
    return scan_full(run, false);
}

static struct sample scan_backward(const struct run *run)
{
    return scan_full(run, true);
}

static struct sample scan_short(const struct run *run)
{
    struct span span = span_begin(run->bench, 4);
    uint32_t n = run->bench->records.n;
    uint8_t key[RIG_KEY];

    for (; span_more(&span); span.ops++) {
        uint32_t i = run->bench->uniform[span.ops % PICKS];
        size_t expected = n - i < SHORT_SCAN ? n - i : SHORT_SCAN;

        key_at(run, i, key);
        if (run->kind->scan(run->store, key, false, SHORT_SCAN) != expected)
            rig_die("%s: a short scan went wrong", run->kind->name);
    }
    return span_end(&span, 1);
}

static void update_one(const struct run *run, uint32_t i, uint64_t version)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];

    key_at(run, i, key);
    rig_value(&run->bench->records, run->bench->records.number[i], version,
              value);
    run->kind->update(run->store, key, value);
}

static struct sample update_uniform(const struct run *run)
{
    struct span span = span_begin(run->bench, 8);

    for (; span_more(&span); span.ops++)
        update_one(run, run->bench->uniform[span.ops % PICKS],
                   run->bench->version + span.ops);
    return span_end(&span, 1);
}

static struct sample update_batch(const struct run *run)
{
    const struct bench *bench = run->bench;
    struct span span = span_begin(bench, 1);
    uint8_t key[RIG_KEY], value[BATCH][RIG_VALUE];

    for (; span_more(&span); span.ops++) {
        run->kind->begin(run->store);
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t at = bench->uniform[(span.ops * BATCH + i) % PICKS];

            key_at(run, at, key);
            rig_value(&bench->records, bench->records.number[at],
                      bench->version + span.ops, value[i]);
            run->kind->update_in(run->store, key, value[i]);
        }
        run->kind->commit(run->store);
    }
    return span_end(&span, BATCH);
}

static struct sample mixed(const struct run *run)
{
    struct span span = span_begin(run->bench, 8);

    for (; span_more(&span); span.ops++) {
        uint32_t at = run->bench->zipf[span.ops % PICKS];

        if (span.ops % 2)
            update_one(run, at, run->bench->version + span.ops);
        else
            get_checked(run, at);
    }
    return span_end(&span, 1);
}

/* Distinct records.  An engine that has none left before the time is over is
 * done. */
static struct sample erase(const struct run *run)
{
    struct span span = span_begin(run->bench, 8);
    uint8_t key[RIG_KEY];

    for (; span.ops < run->bench->records.n && span_more(&span); span.ops++) {
        key_at(run, run->bench->shuffled[span.ops], key);
        run->kind->erase(run->store, key);
    }
    return span_end(&span, 1);
}

enum flags {
    FRESH = 1,   /* starts from an empty database */
    WRITES = 2,  /* settled afterwards */
    SYNC_TOO = 4 /* durability makes a difference to it */
};

struct workload {
    const char *name;
    struct sample (*run)(const struct run *run);
    int flags;
    bool chosen;
};

/* In this order, in one database from load-rand on. */
static struct workload workloads[] = {
    {"load-seq", load_sequential, FRESH | WRITES | SYNC_TOO, false},
    {"load-rand", load_random, FRESH | WRITES | SYNC_TOO, false},
    {"get-uniform", get_uniform, 0, false},
    {"get-zipf", get_zipf, 0, false},
    {"get-absent", get_absent, 0, false},
    {"scan-forward", scan_forward, 0, false},
    {"scan-backward", scan_backward, 0, false},
    {"scan-50", scan_short, 0, false},
    {"update", update_uniform, WRITES | SYNC_TOO, false},
    {"update-batch", update_batch, WRITES | SYNC_TOO, false},
    {"mixed-50-50", mixed, WRITES | SYNC_TOO, false},
    {"delete", erase, WRITES | SYNC_TOO, false},
};
enum { WORKLOADS = sizeof(workloads) / sizeof(workloads[0]) };

/* --- the run --------------------------------------------------------------- */

/* Operations per second of every round. */
struct results {
    double rate[SETTINGS][WORKLOADS][ENGINES][METRICS][RIG_ROUNDS_MAX];
};

static struct store_config config_of(const struct bench *bench,
                                     const struct setting *setting,
                                     const char *dir)
{
    uint64_t weight = (uint64_t)bench->records.n * (RIG_KEY + RIG_VALUE) / 6;

    return (struct store_config){
        .dir = dir,
        .memory_bytes = setting->memory_bytes ? setting->memory_bytes : weight,
        .log_bytes = 64 * MIB,
        .sync = setting->sync,
        .shared_file = bench->shared_file,
    };
}

/* Ours alone, whatever else lies in the folder that the user named. */
static void store_dir(const struct bench *bench, unsigned engine, char *dir,
                      size_t len)
{
    snprintf(dir, len, "%s/compare_sqlite.%s", bench->dir,
             engines[engine]->name);
}

static struct store *open_fresh(const struct bench *bench,
                                const struct setting *setting, unsigned engine)
{
    char dir[4096];
    struct store_config config;

    store_dir(bench, engine, dir, sizeof(dir));
    rig_remove_dir(dir);
    config = config_of(bench, setting, dir);
    return engines[engine]->open(&config);
}

/* Untimed: what a cell reads first should not depend on its place. */
static void warm_up(const struct run *run)
{
    run->kind->scan(run->store, NULL, false, SIZE_MAX);
    gets(run, run->bench->uniform);
}

static void measure(const struct run *run, const struct workload *workload,
                    double *rate[METRICS])
{
    uint64_t cpu = rig_cpu_ns();
    struct sample sample = workload->run(run);
    double whole_ns = sample.ns;

    if (workload->flags & WRITES) {
        uint64_t start = rig_now_ns();

        run->kind->settle(run->store);
        whole_ns += (double)(rig_now_ns() - start);
    }
    *rate[CALLS] = sample.ops / sample.ns * 1e9;
    *rate[SETTLED] = sample.ops / whole_ns * 1e9;
    *rate[PER_CPU] = sample.ops / (double)(rig_cpu_ns() - cpu) * 1e9;
}

static void turn(struct bench *bench, unsigned setting, unsigned w,
                 unsigned round, struct store *stores[ENGINES],
                 struct results *results)
{
    char text[16];

    printf("  %-14s", workloads[w].name);
    for (unsigned i = 0; i < ENGINES; i++) {
        unsigned e = (i + round) % ENGINES;
        struct run run = {bench, engines[e], NULL};
        double *rate[METRICS];

        for (unsigned m = 0; m < METRICS; m++)
            rate[m] = &results->rate[setting][w][e][m][round];
        if (workloads[w].flags & FRESH) {
            if (stores[e])
                engines[e]->close(stores[e]);
            stores[e] = open_fresh(bench, &settings[setting], e);
        }
        run.store = stores[e];
        measure(&run, &workloads[w], rate);
        if (workloads[w].run == load_random)
            warm_up(&run);
        printf("  %s %8s/s", engines[e]->name, rig_short(*rate[CALLS], text));
        fflush(stdout);
    }
    printf("\n");
    bench->version += UINT64_C(1) << 32;
}

static bool runs_in(const struct workload *workload,
                    const struct setting *setting)
{
    return workload->chosen && (!setting->sync || workload->flags & SYNC_TOO);
}

static void run_all(struct bench *bench, struct results *results)
{
    uint64_t start = rig_now_ns();

    for (unsigned round = 0; round < bench->rounds; round++) {
        uint64_t seed = rig_mix(round + 7u);

        rig_pick_uniform(seed, bench->records.n, bench->uniform, PICKS);
        rig_pick_zipf(seed, bench->records.n, bench->zipf, PICKS);
        rig_shuffle(seed, bench->records.n, bench->shuffled);
        for (unsigned s = 0; s < SETTINGS; s++) {
            struct store *stores[ENGINES] = {NULL, NULL};

            if (!settings[s].chosen)
                continue;
            printf("%4.0f s  round %u of %u, %s\n",
                   (double)(rig_now_ns() - start) / 1e9, round + 1,
                   bench->rounds, settings[s].name);
            for (unsigned w = 0; w < WORKLOADS; w++)
                if (runs_in(&workloads[w], &settings[s]))
                    turn(bench, s, w, round, stores, results);
            for (unsigned e = 0; e < ENGINES; e++)
                engines[e]->close(stores[e]);
        }
    }
    printf("%4.0f s  done\n", (double)(rig_now_ns() - start) / 1e9);
}

/* --- the report ---------------------------------------------------------- */

static void describe_engine(FILE *to, const struct bench *bench, unsigned s,
                            unsigned e)
{
    struct store_config config = config_of(bench, &settings[s], "");

    engines[e]->describe(to, &config);
}

static void write_json(FILE *to, const struct bench *bench,
                       struct results *results)
{
    char config[1024];

    for (unsigned s = 0; s < SETTINGS; s++)
        for (unsigned w = 0; w < WORKLOADS; w++)
            for (unsigned e = 0; e < ENGINES; e++) {
                FILE *text = fmemopen(config, sizeof(config), "w");

                if (!text)
                    rig_die("out of memory");
                fprintf(text, "%u records of %d+%d bytes; ", bench->records.n,
                        RIG_KEY, RIG_VALUE);
                describe_engine(text, bench, s, e);
                fclose(text);
                for (unsigned m = 0; m < METRICS; m++) {
                    struct rig_cell cell = {
                        .bench = "compare_sqlite",
                        .setting = settings[s].name,
                        .workload = workloads[w].name,
                        .engine = engines[e]->name,
                        .metric = metric_name[m],
                        .config = config,
                        .threads = 1,
                        .rounds = results->rate[s][w][e][m],
                        .n = bench->rounds,
                    };

                    if (settings[s].chosen &&
                        runs_in(&workloads[w], &settings[s]))
                        rig_json(to, &cell);
                }
            }
}

static void table_row(FILE *to, const struct bench *bench,
                      struct results *results, unsigned s, unsigned w)
{
    double(*rate)[METRICS][RIG_ROUNDS_MAX] = results->rate[s][w];
    char text[16];

    fprintf(to, "| %s |", workloads[w].name);
    for (unsigned e = 0; e < ENGINES; e++)
        fprintf(to, " %s |",
                rig_short(rig_median(rate[e][CALLS], bench->rounds), text));
    for (unsigned m = 0; m < METRICS; m++) {
        double ratio[RIG_ROUNDS_MAX];

        /* Of the turns of one round, then the median: what slowed a whole
         * round down slowed both. */
        for (unsigned r = 0; r < bench->rounds; r++)
            ratio[r] = rate[0][m][r] / rate[1][m][r];
        fprintf(to, m == CALLS ? " **%.2f** |" : " %.2f |",
                rig_median(ratio, bench->rounds));
    }
    for (unsigned e = 0; e < ENGINES; e++)
        fprintf(to, " %.0f |", rig_spread(rate[e][CALLS], bench->rounds));
    fputc('\n', to);
}

static void write_table(FILE *to, const struct bench *bench,
                        struct results *results)
{
    fprintf(to,
            "%u records of %d + %d bytes (incompressible); %u rounds in "
            "turns; cells of %.2f s.\nMedians; a ratio above 1 means that "
            "bftree is faster.\n",
            bench->records.n, RIG_KEY, RIG_VALUE, bench->rounds,
            (double)bench->cell_ns / 1e9);
    for (unsigned s = 0; s < SETTINGS; s++) {
        if (!settings[s].chosen)
            continue;
        fprintf(to, "\n**%s**: %s.\n\n", settings[s].name, settings[s].says);
        for (unsigned e = 0; e < ENGINES; e++) {
            fputs("* ", to);
            describe_engine(to, bench, s, e);
            fputc('\n', to);
        }
        fputs("\n| workload | bftree /s | sqlite /s | ratio "
              "| ratio with checkpoint | ratio per CPU second "
              "| bftree spread % | sqlite spread % |\n"
              "|---|---|---|---|---|---|---|---|\n",
              to);
        for (unsigned w = 0; w < WORKLOADS; w++)
            if (runs_in(&workloads[w], &settings[s]))
                table_row(to, bench, results, s, w);
    }
}

static FILE *open_result(const char *dir, const char *name)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "we");
    if (!file)
        rig_die("%s: cannot write it", path);
    return file;
}

static void report(const struct bench *bench, struct results *results,
                   const char *out)
{
    FILE *json, *table;

    rig_make_dir(out);
    json = open_result(out, "compare_sqlite.jsonl");
    write_json(json, bench, results);
    table = open_result(out, "compare_sqlite.md");
    fputs("```\n", table);
    rig_machine(table, bench->dir);
    fputs("```\n\n", table);
    write_table(table, bench, results);
    if (fclose(json) || fclose(table))
        rig_die("%s: cannot write the results", out);
    printf("\n");
    write_table(stdout, bench, results);
    printf("\nwritten: %s/compare_sqlite.jsonl, compare_sqlite.md\n", out);
}

/* --- the command line ------------------------------------------------------ */

struct arguments {
    uint32_t records;
    unsigned rounds, cell_ms;
    bool shared_file;
    const char *dir, *out;
};

static uint32_t number_of(const char *text, uint32_t least, uint32_t most)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;

    if (!text || *end || value < least || value > most)
        rig_die("'%s' is not a number from %u to %u", text ? text : "", least,
                most);
    return (uint32_t)value;
}

static void choose_setting(const char *name)
{
    for (unsigned s = 0; s < SETTINGS; s++)
        if (name && strcmp(name, settings[s].name) == 0) {
            settings[s].chosen = true;
            return;
        }
    rig_die("no setting '%s'", name ? name : "");
}

/* What reads needs what load-rand makes. */
static void choose_workload(const char *name)
{
    workloads[1].chosen = true;
    for (unsigned w = 0; w < WORKLOADS; w++)
        if (name && strcmp(name, workloads[w].name) == 0) {
            workloads[w].chosen = true;
            return;
        }
    rig_die("no workload '%s'", name ? name : "");
}

static struct arguments parse(int count, char **texts)
{
    struct arguments arguments = {
        200000, 3, 500, false, "build/bench-data", "build/results"};
    bool some_setting = false, some_workload = false;

    for (int i = 1; i < count; i++) {
        const char *name = texts[i], *value = texts[i + 1];

        if (strcmp(name, "--quick") == 0) {
            arguments.records = 60000;
            arguments.cell_ms = 150;
            continue;
        }
        if (strcmp(name, "--shared-file") == 0) {
            arguments.shared_file = true;
            continue;
        }
        i++;
        if (strcmp(name, "--rounds") == 0)
            arguments.rounds = number_of(value, 1, RIG_ROUNDS_MAX);
        else if (strcmp(name, "--records") == 0)
            arguments.records = number_of(value, 1000, 1u << 30);
        else if (strcmp(name, "--cell-ms") == 0)
            arguments.cell_ms = number_of(value, 1, 600000);
        else if (strcmp(name, "--dir") == 0 && value)
            arguments.dir = value;
        else if (strcmp(name, "--out") == 0 && value)
            arguments.out = value;
        else if (strcmp(name, "--setting") == 0)
            choose_setting(value), some_setting = true;
        else if (strcmp(name, "--workload") == 0)
            choose_workload(value), some_workload = true;
        else
            rig_die("'%s' is not understood: see the head of "
                    "compare_sqlite.c",
                    name);
    }
    for (unsigned s = 0; s < SETTINGS && !some_setting; s++)
        settings[s].chosen = true;
    for (unsigned w = 0; w < WORKLOADS && !some_workload; w++)
        workloads[w].chosen = true;
    return arguments;
}

static void clean_up(const struct bench *bench)
{
    char dir[4096];

    for (unsigned e = 0; e < ENGINES; e++) {
        store_dir(bench, e, dir, sizeof(dir));
        rig_remove_dir(dir);
    }
    rmdir(bench->dir); /* unless others use it */
}

int main(int count, char **texts)
{
    struct arguments arguments = parse(count, texts);
    struct bench bench = {
        .cell_ns = arguments.cell_ms * UINT64_C(1000000),
        .version = 1,
        .rounds = arguments.rounds,
        .shared_file = arguments.shared_file,
        .dir = arguments.dir,
    };
    struct results *results = calloc(1, sizeof(*results));

    rig_make_dir(bench.dir);
    rig_records_make(&bench.records, arguments.records);
    bench.uniform = calloc(PICKS, sizeof(*bench.uniform));
    bench.zipf = calloc(PICKS, sizeof(*bench.zipf));
    bench.shuffled = calloc(arguments.records, sizeof(*bench.shuffled));
    if (!results || !bench.uniform || !bench.zipf || !bench.shuffled)
        rig_die("out of memory");
    printf("compare_sqlite: how does bftree compare with SQLite at the same "
           "memory and durability?\nUnit: operations per second.\n\n");
    rig_machine(stdout, bench.dir);
    printf("\n");
    run_all(&bench, results);
    report(&bench, results, arguments.out);
    clean_up(&bench);
    rig_records_free(&bench.records);
    free(bench.shuffled);
    free(bench.zipf);
    free(bench.uniform);
    free(results);
    return 0;
}
