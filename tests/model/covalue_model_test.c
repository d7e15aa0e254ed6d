/*
 * The covalue store against plain arrays: random messages as cojson stores
 * them, with failures, erasures, half-done erasures and reopenings between, and
 * everything compared again and again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "covalue_fixture.h"
#include "random.h"
#include "storage/covalue_internal.h"
#include "tally.h"

#define ok(call) assert_int_equal(BFT_OK, (call))

enum {
    IDS = 9,         /* CoValues there may be */
    SESSION_IDS = 5, /* of one CoValue, the last of which an erasure keeps */
    PEERS = 3,
    ROWS_MAX = 600, /* session rows in all */
    IDX_MAX = 40,   /* transactions of one */
    OPS_MAX = 40,
    STORES = 8, /* one after the other: rows run out */
    STEPS = 400,
    TEXT = 48,
};

/* --- the model ------------------------------------------------------------------------ */

struct model_session {
    bool live;
    uint32_t covalue; /* which id */
    uint32_t id;
    uint64_t last_idx, bytes;
    uint32_t signature;            /* number of its text */
    uint32_t transaction[IDX_MAX]; /* numbers of texts, 0: none */
    uint32_t signed_at[IDX_MAX];
};

struct model {
    uint64_t rows[IDS]; /* of the CoValues, 0: none */
    uint32_t header[IDS];
    uint64_t count;
    uint64_t next_session;
    struct model_session session[ROWS_MAX];
    bool unsynced[IDS][PEERS];
    enum { UNQUEUED, WAITING, DONE } deletion[IDS];
};

static struct model now;  /* what is committed */
static struct model next; /* what the ops under way make of it */
static uint32_t texts;    /* numbers given */

/* Ids whose order is not that of their numbers. */
static const char *covalue_id(uint32_t number)
{
    static char id[IDS][16];

    snprintf(id[number], sizeof(id[number]), "co_z%u", number * 4 % IDS);
    return id[number];
}

static const char *session_id(uint32_t number)
{
    static const char *const ids[SESSION_IDS] = {"s_b", "s_a", "s_cc", "s_c",
                                                 "s_bd$"};

    return ids[number];
}

static const char *peer_id(uint32_t number)
{
    static const char *const ids[PEERS] = {"peer1", "peer", "any"};

    return ids[number];
}

/* Text NUMBER: its number, and a tail whose length follows from it. */
static const char *text_of(uint32_t number, char *text)
{
    int len = snprintf(text, TEXT, "{\"t\":%u}", number);

    for (uint32_t i = 0; i < number % 13; i++)
        text[len++] = ' ';
    text[len] = 0;
    return text;
}

static uint64_t model_session(const struct model *m, uint32_t covalue,
                              uint32_t id)
{
    for (uint64_t row = 1; row < m->next_session; row++)
        if (m->session[row].live && m->session[row].covalue == covalue &&
            m->session[row].id == id)
            return row;
    return 0;
}

static void model_erase(struct model *m, uint32_t covalue)
{
    for (uint64_t row = 1; row < m->next_session; row++) {
        struct model_session *session = &m->session[row];

        if (session->covalue == covalue && session->id != SESSION_IDS - 1) {
            session->live = false;
            memset(session->transaction, 0, sizeof(session->transaction));
            memset(session->signed_at, 0, sizeof(session->signed_at));
        }
    }
    m->deletion[covalue] = DONE;
}

/* --- one transaction -------------------------------------------------------------------- */

struct message {
    bft_covalue_op ops[OPS_MAX];
    char text[OPS_MAX][TEXT];
    size_t count;
    uint64_t want[OPS_MAX]; /* results */
    bft_status status;      /* wanted */
};

static bft_covalue_op *add(struct message *m, bft_covalue_op op, uint64_t want)
{
    m->want[m->count] = want;
    m->ops[m->count] = op;
    return &m->ops[m->count++];
}

static void add_covalue(struct message *m, uint32_t covalue)
{
    uint32_t header = ++texts;

    if (next.rows[covalue] == 0) {
        next.rows[covalue] = ++next.count;
        next.header[covalue] = header;
    }
    add(m,
        cv_op_covalue(covalue_id(covalue), text_of(header, m->text[m->count])),
        next.rows[covalue]);
}

