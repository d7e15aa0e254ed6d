/*
 * The question: do two threads get twice as much done as one, do they get what
 * two processes get that share nothing, and what becomes of it with many more
 * threads than processors?
 *
 * All in memory, without files; every worker has a part of the keys of its own.
 * The database has the same records in every run, of which a worker uses a half,
 * or less where there are more than two.  Each run is a process of its own.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/bftree_calls.h"
#include "support/command.h"
#include "support/histogram.h"

enum {
    THREADS_MANY = 16,
    ROUNDS_MAX = RIG_ROUNDS_MAX,
    SCAN = 50,
    SAMPLE_EVERY = 16,
};

enum work { GET, SCAN_50, PUT, WORKS };
static const char *const work_name[WORKS] = {"get", "scan-50", "put"};

/* One process with one, two or many threads; or two processes with one. */
enum side { ONE, TWO, TWO_PROCESSES, MANY, SIDES };
static const char *const side_name[SIDES] = {"1 thread", "2 threads",
                                             "2 processes", "16 threads"};

struct arguments {
    unsigned records, rounds, ms;
    const char *out;
};

/* Of a process; it crosses a pipe. */
struct outcome {
    double rate;    /* operations a second, of scans rows */
    double us_p999; /* of a call */
};

struct run {
    const struct arguments *arguments;
    const struct rig_records *records;
    enum work work;
    unsigned threads, parts;
    bft_tree *tree;
    _Atomic int phase; /* WARM, then COUNT, then STOP */
};
enum { WARM, COUNT, STOP };

/* On lines of its own: it counts. */
struct worker {
    _Alignas(128) struct run *run;
    pthread_t thread;
    unsigned part;
    uint64_t done, calls;
    int phase;                /* as last seen */
    struct histogram latency; /* of every SAMPLE_EVERY'th call */
};

/* Record I's number: ascending with I, and looked up in no table, which would be
 * one more thing to wait for. */
static uint64_t number_of(const struct rig_records *records, uint32_t i)
{
    return (uint64_t)i * (UINT64_MAX / records->n);
}

/* --- work ------------------------------------------------------------------- */

static void call(struct worker *w, uint32_t record, uint64_t version)
{
    struct run *r = w->run;
    uint64_t number = number_of(r->records, record);
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len = 0;

    rig_key(number, key);
    if (r->work == GET) {
        must(bft_get(r->tree, slice(key, RIG_KEY), value, sizeof(value), &len),
             "get");
        w->done++;
    } else if (r->work == PUT) {
        rig_value(r->records, number, version, value);
        must(bft_put(r->tree, slice(key, RIG_KEY), slice(value, RIG_VALUE)),
             "put");
        w->done++;
    } else {
        bft_cursor *cursor;
        bft_status status;

        must(bft_cursor_open(r->tree, &cursor), "open a cursor");
        status = bft_cursor_seek(cursor, BFT_GE, slice(key, RIG_KEY));
        for (int i = 0; i < SCAN && status == BFT_OK; i++) {
            bft_slice at, found;

            must(bft_cursor_record(cursor, &at, &found), "read a record");
            w->done++;
            status = bft_cursor_next(cursor);
        }
        bft_cursor_close(cursor);
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct run *r = w->run;
    struct rig_random random = {rig_mix(w->part + 1)};
    uint32_t size = r->records->n / r->parts, first = size * w->part;

    for (;;) {
        uint32_t record = first + (uint32_t)rig_random_below(&random, size);
        bool sampled = w->calls++ % SAMPLE_EVERY == 0;
        uint64_t begin = sampled ? rig_now_ns() : 0;
        int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);

        if (phase == STOP)
            break;
        if (phase != w->phase) {
            w->done = 0;
            memset(&w->latency, 0, sizeof(w->latency));
        }
        w->phase = phase;
        call(w, record, w->calls);
        if (sampled)
            histogram_note(&w->latency, rig_now_ns() - begin);
    }
    return NULL;
}

