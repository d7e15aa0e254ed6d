/*
 * A thread that is stopped between any two steps of a write, a batch, the
 * deletion of a range, a merge, an eviction, an absorption, a cleaning, a
 * checkpoint, a backup, a verify, a read, what a read leaves in memory, a tree's
 * creation, load or drop, or of freeing what was replaced, delays nobody but
 * writers of the leaves whose latches it holds: others write enough to overflow
 * the pool several times, to another tree, and read and scan both. Then it goes
 * on, and all is as it should be.  Without background threads, with them, and
 * with one of them as the thread that is stopped.
 *
 * Not meant here: who waits for a stopped thread's sync, or for room in the log
 * while a checkpoint is stopped.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/pagefile_internal.h"
#include "park.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif

#ifndef NDEBUG

/* Of a worker: enough to overflow the pool several times.  The thread sanitizer,
 * which watches what the steps read and write, needs no more than once. */
#ifdef SLOW
enum { OPERATIONS = 1000 };
#else
enum { OPERATIONS = 3000 };
#endif

enum {
    LEAF = 2048, /* the least that absorption looks at */
    VALUE = 200,
    OWN_KEYS = 1500, /* of the thread that stops */
    WORKERS = 2,
    KEYS = 1200, /* of a worker */
    PASSING_KEYS = 200,
    FLUSHED_KEYS = 25000,
    ROUNDS = 40, /* in which the point has to be met */
    /* The same where a round more costs nothing once it is: the thread to meet
     * it may be one that the machine lets wait. */
    ROUNDS_MOST = 4000,
};

struct stall {
    struct engine_fixture *f;
    bft_tree *own, *others;
    bft_tree *_Atomic passing; /* is dropped and made again */
    bool snapshots;            /* are taken meanwhile, and transactions made */
    /* Held shared to write, else to take snapshots: histories that grow ask for a
     * checkpoint, which waits for latches. */
    pthread_rwlock_t past;
    struct parked parked;
};

struct worker {
    struct stall *stall;
    unsigned id;
    pthread_t thread;
    uint32_t value[KEYS]; /* last put, 0: none */
};

static bft_slice key_of(char buf[24], const char *kind, unsigned i)
{
    bft_slice key = {buf, (size_t)snprintf(buf, 24, "%s-%05u", kind, i)};
    return key;
}

static bft_slice value_of(uint8_t buf[VALUE], uint32_t number)
{
    bft_slice value = {buf, VALUE};
    memset(buf, (int)(number % 251), VALUE);
    memcpy(buf, &number, sizeof(number));
    return value;
}

/* --- the thread that stops ------------------------------------------------- */

static void own_put(struct stall *s, unsigned i, uint32_t number)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    expect_ok(bft_put(s->own, key_of(kbuf, "own", i % OWN_KEYS),
                      value_of(vbuf, number)));
}

static void fill(struct stall *s, unsigned round)
{
    for (unsigned i = 0; i < OWN_KEYS; i++)
        own_put(s, i * 7, round);
}

/* Has nobody stopped yet? */
static bool goes_on(struct stall *s)
{
    return !atomic_load(&s->parked.reached);
}

static void run_puts(void *arg)
{
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(arg); round++)
        fill(arg, round);
}

/* New keys: leaves split. */
static void run_splits(void *arg)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    struct stall *s = arg;
    for (unsigned i = 0; i < ROUNDS_MOST * OWN_KEYS && goes_on(s); i++)
        expect_ok(bft_put(s->own, key_of(kbuf, "own", i * 7919 % 100000),
                          value_of(vbuf, i)));
}

static void run_batches(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    bft_batch *batch;
    expect_ok(bft_batch_create(s->f->db, &batch));
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 30; i++)
            expect_ok(bft_batch_put(
                batch, s->own, key_of(kbuf, "own", (i * 13 + round) % OWN_KEYS),
                value_of(vbuf, round)));
        expect_ok(bft_batch_commit(batch, BFT_BUFFERED, NULL));
    }
    bft_batch_free(batch);
}

