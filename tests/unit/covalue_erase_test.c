/*
 * Erasing CoValues: what goes, what stays, and that one which takes several
 * batches looks finished from its mark on, and is finished by whoever comes.
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

#include "covalue_checks.h"
#include "covalue_fixture.h"
#include "park.h"
#include "storage/covalue_internal.h"

#define ok(call)          assert_int_equal(BFT_OK, (call))
#define fails(want, call) assert_int_equal((want), (call))

/* A check passes when it has nothing to say. */
#define passes(check)                         \
    do {                                      \
        const char *said = (check)();         \
        if (said != NULL)                     \
            fail_msg("%s: %s", #check, said); \
    } while (0)

/* A budget whose batches take about a thousandth of what is erased below. */
enum { SMALL_BUDGET = 256 << 10, MANY = 3000 };

static bft_status erase(struct covalue_fixture *f, const char *id)
{
    return bft_covalue_erase(f->store, cv_text(id), BFT_DEFAULT, NULL);
}

/* co_z1 with the sessions "s1" and "s2" of COUNT transactions and COUNT / 10
 * signatures each, and "d$" of two; co_z2 with one of ten. */
static void make_erasable(struct covalue_fixture *f, uint64_t count)
{
    static const char *const ids[] = {"s1", "d$", "s2"};

    cv_make_covalue(f, "co_z1", ids[0], count);
    cv_apply_one(f, cv_op_session(1, ids[1], 2, "tombstone", 4));
    cv_apply_one(f, cv_op_session(1, ids[2], count, "sig", 5));
    cv_add_transactions(f, 2, 0, 2);
    cv_add_transactions(f, 3, 0, count);
    for (uint64_t i = 9; i < count; i += 10) {
        cv_apply_one(f, cv_op_signature(1, i, "sig"));
        cv_apply_one(f, cv_op_signature(3, i, "sig"));
    }
    cv_apply_one(f, cv_op_signature(2, 1, "kept"));
    cv_make_covalue(f, "co_z2", "s1", 10);
}

/* What co_z1 of make_erasable() looks like once it is erased. */
static void check_looks_erased(struct covalue_fixture *f)
{
    const bft_session_row *row;

    assert_int_equal(0, cv_deletions(f));
    ok(cv_load(f, "co_z1", BFT_LOAD_KNOWN));
    assert_int_equal(1, cv_view_of(f)->session_count);
    assert_int_equal(2, cv_session_row(f, 0)->last_idx);
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    row = cv_session_row(f, 0);
    assert_int_equal(1, cv_view_of(f)->session_count);
    assert_int_equal(2, row->row);
    assert_true(cv_place_is(f, row->id, row->id_len, "d$"));
    assert_true(
        cv_place_is(f, row->signature, row->signature_len, "tombstone"));
    assert_true(cv_place_is(f, cv_view_of(f)->text, cv_view_of(f)->text_len,
                            "[{\"h\":1},{\"n\":0},{\"n\":1}]"));
    assert_int_equal(1, cv_view_of(f)->signature_count);
    ok(bft_covalue_sessions(f->store, 1, BFT_LOAD_ROWS, f->buf, sizeof(f->buf),
                            &f->used));
    assert_int_equal(1, cv_view_of(f)->session_count);
    fails(BFT_NOT_FOUND, bft_covalue_session(f->store, 1, cv_text("s1"), f->buf,
                                             sizeof(f->buf), &f->used));
    ok(bft_covalue_session(f->store, 1, cv_text("d$"), f->buf, sizeof(f->buf),
                           &f->used));
    for (uint64_t session = 1; session <= 3; session++) {
        size_t left = session == 2 ? 1 : 0;

        assert_int_equal(2 * left, cv_transactions(f, session, 0, UINT64_MAX));
        assert_int_equal(left, cv_transactions(f, session, 0, 0));
        assert_int_equal(left, cv_signatures(f, session, 0));
    }
    /* The other one is as it was. */
    ok(cv_load(f, "co_z2", BFT_LOAD_CONTENT));
    assert_int_equal(10, cv_view_of(f)->transaction_count);
}

/* What is in the trees once it is finished. */
static void check_is_erased(struct covalue_fixture *f)
{
    bft_covalue_census counts = cv_census(f);

    check_looks_erased(f);
    assert_int_equal(2, counts.covalues);
    assert_int_equal(2, counts.sessions);
    assert_int_equal(12, counts.transactions);
    assert_int_equal(1, counts.signatures);
    assert_int_equal(0, counts.orphan_transactions);
    assert_int_equal(0, counts.orphan_signatures);
    assert_int_equal(0, counts.deletions_waiting);
    assert_int_equal(1, counts.deletions_done);
    assert_int_equal(0, counts.erasures_unfinished);
}

/* Mark co_z1 and remove BATCHES batches of it. */
static void erase_half(struct covalue_fixture *f, int batches)
{
    bool done = false;

    bfti_covalue_begin(f->store);
    ok(bfti_covalue_erase_mark(f->store, cv_text("co_z1"), 1));
    bfti_covalue_end(f->store, NULL);
    for (int i = 0; i < batches; i++) {
        bfti_covalue_begin(f->store);
        ok(bfti_covalue_erase_step(f->store, 1, &done));
        bfti_covalue_end(f->store, NULL);
        assert_false(done);
    }
}

/* --- in one batch ---------------------------------------------------------------------- */

static void an_erasure_keeps_header_and_tombstone(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    make_erasable(f, 20);
    ok(erase(f, "co_z1"));
    check_is_erased(f);
    ok(erase(f, "co_z1"));
    check_is_erased(f);
    covalue_fixture_reopen(f);
    check_is_erased(f);
    covalue_fixture_close(f);
}

static void an_erasure_leaves_no_content_test(void **state)
{
    (void)state;
    passes(an_erasure_leaves_no_content);
}

static void a_finished_deletion_stays_finished_test(void **state)
{
    (void)state;
    passes(a_finished_deletion_stays_finished);
}

static void erasing_an_unknown_covalue_changes_nothing(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t before = bft_covalue_changes(f->store);

    (void)state;
    /* provokes: bft_covalue_erase BFT_NOT_FOUND */
    fails(BFT_NOT_FOUND, erase(f, "co_zmissing"));
    assert_int_equal(before, bft_covalue_changes(f->store));
    assert_int_equal(0, cv_census(f).deletions_done);
    covalue_fixture_close(f);
}

static void erased_row_ids_are_not_given_again(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_make_covalue(f, "co_z1", "s1", 1);
    assert_int_equal(2, cv_make_covalue(f, "co_z2", "s1", 1));
    ok(erase(f, "co_z2"));
    covalue_fixture_reopen(f);
    ok(erase(f, "co_z1"));
    covalue_fixture_reopen(f);
    assert_int_equal(3, cv_apply_one(f, cv_op_session(1, "s1", 1, "sig", 0)));
    covalue_fixture_reopen(f);
    assert_int_equal(4, cv_apply_one(f, cv_op_session(1, "s2", 1, "sig", 0)));
    covalue_fixture_close(f);
}

static void an_erased_session_starts_anew(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op =
        cv_op_with(cv_op_session(1, "s1", 1, "new", 0), BFT_OP_EXPECT);

    (void)state;
    make_erasable(f, 5);
    ok(erase(f, "co_z1"));
    assert_int_equal(5, cv_apply_one(f, op));
    cv_apply_one(f, cv_op_transaction(5, 0, "new"));
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_int_equal(2, cv_view_of(f)->session_count);
    assert_int_equal(3, cv_view_of(f)->transaction_count);
    assert_int_equal(0, cv_session_row(f, 1)->flags & BFT_SESSION_SIGNED);
    covalue_fixture_close(f);
}

/* --- in several -------------------------------------------------------------------------- */

static void a_big_erasure_takes_several_batches(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);
    bft_covalue_applied applied;
    uint64_t before;

    (void)state;
    make_erasable(f, MANY);
    cv_apply_one(f, cv_op_deleted("co_z1"));
    before = bft_covalue_changes(f->store);
    ok(bft_covalue_erase(f->store, cv_text("co_z1"), BFT_SYNC, &applied));
    assert_true(applied.changes > before + 3);
    assert_int_equal(before, applied.before);
    assert_true(bft_durable_lsn(f->db) >= applied.lsn);
    assert_int_equal(0, cv_deletions(f));
    check_is_erased(f);
    covalue_fixture_close(f);
}

