/*
 * Transactions of the covalue store as a whole, from ops or packed, of several
 * handles and threads; and its locks, each change of which is one.
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

#include "covalue_checks.h"
#include "covalue_fixture.h"
#include "storage/covalue_ends.h"

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

/* --- locks -------------------------------------------------------------------------------- */

static bft_covalue_lock_result acquire(struct covalue_fixture *f,
                                       const char *holder, int64_t now,
                                       uint64_t *offset)
{
    bft_covalue_lock_result result;

    ok(bft_covalue_lock_acquire(f->store, cv_text("lock#p"), cv_text(holder),
                                now, 1000, 100, &result, offset));
    return result;
}

static void a_lock_is_held_until_it_runs_out(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint64_t offset = 9;

    (void)state;
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "a", 5000, &offset));
    assert_int_equal(0, offset);
    ok(bft_covalue_lock_renew(f->store, cv_text("lock#p"), cv_text("a"), 300));
    ok(bft_covalue_lock_renew(f->store, cv_text("lock#p"), cv_text("b"), 400));
    assert_int_equal(BFT_LOCK_HELD, acquire(f, "b", 5000, &offset));
    assert_int_equal(BFT_LOCK_HELD, acquire(f, "b", 5100, &offset));
    /* Its holder may have it again, and goes on. */
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "a", 5001, &offset));
    assert_int_equal(300, offset);
    assert_int_equal(BFT_LOCK_HELD, acquire(f, "b", 5101, &offset));
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "b", 5102, &offset));
    assert_int_equal(300, offset);
    covalue_fixture_close(f);
}

static void a_released_lock_is_not_due_for_a_while(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_lock lock;
    uint64_t offset;

    (void)state;
    fails(BFT_NOT_FOUND,
          bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "a", 5000, &offset));
    ok(bft_covalue_lock_renew(f->store, cv_text("lock#p"), cv_text("a"), 300));
    ok(bft_covalue_lock_release(f->store, cv_text("lock#p"), cv_text("b"),
                                6000));
    ok(bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(0, lock.released);
    assert_int_equal(300, lock.offset);
    ok(bft_covalue_lock_release(f->store, cv_text("lock#p"), cv_text("a"),
                                6000));
    ok(bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(5000, lock.acquired);
    assert_int_equal(6000, lock.released);
    assert_int_equal(0, lock.offset);
    assert_true(cv_is_text(lock.holder, lock.holder_len, "a"));
    assert_int_equal(BFT_LOCK_NOT_DUE, acquire(f, "a", 6999, &offset));
    assert_int_equal(BFT_LOCK_NOT_DUE, acquire(f, "b", 5, &offset));
    /* Released: renewing does nothing. */
    ok(bft_covalue_lock_renew(f->store, cv_text("lock#p"), cv_text("a"), 77));
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "b", 7000, &offset));
    assert_int_equal(0, offset);
    ok(bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(0, lock.released);
    covalue_fixture_close(f);
}

/* By a clock that says the time that stands for a lock that is held. */
static void a_lock_that_is_given_back_at_time_0_is_free(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_lock lock;
    uint64_t offset;

    (void)state;
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "a", 0, &offset));
    ok(bft_covalue_lock_release(f->store, cv_text("lock#p"), cv_text("a"), 0));
    ok(bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(1, lock.released);
    assert_int_equal(BFT_LOCK_NOT_DUE, acquire(f, "b", 999, &offset));
    assert_int_equal(BFT_LOCK_ACQUIRED, acquire(f, "b", 1001, &offset));
    covalue_fixture_close(f);
}

static void lock_times_may_be_extreme(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_lock_result result;
    uint64_t offset;
    bft_covalue_op op = {.kind = BFT_OP_LOCK,
                         .row = (uint64_t)INT64_MIN,
                         .bytes = 0,
                         .idx = 5,
                         .id = cv_text("k"),
                         .value = cv_text("h")};

    (void)state;
    ok(cv_apply(f, &op, 1));
    ok(bft_covalue_lock_acquire(f->store, cv_text("k"), cv_text("other"),
                                INT64_MAX, 0, INT64_MAX, &result, &offset));
    assert_int_equal(BFT_LOCK_HELD, result);
    ok(bft_covalue_lock_acquire(f->store, cv_text("k"), cv_text("other"),
                                INT64_MAX, 0, 5, &result, &offset));
    assert_int_equal(BFT_LOCK_ACQUIRED, result);
    assert_int_equal(5, offset);
    ok(bft_covalue_lock_acquire(f->store, cv_text("k"), cv_text("third"),
                                INT64_MIN, 0, INT64_MAX, &result, &offset));
    assert_int_equal(BFT_LOCK_HELD, result);
    covalue_fixture_close(f);
}

