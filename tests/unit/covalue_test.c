/*
 * The rows of the covalue store: what cojson's database clients promise of
 * them, one test for each promise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "covalue_checks.h"
#include "covalue_fixture.h"
#include "engine_fixture.h"

#define ok(call)          assert_int_equal(BFT_OK, (call))
#define fails(want, call) assert_int_equal((want), (call))
#define COUNT(array)      (sizeof(array) / sizeof((array)[0]))

/* A check passes when it has nothing to say. */
#define passes(check)                         \
    do {                                      \
        const char *said = (check)();         \
        if (said != NULL)                     \
            fail_msg("%s: %s", #check, said); \
    } while (0)

/* --- CoValues ------------------------------------------------------------------------ */

static void rows_of_covalues_are_dense_from_1(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    char id[16];

    (void)state;
    for (uint64_t i = 1; i <= 300; i++) {
        snprintf(id, sizeof(id), "co_z%llu", (unsigned long long)(i * 7 % 307));
        assert_int_equal(i, cv_apply_one(f, cv_op_covalue(id, "{}")));
        if (i % 100 == 0)
            covalue_fixture_reopen(f);
    }
    assert_int_equal(300, bft_covalue_count(f->store));
    covalue_fixture_close(f);
}

static void a_failed_transaction_gives_its_rows_back(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_covalue("co_z1", "{}"),
        cv_op_with(cv_op_session(0, "s1", 1, "sig", 1), BFT_OP_LATEST),
        cv_op_find("co_zmissing"),
    };

    (void)state;
    /* provokes: bft_covalue_apply BFT_NOT_FOUND */
    fails(BFT_NOT_FOUND, cv_apply(f, ops, COUNT(ops)));
    assert_int_equal(0, ops[0].result);
    assert_int_equal(0, bft_covalue_count(f->store));
    ok(cv_apply(f, ops, 2));
    assert_int_equal(1, ops[0].result);
    assert_int_equal(1, ops[1].result);
    covalue_fixture_close(f);
}

static void a_failed_transaction_changes_nothing_test(void **state)
{
    (void)state;
    passes(a_failed_transaction_changes_nothing);
}

static void an_existing_header_is_kept_test(void **state)
{
    (void)state;
    passes(an_existing_header_is_kept);
}

static void an_upsert_without_header_only_finds(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op = cv_op_find("co_z1");
    uint64_t row;

    (void)state;
    fails(BFT_NOT_FOUND, cv_apply(f, &op, 1));
    fails(BFT_NOT_FOUND, bft_covalue_row(f->store, cv_text("co_z1"), &row));
    assert_int_equal(0, row);
    fails(BFT_NOT_FOUND, cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    assert_int_equal(1, cv_apply_one(f, cv_op_find("co_z1")));
    ok(bft_covalue_row(f->store, cv_text("co_z1"), &row));
    assert_int_equal(1, row);
    covalue_fixture_close(f);
}

static void one_transaction_names_a_covalue_twice(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_covalue("co_z1", "{\"a\":1}"),
        cv_op_covalue("co_z2", "{}"),
        cv_op_covalue("co_z1", "{\"b\":2}"),
        cv_op_find("co_z1"),
        cv_op_with(cv_op_session(0, "s", 0, "sig", 0), BFT_OP_LATEST),
    };

    (void)state;
    ok(cv_apply(f, ops, COUNT(ops)));
    assert_int_equal(1, ops[2].result);
    assert_int_equal(1, ops[3].result);
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    assert_int_equal(1, cv_view_of(f)->session_count);
    assert_true(cv_place_is(f, cv_view_of(f)->header, cv_view_of(f)->header_len,
                            "{\"a\":1}"));
    covalue_fixture_close(f);
}

static void long_headers_and_signatures_come_back(void **state)
{
    enum { LONG = 100000 };
    struct covalue_fixture *f = covalue_fixture_open(0);
    char *header = malloc(LONG + 1);
    char *signature = malloc(LONG + 1);
    bft_covalue_op ops[2];

    (void)state;
    memset(header, 'h', LONG);
    memset(signature, 's', LONG);
    header[LONG] = signature[LONG] = 0;
    ops[0] = cv_op_covalue("co_z1", header);
    ops[1] = cv_op_with(cv_op_session(0, "s", 0, signature, 0), BFT_OP_LATEST);
    ok(cv_apply(f, ops, 2));
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    assert_true(cv_place_is(f, cv_view_of(f)->header, cv_view_of(f)->header_len,
                            header));
    assert_true(cv_place_is(f, cv_session_row(f, 0)->signature,
                            cv_session_row(f, 0)->signature_len, signature));
    free(header);
    free(signature);
    covalue_fixture_close(f);
}

