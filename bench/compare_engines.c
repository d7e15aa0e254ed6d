/*
 * The question: how does this engine compare with what a user would pick
 * instead, each tuned as its own documentation advises, in memory, with ten
 * times the data that memory holds, and with every commit on the disk?
 *
 * See usage() for the options and README.md for what is measured and how.
 * Units are operations per second (rows for loads and full scans, records for
 * batches and multi-gets).
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/turns.h"

const struct peer_kind *const peer_kinds[] = {
    &peer_bftree,
#if BENCH_SQLITE
    &peer_sqlite,
#endif
#if BENCH_LMDB
    &peer_lmdb,
#endif
#if BENCH_ROCKSDB
    &peer_rocksdb,
#endif
#if BENCH_LEVELDB
    &peer_leveldb,
#endif
#if BENCH_WIREDTIGER
    &peer_wiredtiger,
#endif
#if BENCH_BF_TREE_RUST
    &peer_bf_tree_rust,
#endif
    NULL,
};

enum { HEADROOM_MIB = 16, LARGER_FACTOR = 10 };

static const char usage_text[] =
    "compare_engines [OPTION]...\n"
    "  --quick            little data, short cells, one value length: 3 "
    "minutes\n"
    "  --full             every product of workloads, lengths, draws, threads\n"
    "  --engine NAME      only this one; may be given again, as the next five\n"
    "  --setting NAME     memory, larger, sync\n"
    "  --workload NAME    ycsb-a, load-seq, ...: see --list\n"
    "  --draw NAME        uniform, zipf (for workloads that know it)\n"
    "  --value BYTES      20..1024\n"
    "  --threads N        1..16\n"
    "  --rounds N         1..32\n"
    "  --records N        in memory and sync\n"
    "  --budget MIB       of the setting larger, which has ten times the data\n"
    "  --headroom MIB     what the bound leaves for the program: 16\n"
    "  --cell-ms N        of reading cells;  --write-ms N  of writing ones\n"
    "  --dir DIR          for databases;  --out DIR  for results\n"
    "  --resume           go on with a run that was broken off\n"
    "  --list             name engines, settings and cells, and end\n"
    "  --help             this text\n";

struct arguments {
    struct grid_choice choice;
    const char *engines[GRID_ENGINES];
    unsigned engines_n;
    uint64_t rounds, records, budget_mib, headroom_mib, cell_ms, write_ms;
    const char *dir, *out;
    bool resume, list;
};

static void usage(int code)
{
    fputs(usage_text, code ? stderr : stdout);
    exit(code);
}

static uint64_t number_of(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (*end || end == text || value < least || value > most)
        rig_die("'%s' is not a number from %llu to %llu", text,
                (unsigned long long)least, (unsigned long long)most);
    return value;
}

static unsigned index_of(const char *const *names, unsigned n, const char *name,
                         const char *what)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    rig_die("no %s '%s': see --list", what, name);
}

static enum workload workload_of(const char *name)
{
    for (unsigned w = 0; w < WORKLOADS; w++)
        if (strcmp(workload_info[w].name, name) == 0)
            return (enum workload)w;
    rig_die("no workload '%s': see --list", name);
}

enum option_code {
    QUICK = 256,
    FULL,
    ENGINE,
    SETTING,
    WORKLOAD,
    DRAW,
    VALUE,
    THREADS,
    ROUNDS,
    RECORDS,
    BUDGET,
    HEADROOM,
    CELL_MS,
    WRITE_MS,
    DIR_OPTION,
    OUT,
    RESUME,
    LIST,
    HELP,
};

static const struct option options[] = {
    {"quick", no_argument, NULL, QUICK},
    {"full", no_argument, NULL, FULL},
    {"engine", required_argument, NULL, ENGINE},
    {"setting", required_argument, NULL, SETTING},
    {"workload", required_argument, NULL, WORKLOAD},
    {"draw", required_argument, NULL, DRAW},
    {"value", required_argument, NULL, VALUE},
    {"threads", required_argument, NULL, THREADS},
    {"rounds", required_argument, NULL, ROUNDS},
    {"records", required_argument, NULL, RECORDS},
    {"budget", required_argument, NULL, BUDGET},
    {"headroom", required_argument, NULL, HEADROOM},
    {"cell-ms", required_argument, NULL, CELL_MS},
    {"write-ms", required_argument, NULL, WRITE_MS},
    {"dir", required_argument, NULL, DIR_OPTION},
    {"out", required_argument, NULL, OUT},
    {"resume", no_argument, NULL, RESUME},
    {"list", no_argument, NULL, LIST},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

static void room_for(unsigned n, unsigned most)
{
    if (n == most)
        rig_die("an option too many");
}

/* The options that choose cells. */
static bool take_choice(struct grid_choice *choice, int code, const char *text)
{
    switch (code) {
    case QUICK:
        choice->level = GRID_QUICK;
        return true;
    case FULL:
        choice->level = GRID_FULL;
        return true;
    case SETTING:
        choice
            ->settings[index_of(setting_name, GRID_SETTINGS, text, "setting")] =
            true;
        choice->settings_n++;
        return true;
    case WORKLOAD:
        choice->workloads[workload_of(text)] = true;
        choice->workloads_n++;
        return true;
    case DRAW:
        room_for(choice->draws_n, GRID_CHOICES);
        choice->draws[choice->draws_n++] =
            (enum distribution)index_of(draw_name, 2, text, "draw");
        return true;
    case VALUE:
        room_for(choice->values_n, GRID_CHOICES);
        choice->values[choice->values_n++] =
            (size_t)number_of(text, 20, PEER_VALUE_MAX);
        return true;
    case THREADS:
        room_for(choice->threads_n, GRID_CHOICES);
        choice->threads[choice->threads_n++] =
            (unsigned)number_of(text, 1, CELL_THREADS_MAX);
        return true;
    default:
        return false;
    }
}