/* --- transactions as a whole ------------------------------------------------------------------- */

static void changes_count_what_changed(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op op = cv_op_covalue("co_z1", "{}");
    bft_covalue_applied first, again;
    uint64_t before = bft_covalue_changes(f->store);

    (void)state;
    ok(bft_covalue_apply(f->store, &op, 1, BFT_DEFAULT, &first));
    assert_int_equal(before + 1, first.changes);
    assert_int_equal(before, first.before);
    assert_true(first.lsn != 0);
    /* Nothing to do: what it saw is below this. */
    ok(bft_covalue_apply(f->store, &op, 1, BFT_SYNC, &again));
    assert_int_equal(first.changes, again.changes);
    assert_int_equal(first.changes, again.before);
    assert_int_equal(first.lsn, again.lsn);
    assert_true(bft_durable_lsn(f->db) >= again.lsn);
    ok(cv_load(f, "co_z1", BFT_LOAD_KNOWN));
    assert_int_equal(first.changes, cv_view_of(f)->changes);
    ok(bft_covalue_apply(f->store, NULL, 0, BFT_DEFAULT, &again));
    assert_int_equal(first.changes, again.changes);
    covalue_fixture_close(f);
}

static void a_sync_commit_is_durable_on_return_test(void **state)
{
    (void)state;
    passes(a_sync_commit_is_durable_on_return);
}

static void malformed_ops_are_refused(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    static char id[BFT_COVALUE_ID_MAX + 1];
    bft_covalue_op bad[] = {
        cv_op_with(cv_op_session(0, "s", 0, "", 0), BFT_OP_LATEST),
        cv_op_with(cv_op_transaction(0, 0, "t"), BFT_OP_LATEST),
        cv_op_with(cv_op_signature(0, 0, "t"), BFT_OP_LATEST),
        cv_op_transaction(1, BFT_COVALUE_NONE, "t"),
        cv_op_signature(1, BFT_COVALUE_NONE, "t"),
        {.kind = (bft_covalue_op_kind)0},
        {.kind = (bft_covalue_op_kind)10},
    };
    bft_covalue_op ops[2] = {cv_op_covalue("co_z1", "{}")};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        fails(BFT_INVALID, cv_apply(f, &bad[i], 1));
    memset(id, 'i', sizeof(id));
    for (int kind = BFT_OP_COVALUE; kind <= BFT_OP_LOCK; kind++) {
        if (kind == BFT_OP_TRANSACTION || kind == BFT_OP_SIGNATURE)
            continue;
        ops[1] = (bft_covalue_op){.kind = (bft_covalue_op_kind)kind,
                                  .id = {id, sizeof(id)}};
        fails(BFT_TOO_BIG, cv_apply(f, ops, 2));
        ops[1].id.len--;
        ok(cv_apply(f, &ops[1], 1));
    }
    fails(BFT_NOT_FOUND,
          bft_covalue_load(f->store, (bft_slice){id, sizeof(id)}, BFT_LOAD_ROWS,
                           f->buf, sizeof(f->buf), &f->used));
    assert_int_equal(1, bft_covalue_count(f->store));
    covalue_fixture_close(f);
}

/* Lengths that run over when that of what lies around the value comes on top:
 * nothing is read of it. */
static void values_longer_than_any_are_refused(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    for (int kind = BFT_OP_COVALUE; kind <= BFT_OP_SIGNATURE; kind++)
        for (size_t less = 0; less < 40; less++) {
            bft_covalue_op ops[2] = {cv_op_covalue("co_z1", "{}")};

            ops[1] =
                (bft_covalue_op){.kind = (bft_covalue_op_kind)kind,
                                 .row = 1,
                                 .id = cv_text("co_z2"),
                                 .value = {cv_text("v").data, SIZE_MAX - less}};
            fails(BFT_TOO_BIG, cv_apply(f, ops, 2));
        }
    assert_int_equal(0, bft_covalue_count(f->store));
    covalue_fixture_close(f);
}

