/*
 * What the header says that a call may answer, it answers when that happens, and
 * says where: handles that are not to be used, disks that refuse, memory that
 * runs out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "every_call.h"

enum {
    MANY = 500, /* keys that take memory to be sorted */
    LARGE = 100000,
    WRITES_MAX = 100000,
};

static const bft_slice KEY = {"k", 1};

static void expect_none_wrong(const struct calls *c)
{
    assert_int_equal(0, c->wrong);
}

/* The newest text has WORDS in it. */
static void expect_text(const char *words)
{
    char text[400] = "";
    (void)bft_last_error(text, sizeof(text));
    if (!strstr(text, words))
        fail_msg("\"%s\" does not say \"%s\"", text, words);
}

/* --- handles ---------------------------------------------------------------- */

/* NAME, whose records may expire, and do not. */
static bft_tree *expiring_tree(struct engine_fixture *f, const char *name)
{
    bft_tree_options options = {.size = sizeof(options), .ttl_ms = BFT_FOREVER};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, name, &options, &tree));
    return tree;
}

static void no_handle_is_invalid(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct calls c = {.expected = BFT_INVALID, .words = "NULL"};
    (void)state;
    every_call_on_db(&c, NULL);
    every_call_on_tree(&c, NULL);
    every_call_on_batch(&c, NULL, engine_tree(f, "t", 0));
    every_call_on_cursor(&c, NULL);
    every_call_on_snapshot(&c, NULL, engine_tree(f, "t", 0));
    every_call_on_txn(&c, NULL, engine_tree(f, "t", 0));
    expect_none_wrong(&c);
    engine_fixture_free(f);
}

static void a_closed_handle_is_invalid(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct calls c = {.expected = BFT_INVALID, .words = "closed"};
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    bft_db *db = f->db;
    bft_txn *txn;
    (void)state;
    expect_ok(bft_snapshot_take(db, &snapshot));
    expect_ok(bft_txn_begin(db, BFT_SERIALIZABLE, &txn));
    engine_close(f);
    every_call_on_db(&c, db);
    every_call_on_tree(&c, tree);
    every_call_on_snapshot(&c, snapshot, tree);
    every_call_on_txn(&c, txn, tree);
    bft_snapshot_release(snapshot);
    CALL(&c, bft_close(db));
    expect_none_wrong(&c);
    engine_fixture_free(f);
}

/* To a snapshot, and a transaction, that came after the drop. */
static void past_is_gone(struct engine_fixture *f, struct calls *c,
                         bft_tree *tree)
{
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_txn *txn;
    char buf[8];
    size_t len;
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    /* provokes: bft_snapshot_get BFT_GONE, bft_snapshot_cursor BFT_GONE,
     *           bft_txn_get BFT_GONE, bft_txn_cursor BFT_GONE */
    CALL(c, bft_snapshot_get(snapshot, tree, KEY, buf, sizeof(buf), &len));
    CALL(c, bft_snapshot_cursor(snapshot, tree, &cursor));
    CALL(c, bft_txn_get(txn, tree, KEY, buf, sizeof(buf), &len));
    CALL(c, bft_txn_cursor(txn, tree, &cursor));
    expect_ok(bft_txn_put(txn, tree, KEY, KEY)); /* the commit tells */
    CALL(c, bft_txn_commit(txn, BFT_DEFAULT, NULL));
    bft_snapshot_release(snapshot);
}

static void a_dropped_tree_is_gone(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct calls c = {.expected = BFT_GONE, .words = "tree doomed"};
    bft_tree *tree = expiring_tree(f, "doomed");
    bft_cursor *cursor;
    (void)state;
    expect_ok(bft_put(tree, KEY, KEY));
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_tree_drop(f->db, "doomed"));
    every_call_on_tree(&c, tree);
    every_move(&c, cursor, KEY);
    past_is_gone(f, &c, tree);
    expect_none_wrong(&c);
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

/* --- reading ---------------------------------------------------------------- */