static void take(struct arguments *arguments, int code, const char *text)
{
    switch (code) {
    case ENGINE:
        room_for(arguments->engines_n, GRID_ENGINES);
        arguments->engines[arguments->engines_n++] = text;
        break;
    case ROUNDS:
        arguments->rounds = number_of(text, 1, RIG_ROUNDS_MAX);
        break;
    case RECORDS:
        arguments->records = number_of(text, 1000, 1u << 30);
        break;
    case BUDGET:
        arguments->budget_mib = number_of(text, 8, 1u << 16);
        break;
    case HEADROOM:
        arguments->headroom_mib = number_of(text, 1, 1u << 16);
        break;
    case CELL_MS:
        arguments->cell_ms = number_of(text, 1, 600000);
        break;
    case WRITE_MS:
        arguments->write_ms = number_of(text, 1, 600000);
        break;
    case DIR_OPTION:
        arguments->dir = text;
        break;
    case OUT:
        arguments->out = text;
        break;
    case RESUME:
        arguments->resume = true;
        break;
    case LIST:
        arguments->list = true;
        break;
    case HELP:
        usage(0);
        break;
    default:
        usage(2);
    }
}

static struct arguments parse(int count, char **texts)
{
    struct arguments arguments = {
        .choice = {.level = GRID_DEFAULT},
        .headroom_mib = HEADROOM_MIB,
        .dir = "build/bench-data",
        .out = "build/results",
    };
    int code;

    while ((code = getopt_long(count, texts, "", options, NULL)) != -1)
        if (!take_choice(&arguments.choice, code, optarg))
            take(&arguments, code, optarg);
    if (optind < count)
        usage(2);
    return arguments;
}

/* --- the run ------------------------------------------------------------------- */

static void choose_engines(struct run *run, const struct arguments *arguments)
{
    for (unsigned k = 0; peer_kinds[k]; k++) {
        bool wanted = arguments->engines_n == 0;

        for (unsigned i = 0; i < arguments->engines_n; i++)
            wanted = wanted ||
                     strcmp(arguments->engines[i], peer_kinds[k]->name) == 0;
        if (wanted)
            run->engines[run->engines_n++] = peer_kinds[k];
    }
    for (unsigned i = 0; i < arguments->engines_n; i++) {
        bool known = false;

        for (unsigned e = 0; e < run->engines_n; e++)
            known = known ||
                    strcmp(arguments->engines[i], run->engines[e]->name) == 0;
        if (!known)
            rig_die("no engine '%s' in this program: see --list",
                    arguments->engines[i]);
    }
}

/* Eight times the records, so that nobody evicts; a power of two, because one
 * engine asks for that. */
static uint64_t ample_bytes(uint64_t data_bytes)
{
    uint64_t bytes = 64 * PEER_MIB;

    while (bytes < 8 * data_bytes)
        bytes *= 2;
    return bytes;
}