/* Its cursors and its batch. */
static void a_closed_store_gives_its_memory_back(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_covalue_op op = cv_op_covalue("co_z1", "{}");
    size_t held = 0;

    (void)state;
    for (int round = 0; round < 200; round++) {
        bft_covalue_store *store;
        uint64_t buf[64];
        size_t used;
        ok(bft_covalue_open(f->db, NULL, &store));
        ok(bft_covalue_apply(store, &op, 1, BFT_DEFAULT, NULL));
        ok(bft_covalue_ids(store, 0, 9, buf, sizeof(buf), &used));
        bft_covalue_close(store);
        if (round == 20)
            held = engine_env_bytes(f);
    }
    assert_in_range(engine_env_bytes(f), 0, held + (64 << 10));
    engine_fixture_free(f);
}

/* What is only read can be: nothing is changed, whatever is asked for. */
static void a_store_may_be_only_read(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op = cv_op_covalue("co_z2", "{}");
    bft_covalue_lock_result result;
    uint64_t row, offset;

    (void)state;
    (void)cv_make_covalue(f, "co_z1", "s1", 3);
    (void)cv_apply_one(f, cv_op_deleted("co_z1"));
    f->options.read_only = true;
    covalue_fixture_reopen(f);
    assert_int_equal(1, bft_covalue_count(f->store));
    ok(bft_covalue_row(f->store, cv_text("co_z1"), &row));
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_int_equal(1, cv_view_of(f)->session_count);
    assert_int_equal(3, cv_view_of(f)->transaction_count);
    assert_int_equal(1, cv_deletions(f));
    /* provokes: bft_covalue_apply BFT_READ_ONLY */
    fails(BFT_READ_ONLY, cv_apply(f, &op, 1));
    fails(BFT_READ_ONLY,
          bft_covalue_erase(f->store, cv_text("co_z1"), BFT_DEFAULT, NULL));
    fails(BFT_READ_ONLY,
          bft_covalue_lock_acquire(f->store, cv_text("lock"), cv_text("holder"),
                                   1, 1, 1, &result, &offset));
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_int_equal(3, cv_view_of(f)->transaction_count);
    assert_int_equal(1, bft_covalue_count(f->store));
    f->options.read_only = false;
    covalue_fixture_close(f);
}

/* --- sessions ------------------------------------------------------------------------ */

/* Row ids decide, not session ids, and an update does not move a row. */
static void sessions_come_in_order_of_insertion(void **state)
{
    enum { SESSIONS = 40 };
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t covalue = cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    uint64_t other = cv_apply_one(f, cv_op_covalue("co_z2", "{}"));
    char id[SESSIONS][8];

    (void)state;
    for (int i = 0; i < SESSIONS; i++) {
        snprintf(id[i], sizeof(id[i]), "s%02d", i * 17 % SESSIONS);
        assert_int_equal(
            2 * i + 1,
            cv_apply_one(f, cv_op_session(covalue, id[i], 1, "a", 0)));
        cv_apply_one(f, cv_op_session(other, id[i], 1, "b", 0));
    }
    assert_int_equal(7,
                     cv_apply_one(f, cv_op_session(covalue, id[3], 2, "c", 0)));
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    assert_int_equal(SESSIONS, cv_view_of(f)->session_count);
    for (int i = 0; i < SESSIONS; i++) {
        const bft_session_row *row = cv_session_row(f, (size_t)i);

        assert_int_equal(2 * i + 1, row->row);
        assert_int_equal(covalue, row->covalue);
        assert_true(cv_place_is(f, row->id, row->id_len, id[i]));
    }
    ok(bft_covalue_sessions(f->store, other, BFT_LOAD_ROWS, f->buf,
                            sizeof(f->buf), &f->used));
    assert_int_equal(SESSIONS, cv_view_of(f)->session_count);
    assert_int_equal(2, cv_session_row(f, 0)->row);
    covalue_fixture_close(f);
}