/* Stopped after any number of batches: every read takes it for finished. */
static void a_half_done_erasure_is_hidden(void **state)
{
    (void)state;
    for (int batches = 0; batches < 4; batches++) {
        struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);

        make_erasable(f, MANY);
        cv_apply_one(f, cv_op_deleted("co_z1"));
        erase_half(f, batches);
        assert_true(cv_census(f).transactions > 12);
        assert_int_equal(1, cv_census(f).erasures_unfinished);
        check_looks_erased(f);
        covalue_fixture_close(f);
    }
}

static void opening_finishes_an_erasure(void **state)
{
    (void)state;
    for (int batches = 0; batches < 4; batches++) {
        struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);

        make_erasable(f, MANY);
        erase_half(f, batches);
        covalue_fixture_reopen(f);
        check_is_erased(f);
        covalue_fixture_close(f);
    }
}

static void erasing_again_finishes_it(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);

    (void)state;
    make_erasable(f, MANY);
    erase_half(f, 2);
    ok(erase(f, "co_z1"));
    check_is_erased(f);
    covalue_fixture_close(f);
}

static void erasing_another_finishes_it(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);

    (void)state;
    make_erasable(f, MANY);
    erase_half(f, 1);
    cv_make_covalue(f, "co_z3", "s1", 1);
    ok(erase(f, "co_z3"));
    assert_int_equal(0, cv_census(f).erasures_unfinished);
    assert_int_equal(0, cv_census(f).orphan_transactions);
    check_looks_erased(f);
    covalue_fixture_close(f);
}

