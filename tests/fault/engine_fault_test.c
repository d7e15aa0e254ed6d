/*
 * The engine when its surroundings fail: each I/O call in turn, each allocation
 * in turn, once or from then on.  Whatever happens, it does not crash, names a
 * status, gives all memory back, and what was acknowledged before is there when
 * the database is opened again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_map.h"
#include "tally.h"

enum {
    KEYS = 120,
    STEPS = 260, /* of the scenario */
    LARGE = 3000,
    MAYBE = 64,
};

/* What is known of a key: the seeds of all values it may have, 0 for none. */
struct known {
    uint64_t seed[MAYBE];
    unsigned count; /* besides the first, which was acknowledged */
};

static struct life {
    struct engine_fixture *f;
    bft_tree *tree;
    struct known known[KEYS];
    bft_snapshot *snapshot;  /* or NULL */
    struct known past[KEYS]; /* known when it was taken */
    uint64_t failures;       /* calls that failed */
    uint64_t nth;            /* what fails, for who wants to repeat it */
} life;

static bft_slice key_of(char text[32], unsigned k)
{
    int len = snprintf(text, 32, "a common prefix %05u", k);
    return (bft_slice){text, (size_t)len};
}

static struct model_value value_of(uint64_t seed)
{
    return (struct model_value){seed, seed % 37 == 0 ? LARGE : seed % 90};
}

static bool named(bft_status status)
{
    char text[400] = "";
    (void)bft_last_error(text, sizeof(text));
    return status < 0 && text[0] != 0 && strcmp(bft_strerror(status), "") != 0;
}

/* STATUS is what a call returned that should succeed: did it? */
static bool went_well(bft_status status)
{
    if (status == BFT_OK)
        return true;
    assert_true(named(status));
    life.failures++;
    return false;
}

/* A write of key K to SEED (0: deletion) came back with STATUS. */
static void note_write(unsigned k, uint64_t seed, bft_status status)
{
    struct known *known = &life.known[k];
    if (went_well(status)) {
        known->seed[0] = seed;
        known->count = 0;
    } else if (known->count + 1 < MAYBE) {
        known->seed[++known->count] = seed; /* refused, or visible but not
                                               certain */
    }
}

static bft_status write_one(unsigned k, uint64_t seed)
{
    char text[32];
    static uint8_t bytes[LARGE];
    struct model_value value = value_of(seed);
    if (!seed)
        return bft_delete(life.tree, key_of(text, k));
    model_value_bytes(value, 0, bytes, value.len);
    return bft_put(life.tree, key_of(text, k), (bft_slice){bytes, value.len});
}

static bool is_value(uint64_t seed, bft_status status, const void *bytes,
                     size_t len)
{
    if (!seed)
        return status == BFT_NOT_FOUND;
    return status == BFT_OK && len == value_of(seed).len &&
           model_value_is(value_of(seed), 0, bytes, len);
}

static bool is_known(const struct known *known, bft_status status,
                     const void *bytes, size_t len)
{
    for (unsigned i = 0; i <= known->count; i++)
        if (is_value(known->seed[i], status, bytes, len))
            return true;
    return false;
}

/* Key K by one of the calls that read a key. */
static bft_status read_one(unsigned k, uint8_t bytes[LARGE], size_t *len)
{
    char text[32];
    bft_answer answer = {
        .key = key_of(text, k), .buf = bytes, .buf_len = LARGE};
    void *copy;
    bft_status status;
    *len = 0;
    if (k % 3 == 0)
        return bft_get(life.tree, answer.key, bytes, LARGE, len);
    if (k % 3 == 1) {
        status = bft_get_copy(life.tree, answer.key, &copy, len);
        assert_true(*len <= LARGE);
        if (status == BFT_OK)
            memcpy(bytes, copy, *len);
        bft_free(copy);
        return status;
    }
    status = bft_multi_get(life.tree, &answer, 1);
    *len = answer.value_len;
    return status == BFT_OK ? answer.status : status;
}

/* SURE: reads may not fail. */
static void check_key(unsigned k, bool sure)
{
    struct known *known = &life.known[k];
    static uint8_t bytes[LARGE];
    size_t len;
    bft_status status = read_one(k, bytes, &len);
    if (!sure && status != BFT_OK && status != BFT_NOT_FOUND) {
        assert_true(named(status));
        life.failures++;
        return;
    }
    if (is_known(known, status, bytes, len))
        return;
    print_error("key %u: status %d, %zu bytes; acknowledged was %llu\n", k,
                (int)status, len, (unsigned long long)known->seed[0]);
    fail();
}

