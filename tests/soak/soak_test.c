/*
 * Hours of work on real files: two writers over many times the memory, records
 * that expire, ranges that are deleted, and somebody who reads old snapshots the
 * whole time.  The file and the process's memory stay where the first rounds left
 * them, and at the end each record is what was written last.
 *
 * BFT_SOAK_MINUTES of rounds, or one.  BFT_SEED draws what is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "engine_fixture.h"
#include "random.h"
#include "tally.h"

enum {
    WRITERS = 2,
    KEYS = 40000, /* of each writer */
    VALUE_MAX = 400,
    FLEETING = 300,   /* a round's records that expire */
    RANGE = 1500,     /* a round's records that are deleted as a range */
    RANGES_LEFT = 4,  /* so many of them are there at a time */
    WRITES = 30000,   /* of each writer in a round */
    WARM_ROUNDS = 12, /* bounds are twice what these had */
    MEMORY = 8 << 20,
    LOG = 8 << 20,
};

struct soak {
    struct engine_fixture *f;
    bft_tree *records, *fleeting, *ranges;
    _Atomic bool stop;
    _Atomic uint64_t snapshots; /* that were read twice */
};

struct writer {
    struct soak *soak;
    unsigned id;
    uint64_t random;
    uint32_t version[KEYS]; /* 0: not there */
    pthread_t thread;
    char error[400];
};

/* --- what is written -------------------------------------------------------- */

static void note(char error[400], bft_status status, const char *what)
{
    char text[300] = "";
    if (status == BFT_OK || error[0])
        return;
    (void)bft_last_error(text, sizeof(text));
    (void)snprintf(error, 400, "%s: %s: %s", what, bft_strerror(status), text);
}

static bft_slice key_of(char buf[32], const char *kind, unsigned writer,
                        uint64_t n)
{
    int len =
        snprintf(buf, 32, "%s-%u-%08llu", kind, writer, (unsigned long long)n);
    return (bft_slice){buf, (size_t)len};
}

/* The bytes of key N's VERSION: any other would differ in all of them. */
static bft_slice value_of(uint8_t buf[VALUE_MAX], unsigned n, uint32_t version)
{
    uint64_t random = ((uint64_t)n << 32 | version) + 1;
    size_t len = 16 + random_of(&random) % (VALUE_MAX - 16);
    memset(buf, (int)(random_of(&random) & 0xff), len);
    memcpy(buf, &version, sizeof(version));
    return (bft_slice){buf, len};
}

static void write_one(struct writer *w)
{
    unsigned n = (unsigned)(random_of(&w->random) % KEYS);
    uint8_t value[VALUE_MAX];
    char kbuf[32];
    bft_slice key = key_of(kbuf, "key", w->id, n);
    if (w->version[n] && random_of(&w->random) % 4 == 0) {
        note(w->error, bft_delete(w->soak->records, key), "delete");
        w->version[n] = 0;
        return;
    }
    w->version[n] = (uint32_t)random_of(&w->random) | 1;
    note(w->error,
         bft_put(w->soak->records, key, value_of(value, n, w->version[n])),
         "put");
}

static void check_one(struct writer *w, unsigned n)
{
    uint8_t found[VALUE_MAX], wanted[VALUE_MAX];
    char kbuf[32];
    size_t len = 0;
    bft_status status = bft_get(w->soak->records, key_of(kbuf, "key", w->id, n),
                                found, sizeof(found), &len);
    bft_slice value = value_of(wanted, n, w->version[n]);
    if (w->version[n] ? status != BFT_OK || len != value.len ||
                            memcmp(found, wanted, len) != 0
                      : status != BFT_NOT_FOUND)
        (void)snprintf(w->error, sizeof(w->error),
                       "%s is not what was written last: %s, %zu bytes", kbuf,
                       bft_strerror(status), len);
}

