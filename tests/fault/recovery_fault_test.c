/*
 * The opening of a database that a crash ended, when its disk or its memory fails:
 * each call and each allocation in turn.  It tells, or does without; and the next
 * one, all being well, finds all that was synced.
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
#include "park.h"
#include "tally.h"

enum {
    RECORDS = 600,
    SHORT = 60,
    NAMED = 150000,  /* a value that frames name by its place */
    LISTED = 600000, /* one of several extents */
    CARRIED = 3000,  /* one that is in its frame, and large for its leaf */
    LOADED = 200,
};

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "k%08u", i)};
}

static bft_status read_letters(void *ctx, void *buf, size_t len)
{
    memset(buf, *(const char *)ctx, len);
    return BFT_OK;
}

/* Of LEN letters: that with which the key begins. */
static void put_long(bft_tree *tree, const char *key, size_t len)
{
    char letter = key[0];
    expect_ok(
        bft_put_stream(tree, text_slice(key), len, read_letters, &letter));
}

static void expect_long(bft_tree *tree, const char *key, size_t len)
{
    const char *letters;
    void *copy;
    size_t got;
    expect_ok(bft_get_copy(tree, text_slice(key), &copy, &got));
    assert_int_equal(len, got);
    letters = copy;
    for (size_t i = 0; i < len; i++)
        if (letters[i] != key[0])
            fail_msg("byte %zu of %s is wrong", i, key);
    bft_free(copy);
}

static void put_some(bft_tree *tree, unsigned from, unsigned count)
{
    static const char value[SHORT];
    char buf[16];
    for (unsigned i = from; i < from + count; i++)
        expect_ok(
            bft_put(tree, key_of(buf, i), (bft_slice){value, sizeof(value)}));
}

static bft_status next_record(void *ctx, bft_bulk_record *record)
{
    static char buf[16];
    unsigned *done = ctx;
    if (*done == LOADED)
        return BFT_NOT_FOUND;
    record->key = record->value = key_of(buf, (*done)++);
    return BFT_OK;
}

/* --- what is to be recovered ----------------------------------------------------- */

#ifndef NDEBUG

static void put_late(void *arg)
{
    put_long(arg, "late", NAMED);
}

static void drop_other(void *arg)
{
    expect_ok(bft_tree_drop(arg, "other"));
}

/* A put into a tree, in the log behind its drop. */
static void drop_before_a_put(struct engine_fixture *f)
{
    struct parked writer, dropper;
    bft_tree *other = engine_tree(f, "other", 512);
    assert_true(park_start(&writer, "write:guarded", 0, put_late, other));
    assert_true(park_start(&dropper, "drop:logged", 0, drop_other, f->db));
    park_end(&writer);
    park_end(&dropper);
}

#else

static void drop_before_a_put(struct engine_fixture *f)
{
    expect_ok(bft_tree_drop(f->db, "other"));
}

#endif

/* In the image, and then in the log. */
static void fill(struct engine_fixture *f)
{
    static const char value[CARRIED];
    bft_slice none = {NULL, 0};
    unsigned loaded = 0;
    uint64_t count;
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_tree *gaps = engine_tree(f, "gaps", 512);
    put_some(tree, 0, RECORDS);
    put_some(gaps, 0, RECORDS);
    put_some(engine_tree(f, "other", 512), 0, 10);
    put_long(tree, "xylem", NAMED);
    expect_ok(bft_checkpoint(f->db));
    put_long(tree, "xylem", LISTED);
    put_long(tree, "yarrow", NAMED);
    expect_ok(
        bft_put(tree, text_slice("zinnia"), (bft_slice){value, sizeof(value)}));
    expect_ok(bft_bulk_load(engine_tree(f, "loaded", 512), NULL, next_record,
                            &loaded, &count));
    put_some(tree, RECORDS, RECORDS);
    expect_ok(bft_delete_range(gaps, text_slice("k00000010"), none, &count));
    expect_ok(bft_delete(tree, text_slice("yarrow")));
    put_some(tree, 2 * RECORDS, RECORDS);
    put_long(tree, "yarrow", LISTED);
    expect_ok(bft_tree_rename(f->db, "loaded", "renamed"));
    drop_before_a_put(f);
    expect_ok(bft_sync(f->db));
}

