/*
 * Hours of work on real files: two writers over many times the memory, records
 * that expire, ranges that are deleted, somebody who reads old snapshots the whole
 * time, and a snapshot that stays for many rounds.  The file and the process's memory
 * stay where the first rounds left them, and at the end each record is what was
 * written last.
 *
 * BFT_SOAK_MINUTES of rounds, or one.  BFT_SEED draws what is written.  With
 * BFT_SOAK_HOME=DIR the database lies there, with books of what was written: the next
 * run goes on with it, at the same commit (BFT_COMMIT), and what it takes is compared
 * with the first rounds of all.  A run that fails leaves no books, so that the next one
 * begins anew, and has the database put aside, as DIR/failed.
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
    WARM_ROUNDS = 20, /* bounds are twice what these had */
    LONG_EVERY = 40,  /* rounds from one snapshot that stays to the next, */
    LONG_FROM = 2,    /* which is taken at that one of them, */
    LONG_LOOK = 4,    /* read after so many each, */
    LONG_ROUNDS = 8,  /* and released after so many: */
    LONG_GONE = 4,    /* what it kept is gone after so many more */
    MEMORY = 8 << 20,
    LOG = 8 << 20,
    /* What bftree.h promises, of this test's threads and two of the engine's. */
    MEMORY_MAX = MEMORY + MEMORY / 8 + (WRITERS + 4) * (64 << 10),
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
    uint32_t *version; /* [KEYS], 0: not there */
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

/* What is known of the database, and of the runs before this one. */
struct books {
    char commit[64];
    uint64_t size; /* of this struct: another test's are no books */
    uint64_t round, seconds;
    struct taken
        most[2]; /* in the first rounds; [1]: for a snapshot that stays */
    uint64_t random[WRITERS];
    uint32_t version[WRITERS][KEYS];
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
static struct books books;
static struct writer writers[WRITERS];
static struct reader reader;
static struct {
    bft_snapshot *snapshot; /* or NULL */
    uint64_t sum;
    unsigned looks;
} lasting;

/* Between rounds; the snapshot of a run does not outlive it. */
static void look_at_lasting(bool last)
{
    uint64_t at = books.round % LONG_EVERY;
    char error[400] = "";

    if (!lasting.snapshot && at == LONG_FROM && !last) {
        expect_ok(bft_snapshot_take(soak.f->db, &lasting.snapshot));
        lasting.sum = sum_of(&soak, lasting.snapshot, error);
    } else if (lasting.snapshot && (last || at % LONG_LOOK == LONG_FROM)) {
        if (sum_of(&soak, lasting.snapshot, error) != lasting.sum)
            fail_msg("a snapshot of many rounds changed: %s", error);
        lasting.looks++;
    }
    assert_string_equal("", error);
    if (lasting.snapshot && (last || at == LONG_FROM + LONG_ROUNDS)) {
        bft_snapshot_release(lasting.snapshot);
        lasting.snapshot = NULL;
    }
}

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

/* --- from run to run --------------------------------------------------------------- */

static const char *home(void)
{
    return getenv("BFT_SOAK_HOME"); /* NOLINT(concurrency-mt-unsafe) */
}

static void in_home(char path[300], const char *name)
{
    (void)snprintf(path, 300, "%s/%s", home(), name);
}

/* Of this commit and of a run that ended well; they are gone from then on. */
static bool read_books(void)
{
    const char *commit =
        getenv("BFT_COMMIT"); /* NOLINT(concurrency-mt-unsafe) */
    char path[300], wanted[sizeof(books.commit)] = "";
    bool there = false;
    FILE *from;

    (void)snprintf(wanted, sizeof(wanted), "%s", commit ? commit : "");
    if (home()) {
        in_home(path, "books");
        from = fopen(path, "rb");
        if (from) {
            there = fread(&books, sizeof(books), 1, from) == 1 &&
                    books.size == sizeof(books) &&
                    memcmp(books.commit, wanted, sizeof(wanted)) == 0;
            (void)fclose(from);
        }
        (void)remove(path);
    }
    if (!there)
        memset(&books, 0, sizeof(books));
    memcpy(books.commit, wanted, sizeof(wanted));
    return there;
}

static void write_books(void)
{
    char path[300];
    FILE *to;

    in_home(path, "books");
    books.size = sizeof(books);
    for (unsigned i = 0; i < WRITERS; i++)
        books.random[i] = writers[i].random;
    to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(1, fwrite(&books, sizeof(books), 1, to));
    assert_int_equal(0, fclose(to));
}

/* The database of earlier runs, or a new one there. */
static void use_home(bool there)
{
    char path[300], failed[300], command[1500];

    in_home(path, "db");
    in_home(failed, "failed");
    if (!there) {
        (void)snprintf(command, sizeof(command),
                       "rm -rf '%s' && mkdir -p '%s' && "
                       "{ [ ! -e '%s' ] || mv '%s' '%s'; }",
                       failed, home(), path, path, failed);
        assert_int_equal(0, system(command));
    }
    assert_int_equal(0, rmdir(soak.f->path));
    assert_true(strlen(path) < sizeof(soak.f->path));
    memcpy(soak.f->path, path, strlen(path) + 1);
    soak.f->keep = true;
}

static void begin(void)
{
    uint64_t random = random_start();
    bool there = read_books();

    soak.f = engine_fixture_make(ENGINE_POSIX);
    if (home())
        use_home(there);
    soak.f->options.memory_bytes = MEMORY;
    soak.f->options.log_bytes = LOG;
    soak.f->options.must_exist = there;
    engine_open(soak.f);
    open_it();
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){.soak = &soak,
                                     .id = i,
                                     .random = there ? books.random[i]
                                                     : random_of(&random),
                                     .version = books.version[i]};
    if (there)
        print_message("           round %llu of a database of %llu minutes\n",
                      (unsigned long long)books.round,
                      (unsigned long long)(books.seconds / 60));
    reader.soak = &soak;
    assert_int_equal(
        0, pthread_create(&reader.thread, NULL, read_the_past, &reader));
}

