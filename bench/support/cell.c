/*
 * Workloads, the threads that run them, and what is measured around them.
 *
 * A thread reads the clock once after each operation; what lies between two
 * readings is the operation and the making of its key and value.  Drawing keys
 * is not in it: a thread draws a block ahead and stops its clock meanwhile.
 */
#include "cell.h"

#include <ftw.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "histogram.h"

enum {
    BLOCK = 2048,        /* draws ahead */
    CHUNK = 100000,      /* rows of one call of a full scan */
    YCSB_SCAN_MAX = 100, /* YCSB: 1..100 rows, uniform */
};

/* Threads rest that write less than a MiB and take less than a twentieth of a
 * processor in each look for so long: what goes slowly on purpose is no debt. */
#define REST_NS      UINT64_C(200000000)
#define REST_LOOK_NS UINT64_C(50000000)
#define REST_MAX_NS  UINT64_C(60000000000)
enum { REST_CPU_SHARE = 20, REST_BYTES = 1 << 20 };

struct worker_thread {
    struct cell_database *database;
    const struct cell_spec *spec;
    struct peer_session *session;
    unsigned index;
    pthread_t thread;
    pthread_barrier_t *start;
    struct rig_random random;

    uint64_t drawn[BLOCK];
    uint8_t coin[BLOCK]; /* 0..99 */
    unsigned next_draw;

    uint64_t begin, last, end, paused;
    uint64_t ops, writes; /* in the workload's unit; records written */
    uint64_t inserted, deleted;
    uint64_t position; /* of loads and deletes */
    struct peer_record *batch;
    struct histogram histogram;
};

/* --- one thread's operations ----------------------------------------------- */

static void draw_ahead(struct worker_thread *thread)
{
    const struct keyspace *space = thread->database->space;
    uint64_t before = rig_now_ns(), after;

    for (unsigned i = 0; i < BLOCK; i++) {
        thread->drawn[i] =
            thread->spec->draw == DRAW_LATEST
                ? keyspace_rank(space, &thread->random)
                : keyspace_draw(space, thread->spec->draw, &thread->random);
        thread->coin[i] = (uint8_t)rig_random_below(&thread->random, 100);
    }
    after = rig_now_ns();
    thread->next_draw = 0;
    thread->paused += after - before;
    thread->end += after - before;
    thread->last += after - before;
}

static uint64_t draw(struct worker_thread *thread, unsigned *coin)
{
    if (thread->next_draw == BLOCK)
        draw_ahead(thread);
    *coin = thread->coin[thread->next_draw];
    return thread->drawn[thread->next_draw++];
}

/* One operation, counted N, is over; true while there is time. */
static bool tick(struct worker_thread *thread, uint64_t n)
{
    uint64_t now = rig_now_ns();

    thread->ops += n;
    histogram_note(&thread->histogram, now - thread->last);
    thread->last = now;
    return now < thread->end;
}

static const struct peer_kind *kind_of(const struct worker_thread *thread)
{
    return thread->database->kind;
}

static void get_key(struct worker_thread *thread, const uint8_t *key,
                    uint8_t *value)
{
    if (!kind_of(thread)->get(thread->session, key, value) ||
        !keyspace_value_fits(thread->database->space, key, value))
        rig_die("a record is missing or holds what is not its own");
}

static void get_one(struct worker_thread *thread, uint64_t i)
{
    uint8_t key[RIG_KEY], value[PEER_VALUE_MAX];

    keyspace_key(thread->database->space, i, key);
    get_key(thread, key, value);
}

static uint64_t version_of(struct worker_thread *thread)
{
    return thread->spec->seed * 16 + thread->index + (thread->ops << 24);
}

static void put_key(struct worker_thread *thread, const uint8_t *key,
                    bool exists)
{
    uint8_t value[PEER_VALUE_MAX];

    keyspace_value(thread->database->space, key, version_of(thread), value);
    kind_of(thread)->put(thread->session, key, value, exists);
    thread->writes++;
}

static void update_one(struct worker_thread *thread, uint64_t i)
{
    uint8_t key[RIG_KEY];

    keyspace_key(thread->database->space, i, key);
    put_key(thread, key, true);
}