/* --- snapshots and transactions --------------------------------------------- */

static void snapshot_step(void)
{
    if (life.snapshot) {
        bft_snapshot_release(life.snapshot);
        life.snapshot = NULL;
    } else if (went_well(bft_snapshot_take(life.f->db, &life.snapshot))) {
        memcpy(life.past, life.known, sizeof(life.past));
    }
}

/* What the snapshot has of key K is what was. */
static void past_step(unsigned k)
{
    static uint8_t bytes[LARGE];
    char text[32];
    size_t len;
    bft_status status;
    if (!life.snapshot)
        return;
    status = bft_snapshot_get(life.snapshot, life.tree, key_of(text, k), bytes,
                              LARGE, &len);
    if (status != BFT_OK && status != BFT_NOT_FOUND)
        (void)went_well(status);
    else if (!is_known(&life.past[k], status, bytes, len))
        fail_msg("key %u of a snapshot: status %d, %zu bytes", k, (int)status,
                 len);
}

static void past_scan_step(void)
{
    bft_cursor *cursor;
    bft_slice key, value;
    unsigned count = 0;
    bft_status status;
    if (!life.snapshot ||
        !went_well(bft_snapshot_cursor(life.snapshot, life.tree, &cursor)))
        return;
    while ((status = bft_cursor_prev(cursor)) == BFT_OK && count++ < KEYS) {
        unsigned k;
        char text[32];
        expect_ok(bft_cursor_key(cursor, &key));
        memcpy(text, key.data, key.len);
        text[key.len] = 0;
        k = (unsigned)strtoul(text + strlen("a common prefix "), NULL, 10);
        assert_true(k < KEYS);
        if (went_well(bft_cursor_value(cursor, &value)))
            assert_true(is_known(&life.past[k], BFT_OK, value.data, value.len));
    }
    assert_true(count <= KEYS);
    if (status != BFT_NOT_FOUND)
        (void)went_well(status);
    bft_cursor_close(cursor);
}

static void txn_step(unsigned k, uint64_t seed)
{
    static uint8_t bytes[LARGE];
    bft_status status;
    char text[32];
    bft_txn *txn;
    size_t len;
    if (!went_well(bft_txn_begin(life.f->db, BFT_SERIALIZABLE, &txn)))
        return;
    status = bft_txn_get(txn, life.tree, key_of(text, k), bytes, LARGE, &len);
    if (status == BFT_OK || status == BFT_NOT_FOUND) {
        assert_true(is_known(&life.known[k], status, bytes, len));
        status = BFT_OK;
    }
    for (unsigned i = 1; status == BFT_OK && i < 4; i++) {
        struct model_value value = value_of(seed + i);
        model_value_bytes(value, 0, bytes, value.len);
        status = bft_txn_put(txn, life.tree, key_of(text, (k + i) % KEYS),
                             (bft_slice){bytes, value.len});
    }
    if (!went_well(status)) {
        bft_txn_abort(txn);
        return;
    }
    status = bft_txn_commit(txn, BFT_DEFAULT, NULL);
    assert_true(status != BFT_CONFLICT); /* nobody else is there */
    for (unsigned i = 1; i < 4; i++)
        note_write((k + i) % KEYS, seed + i, status);
}

/* --- the scenario ----------------------------------------------------------- */

static void batch_step(unsigned k, uint64_t seed)
{
    bft_batch *batch;
    static uint8_t bytes[LARGE];
    char text[32];
    bft_status status = bft_batch_create(life.f->db, &batch);
    if (!went_well(status))
        return;
    for (unsigned i = 0; status == BFT_OK && i < 6; i++) {
        struct model_value value = value_of(seed + i);
        model_value_bytes(value, 0, bytes, value.len);
        status = bft_batch_put(batch, life.tree, key_of(text, (k + i) % KEYS),
                               (bft_slice){bytes, value.len});
    }
    if (status == BFT_OK)
        status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
    for (unsigned i = 0; i < 6; i++)
        note_write((k + i) % KEYS, seed + i, status);
    bft_batch_free(batch);
}

static void scan_step(void)
{
    bft_cursor *cursor;
    bft_slice key, value;
    unsigned count = 0;
    bft_status status = bft_cursor_open(life.tree, &cursor);
    if (!went_well(status))
        return;
    while ((status = bft_cursor_next(cursor)) == BFT_OK && count <= KEYS) {
        assert_int_equal(BFT_OK, bft_cursor_key(cursor, &key));
        (void)went_well(bft_cursor_value(cursor, &value));
        count++;
    }
    assert_true(count <= KEYS);
    if (status != BFT_NOT_FOUND)
        (void)went_well(status);
    bft_cursor_close(cursor);
}