/* With the smallest leaves a key has 128 bytes at most. */
static void ids_too_long_for_small_leaves_change_nothing(void **state)
{
    enum { FITS = 118 };
    struct covalue_fixture *f = covalue_fixture_open_memory();
    static char id[BFT_COVALUE_ID_MAX];
    bft_covalue_op ops[2] = {cv_op_covalue("co_z1", "{}")};
    uint64_t row;

    (void)state;
    bft_covalue_close(f->store);
    ok(bft_close(f->db));
    f->options.leaf_bytes = 512;
    snprintf(f->path, sizeof(f->path), "/small");
    ok(bft_open(f->path, &f->options, &f->db));
    ok(bft_covalue_open(f->db, NULL, &f->store));
    memset(id, 'i', sizeof(id));
    for (int kind = BFT_OP_COVALUE; kind <= BFT_OP_LOCK; kind++) {
        if (kind == BFT_OP_TRANSACTION || kind == BFT_OP_SIGNATURE ||
            kind == BFT_OP_SYNCED || kind == BFT_OP_UNTRACK)
            continue;
        for (size_t len = FITS; len <= sizeof(id); len += 20) {
            ops[1] = (bft_covalue_op){
                .kind = (bft_covalue_op_kind)kind, .row = 1, .id = {id, len}};
            /* provokes: bft_covalue_apply BFT_TOO_BIG */
            if (len > FITS) {
                fails(BFT_TOO_BIG, cv_apply(f, ops, 2));
                assert_int_equal(0, bft_covalue_count(f->store));
            }
        }
    }
    fails(BFT_NOT_FOUND,
          bft_covalue_row(f->store, (bft_slice){id, sizeof(id)}, &row));
    ops[1].id.len = FITS;
    ok(cv_apply(f, ops, 2));
    covalue_fixture_close(f);
}

static void a_transaction_over_the_limit_changes_nothing(void **state)
{
    enum { OPS = 100, LONG = 1000 };
    struct covalue_fixture *f = covalue_fixture_open(256 << 10);
    static char value[LONG + 1];
    bft_covalue_op ops[OPS + 1];

    (void)state;
    memset(value, 'v', LONG);
    ops[0] = cv_op_covalue("co_z1", "{}");
    for (int i = 0; i < OPS; i++)
        ops[1 + i] = cv_op_transaction(1, (uint64_t)i, value);
    /* provokes: bft_covalue_apply BFT_TOO_BIG */
    fails(BFT_TOO_BIG, cv_apply(f, ops, OPS + 1));
    assert_int_equal(0, bft_covalue_count(f->store));
    assert_int_equal(0, cv_transactions(f, 1, 0, 1000));
    ok(cv_apply(f, ops, 11));
    assert_int_equal(10, cv_transactions(f, 1, 0, 1000));
    covalue_fixture_close(f);
}

/* Enough rows in one transaction that looking for them takes a hash table. */
static void many_rows_in_one_transaction(void **state)
{
    enum { SESSIONS = 500 };
    struct covalue_fixture *f = covalue_fixture_open(0);
    static bft_covalue_op ops[3 * SESSIONS + 1];
    static char id[SESSIONS][16];
    size_t n = 0;

    (void)state;
    ops[n++] = cv_op_covalue("co_z1", "{}");
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < SESSIONS; i++) {
            snprintf(id[i], sizeof(id[i]), "s%d", i);
            ops[n++] = cv_op_with(
                cv_op_session(0, id[i], (uint64_t)round + 1, "sig", 0),
                BFT_OP_LATEST);
            if (round == 0)
                ops[n++] =
                    cv_op_with(cv_op_transaction(0, 0, "t"), BFT_OP_LATEST);
        }
    ok(cv_apply(f, ops, n));
    for (size_t i = 0; i < SESSIONS; i++)
        assert_int_equal(i + 1, ops[1 + 2 * SESSIONS + i].result);
    ok(cv_load(f, "co_z1", BFT_LOAD_KNOWN));
    assert_int_equal(SESSIONS, cv_view_of(f)->session_count);
    assert_int_equal(2, cv_session_row(f, SESSIONS - 1)->last_idx);
    assert_int_equal(SESSIONS, cv_census(f).transactions);
    covalue_fixture_close(f);
}

