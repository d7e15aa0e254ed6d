/*
 * The covalue store given nothing, or what is closed, or what a forked child
 * inherited: a status with a text, and what it holds is as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bftree_stores.h"
#include "engine_fixture.h"

static const bft_slice id = {"co_z1", 5}, none = {NULL, 5};

static bft_covalue_op make_op(void)
{
    return (bft_covalue_op){
        .kind = BFT_OP_COVALUE, .id = id, .value = {"{}", 2}};
}

/* Calls are wrong in no other way than that the store is. */
struct calls {
    bft_status expected;
    unsigned wrong; /* so many did not return it */
};

static void note(struct calls *c, bft_status status, const char *what)
{
    if (status == c->expected)
        return;
    print_error("%s: %d, not %d\n", what, (int)status, (int)c->expected);
    c->wrong++;
}
#define NOTE(call) note(c, call, #call)

/* every call below provokes: BFT_INVALID BFT_FORKED */
static void call_writes(struct calls *c, bft_covalue_store *store)
{
    bft_covalue_lock_result result;
    bft_covalue_applied applied;
    bft_covalue_op op = make_op();
    uint64_t offset;
    NOTE(bft_covalue_apply(store, &op, 1, BFT_DEFAULT, &applied));
    NOTE(bft_covalue_apply_packed(store, "", 0, BFT_DEFAULT, NULL, 0, NULL));
    NOTE(bft_covalue_erase(store, id, BFT_DEFAULT, NULL));
    NOTE(bft_covalue_lock_acquire(store, id, id, 1, 1, 1, &result, &offset));
    NOTE(bft_covalue_lock_renew(store, id, id, 1));
    NOTE(bft_covalue_lock_release(store, id, id, 1));
}

/* every call below provokes: BFT_INVALID BFT_FORKED */
static void call_reads(struct calls *c, bft_covalue_store *store)
{
    bft_covalue_census census = {.size = sizeof(census)};
    bft_covalue_lock lock;
    uint64_t buf[64], row;
    size_t used;
    NOTE(bft_covalue_row(store, id, &row));
    NOTE(bft_covalue_load(store, id, BFT_LOAD_ROWS, buf, 512, &used));
    NOTE(bft_covalue_sessions(store, 1, BFT_LOAD_ROWS, buf, 512, &used));
    NOTE(bft_covalue_known(store, 1, 2, buf, 512, &used));
    NOTE(bft_covalue_session(store, 1, id, buf, 512, &used));
    NOTE(bft_covalue_transactions(store, 1, 0, 1, buf, 512, &used));
    NOTE(bft_covalue_signatures(store, 1, 0, buf, 512, &used));
    NOTE(bft_covalue_ids(store, 0, 9, buf, 512, &used));
    NOTE(bft_covalue_deletions(store, id, buf, 512, &used));
    NOTE(bft_covalue_unsynced(store, id, buf, 512, &used));
    NOTE(bft_covalue_lock_get(store, id, &lock));
    NOTE(bft_covalue_check(store, &census));
    if (bft_covalue_count(store) != 0 || bft_covalue_changes(store) != 0)
        c->wrong++;
}

static unsigned wrong_calls(bft_covalue_store *store, bft_status expected)
{
    struct calls c = {expected, 0};
    call_writes(&c, store);
    call_reads(&c, store);
    return c.wrong;
}

/* One CoValue in it. */
static bft_covalue_store *open_store(struct engine_fixture *f)
{
    bft_covalue_op op = make_op();
    bft_covalue_store *store;
    expect_ok(bft_covalue_open(f->db, NULL, &store));
    expect_ok(bft_covalue_apply(store, &op, 1, BFT_DEFAULT, NULL));
    return store;
}

static void a_handle_that_is_none_is_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_covalue_store *store = open_store(f), *other;

    (void)state;
    assert_int_equal(0, wrong_calls(NULL, BFT_INVALID));
    bft_covalue_close(NULL);
    expect_status(BFT_INVALID, bft_covalue_open(NULL, NULL, &other));
    assert_null(other);
    expect_status(BFT_INVALID, bft_covalue_open(f->db, NULL, NULL));
    bft_covalue_close(store);
    assert_int_equal(0, wrong_calls(store, BFT_INVALID));
    bft_covalue_close(store);
    /* Closed under it: what handles share is gone. */
    store = open_store(f);
    engine_close(f);
    assert_int_equal(0, wrong_calls(store, BFT_INVALID));
    bft_covalue_close(store);
    engine_fixture_free(f);
}