/* What is written to it belongs to the time after, by whichever op it comes. */
static void writing_to_it_finishes_it(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);
        bft_covalue_op ops[2] = {cv_op_find("co_z1"),
                                 cv_op_session(1, "s1", 1, "new", 0)};

        make_erasable(f, MANY);
        erase_half(f, way);
        if (way == 1) {
            ops[1].flags = BFT_OP_LATEST;
            ops[1].row = 0;
        } else if (way == 2) {
            ops[1] = cv_op_transaction(3, MANY, "new");
        } else if (way == 3) {
            ops[1] = cv_op_signature(3, MANY, "new");
        }
        ok(cv_apply(f, ops, 2));
        assert_int_equal(0, cv_census(f).erasures_unfinished);
        if (way < 2) {
            assert_int_equal(5, ops[1].result);
            assert_int_equal(3, cv_census(f).sessions);
            assert_int_equal(12, cv_census(f).transactions);
        }
        covalue_fixture_close(f);
    }
}

static void writing_to_another_leaves_it(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);

    (void)state;
    make_erasable(f, MANY);
    erase_half(f, 1);
    cv_apply_one(f, cv_op_transaction(4, 10, "new"));
    cv_apply_one(f, cv_op_deleted("co_z1"));
    assert_int_equal(1, cv_census(f).erasures_unfinished);
    assert_int_equal(0, cv_deletions(f));
    check_looks_erased(f);
    covalue_fixture_close(f);
}

/* --- beside readers ----------------------------------------------------------------------- */

struct reader {
    struct covalue_fixture *f;
    uint64_t count;
    _Atomic bool stop;
    _Atomic uint64_t rounds;
    const char *said;
};

/* Until the reader has done two rounds more, or stopped. */
static void wait_rounds(struct reader *r)
{
    uint64_t from = atomic_load(&r->rounds);

    while (atomic_load(&r->rounds) < from + 2 && !atomic_load(&r->stop))
        sched_yield();
}