static void fail_sticky(struct engine_fixture *f, unsigned ops,
                        enum bfti_sim_harm harm, bft_status status)
{
    struct bfti_sim_fault fault = {
        .ops = ops, .nth = 1, .sticky = true, .harm = harm, .status = status};
    bfti_sim_fail(f->vfs, &fault);
}

/* A database of one record, on disk and not in memory. */
static struct engine_fixture *open_cold(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    engine_open(f);
    expect_ok(bft_put(engine_tree(f, "t", 0), KEY, KEY));
    expect_ok(bft_put(expiring_tree(f, "expiring"), KEY, KEY));
    engine_reopen(f);
    return f;
}

/* The same with a large value behind the record, and a cursor on it. */
static bft_cursor *cursor_on_large(struct engine_fixture *f, bft_tree **tree)
{
    static const char large[LARGE];
    bft_cursor *cursor;
    expect_ok(bft_put(engine_tree(f, "large", 0), KEY,
                      (bft_slice){large, sizeof(large)}));
    engine_reopen(f);
    *tree = engine_tree(f, "t", 0);
    expect_ok(bft_cursor_open(engine_tree(f, "large", 0), &cursor));
    expect_ok(bft_cursor_next(cursor));
    return cursor;
}

/* One bit of each grain behind the superblocks; done twice it is as it was. */
static void flip_all(struct engine_fixture *f)
{
    uint64_t bytes;
    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = 8192 + 40; at < bytes; at += 512)
        expect_ok(bfti_sim_flip(f->vfs, "/db/data", at, 0x10));
}

static void all_reads_fail(bft_status status)
{
    struct engine_fixture *f = open_cold();
    struct calls c = {.expected = status, .words = "/db/data"};
    bft_tree *tree;
    bft_cursor *on_large = cursor_on_large(f, &tree), *cursor;
    bft_snapshot *snapshot;
    bft_txn *txn;
    size_t len;
    char buf[8];
    expect_ok(bft_cursor_open(tree, &cursor));
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    if (status == BFT_CORRUPT)
        flip_all(f);
    else
        fail_sticky(f, BFTI_SIM_READ, BFTI_SIM_REFUSE, status);
    every_read(&c, tree, KEY);
    every_read(&c, expiring_tree(f, "expiring"), KEY);
    every_expiring_read(&c, expiring_tree(f, "expiring"), KEY);
    every_past_read(&c, snapshot, txn, tree, KEY);
    every_move(&c, cursor, KEY);
    every_fetch(&c, on_large);
    /* provokes: bft_verify BFT_IO */
    CALL(&c, bft_verify(f->db));
    expect_none_wrong(&c);
    bfti_sim_heal(f->vfs);
    if (status == BFT_CORRUPT)
        flip_all(f);
    expect_ok(bft_get(tree, KEY, buf, sizeof(buf), &len));
    expect_ok(bft_txn_get(txn, tree, KEY, buf, sizeof(buf), &len));
    bft_txn_abort(txn);
    bft_snapshot_release(snapshot);
    bft_cursor_close(cursor);
    bft_cursor_close(on_large);
    engine_fixture_free(f);
}

static void reads_tell_of_a_disk_that_refuses(void **state)
{
    (void)state;
    all_reads_fail(BFT_IO);
}

static void reads_tell_of_damage(void **state)
{
    (void)state;
    all_reads_fail(BFT_CORRUPT);
}

/* --- writing ---------------------------------------------------------------- */

static void make_trees(struct engine_fixture *f)
{
    static const char *const names[] = {"t", "dropped", "emptied", "renamed"};
    for (size_t i = 0; i < 4; i++)
        expect_ok(bft_put(engine_tree(f, names[i], 0), KEY, KEY));
    expect_ok(bft_put(expiring_tree(f, "expiring"), KEY, KEY));
}

static struct engine_fixture *open_to_write(bft_durability durability)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->options.durability = durability;
    engine_open(f);
    make_trees(f);
    return f;
}