/* Random, and the same each time. */
static void step(unsigned i)
{
    uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    unsigned k;
    z = (z ^ z >> 31) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 29;
    k = (unsigned)(z >> 32) % KEYS;
    switch (z % 20) {
    case 0:
    case 1:
    case 2:
        note_write(k, 0, write_one(k, 0));
        break;
    case 3:
    case 4:
        batch_step(k, i * 10 + 1);
        break;
    case 5:
    case 6:
    case 7:
        check_key(k, false);
        break;
    case 8:
        scan_step();
        past_scan_step();
        break;
    case 9:
        txn_step(k, i * 10 + 1);
        break;
    default:
        note_write(k, i * 10 + 1, write_one(k, i * 10 + 1));
        break;
    }
    past_step((k + i) % KEYS);
    if (i % 40 == 10 || i % 40 == 35)
        snapshot_step();
    if (i % 60 == 59)
        (void)went_well(bft_checkpoint(life.f->db));
    if (i % 50 == 20)
        (void)went_well(bft_sync(life.f->db));
}

static bft_status open_tree(void)
{
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 512};
    bft_status status = engine_open_status(life.f);
    if (status != BFT_OK)
        return status;
    status = bft_tree_open(life.f->db, "t", &options, &life.tree);
    if (status != BFT_OK) {
        (void)bft_close(life.f->db);
        life.f->db = NULL;
    }
    return status;
}

/* Open, work, close, open again: with whatever fails. */
static void live(void)
{
    if (!went_well(open_tree()))
        return;
    for (unsigned i = 0; i < STEPS; i++) {
        step(i);
        if (i == STEPS / 2) {
            bft_snapshot_release(life.snapshot);
            life.snapshot = NULL;
            (void)went_well(bft_close(life.f->db));
            life.f->db = NULL;
            if (!went_well(open_tree()))
                return;
        }
    }
    /* What is left ends with its database. */
    (void)went_well(bft_close(life.f->db));
    life.f->db = NULL;
    bft_snapshot_release(life.snapshot);
    life.snapshot = NULL;
}

static void life_begin(void)
{
    memset(&life, 0, sizeof(life));
    life.f = engine_fixture_make(ENGINE_SIM);
    life.f->surroundings.plain_heap = true; /* each allocation may fail */
    life.f->surroundings.nodes_bytes = 1;   /* and each reading of a node */
    life.f->options.no_threads = true;
}

/* All is well again: what was acknowledged is there. */
static void life_end(void)
{
    bfti_sim_heal(life.f->vfs);
    atomic_store(&life.f->allocs_left, -1);
    expect_ok(open_tree());
    for (unsigned k = 0; k < KEYS; k++)
        check_key(k, true);
    expect_ok(bft_verify(life.f->db));
    note_write(3, 1, write_one(3, 1));
    check_key(3, true);
    atomic_store(&life.f->reported, 0);
    engine_fixture_free(life.f);
    life.f = NULL;
}

/* --- I/O ---------------------------------------------------------------------- */

static void every_call_fails(unsigned ops, enum bfti_sim_harm harm,
                             bft_status status, bool sticky)
{
    uint64_t struck = 1;
    unsigned n = 1;
    for (; struck; n++) {
        struct bfti_sim_fault fault = {.ops = ops,
                                       .nth = n,
                                       .sticky = sticky,
                                       .harm = harm,
                                       .status = status};
        life_begin();
        life.nth = n;
        bfti_sim_fail(life.f->vfs, &fault);
        live();
        struck = bfti_sim_struck(life.f->vfs);
        if (struck && sticky && harm == BFTI_SIM_REFUSE &&
            (ops & BFTI_SIM_WRITE))
            assert_true(life.failures > 0);
        life_end();
    }
    tally(TALLY_FAULTS, n - 1);
    assert_true(n > 20);
}

static void every_call_may_fail_once(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_ALL, BFTI_SIM_REFUSE, BFT_IO, false);
}

static void every_call_may_fail_from_then_on(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_ALL, BFTI_SIM_REFUSE, BFT_IO, true);
}

static void every_write_may_find_the_disk_full(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_WRITE | BFTI_SIM_CREATE | BFTI_SIM_MAKE_DIR,
                     BFTI_SIM_REFUSE, BFT_NO_SPACE, false);
    every_call_fails(BFTI_SIM_WRITE, BFTI_SIM_REFUSE, BFT_NO_SPACE, true);
}