static void a_session_is_one_row_with_its_values(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t covalue = cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    const bft_session_row *row;

    (void)state;
    cv_apply_one(f, cv_op_session(covalue, "s1", 1, "first", 10));
    cv_apply_one(f,
                 cv_op_session(covalue, "s1", 3, "second", BFT_COVALUE_NONE));
    cv_apply_one(f, cv_op_session(covalue, "s2", 1ull << 40, "", 1ull << 41));
    ok(bft_covalue_session(f->store, covalue, cv_text("s1"), f->buf,
                           sizeof(f->buf), &f->used));
    row = cv_session_row(f, 0);
    assert_int_equal(1, cv_view_of(f)->session_count);
    assert_int_equal(1, row->row);
    assert_int_equal(3, row->last_idx);
    assert_true(row->bytes_since == BFT_COVALUE_NONE);
    assert_true(cv_place_is(f, row->id, row->id_len, "s1"));
    assert_true(cv_place_is(f, row->signature, row->signature_len, "second"));
    ok(bft_covalue_session(f->store, covalue, cv_text("s2"), f->buf,
                           sizeof(f->buf), &f->used));
    row = cv_session_row(f, 0);
    assert_true(row->last_idx == 1ull << 40);
    assert_true(row->bytes_since == 1ull << 41);
    assert_int_equal(0, row->signature_len);
    fails(BFT_NOT_FOUND, bft_covalue_session(f->store, covalue, cv_text("s3"),
                                             f->buf, sizeof(f->buf), &f->used));
    fails(BFT_NOT_FOUND, bft_covalue_session(f->store, 99, cv_text("s1"),
                                             f->buf, sizeof(f->buf), &f->used));
    covalue_fixture_close(f);
}

static void bytes_since_last_signature_is_kept_test(void **state)
{
    (void)state;
    passes(bytes_since_last_signature_is_kept);
}

static void an_expectation_is_checked(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t covalue = cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    bft_covalue_op op =
        cv_op_with(cv_op_session(covalue, "s", 2, "sig", 0), BFT_OP_EXPECT);

    (void)state;
    op.expect_row = 1;
    fails(BFT_CONFLICT, cv_apply(f, &op, 1));
    op.expect_row = 0;
    ok(cv_apply(f, &op, 1));
    fails(BFT_CONFLICT, cv_apply(f, &op, 1));
    op.expect_row = 1;
    op.expect_idx = 1;
    fails(BFT_CONFLICT, cv_apply(f, &op, 1));
    op.expect_idx = 2;
    op.idx = 5;
    ok(cv_apply(f, &op, 1));
    ok(cv_load(f, "co_z1", BFT_LOAD_KNOWN));
    assert_int_equal(5, cv_session_row(f, 0)->last_idx);
    covalue_fixture_close(f);
}

static void a_known_state_has_ids_and_counts(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_make_covalue(f, "co_z1", "s1", 4);
    cv_apply_one(f, cv_op_session(1, "s2", 9, "sig", 0));
    ok(cv_load(f, "co_z1", BFT_LOAD_KNOWN));
    assert_int_equal(1, cv_view_of(f)->row);
    assert_int_equal(0, cv_view_of(f)->header);
    assert_int_equal(2, cv_view_of(f)->session_count);
    assert_int_equal(4, cv_session_row(f, 0)->last_idx);
    assert_int_equal(9, cv_session_row(f, 1)->last_idx);
    assert_int_equal(0, cv_session_row(f, 1)->signature_len);
    covalue_fixture_close(f);
}

/* --- transactions ---------------------------------------------------------------------- */

static void a_range_of_transactions_includes_both_ends(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t session = cv_make_covalue(f, "co_z1", "s", 300);
    static const uint64_t ranges[][3] = {
        {0, 0, 1},
        {0, 299, 300},
        {299, 299, 1},
        {240, 242, 3},
        {300, 400, 0},
        {5, 4, 0},
        {290, UINT64_MAX, 10},
        {0, UINT64_MAX, 300},
    };

    (void)state;
    cv_make_covalue(f, "co_z2", "s", 10);
    for (size_t i = 0; i < COUNT(ranges); i++) {
        assert_int_equal(ranges[i][2], cv_transactions(f, session, ranges[i][0],
                                                       ranges[i][1]));
        assert_int_equal(0, cv_view_of(f)->next);
        for (size_t k = 0; k < ranges[i][2]; k++) {
            const bft_transaction_row *row = cv_transaction_row(f, k);
            char value[32];

            snprintf(value, sizeof(value), "{\"n\":%llu}",
                     (unsigned long long)(ranges[i][0] + k));
            assert_int_equal(session, row->session);
            assert_int_equal(ranges[i][0] + k, row->idx);
            assert_true(cv_place_is(f, row->value, row->value_len, value));
        }
    }
    covalue_fixture_close(f);
}

