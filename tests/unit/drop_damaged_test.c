/*
 * Trees that go while something of theirs cannot be read.
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

enum { LONG = 1 << 20, SHORT = 90 };

/* A byte of each extent of TYPE that the tree ID has, or any tree if that is 0, is
 * wrong; how many. */
static unsigned damage(struct engine_fixture *f, enum bfti_extent_type type,
                       uint32_t id)
{
    unsigned damaged = 0;
    uint64_t bytes;

    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (uint64_t at = UINT64_C(2) * BFTI_BLOCK; at < bytes; at += BFTI_GRAIN) {
        struct bfti_extent_header head;
        uint32_t tree;
        size_t got;
        expect_ok(bfti_sim_read(f->vfs, BFTI_SIM_CACHE, "/db/data", at, &head,
                                sizeof(head), &got));
        tree = le32_get(head.tree_id);
        if (got < sizeof(head) || head.type != type || tree == 0 ||
            (id && tree != id))
            continue;
        expect_ok(
            bfti_sim_flip(f->vfs, "/db/data", at + BFTI_EXTENT_HEADER, 1));
        damaged++;
    }
    return damaged;
}

static unsigned damage_lists(struct engine_fixture *f)
{
    return damage(f, BFTI_EXTENT_VALUE_LIST, 0);
}

static void put_key(bft_tree *tree, const char *key, size_t len)
{
    static uint8_t value[LONG];

    expect_ok(
        bft_put(tree, (bft_slice){key, strlen(key)}, (bft_slice){value, len}));
}

static void put(bft_tree *tree, unsigned n, size_t len)
{
    char key[16];

    (void)snprintf(key, sizeof(key), "key %u", n);
    put_key(tree, key, len);
}

/* A key between that of N and the next one. */
static void put_behind(bft_tree *tree, unsigned n)
{
    char key[16];

    (void)snprintf(key, sizeof(key), "key %u+", n);
    put_key(tree, key, SHORT);
}

/* A leaf goes though nobody can tell what its large value has, and though its
 * records in memory ask for a split. */
static void a_checkpoint_passes_by_what_a_drop_left(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_slice all = {NULL, 0};
    bft_tree *tree, *other;
    uint64_t count;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    other = engine_tree(f, "other", 512);
    tree = engine_tree(f, "t", 512);
    put(tree, 0, LONG);
    for (unsigned n = 1; n < 4; n++)
        put(tree, n, SHORT);
    expect_ok(bft_checkpoint(f->db));
    assert_true(damage_lists(f) > 0);
    for (unsigned n = 4; n < 8; n++)
        put(tree, n, SHORT);
    put(other, 1, SHORT);
    expect_status(BFT_CORRUPT, bft_tree_drop(f->db, "t"));
    expect_ok(bft_checkpoint(f->db));
    put(other, 2, SHORT);
    expect_ok(bft_checkpoint(f->db));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    engine_reopen(f);
    other = engine_tree(f, "other", 512);
    expect_ok(bft_count(other, all, all, &count));
    assert_int_equal(2, count);
    tree = engine_tree(f, "t", 512); /* another one */
    expect_ok(bft_count(tree, all, all, &count));
    assert_int_equal(0, count);
    /* What is lost is space. */
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- what is opened again -------------------------------------------------- */

enum { BASE, DELTA, LARGE, KINDS }; /* what of a leaf is damaged, and matters */

/* A tree "t" with a leaf that has a delta, and a tree "other" with one record. */
static bft_tree *make_trees(struct engine_fixture *f, unsigned kind)
{
    bft_tree *tree;
    put(engine_tree(f, "other", 512), 1, SHORT);
    tree = engine_tree(f, "t", 512);
    if (kind == LARGE)
        put(tree, 0, 20000);
    for (unsigned n = 1; n < 4; n++)
        put(tree, n, SHORT);
    expect_ok(bft_checkpoint(f->db));
    put(tree, 4, 1);
    expect_ok(bft_checkpoint(f->db));
    return tree;
}

static void damage_leaf(struct engine_fixture *f, unsigned kind, uint32_t id)
{
    enum bfti_extent_type type =
        kind == DELTA ? BFTI_EXTENT_DELTA : BFTI_EXTENT_LEAF;
    assert_true(damage(f, type, id) > 0);
}

static void expect_count(struct engine_fixture *f, const char *name,
                         uint64_t records)
{
    bft_slice all = {NULL, 0};
    uint64_t count;
    expect_ok(bft_count(engine_tree(f, name, 512), all, all, &count));
    assert_int_equal(records, count);
}

/* The database is fit for use; what may be LOST of the leaf is space, and nobody
 * but a verify tells of it. */
static void expect_fit(struct engine_fixture *f, bool lost)
{
    for (unsigned i = 0; i < 3; i++) {
        expect_count(f, "other", 1);
        expect_ok(bft_checkpoint(f->db));
        expect_status(lost ? BFT_CORRUPT : BFT_OK, bft_verify(f->db));
        engine_reopen(f);
    }
}

/* That, in a database of one thread. */
static bft_tree *damaged_tree(struct engine_fixture *f, unsigned kind)
{
    bft_tree *tree;
    f->options.no_threads = true;
    engine_open(f);
    tree = make_trees(f, kind);
    damage_leaf(f, kind, tree->tree->id);
    return tree;
}

static void what_is_dropped_stays_so(unsigned kind, bool dirty, bool killed)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    tree = damaged_tree(f, kind);
    if (dirty)
        put(tree, 5, SHORT);
    /* Where all that a leaf has is known without the page itself, it is not
     * asked for. */
    expect_status(kind == BASE ? BFT_OK : BFT_CORRUPT,
                  bft_tree_drop(f->db, "t"));
    if (killed)
        engine_crash(f, BFTI_SIM_KILL, 1);
    expect_fit(f, kind != BASE);
    expect_count(f, "t", 0);
    engine_fixture_free(f);
}