/* What ops fail from then on, all calls that write tell with STATUS. */
static void all_writes_fail(struct engine_fixture *f, struct calls *c)
{
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_batch *batch;
    expect_ok(bft_batch_create(f->db, &batch));
    expect_ok(bft_batch_put(batch, tree, KEY, KEY));
    every_write(c, tree);
    every_expiring_write(c, expiring_tree(f, "expiring"));
    every_batch_commit(c, batch);
    every_tree_change(c, f->db);
    every_sync(c, f->db, engine_stats(f).accepted_lsn);
    bft_batch_free(batch);
    expect_none_wrong(c);
}

/* Closing tells the same, and the next opening finds all well. */
static void close_failing(struct engine_fixture *f, struct calls *c)
{
    /* provokes: bft_close BFT_NO_SPACE, bft_close BFT_IO,
     *           bft_close BFT_POISONED */
    CALL(c, bft_close(f->db));
    f->db = NULL;
    expect_none_wrong(c);
    bfti_sim_heal(f->vfs);
    engine_open(f);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void writes_tell_of_a_full_disk(void **state)
{
    struct engine_fixture *f = open_to_write(BFT_BUFFERED);
    struct calls c = {.expected = BFT_NO_SPACE, .words = "/db/"};
    (void)state;
    fail_sticky(f, BFTI_SIM_WRITE, BFTI_SIM_REFUSE, BFT_NO_SPACE);
    all_writes_fail(f, &c);
    close_failing(f, &c);
}

static void writes_tell_of_a_disk_that_refuses(void **state)
{
    struct engine_fixture *f = open_to_write(BFT_BUFFERED);
    struct calls c = {.expected = BFT_IO, .words = "/db/"};
    (void)state;
    fail_sticky(f, BFTI_SIM_WRITE, BFTI_SIM_REFUSE, BFT_IO);
    all_writes_fail(f, &c);
    close_failing(f, &c);
}

static void writes_tell_of_a_sync_that_failed(void **state)
{
    struct engine_fixture *f = open_to_write(BFT_SYNC);
    struct calls c = {.expected = BFT_POISONED, .words = "/db"};
    (void)state;
    fail_sticky(f, BFTI_SIM_SYNC, BFTI_SIM_REFUSE, BFT_IO);
    assert_true(bft_put(engine_tree(f, "t", 0), KEY, KEY) != BFT_OK);
    all_writes_fail(f, &c);
    /* provokes: bft_backup BFT_POISONED, bft_remove_expired BFT_POISONED */
    CALL(&c, bft_remove_expired(expiring_tree(f, "expiring"), NULL));
    CALL(&c, bft_backup(f->db, "/copy", NULL));
    close_failing(f, &c);
}

static void writes_tell_of_a_database_opened_to_be_read(void **state)
{
    struct engine_fixture *f = open_to_write(BFT_BUFFERED);
    struct calls c = {.expected = BFT_READ_ONLY, .words = "/db"};
    bft_txn *txn;
    (void)state;
    engine_close(f);
    f->options.read_only = true;
    engine_open(f);
    all_writes_fail(f, &c);
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    /* provokes: bft_txn_put BFT_READ_ONLY, bft_txn_delete BFT_READ_ONLY,
     *           bft_txn_put_until BFT_READ_ONLY */
    CALL(&c, bft_txn_put(txn, engine_tree(f, "t", 0), KEY, KEY));
    CALL(&c, bft_txn_put_until(txn, expiring_tree(f, "expiring"), KEY, KEY, 0));
    CALL(&c, bft_txn_delete(txn, engine_tree(f, "t", 0), KEY));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL)); /* it only read */
    expect_none_wrong(&c);
    engine_fixture_free(f);
}

/* --- opening ---------------------------------------------------------------- */