/* Beside what is at its most: what it was made of a moment later. */
static void fail_for_memory(uint64_t used)
{
    struct bfti_engine *engine = soak.f->db->engine;
    struct bfti_pool_stats pool;

    bfti_pool_stats(engine->buffer.pool, &pool);
    fail_msg("round %llu: %llu bytes are used of %d; now pages take %llu, what "
             "waits to be freed %llu, all else %llu",
             (unsigned long long)books.round, (unsigned long long)used,
             MEMORY_MAX, (unsigned long long)pool.used_bytes,
             (unsigned long long)pool.retired_bytes,
             (unsigned long long)bfti_memory_elsewhere(engine));
}

static void check_what_it_takes(void)
{
    uint64_t at = books.round % LONG_EVERY;
    bool held = at >= LONG_FROM && at < LONG_FROM + LONG_ROUNDS + LONG_GONE;
    struct taken *most = &books.most[held], now = taken_by(&soak);

    if (now.memory > MEMORY_MAX)
        fail_for_memory(now.memory);
    if (books.round >= WARM_ROUNDS) {
        expect_within("file", now.file, most->file, 32 << 20);
        expect_within("resident", now.resident, most->resident, 8 << 20);
    } else {
        most->file = larger(most->file, now.file);
        most->resident = larger(most->resident, now.resident);
    }
    if (books.round % 10 == 0)
        print_message(
            "           round %llu: file %llu, memory %llu, resident "
            "%llu\n",
            (unsigned long long)books.round, (unsigned long long)now.file,
            (unsigned long long)now.memory, (unsigned long long)now.resident);
}

static void file_and_memory_stay_where_they_are(void **state)
{
    const char *text = getenv("BFT_SOAK_MINUTES");
    double minutes = text ? strtod(text, NULL) : 1;
    time_t started = time(NULL);

    (void)state;
    begin();
    for (; books.round < WARM_ROUNDS ||
           difftime(time(NULL), started) < minutes * 60;
         books.round++) {
        look_at_lasting(false);
        round_of(books.round);
        check_what_it_takes();
    }
    look_at_lasting(true);
    atomic_store(&soak.stop, true);
    assert_int_equal(0, pthread_join(reader.thread, NULL));
    assert_string_equal("", reader.error);
    print_message("           %llu rounds, %llu snapshots read twice, %u times "
                  "one of many rounds\n",
                  (unsigned long long)books.round,
                  (unsigned long long)atomic_load(&soak.snapshots),
                  lasting.looks);
    check_all();
    engine_reopen(soak.f);
    open_it();
    check_all();
    engine_fixture_free(soak.f);
    books.seconds += (uint64_t)difftime(time(NULL), started);
    if (home())
        write_books();
    tally_is(TALLY_SOAK, books.seconds / 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_and_memory_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