static void a_damaged_tree_that_was_dropped_stays_so(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4 * KINDS; i++)
        what_is_dropped_stays_so(i / 4, i & 1, i & 2);
}

static void what_is_truncated_stays_so(unsigned kind, bool killed)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    tree = damaged_tree(f, kind);
    expect_ok(bft_tree_truncate(f->db, "t"));
    put(tree, 7, SHORT);
    if (killed)
        engine_crash(f, BFTI_SIM_KILL, 1);
    expect_count(f, "t", 1);
    expect_fit(f, kind != BASE);
    expect_count(f, "t", 1);
    engine_fixture_free(f);
}

static void a_damaged_tree_that_was_truncated_stays_so(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * KINDS; i++)
        what_is_truncated_stays_so(i / 2, i & 1);
}

static bft_status next_loaded(void *ctx, bft_bulk_record *record)
{
    unsigned *n = ctx;
    if (*n == 3)
        return BFT_NOT_FOUND;
    record->key = (bft_slice){&"abc"[(*n)++], 1};
    record->value = (bft_slice){"loaded", 6};
    return BFT_OK;
}

/* The tree that a load replaced is damaged when redo comes to that. */
static void what_was_loaded_is_there(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    unsigned n = 0;
    uint64_t records;
    uint32_t id;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = make_trees(f, LARGE);
    id = tree->tree->id;
    for (unsigned i = 0; i < 5; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "key %u", i);
        expect_ok(bft_delete(tree, (bft_slice){key, strlen(key)}));
    }
    expect_ok(bft_bulk_load(tree, NULL, next_loaded, &n, &records));
    assert_true(damage(f, BFTI_EXTENT_LEAF, id) > 0);
    engine_crash(f, BFTI_SIM_KILL, 1);
    expect_count(f, "t", 3);
    expect_fit(f, false); /* there was no value any more */
    expect_count(f, "t", 3);
    engine_fixture_free(f);
}

/* --- what cannot be read now ------------------------------------------------- */

static void fail_reads(struct engine_fixture *f)
{
    static const struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                                .path = "/db/data",
                                                .nth = 1,
                                                .sticky = true,
                                                .harm = BFTI_SIM_REFUSE,
                                                .status = BFT_IO};
    bfti_sim_fail(f->vfs, &fault);
}

/* "t" goes, but stays for as long as nothing can be read: checkpoints pass it by. */
static void drop_without_reading(struct engine_fixture *f)
{
    fail_reads(f);
    expect_status(BFT_IO, bft_tree_drop(f->db, "t"));
    for (unsigned i = 0; i < 2; i++)
        expect_ok(bft_checkpoint(f->db));
    assert_true(bfti_sim_struck(f->vfs) > 0);
    bfti_sim_heal(f->vfs);
    expect_ok(bft_checkpoint(f->db));
    expect_fit(f, false);
}

static struct engine_fixture *open_roomy(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    f->options.memory_bytes = 8 << 20;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    put(engine_tree(f, "other", 512), 1, SHORT);
    return f;
}

enum { FEW = 20, MANY = 3000 };

/* "t", whose leaves have deltas, and in memory what asks for a read, or for a
 * SPLIT; STAGED: there is so much else that checkpoints flush. */
static struct engine_fixture *open_with_deltas(bool staged, bool split)
{
    struct engine_fixture *f = open_roomy();
    unsigned keys = staged ? 10 * FEW : FEW;
    bft_tree *tree = engine_tree(f, "t", 512);
    for (unsigned n = 0; n < keys; n++)
        put(tree, n, SHORT);
    for (unsigned n = 0; staged && n < MANY; n++)
        put(engine_tree(f, "more", 512), n, SHORT);
    expect_ok(bft_checkpoint(f->db));
    for (unsigned n = 0; n < keys; n += 5)
        put(tree, n, 1);
    expect_ok(bft_checkpoint(f->db));
    for (unsigned n = 0; n < keys; n++)
        if (split)
            put_behind(tree, n);
        else if (n % 2)
            put(tree, n, SHORT);
    assert_int_equal(staged, bfti_space_staged(f->db->engine));
    return f;
}

static void checkpoints_go_on_without_reading(void **state)
{
    (void)state;
    for (unsigned staged = 0; staged < 2; staged++) {
        struct engine_fixture *f = open_with_deltas(staged, false);
        drop_without_reading(f);
        engine_fixture_free(f);
    }
}

/* Nor does one wait for a split of such a leaf, which does not begin any more.
 * The leaf cannot go for want of memory. */
static void checkpoints_go_on_without_splits(void **state)
{
    enum { ALLOCATIONS = 6 };
    (void)state;
    for (unsigned i = 0; i < 2 * ALLOCATIONS; i++) {
        struct engine_fixture *f = open_with_deltas(i & 1, true);
        bft_status status;
        fail_reads(f);
        expect_status(BFT_IO, bft_tree_drop(f->db, "t"));
        bfti_sim_heal(f->vfs);
        atomic_store(&f->allocs_left, i / 2);
        status = bft_checkpoint(f->db);
        atomic_store(&f->allocs_left, -1);
        if (status != BFT_NO_MEMORY)
            expect_ok(status);
        expect_fit(f, false);
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_passes_by_what_a_drop_left),
        cmocka_unit_test(a_damaged_tree_that_was_dropped_stays_so),
        cmocka_unit_test(a_damaged_tree_that_was_truncated_stays_so),
        cmocka_unit_test(what_was_loaded_is_there),
        cmocka_unit_test(checkpoints_go_on_without_reading),
        cmocka_unit_test(checkpoints_go_on_without_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