static void fill(const struct rig_records *records, bft_tree *tree)
{
    for (uint32_t i = 0; i < records->n; i++) {
        uint8_t key[RIG_KEY], value[RIG_VALUE];

        rig_key(number_of(records, i), key);
        rig_value(records, number_of(records, i), 0, value);
        must(bft_put(tree, slice(key, RIG_KEY), slice(value, RIG_VALUE)),
             "fill");
    }
}

/* Once in a process.  FIRST: the part of the first thread.  READY and GO: pipes that say when. */
static struct outcome measure(struct run *r, unsigned first, int ready, int go)
{
    static struct worker workers[THREADS_MANY];
    static struct histogram latency;
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY,
                           .memory_bytes = (uint64_t)256 << 20};
    struct outcome outcome = {0, 0};
    struct timespec pause = {(time_t)(r->arguments->ms / 1000),
                             (long)(r->arguments->ms % 1000) * 1000000};
    struct timespec warm = {0, 250 * 1000 * 1000};
    uint64_t begin, done = 0;
    char byte = 0;
    bft_db *db;

    must(bft_open("scaling", &options, &db), "open");
    must(bft_tree_open(db, "t", NULL, &r->tree), "open the tree");
    fill(r->records, r->tree);
    /* Nothing of it is still to be done when the clock starts. */
    must(bft_checkpoint(db), "checkpoint");
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
        rig_die("a pipe is broken");
    for (unsigned i = 0; i < r->threads; i++) {
        workers[i].run = r;
        workers[i].part = first + i;
    }
    for (unsigned i = 0; i < r->threads; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            rig_die("no thread");
    (void)nanosleep(&warm, NULL);
    atomic_store(&r->phase, COUNT);
    begin = rig_now_ns();
    (void)nanosleep(&pause, NULL);
    atomic_store(&r->phase, STOP);
    for (unsigned i = 0; i < r->threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        done += workers[i].done;
        histogram_add(&latency, &workers[i].latency);
    }
    outcome.rate = (double)done * 1e9 / (double)(rig_now_ns() - begin);
    outcome.us_p999 = histogram_us(&latency, 0.999);
    must(bft_close(db), "close");
    return outcome;
}

/* --- sides ------------------------------------------------------------------ */

/* Processes that fill first and then begin together. */
static struct outcome side_run(const struct arguments *a,
                               const struct rig_records *records,
                               enum work work, enum side side)
{
    unsigned processes = side == TWO_PROCESSES ? 2 : 1;
    struct outcome all = {0, 0};
    int ready[2], go[2], results[2];

    fflush(NULL);
    if (pipe(ready) || pipe(go) || pipe(results))
        rig_die("no pipe");
    for (unsigned p = 0; p < processes; p++) {
        struct run r = {.arguments = a,
                        .records = records,
                        .work = work,
                        .threads = side == MANY  ? THREADS_MANY
                                   : side == TWO ? 2
                                                 : 1,
                        .parts = side == MANY ? THREADS_MANY : 2};
        pid_t child = fork();

        if (child < 0)
            rig_die("no process");
        if (child == 0) {
            struct outcome outcome = measure(&r, p, ready[1], go[0]);

            if (write(results[1], &outcome, sizeof(outcome)) != sizeof(outcome))
                rig_die("a pipe is broken");
            _exit(0);
        }
    }
    for (unsigned p = 0; p < processes; p++) {
        char byte;

        if (read(ready[0], &byte, 1) != 1)
            rig_die("a process failed");
    }
    if (write(go[1], "gg", processes) != (ssize_t)processes)
        rig_die("a pipe is broken");
    for (unsigned p = 0; p < processes; p++) {
        struct outcome one;
        int status;

        if (wait(&status) < 0 || status != 0 ||
            read(results[0], &one, sizeof(one)) != sizeof(one))
            rig_die("a process failed");
        all.rate += one.rate;
        if (one.us_p999 > all.us_p999)
            all.us_p999 = one.us_p999;
    }
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
        close(results[i]);
    }
    return all;
}

/* --- results ---------------------------------------------------------------- */

