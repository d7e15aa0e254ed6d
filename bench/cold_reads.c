/*
 * The question: what does it cost to read records that neither the engine nor the
 * system has in memory, one by one, in multi-gets and in scans, by each way of
 * reading files?
 *
 * Records are loaded in bulk, far more than the budget.  Before each cell the
 * database is opened anew and the system's cache of its files dropped; the cells
 * of a round take turns.
 */
#include <inttypes.h>
#include <string.h>

#include "support/bftree_calls.h"
#include "support/command.h"
#include "support/keyspace_load.h"

enum { ROUNDS_MAX = RIG_ROUNDS_MAX, GETS = 100, ROWS_SHORT = 50, ROWS = 2000 };

static const struct {
    const char *name;
    bft_backend backend;
} backends[] = {
    {"posix", BFT_BACKEND_POSIX},
    {"direct", BFT_BACKEND_DIRECT},
    {"uring", BFT_BACKEND_URING},
};
enum { BACKENDS = sizeof(backends) / sizeof(*backends) };

enum work { GET, MULTI_GET, SCAN_SHORT, SCAN_LONG, WORKS };
static const struct {
    const char *name;
    unsigned records; /* of a call */
} works[WORKS] = {
    [GET] = {"get", 1},
    [MULTI_GET] = {"multi-get-100", GETS},
    [SCAN_SHORT] = {"scan-50", ROWS_SHORT},
    [SCAN_LONG] = {"scan-2000", ROWS},
};

struct arguments {
    uint64_t records, budget, leaf_bytes;
    unsigned rounds, reads;
    const char *dir, *out;
};

struct run {
    const struct arguments *arguments;
    struct keyspace keys;
    struct rig_random random;
    bft_db *db;
    bft_tree *tree;
};

/* --- the database ------------------------------------------------------------ */

static void told(void *ctx, bft_status status, const char *text)
{
    (void)ctx;
    if (status == BFT_UNSUPPORTED)
        rig_die("the system refuses a way of reading: %s", text);
}

static void open_database(struct run *run, bft_backend backend)
{
    const struct arguments *a = run->arguments;
    bft_options options = {.size = sizeof(bft_options),
                           .memory_bytes = a->budget,
                           .backend = backend,
                           .report = told};
    bft_tree_options tree = {.size = sizeof(bft_tree_options),
                             .leaf_bytes = (uint32_t)a->leaf_bytes};

    must(bft_open(a->dir, &options, &run->db), "open");
    must(bft_tree_open(run->db, "t", &tree, &run->tree), "open the tree");
}

static void fill(struct run *run)
{
    rig_remove_dir(run->arguments->dir);
    open_database(run, BFT_BACKEND_POSIX);
    (void)keyspace_load(&run->keys, run->tree);
    must(bft_close(run->db), "close");
}

/* --- calls ------------------------------------------------------------------- */

static void draw(struct run *run, uint64_t room, uint8_t key[RIG_KEY])
{
    uint64_t bound = run->keys.n - room;

    keyspace_key(&run->keys, rig_random_below(&run->random, bound), key);
}

static void expect(const struct run *run, const uint8_t key[RIG_KEY],
                   const uint8_t *value, size_t len)
{
    if (len != RIG_VALUE || !keyspace_value_fits(&run->keys, key, value))
        rig_die("a record holds another's value");
}

static void get(struct run *run)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len;

    draw(run, 0, key);
    must(bft_get(run->tree, slice(key, RIG_KEY), value, sizeof(value), &len),
         "get");
    expect(run, key, value, len);
}

static void multi_get(struct run *run)
{
    static uint8_t key[GETS][RIG_KEY], value[GETS][RIG_VALUE];
    bft_answer item[GETS];

    for (unsigned i = 0; i < GETS; i++) {
        draw(run, 0, key[i]);
        item[i] = (bft_answer){.key = slice(key[i], RIG_KEY),
                               .buf = value[i],
                               .buf_len = RIG_VALUE};
    }
    must(bft_multi_get(run->tree, item, GETS), "multi-get");
    for (unsigned i = 0; i < GETS; i++)
        expect(run, key[i], value[i], item[i].value_len);
}

