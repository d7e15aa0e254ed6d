/*
 * The records of the covalue store, format 1, byte for byte: what an earlier
 * version wrote stays readable, and what this one writes is the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "covalue_fixture.h"

#define ok(call) assert_int_equal(BFT_OK, (call))

enum { HEX_MAX = 128 };

/* By tree, then by key; in hexadecimal. */
static const struct record {
    const char *tree, *key, *value;
} records[] = {
    /* format */
    {"covalues", "00", "01"},
    /* id: row, header */
    {"covalues", "01636f5f7a31", "017b7d"},
    {"covalues", "01636f5f7a32", "025b5d"},
    /* row: id */
    {"covalues", "0201", "636f5f7a31"},
    {"covalues", "0202", "636f5f7a32"},
    /* next row, for rows 1 and 4 were erased */
    {"sessions", "00", "05"},
    /* CoValue, id: flags, row, count, bytes if any, signature */
    {"sessions", "010162", "00030173746f"},
    {"sessions", "01016424", "0302f0f900007074"},
    /* row: CoValue, kept */
    {"sessions", "0202", "0101"},
    {"sessions", "0203", "0100"},
    /* session, index: transaction */
    {"transactions", "0200", "7b7d"},
    {"transactions", "02f101", "5b5d"},
    {"transactions", "03fa011170", ""},
    {"transactions", "03fffffffffffffffffe", "31"},
    /* session, index: signature */
    {"signatures", "0200", "736967"},
    /* id, peer */
    {"unsynced", "6300ff0000703100", ""},
    {"unsynced", "636f5f7a3100007032", ""},
    /* waiting; done */
    {"deletions", "01636f5f7a31", ""},
    {"deletions", "02636f5f7a32", ""},
    /* key: acquired, released, offset, holder */
    {"locks", "006c6f636b2370",
     "0100000000000000feffffffffffffff030000000000000068"},
};
enum { RECORDS = sizeof(records) / sizeof(records[0]) };

/* --- hexadecimal ---------------------------------------------------------------------- */

static void to_hex(bft_slice bytes, char *hex)
{
    assert_true(2 * bytes.len < HEX_MAX);
    hex[0] = 0;
    for (size_t i = 0; i < bytes.len; i++)
        snprintf(hex + 2 * i, 3, "%02x", ((const uint8_t *)bytes.data)[i]);
}

static bft_slice from_hex(const char *hex, uint8_t *bytes)
{
    size_t len = strlen(hex) / 2;

    for (size_t i = 0; i < len; i++) {
        unsigned byte;

        assert_int_equal(1, sscanf(hex + 2 * i, "%2x", &byte));
        bytes[i] = (uint8_t)byte;
    }
    return (bft_slice){bytes, len};
}

/* --- writing ----------------------------------------------------------------------------- */

static void write_rows(struct covalue_fixture *f)
{
    static const char peer[] = "p1";
    bft_covalue_op ops[] = {
        cv_op_covalue("co_z1", "{}"),
        cv_op_covalue("co_z2", "[]"),
        cv_op_session(2, "s", 1, "sig", 0),
        cv_op_session(1, "d$", 240, "pt", 2288),
        cv_op_signature(2, 0, "sig"),
        cv_op_session(1, "b", 1, "sto", BFT_COVALUE_NONE),
        cv_op_session(2, "t", 1, "sig", 0),
        cv_op_transaction(1, 0, "gone"),
        cv_op_transaction(2, 0, "{}"),
        cv_op_transaction(2, 241, "[]"),
        cv_op_transaction(3, 70000, ""),
        cv_op_transaction(3, UINT64_MAX - 1, "1"),
        cv_op_peer("co_z1", "p2", false),
        {.kind = BFT_OP_UNSYNCED, .id = {"c", 2}, .value = {peer, 3}},
        cv_op_deleted("co_z1"),
        cv_op_deleted("co_z2"),
        {.kind = BFT_OP_LOCK,
         .id = cv_text("lock#p"),
         .value = cv_text("h"),
         .row = 1,
         .bytes = UINT64_MAX - 1,
         .idx = 3},
    };

    ok(cv_apply(f, ops, sizeof(ops) / sizeof(ops[0])));
    ok(bft_covalue_erase(f->store, cv_text("co_z2"), BFT_DEFAULT, NULL));
}

