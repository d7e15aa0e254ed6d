/*
 * Groups of records that come in one batch and go by the deletion of a range,
 * over and over, in a pool that is too small for them: whoever looks at a group,
 * at one instant, finds all of it or nothing, and of it only records of one
 * coming.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine_fixture.h"
#include "random.h"

enum { OWNERS = 2, LOOKERS = 2, GROUP = 120, ROUNDS = 60, VALUE = 60 };

struct stress {
    struct engine_fixture *f;
    bft_tree *tree;
    _Atomic unsigned owners; /* still at work */
    _Atomic uint64_t whole, none;
};

struct worker {
    struct stress *s;
    unsigned group;
    uint64_t random;
};

struct text {
    char chars[32];
};

static bft_slice key_of(struct text *text, unsigned group, unsigned n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "g%u-%05u", group, n);
    return (bft_slice){text->chars, (size_t)len};
}

static void come(const struct worker *w, unsigned round)
{
    char value[VALUE] = {0};
    bft_batch *batch;
    (void)snprintf(value, VALUE, "%u", round);
    expect_ok(bft_batch_create(w->s->f->db, &batch));
    for (unsigned n = 0; n < GROUP; n++) {
        struct text text;
        expect_ok(bft_batch_put(batch, w->s->tree, key_of(&text, w->group, n),
                                (bft_slice){value, VALUE}));
    }
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

/* By the range of its own, or by one that has it. */
static void go(struct worker *w)
{
    uint64_t deleted = 0;
    struct text low, high;
    bool counts = random_of(&w->random) % 2;
    expect_ok(bft_delete_range(w->s->tree, key_of(&low, w->group, 0),
                               key_of(&high, w->group, GROUP),
                               counts ? &deleted : NULL));
    assert_true(!counts || deleted == GROUP);
}

static void *own(void *arg)
{
    struct worker *w = arg;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        come(w, round);
        if (random_of(&w->random) % 8 == 0)
            expect_ok(bft_checkpoint(w->s->f->db));
        go(w);
    }
    atomic_fetch_sub(&w->s->owners, 1);
    return NULL;
}

/* All records of a group that CURSOR shows. */
static void look(struct worker *w, bft_cursor *cursor, bool back)
{
    char first[VALUE] = {0};
    bft_slice key, value;
    unsigned count = 0;
    struct text low, high;
    bft_status status;
    expect_ok(bft_cursor_bounds(cursor, key_of(&low, w->group, 0),
                                key_of(&high, w->group, GROUP)));
    status = back ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
    for (; status == BFT_OK; count++) {
        expect_ok(bft_cursor_record(cursor, &key, &value));
        if (count == 0)
            memcpy(first, value.data, VALUE);
        assert_memory_equal(first, value.data, VALUE);
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    expect_status(BFT_NOT_FOUND, status);
    if (count != 0 && count != GROUP)
        fail_msg("%u of %u records of group %u, at one instant", count, GROUP,
                 w->group);
    atomic_fetch_add(count ? &w->s->whole : &w->s->none, 1);
    bft_cursor_close(cursor);
}

static void look_by_snapshot(struct worker *w)
{
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    char buf[VALUE];
    size_t len;
    struct text text;
    bft_status status;
    unsigned count = 0;
    expect_ok(bft_snapshot_take(w->s->f->db, &snapshot));
    for (unsigned n = 0; n < GROUP; n += 17) {
        status = bft_snapshot_get(snapshot, w->s->tree,
                                  key_of(&text, w->group, n), buf, VALUE, &len);
        count += status == BFT_OK;
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
    }
    assert_true(count == 0 || count == (GROUP + 16) / 17);
    expect_ok(bft_snapshot_cursor(snapshot, w->s->tree, &cursor));
    look(w, cursor, random_of(&w->random) % 2);
    bft_snapshot_release(snapshot);
}

static void *look_on(void *arg)
{
    struct worker *w = arg;
    while (atomic_load(&w->s->owners)) {
        bft_cursor *cursor;
        w->group = (unsigned)(random_of(&w->random) % OWNERS);
        if (random_of(&w->random) % 2) {
            look_by_snapshot(w);
            continue;
        }
        expect_ok(bft_cursor_open(w->s->tree, &cursor));
        look(w, cursor, random_of(&w->random) % 2);
    }
    return NULL;
}

/* Between the groups: leaves have records of both. */
static void *write_beside(void *arg)
{
    struct worker *w = arg;
    char value[VALUE] = {0};
    while (atomic_load(&w->s->owners)) {
        struct text text;
        unsigned n = (unsigned)(random_of(&w->random) % 200);
        expect_ok(bft_put(w->s->tree, key_of(&text, OWNERS, n),
                          (bft_slice){value, VALUE}));
        expect_ok(bft_delete(w->s->tree, key_of(&text, OWNERS, n / 2)));
    }
    return NULL;
}

static void a_range_goes_at_once(void **state)
{
    struct worker worker[OWNERS + LOOKERS + 1];
    pthread_t thread[OWNERS + LOOKERS + 1];
    struct stress s = {.owners = OWNERS};
    uint64_t seed = random_start(), count;
    struct text low;
    (void)state;
    s.f = engine_fixture_open(ENGINE_MEMORY);
    s.tree = engine_tree(s.f, "t", 512);
    for (unsigned i = 0; i < OWNERS + LOOKERS + 1; i++) {
        worker[i] = (struct worker){&s, i, seed + i};
        assert_int_equal(0,
                         pthread_create(&thread[i], NULL,
                                        i < OWNERS             ? own
                                        : i < OWNERS + LOOKERS ? look_on
                                                               : write_beside,
                                        &worker[i]));
    }
    for (unsigned i = 0; i < OWNERS + LOOKERS + 1; i++)
        assert_int_equal(0, pthread_join(thread[i], NULL));
    expect_ok(bft_count(s.tree, (bft_slice){NULL, 0}, key_of(&low, OWNERS, 0),
                        &count));
    assert_int_equal(0, count);
    assert_true(atomic_load(&s.whole) + atomic_load(&s.none) > 0);
    expect_ok(bft_verify(s.f->db));
    engine_fixture_free(s.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_goes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