static void the_text_is_one_json_array(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t session = cv_make_covalue(f, "co_z1", "s", 3);
    const bft_covalue_view *view = (const void *)f->buf;

    (void)state;
    cv_transactions(f, session, 1, 2);
    assert_true(
        cv_place_is(f, view->text, view->text_len, "[{\"n\":1},{\"n\":2}]"));
    cv_transactions(f, session, 2, 2);
    assert_true(cv_place_is(f, view->text, view->text_len, "[{\"n\":2}]"));
    cv_transactions(f, session, 7, 8);
    assert_true(cv_place_is(f, view->text, view->text_len, "[]"));
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_true(cv_place_is(f, view->text, view->text_len,
                            "[{\"h\":1},{\"n\":0},{\"n\":1},{\"n\":2}]"));
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    assert_true(cv_place_is(f, view->text, view->text_len, "[{\"h\":1}]"));
    covalue_fixture_close(f);
}

static void missing_transactions_are_absent(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_apply_one(f, cv_op_transaction(1, 2, "two"));
    cv_apply_one(f, cv_op_transaction(1, 300, "later"));
    assert_int_equal(2, cv_transactions(f, 1, 0, 1000));
    assert_int_equal(2, cv_transaction_row(f, 0)->idx);
    assert_int_equal(300, cv_transaction_row(f, 1)->idx);
    assert_int_equal(0, cv_transactions(f, 1, 3, 3));
    assert_int_equal(0, cv_transactions(f, 1, 3, 299));
    covalue_fixture_close(f);
}

static void an_existing_transaction_is_refused_or_overwritten(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op = cv_op_transaction(1, 0, "new");

    (void)state;
    cv_apply_one(f, cv_op_transaction(1, 0, "old"));
    fails(BFT_EXISTS, cv_apply(f, &op, 1));
    assert_true(cv_last_error_has("row 1 has transaction 0"));
    cv_transactions(f, 1, 0, 0);
    assert_true(cv_place_is(f, cv_transaction_row(f, 0)->value, 3, "old"));
    cv_apply_one(f, cv_op_with(op, BFT_OP_OVERWRITE));
    assert_int_equal(1, cv_transactions(f, 1, 0, 0));
    assert_true(cv_place_is(f, cv_transaction_row(f, 0)->value, 3, "new"));
    covalue_fixture_close(f);
}

/* Against the tree and against itself, in runs and out of order. */
static void a_transaction_refuses_the_second_of_an_index(void **state)
{
    static const uint64_t lists[][6] = {
        {0, 1, 2, 3, 4, 2},   {0, 1, 2, 0, 9, 9},       {5, 4, 3, 5, 9, 9},
        {5, 4, 3, 2, 1, 4},   {7, 7, 9, 9, 9, 9},       {0, 10, 11, 10, 9, 9},
        {0, 1, 2, 3, 20, 21}, {15, 16, 17, 18, 19, 20}, {25, 20, 0, 1, 2, 3},
    };
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_apply_one(f, cv_op_transaction(1, 20, "there"));
    for (size_t i = 0; i < COUNT(lists); i++) {
        bft_covalue_op ops[6];

        for (size_t k = 0; k < 6; k++)
            ops[k] = cv_op_transaction(1, lists[i][k], "x");
        fails(BFT_EXISTS, cv_apply(f, ops, 6));
        assert_int_equal(1, cv_transactions(f, 1, 0, 100));
    }
    covalue_fixture_close(f);
}

static void a_small_buffer_takes_a_range_in_pieces(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t session = cv_make_covalue(f, "co_z1", "s", 500);
    uint64_t next = 0;
    uint64_t seen = 0;

    (void)state;
    do {
        ok(bft_covalue_transactions(f->store, session, next, 499, f->buf, 1000,
                                    &f->used));
        assert_in_range(f->used, 1, 1000);
        for (size_t i = 0; i < cv_view_of(f)->transaction_count; i++)
            assert_int_equal(seen++, cv_transaction_row(f, i)->idx);
        assert_true(cv_view_of(f)->transaction_count > 10 || seen == 500);
        next = cv_view_of(f)->next;
        assert_true(next == (seen == 500 ? 0 : seen));
    } while (next != 0);
    covalue_fixture_close(f);
}