/* So may sessions before their CoValue. */
static void a_session_before_its_covalue_is_found(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    assert_int_equal(1, cv_apply_one(f, cv_op_session(2, "s1", 5, "early", 0)));
    for (uint64_t row = 1; row <= 3; row++) {
        char id[] = {'c', 'o', (char)('0' + row), 0};
        bft_covalue_op op =
            cv_op_with(cv_op_session(row, "s1", 7, "late", 0), BFT_OP_EXPECT);

        assert_int_equal(row, cv_apply_one(f, cv_op_covalue(id, "{}")));
        if (row == 2)
            covalue_fixture_reopen(f);
        fails(row == 2 ? BFT_CONFLICT : BFT_OK, cv_apply(f, &op, 1));
        /* provokes: bft_covalue_apply BFT_CONFLICT */
        fails(BFT_CONFLICT, cv_apply(f, &op, 1));
    }
    covalue_fixture_close(f);
}

/* What the store knows of the ends of sessions is never more than there is: what
 * comes behind is taken, what is there is found, whatever failed before, in which
 * order it came, and though another session has taken the place of one. */
static void what_is_there_is_found_from_any_end(void **state)
{
    static const uint64_t sessions[] = {1, 1 + BFTI_ENDS, 2, 0};
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    for (uint64_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < 4; i++) {
            uint64_t row = sessions[i], from = 10 * round;
            bft_covalue_op back[] = {
                cv_op_transaction(row, from + 5, "a"),
                cv_op_transaction(row, from + 2, "b"),
            };
            bft_covalue_op again[] = {
                cv_op_transaction(row, from + 8, "c"),
                cv_op_transaction(row, from + 5, "d"),
            };

            ok(cv_apply(f, back, 2));
            fails(BFT_EXISTS, cv_apply(f, again, 2));
            ok(cv_apply(f, again, 1));
            for (uint64_t idx = 0; idx <= from + 8; idx++) {
                bft_covalue_op op = cv_op_transaction(row, idx, "e");
                bool there = idx % 10 == 2 || idx % 10 == 5 || idx % 10 == 8;

                if (there)
                    fails(BFT_EXISTS, cv_apply(f, &op, 1));
            }
            back[0] = cv_op_with(back[0], BFT_OP_OVERWRITE);
            ok(cv_apply(f, back, 1));
        }
        if (round == 1)
            covalue_fixture_reopen(f);
    }
    assert_int_equal(4 * 4 * 3, cv_census(f).transactions);
    covalue_fixture_close(f);
}

/* Content may be there before its session: it is found, in the same process and
 * after opening again, by a transaction that makes the session. */
static void content_before_its_session_is_found(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    cv_apply_one(f, cv_op_transaction(2, 0, "early"));
    cv_apply_one(f, cv_op_signature(4, 7, "early"));
    for (uint64_t row = 1; row <= 5; row++) {
        char id[] = {'s', (char)('0' + row), 0};
        bft_covalue_op ops[] = {
            cv_op_session(1, id, 1, "sig", 0),
            cv_op_with(cv_op_transaction(0, 0, "late"), BFT_OP_LATEST),
        };

        if (row == 4)
            covalue_fixture_reopen(f);
        /* provokes: bft_covalue_apply BFT_EXISTS */
        fails(row == 2 ? BFT_EXISTS : BFT_OK, cv_apply(f, ops, 2));
        if (row == 2) {
            ops[1].flags |= BFT_OP_OVERWRITE;
            ok(cv_apply(f, ops, 2));
        }
        assert_int_equal(row, ops[0].result);
        assert_int_equal(row == 4, cv_signatures(f, row, 0));
    }
    /* The census of covalue_fixture_close() knows whether session 4 says so. */
    covalue_fixture_close(f);
}

/* --- packed --------------------------------------------------------------------------------------- */

static size_t put(uint8_t *out, uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(number >> (8 * i));
    return bytes;
}

static size_t pack(uint8_t *out, const bft_covalue_op *op)
{
    size_t n = 0;

    n += put(out + n, (uint64_t)op->kind, 1);
    n += put(out + n, op->flags, 1);
    n += put(out + n, op->id.len, 2);
    n += put(out + n, op->value.len, 4);
    n += put(out + n, op->row, 8);
    n += put(out + n, op->idx, 8);
    if (op->kind == BFT_OP_SESSION || op->kind == BFT_OP_LOCK) {
        n += put(out + n, op->bytes, 8);
        n += put(out + n, op->expect_row, 8);
        n += put(out + n, op->expect_idx, 8);
    }
    if (op->id.len != 0)
        memcpy(out + n, op->id.data, op->id.len);
    n += op->id.len;
    if (op->value.len != 0)
        memcpy(out + n, op->value.data, op->value.len);
    return n + op->value.len;
}

