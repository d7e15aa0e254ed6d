/*
 * The covalue store on a disk that refuses: whatever call of the disk fails, a
 * transaction happened or did not, and an erasure looks finished or not begun
 * and can be finished once the disk is well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bftree_stores.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"

enum { BIG = 1500, AT_ONCE = 100, BUF = 1 << 16, NTH_MAX = 400 };

struct disk {
    struct bfti_vfs *sim;
    bft_db *db;
    bft_covalue_store *store;
    uint64_t buf[BUF / 8];
};

/* With the text that says why not. */
static void is_ok(bft_status status, const char *call)
{
    char said[200];

    if (status == BFT_OK)
        return;
    (void)bft_last_error(said, sizeof(said));
    fail_msg("%s: %s", call, said);
}
#define ok(call) is_ok((call), #call)

static bft_slice slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void disk_open(struct disk *d)
{
    const struct bfti_surroundings around = {.env = bfti_env_system(),
                                             .vfs = d->sim};
    const bft_options options = {.size = sizeof(options),
                                 .memory_bytes = 256 << 10,
                                 .log_bytes = 256 << 10,
                                 .log_segment_bytes = 64 << 10,
                                 .no_threads = true,
                                 .internal = &around};

    ok(bft_open("/db", &options, &d->db));
    ok(bft_covalue_open(d->db, NULL, &d->store));
}

/* co_z1: a session that is kept, and one of BIG transactions. */
static struct disk *disk_create(void)
{
    struct disk *d = calloc(1, sizeof(*d));
    bft_covalue_op ops[AT_ONCE] = {
        {.kind = BFT_OP_COVALUE, .id = {"co_z1", 5}, .value = {"{}", 2}},
        {.kind = BFT_OP_SESSION,
         .flags = BFT_OP_LATEST,
         .idx = 1,
         .id = {"d$", 2},
         .value = {"sig", 3}},
        {.kind = BFT_OP_SESSION,
         .flags = BFT_OP_LATEST,
         .idx = BIG,
         .id = {"s", 1},
         .value = {"sig", 3}},
    };

    assert_non_null(d);
    d->sim = bfti_vfs_sim_create(bfti_env_system(), 1);
    assert_non_null(d->sim);
    disk_open(d);
    ok(bft_covalue_apply(d->store, ops, 3, BFT_SYNC, NULL));
    for (uint64_t i = 0; i < BIG; i += AT_ONCE) {
        for (uint64_t k = 0; k < AT_ONCE; k++)
            ops[k] = (bft_covalue_op){.kind = BFT_OP_TRANSACTION,
                                      .row = 2,
                                      .idx = i + k,
                                      .value = {"value", 5}};
        ok(bft_covalue_apply(d->store, ops, AT_ONCE, BFT_BUFFERED, NULL));
    }
    ok(bft_sync(d->db));
    return d;
}

static void disk_free(struct disk *d)
{
    bft_covalue_close(d->store);
    ok(bft_close(d->db));
    bfti_vfs_sim_destroy(d->sim);
    free(d);
}

/* Sessions and transactions of co_z1: 2 and all of them, or 1 and none. */
static bool looks_erased(struct disk *d)
{
    const bft_covalue_view *view = (const void *)d->buf;
    uint32_t sessions;
    size_t used;

    ok(bft_covalue_load(d->store, slice("co_z1"), BFT_LOAD_KNOWN, d->buf, BUF,
                        &used));
    sessions = view->session_count;
    ok(bft_covalue_transactions(d->store, 2, 0, 500, d->buf, BUF, &used));
    assert_in_range(sessions, 1, 2);
    assert_int_equal(sessions == 2 ? 501 : 0, view->transaction_count);
    return sessions == 1;
}

static void check_finished(struct disk *d)
{
    bft_covalue_census census = {.size = sizeof(census)};

    assert_true(looks_erased(d));
    ok(bft_covalue_check(d->store, &census));
    assert_int_equal(1, census.sessions);
    assert_int_equal(0, census.transactions);
    assert_int_equal(0, census.erasures_unfinished);
    assert_int_equal(1, census.deletions_done);
    ok(bft_verify(d->db));
}