static void a_value_too_long_says_what_would_do(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    char value[3000];
    size_t need;

    (void)state;
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    cv_apply_one(f, cv_op_transaction(1, 0, value));
    cv_apply_one(f, cv_op_transaction(1, 1, value));
    for (uint64_t to = 0; to < 2; to++) {
        fails(BFT_TOO_SMALL,
              bft_covalue_transactions(f->store, 1, 0, to, f->buf, 500, &need));
        assert_in_range(need, 3000, 3200);
        fails(BFT_TOO_SMALL,
              bft_covalue_transactions(f->store, 1, 0, to, f->buf, need - 8,
                                       &f->used));
        ok(bft_covalue_transactions(f->store, 1, 0, to, f->buf, need,
                                    &f->used));
        assert_int_equal(1, cv_view_of(f)->transaction_count);
        assert_int_equal(to, cv_view_of(f)->next);
        assert_true(cv_place_is(f, cv_transaction_row(f, 0)->value,
                                cv_transaction_row(f, 0)->value_len, value));
    }
    covalue_fixture_close(f);
}

/* --- signatures ------------------------------------------------------------------------ */

static void signatures_come_from_an_index_on(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op = cv_op_signature(3, 20, "twenty again");

    (void)state;
    cv_apply_one(f, cv_op_signature(3, 20, "twenty"));
    cv_apply_one(f, cv_op_signature(3, 5, "five"));
    cv_apply_one(f, cv_op_signature(4, 1, "other"));
    assert_int_equal(2, cv_signatures(f, 3, 0));
    assert_int_equal(5, cv_signature_row(f, 0)->idx);
    assert_int_equal(3, cv_signature_row(f, 0)->session);
    assert_true(cv_place_is(f, cv_signature_row(f, 1)->signature,
                            cv_signature_row(f, 1)->signature_len, "twenty"));
    assert_int_equal(1, cv_signatures(f, 3, 6));
    assert_int_equal(1, cv_signatures(f, 3, 20));
    assert_int_equal(0, cv_signatures(f, 3, 21));
    fails(BFT_EXISTS, cv_apply(f, &op, 1));
    cv_apply_one(f, cv_op_with(op, BFT_OP_OVERWRITE));
    cv_signatures(f, 3, 6);
    assert_true(cv_place_is(f, cv_signature_row(f, 0)->signature,
                            cv_signature_row(f, 0)->signature_len,
                            "twenty again"));
    covalue_fixture_close(f);
}

static void a_transaction_refuses_a_second_signature(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {cv_op_signature(1, 4, "a"),
                            cv_op_signature(1, 4, "b")};

    (void)state;
    fails(BFT_EXISTS, cv_apply(f, ops, 2));
    assert_int_equal(0, cv_signatures(f, 1, 0));
    ops[1].flags = BFT_OP_OVERWRITE;
    ok(cv_apply(f, ops, 2));
    assert_int_equal(1, cv_signatures(f, 1, 0));
    assert_true(cv_place_is(f, cv_signature_row(f, 0)->signature, 1, "b"));
    covalue_fixture_close(f);
}

/* The four ways for a signature to meet its session: with it, by its row in the
 * same transaction, later, and before there is a session. */
static void a_session_says_that_it_is_signed(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_covalue("co_z1", "{}"),
        cv_op_with(cv_op_session(0, "s1", 1, "last", 3), BFT_OP_LATEST),
        cv_op_with(cv_op_signature(0, 0, "x"), BFT_OP_LATEST),
        cv_op_with(cv_op_session(0, "s2", 1, "last", 4), BFT_OP_LATEST),
        cv_op_signature(2, 0, "x"),
        cv_op_with(cv_op_session(0, "s3", 1, "last", 5), BFT_OP_LATEST),
        cv_op_signature(4, 0, "early"),
        cv_op_with(cv_op_session(0, "s4", 1, "last", 6), BFT_OP_LATEST),
        cv_op_with(cv_op_session(0, "s5", 1, "last", 7), BFT_OP_LATEST),
    };

    (void)state;
    cv_apply_one(f, cv_op_signature(5, 0, "earlier"));
    ok(cv_apply(f, ops, COUNT(ops)));
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(i == 2 ? 0 : BFT_SESSION_SIGNED,
                         cv_session_row(f, i)->flags);
    cv_apply_one(f, cv_op_signature(3, 0, "late"));
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    assert_int_equal(BFT_SESSION_SIGNED, cv_session_row(f, 2)->flags);
    assert_int_equal(5, cv_session_row(f, 2)->bytes_since);
    assert_true(cv_place_is(f, cv_session_row(f, 2)->signature,
                            cv_session_row(f, 2)->signature_len, "last"));
    covalue_fixture_close(f);
}