static void add_content(struct message *m, uint64_t row, bool latest)
{
    struct model_session *session = &next.session[row];
    uint32_t flags = latest ? BFT_OP_LATEST : 0;
    /* Mostly the next index, as cojson does; sometimes any. */
    uint64_t idx =
        random_below(8) != 0 ? session->last_idx - 1 : random_below(IDX_MAX);
    bool sign = random_below(6) == 0;
    uint32_t *slot = sign ? session->signed_at : session->transaction;
    const char *text = text_of(++texts, m->text[m->count]);

    if (idx >= IDX_MAX)
        return;
    if (random_below(3) == 0)
        flags |= BFT_OP_OVERWRITE;
    else if (slot[idx] != 0 && m->status == BFT_OK)
        m->status = BFT_EXISTS;
    slot[idx] = texts;
    add(m,
        cv_op_with(sign ? cv_op_signature(latest ? 0 : row, idx, text)
                        : cv_op_transaction(latest ? 0 : row, idx, text),
                   flags),
        0);
}

static void add_session(struct message *m, uint32_t covalue)
{
    uint32_t id = (uint32_t)random_below(SESSION_IDS);
    uint64_t row = model_session(&next, covalue, id);
    bool expect = random_below(2) == 0;
    struct model_session *session;
    bft_covalue_op *op;

    if (row == 0 && next.next_session == ROWS_MAX)
        return;
    op = add(
        m,
        cv_op_with(cv_op_session(0, session_id(id), 0, "", 0), BFT_OP_LATEST),
        row == 0 ? next.next_session : row);
    if (expect) {
        op->flags |= BFT_OP_EXPECT;
        op->expect_row = row;
        op->expect_idx = row == 0 ? 0 : next.session[row].last_idx;
        if (random_below(10) == 0) {
            op->expect_row += 1;
            if (m->status == BFT_OK)
                m->status = BFT_CONFLICT;
        }
    }
    if (row == 0) {
        row = next.next_session++;
        next.session[row] =
            (struct model_session){.live = true, .covalue = covalue, .id = id};
    }
    session = &next.session[row];
    session->last_idx += 1 + random_below(2);
    session->bytes = random_below(4) == 0 ? BFT_COVALUE_NONE : random_next();
    session->signature = ++texts;
    op->idx = session->last_idx;
    op->bytes = session->bytes;
    op->value = cv_text(text_of(texts, m->text[m->count - 1]));
    for (size_t i = random_below(4); i != 0; i--)
        add_content(m, row, true);
}

static void add_small(struct message *m, uint32_t covalue)
{
    uint32_t peer = (uint32_t)random_below(PEERS);

    switch (random_below(4)) {
    case 0:
        add(m, cv_op_deleted(covalue_id(covalue)), 0);
        if (next.deletion[covalue] == UNQUEUED)
            next.deletion[covalue] = WAITING;
        break;
    case 1:
        add(m, cv_op_peer(covalue_id(covalue), peer_id(peer), false), 0);
        next.unsynced[covalue][peer] = true;
        break;
    case 2:
        add(m, cv_op_peer(covalue_id(covalue), peer_id(peer), true), 0);
        next.unsynced[covalue][peer] = false;
        break;
    default:
        add(m, cv_op_untrack(covalue_id(covalue)), 0);
        memset(next.unsynced[covalue], 0, sizeof(next.unsynced[covalue]));
        break;
    }
}

/* A live session that may have been named by no op of this transaction. */
static void add_stray_content(struct message *m)
{
    uint64_t row = 1 + random_below(next.next_session);

    if (row < next.next_session && next.session[row].live)
        add_content(m, row, false);
}

static void step_transaction(struct covalue_fixture *f)
{
    static struct message m;
    bft_status status;

    memset(&m, 0, sizeof(m));
    next = now;
    for (size_t parts = 1 + random_below(3); parts != 0; parts--) {
        uint32_t covalue = (uint32_t)random_below(IDS);

        add_covalue(&m, covalue);
        for (size_t i = random_below(3); i != 0; i--)
            add_session(&m, covalue);
        if (random_below(4) == 0)
            add_small(&m, covalue);
        if (random_below(4) == 0)
            add_stray_content(&m);
    }
    if (random_below(12) == 0) {
        add(&m, cv_op_find("co_zmissing"), 0);
        if (m.status == BFT_OK)
            m.status = BFT_NOT_FOUND;
    }
    status = cv_apply(f, m.ops, m.count);
    assert_int_equal(m.status, status);
    for (size_t i = 0; i < m.count; i++)
        assert_int_equal(status == BFT_OK ? m.want[i] : 0, m.ops[i].result);
    if (status == BFT_OK)
        now = next;
}