/* The K-th insertion of this thread in this cell. */
static uint64_t insertion(const struct worker_thread *thread, uint64_t k)
{
    return thread->database->insertions + k * thread->spec->threads +
           thread->index;
}

static void insert_one(struct worker_thread *thread)
{
    uint8_t key[RIG_KEY];

    keyspace_inserted_key(thread->database->space,
                          insertion(thread, thread->inserted), key);
    put_key(thread, key, false);
    thread->inserted++;
}

static uint64_t nth_loaded(const struct cell_database *database, uint64_t at)
{
    const struct keyspace *space = database->space;

    if (database->order == FILL_ASCENDING)
        return at;
    if (database->order == FILL_BY_STRETCHES)
        return keyspace_shuffled_within(space, space->n / FILL_STRETCHES + 1,
                                        at);
    return keyspace_shuffled(space, 1, at);
}

/* RANK back from the newest: this thread's own insertions, then the records in
 * the reverse of the order they were loaded in. */
static void get_latest(struct worker_thread *thread, uint64_t rank)
{
    const struct keyspace *space = thread->database->space;
    uint8_t key[RIG_KEY], value[PEER_VALUE_MAX];

    if (rank < thread->inserted) {
        keyspace_inserted_key(
            space, insertion(thread, thread->inserted - 1 - rank), key);
        get_key(thread, key, value);
    } else {
        rank = (rank - thread->inserted) % space->n;
        get_one(thread, nth_loaded(thread->database, space->n - 1 - rank));
    }
}

static void scan_from(struct worker_thread *thread, uint64_t i, size_t rows)
{
    uint8_t key[RIG_KEY];
    struct peer_scan scan = {
        .from = key,
        .rows = rows,
        .value_len = thread->database->space->value_len,
    };
    uint64_t left = thread->database->space->n - i;

    keyspace_key(thread->database->space, i, key);
    kind_of(thread)->scan(thread->session, &scan);
    if (scan.seen < (rows < left ? rows : left))
        rig_die("a scan of %zu rows, not %zu", scan.seen, rows);
}

static void ycsb_one(struct worker_thread *thread)
{
    unsigned coin;
    uint64_t i = draw(thread, &coin);

    switch (thread->spec->workload) {
    case YCSB_A:
        coin < 50 ? get_one(thread, i) : update_one(thread, i);
        break;
    case YCSB_B:
        coin < 95 ? get_one(thread, i) : update_one(thread, i);
        break;
    case YCSB_C:
        get_one(thread, i);
        break;
    case YCSB_D:
        coin < 95 ? get_latest(thread, i) : insert_one(thread);
        break;
    case YCSB_E:
        if (coin < 95)
            scan_from(thread, i, 1 + rig_mix(i + coin) % YCSB_SCAN_MAX);
        else
            insert_one(thread);
        break;
    default: /* YCSB_F */
        get_one(thread, i);
        if (coin >= 50)
            update_one(thread, i);
        break;
    }
}

static void run_points(struct worker_thread *thread)
{
    unsigned coin;
    uint8_t key[RIG_KEY], value[PEER_VALUE_MAX];

    do {
        switch (thread->spec->workload) {
        case UPDATE:
            update_one(thread, draw(thread, &coin));
            break;
        case GET_ABSENT:
            keyspace_absent_key(thread->database->space, draw(thread, &coin),
                                thread->ops, key);
            if (kind_of(thread)->get(thread->session, key, value))
                rig_die("a record that nobody wrote");
            break;
        case SCAN_50:
            scan_from(thread, draw(thread, &coin), CELL_SCAN);
            break;
        default:
            ycsb_one(thread);
            break;
        }
    } while (tick(thread, 1));
}

/* --- many at once ------------------------------------------------------------ */

static void run_multi_get(struct worker_thread *thread)
{
    const struct keyspace *space = thread->database->space;
    unsigned coin;

    do {
        for (unsigned i = 0; i < PEER_BATCH; i++)
            keyspace_key(space, draw(thread, &coin), thread->batch[i].key);
        if (kind_of(thread)->get_many(thread->session, thread->batch,
                                      PEER_BATCH) != PEER_BATCH)
            rig_die("a multi-get missed a record");
        for (unsigned i = 0; i < PEER_BATCH; i++)
            if (!keyspace_value_fits(space, thread->batch[i].key,
                                     thread->batch[i].value))
                rig_die("a multi-get brought what is not its own");
    } while (tick(thread, PEER_BATCH));
}