static void null_arguments_are_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_covalue_store *store = open_store(f);
    bft_covalue_op op = make_op();
    bft_covalue_lock_result result;
    uint64_t buf[64], row, lsn;
    size_t used;

    (void)state;
    expect_status(BFT_INVALID,
                  bft_covalue_apply(store, NULL, 1, BFT_DEFAULT, NULL));
    op.id = none;
    expect_status(BFT_INVALID,
                  bft_covalue_apply(store, &op, 1, BFT_DEFAULT, NULL));
    op = make_op();
    op.value = none;
    expect_status(BFT_INVALID,
                  bft_covalue_apply(store, &op, 1, BFT_DEFAULT, NULL));
    op = make_op();
    expect_status(BFT_INVALID,
                  bft_covalue_apply(store, &op, 1, (bft_durability)9, NULL));
    expect_status(BFT_INVALID, bft_covalue_apply_packed(
                                   store, NULL, 9, BFT_DEFAULT, NULL, 0, NULL));
    expect_status(BFT_INVALID, bft_covalue_apply_packed(
                                   store, "", 0, BFT_DEFAULT, NULL, 3, NULL));
    expect_status(BFT_INVALID,
                  bft_covalue_erase(store, none, BFT_DEFAULT, NULL));
    expect_status(BFT_INVALID, bft_covalue_row(store, none, &row));
    expect_status(BFT_INVALID, bft_covalue_row(store, id, NULL));
    expect_status(BFT_INVALID, bft_covalue_load(store, none, BFT_LOAD_ROWS, buf,
                                                512, &used));
    expect_status(BFT_INVALID,
                  bft_covalue_load(store, id, BFT_LOAD_ROWS, buf, 512, NULL));
    expect_status(BFT_INVALID,
                  bft_covalue_load(store, id, BFT_LOAD_ROWS, NULL, 512, &used));
    expect_status(BFT_INVALID, bft_covalue_ids(store, 0, 9, NULL, 512, &used));
    expect_status(BFT_INVALID, bft_covalue_ids(store, 0, 9, buf, 512, NULL));
    expect_status(BFT_INVALID,
                  bft_covalue_deletions(store, none, buf, 512, &used));
    expect_status(BFT_INVALID,
                  bft_covalue_unsynced(store, none, buf, 512, &used));
    expect_status(BFT_INVALID, bft_covalue_unsynced(store, id, buf, 512, NULL));
    expect_status(BFT_INVALID, bft_covalue_lock_get(store, id, NULL));
    expect_status(BFT_INVALID, bft_covalue_lock_get(store, none, NULL));
    expect_status(BFT_INVALID, bft_covalue_lock_acquire(store, none, id, 1, 1,
                                                        1, &result, &lsn));
    expect_status(BFT_INVALID,
                  bft_covalue_lock_acquire(store, id, id, 1, 1, 1, NULL, NULL));
    expect_status(BFT_INVALID, bft_covalue_lock_renew(store, id, none, 1));
    expect_status(BFT_INVALID, bft_covalue_check(store, NULL));
    assert_int_equal(1, bft_covalue_count(store));
    bft_covalue_close(store);
    engine_fixture_free(f);
}

/* The last failure's text has WORDS in it. */
static void expect_text(const char *words)
{
    char text[512];
    (void)bft_last_error(text, sizeof(text));
    if (!strstr(text, words))
        fail_msg("\"%s\" does not name \"%s\"", text, words);
}

static void what_is_not_acceptable_is_named(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_covalue_store *store = open_store(f), *other;
    bft_covalue_options options = {.size = 3};
    bft_covalue_census census = {.size = 5};
    uint64_t buf[64];
    size_t used;

    (void)state;
    expect_status(BFT_INVALID, bft_covalue_open(f->db, &options, &other));
    expect_text("option size is 3");
    options = (bft_covalue_options){sizeof(options), (bft_durability)9};
    expect_status(BFT_INVALID, bft_covalue_open(f->db, &options, &other));
    expect_text("option durability is 9");
    expect_status(BFT_INVALID,
                  bft_covalue_apply(store, NULL, 1, BFT_DEFAULT, NULL));
    expect_text("ops are NULL");
    expect_status(BFT_INVALID, bft_covalue_check(store, &census));
    expect_text("census is 5");
    expect_status(BFT_INVALID, bft_covalue_load(store, id, (bft_covalue_what)3,
                                                buf, sizeof(buf), &used));
    expect_text("load is 3");
    expect_status(BFT_INVALID,
                  bft_covalue_sessions(store, 1, (bft_covalue_what)-1, buf,
                                       sizeof(buf), &used));
    assert_int_equal(0, used);
    bft_covalue_close(store);
    engine_fixture_free(f);
}

static void a_forked_child_is_refused(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    bft_covalue_store *store;
    int status;
    pid_t child;

    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    store = open_store(f);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        unsigned wrong = wrong_calls(store, BFT_FORKED);
        bft_covalue_close(store);
        _exit(wrong != 0);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    assert_int_equal(0, WEXITSTATUS(status));
    assert_int_equal(1, bft_covalue_count(store));
    bft_covalue_close(store);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handle_that_is_none_is_refused),
        cmocka_unit_test(null_arguments_are_refused),
        cmocka_unit_test(what_is_not_acceptable_is_named),
        cmocka_unit_test(a_forked_child_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