/* --- erasing --------------------------------------------------------------------------------- */

static void step_erase(struct covalue_fixture *f)
{
    uint32_t covalue = (uint32_t)random_below(IDS);
    bft_status status = bft_covalue_erase(
        f->store, cv_text(covalue_id(covalue)), BFT_DEFAULT, NULL);

    if (now.rows[covalue] == 0) {
        assert_int_equal(BFT_NOT_FOUND, status);
        return;
    }
    ok(status);
    model_erase(&now, covalue);
}

/* Marked, and left so. */
static void step_half_erase(struct covalue_fixture *f)
{
    uint32_t covalue = (uint32_t)random_below(IDS);
    uint64_t row = now.rows[covalue];

    if (row == 0 || bfti_covalue_hidden(f->store->shared, row))
        return;
    bfti_covalue_begin(f->store);
    ok(bfti_covalue_erase_mark(f->store, cv_text(covalue_id(covalue)), row));
    bfti_covalue_end(f->store, NULL);
    model_erase(&now, covalue);
}

/* --- comparing ------------------------------------------------------------------------------- */

static bool place_is_text(const struct covalue_fixture *f, uint32_t place,
                          uint32_t len, uint32_t number)
{
    char text[TEXT];

    return cv_place_is(f, place, len, text_of(number, text));
}

static void compare_content(struct covalue_fixture *f, uint64_t row)
{
    const struct model_session *session = &now.session[row];
    size_t n = 0;

    cv_transactions(f, row, 0, UINT64_MAX);
    for (uint64_t i = 0; i < IDX_MAX; i++)
        if (session->transaction[i] != 0) {
            const bft_transaction_row *found = cv_transaction_row(f, n++);

            assert_int_equal(i, found->idx);
            assert_true(place_is_text(f, found->value, found->value_len,
                                      session->transaction[i]));
        }
    assert_int_equal(n, cv_view_of(f)->transaction_count);
    cv_signatures(f, row, 0);
    n = 0;
    for (uint64_t i = 0; i < IDX_MAX; i++)
        if (session->signed_at[i] != 0) {
            const bft_signature_row *found = cv_signature_row(f, n++);

            assert_int_equal(i, found->idx);
            assert_true(place_is_text(f, found->signature, found->signature_len,
                                      session->signed_at[i]));
        }
    assert_int_equal(n, cv_view_of(f)->signature_count);
}

/* How many transactions a load brings of SESSION. */
static size_t segment_of(const struct model_session *session)
{
    uint64_t end = session->last_idx;
    size_t count = 0;

    for (uint64_t i = IDX_MAX; i-- != 0;)
        if (session->signed_at[i] != 0)
            end = i + 1;
    for (uint64_t i = 0; i < end && i < IDX_MAX; i++)
        count += session->transaction[i] != 0;
    return count;
}

static void compare_session(const struct covalue_fixture *f,
                            const bft_session_row *found, uint64_t row)
{
    const struct model_session *session = &now.session[row];
    bool is_signed = false;

    for (size_t i = 0; i < IDX_MAX; i++)
        is_signed |= session->signed_at[i] != 0;
    assert_int_equal(row, found->row);
    assert_int_equal(session->last_idx, found->last_idx);
    assert_true(session->bytes == found->bytes_since);
    assert_true(
        cv_place_is(f, found->id, found->id_len, session_id(session->id)));
    assert_true(place_is_text(f, found->signature, found->signature_len,
                              session->signature));
    assert_int_equal(BFT_SESSION_CONTENT | (is_signed ? BFT_SESSION_SIGNED : 0),
                     found->flags);
    assert_int_equal(segment_of(session), found->transaction_count);
}