static void batch_set(struct worker_thread *thread, unsigned at, uint64_t i)
{
    struct peer_record *record = &thread->batch[at];

    keyspace_key(thread->database->space, i, record->key);
    keyspace_value(thread->database->space, record->key,
                   version_of(thread) + at, record->value);
}

static void run_update_batch(struct worker_thread *thread)
{
    unsigned coin;

    do {
        for (unsigned i = 0; i < PEER_BATCH; i++)
            batch_set(thread, i, draw(thread, &coin));
        kind_of(thread)->put_many(thread->session, thread->batch, PEER_BATCH,
                                  true);
        thread->writes += PEER_BATCH;
    } while (tick(thread, PEER_BATCH));
}

static void run_load(struct worker_thread *thread)
{
    const struct keyspace *space = thread->database->space;
    uint64_t threads = thread->spec->threads, n = space->n;
    uint64_t at = n * thread->index / threads;
    uint64_t end = n * (thread->index + 1) / threads;
    bool more = true;

    while (at < end && (more || !thread->spec->capped)) {
        unsigned count = 0;

        for (; count < PEER_BATCH && at < end; count++, at++)
            batch_set(thread, count, nth_loaded(thread->database, at));
        kind_of(thread)->put_many(thread->session, thread->batch, count, false);
        thread->writes += count;
        thread->inserted += count;
        more = tick(thread, count);
    }
}

static uint64_t nth_deleted(const struct worker_thread *thread, uint64_t k)
{
    return keyspace_shuffled(thread->database->space, thread->spec->seed + 2,
                             k * thread->spec->threads + thread->index);
}

static void run_delete(struct worker_thread *thread)
{
    const struct keyspace *space = thread->database->space;
    uint64_t threads = thread->spec->threads;
    uint8_t key[RIG_KEY];

    while (thread->deleted * threads + thread->index < space->n) {
        keyspace_key(space, nth_deleted(thread, thread->deleted), key);
        kind_of(thread)->erase(thread->session, key);
        thread->deleted++;
        thread->writes++;
        if (!tick(thread, 1))
            break;
    }
}

static void put_back(struct worker_thread *thread)
{
    for (uint64_t k = 0; k < thread->deleted;) {
        unsigned count = 0;

        for (; count < PEER_BATCH && k < thread->deleted; count++, k++)
            batch_set(thread, count, nth_deleted(thread, k));
        kind_of(thread)->put_many(thread->session, thread->batch, count, false);
    }
    thread->deleted = 0;
}

/* The key after, or before, LAST. */
static void step_key(uint8_t key[RIG_KEY], bool back)
{
    for (int byte = RIG_KEY - 1; byte >= 0; byte--) {
        key[byte] = (uint8_t)(back ? key[byte] - 1 : key[byte] + 1);
        if (key[byte] != (back ? 0xff : 0x00))
            return;
    }
}

/* In calls of CHUNK rows, around and around; threads begin evenly spread. */
static void run_scan_full(struct worker_thread *thread)
{
    const struct cell_database *database = thread->database;
    bool back = thread->spec->workload == SCAN_BACKWARD;
    uint64_t seen = 0;
    bool whole = thread->index == 0;
    uint8_t from[RIG_KEY];
    struct peer_scan scan;

    keyspace_key(database->space,
                 database->space->n * thread->index / thread->spec->threads,
                 from);
    scan.from = whole ? NULL : from;
    do {
        scan = (struct peer_scan){.from = scan.from,
                                  .back = back,
                                  .rows = CHUNK,
                                  .value_len = database->space->value_len};
        database->kind->scan(thread->session, &scan);
        seen += scan.seen;
        if (scan.seen == CHUNK) {
            memcpy(from, scan.last, RIG_KEY);
            step_key(from, back);
            scan.from = from;
            continue;
        }
        if (whole && seen != database->live)
            rig_die("a scan of %llu rows, not %llu", (unsigned long long)seen,
                    (unsigned long long)database->live);
        whole = true;
        seen = 0;
        scan.from = NULL;
    } while (tick(thread, scan.seen));
}