/* Close, whatever the disk says, and open again on a disk that is well. */
static void disk_reopen(struct disk *d)
{
    bft_covalue_close(d->store);
    (void)!bft_close(d->db);
    bfti_sim_heal(d->sim);
    disk_open(d);
}

/* Fail the NTH call of OPS during an erasure; false: there were fewer. */
static bool erase_with_fault(unsigned ops, uint64_t nth, bft_status status)
{
    struct disk *d = disk_create();
    const struct bfti_sim_fault fault = {.ops = ops,
                                         .nth = nth,
                                         .sticky = true,
                                         .harm = BFTI_SIM_REFUSE,
                                         .status = status};
    uint64_t struck = bfti_sim_struck(d->sim);
    bft_status said;
    bool erased;

    bfti_sim_fail(d->sim, &fault);
    said = bft_covalue_erase(d->store, slice("co_z1"), BFT_SYNC, NULL);
    struck = bfti_sim_struck(d->sim) - struck;
    if (said == BFT_OK)
        assert_true(looks_erased(d));
    if (said != BFT_OK)
        assert_true(struck > 0);
    /* What readers saw stays so, in this process and the next. */
    erased = looks_erased(d);
    disk_reopen(d);
    assert_true(looks_erased(d) || !erased || said != BFT_OK);
    ok(bft_covalue_erase(d->store, slice("co_z1"), BFT_SYNC, NULL));
    check_finished(d);
    disk_free(d);
    return struck > 0;
}

static void erase_with_each_fault(unsigned ops, bft_status status)
{
    uint64_t nth = 1;

    while (erase_with_fault(ops, nth, status)) {
        nth += 1 + nth / 8;
        assert_true(nth < NTH_MAX);
    }
    assert_true(nth > 1);
}

static void an_erasure_survives_a_full_disk(void **state)
{
    (void)state;
    erase_with_each_fault(BFTI_SIM_WRITE, BFT_NO_SPACE);
}

static void an_erasure_survives_a_refused_sync(void **state)
{
    (void)state;
    erase_with_each_fault(BFTI_SIM_SYNC, BFT_IO);
}

/* One without an LSN left nothing; one with an LSN is there, with its row id; and
 * the store goes on. */
static void a_transaction_on_a_full_disk_is_whole_or_nothing(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth < 4; nth++) {
        struct disk *d = disk_create();
        const struct bfti_sim_fault fault = {.ops = BFTI_SIM_WRITE,
                                             .nth = nth,
                                             .sticky = true,
                                             .harm = BFTI_SIM_REFUSE,
                                             .status = BFT_NO_SPACE};
        bft_covalue_op op = {.kind = BFT_OP_COVALUE, .value = {"{}", 2}};
        bft_covalue_applied applied;
        bft_status status = BFT_OK;
        uint64_t made = 1;
        uint64_t refused = 0;
        uint64_t row;

        bfti_sim_fail(d->sim, &fault);
        for (uint64_t i = 2; i < 50; i++) {
            char id[16];

            snprintf(id, sizeof(id), "co_z%llu", (unsigned long long)i);
            op.id = slice(id);
            status =
                bft_covalue_apply(d->store, &op, 1, BFT_BUFFERED, &applied);
            if (applied.lsn == 0) {
                assert_int_equal(0, op.result);
                assert_int_equal(BFT_NOT_FOUND,
                                 bft_covalue_row(d->store, op.id, &row));
                break;
            }
            /* There, whatever the disk said. */
            made++;
            refused += status != BFT_OK;
            assert_int_equal(made, op.result);
            ok(bft_covalue_row(d->store, op.id, &row));
            assert_int_equal(made, row);
        }
        assert_true(status != BFT_OK);
        assert_int_equal(made, bft_covalue_count(d->store));
        disk_reopen(d);
        assert_true(bft_covalue_count(d->store) <= made);
        assert_true(bft_covalue_count(d->store) >= made - refused);
        made = bft_covalue_count(d->store);
        op.id = slice("co_znew");
        ok(bft_covalue_apply(d->store, &op, 1, BFT_SYNC, NULL));
        assert_int_equal(made + 1, op.result);
        disk_free(d);
    }
}

