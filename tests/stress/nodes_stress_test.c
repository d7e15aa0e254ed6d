/*
 * Inner nodes come and go while threads write, delete, commit batches, read and
 * scan everywhere and checkpoints follow each other: each writer finds what it
 * wrote, and all of it is there in the end.
 *
 * BFT_STRESS_ROUNDS says how many operations each writer does.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "random.h"

enum {
    WRITERS = 3,
    KEYS = 20000, /* of each writer: dozens of nodes of height 1 */
    VALUE = 60,
    BATCH = 20,
    DEFAULT_ROUNDS = 20000,
};

struct shared {
    struct engine_fixture *f;
    bft_tree *tree;
    unsigned rounds;
    _Atomic bool stop;
};

struct writer {
    struct shared *shared;
    pthread_t thread;
    unsigned id;
    uint64_t random;
    uint32_t version[KEYS]; /* last put, 0: none */
    char error[200];
};

/* Threads draw for themselves. */
static unsigned draw(struct writer *w, unsigned bound)
{
    w->random = w->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)((w->random >> 33) % bound);
}

static bft_slice key_of(char buf[32], unsigned writer, unsigned i)
{
    bft_slice key = {buf,
                     (size_t)snprintf(buf, 32, "key-%07u-%u", i * 37, writer)};
    return key;
}

static bft_slice value_of(uint8_t buf[VALUE], unsigned i, uint32_t version)
{
    bft_slice value = {buf, VALUE};
    memset(buf, (int)(i % 251), VALUE);
    memcpy(buf, &version, sizeof(version));
    return value;
}

/* A thread must not jump out of itself: it says what was wrong. */
static bool check(struct writer *w, bft_status expected, bft_status status,
                  const char *what)
{
    char text[120];
    if (status == expected)
        return true;
    bft_last_error(text, sizeof(text));
    (void)snprintf(w->error, sizeof(w->error), "%s: %d, not %d: %s", what,
                   (int)status, (int)expected, text);
    return false;
}

static bool check_key(struct writer *w, unsigned i)
{
    char kbuf[32];
    uint8_t vbuf[VALUE], expected[VALUE];
    size_t len;
    bft_status status =
        bft_get(w->shared->tree, key_of(kbuf, w->id, i), vbuf, VALUE, &len);
    if (!check(w, w->version[i] ? BFT_OK : BFT_NOT_FOUND, status, "get"))
        return false;
    (void)value_of(expected, i, w->version[i]);
    if (status == BFT_OK &&
        (len != VALUE || memcmp(vbuf, expected, VALUE) != 0)) {
        (void)snprintf(w->error, sizeof(w->error), "key %u is not of %u", i,
                       (unsigned)w->version[i]);
        return false;
    }
    return true;
}

static bool write_one(struct writer *w, unsigned i, uint32_t version)
{
    char kbuf[32];
    uint8_t vbuf[VALUE];
    bft_slice key = key_of(kbuf, w->id, i);
    bft_status status =
        version ? bft_put(w->shared->tree, key, value_of(vbuf, i, version))
                : bft_delete(w->shared->tree, key);
    w->version[i] = version;
    return check(w, BFT_OK, status, "write");
}

static bool write_batch(struct writer *w, uint32_t version)
{
    bft_batch *batch;
    char kbuf[32];
    uint8_t vbuf[VALUE];
    bool fine =
        check(w, BFT_OK, bft_batch_create(w->shared->f->db, &batch), "batch");
    for (unsigned n = 0; fine && n < BATCH; n++) {
        unsigned i = draw(w, KEYS);
        fine =
            check(w, BFT_OK,
                  bft_batch_put(batch, w->shared->tree, key_of(kbuf, w->id, i),
                                value_of(vbuf, i, version)),
                  "batch");
        w->version[i] = version;
    }
    fine = fine && check(w, BFT_OK, bft_batch_commit(batch, BFT_DEFAULT, NULL),
                         "batch");
    bft_batch_free(batch);
    return fine;
}

/* Whole ranges go, so that leaves are absorbed. */
static bool delete_run(struct writer *w)
{
    unsigned from = draw(w, KEYS - 200);
    for (unsigned i = from; i < from + 200; i++)
        if (!write_one(w, i, 0))
            return false;
    return true;
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    for (unsigned round = 1; round <= w->shared->rounds; round++) {
        unsigned i = draw(w, KEYS), kind = draw(w, 1000);
        bool fine = kind < 3     ? delete_run(w)
                    : kind < 60  ? write_batch(w, round)
                    : kind < 500 ? write_one(w, i, round)
                    : kind < 600 ? write_one(w, i, 0)
                                 : check_key(w, i);
        if (!fine)
            break;
    }
    return NULL;
}