static void *thread_main(void *context)
{
    struct worker_thread *thread = context;

    pthread_barrier_wait(thread->start);
    thread->begin = thread->last = rig_now_ns();
    thread->end = thread->begin + thread->spec->cell_ns;
    switch (thread->spec->workload) {
    case LOAD_SEQ:
    case LOAD_RAND:
        run_load(thread);
        break;
    case UPDATE_BATCH:
        run_update_batch(thread);
        break;
    case DELETE:
        run_delete(thread);
        break;
    case MULTI_GET:
        run_multi_get(thread);
        break;
    case SCAN_FORWARD:
    case SCAN_BACKWARD:
        run_scan_full(thread);
        break;
    default:
        run_points(thread);
        break;
    }
    return NULL;
}

/* --- the database ------------------------------------------------------------ */

void cell_open(struct cell_database *database)
{
    database->peer = database->kind->open(&database->config);
    for (unsigned i = 0; i < database->config.threads; i++)
        database->session[i] = database->kind->session_open(database->peer);
}

void cell_close(struct cell_database *database)
{
    for (unsigned i = 0; i < database->config.threads; i++)
        database->kind->session_close(database->session[i]);
    database->kind->close(database->peer);
    database->peer = NULL;
}

/* --- what is measured around it ---------------------------------------------- */

static double line_of(const char *file, const char *name)
{
    FILE *from = fopen(file, "re");
    char line[256];
    double value = 0;

    while (from && fgets(line, sizeof(line), from))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtod(line + strlen(name), NULL);
    if (from)
        fclose(from);
    return value;
}

/* Of one thread of this process at a time: nftw() has no context. */
static double tree_bytes;

static int add_file(const char *path, const struct stat *file, int type,
                    struct FTW *at)
{
    (void)path;
    (void)at;
    if (type == FTW_F)
        tree_bytes += (double)file->st_blocks * 512;
    return 0;
}

static double file_bytes(const char *dir)
{
    tree_bytes = 0;
    nftw(dir, add_file, 16, FTW_PHYS);
    return tree_bytes;
}

static struct worker_thread *threads_make(struct cell_database *database,
                                          const struct cell_spec *spec,
                                          pthread_barrier_t *start)
{
    struct worker_thread *threads = calloc(spec->threads, sizeof(*threads));

    if (!threads || spec->threads > database->config.threads ||
        pthread_barrier_init(start, NULL, spec->threads))
        rig_die("no threads for the cell");
    for (unsigned i = 0; i < spec->threads; i++) {
        struct worker_thread *thread = &threads[i];

        *thread = (struct worker_thread){
            .database = database,
            .spec = spec,
            .session = database->session[i],
            .index = i,
            .start = start,
            .random = {rig_mix(spec->seed * 64 + i)},
            .batch = calloc(PEER_BATCH, sizeof(*thread->batch)),
        };
        if (!thread->batch)
            rig_die("out of memory");
        draw_ahead(thread);
        thread->paused = 0;
    }
    return threads;
}

static void threads_run(struct worker_thread *threads, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        if (pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]))
            rig_die("no thread");
    thread_main(&threads[0]);
    for (unsigned i = 1; i < n; i++)
        pthread_join(threads[i].thread, NULL);
}

/* Sums; the rate is the sum of the threads' rates. */
static void threads_sum(struct cell_database *database,
                        const struct cell_spec *spec,
                        struct worker_thread *threads,
                        struct cell_sample *sample)
{
    struct histogram *histogram = &threads[0].histogram;
    uint64_t most_inserted = 0;
    double rate = 0;