static void every_write_may_end_early(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_WRITE, BFTI_SIM_PART, BFT_IO, false);
    every_call_fails(BFTI_SIM_WRITE, BFTI_SIM_PART, BFT_NO_SPACE, true);
}

static void every_sync_may_fail(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_SYNC | BFTI_SIM_SYNC_DIR, BFTI_SIM_REFUSE, BFT_IO,
                     false);
    every_call_fails(BFTI_SIM_SYNC, BFTI_SIM_REFUSE, BFT_IO, true);
}

static void every_read_may_fail(void **state)
{
    (void)state;
    every_call_fails(BFTI_SIM_READ, BFTI_SIM_REFUSE, BFT_IO, false);
    every_call_fails(BFTI_SIM_READ, BFTI_SIM_SHORT, BFT_IO, false);
}

/* --- memory --------------------------------------------------------------------- */

static void every_allocation_fails(bool sticky)
{
    int64_t n = 0;
    bool struck = true;
    for (; struck; n++) {
        life_begin();
        life.nth = (uint64_t)n;
        life.f->allocs_sticky = sticky;
        life.f->memory_lost = 64; /* inner nodes left while memory is out */
        atomic_store(&life.f->allocs_left, n);
        live();
        struck = atomic_load(&life.f->allocs_left) <= (sticky ? 0 : -1);
        life_end();
    }
    tally(TALLY_FAULTS, (uint64_t)(n - 1));
    assert_true(n > 20);
}

static void every_allocation_may_fail_once(void **state)
{
    (void)state;
    every_allocation_fails(false);
}

static void every_allocation_may_fail_from_then_on(void **state)
{
    (void)state;
    every_allocation_fails(true);
}

/* --- a failed sync ---------------------------------------------------------------- */

static void a_failed_sync_poisons_writes_but_not_reads(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    (void)state;
    life_begin();
    expect_ok(open_tree());
    for (unsigned k = 0; k < KEYS; k++)
        note_write(k, k + 1, write_one(k, k + 1));
    expect_ok(bft_sync(life.f->db));
    note_write(5, 77, write_one(5, 77));
    bfti_sim_fail(life.f->vfs, &fault);
    assert_true(bft_sync(life.f->db) != BFT_OK);
    assert_int_equal(1, bfti_sim_struck(life.f->vfs));
    /* It is not tried again: what the system forgot would count as synced. */
    expect_status(BFT_POISONED, bft_sync(life.f->db));
    expect_status(BFT_POISONED, write_one(1, 78));
    expect_status(BFT_POISONED, bft_checkpoint(life.f->db));
    for (unsigned k = 0; k < KEYS; k++)
        check_key(k, true);
    scan_step();
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    life_end();
}

/* Calls that sync the page file. */

static bft_status checkpoint_it(void)
{
    return bft_checkpoint(life.f->db);
}

static bft_status put_past_the_log(void)
{
    static uint8_t bytes[(1 << 20) + 1];
    char text[32];
    return bft_put(life.tree, key_of(text, KEYS),
                   (bft_slice){bytes, sizeof(bytes)});
}

static bft_status one_record(void *ctx, bft_bulk_record *record)
{
    unsigned *left = ctx;
    if (!*left)
        return BFT_NOT_FOUND;
    --*left;
    record->key = record->value = (bft_slice){"only", 4};
    return BFT_OK;
}

static bft_status load_a_tree(void)
{
    unsigned left = 1;
    bft_tree *tree;
    bft_status status = bft_tree_open(life.f->db, "loaded", NULL, &tree);
    return status == BFT_OK ? bft_bulk_load(tree, NULL, one_record, &left, NULL)
                            : status;
}

/* What a later checkpoint wrote could only be lost, again and again. */
static void after_a_failed_sync(bft_status (*call)(void), bft_status why)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                   .path = "/data",
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = why};
    uint64_t bytes;
    life_begin();
    expect_ok(open_tree());
    for (unsigned k = 0; k < KEYS; k++)
        note_write(k, k + 1, write_one(k, k + 1));
    bfti_sim_fail(life.f->vfs, &fault);
    assert_int_not_equal(BFT_OK, call());
    assert_int_equal(1, bfti_sim_struck(life.f->vfs));
    bytes = bfti_sim_used(life.f->vfs);
    expect_status(BFT_POISONED, write_one(1, 78));
    expect_status(BFT_POISONED, bft_checkpoint(life.f->db));
    assert_int_equal(bytes, bfti_sim_used(life.f->vfs));
    for (unsigned k = 0; k < KEYS; k++)
        check_key(k, true);
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    life_end();
}

