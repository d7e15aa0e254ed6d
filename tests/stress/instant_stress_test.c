/*
 * Cursors of one instant while others write.  Each writer moves between the records
 * of a group of its own, by batches and by single writes that leave a mark first:
 * a cursor sees of each group the same sum, and of the marks none without what went
 * before.  What it shows forwards it shows backwards, and again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "engine_fixture.h"
#include "random.h"

enum {
    WRITERS = 3,
    READERS = 2,
    RECORDS = 120, /* of a writer, spread over the leaves */
    SUM = RECORDS * 1000,
    MOVES = 3000, /* of a writer */
    MARKS = 2,    /* of a writer: the second is never ahead of the first */
};

struct shared {
    struct engine_fixture *f;
    bft_tree *tree;
    _Atomic unsigned writing; /* writers that are not done */
    _Atomic uint64_t scans;
};

struct worker {
    struct shared *shared;
    uint64_t random;
    pthread_t thread;
    unsigned id;
    char error[200];
};

static void wrong(struct worker *w, bft_status status, const char *what)
{
    if (!w->error[0])
        snprintf(w->error, sizeof(w->error), "%s: %s", what,
                 bft_strerror(status));
}

static bft_slice record_key(char buf[24], unsigned i, unsigned writer)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 24, "r%05u-%u", i, writer)};
}

static bft_slice number_slice(const int64_t *number)
{
    return (bft_slice){number, sizeof(*number)};
}

static void put_mark(struct worker *w, unsigned mark, int64_t number)
{
    char buf[24];
    bft_slice key = {
        buf, (size_t)snprintf(buf, sizeof(buf), "m%u-%u", mark ? 0 : 9, w->id)};
    bft_status status = bft_put(w->shared->tree, key, number_slice(&number));
    if (status != BFT_OK)
        wrong(w, status, "mark");
}

static void *write_on(void *arg)
{
    struct worker *w = arg;
    int64_t balance[RECORDS];
    char buf[24];
    bft_batch *batch;
    bft_status status = bft_batch_create(w->shared->f->db, &batch);
    for (unsigned i = 0; i < RECORDS; i++)
        balance[i] = 1000;
    for (int64_t move = 1; move <= MOVES && status == BFT_OK; move++) {
        unsigned from = (unsigned)(random_of(&w->random) % RECORDS);
        unsigned to = (unsigned)(random_of(&w->random) % RECORDS);
        put_mark(w, 0, move);
        balance[from]--;
        balance[to]++;
        status =
            bft_batch_put(batch, w->shared->tree, record_key(buf, from, w->id),
                          number_slice(&balance[from]));
        if (status == BFT_OK)
            status = bft_batch_put(batch, w->shared->tree,
                                   record_key(buf, to, w->id),
                                   number_slice(&balance[to]));
        if (status == BFT_OK)
            status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
        put_mark(w, 1, move);
    }
    if (status != BFT_OK)
        wrong(w, status, "move");
    bft_batch_free(batch);
    atomic_fetch_sub(&w->shared->writing, 1);
    return NULL;
}

struct seen {
    int64_t sum[WRITERS], mark[WRITERS][MARKS];
    uint64_t hash;
};

static bft_status regard(bft_cursor *cursor, struct seen *seen)
{
    bft_slice key, value;
    int64_t number;
    unsigned writer;
    const char *text;
    uint64_t hash = 0;
    bft_status status = bft_cursor_record(cursor, &key, &value);
    if (status != BFT_OK)
        return status;
    text = key.data;
    writer = (unsigned)(text[key.len - 1] - '0');
    memcpy(&number, value.data, sizeof(number));
    if (text[0] == 'r')
        seen->sum[writer] += number;
    else
        seen->mark[writer][text[1] == '0'] = number;
    for (size_t i = 0; i < key.len; i++)
        hash = hash * 131 + (uint8_t)text[i];
    seen->hash += (hash * 31 + (uint64_t)number) * 0x9e3779b97f4a7c15u;
    return BFT_OK;
}

static bft_status scan(bft_cursor *cursor, bool forward, struct seen *seen)
{
    bft_status status =
        forward ? bft_cursor_first(cursor) : bft_cursor_last(cursor);
    memset(seen, 0, sizeof(*seen));
    while (status == BFT_OK) {
        status = regard(cursor, seen);
        if (status == BFT_OK)
            status =
                forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static void look(struct worker *w, bft_cursor *cursor)
{
    struct seen first, then;
    bft_status status = scan(cursor, true, &first);
    if (status == BFT_OK)
        status = scan(cursor, random_of(&w->random) % 2, &then);
    if (status != BFT_OK) {
        wrong(w, status, "scan");
        return;
    }
    if (first.hash != then.hash)
        wrong(w, BFT_OK, "a second scan shows something else");
    for (unsigned i = 0; i < WRITERS; i++) {
        if (first.sum[i] != SUM)
            wrong(w, BFT_OK, "a part of a batch is shown");
        if (first.mark[i][1] > first.mark[i][0] ||
            first.mark[i][0] > first.mark[i][1] + 1)
            wrong(w, BFT_OK, "a mark is ahead of what went before it");
    }
    atomic_fetch_add(&w->shared->scans, 1);
}

static void *read_on(void *arg)
{
    struct worker *w = arg;
    bft_cursor *cursor, *fresh;
    bft_status status = bft_cursor_open(w->shared->tree, &cursor);
    while (status == BFT_OK && atomic_load(&w->shared->writing) &&
           !w->error[0]) {
        look(w, cursor);
        status = bft_cursor_refresh(cursor);
        if (status != BFT_OK || random_of(&w->random) % 2)
            continue;
        status = bft_cursor_open(w->shared->tree, &fresh);
        if (status == BFT_OK)
            look(w, fresh);
        bft_cursor_close(fresh);
    }
    if (status != BFT_OK)
        wrong(w, status, "cursor");
    bft_cursor_close(cursor);
    return NULL;
}

static void a_cursor_sees_one_instant(void **state)
{
    static struct shared shared;
    struct worker w[WRITERS + READERS];
    int64_t each = 1000, none = 0;
    uint64_t seed = random_start();
    char buf[24];
    (void)state;
    shared.f = engine_fixture_open(ENGINE_MEMORY);
    shared.tree = engine_tree(shared.f, "t", 512);
    memset(w, 0, sizeof(w));
    for (unsigned id = 0; id < WRITERS; id++) {
        for (unsigned i = 0; i < RECORDS; i++)
            expect_ok(bft_put(shared.tree, record_key(buf, i, id),
                              number_slice(&each)));
        w[id] = (struct worker){.shared = &shared, .id = id};
        put_mark(&w[id], 0, none);
        put_mark(&w[id], 1, none);
    }
    atomic_store(&shared.writing, WRITERS);
    for (unsigned i = 0; i < WRITERS + READERS; i++) {
        w[i].shared = &shared;
        w[i].id = i;
        w[i].random = seed + i;
        assert_int_equal(0, pthread_create(&w[i].thread, NULL,
                                           i < WRITERS ? write_on : read_on,
                                           &w[i]));
    }
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        assert_int_equal(0, pthread_join(w[i].thread, NULL));
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        if (w[i].error[0])
            fail_msg("thread %u: %s", i, w[i].error);
    print_message("           %llu scans\n",
                  (unsigned long long)atomic_load(&shared.scans));
    assert_true(atomic_load(&shared.scans) > 0);
    expect_ok(bft_verify(shared.f->db));
    engine_fixture_free(shared.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cursor_sees_one_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
