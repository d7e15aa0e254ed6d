/*
 * The question: how much memory does the engine really take, beside its budget,
 * when the data is one to twenty times as large?
 *
 * Each cell is a process of its own.  It opens an empty database, notes its
 * anonymous resident bytes, and then loads, reads, updates and scans at random,
 * looking at /proc/self/smaps_rollup all the while.  Pages of files, which the
 * mapped log is, are told apart: the system takes those back as it likes.
 */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bftree.h"
#include "support/rig.h"

enum { WORKERS_MAX = 16, LOOK_EVERY = 4000, RECORD = RIG_KEY + RIG_VALUE };

enum phase { LOAD, READ, UPDATE, SCAN, PHASES };
static const char *const phase_names[PHASES] = {"load", "read", "update",
                                                "scan"};

struct arguments {
    uint64_t budget;
    double factors[16];
    unsigned factors_n, threads, leaf_bytes;
    bool no_threads, with_threads, maps;
    const char *dir;
};

struct cell {
    const struct arguments *arguments;
    bft_db *db;
    bft_tree *tree;
    uint64_t records;
    uint64_t base; /* of an opened empty database */
    _Atomic uint64_t most, most_file, most_used;
    enum phase phase;
};

struct worker {
    struct cell *cell;
    uint64_t from, until; /* operations */
    pthread_t thread;
};

static void check(bft_status status)
{
    char text[512];

    if (status == BFT_OK)
        return;
    bft_last_error(text, sizeof(text));
    rig_die("bftree: %s: %s", bft_strerror(status), text);
}

/* --- looking -------------------------------------------------------------- */

static void raise_to(_Atomic uint64_t *figure, uint64_t value)
{
    uint64_t seen = atomic_load(figure);

    while (seen < value && !atomic_compare_exchange_weak(figure, &seen, value))
        ;
}

static struct rig_memory note(struct cell *cell)
{
    bft_stats stats = {.size = sizeof(stats)};
    struct rig_memory now = rig_look();

    check(bft_stats_read(cell->db, &stats));
    raise_to(&cell->most, now.anonymous);
    raise_to(&cell->most_file, now.file);
    raise_to(&cell->most_used, stats.memory_used_bytes);
    return now;
}

/* The larger anonymous mappings, to see what the memory is. */
static void print_maps(void)
{
    char line[512], name[512] = "";
    uint64_t value, size = 0;
    FILE *from = fopen("/proc/self/smaps", "re");

    while (from && fgets(line, sizeof(line), from)) {
        unsigned long long low, high;

        if (sscanf(line, "%llx-%llx", &low, &high) == 2) {
            size = high - low;
            snprintf(name, sizeof(name), "%s", line);
            name[strcspn(name, "\n")] = 0;
        } else if (sscanf(line, "Anonymous: %" SCNu64, &value) == 1 &&
                   value >= 256) {
            printf("    %8" PRIu64 " KiB of %8" PRIu64 "  %s\n", value,
                   size / 1024, name);
        }
    }
    if (from)
        fclose(from);
}

/* --- work ----------------------------------------------------------------- */

static void key_of(uint64_t record, uint8_t key[RIG_KEY])
{
    rig_key(rig_mix(record + 1), key);
}

static void put(const struct cell *cell, uint64_t record, uint64_t version)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    uint64_t word = rig_mix(record ^ rig_mix(version));

    for (size_t i = 0; i < sizeof(value); i++) {
        if (i % 8 == 0)
            word = rig_mix(word + i);
        value[i] = (uint8_t)(word >> i % 8 * 8);
    }
    key_of(record, key);
    check(bft_put(cell->tree, (bft_slice){key, sizeof(key)},
                  (bft_slice){value, sizeof(value)}));
}

static void get(const struct cell *cell, uint64_t record)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len;

    key_of(record, key);
    check(bft_get(cell->tree, (bft_slice){key, sizeof(key)}, value,
                  sizeof(value), &len));
}

static void scan(const struct cell *cell, uint64_t record)
{
    uint8_t key[RIG_KEY];
    bft_cursor *cursor;
    bft_status status;

    key_of(record, key);
    check(bft_cursor_open(cell->tree, &cursor));
    status = bft_cursor_seek(cursor, BFT_GE, (bft_slice){key, sizeof(key)});
    for (int i = 0; i < 100 && status == BFT_OK; i++)
        status = bft_cursor_next(cursor);
    if (status != BFT_NOT_FOUND)
        check(status);
    bft_cursor_close(cursor);
}

static void *work(void *arg)
{
    const struct worker *worker = arg;
    struct cell *cell = worker->cell;
    struct rig_random random = {worker->from + 77 * (uint64_t)cell->phase};

    for (uint64_t i = worker->from; i < worker->until; i++) {
        uint64_t record = rig_random_below(&random, cell->records);

        if (cell->phase == LOAD)
            put(cell, i, 0);
        else if (cell->phase == READ)
            get(cell, record);
        else if (cell->phase == UPDATE)
            put(cell, record, i);
        else
            scan(cell, record);
        if (i % LOOK_EVERY == 0)
            (void)note(cell);
    }
    return NULL;
}

static uint64_t phase_count(const struct cell *cell)
{
    return cell->phase == LOAD   ? cell->records
           : cell->phase == SCAN ? cell->records / 40
                                 : cell->records / 4;
}