static void packed_ops_do_the_same(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const bft_covalue_op ops[] = {
        cv_op_covalue("co_z0", "{}"),
        cv_op_covalue("co_z1", "{\"h\":1}"),
        cv_op_with(cv_op_session(0, "s1", 2, "sig", 55),
                   BFT_OP_LATEST | BFT_OP_EXPECT),
        cv_op_with(cv_op_transaction(0, 0, "{\"a\":0}"), BFT_OP_LATEST),
        cv_op_with(cv_op_transaction(0, 1, "{\"a\":1}"), BFT_OP_LATEST),
        cv_op_with(cv_op_signature(0, 1, "after"), BFT_OP_LATEST),
        cv_op_deleted("co_z1"),
        cv_op_peer("co_z1", "p", false),
        {.kind = BFT_OP_LOCK,
         .id = cv_text("k"),
         .value = cv_text("h"),
         .row = 1,
         .bytes = 2,
         .idx = 3},
    };
    uint8_t packed[1024];
    size_t ends[COUNT(ops)];
    size_t len = 0;
    uint64_t rows[4];
    bft_covalue_lock lock;
    bft_covalue_applied applied;

    (void)state;
    for (size_t i = 0; i < COUNT(ops); i++) {
        len += pack(packed + len, &ops[i]);
        ends[i] = len;
    }
    for (size_t cut = 1, i = 0; cut < len; cut++) {
        if (cut == ends[i]) {
            i++;
            continue;
        }
        fails(BFT_INVALID,
              bft_covalue_apply_packed(f->store, packed, cut, BFT_DEFAULT, rows,
                                       4, NULL));
    }
    assert_int_equal(0, bft_covalue_count(f->store));
    ok(bft_covalue_apply_packed(f->store, packed, len, BFT_DEFAULT, rows, 4,
                                &applied));
    assert_int_equal(1, rows[0]);
    assert_int_equal(2, rows[1]);
    assert_int_equal(1, rows[2]);
    assert_int_equal(0, rows[3]);
    assert_int_equal(applied.changes, bft_covalue_changes(f->store));
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_true(cv_place_is(f, cv_view_of(f)->text, cv_view_of(f)->text_len,
                            "[{\"h\":1},{\"a\":0},{\"a\":1}]"));
    assert_int_equal(55, cv_session_row(f, 0)->bytes_since);
    assert_int_equal(1, cv_view_of(f)->signature_count);
    assert_int_equal(1, cv_deletions(f));
    assert_int_equal(1, cv_unsynced(f));
    ok(bft_covalue_lock_get(f->store, cv_text("k"), &lock));
    assert_int_equal(1, lock.acquired);
    assert_int_equal(2, lock.released);
    assert_int_equal(3, lock.offset);
    /* Again: the session is not as expected. */
    fails(BFT_CONFLICT, bft_covalue_apply_packed(f->store, packed, len,
                                                 BFT_DEFAULT, rows, 2, NULL));
    assert_int_equal(0, rows[0]);
    covalue_fixture_close(f);
}

/* --- handles and threads ------------------------------------------------------------------------ */

static void handles_see_each_other(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_db *db;
    bft_covalue_store *store;
    bft_covalue_op op = cv_op_covalue("co_z2", "{}");
    uint64_t row;

    (void)state;
    cv_apply_one(f, cv_op_covalue("co_z1", "{}"));
    ok(bft_open(f->path, &f->options, &db));
    ok(bft_covalue_open(db, NULL, &store));
    ok(bft_covalue_row(store, cv_text("co_z1"), &row));
    ok(bft_covalue_apply(store, &op, 1, BFT_DEFAULT, NULL));
    assert_int_equal(2, op.result);
    ok(bft_covalue_row(f->store, cv_text("co_z2"), &row));
    assert_int_equal(bft_covalue_changes(store), bft_covalue_changes(f->store));
    assert_int_equal(3, cv_apply_one(f, cv_op_covalue("co_z3", "{}")));
    assert_int_equal(3, bft_covalue_count(store));
    bft_covalue_close(store);
    ok(bft_close(db));
    assert_int_equal(4, cv_apply_one(f, cv_op_covalue("co_z4", "{}")));
    covalue_fixture_close(f);
}

enum { THREADS = 4, ROUNDS = 100 };

struct writer {
    struct covalue_fixture *f;
    int number;
    bft_status status;
    uint64_t covalue[ROUNDS], session[ROUNDS], lsn[ROUNDS];
};