static void expect_count(struct engine_fixture *f, const char *name,
                         uint64_t expected)
{
    bft_slice none = {NULL, 0};
    uint64_t count;
    expect_ok(bft_count(engine_tree(f, name, 512), none, none, &count));
    assert_int_equal(expected, count);
}

static void expect_all(struct engine_fixture *f)
{
    bft_tree *tree = engine_tree(f, "t", 512);
    size_t len;
    char byte;
    expect_count(f, "t", 3 * RECORDS + 3);
    expect_count(f, "gaps", 10);
    expect_count(f, "renamed", LOADED);
    expect_count(f, "other", 0); /* a new one */
    expect_long(tree, "xylem", LISTED);
    expect_long(tree, "yarrow", LISTED);
    expect_status(BFT_TOO_SMALL,
                  bft_get(tree, text_slice("zinnia"), &byte, 1, &len));
    assert_int_equal(CARRIED, len);
    expect_ok(bft_verify(f->db));
}

/* Closed, with what the crash has left in *CRASHED. */
static struct engine_fixture *crash(struct bfti_vfs **crashed)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->surroundings.plain_heap = true; /* each allocation may fail */
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    fill(f);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, crashed));
    engine_close(f);
    return f;
}

static void begin_anew(struct engine_fixture *f, struct bfti_vfs *crashed)
{
    bfti_vfs_sim_destroy(f->vfs);
    expect_ok(bfti_sim_image(crashed, BFTI_SIM_KEEP, 1, &f->vfs));
}

/* The opening ended with STATUS; STRUCK: something had failed. */
static void expect_outcome(struct engine_fixture *f, bft_status expected,
                           bft_status status, bool struck, uint64_t nth)
{
    char text[400] = "";
    (void)bft_last_error(text, sizeof(text));
    if (status != BFT_OK) {
        f->db = NULL;
        if (!struck || status != expected || text[0] == 0)
            fail_msg("failure %llu: %d, not %d: \"%s\"",
                     (unsigned long long)nth, (int)status, (int)expected, text);
    }
    bfti_sim_heal(f->vfs);
    atomic_store(&f->allocs_left, -1);
    if (status != BFT_OK)
        engine_open(f);
    expect_all(f);
    atomic_store(&f->reported, 0);
    engine_close(f);
}

/* --- tests ------------------------------------------------------------------------ */

static void every_call_of_a_recovery_may_fail(void **state)
{
    struct bfti_vfs *crashed;
    struct engine_fixture *f = crash(&crashed);
    uint64_t struck = 1, told = 0, n = 1;
    (void)state;
    for (; struck; n++) {
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_ALL,
                                       .nth = n,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = n % 3 ? BFT_IO : BFT_NO_SPACE};
        bft_status status;
        begin_anew(f, crashed);
        bfti_sim_fail(f->vfs, &fault);
        status = engine_open_status(f);
        struck = bfti_sim_struck(f->vfs);
        told += status != BFT_OK;
        expect_outcome(f, fault.status, status, struck, n);
    }
    tally(TALLY_FAULTS, n - 2);
    assert_true(told > 50);
    bfti_vfs_sim_destroy(crashed);
    engine_fixture_free(f);
}

static void every_allocation_of_a_recovery_may_fail(void **state)
{
    struct bfti_vfs *crashed;
    struct engine_fixture *f = crash(&crashed);
    uint64_t told = 0;
    bool struck = true;
    int64_t n = 0;
    (void)state;
    for (; struck; n++) {
        bft_status status;
        begin_anew(f, crashed);
        atomic_store(&f->allocs_left, n);
        status = engine_open_status(f);
        struck = atomic_load(&f->allocs_left) < 0;
        told += status != BFT_OK;
        expect_outcome(f, BFT_NO_MEMORY, status, struck, (uint64_t)n);
    }
    tally(TALLY_FAULTS, (uint64_t)(n - 1));
    assert_true(told > 50);
    bfti_vfs_sim_destroy(crashed);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_of_a_recovery_may_fail),
        cmocka_unit_test(every_allocation_of_a_recovery_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