/* What is deleted is there again in the next round. */
static void run_ranges(void *arg)
{
    struct stall *s = arg;
    char low[24], high[24];
    uint64_t deleted;
    for (unsigned round = 0; round < ROUNDS && goes_on(s); round++) {
        fill(s, round);
        expect_ok(bft_delete_range(s->own, key_of(low, "own", 100),
                                   key_of(high, "own", 900), &deleted));
    }
    fill(s, ROUNDS);
}

static struct bfti_rec *rec_of(struct stall *s)
{
    return bfti_rec_current(s->f->db->engine->buffer.threads);
}

static void wish_checkpoint(struct stall *s)
{
    atomic_store(&s->f->db->engine->want_checkpoint, true);
    bfti_wake_checkpointer(s->f->db->engine);
}

/* Inner nodes leave memory and come back. */
static void run_nodes(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    size_t len;
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(s); round++) {
        /* What the background has changed since stays until another
         * checkpoint. */
        if (round % ROUNDS == ROUNDS - 1) {
            wish_checkpoint(s);
            nanosleep(&(struct timespec){.tv_nsec = 200 * 1000}, NULL);
        }
        /* What was used lately stays the first time. */
        bfti_nodes_drop(s->f->db->engine, 0, SIZE_MAX);
        bfti_nodes_drop(s->f->db->engine, 0, SIZE_MAX);
        expect_ok(bft_get(s->own, key_of(kbuf, "own", round % OWN_KEYS), vbuf,
                          VALUE, &len));
    }
}

static void run_evictions(void *arg)
{
    struct stall *s = arg;
    bool done;
    for (unsigned round = 0; round < ROUNDS * 100; round++) {
        own_put(s, round, round);
        expect_ok(bfti_evict_one(&s->f->db->engine->buffer, rec_of(s), &done));
    }
}

static void run_clean_evictions(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    size_t len;
    bool done;
    for (unsigned round = 0; round < ROUNDS * 100; round++) {
        (void)(bft_get(s->own, key_of(kbuf, "own", round * 7 % OWN_KEYS), vbuf,
                       VALUE, &len) == BFT_OK);
        expect_ok(bfti_evict_one(&s->f->db->engine->buffer, rec_of(s), &done));
    }
}

static void run_checkpoints(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < 4; round++) {
        fill(s, round);
        expect_ok(bft_checkpoint(s->f->db));
    }
}

/* So much data that a checkpoint begins with the leaves' images. */
static void run_flushes(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    for (unsigned i = 0; i < FLUSHED_KEYS; i++)
        expect_ok(bft_put(s->own, key_of(kbuf, "own", i), value_of(vbuf, i)));
    expect_ok(bft_checkpoint(s->f->db));
    fill(s, 0);
    expect_ok(bft_checkpoint(s->f->db));
}

static void run_absorptions(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    bool done;
    for (unsigned round = 0; round < 4; round++) {
        fill(s, round);
        for (unsigned i = 0; i < OWN_KEYS; i++)
            if (i % 20)
                expect_ok(bft_delete(s->own, key_of(kbuf, "own", i)));
        for (unsigned i = 0; i < 2000; i++) /* into base pages */
            expect_ok(
                bfti_evict_one(&s->f->db->engine->buffer, rec_of(s), &done));
        bfti_note_small(s->f->db->engine);
        expect_ok(bfti_sweep(s->f->db->engine, rec_of(s)));
    }
}

/* What lies at the file's end is moved, and images let that end go. */
static void run_cleans(void *arg)
{
    struct stall *s = arg;
    struct bfti_engine *engine = s->f->db->engine;
    struct bfti_space *space = &engine->buffer.pf->space;
    bool done;
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(s); round++) {
        fill(s, round);
        for (unsigned i = 0; i < 200; i++)
            expect_ok(bfti_evict_one(&engine->buffer, rec_of(s), &done));
        bfti_space_lock(engine->buffer.pf);
        space->hole_floor = 0;
        space->cleaned_times = 0;
        bfti_space_unlock(engine->buffer.pf);
        expect_ok(bfti_clean(engine, rec_of(s), 4 << 20, true, &done));
    }
}

static void run_gets(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    size_t len;
    for (unsigned i = 0; i < OWN_KEYS; i++)
        (void)(bft_get(s->own, key_of(kbuf, "own", i), vbuf, VALUE, &len) ==
               BFT_OK);
}

