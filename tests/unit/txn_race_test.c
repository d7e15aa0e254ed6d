/*
 * Serializable commits that are stopped between their last look at what they read
 * and the step that makes their writes visible: nobody sees a change of the one
 * without the other.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"

enum { LOOKS = 200 };

struct race {
    struct engine_fixture *f;
    bft_tree *a, *b;
    bft_txn *txn;       /* has read "k" of a, and writes "k" of b */
    bft_status status;  /* of its commit */
    bft_status changed; /* of who changes a */
};

static bft_slice text(const char *of)
{
    return (bft_slice){of, strlen(of)};
}

static void put(bft_tree *tree, const char *key, const char *value)
{
    expect_ok(bft_put(tree, text(key), text(value)));
}

static void race_open(struct race *r)
{
    memset(r, 0, sizeof(*r));
    r->f = engine_fixture_make(ENGINE_MEMORY);
    r->f->options.no_threads = true;
    engine_open(r->f);
    r->a = engine_tree(r->f, "a", 512);
    r->b = engine_tree(r->f, "b", 512);
    put(r->a, "k", "old");
    put(r->b, "k", "old");
}

static void race_close(struct race *r)
{
    expect_ok(bft_verify(r->f->db));
    engine_fixture_free(r->f);
}

/* The transaction has read "k" of a, by itself. */
static void begin_with_get(struct race *r)
{
    char buf[8];
    size_t len;
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
    expect_ok(bft_txn_get(r->txn, r->a, text("k"), buf, sizeof(buf), &len));
    expect_ok(bft_txn_put(r->txn, r->b, text("k"), text("new")));
}

/* The same among all there is. */
static void begin_with_scan(struct race *r)
{
    bft_cursor *cursor;
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &r->txn));
    expect_ok(bft_txn_cursor(r->txn, r->a, &cursor));
    expect_ok(bft_cursor_first(cursor));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    expect_ok(bft_txn_put(r->txn, r->b, text("k"), text("new")));
}

/* What one who reads both sees. */
static void sees(const struct race *r, const char *a, const char *b)
{
    bft_txn *txn;
    char buf[8];
    size_t len;
    expect_ok(bft_txn_begin(r->f->db, BFT_SERIALIZABLE, &txn));
    expect_ok(bft_txn_get(txn, r->a, text("k"), buf, sizeof(buf), &len));
    assert_int_equal(strlen(a), len);
    assert_memory_equal(a, buf, len);
    expect_ok(bft_txn_get(txn, r->b, text("k"), buf, sizeof(buf), &len));
    assert_int_equal(strlen(b), len);
    assert_memory_equal(b, buf, len);
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
}

/* --- on threads of their own ------------------------------------------------ */

static void commit(void *arg)
{
    struct race *r = arg;
    r->status = bft_txn_commit(r->txn, BFT_DEFAULT, NULL);
}

static void change_by_put(void *arg)
{
    struct race *r = arg;
    r->changed = bft_put(r->a, text("k"), text("new"));
}

static void change_by_batch(void *arg)
{
    struct race *r = arg;
    bft_batch *batch;
    expect_ok(bft_batch_create(r->f->db, &batch));
    expect_ok(bft_batch_put(batch, r->a, text("j"), text("new")));
    expect_ok(bft_batch_put(batch, r->a, text("k"), text("new")));
    r->changed = bft_batch_commit(batch, BFT_DEFAULT, NULL);
    bft_batch_free(batch);
}

static void insert_before(void *arg)
{
    struct race *r = arg;
    r->changed = bft_insert(r->a, text("j"), text("new"));
}

static void delete_all(void *arg)
{
    struct race *r = arg;
    r->changed = bft_delete_range(r->a, (bft_slice){NULL, 0},
                                  (bft_slice){NULL, 0}, NULL);
}

/* CHANGE comes again at POINT because of the commit that is stopped, and shows
 * nothing before. */
static void waits(void (*begin)(struct race *r), void (*change)(void *arg),
                  const char *point)
{
    struct parked committer, changer;
    struct race r;
    race_open(&r);
    begin(&r);
    assert_true(park_start(&committer, "batch:latched", 0, commit, &r));
    assert_true(park_start(&changer, point, 1, change, &r));
    sees(&r, "old", "old");
    park_end(&committer);
    expect_ok(r.status);
    sees(&r, "old", "new");
    park_end(&changer);
    expect_ok(r.changed);
    race_close(&r);
}