static void *write_a_round(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 0; i < WRITES && !w->error[0]; i++) {
        write_one(w);
        if (i % 8 == 0)
            check_one(w, (unsigned)(random_of(&w->random) % KEYS));
    }
    return NULL;
}

/* Records that expire within seconds, and a range that comes while one goes. */
static void come_and_go(struct soak *soak, uint64_t round)
{
    uint64_t now = soak->f->env.wall_ms(soak->f->env.ctx);
    uint8_t value[VALUE_MAX];
    char low[32], high[32];
    for (unsigned i = 0; i < FLEETING; i++)
        expect_ok(bft_put_until(
            soak->fleeting, key_of(low, "fleeting", 0, round * FLEETING + i),
            value_of(value, i, 1), now + 1000 + i));
    for (unsigned i = 0; i < RANGE; i++)
        expect_ok(bft_put(soak->ranges,
                          key_of(low, "range", 0, round * RANGE + i),
                          value_of(value, i, 2)));
    if (round >= RANGES_LEFT) {
        uint64_t first = (round - RANGES_LEFT) * RANGE, deleted = 0;
        expect_ok(bft_delete_range(soak->ranges, key_of(low, "range", 0, first),
                                   key_of(high, "range", 0, first + RANGE),
                                   &deleted));
        assert_int_equal(RANGE, deleted);
    }
}

/* --- who reads old snapshots -------------------------------------------------- */

/* A sum over all records of one, in their order; 0 after a failure. */
static uint64_t sum_of(struct soak *soak, bft_snapshot *snapshot,
                       char error[400])
{
    uint64_t sum = 1;
    bft_cursor *cursor;
    bft_status status = bft_snapshot_cursor(snapshot, soak->records, &cursor);
    note(error, status, "a snapshot's cursor");
    if (status != BFT_OK)
        return 0;
    for (status = bft_cursor_first(cursor); status == BFT_OK;
         status = bft_cursor_next(cursor)) {
        bft_slice key, value;
        status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bft_cursor_value(cursor, &value);
        if (status != BFT_OK)
            break;
        for (size_t i = 0; i < key.len; i++)
            sum = (sum ^ ((const uint8_t *)key.data)[i]) * 1099511628211u;
        for (size_t i = 0; i < value.len; i++)
            sum = (sum ^ ((const uint8_t *)value.data)[i]) * 1099511628211u;
    }
    bft_cursor_close(cursor);
    note(error, status == BFT_NOT_FOUND ? BFT_OK : status, "a snapshot's scan");
    return error[0] ? 0 : sum | 1;
}

struct reader {
    struct soak *soak;
    pthread_t thread;
    char error[400];
};

static void *read_the_past(void *arg)
{
    struct reader *r = arg;
    while (!r->error[0] && !atomic_load(&r->soak->stop)) {
        bft_snapshot *snapshot = NULL;
        uint64_t first;
        note(r->error, bft_snapshot_take(r->soak->f->db, &snapshot),
             "a snapshot");
        if (r->error[0])
            break;
        first = sum_of(r->soak, snapshot, r->error);
        if (!r->error[0] && first != sum_of(r->soak, snapshot, r->error))
            (void)snprintf(r->error, sizeof(r->error), "a snapshot changed");
        bft_snapshot_release(snapshot);
        atomic_fetch_add(&r->soak->snapshots, 1);
    }
    return NULL;
}

/* --- what it takes ------------------------------------------------------------- */

struct taken {
    uint64_t file, memory, resident;
};