static void no_checkpoint_follows_a_failed_sync_of_pages(void **state)
{
    bft_status (*const calls[])(void) = {checkpoint_it, put_past_the_log,
                                         load_a_tree};
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        after_a_failed_sync(calls[i], BFT_IO);
        after_a_failed_sync(calls[i], BFT_NO_SPACE);
    }
}

/* --- making and dropping trees ---------------------------------------------------- */

enum { DOOMED = 300, DOOMED_LARGE = 20 };

/* A database whose tree DOOMED lies on disk, with large values. */
static void doomed_begin(void)
{
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 512};
    static uint8_t bytes[LARGE];
    char text[32];
    life_begin();
    expect_ok(open_tree());
    expect_ok(bft_tree_open(life.f->db, "doomed", &options, &life.tree));
    for (unsigned k = 0; k < DOOMED; k++)
        expect_ok(bft_put(life.tree, key_of(text, k),
                          (bft_slice){bytes, k % DOOMED_LARGE ? 40 : LARGE}));
    expect_ok(bft_close(life.f->db));
    expect_ok(open_tree());
}

/* Make a tree and drop one while something fails; then all is well again, and
 * nothing is in use that nothing leads to, neither space nor a leaf. */
static bool make_and_drop(void)
{
    bft_tree *tree;
    bool well = went_well(bft_tree_open(life.f->db, "new", NULL, &tree));
    well = went_well(bft_tree_drop(life.f->db, "doomed")) && well;
    return well;
}

static void nothing_is_lost(void)
{
    bft_status status;
    bfti_sim_heal(life.f->vfs);
    atomic_store(&life.f->allocs_left, -1);
    expect_ok(bft_verify(life.f->db));
    status = bft_tree_drop(life.f->db, "doomed");
    if (status != BFT_POISONED) {
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
        status = bft_tree_drop(life.f->db, "new");
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
        expect_ok(bft_tree_drop(life.f->db, "t"));
        expect_ok(bft_verify(life.f->db));
        assert_int_equal(0, engine_stats(life.f).leaves);
    }
    (void)bft_close(life.f->db);
    life.f->db = NULL;
    memset(life.known, 0, sizeof(life.known));
    life_end();
}

static void a_drop_without_memory_loses_nothing(void **state)
{
    bool well = false;
    int64_t n = 0;
    (void)state;
    for (; !well; n++) {
        doomed_begin();
        life.nth = (uint64_t)n;
        atomic_store(&life.f->allocs_left, n);
        well = make_and_drop() && atomic_load(&life.f->allocs_left) >= 0;
        nothing_is_lost();
    }
    tally(TALLY_FAULTS, (uint64_t)(n - 1));
    assert_true(n > 8);
}

static void a_drop_that_cannot_read_loses_nothing(void **state)
{
    uint64_t struck = 1;
    unsigned n = 1;
    (void)state;
    for (; struck; n++) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                       .nth = n,
                                       .sticky = n % 2,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = BFT_IO};
        doomed_begin();
        life.nth = n;
        bfti_sim_fail(life.f->vfs, &fault);
        (void)make_and_drop();
        struck = bfti_sim_struck(life.f->vfs);
        nothing_is_lost();
    }
    tally(TALLY_FAULTS, n - 1);
    assert_true(n > 8);
}

static int say_where(void **state)
{
    (void)state;
    if (life.f)
        print_error("with failure %llu\n", (unsigned long long)life.nth);
    return 0;
}

#define fault_test(name) cmocka_unit_test_teardown(name, say_where)

int main(void)
{
    const struct CMUnitTest tests[] = {
        fault_test(every_call_may_fail_once),
        fault_test(every_call_may_fail_from_then_on),
        fault_test(every_write_may_find_the_disk_full),
        fault_test(every_write_may_end_early),
        fault_test(every_sync_may_fail),
        fault_test(every_read_may_fail),
        fault_test(every_allocation_may_fail_once),
        fault_test(every_allocation_may_fail_from_then_on),
        fault_test(a_failed_sync_poisons_writes_but_not_reads),
        fault_test(no_checkpoint_follows_a_failed_sync_of_pages),
        fault_test(a_drop_without_memory_loses_nothing),
        fault_test(a_drop_that_cannot_read_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