/* Of keys that nobody wrote. */
static void run_absent_gets(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    size_t len;
    for (unsigned i = 0; i < ROUNDS_MOST * OWN_KEYS && goes_on(s); i++)
        expect_status(BFT_NOT_FOUND,
                      bft_get(s->own, key_of(kbuf, "own+", i % OWN_KEYS), vbuf,
                              VALUE, &len));
}

static void make_passing(struct stall *s)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    bft_tree *tree = engine_tree(s->f, "passing", LEAF);
    for (unsigned i = 0; i < PASSING_KEYS; i++)
        expect_ok(bft_put(tree, key_of(kbuf, "own", i), value_of(vbuf, i)));
    atomic_store(&s->passing, tree);
}

/* Values with extents of their own. */
static void run_large_values(void *arg)
{
    struct stall *s = arg;
    static uint8_t value[3 * LEAF], got[3 * LEAF];
    char kbuf[24];
    size_t len;
    for (unsigned round = 0; round < ROUNDS && goes_on(s); round++) {
        bft_slice key = key_of(kbuf, "own", round);
        expect_ok(bft_put(s->own, key, (bft_slice){value, sizeof(value)}));
        expect_ok(bft_get(s->own, key, got, sizeof(got), &len));
    }
    fill(s, ROUNDS);
}

/* A snapshot is open while it writes. */
static void run_saves(void *arg)
{
    struct stall *s = arg;
    bft_snapshot *snapshot;
    expect_ok(bft_snapshot_take(s->f->db, &snapshot));
    for (unsigned i = 0; i < OWN_KEYS && goes_on(s); i++)
        own_put(s, i, i);
    bft_snapshot_release(snapshot);
}

static void run_verify(void *arg)
{
    struct stall *s = arg;
    expect_ok(bft_verify(s->f->db));
}

static void run_backups(void *arg)
{
    struct stall *s = arg;
    bft_backup_options options = {.size = sizeof(options)};
    expect_ok(bft_backup(s->f->db, "/backup", &options));
}

static void run_drops(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < 3; round++) {
        expect_ok(bft_tree_drop(s->f->db, "passing"));
        make_passing(s);
    }
}

static void run_changes(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < 3; round++) {
        expect_ok(bft_tree_truncate(s->f->db, "passing"));
        expect_ok(bft_tree_rename(s->f->db, "passing", "gone by"));
        expect_ok(bft_tree_drop(s->f->db, "gone by"));
        make_passing(s);
    }
}

static bft_status next_passing(void *ctx, bft_bulk_record *record)
{
    static char kbuf[24];
    static uint8_t vbuf[VALUE];
    unsigned *i = ctx;
    if (*i == PASSING_KEYS)
        return BFT_NOT_FOUND;
    record->key = key_of(kbuf, "own", *i);
    record->value = value_of(vbuf, (*i)++);
    return BFT_OK;
}

static void run_loads(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < 3; round++) {
        unsigned i = 0;
        expect_ok(bft_tree_truncate(s->f->db, "passing"));
        expect_ok(bft_bulk_load(atomic_load(&s->passing), NULL, next_passing,
                                &i, NULL));
    }
}

static void scan(bft_tree *tree, bool of_an_instant)
{
    bft_cursor *cursor;
    bft_status status;
    expect_ok(of_an_instant ? bft_cursor_open(tree, &cursor)
                            : bft_cursor_open_newest(tree, &cursor));
    do
        status = bft_cursor_next(cursor);
    while (status == BFT_OK);
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
}

static void run_takes(void *arg)
{
    struct stall *s = arg;
    char kbuf[24];
    uint8_t vbuf[VALUE];
    bft_snapshot *snapshot;
    size_t len;
    expect_ok(bft_snapshot_take(s->f->db, &snapshot));
    expect_ok(bft_snapshot_get(snapshot, s->own, key_of(kbuf, "own", 1), vbuf,
                               VALUE, &len));
    bft_snapshot_release(snapshot);
}

static void run_scans(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(s); round++)
        scan(s->own, false);
}

static void run_instants(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(s); round++)
        scan(s->own, true);
}