static void opening_tells_of_the_disk(void **state)
{
    static const struct {
        unsigned ops;
        enum bfti_sim_harm harm;
        bft_status status;
        const char *words;
    } cases[] = {
        /* provokes: bft_open BFT_IO, bft_open BFT_CORRUPT */
        {BFTI_SIM_READ, BFTI_SIM_REFUSE, BFT_IO, "/db/"},
        {BFTI_SIM_READ, BFTI_SIM_FLIP, BFT_CORRUPT, "/db/"},
        /* provokes: bft_open BFT_NO_SPACE, bft_open BFT_READ_ONLY */
        {BFTI_SIM_WRITE, BFTI_SIM_REFUSE, BFT_NO_SPACE, "/db/"},
        {BFTI_SIM_CREATE | BFTI_SIM_OPEN, BFTI_SIM_REFUSE, BFT_READ_ONLY,
         "/db/"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine_fixture *f = open_cold();
        /* Something to recover, and so to write. */
        expect_ok(bft_put(engine_tree(f, "t", 0), KEY, KEY));
        engine_crash(f, BFTI_SIM_KILL, 1);
        expect_ok(bft_close(f->db));
        f->db = NULL;
        fail_sticky(f, cases[i].ops, cases[i].harm, cases[i].status);
        expect_status(cases[i].status, engine_open_status(f));
        expect_text(cases[i].words);
        f->db = NULL;
        bfti_sim_heal(f->vfs);
        engine_fixture_free(f);
    }
}

static void opening_without_memory_says_so(void **state)
{
    struct engine_fixture *f = open_cold();
    unsigned refused = 0;
    bft_status status = BFT_NO_MEMORY;
    (void)state;
    engine_close(f);
    for (int64_t left = 0; status == BFT_NO_MEMORY; left++) {
        atomic_store(&f->allocs_left, left);
        calls_stale();
        /* provokes: bft_open BFT_NO_MEMORY */
        status = engine_open_status(f);
        atomic_store(&f->allocs_left, -1);
        if (status == BFT_NO_MEMORY)
            expect_text("no memory");
        refused += status != BFT_OK;
    }
    expect_status(BFT_OK, status);
    assert_true(refused > 10);
    engine_fixture_free(f);
}

/* --- memory ----------------------------------------------------------------- */

static bft_status multi_get(bft_tree *tree)
{
    bft_answer item[MANY];
    for (size_t i = 0; i < MANY; i++)
        item[i] = (bft_answer){.key = KEY};
    /* provokes: bft_multi_get BFT_NO_MEMORY */
    return bft_multi_get(tree, item, MANY);
}

static bft_status get_copy(bft_tree *tree)
{
    void *copy = NULL;
    size_t len;
    /* provokes: bft_get_copy BFT_NO_MEMORY */
    bft_status status = bft_get_copy(tree, KEY, &copy, &len);
    bft_free(copy);
    return status;
}

static void reads_tell_that_memory_ran_out(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct engine_fixture *f = open_cold();
        bft_tree *tree = engine_tree(f, "t", 0);
        unsigned refused = 0;
        bft_status status = BFT_NO_MEMORY;
        for (int64_t left = 0; status == BFT_NO_MEMORY; left++) {
            atomic_store(&f->allocs_left, left);
            calls_stale();
            status = which ? get_copy(tree) : multi_get(tree);
            atomic_store(&f->allocs_left, -1);
            if (status == BFT_NO_MEMORY)
                expect_text("no memory");
            refused += status == BFT_NO_MEMORY;
        }
        expect_ok(status);
        assert_true(refused > 0);
        engine_fixture_free(f);
    }
}

static void cursors_tell_that_memory_ran_out(void **state)
{
    struct engine_fixture *f = open_cold();
    struct calls c = {.expected = BFT_NO_MEMORY, .words = "no memory"};
    bft_tree *tree;
    bft_cursor *on_large = cursor_on_large(f, &tree), *cursor, *none;
    (void)state;
    expect_ok(bft_cursor_open(tree, &cursor));
    f->allocs_sticky = true;
    atomic_store(&f->allocs_left, 0);
    /* provokes: bft_cursor_open BFT_NO_MEMORY */
    CALL(&c, bft_cursor_open(tree, &none));
    /* provokes: bft_cursor_open_newest BFT_NO_MEMORY */
    CALL(&c, bft_cursor_open_newest(tree, &none));
    every_move(&c, cursor, KEY);
    every_fetch(&c, on_large);
    atomic_store(&f->allocs_left, -1);
    expect_none_wrong(&c);
    expect_ok(bft_cursor_first(cursor));
    bft_cursor_close(cursor);
    bft_cursor_close(on_large);
    engine_fixture_free(f);
}

