/*
 * Reading the covalue store into buffers: whole CoValues, pieces that fit,
 * lists.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "covalue_fixture.h"
#include "park.h"

#define ok(call)          assert_int_equal(BFT_OK, (call))
#define fails(want, call) assert_int_equal((want), (call))
#define COUNT(array)      (sizeof(array) / sizeof((array)[0]))

/* --- loading ----------------------------------------------------------------------------- */

/* Three sessions: one with two signatures, one without, one empty. */
static void make_segments(struct covalue_fixture *f)
{
    uint64_t first = cv_make_covalue(f, "co_z1", "zz", 30);
    uint64_t second = cv_apply_one(f, cv_op_session(1, "aa", 5, "sa", 1));

    cv_apply_one(f, cv_op_session(1, "mm", 0, "", 0));
    cv_add_transactions(f, second, 0, 6); /* one more than it says */
    cv_apply_one(f, cv_op_signature(first, 9, "at 9"));
    cv_apply_one(f, cv_op_signature(first, 19, "at 19"));
}

static void a_load_brings_first_segments(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const bft_covalue_view *view = (const void *)f->buf;

    (void)state;
    make_segments(f);
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    assert_int_equal(3, view->session_count);
    assert_int_equal(2, view->signature_count);
    assert_int_equal(15, view->transaction_count);
    for (size_t i = 0; i < 3; i++)
        assert_true((cv_session_row(f, i)->flags & BFT_SESSION_CONTENT) != 0);
    assert_int_equal(2, cv_session_row(f, 0)->signature_count);
    assert_int_equal(10, cv_session_row(f, 0)->transaction_count);
    assert_int_equal(5, cv_session_row(f, 1)->transaction_count);
    assert_int_equal(0, cv_session_row(f, 2)->transaction_count);
    assert_true(cv_place_is(f, cv_signature_row(f, 1)->signature,
                            cv_signature_row(f, 1)->signature_len, "at 19"));
    for (size_t i = 0; i < 15; i++) {
        const bft_transaction_row *row = cv_transaction_row(f, i);

        assert_int_equal(i < 10 ? 1 : 2, row->session);
        assert_int_equal(i < 10 ? i : i - 10, row->idx);
    }
    covalue_fixture_close(f);
}

/* Every buffer length: too small for the rows, or rows and whole segments. */
static void a_load_into_any_buffer_is_whole(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const bft_covalue_view *view = (const void *)f->buf;
    size_t full, rows;

    (void)state;
    make_segments(f);
    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    full = f->used;
    fails(BFT_TOO_SMALL, bft_covalue_load(f->store, cv_text("co_z1"),
                                          BFT_LOAD_ROWS, NULL, 0, &rows));
    assert_in_range(rows, 200, full);
    for (size_t len = 0; len < full + 64; len++) {
        bft_status status;
        size_t count = 0;

        memset(f->buf, 0xee, full + 128);
        status = bft_covalue_load(f->store, cv_text("co_z1"), BFT_LOAD_CONTENT,
                                  f->buf, len, &f->used);
        assert_int_equal(0xee, ((unsigned char *)f->buf)[len]);
        if (status == BFT_TOO_SMALL) {
            assert_true(len < rows + 8);
            assert_true(f->used > len);
            continue;
        }
        ok(status);
        assert_true(f->used <= len);
        assert_int_equal(3, view->session_count);
        for (size_t i = 0; i < 3; i++) {
            const bft_session_row *row = cv_session_row(f, i);
            static const size_t whole[] = {10, 5, 0};

            if ((row->flags & BFT_SESSION_CONTENT) != 0)
                assert_int_equal(whole[i], row->transaction_count);
            else
                assert_int_equal(0, row->transaction_count);
            count += row->transaction_count;
        }
        assert_int_equal(count, view->transaction_count);
        for (size_t i = 0; i < count; i++)
            (void)cv_transaction_row(f, i);
        assert_true(cv_place_is(f, view->text + view->text_len - 1, 1, "]"));
        if (len >= full + 16)
            assert_int_equal(15, count);
    }
    covalue_fixture_close(f);
}