/* The checkpointer's, which nobody waits for. */
static void run_wishes(void *arg)
{
    struct stall *s = arg;
    for (unsigned round = 0; round < ROUNDS_MOST && goes_on(s); round++) {
        wish_checkpoint(s);
        fill(s, round);
    }
}

/* --- those that go on -------------------------------------------------------- */

static void work_put(struct worker *w, unsigned i, uint32_t number)
{
    char kbuf[24], kind[4] = {'w', (char)('0' + w->id), 0, 0};
    uint8_t vbuf[VALUE];
    expect_ok(bft_put(w->stall->others, key_of(kbuf, kind, i),
                      value_of(vbuf, number)));
    w->value[i] = number;
}

static void work_get(struct worker *w, unsigned i)
{
    char kbuf[24], kind[4] = {'w', (char)('0' + w->id), 0, 0};
    uint8_t vbuf[VALUE];
    uint32_t number;
    size_t len;
    bft_status status =
        bft_get(w->stall->others, key_of(kbuf, kind, i), vbuf, VALUE, &len);
    expect_status(w->value[i] ? BFT_OK : BFT_NOT_FOUND, status);
    memcpy(&number, vbuf, sizeof(number));
    if (w->value[i])
        assert_int_equal(w->value[i], number);
}

/* A tree that may be gone, or empty, or come again. */
static void read_passing(struct stall *s)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    size_t len;
    for (unsigned i = 0; i < PASSING_KEYS; i++) {
        bft_status status = bft_get(atomic_load(&s->passing),
                                    key_of(kbuf, "own", i), vbuf, VALUE, &len);
        if (status != BFT_GONE && status != BFT_NOT_FOUND)
            expect_ok(status);
    }
}

/* What key I of W was is in a snapshot while it is changed, also by a
 * transaction. */
static void work_past(struct worker *w, unsigned i, uint32_t number)
{
    char kbuf[24], kind[4] = {'w', (char)('0' + w->id), 0, 0};
    bft_slice key = key_of(kbuf, kind, i);
    uint32_t was = w->value[i], found;
    uint8_t vbuf[VALUE];
    bft_snapshot *snapshot;
    bft_txn *txn;
    size_t len;
    expect_ok(bft_snapshot_take(w->stall->f->db, &snapshot));
    work_put(w, i, number);
    expect_ok(bft_txn_begin(w->stall->f->db, BFT_SERIALIZABLE, &txn));
    expect_ok(bft_txn_get(txn, w->stall->others, key, vbuf, VALUE, &len));
    memcpy(&found, vbuf, sizeof(found));
    assert_int_equal(number, found);
    expect_ok(
        bft_txn_put(txn, w->stall->others, key, value_of(vbuf, number + 1)));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    w->value[i] = number + 1;
    work_get(w, i);
    expect_status(
        was ? BFT_OK : BFT_NOT_FOUND,
        bft_snapshot_get(snapshot, w->stall->others, key, vbuf, VALUE, &len));
    memcpy(&found, vbuf, sizeof(found));
    if (was)
        assert_int_equal(was, found);
    bft_snapshot_release(snapshot);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct stall *s = w->stall;
    uint64_t random = 88172645463325252u + w->id;
    for (unsigned n = 1; n <= OPERATIONS; n++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        unsigned i = (unsigned)(random % KEYS);
        pthread_rwlock_rdlock(&s->past);
        if (n % 4)
            work_put(w, i, n);
        else
            work_get(w, i);
        pthread_rwlock_unlock(&s->past);
        if (n % 300 == 0 && s->snapshots) {
            pthread_rwlock_wrlock(&s->past);
            work_past(w, i, n);
            pthread_rwlock_unlock(&s->past);
        }
        if (n % 1000 == 0) {
            run_gets(s);
            read_passing(s);
            scan(s->own, false);
            scan(s->others, false);
            pthread_rwlock_wrlock(&s->past);
            scan(s->own, true);
            scan(s->others, true);
            pthread_rwlock_unlock(&s->past);
        }
    }
    return NULL;
}

/* --- one point ----------------------------------------------------------------- */

enum background {
    NONE,         /* no background threads */
    BESIDE,       /* while one of ours stops */
    EVICTOR,      /* it is the one that stops */
    CHECKPOINTER, /* it is */
};

struct point {
    const char *name;
    void (*run)(void *arg);
};