static void scan(struct run *run, unsigned rows)
{
    uint8_t key[RIG_KEY];
    bft_cursor *cursor;
    bft_status status;

    draw(run, rows, key);
    must(bft_cursor_open(run->tree, &cursor), "open a cursor");
    status = bft_cursor_seek(cursor, BFT_GE, slice(key, RIG_KEY));
    for (unsigned i = 0; i < rows; i++) {
        bft_slice at, value;

        must(status, "scan");
        must(bft_cursor_record(cursor, &at, &value), "read a record");
        status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
}

/* --- a cell ------------------------------------------------------------------ */

/* Microseconds for each record. */
static double measure(struct run *run, bft_backend backend, enum work work)
{
    unsigned calls = run->arguments->reads / works[work].records + 1;
    uint64_t begin, ns;

    open_database(run, backend);
    (void)rig_drop_cache(run->arguments->dir, false);
    begin = rig_now_ns();
    for (unsigned i = 0; i < calls; i++)
        switch (work) {
        case GET:
            get(run);
            break;
        case MULTI_GET:
            multi_get(run);
            break;
        default:
            scan(run, works[work].records);
            break;
        }
    ns = rig_now_ns() - begin;
    must(bft_close(run->db), "close");
    return (double)ns / 1e3 / calls / works[work].records;
}

static void report(FILE *json, const struct run *run, unsigned backend,
                   enum work work, const double *rounds)
{
    const struct arguments *a = run->arguments;
    char config[256];
    struct rig_cell cell = {.bench = "cold_reads",
                            .setting = backends[backend].name,
                            .workload = works[work].name,
                            .engine = "bftree",
                            .metric = "us_per_record",
                            .config = config,
                            .threads = 1,
                            .rounds = rounds,
                            .n = a->rounds};

    snprintf(config, sizeof(config),
             "%" PRIu64 " records of %d+%d bytes, leaves of %" PRIu64
             "; budget %.0f MiB",
             a->records, RIG_KEY, RIG_VALUE, a->leaf_bytes, rig_mib(a->budget));
    rig_json(json, &cell);
    printf(" %8.2f %4.0f%%", rig_median(rounds, a->rounds),
           rig_spread(rounds, a->rounds));
}

static void run_all(struct run *run, FILE *json)
{
    const struct arguments *a = run->arguments;
    static double us[WORKS][BACKENDS][ROUNDS_MAX];

    fill(run);
    for (unsigned round = 0; round < a->rounds; round++)
        for (unsigned work = 0; work < WORKS; work++)
            for (unsigned b = 0; b < BACKENDS; b++)
                us[work][b][round] =
                    measure(run, backends[b].backend, (enum work)work);
    printf("%-14s", "");
    for (unsigned b = 0; b < BACKENDS; b++)
        printf(" %14s", backends[b].name);
    printf("\n");
    for (unsigned work = 0; work < WORKS; work++) {
        printf("%-14s", works[work].name);
        for (unsigned b = 0; b < BACKENDS; b++)
            report(json, run, b, (enum work)work, us[work][b]);
        printf("\n");
    }
}

/* --- the command line ------------------------------------------------------ */

static void parse(int argc, char **argv, struct arguments *a)
{
    const struct command_option options[] = {
        {"records", COMMAND_BIG, &a->records, ROWS + 1, 0, "in the database"},
        {"budget", COMMAND_MIB, &a->budget, 1, 0, "of memory"},
        {"leaf", COMMAND_BIG, &a->leaf_bytes, 512, 1 << 16, "bytes"},
        {"reads", COMMAND_COUNT, &a->reads, 1, 0, "records of a cell"},
        {"rounds", COMMAND_COUNT, &a->rounds, 1, ROUNDS_MAX, "to take"},
        {"dir", COMMAND_TEXT, &a->dir, 0, 0, "for the database"},
        {"out", COMMAND_TEXT, &a->out, 0, 0, "for the results"},
    };

    command_parse(argc, argv, options, sizeof(options) / sizeof(*options));
}

int main(int argc, char **argv)
{
    struct arguments a = {.records = 4000000,
                          .budget = 16 << 20,
                          .leaf_bytes = 4096,
                          .reads = 10000,
                          .rounds = 5,
                          .dir = "build/bench-data/cold_reads",
                          .out = "build/results"};
    struct run run = {.arguments = &a, .random = {.state = 1}};
    FILE *json;

    parse(argc, argv, &a);
    keyspace_make(&run.keys, a.records, RIG_VALUE);
    rig_make_dir(a.dir);
    json = rig_results(a.out, "cold_reads");
    rig_machine(stdout, a.dir);
    printf("\nMicroseconds for each record, none of them in memory.\n\n");
    run_all(&run, json);
    rig_results_written(json, a.out, "cold_reads");
    rig_remove_dir(a.dir);
    return 0;
}