struct figures {
    double rate[SIDES][ROUNDS_MAX], p999[SIDES][ROUNDS_MAX];
};

static void metric(FILE *json, const struct arguments *a, enum work work,
                   enum side side, const char *name, const double *rounds)
{
    char config[160];
    struct rig_cell cell = {.bench = "scaling",
                            .setting = side_name[side],
                            .workload = work_name[work],
                            .engine = "bftree",
                            .metric = name,
                            .config = config,
                            .threads = side == MANY  ? THREADS_MANY
                                       : side == ONE ? 1
                                                     : 2,
                            .rounds = rounds,
                            .n = a->rounds};

    snprintf(config, sizeof(config),
             "%u records of %d+%d bytes in memory, buffered, %u ms", a->records,
             RIG_KEY, RIG_VALUE, a->ms);
    rig_json(json, &cell);
}

static void report(FILE *json, const struct arguments *a, enum work work,
                   const struct figures *f)
{
    double rate[SIDES];
    char text[16];

    printf("| %s |", work_name[work]);
    for (enum side side = 0; side < SIDES; side++) {
        metric(json, a, work, side, "ops_per_s", f->rate[side]);
        metric(json, a, work, side, "us_p999", f->p999[side]);
        rate[side] = rig_median(f->rate[side], a->rounds);
        printf(" %s |", rig_short(rate[side], text));
    }
    printf(" %.2f | %.2f | %.2f | %.1f / %.1f |\n", rate[TWO] / rate[ONE],
           rate[TWO] / rate[TWO_PROCESSES], rate[MANY] / rate[TWO],
           rig_median(f->p999[TWO], a->rounds),
           rig_median(f->p999[MANY], a->rounds));
    fflush(stdout);
}

static void run_all(const struct arguments *a, FILE *json)
{
    struct rig_records records;

    rig_records_make(&records, a->records);
    printf("| calls, rows of scans, a second |");
    for (enum side side = 0; side < SIDES; side++)
        printf(" %s |", side_name[side]);
    printf(" 2 / 1 | 2 / processes | 16 / 2 | p99.9, us, 2 / 16 |\n"
           "|---|---|---|---|---|---|---|---|---|\n");
    for (enum work work = 0; work < WORKS; work++) {
        struct figures f;

        for (unsigned i = 0; i < a->rounds; i++)
            for (enum side side = 0; side < SIDES; side++) {
                struct outcome o = side_run(a, &records, work, side);

                f.rate[side][i] = o.rate;
                f.p999[side][i] = o.us_p999;
                fprintf(stderr, "\r%s, round %u of %u, %s      ",
                        work_name[work], i + 1, a->rounds, side_name[side]);
            }
        fprintf(stderr, "\r%60s\r", "");
        report(json, a, work, &f);
    }
    rig_records_free(&records);
}

/* --- the command line ------------------------------------------------------- */

static void parse(int argc, char **argv, struct arguments *a)
{
    const struct command_option options[] = {
        {"records", COMMAND_COUNT, &a->records, 1000, UINT32_MAX,
         "in the database"},
        {"rounds", COMMAND_COUNT, &a->rounds, 1, ROUNDS_MAX, "to take"},
        {"ms", COMMAND_COUNT, &a->ms, 1, 3600000, "of a run"},
        {"out", COMMAND_TEXT, &a->out, 0, 0, "for the results"},
    };

    command_parse(argc, argv, options, sizeof(options) / sizeof(*options));
}

int main(int argc, char **argv)
{
    struct arguments a = {
        .records = 50000, .rounds = 5, .ms = 700, .out = "build/results"};
    FILE *json;

    parse(argc, argv, &a);
    json = rig_results(a.out, "scaling");
    rig_machine(stdout, a.out);
    printf("\n%u records of %d+%d bytes in memory; each worker has keys of its "
           "own; %u rounds of %u ms, medians\n\n",
           a.records, RIG_KEY, RIG_VALUE, a.rounds, a.ms);
    run_all(&a, json);
    rig_results_written(json, a.out, "scaling");
    return 0;
}