static uint64_t resident_bytes(void)
{
    unsigned long long all = 0, resident = 0;
    FILE *from = fopen("/proc/self/statm", "r");
    if (from) {
        if (fscanf(from, "%llu %llu", &all, &resident) != 2)
            resident = 0;
        (void)fclose(from);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static struct taken taken_by(struct soak *soak)
{
    bft_stats stats = engine_stats(soak->f);
    return (struct taken){.file = stats.file_bytes - stats.hole_bytes,
                          .memory = stats.memory_used_bytes,
                          .resident = resident_bytes()};
}

static void expect_within(const char *what, uint64_t now, uint64_t before,
                          uint64_t slack)
{
    if (now > 2 * before + slack)
        fail_msg("%s: %llu bytes, %llu in the first rounds", what,
                 (unsigned long long)now, (unsigned long long)before);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- rounds ----------------------------------------------------------------------- */

static struct soak soak;
static struct writer writers[WRITERS];
static struct reader reader;

static void round_of(uint64_t round)
{
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(0, pthread_create(&writers[i].thread, NULL,
                                           write_a_round, &writers[i]));
    come_and_go(&soak, round);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(0, pthread_join(writers[i].thread, NULL));
    for (unsigned i = 0; i < WRITERS; i++)
        if (writers[i].error[0])
            fail_msg("writer %u: %s", i, writers[i].error);
}

static void open_it(void)
{
    bft_tree_options expiring = {.size = sizeof(expiring), .ttl_ms = 2000};
    soak.records = engine_tree(soak.f, "records", 4096);
    expect_ok(bft_tree_open(soak.f->db, "fleeting", &expiring, &soak.fleeting));
    soak.ranges = engine_tree(soak.f, "ranges", 4096);
}

static void check_all(void)
{
    for (unsigned i = 0; i < WRITERS; i++)
        for (unsigned n = 0; n < KEYS && !writers[i].error[0]; n++)
            check_one(&writers[i], n);
    for (unsigned i = 0; i < WRITERS; i++)
        if (writers[i].error[0])
            fail_msg("writer %u: %s", i, writers[i].error);
    expect_ok(bft_verify(soak.f->db));
}

static void begin(void)
{
    uint64_t random = random_start();
    soak.f = engine_fixture_make(ENGINE_POSIX);
    soak.f->options.memory_bytes = MEMORY;
    soak.f->options.log_bytes = LOG;
    engine_open(soak.f);
    open_it();
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){
            .soak = &soak, .id = i, .random = random_of(&random)};
    reader.soak = &soak;
    assert_int_equal(
        0, pthread_create(&reader.thread, NULL, read_the_past, &reader));
}

static void file_and_memory_stay_where_they_are(void **state)
{
    const char *text = getenv("BFT_SOAK_MINUTES");
    double minutes = text ? strtod(text, NULL) : 1;
    time_t started = time(NULL);
    struct taken most = {0, 0, 0}, now = {0, 0, 0};
    uint64_t round = 0;
    (void)state;
    begin();
    for (; round < WARM_ROUNDS || difftime(time(NULL), started) < minutes * 60;
         round++) {
        round_of(round);
        now = taken_by(&soak);
        if (now.memory > MEMORY + MEMORY / 20)
            fail_msg("%llu bytes are used of %d",
                     (unsigned long long)now.memory, MEMORY);
        if (round >= WARM_ROUNDS) {
            expect_within("file", now.file, most.file, 32 << 20);
            expect_within("resident", now.resident, most.resident, 8 << 20);
        } else {
            most.file = larger(most.file, now.file);
            most.resident = larger(most.resident, now.resident);
        }
        if (round % 20 == 0)
            print_message("           round %llu: file %llu, resident %llu\n",
                          (unsigned long long)round,
                          (unsigned long long)now.file,
                          (unsigned long long)now.resident);
    }
    atomic_store(&soak.stop, true);
    assert_int_equal(0, pthread_join(reader.thread, NULL));
    assert_string_equal("", reader.error);
    print_message("           %llu rounds, %llu snapshots read twice\n",
                  (unsigned long long)round,
                  (unsigned long long)atomic_load(&soak.snapshots));
    check_all();
    engine_reopen(soak.f);
    open_it();
    check_all();
    engine_fixture_free(soak.f);
    tally(TALLY_SOAK, (uint64_t)(difftime(time(NULL), started) / 60));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_and_memory_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