/* CoValue "co_zI" has I % 4 sessions, whose rows are not in the order of ids. */
static void make_many(struct covalue_fixture *f, size_t covalues)
{
    for (size_t i = 0; i < covalues; i++) {
        bft_covalue_op ops[4];
        char id[32];
        static const char *const names[] = {"s_c", "s_a", "s_b"};

        snprintf(id, sizeof(id), "co_z%zu", i);
        ops[0] = cv_op_covalue(id, "{}");
        for (size_t j = 0; j < i % 4; j++)
            ops[1 + j] =
                cv_op_with(cv_op_session(0, names[j], 10 * i + j, "sig", 0),
                           BFT_OP_LATEST);
        ok(cv_apply(f, ops, 1 + i % 4));
    }
}

/* Every buffer length: in pieces of whole CoValues, or too small for one. */
static void known_states_of_many_are_whole(void **state)
{
    enum { COVALUES = 30, SESSIONS = 43 };
    struct covalue_fixture *f = covalue_fixture_open(0);
    const bft_covalue_view *view = (const void *)f->buf;
    size_t full;

    (void)state;
    make_many(f, COVALUES);
    ok(bft_covalue_known(f->store, 0, UINT64_MAX, f->buf, sizeof(f->buf),
                         &f->used));
    full = f->used;
    assert_int_equal(SESSIONS, view->session_count);
    assert_int_equal(0, view->next);
    for (size_t len = 0; len < full + 64; len++) {
        uint64_t from = 1;
        size_t count = 0;

        do {
            bft_status status;

            memset(f->buf, 0xee, full + 128);
            status = bft_covalue_known(f->store, from, COVALUES, f->buf, len,
                                       &f->used);
            assert_int_equal(0xee, ((unsigned char *)f->buf)[len]);
            if (status == BFT_TOO_SMALL) {
                assert_true(f->used > len);
                ok(bft_covalue_known(f->store, from, COVALUES, f->buf, f->used,
                                     &f->used));
                assert_true(view->session_count != 0);
                break;
            }
            ok(status);
            assert_true(f->used <= len);
            for (size_t i = 0; i < view->session_count; i++) {
                const bft_session_row *row = cv_session_row(f, i);
                uint64_t made = row->covalue - 1;
                size_t place = 0;

                assert_in_range(row->covalue, from,
                                view->next == 0 ? COVALUES : view->next - 1);
                while (place < i &&
                       cv_session_row(f, i - place - 1)->covalue == made + 1)
                    place++;
                assert_true(place < made % 4);
                assert_int_equal(10 * made + place, row->last_idx);
                assert_int_equal(count + i + 1, row->row);
            }
            count += view->session_count;
            assert_true(view->next == 0 || view->next > from);
            from = view->next;
        } while (from != 0);
        assert_true(from != 0 || count == SESSIONS);
    }
    ok(bft_covalue_known(f->store, 4, 4, f->buf, sizeof(f->buf), &f->used));
    assert_int_equal(3, view->session_count);
    ok(bft_covalue_known(f->store, COVALUES + 1, UINT64_MAX, f->buf,
                         sizeof(f->buf), &f->used));
    assert_int_equal(0, view->session_count);
    covalue_fixture_close(f);
}

static void an_unaligned_buffer_is_refused(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_make_covalue(f, "co_z1", "s", 1);
    fails(BFT_INVALID,
          bft_covalue_load(f->store, cv_text("co_z1"), BFT_LOAD_ROWS,
                           (char *)f->buf + 4, 4096, &f->used));
    assert_int_equal(0, f->used);
    covalue_fixture_close(f);
}

/* --- lists ----------------------------------------------------------------------------- */