/* From then on all OPS fail. */
static void fail_from_now(struct disk *d, unsigned ops, bft_status status)
{
    const struct bfti_sim_fault fault = {.ops = ops,
                                         .nth = 1,
                                         .sticky = true,
                                         .harm = BFTI_SIM_REFUSE,
                                         .status = status};

    bfti_sim_fail(d->sim, &fault);
}

/* STATUS is as expected, with a text that names the database's file. */
static void is_told(bft_status expected, bft_status status)
{
    char said[200];

    (void)bft_last_error(said, sizeof(said));
    assert_int_equal(expected, status);
    if (strstr(said, "/db") == NULL)
        fail_msg("\"%s\" does not say where", said);
}

static void writes_tell_what_the_disk_said(void **state)
{
    static const struct {
        unsigned ops;
        bft_status status, told;
        bft_durability durability;
    } cases[] = {
        {BFTI_SIM_WRITE, BFT_NO_SPACE, BFT_NO_SPACE, BFT_BUFFERED},
        {BFTI_SIM_WRITE, BFT_IO, BFT_IO, BFT_BUFFERED},
        {BFTI_SIM_SYNC, BFT_IO, BFT_POISONED, BFT_SYNC},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct disk *d = disk_create();
        bft_covalue_op op = {
            .kind = BFT_OP_UNSYNCED, .id = {"co_z9", 5}, .value = {"peer", 4}};

        fail_from_now(d, cases[i].ops, cases[i].status);
        /* The one whose sync fails is told, and those after it. */
        if (cases[i].told == BFT_POISONED)
            is_told(BFT_IO,
                    bft_covalue_apply(d->store, &op, 1, BFT_SYNC, NULL));
        /* provokes: bft_covalue_apply BFT_NO_SPACE, bft_covalue_apply BFT_IO,
         *           bft_covalue_apply BFT_POISONED */
        is_told(cases[i].told,
                bft_covalue_apply(d->store, &op, 1, cases[i].durability, NULL));
        /* provokes: bft_covalue_erase BFT_NO_SPACE, bft_covalue_erase BFT_IO,
         *           bft_covalue_erase BFT_POISONED */
        is_told(cases[i].told, bft_covalue_erase(d->store, slice("co_z1"),
                                                 cases[i].durability, NULL));
        disk_reopen(d);
        ok(bft_covalue_erase(d->store, slice("co_z1"), BFT_SYNC, NULL));
        check_finished(d);
        disk_free(d);
    }
}

/* One bit of each grain behind the superblocks; done twice it is as it was. */
static void flip_all(struct disk *d)
{
    uint64_t bytes;

    ok(bfti_sim_size(d->sim, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = 8192 + 40; at < bytes; at += 512)
        ok(bfti_sim_flip(d->sim, "/db/data", at, 0x10));
}

static void loads_tell_what_the_disk_said(void **state)
{
    struct disk *d = disk_create();
    size_t used;

    (void)state;
    ok(bft_checkpoint(d->db));
    disk_reopen(d);
    flip_all(d);
    is_told(BFT_CORRUPT,
            bft_covalue_load(d->store, slice("co_z1"), BFT_LOAD_CONTENT, d->buf,
                             BUF, &used));
    assert_int_equal(0, used);
    flip_all(d);
    fail_from_now(d, BFTI_SIM_READ, BFT_IO);
    is_told(BFT_IO, bft_covalue_load(d->store, slice("co_z1"), BFT_LOAD_CONTENT,
                                     d->buf, BUF, &used));
    assert_int_equal(0, used);
    bfti_sim_heal(d->sim);
    ok(bft_covalue_load(d->store, slice("co_z1"), BFT_LOAD_KNOWN, d->buf, BUF,
                        &used));
    disk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_erasure_survives_a_full_disk),
        cmocka_unit_test(an_erasure_survives_a_refused_sync),
        cmocka_unit_test(a_transaction_on_a_full_disk_is_whole_or_nothing),
        cmocka_unit_test(writes_tell_what_the_disk_said),
        cmocka_unit_test(loads_tell_what_the_disk_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
