/*
 * A thread that is stopped between any two steps of a write, a batch, a merge,
 * an eviction, an absorption, a checkpoint or a read delays nobody but writers
 * of the leaves whose latches it holds: others write enough to overflow the
 * pool several times, to another tree, and read and scan both.  Then it goes on,
 * and all is as it should be.
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

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"

#ifndef NDEBUG

enum {
    LEAF = 2048, /* the least that absorption looks at */
    VALUE = 200,
    OWN_KEYS = 1500,   /* of the thread that stops */
    WORKERS = 2,
    KEYS = 1200,       /* of a worker */
    OPERATIONS = 4000, /* of a worker */
    ROUNDS = 40,       /* in which the point has to be met */
};

struct stall {
    struct engine_fixture *f;
    bft_tree *own, *others;
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

static void run_puts(void *arg)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        fill(arg, round);
}

/* New keys: leaves split. */
static void run_splits(void *arg)
{
    char kbuf[24];
    uint8_t vbuf[VALUE];
    struct stall *s = arg;
    for (unsigned i = 0; i < ROUNDS * OWN_KEYS; i++)
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

static struct bfti_rec *rec_of(struct stall *s)
{
    return bfti_rec_current(s->f->db->engine->buffer.threads);
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

static void scan(bft_tree *tree)
{
    bft_cursor *cursor;
    bft_status status;
    expect_ok(bft_cursor_open(tree, &cursor));
    do
        status = bft_cursor_next(cursor);
    while (status == BFT_OK);
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
}

static void run_scan(void *arg)
{
    scan(((struct stall *)arg)->own);
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
    bft_status status = bft_get(w->stall->others, key_of(kbuf, kind, i), vbuf,
                                VALUE, &len);
    expect_status(w->value[i] ? BFT_OK : BFT_NOT_FOUND, status);
    memcpy(&number, vbuf, sizeof(number));
    if (w->value[i])
        assert_int_equal(w->value[i], number);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct stall *s = w->stall;
    uint64_t random = 88172645463325252u + w->id;
    for (unsigned n = 1; n <= OPERATIONS; n++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        unsigned i = (unsigned)(random % KEYS);
        if (n % 4)
            work_put(w, i, n);
        else
            work_get(w, i);
        if (n % 1000 == 0) {
            run_gets(s);
            scan(s->own);
            scan(s->others);
        }
    }
    return NULL;
}

/* --- one point ----------------------------------------------------------------- */

struct point {
    const char *name;
    void (*run)(void *arg);
};

static void stall_at(const struct point *point, unsigned skip)
{
    struct stall s;
    struct parked parked;
    struct worker *w = calloc(WORKERS, sizeof(*w));
    assert_non_null(w);
    s.f = engine_fixture_make(ENGINE_MEMORY);
    s.f->options.log_bytes = 64 << 20; /* room: no checkpoint has to come */
    s.f->options.log_segment_bytes = 1 << 20;
    s.f->options.no_threads = true;
    engine_open(s.f);
    s.own = engine_tree(s.f, "own", LEAF);
    s.others = engine_tree(s.f, "others", LEAF);
    for (unsigned i = 0; i < OWN_KEYS; i++)
        own_put(&s, i, 1);
    expect_ok(bft_checkpoint(s.f->db));
    if (!park_start(&parked, point->name, skip, point->run, &s))
        fail_msg("nothing stops at %s", point->name);
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i].stall = &s;
        w[i].id = i;
        assert_int_equal(0, pthread_create(&w[i].thread, NULL, work, &w[i]));
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(0, pthread_join(w[i].thread, NULL));
    park_end(&parked);
    expect_ok(bft_verify(s.f->db));
    engine_reopen(s.f);
    s.others = engine_tree(s.f, "others", LEAF);
    for (unsigned i = 0; i < WORKERS; i++)
        for (unsigned k = 0; k < KEYS; k++)
            work_get(&w[i], k);
    expect_ok(bft_verify(s.f->db));
    engine_fixture_free(s.f);
    free(w);
}

static void stall_at_all(const struct point *points, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        print_message("           %s\n", points[i].name);
        stall_at(&points[i], 0);
    }
}
#define STALL_AT_ALL(points) \
    stall_at_all(points, sizeof(points) / sizeof(*(points)))

static void a_stopped_writer_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"write:leaf-chosen", run_puts},  {"write:logged", run_puts},
        {"write:published", run_puts},    {"batch:latched", run_batches},
        {"batch:logged", run_batches},    {"batch:part-published", run_batches},
        {"batch:decided", run_batches},   {"wal:slot-set", run_puts},
        {"wal:tail-named", run_puts},     {"wal:linked", run_puts},
        {"wal:copied-named", run_puts},   {"wal:stored", run_puts},
        {"wal:copied-moved", run_puts},
    };
    (void)state;
    STALL_AT_ALL(points);
}

static void a_stopped_merger_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"merge:named", run_evictions},
        {"merge:read", run_evictions},
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
        {"pool:batch-copied", run_evictions},
        {"pool:batch-compared", run_evictions},
    };
    (void)state;
    STALL_AT_ALL(points);
}

static void a_stopped_checkpoint_stops_nobody_else(void **state)
{
    static const struct point points[] = {
        {"table:part-cut", run_checkpoints},
        {"checkpoint:cut", run_checkpoints},
        {"checkpoint:frozen", run_checkpoints},
        {"checkpoint:merged", run_checkpoints},
        {"checkpoint:gathered", run_checkpoints},
        {"checkpoint:structure", run_checkpoints},
        {"checkpoint:written", run_checkpoints},
        {"checkpoint:synced", run_checkpoints},
    };
    (void)state;
    STALL_AT_ALL(points);
}

static void a_stopped_reader_stops_nobody(void **state)
{
    static const struct point points[] = {
        {"read:leaf-chosen", run_gets},  {"read:named", run_gets},
        {"read:extent-named", run_gets}, {"read:leaf-chosen", run_scan},
        {"read:named", run_scan},        {"read:extent-named", run_scan},
    };
    (void)state;
    STALL_AT_ALL(points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_writer_stops_nobody_else),
        cmocka_unit_test(a_stopped_merger_stops_nobody_else),
        cmocka_unit_test(a_stopped_checkpoint_stops_nobody_else),
        cmocka_unit_test(a_stopped_reader_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