static struct group_size size_of(const struct arguments *arguments,
                                 const struct grid_cell *cell, unsigned threads)
{
    bool quick = arguments->choice.level == GRID_QUICK;
    uint64_t weight = RIG_KEY + cell->value_len;
    bool sync = cell->setting == PEER_SYNC;
    struct group_size size = {.threads = threads};
    uint64_t read_ms = quick ? 100 : 1000, write_ms = quick ? 100 : 2000;

    if (cell->setting == PEER_LARGER) {
        uint64_t mib = arguments->budget_mib ? arguments->budget_mib
                       : quick               ? 12
                                             : 64;

        size.memory_bytes = mib * PEER_MIB;
        size.bound_bytes = (mib + arguments->headroom_mib) * PEER_MIB;
        size.records = LARGER_FACTOR * size.memory_bytes / weight;
        /* A minute for each engine is too long to do twice. */
        size.rounds =
            quick || workload_info[cell->workload].mostly_writes ? 1 : 2;
        write_ms = quick ? 200 : 60000;
        read_ms = quick ? 100 : 3000;
    } else {
        /* About as many bytes, whatever the length of a value. */
        uint64_t bytes = quick ? 6 * PEER_MIB : (sync ? 24 : 120) * PEER_MIB;

        size.records = arguments->records ? arguments->records : bytes / weight;
        size.memory_bytes = ample_bytes(size.records * weight);
        size.rounds = quick ? 2 : 3;
        if (sync && quick) /* a commit takes from 30 us to 5 ms */
            write_ms = 300;
    }
    if (arguments->rounds)
        size.rounds = (unsigned)arguments->rounds;
    size.read_ns =
        (arguments->cell_ms ? arguments->cell_ms : read_ms) * 1000000;
    size.write_ns =
        (arguments->write_ms ? arguments->write_ms : write_ms) * 1000000;
    return size;
}

static unsigned most_threads(const struct run *run, size_t cell)
{
    unsigned most = 1;

    for (size_t c = 0; c < run->cells_n; c++)
        if (same_group(&run->cells[c], &run->cells[cell]) &&
            run->cells[c].threads > most)
            most = run->cells[c].threads;
    return most;
}

static void plan(struct run *run, const struct arguments *arguments)
{
    run->cells_n = grid_make(&arguments->choice, run->cells);
    if (!run->cells_n)
        rig_die("no cell is chosen: see --list");
    for (size_t c = 0; c < run->cells_n; c++)
        run->size[c] = size_of(arguments, &run->cells[c], most_threads(run, c));
    run->ascending_fill = arguments->choice.level == GRID_QUICK;
    run->results = calloc(run->cells_n * run->engines_n, sizeof(*run->results));
    if (!run->results)
        rig_die("out of memory");
    run->dir = arguments->dir;
    run->out = arguments->out;
    snprintf(run->parameters, sizeof(run->parameters),
             "compare_engines 1 level %d records %llu budget %llu+%llu cell "
             "%llu write %llu",
             (int)arguments->choice.level,
             (unsigned long long)arguments->records,
             (unsigned long long)arguments->budget_mib,
             (unsigned long long)arguments->headroom_mib,
             (unsigned long long)arguments->cell_ms,
             (unsigned long long)arguments->write_ms);
}

/* Cells alone: loads, warming up and debts come on top. */
static double planned_seconds(const struct run *run)
{
    double seconds = 0;

    for (size_t c = 0; c < run->cells_n; c++) {
        const struct group_size *size = &run->size[c];
        bool writing = workload_info[run->cells[c].workload].mostly_writes;

        seconds += (double)(writing ? size->write_ns : size->read_ns) / 1e9 *
                   size->rounds * run->engines_n;
    }
    return seconds;
}

static void list(const struct run *run)
{
    char setting[32], workload[32];

    printf("engines:");
    for (unsigned k = 0; peer_kinds[k]; k++)
        printf(" %s", peer_kinds[k]->name);
    printf("\n%zu cells:\n", run->cells_n);
    for (size_t c = 0; c < run->cells_n; c++) {
        grid_setting_text(&run->cells[c], setting);
        grid_workload_text(&run->cells[c], workload);
        printf("  %s %s, %u threads, %u rounds\n", setting, workload,
               run->cells[c].threads, run->size[c].rounds);
    }
    printf("about %.0f s in cells; loads and debts come on top\n",
           planned_seconds(run));
}

static void describe_machine(struct run *run)
{
    FILE *text = fmemopen(run->machine, sizeof(run->machine), "w");

    if (!text)
        rig_die("out of memory");
    rig_machine(text, run->dir);
    fclose(text);
    fputs(run->machine, stdout);
}

int main(int count, char **texts)
{
    struct arguments arguments = parse(count, texts);
    struct run *run = calloc(1, sizeof(*run));

    if (!run)
        rig_die("out of memory");
    choose_engines(run, &arguments);
    plan(run, &arguments);
    if (arguments.list) {
        list(run);
        return 0;
    }
    rig_make_dir(run->dir);
    printf("compare_engines: how does bftree compare with what a user would "
           "pick instead?\nUnit: operations per second.\n\n");
    describe_machine(run);
    printf("%zu cells, %u engines, about %.0f s in cells\n\n", run->cells_n,
           run->engines_n, planned_seconds(run));
    results_begin(run, arguments.resume);
    limits_measure(&run->limits, run->dir,
                   arguments.choice.level == GRID_QUICK ? 0.2 : 1);
    turns_run(run);
    results_write(run, stdout);
    printf("\nwritten: %s/compare_engines.jsonl, compare_engines.md\n",
           run->out);
    rmdir(run->dir); /* unless others use it */
    free(run->results);
    free(run);
    return 0;
}