static void *write_rounds(void *arg)
{
    struct writer *w = arg;
    char id[ROUNDS][32];

    for (int i = 0; i < ROUNDS && w->status == BFT_OK; i++) {
        bft_covalue_applied applied;
        bft_covalue_op ops[4];

        snprintf(id[i], sizeof(id[i]), "co_z%d-%d", w->number, i);
        ops[0] = cv_op_covalue(id[i], "{}");
        ops[1] = cv_op_with(cv_op_session(0, "s", 1, "sig", 0), BFT_OP_LATEST);
        ops[2] = cv_op_with(cv_op_transaction(0, 0, "t"), BFT_OP_LATEST);
        ops[3] = cv_op_find("co_zmissing");
        /* One in three fails, having been given rows. */
        if (i % 3 == 0 && cv_apply(w->f, ops, 4) != BFT_NOT_FOUND)
            w->status = BFT_INVALID;
        else
            w->status =
                bft_covalue_apply(w->f->store, ops, 3, BFT_SYNC, &applied);
        w->covalue[i] = ops[0].result;
        w->session[i] = ops[1].result;
        w->lsn[i] = applied.lsn;
    }
    return NULL;
}

/* Row ids of many threads: none missing, none twice, and a lower one was
 * committed earlier. */
static void rows_are_in_the_order_of_commits(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    static struct writer writers[THREADS];
    static uint64_t lsn_of_row[THREADS * ROUNDS + 1];
    pthread_t thread[THREADS];

    (void)state;
    memset(lsn_of_row, 0, sizeof(lsn_of_row));
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.f = f, .number = i};
        assert_int_equal(
            0, pthread_create(&thread[i], NULL, write_rounds, &writers[i]));
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(0, pthread_join(thread[i], NULL));
    for (int i = 0; i < THREADS; i++) {
        ok(writers[i].status);
        for (int k = 0; k < ROUNDS; k++) {
            uint64_t row = writers[i].covalue[k];

            assert_in_range(row, 1, THREADS * ROUNDS);
            assert_int_equal(row, writers[i].session[k]);
            assert_true(lsn_of_row[row] == 0);
            lsn_of_row[row] = writers[i].lsn[k];
        }
    }
    for (size_t row = 2; row <= THREADS * ROUNDS; row++)
        assert_true(lsn_of_row[row - 1] < lsn_of_row[row]);
    assert_int_equal(THREADS * ROUNDS, cv_census(f).transactions);
    covalue_fixture_close(f);
}

static void a_newer_format_is_refused(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_tree *tree;
    bft_covalue_store *store;
    const uint8_t key[] = {0};
    const uint8_t value[] = {99};

    (void)state;
    bft_covalue_close(f->store);
    ok(bft_tree_open(f->db, "covalues", NULL, &tree));
    ok(bft_put(tree, (bft_slice){key, 1}, (bft_slice){value, 1}));
    ok(bft_close(f->db));
    ok(bft_open(f->path, &f->options, &f->db));
    fails(BFT_TOO_NEW, bft_covalue_open(f->db, NULL, &store));
    assert_null(store);
    ok(bft_tree_open(f->db, "covalues", NULL, &tree));
    ok(bft_delete(tree, (bft_slice){key, 1}));
    ok(bft_covalue_open(f->db, NULL, &f->store));
    covalue_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lock_is_held_until_it_runs_out),
        cmocka_unit_test(a_released_lock_is_not_due_for_a_while),
        cmocka_unit_test(a_lock_that_is_given_back_at_time_0_is_free),
        cmocka_unit_test(lock_times_may_be_extreme),
        cmocka_unit_test(changes_count_what_changed),
        cmocka_unit_test(a_sync_commit_is_durable_on_return_test),
        cmocka_unit_test(malformed_ops_are_refused),
        cmocka_unit_test(values_longer_than_any_are_refused),
        cmocka_unit_test(ids_too_long_for_small_leaves_change_nothing),
        cmocka_unit_test(a_transaction_over_the_limit_changes_nothing),
        cmocka_unit_test(many_rows_in_one_transaction),
        cmocka_unit_test(a_session_before_its_covalue_is_found),
        cmocka_unit_test(content_before_its_session_is_found),
        cmocka_unit_test(what_is_there_is_found_from_any_end),
        cmocka_unit_test(packed_ops_do_the_same),
        cmocka_unit_test(handles_see_each_other),
        cmocka_unit_test(rows_are_in_the_order_of_commits),
        cmocka_unit_test(a_newer_format_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