/* Who takes a snapshot waits for a drop, a truncation or the end of a load, and
 * an open one refuses those, which come once the stopped thread goes on. */
static bool snapshots_go_on(const struct point *point)
{
    static const char *const waited_for[] = {
        "create:", "drop:", "truncate:", "rename:", "bulk:"};
    for (size_t i = 0; i < sizeof(waited_for) / sizeof(*waited_for); i++)
        if (strncmp(point->name, waited_for[i], strlen(waited_for[i])) == 0)
            return false;
    return true;
}

/* What a snapshot has of the stopped thread's records, in a number. */
static uint64_t content_of(struct stall *s, bft_snapshot *snapshot)
{
    uint64_t hash = 0;
    bft_cursor *cursor;
    bft_slice key, value;
    expect_ok(bft_snapshot_cursor(snapshot, s->own, &cursor));
    while (bft_cursor_next(cursor) == BFT_OK) {
        expect_ok(bft_cursor_record(cursor, &key, &value));
        for (size_t i = 0; i < key.len; i++)
            hash = hash * 31 + ((const uint8_t *)key.data)[i];
        for (size_t i = 0; i < value.len; i++)
            hash = hash * 31 + ((const uint8_t *)value.data)[i];
    }
    bft_cursor_close(cursor);
    return hash;
}

static void stall_at(const struct point *point, enum background background)
{
    static const char *const step[] = {NULL, NULL, "evictor:step",
                                       "checkpointer:step"};
    struct stall s;
    struct worker *w = calloc(WORKERS, sizeof(*w));
    bft_snapshot *snapshot = NULL;
    uint64_t content = 0;
    bool stopped;
    assert_non_null(w);
    memset(&s, 0, sizeof(s));
    pthread_rwlock_init(&s.past, NULL);
    s.snapshots = snapshots_go_on(point);
    s.f = engine_fixture_make(ENGINE_MEMORY);
    s.f->options.log_bytes = 64 << 20;     /* room: no checkpoint has to come */
    s.f->options.memory_bytes = 512 << 10; /* nor for space that many evictions
                                              of few pages leave */
    s.f->options.log_segment_bytes = 1 << 20;
    s.f->options.promote_percent = 100;
    s.f->options.no_threads = background == NONE;
    s.f->surroundings.nodes_bytes = 1;
    engine_open(s.f);
    s.own = engine_tree(s.f, "own", LEAF);
    s.others = engine_tree(s.f, "others", LEAF);
    make_passing(&s);
    for (unsigned i = 0; i < OWN_KEYS; i++)
        own_put(&s, i, 1);
    /* The first one waits for a checkpoint under way. */
    expect_ok(bft_snapshot_take(s.f->db, &snapshot));
    bft_snapshot_release(snapshot);
    snapshot = NULL;
    expect_ok(bft_checkpoint(s.f->db));
    stopped = step[background]
                  ? park_start_theirs(&s.parked, step[background], point->name,
                                      point->run, &s)
                  : park_start(&s.parked, point->name, 0, point->run, &s);
    if (!stopped)
        fail_msg("nothing stops at %s", point->name);
    if (background != NONE)
        wish_checkpoint(&s);
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i].stall = &s;
        w[i].id = i;
        assert_int_equal(0, pthread_create(&w[i].thread, NULL, work, &w[i]));
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(0, pthread_join(w[i].thread, NULL));
    if (s.snapshots) {
        expect_ok(bft_snapshot_take(s.f->db, &snapshot));
        content = content_of(&s, snapshot);
    }
    park_end(&s.parked);
    if (s.snapshots)
        assert_true(content == content_of(&s, snapshot));
    bft_snapshot_release(snapshot);
    expect_ok(bft_verify(s.f->db));
    engine_reopen(s.f);
    s.others = engine_tree(s.f, "others", LEAF);
    for (unsigned i = 0; i < WORKERS; i++)
        for (unsigned k = 0; k < KEYS; k++)
            work_get(&w[i], k);
    expect_ok(bft_verify(s.f->db));
    engine_fixture_free(s.f);
    pthread_rwlock_destroy(&s.past);
    free(w);
}