    for (unsigned i = 0; i < spec->threads; i++) {
        struct worker_thread *thread = &threads[i];
        double seconds =
            (double)(thread->last - thread->begin - thread->paused) / 1e9;

        rate += seconds > 0 ? (double)thread->ops / seconds : 0;
        sample->ops += (double)thread->ops;
        sample->cpu_seconds -= (double)thread->paused / 1e9;
        sample->user_bytes += (double)thread->writes * RIG_KEY +
                              (double)(thread->writes - thread->deleted) *
                                  (double)database->space->value_len;
        if (!workload_loads(spec->workload) && thread->inserted > most_inserted)
            most_inserted = thread->inserted;
        database->live += thread->inserted;
        if (i > 0)
            histogram_add(histogram, &thread->histogram);
    }
    database->insertions += most_inserted * spec->threads;
    sample->seconds = rate > 0 ? sample->ops / rate : 0;
    sample->p50_us = histogram_us(histogram, 0.5);
    sample->p99_us = histogram_us(histogram, 0.99);
    sample->p999_us = histogram_us(histogram, 0.999);
}

/* To the disk, so far; what was written to files that went, or were cut off,
 * before it came there is not. */
static double written_bytes(void)
{
    return line_of("/proc/self/io", "write_bytes:") -
           line_of("/proc/self/io", "cancelled_write_bytes:");
}

/* An engine's own threads go on with what the writes left: until they rest, or
 * for REST_MAX_NS.  Returns the time for which they had rested by then. */
static uint64_t await_rest(void)
{
    uint64_t begin = rig_now_ns(), busy = begin, now = begin;

    while (now - busy < REST_NS && now - begin < REST_MAX_NS) {
        uint64_t cpu = rig_cpu_ns();
        double written = written_bytes();

        usleep(REST_LOOK_NS / 1000);
        now = rig_now_ns();
        if (rig_cpu_ns() - cpu > REST_LOOK_NS / REST_CPU_SHARE ||
            written_bytes() > written + REST_BYTES)
            busy = now;
    }
    return now - busy;
}

/* What the writes left to do is done on the clock, up to a clean close where
 * asked; an engine that could not open it again is left open. */
static void pay_debt(struct cell_database *database,
                     const struct cell_spec *spec, struct cell_sample *sample)
{
    bool close_too =
        spec->close_too && database->kind->abilities & PEER_CAN_REOPEN;
    uint64_t start = rig_now_ns(), rested;

    database->kind->settle(database->peer);
    rested = await_rest();
    if (close_too)
        cell_close(database);
    sample->debt_seconds = (double)(rig_now_ns() - start - rested) / 1e9;
}

static void measure_after(struct cell_database *database,
                          struct cell_sample *sample)
{
    sample->file_bytes = file_bytes(database->config.dir);
    sample->live_bytes =
        (double)database->live * (double)(RIG_KEY + database->space->value_len);
}

struct cell_sample cell_run(struct cell_database *database,
                            const struct cell_spec *spec)
{
    struct cell_sample sample = {0};
    double written = written_bytes();
    pthread_barrier_t start;
    struct worker_thread *threads = threads_make(database, spec, &start);
    uint64_t cpu = rig_cpu_ns();

    if (workload_loads(spec->workload))
        database->order =
            spec->workload == LOAD_SEQ ? FILL_ASCENDING : spec->order;
    threads_run(threads, spec->threads);
    threads_sum(database, spec, threads, &sample);
    sample.resident_bytes = line_of("/proc/self/status", "VmRSS:") * 1024;
    if (workload_writes(spec->workload))
        pay_debt(database, spec, &sample);
    sample.cpu_seconds += (double)(rig_cpu_ns() - cpu) / 1e9;
    sample.written_bytes = written_bytes() - written;
    measure_after(database, &sample);
    if (!database->peer)
        cell_open(database);
    for (unsigned i = 0; i < spec->threads; i++) {
        threads[i].session = database->session[i];
        if (threads[i].deleted)
            put_back(&threads[i]);
        free(threads[i].batch);
    }
    if (spec->workload == DELETE)
        database->kind->settle(database->peer);
    pthread_barrier_destroy(&start);
    free(threads);
    return sample;
}

void cell_fill(struct cell_database *database, enum fill_order order)
{
    struct cell_spec spec = {
        .workload = order == FILL_ASCENDING ? LOAD_SEQ : LOAD_RAND,
        .threads = 1,
        .order = order,
    };

    cell_run(database, &spec);
}