static void compare_covalue(struct covalue_fixture *f, uint32_t covalue)
{
    size_t n = 0;

    if (now.rows[covalue] == 0) {
        assert_int_equal(BFT_NOT_FOUND,
                         cv_load(f, covalue_id(covalue), BFT_LOAD_CONTENT));
        return;
    }
    ok(cv_load(f, covalue_id(covalue), BFT_LOAD_CONTENT));
    assert_int_equal(now.rows[covalue], cv_view_of(f)->row);
    assert_true(place_is_text(f, cv_view_of(f)->header,
                              cv_view_of(f)->header_len, now.header[covalue]));
    for (uint64_t row = 1; row < now.next_session; row++)
        if (now.session[row].live && now.session[row].covalue == covalue)
            compare_session(f, cv_session_row(f, n++), row);
    assert_int_equal(n, cv_view_of(f)->session_count);
}

/* Is list entry *N covalue NUMBER's id, if it should be in the list? */
static void expect_listed(const struct covalue_fixture *f, bool listed,
                          uint32_t number, size_t *n)
{
    bool found = false;

    for (size_t i = 0; i < cv_list_of(f)->count; i++) {
        found |= cv_list_is(f, i, covalue_id(number));
        if (i != 0)
            assert_false(cv_list_is(f, i, covalue_id(number)) &&
                         cv_list_is(f, i - 1, covalue_id(number)));
    }
    assert_int_equal(listed, found);
    *n += listed;
}

static void compare_lists(struct covalue_fixture *f)
{
    size_t n = 0;

    cv_deletions(f);
    for (uint32_t i = 0; i < IDS; i++)
        expect_listed(f, now.deletion[i] == WAITING, i, &n);
    assert_int_equal(n, cv_list_of(f)->count);
    n = 0;
    cv_unsynced(f);
    for (uint32_t i = 0; i < IDS; i++) {
        bool any = false;

        for (size_t k = 0; k < PEERS; k++)
            any |= now.unsynced[i][k];
        expect_listed(f, any, i, &n);
    }
    assert_int_equal(n, cv_list_of(f)->count);
    ok(bft_covalue_ids(f->store, 0, IDS, f->buf, sizeof(f->buf), &f->used));
    assert_int_equal(now.count, cv_list_of(f)->count);
    for (uint32_t i = 0; i < IDS; i++)
        if (now.rows[i] != 0)
            assert_true(cv_list_is(f, now.rows[i] - 1, covalue_id(i)));
    assert_int_equal(now.count, bft_covalue_count(f->store));
}

static void compare(struct covalue_fixture *f)
{
    for (uint32_t i = 0; i < IDS; i++)
        compare_covalue(f, i);
    for (uint64_t row = 1; row < now.next_session; row++)
        compare_content(f, row);
    compare_lists(f);
    (void)cv_census(f);
}

static void check_space(struct covalue_fixture *f)
{
    bft_covalue_census counts;
    uint64_t live = 0;
    uint64_t content = 0;

    /* Whatever was marked is finished by opening. */
    covalue_fixture_reopen(f);
    counts = cv_census(f);
    for (uint64_t row = 1; row < now.next_session; row++) {
        live += now.session[row].live;
        for (size_t i = 0; i < IDX_MAX; i++)
            content += now.session[row].transaction[i] != 0;
    }
    assert_int_equal(live, counts.sessions);
    assert_int_equal(content, counts.transactions);
    assert_int_equal(0, counts.orphan_transactions);
    assert_int_equal(0, counts.orphan_signatures);
    assert_int_equal(0, counts.erasures_unfinished);
}

static void run(uint64_t budget)
{
    struct covalue_fixture *f = covalue_fixture_open(budget);

    memset(&now, 0, sizeof(now));
    now.next_session = 1;
    for (int i = 0; i < STEPS; i++) {
        size_t dice = random_below(100);

        if (dice < 90)
            step_transaction(f);
        else if (dice < 94)
            step_erase(f);
        else if (dice < 97)
            step_half_erase(f);
        else if (dice < 98)
            covalue_fixture_reopen(f);
        else
            compare(f);
    }
    compare(f);
    check_space(f);
    compare(f);
    covalue_fixture_close(f);
    tally(TALLY_OPERATIONS, STEPS);
}

static void the_store_does_what_arrays_do(void **state)
{
    (void)state;
    random_start();
    for (int i = 0; i < STORES; i++)
        run(0);
}

static void so_it_does_in_little_memory(void **state)
{
    (void)state;
    random_start();
    for (int i = 0; i < STORES; i++)
        run(256 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_store_does_what_arrays_do),
        cmocka_unit_test(so_it_does_in_little_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