static void ids_come_by_row_above_an_offset(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    char id[16];
    uint64_t row = 0;

    (void)state;
    for (int i = 0; i < 250; i++) {
        snprintf(id, sizeof(id), "co_z%d", 1000 - i);
        cv_apply_one(f, cv_op_covalue(id, "{}"));
    }
    do {
        ok(bft_covalue_ids(f->store, row, 100, f->buf, sizeof(f->buf),
                           &f->used));
        assert_int_equal(row == 200 ? 50 : 100, cv_list_of(f)->count);
        assert_int_equal(row == 200 ? 0 : 1, cv_list_of(f)->more);
        for (size_t i = 0; i < cv_list_of(f)->count; i++) {
            snprintf(id, sizeof(id), "co_z%llu",
                     (unsigned long long)(1000 - row++));
            assert_true(cv_list_is(f, i, id));
        }
    } while (cv_list_of(f)->more != 0);
    assert_int_equal(250, row);
    ok(bft_covalue_ids(f->store, 250, 100, f->buf, sizeof(f->buf), &f->used));
    assert_int_equal(0, cv_list_of(f)->count);
    ok(bft_covalue_ids(f->store, UINT64_MAX, 100, f->buf, sizeof(f->buf),
                       &f->used));
    assert_int_equal(0, cv_list_of(f)->count);
    covalue_fixture_close(f);
}

static void a_small_buffer_takes_a_list_in_pieces(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    char id[32];
    uint64_t row = 0;
    size_t need;

    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "co_zlonger%d", i);
        cv_apply_one(f, cv_op_covalue(id, "{}"));
    }
    do {
        ok(bft_covalue_ids(f->store, row, 1000, f->buf, 300, &f->used));
        assert_true(f->used <= 300);
        for (size_t i = 0; i < cv_list_of(f)->count; i++) {
            snprintf(id, sizeof(id), "co_zlonger%d", (int)row++);
            assert_true(cv_list_is(f, i, id));
        }
    } while (cv_list_of(f)->more != 0);
    assert_int_equal(100, row);
    fails(BFT_TOO_SMALL, bft_covalue_ids(f->store, 0, 1000, f->buf, 32, &need));
    ok(bft_covalue_ids(f->store, 0, 1000, f->buf, need, &f->used));
    assert_int_equal(1, cv_list_of(f)->count);
    covalue_fixture_close(f);
}

static void unsynced_ids_come_once_in_order(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_peer("co_zb", "p1", false), cv_op_peer("co_zb", "p2", false),
        cv_op_peer("co_za", "p1", false), cv_op_peer("co_zbb", "p1", false),
        cv_op_peer("co_zc", "p1", false), cv_op_peer("co_zc", "p1", true),
        cv_op_peer("co_zb", "p2", true),
    };

    (void)state;
    ok(cv_apply(f, ops, COUNT(ops)));
    assert_int_equal(3, cv_unsynced(f));
    assert_true(cv_list_is(f, 0, "co_za"));
    assert_true(cv_list_is(f, 1, "co_zb"));
    assert_true(cv_list_is(f, 2, "co_zbb"));
    ok(bft_covalue_unsynced(f->store, cv_text("co_zb"), f->buf, sizeof(f->buf),
                            &f->used));
    assert_int_equal(1, cv_list_of(f)->count);
    cv_apply_one(f, cv_op_peer("co_zb", "p1", true));
    assert_int_equal(2, cv_unsynced(f));
    covalue_fixture_close(f);
}

static void any_bytes_may_stand_in_an_unsynced_id(void **state)
{
    static const char bytes[] = "a\0\0b";
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        ops[i] = cv_op_peer("", "p\xff", false);
        ops[i].id = (bft_slice){bytes, i + 1};
    }
    ok(cv_apply(f, ops, 4));
    assert_int_equal(4, cv_unsynced(f));
    ops[0].kind = BFT_OP_UNTRACK;
    ok(cv_apply(f, ops, 1));
    assert_int_equal(3, cv_unsynced(f));
    covalue_fixture_close(f);
}