static const char *read_round(struct reader *r, uint64_t *buf, size_t len)
{
    const bft_covalue_view *view = (const void *)buf;
    const bft_session_row *rows;
    size_t used;

    if (bft_covalue_transactions(r->f->store, 1, 0, UINT64_MAX, buf, len,
                                 &used) != BFT_OK)
        return "a range failed";
    if (view->transaction_count != 0 && view->transaction_count != r->count)
        return "a range is half erased";
    if (bft_covalue_load(r->f->store, cv_text("co_z1"), BFT_LOAD_CONTENT, buf,
                         len, &used) != BFT_OK)
        return "a load failed";
    rows = (const void *)((const char *)buf + view->sessions);
    if (view->session_count != 1 && view->session_count != 3)
        return "sessions are half erased";
    for (size_t i = 0; i < view->session_count; i++)
        if (rows[i].transaction_count !=
            (rows[i].signature_count != 0 && rows[i].row != 2
                 ? 10
                 : rows[i].last_idx))
            return "a segment is half erased";
    return NULL;
}

static void *read_rounds(void *arg)
{
    enum { BYTES = 1 << 20 };
    struct reader *r = arg;
    uint64_t *buf = malloc(BYTES);

    while (buf != NULL && r->said == NULL && !atomic_load(&r->stop)) {
        r->said = read_round(r, buf, BYTES);
        atomic_fetch_add(&r->rounds, 1);
    }
    atomic_store(&r->stop, true);
    free(buf);
    return NULL;
}

static void readers_see_all_of_it_or_nothing(void **state)
{
    static const uint64_t budgets[] = {0, SMALL_BUDGET};

    (void)state;
    for (int round = 0; round < 10; round++) {
        struct covalue_fixture *f = covalue_fixture_open(budgets[round % 2]);
        struct reader r = {.f = f, .count = 700};
        pthread_t thread;

        make_erasable(f, r.count);
        assert_int_equal(0, pthread_create(&thread, NULL, read_rounds, &r));
        wait_rounds(&r);
        ok(erase(f, "co_z1"));
        wait_rounds(&r);
        atomic_store(&r.stop, true);
        assert_int_equal(0, pthread_join(thread, NULL));
        if (r.said != NULL)
            fail_msg("%s", r.said);
        check_is_erased(f);
        covalue_fixture_close(f);
    }
}

#ifndef NDEBUG

static void erase_co_z1(void *arg)
{
    ok(erase(arg, "co_z1"));
}

static void read_sessions(void *arg)
{
    struct covalue_fixture *f = arg;

    ok(bft_covalue_sessions(f->store, 1, BFT_LOAD_ROWS, f->buf, sizeof(f->buf),
                            &f->used));
}

/* A reader that has passed over the first session, because it is being erased,
 * stops at the second until the erasure is over.  It has got the third. */
static void a_reader_that_outlasts_an_erasure_sees_nothing_of_it(void **state)
{
    enum { LONG = 3000 };
    static char signature[LONG + 1];
    struct covalue_fixture *f = covalue_fixture_open(0);
    struct parked eraser, reader;

    (void)state;
    memset(signature, 's', LONG);
    cv_make_covalue(f, "co_z1", "s1", 0);
    cv_apply_one(f, cv_op_session(1, "s2", 0, signature, 0));
    cv_apply_one(f, cv_op_session(1, "s3", 0, "sig", 0));
    read_sessions(f);
    assert_int_equal(3, cv_view_of(f)->session_count);
    assert_true(park_start(&eraser, "batch:latched", 0, erase_co_z1, f));
    assert_true(park_start(&reader, "large:part-chosen", 0, read_sessions, f));
    park_end(&eraser);
    park_end(&reader);
    assert_int_equal(0, cv_view_of(f)->session_count);
    covalue_fixture_close(f);
}

/* Asks how long the transactions of session 1 are. */
static void ask_length(void *arg)
{
    struct covalue_fixture *f = arg;

    fails(BFT_TOO_SMALL, bft_covalue_transactions(f->store, 1, 0, UINT64_MAX,
                                                  NULL, 0, &f->used));
}