/* --- snapshots and transactions --------------------------------------------- */

static void snapshots_tell_that_memory_ran_out(void **state)
{
    struct engine_fixture *f = open_cold();
    struct calls c = {.expected = BFT_NO_MEMORY, .words = "no memory"};
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_tree *expiring = expiring_tree(f, "expiring");
    bft_snapshot *snapshot, *none;
    bft_cursor *cursor;
    bft_txn *txn, *never;
    char buf[8];
    size_t len;
    (void)state;
    expect_ok(bft_snapshot_take(f->db, &snapshot));
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    expect_ok(bft_put(tree, KEY, (bft_slice){"other", 5}));
    f->allocs_sticky = true;
    atomic_store(&f->allocs_left, 0);
    /* provokes: bft_snapshot_take BFT_NO_MEMORY, bft_txn_begin BFT_NO_MEMORY,
     *           bft_snapshot_cursor BFT_NO_MEMORY, bft_txn_cursor BFT_NO_MEMORY,
     *           bft_txn_put BFT_NO_MEMORY, bft_txn_delete BFT_NO_MEMORY,
     *           bft_txn_put_until BFT_NO_MEMORY,
     *           bft_remove_expired BFT_NO_MEMORY */
    CALL(&c, bft_remove_expired(expiring, NULL));
    CALL(&c, bft_snapshot_take(f->db, &none));
    CALL(&c, bft_txn_begin(f->db, BFT_SERIALIZABLE, &never));
    CALL(&c, bft_snapshot_cursor(snapshot, tree, &cursor));
    CALL(&c, bft_txn_cursor(txn, tree, &cursor));
    CALL(&c, bft_txn_put(txn, tree, KEY, KEY));
    CALL(&c, bft_txn_put_until(txn, expiring, KEY, KEY, 0));
    CALL(&c, bft_txn_delete(txn, tree, KEY));
    every_past_read(&c, snapshot, txn, tree, KEY);
    atomic_store(&f->allocs_left, -1);
    expect_none_wrong(&c);
    /* They are as they were. */
    expect_ok(bft_snapshot_get(snapshot, tree, KEY, buf, sizeof(buf), &len));
    assert_int_equal(1, len);
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    bft_snapshot_release(snapshot);
    engine_fixture_free(f);
}

/* Make trees until there is no place for another's first leaf, in a memory that is
 * full of what cannot be written. */
static bft_status fill_memory(struct engine_fixture *f, bft_tree *tree)
{
    static const char bytes[100];
    bft_status status = BFT_OK;
    char text[32];
    for (unsigned n = 0; status == BFT_OK && n < WRITES_MAX; n++) {
        int len = snprintf(text, sizeof(text), "%09u", n);
        status = bft_put(tree, (bft_slice){text, (size_t)len},
                         (bft_slice){bytes, sizeof(bytes)});
    }
    status = BFT_OK;
    for (unsigned n = 0; status == BFT_OK && n < WRITES_MAX; n++) {
        (void)snprintf(text, sizeof(text), "%09u", n);
        status = bft_tree_open(f->db, text, NULL, &tree);
    }
    return status;
}