/* The records of NAME, from AT on; where they end. */
static size_t check_tree(struct covalue_fixture *f, const char *name, size_t at)
{
    bft_tree *tree;
    bft_cursor *cursor;
    bft_status status;

    ok(bft_tree_open(f->db, name, NULL, &tree));
    ok(bft_cursor_open(tree, &cursor));
    for (status = bft_cursor_first(cursor); status == BFT_OK;
         status = bft_cursor_next(cursor), at++) {
        bft_slice key, value;
        char hex[HEX_MAX];

        assert_true(at < RECORDS);
        ok(bft_cursor_key(cursor, &key));
        ok(bft_cursor_value(cursor, &value));
        assert_string_equal(records[at].tree, name);
        to_hex(key, hex);
        assert_string_equal(records[at].key, hex);
        to_hex(value, hex);
        assert_string_equal(records[at].value, hex);
    }
    assert_int_equal(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    return at;
}

static void rows_are_written_as_they_were(void **state)
{
    static const char *const names[] = {
        "covalues", "sessions",  "transactions", "signatures",
        "unsynced", "deletions", "locks"};
    struct covalue_fixture *f = covalue_fixture_open(0);
    size_t at = 0;

    (void)state;
    write_rows(f);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        at = check_tree(f, names[i], at);
    assert_int_equal(RECORDS, at);
    covalue_fixture_close(f);
}

/* --- reading ------------------------------------------------------------------------------ */

static void check_rows(struct covalue_fixture *f)
{
    const bft_session_row *row;
    bft_covalue_lock lock;

    ok(cv_load(f, "co_z1", BFT_LOAD_CONTENT));
    row = cv_session_row(f, 0);
    assert_int_equal(2, cv_view_of(f)->session_count);
    assert_int_equal(2, row->row);
    assert_int_equal(240, row->last_idx);
    assert_int_equal(2288, row->bytes_since);
    assert_true(cv_place_is(f, row->id, row->id_len, "d$"));
    assert_true(cv_place_is(f, row->signature, row->signature_len, "pt"));
    assert_int_equal(BFT_SESSION_SIGNED | BFT_SESSION_CONTENT, row->flags);
    assert_int_equal(3, cv_session_row(f, 1)->row);
    assert_true(cv_session_row(f, 1)->bytes_since == BFT_COVALUE_NONE);
    assert_int_equal(2, cv_transactions(f, 2, 0, 241));
    assert_int_equal(2, cv_transactions(f, 3, 70000, UINT64_MAX));
    assert_int_equal(1, cv_signatures(f, 2, 0));
    assert_int_equal(2, cv_unsynced(f));
    assert_int_equal(1, cv_deletions(f));
    assert_true(cv_list_is(f, 0, "co_z1"));
    ok(bft_covalue_lock_get(f->store, cv_text("lock#p"), &lock));
    assert_int_equal(1, lock.acquired);
    assert_int_equal(-2, lock.released);
    assert_int_equal(3, lock.offset);
    assert_true(cv_is_text(lock.holder, lock.holder_len, "h"));
    assert_int_equal(5, cv_apply_one(f, cv_op_session(2, "n", 1, "sig", 0)));
}

static void old_records_are_read(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    uint8_t key[HEX_MAX];
    uint8_t value[HEX_MAX];

    (void)state;
    for (size_t i = 0; i < RECORDS; i++) {
        bft_tree *tree;

        ok(bft_tree_open(f->db, records[i].tree, NULL, &tree));
        ok(bft_put(tree, from_hex(records[i].key, key),
                   from_hex(records[i].value, value)));
    }
    covalue_fixture_reopen(f);
    check_rows(f);
    covalue_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_written_as_they_were),
        cmocka_unit_test(old_records_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
