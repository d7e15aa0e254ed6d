#include "covalue_checks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "covalue_fixture.h"

#define ok(call) assert_int_equal(BFT_OK, (call))

/* Its second transaction is there already, so all of it is refused. */
const char *a_failed_transaction_changes_nothing(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;
    bft_covalue_op ops[] = {
        cv_op_covalue("co_z2", "{}"),
        cv_op_with(cv_op_session(0, "s", 2, "sig", 9), BFT_OP_LATEST),
        cv_op_transaction(1, 5, "new"),
        cv_op_transaction(1, 0, "there"),
    };
    bft_covalue_op after = cv_op_find("co_z2");

    cv_make_covalue(f, "co_z1", "s", 2);
    assert_int_equal(BFT_EXISTS, cv_apply(f, ops, 4));
    if (cv_apply(f, &after, 1) != BFT_NOT_FOUND)
        said = "its CoValue is there";
    else if (cv_transactions(f, 1, 0, 9) != 2)
        said = "its transaction is there";
    covalue_fixture_drop(f);
    return said;
}

const char *a_sync_commit_is_durable_on_return(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;

    for (int i = 0; i < 3 && said == NULL; i++) {
        bft_covalue_op op = cv_op_transaction(1, (uint64_t)i, "tx");
        bft_covalue_applied applied;

        ok(bft_covalue_apply(f->store, &op, 1, BFT_SYNC, &applied));
        if (bft_durable_lsn(f->db) < applied.lsn)
            said = "its LSN is not durable";
    }
    covalue_fixture_drop(f);
    return said;
}

const char *an_erasure_leaves_no_content(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;
    uint64_t gone = cv_make_covalue(f, "co_z1", "s", 20);
    bft_covalue_op kept =
        cv_op_session(1, "s_session_d$", 1, "tombstone", BFT_COVALUE_NONE);
    bft_covalue_census counts;

    ok(cv_apply(f, &kept, 1));
    cv_apply_one(f, cv_op_transaction(kept.result, 0, "delete"));
    cv_apply_one(f, cv_op_signature(gone, 9, "sig"));
    cv_make_covalue(f, "co_z2", "s", 20);
    ok(bft_covalue_erase(f->store, cv_text("co_z1"), BFT_DEFAULT, NULL));
    counts = cv_census(f);
    if (counts.transactions != 21 || counts.orphan_transactions != 0)
        said = "its transactions are there";
    else if (counts.signatures != 0)
        said = "its signatures are there";
    else if (cv_transactions(f, gone, 0, 100) != 0)
        said = "its transactions can be read";
    covalue_fixture_drop(f);
    return said;
}

const char *bytes_since_last_signature_is_kept(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;
    uint64_t covalue = cv_apply_one(f, cv_op_covalue("co_z1", "{}"));

    /* As cojson adds them up, from what it reads each time. */
    for (uint64_t sum = 60, i = 1; i < 10 && said == NULL; i++, sum += 60) {
        cv_apply_one(f, cv_op_session(covalue, "s", i, "sig", sum));
        if (i == 5)
            covalue_fixture_reopen(f);
        ok(bft_covalue_session(f->store, covalue, cv_text("s"), f->buf,
                               sizeof(f->buf), &f->used));
        if (cv_session_row(f, 0)->bytes_since != sum)
            said = "the count is another";
    }
    covalue_fixture_drop(f);
    return said;
}

const char *an_existing_header_is_kept(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;
    uint64_t row = cv_apply_one(f, cv_op_covalue("co_z1", "{\"first\":1}"));

    if (cv_apply_one(f, cv_op_covalue("co_z1", "{\"second\":2}")) != row)
        said = "the row is another";
    ok(cv_load(f, "co_z1", BFT_LOAD_ROWS));
    if (!cv_place_is(f, cv_view_of(f)->header, cv_view_of(f)->header_len,
                     "{\"first\":1}"))
        said = "the header is another";
    covalue_fixture_drop(f);
    return said;
}

const char *a_finished_deletion_stays_finished(void)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    const char *said = NULL;

    cv_make_covalue(f, "co_z1", "s", 3);
    cv_apply_one(f, cv_op_deleted("co_z1"));
    assert_int_equal(1, cv_deletions(f));
    ok(bft_covalue_erase(f->store, cv_text("co_z1"), BFT_DEFAULT, NULL));
    assert_int_equal(0, cv_deletions(f));
    cv_apply_one(f, cv_op_deleted("co_z1"));
    if (cv_deletions(f) != 0)
        said = "it is queued again";
    covalue_fixture_drop(f);
    return said;
}