static void a_put_waits_for_who_has_read(void **state)
{
    (void)state;
    waits(begin_with_get, change_by_put, "write:guarded");
}

static void a_batch_waits_for_who_has_read(void **state)
{
    (void)state;
    waits(begin_with_get, change_by_batch, "batch:checked");
}

static void an_insertion_waits_for_who_has_scanned(void **state)
{
    (void)state;
    waits(begin_with_scan, insert_before, "write:guarded");
}

static void what_was_not_read_is_changed(void **state)
{
    struct parked committer;
    struct race r;
    (void)state;
    race_open(&r);
    put(r.a, "l", "old");
    begin_with_get(&r);
    assert_true(park_start(&committer, "batch:latched", 0, commit, &r));
    put(r.a, "j", "new");
    put(r.a, "l", "new");
    put(r.a, "k0", "new");
    expect_ok(bft_delete_range(r.a, text("k0"), text("z"), NULL));
    sees(&r, "old", "old");
    park_end(&committer);
    expect_ok(r.status);
    sees(&r, "old", "new");
    race_close(&r);
}

static void a_deletion_waits_for_who_has_read(void **state)
{
    struct parked committer, changer;
    struct race r;
    (void)state;
    race_open(&r);
    begin_with_get(&r);
    assert_true(park_start(&committer, "batch:latched", 0, commit, &r));
    assert_true(park_start(&changer, "range:registered", 0, delete_all, &r));
    atomic_store(&changer.closed, false); /* it goes on */
    /* It could be visible by now, by far. */
    for (int i = 0; i < LOOKS; i++) {
        sees(&r, "old", "old");
        sched_yield();
    }
    park_end(&committer);
    expect_ok(r.status);
    park_end(&changer);
    expect_ok(r.changed);
    expect_status(BFT_NOT_FOUND,
                  bft_get(r.a, text("k"), NULL, 0, &(size_t){0}));
    race_close(&r);
}

static void a_commit_comes_behind_a_deletion(void **state)
{
    struct parked changer;
    struct race r;
    (void)state;
    race_open(&r);
    begin_with_get(&r);
    assert_true(park_start(&changer, "range:waited", 0, delete_all, &r));
    commit(&r); /* does not wait for it */
    expect_status(BFT_CONFLICT, r.status);
    park_end(&changer);
    expect_ok(r.changed);
    race_close(&r);
}

/* It looks while a deletion is counted and not yet visible, and goes on when it
 * is. */
static void a_commit_in_the_middle_of_a_deletion(void **state)
{
    struct parked committer, changer;
    struct race r;
    (void)state;
    race_open(&r);
    begin_with_get(&r);
    assert_true(park_start(&changer, "range:counted", 0, delete_all, &r));
    assert_true(park_start(&committer, "batch:checked", 0, commit, &r));
    assert_true(park_move(&changer, "range:visible"));
    expect_status(BFT_NOT_FOUND,
                  bft_get(r.a, text("k"), NULL, 0, &(size_t){0}));
    park_end(&committer);
    expect_status(BFT_CONFLICT, r.status);
    park_end(&changer);
    expect_ok(r.changed);
    race_close(&r);
}

/* Of two that each read what the other writes, one that is stopped keeps the other
 * from committing, and does not stop it. */
static void the_second_of_two_is_refused(void **state)
{
    struct parked committer;
    struct race r, second;
    char buf[8];
    size_t len;
    (void)state;
    race_open(&r);
    begin_with_get(&r);
    second = r;
    expect_ok(bft_txn_begin(r.f->db, BFT_SERIALIZABLE, &second.txn));
    expect_ok(bft_txn_get(second.txn, r.b, text("k"), buf, sizeof(buf), &len));
    expect_ok(bft_txn_put(second.txn, r.a, text("k"), text("new")));
    assert_true(park_start(&committer, "batch:latched", 0, commit, &r));
    commit(&second);
    expect_status(BFT_CONFLICT, second.status);
    park_end(&committer);
    expect_ok(r.status);
    sees(&r, "old", "new");
    race_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_waits_for_who_has_read),
        cmocka_unit_test(a_batch_waits_for_who_has_read),
        cmocka_unit_test(an_insertion_waits_for_who_has_scanned),
        cmocka_unit_test(what_was_not_read_is_changed),
        cmocka_unit_test(a_deletion_waits_for_who_has_read),
        cmocka_unit_test(a_commit_comes_behind_a_deletion),
        cmocka_unit_test(a_commit_in_the_middle_of_a_deletion),
        cmocka_unit_test(the_second_of_two_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