/* cojson's own tests write content of session rows 0 and 1, which are not
 * there. */
static void content_needs_no_session(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_apply_one(f, cv_op_signature(0, 3, "sig"));
    cv_apply_one(f, cv_op_transaction(0, 0, "tx"));
    assert_int_equal(1, cv_signatures(f, 0, 0));
    assert_int_equal(1, cv_transactions(f, 0, 0, 5));
    assert_int_equal(1, cv_census(f).orphan_transactions);
    covalue_fixture_close(f);
}

/* Without any one record of a session the store is not whole. */
static void a_session_that_lacks_a_record_is_found(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_census census = {.size = sizeof(census)};
    unsigned removed = 0;
    bft_cursor *cursor;
    bft_tree *tree;

    (void)state;
    cv_make_covalue(f, "co_z1", "s1", 3);
    ok(bft_tree_open(f->db, "sessions", NULL, &tree));
    ok(bft_cursor_open(tree, &cursor));
    while (bft_cursor_next(cursor) == BFT_OK) {
        bft_record *record;
        bft_slice key;

        ok(bft_cursor_key(cursor, &key));
        ok(bft_first(tree, key, (bft_slice){NULL, 0}, &record));
        ok(bft_delete(tree, record->key));
        fails(BFT_CORRUPT, bft_covalue_check(f->store, &census));
        assert_true(cv_last_error_has("covalue store: row 1"));
        ok(bft_put(tree, record->key, record->value));
        bft_free(record);
        removed++;
    }
    assert_true(removed >= 2);
    bft_cursor_close(cursor);
    covalue_fixture_close(f);
}

/* Its rows would vanish one by one. */
static void a_cache_takes_no_covalue_store(void **state)
{
    const bft_options options = {.size = sizeof(options),
                                 .storage = BFT_STORAGE_CACHE};
    bft_covalue_store *store;
    bft_db *db;

    (void)state;
    ok(bft_open("covalue-cache", &options, &db));
    fails(BFT_INVALID, bft_covalue_open(db, NULL, &store));
    assert_null(store);
    assert_true(cv_last_error_has("cache"));
    ok(bft_close(db));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_covalues_are_dense_from_1),
        cmocka_unit_test(a_failed_transaction_gives_its_rows_back),
        cmocka_unit_test(a_failed_transaction_changes_nothing_test),
        cmocka_unit_test(an_existing_header_is_kept_test),
        cmocka_unit_test(a_session_that_lacks_a_record_is_found),
        cmocka_unit_test(an_upsert_without_header_only_finds),
        cmocka_unit_test(one_transaction_names_a_covalue_twice),
        cmocka_unit_test(long_headers_and_signatures_come_back),
        cmocka_unit_test(a_closed_store_gives_its_memory_back),
        cmocka_unit_test(a_store_may_be_only_read),
        cmocka_unit_test(sessions_come_in_order_of_insertion),
        cmocka_unit_test(a_session_is_one_row_with_its_values),
        cmocka_unit_test(bytes_since_last_signature_is_kept_test),
        cmocka_unit_test(an_expectation_is_checked),
        cmocka_unit_test(a_known_state_has_ids_and_counts),
        cmocka_unit_test(a_range_of_transactions_includes_both_ends),
        cmocka_unit_test(the_text_is_one_json_array),
        cmocka_unit_test(missing_transactions_are_absent),
        cmocka_unit_test(an_existing_transaction_is_refused_or_overwritten),
        cmocka_unit_test(a_transaction_refuses_the_second_of_an_index),
        cmocka_unit_test(a_small_buffer_takes_a_range_in_pieces),
        cmocka_unit_test(a_value_too_long_says_what_would_do),
        cmocka_unit_test(signatures_come_from_an_index_on),
        cmocka_unit_test(a_transaction_refuses_a_second_signature),
        cmocka_unit_test(a_session_says_that_it_is_signed),
        cmocka_unit_test(content_needs_no_session),
        cmocka_unit_test(a_cache_takes_no_covalue_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