/* Keys ascend, from anywhere, either way. */
static void *scan_main(void *arg)
{
    struct writer *w = arg;
    bft_cursor *cursor;
    char kbuf[32], last[32];
    while (!atomic_load(&w->shared->stop)) {
        bool back = draw(w, 2);
        bft_slice key = key_of(kbuf, 0, draw(w, KEYS));
        bft_status status = bft_cursor_open(w->shared->tree, &cursor);
        if (!check(w, BFT_OK, status, "scan"))
            return NULL;
        status = bft_cursor_seek(cursor, back ? BFT_LE : BFT_GE, key);
        memset(last, 0, sizeof(last));
        for (unsigned n = 0; n < 300 && status == BFT_OK; n++) {
            char now[32] = "";
            (void)(bft_cursor_key(cursor, &key) == BFT_OK);
            memcpy(now, key.data, key.len);
            if (n && (strcmp(last, now) < 0) == back)
                (void)snprintf(w->error, sizeof(w->error), "%s, then %s", last,
                               now);
            memcpy(last, now, sizeof(last));
            status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
        }
        if (status != BFT_NOT_FOUND)
            (void)check(w, BFT_OK, status, "scan");
        bft_cursor_close(cursor);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct writer *w = arg;
    while (!atomic_load(&w->shared->stop))
        (void)check(w, BFT_OK, bft_checkpoint(w->shared->f->db), "checkpoint");
    return NULL;
}

static void *drop_main(void *arg)
{
    const struct writer *w = arg;
    while (!atomic_load(&w->shared->stop)) {
        bfti_nodes_drop(w->shared->f->db->engine, 0, SIZE_MAX);
        sched_yield();
    }
    return NULL;
}

static void start(struct writer *w, struct shared *s, unsigned id,
                  void *(*run)(void *))
{
    w->shared = s;
    w->id = id;
    w->random = random_next();
    assert_int_equal(0, pthread_create(&w->thread, NULL, run, w));
}

static void join(struct writer *w)
{
    pthread_join(w->thread, NULL);
    if (w->error[0])
        fail_msg("%s", w->error);
}

static void check_all(struct writer *w)
{
    for (unsigned n = 0; n < WRITERS; n++)
        for (unsigned i = 0; i < KEYS; i++)
            if (!check_key(&w[n], i))
                fail_msg("%s", w[n].error);
}

static void nodes_come_and_go_under_all_work(void **state)
{
    static void *(*const other[])(void *) = {scan_main, checkpoint_main,
                                             drop_main};
    struct writer *w = calloc(WRITERS + 3, sizeof(*w));
    const char *rounds = getenv("BFT_STRESS_ROUNDS");
    struct shared s;
    bft_stats stats;

    (void)state;
    assert_non_null(w);
    memset(&s, 0, sizeof(s));
    random_start();
    s.rounds = rounds ? (unsigned)strtoul(rounds, NULL, 10) : DEFAULT_ROUNDS;
    s.f = engine_fixture_make(ENGINE_MEMORY);
    s.f->surroundings.nodes_bytes = 1;
    s.f->options.memory_bytes = 2 << 20;
    s.f->options.log_bytes = 4 << 20;
    engine_open(s.f);
    s.tree = engine_tree(s.f, "t", 512);
    for (unsigned n = 0; n < WRITERS; n++) {
        w[n].shared = &s;
        w[n].id = n;
        for (unsigned i = 0; i < KEYS; i += 2)
            assert_true(write_one(&w[n], i, 1));
    }
    for (unsigned n = 0; n < WRITERS; n++)
        start(&w[n], &s, n, writer_main);
    for (unsigned n = 0; n < 3; n++)
        start(&w[WRITERS + n], &s, WRITERS + n, other[n]);
    for (unsigned n = 0; n < WRITERS; n++)
        join(&w[n]);
    atomic_store(&s.stop, true);
    for (unsigned n = 0; n < 3; n++)
        join(&w[WRITERS + n]);
    check_all(w);
    stats = engine_stats(s.f);
    print_message(
        "splits %llu absorbed %llu checkpoints %llu nodes +%llu-%llu\n",
        (unsigned long long)stats.splits, (unsigned long long)stats.leaf_merges,
        (unsigned long long)stats.checkpoints,
        (unsigned long long)stats.nodes_read,
        (unsigned long long)stats.nodes_dropped);
    assert_true(stats.nodes_read > s.rounds / 100);
    assert_true(stats.nodes_dropped > s.rounds / 100);
    expect_ok(bft_verify(s.f->db));
    engine_reopen(s.f);
    s.tree = engine_tree(s.f, "t", 512);
    check_all(w);
    expect_ok(bft_verify(s.f->db));
    engine_fixture_free(s.f);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_come_and_go_under_all_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