static void stall_at_all(const struct point *points, size_t n,
                         enum background background)
{
    for (size_t i = 0; i < n; i++) {
        print_message("           %s\n", points[i].name);
        stall_at(&points[i], background);
    }
}
#define STALL_AT_ALL(points, background) \
    stall_at_all(points, sizeof(points) / sizeof(*(points)), background)

static void a_stopped_writer_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"write:leaf-chosen", run_puts}, {"write:guarded", run_puts},
        {"write:logged", run_puts},      {"write:published", run_puts},
        {"write:saved", run_saves},      {"history:record-read", run_saves},
        {"batch:checked", run_batches},  {"batch:latched", run_batches},
        {"batch:logged", run_batches},   {"batch:part-published", run_batches},
        {"batch:decided", run_batches},  {"wal:entering", run_puts},
        {"wal:tail-named", run_puts},    {"wal:linked", run_puts},
        {"wal:copied-named", run_puts},  {"wal:stored", run_puts},
        {"wal:copied-moved", run_puts},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void a_stopped_deletion_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"range:registered", run_ranges}, {"range:waited", run_ranges},
        {"range:logged", run_ranges},     {"range:visible", run_ranges},
        {"tomb:chosen", run_ranges},      {"tomb:cleared", run_ranges},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
}

static void a_stopped_merger_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"merge:named", run_evictions},
        {"merge:read", run_evictions},
        {"merge:dead-next", run_evictions},
        {"extent:allocated", run_evictions},
        {"merge:written", run_evictions},
        {"merge:ready", run_evictions},
        {"merge:decided", run_evictions},
        {"merge:swung", run_evictions},
        {"merge:inherited", run_splits},
        {"merge:split-published", run_splits},
        {"tree:root-swung", run_splits},
        {"evict:chosen", run_evictions},
        {"evict:dropped", run_clean_evictions},
        {"absorb:written", run_absorptions},
        {"absorb:left-set", run_absorptions},
        {"absorb:forwarded", run_absorptions},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

/* Each keeps one block at most: the one that it is about to have, to give or to
 * look at. */
static void who_stops_in_the_pool_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"pool:found", run_puts},
        {"pool:claiming", run_puts},
        {"pool:taken", run_puts},
        {"pool:publishing", run_puts},
        {"pool:retiring", run_puts},
        {"pool:hand-moved", run_evictions},
        {"pool:visiting", run_evictions},
        {"pool:batch-collected", run_evictions},
        {"pool:batch-compared", run_evictions},
        {"pool:settling", run_evictions},
        {"pool:unmarked", run_evictions},
        {"pool:uncovered", run_evictions},
    };
    /* Background threads might begin all the zones that there are. */
    static const struct point of_zones[] = {
        {"pool:zone-begun", run_splits},
        {"pool:swept", run_splits},
        {"pool:heap-gains", run_splits},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
    STALL_AT_ALL(of_zones, NONE);
}

static void a_stopped_cleaner_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"relocate:named", run_cleans},
        {"relocate:written", run_cleans},
        {"relocate:swung", run_cleans},
        {"clean:node-copied", run_cleans},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
}

static void a_stopped_checkpoint_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"table:part-cut", run_checkpoints},
        {"flush:begun", run_flushes},
        {"flush:frozen", run_flushes},
        {"flush:merged", run_flushes},
        {"checkpoint:cut", run_checkpoints},
        {"checkpoint:frozen", run_checkpoints},
        {"checkpoint:merged", run_checkpoints},
        {"checkpoint:gathered", run_checkpoints},
        {"checkpoint:structure", run_checkpoints},
        {"checkpoint:written", run_checkpoints},
        {"checkpoint:synced", run_checkpoints},
        {"checkpoint:twin-written", run_checkpoints},
        {"verify:leaf-met", run_verify}, /* no checkpoint runs beside it */
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void a_stopped_backup_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"backup:held", run_backups},
        {"backup:copied", run_backups},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
}