static void untracking_forgets_all_peers(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_peer("co_z1", "p1", false), cv_op_peer("co_z1", "p2", false),
        cv_op_peer("co_z2", "p1", false), cv_op_peer("co_z1", "p3", false),
        cv_op_untrack("co_z1"),           cv_op_peer("co_z1", "p4", false),
    };

    (void)state;
    ok(cv_apply(f, ops, 3));
    ok(cv_apply(f, ops + 3, 2));
    assert_int_equal(1, cv_unsynced(f));
    assert_true(cv_list_is(f, 0, "co_z2"));
    ok(cv_apply(f, ops + 3, 3));
    assert_int_equal(2, cv_unsynced(f));
    assert_int_equal(2, cv_census(f).unsynced);
    covalue_fixture_close(f);
}

static void the_deletion_queue_is_in_order_of_ids(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);

    (void)state;
    cv_apply_one(f, cv_op_deleted("co_zb"));
    cv_apply_one(f, cv_op_deleted("co_za"));
    cv_apply_one(f, cv_op_deleted("co_zb"));
    assert_int_equal(2, cv_deletions(f));
    assert_true(cv_list_is(f, 0, "co_za"));
    assert_true(cv_list_is(f, 1, "co_zb"));
    ok(bft_covalue_deletions(f->store, cv_text("co_za"), f->buf, sizeof(f->buf),
                             &f->used));
    assert_int_equal(1, cv_list_of(f)->count);
    covalue_fixture_close(f);
}

/* --- beside a commit ------------------------------------------------------- */

/* More than a cursor copies at once. */
enum { ROWS = 40 };

static const char *name_of(int i)
{
    static char names[ROWS][16];

    snprintf(names[i], sizeof(names[i]), "s%02d", i);
    return names[i];
}

/* co_z1 with ROWS sessions, each of COUNT transactions and a signature behind
 * the last, in one transaction; they had one less. */
static void grow_sessions(struct covalue_fixture *f, uint64_t count)
{
    bft_covalue_op ops[1 + 3 * ROWS] = {cv_op_covalue("co_z1", "{}")};
    size_t n = 1;

    for (int i = 0; i < ROWS; i++) {
        ops[n++] = cv_op_with(cv_op_session(0, name_of(i), count, "s", 0),
                              BFT_OP_LATEST);
        ops[n++] =
            cv_op_with(cv_op_transaction(0, count - 1, "1"), BFT_OP_LATEST);
        ops[n++] =
            cv_op_with(cv_op_signature(0, count - 1, "s"), BFT_OP_LATEST);
    }
    ok(cv_apply(f, ops, n));
}

/* NULL, or what is wrong with what the view at BUF has of co_z1. */
static const char *half_of_sessions(const void *buf)
{
    const bft_covalue_view *view = buf;
    const bft_session_row *rows =
        (const void *)((const char *)buf + view->sessions);

    if (view->session_count != ROWS)
        return "sessions are missing";
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].last_idx != rows[0].last_idx)
            return "a transaction is half there";
        if ((rows[i].flags & BFT_SESSION_CONTENT) != 0 &&
            rows[i].transaction_count != 1)
            return "a session has less than it says";
    }
    return NULL;
}

static void load_known(void *arg)
{
    struct covalue_fixture *f = arg;

    ok(bft_covalue_known(f->store, 0, 9, f->buf, sizeof(f->buf), &f->used));
}

#ifndef NDEBUG

static void load_rows(void *arg)
{
    ok(cv_load(arg, "co_z1", BFT_LOAD_ROWS));
}

/* Stopped behind the first sessions, which the next transaction changes as it
 * does the last. */