/* A history has a first leaf, too. */
static void snapshots_tell_of_a_disk(bft_status status)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct calls c = {.expected = status, .words = "/db/"};
    bft_snapshot *snapshot;
    bft_txn *txn;
    f->options.no_threads = true;
    f->options.durability = BFT_NONE;
    f->options.log_bytes = 64 << 20; /* no checkpoint */
    engine_open(f);
    fail_sticky(f, BFTI_SIM_WRITE, BFTI_SIM_REFUSE, status);
    expect_status(status, fill_memory(f, engine_tree(f, "t", 0)));
    /* provokes: bft_snapshot_take BFT_IO, bft_snapshot_take BFT_NO_SPACE,
     *           bft_txn_begin BFT_IO, bft_txn_begin BFT_NO_SPACE */
    CALL(&c, bft_snapshot_take(f->db, &snapshot));
    CALL(&c, bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    atomic_store(&f->reported, 0); /* what the background could not do */
    close_failing(f, &c);
}

static void snapshots_tell_of_disks_that_refuse(void **state)
{
    (void)state;
    snapshots_tell_of_a_disk(BFT_IO);
    snapshots_tell_of_a_disk(BFT_NO_SPACE);
}

static void transactions_tell_what_is_too_much(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_status status = BFT_NOT_FOUND;
    bft_cursor *cursor;
    bft_txn *txn;
    void *copy;
    char buf[8], text[16];
    bft_slice between = {text, 0};
    size_t len;
    (void)state;
    expect_ok(bft_put(tree, KEY, (bft_slice){"12345678", 8}));
    for (unsigned n = 0; n < 50; n++) { /* whose leaves begin with long keys */
        char key[81];
        (void)snprintf(key, sizeof(key), "%c%040u%039u", n % 2 ? '!' : '~', n,
                       n);
        expect_ok(bft_put(tree, (bft_slice){key, 80}, KEY));
    }
    expect_ok(bft_checkpoint(f->db)); /* which splits */
    expect_ok(bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn));
    expect_status(BFT_NOT_FOUND, bft_txn_get(txn, tree, (bft_slice){"n", 1},
                                             buf, sizeof(buf), &len));
    expect_status(BFT_TOO_SMALL, bft_txn_get(txn, tree, KEY, buf, 4, &len));
    assert_int_equal(8, len);
    for (unsigned n = 0; n < WRITES_MAX; n++) /* kept once */
        expect_ok(bft_txn_get(txn, tree, KEY, buf, sizeof(buf), &len));
    for (unsigned n = 0; status == BFT_NOT_FOUND && n < WRITES_MAX; n++) {
        between.len = (size_t)snprintf(text, sizeof(text), "z%06u", n);
        status = bft_txn_get(txn, tree, between, buf, sizeof(buf), &len);
    }
    /* provokes: bft_txn_get BFT_TOO_BIG */
    expect_status(BFT_TOO_BIG, status);
    expect_text("1/8 of the memory budget");
    expect_status(BFT_TOO_BIG,
                  bft_txn_get_copy(txn, tree, between, &copy, &len));
    assert_null(copy);
    expect_ok(bft_txn_cursor(txn, tree, &cursor));
    expect_status(BFT_TOO_BIG, bft_cursor_first(cursor));
    expect_status(BFT_TOO_BIG, bft_cursor_last(cursor));
    expect_status(BFT_TOO_BIG, bft_cursor_next(cursor));
    expect_status(BFT_TOO_BIG, bft_cursor_prev(cursor));
    expect_status(BFT_TOO_BIG,
                  bft_cursor_seek(cursor, BFT_GE, (bft_slice){"!", 1}));
    bft_cursor_close(cursor);
    bft_txn_abort(txn);
    engine_fixture_free(f);
}

/* --- each way to write ------------------------------------------------------ */

enum { WAYS = 11, WAY_UNTIL = 7 }; /* from there on with a time */

struct one {
    bft_slice key, value;
    bool given;
};

static bft_status next_one(void *ctx, bft_bulk_record *record)
{
    struct one *one = ctx;
    if (one->given)
        return BFT_NOT_FOUND;
    one->given = true;
    record->key = one->key;
    record->value = one->value;
    return BFT_OK;
}

static bft_status read_zeros(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0, len);
    return BFT_OK;
}