static void a_stopped_reader_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"read:leaf-chosen", run_gets},
        {"read:named", run_gets},
        {"read:extent-named", run_gets},
        {"read:leaf-chosen", run_scans},
        {"read:named", run_scans},
        {"read:extent-named", run_scans},
        {"snapshot:linked", run_instants},
        {"read:named", run_instants},
        {"tomb:copied", run_instants},
        {"large:part-chosen", run_large_values},
        {"read:filter-named", run_absent_gets},
        {"filters:taken", run_absent_gets},
        {"filters:written", run_absent_gets},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void who_stops_while_taking_a_snapshot_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"snapshot:history-there", run_takes}, {"snapshot:linked", run_takes},
        {"snapshot:tree-read", run_takes},     {"snapshot:looked", run_takes},
        {"late:collected", run_takes},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
}

static void a_stopped_promoter_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"cursor:copied", run_scans},     {"promote:built", run_scans},
        {"promote:published", run_scans}, {"promote:swung", run_scans},
        {"promote:built", run_gets},      {"promote:latched", run_gets},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void who_stops_with_a_node_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"node:away", run_nodes},
        {"node:read", run_nodes},
        {"node:put", run_nodes},
        {"node:leaving", run_nodes},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
    STALL_AT_ALL(points, BESIDE);
}

static void a_stopped_maker_of_trees_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"create:made", run_drops},       {"create:logged", run_drops},
        {"drop:logged", run_drops},       {"drop:structure-stopped", run_drops},
        {"drop:root-taken", run_drops},   {"drop:leaf-latched", run_drops},
        {"drop:leaf-taken", run_drops},   {"truncate:made", run_changes},
        {"truncate:logged", run_changes}, {"truncate:added", run_changes},
        {"rename:logged", run_changes},   {"bulk:leaves-written", run_loads},
        {"bulk:written", run_loads},      {"bulk:published", run_loads},
        {"bulk:in-image", run_loads},     {"bulk:found-empty", run_loads},
        {"bulk:latched", run_loads},      {"bulk:logged", run_loads},
        {"bulk:named", run_loads},        {"bulk:unlatched", run_loads},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void who_stops_while_freeing_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"defer:taken", run_splits},
        {"defer:waited", run_splits},
    };
    (void)state;
    STALL_AT_ALL(points, NONE);
}

static void a_stopped_thread_does_not_stop_background_ones(void **state)
{
    static const struct point points[] = {
        {"write:published", run_puts},    {"batch:logged", run_batches},
        {"merge:decided", run_evictions}, {"read:named", run_scans},
        {"drop:leaf-latched", run_drops},
    };
    (void)state;
    STALL_AT_ALL(points, BESIDE);
}

/* Where it holds no latch: which leaf it comes to is not known. */
static void a_stopped_background_thread_stops_nobody(void **state)
{
    static const struct point evictor[] = {
        {"merge:read", run_puts},          {"merge:written", run_puts},
        {"defer:waited", run_splits},      {"pool:visiting", run_puts},
        {"pool:batch-compared", run_puts}, {"pool:settling", run_puts},
        {"pool:uncovered", run_puts},
    };
    static const struct point checkpointer[] = {
        {"checkpoint:cut", run_wishes},
        {"checkpoint:structure", run_wishes},
    };
    (void)state;
    STALL_AT_ALL(evictor, EVICTOR);
    STALL_AT_ALL(checkpointer, CHECKPOINTER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_writer_stops_nobody_else),
        cmocka_unit_test(a_stopped_deletion_stops_nobody_else),
        cmocka_unit_test(a_stopped_merger_stops_nobody_else),
        cmocka_unit_test(a_stopped_cleaner_stops_nobody_else),
        cmocka_unit_test(who_stops_in_the_pool_stops_nobody),
        cmocka_unit_test(a_stopped_checkpoint_stops_nobody_else),
        cmocka_unit_test(a_stopped_backup_stops_nobody),
        cmocka_unit_test(a_stopped_reader_stops_nobody),
        cmocka_unit_test(who_stops_while_taking_a_snapshot_stops_nobody),
        cmocka_unit_test(a_stopped_promoter_stops_nobody_else),
        cmocka_unit_test(who_stops_with_a_node_stops_nobody),
        cmocka_unit_test(a_stopped_maker_of_trees_stops_nobody_else),
        cmocka_unit_test(who_stops_while_freeing_stops_nobody_else),
        cmocka_unit_test(a_stopped_thread_does_not_stop_background_ones),
        cmocka_unit_test(a_stopped_background_thread_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