static void run_phase(struct cell *cell)
{
    struct worker worker[WORKERS_MAX];
    unsigned n = cell->arguments->no_threads ? 1 : cell->arguments->threads;
    uint64_t count = phase_count(cell);

    for (unsigned i = 0; i < n; i++) {
        worker[i].cell = cell;
        worker[i].from = count * i / n;
        worker[i].until = count * (i + 1) / n;
        if (pthread_create(&worker[i].thread, NULL, work, &worker[i]) != 0)
            rig_die("no thread");
    }
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(worker[i].thread, NULL);
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Resident bytes more than the empty database had. */
static double mib_over(const struct cell *cell, uint64_t bytes)
{
    return mib(bytes) - mib(cell->base);
}

static void report(struct cell *cell, double factor, uint64_t ns)
{
    const struct arguments *a = cell->arguments;
    struct rig_memory now = note(cell);
    double most = mib_over(cell, atomic_load(&cell->most));

    printf("%5.0f  %-10s %-7s %9.1f %9.1f %9.1f %9.1f  %+6.1f%% %9.1f %9.0f\n",
           factor, a->no_threads ? "foreground" : "threads",
           phase_names[cell->phase], mib(a->budget),
           mib(atomic_load(&cell->most_used)), most,
           mib_over(cell, now.anonymous), 100 * (most / mib(a->budget) - 1),
           mib(atomic_load(&cell->most_file)),
           (double)phase_count(cell) * 1e6 / (double)ns);
    fflush(stdout);
}

static void run_cell(const struct arguments *arguments, double factor)
{
    struct cell cell = {.arguments = arguments};
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = arguments->budget,
                           .leaf_bytes = arguments->leaf_bytes,
                           .no_threads = arguments->no_threads};

    rig_remove_dir(arguments->dir);
    check(bft_open(arguments->dir, &options, &cell.db));
    check(bft_tree_open(cell.db, "t", NULL, &cell.tree));
    cell.records = (uint64_t)(factor * (double)arguments->budget / RECORD);
    cell.base = rig_look().anonymous;
    for (cell.phase = LOAD; cell.phase < PHASES; cell.phase++) {
        uint64_t begin = rig_now_ns();

        atomic_store(&cell.most, 0);
        atomic_store(&cell.most_file, 0);
        atomic_store(&cell.most_used, 0);
        run_phase(&cell);
        report(&cell, factor, rig_now_ns() - begin);
    }
    if (arguments->maps)
        print_maps();
    check(bft_close(cell.db));
    rig_remove_dir(arguments->dir);
}

/* In a process of its own: what one cell leaves behind is not the next one's. */
static void run_alone(const struct arguments *arguments, double factor)
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0)
        rig_die("no process");
    if (child == 0) {
        run_cell(arguments, factor);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        rig_die("a cell failed");
}

/* --- the command line ------------------------------------------------------ */

static void usage(void)
{
    fputs("resident [OPTION]...\n"
          "  --budget MIB     64\n"
          "  --factor N       data, in budgets; may be given again: 1 5 10 20\n"
          "  --threads N      that write and read: 2\n"
          "  --leaf BYTES     4096\n"
          "  --foreground     only without background threads\n"
          "  --background     only with them\n"
          "  --maps           name the larger mappings at the end of a cell\n"
          "  --dir DIR        build/bench-data/resident\n",
          stderr);
    exit(2);
}

static void parse(int argc, char **argv, struct arguments *a)
{
    static const struct option known[] = {
        {"budget", required_argument, NULL, 'b'},
        {"factor", required_argument, NULL, 'f'},
        {"threads", required_argument, NULL, 't'},
        {"leaf", required_argument, NULL, 'l'},
        {"foreground", no_argument, NULL, 'F'},
        {"background", no_argument, NULL, 'B'},
        {"maps", no_argument, NULL, 'm'},
        {"dir", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'b')
            a->budget = strtoull(optarg, NULL, 10) << 20;
        else if (option == 'f' && a->factors_n < 16)
            a->factors[a->factors_n++] = strtod(optarg, NULL);
        else if (option == 't')
            a->threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'l')
            a->leaf_bytes = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'F')
            a->with_threads = false;
        else if (option == 'B')
            a->no_threads = false;
        else if (option == 'm')
            a->maps = true;
        else if (option == 'd')
            a->dir = optarg;
        else
            usage();
    }
    if (optind != argc || a->budget == 0 || a->threads == 0 ||
        a->threads > WORKERS_MAX)
        usage();
}

int main(int argc, char **argv)
{
    const double usual[] = {1, 5, 10, 20};
    struct arguments a = {.budget = 64 << 20,
                          .threads = 2,
                          .no_threads = true,
                          .with_threads = true,
                          .dir = "build/bench-data/resident"};
    struct arguments with;

    parse(argc, argv, &a);
    for (unsigned i = 0; a.factors_n == 0 || i < a.factors_n; i++) {
        if (a.factors_n == 0) {
            memcpy(a.factors, usual, sizeof(usual));
            a.factors_n = sizeof(usual) / sizeof(*usual);
        }
        if (i == 0) {
            rig_machine(stdout, "/");
            printf("\nMemory in MiB: what the engine says it uses at most, and "
                   "anonymous resident memory\nbeyond that of an opened empty "
                   "database; pages of files apart.\n\n"
                   "%5s  %-10s %-7s %9s %9s %9s %9s  %7s %9s %9s\n",
                   "data", "work", "phase", "budget", "used", "most", "at end",
                   "over", "files", "krec/s");
        }
        with = a;
        with.no_threads = false;
        if (a.no_threads)
            run_alone(&a, a.factors[i]);
        if (a.with_threads)
            run_alone(&with, a.factors[i]);
    }
    return 0;
}