/* every call below provokes: BFT_CORRUPT BFT_NO_MEMORY */
static bft_status write_in_a_way(bft_tree *tree, unsigned way, bft_slice key)
{
    static const char bytes[200];
    bft_slice none = {NULL, 0}, value = {bytes, sizeof(bytes)};
    struct one one = {.key = key, .value = value};
    uint64_t deleted;
    switch (way) {
    case 0:
        return bft_put(tree, key, value);
    case 1:
        return bft_insert(tree, key, value);
    case 2:
        return bft_replace(tree, key, NULL, &value);
    case 3:
        return bft_put_stream(tree, key, LARGE, read_zeros, NULL);
    case 4:
        return bft_delete(tree, key);
    case 5:
        return bft_bulk_merge(tree, next_one, &one, NULL);
    case WAY_UNTIL:
        return bft_put_until(tree, key, value, 0);
    case WAY_UNTIL + 1:
        return bft_insert_until(tree, key, value, 0);
    case WAY_UNTIL + 2:
        return bft_replace_until(tree, key, NULL, &value, 0);
    case WAY_UNTIL + 3:
        return bft_put_stream_until(tree, key, LARGE, read_zeros, NULL, 0);
    default:
        /* One that counts: else what is damaged is met afterwards. */
        return bft_delete_range(tree, none, none, &deleted);
    }
}

/* Some of them reach what is damaged only when they merge. */
static void every_way_fails(bool damaged, bft_status status, const char *words)
{
    for (unsigned way = 0; way < WAYS; way++) {
        struct engine_fixture *f = open_cold();
        bft_tree *tree = way >= WAY_UNTIL ? expiring_tree(f, "expiring")
                                          : engine_tree(f, "t", 0);
        bft_status got = BFT_OK;
        if (damaged)
            flip_all(f);
        f->allocs_sticky = true;
        atomic_store(&f->allocs_left, damaged ? -1 : 0);
        for (unsigned n = 0; got == BFT_OK && n < WRITES_MAX; n++) {
            char text[32];
            int len = snprintf(text, sizeof(text), "k%09u", n);
            calls_stale();
            got = write_in_a_way(tree, way, (bft_slice){text, (size_t)len});
        }
        if (got != status)
            print_error("way %u\n", way);
        expect_status(status, got);
        expect_text(words);
        atomic_store(&f->allocs_left, -1);
        (void)bft_close(f->db);
        f->db = NULL;
        atomic_store(&f->reported, 0);
        engine_fixture_free(f);
    }
}

static void every_way_to_write_tells_of_damage(void **state)
{
    (void)state;
    every_way_fails(true, BFT_CORRUPT, "/db/data");
}

static void every_way_to_write_tells_that_memory_ran_out(void **state)
{
    (void)state;
    every_way_fails(false, BFT_NO_MEMORY, "no memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_handle_is_invalid),
        cmocka_unit_test(a_closed_handle_is_invalid),
        cmocka_unit_test(a_dropped_tree_is_gone),
        cmocka_unit_test(reads_tell_of_a_disk_that_refuses),
        cmocka_unit_test(reads_tell_of_damage),
        cmocka_unit_test(writes_tell_of_a_full_disk),
        cmocka_unit_test(writes_tell_of_a_disk_that_refuses),
        cmocka_unit_test(writes_tell_of_a_sync_that_failed),
        cmocka_unit_test(writes_tell_of_a_database_opened_to_be_read),
        cmocka_unit_test(opening_tells_of_the_disk),
        cmocka_unit_test(opening_without_memory_says_so),
        cmocka_unit_test(reads_tell_that_memory_ran_out),
        cmocka_unit_test(cursors_tell_that_memory_ran_out),
        cmocka_unit_test(snapshots_tell_that_memory_ran_out),
        cmocka_unit_test(snapshots_tell_of_disks_that_refuse),
        cmocka_unit_test(transactions_tell_what_is_too_much),
        cmocka_unit_test(every_way_to_write_tells_of_damage),
        cmocka_unit_test(every_way_to_write_tells_that_memory_ran_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