static void what_a_read_brings_is_of_one_moment(void **state)
{
    void (*const reads[])(void *) = {load_rows, load_known};

    (void)state;
    for (size_t i = 0; i < COUNT(reads); i++) {
        struct covalue_fixture *f = covalue_fixture_open(0);
        struct parked reader;

        grow_sessions(f, 1);
        assert_true(park_start(&reader, "cursor:copied", 0, reads[i], f));
        grow_sessions(f, 2);
        park_end(&reader);
        if (half_of_sessions(f->buf) != NULL)
            fail_msg("read %zu: %s", i, half_of_sessions(f->buf));
        covalue_fixture_close(f);
    }
}

static void read_range(void *arg)
{
    assert_int_equal(ROWS, cv_transactions(arg, 1, 0, UINT64_MAX));
}

static void a_range_is_of_one_moment(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {
        cv_op_with(cv_op_transaction(1, 0, "1"), BFT_OP_OVERWRITE),
        cv_op_with(cv_op_transaction(1, ROWS - 1, "1"), BFT_OP_OVERWRITE),
    };
    struct parked reader;

    (void)state;
    cv_make_covalue(f, "co_z1", "s1", ROWS);
    assert_true(park_start(&reader, "cursor:copied", 0, read_range, f));
    ok(cv_apply(f, ops, 2));
    park_end(&reader);
    assert_int_equal(cv_transaction_row(f, 0)->value_len,
                     cv_transaction_row(f, ROWS - 1)->value_len);
    covalue_fixture_close(f);
}

static void list_deletions(void *arg)
{
    (void)cv_deletions(arg);
}

static void a_list_is_of_one_moment(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    bft_covalue_op ops[] = {cv_op_deleted("a"), cv_op_deleted("z")};
    struct parked reader;

    (void)state;
    for (int i = 0; i < ROWS; i++)
        cv_apply_one(f, cv_op_deleted(name_of(i)));
    assert_true(park_start(&reader, "cursor:copied", 0, list_deletions, f));
    ok(cv_apply(f, ops, 2));
    park_end(&reader);
    assert_true(cv_list_of(f)->count % 2 == 0);
    covalue_fixture_close(f);
}

#endif

struct grower {
    struct covalue_fixture *f;
    _Atomic bool done;
};

static void *grow(void *arg)
{
    enum { TIMES = 300 };
    struct grower *g = arg;

    for (uint64_t i = 2; i < TIMES; i++)
        grow_sessions(g->f, i);
    atomic_store(&g->done, true);
    return NULL;
}

/* Commits without a pause: readers do not wait for one. */
static void reads_beside_many_commits_see_each_whole(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    struct grower g = {.f = f};
    pthread_t thread;
    bool done;

    (void)state;
    grow_sessions(f, 1);
    assert_int_equal(0, pthread_create(&thread, NULL, grow, &g));
    do {
        const char *said;

        done = atomic_load(&g.done);
        ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
        said = half_of_sessions(f->buf);
        if (said == NULL) {
            load_known(f);
            said = half_of_sessions(f->buf);
        }
        if (said != NULL)
            fail_msg("%s", said);
    } while (!done);
    assert_int_equal(0, pthread_join(thread, NULL));
    covalue_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_brings_first_segments),
        cmocka_unit_test(a_load_into_any_buffer_is_whole),
        cmocka_unit_test(known_states_of_many_are_whole),
        cmocka_unit_test(an_unaligned_buffer_is_refused),
        cmocka_unit_test(ids_come_by_row_above_an_offset),
        cmocka_unit_test(a_small_buffer_takes_a_list_in_pieces),
        cmocka_unit_test(unsynced_ids_come_once_in_order),
        cmocka_unit_test(any_bytes_may_stand_in_an_unsynced_id),
        cmocka_unit_test(untracking_forgets_all_peers),
        cmocka_unit_test(the_deletion_queue_is_in_order_of_ids),
#ifndef NDEBUG
        cmocka_unit_test(what_a_read_brings_is_of_one_moment),
        cmocka_unit_test(a_range_is_of_one_moment),
        cmocka_unit_test(a_list_is_of_one_moment),
#endif
        cmocka_unit_test(reads_beside_many_commits_see_each_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