/* Its cursor stands on a long value that one batch of an erasure removes, and
 * goes on to one that is left. */
static void a_length_is_asked_for_in_an_erasure(void **state)
{
    enum { LONG = 8000 };
    static char value[LONG + 1];
    struct covalue_fixture *f = covalue_fixture_open(SMALL_BUDGET);
    struct parked reader;

    (void)state;
    memset(value, 'v', LONG);
    cv_make_covalue(f, "co_z1", "s1", 0);
    cv_apply_one(f, cv_op_transaction(1, 0, value));
    cv_add_transactions(f, 1, 1, MANY);
    assert_true(park_start(&reader, "cursor:copied", 0, ask_length, f));
    erase_half(f, 1);
    park_end(&reader);
    assert_in_range(f->used, 1, LONG - 1);
    covalue_fixture_close(f);
}

#endif

static void *read_long_values(void *arg)
{
    enum { BYTES = 1 << 20 };
    struct reader *r = arg;
    uint64_t *buf = malloc(BYTES);
    const bft_covalue_view *view = (const void *)buf;

    while (buf != NULL && r->said == NULL && !atomic_load(&r->stop)) {
        size_t used;

        if (bft_covalue_transactions(r->f->store, 1, 0, UINT64_MAX, buf, BYTES,
                                     &used) != BFT_OK)
            r->said = "a range failed";
        else if (view->transaction_count != 0 &&
                 view->transaction_count != r->count)
            r->said = "a range is half erased";
        atomic_fetch_add(&r->rounds, 1);
    }
    atomic_store(&r->stop, true);
    free(buf);
    return NULL;
}

/* Values that lie outside the leaves: a cursor may stand on a record whose value
 * is gone. */
static void readers_of_long_values_do_not_fail(void **state)
{
    enum { LONG = 8000, COUNT = 120 };
    static char value[LONG + 1];

    (void)state;
    memset(value, 'v', LONG);
    for (int round = 0; round < 10; round++) {
        struct covalue_fixture *f = covalue_fixture_open(0);
        struct reader r = {.f = f, .count = COUNT};
        pthread_t thread;

        cv_make_covalue(f, "co_z1", "s1", 0);
        for (uint64_t i = 0; i < COUNT; i++)
            cv_apply_one(f, cv_op_transaction(1, i, value));
        assert_int_equal(0,
                         pthread_create(&thread, NULL, read_long_values, &r));
        wait_rounds(&r);
        ok(erase(f, "co_z1"));
        wait_rounds(&r);
        atomic_store(&r.stop, true);
        assert_int_equal(0, pthread_join(thread, NULL));
        if (r.said != NULL)
            fail_msg("%s", r.said);
        covalue_fixture_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_erasure_keeps_header_and_tombstone),
        cmocka_unit_test(an_erasure_leaves_no_content_test),
        cmocka_unit_test(a_finished_deletion_stays_finished_test),
        cmocka_unit_test(erasing_an_unknown_covalue_changes_nothing),
        cmocka_unit_test(erased_row_ids_are_not_given_again),
        cmocka_unit_test(an_erased_session_starts_anew),
        cmocka_unit_test(a_big_erasure_takes_several_batches),
        cmocka_unit_test(a_half_done_erasure_is_hidden),
        cmocka_unit_test(opening_finishes_an_erasure),
        cmocka_unit_test(erasing_again_finishes_it),
        cmocka_unit_test(erasing_another_finishes_it),
        cmocka_unit_test(writing_to_it_finishes_it),
        cmocka_unit_test(writing_to_another_leaves_it),
        cmocka_unit_test(readers_see_all_of_it_or_nothing),
#ifndef NDEBUG
        cmocka_unit_test(a_reader_that_outlasts_an_erasure_sees_nothing_of_it),
        cmocka_unit_test(a_length_is_asked_for_in_an_erasure),
#endif
        cmocka_unit_test(readers_of_long_values_do_not_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
